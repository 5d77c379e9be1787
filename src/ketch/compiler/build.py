"""A program under construction: operations are added one by one, and what they rest on is kept."""

import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import msgspec

from ketch import extras, program
from ketch.adapters import Adapter
from ketch.compiler import (
    ESTIMATORS,
    INVERSES,
    TRANSFORMERS,
    Compiled,
    NotCompiled,
    found_in,
)
from ketch.compiler.values import (
    LARGEST_FLOAT32,
    Affine,
    Answers,
    Blocks,
    Column,
    Operand,
    Pieces,
    Tensor,
    Trees,
    X,
    fingerprint,
    narrowed,
    raw,
    row_of,
    stepped,
    summed,
    table,
    unscaled,
)
from ketch.program import Array, Linear, Text, Weights
from ketch.schema import LARGEST, Answer, Field, Scalar

BLOCK: Final = 8

# whose last few numbers of an array come out otherwise; Sqrt and Pow do not (measured, see tests/test_compiler_kernels)
CURVED: Final = frozenset({"Exp", "Log", "Tanh", "Sigmoid", "Softmax", "Sin", "Cos", "ReduceLogSumExp"})

TYPES: Final = {"float": 1, "int64": 7, "bool": 9, "double": 11}  # as onnx.TensorProto numbers them

SUMS: Final = frozenset({"Sum", "Mean", "SumSquare", "L1", "L2"})

SQUARES: Final = frozenset({"SumSquare", "L2"})

MOST_CELLS: Final = 20_000_000  # float64 numbers of one intermediate value, for all rows asked at once

SMALL: Final = 20_000  # weights of an affine map that is cheaper at once than part by part

MOST_WEIGHTS: Final = 4_000_000  # of an affine map that is kept beside its graph


def _unlinked(group: dict[str, "Tensor"]) -> str:
    """Take the link off a group's numbers, so that Python applies it; give its name."""
    for role in ("values", "probabilities"):
        if role in group and group[role].link:
            link, group[role] = group[role].link or ("", group[role])
            return link
    return "identity"


def _is_single(values: "Tensor | None") -> bool:
    return values is not None and values.width == 1


def _needed(tensor: "Tensor | None", what: str) -> "Tensor":
    if tensor is None:
        raise NotCompiled(f"its {what} are not known")
    return tensor


def _grouped(answers: Answers, answer: Answer) -> tuple[list[Answers], list[str]]:
    """Give the answers for each target, with what is wanted of each; several numbers stay in one table."""
    kinds = ["value" if part.task == "regression" else part.values for part in answer.parts or (answer,)]
    if answers.parts:
        return list(answers.parts), kinds
    if answer.parts and kinds[0] != "value":
        raise NotCompiled("it answers several targets")
    return [answers], kinds[:1]


