"""Counters in shared memory: never wrong by one, whoever is killed and whenever."""

import multiprocessing
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as prometheus

from ketch.serve import metrics
from ketch.serve.metrics import BOUNDS, CELLS, GONE, WIDTH, Memory, Metrics, exposition

LABEL = st.dictionaries(st.sampled_from(["model", "code"]), st.text(max_size=6), max_size=2)
STEP: Any = st.one_of(
    st.tuples(st.just("count"), st.integers(1, 3), LABEL, st.integers(1, 5)),
    st.tuples(st.just("gauge"), st.integers(1, 3), LABEL, st.integers(0, 5)),
    st.tuples(st.just("time"), st.integers(1, 3), LABEL, st.floats(0, 20)),
    st.tuples(st.just("retire"), st.integers(1, 3), st.just({}), st.just(0)),
)
NAMES = {"count": "ketch_errors", "gauge": "ketch_waiting", "time": "ketch_seconds"}


def key(kind: str, labels: dict[str, str]) -> metrics.Series:
    return NAMES[kind], tuple(sorted(labels.items()))


@settings(max_examples=150, deadline=None)
@given(st.lists(STEP, max_size=40))
def test_pages_add_up_as_a_plain_table_would(steps: Sequence[tuple[str, int, dict[str, str], Any]]) -> None:
    memory = Memory(pages=4)
    writers = {number: Metrics(memory.page(number)) for number in (1, 2, 3)}
    counts: Counter[metrics.Series] = Counter()
    gauges: dict[int, dict[metrics.Series, float]] = {1: {}, 2: {}, 3: {}}
    for kind, number, labels, value in steps:
        if kind == "retire":
            memory.retire(number)
            writers[number] = Metrics(memory.page(number))
            gauges[number] = {}
        elif kind == "gauge":
            writers[number].gauge(NAMES[kind], value, **labels)
            gauges[number][key(kind, labels)] = value
        elif kind == "time":
            writers[number].timer(NAMES[kind], **labels)(value)
            counts[key(kind, labels)] += 1
        else:
            writers[number].count(NAMES[kind], value, **labels)
            counts[key(kind, labels)] += value
    expected: Counter[metrics.Series] = Counter(counts)
    for each in gauges.values():
        expected.update(each)
    found = {series: sum(numbers[:-1]) or numbers[0] for series, numbers in memory.totals().items()}
    assert {series: value for series, value in found.items() if value} == {k: v for k, v in expected.items() if v}


def write(memory: Memory, page: int, seed: int, told: Any) -> None:
    """Count for ever, and say in a pipe what was counted, before it is and after."""
    counting, chance = Metrics(memory.page(page)), random.Random(seed)
    adders = [counting.counter("ketch_errors", code=f"code-{place}") for place in range(5)]
    while True:
        place = chance.randrange(5)
        os.write(told, b"%d\n" % place)
        adders[place](1.0)
        if chance.random() < 0.01:
            counting.gauge("ketch_waiting", 1.0, seed=str(seed))


@pytest.mark.service
def test_nothing_is_lost_when_writers_are_killed() -> None:
    memory = Memory(pages=3)
    intended: Counter[str] = Counter()
    killed = 0
    until = time.monotonic() + 3.0
    while time.monotonic() < until or killed <= 20:  # a busy machine takes longer over them
        for page in (1, 2):
            end, its = os.pipe()
            pid = os.fork()
            if pid == 0:
                try:
                    write(memory, page, killed, its)
                finally:
                    os._exit(1)
            os.close(its)
            reader = threading.Thread(target=drain, args=(end, intended))
            reader.start()
            time.sleep(random.Random(killed).random() * 0.05)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            reader.join()
            memory.retire(page)
            killed += 1
            found = {dict(labels)["code"]: numbers[0] for (_, labels), numbers in memory.totals().items()}
            # each writer may have died between its word and its count, never twice
            assert sum(intended.values()) - killed <= sum(found.values()) <= sum(intended.values())
            assert all(value <= intended[code] for code, value in found.items())
    assert killed > 20
    assert len(memory.totals()) == 5  # no gauge of the dead, however many there were


def drain(end: int, into: Counter[str]) -> None:
    with os.fdopen(end, "rb") as file:
        into.update(f"code-{line.decode().strip()}" for line in file)


def read_on(memory: Memory, ends: Any, found: Any) -> None:
    """Read as /metrics does, while pages retire; no total ever falls."""
    last = 0.0
    while not ends.is_set():
        now = sum(numbers[0] for numbers in memory.totals().values())
        if now < last:
            found.value += 1
        last = now


def test_totals_never_fall_while_pages_retire() -> None:
    context = multiprocessing.get_context("fork")
    memory, ends, fallen = Memory(pages=3), context.Event(), context.Value("i", 0)
    reader = context.Process(target=read_on, args=(memory, ends, fallen))
    reader.start()
    for turn in range(400):
        counting = Metrics(memory.page(1 + turn % 2))
        for code in range(20):
            counting.count("ketch_errors", code=str(code))
        memory.retire(1 + turn % 2)
    ends.set()
    reader.join(10)
    assert reader.exitcode == 0
    assert fallen.value == 0
    assert sum(numbers[0] for numbers in memory.totals().values()) == 8000


