"""The compiled form of a model: plain data, and what evaluates it.

checked columns --*encode*--> float64 --*fold* or ONNX Runtime--> Raw

A linear model is one weighted sum over categories and numbers and needs nothing but Python. Any other is a graph of
float64 operations that ONNX Runtime runs. Either gives a row the same bits whoever else asks.
"""

import base64
import functools
import math
import operator
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import repeat
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from ketch import extras, tokens, trust
from ketch.adapters import Raw, beside
from ketch.errors import CorruptBundle
from ketch.schema import LARGEST, Answer, Columns, Field, Scalar
from ketch.tokens import Text as Text

MEMBER: Final = "program.json"
GRAPH_MEMBER: Final = "model.onnx"
INPUT: Final = "x"
LEAST: Final = -math.log(LARGEST)
MOST_PADDED: Final = 4096  # rows of a block: more would only eat memory
STEPS: Final[Mapping[str, Callable[[Any, Any], Any]]] = {  # on floats and on arrays alike
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}


class Array(msgspec.Struct, frozen=True, array_like=True):
    """Numbers of float64 in rows, as the base64 of their little-endian bytes."""

    width: int
    data: str

    @classmethod
    def of(cls, rows: Any) -> "Array":
        """Take a two-dimensional numpy array."""
        return cls(rows.shape[1], base64.b64encode(rows.astype("<f8").tobytes()).decode())

    def numbers(self) -> tuple[float, ...]:
        """Give all numbers, row after row."""
        raw = base64.b64decode(self.data)
        return struct.unpack(f"<{len(raw) // 8}d", raw)

    def rows(self) -> list[tuple[float, ...]]:
        """Give the rows."""
        numbers = self.numbers()
        return [numbers[at : at + self.width] for at in range(0, len(numbers), self.width)]


class Table(msgspec.Struct, frozen=True, tag="table"):
    """A field of known values: each has its row; so may what is unknown and what is missing.

    `rows` has a row for each key, then those for unknown and missing, where `unknown` and `missing` say so.
    """

    field: str
    keys: tuple[Scalar, ...]
    rows: Array
    unknown: bool = False
    missing: bool = False


class Number(msgspec.Struct, frozen=True, tag="number"):
    """A number, after steps of arithmetic; `missing` stands for an absent one, which is refused without it."""

    field: str
    steps: tuple[tuple[str, float], ...] = ()
    missing: float | str | None = None  # "nan", which JSON cannot write as a number


Part = Table | Number | Text


class Weights(msgspec.Struct, frozen=True):
    """One part of a linear model's input with its weights, `outputs` for each of its columns.

    Of a text, `rows` names the columns that weigh anything, where they are few.
    """

    part: Part
    weights: Array
    rows: tuple[int, ...] | None = None


class Linear(msgspec.Struct, frozen=True, tag="linear"):
    """A weighted sum for each output, and what is made of it: identity, exp, sigmoid, each, softmax or shares.

    `each` is a sigmoid for each sum, `shares` are sigmoids divided by their sum, as one-against-the-rest gives.
    """

    parts: tuple[Weights, ...]
    bias: tuple[float, ...]
    link: str = "identity"
    largest: float = LARGEST


class Graph(msgspec.Struct, frozen=True, tag="graph"):
    """An encoding, and the names of the graph's outputs: one group for each target.

    A group has `values` of a regression, or `labels` (places in the classes, clusters, or 1 and -1 for outliers) with
    `probabilities` or `scores`; its `link` is applied to values or probabilities, as in a linear program. `refused` is
    true where the original takes no such row. `largest` is beyond what the model takes as a number, `rows_at_once`
    bounds memory. Rows are padded to a multiple of `block`, because vectorized exp and tanh treat the last few numbers
    of an array in another way than the rest.
    """

    parts: tuple[Part, ...]
    outputs: tuple[dict[str, str], ...]
    links: tuple[str, ...]
    largest: float = LARGEST
    rows_at_once: int = 0
    block: int = 1


Program = Linear | Graph


