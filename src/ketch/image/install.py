"""Put wheels into a folder from which Python runs them: nothing else, and the same bytes every time.

This file goes into a build context as it is. There and here it needs only Python and PyPA's `installer`.

wheels --*check*, *unpack*--> files --*compile_all*--> files with .pyc beside them --*settle*--> one time, two modes
"""

import hashlib
import importlib.util
import marshal
import os
import re
import sys
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Final

TARGET: Final = "/app"  # where the files will stand in an image, whatever folder they are made in
PACKAGES: Final = "site-packages"  # by whose name libraries know that they are installed
EPOCH: Final = 315532800  # 1980-01-01, the first time that an archive can hold
PINNED: Final = re.compile(r"([A-Za-z0-9._-]+)==(\S+) --hash=sha256:([0-9a-f]{64})")
# what only installers and compilers read; .pyi stays, since some packages load their parts by it
NOISE: Final = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json")
SOURCES: Final = (".a", ".c", ".cpp", ".h", ".hpp", ".pxd", ".pyx")
TESTED: Final = ("joblib", "numpy", "pandas", "scipy", "sklearn")  # whose tests nothing else imports
UNUSED: Final = (  # what the module for Python has inside too, for programs in C; and what makes graphs rather than run
    "onnxruntime/capi/libonnxruntime.so.",
    *(f"onnxruntime/{each}/" for each in ("datasets", "quantization", "tools", "transformers")),
)
TOOLS: Final = ("pip", "setuptools", "wheel")


class Refused(Exception):
    """A wheel that is not what the lock says, or cannot be run here."""


def main(words: list[str]) -> None:
    """Install the context in one folder into another: `install.py CONTEXT FOLDER`."""
    context, folder = Path(words[0]), Path(words[1])
    sys.path[:0] = [str(each) for each in sorted((context / "tools").glob("*.whl"))]  # a wheel can be imported as it is
    try:
        install(context, folder, int(os.environ.get("SOURCE_DATE_EPOCH") or EPOCH))
    except Refused as error:
        raise SystemExit(f"install.py: {error}") from None


def install(context: Path, folder: Path, epoch: int = EPOCH) -> None:
    """Make the folder of programs from `requirements.txt`, `wheels` and `entrypoint.py` of a context.

    Its bytes depend on the context, `epoch` and the version of Python alone if PYTHONHASHSEED is 0.

    Raises:
        Refused: a wheel is missing, is not what the lock says, or is for another Python.
    """
    for wheel in check((context / "requirements.txt").read_text("utf-8"), context / "wheels"):
        unpack(wheel, folder / PACKAGES)
    (folder / "__main__.py").write_bytes((context / "entrypoint.py").read_bytes())
    compile_all(folder)
    settle(folder, epoch)


def check(lock: str, wheels: Path) -> list[Path]:
    """Give the wheels that a lock names, each with the hash that stands there.

    Raises:
        Refused: one is missing, one too many, or not the one meant; or the lock is for another Python.
    """
    here = f"{sys.version_info[0]}.{sys.version_info[1]}"
    wanted = re.search(r"^# Python (3\.\d+)", lock, re.MULTILINE)
    if wanted and wanted[1] != here:
        raise Refused(f"the wheels are for Python {wanted[1]}, and this is {here}: choose another base image")
    by_hash = {hashlib.sha256(path.read_bytes()).hexdigest(): path for path in sorted(wheels.glob("*.whl"))}
    found = []
    for name, version, digest in PINNED.findall(lock):
        if digest not in by_hash:
            raise Refused(f"{name} {version} is missing, or is not the file that requirements.txt means")
        found.append(by_hash.pop(digest))
    if by_hash:
        raise Refused(f"{min(by_hash.values()).name} does not stand in requirements.txt")
    return found


def unpack(wheel: Path, folder: Path) -> None:
    """Put what a wheel holds into a folder, without scripts, headers, data and what only installers read."""
    from installer import install as put
    from installer.destinations import WheelDestination
    from installer.records import RecordEntry
    from installer.sources import WheelFile

    class Destination(WheelDestination):  # type: ignore[misc, unused-ignore] # no types where this runs
        def write_script(self, name: str, module: str, attr: str, section: Any) -> Any:
            return RecordEntry(name, None, None)

        def write_file(self, scheme: Any, path: Any, stream: BinaryIO, is_executable: bool) -> Any:
            if scheme in {"purelib", "platlib"} and is_wanted(str(path)):
                place = folder / inside(str(path))
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(stream.read())
                place.chmod(0o755 if is_executable else 0o644)
            return RecordEntry(str(path), None, None)

        def finalize_installation(self, scheme: Any, record_file_path: str, records: Iterable[Any]) -> None:
            pass

    with WheelFile.open(wheel) as source:
        put(source, Destination(), {})


def inside(path: str) -> PurePosixPath:
    """Give a path of a wheel, which must stay within the folder.

    Raises:
        Refused: it leads out of it.
    """
    found = PurePosixPath(path)
    if found.is_absolute() or ".." in found.parts or "\\" in path:
        raise Refused(f"{path[:80]!r} leads out of the folder")
    return found


def is_wanted(path: str) -> bool:
    """Say whether a file of a wheel is of use where programs only run."""
    parts = path.split("/")
    if parts[0].endswith(".dist-info") and parts[-1] in NOISE:
        return False
    if path.startswith(UNUSED) or path.endswith((*SOURCES, ".pyc")) or parts[0].partition("-")[0] in TOOLS:
        return False
    if parts[0] in TESTED and "tests" in parts[:-1]:  # numpy.testing imports a module with _ from among them
        return parts[-1].startswith("_") and path.endswith(".py")
    return True


# ---- the same bytes every time -----------------------------------------------------------------------


def compile_all(folder: Path) -> None:
    """Write a .pyc for each source, in __pycache__ beside it, as the interpreter that runs this compiles it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for path in [*walk(folder)]:
            if path.suffix == ".py" and (made := compiled(path, folder)) is not None:
                place = Path(importlib.util.cache_from_source(str(path)))
                place.parent.mkdir(exist_ok=True)
                place.write_bytes(made)


def compiled(path: Path, folder: Path) -> bytes | None:
    """Give the bytes of a .pyc that is never held against its source, or None where there is nothing to compile."""
    source = path.read_bytes()
    name = f"{TARGET}/{path.relative_to(folder).as_posix()}"
    try:
        # version 2: later ones write an object again, or not, depending on who else holds it at that moment
        code = marshal.dumps(compile(source, name, "exec", dont_inherit=True, optimize=0), 2)
    except (SyntaxError, ValueError):  # a template, a file for a later Python, or a constant that version 2 cannot hold
        return None
    unchecked = (0b01).to_bytes(4, "little")
    return importlib.util.MAGIC_NUMBER + unchecked + importlib.util.source_hash(source) + code


def settle(folder: Path, epoch: int) -> None:
    """Give everything one time, and one of two modes."""
    for path in [*walk(folder), *sorted((each for each in folder.rglob("*") if each.is_dir()), reverse=True), folder]:
        executable = path.is_dir() or path.stat().st_mode & 0o100
        path.chmod(0o755 if executable else 0o644)
        os.utime(path, (epoch, epoch))


def walk(folder: Path) -> Iterator[Path]:
    """Give the files of a folder in order."""
    yield from sorted(path for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    main(sys.argv[1:])
