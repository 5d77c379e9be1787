"""Deployments to AWS that are interrupted at every single call, and run again: thousands of calls."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.doors import Small
from tests.fake_aws import Cloud
from tests.fake_lambda import functions
from tests.fake_sagemaker import endpoints
from tests.ship import test_ecs, test_lambda, test_sagemaker
from tests.ship.amazon import its_account as its_account
from tests.ship.amazon import its_runner as its_runner
from tests.ship.amazon import its_server as its_server

pytestmark = [pytest.mark.conformance, pytest.mark.timeout(1800)]


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Keep no log of so many requests."""
    with caplog.at_level("CRITICAL"):
        yield


def test_ecs_goes_on(account: Cloud, small: Small) -> None:
    assert test_ecs.interrupted(account, small.bundle, every=1) > 25


def test_lambda_goes_on(account: Cloud, small: Small, tmp_path: Path) -> None:
    with functions(account, tmp_path / "functions") as service:
        assert test_lambda.interrupted(account, service, small.bundle, every=1) > 25


def test_sagemaker_goes_on(account: Cloud, small: Small, tmp_path: Path) -> None:
    with endpoints(account, tmp_path / "endpoints") as service:
        assert test_sagemaker.interrupted(account, service, small.bundle, every=1) > 25