class Evaluator(Protocol):
    """Something that answers checked columns without the original."""

    def __call__(self, columns: Columns, n: int) -> Raw:
        """Answer `n` rows."""

    def row(self, values: Sequence[Any]) -> Raw:
        """Answer one row, given in the order of the contract, with the same bits."""


def encode(program: Program) -> bytes:
    """Write a program; the same one gives the same bytes."""
    return msgspec.json.encode(program, order="deterministic")


def evaluator(files: Mapping[str, bytes], answer: Answer, fields: Sequence[Field]) -> Evaluator:
    """Make what evaluates the program among a bundle's members.

    Raises:
        CorruptBundle: the program is no program, or does not fit the contract.
    """
    try:
        program: Program = msgspec.json.decode(files[MEMBER], type=Linear | Graph)
        require_sense(program, fields)
        if isinstance(program, Linear):
            return LinearEvaluator(program, answer, fields)
        return GraphEvaluator(program, files[GRAPH_MEMBER], answer, fields)
    except (LookupError, TypeError, ValueError, struct.error, msgspec.DecodeError) as error:
        raise CorruptBundle(f"The compiled form cannot be used: {error}", hint="Pack the model again.") from None


def require_sense(program: Program, fields: Sequence[Field]) -> None:
    """Hold a program against the contract, so that it fails when it is opened and never when it is asked.

    Raises:
        ValueError: it reads a field that is not there, or its numbers do not fit.
    """
    names = {each.name for each in fields}
    parts = [each.part for each in program.parts] if isinstance(program, Linear) else program.parts
    for part in parts:
        if part.field not in names:
            raise ValueError(f"it reads {part.field[:60]!r}, which is no field")
        if isinstance(part, Table) and len(part.rows.rows()) != len(part.keys) + part.unknown + part.missing:
            raise ValueError(f"the table of {part.field[:60]!r} does not fit its keys")
        if isinstance(part, Number) and not all(kind in STEPS for kind, _ in part.steps):
            raise ValueError(f"{part.field[:60]!r} takes a step that is not known")
        if isinstance(part, Text):
            tokens.require_sense(part)
    links = [program.link] if isinstance(program, Linear) else program.links
    if unknown := set(links) - LINKS.keys():
        raise ValueError(f"the link {min(unknown)[:40]!r} is not known")
    if isinstance(program, Linear):
        _require_weights(program)
    elif not 0 < program.block <= MOST_PADDED or program.rows_at_once < 0:
        raise ValueError("the rows that it asks together cannot be")


def _require_weights(program: Linear) -> None:
    for each in program.parts:
        width = width_of(each.part) if each.rows is None else len(each.rows)
        if each.rows is not None and not isinstance(each.part, Text):
            raise ValueError(f"{each.part.field[:60]!r} is no text, of which rows could be left out")
        if each.weights.width != len(program.bias) or len(each.weights.numbers()) != width * len(program.bias):
            raise ValueError(f"the weights of {each.part.field[:60]!r} do not fit")


def width_of(part: Part) -> int:
    """Count the columns that a part becomes."""
    return part.rows.width if isinstance(part, Table) else part.width if isinstance(part, Text) else 1


# ---- parts, one value at a time --------------------------------------------------------------------


def _reader(part: Number, largest: float) -> Callable[[Any], float]:
    """Make what turns a value into a number, refusing what the model would refuse."""
    steps = [(STEPS[kind], by) for kind, by in part.steps]
    absent = None if part.missing is None else float(part.missing)

    def read(value: Any) -> float:
        if value is None:
            if absent is None:
                raise ValueError(f"{part.field} is missing")
            value = absent
        found = float(value)
        for step, by in steps:
            found = step(found, by)
        if not -largest <= found <= largest and (found == found or absent is None):
            raise ValueError(f"{part.field} is too large")
        return found

    return read


def _column_reader(part: Number, largest: float) -> Callable[[Sequence[Any]], Iterable[float]]:
    """Make what turns many values into numbers: step by step for all, one by one where something is the matter."""
    read = _reader(part, largest)
    steps = [(STEPS[kind], by) for kind, by in part.steps]

    def read_all(values: Sequence[Any]) -> Iterable[float]:
        try:
            found = [*map(float, values)]
        except TypeError:  # one is missing
            return map(read, values)
        for step, by in steps:
            found = [*map(step, found, repeat(by))]
        sound = found and -largest <= min(found) and max(found) <= largest and not math.isnan(sum(found))
        return found if sound else map(read, values)

    return read_all