class Build:
    """A program under construction; lowerings see it as `g`."""

    def __init__(self, fields: Sequence[Field]) -> None:
        self.np: Any = extras.load("numpy")
        self.fields = {each.name: each for each in fields}
        self.thresholds: dict[str, list[float]] = {}  # where trees split a field, to be tried by parity
        self.largest = LARGEST
        self.cells = 0  # float64 numbers that the largest intermediate value has for one row
        self._refused: list[Tensor] = []
        self._nodes: list[Any] = []
        self._constants: dict[str, Any] = {}
        self._even: set[str] = set()  # curved tensors without a ragged end
        self._known: dict[bytes, str] = {}
        self._parts: list[program.Part] = []
        self._places: dict[bytes, list[int]] = {}
        self._width = 0
        self._count = 0

    # ---- operations ----------------------------------------------------------------------------

    def tensor(self, x: X) -> Tensor:
        """Give a value as a tensor; blocks become columns of the graph's input."""
        if isinstance(x, Tensor):
            return x
        places: list[int] = []
        factors = self.np.ones(x.width)
        for column in x.columns:
            own = self._placed(column.part())
            if column.kept is not None:
                factors[len(places) : len(places) + column.width] = column.kept[1]
                own = self.np.asarray(own)[column.kept[0]].tolist()
            places += own
        made = self.node("Gather", Tensor(self, program.INPUT, 0), self.integers(places), axis=1, width=len(places))
        if (factors != 1.0).any():
            made = made * factors[None, :]
        return replace(made, affine=self._identity(x))

    def _placed(self, part: program.Part) -> list[int]:
        key = msgspec.json.encode(part)
        if key not in self._places:
            width = program.width_of(part)
            self._parts.append(part)
            self._places[key] = list(range(self._width, self._width + width))
            self._width += width
        return self._places[key]

    def _identity(self, x: Blocks) -> Affine | None:
        width = x.width
        return Affine(x, self.np.eye(width), self.np.zeros(width)) if width * width <= MOST_WEIGHTS else None

    def constant(self, value: Any) -> str:
        """Name a constant: float64 unless it is an integer or boolean array."""
        array = self.np.asarray(value)
        if array.dtype.kind == "f" or not isinstance(value, self.np.ndarray):
            array = array.astype(float)
        return self._keep(array)

    def integers(self, value: Any) -> str:
        """Name a constant of int64."""
        return self._keep(self.np.asarray(value, dtype="int64"))

    def _keep(self, array: Any) -> str:
        key = fingerprint(array)
        if key not in self._known:
            self._known[key] = f"c{len(self._known)}"
            self._constants[self._known[key]] = array
        return self._known[key]

    def node(self, kind: str, *inputs: Operand | str, width: int | None = None, **attributes: Any) -> Tensor:
        """Add an operation of ONNX with one output; a string names a constant, anything else is a number or array.

        The output is as wide as the widest tensor among the inputs unless `width` says so.
        """
        return self.nodes(kind, *inputs, widths=[width], **attributes)[0]

    def nodes(self, kind: str, *inputs: Operand | str, widths: Sequence[int | None], **attributes: Any) -> list[Tensor]:
        """Add an operation of ONNX with several outputs."""
        names = [
            each.name if isinstance(each, Tensor) else each if isinstance(each, str) else self.constant(each)
            for each in inputs
        ]
        wide = max((each.width for each in inputs if isinstance(each, Tensor)), default=0)
        outputs = [f"t{self._count + place}" for place in range(len(widths))]
        self._count += len(widths)
        domain = "ai.onnx.ml" if kind == "TreeEnsemble" else ""
        self._nodes.append((kind, names, outputs, domain, attributes))
        found = [
            Tensor(self, name, wide if width is None else width) for name, width in zip(outputs, widths, strict=True)
        ]
        self.cells = max([self.cells, *(each.width for each in found)])
        return found

    def linear(self, x: X, weights: Any, bias: Any = 0.0) -> Tensor:
        """Multiply by a matrix (columns, outputs) and add an offset; a chain of these is one."""
        np = self.np
        weights = np.asarray(weights.toarray() if hasattr(weights, "toarray") else weights, dtype=float)
        bias = np.zeros(weights.shape[1]) + np.asarray(bias, dtype=float).reshape(-1)
        made: Tensor = self.tensor(x) @ weights + bias[None, :]
        if isinstance(x, Blocks):
            return replace(made, affine=Affine(x, weights, bias))
        if x.affine is None:
            return made
        return replace(made, affine=Affine(x.affine.blocks, x.affine.weights @ weights, x.affine.bias @ weights + bias))

    def linked(self, kind: str, x: Tensor) -> Tensor:
        """Apply a link to sums: exp, expm1, each, sigmoid, softmax, shares or even.

        `sigmoid` makes both probabilities of one sum, `each` a sigmoid of every sum; `shares` are those over their sum,
        and so are `even`, but the same for all classes where all are zero.
        """
        if kind in {"exp", "expm1"}:
            grown = self.node("Exp", x)
            return replace(grown if kind == "exp" else grown - 1.0, link=(kind, x))
        if kind == "softmax":
            return replace(self.node("Softmax", x, axis=1), link=(kind, x))
        made = self.node("Sigmoid", x)
        if kind == "each":
            return replace(made, link=(kind, x))
        if x.width > 1:
            whole = self.reduce("Sum", made)
            none = self.node("Equal", whole, 0.0)
            shares = made / self.node("Where", none, 1.0, whole)
            even = self.node("Where", none, 1.0 / x.width, shares, width=x.width) if kind == "even" else shares
            return replace(even, link=(kind, x))
        both = self.node("Concat", self.node("Sub", 1.0, made), made, axis=1, width=2)
        return replace(both, link=("sigmoid", x))

    def both(self, x: Tensor) -> Tensor:
        """Make the probabilities of two classes of that of the second."""
        return replace(self.node("Concat", 1.0 - x, x, axis=1, width=2), link=("both", x))

    def reduce(self, kind: str, x: Tensor, *, axis: int = 1, keep: bool = True) -> Tensor:
        """Reduce along an axis by Sum, Max, Min, Mean, SumSquare, LogSumExp, L1, L2 or Prod.

        A sum over columns is a multiplication by ones, because ReduceSum adds up a row in an order that follows from
        where it lies in memory.
        """
        if axis == 1 and keep and kind in SUMS:
            terms = self.node("Abs", x) if kind == "L1" else self.node("Mul", x, x) if kind in SQUARES else x
            found = terms @ self.np.full((x.width, 1), 1.0)
            return found / float(x.width) if kind == "Mean" else self.node("Sqrt", found) if kind == "L2" else found
        return self.node(f"Reduce{kind}", x, self.integers([axis]), keepdims=int(keep), width=1)

    def curved(self, kind: str, x: Tensor) -> Tensor:
        """Apply Exp, Tanh or the like to each number; a row of 8 numbers, or 16, 24 …, has no ragged end of its own."""
        made = self.node(kind, x)
        if x.width % BLOCK == 0:
            self._even.add(made.name)
        return made

    def squares(self, x: X, points: Any) -> Tensor:
        """Give squared distances from points (points, columns) as one multiplication and two norms."""
        given = self.tensor(x)
        both = self.reduce("SumSquare", given) + given @ (-2.0 * points.T)
        return self.node("Max", both + (points**2).sum(axis=1)[None, :], 0.0)

    def apart(self, x: X, points: Any) -> Tensor:
        """Give differences from points (points, columns) along three axes: rows, columns, points.

        Reduced along the columns they add up in the order in which a loop over them would.
        """
        return self.node(
            "Sub", self.node("Unsqueeze", self.tensor(x), self.integers([2])), points.T[None], width=points.size
        )

    def signs(self, scores: Tensor) -> Tensor:
        """Give 1 where a score is 0 or more, else -1, as detectors of outliers do."""
        found = self.node(
            "Where", self.node("GreaterOrEqual", scores, 0.0), self.integers(1), self.integers(-1), width=1
        )
        return replace(self.node("Reshape", found, self.integers([-1])), link=("signs", scores))

    def take(self, x: X, places: Sequence[int]) -> X:
        """Choose columns by place."""
        places = [int(place) for place in places]
        if isinstance(x, Tensor):
            taken = self.node("Gather", x, self.integers(places), axis=1, width=len(places))
            if x.affine is None:
                return taken
            return replace(taken, affine=Affine(x.affine.blocks, x.affine.weights[:, places], x.affine.bias[places]))
        owners = [(at, own) for at, column in enumerate(x.columns) for own in range(column.width)]
        numbers = [column.is_number for column in x.columns]
        chosen = enumerate(owners[place] for place in places)
        runs = itertools.groupby(chosen, key=lambda each: (each[1][0], each[0] if numbers[each[1][0]] else 0))
        return Blocks(tuple(narrowed(self.np, x.columns[at], [own for _, (_, own) in run]) for (at, _), run in runs))

    def concat(self, parts: Sequence[X]) -> X:
        """Put values side by side."""
        if all(isinstance(each, Blocks) for each in parts):
            return Blocks(tuple(column for each in parts if isinstance(each, Blocks) for column in each.columns))
        tensors = [self.tensor(each) for each in parts]
        if len(tensors) == 1:
            return tensors[0]
        joined = self.node("Concat", *tensors, axis=1, width=sum(each.width for each in tensors))
        affines = [each.affine for each in tensors if each.affine is not None]
        if len(affines) < len(tensors):
            return joined
        affine = self._beside(affines)
        if affine is None or affine.weights.size > SMALL:
            return replace(joined, affine=affine)
        return self.linear(affine.blocks, affine.weights, affine.bias)  # one multiplication for all

    def mean(self, parts: Sequence[Tensor], weights: Sequence[float] | None = None) -> Tensor:
        """Average values, or probabilities of the same classes; what is affine stays so."""
        np = self.np
        shares = np.ones(len(parts)) if weights is None else np.asarray(weights, dtype=float)
        whole = float(shares.sum())
        if all(part.affine is not None for part in parts):
            unit = np.eye(parts[0].width)
            return self.linear(self.concat(parts), np.concatenate([unit * share / whole for share in shares]))
        sums = [part.link[1] for part in parts if part.link and part.link[0] == "sigmoid" and part.link[1].affine]
        if 1 < len(sums) == len(parts):
            return self.both(self.node("Sigmoid", self.concat(sums)) @ (shares[:, None] / whole))
        weighed = [part if share == 1.0 else part * float(share) for part, share in zip(parts, shares, strict=True)]
        return functools.reduce(lambda one, other: one + other, weighed) / whole

    def _beside(self, affines: Sequence[Affine]) -> Affine | None:
        first = affines[0].blocks
        if all(each.blocks is first for each in affines):
            joined = self.np.concatenate([each.weights for each in affines], axis=1)
            return Affine(first, joined, self.np.concatenate([each.bias for each in affines]))
        tall, wide = (sum(each.weights.shape[axis] for each in affines) for axis in (0, 1))
        if tall * wide > MOST_WEIGHTS:
            return None
        weights, down, right = self.np.zeros((tall, wide)), 0, 0
        for each in affines:
            rows, columns = each.weights.shape
            weights[down : down + rows, right : right + columns] = each.weights
            down, right = down + rows, right + columns
        blocks = Blocks(tuple(column for each in affines for column in each.blocks.columns))
        return Affine(blocks, weights, self.np.concatenate([each.bias for each in affines]))

    def arithmetic(self, x: X, kind: str, by: Any) -> X:
        """Add, subtract, multiply or divide each column by its own number: "+", "-", "*" or "/"."""
        by = self.np.zeros(x.width) + self.np.asarray(by, dtype=float).reshape(-1)
        if isinstance(x, Blocks) and (kind in "*/" or not any(column.text for column in x.columns)):
            ends = self.np.cumsum([column.width for column in x.columns])
            pieces = self.np.split(by, ends[:-1])
            return Blocks(
                tuple(stepped(self.np, column, kind, own) for column, own in zip(x.columns, pieces, strict=True))
            )
        return self._scaled(self.tensor(x), kind, by)

    def _scaled(self, x: Tensor, kind: str, by: Any) -> Tensor:
        made = self.node({"+": "Add", "-": "Sub", "*": "Mul", "/": "Div"}[kind], x, by[None, :])
        if x.affine is None:
            return made
        step = program.STEPS[kind]
        weights = x.affine.weights if kind in "+-" else step(x.affine.weights, by[None, :])
        return replace(made, affine=Affine(x.affine.blocks, weights, step(x.affine.bias, by)))

    def float32(self, x: X) -> Tensor:
        """Round to float32 as the original does, and go on in float64; what float32 cannot hold is refused."""
        small = self.node("Cast", self.tensor(x), to=TYPES["float"])
        if isinstance(x, Blocks):
            self.largest = min(self.largest, LARGEST_FLOAT32)
        else:
            self.require_finite(small)
        return self.node("Cast", small, to=TYPES["double"])

    def splits(self, x: X, places: Any, thresholds: Any) -> None:
        """Note where trees split fields, so that parity tries both sides of each."""
        if not isinstance(x, Blocks) or any(column.text for column in x.columns):
            return
        owners = [column for column in x.columns for _ in range(column.width)]
        for place in self.np.unique(places).tolist():
            column = owners[place]
            if column.keys is None:
                factor, offset = column.slope()
                found = (self.np.unique(thresholds[places == place]) - offset) / (factor or 1.0)
                self.thresholds.setdefault(column.field, []).extend(found.tolist())

    def cast(self, x: Tensor, kind: str) -> Tensor:
        """Turn a tensor into "int64", "bool" or "double"."""
        return self.node("Cast", x, to=TYPES[kind])

    def refuse(self, flags: Tensor) -> None:
        """Refuse rows of which a flag (rows, any) is true, because the original takes no such row."""
        kept = self.node("ReduceMax", self.cast(flags, "int64"), self.integers([1]), keepdims=0, width=1)
        self._refused.append(kept)

    def require_finite(self, x: Tensor) -> Tensor:
        """Refuse rows that overflowed on their way here."""
        self.refuse(self.node("IsInf", x))
        return x

    def piecewise(self, x: X, pieces: "Pieces") -> Tensor:
        """Look up the polynomials of the interval that each number lies in, and take their values side by side."""
        np, x = self.np, self.tensor(x)
        columns, count = pieces.edges.shape
        degree, outputs = pieces.coefficients.shape[2:]
        tall = self.node("Reshape", x, self.integers([-1, columns, 1]), width=columns)
        self.cells = max(self.cells, columns * max(count, degree * outputs))
        below = self.cast(self.node("GreaterOrEqual", tall, pieces.edges[None]), "int64")
        passed = self.node("ReduceSum", below, self.integers([2]), keepdims=0, width=columns)
        place = self.node("Add", passed, self.integers(np.arange(columns)[None] * (count + 1)))
        table = pieces.coefficients.reshape(columns * (count + 1), degree * outputs)
        found = self.node("Gather", table, place, axis=0, width=columns * degree * outputs)
        if degree == 1:
            return self.node("Reshape", found, self.integers([-1, columns * outputs]), width=columns * outputs)
        found = self.node("Reshape", found, self.integers([0, columns, degree, outputs]))
        origin = self.node("Gather", pieces.origins.reshape(-1), place, axis=0, width=columns)
        step = self.node("Reshape", x - origin, self.integers([-1, columns, 1]), width=columns)
        cuts = [self.node("Gather", found, self.integers(power), axis=2) for power in range(degree)]
        value = cuts[-1]
        for each in cuts[-2::-1]:
            value = value * step + each
        return self.node("Reshape", value, self.integers([-1, columns * outputs]), width=columns * outputs)

    def trees(self, x: X, grown: "Trees") -> Tensor:
        """Ask fitted trees of scikit-learn."""
        return _needed(self.lower(grown, x).values, "trees")

    # ---- models --------------------------------------------------------------------------------

    def lower(self, model: Any, x: X) -> Answers:
        """Lower a fitted estimator, or a pipeline that ends in one.

        Raises:
            NotCompiled: it has no compiled form; the sentence says what stands in the way.
        """
        found: Answers = found_in(ESTIMATORS, model)(self, model, x)
        return found

    def apply(self, step: Any, x: X) -> X:
        """Lower a fitted transformer.

        Raises:
            NotCompiled: it has no compiled form.
        """
        if step is None or (isinstance(step, str) and step == "passthrough"):
            return x
        found: X = found_in(TRANSFORMERS, step)(self, step, x)
        return found

    def confidence(self, model: Any, answers: Answers) -> Tensor:
        """Give a classifier's decision function, or else the probability of its second class or of all.

        Raises:
            NotCompiled: its compiled form does not know them.
        """
        if answers.values is not None:
            return answers.values
        if hasattr(model, "decision_function"):
            return _needed(answers.scores, "scores")
        found = _needed(answers.probabilities, "probabilities")
        return found if found.width > 2 else self.tensor(self.take(found, [1]))

    def invert(self, step: Any, x: X) -> X:
        """Lower the inverse of a fitted transformer.

        Raises:
            NotCompiled: it has no compiled form.
        """
        found: X = found_in(INVERSES, step)(self, step, x)
        return found

    def labels(self, answers: Answers) -> Tensor:
        """Give the places of an answer's classes: its own labels, else those of the largest probability or score."""
        if answers.labels is not None:
            return answers.labels
        found = answers.probabilities if answers.probabilities is not None else answers.scores
        if found is None:
            raise NotCompiled("its labels are not known")
        if found.width == 1:
            above = self.cast(self.node("Greater", found, 0.0), "int64")
            return self.node("Reshape", above, self.integers([-1]))
        return self.node("ArgMax", found, axis=1, keepdims=0, width=1)

    def tabulated(self, x: Blocks, widths: Sequence[int], transform: Callable[[Any], Any]) -> Blocks:
        """Look up what a transformer makes of each value of each field, one field at a time.

        Each column of `x` is one input of few values, and becomes `widths` columns that follow from it alone, in the
        order of the inputs. `transform` takes an object array (rows, inputs) and gives an array. What it raises on is
        not in the table, so that it is refused.

        Raises:
            NotCompiled: an input is a number or a text.
        """
        x = replace(x, columns=tuple(self._listed(each) for each in x.columns))
        for column in x.columns:
            if column.keys is None or (not column.keys and not column.unknown) or column.width != 1:
                raise NotCompiled(f"{column.field} is encoded, though it is not one of few values")
        base = [column.values[0, 0] for column in x.columns]
        known = [
            (place, value) for place, each in enumerate(x.columns) for value in each.values[: len(each.keys or ()), 0]
        ]
        rest = [
            (place, value, kind)
            for kind in ("unknown", "missing")
            for place, each in enumerate(x.columns)
            if getattr(each, kind)
            for value in each.values[row_of(each, kind), 0]
        ]
        ask = functools.partial(self._asked, transform, base)
        made = ask(known) if known else self.np.empty((0, sum(widths)))
        extra = self._asked_or_not(ask, [(place, value) for place, value, _ in rest])
        found, start, row = [], 0, 0
        for place, (column, width) in enumerate(zip(x.columns, widths, strict=True)):
            wanted = slice(start, start + width)
            count = len(column.keys or ())
            more = {
                kind: got for (at, _, kind), got in zip(rest, extra, strict=True) if at == place and got is not None
            }
            rows = [
                made[row : row + count, wanted],
                *(more[kind][None, wanted] for kind in ("unknown", "missing") if kind in more),
            ]
            found.append(
                replace(column, values=self.np.concatenate(rows), unknown="unknown" in more, missing="missing" in more)
            )
            start, row = start + width, row + count
        return Blocks(tuple(found))

    def _listed(self, column: Column) -> Column:
        """Make a table of a number that is one of few."""
        each = self.fields.get(column.field)
        if not column.is_number or column.steps or each is None or not each.is_of_numbers:
            return column
        return self.listed(column, each.categories)

    def listed(self, column: Column, keys: Sequence[Scalar]) -> Column:
        """Make a table of a number of which an encoder knows a few values."""
        made = table(column.field, keys, math.nan if column.absent is None else float(column.absent), unknown=True)
        return made if column.absent is not None else replace(made, values=made.values[:-1], missing=False)

    def _asked(self, transform: Callable[[Any], Any], base: Sequence[Any], changes: Sequence[tuple[int, Any]]) -> Any:
        rows = self.np.empty((len(changes), len(base)), dtype=object)
        rows[:] = base
        for row, (place, value) in enumerate(changes):
            rows[row, place] = value
        made = transform(rows)
        return made.toarray() if hasattr(made, "toarray") else self.np.asarray(made)

    def _asked_or_not(self, ask: Callable[[Any], Any], changes: Sequence[tuple[int, Any]]) -> list[Any]:
        """Ask for all at once, and where that fails one by one; None stands for what is refused."""
        if not changes:
            return []
        try:
            return list(ask(changes))
        except (TypeError, ValueError):
            return [None] if len(changes) == 1 else [self._asked_or_not(ask, [each])[0] for each in changes]

    # ---- the end -------------------------------------------------------------------------------

    def finish(self, answers: Sequence[Answers], kinds: Sequence[str]) -> "Compiled":
        """Make the program; `kinds` are "probability", "score", "none" or "value" for each target."""
        alone = len(answers) == 1 and not self._refused and (kinds[0] != "value" or _is_single(answers[0].values))
        folded = self._folded(answers[0], kinds[0]) if alone else None
        if folded:
            return Compiled({program.MEMBER: program.encode(folded)}, self.thresholds)
        groups = [self._group(each, kind) for each, kind in zip(answers, kinds, strict=True)]
        links = tuple(_unlinked(group) for group in groups)
        if self._refused:
            groups[0]["refused"] = functools.reduce(functools.partial(self.node, "Max"), self._refused)
        outputs = tuple({role: tensor.name for role, tensor in group.items()} for group in groups)
        at_once = max(1, MOST_CELLS // self.cells) if self.cells * 10_000 > MOST_CELLS else 0
        names = sorted({name for group in outputs for name in group.values()})
        alive = self._alive(names)
        block = BLOCK if any(kind in CURVED and self._even.isdisjoint(into) for kind, _, into, *_ in alive) else 1
        graph = self._serialized(alive, names)
        made = program.Graph(tuple(self._parts), outputs, links, self.largest, at_once, block)
        return Compiled({program.MEMBER: program.encode(made), program.GRAPH_MEMBER: graph}, self.thresholds)

    def _group(self, answers: Answers, kind: str) -> dict[str, Tensor]:
        if kind == "value":
            return {"values": _needed(answers.values, "values")}
        derived = answers.labels is None and kind != "none"  # the evaluator finds them itself
        found = {} if derived else {"labels": self.labels(answers)}
        if kind == "probability":
            found["probabilities"] = _needed(answers.probabilities, "probabilities")
        elif kind == "score":
            found["scores"] = _needed(answers.scores, "scores")
        return found

    def _folded(self, answers: Answers, kind: str) -> Linear | None:
        """Give the whole model as one weighted sum, where it is one."""
        if answers.labels is not None and answers.labels.link is None:  # only signs follow from the sums
            return None
        tensor = {"value": answers.values, "probability": answers.probabilities, "score": answers.scores}.get(kind)
        if tensor is None:
            return None
        link, source = tensor.link or ("identity", tensor)
        if source.affine is None or (kind == "probability" and tensor.link is None and tensor.width == 1):
            return None
        return self._weighed(source.affine, link)

    def _weighed(self, affine: Affine, link: str) -> Linear | None:
        weights, bias = affine.weights, affine.bias
        if self.np.count_nonzero(weights) > MOST_WEIGHTS or not self.np.isfinite(weights).all():
            return None
        tables: dict[str, Column] = {}
        others, at = [], 0
        for column in affine.blocks.columns:
            own = weights[at : at + column.width]
            at += column.width
            if column.keys is not None:
                worth = column.part_rows() @ own
                column = replace(column, values=worth)
                before = tables.get(column.field)
                tables[column.field] = column if before is None else summed(before, column)
            elif column.text is None:
                factor, offset = column.slope()
                bias = bias + offset * own[0]
                others.append((unscaled(column), own * factor))
            else:
                others.append((column, self._spread(column, own)))
        unit = self.np.eye(len(bias))
        listed = [*((column, unit) for column in tables.values()), *others]
        parts = tuple(self._weights(column.part(), own) for column, own in listed)
        return Linear(parts, tuple(bias.tolist()), link, self.largest)

    def _spread(self, column: Column, weights: Any) -> Any:
        """Give a text's weights for all of its columns."""
        if column.kept is None or column.text is None:
            return weights
        whole = self.np.zeros((column.text.width, weights.shape[1]))
        self.np.add.at(whole, column.kept[0], weights * column.kept[1][:, None])
        return whole

    def _weights(self, part: program.Part, weights: Any) -> Weights:
        """Leave out what weighs nothing, which is nearly all of a hashed text."""
        rows = self.np.flatnonzero(weights.any(axis=1))
        if not isinstance(part, Text) or len(rows) > len(weights) // 2:
            return Weights(part, Array.of(weights))
        return Weights(part, Array.of(weights[rows]), tuple(rows.tolist()))

    def _serialized(self, nodes: Sequence[Any], outputs: Sequence[str]) -> bytes:
        helper, numpy_helper = extras.load("onnx.helper"), extras.load("onnx.numpy_helper")

        used = {name for _, names, _, _, _ in nodes for name in names}
        made = [
            helper.make_node(kind, names, into, domain=domain, **self._attributes(attributes))
            for kind, names, into, domain, attributes in nodes
        ]
        graph = helper.make_graph(
            made,
            "model",
            [helper.make_tensor_value_info(program.INPUT, TYPES["double"], [None, self._width])],
            [helper.make_empty_tensor_value_info(name) for name in outputs],
            [numpy_helper.from_array(array, name) for name, array in self._constants.items() if name in used],
        )
        opsets = [helper.make_opsetid("", 20), helper.make_opsetid("ai.onnx.ml", 5)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10, producer_name="ketch")
        data: bytes = model.SerializeToString(deterministic=True)
        return data

    def _attributes(self, given: Mapping[str, Any]) -> dict[str, Any]:
        tensor = extras.load("onnx.numpy_helper").from_array
        return {name: tensor(each) if isinstance(each, self.np.ndarray) else each for name, each in given.items()}

    def _alive(self, outputs: Sequence[str]) -> list[Any]:
        """List the nodes that the outputs rest on; choosing all columns in their order is no node."""
        wanted, kept = set(outputs), []
        whole = self._known.get(self._key_of_all())
        for kind, names, into, domain, attributes in reversed(self._nodes):
            if wanted.isdisjoint(into):
                continue
            wanted |= set(names)
            if kind == "Gather" and names == [program.INPUT, whole]:
                kind, names, attributes = "Identity", [program.INPUT], {}
            kept.append((kind, names, into, domain, attributes))
        return kept[::-1]

    def _key_of_all(self) -> bytes:
        array = self.np.arange(self._width, dtype="int64")
        return fingerprint(array)


def made(adapter: Adapter, model: Any, fields: Sequence[Field], answer: Answer) -> Compiled:
    """Lower a fitted model and make the program of it."""
    build = Build(fields)
    return build.finish(*_grouped(build.lower(model, raw(adapter.inputs(model, fields))), answer))
