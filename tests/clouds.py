"""What tests of targets in clouds share: shipments, hands, and connections that somebody cuts."""

import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from ketch import deploy
from ketch.bundle import Bundle
from ketch.deploy import Shipment, Target
from ketch.predict import fetch_bundle
from ketch.steps import Hands, Plan, Secret, first, run
from ketch.testing import TargetContract
from tests.doors import Small
from tests.instances import Instances

KEY = "a-calling-key-of-a-trial-service"


def shipped(path: Path, home: Path, name: str = "churn") -> Shipment:
    """Ship a bundle, whose image is there already."""
    opened: Bundle = fetch_bundle(str(path), home=home)
    return Shipment(name, opened, path.read_bytes(), Secret(KEY))


def digest(bundle: Path) -> str:
    """Give the digest of the image that holds a bundle: the bundle's own, as no engine has built it."""
    return "sha256:" + hashlib.sha256(bundle.read_bytes()).hexdigest()


class Cut(requests.Session):
    """A connection that somebody interrupts at one request, before or after it."""

    def __init__(self, at: int = -1, after: bool = False) -> None:
        super().__init__()
        self.trust_env = False
        self.at, self.after, self.sent = at, after, 0

    def send(self, request: Any, **more: Any) -> Any:
        self.sent += 1
        if self.sent == self.at and not self.after:
            raise KeyboardInterrupt
        found = super().send(request, **more)
        if self.sent == self.at:
            raise KeyboardInterrupt
        return found


def hands(environ: Mapping[str, str], session: requests.Session | None = None, told: list[str] | None = None) -> Hands:
    """Give hands whose clock runs ten seconds with each look, and that wait for nothing."""
    clock = itertools.count(step=10)
    lines: list[str] = [] if told is None else told
    kept = {} if session is None else {"rest": session}
    return Hands(environ, lines.append, now=lambda: float(next(clock)), sleep=lambda seconds: None, kept=kept)


def here(session: requests.Session | None = None, told: list[str] | None = None) -> Hands:
    """Give hands that find the cloud of a test."""
    return hands(os.environ, session, told)


def planned(target: Target, shipment: Shipment, given: Mapping[str, Any]) -> Plan:
    """Plan with every option that is not given at its default."""
    return target.plan(shipment, deploy.settled(target, given))


def answers(questions: Any, by: Hands) -> list[tuple[str, str, str]]:
    """Ask questions, and give their lines with their titles."""
    return [(each.title, *line) for each in questions for line in each.told(each.call.done(by))]


def shown(plan: Plan) -> str:
    """Spell out all that a plan shows."""
    calls = [(step.title, (first(step) or step.look) and (first(step) or step.look).sent()) for step in plan.steps]  # type: ignore[union-attr]
    return json.dumps([calls, plan.notes, {name: data.decode() for name, data in plan.files.items()}])


@dataclass(frozen=True)
class Trial:
    """How tests try a target out: with what options, where its images are, and what stands for its cloud."""

    target: Target
    given: Mapping[str, Any]
    images: str
    opened: Callable[[Instances, Path], AbstractContextManager[Any]]

    def way(self, verb: str, name: str = "churn", **given: Any) -> Any:
        """Give the plan or the questions of a verb."""
        return getattr(self.target, verb)(name, deploy.settled(self.target, {**self.given, **given}))

    def image(self, bundle: Path) -> str:
        """Name the image that holds a bundle."""
        return f"{self.images}@{digest(bundle)}"

    def ship(self, bundles: tuple[Path, Path], home: Path) -> Callable[..., Plan]:
        """Give what plans to deploy one of two bundles."""

        def made(number: int = 0, **given: Any) -> Plan:
            told = {**self.given, "image": self.image(bundles[number]), **given}
            return planned(self.target, shipped(bundles[number], home), told)

        return made

    @contextmanager
    def cloud(
        self, instances: Instances, folder: Path, bundles: Iterable[Path], monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[Any]:
        """Run a cloud that has the images of bundles, and let clients find it."""
        with self.opened(instances, folder) as made:
            made.images |= {digest(each): each for each in bundles}
            for name, value in {**made.environ(), "NO_PROXY": "127.0.0.1,localhost"}.items():
                monkeypatch.setenv(name, value)
            yield made
            assert not made.wrong, made.wrong


class Contract(TargetContract):
    """The contract of targets, with the small model."""

    data: bytes

    @pytest.fixture(autouse=True)
    def _data(self, small: Small) -> None:
        self.data = small.bundle.read_bytes()

    def make_bundle(self) -> bytes:
        return self.data


@pytest.fixture(name="cloud")
def its_cloud(
    request: pytest.FixtureRequest,
    bundles: tuple[Path, Path],
    instances: Instances,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Any]:
    with request.module.TRIAL.cloud(instances, tmp_path, bundles, monkeypatch) as made:
        yield made


@pytest.fixture(name="ship")
def its_ship(request: pytest.FixtureRequest, bundles: tuple[Path, Path], small: Small) -> Any:
    return request.module.TRIAL.ship(bundles, small.home)


def interrupted(plans: Iterable[Callable[[], Plan]], at: int) -> int:
    """Interrupt one plan after another when its cloud has heard so many requests, and carry it out again.

    Gives how many requests the longest of them takes.
    """
    calls = 0
    for made in plans:
        session = Cut(at, after=True)
        try:
            run(made(), here(session))
        except KeyboardInterrupt:
            run(made(), here())
        calls = max(calls, session.sent)
    return calls
