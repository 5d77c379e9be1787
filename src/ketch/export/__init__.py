"""The eject button: a bundle, made into a plain project with no Ketch in it.

bundle --*project*--> Project (files by path) --*steps.files.write*--> folder

Names, categories and all other words of a model stand in JSON files, which its programs read. What enters a program, a
Dockerfile or a page of text is held against the letters of `TEMPLATES` first.
"""

import importlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import msgspec

from ketch import lock
from ketch.bundle import Bundle
from ketch.errors import BundleError, CorruptBundle, KetchError
from ketch.lock import Environment
from ketch.page import answered, broken, example_row, row_schema, spelled, whole
from ketch.predict import Limits
from ketch.schema import Field
from ketch.schema.checks import Checker
from ketch.steps.templates import Templates

SIBLINGS: Final = {"plain": "ketch.export.plain", "training": "ketch.export.training"}
SERVICES: Final[Mapping[str, tuple[str, ...]]] = {  # what the service needs beside what the model needs
    "flask": ("flask>=3.1,<4", "gunicorn>=23", "jsonschema>=4.23,<5"),
    "fastapi": ("fastapi>=0.115", "jsonschema>=4.23,<5", "uvicorn>=0.35"),
}
TOOLS: Final = ("pytest>=8.2", "ruff>=0.9")
PAGE: Final = ("streamlit>=1.40",)
WRITTEN: Final = {  # path in the project -> template
    ".dockerignore": "dockerignore",
    ".gitignore": "gitignore",
    "Dockerfile": "Dockerfile",
    "README.md": "README.md",
    "model.py": "model.py",
    "page.py": "page.py",
    "renew.py": "renew.py",
    "tests/test_golden.py": "test_golden.py",
    "wire.py": "wire.py",
}
OF_SERVICE: Final = {
    "flask": {
        "gunicorn.conf.py": "gunicorn.conf.py",
        "service.py": "flask.py",
        "tests/conftest.py": "conftest_flask.py",
    },
    "fastapi": {"service.py": "fastapi.py", "tests/conftest.py": "conftest_fastapi.py"},
}
TEMPLATES: Final = Templates(
    "ketch.export",
    re.compile(r"[A-Za-z0-9 ._+=-]*", re.ASCII),
    "program",
    CorruptBundle,
    "Pack the model again.",
)
OWN_MARK: Final = "# Written by `ketch export`.\n"

Freeze = Callable[[Environment, str], Mapping[str, bytes]]


@dataclass(frozen=True)
class ModelFile:
    """One file of the model as it stands in the project."""

    name: str
    data: bytes
    sha256: str


@dataclass(frozen=True)
class Plain:
    """A model as plain code asks it.

    `columns` are what it is handed, in order, and `facts` what the template of `model.py` needs to know. `needs` are
    the distributions with which its files are opened and asked.
    """

    files: tuple[ModelFile, ...]
    columns: Sequence[Mapping[str, object]]
    facts: Mapping[str, Any]
    needs: Sequence[str]


@dataclass(frozen=True)
class Project:
    """A project: its files by path, and what a person should know."""

    name: str
    files: Mapping[str, bytes]
    notes: tuple[str, ...] = ()


def sibling(name: str) -> ModuleType:
    """Import a module of this room by its short name."""
    return importlib.import_module(SIBLINGS[name])


def project(opened: Bundle, *, home: Path, service: str = "flask", freeze: Freeze | None = None) -> Project:
    """Make a project of a bundle, with Flask or FastAPI; the same bundle makes the same project.

    `freeze` locks its environment, as `ketch.lock.freeze` does; where it cannot, or without it, versions are pinned.

    Raises:
        UnsupportedModel: the model cannot do without Ketch.
        TrustError, ModelError: it must not, or cannot, be opened here.
        BundleError: the bundle has nothing to test the project with.
    """
    plain: Plain = sibling("plain").read(opened, home=home)
    return composed(opened, plain, service=service, freeze=freeze)


