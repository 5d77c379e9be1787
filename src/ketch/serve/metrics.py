"""What Prometheus reads: counters in memory that all workers of a server share.

Every worker adds to pages of its own, so that nothing is locked between processes and nothing is lost when one is
killed: its pages stay, and the supervisor moves their counts to the page of those that are gone.
"""

import bisect
import logging
import mmap
import operator
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

logger = logging.getLogger(__name__)

CELLS: Final = 8192  # numbers on one page
NAMES: Final = 2**20  # bytes for the names of their series
HEAD: Final = 16  # bytes: how much of the names is used, how many cells
PAGE: Final = HEAD + NAMES + 8 * CELLS
BOUNDS: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
WIDTH: Final = len(BOUNDS) + 2  # cells of a histogram: one for each bound, one beyond, and the sum
GONE: Final = 0  # the page of workers that are no more
PATIENCE: Final = 5.0  # seconds in which a retirement ends, unless the supervisor has died in one
HELP: Final = {
    "ketch_requests": "Requests answered, by model, route and status.",
    "ketch_seconds": "Seconds spent on a question, by stage: read, wait, model, write, whole.",
    "ketch_rows": "Rows answered, by model and version.",
    "ketch_predictions": "Rows answered, by model, version and answer.",
    "ketch_faults": "Values refused or flagged, by model, field and code.",
    "ketch_errors": "Refusals, by code.",
    "ketch_reloads": "New versions tried, by model and outcome.",
    "ketch_worker_ends": "Workers that ended, by cause.",
    "ketch_shadowed": "Rows that a shadow answered, by model, version and outcome.",
    "ketch_log_records": "Predictions recorded, by outcome.",
    "ketch_model": "1 for each version that is served, with its SHA-256.",
    "ketch_waiting": "Questions waiting for a model.",
    "ketch_connections": "Open connections.",
    "ketch_workers": "Workers that answer.",
}
GAUGES: Final = frozenset({"ketch_model", "ketch_waiting", "ketch_connections", "ketch_workers"})

Series = tuple[str, tuple[tuple[str, str], ...]]  # a name and its labels


class Memory:
    """The pages; made before the workers are forked, which share it from then on."""

    def __init__(self, pages: int = 3, beats: int = 0) -> None:
        """Make room for pages, and for numbers that tell whether their writers are alive."""
        self.pages, self._start = pages, 8 + 8 * beats
        self._map = mmap.mmap(-1, self._start + PAGE * pages)
        self._view = memoryview(self._map)
        self.beats: Any = self._view[8 : self._start].cast("d")
        self._gone = self.page(GONE)

    def page(self, number: int) -> "Page":
        """Give one page to its only writer."""
        start = self._start + number * PAGE
        return Page(self._view[start : start + PAGE])

    def retire(self, number: int) -> None:
        """Move what a worker that is no more has counted to the page of the gone; its gauges end with it."""
        leaving, gone = self.page(number), self._gone
        self._turn()
        try:
            for series, numbers in leaving.read():
                if series[0] not in GAUGES:
                    at = gone.place(*series, width=len(numbers))
                    for offset, value in enumerate(numbers):
                        gone.cells[at + offset] += value
            leaving.clear()
        finally:
            self._turn()

    def totals(self) -> dict[Series, list[float]]:
        """Add up all pages, as they stood at one moment between two retirements."""
        until = time.monotonic() + PATIENCE
        while True:
            turn = self._turns()
            try:
                found = self._sum()
            except (msgspec.DecodeError, ValueError):  # a name was half cleared
                found = {}
            if (turn % 2 == 0 and turn == self._turns()) or time.monotonic() > until:
                return found
            time.sleep(0.001)

    def _sum(self) -> dict[Series, list[float]]:
        found: dict[Series, list[float]] = {}
        for number in range(self.pages):
            for series, numbers in self.page(number).read():
                before = found.get(series)
                join = max if series[0] == "ketch_model" else operator.add
                found[series] = [join(a, b) for a, b in zip(before, numbers, strict=True)] if before else numbers
        return found

    def _turns(self) -> int:
        found: int = struct.unpack_from("q", self._view)[0]
        return found

    def _turn(self) -> None:
        struct.pack_into("q", self._view, 0, self._turns() + 1)


