"""How each framework is spoken to: found by the model's class, without importing any framework."""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, Final, Protocol, runtime_checkable

import msgspec

from ketch import trust
from ketch.errors import NotAModel
from ketch.schema import Columns, Field, Scalar

GROUP: Final = "ketch.adapters"  # of entry points: root module of a class -> an adapter that another package brings
KNOWN: Final = {  # root module of a class -> where its adapter stands
    "catboost": "ketch.adapters.catboost",
    "function": "ketch.adapters.function",
    "ketch": "ketch.adapters.onnx",  # its class of a graph
    "lightgbm": "ketch.adapters.lightgbm",
    "sklearn": "ketch.adapters.sklearn",
    "xgboost": "ketch.adapters.xgboost",
}
READERS: Final[dict[str, str]] = {  # format of a file that is no pickle -> the adapter that reads it
    "catboost-cbm": "ketch.adapters.catboost",
    "catboost-json": "ketch.adapters.catboost",
    "lightgbm-txt": "ketch.adapters.lightgbm",
    "onnx": "ketch.adapters.onnx",
    "xgboost-json": "ketch.adapters.xgboost",
    "xgboost-old": "ketch.adapters.xgboost",
    "xgboost-ubj": "ketch.adapters.xgboost",
}
SIBLINGS: Final = {  # what adapters share
    "boosting": "ketch.adapters.boosting",
    "graphs": "ketch.adapters.graphs",
    "mlflow": "ketch.adapters.mlflow",
    "sklearn": "ketch.adapters.sklearn",
    "tables": "ketch.adapters.tables",
}


@dataclass(frozen=True)
class Knowledge:
    """What a fitted model knows about itself.

    `words` are texts to compose examples from; `plausible` gives low and high of numbers; `settled` are
    fields whose missing values the model itself decides on, so that nothing needs to be tried; `named` says that
    the fields bear the names of the training data, rather than made-up ones.
    """

    fields: tuple[Field, ...]
    task: str
    classes: tuple[object, ...] = ()
    probabilities: bool = False
    score: bool = False
    words: Mapping[str, Sequence[str]] = field(default_factory=dict)
    plausible: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    settled: frozenset[str] = frozenset()
    origin: Mapping[str, str] = field(default_factory=dict)
    named: bool = True


@dataclass(frozen=True)
class Input:
    """One input of a model: the field that feeds it (none where the model drops it), and how it writes a gap.

    `categories` are those of a pandas column of dtype category, in the order of training.
    """

    name: str
    field: Field | None
    gap: object = float("nan")
    categories: tuple[Scalar, ...] = ()


@dataclass(frozen=True)
class Inputs:
    """What a model is handed: "dicts", "texts", a "frame" or an "array", and its columns in their order."""

    form: str
    columns: tuple[Input, ...]


class Raw(msgspec.Struct):
    """A model's answers to a batch: labels or numbers, and what stands behind them.

    With several targets each entry is a list with one for each target.
    """

    labels: list[object]
    probabilities: list[list[float]] | None = None
    scores: list[float] | None = None
    classes: tuple[object, ...] | None = None  # whose probabilities these are, where the model says so with each answer

    def rows(self, start: int, end: int) -> "Raw":
        """Give the answers to some of the rows."""

        def of(found: Any) -> Any:
            return None if found is None else found[start:end]

        return Raw(of(self.labels), of(self.probabilities), of(self.scores))

    def part(self, place: int) -> "Raw":
        """Give the answers for one of several targets."""

        def of(found: Any) -> Any:
            return None if found is None else [row[place] for row in found]

        return Raw(of(self.labels), of(self.probabilities), of(self.scores))


def beside(parts: Sequence[Raw]) -> Raw:
    """Put the answers for several targets together."""

    def of(found: Sequence[Any]) -> Any:
        return None if any(each is None for each in found) else [list(row) for row in zip(*found, strict=True)]

    return Raw(
        of([each.labels for each in parts]),
        of([each.probabilities for each in parts]),
        of([each.scores for each in parts]),
    )


class Runner(Protocol):
    """Something that answers checked columns."""

    def __call__(self, columns: Columns, n: int) -> Raw:
        """Answer `n` rows."""


