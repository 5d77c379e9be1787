"""A pattern of Python's `re` as one of JavaScript's, for the tokens of texts that are cut in the browser.

pattern --*sre*--> parsed --*script*--> pattern for `new RegExp(…, "gu")`

The two languages differ in what a letter, a digit and a blank are, so each is spelt out.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from ketch.errors import InputError

BLANK: Final = r"\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
INSIDE: Final[Mapping[str, str]] = {  # of a set: Python's \w takes what isalnum() does, and the underscore
    "CATEGORY_WORD": r"\p{L}\p{N}_",
    "CATEGORY_DIGIT": r"\p{Nd}",
    "CATEGORY_SPACE": BLANK,
}
WORD: Final = f"[{INSIDE['CATEGORY_WORD']}]"
BOUNDARY: Final = f"(?:(?<={WORD})(?!{WORD})|(?<!{WORD})(?={WORD}))"
PLACES: Final[Mapping[str, str]] = {
    "AT_BEGINNING": "^",
    "AT_BEGINNING_STRING": "^",
    "AT_END": r"(?=\n?$)",
    "AT_END_STRING": "$",
    "AT_BOUNDARY": BOUNDARY,
    "AT_NON_BOUNDARY": f"(?!{BOUNDARY})",
}
FLAGS: Final = int(re.UNICODE)  # anything else, such as IGNORECASE, folds letters in ways of its own


def script(pattern: str) -> str:
    """Write a pattern for JavaScript's flags g and u.

    Raises:
        InputError: it says something that JavaScript cannot.
    """
    from re import _parser as sre  # type: ignore[attr-defined]  # the only reader of Python's patterns

    parsed = sre.parse(pattern)
    if parsed.state.flags & ~FLAGS or parsed.state.groups > 2:
        raise _strange(pattern)
    try:
        return _sequence(parsed)
    except KeyError:
        raise _strange(pattern) from None


def _strange(pattern: str) -> InputError:
    return InputError(
        f"The pattern {pattern[:60]!r}, by which texts are cut, cannot be used in a browser",
        hint="Let the page ask a service instead: ketch ui MODEL --static --url https://…",
    )


def _sequence(parts: Iterable[tuple[Any, Any]]) -> str:
    return "".join(WRITERS[str(kind)](value) for kind, value in parts)


def _letter(code: int) -> str:
    return f"\\u{{{code:x}}}"


def _set(parts: Sequence[tuple[Any, Any]]) -> str:
    negated = str(parts[0][0]) == "NEGATE"
    inside = "".join(_member(str(kind), value) for kind, value in (parts[1:] if negated else parts))
    return f"[{'^' if negated else ''}{inside}]"


def _member(kind: str, value: Any) -> str:
    if kind == "LITERAL":
        return _letter(value)
    if kind == "RANGE":
        return f"{_letter(value[0])}-{_letter(value[1])}"
    if kind == "CATEGORY":
        return INSIDE[str(value)]  # a negated one inside of a set has no way to be written
    raise KeyError(kind)


def _one(parts: Sequence[tuple[Any, Any]]) -> str:
    (kind, value), *more = parts
    if str(kind) == "CATEGORY" and not more and "_NOT_" in str(value):
        return f"[^{INSIDE[str(value).replace('_NOT_', '_')]}]"
    return _set(parts)


def _repeat(lazy: str) -> Callable[[Any], str]:
    def write(value: Any) -> str:
        least, most, inner = value
        bound = "" if str(most) == "MAXREPEAT" else int(most)
        return f"(?:{_sequence(inner)}){{{least},{bound}}}{lazy}"

    return write


def _group(value: Any) -> str:
    number, add, drop, inner = value
    if add or drop:
        raise KeyError("flags of a group")
    return f"({'' if number else '?:'}{_sequence(inner)})"


def _look(negated: bool) -> Callable[[Any], str]:
    def write(value: Any) -> str:
        direction, inner = value
        return f"(?{'<' if direction < 0 else ''}{'!' if negated else '='}{_sequence(inner)})"

    return write


WRITERS: Final[Mapping[str, Callable[[Any], str]]] = {
    "LITERAL": _letter,
    "NOT_LITERAL": lambda value: f"[^{_letter(value)}]",
    "ANY": lambda _: r"[^\n]",
    "IN": _one,
    "BRANCH": lambda value: f"(?:{'|'.join(_sequence(each) for each in value[1])})",
    "MAX_REPEAT": _repeat(""),
    "MIN_REPEAT": _repeat("?"),
    "SUBPATTERN": _group,
    "AT": lambda value: PLACES[str(value)],
    "ASSERT": _look(negated=False),
    "ASSERT_NOT": _look(negated=True),
}


def combining() -> str:
    """Give all marks that combine with the letter before them, as the inside of a set."""
    found: list[list[int]] = []
    for code in range(0x300, 0x110000):
        if unicodedata.combining(chr(code)):
            if found and found[-1][1] == code - 1:
                found[-1][1] = code
            else:
                found.append([code, code])
    return "".join(f"{_letter(first)}-{_letter(last)}" for first, last in found)