class Page:
    """The counters of one writer. Names are only ever added, and each before its first count."""

    def __init__(self, memory: memoryview) -> None:
        self._memory = memory
        self.cells: Any = memory[HEAD + NAMES :].cast("d")
        self._places = {}
        at = 0
        for series, width in self._names():
            self._places[series] = at
            at += width

    def place(self, name: str, labels: tuple[tuple[str, str], ...], *, width: int = 1) -> int:
        """Give the first cell of a series; where the page is full, one that nobody reads."""
        known = self._places.get((name, labels))
        if known is not None:
            return known
        used, at = struct.unpack_from("qq", self._memory)
        line = msgspec.json.encode((name, labels, width)) + b"\n"
        if used + len(line) > NAMES or at + width > CELLS - WIDTH:
            self._places[name, labels] = CELLS - WIDTH
            logger.error("%s %s is not counted: there are too many series", name, dict(labels))
            return CELLS - WIDTH
        self._memory[HEAD + used : HEAD + used + len(line)] = line
        struct.pack_into("qq", self._memory, 0, used + len(line), at + width)
        self._places[name, labels] = at
        return int(at)

    def read(self) -> Iterator[tuple[Series, list[float]]]:
        """Give every series with its numbers."""
        at = 0
        for series, width in self._names():
            yield series, self.cells[at : at + width].tolist()
            at += width

    def clear(self) -> None:
        """Forget everything, for the next writer."""
        used, cells = struct.unpack_from("qq", self._memory)
        struct.pack_into("qq", self._memory, 0, 0, 0)
        self._memory[HEAD : HEAD + used] = bytes(used)
        for at in range(cells):
            self.cells[at] = 0.0
        self.cells[CELLS - 1] = 0.0
        self._places.clear()

    def _names(self) -> Iterator[tuple[Series, int]]:
        used = struct.unpack_from("q", self._memory)[0]
        for line in bytes(self._memory[HEAD : HEAD + used]).splitlines():
            name, labels, width = msgspec.json.decode(line)
            yield (name, tuple((key, value) for key, value in labels)), width


class Metrics:
    """The counters of one thread, or of all others; `add` and `observe` are one of a kind for each series."""

    def __init__(self, page: Page, *, locked: bool = False) -> None:
        self._page = page
        self._lock = threading.Lock() if locked else None
        self._placing = threading.Lock()
        self._cells = page.cells

    def count(self, name: str, amount: float = 1.0, **labels: str) -> None:
        """Add to a counter."""
        self.counter(name, **labels)(amount)

    def counter(self, name: str, **labels: str) -> Callable[[float], None]:
        """Give what adds to a counter."""
        at, cells, lock = self._place(name, labels), self._cells, self._lock
        if lock is None:

            def add(amount: float) -> None:
                cells[at] += amount

            return add

        def add_locked(amount: float) -> None:
            with lock:
                cells[at] += amount

        return add_locked

    def gauge(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""
        self._cells[self._place(name, labels)] = value

    def timer(self, name: str, **labels: str) -> Callable[[float], None]:
        """Give what puts seconds into a histogram."""
        at, cells, lock = self._place(name, labels, WIDTH), self._cells, self._lock
        find, bounds, total = bisect.bisect_left, BOUNDS, at + WIDTH - 1

        def observe(seconds: float) -> None:
            cells[at + find(bounds, seconds)] += 1.0
            cells[total] += seconds

        if lock is None:
            return observe

        def observe_locked(seconds: float) -> None:
            with lock:
                observe(seconds)

        return observe_locked

    def _place(self, name: str, labels: Mapping[str, str], width: int = 1) -> int:
        with self._placing:  # two threads must not add a name each to the same place
            return self._page.place(name, tuple(sorted(labels.items())), width=width)


def exposition(totals: Mapping[Series, Sequence[float]], accept: str = "") -> tuple[bytes, str]:
    """Write all series as Prometheus or OpenMetrics text, as asked; give it with its content type."""
    from prometheus_client import CollectorRegistry
    from prometheus_client.exposition import choose_encoder

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(totals))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


class _Collector:
    """The shape in which prometheus_client asks for series."""

    def __init__(self, totals: Mapping[Series, Sequence[float]]) -> None:
        self._totals = totals

    def collect(self) -> Iterator[Any]:
        """Give one family for each name."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        for name, told in HELP.items():
            found = sorted((labels, numbers) for (each, labels), numbers in self._totals.items() if each == name)
            if name == "ketch_model":  # one that was replaced is none
                found = [(labels, numbers) for labels, numbers in found if numbers[0]]
            if not found:
                continue
            keys = [key for key, _ in found[0][0]]
            if len(found[0][1]) == WIDTH:
                family: Any = HistogramMetricFamily(name, told, labels=keys)
                for labels, numbers in found:
                    family.add_metric([dict(labels)[key] for key in keys], _buckets(numbers), numbers[-1])
            else:
                kind = GaugeMetricFamily if name in GAUGES else CounterMetricFamily
                family = kind(name, told, labels=keys)
                for labels, numbers in found:
                    family.add_metric([dict(labels)[key] for key in keys], numbers[0])
            yield family


def _buckets(numbers: Sequence[float]) -> list[tuple[str, float]]:
    counts, below = [], 0.0
    for bound, count in zip([*map(repr, BOUNDS), "+Inf"], numbers[:-1], strict=True):
        below += count
        counts.append((bound, below))
    return counts
