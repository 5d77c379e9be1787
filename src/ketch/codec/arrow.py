"""Arrow streams and Parquet files: bytes to columns, answers to bytes.

Either form says much in few bytes: a run of a billion equal values, a text that every row points at. What a body may
unpack to is therefore bounded before it is unpacked, and only columns that are fields of the model are unpacked at all.
"""

import importlib
import struct
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from ketch import extras
from ketch.codec import ARROW, MOST_CELLS, PARQUET, Table, bound_unknown, repeated, too_many_rows
from ketch.errors import KetchError, NotInstalled, RowsRefused, UndecodableBody, UnsupportedMediaType
from ketch.schema import EXPECTED, Columns, Fault, Field

MOST_BATCHES: Final = 100  # each may carry a dictionary of its own
MOST_MESSAGES: Final = 10_000  # with those of dictionaries
MOST_UNPACKED: Final = 64 * 2**20  # characters, and numbers in lists, over all rows
AT_ONCE: Final = 1024  # rows of Parquet
EPOCH: Final = datetime(1970, 1, 1)
MICROSECONDS: Final[Mapping[str, Callable[[int], int]]] = {
    "s": lambda value: value * 1_000_000,
    "ms": lambda value: value * 1000,
    "us": lambda value: value,
    "ns": lambda value: value // 1000,
}


def read(body: bytes, kind: str, fields: Sequence[Field], max_rows: int) -> Table:
    """Read an Arrow stream or a Parquet file.

    Raises:
        UnsupportedMediaType: pyarrow is not installed.
        UndecodableBody, TooManyRows, RowsRefused: as the body deserves.
    """
    try:
        arrow = extras.load("pyarrow")
    except NotInstalled as missing:
        raise UnsupportedMediaType(f"This service cannot read {kind}: {missing.message}", hint=missing.hint) from None
    gathered = _Gathered(arrow, fields, max_rows)
    try:
        for batch in (_batches if kind == ARROW else _row_groups)(body, gathered):
            gathered.add(batch)
    except KetchError:
        raise
    except (arrow.ArrowException, ArithmeticError, LookupError, MemoryError, OSError, TypeError, ValueError) as error:
        raise _unreadable(kind, error) from None
    return gathered.table()


def _unreadable(kind: str, error: Exception) -> UndecodableBody:
    reason = str(error).partition("\n")[0][:120] or type(error).__name__
    return UndecodableBody(
        f"The body is not {_name(kind)} that can be read: {reason}", hint="Write the table again, or send JSON or CSV."
    )


def _name(kind: str) -> str:
    return "an Arrow stream" if kind == ARROW else "a Parquet file"


