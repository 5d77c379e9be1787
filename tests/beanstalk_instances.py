"""What Elastic Beanstalk does on an instance, done here: a source bundle is deployed as a real process, or refused.

`Local` starts `ketch serve` of the bundle that was deployed; `tests/ship` has one that builds and runs containers. The
balancer before them is a real server, too: it sends a request to the environment that has the name in its Host header.
"""

import contextlib
import hashlib
import http.client
import io
import json
import os
import re
import ssl
import subprocess
import sys
import tarfile
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol


class Refused(Exception):
    """A bundle that an instance cannot deploy: what stands in its log, and in the events."""


class Instance(Protocol):
    """A deployed bundle that runs, or ran."""

    def address(self) -> tuple[str, int] | None: ...

    def log(self) -> str: ...

    def stop(self) -> None: ...


@dataclass(frozen=True)
class Pulled:
    """An image as a registry gives it."""

    manifest: Mapping[str, Any]
    blobs: Mapping[str, bytes]

    @property
    def layers(self) -> list[bytes]:
        return [self.blobs[each["digest"]] for each in self.manifest["layers"]]

    @property
    def config(self) -> bytes:
        return self.blobs[self.manifest["config"]["digest"]]


Pull = Callable[[str], Pulled]
Runner = Callable[[bytes, Mapping[str, str], Pull], Instance]


