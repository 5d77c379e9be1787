"""One resolution, five files: uv resolves for two platforms, and every lock file is derived from that.

Environment --*pyproject*--> uv.lock --*export*--> requirements.txt, and PEP 751 --*pipfile*--> Pipfile, Pipfile.lock
"""

import io
import json
import re
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from ketch import extras
from ketch.errors import LockError
from ketch.lock import FILES, MARK, Environment, uv

PLATFORMS: Final = tuple(f"sys_platform == 'linux' and platform_machine == '{each}'" for each in ("x86_64", "aarch64"))
PUBLIC: Final = "https://pypi.org/simple"  # what uv and pipenv use where nobody says anything
LOCK: Final = ("lock", "--no-build", "--quiet")
EXPORT: Final = ("export", "--locked", "--no-build", "--no-emit-project", "--no-header", "--quiet", "--format")


def freeze(needed: Environment, name: str, environ: Mapping[str, str]) -> dict[str, bytes]:
    """Resolve once and write every lock file; see `ketch.lock.freeze`."""
    with tempfile.TemporaryDirectory(prefix="ketch-lock-") as made:
        folder = Path(made)

        def run(*words: str) -> str:
            return uv(words, python=needed.python, folder=folder, environ=environ)

        _write(folder, pyproject(needed, name))
        run(*LOCK)
        if (places := _places(folder)) != [PUBLIC]:  # the files must say where they come from
            _write(folder, pyproject(needed, name, places))
            run(*LOCK)
        requirements = run(*EXPORT, "requirements.txt", "--no-annotate")
        resolved = tomllib.loads(run(*EXPORT, "pylock.toml"))["packages"]
        written = {each: (folder / each).read_bytes() for each in ("pyproject.toml", "uv.lock")}
    text = pipfile(needed, places)
    files = {"Pipfile": text.encode(), "Pipfile.lock": pipfile_lock(text, resolved, places).encode()}
    files |= {"requirements.txt": (MARK + requirements).encode(), **written}
    return {each: files[each] for each in FILES}


def _write(folder: Path, text: str) -> None:
    (folder / "pyproject.toml").write_text(text, "utf-8")


def _places(folder: Path) -> list[str]:
    """List the indexes that the packages come from; uv leaves passwords out."""
    locked = tomllib.loads((folder / "uv.lock").read_text("utf-8"))
    found = {each["source"]["registry"] for each in locked["package"] if "registry" in each["source"]}
    if local := sorted(place for place in found if urlsplit(place).scheme not in {"http", "https"}):
        raise LockError(
            f"The lock would name {local[0]}, which only this machine has",
            hint="Use an index that others reach too: UV_DEFAULT_INDEX=https://…",
        )
    return sorted(found, key=lambda place: (place == PUBLIC, place)) or [PUBLIC]


def _names(places: Sequence[str]) -> dict[str, str]:
    return {place: "pypi" if place == PUBLIC else f"index-{number}" for number, place in enumerate(places, 1)}


# ---- uv --------------------------------------------------------------------------------------------


def pyproject(needed: Environment, name: str, places: Sequence[str] = ()) -> str:
    """Write the pyproject.toml of an environment: its requirements, platforms, and indexes beside the public one."""
    lines = ["[project]", f"name = {_quoted(f'{name}-environment')}", 'version = "0"']
    lines += [f"requires-python = {_quoted(f'=={needed.python}.*')}", f"dependencies = {_listed(needed.requirements)}"]
    lines += ["", "[tool.uv]", "package = false", 'fork-strategy = "fewest"']
    lines += [f"{key} = {_listed(PLATFORMS)}" for key in ("environments", "required-environments")]
    for place, called in _names(places).items():
        lines += ["", "[[tool.uv.index]]", f"name = {_quoted(called)}", f"url = {_quoted(place)}"]
        if place == places[-1]:
            lines += ["default = true"]
    return MARK + "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return json.dumps(text)  # a JSON string is a TOML string


def _listed(texts: Sequence[str]) -> str:
    return "[\n" + "".join(f"  {_quoted(text)},\n" for text in texts) + "]"


# ---- pipenv ----------------------------------------------------------------------------------------


def pipfile(needed: Environment, places: Sequence[str]) -> str:
    """Write the Pipfile of an environment."""
    lines = []
    for place, called in _names(places).items():
        lines += ["[[source]]", f"name = {_quoted(called)}", f"url = {_quoted(place)}", "verify_ssl = true", ""]
    lines += ["[packages]", *(_package(each) for each in needed.requirements)]
    return MARK + "\n".join([*lines, "", "[requires]", f"python_version = {_quoted(needed.python)}", ""])


def _package(requirement: str) -> str:
    read: Any = extras.load("packaging.requirements").Requirement(requirement)
    entries = [f"version = {_quoted(str(read.specifier) or '*')}"]
    if read.extras:
        entries.append(f"extras = [{', '.join(map(_quoted, sorted(read.extras)))}]")
    if read.marker:
        entries.append(f"markers = {_quoted(str(read.marker))}")
    return f"{_quoted(read.name)} = {{{', '.join(entries)}}}"


def pipfile_lock(text: str, resolved: Sequence[Mapping[str, Any]], places: Sequence[str]) -> str:
    """Write the Pipfile.lock that belongs to a Pipfile, from the packages of a resolution (PEP 751).

    Raises:
        LockError: two platforms need different versions of a package, which the format cannot say.
    """
    plette: Any = extras.load("plette")
    lock = plette.Lockfile.with_meta_from(plette.Pipfile.load(io.StringIO(text)), categories=[])
    names, found = _names(places), {}
    for each in resolved:
        if each["name"] in found:
            raise LockError(
                f"{each['name']} has no version that runs on both x86_64 and aarch64",
                hint="Pack the model with another version of it, or of what needs it.",
            )
        files = [*each.get("wheels", ()), *([each["sdist"]] if "sdist" in each else ())]
        found[each["name"]] = {
            "hashes": sorted(f"sha256:{file['hashes']['sha256']}" for file in files),
            "version": f"=={each['version']}",
            **({"markers": _flat(each["marker"])} if "marker" in each else {}),
            **({"index": names[each["index"].rstrip("/")]} if each.get("index", "").rstrip("/") in names else {}),
        }
    lock["default"] = found
    out = io.StringIO()
    lock.dump(out)
    return out.getvalue()


def _flat(marker: str) -> str:
    return re.sub(r"\s+", " ", marker)
