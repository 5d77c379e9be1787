"""Seen from outside: the access log, spans, and the port of the metrics."""

import http.client
import http.server
import json
import logging
import multiprocessing
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from ketch import extras, settings
from ketch.errors import SettingError
from ketch.serve import observed
from ketch.serve.observed import LARGEST_WRITE, PIPE, AccessLog, Seen, Watcher, make_watchers
from ketch.serve.routes import Service
from tests.doors import KEY, ROW, Doors, ServiceDoor, Small, SocketDoor, WsgiDoor, fronting
from tests.running import serving

pytestmark = pytest.mark.service

FIELDS = "time request_id protocol method path route status ms bytes_in bytes_out model version caller flags trace_id"
PARENT = "00-" + "a1" * 16 + "-" + "b2" * 8 + "-01"
JSON = {"content-type": "application/json"}
BODY = json.dumps(ROW).encode()


def settings_with(**flags: object) -> settings.Settings:
    return settings.read(flags, environ={}, folder=Path(__file__).parent, without_file=True)


@contextmanager
def watching(service: Service, log: Path | str = "", **environ: str) -> Iterator[Watcher]:
    """Watch a service; when this ends all is written."""
    (made,) = make_watchers(settings_with(access_log=str(log)), environ)
    service.watchers.append(made)
    service.usual = made.usual
    try:
        yield made
    finally:
        made.close()
        service.watchers.remove(made)
        service.usual = None


def lines_of(log: Path) -> list[dict[str, Any]]:
    text = log.read_text("utf-8")
    assert text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


# ---- lines -------------------------------------------------------------------------------------------------


def test_a_line_says_what_was_asked_and_no_more(doors: Doors, small: Small, tmp_path: Path) -> None:
    service, log = doors.service(guarded=True), tmp_path / "access.log"
    with watching(service, log):
        headers = {**JSON, "x-api-key": KEY, "x-request-id": "mine-7", "traceparent": PARENT, "cookie": "biscuit"}
        body = json.dumps({**ROW, "charges": 987654.25}).encode()
        made = ServiceDoor(service).send("POST", "/predict?secret=in-the-query", headers, body)
    (line,) = lines_of(log)
    assert " ".join(line) == FIELDS
    at, ms = datetime.fromisoformat(line.pop("time")), line.pop("ms")
    assert timedelta(0) < datetime.now(UTC) - at < timedelta(minutes=1)
    assert 0 < ms < 10_000
    assert line == {
        "request_id": "mine-7",
        "protocol": "http",
        "method": "POST",
        "path": "/predict",
        "route": "/predict",
        "status": 200,
        "bytes_in": len(body),
        "bytes_out": len(made.body),
        "model": "churn",
        "version": small.predictor.bundle.sha256[:12],
        "caller": line["caller"],
        "flags": 1,
        "trace_id": "a1" * 16,
    }
    assert line["caller"]
    for secret in (KEY, "secret", "987654", "monthly", "biscuit"):
        assert secret not in log.read_text()


def test_every_door_tells_of_every_request(doors: Doors, tmp_path: Path) -> None:
    from ketch.serve.app import app_of

    service, log = doors.service(), tmp_path / "access.log"
    with watching(service, log), fronting(service) as port:
        every = (ServiceDoor(service), WsgiDoor(app_of(service)), SocketDoor("front", port))
        for door in every:
            door.send("POST", "/predict", JSON, BODY)
            door.send("POST", "/predict", JSON, b"[]")
            door.send("GET", "/nowhere/%C3%A9%0A")
            door.send("GET", "/health/live")
    found = lines_of(log)
    told = [(each["method"], each["route"], each["status"], each["model"]) for each in found]
    once = [("POST", "/predict", 200, "churn"), ("POST", "/predict", 422, "churn")]
    assert sorted(told) == sorted([*once, ("GET", "", 404, ""), ("GET", "/health/live", 200, "churn")] * len(every))
    assert len({each["request_id"] for each in found}) == len(found)


