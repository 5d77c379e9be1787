"""The benchmarks' arithmetic, their page, load at a constant rate; servers themselves are left to `make bench`."""

import asyncio
import itertools
import math
import re
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import psutil
import pytest
from benchmarks import figures, load, peers, report, requirements, servers, workload
from benchmarks import run as benchmarks_run
from benchmarks.figures import HUNDRED, LOADS, ONE, SIXTEEN, Load, Memory, Run, Spread, Steady, Turn, rate, ratios
from benchmarks.pace import pace, summary
from benchmarks.processes import Running
from hypothesis import given, settings
from hypothesis import strategies as st

EVERYBODY = servers.contestants()
BY_NAME = {each.name: each for each in EVERYBODY}
MACHINE = {"when": "May 2026", "machine": "2 cores", "system": "Linux", "Python": "3.11"}

sizes = st.floats(0.01, 1e6)
loads = st.builds(Load, sizes, sizes, sizes, st.integers(0, 9), sizes, sizes)
steadies = st.builds(Steady, sizes, sizes, sizes, sizes)
memories = st.builds(Memory, st.tuples(sizes, sizes), st.lists(st.tuples(sizes, sizes), max_size=3))
turns = st.builds(
    Turn,
    st.lists(sizes, min_size=1, max_size=3),
    st.dictionaries(st.sampled_from(sorted(LOADS)), loads),
    st.none() | memories,
    st.none() | steadies,
    st.none() | steadies,
)
runs = st.builds(
    Run,
    st.just(2),
    st.just(1.0),
    st.just(MACHINE),
    st.dictionaries(st.sampled_from(sorted(BY_NAME)), st.lists(st.none() | turns, min_size=2, max_size=2)),
)


def run_of(**rates: list[float]) -> Run:
    """A run in which servers reached these rates at 16 connections."""
    found = {
        name: [Turn([1.0], {SIXTEEN: Load(each, 1.0, 2.0)}) for each in each_round]
        for name, each_round in rates.items()
    }
    return Run(3, 1.0, MACHINE, {name: list(turns) for name, turns in found.items()})


# ---- arithmetic ------------------------------------------------------------------------------------


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True)))
def test_a_spread_is_of_what_is_a_number(found: list[float]) -> None:
    spread = Spread.of(found)
    known = [each for each in found if math.isfinite(each)]
    if not known:
        assert spread is None
        return
    assert spread is not None
    assert (spread.low, spread.high) == (min(known), max(known))
    assert spread.median == statistics.median(known)


def test_a_ratio_is_to_the_best_other_of_the_same_round() -> None:
    run = run_of(mine=[100.0, 300.0, 600.0], one=[50.0, 10.0, 100.0], two=[20.0, 100.0, 200.0])
    assert ratios(run, "mine", ["one", "two"], rate(SIXTEEN)) == [2.0, 3.0, 3.0]
    assert figures.best(run, ["one", "two"], rate(SIXTEEN)) == "two"


def test_a_round_that_failed_leaves_the_others() -> None:
    run = run_of(mine=[100.0, 300.0, 600.0], one=[50.0, 10.0, 100.0], two=[20.0, 100.0, 200.0])
    run.turns["mine"][0] = None
    run.turns["two"][1] = None
    found = ratios(run, "mine", ["one", "two"], rate(SIXTEEN))
    assert math.isnan(found[0])
    assert found[1:] == [30.0, 3.0]
    assert all(math.isnan(each) for each in ratios(run, "mine", ["nobody"], rate(SIXTEEN)))


@given(st.lists(sizes, min_size=3, max_size=3), st.lists(sizes, min_size=3, max_size=3), st.floats(0.1, 10))
def test_ratios_do_not_care_how_fast_the_machine_is(mine: list[float], other: list[float], speed: float) -> None:
    here = ratios(run_of(mine=mine, other=other), "mine", ["other"], rate(SIXTEEN))
    faster = run_of(mine=[each * speed for each in mine], other=[each * speed for each in other])
    assert ratios(faster, "mine", ["other"], rate(SIXTEEN)) == pytest.approx(here)


