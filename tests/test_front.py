"""The fast front on real sockets: keep-alive, pipelines, pieces, broken callers, crowds, and the end by a signal."""

import json
import logging
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ketch.adapters import Raw
from ketch.errors import SettingError
from ketch.log import read
from ketch.predict import Predictor, Results, Rows
from ketch.schema import Columns
from ketch.serve import Call, desk, front
from ketch.serve.guard import Guard
from ketch.serve.metrics import Memory
from ketch.serve.routes import Service
from ketch.serve.server import listen, server_for, start, turn_away, url_of
from tests.doors import KEY, ROW, Doors, Small, Wire, fronting, getting, problem, question, rows

LIMIT = 100_000


@pytest.fixture(scope="module")
def port(doors: Doors) -> Iterator[int]:
    """A front whose largest body is small, so that what is too large is quickly sent."""
    with fronting(doors.service(max_body=LIMIT)) as found:
        yield found


@pytest.fixture
def wire(port: int) -> Iterator[Wire]:
    with Wire(port) as made:
        yield made


@pytest.fixture(autouse=True)
def _nothing_logged(caplog: pytest.LogCaptureFixture, request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "logged" not in request.node.name:
        wrong = [each.getMessage() for each in caplog.records if each.levelno >= logging.ERROR]
        assert not wrong


def alive(port: int) -> bool:
    with Wire(port) as made:
        made.send(question(ROW), getting("/health/ready"))
        return [made.answer().status, made.answer("GET").status] == [200, 200]


# ---- connections -------------------------------------------------------------------------------------


def test_a_connection_is_kept(wire: Wire, small: Small) -> None:
    for row in rows(20):
        wire.send(question(row))
        answered = wire.answer()
        assert answered.json == small.predictor.predict(row)
        assert "connection" not in answered.headers
        wire.send(getting("/health/live"))
        assert wire.answer("GET").json == {"status": "live"}


@pytest.mark.parametrize(
    "asked",
    [
        question(ROW, "Connection: close"),
        question(ROW, version="1.0"),
        question(ROW, "Connection: keep-alive", version="1.0"),
    ],
)
def test_a_connection_is_closed_when_asked(wire: Wire, asked: bytes) -> None:
    wire.send(asked)
    answered = wire.answer()
    assert answered.status == 200
    assert answered.headers["connection"] == "close"
    assert wire.rest() == b""


def test_pipelined_requests_are_answered_in_order(port: int, small: Small) -> None:
    asked = {
        **{f"row {n}": (question(row), "POST", 200) for n, row in enumerate(rows(4))},
        "live": (getting("/health/live"), "GET", 200),
        "head": (getting("/health/live", method="HEAD"), "HEAD", 200),
        "unknown": (getting("/nothing"), "GET", 404),
        "bad": (question({}), "POST", 422),
        "large": (question(b" " * (LIMIT + 1)), "POST", 413),
        "by query": (question(ROW, path="/predict?x"), "POST", 200),
        "chunked": (
            b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
            "POST",
            422,
        ),
    }
    answers = {f"row {n}": small.predictor.predict(row) for n, row in enumerate(rows(4))}

    def check(order: list[str]) -> None:
        with Wire(port) as made:
            made.send(b"".join(asked[name][0] for name in order))
            for name in order:
                found = made.answer(asked[name][1])
                assert found.status == asked[name][2], (name, found)
                if name in answers:
                    assert found.json == answers[name]
            made.send(getting("/health/live"))
            assert made.answer("GET").json == {"status": "live"}

    names = st.lists(st.sampled_from(sorted(asked)), min_size=1, max_size=12)
    settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))(
        given(names)(check)
    )()


def test_what_is_pipelined_behind_close_is_dropped(wire: Wire) -> None:
    wire.send(question(ROW, "Connection: close") + question(ROW))
    assert wire.answer().status == 200
    assert wire.rest() == b""


