"""The supervisor alone, over workers that do as they are told: whatever ends, hangs or is signalled, others go on."""

import ctypes
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.soak.load import children, eventually, state

pytestmark = pytest.mark.service

PROGRAM = Path(__file__).parent / "programs" / "supervised.py"
SUBREAPER = 36  # prctl: orphans come to this process, as they do to process 1
DEADLINE = 0.4


class Supervised:
    """A supervisor in a process of its own."""

    def __init__(self, folder: Path, wanted: int, *, manner: str = "works", adopting: bool = False) -> None:
        self.folder = folder
        (folder / "manner").write_text(manner)
        (folder / "notes").touch()
        with (folder / "errors").open("w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, str(PROGRAM), str(folder), str(wanted), str(DEADLINE)],
                stderr=errors,
                preexec_fn=adopt if adopting else None,
                start_new_session=True,
            )

    @property
    def workers(self) -> list[int]:
        return children(self.process.pid)

    @property
    def errors(self) -> str:
        return (self.folder / "errors").read_text()

    def said(self, word: str) -> list[str]:
        found = (self.folder / "notes").read_text().splitlines()
        return [line for line in found if line.startswith(word)]

    def ready(self, pid: int) -> bool:
        return f"ready {pid}" in self.said("ready")

    def settled(self, *, without: set[int], wanted: int) -> None:
        """Wait until as many as wanted answer, none of them known from before."""
        eventually(lambda: len(self.workers) == wanted and not without & set(self.workers))
        eventually(lambda: all(self.ready(each) for each in self.workers))


def adopt() -> None:
    ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)


Start = Callable[..., Supervised]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    made: list[Supervised] = []

    def begin(wanted: int = 2, **options: object) -> Supervised:
        made.append(Supervised(tmp_path, wanted, **options))  # type: ignore[arg-type]
        if "manner" not in options:
            eventually(lambda: made[-1].said("told"), 30)
        return made[-1]

    yield begin
    for each in made:
        if each.process.poll() is None:
            each.process.kill()
        each.process.wait()
        for pid in {int(line.split()[1]) for line in each.said("ready")}:
            eventually(lambda pid=pid: state(pid) in {"", "Z"})  # type: ignore[misc]


def test_another_takes_the_place_of_a_killed_worker_at_once(start: Start) -> None:
    supervised = start()
    first, second = supervised.workers
    began = time.monotonic()
    os.kill(first, signal.SIGKILL)
    supervised.settled(without={first}, wanted=2)
    assert time.monotonic() - began < 1.0
    assert second in supervised.workers
    assert f"worker {first} is gone (SIGKILL)" in supervised.errors
    os.kill(second, 40)  # a signal without a name
    supervised.settled(without={first, second}, wanted=2)
    assert f"worker {second} is gone (signal 40)" in supervised.errors


@pytest.mark.parametrize("how", ["busy", "deaf"])
def test_a_worker_that_hangs_is_replaced_after_twice_the_deadline(start: Start, how: str) -> None:
    supervised = start()
    first, second = supervised.workers
    (supervised.folder / str(first)).write_text(how)
    began = time.monotonic()
    eventually(lambda: first not in supervised.workers, every=0.005)
    assert 2 * DEADLINE - 0.1 < time.monotonic() - began < 2 * DEADLINE + 1.0
    supervised.settled(without={first}, wanted=2)
    assert second in supervised.workers
    assert supervised.errors.count("has hung") == 1


def test_a_worker_that_is_slow_within_the_deadline_stays(start: Start) -> None:
    supervised = start()
    first, second = supervised.workers
    for _ in range(3):
        (supervised.folder / str(first)).write_text("busy")
        time.sleep(1.5 * DEADLINE)
        (supervised.folder / str(first)).unlink()
        time.sleep(0.1)
    assert {first, second} == set(supervised.workers)


@pytest.mark.service
def test_nobody_is_to_blame_when_the_whole_machine_stood_still(start: Start) -> None:
    supervised = start()
    before = supervised.workers
    os.killpg(supervised.process.pid, signal.SIGSTOP)
    time.sleep(2.2)
    os.killpg(supervised.process.pid, signal.SIGCONT)
    time.sleep(3 * DEADLINE)
    assert supervised.workers == before


def test_none_ever_ready_ends_with_the_reason(start: Start) -> None:
    supervised = start(manner="fails")
    assert supervised.process.wait(10) == 1
    assert supervised.errors.rstrip().endswith("\nThe golden answer differs")
    assert "Traceback" not in supervised.errors


def test_none_ever_ready_for_a_reason_they_cannot_say(start: Start) -> None:
    supervised = start(manner="dies")
    assert supervised.process.wait(20) == 1
    assert "The workers end before they can answer (SIGKILL)" in supervised.errors


@pytest.mark.service
def test_those_that_fail_at_the_start_are_tried_again_ever_more_slowly(start: Start) -> None:
    supervised = start()
    first, second = supervised.workers
    (supervised.folder / "manner").write_text("fails")
    os.kill(first, signal.SIGKILL)
    time.sleep(2.0)
    tried = supervised.errors.count("another takes its place")
    assert 3 <= tried <= 7, supervised.errors
    assert second in supervised.workers
    (supervised.folder / "manner").write_text("works")
    supervised.settled(without={first}, wanted=2)
    assert second in supervised.workers


