"""The client: the same `predict` at the other end of the wire, with the same answers and the same refusals."""

import email.utils
import http.server
import multiprocessing
import os
import re
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import ketch
from ketch import client as client_module
from ketch.client import Client, problem
from ketch.errors import (
    Busy,
    HostNotAllowed,
    InputError,
    KetchError,
    NoSuchModel,
    NoSuchRoute,
    RequestError,
    RowsRefused,
    ServiceError,
    Unauthorized,
    UsageError,
)
from ketch.explain import answer_explained, explainer
from ketch.serve.guard import Guard
from ketch.serve.lineup import Line, Lineup
from ketch.serve.routes import Service
from ketch.serve.server import listen, start
from tests.doors import KEY, MOUNTED_AT, ROW, Doors, Small, fronting, rows
from tests.running import KETCH


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
        for made in (Client(url, key=KEY), Client(url, api_key=KEY)):
            with closing(made):
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
        first = made._pool.idle[0].sock
        assert made.predict(ROW) == answer
        assert [each.sock for each in made._pool.idle] == [first]
        stop()
        with pytest.raises(ServiceError, match="cannot be reached"):
            made.predict(ROW)
        stop = start(doors.service(), listen("127.0.0.1", port))
        assert made.predict(ROW) == answer
        stop()
        stop = start(doors.service(), listen("127.0.0.1", port))  # restarted without the client noticing
        assert made.predict(ROW) == answer
        made._pool.idle[0].request("POST", "/predict", b"{}")  # interrupted here, by Ctrl+C say
        assert made.predict(ROW) == answer
        stop()


def test_a_name_is_asked_for_where_it_does_not_point_yet(doors: Doors, small: Small) -> None:
    with (
        fronting(doors.service(guarded=True)) as port,
        closing(Client(f"http://churn.example.test:{port}", key=KEY, at="127.0.0.1")) as made,
    ):
        assert made.predict(ROW) == small.predictor.predict(dict(ROW))


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
    found, _ = made._pool.take()
    assert (found.host, found.port, made._path + "/predict") == (host, port, path)
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


# ---- several models, and reasons ---------------------------------------------------------------------


def test_one_of_several_models(small: Small) -> None:
    lines = {name: Line(name, {"champion": small.predictor}) for name in ("churn", "other one")}
    with fronting(Service(Lineup(lines), Guard())) as port:
        for name in ("", *lines):
            with closing(Client(f"http://localhost:{port}", model=name)) as made:
                assert made.predict(ROW) == small.predictor.predict(ROW)
        with closing(Client(f"http://localhost:{port}", model="third")) as made, pytest.raises(NoSuchModel):
            made.predict(ROW)
        with closing(Client(f"http://localhost:{port}", model="../churn")) as made, pytest.raises(RequestError):
            made.predict(ROW)


def test_reasons_as_here(client: Client, small: Small) -> None:
    asked = rows(230)
    table = small.predictor.check(ketch_table(asked))
    wanted = [
        answer_explained(explainer(small.predictor), part, small.predictor.run(part))
        for part in (small.predictor.check(ketch_table(asked[at : at + 100])) for at in range(0, 230, 100))
    ]
    assert client.explain(asked) == [each for part in wanted for each in part]
    assert client.explain(pd.DataFrame(asked)) == client.explain(asked)
    assert client.explain(asked[0]) == wanted[0][0]
    assert table.n == 230
    assert "aumenta" in " ".join(client.explain(asked[0], lang="pt")["explanation"]["reasons"])
    with pytest.raises(InputError, match="no target"):
        client.explain(asked[0], target="price & co")
    found = refused(client.explain, [*asked[:150], {}])
    assert "150" in str(found["message"])


def ketch_table(asked: Sequence[dict[str, Any]]) -> Any:
    from ketch.codec import Table, columns_of

    return Table(columns_of(asked), len(asked))


# ---- threads and processes ---------------------------------------------------------------------------


def test_threads_share_a_client(client: Client, small: Small) -> None:
    asked = rows(400)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(client.predict, asked))
    assert answers == small.predictor.predict(asked)
    assert 1 <= len(client._pool.idle) <= 8


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_process_takes_connections_of_its_own(client: Client) -> None:
    answer = client.predict(ROW)
    (ours,) = client._pool.idle

    def ask() -> None:
        assert client.predict(ROW) == answer
        assert client._pool.idle[0] is not ours
        os._exit(7)

    child = multiprocessing.get_context("fork").Process(target=ask)
    child.start()
    child.join(20)
    assert child.exitcode == 7
    assert client.predict(ROW) == answer
    assert client._pool.idle == [ours]


