"""What people and programs read of a model: the page at /, the schema, OpenAPI and its page."""

import functools
import importlib.resources
from typing import Final
from urllib.parse import urlsplit

import msgspec

from ketch import page
from ketch.schema import json_schema
from ketch.serve import Call, Response, Route, all_routes
from ketch.serve.headers import PAGE
from ketch.serve.routes import Service

HTML: Final = "text/html; charset=utf-8"
ASSETS: Final = {"swagger-ui.css": "text/css", "swagger-ui-bundle.js": "text/javascript"}
START_SWAGGER: Final = b'SwaggerUIBundle({url: "openapi.json", dom_id: "#swagger-ui", deepLinking: true});\n'


def home(service: Service, call: Call) -> Response:
    """Show the page for people."""
    url = call.request.base_url.rstrip("/")
    made = page.landing(call.predictor.bundle, url=url, guarded=service.guard.guarded)
    return Response(200, made.encode(), HTML, PAGE)


def schema(service: Service, call: Call) -> Response:
    """Give the JSON Schema of a row and of an answer."""
    contract = call.predictor.contract
    document = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": call.predictor.name,
        **json_schema(contract.fields),
        "$defs": {"answer": page.answer_schema(contract.answer)},
    }
    return Response(200, msgspec.json.encode(document))


def openapi(service: Service, call: Call) -> Response:
    """Give the OpenAPI document."""
    found: dict[str, dict[str, str]] = {}
    for each in all_routes():
        if each.summary:
            found.setdefault(each.path, {})[each.method] = each.summary
    document = page.openapi(call.predictor.bundle, guarded=service.guard.guarded, routes=found)
    document["servers"] = [{"url": urlsplit(call.request.base_url).path or "/"}]
    return Response(200, msgspec.json.encode(document))


def docs(service: Service, call: Call) -> Response:
    """Show the API page."""
    return Response(200, page.docs(call.predictor.name).encode(), HTML, PAGE)


def asset(service: Service, call: Call) -> Response:
    """Give one file of the API page."""
    name = call.request.path.rpartition("/")[2]
    if name == "start.js":
        return Response(200, START_SWAGGER, "text/javascript; charset=utf-8", PAGE)
    return Response(200, _asset(name), ASSETS[name] + "; charset=utf-8", PAGE)


@functools.cache
def _asset(name: str) -> bytes:
    return importlib.resources.files("ketch.serve").joinpath("swagger", name).read_bytes()


ROUTES: Final = (
    Route("/", "GET", "What this model is, for people", "read", home, of_model=True),
    Route("/schema", "GET", "The fields as JSON Schema", "read", schema, of_model=True),
    Route("/openapi.json", "GET", "This service as OpenAPI 3.1", "read", openapi, of_model=True),
    Route("/docs", "GET", "Try the service in the browser", "read", docs, of_model=True),
    Route("/docs/swagger-ui.css", "GET", "", "read", asset, of_model=True),
    Route("/docs/swagger-ui-bundle.js", "GET", "", "read", asset, of_model=True),
    Route("/docs/start.js", "GET", "", "read", asset, of_model=True),
)
