"""A Kubernetes API server on loopback, for the real kubectl: its objects, its Deployments, and forwarded ports.

What comes in is held against the schemas that Kubernetes publishes, which kubernetes-validate carries, and pods against
the restricted standard where their namespace asks for it. Server-side apply replaces lists and merges objects.
"""

import contextlib
import copy
import functools
import hashlib
import http.server
import importlib.resources
import json
import re
import socket
import struct
import threading
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

jsonschema: Any = pytest.importorskip("jsonschema", reason="it comes with the dependency group test")
referencing: Any = pytest.importorskip("referencing", reason="it comes with the dependency group test")
pytest.importorskip("kubernetes_validate", reason="it comes with the dependency group test")

VERSION = "1.37.0"
KSERVE = "serving.kserve.io"
EXTENSION = {"minReplicas", "maxReplicas", "scaleTarget", "scaleMetric", "model"}  # KServe 0.20: beside a PodSpec
KINDS = {  # resource -> group, version, kind, whether in a namespace
    "namespaces": ("", "v1", "Namespace", False),
    "pods": ("", "v1", "Pod", True),
    "secrets": ("", "v1", "Secret", True),
    "serviceaccounts": ("", "v1", "ServiceAccount", True),
    "services": ("", "v1", "Service", True),
    "deployments": ("apps", "v1", "Deployment", True),
    "replicasets": ("apps", "v1", "ReplicaSet", True),
    "horizontalpodautoscalers": ("autoscaling", "v2", "HorizontalPodAutoscaler", True),
    "networkpolicies": ("networking.k8s.io", "v1", "NetworkPolicy", True),
    "poddisruptionbudgets": ("policy", "v1", "PodDisruptionBudget", True),
    "apiservices": ("apiregistration.k8s.io", "v1", "APIService", False),
    "inferenceservices": (KSERVE, "v1beta1", "InferenceService", True),
    "servingruntimes": (KSERVE, "v1alpha1", "ServingRuntime", True),
    "selfsubjectaccessreviews": ("authorization.k8s.io", "v1", "SelfSubjectAccessReview", False),
}
VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
GROUPS = sorted({(group, version) for group, version, _, _ in KINDS.values() if group})
QUANTITY = re.compile(r"\d+(\.\d+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?")


@functools.cache
def published(version: str) -> tuple[Any, Any]:
    """Give the folder of the schemas of a version, and what they refer to."""
    folder = importlib.resources.files("kubernetes_validate") / "kubernetes-json-schema" / f"v{version}-local-strict"
    definitions = json.loads((folder / "_definitions.json").read_text())
    return folder, referencing.Resource.from_contents(definitions) @ referencing.Registry()


@functools.cache
def validator(kind: str, api: str, version: str = VERSION) -> Any:
    """Make what holds objects of a kind against the schema that Kubernetes publishes; unknown fields are refused."""
    folder, registry = published(version)
    group, _, number = api.rpartition("/")
    named = "-".join([kind, *([group.removesuffix(".k8s.io").partition(".")[0]] if group else []), number]).lower()
    schema = json.loads((folder / f"{named}.json").read_text())
    return jsonschema.Draft202012Validator(schema, registry=registry)


def faults(document: Mapping[str, Any], version: str = VERSION) -> list[str]:
    """List what is wrong with an object: by its schema, and in its quantities, which schemas take for any text."""
    checked = validator(document["kind"], document["apiVersion"], version)
    wrong = [f"{each.json_path}: {each.message}" for each in checked.iter_errors(document)]
    return wrong + [
        f"{at}: {value!r} is no quantity" for at, value in quantities(document) if not QUANTITY.fullmatch(value)
    ]


def quantities(value: Any, path: str = "$") -> Iterator[tuple[str, str]]:
    """Give every quantity of an object: resources, and the sizes of what is in memory."""
    if isinstance(value, Mapping):
        for name, each in value.items():
            if name in {"requests", "limits"}:
                yield from ((f"{path}.{name}.{one}", str(amount)) for one, amount in each.items())
            elif name == "sizeLimit":
                yield f"{path}.{name}", str(each)
            else:
                yield from quantities(each, f"{path}.{name}")
    elif isinstance(value, list):
        for at, each in enumerate(value):
            yield from quantities(each, f"{path}[{at}]")


