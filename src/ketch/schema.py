"""The contract: fields and types, inferred from rows, checked against rows, shown as JSON Schema.

columns -> *check* -> checked columns, or faults that name row, field and remedy
"""

import difflib
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Final, Literal

import msgspec

Type = Literal["number", "integer", "boolean", "category", "text", "date", "datetime", "vector"]
Scalar = str | int | float | bool
Columns = dict[str, list[object]]
MOST_LISTED: Final = 20  # categories shown in an error; the whole list stands at /schema
MOST_COMPARED: Final = 64  # unknown fields of a request that are looked at for a misspelling


class _Absent:
    """Stand for a field that a row does not have: not the same as a field it should not have."""

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT: Final = _Absent()


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


class Answer(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What the model answers with, and under which names."""

    task: Literal["binary", "multiclass", "regression", "cluster", "outlier"]
    target: str = "prediction"
    classes: tuple[Scalar, ...] = ()
    positive: Scalar | None = None
    threshold: float | None = None
    values: Literal["probability", "score", "none"] = "none"


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


@dataclass(slots=True)
class Checked:
    """Columns in the order of the contract (None where absent), with what was found on the way."""

    columns: Columns
    faults: list[Fault] = field(default_factory=list)
    flags: list[Fault] = field(default_factory=list)


class Checker:
    """Check columns against a contract; made once, used for every request.

    `strict` refuses what is otherwise flagged; `lenient` flags unknown categories and fields that look
    like a misspelling where they would be refused.
    """

    def __init__(self, fields: Sequence[Field], *, strict: bool = False, lenient: bool = False) -> None:
        self.fields = tuple(fields)
        self.names = frozenset(each.name for each in fields)
        self.strict = strict
        self.lenient = lenient
        self._checks = [(each.name, _check_for(each)) for each in fields]

    def __call__(self, columns: Columns, n: int) -> Checked:
        """Check `n` rows given as columns; nothing is raised, faults and flags are listed."""
        checked = Checked({})
        for name, check in self._checks:
            values = columns.get(name)
            if values is None:
                values = [ABSENT] * n
            checked.columns[name] = check(values, checked, self.lenient)
        if not columns.keys() <= self.names:
            self._judge_unknown_fields(columns, checked)
        if self.strict and checked.flags:
            checked.faults += checked.flags
            checked.flags = []
        if checked.faults:
            checked.faults.sort(key=lambda fault: fault.row)
        return checked

    def _judge_unknown_fields(self, columns: Columns, checked: Checked) -> None:
        unknown = [name for name in columns if name not in self.names]
        for place, name in enumerate(unknown):
            # a bound, because comparing 200,000 made-up names with every field would cost seconds
            close = [known for known in self.names if place < MOST_COMPARED and within_two_edits(name, known)]
            for row, value in enumerate(columns[name]):
                if value is ABSENT:
                    continue
                meant = next((known for known in close if self._is_absent(known, row, columns)), None)
                fault = Fault(row, name, "unknown-field", "a field of the contract", nearest=meant)
                refused = meant is not None and not self.lenient
                (checked.faults if refused else checked.flags).append(fault)

    @staticmethod
    def _is_absent(name: str, row: int, columns: Columns) -> bool:
        values = columns.get(name)
        return values is None or values[row] is ABSENT


Check = Callable[[list[object], Checked, bool], list[object]]


def _check_for(each: Field) -> Check:
    makers: dict[str, Callable[[Field], Check]] = {
        "number": _check_number,
        "integer": _check_number,
        "category": _check_category,
        "vector": _check_vector,
    }
    return makers.get(each.type, _check_plain)(each)


def _missing(each: Field, row: int, checked: Checked) -> None:
    if each.required:
        checked.faults.append(Fault(row, each.name, "missing", EXPECTED[each.type]))


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


def _check_number(each: Field) -> Check:
    name, whole = each.name, each.type == "integer"
    low = -math.inf if each.minimum is None else each.minimum
    high = math.inf if each.maximum is None else each.maximum
    span = _span(each)

    def check(values: list[object], checked: Checked, lenient: bool) -> list[object]:
        clean = values
        for row, value in enumerate(values):
            if (type(value) is float or type(value) is int) and -MOST <= value <= MOST:
                if whole and value != int(value):
                    checked.faults.append(Fault(row, name, "wrong-type", EXPECTED["integer"]))
                elif not low <= value <= high:
                    checked.flags.append(Fault(row, name, "out-of-range", span))
                continue
            if clean is values:
                clean = list(values)
            clean[row] = None
            if value is None or value is ABSENT:
                _missing(each, row, checked)
            else:
                code = "not-finite" if isinstance(value, float | int) and type(value) is not bool else "wrong-type"
                checked.faults.append(Fault(row, name, code, EXPECTED[each.type]))
        return clean

    return check


MOST: Final = 1.7976931348623157e308


def _span(each: Field) -> str:
    if each.minimum is None and each.maximum is None:
        return ""
    unit = f" {each.unit}" if each.unit else ""
    if each.minimum is None:
        return f"at most {each.maximum:g}{unit}"
    if each.maximum is None:
        return f"at least {each.minimum:g}{unit}"
    return f"from {each.minimum:g} to {each.maximum:g}{unit}"


def _check_category(each: Field) -> Check:
    # bool equals 0 and 1 as a dictionary key: the kind keeps true and 1 apart
    known: dict[tuple[str, object], Scalar] = {(_kind(value), value): value for value in each.categories}

    def check(values: list[object], checked: Checked, lenient: bool) -> list[object]:
        clean: list[object] = []
        for row, value in enumerate(values):
            try:
                clean.append(known[(_kind(value), value)])
                continue
            except (KeyError, TypeError):
                clean.append(None)
            if value is None or value is ABSENT:
                _missing(each, row, checked)
            elif not any(_kind(value) == kind for kind, _ in known):
                checked.faults.append(Fault(row, each.name, "wrong-type", _kinds(each)))
            else:
                clean[-1] = value
                soft = each.unknown == "flag" or lenient
                (checked.flags if soft else checked.faults).append(_unknown_category(each, row, value))
        return clean

    return check


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return "boolean"
    return "number" if isinstance(value, int | float) else "text" if isinstance(value, str) else "other"


def _kinds(each: Field) -> str:
    return " or ".join(sorted({f"a {_kind(value)}" for value in each.categories}))


def _unknown_category(each: Field, row: int, value: object) -> Fault:
    allowed = each.categories[:MOST_LISTED]
    texts = {str(known): known for known in each.categories}
    close = difflib.get_close_matches(str(value)[:100], texts, n=1, cutoff=0.6)
    nearest = texts[close[0]] if close else None
    return Fault(row, each.name, "unknown-category", EXPECTED["category"], allowed, nearest)


def _check_vector(each: Field) -> Check:
    expected = f"a list of {each.length} finite numbers" if each.length else EXPECTED["vector"]

    def check(values: list[object], checked: Checked, lenient: bool) -> list[object]:
        clean: list[object] = []
        for row, value in enumerate(values):
            clean.append(None)
            if value is None or value is ABSENT:
                _missing(each, row, checked)
            elif isinstance(value, list) and len(value) == (each.length or len(value)) and _all_finite(value):
                clean[-1] = value
            else:
                checked.faults.append(Fault(row, each.name, "wrong-type", expected))
        return clean

    return check


def _all_finite(values: list[object]) -> bool:
    return all((type(v) is float or type(v) is int) and -MOST <= v <= MOST for v in values)


def _check_plain(each: Field) -> Check:
    accepts = _PLAIN[each.type]

    def check(values: list[object], checked: Checked, lenient: bool) -> list[object]:
        clean: list[object] = []
        for row, value in enumerate(values):
            if accepts(value):
                clean.append(value)
                continue
            clean.append(None)
            if value is None or value is ABSENT:
                _missing(each, row, checked)
            else:
                checked.faults.append(Fault(row, each.name, "wrong-type", EXPECTED[each.type]))
        return clean

    return check


def _is_date(value: object) -> bool:
    return type(value) is date or (isinstance(value, str) and _parses(date.fromisoformat, value))


def _is_datetime(value: object) -> bool:
    return isinstance(value, datetime) or (isinstance(value, str) and _parses(datetime.fromisoformat, value))


def _parses(parse: Callable[[str], object], value: str) -> bool:
    try:
        parse(value)
    except ValueError:
        return False
    return True


_PLAIN: Final[Mapping[str, Callable[[object], bool]]] = {
    "boolean": lambda value: type(value) is bool,
    "text": lambda value: type(value) is str,
    "date": _is_date,
    "datetime": _is_datetime,
}


def within_two_edits(one: str, other: str) -> bool:
    """Say whether two insertions, deletions or replacements at most turn one name into the other."""
    if abs(len(one) - len(other)) > 2 or len(one) > 200:
        return False
    before = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        now = [i]
        for j, b in enumerate(other, 1):
            now.append(min(before[j] + 1, now[-1] + 1, before[j - 1] + (a != b)))
        if min(now) > 2:
            return False
        before = now
    return before[-1] <= 2


# ---- what rows teach -------------------------------------------------------------------------------


def is_missing(value: object) -> bool:
    """Say whether a value of a sample stands for nothing: None, NaN or pandas' own marks."""
    return value is None or value is ABSENT or value != value or type(value).__name__ in {"NAType", "NaTType"}


def refine(each: Field, values: Sequence[object]) -> Field:
    """Sharpen a field by what a sample shows: type, categories where the model knows none, range."""
    present = [plain(value) for value in values if not is_missing(value)]
    if not present:
        return each
    if each.type in {"category", "vector", "boolean"}:
        return each
    kinds = {_kind(value) for value in present}
    if kinds == {"boolean"} and each.type in {"number", "text"}:
        return msgspec.structs.replace(each, type="boolean")
    if each.type in {"number", "integer"} and kinds == {"number"}:
        return _ranged(each, present)
    return _worded(each, present) if kinds == {"text"} else each


def _ranged(each: Field, present: Sequence[object]) -> Field:
    numbers = [float(value) for value in present if isinstance(value, int | float) and math.isfinite(value)]
    whole = all(type(value) is int for value in present)
    return msgspec.structs.replace(
        each, type="integer" if whole else "number", minimum=min(numbers), maximum=max(numbers)
    )


def _worded(each: Field, present: Sequence[object]) -> Field:
    texts = [str(value) for value in present]
    if all(_is_date(text) for text in texts):
        return msgspec.structs.replace(each, type="date")
    if all(_is_datetime(text) for text in texts):
        return msgspec.structs.replace(each, type="datetime")
    each = msgspec.structs.replace(each, type="text")
    distinct = sorted(set(texts))
    if len(distinct) <= 100 and len(distinct) <= max(2, len(texts) // 2):
        return msgspec.structs.replace(each, type="category", categories=tuple(distinct), unknown="flag")
    return each


def plain(value: object) -> object:
    """Turn a scalar of numpy or pandas into Python's own."""
    if hasattr(value, "item") and not isinstance(value, str | bytes):
        return value.item()
    return value


def profile(values: Sequence[object]) -> dict[str, object]:
    """Describe a column's distribution: counts, quantiles of numbers, the commonest categories."""
    present = [plain(value) for value in values if not is_missing(value)]
    found: dict[str, object] = {"rows": len(values), "missing": len(values) - len(present)}
    numbers = sorted(float(v) for v in present if isinstance(v, int | float) and not isinstance(v, bool))
    numbers = [number for number in numbers if math.isfinite(number)]
    if numbers and len(numbers) == len(present):
        mean = math.fsum(numbers) / len(numbers)
        spread = math.sqrt(math.fsum((number - mean) ** 2 for number in numbers) / len(numbers))
        found |= {"mean": mean, "std": spread, "quantiles": [_quantile(numbers, q) for q in QUANTILES]}
    elif present and (counts := Counter(str(value) for value in present)) and len(counts) <= 100:
        found["counts"] = dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))
    return found


