"""The wheels of an image: which ones its model needs, fetched once as the user's own pip does, and Ketch's own.

bundle, Recipe --*pins*--> versions and hashes --*fetch*--> wheels, kept in $KETCH_HOME/cache/wheels
"""

import base64
import contextlib
import hashlib
import importlib.metadata
import importlib.util
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import ketch.errors
from ketch import bundle, extras, lock
from ketch.bundle import Bundle
from ketch.errors import ImageError, InputError
from ketch.image import PLATFORMS, Recipe, Wheel, metadata
from ketch.lock import Environment

OWN: Final = Path(ketch.errors.__file__).parent
GLIBC: Final = 28  # of 2.28: Debian 10, RHEL 8 and all later ones have it
MANYLINUX: Final = ("manylinux2014", "manylinux2010", "manylinux1")
LINE: Final = re.compile(
    r"(?P<name>[^=\s]+)==(?P<version>\S+)( ; (?P<marker>.+?))?(?P<hashes>( --hash=sha256:\w{64})+)"
)
DRAWS: Final = frozenset({"rich"})  # on terminals only
INSTALLER: Final = (  # by PyPA; it unpacks the wheels while an image is built, and does not go in
    "installer==1.1.0 --hash=sha256:f55f5728ff61d3dd54dbc5a397cf3f7307cb64b180c20b72afbebf01c9e2c8a0"
)

Freeze = Callable[[Environment, str], Mapping[str, bytes]]


@dataclass(frozen=True)
class Pin:
    """One version of a distribution, and the hashes of all of its files."""

    name: str
    version: str
    hashes: tuple[str, ...]

    @property
    def line(self) -> str:
        """Write it as pip reads it."""
        return f"{self.name}=={self.version} {' '.join(f'--hash=sha256:{each}' for each in self.hashes)}"


def gather(opened: Bundle, recipe: Recipe, *, home: Path, environ: Mapping[str, str]) -> list[Wheel]:
    """Give every wheel that an image of the bundle is made of, Ketch's own among them.

    Raises:
        LockError, NotInstalled: the environment cannot be resolved; ImageError: a wheel cannot be had.
    """
    needed = environment(opened, recipe)
    cache = home / "cache" / "wheels"
    listed = pins(needed, opened, recipe, lambda each, name: _frozen(each, name, home / "cache" / "locks", environ))
    found = fetch(listed, python=needed.python, platform=recipe.platform, cache=cache, environ=environ)
    tool = fetch([_pin(INSTALLER)], python=needed.python, platform=recipe.platform, cache=cache, environ=environ)[0]
    found = reached(found, needed.requirements, _there(needed.python, recipe.platform))
    return [own_wheel(), *found, Wheel(tool.name, tool.version, tool.filename, tool.data, tool=True)]


def environment(opened: Bundle, recipe: Recipe) -> Environment:
    """Say what the bundle needs in an image, beside Ketch.

    Raises:
        InputError: there is no such extra of Ketch.
    """
    manifest, wanted = opened.manifest, _known(recipe.wanted)
    return lock.environment(manifest.versions, serves=manifest.serves, members=opened.files, wanted=wanted)


def _known(wanted: Sequence[str]) -> Sequence[str]:
    known = importlib.metadata.metadata("ketch").get_all("Provides-Extra", ())
    if strange := sorted({*wanted} - {*known}):
        raise InputError(f"Ketch has no extra {strange[0][:40]!r}", hint=f"There are: {', '.join(sorted(known))}.")
    return wanted


def pins(needed: Environment, opened: Bundle, recipe: Recipe, freeze: Freeze) -> list[Pin]:
    """Pin what is needed on a platform: by the bundle's own lock where that is enough, else resolved now."""
    lines = lock.lines(opened.files[lock.CAPTURED]) if lock.LOCKED in opened.files else []
    names = {lock.canonical(match[0]) for each in needed.requirements if (match := lock.NAME.match(each))}
    if names - {_pin(each).name for each in lines}:
        lines = lock.lines(freeze(needed, opened.manifest.name)["requirements.txt"])
    return [_pin(each) for each in lines if _applies(each, needed.python, recipe.platform)]


