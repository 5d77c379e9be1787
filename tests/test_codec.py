"""Bytes to columns and answers to bytes."""

import csv
import io
import json
import math
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pyarrow
import pyarrow.ipc
import pyarrow.parquet
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ketch import codec
from ketch.codec import (
    ARROW,
    CSV,
    JSON,
    PARQUET,
    accepted,
    decode,
    encode,
    flatten,
    from_csv,
    media_type,
    parquet,
    typed_cells,
)
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
    began = time.process_time()
    with pytest.raises(RowsRefused, match="400000 different fields"):
        read(body)
    assert time.process_time() - began < 40
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


@pytest.mark.service
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


def test_a_million_names_are_held_against_each_other_in_time() -> None:
    names = [str(place) for place in range(1_000_000)]
    began = time.process_time()
    with pytest.raises(UndecodableBody, match="two columns named '999999'"):
        read(",".join([*names, names[-1]]) + "\n1\n", CSV)
    assert time.process_time() - began < 20


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
    began = time.process_time()
    assert typed_cells([str(place % 1000) for place in range(100_000)], each)[:2] == [0, 1]
    assert time.process_time() - began < 8


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
        (ARROW, ARROW, ARROW),
        (f"{PARQUET};q=0.5, text/csv;q=0.4", PARQUET, PARQUET),
        (f"application/*, {ARROW};q=0.1", JSON, JSON),
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


# Arrow streams and Parquet files

BOTH = pytest.mark.parametrize("kind", [ARROW, PARQUET])
MANY = (
    Field("age", "integer"),
    Field("fee", "number", required=False),
    Field("plan", "category", categories=("basic", "gold")),
    Field("note", "text", required=False),
    Field("paid", "boolean"),
    Field("day", "date", required=False),
    Field("at", "datetime", required=False),
    Field("spots", "vector", required=False),
)


def written(table: Any, kind: str, **options: Any) -> bytes:
    out = pyarrow.BufferOutputStream()
    if kind == PARQUET:
        pyarrow.parquet.write_table(table, out, **options)
    else:
        with pyarrow.ipc.new_stream(out, table.schema, options=pyarrow.ipc.IpcWriteOptions(**options)) as stream:
            stream.write_table(table)
    return bytes(out.getvalue().to_pybytes())


def unpacked(body: bytes, kind: str, fields: Sequence[Field] = MANY, max_rows: int = 10_000) -> codec.Table:
    return decode(body, kind, fields, max_rows=max_rows)


def one(name: str, column: Any, kind: str = ARROW) -> list[object]:
    return unpacked(written(pyarrow.table({name: column}), kind), kind).columns[name]


def opened(body: bytes, kind: str) -> Any:
    source = pyarrow.BufferReader(body)
    return pyarrow.parquet.read_table(source) if kind == PARQUET else pyarrow.ipc.open_stream(source).read_all()


@BOTH
def test_a_table_of_every_type_is_read_as_its_rows_in_json_would_be(kind: str) -> None:
    columns: dict[str, Any] = {
        "age": [3, 4, 5],
        "fee": [1.5, None, -0.25],
        "plan": ["basic", "gold", "new"],
        "note": ["a", None, "ü"],
        "paid": [True, False, True],
        "day": [date(2024, 2, 29), None, date(1, 1, 1)],
        "at": [datetime(2024, 2, 29, 1, 2, 3, 4), None, datetime(1969, 12, 31)],
        "other": [[1], [2], []],
    }
    found = unpacked(written(pyarrow.table(columns), kind), kind)
    assert found == codec.Table(
        columns
        | {
            "day": ["2024-02-29", None, "0001-01-01"],
            "at": ["2024-02-29T01:02:03.000004", None, "1969-12-31T00:00:00"],
            "other": [None] * 3,
        },
        3,
    )