def test_a_reader_gets_on_when_the_supervisor_died_in_a_retirement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "PATIENCE", 0.1)
    memory = Memory(pages=3)
    Metrics(memory.page(1)).count("ketch_errors", code="a")
    memory._turn()
    assert [*memory.totals().values()] == [[1.0]]


def test_threads_may_name_new_series_at_once() -> None:
    memory = Memory(pages=3)
    counting = Metrics(memory.page(2), locked=True)
    barrier = threading.Barrier(8)

    def count(mine: int) -> None:
        barrier.wait()
        for place in range(300):
            counting.count("ketch_errors", code=f"{mine % 4}-{place}")

    threads = [threading.Thread(target=count, args=(mine,)) for mine in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    found = memory.totals()
    assert len(found) == 1200
    assert {numbers[0] for numbers in found.values()} == {2.0}


def test_a_full_page_counts_on_what_it_has(caplog: pytest.LogCaptureFixture) -> None:
    memory = Memory(pages=3)
    counting = Metrics(memory.page(1))
    counting.count("ketch_rows", model="first")
    for place in range(CELLS):
        counting.count("ketch_errors", code=str(place))
    counting.timer("ketch_seconds", stage="late")(1.0)
    counting.count("ketch_rows", model="first")
    found = memory.totals()
    assert found["ketch_rows", (("model", "first"),)] == [2.0]
    assert len(found) == CELLS - WIDTH
    assert all(numbers == [1.0] for (name, _), numbers in found.items() if name == "ketch_errors")
    assert len(caplog.records) == WIDTH + 2
    assert "is not counted: there are too many series" in caplog.text
    memory.retire(1)
    assert memory.totals() == found
    again = Metrics(memory.page(1))
    again.count("ketch_errors", code="new")  # this page has room, the one of the gone has none
    memory.retire(1)
    assert memory.totals() == found


def test_names_that_are_too_long_find_no_room_and_break_nothing() -> None:
    memory = Memory(pages=3)
    counting = Metrics(memory.page(1))
    for place in range(12):
        counting.count("ketch_errors", code=str(place) * 100_000)
    counting.count("ketch_errors", code='é\n\u2028\x85"\\')
    found = memory.totals()
    assert found["ketch_errors", (("code", 'é\n\u2028\x85"\\'),)] == [1.0]
    assert len(found) == 11


def test_generations_leave_no_trace_but_their_counts() -> None:
    memory = Memory(pages=3)
    sizes = []
    for turn in range(50):
        counting = Metrics(memory.page(1))
        counting.count("ketch_requests", model="a", route="/predict", status="200")
        counting.gauge("ketch_connections", 3.0 + turn)
        counting.timer("ketch_seconds", stage="whole")(0.003)
        memory.retire(1)
        sizes.append(len(exposition(memory.totals())[0].splitlines()))
    assert len(set(sizes)) == 1
    assert b"ketch_connections" not in exposition(memory.totals())[0]
    assert b'ketch_requests_total{model="a",route="/predict",status="200"} 50.0' in exposition(memory.totals())[0]


@pytest.mark.parametrize(
    ("accept", "parse"), [("", prometheus), ("application/openmetrics-text; version=1.0.0", open_metrics)]
)
def test_prometheus_reads_what_was_counted(accept: str, parse: Any) -> None:
    memory = Memory()
    counting = Metrics(memory.page(1), locked=True)
    observe = counting.timer("ketch_seconds", model="m", stage="whole")
    for seconds in (BOUNDS[0], BOUNDS[0] / 2, BOUNDS[3], BOUNDS[-1], BOUNDS[-1] * 2):
        observe(seconds)
    counting.count("ketch_errors", 3, code='a "quoted"\nname')
    counting.count("ketch_requests", model="m", route="/", status="200")
    counting.count("ketch_requests", status="200", route="/", model="m")  # said in another order
    counting.gauge("ketch_model", 0.0, model="m", role="champion")
    Metrics(memory.page(GONE)).gauge("ketch_workers", 2)
    made, content_type = exposition(memory.totals(), accept)
    assert content_type.startswith(accept.partition(";")[0] or "text/plain")
    samples = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in parse(made.decode())
        for sample in family.samples
    }
    whole = (("model", "m"), ("stage", "whole"))
    assert samples["ketch_seconds_count", *whole] == 5
    assert samples["ketch_seconds_sum", *whole] == pytest.approx(BOUNDS[0] * 1.5 + BOUNDS[3] + BOUNDS[-1] * 3)
    assert samples["ketch_seconds_bucket", ("le", "0.0001"), *whole] == 2
    assert samples["ketch_seconds_bucket", ("le", "10.0"), *whole] == 4
    assert samples["ketch_seconds_bucket", ("le", "+Inf"), *whole] == 5
    assert samples["ketch_errors_total", ("code", 'a "quoted"\nname')] == 3
    assert samples["ketch_requests_total", ("model", "m"), ("route", "/"), ("status", "200")] == 2
    assert samples[("ketch_workers",)] == 2
    assert not any(name[0] == "ketch_model" for name in samples)