class Adapter(Protocol):
    """How one framework is spoken to; a module with these functions is an adapter."""

    def join(self, parts: Sequence[object]) -> object:
        """Make one model of several parts, such as a vectorizer and an estimator."""

    def study(self, model: object, names: Sequence[str]) -> Knowledge:
        """Say what the fitted model knows; `names` are a sample's columns, for models that know none."""

    def inputs(self, model: object, fields: Sequence[Field]) -> Inputs:
        """Say what the model is handed, for the compiler; a `form` that it does not know is not compiled."""

    def runner(self, model: object, fields: Sequence[Field]) -> Runner:
        """Prepare the model to answer checked columns."""

    def requirements(self) -> Mapping[str, str]:
        """Name the distributions that a model is asked with, and their versions; its files tell the others."""


@runtime_checkable
class RowStudy(Protocol):
    """An adapter whose models know nothing of their inputs: it learns them from a sample."""

    def study_rows(self, model: object, columns: Columns) -> Knowledge:
        """Say what the model does with these rows."""


class Reader(Protocol):
    """An adapter that reads files of its framework's own; its formats stand in `READERS`."""

    def recognise(self, name: str, data: bytes) -> str:
        """Name the format of a file by its name and first bytes, empty if it is none of this framework's."""

    def open_file(self, data: bytes, format: str) -> object:  # noqa: A002 (the manifest's word)
        """Make the model out of the bytes.

        Raises:
            NotAModel, UnsupportedModel: the bytes are damaged, or hold something else.
        """

    def load(self, data: bytes, known: object) -> object:
        """Open the bytes as the gate's child process does first, to see what becomes of it."""


def sibling(name: str) -> ModuleType:
    """Import what adapters share, by its short name."""
    return importlib.import_module(SIBLINGS[name])


def format_of(name: str, data: bytes) -> str:
    """Name the format of a file that belongs to a framework, empty where only the gate can tell."""
    for where in dict.fromkeys(READERS.values()):
        reader: Reader = importlib.import_module(where)
        if found := reader.recognise(name, data):
            return found
    if data[:1] == b"\x80":  # a pickle, which is not worth importing what others brought
        return ""
    for point in entry_points(group=GROUP):
        if (found := getattr(point.load(), "recognise", _nothing)(name, data)) and _reader_of(found):
            return str(found)
    return ""


def _nothing(name: str, data: bytes) -> str:
    return ""


def _reader_of(form: str) -> str:
    """Name the module that reads a format; those that others bring begin with the name of their entry point."""
    if form in READERS:
        return READERS[form]
    if form in {"", "pickle", "joblib", "skops"}:
        return ""
    return next((point.module for point in entry_points(group=GROUP, name=form.partition("-")[0])), "")


def name_of(adapter: Adapter) -> str:
    """Give the name that a manifest keeps: a short one for Ketch's own, the module's for others."""
    where = str(getattr(adapter, "__name__", type(adapter).__module__))
    return where.removeprefix(f"{__name__}.")


def open_original(data: bytes, form: str, *, home: Path, name: str, signed: bool = False) -> object:
    """Open one file of a model as its format says: a pickle through the gate, others by their framework.

    `signed` says that the bundle that it stands in is signed with a trusted key.

    Raises:
        TrustError, ModelError: it must not, or cannot, be opened here.
    """
    if where := _reader_of(form):
        reader: Reader = importlib.import_module(where)
        if not signed:
            trust.try_first(data, home=home, name=name, loader=where)
        return reader.open_file(data, form)
    return trust.open_model(data, home=home, name=name, signed=signed)


def adapter_for(model: object) -> Adapter:
    """Find the adapter for a model by walking its classes.

    Raises:
        NotAModel: nobody claims it.
    """
    if isinstance(model, FunctionType):
        return importlib.import_module(KNOWN["function"])
    for cls in type(model).__mro__:
        root = cls.__module__.partition(".")[0]
        if root in KNOWN:
            return importlib.import_module(KNOWN[root])
        for point in entry_points(group=GROUP, name=root):
            found: Adapter = point.load()
            return found
    raise not_a_model(model)


def not_a_model(model: object) -> NotAModel:
    """Make the refusal of an object that no adapter claims."""
    kind = type(model)
    return NotAModel(
        f"A {kind.__module__}.{kind.__qualname__} is not a model that Ketch knows",
        hint="Give a fitted estimator or pipeline, a pair such as (vectorizer, estimator), or def predict(rows).",
    )
