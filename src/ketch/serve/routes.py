"""The service behind every door: plain data in, plain data out.

Request --find, let in--> Call --handle--> Response;  rows --*ask*--> Results --*record*--> log and counters
"""

import functools
import itertools
import logging
import math
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final
from urllib.parse import quote

import msgspec

from ketch import codec
from ketch.codec import JSON
from ketch.errors import (
    BodyTooLarge,
    Busy,
    Forbidden,
    HostNotAllowed,
    KetchError,
    MethodNotAllowed,
    NoSuchRoute,
    NotReady,
    RowsRefused,
    TooManyRequests,
    Unauthorized,
    UnsupportedMediaType,
)
from ketch.log import Log, Record
from ketch.page import PROBLEM
from ketch.predict import Predictor, Results, Rows
from ketch.schema import Fault
from ketch.serve import Call, Request, Response, Route, all_routes
from ketch.serve.guard import Guard
from ketch.serve.headers import safe_headers
from ketch.serve.lineup import Line, Lineup, version_of
from ketch.serve.metrics import Memory, Metrics, Series

SAFE_ID: Final = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}", re.ASCII)
MODELS: Final = "/models/"
MOST_FLAGS: Final = 16  # named in the header; the log has them all
LONGEST_FLAGS: Final = 2000  # characters; proxies refuse answers whose headers are longer than a few KiB
MAX_BODY: Final = 8 * 2**20
MOST_DISCARDED: Final = 64 * 2**20  # read on after a refusal, so that the client gets to see it
MOST_ANSWERS: Final = 50  # classes that are counted one by one
READY_FOR: Final = 1.0  # seconds that an answer of /health/ready stays good
QUEUE: Final = 256  # questions that may wait for their turn
# whoever sees these learns nothing of the model
STRANGERS: Final = (Forbidden, HostNotAllowed, NotReady, TooManyRequests, Unauthorized)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Done:
    """What became of a request, for access log and traces; `model` is empty where none was asked."""

    call: Call
    response: Response
    model: str
    route: str
    began: float
    seconds: float


def _nowhere(service: Any, call: Call) -> Response:
    raise NoSuchRoute("There is nothing here", hint="GET /openapi.json lists what there is.")


