"""Measure Ketch beside nginx, services written by hand and the peers that are set up; write docs/benchmarks.md.

All servers take turns in every round, pinned to one core with the load on another, 500 distinct rows in rotation.
"""

import argparse
import json
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import msgspec
import psutil

from benchmarks import load, peers, report
from benchmarks.figures import LOADS, SIXTEEN, Load, Run, Turn
from benchmarks.processes import NoAnswer, Running
from benchmarks.servers import LIMIT, MODELS, SERVICES, Contestant, contestants, started_by
from benchmarks.workload import TOGETHER, WIRES, Workload, environment, prepare

ROOT: Final = Path(__file__).parent.parent
RAW: Final = ROOT / ".cache" / "benchmarks.json"
PART: Final = RAW.with_stem("benchmarks-part")  # of some servers, which make no page
CHECKED: Final = 5  # single rows whose answers are compared before a server is measured
WARMING: Final = 3.0  # seconds
FEWEST: Final = 3  # rounds that make a page
OURS: Final = ("scikit-learn", "pandas", "numpy", "onnxruntime", "uvicorn", "uvloop", "httptools", "flask", "gunicorn")


def main(words: Sequence[str] | None = None) -> int:
    """Run the rounds and write the page."""
    options = _options(words)
    raw = options.raw or (PART if options.only else RAW)
    if options.again:
        return told(msgspec.json.decode(raw.read_bytes(), type=Run), part=bool(options.only))
    if lacking := [each for each in ("wrk", "nginx", "taskset") if shutil.which(each) is None]:
        print(f"Missing: {', '.join(lacking)}. Install with: apt-get install wrk nginx-light util-linux")
        return 1
    if (os.cpu_count() or 1) < 2:
        print("Two cores are needed: one for the server and one for the load")
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # by an exception, which ends the server too
    os.sched_setaffinity(0, {load.CORE})  # this process must not take time from the servers
    wanted = [each for each in contestants() if re.search(options.only, each.name, re.IGNORECASE)]
    absent = sorted({each.peer for each in wanted if each.peer and peers.programs(each.peer) is None})
    if absent:
        print(f"Not set up, so not measured: {', '.join(absent)}. To set up: python -m benchmarks.peers")
    run = Run(options.rounds, options.seconds, machine(), absent=absent)
    before = psutil.cpu_times()
    with tempfile.TemporaryDirectory(prefix="kb") as folder:
        rounds(run, [each for each in wanted if each.peer not in absent], prepare(Path(folder)), raw)
    run.stolen = stolen(before, psutil.cpu_times())
    raw.write_bytes(msgspec.json.encode(run))
    return told(run, part=bool(options.only))


def told(run: Run, *, part: bool) -> int:
    """Print the figures, and write the page unless they are too few or of a part of the servers."""
    print(report.text(run))
    if run.rounds >= FEWEST and not part:
        report.write(run)
    return 1 if run.failures else 0


def _options(words: Sequence[str] | None) -> argparse.Namespace:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--rounds", type=int, default=FEWEST)
    asked.add_argument("--seconds", type=float, default=6, help="of load for each measurement")
    asked.add_argument("--only", default="", help="a regular expression for names of servers; the page is not written")
    asked.add_argument("--raw", type=Path, help="where the figures are kept")
    asked.add_argument("--again", action="store_true", help="write the page from the figures that are kept")
    return asked.parse_args(words)


def machine() -> dict[str, str]:
    """Describe what this ran on."""
    nginx = subprocess.run(["nginx", "-v"], capture_output=True, text=True).stderr
    return {
        "when": time.strftime("%B %Y"),
        "machine": f"{os.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB",
        "system": f"{platform.system()} on {platform.machine()}",
        "Python": platform.python_version(),
        "nginx": (re.findall(r"nginx/([\d.]+)", nginx) or ["?"])[0],
        **{name: version(name) for name in OURS},
    }


def stolen(before: Any, after: Any) -> float:
    """Give the share of the processors that the machine below this one gave to others."""
    spent = [b - a for a, b in zip(before, after, strict=True)]
    return float((after.steal - before.steal) / sum(spent)) if sum(spent) else 0.0


def rounds(run: Run, taking_part: Sequence[Contestant], work: Workload, raw: Path) -> None:
    """Let everybody take a turn in each round; what is found is kept after each turn."""
    save_for_mlflow(work)
    raw.parent.mkdir(parents=True, exist_ok=True)
    for number in range(run.rounds):
        for contestant in taking_part:
            try:
                turn: Turn | None = take(contestant, work, run.seconds)
            except (NoAnswer, OSError, RuntimeError, ValueError) as error:
                turn, run.failures[contestant.name] = None, f"round {number + 1}: {error}"
                print(f"round {number + 1}: {contestant.name}: {error}", flush=True)
            else:
                print(f"round {number + 1}: {contestant.name}: {said(turn)}", flush=True)
            run.turns.setdefault(contestant.name, []).append(turn)
            raw.write_bytes(msgspec.json.encode(run))


def said(turn: Turn | None) -> str:
    """Put a turn into a line."""
    if turn is None:
        return "failed"
    parts = [f"first answer {min(turn.starts):.2f} s"]
    for name, found in turn.loads.items():
        cpu = f"{found.user + found.system:.0f} µs CPU"
        parts.append(f"{name}: {found.rate:,.0f}/s p99 {found.tail:.2f} ms {cpu} faults {found.faults}")
    if turn.steady and turn.beside:
        at = f"at {turn.steady.rate:,.0f} of {turn.steady.asked:,.0f}/s"
        parts.append(f"{at} p99 {turn.steady.tail:.2f} ms, nginx {turn.beside.tail:.2f} ms")
    if turn.memory:
        parts.append(f"worker {turn.memory.worker[0]:.0f} MiB, all {turn.memory.whole:.0f} MiB")
    return "; ".join(parts)


