"""A storm of hostile requests against a real server: nothing breaks, nothing crosses, nobody else waits.

The full storm is in tests/soak/test_storm.py.
"""

import asyncio
import itertools
import json
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import msgspec
import pytest

from ketch.codec import CSV, JSON, accepted, decode, read_json, without_nan
from ketch.errors import RowsRefused
from ketch.serve import all_routes
from ketch.serve.desk import named
from ketch.serve.front import Patience
from ketch.serve.routes import Service
from ketch.serve.server import listen, server_for
from tests.amplified import pairs
from tests.doors import KEY, ROW, Doors, Wire, fronting, getting, problem, question
from tests.framing import Framing
from tests.siege import HIDDEN, KINDS, Fort, Judge, barrage, descriptors, fire, schemathesis, spent, unharmed
from tests.soak.load import Server
from tests.storm import Seed, Shot, Storm, is_json, json_bodies, numbers, text_bodies

CHANGED = 40_000  # requests with bytes changed; with the others these are more than 50,000
PATHS = ("/invocations", "/score", "/v2/models/storm/infer", "/explain", "/models/raw/predict")

# ---- what once cost the square of its size ------------------------------------------------------------


def test_a_text_without_an_end_is_read_once() -> None:
    began = time.process_time()
    for body in (b"NaN" + rb"\"" * 500_000, b"NaN" + b'"' * 1_000_001, b'NaN"' + b"\\\n" * 500_000):
        assert without_nan(body) == b"null" + body[3:]
    assert time.process_time() - began < 20


def test_many_headers_are_read_once() -> None:
    headers = [(b"x%x" % number, b"") for number in range(50_000)] + [(b"x1", b"a"), (b"x1", b"b")]
    began = time.process_time()
    assert named(headers)["x1"] == ",a,b"
    assert time.process_time() - began < 20


def test_numbers_at_the_end_of_the_range_are_read_fast() -> None:
    numbers = b"[" + b",".join([b"1e308", b"-8.5e-323"] * 100_000) + b"]"
    began = time.process_time()
    assert read_json(numbers)[:2] == [1e308, -8.5e-323]
    with pytest.raises(RowsRefused, match="not an object"):
        decode(numbers.replace(b"[", b"[[").replace(b"]", b"]]"), JSON, (), max_rows=9)
    assert time.process_time() - began < 3  # it was 5 s


def test_rows_with_names_of_their_own_are_refused_early() -> None:
    rows = b"[" + b",".join(b'{"n%d":0}' % number for number in range(3000)) + b"]"
    with pytest.raises(RowsRefused, match="hardly any in common"):
        decode(rows, JSON, (), max_rows=10_000)


def test_endless_lists_of_preferences_are_not_read_to_the_end() -> None:
    assert accepted("text/csv, " + "a/b;q=0.1," * 100_000, JSON) == CSV


# ---- what once was lost --------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/predict", "/score"])
def test_whole_requests_are_answered_before_one_that_stays_half(doors: Doors, path: str) -> None:
    with fronting(doors.service()) as port:
        for last in ("/predict", "/score"):
            for many in (0, 1, 2, 5):
                with Wire(port) as made:
                    made.send(question(ROW, path=path) * many + question(ROW, path=last)[:-3])
                    made.socket.shutdown(socket.SHUT_WR)
                    assert made.rest().count(b"HTTP/1.1 ") == many


@pytest.mark.parametrize("path", ["/predict", "/score", "/invocations", "/explain"])
def test_a_body_in_chunks_is_read_by_every_route(doors: Doors, path: str) -> None:
    row = json.dumps({"data": [ROW]} if path == "/score" else ROW).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    with fronting(doors.service(max_body=10_000)) as port, Wire(port) as made:
        made.send(head, b"%x\r\n%b\r\n" % (len(row), row), b"0\r\n\r\n")
        assert made.answer().status == 200
        made.send(head, *[b"400\r\n%b\r\n" % (b" " * 1024)] * 10, b"0\r\n\r\n")
        assert problem(made.answer())["code"] == "body-too-large"
        made.send(question(ROW))
        assert made.answer().status == 200


OTHERS = [getting("/", method="CONNECT"), question(ROW).replace(b" HTTP/1.1", b"", 1), question(ROW, version="2.0")]


@pytest.mark.parametrize("asked", OTHERS)
def test_tunnels_and_other_versions_are_refused(doors: Doors, asked: bytes) -> None:
    with fronting(doors.service()) as port, Wire(port) as made:
        made.send(asked + question(ROW))
        assert problem(made.answer())["status"] == 400
        assert made.rest() == b""


