"""Bytes to columns and answers to bytes."""

import csv
import io
import json
import math
import struct
import time
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ketch import codec
from ketch.codec import CSV, JSON, accepted, decode, encode, flatten, from_csv, media_type, typed_cells
from ketch.errors import NotAcceptable, RequestError, RowsRefused, TooManyRows, UndecodableBody, UnsupportedMediaType
from ketch.schema import ABSENT, Field

FIELDS = (
    Field("age", "integer"),
    Field("fee", "number", required=False),
    Field("plan", "category", categories=("basic", "gold")),
    Field("note", "text", required=False),
    Field("paid", "boolean"),
)


def read(body: bytes | str, kind: str = JSON, max_rows: int = 10_000) -> codec.Table:
    return decode(body.encode() if isinstance(body, str) else body, kind, FIELDS, max_rows=max_rows)


# JSON


def test_one_object_and_a_list_of_objects() -> None:
    one = read('{"age": 3, "plan": "gold"}')
    assert (one.columns, one.n, one.single) == ({"age": [3], "plan": ["gold"]}, 1, True)
    many = read('[{"age": 3}, {"plan": "gold", "age": null}]')
    assert (many.columns, many.n, many.single) == ({"age": [3, None], "plan": [ABSENT, "gold"]}, 2, False)
    assert read("{}").columns == {}
    assert read("[{}]").n == 1
    assert read('{"age": 1, "age": 2}').columns == {"age": [2]}  # the last one counts, as everywhere


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": Infinity}', "NaN"),
        (b'{"a": -Infinity}', "NaN"),
        (b"{'a': 1}", "not valid JSON"),
        (b'{"a": 1', "not valid JSON"),
        (b'{"a": 1} x', "not valid JSON"),
        (b'\xef\xbb\xbf{"a": 1}', "not valid JSON"),
        ('{"a": 1}'.encode("utf-16"), "not valid JSON"),
        (b'{"a": "\xff"}', "not valid JSON"),
        (b'{"a": "\\ud800"}', "not valid JSON"),
        (b'{"a": 1e999}', "not valid JSON"),
        (b'{"a": ' + b"9" * 6000 + b"}", "not valid JSON"),
        (b"[" * 100_000, "nested deeper"),
        (b'{"a":' * 100_000, "nested deeper"),
    ],
)
def test_what_is_no_json(body: bytes, words: str) -> None:
    with pytest.raises(UndecodableBody, match=words) as caught:
        read(body)
    assert caught.value.hint
    assert caught.value.status == 400


@pytest.mark.parametrize("body", ["[]", "3", "null", '"x"', "true", "[1]", "[{}, []]", "[[{}]]", "[null]"])
def test_what_is_no_row(body: str) -> None:
    with pytest.raises(RowsRefused) as caught:
        read(body)
    assert caught.value.errors[0]["code"] == "wrong-type"
    assert caught.value.errors[0]["row"] == (1 if body == "[{}, []]" else 0)


def nested(depth: int, *, single: bool, inner: str = "[]") -> str:
    """Write a body that is nested exactly so deep."""
    own = 1 if single else 2
    around = depth - own
    value = "[" * around + "]" * around if inner == "[]" else '{"x":' * (around - 1) + "{}" + "}" * (around - 1)
    return f'{{"a": {value}}}' if single else f'[{{"a": {value}}}]'


@pytest.mark.parametrize("single", [True, False])
@pytest.mark.parametrize("inner", ["[]", "{}"])
def test_a_body_is_nested_sixty_four_deep_and_no_deeper(single: bool, inner: str) -> None:
    assert read(nested(64, single=single, inner=inner)).n == 1
    with pytest.raises(UndecodableBody, match="deeper than 64"):
        read(nested(65, single=single, inner=inner))


