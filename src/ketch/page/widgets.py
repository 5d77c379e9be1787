"""From a contract to a form: for each field the input that suits it, what it starts with, and rows to try.

bundle --*form*--> Form
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import msgspec

from ketch.bundle import Bundle
from ketch.page import describe, examples, whole
from ketch.schema import Field, Scalar
from ketch.schema.sample import QUANTILES

Kind = Literal["choice", "yesno", "slider", "number", "text", "date", "datetime", "vector"]
KINDS: Final[Mapping[str, Kind]] = {
    "category": "choice",
    "boolean": "yesno",
    "text": "text",
    "date": "date",
    "datetime": "datetime",
    "vector": "vector",
}
MEDIAN: Final = QUANTILES.index(0.5)
TICKS: Final = 200  # steps of a slider from one end to the other
MOST_EXAMPLES: Final = 6


class Widget(msgspec.Struct, frozen=True):
    """One input of a form; `start` is what it holds at first, None where it may stay empty."""

    name: str
    label: str
    kind: Kind
    required: bool
    whole: bool
    choices: tuple[Scalar, ...]
    minimum: float | None
    maximum: float | None
    step: float
    unit: str
    help: str
    start: Any


class Form(msgspec.Struct, frozen=True):
    """All inputs of a model in the order of its contract, and rows that fill them."""

    widgets: tuple[Widget, ...]
    examples: tuple[Mapping[str, Any], ...]

    @property
    def start(self) -> dict[str, Any]:
        """Give the typical row."""
        return {each.name: each.start for each in self.widgets if each.start is not None}


def form(bundle: Bundle) -> Form:
    """Make the form of a model: a typical row to begin with, and rows to try at a click."""
    fields = bundle.contract.fields
    golden = bundle.golden.rows[0] if bundle.golden.rows else {}
    rows = [each.row for each in examples(bundle, MOST_EXAMPLES + 1)]
    widgets = tuple(_widget(each, bundle.profile.get(each.name), golden.get(each.name)) for each in fields)
    typical = {each.name: each.start for each in widgets if each.start is not None}
    return Form(widgets, tuple(row for row in rows if row != typical)[:MOST_EXAMPLES])


def told(bundle: Bundle) -> dict[str, Any]:
    """Give what a page in the browser needs to make the form, hold rows against the contract and show an answer."""
    made = form(bundle)
    return {
        "name": bundle.manifest.name,
        "sha256": bundle.sha256,
        "fields": [msgspec.structs.asdict(each) for each in bundle.contract.fields],
        "answer": whole(bundle.contract.answer),
        "widgets": made.widgets,
        "examples": made.examples,
        "start": made.start,
    }


def _widget(each: Field, profile: object, golden: object) -> Widget:
    spread: Mapping[str, Any] = profile if isinstance(profile, dict) else {}
    low, high = each.minimum, each.maximum
    ranged = low is not None and high is not None and low < high
    kind: Kind = KINDS.get(each.type) or ("slider" if ranged else "number")
    whole = each.type == "integer"
    return Widget(
        name=each.name,
        label=each.label or each.name,
        kind=kind,
        required=each.required,
        whole=whole,
        choices=each.categories,
        minimum=low,
        maximum=high,
        step=_step(low, high, whole=whole),
        unit=each.unit,
        help=" · ".join(part for part in (each.description, describe(each)) if part),
        start=_start(each, spread, golden),
    )


def _step(low: float | None, high: float | None, *, whole: bool) -> float:
    """Choose a round step that crosses a range in at most some hundred of them."""
    if whole:
        return 1.0
    if low is None or high is None or not high > low:
        return 0.01
    found = 1e-12
    while (high - low) / found > TICKS * 5:
        found *= 10
    return float(f"{found:.0e}")


def _start(each: Field, spread: Mapping[str, Any], golden: object) -> object:
    """Give what is usual in a field: the commonest category, the median; else what an example has."""
    counts: Mapping[str, int] = spread.get("counts") or {}
    known: Sequence[Scalar] = (False, True) if each.type == "boolean" else each.categories
    if counts and known:
        return max(known, key=lambda value: counts.get(str(value), 0))
    quantiles: Sequence[float] = spread.get("quantiles") or ()
    if len(quantiles) == len(QUANTILES) and each.type in {"number", "integer"}:
        return round(quantiles[MEDIAN]) if each.type == "integer" else float(f"{quantiles[MEDIAN]:.6g}")
    return each.example if each.example is not None else golden
