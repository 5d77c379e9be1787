"""Google Cloud on loopback: every request held to Google's own description of it, and models that really run.

Cloud Run's revisions and Vertex AI's deployed models are processes of `ketch serve`, started with the environment that
was asked for; operations take their time, policies and services have etags, every API throttles now and then.
"""

import base64
import functools
import hashlib
import http.client
import itertools
import json
import re
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.discovery import Wrong, description
from tests.instances import Answering, Instances, Refused, Server, listening

PROJECT = "shop-2026"
CALLER = f"deployer@{PROJECT}.iam.gserviceaccount.com"
APIS = {  # the first part of the path that our address stands for -> documents by their versions
    "aiplatform": ("v1",),
    "artifactregistry": ("v1",),
    "cloudbilling": ("v1",),
    "cloudresourcemanager": ("v3",),
    "iam": ("v1",),
    "logging": ("v2",),
    "run": ("v1", "v2"),
    "secretmanager": ("v1",),
    "serviceusage": ("v1", "v1beta1"),
}
REGIONS = ("us-central1", "europe-west1")
NUMBER = "123456789"


def missing(what: str) -> Refused:
    return Refused(404, "NOT_FOUND", f"Resource '{what}' was not found.")


@dataclass
class Operation:
    """One that takes a few looks; `finish` gives its response, or raises what comes of it."""

    name: str
    finish: Callable[[], dict[str, Any]]
    looks: int = 2
    kind: str = ""
    outcome: dict[str, Any] = field(default_factory=dict)

    def goes_on(self) -> None:
        """Let time pass: it goes on whoever looks."""
        self.looks -= 1
        if self.looks == 0:
            try:
                self.outcome = {"response": self.finish()}
            except Refused as error:
                self.outcome = {"error": {"code": 9, "message": str(error)}}

    def told(self) -> dict[str, Any]:
        if not self.outcome:
            return {"name": self.name, "done": False, "metadata": {"@type": self.kind}}
        return {"name": self.name, "done": True, **self.outcome}


@functools.cache
def _signing_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


