"""What people and programs read of a service: the page, the API page, OpenAPI, JSON Schema."""

import html
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urljoin

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ketch import page
from ketch.bundle import Bundle
from ketch.codec import JSON
from ketch.page import Spoken, openapi, people, words
from ketch.page.shapes import SHAPES
from ketch.predict import Limits, Predictor
from ketch.schema import Answer, Contract, Field
from ketch.serve import all_routes
from ketch.serve.app import app_of
from ketch.serve.guard import Guard
from ketch.serve.lineup import Line, Lineup
from ketch.serve.pages import operations
from ketch.serve.rates import Rates
from ketch.serve.routes import Service
from ketch.trust.calling import CallingKey, digest_of, line_of
from tests.doors import KEY, PROBLEM, ROW, Answered, Door, Doors, ServiceDoor, Small, Wire, WsgiDoor, problem

jsonschema: Any = pytest.importorskip("jsonschema", reason="it comes with openapi-spec-validator")
HOSTILE = "<script>alert(1)</script>\"'&`$(touch /tmp/x) {{7*7}} {% raw %} $HOME \\\u202e\x9b\u2028\x00😀"


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


@pytest.mark.parametrize("lang", ["en", "pt"])
@pytest.mark.parametrize("kind", ANSWERS)
def test_hostile_words_stay_words(small: Small, kind: str, lang: str) -> None:
    opened = hostile(small, **ANSWERS[kind])
    shown = people.landing(opened, url="http://localhost:9696", guarded=False, lang=lang)
    assert shown.count("<script") == 1  # its own
    assert "49" not in re.findall(r"<h1>(.*?)</h1>", shown)
    assert html.escape(HOSTILE, quote=False).partition("&#")[0][:20] in shown
    assert outside(shown) == []


# ---- snippets ----------------------------------------------------------------------------------------

RUN = {
    "curl": ["/bin/sh", "-c"],
    "python": [sys.executable, "-c"],
    "client": [sys.executable, "-c"],
    "javascript": ["node", "--input-type=module", "-e"],
}


