"""Kubernetes: manifests that published schemas and the restricted standard take, and plans made of names alone."""

import copy
from collections.abc import Mapping
from typing import Any

import pytest
import yaml

from ketch import bundle, deploy
from ketch.deploy import Shipment, manifests
from ketch.deploy.kubernetes import TARGET, holds, rolled_out
from ketch.errors import DeployError, UsageError
from ketch.steps import Secret
from tests.clouds import Contract
from tests.cluster import EXTENSION, VERSION, faults, unrestricted
from tests.doors import Small

IMAGE = "registry.example/churn@sha256:" + "a" * 64
KEY = "a-key-that-callers-have"
PLAIN: Mapping[str, Any] = {"image": IMAGE}
FULL: Mapping[str, Any] = {
    "image": IMAGE,
    "callers": "shop, crm",
    "log_secret": "log",
    "namespace": "models",
    "pull_secret": "registry",
}
RUNTIME: Mapping[str, Any] = {"image": IMAGE, "kserve": "runtime", "storage": "s3://models/churn.ketch"}
PREDICTOR: Mapping[str, Any] = {"image": IMAGE, "kserve": "predictor"}
# KServe 0.20: what a runtime has of a PodSpec, and of its own
RUNTIME_POD = {"containers", "volumes", "nodeSelector", "affinity", "tolerations", "labels", "annotations"}
RUNTIME_OWN = {"supportedModelFormats", "protocolVersions", "multiModel"}


def chosen(given: Mapping[str, Any]) -> dict[str, Any]:
    return deploy.settled(TARGET, given)


def documents(given: Mapping[str, Any], name: str = "churn") -> dict[str, Any]:
    made = manifests.manifests(name, IMAGE, chosen(given), "0123456789ab")
    return {each["kind"]: each for each in (manifests.namespace(chosen(given)), *made)}


def shipped(small: Small) -> Shipment:
    data = small.bundle.read_bytes()
    return Shipment("churn", bundle.read(data, "churn"), data, Secret(KEY))


class TestKubernetes(Contract):
    target = TARGET
    options = PLAIN


# ---- manifests ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["1.25.0", "1.29.0", "1.33.0", VERSION])
@pytest.mark.parametrize("given", [PLAIN, FULL], ids=["plain", "full"])
def test_every_version_of_kubernetes_takes_the_manifests(given: Mapping[str, Any], version: str) -> None:
    for kind, each in documents(given).items():
        assert not faults(each, version), kind


