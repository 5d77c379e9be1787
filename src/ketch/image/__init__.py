"""A container image of a bundle: what goes into it, as files that anyone can read and build.

bundle + wheels + Recipe --*context*--> Context (files by path) --*write*--> folder --*engine*--> image --*proved*
                                                                 --*oci*--> archive, without any engine
"""

import email.parser
import functools
import hashlib
import importlib
import importlib.resources
import io
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.message import Message
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from ketch.bundle import Bundle
from ketch.errors import ImageError, InputError
from ketch.steps.files import write as write_files
from ketch.steps.templates import Templates

SIBLINGS: Final = {name: f"ketch.image.{name}" for name in ("engine", "oci", "proof", "sbom", "wheels")}
BASES: Final = {  # a full version of Python on Debian 12, so that a build tomorrow begins where one today does
    "3.11": "python:3.11.14-slim-bookworm",
    "3.12": "python:3.12.12-slim-bookworm",
    "3.13": "python:3.13.11-slim-bookworm",
    "3.14": "python:3.14.2-slim-bookworm",
}
PLATFORMS: Final = {"linux/amd64": "x86_64", "linux/arm64": "aarch64"}
ENGINES: Final = ("docker", "podman", "buildah")  # in the order in which they are asked
EPOCH: Final = 315532800  # 1980-01-01, the first time that an archive can hold
USER: Final = "10001:10001"
PORT: Final = 9696
SBOM: Final = "sbom.cdx.json"
MARK: Final = "# Written by `ketch image`.\n"
COPIED: Final = ("install.py", "entrypoint.py")  # of this room, into a context
ENVIRON: Final = {
    "HOME": "/tmp",  # noqa: S108 (a container's own)
    "KETCH_HOME": "/tmp/.ketch",  # noqa: S108
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONNOUSERSITE": "1",
    "PYTHONPATH": "/app/site-packages",
    "PYTHONSAFEPATH": "1",
    "PYTHONUNBUFFERED": "1",
}
COMPONENT: Final = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"  # of the name of an image, as registries have it
REFERENCE: Final = re.compile(
    rf"(?:[A-Za-z0-9]+(?:(?:\.|-+)[A-Za-z0-9]+)*(?::\d+)?/)?{COMPONENT}(?:/{COMPONENT})*"
    r"(?::\w[\w.-]{0,127})?(?P<digest>@sha256:[0-9a-f]{64})?",
    re.ASCII,
)
LONGEST: Final = 400  # letters of a reference
LATEST: Final = 0o77777777777  # the last time that an archive can hold
TEMPLATES: Final = Templates(
    "ketch.image",
    re.compile(r"[A-Za-z0-9 ._+=:/@-]*", re.ASCII),
    "Dockerfile",
    ImageError,
    "Choose another name or tag.",
)


@dataclass(frozen=True)
class Mode:
    """What an image is for: the extras that this takes, and how Ketch is called in it."""

    extras: tuple[str, ...]
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    health: str = ""
    port: int = 0


MODES: Final[Mapping[str, Mode]] = {
    "service": Mode((), command=("serve", "{model}"), health="/health/ready", port=PORT),
    "page": Mode(("ui",), command=("ui", "{model}"), health="/_stcore/health", port=PORT),
    "job": Mode((), entrypoint=("score", "{model}"), command=("--help",)),
    "lambda": Mode(("lambda",), command=("lambda", "{model}")),
}


@dataclass(frozen=True)
class Recipe:
    """What is wanted of an image.

    `epoch` is the time of its files, and `dated` says that it is the image's own too. `trusted` says that the maker of
    the image approves the code that the model runs when it is opened.
    """

    mode: str = "service"
    platform: str = "linux/amd64"
    base: str = ""
    extras: tuple[str, ...] = ()
    tag: str = ""
    version: str = ""
    epoch: int = EPOCH
    dated: bool = False
    trusted: bool = False

    def __post_init__(self) -> None:
        """Refuse what no engine takes, and what could mean something else in a Dockerfile."""
        for what, value in (("base image", self.base), ("tag", self.tag)):
            match = REFERENCE.fullmatch(value[: LONGEST + 1])
            if value and (match is None or len(value) > LONGEST or (match["digest"] and what == "tag")):
                hint = "Give a reference such as registry/name:tag, its name in small letters."
                raise InputError(f"{value[:80]!r} is no {what}", hint=hint)

    @property
    def wanted(self) -> tuple[str, ...]:
        """Give the extras of Ketch that go in."""
        return tuple(dict.fromkeys([*MODES[self.mode].extras, *self.extras]))


@dataclass(frozen=True)
class Wheel:
    """A wheel; a tool is used while the image is built, and does not go in."""

    name: str
    version: str
    filename: str
    data: bytes = field(repr=False)
    tool: bool = False

    @functools.cached_property
    def sha256(self) -> str:
        """Give the hash of its bytes."""
        return hashlib.sha256(self.data).hexdigest()


def metadata(wheel: bytes) -> Message:
    """Read what a wheel says of itself."""
    with zipfile.ZipFile(io.BytesIO(wheel)) as opened:
        inside = next((each for each in opened.namelist() if each.endswith(".dist-info/METADATA")), "")
        text = opened.read(inside).decode("utf-8", "replace") if inside else ""
    return email.parser.HeaderParser().parsestr(text)


