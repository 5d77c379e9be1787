"""Bytes to columns and answers to bytes, by content type; nothing is sniffed.

body --*decode*--> Table        answers --*encode*--> body
"""

import csv
import functools
import importlib
import importlib.util
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

import msgspec

from ketch.errors import NotAcceptable, RowsRefused, TooManyRows, UndecodableBody, UnsupportedMediaType
from ketch.schema import ABSENT, LARGEST, Columns, Field

JSON: Final = "application/json"
CSV: Final = "text/csv"
ARROW: Final = "application/vnd.apache.arrow.stream"
PARQUET: Final = "application/vnd.apache.parquet"
TYPES: Final = (JSON, CSV, ARROW, PARQUET)
MAX_DEPTH: Final = 64
MOST_CELLS: Final = 10_000_000
MOST_SPREAD: Final = 500_000  # rows by names of a JSON list where most are absent
MOST_UNKNOWN: Final = 1_000_000  # cells of columns that are no fields: each is flagged
LONGEST_ACCEPT: Final = 2000  # characters that are looked at
MISSING_WORDS: Final = frozenset({"", "na", "n/a", "nan", "null", "none"})


def _float(text: str) -> float:
    """Read a number as Python does: msgspec takes 20 µs for one like 1e308, of which a body may hold a million.

    Raises:
        ValueError: it is beyond what a float holds.
    """
    found = float(text)
    if math.isinf(found):
        raise ValueError("Number out of range")
    return found


_decode_json = msgspec.json.Decoder(float_hook=_float).decode
_encode_json = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Table:
    """Rows as columns; `single` when the caller sent one object rather than a list."""

    columns: Columns
    n: int
    single: bool = False


def media_type(content_type: str) -> str:
    """Give the bare media type of a Content-Type header; a missing one is read as JSON."""
    kind = content_type.partition(";")[0].strip().lower()
    return JSON if not kind or (kind.startswith("application/") and kind.endswith("+json")) else kind


def decode(body: bytes, content_type: str, fields: Sequence[Field], *, max_rows: int) -> Table:
    """Read a body as its content type says.

    Raises:
        UnsupportedMediaType, UndecodableBody, TooManyRows, RowsRefused: as the body deserves.
    """
    kind = content_type if content_type == JSON else media_type(content_type)
    if kind == JSON:
        return _from_json(body, max_rows)
    if kind == CSV:
        return from_csv(body, fields, max_rows)
    if kind in TYPES:
        found: Table = _tables().read(body, kind, fields, max_rows)
        return found
    raise UnsupportedMediaType(
        f"This service does not read {kind[:100]!r}",
        hint=f"Send the row as JSON with the header 'Content-Type: {JSON}', or a table as {CSV}, {ARROW} or {PARQUET}.",
    )


def _tables() -> Any:
    return importlib.import_module("ketch.codec.arrow")  # which needs pyarrow; most services never do


