"""What the boosting libraries have in common: columns, classes, and how an answer becomes labels.

Ensemble (what one library's model says of itself) --> Knowledge, Inputs, Runner
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Final

from ketch import extras, trust
from ketch.adapters import Input, Inputs, Knowledge, Raw, sibling
from ketch.errors import NotAModel, NotFitted, UnsupportedModel
from ketch.schema import Columns, Field, Scalar, Type

MARGIN: Final = "margin"  # a binary answer that is a score, above zero for the second class
PROBABILITY: Final = "probability"
LABEL: Final = "label"


@dataclass(frozen=True)
class Column:
    """One input of an ensemble; `coded` are the categories of its pandas column, in the order of training."""

    name: str
    type: Type = "number"
    coded: tuple[Scalar, ...] = ()
    optional: bool = True
    unknown: str = "flag"
    settled: bool = True


@dataclass(frozen=True)
class Ensemble:
    """What a fitted model says of itself; `answers` is what `ask` gives: probabilities, margins or labels.

    The second of two classes is answered where its probability or margin is above `cut`.
    """

    columns: tuple[Column, ...]
    task: str
    classes: tuple[object, ...] = ()
    answers: str = LABEL
    named: bool = True
    cut: float = 0.5
    origin: Mapping[str, str] = field(default_factory=dict)


def join(parts: Sequence[object]) -> object:
    """Give the one model, or the pipeline of a vectorizer and a model."""
    return parts[0] if len(parts) == 1 and not isinstance(parts[0], list | tuple | dict) else _sklearn().join(parts)


def _sklearn() -> Any:
    return sibling("sklearn")


def called(columns: Sequence[Column], names: Sequence[str]) -> tuple[Column, ...]:
    """Give the columns of a model that knows no names those of a sample, where it has as many."""
    given = list(names) if len(names) == len(columns) else [f"x{place}" for place in range(len(columns))]
    return tuple(
        Column(name, each.type, each.coded, each.optional, each.unknown, each.settled)
        for name, each in zip(given, columns, strict=True)
    )


def knowledge(told: Ensemble) -> Knowledge:
    """Say what the model knows, as the contract is made of it."""
    return Knowledge(
        fields=tuple(_field(each) for each in told.columns),
        task=told.task,
        classes=told.classes,
        probabilities=told.answers == PROBABILITY,
        score=told.answers == MARGIN,
        settled=frozenset(each.name for each in told.columns if each.settled),
        named=told.named,
        origin=told.origin,
    )


def _field(each: Column) -> Field:
    kind: Type = "category" if each.coded else each.type
    if each.coded and all(isinstance(value, bool) for value in each.coded):
        return Field(each.name, "boolean", required=not each.optional)
    unknown: Any = each.unknown if each.coded else "refuse"
    return Field(each.name, kind, required=not each.optional, categories=each.coded, unknown=unknown)


def inputs(told: Ensemble, fields: Sequence[Field]) -> Inputs:
    """Say what the model is handed: the contract's fields in the order of training."""
    types = {each.name: each for each in fields}
    listed = tuple(Input(each.name, types.get(each.name), categories=each.coded) for each in told.columns)
    return Inputs("frame" if told.named or any(each.coded for each in told.columns) else "array", listed)


class Runner:
    """Ask an ensemble: `ask` takes a frame or an array, and gives what the ensemble says it gives."""

    def __init__(self, told: Ensemble, fields: Sequence[Field], ask: Callable[[Any], Any]) -> None:
        self._numpy: Any = extras.load("numpy")
        self._build = sibling("tables").builder(inputs(told, fields), numbers=True)
        self._told = told
        self._ask = ask

    def __call__(self, columns: Columns, n: int) -> Raw:
        """Answer `n` rows given as checked columns."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what they warn of, names and categories, the contract has checked
            found = self._numpy.asarray(self._ask(self._build(columns, n)))
        if self._told.answers == PROBABILITY:
            return self._likely(found)
        if self._told.answers == MARGIN:
            labels = [self._told.classes[int(score > self._told.cut)] for score in found.ravel()]
            return Raw(labels, scores=found.ravel().tolist())
        if self._told.classes:
            return Raw([self._told.classes[int(place)] for place in found.ravel()])
        return Raw(found.ravel().astype(float).tolist())

    def _likely(self, found: Any) -> Raw:
        if found.ndim == 1:
            found = self._numpy.vstack((1 - found, found)).transpose()
        two = self._told.task == "binary"
        places = found[:, 1] > self._told.cut if two else found.argmax(axis=1)
        return Raw([self._told.classes[int(place)] for place in places], probabilities=found.tolist())


def require_sound(library: str, model: object) -> None:
    """Look into a model whose file was opened, as the gate looks into one that was pickled.

    Raises:
        NotAModel: its trees point outside themselves.
    """
    if not trust.is_sound(library, model):
        raise NotAModel("The numbers inside the file contradict each other", hint="Save or fetch it again.")


def requirements(library: str) -> dict[str, str]:
    """Name the distributions that a model is asked with, and their versions."""
    return {name: version(name) for name in ("numpy", "pandas", library)}


def not_fitted(model: object) -> NotFitted:
    """Make the refusal of a model without trees."""
    return NotFitted(f"This {type(model).__name__} is not fitted", hint="Call its fit first, then pack it.")


def ranker(objective: str) -> UnsupportedModel:
    """Make the refusal of a model that orders rows among each other."""
    return UnsupportedModel(
        f"A model with the objective {objective} ranks rows among each other, and has no answer to one",
        hint="Ketch serves classifiers and regressors; fit one of those.",
    )


def several(model: object) -> UnsupportedModel:
    """Make the refusal of a model with several targets."""
    return UnsupportedModel(
        f"{type(model).__name__} answers several targets at once", hint="Fit one model for each target."
    )
