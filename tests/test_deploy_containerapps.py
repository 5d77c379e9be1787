"""The target containerapps, against Azure on loopback: its SDK's models, and apps that really run."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
import yaml
from azure.mgmt.appcontainers import ContainerAppsAPIClient, models

from ketch.client import Client
from ketch.deploy.containerapps import TARGET
from ketch.errors import DeployError, KetchError, NoCredentials, UsageError
from ketch.steps import run, survey
from tests import clouds
from tests.azure_models import Wrong, require
from tests.clouds import KEY, Contract, Cut, Trial, answers, here, shipped, shown
from tests.clouds import its_cloud as its_cloud
from tests.clouds import its_ship as its_ship
from tests.doors import Small
from tests.fake_azure import CALLER, REGISTRY, SUBSCRIPTION, Azure, azure

GIVEN: Mapping[str, Any] = {"subscription": SUBSCRIPTION, "location": "westeurope"}
GROUP = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/ketch-churn"
APP = f"{GROUP}/providers/Microsoft.App/containerApps/churn"
TRIAL = Trial(TARGET, {**GIVEN, "registry": REGISTRY}, "acme.azurecr.io/churn", azure)


def split(cloud: Azure) -> dict[str, int]:
    traffic = cloud.apps[APP].told["properties"]["configuration"]["ingress"]["traffic"]
    return {each.get("label", "-"): each["weight"] for each in traffic}


def live(cloud: Azure) -> str:
    return str(cloud.apps[APP].told["properties"]["configuration"]["ingress"]["traffic"][0]["revisionName"])


def test_a_model_comes_to_container_apps_and_answers_there(cloud: Azure, ship: Any, bundles: Any, small: Small) -> None:
    cloud.throttle = 7
    told: list[str] = []
    assert {each.state for each in survey(ship(), here())} >= {"to do", "then"}
    got = run(ship(), here(told=told))
    assert got["smoke"] == f"https://{cloud.host}/at/-/churn"
    with Client(got["smoke"], key=KEY) as client:
        assert client.replay(shipped(bundles[0], small.home).opened) > 0
    assert KEY not in "".join(told)
    assert cloud.apps[APP].secrets == {"api-keys": KEY}
    assert {each.state for each in survey(ship(), here()) if each.step.name not in {"trial", "smoke"}} == {"there"}
    before = len(cloud.calls)
    run(ship(), here())
    verbs = {each.partition(" ")[0] for each in cloud.calls[before:] if not each.endswith("listSecrets")}
    assert verbs == {"GET"}


def test_a_new_revision_is_tried_before_it_is_live(cloud: Azure, ship: Any) -> None:
    run(ship(), here())
    first = live(cloud)
    got = run(ship(1), here())
    assert f"/at/{live(cloud)}/" in got["trial"]
    assert split(cloud) == {"-": 100, "previous": 0}
    run(TRIAL.way("rollback"), here())
    run(TRIAL.way("rollback"), here())  # once more changes nothing
    assert live(cloud) == first
    assert split(cloud) == {"-": 100, "withdrawn": 0}
    run(ship(1), here())
    assert live(cloud) != first
    run(ship(1, concurrency=60), here())
    assert [each.active for each in cloud.apps[APP].revisions.values()] == [False, True, True]


def test_what_does_not_start_or_is_another_model_never_gets_traffic(cloud: Azure, ship: Any, bundles: Any) -> None:
    run(ship(), here())
    first = live(cloud)
    with pytest.raises(DeployError, match="ImagePullUnauthorized"):
        run(ship(1, image=f"{TRIAL.images}@sha256:{'0' * 64}"), here())
    with pytest.raises(KetchError, match="golden row"):
        run(ship(1, image=TRIAL.image(bundles[0])), here())
    assert live(cloud) == first
    run(ship(1), here())
    assert split(cloud) == {"-": 100, "previous": 0}


@pytest.mark.parametrize("at", [17])
def test_what_was_interrupted_goes_on(cloud: Azure, ship: Any, at: int) -> None:
    interrupted(cloud, ship, at)


def interrupted(cloud: Azure, ship: Any, at: int) -> int:
    """Interrupt a deployment, one over it, and the way back; give how many calls they take."""
    calls = clouds.interrupted((ship, lambda: ship(1), lambda: TRIAL.way("rollback")), at)
    assert split(cloud) == {"-": 100, "withdrawn": 0}
    assert len(cloud.apps[APP].revisions) == 2
    return calls


def test_another_deployment_under_way_is_waited_for(cloud: Azure, ship: Any) -> None:
    session = Cut(22, after=True)
    with pytest.raises(KeyboardInterrupt):
        run(ship(), here(session))
    while APP not in cloud.apps:  # until the app is being made
        session = Cut(session.at + 1, after=True)
        with pytest.raises(KeyboardInterrupt):
            run(ship(), here(session))
    cloud.apps[APP].looks = 12
    run(ship(1), here())
    assert [each.rpartition("--")[2][0] for each in cloud.apps[APP].revisions] == ["r", "r"]
    assert split(cloud)["-"] == 100


def test_logs_are_kept_where_that_is_wanted(cloud: Azure, ship: Any) -> None:
    plan = ship(log_analytics=True)
    run(plan, here())
    environment = cloud.resources[f"{GROUP}/providers/Microsoft.App/managedEnvironments/churn"]
    kept = environment["properties"]["appLogsConfiguration"]["logAnalyticsConfiguration"]
    assert kept == {"customerId": "workspace-1", "sharedKey": "key-of-the-workspace"}
    assert "azure.logs.gib" in plan.uses


def test_destroy_leaves_nothing_of_it(cloud: Azure, ship: Any) -> None:
    run(ship(), here())
    run(TRIAL.way("destroy"), here())
    assert list(cloud.resources) == [REGISTRY]
    assert cloud.apps == {}
    run(TRIAL.way("destroy"), here())


def test_a_group_that_others_made_stays(cloud: Azure, ship: Any) -> None:
    cloud.resources[GROUP] = {"id": GROUP, "name": "ketch-churn", "location": "westeurope", "properties": {}}
    run(ship(), here())
    run(TRIAL.way("destroy"), here())
    assert sorted(cloud.resources) == sorted([REGISTRY, GROUP])
    run(ship(), here())
    cloud.apps[APP].told["tags"] = {}
    with pytest.raises(DeployError, match="not made by ketch"):
        run(ship(1), here())
    run(TRIAL.way("destroy"), here())
    assert APP in cloud.apps


def test_questions_are_answered_by_reading_only(cloud: Azure, ship: Any) -> None:
    run(ship(), here())
    before = len(cloud.calls)
    status = answers(TRIAL.way("status", registry=""), here())
    assert status[0][1:] == ("ok", f"https://{cloud.host}/at/-/churn: succeeded")
    assert status[1][2].endswith("100 % Healthy")
    assert [each[2][-5:] for each in answers(TRIAL.way("logs", registry=""), here())] == ["first", "econd"]
    found = answers(TRIAL.way("doctor", registry=""), here())
    told = {title: (state, text) for title, state, text in found}
    assert told["Signed in"] == ("ok", CALLER)
    assert told["Permissions"] == ("mend", "missing: Microsoft.Authorization/roleAssignments/write")
    assert told["Quotas"] == ("ok", "Environments: 1 of 15")
    verbs = {each.partition(" ")[0] for each in cloud.calls[before:] if not each.endswith("getAuthtoken")}
    assert verbs == {"GET"}
    far = answers(TRIAL.way("doctor", registry="", location="brazilsouth"), here())
    assert ("Microsoft.App", "mend", "not in brazilsouth: give another --location") in far


def test_the_sdk_of_azure_reads_what_we_made(cloud: Azure, ship: Any) -> None:
    from azure.core.credentials import AccessToken
    from azure.core.pipeline.policies import SansIOHTTPPolicy

    class Signed(SansIOHTTPPolicy):  # type: ignore[type-arg]
        def on_request(self, request: Any) -> None:
            from ketch.deploy.azure import token

            request.http_request.headers["Authorization"] = f"Bearer {token(here())}"

    class Nobody:
        def get_token(self, *scopes: str, **more: Any) -> AccessToken:
            return AccessToken("x", 0)

    run(ship(), here())
    with ContainerAppsAPIClient(Nobody(), SUBSCRIPTION, base_url=cloud.url, authentication_policy=Signed()) as client:
        app: Any = client.container_apps.get("ketch-churn", "churn")
        revisions: list[Any] = list(client.container_apps_revisions.list_revisions("ketch-churn", "churn"))
    assert app.properties.template.containers[0].probes[0].http_get.path == "/health/ready"
    assert [each.properties.provisioning_state for each in revisions] == ["Provisioned"]


def test_the_files_are_what_azure_takes(ship: Any) -> None:
    plan = ship(image="", registry="")
    app = yaml.safe_load(plan.files["containerapp.yaml"])
    for name in ("name", "type"):
        assert app.pop(name)
    require(models.ContainerApp, app, "containerapp.yaml", asked=True)
    template = json.loads(plan.files["azuredeploy.json"])
    kinds = {each["type"]: each for each in template["resources"]}
    for kind, model in (("containerApps", models.ContainerApp), ("managedEnvironments", models.ManagedEnvironment)):
        inside = {k: v for k, v in kinds[f"Microsoft.App/{kind}"].items() if k in {"location", "tags", "properties"}}
        require(model, inside, kind, asked=True)
    assert template["parameters"]["apiKeys"] == {
        "type": "securestring",
        "metadata": {"description": "A long random key for callers"},
    }
    app["properties"]["template"]["containers"][0]["probess"] = []
    with pytest.raises(Wrong, match="probess"):
        require(models.ContainerApp, app, "containerapp.yaml", asked=True)


def test_a_plan_shows_no_key_and_takes_only_sane_options(ship: Any) -> None:
    assert KEY not in shown(ship())
    for wrong in (
        {"subscription": ""},
        {"max_replicas": 0},
        {"concurrency": 0},
        {"registry": "acme"},
        {"image": "x:1"},
    ):
        with pytest.raises(UsageError):
            ship(**wrong)


def test_nobody_is_signed_in(cloud: Azure, ship: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IDENTITY_HEADER", "wrong")
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "ManagedIdentityCredential")
    with pytest.raises(NoCredentials) as caught:
        run(ship(), here())
    assert "az login" in caught.value.hint


class TestContainerApps(Contract):
    target = TARGET
    options = GIVEN
