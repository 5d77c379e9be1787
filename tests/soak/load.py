"""Servers under load: models whose answers name their question and their version, and callers that check each answer.

A model made by `echo` answers a nonce with the nonce plus its own constant. So one number tells whether an answer
belongs to the question, and whether it is of the version that the header names.
"""

import asyncio
import json
import os
import random
import re
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import uvloop
from sklearn.linear_model import LinearRegression

from ketch.bundle import read
from ketch.pack import Options, compose
from tests.running import KETCH

STEP = 2.0**30  # between the constants of two versions; all answers are whole numbers below 2**53
CONNECTIONS = 16
REFUSED = (ConnectionRefusedError,)


# ---- models ------------------------------------------------------------------------------------------


def echo(home: Path, number: int = 0, name: str = "echo") -> bytes:
    """Pack version `number` of a model that answers what it is asked, and its number."""
    nonces = np.arange(64.0)
    model = LinearRegression().fit(nonces[:, None], nonces)
    model.coef_, model.intercept_ = np.array([1.0]), STEP * number
    columns: dict[str, list[object]] = {"nonce": [*nonces], "answer": [*(nonces + STEP * number)]}
    return compose(model, columns, Options(target="answer", name=name), home=home).data


def sha256_of(bundle: bytes) -> str:
    return read(bundle, "echo").sha256


SLOW = '''
"""A model of a user's own that takes its time: nonce in, nonce out; each row that it is asked is written down."""

import os
import time


def answer(rows):
    with open(os.environ["ASKED"], "a", encoding="ascii") as asked:
        asked.write("".join(f"{row['nonce']:.0f}\\n" for row in rows))
    time.sleep(0.005)  # so much that it is left to a thread
    for row in rows:
        spent = row["spend"]
        if spent < 0:  # holds the interpreter's lock all the while
            sum(range(int(-spent * 3e7)))
        else:
            time.sleep(spent)
    return [float(row["nonce"]) for row in rows]
'''


def slow(home: Path, folder: Path) -> Path:
    """Pack a model that stays at work for `spend` seconds a row; below 0, it holds the interpreter's lock."""
    import importlib
    import sys

    (folder / "slowly.py").write_text(SLOW)
    sys.path.insert(0, str(folder))
    os.environ["ASKED"] = os.devnull
    try:
        answer = importlib.import_module("slowly").answer
        columns: dict[str, list[object]] = {
            "nonce": [float(each) for each in range(40)],
            "spend": [0.0, 0.0001] * 20,
            "answer": [float(each) for each in range(40)],
        }
        packed = compose(answer, columns, Options(target="answer", name="slow"), home=home)
    finally:
        sys.path.remove(str(folder))
        sys.modules.pop("slowly", None)
        del os.environ["ASKED"]
    made = folder / "slow.ketch"
    made.write_bytes(packed.data)
    return made


# ---- servers -----------------------------------------------------------------------------------------


@dataclass
class Server:
    """A running `ketch serve`."""

    process: subprocess.Popen[bytes]
    port: int
    said: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def workers(self) -> list[int]:
        return children(self.pid)

    @property
    def log(self) -> str:
        return self.said.read_text()

    def get(self, path: str, timeout: float = 5.0) -> tuple[int, str]:
        """Ask on a connection of its own."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=timeout) as line:
            line.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            found = b"".join(iter(lambda: line.recv(65536), b"")).decode()
        if not found:
            raise ConnectionError("it ended without an answer")
        head, _, body = found.partition("\r\n\r\n")
        return int(head[9:12]), body

    def metrics(self) -> dict[str, float]:
        """Give every sample by its name and labels, in the order of the labels' names."""
        found = {}
        for line in self.get("/metrics", timeout=20)[1].splitlines():
            if not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                found[name] = float(value)
        return found

    def end(self, number: int = signal.SIGTERM, timeout: float = 60.0) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout)