class Rows(dict[object, Any]):
    """What each value of a table stands for; the rest is unknown or missing."""

    def __init__(self, part: Table, rows: Sequence[Any]) -> None:
        super().__init__(zip(part.keys, rows, strict=False))  # rows of unknown and missing follow
        if part.missing:
            self[None] = rows[-1]
        self._field = part.field
        self._unknown = rows[len(part.keys)] if part.unknown else None

    def __missing__(self, value: object) -> Any:
        if value is None or self._unknown is None:
            raise ValueError(f"{self._field} is {'missing' if value is None else 'unknown'}")
        return self._unknown


# ---- linear: no numpy ------------------------------------------------------------------------------


class LinearEvaluator:
    """Add up what each value is worth: tables first, then the rest, whichever way a row came."""

    alone = True  # each row is a sum of its own

    def __init__(self, program: Linear, answer: Answer, fields: Sequence[Field]) -> None:
        self._bias = list(program.bias)
        self._link = LINKS[program.link]
        self._classes = answer.classes
        self._task = answer.task
        self._probable = answer.values == "probability"
        self._alone = len(self._bias) == 1
        self._both = self._alone and self._probable and program.link == "sigmoid" and answer.task == "binary"
        places = {each.name: place for place, each in enumerate(fields)}
        terms = [_term(each, program.largest, alone=self._alone) for each in program.parts]
        terms.sort(key=lambda term: term.table is None)
        self._terms = [(term.field, term.weigh_all) for term in terms]
        self._tables = [(places[term.field], term.table) for term in terms if term.table is not None]
        self._known = [(place, dict(table)) for place, table in self._tables]
        self._others = [(places[term.field], term.weigh) for term in terms if term.table is None]

    def __call__(self, columns: Columns, n: int) -> Raw:
        """Answer `n` rows."""
        if self._alone:
            worths = [weigh_all(columns[field]) for field, weigh_all in self._terms]
            totals = [*map(sum, zip(*worths, strict=True) if worths else repeat((), n), repeat(self._bias[0]))]
            if self._both:
                return Raw([self._classes[total > 0] for total in totals], [_both((total,)) for total in totals])
            return self._answered([[total] for total in totals])
        sums = [self._bias] * n
        for field, weigh_all in self._terms:
            sums = [*map(_sum, sums, weigh_all(columns[field]))]
        return self._answered(sums)

    def row(self, values: Sequence[Any]) -> Raw:
        """Answer one row, given in the order of the contract."""
        if self._alone:
            try:  # a plain dict is faster than one that knows what to do with the rest
                worths = [worth[values[place]] for place, worth in self._known]
            except KeyError:
                worths = [worth[values[place]] for place, worth in self._tables]
            for place, weigh in self._others:
                worths.append(weigh(values[place]))
            total = sum(worths, self._bias[0])
            if self._both:
                return Raw([self._classes[total > 0]], [_both((total,))])
            return self._answered([[total]])
        sums = self._bias
        for place, worth in self._tables:
            sums = _sum(sums, worth[values[place]])
        for place, weigh in self._others:
            sums = _sum(sums, weigh(values[place]))
        return self._answered([sums])

    def _answered(self, sums: list[list[float]]) -> Raw:
        if self._task == "regression":
            return Raw([self._link(row)[0] for row in sums])
        classes = self._classes
        if not self._alone:
            labels: list[object] = [classes[row.index(max(row))] for row in sums]
            if self._probable:
                return Raw(labels, [self._link(row) for row in sums])
            return Raw(labels, scores=sums)  # type: ignore[arg-type]
        if self._probable:
            return Raw([classes[row[0] > 0] for row in sums], [self._link(row) for row in sums])
        if self._task == "outlier":
            return Raw([1 if row[0] >= 0 else -1 for row in sums], scores=[row[0] for row in sums])
        return Raw([classes[row[0] > 0] for row in sums], scores=[row[0] for row in sums])


