"""The target cloudrun, against Google Cloud on loopback: its own descriptions, and services that really run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from ketch import deploy
from ketch.client import Client
from ketch.deploy.cloudrun import TARGET
from ketch.errors import CloudRefused, DeployError, KetchError, NoCredentials, UsageError
from ketch.steps import run, survey
from tests import clouds
from tests.clouds import KEY, Contract, Trial, answers, here, shipped, shown
from tests.clouds import its_cloud as its_cloud
from tests.clouds import its_ship as its_ship
from tests.discovery import description
from tests.doors import Small
from tests.fake_google import CALLER, PROJECT, Google, google

REGION = "europe-west1"
GIVEN: Mapping[str, Any] = {"project": PROJECT, "region": REGION, "public": True}
SERVICE = f"projects/{PROJECT}/locations/{REGION}/services/churn"
TRIAL = Trial(TARGET, GIVEN, f"{REGION}-docker.pkg.dev/{PROJECT}/ketch/churn", google)


def split(cloud: Google) -> dict[str, int]:
    return {each.get("tag", "-"): each.get("percent", 0) for each in cloud.services[SERVICE]["trafficStatuses"]}


def test_a_model_comes_to_cloud_run_and_answers_there(cloud: Google, ship: Any, bundles: Any, small: Small) -> None:
    cloud.throttle = 7
    told: list[str] = []
    assert {each.state for each in survey(ship(), here())} == {"to do", "then"}  # also where every API is off
    got = run(ship(), here(told=told))
    assert got["smoke"] == cloud.services[SERVICE]["uri"]
    assert got["key"] == KEY
    with Client(got["smoke"], key=KEY) as client:
        assert client.replay(shipped(bundles[0], small.home).opened) > 0
    template = cloud.services[SERVICE]["template"]
    assert KEY not in str(template)
    assert template["containers"][0]["env"][0]["valueSource"]["secretKeyRef"]["version"] == "latest"
    assert [each["percent"] for each in cloud.services[SERVICE]["traffic"]] == [100]
    assert KEY not in "".join(told)


def test_the_same_again_does_nothing(cloud: Google, ship: Any) -> None:
    run(ship(), here())
    before = len(cloud.calls)
    assert {each.state for each in survey(ship(), here()) if each.step.name not in {"trial", "smoke"}} == {"there"}
    run(ship(), here())
    changed = [each for each in cloud.calls[before:] if each.rpartition(".")[2] in {"create", "patch", "setIamPolicy"}]
    assert changed == []
    assert len(cloud.revisions) == 1


def test_a_new_revision_is_tried_before_it_is_live(cloud: Google, ship: Any, bundles: Any, small: Small) -> None:
    run(ship(), here())
    first = cloud.services[SERVICE]["traffic"][0]["revision"]
    got = run(ship(1), here())
    assert "/at/candidate/" in got["trial"]
    assert split(cloud) == {"-": 100, "previous": 0}
    assert any("image " in line for *_, line in answers(TRIAL.way("status"), here()))
    with Client(got["smoke"], key=KEY) as client:
        client.replay(shipped(bundles[1], small.home).opened)
    run(deploy.target("cloudrun").rollback("churn", deploy.settled(TARGET, GIVEN)), here())  # type: ignore[misc]
    assert cloud.services[SERVICE]["traffic"][0]["revision"] == first
    assert split(cloud) == {"-": 100, "withdrawn": 0}
    assert not any("image " in line for *_, line in answers(TRIAL.way("status"), here())), "it is another one's"
    run(TRIAL.way("rollback"), here())
    assert cloud.services[SERVICE]["traffic"][0]["revision"] == first  # once more changes nothing
    run(ship(1), here())  # and the other one can come again
    assert cloud.services[SERVICE]["traffic"][0]["revision"] != first
    assert len(cloud.revisions) == 2


def test_a_revision_that_does_not_start_leaves_the_one_before_alone(cloud: Google, ship: Any) -> None:
    run(ship(), here())
    with pytest.raises(CloudRefused, match="not found"):
        run(ship(1, image=f"{TRIAL.images}@sha256:{'0' * 64}"), here())
    assert split(cloud) == {"-": 100}
    run(ship(1), here())
    assert split(cloud) == {"-": 100, "previous": 0}


def test_another_model_than_shipped_never_gets_traffic(cloud: Google, ship: Any, bundles: Any) -> None:
    run(ship(), here())
    first = cloud.services[SERVICE]["traffic"][0]["revision"]
    with pytest.raises(KetchError, match="golden row"):
        run(ship(1, image=TRIAL.image(bundles[0])), here())
    assert split(cloud) == {"-": 100}
    assert cloud.services[SERVICE]["traffic"][0]["revision"] == first


def test_google_lets_in_whom_iam_names_where_the_service_is_not_public(cloud: Google, ship: Any) -> None:
    got = run(ship(public=False, invoker=f"serviceAccount:{CALLER}"), here())
    assert got["smoke"]
    assert cloud.secrets == {}
    assert cloud.services[SERVICE]["template"]["containers"][0]["env"] == [{"name": "KETCH_AUTH", "value": "platform"}]
    import requests

    assert requests.get(got["smoke"] + "/health/live", timeout=5).status_code == 401
    with pytest.raises(DeployError, match="door"):
        run(ship(1, public=True), here())


def test_a_change_by_somebody_else_is_worked_into_ours(cloud: Google, ship: Any) -> None:
    run(ship(), here())
    cloud.conflicts = 2
    run(ship(1), here())
    assert split(cloud) == {"-": 100, "previous": 0}


def test_a_service_that_others_made_is_left_alone(cloud: Google, ship: Any) -> None:
    run(ship(), here())
    cloud.services[SERVICE]["labels"] = {}
    with pytest.raises(DeployError, match="not made by ketch"):
        run(ship(1), here())
    with pytest.raises(DeployError, match="not made by ketch"):
        run(TRIAL.way("destroy"), here())


@pytest.mark.parametrize("at", [12, 26])
def test_what_was_interrupted_goes_on(cloud: Google, ship: Any, at: int) -> None:
    interrupted(cloud, ship, at)


def interrupted(cloud: Google, ship: Any, at: int) -> int:
    """Interrupt first one deployment, then another over it; give how many calls they take."""
    calls = clouds.interrupted((ship, lambda: ship(1)), at)
    assert sorted(split(cloud).values()) == [0, 100]
    assert len(cloud.revisions) == 2
    return calls


def test_destroy_leaves_nothing_of_it(cloud: Google, ship: Any) -> None:
    run(ship(), here())
    plan = TRIAL.way("destroy")
    run(plan, here())
    assert (cloud.services, cloud.secrets, cloud.accounts, cloud.revisions) == ({}, {}, {}, {})
    run(plan, here())


def test_questions_are_answered_by_reading_only(cloud: Google, ship: Any) -> None:
    run(ship(), here())
    cloud.spreading.clear()
    before = len(cloud.calls)
    status = answers(TRIAL.way("status"), here())
    assert status[0][1:] == ("ok", f"{cloud.services[SERVICE]['uri']}: ready")
    assert [each[2][-5:] for each in answers(TRIAL.way("logs"), here())] == ["first", "econd"]
    told = {title: (state, text) for title, state, text in answers(TRIAL.way("doctor", ""), here())}
    assert told["Signed in"] == ("ok", CALLER)
    assert told["Permissions"] == ("mend", "missing: secretmanager.secrets.create")
    assert told["Quotas"][1].endswith("20,000")
    assert told["Region"] == ("ok", f"Region {REGION}")
    verbs = {each.rpartition(".")[2] for each in cloud.calls[before:]}
    assert verbs <= {"get", "list", "batchGet", "testIamPermissions", "getBillingInfo"}


def test_a_plan_shows_no_key_and_takes_only_sane_options(ship: Any) -> None:
    plan = ship()
    assert KEY not in shown(plan)
    for wrong in (
        {"project": ""},
        {"cpu": "three"},
        {"cpu": "0.5"},
        {"memory": "1"},
        {"invoker": "ana"},
        {"public": True, "invoker": "user:ana@example.com"},
        {"image": "churn:latest"},
    ):
        with pytest.raises(UsageError):
            ship(**wrong)


def test_the_file_for_gcloud_is_what_its_api_takes(ship: Any) -> None:
    service = yaml.safe_load(ship().files["service.yaml"])
    description("run.v1").require({"$ref": "Service"}, service, "service.yaml", asked=True)
    service["spec"]["template"]["spec"]["containers"][0]["probess"] = {}
    with pytest.raises(Exception, match="probess"):
        description("run.v1").require({"$ref": "Service"}, service, "service.yaml", asked=True)


def test_nobody_is_signed_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ship: Any) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    with pytest.raises(NoCredentials) as caught:
        run(ship(), here())
    assert "gcloud auth application-default login" in caught.value.hint


def test_where_signing_in_cannot_be_asked_the_network_is_named(
    cloud: Google, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ship: Any
) -> None:
    path = tmp_path / "unreachable.json"
    path.write_text(cloud.credentials().read_text().replace(cloud.url, "http://127.0.0.1:1"))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    with pytest.raises(CloudRefused, match="reached to sign in: Conn") as caught:
        run(ship(), here())
    assert not isinstance(caught.value, NoCredentials)


class TestCloudRun(Contract):
    target = TARGET
    options = GIVEN
