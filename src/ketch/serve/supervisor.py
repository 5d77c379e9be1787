"""The process above the workers: it holds socket and models, keeps as many workers as wanted, and never answers itself.

models --*fork*--> worker --golden row--> ready;  killed, stuck or out of date: another takes its place first
"""

import gc
import logging
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from ketch.errors import NotReady
from ketch.serve.metrics import GONE, Memory, Metrics

LOOK: Final = 0.1  # seconds between looks at the workers
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0  # seconds before a worker that ended at once is started again
YOUNG: Final = 2.0  # seconds of life below which a worker has ended at once
START: Final = 120.0  # seconds until a worker must be ready

if sys.platform == "win32":
    raise ImportError("there is no fork on Windows")

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Worker:
    """One process that answers, and the line to it."""

    slot: int
    pid: int
    line: socket.socket
    born: float
    ready: bool = False
    leaving: bool = False
    replaces: "Worker | None" = None
    unread: bytes = b""


@dataclass(slots=True)
class Place:
    """What a worker is given when it is forked: its line to the supervisor and where it counts."""

    slot: int
    line: socket.socket
    memory: Memory

    @property
    def pages(self) -> tuple[int, int]:
        """Give the pages of its event loop and of its other threads."""
        return 1 + 2 * self.slot, 2 + 2 * self.slot

    def beat(self, busy_since: float) -> None:
        """Say that the event loop goes round, and since when a model has been at work (0: none is)."""
        self.memory.beats[2 * self.slot] = time.monotonic()
        self.memory.beats[2 * self.slot + 1] = busy_since

    def tell(self, **message: object) -> None:
        """Send the supervisor a line."""
        with suppress(OSError):  # it may be gone; the worker notices by itself
            self.line.sendall(msgspec.json.encode(message) + b"\n")


