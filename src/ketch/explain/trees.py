"""Sums of trees, exactly: at each leaf, which fields lead a row there and which lead those of the reference.

For a row and one of the reference, a leaf is reached by a mixture of the two if each field leads there by the value of
one of them at least. Fields that lead there by the row's value alone gain from the leaf, those by the other's alone
lose: what each gains is its Shapley value (interventional TreeSHAP; Lundberg and others 2020), with fields as players
in place of columns.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ketch import extras
from ketch.explain import REFERENCE_ROWS, Probe, Reading, View, group_of, probe
from ketch.predict import Predictor
from ketch.program import GRAPH_MEMBER, INPUT, Graph, width_of
from ketch.schema import Columns

LESS, MEMBER = 1, 6  # how a node of ONNX's TreeEnsemble compares; else less or equal
DOUBLE: Final = 11
UNARY: Final = frozenset({"Abs", "Cast", "Exp", "Identity", "IsInf", "IsNaN", "Log", "Neg", "Not", "Sqrt"})
BINARY: Final = frozenset({"Add", "And", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"}) | {
    *("Max", "Min", "Mul", "Or", "Pow", "Sub", "Where"),
}
MOST_MASKS: Final = 8_000_000  # of leaves by rows of the reference
FEWEST: Final = 4
PROBED: Final = 256  # columns at once
CLOSE: Final = 1e-4  # trees that add up in float32 are no further from what is added up here

Owners = list[frozenset[int]]  # of each column of a tensor: the fields that it follows from


class Mixed(Exception):
    """The model is no sum of trees that each ask about one field at a time."""


@dataclass(frozen=True)
class Ensemble:
    """One TreeEnsemble: where its numbers come from, its nodes and leaves, and the tensor that it adds up to."""

    source: str
    owners: Owners
    told: dict[str, Any]
    cut: str
    worth: Any  # of leaves, by columns of the tensor; or None where they are summed by target
    width: int


@dataclass(frozen=True)
class Sum:
    """An output as what its trees are worth: `start`, and for each ensemble what its columns add to the outputs."""

    ensembles: list[Ensemble]
    slopes: list[Any]
    start: Sequence[float]


class Looked:
    """A graph taken apart: what each tensor is made by, and which fields its columns follow from."""

    def __init__(self, model: Any, program: Graph, fields: Sequence[str]) -> None:
        self._np: Any = extras.load("numpy")
        self._array: Any = extras.load("onnx.numpy_helper").to_array
        self.nodes = list(model.graph.node)
        self.model = model
        self.constants = {each.name: each for each in model.graph.initializer}
        places = {name: at for at, name in enumerate(fields)}
        self._every = frozenset(range(len(fields)))
        own = [frozenset({places[part.field]}) for part in program.parts for _ in range(width_of(part))]
        self.owners: dict[str, Owners | None] = {INPUT: own}
        for node in self.nodes:
            found = self._owned(node)
            for name in node.output:
                self.owners[name] = found

    def constant(self, name: str) -> Any:
        """Give a constant's numbers, None for what is no constant."""
        return self._array(self.constants[name]) if name in self.constants else None

    def attributes(self, node: Any) -> dict[str, Any]:
        """Give a node's attributes as Python's or numpy's own."""
        get = extras.load("onnx.helper").get_attribute_value
        found = {each.name: get(each) for each in node.attribute}
        return {name: self._array(each) if hasattr(each, "dims") else each for name, each in found.items()}

    def users(self, name: str) -> list[Any]:
        """List the nodes that take a tensor."""
        return [node for node in self.nodes if name in node.input]

    def _owned(self, node: Any) -> Owners | None:
        """Follow columns through what treats each by itself; None for what may mix them."""
        given = [self.owners.get(name) for name in node.input if name not in self.constants]
        if any(each is None for each in given) or not given:
            return None
        known: list[Owners] = [each for each in given if each is not None]
        if node.op_type in UNARY:
            return known[0]
        axis = self.attributes(node).get("axis", 0) if node.op_type in {"Gather", "Concat"} else 1
        if node.op_type == "Gather" and axis == 1 and len(known) == 1:
            places = self.constant(node.input[1])
            return [known[0][at] for at in places.tolist()] if places is not None and places.ndim == 1 else None
        if node.op_type == "Concat" and axis == 1 and len(known) == len(node.input):
            return [each for columns in known for each in columns]
        return self._beside(node, known) if node.op_type in BINARY else None

    def _beside(self, node: Any, known: Sequence[Owners]) -> Owners | None:
        shapes = [tuple(self.constants[name].dims) for name in node.input if name in self.constants]
        if any(len(shape) > 2 or (len(shape) == 2 and shape[0] != 1) for shape in shapes):
            return None
        widths = [*(len(each) for each in known), *(shape[-1] for shape in shapes if shape)]
        width = max(widths)
        if any(each not in {1, width} for each in widths):
            return None
        spread = [each if len(each) == width else each * width for each in known]
        return [frozenset().union(*columns) for columns in zip(*spread, strict=True)]