def _frozen(needed: Environment, name: str, cache: Path, environ: Mapping[str, str]) -> Mapping[str, bytes]:
    """Resolve once a day: `ketch lock` is for who wants the same for longer."""
    told = f"{needed.python} {needed.requirements} {datetime.now(UTC).date()}"
    place = cache / hashlib.sha256(told.encode()).hexdigest()[:32]
    if place.is_file():
        return {"requirements.txt": place.read_bytes()}
    found = lock.freeze(needed, name, environ)
    with contextlib.suppress(OSError):
        cache.mkdir(parents=True, exist_ok=True)
        bundle.save(found["requirements.txt"], place)
    return found


def _pin(line: str) -> Pin:
    match = LINE.fullmatch(line)
    if match is None:
        raise ImageError(f"The lock has a line that cannot be read: {line[:80]!r}", hint="Lock the bundle again.")
    return Pin(lock.canonical(match["name"]), match["version"], tuple(re.findall(r"\w{64}", match["hashes"])))


def _applies(line: str, python: str, platform: str) -> bool:
    match = LINE.fullmatch(line)
    if match is None or not match["marker"]:
        return True
    return bool(extras.load("packaging.markers").Marker(match["marker"]).evaluate(_there(python, platform)))


def _there(python: str, platform: str) -> dict[str, str]:
    """Say what a marker may ask of the machine on which an image runs."""
    return {
        "extra": "",
        "implementation_name": "cpython",
        "os_name": "posix",
        "platform_machine": PLATFORMS[platform],
        "platform_python_implementation": "CPython",
        "platform_system": "Linux",
        "python_full_version": f"{python}.0",
        "python_version": python,
        "sys_platform": "linux",
    }


def reached(wheels: Sequence[Wheel], requirements: Iterable[str], there: Mapping[str, str]) -> list[Wheel]:
    """Leave out what a lock holds and nothing here asks for: what draws on terminals, and other extras."""
    requirement: Any = extras.load("packaging.requirements").Requirement
    by_name, seen = {each.name: each for each in wheels}, set[tuple[str, str]]()
    waiting = [(str(each), "") for each in requirements]
    while waiting:
        text, extra = waiting.pop()
        asked = requirement(text)
        wheel = by_name.get(lock.canonical(asked.name))
        if (
            wheel is None
            or wheel.name in DRAWS
            or (asked.marker and not asked.marker.evaluate({**there, "extra": extra}))
        ):
            continue
        for each in {"", *asked.extras} - {extra for name, extra in seen if name == wheel.name}:
            seen.add((wheel.name, each))
            waiting += [(told, each) for told in metadata(wheel.data).get_all("Requires-Dist", ())]
    names = {name for name, _ in seen}
    return [each for each in wheels if each.name in names]


# ---- fetching ----------------------------------------------------------------------------------------


def fetch(listed: Sequence[Pin], *, python: str, platform: str, cache: Path, environ: Mapping[str, str]) -> list[Wheel]:
    """Give the wheels of these versions for a Python and a platform; each is fetched once and held against its hashes.

    Raises:
        ImageError: one cannot be had.
    """
    places = {pin: cache / _digest(pin, python, platform) for pin in listed}
    missing = [pin for pin, place in places.items() if _kept(pin, place) is None]
    if missing:
        with tempfile.TemporaryDirectory(prefix="ketch-wheels-") as made:
            _download(missing, Path(made), python, platform, environ)
            for pin in missing:
                _keep(pin, Path(made), places[pin])
    return [wheel for pin, place in places.items() if (wheel := _kept(pin, place)) is not None]


def _digest(pin: Pin, python: str, platform: str) -> str:
    """Name what is asked for: which wheel is the best may depend on all of it."""
    return hashlib.sha256(f"{pin.line} {python} {platform} {GLIBC}".encode()).hexdigest()[:32]


def _kept(pin: Pin, place: Path) -> Wheel | None:
    for path in place.glob("*.whl"):
        wheel = Wheel(pin.name, pin.version, path.name, path.read_bytes())
        if wheel.sha256 in pin.hashes:
            return wheel
    return None


