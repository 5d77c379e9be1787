"""The target lambda: its API by botocore's model, and functions that run with Amazon's own runtime client."""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ketch import steps
from ketch.client import Client
from ketch.deploy import awslambda
from ketch.errors import CloudRefused, DeployError, KetchError, Unauthorized
from tests.doors import Small
from tests.fake_aws import Cloud
from tests.fake_lambda import Lambda, functions
from tests.ship import amazon
from tests.ship.amazon import KEY, asked, broken, changes, hands, only_looks, shipment, way, wrong
from tests.ship.amazon import its_account as its_account
from tests.ship.amazon import its_other as its_other
from tests.ship.amazon import its_runner as its_runner
from tests.ship.amazon import its_server as its_server

pytestmark = pytest.mark.ship
IMAGE: Any = {"mode": "lambda", "platform": "linux/amd64"}
TARGET = awslambda.TARGET
deployed = functools.partial(amazon.deployed, TARGET, IMAGE)


@pytest.fixture
def service(account: Cloud, tmp_path: Path) -> Iterator[Lambda]:
    with functions(account, tmp_path / "functions") as made:
        yield made


def replay(url: str, path: Path) -> int:
    with Client(url, key=KEY) as client:
        return client.replay(shipment(path).opened)


def test_a_function_is_made_updated_gone_back_from_and_removed(
    account: Cloud, service: Lambda, small: Small, other: Small
) -> None:
    got = deployed(account, small.bundle, concurrency=5)
    assert got["key"] == KEY
    assert replay(got["smoke"], small.bundle)
    with Client(got["smoke"], key="another-key-that-opens-nothing-01234") as client, pytest.raises(Unauthorized):
        client.replay(shipment(small.bundle).opened)
    function = service.functions["churn"]
    assert KEY not in str(function), "the key stands in the function's settings"
    assert function.concurrency == 5

    account.requests.clear()
    deployed(account, small.bundle, key="another-key-that-is-not-taken-0123456789", concurrency=5)
    assert not changes(account), "the same again does something"

    got = deployed(account, other.bundle)
    assert replay(got["smoke"], other.bundle)
    assert any("is version 2" in line for line in asked(account, TARGET, "status"))
    for _ in range(2):  # the second does nothing more
        steps.run(way(TARGET, "rollback"), hands(account))
        assert replay(got["smoke"], small.bundle)
    deployed(account, other.bundle)  # the same version again, not a new one
    assert replay(got["smoke"], other.bundle)
    assert list(function.versions) == ["1", "2"]
    steps.run(way(TARGET, "rollback", to="1"), hands(account))
    assert replay(got["smoke"], small.bundle)

    steps.run(way(TARGET, "destroy"), hands(account))
    assert not service.functions
    assert not any(account.left().values()), account.left()
    steps.run(way(TARGET, "destroy"), hands(account))
    assert asked(account, TARGET, "status") == ["there is no function churn"]


def test_a_few_requests_may_go_to_the_new_version_first(
    account: Cloud, service: Lambda, small: Small, other: Small
) -> None:
    deployed(account, small.bundle)
    aliases = service.functions["churn"].aliases
    for _ in range(2):
        deployed(account, other.bundle, canary=10)
        assert aliases["live"]["FunctionVersion"] == "1"
        assert aliases["live"]["RoutingConfig"] == {"AdditionalVersionWeights": {"2": 0.1}}
    assert any("2 gets 10%" in line for line in asked(account, TARGET, "status"))
    steps.run(way(TARGET, "rollback"), hands(account))
    assert aliases["live"]["RoutingConfig"] == {"AdditionalVersionWeights": {}}
    got = deployed(account, other.bundle)
    assert aliases["live"]["FunctionVersion"] == "2"
    assert replay(got["smoke"], other.bundle)


def test_a_version_that_answers_wrong_never_becomes_live(
    account: Cloud, service: Lambda, small: Small, other: Small, tmp_path: Path
) -> None:
    got = deployed(account, small.bundle)
    with pytest.raises(KetchError, match="golden row"):
        deployed(account, other.bundle, holds=wrong(tmp_path))
    assert service.functions["churn"].aliases["live"]["FunctionVersion"] == "1"
    assert replay(got["smoke"], small.bundle)


def test_a_function_that_does_not_start_is_told_with_what_it_said(
    account: Cloud, service: Lambda, small: Small, tmp_path: Path
) -> None:
    with pytest.raises(CloudRefused, match="does not answer") as caught:
        deployed(account, small.bundle, holds=broken(tmp_path))
    assert "--logs" in caught.value.hint
    assert "live" not in service.functions["churn"].aliases


def test_identities_of_aws_may_be_the_callers(account: Cloud, service: Lambda, small: Small) -> None:
    got = deployed(account, small.bundle, auth="iam")
    function = service.functions["churn"]
    assert function.config["Environment"]["Variables"] == {"KETCH_AUTH": "platform"}
    assert not function.policies, "everybody may call"
    assert got["smoke"] == function.urls["live"]["FunctionUrl"]
    with Client(got["smoke"]) as client, pytest.raises(KetchError):
        client.replay(shipment(small.bundle).opened)


def interrupted(account: Cloud, service: Lambda, path: Path, every: int) -> int:
    def settled(got: dict[str, Any]) -> None:
        assert replay(got["smoke"], path)
        assert list(service.functions["churn"].versions) == ["1"], "published twice"

    return amazon.interrupted(TARGET, deployed, account, path, every, settled)


@pytest.mark.conformance
def test_what_was_interrupted_goes_on(account: Cloud, service: Lambda, small: Small) -> None:
    assert interrupted(account, service, small.bundle, every=9) > 25


def test_the_doctor_looks_and_tells(account: Cloud, service: Lambda) -> None:
    assert any("1000 functions may run" in line for line in asked(account, TARGET, "doctor"))
    assert asked(account, TARGET, "logs") == []
    with pytest.raises(DeployError, match="no function churn"):
        steps.run(way(TARGET, "rollback"), hands(account))


def test_a_survey_only_looks(account: Cloud, service: Lambda, small: Small, other: Small) -> None:
    only_looks(TARGET, deployed, account, small.bundle, other.bundle)
