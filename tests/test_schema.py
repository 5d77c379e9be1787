"""The contract: what is refused, what is flagged, what rows teach, what a person may amend."""

import itertools
import json
import math
import random
import string
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ketch.errors import ContractError
from ketch.schema import (
    ABSENT,
    NAME,
    Answer,
    Contract,
    Fault,
    Field,
    Scalar,
    is_date,
    is_datetime,
    is_missing,
    json_schema,
    kind_of,
    plain,
    slug,
    span,
)
from ketch.schema.amend import amended, as_toml, parse, require_known
from ketch.schema.checks import MOST_COMPARED, Checked, Checker, within_two_edits
from ketch.schema.sample import compose, profile, refine

FIELDS = (
    Field("age", "integer", minimum=18, maximum=90, unit="years"),
    Field("fee", "number", required=False, minimum=0.0),
    Field("plan", "category", categories=("basic", "gold")),
    Field("town", "category", categories=("Lyon", "Porto"), unknown="flag", required=False),
    Field("paid", "boolean", required=False),
    Field("note", "text", required=False),
    Field("born", "date", required=False),
    Field("seen", "datetime", required=False),
    Field("place", "vector", required=False, length=2),
    Field("path", "vector", required=False),
)
GOOD: dict[str, object] = {"age": 30, "plan": "gold"}


def check(row: Mapping[str, object], fields: Sequence[Field] = FIELDS, **how: bool) -> Checked:
    return Checker(fields, **how)({name: [value] for name, value in row.items()}, 1)


def profiled(table: Mapping[str, list[object]]) -> dict[str, dict[str, object]]:
    return {name: profile(values) for name, values in table.items()}


def codes(faults: Sequence[Fault]) -> list[tuple[str, str]]:
    return [(fault.field, fault.code) for fault in faults]


# refused and flagged


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("age", "30", "wrong-type"),
        ("age", True, "wrong-type"),
        ("age", 30.5, "wrong-type"),
        ("age", [30], "wrong-type"),
        ("age", {}, "wrong-type"),
        ("age", None, "missing"),
        ("age", ABSENT, "missing"),
        ("age", math.nan, "not-finite"),
        ("age", 10**400, "not-finite"),
        ("age", -(10**400), "not-finite"),
        ("fee", "1.5", "wrong-type"),
        ("fee", False, "wrong-type"),
        ("fee", math.inf, "not-finite"),
        ("plan", "golden", "unknown-category"),
        ("plan", 1, "wrong-type"),
        ("plan", True, "wrong-type"),
        ("plan", ["gold"], "wrong-type"),
        ("plan", {"a": 1}, "wrong-type"),
        ("plan", None, "missing"),
        ("paid", 1, "wrong-type"),
        ("paid", "true", "wrong-type"),
        ("note", 5, "wrong-type"),
        ("note", ["x"], "wrong-type"),
        ("born", "31.12.2020", "wrong-type"),
        ("born", "2020-02-30", "wrong-type"),
        ("born", "20200131", "wrong-type"),
        ("born", "2020-W01-1", "wrong-type"),
        ("born", "2020-01-01T10:00:00", "wrong-type"),
        ("born", 20200101, "wrong-type"),
        ("born", datetime(2020, 1, 1, 5), "wrong-type"),
        ("seen", "soon", "wrong-type"),
        ("seen", "2020-01-01x12:00", "wrong-type"),
        ("seen", 1577836800, "wrong-type"),
        ("seen", "2020-13-01T00:00:00", "wrong-type"),
        ("place", [1.0], "wrong-type"),
        ("place", [1.0, 2.0, 3.0], "wrong-type"),
        ("place", [1.0, "2"], "wrong-type"),
        ("place", [1.0, True], "wrong-type"),
        ("place", [1.0, None], "wrong-type"),
        ("place", [1.0, math.inf], "wrong-type"),
        ("place", "1,2", "wrong-type"),
        ("path", [1, [2]], "wrong-type"),
    ],
)
def test_what_breaks_the_contract_is_refused(name: str, value: object, code: str) -> None:
    checked = check({**GOOD, name: value})
    assert codes(checked.faults) == [(name, code)]
    assert not checked.flags
    assert checked.columns[name] == [None] or code == "unknown-category" or value == 30.5
    soft = check({**GOOD, name: value}, lenient=True)
    forgiven = code in {"unknown-category", "missing"}  # whether it has an answer is then the model's own affair
    assert codes(soft.faults) == ([] if forgiven else [(name, code)])
    assert codes(soft.flags) == ([(name, code)] if forgiven else [])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("age", 30.0),
        ("age", 30),
        ("fee", 0),
        ("fee", 1e300),
        ("fee", 10**300),
        ("fee", None),
        ("fee", ABSENT),
        ("plan", "basic"),
        ("town", None),
        ("paid", True),
        ("paid", False),
        ("paid", None),
        ("note", ""),
        ("note", "é\n\x00"),
        ("note", None),
        ("born", "2020-02-29"),
        ("born", date(2020, 1, 1)),
        ("born", datetime(2020, 1, 1)),
        ("born", None),
        ("seen", "2020-01-01T10:00:00"),
        ("seen", "2020-01-01 10:00"),
        ("seen", "2020-01-01T10:00:00.123Z"),
        ("seen", "2020-01-01T10:00:00+02:00"),
        ("seen", "2020-01-01"),
        ("seen", datetime(2020, 1, 1, 5)),
        ("place", [1, 2.5]),
        ("place", None),
        ("path", []),
        ("path", [1.0] * 50),
    ],
)
def test_what_keeps_the_contract_is_answered_without_a_word(name: str, value: object) -> None:
    checked = check({**GOOD, name: value})
    assert not checked.faults
    assert not checked.flags
    assert checked.columns[name] == [None if value is ABSENT else value]
    assert list(checked.columns) == [each.name for each in FIELDS]


