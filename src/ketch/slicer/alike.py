"""Whether two objects are the same model, bit for bit; python -m ketch.slicer.alike ONE OTHER tells what differs.

Anything is taken apart as pickle would do it, so that no library needs to be known. What draws random numbers, and how
long something took, may differ.
"""

import dis
import json
import math
import pickle
import sys
import tempfile
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

MOST: Final = 20  # differences that are listed
DEEPEST: Final = 60
PASSING: Final = frozenset(  # where something lies in memory, and how long it took
    {"_stop_words_id", "refit_time_", "mean_fit_time", "std_fit_time", "mean_score_time", "std_score_time"}
)
Seen = dict[tuple[int, int], tuple[object, object]]


def differences(one: Any, other: Any, path: str = "", seen: Seen | None = None) -> Iterator[str]:
    """Name the places where two objects differ."""
    seen = {} if seen is None else seen
    if one is other or (id(one), id(other)) in seen:
        return
    seen[id(one), id(other)] = one, other  # kept alive, or another object might get its number
    if type(one) is not type(other) and type(one).__qualname__ != type(other).__qualname__:
        yield f"{path or 'the model'}: {type(one).__name__} and {type(other).__name__}"
        return
    if path.count(".") + path.count("[") > DEEPEST:
        return
    plain = _plain(one, other)
    if plain is not None:
        if not plain:
            yield f"{path or 'the model'}: {_short(one)} and {_short(other)}"
        return
    if isinstance(one, dict):
        yield from _of_dicts(one, other, path, seen)
    elif isinstance(one, list | tuple):
        if len(one) != len(other):
            yield f"{path}: {len(one)} and {len(other)} parts"
        for place, (left, right) in enumerate(zip(one, other, strict=False)):
            yield from differences(left, right, f"{path}[{place}]", seen)
    else:
        yield from _of_objects(one, other, path, seen)


def _plain(one: Any, other: Any) -> bool | None:
    """Compare what has no parts; None for what has."""
    kind = type(one)
    if kind is float:
        return bool(one == other or (math.isnan(one) and math.isnan(other)))
    if kind in {int, str, bytes, bool, complex, type(None)} or isinstance(one, type | types.ModuleType):
        return bool(one == other) or (isinstance(one, type) and one.__qualname__ == other.__qualname__)
    if isinstance(one, types.FunctionType):
        return _does(one.__code__) == _does(other.__code__)
    if isinstance(one, types.BuiltinFunctionType | types.MethodDescriptorType):
        return bool(one.__qualname__ == other.__qualname__)
    if type(one).__module__ == "numpy" and type(one).__name__ in {"ndarray", "memmap"} and one.dtype != object:
        alike = one.dtype == other.dtype and one.shape == other.shape
        return bool(alike and one.tobytes() == other.tobytes())
    if type(one).__name__ in {"RandomState", "Generator", "MT19937", "PCG64", "_RLock", "lock"}:
        return True
    if isinstance(one, set | frozenset):
        return bool(one == other)
    return None


def _does(code: types.CodeType) -> list[object]:
    """Give what a function does, without where it stands: imports beside it change how it calls, not what."""
    found: list[object] = []
    for each in dis.get_instructions(code):
        if isinstance(each.argval, types.CodeType):
            found.append(_does(each.argval))
        else:
            found.append(
                (
                    each.opname.replace("LOAD_METHOD", "LOAD_ATTR"),
                    each.argrepr.replace("NULL + ", "").replace("NULL|self + ", ""),
                )
            )
    return found


def _of_dicts(one: dict[Any, Any], other: dict[Any, Any], path: str, seen: Seen) -> Iterator[str]:
    for key in [*one, *(key for key in other if key not in one)]:
        if key in PASSING:
            continue
        where = f"{path}.{key}" if isinstance(key, str) else f"{path}[{key!r}]"
        if key not in one or key not in other:
            yield f"{where}: only in {'the notebook' if key in one else 'the script'}"
        else:
            yield from differences(one[key], other[key], where, seen)


def _of_objects(one: Any, other: Any, path: str, seen: Seen) -> Iterator[str]:
    written = _written(one)
    if written is not None:
        if written != _written(other):
            yield f"{path or 'the model'}: another {type(one).__name__}"
        return
    try:
        left, right = one.__reduce_ex__(2), other.__reduce_ex__(2)
    except Exception as error:  # whatever cannot be taken apart
        yield f"{path or 'the model'}: cannot be compared ({error})"
        return
    if isinstance(left, str) or isinstance(right, str):
        if left != right:
            yield f"{path}: {left} and {right}"
        return
    (_, mine, *more), (_, theirs, *others) = left, right
    yield from differences(mine, theirs, f"{path}[made of]", seen)
    for place, (state, its) in enumerate(zip(more, others, strict=False)):
        if place:
            yield from differences([*(state or ())], [*(its or ())], f"{path}[items]", seen)
        else:
            yield from differences(state, its, path, seen)


def _written(model: Any) -> Any:
    """Give what a booster is written as, whatever else its object holds; None for any other object."""
    if type(model).__module__.startswith("catboost"):
        return _of_catboost(model)
    return next((getattr(model, name)() for name in ("save_raw", "model_to_string") if hasattr(model, name)), None)


def _of_catboost(model: Any) -> Any:
    """Give a model of CatBoost without the time at which it was made."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "model.json"
        model.save_model(str(place), format="json")
        found = json.loads(place.read_text("utf-8"))
    found.pop("model_info", None)
    return found


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else text[:77] + "…"


def main() -> None:
    """Compare two files written by cloudpickle."""
    one, other = (pickle.loads(Path(each).read_bytes()) for each in sys.argv[1:3])  # noqa: S301 (both were just made here)
    found = []
    for each in differences(one, other):
        found.append(each.lstrip("."))
        if len(found) == MOST:
            break
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