# ---- a service that does not always answer -----------------------------------------------------------

OK = b'HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n{"churn":true}'


def refusal(status: int, code: str, *headers: str) -> bytes:
    body = b'{"code":"%b","detail":"%b"}' % (code.encode(), code.encode())
    return "\r\n".join([f"HTTP/1.1 {status} x", f"Content-Length: {len(body)}", *headers, "", ""]).encode() + body


ACTS = {
    "ok": OK,
    "reset": b"",
    "half": OK[:-5],
    "cut": b"HTTP/1.1 200 OK\r\nConte",
    "busy": refusal(503, "busy", "Retry-After: 0"),
    "leaving": refusal(503, "busy", "Retry-After: 0", "Connection: close"),
    "later": refusal(503, "busy", "Retry-After: 3600"),
    "never": refusal(503, "busy"),
    "odd": refusal(503, "busy", "Retry-After: soon"),
    "late": refusal(504, "deadline-passed", "Retry-After: 0"),
    "often": refusal(429, "rate-limited", "Retry-After: 0"),
    "wrong": refusal(422, "rows-refused"),
    "bug": refusal(500, "error"),
}
BREAKS = {"reset", "half", "cut"}


class Actor:
    """A server that does as it is told, one act for each question, and then answers."""

    def __init__(self, acts: Sequence[str] = ()) -> None:
        self.acts, self.asked = list(acts), 0
        self.opened = listen("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self.opened.getsockname()[1]}"
        self.threads: list[threading.Thread] = []
        self._start(self._accept)

    def __enter__(self) -> "Actor":
        return self

    def __exit__(self, *_: object) -> None:
        self.opened.shutdown(socket.SHUT_RDWR)
        self.opened.close()
        for each in self.threads:
            each.join(10)

    def _start(self, work: Any, *given: Any) -> None:
        self.threads.append(threading.Thread(target=work, args=given))
        self.threads[-1].start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                self._start(self._talk, self.opened.accept()[0])

    def _talk(self, line: socket.socket) -> None:
        with line, suppress(OSError), line.makefile("rb") as incoming:
            while self._read(incoming):
                self.asked += 1
                act = self.acts.pop(0) if self.acts else "ok"
                line.sendall(ACTS[act])
                if act in BREAKS:
                    if act == "reset":
                        line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    return
                if act == "leaving":
                    return

    @staticmethod
    def _read(incoming: Any) -> bool:
        length = 0
        while (line := incoming.readline()) not in {b"\r\n", b""}:
            if line.lower().startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        return bool(line) and len(incoming.read(length)) == length


def foreseen(acts: Sequence[str]) -> tuple[str, int]:
    """Say how a question must end, and after how many were sent: the rules, written down once more."""
    breaks = tries = 0
    kept = False
    for sent, act in enumerate([*acts, "ok"], 1):
        if act in BREAKS and kept:
            kept = False  # a connection that was closed meanwhile: asked on a new one at once
            continue
        tries += 1
        if act in BREAKS:
            breaks += 1
            if breaks == 2 or tries == 3:
                return "broken", sent
        elif act in {"busy", "leaving"} and tries < 3:
            kept = True
        else:
            return act, sent
    raise AssertionError(acts)


@pytest.fixture(scope="module")
def _hurried() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(client_module, "PAUSE", 0.001)
        yield


@settings(max_examples=120, deadline=None)
@given(acts=st.lists(st.one_of(st.sampled_from(sorted(BREAKS)), st.sampled_from(sorted(ACTS))), max_size=5))
@example(acts=["busy", "reset", "busy", "ok"])
@example(acts=["reset", "busy", "busy"])
@pytest.mark.usefixtures("_hurried")
def test_what_is_asked_again_and_how_often(acts: list[str]) -> None:
    end, sent = foreseen(acts)
    with Actor(acts) as actor, closing(Client(actor.url)) as made:
        if end == "ok":
            assert made.predict(ROW) == {"churn": True}
        else:
            with pytest.raises(KetchError) as caught:
                made.predict(ROW)
            assert isinstance(caught.value, ServiceError) == (end in BREAKS | {"broken"})
        assert actor.asked == sent


def test_a_busy_service_is_given_the_time_that_it_asks_for() -> None:
    later = email.utils.format_datetime(email.utils.localtime())
    for header, least, most in (("1", 1.0, 3.0), (later, 0.0, 0.9)):
        with Actor(["asks"]) as actor, closing(Client(actor.url)) as made, pytest.MonkeyPatch.context() as patch:
            patch.setitem(ACTS, "asks", refusal(503, "busy", f"Retry-After: {header}"))
            began = time.monotonic()
            assert made.predict(ROW) == {"churn": True}
            assert least <= time.monotonic() - began < most
            assert actor.asked == 2


def test_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "PATIENCE", 1.2)
    monkeypatch.setitem(ACTS, "asks", refusal(503, "busy", "Retry-After: 1"))
    monkeypatch.setattr(client_module, "JITTER", 0.0)
    with Actor(["asks"] * 9) as actor, closing(Client(actor.url)) as made:
        with pytest.raises(Busy):
            made.predict(ROW)
        assert actor.asked == 2


