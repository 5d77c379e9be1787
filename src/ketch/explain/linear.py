"""The closed form: of a sum over fields, each contributes its own term less what that term is on average."""

import math
from collections.abc import Sequence
from typing import Any

import msgspec

from ketch.explain import REFERENCE_ROWS, Reading, View
from ketch.predict import Predictor
from ketch.program import Linear, LinearEvaluator
from ketch.schema import Answer, Columns, Field

ROLES = {"probability": "probabilities", "score": "scores"}


class Terms:
    """What each field adds to the sums, and adds on average over the reference."""

    most_rows = 100

    def __init__(self, predictor: Predictor, program: Linear, shown: Columns) -> None:
        answer = predictor.contract.answer
        role = "values" if answer.task == "regression" else ROLES.get(answer.values, "scores")
        self.view = View(role, len(program.bias), program.link)
        self._terms = [_term(program, each, predictor.contract.fields) for each in predictor.contract.fields]
        self._usual = [_mean(term(shown, REFERENCE_ROWS)) for term in self._terms]
        self._base = [math.fsum(each) for each in zip(program.bias, *self._usual, strict=True)]

    def __call__(self, columns: Columns, n: int, readings: Sequence[Reading]) -> list[tuple[float, list[float]]]:
        """Give base and contributions for each row."""
        own = [term(columns, n) for term in self._terms]
        found = []
        for row, read in enumerate(readings):
            weights = read.weights
            worth = [_weighed(weights, term[row], usual) for term, usual in zip(own, self._usual, strict=True)]
            found.append((read(self._base), worth))
        return found


def made(predictor: Predictor, program: Linear, shown: Columns) -> Terms:
    """Prepare the terms of a linear program."""
    return Terms(predictor, program, shown)


def _term(program: Linear, each: Field, fields: Sequence[Field]) -> Any:
    """Make what gives one field's part of the sums: the program, with nothing else in it."""
    width = len(program.bias)
    parts = tuple(part for part in program.parts if part.part.field == each.name)
    alone = msgspec.structs.replace(program, parts=parts, bias=(0.0,) * width, link="identity")
    answer = Answer("multiclass", classes=tuple(range(max(2, width))), values="score")
    evaluator = LinearEvaluator(alone, answer, fields)

    def term(columns: Columns, n: int) -> list[Sequence[float]]:
        scores: Any = evaluator({each.name: columns[each.name]}, n).scores
        return [[score] for score in scores] if width == 1 else scores

    return term


def _mean(rows: Sequence[Sequence[float]]) -> list[float]:
    return [math.fsum(each) / len(rows) for each in zip(*rows, strict=True)]


def _weighed(weights: Sequence[float], own: Sequence[float], usual: Sequence[float]) -> float:
    if len(weights) == 1:
        return weights[0] * (own[0] - usual[0])
    return math.fsum(weight * (a - b) for weight, a, b in zip(weights, own, usual, strict=True) if weight)