class _Gathered:
    """The columns read so far, and how much more there may be."""

    def __init__(self, arrow: Any, fields: Sequence[Field], max_rows: int) -> None:
        self.arrow = arrow
        self.fields = {each.name: each for each in fields}
        self.known: list[str] = []
        self._unknown: list[str] = []
        self._columns: Columns = {}
        self._n, self._left = 0, MOST_UNPACKED
        self._max_rows = max_rows

    def begin(self, names: Sequence[str]) -> None:
        """Learn the names of the columns, each of which must stand there once."""
        if twice := repeated(names):
            raise UndecodableBody(f"The table has two columns named {twice[:80]!r}", hint="Remove or rename one.")
        self.known = [name for name in names if name in self.fields]
        self._unknown = [name for name in names if name not in self.fields]
        self._columns = {name: [] for name in self.known}

    def add(self, batch: Any) -> None:
        """Unpack some rows."""
        self.count(batch.num_rows)
        for name in self.known:
            column = batch.column(name)
            column.validate(full=True)
            self._columns[name] += self._values(column, self.fields[name])

    def count(self, rows: int) -> None:
        """Count rows before they are unpacked."""
        self._n += rows
        if self._n > self._max_rows:
            raise too_many_rows(self._max_rows)
        bound_unknown(len(self._unknown), self._n)

    def refuse_groups(self, schema: Any) -> None:
        """Refuse fields in columns of columns, before one is read; a list of numbers is a vector."""
        types = self.arrow.types
        for name in self.known:
            kind = schema.field(name).type
            inner = kind.value_type if is_list(types, kind) else kind
            if types.is_nested(inner) or (inner is not kind and not is_number(types, inner)):
                raise self.wrong_type(schema.field(name), self.fields[name])

    def table(self) -> Table:
        """Give what was gathered; the values of unknown columns do not matter, that they are there does."""
        if not self._n:
            fault = {"row": 0, "code": "wrong-type", "expected": "at least one row"}
            raise RowsRefused("The table has no rows", hint="Send one row or more.", errors=[fault])
        there: list[object] = [None] * self._n
        return Table(self._columns | dict.fromkeys(self._unknown, there), self._n)

    def _values(self, column: Any, each: Field) -> list[object]:
        types = self.arrow.types
        if types.is_dictionary(column.type) and not types.is_dictionary(column.type.value_type):
            return self._picked(column, each)
        for name, reader in READERS.items():
            if hasattr(types, name) and getattr(types, name)(column.type):
                return reader(self, column, each)
        raise self.wrong_type(column, each)

    def wrong_type(self, column: Any, each: Field) -> RowsRefused:
        """Make the refusal of a column whose type no value of the field can have."""
        return RowsRefused(
            f"The column {each.name!r} is of type {str(column.type)[:80]}, where {EXPECTED[each.type]} is expected",
            hint="Cast the column; GET /schema shows every field.",
            errors=[Fault(0, each.name, "wrong-type", EXPECTED[each.type]).record()],
        )

    def _picked(self, column: Any, each: Field) -> list[object]:
        """Unpack only those values of a dictionary that a row points at."""
        used = column.indices.drop_null().unique()
        values = self._values(column.dictionary.take(used), each)
        by_index = dict(zip(used.to_pylist(), values, strict=True))
        return self.bounded([None if index is None else by_index[index] for index in column.indices.to_pylist()])

    def bounded(self, values: list[Any]) -> list[object]:
        """Give the values back if there is still room for so many characters, or elements."""
        for value in values:
            if isinstance(value, str | list):
                self.take(len(value))
        return values

    def take(self, size: int) -> None:
        """Take up room."""
        self._left -= size
        if self._left < 0:
            raise UndecodableBody("The texts or lists of the table are too long", hint="Send the rows in parts.")


def _plain(of: _Gathered, column: Any, each: Field) -> list[object]:
    found: list[object] = column.to_pylist()
    return found


def _numbers(of: _Gathered, column: Any, each: Field) -> list[object]:
    return [None if value is None or value != value else float(value) for value in column.to_pylist()]


def _decimals(of: _Gathered, column: Any, each: Field) -> list[object]:
    make: Callable[[Any], object] = float if column.type.scale > 0 else int
    return [None if value is None else make(value) for value in column.to_pylist()]


def _texts(of: _Gathered, column: Any, each: Field) -> list[object]:
    return of.bounded(column.to_pylist())


def _views(of: _Gathered, column: Any, each: Field) -> list[object]:
    found: list[object] = []
    for scalar in column:  # many may view the same bytes, so each is counted before the next is copied
        value = scalar.as_py()
        of.take(len(value or ""))
        found.append(value)
    return found


def _days(of: _Gathered, column: Any, each: Field) -> list[object]:
    if each.type not in {"date", "datetime"}:
        raise of.wrong_type(column, each)
    return [None if value is None else value.isoformat() for value in column.to_pylist()]