def made(predictor: Predictor, program: Graph, place: int, shown: Columns) -> "Trees | None":
    """Prepare the trees of a compiled model; None where it is no sum of trees.

    Raises:
        NotInstalled: onnx is missing.
    """
    answer = predictor.contract.answer
    answer = answer.parts[place] if answer.parts else answer
    role, output, link = group_of(program, answer, place)
    graph = predictor.bundle.files[GRAPH_MEMBER]
    if role == "labels" or b"TreeEnsemble" not in graph:
        return None
    fields = predictor.contract.fields
    try:
        looked = Looked(extras.load("onnx").load_from_string(graph), program, [each.name for each in fields])
        whole = summed(looked, output)
        grown = [
            Grown(each, slope, probe(program, graph, each.source, fields))
            for each, slope in zip(whole.ensembles, whole.slopes, strict=True)
        ]
    except Mixed:
        return None
    ask = probe(program, graph, output, fields)
    found = Trees(View(role, whole.slopes[0].shape[1], link), grown, ask, shown, len(fields))
    return found if found.holds(shown) else None


# ---- taking a graph apart --------------------------------------------------------------------------


def summed(looked: Looked, output: str) -> Sum:
    """Take an output apart into trees and what each adds to it.

    Raises:
        Mixed: it is no sum of trees.
    """
    ensembles, tail = _taken_apart(looked, output)
    slopes, start = _slopes(looked, ensembles, tail, output)
    return Sum(ensembles, slopes, start)


def _taken_apart(looked: Looked, output: str) -> tuple[list[Ensemble], list[Any]]:
    """Give the ensembles that an output rests on, and the nodes between them and it."""
    wanted, above = {output}, []
    for node in reversed(looked.nodes):
        if not wanted.isdisjoint(node.output):
            wanted |= set(node.input)
            above.append(node)
    above.reverse()
    ensembles = [_ensemble(looked, node) for node in above if node.op_type == "TreeEnsemble"]
    live, tail = {each.cut for each in ensembles}, []
    for node in above:
        given = [name for name in node.input if name not in looked.constants]
        if live.isdisjoint(given) or not live.isdisjoint(node.output):
            continue
        if not live.issuperset(given):
            raise Mixed
        live |= set(node.output)
        tail.append(node)
    if not ensembles or output not in live:
        raise Mixed
    return ensembles, tail


def _ensemble(looked: Looked, node: Any) -> Ensemble:
    owners, told = looked.owners[node.input[0]], looked.attributes(node)
    if owners is None or any(len(owners[at]) > 1 for at in set(told["nodes_featureids"])):
        raise Mixed
    cut, worth = _gathered(looked, node.output[0])
    width = int(told["n_targets"]) if worth is None else worth.shape[1]
    return Ensemble(node.input[0], owners, told, cut, worth, width)


def _gathered(looked: Looked, name: str) -> tuple[str, Any]:
    """Step over the look-up of leaves that are worth several numbers each, which the trees only name."""
    first = name
    for kind in ("Cast", "Gather", "ReduceSum"):
        users = looked.users(name)
        if len(users) != 1 or users[0].op_type != kind:
            return first, None
        if kind == "Gather":
            data = looked.constant(users[0].input[0])
            if data is None or data.ndim != 2:
                return first, None
        name = users[0].output[0]
    return name, data


