"""Plain functions that answer rows, as a user would write them; a module without anything that must not travel."""

from typing import Any, Literal, NotRequired, TypedDict


class Customer(TypedDict):
    months: int
    fee: float
    plan: Literal["basic", "plus"]
    note: NotRequired[str]


def likely(rows: list[Customer]) -> list[dict[str, float]]:
    """Answer as a model of two numbers and a plan would."""
    made = []
    for row in rows:
        score = min(row["fee"] / 200 + (0.2 if row["plan"] == "plus" else 0.0), 1.0)
        made.append({"probability": score / (1 + row["months"])})
    return made


def by_label(rows: Any) -> Any:
    return ["high" if row["fee"] > 23 else "low" for row in rows]


def by_class(rows: Any) -> Any:
    return [{"probabilities": {"b": 0.25, "a": 0.5, "c": 0.25}} for _ in rows]


def by_flag(rows: Any) -> Any:
    return [row["fee"] > 23 for row in rows]


def by_number(rows: Any) -> Any:
    import numpy as np

    return np.array([row["fee"] for row in rows]) * 2


def by_score(rows: Any) -> Any:
    return [row["fee"] / 100 for row in rows]


def by_outlier(rows: Any) -> Any:
    return [row["fee"] > 25 for row in rows]


by_score.task = "binary"  # type: ignore[attr-defined]
by_outlier.task = "outlier"  # type: ignore[attr-defined]