def unrestricted(pod: Mapping[str, Any]) -> list[str]:
    """List what the Pod Security Standard "restricted" (v1.37) forbids in the spec of a pod."""
    own = pod.get("securityContext", {})
    wrong = [name for name in ("hostNetwork", "hostPID", "hostIPC") if pod.get(name)]
    kinds = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
    wrong += [f"volume {each['name']}" for each in pod.get("volumes", ()) if not set(each) - {"name"} <= kinds]
    wrong += ["sysctls"] if own.get("sysctls") else []
    for each in [*pod.get("initContainers", ()), *pod.get("containers", ()), *pod.get("ephemeralContainers", ())]:
        said = each.get("securityContext", {})
        caps = said.get("capabilities", {})
        profile = said.get("seccompProfile", own.get("seccompProfile", {})).get("type")
        checks = {
            "privileged": not said.get("privileged"),
            "allowPrivilegeEscalation": said.get("allowPrivilegeEscalation") is False,
            "capabilities.drop": "ALL" in caps.get("drop", ()),
            "capabilities.add": set(caps.get("add", ())) <= {"NET_BIND_SERVICE"},
            "seccompProfile": profile in {"RuntimeDefault", "Localhost"},
            "runAsNonRoot": said.get("runAsNonRoot", own.get("runAsNonRoot")) is True,
            "runAsUser": said.get("runAsUser", own.get("runAsUser")) != 0,
            "hostPort": not any(port.get("hostPort") for port in each.get("ports", ())),
            "procMount": said.get("procMount", "Default") == "Default",
        }
        wrong += [f"{each['name']}: {name}" for name, good in checks.items() if not good]
    return wrong