def test_ten_thousand_rows_and_one_more() -> None:
    assert read("[" + ",".join(["{}"] * 10_000) + "]").n == 10_000
    with pytest.raises(TooManyRows) as caught:
        read("[" + ",".join(["{}"] * 10_001) + "]")
    assert caught.value.status == 413
    with pytest.raises(TooManyRows):
        read("age\n" + "1\n" * 10_001, CSV)
    assert read("age\n" + "1\n" * 10_000, CSV).n == 10_000


def test_rows_without_common_names_do_not_fill_the_memory() -> None:
    body = json.dumps([{f"n{row}.{place}": 1 for place in range(40)} for row in range(10_000)])
    began = time.perf_counter()
    with pytest.raises(RowsRefused, match="400000 different fields"):
        read(body)
    assert time.perf_counter() - began < 10
    wide = read(json.dumps([{f"n{place}": 1 for place in range(400)}] * 100))
    assert len(wide.columns) == 400


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60), st.sampled_from([JSON, CSV, "application/x+json; charset=utf-8", "", "text/xml"]))
@example(b'"\xed\xa0\x80"', JSON)
@example(b"\x00", CSV)
@example(b'a\n"', CSV)
@example(b"a,b\r\r\n1,2", CSV)
def test_any_bytes_are_read_or_refused(body: bytes, kind: str) -> None:
    for each in (body, b'[{"a":' + body + b"}]", b'{"age": "' + body + b'"}', b"age,fee\n" + body):
        try:
            table = read(each, kind)
        except RequestError as error:
            told = error.hint
        else:
            told = "read"
            assert all(len(values) == table.n for values in table.columns.values())
        assert told


SOUND = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
    | SOUND,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SOUND, inner, max_size=3),
    max_leaves=4,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), JSON_VALUES), min_size=1, max_size=4)
)
def test_columns_hold_what_the_json_said(rows: list[dict[str, Any]]) -> None:
    table = read(json.dumps(rows))
    for place, row in enumerate(rows):
        got = {name: values[place] for name, values in table.columns.items() if values[place] is not ABSENT}
        assert got == row


@pytest.mark.parametrize(
    ("header", "kind"),
    [
        ("", JSON),
        ("application/json", JSON),
        ("Application/JSON; charset=utf-8", JSON),
        ("application/vnd.api+json", JSON),
        ("text/csv; header=present", CSV),
        (" TEXT/CSV", CSV),
        ("text/plain", "text/plain"),
    ],
)
def test_media_types(header: str, kind: str) -> None:
    assert media_type(header) == kind


def test_an_unknown_media_type_is_refused_in_few_words() -> None:
    with pytest.raises(UnsupportedMediaType) as caught:
        read("{}", "x" * 10_000)
    assert len(caught.value.message) < 200
    assert caught.value.status == 415


# CSV


def test_cells_become_what_their_field_says() -> None:
    body = "age, fee,plan,note,paid,other\n3,1.5,gold,NA,TRUE,x\n\n 4 ,,basic,,0,\n"
    table = read(body, "text/csv")
    assert table.columns == {
        "age": [3, 4],
        "fee": [1.5, None],
        "plan": ["gold", "basic"],
        "note": ["NA", None],
        "paid": [True, False],
        "other": ["x", None],
    }
    assert (table.n, table.single) == (2, False)


def test_blanks_around_a_name_stay_where_the_contract_has_them() -> None:
    fields = [Field(" fee", "number"), Field("age", "number")]
    assert from_csv(b" fee, age\n1,2\n", fields, 10).columns == {" fee": [1], "age": [2]}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "name for every column"),
        (b"\n", "name for every column"),
        (b"a,,b\n1,2,3\n", "name for every column"),
        (b"a,a\n1,2\n", "two columns named 'a'"),
        (b"a, a\n1,2\n", "two columns named 'a'"),
        (b"a,b\n1\n", "Line 2 of the CSV has 1 cells, the header has 2"),
        (b"a,b\n1,2\n1,2,3\n", "Line 3"),
        (b'a,b\n"1"2,3\n', "cannot be read"),
        (b'a,b\n"1,2\n', "cannot be read"),
        (b"a\n\xff\n", "not UTF-8"),
        ("a\n1\n".encode("utf-16"), "not UTF-8"),
        (b"a\n" + b"x" * 140_000, "field larger"),
    ],
)
def test_what_is_no_csv(body: bytes, words: str) -> None:
    with pytest.raises(UndecodableBody, match=words) as caught:
        read(body, CSV)
    assert caught.value.hint