@pytest.mark.parametrize(
    ("name", "values", "kind", "wanted"),
    [
        ("age", [1, None], pyarrow.uint8(), [1, None]),
        ("age", [2**64 - 1], pyarrow.uint64(), [2**64 - 1]),
        ("age", [Decimal(7), None], pyarrow.decimal128(9, 0), [7, None]),
        ("fee", [Decimal("7.25"), None], pyarrow.decimal128(9, 2), [7.25, None]),
        ("fee", [Decimal("7.25")], pyarrow.decimal256(60, 2), [7.25]),
        ("fee", [0.5, math.nan, None, math.inf], pyarrow.float32(), [0.5, None, None, math.inf]),
        ("fee", [None, None], pyarrow.null(), [None, None]),
        ("note", ["a", None], pyarrow.large_string(), ["a", None]),
        ("note", ["a", None, "a" * 40], pyarrow.string_view(), ["a", None, "a" * 40]),
        ("plan", ["gold", None, "basic", "gold"], pyarrow.dictionary(pyarrow.int8(), pyarrow.string()), None),
        ("age", [4, None, 5, 4], pyarrow.dictionary(pyarrow.int8(), pyarrow.int64()), None),
        ("day", [date(2024, 1, 31)], pyarrow.date64(), ["2024-01-31"]),
        ("day", [datetime(2024, 1, 31)], pyarrow.timestamp("ns"), ["2024-01-31"]),
        ("day", [datetime(2024, 1, 31, 1)], pyarrow.timestamp("ms"), ["2024-01-31T01:00:00"]),
        ("at", [date(2024, 1, 31)], pyarrow.date32(), ["2024-01-31"]),
        ("at", [datetime(2024, 1, 31), None], pyarrow.timestamp("s"), ["2024-01-31T00:00:00", None]),
        ("at", [1_000_000_001], pyarrow.timestamp("ns"), ["1970-01-01T00:00:01"]),
        (
            "at",
            [datetime(2024, 1, 31, 1, tzinfo=timezone(timedelta(hours=3)))],
            pyarrow.timestamp("us", "Europe/Lisbon"),
            ["2024-01-30T22:00:00+00:00"],
        ),
        ("spots", [[1.5, 2.0], None, []], pyarrow.list_(pyarrow.float64()), [[1.5, 2.0], None, []]),
        ("spots", [[1, 2]], pyarrow.list_(pyarrow.int8(), 2), [[1, 2]]),
        ("spots", [[1, 2]], pyarrow.large_list(pyarrow.float32()), [[1.0, 2.0]]),
    ],
)
def test_columns_of_other_types_become_what_json_has(name: str, values: Any, kind: Any, wanted: Any) -> None:
    column = pyarrow.array(values, kind)
    assert one(name, column) == (values if wanted is None else wanted)
    assert one(name, column, PARQUET) == (values if wanted is None else wanted)


