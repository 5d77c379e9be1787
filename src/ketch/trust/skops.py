"""Skops files: read as data, held against the lists, put together anew, and only then opened.

file --*scan*--> what it names and what speaks against it        file --*load*--> model        model --*dump*--> file
"""

import json
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from ketch.extras import load as extra
from ketch.trust import SKOPS_MEMBER, Blob, Box, Fault, Finding, Lists, Made, Name, Pair, items_of, sibling

State = dict[str, Any]

DEEPEST = 128  # nodes inside one another
MOST_NODES = 10_000_000
LARGEST_SCHEMA = 512 << 20
MOST_FAULTS = 20
KEPT_ENTRIES = 5_000
PROTOCOLS = (1, 2)
SCHEMA = "schema.json"

MAPPINGS = {("builtins", "dict"), ("collections", "OrderedDict")}
BUNCHES = {("sklearn.utils", "Bunch"), ("sklearn.utils._bunch", "Bunch")}
KEY_TYPES = {("builtins", name) for name in ("bool", "float", "int", "str")}
KEY_TYPES |= {("numpy", f"{kind}{bits}") for kind in ("int", "uint", "float") for bits in (8, 16, 32, 64)}
KEY_TYPES |= {("numpy", name) for name in ("bool", "bool_", "str_")}
SCALARS = KEY_TYPES | {("numpy", name) for name in ("bytes_", "complex64", "complex128", "datetime64", "timedelta64")}
TREE = ("sklearn.tree._tree", "Tree")
RANDOM_STATES = {("numpy.random.mtrand", "RandomState"), ("numpy.random", "RandomState")}
GENERATORS = {("numpy.random._generator", "Generator"), ("numpy.random", "Generator")}
SEEDS = {"entropy", "n_children_spawned", "pool_size", "spawn_key"}
LARGEST_POOL = 64
CALLED = {"builtins", "datetime", "sklearn.linear_model._sgd_fast"}  # modules whose classes are made by a call
CYTHON = {"sklearn.metrics._dist_metrics", "sklearn.neighbors._ball_tree", "sklearn.neighbors._kd_tree"}


def scan(data: bytes, known: Lists) -> Finding:
    """Return what the file names and what speaks against it; never raises for what is in the file."""
    return _Reader(known).read(data).finding()


def load(data: bytes, known: Lists) -> object:
    """Return what the file holds, made anew of what was checked, and checked again.

    Raises:
        Fault: it asks for something off the lists, or what came out is not sound.
    """
    reader = _Reader(known).read(data)
    found = reader.finding()
    if found.refused or found.faults:
        raise Fault(found.faults[0] if found.faults else f"it wants {found.refused[0]}")
    return _opened(reader, known)


def _opened(reader: "_Reader", known: Lists) -> object:
    desk = sibling("unpickle").Desk(known)
    for pair in sorted(reader.pairs):
        if pair in known.classes or pair in known.functions:
            desk.find_class(*pair)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # versions are compared by the caller, who has Finding.sklearn_version
        trusted = sorted(".".join(pair) for pair in reader.pairs)
        model: object = extra("skops.io").loads(reader.written(), trusted=trusted)
        sibling("values").check(model, desk.classes, desk.functions)
    return model


def load_approved(data: bytes) -> object:
    """Return what an approved file holds; whatever is in it runs."""
    skops = extra("skops.io")
    return skops.loads(data, trusted=skops.get_untrusted_types(data=data))


