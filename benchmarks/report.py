"""docs/benchmarks.md and its plot, from a run."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks import peers
from benchmarks.figures import (
    HUNDRED,
    ONE,
    SIXTEEN,
    Load,
    Pick,
    Requirement,
    Run,
    Spread,
    Turn,
    each_round,
    rate,
    ratios,
)
from benchmarks.requirements import requirements
from benchmarks.servers import LIMIT, MODELS, Contestant, contestants, ketch

DOCS: Final = Path(__file__).parent.parent / "docs"
PLOT: Final = "benchmarks.svg"
ABOUT_LIMITS: Final = """Bare servers know one answer and look at nothing: how much of the distance to nginx is not
Ketch's own. Those with a compiled model answer rightly, row by row, with no limits, metrics, headers of their own,
checks or second route. uvloop + httptools is a protocol of forty lines and no server: it would fall to the first slow
or hostile client."""
ABOUT_RATE: Final = """Half of what the server answered at 16 connections a moment before, evenly spaced; nginx at the
same rate right after. A latency counts from when the request should have been sent: a stall is not hidden by load that
waits for it."""
TITLES: Final = {
    "": "",
    "linear": "Pipeline of OneHotEncoder, StandardScaler and LogisticRegression:",
    "forest": "The same with a forest of 100 trees, 12 deep:",
    "vectorizer": "DictVectorizer and LogisticRegression:",
}
COLOURS: Final = {
    "limit": "#9aa0a6",
    "ketch": "#1f6feb",
    "hand": "#d9822b",
    "peer": "#8a5cc2",
    "batching": "#b79ad9",
}


def write(run: Run) -> None:
    """Write the page and the plot."""
    plot(run, DOCS / PLOT)
    picture = f"![Requests a second at 16 connections]({PLOT})\n\n"
    (DOCS / "benchmarks.md").write_text(text(run, picture), "utf-8")
    print(f"written: docs/benchmarks.md, docs/{PLOT}")


def text(run: Run, picture: str = "") -> str:
    """Write the page."""
    parts = [
        *(head(run), "## What must hold", checked(run), "## One row", picture + single(run)),
        *("## What Python's HTTP costs", limits(run), "## A hundred rows", hundred(run)),
        *("## At half load", steady(run), "## Keys and the prediction log", guarded(run)),
        *("## Start and memory", started(run), "## How it is measured", method(run)),
    ]
    return "\n\n".join(part.rstrip() for part in parts if part) + "\n"


def head(run: Run) -> str:
    """Say what this is."""
    return f"""# Benchmarks