def _slopes(
    looked: Looked, ensembles: Sequence[Ensemble], tail: Sequence[Any], output: str
) -> tuple[list[Any], Sequence[float]]:
    """Find by trying what each number that trees add up to adds to the outputs; it must add the same everywhere."""
    np: Any = extras.load("numpy")
    if not tail:
        return [np.eye(ensembles[0].width)], [0.0] * ensembles[0].width
    run = _session(looked, ensembles, tail, output)
    start = run([np.zeros((1, each.width)) for each in ensembles])
    if start.ndim != 2:
        raise Mixed
    slopes = []
    for at, each in enumerate(ensembles):
        blocks = []
        for begin in range(0, each.width, PROBED):
            size = min(PROBED, each.width - begin)
            given = [np.zeros((size, other.width)) for other in ensembles]
            given[at][np.arange(size), begin + np.arange(size)] = 1.0
            blocks.append(run(given) - start)
        slopes.append(np.concatenate(blocks))
    chance = np.random.default_rng(0)
    given = [chance.normal(size=(3, each.width)) for each in ensembles]
    wanted = start + sum(values @ slope for values, slope in zip(given, slopes, strict=True))
    if not np.allclose(run(given), wanted, rtol=CLOSE, atol=CLOSE):
        raise Mixed
    return slopes, start[0].tolist()


def _session(looked: Looked, ensembles: Sequence[Ensemble], tail: Sequence[Any], output: str) -> Any:
    helper, runtime = extras.load("onnx.helper"), extras.load("onnxruntime")
    used = {name for node in tail for name in node.input}
    graph = helper.make_graph(
        tail,
        "tail",
        [helper.make_tensor_value_info(each.cut, DOUBLE, [None, each.width]) for each in ensembles],
        [helper.make_empty_tensor_value_info(output)],
        [each for name, each in looked.constants.items() if name in used],
    )
    model = helper.make_model(graph, opset_imports=looked.model.opset_import, ir_version=looked.model.ir_version)
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return lambda given: session.run([output], {each.cut: x for each, x in zip(ensembles, given, strict=True)})[0]


def worth(own: Ensemble, slope: Any) -> Any:
    """Give what each leaf of an ensemble adds to the outputs."""
    weights = own.told["leaf_weights"].astype(float)
    if own.worth is None:
        return weights[:, None] * slope[own.told["leaf_targetids"]]
    return own.worth[weights.astype(int)] @ slope


def members(told: Mapping[str, Any]) -> dict[int, Any]:
    """Give the members of each node that asks for them; the NaN that ends the list before is among them."""
    np: Any = extras.load("numpy")
    nodes = np.flatnonzero(np.array(told["nodes_modes"]) == MEMBER).tolist()
    if not nodes:
        return {}
    values = told["membership_values"]
    return dict(zip(nodes, np.split(values, np.flatnonzero(np.isnan(values))), strict=False))


# ---- along the trees -------------------------------------------------------------------------------