def test_offers_of_another_protocol_may_come_by_the_hundred(doors: Doors) -> None:
    offer = getting("/health/live", "Upgrade: h2c", "Connection: Upgrade")
    with fronting(doors.service()) as port, Wire(port) as made:
        made.send(offer * 1500, getting("/health/live", "Connection: close"))
        assert made.rest().count(b"HTTP/1.1 200 OK") == 1501


# ---- the storm -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fort(tmp_path_factory: pytest.TempPathFactory) -> Fort:
    return Fort.build(tmp_path_factory.mktemp("fort"))


@pytest.fixture(scope="module")
def server(fort: Fort) -> Iterator[Server]:
    """Two workers that have imported all that they will need, so that what they grow by is what they leak."""
    with fort.serving("--workers", "2") as made:
        shots = [[Shot(each.wire("a"), "seed", method=each.method)] for each in fort.seeds()]
        for worker in made.workers:
            began = spent([worker])
            while spent([worker]) < began + 0.4:
                barrage(made.port, Judge(), shots, 8)
        yield made


def held(judge: Judge) -> None:
    print(judge.answers, dict(judge.statuses), dict(judge.families), f"longest volley {judge.slowest:.2f} s")
    assert not judge.wrongs, f"{judge.wrongs} wrong: " + "\n".join(judge.wrong[:10])


@pytest.mark.service
def test_every_route_is_stormed(fort: Fort, server: Server) -> None:
    seeds = fort.seeds()
    judge = Judge(fort.canaries(), allowed=frozenset({200}))
    barrage(
        server.port, judge, [[Shot(each.wire("a"), each.path, method=each.method, request_id=b"a")] for each in seeds]
    )
    held(judge)
    asked = {(each.method, each.path.partition("?")[0]) for each in seeds}
    for route in all_routes():
        pattern = re.compile(re.sub(r"\{\w+\}", "[^/]+", route.path))
        assert any(method == route.method and pattern.fullmatch(path) for method, path in asked), route


