"""The card's plots: sums over rows as SVG, the same bytes at every packing.

curves, distributions --*matplotlib*--> quality.svg, fields.svg
"""

import io
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

from ketch.card import Facts
from ketch.extras import load
from ketch.schema.sample import QUANTILES

STYLE: Final = {
    "svg.hashsalt": "ketch",  # names of shapes depend on it instead of the clock
    "svg.fonttype": "none",  # letters stay letters, in whatever font the reader has
    "font.size": 7,
    "axes.titlesize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
COLOUR: Final = "#3465a4"
FAINT: Final = "#b0b0b0"
ACROSS: Final = 4  # distributions in a row
MOST_FIELDS: Final = 24
MOST_BARS: Final = 8
MOST_CLASSES: Final = 20
LETTERS: Final = 14  # of a category's name


def draw(facts: Facts) -> dict[str, bytes]:
    """Draw what is known: quality, and the distributions of the columns."""
    with load("matplotlib").rc_context(STYLE):
        found = {}
        curves = {name: value for name, value in facts.measured.curves.items() if _drawable(name, value)}
        if curves:
            found["quality.svg"] = _quality(curves)
        fields = {name: each for name, each in facts.profile.items() if "quantiles" in each or "counts" in each}
        if fields:
            found["fields.svg"] = _fields(dict(list(fields.items())[:MOST_FIELDS]))
    return found


def _drawable(name: str, value: Any) -> bool:
    return name != "confusion" or len(value["names"]) <= MOST_CLASSES


def _figure(wide: float, high: float) -> Any:
    return load("matplotlib.figure").Figure(figsize=(wide, high))


def _bytes(figure: Any) -> bytes:
    out = io.BytesIO()
    canvas = load("matplotlib.backends.backend_svg").FigureCanvasSVG(figure)
    canvas.print_svg(out, metadata={"Date": None, "Creator": None})
    return out.getvalue()


def _quality(curves: Mapping[str, Any]) -> bytes:
    figure = _figure(2.8 * len(curves), 2.8)
    for place, (name, value) in enumerate(sorted(curves.items())):
        _PLOTS[name](figure.add_subplot(1, len(curves), place + 1), value)
    figure.subplots_adjust(left=0.17 / len(curves), right=0.98, bottom=0.16, top=0.9, wspace=0.4)
    return _bytes(figure)


def _roc(axes: Any, points: Sequence[tuple[float, float]]) -> None:
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=0.8)
    axes.plot([x for x, _ in points], [y for _, y in points], color=COLOUR)
    axes.set(title="ROC", xlabel="false alarms", ylabel="found", xlim=(0, 1), ylim=(0, 1))


def _calibration(axes: Any, points: Sequence[tuple[float, float]]) -> None:
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=0.8)
    axes.plot([x for x, _ in points], [y for _, y in points], color=COLOUR, marker="o", markersize=3)
    axes.set(title="Calibration", xlabel="said, tenths of rows", ylabel="came true", xlim=(0, 1), ylim=(0, 1))


def _confusion(axes: Any, found: Mapping[str, Any]) -> None:
    counts, names = found["counts"], [_short(name) for name in found["names"]]
    axes.imshow(counts, cmap="Blues")
    most = max(map(max, counts)) or 1
    for row, values in enumerate(counts):
        for column, count in enumerate(values):
            colour = "white" if count > most / 2 else "black"
            axes.text(column, row, f"{count:,}", ha="center", va="center", color=colour)
    axes.set_xticks(range(len(names)), names, rotation=90 if len(names) > 4 else 0)
    axes.set_yticks(range(len(names)), names)
    axes.set(title="Confusion", xlabel="said", ylabel="true")


def _predicted(axes: Any, points: Sequence[Sequence[float]]) -> None:
    said = [point[0] for point in points]
    axes.plot([min(said), max(said)], [min(said), max(said)], color=FAINT, linewidth=0.8)
    axes.fill_between(said, [p[1] for p in points], [p[3] for p in points], color=COLOUR, alpha=0.25, linewidth=0)
    axes.plot(said, [p[2] for p in points], color=COLOUR, marker="o", markersize=3)
    axes.set(title="Said and true, tenths of rows", xlabel="said", ylabel="true: middle, and 8 of 10")


_PLOTS: Final[dict[str, Callable[[Any, Any], None]]] = {
    "calibration": _calibration,
    "confusion": _confusion,
    "predicted": _predicted,
    "roc": _roc,
}


def _fields(profile: Mapping[str, Mapping[str, Any]]) -> bytes:
    down = math.ceil(len(profile) / ACROSS)
    figure = _figure(8, 1.5 * down + 0.3)
    for place, (name, each) in enumerate(profile.items()):
        axes = figure.add_subplot(down, ACROSS, place + 1)
        axes.set_title(_short(name))
        axes.set_yticks([])
        if "quantiles" in each:
            _density(axes, each["quantiles"])
        else:
            _bars(axes, each["counts"])
    figure.subplots_adjust(left=0.02, right=0.98, bottom=0.35 / (1.5 * down + 0.3), top=1 - 0.25 / (1.5 * down + 0.3))
    figure.subplots_adjust(hspace=1.0, wspace=0.15)
    return _bytes(figure)


def _density(axes: Any, quantiles: Sequence[float]) -> None:
    """Draw boxes between quantiles, as high as they are dense; a single value that many rows have is a thin one."""
    inner, places = quantiles[1:-1], QUANTILES[1:-1]  # the ends may be a single record's
    thin = (inner[-1] - inner[0]) / 50 or 1.0
    widths = [max(high - low, thin) for low, high in pairwise(inner)]
    heights = [(high - low) / width for (low, high), width in zip(pairwise(places), widths, strict=True)]
    axes.bar(inner[:-1], heights, width=widths, align="edge", color=COLOUR, linewidth=0)
    axes.locator_params(axis="x", nbins=4)


def _bars(axes: Any, counts: Mapping[str, int]) -> None:
    first = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:MOST_BARS]
    axes.bar(range(len(first)), [count for _, count in first], color=COLOUR)
    axes.set_xticks(range(len(first)), [_short(name) for name, _ in first], rotation=20 if len(first) > 2 else 0)


def _short(text: str) -> str:
    plain = text.replace("$", "\\$")  # a pair of them would be set as mathematics
    return plain if len(plain) <= LETTERS else plain[: LETTERS - 1] + "…"