def test_a_value_outside_the_range_and_a_soft_category_are_flagged_or_strictly_refused() -> None:
    row = {**GOOD, "age": 17, "fee": -0.5, "town": "Paris", "zzz": 1}
    found = [("age", "out-of-range"), ("fee", "out-of-range"), ("town", "unknown-category"), ("zzz", "unknown-field")]
    for lenient in (False, True):
        checked = check(row, lenient=lenient)
        assert not checked.faults
        assert codes(checked.flags) == found
        assert checked.columns["age"] == [17]
        assert checked.columns["town"] == ["Paris"]
    strict = check(row, strict=True)
    assert not strict.flags
    assert sorted(codes(strict.faults)) == sorted(found)
    assert strict.faults[0].code == "unknown-field"
    assert codes(check({**GOOD, "age": 18, "fee": 0}, strict=True).faults) == []
    assert check({**GOOD, "age": 17}).flags[0].expected == "from 18 to 90 years"


def test_a_hard_category_is_only_flagged_when_lenient_and_goes_to_the_model() -> None:
    row = {**GOOD, "plan": "golden"}
    fault = check(row).faults[0]
    assert (fault.allowed, fault.nearest) == (("basic", "gold"), "gold")
    checked = check(row, lenient=True)
    assert codes(checked.flags) == [("plan", "unknown-category")]
    assert checked.columns["plan"] == ["golden"]
    assert check({**GOOD, "plan": "zzzzzz"}).faults[0].nearest is None


@pytest.mark.parametrize(
    ("categories", "value", "clean"),
    [
        ((0, 1), 1, 1),
        ((0, 1), 1.0, 1),
        ((0, 1), True, "wrong-type"),
        ((0, 1), "1", "wrong-type"),
        ((0, 1), 2, "unknown-category"),
        ((True, False), True, True),
        ((True, False), 1, "wrong-type"),
        (("1", "2"), 1, "wrong-type"),
        (("1", "2"), "1", "1"),
        ((1.5, 2.5), 1.5, 1.5),
        (("a", 1), 1, 1),
        (("a", 1), "1", "unknown-category"),
        (("a", 1), True, "wrong-type"),
        ((1, True), True, True),
        ((1, True), 1, 1),
        ((0, 1), math.nan, "unknown-category"),
        ((0, 1), 10**400, "unknown-category"),
    ],
)
def test_categories_tell_text_number_and_truth_apart(
    categories: tuple[Scalar, ...], value: object, clean: object
) -> None:
    checked = check({"c": value}, [Field("c", "category", categories=categories)])
    if checked.faults:
        assert [fault.code for fault in checked.faults] == [clean]
    else:
        assert checked.columns["c"] == [clean]
        assert type(checked.columns["c"][0]) is type(clean)


