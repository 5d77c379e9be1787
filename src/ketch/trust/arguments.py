"""What each reconstructor may be called with, and which state each kind of object may be given."""

from collections.abc import Callable, Sequence

from ketch.trust import Blob, Box, Fault, Lists, Made, Name, Pair, is_name, is_whole, items_of, sibling, size_of

Given = Sequence[object]
Check = Callable[[Given], object]

PLAIN_TYPES = {"bool", "dict", "float", "int", "list", "set", "str", "tuple"}
BITS = {"MT19937", "PCG64", "PCG64DXSM", "SFC64"}
TUPLE_CLASSES = {
    ("sklearn._loss.glm_distribution", "DistributionBoundary"),
    ("sklearn.impute._iterative", "_ImputerTriplet"),
}
SPLINES = [("scipy.interpolate._bsplines", name) for name in ("BSpline", "_BSpline")]
CHECK_ARRAY = ("sklearn.utils.validation", "check_array")
MOST_OUTPUTS = 100_000


def is_tuple_class(pair: Pair) -> bool:
    """Tell whether instances are created with their items, as named tuples are."""
    return pair in TUPLE_CLASSES


def call(pair: Pair, given: Given, known: Lists) -> object:
    """Return what the reconstructor makes of these arguments.

    Raises:
        Fault: it may not be called with them.
    """
    module, name = pair
    check = CALLS.get(pair) or sibling("arrays").CALLS.get(pair) or CALLS_OF_MODULE.get(module)
    if pair == ("copyreg", "_reconstructor"):
        return _fresh(given, known)
    if pair == ("numpy._core", "_ufunc_reconstruct"):
        return _ufunc(given, known)
    if name.startswith("__pyx_unpickle_"):
        return _unpickled(pair, given)
    if name == "newObj":
        return _instance(module, given)
    made = check(given) if check else None
    if made is None:
        raise Fault(f"it calls {'.'.join(pair)} with unusual arguments")
    if isinstance(made, Made) and not made.pair[1]:
        made.pair = pair
    return made


def _made(**facts: object) -> Made:
    return Made(("", ""), facts=facts)


def _numbers(values: Given) -> bool:
    return all(isinstance(value, int | float) for value in values)


# reconstructors


def _fresh(given: Given, known: Lists) -> Made:
    cls = given[0] if len(given) == 3 else None
    if isinstance(cls, Name) and cls.pair in known.classes:  # noqa: SIM102 - two thoughts
        if is_name(given[1], ("builtins", "object")) and given[2] is None:
            return Made(cls.pair, waits=cls.pair[0].startswith("joblib."))
    raise Fault("it calls copyreg._reconstructor with unusual arguments")


def _ufunc(given: Given, known: Lists) -> Name:
    if len(given) == 2 and all(isinstance(part, str) for part in given):
        pair = known.settle(str(given[0]), str(given[1]))
        if pair in known.functions:
            return Name(pair, True, True)
    raise Fault("it asks numpy._core._ufunc_reconstruct for something that is not a known function")


def _unpickled(pair: Pair, given: Given) -> Made:
    cls = (pair[0], pair[1].removeprefix("__pyx_unpickle_"))
    if len(given) == 3 and is_name(given[0], cls) and is_whole(given[1]):  # noqa: SIM102 - two thoughts
        if given[2] is None or items_of(given[2]) is not None:
            return Made(cls, facts={"cython": True})
    raise Fault(f"it calls {'.'.join(pair)} with unusual arguments")


def _instance(module: str, given: Given) -> Made:
    cls = given[0] if len(given) == 1 else None
    if isinstance(cls, Name) and cls.pair[0] == module and cls.pair[1] != "newObj" and not cls.value:
        return Made(cls.pair, facts={"cython": True})
    raise Fault(f"it calls {module}.newObj with unusual arguments")


