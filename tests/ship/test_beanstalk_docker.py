"""Elastic Beanstalk with real containers: what is deployed is built and run by Docker, as an instance does it."""

import contextlib
import io
import json
import os
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ketch import image, steps
from ketch.client import Client
from ketch.deploy import Shipment, awsbundle, awsends, awsoptions, beanstalk
from ketch.errors import ServiceError
from ketch.image.engine import Engine
from ketch.steps import Secret
from tests.beanstalk_account import KEY, hands, look_up, options
from tests.beanstalk_instances import Pull, Refused, require_deployable, unzipped
from tests.fake_beanstalk import Cloud, cloud, completed
from tests.models import rows
from tests.ship.conftest import Packed

pytestmark = [pytest.mark.ship, pytest.mark.timeout(400)]


@dataclass
class Container:
    """A container that an instance runs."""

    engine: Engine
    name: str

    def address(self) -> tuple[str, int] | None:
        if not json.loads(self.engine.call("inspect", "--type", "container", self.name))[0]["State"]["Running"]:
            return None
        host, _, port = self.engine.call("port", self.name, "9696").splitlines()[0].rpartition(":")
        return host, int(port)

    def log(self) -> str:
        done = subprocess.run(
            [self.engine.program, "logs", self.name], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        return done.stdout

    def stop(self) -> None:
        self.engine.call("rm", "--force", "--volumes", self.name)


@dataclass
class Containers:
    """Deploys bundles as the Docker platform does: it builds a Dockerfile, or pulls what Dockerrun.aws.json names."""

    engine: Engine
    folder: Path
    running: list[Container] = field(default_factory=list)

    def __call__(self, data: bytes, environ: Mapping[str, str], pull: Pull) -> Container:
        files = unzipped(data)
        tag = f"aws_beanstalk/current-app-{len(self.running)}:latest"
        if require_deployable(files, "Docker") == "build":
            self._build(files, tag)
        else:
            self._load(pull, json.loads(files["Dockerrun.aws.json"])["Image"]["Name"], tag)
        given = [word for each in environ for word in ("--env", each)]
        name = self.engine.call("run", "--detach", *given, "--publish", "127.0.0.1::9696", tag, environ=environ)
        self.running.append(Container(self.engine, name.strip()))
        return self.running[-1]

    def _build(self, files: Mapping[str, bytes], tag: str) -> None:
        place = self.folder / str(len(self.running))
        for path, data in files.items():
            (place / path).parent.mkdir(parents=True, exist_ok=True)
            (place / path).write_bytes(data)
        try:
            self.engine.call("build", "--network", "none", "--tag", tag, str(place))
        except Exception as error:
            raise Refused(str(error)) from None

    def _load(self, pull: Pull, name: str, tag: str) -> None:
        pulled = pull(name)
        named = [f"{number}/layer.tar" for number in range(len(pulled.layers))]
        told = [{"Config": "config.json", "RepoTags": [tag], "Layers": named}]
        members = {"manifest.json": json.dumps(told).encode(), "config.json": pulled.config}
        path = self.folder / "image.tar"
        with tarfile.open(path, "w") as archive:
            for each, data in {**members, **dict(zip(named, pulled.layers, strict=True))}.items():
                info = tarfile.TarInfo(each)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        self.engine.call("load", "--input", str(path))


@pytest.fixture
def account(docker: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    runner = Containers(docker, tmp_path / "instances")
    runner.folder.mkdir()
    with completed() as server, cloud(server, runner) as made:
        for name, value in made.environ.items():
            monkeypatch.setenv(name, value)
        look_up(made, monkeypatch)
        try:
            yield made
        finally:
            for each in runner.running:
                with contextlib.suppress(Exception):
                    each.stop()


def shipment(packed: Packed, base: str, home: Path) -> Shipment:
    data = packed.path.read_bytes()

    def context(**words: Any) -> image.Context:
        recipe = image.recipe_of(packed.opened, {}, base=base, **words)
        wheels = image.sibling("wheels").gather(packed.opened, recipe, home=home, environ=os.environ)
        return image.context(packed.opened, data, wheels, recipe)

    return Shipment("churn", packed.opened, data, Secret(KEY), context=context)


def test_the_python_platform_installs_the_bundle_without_any_index(linear: Packed, home: Path, tmp_path: Path) -> None:
    """What an instance of the Python platform does: a fresh environment, pip, and the line of the Procfile."""
    shipped = shipment(linear, "", home)
    wanted = beanstalk.settle(shipped, options(source=False, platform="python"))
    for path, data in awsbundle.source(shipped, wanted.kind, wanted.recipe).items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(data)
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "env")], check=True)
    python = str(tmp_path / "env" / "bin" / "python")
    words = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", "requirements.txt"]
    nowhere = {**os.environ, "PIP_INDEX_URL": "http://127.0.0.1:9/", "PIP_CONFIG_FILE": os.devnull}
    done = subprocess.run(words, cwd=tmp_path, env=nowhere, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    line = (tmp_path / "Procfile").read_text().strip().removeprefix("web: ")
    assert line.startswith("python -m ketch serve model/")
    given = {each["OptionName"]: each["Value"] for each in wanted.settings if each["Namespace"] == awsoptions.ENVIRON}
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environ = {
        **given,
        "PORT": str(port),
        "KETCH_HOME": str(tmp_path / "home"),
        "KETCH_API_KEYS": KEY,
        "PATH": os.environ["PATH"],
    }
    process = subprocess.Popen([python, *line.split()[1:]], cwd=tmp_path, env=environ, stdout=subprocess.DEVNULL)
    try:
        with Client(f"http://127.0.0.1:{port}", key=KEY) as client:
            until = time.monotonic() + 60
            while True:
                with contextlib.suppress(ServiceError):
                    assert client.replay(linear.opened) > 0
                    break
                assert process.poll() is None
                assert time.monotonic() < until
                time.sleep(0.1)
    finally:
        process.terminate()
        process.wait(30)


def test_the_source_and_the_registry_give_the_same_service(
    account: Cloud, linear: Packed, base: str, home: Path
) -> None:
    shipped, found = shipment(linear, base, home), []
    for given in ({"source": True}, {"source": False}):
        plan = beanstalk.plan(shipped, options(**given))
        url = steps.run(plan, hands(account))["smoke"]
        with Client(url, key=KEY) as client:
            found.append([each["churn_probability"] for each in client.predict(rows())])
    assert found[0] == found[1] == pytest.approx(linear.probabilities(), abs=1e-9)
    repositories = account.left()["repositories"]
    assert repositories == ["churn"]
    steps.run(awsends.destroy("churn", options()), hands(account))
    assert account.left() == {name: [] for name in account.left()}