@dataclass
class Supervisor:
    """Keep `wanted` workers alive. `work` is what a worker does until it ends; it never returns from the fork."""

    work: Callable[[Place], None]
    wanted: int
    deadline: float
    grace: float
    on_ready: Callable[[], None] = lambda: None
    each_second: Callable[["Supervisor"], None] = lambda _: None
    workers: dict[int, Worker] = field(default_factory=dict)  # by slot

    def __post_init__(self) -> None:
        self.memory = Memory(pages=1 + 2 * self._slots(), beats=2 * self._slots())
        self.metrics = Metrics(self.memory.page(GONE))
        self._selector = selectors.DefaultSelector()
        self._ending = ""
        self._told = False
        self._pause, self._again = FIRST_PAUSE, 0.0
        self._second = 0.0
        self._refused = ""

    def _slots(self) -> int:
        return 2 * self.wanted  # a worker that is being replaced keeps its own until it is gone

    def run(self) -> int:
        """Start the workers and look after them until a signal says otherwise; give the exit code.

        Raises:
            NotReady: no worker becomes ready.
        """
        wake, woken = os.pipe()
        for end in (wake, woken):
            os.set_blocking(end, False)
        self._selector.register(wake, selectors.EVENT_READ)
        before = {each: signal.signal(each, self._signalled) for each in SIGNALS}
        signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
        try:
            gc.collect()
            gc.freeze()  # what is shared with the workers must not be written to by their collectors
            while self.workers or not self._ending:
                self._step(wake)
        finally:
            signal.set_wakeup_fd(-1)
            for each, handler in before.items():
                signal.signal(each, handler)
            self._kill_all()
            os.close(wake)
            os.close(woken)
            gc.unfreeze()
        if self._refused:
            raise NotReady(self._refused, hint="What the workers say above tells why.")
        return 0

    # ---- the loop ----------------------------------------------------------------------------------

    def _step(self, wake: int) -> None:
        for key, _ in self._selector.select(LOOK):
            if key.fd == wake:
                with suppress(BlockingIOError):
                    os.read(wake, 512)
            else:
                self._hear(key.data)
        now = time.monotonic()
        self._reap()
        self._look(now)
        if not self._ending and now >= self._second:
            self._second = now + 1.0
            self.each_second(self)
        if not self._ending and now >= self._again:
            self._fill()
        self.metrics.gauge("ketch_workers", sum(each.ready for each in self.workers.values()))

    def _signalled(self, number: int, _: object) -> None:
        if number == signal.SIGCHLD:
            return
        if number == getattr(signal, "SIGHUP", None):
            self.renew()
        elif self._ending:
            self._kill_all()
        else:
            self._ending = signal.Signals(number).name
            self._until = time.monotonic() + self.grace
            for each in self.workers.values():
                self.tell(each, do="end", how="at once" if number == signal.SIGINT else "drain")

    def _fill(self) -> None:
        """Fork workers until there are as many as wanted."""
        serving = [each for each in self.workers.values() if not each.leaving and each.replaces is None]
        for _ in range(self.wanted - len(serving)):
            self._fork()

    def renew(self) -> None:
        """Put a new worker in the place of each; the old one goes when the new one is ready."""
        for each in [*self.workers.values()]:
            if not each.leaving and not any(other.replaces is each for other in self.workers.values()):
                self._fork(replaces=each)

    def _fork(self, replaces: Worker | None = None) -> None:
        free = [slot for slot in range(self._slots()) if slot not in self.workers]
        if not free:
            return
        slot = free[0]
        mine, its = socket.socketpair()
        self.memory.beats[2 * slot] = self.memory.beats[2 * slot + 1] = 0.0
        pid = os.fork()
        if pid == 0:
            self._become(Place(slot, its, self.memory), mine)
        its.close()
        worker = Worker(slot, pid, mine, time.monotonic(), replaces=replaces)
        self.workers[slot] = worker
        self._selector.register(mine, selectors.EVENT_READ, worker)

    def _become(self, place: Place, other: socket.socket) -> None:
        """Be a worker from here on; nothing of the supervisor's must go on in this process."""
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            for each in SIGNALS:
                signal.signal(each, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal tells all of them; the supervisor decides
            other.close()
            for worker in self.workers.values():
                worker.line.close()
            self._selector.close()
            self.work(place)
            code = 0
        except Exception as error:
            logger.exception("a worker failed")
            place.tell(said="failed", why=f"{type(error).__name__}: {error}")
        finally:
            os._exit(code)

    # ---- what the workers say ----------------------------------------------------------------------

    def _hear(self, worker: Worker) -> None:
        try:
            found = worker.line.recv(65536)
        except OSError:
            found = b""
        if not found:
            self._selector.unregister(worker.line)
            worker.line.close()
            return
        *lines, worker.unread = (worker.unread + found).split(b"\n")
        for line in lines:
            self._heard(worker, msgspec.json.decode(line, type=dict[str, Any]))

    def _heard(self, worker: Worker, message: Mapping[str, Any]) -> None:
        if message["said"] == "ready":
            worker.ready = True
            self._pause = FIRST_PAUSE
            if worker.replaces is not None:
                self.dismiss(worker.replaces)
                worker.replaces = None
            if not self._told and sum(each.ready for each in self.workers.values()) == self.wanted:
                self._told = True
                self.on_ready()
        elif message["said"] == "failed":
            self._refused = str(message["why"]) if not self._told else ""
        elif message["said"] == "stale":  # it could not take the new version over: a fork has it
            self._fork(replaces=worker)

    def tell(self, worker: Worker, **message: object) -> None:
        """Send a worker a line."""
        with suppress(OSError):
            worker.line.sendall(msgspec.json.encode(message) + b"\n")

    def tell_all(self, **message: object) -> None:
        """Send all workers a line."""
        for each in self.workers.values():
            self.tell(each, **message)

    def dismiss(self, worker: Worker) -> None:
        """Let a worker finish what it has and go."""
        worker.leaving = True
        self.tell(worker, do="end", how="leave")

    # ---- life and death ----------------------------------------------------------------------------

    def _look(self, now: float) -> None:
        """End workers that hang: no beat, or one call of the model, for twice the deadline."""
        if self._ending and now > self._until:
            self._kill_all()
        for each in self.workers.values():
            beat, busy = self.memory.beats[2 * each.slot], self.memory.beats[2 * each.slot + 1]
            limit = now - 2 * self.deadline
            stuck = each.ready and (beat < limit or 0.0 < busy < limit)
            if stuck or (not each.ready and each.born < now - START):
                logger.error("worker %d has hung for %g s and is replaced", each.pid, 2 * self.deadline)
                self.metrics.count("ketch_worker_ends", cause="hung")
                with suppress(ProcessLookupError):
                    os.kill(each.pid, signal.SIGKILL)

    def _reap(self) -> None:
        for worker in [*self.workers.values()]:
            try:
                pid, status = os.waitpid(worker.pid, os.WNOHANG)
            except ChildProcessError:
                pid, status = worker.pid, 0
            if pid:
                self._buried(worker, status)

    def _buried(self, worker: Worker, status: int) -> None:
        while worker.line.fileno() >= 0:
            self._hear(worker)  # its last words
        del self.workers[worker.slot]
        for page in Place(worker.slot, worker.line, self.memory).pages:
            self.memory.retire(page)
        if self._ending or worker.leaving:
            return
        self.metrics.count("ketch_worker_ends", cause="killed" if os.WIFSIGNALED(status) else "ended")
        logger.warning("worker %d is gone (%s); another takes its place", worker.pid, _cause(status))
        if not self._told and self._refused:
            self._ending, self._until = "refused", time.monotonic() + self.grace
            for each in self.workers.values():
                self.tell(each, do="end", how="at once")
        elif time.monotonic() - worker.born < YOUNG and not worker.ready:
            self._again = time.monotonic() + self._pause
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
        else:
            self._fill()

    def _kill_all(self) -> None:
        for each in self.workers.values():
            with suppress(ProcessLookupError):
                os.kill(each.pid, signal.SIGKILL)


SIGNALS: Final = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGCHLD") if hasattr(signal, name)
)


def _cause(status: int) -> str:
    if os.WIFSIGNALED(status):
        return signal.Signals(os.WTERMSIG(status)).name
    return f"exit code {os.waitstatus_to_exitcode(status)}"