def test_an_error_lists_twenty_categories_and_names_the_kinds() -> None:
    many = tuple(f"c{place:03}" for place in range(500))
    fault = check({"c": "c0000"}, [Field("c", "category", categories=many)]).faults[0]
    assert fault.allowed == many[:20]
    assert fault.nearest in many
    wrong = check({"c": True}, [Field("c", "category", categories=("a", 1))]).faults[0]
    assert wrong.expected == "a number or a text"
    assert fault.record() == {
        "row": 0,
        "field": "c",
        "code": "unknown-category",
        "expected": "one of the allowed values",
        "allowed": list(many[:20]),
        "nearest": fault.nearest,
    }
    assert Fault(3, "x", "missing").record() == {"row": 3, "field": "x", "code": "missing"}


def test_a_misspelt_field_is_refused_only_beside_the_absent_one() -> None:
    fields = [Field("tenure", "number", required=False), Field("fee", "number", required=False)]
    fault = check({"tenuer": 1}, fields).faults[0]
    assert (fault.code, fault.field, fault.nearest) == ("unknown-field", "tenuer", "tenure")
    assert codes(check({"tenuer": 1, "tenure": 2}, fields).flags) == [("tenuer", "unknown-field")]
    assert codes(check({"tenuer": 1}, fields, lenient=True).flags) == [("tenuer", "unknown-field")]
    assert codes(check({"customer": 1}, fields).flags) == [("customer", "unknown-field")]
    assert codes(check({"customer": 1}, fields, strict=True).faults) == [("customer", "unknown-field")]
    rows = Checker(fields)({"tenuer": [1, ABSENT, 1], "tenure": [2, 2, ABSENT]}, 3)
    assert [(fault.row, fault.code) for fault in rows.faults] == [(2, "unknown-field")]
    assert [(flag.row, flag.code) for flag in rows.flags] == [(0, "unknown-field")]


def test_a_misspelling_stands_before_the_missing_field_it_explains_and_names_the_first_of_equals() -> None:
    fields = [Field(name, "number") for name in ("aab", "aac", "aad")]
    checked = Checker(fields)({"aab": [1, ABSENT], "aac": [1, 1], "aad": [1, 1], "aax": [ABSENT, 1]}, 2)
    assert [(fault.row, fault.code) for fault in checked.faults] == [(1, "unknown-field"), (1, "missing")]
    assert check({"aax": 1}, fields).faults[0].nearest == "aab"


@pytest.mark.packing
def test_two_hundred_thousand_unknown_names_stay_fast_and_are_all_told() -> None:
    fields = [Field(f"field_number_{place}", "number", required=False) for place in range(100)]
    columns: dict[str, list[object]] = {f"field_numbre_{place}": [1] for place in range(200_000)}
    began = time.process_time()
    checked = Checker(fields)(columns, 1)
    assert time.process_time() - began < 20
    assert len(checked.faults) + len(checked.flags) == 200_000
    assert 0 < len(checked.faults) <= MOST_COMPARED


def test_ten_thousand_unknown_values_of_a_thousand_categories_stay_fast() -> None:
    fields = [Field("c", "category", categories=tuple(f"category {place}" for place in range(1000)))]
    values: list[object] = [f"catgory {place}" for place in range(10_000)]
    began = time.process_time()
    checked = Checker(fields)({"c": values}, 10_000)
    assert time.process_time() - began < 20
    assert len(checked.faults) == 10_000
    assert checked.faults[0].nearest == "category 0"


