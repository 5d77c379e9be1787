"""The model card: what is known of a model, for the people who will rely on it.

facts (+ what a person wrote) --*write*--> CARD.md, plots

Nothing of a single record stands in it: no rows, no values of texts; only what the bundle holds anyway, and sums over
rows.
"""

import importlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Final

import msgspec

from ketch import extras
from ketch.bundle import Manifest
from ketch.errors import InputError, NotInstalled
from ketch.schema import Field, span

SIBLINGS: Final = {"measure": "ketch.card.measure", "plots": "ketch.card.plots"}
MEMBER: Final = "CARD.md"
FOLDER: Final = "card/"
INTENDED: Final = "Intended use"
WRITTEN: Final = ("Data", "Measured", "Contract", "Limits", "Provenance")  # the sections written here, in their order
SHOWN: Final = 8  # categories of a field that are listed
TASKS: Final = {
    "binary": "tabular-classification",
    "multiclass": "tabular-classification",
    "regression": "tabular-regression",
}
ASK: Final = """\
<!-- Yours to fill in; it stays when you pack with --card CARD.md. -->

- What is it for, and who uses it?
- What must it not be used for?
- Who is asked when it goes wrong?"""


@dataclass(frozen=True)
class Measured:
    """How well a model did on rows whose truth is known: `why` they tell what, or `reason` for there being none."""

    rows: int = 0
    left_out: int = 0
    why: str = ""
    reason: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)
    curves: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Facts:
    """What the card tells: the manifest, the contract's fields, distributions, measurements and figures as given."""

    manifest: Manifest
    fields: Sequence[Field]
    profile: Mapping[str, Any]
    measured: Measured
    given: Mapping[str, float] = field(default_factory=dict)


def sibling(name: str) -> ModuleType:
    """Import a module of this room by its short name."""
    return importlib.import_module(SIBLINGS[name])


def write(facts: Facts, edited: str = "") -> dict[str, bytes]:
    """Write the card and its plots, as members of a bundle; what a person wrote in an `edited` one is kept."""
    plots = _plots(facts)
    front, sections = parts(edited)
    lines = ["---", *_front(facts, front), "---", "", f"# {facts.manifest.name}", "", _summary(facts), ""]
    made = {
        INTENDED: sections.pop(INTENDED, "").strip() or ASK,
        "Data": _data(facts, FOLDER + "fields.svg" in plots),
        "Measured": _measured(facts, sorted(plots)),
        "Contract": _contract(facts),
        "Limits": _limits(facts),
        "Provenance": _provenance(facts),
    }
    own = {name: text for name, text in sections.items() if name not in WRITTEN}
    for name, text in {**made, **own}.items():
        lines += [f"## {name}", "", text.strip(), ""]
    return {MEMBER: "\n".join(lines).encode(), **plots}


def _plots(facts: Facts) -> dict[str, bytes]:
    if not facts.measured.curves and not facts.profile:
        return {}
    try:
        extras.load("matplotlib")
    except NotInstalled:
        return {}
    drawn: dict[str, bytes] = sibling("plots").draw(facts)
    return {FOLDER + name: data for name, data in drawn.items()}


# ---- what a person wrote ---------------------------------------------------------------------------


def parts(text: str) -> tuple[dict[str, str], dict[str, str]]:
    """Take an edited card apart: front matter by its key, sections by their heading."""
    found = re.match(r"---\r?\n(.*?\r?\n)---\r?\n", text, re.DOTALL)
    front = re.split(r"^(?=[\w-]+:)", found[1], flags=re.MULTILINE) if found else []
    pieces = re.split(r"^## +(.*?) *\r?$", text[found.end() :] if found else text, flags=re.MULTILINE)
    return (
        {key: block.strip("\r\n") for block in front if (key := block.partition(":")[0].strip())},
        dict(zip(pieces[1::2], pieces[2::2], strict=True)),
    )


def figures_of(data: bytes, name: str) -> dict[str, float]:
    """Read figures that a person measured: JSON with a number to each name, or groups of such.

    Raises:
        InputError: it is something else.
    """
    try:
        found = msgspec.json.decode(data, type=dict[str, float | dict[str, float]])
    except msgspec.DecodeError as error:
        raise InputError(
            f"{name} is no list of figures: {error}", hint='Write it as {"accuracy": 0.81, "roc_auc": 0.87}.'
        ) from None
    flat: dict[str, float] = {}
    for key, value in found.items():
        flat |= (
            {f"{key}.{inner}": number for inner, number in value.items()} if isinstance(value, dict) else {key: value}
        )
    return flat


# ---- the sections ----------------------------------------------------------------------------------


def _front(facts: Facts, kept: Mapping[str, str]) -> Iterator[str]:
    """Write the metadata that model hubs read (YAML, of which JSON is a part)."""
    made: dict[str, object] = {"library_name": _library(facts), "tags": ["ketch", "tabular"]}
    task = TASKS.get(facts.manifest.answer.task)
    if task:
        made["pipeline_tag"] = task
    figures = {**facts.measured.figures, **facts.given}
    if task and figures:
        metrics = [{"type": name, "value": _round(value)} for name, value in figures.items()]
        told = facts.measured.why or "as given"
        result = {"task": {"type": task}, "dataset": {"type": "tabular", "name": told}, "metrics": metrics}
        made["model-index"] = [{"name": facts.manifest.name, "results": [result]}]
    for key, value in made.items():
        yield f"{key}: {msgspec.json.encode(value).decode()}"
    yield from (block for key, block in kept.items() if key not in {*made, "model-index", "pipeline_tag"})


def _library(facts: Facts) -> str:
    return {"sklearn": "scikit-learn"}.get(facts.manifest.adapter, facts.manifest.adapter)


