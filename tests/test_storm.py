"""A storm of hostile requests against a real server: nothing breaks, nothing crosses, nobody else waits."""

import socket
import time

import pytest

from ketch.codec import CSV, JSON, accepted, decode, read_json, without_nan
from ketch.errors import RowsRefused
from ketch.serve.desk import named
from tests.doors import ROW, Doors, Wire, fronting, getting, problem, question

# ---- what once cost the square of its size ------------------------------------------------------------


def test_a_text_without_an_end_is_read_once() -> None:
    began = time.perf_counter()
    for body in (b"NaN" + rb"\"" * 500_000, b"NaN" + b'"' * 1_000_001, b'NaN"' + b"\\\n" * 500_000):
        assert without_nan(body) == b"null" + body[3:]
    assert time.perf_counter() - began < 5


def test_many_headers_are_read_once() -> None:
    headers = [(b"x%x" % number, b"") for number in range(50_000)] + [(b"x1", b"a"), (b"x1", b"b")]
    began = time.perf_counter()
    assert named(headers)["x1"] == ",a,b"
    assert time.perf_counter() - began < 5


def test_numbers_at_the_end_of_the_range_are_read_fast() -> None:
    numbers = b"[" + b",".join([b"1e308", b"-8.5e-323"] * 100_000) + b"]"
    began = time.perf_counter()
    assert read_json(numbers)[:2] == [1e308, -8.5e-323]
    with pytest.raises(RowsRefused, match="not an object"):
        decode(numbers.replace(b"[", b"[[").replace(b"]", b"]]"), JSON, (), max_rows=9)
    assert time.perf_counter() - began < 1.5  # it was 5 s


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
