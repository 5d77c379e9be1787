"""From the contract to what people and programs read of a service: rows to try, snippets, and the shapes of the wire.

contract --*row_schema*, *answer_schema*--> JSON Schema       golden rows --*examples*--> rows with their answers
"""

import json
import pprint
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from ketch import codec
from ketch.adapters import Raw
from ketch.bundle import Bundle
from ketch.errors import KetchError, NotAnswerable, RowsRefused
from ketch.predict import Limits, Predictor, refusal
from ketch.schema import Answer, Columns, Contract, Field, json_schema
from ketch.schema.checks import Checker

PROBLEM: Final = "application/problem+json"

# ---- rows to try -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Example:
    """A row that keeps the contract, and what the model answers to it."""

    row: Mapping[str, object]
    answer: Mapping[str, object]


def example_row(contract: Contract) -> dict[str, object]:
    """Give one plausible row: the example of every field that has one."""
    return {each.name: each.example for each in contract.fields if each.example is not None}


def examples(bundle: Bundle, most: int = 100) -> list[Example]:
    """Give golden rows that a caller may send, nothing about them being unusual, with their answers."""
    return answered(bundle, Checker(bundle.contract.fields, strict=True))[:most]


def answered(bundle: Bundle, checker: Checker) -> list[Example]:
    """Give the golden rows that a check lets pass, as a caller sends them, with their answers.

    None at all where the model has no finite answer to one of them.
    """
    golden, contract = bundle.golden, bundle.contract
    scores: Any = golden.scores
    try:
        answers = Predictor(bundle, _nobody).answer(Raw(golden.labels, golden.probabilities, scores), single=False)
    except NotAnswerable:
        return []
    found = []
    for row, values in zip(golden.rows, zip(*answers.columns.values(), strict=True), strict=True):
        sent = {each.name: row[each.name] for each in contract.fields if row.get(each.name) is not None}
        if not checker({name: [value] for name, value in sent.items()}, 1).faults:
            found.append(Example(sent, dict(zip(answers.columns, values, strict=True))))
    return found


def _nobody(columns: Columns, n: int) -> Raw:
    raise NotAnswerable("Only golden answers are at hand", hint="Ask the service.")


def broken(contract: Contract) -> tuple[object, RowsRefused]:
    """Give a body that breaks the contract, and what is said of it: something required is missing, or is no value."""
    row, checker = example_row(contract), Checker(contract.fields)
    if not contract.fields:
        fault: dict[str, object] = {"row": 0, "code": "wrong-type", "expected": "a row"}
        return [], RowsRefused("The body is an empty list", hint="Send one row or more.", errors=[fault])
    required = [each.name for each in contract.fields if each.required]
    if required:
        row.pop(required[0], None)
    else:
        row[contract.fields[0].name] = {"no": "value"}
    table = codec.Table({name: [value] for name, value in row.items()}, 1, single=True)
    return row, refusal(checker(table.columns, 1).faults, table)


# ---- snippets ----------------------------------------------------------------------------------------


def curl_line(contract: Contract, url: str, *, key: bool = False) -> str:
    """Write the line that asks the service, ready to paste into a shell."""
    row = spelled(example_row(contract), separators=(",", ":"))
    header = ' -H "Authorization: Bearer $KETCH_API_KEY"' if key else ""
    return f"curl {shlex.quote(url + '/predict')} -H 'Content-Type: application/json'{header} -d {shlex.quote(row)}"


def requests_lines(contract: Contract, url: str, *, key: bool = False) -> str:
    """Write the same for Python with requests."""
    headers = ', headers={"Authorization": f"Bearer {os.environ[\'KETCH_API_KEY\']}"}' if key else ""
    return "\n".join(
        [
            *(["import os", ""] if key else []),
            "import requests",
            "",
            f"row = {_python(contract)}",
            f"answer = requests.post({url + '/predict'!r}, json=row{headers}, timeout=30)",
            "answer.raise_for_status()  # 422: a row was refused; answer.json() says why",
            "print(answer.json())",
            "",
        ]
    )


def client_lines(contract: Contract, url: str, *, key: bool = False) -> str:
    """Write the same for Python with Ketch's own client."""
    told = "  # with the key in KETCH_API_KEY" if key else ""
    return "\n".join(
        [
            "import ketch",
            "",
            f"row = {_python(contract)}",
            f"with ketch.Client({url!r}) as client:{told}",
            "    print(client.predict(row))",
            "",
        ]
    )


def javascript_lines(contract: Contract, url: str, *, key: bool = False) -> str:
    """Write the same for JavaScript: a module, for Node 18 and later; without a key for a browser too."""
    sent = ["'Content-Type': 'application/json'", *(["Authorization: `Bearer ${process.env.KETCH_API_KEY}`"] * key)]
    return "\n".join(
        [
            f"const row = {spelled(example_row(contract), indent=2)};",
            f"const answer = await fetch({spelled(url + '/predict')}, {{",
            "  method: 'POST',",
            f"  headers: {{ {', '.join(sent)} }},",
            "  body: JSON.stringify(row),",
            "});",
            "const found = await answer.json();",
            "if (!answer.ok) throw new Error(`${found.detail}. ${found.hint}`);",
            "console.log(JSON.stringify(found));",
            "",
        ]
    )


