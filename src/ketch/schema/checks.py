"""Columns held against the contract.

columns -> *check* -> checked columns, or faults that name row, field and remedy
"""

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from ketch.schema import ABSENT, EXPECTED, LARGEST, Columns, Fault, Field, Scalar, is_date, is_datetime, kind_of, span

MOST_LISTED: Final = 20  # categories shown in an error; the whole list stands at /schema
MOST_COMPARED: Final = 64  # unknown fields of a request that are looked at for a misspelling
MOST_LIKENED: Final = 20_000  # comparisons of unknown values with categories, for each field of a request


@dataclass(slots=True)
class Checked:
    """Columns in the order of the contract (None where absent), with what was found on the way."""

    columns: Columns
    faults: list[Fault] = field(default_factory=list)
    flags: list[Fault] = field(default_factory=list)


class Checker:
    """Check columns against a contract; made once, used for every request.

    `strict` refuses what is otherwise flagged; `lenient` flags missing fields, unknown categories and what looks
    like a misspelling, and leaves it to the model whether it has an answer.
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
            # a misspelt name explains the missing field beside it, so it comes first
            checked.faults.sort(key=lambda fault: (fault.row, fault.code != "unknown-field"))
        return checked

    def _judge_unknown_fields(self, columns: Columns, checked: Checked) -> None:
        unknown = [name for name in columns if name not in self.names]
        for place, name in enumerate(unknown):
            # a bound, because comparing 200,000 made-up names with every field would cost seconds
            looked_at = self.fields if place < MOST_COMPARED else ()
            close = [each.name for each in looked_at if within_two_edits(name, each.name)]
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


def _missing(each: Field, row: int, checked: Checked, lenient: bool) -> None:
    if each.required:
        (checked.flags if lenient else checked.faults).append(Fault(row, each.name, "missing", EXPECTED[each.type]))


def _check_number(each: Field) -> Check:
    name, whole = each.name, each.type == "integer"
    low = -math.inf if each.minimum is None else each.minimum
    high = math.inf if each.maximum is None else each.maximum
    told = span(each)

    def check(values: list[object], checked: Checked, lenient: bool) -> list[object]:
        clean = values
        for row, value in enumerate(values):
            if (type(value) is float or type(value) is int) and -LARGEST <= value <= LARGEST:
                if whole and value != int(value):
                    checked.faults.append(Fault(row, name, "wrong-type", EXPECTED["integer"]))
                elif not low <= value <= high:
                    checked.flags.append(Fault(row, name, "out-of-range", told))
                continue
            if clean is values:
                clean = list(values)
            clean[row] = None
            if value is None or value is ABSENT:
                _missing(each, row, checked, lenient)
            else:
                code = "not-finite" if isinstance(value, float | int) and type(value) is not bool else "wrong-type"
                checked.faults.append(Fault(row, name, code, EXPECTED[each.type]))
        return clean

    return check


def _check_category(each: Field) -> Check:
    # bool equals 0 and 1 as a dictionary key: the kind keeps true and 1 apart
    known: dict[tuple[str, object], Scalar] = {(kind_of(value), value): value for value in each.categories}
    kinds = {kind for kind, _ in known}
    texts = {str(value): value for value in each.categories}
    allowed = each.categories[:MOST_LISTED]

    def check(values: list[object], checked: Checked, lenient: bool) -> list[object]:
        clean: list[object] = []
        likened: dict[object, Scalar | None] = {}
        for row, value in enumerate(values):
            try:
                clean.append(known[(kind_of(value), value)])
                continue
            except (KeyError, TypeError):
                clean.append(None)
            if value is None or value is ABSENT:
                _missing(each, row, checked, lenient)
            elif kind_of(value) not in kinds:
                checked.faults.append(Fault(row, each.name, "wrong-type", _kinds(each)))
            else:
                clean[-1] = value
                if value not in likened and len(likened) * len(texts) < MOST_LIKENED:
                    likened[value] = _nearest(value, texts)
                fault = Fault(row, each.name, "unknown-category", EXPECTED["category"], allowed, likened.get(value))
                soft = each.unknown == "flag" or lenient
                (checked.flags if soft else checked.faults).append(fault)
        return clean

    return check


def _kinds(each: Field) -> str:
    return " or ".join(sorted({f"a {kind_of(value)}" for value in each.categories}))


def _nearest(value: object, texts: Mapping[str, Scalar]) -> Scalar | None:
    if isinstance(value, int) and abs(value) > LARGEST:  # Python writes no number of more than 4,300 digits
        return None
    close = difflib.get_close_matches(str(value)[:100], texts, n=1, cutoff=0.6)
    return texts[close[0]] if close else None


def _check_vector(each: Field) -> Check:
    expected = f"a list of {each.length} finite numbers" if each.length else EXPECTED["vector"]

    def check(values: list[object], checked: Checked, lenient: bool) -> list[object]:
        clean: list[object] = []
        for row, value in enumerate(values):
            clean.append(None)
            if value is None or value is ABSENT:
                _missing(each, row, checked, lenient)
            elif isinstance(value, list) and len(value) == (each.length or len(value)) and _all_finite(value):
                clean[-1] = value
            else:
                checked.faults.append(Fault(row, each.name, "wrong-type", expected))
        return clean

    return check


def _all_finite(values: list[object]) -> bool:
    return all((type(v) is float or type(v) is int) and -LARGEST <= v <= LARGEST for v in values)


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
                _missing(each, row, checked, lenient)
            else:
                checked.faults.append(Fault(row, each.name, "wrong-type", EXPECTED[each.type]))
        return clean

    return check


_PLAIN: Final[Mapping[str, Callable[[object], bool]]] = {
    "boolean": lambda value: type(value) is bool,
    "text": lambda value: type(value) is str,
    "date": is_date,
    "datetime": is_datetime,
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
