"""A virtual environment for one bundle, made on demand and kept under a name that says all that is in it.

Environment, lock --*digest*--> $KETCH_HOME/cache/environments/DIGEST --*make*--> its Python
"""

import contextlib
import hashlib
import json
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import distribution
from pathlib import Path
from typing import Final

import ketch.errors
from ketch.errors import LockError, TrustError
from ketch.lock import NAME, Environment, canonical, own_distributions, uv

OWN: Final = Path(ketch.errors.__file__).parent
LINE: Final = re.compile(  # the only form that is taken from a bundle: no address, no option
    r"[A-Za-z0-9._-]+==[A-Za-z0-9.!+_-]+( ; [A-Za-z0-9_.'\"<>=!() -]+)?( --hash=sha256:[0-9a-f]{64})+", re.ASCII
)
# Whoever makes a bundle could name a package of his own in it, and a package runs code when Python starts.
KNOWN: Final = frozenset(
    """catboost category-encoders cloudpickle contourpy cycler feature-engine flatbuffers fonttools graphviz
    imbalanced-learn joblib kiwisolver lightgbm matplotlib ml-dtypes mpmath narwhals numpy onnx onnxruntime packaging
    pandas patsy pillow plotly polars prettytable protobuf psycopg psycopg-binary pyarrow pyparsing python-dateutil pytz
    pyyaml scikit-learn scipy six skops statsmodels sympy threadpoolctl typing-extensions tzdata wcwidth xgboost
    xgboost-cpu""".split()
)


def require_known(needed: Environment, locked: bytes | None, which: str) -> None:
    """Refuse what is neither well known nor one of Ketch's own requirements; see `ketch.lock.require_known`."""
    wanted = _names([*needed.requirements, *(checked(locked) if locked else ())])
    if strangers := sorted(wanted - KNOWN - own_distributions()):
        name, _, identity = which.partition(";")
        raise TrustError(
            f"The environment of {name} has packages that Ketch does not know: {', '.join(strangers[:5])}",
            hint=f"Look at them. If you trust the bundle's maker, say so: --trust={identity}",
        )


def _names(requirements: Iterable[str]) -> set[str]:
    return {canonical(match[0]) for each in requirements if (match := NAME.match(each))}


def interpreter(needed: Environment, locked: bytes | None, *, home: Path, environ: Mapping[str, str]) -> Path:
    """Give the Python of the environment; see `ketch.lock.interpreter`."""
    lines = checked(locked) if locked and _is_for_here() else None
    if lines and (missing := _names(needed.requirements) - _names(lines)):
        again = "".join(f" --extra {each}" for each in needed.extras)
        raise LockError(
            f"The bundle's lock has no {min(missing)}, which this needs", hint=f"Lock it with: ketch lock BUNDLE{again}"
        )
    folder = home / "cache" / "environments" / _digest(needed, lines)
    if not folder.exists():
        _make(folder, needed, lines, environ)
    python = _python(folder)
    if not python.exists():
        raise LockError(
            f"Python {needed.python}, which {folder} was made with, is gone", hint=f"Delete the folder: {folder}"
        )
    return python


def _python(folder: Path) -> Path:
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def _is_for_here() -> bool:
    """Say whether the lock speaks of this machine: it is resolved for Linux on two processors."""
    return platform.system() == "Linux" and platform.machine() in {"x86_64", "aarch64"}


def checked(locked: bytes) -> list[str]:
    """Give the lines of a lock; see `ketch.lock.lines`."""
    text = locked.decode("utf-8", "replace").replace("\\\n", " ")
    lines = [" ".join(line.split()) for line in text.splitlines() if not line.lstrip().startswith("#")]
    lines = [line for line in lines if line]
    if wrong := [line for line in lines if not LINE.fullmatch(line)]:
        raise LockError(
            f"The bundle's lock has a line that is not taken: {wrong[0][:80]!r}",
            hint="Lock it again with: ketch lock BUNDLE",
        )
    return lines


def _digest(needed: Environment, lines: list[str] | None) -> str:
    """Name everything that is in the environment, Ketch's own code too, since a checkout changes under one version."""
    where = [platform.system(), platform.machine(), platform.libc_ver()[0]]
    told = json.dumps([needed.python, lines or needed.requirements, lines is None, where])
    found = hashlib.sha256(told.encode())
    for path in _sources():
        found.update(path.relative_to(OWN).as_posix().encode() + b"\0" + path.read_bytes())
    return found.hexdigest()[:32]


def _sources() -> Iterator[Path]:
    yield from sorted(path for path in OWN.rglob("*") if path.is_file() and "__pycache__" not in path.parts)


def _make(folder: Path, needed: Environment, lines: list[str] | None, environ: Mapping[str, str]) -> None:
    """Make the environment aside and rename it, so that there is a whole one or none, whoever else makes it too."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise LockError(
            f"{folder.parent} cannot be written: {error.strerror}", hint="Choose another folder with KETCH_HOME."
        ) from None
    try:
        _fill(aside / "made", aside, needed, lines, environ)
        with contextlib.suppress(OSError):
            (aside / "made").rename(folder)
        if not folder.exists():
            raise LockError(f"{folder} cannot be written", hint="Choose another folder with KETCH_HOME.")
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _fill(made: Path, folder: Path, needed: Environment, lines: list[str] | None, environ: Mapping[str, str]) -> None:
    uv(
        ["venv", "--no-project", "--relocatable", "--quiet", str(made)],
        python=needed.python,
        folder=folder,
        environ=environ,
    )
    wanted = folder / "requirements.txt"
    wanted.write_text("\n".join(lines or needed.requirements) + "\n", "utf-8")
    hashed = ["--require-hashes"] if lines else []
    install = ["pip", "install", "--quiet", "--no-build", *hashed, "--requirement", str(wanted)]
    uv(install, python=str(_python(made)), folder=folder, environ=environ)
    _bring_ketch(made)


def _bring_ketch(made: Path) -> None:
    """Put this very Ketch into the environment; it is plain Python, so that its files are all there is to it."""
    site = made / "Lib/site-packages" if os.name == "nt" else next(made.glob("lib/python*/site-packages"))
    shutil.copytree(OWN, site / "ketch", ignore=shutil.ignore_patterns("__pycache__"))
    known = distribution("ketch")
    told = site / f"ketch-{known.version}.dist-info"
    told.mkdir()
    for name in ("METADATA", "entry_points.txt"):
        (told / name).write_text(known.read_text(name) or "", "utf-8")
