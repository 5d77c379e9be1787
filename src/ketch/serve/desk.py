"""Where questions wait for a model, and how they are answered: at once, together with others, or by a thread.

A model that takes microseconds answers within the event loop: a linear one each question as it comes, any other all
questions of one tick in one call. There is no timer, so that a lone question never waits. A model that takes longer,
or a table, is left to a thread, and what comes meanwhile is its next batch.
"""

import asyncio
import functools
import itertools
import os
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, NamedTuple, Protocol

from ketch.batching import run_rows, run_together
from ketch.codec import JSON
from ketch.errors import Busy, DeadlinePassed, KetchError
from ketch.log import Written
from ketch.predict import Predictor, Results, Rows
from ketch.serve import Call, Request, Response
from ketch.serve.lineup import Line, version_of
from ketch.serve.metrics import Metrics, Page
from ketch.serve.routes import Service, busy, counted, negotiated

PATH: Final = "/predict"
MOST_ROWS: Final = 1024  # in one call of the model, so that a small question is not held up by a crowd
LARGE: Final = 2**17  # bytes of a body that the event loop is not made to wait for
LONG: Final = 2e-3  # seconds for one row, above which others would wait too long for the event loop
TRIALS: Final = 5
MANNERS_FOR: Final = 1.0  # seconds until a caller is looked at again: a key may be revoked
MOST_MANNERS: Final = 1000
KEPT_FOR: Final = 0.01  # seconds until records go to the log
BEAT: Final = 0.05  # seconds between looks at what has waited too long
SOON: Final = 0.5  # of the deadline, within which a question's turn must be expected to come
GATHER: Final = 0.05  # of the last turn, which the next may be held up for questions to join it
TURN: Final = 0.25  # of the deadline, which one turn of many questions may be expected to last


class Question(Protocol):
    """What the desk needs to know of one request to the predict route."""

    manner: "Manner"
    request_id: str
    body: Any
    began: float
    response_complete: bool

    @property
    def pairs(self) -> Sequence[tuple[bytes, bytes]]:
        """Give the headers as they came."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Give the headers by name."""

    @property
    def gone(self) -> bool:
        """Say whether nobody waits for the answer any more."""

    def end_connection(self) -> None:
        """Leave without an answer."""

    def write(self, response: Response) -> None:
        """Write any answer."""

    def write_answer(self, prefix: bytes, request_id: bytes, body: bytes) -> None:
        """Write the usual answer."""


def named(headers: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    """Give headers as text; of one that comes twice the values stand in one line, as WSGI has it."""
    found = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}
    if len(found) < len(headers):
        values: dict[bytes, list[bytes]] = {}
        for name, value in headers:
            values.setdefault(name, []).append(value)
        found = {name.decode("latin-1"): b",".join(given).decode("latin-1") for name, given in values.items()}
    return found


class Manner:
    """How questions with the same headers are taken: who asks, of which model, and in what form the answer goes."""

    __slots__ = ("accept", "caller", "content_type", "extra", "lane", "line", "prefixes", "quick", "until")

    def __init__(self, line: Line, caller: str, content_type: str, accept: str, extra: Mapping[str, str]) -> None:
        self.line, self.caller, self.content_type, self.accept, self.extra = line, caller, content_type, accept, extra
        self.quick = content_type == JSON and accept == JSON
        self.until = 0.0
        self.lane: Lane | None = None  # the one taken last
        self.prefixes: dict[Lane, bytes] = {}

    @classmethod
    def of_nobody(cls) -> "Manner":
        """Make one for a request that was not let in yet."""
        return cls(Line("", {}), "", JSON, JSON, {})

    def prefix(self, lane: "Lane") -> bytes:
        """Give what an answer begins with, up to the request's id."""
        found = self.prefixes.get(lane)
        if found is None:
            headers = {"content-type": self.accept, **lane.marks, **self.extra}
            lines = "".join(f"{name.lower()}: {value}\r\n" for name, value in headers.items())
            found = self.prefixes[lane] = f"HTTP/1.1 200 OK\r\n{lines}x-request-id: ".encode("latin-1")
        return found


