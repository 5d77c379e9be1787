"""What would change the answer: the curve over one field, and the smallest change that turns the decision."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from ketch.codec import Table, columns_of
from ketch.errors import InputError
from ketch.predict import Predictor, Results, Rows
from ketch.schema import Columns, Field

STEPS: Final = 21
HALVINGS: Final = 12
FEW: Final = 7  # values of each of two fields that change together
MOST_PAIRED: Final = 140  # changes of one field; as many pairs as `MOST_ROWS`
MOST_ROWS: Final = 10_000


def what_if(
    predictor: Predictor, row: Mapping[str, object], field: str, steps: int = STEPS
) -> list[tuple[object, float]]:
    """Give the score for each value that a field could have, the rest of the row staying as it is.

    Raises:
        InputError: the field is none of the model's, or has no list or range of values.
        RequestError: the row is refused.
    """
    known = {each.name: each for each in predictor.contract.fields}
    if field not in known:
        raise InputError(f"{field[:80]!r} is no field of this model", hint=f"Fields: {', '.join(known)}.")
    own = _checked(predictor, row)
    values = _values(predictor, known[field], steps)
    if not values:
        raise InputError(
            f"{field} has no list and no range of values",
            hint="Pack with --data, or write minimum and maximum into the contract.",
        )
    asked = {name: [value] * len(values) for name, value in own.items()} | {field: values}
    label = _decision(predictor.run(_rows({name: [value] for name, value in own.items()})))[0]
    return list(zip(values, _scores(predictor, predictor.run(_rows(asked)), label), strict=True))


def nearest_flip(predictor: Predictor, row: Mapping[str, object]) -> dict[str, object] | None:
    """Find the smallest change of one field, else of two, that turns the decision; None where none was found.

    A change of a number is as large as its share of the range, one of anything else is 1.

    Raises:
        InputError: the model decides nothing.
        RequestError: the row is refused.
    """
    if predictor.contract.answer.task in {"regression", "several"}:
        raise InputError("This model decides between no classes", hint="Ask for the curve over a field instead.")
    own = _checked(predictor, row)
    label = _decision(predictor.run(_rows({name: [value] for name, value in own.items()})))[0]
    alone: dict[str, Change] = {}
    for size, change in _flipping(predictor, own, label, _single(predictor, own, STEPS)):
        alone.setdefault(next(iter(change)), (size, change))
    if alone:
        return min(_narrowed(predictor, own, label, alone).values(), key=lambda each: each[0])[1]
    return next((change for _, change in _flipping(predictor, own, label, _pairs(predictor, own))), None)


Change = tuple[float, dict[str, Any]]


def _flipping(
    predictor: Predictor, own: Mapping[str, object], label: object, changes: Iterable[Change]
) -> list[Change]:
    """Choose the changes that turn the decision, the smallest first."""
    ordered = sorted(changes, key=lambda each: each[0])[:MOST_ROWS]
    if not ordered:
        return []
    asked = {name: [change.get(name, value) for _, change in ordered] for name, value in own.items()}
    decided = _decision(predictor.run(_rows(asked)))
    return [each for each, found in zip(ordered, decided, strict=True) if found != label]


def _narrowed(
    predictor: Predictor, own: Mapping[str, Any], label: object, found: dict[str, Change]
) -> dict[str, Change]:
    """Move numbers back towards the row's own as far as the decision stays turned."""
    whole = {each.name for each in predictor.contract.fields if each.type == "integer"}
    numbers = {each.name for each in predictor.contract.fields if each.type == "number"} | whole
    near = {name: own[name] for name in found if name in numbers and own[name] is not None}
    far = {name: found[name][1][name] for name in near}
    start = dict(far)
    for _ in range(HALVINGS):
        middle = {name: (near[name] + far[name]) / 2 for name in near}
        middle = {name: round(value) if name in whole else value for name, value in middle.items()}
        turned = _flipping(predictor, own, label, [(0.0, {name: value}) for name, value in middle.items()])
        turning = {name for _, change in turned for name in change}
        far |= {name: middle[name] for name in turning}
        near |= {name: middle[name] for name in middle.keys() - turning}
    for name, value in far.items():
        size = found[name][0] * abs(value - own[name]) / abs(start[name] - own[name])
        found[name] = (size, {name: value})
    return found


def _single(predictor: Predictor, own: Mapping[str, object], steps: int) -> list[Change]:
    return [
        (_size(each, values, own[each.name], value), {each.name: value})
        for each in predictor.contract.fields
        for values in [_values(predictor, each, steps)]
        for value in values
        if value != own[each.name]
    ]


def _pairs(predictor: Predictor, own: Mapping[str, object]) -> Iterator[Change]:
    nearest = sorted(_single(predictor, own, FEW), key=lambda each: each[0])[:MOST_PAIRED]
    for (size, one), (other_size, other) in itertools.combinations(nearest, 2):
        if one.keys() != other.keys():
            yield size + other_size, one | other


def _size(each: Field, values: Sequence[Any], old: Any, new: Any) -> float:
    if each.type not in {"number", "integer"} or old is None:
        return 1.0
    return float(abs(new - old) / ((values[-1] - values[0]) or 1.0))


def _values(predictor: Predictor, each: Field, steps: int) -> list[object]:
    """List what a field may be: its categories, or numbers evenly over its range."""
    if each.type == "category":
        return list(each.categories)
    if each.type == "boolean":
        return [False, True]
    if each.type not in {"number", "integer"}:
        return []
    low, high = _range(predictor, each)
    if low is None or high is None:
        return []
    found: list[Any] = [low + (high - low) * place / max(1, steps - 1) for place in range(steps)]
    if each.type == "integer":
        found = [round(value) for value in found]
    return list(dict.fromkeys(found))


def _range(predictor: Predictor, each: Field) -> tuple[float | None, float | None]:
    if each.minimum is not None and each.maximum is not None:
        return each.minimum, each.maximum
    rows: list[Any] = [row.get(each.name) for row in predictor.bundle.golden.rows]
    shown = [value for value in rows if value is not None]
    low, high = each.minimum, each.maximum
    return (min(shown, default=None) if low is None else low), (max(shown, default=None) if high is None else high)


def _checked(predictor: Predictor, row: Mapping[str, object]) -> dict[str, object]:
    checked = predictor.check(Table(columns_of([row]), 1, single=True))
    return {name: values[0] for name, values in checked.columns.items()}


def _rows(columns: Columns) -> Rows:
    return Rows(columns, len(next(iter(columns.values()))))


def _decision(results: Results) -> list[object]:
    """Give the column that says what is decided: the first."""
    return next(iter(results.columns.values()))


def _scores(predictor: Predictor, results: Results, label: object) -> list[float]:
    """Give what stands behind a decision: of several classes, that of the row as it is."""
    *_, last = results.columns.values()
    found: list[Any] = list(last)
    if found and isinstance(found[0], dict):
        return [each[str(label)] for each in found]
    if len(results.columns) == 1 and predictor.contract.answer.task != "regression":
        return [float(each == label) for each in found]
    return [float(each) for each in found]
