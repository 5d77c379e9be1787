"""The gate: decides whether a pickle, joblib or skops file may be opened, and opens it; whose signatures count here."""

import contextlib
import functools
import hashlib
import importlib
import importlib.resources
import json
import os
import re
import stat
import sys
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

from ketch.errors import BadSignature, KetchError, NotAModel, SettingError, TrustError, UnsupportedModel

SIBLINGS = {
    "alone": "ketch.trust.alone",
    "arguments": "ketch.trust.arguments",
    "arrays": "ketch.trust.arrays",
    "boosters": "ketch.trust.boosters",
    "calling": "ketch.trust.calling",
    "child": "ketch.trust.child",
    "graphs": "ketch.trust.graphs",
    "inflate": "ketch.trust.inflate",
    "keyring": "ketch.trust.keyring",
    "opcodes": "ketch.trust.opcodes",
    "signing": "ketch.trust.signing",
    "skops": "ketch.trust.skops",
    "structures": "ketch.trust.structures",
    "unpickle": "ketch.trust.unpickle",
    "values": "ketch.trust.values",
    "zipped": "ketch.trust.zipped",
}
PYTHON_2 = {"long": "int", "unicode": "str", "xrange": "range"}  # what protocol 2 still writes
KINDS = ("classes", "reconstructors", "functions")
SKOPS_MEMBER = re.compile(rb"[\w-]{1,80}\.(npy|npz|bin)|schema\.json", re.ASCII)
NAMED = 5  # offenders spelled out in a message
SIGNATURE = ".sig"  # a bundle's signature lies beside it under the bundle's name and this
MOST_SIGNATURE = 1 << 20  # bytes of a signature; that of a bundle has 1 KB

Pair = tuple[str, str]


class Fault(Exception):
    """One reason for refusal, as a short readable sentence."""


@dataclass(frozen=True)
class Finding:
    """What the static pass saw, without running anything."""

    format: str
    imports: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    sklearn_version: str = ""


@dataclass(frozen=True)
class Key:
    """A public key that this user knows: `revoked` is when its signatures stopped to count, empty while they do."""

    fingerprint: str
    name: str
    pem: str
    since: str
    revoked: str = ""


@dataclass(frozen=True)
class Lists:
    """The whole (module, name) pairs that a file may name, by what may be done with them."""

    classes: frozenset[Pair]
    reconstructors: frozenset[Pair]
    functions: frozenset[Pair]
    moved: Mapping[str, str]

    def settle(self, module: str, name: str) -> Pair:
        """Return the pair under its present name."""
        if module == "__builtin__":
            name = PYTHON_2.get(name, name)
        return self.moved.get(module, module), name

    def holds(self, pair: Pair) -> bool:
        """Tell whether the pair is on any list."""
        return pair in self.classes or pair in self.reconstructors or pair in self.functions


@dataclass(frozen=True, slots=True)
class Name:
    """A global that a stream names; `value` when it may be stored, not only created from or called."""

    pair: Pair
    known: bool
    value: bool


@dataclass(slots=True, eq=False)
class Box:
    """A container as the static pass sees it: what it holds only where that matters."""

    kind: str  # "tuple", "list", "dict", "set" or "frozenset"
    depth: int = 1
    count: int = 0
    raw: bool = False  # a tuple that holds something that may not be stored
    items: tuple[object, ...] = ()
    entries: dict[object, object] | None = field(default_factory=dict)  # None: too many to keep


@dataclass(slots=True, eq=False)
class Made:
    """An object as the static pass sees it: what created it, and whether its state was set."""

    pair: Pair
    depth: int = 1
    built: bool = False
    facts: dict[str, object] = field(default_factory=dict)
    waits: bool = False  # not to be used before its state is set


@dataclass(frozen=True, slots=True)
class Blob:
    """Bytes of which only the number is kept."""

    size: int


