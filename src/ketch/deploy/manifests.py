"""What Kubernetes and KServe are given: objects as plain data, and as the files of a folder.

name, image, options --*manifests*--> documents --*files*--> YAML for `kubectl apply -k`
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from ketch import extras
from ketch.deploy import Options
from ketch.steps import Got, resolved

PORT: Final = 9696
KSERVE_PORT: Final = 8080  # where KServe looks unless it is told otherwise
KEYS: Final = "/run/secrets/ketch"  # where the Secret with the calling keys is mounted
DRAIN, DEADLINE, SLEEP = 1, 30, 5  # seconds: of the service, and before it is told to stop
GRACE: Final = SLEEP + DRAIN + DEADLINE + 10
ROLLS: Final = 600  # seconds in which a new version must be up
UID: Final = 10001
BACK_TO: Final = "ketch/rollback-to"  # label: where a rollback goes; an undo keeps labels, not annotations

Document = dict[str, Any]


def manifests(name: str, reference: str | Got, options: Options, version: str) -> list[Document]:
    """Write the objects of a deployment."""
    labels = {**selector(name), "app.kubernetes.io/managed-by": "ketch", "app.kubernetes.io/version": version}

    def document(
        api: str, kind: str, spec: Any = None, *, annotations: Any = None, marks: Any = None, **more: Any
    ) -> Document:
        meta: Document = {"name": name, "namespace": options["namespace"], "labels": {**labels, **(marks or {})}}
        meta |= {"annotations": annotations} if annotations else {}
        return {"apiVersion": api, "kind": kind, "metadata": meta, **({"spec": spec} if spec else {}), **more}

    pulls = {"imagePullSecrets": [{"name": options["pull_secret"]}]} if options["pull_secret"] else {}
    account = document("v1", "ServiceAccount", automountServiceAccountToken=False, **pulls)
    policy = document("networking.k8s.io/v1", "NetworkPolicy", _policy(name, options))
    budget = {"maxUnavailable": 1, "selector": {"matchLabels": pods(name, options)}}
    shared: list[Document] = [account, policy, document("policy/v1", "PodDisruptionBudget", budget)]
    if options["kserve"]:
        return [*shared, *_kserve(name, reference, options, document)]
    ports = [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}]
    service = {"type": "ClusterIP", "selector": selector(name), "ports": ports}
    return [
        *shared,
        document("v1", "Service", service),
        document("apps/v1", "Deployment", _deployment(name, reference, options, labels), marks={BACK_TO: ""}),
        document("autoscaling/v2", "HorizontalPodAutoscaler", _scaled(name, options)),
    ]


def callers(options: Options) -> list[str]:
    """List the namespaces whose pods may call."""
    return [each.strip() for each in options["callers"].split(",") if each.strip()]


def selector(name: str) -> dict[str, str]:
    """Give the labels by which the pods of a deployment are found."""
    return {"app.kubernetes.io/name": "ketch", "app.kubernetes.io/instance": name}


def pods(name: str, options: Options) -> dict[str, str]:
    """Give the labels that its pods have, by whoever makes them."""
    return {"serving.kserve.io/inferenceservice": name} if options["kserve"] else selector(name)


def _deployment(name: str, reference: str | Got, options: Options, labels: Mapping[str, str]) -> Document:
    """Write the Deployment; how many pods there are is the autoscaler's to say."""
    return {
        "selector": {"matchLabels": selector(name)},
        "revisionHistoryLimit": 5,
        "progressDeadlineSeconds": ROLLS // 2,
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        "template": {
            "metadata": {"labels": dict(labels)},
            "spec": {
                **_pod(name, options),
                "containers": [_container("service", reference, PORT, options)],
            },
        },
    }


def _pod(name: str, options: Options) -> Document:
    """Write what holds for a whole pod."""
    spread = [
        {
            "maxSkew": 1,
            "topologyKey": key,
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": pods(name, options)},
        }
        for key in ("kubernetes.io/hostname", "topology.kubernetes.io/zone")
    ]
    return {
        "serviceAccountName": name,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": GRACE,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": UID,
            "runAsGroup": UID,
            "fsGroup": UID,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "topologySpreadConstraints": spread,
        "volumes": [
            {"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": "64Mi"}},
            {"name": "keys", "secret": {"secretName": f"{name}-key", "defaultMode": 0o440}},
        ],
    }


