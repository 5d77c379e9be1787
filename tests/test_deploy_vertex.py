"""The target vertex, against Google Cloud on loopback: its own descriptions, and models that really run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ketch.deploy.vertex import TARGET
from ketch.errors import CloudRefused, DeployError, KetchError, UsageError
from ketch.steps import run, survey
from tests import clouds
from tests.clouds import Contract, Trial, answers, here
from tests.clouds import its_cloud as its_cloud
from tests.clouds import its_ship as its_ship
from tests.fake_google import PROJECT, Google, google

REGION = "us-central1"
GIVEN: Mapping[str, Any] = {"project": PROJECT}
ENDPOINT = f"projects/{PROJECT}/locations/{REGION}/endpoints/churn"
MODEL = f"projects/{PROJECT}/locations/{REGION}/models/churn"
TRIAL = Trial(TARGET, GIVEN, f"{REGION}-docker.pkg.dev/{PROJECT}/ketch/churn", google)


def live(cloud: Google) -> dict[str, int]:
    """Give the traffic by the versions that are deployed."""
    endpoint = cloud.endpoints[ENDPOINT]
    split = endpoint.get("trafficSplit", {})
    return {each["modelVersionId"]: split.get(each["id"], 0) for each in endpoint.get("deployedModels", ())}


def test_a_model_comes_to_an_endpoint_which_gives_its_golden_predictions(cloud: Google, ship: Any) -> None:
    cloud.throttle = 9
    assert {each.state for each in survey(ship(), here())} >= {"to do", "then"}
    got = run(ship(), here())
    assert got["smoke"].endswith(f"{ENDPOINT}:predict")
    assert live(cloud) == {"1": 100}
    before = len(cloud.calls)
    assert {each.state for each in survey(ship(), here()) if each.step.name not in {"trial", "smoke"}} == {"there"}
    run(ship(), here())
    assert {each.rpartition(".")[2] for each in cloud.calls[before:]} <= {"get", "list", "batchGet", "predict"}


def test_a_new_version_takes_over_and_the_one_before_comes_back(cloud: Google, ship: Any) -> None:
    run(ship(), here())
    run(ship(1), here())
    assert live(cloud) == {"2": 100}
    run(TRIAL.way("rollback"), here())
    assert live(cloud) == {"1": 100}
    run(TRIAL.way("rollback"), here())
    assert live(cloud) == {"1": 100}  # once more changes nothing
    run(ship(1), here())
    assert live(cloud) == {"2": 100}


def test_the_version_before_may_stay_deployed(cloud: Google, ship: Any) -> None:
    run(ship(), here())
    run(ship(1, keep_previous=True), here())
    assert live(cloud) == {"1": 0, "2": 100}
    before = len(cloud.calls)
    run(TRIAL.way("rollback"), here())
    assert live(cloud) == {"1": 100}
    assert "aiplatform.projects.locations.endpoints.deployModel" not in cloud.calls[before:]


def test_another_model_than_shipped_is_taken_away_again(cloud: Google, ship: Any, bundles: tuple[Path, Path]) -> None:
    run(ship(), here())
    with pytest.raises(KetchError, match="golden row"):
        run(ship(1, image=TRIAL.image(bundles[0])), here())
    assert live(cloud) == {"1": 100}
    with pytest.raises(CloudRefused, match="not found"):
        run(ship(1, image=f"{TRIAL.images}@sha256:{'0' * 64}"), here())
    assert live(cloud) == {"1": 100}


@pytest.mark.parametrize("at", [14])
def test_what_was_interrupted_goes_on(cloud: Google, ship: Any, at: int) -> None:
    interrupted(cloud, ship, at)


def interrupted(cloud: Google, ship: Any, at: int) -> int:
    """Interrupt a deployment, one over it, and the way back; give how many calls they take."""
    calls = clouds.interrupted((ship, lambda: ship(1), lambda: TRIAL.way("rollback")), at)
    assert list(live(cloud).values()) == [100]
    aliases = [each for each in cloud.models[MODEL] if each["versionAliases"]]
    assert live(cloud) == {aliases[0]["versionId"]: 100}
    return calls


def test_destroy_leaves_nothing_of_it(cloud: Google, ship: Any) -> None:
    run(ship(), here())
    run(TRIAL.way("destroy"), here())
    assert (cloud.endpoints, cloud.models, cloud.accounts) == ({}, {}, {})
    run(TRIAL.way("destroy"), here())


def test_questions_are_answered_by_reading_only(cloud: Google, ship: Any) -> None:
    run(ship(), here())
    cloud.spreading.clear()
    status = answers(TRIAL.way("status"), here())
    assert [each[1:] for each in status][1:] == [("ok", "version 1: 100 %")]
    assert len(answers(TRIAL.way("logs"), here())) == 2
    assert answers(TRIAL.way("doctor", ""), here())


def test_what_others_made_is_left_alone(cloud: Google, ship: Any) -> None:
    run(ship(), here())
    cloud.endpoints[ENDPOINT]["labels"] = {}
    for plan in (ship(1), TRIAL.way("destroy")):
        with pytest.raises(DeployError, match="not made by ketch"):
            run(plan, here())
    with pytest.raises(UsageError, match="max-replicas"):
        ship(min_replicas=3)
    with pytest.raises(UsageError, match="no --machine"):
        ship(machine="a machine")


class TestVertex(Contract):
    target = TARGET
    options = GIVEN
