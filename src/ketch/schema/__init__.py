"""The contract: fields and their types, what a model answers, and how both look as JSON Schema.

`checks` holds rows against it, `sample` learns it from rows and composes rows from it, `amend` lets a person
have a say.
"""

import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time
from typing import Final, Literal

import msgspec

Type = Literal["number", "integer", "boolean", "category", "text", "date", "datetime", "vector"]
Scalar = str | int | float | bool
Columns = dict[str, list[object]]


class _Absent:
    """Stand for a field that a row does not have: not the same as a field it should not have."""

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT: Final = _Absent()


LARGEST: Final = sys.float_info.max


class Field(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """One input of the model and what may stand in it."""

    name: str
    type: Type
    required: bool = True
    categories: tuple[Scalar, ...] = ()
    unknown: Literal["refuse", "flag"] = "refuse"
    minimum: float | None = None
    maximum: float | None = None
    length: int = 0
    label: str = ""
    unit: str = ""
    description: str = ""
    example: object = None

    @property
    def is_of_numbers(self) -> bool:
        """Say whether its categories are numbers."""
        return bool(self.categories) and all(type(value) in {int, float} for value in self.categories)


class Answer(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What the model answers with, and under which names; for several targets, `parts` says it of each."""

    task: Literal["binary", "multiclass", "regression", "cluster", "outlier", "several"]
    target: str = "prediction"
    classes: tuple[Scalar, ...] = ()
    positive: Scalar | None = None
    threshold: float | None = None
    values: Literal["probability", "score", "none"] = "none"
    parts: tuple["Answer", ...] = ()


class Contract(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All that a caller and a model promise each other."""

    fields: tuple[Field, ...]
    answer: Answer


@dataclass(frozen=True, slots=True)
class Fault:
    """Why one value of one row is refused, or would be under --strict."""

    row: int
    field: str
    code: str
    expected: str = ""
    allowed: tuple[Scalar, ...] = ()
    nearest: Scalar | None = None

    def record(self) -> dict[str, object]:
        """Give the fault as it goes over the wire, without empty entries."""
        found = {
            "row": self.row,
            "field": self.field,
            "code": self.code,
            "expected": self.expected,
            "allowed": list(self.allowed),
            "nearest": self.nearest,
        }
        return {key: value for key, value in found.items() if value not in ("", [], None)}


EXPECTED: Final[Mapping[str, str]] = {
    "number": "a finite number",
    "integer": "a whole number",
    "boolean": "true or false",
    "category": "one of the allowed values",
    "text": "a text",
    "date": "a date as YYYY-MM-DD",
    "datetime": "a date and time as YYYY-MM-DDTHH:MM:SS",
    "vector": "a list of finite numbers",
}


def kind_of(value: object) -> str:
    """Tell text, number and boolean apart, as JSON does."""
    if isinstance(value, bool):
        return "boolean"
    return "number" if isinstance(value, int | float) else "text" if isinstance(value, str) else "other"


def span(each: Field) -> str:
    """Say the range of a field in words, empty where it has none."""
    if each.minimum is None and each.maximum is None:
        return ""
    unit = f" {each.unit}" if each.unit else ""
    if each.minimum is None:
        return f"at most {each.maximum:g}{unit}"
    if each.maximum is None:
        return f"at least {each.minimum:g}{unit}"
    return f"from {each.minimum:g} to {each.maximum:g}{unit}"


def is_date(value: object) -> bool:
    """Say whether a value is a date (pandas writes it as midnight), or a text that reads as YYYY-MM-DD."""
    if isinstance(value, datetime):
        return value.time() == time() and value.tzinfo is None
    return isinstance(value, date) or (
        isinstance(value, str) and DAY.fullmatch(value) is not None and _parses(date.fromisoformat, value)
    )


def is_datetime(value: object) -> bool:
    """Say whether a value is a date and time, or a text that reads as YYYY-MM-DD, alone or with a time."""
    return isinstance(value, date) or (
        isinstance(value, str) and MOMENT.fullmatch(value) is not None and _parses(datetime.fromisoformat, value)
    )


# of what Python reads as ISO 8601, the forms that JSON Schema and pandas read too: no weeks, no "20240131"
DAY: Final = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
MOMENT: Final = re.compile(DAY.pattern + r"([T ]\d\d:\d\d(:\d\d(\.\d{1,9})?)?(Z|[+-]\d\d:\d\d)?)?", re.ASCII)


def _parses(parse: Callable[[str], object], value: str) -> bool:
    try:
        parse(value)
    except ValueError:
        return False
    return True


def is_missing(value: object) -> bool:
    """Say whether a value of a sample stands for nothing: None, NaN or pandas' own marks."""
    if value is None or value is ABSENT or type(value).__name__ in {"NAType", "NaTType"}:
        return True
    return not getattr(value, "ndim", 0) and bool(value != value)


def plain(value: object) -> object:
    """Turn a scalar of numpy or pandas, or an array, into Python's own."""
    return value.tolist() if hasattr(value, "item") and hasattr(value, "tolist") else value


def json_schema(fields: Iterable[Field]) -> dict[str, object]:
    """Give the fields as JSON Schema (draft 2020-12) of one row."""
    listed = list(fields)
    return {
        "type": "object",
        "properties": {each.name: _property(each) for each in listed},
        "required": [each.name for each in listed if each.required],
    }


def _property(each: Field) -> dict[str, object]:
    found: dict[str, object] = dict(_JSON_TYPES[each.type])
    if each.type == "category":
        kinds = {kind_of(value) for value in each.categories}
        names = {"text": "string", "number": "number", "boolean": "boolean"}
        types = sorted(names[kind] for kind in kinds)
        found["type"] = types[0] if len(types) == 1 else types or "string"
        if each.unknown == "refuse":
            found["enum"] = list(each.categories)
        else:
            found["examples"] = list(each.categories)
    if not each.required:
        found["type"] = [*_as_list(found["type"]), "null"]
        if "enum" in found:
            found["enum"] = [*each.categories, None]
    return _words_of(each) | found


def _as_list(kind: object) -> list[object]:
    return list(kind) if isinstance(kind, list) else [kind]


def _words_of(each: Field) -> dict[str, object]:
    words: dict[str, object] = {}
    if each.label:
        words["title"] = each.label
    seen = f"Seen in training: {span(each)}." if span(each) else ""
    text = " ".join(part for part in (each.description, f"Unit: {each.unit}." if each.unit else "", seen) if part)
    if text:
        words["description"] = text
    if each.example is not None:
        words["examples"] = [each.example]
    if each.length:
        words |= {"minItems": each.length, "maxItems": each.length}
    return words


_JSON_TYPES: Final[Mapping[str, Mapping[str, object]]] = {
    "number": {"type": "number"},
    "integer": {"type": "integer"},
    "boolean": {"type": "boolean"},
    "category": {"type": "string"},
    "text": {"type": "string"},
    "date": {"type": "string", "format": "date"},
    "datetime": {"type": "string", "format": "date-time"},
    "vector": {"type": "array", "items": {"type": "number"}},
}

# What names a bundle and its place in a store: small letters, digits, dots, dashes; and nothing that a Windows
# folder cannot hold, since a store may be copied to one.
NAME: Final = re.compile(
    r"(?!.*\.\.)(?!(con|prn|aux|nul|com\d|lpt\d)(\.|\Z))[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9_-])?", re.ASCII
)


def slug(text: str) -> str:
    """Make a name that bundle and store accept out of any text."""
    made = re.sub(r"[^a-z0-9_-]+", "-", text.lower()).strip("-_")[:64].rstrip("-_")
    return made if NAME.fullmatch(made) else f"model-{made}"[:64].rstrip("-_")
