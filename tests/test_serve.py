"""The wire, the same through every door: what is answered, what is refused, and never a 500."""

import json
import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flask
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ketch
from ketch.errors import AnswersDiffer, KetchError
from ketch.log import Log, Record
from ketch.predict import Limits, Predictor, Results
from ketch.serve import Request, all_routes
from ketch.serve.app import app_of
from ketch.serve.guard import Guard
from ketch.serve.routes import READY_FOR, Service
from tests.doors import KEY, PROBLEM, ROW, Answered, Door, Doors, ServiceDoor, Small, WsgiDoor, problem, rows, sound

JSON = {"content-type": "application/json"}
CSV = {"content-type": "text/csv"}
HEADER = "charges,contract,plan,tenure\n"
EXAMPLES = {"service": 300, "flask": 150, "front": 150, "gunicorn": 40, "mounted": 60}


class Case(NamedTuple):
    body: bytes
    status: int
    code: str
    field: str = ""
    fault: str = ""
    says: str = ""
    headers: Mapping[str, str] = JSON


def changed(**values: object) -> bytes:
    return json.dumps({**ROW, **values}).encode()


def without(name: str, **values: object) -> bytes:
    return json.dumps({key: value for key, value in {**ROW, **values}.items() if key != name}).encode()


GOOD = changed()
REFUSED = {
    "broken": Case(b'{"charges": 1', 400, "undecodable-body", says="JSON"),
    "not json": Case(b"churn?", 400, "undecodable-body", says="JSON"),
    "trailing": Case(GOOD + b"x", 400, "undecodable-body", says="JSON"),
    "nan": Case(b'{"charges": NaN}', 400, "undecodable-body", says="NaN"),
    "infinity": Case(b'{"charges": Infinity}', 400, "undecodable-body", says="Infinity"),
    "minus infinity": Case(b'{"charges": -Infinity}', 400, "undecodable-body", says="Infinity"),
    "beyond float": Case(b'{"charges": 1e999}', 400, "undecodable-body"),
    "beyond int": Case(b'{"charges": ' + b"9" * 5000 + b"}", 400, "undecodable-body"),
    "latin-1": Case('{"plan": "é"}'.encode("latin-1"), 400, "undecodable-body"),
    "utf-16": Case(GOOD.decode().encode("utf-16"), 400, "undecodable-body"),
    "lone surrogate": Case(b'{"\\ud800": 1}', 400, "undecodable-body"),
    "empty": Case(b"", 400, "undecodable-body", says="empty"),
    "blank": Case(b" \r\n", 400, "undecodable-body", says="empty"),
    "deep": Case(b'{"charges": ' + b"[" * 100 + b"]" * 100 + b"}", 400, "undecodable-body", says="nested"),
    "very deep": Case(b"[" * 100_000, 400, "undecodable-body", says="nested"),
    "deep objects": Case(b'{"a":' * 5000 + b"1" + b"}" * 5000, 400, "undecodable-body", says="nested"),
    "empty list": Case(b"[]", 422, "rows-refused", says="empty list"),
    "number": Case(b"5", 422, "rows-refused", says="object"),
    "text": Case(b'"x"', 422, "rows-refused", says="object"),
    "null": Case(b"null", 422, "rows-refused", says="object"),
    "list of numbers": Case(b"[1, 2]", 422, "rows-refused", says="Row 0"),
    "list in list": Case(b"[" + GOOD + b", []]", 422, "rows-refused", says="Row 1"),
    "empty object": Case(b"{}", 422, "rows-refused", "charges", "missing", "missing"),
    "number as text": Case(changed(tenure="5"), 422, "rows-refused", "tenure", "wrong-type", "whole number"),
    "text as number": Case(changed(plan=5), 422, "rows-refused", "plan", "wrong-type", "a text"),
    "true as number": Case(changed(charges=True), 422, "rows-refused", "charges", "wrong-type", "finite number"),
    "list as number": Case(changed(charges=[1]), 422, "rows-refused", "charges", "wrong-type", "finite number"),
    "object as text": Case(changed(plan={"a": 1}), 422, "rows-refused", "plan", "wrong-type", "a text"),
    "not whole": Case(changed(tenure=5.5), 422, "rows-refused", "tenure", "wrong-type", "whole number"),
    "missing": Case(without("tenure"), 422, "rows-refused", "tenure", "missing", "tenure"),
    "null field": Case(changed(tenure=None), 422, "rows-refused", "tenure", "missing", "tenure"),
    "misspelt": Case(
        without("tenure", tenur=5), 422, "rows-refused", "tenur", "unknown-field", "Did you mean 'tenure'"
    ),
    "category": Case(changed(contract="weekly"), 422, "rows-refused", "contract", "unknown-category", "monthly"),
    "other case": Case(changed(contract="Monthly"), 422, "rows-refused", "contract", "unknown-category", "'monthly'"),
    "one bad row": Case(b"[" + GOOD + b"," + changed(plan="z") + b"]", 422, "rows-refused", "plan", says="row 1"),
    "many rows": Case(b"[" + b",".join([b"{}"] * 10_001) + b"]", 413, "too-many-rows", says="10000 rows"),
    "20 MB": Case(b"[" + b" " * 20_000_000 + b"]", 413, "body-too-large", says="bytes"),
    "plain text": Case(GOOD, 415, "unsupported-media-type", says="text/plain", headers={"content-type": "text/plain"}),
    "form": Case(
        b"charges=1", 415, "unsupported-media-type", headers={"content-type": "application/x-www-form-urlencoded"}
    ),
    "multipart": Case(GOOD, 415, "unsupported-media-type", headers={"content-type": "multipart/form-data; boundary=x"}),
    "gzip": Case(GOOD, 415, "unsupported-media-type", headers={**JSON, "content-encoding": "gzip"}),
    "image wanted": Case(GOOD, 406, "not-acceptable", says="image/png", headers={**JSON, "accept": "image/png"}),
    "csv: empty": Case(b"", 400, "undecodable-body", headers=CSV),
    "csv: no rows": Case(HEADER.encode(), 422, "rows-refused", says="no rows", headers=CSV),
    "csv: ragged": Case((HEADER + "1,2\n").encode(), 400, "undecodable-body", says="2 cells", headers=CSV),
    "csv: twice": Case(b"a,a\n1,2\n", 400, "undecodable-body", says="'a'", headers=CSV),
    "csv: latin-1": Case("plan\né\n".encode("latin-1"), 400, "undecodable-body", says="UTF-8", headers=CSV),
    "csv: quote": Case(HEADER.encode() + b'"1', 400, "undecodable-body", headers=CSV),
    "csv: not a number": Case(
        (HEADER + "1,monthly,a,many\n").encode(), 422, "rows-refused", "tenure", "wrong-type", headers=CSV
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_input_is_refused_with_field_and_remedy(door: Door, name: str) -> None:
    case = REFUSED[name]
    answered = door.send("POST", "/predict", case.headers, case.body)
    found = problem(answered)
    assert (found["status"], found["code"]) == (case.status, case.code)
    assert case.says in found["detail"] + found["hint"]
    assert answered.headers["ketch-model"].startswith("churn;sha256=")
    if case.field:
        assert case.field in found["detail"]
        first = found["errors"][0]
        assert first["field"] == case.field
        assert first["code"] == (case.fault or first["code"])
    assert len(answered.body) < 20_000


WIRE = {
    **{f"refused: {name}": ("POST", "/predict", case.headers, case.body) for name, case in REFUSED.items()},
    "one": ("POST", "/predict", JSON, GOOD),
    "list": ("POST", "/predict", JSON, json.dumps(rows(20)).encode()),
    "flags": ("POST", "/predict", JSON, changed(tenure=999, zebra=1)),
    "csv": ("POST", "/predict", CSV, (HEADER + "51.5,monthly,a,5\n").encode()),
    "csv wanted": ("POST", "/predict", {**JSON, "accept": "text/csv"}, GOOD),
    "query": ("POST", "/predict?a=b", JSON, GOOD),
    "escaped": ("POST", "/%70redict", JSON, GOOD),
    "own id": ("POST", "/predict", {**JSON, "x-request-id": "mine-1"}, GOOD),
    **{f"{method} {path}": (method, path, {}, b"") for path in ("/schema", "/docs", "/docs/start.js", "/health/live")
       for method in ("GET", "HEAD", "OPTIONS", "DELETE")},
    "get": ("GET", "/predict", {}, b""),
    "unknown": ("GET", "/nothing", {}, b""),
    "slash": ("POST", "/predict/", JSON, GOOD),
    "slashes": ("GET", "/docs//start.js", {}, b""),
    "dots": ("GET", "/docs/../schema", {}, b""),
}  # fmt: skip


@pytest.mark.parametrize("name", WIRE)
def test_every_door_answers_with_the_same_bytes(door: Door, doors: Doors, name: str) -> None:
    method, path, headers, body = WIRE[name]
    headers = {"x-request-id": "same", **headers}
    if door.name == "mounted" and path in {"/nothing", "/predict/", "/docs//start.js", "/docs/../schema"}:
        pytest.skip("below another app's path, that app answers for what nobody knows")
    wanted = doors("service").send(method, path.replace("%70", "p"), headers, body)
    found = door.send(method, path if door.name != "service" else path.replace("%70", "p"), headers, body)
    assert (found.status, found.body) == (wanted.status, wanted.body)
    told = {name: value for name, value in found.headers.items() if name in wanted.headers}
    assert told == wanted.headers
    extra = found.headers.keys() - wanted.headers.keys()
    assert extra <= {"date", "content-length", "connection", "server"}


# ---- what is answered --------------------------------------------------------------------------------


def test_an_object_gets_an_object_and_a_list_a_list(door: Door, small: Small) -> None:
    one = door.send("POST", "/predict", JSON, GOOD)
    assert one.status == 200
    assert one.kind == "application/json"
    assert one.json == small.predictor.predict(ROW)
    assert set(one.json) == {"churn", "churn_probability"}
    assert "ketch-flags" not in one.headers
    many = rows(50)
    assert door.send("POST", "/predict", JSON, json.dumps(many).encode()).json == small.predictor.predict(many)
    assert door.send("POST", "/predict", JSON, json.dumps([ROW]).encode()).json == [one.json]


def test_csv_in_gives_csv_out_and_accept_chooses(door: Door, small: Small) -> None:
    answer = small.predictor.predict(ROW)
    wanted = f"churn,churn_probability\n{str(answer['churn']).lower()},{answer['churn_probability']!r}\n"
    table = (HEADER + "51.5,monthly,a,5\n").encode()
    found = door.send("POST", "/predict", CSV, table)
    assert (found.status, found.kind, found.body.decode()) == (200, "text/csv", wanted)
    assert door.send("POST", "/predict", {**JSON, "accept": "text/csv"}, GOOD).body.decode() == wanted
    assert door.send("POST", "/predict", {**CSV, "accept": "application/json"}, table).json == [answer]
    for accept in ("*/*", "", "text/html, */*;q=0.1", "application/*"):
        assert door.send("POST", "/predict", {**JSON, "accept": accept}, GOOD).json == answer


@pytest.mark.parametrize(
    "kind", [None, "", "application/json; charset=utf-8", "APPLICATION/JSON", "application/x+json"]
)
def test_what_is_read_as_json(door: Door, kind: str | None) -> None:
    assert door.send("POST", "/predict", {"content-type": kind}, GOOD).status == 200


def test_what_is_unusual_is_flagged(door: Door) -> None:
    found = door.send("POST", "/predict", JSON, changed(tenure=999, zebra=1))
    assert found.status == 200
    assert found.headers["ketch-flags"] == "out-of-range;field=tenure, unknown-field;field=zebra"


def test_hostile_names_cannot_write_headers(door: Door) -> None:
    names = {"x\r\nSet-Cookie: a=b": 1, 'a", b;c=d': 1, "zażółć gęślą": 1, "\u0000\u0007": 1, "": 1}
    found = door.send("POST", "/predict", JSON, changed(**names))
    assert found.status == 200
    assert "set-cookie" not in found.headers
    flags = found.headers["ketch-flags"]
    assert flags.isascii()
    assert flags.isprintable()
    assert "%0D%0ASet-Cookie%3A%20a%3Db" in flags


def test_many_flags_make_a_short_header(door: Door) -> None:
    found = door.send("POST", "/predict", JSON, changed(**{f"{'ż' * 60}{n}": n for n in range(200)}))
    assert found.status == 200
    assert found.headers["ketch-flags"].endswith(", more")
    assert len(found.headers["ketch-flags"]) < 2100


@pytest.mark.parametrize("given_id", ["", "a b", "ä", "x" * 129, "<script>", "a;b", "a\tb", '"'])
def test_an_id_that_is_not_sane_is_replaced(door: Door, given_id: str) -> None:
    one, two = (door.send("POST", "/predict", {**JSON, "x-request-id": given_id}, GOOD) for _ in range(2))
    assert one.headers["x-request-id"] != given_id
    assert one.headers["x-request-id"] != two.headers["x-request-id"]


def test_a_sane_id_is_kept_in_answers_and_refusals(door: Door) -> None:
    headers = {**JSON, "x-request-id": "Trace-1.2:3/4+5=6"}
    assert door.send("POST", "/predict", headers, GOOD).headers["x-request-id"] == "Trace-1.2:3/4+5=6"
    assert problem(door.send("POST", "/predict", headers, b"{"))["instance"] == "urn:ketch:request:Trace-1.2:3/4+5=6"
    assert door.send("GET", "/health/live", headers).headers["x-request-id"] == "Trace-1.2:3/4+5=6"


GETS = sorted({each.path for each in all_routes() if each.method == "GET" and "{" not in each.path})


@pytest.mark.parametrize("path", GETS)
def test_head_is_get_without_a_body(door: Door, path: str) -> None:
    got, asked = door.send("GET", path), door.send("HEAD", path)
    assert got.status == asked.status == 200
    assert got.body
    assert asked.body == b""
    assert asked.headers["content-type"] == got.headers["content-type"]


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_a_method_that_is_not_taken(door: Door, method: str) -> None:
    found = door.send(method, "/predict")
    assert found.status == 405
    assert found.headers["allow"] == "POST"
    problem(found, method)
    assert door.send("POST", "/schema", JSON, b"{}").headers["allow"] == "GET, HEAD"


def test_ids_are_made_without_repeats_by_many_threads(doors: Doors) -> None:
    service = doors.service()
    made: list[list[str]] = [[] for _ in range(8)]
    threads = [
        threading.Thread(target=lambda ids=ids: ids.extend(service.request_id({}) for _ in range(5000))) for ids in made
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({each for ids in made for each in ids}) == 40_000


# ---- readiness ---------------------------------------------------------------------------------------


class Sick(Predictor):
    """A model that once was well."""

    well = True
    asked = 0
    trouble: Exception = AnswersDiffer("secret detail", hint="h")

    def __init__(self, healthy: Predictor) -> None:
        super().__init__(healthy.bundle, healthy._runner)

    def replay(self, rows: int | None = None) -> float:
        self.asked += 1
        if not self.well:
            raise self.trouble
        return super().replay(rows)


@pytest.mark.parametrize("trouble", [AnswersDiffer("secret detail", hint="h"), RuntimeError("secret detail")])
def test_not_ready_is_503_without_detail_and_asked_once_a_second(small: Small, trouble: Exception) -> None:
    clock = [100.0]
    sick = Sick(small.predictor)
    service = Service(sick, Guard((KEY,)), clock=lambda: clock[0])
    for way in (ServiceDoor(service), WsgiDoor(app_of(service))):
        sick.well, sick.asked, sick.trouble = True, 0, trouble
        for _ in range(3):
            found = way.send("GET", "/health/ready")
            assert (found.status, found.json) == (200, {"status": "ready"})
        assert sick.asked == 1
        clock[0] += READY_FOR
        sick.well = False
        for _ in range(3):
            answered = way.send("GET", "/health/ready")
            assert answered.status == 503
            assert answered.headers["content-type"] == PROBLEM
            assert "secret" not in answered.body.decode()
            assert "ketch-model" not in answered.headers
            assert answered.json["status"] == 503
        assert sick.asked == 2
        assert way.send("GET", "/health/live").status == 200
        clock[0] += READY_FOR
        sick.well = True
        assert way.send("GET", "/health/ready").status == 200
        clock[0] += READY_FOR


# ---- bugs in Ketch, and the log ----------------------------------------------------------------------


class Mute(Predictor):
    """A predictor with a bug: it cannot write its answers."""

    def __init__(self, healthy: Predictor) -> None:
        super().__init__(healthy.bundle, healthy._runner)

    def encode(self, results: Results, accept: str = "") -> bytes:
        raise ZeroDivisionError("secret")


def test_a_bug_is_a_500_that_tells_the_log_and_not_the_caller(small: Small, caplog: pytest.LogCaptureFixture) -> None:
    service = Service(Mute(small.predictor), Guard())
    for way in (ServiceDoor(service), WsgiDoor(app_of(service))):
        found = way.send("POST", "/predict", JSON, GOOD)
        assert found.status == 500
        assert found.json["code"] == "error"
        assert "secret" not in found.body.decode()
    assert [each.exc_info is not None for each in caplog.records] == [True, True]


def test_a_bug_in_somebodys_hook_is_a_500_too(small: Small, caplog: pytest.LogCaptureFixture) -> None:
    app = app_of(Service(small.predictor, Guard()))

    @app.before_request
    def hook() -> None:
        if flask.request.path == "/schema":
            raise ZeroDivisionError("secret")
        if flask.request.path == "/docs":
            flask.abort(418)

    found = WsgiDoor(app).send("GET", "/schema")
    assert (found.status, found.kind, found.json["status"]) == (500, PROBLEM, 500)
    assert "secret" not in found.body.decode()
    assert problem(WsgiDoor(app).send("GET", "/docs"))["code"] == "bad-request"


class Kept(Log):
    def __init__(self) -> None:
        self.kept: list[Record] = []

    def append(self, records: Any) -> None:
        self.kept += records


def test_every_answer_has_its_record(small: Small) -> None:
    log = Kept()
    service = Service(small.predictor, Guard((KEY,)), log=log)
    headers = {"authorization": f"Bearer {KEY}", "x-request-id": "r1", **JSON, "host": "x"}
    batch = [dict(ROW), {**ROW, "tenure": 999, "zebra": 1}]
    answered = service.handle(Request("POST", "/predict", headers, json.dumps(batch).encode()))
    service.handle(Request("POST", "/predict", headers, b"{}"))
    service.handle(Request("POST", "/predict", JSON, GOOD))
    answers = json.loads(answered.body)
    assert [each.features for each in log.kept] == [dict(ROW), {**ROW, "tenure": 999}]
    assert [each.answer for each in log.kept] == answers
    assert [each.flags for each in log.kept] == [(), ("out-of-range;field=tenure", "unknown-field;field=zebra")]
    assert {each.request_id for each in log.kept} == {"r1"}
    assert len({each.prediction_id for each in log.kept}) == 2
    assert {(each.model, each.digest) for each in log.kept} == {("churn", small.predictor.bundle.sha256)}
    assert all(len(each.client) == 8 and each.latency_ms > 0 for each in log.kept)


def test_strict_and_lenient(small: Small) -> None:
    def service(**limits: Any) -> ServiceDoor:
        made = Predictor(small.predictor.bundle, small.predictor._runner, limits=Limits(**limits))
        return ServiceDoor(Service(made, Guard()))

    assert service(strict=True).send("POST", "/predict", JSON, changed(zebra=1)).status == 422
    found = service(lenient=True).send("POST", "/predict", JSON, changed(contract="weekly"))
    assert (found.status, found.headers["ketch-flags"]) == (200, "unknown-category;field=contract")
    found = service(max_rows=2).send("POST", "/predict", JSON, json.dumps([ROW] * 3).encode())
    assert (found.status, found.json["code"]) == (413, "too-many-rows")


def test_flask_app_is_an_ordinary_app(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KETCH_HOME", str(small.home))
    app = ketch.flask_app(small.bundle)

    @app.get("/ours")
    def ours() -> str:
        return "ours"

    client = app.test_client()
    assert client.post("/predict", json=ROW).get_json() == small.predictor.predict(ROW)
    assert client.get("/ours").text == "ours"
    with pytest.raises(KetchError):
        ketch.flask_app(small.predictor, keys=("short",))


# ---- hypothesis --------------------------------------------------------------------------------------


def drive(door: Door, strategy: st.SearchStrategy[Any], check: Callable[[Any], None]) -> None:
    """Let hypothesis look for what breaks a door, as long as that door is worth."""
    limit = settings(
        max_examples=EXAMPLES[door.name], deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    limit(given(strategy)(check))()


@pytest.fixture(autouse=True)
def _no_bugs_logged(request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> Any:
    yield
    if "a_bug" not in request.node.name and "not_ready" not in request.node.name:
        wrong = [each for each in caplog.get_records("call") if each.levelno >= logging.WARNING]
        assert not wrong, [each.getMessage() for each in wrong]


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(
        ["monthly", "yearly", "a", "b", "c", 5, 51.5, "5", 10**400, -(10**30), 1e308, "NaN", "", "\ud800"]
    )
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)
NAMES_OF_FIELDS = st.sampled_from([*ROW, "tenur", "Tenure", "plan ", "", "__proto__", "charges\r\n"]) | st.text(
    max_size=12
)


@st.composite
def mutated(draw: st.DrawFn) -> dict[str, object]:
    row: dict[str, object] = dict(ROW)
    for name in draw(st.lists(st.sampled_from(sorted(ROW)), max_size=2)):
        row.pop(name, None)
    return row | draw(st.dictionaries(NAMES_OF_FIELDS, VALUES, max_size=3))


def written(value: object) -> bytes:
    return json.dumps(value).encode()


BODIES = (
    st.binary(max_size=200)
    | VALUES.map(written)
    | mutated().map(written)
    | st.lists(mutated(), max_size=4).map(written)
    | st.text(max_size=100).map(lambda text: (HEADER + text).encode("utf-8", "replace"))
)
LATIN = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=60)
KINDS = st.sampled_from(
    ["application/json", "text/csv", "application/json; charset=latin-1", "text/html", "*/*", ";", "/"]
)
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "content-type": KINDS | LATIN,
        "accept": KINDS | LATIN,
        "x-request-id": LATIN | st.just("r" * 4000),
        "authorization": LATIN | LATIN.map("Basic ".__add__) | LATIN.map("Bearer ".__add__) | st.just("B" * 4000),
        "x-api-key": LATIN,
        "content-encoding": LATIN,
        "accept-language": LATIN,
        "cookie": LATIN,
        "x-forwarded-for": LATIN,
        "x-forwarded-proto": LATIN,
        "host": st.sampled_from(["localhost", "localhost:80", "127.0.0.1", "evil.example", "a/b", "[", "[::1]:x", ""]),
    },
)
VISIBLE = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=30)
PATHS = st.sampled_from(sorted({each.path for each in all_routes()})) | VISIBLE.map("/".__add__)
METHODS = st.sampled_from(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "QUERY"])


