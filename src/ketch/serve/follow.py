"""Follow what an alias or a file points to: a new version is tried aside, and takes over only where it proves good."""

import json
import logging
import os
import select
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ketch.errors import KetchError, NotReady
from ketch.predict import Predictor
from ketch.serve.lineup import Lineup
from ketch.serve.models import Entry
from ketch.serve.supervisor import Supervisor
from ketch.settings import Settings

if sys.platform == "win32":
    raise ImportError("there is no fork on Windows")

PATIENCE: Final = 120.0  # seconds that a new version may take to open and answer its golden rows
QUIET: Final = 2.0  # seconds that a file must be left alone, where it is written in its place
LONGEST: Final = 600  # characters of the reason for a refusal

logger = logging.getLogger(__name__)


@dataclass
class Trial:
    """A process that opens a new version, and the end of the pipe it reports to."""

    entry: Entry
    seen: object
    pid: int
    end: int
    born: float
    told: bytes = b""


@dataclass
class Follower:
    """Look once a second; try what is new in a process of its own, so that nothing it does harms those that answer."""

    settings: Settings
    lineup: Lineup
    entries: Mapping[Entry, str]  # -> the model's name
    patience: float = PATIENCE
    _seen: dict[Entry, object] = field(default_factory=dict)
    _trials: dict[Entry, Trial] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._seen = {entry: entry.seen(self.settings) for entry in self.entries}

    def __call__(self, supervisor: Supervisor) -> None:
        """Begin trials of what is new, and act on those that have ended."""
        for entry in self.entries:
            trial = self._trials.get(entry)
            if trial is not None:
                self._hear(trial, supervisor)
            elif (found := entry.seen(self.settings)) not in {None, self._seen[entry]} and not _in_writing(entry):
                self._seen[entry] = found
                self._trials[entry] = self._try(entry, found, supervisor)

    def _try(self, entry: Entry, found: object, supervisor: Supervisor) -> Trial:
        end, its = os.pipe()

        def report() -> None:
            for each in supervisor.sockets:
                each.close()
            signal.alarm(int(self.patience) + 1)  # also when nobody is left to end it
            with suppress(OSError):
                os.nice(5)  # those that answer go first
                Path("/proc/self/oom_score_adj").write_text("1000", "ascii")  # and stay when memory runs out
            os.write(its, json.dumps(self._tried(entry)).encode())

        pid = supervisor.spawn(report)
        supervisor.others.add(pid)
        os.close(its)
        os.set_blocking(end, False)
        return Trial(entry, found, pid, end, time.monotonic())

    def _tried(self, entry: Entry) -> Mapping[str, str]:
        """Open the version and ask it all its golden rows; say how that went."""
        try:
            found, name = entry.open(self.settings), self.entries[entry]
            if found.name != name:
                hint = "Serve it under a name of its own."
                raise NotReady(f"It is of {found.name}, not of {name}", hint=hint)
        except KetchError as error:
            return {"why": error.message[:LONGEST], "hint": error.hint[:LONGEST]}
        except Exception as error:  # an original may fail in any way
            return {"why": f"{type(error).__name__}: {error}"[:LONGEST]}
        return {"sha256": found.bundle.sha256}

    def _hear(self, trial: Trial, supervisor: Supervisor) -> None:
        while select.select([trial.end], [], [], 0)[0]:
            part = os.read(trial.end, 4096)
            if not part:
                self._end(trial)
                self._judge(trial, supervisor)
                return
            trial.told += part
        if time.monotonic() > trial.born + self.patience:
            if trial.pid in supervisor.others:
                os.kill(trial.pid, signal.SIGKILL)
            self._end(trial)
            trial.told = json.dumps({"why": f"It is not open after {self.patience:g} s"}).encode()
            self._judge(trial, supervisor)

    def _end(self, trial: Trial) -> None:
        os.close(trial.end)
        del self._trials[trial.entry]

    def _judge(self, trial: Trial, supervisor: Supervisor) -> None:
        entry, name = trial.entry, self.entries[trial.entry]
        before = self.lineup.line(name).versions[entry.role]
        told = _told(trial)
        if told.get("sha256") == before.bundle.sha256:
            return
        try:
            if "why" in told:
                raise NotReady(told["why"], hint=told.get("hint", "The log of the one who made it may tell more."))
            predictor = self._open(entry, told["sha256"])
        except KetchError as error:
            why = " ".join(f"{error.message}. {error.hint}".split())
            logger.error("%s is refused and %s goes on answering: %s", entry.model, before.reference, why)
            supervisor.metrics.count("ketch_reloads", model=name, outcome="refused")
            return
        logger.warning("%s answers from now on, in place of %s", predictor.reference, before.reference)
        self.lineup.replace(name, entry.role, predictor)  # for workers to come
        supervisor.metrics.count("ketch_reloads", model=name, outcome="taken")
        supervisor.tell_all(do="take", model=entry.model, role=entry.role, sha256=told["sha256"])

    def _open(self, entry: Entry, sha256: str) -> Predictor:
        """Open here what has proved good, and nothing else.

        Raises:
            KetchError: something else stands there by now.
        """
        try:
            return entry.open(self.settings, replay=False, sha256=sha256)
        except KetchError:
            self._seen[entry] = None  # look again
            raise


def _told(trial: Trial) -> dict[str, str]:
    try:
        found: dict[str, str] = json.loads(trial.told)
    except ValueError:
        return {"why": "The process that tried it died"}
    return found


def _in_writing(entry: Entry) -> bool:
    """Say whether a file has just been written to; one that was moved into its place was whole before."""
    try:
        told = Path(entry.model).stat()
    except OSError:
        return False
    return time.time() - told.st_mtime < QUIET and told.st_mtime_ns == told.st_ctime_ns
