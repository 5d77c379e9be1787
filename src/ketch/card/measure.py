"""How well a model does on rows whose truth is known, by scikit-learn's measures.

rows with the target --*checked as a caller's would be*--> answers --*against the truth*--> figures, curves
"""

import math
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any, Final

from ketch.adapters import Raw, Runner
from ketch.card import Measured
from ketch.extras import load
from ketch.schema import Answer, Columns, Field, is_missing, plain
from ketch.schema.checks import Checker

MOST_ROWS: Final = 20_000
FEWEST_ROWS: Final = 20
BINS: Final = 10
CORNERS: Final = 50  # points that a curve is drawn through


def measure(runner: Runner, fields: Sequence[Field], answer: Answer, table: Columns, why: str) -> Measured:
    """Hold answers against the target column of a table; what cannot be measured says why."""
    if answer.task not in {"binary", "multiclass", "regression"}:
        return Measured(reason="There is no truth to hold its answers against.")
    if answer.target not in table:
        return Measured(reason="Not measured: no data with the target was given when this was packed.")
    truth, columns = _usable(fields, answer, table)
    asked = len(truth)
    rows, columns = _kept(fields, columns, asked)
    truth = [truth[row] for row in rows]
    if len(truth) < FEWEST_ROWS:
        return Measured(reason=f"Not measured: {len(truth)} usable rows with the target are too few.")
    codes = _codes(answer, truth)
    if codes is None:
        shown = "numbers" if answer.task == "regression" else ", ".join(str(each) for each in answer.classes[:5])
        return Measured(reason=f"Not measured: the target column of the data does not hold the model's {shown}.")
    try:
        raw = runner(columns, len(truth))
    except Exception:  # a model may refuse some row, and which one is not worth a search
        return Measured(reason="Not measured: the model does not answer all rows of the data.")
    figures, curves = _FOR[answer.task](answer, raw, codes)
    figures = {name: float(value) for name, value in figures.items() if math.isfinite(value)}
    return Measured(len(truth), asked - len(truth), why, figures=figures, curves=curves)


def _usable(fields: Sequence[Field], answer: Answer, table: Columns) -> tuple[list[object], Columns]:
    """Take rows with a target, evenly if there are many, as a caller would send them."""
    target = table[answer.target]
    known = [row for row, value in enumerate(target) if not is_missing(value)]
    known = known[:: max(1, math.ceil(len(known) / MOST_ROWS))]
    names = [each.name for each in fields if each.name in table]
    return [plain(target[row]) for row in known], {name: [_sent(table[name][row]) for row in known] for name in names}


def _sent(value: object) -> object:
    if is_missing(value):
        return None
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value) if isinstance(value, date) else plain(value)


def _kept(fields: Sequence[Field], columns: Columns, n: int) -> tuple[list[int], Columns]:
    """Leave out rows that the contract refuses."""
    checked = Checker(fields)(columns, n)
    refused = {fault.row for fault in checked.faults}
    rows = [row for row in range(n) if row not in refused]
    return rows, {name: [values[row] for row in rows] for name, values in checked.columns.items()}


def _codes(answer: Answer, truth: Sequence[object]) -> list[Any] | None:
    """Give truth as numbers, classes by their place; None where it is something else."""
    if answer.task == "regression":
        good = all(isinstance(value, int | float) and math.isfinite(value) for value in truth)
        return list(truth) if good else None
    places = {each: place for place, each in enumerate(answer.classes)}
    found = [places.get(value) if isinstance(value, str | int | float) else None for value in truth]
    return None if None in found else found


Found = tuple[dict[str, float], dict[str, Any]]


def _binary(answer: Answer, raw: Raw, truth: list[int]) -> Found:
    metrics, numpy = load("sklearn.metrics"), load("numpy")
    positive = answer.classes.index(answer.positive)
    actual = numpy.array(truth) == positive
    said = numpy.array([label == answer.positive for label in raw.labels])
    figures: dict[str, float] = {"positive_share": actual.mean()}
    curves: dict[str, Any] = {}
    if raw.probabilities is not None:
        chance = numpy.array(raw.probabilities)[:, positive]
        said = chance >= answer.threshold if answer.threshold is not None else said
        figures |= _chances(metrics, actual, chance)
        curves = _curves(metrics, numpy, actual, chance)
    figures |= _decisions(metrics, actual, said)
    curves["confusion"] = _confusion(metrics, actual, said, ["no", "yes"], [False, True])
    return figures, curves


