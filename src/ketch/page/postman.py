"""A Postman collection that asks every main route and holds the answers against the golden ones; newman runs it.

contract + golden rows --*collection*--> Postman collection, format 2.1
"""

import json
from collections.abc import Mapping, Sequence
from typing import Final

from ketch.bundle import Bundle
from ketch.codec import CSV, JSON, encode, tensors
from ketch.page import Example, broken, example_row, examples
from ketch.page import Schema as Item

SCHEMA: Final = "https://schema.getpostman.com/json/collection/v2.1.0/collection.json"
MOST_ROWS: Final = 20
# An expected number may differ by the tolerance that the bundle itself allows; everything else is the same.
SAME: Final = """\
const same = (found, wanted) => {
    if (typeof wanted === "number") {
        const most = %s * Math.max(1, Math.abs(wanted));
        pm.expect(Math.abs(found - wanted), `${found} for ${wanted}`).to.be.at.most(most);
    } else if (wanted !== null && typeof wanted === "object") {
        pm.expect(Object.keys(found)).to.have.members(Object.keys(wanted));
        Object.keys(wanted).forEach((key) => same(found[key], wanted[key]));
    } else {
        pm.expect(found).to.equal(wanted);
    }
};
"""


def collection(bundle: Bundle, url: str) -> Item:
    """Make the collection of a model that is served at a URL; the key is the variable `apiKey`."""
    name, shown = bundle.manifest.name, examples(bundle, MOST_ROWS)
    folders = {
        "Answers": _answers(bundle, shown),
        "Refusals": _refusals(bundle),
        "Model": [
            _item("What it is", "GET", "", _is("text/html")),
            _item("Schema", "GET", "schema", _has("title", name)),
            _item("OpenAPI", "GET", "openapi.json", _has("openapi", "3.1.0")),
            _item("Try it", "GET", "docs", _is("text/html")),
        ],
        "Health": [
            _item("Live", "GET", "health/live", _has("status", "live"), root=True),
            _item("Ready", "GET", "health/ready", _has("status", "ready"), root=True),
        ],
        "Other protocols": _protocols(bundle, shown),
    }
    return {
        "info": {
            "name": name,
            "description": f"Asks {name} and holds the answers against its golden ones. sha256={bundle.sha256}",
            "schema": SCHEMA,
        },
        "auth": {"type": "bearer", "bearer": [{"key": "token", "value": "{{apiKey}}", "type": "string"}]},
        "variable": [
            {"key": "baseUrl", "value": _root(url), "type": "string"},
            {"key": "modelUrl", "value": url.rstrip("/"), "type": "string"},
            {"key": "apiKey", "value": "", "type": "string"},
        ],
        "item": [{"name": folder, "item": items} for folder, items in folders.items()],
    }


def _root(url: str) -> str:
    """Give the service's own URL, where a model's below /models/NAME was given."""
    before, found, name = url.rstrip("/").rpartition("/models/")
    return before if found and "/" not in name else url.rstrip("/")


def _answers(bundle: Bundle, shown: Sequence[Example]) -> list[Item]:
    if not shown:
        return [_item("One row", "POST", "predict", _status(200), body=example_row(bundle.contract))]
    rows, answers = [each.row for each in shown], [each.answer for each in shown]
    targets = bundle.contract.answer.parts
    asked = f"explain?target={targets[0].target}" if targets else "explain"
    flat = encode({name: [each[name] for each in answers] for name in answers[0]}, len(shown), single=False, accept=CSV)
    table = encode(
        {each.name: [row.get(each.name) for row in rows] for each in bundle.contract.fields},
        len(rows),
        single=False,
        accept=CSV,
    )
    vectors = any(each.type == "vector" for each in bundle.contract.fields)
    items = [
        _item("One row", "POST", "predict", _answer(bundle, answers[0]), body=rows[0]),
        _item("Many rows", "POST", "predict", _answer(bundle, answers), body=rows),
        _item("With reasons", "POST", asked, _reasons(bundle, answers[0]), body=rows[0]),
    ]
    if not vectors:
        header = flat.decode().partition("\n")[0]
        items.append(_item("A CSV", "POST", "predict", _table(header, len(rows)), body=table.decode(), kind=CSV))
    return items


def _refusals(bundle: Bundle) -> list[Item]:
    row, refused = broken(bundle.contract)
    fault = refused.errors[0]
    told = [
        *_status(422),
        "const problem = pm.response.json();",
        'pm.test("says what is wrong", () => {',
        '    pm.expect(problem.code).to.equal("rows-refused");',
        f"    pm.expect(problem.errors[0].field ?? null).to.equal({_js(fault.get('field'))});",
        f"    pm.expect(problem.errors[0].code).to.equal({_js(fault['code'])});",
        "});",
    ]
    return [
        _item("A broken row", "POST", "predict", told, body=row),
        _item("No JSON", "POST", "predict", [*_status(400), *_code("undecodable-body")], body="{"),
        _item(
            "A form",
            "POST",
            "predict",
            [*_status(415), *_code("unsupported-media-type")],
            body="a=1",
            kind="application/x-www-form-urlencoded",
        ),
        _item("Nothing is there", "GET", "no-such-route", [*_status(404), *_code("no-such-route")]),
        _item("Not this way", "DELETE", "predict", [*_status(405), *_code("method-not-allowed")]),
    ]


