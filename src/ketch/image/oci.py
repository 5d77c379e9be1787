"""An image without any container engine: one archive that is an OCI layout and what `docker save` writes, at once.

Context, archive of a base --*archive*--> base's layers as they are + /app + /model + configuration --> one file

A layer here has the very bytes that buildah gives it (`--timestamp`, docker's format), so that both have one digest.
"""

import contextlib
import hashlib
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Final

from ketch import lock
from ketch.errors import ImageError, InputError, NotInstalled
from ketch.image import SBOM, Context, write
from ketch.image.base import Base, Layer, opened
from ketch.image.tar import BLOCK, DIRECTORY, Entry, header, member, packed

PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # where a base says nothing, as engines do
INHERITED: Final = (  # what a Dockerfile leaves as its base has it
    "ArgsEscaped",
    "ExposedPorts",
    "Healthcheck",
    "Labels",
    "Shell",
    "StopSignal",
    "StopTimeout",
    "Volumes",
)
SECOND: Final = 10**9
HEALTH: Final = {"Interval": 30 * SECOND, "Timeout": 5 * SECOND, "StartPeriod": 60 * SECOND, "Retries": 3}
INDEX: Final = "application/vnd.oci.image.index.v1+json"
MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
CONFIG: Final = "application/vnd.oci.image.config.v1+json"
LAYER: Final = "application/vnd.oci.image.layer.v1.tar"
PATIENCE: Final = 900.0  # seconds until the programs must be unpacked and compiled


@dataclass(frozen=True)
class Blob:
    """What an archive holds, under its hash."""

    digest: str
    size: int
    kind: str = ""

    @property
    def path(self) -> str:
        """Give its place in the archive."""
        return f"blobs/sha256/{self.digest.removeprefix('sha256:')}"

    @property
    def described(self) -> dict[str, Any]:
        """Write it as OCI refers to it."""
        return {"mediaType": self.kind, "digest": self.digest, "size": self.size}


@dataclass(frozen=True)
class Archived:
    """An archive that was written: what docker and what OCI call the image, and the hashes of its layers, unpacked.

    `python` is the base's, `compiled` that of the interpreter which compiled its programs. Where they differ the image
    answers the same, but its digests are not those of an engine.
    """

    path: Path
    tag: str
    identity: str
    digest: str
    layers: tuple[str, ...]
    own: int  # bytes above the base
    size: int
    python: str
    compiled: str


def archive(made: Context, base: Path, output: Path, *, environ: Mapping[str, str]) -> Archived:
    """Write an image as an archive that docker, podman and skopeo read; the same input gives the same bytes.

    `base` is an archive of the base image, as `docker save` or `skopeo copy` write it.

    Raises:
        ImageError: the base cannot be used, or the programs cannot be put together. InputError: nothing can be written.
    """
    tag, epoch = tagged(made.tag), made.recipe.epoch
    if output.exists() and base.exists() and output.samefile(base):
        raise InputError(f"{output} is the base itself", hint="Choose another file for -o.")
    with opened(base, made.recipe.platform, made.base) as below, written(output, epoch) as out:
        layers = [_copied(below, each, out) for each in below.layers]
        started = out.size
        wanted = version_of(below, made.python)
        with tempfile.TemporaryDirectory(prefix="ketch-image-") as folder:
            compiled = install(made, Path(folder), wanted, environ)
            layers.append(out.layer(tree(Path(folder) / "app", "app"), epoch))
        layers.append(out.layer(model(made), epoch))
        own = out.size - started
        diff_ids = (*(each.diff_id for each in below.layers), *(each.digest for each in layers[-2:]))
        config = out.text(configuration(made, below, diff_ids), CONFIG)
        image = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config.described}
        manifest = out.text(image | {"layers": [each.described for each in layers]}, MANIFEST)
        out.finish(manifest, tag, [config, *layers], below.platform)
    return Archived(output, tag, config.digest, manifest.digest, diff_ids, own, output.stat().st_size, wanted, compiled)


def tagged(tag: str) -> str:
    """Give the full form of a tag.

    Raises:
        ImageError: it names bytes, which nobody can choose.
    """
    if "@" in tag:
        raise ImageError(f"An image cannot be called {tag[:80]!r}", hint="Leave the @sha256:… out.")
    return tag if ":" in tag.rpartition("/")[2] else f"{tag}:latest"


def _copied(below: Base, layer: Layer, out: "Out") -> Blob:
    with out.blob() as made:
        packed = below.copy(layer, made.write)
    return made.blob(f"{LAYER}+gzip" if packed else LAYER)


# ---- the programs --------------------------------------------------------------------------------------


def version_of(below: Base, minor: str) -> str:
    """Say in full which Python the base has, as far as it shows.

    Raises:
        ImageError: it is another one.
    """
    if minor not in below.pythons:
        there = f"Python {', '.join(sorted(below.pythons))}" if below.pythons else "no Python"
        raise ImageError(
            f"The model needs Python {minor}, and the base has {there}",
            hint=f"Choose a base image with Python {minor}.",
        )
    found = below.pythons[minor]
    told = below.environ.get("PYTHON_VERSION", "")  # which official images set; Debian's own may stand beside theirs
    known = told in found or (not found and re.fullmatch(re.escape(minor) + r"\.\d{1,3}", told, re.ASCII))
    return told if known else min(found, default=minor)


