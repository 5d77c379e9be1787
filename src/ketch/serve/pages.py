"""What people and programs read of a model: the page at /, the schema, OpenAPI and its page."""

import functools
import importlib.resources
from typing import Final
from urllib.parse import parse_qs, quote, urlsplit

import msgspec

from ketch.page import Spoken, answer_schema, openapi, people, row_schema, widgets, words
from ketch.page.openapi import Operation
from ketch.page.shapes import SHAPES
from ketch.serve import Call, Response, Route, all_routes
from ketch.serve.headers import PAGE
from ketch.serve.lineup import version_of
from ketch.serve.routes import MODELS, Service

HTML: Final = "text/html; charset=utf-8"
ASSETS: Final = {"swagger-ui.css": "text/css", "swagger-ui-bundle.js": "text/javascript"}
SITE: Final = {  # what the live form is made of
    **dict.fromkeys(["home.js", "ask.js", "contract.js", "form.js", "service.js"], "text/javascript"),
    "style.css": "text/css",
    "icon.svg": "image/svg+xml",
}
START_SWAGGER: Final = b"""\
const dark = matchMedia("(prefers-color-scheme: dark)");
const colour = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", colour);
colour();
SwaggerUIBundle({url: "openapi.json", dom_id: "#swagger-ui", deepLinking: true});
"""


def home(service: Service, call: Call) -> Response:
    """Show the page for people."""
    open_end = not call.request.path.endswith("/")  # /models/NAME: what is relative starts at /models/
    near = call.request.path.rpartition("/")[2] + "/" if open_end else ""
    up = ("../" if open_end else "../../") if "name" in call.args else ""
    made = people.landing(
        call.predictor.bundle,
        url=call.request.base_url.rstrip("/") + _below(call),
        guarded=service.guard.guarded,
        lang=_language(call),
        near=near,
        up=up,
    )
    return Response(200, made.encode(), HTML, TOLD)


def schema(service: Service, call: Call) -> Response:
    """Give the JSON Schema of a row and of an answer."""
    contract = call.predictor.contract
    document = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": call.predictor.name,
        **row_schema(contract.fields, call.predictor.limits),
        "$defs": {"answer": answer_schema(contract.answer)},
    }
    return Response(200, msgspec.json.encode(document))


def describe(service: Service, call: Call) -> Response:
    """Give the OpenAPI document."""
    line = service.lineup.line(call.predictor.name)
    root = urlsplit(call.request.base_url).path.rstrip("/")
    spoken = Spoken(
        call.predictor,
        versions=[version_of(each) for each in line.versions.values()],
        others=[name for name in service.names if name != call.predictor.name],
        guarded=service.guard.guarded,
        rated=service.rates is not None,
        root=root,
        base=root + _below(call),
    )
    return Response(200, msgspec.json.encode(openapi.document(spoken, operations())))


def operations() -> list[Operation]:
    """Give the routes that are described, each with its shape."""
    return [_operation(each) for each in all_routes() if each.summary]


def _operation(each: Route) -> Operation:
    module = each.handle.__module__.rpartition(".")[2]
    shape = SHAPES[f"{module}.{each.handle.__name__}"]
    return Operation(each.path, each.method, each.summary, each.scope, module, shape, each.of_model)


def _below(call: Call) -> str:
    """Give the path below which a model's own routes stand, where it was asked for by its name."""
    return MODELS + quote(call.args["name"]) if "name" in call.args else ""


def _language(call: Call) -> str:
    asked = parse_qs(call.request.query).get("lang", [""])[-1]
    return words.language(asked, call.request.headers.get("accept-language", ""))


def form(service: Service, call: Call) -> Response:
    """Give what a page needs to make a form for the model, in the reader's language."""
    made = widgets.told(call.predictor.bundle) | {"words": words.spoken(_language(call))}
    return Response(200, msgspec.json.encode(made), headers={"Vary": "Accept-Language"})


def docs(service: Service, call: Call) -> Response:
    """Show the API page."""
    return Response(200, people.docs(call.predictor.name, lang=_language(call)).encode(), HTML, TOLD)


def asset(service: Service, call: Call) -> Response:
    """Give one file of the API page."""
    name = call.request.path.rpartition("/")[2]
    if name == "start.js":
        return Response(200, START_SWAGGER, "text/javascript; charset=utf-8", PAGE)
    return Response(200, _file("ketch.serve", "swagger", name), ASSETS[name] + "; charset=utf-8", PAGE)


def site(service: Service, call: Call) -> Response:
    """Give one file of the page at /."""
    name = call.request.path.rpartition("/")[2]
    return Response(200, _file("ketch.page", "site", name), SITE[name] + "; charset=utf-8", PAGE)


@functools.cache
def _file(package: str, folder: str, name: str) -> bytes:
    return importlib.resources.files(package).joinpath(folder, name).read_bytes()


TOLD: Final = {**PAGE, "Vary": "Accept-Language"}
ROUTES: Final = (
    Route("/", "GET", "What this model is, for people", "read", home, of_model=True),
    Route("/form", "GET", "", "read", form, of_model=True),
    *(Route(f"/site/{name}", "GET", "", "read", site) for name in SITE),
    Route("/schema", "GET", "The fields as JSON Schema", "read", schema, of_model=True),
    Route("/openapi.json", "GET", "This service as OpenAPI 3.1", "read", describe, of_model=True),
    Route("/docs", "GET", "Try the service in the browser", "read", docs, of_model=True),
    Route("/docs/swagger-ui.css", "GET", "", "read", asset, of_model=True),
    Route("/docs/swagger-ui-bundle.js", "GET", "", "read", asset, of_model=True),
    Route("/docs/start.js", "GET", "", "read", asset, of_model=True),
)