def test_a_header_alone_has_no_rows() -> None:
    for body in (b"a,b\n", b"a,b", b"\xef\xbb\xbfa\n\n\n"):
        with pytest.raises(RowsRefused, match="no rows"):
            read(body, CSV)


def test_a_byte_order_mark_is_no_part_of_the_first_name() -> None:
    assert read(b"\xef\xbb\xbfage\r\n1\r\n", CSV).columns == {"age": [1]}


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(TEXTS.filter(lambda name: name and name == name.strip()), min_size=1, max_size=4, unique=True),
    st.data(),
    st.sampled_from(["\n", "\r\n"]),
)
def test_any_texts_written_as_csv_read_back(names: list[str], data: Any, ending: str) -> None:
    rows = data.draw(st.lists(st.lists(TEXTS, min_size=len(names), max_size=len(names)), min_size=1, max_size=4))
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator=ending, quoting=csv.QUOTE_ALL)
    writer.writerows([names, *rows])
    fields = [Field(name, "text") for name in names]
    table = from_csv(out.getvalue().encode(), fields, 10)
    assert table.columns == {name: [row[place] or None for row in rows] for place, name in enumerate(names)}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        (" 1\t", 1),
        ("+1", 1),
        ("007", 7),
        ("1.0", 1.0),
        ("-0.0", -0.0),
        ("1e3", 1000.0),
        ("1e999", math.inf),
        ("inf", math.inf),
        ("-Infinity", -math.inf),
        ("1_000", "1_000"),
        ("1_0.5", "1_0.5"),
        ("1,5", "1,5"),
        ("0x10", "0x10"),
        ("five", "five"),
        ("true", "true"),
        ("", None),
        ("  ", None),
        ("NA", None),
        ("n/a", None),
        ("NaN", None),
        (" null ", None),
        ("None", None),
        ("1234567890123456789", 1234567890123456789.0),
        ("9" * 400, math.inf),
    ],
)
def test_numbers_in_cells(text: str, value: object) -> None:
    for kind in ("number", "integer", "vector"):
        (found,) = typed_cells([text], Field("f", kind))
        assert found == value
        assert type(found) is type(value)
        assert math.copysign(1, found) == math.copysign(1, value) if value == 0 else True  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("categories", "text", "value"),
    [
        (("a", "NA"), "NA", "NA"),
        (("a", "NA"), "na", None),
        (("a",), "b", "b"),
        (("a",), " a", " a"),
        (("a",), "", None),
        (("a", ""), "", ""),
        ((1, 2), "1", 1),
        ((1, 2), "1.0", 1.0),
        ((1, 2), "3", 3),
        ((1, 2), "x", "x"),
        ((True, False), "true", True),
        ((True, False), " TRUE", True),
        ((True, False), "yes", "yes"),
        (("a", 1), "1", 1),
        (("a", 1), "2", "2"),
    ],
)
def test_categories_in_cells(categories: tuple[Any, ...], text: str, value: object) -> None:
    (found,) = typed_cells([text], Field("f", "category", categories=categories))
    assert found == value
    assert type(found) is type(value)


def test_truth_in_cells() -> None:
    texts = ["true", "TRUE", "1", "false", " False ", "0", "", "NA", "yes", "2"]
    assert typed_cells(texts, Field("f", "boolean")) == [True, True, True, False, False, False, None, None, "yes", "2"]


def test_dates_and_unknown_fields_stay_texts() -> None:
    assert typed_cells(["2020-01-01", ""], Field("f", "date")) == ["2020-01-01", None]
    assert typed_cells(["1", ""], None) == ["1", None]
    assert codec.typed_columns(["a", "b"], [], ()) == {"a": [], "b": []}


