"""A container engine, a base image made of Debian's packages, and images of small models built on it once."""

import contextlib
import os
import shutil
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from filelock import FileLock
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from ketch import bundle
from ketch.bundle import Bundle
from ketch.image import engine
from ketch.image.engine import Engine
from ketch.pack import TOLERANCE, Options, compose, read_table
from tests.models import encoding, table, yes_or_no
from tests.running import KETCH, Done

BASE: Final = "ketch-test-base:bookworm"
SUITE: Final = "bookworm"
KEY: Final = "a-key-that-is-long-enough-0123456789"
LOCKED: Final = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")


def answers() -> bool:
    """Say whether a Docker engine answers."""
    return subprocess.run(["docker", "info"], capture_output=True, stdin=subprocess.DEVNULL).returncode == 0


@contextmanager
def daemon(folder: Path) -> Iterator[None]:
    """Run a Docker engine of our own, and end it by its id."""
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            ["dockerd", "--data-root", str(folder / "data")], stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        until = time.monotonic() + 60
        while not answers():
            assert process.poll() is None, (folder / "log").read_text()[-2000:]
            assert time.monotonic() < until
            time.sleep(0.2)
        yield
    finally:
        process.terminate()
        process.wait(60)


@pytest.fixture(scope="session")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """The Docker engine of this machine; where none answers, one is started."""
    if shutil.which("docker") is None:
        pytest.skip("docker is not on this machine: apt-get install docker.io")
    with contextlib.ExitStack() as stack:
        if not answers():
            if shutil.which("dockerd") is None or os.geteuid() != 0:
                pytest.skip("no Docker engine answers, and none can be started here")
            stack.enter_context(daemon(tmp_path_factory.mktemp("dockerd")))
        yield engine.find("docker")


@pytest.fixture(scope="session")
def base(docker: Engine, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of a base image with Python 3.11, made of Debian's packages, that trusts whom this machine trusts."""
    with alone(tmp_path_factory, BASE):
        if subprocess.run(["docker", "image", "inspect", BASE], capture_output=True).returncode != 0:
            if shutil.which("mmdebstrap") is None:
                pytest.skip("mmdebstrap is not on this machine, with which the base image is made")
            docker.call("import", str(base_archive(tmp_path_factory.mktemp("base"))), BASE)
    return BASE


def alone(factory: pytest.TempPathFactory, name: str) -> FileLock:
    """Keep other workers of this run from making the same thing meanwhile."""
    return FileLock(factory.getbasetemp().parent / f"{name.partition(':')[0]}.lock")


def base_archive(folder: Path) -> Path:
    """Make the file system of the base image."""
    made = folder / "base.tar"
    words = ["mmdebstrap", "--variant=minbase", "--include=python3,python3-venv,ca-certificates"]
    if authorities := os.environ.get("SSL_CERT_FILE") or ssl.get_default_verify_paths().cafile:
        words.append(f"--customize-hook=copy-in {authorities} /etc/ssl/certs")
    subprocess.run([*words, SUITE, str(made)], check=True, capture_output=True)
    return made


# ---- models ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Packed:
    """A model, its bundle, and where that stands."""

    model: Any
    path: Path
    opened: Bundle

    def probabilities(self) -> list[float]:
        """Ask the estimator itself."""
        return [float(each) for each in self.model.predict_proba(table())[:, 1]]


def pack(end: Any, folder: Path, name: str, tolerance: float = TOLERANCE) -> Packed:
    """Fit a model of four fields, and pack it."""
    model = make_pipeline(encoding(), end).fit(table(), yes_or_no())
    data = table().assign(churn=yes_or_no())
    made = compose(
        model, read_table(data), Options(target="churn", name=name, tolerance=tolerance), home=folder / "home"
    )
    path = folder / f"{name}.ketch"
    path.write_bytes(made.data)
    return Packed(model, path, bundle.read(made.data, name))


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One KETCH_HOME for all, so that wheels are fetched once."""
    return tmp_path_factory.mktemp("ketch-home")


@pytest.fixture(scope="session")
def linear(tmp_path_factory: pytest.TempPathFactory) -> Packed:
    """A linear model, which is compiled and needs no numpy."""
    return pack(LogisticRegression(), tmp_path_factory.mktemp("linear"), "churn")


@pytest.fixture(scope="session")
def forest(tmp_path_factory: pytest.TempPathFactory) -> Packed:
    """A forest, which is compiled to a graph and needs ONNX Runtime."""
    return pack(RandomForestClassifier(20, random_state=0), tmp_path_factory.mktemp("forest"), "forest")


def image(path: Path, base: str, home: Path, *words: str, **environ: str) -> Any:
    """Run `ketch image` as a shell would, and give what it tells."""
    done = run_image(path, base, home, *words, **environ)
    assert done.returncode == 0, done.stderr
    return msgspec.json.decode(done.stdout)


def run_image(path: Path, base: str, home: Path, *words: str, **environ: str) -> Done:
    done = subprocess.run(
        [*KETCH, "image", path, "--base-image", base, "--json", *words],
        env={**os.environ, "KETCH_HOME": str(home), **environ},
        stdin=subprocess.DEVNULL, capture_output=True, text=True,
    )  # fmt: skip
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="session")
def service(docker: Engine, base: str, home: Path, linear: Packed) -> Any:
    """What `ketch image` tells of the image of the linear model."""
    return image(linear.path, base, home, "--tag", "ketch-test-churn:1")


# ---- containers --------------------------------------------------------------------------------------


@dataclass
class Running:
    """A container as somebody else would run it."""

    name: str

    def docker(self, *words: str) -> str:
        """Run docker, and give what it prints."""
        return subprocess.run(["docker", *words], capture_output=True, text=True, check=True).stdout.strip()

    @property
    def address(self) -> str:
        """Give its own address: at a published port Docker's proxy would take what the container refuses."""
        return self.docker("inspect", "--format", "{{.NetworkSettings.IPAddress}}", self.name)

    @property
    def published(self) -> str:
        """Give the address at which this machine publishes it."""
        return self.docker("port", self.name, "9696").splitlines()[0]

    def state(self) -> Any:
        """Give its state."""
        return msgspec.json.decode(self.docker("inspect", "--format", "{{json .State}}", self.name))

    def logs(self) -> str:
        """Give all that it wrote."""
        done = subprocess.run(["docker", "logs", self.name], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        return done.stdout.decode()

    def until(self, wanted: str, seconds: float = 30) -> None:
        """Wait until it is as healthy as is said."""
        until = time.monotonic() + seconds
        while (found := self.state()["Health"]["Status"]) != wanted:
            assert time.monotonic() < until, (found, self.state(), self.logs())
            time.sleep(0.2)


@contextmanager
def running(tag: str, *words: str, says: str = "answers") -> Iterator[Running]:
    """Run an image with all that a careful person would deny it."""
    told = [
        "docker",
        "run",
        "--detach",
        *LOCKED,
        "--memory",
        "256m",
        "--user",
        "48213:48213",
        "--publish",
        "127.0.0.1::9696",
    ]
    environ = {**os.environ, "KETCH_API_KEYS": KEY}
    done = subprocess.run(
        [*told, "--env", "KETCH_API_KEYS", *words, tag], env=environ, capture_output=True, text=True, check=True
    )
    container = Running(done.stdout.strip())
    try:
        until = time.monotonic() + 60
        while says not in container.logs():
            assert container.state()["Running"], container.logs()
            assert time.monotonic() < until, container.logs()
            time.sleep(0.1)
        yield container
    finally:
        container.docker("rm", "--force", "--volumes", container.name)