class Google:
    """What the cloud holds."""

    def __init__(self, instances: Instances, folder: Path) -> None:
        self.instances, self.folder = instances, folder
        self.url = ""
        self.lock = threading.RLock()
        self.images: dict[str, Path] = {}  # digest -> what `ketch serve` is to serve
        self.key = _signing_key()
        self.enabled = {"serviceusage.googleapis.com", "cloudresourcemanager.googleapis.com", "iam.googleapis.com"}
        self.spreading: set[str] = set()  # APIs that are on, and not everywhere yet
        self.accounts: dict[str, dict[str, Any]] = {}
        self.repositories: dict[str, dict[str, Any]] = {}
        self.packages: dict[str, dict[str, str]] = {}  # package -> tag -> digest
        self.secrets: dict[str, dict[str, Any]] = {}
        self.versions: dict[str, list[str]] = {}
        self.policies: dict[str, dict[str, Any]] = {}
        self.services: dict[str, dict[str, Any]] = {}
        self.revisions: dict[str, dict[str, Any]] = {}
        self.ports: dict[str, int] = {}
        self.models: dict[str, list[dict[str, Any]]] = {}
        self.endpoints: dict[str, dict[str, Any]] = {}
        self.operations: dict[str, Operation] = {}
        self.calls: list[str] = []
        self.wrong: list[str] = []
        self.numbers = itertools.count(1)
        self.throttle = 0  # every so many requests one is told to come back
        self.conflicts = 0  # changes that somebody else makes just before ours
        self.unsettled: set[str] = set()  # accounts that IAM does not know everywhere yet

    # ---- who calls ----------------------------------------------------------------------------------

    def credentials(self) -> Path:
        """Write a service account's key file, as it is downloaded from the console."""
        made = self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        told = {
            "type": "service_account",
            "project_id": PROJECT,
            "private_key_id": "1",
            "private_key": made.decode(),
            "client_email": CALLER,
            "client_id": "1",
            "token_uri": f"{self.url}/token",
        }
        path = self.folder / "credentials.json"
        path.write_text(json.dumps(told), "utf-8")
        return path

    def environ(self) -> dict[str, str]:
        """Give the variables by which clients find this cloud."""
        told = {f"CLOUDSDK_API_ENDPOINT_OVERRIDES_{each.upper()}": f"{self.url}/{each}" for each in APIS}
        return {**told, "GOOGLE_APPLICATION_CREDENTIALS": str(self.credentials())}

    def signed_in(self, form: Mapping[str, list[str]]) -> dict[str, Any]:
        """Exchange an assertion that the account's key signed for a token."""
        claims = jwt.decode(
            form["assertion"][0],
            self.key.public_key(),
            algorithms=["RS256"],
            audience="https://oauth2.googleapis.com/token",
        )
        if claims["iss"] != CALLER:
            raise Refused(401, "UNAUTHENTICATED", "unknown account")
        if "target_audience" in claims:
            return {"id_token": self._signed({"aud": claims["target_audience"], "email": CALLER})}
        if "cloud-platform" not in claims.get("scope", ""):
            raise Refused(400, "INVALID_ARGUMENT", "no scope")
        return {"access_token": self._signed({"aud": "apis"}), "expires_in": 3600, "token_type": "Bearer"}

    def _signed(self, claims: dict[str, Any]) -> str:
        now = int(time.time())
        return jwt.encode({"iss": "fake", "iat": now, "exp": now + 3600, **claims}, self.key, algorithm="RS256")

    def require_token(self, headers: Mapping[str, str], audience: str) -> None:
        try:
            token = headers.get("Authorization", "").removeprefix("Bearer ")
            jwt.decode(token, self.key.public_key(), algorithms=["RS256"], audience=audience)
        except jwt.PyJWTError as error:
            raise Refused(401, "UNAUTHENTICATED", f"invalid credentials: {error}") from None

    # ---- one call -----------------------------------------------------------------------------------

    def answer(self, verb: str, path: str, query: dict[str, list[str]], body: Any, headers: Any) -> dict[str, Any]:
        """Hold a request to the description, answer it, and hold the answer to it as well."""
        _, name, version, _ = path.split("/", 3)
        if version not in APIS.get(name, ()):
            raise Wrong(f"there is no {name} {version}")
        told = description(f"{name}.{version}")
        method = told.method(verb, path.removeprefix(f"/{name}"))
        told.require_query(method, query)
        told.require_request(method, body)
        self.require_token(headers, "apis")
        host = f"{name}.googleapis.com"
        if (host not in self.enabled and name not in {"cloudbilling", "logging"}) or host in self.spreading:
            self.spreading.discard(host)
            raise Refused(403, "PERMISSION_DENIED", f"{host} has not been used in project {PROJECT} or it is disabled.")
        self.calls.append(method.name)
        handler = getattr(
            self, method.name.replace("projects.locations.", "").replace("projects.", "").replace(".", "_")
        )
        with self.lock:
            for each in list(self.operations.values()):
                each.goes_on()
            found: dict[str, Any] = handler(path.removeprefix(f"/{name}/{version}/"), query, body or {})
        told.require_response(method, found)
        return found

    def begin(self, where: str, finish: Callable[[], dict[str, Any]], kind: str = "", looks: int = 2) -> dict[str, Any]:
        """Begin an operation."""
        name = f"{where}/operations/op-{next(self.numbers)}".lstrip("/")
        self.operations[name] = Operation(name, finish, looks, f"type.googleapis.com/{kind}")
        return {"name": name, "done": False, "metadata": {"@type": f"type.googleapis.com/{kind}"}}

    def _operation(self, path: str, query: Any, body: Any) -> dict[str, Any]:
        if path not in self.operations:
            raise missing(path)
        return self.operations[path].told()

    run_operations_get = artifactregistry_operations_get = _operation
    aiplatform_models_operations_get = aiplatform_endpoints_operations_get = aiplatform_operations_get = _operation
    serviceusage_operations_get = _operation

    # ---- projects -----------------------------------------------------------------------------------

    def serviceusage_services_batchGet(self, path: str, query: Any, body: Any) -> dict[str, Any]:
        found = []
        for name in query["names"]:
            on = name.rpartition("/")[2] in self.enabled
            found.append({"name": name, "state": "ENABLED" if on else "DISABLED"})
        return {"services": found}

    def serviceusage_services_batchEnable(self, path: str, query: Any, body: Any) -> dict[str, Any]:
        def finish() -> dict[str, Any]:
            self.enabled |= set(body["serviceIds"])
            self.spreading |= set(body["serviceIds"])
            return {}

        return self.begin("", finish)

    def serviceusage_services_consumerQuotaMetrics_list(self, path: str, query: Any, body: Any) -> dict[str, Any]:
        buckets = [{"effectiveLimit": "1000", "defaultLimit": "1000"}] + [
            {"effectiveLimit": "20000", "dimensions": {"region": each}} for each in REGIONS
        ]
        name = "CPU allocation, in milli vCPU, per project per region"
        limits = [{"name": "x", "unit": "1/{project}/{region}", "quotaBuckets": buckets}]
        return {"metrics": [{"metric": "run/cpu", "displayName": name, "consumerQuotaLimits": limits}]}

    def cloudresourcemanager_get(self, path: str, query: Any, body: Any) -> dict[str, Any]:
        if path != f"projects/{PROJECT}":
            raise Refused(403, "PERMISSION_DENIED", "The caller does not have permission")
        return {"name": f"projects/{NUMBER}", "projectId": PROJECT, "state": "ACTIVE"}

    cloudresourcemanager_projects_get = cloudresourcemanager_get

    def cloudresourcemanager_testIamPermissions(self, path: str, query: Any, body: Any) -> dict[str, Any]:
        return {"permissions": [each for each in body["permissions"] if each != "secretmanager.secrets.create"]}

    def cloudbilling_getBillingInfo(self, path: str, query: Any, body: Any) -> dict[str, Any]:
        return {"name": path, "projectId": PROJECT, "billingEnabled": True}

    def logging_entries_list(self, path: str, query: Any, body: Any) -> dict[str, Any]:
        if body["resourceNames"] != [f"projects/{PROJECT}"]:
            raise Refused(403, "PERMISSION_DENIED", "not yours")
        return {
            "entries": [
                {"timestamp": "2026-11-22T10:00:01Z", "textPayload": "second"},
                {"timestamp": "2026-11-22T10:00:00Z", "textPayload": "first"},
            ]
        }

    # ---- accounts and policies ----------------------------------------------------------------------

    def iam_serviceAccounts_create(self, path: str, query: Any, body: Any) -> dict[str, Any]:
        name = body["accountId"]
        if not re.fullmatch(r"[a-z]([-a-z0-9]{4,28}[a-z0-9])", name):
            raise Refused(400, "INVALID_ARGUMENT", f"{name} is no name of an account")
        email = f"{name}@{PROJECT}.iam.gserviceaccount.com"
        if email in self.accounts:
            raise Refused(409, "ALREADY_EXISTS", f"Service account {name} already exists")
        self.accounts[email] = {"name": f"projects/{PROJECT}/serviceAccounts/{email}", "email": email}
        self.unsettled.add(email)
        return self.accounts[email]

    def iam_serviceAccounts_get(self, path: str, query: Any, body: Any) -> dict[str, Any]:
        email = path.rpartition("/")[2]
        if email not in self.accounts:
            raise missing(email)
        return self.accounts[email]

    def iam_serviceAccounts_delete(self, path: str, query: Any, body: Any) -> dict[str, Any]:
        self.iam_serviceAccounts_get(path, query, body)
        del self.accounts[path.rpartition("/")[2]]
        return {}

    def _require_account(self, email: str) -> None:
        if email not in self.accounts or email in self.unsettled:
            self.unsettled.discard(email)
            denied = f"Permission 'iam.serviceaccounts.actAs' denied on service account {email} (or it may not exist)."
            raise Refused(403, "PERMISSION_DENIED", denied)

    def policy(self, path: str) -> dict[str, Any]:
        """Give a policy with its etag."""
        policy = self.policies.setdefault(path, {"version": 1})
        told = json.dumps(policy.get("bindings", []), sort_keys=True).encode()
        return {**policy, "etag": base64.b64encode(hashlib.sha256(told).digest()[:8]).decode()}

    def _get_policy(self, path: str, query: Any, body: Any) -> dict[str, Any]:
        named = path.removesuffix(":getIamPolicy")
        if named not in self.services and named not in self.secrets:
            raise missing(named)
        return self.policy(named)

    def _set_policy(self, path: str, query: Any, body: Any) -> dict[str, Any]:
        named = path.removesuffix(":setIamPolicy")
        if self.conflicts:
            self.conflicts -= 1
            self.policies[named] = {"version": 1, "bindings": [{"role": "roles/viewer", "members": ["user:a@b.c"]}]}
        if body["policy"].get("etag") != self.policy(named)["etag"]:
            raise Refused(409, "ABORTED", "There were concurrent policy changes.")
        for binding in body["policy"].get("bindings", ()):
            for member in binding["members"]:
                email = member.removeprefix("serviceAccount:")
                if email in self.unsettled:  # not known everywhere yet
                    self.unsettled.discard(email)
                    raise Refused(400, "INVALID_ARGUMENT", f"Service account {email} does not exist.")
                if member.startswith("serviceAccount:") and email not in self.accounts and email != CALLER:
                    raise Refused(400, "INVALID_ARGUMENT", f"Service account {email} does not exist.")
        self.policies[named] = {"version": 1, "bindings": body["policy"].get("bindings", [])}
        return self.policy(named)

    run_services_getIamPolicy = secretmanager_secrets_getIamPolicy = _get_policy
    run_services_setIamPolicy = secretmanager_secrets_setIamPolicy = _set_policy

    def allows(self, path: str, role: str, member: str) -> bool:
        bindings = self.policies.get(path, {}).get("bindings", ())
        return any(each["role"] == role and {member, "allUsers"} & set(each["members"]) for each in bindings)

    # ---- secrets ------------------------------------------------------------------------------------

    def secretmanager_secrets_create(self, path: str, query: Any, body: Any) -> dict[str, Any]:
        name = f"projects/{PROJECT}/secrets/{query['secretId'][0]}"
        if name in self.secrets:
            raise Refused(409, "ALREADY_EXISTS", f"Secret [{name}] already exists.")
        if "replication" not in body:
            raise Refused(400, "INVALID_ARGUMENT", "replication is required")
        self.secrets[name] = {"name": name, **body}
        return self.secrets[name]

    def secretmanager_secrets_get(self, path: str, query: Any, body: Any) -> dict[str, Any]:
        if path not in self.secrets:
            raise missing(path)
        return self.secrets[path]

    def secretmanager_secrets_delete(self, path: str, query: Any, body: Any) -> dict[str, Any]:
        self.secretmanager_secrets_get(path, query, body)
        del self.secrets[path]
        self.versions.pop(path, None)
        self.policies.pop(path, None)
        return {}

    def secretmanager_secrets_addVersion(self, path: str, query: Any, body: Any) -> dict[str, Any]:
        named = path.removesuffix(":addVersion")
        if named not in self.secrets:
            raise missing(named)
        self.versions.setdefault(named, []).append(base64.b64decode(body["payload"]["data"]).decode())
        return {"name": f"{named}/versions/{len(self.versions[named])}", "state": "ENABLED"}

    def secretmanager_secrets_versions_access(self, path: str, query: Any, body: Any) -> dict[str, Any]:
        named = path.partition("/versions/")[0]
        if not self.versions.get(named):
            raise missing(path)
        data = base64.b64encode(self.versions[named][-1].encode()).decode()
        return {"name": f"{named}/versions/{len(self.versions[named])}", "payload": {"data": data}}

    # ---- images -------------------------------------------------------------------------------------

    def artifactregistry_repositories_create(self, path: str, query: Any, body: Any) -> dict[str, Any]:
        name = f"{path}/{query['repositoryId'][0]}"
        if name in self.repositories:
            raise Refused(409, "ALREADY_EXISTS", "the repository already exists")

        def finish() -> dict[str, Any]:
            self.repositories[name] = {"name": name, **body}
            return self.repositories[name]

        return self.begin(path.removesuffix("/repositories"), finish)

    def artifactregistry_repositories_get(self, path: str, query: Any, body: Any) -> dict[str, Any]:
        if path not in self.repositories:
            raise missing(path)
        return self.repositories[path]

    def artifactregistry_repositories_packages_get(self, path: str, query: Any, body: Any) -> dict[str, Any]:
        if path not in self.packages:
            raise missing(path)
        return {"name": path}

    def artifactregistry_repositories_packages_delete(self, path: str, query: Any, body: Any) -> dict[str, Any]:
        self.artifactregistry_repositories_packages_get(path, query, body)

        def finish() -> dict[str, Any]:
            self.packages.pop(path, None)
            return {}

        return self.begin(path.partition("/repositories/")[0], finish)

    def artifactregistry_get(self, path: str, query: Any, body: Any) -> dict[str, Any]:
        region = path.rpartition("/")[2]
        if region not in REGIONS:
            raise missing(path)
        return {"name": path, "locationId": region, "displayName": f"Region {region}"}

    artifactregistry_locations_get = artifactregistry_projects_locations_get = artifactregistry_get

    def bundle(self, image: str) -> Path:
        """Give what an image serves."""
        found = self.images.get(image.partition("@")[2])
        if found is None:
            raise Refused(404, "NOT_FOUND", f"Image '{image}' not found.")
        return found

    # ---- Cloud Run ----------------------------------------------------------------------------------

    def run_services_get(self, path: str, query: Any, body: Any) -> dict[str, Any]:
        if path not in self.services:
            raise missing(path)
        service = self.services[path]
        told = json.dumps({k: v for k, v in service.items() if k != "etag"}, sort_keys=True)
        return {**service, "etag": hashlib.sha256(told.encode()).hexdigest()[:16]}

    def run_services_create(self, path: str, query: Any, body: Any) -> dict[str, Any]:
        name = query["serviceId"][0]
        if not re.fullmatch(r"[a-z]([-a-z0-9]{0,47}[a-z0-9])?", name):
            raise Refused(400, "INVALID_ARGUMENT", f"{name} is no name of a service")
        named = f"{path}/{name}"
        if named in self.services:
            raise Refused(409, "ALREADY_EXISTS", f"Resource '{name}' already exists.")
        self._valid(body)
        uri = f"{self.url}/at/-/{name}"
        self.services[named] = {"name": named, "uri": uri, "reconciling": True, **body}
        return self._released(named)

    def run_services_patch(self, path: str, query: Any, body: Any) -> dict[str, Any]:
        found = self.run_services_get(path, query, body)
        if self.conflicts:
            self.conflicts -= 1
            self.services[path]["description"] = f"changed by somebody else {self.conflicts}"
            found = self.run_services_get(path, query, body)
        if body.get("etag", found["etag"]) != found["etag"]:
            raise Refused(409, "ABORTED", "Conflict for resource: the etag does not match")
        mask = query["updateMask"][0].split(",")
        if strangers := set(mask) - {"labels", "ingress", "template", "traffic"}:
            raise Refused(400, "INVALID_ARGUMENT", f"updateMask has {strangers}")
        changed = {**found, **{each: body[each] for each in mask}}
        self._valid(changed)
        self._valid_traffic(path, changed.get("traffic", []))
        before = self.services[path]["template"]
        self.services[path] |= {each: body[each] for each in mask}
        new = "template" in mask and (body["template"] != before or query.get("forceNewRevision") == ["true"])
        if new:
            return self._released(path)
        self.services[path]["reconciling"] = True

        def finish() -> dict[str, Any]:
            self._settle(path)
            return self.services[path]

        return self.begin(path.partition("/services/")[0], finish)

    def _valid(self, body: Mapping[str, Any]) -> None:
        template = body["template"]
        if body.get("labels", {}).keys() != {str(each) for each in body.get("labels", {})}:
            raise Refused(400, "INVALID_ARGUMENT", "labels")
        for each in [*body.get("labels", {}).values(), *template.get("labels", {}).values()]:
            if not re.fullmatch(r"[a-z0-9_-]{0,63}", each):
                raise Refused(400, "INVALID_ARGUMENT", f"label {each!r}")
        self._require_account(template["serviceAccount"])
        container = template["containers"][0]
        for name in ("startupProbe", "livenessProbe"):
            probe = container[name]
            if probe.get("timeoutSeconds", 1) > probe.get("periodSeconds", 10):
                raise Refused(400, "INVALID_ARGUMENT", f"{name}.timeoutSeconds must not exceed periodSeconds")
        startup = container["startupProbe"]
        if startup["periodSeconds"] * startup["failureThreshold"] > 240:
            raise Refused(400, "INVALID_ARGUMENT", "startupProbe may take 240 seconds")
        if set(container["resources"]["limits"]) - {"cpu", "memory"}:
            raise Refused(400, "INVALID_ARGUMENT", "limits")
        if any(each["name"] in {"PORT", "K_SERVICE"} for each in container["env"]):
            raise Refused(400, "INVALID_ARGUMENT", "The following reserved env names were provided: PORT")

    def _valid_traffic(self, path: str, traffic: list[dict[str, Any]]) -> None:
        tags = [each["tag"] for each in traffic if each.get("tag")]
        if len(set(tags)) < len(tags) or any(
            not re.fullmatch(r"[a-z]([-a-z0-9]{0,44}[a-z0-9])?", each) for each in tags
        ):
            raise Refused(400, "INVALID_ARGUMENT", f"tags {tags}")
        if traffic and sum(each.get("percent", 0) for each in traffic) != 100:
            raise Refused(400, "INVALID_ARGUMENT", "traffic must sum to 100")
        for each in traffic:
            if each["type"].endswith("REVISION") and f"{path}/revisions/{each['revision']}" not in self.revisions:
                raise Refused(400, "INVALID_ARGUMENT", f"Revision {each['revision']} does not exist")

    def _released(self, path: str) -> dict[str, Any]:
        number = next(self.numbers)
        service = self.services[path]
        name = f"{path}/revisions/{path.rpartition('/')[2]}-{number:05d}-abc"
        self.revisions[name] = {
            "name": name,
            "createTime": f"2026-11-22T10:00:00.{number:06d}Z",
            "labels": service["template"].get("labels", {}),
            "conditions": [{"type": "Ready", "state": "CONDITION_RECONCILING"}],
        }
        service |= {"reconciling": True, "latestCreatedRevision": name}
        template = service["template"]

        def finish() -> dict[str, Any]:
            self._start(path, name, template)
            self._settle(path)
            return service

        return self.begin(path.partition("/services/")[0], finish, looks=3)

    def _start(self, path: str, name: str, template: Mapping[str, Any]) -> None:
        """Start a revision, and see whether its startup probe says yes."""
        container = template["containers"][0]
        try:
            bundle = self.bundle(container["image"])
            environ = dict(self._variable(each, template["serviceAccount"]) for each in container["env"])
            port = self.instances.port(bundle, environ)
            if container["ports"][0]["containerPort"] != 8080 or not self.instances.answers(
                port, container["startupProbe"]["httpGet"]["path"]
            ):
                raise Refused(400, "FAILED", "The user-provided container failed the configured startup probe checks.")
        except Refused as error:
            message = f"Revision '{name.rpartition('/')[2]}' is not ready and cannot serve traffic. {error}"
            self.revisions[name]["conditions"] = [{"type": "Ready", "state": "CONDITION_FAILED", "message": message}]
            self.services[path] |= {"reconciling": False}
            self.services[path]["terminalCondition"] = {
                "type": "Ready",
                "state": "CONDITION_FAILED",
                "message": message,
            }
            raise Refused(400, "FAILED", message) from None
        self.ports[name] = port
        self.revisions[name]["conditions"] = [{"type": "Ready", "state": "CONDITION_SUCCEEDED"}]
        self.services[path]["latestReadyRevision"] = name

    def _variable(self, told: Mapping[str, Any], account: str) -> tuple[str, str]:
        if "value" in told:
            return told["name"], told["value"]
        read = told["valueSource"]["secretKeyRef"]
        named = f"projects/{PROJECT}/secrets/{read['secret']}"
        if not self.allows(named, "roles/secretmanager.secretAccessor", f"serviceAccount:{account}"):
            raise Refused(403, "SECRETS_ACCESS_CHECK_FAILED", f"Permission denied on secret: {named}")
        if read["version"] != "latest":
            raise Refused(400, "INVALID_ARGUMENT", "version")
        return told["name"], self.versions[named][-1]

    def _settle(self, path: str) -> None:
        service, found = self.services[path], []
        for each in service.get("traffic") or [{"type": "TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST", "percent": 100}]:
            tag = each.get("tag")
            uri = {"uri": f"{self.url}/at/{tag}/{path.rpartition('/')[2]}"} if tag else {}
            found.append({**each, **uri})
        service["trafficStatuses"] = found
        service["reconciling"] = False
        service["terminalCondition"] = {"type": "Ready", "state": "CONDITION_SUCCEEDED"}

    def run_services_delete(self, path: str, query: Any, body: Any) -> dict[str, Any]:
        self.run_services_get(path, query, body)

        def finish() -> dict[str, Any]:
            self.services.pop(path, None)
            self.policies.pop(path, None)
            for name in [each for each in self.revisions if each.startswith(path)]:
                del self.revisions[name]
            return {}

        return self.begin(path.partition("/services/")[0], finish)

    def run_services_revisions_list(self, path: str, query: Any, body: Any) -> dict[str, Any]:
        service = path.removesuffix("/revisions")
        if service not in self.services:
            raise missing(service)
        return {"revisions": [each for name, each in self.revisions.items() if name.startswith(path)]}

    def route(self, tag: str, name: str, headers: Mapping[str, str]) -> int:
        """Let a caller of a service in, and give the port of the revision that answers."""
        path = next((each for each in self.services if each.endswith(f"/services/{name}")), "")
        service = self.services.get(path)
        if service is None:
            raise missing(name)
        if not self.allows(path, "roles/run.invoker", f"serviceAccount:{CALLER}"):
            raise Refused(403, "FORBIDDEN", "Your client does not have permission to get URL")
        if not self.allows(path, "roles/run.invoker", ""):
            self.require_token(headers, service["uri"])
        for each in service.get("trafficStatuses", ()):
            if each.get("tag") == tag or (tag == "-" and each.get("percent") == 100):
                revision = each.get("revision") or service["latestReadyRevision"].rpartition("/")[2]
                return self.ports[f"{path}/revisions/{revision}"]
        raise missing(tag)

    # ---- Vertex AI ----------------------------------------------------------------------------------

    def aiplatform_models_upload(self, path: str, query: Any, body: Any) -> dict[str, Any]:
        parent = path.removesuffix("/models:upload")
        model, spec = body["model"], body["model"]["containerSpec"]
        name = body.get("parentModel") or f"{parent}/models/{body['modelId']}"
        if bool(body.get("parentModel")) != (name in self.models):
            raise Refused(400, "FAILED_PRECONDITION", f"{name}: parentModel, if and only if there is one")
        if not re.fullmatch(r"[a-z_-][a-z0-9_-]{0,62}", name.rpartition("/")[2]):
            raise Refused(400, "INVALID_ARGUMENT", "modelId")
        for alias in model.get("versionAliases", ()):
            self._valid_alias(alias)
        if any(each["name"].startswith("AIP_") for each in spec.get("env", ())):
            raise Refused(400, "INVALID_ARGUMENT", "AIP_ is reserved")

        def finish() -> dict[str, Any]:
            self.bundle(spec["imageUri"])
            versions = self.models.setdefault(name, [])
            made = {**model, "name": name, "versionId": str(len(versions) + 1)}
            made["versionCreateTime"] = f"2026-11-22T10:00:00.{len(versions):06d}Z"
            taken = set(model.get("versionAliases", ()))
            for each in versions:
                each["versionAliases"] = [one for one in each.get("versionAliases", ()) if one not in taken]
            versions.append(made)
            return {"model": name, "modelVersionId": made["versionId"]}

        return self.begin(f"{name}", finish, "google.cloud.aiplatform.v1.UploadModelOperationMetadata")

    def version(self, path: str) -> dict[str, Any]:
        """Give a version of a model by its number or an alias."""
        name, _, wanted = path.partition("@")
        for each in self.models.get(name, ()):
            if each["versionId"] == wanted or wanted in each.get("versionAliases", ()):
                return each
        if not wanted and self.models.get(name):
            return self.models[name][-1]
        raise missing(path)

    def aiplatform_models_get(self, path: str, query: Any, body: Any) -> dict[str, Any]:
        return self.version(path)

    def aiplatform_models_listVersions(self, path: str, query: Any, body: Any) -> dict[str, Any]:
        name = path.removesuffix(":listVersions")
        if name not in self.models:
            raise missing(name)
        return {"models": self.models[name]}

    def aiplatform_models_mergeVersionAliases(self, path: str, query: Any, body: Any) -> dict[str, Any]:
        found = self.version(path.removesuffix(":mergeVersionAliases"))
        for alias in body["versionAliases"]:
            self._valid_alias(alias)
        found["versionAliases"] = sorted({*found.get("versionAliases", ()), *body["versionAliases"]})
        return found

    def _valid_alias(self, alias: str) -> None:
        if not re.fullmatch(r"[a-z][a-zA-Z0-9-]{0,126}[a-z0-9]", alias):
            raise Refused(400, "INVALID_ARGUMENT", f"alias {alias}")

    def aiplatform_models_delete(self, path: str, query: Any, body: Any) -> dict[str, Any]:
        self.version(path)
        if any(
            one["model"].startswith(path) for each in self.endpoints.values() for one in each.get("deployedModels", ())
        ):
            raise Refused(400, "FAILED_PRECONDITION", "The Model is deployed")

        def finish() -> dict[str, Any]:
            self.models.pop(path, None)
            return {}

        return self.begin(path, finish)

    def aiplatform_endpoints_create(self, path: str, query: Any, body: Any) -> dict[str, Any]:
        name = f"{path}/{query['endpointId'][0]}"
        if name in self.endpoints:
            raise Refused(409, "ALREADY_EXISTS", f"{name} already exists")
        if not body.get("displayName"):
            raise Refused(400, "INVALID_ARGUMENT", "displayName is required")

        def finish() -> dict[str, Any]:
            self.endpoints.setdefault(name, {"name": name, **body})
            return self.endpoints[name]

        return self.begin(name, finish)

    def aiplatform_endpoints_get(self, path: str, query: Any, body: Any) -> dict[str, Any]:
        if path not in self.endpoints:
            raise missing(path)
        found = self.endpoints[path]
        told = json.dumps(found, sort_keys=True).encode()
        return {**found, "etag": hashlib.sha256(told).hexdigest()[:12]}

    def aiplatform_endpoints_patch(self, path: str, query: Any, body: Any) -> dict[str, Any]:
        found = self.aiplatform_endpoints_get(path, query, body)
        if query["updateMask"] != ["trafficSplit"]:
            raise Refused(400, "INVALID_ARGUMENT", "updateMask")
        if self.conflicts:
            self.conflicts -= 1
            raise Refused(409, "ABORTED", "etag")
        if body.get("etag", found["etag"]) != found["etag"]:
            raise Refused(409, "ABORTED", "etag")
        self._split(path, body["trafficSplit"])
        return self.aiplatform_endpoints_get(path, query, body)

    def _split(self, path: str, split: Mapping[str, int]) -> None:
        known = {each["id"] for each in self.endpoints[path].get("deployedModels", ())}
        if set(split) - known or (split and sum(split.values()) != 100):
            raise Refused(400, "INVALID_ARGUMENT", f"trafficSplit {split} of {known}")
        self.endpoints[path]["trafficSplit"] = dict(split)

    def aiplatform_endpoints_delete(self, path: str, query: Any, body: Any) -> dict[str, Any]:
        if self.aiplatform_endpoints_get(path, query, body).get("deployedModels"):
            raise Refused(400, "FAILED_PRECONDITION", "Endpoint has deployed models")

        def finish() -> dict[str, Any]:
            self.endpoints.pop(path, None)
            return {}

        return self.begin(path, finish)

    def aiplatform_endpoints_operations_list(self, path: str, query: Any, body: Any) -> dict[str, Any]:
        named = path.removesuffix("/operations")
        found = [each for name, each in self.operations.items() if name.startswith(f"{named}/operations/")]
        return {"operations": [each.told() for each in found]}

    def aiplatform_endpoints_deployModel(self, path: str, query: Any, body: Any) -> dict[str, Any]:
        named, told = path.removesuffix(":deployModel"), body["deployedModel"]
        self.aiplatform_endpoints_get(named, query, body)
        model = self.version(told["model"])
        self._require_account(told["serviceAccount"])
        resources = told["dedicatedResources"]
        if not 1 <= resources["minReplicaCount"] <= resources.get("maxReplicaCount", resources["minReplicaCount"]):
            raise Refused(400, "INVALID_ARGUMENT", "minReplicaCount")
        identity = str(next(self.numbers))
        split = {each if each != "0" else identity: part for each, part in body.get("trafficSplit", {}).items()}

        def finish() -> dict[str, Any]:
            spec = model["containerSpec"]
            environ = {each["name"]: each["value"] for each in spec.get("env", ())}
            environ |= {"AIP_PREDICT_ROUTE": spec["predictRoute"], "AIP_HEALTH_ROUTE": spec["healthRoute"]}
            port = self.instances.port(self.bundle(spec["imageUri"]), {**environ, "AIP_HTTP_PORT": "8080"})
            if spec["ports"] != [{"containerPort": 9696}] or not self.instances.answers(port, spec["healthRoute"]):
                raise Refused(400, "FAILED_PRECONDITION", "Model server never became ready.")
            self.ports[f"{named}/{identity}"] = port
            made = {**told, "id": identity, "model": model["name"], "modelVersionId": model["versionId"]}
            self.endpoints[named].setdefault("deployedModels", []).append(made)
            if split:
                self._split(named, split)
            return {"deployedModel": made}

        return self.begin(named, finish, "google.cloud.aiplatform.v1.DeployModelOperationMetadata", looks=3)

    def aiplatform_endpoints_undeployModel(self, path: str, query: Any, body: Any) -> dict[str, Any]:
        named = path.removesuffix(":undeployModel")
        found = self.aiplatform_endpoints_get(named, query, body)
        there = found.get("deployedModels", [])
        if body["deployedModelId"] not in [each["id"] for each in there]:
            raise Refused(400, "INVALID_ARGUMENT", "there is no such deployed model")
        split = found.get("trafficSplit", {})
        if split.get(body["deployedModelId"]) and len(there) > 1 and not body.get("trafficSplit"):
            raise Refused(400, "FAILED_PRECONDITION", "it still has traffic")

        def finish() -> dict[str, Any]:
            left = [each for each in there if each["id"] != body["deployedModelId"]]
            self.endpoints[named]["deployedModels"] = left
            kept = {name: part for name, part in split.items() if name != body["deployedModelId"]}
            self.endpoints[named]["trafficSplit"] = kept if left else {}
            return {}

        return self.begin(named, finish, "google.cloud.aiplatform.v1.UndeployModelOperationMetadata")

    def aiplatform_endpoints_predict(self, path: str, query: Any, body: Any) -> dict[str, Any]:
        named = path.removesuffix(":predict")
        endpoint = self.aiplatform_endpoints_get(named, query, body)
        live = max(endpoint.get("trafficSplit", {}).items(), key=lambda each: each[1], default=("", 0))[0]
        deployed = next((each for each in endpoint.get("deployedModels", ()) if each["id"] == live), None)
        if deployed is None:
            raise Refused(400, "FAILED_PRECONDITION", "no deployed model has traffic")
        model = self.version(f"{deployed['model']}@{deployed['modelVersionId']}")
        asked = http.client.HTTPConnection("127.0.0.1", self.ports[f"{named}/{live}"], timeout=20)
        sent = json.dumps(body).encode()
        asked.request("POST", model["containerSpec"]["predictRoute"], sent, {"Content-Type": "application/json"})
        answer = asked.getresponse()
        data = answer.read()
        asked.close()
        if answer.status != 200:
            raise Refused(400, "INVALID_ARGUMENT", data.decode())
        told = json.loads(data, parse_int=float)  # as a protobuf Value carries numbers
        return {**told, "deployedModelId": live, "model": model["name"], "modelVersionId": model["versionId"]}


