"""What people and programs read of a service: the page, the API page, OpenAPI, JSON Schema."""

import html
import json
import re
import subprocess
from html.parser import HTMLParser
from typing import Any

import msgspec
import pytest

from ketch import page
from ketch.bundle import Bundle
from ketch.codec import JSON
from ketch.schema import Answer, Contract, Field
from ketch.serve import all_routes
from tests.doors import KEY, ROW, Door, Doors, Small

HOSTILE = "<script>alert(1)</script>\"'&`$(touch /tmp/x) {{7*7}} {% raw %} $HOME \\"


def outside(document: str) -> list[str]:
    """List what a document would load from elsewhere, and scripts that stand in it."""
    found: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            given = dict(attrs)
            found.extend(f"{tag} {value}" for name, value in attrs if name in {"src", "href"} and "//" in (value or ""))
            found.extend(f"{tag} {name}" for name, _ in attrs if name.startswith("on") or name == "style")
            if tag in {"iframe", "object", "embed", "base", "form"} or (tag == "script" and not given.get("src")):
                found.append(tag)

    Reader().feed(document)
    return found


def hostile(small: Small, **answer: Any) -> Bundle:
    """The small model's bundle with a contract that somebody wrote to do harm."""
    fields = (
        Field(HOSTILE, "category", categories=(HOSTILE, "b"), example=HOSTILE, label=HOSTILE, description=HOSTILE),
        Field("n", "number", minimum=0, maximum=1, unit=HOSTILE, example=0.5, required=False),
        Field("many", "category", categories=tuple(range(9)), unknown="flag", example=1),
        Field("when", "date", example="2026-01-01"),
        Field("v", "vector", length=3, example=[1, 2, 3]),
    )
    given = {"task": "binary", "target": HOSTILE, "classes": (HOSTILE, "b"), "positive": HOSTILE, **answer}
    contract = Contract(fields, Answer(**{"values": "probability", **given}))
    return msgspec.structs.replace(small.predictor.bundle, contract=contract)


ANSWERS: dict[str, dict[str, Any]] = {
    "binary": {},
    "threshold": {"threshold": 0.3},
    "boolean": {"classes": (0, 1), "positive": 1, "values": "score"},
    "bare": {"values": "none"},
    "multiclass": {"task": "multiclass", "classes": (HOSTILE, "b", "c"), "positive": None},
    "scores": {"task": "multiclass", "classes": (0, 1, 2), "positive": None, "values": "score"},
    "regression": {"task": "regression", "classes": (), "values": "none"},
    "cluster": {"task": "cluster", "classes": (), "values": "none"},
    "outlier": {"task": "outlier", "classes": (), "values": "none"},
}


@pytest.mark.parametrize("kind", ANSWERS)
def test_hostile_words_stay_words(small: Small, kind: str) -> None:
    opened = hostile(small, **ANSWERS[kind])
    shown = page.landing(opened, url="http://localhost:9696", guarded=False)
    assert "<script" not in shown
    assert "49" not in re.findall(r"<h1>(.*?)</h1>", shown)
    assert html.escape(HOSTILE, quote=False).partition("&#")[0][:20] in shown
    assert outside(shown) == []
    document = page.openapi(opened, guarded=True, routes={"/predict": {"POST": "x"}})
    msgspec.json.encode(document)


