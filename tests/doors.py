"""The doors of a service, all alike from outside: the same request goes in, the same answer must come out."""

import http.client
import io
import os
import random
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from urllib.parse import unquote_to_bytes

import flask
import msgspec
from werkzeug.test import run_wsgi_app

from ketch.pack import Options, compose
from ketch.predict import Predictor, load
from ketch.serve import Request
from ketch.serve.app import app_of, blueprint
from ketch.serve.guard import Guard
from ketch.serve.routes import Service
from ketch.serve.server import listen, start

KEY = "a-key-that-is-long-enough-0123456789"
NAMES = ("service", "flask", "front", "gunicorn", "mounted")
MOUNTED_AT = "/models/churn"
PROBLEM = "application/problem+json"
MEMBERS = {"type", "title", "status", "detail", "instance", "code", "hint"}

Headers = Mapping[str, str | None]
NONE: Headers = {}


class Answered(NamedTuple):
    """What came out; header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    @property
    def kind(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0]


class Door(Protocol):
    """One way into a service. A header given as None is left out; Host is localhost unless given."""

    @property
    def name(self) -> str: ...

    def send(self, method: str, path: str, headers: Headers = NONE, body: bytes = b"") -> Answered: ...


def with_host(headers: Headers, host: str = "localhost") -> dict[str, str]:
    given = {"host": host, **{name.lower(): value for name, value in headers.items()}}
    return {name: value for name, value in given.items() if value is not None}


@dataclass
class ServiceDoor:
    """The core itself."""

    service: Service
    name: str = "service"

    def send(self, method: str, path: str, headers: Headers = NONE, body: bytes = b"") -> Answered:
        bare, _, query = path.partition("?")
        asked = Request(method, bare, with_host(headers), body, "http://localhost", query)
        made = self.service.handle(asked)
        found = {name.lower(): value for name, value in made.headers.items()} | {"content-type": made.content_type}
        return Answered(made.status, found, b"" if method == "HEAD" else made.body)


@dataclass
class WsgiDoor:
    """A Flask app, called as a WSGI server would call it."""

    app: flask.Flask
    name: str = "flask"
    prefix: str = ""

    def send(self, method: str, path: str, headers: Headers = NONE, body: bytes = b"") -> Answered:
        bare, _, query = path.partition("?")
        environ: dict[str, Any] = {
            "REQUEST_METHOD": method,
            "SCRIPT_NAME": "",
            "PATH_INFO": unquote_to_bytes(self.prefix + bare).decode("latin-1"),
            "QUERY_STRING": query,
            "SERVER_NAME": "127.0.0.1",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "CONTENT_LENGTH": str(len(body)),
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(body),
            "wsgi.errors": sys.stderr,
        }
        for name, value in with_host(headers).items():
            plain = name.upper().replace("-", "_")
            environ[plain if plain == "CONTENT_TYPE" else f"HTTP_{plain}"] = value
        parts, status, found = run_wsgi_app(self.app, environ, buffered=True)
        return Answered(int(status[:3]), {name.lower(): value for name, value in found}, b"".join(parts))


@dataclass
class SocketDoor:
    """A port on this machine; every request on a connection of its own."""

    name: str
    port: int

    def send(self, method: str, path: str, headers: Headers = NONE, body: bytes = b"") -> Answered:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in with_host(headers).items():
                connection.putheader(name, value.encode("latin-1"))
            if body or method in {"POST", "PUT", "PATCH"}:
                connection.putheader("content-length", str(len(body)))
            connection.endheaders(body)
            with connection.getresponse() as found:
                return Answered(found.status, {name.lower(): value for name, value in found.getheaders()}, found.read())
        finally:
            connection.close()


ROW: Mapping[str, Any] = {"charges": 51.5, "contract": "monthly", "plan": "a", "tenure": 5}


@dataclass
class Small:
    """A vectorizer and a logistic regression on made-up rows: two categories, a number, a whole number."""

    home: Path
    bundle: Path
    predictor: Predictor
    parts: tuple[Any, Any]

    @classmethod
    def pack(cls, home: Path, seed: int = 1) -> "Small":
        from sklearn.feature_extraction import DictVectorizer
        from sklearn.linear_model import LogisticRegression

        data = rows(60, seed=seed)
        target: list[object] = [int(row["tenure"] < 30) for row in data]
        vectorizer = DictVectorizer(sparse=False)
        model = LogisticRegression(max_iter=2000).fit(vectorizer.fit_transform(data), target)
        columns: dict[str, list[object]] = {name: [row[name] for row in data] for name in data[0]}
        packed = compose((vectorizer, model), columns | {"churn": target}, Options(target="churn"), home=home)
        bundle = home / "churn.ketch"
        bundle.write_bytes(packed.data)
        return cls(home, bundle, load(bundle, home=home), (vectorizer, model))


def rows(n: int, seed: int = 0) -> list[dict[str, Any]]:
    """Make up rows, no two alike."""
    chance = random.Random(seed)
    return [
        {
            "charges": chance.uniform(20, 100),
            "contract": chance.choice(["monthly", "yearly"]),
            "plan": chance.choice(["a", "b", "c"]),
            "tenure": chance.randint(0, 72),
        }
        for _ in range(n)
    ]


class Doors:
    """All doors to one model, made when they are first asked for; `guarded` ones ask for KEY."""

    def __init__(self, predictor: Predictor, bundle: Path, home: Path) -> None:
        self.predictor = predictor
        self._bundle, self._home = bundle, home
        self._open: dict[tuple[str, bool], Door] = {}
        self._cleanup = ExitStack()

    def service(self, *, guarded: bool = False, **options: Any) -> Service:
        return Service(self.predictor, Guard((KEY,) if guarded else ()), **options)

    def __call__(self, name: str, *, guarded: bool = False) -> Door:
        if (name, guarded) not in self._open:
            self._make(name, guarded)
        return self._open[name, guarded]

    def close(self) -> None:
        self._cleanup.close()

    def _make(self, name: str, guarded: bool) -> None:
        if name == "gunicorn":  # one process for both
            ports = self._cleanup.enter_context(gunicorn(self._bundle, self._home))
            for port, each in zip(ports, (False, True), strict=True):
                self._open[name, each] = SocketDoor(name, port)
            return
        service = self.service(guarded=guarded)
        makers: dict[str, Callable[[], Door]] = {
            "service": lambda: ServiceDoor(service),
            "flask": lambda: WsgiDoor(app_of(service)),
            "mounted": lambda: WsgiDoor(mounted(service), "mounted", MOUNTED_AT),
            "front": lambda: SocketDoor("front", self._cleanup.enter_context(fronting(service))),
        }
        self._open[name, guarded] = makers[name]()


def mounted(service: Service) -> flask.Flask:
    """Somebody else's app, with a model below a path."""
    app = flask.Flask("theirs", static_folder=None)
    app.add_url_rule("/", "index", lambda: "theirs")
    app.register_blueprint(blueprint(service), url_prefix=MOUNTED_AT)
    return app


