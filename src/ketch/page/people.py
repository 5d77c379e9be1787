"""The pages for people, in English and Portuguese: what a model is, how it is asked, and its API to try out.

contract + words --*landing*, *docs*--> HTML
"""

import functools
import importlib.resources
import re
from collections.abc import Mapping
from typing import Any, Final

from ketch.bundle import Bundle
from ketch.page import SNIPPETS, describe
from ketch.schema import Answer

WORDS: Final[Mapping[str, Mapping[str, str]]] = {
    "en": {
        "answers": "Answers",
        "from": "from",
        "field": "field",
        "fields": "fields",
        "Fields": "Fields",
        "probability": "The probability is that of",
        "itself": "The model itself decides which answer it gives.",
        "threshold": "The answer is",
        "on": "from {} on.",
        "one": "It is one of",
        "try": "Try it",
        "schema": "Schema",
        "health": "Health",
        "ask": "Ask it",
        "key": "The key is read from the environment variable KETCH_API_KEY.",
        "name": "Field",
        "type": "Type",
        "values": "Values",
        "missing": "May be missing",
        "yes": "yes",
        "no": "no",
        "model": "Model",
        "other": "Português",
        "back": "What this model is",
        "number": "number",
        "integer": "whole number",
        "boolean": "yes or no",
        "category": "category",
        "text": "text",
        "date": "date",
        "datetime": "date and time",
        "vector": "list of numbers",
    },
    "pt": {
        "answers": "Responde",
        "from": "a partir de",
        "field": "campo",
        "fields": "campos",
        "Fields": "Campos",
        "probability": "A probabilidade é a de",
        "itself": "O próprio modelo decide qual é a resposta.",
        "threshold": "A resposta é",
        "on": "a partir de {}.",
        "one": "É um destes:",
        "try": "Experimente",
        "schema": "Esquema",
        "health": "Saúde",
        "ask": "Pergunte a ele",
        "key": "A chave é lida da variável de ambiente KETCH_API_KEY.",
        "name": "Campo",
        "type": "Tipo",
        "values": "Valores",
        "missing": "Pode faltar",
        "yes": "sim",
        "no": "não",
        "model": "Modelo",
        "other": "English",
        "back": "O que este modelo é",
        "number": "número",
        "integer": "número inteiro",
        "boolean": "sim ou não",
        "category": "categoria",
        "text": "texto",
        "date": "data",
        "datetime": "data e hora",
        "vector": "lista de números",
    },
}
TAG: Final = re.compile(
    r"([a-z]{1,8})(?:-[a-z0-9-]{1,30})?(?:\s*;\s*q\s*=\s*([01](?:\.\d{0,3})?))?", re.ASCII | re.IGNORECASE
)
OTHER: Final = {"en": "pt", "pt": "en"}


def language(asked: str, accepted: str) -> str:
    """Choose the language of a page: the one asked for, else the one of ours that the reader likes best."""
    likes: dict[str, float] = {}
    for part in (asked or accepted)[:200].split(","):
        if found := TAG.fullmatch(part.strip()):
            name = found[1].lower()
            likes[name] = max(likes.get(name, 0.0), float(found[2] or 1))
    return "pt" if likes.get("pt", 0.0) > likes.get("en", 0.0) else "en"


def landing(bundle: Bundle, *, url: str, guarded: bool, lang: str = "en", near: str = "", up: str = "") -> str:
    """Write the page at GET /: what this model is, its fields, lines to paste, links.

    `near` leads from the page's own path to those of the same model, `up` to those of the server.
    """
    contract = bundle.contract
    return _render(
        "landing.html",
        **_spoken(lang),
        near=near,
        up=up,
        name=bundle.manifest.name,
        answer=contract.answer,
        positive=_positive(contract.answer),
        origin=bundle.manifest.origin.get("estimator", ""),
        fields=[(each, describe(each)) for each in contract.fields],
        snippets=[(name, title, write(contract, url, key=guarded)) for name, (title, write) in SNIPPETS.items()],
        guarded=guarded,
        sha256=bundle.sha256,
        versions=bundle.manifest.versions,
    )


def docs(name: str, *, lang: str = "en") -> str:
    """Write the page at GET /docs: Swagger UI over /openapi.json, from this server alone."""
    return _render("docs.html", **_spoken(lang), name=name)


def _spoken(lang: str) -> dict[str, Any]:
    return {"lang": "pt-BR" if lang == "pt" else "en", "other": OTHER[lang], "words": WORDS[lang]}


def _positive(answer: Answer) -> object:
    return "true" if set(answer.classes) == {0, 1} else answer.positive


def _render(template: str, **values: Any) -> str:
    made: str = _template(template).render(**values)
    return made


@functools.cache
def _template(name: str) -> Any:
    import jinja2

    text = importlib.resources.files("ketch.page").joinpath(name).read_text("utf-8")
    return jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(text)
