"""The fast front: uvicorn, with the predict route answered ahead of the Flask app.

Every complete question that arrived in one tick of the event loop is answered by one call of the model. There
is no timer, so that a lone question never waits.
"""

import asyncio
import http
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import unquote_to_bytes

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ketch.batching import run_together
from ketch.errors import HeadersTooLarge, RequestError
from ketch.predict import Results
from ketch.serve import Request, Response
from ketch.serve.routes import MOST_DISCARDED, Asked, Service, too_large

PATH: Final = b"/predict"
MOST_ROWS: Final = 1024  # in one call of the model, so that a small question is not held up by a crowd
LARGEST_HEAD: Final = 2**16  # bytes of URL and headers; what arrives in one piece is read all the same
REASONS: Final = {status.value: status.phrase for status in http.HTTPStatus}


class Question:
    """One request to the predict route, or the refusal of one; stands where uvicorn's own cycle would."""

    __slots__ = (
        "body",
        "discarded",
        "disconnected",
        "expects",
        "front",
        "headers",
        "keep_alive",
        "message_event",
        "read",
        "refusal",
        "response_complete",
        "started",
        "too_long",
    )

    def __init__(self, front: "Front", headers: Mapping[str, str], *, keep_alive: bool, expects: bool = False) -> None:
        self.front = front
        self.headers = headers
        self.keep_alive = keep_alive
        self.expects = expects
        self.body = bytearray()
        self.discarded = 0
        self.refusal: Response | None = None
        self.started = self.read = self.too_long = self.response_complete = self.disconnected = False
        self.message_event = _NOBODY_WAITS

    def feed(self, data: bytes) -> None:
        """Take a part of the body; one that grows too long is refused as soon as may be and its rest thrown away."""
        if self.too_long:
            self.discarded += len(data)
            if self.discarded > MOST_DISCARDED:
                self.front.transport.close()
            return
        self.body += data
        if len(self.body) > self.front.service.max_body:
            self.too_long, self.body = True, bytearray()
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
            self.front.desk.put(self)
        elif self.expects:
            self.front.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def end(self) -> None:
        """Note that the body is whole."""
        self.read = True
        if self.response_complete:
            if not self.keep_alive:
                self.front.transport.close()
        elif self.started:
            self.front.desk.put(self)

    def _refuse_length(self) -> None:
        service = self.front.service
        asked = Request("POST", "/predict", self.headers)
        self.write(service.handle(asked, unread=too_large(service.max_body)))

    def write(self, response: Response) -> None:
        """Write the answer; where the connection is not kept, it ends when all of the question is read."""
        front = self.front
        if front.transport.is_closing():
            return
        head = f"HTTP/1.1 {response.status} {REASONS[response.status]}\r\ncontent-type: {response.content_type}\r\n"
        lines = "".join(f"{name.lower()}: {value}\r\n" for name, value in response.headers.items())
        last = "" if self.keep_alive else "connection: close\r\n"
        length = f"content-length: {len(response.body)}\r\n{last}\r\n"
        date = b"".join(b"%b: %b\r\n" % pair for pair in front.server_state.default_headers)
        front.transport.write((head + lines).encode("latin-1") + date + length.encode("latin-1") + response.body)
        self.response_complete = True
        if self.read and not self.keep_alive:
            front.transport.close()
        front.on_response_complete()


class _NobodyWaits:
    def set(self) -> None:
        """Do what uvicorn asks of a cycle's event when a connection is lost: nothing here."""


_NOBODY_WAITS: Final = _NobodyWaits()


def named(headers: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    """Give headers as text; of one that comes twice the values stand in one line, as WSGI has it."""
    found = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}
    if len(found) < len(headers):
        for name in found:
            found[name] = ",".join(value.decode("latin-1") for each, value in headers if each.decode("latin-1") == name)
    return found


