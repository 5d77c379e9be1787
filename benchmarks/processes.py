"""A server's processes: started on one core, looked at while they run, ended with all that they started."""

import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import psutil

from benchmarks.figures import Memory

CORE: Final = 0  # of the server; load comes from the other
PATIENCE: Final = 120.0  # seconds until the first answer


class NoAnswer(Exception):
    """A server that does not start, or answers wrongly."""


class Running:
    """One server and everything below it."""

    def __init__(self, command: Sequence[str], folder: Path, environ: Mapping[str, str], log: Path) -> None:
        self.log = log
        self.began = time.perf_counter()
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                ["taskset", "-c", str(CORE), *command],
                cwd=folder,
                env=environ,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.root = psutil.Process(self.process.pid)

    def tree(self) -> list[psutil.Process]:
        """Give the first process and all below it, and those that have left it but not its session."""
        found = [self.root]
        with suppress(psutil.NoSuchProcess):
            found += self.root.children(recursive=True)
        known = {each.pid for each in found}
        for each in psutil.process_iter():
            with suppress(ProcessLookupError, PermissionError):
                if each.pid not in known and os.getsid(each.pid) == self.process.pid:
                    found.append(each)
        return found

    def first_answer(self, ask: Callable[[], Any]) -> tuple[Any, float]:
        """Ask until there is an answer; give it, and the seconds since the start.

        Raises:
            NoAnswer: the server ended, or none came in time.
        """
        last = ""
        while (waited := time.perf_counter() - self.began) < PATIENCE and self.process.poll() is None:
            try:
                return ask(), time.perf_counter() - self.began
            except (OSError, ValueError) as error:
                last = str(error)
            time.sleep(0.005 if waited < 5 else 0.05)
        said = self.log.read_text("utf-8", "replace").strip().splitlines()[-1:]
        raise NoAnswer(f"no answer after {waited:.0f} s ({last}); it said last: {' '.join(said) or 'nothing'}")

    def cpu(self) -> tuple[float, float]:
        """Give the seconds of CPU that all have used: in user and in kernel."""
        user = system = 0.0
        for each in self.tree():
            with suppress(psutil.Error):
                used = each.cpu_times()
                user, system = user + used.user, system + used.system
        return user, system

    def memory(self) -> Memory:
        """Give the memory of each process."""
        found = []
        for each in self.tree():
            with suppress(psutil.Error):
                used = each.memory_full_info()
                found.append((used.rss / 2**20, used.pss / 2**20))
        return Memory(found[0], found[1:])

    def stop(self) -> None:
        """End all: ask the first process, then whatever is left, then no longer ask."""
        seen = {each.pid: each for each in self.tree()}
        if self.process.poll() is None:
            self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(20)
        for order in (psutil.Process.terminate, psutil.Process.kill):
            seen |= {each.pid: each for each in self.tree()}
            left = [each for each in seen.values() if each.is_running() and each.pid != self.process.pid]
            for each in left:
                with suppress(psutil.Error):
                    order(each)
            psutil.wait_procs(left, timeout=5)
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
