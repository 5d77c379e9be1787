"""What fakes of clouds run: real processes of `ketch serve`, with the environment that a request asked for."""

import contextlib
import http.client
import json
import multiprocessing
import os
import socket
import sys
import threading
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


@dataclass
class Instances:
    """Processes by what they serve and their environment; the same is not started twice."""

    home: Path
    running: dict[Any, tuple[Any, int]] = field(default_factory=dict)

    def port(self, bundle: Path, environ: Mapping[str, str]) -> int:
        """Give the port of a process, started when there is none yet."""
        known = (bundle, *sorted(environ.items()))
        if known not in self.running:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
            context = multiprocessing.get_context("forkserver")
            context.set_forkserver_preload(["tests.preload"])
            told = {**environ, "PORT": str(port), "KETCH_HOST": "0.0.0.0", "KETCH_HOME": str(self.home)}
            told |= {"AIP_HTTP_PORT": str(port)} if "AIP_HTTP_PORT" in environ else {}
            process = context.Process(target=_serve, args=(str(bundle), told), daemon=True)
            process.start()
            self.running[known] = process, port
        return self.running[known][1]

    def answers(self, port: int, path: str) -> bool:
        """Ask a probe until it says yes, or the process ends."""
        process = next(each for each, at in self.running.values() if at == port)
        until = time.monotonic() + 20
        while time.monotonic() < until and process.exitcode is None:
            made = contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5))
            with contextlib.suppress(OSError, http.client.HTTPException), made as asked:
                asked.request("GET", path)
                status = asked.getresponse().status
                if status == 200:
                    return True
                if status in {401, 403, 404}:
                    return False
            time.sleep(0.02)
        return False

    def close(self) -> None:
        """End them all."""
        for process, _ in self.running.values():
            process.terminate()
        for process, _ in self.running.values():
            process.join(20)


class Refused(Exception):
    """A refusal, in the words of a cloud."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class Server(ThreadingHTTPServer):
    """An address of a fake of a cloud."""

    daemon_threads = True
    cloud: Any
    is_tls = False


class Answering(BaseHTTPRequestHandler):
    """One connection to a fake of a cloud; what runs there is reached through it."""

    server: Server
    invalid = ""  # how the cloud calls what cannot be meant
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer is one packet
    disable_nagle_algorithm = True

    def answer(self, path: str, query: dict[str, list[str]], data: bytes) -> None:
        """Answer one request."""
        raise NotImplementedError

    def words(self, refused: Refused) -> dict[str, Any]:
        """Tell a refusal as the cloud does."""
        raise NotImplementedError

    def _do(self) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path, _, asked = self.path.partition("?")
        try:
            self.answer(urllib.parse.unquote(path), urllib.parse.parse_qs(asked, keep_blank_values=True), data)
        except Refused as error:
            self.tell(error.status, {"error": self.words(error)})
        except Exception as error:  # whatever it is, the test is to see it
            self.server.cloud.wrong.append(f"{self.command} {self.path}: {type(error).__name__} {error}")
            self.tell(400, {"error": self.words(Refused(400, self.invalid, str(error)))})

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _do

    def forward(self, port: int, path: str, data: bytes) -> None:
        """Let a process answer."""
        kept = {each: self.headers[each] for each in ("Authorization", "Content-Type", "Accept") if self.headers[each]}
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as asked:
            asked.request(self.command, path, data or None, kept)
            answer = asked.getresponse()
            body = answer.read()
        self.send(answer.status, body, {"Content-Type": answer.headers.get("Content-Type", "")})

    def tell(self, status: int, told: Any, headers: Mapping[str, str] | None = None) -> None:
        """Answer in JSON."""
        body = b"" if told is None else json.dumps(told).encode()
        self.send(status, body, {"Content-Type": "application/json", **(headers or {})})

    def send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        """Answer."""
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def listening(*servers: ThreadingHTTPServer) -> Iterator[None]:
    """Let servers answer, and end them."""
    threads = [threading.Thread(target=each.serve_forever, args=(0.02,), daemon=True) for each in servers]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for server, thread in zip(servers, threads, strict=True):
            server.shutdown()
            thread.join()
            server.server_close()


def _serve(bundle: str, environ: dict[str, str]) -> None:
    for number, flags in ((0, os.O_RDONLY), (1, os.O_WRONLY), (2, os.O_WRONLY)):
        if not os.environ.get("KETCH_TEST_LOUD"):
            os.dup2(os.open(os.devnull, flags), number)
    for name in [each for each in os.environ if each.startswith(("KETCH_", "AIP_")) or each == "PORT"]:
        del os.environ[name]
    os.environ.update({"KETCH_DRAIN": "0", "KETCH_WORKERS": "1", **environ})
    sys.argv = ["ketch", "serve", bundle]
    from ketch.cli import main

    main()