def test_a_log_that_is_moved_away_begins_anew(doors: Doors, tmp_path: Path) -> None:
    service, log, old = doors.service(), tmp_path / "access.log", tmp_path / "access.log.1"
    with watching(service, log):
        for part in range(3):
            ServiceDoor(service).send("POST", "/predict", {**JSON, "x-request-id": f"n{part}"}, BODY)
            wait_for(lambda part=part: log.exists() and f'"n{part}"' in log.read_text())
            if part == 0:
                log.rename(old)
            elif part == 1:
                log.unlink()
    assert [each["request_id"] for each in lines_of(old)] == ["n0"]
    assert [each["request_id"] for each in lines_of(log)] == ["n2"]


def wait_for(what: Any, seconds: float = 10.0) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until
        time.sleep(0.01)


def seen(**values: Any) -> Seen:
    given: dict[str, Any] = {"ended": time.time(), "seconds": 0.001, "status": 200, "bytes_in": 1, "bytes_out": 1}
    given |= {"predictor": None, "rows": 0, "stages": (), **values}
    return Seen(**{name: given.get(name, "") for name in Seen._fields})


def _write_many(path: str, who: int) -> None:
    log = AccessLog(path)
    for at in range(0, 3000, 50):
        log.write([(seen(request_id=f"{who}-{at + offset}", path="/" + "x" * 150), "") for offset in range(50)])
    log.close()


def test_processes_do_not_write_into_each_others_lines(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_write_many, args=(str(path), who)) for who in range(3)]
    for each in workers:
        each.start()
    for each in workers:
        each.join(60)
    found = [each["request_id"] for each in lines_of(path)]
    assert sorted(found) == sorted(f"{who}-{at}" for who in range(3) for at in range(3000))


def test_neither_do_they_on_standard_output() -> None:
    program = """
import os
from tests.test_observed import _write_many
for who in range(3):
    if not os.fork():
        _write_many("-", who)
        os._exit(0)
for _ in range(3):
    os.wait()
"""
    found = [json.loads(line)["request_id"] for line in run(program).stdout.splitlines()]
    assert sorted(found) == sorted(f"{who}-{at}" for who in range(3) for at in range(3000))


@hypothesis_settings(max_examples=100, deadline=None)
@given(
    words=st.fixed_dictionaries({name: st.text() for name in ("method", "path", "caller", "flags", "parent")}),
    size=st.integers(0, 5000),
)
def test_any_line_is_json_and_fits_into_a_pipe(tmp_path_factory: Any, words: dict[str, str], size: int) -> None:
    path = tmp_path_factory.mktemp("any") / "log"
    log = AccessLog(str(path))
    words["path"] += "\0" * size
    words["caller"] = "\ud800" + words["caller"] * 100
    log.write([(seen(**words, request_id="r" * 128), "t" * 32)])
    log.close()
    written = path.read_bytes()
    assert written.count(b"\n") == 1
    assert len(written) <= PIPE
    assert json.loads(written)["status"] == 200


def test_many_lines_go_in_pieces_that_end_with_a_line() -> None:
    lines = [b"x" * 1000 + b"\n"] * 500
    pieces = observed._pieces(lines, LARGEST_WRITE)
    assert b"".join(pieces) == b"".join(lines)
    assert all(len(each) <= LARGEST_WRITE and each.endswith(b"\n") for each in pieces)


def test_what_finds_no_room_is_counted_and_told_in_the_log(
    doors: Doors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observed, "MOST_QUEUED", 100)
    service, pipe = doors.service(), tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with watching(service, pipe) as watcher, os.fdopen(reader, "rb") as read:
        for _ in range(2000):  # nobody reads: the pipe takes some, the queue its hundred
            ServiceDoor(service).send("GET", "/health/live")
        assert watcher.dropped > 1000
        os.set_blocking(read.fileno(), True)
        told = written = 0
        while written + told < 2000:
            line = json.loads(read.readline())
            told += line.get("dropped", 0)
            written += "request_id" in line
        assert told == watcher.dropped