class Waiting:
    """A question in a lane; `read` once it is read the short way, `rows` where it needed all checks."""

    __slots__ = ("body", "question", "read", "rows", "state")

    def __init__(self, question: Question) -> None:
        self.question = question
        self.state = "waits"
        self.read: Any = None
        self.rows: Rows | None = None
        self.body = b""


Marks = tuple[float, float, float]  # when the turn of a question came, when it was read, when the model had answered


def stages_of(began: float, marks: Marks) -> tuple[tuple[str, float, float], ...]:
    """Name what was done from when to when."""
    turn, read, asked = marks
    return ("wait", began, turn), ("read", turn, read), ("model", read, asked)


class Answers(NamedTuple):
    """What became of a batch: results or refusal of each question, and the seconds that reading and asking took."""

    found: Mapping[Waiting, Results | Exception]
    began: float
    read: float
    asked: float


class Lane:
    """One version of a model, and the questions that wait for it."""

    def __init__(self, desk: "Desk", predictor: Predictor) -> None:
        self.desk, self.predictor = desk, predictor
        self.service = desk.service
        self.marks = self.service.marks(predictor)
        self.named = (predictor.reference, predictor.bundle.sha256)
        self.instant, self.long = predictor.alone, pace(predictor) > LONG
        self.spent = pace(predictor)  # seconds of late that one question has taken, alone or among others
        self.waiting: deque[Waiting] = deque()
        self.running: list[Waiting] = []
        count, model = desk.metrics, predictor.name
        labels = {"model": model, "version": version_of(predictor)}
        self.rows = count.counter("ketch_rows", **labels)
        self._labels = labels
        self._answers: dict[object, Callable[[float], None]] = {}
        self.answered = count.counter("ketch_requests", model=model, route=PATH, status="200")
        self.read_time, self.wait_time, self.model_time, self.whole_time = (
            count.timer("ketch_seconds", model=model, stage=stage) for stage in ("read", "wait", "model", "whole")
        )
        answer = predictor.contract.answer
        self.label = answer.target if not answer.parts and answer.classes else ""

    @property
    def full(self) -> bool:
        """Say whether a question that came now could not be answered in time."""
        return self.long and (len(self.waiting) + len(self.running)) * self.spent > SOON * self.desk.deadline

    def learn(self, questions: int, spent: float) -> None:
        """Take over what a turn has lasted."""
        self.spent += (spent / questions - self.spent) / 4
        self.long = self.long or spent > LONG * 10  # it was not so for its golden rows

    def took(self, began: float, marks: Marks) -> None:
        """Count what each stage of a question has lasted."""
        turn, read, asked = marks
        if turn > began:
            self.wait_time(turn - began)
        self.read_time(read - turn)
        self.model_time(asked - read)
        self.whole_time(time.perf_counter() - began)

    def count(self, results: Results) -> None:
        """Count rows and answers."""
        self.rows(float(results.n))
        if not self.label:
            return
        if results.n == 1:
            self._answer_counter(results.columns[self.label][0])(1.0)
        else:
            for answer, many in counted(self.predictor, results).items():
                self._answer_counter(answer)(float(many))

    def _answer_counter(self, answer: object) -> Callable[[float], None]:
        found = self._answers.get(answer)
        if found is None:
            found = self.desk.metrics.counter("ketch_predictions", **self._labels, answer=str(answer))
            self._answers[answer] = found
        return found


def pace(predictor: Predictor) -> float:
    """Give the least of a few times that one golden row takes, in seconds; it is measured once."""
    if not predictor.pace:
        for _ in range(TRIALS):
            began = time.perf_counter()
            predictor.replay(rows=1)
            spent = time.perf_counter() - began
            predictor.pace = min(predictor.pace or spent, spent)
            if spent > 10 * LONG:
                break
    return predictor.pace