class Grown:
    """The trees of one ensemble as arrays over all of their nodes and leaves.

    The mask of a leaf has a bit for each field that leads somewhere else on the way to it.
    """

    def __init__(self, own: Ensemble, slope: Any, ask: Probe) -> None:
        np: Any = extras.load("numpy")
        self._np, self._ask = np, ask
        told = own.told
        self._feature = np.array(told["nodes_featureids"], dtype=int)
        self._modes, self._splits = told["nodes_modes"], told["nodes_splits"].astype(float)
        self._nans = np.array(told["nodes_missing_value_tracks_true"], dtype=bool)
        self._sides = [
            (np.array(told[f"nodes_{side}nodeids"], dtype=int), np.array(told[f"nodes_{side}leafs"], dtype=bool))
            for side in ("true", "false")
        ]
        self._members = members(told)
        self._levels = self._by_level(np.unique(np.array(told["tree_roots"], dtype=int)))
        asked = [next(iter(own.owners[at]), -1) for at in self._feature.tolist()]  # -1: a column without a field
        self.players = sorted(set(asked))
        bit = np.array([self.players.index(each) for each in asked])
        self._words = -(-len(self.players) // 64)
        self._bits = np.zeros((len(bit), self._words), dtype="<u8")
        self._bits[np.arange(len(bit)), bit // 64] = np.uint64(1) << (bit % 64).astype("<u8")
        self.worth = worth(own, slope)

    def masks(self, columns: Columns, n: int) -> Any:
        """Give the masks (rows, leaves, words) of all leaves for each row."""
        np = self._np
        true = self._decided(np.array(self._ask(columns, n), dtype=float))
        inner = np.zeros((n, len(self._feature), self._words), dtype="<u8")
        leaves = np.zeros((n, len(self.worth), self._words), dtype="<u8")
        nothing = np.uint64(0)
        for level in self._levels:
            here, goes, bits = inner[:, level], true[:, level, None], self._bits[level]
            for (ends, is_leaf), lost in zip(self._sides, (~goes, goes), strict=True):
                passed = here | np.where(lost, bits, nothing)
                end, leaf = ends[level], is_leaf[level]
                leaves[:, end[leaf]] = passed[:, leaf]
                inner[:, end[~leaf]] = passed[:, ~leaf]
        return leaves

    def _decided(self, x: Any) -> Any:
        np = self._np
        values = x[:, self._feature]
        true = np.where(self._modes == LESS, values < self._splits, values <= self._splits)
        for node, members in self._members.items():
            true[:, node] = np.isin(values[:, node], members)
        return np.where(np.isnan(values), self._nans, true)

    def _by_level(self, roots: Any) -> list[Any]:
        np, levels, left = self._np, [], len(self._feature)
        while len(roots):
            levels.append(roots)
            left -= len(roots)
            if left < 0:  # a damaged program may lead back to a node
                raise Mixed
            roots = np.concatenate([ends[roots][~leaf[roots]] for ends, leaf in self._sides])
        return levels


class Trees:
    """What each field gains and loses at the leaves of all trees."""

    most_rows = 100

    def __init__(self, view: View, grown: Sequence[Grown], ask: Probe, shown: Columns, fields: int) -> None:
        self._np: Any = extras.load("numpy")
        self.view, self._grown, self._fields, self._ask = view, grown, fields, ask
        leaves = sum(len(each.worth) for each in grown)
        self._rows = max(FEWEST, min(REFERENCE_ROWS, MOST_MASKS // leaves))
        shown = {name: values[: self._rows] for name, values in shown.items()}
        self._usual = ask(shown, self._rows)
        self._masks = [each.masks(shown, self._rows) for each in grown]
        self._shares = [_shares(self._np, len(each.players)) for each in grown]

    def __call__(self, columns: Columns, n: int, readings: Sequence[Reading]) -> list[tuple[float, list[float]]]:
        """Give base and contributions for each row."""
        found = []
        for row, read in enumerate(readings):
            own = {name: values[row : row + 1] for name, values in columns.items()}
            worth = self._np.zeros(self._fields + 1)
            for at, each in enumerate(self._grown):
                worth[each.players] += self._gained(at, each.masks(own, 1)[0], read)
            found.append((math.fsum(map(read, self._usual)) / self._rows, worth[:-1].tolist()))
        return found

    def _gained(self, at: int, own: Any, read: Reading) -> Any:
        np, grown = self._np, self._grown[at]
        count, others = len(grown.players), self._masks[at]
        met = ((others & own) == 0).all(axis=2) & ((others | own) != 0).any(axis=2)
        rows, leaves = np.nonzero(met)
        worth = (grown.worth @ np.array(read.weights))[leaves]
        by_own, by_other = _bits(np, others[rows, leaves], count), _bits(np, own[leaves], count)
        sizes = by_own.sum(axis=1), by_other.sum(axis=1)
        gain = (worth * self._shares[at][sizes]) @ by_own - (worth * self._shares[at].T[sizes]) @ by_other
        return gain / self._rows

    def holds(self, shown: Columns) -> bool:
        """Tell whether contributions add up to what the model says of the first rows of the reference."""
        readings = [Reading(None, None, tuple(row)) for row in self._np.eye(self.view.width).tolist()]
        for row in range(FEWEST):
            own = {name: values[row : row + 1] for name, values in shown.items()}
            for read in readings:
                base, worth = self(own, 1, [read])[0]
                if not math.isclose(base + sum(worth), read(self._usual[row]), rel_tol=CLOSE, abs_tol=CLOSE):
                    return False
        return True


def _bits(np: Any, masks: Any, count: int) -> Any:
    masks = np.ascontiguousarray(masks)
    return np.unpackbits(masks.view("uint8"), axis=1, bitorder="little")[:, :count]


def _shares(np: Any, count: int) -> Any:
    """Give the weight (a - 1)! b! / (a + b)! of a leaf to which a fields lead, and from which b lead away."""
    found = np.zeros((count + 1, count + 1))
    for a in range(1, count + 1):
        found[a, : count + 1 - a] = [1.0 / (a * math.comb(a + b, a)) for b in range(count + 1 - a)]
    return found
