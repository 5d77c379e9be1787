"""What a lowering works with: fields on their way into the model, tensors of the graph, and what a model answers."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from ketch import extras, program
from ketch.adapters import Input, Inputs
from ketch.compiler import NotCompiled
from ketch.program import Array, Number, Table, Text
from ketch.schema import Scalar

REST: Final = (object(), object())  # stand for what is unknown and what is missing
UNKNOWN: Final = "\x00 no category \x00"  # stands for a value that no encoder has seen

LARGEST_FLOAT32: Final = 3.4028234663852886e38


@dataclass(frozen=True, eq=False)
class Column:
    """One field on its way into the model.

    A field of few values is `keys` with a row of `values` for each, then one for unknown and one for missing where
    the contract lets them in; they may still be texts. A number is `steps` of arithmetic. A text waits for its
    vectorizer, and is `text` afterwards.
    """

    field: str
    keys: tuple[Scalar, ...] | None = None
    values: Any = None
    unknown: bool = False
    missing: bool = False
    steps: tuple[tuple[str, float], ...] = ()
    absent: float | str | None = None
    text: Text | None = None
    kept: tuple[Any, Any] | None = None  # of a text's columns, their places and what each is multiplied by

    @property
    def width(self) -> int:
        """Count the columns that it becomes."""
        if self.keys is not None:
            return int(self.values.shape[1])
        if self.kept is not None:
            return len(self.kept[0])
        return self.text.width if self.text else 1

    def kept_of_text(self, np: Any) -> tuple[Any, Any]:
        """Give the places of a text's columns, and what each is multiplied by."""
        width = self.text.width if self.text else 0
        return self.kept or (np.arange(width), np.ones(width))

    @property
    def is_number(self) -> bool:
        """Say whether it is a number with steps of arithmetic."""
        return self.keys is None and self.text is None

    def part(self) -> program.Part:
        """Give it as part of a program.

        Raises:
            NotCompiled: its values are still texts.
        """
        if self.text is not None:
            return self.text
        if self.keys == () and not self.unknown:
            raise NotCompiled(f"{self.field} reaches the estimator as text")
        if self.keys is None:
            return Number(self.field, self.steps, self.absent)
        return Table(self.field, self.keys, Array.of(self.part_rows()), self.unknown, self.missing)

    def part_rows(self) -> Any:
        """Give the values as float64.

        Raises:
            NotCompiled: they are still texts.
        """
        try:
            return self.values.astype(float)
        except (TypeError, ValueError):
            raise NotCompiled(f"{self.field} reaches the estimator as text") from None

    def slope(self) -> tuple[float, float]:
        """Give a number's steps as one factor and one offset."""
        factor, offset = 1.0, 0.0
        for kind, by in self.steps:
            step = program.STEPS[kind]
            offset = step(offset, by)
            factor = factor if kind in "+-" else step(factor, by)
        return factor, offset


def row_of(column: Column, kind: str) -> slice:
    """Give the place of the row for what is unknown, or missing."""
    at = len(column.keys or ()) + (column.unknown if kind == "missing" else 0)
    return slice(at, at + 1)


def unscaled(column: Column) -> Column:
    """Take the steps off a number; an absent one stands for the value that it had before them."""
    return replace(column, steps=())


def narrowed(np: Any, column: Column, places: list[int]) -> Column:
    """Choose columns of a field by place."""
    if column.text is not None:
        return replace(column, kept=tuple(each[places] for each in column.kept_of_text(np)))
    return column if column.keys is None else replace(column, values=column.values[:, places])


def stepped(np: Any, column: Column, kind: str, by: Any) -> Column:
    """Add, subtract, multiply or divide the columns of a field."""
    if column.text is not None:
        places, factors = column.kept_of_text(np)
        return replace(column, kept=(places, program.STEPS[kind](factors, by)))
    if column.keys is None:
        return replace(column, steps=(*column.steps, (kind, float(by[0]))))
    return replace(column, values=program.STEPS[kind](column.part_rows(), by[None, :]))


def fingerprint(array: Any) -> bytes:
    """Tell arrays apart by type, shape and content."""
    return f"{array.dtype}{array.shape}".encode() + hashlib.sha256(array.tobytes()).digest()


def summed(one: Column, other: Column) -> Column:
    """Add up what two tables of one field are worth; what either refuses is refused."""
    np, listed = extras.load("numpy"), dict.fromkeys([*(one.keys or ()), *(other.keys or ())])
    found: dict[object, Any] = {}
    for key in [*listed, *REST]:
        rows = [_worth(each, key) for each in (one, other)]
        if all(row is not None for row in rows):
            found[key] = rows[0] + rows[1]
    return replace(
        one,
        keys=tuple(key for key in listed if key in found),
        values=np.array(list(found.values())).reshape(len(found), -1),
        unknown=REST[0] in found,
        missing=REST[1] in found,
    )


def _worth(column: Column, key: object) -> Any:
    """Give the row of one value of a table; none where it is refused."""
    if key is REST[1]:
        return column.values[-1] if column.missing else None
    keys = column.keys or ()
    if key in keys:
        return column.values[keys.index(key)]
    return column.values[len(keys)] if column.unknown else None