def unzipped(data: bytes) -> dict[str, bytes]:
    """Give the files of a bundle."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {each.filename: archive.read(each) for each in archive.infolist() if not each.is_dir()}


def require_deployable(files: Mapping[str, bytes], platform: str) -> str:
    """Say how a bundle is deployed on a platform: image, build or python.

    Raises:
        Refused: as the platform's engine says it.
    """
    if "Python" in platform:
        if "Procfile" not in files and "application.py" not in files:
            raise Refused("Failed to find an application to run: there is neither Procfile nor application.py.")
        if not {"requirements.txt", "Pipfile.lock", "Pipfile"} & files.keys():
            raise Refused("ModuleNotFoundError: No module named 'ketch'")
        return "python"
    if "docker-compose.yml" in files:
        raise Refused("docker-compose is another way, which these tests do not have")
    if "Dockerrun.aws.json" in files:
        return _dockerrun(files)
    if "Dockerfile" not in files:
        raise Refused("Both 'Dockerfile' and 'Dockerrun.aws.json' are missing in your source bundle.")
    if not re.search(rb"(?mi)^EXPOSE\s+\d+", files["Dockerfile"]):
        raise Refused("No EXPOSE directive found in Dockerfile, abort deployment")
    return "build"


def _dockerrun(files: Mapping[str, bytes]) -> str:
    try:
        told = json.loads(files["Dockerrun.aws.json"])
    except ValueError:
        raise Refused("Dockerrun.aws.json is not valid JSON, abort deployment") from None
    if str(told.get("AWSEBDockerrunVersion")) not in {"1", "3"}:
        raise Refused("Invalid Dockerrun.aws.json version, abort deployment")
    if "Image" in told and "Dockerfile" in files:
        raise Refused("Dockerfile and the Image key of Dockerrun.aws.json cannot both be given, abort deployment")
    if "Image" in told and not told.get("Ports"):
        raise Refused("No ports are given in Dockerrun.aws.json, abort deployment")
    return "image" if "Image" in told else "build"


# ---- as processes of this machine --------------------------------------------------------------------


@dataclass
class Process:
    """A service that runs on this machine."""

    process: subprocess.Popen[str]
    said: Path
    _found: tuple[str, int] | None = None

    def address(self) -> tuple[str, int] | None:
        while self._found is None and self.process.poll() is None:
            if match := re.search(r"http://localhost:(\d+)", self.said.read_text("utf-8")):
                self._found = "127.0.0.1", int(match[1])
            else:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(0.02)
        return None if self.process.poll() is not None else self._found

    def log(self) -> str:
        return self.said.read_text("utf-8")

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)


@dataclass
class Local:
    """Deploys bundles as processes: what is the same runs once."""

    folder: Path
    running: dict[str, Process] = field(default_factory=dict)

    def __call__(self, data: bytes, environ: Mapping[str, str], pull: Pull) -> Process:
        known = hashlib.sha256(data + repr(sorted(environ.items())).encode()).hexdigest()
        if known not in self.running or self.running[known].process.poll() is not None:
            self.running[known] = self._start(unzipped(data), environ, pull, self.folder / known[:16])
        return self.running[known]

    def _start(self, files: Mapping[str, bytes], environ: Mapping[str, str], pull: Pull, place: Path) -> Process:
        if "Dockerrun.aws.json" in files:
            files = {
                "model/image.ketch": model_of(pull(json.loads(files["Dockerrun.aws.json"])["Image"]["Name"]).layers)
            }
        for path, content in files.items():
            target = place / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        model = next(path for path in files if path.endswith(".ketch"))
        words = _words(files, model)
        said = place / "said"
        own = {
            "PATH": os.environ["PATH"],
            "PYTHONUNBUFFERED": "1",
            "KETCH_DRAIN": "0",
            "KETCH_HOME": str(place / "home"),
        }
        own |= {"KETCH_WORKERS": "1"} | {
            name: value for name, value in environ.items() if name not in {"PORT", "KETCH_HOME"}
        }
        with said.open("w") as out:
            process = subprocess.Popen(
                [*words, "--port", "0"], cwd=place, env=own, stdin=subprocess.DEVNULL, stdout=out, stderr=out, text=True
            )
        return Process(process, said)

    def close(self) -> None:
        for each in self.running.values():
            each.stop()


def _words(files: Mapping[str, bytes], model: str) -> list[str]:
    """Give the command of a bundle: that of its Procfile, else what its image would run."""
    if "Procfile" in files:
        _, _, command = files["Procfile"].decode().strip().partition(": ")
        return [sys.executable if word == "python" else word for word in command.split()]
    return [sys.executable, "-m", "ketch", "serve", model]


def model_of(layers: list[bytes]) -> bytes:
    """Find the bundle in the layers of an image, the last one first."""
    for data in reversed(layers):
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            for each in archive.getmembers():
                if each.name.endswith(".ketch") and (found := archive.extractfile(each)):
                    return found.read()
    raise Refused("CannotPullContainerError: there is no model in the image")


# ---- the balancer ------------------------------------------------------------------------------------

Route = Callable[[str, bool], tuple[str, Any]]


class Balancer:
    """Sends each request to the instances of the environment that has its name; by HTTPS, too."""

    def __init__(self, route: Route) -> None:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *words: Any) -> None:
                pass

            def handle_one(self) -> None:
                encrypted = isinstance(self.connection, ssl.SSLSocket)
                name = self.headers.get("Host", "").partition(":")[0].lower()
                what, where = route(name, encrypted)
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if what == "redirect":
                    self._answer(301, [("Location", f"https://{name}{self.path}")], b"")
                elif what != "forward":
                    self._answer(503, [], what.encode())
                else:
                    self._forward(where, body)

            do_GET = do_POST = handle_one

            def _forward(self, where: tuple[str, int], body: bytes) -> None:
                asked = http.client.HTTPConnection(*where, timeout=30)
                headers = {key: value for key, value in self.headers.items() if key.lower() != "connection"}
                try:
                    asked.request(self.command, self.path, body, headers)
                    answer = asked.getresponse()
                    told = [(k, v) for k, v in answer.getheaders() if k.lower() in {"content-type", "ketch-model"}]
                    self._answer(answer.status, told, answer.read())
                except OSError:
                    self._answer(502, [], b"")
                finally:
                    asked.close()

            def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
                self.send_response(status)
                for name, value in [*headers, ("Content-Length", str(len(body)))]:
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

        self._handler = Handler
        self._servers: list[ThreadingHTTPServer] = []
        self.port = self._listen(None)
        self.secure_port = 0

    def encrypt(self, context: ssl.SSLContext) -> None:
        """Listen for HTTPS, too."""
        self.secure_port = self._listen(context)

    def _listen(self, context: ssl.SSLContext | None) -> int:
        server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler)
        server.daemon_threads = True
        if context:
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        self._servers.append(server)
        return int(server.server_address[1])

    def close(self) -> None:
        for each in self._servers:
            each.shutdown()
            each.server_close()


@contextlib.contextmanager
def local() -> Iterator[Local]:
    """Deploy as processes of this machine."""
    with tempfile.TemporaryDirectory() as folder:
        made = Local(Path(folder))
        try:
            yield made
        finally:
            made.close()