def test_close_is_kept_behind_other_requests_though_the_body_is_too_large(wire: Wire) -> None:
    wire.send(getting("/health/live") + question(b" " * (LIMIT + 1), "Connection: close"))
    assert wire.answer("GET").status == 200
    refused = wire.answer()
    assert (refused.status, refused.headers["connection"]) == (413, "close")
    assert wire.rest() == b""


def test_a_request_may_come_in_any_pieces(port: int, small: Small) -> None:
    whole = question(ROW) + getting("/health/live") + question({**ROW, "tenure": 60})
    wanted = [small.predictor.predict(ROW), {"status": "live"}, small.predictor.predict({**ROW, "tenure": 60})]

    def check(cuts: set[int]) -> None:
        edges = [0, *sorted(cuts), len(whole)]
        with Wire(port) as made:
            made.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            made.send(*(whole[a:b] for a, b in pairwise(edges)))
            assert [made.answer().json for _ in wanted] == wanted

    cuts = st.sets(st.integers(1, len(whole) - 1), max_size=40)
    settings(max_examples=40, deadline=None, database=None)(given(cuts)(check))()


def test_a_slow_body_is_waited_for(wire: Wire, small: Small) -> None:
    asked = question(ROW)
    for n in range(0, len(asked), 20):
        wire.send(asked[n : n + 20])
        time.sleep(0.02)
    assert wire.answer().json == small.predictor.predict(ROW)


def test_a_half_closed_connection_is_answered(port: int) -> None:
    for asked in (question(ROW), getting("/schema"), question(ROW) + getting("/schema") + question(ROW)):
        with Wire(port) as made:
            made.send(asked)
            made.socket.shutdown(socket.SHUT_WR)
            assert made.rest().count(b"HTTP/1.1 200 OK") == asked.count(b"HTTP/1.1")


def chunked(*parts: bytes, head: str = "", end: bytes = b"0\r\n\r\n") -> bytes:
    start = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n{head}\r\n".encode()
    return start + b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + end


def test_chunked_bodies(wire: Wire, small: Small) -> None:
    body = json.dumps(ROW).encode()
    wire.send(chunked(*(body[n : n + 1] for n in range(len(body)))), chunked(body))
    assert [wire.answer().json for _ in range(2)] == [small.predictor.predict(ROW)] * 2


def test_trailers_are_not_headers(doors: Doors) -> None:
    body = json.dumps(ROW).encode()
    with fronting(doors.service(guarded=True)) as port, Wire(port) as made:
        made.send(chunked(body, end=f"0\r\nX-API-Key: {KEY}\r\n\r\n".encode()))
        assert made.answer().status == 401
        made.send(chunked(body, head=f"X-API-Key: {KEY}\r\n"))
        assert made.answer().status == 200


def test_a_request_with_long_trailers_is_answered_once(doors: Doors) -> None:
    body, end = json.dumps(ROW).encode(), b"0\r\nX-T: %b\r\n\r\n" % (b"a" * 100_000)
    with fronting(doors.service()) as port:
        for _ in range(10):  # how much arrives at once is not ours to say: one piece is taken, several are too much
            with Wire(port) as made:
                made.send(chunked(body, end=end))
                if made.answer().status == 200:
                    made.send(getting("/health/live"))
                    assert made.answer("GET").status == 200


def test_a_header_given_twice_is_one_line(wire: Wire) -> None:
    wire.send(question(ROW, "Host: evil.example"))
    assert problem(wire.answer())["code"] == "host-not-allowed"
    wire.send(question(ROW, "Accept: text/html", "Accept: text/csv"))
    assert wire.answer().headers["content-type"] == "text/csv"


def test_an_underscore_is_not_a_dash(doors: Doors) -> None:
    with fronting(doors.service(guarded=True)) as port, Wire(port) as made:
        made.send(getting("/schema", f"X_API_Key: {KEY}"))
        assert made.answer("GET").status == 401
        made.send(question(ROW, f"X_API_Key: {KEY}"))
        assert made.answer().status == 401