@contextmanager
def fronting(service: Service) -> Iterator[int]:
    """Serve in the background and give the port."""
    opened = listen("127.0.0.1", 0)
    port: int = opened.getsockname()[1]
    stop = start(service, opened)
    try:
        yield port
    finally:
        stop()


GUNICORN_APP = f"""
import os
import ketch
predictor = ketch.load(os.environ["MODEL"])
apps = {{
    os.environ["LOCAL"]: ketch.flask_app(predictor),
    os.environ["GUARDED"]: ketch.flask_app(predictor, keys=({KEY!r},)),
}}
def app(environ, start_response):
    return apps[environ["SERVER_PORT"]](environ, start_response)
"""


@contextmanager
def gunicorn(bundle: Path, home: Path) -> Iterator[Sequence[int]]:
    """Run the Flask app on gunicorn, as a production server would be: its two ports, without and with a key."""
    (home / "served.py").write_text(GUNICORN_APP)
    with listen("127.0.0.1", 0) as local, listen("127.0.0.1", 0) as guarded:
        ports = [each.getsockname()[1] for each in (local, guarded)]
        command = [sys.executable, "-m", "gunicorn", "served:app", "--chdir", str(home), "--log-level", "warning"]
        for each in (local, guarded):
            command += ["--bind", f"fd://{each.fileno()}"]
        environ = {**os.environ, "KETCH_HOME": str(home), "MODEL": str(bundle)}
        environ |= {"LOCAL": str(ports[0]), "GUARDED": str(ports[1])}
        process = subprocess.Popen(command, env=environ, pass_fds=[local.fileno(), guarded.fileno()])
    try:
        yield ports
    finally:
        process.terminate()
        process.wait(timeout=30)


class Wire:
    """A bare connection, for what no client would send."""

    def __init__(self, port: int, timeout: float = 20.0) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self._file = self.socket.makefile("rb")

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self.socket.close()

    def send(self, *parts: bytes) -> None:
        for part in parts:
            self.socket.sendall(part)

    def answer(self, method: str = "POST") -> Answered:
        """Read the next answer off the connection."""
        found = http.client.HTTPResponse(_Shared(self._file), method=method)  # type: ignore[arg-type]
        found.begin()
        return Answered(found.status, {name.lower(): value for name, value in found.getheaders()}, found.read())

    def rest(self) -> bytes:
        """Read until the server closes."""
        return self._file.read()


@dataclass
class _Shared:
    """What HTTPResponse takes for a socket: it must not close the file that the next answer is read from."""

    file: Any

    def makefile(self, *_: object) -> "_Shared":
        return self

    def close(self) -> None: ...

    def flush(self) -> None: ...

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


def question(row: object, *headers: str, path: str = "/predict", version: str = "1.1") -> bytes:
    """Write a whole request as it goes over the wire."""
    body = row if isinstance(row, bytes) else msgspec.json.encode(row)
    lines = [f"POST {path} HTTP/{version}", "Host: localhost", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def getting(path: str, *headers: str, method: str = "GET") -> bytes:
    """Write a request without a body as it goes over the wire."""
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *headers, "", ""]).encode("latin-1")


def problem(answered: Answered, method: str = "POST") -> dict[str, Any]:
    """Hold an answer against RFC 9457 and the wire contract, and give its body."""
    assert 400 <= answered.status < 500, answered
    assert answered.headers["content-type"] == PROBLEM
    assert answered.headers["x-request-id"]
    if method == "HEAD":
        assert answered.body == b""
        return {}
    found: dict[str, Any] = answered.json
    assert found.keys() >= MEMBERS, found
    assert found["status"] == answered.status
    assert found["type"] == f"urn:ketch:error:{found['code']}"
    assert found["instance"] == f"urn:ketch:request:{answered.headers['x-request-id']}"
    assert found["title"]
    assert found["detail"]
    assert found["hint"]
    return found


def sound(answered: Answered, method: str = "POST") -> None:
    """Whatever was asked: no 500, and every refusal in the one form."""
    if answered.status >= 400:
        problem(answered, method)
    else:
        assert answered.status == 200, answered
    for name, value in answered.headers.items():
        assert name.isascii()
        assert value.isprintable()
