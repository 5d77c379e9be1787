"""Elastic Beanstalk, interrupted before and after every single request, and resumed: hundreds of deployments."""

from typing import Any

import pytest

from tests.beanstalk_instances import Local
from tests.doors import Small
from tests.ship.test_beanstalk import Others, others, resumed, runner, server, undisturbed, ways  # noqa: F401 (fixtures)

pytestmark = pytest.mark.conformance


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("way", ["first", "update", "back", "away"])
@pytest.mark.parametrize("after", [False, True])
def test_interrupted_at_every_request_and_resumed(
    way: str,
    after: bool,
    server: Any,  # noqa: F811
    runner: Local,  # noqa: F811
    small: Small,
    others: Others,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    work = ways(small.bundle, others(5))[way]
    operations, wanted = undisturbed(server, runner, work, monkeypatch)
    for at in range(1, len(operations) + 1):
        resumed(server, runner, work, monkeypatch, at, after, wanted)