@pytest.mark.parametrize(("found", "most", "met"), [(2.0, False, True), (1.9, False, False), (2.1, True, False)])
def test_a_requirement_is_met_by_the_median(found: float, most: bool, met: bool) -> None:
    spread = Spread.of([found, found - 1, found + 1])
    assert figures.Requirement("", 2.0, spread, most=most).met is met
    assert figures.Requirement("", 2.0, None, most=most).met is None


def test_the_lower_bound_holds_only_where_no_maintained_server_reaches_the_upper() -> None:
    bare = "Granian, bare WSGI"
    for reached, bound in ((44.0, 0.35), (46.0, 0.45)):
        run = run_of(**{servers.LIMIT: [100.0] * 3, "Ketch, linear": [40.0] * 3, bare: [reached] * 3})
        first = requirements.requirements(run)[0]
        assert first.bound == bound
        assert first.met is (bound == 0.35)


def test_the_worker_is_the_largest_process_below_the_first() -> None:
    assert Memory((90.0, 50.0), [(40.0, 20.0), (60.0, 30.0)]).worker == (60.0, 30.0)
    assert Memory((90.0, 50.0)).worker == (90.0, 50.0)
    assert Memory((90.0, 50.0), [(40.0, 20.0), (60.0, 30.0)]).whole == 100.0


# ---- what others say ---------------------------------------------------------------------------------

SAID = """Running 2s test @ http://127.0.0.1:1/predict
  Latency Distribution
     50%  950.00us
     75%    1.20ms
     90%    1.70ms
     99%    1.02s
  2000 requests in 2.00s, 0.39MB read
{more}Requests/sec:   1000.00
Transfer/sec:    200.00KB
"""


def test_wrk_is_understood() -> None:
    found, total = load.parsed(SAID.format(more=""))
    assert (found.rate, found.faults, total) == (1000.0, 0, 2000)
    assert (found.middle, found.tail) == pytest.approx((0.95, 1020.0))


def test_requests_that_fail_are_no_answers() -> None:
    more = "  Socket errors: connect 0, read 3, write 0, timeout 4\n  Non-2xx or 3xx responses: 500\n"
    found, total = load.parsed(SAID.format(more=more))
    assert (found.rate, found.faults, total) == (750.0, 507, 2000)
    with pytest.raises(ValueError, match="requests in"):
        load.parsed("unable to connect")


# ---- a constant rate ---------------------------------------------------------------------------------