@pytest.mark.parametrize(
    ("name", "values", "kind"),
    [
        ("age", [{"a": 1}], pyarrow.struct([("a", pyarrow.int64())])),
        ("age", [b"a"], pyarrow.binary()),
        ("age", [timedelta(1)], pyarrow.duration("s")),
        ("age", [1], pyarrow.time64("us")),
        ("note", [date(2024, 1, 1)], pyarrow.date32()),
        ("note", [datetime(2024, 1, 1)], pyarrow.timestamp("us")),
        ("note", [[("a", 1)]], pyarrow.map_(pyarrow.string(), pyarrow.int64())),
        ("spots", [["a"]], pyarrow.list_(pyarrow.string())),
        ("spots", [[[1]]], pyarrow.list_(pyarrow.list_(pyarrow.int64()))),
        ("spots", [[None]], pyarrow.list_(pyarrow.null())),
        ("note", [b"0" * 16], pyarrow.uuid()),
        ("paid", [1], pyarrow.bool8()),
        ("note", ["a"], pyarrow.run_end_encoded(pyarrow.int32(), pyarrow.string())),
        ("note", ["{}"], pyarrow.json_()),
    ],
)
def test_a_column_of_a_type_that_the_field_cannot_have_is_named(name: str, values: Any, kind: Any) -> None:
    inner = kind.storage_type if isinstance(kind, pyarrow.BaseExtensionType) else kind
    column = pyarrow.array(values, inner)
    if isinstance(kind, pyarrow.BaseExtensionType):
        column = kind.wrap_array(column)
    with pytest.raises(RowsRefused, match=name) as caught:
        one(name, column)
    assert caught.value.errors[0]["field"] == name
    assert caught.value.errors[0]["code"] == "wrong-type"


ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "age": st.integers(-(2**53), 2**53),
            "fee": st.none() | st.floats(allow_nan=False),
            "plan": st.sampled_from(["basic", "gold"]),
            "note": st.none() | SOUND,
            "paid": st.booleans(),
            "day": st.none() | st.dates().map(date.isoformat),
            "at": st.none() | st.datetimes().map(datetime.isoformat),
        }
    ),
    min_size=1,
    max_size=6,
)


@BOTH
@settings(max_examples=60, deadline=None)
@given(ROWS, st.integers(1, 3), st.booleans())
def test_any_rows_written_as_a_table_read_back(kind: str, rows: list[dict[str, Any]], part: int, coded: bool) -> None:
    columns = codec.columns_of(rows)
    made: dict[str, Any] = {name: pyarrow.array(values) for name, values in columns.items()}
    made["day"] = pyarrow.array([v and date.fromisoformat(str(v)) for v in columns["day"]], pyarrow.date32())
    made["at"] = pyarrow.array([v and datetime.fromisoformat(str(v)) for v in columns["at"]], pyarrow.timestamp("us"))
    made["plan"] = made["plan"].dictionary_encode() if coded else made["plan"]
    table = pyarrow.table(made)
    out = pyarrow.BufferOutputStream()
    if kind == PARQUET:
        pyarrow.parquet.write_table(table, out, row_group_size=part, use_dictionary=coded)
    else:
        with pyarrow.ipc.new_stream(out, table.schema) as stream:
            stream.write_table(table, max_chunksize=part)
    assert unpacked(out.getvalue().to_pybytes(), kind) == codec.Table(columns, len(rows))


@pytest.mark.service
@BOTH
@settings(max_examples=250, deadline=None)
@given(st.data())
def test_no_damaged_table_does_harm(kind: str, data: Any) -> None:
    table = pyarrow.table(
        {
            "age": [1, 2, 3],
            "note": ["a", None, "ccc"],
            "plan": pyarrow.array(["gold", "basic", "gold"]).dictionary_encode(),
            "at": pyarrow.array([1, 2, None], pyarrow.timestamp("ns", "UTC")),
            "paid": [True, None, False],
        }
    )
    body = bytearray(written(table, kind))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(body) - 1))
        match data.draw(st.integers(0, 3)):
            case 0:
                del body[at:]
            case 1:
                body[at] = data.draw(st.integers(0, 255))
            case 2:
                body[at : at + 4] = data.draw(st.sampled_from([b"\xff" * 4, b"\xff\xff\xff\x7f", bytes(4)]))
            case _:
                body[at:at] = bytes(body[: data.draw(st.integers(0, 64))])
        if not body:
            break
    try:
        found = unpacked(bytes(body), kind)
    except RequestError as error:
        told = error.hint
    else:
        told = "read"
        assert all(len(values) == found.n for values in found.columns.values())
    assert told


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("packed", ["none", "snappy", "gzip", "brotli", "zstd", "lz4"])
def test_parquet_of_every_kind_is_read(packed: str, version: str) -> None:
    columns: dict[str, Any] = {
        "age": list(range(5000)),
        "note": [f"note {place % 7}" for place in range(5000)],
        "spots": [[place, 0.5] for place in range(5000)],
    }
    table = pyarrow.table(columns).replace_schema_metadata({"made": "here"})
    options: dict[str, Any] = {"compression": packed, "data_page_version": version, "row_group_size": 1500}
    options |= {"data_page_size": 2000, "write_page_index": True, "write_page_checksum": True, "max_rows_per_page": 99}
    body = written(table, PARQUET, **options, sorting_columns=[pyarrow.parquet.SortingColumn(0)])
    assert unpacked(body, PARQUET).columns == columns


