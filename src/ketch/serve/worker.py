"""A worker: one process that answers, as long as the supervisor above it wants."""

import asyncio
import contextlib
import gc
import logging
import signal
import socket
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import msgspec

from ketch.errors import KetchError, NotReady
from ketch.predict import Predictor
from ketch.serve.desk import pace
from ketch.serve.routes import Service
from ketch.serve.server import Server
from ketch.serve.supervisor import Place

BEAT: Final = 0.1  # seconds
LEAVE: Final = 10.0  # seconds in which callers learn from their next answer that this worker goes

logger = logging.getLogger(__name__)


Opener = Callable[[str, str], tuple[str, Predictor]]  # a MODEL and its role -> its name and the version


class Worker:
    """The server of one process, and its line to the supervisor."""

    def __init__(self, place: Place, service: Service, server: Server, open_again: Opener) -> None:
        self.place, self.service, self.server, self.open_again = place, service, server, open_again
        self._unread = b""
        self._swapper = ThreadPoolExecutor(1, "ketch-swap")
        self._wanted: dict[tuple[str, str], str] = {}  # MODEL and role -> SHA-256 of the last order

    def run(self, sockets: list[socket.socket]) -> None:
        """Answer until told to end."""
        for _, _, each in self.service.lineup.all():
            each.replay(rows=None if each.bundle.manifest.serves != "compiled" else 1)
            pace(each)
        gc.collect()
        gc.freeze()  # what is there now stays; looking through it again and again costs answers
        self.server.worker = self
        self.server.run(sockets=sockets)

    # ---- called by the server ------------------------------------------------------------------------

    def started(self, loop: asyncio.AbstractEventLoop) -> None:
        """Say that answers can be had here, and listen to the supervisor."""
        self.place.line.setblocking(False)
        loop.add_reader(self.place.line.fileno(), self._hear, loop)
        self._beating = loop.create_task(self._beat_on())
        self.beat()
        self.place.tell(said="ready")

    @contextlib.contextmanager
    def signals(self) -> Generator[None, None, None]:
        """Heed an order to end; an interrupt from the terminal is for the supervisor."""
        signal.signal(signal.SIGTERM, self.server.handle_exit)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        yield

    async def _beat_on(self) -> None:
        while True:
            self.beat()
            await asyncio.sleep(BEAT)

    def beat(self) -> None:
        """Show that the event loop goes round, and since when a model is at work."""
        since = [each for each in self.service.busy.copy().values() if each]
        since += [desk.busy_since for desk in self.server.hall.desks.values() if desk.busy_since]
        self.place.beat(min(since, default=0.0))

    def _hear(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            found = self.place.line.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            found = b""
        if not found:  # the supervisor is gone: nobody would replace this worker, or end it
            loop.remove_reader(self.place.line.fileno())
            self._end("orphan")  # whoever is started in its place needs the address
            return
        *lines, self._unread = (self._unread + found).split(b"\n")
        for line in lines:
            self._obey(msgspec.json.decode(line, type=dict[str, Any]), loop)

    def _obey(self, order: dict[str, Any], loop: asyncio.AbstractEventLoop) -> None:
        if order["do"] == "end":
            self._end(order["how"])
        elif order["do"] == "take":
            self._wanted[order["model"], order["role"]] = order["sha256"]
            self._swapper.submit(self._take, order, loop)

    def _end(self, how: str) -> None:
        if how == "at once":
            self.server.drain = 0.0
        elif how == "leave":  # others stay: there is time until each caller is told to connect anew
            self.server.drain = max(self.server.drain, LEAVE)
        self.server.leaves = how in {"leave", "orphan"}
        self.service.draining = self.server.should_exit = True

    def _take(self, order: dict[str, Any], loop: asyncio.AbstractEventLoop) -> None:
        """Open a version that the supervisor has found good, and let it answer from one question to the next."""
        if self._wanted[order["model"], order["role"]] != order["sha256"]:
            return  # another is wanted meanwhile
        try:
            name, predictor = self.open_again(order["model"], order["role"])
            if predictor.bundle.sha256 != order["sha256"]:
                raise NotReady("It has changed again", hint="A worker that has it is started.")
            pace(predictor)
        except Exception as error:
            known = isinstance(error, KetchError)
            logger.warning("a new version cannot be taken over: %s", error, exc_info=None if known else error)
            self.place.tell(said="stale")
            return
        loop.call_soon_threadsafe(self._swap, name, order["role"], predictor)

    def _swap(self, name: str, role: str, predictor: Predictor) -> None:
        line = self.service.lineup.line(name)
        if role in line.versions:
            self.service.show(line, role, line.versions[role], 0.0)
        self.service.lineup.replace(name, role, predictor)
        self.service.show(line, role, predictor)
        self.place.tell(said="taken", name=name, role=role, sha256=predictor.bundle.sha256)
