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
from typing import Final

from ketch.errors import KetchError
from ketch.predict import Predictor
from ketch.serve.lineup import Lineup
from ketch.serve.models import Entry
from ketch.serve.supervisor import Supervisor
from ketch.settings import Settings

if sys.platform == "win32":
    raise ImportError("there is no fork on Windows")

PATIENCE: Final = 120.0  # seconds that a new version may take to open and answer its golden rows

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
            elif (found := entry.seen(self.settings)) not in {None, self._seen[entry]}:
                self._seen[entry] = found
                self._trials[entry] = self._try(entry, found)

    def _try(self, entry: Entry, found: object) -> Trial:
        end, its = os.pipe()
        pid = os.fork()
        if pid == 0:
            self._report(entry, its)
        os.close(its)
        os.set_blocking(end, False)
        return Trial(entry, found, pid, end, time.monotonic())

    def _report(self, entry: Entry, end: int) -> None:
        """Open the version and ask it all its golden rows; say how that went and end."""
        try:
            signal.set_wakeup_fd(-1)
            for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(each, signal.SIG_DFL)
            try:
                told = {"sha256": entry.open(self.settings).bundle.sha256}
            except KetchError as error:
                told = {"why": f"{error.message}. {error.hint}"}
            except Exception as error:
                told = {"why": f"{type(error).__name__}: {error}"}
            os.write(end, json.dumps(told).encode()[:4000])
        finally:
            os._exit(0)

    def _hear(self, trial: Trial, supervisor: Supervisor) -> None:
        while select.select([trial.end], [], [], 0)[0]:
            part = os.read(trial.end, 4096)
            if not part:
                self._end(trial)
                self._judge(trial, supervisor)
                return
            trial.told += part
        if time.monotonic() > trial.born + PATIENCE:
            with suppress(ProcessLookupError):
                os.kill(trial.pid, signal.SIGKILL)
            self._end(trial)
            trial.told = json.dumps({"why": f"it is not open after {PATIENCE:g} s"}).encode()
            self._judge(trial, supervisor)

    def _end(self, trial: Trial) -> None:
        os.close(trial.end)
        with suppress(ChildProcessError):
            os.waitpid(trial.pid, 0)
        del self._trials[trial.entry]

    def _judge(self, trial: Trial, supervisor: Supervisor) -> None:
        entry, name = trial.entry, self.entries[trial.entry]
        told = json.loads(trial.told) if trial.told else {"why": "the process that tried it died"}
        before = self.lineup.line(name).versions[entry.role]
        if "why" not in told:
            if told["sha256"] == before.bundle.sha256:
                return
            try:
                predictor = self._open(trial, told["sha256"], name)
            except KetchError as error:
                told = {"why": f"{error.message}. {error.hint}"}
        if "why" in told:
            logger.error(
                "%s is refused and %s goes on answering: %s",
                entry.model,
                before.reference,
                told["why"],
            )
            supervisor.metrics.count("ketch_reloads", model=name, outcome="refused")
            return
        logger.warning("%s answers from now on, in place of %s", predictor.reference, before.reference)
        self.lineup.replace(name, entry.role, predictor)  # for workers to come
        supervisor.metrics.count("ketch_reloads", model=name, outcome="taken")
        supervisor.tell_all(do="take", model=entry.model, role=entry.role, sha256=told["sha256"])

    def _open(self, trial: Trial, sha256: str, name: str) -> Predictor:
        predictor = trial.entry.open(self.settings, replay=False)
        if predictor.bundle.sha256 != sha256:
            self._seen[trial.entry] = None  # it has moved on: look again
            raise KetchError("It has changed again", hint="It is tried once more.")
        if predictor.name != name:
            raise KetchError(f"It is of {predictor.name}, not of {name}", hint="Serve it under a name of its own.")
        return predictor
