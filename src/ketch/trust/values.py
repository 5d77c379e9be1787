"""Walks through an object that was loaded under the gate and checks every value in it."""

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ketch.trust import Fault, sibling

DEEPEST = 256  # objects inside one another; the static pass allows less, but cannot see every cycle
MOST_JOBS = 1024
PLAIN = {type(None), bool, int, float, complex, str, bytes, bytearray}
DISPATCH = re.compile(r"all|\d{1,9}|(\d{1,9} ?\* ?)?n_jobs")


def check(model: object, classes: set[type], functions: set[int]) -> None:
    """Check every value that can be reached from the model.

    Raises:
        Fault: one of them could do harm later: read a file, write a cache, or reach outside an array.
    """
    seen: dict[int, object] = {}  # keeps what it has seen alive, so that no id comes back
    level, depth = [model], 0
    while level:
        if depth > DEEPEST:
            raise Fault(f"it is nested deeper than {DEEPEST}")
        fresh: list[object] = []
        for value in level:
            if id(value) not in seen:
                seen[id(value)] = value
                _check_one(value, classes, functions)
                fresh.extend(inner for inner in _inside(value, classes) if type(inner) not in PLAIN)
        level, depth = fresh, depth + 1


def _kinds(cls: type) -> list[str]:
    return [f"{base.__module__}.{base.__qualname__}" for base in cls.__mro__]


def _inside(value: Any, classes: set[type]) -> Iterable[object]:
    kind = type(value)
    if isinstance(value, dict):
        yield from value.keys()
        yield from value.values()
    elif isinstance(value, list | tuple | set | frozenset):
        yield from value
    elif kind.__module__.partition(".")[0] == "numpy" and hasattr(value, "dtype") and hasattr(value, "flat"):
        if value.dtype.hasobject:
            yield from value.view(sibling("structures").plain_array()).ravel().tolist()
        yield from _extra(value)
    if kind in classes and hasattr(value, "__dict__"):
        yield from vars(value).values()


def _extra(array: Any) -> Iterable[object]:
    return [array.fill_value] if hasattr(array, "fill_value") else []


def _check_one(value: Any, classes: set[type], functions: set[int]) -> None:
    kind = type(value)
    if kind in PLAIN or (isinstance(value, dict | list | tuple | set | frozenset) and kind not in classes):
        return
    if kind not in classes and callable(value) and hasattr(value, "__name__") and id(value) not in functions:
        raise Fault(f"it keeps the function {value.__name__}, which is not a known one")
    names = _kinds(kind)
    if "sklearn.base.BaseEstimator" in names:
        _settings(value, vars(value))
    checks = _checks()
    for name in names:
        if name in checks:
            _sound(checks[name], value, kind.__name__)


@functools.cache
def _checks() -> dict[str, Callable[[Any], bool]]:
    return sibling("structures").CHECKS | sibling("boosters").CHECKS  # type: ignore[no-any-return]


def _sound(rule: Callable[[Any], bool], value: object, name: str) -> None:
    try:
        good = rule(value)
    except Exception:  # whatever a check trips over is not as it should be
        good = False
    if not good:
        raise Fault(f"the numbers inside its {name} contradict each other")


def _settings(value: object, state: Mapping[str, Any]) -> None:
    name = type(value).__name__
    for place in ("memory", "cachedir"):
        if state.get(place) is not None:
            raise Fault(f"{name} has {place}={state[place]!r}, a place on disk: set it to None and save again")
    reads = type(value).__module__ == "sklearn.feature_extraction.text" and name != "TfidfTransformer"
    if reads and not (type(state.get("input")) is str and state["input"] == "content"):
        raise Fault(f"{name} has input={state.get('input')!r}: it would read files; use input='content'")
    for number in ("n_jobs", "_n_threads", "n_threads"):
        jobs = state.get(number)
        if isinstance(jobs, int | float) and not abs(jobs) <= MOST_JOBS:
            raise Fault(f"{name} has {number}={jobs!r}, more than {MOST_JOBS}")
    dispatch = state.get("pre_dispatch")
    if isinstance(dispatch, str) and not DISPATCH.fullmatch(dispatch):
        raise Fault(f"{name} has pre_dispatch={dispatch!r}, which joblib would evaluate")