def items_of(value: object) -> tuple[object, ...] | None:
    """Return the items of a tuple that holds only values, else None."""
    return value.items if isinstance(value, Box) and value.kind == "tuple" and not value.raw else None


def size_of(value: object) -> int | None:
    """Return the number of bytes in the value, None when it is no bytes."""
    if isinstance(value, Blob):
        return value.size
    return len(value) if isinstance(value, bytes) else None


def is_name(value: object, *pairs: Pair) -> bool:
    """Tell whether the value is one of these globals."""
    return isinstance(value, Name) and value.pair in pairs


def is_whole(value: object) -> bool:
    """Tell whether the value is an int, and not a bool."""
    return type(value) is int


def sibling(name: str) -> ModuleType:
    """Import a module of this room by its short name."""
    return importlib.import_module(SIBLINGS[name])


def lists(home: Path | None = None) -> Lists:
    """Read the shipped lists, with the classes that this user added in `home / "trust.toml"`.

    Raises:
        SettingError: the user's file is not usable.
    """
    shipped = _shipped()
    added = _added(home / "trust.toml") if home is not None else frozenset()
    return Lists(shipped.classes | added, shipped.reconstructors, shipped.functions, shipped.moved)


@functools.cache
def _shipped() -> Lists:
    table = tomllib.loads(importlib.resources.files("ketch.trust").joinpath("lists.toml").read_text("utf-8"))
    classes, reconstructors, functions = (_pairs(table[kind]) for kind in KINDS)
    return Lists(classes, reconstructors, functions, table["moved"])


def _pairs(table: Mapping[str, list[str]]) -> frozenset[Pair]:
    return frozenset((module, name) for module, names in table.items() for name in names)


def _added(path: Path) -> frozenset[Pair]:
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return frozenset()
    except (OSError, ValueError) as error:
        raise SettingError(f"{path} cannot be read: {error}", hint="Mend it, or delete it") from None
    classes = table.pop("classes", {})
    good = isinstance(classes, dict) and all(
        isinstance(names, list) and all(isinstance(name, str) and name.isidentifier() for name in names)
        for names in classes.values()
    )
    if table or not good:
        form = '[classes] with lines such as "package.module" = ["Name"]'
        raise SettingError(f"{path} is not in the right form", hint=f"It may hold only {form}")
    return _pairs(classes)


def is_skops(data: bytes) -> bool:
    """Tell whether the bytes are a skops file, whole or not."""
    size = int.from_bytes(data[26:28], "little")  # of the first member's name, which tells it from a bundle
    return data[:4] == b"PK\x03\x04" and SKOPS_MEMBER.fullmatch(data[30 : 30 + size]) is not None


def as_skops(model: object, *, home: Path) -> tuple[bytes, object] | None:
    """Write a model as a skops file that the gate opens, and give it with what it opens to; None where it cannot be."""
    found: tuple[bytes, object] | None = sibling("skops").dump(model, lists(home))
    return found


def digest(data: bytes) -> str:
    """Return the SHA-256 of the bytes, in hex."""
    return hashlib.sha256(data).hexdigest()


def examine(data: bytes, *, home: Path | None = None) -> Finding:
    """Look through the file without running anything in it; whatever cannot be read is a fault."""
    found = sibling("skops" if is_skops(data) else "opcodes").scan(data, lists(home))
    return found if isinstance(found, Finding) else Finding("")


def unpacked(data: bytes) -> bytes:
    """Return a file's pickle, without the compression of joblib's.

    Raises:
        Fault: it is packed in a way that is not known, or too large.
    """
    found: bytes = sibling("inflate").inflate(data)
    return found


def is_approved(sha256: str, *, home: Path) -> bool:
    """Tell whether this user approved the file with this SHA-256."""
    return sha256 in _read(home / "approvals.json")


def approve(data: bytes, *, home: Path, name: str, when: str) -> Finding:
    """Record that this user approves exactly these bytes; `when` is an ISO time.

    Raises:
        NotAModel: the bytes are not a pickle or joblib file.
    """
    found = _readable(examine(data, home=home), name)
    entry = {"name": name, "when": when, "imports": list(found.imports), "refused": list(found.refused)}
    record(digest(data), entry, home=home)
    return found


