"""Targets that are files, and the pipelines that deploy: what stands in them, and that nothing secret does."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from ketch import bundle, deploy
from ketch.deploy import Shipment, emit, fly, huggingface
from ketch.errors import UsageError
from ketch.image import Context, context, recipe_of
from ketch.image.wheels import own_wheel
from ketch.steps import Secret
from tests.clouds import Contract
from tests.doors import Small
from tests.running import ketch

KEY = "key-of-these-tests-0123456789abcdef"
TARGETS = ("beanstalk", "cloudrun", "containerapps", "ecs", "lambda", "netlify", "sagemaker", "vertex")


@pytest.fixture(scope="module")
def shipment(small: Small) -> Shipment:
    data = small.bundle.read_bytes()
    opened = bundle.read(data, "churn")

    def made(**recipe: Any) -> Context:
        return context(opened, data, [own_wheel()], recipe_of(opened, {}, **recipe))

    return Shipment("churn", opened, data, Secret(KEY), context=made)


def test_fly_takes_what_the_image_is(shipment: Shipment) -> None:
    plan = fly.plan(shipment, deploy.settled(fly.TARGET, {"memory": 1024, "min": 1}))
    told = tomllib.loads(plan.files["fly.toml"].decode())
    dockerfile = plan.files["Dockerfile"].decode()
    assert f"EXPOSE {told['http_service']['internal_port']}" in dockerfile
    assert told["build"]["dockerfile"] in plan.files
    assert told["http_service"]["checks"][0]["path"] == "/health/ready"
    assert told["http_service"]["force_https"] is True
    assert told["vm"] == [{"size": "shared-cpu-1x", "memory": "1024mb"}]
    assert not plan.steps


@pytest.mark.parametrize("given", [{"region": 'x"y'}, {"memory": 1}, {"min": -1}])
def test_machines_that_fly_does_not_have_are_refused(shipment: Shipment, given: Mapping[str, Any]) -> None:
    with pytest.raises(UsageError):
        fly.plan(shipment, deploy.settled(fly.TARGET, given))


@pytest.mark.parametrize("mode", huggingface.MODES)
def test_a_space_is_a_readme_and_a_build_context(shipment: Shipment, mode: str) -> None:
    given = {"mode": mode, "licence": "apache-2.0"}
    plan = huggingface.plan(shipment, deploy.settled(huggingface.TARGET, given))
    _, front, body = plan.files["README.md"].decode().split("---\n")
    told = yaml.safe_load(front)
    assert (told["sdk"], told["app_port"], told["license"]) == ("docker", 9696, "apache-2.0")
    assert f"EXPOSE {told['app_port']}" in plan.files["Dockerfile"].decode()
    assert shipment.label in body
    large = [path for path, data in plan.files.items() if len(data) > 10 * 2**20]
    assert all(path.endswith((".whl", ".ketch")) for path in large), "Hugging Face takes no larger file without LFS"


@pytest.mark.parametrize("kind", emit.KINDS)
@pytest.mark.parametrize("target", TARGETS)
def test_a_pipeline_checks_plans_and_deploys_without_a_stored_key(kind: str, target: str) -> None:
    wanted = emit.Wanted(target, "models/churn.ketch", "churn", ("--region", "x"), "0.1.0")
    ((path, text),) = emit.pipeline(kind, wanted).items()
    told = yaml.safe_load(text.replace("\non:", "\n'on':"))
    jobs = told["jobs"] if kind == "github" else told
    assert f"ketch deploy {target} models/churn.ketch --name churn --region x --plan" in str(jobs["plan"])
    assert f"ketch deploy {target} models/churn.ketch --name churn --region x --yes" in str(jobs["deploy"])
    assert "--yes" not in str(jobs["plan"])
    assert "ketch verify" in str(jobs["check"])
    assert ("secrets." in text) == (target == "netlify" and kind == "github")
    assert ("id-token" in text or "id_tokens" in text) == (target != "netlify")
    assert path.endswith(".yml")
    for line in text.splitlines():
        if "uses:" in line:
            assert line.rpartition("@")[2].count(".") == 2, f"not a full version: {line}"


def test_what_no_pipeline_can_deploy_is_refused() -> None:
    with pytest.raises(UsageError, match="no pipeline for fly"):
        emit.Wanted("fly", "churn.ketch", "churn")
    with pytest.raises(UsageError, match="cannot stand"):
        emit.Wanted("ecs", "churn.ketch; rm -rf /", "churn")
    with pytest.raises(UsageError, match="no pipeline of"):
        emit.pipeline("jenkins", emit.Wanted("ecs", "churn.ketch", "churn"))


def test_both_are_commands(small: Small, tmp_path: Path) -> None:
    (tmp_path / "churn.ketch").write_bytes(small.bundle.read_bytes())
    words = ("deploy", "ecs", "churn.ketch", "--emit", "github", "--min", "2", "--arm", "-o", tmp_path)
    refused = ketch(*words, "--memory", "1", home=small.home, cwd=tmp_path)
    assert "--memory" in refused.stderr, "the pipeline would find it out"
    done = ketch(*words, home=small.home, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    text = (tmp_path / ".github" / "workflows" / "deploy-churn.yml").read_text()
    assert "ketch deploy ecs churn.ketch --name churn --arm --min 2 --yes" in text
    again = ketch(*words, home=small.home)  # from where the file is not
    assert "there is no file churn.ketch here" in again.stderr
    assert "is there already" in again.stderr


class TestFly(Contract):
    target = fly.TARGET


class TestHuggingFace(TestFly):
    """The contract of targets."""

    target = huggingface.TARGET