@pytest.mark.service
def test_bytes_changed(fort: Fort, server: Server) -> None:
    storm = Storm(fort.seeds(), fort.golden(), seed=time.time_ns() % 10**6)
    judge = Judge(fort.canaries())
    each = storm.framed + 1
    volleys = (storm.questions() if number % 100 == 0 else shots for number, shots in enumerate(storm))
    with unharmed(server):
        took = barrage(server.port, judge, itertools.islice(volleys, CHANGED // each))
    print(f"{judge.answers / took:.0f} answers/s")
    held(judge)
    assert judge.answers > 0.85 * CHANGED
    assert judge.families["golden"] >= 2 * (CHANGED // each // 100)
    assert len(judge.statuses) >= 6


def _json(path: str, body: bytes, number: int, refused: bool = False) -> Shot:
    name = f"json-{number}"
    wire = Seed("POST", path, body, {"Content-Type": JSON}).wire(name)
    return Shot(wire, "json", request_id=name.encode(), refused=refused)


def _corpus(fort: Fort) -> Iterator[Shot]:
    count = itertools.count()
    for number, (_, body) in enumerate(
        itertools.chain(json_bodies(fort.row, ["age", "income", "note", "plan"]), text_bodies(fort.row))
    ):
        yield _json("/predict", body, next(count), not is_json(body))
        if len(body) < 10_000 or number % 7 == 0:
            yield _json(PATHS[number % len(PATHS)], body, next(count))


def _volleys(shots: Iterator[Shot]) -> Iterator[list[Shot]]:
    waiting: list[Shot] = []
    for shot in shots:
        waiting.append(shot)
        if len(waiting) == 8 or len(shot.data) > 50_000:
            yield waiting
            waiting = []
    yield waiting


@pytest.mark.service
def test_json_and_texts_of_every_kind(fort: Fort, server: Server) -> None:
    judge = Judge(fort.canaries())
    with unharmed(server):
        barrage(server.port, judge, _volleys(_corpus(fort)), 8)
    held(judge)
    assert judge.answers > 9_900


@pytest.mark.service
def test_numbers_are_refused_or_exact(fort: Fort, server: Server) -> None:
    shots = []
    for number, text in enumerate(numbers()):
        for name in ("age", "income"):
            body = json.dumps({**fort.row, name: "@"}).replace('"@"', text).encode()
            shot = _json("/predict", body, number)
            if is_json(body):
                value = json.loads(text)
                whole = (
                    int(value)
                    if name == "age" and value == value and abs(value) < 2**53 and value == int(value)
                    else value
                )
                try:
                    exact = msgspec.json.encode(fort.storm.predict({**fort.row, name: whole}))
                except RowsRefused:
                    shot = shot._replace(refused=True)
                else:
                    shot = shot._replace(golden=exact)
            else:
                shot = shot._replace(refused=True)
            shots.append([shot])
    judge = Judge(fort.canaries())
    barrage(server.port, judge, shots)
    held(judge)


@pytest.mark.service
def test_framing_and_hidden_requests(fort: Fort, server: Server) -> None:
    body = json.dumps(fort.row).encode()
    wrong = []
    with unharmed(server):
        for case in Framing(body, HIDDEN):
            judge = Judge(fort.canaries())
            head = " HEAD " in f" {case.name}"
            barrage(server.port, judge, [[case.shot._replace(framed=head, method="HEAD" if head else "POST")]], 1)
            sound = {"taken": [*judge.statuses] == [200], "refused": min(judge.statuses, default=0) >= 400}
            if judge.wrongs or judge.answers > case.most or not sound.get(case.fate, True):
                wrong.append((case.name, case.fate, dict(judge.statuses), judge.wrong))
    assert not wrong
    assert not [name for name in server.metrics() if "ketch_requests" in name and 'model="churn"' in name]


@pytest.mark.service
def test_bodies_that_are_too_large_or_packed(fort: Fort, server: Server) -> None:
    import gzip

    bomb = gzip.compress(bytes(50_000_000))
    judge = Judge(fort.canaries())
    large = b" " * (9 * 2**20)
    chunks = b"".join(b"%x\r\n%b\r\n" % (2**20, b" " * 2**20) for _ in range(9)) + b"0\r\n\r\n"
    with unharmed(server):
        for path in ("/predict", "/invocations", "/score", "/v2/models/storm/infer", "/models/raw/predict"):
            plain = {"Content-Type": JSON}
            for coding in ("gzip", "GZIP", "deflate", "br", "zstd", "x-gzip", "identity, gzip"):
                wire = Seed("POST", path, bomb, {**plain, "Content-Encoding": coding}).wire("a")
                barrage(server.port, judge, [[Shot(wire, "packed", request_id=b"a", refused=True)]])
            by_length = Seed("POST", path, large, plain).wire("a")
            head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
            barrage(server.port, judge, [[Shot(data, "large", refused=True)] for data in (by_length, head + chunks)])
    held(judge)
    assert judge.statuses == {415: 35, 413: 10}


# ---- the slow and the idle -----------------------------------------------------------------------------


async def _drip(port: int, data: bytes, start: int, found: list[bytes]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answered = asyncio.create_task(reader.read(65_536))  # not to the end: a byte sent then resets it
    writer.write(data[:start])
    for byte in data[start:]:
        writer.write(bytes([byte]))
        if (await asyncio.wait([answered], timeout=1))[0]:
            break
    found.append(await asyncio.wait_for(answered, 30))
    writer.close()


async def _besiege(port: int, many: int, fort: Fort) -> tuple[list[bytes], Judge]:
    """Let many ask a byte a second, and one as always."""
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 90\r\n"
    whole = head + b"\r\n" + b'{"age": 40' + b" " * 80
    found: list[bytes] = []
    slow = [asyncio.create_task(_drip(port, whole, (0, len(head) + 2)[each % 2], found)) for each in range(many)]
    seed, golden = fort.golden()[0]
    judge = Judge(fort.canaries())
    while not all(each.done() for each in slow):
        await fire(port, judge, [[Shot(seed.wire("good"), "good", request_id=b"good", golden=golden)] * 8], 1)
        await asyncio.sleep(0.02)
    await asyncio.gather(*slow)
    return found, judge


@pytest.mark.service
def test_500_slow_callers_are_sent_away_and_disturb_nobody(fort: Fort, server: Server) -> None:
    before = [descriptors(pid) for pid in server.workers]
    with unharmed(server):
        found, judge = asyncio.run(_besiege(server.port, 500, fort))
    held(judge)
    assert judge.answers > 500
    assert judge.slowest < 2
    assert len(found) == 500
    assert all(each.startswith(b"HTTP/1.1 408 Request Timeout") and b"slow-request" in each for each in found)
    assert _within(5, lambda: [descriptors(pid) for pid in server.workers] == before)


def _within(seconds: float, true: object) -> bool:
    until = time.monotonic() + seconds
    while not (done := true()) and time.monotonic() < until:  # type: ignore[operator]
        time.sleep(0.05)
    return bool(done)


@contextmanager
def patient(service: Service, patience: Patience) -> Iterator[int]:
    opened = listen("127.0.0.1", 0)
    made = server_for(service, patience=patience)
    thread = threading.Thread(target=made.run, kwargs={"sockets": [opened]})
    thread.start()
    try:
        yield opened.getsockname()[1]
    finally:
        made.should_exit = True
        thread.join(30)


@pytest.mark.service
def test_callers_that_do_not_read_are_left(doors: Doors) -> None:
    with patient(doors.service(), Patience(head=1.5)) as port, ExitStack() as slow:
        before = descriptors(os.getpid())
        for _ in range(40):
            line = slow.enter_context(socket.create_connection(("127.0.0.1", port)))
            line.settimeout(0.05)
            with suppress(TimeoutError):
                line.sendall(getting("/docs/swagger-ui-bundle.js") * 100)
        assert _within(10, lambda: descriptors(os.getpid()) >= before + 80)
        with Wire(port) as good:
            for _ in range(50):
                good.send(question(ROW))
                assert good.answer().status == 200
        assert _within(30, lambda: descriptors(os.getpid()) <= before + 40 + 15)  # and what is opened once


@pytest.mark.service
def test_there_is_a_last_connection(doors: Doors) -> None:
    with patient(doors.service(), Patience(connections=50)) as port, ExitStack() as kept:
        idle = [kept.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(50)]
        idle[0].sendall(getting("/health/live"))
        assert b"200 OK" in idle[0].recv(4096)
        for _ in range(20):
            with Wire(port) as late:
                answered = late.answer()
                assert (answered.status, answered.json["code"]) == (503, "busy")
                assert answered.headers["retry-after"]
                assert late.rest() == b""
        idle[0].sendall(question(ROW))
        assert b"200 OK" in idle[0].recv(4096)
        kept.close()

        def welcome() -> bool:
            with Wire(port) as made:
                made.send(question(ROW))
                return made.answer().status == 200

        assert _within(5, welcome)


# ---- what costs much -----------------------------------------------------------------------------------

SLACK = 0.03  # seconds: below it a ratio says little
BOUNDED = {  # what costs more than five times the usual, and why that is the end of it
    "no names": "10,000 rows of two bytes, each told what it lacks",
    "records": "the same",
    "csv empty cells": "the same",
    "infer texts": "the same",
    "a name of its own in each": "64 names of each row are looked at for one that is given",
    "unknown names": "each is flagged, and looked at for a field that it may mean",
}


@pytest.mark.service
def test_nothing_costs_five_times_the_usual(fort: Fort) -> None:
    with fort.serving("--workers", "1") as alone:
        barrage(alone.port, Judge(), [[Shot(each.wire("a"), "seed", method=each.method)] for each in fort.seeds()], 2)
        judge = Judge(fort.canaries())

        def cost(data: bytes, times: int = 2) -> float:
            spends = []
            for _ in range(times):
                before = spent(alone.workers)
                barrage(alone.port, judge, [[Shot(data, "costly", framed=False)]], 1)
                spends.append(spent(alone.workers) - before)
            return min(spends)

        costly, many = {}, 0
        for pair in pairs(fort.row, KINDS):
            many += 1
            worst, usual = cost(pair.worst), cost(pair.usual)
            if worst > max(5 * usual, SLACK) and not any(pair.name.endswith(each) for each in BOUNDED):
                worst, usual = cost(pair.worst, 5), cost(pair.usual, 5)
                if worst > max(5 * usual, SLACK):
                    costly[pair.name] = f"{worst * 1e3:.1f} ms, usually {usual * 1e3:.1f} ms"
    held(judge)
    assert many > 60
    assert not costly


# ---- the description -----------------------------------------------------------------------------------


@pytest.mark.service
def test_the_service_is_as_it_describes_itself(fort: Fort, tmp_path: Path) -> None:
    few = ("--max-rows", "20")  # Schemathesis makes as many as may be
    with fort.serving("--workers", "2", *few, KETCH_API_KEYS=KEY) as guarded:
        assert not schemathesis(guarded.port, KEY, tmp_path, seconds=20)
        assert "a bug in Ketch" not in guarded.log
