"""What rows teach about a field, and rows composed field by field from the contract.

sample --*refine, profile*--> sharper fields, distributions        fields --*compose*--> plausible rows
"""

import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence, Sized
from datetime import date, datetime, timedelta
from typing import Any, Final, Protocol

import msgspec

from ketch.schema import Columns, Field, is_date, is_datetime, is_missing, kind_of, plain


class Hints(Protocol):
    """What a model tells about plausible values: words of texts, low and high of numbers."""

    @property
    def words(self) -> Mapping[str, Sequence[str]]:
        """Words to compose texts from."""

    @property
    def plausible(self) -> Mapping[str, tuple[float, float]]:
        """Low and high of numbers."""


def refine(each: Field, values: Sequence[object]) -> Field:
    """Sharpen a field by what a sample shows: type, categories where the model knows none, range."""
    present = [_written(plain(value)) for value in values if not is_missing(value)]
    if not present or each.type in {"category", "vector", "boolean"}:
        return each
    kinds = {kind_of(value) for value in present}
    if kinds == {"boolean"} and each.type in {"number", "text"}:
        return msgspec.structs.replace(each, type="boolean")
    if each.type in {"number", "integer"} and kinds == {"number"}:
        return _ranged(each, present)
    return _worded(each, present) if kinds == {"text"} else each


def _written(value: object) -> object:
    """Write a date as a text: the day alone where it is midnight, as pandas' dates are."""
    if is_date(value) and not isinstance(value, str):
        return str(value)[:10]
    return value.isoformat() if isinstance(value, datetime) else value


def _ranged(each: Field, present: Sequence[object]) -> Field:
    numbers = [float(value) for value in present if isinstance(value, int | float) and math.isfinite(value)]
    if not numbers:
        return each
    whole = all(type(value) is int for value in present)
    return msgspec.structs.replace(
        each, type="integer" if whole else "number", minimum=min(numbers), maximum=max(numbers)
    )


def _worded(each: Field, present: Sequence[object]) -> Field:
    texts = [str(value) for value in present]
    if all(is_date(text) for text in texts):
        return msgspec.structs.replace(each, type="date")
    if all(is_datetime(text) for text in texts):
        return msgspec.structs.replace(each, type="datetime")
    each = msgspec.structs.replace(each, type="text")
    distinct = sorted(set(texts))
    if len(distinct) <= MOST_DISTINCT and not _mostly_unique(distinct, texts):
        return msgspec.structs.replace(each, type="category", categories=tuple(distinct), unknown="flag")
    return each


def profile(values: Sequence[object]) -> dict[str, object]:
    """Describe a column's distribution: counts, quantiles of numbers, the commonest categories."""
    present = [plain(value) for value in values if not is_missing(value)]
    found: dict[str, object] = {"rows": len(values), "missing": len(values) - len(present)}
    numbers = sorted(float(v) for v in present if isinstance(v, int | float) and not isinstance(v, bool))
    numbers = [number for number in numbers if abs(number) < TOO_LARGE]
    if numbers and len(numbers) == len(present):
        mean = math.fsum(numbers) / len(numbers)
        spread = math.sqrt(math.fsum((number - mean) ** 2 for number in numbers) / len(numbers))
        found |= {"mean": mean, "std": spread, "quantiles": [_quantile(numbers, q) for q in QUANTILES]}
    elif present:
        counts = Counter(str(value) for value in present)
        if len(counts) <= MOST_DISTINCT and not _mostly_unique(counts, present):
            found["counts"] = dict(counts)
    return found


def _mostly_unique(distinct: Sized, values: Sized) -> bool:
    """Say whether listing the values would come close to listing the records, such as names and dates of birth."""
    return 2 * len(distinct) > len(values)


MOST_DISTINCT: Final = 100
TOO_LARGE: Final = 1e150  # the squares of more cannot be summed
QUANTILES: Final = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0)


def _quantile(ordered: Sequence[float], q: float) -> float:
    place = q * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


Profiles = Mapping[str, Mapping[str, Any]]


def compose(fields: Sequence[Field], hints: Hints, profiles: Profiles, n: int) -> Columns:
    """Compose rows field by field: the first is typical, the rest walk through categories and ranges.

    No record of the sample is copied: every value is drawn from its own column's contract or profile.
    """
    drawn = {}
    for each in fields:
        source = random.Random(each.name)  # noqa: S311 (examples, the same ones at every packing)
        spread = profiles.get(each.name, {})
        drawn[each.name] = [_value(each, hints, spread, place, source) for place in range(n)]
    return drawn


def _value(each: Field, hints: Hints, spread: Mapping[str, Any], place: int, source: random.Random) -> object:
    if not each.required and place % 7 == 3:
        return None
    if each.type == "category":
        counts = spread.get("counts", {})
        if place == 0 or not each.categories:
            return max(each.categories, key=lambda value: counts.get(str(value), 0), default="")
        return each.categories[place % len(each.categories)]
    if each.type == "boolean":
        return place % 2 == 1
    if each.type == "text":
        words = hints.words.get(each.name) or ("word",)
        return " ".join(source.choice(words) for _ in range(source.randint(4, 12)))
    if each.type in {"date", "datetime"}:
        day = date(2020, 1, 1) + timedelta(days=source.randint(0, 1500) if place else 0)
        return day.isoformat() if each.type == "date" else f"{day.isoformat()}T12:00:00"
    if each.type == "vector":
        return [_number(each, hints, {}, 1, source) for _ in range(each.length)]
    return _number(each, hints, spread, place, source)


def _number(each: Field, hints: Hints, spread: Mapping[str, Any], place: int, source: random.Random) -> float:
    quantiles = spread.get("quantiles")
    if quantiles:
        middle = quantiles[len(quantiles) // 2]
        at = source.random() * (len(quantiles) - 1)
        low, high = quantiles[int(at)], quantiles[min(int(at) + 1, len(quantiles) - 1)]
        value = low + (high - low) * (at - int(at))
    else:
        low, high = hints.plausible.get(each.name, (0.0, 100.0))
        low = max(low, 0.0) if high > 0 else low
        middle = float(math.floor((low + high) / 2 + 0.5)) if high - low >= 1 else (low + high) / 2
        value = source.uniform(low, high)
    value = middle if place == 0 else value
    return round(value) if each.type == "integer" else float(f"{value:.4g}")