def _decisions(metrics: Any, actual: Any, said: Any) -> dict[str, float]:
    return {
        "accuracy": metrics.accuracy_score(actual, said),
        "balanced_accuracy": metrics.recall_score(actual, said, average="macro", zero_division=0.0),
        "precision": metrics.precision_score(actual, said, zero_division=0.0),
        "recall": metrics.recall_score(actual, said, zero_division=0.0),
        "f1": metrics.f1_score(actual, said, zero_division=0.0),
    }


def _chances(metrics: Any, actual: Any, chance: Any) -> dict[str, float]:
    found = {"brier": metrics.brier_score_loss(actual, chance), "log_loss": _log_loss(metrics, actual, chance)}
    return {"roc_auc": metrics.roc_auc_score(actual, chance), **found} if len(set(actual.tolist())) == 2 else found


def _log_loss(metrics: Any, actual: Any, chance: Any) -> float:
    return float(metrics.log_loss(actual, chance.clip(1e-15, 1 - 1e-15), labels=[False, True]))


def _curves(metrics: Any, numpy: Any, actual: Any, chance: Any) -> dict[str, Any]:
    if len(set(actual.tolist())) < 2:
        return {}
    wrong, right, _ = metrics.roc_curve(actual, chance)
    at = numpy.linspace(0, 1, CORNERS + 1)
    order = numpy.argsort(chance, kind="stable")
    bins = [part for part in numpy.array_split(order, BINS) if len(part)]
    calibration = [(float(chance[part].mean()), float(actual[part].mean())) for part in bins]
    return {
        "roc": list(zip(at.tolist(), numpy.interp(at, wrong, right).tolist(), strict=True)),
        "calibration": calibration,
    }


def _confusion(metrics: Any, actual: Any, said: Any, names: list[str], labels: list[Any]) -> dict[str, Any]:
    return {"names": names, "counts": metrics.confusion_matrix(actual, said, labels=labels).tolist()}


def _multiclass(answer: Answer, raw: Raw, truth: list[int]) -> Found:
    metrics, numpy = load("sklearn.metrics"), load("numpy")
    places = {each: place for place, each in enumerate(answer.classes)}
    said = [places.get(label, -1) for label in raw.labels]  # type: ignore[call-overload]
    figures = {
        "accuracy": metrics.accuracy_score(truth, said),
        "balanced_accuracy": metrics.recall_score(truth, said, average="macro", zero_division=0.0),
        "f1_macro": metrics.f1_score(truth, said, average="macro", zero_division=0.0),
    }
    if raw.probabilities is not None:
        chances = numpy.array(raw.probabilities).clip(1e-15, 1)
        chances /= chances.sum(axis=1, keepdims=True)
        figures["log_loss"] = metrics.log_loss(truth, chances, labels=list(range(len(answer.classes))))
    names = [str(each) for each in answer.classes]
    return figures, {"confusion": _confusion(metrics, truth, said, names, list(range(len(names))))}


def _regression(answer: Answer, raw: Raw, truth: list[float]) -> Found:
    metrics, numpy = load("sklearn.metrics"), load("numpy")
    said, actual = numpy.array(raw.labels, float), numpy.array(truth, float)
    figures = {
        "mean_absolute_error": metrics.mean_absolute_error(actual, said),
        "root_mean_squared_error": metrics.root_mean_squared_error(actual, said),
        "r2": metrics.r2_score(actual, said),
    }
    order = numpy.argsort(said, kind="stable")
    bins = [part for part in numpy.array_split(order, BINS) if len(part)]
    spread = [
        (float(said[part].mean()), *(float(each) for each in numpy.quantile(actual[part], [0.1, 0.5, 0.9])))
        for part in bins
    ]
    return figures, {"predicted": spread}


_FOR: Final[Mapping[str, Any]] = {"binary": _binary, "multiclass": _multiclass, "regression": _regression}
