"""The fast front: uvicorn, with predictions and health answered ahead of the Flask app."""

import asyncio
import http
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import unquote_to_bytes

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ketch.errors import Busy, HeadersTooLarge, KetchError, RequestError, SlowRequest
from ketch.serve import Request, Response
from ketch.serve.desk import PATH, Desk, Manner, named
from ketch.serve.metrics import Memory, Page
from ketch.serve.routes import MODELS, MOST_DISCARDED, SAFE_ID, Service, too_large

LARGEST_HEAD: Final = 2**16  # bytes of URL and headers; what arrives in one piece is read all the same
REASONS: Final = {status.value: status.phrase for status in http.HTTPStatus}
HEALTH: Final = {b"/health/live": False, b"/health/ready": True}  # path -> whether a model is asked for it
# what differs between questions of the same manner
VARYING: Final = frozenset({b"content-length", b"traceparent", b"tracestate", b"x-request-id"})
NOBODY: Final = Manner.of_nobody()
LINGER: Final = 1.0  # seconds
FIRST: Final = 1.0  # seconds that a connection may still be silent when the end has begun
VERSIONS: Final = frozenset({"1.0", "1.1"})  # of HTTP; the parser knows others, the server does not
IDLE, READING, ANSWERING, WRITING = range(4)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long the server waits, in seconds, and for how many."""

    deadline: float = 30.0  # for an answer of a model
    head: float = 10.0  # for the headers of a request, and for its body beyond what its size explains
    idle: float = 75.0  # for the next request of a connection: longer than what common load balancers wait
    slowest: int = 1024  # bytes of a body that must come in a second
    connections: int = 4096


@dataclass(slots=True)
class Hall:
    """What all connections of one server share."""

    service: Service
    page: Page
    patience: Patience
    desks: dict[asyncio.AbstractEventLoop, Desk] = field(default_factory=dict)
    aside: bool = False  # leave everything to the Flask app
    date: bytes = b""  # the header that says when
    now: float = 0.0  # a clock that goes twice a second, for what needs no better one
    prober: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "ketch-ready"))

    def desk(self, loop: asyncio.AbstractEventLoop) -> Desk:
        """Give the desk of an event loop."""
        found = self.desks.get(loop)
        if found is None:
            found = self.desks[loop] = Desk(self.service, loop, self.page, self.patience.deadline)
        return found


class NobodyWaits:
    """Stands for the event of a cycle, which uvicorn sets when a connection is lost."""

    def set(self) -> None:
        """Do nothing."""


NOBODY_WAITS: Final = NobodyWaits()


def front_of(service: Service, page: Page | None = None, patience: Patience | None = None) -> "type[Front]":
    """Make the protocol of one server."""
    hall = Hall(service, page or Memory().page(1), patience or Patience())
    return type("ServiceFront", (Front,), {"hall": hall})


class Question:
    """One request that the front answers, or the refusal of one; stands where uvicorn's own cycle would."""

    # what stands here is what most of them keep
    body: Any = b""  # a bytearray while it comes in parts
    request_id, began, discarded = "", 0.0, 0
    manner: Manner = NOBODY
    refusal: Response | None = None
    started = read = too_long = response_complete = disconnected = False
    message_event = NOBODY_WAITS

    def __init__(self, front: "Front", path: str, model: str, *, keep_alive: bool, expects: bool = False) -> None:
        self.front, self.path, self.model = front, path, model
        self.method = "POST"
        self.pairs: Sequence[tuple[bytes, bytes]] = front.headers
        self.keep_alive, self.expects = keep_alive, expects

    @property
    def gone(self) -> bool:
        """Say whether nobody waits for the answer any more."""
        return self.disconnected or self.front.transport.is_closing()

    @property
    def headers(self) -> Mapping[str, str]:
        """Give the headers by name."""
        return named(self.pairs)

    def feed(self, data: bytes) -> None:
        """Take a part of the body; one that grows too long is refused as soon as may be and its rest thrown away."""
        if self.too_long:
            self.discarded += len(data)
            if self.discarded > MOST_DISCARDED:
                self.front.transport.close()
            return
        if not self.body:
            self.body = data
        else:
            if type(self.body) is bytes:
                self.body = bytearray(self.body)
            self.body += data
        if len(self.body) > self.front.hall.service.max_body:
            self.too_long, self.body = True, b""
            if self.started:
                self._refuse_length()

    def start(self) -> None:
        """Take the turn on this connection: all earlier answers are written."""
        self.started = True
        if self.refusal:
            self.write(self.refusal)
        elif self.too_long:
            self._refuse_length()
        elif self.read:
            self._ask()
        elif self.expects:
            self.front.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def end(self) -> None:
        """Note that the body is whole."""
        self.read = True
        if self.response_complete:
            if not self.keep_alive:
                self.front.transport.close()
        elif self.started:
            self._ask()

    def _ask(self) -> None:
        self.began = time.perf_counter()
        front = self.front
        if self.path != PATH:
            self._probe()
            return
        told = [pair for pair in self.pairs if pair[0] not in VARYING]
        if len(told) + 1 < len(self.pairs):
            given = dict(self.pairs).get(b"x-request-id", b"").decode("latin-1")
            self.request_id = given if SAFE_ID.fullmatch(given) else ""
        if type(self.body) is bytearray:
            self.body = bytes(self.body)
        service = front.hall.service
        try:
            if told != front.told or self.model != front.model or front.manner.until < self.began:
                front.manner = front.desk.manner(tuple(told), self.model)
                front.told, front.model = told, self.model
            self.manner = front.manner
            if service.rates is not None:
                service.rates.take(self.manner.caller)
        except Exception:
            self.write(service.handle(self.request()))
            return
        front.desk.put(self)

    def request(self) -> Request:
        """Give the request as any door does."""
        body = self.body if self.read else b""
        path = f"{MODELS}{self.model}{self.path}" if self.model else self.path
        return Request(self.method, path, self.headers, bytes(body))

    def _probe(self) -> None:
        """Answer for the health of the server, though all of its threads may be at work."""
        front, request = self.front, self.request()
        if self.path == "/health/live":
            self.write(front.hall.service.handle(request))
            return
        asked = front.hall.prober.submit(front.hall.service.handle, request)
        asked.add_done_callback(lambda done: front.loop.call_soon_threadsafe(self.write, done.result()))

    def _refuse_length(self) -> None:
        service = self.front.hall.service
        self.write(service.handle(self.request(), unread=too_large(service.max_body)))

    def end_connection(self) -> None:
        """Leave without an answer."""
        self.front.transport.close()

    def write_answer(self, prefix: bytes, request_id: bytes, body: bytes) -> None:
        """Write the usual answer, from what all answers of its manner begin with."""
        if not self.keep_alive:
            prefix = prefix.replace(b"\r\n", b"\r\nconnection: close\r\n", 1)
        front = self.front
        front.transport.write(
            b"%b%b\r\n%bcontent-length: %d\r\n\r\n%b" % (prefix, request_id, front.hall.date, len(body), body)
        )
        self._written()

    def write(self, response: Response) -> None:
        """Write any answer; where the connection is not kept, it ends when all of the question is read."""
        front = self.front
        if front.transport.is_closing():
            return
        headers = dict(response.headers)
        if headers.pop("Connection", "") == "close":
            self.keep_alive = False
        head = f"HTTP/1.1 {response.status} {REASONS[response.status]}\r\ncontent-type: {response.content_type}\r\n"
        lines = "".join(f"{name.lower()}: {value}\r\n" for name, value in headers.items())
        last = "" if self.keep_alive else "connection: close\r\n"
        length = f"content-length: {len(response.body)}\r\n{last}\r\n"
        body = b"" if self.method == "HEAD" else response.body
        front.transport.write((head + lines).encode("latin-1") + front.hall.date + length.encode("latin-1") + body)
        self._written()

    def _written(self) -> None:
        self.response_complete = True
        if self.read and not self.keep_alive:
            self.front.transport.close()
        self.front.on_response_complete()