def bomb(**columns: Any) -> bytes:
    return written(pyarrow.table(columns), ARROW)


def streamed(batches: Sequence[Any]) -> bytes:
    out = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_stream(out, batches[0].schema) as stream:
        for batch in batches:
            stream.write_batch(batch)
    return bytes(out.getvalue().to_pybytes())


def viewed(rows: int) -> bytes:
    """Write many rows of one long text, which stands there once."""
    long = b"x" * 1_000_000
    views = struct.pack("<i4sii", len(long), long[:4], 0, 0) * rows
    buffers = [None, pyarrow.py_buffer(views), pyarrow.py_buffer(long)]
    return bomb(note=pyarrow.Array.from_buffers(pyarrow.string_view(), rows, buffers))


def endless(rows: int) -> bytes:
    """Write rows of nothing, as many as wanted, in no bytes at all."""
    nothing = pyarrow.Array.from_buffers(pyarrow.null(), rows, [None])
    return streamed([pyarrow.RecordBatch.from_arrays([nothing], names=["fee"])])


HUGE = "x" * 300_000


@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [
        (b"", ARROW, "Arrow stream"),
        (b"", PARQUET, "Parquet"),
        (b"PAR1" * 10, PARQUET, "Parquet"),
        (b"{}", ARROW, "Arrow stream"),
        (written(pyarrow.table({"age": [1]}), PARQUET), ARROW, "Arrow stream"),
        (written(pyarrow.table({"age": [1]}), ARROW), PARQUET, "Parquet"),
        (written(pyarrow.table({"age": [1]}), ARROW, compression="zstd"), ARROW, "compressed"),
        (written(pyarrow.table({"age": [1]}), ARROW, compression="lz4"), ARROW, "compressed"),
        (
            written(pyarrow.table({"plan": pyarrow.array(["a"] * 9).dictionary_encode()}), ARROW, compression="zstd"),
            ARROW,
            "compressed",
        ),
        (
            written(pyarrow.table({"age": [1]}), ARROW, metadata_version=pyarrow.ipc.MetadataVersion.V4),
            ARROW,
            "older than Arrow 1.0",
        ),
        (written(pyarrow.table({"note": [HUGE * 250]}), PARQUET, compression="zstd"), PARQUET, "unpacks to too much"),
        (written(pyarrow.table({"note": [HUGE * 250]}), PARQUET, compression="gzip"), PARQUET, "unpacks to too much"),
        (written(pyarrow.table({"spots": [[1.0] * 10_000_001]}), PARQUET), PARQUET, "unpacks to too much"),
        (written(pyarrow.table({"note": [HUGE] * 300}), PARQUET), PARQUET, "too long"),
        (
            written(
                pyarrow.table({"note": [HUGE] * 300}),
                PARQUET,
                use_dictionary=False,
                column_encoding={"note": "DELTA_BYTE_ARRAY"},
            ),
            PARQUET,
            "not yet implemented",
        ),
        (viewed(100), ARROW, "too long"),
        (bomb(note=pyarrow.array([HUGE] * 300).dictionary_encode()), ARROW, "too long"),
        (streamed([pyarrow.record_batch({"age": [1]})] * 101), ARROW, "more than 100 parts"),
        (
            written(pyarrow.table({"age": list(range(101))}), PARQUET, row_group_size=1),
            PARQUET,
            "more than 100 parts",
        ),
        (bomb(**{f"n{place}": pyarrow.nulls(10_000) for place in range(101)}), ARROW, "101 columns"),
        (bomb(day=pyarrow.array([2**31 - 1], pyarrow.int32()).cast(pyarrow.date32())), ARROW, "Arrow stream"),
        (bomb(at=pyarrow.array([2**62], pyarrow.timestamp("s"))), ARROW, "Arrow stream"),
        (bomb(at=pyarrow.array([-(2**62)], pyarrow.timestamp("us"))), ARROW, "Arrow stream"),
    ],
)
def test_what_is_no_table_or_would_unpack_to_too_much(body: bytes, kind: str, words: str) -> None:
    began = time.process_time()
    with pytest.raises(UndecodableBody, match=f"(?i){words}") as caught:
        unpacked(body, kind)
    assert caught.value.hint
    assert time.process_time() - began < 12


