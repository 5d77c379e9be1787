"""Parity: the compiled form serves only where it is seen to agree with the original, and to be faster.

sample, composed, boundary and extreme rows --*ask both*--> worst difference, on how many rows, or why not
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from ketch.adapters import Knowledge, Raw, Runner
from ketch.bundle import Parity
from ketch.compiler import NotCompiled
from ketch.schema import LARGEST, Answer, Columns, Field, Scalar, is_missing, plain
from ketch.schema.sample import Profiles, compose

COMPOSED: Final = 2_000
MOST_OF_SAMPLE: Final = 10_000
MOST_SPLITS: Final = 60  # thresholds of one field that are tried, each from both sides
FLOAT32: Final = 2.0**-23
ROUNDS: Final = 3
TIMED: Final = 100
FAR: Final = 1e6


@dataclass(frozen=True)
class Trial:
    """The original, what it answers with, and what rows can be made of."""

    fields: tuple[Field, ...]
    answer: Answer
    knowledge: Knowledge
    table: Columns | None
    profiles: Profiles
    original: Runner
    tolerance: float


def examine(trial: Trial, candidate: Runner, thresholds: Mapping[str, Sequence[float]]) -> Parity:
    """Hold a compiled form against its original.

    Returns the worst difference and the number of rows. Probabilities count as they are, scores relative where they
    are larger than 1, numbers in units of 10 times their size or of the target's standard deviation, whichever is
    larger: 1e-6 of that is what is promised.

    Raises:
        NotCompiled: it differs by more than the tolerance, or is not faster.
    """
    found, answered = _compared(trial, candidate, thresholds)
    _require_speed(trial, candidate, answered)
    return found


def agree(trial: Trial, candidate: Runner, thresholds: Mapping[str, Sequence[float]]) -> Parity:
    """Hold one form of a model against another, however fast they are.

    Raises:
        NotCompiled: it differs by more than the tolerance.
    """
    return _compared(trial, candidate, thresholds)[0]


def _compared(
    trial: Trial, candidate: Runner, thresholds: Mapping[str, Sequence[float]]
) -> tuple[Parity, list[dict[str, object]]]:
    """Compare all rows; give what was seen, and some rows that the original answers."""
    worst, seen = 0.0, 0
    answered: list[dict[str, object]] = []
    for columns, n in _rows(trial, thresholds):
        wanted, found = _answered(trial.original, columns, n), _answered(candidate, columns, n)
        for row, (one, other) in enumerate(zip(wanted, found, strict=True)):
            difference = _difference(trial, one, other)
            if not difference <= trial.tolerance:
                raise NotCompiled(_told(one, other, difference, trial.tolerance))
            worst = max(worst, difference)
            if one is not None and len(answered) < TIMED:
                answered.append({name: values[row] for name, values in columns.items()})
        seen += n
    return Parity(seen, worst), answered


def _told(one: Raw | None, other: Raw | None, difference: float, tolerance: float) -> str:
    if one is None or other is None:
        return (
            f"it {'answers' if one is None else 'refuses'} what the original {'refuses' if one is None else 'answers'}"
        )
    if math.isinf(difference):
        return "its label differs from the original's"
    return f"its answer differs by {difference:.2g}, of {tolerance:g} allowed"


# ---- rows ------------------------------------------------------------------------------------------


def _rows(trial: Trial, thresholds: Mapping[str, Sequence[float]]) -> list[tuple[Columns, int]]:
    composed = compose(trial.fields, trial.knowledge, trial.profiles, COMPOSED)
    groups = [(composed, COMPOSED)]
    if trial.table is not None and (n := len(next(iter(trial.table.values())))):
        groups.append(_sampled(trial, trial.table, composed, n))
    typical = {name: values[0] for name, values in composed.items()}
    tried = [
        (each.name, value) for each in trial.fields for value in _boundaries(each, thresholds, composed[each.name])
    ]
    groups += [_varied(typical, tried), _varied({name: values[1] for name, values in composed.items()}, tried)]
    groups.append(_varied(typical, _beyond(trial.fields)))
    return [(columns, n) for columns, n in groups if n]


def _beyond(fields: Sequence[Field]) -> list[tuple[str, object]]:
    """Give a number that only float64 holds, for one field: each row that is refused costs a call of its own."""
    numbers = [each for each in fields if each.type in {"number", "integer"}]
    return [(each.name, 10**60 if each.type == "integer" else 1e60) for each in numbers[:1]]


def _sampled(trial: Trial, table: Columns, composed: Columns, n: int) -> tuple[Columns, int]:
    """Take the sample's rows, evenly if there are many; what the contract refuses gives way to a composed value."""
    step = max(1, math.ceil(n / MOST_OF_SAMPLE))
    columns = {}
    for each in trial.fields:
        spare = composed[each.name]
        values = table[each.name][::step] if each.name in table else [spare[at % COMPOSED] for at in range(0, n, step)]
        columns[each.name] = [_kept(each, plain(value), spare[at % COMPOSED]) for at, value in enumerate(values)]
    return columns, len(range(0, n, step))


def _kept(each: Field, value: object, spare: object) -> object:
    if is_missing(value):
        return None if not each.required else spare
    if each.type in {"number", "integer"}:
        good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    elif each.type == "category":
        good = value in each.categories
    else:
        good = type(value) is {"boolean": bool}.get(each.type, str)
    return value if good else spare


def _varied(typical: Mapping[str, object], tried: Sequence[tuple[str, object]]) -> tuple[Columns, int]:
    """Change one field at a time."""
    columns: Columns = {name: [value] * len(tried) for name, value in typical.items()}
    for row, (name, value) in enumerate(tried):
        columns[name][row] = value
    return columns, len(tried)


