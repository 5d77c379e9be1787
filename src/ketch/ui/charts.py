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


def waterfall(steps: Sequence[tuple[str, float, float, str]], scale: str) -> None:
    """Show steps that add up: label, where each begins and ends, and whether it goes up (+) or down (-)."""
    frame = pd.DataFrame(list(steps), columns=["step", "from", "to", "sign"])
    frame["by"] = frame["to"] - frame["from"]
    colours = alt.Scale(domain=["+", "-", ""], range=[COLOURS[1], COLOURS[0], "#7a8496"])
    colour = alt.Color("sign:N", scale=colours, legend=None)
    order = [each[0] for each in steps]  # said, since layers are otherwise sorted together
    base = alt.Chart(frame).encode(y=alt.Y("step:N", sort=order, title=None, axis=alt.Axis(labelLimit=160)))
    across = alt.X("from:Q", title=scale, scale=alt.Scale(zero=False))
    block = base.mark_bar(aria=False).encode(x=across, x2="to:Q", color=colour, tooltip=["step", "by", "to"])
    ends = base.mark_tick(thickness=3, aria=False).encode(x=alt.X("to:Q", scale=alt.Scale(zero=False)), color=colour)
    draw(block + ends)


def curve(across: Sequence[object], scores: Sequence[float], told: str, *, own: object = None) -> None:
    """Show scores, of which is told what they are, over numbers as a line that has a mark at the row, else as bars."""
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in across)
    frame = pd.DataFrame({"value": list(across), "answer": list(scores)})
    scale = alt.Scale(nice=False) if numeric else alt.Scale()
    x: Any = alt.X("value:Q" if numeric else "value:N", sort=None, title=None, scale=scale)
    height = alt.Scale(zero=not numeric)  # a line is looked at for how it moves
    chart = alt.Chart(frame)
    marked = chart.mark_line(aria=False) if numeric else chart.mark_bar(aria=False)
    drawn = marked.encode(x=x, y=alt.Y("answer:Q", title=told, scale=height), tooltip=["value", "answer"])
    if not numeric or own is None:
        draw(drawn)
        return
    rule = alt.Chart(pd.DataFrame({"value": [own]})).mark_rule(strokeDash=[4, 4], aria=False)
    draw(drawn + rule.encode(x="value:Q"))
