"""The archives that images come in and go out as: read in little memory, and written as engines write them.

bytes --*Counted*--> bytes with their hash --*Tar*--> Members    Entries --*packed*--> a layer
"""

import gzip
import hashlib
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import IO, Any, Final, Protocol, cast

from ketch.errors import ImageError

BLOCK: Final = 512
CHUNK: Final = 2**20
LARGEST: Final = 8 * 2**30 - 1  # bytes of a layer, unpacked: more does not fit a header
NAMED: Final = 2**20  # bytes of a name
RATIO: Final = 200  # times that honest bytes shrink at most; counted from CHEAP on
CHEAP: Final = 64 * 2**20
DIRECTORY, FILE, EXTENDED = b"5", b"0", b"x"


class Readable(Protocol):
    """What gives bytes in their order."""

    def read(self, size: int = -1, /) -> bytes:
        """Give at most so many."""


@dataclass
class Part:
    """The next bytes of a file, so many of them."""

    file: Readable
    left: int

    def read(self, size: int = -1, /) -> bytes:
        """Give at most so many."""
        data = self.file.read(min(size, self.left) if size >= 0 else self.left)
        self.left -= len(data)
        return data


class Counted:
    """Bytes that pass, with their hash; more than what can honestly be in so few are refused."""

    def __init__(self, file: Readable, sink: Callable[[bytes], object] | None = None, *, within: int = 0) -> None:
        self.file, self.sink = file, sink
        self.most = min(LARGEST, max(CHEAP, within * RATIO)) if within else LARGEST
        self.size, self.hashed = 0, hashlib.sha256()

    @property
    def digest(self) -> str:
        """Give the hash of what has passed."""
        return f"sha256:{self.hashed.hexdigest()}"

    def read(self, size: int = -1, /) -> bytes:
        """Give at most so many."""
        data = self.file.read(CHUNK if size < 0 else size)
        self.size += len(data)
        if self.size > self.most:
            raise ImageError("The base unpacks to more than can honestly be in it", hint="Get it from its maker again.")
        self.hashed.update(data)
        if self.sink is not None:
            self.sink(data)
        return data


def gunzip(file: Readable) -> Readable:
    """Give what is packed in a file, of one piece or of several."""
    return gzip.GzipFile(fileobj=cast(Any, file))  # it asks for no more than `read`


def drain(file: Readable) -> None:
    """Read to the end."""
    while file.read(CHUNK):
        pass


# ---- reading -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Member:
    """A member of a tar: its name, its kind, and where its bytes are."""

    name: str
    kind: bytes
    link: str
    offset: int
    size: int


class Tar:
    """The members of a tar in their order; `read` gives the bytes of the one that was given last.

    `tarfile` holds in memory, whole, whatever a header of its extensions is said to hold; this holds only names.
    """

    def __init__(self, file: Readable) -> None:
        self.file = file
        self.at, self.left = 0, 0

    def read(self, size: int = -1, /) -> bytes:
        """Give at most so many bytes of a member."""
        data = self._take(min(size, self.left) if size >= 0 else self.left)
        self.left -= len(data)
        return data

    def __iter__(self) -> Iterator[Member]:
        """Give one after the other."""
        told: dict[str, str] = {}
        while (found := self._header()) is not None:
            if found.type == tarfile.XHDTYPE:
                told |= _records(self._long(found.size))
            elif found.type in {tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK}:
                name = "path" if found.type == tarfile.GNUTYPE_LONGNAME else "linkpath"
                told[name] = _text(self._long(found.size).partition(b"\0")[0])
            elif found.type == tarfile.XGLTYPE:
                self._long(found.size)
            else:
                yield self._member(found, told)
                self._skip()
                told = {}

    def _member(self, found: tarfile.TarInfo, told: dict[str, str]) -> Member:
        size = int(told.get("size", found.size)) if found.isreg() else 0
        if size < 0 or found.type == tarfile.GNUTYPE_SPARSE or any(name.startswith("GNU.sparse") for name in told):
            raise ValueError("a file has no honest size")
        self.left, self.padding = size, -size % BLOCK
        name = told.get("path", found.name)
        return Member(name, found.type, told.get("linkpath", found.linkname), self.at, size)

    def _header(self) -> tarfile.TarInfo | None:
        block = self._take(BLOCK)
        if not block.strip(b"\0"):
            return None
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")

    def _long(self, size: int) -> bytes:
        if not 0 <= size <= NAMED:
            raise ValueError("a name is too long")
        return self._take(size + -size % BLOCK)[:size]

    def _skip(self) -> None:
        rest = self.left + self.padding
        if isinstance(self.file, Counted):
            while rest and (data := self._take(min(rest, CHUNK))):
                rest -= len(data)
        else:
            cast(IO[bytes], self.file).seek(rest, 1)
            self.at += rest

    def _take(self, size: int) -> bytes:
        data = self.file.read(size)
        self.at += len(data)
        return data


