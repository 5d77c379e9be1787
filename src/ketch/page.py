"""From the contract to what people and programs read: example rows, snippets, OpenAPI, the landing page."""

import functools
import importlib.resources
import json
import shlex
from collections.abc import Mapping
from typing import Any, Final

from ketch import errors
from ketch.bundle import Bundle
from ketch.errors import KetchError
from ketch.schema import Answer, Contract, Field, json_schema

PROBLEM: Final = "application/problem+json"
REFUSALS: Final = {  # what POST /predict may answer besides 200
    400: "The body cannot be read as its content type says",
    401: "No key, or not a known one",
    403: "The Host header, or the key, is not one this service answers to",
    406: "No answer can be written as asked",
    413: "The body has too many bytes or rows",
    415: "The content type is not one this service reads",
    422: "A row breaks the contract, or has no finite answer",
}


def example_row(contract: Contract) -> dict[str, object]:
    """Give one plausible row: the example of every field that has one."""
    return {each.name: each.example for each in contract.fields if each.example is not None}


def curl_line(contract: Contract, url: str, *, key: bool = False) -> str:
    """Write the line that asks the service, ready to paste into a shell."""
    row = json.dumps(example_row(contract), ensure_ascii=False, separators=(",", ":"))
    header = ' -H "Authorization: Bearer $KETCH_API_KEY"' if key else ""
    return f"curl {shlex.quote(url + '/predict')} -H 'Content-Type: application/json'{header} -d {shlex.quote(row)}"


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


def openapi(bundle: Bundle, *, guarded: bool, routes: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """Describe the service as OpenAPI 3.1; `routes` gives each path's methods and what they do."""
    contract = bundle.contract
    paths = {
        path: {method.lower(): _operation(path, summary, guarded) for method, summary in methods.items()}
        for path, methods in routes.items()
    }
    paths["/predict"]["post"] |= _predict_operation(contract)
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": bundle.manifest.name,
            "version": bundle.sha256[:12],
            "description": f"Answers {contract.answer.target} from {len(contract.fields)} fields.",
        },
        "paths": paths,
        "components": {
            "schemas": {
                "Row": json_schema(contract.fields) | {"additionalProperties": True},
                "Answer": answer_schema(contract.answer),
                "Problem": _PROBLEM_SCHEMA,
            }
        },
    }
    if guarded:
        document["components"]["securitySchemes"] = {
            "basic": {"type": "http", "scheme": "basic", "description": "The key is the password; any user name."},
            "bearer": {"type": "http", "scheme": "bearer"},
            "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        }
    return document


def _operation(path: str, summary: str, guarded: bool) -> dict[str, Any]:
    found: dict[str, Any] = {
        "summary": summary,
        "operationId": "home" if path == "/" else path.strip("/").replace("/", "_").replace(".", "_"),
        "responses": {"200": {"description": "As it says"}},
    }
    if path == "/health/ready":
        problem = {"schema": {"$ref": "#/components/schemas/Problem"}}
        found["responses"]["503"] = {"description": "Not now", "content": {PROBLEM: problem}}
    if guarded and not path.startswith("/health/"):
        found["security"] = [{"bearer": []}, {"key": []}, {"basic": []}]
    return found


def _predict_operation(contract: Contract) -> dict[str, Any]:
    row, answer = {"$ref": "#/components/schemas/Row"}, {"$ref": "#/components/schemas/Answer"}
    example = example_row(contract)
    responses: dict[str, Any] = {
        "200": {
            "description": "One answer for an object, a list of answers for a list",
            "headers": {
                "Ketch-Model": {"schema": {"type": "string"}, "description": "The model that answered"},
                "Ketch-Flags": {"schema": {"type": "string"}, "description": "What was unusual, if anything"},
                "X-Request-ID": {"schema": {"type": "string"}},
            },
            "content": {
                "application/json": {"schema": {"oneOf": [answer, {"type": "array", "items": answer}]}},
                "text/csv": {"schema": {"type": "string"}},
            },
        }
    }
    for status, reason in REFUSALS.items():
        responses[str(status)] = {
            "description": reason,
            "content": {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
    return {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {"oneOf": [row, {"type": "array", "items": row, "minItems": 1}]},
                    "examples": {
                        "one row": {"value": example},
                        "two rows": {"value": [example, example]},
                    },
                },
                "text/csv": {"schema": {"type": "string"}},
            },
        },
        "responses": responses,
    }


def _codes() -> list[str]:
    found = (each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, KetchError))
    return sorted({each.code for each in found})


_PROBLEM_SCHEMA: Final = {
    "type": "object",
    "description": "RFC 9457 problem details",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string"},
        "code": {"enum": _codes()},
        "hint": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "row": {"type": "integer"},
                    "field": {"type": "string"},
                    "code": {"type": "string"},
                    "expected": {"type": "string"},
                    "allowed": {"type": "array"},
                    "nearest": {},
                },
            },
        },
    },
    "required": ["type", "title", "status", "detail", "instance", "code", "hint"],
}


def describe(each: Field) -> str:
    """Say in a few words what may stand in a field."""
    if each.type == "category":
        shown = ", ".join(str(value) for value in each.categories[:6])
        return shown + (f", … ({len(each.categories)} in all)" if len(each.categories) > 6 else "")
    span = ""
    if each.minimum is not None and each.maximum is not None:
        span = f"{each.minimum:g} … {each.maximum:g}"
    return " ".join(part for part in (span, each.unit) if part)


def landing(bundle: Bundle, *, url: str, guarded: bool) -> str:
    """Write the page at GET /: what this model is, its fields, a line to paste, links."""
    answer = bundle.contract.answer
    return _render(
        "page.html",
        name=bundle.manifest.name,
        answer=answer,
        positive="true" if set(answer.classes) == {0, 1} else answer.positive,
        origin=bundle.manifest.origin.get("estimator", ""),
        fields=[(each, describe(each)) for each in bundle.contract.fields],
        curl=curl_line(bundle.contract, url, key=guarded),
        sha256=bundle.sha256,
        versions=bundle.manifest.versions,
    )


def docs(name: str) -> str:
    """Write the page at GET /docs: Swagger UI over /openapi.json, from this server alone."""
    return _render("docs.html", name=name)


def _render(template: str, **values: Any) -> str:
    made: str = _template(template).render(**values)
    return made


@functools.cache
def _template(name: str) -> Any:
    import jinja2

    text = importlib.resources.files("ketch").joinpath(name).read_text("utf-8")
    return jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(text)
