"""The target ecs: Express Mode as botocore's model has it, behind which services really run."""

import functools
from pathlib import Path
from typing import Any

import pytest

from ketch import steps
from ketch.client import Client
from ketch.deploy import ecs, images
from ketch.errors import DeployError, KetchError
from tests.doors import Small
from tests.fake_aws import Cloud
from tests.ship import amazon
from tests.ship.amazon import KEY, asked, broken, changes, hands, only_looks, shipment, way, wrong
from tests.ship.amazon import its_account as its_account
from tests.ship.amazon import its_other as its_other
from tests.ship.amazon import its_runner as its_runner
from tests.ship.amazon import its_server as its_server

pytestmark = pytest.mark.ship
TARGET = ecs.TARGET
deployed = functools.partial(amazon.deployed, TARGET, {"platform": "linux/amd64"})


def replay(url: str, path: Path) -> int:
    with Client(url, key=KEY) as client:
        return client.replay(shipment(path).opened)


def test_a_service_is_made_updated_gone_back_from_and_removed(account: Cloud, small: Small, other: Small) -> None:
    told: list[str] = []
    got = deployed(account, small.bundle, None, told)
    assert got["key"] == KEY
    second = shipment(other.bundle)
    account.requests.clear()
    again = deployed(account, small.bundle, key="another-key-that-is-not-taken-0123456789")
    assert again["key"] == KEY, "a key that callers have is replaced"
    assert not changes(account), "the same again does something"

    got = deployed(account, other.bundle)
    assert replay(got["smoke"], other.bundle)
    assert any(second.label in line for line in asked(account, TARGET, "status"))

    steps.run(way(TARGET, "rollback"), hands(account))
    assert replay(got["smoke"], small.bundle)
    steps.run(way(TARGET, "rollback"), hands(account))  # does nothing more
    assert replay(got["smoke"], small.bundle)
    tag = images.image_tag(second, platform="linux/amd64")
    steps.run(way(TARGET, "rollback", to=tag), hands(account))
    assert replay(got["smoke"], other.bundle)

    steps.run(way(TARGET, "destroy"), hands(account))
    assert not any(account.left().values()), account.left()
    steps.run(way(TARGET, "destroy"), hands(account))
    assert asked(account, TARGET, "status") == ["churn is inactive"]


def test_what_does_not_become_healthy_is_told_and_what_ran_before_runs_on(
    account: Cloud, small: Small, other: Small, tmp_path: Path
) -> None:
    got = deployed(account, small.bundle)
    with pytest.raises(DeployError, match="health checks") as caught:
        deployed(account, other.bundle, holds=broken(tmp_path))
    assert "--logs" in caught.value.hint
    assert replay(got["smoke"], small.bundle)


def test_another_model_than_was_meant_is_taken_back(account: Cloud, small: Small, other: Small, tmp_path: Path) -> None:
    got = deployed(account, small.bundle)
    told: list[str] = []
    with pytest.raises(KetchError, match="golden row"):
        deployed(account, other.bundle, None, told, holds=wrong(tmp_path))
    assert "Run again what ran before" in told
    account.clock.sleep(1000)
    asked(account, TARGET, "status")
    assert replay(got["smoke"], small.bundle)


def interrupted(account: Cloud, path: Path, every: int) -> int:
    def settled(got: dict[str, Any]) -> None:
        assert replay(got["smoke"], path)
        assert "ecs.UpdateExpressGatewayService" not in account.requests, account.requests

    return amazon.interrupted(TARGET, deployed, account, path, every, settled)


@pytest.mark.conformance
def test_what_was_interrupted_goes_on(account: Cloud, small: Small) -> None:
    assert interrupted(account, small.bundle, every=9) > 25


def test_the_doctor_looks_and_tells(account: Cloud) -> None:
    lines = asked(account, TARGET, "doctor")
    assert any("123456789012" in line for line in lines)
    assert any("default network" in line for line in lines)
    assert asked(account, TARGET, "logs") == []
    with pytest.raises(DeployError, match="no service churn"):
        steps.run(way(TARGET, "rollback"), hands(account))


def test_a_survey_only_looks(account: Cloud, small: Small, other: Small) -> None:
    only_looks(TARGET, deployed, account, small.bundle, other.bundle)
