"""Container engines, by their own programs: docker and podman build and run, buildah builds.

folder --*build*--> image --*start*--> Container --*stop*--> nothing left of it
"""

import contextlib
import http.client
import json
import os
import platform
import re
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ketch.errors import ImageError, NoEngine
from ketch.image import ENGINES, PLATFORMS

SAID: Final = 12  # last lines of what a program said
HINT: Final = "Install docker or podman; or write files with --context, or an archive with --daemonless."
LOCKED: Final = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--pids-limit", "512")
PROGRAMS: Final = re.compile(r"\bCOPY\b.* /app\b")  # the first layer of ours, as every builder tells of it
SETTLED: Final = {"BUILDX_NO_DEFAULT_ATTESTATIONS": "1"}  # an image, not a list of one: AWS Lambda takes no other
PATIENCE: Final = 20.0  # seconds after which a container that was told to stop is ended


@dataclass(frozen=True)
class Layer:
    """A layer of an image: what made it, and its bytes."""

    made_by: str
    size: int


@dataclass(frozen=True)
class Built:
    """An image: its identity, its bytes, those of its base, and its layers above that."""

    tag: str
    identity: str
    size: int
    base: int
    layers: tuple[Layer, ...]


@dataclass(frozen=True)
class Engine:
    """One engine of this machine."""

    name: str
    program: str

    @property
    def runs(self) -> bool:
        """Say whether it runs containers, too."""
        return self.name != "buildah"

    def build(self, folder: Path, tag: str, target: str, *, base: str = "", network: str = "none") -> None:
        """Build the context in a folder; a build needs no network.

        Raises:
            ImageError: it fails.
        """
        network = "host" if self._shares_all else network
        words = ["--platform", target, "--network", network, "--tag", tag]
        words += ["--build-arg", f"BASE_IMAGE={base}"] if base else []
        words += [] if self.name == "docker" else ["--format", "docker"]  # OCI's has no health check
        words += ["--layers"] if self.name == "buildah" else []
        try:
            self.call("build", *words, str(folder), environ=SETTLED)
        except ImageError as error:
            raise _explained(error, target) from None

    @property
    def _shares_all(self) -> bool:
        """Say whether what is built shares this machine's network whatever is said, as buildah has it in a chroot."""
        return self.name == "buildah" and os.environ.get("BUILDAH_ISOLATION") == "chroot"

    def inspect(self, tag: str) -> dict[str, Any]:
        """Give what the engine knows of an image.

        Raises:
            ImageError: it has no such image.
        """
        words = ("inspect", "--type", "image", tag)
        found: Any = json.loads(self.call(*words))
        return dict(found[0] if isinstance(found, list) else found)

    def measure(self, tag: str, base: str) -> Built:
        """Say how large an image is, and what it adds to its base.

        What it adds is told by its own history: BuildKit keeps no image of a base that it has fetched.
        """
        if not self.runs:
            return self._weighed(tag, base)
        told = self.call("history", "--no-trunc", "--human=false", "--format", "{{.Size}}\t{{.CreatedBy}}", tag)
        listed = [line.partition("\t") for line in told.splitlines()]
        layers = [Layer(made_by, size_of(size)) for size, _, made_by in listed]
        first = next((at for at, each in enumerate(layers) if PROGRAMS.search(each.made_by)), len(layers) - 1)
        own = tuple(each for each in reversed(layers[: first + 1]) if each.size)
        below = sum(each.size for each in layers[first + 1 :])
        identity = str(self.inspect(tag).get("Id", ""))
        return Built(tag, identity, below + sum(each.size for each in own), below, own)

    def _weighed(self, tag: str, base: str) -> Built:
        """Say how large an image of buildah is, which keeps no list of its layers."""
        found, below = (json.loads(self.call("images", "--json", each))[0] for each in (tag, base))
        return Built(tag, str(found["id"]), size_of(found["size"]), size_of(below["size"]), ())

    def push(self, tag: str) -> None:
        """Send an image to its registry.

        Raises:
            ImageError: the registry refuses it.
        """
        self.call("push", tag)

    def remove(self, tag: str) -> None:
        """Forget an image."""
        self.call("rmi", tag)

    def call(self, *words: str, stdin: str | None = None, environ: Mapping[str, str] | None = None) -> str:
        """Run the engine's program and give what it prints; `environ` joins its environment.

        Raises:
            ImageError: it does not succeed.
        """
        process = subprocess.Popen(
            [self.program, *words],
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **(environ or {})},
            text=True,
            encoding="utf-8",
            errors="replace",
        )
        with process:
            try:
                out, said = process.communicate(stdin)
            except BaseException:
                process.terminate()  # not killed at once: it tells its service to leave off, too
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(PATIENCE / 4)
                process.kill()
                raise
        if process.returncode:
            told = "\n".join([*out.splitlines()[-SAID:], *said.splitlines()[-SAID:]])
            raise ImageError(f"{self.name} {words[0]} failed: {told}", hint="What it said last stands above.")
        return out

    # ---- containers ------------------------------------------------------------------------------------

    @contextmanager
    def started(
        self, tag: str, *command: str, environ: Mapping[str, str], port: int = 0, memory: str = "1g"
    ) -> Iterator["Container"]:
        """Run an image as strangers should: nothing to write to, no privilege, a user nobody knows, memory limited.

        The port is this machine's alone. Secrets come in `environ`, which the engine's program gets as its own: they
        stand neither among its words nor in a file.

        Raises:
            ImageError: it does not start.
        """
        name = f"ketch-{secrets.token_hex(6)}"
        user = str(20000 + secrets.randbelow(40000))
        words = ["--detach", "--name", name, *LOCKED, "--user", f"{user}:{user}", "--memory", memory]
        words += [word for each in environ for word in ("--env", each)]
        words += ["--publish", f"127.0.0.1::{port}"] if port else []
        try:
            self.call("run", *words, tag, *command, environ=environ)
            yield Container(self, name, port)
        finally:
            self._end(name)

    def once(self, tag: str, *command: str, words: Sequence[str] = (), stdin: str = "") -> str:
        """Run an image to its end in the same way, without any network, and give what it prints.

        Raises:
            ImageError: it fails.
        """
        name = f"ketch-{secrets.token_hex(6)}"
        user = str(20000 + secrets.randbelow(40000))
        told = ["--name", name, "--interactive", *LOCKED, "--user", f"{user}:{user}", "--network", "none", *words]
        try:
            return self.call("run", *told, tag, *command, stdin=stdin)
        finally:
            self._end(name)

    def _end(self, name: str) -> None:
        with contextlib.suppress(ImageError):  # which may never have been made
            self.call("rm", "--force", "--volumes", name)