@dataclass(frozen=True, eq=False)
class Blocks:
    """Fields side by side, before anything has mixed them; `names` while each is one input of the model."""

    columns: tuple[Column, ...]
    names: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        """Count the columns."""
        return sum(each.width for each in self.columns)


class Graph(Protocol):
    """The program under construction that a tensor belongs to."""

    def node(self, kind: str, *inputs: Any, width: int | None = None, **attributes: Any) -> "Tensor":
        """Add an operation."""


@dataclass(frozen=True, eq=False)
class Tensor:
    """A value of the graph: `n` rows and `width` columns of float64, or what a lowering knows it to be.

    `affine` says how it follows from the fields by one multiplication, `link` from which tensor by a known function.
    """

    graph: Graph
    name: str
    width: int
    affine: "Affine | None" = None
    link: "tuple[str, Tensor] | None" = None

    def __add__(self, other: Any) -> "Tensor":
        return self.graph.node("Add", self, other)

    def __sub__(self, other: Any) -> "Tensor":
        return self.graph.node("Sub", self, other)

    def __rsub__(self, other: Any) -> "Tensor":
        return self.graph.node("Sub", other, self)

    def __mul__(self, other: Any) -> "Tensor":
        return self.graph.node("Mul", self, other)

    def __truediv__(self, other: Any) -> "Tensor":
        return self.graph.node("Div", self, other)

    # numpy's arrays must not take these tensors apart
    __array_ufunc__ = None

    def __matmul__(self, other: Any) -> "Tensor":
        width = other.width if isinstance(other, Tensor) else other.shape[1]
        return self.graph.node("MatMul", self, other, width=width)


Operand = Tensor | Any  # a tensor, a number or an array of numpy

X = Blocks | Tensor


@dataclass(frozen=True, eq=False)
class Affine:
    """Fields, a matrix and an offset: `columns @ weights + bias`."""

    blocks: Blocks
    weights: Any
    bias: Any


@dataclass(frozen=True)
class Answers:
    """What an estimator answers, as tensors; each lowering gives what its kind has.

    `values` (n, outputs) of a regression. For classifiers `probabilities` (n, classes), `scores` (n, 1) for two
    classes, else (n, classes), and `labels` (n,) as int64 places in `classes_`, which may be left out where they are
    those of the largest probability or score. For clusters `labels` are the clusters, for outliers 1 and -1.
    """

    values: Tensor | None = None
    labels: Tensor | None = None
    probabilities: Tensor | None = None
    scores: Tensor | None = None
    parts: tuple["Answers", ...] = ()  # of several targets that are classes


@dataclass(frozen=True)
class Trees:
    """Fitted trees of scikit-learn: for each what its nodes are worth, (nodes, outputs) or (nodes, 1), which add up.

    `targets` names the output of each tree whose nodes are worth one number, `features` the places of its inputs.
    """

    fitted: Sequence[Any]
    worths: Sequence[Any]
    targets: Sequence[int]
    outputs: int
    features: Sequence[Any] | None = None


@dataclass(frozen=True)
class Pieces:
    """Polynomials between edges: a number's interval is the count of `edges` (columns, edges) that it reaches.

    Of each interval `coefficients` (columns, edges + 1, degree + 1, outputs), the constant first, are those of the
    distance from `origins` (columns, edges + 1).
    """

    edges: Any
    origins: Any
    coefficients: Any


def raw(inputs: Inputs) -> Blocks:
    """Give a model's inputs as blocks that nothing has been done to."""
    columns = tuple(_raw_column(each, inputs.form) for each in inputs.columns)
    return Blocks(columns, tuple(each.name for each in inputs.columns))


def _raw_column(each: Input, form: str) -> Column:
    found = each.field
    if found is None or found.type == "text":  # dropped, or to be vectorized
        return Column(each.name, keys=(), values=extras.load("numpy").empty((0, 1), dtype=object))
    if found.type == "boolean":
        return table(found.name, (False, True), each.gap)
    if found.type == "category" and not found.is_of_numbers:
        return table(found.name, found.categories, each.gap, unknown=True)
    if found.type not in {"number", "integer", "category"}:
        raise NotCompiled(f"{found.name} is a {found.type}")
    gap = float(each.gap) if isinstance(each.gap, int | float) else math.nan
    absent: float | str = "nan" if math.isnan(gap) else gap
    return Column(found.name, absent=absent if not found.required or form == "dicts" else None)


def table(name: str, keys: Sequence[Scalar], gap: object, *, unknown: bool = False) -> Column:
    """Give a field of few values as nothing has touched it."""
    numbers = [key for key in keys if isinstance(key, int | float)]
    other = max(numbers) + 1 if numbers else UNKNOWN
    listed = [*keys, *([other] if unknown else []), gap]
    values = extras.load("numpy").empty((len(listed), 1), dtype=object)
    values[:, 0] = listed
    return Column(name, tuple(keys), values, unknown=unknown, missing=True)
