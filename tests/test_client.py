"""The client: the same `predict` at the other end of the wire, with the same answers and the same refusals."""

import http.server
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import numpy as np
import pandas as pd
import pytest

import ketch
from ketch.client import Client, problem
from ketch.errors import (
    HostNotAllowed,
    KetchError,
    NoSuchRoute,
    RowsRefused,
    ServiceError,
    Unauthorized,
    UsageError,
)
from ketch.serve.server import listen, start
from tests.doors import KEY, MOUNTED_AT, ROW, Doors, Small, fronting, rows


@pytest.fixture(scope="module")
def port(doors: Doors) -> Iterator[int]:
    with fronting(doors.service()) as found:
        yield found


@pytest.fixture
def client(port: int) -> Iterator[Client]:
    with closing(Client(f"http://localhost:{port}")) as made:
        yield made


def refused(ask: Any, rows: Any) -> dict[str, object]:
    with pytest.raises(KetchError) as caught:
        ask(rows)
    error = caught.value
    return {"kind": type(error), "message": error.message, "hint": error.hint, "errors": error.errors}


def test_dicts_and_lists_as_the_predictor(client: Client, small: Small) -> None:
    asked = rows(2500)
    assert client.predict(ROW) == small.predictor.predict(ROW)
    assert client.predict(asked) == small.predictor.predict(asked)
    assert client.predict(iter(asked[:3])) == small.predictor.predict(asked[:3])
    assert client.predict([]) == []


def test_frames_as_the_predictor(client: Client, small: Small) -> None:
    frame = pd.DataFrame(rows(1500), index=[f"i{n}" for n in range(1500)])
    pd.testing.assert_frame_equal(client.predict(frame), small.predictor.predict(frame), check_exact=True)


@pytest.mark.parametrize("nothing", [float("nan"), None, pd.NA, pd.NaT, np.nan])
@pytest.mark.parametrize("name", ["tenure", "plan"])
def test_what_is_missing_in_a_frame_is_null(client: Client, small: Small, nothing: object, name: str) -> None:
    given = rows(3)
    given[1][name] = nothing
    frame = pd.DataFrame(given, dtype=object)
    found = refused(client.predict, frame)
    assert found == refused(small.predictor.predict, frame)
    assert found["errors"] == [{"row": 1, "field": name, "code": "missing", "expected": _first(found)["expected"]}]


def _first(found: dict[str, Any]) -> dict[str, Any]:
    first: dict[str, Any] = found["errors"][0]
    return first


def test_numpy_goes_over_the_wire(client: Client, small: Small) -> None:
    row = {"charges": np.float64(51.5), "contract": np.str_("monthly"), "plan": "a", "tenure": np.int64(5)}
    assert client.predict(row) == small.predictor.predict(ROW)
    assert client.predict({**row, "charges": np.float32(51.5)}) == small.predictor.predict(ROW)
    found = refused(client.predict, {**row, "tenure": np.bool_(True)})
    assert found["kind"] is RowsRefused
    assert refused(client.predict, {**row, "charges": np.array([1.0, 2.0])})["kind"] is RowsRefused
    with pytest.raises(UsageError, match="cannot be sent"):
        client.predict({"charges": object()})


@pytest.mark.parametrize(
    "asked",
    [
        {**ROW, "tenure": "5"},
        {**ROW, "contract": "weekly"},
        {"tenur": 1},
        {},
        [ROW, {**ROW, "tenure": None}],
        [ROW] * 1005 + [{**ROW, "plan": "z"}],
    ],
)
def test_refusals_are_the_same(client: Client, small: Small, asked: Any) -> None:
    found = refused(client.predict, asked)
    assert found == refused(small.predictor.predict, asked)
    assert found["hint"]
    assert found["errors"]


def test_rows_that_are_no_rows(client: Client) -> None:
    assert "Row 1001 " in str(refused(client.predict, [ROW] * 1001 + [5])["message"])


