"""Contributions as sentences, of this row's own values and nobody else's."""

from collections.abc import Mapping, Sequence
from typing import Final

from ketch.schema import Answer, Field

MOST: Final = 5
LEAST: Final = 0.01  # of all that is contributed; what adds less is no reason
LONGEST: Final = 40
WORDS: Final[Mapping[str, Mapping[str, str]]] = {
    "en": {
        "up": "raises",
        "down": "lowers",
        "by": "by",
        "missing": "missing",
        "yes": "yes",
        "no": "no",
        "numbers": "numbers",
        "outlier": "how unusual this is",
    },
    "pt": {
        "up": "aumenta",
        "down": "reduz",
        "by": "em",
        "missing": "ausente",
        "yes": "sim",
        "no": "não",
        "numbers": "números",
        "outlier": "o quanto isto é incomum",
    },
}


def subject(answer: Answer, of: object, lang: str) -> str:
    """Say what is raised or lowered."""
    if answer.task == "outlier":
        return _words(lang)["outlier"]
    if answer.task == "regression" or of is True:
        return answer.target
    return f"{'cluster' if answer.task == 'cluster' else answer.target} = {of}"


def reasons(
    fields: Sequence[Field], values: Sequence[object], worth: Sequence[float], raised: str, lang: str
) -> list[str]:
    """Tell the largest contributions, the largest first."""
    words, whole = _words(lang), sum(map(abs, worth))
    found = sorted(zip(worth, fields, values, strict=True), key=lambda each: -abs(each[0]))
    told = []
    for by, each, value in found[:MOST]:
        if abs(by) > LEAST * whole:
            turned, much = words["up" if by > 0 else "down"], _number(abs(by), lang)
            told.append(f"{_told(each, value, lang)} {turned} {raised} {words['by']} {much}")
    return told


def _words(lang: str) -> Mapping[str, str]:
    return WORDS["pt" if lang.lower().startswith("pt") else "en"]


def _told(each: Field, value: object, lang: str) -> str:
    words, name = _words(lang), each.label or each.name
    if value is None:
        return f"{name} = {words['missing']}"
    if isinstance(value, bool):
        return f"{name} = {words['yes' if value else 'no']}"
    if isinstance(value, int | float):
        unit = f" {each.unit}" if each.unit else ""
        return f"{name} = {_number(value, lang, '.6g')}{unit}"
    if isinstance(value, list):
        return f"{name} = ({len(value)} {words['numbers']})"
    text = " ".join(str(value).split())
    return f"{name} = {text if len(text) <= LONGEST else text[: LONGEST - 1] + '…'}"


def _number(value: float, lang: str, form: str = ".3g") -> str:
    shown = str(value) if isinstance(value, int) else f"{value:{form}}"
    return shown.replace(".", ",") if lang.lower().startswith("pt") else shown