def _encode(given: Given) -> object:
    if len(given) == 2 and isinstance(given[0], str) and given[1] in {"latin1", "latin-1"}:
        try:
            return given[0].encode("latin-1")
        except UnicodeEncodeError:
            return None
    return None


def _bytearray(given: Given) -> object:
    encoded = _encode(given) if len(given) == 2 else given[0] if len(given) == 1 else b""
    size = size_of(encoded)
    return None if size is None else Blob(size)


def _collection(given: Given) -> object:
    inside = given[0] if len(given) == 1 else None
    good = isinstance(inside, Box) and inside.kind in {"list", "tuple"} and not inside.raw
    return _made() if good else None


def _parts(given: Given) -> object:
    plain = all(part is None or isinstance(part, int | str) for part in given)
    return _made() if plain and 1 <= len(given) <= 3 else None


def _range(given: Given) -> object:
    return _made() if 1 <= len(given) <= 3 and all(map(is_whole, given)) else None


def _factory(given: Given) -> object:
    plain = [("builtins", name) for name in PLAIN_TYPES] + [("collections", "OrderedDict")]
    good = not given or (len(given) == 1 and (given[0] is None or is_name(given[0], *plain)))
    return _made() if good else None


def _moment(given: Given) -> object:
    def good(part: object) -> bool:
        return isinstance(part, int | str | bytes) or (isinstance(part, Made) and part.pair[0] == "datetime")

    return _made() if all(map(good, given)) else None


def _partial(given: Given) -> object:
    return _made(partial=True) if len(given) == 1 and is_name(given[0], CHECK_ARRAY) else None


def _with_numbers(given: Given) -> object:
    return _made() if len(given) <= 3 and _numbers(given) else None


def _tree(given: Given) -> object:
    if len(given) != 3 or not isinstance(given[1], Made) or not (is_whole(given[0]) and is_whole(given[2])):
        return None
    fits = given[1].facts.get("shape") == (given[2],) and given[1].facts.get("kind") == "i"
    return _made(tree=True) if fits and 1 <= int(str(given[2])) <= MOST_OUTPUTS else None


def _items(given: Given) -> object:
    raw = any(isinstance(part, Name) or (isinstance(part, Box) and part.raw) for part in given)
    return Made(("", ""), built=True) if 2 <= len(given) <= 3 and not raw else None


def _bits(given: Given) -> object:
    cls = given[0] if len(given) == 1 else None
    if isinstance(cls, Name):
        return _made(bits=True) if cls.pair[0].startswith("numpy.random._") and cls.pair[1] in BITS else None
    return _made(bits=True) if cls in BITS else None


def _generator(given: Given) -> object:
    first, rest = (given[0], given[1:]) if given else (None, ())
    good = (isinstance(first, Made) and bool(first.facts.get("bits"))) or first in BITS
    constructor = ("numpy.random._pickle", "__bit_generator_ctor")
    good = good and (not rest or (len(rest) == 1 and is_name(rest[0], constructor)))
    return _made(generator=True) if good else None


def _index(given: Given) -> object:
    if len(given) != 2 or not isinstance(given[0], Name) or not isinstance(given[1], Box):
        return None
    entries = given[1].entries
    if given[1].kind != "dict" or not entries or given[0].pair[1] not in {"Index", "RangeIndex"}:
        return None
    name = entries.get("name")
    if name is not None and not isinstance(name, str | int):
        return None
    if given[0].pair[1] == "RangeIndex":
        plain = all(is_whole(value) for key, value in entries.items() if key != "name")
        return _made() if set(entries) <= {"name", "start", "stop", "step"} and plain else None
    data = entries.get("data")
    filled = isinstance(data, Made) and "array" in data.facts
    return _made() if set(entries) <= {"name", "data"} and filled else None


# states


