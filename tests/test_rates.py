"""Rates: never more than allowed, hardly ever less, whoever counts: one process or many, one caller or crowds."""

import math
import random
import struct
import subprocess
import sys
import threading
from collections import Counter, defaultdict
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ketch.errors import SettingError, TooManyRequests
from ketch.serve.rates import HEAD, WAYS, Limit, Rates, limits_of

MANY = pytest.mark.skipif(sys.platform == "win32", reason="each process counts alone there")


class Clock:
    """A clock that a test sets."""

    def __init__(self, now: float = 50_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Bucket:
    """The oracle: a bucket of tokens for each limit, in exact numbers."""

    def __init__(self, limits: tuple[Limit, ...], now: float) -> None:
        self.limits = [(Fraction(most), Fraction(most) / Fraction(period)) for most, period in limits]
        self.levels = [most for most, _ in self.limits]
        self.at = Fraction(now)

    def level(self, now: float) -> float:
        spent, self.at = Fraction(now) - self.at, Fraction(now)
        self.levels = [
            min(most, level + spent * speed) for level, (most, speed) in zip(self.levels, self.limits, strict=True)
        ]
        return float(min(self.levels))

    def spend(self) -> None:
        self.levels = [level - 1 for level in self.levels]


def admits(rates: Rates, name: str = "shop") -> bool:
    try:
        rates.take(name)
    except TooManyRequests:
        return False
    return True


def asked(rates: Rates) -> float:
    """Give the seconds after which to ask again, 0 when this time was good."""
    try:
        rates.take("shop")
    except TooManyRequests as refused:
        return refused.retry_after
    return 0.0


@pytest.mark.parametrize(
    ("text", "found"),
    [("", ()), ("100/s", ((100, 1),)), (" 9 / min ,100000/day", ((9, 60), (100000, 86400))), ("1/h", ((1, 3600),))],
)  # fmt: skip
def test_limits_are_read(text: str, found: tuple[tuple[int, float], ...]) -> None:
    assert limits_of(text) == found


@pytest.mark.parametrize(
    "text", ["100", "/s", "0/s", "-1/s", "1.5/s", "100/week", "100/s/s", "99999999999/s", "\u0661/s"]
)
def test_limits_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(SettingError) as refused:
        limits_of(text)
    assert "100/s" in refused.value.hint


def test_without_limits_nothing_is_counted() -> None:
    rates = Rates("")
    assert all(admits(rates) for _ in range(1000))


@pytest.mark.parametrize("shared", [False, True])
def test_a_bucket_fills_evenly(tmp_path: Path, shared: bool) -> None:
    clock = Clock()
    rates = Rates("10/s", tmp_path / "rates" if shared else None, clock=clock)
    assert sum(admits(rates) for _ in range(50)) == 10
    assert admits(rates, "desk")
    clock.now += 0.35
    assert sum(admits(rates) for _ in range(50)) == 3
    clock.now += 1000
    assert sum(admits(rates) for _ in range(50)) == 10


def test_every_limit_counts_and_what_is_refused_does_not() -> None:
    clock = Clock()
    rates = Rates("5/s,8/min", clock=clock)
    assert sum(admits(rates) for _ in range(50)) == 5
    clock.now += 1
    assert sum(admits(rates) for _ in range(50)) == 3
    clock.now += 60
    assert sum(admits(rates) for _ in range(50)) == 5


@given(
    st.sampled_from(["1/s", "3/s", "7/min", "100/s", "5/s,20/min", "1000/h,10/min,2/s"]),
    st.lists(st.floats(0, 3) | st.just(0.0) | st.floats(0, 4000), min_size=1, max_size=150),
    st.floats(0, 1e7),
)
def test_it_is_the_bucket_and_says_when_to_come_again(text: str, waits: list[float], start: float) -> None:
    clock = Clock(start)
    rates, oracle = Rates(text, buckets=1, clock=clock), Bucket(limits_of(text), start)
    longest = max((limit.period for limit in rates.limits), default=0)
    for wait in waits:
        clock.now += wait
        level = oracle.level(clock.now)
        again = asked(rates)
        assert (again == 0) == (level >= 1) or abs(level - 1) < 0.01
        if again:
            assert again <= longest
            clock.now += again + 2e-6
            assert oracle.level(clock.now) > 0.99
            assert asked(rates) == 0
        oracle.spend()


def test_the_refusal_has_a_number_and_a_sentence() -> None:
    rates = Rates("2/min", clock=Clock())
    rates.take("shop")
    rates.take("shop")
    with pytest.raises(TooManyRequests) as refused:
        rates.take("shop")
    assert (refused.value.status, refused.value.code) == (429, "rate-limited")
    assert math.isclose(refused.value.retry_after, 30, abs_tol=0.01)
    assert "30 s" in refused.value.hint


# the table


def test_a_crowd_shares_a_small_table_and_nobody_gets_more(tmp_path: Path) -> None:
    clock, found = Clock(), Counter[str]()
    rates = Rates("3/s", tmp_path / "rates", buckets=2, clock=clock)
    names = [f"caller {number}" for number in range(200)]
    for name in names * 5:
        found[name] += admits(rates, name)
    assert max(found.values()) <= 3
    assert 2 * WAYS * 3 - 6 <= found.total() <= 2 * WAYS * 3  # full, and shared
    clock.now += 2
    assert all(admits(rates, name) for name in names[-2 * WAYS :][:4])  # places of idle callers are free again


@given(st.lists(st.tuples(st.integers(0, 40), st.floats(0, 0.4)), max_size=200))
@settings(max_examples=50)
def test_places_change_hands_and_nobody_gets_more(asked: list[tuple[int, float]]) -> None:
    clock = Clock()
    rates = Rates("2/s", buckets=1, clock=clock)
    moments: defaultdict[int, list[float]] = defaultdict(list)
    for who, wait in asked:
        clock.now += wait
        if admits(rates, str(who)):
            moments[who].append(clock.now)
    for each in moments.values():
        for first in range(len(each)):
            for last in range(first, len(each)):
                assert last - first + 1 <= 2 + 2 * (each[last] - each[first]) + 0.01


@MANY
def test_what_is_left_of_another_life_of_the_machine_binds_nobody(tmp_path: Path) -> None:
    late = Rates("5/s", tmp_path / "rates", clock=Clock(900_000))
    assert sum(admits(late) for _ in range(9)) == 5
    late.close()
    assert sum(admits(Rates("5/s", tmp_path / "rates", clock=Clock(60))) for _ in range(9)) == 5


@MANY
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, 1e300, -1e300])
def test_noise_in_the_table_binds_nobody(tmp_path: Path, number: float) -> None:
    table, clock = tmp_path / "rates", Clock()
    rates = Rates("5/s", table, buckets=1, clock=clock)
    assert admits(rates)
    with table.open("r+b") as file:
        file.seek(HEAD + WAYS * 8)
        file.write(struct.pack("=d", number) * WAYS)
    assert sum(admits(rates) for _ in range(9)) == 5
    assert sum(admits(rates, "desk") for _ in range(9)) == 5


