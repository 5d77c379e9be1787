"""Targets of AWS by their contract, and what they refuse before anybody is asked; tests/ship tries them out."""

from pathlib import Path
from typing import Any

import pytest

from ketch import bundle, deploy
from ketch.deploy import Shipment, awslambda, ecs, sagemaker
from ketch.errors import UsageError
from ketch.image import context, recipe_of
from ketch.image.wheels import own_wheel
from ketch.steps import Secret
from tests.clouds import Contract
from tests.doors import Small

KEY = "key-of-these-tests-0123456789abcdef"


def shipment(path: Path) -> Shipment:
    data = path.read_bytes()
    return Shipment("churn", bundle.read(data, path.name), data, Secret(KEY))


LOG = "arn:aws:secretsmanager:us-east-1:123456789012:secret:log"


@pytest.mark.parametrize(
    "given",
    [
        {"cpu": 300},
        {"cpu": 256, "memory": 4096},
        {"memory": 1000},
        {"min": 3, "max": 2},
        {"subnets": "the first"},
        {"security_groups": "subnet-1"},
        {"log_secret": "KETCH_LOG"},
    ],
)
def test_what_fargate_does_not_have_is_refused(small: Small, given: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        ecs.plan(shipment(small.bundle), deploy.settled(ecs.TARGET, given))


def test_options_go_into_the_service(small: Small) -> None:
    given = {"subnets": "subnet-1, subnet-2", "security_groups": "sg-1", "arm": True, "log_secret": LOG}
    plan = ecs.plan(shipment(small.bundle), deploy.settled(ecs.TARGET, given))
    told = str([step.call.sent() for step in plan.steps if step.name == "service" and step.call])
    for part in ("'subnets': ['subnet-1', 'subnet-2']", "'sg-1'", "ARM64", f"'KETCH_LOG', 'valueFrom': '{LOG}'"):
        assert part in told
    assert KEY not in told


class TestEcs(Contract):
    target = ecs.TARGET


class TestLambda(TestEcs):
    """The contract of targets."""

    target = awslambda.TARGET


@pytest.mark.parametrize(
    "given", [{"memory": 64}, {"timeout": 901}, {"canary": 100}, {"concurrency": -1}, {"requests": -1}]
)
def test_functions_that_lambda_does_not_have_are_refused(small: Small, given: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        awslambda.plan(shipment(small.bundle), deploy.settled(awslambda.TARGET, given))


class TestSageMaker(TestEcs):
    """The contract of targets."""

    target = sagemaker.TARGET


@pytest.mark.parametrize(
    "given",
    [
        {"serverless": True, "memory": 1000},
        {"serverless": True, "concurrency": 0},
        {"instance_type": "m5.large"},
        {"canary": 60},
        {"instances": 0},
    ],
)
def test_endpoints_that_sagemaker_does_not_have_are_refused(small: Small, given: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        sagemaker.plan(shipment(small.bundle), deploy.settled(sagemaker.TARGET, given))


def test_an_image_says_what_it_serves_to_whoever_starts_it_with_serve_alone(small: Small) -> None:
    data = small.bundle.read_bytes()
    opened = bundle.read(data, "churn")
    made = context(opened, data, [own_wheel()], recipe_of(opened, {}, trusted=True))
    name = opened.manifest.name
    assert made.config.environ["KETCH_SERVES"] == f"/model/{name}.ketch --trust=sha256:{opened.sha256}"
    assert f'KETCH_SERVES="/model/{name}.ketch ' in made.files["Dockerfile"].decode()