def test_a_hundred_thousand_cells_of_a_thousand_categories_stay_fast() -> None:
    each = Field("f", "category", categories=tuple(range(1000)))
    began = time.perf_counter()
    assert typed_cells([str(place % 1000) for place in range(100_000)], each)[:2] == [0, 1]
    assert time.perf_counter() - began < 2


# answers


@pytest.mark.parametrize(
    ("accept", "of_json", "of_csv"),
    [
        ("", JSON, CSV),
        ("*/*", JSON, CSV),
        (" * / * , */*", JSON, CSV),
        ("application/json", JSON, JSON),
        ("APPLICATION/JSON", JSON, JSON),
        ("text/csv", CSV, CSV),
        ("application/*", JSON, JSON),
        ("text/*", CSV, CSV),
        ("text/csv, application/json", JSON, CSV),
        ("application/json, text/plain, */*", JSON, CSV),
        ("text/html,application/xhtml+xml,*/*;q=0.8", JSON, CSV),
        ("text/csv, */*;q=0.1", CSV, CSV),
        ("application/json;q=0.2, text/csv;q=0.9", CSV, CSV),
        ("application/json; q=0.9 ; x=y, text/csv;charset=utf-8;q=0.3", JSON, JSON),
        ("*/*, application/json;q=0", CSV, CSV),
        ("text/csv;q=0, application/json;q=0", None, None),
        ("text/html", None, None),
        ("image/*", None, None),
        ("application/json;q=0", None, None),
        ("text/csv;q=nonsense", CSV, CSV),
        (",", None, None),
    ],
)
def test_the_answer_is_written_as_asked_else_as_the_question_was(
    accept: str, of_json: str | None, of_csv: str | None
) -> None:
    for question, wanted in ((JSON, of_json), ("", of_json), ("text/csv; charset=utf-8", of_csv)):
        if wanted is None:
            with pytest.raises(NotAcceptable) as caught:
                accepted(accept, question)
            assert caught.value.status == 406
        else:
            assert accepted(accept, question) == wanted


@given(st.text(max_size=40))
def test_any_accept_header_is_answered_or_refused(accept: str) -> None:
    try:
        found = accepted(accept, JSON)
    except NotAcceptable:
        found = JSON
    assert found in {JSON, CSV}


def bits(value: float) -> bytes:
    return struct.pack("<d", value)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=5))
def test_numbers_read_back_to_the_last_bit(values: list[float]) -> None:
    columns: dict[str, Any] = {"p": values, "q_probabilities": [{"a": value} for value in values]}
    rows = json.loads(encode(columns, len(values), single=False))
    assert [bits(row["p"]) for row in rows] == [bits(value) for value in values]
    assert [bits(row["q_probabilities"]["a"]) for row in rows] == [bits(value) for value in values]
    lines = list(csv.DictReader(io.StringIO(encode(columns, len(values), single=False, accept=CSV).decode())))
    assert [bits(float(line["p"])) for line in lines] == [bits(value) for value in values]
    assert [bits(float(line["q_probabilities.a"])) for line in lines] == [bits(value) for value in values]


def test_answers_in_json_and_csv() -> None:
    columns: dict[str, Any] = {
        "churn": [True, False],
        "why": ['a,"b"\n', None],
        "n": [1, 2],
        "p": [{"x": 0.5, "y": 1.0}] * 2,
    }
    assert json.loads(encode({name: values[:1] for name, values in columns.items()}, 1, single=True)) == {
        "churn": True,
        "why": 'a,"b"\n',
        "n": 1,
        "p": {"x": 0.5, "y": 1.0},
    }
    text = encode(columns, 2, single=False, accept=CSV).decode()
    assert list(csv.reader(io.StringIO(text, newline=""))) == [
        ["churn", "why", "n", "p.x", "p.y"],
        ["true", 'a,"b"\n', "1", "0.5", "1.0"],
        ["false", "", "2", "0.5", "1.0"],
    ]
    assert flatten({"a": []}) == {"a": []}
