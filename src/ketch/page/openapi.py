"""A service as OpenAPI 3.1: what its routes say of themselves, and what the contract says of everything sent.

routes + contract + errors --*document*--> OpenAPI

An operation is put together from parts: a `Shape` for what is sent and answered, found by the route's handler; the
errors that this brings with it; and those that any request may meet.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ketch import errors
from ketch.codec import JSON
from ketch.errors import (
    BodyTooLarge,
    Busy,
    Forbidden,
    HeadersTooLarge,
    HostNotAllowed,
    InputError,
    KetchError,
    MethodNotAllowed,
    NoSuchModel,
    NotAcceptable,
    NotAnswerable,
    NotInstalled,
    NotReady,
    RequestError,
    RowsRefused,
    SlowRequest,
    TooManyRequests,
    TooManyRows,
    Unauthorized,
    UndecodableBody,
    UnsupportedMediaType,
)
from ketch.page import PROBLEM, Kinds, Schema, Shape, Spoken, answer_schema, broken, row_schema
from ketch.schema import Contract

TAGS: Final = {  # module of a route -> what its routes are together
    "predictions": ("Answers", "Rows in, answers out."),
    "pages": ("Model", "What the model is and how it is asked."),
    "health": ("Health", "Whether the service is up, and what it has counted."),
    "openinference": ("Open Inference Protocol", "Version 2 over HTTP, for Triton's and KServe's clients."),
    "platforms": ("Platforms", "What MLflow, SageMaker and Azure ML send."),
}
ANYWHERE: Final[Kinds] = (RequestError, HostNotAllowed, SlowRequest, HeadersTooLarge, Busy)
KEYED: Final[Kinds] = (Unauthorized, Forbidden, NotReady)
HEADERS: Final[Mapping[str, Schema]] = {
    "Allow": {"description": "The methods that the path takes", "required": True},
    "Ketch-Flags": {"description": "What was unusual: `code;field=name`, each once; not there when nothing was"},
    "Ketch-Model": {"description": "The model that answers: its reference and the SHA-256 of its bundle"},
    "Retry-After": {"description": "Seconds after which asking again may help", "schema": {"type": "integer"}},
    "WWW-Authenticate": {"description": "How a key may be sent", "required": True},
    "X-Request-ID": {"description": "The one that was sent, else a new one", "required": True},
}
SCHEMES: Final = {
    "basic": {"type": "http", "scheme": "basic", "description": "The key is the password; any user name."},
    "bearer": {"type": "http", "scheme": "bearer", "description": "The key, or a token of an issuer trusted here."},
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The key."},
}
SCOPES: Final = {
    "predict": "to be answered",
    "explain": "to be told why",
    "read": "to read of the model",
    "metrics": "to read what was counted",
}


@dataclass(frozen=True)
class Operation:
    """One route: the module where it stands, and the shape of what it takes and gives."""

    path: str
    method: str
    summary: str
    scope: str
    module: str
    shape: Callable[[Spoken], Shape]
    of_model: bool = False


def document(spoken: Spoken, operations: Sequence[Operation]) -> dict[str, Any]:
    """Describe a service."""
    bundle, contract = spoken.predictor.bundle, spoken.contract
    described = list(operations)
    if spoken.base != spoken.root:  # one of several models: its own routes, and those that carry its name
        described = [each for each in described if each.of_model or "{name}" in each.path]
    answers: dict[str, Schema] = {}
    paths: dict[str, Schema] = {}
    for each in described:
        item = paths.setdefault(each.path, {})
        item[each.method.lower()] = _operation(spoken, each, answers)
        if spoken.base != spoken.root and not each.of_model:
            item["servers"] = [{"url": spoken.root or "/"}]
    found: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": _info(spoken),
        "servers": [{"url": spoken.base or "/"}],
        "tags": [
            {"name": name, "description": told}
            for module, (name, told) in TAGS.items()
            if any(each.module == module for each in described)
        ],
        "paths": paths,
        "components": {
            "schemas": {
                "Row": row_schema(contract.fields, spoken.predictor.limits),
                "Answer": answer_schema(contract.answer),
                "Problem": PROBLEM_SCHEMA,
            },
            "headers": {name: {"schema": {"type": "string"}, **told} for name, told in HEADERS.items()},
            "responses": {**answers, **_failures(spoken, [MethodNotAllowed])[1]},
        },
    }
    if spoken.guarded:
        found["components"]["securitySchemes"] = SCHEMES
    if spoken.others:
        found["x-models"] = [{"name": name, "openapi": _openapi_of(spoken, name)} for name in spoken.others]
    found["x-sha256"] = bundle.sha256
    return found


def _info(spoken: Spoken) -> Schema:
    contract, bundle = spoken.contract, spoken.predictor.bundle
    told = [f"Answers {contract.answer.target} from {len(contract.fields)} fields."]
    told.append("Every refusal is `application/problem+json` (RFC 9457); another method than those named gets 405.")
    if spoken.others:
        told.append("Other models of this service, each with a description of its own:\n")
        told += [f"- [{name}]({_openapi_of(spoken, name)})" for name in spoken.others]
    version = spoken.predictor.reference.partition(":")[2] or bundle.sha256[:12]
    return {"title": bundle.manifest.name, "version": version, "description": "\n".join(told)}


def _openapi_of(spoken: Spoken, name: str) -> str:
    return f"{spoken.root}/models/{name}/openapi.json"


# ---- one operation -----------------------------------------------------------------------------------


def _operation(spoken: Spoken, each: Operation, answers: dict[str, Schema]) -> Schema:
    shape = each.shape(spoken)
    marked = each.of_model or shape.flags
    told = [shape.told] if shape.told else []
    if spoken.guarded and each.scope:
        told.append(f"Needs a key that is good for `{each.scope}`: {SCOPES[each.scope]}.")
    parameters = [*(_in_path(spoken, name) for name in re.findall(r"\{(\w+)\}", each.path)), *shape.asked]
    responses = {"200": _success(shape, marked=marked)}
    failing, components = _failures(spoken, _kinds(spoken, each, shape), marked=marked)
    answers |= components
    found: Schema = {
        "summary": each.summary,
        "operationId": re.sub(r"\W+", "_", each.path).strip("_") or "home",
        "tags": [TAGS[each.module][0]],
        "responses": responses | failing,
    }
    if told:
        found["description"] = " ".join(told)
    if parameters:
        found["parameters"] = parameters
    if shape.takes:
        found["requestBody"] = {"required": shape.needs_body, "content": dict(shape.takes)}
    if spoken.guarded and each.scope:
        found["security"] = [{name: [each.scope]} for name in SCHEMES]
    return found


def _in_path(spoken: Spoken, name: str) -> Schema:
    predictor = spoken.predictor
    known = [predictor.name] if name == "name" else [*spoken.versions, predictor.bundle.sha256]
    told = "The model" if name == "name" else "A version of it, or its SHA-256"
    return {"name": name, "in": "path", "required": True, "description": told, "schema": _enum(known)}


def _enum(known: Sequence[str]) -> Schema:
    return {"type": "string", "enum": list(dict.fromkeys(known))}


def _success(shape: Shape, *, marked: bool) -> Schema:
    names = ["X-Request-ID", *(["Ketch-Model"] * marked), *(["Ketch-Flags"] * shape.flags)]
    return {"description": "As asked", "headers": _headers(names), "content": dict(shape.gives)}


def _headers(names: Sequence[str]) -> Schema:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


# ---- errors ------------------------------------------------------------------------------------------


def _kinds(spoken: Spoken, each: Operation, shape: Shape) -> Sequence[type[KetchError]]:
    found = [*ANYWHERE, *shape.fails]
    if spoken.guarded and each.scope:
        found += KEYED
    if spoken.rated and each.scope:
        found.append(TooManyRequests)
    if "{name}" in each.path:
        found.append(NoSuchModel)
    if each.scope == "metrics":
        found.append(Forbidden)
    return list(dict.fromkeys(found))


def _failures(
    spoken: Spoken, kinds: Sequence[type[KetchError]], *, marked: bool = False
) -> tuple[dict[str, Schema], dict[str, Schema]]:
    """Give the responses by status, and the components that they refer to."""
    by_status: dict[int, list[type[KetchError]]] = {}
    for kind in kinds:
        by_status.setdefault(kind.status, []).append(kind)
    responses, components = {}, {}
    for status, found in sorted(by_status.items()):
        name = ".".join([*sorted(kind.code for kind in found), *(["of-model"] * marked)])
        components[name] = _failure(spoken, status, sorted(found, key=lambda kind: kind.code), marked=marked)
        responses[str(status)] = {"$ref": f"#/components/responses/{name}"}
    return responses, components


def _failure(spoken: Spoken, status: int, kinds: Sequence[type[KetchError]], *, marked: bool) -> Schema:
    names = ["X-Request-ID", *(["Ketch-Model"] * marked)]
    names += {401: ["WWW-Authenticate"], 405: ["Allow"]}.get(status, [])
    names += ["Retry-After"] if any(kind is TooManyRequests or kind.retry_after for kind in kinds) else []
    own = {"properties": {"status": {"const": status}, "code": {"enum": [kind.code for kind in kinds]}}}
    return {
        "description": " ".join((kind.__doc__ or "").partition("\n")[0] for kind in kinds),
        "headers": _headers(names),
        "content": {
            PROBLEM: {
                "schema": {"allOf": [{"$ref": "#/components/schemas/Problem"}, own]},
                "examples": {kind.code: {"value": sample(kind, spoken.contract)} for kind in kinds},
            }
        },
    }


def sample(kind: type[KetchError], contract: Contract) -> dict[str, object]:
    """Give a problem of a kind as it may go over the wire; of refused rows, a real one."""
    title = (kind.__doc__ or "").partition(":")[0].rstrip(".")
    error = broken(contract)[1] if kind is RowsRefused else kind(title, hint=HINTS.get(kind, "Ask again in a second."))
    found: dict[str, object] = {
        "type": f"urn:ketch:error:{kind.code}",
        "title": title,
        "status": kind.status,
        "detail": error.message,
        "instance": "urn:ketch:request:9f86d081884c7d65-1f40-1",
        "code": kind.code,
        "hint": error.hint,
    }
    return found | ({"errors": error.errors} if error.errors else {})


HINTS: Final[Mapping[type[KetchError], str]] = {
    BodyTooLarge: "Send the rows in parts, or use ketch score for whole tables.",
    Forbidden: "Ask whoever runs this service for a key that opens this.",
    HeadersTooLarge: "Keep URL and headers together below 65536 bytes.",
    HostNotAllowed: "Whoever runs this service can add the name to its allowed hosts.",
    InputError: "Name one of the targets.",
    MethodNotAllowed: "The header Allow names the methods that the path takes.",
    NoSuchModel: "POST /v2/repository/index lists the models.",
    NotAcceptable: f"Accept {JSON}.",
    NotAnswerable: "Compare the values with GET /schema; one is outside what the model was made for.",
    NotInstalled: "Install it with: pip install 'ketch[explain]'",
    NotReady: "Ask again later.",
    RequestError: "Send an HTTP/1.1 request.",
    SlowRequest: "Send a request within 10 seconds, and a long body faster.",
    TooManyRequests: "Wait as long as the header Retry-After says.",
    TooManyRows: "Send them in parts, or use ketch score for whole tables.",
    Unauthorized: "Send it as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'.",
    UndecodableBody: "Send one JSON object in UTF-8.",
    UnsupportedMediaType: f"Send it with 'Content-Type: {JSON}'.",
}
CODES: Final = sorted(
    {each.code for each in vars(errors).values() if isinstance(each, type) and issubclass(each, KetchError)}
)
PROBLEM_SCHEMA: Final[Schema] = {
    "type": "object",
    "description": "RFC 9457 problem details; `code` is for programs, `detail` and `hint` are for people",
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string", "format": "uri"},
        "code": {"enum": CODES},
        "hint": {"type": "string"},
        "errors": {
            "type": "array",
            "description": "Each fault, at most 100 of them",
            "items": {
                "type": "object",
                "properties": {
                    "row": {"type": "integer", "minimum": 0},
                    "field": {"type": "string"},
                    "code": {"type": "string"},
                    "expected": {"type": "string"},
                    "allowed": {"type": "array"},
                    "nearest": {"description": "What may have been meant"},
                },
                "required": ["row", "code"],
            },
        },
    },
    "required": ["type", "title", "status", "detail", "instance", "code", "hint"],
}