def build(made: Made, state: object, is_class: bool) -> None:
    """Check the state that an object is given.

    Raises:
        Fault: it may not have this state.
    """
    if is_class:
        good = _attributes(state) or (made.pair == SPLINES[0] and _delegated(state))
    else:
        states = STATES | sibling("arrays").STATES
        kind = next((fact for fact in made.facts if fact in states), "")
        check = states.get(kind)
        good = check is not None and check(made, state)
    if not good:
        raise Fault(f"it gives {'.'.join(made.pair)} an unusual state")


def _attributes(state: object) -> bool:
    if not isinstance(state, Box) or state.kind != "dict" or state.entries is None:
        return False
    names = state.entries
    return all(isinstance(name, str) and not (name[:2] == "__" == name[-2:]) for name in names)


def _delegated(state: object) -> bool:
    """Tell whether this is the state of a BSpline since scipy 1.18: the inner spline and an empty array."""
    given = items_of(state)
    if given is None or len(given) != 2:
        return False
    inner, sample = given
    return isinstance(inner, Made) and inner.pair == SPLINES[1] and isinstance(sample, Made) and "array" in sample.facts


def _tree_state(made: Made, state: object) -> bool:
    entries = state.entries if isinstance(state, Box) and state.kind == "dict" else None
    if entries is None or set(entries) != {"max_depth", "node_count", "nodes", "values"}:
        return False
    arrays = [entries["nodes"], entries["values"]]
    filled = all(isinstance(array, Made) and "array" in array.facts for array in arrays)
    return filled and is_whole(entries["max_depth"]) and is_whole(entries["node_count"])


def _tuple_state(made: Made, state: object) -> bool:
    return items_of(state) is not None


def _partial_state(made: Made, state: object) -> bool:
    given = items_of(state)
    if given is None or len(given) != 4 or not is_name(given[0], CHECK_ARRAY) or items_of(given[1]) != ():
        return False
    keywords, more = given[2], given[3]
    if not isinstance(keywords, Box) or keywords.kind != "dict" or keywords.entries is None:
        return False
    if more is not None and not (isinstance(more, Box) and more.kind == "dict" and not more.count):
        return False
    keywords.kind = "sealed"  # the function keeps this very dict: nothing may be put into it any more
    return set(keywords.entries) <= {"dtype", "ensure_all_finite", "force_all_finite"}


def _random_state(made: Made, state: object) -> bool:
    given = items_of(state)
    inner = given[0] if given is not None and len(given) == 2 else state
    return isinstance(inner, Box) and inner.kind == "dict"


STATES: dict[str, Callable[[Made, object], bool]] = {
    "cython": _tuple_state,
    "partial": _partial_state,
    "bits": _random_state,
    "generator": _random_state,
    "tree": _tree_state,
}
CALLS: dict[Pair, Check] = {
    ("_codecs", "encode"): _encode,
    ("builtins", "bytes"): lambda given: None if given else b"",
    ("builtins", "bytearray"): _bytearray,
    ("builtins", "complex"): _with_numbers,
    ("builtins", "frozenset"): _collection,
    ("builtins", "list"): _collection,
    ("builtins", "range"): _range,
    ("builtins", "set"): _collection,
    ("builtins", "slice"): _parts,
    ("builtins", "tuple"): _collection,
    ("collections", "OrderedDict"): lambda given: None if given else _made(),
    ("collections", "defaultdict"): _factory,
    ("numpy.random._pickle", "__bit_generator_ctor"): _bits,
    ("numpy.random._pickle", "__generator_ctor"): _generator,
    ("numpy.random._pickle", "__randomstate_ctor"): _generator,
    ("functools", "partial"): _partial,
    ("pandas.core.indexes.base", "_new_Index"): _index,
    ("sklearn._loss.glm_distribution", "DistributionBoundary"): _items,
    ("sklearn.impute._iterative", "_ImputerTriplet"): _items,
    ("sklearn.tree._tree", "Tree"): _tree,
}
CALLS_OF_MODULE: dict[str, Check] = {
    "datetime": _moment,
    "sklearn._loss._loss": _with_numbers,
    "sklearn.linear_model._sgd_fast": _with_numbers,
}