def ran(name: str, lines: str) -> Any:
    if shutil.which(RUN[name][0]) is None:
        pytest.skip(f"{RUN[name][0]} is not on this machine; Debian's package nodejs has it")
    lines = lines.replace("curl ", "curl -sS ", 1) if name == "curl" else lines
    environ = {"PATH": os.environ["PATH"], "KETCH_API_KEY": KEY, "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run([*RUN[name], lines], env=environ, capture_output=True, timeout=30)
    assert done.returncode == 0, done.stderr
    text = done.stdout.decode()
    return json.loads(text) if name in {"curl", "javascript"} else eval(text)


def snippets(shown: str) -> Mapping[str, str]:
    found = re.findall(r'<section id="(\w+)".*?<pre><code>(.*?)</code></pre>', shown, re.DOTALL)
    return {name: html.unescape(lines) for name, lines in found}


@pytest.mark.parametrize("guarded", [False, True])
@pytest.mark.parametrize("name", page.SNIPPETS)
def test_each_snippet_of_the_page_works(doors: Doors, name: str, guarded: bool) -> None:
    door: Any = doors("front", guarded=guarded)
    headers = {"host": f"localhost:{door.port}", "x-api-key": KEY if guarded else None}
    lines = snippets(door.send("GET", "/", headers).body.decode())[name]
    assert f"localhost:{door.port}" in lines
    assert set(ran(name, lines)) == {"churn", "churn_probability"}


@pytest.mark.parametrize("name", page.SNIPPETS)
def test_a_snippet_is_one_program_whatever_it_holds(small: Small, name: str) -> None:
    """What a contract says must not run; the row arrives as it is."""
    contract = hostile(small).contract
    lines = page.SNIPPETS[name][1](contract, "http://localhost:9696/$(touch x)'\"`", key=True)
    assert all(each.isprintable() for each in lines.split("\n")), "a terminal would show something else"
    stands_for = {
        "curl": ("curl ", "printf '%s\\n' "),
        "python": ("import requests", PRETENDS_REQUESTS),
        "client": ("import ketch", PRETENDS_KETCH),
        "javascript": (
            "const row",
            f"{PRETENDS_FETCH}const row",
        ),
    }
    found = ran_bare(name, lines.replace(*stands_for[name], 1))
    assert page.example_row(contract) == found


PRETENDS_REQUESTS = """
class requests:
    @staticmethod
    def post(url, json, headers, timeout):
        class answer:
            raise_for_status = staticmethod(lambda: None)
            json = staticmethod(lambda: sent)
        sent = json
        return answer
"""
PRETENDS_FETCH = "globalThis.fetch = async (url, asked) => ({ok: true, json: () => asked});\n"
PRETENDS_KETCH = """
import contextlib
class ketch:
    @staticmethod
    @contextlib.contextmanager
    def Client(url):
        class client:
            predict = staticmethod(lambda row: row)
        yield client
"""


def ran_bare(name: str, lines: str) -> Any:
    if shutil.which(RUN[name][0]) is None:
        pytest.skip(f"{RUN[name][0]} is not on this machine; Debian's package nodejs has it")
    environ = {"PATH": os.environ["PATH"], "KETCH_API_KEY": KEY, "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run([*RUN[name], lines], env=environ, capture_output=True, text=True, timeout=30, check=True)
    if name == "curl":
        return json.loads(done.stdout.splitlines()[-1])
    return json.loads(json.loads(done.stdout)["body"]) if name == "javascript" else eval(done.stdout)


# ---- pages for people --------------------------------------------------------------------------------


def test_pages_load_nothing_from_elsewhere(door: Door) -> None:
    below = [] if door.name == "mounted" else ["/models/churn", "/models/churn/", "/models/churn/docs"]
    for path in ("/", "/docs", *below):
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
            assert door.send("GET", urljoin(path, link)).status == 200, (path, link)


def test_the_page_says_what_the_model_is(door: Door, small: Small) -> None:
    shown = door.send("GET", "/").body.decode()
    for word in ("churn", *ROW, "monthly, yearly", "a, b, c", small.predictor.bundle.sha256, "probability"):
        assert word in shown
    assert ("/models/churn/predict" in shown) == (door.name == "mounted")


@pytest.mark.parametrize("path", ["/", "/docs"])
@pytest.mark.parametrize(
    ("query", "accepts", "lang"),
    [
        ("", "", "en"),
        ("", "pt-BR,pt;q=0.9,en;q=0.8", "pt-BR"),
        ("", "en-GB,pt;q=0.9", "en"),
        ("", "de, pt;q=0.5", "pt-BR"),
        ("", "pt;q=0, de", "en"),
        ("", "x" * 9000 + ",pt", "en"),
        ("", "pt;q=oops", "en"),
        ("?lang=pt", "en", "pt-BR"),
        ("?lang=en", "pt", "en"),
        ("?lang=de", "pt", "en"),
        ("?lang=%3Cscript%3E", "", "en"),
    ],
)
def test_pages_are_in_the_readers_language(doors: Doors, path: str, query: str, accepts: str, lang: str) -> None:
    found = doors("flask").send("GET", path + query, {"accept-language": accepts})
    assert found.headers["vary"] == "Accept-Language"
    shown = found.body.decode()
    assert f'<html lang="{lang}">' in shown
    assert (words.spoken("pt")["back" if path == "/docs" else "ask"] in shown) == (lang == "pt-BR")


def test_both_languages_have_all_words(small: Small) -> None:
    assert words.spoken("en").keys() == words.spoken("pt").keys()
    kinds = set(Field.__annotations__["type"].__args__)
    assert kinds <= words.WORDS.keys()


def test_a_host_header_does_not_write_the_page(doors: Doors) -> None:
    for name in ("flask", "front", "mounted"):
        found = doors(name, guarded=True).send("GET", "/", {"host": "x'><script>", "x-api-key": KEY})
        assert found.status in {200, 400}
        assert found.body.count(b"<script") in {0, 1}  # its own
        assert b"x'><script>" not in found.body


def test_assets(door: Door) -> None:
    for name, kind in (("swagger-ui.css", "text/css"), ("swagger-ui-bundle.js", "text/javascript")):
        found = door.send("GET", f"/docs/{name}")
        assert (found.status, found.kind) == (200, kind)
        assert len(found.body) > 100_000
    assert b"openapi.json" in door.send("GET", "/docs/start.js").body


# ---- schemas -----------------------------------------------------------------------------------------


def test_the_schema_of_a_row(door: Door) -> None:
    found = door.send("GET", "/schema").json
    assert found["properties"].keys() == ROW.keys()
    assert found["required"] == sorted(ROW)
    assert found["properties"]["contract"]["enum"] == ["monthly", "yearly"]
    assert found["$defs"]["answer"]["properties"]["churn"] == {"type": "boolean"}


VALUES: st.SearchStrategy[Any] = st.sampled_from([None, True, 0, 5, 5.5, -3, 1e9, "a", "monthly", "z", "5", [], {}])


@settings(max_examples=150, deadline=None)
@given(
    changed=st.dictionaries(st.sampled_from(sorted(ROW)), VALUES, max_size=2),
    left_out=st.sets(st.sampled_from(sorted(ROW)), max_size=1),
    more=st.dictionaries(st.sampled_from(["something else", "another thing"]), VALUES, max_size=1),
    strict=st.booleans(),
)
def test_a_row_is_taken_if_it_fits_the_schema_and_only_then(
    small: Small, changed: dict[str, Any], left_out: set[str], more: dict[str, Any], strict: bool
) -> None:
    limits = Limits(strict=strict)
    row = {name: value for name, value in {**ROW, **changed, **more}.items() if name not in left_out}
    schema = page.row_schema(small.predictor.contract.fields, limits)
    predictor = Predictor(small.predictor.bundle, small.predictor._runner, limits=limits)
    answered = ServiceDoor(Service(predictor, Guard())).send("POST", "/predict", {}, json.dumps(row).encode())
    assert (answered.status == 200) == jsonschema.Draft202012Validator(schema).is_valid(row), answered


def test_a_lenient_service_says_that_it_takes_more(small: Small) -> None:
    opened = hostile(small)
    schema = page.row_schema(opened.contract.fields, Limits(lenient=True))
    assert "required" not in schema
    jsonschema.Draft202012Validator(schema).validate({"when": None, HOSTILE: "unheard of"})


# ---- OpenAPI -----------------------------------------------------------------------------------------


def validate(document: dict[str, Any]) -> None:
    validator = pytest.importorskip("openapi_spec_validator")
    validator.validate(document, cls=validator.OpenAPIV31SpecValidator)


def described(bundle: Bundle, predictor: Predictor, **more: Any) -> dict[str, Any]:
    asked = Predictor(bundle, predictor._runner)
    found: dict[str, Any] = msgspec.json.decode(
        msgspec.json.encode(openapi.document(Spoken(asked, **{"guarded": True, "rated": True, **more}), operations()))
    )
    return found


@pytest.mark.service
@pytest.mark.parametrize("kind", ANSWERS)
def test_openapi_is_openapi_for_every_kind_of_answer(small: Small, kind: str) -> None:
    bundle = hostile(small, **ANSWERS[kind])
    none = msgspec.structs.replace(bundle.golden, rows=[], labels=[], probabilities=None, scores=None)
    validate(described(msgspec.structs.replace(bundle, golden=none), small.predictor))


def test_a_model_without_fields_is_described_too(small: Small) -> None:
    bundle = hostile(small)
    bare = msgspec.structs.replace(bundle.contract, fields=())
    validate(described(msgspec.structs.replace(bundle, contract=bare), small.predictor))


def test_every_route_has_a_shape_and_is_described(small: Small) -> None:
    found = described(small.predictor.bundle, small.predictor)
    assert {(path, method) for path, item in found["paths"].items() for method in item} == {
        (each.path, each.method.lower()) for each in all_routes() if each.summary
    }
    assert set(SHAPES.values()) == {each.shape for each in operations()}
    names = [operation["operationId"] for item in found["paths"].values() for operation in item.values()]
    assert len(names) == len(set(names))


def test_openapi_describes_the_service(door: Door) -> None:
    document = door.send("GET", "/openapi.json").json
    validate(document)
    assert document["paths"].keys() == {each.path for each in all_routes() if each.summary}
    assert document["servers"] == [{"url": "/models/churn" if door.name == "mounted" else "/"}]
    assert "securitySchemes" not in document["components"]
    asked = document["paths"]["/predict"]["post"]["requestBody"]["content"][JSON]["examples"]
    answered = document["paths"]["/predict"]["post"]["responses"]["200"]["content"][JSON]["examples"]
    for name, example in asked.items():
        found = door.send("POST", "/predict", {}, json.dumps(example["value"]).encode())
        wanted = answered[name]["value"]
        pairs = zip(found.json, wanted, strict=True) if isinstance(wanted, list) else [(found.json, wanted)]
        for one, other in pairs:
            assert one == pytest.approx(other)


@pytest.mark.service
def test_openapi_says_where_a_key_goes(guarded_door: Door) -> None:
    document = guarded_door.send("GET", "/openapi.json", {"x-api-key": KEY}).json
    validate(document)
    scopes = {(each.path, each.method.lower()): each.scope for each in all_routes()}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            scope = scopes[path, method]
            assert operation.get("security", []) == ([{name: [scope]} for name in openapi.SCHEMES] if scope else [])
            assert ("401" in operation["responses"]) == bool(scope)
    assert set(document["components"]["securitySchemes"]) == {"basic", "bearer", "key"}


class Held:
    """A document, and answers held against it."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document

    def resolved(self, found: dict[str, Any]) -> dict[str, Any]:
        if "$ref" not in found:
            return found
        at: Any = self.document
        for part in found["$ref"].removeprefix("#/").split("/"):
            at = at[part]
        resolved: dict[str, Any] = at
        return resolved

    def fits(self, schema: dict[str, Any], value: object) -> None:
        whole = {**schema, "components": self.document["components"]}
        jsonschema.Draft202012Validator(whole).validate(value)

    def holds(self, method: str, path: str, answered: Answered) -> None:
        responses = self.document["paths"][path][method.lower()]["responses"]
        assert str(answered.status) in responses, (answered, sorted(responses))
        told = self.resolved(responses[str(answered.status)])
        for name, header in told["headers"].items():
            known = self.resolved(header)
            assert name.lower() in answered.headers or not known.get("required"), (name, answered)
        assert answered.kind in told["content"], answered
        if answered.kind.endswith("json"):
            self.fits(told["content"][answered.kind]["schema"], answered.json)


def in_path(operation: Mapping[str, Any]) -> Mapping[str, str]:
    """Give a value for each part of a path."""
    found = [each for each in operation.get("parameters", ()) if each["in"] == "path"]
    return {each["name"]: each["schema"]["enum"][0] for each in found}


@pytest.fixture(scope="module")
def held(doors: Doors) -> Held:
    return Held(doors("service").send("GET", "/openapi.json").json)


def test_every_example_of_a_question_is_answered_and_fits(doors: Doors, held: Held) -> None:
    asked = 0
    for path, item in held.document["paths"].items():
        for method, operation in item.items():
            names = {
                each["name"]: each["schema"]["enum"][0]
                for each in operation.get("parameters", ())
                if each["in"] == "path"
            }
            content = operation.get("requestBody", {}).get("content", {}).get(JSON, {})
            for example in content.get("examples", {"": {"value": None}}).values():
                body = b"" if example["value"] is None else json.dumps(example["value"]).encode()
                if body:
                    held.fits(content["schema"], example["value"])
                answered = doors("service").send(method.upper(), path.format(**names), {}, body)
                assert answered.status == 200, answered
                held.holds(method, path, answered)
                asked += 1
    assert asked > 25


def test_every_example_of_an_error_is_a_problem_of_its_status(doors: Doors) -> None:
    rated = Service(doors.predictor, Guard((KEY,)), rates=Rates("1000/s"))
    held = Held(ServiceDoor(rated).send("GET", "/openapi.json", {"x-api-key": KEY}).json)
    for name, response in held.document["components"]["responses"].items():
        content = response["content"][PROBLEM]
        assert content["examples"].keys() == set(name.split(".")) - {"of-model"}
        for code, example in content["examples"].items():
            held.fits(content["schema"], example["value"])
            assert example["value"]["code"] == code
            assert example["value"]["hint"]
    assert {"rate-limited.of-model", "method-not-allowed"} <= held.document["components"]["responses"].keys()


NAMED = st.sampled_from([*ROW, "instances", "inputs", "dataframe_split", "data", "columns"])
KINDS = (JSON, "text/csv", "application/vnd.apache.parquet", "application/jsonlines", "image/png", "")
BODIES = st.one_of(
    st.binary(max_size=60),
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=5)),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.dictionaries(
                st.sampled_from([*ROW, "instances", "inputs", "dataframe_split", "data", "columns"]), inner
            ),
        ),
        max_leaves=8,
    ).map(lambda found: json.dumps(found).encode()),
)
POSTED = sorted(each.path for each in all_routes() if each.method == "POST" and each.summary)


@settings(max_examples=150, deadline=None)
@given(
    path=st.sampled_from(POSTED),
    body=BODIES,
    kind=st.sampled_from(
        [JSON, "text/csv", "application/vnd.apache.parquet", "application/jsonlines", "image/png", ""]
    ),
    accept=st.sampled_from(["", JSON, "text/csv", "image/png", "*/*"]),
)
def test_whatever_is_posted_the_answer_is_one_that_openapi_names(
    doors: Doors, held: Held, path: str, body: bytes, kind: str, accept: str
) -> None:
    named = {"name": "churn", "version": doors.predictor.bundle.sha256}
    headers = {"content-type": kind or None, "accept": accept or None}
    held.holds("POST", path, doors("service").send("POST", path.format(**named), headers, body))


READS, OFTEN = "only-reads-0123456789abcdef", "asks-too-often-0123456789abcdef"
ONE: bytes = json.dumps(ROW).encode()
PROVOKED: list[tuple[int, str, str, dict[str, str | None], bytes]] = [
    (400, "POST", "/predict", {}, b"{"),
    (401, "POST", "/predict", {"x-api-key": None}, ONE),
    (403, "POST", "/predict", {"x-api-key": READS}, ONE),
    (406, "POST", "/predict", {"accept": "image/png"}, ONE),
    (413, "POST", "/predict", {}, b"[" + b",".join([b"{}"] * 10_001) + b"]"),
    (415, "POST", "/predict", {"content-type": "image/png"}, ONE),
    (422, "POST", "/predict", {}, b"{}"),
    (429, "POST", "/predict", {"x-api-key": OFTEN}, ONE),
    (400, "POST", "/explain?target=nothing", {}, ONE),
    (406, "POST", "/explain", {"accept": "text/csv"}, ONE),
    (413, "POST", "/explain", {}, b"[" + b",".join([ONE] * 101) + b"]"),
    (401, "GET", "/schema", {"x-api-key": None}, b""),
    (403, "GET", "/metrics", {}, b""),
    (404, "POST", "/v2/models/{name}/infer", {}, b"{"),
    (400, "POST", "/v2/models/churn/infer", {}, b"{"),
    (404, "GET", "/v2/models/{name}", {}, b""),
    (404, "GET", "/v2/models/{name}/versions/{version}", {}, b""),
    (415, "POST", "/invocations", {"content-type": "image/png"}, ONE),
    (406, "POST", "/score", {"accept": "text/csv"}, ONE),
]


@pytest.fixture(scope="module")
def provoked(doors: Doors) -> WsgiDoor:
    """A service with keys and rates."""
    read = CallingKey("reader", digest_of(READS), frozenset({"read"}))
    service = Service(doors.predictor, Guard((KEY, OFTEN, line_of(read))), rates=Rates("50/h"))
    door = WsgiDoor(app_of(service))
    while door.send("GET", "/schema", {"x-api-key": OFTEN}).status == 200:
        pass
    return door


@pytest.mark.parametrize(("status", "method", "path", "headers", "body"), PROVOKED)
def test_what_openapi_names_does_occur(
    provoked: WsgiDoor, status: int, method: str, path: str, headers: dict[str, str | None], body: bytes
) -> None:
    """Except 408, 431 and 504, and 503 of a server as a whole: those are the front's, see test_front."""
    answered = provoked.send(method, path.format(name="nothing", version="1"), {"x-api-key": KEY, **headers}, body)
    assert answered.status == status, answered
    document = provoked.send("GET", "/openapi.json", {"x-api-key": KEY}).json
    Held(document).holds(method, path.partition("?")[0].replace("churn", "{name}"), answered)
    problem(answered)


def test_a_service_that_is_full_says_so_as_described(doors: Doors, held: Held) -> None:
    door = ServiceDoor(Service(doors.predictor, Guard(), queue=0))
    for path in ("/predict", "/explain", "/score"):
        body = ONE if path != "/score" else json.dumps({"data": [list(ROW.values())]}).encode()
        answered = door.send("POST", path, {}, body)
        assert answered.status == 503
        assert answered.headers["retry-after"]
        held.holds("POST", path, answered)


def test_a_refusal_of_the_server_itself_is_described_too(doors: Doors, held: Held) -> None:
    door: Any = doors("front")
    for sent in (b"GET /schema HTTP/1.1\r\nX-Long: " + b"x" * 70_000, b"GET /schema HTTP/x\r\n\r\n"):
        with Wire(door.port) as wire:
            wire.send(sent)
            answered = wire.answer()
            assert answered.status in {400, 431}
            held.holds("GET", "/schema", answered)


def test_each_of_several_models_has_a_document_of_its_own(small: Small) -> None:
    manifest = msgspec.structs.replace(small.predictor.bundle.manifest, name="other")
    other = Predictor(msgspec.structs.replace(small.predictor.bundle, manifest=manifest), small.predictor._runner)
    lines = {each.name: Line(each.name, {"champion": each}) for each in (small.predictor, other)}
    door = ServiceDoor(Service(Lineup(lines), Guard()))
    whole, own = door.send("GET", "/openapi.json").json, door.send("GET", "/models/other/openapi.json").json
    validate(whole)
    validate(own)
    assert whole["x-models"] == [{"name": "other", "openapi": "/models/other/openapi.json"}]
    assert "](/models/other/openapi.json)" in whole["info"]["description"]
    assert (own["info"]["title"], own["servers"]) == ("other", [{"url": "/models/other"}])
    for path, item in own["paths"].items():
        for method, operation in item.items():
            if method == "servers":
                continue
            names = {
                each["name"]: each["schema"]["enum"][0]
                for each in operation.get("parameters", ())
                if each["in"] == "path"
            }
            base = item.get("servers", own["servers"])[0]["url"].rstrip("/")
            if method == "get":
                assert door.send("GET", base + path.format(**names)).status == 200
            assert names.get("name", "other") == "other"
    assert "/models/other/predict" in door.send("GET", "/models/other/").body.decode()


def test_every_refusal_fits_the_problem_that_openapi_promises(door: Door) -> None:
    held = Held(door.send("GET", "/openapi.json").json)
    for body in (b"{", b"{}", b"[]"):
        held.holds("POST", "/predict", door.send("POST", "/predict", {}, body))