class Desk:
    """Collect the questions of one tick and answer them together."""

    def __init__(self, service: Service, loop: asyncio.AbstractEventLoop) -> None:
        self._service = service
        self._loop = loop
        self._waiting: list[Question] = []

    def put(self, question: Question) -> None:
        """Queue a complete question; the first of a tick calls for the answers."""
        self._waiting.append(question)
        if len(self._waiting) == 1:
            self._loop.call_soon(self._answer_all)

    def _answer_all(self) -> None:
        waiting, self._waiting = self._waiting, []
        try:
            self._answer_by_parts(waiting)
        finally:
            for question in waiting:  # nobody is left waiting for an answer that does not come
                if not question.response_complete:
                    question.front.transport.close()

    def _answer_by_parts(self, waiting: Sequence[Question]) -> None:
        ready: list[tuple[Question, Asked]] = []
        rows = 0
        for question in waiting:
            asked = None if question.front.transport.is_closing() else self._begin(question)
            if asked is None:
                continue
            if ready and rows + asked.rows.n > MOST_ROWS:
                self._answer(ready)
                ready, rows = [], 0
            ready.append((question, asked))
            rows += asked.rows.n
        if ready:
            self._answer(ready)

    def _begin(self, question: Question) -> Asked | None:
        service, headers = self._service, question.headers
        request_id = service.request_id(headers)
        try:
            client = service.guard.check(headers, needs_key=True)
            return service.begin(headers, bytes(question.body), request_id, client)
        except Exception as error:
            question.write(service.problem(error, "/predict", request_id))
            return None

    def _answer(self, ready: Sequence[tuple[Question, Asked]]) -> None:
        found: Sequence[Results | Exception]
        try:
            found = run_together(self._service.predictor, [asked.rows for _, asked in ready])
        except Exception as error:
            found = [error] * len(ready)
        for (question, asked), results in zip(ready, found, strict=True):
            question.write(self._response(asked, results))

    def _response(self, asked: Asked, results: Results | Exception) -> Response:
        try:
            if isinstance(results, Exception):
                raise results
            return self._service.finish(asked, results)
        except Exception as error:
            return self._service.problem(error, "/predict", asked.request_id)


class Front(HttpToolsProtocol):
    """uvicorn's protocol, with questions to the predict route taken out of its stream."""

    service: Service
    desks: dict[asyncio.AbstractEventLoop, Desk]
    cycle: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.desk = self.desks.get(self.loop) or self.desks.setdefault(self.loop, Desk(self.service, self.loop))
        self.turn: Any = None  # the cycle that is being answered; `cycle` is the last one begun
        self.in_body = False
        self.refused = False
        self.held = False
        self.head = 0  # bytes since the last headers or piece of a body were complete

    def data_received(self, data: bytes) -> None:
        """Read on, but not for ever without an end of the headers."""
        if self.refused:
            return
        self.head += len(data)
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            self._decline(data[offer.args[0] :])
        except httptools.HttpParserError:
            self._refuse_rest(RequestError("This is not valid HTTP", hint="Send an HTTP/1.1 request."))
        if self.head > LARGEST_HEAD and not self.refused:
            hint = f"Keep URL and headers together below {LARGEST_HEAD} bytes."
            self._refuse_rest(HeadersTooLarge("The headers are too large", hint=hint))

    def on_headers_complete(self) -> None:
        """Take a question, or leave the request to uvicorn and the Flask app."""
        self.head = 0
        parser, method = self.parser, self.parser.get_method()
        if parser.should_upgrade() and method != b"CONNECT":
            return
        if method != b"POST" or not self._is_for_predict():
            # WSGI takes _ for -: another header would go by the name of a known one
            self.headers[:] = [pair for pair in self.headers if b"_" not in pair[0]]
            super().on_headers_complete()
            self.in_body = True
            return
        before, kept = self.cycle, parser.get_http_version() != "1.0" and parser.should_keep_alive()
        self.cycle = Question(self, named(self.headers), keep_alive=kept, expects=self.expect_100_continue)
        self.in_body = True
        if before is None or before.response_complete:
            self._start_asgi_task(self.cycle, self.app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))

    def _is_for_predict(self) -> bool:
        return self.url == PATH or unquote_to_bytes(httptools.parse_url(self.url).path or b"") == PATH

    def on_body(self, body: bytes) -> None:
        """Hand a part of a body to whom it belongs."""
        self.head = 0
        if type(self.cycle) is Question:
            self.cycle.feed(body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Note the end of a request."""
        if self.parser.should_upgrade():
            return
        self.in_body = False
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
        if self.flow.write_paused and not self.transport.is_closing():
            self.flow.pause_reading()
            self.held = True
        else:
            super().on_response_complete()

    def resume_writing(self) -> None:
        """Go on, now that the caller has taken its answers."""
        super().resume_writing()
        if self.held:
            self.held = False
            self.on_response_complete()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Keep the connection until what was asked is answered, though the caller has no more to ask."""
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

    def _decline(self, rest: bytes) -> None:
        """Read a request again without its offer to change the protocol (curl and Java make one to every server).

        The parser takes what follows such a request for the other protocol, so that its body would be lost.
        """
        method, kept = self.parser.get_method(), self.parser.should_keep_alive()
        lines = [b"%b %b HTTP/%b" % (method, self.url, self.parser.get_http_version().encode())]
        lines += [b"%b: %b" % pair for pair in self.headers if pair[0] not in {b"connection", b"upgrade"}]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        self.data_received(
            b"\r\n".join([*lines, b"connection: keep-alive" if kept else b"connection: close", b"", rest])
        )

    def _refuse_rest(self, error: RequestError) -> None:
        """Refuse what comes now and end the connection, once all that was asked before is answered."""
        self.refused = True
        refusal: Any = Question(self, {}, keep_alive=False)
        refusal.read = True
        refusal.refusal = self.service.problem(error, "", self.service.request_id({}))
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
