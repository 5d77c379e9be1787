"""The store: numbered versions of bundles that never change, and the aliases that point at them, in one folder."""

import hashlib
import os
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec

from ketch.errors import NoSuchVersion, StoreError
from ketch.schema import NAME

FORMAT = 1
CHAMPION = "champion"
NUMBER = re.compile(r"[1-9][0-9]{0,8}", re.ASCII)
SHOWN = 10  # versions or models named in one message

Positive = Annotated[int, msgspec.Meta(ge=1)]
T = TypeVar("T")


@dataclass(frozen=True)
class Version:
    """One pushed bundle: which it is, what its bytes are, and the aliases that point at it now."""

    name: str
    number: int
    sha256: str
    size: int
    pushed_at: str
    aliases: tuple[str, ...]

    @property
    def ref(self) -> str:
        """The reference that always means this version."""
        return f"{self.name}:{self.number}"


Versions = list[Version]  # inside Store, `list` is the method


class _Entry(msgspec.Struct, frozen=True):
    version: Positive
    sha256: Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]  # becomes a path: nothing else may pass
    size: int
    pushed_at: str


class _Step(msgspec.Struct, frozen=True):
    version: Positive
    at: str


class _Alias(msgspec.Struct, frozen=True):
    version: Positive
    at: str
    before: tuple[_Step, ...] = ()  # oldest first; rollback takes the last


def parse(ref: str) -> tuple[str, int | None, str | None]:
    """Split `churn:3`, `churn@champion` or `churn` into name, number and alias.

    Raises:
        StoreError: the reference, or a name in it, is not of that form.
    """
    name, colon, number = ref.partition(":")
    if colon:
        if not NUMBER.fullmatch(number):
            raise StoreError(f"{ref[:80]!r} names no version", hint="Write a number, as in churn:3.")
        return _checked(name, "model"), int(number), None
    name, at, alias = ref.partition("@")
    return _checked(name, "model"), None, _checked(alias, "alias") if at else None


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"the store cannot be read or written: {error}",
            hint="Check that the store is a folder, that this user may write it and that its disk has room.",
        ) from None