def _moments(of: _Gathered, column: Any, each: Field) -> list[object]:
    """Write moments as JSON has them, those with a zone in UTC; pyarrow itself would make Timestamps of pandas."""
    if each.type not in {"date", "datetime"}:
        raise of.wrong_type(column, each)
    scaled, zone = MICROSECONDS[column.type.unit], "+00:00" if column.type.tz else ""
    found: list[object] = []
    for value in column.cast(of.arrow.int64()).to_pylist():
        if value is None:
            found.append(None)
            continue
        text = (EPOCH + timedelta(microseconds=scaled(value))).isoformat()
        day = each.type == "date" and not zone
        found.append((text.removesuffix("T00:00:00") if day else text) + zone)
    return found


def _lists(of: _Gathered, column: Any, each: Field) -> list[object]:
    if not is_number(of.arrow.types, column.type.value_type):
        raise of.wrong_type(column, each)
    return of.bounded(column.to_pylist())


def is_list(types: Any, kind: Any) -> bool:
    """Say whether a type is one of Arrow's lists."""
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def is_number(types: Any, kind: Any) -> bool:
    """Say whether a type is one of Arrow's numbers."""
    return bool(types.is_integer(kind) or types.is_floating(kind))


READERS: Final[Mapping[str, Callable[[_Gathered, Any, Field], list[object]]]] = {
    "is_null": _plain,
    "is_boolean": _plain,
    "is_integer": _plain,
    "is_floating": _numbers,
    "is_decimal": _decimals,
    "is_string": _texts,
    "is_large_string": _texts,
    "is_string_view": _views,
    "is_date": _days,
    "is_timestamp": _moments,
    "is_list": _lists,
    "is_large_list": _lists,
    "is_fixed_size_list": _lists,
}


# ---- Arrow streams ---------------------------------------------------------------------------------


def _batches(body: bytes, gathered: _Gathered) -> Iterator[Any]:
    ipc = extras.load("pyarrow.ipc")
    data = gathered.arrow.py_buffer(body)
    for place, message in enumerate(ipc.MessageReader.open_stream(data)):
        if place == MOST_MESSAGES:
            raise _parted()
        _refuse_compressed(memoryview(message.metadata))
    with ipc.open_stream(data, options=ipc.IpcReadOptions(use_threads=False)) as stream:
        gathered.begin(stream.schema.names)
        for place, batch in enumerate(stream):
            if place == MOST_BATCHES:
                raise _parted()
            yield batch


def _parted() -> UndecodableBody:
    return UndecodableBody(
        f"The table comes in more than {MOST_BATCHES} parts", hint="Combine its record batches and dictionaries."
    )


V5: Final = 4  # of the metadata: since Arrow 1.0
DICTIONARY, BATCH = 2, 3  # types of a message


def _refuse_compressed(message: memoryview) -> None:
    """Refuse a message whose buffers are compressed: what they unpack to is only known when it is too late.

    pyarrow has no word for it, so the one entry is looked up in the message itself, which is a FlatBuffer.
    """
    try:
        root = struct.unpack_from("<I", message)[0]
        version = _entry(message, root, 0)
        kind, header = _entry(message, root, 1), _entry(message, root, 2)
        found = struct.unpack_from("<h", message, version)[0] if version else 0
        which = message[kind] if kind and header else 0
        if which in {DICTIONARY, BATCH}:
            batch = _pointed(message, header)
            batch = _pointed(message, _entry(message, batch, 1)) if which == DICTIONARY else batch
            compressed = _entry(message, batch, 3)
        else:
            compressed = 0
    except (struct.error, IndexError):
        raise UndecodableBody("The Arrow stream is damaged", hint="Write the table again.") from None
    if found != V5:
        raise UndecodableBody("The Arrow stream is older than Arrow 1.0", hint="Write it with a newer library.")
    if compressed:
        raise UndecodableBody("The Arrow stream is compressed", hint="Write it without compression.")


def _pointed(message: memoryview, at: int) -> int:
    found: int = at + struct.unpack_from("<I", message, at)[0]
    return found


def _entry(message: memoryview, table: int, place: int) -> int:
    """Give where the entry of a FlatBuffer table stands, 0 where it has none."""
    index = table - struct.unpack_from("<i", message, table)[0]
    at = 4 + 2 * place
    if index < 0 or at >= struct.unpack_from("<H", message, index)[0]:
        return 0
    offset = struct.unpack_from("<H", message, index + at)[0]
    return table + offset if offset else 0


