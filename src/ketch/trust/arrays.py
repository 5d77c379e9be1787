"""What a stream says about numpy arrays: their dtypes, shapes and bytes, checked before numpy sees them."""

import math
import re
from collections.abc import Callable, Sequence

from ketch.trust import Box, Fault, Made, Pair, is_name, is_whole, items_of, size_of

Given = Sequence[object]

DTYPE = re.compile(r"(b1|[iu][1248]|f[248]|f16|c8|c16|c32|M8|m8|O8|O|([SUV])(\d{1,9}))")
STRUCT_FLAGS = 0x80 | 0x10 | 0x08  # aligned, needs the interpreter, needs filling: none of them objects
OBJECT_FLAGS, TEXT_FLAGS = 63, 8
NDARRAY = ("numpy", "ndarray")
MASKED = {("numpy.ma", "MaskedArray"), ("numpy.ma.core", "MaskedArray")}
MOST_DIMENSIONS = 32


def _dtype(given: Given) -> object:
    if len(given) != 3 or not isinstance(given[0], str) or given[1] not in (0, False) or given[2] not in (1, True):
        return None
    match = DTYPE.fullmatch(given[0])
    if match is None:
        return None
    kind = given[0][0]
    size = int(match[3]) * (4 if kind == "U" else 1) if match[2] else 8 if kind == "O" else int(given[0][1:])
    return Made(("", ""), waits=True, facts={"dtype": True, "kind": kind, "size": size, "object": kind == "O"})


def _reconstruct(given: Given) -> object:
    good = len(given) == 3 and is_name(given[0], NDARRAY) and items_of(given[1]) == (0,) and given[2] in ("b", b"b")
    return Made(("", ""), waits=True, facts={"ndarray": True}) if good else None


def _masked(given: Given) -> object:
    good = len(given) == 4 and is_name(given[0], *MASKED) and is_name(given[1], NDARRAY)
    good = good and items_of(given[2]) == (0,) and given[3] in ("b", b"b")
    return Made(("", ""), waits=True, facts={"masked": True}) if good else None


def _element(value: object) -> Made | None:
    return value if isinstance(value, Made) and "dtype" in value.facts and value.built else None


def _scalar(given: Given) -> object:
    dtype = _element(given[0]) if len(given) == 2 else None
    if dtype is None or dtype.facts["object"] or dtype.facts["kind"] == "V":
        return None
    return Made(("", "")) if size_of(given[1]) == dtype.facts["size"] else None


def _frombuffer(given: Given) -> object:
    if len(given) not in {4, 5} or given[3] not in ("C", "F", "K"):
        return None
    array = _array(given[1], items_of(given[2]))
    axes = given[4] if len(given) == 5 else None
    if axes is not None and not all(map(is_whole, items_of(axes) or ("",))):
        return None
    if array is None or array.facts["object"] or size_of(given[0]) != array.facts["bytes"]:
        return None
    return array


def _array(dtype: object, shape: Given | None) -> Made | None:
    element = _element(dtype)
    if element is None or shape is None or len(shape) > MOST_DIMENSIONS:
        return None
    sides = [side for side in shape if isinstance(side, int) and not isinstance(side, bool) and side >= 0]
    if len(sides) != len(shape):
        return None
    count, size = math.prod(sides), int(str(element.facts["size"]))
    if size == 0 and count:
        return None
    facts = {"array": True, "shape": tuple(sides), "count": count, "bytes": count * size}
    facts |= {"kind": element.facts["kind"], "object": element.facts["object"]}
    return Made(("", ""), built=True, facts=facts)


def wrapped(state: object) -> tuple[Made, bool]:
    """Return the array that joblib writes after this state, and whether padding comes before it.

    Raises:
        Fault: the state is not one that joblib writes.
    """
    entries = state.entries if isinstance(state, Box) and state.kind == "dict" else None
    if entries and is_name(entries.get("subclass"), NDARRAY) and entries.get("order") in {"C", "F"}:
        array = _array(entries.get("dtype"), items_of(entries.get("shape")))
        if array is not None:
            array.pair = NDARRAY
            return array, entries.get("numpy_array_alignment_bytes") is not None
    raise Fault("it describes an array in a way that joblib does not")


def _dtype_state(made: Made, state: object) -> bool:
    given = items_of(state)
    if given is None or len(given) not in {8, 9} or given[0] not in (3, 4) or given[1] not in ("<", ">", "|", "="):
        return False
    kind, size = made.facts["kind"], made.facts["size"]
    if given[2] is not None or (len(given) == 9) != (kind in {"M", "m"}):
        return False
    if kind == "V" and given[3] is not None:
        return _struct_state(made, given)
    flags = {"O": 63, "U": 8}.get(str(kind), 0)
    sizes = (size, 4 if kind == "U" else 1) if kind in {"S", "U", "V"} else (-1, -1)
    return given[3:8] == (None, None, *sizes, flags) and (len(given) == 8 or _unit(given[8]))


def _unit(value: object) -> bool:
    given = items_of(value)
    if given is None or len(given) != 2 or not (given[0] is None or isinstance(given[0], Box)):
        return False
    unit = items_of(given[1])
    return unit is not None and len(unit) == 4 and isinstance(unit[0], bytes) and all(map(is_whole, unit[1:]))


def _struct_state(made: Made, given: Given) -> bool:
    names, fields, size = items_of(given[3]), given[4], int(str(made.facts["size"]))
    if not names or not isinstance(fields, Box) or fields.kind != "dict" or not fields.entries:
        return False
    if set(names) != set(fields.entries) or len(names) != fields.count or given[5] != size:
        return False
    if given[6] not in (1, 2, 4, 8, 16) or not is_whole(given[7]) or int(str(given[7])) & ~STRUCT_FLAGS:
        return False
    fields.kind = "sealed"  # numpy keeps this very dict: nothing may be put into it any more
    return all(_field(entry, size) for entry in fields.entries.values())


def _field(entry: object, size: int) -> bool:
    given = items_of(entry)
    if given is None or len(given) != 2 or not isinstance(given[1], int):
        return False
    element = _element(given[0])
    if element is None or element.facts["object"]:
        return False
    return 0 <= given[1] <= size - int(str(element.facts["size"]))


def _array_state(made: Made, state: object) -> bool:
    given = items_of(state)
    if given is None or len(given) != (7 if "masked" in made.facts else 5) or given[0] != 1:
        return False
    array = _array(given[2], items_of(given[1]))
    if array is None or not isinstance(given[3], bool | int):
        return False
    if "masked" in made.facts and (array.facts["kind"] == "V" or size_of(given[5]) != array.facts["count"]):
        return False
    made.facts.update(array.facts)
    if not array.facts["object"]:
        return size_of(given[4]) == array.facts["bytes"]
    values = given[4]
    return isinstance(values, Box) and values.kind == "list" and values.count == array.facts["count"]


CALLS: dict[Pair, Callable[[Given], object]] = {
    ("numpy", "dtype"): _dtype,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("numpy._core.numeric", "_frombuffer"): _frombuffer,
    ("numpy.ma.core", "_mareconstruct"): _masked,
}
STATES: dict[str, Callable[[Made, object], bool]] = {
    "dtype": _dtype_state,
    "ndarray": _array_state,
    "masked": _array_state,
}