def install(made: Context, folder: Path, wanted: str, environ: Mapping[str, str]) -> str:
    """Unpack and compile the programs into `app` of a folder, by the context's own script; name the Python that did it.

    Raises:
        ImageError: no Python can, or the wheels are not what they should be.
    """
    python, version = interpreter(made.python, wanted, environ)
    write(made, folder / "context")
    kept = {name: environ[name] for name in ("PATH", "SYSTEMROOT", "TEMP", "TMP", "TMPDIR") if name in environ}
    told = {"PYTHONHASHSEED": "0", "SOURCE_DATE_EPOCH": str(made.recipe.epoch), "PYTHONUTF8": "1"}
    words = [python, "-S", "-B", "install.py", ".", str(folder / "app")]
    done = _run(words, folder / "context", {**kept, **told})
    if done.returncode:
        said = done.stderr.strip().rpartition("\n")[2][-400:]
        raise ImageError(f"The programs cannot be put together: {said}", hint="Make the build context again.")
    return version


def interpreter(minor: str, wanted: str, environ: Mapping[str, str]) -> tuple[str, str]:
    """Find a Python that compiles as the base's own does: of the very same version, else of the same minor one.

    Raises:
        ImageError: there is none.
    """
    for asked in dict.fromkeys((wanted, minor)):
        if platform.python_version() == asked or (asked == minor and sys.version.startswith(f"{minor}.")):
            return sys.executable, platform.python_version()
        if (found := _find(asked, environ)) is not None:
            return found
    raise ImageError(f"There is no Python {minor} on this machine", hint=f"Install one: uv python install {wanted}")


def _find(version: str, environ: Mapping[str, str]) -> tuple[str, str] | None:
    """Ask uv for a Python, and the Python for its version."""
    asked = lock.python_for(version, environ) if version.count(".") == 1 else version
    if asked == version:
        try:
            program = lock.uv_program()
        except NotInstalled:
            return None
        words = [program, "python", "find", "--no-project", "--no-python-downloads", f"cpython@{version}"]
        asked = _run(words, Path.cwd(), environ).stdout.strip()
    if not asked:
        return None
    told = _run([asked, "-I", "-S", "-c", "import platform; print(platform.python_version())"], Path.cwd(), environ)
    found = told.stdout.strip()
    return (asked, found) if told.returncode == 0 and f"{found}.".startswith(f"{version}.") else None