class Refused(Exception):
    """A Status that is sent back."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status: dict[str, Any] = {
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "code": code, "reason": reason, "message": message,
        }  # fmt: skip


class Cluster(http.server.ThreadingHTTPServer):
    """The objects, and the address of each image: what a pod of it answers with. One without an address never runs."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.objects: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.images: dict[str, str] = {}
        self.calls: list[str] = []
        self.forbidden: set[str] = set()
        self.fails_at = 0  # the number of the change after which the connection breaks
        self.changes = 0
        self.lock = threading.RLock()
        self.clock = 0
        self.looks: dict[tuple[str, str, str], int] = {}

    # ---- objects -----------------------------------------------------------------------------------

    def get(self, kind: str, space: str, name: str) -> dict[str, Any]:
        with self.lock:
            self.work()
            if (kind, space, name) not in self.objects:
                raise Refused(404, "NotFound", f'{kind} "{name}" not found')
            return copy.deepcopy(self.objects[kind, space, name])

    def listed(self, kind: str, space: str, selector: str) -> list[dict[str, Any]]:
        wanted = dict(each.split("=", 1) for each in selector.replace("==", "=").split(",") if each)
        with self.lock:
            self.work()
            found = [
                each for (one, where, _), each in sorted(self.objects.items()) if one == kind and space in {"", where}
            ]
            return [
                copy.deepcopy(each) for each in found if wanted.items() <= each["metadata"].get("labels", {}).items()
            ]

    def put(self, kind: str, space: str, given: dict[str, Any], *, new: bool = False) -> dict[str, Any]:
        """Take an object as it is to be from now on."""
        with self.lock:
            name = given["metadata"]["name"]
            before = self.objects.get((kind, space, name))
            if new and before:
                raise Refused(409, "AlreadyExists", f'{kind} "{name}" already exists')
            if KINDS[kind][3] and kind != "namespaces" and ("namespaces", "", space) not in self.objects:
                raise Refused(404, "NotFound", f'namespaces "{space}" not found')
            self.check(kind, space, given)
            self.clock += 1
            meta = given["metadata"]
            changed = before is None or before.get("spec") != given.get("spec")
            meta["generation"] = (before["metadata"]["generation"] if before else 0) + int(changed)
            meta |= {"uid": f"uid-{kind}-{name}", "resourceVersion": str(self.clock)}
            meta |= {
                "creationTimestamp": before["metadata"]["creationTimestamp"]
                if before
                else f"2026-01-01T00:00:{self.clock % 60:02}Z"
            }
            meta |= {"namespace": space} if space else {}
            self.objects[kind, space, name] = given
            return copy.deepcopy(given)

    def check(self, kind: str, space: str, given: Mapping[str, Any]) -> None:
        if given["apiVersion"].startswith(KSERVE):  # what its controller makes of it is checked
            return
        told = {key: value for key, value in given.items() if key != "status"}
        if wrong := faults(told):
            raise Refused(422, "Invalid", f'{kind} "{given["metadata"]["name"]}" is invalid: {"; ".join(wrong[:5])}')
        where = self.objects.get(("namespaces", "", space), {}).get("metadata", {}).get("labels", {})
        restricted = kind == "deployments" and where.get("pod-security.kubernetes.io/enforce") == "restricted"
        if restricted and (wrong := unrestricted(given["spec"]["template"]["spec"])):
            raise Refused(403, "Forbidden", f"violates PodSecurity: {wrong}")

    def patch(self, kind: str, space: str, name: str, body: Any, how: str) -> dict[str, Any]:
        with self.lock:
            before = self.objects.get((kind, space, name))
            if before is None and "apply" not in how:
                raise Refused(404, "NotFound", f'{kind} "{name}" not found')
            made = copy.deepcopy(before or {})
            if "json-patch" in how:
                for each in body:
                    *way, last = [part.replace("~1", "/").replace("~0", "~") for part in each["path"].split("/")[1:]]
                    at: Any = made
                    for part in way:
                        at = at[part]
                    at[last] = each["value"]
            else:
                merge(made, body)
            return self.put(kind, space, made)

    def remove(self, kind: str, space: str, name: str) -> dict[str, Any]:
        with self.lock:
            found = self.get(kind, space, name)
            del self.objects[kind, space, name]
            for key in [each for each in self.objects if each[0] in OWNED and each[1] == space]:
                if kind in {"deployments", "inferenceservices"} and key[2].startswith(f"{name}-"):
                    del self.objects[key]
            return found

    # ---- what controllers do -------------------------------------------------------------------------

    def work(self) -> None:
        """Do what the controllers of Deployments and autoscalers do, one step at each look."""
        for (kind, space, name), each in list(self.objects.items()):
            if kind == "inferenceservices":
                self._serve(space, name, each["spec"]["predictor"])
        for (kind, space, name), each in list(self.objects.items()):
            if kind == "deployments":
                scaler = self.objects.get(("horizontalpodautoscalers", space, name))
                least = scaler["spec"]["minReplicas"] if scaler else 1
                each["spec"]["replicas"] = max(each["spec"].get("replicas", 1), least)
                self._roll(space, each)

    def _serve(self, space: str, name: str, predictor: Mapping[str, Any]) -> None:
        """Make of a predictor what KServe makes in Standard mode: a Deployment and a Service."""
        runtime = self.objects.get(("servingruntimes", space, predictor.get("model", {}).get("runtime", "")))
        pod = {key: value for key, value in predictor.items() if key not in EXTENSION}
        pod |= {key: runtime["spec"][key] for key in ("containers", "volumes")} if runtime else {}
        labels, called = {f"{KSERVE}/inferenceservice": name}, f"{name}-predictor"
        template = {"metadata": {"labels": labels}, "spec": pod}
        spec = {"replicas": predictor["minReplicas"], "selector": {"matchLabels": labels}, "template": template}
        before = self.objects.get(("deployments", space, called))
        if before is None or before["spec"]["template"] != template:
            meta = {"name": called, "labels": labels}
            made = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": spec}
            self.put("deployments", space, copy.deepcopy(made))
            ports = [{"port": 80, "targetPort": pod["containers"][0]["ports"][0]["containerPort"]}]
            service = {"apiVersion": "v1", "kind": "Service", "metadata": dict(meta)}
            self.put("services", space, {**service, "spec": {"selector": labels, "ports": ports}})

    def _roll(self, space: str, one: dict[str, Any]) -> None:
        template, name = one["spec"]["template"], one["metadata"]["name"]
        digest = hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:10]
        mine = {
            key: each
            for key, each in self.objects.items()
            if key[0] == "replicasets" and key[1] == space and key[2].startswith(f"{name}-")
        }
        at = ("replicasets", space, f"{name}-{digest}")
        last = max((int(each["metadata"]["annotations"][REVISION]) for each in mine.values()), default=0)
        owner = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "name": name,
            "uid": one["metadata"]["uid"],
            "controller": True,
        }
        labels = {**template["metadata"]["labels"], "pod-template-hash": digest}
        if at not in mine:
            last += 1
            self.clock += 1
            meta = {
                "name": at[2],
                "namespace": space,
                "labels": labels,
                "uid": f"uid-{at[2]}",
                "ownerReferences": [owner],
            }
            meta |= {
                "annotations": {REVISION: str(last)},
                "creationTimestamp": f"2026-01-01T00:00:{self.clock % 60:02}Z",
            }
            inner = copy.deepcopy(template)
            inner["metadata"]["labels"] = labels
            spec = {"replicas": one["spec"]["replicas"], "selector": {"matchLabels": labels}, "template": inner}
            self.objects[at] = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": meta, "spec": spec}
        elif int(mine[at]["metadata"]["annotations"][REVISION]) < last:
            mine[at]["metadata"]["annotations"][REVISION] = str(last + 1)
        revision = self.objects[at]["metadata"]["annotations"][REVISION]
        one["metadata"].setdefault("annotations", {})[REVISION] = revision
        self._run(space, one, digest, labels)

    def _run(self, space: str, one: dict[str, Any], digest: str, labels: Mapping[str, str]) -> None:
        """Start the pods of the newest template; what takes its time is seen at the second look."""
        name, count = one["metadata"]["name"], one["spec"]["replicas"]
        image = one["spec"]["template"]["spec"]["containers"][0]["image"]
        runs = bool(self.images.get(image))
        looks = self.looks[space, name, digest] = self.looks.get((space, name, digest), 0) + 1
        up = count if runs and looks > 1 else 0
        late = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}
        one["status"] = {"observedGeneration": one["metadata"]["generation"], "replicas": count}
        one["status"] |= dict.fromkeys(("availableReplicas", "readyReplicas"), up) | {"updatedReplicas": count}
        one["status"]["conditions"] = [] if runs or looks < 3 else [late]
        waits = {
            "reason": "ContainerCreating" if runs else "ImagePullBackOff",
            "message": "" if runs else f"no {image}",
        }
        running: dict[str, Any] = {
            "name": "service",
            "ready": bool(up),
            "restartCount": 0,
            "image": image,
            "imageID": image,
        }
        running["state"] = {"running": {}} if up else {"waiting": waits}
        set_name = f"{name}-{digest}"
        owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": set_name, "uid": f"uid-{set_name}"}
        if runs:  # those of the templates before are no more needed
            for key in [
                each for each in self.objects if each[:2] == ("pods", space) and each[2].startswith(f"{name}-")
            ]:
                del self.objects[key]
        for at in range(count):
            meta: dict[str, Any] = {
                "name": f"{set_name}-{at}",
                "namespace": space,
                "labels": dict(labels),
                "uid": f"{set_name}-{at}",
            }
            meta |= {"creationTimestamp": "2026-01-01T00:00:00Z", "ownerReferences": [{**owner, "controller": True}]}
            spec = copy.deepcopy(one["spec"]["template"]["spec"])
            status = {"phase": "Running" if up else "Pending", "containerStatuses": [running]}
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec, "status": status}
            self.objects["pods", space, meta["name"]] = pod

    def address(self, space: str, pod: str) -> tuple[str, int]:
        image = self.get("pods", space, pod)["spec"]["containers"][0]["image"]
        found = urlsplit(self.images[image])
        return str(found.hostname), int(found.port or 80)