def test_the_line_is_one_command_whatever_it_holds(small: Small) -> None:
    line = page.curl_line(hostile(small).contract, "http://localhost:9696/$(touch x)", key=True)
    said = subprocess.run(
        ["/bin/sh", "-c", line.replace("curl", "printf '%s\\n'", 1)],
        env={"PATH": "/usr/bin:/bin", "KETCH_API_KEY": KEY}, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    assert said[0] == "http://localhost:9696/$(touch x)/predict"
    assert f"Authorization: Bearer {KEY}" in said
    assert json.loads(said[-1]) == page.example_row(hostile(small).contract)


def test_the_line_on_the_page_works_in_a_shell(doors: Doors) -> None:
    for guarded in (False, True):
        door: Any = doors("front", guarded=guarded)
        headers = {"host": f"localhost:{door.port}", "x-api-key": KEY if guarded else None}
        shown = door.send("GET", "/", headers).body.decode()
        line = html.unescape(re.findall(r"<pre><code>(.*?)</code></pre>", shown, re.DOTALL)[0])
        assert f"localhost:{door.port}/predict" in line
        done = subprocess.run(
            ["/bin/sh", "-c", line.replace("curl ", "curl -sS ", 1)],
            env={"PATH": "/usr/bin:/bin", "KETCH_API_KEY": KEY},
            capture_output=True,
            timeout=30,
        )
        assert done.returncode == 0, done.stderr
        assert set(json.loads(done.stdout)) == {"churn", "churn_probability"}


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_pages_load_nothing_from_elsewhere(door: Door, path: str) -> None:
    found = door.send("GET", path)
    assert found.kind == "text/html"
    assert outside(found.body.decode()) == []
    policy = found.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "script-src" not in policy
    assert "frame-ancestors 'none'" in policy
    assert found.headers["x-content-type-options"] == "nosniff"
    assert found.headers["referrer-policy"] == "no-referrer"
    for link in re.findall(r"""(?:src|href)="([^"]+)""", found.body.decode()):
        assert door.send("GET", "/" + link).status == 200, link


def test_the_page_says_what_the_model_is(door: Door, small: Small) -> None:
    shown = door.send("GET", "/").body.decode()
    for word in ("churn", *ROW, "monthly, yearly", "a, b, c", small.predictor.bundle.sha256, "probability"):
        assert word in shown
    assert ("/models/churn/predict" in shown) == (door.name == "mounted")


def test_a_host_header_does_not_write_the_page(doors: Doors) -> None:
    for name in ("flask", "front", "mounted"):
        found = doors(name, guarded=True).send("GET", "/", {"host": "x'><script>", "x-api-key": KEY})
        assert found.status in {200, 400}
        assert b"<script" not in found.body


def test_assets(door: Door) -> None:
    for name, kind in (("swagger-ui.css", "text/css"), ("swagger-ui-bundle.js", "text/javascript")):
        found = door.send("GET", f"/docs/{name}")
        assert (found.status, found.kind) == (200, kind)
        assert len(found.body) > 100_000
    assert b"openapi.json" in door.send("GET", "/docs/start.js").body


def test_the_schema_of_a_row(door: Door) -> None:
    found = door.send("GET", "/schema").json
    assert found["properties"].keys() == ROW.keys()
    assert found["required"] == sorted(ROW)
    assert found["properties"]["contract"]["enum"] == ["monthly", "yearly"]
    assert found["$defs"]["answer"]["properties"]["churn"] == {"type": "boolean"}


def validate(document: dict[str, Any]) -> None:
    validator = pytest.importorskip("openapi_spec_validator")
    validator.validate(document, cls=validator.OpenAPIV31SpecValidator)


@pytest.mark.parametrize("kind", ANSWERS)
def test_openapi_is_openapi_for_every_kind_of_answer(small: Small, kind: str) -> None:
    routes = {each.path: {each.method: each.summary} for each in all_routes() if each.summary}
    validate(page.openapi(hostile(small, **ANSWERS[kind]), guarded=True, routes=routes))


def test_openapi_describes_the_service(door: Door) -> None:
    document = door.send("GET", "/openapi.json").json
    validate(document)
    assert document["paths"].keys() == {each.path for each in all_routes() if each.summary}
    assert document["servers"] == [{"url": "/models/churn" if door.name == "mounted" else "/"}]
    assert "securitySchemes" not in document["components"]
    row = document["paths"]["/predict"]["post"]["requestBody"]["content"][JSON]["examples"]["one row"]["value"]
    assert door.send("POST", "/predict", {}, json.dumps(row).encode()).status == 200


def test_openapi_says_where_a_key_goes(guarded_door: Door) -> None:
    document = guarded_door.send("GET", "/openapi.json", {"x-api-key": KEY}).json
    validate(document)
    for path, methods in document["paths"].items():
        for operation in methods.values():
            assert ("security" in operation) == (not path.startswith("/health/"))
    assert set(document["components"]["securitySchemes"]) == {"basic", "bearer", "key"}


def test_every_refusal_fits_the_problem_that_openapi_promises(door: Door) -> None:
    schema = door.send("GET", "/openapi.json").json["components"]["schemas"]["Problem"]
    for body in (b"{", b"{}", b"[]"):
        found = door.send("POST", "/predict", {}, body).json
        assert found.keys() <= schema["properties"].keys()
        assert set(schema["required"]) <= found.keys()
        assert found["code"] in schema["properties"]["code"]["enum"]
        for each in found.get("errors", []):
            assert each.keys() <= schema["properties"]["errors"]["items"]["properties"].keys()