@contextmanager
def answering(status: int = 200, stall: float = 0.0) -> Iterator[int]:
    """A server that answers at once, but for its hundredth question."""
    asked = itertools.count(1)
    answer = b"HTTP/1.1 %d X\r\ncontent-length: 2\r\n\r\n{}" % status

    class Answering(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            if next(asked) == 100:
                time.sleep(stall)  # the whole loop: nobody is answered meanwhile
            assert isinstance(self.transport, asyncio.Transport)
            self.transport.write(answer)

    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(loop.create_server(Answering, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(loop.call_later, 0.05, loop.stop)
        thread.join()
        loop.close()


QUESTIONS = [b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n%d" % each for each in range(10)]


def test_the_rate_is_kept() -> None:
    with answering() as port:
        found = pace(port, QUESTIONS, 400.0, 0.5, 4)
    assert found.faults == 0
    assert found.rate == pytest.approx(400.0, rel=0.2)


def test_a_stall_counts_for_all_who_should_have_been_answered_meanwhile() -> None:
    with answering(stall=0.3) as port:
        found = pace(port, QUESTIONS, 400.0, 1.0, 4)
    # 120 of 400 requests fall into it, though only four can be on their way: a tenth of all wait 100 ms and more
    assert found.tail > 200
    assert found.middle < 200
    assert found.faults == 0


def test_refusals_are_faults() -> None:
    with answering(status=503) as port:
        found = pace(port, QUESTIONS, 200.0, 0.1, 2)
    assert (found.faults, found.rate) == (20, 0.0)


@given(st.lists(st.floats(1e-6, 10), min_size=1))
def test_percentiles_are_of_what_was_waited(waited: list[float]) -> None:
    found = summary(waited, 10.0, 2.0, 0)
    assert min(waited) * 1e3 <= found.middle * (1 + 1e-9)
    assert found.middle <= found.tail * (1 + 1e-9)
    assert found.tail <= max(waited) * 1e3 * (1 + 1e-9)
    assert found.rate == len(waited) / 2


# ---- who takes part ----------------------------------------------------------------------------------


def test_everybody_has_a_name_a_wire_and_an_environment() -> None:
    assert len(BY_NAME) == len(EVERYBODY)
    assert {each.wire for each in EVERYBODY} <= set(workload.WIRES)
    assert {each.peer for each in EVERYBODY} - {""} == set(peers.PACKAGES)
    assert all("==" in each or "<" in each for found in peers.PACKAGES.values() for each in found)


def test_each_requirement_compares_servers_that_there_are() -> None:
    turn = Turn(
        [0.5],
        {each: Load(10.0, 1.0, 2.0, 0, 3.0, 4.0) for each in LOADS},
        Memory((10.0, 5.0)),
        Steady(5.0, 5.0, 1.0, 2.0),
        Steady(5.0, 5.0, 1.0, 2.0),
    )
    run = Run(2, 1.0, MACHINE, {each.name: [turn, turn] for each in EVERYBODY})
    found = requirements.requirements(run)
    assert [each.what for each in found if each.met is None] == []
    assert len({(each.what, each.note) for each in found}) == len(found)


@pytest.mark.parametrize("model", servers.MODELS)
def test_peers_are_counted_with_their_batching_only_where_said(model: str) -> None:
    plain, all_ = (requirements.rivals(model, batching=batching) for batching in (False, True))
    assert len(plain) == 7
    assert set(all_) - set(plain) == {name for name in BY_NAME if "batching" in name and name.endswith(model)}
    assert not any("FastAPI" in name or "Flask" in name for name in all_)


def test_peers_that_are_not_set_up_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KETCH_PEERS", str(tmp_path))
    assert peers.programs("mosec") is None
    (tmp_path / "mosec").mkdir()
    (tmp_path / "mosec" / peers.COMPLETE).write_text("mosec==0.1\n")
    assert peers.programs("mosec") is None
    (tmp_path / "mosec" / peers.COMPLETE).write_text(peers.packages("mosec"))
    assert servers.started_by(BY_NAME["Mosec, linear"])[0][0] == str(tmp_path / "mosec" / "bin" / "python")


# ---- what is asked -----------------------------------------------------------------------------------

ROWS = [{"plan": "gold", "months": each, "spent": each / 2} for each in range(workload.ROWS)]


@pytest.mark.parametrize("together", [1, workload.TOGETHER])
def test_every_row_is_asked(together: int) -> None:
    windows = workload.Workload(Path(), ROWS, {}).windows(together)
    assert {row for window in windows for row in window} == set(range(workload.ROWS))
    assert {len(window) for window in windows} == {together}
    assert len({tuple(window) for window in windows}) == len(windows)


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("wire", sorted(workload.WIRES))
def test_each_wire_holds_the_rows(wire: str, rows: int) -> None:
    asked = repr(workload.WIRES[wire].ask(ROWS[7 : 7 + rows]))
    for row in ROWS[7 : 7 + rows]:
        assert str(row["spent"]) in asked
    assert str(ROWS[7 + rows]["spent"]) not in asked


def test_answers_are_found_in_what_each_says() -> None:
    read = {name: wire.read for name, wire in workload.WIRES.items()}
    assert read["plain"]({"churn": False, "churn_probability": 0.25}) == [0.25]
    assert read["plain"]([{"churn_probability": 0.25}, {"churn_probability": 0.5}]) == [0.25, 0.5]
    assert read["mlflow"]({"predictions": [[0.75, 0.25], [0.5, 0.5]]}) == [0.25, 0.5]
    assert read["mlserver"]({"outputs": [{"shape": [2, 2], "data": [0.75, 0.25, 0.5, 0.5]}]}) == [0.25, 0.5]
    assert read["vetiver"]({"predict": [0, 1]}) == [0.0, 1.0]


# ---- the page ----------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(runs)
def test_the_page_of_any_run_has_whole_tables(run: Run) -> None:
    page = report.text(run)
    assert "nan" not in re.findall(r"[a-z]+", page)
    for block in re.findall(r"(?:^\|.*\n?)+", page, re.MULTILINE):
        lines = block.strip().splitlines()
        assert len({line.count("|") for line in lines}) == 1
        assert set(lines[1]) <= set("|- ")
        assert len(lines) > 2


def test_the_page_says_what_is_met_and_what_is_missed() -> None:
    run = run_of(**{servers.LIMIT: [100.0, 100.0], "Ketch, linear": [50.0, 60.0], "Ketch, forest": [9.0, 8.0]})
    lines = {line.split("|")[1].strip(): line for line in report.checked(run).splitlines()}
    assert "**0.55** (0.50\N{EN DASH}0.60) | met" in lines["one row at 16 connections, linear, of nginx"]
    assert "**missed**" in lines["one row at 16 connections, forest, of nginx"]
    assert "not measured" in lines["100 rows at 4 connections, linear, of the best peer"]


def test_the_page_names_what_was_not_measured() -> None:
    run = run_of(**{servers.LIMIT: [100.0]})
    run.absent, run.failures = ["mosec"], {"vetiver, linear": "round 1: no answer after 120 s; it said last: more"}
    page = report.text(run)
    assert "Not set up, so not measured: mosec." in page
    assert "mosec 0" not in page
    assert "Not measured, vetiver, linear: round 1: no answer after 120 s." in page


def test_the_plot_holds_every_server(tmp_path: Path) -> None:
    run = run_of(**{servers.LIMIT: [1e5], "Ketch, linear": [5e4], "Mosec, linear": [123.0], "Ketch, forest": [2e4]})
    report.plot(run, tmp_path / "plot.svg")
    drawn = (tmp_path / "plot.svg").read_text("utf-8")
    assert all(each in drawn for each in ("Mosec", "Ketch", "123", "50,000", "20,000"))
    assert len(drawn) < 100_000


# ---- processes ---------------------------------------------------------------------------------------

FAMILY = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"])
time.sleep(60)
"""


@pytest.mark.service
@pytest.mark.skipif(shutil.which("taskset") is None, reason="the benchmarks need taskset")
def test_what_a_server_has_started_ends_with_it(tmp_path: Path) -> None:
    log = tmp_path / "log"
    running = Running([sys.executable, "-c", FAMILY], tmp_path, {}, log)
    try:
        running.first_answer(lambda: log.read_text("utf-8").index("up"))
        family = running.tree()
        assert len(family) == 2
        assert running.memory().worker[0] > 1
    finally:
        running.stop()
    assert not [each for each in psutil.wait_procs(family, timeout=5)[1] if each.status() != psutil.STATUS_ZOMBIE]


def test_the_command_line_explains_itself() -> None:
    said = subprocess.run(
        [sys.executable, "-m", "benchmarks.run", "--help"], capture_output=True, text=True, check=True
    )
    assert "--rounds" in said.stdout


def test_the_loads_are_those_of_the_tables() -> None:
    assert {ONE, SIXTEEN, HUNDRED} == set(LOADS)


@pytest.mark.parametrize(("rounds", "words"), [(3, ["--only", "nginx"]), (2, [])])
def test_figures_of_a_part_or_of_few_rounds_make_no_page(tmp_path: Path, rounds: int, words: list[str]) -> None:
    raw, pages = (
        tmp_path / "raw.json",
        [Path(__file__).parent.parent / "docs" / f"benchmarks.{end}" for end in ("md", "svg")],
    )
    raw.write_bytes(msgspec.json.encode(Run(rounds, 1.0, MACHINE)))
    before = [page.read_bytes() for page in pages]
    assert benchmarks_run.main(["--again", "--raw", str(raw), *words]) == 0
    assert [page.read_bytes() for page in pages] == before