def _run(words: list[str], folder: Path, environ: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(
            words,
            cwd=folder,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            timeout=PATIENCE,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ImageError(f"{words[0]} does not run: {error}", hint="See whether it is a working Python.") from None


def tree(folder: Path, root: str) -> Iterator[Entry]:
    """Give a folder with all that is in it, in the order in which engines walk: names by their bytes, depth first."""
    yield Entry(root)
    listed = {path.relative_to(folder).parts: path for path in folder.rglob("*")}
    for parts, path in sorted(listed.items(), key=lambda each: [part.encode() for part in each[0]]):
        name = "/".join((root, *parts))
        if path.is_dir():
            yield Entry(name)
        else:  # the two modes that install.py gives; Windows knows only one, and nothing here minds
            yield Entry(name, 0o755 if path.stat().st_mode & 0o100 else 0o644, path.read_bytes)


def model(made: Context) -> Iterator[Entry]:
    """Give what is of this model alone."""
    yield Entry("model")
    files = {path: data for path, data in made.files.items() if path.startswith("model/")}
    for name, data in sorted({**files, f"model/{SBOM}": made.files[SBOM]}.items()):
        yield Entry(name, 0o644, lambda data=data: data)  # type: ignore[misc]


# ---- the configuration ---------------------------------------------------------------------------------


def configuration(made: Context, below: Base, diff_ids: Iterable[str]) -> dict[str, Any]:
    """Say of an image what its Dockerfile would; the configuration of docker is one of OCI too."""
    created = datetime.fromtimestamp(made.recipe.epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        **below.platform,
        "created": created,
        "config": _told(made, below),
        "rootfs": {"type": "layers", "diff_ids": [*diff_ids]},
        "history": [*_before(below, created), *_steps(made, created)],
    }


def _told(made: Context, below: Base) -> dict[str, Any]:
    config = made.config
    known = {name: below.config[name] for name in INHERITED if below.config.get(name)}
    environ = {**({"PATH": PATH} if "PATH" not in below.environ else {}), **config.environ, "KETCH_IMAGE": made.tag}
    known["Env"] = [f"{name}={value}" for name, value in {**below.environ, **environ}.items()]
    known["Labels"] = {**known.get("Labels", {}), **config.labels}
    known |= {"User": config.user, "WorkingDir": config.workdir}
    known |= {"Entrypoint": [*config.entrypoint], "Cmd": [*config.command]}
    if config.port:
        known["ExposedPorts"] = {**known.get("ExposedPorts", {}), f"{config.port}/tcp": {}}
    if config.health:
        known["Healthcheck"] = {"Test": ["CMD", *config.health], **HEALTH}
    return known


def _before(below: Base, created: str) -> list[dict[str, Any]]:
    """Give the history of the base, if it fits its layers: readers count on that."""
    history = below.told.history or []
    if sum(not each.get("empty_layer") for each in history) == len(below.layers):
        return history
    return [{"created": created, "comment": "the base"} for _ in below.layers]


def _steps(made: Context, created: str) -> list[dict[str, Any]]:
    dated = {"created": created, "comment": "ketch image --daemonless"}
    return [
        {**dated, "created_by": "COPY --from=build /app /app"},
        {**dated, "created_by": f"USER {made.config.user}", "empty_layer": True},
        {**dated, "created_by": f"WORKDIR {made.config.workdir}", "empty_layer": True},
        {**dated, "created_by": f"COPY model/ {SBOM} /model/"},
        {**dated, "created_by": f"ENTRYPOINT {json.dumps([*made.config.entrypoint])}", "empty_layer": True},
        {**dated, "created_by": f"CMD {json.dumps([*made.config.command])}", "empty_layer": True},
    ]


# ---- the file ------------------------------------------------------------------------------------------


class Writing:
    """A blob that is being written: its bytes go straight to the archive, its header afterwards."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.start = file, file.tell()
        self.size, self.hashed = 0, hashlib.sha256()
        file.write(bytes(BLOCK))

    def write(self, data: bytes) -> None:
        """Add bytes."""
        self.file.write(data)
        self.hashed.update(data)
        self.size += len(data)

    def blob(self, kind: str) -> Blob:
        """Say what it is."""
        return Blob(f"sha256:{self.hashed.hexdigest()}", self.size, kind)


class Out:
    """An archive that is being written."""

    def __init__(self, file: IO[bytes], epoch: int) -> None:
        self.file, self.epoch = file, epoch
        self.held = set[str]()
        for name in ("blobs", "blobs/sha256"):
            file.write(header(name, 0, 0o755, epoch, DIRECTORY))

    @property
    def size(self) -> int:
        """Give how much is written."""
        return self.file.tell()

    @contextmanager
    def blob(self) -> Iterator[Writing]:
        """Take the bytes of a blob; one that is there already is not kept twice."""
        writing = Writing(self.file)
        yield writing
        blob = writing.blob("")
        if blob.digest in self.held:
            self.file.seek(writing.start)
            self.file.truncate()
            return
        self.held.add(blob.digest)
        self.file.write(bytes(-blob.size % BLOCK))
        end = self.file.tell()
        self.file.seek(writing.start)
        self.file.write(header(blob.path, blob.size, 0o644, self.epoch))
        self.file.seek(end)

    def layer(self, entries: Iterable[Entry], epoch: int) -> Blob:
        """Add a layer."""
        with self.blob() as made:
            for each in packed(entries, epoch):
                made.write(each)
        return made.blob(LAYER)

    def text(self, said: Any, kind: str) -> Blob:
        """Add a text."""
        with self.blob() as made:
            made.write(encoded(said))
        return made.blob(kind)

    def finish(self, manifest: Blob, tag: str, blobs: list[Blob], target: dict[str, str]) -> None:
        """Add what readers begin with: OCI's index, and docker's list."""
        config, *layers = blobs
        named = {"io.containerd.image.name": full(tag), "org.opencontainers.image.ref.name": tag}
        described = {**manifest.described, "platform": target, "annotations": named}
        place, _, version = tag.rpartition(":")
        saved = {"Config": config.path, "RepoTags": [tag], "Layers": [each.path for each in layers]}
        for name, said in {
            "index.json": {"schemaVersion": 2, "mediaType": INDEX, "manifests": [described]},
            "manifest.json": [saved],
            "oci-layout": {"imageLayoutVersion": "1.0.0"},
            "repositories": {place: {version: layers[-1].digest.removeprefix("sha256:")}},
        }.items():
            for each in member(Entry(name, 0o644, lambda said=said: encoded(said)), self.epoch):  # type: ignore[misc]
                self.file.write(each)
        self.file.write(bytes(2 * BLOCK))


@contextmanager
def written(output: Path, epoch: int) -> Iterator[Out]:
    """Write a file that is there only when it is whole.

    Raises:
        InputError: it cannot be written.
    """
    part = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        with part.open("w+b") as file:
            yield Out(file, epoch)
        part.replace(output)
    except OSError as error:
        raise InputError(
            f"{output} cannot be written: {error.strerror or error}", hint="Choose another file for -o."
        ) from None
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def encoded(said: Any) -> bytes:
    """Write JSON in one way."""
    return json.dumps(said, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


def full(tag: str) -> str:
    """Write a tag with its registry, as containerd does."""
    first, slash, _ = tag.partition("/")
    if slash and (first == "localhost" or "." in first or ":" in first):
        return tag
    return f"docker.io/{tag}" if slash else f"docker.io/library/{tag}"
