"""The fast front: uvicorn, with the predict route answered ahead of the Flask app.

Every complete question that arrived in one tick of the event loop is answered by one call of the model. There
is no timer, so that a lone question never waits.
"""

import asyncio
import http
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Final

import uvicorn
from a2wsgi import WSGIMiddleware
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ketch.batching import run_together
from ketch.bundle import read
from ketch.errors import KetchError, RequestError, SettingError
from ketch.pack import Options, compose
from ketch.predict import load, open_bundle
from ketch.serve import Response, door
from ketch.serve.guard import guard_at
from ketch.serve.routes import Asked, Service, too_large
from ketch.settings import home as home_of

PATH: Final = b"/predict"
MOST_ROWS: Final = 1024  # in one call of the model, so that a small question is not held up by a crowd
MOST_DISCARDED: Final = 64 * 2**20  # read on after a refusal, so that the client gets to see it
REASONS: Final = {status.value: status.phrase for status in http.HTTPStatus}


class Question:
    """One request to the predict route; stands where uvicorn's own cycle would."""

    __slots__ = (
        "body",
        "discarded",
        "disconnected",
        "front",
        "headers",
        "keep_alive",
        "message_event",
        "read",
        "response_complete",
        "started",
    )

    def __init__(self, front: "Front", headers: list[tuple[bytes, bytes]], *, keep_alive: bool) -> None:
        self.front = front
        self.headers = headers
        self.keep_alive = keep_alive
        self.body = bytearray()
        self.discarded = 0
        self.started = self.read = self.response_complete = self.disconnected = False
        self.message_event = _NOBODY_WAITS

    def feed(self, data: bytes) -> None:
        """Take a part of the body; one that grows too long is refused at once and its rest thrown away."""
        if self.response_complete:
            self.discarded += len(data)
            if self.discarded > MOST_DISCARDED:
                self.front.transport.close()
            return
        self.body += data
        if len(self.body) > self.front.service.max_body and self.started:
            self._refuse_length()

    def start(self) -> None:
        """Take the turn on this connection: all earlier answers are written."""
        self.started = True
        if len(self.body) > self.front.service.max_body:
            self._refuse_length()
        elif self.read:
            self.front.desk.put(self)

    def end(self) -> None:
        """Note that the body is whole."""
        self.read = True
        if self.response_complete:
            self.front.transport.close()
        elif self.started:
            self.front.desk.put(self)

    def _refuse_length(self) -> None:
        self.body.clear()
        service = self.front.service
        refused = service.problem(too_large(service.max_body), "/predict", service.request_id(self.named_headers()))
        self.keep_alive = self.read
        self.write(refused, close=self.read)

    def named_headers(self) -> dict[str, str]:
        """Give the headers as text."""
        return {name.decode("latin-1"): value.decode("latin-1") for name, value in self.headers}

    def write(self, response: Response, *, close: bool = True) -> None:
        """Write the answer; `close` ends the connection where it is not kept alive."""
        if self.disconnected:
            return
        head = f"HTTP/1.1 {response.status} {REASONS[response.status]}\r\ncontent-type: {response.content_type}\r\n"
        lines = "".join(f"{name.lower()}: {value}\r\n" for name, value in response.headers.items())
        last = "" if self.keep_alive else "connection: close\r\n"
        length = f"content-length: {len(response.body)}\r\n{last}\r\n"
        front = self.front
        date = b"".join(b"%b: %b\r\n" % pair for pair in front.server_state.default_headers)
        front.transport.write((head + lines).encode("latin-1") + date + length.encode("latin-1") + response.body)
        self.response_complete = True
        if not self.keep_alive and close:
            front.transport.close()
        front.on_response_complete()


class _NobodyWaits:
    def set(self) -> None:
        """Do what uvicorn asks of a cycle's event when a connection is lost: nothing here."""


_NOBODY_WAITS: Final = _NobodyWaits()


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
        ready: list[tuple[Question, Asked]] = []
        rows = 0
        for question in waiting:
            asked = None if question.disconnected else self._begin(question)
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
        service, headers = self._service, question.named_headers()
        request_id = service.request_id(headers)
        try:
            client = service.guard.check(headers, needs_key=True)
            return service.begin(headers, bytes(question.body), request_id, client)
        except Exception as error:
            question.write(service.problem(error, "/predict", request_id))
            return None

    def _answer(self, ready: list[tuple[Question, Asked]]) -> None:
        service = self._service
        try:
            found = run_together(service.predictor, [asked.rows for _, asked in ready])
        except Exception as error:
            found = [error if isinstance(error, KetchError) else KetchError(str(error)) for _ in ready]
        for (question, asked), results in zip(ready, found, strict=True):
            if isinstance(results, KetchError):
                response = service.problem(results, "/predict", asked.request_id)
            else:
                response = service.finish(asked, results)
            question.write(response)