@pytest.mark.packing
def test_a_footer_of_many_words_and_pages_without_values_take_no_time() -> None:
    size = b"\xc0\x9a\x0c"  # 200,000
    footer = b"\x49\xfc" + size + b"\x26\x02\x00" * 200_000 + b"\x00"  # row groups of one field each
    page = b"\x15\x04\x15\x00\x15\x00\x00" * 500_000  # a dictionary of nothing, over and over
    began = time.process_time()
    with pytest.raises(UndecodableBody, match="too many parts"):
        unpacked(b"PAR1" + footer + len(footer).to_bytes(4, "little") + b"PAR1", PARQUET)
    with pytest.raises(UndecodableBody, match="too many parts"):
        parquet._pages(parquet._Reader(page, len(page)), {5: 1, 7: len(page), 9: 0})
    assert time.process_time() - began < 20


def test_a_stream_of_many_messages_takes_no_time() -> None:
    sound = streamed([pyarrow.record_batch({"plan": pyarrow.array(["a"]).dictionary_encode()})])
    first, *_ = (message for message in pyarrow.ipc.MessageReader.open_stream(sound) if message.type == "dictionary")
    again = first.serialize().to_pybytes()
    at = sound.index(again)
    began = time.process_time()
    with pytest.raises(UndecodableBody, match="more than 100 parts"):
        unpacked(sound[:at] + again * 20_000 + sound[at:], ARROW)
    assert time.process_time() - began < 20


@BOTH
def test_two_columns_of_one_name_are_refused(kind: str) -> None:
    twice = pyarrow.Table.from_arrays([pyarrow.array([1])] * 2, names=["age", "age"])
    with pytest.raises(UndecodableBody, match="two columns named 'age'"):
        unpacked(written(twice, kind), kind)


@BOTH
def test_tables_have_ten_thousand_rows_and_one_at_least(kind: str) -> None:
    assert unpacked(written(pyarrow.table({"age": range(10_000)}), kind), kind).n == 10_000
    with pytest.raises(TooManyRows):
        unpacked(written(pyarrow.table({"age": range(10_001)}), kind), kind)
    with pytest.raises(TooManyRows):
        unpacked(written(pyarrow.table({"other": range(10_001)}), kind), kind)
    with pytest.raises(RowsRefused, match="no rows"):
        unpacked(written(pyarrow.table({"age": pyarrow.array([], pyarrow.int64())}), kind), kind)


def test_rows_that_take_no_bytes_are_counted_all_the_same() -> None:
    assert unpacked(endless(10_000), ARROW).n == 10_000
    many = 2**31 - 1
    for rows in (10_001, many):
        with pytest.raises(TooManyRows):
            unpacked(endless(rows), ARROW)
    for other in (2**40, 2**62, -1):  # more than pyarrow itself would write
        with pytest.raises(RequestError):
            unpacked(endless(many).replace(struct.pack("<q", many), struct.pack("<q", other)), ARROW)