def test_keys(doors: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
    with fronting(doors.service(guarded=True)) as port:
        url = f"http://localhost:{port}"
        monkeypatch.delenv("KETCH_API_KEY", raising=False)
        with closing(Client(url)) as made, pytest.raises(Unauthorized, match="needs a key"):
            made.predict(ROW)
        with closing(Client(url, key="wrong")) as made, pytest.raises(Unauthorized, match="not known"):
            made.predict(ROW)
        with closing(Client(url, key=KEY)) as made:
            assert made.predict(ROW)
        monkeypatch.setenv("KETCH_API_KEY", KEY + "\n")  # as files and secrets often end
        with closing(Client(url)) as made:
            assert made.predict(ROW)
    for bad in ("żółć", "a\nb"):
        with pytest.raises(UsageError, match="key"):
            Client(url, key=bad)


def test_the_connection_is_kept_and_made_again_after_a_restart(doors: Doors, small: Small) -> None:
    opened = listen("127.0.0.1", 0)
    port = opened.getsockname()[1]
    stop = start(doors.service(), opened)
    with closing(Client(f"http://127.0.0.1:{port}")) as made:
        answer = made.predict(ROW)
        first = made._connection.sock
        assert made.predict(ROW) == answer
        assert made._connection.sock is first
        stop()
        with pytest.raises(ServiceError, match="cannot be reached"):
            made.predict(ROW)
        stop = start(doors.service(), listen("127.0.0.1", port))
        assert made.predict(ROW) == answer
        stop()
        stop = start(doors.service(), listen("127.0.0.1", port))  # restarted without the client noticing
        assert made.predict(ROW) == answer
        made._connection.request("POST", "/predict", b"{}")  # interrupted here, by Ctrl+C say
        assert made.predict(ROW) == answer
        stop()


@pytest.mark.parametrize("url", ["", "ftp://x", "http://", "file:///etc/passwd", "http://x:99999", "http://[::1", "//"])
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(UsageError, match="not the address"):
        Client(url)


@pytest.mark.parametrize(
    ("url", "host", "port", "path"),
    [
        ("https://churn.example", "churn.example", 443, "/predict"),
        ("https://churn.example:8443/models/churn/", "churn.example", 8443, "/models/churn/predict"),
        ("localhost:9696", "localhost", 9696, "/predict"),
        ("http://[::1]:9696", "::1", 9696, "/predict"),
        ("http://x/żółć", "x", 80, "/%C5%BC%C3%B3%C5%82%C4%87/predict"),
    ],
)
def test_addresses(url: str, host: str, port: int, path: str) -> None:
    made = Client(url)
    found = made._connection
    assert (found.host, found.port, made._path) == (host, port, path)
    assert (type(found).__name__ == "HTTPSConnection") == url.startswith("https")


def test_nobody_there() -> None:
    with listen("127.0.0.1", 0) as opened:
        port = opened.getsockname()[1]
    with pytest.raises(ServiceError, match="cannot be reached") as caught:
        Client(f"http://127.0.0.1:{port}").predict(ROW)
    assert "ketch serve" in caught.value.hint
    with listen("127.0.0.1", 0) as opened:  # somebody who never answers
        slow = Client(f"http://127.0.0.1:{opened.getsockname()[1]}", timeout=0.1)
        with pytest.raises(ServiceError, match="cannot be reached"):
            slow.predict(ROW)


def test_somewhere_else(port: int, doors: Doors) -> None:
    with closing(Client(f"http://localhost:{port}/elsewhere")) as made, pytest.raises(NoSuchRoute):
        made.predict(ROW)
    with closing(Client(f"http://127.0.0.1:{port}")) as made:
        made._headers["Host"] = "evil.example"
        with pytest.raises(HostNotAllowed):
            made.predict(ROW)
    for status, body in ((200, b"<html>"), (200, b"\xff"), (404, b"<html>"), (302, b""), (500, b"[]")):
        with another(status, body) as other, closing(Client(f"http://localhost:{other}{MOUNTED_AT}")) as made:
            with pytest.raises(ServiceError) as caught:
                made.predict(ROW)
            assert caught.value.hint


@contextmanager
def another(status: int, body: bytes) -> Iterator[int]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    "body", [b'{"code": []}', b'{"code": "no-such"}', b'{"errors": 5, "code": "rows-refused"}', b"5"]
)
def test_odd_problems_are_errors_all_the_same(body: bytes) -> None:
    found = problem(400, body)
    assert isinstance(found, KetchError)
    assert isinstance(found.errors, list)
    assert found.message


def test_serving_in_the_background(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KETCH_HOME", str(small.home))
    for model, key in ((small.parts, ()), (small.bundle, ()), (str(small.bundle), (KEY,))):
        made = ketch.serve(model, background=True, keys=key)
        assert made is not None
        with closing(made):
            answer = made.predict(ROW)
            assert set(answer) == {"prediction", "prediction_probability"} or answer == small.predictor.predict(ROW)
    with pytest.raises(KetchError, match="reachable by others"):
        ketch.serve(small.bundle, background=True, host="0.0.0.0")