def _boundaries(each: Field, thresholds: Mapping[str, Sequence[float]], composed: Sequence[object]) -> list[object]:
    found: list[object] = [] if each.required else [None]
    if each.type == "category":
        unknown = _unlike(each.categories)
        return found + list(each.categories) + ([unknown] if each.unknown == "flag" else [])
    if each.type == "boolean":
        return [*found, True, False]
    if each.type not in {"number", "integer"}:
        return [*found, "", "a b a B é 12"] if each.type == "text" else found
    numbers = [value for value in composed if isinstance(value, int | float)]
    low = each.minimum if each.minimum is not None else min(numbers, default=0.0)
    high = each.maximum if each.maximum is not None else max(numbers, default=1.0)
    wide = (high - low) or 1.0
    listed = [low, high, 0.0, -1.0, low - wide, high + wide, low - FAR * wide, high + FAR * wide]
    for at in _thinned(sorted(set(thresholds.get(each.name, ())))):
        near = max(abs(at) * FLOAT32, 1e-30)
        listed += [at, math.nextafter(at, math.inf), math.nextafter(at, -math.inf), at + near, at - near]
    if each.type == "integer":
        return found + [
            whole for number in listed if abs(number) < 1e15 for whole in {math.floor(number), math.ceil(number)}
        ]
    return found + [number for number in listed if abs(number) <= LARGEST]


def _thinned(values: list[float]) -> list[float]:
    step = max(1, len(values) // MOST_SPLITS)
    return values[::step]


def _unlike(categories: Sequence[Scalar]) -> Scalar:
    numbers = [value for value in categories if isinstance(value, int | float)]
    return max(numbers) + 3 if numbers else "never seen before"


# ---- asking both -----------------------------------------------------------------------------------


def _answered(runner: Runner, columns: Columns, n: int) -> list[Raw | None]:
    """Ask for all rows at once, and where that fails for halves, so that what is refused stands alone."""
    try:
        raw = runner(columns, n)
    except Exception:  # whatever a model raises on a row, it does not answer it
        if n == 1:
            return [None]
        half = n // 2
        first = {name: values[:half] for name, values in columns.items()}
        rest = {name: values[half:] for name, values in columns.items()}
        return _answered(runner, first, half) + _answered(runner, rest, n - half)
    return [_finite(raw.rows(row, row + 1)) for row in range(n)]


def _finite(raw: Raw) -> Raw | None:
    """Give nothing for an answer that is no number, since nobody gets it."""
    return raw if all(map(math.isfinite, _numbers(raw))) else None


def _numbers(raw: Raw) -> list[float]:
    found = raw.probabilities if raw.probabilities is not None else raw.scores if raw.scores is not None else raw.labels
    return [number for number in _flat(found) if isinstance(number, float)]


def _flat(nest: object) -> Iterator[object]:
    if not isinstance(nest, list):
        yield nest
        return
    for each in nest:
        yield from _flat(each)


def _difference(trial: Trial, one: Raw | None, other: Raw | None) -> float:
    if one is None or other is None:
        return 0.0 if one is other else math.inf
    parts = trial.answer.parts
    if not parts:
        return _distance(trial, trial.answer, one, other)
    return max(_distance(trial, part, one.part(at), other.part(at)) for at, part in enumerate(parts))


def _distance(trial: Trial, answer: Answer, one: Raw, other: Raw) -> float:
    mine, theirs = _numbers(one), _numbers(other)
    if len(mine) != len(theirs):
        return math.inf
    unit = _unit(trial, answer)
    found = max((abs(a - b) / unit(a) for a, b in zip(mine, theirs, strict=True)), default=0.0)
    if answer.task == "regression" or one.labels == other.labels:
        return found
    return found if _is_close_call(trial, one, mine) else math.inf


def _unit(trial: Trial, answer: Answer) -> Callable[[float], float]:
    if answer.values == "probability":
        return lambda value: 1.0
    if answer.task != "regression":
        return lambda value: max(1.0, abs(value))
    spread = float(trial.profiles.get(answer.target, {}).get("std", 0.0)) or 1e-3
    return lambda value: max(10.0 * abs(value), spread)


def _is_close_call(trial: Trial, one: Raw, numbers: Sequence[float]) -> bool:
    """Say whether the original's two best classes stand closer together than the tolerance."""
    if one.scores is not None and len(numbers) == 1:
        return abs(numbers[0]) <= trial.tolerance
    best = sorted(numbers, reverse=True)
    return any(a - b <= trial.tolerance for a, b in list(pairwise(best))[:1])


# ---- speed -----------------------------------------------------------------------------------------


def _require_speed(trial: Trial, candidate: Runner, answered: Sequence[Mapping[str, object]]) -> None:
    if not answered:
        raise NotCompiled("the original answers no row that could be composed")
    # what is a sum for each row is far ahead at one row; at many it may be close, where a clock is no judge
    for n in (1,) if getattr(candidate, "alone", False) else (1, TIMED):
        columns: Columns = {
            each.name: [answered[at % len(answered)][each.name] for at in range(n)] for each in trial.fields
        }
        if not any(_is_faster(trial, candidate, columns, n) for _ in range(ROUNDS)):  # noise must not decide
            raise NotCompiled(f"it is not faster than the original at {n} row{'s' if n > 1 else ''}")


def _is_faster(trial: Trial, candidate: Runner, columns: Columns, n: int) -> bool:
    return _seconds(candidate, columns, n) < _seconds(trial.original, columns, n)


def _seconds(runner: Runner, columns: Columns, n: int) -> float:
    """Give the best of a few rounds."""
    best = math.inf
    for _ in range(ROUNDS):
        began = time.perf_counter()
        runner(columns, n)
        best = min(best, time.perf_counter() - began)
    return best
