"""Compose: one file, the same for the same, hardened, that no secret stands in; and a dashboard of what is counted."""

import base64
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from ketch import bundle, deploy
from ketch.deploy import Shipment, compose, stack
from ketch.deploy.compose import TARGET, Environ, packed, secrets_of, state_of, unpacked
from ketch.errors import UsageError
from ketch.serve.metrics import GAUGES, HELP
from ketch.steps import Secret, shown
from tests.clouds import Contract
from tests.doors import Small

IMAGES = {role: f"registry.example/{role}:1" for role in stack.ROLES}
SECONDS = {f"ketch_seconds_{each}" for each in ("bucket", "count", "sum")}


def chosen(**given: Any) -> dict[str, Any]:
    return deploy.settled(TARGET, given)


def services(**given: Any) -> dict[str, Any]:
    return dict(yaml.safe_load(stack.composed("churn", IMAGES, chosen(**given)))["services"])


class TestCompose(Contract):
    target = TARGET


# ---- the file ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", stack.ROLES)
def test_every_container_has_as_little_as_it_needs(role: str) -> None:
    found = services(grafana_port=3000)[role]
    assert found["read_only"] is True
    assert found["cap_drop"] == ["ALL"]
    assert found["security_opt"] == ["no-new-privileges:true"]
    assert {"mem_limit", "pids_limit", "healthcheck"} <= found.keys()
    assert found["restart"] == "unless-stopped"
    assert not {"privileged", "network_mode", "pid", "ipc", "cap_add", "devices"} & found.keys()
    mounted = [each.partition(":")[0] for each in found.get("volumes", ())]
    assert set(mounted) <= {role}, "nothing of this machine is mounted"


def test_only_service_and_page_are_published_and_on_loopback() -> None:
    published = {role: each["ports"] for role, each in services().items() if each.get("ports")}
    assert published == {"service": ["127.0.0.1:9696:9696"], "page": ["127.0.0.1:8501:9696"]}
    whole = yaml.safe_load(stack.composed("churn", IMAGES, chosen()))
    inside = {name for name, each in whole["networks"].items() if (each or {}).get("internal")}
    assert inside == {"log", "watch"}
    for role in ("database", "prometheus", "grafana"):
        assert set(whole["services"][role]["networks"]) <= inside
    assert services(grafana_port=3000)["grafana"]["ports"] == ["127.0.0.1:3000:3000"]
    assert services(host="::1")["service"]["ports"] == ["[::1]:9696:9696"]


def test_no_secret_has_a_value_or_a_file() -> None:
    text = stack.composed("churn", IMAGES, chosen())
    for each in services().values():
        told = {name: value for name, value in each["environment"].items() if re.search("KEY|PASSWORD|LOG", name)}
        assert all(re.search(r"\$\{[A-Z_]+:\?", value) for value in told.values()), told
    assert "secrets:" not in text
    assert "env_file" not in text


@pytest.mark.parametrize("without", ["page", "grafana", "prometheus,grafana", "page,prometheus,grafana"])
def test_what_is_left_out_is_asked_for_by_nobody(without: str) -> None:
    whole = yaml.safe_load(stack.composed("churn", IMAGES, chosen(without=without)))
    left = {*stack.ROLES} - set(without.split(","))
    assert set(whole["services"]) == left
    assert all(set(each.get("depends_on", ())) <= left for each in whole["services"].values())
    assert set(whole["volumes"]) == left - {"service", "page"}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"without": "database"}, "cannot leave out"),
        ({"without": "prometheus"}, "Grafana shows"),
        ({"port": 8501}, "one of its own"),
        ({"page_port": 70000}, "one of its own"),
        ({"port": 0}, "one of its own"),
        ({"host": "nonsense!"}, "no address"),
        ({"memory": "lots"}, "no --memory"),
        ({"memory": "1"}, "no --memory"),
    ],
)
def test_options_that_do_not_fit_are_refused_in_words(given: Mapping[str, Any], told: str, small: Small) -> None:
    data = small.bundle.read_bytes()
    ship = Shipment("churn", bundle.read(data, "churn"), data, Secret("k" * 32), context=lambda **words: None)
    with pytest.raises(UsageError, match=told):
        TARGET.plan(ship, chosen(**given))


def test_an_image_is_named_by_all_that_it_is_made_of(small: Small, tmp_path: Path) -> None:
    other = Small.pack(tmp_path, seed=5)

    def images(one: Small, **given: Any) -> list[str]:
        data = one.bundle.read_bytes()
        plan = TARGET.plan(Shipment("churn", bundle.read(data, "churn"), data, Secret("k" * 32)), chosen(**given))
        found = yaml.safe_load(plan.files["compose.yaml"])["services"]
        return [found[role]["image"] for role in ("service", "page")]

    first = images(small)
    assert images(small) == first
    assert images(other)[0] != first[0]
    assert images(other)[1] == first[1], "the page lets the service answer, whatever the model is"
    assert not {*images(small, base_image="other:1")} & {*first}


