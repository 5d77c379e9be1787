"""The bundle: one zip that holds a model, its contract and the answers it must give. Format 1.

members --*write*--> NAME.ketch --*read*--> Bundle (every byte checked against the manifest)
"""

import hashlib
import io
import platform
import re
import struct
import time
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from ketch import trust
from ketch.errors import BundleError, CorruptBundle, UnknownFormat
from ketch.schema import NAME, Answer, Contract, Field

FORMAT: Final = 1
SUFFIX: Final = ".ketch"
MOST_BYTES: Final = 8 * 2**30  # unpacked; more is a zip bomb or no tabular model
ROOMY: Final = 512 * 2**20  # bytes that any bundle may unpack to; beyond that it is a matter of proportion
RATIO: Final = 200
MOST_JSON: Final = 64 * 2**20  # bytes of one description: as objects it takes twenty times as much memory
EPOCH: Final = (1980, 1, 1, 0, 0, 0)
MEMBER: Final = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9_.-]*(/[a-zA-Z0-9_][a-zA-Z0-9_.-]*)*", re.ASCII)


class Original(msgspec.Struct, frozen=True):
    """One file of the model as it was given: where it stands, how it is read, and its name at the time."""

    member: str
    format: str
    name: str


class Parity(msgspec.Struct, frozen=True):
    """How the compiled form agreed with the original: on how many rows, the worst difference; or why there is none."""

    rows: int = 0
    worst: float = 0.0
    reason: str = ""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What the bundle is; names every member with its SHA-256."""

    format: int
    name: str
    answer: Answer
    adapter: str
    serves: str
    tolerance: float
    originals: tuple[Original, ...]
    origin: dict[str, str]
    versions: dict[str, str]
    members: dict[str, str]
    parity: Parity = Parity()
    code: tuple[str, ...] = ()


class Golden(msgspec.Struct, frozen=True):
    """Rows composed from the contract, with the original model's answers."""

    rows: list[dict[str, object]]
    labels: list[object]
    probabilities: list[list[Any]] | None = None
    scores: list[object] | None = None


class Bundle(msgspec.Struct, frozen=True):
    """An opened bundle: verified bytes, nothing constructed yet."""

    manifest: Manifest
    contract: Contract
    golden: Golden
    profile: dict[str, object]
    files: dict[str, bytes]
    sha256: str
    signed_by: str = ""  # the trusted key that signed it, which permits its code; found by whoever opens it

    @property
    def code(self) -> dict[str, bytes]:
        """Give the sources that travel with the model, by member."""
        return {member: self.files[member] for member in self.manifest.code}

    @property
    def originals(self) -> list[tuple[str, str, bytes]]:
        """Give name, format and bytes of each file of the model."""
        return [(each.name, each.format, self.files[each.member]) for each in self.manifest.originals]


def identity(data: bytes) -> str:
    """Give the SHA-256 of a bundle's bytes, which is its identity."""
    return hashlib.sha256(data).hexdigest()


def versions(requirements: Mapping[str, str], ketch: str) -> dict[str, str]:
    """List what made the bundle: Ketch, Python, the platform and the model's libraries."""
    system = f"{platform.system()}-{platform.machine()}".lower()
    return {"ketch": ketch, "python": platform.python_version(), "platform": system, **requirements}


def pretty(value: object) -> bytes:
    """Write JSON that a person can read and two runs write alike."""
    return msgspec.json.format(msgspec.json.encode(value, order="deterministic"), indent=1) + b"\n"


def write(
    manifest: Manifest, contract: Contract, golden: Golden, profile: Mapping[str, object], files: Mapping[str, bytes]
) -> bytes:
    """Put a bundle together; the same members give the same bytes.

    `manifest.members` is filled in here.
    """
    members = {
        **files,
        "contract.json": pretty({"fields": contract.fields}),
        "golden.json": pretty(golden),
        "profile.json": pretty(profile),
    }
    return _archived(manifest, members)


def replaced(opened: Bundle, files: Mapping[str, bytes]) -> bytes:
    """Put an opened bundle together again with some members added or replaced; it has an identity of its own."""
    return _archived(opened.manifest, {**opened.files, **files})