REVISION = "deployment.kubernetes.io/revision"
OWNED = {"deployments", "services", "replicasets", "pods"}  # which go with their owner


def merge(there: dict[str, Any], given: Mapping[str, Any]) -> None:
    for name, value in given.items():
        if isinstance(value, Mapping) and isinstance(there.get(name), dict):
            merge(there[name], value)
        elif value is None:
            there.pop(name, None)
        else:
            there[name] = copy.deepcopy(value)


# ---- HTTP ----------------------------------------------------------------------------------------------


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Cluster

    def log_message(self, *_: object) -> None:
        pass

    def answer(self) -> None:
        parts = urlsplit(self.path)
        query = {name: value[0] for name, value in parse_qs(parts.query).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.command != "GET":
            self.server.calls.append(f"{self.command} {parts.path}")
        try:
            if parts.path.endswith("/portforward"):
                self.forward(parts.path)
                return
            if parts.path.endswith("/log"):
                self.send(200, f"hello from {parts.path.split('/')[-2]}\n".encode(), "text/plain")
                return
            found = self.discovered(parts.path) or self.resource(parts.path, query, body)
        except Refused as error:
            self.send(error.status["code"], json.dumps(error.status).encode())
            return
        if self.command != "GET":
            self.server.changes += 1
            if self.server.changes == self.server.fails_at:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
        self.send(200, json.dumps(found).encode())

    do_GET = do_POST = do_PATCH = do_DELETE = do_PUT = answer

    def send(self, status: int, body: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def discovered(self, path: str) -> Any:
        if path == "/version":
            return {"major": "1", "minor": "37", "gitVersion": "v1.37.0"}
        if path == "/api":
            return {"kind": "APIVersions", "versions": ["v1"]}
        if path == "/apis":
            groups = [
                {
                    "name": group,
                    "versions": [one := {"groupVersion": f"{group}/{version}", "version": version}],
                    "preferredVersion": one,
                }
                for group, version in GROUPS
            ]
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
        if path == "/openapi/v3":
            at: dict[str, Any] = {"api/v1": {}, **{f"apis/{group}/{version}": {} for group, version in GROUPS}}
            return {"paths": {each: {"serverRelativeURL": f"/openapi/v3/{each}"} for each in at}}
        if path.startswith("/openapi/v3/"):
            return {
                "openapi": "3.0.0",
                "info": {"title": "", "version": ""},
                "paths": self.paths(path.removeprefix("/openapi/v3/")),
            }
        found = re.fullmatch(r"/api/(v1)|/apis/([^/]+)/([^/]+)", path)
        if not found:
            return None
        group, version = (found[2] or "", found[3] or found[1])
        listed = [
            {"name": name, "singularName": kind.lower(), "namespaced": spaced, "kind": kind, "verbs": VERBS}
            for name, (one, number, kind, spaced) in KINDS.items()
            if (one, number) == (group, version)
        ]
        return {
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": f"{group}/{version}".strip("/"),
            "resources": listed,
        }

    def paths(self, where: str) -> Any:
        found = {}
        for name, (group, version, kind, _) in KINDS.items():
            if where in {f"apis/{group}/{version}", "api/v1" if not group else ""}:
                told = {"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}
                gvk = {"group": group, "version": version, "kind": kind}
                verbs = {
                    verb: {"x-kubernetes-group-version-kind": gvk, "parameters": [told]}
                    for verb in ("patch", "post", "put")
                }
                found[f"/{where}/{name}/{{name}}"] = verbs
        return found

    def resource(self, path: str, query: Mapping[str, str], body: bytes) -> Any:
        found = re.fullmatch(
            r"/apis?(?:/[a-z0-9.]+\.k8s\.io|/serving\.kserve\.io|/apps|/autoscaling|/policy)?/v\d\w*(?:/namespaces/(?P<space>[^/]+)(?=/))?/(?P<kind>[a-z]+)(?:/(?P<name>[^/]+))?",
            path,
        )
        if not found or found["kind"] not in KINDS:
            raise Refused(404, "NotFound", f"the server could not find {path}")
        kind, space, name = found["kind"], found["space"] or "", found["name"]
        if f"{self.command} {kind}" in self.server.forbidden:
            raise Refused(403, "Forbidden", f"{kind} is forbidden")
        if kind == "selfsubjectaccessreviews":
            wanted = [
                each for each in KINDS if "\x06create" in body.decode("latin-1") and each.encode() in body
            ]  # protobuf
            allowed = not any(f"POST {each}" in self.server.forbidden for each in wanted)
            meta = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview"}
            return {**meta, "metadata": {}, "spec": {}, "status": {"allowed": allowed}}
        if self.command == "POST":
            return self.server.put(kind, space, json.loads(body), new=True)
        if self.command == "PATCH":
            return self.server.patch(kind, space, name, json.loads(body), self.headers["Content-Type"])
        if self.command == "DELETE":
            return self.server.remove(kind, space, name)
        if name:
            return self.server.get(kind, space, name)
        group, version, called, _ = KINDS[kind]
        items = self.server.listed(kind, space, query.get("labelSelector", ""))
        if "fieldSelector" in query:
            called_so = query["fieldSelector"].removeprefix("metadata.name=")
            items = [each for each in items if each["metadata"]["name"] == called_so]
        return {
            "kind": f"{called}List",
            "apiVersion": f"{group}/{version}".strip("/"),
            "metadata": {"resourceVersion": str(self.server.clock)},
            "items": items,
        }

    # ---- a forwarded port: SPDY/3.1, as much of it as kubectl speaks -----------------------------------

    def forward(self, path: str) -> None:
        if self.headers.get("Upgrade", "").lower() != "spdy/3.1":
            raise Refused(400, "BadRequest", "unable to upgrade: websockets are not spoken here")
        space, pod = path.split("/")[-4], path.split("/")[-2]
        self.send_response(101)
        for name, value in {
            "Upgrade": "SPDY/3.1",
            "Connection": "Upgrade",
            "X-Stream-Protocol-Version": "portforward.k8s.io",
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.close_connection = True
        Tunnel(self.connection, self.rfile, self.server.address(space, pod)).run()


class Tunnel:
    """Streams in pairs: the first is for errors, the second carries the bytes of one connection."""

    def __init__(self, connection: socket.socket, read: Any, address: tuple[str, int]) -> None:
        self.connection, self.read, self.address = connection, read, address
        self.lock = threading.Lock()
        self.packed = zlib.compressobj()
        self.ends: dict[int, socket.socket] = {}
        self.opened: list[int] = []

    def run(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            while len(head := self.read.read(8)) == 8:
                first, rest = struct.unpack(">II", head)
                data = self.read.read(rest & 0xFFFFFF)
                if first >> 31:
                    self.control(first & 0xFFFF, data)
                else:
                    self.data(first, rest >> 24, data)
        for end in self.ends.values():
            end.close()

    def control(self, kind: int, data: bytes) -> None:
        if kind == 1:  # SYN_STREAM
            stream = struct.unpack(">I", data[:4])[0] & 0x7FFFFFFF
            self.opened.append(stream)
            block = self.packed.compress(struct.pack(">I", 0)) + self.packed.flush(zlib.Z_SYNC_FLUSH)
            self.write(0x80030002, 0, struct.pack(">I", stream) + block)
            if len(self.opened) % 2 == 0:
                self.ends[stream] = socket.create_connection(self.address)
                threading.Thread(target=self.pump, args=(stream,), daemon=True).start()
        elif kind == 6:  # PING
            self.write(0x80030006, 0, data)

    def data(self, stream: int, flags: int, data: bytes) -> None:
        if stream in self.ends:
            self.ends[stream].sendall(data)
            if flags & 1:
                self.ends[stream].shutdown(socket.SHUT_WR)

    def pump(self, stream: int) -> None:
        with contextlib.suppress(OSError):
            while data := self.ends[stream].recv(65536):
                self.write(stream, 0, data)
            self.write(stream, 1, b"")

    def write(self, first: int, flags: int, data: bytes) -> None:
        with self.lock:
            self.connection.sendall(struct.pack(">II", first, flags << 24 | len(data)) + data)


@contextmanager
def cluster(folder: Path) -> Iterator[tuple[Cluster, str]]:
    """Run one, and give it with a file by which kubectl reaches it."""
    with Cluster() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        config = folder / "kubeconfig.json"
        told = {
            "apiVersion": "v1", "kind": "Config", "current-context": "here",
            "clusters": [{"name": "here", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
            "users": [{"name": "me", "user": {}}],
        }  # fmt: skip
        config.write_text(json.dumps(told))
        try:
            yield server, str(config)
        finally:
            server.shutdown()
