"""Azure on loopback: Container Apps held to the models of Azure's SDK, and revisions that really run.

A revision is a process of `ketch serve`, started with the environment that was asked for, behind TLS; resources take
their time, a change of something that is still changing is refused, and every API throttles now and then.
"""

import datetime
import ipaddress
import itertools
import json
import re
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt
from azure.mgmt.appcontainers import models
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.azure_models import Wrong, require
from tests.instances import Answering, Instances, Refused, Server, listening

SUBSCRIPTION = "11111111-2222-3333-4444-555555555555"
REGISTRY = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/shared/providers/Microsoft.ContainerRegistry/registries/acme"
SIGNING = "a key that only the fake has, and long enough"
CALLER = "ana@example.com"
LOCATIONS = ("East US", "West Europe")
VERSIONS = {  # kind -> the version of its API that we speak
    "Microsoft.App": "2026-07-01",
    "Microsoft.Authorization": "2022-04-01",
    "Microsoft.ContainerRegistry": "2025-11-01",
    "Microsoft.ManagedIdentity": "2024-11-30",
    "Microsoft.OperationalInsights": "2025-02-01",
    "resources": "2025-04-01",
    "subscriptions": "2022-12-01",
}
PLAIN: Mapping[str, Mapping[str, Any]] = {  # resources that no model of this SDK describes: what their bodies may hold
    "Microsoft.ManagedIdentity/userAssignedIdentities": {},
    "Microsoft.ContainerRegistry/registries": {"sku": {"name"}, "properties": {"adminUserEnabled"}},
    "Microsoft.OperationalInsights/workspaces": {"properties": {"sku", "retentionInDays"}},
}
ROLE = "7f951dda-4ed3-4680-a7ca-43fe172d538d"


@dataclass
class Revision:
    """One revision of an app, and how it fares."""

    name: str
    template: dict[str, Any]
    created: str
    port: int = 0
    active: bool = True
    state: str = "Provisioning"
    error: str = ""


@dataclass
class App:
    """An app, its revisions, and the secrets that nobody is shown."""

    told: dict[str, Any]
    secrets: dict[str, str]
    revisions: dict[str, Revision] = field(default_factory=dict)
    looks: int = 0
    ready: str = ""