class Desk:
    """All lanes of one event loop."""

    def __init__(self, service: Service, loop: asyncio.AbstractEventLoop, page: Page, deadline: float) -> None:
        self.service, self.loop, self.deadline = service, loop, deadline
        self.metrics = Metrics(page)
        self.lanes: dict[int, Lane] = {}
        self.manners: dict[Any, Manner] = {}
        self.waiting = 0  # questions in all lanes
        self.busy_since = 0.0  # when the thread began what it runs now, by the service's clock
        self._thread = ThreadPoolExecutor(1, "ketch-model")
        self._watching = False
        self._kept: list[Written] = []
        self._ids = f"{os.urandom(8).hex()}-{os.getpid():x}-".encode()
        self._numbers = itertools.count(1)

    def lane(self, predictor: Predictor) -> Lane:
        """Give a version's lane; those of versions that are no longer served are forgotten."""
        found = self.lanes.get(id(predictor))
        if found is None or found.predictor is not predictor:
            served = {id(each) for _, _, each in self.service.lineup.all()}
            self.lanes = {key: each for key, each in self.lanes.items() if key in served or each.waiting}
            found = self.lanes[id(predictor)] = Lane(self, predictor)
            self.manners.clear()
        return found

    def manner(self, key: tuple[tuple[bytes, bytes], ...], model: str) -> Manner:
        """Let a caller in, and say how the questions with these headers are taken.

        Raises:
            RequestError: the caller stays out, or the headers ask for what cannot be.
        """
        found = self.manners.get((model, key))
        if found is not None and found.until > time.perf_counter():
            return found
        service, headers = self.service, named(key)
        caller = service.guard.check(headers, scope="predict")
        content_type, accept = negotiated(headers)
        extra = {**service.safe, **(service.cors.headers(headers) if service.cors else {})}
        if len(self.manners) > MOST_MANNERS:
            self.manners.clear()
        made = Manner(service.lineup.line(model), caller.name, content_type, accept, extra)
        made.until = time.perf_counter() + MANNERS_FOR
        self.manners[model, key] = made
        return made

    def new_id(self) -> bytes:
        """Make a request's id."""
        return b"%b%x" % (self._ids, next(self._numbers))

    # ---- one question ------------------------------------------------------------------------------

    def put(self, question: Question) -> None:
        """Answer a complete question, or let it wait its turn."""
        manner, service = question.manner, self.service
        line = manner.line
        predictor = line.versions["champion"] if line.plain else line.choose(question.headers, question.body)
        lane = manner.lane
        if lane is None or lane.predictor is not predictor:
            lane = manner.lane = self.lane(predictor)
        if lane.instant and manner.quick and service.plain and predictor.reader is not None:
            values = predictor.reader.row(question.body)
            if values is not None:
                self._answer_now(lane, question, values)
                return
        if self.waiting >= service.queue or lane.full:
            self._refuse(question, busy(), lane)
            return
        self.waiting += 1
        lane.waiting.append(Waiting(question))
        if len(lane.waiting) == 1 and not lane.running:
            self.loop.call_soon(self._serve, lane)

    def _answer_now(self, lane: Lane, question: Question, values: Any) -> None:
        read = time.perf_counter()
        try:
            results = lane.predictor.answer_row(values)
        except Exception as error:  # a refusal, or a bug that becomes a 500
            self._refuse(question, error, lane)
            return
        asked = time.perf_counter()
        self._write_usual(lane, question, results, lane.predictor.encode(results), (question.began, read, asked))
        lane.took(question.began, (question.began, read, asked))

    def _write_usual(self, lane: Lane, question: Question, results: Results, body: bytes, marks: Marks) -> None:
        given = question.request_id
        request_id = given.encode("latin-1") if given else self.new_id()
        lane.count(results)
        lane.answered(1.0)  # before it is written: who is killed in between has counted what somebody got
        question.write_answer(question.manner.prefix(lane), request_id, body)
        if self.service.log is not None:
            own = self.new_id() if given else request_id  # what a caller sends may come twice
            spent, caller = (time.perf_counter() - question.began) * 1000, question.manner.caller
            self._keep((own, request_id, time.time(), *lane.named, question.body, body, spent, caller))
        if self.service.usual is not None:
            self.service.usual(question, lane.predictor, results.n, request_id, len(body), marks)

    def _keep(self, record: Written) -> None:
        """Hand records to the log a little later, many at once."""
        if not self._kept:
            self.loop.call_later(KEPT_FOR, self.hand_over)
        self._kept.append(record)

    def hand_over(self) -> None:
        """Give the log what was kept for it."""
        if self.service.log is not None and self._kept:
            self.service.log.append(self._kept)
            self._kept = []

    # ---- together ----------------------------------------------------------------------------------

    def _serve(self, lane: Lane) -> None:
        """Take what waits, within the bytes of one turn; a thread answers what takes long."""
        if lane.running or not lane.waiting:  # an answer may bring on the next question of its connection
            return
        batch: list[Waiting] = []
        size = 0
        most = max(1, int(TURN * self.deadline / lane.spent)) if lane.long else len(lane.waiting)
        while lane.waiting and size < LARGE and len(batch) < most:
            batch.append(lane.waiting.popleft())
            size += len(batch[-1].question.body)
        if lane.long or size > LARGE:
            lane.running = batch
            self._watch()
            asked = self._thread.submit(self._answer_aside, lane, batch)
            asked.add_done_callback(lambda done: self.loop.call_soon_threadsafe(self._served, lane, batch, done))
            return
        began = time.perf_counter()
        self._write(lane, batch, self._answer(lane, batch))
        lane.learn(len(batch), time.perf_counter() - began)
        self.waiting -= len(batch)
        if lane.waiting:
            self.loop.call_soon(self._serve, lane)

    def _served(self, lane: Lane, batch: Sequence[Waiting], done: "Future[Answers]") -> None:
        self.waiting -= len(batch)
        lane.running = []
        crowd, answers = len(lane.waiting) + len(batch), done.result()
        self._write(lane, batch, answers)
        if len(batch) > 1:
            grace = min(GATHER * (answers.read + answers.asked), LONG)
            self._gather(lane, crowd, time.perf_counter() + grace)
        else:
            self._serve(lane)

    def _gather(self, lane: Lane, crowd: int, until: float) -> None:
        """Let those just answered ask again before the next turn, or two halves of one crowd would take turns."""
        if 0 < len(lane.waiting) < crowd and time.perf_counter() < until:
            self.loop.call_soon(self._gather, lane, crowd, until)
        else:
            self._serve(lane)

    def _answer_aside(self, lane: Lane, batch: Sequence[Waiting]) -> Answers:
        """Answer in the thread, which may first have had other lanes to serve; show since when it is at work."""
        self.busy_since, began = self.service.clock(), time.perf_counter()
        try:
            return self._answer(lane, batch)
        finally:
            self.busy_since = 0.0
            lane.learn(len(batch), time.perf_counter() - began)

    def _answer(self, lane: Lane, batch: Sequence[Waiting]) -> Answers:
        """Read, check, ask and write the bodies for all of a batch; nothing here touches the event loop."""
        found: dict[Waiting, Results | Exception] = {}
        began = time.perf_counter()
        short: list[Waiting] = []
        parts: list[list[Waiting]] = [[]]
        rows = 0
        for each in batch:
            if each.state != "waits" or each.question.gone:
                continue
            each.state = "runs"
            try:
                self._read(lane, each)
            except Exception as error:  # a refusal, or a bug that becomes a 500 for this one alone
                found[each] = error
                continue
            if each.rows is None:
                short.append(each)
                continue
            if rows and rows + each.rows.n > MOST_ROWS:
                parts.append([])
                rows = 0
            parts[-1].append(each)
            rows += each.rows.n
        read = time.perf_counter()
        run = functools.partial(run_rows, lane.predictor, [each.read for each in short])
        found |= dict(zip(short, _asked(run, len(short)), strict=True))
        for part in parts:
            run = functools.partial(run_together, lane.predictor, [each.rows for each in part if each.rows is not None])
            found |= dict(zip(part, _asked(run, len(part)), strict=True))
        asked = time.perf_counter()
        for each, results in found.items():
            if isinstance(results, Results):
                each.body = lane.predictor.encode(results, each.question.manner.accept)
        return Answers(found, began, read - began, asked - read)

    def _read(self, lane: Lane, each: Waiting) -> None:
        question, predictor = each.question, lane.predictor
        if predictor.reader is not None and question.manner.quick:
            each.read = predictor.reader.row(question.body)
        if each.read is None:
            each.rows = predictor.decode(question.body, question.manner.content_type)

    def _write(self, lane: Lane, batch: Sequence[Waiting], answers: Answers) -> None:
        try:
            self._write_each(lane, batch, answers)
        finally:
            for each in batch:  # nobody is left waiting for an answer that does not come
                if not each.question.response_complete:
                    each.question.end_connection()

    def _write_each(self, lane: Lane, batch: Sequence[Waiting], answers: Answers) -> None:
        turn, read = answers.began, answers.began + answers.read
        marks = (turn, read, read + answers.asked)
        for each in batch:
            question = each.question
            if question.response_complete or question.gone:
                continue
            results = answers.found.get(each)
            try:
                if not isinstance(results, Results):
                    raise results or RuntimeError("a question was left without an answer")
                self._finish(lane, each, results, marks)
            except Exception as error:
                self._refuse(question, error, lane)
                continue
            lane.took(question.began, marks)

    def _finish(self, lane: Lane, each: Waiting, results: Results, marks: Marks) -> None:
        question, service = each.question, self.service
        if service.plain and (each.rows is None or not (each.rows.flags or service.log)):
            self._write_usual(lane, question, results, each.body, marks)
            return
        rows = each.rows if each.rows is not None else lane.predictor.rows_of([each.read], single=True)
        call = self._call(question, lane)
        call.rows, call.stages = results.n, stages_of(question.began, marks)
        service.record(call, rows, results, question.began)
        headers = dict(lane.marks)
        if call.flags:
            headers["Ketch-Flags"] = call.flags
        response = Response(200, each.body, question.manner.accept, headers)
        question.write(service.ended(response, call, PATH, question.began))

    def _call(self, question: Question, lane: Lane) -> Call:
        request_id = question.request_id or self.new_id().decode()
        request = Request("POST", PATH, question.headers, question.body)
        return Call(request, request_id, question.manner.caller, {}, lane.predictor)

    def _refuse(self, question: Question, error: Exception, lane: Lane) -> None:
        call, service = self._call(question, lane), self.service
        response = service.problem(error, call.request, call.request_id, lane.predictor)
        question.write(service.ended(response, call, PATH, question.began))

    # ---- time --------------------------------------------------------------------------------------

    def _watch(self) -> None:
        if not self._watching:
            self._watching = True
            self.loop.call_later(BEAT, self._look)

    def _look(self) -> None:
        """Refuse what has waited or run past its deadline; what runs keeps its place until it ends."""
        limit = time.perf_counter() - self.deadline
        busy_lanes = [lane for lane in self.lanes.values() if lane.running or lane.waiting]
        for lane in busy_lanes:
            for each in (*lane.running, *lane.waiting):
                if each.question.began < limit and not each.question.response_complete:
                    self._late(lane, each)
        self._watching = bool(busy_lanes)
        if busy_lanes:
            self.loop.call_later(BEAT, self._look)

    def _late(self, lane: Lane, each: Waiting) -> None:
        if each.state == "runs":
            error: KetchError = DeadlinePassed(
                f"The model took longer than {self.deadline:g} s", hint="Send fewer rows, or ask when less is going on."
            )
        else:
            error = Busy(f"No turn came within {self.deadline:g} s", hint="Ask again in a second.")
        each.state = "late"
        self._refuse(each.question, error, lane)


def _asked(run: Callable[[], Sequence[Results | KetchError]], size: int) -> Sequence[Results | Exception]:
    if not size:
        return []
    try:
        return run()
    except Exception as error:
        return [error] * size
