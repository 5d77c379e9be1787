"""The environment, frozen: what a model needs, resolved once, written down, and made again where it runs.

what a model imports --*capture*--> versions --*environment*--> Environment --*freeze*--> lock files
                                                                            --*interpreter*--> virtual environment
"""

import contextlib
import functools
import importlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution, packages_distributions, requires
from pathlib import Path
from types import ModuleType
from typing import Final

from ketch import extras
from ketch.errors import LockError, NotInstalled
from ketch.program import GRAPH_MEMBER

FILES: Final = ("Pipfile", "Pipfile.lock", "pyproject.toml", "requirements.txt", "uv.lock")
FOLDER: Final = "env/"  # where they stand in a bundle
CAPTURED: Final = FOLDER + "requirements.txt"  # without hashes from `pack`, with hashes from `lock`
LOCKED: Final = FOLDER + "uv.lock"  # there when the bundle is locked
MARK: Final = "# Written by `ketch lock`; write it again rather than change it.\n"
CIRCUMSTANCES: Final = frozenset({"ketch", "python", "platform"})  # versions that are no distributions
SERVED_BY: Final = {"xgboost": "xgboost-cpu"}  # the same module without the libraries of a GPU
NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?", re.ASCII)
VERSION: Final = re.compile(r"[0-9][A-Za-z0-9.!+_-]*", re.ASCII)
OF_EXTRA: Final = re.compile(
    r"(?P<what>[^;]+?)\s*;\s*(?:(?P<marker>.+?)\s+and\s+)?extra\s*==\s*['\"](?P<extra>[\w-]+)['\"]"
)
UV_INDEX: Final = (
    "UV_DEFAULT_INDEX",
    "UV_INDEX",
    "UV_INDEX_URL",
    "UV_EXTRA_INDEX_URL",
    "UV_NO_INDEX",
    "UV_CONFIG_FILE",
)
OTHERS: Final = ("VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONPATH", "UV_PROJECT_ENVIRONMENT", "UV_PYTHON", "UV_PROJECT")
SIBLINGS: Final = {"files": "ketch.lock.files", "isolated": "ketch.lock.isolated"}


@dataclass(frozen=True)
class Environment:
    """What answers for a bundle: a Python, such as 3.11, requirements (PEP 508), and the extras of Ketch among them."""

    python: str
    requirements: tuple[str, ...]
    extras: tuple[str, ...] = ()


def sibling(name: str) -> ModuleType:
    """Import a module of this room by its short name."""
    return importlib.import_module(SIBLINGS[name])


# ---- what a model imports --------------------------------------------------------------------------


def capture(imports: Iterable[str], names: Iterable[str]) -> dict[str, str]:
    """Give the installed versions of the distributions that a model needs.

    `imports` are dotted names that the model's files import, `names` are distributions. What these need in turn on
    every platform comes along; the rest of the environment does not. Modules of no distribution are left out.
    """
    return _closure([*names, *_providers(imports)], lambda requirement: ";" not in requirement)


def _closure(waiting: list[str], counts: Callable[[str], bool]) -> dict[str, str]:
    """Follow the requirements that count, and give each distribution met with its version."""
    found: dict[str, str] = {}
    while waiting:
        if (known := _installed(waiting.pop())) is None or canonical(known.name) in found:
            continue
        found[canonical(known.name)] = known.version
        waiting += [match[0] for each in filter(counts, known.requires or ()) if (match := NAME.match(each))]
    return dict(sorted(found.items()))


