"""Every estimator of scikit-learn that fits on a small table, packed; and the table of what is compiled.

`python -m tests.catalogue` writes docs/estimators.md.
"""

import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import sklearn
from sklearn.experimental import enable_halving_search_cv, enable_iterative_imputer  # noqa: F401 (they are listed then)
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.utils import all_estimators
from sklearn.utils._test_common.instance_generator import _construct_instances

from ketch import bundle
from ketch.errors import KetchError
from ketch.pack import Options, compose, read_table

ROWS = 120
PAGE = Path(__file__).parent.parent / "docs" / "estimators.md"
KINDS = ("classifier", "regressor", "clusterer", "outlier detector", "transformer", "other")
SILENT = "answers no new rows"


@dataclass(frozen=True)
class Entry:
    """One estimator: what kind it is, the fitted model if it fits, and the rows it was fitted on."""

    name: str
    kind: str
    model: Any = None
    rows: Any = None
    why: str = ""


@dataclass(frozen=True)
class Packing:
    """What packing an estimator came to."""

    entry: Entry
    serves: str  # "compiled", "original" or "" where it cannot be packed
    reason: str
    worst: float
    seen: int
    data: bytes = b""


def table() -> pd.DataFrame:
    source = np.random.default_rng(7)
    columns = {f"n{place}": source.gamma(2.0 + place, 1.0, ROWS).round(3) for place in range(4)}
    return pd.DataFrame({**columns, "k": source.integers(0, 4, ROWS).astype(float)})


def answers(rows: pd.DataFrame) -> dict[str, Any]:
    total = rows.sum(axis=1) + np.random.default_rng(8).normal(0, 1, ROWS)
    classes = (total > total.median()).astype(int).to_numpy()
    return {
        "classes": classes,
        "numbers": (1 + total.abs()).to_numpy(),
        "several classes": np.c_[classes, (rows["n0"] > 2).astype(int)],
        "several numbers": np.c_[total, rows["n1"] * 2],
    }


def texts() -> list[str]:
    return ["cheap money now", "lunch at noon", "win a prize now", "see you at noon"] * (ROWS // 4)


def dicts() -> list[dict[str, Any]]:
    return [{"plan": "ab"[place % 2], "age": float(place)} for place in range(ROWS)]


def words() -> pd.DataFrame:
    return pd.DataFrame({"plan": ["a", "b", "c", "b"] * (ROWS // 4), "town": ["x", "y"] * (ROWS // 2)})


def kind_of(estimator: Any) -> str:
    base = sklearn.base
    for name, test in zip(
        KINDS, (base.is_classifier, base.is_regressor, base.is_clusterer, base.is_outlier_detector), strict=False
    ):
        if test(estimator):
            return name
    return "transformer" if hasattr(estimator, "transform") else "other"


def attempts(kind: str) -> Iterator[tuple[Any, Any]]:
    rows = table()
    targets = answers(rows)
    single, several = ("numbers", "several numbers") if kind == "regressor" else ("classes", "several classes")
    yield rows, targets[single]
    yield rows, targets[several]
    yield rows[["n0"]], targets[single]
    yield words(), targets[single]
    yield texts(), targets[single]
    yield dicts(), targets[single]


def fitted(name: str, estimator: Any) -> Entry:
    kind, why = kind_of(estimator), ""
    model = make_pipeline(estimator, LogisticRegression()) if kind == "transformer" else estimator
    for rows, target in attempts(kind):
        try:
            model.fit(rows, target)
            return Entry(
                name,
                kind,
                model if hasattr(model, "predict") else None,
                rows,
                "" if hasattr(model, "predict") else SILENT,
            )
        except Exception as error:
            why = why or f"{type(error).__name__}: {str(error).splitlines()[0][:80]}"
    return Entry(name, kind, why=why if hasattr(estimator, "fit_transform") or kind != "transformer" else SILENT)


def entries(only: str = "") -> Iterator[Entry]:
    for name, kind in all_estimators():
        if only and only not in name:
            continue
        try:
            estimator = next(iter(_construct_instances(kind)))
        except Exception as error:
            yield Entry(name, "other", why=f"{type(error).__name__}: {str(error).splitlines()[0][:80]}")
            continue
        yield fitted(name, estimator)


def packed(entry: Entry, home: Path) -> Packing:
    if entry.model is None:
        return Packing(entry, "", entry.why, 0.0, 0)
    data = read_table(entry.rows.assign(y=0.0)) if isinstance(entry.rows, pd.DataFrame) else None
    try:
        made = compose(entry.model, data, Options(target="y"), home=home)
    except KetchError as error:
        return Packing(entry, "", error.message, 0.0, 0)
    found = bundle.read(made.data, entry.name).manifest
    return Packing(entry, found.serves, found.parity.reason, found.parity.worst, found.parity.rows, made.data)


def catalogue(home: Path, only: str = "") -> list[Packing]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [packed(entry, home) for entry in entries(only)]


def share(found: list[Packing], kinds: tuple[str, ...]) -> tuple[int, int]:
    chosen = [each for each in found if each.entry.kind in kinds and each.entry.model is not None]
    return sum(each.serves == "compiled" for each in chosen), len(chosen)


def page(found: list[Packing]) -> str:
    lines = [
        "# Which estimators are compiled",
        "",
        "Every estimator of scikit-learn that fits on a small table is packed with its default settings, and",
        "transformers with a logistic regression behind them. A compiled form serves only where it agreed with the",
        f"original. This page is generated by `python -m tests.catalogue` with scikit-learn {sklearn.__version__}.",
        "",
        "| kind | fit | served compiled |",
        "|---|---|---|",
    ]
    for kind in KINDS:
        compiled, fit = share(found, (kind,))
        if fit:
            lines.append(f"| {kind} | {fit} | {compiled} ({compiled / fit:.0%}) |")
    compiled, fit = share(found, KINDS)
    lines += [f"| all | {fit} | {compiled} ({compiled / fit:.0%}) |", ""]
    lines += ["| estimator | kind | serves | why not compiled |", "|---|---|---|---|"]
    for each in sorted(found, key=lambda each: (KINDS.index(each.entry.kind), each.entry.name)):
        if each.entry.model is not None:
            lines.append(f"| {each.entry.name} | {each.entry.kind} | {each.serves or 'not packed'} | {each.reason} |")
    unfit = Counter(each.entry.why == SILENT for each in found if each.entry.model is None)
    silent = sorted(each.entry.name for each in found if each.entry.why == SILENT)
    lines += ["", f"{unfit[True]} more fit but answer no new rows: {', '.join(silent)}.", ""]
    others = [each for each in found if each.entry.model is None and each.entry.why != SILENT]
    lines += ["These do not fit on a table as they come:", ""]
    lines += [f"- {each.entry.name}: {each.entry.why}" for each in others]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        listed = catalogue(Path(folder), *sys.argv[1:])
    if len(sys.argv) > 1:
        for each in listed:
            print(each.entry.name, each.entry.kind, each.serves or "-", each.reason, each.worst, each.seen)
    else:
        PAGE.write_text(page(listed), "utf-8")
