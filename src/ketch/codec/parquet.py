"""What a Parquet file would unpack to, learnt from its own words before anything is unpacked.

pyarrow tells the same of a sound file. It lets a damaged footer end the process though, and it has no words for pages:
a page of a few bytes may hold a billion values. Footer and page headers are Thrift's compact protocol; whatever pyarrow
could read in another way than this does (a field twice, or of a type that it should not have) is refused.
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from ketch.errors import UndecodableBody

MAGIC: Final = b"PAR1"
MOST_PARTS: Final = 100  # row groups
MOST_STEPS: Final = 300_000  # fields and elements of footer and page headers: a second's work

BOOL, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, STRUCT = 2, 3, 4, 5, 6, 7, 8, 9, 12
TRUE: Final = 1
Kind = Any  # of a value: a number, a list of one kind, a struct of kinds by field

# parquet.thrift, without encryption
_UNIT: Final[Kind] = {1: {}, 2: {}, 3: {}}
_TIME: Final[Kind] = {1: BOOL, 2: _UNIT}
_LOGICAL: Final[Kind] = {
    **{place: {} for place in (1, 2, 3, 4, 6, 11, 12, 13, 14, 15)},
    5: {1: I32, 2: I32},
    7: _TIME,
    8: _TIME,
    10: {1: BYTE, 2: BOOL},
    16: {1: BYTE},
    17: {1: BINARY},
    18: {1: BINARY, 2: I32},
}
_ELEMENT: Final[Kind] = {1: I32, 2: I32, 3: I32, 4: BINARY, **dict.fromkeys(range(5, 10), I32), 10: _LOGICAL}
_STATISTICS: Final[Kind] = {1: BINARY, 2: BINARY, 3: I64, 4: I64, 5: BINARY, 6: BINARY, 7: BOOL, 8: BOOL}
_PAIR: Final[Kind] = {1: BINARY, 2: BINARY}
_COLUMN: Final[Kind] = {
    1: I32,
    2: [I32],
    3: [BINARY],
    4: I32,
    **dict.fromkeys((5, 6, 7, 9, 10, 11, 14), I64),
    8: [_PAIR],
    12: _STATISTICS,
    13: [{1: I32, 2: I32, 3: I32}],
    15: I32,
    16: {1: I64, 2: [I64], 3: [I64]},
    17: {1: dict.fromkeys(range(1, 9), DOUBLE), 2: [I32]},
}
_CHUNK: Final[Kind] = {1: BINARY, 2: I64, 3: _COLUMN, 4: I64, 5: I32, 6: I64, 7: I32}
_GROUP: Final[Kind] = {1: [_CHUNK], 2: I64, 3: I64, 4: [{1: I32, 2: BOOL, 3: BOOL}], 5: I64, 6: I64, 7: I16}
_FOOTER: Final[Kind] = {1: I32, 2: [_ELEMENT], 3: I64, 4: [_GROUP], 5: [_PAIR], 6: BINARY, 7: [{1: {}, 2: {}}]}
_PAGE: Final[Kind] = {
    **dict.fromkeys((1, 2, 3, 4), I32),
    5: {**dict.fromkeys((1, 2, 3, 4), I32), 5: _STATISTICS},
    6: {},
    7: {1: I32, 2: I32, 3: BOOL},
    8: {**dict.fromkeys(range(1, 7), I32), 7: BOOL, 8: _STATISTICS},
}


@dataclass(frozen=True, slots=True)
class Size:
    """What the pages of one column of one row group say they unpack to."""

    bytes: int
    values: int


def sizes(body: bytes) -> Iterator[tuple[str, Size]]:
    """Say of each column of each row group, by its path, what its pages unpack to.

    Raises:
        UndecodableBody: this is no Parquet file, or one of which that cannot be told.
    """
    if len(body) < 12 or body[-4:] != MAGIC or body[:4] != MAGIC:
        raise _damaged("it does not end as one does")
    reader = _Reader(body, len(body) - 8)
    footer = reader.moved(len(body) - 8 - int.from_bytes(body[-8:-4], "little")).struct(_FOOTER)
    groups = footer.get(4, [])
    if len(groups) > MOST_PARTS:
        raise UndecodableBody(f"The table comes in more than {MOST_PARTS} parts", hint="Combine its row groups.")
    for group in groups:
        for chunk in group.get(1, []):
            column = chunk.get(3, {})
            if 1 in chunk or not column.keys() >= {3, 5, 7, 9}:
                raise _damaged("a column is not in it")
            yield ".".join(part.decode("utf-8", "replace") for part in column[3]), _pages(reader, column)


def _pages(reader: "_Reader", column: Mapping[int, Any]) -> Size:
    first, early = column[9], column.get(11, 0)
    start = early if 0 < early < first else first
    end = min(start + column[7] + 100, reader.end)  # pyarrow grants old writers as many bytes more
    unpacked = values = 0
    reader.moved(start)
    while values < column[5] and reader.at < end:
        page = reader.struct(_PAGE)
        packed, size = page.get(3, -1), page.get(2, -1)
        held = sum(page[each].get(1, 0) for each in (5, 8) if each in page)
        if packed < 0 or size < 0 or held < 0:
            raise _damaged("a page has no size")
        unpacked, values = unpacked + size, values + held
        reader.at += packed
    return Size(unpacked, values)


def _damaged(why: str) -> UndecodableBody:
    return UndecodableBody(f"The body is not a Parquet file that can be read: {why}", hint="Write the table again.")


class _Reader:
    """Thrift's compact protocol, as far as Parquet uses it."""

    def __init__(self, data: bytes, end: int) -> None:
        self.data, self.at, self.end = data, 0, end
        self._steps = 0

    def moved(self, at: int) -> "_Reader":
        """Read on elsewhere."""
        if not 0 <= at <= self.end:
            raise _damaged("it points outside itself")
        self.at = at
        return self

    def struct(self, kinds: Mapping[int, Kind]) -> dict[int, Any]:
        found: dict[int, Any] = {}
        last = 0
        while head := self._bytes(1)[0]:
            kind, step = head & 15, head >> 4
            last = last + step if step else self._signed(16)
            if last in found or not 0 < last < 2**15:
                raise _damaged("a field stands there twice")
            found[last] = self._field(kind, kinds.get(last))
        return found

    def _step(self, steps: int = 1) -> None:
        self._steps += steps
        if self._steps > MOST_STEPS:
            raise UndecodableBody(
                "The Parquet file has too many parts", hint="Write it in one row group, in few pages."
            )

    def _field(self, kind: int, wanted: Kind) -> Any:
        self._step()
        if kind in {BOOL, TRUE}:
            if wanted in (BOOL, None):
                return kind == TRUE
        elif wanted is None and kind < LIST:  # what newer writers may add
            return self._value(kind)
        elif wanted is not None and kind == _type(wanted):
            return self._value(wanted)
        raise _damaged("a field is not of its type")

    def _value(self, wanted: Kind) -> Any:
        if isinstance(wanted, dict):
            return self.struct(wanted)
        if isinstance(wanted, list):
            return self._list(wanted[0])
        if wanted == BYTE:
            return self._bytes(1)[0]
        if wanted == DOUBLE:
            return struct.unpack("<d", self._bytes(8))[0]
        if wanted == BINARY:
            return self._bytes(self._varint(32))
        return self._signed({I16: 16, I32: 32, I64: 64}[wanted])

    def _list(self, inner: Kind) -> list[Any]:
        head = self._bytes(1)[0]
        size = head >> 4 if head >> 4 != 15 else self._varint(32)
        if head & 15 != _type(inner) or size > self.end - self.at:
            raise _damaged("a list is not of its type")
        self._step(size)
        return [self._value(inner) for _ in range(size)]

    def _signed(self, bits: int) -> int:
        found = self._varint(bits)
        return (found >> 1) ^ -(found & 1)

    def _varint(self, bits: int) -> int:
        found = 0
        for place in range(0, 70, 7):
            byte = self._bytes(1)[0]
            found |= (byte & 127) << place
            if byte < 128:
                if found >= 2**bits:
                    raise _damaged("a number is too large")
                return found
        raise _damaged("a number has no end")

    def _bytes(self, size: int) -> bytes:
        end = self.at + size
        if end > self.end:
            raise _damaged("it ends early")
        found, self.at = self.data[self.at : end], end
        return found


def _type(wanted: Kind) -> int:
    return STRUCT if isinstance(wanted, dict) else LIST if isinstance(wanted, list) else int(wanted)