def _round(value: float) -> float:
    return float(f"{value:.4g}")


def _summary(facts: Facts) -> str:
    answer = facts.manifest.answer
    kind = {"binary": "yes or no", "multiclass": "one of several classes", "regression": "a number"}.get(
        answer.task, answer.task
    )
    positive = f", with the probability of {_plain(answer.positive)}" if answer.values == "probability" else ""
    positive = positive if answer.positive is not None else ""
    at = f", from {answer.threshold:g}" if answer.threshold is not None else ""
    return f"Answers **{_cell(answer.target)}** ({kind}{positive}{at}) from {len(facts.fields)} fields."


def _data(facts: Facts, plotted: bool) -> str:
    if not facts.profile:
        return "No data was given when this was packed (`--data`), so nothing is known of it here."
    rows = max(int(each["rows"]) for each in facts.profile.values())
    told = f"{rows:,} rows were given when this was packed. What the bundle holds of them:"
    table = ["| column | missing | most are |", "|---|---|---|"]
    table += [f"| {_cell(name)} | {_missing(each)} | {_typical(each)} |" for name, each in facts.profile.items()]
    picture = ["", "![Distributions of the columns](card/fields.svg)"] if plotted else []
    return "\n".join([told, "", *table, *picture])


def _missing(profile: Mapping[str, Any]) -> str:
    return f"{profile['missing'] / profile['rows']:.1%}" if profile["missing"] else "none"


def _typical(profile: Mapping[str, Any]) -> str:
    if "quantiles" in profile:
        low, middle, high = (profile["quantiles"][place] for place in (3, 5, 7))
        return f"{low:.4g} to {high:.4g}, half of them up to {middle:.4g}"
    counts = profile.get("counts")
    if not counts:
        return "different from row to row"
    seen = sum(counts.values())
    first = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:3]
    return ", ".join(f"{_cell(name)} ({count / seen:.0%})" for name, count in first)


def _measured(facts: Facts, plots: Sequence[str]) -> str:
    found = facts.measured
    lines = []
    if facts.given:
        lines += ["Given by whoever packed the model, not measured here:", "", *_table(facts.given), ""]
    if found.figures:
        left = f" {found.left_out:,} more could not be used: the contract refuses them." if found.left_out else ""
        lines += [f"Measured on {found.rows:,} rows {found.why}.{left}", "", *_table(found.figures), ""]
    elif found.reason or not lines:
        lines += [found.reason or "Nothing was measured.", ""]
    pictures = [each for each in plots if not each.endswith("fields.svg")]
    lines += [f"![{each.removeprefix(FOLDER).removesuffix('.svg')}]({each})" for each in pictures]
    if found.curves and not pictures:
        lines.append("There are no plots: they need `pip install 'ketch[card]'`.")
    return "\n".join(lines)


def _table(figures: Mapping[str, float]) -> list[str]:
    rows = [f"| {_cell(name.replace('_', ' '))} | {value:.4g} |" for name, value in figures.items()]
    return ["| measure | value |", "|---|---|", *rows]


def _contract(facts: Facts) -> str:
    table = ["| field | type | values | missing | meaning |", "|---|---|---|---|---|"]
    for each in facts.fields:
        missing = "refused" if each.required else "taken"
        meaning = " ".join(part for part in (each.label, each.description) if part)
        table.append(f"| {_cell(each.name)} | {each.type} | {_values(each)} | {missing} | {_cell(meaning)} |")
    return "\n".join(table)


def _values(each: Field) -> str:
    if each.type != "category":
        return span(each) or _cell(each.unit)
    shown = ", ".join(_cell(str(value)) for value in each.categories[:SHOWN])
    return shown + (f", … ({len(each.categories)} in all)" if len(each.categories) > SHOWN else "")


def _limits(facts: Facts) -> str:
    lines = []
    ranged = any(each.minimum is not None or each.maximum is not None for each in facts.fields)
    if ranged:
        lines.append("- Numbers outside the ranges above are answered and flagged: the model has not seen such.")
    for how, told in (("refuse", "refused"), ("flag", "answered and flagged")):
        names = [each.name for each in facts.fields if each.type == "category" and each.unknown == how]
        if names:
            lines.append(f"- A category that is not listed is {told}: {_listed(names)}.")
    if not facts.measured.figures:
        lines.append("- How right its answers are was not measured when it was packed.")
    lines.append("- It says nothing about why an answer is as it is, nor what would happen if something were changed.")
    return "\n".join(lines)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(_cell(each) for each in names[:SHOWN]) + (" and others" if len(names) > SHOWN else "")


def _provenance(facts: Facts) -> str:
    manifest = facts.manifest
    told = {**manifest.origin, "packed with": ", ".join(f"{name} {value}" for name, value in _versions(manifest))}
    parity = manifest.parity
    if manifest.serves == "compiled":
        told["answers come from"] = (
            f"a compiled form, which agreed with the original on {parity.rows:,} rows (largest difference "
            f"{parity.worst:.1g}, {manifest.tolerance:g} is allowed)"
        )
    else:
        told["answers come from"] = "the original" + (f", not compiled: {parity.reason}" if parity.reason else "")
    return "\n".join(f"- {name}: {_cell(value)}" for name, value in told.items())


def _versions(manifest: Manifest) -> list[tuple[str, str]]:
    first = ("ketch", "python", "scikit-learn", "numpy")
    return [(name, manifest.versions[name]) for name in first if name in manifest.versions]


def _plain(value: object) -> str:
    return _cell(str(value))


def _cell(text: str) -> str:
    """Write a text of the data's so that it stays text: in one line, and no markup."""
    return re.sub(r"([\\|`*_<>\[\]])", r"\\\1", " ".join(text.split()))