def test_a_full_disk_costs_lines_and_no_answers(doors: Doors, caplog: pytest.LogCaptureFixture) -> None:
    service = doors.service()
    with caplog.at_level(logging.ERROR), watching(service, "/dev/full") as watcher:
        for _ in range(300):
            assert ServiceDoor(service).send("POST", "/predict", JSON, BODY).status == 200
        wait_for(lambda: watcher.dropped == 300)
    assert len([each for each in caplog.records if "access log" in each.message]) == 1


def test_a_log_that_cannot_be_opened_is_refused_at_once(tmp_path: Path) -> None:
    for make in (observed.check_watchers, make_watchers):
        with pytest.raises(SettingError, match="no/such/folder") as caught:
            make(settings_with(access_log=str(tmp_path / "no/such/folder/log")), {})
        assert "--access-log" in caught.value.hint


def test_nothing_is_watched_unless_asked_for() -> None:
    assert make_watchers(settings_with(), {}) == []
    assert (
        make_watchers(settings_with(), {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_SDK_DISABLED": "true"}) == []
    )


# ---- spans -------------------------------------------------------------------------------------------------


class Collector(http.server.BaseHTTPRequestHandler):
    """What a collector does with OTLP over HTTP: it decodes protobuf and keeps it."""

    protocol_version = "HTTP/1.1"
    spans: list[Any]
    names: set[str]

    def do_POST(self) -> None:
        kind = extras.load("opentelemetry.proto.collector.trace.v1.trace_service_pb2").ExportTraceServiceRequest
        assert self.path == "/v1/traces"
        found = kind.FromString(self.rfile.read(int(self.headers["content-length"])))
        for each in found.resource_spans:
            self.names.update(one.value.string_value for one in each.resource.attributes if one.key == "service.name")
            for scope in each.scope_spans:
                self.spans.extend(scope.spans)
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Collector]]:
    kept = type("Kept", (Collector,), {"spans": [], "names": set()})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), kept) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        yield kept
        server.shutdown()
        thread.join()


def attributes(span: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes}


def test_a_span_for_each_request(collector: type[Collector], doors: Doors, small: Small, tmp_path: Path) -> None:
    service, log = doors.service(), tmp_path / "access.log"
    began = time.time_ns()
    with watching(service, log, **os.environ):
        door = ServiceDoor(service)
        door.send("POST", "/predict", {**JSON, "traceparent": PARENT, "x-request-id": "first"}, BODY)
        door.send("GET", "/nowhere")
        service.draining = True
        door.send("GET", "/health/ready")
        door.send("GET", "/health/live", {"traceparent": PARENT[:-1] + "0"})  # of which the caller wants no trace
    first, nowhere, refused = (each for each in collector.spans if each.kind == each.SPAN_KIND_SERVER)
    assert collector.names == {"ketch"}
    assert [each.name for each in (first, nowhere, refused)] == ["POST /predict", "GET", "GET /health/ready"]
    assert (first.trace_id.hex(), first.parent_span_id.hex()) == ("a1" * 16, "b2" * 8)
    assert first.kind == first.SPAN_KIND_SERVER
    assert began < first.start_time_unix_nano < first.end_time_unix_nano < time.time_ns()
    told = attributes(first)
    assert told == {
        "http.request.method": "POST",
        "http.route": "/predict",
        "http.response.status_code": 200,
        "http.request.body.size": len(BODY),
        "http.response.body.size": told["http.response.body.size"],
        "url.path": "/predict",
        "url.scheme": "http",
        "ketch.request_id": "first",
        "ketch.model": "churn",
        "ketch.version": small.predictor.bundle.sha256[:12],
        "ketch.rows": 1,
    }
    assert not nowhere.parent_span_id
    assert nowhere.status.code == nowhere.status.STATUS_CODE_UNSET
    assert refused.status.code == refused.status.STATUS_CODE_ERROR
    assert attributes(refused)["error.type"] == "503"
    traces = [each["trace_id"] for each in lines_of(log)]
    assert traces == ["a1" * 16, nowhere.trace_id.hex(), refused.trace_id.hex(), "a1" * 16]


