"""Who gets in, through every door: each route by each method in each state of key and host."""

import base64
import json
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.errors import Forbidden, HostNotAllowed, SettingError
from ketch.serve import all_routes
from ketch.serve.guard import Guard, Hosts, guard_at, is_loopback_address, is_loopback_host
from ketch.serve.lineup import version_of
from ketch.trust.calling import SCOPES
from tests.doors import KEY, ROW, Door, Doors, Small, problem

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
OF_MODEL = {"/models/churn" + each.path for each in all_routes() if each.of_model}
PATHS = sorted({each.path for each in all_routes()} | OF_MODEL | {"/nothing"})
TAKES = {
    path: {each.method for each in all_routes() if path in {each.path, "/models/churn" + each.path}} for path in PATHS
}
OPEN_TO_ALL = {each.path for each in all_routes() if not each.scope}
TENSORS = [
    {"name": name, "datatype": kind, "shape": [1], "data": [ROW[name]]}
    for name, kind in {"charges": "FP64", "contract": "BYTES", "plan": "BYTES", "tenure": "INT64"}.items()
]
BODIES = {"/score": {"data": [ROW]}, "/infer": {"inputs": TENSORS}, "/index": {}}


def basic(password: str, user: str = "") -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


RIGHT: Mapping[str, Mapping[str, str]] = {
    "bearer": {"authorization": f"Bearer {KEY}"},
    "small bearer": {"authorization": f"bearer  {KEY} "},
    "x-api-key": {"x-api-key": KEY},
    "basic": {"authorization": basic(KEY)},
    "basic with user": {"authorization": basic(KEY, "somebody")},
}
WRONG: Mapping[str, Mapping[str, str]] = {
    "nothing": {},
    "empty": {"authorization": ""},
    "other key": {"authorization": "Bearer another-key-that-is-long-enough"},
    "cut": {"authorization": f"Bearer {KEY[:-1]}"},
    "longer": {"x-api-key": KEY + "x"},
    "no scheme": {"authorization": KEY},
    "other scheme": {"authorization": f"Digest {KEY}"},
    "user for password": {"authorization": "Basic " + base64.b64encode(f"{KEY}:".encode()).decode()},
    "not base64": {"authorization": "Basic %%%"},
    "not latin": {"authorization": "Basic żółć".encode().decode("latin-1")},
    "in the url": {},
    "wrong beside right": {"x-api-key": "another-key-that-is-long-enough", "authorization": f"Bearer {KEY}"},
}
HOSTS = {
    "localhost": True, "LOCALHOST": True, "localhost:9696": True, "localhost.": True, "localhost.:80": True,
    "127.0.0.1": True, "127.0.0.1:9696": True, "127.1.2.3": True, "[::1]": True, "[::1]:9696": True,
    "": False, "evil.example": False, "localhost.evil.example": False, "127.0.0.1.nip.io": False,
    "localhost:evil.example": False, "[::1].evil.example": False, "[::1]evil": False, "::1": False, "[::2]": False,
    "localhost@evil.example": False, "localhost,evil.example": False, "localhost:80:80": False, "0.0.0.0": False,
    "192.168.0.1": False, "xn--localhost": False, "localhost ..": False, "127.0.0.1 evil": False, "2130706433": False,
}  # fmt: skip


def expected(method: str, path: str, *, let_in: int) -> int:
    """Say by the contract alone what comes: `let_in` is 200, or the guard's refusal."""
    if let_in == 403 or (let_in == 401 and path not in OPEN_TO_ALL):
        return let_in
    if path == "/nothing":
        return 404
    return 200 if method in TAKES[path] or (method == "HEAD" and "GET" in TAKES[path]) else 405


