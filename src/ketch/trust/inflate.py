"""Undoes the compression that joblib puts around a file, within a bound."""

import bz2
import lzma
import zlib
from typing import Protocol

from ketch.trust import Fault

LARGEST = 4 << 30  # bytes of an opened file
ROOMY = 512 << 20  # bytes that any small file may open to; beyond that it is a matter of proportion
RATIO = 200
CHUNK = 16 << 20
PREFIXES = {
    b"\x78": "zlib",
    b"\x1f\x8b": "gzip",
    b"BZ": "bz2",
    b"\xfd7zXZ": "xz",
    b"\x5d\x00": "lzma",
    b"\x04\x22\x4d\x18": "lz4",
    b"ZF": "old",
}


class _Decoder(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


def packing(data: bytes) -> str:
    """Name the compression around the bytes, or return "" for none."""
    return next((name for prefix, name in PREFIXES.items() if data.startswith(prefix)), "")


def inflate(data: bytes) -> bytes:
    """Return the bytes without the compression around them.

    Raises:
        Fault: they are truncated, hold something more, or open to more than the bound.
    """
    name = packing(data)
    if not name:
        return _bounded(data)
    if name in {"lz4", "old"}:
        what = "lz4 compression" if name == "lz4" else "a joblib format from before 0.10"
        raise Fault(f"it uses {what}: save it again with joblib.dump(model, file, compress=3)")
    try:
        return _decode(_decoder(name), data, min(LARGEST, max(ROOMY, RATIO * len(data))))
    except (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError):
        raise Fault(f"its {name} compression is damaged") from None


def _decoder(name: str) -> _Decoder:
    if name in {"zlib", "gzip"}:
        return _Zlib(zlib.MAX_WBITS + (16 if name == "gzip" else 0))
    return bz2.BZ2Decompressor() if name == "bz2" else lzma.LZMADecompressor(memlimit=CHUNK * 8)


class _Zlib:
    """A zlib decoder with the manners of those of bz2 and lzma: it keeps what it has not read yet."""

    def __init__(self, wbits: int) -> None:
        self._inner = zlib.decompressobj(wbits)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        return self._inner.decompress(data or self._inner.unconsumed_tail, max_length)


def _decode(decoder: _Decoder, data: bytes, most: int) -> bytes:
    pieces = [decoder.decompress(data, CHUNK)]
    total = len(pieces[0])
    while not decoder.eof:
        piece = decoder.decompress(b"", CHUNK)
        if not piece and not decoder.eof:
            raise EOFError
        total += len(piece)
        if total > most:
            raise Fault(f"it opens to more than {most >> 20} MiB")
        pieces.append(piece)
    if decoder.unused_data:
        raise Fault("something more follows after its end")
    return b"".join(pieces)


def _bounded(data: bytes) -> bytes:
    if len(data) > LARGEST:
        raise Fault(f"it is larger than {LARGEST >> 30} GiB")
    return data
