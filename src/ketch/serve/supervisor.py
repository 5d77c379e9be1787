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
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from ketch.errors import KetchError, NotReady
from ketch.serve.metrics import GONE, Memory, Metrics

LOOK: Final = 0.1  # seconds between looks at the workers
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0  # seconds before a worker takes the place of one that was never ready
MOST_STARTS: Final = 5  # workers that may end before any has been ready
START: Final = 120.0  # seconds until a worker must be ready
STOOD_STILL: Final = 2.0  # seconds without a look, after which it was the whole machine that stood still
ABOVE: Final = "What the workers say above may tell why."
SPARE: Final = 2  # places beyond those of the workers wanted and of as many that leave

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
    old: bool = False  # to be replaced when its turn comes
    leaving: bool = False
    replaces: "Worker | None" = None
    hung: bool = False
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
    """Keep `wanted` workers alive. `work` is what a worker does until it ends; it never returns from the fork.

    The supervisor lets go of `sockets` when the end begins: what nobody accepts any more must be refused, not held.
    """

    work: Callable[[Place], None]
    wanted: int
    deadline: float
    grace: float
    on_ready: Callable[[], None] = lambda: None
    each_second: Callable[["Supervisor"], None] = lambda _: None
    sockets: Sequence[socket.socket] = ()
    workers: dict[int, Worker] = field(default_factory=dict)  # by slot
    others: set[int] = field(default_factory=set)  # processes that it was told of, until they have ended

    def __post_init__(self) -> None:
        self.memory = Memory(pages=1 + 2 * self._slots(), beats=2 * self._slots())
        self.metrics = Metrics(self.memory.page(GONE))
        self._selector = selectors.DefaultSelector()
        self._signals: deque[int] = deque()
        self._wake: tuple[int, int] = (-1, -1)
        self._ending, self._until = "", 0.0
        self._told = self._answered = False
        self._pause, self._again, self._starts = FIRST_PAUSE, 0.0, 0
        self._second = self._looked = self._resumed = 0.0
        self._refused, self._hint = "", ABOVE

    def _slots(self) -> int:
        return 2 * self.wanted + SPARE  # a worker that is being replaced keeps its own until it is gone

    def run(self) -> int:
        """Start the workers and look after them until a signal says otherwise; give the exit code.

        Raises:
            NotReady: no worker becomes ready.
        """
        self._wake = os.pipe()
        for end in self._wake:
            os.set_blocking(end, False)
        self._selector.register(self._wake[0], selectors.EVENT_READ)
        before = {each: signal.signal(each, self._signalled) for each in SIGNALS}
        signal.set_wakeup_fd(self._wake[1], warn_on_full_buffer=False)
        try:
            gc.collect()
            gc.freeze()  # what is shared with the workers must not be written to by their collectors
            while self.workers or not self._ending:
                self._step()
        finally:
            signal.set_wakeup_fd(-1)
            for each, handler in before.items():
                signal.signal(each, handler)
            self._end_all()
            gc.unfreeze()
        if self._refused:
            raise NotReady(self._refused, hint=self._hint)
        return 0

    # ---- the loop ----------------------------------------------------------------------------------

    def _step(self) -> None:
        for key, _ in self._selector.select(LOOK):
            if key.fd == self._wake[0]:
                with suppress(BlockingIOError):
                    os.read(self._wake[0], 512)
            else:
                self._hear(key.data)
        while self._signals:
            self._heed(self._signals.popleft())
        now = time.monotonic()
        self._reap()
        self._look(now)
        if not self._ending:
            self._keep(now)
        self.metrics.gauge("ketch_workers", sum(each.ready for each in self.workers.values()))

    def _keep(self, now: float) -> None:
        """Have as many workers as wanted, none of them old."""
        if now >= self._again:
            self._fill()
            self._renew_next()
        if now >= self._second:
            self._second = now + 1.0
            try:
                self.each_second(self)
            except Exception:  # whatever it looks after, the workers go on
                logger.exception("the look at what is followed failed")

    def _signalled(self, number: int, _: object) -> None:
        """Note a signal for the loop: it may have come in the middle of anything."""
        if number != signal.SIGCHLD:
            self._signals.append(number)

    def _heed(self, number: int) -> None:
        if number == signal.SIGHUP:
            self.renew()
        elif self._ending:
            self._kill_all()
        else:
            self._end(signal.Signals(number).name, "at once" if number == signal.SIGINT else "drain")

    def _end(self, why: str, how: str) -> None:
        self._ending, self._until = why, time.monotonic() + self.grace
        for each in self.sockets:
            each.close()
        self.tell_all(do="end", how=how)

    def _fill(self) -> None:
        """Fork workers until there are as many as wanted."""
        serving = [each for each in self.workers.values() if not each.leaving and each.replaces is None]
        for _ in range(self.wanted - len(serving)):
            self._fork()

    def renew(self) -> None:
        """Put a new worker in the place of each, one after another; the old one goes when the new one is ready."""
        for each in self.workers.values():
            each.old = True

    def _renew_next(self) -> None:
        workers = self.workers.values()
        if not any(each.replaces for each in workers):
            for each in workers:
                if each.old and each.ready and not each.leaving:
                    self._fork(replaces=each)
                    return

    def _fork(self, replaces: Worker | None = None) -> None:
        free = [slot for slot in range(self._slots()) if slot not in self.workers]
        if not free:
            return  # some are about to go
        slot = free[0]
        mine, its = socket.socketpair()
        self.memory.beats[2 * slot] = self.memory.beats[2 * slot + 1] = 0.0
        place = Place(slot, its, self.memory)

        def become() -> None:
            mine.close()
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal tells all of them; the supervisor decides
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            try:
                self.work(place)
            except KetchError as error:
                place.tell(said="failed", why=error.message, hint=error.hint)
                raise SystemExit from None
            except Exception as error:
                place.tell(said="failed", why=f"{type(error).__name__}: {error}", hint=ABOVE)
                raise

        pid = self.spawn(become)
        its.close()
        mine.setblocking(False)
        worker = Worker(slot, pid, mine, time.monotonic(), replaces=replaces)
        self.workers[slot] = worker
        self._selector.register(mine, selectors.EVENT_READ, worker)

    def spawn(self, run: Callable[[], None]) -> int:
        """Fork a process that runs this and ends; nothing of the supervisor's goes on in it. Give its id."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # else one could find the child with our handlers
        try:
            pid = os.fork()
            if pid == 0:
                self._become(run, before)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return pid

    def _become(self, run: Callable[[], None], mask: set[int | signal.Signals]) -> None:
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            for each in SIGNALS:
                signal.signal(each, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            for worker in self.workers.values():  # who holds these would hide from the others that we are gone
                worker.line.close()
            self._selector.close()
            for end in self._wake:
                with suppress(OSError):
                    os.close(end)
            run()
            code = 0
        except Exception:
            logger.exception("process %d failed", os.getpid())
        finally:
            os._exit(code)

    # ---- what the workers say ----------------------------------------------------------------------

    def _hear(self, worker: Worker) -> None:
        try:
            found = worker.line.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            found = b""
        if not found:
            self._hang_up(worker)
            return
        *lines, worker.unread = (worker.unread + found).split(b"\n")
        for line in lines:
            self._heard(worker, msgspec.json.decode(line, type=dict[str, Any]))

    def _hang_up(self, worker: Worker) -> None:
        if worker.line.fileno() >= 0:
            self._selector.unregister(worker.line)
            worker.line.close()

    def _heard(self, worker: Worker, message: Mapping[str, Any]) -> None:
        if message["said"] == "ready":
            self._settled(worker)
        elif message["said"] == "failed":
            self._refused = "" if self._answered else str(message["why"])
            self._hint = str(message["hint"])
            logger.error("worker %d cannot start: %s", worker.pid, message["why"])
        elif message["said"] == "stale":  # it could not take the new version over: a fork has it
            worker.old = True

    def _settled(self, worker: Worker) -> None:
        """Count on a worker that has given its golden answer."""
        worker.ready = self._answered = True
        self._pause = FIRST_PAUSE
        if worker.replaces is not None:
            self.dismiss(worker.replaces)
            worker.replaces = None
        if not self._told and sum(each.ready for each in self.workers.values()) >= self.wanted:
            self._told = True
            with suppress(BrokenPipeError):  # nobody reads it
                self.on_ready()

    def tell(self, worker: Worker, **message: object) -> None:
        """Send a worker a line; one that has not read so much that no more fits is of no use any more."""
        line = msgspec.json.encode(message) + b"\n"
        try:
            whole = worker.line.send(line) == len(line)
        except BlockingIOError:
            whole = False
        except OSError:
            return  # it is gone
        if not whole:
            self._kill(worker, "hears nothing")

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
        if now > self._looked + STOOD_STILL:
            self._resumed = now
        self._looked = now
        patience = 2 * self.deadline
        for each in [each for each in self.workers.values() if not each.hung]:
            beat, busy = self.memory.beats[2 * each.slot], self.memory.beats[2 * each.slot + 1]
            since = max(self._resumed, min(beat, busy or beat) if each.ready else each.born)
            if now - since > (patience if each.ready else START):
                self._kill(each, f"has hung for {now - since:.3g} s")

    def _kill(self, worker: Worker, why: str) -> None:
        logger.error("worker %d %s and is replaced", worker.pid, why)
        self.metrics.count("ketch_worker_ends", cause="hung")
        with suppress(ProcessLookupError):
            os.kill(worker.pid, signal.SIGKILL)
        worker.hung = True

    def _reap(self) -> None:
        """Bury what has ended: workers, those it was told of, and orphans that came to it because it is process 1."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            if pid in self.others:
                self.others.remove(pid)
                self._second = 0.0  # who started it wants to know at once
            for worker in [each for each in self.workers.values() if each.pid == pid]:
                self._buried(worker, status)

    def _buried(self, worker: Worker, status: int) -> None:
        self._hear(worker)  # its last words
        self._hang_up(worker)
        del self.workers[worker.slot]
        for page in Place(worker.slot, worker.line, self.memory).pages:
            self.memory.retire(page)
        for each in self.workers.values():
            if each.replaces is worker:
                each.replaces = None
        if self._ending or worker.leaving:
            return
        if not worker.hung:
            self.metrics.count("ketch_worker_ends", cause="killed" if os.WIFSIGNALED(status) else "ended")
        logger.warning("worker %d is gone (%s); another takes its place", worker.pid, _cause(status))
        if not worker.ready:
            self._never_ready(status)

    def _never_ready(self, status: int) -> None:
        """Wait longer and longer for the next; where none has ever been ready, give up."""
        self._starts += 1
        if not self._answered and self._starts >= MOST_STARTS:
            self._refused = self._refused or f"The workers end before they can answer ({_cause(status)})"
        if not self._answered and self._refused:
            self._end("refused", "at once")
        self._again = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE)

    def _kill_all(self) -> None:
        for pid in [each.pid for each in self.workers.values()]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _end_all(self) -> None:
        """Leave no process behind."""
        self._kill_all()
        for pid in [*self.others, *(each.pid for each in self.workers.values())]:
            with suppress(ProcessLookupError, ChildProcessError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
        self._selector.close()
        for end in self._wake:
            os.close(end)


SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)


def _cause(status: int) -> str:
    if not os.WIFSIGNALED(status):
        return f"exit code {os.waitstatus_to_exitcode(status)}"
    number = os.WTERMSIG(status)
    return next((each.name for each in signal.Signals if each == number), f"signal {number}")
