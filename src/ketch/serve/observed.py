"""Seen from outside: a line of JSON and a span for each request.

Done --a few of its parts--> queue --*thread, many at once*--> spans, lines

Whoever answers only puts a tuple into a queue. One thread in each process makes of it what others read, and writes the
lines of many requests in one step. It holds a thread and a connection, so it is made after the fork.
"""

import logging
import os
import re
import stat
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, Final, NamedTuple

import msgspec

from ketch import extras
from ketch.errors import KetchWarning, NotInstalled, SettingError
from ketch.predict import Predictor
from ketch.serve.desk import PATH, Marks, stages_of
from ketch.serve.lineup import version_of
from ketch.serve.routes import Done
from ketch.settings import Settings

MOST_QUEUED: Final = 20_000  # requests; more are dropped and counted
TOGETHER: Final = 64  # lines made in one go, so that the event loop is not kept from its turn
LARGEST_WRITE: Final = 2**16  # bytes: what a file takes in one piece, whoever else writes to it
PIPE: Final = 4096  # the same for a pipe
PAUSE: Final = 0.05  # seconds in which lines gather
LONGEST_PATH, LONGEST_CALLER = 200, 100  # characters; a whole line must fit into a pipe in one piece
GRPC: Final = "grpc://"  # what the address of questions that came that way begins with
PARENT: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(?:-.*)?", re.ASCII)
KNOWN: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"})

logger = logging.getLogger(__name__)


class Seen(NamedTuple):
    """What is kept of a request: neither its body nor its query, and of its headers only those of traces."""

    ended: float
    seconds: float
    request_id: str
    method: str
    path: str
    route: str
    base_url: str
    status: int
    bytes_in: int
    bytes_out: int
    predictor: Predictor | None
    caller: str
    flags: str
    parent: str
    state: str
    rows: int
    stages: Sequence[tuple[str, float, float]]  # name, seconds from the beginning to its begin and to its end


# ---- lines ---------------------------------------------------------------------------------------------


class Line(msgspec.Struct, gc=False):
    """One line of the log."""

    time: str
    request_id: str
    protocol: str
    method: str
    path: str
    route: str
    status: int
    ms: float
    bytes_in: int
    bytes_out: int
    model: str
    version: str
    caller: str
    flags: int
    trace_id: str


class AccessLog:
    """A file that lines are added to, by several processes at once; `-` is standard output."""

    def __init__(self, path: str) -> None:
        """Open the file.

        Raises:
            SettingError: it cannot be opened.
        """
        self._path, self._told, self._minute = path, 0.0, ""
        self._second, self._encode = 0, msgspec.json.Encoder().encode
        self.lost = 0
        try:
            self._file = self._open()
        except OSError as error:
            raise SettingError(
                f"The access log {path} cannot be opened: {error.strerror}",
                hint="Give --access-log a file that may be written, or - for standard output.",
            ) from None

    def _open(self) -> int:
        if self._path == "-":
            return 1
        return os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_CLOEXEC", 0), 0o640)

    def write(self, seen: Sequence[tuple[Seen, str]]) -> None:
        """Add a line for each request, with the id of its trace."""
        self._follow()
        kept = [self._line(each, trace) for each, trace in seen]
        for piece in _pieces(kept, PIPE if _is_pipe(self._file) else LARGEST_WRITE):
            self.lost += self._put(piece)

    def gap(self, many: int) -> bool:
        """Say in the log itself that lines are missing, if it can be written again."""
        return not self._put(msgspec.json.encode({"time": self._time(time.time()), "dropped": many}) + b"\n")

    def close(self) -> None:
        """Close the file."""
        if self._path != "-":
            os.close(self._file)

    def _line(self, seen: Seen, trace: str) -> bytes:
        predictor = seen.predictor
        found = Line(
            self._time(seen.ended - seen.seconds),
            seen.request_id,
            "grpc" if seen.base_url.startswith(GRPC) else "http",
            seen.method[:20],
            seen.path[:LONGEST_PATH],
            seen.route,
            seen.status,
            round(seen.seconds * 1000, 3),
            seen.bytes_in,
            seen.bytes_out,
            predictor.name if predictor else "",
            version_of(predictor) if predictor else "",
            seen.caller[:LONGEST_CALLER],
            seen.flags.count(",") + 1 if seen.flags else 0,
            trace,
        )
        try:
            return self._encode(found) + b"\n"
        except UnicodeEncodeError:  # half of a character
            found.path = found.caller = ""
            return self._encode(found) + b"\n"

    def _time(self, at: float) -> str:
        second = int(at)
        if second != self._second:
            self._second, self._minute = second, datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        return f"{self._minute}.{int((at - second) * 1e6):06d}Z"

    def _follow(self) -> None:
        """Open the file anew where it was moved away, as those do who keep logs in parts."""
        if self._path == "-":
            return
        try:
            there: Any = os.stat(self._path)  # noqa: PTH116 (its answer is compared with that of fstat)
            here = os.fstat(self._file)
            if (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino):
                return
        except OSError:
            pass
        try:
            opened = self._open()
        except OSError as error:
            self._complain(error)
            return
        os.close(self._file)
        self._file = opened

    def _put(self, piece: bytes) -> int:
        """Write whole lines; give how many of them were not."""
        rest = piece
        while rest:
            try:
                rest = rest[os.write(self._file, rest) :]
            except BlockingIOError:
                time.sleep(PAUSE)  # whoever reads it takes his time
            except OSError as error:
                self._complain(error)
                return rest.count(b"\n")
        return 0

    def _complain(self, error: OSError) -> None:
        now = time.monotonic()
        if not self._told or now - self._told > 60:
            self._told = now
            logger.error("the access log %s cannot be written: %s", self._path, error.strerror)


