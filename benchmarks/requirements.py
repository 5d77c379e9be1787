"""What must hold, beside what was measured."""

import math
from collections.abc import Iterator

from benchmarks import figures
from benchmarks.figures import HUNDRED, ONE, SIXTEEN, Requirement, Run, Spread, Turn, each_round, rate, ratios
from benchmarks.servers import LIMIT, MODELS, ORIGINAL, contestants, ketch

OF_NGINX = {"linear": (0.45, 0.35), "forest": (0.15, 0.10)}  # the second where no maintained server reaches the first
OF_PEERS = {"linear": 300, "forest": 200}
OF_PEERS_MANY = {"linear": 40, "forest": 15}
FIRST_ANSWER = {"linear": 1.0, "forest": 1.6}  # seconds
P99, TIMES_NGINX = 3.0, 3.0
MEMORY, SHARE_GUARDED = 80.0, 0.75


def rivals(model: str, *, batching: bool) -> list[str]:
    """Name the servers of others on a pandas pipeline; FastAPI, a framework, is not among them."""
    kinds = {"peer", "batching"} if batching else {"peer"}
    return [
        each.name for each in contestants() if each.model == model and each.kind in kinds and each.peer != "fastapi"
    ]


def requirements(run: Run) -> list[Requirement]:
    """List all."""
    return [*_of_nginx(run), *_of_others(run), *_original(run), *_many(run), *_steady(run), *_costs(run)]


def _of_nginx(run: Run) -> Iterator[Requirement]:
    for model, (bound, lower) in OF_NGINX.items():
        names = [each.name for each in contestants() if each.kind == "maintained" and each.model in {"", model}]
        bare = figures.best(run, names, rate(SIXTEEN))
        reached = Spread.of(ratios(run, bare, [LIMIT], rate(SIXTEEN)))
        found = Spread.of(ratios(run, ketch(model), [LIMIT], rate(SIXTEEN)))
        by_cpu = Spread.of(1 / each for each in ratios(run, ketch(model), [LIMIT], figures.cpu(SIXTEEN)) if each)
        note = f"by CPU time {by_cpu.median:.2f}" if by_cpu else ""
        if reached and reached.median < bound:
            note += f"; {bound} is beyond any maintained server ({bare}: {reached.median:.2f})"
            bound = lower
        yield Requirement(f"one row at 16 connections, {model}, of nginx", bound, found, note=note)


def _of_others(run: Run) -> Iterator[Requirement]:
    found = Spread.of(ratios(run, ketch("vectorizer"), ["Flask + gunicorn, vectorizer"], rate(SIXTEEN)))
    yield Requirement("the same, DictVectorizer, of Flask + gunicorn by hand", 25, found, unit="×")
    for model, bound in OF_PEERS.items():
        yield from _beside(run, f"the same, {model}, of the best peer", ketch(model), model, SIXTEEN, bound)


def _original(run: Run) -> Iterator[Requirement]:
    for words, load, bound in (("16 connections", SIXTEEN, 8), ("one connection", ONE, 1)):
        yield from _beside(run, f"original form at {words}, of the best peer", ORIGINAL, "linear", load, bound)


def _beside(run: Run, what: str, name: str, model: str, load: str, bound: float) -> Iterator[Requirement]:
    for batching in (False, True):
        others = rivals(model, batching=batching)
        found = Spread.of(ratios(run, name, others, rate(load)))
        added = ", batching or not" if batching else ", not batching"
        best = figures.best(run, others, rate(load)).removesuffix(f", {model}")
        yield Requirement(what + added, bound, found, unit="×", note=best)


def _many(run: Run) -> Iterator[Requirement]:
    for model, bound in OF_PEERS_MANY.items():
        others = rivals(model, batching=False)
        found = Spread.of(ratios(run, ketch(model), others, rate(HUNDRED)))
        best = figures.best(run, others, rate(HUNDRED)).removesuffix(f", {model}")
        yield Requirement(f"100 rows at 4 connections, {model}, of the best peer", bound, found, unit="×", note=best)


def _steady(run: Run) -> Iterator[Requirement]:
    for model in MODELS:
        mine = Spread.of(each_round(run, ketch(model), lambda turn: turn.steady.tail if turn.steady else math.nan))
        beside = Spread.of(each_round(run, ketch(model), lambda turn: turn.beside.tail if turn.beside else math.nan))
        bound = max(P99, TIMES_NGINX * beside.median) if beside else P99
        note = f"3 ms, or 3 × nginx's {beside.median:.2f} ms" if beside else "3 ms, or 3 × nginx's"
        yield Requirement(f"p99 at half load, {model}", bound, mine, most=True, unit=" ms", note=note)


def _costs(run: Run) -> Iterator[Requirement]:
    for model, bound in FIRST_ANSWER.items():
        starts = [each for turn in run.turns.get(ketch(model), []) if turn for each in turn.starts]
        yield Requirement(f"start to first answer, {model}", bound, Spread.of(starts), most=True, unit=" s")
    for model in MODELS:
        for at, words in enumerate(("RSS: shared pages too", "PSS: its share of shared pages")):
            found = Spread.of(each_round(run, ketch(model), lambda turn, at=at: _of_worker(turn, at)))  # type: ignore[misc]
            yield Requirement(f"memory of a worker, {model}", MEMORY, found, most=True, unit=" MiB", note=words)
    for model in MODELS:
        found = Spread.of(ratios(run, ketch(f"{model}, keys and log"), [ketch(model)], rate(SIXTEEN)))
        yield Requirement(f"keys and prediction log on, {model}, of the plain rate", SHARE_GUARDED, found)


def _of_worker(turn: Turn, at: int) -> float:
    return turn.memory.worker[at] if turn.memory else math.nan
