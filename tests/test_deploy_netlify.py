"""The target netlify, against its API on loopback, held to Netlify's own description of it."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests

from ketch import deploy
from ketch.deploy import Shipment
from ketch.deploy.netlify import TARGET, policy_of
from ketch.errors import CloudRefused, DeployError, InputError, NoCredentials, UsageError
from ketch.steps import Hands, Plan, run, survey
from ketch.testing import TargetContract
from ketch.ui import site
from tests import clouds
from tests.clouds import KEY, Cut
from tests.doors import Small
from tests.netlify.fake import TOKEN, Netlify, netlify
from tests.running import ketch, serving


@pytest.fixture
def cloud() -> Iterator[Netlify]:
    with netlify() as made:
        yield made


@pytest.fixture(scope="module")
def shipments(bundles: tuple[Path, Path], small: Small) -> tuple[Shipment, Shipment]:
    """Two models under one name, one after the other."""
    return shipped(bundles[0], small.home), shipped(bundles[1], small.home)


def shipped(path: Path, home: Path) -> Shipment:
    made = clouds.shipped(path, home)
    return replace(made, site=lambda url="": site.site(made.opened, runtime=dict, url=url))


def hands(cloud: Netlify, session: requests.Session | None = None, told: list[str] | None = None) -> Hands:
    return clouds.hands({"NETLIFY_API_URL": cloud.url, "NETLIFY_AUTH_TOKEN": TOKEN}, session, told)


def planned(shipment: Shipment, **given: Any) -> Plan:
    return clouds.planned(TARGET, shipment, given)


def way(verb: str, **given: Any) -> Any:
    return getattr(TARGET, verb)("churn", deploy.settled(TARGET, given))


def live(cloud: Netlify) -> bytes:
    return requests.get(f"{cloud.sites['churn']['ssl_url']}/model.json", timeout=10).content


def model(shipment: Shipment) -> bytes:
    assert shipment.site is not None
    return shipment.site()["model.json"]


def test_a_page_is_published_updated_rolled_back_and_removed(
    cloud: Netlify, shipments: tuple[Shipment, Shipment]
) -> None:
    first, second = shipments
    got = run(planned(first), hands(cloud))
    assert got["smoke"] == cloud.sites["churn"]["ssl_url"]
    assert live(cloud) == model(first)

    uploads = [each for each in cloud.asked if each.startswith("PUT")]
    assert len(uploads) == len(planned(first).files) - 1, "every file but netlify.toml"
    cloud.asked.clear()
    run(planned(first), hands(cloud))
    assert not [each for each in cloud.asked if not each.startswith("GET")], "the same again does something"

    run(planned(second), hands(cloud))
    uploads = [each.rpartition("/files/")[2] for each in cloud.asked if each.startswith("PUT")]
    assert sorted(uploads) == ["model.json", "sw.js"], "files that are there already are sent again"
    assert live(cloud) == model(second)

    for _ in range(2):  # the second does nothing more
        run(way("rollback"), hands(cloud))
        assert live(cloud) == model(first)
    newest = list(cloud.deploys)[-1]
    run(way("rollback", to=newest), hands(cloud))
    run(way("rollback", to=newest), hands(cloud))
    assert live(cloud) == model(second)

    told = [line for each in way("status") for line in each.told(each.call.done(hands(cloud)))]
    assert told[0][0] == "ok"
    assert f"serves {second.label}" in told[0][1]
    assert len(told) == 3

    run(way("destroy"), hands(cloud))
    assert not cloud.sites
    run(way("destroy"), hands(cloud))
    told = list(way("status")[0].told(way("status")[0].call.done(hands(cloud))))
    assert told == [("--", "there is no site churn")]


def interrupted(shipment: Shipment, every: int) -> None:
    """Interrupt a deployment at one request after another, before and after it in turn, and run it again."""
    whole = Cut()
    with netlify() as cloud:
        run(planned(shipment), hands(cloud, whole))
    assert whole.sent > 20
    with netlify() as cloud:
        for at in range(1, whole.sent + 1, every):
            for kept in (cloud.sites, cloud.deploys, cloud.known):
                kept.clear()
            with pytest.raises(KeyboardInterrupt):
                run(planned(shipment), hands(cloud, Cut(at, after=bool(at % 2))))
            run(planned(shipment), hands(cloud, Cut()))
            assert live(cloud) == model(shipment)
            assert len(cloud.deploys) == 1, "a second deploy of the same files"


def test_what_was_interrupted_goes_on(shipments: tuple[Shipment, Shipment]) -> None:
    interrupted(shipments[0], every=5)  # tests/ship has every request


def test_what_is_not_served_as_it_was_sent_is_never_published(
    cloud: Netlify, shipments: tuple[Shipment, Shipment]
) -> None:
    first, second = shipments
    run(planned(first), hands(cloud))
    cloud.spoils = {"index.html": b"<!doctype html><script>snippet()</script>"}
    with pytest.raises(CloudRefused, match="not the file that was sent") as caught:
        run(planned(second), hands(cloud))
    assert "snippet" in caught.value.hint
    assert live(cloud) == model(first)


def test_a_page_that_is_wrong_when_live_is_taken_back(cloud: Netlify, shipments: tuple[Shipment, Shipment]) -> None:
    first, second = shipments
    run(planned(first), hands(cloud))
    told: list[str] = []
    held = hands(cloud, told=told)

    def spoil(line: str) -> None:
        told.append(line)
        if line.startswith("See whether the live page"):
            cloud.spoils = {"model.json": b"{}"}

    held.told = spoil
    with pytest.raises(CloudRefused, match=r"model\.json is not the file"):
        run(planned(second), held)
    cloud.spoils = {}
    assert live(cloud) == model(first)
    assert "Publish again what was live before" in told


def test_netlify_that_fails_is_told_in_words(cloud: Netlify, shipments: tuple[Shipment, Shipment]) -> None:
    cloud.breaks = "error"
    with pytest.raises(DeployError, match="too many files"):
        run(planned(shipments[0]), hands(cloud))
    run(planned(shipments[0]), hands(cloud))  # a new deploy, since the other one is broken
    assert len(cloud.deploys) == 2

    cloud.taken = ("taken",)
    with pytest.raises(CloudRefused, match="422") as caught:
        run(planned(shipments[0], site="taken"), hands(cloud))
    assert "--site" in caught.value.hint
    held = hands(cloud)
    held.environ = {"NETLIFY_API_URL": cloud.url}
    with pytest.raises(NoCredentials, match="NETLIFY_AUTH_TOKEN"):
        run(planned(shipments[0]), held)
    held.environ = {"NETLIFY_API_URL": cloud.url, "NETLIFY_AUTH_TOKEN": "wrong"}
    with pytest.raises(NoCredentials, match="401"):
        run(planned(shipments[0]), held)
    with pytest.raises(DeployError, match="no site"):
        run(way("rollback", site="elsewhere"), hands(cloud))


def test_there_is_nothing_to_go_back_to_at_first(cloud: Netlify, shipments: tuple[Shipment, Shipment]) -> None:
    run(planned(shipments[0]), hands(cloud))
    with pytest.raises(DeployError, match="no deploy to go back to"):
        run(way("rollback"), hands(cloud))
    with pytest.raises(DeployError, match="no deploy d77"):
        run(way("rollback", to="d77"), hands(cloud))


def test_a_survey_changes_nothing_and_tells_what_is_there(cloud: Netlify, shipments: tuple[Shipment, Shipment]) -> None:
    ahead = survey(planned(shipments[0], team="ana"), hands(cloud))
    assert ahead[0].state == "to do"
    assert ahead[0].call is not None
    assert "/ana/sites" in str(ahead[0].call.sent())
    assert not [each for each in cloud.asked if not each.startswith("GET")]
    run(planned(shipments[0], team="ana"), hands(cloud))
    again = {each.step.name: each.state for each in survey(planned(shipments[0]), hands(cloud))}
    assert again["site"] == again["deploy"] == again["publish"] == "there"


def test_the_page_may_ask_a_service_directly_or_by_way_of_its_own_host(shipments: tuple[Shipment, Shipment]) -> None:
    direct = planned(shipments[0], url="https://model.example.com")
    assert "connect-src 'self' https://model.example.com;" in policy_of({"_headers": direct.files["site/_headers"]})
    assert any("--cors https://churn.netlify.app" in note for note in direct.notes)
    own = planned(shipments[0], api="https://model.example.com/")
    assert own.files["site/_redirects"] == b"/api/*  https://model.example.com/:splat  200\n"
    assert "connect-src 'self';" in policy_of({"_headers": own.files["site/_headers"]})
    assert json.loads(own.files["site/model.json"])["url"] == "/api"
    with pytest.raises(UsageError, match="two ways"):
        planned(shipments[0], url="https://a.example.com", api="https://b.example.com")
    with pytest.raises(UsageError, match="no --site"):
        planned(shipments[0], site="A site")
    for wrong in ("ftp://x", "/elsewhere", "https://x y"):
        with pytest.raises(InputError):
            planned(shipments[0], api=wrong)


def test_a_service_behind_the_page_answers_through_it(
    cloud: Netlify, small: Small, shipments: tuple[Shipment, Shipment]
) -> None:
    with serving(small.bundle, home=small.home, KETCH_API_KEYS=KEY) as url:
        got = run(planned(shipments[0], api=url), hands(cloud))
        row = next(iter(json.loads(planned(shipments[0]).files["site/model.json"])["golden"]))
        asked = {"headers": {"Authorization": f"Bearer {KEY}"}, "json": [row["row"]], "timeout": 20}
        answer = requests.post(f"{got['smoke']}/api/predict", **asked)  # type: ignore[arg-type]
        assert answer.json()[0]["churn"] == row["answer"]["churn"]
        assert requests.post(f"{got['smoke']}/api/predict", json=[row["row"]], timeout=20).status_code == 401


def test_the_doctor_says_who_is_signed_in(cloud: Netlify) -> None:
    def lines(**given: Any) -> list[tuple[str, str]]:
        return [line for each in way("doctor", **given) for line in each.told(each.call.done(hands(cloud)))]

    assert lines() == [
        ("ok", "signed in as ana@example.com"),
        ("ok", "ana"),
        ("--", "churn is not there yet, or another account's"),
    ]
    assert lines(team="others")[1][0] == "mend"


def test_it_is_one_command(cloud: Netlify, small: Small, tmp_path: Path) -> None:
    environ: Any = {"NETLIFY_API_URL": cloud.url, "NETLIFY_AUTH_TOKEN": TOKEN}
    out = tmp_path / "out"
    done = ketch("deploy", "netlify", small.bundle, "--yes", "-o", out, "--json", home=small.home, **environ)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["url"] == cloud.sites["churn"]["ssl_url"]
    assert TOKEN not in done.stdout + done.stderr + (out / "plan.json").read_text()
    assert (out / "netlify.toml").is_file()
    assert (out / "site" / "index.html").is_file()


class TestNetlify(TargetContract):
    """The contract of targets."""

    target = TARGET
    made: Shipment

    @pytest.fixture(autouse=True)
    def _made(self, shipments: tuple[Shipment, Shipment]) -> None:
        type(self).made = shipments[0]

    def make_bundle(self) -> bytes:
        return type(self).made.data

    def _shipment(self) -> Shipment:
        return type(self).made