def test_the_specification_of_compose_takes_the_file() -> None:
    spec: Any = pytest.importorskip("compose_spec", reason="compose-spec comes with the dependency group test")
    read = spec.PyCompose.from_yaml(stack.composed("churn", IMAGES, chosen(grafana_port=3000)))
    assert sorted(read.service_names()) == sorted(stack.ROLES)
    with pytest.raises(ValueError, match="restart"):
        spec.PyCompose.from_yaml("services:\n  a:\n    image: a\n    restart: perhaps\n")


# ---- what stands with the containers -------------------------------------------------------------------


def container(role: str, *environ: str, **labels: str) -> list[dict[str, Any]]:
    told = {"Env": list(environ), "Labels": {f"ketch.{name}": value for name, value in labels.items()}, "Image": role}
    return [{"Config": told, "State": {"Running": True, "Health": {"Status": "healthy"}}}]


def test_secrets_are_read_back_from_the_containers_that_have_them() -> None:
    found = {
        "service": container("service", "KETCH_API_KEYS=the-key-of-callers,sha256:ab;name=metrics", "PATH=/bin"),
        "database": container("database", "POSTGRES_PASSWORD=one=two"),
        "prometheus": None,
    }
    known = secrets_of(found)
    assert {name: str.__str__(value) for name, value in known.items()} == {
        "key": "the-key-of-callers",
        "database": "one=two",
    }
    assert shown(known) == {"key": "(secret)", "database": "(secret)"}


def test_a_release_knows_the_one_before_it_and_a_rollback_goes_back_once() -> None:
    kept = {"key": Secret("a-key-of-callers"), "metrics": Secret("a-key-of-metrics"), "database": Secret("d")}
    first = Environ({"service": None}, kept, "one").settled()
    assert (unpacked(first["RELEASE"]), first["PREVIOUS"]) == ("one", "")
    there = {"service": container("service", release=first["RELEASE"], previous=first["PREVIOUS"])}
    assert Environ(there, kept, "one").settled() == first, "the same again changes nothing"
    second = Environ(there, kept, "two").settled()
    assert unpacked(second["PREVIOUS"]) == "one"
    there = {"service": container("service", release=second["RELEASE"], previous=second["PREVIOUS"])}
    back = Environ(there, kept, unpacked(second["PREVIOUS"])).settled(back=True)
    assert (unpacked(back["RELEASE"]), back["PREVIOUS"]) == ("one", compose.BACK)


def test_the_key_of_metrics_opens_nothing_else_and_is_known_by_its_sum_alone() -> None:
    from ketch.trust import calling

    kept = {"key": Secret("a-key-of-callers"), "metrics": Secret("a-key-of-metrics")}
    words = Environ({}, kept, "one").settled()["CALLING_KEYS"].split(",")
    assert "a-key-of-metrics" not in words[1]
    read = [calling.key_of(each) for each in words]
    assert [each.scopes == calling.USUAL for each in read] == [True, False]
    assert read[1].scopes == {"metrics"}
    assert read[1].digest == calling.digest_of("a-key-of-metrics")


def test_a_packed_release_is_one_word_and_the_same_every_time() -> None:
    text = stack.composed("churn", IMAGES, chosen())
    assert packed(text) == packed(text)
    assert unpacked(packed(text)) == text
    assert base64.b64decode(packed(text), validate=True)
    assert "$" not in packed(text)


@pytest.mark.parametrize(
    ("state", "restarts", "wanted"),
    [
        ({"Running": True, "Health": {"Status": "healthy"}}, 0, "healthy"),
        ({"Running": True, "Health": {"Status": "starting"}}, 0, "starting"),
        ({"Running": True, "Health": {"Status": "unhealthy"}}, 0, "unhealthy"),
        ({"Running": True, "Healthcheck": {"Status": "healthy"}}, 0, "healthy"),  # Podman 4 calls it so
        ({"Running": True}, 0, "healthy"),
        ({"Running": False, "Status": "created"}, 0, "starting"),
        ({"Running": False, "Restarting": True, "Status": "restarting"}, 2, "starting"),
        ({"Running": False, "Restarting": True, "Status": "restarting"}, 5, "restarts"),
        ({"Running": False, "Status": "exited"}, 0, "exited"),
    ],
)
def test_how_a_container_is_is_said_in_a_word(state: Mapping[str, Any], restarts: int, wanted: str) -> None:
    assert state_of([{"State": state, "RestartCount": restarts}]) == wanted
    assert state_of(None) == "absent"


# ---- the dashboard -------------------------------------------------------------------------------------


def test_the_dashboard_shows_what_the_service_counts() -> None:
    dashboard = json.loads(stack.settings()[stack.DASHBOARD])
    exposed = {name if name in GAUGES else f"{name}_total" for name in HELP} - {"ketch_seconds_total"} | SECONDS
    expressions = [each["expr"] for panel in dashboard["panels"] for each in panel["targets"]]
    used = {name for each in expressions for name in re.findall(r"\bketch_\w+", each)}
    assert used <= exposed, used - exposed
    assert {re.sub("_(total|bucket|count|sum)$", "", each) for each in used} >= HELP.keys() - {"ketch_shadowed"}
    assert len({each["id"] for each in dashboard["panels"]}) == len(dashboard["panels"])
    assert all(each["title"] for each in dashboard["panels"])


def test_no_panel_of_the_dashboard_covers_another() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(stack.settings()[stack.DASHBOARD])["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