@pytest.mark.parametrize("parent", ["", "00-", "00-" + "0" * 32 + "-" + "b2" * 8 + "-01", "ff" * 300, "é" * 55])
def test_a_parent_that_is_none_begins_a_trace(collector: type[Collector], doors: Doors, parent: str) -> None:
    service = doors.service()
    with watching(service, **os.environ):
        ServiceDoor(service).send("GET", "/health/live", {"traceparent": parent})
    (span,) = collector.spans
    assert span.trace_id.strip(b"\0")
    assert not span.parent_span_id


def test_parts_of_a_request_that_are_known_are_spans_within(collector: type[Collector]) -> None:
    traces = observed.Traces(os.environ)
    traces.span(seen(method="POST", route="/predict", seconds=0.5, stages=(("model", 0.1, 0.3),), rows=7))
    traces.close()
    model, whole = collector.spans
    assert attributes(whole)["ketch.rows"] == 7
    assert (model.name, model.parent_span_id, model.trace_id) == ("model", whole.span_id, whole.trace_id)
    assert model.start_time_unix_nano - whole.start_time_unix_nano == 100_000_000
    assert model.end_time_unix_nano - model.start_time_unix_nano == 200_000_000


@pytest.mark.parametrize("how", ["front", "service"])
def test_a_span_has_what_was_done_when(collector: type[Collector], doors: Doors, how: str) -> None:
    service = doors.service()
    with watching(service, **os.environ):
        if how == "service":
            ServiceDoor(service).send("POST", "/predict", {**JSON, "traceparent": PARENT}, BODY)
        else:
            with fronting(service) as port:
                SocketDoor("front", port).send("POST", "/predict", {**JSON, "traceparent": PARENT}, BODY)
    *parts, whole = collector.spans
    assert [each.name for each in parts] == (["read", "model"] if how == "service" else ["wait", "read", "model"])
    assert attributes(whole)["ketch.rows"] == 1
    assert whole.trace_id.hex() == "a1" * 16
    at = whole.start_time_unix_nano
    for each in parts:
        assert at - 1000 <= each.start_time_unix_nano <= each.end_time_unix_nano <= whole.end_time_unix_nano + 1000
        at = each.end_time_unix_nano


def test_a_collector_that_is_not_there_holds_up_nobody(doors: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    service = doors.service()
    began = time.monotonic()
    with watching(service, **os.environ):
        assert ServiceDoor(service).send("POST", "/predict", JSON, BODY).status == 200
    assert time.monotonic() - began < 8


MISSING = """
import sys, warnings
sys.modules["opentelemetry"] = None
from pathlib import Path
from ketch import settings
from ketch.serve.observed import check_watchers, make_watchers
given, environ = settings.read({}, environ={}, folder=Path("/")), {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
check_watchers(given, environ)
print(make_watchers(given, environ))
"""
UNASKED = """
import sys
from pathlib import Path
from ketch import settings
from ketch.serve.observed import check_watchers, make_watchers
given = settings.read({}, environ={}, folder=Path("/"))
check_watchers(given, {})
print(make_watchers(given, {}), [name for name in sys.modules if name.startswith("opentelemetry")])
"""


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)


def test_without_the_extra_one_note_names_it_and_the_service_runs() -> None:
    done = run(MISSING)
    assert done.stdout.strip() == "[]"
    assert done.stderr.count("pip install 'ketch[otel]'") == 1


def test_unasked_nothing_of_traces_is_there() -> None:
    assert run(UNASKED).stdout.strip() == "[] []"


# ---- a whole server ----------------------------------------------------------------------------------------


