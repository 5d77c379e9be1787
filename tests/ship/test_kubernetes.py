"""The real kubectl against an API server on loopback: deployed, interrupted, gone back, removed; and checkov."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from ketch import bundle, deploy, steps
from ketch.cli.deploy import _answered as answered
from ketch.deploy import Shipment
from ketch.deploy.kubernetes import TARGET
from ketch.errors import DeployError, KetchError, UsageError
from ketch.steps import Hands, Plan, Secret
from tests.cluster import Cluster, cluster
from tests.doors import Small
from tests.running import serving


def is_recent() -> bool:
    """Say whether there is a kubectl that lets the server check fields: older ones ask for more than is here."""
    if shutil.which("kubectl") is None:
        return False
    said = subprocess.run(["kubectl", "version", "--client", "--output", "json"], capture_output=True).stdout
    return int("".join(filter(str.isdigit, json.loads(said)["clientVersion"]["minor"])) or 0) >= 27


pytestmark = [pytest.mark.ship, pytest.mark.skipif(not is_recent(), reason="no kubectl of 1.27 or newer is here")]
KEY = "a-key-that-callers-have"
FIRST, SECOND, LOST = (f"registry.example/churn@sha256:{each * 64}" for each in "abc")
CHECKOV = Path(__file__).parents[2] / ".cache" / "tools" / "checkov"
ALLOWED = {  # each with the reason in docs/deploy/kubernetes.md
    "CKV_K8S_11",  # no CPU limit
}


@contextmanager
def world(small: Small, folder: Path, *urls: str) -> Iterator[tuple[Cluster, Hands]]:
    with cluster(folder) as (server, config):
        server.images |= dict(zip((FIRST, SECOND), urls, strict=False))
        told = {**os.environ, "KUBECONFIG": config, "HOME": str(folder)}
        yield server, Hands(told, sleep=lambda _: time.sleep(0.02))


def shipped(small: Small, image: str, **more: str) -> tuple[Plan, Mapping[str, Any]]:
    data = small.bundle.read_bytes()
    options = deploy.settled(TARGET, {"image": image, **more})
    return TARGET.plan(Shipment("churn", bundle.read(data, "churn"), data, Secret(KEY)), options), options


def images(server: Cluster) -> list[str]:
    found = server.listed("deployments", "ketch", "")
    return [each["spec"]["template"]["spec"]["containers"][0]["image"] for each in found]


def changes(server: Cluster) -> list[str]:
    found, server.calls = server.calls, []
    return [each for each in found if "portforward" not in each]


def told(questions: Any, hands: Hands) -> str:
    return "\n".join(line for each in questions for _, line in each.told(each.call.done(hands)))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Small, str, Small, str]]:
    one, other = (Small.pack(tmp_path_factory.mktemp(f"model{seed}"), seed=seed) for seed in (1, 5))
    with (
        serving(one.bundle, home=one.home, KETCH_API_KEYS=KEY) as first,
        serving(other.bundle, home=other.home, KETCH_API_KEYS=KEY) as second,
    ):
        yield one, first, other, second


def test_a_model_is_deployed_replaced_rolled_back_and_removed(
    models: tuple[Small, str, Small, str], tmp_path: Path
) -> None:
    one, first, other, second = models
    with world(one, tmp_path, first, second) as (server, hands):
        plan, options = shipped(one, FIRST)
        ahead = {each.step.name: each.state for each in steps.survey(plan, hands)}
        assert (ahead["namespace"], ahead["key"], ahead["manifests"], ahead["rollout"]) == (
            "to do",
            "to do",
            "to do",
            "then",
        )
        assert not server.calls, "looking ahead changes something"
        got = steps.run(plan, hands)
        assert (got["smoke"], got["key"]) == ("http://churn.ketch.svc", KEY)
        assert changes(server)
        steps.run(plan, hands)
        assert not changes(server), "there was nothing to do"

        steps.run(shipped(other, SECOND)[0], hands)
        assert images(server) == [SECOND]
        assert "2 of 2 pods ready, revision 2" in told(TARGET.status("churn", options), hands)  # type: ignore[misc]
        assert "hello from churn-" in told(TARGET.logs("churn", options), hands)  # type: ignore[misc]

        assert TARGET.rollback
        assert TARGET.destroy
        steps.run(TARGET.rollback("churn", options), hands)
        assert images(server) == [FIRST]
        steps.run(plan, hands)  # which asks for the golden predictions of the first

        steps.run(TARGET.destroy("churn", options), hands)
        assert {kind for kind, _, _ in server.objects} == {"namespaces"}
        changes(server)
        steps.run(TARGET.destroy("churn", options), hands)
        assert not changes(server)


def test_what_does_not_come_up_is_told_and_taken_back(models: tuple[Small, str, Small, str], tmp_path: Path) -> None:
    one, first, other, _ = models
    with world(one, tmp_path, first) as (server, hands):
        steps.run(shipped(one, FIRST)[0], hands)
        with pytest.raises(DeployError, match="ImagePullBackOff"):
            steps.run(shipped(other, LOST)[0], hands)
        assert images(server) == [FIRST]
        server.images[SECOND] = first  # somebody has pushed the wrong image
        with pytest.raises(KetchError, match="golden row"):
            steps.run(shipped(other, SECOND)[0], hands)
        assert images(server) == [FIRST]


@pytest.mark.parametrize(
    "at", [pytest.param(at, marks=[] if at in {1, 2, 7, 8} else [pytest.mark.conformance]) for at in range(1, 9)]
)
def test_whatever_call_is_the_last_one_the_next_run_goes_on(
    at: int, models: tuple[Small, str, Small, str], tmp_path: Path
) -> None:
    one, first, _, _ = models
    with world(one, tmp_path, first) as (server, hands):
        plan, _ = shipped(one, FIRST)
        server.fails_at = at
        with pytest.raises(KetchError):
            steps.run(plan, hands)
        server.fails_at = 0
        got = steps.run(plan, hands)
        assert got["smoke"]
        assert got["key"] == KEY
        assert images(server) == [FIRST]


@pytest.mark.parametrize("at", [1, 2])
def test_an_interrupted_rollback_goes_on_to_where_it_was_going(
    at: int, models: tuple[Small, str, Small, str], tmp_path: Path
) -> None:
    one, first, other, second = models
    with world(one, tmp_path, first, second) as (server, hands):
        for small, image in ((one, FIRST), (other, SECOND)):
            plan, options = shipped(small, image)
            short = tuple(each for each in plan.steps if each.name != "smoke")
            steps.run(replace(plan, steps=short), hands)
        assert TARGET.rollback
        back = TARGET.rollback("churn", options)
        server.changes, server.fails_at = 0, at
        with pytest.raises(KetchError):
            steps.run(back, hands)
        server.fails_at = 0
        for _ in range(2):
            steps.run(back, hands)
            assert images(server) == [FIRST]


def test_kubectl_takes_the_folder(small: Small, tmp_path: Path) -> None:
    plan, _ = shipped(small, FIRST)
    for path, data in plan.files.items():
        (tmp_path / path).write_bytes(data)
    done = subprocess.run(["kubectl", "kustomize", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = sorted(each["kind"] for each in yaml.safe_load_all(done.stdout))
    assert found == sorted(yaml.safe_load(data)["kind"] for path, data in plan.files.items() if "kustom" not in path)


@pytest.mark.parametrize("kind", ["predictor", "runtime"])
def test_kserve_runs_it(kind: str, models: tuple[Small, str, Small, str], tmp_path: Path) -> None:
    one, first, _, _ = models
    more = {"kserve": kind, "storage": "s3://models/churn.ketch" if kind == "runtime" else ""}
    with world(one, tmp_path, first) as (server, hands):
        plan, options = shipped(one, FIRST, **more)
        assert steps.run(plan, hands)["smoke"] == "http://churn-predictor.ketch.svc"
        changes(server)
        steps.run(plan, hands)
        assert not changes(server)
        assert "2 of 2 pods ready" in told(TARGET.status("churn", options), hands)  # type: ignore[misc]
        steps.run(TARGET.destroy("churn", options), hands)  # type: ignore[misc]
        assert {kind for kind, _, _ in server.objects} == {"namespaces"}


def test_the_doctor_says_what_is_missing_and_who_may_not_read_namespaces_goes_on(
    models: tuple[Small, str, Small, str], tmp_path: Path
) -> None:
    one, first, _, _ = models
    with world(one, tmp_path, first) as (server, hands):
        plan, options = shipped(one, FIRST)
        assert TARGET.doctor
        server.forbidden = {"POST secrets"}
        found = [line for each in TARGET.doctor("", options) for line in answered(each, hands)[1]]
        assert ("mend", "may not create secrets") in found
        assert ("ok", "may create services") in found
        steps.run(replace(plan, steps=plan.steps[:1]), hands)
        server.forbidden = {"GET namespaces", "POST namespaces"}
        steps.run(plan, hands)
        assert images(server) == [FIRST]
        with pytest.raises(UsageError, match="no version before"):
            steps.run(TARGET.rollback("churn", options), hands)  # type: ignore[misc]


@pytest.mark.conformance
@pytest.mark.timeout(600)
def test_checkov_finds_only_what_the_documentation_gives_a_reason_for(small: Small, tmp_path: Path) -> None:
    if not (CHECKOV / "bin" / "checkov").exists():
        subprocess.run([sys.executable, "-m", "venv", str(CHECKOV)], check=True)
        subprocess.run([str(CHECKOV / "bin" / "pip"), "install", "--quiet", "checkov"], check=True)
    plan, _ = shipped(small, FIRST)
    for path, data in plan.files.items():
        if path != "kustomization.yaml":
            (tmp_path / path).write_bytes(data)
    words = [
        "--directory",
        str(tmp_path),
        "--framework",
        "kubernetes",
        "--skip-download",
        "--compact",
        "--output",
        "json",
    ]
    done = subprocess.run([str(CHECKOV / "bin" / "checkov"), *words], capture_output=True, text=True)
    found = json.loads(done.stdout)["results"]
    failed = {each["check_id"] for each in found["failed_checks"]}
    assert failed <= ALLOWED, [
        (each["check_id"], each["resource"], each["check_name"]) for each in found["failed_checks"]
    ]
    assert len(found["passed_checks"]) > 60