class Front(HttpToolsProtocol):
    """uvicorn's protocol, with questions to the predict route taken out of its stream."""

    hall: Hall
    cycle: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.desk = self.hall.desk(self.loop)
        self.turn: Any = None  # the cycle that is being answered; `cycle` is the last one begun
        self.in_body = False
        self.refused = False
        self.held = False
        self.head = 0  # bytes since the last headers or piece of a body were complete
        self.phase, self.since, self.received = IDLE, self.hall.now, 0
        self.told: list[tuple[bytes, bytes]] = []  # the headers of the last question, and how it was taken
        self.model, self.manner = "", NOBODY
        self.looked, self.left = IDLE, 0
        self.expected = False

    def connection_made(self, transport: Any) -> None:
        """Take a connection, unless there are too many."""
        super().connection_made(transport)
        if len(self.connections) > self.hall.patience.connections:
            self._refuse_rest(Busy("There are too many connections", hint="Ask again in a second."))

    def data_received(self, data: bytes) -> None:
        """Read on, but not for ever without an end of the headers."""
        if self.refused:
            return
        self.head += len(data)
        if self.phase == IDLE:
            self.phase, self.since, self.received = READING, self.hall.now, 0
        try:
            while data:
                data = self._fed(data)
        except (httptools.HttpParserError, RequestError):
            self._refuse_rest(RequestError("This is not valid HTTP", hint="Send an HTTP/1.1 request."))
        if self.head > LARGEST_HEAD and not self.refused:
            hint = f"Keep URL and headers together below {LARGEST_HEAD} bytes."
            self._refuse_rest(HeadersTooLarge("The headers are too large", hint=hint))

    def _fed(self, data: bytes) -> bytes:
        """Hand bytes to the parser, and give those that it must have once more."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            return self._declined(data[offer.args[0] :])
        return b""

    def on_message_begin(self) -> None:
        """Begin a request; what only uvicorn needs of it is made when it gets it."""
        self.url = b""
        self.expect_100_continue = False
        self.headers = []

    def on_headers_complete(self) -> None:
        """Take a question, or leave the request to uvicorn and the Flask app."""
        self.head = 0
        parser, method = self.parser, self.parser.get_method()
        version = parser.get_http_version()
        if version not in VERSIONS:
            raise RequestError(f"This is HTTP/{version}", hint="Send an HTTP/1.1 request.")
        if parser.should_upgrade():
            return
        path, model = ("", "") if self.hall.aside else self._place(method)
        if not path:
            self._leave_to_uvicorn()
            return
        before, kept = self.cycle, version == "1.1" and parser.should_keep_alive()
        self.cycle = Question(self, path, model, keep_alive=kept, expects=self.expect_100_continue)
        self.headers = []  # trailers are none
        if path != PATH:
            self.cycle.method = method.decode()
        self.in_body = True
        if before is None or before.response_complete:
            self._start_asgi_task(self.cycle, self.app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))

    def _place(self, method: bytes) -> tuple[str, str]:
        """Give the path of a route that the front answers, and the model's name; no path where it does not."""
        if method == b"POST":
            if self.url == b"/predict":
                return PATH, ""
            path = unquote_to_bytes(httptools.parse_url(self.url).path or b"").decode("utf-8", "replace")
            if path == PATH:
                return PATH, ""
            if path.startswith(MODELS) and path.endswith(PATH):
                name = path[len(MODELS) : -len(PATH)]
                return (PATH, name) if name in self.hall.service.lineup.lines else ("", "")
        elif method in {b"GET", b"HEAD"} and self.url in HEALTH:
            return self.url.decode(), ""
        return "", ""

    def _leave_to_uvicorn(self) -> None:
        # WSGI takes _ for -: another header would go by the name of a known one
        url, headers = self.url, [pair for pair in self.headers if b"_" not in pair[0]]
        expects = self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers[:] = headers
        super().on_headers_complete()
        self.in_body = True

    def on_body(self, body: bytes) -> None:
        """Hand a part of a body to whom it belongs."""
        self.head = 0
        self.received += len(body)
        if type(self.cycle) is Question:
            self.cycle.feed(body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Note the end of a request."""
        self.head = 0  # what came behind the body was part of it: a request is answered once
        if self.parser.should_upgrade():
            return
        self.in_body = False
        self.phase = ANSWERING
        if type(self.cycle) is Question:
            self.cycle.end()
        else:
            super().on_message_complete()

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self.turn = cycle
        if type(cycle) is Question:
            cycle.start()
        else:
            super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        """Go on with what was asked next, once the caller takes its answers."""
        if self.transport.is_closing():
            self.server_state.total_requests += 1
            return
        if self.flow.write_paused:
            self.flow.pause_reading()
            self.held = True
            return
        self.server_state.total_requests += 1
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
        elif not self.in_body:
            if self.head:
                self.phase, self.since, self.received = READING, self.hall.now, 0
            else:
                self.phase = IDLE

    def _unset_keepalive_if_required(self) -> None:
        """Leave out uvicorn's timer for each request: `tick` looks after all connections together."""

    def shutdown(self) -> None:
        """End the connection after what is being asked or answered on it."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False
        elif self.cycle is None and not self.expected:  # it was just begun: its first request is on the way
            self.expected = True
            self.loop.call_later(FIRST, self.shutdown)
        elif not self.head:  # else a request is just arriving; its answer will end the connection
            self.transport.close()
            self.loop.call_later(LINGER, self.transport.abort)  # by https, the other side may never say goodbye

    def tick(self, now: float) -> None:
        """End the connection where it takes too long."""
        patience = self.hall.patience
        phase = WRITING if self.held or self.flow.write_paused else self.phase
        if phase != self.looked and phase in {IDLE, WRITING}:
            self.since, self.left = now, self.transport.get_write_buffer_size()  # since a moment after the last look
        self.looked, waited = phase, now - self.since
        if phase == IDLE and waited > patience.idle:
            self.transport.close()
        elif phase == WRITING:
            self._hurry(now, waited)
        elif phase == READING and waited > patience.head + self.received / patience.slowest:
            hint = f"Send a request within {patience.head:g} seconds, and a long body faster."
            self._refuse_rest(SlowRequest("The request took too long to arrive", hint=hint))
            self.since = now

    def _hurry(self, now: float, waited: float) -> None:
        """Leave a caller that hardly takes its answer."""
        patience, left = self.hall.patience, self.transport.get_write_buffer_size()
        if waited <= patience.head:
            return
        if self.left - left < patience.slowest * waited:
            self.transport.abort()
        self.since, self.left = now, left

    def resume_writing(self) -> None:
        """Go on, now that the caller has taken its answers."""
        super().resume_writing()
        if self.held:
            self.held = False
            self.on_response_complete()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Keep the connection until what was asked is answered, though the caller has no more to ask."""
        if self.in_body and self.pipeline:  # the last request stays half; those before it are whole
            self.pipeline.popleft()
            self.cycle = self.pipeline[0][0] if self.pipeline else self.turn
            self.in_body, self.phase = False, ANSWERING
        waits = self.cycle is not None and not self.cycle.response_complete and not self.in_body
        if waits:
            self.cycle.keep_alive = False
        return waits

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell who is being answered; uvicorn tells only the last one begun."""
        if self.turn is not None and not self.turn.response_complete:
            self.turn.disconnected = True
            self.turn.message_event.set()
        super().connection_lost(exc)

    def _declined(self, rest: bytes) -> bytes:
        """Write a request again without its offer to change the protocol (curl and Java make one to every server).

        The parser takes what follows such a request for the other protocol, so that its body would be lost.

        Raises:
            RequestError: it asks for a tunnel.
        """
        if self.parser.get_method() == b"CONNECT":
            raise RequestError("There are no tunnels here", hint="Send an HTTP/1.1 request.")
        method, kept = self.parser.get_method(), self.parser.should_keep_alive()
        lines = [b"%b %b HTTP/%b" % (method, self.url, self.parser.get_http_version().encode())]
        lines += [b"%b: %b" % pair for pair in self.headers if pair[0] not in {b"connection", b"upgrade"}]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        return b"\r\n".join([*lines, b"connection: keep-alive" if kept else b"connection: close", b"", rest])

    def _refuse_rest(self, error: KetchError) -> None:
        """Refuse what comes now and end the connection, once all that was asked before is answered."""
        self.refused = True
        self.headers = []
        refusal: Any = Question(self, "", "", keep_alive=False)
        refusal.read = True
        service = self.hall.service
        refusal.refusal = service.problem(error, Request("", ""), service.new_id())
        busy = self.cycle is not None and not self.cycle.response_complete
        if not self.in_body and busy:
            self.pipeline.appendleft((refusal, self.app))
        elif not self.in_body:
            refusal.start()
        elif not busy or (self.cycle is self.turn and getattr(self.cycle, "response_started", False)):
            self.transport.close()  # it has its answer, or part of it
        elif self.cycle is self.turn:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            refusal.start()
        else:
            self.pipeline[0] = (refusal, self.app)
