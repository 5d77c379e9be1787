"""What was measured, and what it amounts to: medians over rounds, ratios within a round, requirements met or missed."""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

ONE, SIXTEEN, HUNDRED = "1 row, 1 connection", "1 row, 16 connections", "100 rows, 4 connections"
LOADS: Final[Mapping[str, tuple[int, int]]] = {ONE: (1, 1), SIXTEEN: (1, 16), HUNDRED: (100, 4)}  # rows, connections


class Load(msgspec.Struct):
    """What one run of load found."""

    rate: float  # requests a second that were answered well
    middle: float  # p50, milliseconds
    tail: float  # p99, milliseconds
    faults: int = 0  # requests answered badly or not at all
    user: float = 0.0  # microseconds of the server's CPU for each request
    system: float = 0.0


class Steady(msgspec.Struct):
    """What requests at a constant rate found; latencies count from when a request should have been sent."""

    asked: float
    rate: float
    middle: float
    tail: float
    faults: int = 0


class Memory(msgspec.Struct):
    """MiB of a server's processes: each one's RSS and PSS, the first process apart from those below it."""

    first: tuple[float, float]
    below: list[tuple[float, float]] = []

    @property
    def worker(self) -> tuple[float, float]:
        """Give RSS and PSS of the largest worker; the first process is it where there is no other."""
        return max(self.below, default=self.first)

    @property
    def whole(self) -> float:
        """Give the PSS of all."""
        return self.first[1] + sum(pss for _, pss in self.below)


class Turn(msgspec.Struct):
    """One server in one round."""

    starts: list[float]  # seconds from the command to the first right answer
    loads: dict[str, Load] = {}
    memory: Memory | None = None
    steady: Steady | None = None
    beside: Steady | None = None  # nginx at the same rate


class Run(msgspec.Struct):
    """All rounds of all servers; None where a server failed."""

    rounds: int
    seconds: float
    machine: dict[str, str]
    turns: dict[str, list[Turn | None]] = {}
    failures: dict[str, str] = {}  # of a server: what went wrong
    absent: list[str] = []  # peers without an environment
    stolen: float = 0.0  # share of the processors that others had meanwhile, as far as the system knows


@dataclass(frozen=True)
class Spread:
    """A median with the smallest and largest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, found: Iterable[float]) -> "Spread | None":
        """Give the spread of what is a number; None of nothing."""
        known = [each for each in found if math.isfinite(each)]
        return cls(statistics.median(known), min(known), max(known)) if known else None


Pick = Callable[[Turn], float]


def cpu(load: str) -> Pick:
    """Pick the microseconds of CPU for each request under a load."""
    return lambda turn: turn.loads[load].user + turn.loads[load].system if load in turn.loads else math.nan


def rate(load: str) -> Pick:
    """Pick the rate under a load; not a number where it was not measured."""
    return lambda turn: turn.loads[load].rate if load in turn.loads else math.nan


def each_round(run: Run, name: str, pick: Pick) -> list[float]:
    """Give a figure of a server for each round, not a number where there is none."""
    return [math.nan if turn is None else pick(turn) for turn in run.turns.get(name, [])]


def ratios(run: Run, name: str, others: Sequence[str], pick: Pick) -> list[float]:
    """Give a server's figure as a multiple of the best of the others in the same round."""
    found = []
    rivals = [each_round(run, other, pick) for other in others if other != name]
    for turn, mine in enumerate(each_round(run, name, pick)):
        known = [each[turn] for each in rivals if turn < len(each) and math.isfinite(each[turn]) and each[turn] > 0]
        found.append(mine / max(known) if known else math.nan)
    return found


def best(run: Run, others: Sequence[str], pick: Pick) -> str:
    """Name the server with the best median; nothing where none was measured."""
    found = {name: Spread.of(each_round(run, name, pick)) for name in others}
    known = {name: spread.median for name, spread in found.items() if spread}
    return max(known, key=lambda name: known[name], default="")


@dataclass(frozen=True)
class Requirement:
    """A bound on a figure: at least or at most."""

    what: str
    bound: float
    found: Spread | None
    most: bool = False
    unit: str = ""
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Say whether the median keeps the bound; None where it was not measured."""
        if self.found is None:
            return None
        return self.found.median <= self.bound if self.most else self.found.median >= self.bound