def slow_distance(one: str, other: str) -> int:
    if not one or not other:
        return len(one) + len(other)
    if one[0] == other[0]:
        return slow_distance(one[1:], other[1:])
    return 1 + min(slow_distance(one[1:], other), slow_distance(one, other[1:]), slow_distance(one[1:], other[1:]))


@given(st.text("ab_", max_size=6), st.text("ab_", max_size=6))
def test_two_edits_are_counted_as_a_slow_oracle_counts_them(one: str, other: str) -> None:
    assert within_two_edits(one, other) is (slow_distance(one, other) <= 2)


def test_very_long_names_are_no_misspellings() -> None:
    assert not within_two_edits("x" * 201, "x" * 200)
    assert within_two_edits("x" * 200, "x" * 199)


CELLS = st.one_of(
    st.none(),
    st.just(ABSENT),
    st.booleans(),
    st.integers(),
    st.integers(-5, 100),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from(["basic", "gold", "Lyon", "2020-01-01", "2020-01-01T00:00:00", "age", "1"]),
    st.lists(st.one_of(st.floats(), st.integers(), st.text(max_size=2), st.booleans()), max_size=3),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
)
NAMES = st.one_of(st.sampled_from([each.name for each in FIELDS]), st.text("agefplno", max_size=6))


@pytest.mark.service
@settings(max_examples=150, deadline=None)
@given(st.lists(st.dictionaries(NAMES, CELLS, max_size=8), min_size=1, max_size=4), st.booleans(), st.booleans())
def test_rows_are_judged_one_by_one_whoever_stands_beside_them(
    rows: list[dict[str, object]], strict: bool, lenient: bool
) -> None:
    checker = Checker(FIELDS, strict=strict, lenient=lenient)
    names = dict.fromkeys(name for row in rows for name in row)
    together = checker({name: [row.get(name, ABSENT) for row in rows] for name in names}, len(rows))
    for place, row in enumerate(rows):
        alone = checker({name: [value] for name, value in row.items()}, 1)
        for kind in ("faults", "flags"):
            mine = {(f.field, f.code, f.nearest) for f in getattr(together, kind) if f.row == place}
            assert mine == {(f.field, f.code, f.nearest) for f in getattr(alone, kind)}
        assert repr({n: v[place] for n, v in together.columns.items()}) == repr(
            {n: v[0] for n, v in alone.columns.items()}
        )


# JSON Schema: an oracle of the keywords in use


def valid(value: Any, schema: Mapping[str, Any]) -> bool:
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if not any(of_type(value, kind) for kind in kinds):
        return False
    if "enum" in schema and not any(kind_of(value) == kind_of(each) and value == each for each in schema["enum"]):
        return False
    if isinstance(value, list):
        inside = schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", math.inf)
        return inside and all(valid(each, schema["items"]) for each in value)
    if isinstance(value, dict):
        known = schema["properties"]
        return all(name in value for name in schema["required"]) and all(
            valid(each, known[name]) for name, each in value.items() if name in known
        )
    return schema.get("format") != "date" or not isinstance(value, str) or is_date(value)


def of_type(value: Any, kind: str) -> bool:
    plain_types: dict[str, Any] = {"string": str, "boolean": bool, "null": type(None), "array": list, "object": dict}
    if kind in plain_types:
        return isinstance(value, plain_types[kind])
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and (kind == "number" or value == int(value))


WILD_FIELDS = st.builds(
    lambda name, kind, required, categories, unknown: Field(
        name, kind, required=required, categories=tuple(categories) if kind == "category" else (), unknown=unknown
    ),
    st.sampled_from("abcdefgh"),
    st.sampled_from(["number", "integer", "boolean", "category", "text", "date", "vector"]),
    st.booleans(),
    st.lists(st.one_of(st.text(max_size=3), st.integers(0, 3), st.booleans()), min_size=1, max_size=4),
    st.sampled_from(["refuse", "flag"]),
)
JSON_CELLS = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 5), st.floats(-5, 5), st.text(max_size=3), st.just("2020-05-05"),
    st.lists(st.integers(0, 3), max_size=3), st.dictionaries(st.text(max_size=2), st.none(), max_size=1),
)  # fmt: skip