def save_for_mlflow(work: Workload) -> None:
    """Write the models as MLflow wants them, if it is set up."""
    if (programs := peers.programs("mlflow")) is None:
        return
    for model in MODELS:
        words = ["mlflow_save.py", str(work.folder / f"{model}.bin"), str(work.folder / "rows.jsonl")]
        command = [str(programs / "python"), "-W", "ignore", *words, str(work.folder / f"mlflow-{model}")]
        subprocess.run(command, cwd=SERVICES, env=environment(work.folder), check=True, capture_output=True)


class Opened:
    """A contestant that runs, and answers rightly."""

    def __init__(self, contestant: Contestant, work: Workload) -> None:
        self.contestant, self.work = contestant, work
        self.wire = WIRES[contestant.wire]
        with socket.socket() as one, socket.socket() as two, socket.socket() as three:
            for each in (one, two, three):
                each.bind(("127.0.0.1", 0))
            self.ports = [each.getsockname()[1] for each in (one, two, three)]
        command, environ = started_by(contestant)
        for name, text in contestant.files.items():
            (work.folder / name).parent.mkdir(exist_ok=True)
            (work.folder / name).write_text(self._filled(text), "utf-8")
        known = environment(work.folder, {name: self._filled(value) for name, value in environ.items()})
        log = work.folder / "server.log"
        self.running = Running([self._filled(word) for word in command], work.folder, known, log)

    def _filled(self, text: str) -> str:
        for name, port in zip(("PORT", "SECOND", "THIRD"), self.ports, strict=True):
            text = text.replace(name, str(port))
        return text.replace("FOLDER", str(self.work.folder))

    def __enter__(self) -> "Opened":
        return self

    def __exit__(self, *_: object) -> None:
        self.running.stop()
        for each in self.work.folder.glob(f"{self.ports[0]}.db*"):
            each.unlink()

    def target(self, together: int) -> load.Target:
        """Give where the load goes."""
        path = self.wire.path if together == 1 else self.wire.many
        return load.Target(self.ports[0], path, self.work.bodies(self.contestant.wire, together), self.contestant.key)

    def ask(self, together: int, place: int) -> Any:
        """Ask one of the bodies."""
        to = self.target(together)
        body = to.bodies.read_bytes().splitlines()[place]
        headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {to.key}"} if to.key else {})}
        asked = urllib.request.Request(f"http://127.0.0.1:{to.port}{to.path}", body, headers)
        with urllib.request.urlopen(asked, timeout=60) as response:
            return json.load(response)

    def first_answer(self) -> float:
        """Wait for it; give the seconds since the start."""
        return self.running.first_answer(lambda: self.ask(1, 0))[1]

    def check(self) -> None:
        """Compare answers with the model's own.

        Raises:
            NoAnswer: one is wrong.
        """
        if not self.contestant.model:
            return
        wanted = self.work.wanted[self.contestant.model]
        for together, places in ((1, range(CHECKED)), (TOGETHER, range(1 if self._asks_many else 0))):
            for place in places:
                found = self.wire.read(self.ask(together, place))
                right = [wanted[row] for row in self.work.windows(together)[place]]
                if self.wire.classes:
                    right = [float(each >= 0.5) for each in right]
                if len(found) != len(right) or max(abs(a - b) for a, b in zip(found, right, strict=True)) > 1e-6:
                    raise NoAnswer(f"it answers {found[:3]}, the model {right[:3]}")

    @property
    def _asks_many(self) -> bool:
        return any(LOADS[each][0] > 1 for each in self.contestant.loads)

    def under(self, name: str, seconds: float) -> Load:
        """Load it as fast as it answers; give what was found, with the CPU for each request.

        Raises:
            NoAnswer: none came.
        """
        together, connections = LOADS[name]
        self.ask(1, 0)  # once this is answered, so is what the load before left behind
        before = self.running.cpu()
        found, requests = load.flat_out(self.target(together), connections, seconds, self.work.folder / "load.lua")
        after = self.running.cpu()
        if not requests:
            raise NoAnswer(f"no answer in {seconds:g} s: {name}")
        found.user, found.system = (1e6 * (b - a) / requests for a, b in zip(before, after, strict=True))
        return found


def take(contestant: Contestant, work: Workload, seconds: float) -> Turn:
    """Start a server, check its answers, load it, end it."""
    starts = []
    for _ in range(contestant.starts - 1):
        with Opened(contestant, work) as opened:
            starts.append(opened.first_answer())
    with Opened(contestant, work) as opened:
        turn = Turn([*starts, opened.first_answer()])
        opened.check()
        load.flat_out(opened.target(1), LOADS[SIXTEEN][1], min(WARMING, seconds), work.folder / "load.lua")
        for name in contestant.loads:
            turn.loads[name] = opened.under(name, seconds)
        turn.memory = opened.running.memory()
        half = turn.loads[SIXTEEN].rate / 2 if contestant.steady else 0.0
        if half:
            turn.steady = load.at_rate(opened.target(1), half, LOADS[SIXTEEN][1], seconds)
    if half:
        limit = next(each for each in contestants() if each.name == LIMIT)
        with Opened(limit, work) as opened:
            opened.first_answer()
            turn.beside = load.at_rate(opened.target(1), half, LOADS[SIXTEEN][1], seconds)
    return turn


if __name__ == "__main__":
    sys.exit(main())