def _archived(manifest: Manifest, members: dict[str, bytes]) -> bytes:
    sums = {name: identity(data) for name, data in sorted(members.items())}
    members["manifest.json"] = pretty(msgspec.structs.replace(manifest, members=sums))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in sorted(members):
            info = zipfile.ZipInfo(name, EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.create_system = 3  # the same bytes whatever system packs
            info.external_attr = 0o644 << 16
            archive.writestr(info, members[name])
    return out.getvalue()


def save(data: bytes, path: Path) -> None:
    """Write a file whole or not at all."""
    temporary = path.with_name(f".{path.name}.{time.monotonic_ns()}.part")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError as error:
        raise BundleError(f"{path} cannot be written: {error.strerror}", hint="Choose another place.") from None
    finally:
        temporary.unlink(missing_ok=True)


def looks_like_bundle(data: bytes) -> bool:
    """Say whether the bytes are a zip archive, which no pickle is, and no skops file."""
    return data[:4] == b"PK\x03\x04" and not trust.is_skops(data)


def read(data: bytes, name: str) -> Bundle:
    """Open a bundle's bytes; `name` is what messages call it.

    Raises:
        CorruptBundle, UnknownFormat: the bytes are not a whole bundle of a known format.
    """
    members = _members(data, name)
    if "manifest.json" not in members:
        raise _corrupt(name, "it has no manifest")
    _require_format(members["manifest.json"], name)
    manifest = _as(Manifest, members.pop("manifest.json"), name)
    _require_sums(manifest, members, name)
    fields = _as(_Fields, members["contract.json"], name).fields
    golden = _as(Golden, members["golden.json"], name)
    _require_sense(manifest, golden, members, name)
    return Bundle(
        manifest=manifest,
        contract=Contract(fields=fields, answer=manifest.answer),
        golden=golden,
        profile=_as(dict[str, object], members["profile.json"], name),
        files=members,
        sha256=identity(data),
    )


T = TypeVar("T")


class _Fields(msgspec.Struct):
    fields: tuple[Field, ...]


def _as(kind: type[T], data: bytes, name: str) -> T:
    if len(data) > MOST_JSON:
        raise _corrupt(name, f"one of its descriptions has more than {MOST_JSON >> 20} MiB")
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise _corrupt(name, str(error)) from None


def _corrupt(name: str, reason: str) -> CorruptBundle:
    return CorruptBundle(f"{name} is not a whole bundle: {reason}", hint="Fetch it again, or pack the model again.")


def _require_format(data: bytes, name: str) -> None:
    found = _as(dict[str, object], data, name).get("format")
    if found != FORMAT:
        raise UnknownFormat(
            f"{name} is written in format {str(found)[:20]}, this Ketch reads format {FORMAT}",
            hint="Upgrade with: pip install --upgrade ketch",
        )


def _require_sums(manifest: Manifest, members: Mapping[str, bytes], name: str) -> None:
    needed = {"contract.json", "golden.json", "profile.json"}
    if missing := (manifest.members.keys() | needed) - members.keys():
        raise _corrupt(name, f"{min(missing)[:60]} is missing")
    if extra := members.keys() - manifest.members.keys():
        raise _corrupt(name, f"{min(extra)[:60]} is not in its manifest")
    for member, data in members.items():
        if identity(data) != manifest.members[member]:
            raise _corrupt(name, f"{member[:60]} was changed")


def _require_sense(manifest: Manifest, golden: Golden, members: Mapping[str, bytes], name: str) -> None:
    if not NAME.fullmatch(manifest.name):
        raise _corrupt(name, "its manifest gives it an impossible name")
    for each in manifest.originals:
        if each.member not in members:
            raise _corrupt(name, f"{each.member[:60]} is missing")
    if set(manifest.code) != {member for member in members if member.startswith("code/")}:
        raise _corrupt(name, "its manifest does not list its code")
    answer = manifest.answer
    for part in answer.parts or (answer,):
        if part.task == "binary" and (len(part.classes) != 2 or part.positive not in part.classes):
            raise _corrupt(name, "its yes/no answer does not have two classes, one of them positive")
    if (answer.task == "several") != bool(answer.parts) or any(part.task == "several" for part in answer.parts):
        raise _corrupt(name, "its several targets are not told apart")
    columns = (golden.labels, golden.probabilities, golden.scores)
    if not golden.rows or any(each is not None and len(each) != len(golden.rows) for each in columns):
        raise _corrupt(name, "its golden rows and answers do not match")


_ZIP_FAULTS: Final = (
    zipfile.BadZipFile,
    zlib.error,
    NotImplementedError,  # a flag that zipfile does not know
    RuntimeError,  # an encrypted member
    struct.error,
    EOFError,
    OSError,
    ValueError,
)


def _members(data: bytes, name: str) -> dict[str, bytes]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            listed = archive.infolist()
            if sum(info.file_size for info in listed) > min(MOST_BYTES, max(ROOMY, RATIO * len(data))):
                raise _corrupt(name, "it unpacks to more than a file of its size should")
            if archive.comment or min((info.header_offset for info in listed), default=0):
                raise _corrupt(name, "something stands before or behind its zip archive")
            found: dict[str, bytes] = {}
            for info in listed:
                if info.filename in found or not MEMBER.fullmatch(info.filename):
                    raise _corrupt(name, f"it holds {info.filename[:60]!r}")
                if info.compress_type not in {zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED}:
                    raise _corrupt(name, f"{info.filename[:60]} is compressed in another way")
                found[info.filename] = _unpacked(archive, info, name)
            return found
    except _ZIP_FAULTS as error:
        raise _corrupt(name, str(error) or "its zip archive is damaged") from None


def _unpacked(archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str) -> bytes:
    with archive.open(info) as member:
        data = member.read(info.file_size + 1)
    if len(data) != info.file_size:
        raise _corrupt(name, f"{info.filename[:60]} is not as long as it says")
    return data