def test_offsets_that_run_backwards_or_out_of_the_text_are_refused() -> None:
    sound = bomb(note=["abcd", "efghi"])
    offsets = struct.pack("<iii", 0, 4, 9)
    assert sound.count(offsets) == 1
    for wrong in ((0, 5, 2), (0, 12, 9), (0, 1, 2**31 - 1), (-1, 1, 2)):
        with pytest.raises(UndecodableBody):
            unpacked(sound.replace(offsets, struct.pack("<iii", *wrong)), ARROW)
    indices = pyarrow.array([0, 7], pyarrow.int8())
    out = pyarrow.DictionaryArray.from_arrays(indices, pyarrow.array(["a"]), safe=False)
    with pytest.raises(UndecodableBody):
        unpacked(bomb(plan=out), ARROW)
    text = pyarrow.Array.from_buffers(
        pyarrow.string(), 1, [None, pyarrow.py_buffer(struct.pack("<ii", 0, 2)), pyarrow.py_buffer(b"\xff\xfe")]
    )
    for kind in (ARROW, PARQUET):
        with pytest.raises(UndecodableBody):
            unpacked(written(pyarrow.table({"note": text}), kind), kind)


@BOTH
def test_answers_in_tables(kind: str) -> None:
    columns: dict[str, Any] = {
        "churn": [True, None, False],
        "why": ['a,"b"\n', None, "ü"],
        "n": [1, None, -(2**63)],
        "big": [1, 2**70, None],
        "p": [{"x": 0.1, "y": -0.0}, {"x": 1e300, "y": 2.0}, {"x": None, "y": 3.0}],
    }
    table = opened(encode(columns, 3, single=True, accept=kind), kind)
    assert table.to_pydict() == {
        "churn": [True, None, False],
        "why": ['a,"b"\n', None, "ü"],
        "n": [1, None, -(2**63)],
        "big": ["1", str(2**70), None],
        "p.x": [0.1, 1e300, None],
        "p.y": [-0.0, 2.0, 3.0],
    }
    table.validate(full=True)
    assert [str(each) for each in table.schema.types] == ["bool", "large_string", "int64", "large_string"] + [
        "double"
    ] * 2


PROGRAM = """
import sys
from ketch import codec
from ketch.schema import Field
fields = [Field("age", "integer"), Field("plan", "text"), Field("at", "datetime")]
assert "pyarrow" not in sys.modules
body, kind = sys.stdin.buffer.read(), sys.argv[1]
table = codec.decode(body, kind, fields, max_rows=10)
assert table.n == 2
out = codec.encode({"a": [True, False], "b": ["x", None], "p": [0.5, 1.0]}, 2, single=False, accept=kind)
assert codec.decode(out, kind, [Field("b", "text")], max_rows=10).columns["b"] == ["x", None]
print([name for name in ("pandas", "numpy") if name in sys.modules])
"""


@BOTH
def test_tables_are_read_and_written_without_pandas(kind: str) -> None:
    at = pyarrow.array([1, 2], pyarrow.timestamp("ns", "Europe/Lisbon"))
    body = written(pyarrow.table({"age": [1, 2], "plan": ["a", "b"], "at": at}), kind)
    done = subprocess.run([sys.executable, "-c", PROGRAM, kind], input=body, capture_output=True, check=True)
    assert b"pandas" not in done.stdout


@BOTH
def test_without_pyarrow_it_is_said_what_to_install(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UnsupportedMediaType) as caught:
        read(b"", kind)
    assert (caught.value.status, "pip install 'ketch[arrow]'" in caught.value.hint) == (415, True)
    with pytest.raises(NotAcceptable) as refused:
        accepted(kind, JSON)
    assert (refused.value.status, "pip install 'ketch[arrow]'" in refused.value.hint) == (406, True)
    assert accepted(f"{kind}, text/csv;q=0.1", JSON) == CSV
    assert accepted("application/*", JSON) == JSON
