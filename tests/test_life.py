"""How a served model lives: killed, renewed, hung, overloaded, replaced and ended, while callers go on asking.

The numbers are small here; tests/soak takes the full ones.
"""

import json
import math
import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import ketch
from ketch.store import Store
from tests.soak import lives
from tests.soak.load import Crowd, Server, ask, children, echo, eventually, serving, sha256_of, slow, state

pytestmark = pytest.mark.service
NOW = "2026-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("trial", "times"),
    [
        (lives.killed, 12),
        (lives.renewed, 3),
        (lives.swapped, 4),
        (lives.refused, 4),
        (lives.restarted, 3),
        (lives.everything, 30_000),
    ],
)
def test_callers_notice_nothing(tmp_path: Path, trial: Any, times: int) -> None:
    tally = trial(tmp_path, times)
    assert tally.answered > 500, tally


# ---- a model that takes its time ---------------------------------------------------------------------


class Slow:
    """A server of a model that takes as long as it is told, with a deadline of a second."""

    def __init__(self, server: Server, asked: Path) -> None:
        self.server, self.asked = server, asked

    def ask(self, nonce: int, spend: float) -> tuple[int, float, str]:
        """Give status, seconds and head; 0 where the connection broke."""
        body = json.dumps({"nonce": float(nonce), "spend": spend}).encode()
        head = "POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"
        began = time.monotonic()
        with suppress(ConnectionError), socket.create_connection(("127.0.0.1", self.server.port), timeout=20) as line:
            line.sendall(head.encode() + b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
            found = b"".join(iter(lambda: line.recv(65536), b"")).decode()
            if found:
                return int(found[9:12]), time.monotonic() - began, found
        return 0, time.monotonic() - began, ""

    def beside(self, nonce: int, spend: float) -> threading.Thread:
        thread = threading.Thread(target=self.ask, args=(nonce, spend))
        thread.start()
        return thread

    def runs(self, nonce: int) -> int:
        return self.asked.read_text().split().count(str(nonce))

    def health(self, seconds: float) -> float:
        """Ask for the health of the server all the while; give the longest time that took."""
        worst, until = 0.0, time.monotonic() + seconds
        while time.monotonic() < until:
            for path in ("/health/live", "/health/ready"):
                began = time.monotonic()
                with suppress(ConnectionError):  # it was at the one that was killed
                    assert self.server.get(path)[0] == 200
                    worst = max(worst, time.monotonic() - began)
            time.sleep(0.02)
        return worst


@pytest.fixture(scope="module")
def slowly(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("slow")
    return slow(home, home)


@pytest.fixture
def patient(slowly: Path, tmp_path: Path) -> Iterator[Slow]:
    (tmp_path / "asked").touch()
    with serving(slowly, "--workers", 2, "--deadline", 1, home=slowly.parent, ASKED=str(tmp_path / "asked")) as server:
        yield Slow(server, tmp_path / "asked")


def test_a_model_that_never_returns_is_replaced_and_one_that_is_late_is_not(patient: Slow) -> None:
    before = set(patient.server.workers)
    status, spent, head = patient.ask(1000, 1.6)
    assert (status, round(spent)) == (504, 1)
    assert '"code":"deadline-passed"' in head
    time.sleep(1.0)
    assert set(patient.server.workers) == before
    asking = patient.beside(1001, 600.0)
    assert patient.health(3.0) < 0.5  # 0.1 s where a core is free
    asking.join()
    eventually(lambda: len(set(patient.server.workers) - before) == 1)
    assert patient.server.log.count("has hung for 2") == 1


def test_a_model_that_holds_the_interpreter_is_replaced(patient: Slow) -> None:
    before = set(patient.server.workers)
    began = time.monotonic()
    status, _, _ = patient.ask(1002, -20.0)
    assert status in {0, 504}
    eventually(lambda: before - set(patient.server.workers))
    assert time.monotonic() - began < 3.5
    assert patient.ask(1003, 0.0)[0] == 200


def test_what_waited_too_long_is_refused_and_never_asked(patient: Slow) -> None:
    threads = [patient.beside(2000 + place, 0.8) for place in range(2)]  # both workers are busy, more or less
    time.sleep(0.1)
    answers: list[tuple[int, int]] = []

    def wait(nonce: int) -> None:
        answers.append((nonce, patient.ask(nonce, 0.8)[0]))

    threads += [threading.Thread(target=wait, args=(3000 + place,)) for place in range(8)]
    for each in threads[2:]:
        each.start()
    for each in threads:
        each.join()
    time.sleep(1.0)
    statuses = Counter(status for _, status in answers)
    assert set(statuses) <= {200, 503, 504}, statuses
    assert statuses[503] >= 4, statuses
    for nonce, status in answers:
        if status == 503:
            assert patient.runs(nonce) == 0
        else:
            assert patient.runs(nonce) == 1


def test_four_times_what_it_can_answer(slowly: Path, tmp_path: Path) -> None:
    (asked := tmp_path / "asked").touch()

    def body(nonce: int) -> bytes:
        return b'{"nonce":%d,"spend":0.02}' % nonce

    with serving(slowly, "--workers", 2, "--deadline", 1, home=slowly.parent, ASKED=str(asked)) as server:
        calm = ask(Crowd([server.port], total=300, connections=16, body=body))
        capacity = calm.answered / calm.spent
        asked.write_text("")
        crowd = Crowd([server.port], rate=4 * capacity, connections=400, body=body)
        tally = ask(crowd, lambda _: time.sleep(5))
        lives.flawless(tally)
        assert tally.asked > 2 * capacity * tally.spent, tally
        assert tally.answered >= 0.9 * capacity * tally.spent, (tally, capacity)
        refused = sorted(tally.refused_seconds)
        assert refused[len(refused) // 2] < 0.05
        assert refused[int(0.95 * len(refused))] < 0.25  # 0.05 s where a core is free for those who ask
        assert max(tally.seconds) < 1.2
        runs = Counter(asked.read_text().split())
        answered = sum(1 for nonce, times in runs.items() if int(nonce) > 100 and times == 1)
        assert answered <= tally.answered  # nothing was asked that was refused
        assert "has hung" not in server.log


# ---- the end -----------------------------------------------------------------------------------------


def test_an_order_to_stop_drains(slowly: Path, tmp_path: Path) -> None:
    words = (slowly, "--workers", 2, "--drain", 1)
    with serving(*words, home=slowly.parent, ASKED=os.devnull) as server:
        patient = Slow(server, tmp_path)
        late: list[tuple[int, float, str]] = []
        threads = [threading.Thread(target=lambda: late.append(patient.ask(1, 2.0))) for _ in range(2)]
        for each in threads:
            each.start()
        time.sleep(0.3)
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        eventually(lambda: server.get("/health/ready")[0] == 503, 0.3, 0.005)
        assert server.get("/health/live")[0] == 200
        new = patient.ask(2, 0.0)  # others still come
        assert new[0] == 200
        assert "connection: close" in new[2].lower()
        while time.monotonic() < began + 0.8:
            assert patient.ask(3, 0.0)[0] == 200
        eventually(lambda: refuses(server.port), 2.0)
        for each in threads:
            each.join()
        assert [status for status, _, _ in late] == [200, 200]
        assert server.process.wait(10) == 0
        assert time.monotonic() - began < 5  # a knock that was not heard is repeated after a second


def refuses(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except ConnectionRefusedError:
        return True
    return False


def test_an_interrupt_does_not_wait_for_others_and_a_second_one_for_nobody(slowly: Path, tmp_path: Path) -> None:
    with serving(slowly, "--workers", 2, "--drain", 20, home=slowly.parent, ASKED=os.devnull) as server:
        began = time.monotonic()
        assert server.end(signal.SIGINT) == 0
        assert time.monotonic() - began < 2
    with serving(slowly, "--workers", 2, "--drain", 20, home=slowly.parent, ASKED=os.devnull) as server:
        Slow(server, tmp_path).beside(1, 30.0)
        time.sleep(0.3)
        server.process.terminate()
        time.sleep(0.3)
        assert server.process.poll() is None
        began = time.monotonic()
        server.end(signal.SIGTERM)
        assert time.monotonic() - began < 1


def test_workers_without_a_supervisor_finish_and_go(slowly: Path, tmp_path: Path) -> None:
    with serving(slowly, "--workers", 2, home=slowly.parent, ASKED=os.devnull) as server:
        workers = server.workers
        answers: list[int] = []
        thread = threading.Thread(target=lambda: answers.append(Slow(server, tmp_path).ask(1, 1.0)[0]))
        thread.start()
        time.sleep(0.2)
        os.kill(server.pid, signal.SIGKILL)
        thread.join()
        assert answers == [200]
        eventually(lambda: all(state(each) in {"", "Z"} for each in workers), 5.0)
        assert refuses(server.port)


# ---- versions ----------------------------------------------------------------------------------------


def test_an_alias_is_followed_and_later_workers_have_it_too(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    bundles = [echo(tmp_path, number) for number in range(2)]
    for data in bundles:
        store.push(data, "echo", when=NOW)
    store.promote("echo:1", when=NOW)
    with serving("echo", "--follow", "--workers", 2, home=tmp_path) as server:
        with ketch.Client(f"http://localhost:{server.port}") as client:
            assert client.predict({"nonce": 7}) == {"answer": 7.0}
            store.promote("echo:2", when=NOW)
            eventually(lambda: lives.reloads(server, "taken") == 1)
            eventually(lambda: client.predict({"nonce": 7}) == {"answer": 2.0**30 + 7.0})
        for _ in range(2):
            before = server.workers
            os.kill(before[0], signal.SIGKILL)
            eventually(lambda before=before: len(set(server.workers) - set(before)) == 1)  # type: ignore[misc]
        tally = ask(Crowd([server.port], {sha256_of(bundles[1]): 2.0**30}, total=400))
        lives.flawless(tally)
        served = [key for key in server.metrics() if key.startswith("ketch_model{")]
        assert len(served) == 1
        assert 'version="2"' in served[0]


def test_a_split_is_sticky_and_its_shares_are_right(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    bundles = [echo(tmp_path, number) for number in range(2)]
    for data in bundles:
        store.push(data, "echo", when=NOW)
    store.promote("echo:1", when=NOW)
    store.promote("echo:2", "challenger", when=NOW)
    constants = {sha256_of(data): 2.0**30 * number for number, data in enumerate(bundles)}
    n, share = 4000, 0.1
    with serving("echo", "--split", "echo@challenger=10", "--workers", 2, home=tmp_path) as server:
        tallies = [ask(Crowd([server.port], constants, total=n)) for _ in range(2)]
        for each in tallies:
            lives.flawless(each)
        rival = tallies[0].versions[sha256_of(bundles[1])]
        assert abs(rival - n * share) < 5 * math.sqrt(n * share * (1 - share))
        assert tallies[0].versions == tallies[1].versions  # by the body, where there is no key
        for key in ("ana", "bruno", "carla", "davi") * 5:
            found = {_asked_as(server, key, nonce) for nonce in range(10)}
            assert len(found) == 1
        assert len({_asked_as(server, f"caller {place}", 1) for place in range(200)}) == 2


def _asked_as(server: Server, key: str, nonce: int) -> str:
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        headers = {"Content-Type": "application/json", "Ketch-Key": key}
        connection.request("POST", "/predict", json.dumps({"nonce": nonce}), headers)
        return str(connection.getresponse().headers["Ketch-Model"])
    finally:
        connection.close()


def test_the_client_asks_again_below_kills(tmp_path: Path) -> None:
    (tmp_path / "echo.ketch").write_bytes(echo(tmp_path))
    with serving(tmp_path / "echo.ketch", "--workers", 2, home=tmp_path) as server:
        ends = threading.Event()

        def kills() -> None:
            while not ends.wait(0.3):
                os.kill(children(server.pid)[0], signal.SIGKILL)

        killer = threading.Thread(target=kills)
        killer.start()
        try:
            with ketch.Client(f"http://localhost:{server.port}") as client:
                until = time.monotonic() + 3
                nonce = 0
                while time.monotonic() < until:
                    nonce += 1
                    assert client.predict({"nonce": nonce}) == {"answer": float(nonce)}
        finally:
            ends.set()
            killer.join()


def test_a_shadow_is_asked_the_same_and_nobody_gets_its_answers(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    bundles = [echo(tmp_path, number) for number in range(2)]
    for data in bundles:
        store.push(data, "echo", when=NOW)
    store.promote("echo:1", when=NOW)
    store.promote("echo:2", "challenger", when=NOW)
    with serving("echo", "--shadow", "echo@challenger", "--workers", 2, home=tmp_path) as server:
        tally = ask(Crowd([server.port], {sha256_of(bundles[0]): 0.0}, total=600, rate=600))
        lives.flawless(tally)
        assert set(tally.versions) == {sha256_of(bundles[0])}
        seen = 'ketch_shadowed_total{model="echo",outcome="other",version="2"}'
        eventually(lambda: server.metrics().get(seen) == 600, 5)
        assert lives.sum_of(server.metrics(), "ketch_rows_total", 'version="2"') == 0