QUANTILES: Final = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0)


def _quantile(ordered: Sequence[float], q: float) -> float:
    place = q * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


# ---- how others see it -----------------------------------------------------------------------------


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
        kinds = {_kind(value) for value in each.categories}
        names = {"text": "string", "number": "number", "boolean": "boolean"}
        types = sorted(names[kind] for kind in kinds)
        found["type"] = types[0] if len(types) == 1 else types
        if each.unknown == "refuse":
            found["enum"] = list(each.categories)
        else:
            found["examples"] = list(each.categories)
    if not each.required:
        found["type"] = [*_as_list(found["type"]), "null"]
        if "enum" in found:
            found["enum"] = [*each.categories, None]
    found |= _words_of(each)
    return found


def _as_list(kind: object) -> list[object]:
    return list(kind) if isinstance(kind, list) else [kind]


def _words_of(each: Field) -> dict[str, object]:
    words: dict[str, object] = {}
    if each.label:
        words["title"] = each.label
    seen = f"Seen in training: {_span(each)}." if _span(each) else ""
    text = " ".join(part for part in (each.description, f"Unit: {each.unit}." if each.unit else "", seen) if part)
    if text:
        words["description"] = text
    if each.example is not None:
        words.setdefault("examples", [each.example])
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

NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}", re.ASCII)


def slug(text: str) -> str:
    """Make a name that bundle and store accept out of any text."""
    made = re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._")[:64]
    return made or "model"