def test_renewal_goes_one_after_another(start: Start) -> None:
    supervised = start(3)
    before = set(supervised.workers)
    os.kill(supervised.process.pid, signal.SIGHUP)
    os.kill(supervised.process.pid, signal.SIGHUP)
    fewest = 3
    until = time.monotonic() + 10
    while before & set(supervised.workers) and time.monotonic() < until:
        fewest = min(fewest, sum(supervised.ready(each) for each in supervised.workers))
    supervised.settled(without=before, wanted=3)
    assert fewest == 3
    told = [line for line in supervised.said("heard") if '"leave"' in line]
    assert {int(line.split()[1]) for line in told} >= before


def test_a_renewal_that_does_not_succeed_leaves_the_old_ones(start: Start) -> None:
    supervised = start()
    before = set(supervised.workers)
    (supervised.folder / "manner").write_text("dies")
    os.kill(supervised.process.pid, signal.SIGHUP)
    time.sleep(1.0)
    assert before <= set(supervised.workers)
    (supervised.folder / "manner").write_text("works")
    supervised.settled(without=before, wanted=2)


@pytest.mark.service
def test_signals_and_deaths_in_any_order_settle(start: Start) -> None:
    supervised = start(3)
    chance = random.Random(4)
    met = set(supervised.workers)
    for _ in range(60):
        if chance.random() < 0.5:
            os.kill(supervised.process.pid, signal.SIGHUP)
        elif workers := supervised.workers:
            os.kill(chance.choice(workers), signal.SIGKILL)
        met |= set(supervised.workers)
        time.sleep(chance.random() * 0.04)
    os.kill(supervised.process.pid, signal.SIGHUP)
    supervised.settled(without=met, wanted=3)
    time.sleep(1.2)
    counted = json.loads((supervised.folder / "counted").read_text())
    assert counted.pop("ketch_workers") == 3
    counted.pop("ketch_worker_ends")
    assert set(counted.values()) == {1.0}  # each has counted itself once, however it ended
    assert counted.keys() >= {line.split()[1] for line in supervised.said("ready")}
    assert "Traceback" not in supervised.errors


def test_workers_end_when_the_supervisor_is_killed(start: Start) -> None:
    supervised = start()
    (supervised.folder / "trial").touch()
    eventually(lambda: len(supervised.workers) == 3)  # a trial must not hide it from them
    workers = [each for each in supervised.workers if supervised.ready(each)]
    trial = set(supervised.workers) - set(workers)
    supervised.process.kill()
    eventually(lambda: all(state(each) in {"", "Z"} for each in workers), 2.0)
    for each in trial:
        os.kill(each, signal.SIGKILL)


def test_orphans_that_come_to_it_are_buried(start: Start) -> None:
    supervised = start(adopting=True)
    pid = supervised.workers[0]
    (supervised.folder / "trial").touch()
    eventually(lambda: len(supervised.workers) == 3)
    trial = next(each for each in supervised.workers if not supervised.ready(each))
    os.kill(trial, signal.SIGKILL)  # what it was told of is no worker either
    eventually(lambda: state(trial) == "")
    (supervised.folder / str(pid)).write_text("bears")
    eventually(lambda: supervised.said("orphan"))
    orphan = int(supervised.said("orphan")[0].split()[1])
    eventually(lambda: orphan in supervised.workers)
    eventually(lambda: state(orphan) == "")
    assert pid in supervised.workers
    assert "is gone" not in supervised.errors


def test_what_looks_each_second_may_fail(start: Start) -> None:
    supervised = start()
    before = supervised.workers
    (supervised.folder / "raise").touch()
    eventually(lambda: "of the one who follows" in supervised.errors)
    assert supervised.workers == before
    os.kill(before[0], signal.SIGKILL)
    supervised.settled(without={before[0]}, wanted=2)


@pytest.mark.parametrize(("number", "how"), [(signal.SIGTERM, "drain"), (signal.SIGINT, "at once")])
def test_it_ends_when_its_workers_have(start: Start, number: int, how: str) -> None:
    supervised = start()
    supervised.process.send_signal(number)
    assert supervised.process.wait(5) == 0
    assert [line.split(" ", 2)[2] for line in supervised.said("heard")] == [f'{{"do":"end","how":"{how}"}}'] * 2


def test_a_second_signal_does_not_wait(start: Start) -> None:
    supervised = start()
    for each in supervised.workers:
        (supervised.folder / str(each)).write_text("stays")
    time.sleep(0.1)
    supervised.process.terminate()
    with pytest.raises(subprocess.TimeoutExpired):
        supervised.process.wait(0.5)
    supervised.process.terminate()
    assert supervised.process.wait(1) == 0


@pytest.mark.service
def test_patience_with_those_that_do_not_end_has_an_end(start: Start) -> None:
    supervised = start()
    for each in supervised.workers:
        (supervised.folder / str(each)).write_text("stays")
    time.sleep(0.1)
    supervised.process.terminate()
    assert supervised.process.wait(5) == 0
