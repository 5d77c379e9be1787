"""Headers for browsers: who may call from another page, and what keeps an answer safe."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.errors import SettingError
from ketch.serve import Request
from ketch.serve.headers import Cors, safe_headers

SHOP = "https://shop.example"


def asks(origin: str | None = SHOP, method: str = "OPTIONS", wants: str | None = "POST") -> Request:
    given_headers = {"origin": origin, "access-control-request-method": wants}
    return Request(method, "/predict", {name: value for name, value in given_headers.items() if value is not None})


def test_no_page_may_call_unless_it_is_named() -> None:
    assert Cors().headers({"origin": SHOP}) == {}
    assert Cors().preflight(asks(), "POST") is None


@pytest.mark.parametrize(
    ("origin", "goes"),
    [(SHOP, True), ("https://SHOP.example", True), ("http://localhost:3000", True), ("http://[::1]:80", True),
     ("http://shop.example", False), ("https://shop.example:444", False), ("https://shop.example.evil", False),
     ("https://a.shop.example", False), ("null", False), ("", False), ("https://shop.example/", False),
     ("https://shop.example, https://evil.example", False), (None, False)],
)  # fmt: skip
def test_the_pages_named_may_call(origin: str | None, goes: bool) -> None:
    cors = Cors([SHOP + "/", "http://localhost:3000", "http://[::1]:80"])
    found = cors.headers({"origin": origin} if origin is not None else {})
    assert found["Vary"] == "Origin"
    assert found.get("Access-Control-Allow-Origin") == (origin if goes else None)
    answer = cors.preflight(asks(origin), "OPTIONS, POST")
    assert (answer is not None) == goes
    if answer is not None:
        assert (answer.status, answer.body) == (204, b"")
        assert answer.headers["Access-Control-Allow-Origin"] == origin
        assert answer.headers["Access-Control-Allow-Methods"] == "OPTIONS, POST"
        assert {"Authorization", "X-API-Key"} <= set(answer.headers["Access-Control-Allow-Headers"].split(", "))
        assert answer.headers["Vary"] == "Origin"


def test_all_pages_may_call_where_that_is_said() -> None:
    cors = Cors(["*"])
    for origin in (SHOP, "null", "https://evil.example"):
        assert cors.headers({"origin": origin})["Access-Control-Allow-Origin"] == "*"
        assert cors.preflight(asks(origin), "POST") is not None


@given(st.lists(st.sampled_from([SHOP, "*"])), st.text() | st.just(SHOP))
def test_no_page_is_trusted_with_what_a_browser_keeps(origins: list[str], origin: str) -> None:
    cors = Cors(origins)
    answer = cors.preflight(asks(origin), "POST")
    names = {*cors.headers({"origin": origin}), *(answer.headers if answer else ())}
    assert "Access-Control-Allow-Credentials" not in names


@pytest.mark.parametrize("request_", [asks(method="POST"), asks(wants=None), asks(origin=None)])
def test_other_requests_are_no_preflight(request_: Request) -> None:
    assert Cors(["*"]).preflight(request_, "POST") is None


@pytest.mark.parametrize(
    "origin", ["shop.example", "ftp://x", "https://", "https://a/b", "https://*.example", "null", "https://a\nb", ""]
)
def test_what_is_no_origin_is_refused(origin: str) -> None:
    with pytest.raises(SettingError, match="no origin") as refused:
        Cors([origin])
    assert "https://shop.example" in refused.value.hint


def test_safe_headers() -> None:
    for guarded, tls in itertools.product([False, True], repeat=2):
        found = safe_headers(guarded=guarded, tls=tls)
        assert found["X-Content-Type-Options"] == "nosniff"
        assert ("Cache-Control" in found) == guarded
        assert ("Strict-Transport-Security" in found) == tls