def test_expect_100_continue(wire: Wire, small: Small) -> None:
    head, body = question(ROW, "Expect: 100-continue").split(b"\r\n\r\n")
    for _ in range(2):
        wire.send(head + b"\r\n\r\n")
        assert wire.socket.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        wire.send(body)
        assert wire.answer().json == small.predictor.predict(ROW)
    wire.send(head + b"\r\n\r\n" + body)  # whoever does not wait
    assert wire.answer().json == small.predictor.predict(ROW)


@pytest.mark.parametrize(
    "asked",
    [
        question(ROW, "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMA"),
        question(ROW, "Connection: Upgrade", "Upgrade: websocket", path="/predict?x"),
    ],
)
def test_an_offer_of_another_protocol_is_answered_in_this_one(
    wire: Wire, small: Small, asked: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        wire.send(asked + getting("/health/live", "Connection: Upgrade", "Upgrade: h2c") + asked)
        assert wire.answer().json == small.predictor.predict(ROW)
        assert wire.answer("GET").json == {"status": "live"}
        assert wire.answer().json == small.predictor.predict(ROW)
    wire.send(asked.replace(b"Upgrade\r\n", b"Upgrade, close\r\n").replace(b"Settings\r\n", b"Settings, close\r\n"))
    assert wire.answer().headers["connection"] == "close"
    assert not caplog.records


# ---- too much ----------------------------------------------------------------------------------------


def test_20_mb_are_refused_and_not_reset(doors: Doors) -> None:
    large = b" " * 20_000_000
    with fronting(doors.service()) as port, requests.Session() as session:
        for body in (large, iter([large[:1_000_000]] * 20)):
            for path in ("/predict", "/schema"):
                if path == "/predict" or isinstance(body, bytes):
                    answered = session.post(f"http://localhost:{port}{path}", data=body)
                    assert answered.status_code == (413 if path == "/predict" else 405)
                    assert answered.headers["content-type"] == "application/problem+json"
        assert alive(port)


def test_20_mb_are_refused_and_not_reset_by_gunicorn(doors: Doors) -> None:
    door: Any = doors("gunicorn")
    large = b" " * 20_000_000
    for body in (large, iter([large[:1_000_000]] * 20)):
        answered = requests.post(f"http://localhost:{door.port}/predict", data=body)
        assert answered.status_code == 413


def test_a_body_just_as_large_as_may_be(wire: Wire) -> None:
    wire.send(question(b" " * LIMIT))
    assert problem(wire.answer())["code"] == "undecodable-body"
    wire.send(question(b" " * (LIMIT + 1)))
    assert problem(wire.answer())["code"] == "body-too-large"


@pytest.mark.parametrize("kept", [True, False])
def test_the_rest_of_a_refused_body_is_passed_over(wire: Wire, small: Small, kept: bool) -> None:
    asked = question(b" " * (3 * LIMIT), *([] if kept else ["Connection: close"]))
    wire.send(asked[: 2 * LIMIT])
    refused = wire.answer()
    assert (refused.status, refused.headers.get("connection")) == (413, None if kept else "close")
    wire.send(asked[2 * LIMIT :])
    if kept:
        wire.send(question(ROW))
        assert wire.answer().json == small.predictor.predict(ROW)
    else:
        assert wire.rest() == b""


def test_no_one_is_read_for_ever(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front, "MOST_DISCARDED", LIMIT)
    with Wire(port) as made:
        made.send(question(b"").replace(b"Content-Length: 0", b"Content-Length: 99999999"))
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            made.send(*[b" " * 10_000] * 9_000)
    assert alive(port)


@pytest.mark.parametrize("header", ["X: " + "x" * 1_000_000, "\r\n".join(f"X-{n}: {'x' * 100}" for n in range(20_000))])
def test_endless_headers_are_refused(port: int, header: str) -> None:
    with Wire(port) as made:
        made.send(question(ROW))
        assert made.answer().status == 200
        try:
            made.send(getting("/health/live", header)[:-4])
        except OSError:
            return  # the server has closed while this was still sending
        assert problem(made.answer())["status"] == 431
    assert alive(port)


def test_headers_that_come_in_drops_are_refused_at_the_limit(wire: Wire) -> None:
    wire.send(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n")
    for n in range(66):
        wire.send(f"X-{n}: {'x' * 990}\r\n".encode())
        time.sleep(0.001)
    refused = wire.answer("GET")
    assert problem(refused)["status"] == 431
    assert refused.headers["connection"] == "close"
    assert wire.rest() == b""


# ---- what is not HTTP --------------------------------------------------------------------------------


BROKEN = [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"hello\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET /health/live HTTP/9.9\r\n\r\n",
    b"BREW /pot HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /health/live HTTP/1.1\r\nHost: local\x00host\r\n\r\n",
    b"GET /health/live HTTP/1.1\r\nbad header: 1\r\n\r\n",
    b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n",
    b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}XX",
    b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n",
]


@pytest.mark.parametrize("broken", BROKEN)
@pytest.mark.parametrize("before", [0, 1, 3])
def test_what_is_not_http_is_refused_after_what_came_before(
    port: int, broken: bytes, before: int, small: Small
) -> None:
    good = rows(before)
    with Wire(port) as made:
        made.send(b"".join(map(question, good)) + broken)
        for row in good:
            assert made.answer().json == small.predictor.predict(row)
        refused = made.answer()
        assert refused.status == 400
        assert problem(refused)["code"] == "bad-request"
        assert refused.headers["connection"] == "close"
        assert made.rest() == b""


def test_what_is_not_http_behind_flask(port: int) -> None:
    with Wire(port) as made:
        made.send(getting("/health/live") + question(ROW) + getting("/schema") + BROKEN[1])
        assert [made.answer().status for _ in range(4)] == [200, 200, 200, 400]
        assert made.rest() == b""
    broken_chunk = b"POST /schema HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
    for earlier in (b"", getting("/health/live"), question(ROW)):
        with Wire(port) as made:
            made.send(earlier + broken_chunk)
            found = made.rest()
            assert found.count(b"HTTP/1.1 200") == (1 if earlier else 0)
            assert found.count(b"HTTP/1.1 400") == 1
    with Wire(port) as made:  # refused already, and still sending
        made.send(chunked(b" " * (LIMIT + 1), end=b""))
        assert made.answer().status == 413
        made.send(b"zz\r\n")
        assert made.rest() == b""
    assert alive(port)


def test_no_bytes_break_it(port: int, small: Small) -> None:
    pieces = st.sampled_from([question(ROW), getting("/health/live"), chunked(b"{}"), *BROKEN]) | st.binary(max_size=60)

    def check(parts: list[bytes]) -> None:
        with Wire(port) as made:
            made.send(b"".join(parts))
            made.socket.shutdown(socket.SHUT_WR)
            try:
                found = made.rest()
            except ConnectionResetError:
                return
            assert b"HTTP/1.1 5" not in found

    settings(max_examples=150, deadline=None, database=None)(given(st.lists(pieces, max_size=5))(check))()
    assert alive(port)


# ---- callers that leave, or do not listen ------------------------------------------------------------


def leave(made: Wire) -> None:
    """Break the connection off, as a killed process or a cut cable would."""
    made.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    made.__exit__()


@pytest.mark.parametrize(
    "asked",
    [
        question(ROW)[:-10],
        question(ROW)[:40],
        question(ROW),
        question(ROW) * 5,
        getting("/schema") * 5,
        getting("/schema") + question(ROW) + getting("/"),
        question(ROW, path="/schema")[:-5],
        chunked(b"{", end=b""),
    ],
)
def test_a_caller_that_leaves_disturbs_nobody(port: int, asked: bytes, small: Small) -> None:
    for n in range(30):
        made, other = Wire(port), Wire(port)
        other.send(question(ROW)[:-3])
        made.send(asked)
        if n % 3 == 0:
            time.sleep(0.002)
        leave(made)
        other.send(question(ROW)[-3:])
        assert other.answer().json == small.predictor.predict(ROW)
        other.__exit__()
    assert alive(port)


def test_many_slow_callers_do_not_hold_up_the_health(port: int) -> None:
    slow = [Wire(port) for _ in range(40)]
    for made, path in zip(slow, ["/predict", "/schema", "/%70redict", "/predict?x"] * 10, strict=True):
        made.send(question(ROW, path=path)[:-3])
    assert alive(port)
    for made in slow:
        made.__exit__()


@pytest.mark.service
def test_a_caller_that_does_not_listen_is_not_read_on(doors: Doors) -> None:
    asked = question([{}] * 50)  # a small question with a large answer
    opened = listen("127.0.0.1", 0)
    for buffer in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        opened.setsockopt(socket.SOL_SOCKET, buffer, 4096)
    port = opened.getsockname()[1]
    stop = start(doors.service(), opened)
    with Wire(port, timeout=0.3) as made:
        made.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        sent = 0
        try:
            while sent < 2**24:
                sent += made.socket.send((asked * 100)[sent % len(asked) :])
        except TimeoutError:
            pass
        assert sent < 2**24
        assert alive(port)
        made.socket.settimeout(20)
        for _ in range(sent // len(asked)):  # and when it listens, it gets its answers
            assert made.answer().status == 422
        made.send(asked[sent % len(asked) :], question(ROW))
        assert [made.answer().status for _ in range(2)] == [422, 200]
    stop()


# ---- crowds ------------------------------------------------------------------------------------------


def ask_all(port: int, asked: Sequence[dict[str, Any]], depth: int = 1) -> list[tuple[int, Any]]:
    found: list[tuple[int, Any]] = []
    with Wire(port) as made:
        for n in range(0, len(asked), depth):
            part = asked[n : n + depth]
            made.send(b"".join(map(question, part)))
            found += [(answer.status, answer.json) for answer in (made.answer() for _ in part)]
    return found


@pytest.mark.service
@pytest.mark.parametrize("depth", [1, 4])
def test_no_answer_crosses_to_another(port: int, small: Small, depth: int) -> None:
    asked = rows(2400, seed=7)
    chance = random.Random(3)
    for row in chance.sample(asked, 200):  # refused ones among them
        row["tenure"] = "many"
    wanted = [(422, None) if row["tenure"] == "many" else (200, small.predictor.predict(row)) for row in asked]
    with ThreadPoolExecutor(16) as crowd:
        parts = list(crowd.map(lambda n: ask_all(port, asked[n::16], depth), range(16)))
    for n, part in enumerate(parts):
        found = [(status, body if status == 200 else None) for status, body in part]
        assert found == wanted[n::16]


class Moody(Predictor):
    """A model that fails on some rows: by an error, or by an answer that is not a number."""

    def __init__(self, healthy: Predictor, trouble: Callable[[Columns, int], Raw | None]) -> None:
        def runner(columns: Columns, n: int) -> Raw:
            return trouble(columns, n) or healthy._runner(columns, n)

        super().__init__(healthy.bundle, runner)


def raising(columns: Columns, n: int) -> Raw | None:
    if 13 in columns["tenure"]:
        raise ZeroDivisionError
    return None


def nan(columns: Columns, n: int) -> Raw | None:
    if 13 not in columns["tenure"]:
        return None
    probabilities = [[0.5, float("nan") if tenure == 13 else 0.5] for tenure in columns["tenure"]]
    return Raw([0] * n, probabilities, None)


@pytest.mark.parametrize("trouble", [raising, nan])
def test_a_row_without_an_answer_does_not_touch_its_neighbours(small: Small, trouble: Any) -> None:
    asked = [{**row, "tenure": n % 20} for n, row in enumerate(rows(160))]
    with fronting(Service(Moody(small.predictor, trouble), Guard())) as port, ThreadPoolExecutor(16) as crowd:
        parts = list(crowd.map(lambda n: ask_all(port, asked[n::16], 5), range(16)))
    for n, part in enumerate(parts):
        for row, (status, body) in zip(asked[n::16], part, strict=True):
            assert status == (422 if row["tenure"] == 13 else 200)
            if status == 422:
                assert body["code"] == "not-answerable"


def test_more_rows_than_one_call_takes(port: int, small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk, "MOST_ROWS", 3)
    asked = rows(2)
    with Wire(port) as one, Wire(port) as two:
        for made in (one, two):
            made.send(question(asked) * 3)
        for made in (one, two):
            assert [made.answer().json for _ in range(3)] == [small.predictor.predict(asked)] * 3


class Broken(Service):
    """A service with a bug where none should be."""

    def problem(self, *args: Any) -> Any:
        raise ZeroDivisionError


def test_nobody_is_left_waiting_by_a_bug_that_is_logged(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    with fronting(Broken(small.predictor, Guard())) as port, Wire(port) as made, Wire(port) as other:
        other.send(question(ROW))
        made.send(question({}))
        assert made.rest() == b""
        assert other.answer().status == 200 or other.rest() == b""


class Unlucky(Service):
    """A service with a bug: it cannot finish one question."""

    plain = False

    def record(self, call: Call, rows: Rows, results: Results, began: float) -> None:
        if call.request_id == "unlucky":
            raise ZeroDivisionError("secret")


def test_a_bug_in_finishing_costs_one_answer_and_is_logged(small: Small, caplog: pytest.LogCaptureFixture) -> None:
    service = Unlucky(small.predictor, Guard())
    with fronting(service) as port, Wire(port) as made:
        made.send(question(ROW) + question(ROW, "X-Request-ID: unlucky") + question(ROW))
        found = [made.answer() for _ in range(3)]
    assert [each.status for each in found] == [200, 500, 200]
    assert b"secret" not in found[1].body
    assert [each.exc_info is not None for each in caplog.records] == [True]


class Stuck(Predictor):
    """A predictor with a bug: it fails before it asks its model."""

    def __init__(self, healthy: Predictor) -> None:
        super().__init__(healthy.bundle, healthy._runner)

    def ask(self, rows: Rows) -> Raw:
        raise ZeroDivisionError

    def answer_row(self, values: object) -> Results:
        raise ZeroDivisionError


def test_a_bug_in_running_is_a_500_and_is_logged(small: Small) -> None:
    with fronting(Service(Stuck(small.predictor), Guard())) as port, Wire(port) as made:
        made.send(question(ROW))
        assert made.answer().json["status"] == 500


# ---- sockets -----------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="sockets hear one device alone on Linux")
def test_who_knocks_at_the_end_is_refused_and_who_was_let_in_is_not() -> None:
    if len(socket.if_nameindex()) < 2:
        pytest.skip("this machine has no network device beside its loopback")
    with listen("127.0.0.1", 0) as opened:
        before = socket.create_connection(opened.getsockname())
        turn_away(opened)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(opened.getsockname())
        taken, _ = opened.accept()
        with before, taken:
            before.sendall(b"question")
            assert taken.recv(100) == b"question"


def test_addresses() -> None:
    with listen("127.0.0.1", 0) as opened:
        port = opened.getsockname()[1]
        assert url_of(opened) == f"http://localhost:{port}"
        with pytest.raises(SettingError, match="cannot be listened on") as refused:
            listen("127.0.0.1", port)
        assert "--port" in refused.value.hint
    for host, wrong in (("203.0.113.1", 0), ("no.such.host.invalid", 0), ("127.0.0.1", 70_000)):
        with pytest.raises(SettingError, match="cannot be listened on"):
            listen(host, wrong)
    with listen("127.0.0.2", 0) as opened:
        assert url_of(opened).startswith("http://127.0.0.2:")


def test_ipv6(small: Small) -> None:
    try:
        opened = listen("::1", 0)
    except SettingError:
        pytest.skip("no IPv6 here")
    assert url_of(opened) == f"http://localhost:{opened.getsockname()[1]}"
    stop = start(Service(small.predictor, Guard()), opened)
    answered = requests.post(f"http://[::1]:{opened.getsockname()[1]}/predict", json=ROW)
    stop()
    assert answered.json() == small.predictor.predict(ROW)


def test_stopping_before_the_start_is_stopping(small: Small) -> None:
    opened = listen("127.0.0.1", 0)
    port = opened.getsockname()[1]
    start(Service(small.predictor, Guard()), opened)()
    with listen("127.0.0.1", port):
        pass


def test_in_the_foreground_a_model_is_served_until_stopped(small: Small) -> None:
    with listen("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    code = f"import ketch; print(ketch.serve({str(small.bundle)!r}, port={port}))"
    environ = {**os.environ, "KETCH_HOME": str(small.home)}
    process = subprocess.Popen([sys.executable, "-c", code], env=environ, stdout=subprocess.PIPE, text=True)
    answered = eventually(lambda: requests.post(f"http://127.0.0.1:{port}/predict", json=ROW, timeout=30))
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=60)[0] == "None\n"
    assert answered.json() == small.predictor.predict(ROW)


def eventually(ask: Callable[[], requests.Response]) -> requests.Response:
    """Ask until somebody listens, for a minute at most."""
    until = time.monotonic() + 60
    while True:
        try:
            return ask()
        except requests.ConnectionError:
            assert time.monotonic() < until
            time.sleep(0.1)


# ---- the end -----------------------------------------------------------------------------------------


@pytest.mark.service
def test_sigterm_under_load(small: Small, tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path / 'log.db'}"
    process = subprocess.Popen(
        [sys.executable, "-m", "ketch", "serve", str(small.bundle), "--port", "0", "--log", database],
        env={**os.environ, "KETCH_HOME": str(small.home), "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    found = re.search(r"http://localhost:(\d+)", process.stdout.readline() if process.stdout else "")
    assert found, process.communicate()
    port = int(found[1])
    answered: list[list[str]] = [[] for _ in range(8)]
    enough = threading.Event()

    def ask(ids: list[str]) -> None:
        asked = rows(200)
        made = Wire(port)
        try:
            while True:
                for row in asked:
                    made.send(question(row))
                    answer = made.answer()
                    assert answer.status == 200
                    ids.append(answer.headers["x-request-id"])
                    if answer.headers.get("connection") == "close":
                        made.__exit__()
                        made = Wire(port)
                    if len(ids) > 100:
                        enough.set()
        except OSError:  # http.client says RemoteDisconnected where nothing at all came: half an answer fails here
            made.__exit__()

    with ThreadPoolExecutor(8) as crowd:
        asking = [crowd.submit(ask, ids) for ids in answered]
        assert enough.wait(30)
        slow = Wire(port)  # half a question, whose other half comes after the signal
        slow.send(question(ROW)[:-5])
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        slow.send(question(ROW)[-5:])
        last = slow.answer()
        assert (last.status, last.headers["connection"]) == (200, "close")
        slow.__exit__()
        for each in asking:
            each.result(timeout=30)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    ids = {each for part in answered for each in part} | {last.headers["x-request-id"]}
    kept = [record.request_id for record in read(database)]
    assert ids <= set(kept)
    assert len(kept) == len(set(kept))
    assert f"{len(kept)} predictions recorded, 0 dropped" in errors
    with listen("127.0.0.1", port):
        pass


def test_connections_are_counted(small: Small) -> None:
    memory = Memory()
    server = server_for(Service(small.predictor, Guard()), page=memory.page(1))
    opened = listen("127.0.0.1", 0)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [opened]})
    thread.start()
    port = opened.getsockname()[1]
    with Wire(port) as one, Wire(port) as two:
        for each in (one, two):
            each.send(question(ROW))
            assert each.answer().status == 200
        until = time.monotonic() + 10
        while memory.totals().get(("ketch_connections", ())) != [2.0] and time.monotonic() < until:
            time.sleep(0.05)
        assert memory.totals()["ketch_connections", ()] == [2.0]
    server.should_exit = True
    thread.join(timeout=35)