def send(door: Door, method: str, path: str, headers: Mapping[str, str | None]) -> int:
    asked = next((body for end, body in BODIES.items() if path.endswith(end)), ROW)
    body = json.dumps(asked).encode() if method == "POST" else b""
    found = door.send(method, path, headers, body)
    if found.status >= 400:
        problem(found, method)
    if found.status in {401, 403}:
        assert "ketch-model" not in found.headers
        assert b"churn" not in found.body
    if found.status == 401:
        assert found.headers["www-authenticate"].startswith("Basic ")
    return found.status


def test_every_route_says_who_may_come() -> None:
    assert {each.scope for each in all_routes()} <= {"", *SCOPES}
    assert {"/health/live", "/health/ready"} == OPEN_TO_ALL


@pytest.fixture
def filled(small: Small, request: pytest.FixtureRequest) -> str:
    """A path that exists, for one with {parts}."""
    found: str = request.param
    return found.replace("{name}", "churn").replace("{version}", version_of(small.predictor))


@pytest.mark.parametrize(("path", "filled"), [(path, path) for path in PATHS], indirect=["filled"], ids=PATHS)
def test_every_route_method_and_key(guarded_door: Door, path: str, filled: str) -> None:
    if guarded_door.name == "mounted" and path == "/nothing":
        pytest.skip("that is the other app's")
    for method in METHODS:
        for state in ("bearer", "nothing", "other key"):
            headers = {**RIGHT, **WRONG}[state]
            wanted = expected(method, path, let_in=200 if state in RIGHT else 401)
            if wanted == 200 and path == "/metrics":
                wanted = 403  # a plain key does not open them
            assert send(guarded_door, method, filled, headers) == wanted, (method, state)


@pytest.mark.parametrize(("path", "filled"), [(path, path) for path in PATHS], indirect=["filled"], ids=PATHS)
def test_every_route_method_and_host(door: Door, path: str, filled: str) -> None:
    if door.name == "mounted" and path == "/nothing":
        pytest.skip("that is the other app's")
    for method in METHODS:
        for host in ("localhost:9696", "evil.example", None):
            wanted = expected(method, path, let_in=200 if host and HOSTS[host.replace(":9696", "")] else 403)
            assert send(door, method, filled, {"host": host}) == wanted, (method, host)


@pytest.mark.parametrize("state", [*RIGHT, *WRONG])
def test_every_way_to_give_a_key(guarded_door: Door, state: str) -> None:
    path = f"/predict?key={KEY}" if state == "in the url" else "/predict"
    headers = {**RIGHT, **WRONG}[state]
    assert send(guarded_door, "POST", path, {"host": "churn.example", **headers}) == (200 if state in RIGHT else 401)


@pytest.mark.parametrize("host", HOSTS)
def test_every_host(door: Door, host: str) -> None:
    assert send(door, "POST", "/predict", {"host": host}) == (200 if HOSTS[host] else 403)
    assert is_loopback_host(host) == HOSTS[host]


def test_no_host_comes_in_by_being_long_or_odd() -> None:
    @given(st.text(max_size=30))
    def check(text: str) -> None:
        assert not is_loopback_host(f"{text}.example")
        assert not is_loopback_host(f"a{text}")

    check()


def test_a_refused_caller_need_not_send_all(doors: Doors, guarded_door: Door) -> None:
    found = guarded_door.send("POST", "/predict", {}, b" " * 9_000_000)
    assert problem(found)["code"] == "unauthorized"
    assert send(doors("service"), "POST", "/predict", {"host": "evil.example"}) == 403


def test_auth_none_and_platform_let_everybody_in() -> None:
    for auth in ("none", "platform"):
        guard = guard_at("0.0.0.0", (), auth=auth)
        assert not guard.guarded
        for each in (guard, Guard((KEY,), auth=auth)):
            for scope in ("", *SCOPES[:-1]):
                assert each.check({"host": "anything"}, scope=scope).name == ""
            with pytest.raises(Forbidden, match="metrics") as refused:
                each.check({"host": "localhost"}, scope="metrics")
            assert "metrics-port" in refused.value.hint


