"""The charts of the pages. What they show stands beside them in words, so readers of screens are not told twice."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import altair as alt
import pandas as pd
import streamlit as st

BINS: Final = 10
MOST_BARS: Final = 40
COLOURS: Final = ("#1d5fbf", "#c2571a")


def draw(chart: Any) -> None:
    """Show a chart as wide as there is room."""
    st.altair_chart(chart, width="stretch")


def bars(labels: Sequence[str], values: Sequence[float], *, most: float | None = None) -> None:
    """Show a bar for each label; `most` is where the scale ends."""
    frame = pd.DataFrame({"label": list(labels)[:MOST_BARS], "value": list(values)[:MOST_BARS]})
    scale = alt.Scale(domain=[0, most]) if most is not None else alt.Scale()
    label = alt.Y("label:N", sort=None, title=None, axis=alt.Axis(labelLimit=180))
    drawn = alt.Chart(frame).mark_bar(color=COLOURS[0], aria=False)
    draw(drawn.encode(x=alt.X("value:Q", scale=scale, title=None), y=label, tooltip=["label", "value"]))


def beside(labels: Sequence[str], groups: Mapping[str, Sequence[float]]) -> None:
    """Show a bar of each group for each label."""
    lines = [(label, name, values[at]) for name, values in groups.items() for at, label in enumerate(labels)]
    frame = pd.DataFrame(lines[: 2 * MOST_BARS], columns=["label", "group", "value"])
    label = alt.Y("label:N", sort=None, title=None, axis=alt.Axis(labelLimit=180))
    drawn = alt.Chart(frame).mark_bar(aria=False)
    draw(drawn.encode(x=alt.X("value:Q", title=None), y=label, yOffset="group:N", color=_colour(groups)))


def lines(across: Sequence[Any], groups: Mapping[str, Sequence[float]], *, kind: str = "Q") -> None:
    """Show a line for each group, over numbers (Q) or times (T)."""
    listed = [(place, name, values[at]) for name, values in groups.items() for at, place in enumerate(across)]
    frame = pd.DataFrame(listed, columns=["across", "group", "value"])
    x, y = alt.X(f"across:{kind}", title=None), alt.Y("value:Q", title=None)
    drawn = alt.Chart(frame).mark_line(aria=False, point=alt.OverlayMarkDef(aria=False))
    draw(drawn.encode(x=x, y=y, color=_colour(groups)) if len(groups) > 1 else drawn.encode(x=x, y=y))


def _colour(groups: Mapping[str, object]) -> Any:
    scale = alt.Scale(domain=list(groups), range=list(COLOURS))
    return alt.Color("group:N", scale=scale, legend=alt.Legend(orient="top", title=None))


def spread(values: Sequence[Any], words: Mapping[str, str]) -> None:
    """Show how often each answer was given, or how numbers are spread."""
    column = pd.Series(list(values))
    if column.dtype.kind == "f" and column.nunique() > BINS:
        counts = pd.cut(column, BINS).value_counts(sort=False)
        labels = [f"{each.left:.4g} … {each.right:.4g}" for each in counts.index]
    else:
        said = [words["yes" if value else "no"] if isinstance(value, bool) else str(value) for value in values]
        counts = pd.Series(said).value_counts()
        labels = list(counts.index)
    bars(labels, counts.tolist())