def spelled(value: object, **form: Any) -> str:
    """Write JSON in which nothing moves a terminal's cursor or hides letters from who pastes it."""
    text = json.dumps(value, ensure_ascii=False, **form)
    return "".join(each if each.isprintable() or each == "\n" else json.dumps(each)[1:-1] for each in text)


def _python(contract: Contract) -> str:
    return pprint.pformat(example_row(contract), width=88, sort_dicts=False)


SNIPPETS: Final = {  # name -> language, and what writes it
    "curl": ("curl", curl_line),
    "python": ("Python, requests", requests_lines),
    "client": ("Python, ketch", client_lines),
    "javascript": ("JavaScript", javascript_lines),
}


# ---- a service and its routes, for OpenAPI -----------------------------------------------------------

Schema = dict[str, Any]
Kinds = tuple[type[KetchError], ...]


@dataclass(frozen=True)
class Spoken:
    """What of a running service stands in its document: one model of it, its versions, and its manners.

    `others` are the names of all models where there are several; `root` and `base` are the paths of the service and of
    this model's own routes.
    """

    predictor: Predictor
    versions: Sequence[str] = ()
    others: Sequence[str] = ()
    guarded: bool = False
    rated: bool = False
    root: str = ""
    base: str = ""

    @property
    def contract(self) -> Contract:
        """Give the contract."""
        return self.predictor.contract


@dataclass(frozen=True)
class Shape:
    """What a route takes and gives by content type, and how it may fail besides what any request may meet."""

    takes: Mapping[str, Schema] = field(default_factory=dict)
    gives: Mapping[str, Schema] = field(default_factory=dict)
    fails: Kinds = ()
    told: str = ""
    needs_body: bool = True
    flags: bool = False
    asked: Sequence[Schema] = ()


# ---- shapes ------------------------------------------------------------------------------------------


def describe(each: Field) -> str:
    """Say in a few words what may stand in a field."""
    if each.type == "category":
        shown = ", ".join(str(value) for value in each.categories[:6])
        return shown + (f", … ({len(each.categories)} in all)" if len(each.categories) > 6 else "")
    span = ""
    if each.minimum is not None and each.maximum is not None:
        span = f"{each.minimum:g} … {each.maximum:g}"
    return " ".join(part for part in (span, each.unit) if part)


def row_schema(fields: Sequence[Field], limits: Limits) -> dict[str, Any]:
    """Give the shape of one row as a service with these limits takes it, as JSON Schema."""
    found: dict[str, Any] = {**json_schema(fields), "additionalProperties": not limits.strict}
    for each in fields:
        shape = found["properties"][each.name]
        if limits.lenient:
            _loosen(shape)
        if limits.strict:
            _tighten(shape, each)
    if limits.lenient:
        del found["required"]
    return found


def _loosen(shape: dict[str, Any]) -> None:
    kinds = shape["type"] if isinstance(shape["type"], list) else [shape["type"]]
    shape["type"] = list(dict.fromkeys([*kinds, "null"]))
    if "enum" in shape:
        shape["examples"] = [value for value in shape.pop("enum") if value is not None]


def _tighten(shape: dict[str, Any], each: Field) -> None:
    if each.minimum is not None:
        shape["minimum"] = each.minimum
    if each.maximum is not None:
        shape["maximum"] = each.maximum
    if each.type == "category":
        shape["enum"] = [*each.categories, *([] if each.required else [None])]


def whole(answer: Answer) -> dict[str, Any]:
    """Give an answer with what it leaves out where that is the default."""
    return msgspec.structs.asdict(answer) | {"parts": [whole(each) for each in answer.parts]}


def answer_schema(answer: Answer) -> dict[str, object]:
    """Give the shape of one answer as JSON Schema."""
    if answer.parts:
        shapes: list[Any] = [answer_schema(part) for part in answer.parts]
        properties = {name: kind for shape in shapes for name, kind in shape["properties"].items()}
        return {"type": "object", "properties": properties, "required": [shape["required"][0] for shape in shapes]}
    label = _label_schema(answer)
    name = {"outlier": "outlier", "cluster": "cluster"}.get(answer.task, answer.target)
    properties = {name: label}
    if answer.task == "outlier":
        properties["outlier_score"] = {"type": "number", "description": "Higher is stranger; above 0 is an outlier."}
    elif answer.task == "binary" and answer.values != "none":
        bounds = {"minimum": 0, "maximum": 1} if answer.values == "probability" else {}
        told = f"The {answer.values} of {answer.target} being {answer.positive}."
        properties[f"{name}_{answer.values}"] = {"type": "number", **bounds, "description": told}
    elif answer.task == "multiclass" and answer.values != "none":
        each = {str(value): {"type": "number"} for value in answer.classes}
        plural = "probabilities" if answer.values == "probability" else "scores"
        properties[f"{name}_{plural}"] = {"type": "object", "properties": each}
    return {"type": "object", "properties": properties, "required": [name]}


def _label_schema(answer: Answer) -> dict[str, object]:
    if answer.task == "outlier" or (answer.task == "binary" and set(answer.classes) == {0, 1}):
        return {"type": "boolean"}
    if answer.task == "regression":
        return {"type": "number"}
    if answer.task == "cluster":
        return {"type": "integer"}
    return {"enum": list(answer.classes)}