@pytest.mark.service
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(st.lists(WILD_FIELDS, min_size=1, max_size=4, unique_by=lambda each: each.name), st.data())
def test_what_json_schema_accepts_the_checker_accepts_and_the_other_way_round(fields: list[Field], data: Any) -> None:
    names = [each.name for each in fields]
    row = {name: data.draw(JSON_CELLS) for name in data.draw(st.lists(st.sampled_from(names), unique=True))}
    schema = json.loads(msgspec.json.encode(json_schema(fields)))
    assert valid(row, schema) is (not check(row, fields).faults)


def test_json_schema_says_what_a_person_wants_to_know() -> None:
    fields = [
        Field(
            "age", "integer", minimum=18, maximum=90, unit="years", label="Age", description="At signing.", example=40
        ),
        Field("town", "category", categories=("Lyon", 7), unknown="flag", required=False, example="Lyon"),
        Field("plan", "category", categories=("a",), required=False),
        Field("place", "vector", length=2),
        Field("void", "category"),
        Field("seen", "datetime"),
    ]
    schema: Any = json_schema(fields)
    assert schema["required"] == ["age", "place", "void", "seen"]
    properties = schema["properties"]
    assert properties["age"] == {
        "type": "integer",
        "title": "Age",
        "description": "At signing. Unit: years. Seen in training: from 18 to 90 years.",
        "examples": [40],
    }
    assert properties["town"] == {"type": ["number", "string", "null"], "examples": ["Lyon", 7]}
    assert properties["plan"] == {"type": ["string", "null"], "enum": ["a", None]}
    assert properties["place"] == {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
    assert properties["void"]["type"] == "string"
    assert properties["seen"] == {"type": "string", "format": "date-time"}


def test_spans_in_words() -> None:
    assert span(Field("a", "number")) == ""
    assert span(Field("a", "number", minimum=1)) == "at least 1"
    assert span(Field("a", "number", maximum=2.5, unit="€")) == "at most 2.5 €"


@given(st.text(max_size=90))
def test_any_text_becomes_a_name(text: str) -> None:
    made = slug(text)
    assert NAME.fullmatch(made)
    assert slug(made) == made


@pytest.mark.parametrize("name", ["con", "com1", "nul.x", "a..b", ".a", "a.", "A", "", "a" * 65, "a/b", "ünder"])
def test_what_is_no_name(name: str) -> None:
    assert not NAME.fullmatch(name)


@pytest.mark.parametrize("value", [None, ABSENT, math.nan, np.float64("nan"), np.float32("nan"), pd.NA, pd.NaT])
def test_what_stands_for_nothing(value: object) -> None:
    assert is_missing(value)


@pytest.mark.parametrize("value", [0, "", False, [], np.array([1.0, math.nan]), math.inf, "nan", Decimal(1)])
def test_what_stands_for_something(value: object) -> None:
    assert not is_missing(value)


def test_scalars_and_arrays_of_numpy_become_plain() -> None:
    for given_, wanted in [(np.int64(3), 3), (np.bool_(True), True), (np.str_("a"), "a"), (np.float32(0.5), 0.5)]:
        assert plain(given_) == wanted
        assert type(plain(given_)) is type(wanted)
    assert plain(np.array([1, 2])) == [1, 2]
    assert plain("text") == "text"
    assert repr(ABSENT) == "ABSENT"


def test_dates_of_python_and_pandas() -> None:
    assert is_date(pd.Timestamp("2020-01-01"))
    assert not is_date(pd.Timestamp("2020-01-01 10:00"))
    assert not is_date(datetime(2020, 1, 1, tzinfo=UTC))
    assert is_datetime(date(2020, 1, 1))
    assert not is_date("２０２０-01-01")  # noqa: RUF001 (digits of another script)


# what rows teach


@dataclass
class Told:
    words: dict[str, Sequence[str]] = field(default_factory=dict)
    plausible: dict[str, tuple[float, float]] = field(default_factory=dict)


@pytest.mark.parametrize(
    ("kind", "values", "wanted"),
    [
        ("number", [1, 2, None], {"type": "integer", "minimum": 1.0, "maximum": 2.0}),
        ("number", [1.0, 2.5, math.nan], {"type": "number", "minimum": 1.0, "maximum": 2.5}),
        ("number", [np.int64(4), pd.NA], {"type": "integer", "minimum": 4.0, "maximum": 4.0}),
        ("number", [math.inf, 1.0], {"type": "number", "minimum": 1.0, "maximum": 1.0}),
        ("number", [math.inf], {"type": "number"}),
        ("integer", [1.5], {"type": "number", "minimum": 1.5, "maximum": 1.5}),
        ("number", [True, False], {"type": "boolean"}),
        ("text", [True, None], {"type": "boolean"}),
        ("number", ["2020-01-01", "2021-01-01"], {"type": "date"}),
        ("number", ["2020-01-01", "2021-01-01 10:00"], {"type": "datetime"}),
        ("number", [pd.Timestamp("2020-01-01"), pd.NaT], {"type": "date"}),
        ("number", [date(2020, 1, 1)], {"type": "date"}),
        ("number", [pd.Timestamp("2020-01-01 10:00")], {"type": "datetime"}),
        ("text", ["a", "b", "a", "b"], {"type": "category", "categories": ("a", "b"), "unknown": "flag"}),
        ("number", ["Ann", "Bob"], {"type": "text"}),
        ("text", ["Ann", "Bob", "Cy", "Ann"], {"type": "text"}),
        ("text", [str(place) for place in range(101)] * 5, {"type": "text"}),
        ("number", [1, "a"], {"type": "number"}),
        ("number", [None, math.nan], {"type": "number"}),
        ("category", ["x", "y"], {"type": "category"}),
        ("boolean", ["x"], {"type": "boolean"}),
        ("text", [3, 4], {"type": "text"}),
        ("number", [[1.0], [2.0]], {"type": "number"}),
    ],
)
def test_a_sample_sharpens_a_field(kind: Any, values: list[object], wanted: dict[str, object]) -> None:
    assert refine(Field("f", kind), values) == msgspec.structs.replace(Field("f", kind), **wanted)


def test_a_profile_describes_numbers_and_common_categories_but_lists_nobody() -> None:
    numbers = profile([1.0, 2.0, 3.0, None, math.nan])
    assert (numbers["rows"], numbers["missing"], numbers["mean"]) == (5, 2, 2.0)
    assert numbers["std"] == pytest.approx(math.sqrt(2 / 3))
    assert numbers["quantiles"][5] == 2.0  # type: ignore[index]
    assert profile(["a", "b", "a", "a"])["counts"] == {"a": 3, "b": 1}
    assert "counts" not in profile(["Ann", "Bob", "Cy"])
    assert "counts" not in profile([f"born {place}" for place in range(60)] + ["born 1"])
    assert "counts" not in profile([str(place) for place in range(101)] * 3)
    assert profile([True, False, True, True])["counts"] == {"True": 3, "False": 1}
    assert profile([None]) == {"rows": 1, "missing": 1}
    assert profile([]) == {"rows": 0, "missing": 0}
    assert "mean" not in profile([1.0, math.inf])


SAMPLE_CELLS = st.one_of(
    st.none(), st.floats(), st.integers(-(10**6), 10**6), st.booleans(), st.text(max_size=4), st.dates(),
    st.datetimes(), st.sampled_from(["a", "b", "2020-01-01"]),
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(["number", "integer", "text", "boolean", "category"]),
    st.one_of(
        st.lists(SAMPLE_CELLS, max_size=12),
        st.lists(st.floats(allow_nan=True), max_size=12),
        st.lists(st.integers(), max_size=12),
        st.lists(st.sampled_from(["a", "b", None]), max_size=12),
        st.lists(st.datetimes(), max_size=5),
    ),
    st.booleans(),
)
def test_rows_composed_from_any_sample_keep_the_contract_learnt_from_it(
    kind: Any, values: list[object], required: bool
) -> None:
    before = Field("f", kind, required=required, categories=("x", "y") if kind == "category" else ())
    learnt = refine(before, values)
    table = {"f": values}
    rows = compose([learnt], Told(), profiled(table), 20)
    checked = Checker([learnt], strict=kind == "category")(rows, 20)
    assert not checked.faults, (learnt, checked.faults)
    assert rows == compose([learnt], Told(), profiled(table), 20)


def test_composed_rows_walk_through_everything() -> None:
    fields = [
        Field("c", "category", categories=("a", "b", "c")),
        Field("b", "boolean"),
        Field("t", "text"),
        Field("w", "text"),
        Field("d", "date"),
        Field("s", "datetime"),
        Field("n", "number"),
        Field("p", "number"),
        Field("q", "number"),
        Field("i", "integer"),
        Field("o", "number", required=False),
        Field("void", "category"),
    ]
    told = Told({"t": ["sun", "rain"]}, {"p": (-5.0, 10.0), "q": (0.0, 0.5), "i": (-9.0, -3.0)})
    table: dict[str, list[object]] = {"c": ["b", "b", "b", "c"], "n": [1.0, 2.0, 30.0]}
    rows = compose(fields, told, profiled(table), 50)
    assert rows["c"][0] == "b"
    assert set(rows["c"]) == {"a", "b", "c"}
    assert set(rows["b"]) == {True, False}
    assert {word for text in rows["t"] for word in str(text).split()} == {"sun", "rain"}
    assert {word for text in rows["w"] for word in str(text).split()} == {"word"}
    assert rows["n"][0] == 2.0
    assert all(1.0 <= value <= 30.0 for value in rows["n"])  # type: ignore[operator]
    assert all(0.0 <= value <= 10.0 for value in rows["p"])  # type: ignore[operator]
    assert rows["q"][0] == 0.25
    assert all(type(value) is int and -9 <= value <= -3 for value in rows["i"])
    assert rows["o"].count(None) == 7
    assert rows["o"][0] is not None
    assert not Checker(fields[:-1])(rows, 50).faults
    assert rows == compose(fields, told, profiled(table), 50)


def test_no_record_of_a_sample_is_composed() -> None:
    source = random.Random(7)
    rows = [
        {
            "name": "".join(source.choices(string.ascii_letters, k=9)),
            "fee": source.uniform(10, 900),
            "age": source.randint(18, 90),
            "plan": source.choice("xyz"),
        }
        for _ in range(400)
    ]
    table: dict[str, list[object]] = {name: [row[name] for row in rows] for name in rows[0]}
    fields = [refine(Field(name, "number"), values) for name, values in table.items()]
    assert [each.type for each in fields] == ["text", "number", "integer", "category"]
    made = compose(fields, Told(), profiled(table), 48)
    real = {(row["fee"], row["age"], row["plan"]) for row in rows}
    assert not real & set(zip(made["fee"], made["age"], made["plan"], strict=True))
    written = json.dumps([made, {name: profile(values) for name, values in table.items() if name != "name"}])
    assert not any(str(row["name"]) in written for row in rows)


# a person's say


SAFE = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
FINITE = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def contracts(draw: Any) -> Contract:
    fields = []
    for name in draw(st.lists(SAFE, max_size=4, unique=True)):
        low, high = sorted((draw(FINITE), draw(FINITE)))
        fields.append(
            Field(
                name,
                draw(st.sampled_from(["number", "integer", "category", "text", "vector"])),
                required=draw(st.booleans()),
                categories=tuple(draw(st.lists(st.one_of(SAFE, st.integers(), FINITE, st.booleans()), max_size=3))),
                unknown=draw(st.sampled_from(["refuse", "flag"])),
                minimum=draw(st.sampled_from([None, low])),
                maximum=draw(st.sampled_from([None, high])),
                label=draw(SAFE),
                unit=draw(SAFE),
                description=draw(SAFE),
                example=draw(st.one_of(st.none(), SAFE, FINITE, st.booleans(), st.lists(FINITE, max_size=2))),
            )
        )
    return Contract(
        tuple(fields),
        Answer(
            "binary", classes=(0, 1), positive=1, values="probability", threshold=draw(st.sampled_from([None, 0.25]))
        ),
    )


@settings(max_examples=200, deadline=None)
@given(contracts())
def test_a_contract_written_as_toml_reads_back_as_itself(contract: Contract) -> None:
    found = parse(as_toml(contract).encode(), "contract.toml")
    assert found.get("threshold") == contract.answer.threshold
    require_known([each.name for each in contract.fields], found)
    for each in contract.fields:
        assert amended(each, found) == each
        assert each.name in found["fields"]


def test_labels_units_and_ranges_are_amended() -> None:
    text = """
    threshold = 0.3
    [fields.age]
    label = "Age"
    unit = "years"
    minimum = 20
    required = true
    type = "integer"
    example = 44
    """
    found = parse(text.encode(), "c.toml")
    assert found["threshold"] == 0.3
    age = amended(FIELDS[0], found)
    assert (age.label, age.minimum, age.maximum, age.example, age.required) == ("Age", 20.0, 90.0, 44, True)
    assert amended(FIELDS[1], found) is FIELDS[1]


@pytest.mark.parametrize(
    "line",
    [
        'name = "older"',
        'type = "text"',
        "required = false",
        'categories = ["a"]',
        'unknown = "flag"',
        "length = 2",
        "colour = 1",
        'minimum = "low"',
        "label = 5",
        "minimum = nan",
        "maximum = inf",
        "minimum = 91",
    ],
)
def test_what_the_model_decides_and_what_makes_no_sense_is_refused(line: str) -> None:
    with pytest.raises(ContractError, match="age") as caught:
        amended(FIELDS[0], parse(f"[fields.age]\n{line}\n".encode(), "c.toml"))
    assert caught.value.hint


@pytest.mark.parametrize(
    "text",
    [
        b"fields = 3",
        b"fields.age = 3",
        b"[fields",
        b"\xff",
        b"colour = 1",
        b"threshold = '0.5'",
        b"threshold = true",
        b"threshold = [1]",
    ],
)
def test_a_contract_file_that_cannot_be_meant_is_refused(text: bytes) -> None:
    with pytest.raises(ContractError, match=r"c\.toml"):
        parse(text, "c.toml")


def test_an_amendment_of_no_field_is_refused() -> None:
    with pytest.raises(ContractError, match="'aeg'") as caught:
        require_known(["age", "fee"], parse(b"[fields.aeg]\nlabel = 'x'\n", "c.toml"))
    assert "age, fee" in caught.value.hint
    with pytest.raises(ContractError) as caught:
        require_known([f"f{place}" for place in range(20)], {"fields": {"x": {}}})
    assert caught.value.hint.endswith("…")


def test_a_regression_has_no_threshold_to_amend() -> None:
    contract = Contract((Field("a", "number"),), Answer("regression"))
    assert "threshold" not in as_toml(contract).split("\n", 1)[1]
    assert "# threshold" in as_toml(Contract((), Answer("binary", values="probability")))


def test_every_type_is_checked_and_described() -> None:
    kinds: list[Any] = ["number", "integer", "boolean", "category", "text", "date", "datetime", "vector"]
    for kind, required in itertools.product(kinds, (True, False)):
        each = Field("f", kind, required=required)
        assert bool(check({}, [each]).faults) is required
        assert bool(check({"f": None}, [each]).faults) is required
        assert json_schema([each])["required"] == (["f"] if required else [])


def test_a_number_too_long_to_be_written_is_only_an_unknown_category() -> None:
    fault = check({"c": 10**5000}, [Field("c", "category", categories=(0, 1))]).faults[0]
    assert (fault.code, fault.nearest) == ("unknown-category", None)