def _pieces(lines: Sequence[bytes], most: int) -> list[bytes]:
    """Put lines together as far as one step of writing goes."""
    found: list[list[bytes]] = [[]]
    size = 0
    for line in lines:
        if size + len(line) > most and found[-1]:
            found.append([])
            size = 0
        found[-1].append(line)
        size += len(line)
    return [b"".join(each) for each in found]


def _is_pipe(file: int) -> bool:
    return not stat.S_ISREG(os.fstat(file).st_mode)


# ---- spans ---------------------------------------------------------------------------------------------


class Traces:
    """The spans of this process, on their way to a collector; the OTEL_… variables say where and how many."""

    def __init__(self, environ: Mapping[str, str], scheme: str = "http") -> None:
        """Start sending.

        Raises:
            NotInstalled: OpenTelemetry is not there.
        """
        sdk, export = extras.load("opentelemetry.sdk.trace"), extras.load("opentelemetry.sdk.trace.export")
        otlp = extras.load("opentelemetry.exporter.otlp.proto.http.trace_exporter")
        resource = extras.load("opentelemetry.sdk.resources").Resource
        self._scheme = scheme
        self._api = extras.load("opentelemetry.trace")
        self._read = extras.load("opentelemetry.trace.propagation.tracecontext").TraceContextTextMapPropagator().extract
        named = environ.get("OTEL_SERVICE_NAME") or "service.name=" in environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
        own = {} if named else {"service.name": "ketch"}
        self._provider = sdk.TracerProvider(resource=resource.create(own), shutdown_on_exit=False)
        self._provider.add_span_processor(export.BatchSpanProcessor(otlp.OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("ketch", version("ketch"))

    def span(self, seen: Seen) -> str:
        """Make the span of a request, and of its parts where they are known; give the id of its trace."""
        parent = self._read({"traceparent": seen.parent, "tracestate": seen.state}) if seen.parent else None
        began = round((seen.ended - seen.seconds) * 1e9)
        method = seen.method if seen.method in KNOWN else "_OTHER"
        name = f"{method if method in KNOWN else 'HTTP'} {seen.route}".strip()
        kind = self._api.SpanKind.SERVER
        attributes = {"url.scheme": self._scheme, **_attributes(seen, method)}
        made = self._tracer.start_span(name, context=parent, kind=kind, attributes=attributes, start_time=began)
        if made.is_recording():
            if seen.status >= 500:
                made.set_status(self._api.StatusCode.ERROR)
                made.set_attribute("error.type", str(seen.status))
            inner = self._api.set_span_in_context(made)
            for stage, since, until in seen.stages:
                child = self._tracer.start_span(stage, context=inner, start_time=began + round(since * 1e9))
                child.end(began + round(until * 1e9))
            made.end(began + round(seen.seconds * 1e9))
        return f"{made.get_span_context().trace_id:032x}"

    def close(self) -> None:
        """Send what is there."""
        self._provider.shutdown()


def _attributes(seen: Seen, method: str) -> dict[str, str | int]:
    found: dict[str, str | int] = {
        "http.request.method": method,
        "http.route": seen.route,
        "http.response.status_code": seen.status,
        "http.request.body.size": seen.bytes_in,
        "http.response.body.size": seen.bytes_out,
        "url.path": seen.path[:LONGEST_PATH],
        "ketch.request_id": seen.request_id,
    }
    if seen.base_url.startswith(GRPC):
        found["rpc.system"] = "grpc"
    if seen.predictor is not None:
        found |= {"ketch.model": seen.predictor.name, "ketch.version": version_of(seen.predictor)}
    if seen.caller:
        found["ketch.caller"] = seen.caller
    if seen.rows:
        found["ketch.rows"] = seen.rows
    return found


def traced(environ: Mapping[str, str]) -> bool:
    """Say whether spans are asked for, by the variables that all programs with OpenTelemetry heed."""
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or environ.get("OTEL_TRACES_EXPORTER", "otlp") != "otlp":
        return False
    return any(environ.get(f"OTEL_EXPORTER_OTLP_{each}ENDPOINT") for each in ("", "TRACES_"))


# ---- the thread ----------------------------------------------------------------------------------------


class Watcher:
    """What a service tells of each request, and the thread that makes lines and spans of it."""

    def __init__(self, log: AccessLog | None, traces: Traces | None) -> None:
        self._log, self._traces = log, traces
        self._queue: deque[Seen] = deque()
        self._wake, self._closing = threading.Event(), threading.Event()
        self._drops, self._told, self._dropping = 0, 0, threading.Lock()
        self._thread = threading.Thread(target=self._run, name="ketch-observed", daemon=True)
        self._thread.start()

    def __call__(self, done: Done) -> None:
        """Keep what is needed of a request, or drop it where too many wait; never waits, never raises."""
        if len(self._queue) >= MOST_QUEUED:
            with self._dropping:
                self._drops += 1
            return
        call, response = done.call, done.response
        request = call.request
        headers = request.headers
        self._queue.append(
            Seen(
                time.time(),
                done.seconds,
                call.request_id,
                request.method,
                request.path,
                done.route,
                request.base_url,
                response.status,
                len(request.body),
                len(response.body),
                call.predictor if done.model else None,
                call.caller,
                call.flags,
                headers.get("traceparent", ""),
                headers.get("tracestate", ""),
                call.rows,
                [(name, since - done.began, until - done.began) for name, since, until in call.stages],
            )
        )
        if not self._wake.is_set():
            self._wake.set()

    def usual(self, question: Any, predictor: Predictor, rows: int, request_id: bytes, size: int, marks: Marks) -> None:
        """Keep what is needed of a usual answer of the front, which makes neither call nor response for it."""
        if len(self._queue) >= MOST_QUEUED:
            with self._dropping:
                self._drops += 1
            return
        began, get = question.began, dict(question.pairs).get
        parent, state = get(b"traceparent", b"").decode("latin-1"), get(b"tracestate", b"").decode("latin-1")
        seconds = time.perf_counter() - began
        named = stages_of(began, marks) if self._traces else ()
        stages = [(name, since - began, until - began) for name, since, until in named]
        known = (request_id.decode("latin-1"), "POST", PATH, PATH, "", 200, len(question.body), size, predictor)
        self._queue.append(Seen(time.time(), seconds, *known, question.manner.caller, "", parent, state, rows, stages))
        if not self._wake.is_set():
            self._wake.set()

    @property
    def dropped(self) -> int:
        """Requests of which nothing was written: too many waited, or the file could not be written."""
        return self._drops + (self._log.lost if self._log else 0)

    def close(self, timeout: float = 3.0) -> None:
        """Write what is queued, for so many seconds at most."""
        self._closing.set()
        self._wake.set()
        self._thread.join(timeout)

    def _run(self) -> None:
        while not self._closing.is_set():
            self._wake.wait()
            self._closing.wait(PAUSE)
            self._wake.clear()
            self._empty()
        self._empty()
        for each in (self._traces, self._log):
            if each is not None:
                each.close()

    def _empty(self) -> None:
        while self._queue:
            batch = [self._queue.popleft() for _ in range(min(TOGETHER, len(self._queue)))]
            try:
                self._tell(batch)
            except Exception:  # whatever it is, the next are told
                logger.exception("%d requests are in no access log", len(batch))

    def _tell(self, batch: Sequence[Seen]) -> None:
        span: Callable[[Seen], str] = self._traces.span if self._traces else _trace_of
        found = [(each, span(each)) for each in batch]
        if self._log is None:
            return
        self._log.write(found)
        dropped = self.dropped
        if dropped > self._told and self._log.gap(dropped - self._told):
            self._told = dropped


def _trace_of(seen: Seen) -> str:
    """Give the id of the trace that a caller's header names."""
    if not seen.parent:
        return ""
    found = PARENT.fullmatch(seen.parent.strip())
    return found[1] if found and found[1].strip("0") and found[2].strip("0") else ""


def check_watchers(settings: Settings, environ: Mapping[str, str]) -> None:
    """Find out before the fork whether the access log can be written, and say so where traces cannot be sent.

    Raises:
        SettingError: the access log cannot be opened.
    """
    if settings.access_log:
        AccessLog(settings.access_log).close()
    if traced(environ):
        try:
            extras.load("opentelemetry.sdk.trace")
            extras.load("opentelemetry.exporter.otlp.proto.http")
        except NotInstalled as missing:
            warnings.warn(f"No traces are sent: {missing.message}. {missing.hint}", KetchWarning, stacklevel=2)


def make_watchers(settings: Settings, environ: Mapping[str, str]) -> list[Watcher]:
    """Make what `Service.watchers` calls for each request: nothing where neither lines nor spans are asked for.

    Raises:
        SettingError: the access log cannot be opened.
    """
    log = AccessLog(settings.access_log) if settings.access_log else None
    traces = None
    if traced(environ):
        with suppress(NotInstalled):  # that was said before the fork
            traces = Traces(environ, "https" if settings.tls_cert else "http")
    return [Watcher(log, traces)] if log or traces else []
