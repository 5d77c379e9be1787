"""Compile a small fitted model and hold it against the original: answers, labels, and a row alone."""

import re
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris

from ketch import program
from ketch.adapters import Raw, Runner
from ketch.adapters import sklearn as adapter
from ketch.compiler import compiled
from ketch.schema import Answer, Columns

IRIS = load_iris(as_frame=True).data.set_axis(list("abcd"), axis=1)
IRIS += np.random.default_rng(0).normal(0, 1e-3, IRIS.shape)  # so that no two points are equally far
THREE = np.array(["one", "other", "third"], dtype=object)[load_iris().target]
TWO = np.where(load_iris().target == 1, "yes", "no").astype(object)
WIDE = load_breast_cancer(as_frame=True).data.iloc[:200, :18].set_axis([f"x{n}" for n in range(18)], axis=1)
DIABETES = load_diabetes(as_frame=True, scaled=False).data.iloc[:150]
PROGRESS = load_diabetes().target[:150]


def named(model: object) -> str:
    """Name a case by its model, alike in every process."""
    return re.sub(r" at 0x[0-9a-f]+|\s+", " ", str(model)).replace(" ", "")[:70]


@dataclass(frozen=True)
class Lowered:
    """A model in both forms, and rows to ask them for."""

    original: Runner
    program: Runner
    files: dict[str, bytes]
    answer: Answer

    @property
    def is_folded(self) -> bool:
        """Say whether nothing but a weighted sum is left."""
        return program.GRAPH_MEMBER not in self.files


def lowered(model: Any, table: pd.DataFrame, target: Any = None) -> Lowered:
    """Fit a model and compile it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = model.fit(table) if target is None else model.fit(table, target)
        known = adapter.study(model, list(table.columns))
        values: Any = "probability" if known.probabilities else "score" if known.score else "none"
        answer = Answer(known.task, "y", tuple(known.classes), values=values)  # type: ignore[arg-type]
        made = compiled(adapter, model, known.fields, answer)
        found = program.evaluator(made.files, answer, known.fields)
        return Lowered(adapter.runner(model, known.fields), found, made.files, answer)


def rows(table: pd.DataFrame, seed: int = 1) -> pd.DataFrame:
    """Give rows of the table, rows between them, and rows far away."""
    rng = np.random.default_rng(seed)
    low, high = table.min().to_numpy(float), table.max().to_numpy(float)
    between = rng.uniform(low, high, (40, len(low)))
    far = rng.uniform(low - 3 * (high - low), high + 3 * (high - low), (20, len(low)))
    return pd.DataFrame(np.concatenate([table.to_numpy(float)[:41], between, far]), columns=table.columns)


def columns(table: pd.DataFrame) -> Columns:
    """Give a table as checked columns."""
    return {str(name): table[name].tolist() for name in table}


def numbers(raw: Raw) -> Any:
    """Give what a model answers beside its labels, or the values of a regression."""
    found = raw.probabilities if raw.probabilities is not None else raw.scores
    return np.asarray(raw.labels if found is None else found)


def hold(made: Lowered, asked: pd.DataFrame, tolerance: float = 1e-9) -> None:
    """Hold both forms against each other, and each row alone against all together, bit for bit."""
    given, n = columns(asked), len(asked)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted, found = made.original(given, n), made.program(given, n)
    if made.answer.task == "regression" or made.answer.values != "none":
        here, there = numbers(found).astype(float), numbers(wanted).astype(float)
        assert here.shape == there.shape
        np.testing.assert_allclose(here, there, rtol=tolerance, atol=tolerance)
    if made.answer.task != "regression":
        assert found.labels == wanted.labels
        assert all(type(one) is type(other) for one, other in zip(found.labels, wanted.labels, strict=True))
    for size in (1, 3):
        for at in range(0, 30, size):
            part = made.program({name: values[at : at + size] for name, values in given.items()}, size)
            assert part.labels == found.labels[at : at + size]
            assert numbers(part).tolist() == numbers(found)[at : at + size].tolist()