@pytest.mark.parametrize(
    ("auth", "listens", "host", "seen"),
    [("keys", "127.0.0.1", "localhost:9696", True), ("none", "127.0.0.1", "localhost", True),
     ("none", "::1", "churn.example", False), ("none", "0.0.0.0", "localhost", False),
     ("platform", "127.0.0.1", "localhost", False)],
)  # fmt: skip
def test_who_sees_the_metrics_without_a_key(auth: str, listens: str, host: str, seen: bool) -> None:
    guard = guard_at(listens, (), auth=auth)
    if seen:
        assert "metrics" in guard.check({"host": host}, scope="metrics").scopes
    else:
        with pytest.raises(Forbidden):
            guard.check({"host": host}, scope="metrics")


@pytest.mark.parametrize(
    ("host", "goes"),
    [("churn.example", True), ("CHURN.example.:443", True), ("a.shop.example", True), ("a.b.shop.example:80", True),
     ("10.1.2.3:9696", True), ("[fd00::7]:80", True), ("192.168.7.1", True), ("my_service", True),
     ("shop.example", False), (".shop.example", False), ("evil-shop.example", False), ("a.shop.example.evil", False),
     ("churn.example.evil", False), ("xchurn.example", False), ("11.1.2.3", False), ("[fe80::7]", False),
     ("10.1.2.3.nip.io", False), ("localhost", False), ("", False), ("churn.example@evil", False),
     ("churn.example,evil", False), ("churn.example:80:80", False), ("churn.example/", False),
     ("*.shop.example", False)],
)  # fmt: skip
def test_allowed_hosts(host: str, goes: bool) -> None:
    names = ("churn.example", "*.Shop.example", "10.0.0.0/8", "fd00::/8", "192.168.7.1", "my_service")
    guard = Guard((KEY,), allowed_hosts=names)
    for scope in ("", "predict"):
        for _ in range(2):
            if goes:
                guard.check({"host": host, "x-api-key": KEY}, scope=scope)
            else:
                with pytest.raises(HostNotAllowed):
                    guard.check({"host": host, "x-api-key": KEY}, scope=scope)
    assert Hosts(names).allow(host) == goes


def test_a_list_of_hosts_does_not_open_a_service_that_asks_for_no_key() -> None:
    guard = Guard(allowed_hosts=("churn.example",))
    guard.check({"host": "localhost"}, scope="predict")
    with pytest.raises(HostNotAllowed):
        guard.check({"host": "churn.example"}, scope="predict")


@pytest.mark.parametrize("name", ["*", "*.*.example", "http://churn", "churn.example:80", "a b", "*example", "."])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(SettingError, match="no host name") as refused:
        Hosts((name,))
    assert "10.0.0.0/8" in refused.value.hint


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.1", "churn.example", ""])
def test_an_address_for_others_needs_a_decision(host: str) -> None:
    with pytest.raises(SettingError, match="no key is set") as refused:
        guard_at(host, ())
    assert "KETCH_API_KEYS" in refused.value.hint
    assert guard_at(host, (KEY,)).guarded


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.8.8.8"])
def test_loopback_needs_none(host: str) -> None:
    assert is_loopback_address(host)
    assert not guard_at(host, ()).guarded


@pytest.mark.parametrize(
    "key", ["", "short", "with a space in it, long", "żółć-żółć-żółć-żółć", "new\nline" * 4, "\ud800" * 20]
)
def test_a_key_that_cannot_serve_is_refused(key: str) -> None:
    with pytest.raises(SettingError) as refused:
        Guard((key,))
    assert refused.value.hint
    assert not key or key not in refused.value.message


def test_two_keys_have_two_names() -> None:
    guard = Guard((KEY, KEY[::-1]))
    names = {guard.check({"x-api-key": key}, scope="predict").name for key in (KEY, KEY[::-1])}
    assert len(names) == 2
    assert all(len(name) == 8 and name not in KEY for name in names)
    assert guard.check({}, scope="").name == ""
    assert guard.check({}, scope="").scopes == frozenset()