# ---- Parquet ---------------------------------------------------------------------------------------


def _row_groups(body: bytes, gathered: _Gathered) -> Iterator[Any]:
    arrow, parquet = gathered.arrow, extras.load("pyarrow.parquet")
    packed = list(importlib.import_module("ketch.codec.parquet").sizes(body))
    limits = {"thrift_string_size_limit": len(body) + 1, "thrift_container_size_limit": 200_000}
    file = parquet.ParquetFile(arrow.BufferReader(body), **limits)
    gathered.begin(file.schema_arrow.names)
    gathered.refuse_groups(file.schema_arrow)
    if not gathered.known:
        gathered.count(file.metadata.num_rows)
        return
    starts = tuple(f"{name}." for name in gathered.known)  # pyarrow reads those too
    held = [size for path, size in packed if path in gathered.known or path.startswith(starts)]
    if sum(size.bytes for size in held) > MOST_UNPACKED or sum(size.values for size in held) > MOST_CELLS:
        raise UndecodableBody("The Parquet file unpacks to too much", hint="Send the rows in parts.")
    # texts stay in their dictionary: no page can then repeat a long one, nor build each from the one before
    leaves = [file.schema.column(place) for place in range(len(file.schema))]
    texts = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY" and leaf.path in gathered.known]
    file = parquet.ParquetFile(arrow.BufferReader(body), read_dictionary=texts, **limits)
    yield from file.iter_batches(AT_ONCE, columns=gathered.known, use_threads=False)


# ---- answers ---------------------------------------------------------------------------------------


def write(columns: Mapping[str, Sequence[object]], kind: str) -> bytes:
    """Write flat columns as an Arrow stream or a Parquet file."""
    arrow = extras.load("pyarrow")
    arrays = [_array(arrow, values) for values in columns.values()]
    table, out = arrow.Table.from_arrays(arrays, names=list(columns)), arrow.BufferOutputStream()
    if kind == PARQUET:
        extras.load("pyarrow.parquet").write_table(table, out, compression="snappy")
    else:
        with extras.load("pyarrow.ipc").new_stream(out, table.schema) as stream:
            stream.write_table(table)
    found: bytes = out.getvalue().to_pybytes()
    return found


def _array(arrow: Any, values: Sequence[Any]) -> Any:
    """Make an array out of its buffers: `pyarrow.array` would import pandas."""
    kinds = {type(value) for value in values if value is not None}
    there = _bits(arrow, [value is not None for value in values]).buffers()[1] if None in values else None
    if kinds == {bool}:
        data = _bits(arrow, [bool(value) for value in values]).buffers()[1]
        return arrow.Array.from_buffers(arrow.bool_(), len(values), [there, data])
    if kinds == {int} and all(-(2**63) <= (value or 0) < 2**63 for value in values):
        numbers = arrow.py_buffer(array("q", [value or 0 for value in values]))
        return arrow.Array.from_buffers(arrow.int64(), len(values), [there, numbers])
    if kinds == {float}:
        numbers = arrow.py_buffer(array("d", [value or 0.0 for value in values]))
        return arrow.Array.from_buffers(arrow.float64(), len(values), [there, numbers])
    parts = [b"" if value is None else str(value).encode() for value in values]
    ends = array("q", [0])
    for part in parts:
        ends.append(ends[-1] + len(part))
    buffers = [there, arrow.py_buffer(ends), arrow.py_buffer(b"".join(parts))]
    return arrow.Array.from_buffers(arrow.large_string(), len(values), buffers)


def _bits(arrow: Any, values: Sequence[bool]) -> Any:
    return arrow.Array.from_buffers(arrow.int8(), len(values), [None, arrow.py_buffer(bytes(values))]).cast(
        arrow.bool_()
    )