def _sum(row: Sequence[float], worth: Sequence[float]) -> list[float]:
    return [a + b for a, b in zip(row, worth, strict=True)]


class Term(NamedTuple):
    """What one field adds to the sums: one number where there is one output, else one for each."""

    field: str
    table: Rows | None
    weigh: Callable[[Any], Any]
    weigh_all: Callable[[Sequence[Any]], Iterable[Any]]


def _term(each: Weights, largest: float, *, alone: bool) -> Term:
    part = each.part
    if isinstance(part, Table):
        weights = each.weights.rows()
        rows = [_weigh(row, weights) for row in part.rows.rows()]
        table = Rows(part, [row[0] for row in rows] if alone else rows)
        return Term(part.field, table, table.__getitem__, _table_reader(table))
    if isinstance(part, Text):
        counted = _counted(part, each)
        weigh: Callable[[Any], Any] = (lambda value: counted(value)[0]) if alone else counted
        return Term(part.field, None, weigh, functools.partial(map, weigh))
    own = each.weights.numbers()
    if not alone:
        read = _reader(part, largest)

        def weigh_each(value: Any) -> list[float]:
            found = read(value)
            return [found * weight for weight in own]

        return Term(part.field, None, weigh_each, functools.partial(map, weigh_each))
    (weight,) = own
    read_all = _column_reader(part, largest)
    return Term(
        part.field,
        None,
        _weigher(part, largest, weight),
        lambda values: map(operator.mul, read_all(values), repeat(weight)),
    )


def _table_reader(table: Rows) -> Callable[[Sequence[Any]], Iterable[Any]]:
    """Make what looks many values up: in a plain dict, which is faster, where it knows them all."""
    known = dict(table).__getitem__

    def read_all(values: Sequence[Any]) -> Iterable[Any]:
        try:
            return [*map(known, values)]
        except KeyError:
            return map(table.__getitem__, values)

    return read_all


def _packed(part: Table) -> Rows:
    return Rows(part, [struct.pack(f"={len(row)}d", *row) for row in part.rows.rows()])


def _weigher(part: Number, largest: float, weight: float) -> Callable[[Any], float]:
    """Make what reads a number and weighs it; a standardised one without a loop over its steps, which costs more."""
    read = _reader(part, largest)
    if [kind for kind, _ in part.steps] != ["-", "/"]:
        return lambda value: read(value) * weight
    (_, mean), (_, deviation) = part.steps

    def weigh(value: Any) -> float:
        if value is not None:
            found = (float(value) - mean) / deviation
            if -largest <= found <= largest:
                return found * weight
        return read(value) * weight

    return weigh


def _counted(part: Text, weights: Weights) -> Callable[[Any], Sequence[float]]:
    """Make what adds up the weights of a text's tokens; most of a vocabulary is not in it."""
    cut, numbers, outputs = tokens.tokenizer(part), weights.weights.numbers(), weights.weights.width
    row_of = None if weights.rows is None else {place: row for row, place in enumerate(weights.rows)}

    def counted(value: Any) -> Sequence[float]:
        if value is None:
            raise ValueError(f"{part.field} is missing")
        found = cut(value)
        if row_of is not None:
            found = [(row_of[place], count) for place, count in found if place in row_of]
        if outputs == 1:
            return (sum([count * numbers[place] for place, count in found]),)
        each = range(outputs)
        return [sum([count * numbers[place * outputs + output] for place, count in found]) for output in each]

    return counted


def _weigh(row: Sequence[float], weights: Sequence[Sequence[float]]) -> list[float]:
    outputs = len(weights[0]) if weights else 0
    return [math.fsum(value * weight[k] for value, weight in zip(row, weights, strict=True)) for k in range(outputs)]


def sigmoid(z: float) -> float:
    """Give 1 / (1 + exp(-z)) without overflow."""
    if z >= 0:
        return 1.0 / (1.0 + math.exp(-z))
    grown = math.exp(z)
    return grown / (1.0 + grown)