def record(sha256: str, entry: Mapping[str, object], *, home: Path) -> None:
    """Record an approval of what has this SHA-256; `entry` says what it is and when that was."""
    path = home / "approvals.json"
    with changing(home):
        write_record(path, {**_read(path), sha256: dict(entry)})


def graph_fault(data: bytes, *, straight: bool = False) -> str:
    """Give the reason not to open an ONNX file, empty for none; `straight` refuses graphs inside the graph, too."""
    return str(sibling("graphs").fault(data, straight=straight))


def keys(home: Path) -> dict[str, Key]:
    """Give the public keys that this user knows, by fingerprint.

    Raises:
        SettingError: the user's record of them is damaged.
    """
    found: dict[str, Key] = sibling("keyring").read(home)
    return found


def signature_beside(path: Path) -> bytes | None:
    """Read the signature that lies beside a bundle, None where there is none.

    Raises:
        BadSignature: what lies there cannot be read.
    """
    beside = path.with_name(path.name + SIGNATURE)
    if not os.path.lexists(beside):
        return None
    hint = f"Fetch the signature of {path.name} again, or delete {beside.name} to use the bundle without it."
    if not beside.is_file():  # a pipe, say, would be waited for
        raise BadSignature(f"{beside} is not a file", hint=hint)
    try:
        with beside.open("rb") as file:
            return file.read(MOST_SIGNATURE + 1)
    except OSError as error:
        raise BadSignature(f"{beside} cannot be read: {error.strerror}", hint=hint) from None


def check_signature(
    data: bytes, signature: bytes | None, *, known: Mapping[str, Key], name: str, required: bool = False
) -> str:
    """Give the fingerprint of the known key that signed these bytes; empty for no signature, where none is required.

    Raises:
        BadSignature: the signature is missing, damaged, of other bytes, or not by a known and unrevoked key.
    """
    if signature is not None:
        key: Key = sibling("signing").verify(digest(data), signature, known, name)
        return key.fingerprint
    if required:
        raise BadSignature(
            f"{name} has no signature, and one is required here",
            hint=f"Put {name}{SIGNATURE} beside it, from whoever made it; if you made it: ketch sign {name}",
        )
    return ""


def open_model(
    data: bytes, *, home: Path, name: str, signed: bool = False, loader: str = SIBLINGS["unpickle"]
) -> object:
    """Open the file if this user approved it or nothing in it can do harm, and return what it holds.

    `signed` says that it came out of a bundle signed with a trusted key, which counts like an approval.
    `loader` is the module that opens it: this room's, or the one that knows files of older scikit-learn.

    Raises:
        TrustError: the file must not be opened as it stands.
        NotAModel: the bytes are not a pickle or joblib file.
        UnsupportedModel: the file is harmless or approved, but cannot be opened in this environment.
    """
    sha256 = digest(data)
    if is_approved(sha256, home=home):
        return _open_approved(data, name, loader)
    found = _readable(examine(data, home=home), name)
    if found.refused or found.faults:
        if signed:
            return _open_approved(data, name, loader)
        raise _refusal(found, name, sha256)
    known = lists(home)
    try:
        _judge_once(data, known, home, loader)
        return importlib.import_module(loader).load(data, known)
    except Fault as fault:
        if signed:
            return _open_approved(data, name, loader)
        raise _refusal(Finding(found.format, faults=(str(fault),)), name, sha256) from None
    except (KetchError, MemoryError):
        raise
    except Exception as error:
        raise _unopened(error, name, found.sklearn_version) from error