class Store:
    """A folder of bundles that many processes may read and write at once, without locks."""

    @_explained()
    def __init__(self, root: Path) -> None:
        """Open the store in the folder `root`, which the first push creates.

        Raises:
            StoreError: the folder cannot be read, or has a format that this Ketch does not know.
        """
        self.root = Path(root)
        self._check_format()

    @_explained()
    def push(self, data: bytes, name: str, *, when: str, signature: bytes | None = None) -> Version:
        """Keep `data` as the next version of `name`, or find the version that already holds the same bytes.

        A version found keeps its first `pushed_at`, so a value other than `when` says that nothing was added.
        A signature takes the place of the one that the same bytes had before.

        Raises:
            StoreError: the name is not usable, or the folder cannot be written.
        """
        _checked(name, "model")
        if not self._check_format() and self._create(self.root / "format", b"%d\n" % FORMAT):
            _sync(self.root.parent)
        digest = hashlib.sha256(data).hexdigest()
        self._keep(data, digest)
        if signature is not None:
            self._replace(self._signature(digest), signature)
        folder = self._model(name) / "versions"
        seen: dict[int, _Entry | None] = {}
        while True:
            seen |= {number: self._entry(name, number) for number in self._numbers(name) if number not in seen}
            number = next((n for n, entry in seen.items() if entry and entry.sha256 == digest), 0)
            if number:
                break
            number = max(seen, default=0) + 1
            entry = _Entry(number, digest, len(data), when)
            if self._create(folder / f"{number}.json", _encoded(entry)):
                break  # otherwise another push took this number: look at what it holds, take the next
        self._settle(folder)
        return self.resolve(f"{name}:{number}")

    @_explained()
    def pull(self, ref: str) -> bytes:
        """Read the bytes of a version and check them against its digest.

        Raises:
            NoSuchVersion: nothing in the store has this reference.
            StoreError: the bytes are lost or changed.
        """
        version = self.resolve(ref)
        try:
            data = self._blob(version.sha256).read_bytes()
        except FileNotFoundError:
            data = b""
        if hashlib.sha256(data).hexdigest() != version.sha256:
            raise StoreError(
                f"the bytes of {version.ref} are lost or changed in the store",
                hint=f"Push the bundle with sha256 {version.sha256} again: the same bytes repair the version.",
            )
        return data

    @_explained()
    def signature(self, ref: str) -> bytes | None:
        """Read the signature that lies beside a version, None where there is none; nothing is verified.

        Raises:
            NoSuchVersion: nothing in the store has this reference.
        """
        try:
            return self._signature(self.resolve(ref).sha256).read_bytes()
        except FileNotFoundError:
            return None

    @_explained()
    def resolve(self, ref: str) -> Version:
        """Find the version that `churn:3`, `churn@champion` or a bare `churn` means now.

        A bare name is its champion, or else its only version.

        Raises:
            NoSuchVersion: there is none, or a bare name has several and no champion.
        """
        name, number, alias = parse(ref)
        aliases = self._aliases(name)
        pointed = aliases.get(alias or CHAMPION)
        if number is None and pointed:
            number = pointed.version
        elif number is None and alias is None and len(known := self._known(name)) == 1:
            number = known[0]
        entry = self._entry(name, number) if number else None
        if entry is None:
            raise self._missing(f"{name}:{number}" if number else ref)
        return _version(name, entry, aliases)

    @_explained()
    def promote(self, ref: str, alias: str = CHAMPION, *, when: str) -> Version:
        """Point an alias of the model at this version, once its bytes are checked.

        Raises:
            NoSuchVersion: nothing in the store has this reference.
            StoreError: the alias is not usable, or the version's bytes are lost or changed.
        """
        _checked(alias, "alias")
        version = self.resolve(ref)
        now = self._alias(version.name, alias)
        if now and now.version == version.number:
            return version
        before = (*now.before, _Step(now.version, now.at)) if now else ()
        return self._point(version.name, alias, _Alias(version.number, when, before))

    @_explained()
    def rollback(self, name: str, alias: str = CHAMPION, *, when: str) -> Version:
        """Point an alias back at what it pointed to before; again, further back.

        Raises:
            NoSuchVersion: the alias does not exist, or never pointed anywhere else.
            StoreError: the bytes of the version before are lost or changed.
        """
        now = self._alias(_checked(name, "model"), _checked(alias, "alias"))
        if now is None:
            raise self._missing(f"{name}@{alias}")
        if not now.before:
            raise NoSuchVersion(
                f"{name}@{alias} is {name}:{now.version} and was never anything else",
                hint=f"Choose a version yourself: {_listed(self._known(name), name)}.",
            )
        *earlier, last = now.before
        return self._point(name, alias, _Alias(last.version, when, tuple(earlier)))

    @_explained()
    def list(self, name: str | None = None) -> Versions:
        """List the versions of one model, or of all: by name, oldest first.

        Raises:
            StoreError: the name is not usable, or a record in the store is damaged.
        """
        found = []
        for each in self._names() if name is None else [_checked(name, "model")]:
            aliases = self._aliases(each)
            entries = (self._entry(each, number) for number in self._numbers(each))
            found += [_version(each, entry, aliases) for entry in entries if entry]
        return found

    def _model(self, name: str) -> Path:
        return self.root / "models" / name

    def _blob(self, digest: str) -> Path:
        return self.root / "blobs" / "sha256" / digest[:2] / digest

    def _signature(self, digest: str) -> Path:
        return self.root / "signatures" / "sha256" / digest[:2] / digest

    def _names(self) -> Iterator[str]:
        folder = self.root / "models"
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if NAME.fullmatch(path.name):
                yield path.name

    def _numbers(self, name: str) -> range:
        folder = self._model(name) / "versions"
        stems = (path.stem for path in folder.glob("*.json"))
        # A listing taken while others push may hold a number and miss one below it, so only its highest counts.
        return range(1, max((int(stem) for stem in stems if NUMBER.fullmatch(stem)), default=0) + 1)

    def _known(self, name: str) -> tuple[int, ...]:
        return tuple(number for number in self._numbers(name) if self._entry(name, number))

    def _entry(self, name: str, number: int) -> _Entry | None:
        path = self._model(name) / "versions" / f"{number}.json"
        entry = _read(path, _Entry)
        if entry and entry.version != number:
            raise _damaged(path)
        return entry

    def _alias(self, name: str, alias: str) -> _Alias | None:
        return _read(self._model(name) / "aliases" / f"{alias}.json", _Alias)

    def _aliases(self, name: str) -> dict[str, _Alias]:
        stems = sorted(path.stem for path in (self._model(name) / "aliases").glob("*.json"))
        found = {stem: self._alias(name, stem) for stem in stems if NAME.fullmatch(stem)}
        return {stem: alias for stem, alias in found.items() if alias}

    def _check_format(self) -> bool:
        try:
            text = (self.root / "format").read_text("ascii", "replace").strip()
        except FileNotFoundError:
            return False
        if text != str(FORMAT):
            raise StoreError(
                f"the store {self.root} has format {text[:20]!r}; this Ketch reads format {FORMAT}",
                hint="Update Ketch (pip install -U ketch), or give another folder.",
            )
        return True

    def _keep(self, data: bytes, digest: str) -> None:
        path = self._blob(digest)
        if path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            path.chmod(0o644)  # Windows does not replace a read-only file
            self._replace(path, data)
            path.chmod(0o444)
        elif not path.exists() and self._create(path, data):
            path.chmod(0o444)
        else:
            self._settle(path.parent)

    def _point(self, name: str, alias: str, state: _Alias) -> Version:
        ref = f"{name}:{state.version}"
        self.pull(ref)
        self._replace(self._model(name) / "aliases" / f"{alias}.json", _encoded(state))
        return self.resolve(ref)

    @contextmanager
    def _aside(self, data: bytes, path: Path) -> Iterator[Path]:
        # Everything is written aside, made durable, and then appears whole under its name.
        temporary = self.root / "tmp" / uuid.uuid4().hex
        for folder in (temporary.parent, path.parent):
            folder.mkdir(parents=True, exist_ok=True)
        try:
            _write_new(temporary, data)
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)
        self._settle(path.parent)

    def _create(self, path: Path, data: bytes) -> bool:
        with self._aside(data, path) as temporary:
            try:
                os.link(temporary, path)  # unlike a rename, this never replaces
            except FileExistsError:
                return False
            except OSError:
                # No hard links here (exFAT, some network mounts). An exclusive create never replaces either; a crash
                # in mid-write can leave a short file: an empty record counts as none, short bytes fail their digest.
                try:
                    _write_new(path, data)
                except FileExistsError:
                    return False
            return True

    def _replace(self, path: Path, data: bytes) -> None:
        with self._aside(data, path) as temporary:
            for pause in (0.01, 0.05, 0.25):
                with suppress(PermissionError):  # Windows, while a reader has the file open
                    temporary.replace(path)
                    return
                time.sleep(pause)
            temporary.replace(path)

    def _settle(self, folder: Path) -> None:
        # Always up to the root: the folders may be another process's, made and not yet synced.
        for each in (folder, *folder.parents):
            _sync(each)
            if each == self.root:
                break

    def _missing(self, ref: str) -> NoSuchVersion:
        name, number, alias = parse(ref)
        known = self._known(name)
        if not known:
            names = _listed(tuple(each for each in self._names() if self._known(each)))
            return NoSuchVersion(
                f"the store holds no model {name!r}",
                hint=f"It holds {names}." if names else f"Push it first: ketch push {name}.ketch",
            )
        if number:
            return NoSuchVersion(f"{name} has no version {number}", hint=f"It has {_listed(known, name)}.")
        told = "several versions and no champion" if alias is None else f"no alias {alias!r}"
        chosen = f"ketch promote {name}:{known[-1]}" + (f" --alias {alias}" if alias not in (None, CHAMPION) else "")
        return NoSuchVersion(f"{name} has {told}", hint=f"It has {_listed(known, name)}. Choose one: {chosen}")


