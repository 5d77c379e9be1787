"""The compiled form serves only where it agrees with the original and is faster."""

import math
import time
from dataclasses import replace
from typing import Any

import pytest

from ketch.adapters import Knowledge, Raw, Runner
from ketch.compiler import NotCompiled
from ketch.compiler.parity import Trial, examine
from ketch.schema import Answer, Columns, Field
from ketch.schema.sample import profile

FIELDS = (
    Field("age", "number", minimum=0.0, maximum=90.0),
    Field("children", "integer", required=False),
    Field("plan", "category", categories=("a", "b", "c"), unknown="flag"),
)
BINARY = Answer("binary", "churn", (0, 1), 1, None, "probability")


def likely(columns: Columns, row: int) -> float:
    age: Any = columns["age"][row]
    return 1 / (1 + math.exp(-max(min(age, 90.0), 0.0) / 30 + (columns["plan"][row] == "b")))


class Model:
    """A yes/no model that can be told to err in one way, and takes its time."""

    def __init__(self, wait: float = 0.002, wrong: Any = None) -> None:
        self.wait = wait
        self.wrong = wrong or (lambda columns, row, p: p)
        self.seen: list[Columns] = []

    def __call__(self, columns: Columns, n: int) -> Raw:
        time.sleep(self.wait)
        self.seen.append(columns)
        found = [self.wrong(columns, row, likely(columns, row)) for row in range(n)]
        return Raw([int(p > 0.5) for p in found], [[1 - p, p] for p in found])


def trial(original: Runner, table: Columns | None = None, answer: Answer = BINARY) -> Trial:
    profiles = {name: profile(values) for name, values in (table or {}).items()}
    return Trial(FIELDS, answer, Knowledge(FIELDS, "binary"), table, profiles, original, 1e-6)


def test_a_form_that_agrees_is_permitted_with_the_worst_difference_and_the_rows() -> None:
    quick = Model(0.0, lambda columns, row, p: p + 3e-7)
    found = examine(trial(Model()), quick, {"age": [40.0]})
    assert found.rows > 2_000
    assert found.worst == pytest.approx(3e-7)
    assert found.reason == ""


def test_every_row_of_a_sample_is_asked() -> None:
    table: Columns = {"age": [float(n % 90) for n in range(3_000)], "children": [n % 4 for n in range(3_000)]}
    table["plan"] = ["abc"[n % 3] for n in range(3_000)]
    original = Model()
    assert examine(trial(original, table), Model(0.0), {}).rows > 5_000
    assert any(columns == table for columns in original.seen)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (lambda columns, row, p: p + 2e-6, "differs by 2e-06"),
        (lambda columns, row, p: p + 1e-3 * (columns["plan"][row] == "c"), "differs by 0.001"),
        (lambda columns, row, p: p + 1e-3 * (columns["plan"][row] not in "abc"), "differs"),
        (lambda columns, row, p: p + 1e-3 * (columns["children"][row] is None), "differs"),
        (lambda columns, row, p: p + 1e-3 * (columns["age"][row] > 1e6), "differs"),
        (lambda columns, row, p: p + 1e-3 * (columns["age"][row] == 33.25), "differs"),
        (lambda columns, row, p: p + 1e-3 * (columns["age"][row] == math.nextafter(33.25, 99)), "differs"),
        (
            lambda columns, row, p: float("nan") if columns["plan"][row] == "c" else p,
            "refuses what the original answers",
        ),
        (lambda columns, row, p: 1 / 0 if columns["plan"][row] == "c" else p, "refuses what the original answers"),
    ],
)
def test_a_form_that_differs_somewhere_is_refused(wrong: Any, told: str) -> None:
    with pytest.raises(NotCompiled, match=told):
        examine(trial(Model()), Model(0.0, wrong), {"age": [33.25]})


def test_what_the_original_refuses_must_be_refused() -> None:
    picky = Model(0.001, lambda columns, row, p: p if columns["age"][row] < 1e5 else 1 / 0)
    with pytest.raises(NotCompiled, match="answers what the original refuses"):
        examine(trial(picky), Model(0.0), {})
    found = examine(trial(picky), Model(0.0, lambda columns, row, p: p if columns["age"][row] < 1e5 else 1 / 0), {})
    assert found.worst == 0.0


def test_a_label_may_differ_only_where_the_original_hardly_decides() -> None:
    def tossed(shift: float) -> Any:
        return lambda columns, row, p: 0.5 + shift if columns["plan"][row] == "b" else p

    assert examine(trial(Model(0.002, tossed(1e-8))), Model(0.0, tossed(-1e-8)), {}).worst < 1e-6
    with pytest.raises(NotCompiled, match="label differs"):
        examine(trial(Model(0.002, tossed(1e-5))), Model(0.0, tossed(-1e-5)), {})


def test_a_form_that_is_no_faster_is_not_used() -> None:
    with pytest.raises(NotCompiled, match="not faster than the original at 1 row"):
        examine(trial(Model(0.001)), Model(0.003), {})


class ManyRowsAreSlow(Model):
    """Faster for one row only."""

    def __call__(self, columns: Columns, n: int) -> Raw:
        if n > 1:
            time.sleep(0.01)
        return super().__call__(columns, n)


def test_a_form_that_is_slower_at_a_hundred_rows_is_not_used() -> None:
    with pytest.raises(NotCompiled, match="at 100 rows"):
        examine(trial(Model(0.002)), ManyRowsAreSlow(0.0), {})


class Price:
    """A regression that may be off by a factor."""

    def __init__(self, wait: float, factor: float = 1.0, offset: float = 0.0) -> None:
        self.wait, self.factor, self.offset = wait, factor, offset

    def __call__(self, columns: Columns, n: int) -> Raw:
        time.sleep(self.wait)
        return Raw([float(age) * 1000 * self.factor + self.offset for age in columns["age"]])  # type: ignore[arg-type]


def test_numbers_are_compared_relative_to_their_size_and_the_spread_of_the_target() -> None:
    answer = Answer("regression", "price")
    assert examine(replace(trial(Price(0.002), answer=answer)), Price(0.0, 1 + 1e-6), {}).worst == pytest.approx(1e-7)
    with pytest.raises(NotCompiled, match="differs by"):
        examine(trial(Price(0.002), answer=answer), Price(0.0, 1 + 2e-5), {})
    with pytest.raises(NotCompiled, match="differs by"):
        examine(trial(Price(0.002), answer=answer), Price(0.0, offset=1e-4), {})
