"""The pages for people, in English and Portuguese: what a model is, how it is asked, and its API to try out.

contract + words --*landing*, *docs*--> HTML
"""

import functools
import importlib.resources
from typing import Any, Final

from ketch.bundle import Bundle
from ketch.page import SNIPPETS, describe
from ketch.page.words import spoken
from ketch.schema import Answer

OTHER: Final = {"en": "pt", "pt": "en"}


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
    return {"lang": "pt-BR" if lang == "pt" else "en", "spoken": lang, "other": OTHER[lang], "words": spoken(lang)}


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