class Azure:
    """What the cloud holds."""

    def __init__(self, instances: Instances, certificate: Path) -> None:
        self.instances, self.certificate = instances, certificate
        self.url, self.host = "", ""
        self.lock = threading.RLock()
        self.images: dict[str, Path] = {}
        self.providers = {"Microsoft.ManagedIdentity"}
        self.registering: dict[str, int] = {}
        self.resources: dict[str, dict[str, Any]] = {REGISTRY: {"id": REGISTRY, "name": "acme", "properties": {}}}
        self.looks: dict[str, int] = {}
        self.apps: dict[str, App] = {}
        self.fresh: set[str] = set()  # identities that are not known everywhere yet
        self.calls: list[str] = []
        self.wrong: list[str] = []
        self.numbers = itertools.count(1)
        self.throttle = 0

    def environ(self) -> dict[str, str]:
        """Give the variables by which clients find this cloud: the identity of an App Service, as on its machines."""
        return {
            "ARM_ENDPOINT": self.url,
            "IDENTITY_ENDPOINT": f"{self.url}/msi/token",
            "IDENTITY_HEADER": "known-here-alone",
            "SSL_CERT_FILE": str(self.certificate),
        }

    def signed_in(self, query: Mapping[str, list[str]], headers: Any) -> dict[str, Any]:
        if headers.get("X-IDENTITY-HEADER") != "known-here-alone":
            raise Refused(401, "Unauthorized", "who are you?")
        resource = query["resource"][0]
        claims = {"aud": resource, "upn": CALLER, "exp": int(time.time()) + 3600}
        token = jwt.encode(claims, SIGNING, algorithm="HS256")
        expires = str(int(time.time()) + 3600)
        return {"access_token": token, "expires_on": expires, "resource": resource, "token_type": "Bearer"}

    def require_token(self, headers: Any) -> None:
        try:
            token = headers.get("Authorization", "").removeprefix("Bearer ")
            jwt.decode(token, SIGNING, algorithms=["HS256"], audience="https://management.azure.com")
        except jwt.PyJWTError as error:
            raise Refused(401, "InvalidAuthenticationToken", str(error)) from None

    # ---- one call -----------------------------------------------------------------------------------

    def answer(self, verb: str, path: str, query: dict[str, list[str]], body: Any) -> tuple[int, Any]:
        """Find out what is meant, and answer it."""
        kinds = re.findall(r"/providers/([A-Za-z.]+)(?=/|$)", path)
        whole = re.fullmatch(r"/subscriptions/[^/]+", path)
        kind = "subscriptions" if whole else "resources"
        if kinds and not re.fullmatch(r".*/providers/[A-Za-z.]+(/register)?", path):
            kind = kinds[-1]
        if query.pop("api-version", None) != [VERSIONS.get(kind)]:
            raise Wrong(f"api-version of {kind}: {path}")
        if query:
            raise Wrong(f"parameters {query}")
        if not path.startswith(f"/subscriptions/{SUBSCRIPTION}"):
            raise Refused(404, "SubscriptionNotFound", "The subscription could not be found.")
        self.calls.append(f"{verb} {path.partition(SUBSCRIPTION)[2]}")
        with self.lock:
            self._time_passes()
            return self._answer(verb, path, body)

    def _answer(self, verb: str, path: str, body: Any) -> tuple[int, Any]:
        if found := re.fullmatch(r"/subscriptions/[^/]+/providers/([A-Za-z.]+)(/register)?", path):
            return self._provider(verb, found[1])
        if re.fullmatch(r"/subscriptions/[^/]+", path):
            policies = {"spendingLimit": "Off", "quotaId": "PayAsYouGo"}
            return 200, {"displayName": "Shop", "state": "Enabled", "subscriptionPolicies": policies}
        if path.endswith("/usages"):
            name = {"value": "ManagedEnvironmentCount", "localizedValue": "Environments"}
            told = {"value": [{"name": name, "currentValue": 1, "limit": 15, "unit": "Count"}]}
            require(models.Usage, told["value"][0], "usages", asked=False)
            return 200, told
        if path.endswith("/Microsoft.Authorization/permissions"):
            self._require(path.partition("/providers/")[0])
            return 200, {"value": [{"actions": ["*"], "notActions": ["Microsoft.Authorization/*/Write"]}]}
        if "/roleAssignments/" in path:
            return self._role(verb, path, body)
        if "/containerApps/" in path:
            return self._app(verb, path, body)
        if path.endswith("/sharedKeys"):
            self._require(path.removesuffix("/sharedKeys"))
            return 200, {"primarySharedKey": "key-of-the-workspace", "secondarySharedKey": "other"}
        return self._resource(verb, path, body)

    def _time_passes(self) -> None:
        for path in list(self.looks):
            self.looks[path] -= 1
            if self.looks[path] <= 0:
                del self.looks[path]
                if self.resources[path].get("properties", {}).get("provisioningState") == "Deleting":
                    self._forget(path)
                elif path in self.resources:
                    self.resources[path].setdefault("properties", {})["provisioningState"] = "Succeeded"
        for name in [each for each in self.registering if self.registering[each] <= 0]:
            self.providers.add(name)
            del self.registering[name]
        self.registering = {name: left - 1 for name, left in self.registering.items()}
        for path, app in list(self.apps.items()):
            if app.looks:
                app.looks -= 1
                if not app.looks:
                    self._settle(path, app)

    def _forget(self, path: str) -> None:
        for each in [one for one in self.resources if one == path or one.startswith(f"{path}/")]:
            del self.resources[each]
            self.looks.pop(each, None)
        for each in [one for one in self.apps if one.startswith(f"{path}/")]:
            del self.apps[each]

    def _require(self, path: str) -> dict[str, Any]:
        if path not in self.resources:
            code = "ResourceGroupNotFound" if re.fullmatch(r".*/resourceGroups/[^/]+", path) else "ResourceNotFound"
            raise Refused(404, code, f"The Resource '{path}' was not found.")
        return self.resources[path]

    def _provider(self, verb: str, name: str) -> tuple[int, Any]:
        if verb == "POST" and name not in self.providers:
            self.registering[name] = 2
        state = (
            "Registered" if name in self.providers else "Registering" if name in self.registering else "NotRegistered"
        )
        kinds = [{"resourceType": "managedEnvironments", "locations": list(LOCATIONS)}]
        return 200, {"namespace": name, "registrationState": state, "resourceTypes": kinds}

    # ---- resources ----------------------------------------------------------------------------------

    def _resource(self, verb: str, path: str, body: Any) -> tuple[int, Any]:
        is_group = re.fullmatch(r"/subscriptions/[^/]+/resourceGroups/[^/]+", path)
        if verb == "GET":
            return 200, self._require(path)
        if verb == "DELETE":
            self._require(path).setdefault("properties", {})["provisioningState"] = "Deleting"
            self.looks[path] = 2
            return 202, None
        if verb != "PUT":
            raise Wrong(f"{verb} {path}")
        if not is_group:
            self._require(path.partition("/providers/")[0])
            self._valid(path, body)
        elif set(body) - {"location", "tags"}:
            raise Wrong(f"a group with {set(body)}")
        found = {"id": path, "name": path.rpartition("/")[2], **body}
        found["properties"] = {
            **body.get("properties", {}),
            "provisioningState": "Succeeded" if is_group else "InProgress",
        }
        if "userAssignedIdentities" in path:
            found["properties"] = {"principalId": f"principal-{next(self.numbers)}", "clientId": "x", "tenantId": "y"}
            self.fresh.add(found["properties"]["principalId"])
        elif not is_group:
            self.looks[path] = 3
        if "workspaces" in path:
            found["properties"]["customerId"] = "workspace-1"
        self.resources[path] = found
        return 201, found

    def _valid(self, path: str, body: Any) -> None:
        kind = path.partition("/providers/")[2].rpartition("/")[0]
        namespace = kind.partition("/")[0]
        if namespace not in self.providers:
            raise Refused(409, "MissingSubscriptionRegistration", f"{namespace} is not registered")
        if kind == "Microsoft.App/managedEnvironments":
            require(models.ManagedEnvironment, body, "environment", asked=True)
            logs = body["properties"].get("appLogsConfiguration")
            if logs and logs["logAnalyticsConfiguration"]["sharedKey"] != "key-of-the-workspace":
                raise Refused(400, "InvalidRequest", "the key of the workspace is wrong")
            return
        if "registries" in kind and not re.fullmatch(r"[a-zA-Z0-9]{5,50}", path.rpartition("/")[2]):
            raise Refused(400, "InvalidName", path)
        known = PLAIN[kind]
        if set(body) - {"location", "tags", *known}:
            raise Wrong(f"{kind} with {set(body)}")
        for name, inner in known.items():
            if set(body[name]) - inner:
                raise Wrong(f"{kind}.{name} with {set(body[name])}")

    def _role(self, verb: str, path: str, body: Any) -> tuple[int, Any]:
        if verb == "GET":
            return 200, self._require(path)
        if verb == "DELETE":
            self._forget(path)
            return 200, None
        properties = body["properties"]
        if set(properties) - {"roleDefinitionId", "principalId", "principalType"}:
            raise Wrong(f"role assignment with {set(properties)}")
        if not properties["roleDefinitionId"].endswith(ROLE):
            raise Refused(400, "RoleDefinitionDoesNotExist", "no such role")
        if properties["principalId"] in self.fresh:
            self.fresh.discard(properties["principalId"])
            raise Refused(400, "PrincipalNotFound", f"Principal {properties['principalId']} does not exist")
        self.resources[path] = {"id": path, "name": path.rpartition("/")[2], "properties": properties}
        return 201, self.resources[path]

    # ---- apps ---------------------------------------------------------------------------------------

    def _app(self, verb: str, path: str, body: Any) -> tuple[int, Any]:
        named = re.fullmatch(r"(.*/containerApps/[^/]+)(/.*)?", path)
        if named is None:
            raise Wrong(path)
        base, rest = named[1], named[2] or ""
        if verb == "PUT" and not rest:
            return self._put(base, body)
        app = self.apps.get(base)
        if app is None:
            raise Refused(404, "ResourceNotFound", f"The Resource '{base}' was not found.")
        if verb == "PATCH" and not rest:
            return self._patch(base, app, body)
        if verb == "DELETE" and not rest:
            del self.apps[base]
            return 202, None
        if (verb, rest) == ("GET", ""):
            return 200, self.shown(base, app)
        if (verb, rest) == ("GET", "/revisions"):
            return 200, {"value": [self._revision(base, app, each) for each in app.revisions.values()]}
        if (verb, rest) == ("POST", "/listSecrets"):
            return 200, {"value": [{"name": name, "value": value} for name, value in app.secrets.items()]}
        if (verb, rest) == ("POST", "/getAuthtoken"):
            return 200, {
                "location": app.told["location"],
                "properties": {"token": "for-the-log", "expires": "2026-11-23"},
            }
        return self._of_revision(verb, base, app, rest)

    def _of_revision(self, verb: str, base: str, app: App, rest: str) -> tuple[int, Any]:
        found = re.fullmatch(r"/revisions/([^/]+)/(activate|deactivate|replicas)", rest)
        if found is None or found[1] not in app.revisions:
            raise Refused(404, "RevisionNotFound", rest)
        if found[2] == "replicas" and verb == "GET":
            container = {"name": "churn", "logStreamEndpoint": f"{self.url}/log/{found[1]}"}
            told = {"name": "one", "properties": {"containers": [container]}}
            require(models.Replica, told, "replica", asked=False)
            return 200, {"value": [told]}
        if verb != "POST":
            raise Wrong(f"{verb} {rest}")
        if found[2] == "deactivate" and self._weight(app, found[1]):
            raise Refused(400, "RevisionHasTraffic", "it has traffic")
        app.revisions[found[1]].active = found[2] == "activate"
        return 200, None

    def _put(self, base: str, body: Any) -> tuple[int, Any]:
        require(models.ContainerApp, body, "app", asked=True)
        name, properties = base.rpartition("/")[2], body["properties"]
        if not re.fullmatch(r"[a-z]([a-z0-9-]{0,30}[a-z0-9])?", name):
            raise Refused(400, "ContainerAppInvalidName", name)
        for each in (properties["environmentId"], *body["identity"]["userAssignedIdentities"]):
            if self._require(each)["properties"].get("provisioningState", "Succeeded") != "Succeeded":
                raise Refused(400, "ManagedEnvironmentNotReadyForAppCreation", each)
        app = self.apps.get(base)
        if app and app.looks:
            raise Refused(409, "ContainerAppOperationInProgress", "Cannot modify it: something is in progress.")
        self._valid_template(properties["template"])
        suffix = properties["template"]["revisionSuffix"]
        if not re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", suffix) or len(f"{name}--{suffix}") > 54:
            raise Refused(400, "ContainerAppInvalidRevisionSuffix", suffix)
        secrets = {each["name"]: each["value"] for each in properties["configuration"].pop("secrets")}
        app = app or App({}, secrets)
        revision = f"{name}--{suffix}"
        if revision in app.revisions:
            raise Refused(400, "ContainerAppRevisionSuffixInUse", f"Revision {revision} exists")
        app.told, app.secrets, app.looks = body, secrets, 3
        created = f"2026-11-22T10:00:{next(self.numbers):02d}Z"
        app.revisions[revision] = Revision(revision, properties["template"], created)
        self._valid_traffic(app, properties["configuration"]["ingress"]["traffic"])
        self.apps[base] = app
        return 201, self.shown(base, app)

    def _valid_template(self, template: Mapping[str, Any]) -> None:
        for container in template["containers"]:
            cpu, memory = container["resources"]["cpu"], container["resources"]["memory"]
            if cpu % 0.25 or memory != f"{2 * cpu:g}Gi":
                raise Refused(400, "ContainerAppInvalidResourceTotal", f"{cpu} with {memory}")
            for probe in container["probes"]:
                if not (1 <= probe["failureThreshold"] <= 10 and 1 <= probe["periodSeconds"] <= 240):
                    raise Refused(400, "ContainerAppProbeInvalid", str(probe))

    def _valid_traffic(self, app: App, traffic: list[dict[str, Any]]) -> None:
        labels = [each["label"] for each in traffic if each.get("label")]
        if sum(each.get("weight", 0) for each in traffic) != 100 or len(set(labels)) < len(labels):
            raise Refused(400, "ContainerAppInvalidTrafficWeight", str(traffic))
        for each in traffic:
            if (
                not each.get("latestRevision")
                and not app.revisions.get(each["revisionName"], Revision("", {}, "")).active
            ):
                raise Refused(400, "RevisionNotFound", str(each))
            if each.get("revisionName") and not app.revisions.get(each["revisionName"]):
                raise Refused(400, "RevisionNotFound", str(each))

    def _patch(self, base: str, app: App, body: Any) -> tuple[int, Any]:
        require(models.ContainerApp, {"location": "x", **body}, "app", asked=True)
        if app.looks:
            raise Refused(409, "ContainerAppOperationInProgress", "Cannot modify it: something is in progress.")
        traffic = body["properties"]["configuration"]["ingress"]["traffic"]
        self._valid_traffic(app, traffic)
        app.told["properties"]["configuration"]["ingress"]["traffic"] = traffic
        app.looks = 2
        return 202, None

    def _settle(self, base: str, app: App) -> None:
        """Start what was asked for, and see whether it answers."""
        for revision in app.revisions.values():
            if revision.state != "Provisioning":
                continue
            container = revision.template["containers"][0]
            image = self.images.get(container["image"].partition("@")[2])
            if image is None:
                revision.state, revision.error = "Failed", f"ImagePullUnauthorized: {container['image']}"
                continue
            environ = {each["name"]: each.get("value") or app.secrets[each["secretRef"]] for each in container["env"]}
            revision.port = self.instances.port(image, environ)
            startup = next(each for each in container["probes"] if each["type"] == "Startup")
            port = app.told["properties"]["configuration"]["ingress"]["targetPort"]
            good = port == startup["httpGet"]["port"] == 9696
            good = good and self.instances.answers(revision.port, startup["httpGet"]["path"])
            revision.state = "Provisioned" if good else "Failed"
            if good:
                app.ready = revision.name

    def _weight(self, app: App, name: str) -> int:
        traffic = app.told["properties"]["configuration"]["ingress"]["traffic"]
        latest = list(app.revisions)[-1]
        return sum(
            each.get("weight", 0)
            for each in traffic
            if each.get("revisionName") == name or (each.get("latestRevision") and latest == name)
        )

    def shown(self, base: str, app: App) -> dict[str, Any]:
        """Give an app as it is answered: without its secrets."""
        latest = list(app.revisions.values())[-1]
        failed = latest.state == "Failed" and not app.ready
        properties = json.loads(json.dumps(app.told["properties"]))
        properties |= {
            "provisioningState": "InProgress" if app.looks else "Failed" if failed else "Succeeded",
            "latestRevisionName": latest.name,
            "latestReadyRevisionName": app.ready,
        }
        properties["configuration"]["ingress"]["fqdn"] = f"{self.host}/at/-/{base.rpartition('/')[2]}"
        properties["configuration"]["secrets"] = [{"name": each} for each in app.secrets]
        told = {"id": base, "name": base.rpartition("/")[2], **app.told, "properties": properties}
        require(models.ContainerApp, told, "our own answer", asked=False)
        return told

    def _revision(self, base: str, app: App, revision: Revision) -> dict[str, Any]:
        state = {"Provisioning": "Processing", "Provisioned": "Running", "Failed": "Failed"}[revision.state]
        told = {
            "id": f"{base}/revisions/{revision.name}",
            "name": revision.name,
            "properties": {
                "createdTime": revision.created,
                "fqdn": f"{self.host}/at/{revision.name}/{base.rpartition('/')[2]}",
                "active": revision.active,
                "provisioningState": revision.state,
                "runningState": state,
                "healthState": "Healthy" if state == "Running" else "None",
                "trafficWeight": self._weight(app, revision.name),
                **({"provisioningError": revision.error} if revision.error else {}),
            },
        }
        require(models.Revision, told, "our own answer", asked=False)
        return told

    def route(self, revision: str, name: str) -> int:
        """Give the port of the revision that answers."""
        app = next((each for path, each in self.apps.items() if path.endswith(f"/{name}")), None)
        for each in app.revisions.values() if app else ():
            if (
                app
                and each.active
                and (each.name == revision or (revision == "-" and self._weight(app, each.name) == 100))
            ):
                return each.port
        raise Refused(404, "NotFound", "Error 404 - This Container App is stopped or does not exist.")