@MANY
def test_a_table_belongs_to_its_limits(tmp_path: Path) -> None:
    table = tmp_path / "rates"
    Rates("5/s", table).close()
    for spoilt in ("6/s", "5/s,9/h"):
        with pytest.raises(SettingError, match="other rates"):
            Rates(spoilt, table)
    table.write_bytes(b"noise" * 1000)
    with pytest.raises(SettingError, match="other rates"):
        Rates("5/s", table)


@MANY
def test_whoever_died_while_making_the_table_left_no_half_of_it(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    Rates("5/s", whole).close()
    half = tmp_path / "half"
    half.write_bytes(bytes(whole.stat().st_size))
    assert sum(admits(Rates("5/s", half, clock=Clock())) for _ in range(9)) == 5


# many at once


def test_threads_share_one_count() -> None:
    rates, found = Rates("500/day"), Counter[bool]()

    def ask() -> None:
        mine = Counter(admits(rates) for _ in range(400))
        with lock:
            found.update(mine)

    lock = threading.Lock()
    threads = [threading.Thread(target=ask) for _ in range(5)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert found == {True: 500, False: 1500}


HAMMER = """
import sys, time
from pathlib import Path
from ketch.errors import TooManyRequests
from ketch.serve.rates import Rates
rates = Rates(sys.argv[2], Path(sys.argv[1]), buckets=4)
print("ready", flush=True)
sys.stdin.readline()
callers, begun = ("shop", "desk", "till"), time.monotonic()
found, first, last = dict.fromkeys(callers, 0), {}, dict.fromkeys(callers, 0.0)
while (now := time.monotonic()) < begun + float(sys.argv[3]):
    for who in callers:
        try:
            rates.take(who)
            found[who] += 1
        except TooManyRequests:
            last[who] = now
            first.setdefault(who, time.monotonic())
print(begun, time.monotonic())
for who in callers:
    print(found[who], first.get(who, begun + 9), last[who])
"""


def hammer(table: Path, limit: str, seconds: float, workers: int = 4) -> list[subprocess.Popen[str]]:
    command = [sys.executable, "-c", HAMMER, str(table), limit, str(seconds)]
    started = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(workers)
    ]
    for each in started:
        assert each.stdout
        assert each.stdout.readline() == "ready\n"
    for each in started:
        assert each.stdin
        each.stdin.write("go\n")
        each.stdin.flush()
    return started


def counted(worker: subprocess.Popen[str]) -> list[float]:
    text, _ = worker.communicate(timeout=30)
    assert worker.returncode == 0
    return [float(word) for word in text.split()]


@pytest.mark.service
@MANY
@pytest.mark.parametrize(("limit", "most", "speed"), [("300/s", 300, 300.0), ("700/day", 700, 700 / 86400)])
def test_workers_together_admit_what_one_would(tmp_path: Path, limit: str, most: int, speed: float) -> None:
    found = [counted(each) for each in hammer(tmp_path / "rates", limit, 0.8)]
    span = max(each[1] for each in found) - min(each[0] for each in found)
    for who in (2, 5, 8):
        admitted = sum(each[who] for each in found)
        # at every refusal the bucket was empty, so that between two of them all was given away that came in
        empty = max(each[who + 2] for each in found) - min(each[who + 1] for each in found)
        assert empty > 0
        assert most + speed * empty - 1 <= admitted <= most + speed * span + 0.01


@pytest.mark.service
@MANY
def test_a_worker_that_is_killed_holds_nobody_up(tmp_path: Path) -> None:
    chance, table = random.Random(1), tmp_path / "rates"
    for _ in range(5):
        workers = hammer(table, "5000/s", 0.3, workers=2)
        threading.Event().wait(chance.uniform(0.02, 0.2))
        workers[0].kill()
        workers[0].communicate()
        assert sum(counted(workers[1])[2::3]) > 0
    rates = Rates("5000/s", table, buckets=4)
    assert sum(admits(rates, "till") for _ in range(10_000)) > 0