def dump(model: object, known: Lists) -> tuple[bytes, object] | None:
    """Return the model as a skops file, the same bytes at every time, and what they open to.

    None where skops does not hold it, or the gate would not open it again.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            saved = extra("skops.io").dumps(model)
        reader = _Reader(known).read(saved)
        found = reader.finding()
        return None if found.refused or found.faults else (reader.written(), _opened(reader, known))
    except Exception:  # whatever it stumbles over, it does not hold this model
        return None


class _Reader:
    """One reading of a file: every node is checked, and what it leaves can be written anew.

    Identities are left out, so that no node stands for another one that was checked as something else; members
    are numbered in the order of the nodes; sets are sorted.
    """

    def __init__(self, known: Lists) -> None:
        self.known = known
        self.arguments, self.zipped = sibling("arguments"), sibling("zipped")
        self.members: dict[str, bytes] = {}
        self.schema: State = {}
        self.renamed: dict[str, str] = {}
        self.headers: dict[str, dict[str, object]] = {}
        self.pairs: set[Pair] = set()
        self.imports: set[str] = set()
        self.refused: set[str] = set()
        self.faults: dict[str, None] = {}
        self.versions: set[str] = set()
        self.count = 0
        self.room = sibling("inflate").ROOMY

    def read(self, data: bytes) -> "_Reader":
        """Read the file, and note what speaks against it."""
        try:
            self.members = self.zipped.unpack(data)
            self.schema = _schema(self.members)
            self.keep(self.node(self.schema, 0), "its result")
        except Fault as fault:
            self.complain(str(fault))
        except (KeyError, TypeError, AttributeError, ValueError, RecursionError):
            self.complain("it is damaged: its schema is not one that skops writes")
        return self

    def finding(self) -> Finding:
        """Return what was seen."""
        version = min(self.versions, default="")
        faults = tuple(self.faults)[:MOST_FAULTS]
        return Finding("skops", tuple(sorted(self.imports)), tuple(sorted(self.refused)), faults, version)

    def written(self) -> bytes:
        """Return the file that holds just what was checked."""
        records = {name for name, facts in self.headers.items() if facts["kind"] == "V"}
        kept = {
            new: self.zipped.tidied(self.members[old]) if old in records else self.members[old]
            for old, new in self.renamed.items()
        }
        written: bytes = self.zipped.pack({**kept, SCHEMA: json.dumps(self.schema).encode()})
        return written

    def complain(self, sentence: str) -> None:
        """Note a reason for refusal, and go on."""
        if len(self.faults) <= MOST_FAULTS:
            self.faults[sentence] = None

    # nodes

    def node(self, state: State, depth: int) -> object:
        """Check one node with all below it, and return it as the static pass over pickles sees it.

        Raises:
            Fault: it is of a kind that may not be opened.
        """
        self.count += 1
        if depth > DEEPEST or self.count > MOST_NODES:
            raise Fault(f"it is nested deeper than {DEEPEST}, or has too many parts")
        state.pop("__id__", None)
        step = STEPS.get(state["__loader__"])
        if step is None:
            raise Fault(f"it holds a {str(state['__loader__'])[:60]}, which is not opened")
        return step(self, state, depth + 1)

    def nodes(self, states: list[State], depth: int) -> list[object]:
        """Check nodes that something keeps."""
        values = [self.node(state, depth) for state in states]
        for value in values:
            self.keep(value, "a list")
        return values

    def keep(self, value: object, where: str) -> None:
        """Let the value be kept: a class or a reconstructor may not be."""
        if isinstance(value, Name) and not value.value:
            self.complain(f"it keeps {'.'.join(value.pair)} in {where}, which may only be created from or called")

    def pair(self, state: State) -> Pair:
        """Return the pair that the node names, under its present name."""
        module, name = state["__module__"], state["__class__"]
        if not isinstance(module, str) or not isinstance(name, str):
            raise Fault("it is damaged: a name is no text")
        pair = self.known.settle(module, name)
        state["__module__"], state["__class__"] = pair
        self.pairs.add(pair)
        return pair

    def want(self, state: State) -> Name:
        """Return what the node names, noting whether it is on a list."""
        pair = self.pair(state)
        shown = ".".join(pair)[:200]
        self.imports.add(shown)
        if not (known := self.known.holds(pair)):
            self.refused.add(shown)
        return Name(pair, known, not known or pair in self.known.functions)

    def one_of(self, state: State, allowed: set[Pair]) -> Pair:
        """Return the pair that the node names, which must be one of these."""
        if (pair := self.pair(state)) not in allowed:
            raise Fault(f"it makes a {state['__loader__']} of {'.'.join(pair)[:200]}")
        return pair

    def member(self, state: State, suffix: str) -> str:
        """Return the name of the member that the node reads, which gets its number in the new file."""
        old = state["file"]
        if not isinstance(old, str) or old not in self.members or not old.endswith(suffix):
            raise Fault("it is damaged: a part of it is missing")
        state["file"] = self.renamed.setdefault(old, f"{len(self.renamed)}{suffix}")
        return old

    # plain values

    def read_json(self, state: State, depth: int) -> object:
        value = json.loads(state["content"])
        if isinstance(value, dict | list):
            raise Fault("it is damaged: a plain value holds others")
        return value

    def read_mapping(self, state: State, depth: int) -> object:
        pair = self.one_of(state, MAPPINGS | (BUNCHES & self.known.classes))
        content = state["content"]
        self.key_types(state["key_types"], len(content))
        box = Box("dict", count=len(content))
        for key, inner in content.items():
            value = self.node(inner, depth)
            self.keep(value, "a dict")
            if box.entries is not None and len(box.entries) < KEPT_ENTRIES:
                box.entries[key] = value
            if key == "_sklearn_version" and isinstance(value, str):
                self.versions.add(value[:20])
        return box if pair not in BUNCHES else Made(pair)

    def read_default(self, state: State, depth: int) -> object:
        pair = self.one_of(state, {("collections", "defaultdict")})
        main, factory = (self.node(state["content"][name], depth) for name in ("main", "default_factory"))
        if not isinstance(main, Box) or main.kind != "dict":
            raise Fault("it makes a dict of something else")
        made: object = self.arguments.call(pair, (factory,), self.known)
        return made

    def key_types(self, state: State, count: int) -> None:
        state.pop("__id__", None)
        listed = state["content"]
        if state["__loader__"] != "ListNode" or len(listed) != count:
            raise Fault("it is damaged: a dict does not know its keys")
        self.one_of(state, {("builtins", "list")})
        for each in listed:
            each.pop("__id__", None)
            if each["__loader__"] != "TypeNode":
                raise Fault("it makes the keys of a dict in an unusual way")
            self.one_of(each, KEY_TYPES)

    def read_sequence(self, state: State, depth: int) -> object:
        kind = {"ListNode": "list", "SetNode": "set", "TupleNode": "tuple"}[state["__loader__"]]
        allowed = {("builtins", kind)}
        pair = self.one_of(state, allowed | (self.arguments.TUPLE_CLASSES if kind == "tuple" else set()))
        values = self.nodes(state["content"], depth)
        if kind == "set":
            state["content"].sort(key=json.dumps)
        if pair not in allowed:
            made: object = self.arguments.call(pair, values, self.known)
            return made
        return Box(kind, count=len(values), items=tuple(values))

    def read_blob(self, state: State, depth: int) -> object:
        kind = {"BytesNode": "bytes", "BytearrayNode": "bytearray"}[state["__loader__"]]
        self.one_of(state, {("builtins", kind)})
        return Blob(len(self.members[self.member(state, ".bin")]))

    def read_slice(self, state: State, depth: int) -> object:
        pair = self.one_of(state, {("builtins", "slice")})
        parts = [state["content"][name] for name in ("start", "stop", "step")]
        if not all(part is None or isinstance(part, int | str) for part in parts):
            raise Fault("it is damaged: a slice is not between numbers")
        return Made(pair)

    def read_named(self, state: State, depth: int) -> object:
        return self.want(state)

    # objects

    def read_object(self, state: State, depth: int) -> object:
        found = self.want(state)
        content = None if state.get("content") is None else self.node(state["content"], depth)
        if not found.known:
            return Made(found.pair)
        is_class = found.pair in self.known.classes
        if not is_class and found.pair[0] not in CYTHON:
            raise Fault(f"it creates {'.'.join(found.pair)}, which a file may not do")
        made = Made(found.pair, facts={} if is_class else {"cython": True})
        if content is not None or not is_class:
            self.arguments.build(made, content, is_class)
        return made

    def read_constructed(self, state: State, depth: int) -> object:
        found = self.want(state)
        return self.called(found, self.node(state["content"], depth), CALLED)

    def called(self, found: Name, given: object, modules: set[str]) -> object:
        """Check the arguments that something is made with."""
        if not found.known:
            return Made(found.pair)
        items = items_of(given)
        if found.pair not in self.known.reconstructors or found.pair[0] not in modules or items is None:
            raise Fault(f"it calls {'.'.join(found.pair)}, which a file may not do")
        made: object = self.arguments.call(found.pair, items, self.known)
        return made

    def read_loss(self, state: State, depth: int) -> object:
        found = self.want(state)
        content = self.node(state["content"], depth)
        if not isinstance(content, Box) or content.count:
            raise Fault("it gives a loss an unusual state")
        return self.called(found, self.node(state["__reduce__"]["args"], depth), {"sklearn._loss._loss", *CALLED})

    def read_tree(self, state: State, depth: int) -> object:
        found = self.want(state)
        made = self.called(found, self.node(state["__reduce__"]["args"], depth), {TREE[0]})
        if isinstance(made, Made):
            self.arguments.build(made, self.node(state["content"], depth), False)
        return made

    def read_partial(self, state: State, depth: int) -> object:
        pair = self.one_of(state, {("functools", "partial")})
        content = state["content"]
        parts = tuple(self.node(content[name], depth) for name in ("func", "args", "kwds", "namespace"))
        made = self.arguments.call(pair, parts[:1], self.known)
        self.arguments.build(made, Box("tuple", count=4, items=parts), False)
        return made

    # arrays

    def read_array(self, state: State, depth: int) -> object:
        pair = self.one_of(state, {("numpy", "ndarray")} | SCALARS)
        if state["type"] == "numpy":
            return Made(pair, built=True, facts=dict(self.header(self.member(state, ".npy"))))
        shape = items_of(self.node(state["shape"], depth))
        self.nodes(state["content"], depth)
        if state["type"] != "json" or pair != ("numpy", "ndarray") or not shape:
            raise Fault("it describes an array in a way that skops does not")
        return Made(pair, built=True, facts={"array": True, "object": True, "shape": shape, "kind": "O"})

    def header(self, name: str) -> dict[str, object]:
        if name not in self.headers:
            self.headers[name] = self.zipped.header(self.members[name])
        return self.headers[name]

    def read_masked(self, state: State, depth: int) -> object:
        pair = self.one_of(state, sibling("arrays").MASKED)
        parts = [self.node(state["content"][name], depth) for name in ("data", "mask")]
        if not all(isinstance(part, Made) and "array" in part.facts for part in parts):
            raise Fault("it describes an array in a way that skops does not")
        return Made(pair, built=True)

    def read_dtype(self, state: State, depth: int) -> object:
        pair = self.one_of(state, {("numpy", "dtype")})
        content = self.node(state["content"], depth)
        if not isinstance(content, Made) or "array" not in content.facts:
            raise Fault("it describes an array in a way that skops does not")
        return Made(pair, built=True)

    def read_random_state(self, state: State, depth: int) -> object:
        pair = self.one_of(state, RANDOM_STATES)
        content = self.node(state["content"], depth)
        if not isinstance(content, Box) or content.kind != "dict":
            raise Fault("it gives a random state that is none")
        return Made(pair, built=True)

    def read_generator(self, state: State, depth: int) -> object:
        pair = self.one_of(state, GENERATORS)
        bits, seeds = (self.node(state["content"][name], depth) for name in ("bit_generator", "seed_seq"))
        if (
            not isinstance(bits, Box)
            or bits.entries is None
            or bits.entries["bit_generator"] not in self.arguments.BITS
        ):
            raise Fault("it gives a random generator that is none")
        given = seeds.entries if isinstance(seeds, Box) else None
        if given is None or not set(given) <= SEEDS or given.get("pool_size", 4) not in range(4, LARGEST_POOL):
            raise Fault("it gives a random generator an unusual seed")
        if self.schema["protocol"] != PROTOCOLS[-1]:
            raise Fault("it keeps a random generator as an older skops did: save it again")
        return Made(pair, built=True)

    def sparse_arrays(self, data: bytes) -> None:
        """Check the arrays of a sparse matrix, which stand in an archive of their own."""
        for inner, array in self.zipped.unpack(data, self.room).items():
            self.room -= len(array)
            if not inner.endswith(".npy"):
                raise Fault("it describes a sparse matrix in a way that skops does not")
            self.zipped.header(array)

    def read_sparse(self, state: State, depth: int) -> object:
        found = self.want(state)
        name = self.member(state, ".npz")
        if found.known and (found.pair not in self.known.classes or not found.pair[0].startswith("scipy.sparse.")):
            raise Fault(f"it creates {'.'.join(found.pair)}, which a file may not do")
        if state["type"] != "scipy":
            raise Fault("it describes a sparse matrix in a way that skops does not")
        self.sparse_arrays(self.members[name])
        return Made(found.pair, built=True)


Step = Callable[[_Reader, State, int], object]
STEPS: Mapping[str, Step] = {
    "BytearrayNode": _Reader.read_blob,
    "BytesNode": _Reader.read_blob,
    "ConstructorFromReduceNode": _Reader.read_constructed,
    "DTypeNode": _Reader.read_dtype,
    "DefaultDictNode": _Reader.read_default,
    "DictNode": _Reader.read_mapping,
    "FunctionNode": _Reader.read_named,
    "JsonNode": _Reader.read_json,
    "ListNode": _Reader.read_sequence,
    "LossNode": _Reader.read_loss,
    "MaskedArrayNode": _Reader.read_masked,
    "NdArrayNode": _Reader.read_array,
    "ObjectNode": _Reader.read_object,
    "PartialNode": _Reader.read_partial,
    "RandomGeneratorNode": _Reader.read_generator,
    "RandomStateNode": _Reader.read_random_state,
    "SetNode": _Reader.read_sequence,
    "SliceNode": _Reader.read_slice,
    "SparseMatrixNode": _Reader.read_sparse,
    "TreeNode": _Reader.read_tree,
    "TupleNode": _Reader.read_sequence,
    "TypeNode": _Reader.read_named,
}


def _schema(members: dict[str, bytes]) -> State:
    """Take the schema out of the members, whose names must be those that skops gives."""
    if wrong := [name for name in members if not SKOPS_MEMBER.fullmatch(name.encode())]:
        raise Fault(f"it holds {wrong[0][:60]!r}")
    if SCHEMA not in members:
        raise Fault("it has no schema")
    data = members.pop(SCHEMA)
    if len(data) > LARGEST_SCHEMA:
        raise Fault(f"its schema is larger than {LARGEST_SCHEMA >> 20} MiB")
    schema: State = json.loads(data)
    if type(schema["protocol"]) is not int or schema["protocol"] not in PROTOCOLS:
        raise Fault(f"it is written in protocol {str(schema['protocol'])[:20]} of skops: save it again")
    return schema
