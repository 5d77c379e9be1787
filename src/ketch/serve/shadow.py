"""A version that is asked the same as the one that answers, and whose answers nobody gets: they are only recorded."""

import queue
import threading
from dataclasses import replace
from typing import Final, NamedTuple

from ketch.predict import Predictor, Results, Rows
from ketch.serve import Call
from ketch.serve.lineup import Line, version_of
from ketch.serve.routes import Service

MOST_WAITING: Final = 1000  # questions; more are dropped and counted: a slow shadow must not fill the memory


class Asked(NamedTuple):
    """A question and what the version that answers said to it."""

    predictor: Predictor
    call: Call
    rows: Rows
    results: Results
    began: float


class Shadow:
    """The one thread that asks shadows; whatever they do, callers do not notice."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._queue: queue.Queue[Asked] = queue.Queue(MOST_WAITING)
        threading.Thread(target=self._run, name="ketch-shadow", daemon=True).start()

    def __call__(self, line: Line, call: Call, rows: Rows, results: Results, began: float) -> None:
        """Hand over a question that was answered."""
        predictor = line.versions["shadow"]
        try:
            self._queue.put_nowait(Asked(predictor, call, rows, results, began))
        except queue.Full:
            self._count(predictor, "dropped", results.n)

    def _run(self) -> None:
        while True:
            asked = self._queue.get()
            try:
                self._ask(asked)
            except Exception:  # a shadow may fail in any way
                self._count(asked.predictor, "failed", asked.results.n)

    def _ask(self, asked: Asked) -> None:
        predictor = asked.predictor
        results = predictor.run(asked.rows)
        said, wanted = (next(iter(each.columns.values())) for each in (results, asked.results))
        same = sum(one == other for one, other in zip(said, wanted, strict=False))
        self._count(predictor, "same", same)
        self._count(predictor, "other", results.n - same)
        log = self._service.log
        if log is not None:
            call = replace(asked.call, predictor=predictor)
            records = self._service.records(call, asked.rows, results, asked.began)
            log.append([replace(each, flags=(*each.flags, "shadow")) for each in records])

    def _count(self, predictor: Predictor, outcome: str, rows: int) -> None:
        if rows:
            self._service.metrics.count(
                "ketch_shadowed", rows, model=predictor.name, version=version_of(predictor), outcome=outcome
            )