def composed(opened: Bundle, plain: Plain, *, service: str = "flask", freeze: Freeze | None = None) -> Project:
    """Put a project together of a bundle and what plain code needs to know of its model."""
    needed = _environment(opened, plain, service)
    locked, notes = _locked(needed, opened.manifest.name, freeze)
    trained: Mapping[str, bytes] = sibling("training").files(opened)
    told = {
        **plain.facts,
        "name": opened.manifest.name,
        "sha256": opened.sha256,
        "python": needed.python,
        "flask": service == "flask",
        "files": plain.files,
        "locked": bool(locked),
        "openmp": any(each.startswith("lightgbm==") for each in needed.requirements),
        "train": "train.py" in trained,
        "train_requirements": "requirements-train.txt" in trained,
    }
    files = {path: TEMPLATES.rendered(template, told) for path, template in (WRITTEN | OF_SERVICE[service]).items()}
    files |= {path: _json(value) for path, value in _described(opened, plain).items()}
    files |= {f"model/{each.name}": each.data for each in plain.files}
    files |= {**_installed(needed, locked, told), **trained}
    return Project(opened.manifest.name, dict(sorted(files.items())), notes)


# ---- what programs read ------------------------------------------------------------------------------


def _json(value: object) -> bytes:
    return spelled(value, indent=1).encode() + b"\n"


def _described(opened: Bundle, plain: Plain) -> dict[str, object]:
    contract, dialect = opened.contract, {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    told = {
        "name": opened.manifest.name,
        "answer": whole(contract.answer),
        "fields": [_field(each) for each in contract.fields],
        "columns": plain.columns,
    }
    row, refusal = broken(contract)
    return {
        "contract.json": told,
        "schema.json": {**dialect, **row_schema(contract.fields, Limits())},
        "example.json": example_row(contract),
        "tests/golden.json": {
            "answered": golden(opened),
            "refused": {"row": row, "fields": [each.get("field", "") for each in refusal.errors]},
        },
    }


def _field(each: Field) -> dict[str, object]:
    told: dict[str, object] = {"name": each.name, "type": each.type, "required": each.required}
    return told | {name: value for name, value in msgspec.to_builtins(each).items() if name not in told}


def golden(opened: Bundle) -> list[dict[str, object]]:
    """Give the golden rows as a caller sends them, each with its answer in the words of the wire.

    Raises:
        BundleError: there are none.
    """
    listed = answered(opened, Checker(opened.contract.fields))
    if not listed:
        raise BundleError(f"{opened.manifest.name} has no row to test with", hint="Pack the model again.")
    return [{"row": each.row, "answer": each.answer} for each in listed]


# ---- what is installed -------------------------------------------------------------------------------


def _environment(opened: Bundle, plain: Plain, service: str) -> Environment:
    """Pin what the model needs, in the versions that it was made with, beside what the service needs."""
    spare = {*lock.capture((), lock.runtime(opened.files))} - {*plain.needs}  # what only the compiled form needs
    versions = opened.manifest.versions.items()
    kept = {name: number for name, number in versions if lock.canonical(name) not in spare}
    needed = lock.environment(kept, serves="original", members=())
    own = {*lock.own_requirements()}
    pinned = [each for each in needed.requirements if each not in own]
    return Environment(needed.python, tuple(sorted([*pinned, *SERVICES[service]])))


def _locked(needed: Environment, name: str, freeze: Freeze | None) -> tuple[Mapping[str, bytes], tuple[str, ...]]:
    if freeze is None:
        return {}, ()
    try:
        return freeze(needed, name), ()
    except KetchError as error:
        reason = f"{error.message.rstrip('.')}. {error.hint}"
        return {}, (f"requirements.txt pins versions, but is not locked: {reason}",)


def _installed(needed: Environment, locked: Mapping[str, bytes], told: Mapping[str, Any]) -> dict[str, bytes]:
    own = {name: _signed(data) for name, data in locked.items()}
    head = own.get("pyproject.toml") or _pyproject(needed, told["name"])
    pins = "requirements.in" if locked else "requirements.txt"
    listed = {pins: needed.requirements, "requirements-dev.txt": TOOLS, "requirements-page.txt": PAGE}
    lines = {name: "".join(f"{each}\n" for each in requirements).encode() for name, requirements in listed.items()}
    return {**own, **lines, "pyproject.toml": head + TEMPLATES.rendered("tools.toml", told)}


def _signed(data: bytes) -> bytes:
    mark = lock.MARK.encode()
    return OWN_MARK.encode() + data.removeprefix(mark) if data.startswith(mark) else data


def _pyproject(needed: Environment, name: str) -> bytes:
    requirements = "".join(f"  {json.dumps(each)},\n" for each in needed.requirements)  # a JSON string is a TOML string
    head = ["[project]", f"name = {json.dumps(f'{name}-service')}", 'version = "0"']
    head += [f'requires-python = ">={needed.python}"', f"dependencies = [\n{requirements}]"]
    return (OWN_MARK + "\n".join([*head, "", "[tool.uv]", "package = false", ""])).encode()