@dataclass(frozen=True)
class Config:
    """What an engine is told of an image besides its files; KETCH_IMAGE, its tag, joins the environment."""

    environ: Mapping[str, str]
    entrypoint: tuple[str, ...]
    command: tuple[str, ...]
    labels: Mapping[str, str]
    health: tuple[str, ...] = ()
    port: int = 0
    workdir: str = "/tmp"  # noqa: S108
    user: str = USER


@dataclass(frozen=True)
class Context:
    """A build context: its files by path, and what the image is called and configured."""

    name: str
    tag: str
    python: str
    base: str
    recipe: Recipe
    config: Config
    files: Mapping[str, bytes] = field(repr=False)


def sibling(name: str) -> ModuleType:
    """Import a module of this room by its short name."""
    return importlib.import_module(SIBLINGS[name])


def recipe_of(opened: Bundle, environ: Mapping[str, str], **given: Any) -> Recipe:
    """Settle what is wanted; the time is that of SOURCE_DATE_EPOCH where it is set.

    Raises:
        InputError: the time is none, or a reference cannot be one.
    """
    told = environ.get("SOURCE_DATE_EPOCH", "")
    if told and not (re.fullmatch(r"\d{1,10}", told, re.ASCII) and int(told) <= LATEST):
        raise InputError(f"SOURCE_DATE_EPOCH is {told[:40]!r}, not a number of seconds", hint="Give digits only.")
    given["tag"] = given.get("tag") or f"{repository(opened.manifest.name)}:{opened.sha256[:12]}"
    return Recipe(epoch=max(int(told), EPOCH) if told else EPOCH, dated=bool(told), **given)


def repository(name: str) -> str:
    """Call an image as a bundle is called, whose name may hold marks where an image's may not."""
    return name if re.fullmatch(COMPONENT, name) else "-".join(re.findall(r"[a-z0-9]+", name))


def context(opened: Bundle, data: bytes, wheels: Sequence[Wheel], recipe: Recipe, signature: bytes = b"") -> Context:
    """Compose a build context of a bundle, its bytes and the wheels it needs; the same input gives the same files.

    Raises:
        ImageError: there is no base image for its version of Python.
        NotInstalled: what writes the SBOM is missing.
    """
    name = opened.manifest.name
    python = ".".join(opened.manifest.versions["python"].split(".")[:2])
    base = recipe.base or BASES.get(python, "")
    if not base:
        raise ImageError(f"There is no image of Python {python} to begin with", hint="Name one with --base-image.")
    config = _config(opened, recipe)
    files = {f"model/{name}.ketch": data, **({f"model/{name}.ketch.sig": signature} if signature else {})}
    files |= {f"{'tools' if each.tool else 'wheels'}/{each.filename}": each.data for each in wheels}
    files |= {each: importlib.resources.files("ketch.image").joinpath(each).read_bytes() for each in COPIED}
    files["requirements.txt"] = _requirements(wheels, python, recipe.platform)
    files[SBOM] = sibling("sbom").written(opened, [each for each in wheels if not each.tool], recipe)
    told = {"tag": recipe.tag, "base": base, "config": config, "epoch": recipe.epoch}
    told |= {"platform": recipe.platform, "pinned": "@sha256:" in base}
    files |= {path: TEMPLATES.rendered(path.lstrip("."), told) for path in ("Dockerfile", ".dockerignore")}
    return Context(name, recipe.tag, python, base, recipe, config, dict(sorted(files.items())))


def _config(opened: Bundle, recipe: Recipe) -> Config:
    mode, name = MODES[recipe.mode], opened.manifest.name
    place = f"/model/{name}.ketch"
    trust = (f"--trust=sha256:{opened.sha256}",) if recipe.trusted else ()
    said, command = (tuple(each.format(model=place) for each in words) for words in (mode.entrypoint, mode.command))
    served = {"KETCH_SERVES": " ".join([place, *trust])} if mode.command[:1] == ("serve",) else {}
    labels = {
        "ketch.mode": recipe.mode,
        "org.opencontainers.image.revision": opened.sha256,
        "org.opencontainers.image.title": name,
        "org.opencontainers.image.version": recipe.version or opened.sha256[:12],
    }
    if recipe.dated:
        labels["org.opencontainers.image.created"] = datetime.fromtimestamp(recipe.epoch, UTC).isoformat()
    return Config(
        environ={**ENVIRON, **({"KETCH_HOST": "0.0.0.0"} if mode.port else {}), **served},  # noqa: S104
        entrypoint=("python3", "/app", *said, *(trust if said else ())),
        command=(*command, *(() if said else trust)),
        labels=dict(sorted(labels.items())),
        health=("python3", "/app", "health", mode.health) if mode.health else (),
        port=mode.port,
    )


def _requirements(wheels: Sequence[Wheel], python: str, platform: str) -> bytes:
    listed = [f"{each.name}=={each.version} --hash=sha256:{each.sha256}\n" for each in wheels if not each.tool]
    return f"{MARK}# Python {python}, {platform}: the wheels of this folder.\n{''.join(sorted(listed))}".encode()


def write(made: Context, folder: Path) -> None:
    """Write a context to a folder that is empty or not there yet; all files have the one time.

    Raises:
        InputError: something is there, or it cannot be written.
    """
    write_files(made.files, folder, when=made.recipe.epoch)