@pytest.mark.service
def test_no_body_breaks_it(door: Door) -> None:
    kinds = st.sampled_from([JSON, CSV, {"content-type": "application/json", "accept": "text/csv"}])

    def check(asked: tuple[dict[str, str], bytes]) -> None:
        headers, body = asked
        sound(door.send("POST", "/predict", headers, body))

    drive(door, st.tuples(kinds, BODIES), check)


@pytest.mark.service
def test_no_header_path_or_method_breaks_it(door: Door) -> None:
    def check(asked: tuple[str, str, dict[str, str], bytes]) -> None:
        method, path, headers, body = asked
        answered = door.send(method, path, headers, body)
        if ours(door, path, method, answered):
            sound(answered, method)

    drive(door, st.tuples(METHODS, PATHS, HEADERS, BODIES), check)


def ours(door: Door, path: str, method: str, answered: Answered) -> bool:
    """Below another app, that app answers for unknown paths and methods; gunicorn itself for what is not HTTP."""
    assert answered.status < 500, answered
    if door.name == "mounted":
        known = {each.path for each in all_routes()}
        return path in known and method not in {"TRACE", "PROPFIND", "QUERY"}
    return not (door.name == "gunicorn" and answered.status == 400 and answered.kind == "text/html")


@pytest.mark.service
def test_whatever_is_answered_is_what_the_predictor_says(door: Door, small: Small) -> None:
    def check(row: dict[str, object]) -> None:
        answered = door.send("POST", "/predict", JSON, written(row))
        sound(answered)
        if answered.status == 200:
            assert answered.json == small.predictor.predict(row)

    drive(door, mutated(), check)
