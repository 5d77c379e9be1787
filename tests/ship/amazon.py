"""What the tests of targets of AWS share: an account on this machine, models, and hands that wait on its clock."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ketch import bundle, deploy, steps
from ketch.deploy import Shipment, Target, amazon, images
from ketch.errors import KetchError
from ketch.steps import Hands, Secret
from tests.beanstalk_instances import Local, local
from tests.doors import Small
from tests.fake_aws import Cloud, Interrupting, cloud, completed

KEY = "key-of-these-tests-0123456789abcdef"


@pytest.fixture(name="server", scope="module")
def its_server() -> Iterator[Any]:
    with completed() as started:
        yield started


@pytest.fixture(name="runner", scope="module")
def its_runner() -> Iterator[Local]:
    with local() as made:
        yield made


@pytest.fixture(name="account")
def its_account(server: Any, runner: Local, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    with cloud(server, runner) as made:
        for name, value in made.environ.items():
            monkeypatch.setenv(name, value)
        yield made


@pytest.fixture(name="other", scope="module")
def its_other(tmp_path_factory: pytest.TempPathFactory) -> Small:
    """Another model of the same name."""
    return Small.pack(tmp_path_factory.mktemp("other"), seed=5)


def shipment(path: Path, key: str = KEY) -> Shipment:
    data = path.read_bytes()
    return Shipment("churn", bundle.read(data, path.name), data, Secret(key))


def hands(account: Cloud, kept: dict[Any, Any] | None = None, told: list[str] | None = None) -> Hands:
    lines: list[str] = [] if told is None else told
    return Hands(os.environ, lines.append, account.clock.now, account.clock.sleep, {} if kept is None else kept)


def built(account: Cloud, shipped: Shipment, path: Path, **recipe: Any) -> None:
    """Hold the image in its repository already, as no engine is needed here to build it."""
    tag = images.image_tag(shipped, **recipe)
    steps.run(steps.Plan("aws", "churn", (amazon.repository("churn", "churn"),)), hands(account))
    account.own("churn", tag, path)


def deployed(
    target: Target,
    recipe: dict[str, Any],
    account: Cloud,
    path: Path,
    *words: Any,
    key: str = KEY,
    holds: Path | None = None,
    **given: Any,
) -> dict[str, Any]:
    """Deploy a bundle, whose image may hold another one by mistake."""
    shipped = shipment(path, key)
    built(account, shipped, holds or path, **recipe)
    return steps.run(target.plan(shipped, deploy.settled(target, given)), hands(account, *words))


def changes(account: Cloud) -> list[str]:
    """Give what was asked for that is no reading."""
    reads = ("Get", "List", "Describe", "Invoke")
    return [each for each in account.requests if not each.partition(".")[2].startswith(reads)]


def broken(folder: Path) -> Path:
    """Give a bundle that is none."""
    path = folder / "broken.ketch"
    path.write_bytes(b"no bundle")
    return path


def wrong(folder: Path) -> Path:
    """Give the bundle of a model that nobody meant."""
    made = folder / "wrong"
    made.mkdir()
    return Small.pack(made, seed=9).bundle


def interrupted(
    target: Target,
    deploys: Callable[..., dict[str, Any]],
    account: Cloud,
    path: Path,
    every: int,
    settled: Callable[[dict[str, Any]], None],
) -> int:
    """Interrupt a deployment at one call after another, run it again, and see what has come of it."""
    whole = Interrupting()
    deploys(account, path, whole)
    for at in range(1, whole.sent + 1, every):
        steps.run(way(target, "destroy"), hands(account))
        account.requests.clear()
        account.heard.clear()
        with pytest.raises(KeyboardInterrupt):
            deploys(account, path, Interrupting(at, after=bool(at % 2)))
        settled(deploys(account, path))
    return whole.sent


def only_looks(
    target: Target, deploys: Callable[..., dict[str, Any]], account: Cloud, first: Path, second: Path
) -> None:
    """Survey every way that there is, and see that nothing comes of it."""

    def ahead(plan: steps.Plan) -> dict[str, str]:
        return {each.step.name: each.state for each in steps.survey(plan, hands(account))}

    plan, later = (target.plan(shipment(each), deploy.settled(target, {})) for each in (first, second))
    states = ahead(plan)
    assert states["repository"] == "to do"
    assert "there" not in {states["smoke"], states["image"]}, states
    assert not any(account.left().values()), account.left()
    deploys(account, first)
    states = ahead(plan)
    assert {state for name, state in states.items() if name not in {"smoke", "draft"}} == {"there"}, states
    states = ahead(later)
    assert states["image"] == "to do"
    assert states["repository"] == "there"
    deploys(account, second)
    for verb in ("rollback", "destroy"):
        account.requests.clear()
        assert set(ahead(way(target, verb)).values()) != {"there"}, verb
        assert not changes(account), changes(account)


def way(target: Target, verb: str, **given: Any) -> Any:
    """Give the plan or the questions of a verb."""
    return getattr(target, verb)("churn", deploy.settled(target, given))


def asked(account: Cloud, target: Target, verb: str, **given: Any) -> list[str]:
    """Ask, and give the lines that are told."""
    return [line for each in way(target, verb, **given) for _, line in each.told(_answer(each, hands(account)))]


def _answer(question: Any, held: Hands) -> Any:
    try:
        return question.call.done(held)
    except KetchError as error:
        if getattr(error, "reason", "") in question.absent:
            return None
        raise