def _keep(pin: Pin, folder: Path, place: Path) -> None:
    found = [path for path in folder.glob("*.whl") if lock.canonical(path.name.partition("-")[0]) == pin.name]
    if len(found) != 1:
        raise ImageError(f"There is no wheel of {pin.name} {pin.version}", hint="Ask the index for it by hand.")
    try:
        place.mkdir(parents=True, exist_ok=True)
        part = place / f".{os.getpid()}"
        shutil.copyfile(found[0], part)
        part.replace(place / found[0].name)
    except OSError as error:
        raise ImageError(
            f"{place} cannot be written: {error.strerror}", hint="Choose another folder with KETCH_HOME."
        ) from None


def _download(listed: Sequence[Pin], folder: Path, python: str, platform: str, environ: Mapping[str, str]) -> None:
    wanted = folder / "requirements.txt"
    wanted.write_text("".join(f"{each.line}\n" for each in listed), "utf-8")
    tags = [word for each in tags_of(platform) for word in ("--platform", each)]
    told = ["download", "--quiet", "--no-deps", "--only-binary=:all:", "--require-hashes", "--implementation", "cp"]
    told += ["--python-version", python, *tags, "--dest", str(folder), "--requirement", str(wanted)]
    done = subprocess.run(
        [*_pip(environ), *told],
        env={**environ, **_index(environ), "PIP_REQUIRE_VIRTUALENV": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
    )
    if done.returncode:
        raise _explained(done.stderr, platform)


def tags_of(platform: str) -> list[str]:
    """List the platforms of wheels that run there, the most particular first."""
    machine = PLATFORMS[platform]
    return [f"{each}_{machine}" for each in (*(f"manylinux_2_{n}" for n in range(GLIBC, 4, -1)), *MANYLINUX)]


def _pip(environ: Mapping[str, str]) -> list[str]:
    """Give the user's own pip, with its index and its keys; where there is none, uv brings one."""
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-I", "-m", "pip"]
    return [lock.uv_program(), "tool", "run", "--no-python-downloads", "--quiet", "pip"]


def _index(environ: Mapping[str, str]) -> dict[str, str]:
    """Let pip use uv's index where the user has told only uv."""
    url = environ.get("UV_DEFAULT_INDEX") or environ.get("UV_INDEX_URL")
    return {"PIP_INDEX_URL": url} if url and not environ.get("PIP_INDEX_URL") else {}


def _explained(said: str, platform: str) -> ImageError:
    lines = [line.partition("ERROR: ")[2] for line in said.splitlines() if line.startswith("ERROR: ")]
    reason = re.sub(
        r"//[^/@\s]+@", "//…@", (lines or said.splitlines() or ["pip fails"])[-1]
    )  # no password of an index
    if re.search(r"(?i)no matching distribution|could not find a version", said):
        hint = f"It may have no wheel for {platform}; pack the model with versions that have one."
    else:
        hint = "Check the network and pip's own index: pip config list."
    return ImageError(f"The wheels cannot be fetched: {reason[:300]}", hint=hint)


# ---- Ketch's own -------------------------------------------------------------------------------------


def own_wheel() -> Wheel:
    """Compose a wheel of this very Ketch from its files, as they are installed or stand in a checkout."""
    known = importlib.metadata.distribution("ketch")
    told = f"ketch-{known.version}.dist-info"
    files = {
        f"ketch/{path.relative_to(OWN).as_posix()}": path.read_bytes()
        for path in sorted(OWN.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }
    files |= {f"{told}/{name}": (known.read_text(name) or "").encode() for name in ("METADATA", "entry_points.txt")}
    files[f"{told}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: ketch\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files[f"{told}/RECORD"] = _record(files.items(), f"{told}/RECORD").encode()
    return Wheel("ketch", known.version, f"ketch-{known.version}-py3-none-any.whl", _zipped(files))


def _record(files: Iterable[tuple[str, bytes]], own: str) -> str:
    def hashed(data: bytes) -> str:
        return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()

    return "".join(f"{name},sha256={hashed(data)},{len(data)}\n" for name, data in files) + f"{own},,\n"


def _zipped(files: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:  # packed, it would depend on the version of zlib
        for name, data in sorted(files.items()):
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.external_attr = 0o644 << 16
            archive.writestr(info, data)
    return out.getvalue()