def _from_json(body: bytes, max_rows: int) -> Table:
    try:
        found = _decode_json(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise _not_json(body, error) from None
    if type(found) is dict:
        _bound_depth(found.values(), 1)
        return Table({name: [value] for name, value in found.items()}, 1, single=True)
    return from_rows(found, max_rows)


def from_rows(found: object, max_rows: int) -> Table:
    """Make a table of what a JSON body has for a list of rows.

    Raises:
        RowsRefused, TooManyRows, UndecodableBody: it is none.
    """
    if type(found) is not list or not found:
        what = "an empty list" if found == [] else "neither an object nor a list of objects"
        raise _refuse_shape(0, f"The body is {what}")
    if len(found) > max_rows:
        raise too_many_rows(max_rows)
    for row, each in enumerate(found):
        if type(each) is not dict:
            raise _refuse_shape(row, f"Row {row} is not an object")
        _bound_depth(each.values(), 2)
    _bound_spread(found)
    return Table(columns_of(found), len(found))


def _not_json(body: bytes, error: Exception) -> UndecodableBody:
    if not body.strip():
        return UndecodableBody("The body is empty", hint="Send one JSON object with a value for each field.")
    if isinstance(error, RecursionError):
        return _too_deep()
    if re.search(rb"\b(NaN|-?Infinity)\b", body):
        return UndecodableBody("JSON has no NaN or Infinity", hint="Send null for a missing number, or leave it out.")
    reason = str(error).replace("JSON is malformed: ", "")
    return UndecodableBody(f"The body is not valid JSON: {reason}", hint="Send one JSON object in UTF-8.")


def without_nan(body: bytes) -> bytes:
    """Turn the NaN that pandas and numpy write for a missing number into null; NaN is no JSON."""
    if b"NaN" not in body:
        return body
    # a text that does not end is taken to the end all the same: else each quote in it would be looked behind again
    return re.sub(rb'"(?:[^"\\]|\\.)*+"?|NaN', lambda found: b"null" if found[0] == b"NaN" else found[0], body)


def read_json(body: bytes, kind: Any = Any, *, lines: bool = False) -> Any:
    """Read a body of a protocol that wraps rows in something of its own, or has one in each of its lines.

    Raises:
        UndecodableBody: it is no JSON, or not of that kind.
    """
    try:
        decoder = msgspec.json.Decoder(kind, float_hook=_float)
        found = decoder.decode_lines(body) if lines else decoder.decode(body)
    except msgspec.ValidationError as error:
        raise UndecodableBody(f"The body does not keep the protocol: {error}", hint="See its description.") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise _not_json(body, error) from None
    return found


def _too_deep() -> UndecodableBody:
    return UndecodableBody(f"The body is nested deeper than {MAX_DEPTH}", hint="A row is one flat object.")


def _refuse_shape(row: int, message: str) -> RowsRefused:
    fault = {"row": row, "code": "wrong-type", "expected": "an object with a value for each field"}
    return RowsRefused(message, hint='Send {"field": value, …} for one row, or a list of such objects.', errors=[fault])


def too_many_rows(max_rows: int) -> TooManyRows:
    """Make the refusal of a table that is too long."""
    return TooManyRows(
        f"More than {max_rows} rows in one request", hint="Send them in parts, or use ketch score for whole tables."
    )


def bound_unknown(names: int, n: int) -> None:
    """Refuse more columns that are no fields than can be flagged one by one."""
    if names * n > MOST_UNKNOWN:
        raise UndecodableBody(
            f"The table has {names} columns that are no fields of this model",
            hint="Select the columns that GET /schema names.",
        )


def _bound_depth(values: Iterable[object], depth: int) -> None:
    level = [value for value in values if type(value) is dict or type(value) is list]
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise _too_deep()
        inner = [part for each in level for part in (each.values() if isinstance(each, dict) else each)]
        level = [value for value in inner if type(value) is dict or type(value) is list]


def _bound_spread(rows: Sequence[Mapping[str, object]]) -> None:
    """Refuse rows whose names have so little in common that their columns would fill the memory."""
    given = sum(map(len, rows))
    names = len({name for row in rows for name in row})
    if names * len(rows) > max(MOST_SPREAD, 64 * given):
        raise _refuse_shape(0, f"The rows have {names} different fields, hardly any in common")


def columns_of(rows: Sequence[Mapping[str, object]]) -> Columns:
    """Turn rows into columns over the union of their names, ABSENT where a row lacks one."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name, ABSENT) for row in rows] for name in names}


# ---- one clean row, in one step --------------------------------------------------------------------

Row = tuple[object, ...]


class RowReader:
    """Read JSON objects that keep the contract as rows of values in the order of the fields.

    It gives None for any other body, and for one that would be flagged: those are for `decode` and its messages.
    """

    def __init__(self, kind: Any, max_rows: int) -> None:
        self._one = msgspec.json.Decoder(kind).decode
        self._many = msgspec.json.Decoder(Annotated[list[kind], msgspec.Meta(min_length=1, max_length=max_rows)]).decode

    @classmethod
    def of(cls, fields: Sequence[Field], max_rows: int) -> "RowReader | None":
        """Make one, unless a field's values cannot be told by their type alone."""
        kinds = [_row_type(each) for each in fields]
        if None in kinds or not fields:
            return None
        names = {f"f{place}": each.name for place, each in enumerate(fields)}
        rows = [
            (name, kind if each.required else kind | None, *(() if each.required else (None,)))
            for name, kind, each in zip(names, kinds, fields, strict=True)
        ]
        return cls(
            msgspec.defstruct("Row", rows, rename=names, forbid_unknown_fields=True, kw_only=True, gc=False), max_rows
        )

    def row(self, body: bytes) -> Row | None:
        """Read one object."""
        try:
            return msgspec.structs.astuple(self._one(body))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None

    def rows(self, body: bytes) -> list[Row] | None:
        """Read a list of objects."""
        try:
            return [msgspec.structs.astuple(each) for each in self._many(body)]
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None


def _row_type(each: Field) -> Any:
    if each.type == "number":
        low = -LARGEST if each.minimum is None else each.minimum
        high = LARGEST if each.maximum is None else each.maximum
        return Annotated[float, msgspec.Meta(ge=low, le=high)]
    if each.type == "integer":
        low = -(2**53) if each.minimum is None else math.ceil(each.minimum)
        high = 2**53 if each.maximum is None else math.floor(each.maximum)
        return Annotated[int, msgspec.Meta(ge=low, le=high)]
    if each.type == "category" and {type(value) for value in each.categories} in ({str}, {int}):
        return Literal[each.categories]
    return {"boolean": bool, "text": str}.get(each.type)


# ---- CSV: every cell is a text, so types come from the contract ------------------------------------


def from_csv(body: bytes, fields: Sequence[Field], max_rows: int) -> Table:
    """Read a CSV with a header line; cells become what their field's type says."""
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UndecodableBody("The CSV is not UTF-8", hint="Save it as UTF-8 and send it again.") from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[list[str]] = []
    try:
        header = checked_header(next(reader, []), [each.name for each in fields])
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(header):
                raise UndecodableBody(
                    f"Line {reader.line_num} of the CSV has {len(cells)} cells, the header has {len(header)}",
                    hint="Give every line as many cells as the header.",
                )
            rows.append(cells)
            if len(rows) > max_rows:
                raise too_many_rows(max_rows)
    except csv.Error as error:
        raise UndecodableBody(f"The CSV cannot be read: {error}", hint="Mend that line.") from None
    if not rows:
        raise _refuse_shape(0, "The CSV has no rows")
    return Table(typed_columns(header, rows, fields), len(rows))


def checked_header(header: Sequence[str], known: Sequence[str]) -> list[str]:
    """Give the column names of a CSV, each once and none empty; blanks around them stay only where `known` has them."""
    whole = frozenset(known)
    names = [name if name in whole else name.strip() for name in header]
    if not names or "" in names:
        raise UndecodableBody("The CSV needs a name for every column", hint="Put the field names in the first line.")
    if twice := repeated(names):
        raise UndecodableBody(f"The CSV has two columns named {twice[:80]!r}", hint="Remove one of them.")
    return names


def repeated(names: Sequence[str]) -> str:
    """Give the first name that stands there twice, empty where none does."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return ""


def typed_columns(header: Sequence[str], rows: Sequence[Sequence[str]], fields: Sequence[Field]) -> Columns:
    """Turn rows of texts into columns of the types that the contract names."""
    by_name = {each.name: each for each in fields}
    cells: Iterable[tuple[str, ...]] = zip(*rows, strict=True) if rows else [() for _ in header]
    return {name: typed_cells(texts, by_name.get(name)) for name, texts in zip(header, cells, strict=True)}


def typed_cells(texts: Iterable[str], each: Field | None) -> list[object]:
    """Read the cells of one column; what cannot be read stays text and is refused by the check."""
    if each is None or each.type in {"text", "date", "datetime"}:
        return [text if text else None for text in texts]
    if each.type == "category":
        known = {str(value).lower() if isinstance(value, bool) else str(value): value for value in each.categories}
        numeric = all(isinstance(value, int | float) for value in each.categories)
        return [known[text] if text in known else _category_cell(text, known, numeric=numeric) for text in texts]
    return [number_cell(text) if each.type != "boolean" else boolean_cell(text) for text in texts]


def _category_cell(text: str, known: Mapping[str, object], *, numeric: bool) -> object:
    word = text.strip().lower()
    if word in MISSING_WORDS:
        return None
    if numeric:
        return known[word] if word in known else number_cell(text)
    return text


def number_cell(text: str) -> object:
    """Read a cell as a number, None where it stands for nothing, itself where it is neither."""
    if "_" in text:  # Python reads 1_000 as a number, nobody else does
        return text
    try:
        return int(text) if len(text) < 19 else float(text)
    except ValueError:
        pass
    if text.strip().lower() in MISSING_WORDS:
        return None
    try:
        return float(text)
    except ValueError:
        return text


def boolean_cell(text: str) -> object:
    """Read a cell as true or false, None where it stands for nothing, itself where it is neither."""
    word = text.strip().lower()
    return None if word in MISSING_WORDS else {"true": True, "1": True, "false": False, "0": False}.get(word, text)


# ---- answers ---------------------------------------------------------------------------------------


def accepted(accept: str, content_type: str) -> str:
    """Choose how the answer is written: as asked, else as the question was.

    Raises:
        NotAcceptable: the caller accepts none of the forms that can be written here.
    """
    asked = content_type if content_type in TYPES else media_type(content_type)
    own = asked if asked in TYPES else JSON
    if not accept or accept in {"*/*", own}:
        return own
    wanted = dict(_weighted(part) for part in accept[:LONGEST_ACCEPT].split(","))
    lacking = bool(wanted.keys() & {ARROW, PARQUET}) and importlib.util.find_spec("pyarrow") is None
    kinds = [own, *(kind for kind in TYPES if kind != own and not (lacking and kind in {ARROW, PARQUET}))]
    likes = {kind: _liking(kind, wanted) for kind in kinds}
    best = max(kinds, key=likes.__getitem__)  # the first of those liked alike: as the question was
    if not likes[best]:
        hint = "Install it with: pip install 'ketch[arrow]'" if lacking else f"Accept one of {', '.join(TYPES)}."
        raise NotAcceptable(f"No answer can be written as {accept[:100]!r}", hint=hint)
    return best


def _weighted(part: str) -> tuple[str, float]:
    kind, _, rest = part.partition(";")
    weight = re.search(r"(?:^|;)\s*q\s*=\s*([01](?:\.\d*)?)\s*(?:;|$)", rest, re.ASCII | re.IGNORECASE)
    return kind.strip().lower(), min(float(weight[1]), 1.0) if weight else 1.0


def _liking(kind: str, wanted: Mapping[str, float]) -> float:
    """Give the weight of the most specific range that holds the type, 0 where none does."""
    ranges = (kind, f"{kind.partition('/')[0]}/*", "*/*")
    return next((wanted[each] for each in ranges if each in wanted), 0.0)


def encode(columns: Mapping[str, Sequence[object]], n: int, *, single: bool, accept: str = JSON) -> bytes:
    """Write answers, given as columns, as one object, a list of objects or a table."""
    if accept == CSV:
        return _to_csv(columns, n)
    if accept != JSON:
        written: bytes = _tables().write(flatten(columns), accept)
        return written
    names = list(columns)
    if single:
        return _encode_json({name: columns[name][0] for name in names})
    return _encode_json([*map(_answer(tuple(names)), *columns.values())])


@functools.lru_cache(maxsize=64)
def _answer(names: tuple[str, ...]) -> Any:
    """Make the shape of an answer of these names, which is made and written faster than a dict."""
    keys = [f"f{place}" for place in range(len(names))]
    return msgspec.defstruct("Answer", keys, rename=dict(zip(keys, names, strict=True)), gc=False)


def _to_csv(columns: Mapping[str, Sequence[object]], n: int) -> bytes:
    flat = flatten(columns)
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(list(flat))
    writer.writerows([csv_cell(flat[name][row]) for name in flat] for row in range(n))
    return out.getvalue().encode()


def flatten(columns: Mapping[str, Sequence[object]]) -> dict[str, Sequence[object]]:
    """Spread grouped probabilities over one column for each class: species_probabilities.setosa."""
    flat: dict[str, Sequence[object]] = {}
    for name, values in columns.items():
        if values and isinstance(values[0], dict):
            for key in values[0]:
                flat[f"{name}.{key}"] = [each[key] for each in values if isinstance(each, dict)]
        else:
            flat[name] = values
    return flat


def csv_cell(value: object) -> object:
    """Write a value so that it reads back the same."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(value)
    return value
