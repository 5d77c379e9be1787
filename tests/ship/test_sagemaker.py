"""The target sagemaker: its API by botocore's model, and the image's entry started as SageMaker starts images."""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ketch import steps
from ketch.deploy import sagemaker
from ketch.errors import DeployError, KetchError
from tests.doors import Small
from tests.fake_aws import Cloud
from tests.fake_sagemaker import SageMaker, endpoints
from tests.ship import amazon
from tests.ship.amazon import asked, broken, changes, hands, only_looks, shipment, way, wrong
from tests.ship.amazon import its_account as its_account
from tests.ship.amazon import its_other as its_other
from tests.ship.amazon import its_runner as its_runner
from tests.ship.amazon import its_server as its_server

pytestmark = pytest.mark.ship
IMAGE: Any = {"platform": "linux/amd64"}
TARGET = sagemaker.TARGET
deployed = functools.partial(amazon.deployed, TARGET, IMAGE)


@pytest.fixture
def service(account: Cloud, tmp_path: Path) -> Iterator[SageMaker]:
    with endpoints(account, tmp_path / "endpoints") as made:
        yield made


def replay(account: Cloud, path: Path) -> str:
    answer: str = sagemaker.Invoked("churn", shipment(path).opened).done(hands(account))
    return answer


def test_an_endpoint_is_made_updated_gone_back_from_and_removed(
    account: Cloud, service: SageMaker, small: Small, other: Small
) -> None:
    got = deployed(account, small.bundle)
    assert got["smoke"] == "endpoint churn"
    account.requests.clear()
    deployed(account, small.bundle)
    assert not changes(account), "the same again does something"

    deployed(account, other.bundle, canary=10)
    assert replay(account, other.bundle)
    assert "churn runs churn-" in asked(account, TARGET, "status")[0]
    for _ in range(2):  # the second does nothing more
        steps.run(way(TARGET, "rollback"), hands(account))
        assert replay(account, small.bundle)
    deployed(account, other.bundle)
    assert replay(account, other.bundle)
    assert len(service.configs) == 2

    steps.run(way(TARGET, "destroy"), hands(account))
    assert not service.endpoints | service.configs | service.models
    assert not any(account.left().values()), account.left()
    steps.run(way(TARGET, "destroy"), hands(account))
    assert asked(account, TARGET, "status") == ["there is no endpoint churn"]


def test_what_does_not_become_healthy_is_told_and_what_ran_before_runs_on(
    account: Cloud, service: SageMaker, small: Small, other: Small, tmp_path: Path
) -> None:
    deployed(account, small.bundle)
    with pytest.raises(DeployError, match="ping health check") as caught:
        deployed(account, other.bundle, holds=broken(tmp_path))
    assert "--logs" in caught.value.hint
    assert replay(account, small.bundle)


def test_an_endpoint_that_never_came_about_is_made_anew(
    account: Cloud, service: SageMaker, small: Small, tmp_path: Path
) -> None:
    with pytest.raises(DeployError):
        deployed(account, small.bundle, holds=broken(tmp_path))
    assert service.endpoints["churn"].status == "Failed"
    deployed(account, small.bundle)
    assert replay(account, small.bundle)


def test_another_model_than_was_meant_is_taken_back(
    account: Cloud, service: SageMaker, small: Small, other: Small, tmp_path: Path
) -> None:
    deployed(account, small.bundle)
    told: list[str] = []
    with pytest.raises(KetchError, match="golden row"):
        deployed(account, other.bundle, None, told, holds=wrong(tmp_path))
    assert "Run again what ran before" in told
    account.clock.sleep(1000)
    asked(account, TARGET, "status")
    assert replay(account, small.bundle)


def interrupted(account: Cloud, service: SageMaker, path: Path, every: int) -> int:
    def settled(got: dict[str, Any]) -> None:
        assert replay(account, path)
        assert len(service.configs) == len(service.endpoints) == 1

    return amazon.interrupted(TARGET, deployed, account, path, every, settled)


@pytest.mark.conformance
def test_what_was_interrupted_goes_on(account: Cloud, service: SageMaker, small: Small) -> None:
    assert interrupted(account, service, small.bundle, every=9) > 25


def test_without_instances_it_is_paid_by_the_second(account: Cloud, service: SageMaker, small: Small) -> None:
    deployed(account, small.bundle, serverless=True, memory=1024)
    variant = next(iter(service.configs.values()))["ProductionVariants"][0]
    assert variant["ServerlessConfig"] == {"MemorySizeInMB": 1024, "MaxConcurrency": 20}
    assert asked(account, TARGET, "doctor")
    assert asked(account, TARGET, "logs") == []


def test_a_survey_only_looks(account: Cloud, service: SageMaker, small: Small, other: Small) -> None:
    only_looks(TARGET, deployed, account, small.bundle, other.bundle)