def children(pid: int) -> list[int]:
    """Give the living children of a process."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(each) for each in found if state(int(each)) not in "Z"]


def state(pid: int) -> str:
    """Give R, S, Z …; empty where there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def eventually(true: Callable[[], object], seconds: float = 10.0, every: float = 0.02) -> float:
    """Wait until something is so; give how long it took."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() < began + seconds, "it is still not so"
        time.sleep(every)
    return time.monotonic() - began


def launch(*words: object, home: Path, port: int = 0, said: Path | None = None, **environ: str) -> Server:
    """Start a server and wait until all of its workers answer."""
    said = said or home / f"said-{time.monotonic_ns()}"
    with said.open("ab") as errors:
        process = subprocess.Popen(
            [*KETCH, "serve", *map(str, words), "--port", str(port)],
            env={**os.environ, "KETCH_HOME": str(home), "PYTHONUNBUFFERED": "1", **environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )
    line = process.stdout.readline().decode() if process.stdout else ""
    found = re.search(r"http://[^\s:]+:(\d+)", line)
    if found is None:
        process.kill()
        process.wait()
        raise AssertionError(f"no address in {line!r}: {said.read_text()}")
    return Server(process, int(found[1]), said)


@contextmanager
def serving(*words: object, home: Path, **environ: Any) -> Iterator[Server]:
    """Run a server, and leave nothing of it behind."""
    server = launch(*words, home=home, **environ)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.process.terminate()
            try:
                server.process.wait(40)
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(server.pid, signal.SIGKILL)
                server.process.wait()
        if server.process.stdout:
            server.process.stdout.close()
    assert "Traceback" not in server.log, server.log


# ---- callers -----------------------------------------------------------------------------------------


@dataclass
class Tally:
    """What the callers have seen."""

    asked: int = 0
    answered: int = 0
    broken: int = 0  # connections that ended before the answer came; the question was asked once more
    closed: int = 0  # connections that the server ended between two questions, as it had said or not
    statuses: Counter[int] = field(default_factory=Counter)
    versions: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    refused_seconds: list[float] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)
    spent: float = 0.0

    def late(self, share: float) -> float:
        """Give the time within which this share of the answers came."""
        return sorted(self.seconds)[int(share * (len(self.seconds) - 1))]

    def __str__(self) -> str:
        rate = self.answered / self.spent if self.spent else 0.0
        worst = f", p50 {self.late(0.5) * 1e3:.1f} ms, p99 {self.late(0.99) * 1e3:.1f} ms" if self.seconds else ""
        return (
            f"{self.asked} asked, {self.answered} answered, {rate:.0f}/s{worst}, {dict(self.statuses)}, "
            f"{self.broken} broken, {self.closed} closed, {len(self.wrong)} wrong, {len(self.failed)} failed"
        )


class Line(asyncio.Protocol):
    """One connection of a caller."""

    def __init__(self, caller: "Caller") -> None:
        self.caller = caller

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.caller.connected(self)

    def data_received(self, data: bytes) -> None:
        if self.caller.line is self:
            self.caller.received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.caller.line is self:
            self.caller.lost(exc)


class Caller:
    """One connection at a time: asks, checks, asks again; asks once more where the connection breaks."""

    def __init__(self, crowd: "Crowd") -> None:
        self.crowd, self.tally, self.loop = crowd, crowd.tally, asyncio.get_running_loop()
        self.line: Line | None = None
        self.buffer = b""
        self.nonce, self.again, self.waiting = -1, False, False
        self.sent = self.due = 0.0
        self.port = 0
        self.over: asyncio.Future[None] = self.loop.create_future()

    async def connect(self) -> None:
        """Connect to a target that is ready, another where it is refused."""
        until = time.monotonic() + self.crowd.patience
        while True:
            self.port = self.crowd.target()
            try:
                await self.loop.create_connection(lambda: Line(self), "127.0.0.1", self.port)
                return
            except OSError as error:
                if not isinstance(error, REFUSED) or time.monotonic() > until:
                    self.tally.failed.append(f"connecting to {self.port}: {error!r}")
                    self._finish()
                    return
                self.crowd.avoid(self.port)
                await asyncio.sleep(0.001)

    def connected(self, line: Line) -> None:
        self.line, self.buffer = line, b""
        if self.waiting:
            self._send()
        else:
            self._next()

    def _next(self) -> None:
        self.nonce = self.crowd.next()
        if self.nonce < 0:
            self._finish()
            return
        self.again = False
        pause = self.crowd.pause(self)
        if pause > 0:
            self.loop.call_later(pause, self._ask)
        else:
            self._ask()

    def _ask(self) -> None:
        self.waiting = True
        self.tally.asked += 1
        if self.line is not None:
            self._send()
        else:
            self.crowd.spawn(self.connect())

    def _send(self) -> None:
        self.sent = time.monotonic()
        assert self.line is not None
        self.line.transport.write(self.crowd.question(self.nonce))

    def received(self, data: bytes) -> None:
        self.buffer += data
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self.buffer[:end].lower()
        at = head.find(b"content-length: ") + 16
        length = int(head[at : head.find(b"\r\n", at)] if head.find(b"\r\n", at) > 0 else head[at:])
        if len(self.buffer) < end + 4 + length:
            return
        body, self.buffer = self.buffer[end + 4 : end + 4 + length], b""
        if not self.waiting:
            self.tally.wrong.append(f"an answer that nobody asked for: {body!r}")
            return
        self.waiting = False
        self._note(int(head[9:12]), head, body)
        if b"\r\nconnection: close" in head:
            self._hang_up()
        self._next()

    def _note(self, status: int, head: bytes, body: bytes) -> None:
        tally, spent = self.tally, time.monotonic() - self.sent
        tally.statuses[status] += 1
        if status == 200:
            tally.answered += 1
            tally.seconds.append(spent)
            at = head.find(b"sha256=") + 7
            version = head[at : at + 64].decode()
            tally.versions[version] += 1
            self.crowd.check(tally, self.nonce, version, body)
        elif status == 503 and b"\r\nretry-after: " in head:
            tally.refused_seconds.append(spent)
        else:
            tally.failed.append(f"{status}: {body[:300]!r}")

    def lost(self, exc: Exception | None) -> None:
        self.line = None
        if not self.waiting:
            self.tally.closed += 1
            return
        if self.again:
            self.tally.failed.append(f"nonce {self.nonce}: broken twice ({exc!r})")
            self.waiting = False
            self._next()
            return
        self.tally.broken += 1
        self.again = True
        self.crowd.spawn(self.connect())

    def _hang_up(self) -> None:
        if self.line is not None:
            line, self.line = self.line, None
            line.transport.close()

    def _finish(self) -> None:
        self._hang_up()
        if not self.over.done():
            self.over.set_result(None)


class Crowd:
    """All callers: what they ask, how fast, whom, and until when."""

    def __init__(
        self,
        ports: Sequence[int],
        constants: Mapping[str, float] | None = None,
        *,
        total: int = 2**62,
        rate: float = 0.0,
        connections: int = CONNECTIONS,
        patience: float = 10.0,
        body: Callable[[int], bytes] = lambda nonce: b'{"nonce":%d}' % nonce,
        path: str = "/predict",
    ) -> None:
        self.ports, self.constants, self.total, self.rate = ports, constants, total, rate
        self.connections, self.patience, self.body, self.path = connections, patience, body, path
        self.tally = Tally()
        self.stopped = False
        self._nonce = 0
        self._avoided: dict[int, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n".encode()

    async def run(self, *beside: Callable[["Crowd"], object]) -> Tally:
        """Ask until all is asked; what goes on beside runs in threads, and its end stops the callers."""
        callers = [Caller(self) for _ in range(self.connections)]
        for each in callers:
            self.spawn(each.connect())
        poll = asyncio.create_task(self._poll()) if len(self.ports) > 1 else None
        try:
            if beside:
                await asyncio.gather(*(asyncio.to_thread(each, self) for each in beside))
                self.stopped = True
            await asyncio.gather(*(each.over for each in callers))
        finally:
            self.stopped = True
            if poll is not None:
                poll.cancel()
        self.tally.spent = time.monotonic() - self.tally.began
        return self.tally

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _poll(self) -> None:
        """Look at readiness as a balancer does; who is not ready gets no new connections."""
        while True:
            for port in self.ports:
                if not await _ready(port):
                    self.avoid(port)
                else:
                    self._avoided.pop(port, None)
            await asyncio.sleep(0.05)

    def avoid(self, port: int) -> None:
        self._avoided[port] = time.monotonic() + 0.2

    def target(self) -> int:
        now = time.monotonic()
        good = [port for port in self.ports if self._avoided.get(port, 0.0) < now] or [*self.ports]
        return good[self._nonce % len(good)]

    @property
    def asks(self) -> bool:
        return not self.stopped and self._nonce < self.total

    def next(self) -> int:
        if not self.asks:
            return -1
        self._nonce += 1
        return self._nonce

    def pause(self, caller: Caller) -> float:
        if not self.rate:
            return 0.0
        now, every = time.monotonic(), self.connections / self.rate
        caller.due = max(caller.due + every, now - every) if caller.due else now + random.uniform(0, every)
        return caller.due - now

    def question(self, nonce: int) -> bytes:
        body = self.body(nonce)
        return b"%bContent-Length: %d\r\n\r\n%b" % (self._head, len(body), body)

    def check(self, tally: Tally, nonce: int, version: str, body: bytes) -> None:
        """Hold an answer against its question and the version it names."""
        found = json.loads(body)["answer"]
        constant = 0.0 if self.constants is None else self.constants.get(version, -1.0)
        if found != nonce + constant:
            tally.wrong.append(f"{nonce} answered with {found} by {version[:12]}")


async def _ready(port: int) -> bool:
    try:
        async with asyncio.timeout(1.0):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(b"GET /health/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                return (await reader.read(64)).startswith(b"HTTP/1.1 200")
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False


def ask(crowd: Crowd, *beside: Callable[[Crowd], object]) -> Tally:
    """Let the callers ask, in this thread."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(crowd.run(*beside))