def _container(called: str, reference: str | Got, port: int, options: Options) -> Document:
    """Write the container: no privilege, nothing to write to but memory, and asked whether it answers."""
    environ: list[Document] = [
        {"name": "KETCH_PORT", "value": str(port)},
        {"name": "KETCH_API_KEYS_FILE", "value": f"{KEYS}/keys"},
        {"name": "KETCH_DEADLINE", "value": str(DEADLINE)},
        {"name": "KETCH_DRAIN", "value": str(DRAIN)},
    ]
    if options["log_secret"]:
        source = {"secretKeyRef": {"name": options["log_secret"], "key": "url"}}
        environ.append({"name": "KETCH_LOG", "valueFrom": source})
    ready = {"httpGet": {"path": "/health/ready", "port": "http"}, "timeoutSeconds": 5}
    live = {"httpGet": {"path": "/health/live", "port": "http"}, "timeoutSeconds": 5}
    wait = ["python3", "-c", f"import time; time.sleep({SLEEP})"]  # until no balancer sends anything any more
    return {
        "name": called,
        "image": reference,
        "imagePullPolicy": "Always",  # so that every pod's right to the image is checked; a digest is not pulled twice
        "env": environ,
        "ports": [{"name": "http", "containerPort": port, "protocol": "TCP"}],
        "resources": {
            "requests": {"cpu": options["cpu"], "memory": options["memory"]},
            "limits": {"memory": options["memory"]},
        },
        "startupProbe": {**ready, "periodSeconds": 2, "failureThreshold": 60},
        "readinessProbe": {**ready, "periodSeconds": 5, "failureThreshold": 2},
        "livenessProbe": {**live, "periodSeconds": 10, "failureThreshold": 3},
        "lifecycle": {"preStop": {"exec": {"command": wait}}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "runAsUser": UID,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 (a container's own)
            {"name": "keys", "mountPath": KEYS, "readOnly": True},
        ],
    }


def _scaled(name: str, options: Options) -> Document:
    used = {"type": "Utilization", "averageUtilization": 70}
    return {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
        "minReplicas": options["replicas"],
        "maxReplicas": options["max_replicas"],
        "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": used}}],
    }


def _policy(name: str, options: Options) -> Document:
    """Write who may call, and that the service itself calls nobody but name servers and its log."""
    label = "kubernetes.io/metadata.name"
    allowed: list[Document] = [{"podSelector": {}}]
    allowed += [{"namespaceSelector": {"matchLabels": {label: each}}} for each in callers(options)]
    names = {
        "to": [{"namespaceSelector": {"matchLabels": {label: "kube-system"}}}],
        "ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}],
    }
    log = [{"ports": [{"port": 5432, "protocol": "TCP"}]}] if options["log_secret"] else []
    if options["storage"]:
        log.append({"ports": [{"port": 443, "protocol": "TCP"}]})  # by which KServe gets the bundle
    port = KSERVE_PORT if options["kserve"] else PORT
    return {
        "podSelector": {"matchLabels": pods(name, options)},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": allowed, "ports": [{"port": port, "protocol": "TCP"}]}],
        "egress": [names, *log],
    }


def _kserve(name: str, reference: str | Got, options: Options, document: Any) -> list[Document]:
    """Write what KServe takes: an InferenceService in Standard mode, and its ServingRuntime where one is wanted."""
    container = _container("kserve-container", reference, KSERVE_PORT, options)
    scale = {"minReplicas": options["replicas"], "maxReplicas": options["max_replicas"]}
    pod = _pod(name, options)
    predictor = {**scale, "scaleMetric": "cpu", "scaleTarget": 70, **pod}
    modes = {"serving.kserve.io/deploymentMode": "Standard", "serving.kserve.io/autoscalerClass": "hpa"}
    service = "serving.kserve.io/v1beta1", "InferenceService"
    if options["kserve"] == "predictor":
        return [document(*service, {"predictor": {**predictor, "containers": [container]}}, annotations=modes)]
    file = options["storage"].rstrip("/").rpartition("/")[2]
    runtime = {
        "supportedModelFormats": [{"name": "ketch", "version": "1", "autoSelect": False}],
        "protocolVersions": ["v2"],
        "containers": [{**container, "args": ["serve", f"/mnt/models/{file}"]}],
        "volumes": pod["volumes"],
    }
    model = {
        "modelFormat": {"name": "ketch"},
        "protocolVersion": "v2",
        "runtime": name,
        "storageUri": options["storage"],
        "resources": container["resources"],
    }
    alone = {key: value for key, value in predictor.items() if key != "volumes"}
    return [
        document("serving.kserve.io/v1alpha1", "ServingRuntime", runtime),
        document(*service, {"predictor": {**alone, "model": model}}, annotations=modes),
    ]


def namespace(options: Options) -> Document:
    """Write the namespace: pods in it must keep the restricted standard."""
    modes = {f"pod-security.kubernetes.io/{each}": "restricted" for each in ("enforce", "audit", "warn")}
    labels = {"app.kubernetes.io/managed-by": "ketch", **modes}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": options["namespace"], "labels": labels}}


def files(name: str, documents: Sequence[Document], options: Options, image: str) -> dict[str, bytes]:
    """Write all as files for `kubectl apply -k`, with the image by its tag; the key is not among them."""
    yaml: Any = extras.load("yaml")
    named = {f"{each['kind'].lower()}.yaml": each for each in (namespace(options), *documents)}
    found = {
        path: yaml.safe_dump(resolved(each, {"image": {"reference": image}}), sort_keys=False, width=120).encode()
        for path, each in named.items()
    }
    secret, where = f"{name}-key", options["namespace"]
    told = (
        "# kubectl apply --server-side -k FOLDER\n"
        "# The key for callers stands in no file. Make it before, in no history of a shell:\n"
        "#   kubectl apply -f namespace.yaml\n"
        f"#   python3 -c 'import secrets; print(secrets.token_urlsafe(32), end=\"\")' |\n"
        f"#     kubectl create secret generic {secret} --namespace {where} --from-file=keys=/dev/stdin\n"
        f"# or let an ExternalSecret write the Secret {secret}, with the key in its entry `keys`.\n"
    )
    listed = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "resources": list(named)}
    return {**found, "kustomization.yaml": told.encode() + yaml.safe_dump(listed, sort_keys=False).encode()}