Ketch beside nginx, services written by hand, and other model servers: one worker, one core, {run.rounds} rounds in
which all take turns. Figures are medians over the rounds; ratios are taken within a round, with the smallest and
largest in brackets. `make bench` writes this page."""


def checked(run: Run) -> str:
    """Write what must hold beside what was found."""
    rows = [[each.what, _bound(each), _found(each), _verdict(each), each.note] for each in requirements(run)]
    return table(["", "must be", "is", "", ""], rows)


def _bound(each: Requirement) -> str:
    return f"{'≤' if each.most else '≥'} {each.bound:.3g}{each.unit}"


def _found(each: Requirement) -> str:
    return spread(each.found, each.unit) if each.found else "not measured"


def _verdict(each: Requirement) -> str:
    return {True: "met", False: "**missed**", None: ""}[each.met]


def single(run: Run) -> str:
    """Write the table for single rows, the fastest first within a model."""
    here = [
        each
        for each in contestants()
        if each.kind not in {"bare", "maintained"} and SIXTEEN in each.loads and not each.key
    ]
    parts = [_single_of(run, [each for each in here if each.kind == "limit"], "")]
    for model in ("linear", "forest", "vectorizer"):
        parts.append(_single_of(run, [each for each in here if each.model == model], model))
    return "\n\n".join(part for part in parts if part)


def _single_of(run: Run, those: Sequence[Contestant], model: str) -> str:
    rows = []
    for each in sorted(those, key=lambda each: -_middle(run, each.name, rate(SIXTEEN))):
        if (found := _load(run, each.name, SIXTEEN)) and (alone := _load(run, each.name, ONE)):
            share = Spread.of(ratios(run, each.name, [LIMIT], rate(SIXTEEN)))
            cells = [each.name.removesuffix(f", {model}"), *_cells(alone), *_cells(found)]
            rows.append([*cells, f"{found.user:.0f} + {found.system:.0f}", spread(share) if share else ""])
    heads = [f"{n}: {what}" for n in (1, 16) for what in ("req/s", "p50 ms", "p99 ms")]
    made = table([*("server", *heads), "CPU µs, user + kernel", "of nginx"], rows)
    return f"{TITLES[model]}\n\n{made}".strip() if rows else ""


def limits(run: Run) -> str:
    """Write what servers reach that do nothing else."""
    rows = []
    kinds = {"limit", "bare", "maintained"}
    names = [*(each.name for each in contestants() if each.kind in kinds), *map(ketch, MODELS)]
    for name in names:
        if found := _load(run, name, SIXTEEN):
            shares = [Spread.of(ratios(run, name, [LIMIT], rate(each))) for each in (ONE, SIXTEEN)]
            cpu = f"{found.user:.1f} + {found.system:.1f}"
            rows.append([name, f"{found.rate:,.0f}", *(spread(each) if each else "" for each in shares), cpu])
    heads = ["server", "req/s at 16", "of nginx at 1", "of nginx at 16", "CPU µs, user + kernel"]
    return ABOUT_LIMITS + "\n\n" + table(heads, rows)


def hundred(run: Run) -> str:
    """Write the table for requests with many rows."""
    rows = []
    for model in MODELS:
        those = [each for each in contestants() if HUNDRED in each.loads and each.model == model]
        for each in sorted(those, key=lambda each: -_middle(run, each.name, rate(HUNDRED))):
            if found := _load(run, each.name, HUNDRED):
                rows.append([each.name, f"{found.rate:,.1f}", f"{100 * found.rate:,.0f}", *_cells(found)[1:]])
    return table(["server", "req/s at 4", "rows/s", "p50 ms", "p99 ms"], rows)


def steady(run: Run) -> str:
    """Write the table for a constant rate."""
    rows = []
    for model in MODELS:
        turns = [turn for turn in run.turns.get(ketch(model), []) if turn and turn.steady and turn.beside]
        for each in (ketch(model), LIMIT):
            found = [turn.steady if each == ketch(model) else turn.beside for turn in turns]
            if known := [one for one in found if one]:
                figures = zip(*((one.asked, one.rate, one.middle, one.tail) for one in known), strict=True)
                spreads = [Spread.of(figure) for figure in figures]
                faults = sum(one.faults for one in known)
                rows.append([each, *(spread(one) if one else "" for one in spreads), str(faults)])
    return ABOUT_RATE + "\n\n" + table(["server", "asked for, req/s", "answered", "p50 ms", "p99 ms", "faults"], rows)


def guarded(run: Run) -> str:
    """Write the table for keys and log."""
    rows = []
    for model in MODELS:
        for name in (ketch(model), ketch(f"{model}, keys"), ketch(f"{model}, keys and log")):
            if found := _load(run, name, SIXTEEN):
                share = Spread.of(ratios(run, name, [ketch(model)], rate(SIXTEEN))) if name != ketch(model) else None
                cpu = f"{found.user:.1f} + {found.system:.1f}"
                rows.append([name, f"{found.rate:,.0f}", cpu, spread(share) if share else ""])
    return table(["server", "req/s at 16", "CPU µs, user + kernel", "of the plain rate"], rows)


def started(run: Run) -> str:
    """Write the table for starts and memory."""
    rows = []
    for each in contestants():
        turns = [turn for turn in run.turns.get(each.name, []) if turn and turn.memory]
        starts = Spread.of(start for turn in turns for start in turn.starts)
        if not starts or each.kind not in {"ketch", "hand", "peer"} or each.key:
            continue
        worker = [Spread.of(turn.memory.worker[at] for turn in turns if turn.memory) for at in (0, 1)]
        whole = Spread.of(turn.memory.whole for turn in turns if turn.memory)
        cells = [f"{one.median:,.0f}" for one in (*worker, whole) if one]
        rows.append([each.name, spread(starts), *cells, _processes(turns[-1])])
    said = "After load, in MiB. RSS counts shared pages in each process that has them, PSS shares them out."
    heads = ["server", "first answer after, s", "largest worker, RSS", "its PSS", "all, PSS", "processes"]
    return said + "\n\n" + table(heads, rows)


def _processes(turn: Turn) -> str:
    return str(1 + len(turn.memory.below)) if turn.memory else ""


def method(run: Run) -> str:
    """Say how it was measured."""
    known = dict(run.machine)
    when, machine, system = (known.pop(name, "") for name in ("when", "machine", "system"))
    ours = ", ".join(f"{name} {each}" for name, each in known.items())
    packages = [each for name, found in peers.PACKAGES.items() if name not in run.absent for each in found]
    theirs = ", ".join(each.replace("==", " ") for each in packages)
    faults = sum(load.faults for turns in run.turns.values() for turn in turns if turn for load in turn.loads.values())
    lines = [
        "- The server has one core and one worker, the load another core; libraries have one thread. Ketch is",
        "  `ketch serve BUNDLE --workers 1`, with everything on that is on by default. Its original form is what",
        "  `ketch pack --tolerance 0` makes of the linear pipeline.",
        "- 500 distinct rows in rotation, 16 columns of words and 3 numbers, in JSON. Answers are compared with the",
        "  estimator's before a server is measured; vetiver answers with the class alone.",
        f"- Each measurement is {run.seconds:g} s of `wrk`, after a warm-up. The constant rate comes from",
        "  `benchmarks/pace.py`.",
        "- Peers are set up as their documentation shows, and a second time with their own batching on, where they",
        "  have it: up to 16 requests, for 5 ms where a time can be given. FastAPI and Flask are frameworks and do",
        "  not count as peers. Services are in `benchmarks/services/`; `python -m benchmarks.peers` sets peers up.",
        f"- {when}; {machine}, {system}; {ours}.",
        f"- Peers: {theirs}.",
        f"- Requests that failed: {faults:,}. Share of the processors taken by others: {run.stolen:.1%}.",
    ]
    if run.absent:
        lines.append(f"- Not set up, so not measured: {', '.join(run.absent)}.")
    lines += [f"- Not measured, {name}: {reason.split(';')[0]}." for name, reason in run.failures.items()]
    return "\n".join(lines)


def plot(run: Run, path: Path) -> None:
    """Draw requests a second at 16 connections, by model."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot

    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "ketch", "font.size": 8})
    groups = [_bars(run, model) for model in MODELS]
    sizes = [len(each) or 1 for each in groups]
    figure, axes = pyplot.subplots(
        len(groups), 1, sharex=True, figsize=(7, 0.6 + 0.2 * sum(sizes)), height_ratios=sizes
    )
    for axis, model, bars in zip(axes, MODELS, groups, strict=True):
        names = [name for name, _, _ in bars]
        axis.barh(names, [value for _, value, _ in bars], color=[colour for _, _, colour in bars], height=0.7)
        axis.set_xscale("log")
        axis.margins(x=0.1)
        axis.invert_yaxis()
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_title(f"{model}, requests/s at 16 connections", loc="left", fontsize=8)
        for place, (_, value, _) in enumerate(bars):
            axis.text(value, place, f" {value:,.0f}", va="center", fontsize=7)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None, "Creator": None})
    pyplot.close(figure)