class Handler(Answering):
    """One connection."""

    invalid = "INVALID_ARGUMENT"

    def answer(self, path: str, query: dict[str, list[str]], data: bytes) -> None:
        cloud = self.server.cloud
        if path == "/token":
            self.tell(200, cloud.signed_in(urllib.parse.parse_qs(data.decode())))
        elif path.startswith("/at/"):
            self._forward(path, data)
        elif cloud.throttle and next(cloud.numbers) % cloud.throttle == 0:
            self.tell(429, {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED"}}, {"Retry-After": "0"})
        else:
            body = json.loads(data) if data else None
            self.tell(200, cloud.answer(self.command, path, query, body, self.headers))

    def words(self, refused: Refused) -> dict[str, Any]:
        return {"code": refused.status, "status": refused.code, "message": str(refused)}

    def _forward(self, path: str, data: bytes) -> None:
        _, _, tag, name, rest = path.split("/", 4)
        self.forward(self.server.cloud.route(tag, name, dict(self.headers)), f"/{rest}", data)


@contextmanager
def google(instances: Instances, folder: Path) -> Iterator[Google]:
    """Run a cloud on a port of this machine."""
    server = Server(("127.0.0.1", 0), Handler)
    server.cloud = Google(instances, folder)
    server.cloud.url = f"http://127.0.0.1:{server.server_port}"
    with listening(server):
        yield server.cloud
