"""Cloud Run, Vertex AI and Container Apps, interrupted at every call; an image in a real registry.

After one call is before the next: the cloud has then heard all before it, and nothing more.
"""

import hashlib
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ketch.cli.image import composed, open_model
from ketch.deploy import Shipment, cloudrun, containerapps
from ketch.deploy.images import read_archive
from ketch.deploy.registry import Push, Registry, Tagged
from ketch.errors import KetchError
from ketch.image.engine import Engine
from ketch.settings import read
from ketch.steps import run
from tests import test_deploy_cloudrun, test_deploy_containerapps, test_deploy_vertex
from tests.clouds import hands, here, planned, shipped
from tests.doors import Small
from tests.instances import Instances
from tests.ship.conftest import Packed
from tests.test_deploy_registry import archive

NEVER = 10**6
MODULES: dict[str, Any] = {
    "cloudrun": test_deploy_cloudrun,
    "vertex": test_deploy_vertex,
    "containerapps": test_deploy_containerapps,
}
pytestmark = [pytest.mark.ship, pytest.mark.timeout(300)]


@pytest.mark.conformance
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", MODULES)
def test_what_is_interrupted_at_any_call_goes_on(
    name: str,
    bundles: tuple[Path, Path],
    instances: Instances,
    small: Small,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = MODULES[name]
    ship = module.TRIAL.ship(bundles, small.home)
    at, calls = NEVER, 1
    while at <= calls or at == NEVER:
        with module.TRIAL.cloud(instances, tmp_path, bundles, monkeypatch) as cloud:
            found = module.interrupted(cloud, ship, at)
            assert not cloud.wrong, (at, cloud.wrong)
        at, calls = (1, found) if at == NEVER else (at + 1, calls)
    assert calls > 20


# ---- a real registry ---------------------------------------------------------------------------------


@contextmanager
def registry(folder: Path) -> Iterator[str]:
    """Run Debian's registry of images on a port of this machine."""
    program = os.environ.get("KETCH_TEST_REGISTRY") or shutil.which("docker-registry")
    if program is None or shutil.which("skopeo") is None:
        pytest.skip("docker-registry or skopeo is not on this machine: apt-get install docker-registry skopeo")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = folder / "registry"
    folder.mkdir()
    config = folder / "config.yml"
    config.write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {folder}/held}}}}\n"
        f"http: {{addr: '127.0.0.1:{port}'}}\n"
    )
    process = subprocess.Popen([program, "serve", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(200):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/", timeout=1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def test_a_real_registry_takes_what_we_push_and_gives_it_to_skopeo(tmp_path: Path) -> None:
    with registry(tmp_path) as address:
        named = Registry("registry.example", lambda hands: ("", ""))
        by = hands({"KETCH_REGISTRY_URL": f"http://{address}"})
        digest = Push(named, "shop/ketch/churn", "1", lambda _: read_archive(archive(tmp_path))).done(by)
        assert Tagged(named, "shop/ketch/churn", "1").done(by) == digest
        words = ["skopeo", "inspect", "--tls-verify=false", "--format", "{{.Digest}}"]
        told = subprocess.run(
            [*words, f"docker://{address}/shop/ketch/churn:1"], capture_output=True, text=True, check=True
        )
        assert told.stdout.strip() == digest
        copied = f"dir:{tmp_path / 'copied'}"
        source = f"docker://{address}/shop/ketch/churn@{digest}"
        subprocess.run(["skopeo", "copy", "--src-tls-verify=false", source, copied], capture_output=True, check=True)


@pytest.fixture
def built(docker: Engine, base: str, linear: Packed, home: Path, tmp_path: Path) -> Shipment:
    """A shipment whose image is built by the engine of this machine."""
    settings = read({}, environ={"KETCH_HOME": str(home)}, folder=tmp_path)
    opened = open_model(str(linear.path), settings)
    return replace(
        shipped(linear.path, home),
        context=lambda **words: composed(opened, settings, None, {"extras": "", "base": base, **words}),
    )


def deployed(cloud: Any, plan: Any, image: Callable[[], str], address: str, bundle: Path) -> dict[str, Any]:
    """Deploy an image that the cloud does not know, show it what was pushed, and deploy again."""
    told: list[str] = []
    with pytest.raises(KetchError):
        run(plan, here(told=told))
    words = ["skopeo", "inspect", "--tls-verify=false", f"docker://{address}/{image().partition('/')[2]}"]
    found = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    assert found["Architecture"] == "amd64"
    revision = hashlib.sha256(bundle.read_bytes()).hexdigest()
    assert found["Labels"]["org.opencontainers.image.revision"] == revision
    cloud.images[image().partition("@")[2]] = bundle
    got = run(plan, here(told=told))
    assert len([line for line in told if line.startswith("  ") and "builds" in line]) == 1
    assert not cloud.wrong
    return got


def test_an_image_is_built_pushed_and_deployed_to_cloud_run(
    built: Shipment, linear: Packed, instances: Instances, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = test_deploy_cloudrun
    with registry(tmp_path) as address, module.TRIAL.cloud(instances, tmp_path, (), monkeypatch) as cloud:
        monkeypatch.setenv("KETCH_REGISTRY_URL", f"http://{address}")

        def image() -> str:
            return str(cloud.services[module.SERVICE]["template"]["containers"][0]["image"])

        plan = planned(cloudrun.TARGET, built, module.GIVEN)
        got = deployed(cloud, plan, image, address, linear.path)
        assert image().startswith("europe-west1-docker.pkg.dev/")
        assert got["smoke"] == cloud.services[module.SERVICE]["uri"]


def test_an_image_is_built_pushed_and_deployed_to_container_apps(
    built: Shipment, linear: Packed, instances: Instances, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = test_deploy_containerapps
    with registry(tmp_path) as address, module.TRIAL.cloud(instances, tmp_path, (), monkeypatch) as cloud:
        monkeypatch.setenv("KETCH_REGISTRY_URL", f"http://{address}")

        def image() -> str:
            template = cloud.apps[module.APP].told["properties"]["template"]
            return str(template["containers"][0]["image"])

        plan = planned(containerapps.TARGET, built, module.GIVEN)
        got = deployed(cloud, plan, image, address, linear.path)
        host = image().partition("/")[0]
        settled = cloud.apps[module.APP].told["properties"]["configuration"]
        assert settled["registries"][0]["server"] == host
        assert host.startswith("ketch")
        assert got["smoke"].startswith("https://")
        assert len(cloud.apps[module.APP].revisions) == 2  # the first one could not be pulled