def try_first(data: bytes, *, home: Path, name: str, loader: str) -> None:
    """Open a framework's own file in a child process, once, so that what crashes or never ends does so there.

    `loader` is the module that opens it; whether it can be opened at all is for the caller to find out.

    Raises:
        TrustError: the child crashed, or took too much.
    """
    sha256 = digest(data)
    if is_approved(sha256, home=home):
        return
    try:
        _judge_once(data, lists(home), home, loader)
    except Fault as fault:
        raise _refusal(Finding("", faults=(str(fault),)), name, sha256) from None


def is_sound(library: str, model: object) -> bool:
    """Tell whether the trees of a boosting library's model are trees and stay inside it."""
    try:
        return bool(sibling("boosters").SOUND[library](model))
    except Exception:  # whatever a check trips over is not as it should be
        return False


def _open_approved(data: bytes, name: str, loader: str) -> object:
    try:
        return importlib.import_module(loader).load_approved(data)
    except Exception as error:  # approved code may raise anything
        raise _unopened(error, name, "") from error


def _judge_once(data: bytes, known: Lists, home: Path, loader: str) -> None:
    child, sha256 = sibling("child"), digest(data)
    key = digest(f"{sha256} {loader} {child.circumstances(known)}".encode())
    path = home / "checked.json"
    checked = _read(path)
    if key not in checked:
        child.judge(data, known, loader)
        with contextlib.suppress(
            OSError
        ):  # a container's read-only file system only costs the next start a second look
            write_record(path, {**dict(list(checked.items())[-999:]), key: sha256})


def _readable(found: Finding, name: str) -> Finding:
    if not found.format:
        reason = f": {found.faults[0]}" if found.faults else ""
        raise NotAModel(
            f"{name} is not a pickle or joblib file{reason}",
            hint="Give the file that pickle.dump or joblib.dump wrote.",
        )
    return found


def _refusal(found: Finding, name: str, sha256: str) -> TrustError:
    if found.refused:
        more = len(found.refused) - NAMED
        names = ", ".join(found.refused[:NAMED]) + (f" and {more} more" if more > 0 else "")
        message = f"{name} wants code that is not known to be harmless: {names}"
    else:
        message = f"{name} is not safe to open: {'; '.join(found.faults[:2])}"
    first = "Look at what it imports." if found.refused else "Save or fetch it again."
    return TrustError(message, hint=f"{first} If you trust its maker, approve this one file: --trust=sha256:{sha256}")


def _unopened(error: Exception, name: str, made_with: str) -> UnsupportedModel:
    first = (str(error).splitlines() or [""])[0][:200]
    hint = "Open it in the environment that it was made in"
    if made_with:
        hint += f" (scikit-learn {made_with})"
    return UnsupportedModel(f"{name} cannot be opened here: {type(error).__name__}: {first}", hint=hint)


def _read(path: Path) -> dict[str, object]:
    try:
        table = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        table = None
    if not isinstance(table, dict):
        raise SettingError(f"{path} cannot be read", hint="Delete it, and approve again what it held")
    return table


def changing(folder: Path) -> contextlib.AbstractContextManager[None]:
    """Keep every other process and thread from changing the user's records in a folder, while one is changed."""
    found: contextlib.AbstractContextManager[None] = sibling("alone").changing(folder)
    return found


def write_record(path: Path, table: object) -> None:
    """Write one of the user's own records as JSON, whole or not at all, readable by this user only."""
    write_whole(path, json.dumps(table, indent=1).encode())


def write_whole(path: Path, data: bytes, *, like: Path | None = None) -> None:
    """Write a file whole or not at all, readable by this user only, or by whom the file `like` is."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=path.name, dir=path.parent)  # made 0600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if like is not None:
            _same_readers(like, temporary)
        Path(temporary).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        raise


def _same_readers(like: Path, path: str) -> None:
    kept = like.stat()
    if sys.platform != "win32" and (kept.st_uid, kept.st_gid) != (os.geteuid(), os.getegid()):
        with contextlib.suppress(PermissionError):
            os.chown(path, kept.st_uid, kept.st_gid)
    Path(path).chmod(stat.S_IMODE(kept.st_mode))