def test_a_slow_answer_is_not_asked_for_again() -> None:
    with listen("127.0.0.1", 0) as opened:
        made = Client(f"http://127.0.0.1:{opened.getsockname()[1]}", timeout=0.2)
        with pytest.raises(ServiceError):
            made.predict(ROW)
        accepted = 0
        opened.settimeout(0.05)
        with suppress(TimeoutError):
            while True:
                opened.accept()[0].close()
                accepted += 1
        assert accepted == 1


def test_what_a_kept_connection_was_left_with_is_not_read_by_the_next_question(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupted question leaves its answer on the wire."""
    with Actor() as actor, closing(Client(actor.url)) as made:
        made.predict(ROW)
        connection = made._pool.idle[0]

        def interrupted() -> Any:
            raise KeyboardInterrupt

        monkeypatch.setattr(connection, "getresponse", interrupted)
        with pytest.raises(KeyboardInterrupt):
            made.predict(ROW)
        assert made._pool.idle == []


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_a_server_that_is_killed_and_comes_back(small: Small) -> None:
    with listen("127.0.0.1", 0) as opened:
        port = opened.getsockname()[1]
    command = [*KETCH, "serve", str(small.bundle), "--port", str(port), "--workers", "1"]
    environ = {**os.environ, "KETCH_HOME": str(small.home)}
    servers: list[subprocess.Popen[bytes]] = []
    with closing(Client(f"http://localhost:{port}")) as made:
        for _ in range(2):
            servers.append(
                subprocess.Popen(
                    command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, process_group=0
                )
            )
            with servers[-1] as server:
                assert server.stdout
                assert server.stdout.readline()
                assert made.predict(ROW) == small.predictor.predict(ROW)
                os.killpg(server.pid, signal.SIGKILL)
        with pytest.raises(ServiceError, match="cannot be reached"):
            made.predict(ROW)
    assert [each.returncode for each in servers] == [-signal.SIGKILL] * 2


@pytest.mark.service
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds the workers in /proc, as Linux has it")
def test_no_question_is_lost_when_workers_are_killed(small: Small, tmp_path: Path) -> None:
    asked = rows(50)
    wanted = small.predictor.predict(asked)
    command = [*KETCH, "serve", str(small.bundle), "--port", "0", "--workers", "2"]
    environ = {**os.environ, "KETCH_HOME": str(small.home), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
        assert server.stdout
        url = re.findall(rb"http://[\w.]+:\d+", server.stdout.readline())[0].decode()
        workers = Path(f"/proc/{server.pid}/task/{server.pid}/children")
        ended = threading.Event()

        def ask() -> int:
            answered = 0
            while not ended.is_set():
                at = answered % len(asked)
                assert made.predict(asked[at]) == wanted[at]
                answered += 1
            return answered

        try:
            with closing(Client(url)) as made, ThreadPoolExecutor(4) as pool:
                asking = [pool.submit(ask) for _ in range(4)]
                for _ in range(12):
                    time.sleep(0.5)
                    os.kill(int(workers.read_text().split()[0]), signal.SIGKILL)
                time.sleep(0.5)
                ended.set()
                assert min(each.result() for each in asking) > 100
        finally:
            ended.set()
            server.terminate()
