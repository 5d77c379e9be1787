"""An exported project builds in a container engine as it stands, passes its own tests there, and answers."""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from ketch.image.engine import Engine
from ketch.page import answered
from ketch.schema.checks import Checker
from tests.running import fresh
from tests.ship.conftest import LOCKED, Packed, Running

pytestmark = [pytest.mark.ship, pytest.mark.timeout(500)]
TAG = "ketch-test-export:1"
# what pip is told here, which a build knows nothing of
TOLD = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST", "PIP_DEFAULT_TIMEOUT", "HTTPS_PROXY", "https_proxy")


def build_arguments() -> list[str]:
    """Tell a build the index of this machine; the base image trusts whom this machine trusts."""
    told = {name: os.environ[name] for name in TOLD if os.environ.get(name)}
    return [word for name in told for word in ("--build-arg", name)]


def post(url: str, body: object) -> Any:
    asked = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(asked, timeout=30) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


@pytest.fixture(scope="module", params=["--flask", pytest.param("--fastapi", marks=pytest.mark.conformance)])
def exported(
    request: pytest.FixtureRequest,
    docker: Engine,
    base: str,
    home: Path,
    linear: Packed,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "project"
    done = fresh("export", linear.path, "-o", folder, request.param, home=home)
    assert done.returncode == 0, done.stderr
    words = ["docker", "build", "--network", "host", "--build-arg", f"BASE_IMAGE={base}", *build_arguments()]
    built = subprocess.run([*words, "--tag", TAG, folder], capture_output=True, text=True)
    assert built.returncode == 0, built.stdout[-3000:] + built.stderr[-3000:]
    return folder


def test_its_image_answers_with_nothing_but_memory_to_write_to(exported: Path, linear: Packed) -> None:
    words = ["docker", "run", "--detach", *LOCKED, "--user", "48213:48213", "--memory", "512m", "--publish"]
    started = subprocess.run([*words, "127.0.0.1::9696", TAG], capture_output=True, text=True, check=True)
    container = Running(started.stdout.strip())
    try:
        url = f"http://{container.published}"
        until = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"{url}/health", timeout=5).close()
                break
            except (OSError, urllib.error.URLError):
                assert time.monotonic() < until, container.logs()
                time.sleep(0.2)
        listed = answered(linear.opened, Checker(linear.opened.contract.fields))
        found = post(f"{url}/predict", [each.row for each in listed])
        assert [each["churn"] for each in found] == [each.answer["churn"] for each in listed]
        wanted = [each.answer["churn_probability"] for each in listed]
        assert [each["churn_probability"] for each in found] == pytest.approx(wanted, abs=1e-6)
        assert post(f"{url}/predict", {"no": "field"}) == 422
    finally:
        container.docker("rm", "--force", container.name)


def test_its_own_tests_pass_in_its_image(exported: Path, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--target", tools, "pytest>=8.2"],
        check=True,
        capture_output=True,
    )
    words = ["docker", "run", "--rm", "--network", "none", "--user", "48213:48213", "--env", "PYTHONPATH=/tools"]
    mounts = [f"--volume={tools}:/tools:ro", f"--volume={exported}:/project:ro", "--workdir=/project"]
    done = subprocess.run(
        [*words, *mounts, TAG, "python", "-m", "pytest", "-q", "-p", "no:cacheprovider"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