def canonical(name: str) -> str:
    """Write a distribution's name in its one form (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _installed(name: str) -> Distribution | None:
    try:
        return distribution(name)
    except PackageNotFoundError:
        return None


@functools.cache
def _distributions() -> Mapping[str, Sequence[str]]:
    return packages_distributions()  # reads every file list: a fifth of a second


def _providers(imports: Iterable[str]) -> Iterator[str]:
    known = _distributions()
    for module in sorted({each.partition(".")[0] for each in imports}):
        providers = set(known.get(module, ()))
        if len(providers) == 1:  # a namespace of several, such as `google`, tells nothing
            yield providers.pop()


# ---- what a bundle needs ---------------------------------------------------------------------------


def environment(
    versions: Mapping[str, str], *, serves: str, members: Iterable[str], wanted: Sequence[str] = ()
) -> Environment:
    """Say what answers for a bundle, from its manifest's `versions` and `serves` and the names of its members.

    A compiled model needs nothing of what made it. Ketch's own requirements are there, with those of the extras
    `wanted`; Ketch itself is not.

    Raises:
        LockError: a name or version in the manifest is none.
    """
    python = versions.get("python", "")
    if not re.fullmatch(r"3\.\d{1,2}(\.\w{1,16})?", python, re.ASCII):
        raise LockError("The bundle does not say which Python it was made with", hint="Pack the model again.")
    pinned = _serving({canonical(name): value for name, value in versions.items()}, serves, set(members))
    for name, value in pinned.items():
        if not NAME.fullmatch(name) or not (VERSION.fullmatch(value) or not value):
            raise LockError(f"The bundle needs {name[:60]} {value[:60]}, which cannot be", hint="Pack the model again.")
    listed = [f"{name}=={value}" if value else name for name, value in sorted(pinned.items())]
    requirements = dict.fromkeys([*listed, *own_requirements(wanted)])
    return Environment(".".join(python.split(".")[:2]), tuple(requirements), tuple(wanted))


def _serving(versions: Mapping[str, str], serves: str, members: set[str]) -> dict[str, str]:
    if serves == "compiled":
        return {name: versions.get(name, "") for name in runtime(members)}
    return {SERVED_BY.get(name, name): value for name, value in versions.items() if name not in CIRCUMSTANCES}


def runtime(members: Iterable[str]) -> tuple[str, ...]:
    """Name the distributions that a compiled form needs, by the members that hold it; a linear one needs none."""
    return ("numpy", "onnxruntime") if GRAPH_MEMBER in members else ()


def own_distributions() -> set[str]:
    """Name the distributions that Ketch brings with it on any platform, and those that they bring."""
    names = [match[0] for each in own_requirements() if (match := NAME.match(each))]
    return {*map(canonical, names), *_closure(names, lambda requirement: "extra ==" not in requirement)}


def own_requirements(wanted: Sequence[str] = ()) -> list[str]:
    """List what Ketch needs to run, with the extras `wanted`."""
    found = []
    for each in requires("ketch") or ():
        optional = OF_EXTRA.fullmatch(each)
        if optional is None:
            found.append(each)
        elif optional["extra"] in wanted and canonical(optional["what"]).partition("[")[0] != "ketch":
            found.append(f"{optional['what']}; {optional['marker']}" if optional["marker"] else optional["what"])
    return found


def freeze(needed: Environment, name: str, environ: Mapping[str, str]) -> dict[str, bytes]:
    """Resolve an environment for Linux on x86_64 and aarch64, and write every lock file from that one resolution.

    Raises:
        LockError: there is no such environment, or the index cannot be reached.
        NotInstalled: uv or what writes Pipfiles is missing.
    """
    files: dict[str, bytes] = sibling("files").freeze(needed, name, environ)
    return files


def interpreter(needed: Environment, locked: bytes | None, *, home: Path, environ: Mapping[str, str]) -> Path:
    """Give the Python of a virtual environment that has what is needed and this Ketch; it is made when missing.

    `locked` is a requirements.txt with hashes that Ketch wrote; where it says nothing about this machine, or is
    absent, the environment is resolved here.

    Raises:
        LockError: it cannot be made; NotInstalled: uv is missing.
    """
    made: Path = sibling("isolated").interpreter(needed, locked, home=home, environ=environ)
    return made


def require_known(needed: Environment, locked: bytes | None, which: str) -> None:
    """Refuse an environment with packages that are not well known; `which` is the bundle, as NAME;sha256:IDENTITY.

    Raises:
        TrustError: there are some, and only who trusts the bundle's maker installs them.
        LockError: the lock is in no form that is taken from a bundle.
    """
    sibling("isolated").require_known(needed, locked, which)


def lines(locked: bytes) -> list[str]:
    """Give the lines of a requirements.txt with hashes: NAME==VERSION ; MARKER --hash=sha256:…, and nothing else.

    Raises:
        LockError: a line is in no form that is taken from a bundle.
    """
    found: list[str] = sibling("isolated").checked(locked)
    return found


# ---- uv --------------------------------------------------------------------------------------------


def python_for(version: str, environ: Mapping[str, str]) -> str:
    """Name a Python to uv: this one where it is of that version, else one of pyenv's, else uv looks for it.

    pyenv puts programs on the PATH for versions that are not switched on, and uv stops at them.
    """
    if version == f"{sys.version_info[0]}.{sys.version_info[1]}":
        return sys.executable
    versions = Path(environ.get("PYENV_ROOT") or "~/.pyenv").expanduser() / "versions"
    found = sorted(versions.glob(f"{version}.*/bin/python")) if re.fullmatch(r"3\.\d+", version) else []
    return str(found[-1]) if found else version


def uv(words: Sequence[str], *, python: str, folder: Path, environ: Mapping[str, str]) -> str:
    """Run uv in a folder and give what it says; it never fetches a Python and never builds a package.

    Raises:
        LockError: it does not succeed; NotInstalled: it is missing.
    """
    program = uv_program()
    done = subprocess.run(
        [
            program,
            *words,
            "--python",
            python_for(python, environ),
            "--no-python-downloads",
            "--no-progress",
            "--color=never",
        ],
        cwd=folder,
        env={**{name: value for name, value in environ.items() if name not in OTHERS}, **_index(environ)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    if done.returncode:
        raise _explained(done.stderr, python)
    return done.stdout


def uv_program() -> str:
    """Give where uv is.

    Raises:
        NotInstalled: it is missing.
    """
    try:
        found: str = extras.load("uv").find_uv_bin()
    except (NotInstalled, FileNotFoundError) as error:
        on_path = shutil.which("uv")
        if on_path is None:
            raise NotInstalled("uv is not installed", hint="Install it with: pip install 'ketch[lock]'") from error
        return on_path
    return found


def _explained(said: str, python: str) -> LockError:
    told = " ".join(said.split())
    if re.search(
        r"(?i)no interpreter found|no python|inspect python interpreter|python[\d.]*: command not found", told
    ):
        return LockError(
            f"Python {python}, which the bundle was made with, is not on this machine",
            hint=f"Install it, for example with: uv python install {python}",
        )
    reason = told.partition("error: ")[2] or told
    if re.search(r"(?i)failed to fetch|request failed|connect", told):
        hint = "Check the network and the package index; UV_DEFAULT_INDEX names another."
    else:
        hint = "Pack the model with released versions that have wheels for Linux; UV_DEFAULT_INDEX names another index."
    return LockError(f"The environment cannot be put together: {reason[:400]}", hint=hint)


def _index(environ: Mapping[str, str]) -> dict[str, str]:
    """Let uv use pip's index where the user has told only pip."""
    if any(environ.get(name) for name in UV_INDEX) or any(path.is_file() for path in _uv_settings(environ)):
        return {}
    url = environ.get("PIP_INDEX_URL") or _asked_of_pip(environ)
    return {"UV_DEFAULT_INDEX": url} if url else {}


def _uv_settings(environ: Mapping[str, str]) -> Iterator[Path]:
    user = environ.get("APPDATA" if os.name == "nt" else "XDG_CONFIG_HOME")
    yield Path(user or "~/.config").expanduser() / "uv" / "uv.toml"
    yield Path(environ.get("PROGRAMDATA") or "/etc") / "uv" / "uv.toml"


def _asked_of_pip(environ: Mapping[str, str]) -> str:
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        # -I: no pip out of the current folder; `get` passes over PIP_CONFIG_FILE
        asked = [sys.executable, "-I", "-m", "pip", "config", "list"]
        done = subprocess.run(asked, env=dict(environ), capture_output=True, text=True, timeout=30)
        told = re.search(r"^global\.index-url='(.+)'$", done.stdout, re.MULTILINE)
        return told[1] if told else ""
    return ""