def _softmax(row: Sequence[float]) -> list[float]:
    top = max(row)
    grown = [math.exp(z - top) for z in row]
    whole = sum(grown)
    return [each / whole for each in grown]


def _shares(row: Sequence[float]) -> list[float]:
    found = [sigmoid(z) for z in row]
    whole = sum(found) or 1.0
    return [each / whole for each in found]


def _even(row: Sequence[float]) -> list[float]:
    found = [sigmoid(z) if z > LEAST else 0.0 for z in row]  # scikit-learn's is zero there
    whole = sum(found)
    return [each / whole if whole else 1.0 / len(found) for each in found]


def _grown(grow: Callable[[float], float]) -> "Link":
    def link(row: Sequence[float]) -> list[float]:
        try:
            return [grow(z) for z in row]
        except OverflowError:
            return [math.inf]

    return link


def _both(row: Sequence[float]) -> list[float]:
    (z,) = row
    likely = sigmoid(z)
    return [1.0 - likely, likely]


Link = Callable[[Sequence[float]], list[float]]
LINKS: Final[Mapping[str, Link]] = {
    "identity": list,
    "exp": _grown(math.exp),
    "expm1": _grown(math.expm1),
    "sigmoid": _both,
    "both": lambda row: [1.0 - row[0], row[0]],
    "each": lambda row: [sigmoid(z) for z in row],
    "softmax": _softmax,
    "shares": _shares,
    "even": _even,
}


# ---- graph: numpy and ONNX Runtime -----------------------------------------------------------------


class GraphEvaluator:
    """Encode in float64 and let ONNX Runtime do the rest, on one thread."""

    def __init__(self, program: Graph, graph: bytes, answer: Answer, fields: Sequence[Field]) -> None:
        self._np: Any = extras.load("numpy")
        runtime: Any = extras.load("onnxruntime")
        if fault := trust.graph_fault(graph, straight=True):
            raise ValueError(fault)
        options = runtime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        # what goes beyond keeps the factor of a multiplication as float32, for one (MatMulScaleFusion)
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        try:
            session = runtime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # whatever a damaged graph makes the library raise
            raise ValueError(f"{type(error).__name__}: {error}"[:200]) from None
        self._names = [name for group in program.outputs for _, name in sorted(group.items())]
        self._groups = [sorted(group) for group in program.outputs]
        self._run = functools.partial(session.run, self._names)
        self._width = sum(width_of(part) for part in program.parts)
        self._at_once = program.rows_at_once
        self._block = program.block
        self._links = [LINKS[link] for link in program.links]
        self._answer = answer
        self._short = _short(program, answer) if program.block == 1 else None
        self._fills = [self._fill(part, program.largest) for part in program.parts]
        places = {each.name: place for place, each in enumerate(fields)}
        self._names_of = [each.name for each in fields]
        self._packs = [(places[part.field], self._pack(part, program.largest)) for part in program.parts]

    def __call__(self, columns: Columns, n: int) -> Raw:
        """Answer `n` rows."""
        if n == 1:
            return self.row([columns[name][0] for name in self._names_of])
        size = self._at_once
        if not size or n <= size:
            return self._raw(self._asked(columns, n))
        cuts = [
            self._asked({name: values[at : at + size] for name, values in columns.items()}, min(size, n - at))
            for at in range(0, n, size)
        ]
        return self._raw([self._np.concatenate(found) for found in zip(*cuts, strict=True)])

    def _asked(self, columns: Columns, n: int) -> Sequence[Any]:
        return self._padded(self._many(columns, n), n)

    def row(self, values: Sequence[Any]) -> Raw:
        """Answer one row, given in the order of the contract."""
        found = b"".join([pack(values[place]) for place, pack in self._packs])
        x = self._np.ndarray((1, self._width), buffer=found)
        if self._short:
            return self._short(self._run({INPUT: x})[0].tolist()[0])
        return self._raw(self._padded(x, 1))

    def _padded(self, x: Any, n: int) -> Sequence[Any]:
        gap = -n % self._block
        found: Sequence[Any]
        if not gap:
            found = self._run({INPUT: x})
            return found
        found = self._run({INPUT: self._np.concatenate([x, self._np.repeat(x[-1:], gap, axis=0)])})
        return [each[:n] for each in found]

    def _many(self, columns: Columns, n: int) -> Any:
        x = self._np.empty((n, self._width))
        at = 0
        for fill in self._fills:
            at = fill(columns, x, at)
        return x

    def _pack(self, part: Part, largest: float) -> Callable[[Any], bytes]:
        if isinstance(part, Table):
            return _packed(part).__getitem__
        if isinstance(part, Number):
            read, pack = _reader(part, largest), struct.Struct("=d").pack
            return lambda value: pack(read(value))
        spread = self._spread(part)
        return lambda value: bytes(spread(value).tobytes())

    def _spread(self, part: Text) -> Callable[[Any], Any]:
        cut = tokens.tokenizer(part)

        def spread(value: Any) -> Any:
            if value is None:
                raise ValueError(f"{part.field} is missing")
            row = self._np.zeros(part.width)
            for place, count in cut(value):
                row[place] = count
            return row

        return spread

    def _fill(self, part: Part, largest: float) -> Callable[[Columns, Any, int], int]:
        np, field, width = self._np, part.field, width_of(part)
        if isinstance(part, Table):
            look_up = _table_reader(_packed(part))

            def fill(columns: Columns, x: Any, at: int) -> int:
                found = b"".join(look_up(columns[field]))
                x[:, at : at + width] = np.ndarray((len(x), width), buffer=found)
                return at + width

        elif isinstance(part, Number):
            read_all = _column_reader(part, largest)

            def fill(columns: Columns, x: Any, at: int) -> int:
                x[:, at] = [*read_all(columns[field])]
                return at + 1

        else:
            spread = self._spread(part)

            def fill(columns: Columns, x: Any, at: int) -> int:
                for row, value in enumerate(columns[field]):
                    x[row, at : at + width] = spread(value)
                return at + width

        return fill

    def _raw(self, found: Sequence[Any]) -> Raw:
        if len(self._groups) == 1:
            return _group(dict(zip(self._groups[0], found, strict=True)), self._links[0], self._answer)
        parts, at = [], 0
        for kinds, link, answer in zip(self._groups, self._links, self._answer.parts, strict=True):
            parts.append(_group(dict(zip(kinds, found[at : at + len(kinds)], strict=True)), link, answer))
            at += len(kinds)
        return beside(parts)