class Front(HttpToolsProtocol):
    """uvicorn's protocol, with questions to the predict route taken out of its stream."""

    service: Service
    desks: dict[asyncio.AbstractEventLoop, Desk]
    cycle: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.desk = self.desks.get(self.loop) or self.desks.setdefault(self.loop, Desk(self.service, self.loop))

    def on_headers_complete(self) -> None:
        """Take a question, or leave the request to uvicorn and the Flask app."""
        parser = self.parser
        if self.url != PATH or parser.get_method() != b"POST" or self.expect_100_continue or parser.should_upgrade():
            super().on_headers_complete()
            return
        before, kept = self.cycle, parser.get_http_version() != "1.0" and parser.should_keep_alive()
        self.cycle = question = Question(self, self.headers, keep_alive=kept)
        if before is None or before.response_complete:
            question.started = True
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((question, self.app))  # type: ignore[arg-type]

    def on_body(self, body: bytes) -> None:
        """Hand a part of a body to whom it belongs."""
        if type(self.cycle) is Question:
            self.cycle.feed(body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Note the end of a request."""
        if type(self.cycle) is Question:
            self.cycle.end()
        else:
            super().on_message_complete()

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        if type(cycle) is Question:
            cycle.start()
        else:
            super()._start_asgi_task(cycle, app)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP, in the same form as everything else."""
        refused = self.service.problem(RequestError("This is not valid HTTP"), "", self.service.request_id({}))
        question = Question(self, [], keep_alive=False)
        question.write(refused)


class Server(uvicorn.Server):
    """uvicorn's server; a signal asks it to finish and go, and is not raised again afterwards."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Finish what is in flight; a second signal does not wait."""
        self.force_exit = self.should_exit
        self.should_exit = True


def listen(host: str, port: int) -> socket.socket:
    """Open the listening socket.

    Raises:
        SettingError: the address is taken or not ours.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_STREAM)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        opened.bind((host, port))
        opened.listen(2048)  # from here on callers wait rather than being turned away
    except (OSError, OverflowError) as error:
        opened.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise SettingError(
            f"{host}:{port} cannot be listened on: {reason}", hint="Choose another with --port or --host."
        ) from None
    return opened


def server_for(service: Service) -> Server:
    """Make the server of a service: the front, and the Flask app behind it."""
    front = type("ServiceFront", (Front,), {"service": service, "desks": {}})
    app = door("app_of")(service)
    config = uvicorn.Config(
        WSGIMiddleware(app),
        http=front,
        lifespan="off",
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=30,
    )
    return Server(config)


def serve_model(model: Any, *, background: bool, host: str, port: int, keys: tuple[str, ...]) -> str:
    """Serve a fitted object, a model file, a bundle or a store reference; in the background, give its URL.

    Raises:
        KetchError: the model cannot be opened, or the address not listened on.
    """
    home = home_of(os.environ)
    if isinstance(model, str | Path):
        predictor = load(model, home=home)
    else:
        packed = compose(model, None, Options(), home=home)
        predictor = open_bundle(read(packed.data, packed.name), home=home)
    service = Service(predictor, guard_at(host, keys))
    opened = listen(host, port)
    if not background:
        run(service, opened)
        return ""
    start(service, opened)
    return url_of(opened)


def url_of(opened: socket.socket) -> str:
    """Give the URL of a listening socket, by the name that a loopback client would use."""
    host, port = opened.getsockname()[:2]
    name = "localhost" if host in {"127.0.0.1", "0.0.0.0", "::1", "::"} else host  # noqa: S104 (compared, not bound)
    return f"http://{name}:{port}"


def run(service: Service, opened: socket.socket) -> None:
    """Serve until a signal comes, then finish what is in flight."""
    server_for(service).run(sockets=[opened])


def start(service: Service, opened: socket.socket) -> Callable[[], None]:
    """Serve in the background and give the function that stops it."""
    server = server_for(service)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [opened]}, name="ketch-serve", daemon=True)
    thread.start()

    def stop() -> None:
        server.should_exit = True
        thread.join(timeout=35)

    return stop