def _bars(run: Run, model: str) -> list[tuple[str, float, str]]:
    those = [each for each in contestants() if each.kind in COLOURS and each.model in {model, ""} and not each.key]
    found = [(each, _middle(run, each.name, rate(SIXTEEN))) for each in those]
    known = [(each, value) for each, value in found if value > 0]
    return [
        (each.name.removesuffix(f", {model}").replace("`", ""), value, COLOURS[each.kind])
        for each, value in sorted(known, key=lambda pair: -pair[1])
    ]


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a table; nothing without rows."""
    if not rows:
        return "Not measured."
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "/") for cell in line) + " |" for line in lines)


def spread(found: Spread, unit: str = "") -> str:
    """Write a median with smallest and largest."""
    return f"**{_number(found.median)}{unit}** ({_number(found.low)}–{_number(found.high)})"


def _number(value: float) -> str:
    size = abs(value)
    if size < 0.1:
        return f"{value:.2g}"
    return f"{value:,.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.2f}"


def _cells(found: Load) -> list[str]:
    return [f"{found.rate:,.0f}", f"{found.middle:.2f}", f"{found.tail:.2f}"]


def _middle(run: Run, name: str, pick: Pick) -> float:
    found = Spread.of(each_round(run, name, pick))
    return found.median if found else 0.0


def _load(run: Run, name: str, load: str) -> Load | None:
    """Give the medians over the rounds."""
    found = [turn.loads[load] for turn in run.turns.get(name, []) if turn and load in turn.loads]
    if not found:
        return None

    def middle(field: str) -> float:
        spread = Spread.of(getattr(each, field) for each in found)
        return spread.median if spread else math.nan

    fields = ("rate", "middle", "tail", "user", "system")
    rate_, middle_, tail, user, system = (middle(field) for field in fields)
    return Load(rate_, middle_, tail, sum(each.faults for each in found), user, system)