def _short(program: Graph, answer: Answer) -> Callable[[list[float]], Raw] | None:
    """Make the shortest way from one row of the only output to an answer, where there is only one."""
    link, roles = LINKS[program.links[0]], [*program.outputs[0]]
    if len(program.outputs) > 1 or answer.parts:
        return None
    if roles == ["values"]:
        return lambda row: Raw([link(row)[0]])
    if roles != ["probabilities"]:
        return None
    classes = answer.classes

    def classify(row: list[float]) -> Raw:
        likely = link(row)
        return Raw([classes[likely.index(max(likely))]], [likely])

    return classify


def _group(found: Mapping[str, Any], link: Link, answer: Answer) -> Raw:
    if "refused" in found and found["refused"].any():
        raise ValueError("a value is beyond what the model takes")
    if answer.task == "several":
        return Raw([link(row) for row in found["values"].tolist()])
    if "values" in found:
        return Raw([link(row)[0] for row in found["values"].tolist()])
    labels = found["labels"].reshape(-1).tolist() if "labels" in found else None
    if answer.classes and labels is not None:
        labels = [answer.classes[place] for place in labels]
    if "probabilities" in found:
        likely = [link(row) for row in found["probabilities"].tolist()]
        return Raw(labels or [answer.classes[row.index(max(row))] for row in likely], likely)
    if "scores" not in found:
        return Raw(labels or [])
    scores: list[Any] = found["scores"].tolist()
    if len(scores[0]) == 1:
        single = [row[0] for row in scores]
        return Raw(labels or [answer.classes[score > 0] for score in single], scores=single)
    return Raw(labels or [answer.classes[row.index(max(row))] for row in scores], scores=scores)