class Handler(Answering):
    """One connection."""

    invalid = "InvalidRequestContent"

    def answer(self, path: str, query: dict[str, list[str]], data: bytes) -> None:
        cloud = self.server.cloud
        if path == "/msi/token":
            self.tell(200, cloud.signed_in(query, self.headers))
        elif path.startswith("/at/"):
            self._forward(path, data)
        elif path.startswith("/log/"):
            self._log(query)
        elif cloud.throttle and next(cloud.numbers) % cloud.throttle == 0:
            self.tell(429, {"error": {"code": "TooManyRequests"}}, {"Retry-After": "0"})
        else:
            cloud.require_token(self.headers)
            self.tell(*cloud.answer(self.command, path, query, json.loads(data) if data else None))

    def words(self, refused: Refused) -> dict[str, Any]:
        return {"code": refused.code, "message": str(refused)}

    def _log(self, query: Mapping[str, list[str]]) -> None:
        if self.headers.get("Authorization") != "Bearer for-the-log" or query["follow"] != ["false"]:
            raise Refused(401, "Unauthorized", "not for the log")
        self.send(200, b"2026-11-22T10:00:00Z first\n2026-11-22T10:00:01Z second\n", {"Content-Type": "text/plain"})

    def _forward(self, path: str, data: bytes) -> None:
        if not self.server.is_tls:
            raise Refused(301, "MovedPermanently", "by TLS only")
        _, _, revision, name, rest = path.split("/", 4)
        self.forward(self.server.cloud.route(revision, name), f"/{rest}", data)


def certify(folder: Path) -> Path:
    """Write a certificate for localhost, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "localhost.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + private)
    return path


@contextmanager
def azure(instances: Instances, folder: Path) -> Iterator[Azure]:
    """Run a cloud on two ports of this machine: one for Resource Manager, one by TLS for what runs."""
    certificate = certify(folder)
    cloud = Azure(instances, certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    servers = [Server(("127.0.0.1", 0), Handler), Server(("127.0.0.1", 0), Handler)]
    servers[1].socket = context.wrap_socket(servers[1].socket, server_side=True)
    servers[1].is_tls = True
    cloud.url = f"http://127.0.0.1:{servers[0].server_port}"
    cloud.host = f"localhost:{servers[1].server_port}"
    for server in servers:
        server.cloud = cloud
    with listening(*servers):
        yield cloud
