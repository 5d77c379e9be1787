"""The environment that a scikit-learn of the past needs, made with uv and kept.

version, NumPy's generation --*interpreter*--> $KETCH_HOME/cache/rescue/… --> its Python
"""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from ketch import lock
from ketch.errors import LockError, UnsupportedModel

VERSION: Final = re.compile(r"(\d+)\.(\d+)(\.\d+)?((rc|\.post)\d+)?", re.ASCII)
NEWEST: Final = (3, 14)
# since scikit-learn: Python from and to, and what it was used with; a later row holds from there on
RELEASES: Final[dict[tuple[int, int], tuple[tuple[int, int], tuple[int, int], str]]] = {
    (0, 22): ((3, 6), (3, 8), "numpy<1.20 scipy<1.6 pandas<1.3"),
    (0, 24): ((3, 6), (3, 9), "numpy<1.22 scipy<1.8 pandas<1.5"),
    (1, 0): ((3, 7), (3, 10), "numpy<1.24 scipy<1.10 pandas<2"),
    (1, 1): ((3, 8), (3, 11), "numpy<1.24 scipy<1.11 pandas<2"),
    (1, 2): ((3, 8), (3, 11), "numpy<1.25 scipy<1.11 pandas<2.1"),
    (1, 3): ((3, 8), (3, 12), "numpy<2 scipy<1.12 pandas<2.2"),
    (1, 4): ((3, 9), (3, 12), "numpy<2 scipy<1.14 pandas<3"),
    (1, 5): ((3, 9), (3, 13), "scipy<1.15 pandas<3"),
    (1, 6): ((3, 9), (3, 13), "scipy<1.16 pandas<3"),
    (1, 7): ((3, 10), (3, 14), "scipy<1.17 pandas<3"),
    (1, 8): ((3, 11), NEWEST, "scipy pandas"),
}


def interpreter(version: str, *, numpy_2: bool, home: Path, environ: Mapping[str, str]) -> Path:
    """Give the Python of an environment with this scikit-learn; it is made when missing.

    `numpy_2` says that the file was written with NumPy 2, which older ones do not read.

    Raises:
        UnsupportedModel: that version is unknown, or no Python for it is on this machine.
        LockError: the index does not give it; NotInstalled: uv is missing.
    """
    oldest, latest, others = _release(version)
    if not numpy_2 and "numpy" not in others:
        others, latest = f"numpy<2 {others}", min(latest, (3, 12))
    wanted = (f"scikit-learn=={version}", *others.split(), *(["numpy>=2"] if numpy_2 else []))
    folder = home / "cache" / "rescue" / f"scikit-learn-{version}-numpy-{2 if numpy_2 else 1}"
    if _python(folder).exists():
        return _python(folder)
    shutil.rmtree(folder, ignore_errors=True)  # its Python was removed
    failed: LockError | None = None
    for python in _pythons(oldest, latest):
        try:
            _make(folder, python, wanted, environ)
            return _python(folder)
        except LockError as error:  # no wheels for this one: perhaps for an older one
            failed = failed or error
    if failed:
        raise failed
    raise UnsupportedModel(
        f"scikit-learn {version} runs on Python {_dotted(oldest)} to {_dotted(latest)}, and none is on this machine",
        hint=f"Install one, for example with: uv python install {_dotted(latest)}; then try again.",
    )


def _release(version: str) -> tuple[tuple[int, int], tuple[int, int], str]:
    match = VERSION.fullmatch(version)
    minor = (int(match[1]), int(match[2])) if match else (0, 0)
    if minor < min(RELEASES):
        raise UnsupportedModel(
            f"There is no rescue for scikit-learn {version}",
            hint="Fit the model again with today's scikit-learn; --rescue knows released versions from 0.22 on.",
        )
    return RELEASES[max(since for since in RELEASES if since <= minor)]


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


def _python(folder: Path) -> Path:
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def _pythons(oldest: tuple[int, int], latest: tuple[int, int]) -> Iterator[str]:
    """Find interpreters between two versions: this one, then from the newest to the oldest."""
    here = (sys.version_info[0], sys.version_info[1])
    if oldest <= here <= latest:
        yield sys.executable
    for minor in range(latest[1], oldest[1] - 1, -1):
        if (3, minor) != here and (found := _found(minor)):
            yield found


def _found(minor: int) -> str:
    name = f"python3.{minor}"
    candidates = [shutil.which(name) or ""]
    for root, pattern in (
        (os.environ.get("PYENV_ROOT") or "~/.pyenv", f"versions/3.{minor}.*/bin/python"),
        (os.environ.get("UV_PYTHON_INSTALL_DIR") or "~/.local/share/uv/python", f"cpython-3.{minor}.*/bin/python3"),
    ):
        candidates += [str(path) for path in sorted(Path(root).expanduser().glob(pattern))]
    return next((path for path in candidates if path and _runs(path)), "")


def _runs(path: str) -> bool:
    """Say whether an interpreter starts; a shim of pyenv may stand for one that does not."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return subprocess.run([path, "-I", "-c", ""], capture_output=True, timeout=30).returncode == 0
    return False


def _make(folder: Path, python: str, wanted: tuple[str, ...], environ: Mapping[str, str]) -> None:
    """Make it aside and rename it, so that there is a whole one or none."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".", dir=folder.parent) as aside:
        made = Path(aside) / "made"
        create = ["venv", "--no-project", "--relocatable", "--quiet", str(made)]
        lock.uv(create, python=python, folder=Path(aside), environ=environ)
        install = ["pip", "install", "--quiet", "--no-build", *wanted]
        lock.uv(install, python=str(_python(made)), folder=Path(aside), environ=environ)
        with contextlib.suppress(OSError):  # somebody else was faster
            made.rename(folder)