def test_the_check_finds_what_is_wrong() -> None:
    wrong = copy.deepcopy(documents(PLAIN)["Deployment"])
    pod = wrong["spec"]["template"]["spec"]
    wrong["spec"]["minReadySeconds"] = "2"
    pod["containers"][0]["resources"]["limits"]["memory"] = "256Mib"
    pod["containers"][0]["readinesProbe"] = {}
    pod["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    pod["securityContext"]["runAsNonRoot"] = pod["containers"][0]["securityContext"]["runAsNonRoot"] = False
    assert len(faults(wrong)) == 3
    assert unrestricted(pod) == ["service: allowPrivilegeEscalation", "service: runAsNonRoot"]


@pytest.mark.parametrize("given", [PLAIN, FULL, PREDICTOR, RUNTIME], ids=["plain", "full", "predictor", "runtime"])
def test_pods_keep_the_restricted_standard(given: Mapping[str, Any]) -> None:
    pod = pod_of(documents(given))
    assert not unrestricted(pod)
    only = pod["containers"][0]
    assert only["securityContext"]["readOnlyRootFilesystem"] is True
    assert only["resources"]["limits"] == {"memory": only["resources"]["requests"]["memory"]}
    assert pod["automountServiceAccountToken"] is False
    assert not any("KEYS" in each["name"] and "FILE" not in each["name"] for each in only["env"])
    drained = manifests.SLEEP + manifests.DRAIN + manifests.DEADLINE
    assert pod["terminationGracePeriodSeconds"] > drained


def pod_of(found: Mapping[str, Any]) -> dict[str, Any]:
    if "Deployment" in found:
        return dict(found["Deployment"]["spec"]["template"]["spec"])
    predictor = found["InferenceService"]["spec"]["predictor"]
    runtime = found.get("ServingRuntime", {"spec": {}})["spec"]
    return {key: value for key, value in {**predictor, **runtime}.items() if key not in EXTENSION | RUNTIME_OWN}


@pytest.mark.parametrize("given", [PREDICTOR, RUNTIME], ids=["predictor", "runtime"])
def test_kserve_takes_what_is_written_for_it(given: Mapping[str, Any]) -> None:
    """KServe 0.20 takes a whole PodSpec beside a few fields of its own: each part is held against its schema."""
    found = documents(given)
    for kind in ("ServiceAccount", "NetworkPolicy", "PodDisruptionBudget"):
        assert not faults(found[kind]), kind
    service = found["InferenceService"]
    assert service["apiVersion"] == "serving.kserve.io/v1beta1"
    predictor = service["spec"]["predictor"]
    own = {key: value for key, value in predictor.items() if key in EXTENSION}
    assert {"minReplicas", "maxReplicas", "scaleTarget"} <= {
        key for key, value in own.items() if isinstance(value, int)
    }
    assert own["scaleMetric"] in {"cpu", "memory", "concurrency", "rps"}
    assert not faults({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": pod_of(found)})
    if given is PREDICTOR:
        assert predictor["containers"][0]["name"] == "kserve-container"
        assert "ServingRuntime" not in found
        return
    runtime = found["ServingRuntime"]
    assert runtime["apiVersion"] == "serving.kserve.io/v1alpha1"
    assert set(runtime["spec"]) <= RUNTIME_POD | RUNTIME_OWN
    assert predictor["model"]["runtime"] == runtime["metadata"]["name"]
    assert predictor["model"]["modelFormat"]["name"] == runtime["spec"]["supportedModelFormats"][0]["name"]
    assert runtime["spec"]["containers"][0]["args"] == ["serve", "/mnt/models/churn.ketch"]


def test_the_folder_can_be_applied_by_hand_and_holds_no_key(small: Small) -> None:
    plan = TARGET.plan(shipped(small), chosen(FULL))
    read = {path: yaml.safe_load(data) for path, data in plan.files.items()}
    wanted = documents(FULL)["Deployment"]
    wanted["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/version"] = shipped(small).opened.sha256[:12]
    assert read["deployment.yaml"]["spec"] == wanted["spec"]
    assert sorted(read["kustomization.yaml"]["resources"]) == sorted(read.keys() - {"kustomization.yaml"})
    assert b"kubectl create secret generic churn-key --namespace models" in plan.files["kustomization.yaml"]
    assert not [path for path, data in plan.files.items() if KEY.encode() in data]


def test_an_image_that_is_still_to_be_pushed_stands_in_the_folder_by_its_tag(small: Small) -> None:
    ship = shipped(small)
    plan = TARGET.plan(ship, chosen({"registry": "registry.example/models/churn"}))
    tag = f"registry.example/models/churn:{ship.opened.sha256[:12]}-"
    deployment = yaml.safe_load(plan.files["deployment.yaml"])
    assert deployment["spec"]["template"]["spec"]["containers"][0]["image"].startswith(tag)
    assert [each.name for each in plan.steps][2] == "image"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "Where is the image?"),
        ({"image": IMAGE, "registry": "r/churn"}, "Where is the image?"),
        ({"image": IMAGE, "memory": "256Mib"}, "no --memory"),
        ({"image": IMAGE, "cpu": "lots"}, "no --cpu"),
        ({"image": IMAGE, "namespace": "a b"}, "no namespace"),
        ({"image": IMAGE, "callers": "shop,A"}, "no namespace"),
        ({"image": IMAGE, "replicas": 4, "max_replicas": 3}, "no less"),
        ({"image": IMAGE, "memory": "1"}, "no --memory"),
        ({"image": "a bad image"}, "no --image"),
        ({"registry": "nowhere"}, "no --registry"),
        ({"image": IMAGE, "log_secret": "a b"}, "no --log-secret"),
        ({"image": IMAGE, "pull_secret": "A"}, "no --pull-secret"),
        ({"image": IMAGE, "url": "ftp://shop"}, "no --url"),
        ({"image": IMAGE, "kserve": "runtime"}, "belong together"),
    ],
)
def test_options_that_do_not_fit_are_refused_in_words(given: Mapping[str, Any], told: str, small: Small) -> None:
    with pytest.raises(UsageError, match=told):
        TARGET.plan(shipped(small), chosen(given))


def test_what_an_option_says_stands_in_the_manifests() -> None:
    plain, full = documents(PLAIN), documents(FULL)
    assert full["ServiceAccount"]["imagePullSecrets"] == [{"name": "registry"}]
    assert "imagePullSecrets" not in plain["ServiceAccount"]
    allowed = full["NetworkPolicy"]["spec"]["ingress"][0]["from"]
    names = [each["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"] for each in allowed[1:]]
    assert names == ["shop", "crm"]
    assert allowed[0] == {"podSelector": {}}
    out = [[each["port"] for each in rule["ports"]] for rule in full["NetworkPolicy"]["spec"]["egress"]]
    assert out == [[53, 53], [5432]]
    assert len(plain["NetworkPolicy"]["spec"]["egress"]) == 1
    environ = full["Deployment"]["spec"]["template"]["spec"]["containers"][0]["env"]
    assert {"name": "KETCH_LOG", "valueFrom": {"secretKeyRef": {"name": "log", "key": "url"}}} in environ
    assert "replicas" not in plain["Deployment"]["spec"], "that is for the autoscaler to say"


def test_what_the_cluster_adds_is_no_difference_and_what_it_lacks_is() -> None:
    wanted = {"a": [{"b": 1}], "c": "d"}
    assert holds({"a": [{"b": 1, "added": 2}], "c": "d", "more": 0}, wanted)
    for found in (None, {}, {"a": [], "c": "d"}, {"a": [{"b": 2}], "c": "d"}, {"a": [{"b": 1}, {}], "c": "d"}):
        assert not holds(found, wanted)


def test_a_rollout_that_never_ends_is_told_by_its_reason() -> None:
    one = {"metadata": {"generation": 2}, "spec": {"replicas": 2}, "status": {"observedGeneration": 1}}
    assert rolled_out(one, [], "churn") is None
    one["status"] = {"observedGeneration": 2, "replicas": 3, "updatedReplicas": 2, "availableReplicas": 2}
    assert rolled_out(one, [], "churn") is None
    one["status"] |= {"replicas": 2}
    assert rolled_out(one, [], "churn") is one
    waits = {"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "log" not found'}}
    with pytest.raises(DeployError, match='secret "log" not found'):
        rolled_out(one, [{"status": {"containerStatuses": [{"state": waits}]}}], "churn")