NOWHERE: Final = Route("", "", "", "read", _nowhere)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a request leads: its route, or why there is none."""

    route: Route = NOWHERE
    model: str = ""
    args: Mapping[str, str] = field(default_factory=dict)
    missing: KetchError | None = None


class Service:
    """The models of one server behind their routes."""

    def __init__(
        self,
        models: Lineup | Predictor,
        guard: Guard,
        *,
        log: Log | None = None,
        max_body: int = MAX_BODY,
        queue: int = QUEUE,
        rates: Any = None,
        cors: Any = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.lineup = models if isinstance(models, Lineup) else Lineup.of(models)
        self.guard, self.rates, self.cors = guard, rates, cors
        self.safe = safe_headers(guarded=guard.guarded, tls=False)
        self.log, self.max_body, self.queue = log, max_body, queue
        self.clock = clock
        self.draining, self._logged = False, (0, 0)
        self.watchers: list[Callable[[Done], None]] = []
        self.usual: Callable[..., None] | None = None  # told of the front's usual answers, where the watchers are not
        self.shadow: Callable[[Line, Call, Rows, Results, float], None] | None = None
        self.busy: dict[int, float] = {}  # thread -> since when it asks a model
        self._series, self._numbers = os.urandom(8).hex(), itertools.count(1)
        self.count_in(Memory())
        self._turns = threading.Semaphore(queue)
        self._checking = threading.Lock()
        self._checked_until, self._ready = 0.0, False

    def count_in(self, memory: Memory, page: int = 1) -> None:
        """Count on a page of a memory that may be shared with other workers."""
        self.metrics = Metrics(memory.page(page), locked=True)
        self.totals: Callable[[], Mapping[Series, Sequence[float]]] = memory.totals
        for line, role, predictor in self.lineup.all():
            self.show(line, role, predictor)

    def count_log(self) -> None:
        """Count what the log has written and dropped since the last time."""
        if self.log is None:
            return
        known = (self.log.written, self.log.dropped)
        for outcome, many, before in zip(("written", "dropped"), known, self._logged, strict=True):
            self.metrics.count("ketch_log_records", many - before, outcome=outcome)
        self._logged = known

    def show(self, line: Line, role: str, predictor: Predictor, value: float = 1.0) -> None:
        """Say among the metrics that a version is served, or no longer."""
        sha256 = predictor.bundle.sha256
        self.metrics.gauge(
            "ketch_model", value, model=line.name, version=version_of(predictor), role=role, sha256=sha256
        )

    @property
    def predictor(self) -> Predictor:
        """Give the version that answers where no name is given."""
        return self.lineup.line().champion

    @property
    def names(self) -> list[str]:
        """Name the models served, the default one first."""
        return sorted(self.lineup.lines, key=lambda name: (name != self.lineup.default, name))

    def predictor_named(self, name: str, version: str = "") -> Predictor:
        """Give a model's version.

        Raises:
            NoSuchModel: there is none.
        """
        return self.lineup.version(name, version)

    # ---- one request -------------------------------------------------------------------------------

    def handle(self, request: Request, *, unread: KetchError | None = None, began: float | None = None) -> Response:
        """Answer any request; nothing is raised. `unread` is why the door could not read the body, if it could not."""
        began = time.perf_counter() if began is None else began
        request_id = self.request_id(request.headers)
        place, caller = Place(), ""
        call: Call | None = None
        error: Exception | None = None
        try:
            place = self._place(request)
            if self.cors:
                self.guard.check(request.headers)  # its Host, before a browser is told anything
                if preflight := self.cors.preflight(request, allowed(request.path)):
                    call = Call(request, request_id, "", place.args, self.predictor)
                    return self.ended(preflight, call, place.route.path, began, model="")
            caller = self._let_in(request, place.route.scope)
            if place.missing:
                raise place.missing
            predictor = self.lineup.line(place.model).choose(request.headers, request.body)
            call = Call(request, request_id, caller, place.args, predictor)
            if unread:
                raise unread
            if len(request.body) > self.max_body:
                raise too_large(self.max_body)
            response = place.route.handle(self, call)
        except Exception as found:  # whatever it is, it becomes a problem
            error = found
            response = self.problem(error, request, request_id, call.predictor if call else None, place.route.rewrite)
        if call is None:
            call = Call(request, request_id, caller, place.args, self.predictor)
            return self.ended(response, call, place.route.path, began, model="")
        if error is None:
            response = self._marked(response, call, place)
        return self.ended(response, call, place.route.path, began)

    def _let_in(self, request: Request, scope: str) -> str:
        caller = self.guard.check(request.headers, scope=scope)
        if self.rates is not None and scope:
            self.rates.take(caller.name)
        return caller.name

    def _marked(self, response: Response, call: Call, place: "Place") -> Response:
        marks = self.marks(call.predictor) if place.route.of_model else {}
        if call.flags:
            marks["Ketch-Flags"] = call.flags
        return replace(response, headers={**response.headers, **marks})

    def ended(self, response: Response, call: Call, path: str, began: float, *, model: str | None = None) -> Response:
        """Complete an answer's headers, count it, and tell who watches."""
        headers = {**response.headers, **self.safe, "X-Request-ID": call.request_id}
        if self.cors:
            found = self.cors.headers(call.request.headers)
            vary = [each["Vary"] for each in (headers, found) if "Vary" in each]
            headers |= found | ({"Vary": ", ".join(vary)} if vary else {})
        if self.draining:
            headers["Connection"] = "close"
        response = replace(response, headers=headers)
        name = call.predictor.name if model is None else model
        self.metrics.count("ketch_requests", model=name, route=path, status=str(response.status))
        if self.watchers:
            done = Done(call, response, name, path, began, time.perf_counter() - began)
            for watch in self.watchers:
                watch(done)
        return response

    @property
    def plain(self) -> bool:
        """Say whether nothing follows an answer but its count and its record in the log."""
        return (not self.watchers or self.usual is not None) and self.shadow is None and not self.draining

    def request_id(self, headers: Mapping[str, str]) -> str:
        """Take over the caller's request id where it is a sane one, else make one."""
        given = headers.get("x-request-id", "")
        return given if given and SAFE_ID.fullmatch(given) else self.new_id()

    def new_id(self) -> str:
        """Make an id that no other request or prediction has."""
        return f"{self._series}-{os.getpid():x}-{next(self._numbers):x}"  # a server may fork after the service is made

    def marks(self, predictor: Predictor) -> dict[str, str]:
        """Give the headers that say which version has answered."""
        return {"Ketch-Model": f"{predictor.reference};sha256={predictor.bundle.sha256}"}

    # ---- one question ------------------------------------------------------------------------------

    def answer(self, call: Call, table: codec.Table) -> Results:
        """Check decoded rows, ask the model when it is their turn, and record both.

        Raises:
            RequestError: a row breaks the contract, or has no answer.
            Busy: too many questions are waiting.
        """
        began = time.perf_counter()
        return self.ask(call, call.predictor.check(table), began)

    def ask(self, call: Call, rows: Rows, began: float) -> Results:
        """Ask the model about checked rows when it is their turn, and record them.

        Raises:
            NotAnswerable: the model fails on them.
            Busy: too many questions are waiting.
        """
        with self.turn():
            asked = time.perf_counter()
            results = call.predictor.run(rows)
        call.rows, call.stages = results.n, (("read", began, asked), ("model", asked, time.perf_counter()))
        self.record(call, rows, results, began)
        return results

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Hold a place while a model is asked.

        Raises:
            Busy: all places are taken.
        """
        if not self._turns.acquire(blocking=False):
            raise busy()
        thread = threading.get_ident()
        self.busy[thread] = self.clock()
        try:
            yield
        finally:
            del self.busy[thread]
            self._turns.release()

    def record(self, call: Call, rows: Rows, results: Results, began: float) -> None:
        """Count what was answered and hand its records to the log and to the shadow."""
        if rows.flags:
            call.flags = flags_header(rows.flags)
            self.count_faults(
                call.predictor, "flagged", [{"field": each.field, "code": each.code} for each in rows.flags]
            )
        self.count_answers(call.predictor, results)
        if self.log is not None:
            self.log.append(self.records(call, rows, results, began))
        line = self.lineup.lines.get(call.predictor.name)
        if self.shadow is not None and line is not None and "shadow" in line.versions:
            self.shadow(line, call, rows, results, began)

    def count_answers(self, predictor: Predictor, results: Results) -> None:
        """Count rows and, where there are few classes, each answer."""
        labels = {"model": predictor.name, "version": version_of(predictor)}
        self.metrics.count("ketch_rows", results.n, **labels)
        for answer, many in counted(predictor, results).items():
            self.metrics.count("ketch_predictions", many, **labels, answer=answer)

    def count_faults(self, predictor: Predictor, kind: str, faults: Iterable[Mapping[str, object]]) -> None:
        """Count what was refused or flagged by field; fields that the contract does not have go by no name."""
        known = {each.name for each in predictor.contract.fields}
        for fault in faults:
            name, code = str(fault.get("field", "")), str(fault.get("code", ""))
            field = name if name in known else ""
            self.metrics.count("ketch_faults", model=predictor.name, field=field, code=code, kind=kind)

    def records(self, call: Call, rows: Rows, results: Results, began: float) -> list[Record]:
        """Make what the log keeps of answered rows."""
        now, spent = time.time(), (time.perf_counter() - began) * 1000
        inputs, answers = rows.columns, results.columns
        flags: dict[int, list[str]] = {}
        for flag in rows.flags:
            flags.setdefault(flag.row, []).append(f"{flag.code};field={flag.field}")
        return [
            Record(
                prediction_id=self.new_id(),
                request_id=call.request_id,
                at=now,
                model=call.predictor.reference,
                digest=call.predictor.bundle.sha256,
                features={name: values[row] for name, values in inputs.items()},
                answer={name: values[row] for name, values in answers.items()},
                flags=tuple(flags.get(row, ())),
                latency_ms=spent,
                client=call.caller,
            )
            for row in range(results.n)
        ]

    # ---- readiness ---------------------------------------------------------------------------------

    def require_ready(self) -> None:
        """Ask every model its first golden row, once a second at most.

        Raises:
            NotReady: one does not give its golden answer, or the server is about to end.
        """
        with self._checking:
            if self.clock() >= self._checked_until:
                self._ready = all(_gives_golden_answer(each) for _, role, each in self.lineup.all() if role != "shadow")
                self._checked_until = self.clock() + READY_FOR
        if self.draining or not self._ready:
            raise NotReady("The service is not ready", hint="Ask again later, or see what the server has logged.")

    # ---- refusals ----------------------------------------------------------------------------------

    def problem(
        self,
        error: Exception,
        request: Request,
        request_id: str,
        predictor: Predictor | None = None,
        rewrite: Callable[[dict[str, object]], dict[str, object]] | None = None,
    ) -> Response:
        """Turn whatever was raised into problem+json (RFC 9457) and count it; what Ketch did not foresee is a 500."""
        known = error if isinstance(error, KetchError) else _bug(error)
        title = (type(known).__doc__ or "").partition(":")[0].rstrip(".") if known is error else "Internal error"
        body: dict[str, object] = {
            "type": f"urn:ketch:error:{known.code}",
            "title": title,
            "status": known.status,
            "detail": known.message,
            "instance": f"urn:ketch:request:{request_id}",
            "code": known.code,
            "hint": known.hint,
        }
        if known.errors:
            body["errors"] = known.errors
        headers = {} if predictor is None or isinstance(known, STRANGERS) else self.marks(predictor)
        headers["X-Request-ID"] = request_id
        if known.retry_after:
            headers["Retry-After"] = str(max(1, math.ceil(known.retry_after)))
        if known.status == 401:
            headers["WWW-Authenticate"] = 'Basic realm="Ketch", charset="UTF-8", Bearer realm="Ketch"'
        if isinstance(known, MethodNotAllowed):
            headers["Allow"] = allowed(request.path)
        self.metrics.count("ketch_errors", code=known.code)
        if predictor is not None and isinstance(known, RowsRefused):
            self.count_faults(predictor, "refused", known.errors)
        return Response(known.status, msgspec.json.encode(rewrite(body) if rewrite else body), PROBLEM, headers)

    def _place(self, request: Request) -> "Place":
        """Find the route; what is not there asks for a key all the same, so that strangers learn nothing."""
        path, found = request.path, at(request.path)
        if not found:
            listed = ", ".join(sorted({each.path for each in all_routes() if each.path.count("/") == 1}))
            return Place(missing=NoSuchRoute(f"There is no {path[:80]} here", hint=f"There are: {listed}"))
        method = "GET" if request.method == "HEAD" else request.method
        for each, args in found:
            if each.method == method:
                return Place(each, args.get("name", ""), args)
        first, taken = found[0][0], allowed(path)
        refusal = MethodNotAllowed(f"{path[:80]} does not take {request.method[:20]}", hint=f"It takes {taken}.")
        open_to_all = any(not each.scope for each, _ in found)
        return Place(replace(first, scope="" if open_to_all else "read"), missing=refusal)


def find(path: str) -> list[tuple[Route, Mapping[str, str]]]:
    """Give the routes that stand at a path, one for each method, with what their {parts} stand for."""
    plain, patterns = _table()
    if path in plain:
        return [(each, {}) for each in plain[path]]
    found = ((each, pattern.fullmatch(path)) for pattern, each in patterns)
    return [(each, match.groupdict()) for each, match in found if match]


@functools.cache
def _table() -> tuple[dict[str, list[Route]], list[tuple[re.Pattern[str], Route]]]:
    plain: dict[str, list[Route]] = {}
    patterns = []
    for each in all_routes():
        if "{" in each.path:
            patterns.append((re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", each.path)), each))
        else:
            plain.setdefault(each.path, []).append(each)
    return plain, patterns


def at(path: str) -> list[tuple[Route, Mapping[str, str]]]:
    """Give the routes at a path, also below /models/NAME."""
    found = find(path)
    if not found and path.startswith(MODELS):
        name, _, rest = path.removeprefix(MODELS).partition("/")
        return [(each, {**args, "name": name}) for each, args in find("/" + rest) if each.of_model and name]
    return found


def allowed(path: str) -> str:
    """Name the methods that a path takes, as the Allow header does."""
    methods = {each.method for each, _ in at(path)}
    return ", ".join(sorted(methods | {"HEAD"} if "GET" in methods else methods))


def counted(predictor: Predictor, results: Results) -> Mapping[str, int]:
    """Count the answers by class, where these are few."""
    answer = predictor.contract.answer
    if answer.parts or not 0 < len(answer.classes) <= MOST_ANSWERS:
        return {}
    return Counter(str(value) for value in results.columns[answer.target])


def negotiated(headers: Mapping[str, str]) -> tuple[str, str]:
    """Say how a question is written and how its answer will be.

    Raises:
        UnsupportedMediaType, NotAcceptable: it cannot be.
    """
    content_type = headers.get("content-type", JSON)
    if headers.get("content-encoding", "identity").lower() not in {"identity", ""}:
        raise UnsupportedMediaType("This service does not unpack bodies", hint="Send it without Content-Encoding.")
    return content_type, codec.accepted(headers.get("accept", ""), content_type)


def too_large(limit: int) -> BodyTooLarge:
    """Make the refusal of a body that is too long."""
    return BodyTooLarge(
        f"The body is larger than {limit} bytes", hint="Send the rows in parts, or use ketch score for whole tables."
    )


def busy() -> Busy:
    """Make the refusal of a question for which there is no place."""
    return Busy("More questions are waiting than can be answered in time", hint="Ask again in a second.")


def _gives_golden_answer(predictor: Predictor) -> bool:
    try:
        predictor.replay(rows=1)
    except Exception as error:  # a model may fail in any way; a probe is told no more than that
        logger.error("%s is not ready: %s", predictor.reference, error)
        return False
    return True


def _bug(error: Exception) -> KetchError:
    logger.error("a bug in Ketch", exc_info=error)
    return KetchError("Ketch failed; this is a bug in it", hint="Please report it with what the server has logged.")


def flags_header(flags: Sequence[Fault]) -> str:
    """Name what was unusual: `code;field=name`, each once, names percent-encoded."""
    named = dict.fromkeys(f"{flag.code};field={quote(flag.field[:64], safe='')}" for flag in flags[:1000])
    lengths = itertools.accumulate(len(flag) + 2 for flag in named)
    shown = [flag for flag, length in zip(named, lengths, strict=True) if length <= LONGEST_FLAGS][:MOST_FLAGS]
    return ", ".join([*shown, "more"] if len(named) > len(shown) else shown)
