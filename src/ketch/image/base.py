"""The archive of a base image, as engines save one: read without any engine, and believed in nothing.

archive --*opened*--> Base (its configuration, its layers) --*copy*--> the bytes of a layer, held against their hash
"""

import gzip
import hashlib
import posixpath
import re
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final, TypeVar

import msgspec

from ketch.errors import ImageError
from ketch.image.tar import CHUNK, Counted, Member, Part, Tar, drain, gunzip

TOLD: Final = 8 * 2**20  # bytes of a manifest, or a configuration
MEMBERS: Final = 20000
LAYERS: Final = 127  # what engines stop at
GZIP: Final = b"\x1f\x8b"
OTHERS: Final = {b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz"}
DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
PROGRAM: Final = re.compile(r"(^|/)(bin/python|libpython)(?P<minor>3\.\d+)(\.so(\.1\.0)?)?$", re.ASCII)
SAVE: Final = "Save it anew: docker save NAME -o FILE, or skopeo copy docker://NAME docker-archive:FILE."
PLAIN: Final = (  # what a layer may be called
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
)

Typed = TypeVar("Typed")


class Platform(msgspec.Struct):
    """What programs run on."""

    os: str = ""
    architecture: str = ""
    variant: str = ""


class Descriptor(msgspec.Struct, rename="camel"):
    """Where OCI finds a blob, and what it must be."""

    digest: str
    size: int
    media_type: str = ""
    urls: list[str] | None = None
    platform: Platform | None = None


class Index(msgspec.Struct):
    """What an OCI layout, or a multi-platform image, consists of."""

    manifests: list[Descriptor]


class Manifest(msgspec.Struct):
    """An image of OCI, or of a registry of Docker."""

    config: Descriptor
    layers: list[Descriptor]


class Saved(msgspec.Struct, rename="pascal"):
    """An image in an archive by `docker save`."""

    config: str
    layers: list[str]
    repo_tags: list[str] | None = None


class Layers(msgspec.Struct):
    """The hashes of the layers, unpacked."""

    diff_ids: list[str]


class Told(msgspec.Struct, kw_only=True):
    """The configuration of an image: what of it matters here."""

    os: str
    architecture: str
    variant: str = ""
    config: dict[str, Any] | None = None
    history: list[dict[str, Any]] | None = None
    rootfs: Layers


@dataclass(frozen=True)
class Layer:
    """A layer as it is stored, with the hash of what it unpacks to."""

    at: Member
    diff_id: str
    digest: str = ""


@dataclass
class Base:
    """A base image; `pythons` fills up while its layers are copied: the full versions that were seen of each."""

    told: Told
    layers: tuple[Layer, ...]
    file: IO[bytes] = field(repr=False)
    pythons: dict[str, set[str]] = field(default_factory=dict)

    @property
    def config(self) -> dict[str, Any]:
        """Give what its engine is told."""
        return self.told.config or {}

    @property
    def platform(self) -> dict[str, str]:
        """Say what its programs run on."""
        told = {"architecture": self.told.architecture, "os": self.told.os, "variant": self.told.variant}
        return {name: value for name, value in told.items() if value}

    @property
    def environ(self) -> dict[str, str]:
        """Give its environment, in order."""
        listed = self.config.get("Env") or []
        return {name: value for name, _, value in (each.partition("=") for each in listed)}

    def copy(self, layer: Layer, sink: Callable[[bytes], object]) -> bool:
        """Hand on the bytes of a layer as they are stored, and hold them against its hash; say whether they are packed.

        Raises:
            ImageError: they are not what they should be.
        """
        self.file.seek(layer.at.offset)
        stored = Counted(Part(self.file, layer.at.size), sink)
        magic = self.file.read(6)
        self.file.seek(layer.at.offset)
        packed = magic.startswith(GZIP)
        if name := next((name for each, name in OTHERS.items() if magic.startswith(each)), ""):
            raise ImageError(f"A layer of the base is packed by {name}", hint=f"Only gzip is read. {SAVE}")
        plain = Counted(gunzip(stored), within=layer.at.size) if packed else stored
        try:
            self._look(Tar(plain))
            drain(plain)
            drain(stored)
        except (EOFError, gzip.BadGzipFile, zlib.error, tarfile.TarError, ValueError) as error:
            raise ImageError(f"A layer of the base cannot be read: {error}", hint=SAVE) from None
        if plain.digest != layer.diff_id or (layer.digest and stored.digest != layer.digest):
            raise ImageError(f"A layer of the base is not what its hash says: {layer.diff_id[:19]}…", hint=SAVE)
        return packed

    def _look(self, tar: Tar) -> None:
        """See that no file leads out of a layer, and which versions of Python there are."""
        for member in tar:
            if match := PROGRAM.search(_inside(member.name.lstrip("/"))):
                self.pythons.setdefault(match["minor"], set()).update(_versions(tar, match["minor"]))


@contextmanager
def opened(path: Path, target: str, name: str = "") -> Iterator[Base]:
    """Open the archive of an image: by `docker save`, `podman save`, `buildah push` or `skopeo copy`, gzipped or not.

    Of several images the one for the platform is taken; of several such, the one with the name.

    Raises:
        ImageError: it is none, or not one for the platform.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror}", hint="Name a file that is there.") from None
    with file, _unpacked(file, path) as plain:
        try:
            archive = Archive(plain, {each.name: each for each in _members(plain)}, target)
        except (OSError, tarfile.TarError, ValueError) as error:
            raise ImageError(f"{path.name} is no archive of an image: {error}", hint=SAVE) from None
        found = [*archive.images()]
        found = [each for each in found if name in each.names] or found
        if len(found) != 1:
            how = "several images" if found else "no image"
            raise ImageError(f"{path.name} holds {how} for {target}", hint=f"Save one alone, for {target}.")
        yield Base(_checked(found[0]), found[0].layers, plain)


@contextmanager
def _unpacked(file: IO[bytes], path: Path) -> Iterator[IO[bytes]]:
    """Give the archive itself, where somebody has packed the whole of it."""
    magic = file.read(6)
    file.seek(0)
    if not magic.startswith(GZIP):
        yield file
        return
    with tempfile.TemporaryFile(prefix="ketch-") as plain:
        try:
            drain(Counted(gunzip(file), plain.write, within=path.stat().st_size))
        except (EOFError, OSError, zlib.error) as error:
            raise ImageError(f"{path.name} cannot be unpacked: {error}", hint=SAVE) from None
        plain.seek(0)
        yield plain


def _members(file: IO[bytes]) -> Iterator[Member]:
    """Give the members of the archive, each name once."""
    names = set[str]()
    for member in Tar(file):
        name = posixpath.normpath(_inside(member.name))
        if member.kind == tarfile.DIRTYPE:
            continue
        if name in names or len(names) >= MEMBERS:
            raise ValueError(f"{name[:80]!r} is in it twice" if name in names else "too many files are in it")
        names.add(name)
        yield Member(name, member.kind, member.link, member.offset, member.size)


def _checked(image: "Found") -> Told:
    """Refuse what nobody can build on.

    Raises:
        ImageError: it has too many layers, orders for an engine, or what no engine wrote.
    """
    if not 0 < len(image.layers) < LAYERS - 1:
        raise ImageError(f"The base has {len(image.layers)} layers", hint=SAVE)
    config = image.told.config or {}
    if config.get("OnBuild"):
        raise ImageError("The base has ONBUILD orders, which only an engine follows", hint="Choose another base.")
    listed = config.get("Env") or []
    if not isinstance(listed, list) or not all(isinstance(each, str) and "=" in each for each in listed):
        raise ImageError("The environment of the base cannot be read", hint=SAVE)
    if not all(isinstance(config.get(each) or {}, dict) for each in ("ExposedPorts", "Labels")):
        raise ImageError("The configuration of the base cannot be read", hint=SAVE)
    return image.told


# ---- what is in an archive -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Found:
    """An image in an archive."""

    told: Told
    layers: tuple[Layer, ...]
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Archive:
    """The members of an archive by name, and the platform that is asked for."""

    file: IO[bytes]
    members: dict[str, Member]
    target: str

    def images(self) -> Iterator[Found]:
        """Give the images for the platform."""
        if "index.json" in self.members:
            yield from self._listed(self._read("index.json", Index), 0)
        elif "manifest.json" in self.members:
            for saved in self._read("manifest.json", list[Saved]):
                yield from self._saved(saved)
        else:
            raise ImageError("The base is no image: it has neither manifest.json nor index.json", hint=SAVE)

    def _listed(self, index: Index, depth: int) -> Iterator[Found]:
        for each in index.manifests:
            if _blob(each) not in self.members or not self._may_fit(each.platform):
                continue  # an image for another platform, which may have been left out; what BuildKit attests of one
            if "index" in each.media_type or "manifest.list" in each.media_type:
                if depth > 2:
                    raise ImageError("The index of the base lists itself", hint=SAVE)
                yield from self._listed(self._held(each, Index), depth + 1)
                continue
            manifest = self._held(each, Manifest)
            told = self._held(manifest.config, Told)
            if self._fits(told):
                _require_as_many(manifest.layers, told)
                pairs = zip(manifest.layers, told.rootfs.diff_ids, strict=True)
                yield Found(told, tuple(self._layer(described, diff_id) for described, diff_id in pairs))

    def _layer(self, described: Descriptor, diff_id: str) -> Layer:
        if described.urls or described.media_type not in PLAIN:
            how = "elsewhere" if described.urls else f"as {described.media_type[:80]!r}"
            raise ImageError(f"A layer of the base is stored {how}", hint=f"Only tar and gzip are read. {SAVE}")
        return Layer(self._sized(described), _digest(diff_id), _digest(described.digest))

    def _saved(self, saved: Saved) -> Iterator[Found]:
        told = self._read(saved.config, Told, by=saved.config.rpartition("/")[2].removesuffix(".json"))
        if self._fits(told):
            _require_as_many(saved.layers, told)
            pairs = zip(saved.layers, told.rootfs.diff_ids, strict=True)
            layers = tuple(Layer(self._at(name), _digest(diff_id)) for name, diff_id in pairs)
            yield Found(told, layers, tuple(saved.repo_tags or ()))

    def _may_fit(self, platform: Platform | None) -> bool:
        return platform is None or self.target == f"{platform.os}/{platform.architecture}"

    def _fits(self, told: Told) -> bool:
        return self.target == f"{told.os}/{told.architecture}"

    def _at(self, name: str) -> Member:
        """Find a member; docker stores a layer that it has had before as a link to it."""
        for _ in range(LAYERS):
            found = self.members.get(posixpath.normpath(name))
            if found is None:
                break
            if found.kind in tarfile.REGULAR_TYPES:
                return found
            name = posixpath.join(posixpath.dirname(name), found.link) if found.kind == tarfile.SYMTYPE else found.link
        raise ImageError(f"{name[:80]!r} is missing in the base", hint=SAVE)

    def _sized(self, described: Descriptor) -> Member:
        found = self._at(_blob(described))
        if found.size != described.size:
            raise ImageError(f"{described.digest[:19]}… of the base has another size than it should", hint=SAVE)
        return found

    def _held(self, described: Descriptor, kind: type[Typed]) -> Typed:
        self._sized(described)
        return self._read(_blob(described), kind, by=described.digest.removeprefix("sha256:"))

    def _read(self, name: str, kind: type[Typed], by: str = "") -> Typed:
        member = self._at(name)
        if member.size > TOLD:
            raise ImageError(f"{name[:80]!r} of the base is too large", hint=SAVE)
        self.file.seek(member.offset)
        data = self.file.read(member.size)
        if re.fullmatch("[0-9a-f]{64}", by) and hashlib.sha256(data).hexdigest() != by:
            raise ImageError(f"{name[:80]!r} of the base is not what its hash says", hint=SAVE)
        try:
            return msgspec.json.decode(data, type=kind)
        except (msgspec.MsgspecError, RecursionError, ValueError) as error:
            raise ImageError(f"{name[:80]!r} of the base cannot be read: {error}", hint=SAVE) from None


def _require_as_many(layers: Sequence[object], told: Told) -> None:
    if len(layers) != len(told.rootfs.diff_ids):
        raise ImageError("The base has other layers than its configuration says", hint=SAVE)


def _digest(text: str) -> str:
    if not DIGEST.fullmatch(text):
        raise ImageError(f"{text[:80]!r} in the base is no hash by SHA-256", hint=SAVE)
    return text


def _blob(described: Descriptor) -> str:
    return f"blobs/sha256/{_digest(described.digest).removeprefix('sha256:')}"


# ---- what is in a layer --------------------------------------------------------------------------------


def _inside(name: str) -> str:
    """Give a name that stays inside.

    Raises:
        ImageError: it leads out.
    """
    if name.startswith("/") or ".." in name.split("/") or "\0" in name:
        raise ImageError(f"A file of the base leads out of it: {name[:80]!r}", hint="Get it from its maker again.")
    return name


def _versions(tar: Tar, minor: str) -> set[str]:
    """Look in a program for its own version."""
    wanted = re.compile(re.escape(minor.encode()) + rb"\.(\d{1,3})\0")
    found, kept = set[str](), b""
    while data := tar.read(CHUNK):
        found |= {f"{minor}.{each.decode()}" for each in wanted.findall(kept + data)}
        kept = (kept + data)[-32:]
    return found