def _protocols(bundle: Bundle, shown: Sequence[Example]) -> list[Item]:
    name = bundle.manifest.name
    described = [
        _item("Open Inference: server", "GET", "v2", _has("name", "ketch"), root=True),
        _item("Open Inference: model", "GET", f"v2/models/{name}", _has("name", name), root=True),
        _item("Open Inference: ready", "GET", f"v2/models/{name}/ready", _has("ready", True), root=True),
        _item("SageMaker: ping", "GET", "ping", _status(200), root=True),
        _item("MLflow: version", "GET", "version", _status(200), root=True),
    ]
    if not shown:
        return described
    row, answer = shown[0].row, shown[0].answer
    wanted = _answer(bundle, {"predictions": [answer]})
    split = {"columns": [*row], "data": [[*row.values()]]}
    return [
        *described,
        _item(
            "Open Inference: infer",
            "POST",
            f"v2/models/{name}/infer",
            _inferred(name),
            body=_tensors(bundle, row),
            root=True,
        ),
        _item("MLflow: records", "POST", "invocations", wanted, body={"dataframe_records": [row]}),
        _item("MLflow: split", "POST", "invocations", wanted, body={"dataframe_split": split}),
        _item("Azure ML", "POST", "score", _answer(bundle, [answer]), body={"input_data": split}),
    ]


def _tensors(bundle: Bundle, row: Mapping[str, object]) -> Item:
    inputs = []
    for form in tensors.inputs_of(bundle.contract.fields):
        if form.name in row:
            found = row[form.name]
            data = found if isinstance(found, list) else [found]
            inputs.append({"name": form.name, "datatype": form.datatype, "shape": [1, len(data)], "data": data})
    return {"inputs": inputs}


# ---- one request, and what is tested of its answer ---------------------------------------------------


def _item(
    name: str,
    method: str,
    path: str,
    tests: Sequence[str],
    *,
    body: object = None,
    kind: str = JSON,
    root: bool = False,
) -> Item:
    bare, _, query = path.partition("?")
    base = "{{baseUrl}}" if root else "{{modelUrl}}"
    url: Item = {"raw": f"{base}/{path}", "host": [base], "path": bare.split("/")}
    if query:
        url["query"] = [{"key": key, "value": value} for key, _, value in [query.partition("=")]]
    asked: Item = {"method": method, "header": [], "url": url}
    if body is not None:
        asked["header"] = [{"key": "Content-Type", "value": kind}]
        raw = body if isinstance(body, str) else json.dumps(body, ensure_ascii=False, indent=2)
        asked["body"] = {"mode": "raw", "raw": raw}
    return {
        "name": name,
        "request": asked,
        "event": [{"listen": "test", "script": {"type": "text/javascript", "exec": [*tests]}}],
    }


def _js(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _status(status: int) -> list[str]:
    return [f'pm.test("status {status}", () => pm.response.to.have.status({status}));']


def _code(code: str) -> list[str]:
    return [f'pm.test("code {code}", () => pm.expect(pm.response.json().code).to.equal("{code}"));']


def _is(kind: str) -> list[str]:
    told = f'pm.test("{kind}", () => pm.expect(pm.response.headers.get("Content-Type")).to.include("{kind}"));'
    return [*_status(200), told]


def _has(member: str, value: object) -> list[str]:
    told = f"pm.expect(pm.response.json()[{_js(member)}]).to.equal({_js(value)})"
    return [*_status(200), f'pm.test("says so", () => {told});']


def _answer(bundle: Bundle, wanted: object) -> list[str]:
    return [
        *_status(200),
        *(SAME % bundle.manifest.tolerance).splitlines(),
        f"const wanted = {_js(wanted)};",
        'pm.test("answers as when it was packed", () => same(pm.response.json(), wanted));',
    ]


def _reasons(bundle: Bundle, wanted: Mapping[str, object]) -> list[str]:
    return [
        *(SAME % bundle.manifest.tolerance).splitlines(),
        f"const wanted = {_js(wanted)};",
        "if (pm.response.code === 501) {",
        "    " + _code("not-installed")[0],
        "} else {",
        "    const { explanation, ...answer } = pm.response.json();",
        '    pm.test("answers as when it was packed", () => same(answer, wanted));',
        '    pm.test("adds up", () => {',
        "        const found = Object.values(explanation.contributions);",
        "        const all = found.reduce((sum, each) => sum + each, explanation.base);",
        "        pm.expect(all).to.be.closeTo(explanation.score, 1e-6 * Math.max(1, Math.abs(explanation.score)));",
        "    });",
        "}",
    ]


def _table(header: str, rows: int) -> list[str]:
    return [
        *_is(CSV),
        "const lines = pm.response.text().trim().split(/\\r?\\n/);",
        f'pm.test("one line for each row", () => pm.expect(lines.length).to.equal({rows + 1}));',
        f'pm.test("names the answers", () => pm.expect(lines[0]).to.equal({_js(header)}));',
    ]


def _inferred(name: str) -> list[str]:
    return [
        *_has("model_name", name),
        'pm.test("has outputs", () => pm.expect(pm.response.json().outputs).to.be.an("array").that.is.not.empty);',
    ]
