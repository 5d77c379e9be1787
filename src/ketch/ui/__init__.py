"""For people who ask and never call: the Streamlit page, and the static page that runs the model in the browser.

MODEL or URL --*shown*--> Shown --*start*--> a page        bundle --*site*--> files of a page
"""

import importlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ketch.errors import KetchError
from ketch.page.widgets import Form
from ketch.predict import Predictor

SIBLINGS: Final = {
    "about": "ketch.ui.about",
    "ask": "ketch.ui.ask",
    "charts": "ketch.ui.charts",
    "launch": "ketch.ui.launch",
    "table": "ketch.ui.table",
}
PAGES: Final = frozenset(SIBLINGS) - {"charts"}
MARKDOWN: Final = re.compile(r"([\\`*_{}\[\]()<>#+\-.!|$~:^=&/@])")
FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")

Explain = Callable[[Mapping[str, object], str], Mapping[str, Any]]


@dataclass(frozen=True)
class Shown:
    """What a page shows: something that answers, the form for it, and what else is known of the model.

    `explain` gives the explanation of a row in a language, `slow` says that it takes long enough to be asked for.
    `admits` tells whether a key opens the page; None where the page is open.
    """

    predictor: Predictor
    form: Form
    explain: Explain | None = None
    slow: bool = False
    facts: Mapping[str, str] = field(default_factory=dict)
    card: str = ""
    plots: Mapping[str, bytes] = field(default_factory=dict)
    log: str = ""
    admits: Callable[[str, str], bool] | None = None
    oidc: bool = False


_shown: list[Shown] = []  # by the process that serves the page, for the script that Streamlit runs again and again


def show(what: Shown) -> None:
    """Say what the page of this process shows."""
    _shown[:] = [what]


def shown() -> Shown:
    """Give what the page of this process shows."""
    return _shown[-1]


def sibling(name: str) -> Any:
    """Import a module of this room by its short name; what draws charts takes a second, and the answer comes first."""
    return importlib.import_module(SIBLINGS[name])


def literal(text: object) -> str:
    """Write a text of a model or a file so that Markdown shows it as it is, on one line."""
    return MARKDOWN.sub(r"\\\1", " ".join(str(text).split()))


def numeral(text: str, words: Mapping[str, str]) -> str:
    """Write a number, given with a decimal point and commas, as the language of these words does."""
    return text if words["point"] == "." else text.translate(str.maketrans(".,", ",."))


def complaint(error: KetchError) -> str:
    """Say what is wrong and what helps, for Markdown."""
    return literal(f"{error.message}. {error.hint}")


def harmless(cell: object) -> object:
    """Keep a spreadsheet from taking a text for a formula."""
    if not isinstance(cell, str) or not cell.startswith(FORMULA):
        return cell
    try:
        float(cell)
    except ValueError:
        return "'" + cell
    return cell