def _checked(name: str, what: str) -> str:
    if not NAME.fullmatch(name):
        raise StoreError(
            f"{name[:80]!r} cannot name a{'n' if what == 'alias' else ''} {what}",
            hint="Use 1 to 64 of a-z 0-9 . _ - a letter or digit first, no dot last or doubled; not con, nul, com1…",
        )
    return name


def _version(name: str, entry: _Entry, aliases: dict[str, _Alias]) -> Version:
    pointing = tuple(alias for alias, state in aliases.items() if state.version == entry.version)
    return Version(name, entry.version, entry.sha256, entry.size, entry.pushed_at, pointing)


def _listed(things: tuple[object, ...], name: str = "") -> str:
    dots = "…, " if len(things) > SHOWN else ""
    return dots + ", ".join(f"{name}:{each}" if name else str(each) for each in things[-SHOWN:])


def _encoded(record: msgspec.Struct) -> bytes:
    return msgspec.json.encode(record) + b"\n"


def _read(path: Path, kind: type[T]) -> T | None:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        return msgspec.json.decode(data, type=kind) if data else None
    except msgspec.MsgspecError:
        raise _damaged(path) from None


def _damaged(path: Path) -> StoreError:
    return StoreError(
        f"the record {path} is damaged",
        hint="Restore this file from a copy of the store, or empty it (0 bytes) to give up what it said.",
    )


def _write_new(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    if os.name == "nt":
        return  # Windows has no handle for this; NTFS journals its folders
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
