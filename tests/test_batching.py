"""Rows of several requests run as one; each request gets exactly its own answers."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ketch.adapters import Raw
from ketch.batching import merge, run_together, split
from ketch.errors import KetchError, NotAnswerable
from ketch.predict import Predictor, Results, Rows
from ketch.schema import Columns
from tests import models


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=8), st.booleans(), st.booleans())
def test_what_is_merged_is_split_again(sizes: list[int], probable: bool, scored: bool) -> None:
    requests, start = [], 0
    for size in sizes:
        values: list[object] = list(range(start, start + size))
        requests.append(Rows({"a": values, "b": [str(value) for value in values]}, size, single=size == 1))
        start += size
    together = merge(requests)
    assert together.n == start
    assert together.columns["a"] == list(range(start))
    numbers: list[Any] = together.columns["a"]
    raw = Raw(
        together.columns["b"],
        [[value, -value] for value in numbers] if probable else None,
        numbers if scored else None,
    )
    parts = list(split(raw, requests))
    assert [part.labels for part in parts] == [rows.columns["b"] for rows in requests]
    for part, rows in zip(parts, requests, strict=True):
        own: list[Any] = rows.columns["a"]
        assert part.probabilities == ([[value, -value] for value in own] if probable else None)
        assert part.scores == (own if scored else None)


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return models.opened(models.encoded())


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=5))
def test_every_request_gets_the_answers_it_would_get_alone(predictor: Predictor, sizes: list[int]) -> None:
    requests, start = [], 0
    for size in sizes:
        requests.append(predictor.check(models.bundle_table([*models.rows()[start : start + size]])))
        start += size
    found = run_together(predictor, requests)
    assert found == [predictor.run(rows) for rows in requests]


class Moody:
    """A runner that fails on rows it does not like, and answers nonsense to others."""

    def __call__(self, columns: Columns, n: int) -> Raw:
        if "raise" in columns["contract"]:
            raise ValueError("no")
        odd = [float("nan") if value == "nan" else 0.25 for value in columns["contract"]]
        return Raw([0] * n, [[1 - value, value] for value in odd])


def test_a_request_without_an_answer_is_refused_alone(predictor: Predictor) -> None:
    moody = Predictor(predictor.bundle, Moody())

    def asks(*values: object) -> Rows:
        return Rows({"contract": list(values)}, len(values), single=len(values) == 1)

    for bad in ("raise", "nan"):
        found = run_together(moody, [asks("a"), asks("b", bad), asks("c", "d"), asks(bad)])
        kinds = [type(each) for each in found]
        assert kinds == [Results, NotAnswerable, Results, NotAnswerable]
        assert isinstance(found[0], Results)
        assert isinstance(found[2], Results)
        assert (found[0].n, found[0].single, found[2].n) == (1, True, 2)
        (alone,) = run_together(moody, [asks(bad)])
        assert isinstance(alone, KetchError)
        if bad == "nan":
            assert isinstance(found[1], NotAnswerable)
            assert found[1].errors == [{"row": 1, "code": "not-answerable"}]  # its own row, not the batch's