def _records(data: bytes) -> dict[str, str]:
    """Read the records of a PAX header: their length, a name, a value."""
    found = {}
    while data:
        length = int(data.partition(b" ")[0])
        name, _, value = data[:length].partition(b" ")[2].partition(b"=")
        if not 0 < length <= len(data):
            raise ValueError("a name has no end")
        found[_text(name)] = _text(value.removesuffix(b"\n"))
        data = data[length:]
    return found


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


# ---- writing -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """A file of a layer, or a folder where it has no bytes to give."""

    name: str
    mode: int = 0o755
    data: Callable[[], bytes] | None = field(default=None, repr=False)


def packed(entries: Iterable[Entry], epoch: int) -> Iterator[bytes]:
    """Write a tar as Go's `archive/tar` does for buildah: USTAR, and PAX where a name does not fit; owned by root."""
    for each in entries:
        yield from member(each, epoch)
    yield bytes(2 * BLOCK)


def member(entry: Entry, epoch: int) -> Iterator[bytes]:
    """Write one file or folder."""
    if entry.data is None:
        yield header(entry.name, 0, entry.mode, epoch, DIRECTORY)
        return
    data = entry.data()
    yield header(entry.name, len(data), entry.mode, epoch)
    yield data
    yield bytes(-len(data) % BLOCK)


def header(name: str, size: int, mode: int, epoch: int, kind: bytes = FILE) -> bytes:
    """Write a header as Go does. Python's `tarfile` masks the mode, and splits long names elsewhere."""
    folder = kind == DIRECTORY
    path = name + "/" * folder
    mode |= 0o40000 if folder else 0o100000
    split = _split(path)
    if split is not None:
        return _block(split[1], size, mode, epoch, kind, split[0])
    record = f" path={path}\n".encode()
    length = len(record) + len(str(len(record)))
    length += len(str(length)) - len(str(len(record)))
    record = str(length).encode() + record
    above, _, last = path.rpartition("/")
    called = _ascii("/".join((above, "PaxHeaders.0", *([last] if last else [])))).removeprefix(b"/")
    extension = _block(called[:100].rstrip(b"/"), len(record), None, 0, EXTENDED)
    return extension + record + bytes(-len(record) % BLOCK) + _block(_ascii(path), size, mode, epoch, kind)


def _ascii(name: str) -> bytes:
    return name.encode("ascii", "ignore")


def _split(path: str) -> tuple[bytes, bytes] | None:
    """Split a name into prefix and name, at the last slash that leaves both short enough."""
    if not path.isascii():
        return None
    raw = path.encode()
    if len(raw) <= 100:
        return b"", raw
    length = 156 if len(raw) > 156 else len(raw) - raw.endswith(b"/")
    cut = raw[:length].rfind(b"/")
    if cut <= 0 or not 0 < len(raw) - cut - 1 <= 100 or cut > 155:
        return None
    return raw[:cut], raw[cut + 1 :]


def _block(name: bytes, size: int, mode: int | None, epoch: int, kind: bytes, prefix: bytes = b"") -> bytes:
    own = mode is not None  # an extension belongs to nobody, and is nothing
    if len(name) > 100 and name[:100].endswith(b"/"):
        name = name[:100].rstrip(b"/")
    block = name[:100].ljust(100, b"\0")
    block += b"".join(f"{number:07o}\0".encode() for number in (mode or 0, 0, 0))
    block += f"{size:011o}\0{epoch:011o}\0".encode() + b" " * 8 + kind + bytes(100) + b"ustar\x0000"
    block += bytes(64) + (b"0000000\0" * 2 if own else bytes(16)) + prefix.ljust(155, b"\0")
    block = block.ljust(BLOCK, b"\0")
    return block[:148] + f"{sum(block):06o}\0 ".encode() + block[156:]