def ask(port: int, method: str, path: str, **headers: str) -> tuple[int, dict[str, str], str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request(method, path, headers=headers)
        found = connection.getresponse()
        return found.status, {name.lower(): value for name, value in found.getheaders()}, found.read().decode()
    finally:
        connection.close()


def test_all_workers_write_count_and_trace(
    collector: type[Collector], small: Small, tmp_path: Path, free_ports: Sequence[int]
) -> None:
    grpc_port, metrics_port = free_ports
    log = tmp_path / "access.log"
    flags: list[str | Path] = [
        "--workers",
        "2",
        "--access-log",
        log,
        "--metrics-port",
        str(metrics_port),
        "--grpc-port",
        str(grpc_port),
        "--log",
        f"sqlite:///{tmp_path / 'predictions.db'}",
    ]
    with serving(small.bundle, *flags, home=small.home, KETCH_API_KEYS=KEY, OTEL_BSP_SCHEDULE_DELAY="100") as url:
        port = int(url.rpartition(":")[2])
        for number in range(40):
            body, headers = json.dumps({**ROW, "tenure": number}), {**JSON, "x-api-key": KEY}
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            connection.request("POST", "/predict", body, headers)
            assert connection.getresponse().status == 200
            connection.close()
        call_by_grpc(grpc_port, small, 10)
        status, headers, text = ask(metrics_port, "GET", "/metrics", Host="localhost")
        assert (status, headers["content-type"].partition(";")[0]) == (200, "text/plain")
        assert counted(text) == {"/predict": 40, "/v2/models/{name}/infer": 10}
        wait_for(lambda: recorded(ask(metrics_port, "GET", "/metrics", Host="localhost")[2]) == 50)
        refused_by_metrics_port(metrics_port)
    found = lines_of(log)
    assert len({each["request_id"] for each in found}) == 50
    assert {(each["protocol"], each["route"]) for each in found} == {
        ("http", "/predict"),
        ("grpc", "/v2/models/{name}/infer"),
    }
    assert {each.trace_id.hex() for each in collector.spans} == {each["trace_id"] for each in found}
    assert sum("rpc.system" in attributes(each) for each in collector.spans) == 10


def recorded(text: str) -> int:
    """Give how many predictions were recorded, as the metrics count them while the service runs."""
    found = re.search(r'^ketch_log_records_total\{outcome="written"\} (\S+)$', text, re.MULTILINE)
    return int(float(found[1])) if found else 0


def counted(text: str) -> dict[str, int]:
    found = re.findall(
        r'^ketch_requests_total\{model="churn",route="([^"]+)",status="200"\} (\S+)$', text, re.MULTILINE
    )
    return {route: int(float(count)) for route, count in found}


def call_by_grpc(port: int, small: Small, times: int) -> None:
    import grpc

    from ketch.serve.openinference_grpc import SERVICE
    from tests.test_grpc import question

    for _ in range(times):
        with grpc.insecure_channel(f"localhost:{port}") as channel:
            asked = question([ROW], small).SerializeToString()
            channel.unary_unary(f"/{SERVICE}/ModelInfer")(asked, timeout=20, metadata=[("x-api-key", KEY)])


def refused_by_metrics_port(port: int) -> None:
    for method, path, host, status in (
        ("GET", "/predict", "localhost", 404),
        ("GET", "/", "127.0.0.1", 404),
        ("POST", "/metrics", "localhost", 405),
        ("GET", "/metrics", "evil.example", 403),
    ):
        got, headers, text = ask(port, method, path, Host=host)
        assert (got, headers["content-type"]) == (status, "application/problem+json")
        assert msgspec.json.decode(text)["status"] == status
    assert ask(port, "HEAD", "/metrics", Host="localhost")[2] == ""


@pytest.fixture
def free_ports() -> Sequence[int]:
    from tests.test_grpc import free_port

    return [free_port(), free_port()]


def test_a_metrics_port_that_is_taken_is_refused(small: Small, here_taken: int) -> None:
    from tests.running import ketch

    for flag in ("--metrics-port", "--grpc-port"):
        done = ketch("serve", small.bundle, "--port", "0", flag, str(here_taken), home=small.home)
        assert done.returncode == 1
        assert flag in done.stderr
        assert "Traceback" not in done.stderr


@pytest.fixture
def here_taken() -> Iterator[int]:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as opened:
        yield opened.getsockname()[1]