@dataclass
class Container:
    """One that runs."""

    engine: Engine
    name: str
    port: int
    _address: str = field(default="", repr=False)

    @property
    def url(self) -> str:
        """Give the address at which this machine reaches it."""
        if not self._address:
            told = self.engine.call("port", self.name, str(self.port)).split()
            self._address = next(each for each in told if each.startswith("127.0.0.1:"))
        return f"http://{self._address}"

    def logs(self, lines: int = SAID) -> str:
        """Give the last lines that it wrote, to either stream."""
        done = subprocess.run(
            [self.engine.program, "logs", "--tail", str(lines), self.name],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        return done.stdout.strip()

    def state(self) -> dict[str, Any]:
        """Give its state: whether it is running, how healthy it is, how it ended."""
        found: Any = json.loads(self.engine.call("inspect", "--type", "container", self.name))
        return dict(found[0]["State"])

    def stop(self) -> int:
        """Ask it to end, wait until it has, and give its exit code."""
        self.engine.call("stop", "--time", str(round(PATIENCE)), self.name)
        return int(self.state()["ExitCode"])

    def wait(self, path: str, patience: float) -> None:
        """Wait until it answers a path.

        Raises:
            ImageError: it ends before, or takes too long; with the last lines that it wrote.
        """
        host = self.url.removeprefix("http://")
        until = time.monotonic() + patience
        while time.monotonic() < until:
            with (
                contextlib.suppress(OSError, http.client.HTTPException),
                contextlib.closing(http.client.HTTPConnection(host, timeout=5)) as asked,
            ):
                asked.request("GET", path)
                if asked.getresponse().status == 200:
                    return
            if not self.state()["Running"]:
                raise ImageError(f"The image ends when it is started: {self.logs()}", hint="It is not good as it is.")
            time.sleep(0.1)
        raise ImageError(
            f"The image does not answer within {patience:.0f} s: {self.logs()}", hint="It is not good as it is."
        )


# ---- which one ---------------------------------------------------------------------------------------


def find(name: str = "") -> Engine:
    """Give the first engine of this machine that answers, or the one that is named.

    Raises:
        NoEngine: there is none.
    """
    there = {each: found for each in ([name] if name else ENGINES) if (found := shutil.which(each))}
    for each, program in there.items():
        asked = [program, "version"] if each == "buildah" else [program, "info"]
        if subprocess.run(asked, capture_output=True, stdin=subprocess.DEVNULL).returncode == 0:
            return Engine(each, program)
    if there:
        raise NoEngine(f"{', '.join(there)} is here but does not answer: is its service running?", hint=HINT)
    raise NoEngine(f"There is no {name or 'container engine'} on this machine", hint=HINT)


def is_native(target: str) -> bool:
    """Say whether images of a platform run on this machine."""
    here = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())
    return PLATFORMS[target] == here


def size_of(text: str) -> int:
    """Read a size as engines write it: 62.3MB, or 62300000."""
    match = re.fullmatch(r"([\d.]+)\s*([kKMGT]?)i?B?", text.strip())
    return int(float(match[1]) * 1000 ** " KMGT".index(match[2].upper() or " ")) if match else 0


def _explained(error: ImageError, target: str) -> ImageError:
    hint = error.hint
    if "exec format error" in error.message:
        hint = f"This machine does not run programs of {target}: --daemonless makes the image without running any."
    elif "does not match the specified platform" in error.message:
        hint = f"The base image that is here is for another platform: fetch the one for {target}, or use --daemonless."
    elif re.search(r'exec: "python3": .*not found', error.message):
        hint = "The base image has no python3: name another with --base-image."
    elif re.search(r"(?i)pull|manifest unknown|no such host|not found: manifest|registry|short-name", error.message):
        hint = "The base image cannot be had: name one that is here with --base-image."
    return ImageError(error.message, hint=hint)
