"""Code of the user's own that travels in a bundle: captured and searched when packing, opened only by trust.

object or file --*capture, secrets*--> originals + files        originals + files --*private*--> model
"""

import importlib
import platform
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Final

from ketch import trust
from ketch.adapters import open_original
from ketch.errors import KetchError, TrustError, UnsupportedModel

SIBLINGS: Final = {
    "capture": "ketch.code.capture",
    "private": "ketch.code.private",
    "secrets": "ketch.code.secrets",
    "value": "ketch.code.value",
}
PLACE: Final = "code/"  # where code stands among a bundle's members
VALUE: Final = "cloudpickle"  # format of an original that holds code by value
PYTHON: Final = "python"  # format of an original that is a Python file
SHOWN: Final = 5

Part = tuple[str, str, bytes]  # an original's name, format and bytes


@dataclass(frozen=True)
class Captured:
    """Code that travels with a model.

    `files` are sources by member, `libraries` the installed modules that they import, `beside` the data files that
    they name and that do not travel.
    """

    files: Mapping[str, bytes]
    libraries: frozenset[str] = frozenset()
    beside: tuple[str, ...] = ()


def sibling(name: str) -> ModuleType:
    """Import a module of this room by its short name."""
    return importlib.import_module(SIBLINGS[name])


def runs(parts: Sequence[Part], files: Mapping[str, bytes]) -> bool:
    """Say whether opening these originals runs code of a user's own."""
    return bool(files) or any(form in {VALUE, PYTHON} for _, form, _ in parts)


def unit(parts: Sequence[Part], files: Mapping[str, bytes]) -> str:
    """Give the SHA-256 that stands for originals and code together: one is never trusted with another's."""
    lines = [f"{trust.digest(data)} {form}\n" for _, form, data in parts]
    lines += [f"{trust.digest(data)}  {member}\n" for member, data in sorted(files.items())]
    return trust.digest("".join(lines).encode())


def capture_files(paths: Sequence[Path], parts: Sequence[Part]) -> Captured:
    """Find the local modules that files of a model need, without running any.

    Raises:
        UnsupportedModel: one of them cannot travel.
        SecretFound: one of them holds a secret.
    """
    captured: Captured = sibling("capture").of_files(paths, parts)
    return captured


def capture_object(model: object) -> tuple[Part, Captured]:
    """Write an object, with the code of its user: by source where it can be imported, else by value.

    Raises:
        UnsupportedModel: it cannot be written, or some of its code cannot travel.
        SecretFound: some of its code holds a secret.
    """
    part, captured = sibling("capture").of_object(model)
    return part, captured


def open_parts(
    parts: Sequence[Part], files: Mapping[str, bytes], *, home: Path, name: str, python: str, signed: bool = False
) -> list[object]:
    """Open the originals of one model; `python` is the version it was packed with.

    Where code of a user's own would run, that needs `signed`, by a trusted key, or this user's approval of exactly
    these bytes; it runs in a namespace of the bundle's own.

    Raises:
        TrustError, ModelError: they must not, or cannot, be opened here.
    """
    if not runs(parts, files):
        return [open_original(data, form, home=home, name=each, signed=signed) for each, form, data in parts]
    sha256 = unit(parts, files)
    if not signed and not trust.is_approved(sha256, home=home):
        raise _refusal(parts, files, name, sha256)
    _require_python(parts, name, python)
    namespace = sibling("private").namespace(sha256, files)
    return [_open(namespace, each, name) for each in parts]


def _open(namespace: object, part: Part, name: str) -> object:
    try:
        return sibling("private").load(namespace, part)
    except KetchError:
        raise
    except ModuleNotFoundError as error:
        raise UnsupportedModel(
            f"{name} cannot be opened here: its code imports {plain(str(error.name))}, which is not here",
            hint="Install that package, or put the module beside the file and pack again; data files do not travel.",
        ) from error
    except Exception as error:  # a user's code may raise anything
        reason = plain((str(error).splitlines() or [""])[0][:200])
        raise UnsupportedModel(
            f"{name} cannot be opened here: {type(error).__name__}: {reason}",
            hint="Its own code fails. It must not need files beside it: let the object that you pack hold them.",
        ) from error


def plain(text: str) -> str:
    """Write names of a bundle's own namespace as their author wrote them."""
    found: str = sibling("private").OWN.sub("", text)
    return found


def _require_python(parts: Sequence[Part], name: str, python: str) -> None:
    wanted, here = python.split(".")[:2], platform.python_version_tuple()[:2]
    if any(form == VALUE for _, form, _ in parts) and tuple(wanted) != here:
        raise UnsupportedModel(
            f"{name} holds code compiled by Python {'.'.join(wanted)}, this is Python {'.'.join(here)}",
            hint=f"Serve it with Python {'.'.join(wanted)}, or move its functions to a module and pack it again.",
        )


def _refusal(parts: Sequence[Part], files: Mapping[str, bytes], name: str, sha256: str) -> TrustError:
    names = _names(parts, files)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return TrustError(
        f"{name} runs code of its maker's own: {', '.join(names[:SHOWN])}{more}{_wanted(parts)}",
        hint=f"Read it first. If you trust its maker, approve this one model: --trust=sha256:{sha256}",
    )


def _names(parts: Sequence[Part], files: Mapping[str, bytes]) -> list[str]:
    names = [member.removeprefix(PLACE) for member in sorted(files)]
    return names + [f"code inside {each}" for each, form, _ in parts if form == VALUE]


def _wanted(parts: Sequence[Part]) -> str:
    """Name what pickles want of the code."""
    found = [name for _, form, data in parts if form not in {PYTHON, VALUE} for name in trust.examine(data).refused]
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return f", for {', '.join(found[:SHOWN])}{more}" if found else ""


def is_installed(path: Path) -> bool:
    """Say whether a file belongs to an installed distribution or to Python itself."""
    return bool({"site-packages", "dist-packages"} & set(path.parts)) or any(
        path.is_relative_to(folder) for folder in _standard()
    )


def _standard() -> set[Path]:
    paths = sysconfig.get_paths()
    return {Path(paths[kind]).resolve() for kind in ("stdlib", "platstdlib")}


def is_approved(parts: Sequence[Part], files: Mapping[str, bytes], *, home: Path) -> bool:
    """Say whether this user approved the originals of a model, or at least one, where no code comes with them."""
    if runs(parts, files):
        return trust.is_approved(unit(parts, files), home=home)
    return any(trust.is_approved(trust.digest(data), home=home) for _, _, data in parts)


def needs_trust(parts: Sequence[Part], files: Mapping[str, bytes], *, home: Path) -> bool:
    """Say whether opening the originals of a model takes an approval."""
    found = [trust.examine(data, home=home) for _, _, data in parts]
    return runs(parts, files) or any(each.refused or each.faults for each in found)


def approve(parts: Sequence[Part], files: Mapping[str, bytes], *, home: Path, name: str, when: str) -> str:
    """Record that this user approves originals and code, and say what they run; `when` is an ISO time.

    Raises:
        NotAModel: an original is no pickle, and no code comes with it.
    """
    if not runs(parts, files):
        refused = [
            each for _, _, data in parts for each in trust.approve(data, home=home, name=name, when=when).refused
        ]
        return f"it imports {', '.join(refused) or 'nothing unusual'}"
    names = _names(parts, files)
    trust.record(unit(parts, files), {"name": name, "when": when, "code": names}, home=home)
    return f"it runs {', '.join(names)}{_wanted(parts)}"
