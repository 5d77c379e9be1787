"""Azure Container Apps: a container that scales by its requests; a new revision is tried before it is live.

image --*revision*--> a revision without traffic, at an address of its own --*trial*--> --*traffic*--> the app
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from ketch import extras
from ketch.deploy import HOURS, Option, Options, Shipment, Target, smoke
from ketch.deploy import azure as az
from ketch.deploy.azure import Place, arm
from ketch.deploy.images import fingerprint, image_tag
from ketch.deploy.registry import ABSENT, PINNED, pushed
from ketch.errors import CloudRefused, DeployError, NotGiven, UsageError
from ketch.steps import (
    Answers,
    Both,
    Call,
    Done,
    Got,
    Hands,
    Plan,
    Question,
    Secret,
    Step,
    Text,
    resolved,
)
from ketch.steps.rest import Api, Rest

NAME: Final = "containerapps"
AT: Final = "2026-07-01"
APP: Final = "Microsoft.App/containerApps"
ENVIRONMENT: Final = "Microsoft.App/managedEnvironments"
WORKSPACE: Final = "Microsoft.OperationalInsights/workspaces"
NAMESPACES: Final = ("Microsoft.App", "Microsoft.ContainerRegistry", "Microsoft.ManagedIdentity")
LOGS: Final = "Microsoft.OperationalInsights"
PORT: Final = 9696
LONGEST_NAME: Final = 32
KEYS: Final = "api-keys"  # the app's own secret
TRIAL_IN: Final = 180.0
PREVIOUS: Final = "previous"  # the label of the revision that was live before
WITHDRAWN: Final = "withdrawn"  # of one that was rolled back
LABELS: Final = (PREVIOUS, WITHDRAWN)
SIZES: Final = ("0.25", "0.5", "0.75", "1.0", "1.25", "1.5", "1.75", "2.0")  # cores, each with twice as many GiB
MILLIONS: Final = 1.0  # of requests a month, for the estimate
SECONDS: Final = 0.05  # that one takes of a replica
LINES: Final = 100  # of a log
ACTIONS: Final = (
    "Microsoft.App/containerApps/write",
    "Microsoft.App/managedEnvironments/write",
    "Microsoft.Authorization/roleAssignments/write",
    "Microsoft.ContainerRegistry/registries/write",
    "Microsoft.ManagedIdentity/userAssignedIdentities/write",
)
OPTIONS: Final = (
    *az.OPTIONS,
    Option("internal", "Let it be reached from within its environment only.", False),
    Option("cpu", "Cores of a replica; it has twice as many GiB of memory.", "0.5", SIZES),
    Option("concurrency", "Requests at once for which there is to be one replica more.", 50),
    Option("min_replicas", "Replicas that always run; 0 costs nothing while nobody asks.", 0),
    Option("max_replicas", "Replicas at most.", 10),
    Option("log_analytics", "Keep the logs in a workspace; otherwise only the last lines can be read.", False),
)


def plan(shipment: Shipment, options: Options) -> Plan:
    """Say how a model gets to Container Apps.

    Raises:
        UsageError: an option has a value that Container Apps does not take.
    """
    where = _place(shipment.name, options)
    _require_sane(options)
    image, built, tagged = _image(where, shipment, options)
    body = app(where, image, options)
    release = f"r{fingerprint(body, shipment.opened.sha256, digits=12)}"
    amends = (_withdrawn(where),)
    namespaces = (*NAMESPACES, *((LOGS,) if options["log_analytics"] else ()))
    return Plan(
        NAME,
        shipment.name,
        (
            az.registered(where, namespaces),
            az.group(where),
            *_environment(where, options),
            *built,
            _key(where, shipment.key),
            _revision(where, body, release, amends),
            replace(
                smoke(shipment, Text(("https://", Got("revision", ("fqdn",)))), Got("key"), within=TRIAL_IN),
                name="trial",
                title="Ask the new revision for its golden predictions, before anybody else does",
                amends=amends,
            ),
            replace(_traffic(where), amends=amends),
            _retired(where),
            smoke(shipment, Text(("https://", Got("app", ("fqdn",)))), Got("key"), amends=amends),
        ),
        files={
            "azuredeploy.json": template(where, body, options),
            "containerapp.yaml": written(where, body, tagged),
        },
        uses=_uses(options),
        notes=_notes(options),
    )


def _place(name: str, options: Options) -> Place:
    if len(name) > LONGEST_NAME:
        raise UsageError(f"{name} is too long a name", hint=f"Give --name with {LONGEST_NAME} letters at most.")
    return az.place(name, options)


def _require_sane(options: Options) -> None:
    if not 0 <= options["min_replicas"] <= options["max_replicas"] <= 1000 or options["max_replicas"] < 1:
        raise UsageError("max-replicas must be at least 1, and at least min-replicas", hint="Give both anew.")
    if not 1 <= options["concurrency"] <= 1000:
        raise UsageError("concurrency must be from 1 to 1000", hint="Leave --concurrency out for 50.")
    if (given := str(options["image"])) and not PINNED.fullmatch(given):
        raise UsageError(
            f"{given[:80]!r} does not name an image by its digest",
            hint="Give --image such as NAME.azurecr.io/churn@sha256:…",
        )


def _image(where: Place, shipment: Shipment, options: Options) -> tuple[str | Text, tuple[Step, ...], str]:
    """Give the image's name by digest, the steps that make it so, and its name by its tag."""
    if given := str(options["image"]):
        return given, (az.identity(where), *(az.registry(where) if options["registry"] else ())), given
    step, image = pushed(az.images(where), shipment.name, shipment)
    tagged = f"{where.server}/{shipment.name}:{image_tag(shipment)}"
    return image, (az.identity(where), *az.registry(where), step), tagged


# ---- what is made ------------------------------------------------------------------------------------


def app(where: Place, image: str | Text, options: Options) -> dict[str, Any]:
    """Describe the app, as Resource Manager takes it, without its key and the name of its revision."""
    pulls = bool(options["registry"]) or not options["image"]
    return {
        "location": where.location,
        "tags": where.tags,
        "identity": {"type": "UserAssigned", "userAssignedIdentities": {where.identity: {}}},
        "properties": {
            "environmentId": where.resource(ENVIRONMENT),
            "configuration": {
                "activeRevisionsMode": "Multiple",
                "maxInactiveRevisions": 10,
                "ingress": {
                    "external": not options["internal"],
                    "targetPort": PORT,
                    "transport": "auto",
                    "allowInsecure": False,
                },
                "registries": [{"server": where.server, "identity": where.identity}] if pulls else [],
            },
            "template": {
                "containers": [_container(where, image, options)],
                "scale": {
                    "minReplicas": options["min_replicas"],
                    "maxReplicas": options["max_replicas"],
                    "rules": [
                        {"name": "http", "http": {"metadata": {"concurrentRequests": str(options["concurrency"])}}}
                    ],
                },
            },
        },
    }


def _container(where: Place, image: str | Text, options: Options) -> dict[str, Any]:
    def probe(kind: str, path: str, every: int, failures: int) -> dict[str, Any]:
        return {
            "type": kind,
            "httpGet": {"path": path, "port": PORT, "scheme": "HTTP"},
            "periodSeconds": every,
            "timeoutSeconds": 5,
            "failureThreshold": failures,
        }

    return {
        "name": where.name,
        "image": image,
        "env": [{"name": "KETCH_API_KEYS", "secretRef": KEYS}],
        "resources": {"cpu": float(options["cpu"]), "memory": f"{2 * float(options['cpu']):g}Gi"},
        "probes": [
            probe("Startup", "/health/ready", 10, 10),
            probe("Readiness", "/health/ready", 10, 3),
            probe("Liveness", "/health/live", 10, 3),
        ],
    }


def _environment(where: Place, options: Options) -> tuple[Step, ...]:
    """Make the steps of the environment, and of the workspace for its logs where one is wanted."""
    path, kept = where.resource(ENVIRONMENT), where.resource(WORKSPACE)
    if not options["log_analytics"]:
        body = {"properties": {"zoneRedundant": False}}
        return (az.resource("environment", f"Environment {where.name}", where, path, AT, body),)
    workspace = {"properties": {"sku": {"name": "PerGB2018"}, "retentionInDays": 30}}
    logs = {
        "destination": "log-analytics",
        "logAnalyticsConfiguration": {
            "customerId": Got("workspace", ("properties", "customerId")),
            "sharedKey": Got("logs_key", ("primarySharedKey",)),
        },
    }
    written_to = {"properties": {"zoneRedundant": False, "appLogsConfiguration": logs}}
    return (
        az.resource("workspace", f"Workspace {where.name} for logs", where, kept, az.LOGS_AT, workspace),
        az.logs_key(where, kept),
        az.resource("environment", f"Environment {where.name}", where, path, AT, written_to),
    )


# ---- files -------------------------------------------------------------------------------------------


def template(where: Place, body: Mapping[str, Any], options: Options) -> bytes:
    """Write a template of Resource Manager, for `az deployment group create`; the key is asked for."""
    pulls = bool(body["properties"]["configuration"]["registries"])
    named = "[resourceId('Microsoft.ManagedIdentity/userAssignedIdentities', parameters('name'))]"
    environment = f"[resourceId('{ENVIRONMENT}', parameters('name'))]"
    told = json.loads(json.dumps(body, default=str))
    told["identity"]["userAssignedIdentities"] = {named: {}}
    told["properties"]["environmentId"] = environment
    told["properties"]["template"]["containers"][0]["image"] = "[parameters('image')]"
    settled = told["properties"]["configuration"]
    settled["secrets"] = [{"name": KEYS, "value": "[parameters('apiKeys')]"}]
    settled["registries"] = [{"server": "[parameters('registry')]", "identity": named}] if pulls else []
    whole = {
        "$schema": "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#",
        "contentVersion": "1.0.0.0",
        "parameters": {
            "name": {"type": "string", "defaultValue": where.name},
            "image": {"type": "string", "metadata": {"description": "The image, by its digest"}},
            "apiKeys": {"type": "securestring", "metadata": {"description": "A long random key for callers"}},
            **({"registry": {"type": "string", "defaultValue": where.server}} if pulls else {}),
        },
        "resources": [
            {**_armed("Microsoft.ManagedIdentity/userAssignedIdentities", az.IDENTITY_AT), **_common(where)},
            {**_armed(ENVIRONMENT, AT), **_common(where), "properties": {"zoneRedundant": False}},
            {**_armed(APP, AT), "dependsOn": [named, environment], **told},
        ],
    }
    return json.dumps(whole, indent=2).encode() + b"\n"


def _armed(kind: str, version: str) -> dict[str, Any]:
    return {"type": kind, "apiVersion": version, "name": "[parameters('name')]"}


def _common(where: Place) -> dict[str, Any]:
    return {"location": where.location, "tags": where.tags}


def written(where: Place, body: Mapping[str, Any], image: str) -> bytes:
    """Write the app as YAML, for `az containerapp create --yaml`; the key is left to be filled in."""
    told = json.loads(json.dumps(body, default=str))
    told["properties"]["template"]["containers"][0]["image"] = image
    told["properties"]["configuration"]["secrets"] = [{"name": KEYS, "value": "PUT-A-LONG-RANDOM-KEY-HERE"}]
    yaml: Any = extras.load("yaml")
    text: str = yaml.safe_dump({"name": where.name, "type": APP, **told}, sort_keys=False)
    how = f"# az containerapp create --name {where.name} --resource-group {where.group} --yaml containerapp.yaml\n"
    return (how + text).encode()


def _uses(options: Options) -> dict[str, float]:
    cores = float(options["cpu"])
    seconds = MILLIONS * 1e6 * SECONDS + options["min_replicas"] * HOURS * 3600
    uses = {
        "azure.containerapps.vcpu-second": seconds * cores,
        "azure.containerapps.gib-second": seconds * cores * 2,
    }
    uses |= {} if options["registry"] or options["image"] else {"azure.acr.basic": HOURS / 24}
    return uses | ({"azure.logs.gib": 1.0} if options["log_analytics"] else {})


def _notes(options: Options) -> tuple[str, ...]:
    inside = ("it is tried from here: run this from within its environment",) if options["internal"] else ()
    always = options["min_replicas"]
    kept = (f"the revision before stays, with {always} replicas, until the next deployment",) if always else ()
    return (
        "it answers everybody who has the key",
        *inside,
        *kept,
        f"the estimate is for {MILLIONS:,.0f} million requests a month of {SECONDS * 1000:,.0f} ms each",
    )


# ---- what Azure says ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Held:
    """What Azure says of an app and its revisions."""

    app: Mapping[str, Any]
    revisions: Sequence[Mapping[str, Any]] = ()

    @property
    def state(self) -> str:
        """Say whether something is under way."""
        return str(self.app["properties"].get("provisioningState", ""))

    @property
    def suffix(self) -> str:
        """Name what the latest revision was called when it was asked for."""
        return str((self.app["properties"].get("template") or {}).get("revisionSuffix") or "")

    @property
    def fqdn(self) -> str:
        """Give the host of the app."""
        return str(self._ingress.get("fqdn", ""))

    @property
    def _ingress(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.app["properties"].get("configuration", {}).get("ingress") or {}
        return found

    @property
    def traffic(self) -> list[Mapping[str, Any]]:
        """List who gets how much."""
        return list(self._ingress.get("traffic") or ())

    @property
    def live(self) -> str:
        """Name the revision that gets the most; empty where nothing is ready."""
        best: Mapping[str, Any] = max(self.traffic, key=lambda each: each.get("weight", 0), default={})
        return str(best.get("revisionName") or self.app["properties"].get("latestReadyRevisionName", ""))

    def labelled(self, label: str) -> str:
        """Name the revision that has a label; empty where there is none."""
        return next((str(each.get("revisionName", "")) for each in self.traffic if each.get("label") == label), "")

    def release(self, release: str) -> list[Mapping[str, Any]]:
        """List the revisions of a release, the newest last."""
        own = [each for each in self.revisions if f"--{release}" in str(each["name"])]
        return sorted(own, key=lambda each: str(each["properties"].get("createdTime", "")))

    def split(self, live: str, **labels: str) -> list[dict[str, object]]:
        """Say who gets the traffic, and who has which of our labels; labels that others gave stay."""
        others: list[dict[str, object]] = [
            {"revisionName": each["revisionName"], "weight": 0, "label": each["label"]}
            for each in self.traffic
            if each.get("label") and each["label"] not in LABELS and each.get("revisionName") not in {None, live}
        ]
        own: list[dict[str, object]] = [
            {"revisionName": each, "weight": 0, "label": label}
            for label, each in labels.items()
            if each not in {"", live}
        ]
        return [{"revisionName": live, "weight": 100}, *own, *others]


def _look(where: Place) -> Both:
    path = where.resource(APP)
    return Both(
        {"app": arm("GET", path, AT), "revisions": arm("GET", f"{path}/revisions", AT)},
        absent=ABSENT,
    )


def _held(found: Any) -> Held | None:
    if not found or not found.get("app"):
        return None
    return Held(found["app"], (found.get("revisions") or {}).get("value", ()))


def _required(found: Any) -> Held:
    held = _held(found)
    if held is None:
        raise NotGiven("There is no such app", hint="ketch deploy containerapps MODEL makes one.")
    return held


def _moved(where: Place, traffic: Sequence[Mapping[str, object]]) -> Rest:
    change = {"properties": {"configuration": {"ingress": {"traffic": traffic}}}}
    return arm("PATCH", where.resource(APP), AT, change)


# ---- the steps ---------------------------------------------------------------------------------------


def _key(where: Place, key: Secret) -> Step:
    """Find the key that the app has, else take the new one: gives the key."""

    def act(found: Any, got: Answers) -> Call | Done:
        kept = {each.get("name"): each.get("value") for each in (found or {}).get("value", ())}
        return Done(Secret(kept[KEYS]) if kept.get(KEYS) else key)

    look = arm("POST", f"{where.resource(APP)}/listSecrets", AT)
    return Step("key", "The calling key", look=look, act=act, absent=ABSENT, secret=True)


def _revision(where: Place, body: Mapping[str, Any], release: str, amends: tuple[Step, ...]) -> Step:
    """Make the revision, without traffic where another has it: gives its `name` and `fqdn`, and what was `before`."""

    def act(found: Any, got: Answers) -> Call | Done:
        held = _held(found)
        if held is None:
            return arm("PUT", where.resource(APP), AT, _released(body, got.get("key", Got("key")), release, None))
        az.require_ours(held.app, where)
        own = held.release(release)
        if own and not _has_failed(own[-1]):
            name = str(own[-1]["name"])
            if not own[-1]["properties"].get("active", True):
                return arm("POST", f"{where.resource(APP)}/revisions/{name}/activate", AT)
            return Done(found)
        if held.state == "InProgress" and held.suffix.startswith(release):
            return Done(found)
        suffix = f"{release}-{len(own)}" if own else release  # a name is never free again
        kept = held.split(held.live, **{PREVIOUS: held.labelled(PREVIOUS)}) if held.live else None
        whole = _released(resolved(body, got), got["key"], suffix, kept)
        return arm("PUT", where.resource(APP), AT, whole)

    def until(found: Any, got: Answers) -> Any:
        held = _held(found)
        own = held.release(release) if held else []
        if held is None or held.state == "InProgress" or not own:
            return _require_working(held, own)
        if _has_failed(own[-1]):
            raise DeployError(
                f"The revision does not start: {_said(own[-1])}",
                hint="--logs shows what it said; mend that, and deploy.",
            )
        if own[-1]["properties"].get("provisioningState") != "Provisioned":
            return None
        name = str(own[-1]["name"])
        return {"name": name, "fqdn": own[-1]["properties"]["fqdn"], "before": held.live}

    return Step(
        "revision",
        f"App {where.name}: a revision with this model",
        look=_look(where),
        act=act,
        until=until,
        again=az.BUSY,
        asks=az.LONGEST,
        amends=amends,
        patience=az.LONGEST,
        every=az.EVERY,
    )


def _require_working(held: Held | None, own: Sequence[Any]) -> None:
    """Refuse to wait for an app that came to nothing."""
    if held is not None and held.state in {"Failed", "Canceled"} and not own:
        raise DeployError(f"The app was not made: {held.state}", hint="The portal shows more; run the command again.")


def _released(body: Mapping[str, Any], key: Any, suffix: str, traffic: Any) -> dict[str, Any]:
    properties = body["properties"]
    settled = properties["configuration"]
    ingress = {**settled["ingress"], "traffic": traffic or [{"latestRevision": True, "weight": 100}]}
    configuration = {**settled, "ingress": ingress, "secrets": [{"name": KEYS, "value": key}]}
    named = {**properties["template"], "revisionSuffix": suffix}
    return {**body, "properties": {**properties, "configuration": configuration, "template": named}}


def _has_failed(revision: Mapping[str, Any]) -> bool:
    told = revision["properties"]
    return (
        "Failed" in {told.get("provisioningState"), told.get("runningState")} or told.get("healthState") == "Unhealthy"
    )


def _said(revision: Mapping[str, Any]) -> str:
    told = revision["properties"]
    return str(told.get("provisioningError") or told.get("runningState") or "Azure does not say why")


def _traffic(where: Place) -> Step:
    """Send everybody to the revision; the one before stays at hand. It gives the host of the app."""

    def act(found: Any, got: Answers) -> Call | Done:
        held, name = _required(found), got["revision"]["name"]
        if held.live == name and any(each.get("revisionName") == name for each in held.traffic):
            return Done(found)
        before = held.labelled(PREVIOUS) if held.live == name else held.live
        return _moved(where, held.split(name, **{PREVIOUS: before}))

    def until(found: Any, got: Answers) -> Any:
        held = _required(found)
        return {"fqdn": held.fqdn} if held.state == "Succeeded" and held.live == got["revision"]["name"] else None

    return Step(
        "app",
        "Send all traffic to the new revision",
        look=_look(where),
        act=act,
        until=until,
        again=az.BUSY,
        every=az.EVERY,
    )


def _retired(where: Place) -> Step:
    """Let revisions end that are neither live nor the one before."""

    def act(found: Any, got: Answers) -> Call | Done:
        held = _required(found)
        kept = {held.live, *(str(each.get("revisionName", "")) for each in held.traffic)}
        old = [
            str(each["name"])
            for each in held.revisions
            if each["properties"].get("active", True) and each["name"] not in kept
        ]
        calls = {each: arm("POST", f"{where.resource(APP)}/revisions/{each}/deactivate", AT) for each in old}
        return Both(calls) if calls else Done()

    return Step("retire", "Let older revisions end", look=_look(where), act=act, again=az.BUSY)


def _withdrawn(where: Place) -> Step:
    """Send everybody back to the revision before, when the new one turned out bad."""

    def act(found: Any, got: Answers) -> Call | Done:
        held, revision = _held(found), got.get("revision", {})
        name, before = revision.get("name", ""), revision.get("before", "")
        if held is None or not name or before in {"", name}:
            return Done()
        if held.live == name:
            return _moved(where, held.split(before, **{WITHDRAWN: name}))
        return arm("POST", f"{where.resource(APP)}/revisions/{name}/deactivate", AT)

    return Step("withdraw", "Leave the traffic with the revision before", look=_look(where), act=act, again=az.BUSY)


# ---- afterwards --------------------------------------------------------------------------------------


def rollback(name: str, options: Options) -> Plan:
    """Say how traffic goes back to the revision before."""
    where = _place(name, options)

    def act(found: Any, got: Answers) -> Call | Done:
        held = _required(found)
        before = held.labelled(PREVIOUS)
        if before:
            return _moved(where, held.split(before, **{WITHDRAWN: held.live}))
        if held.labelled(WITHDRAWN):
            return Done(found)  # it was done before, and interrupted
        raise DeployError(f"{name} has no revision before this one", hint="Deploy the model that you want instead.")

    def until(found: Any, got: Answers) -> Any:
        held = _required(found)
        return held.live if held.state == "Succeeded" and not held.labelled(PREVIOUS) else None

    title = "Send all traffic to the revision before"
    step = Step("app", title, look=_look(where), act=act, until=until, again=az.BUSY, every=az.EVERY)
    return Plan(NAME, name, (step,))


def destroy(name: str, options: Options) -> Plan:
    """Say what is removed: the app, its environment, identity, registry and logs, and the group when it is ours."""
    where = _place(name, options)
    identity = "Microsoft.ManagedIdentity/userAssignedIdentities"
    parts = [
        ("app", f"Delete app {name}", where.resource(APP), AT),
        ("environment", f"Delete environment {name}", where.resource(ENVIRONMENT), AT),
        ("identity", f"Delete identity {name}", where.resource(identity), az.IDENTITY_AT),
        ("workspace", f"Delete workspace {name}", where.resource(WORKSPACE), az.LOGS_AT),
    ]
    if not where.given_registry:
        parts.append(("registry", f"Delete registry {where.server}", where.registry, az.REGISTRY_AT))
    gone = (az.may_not_pull(where),) if where.given_registry else ()
    parts.append(("group", f"Delete resource group {where.group}, when it is ours", where.parent, az.GROUPS_AT))
    return Plan(NAME, name, (*gone, *(az.deleted(what, title, where, path, at) for what, title, path, at in parts)))


def status(name: str, options: Options) -> list[Question]:
    """Ask how an app is."""
    where = _place(name, options)

    def told(found: Any) -> Iterable[tuple[str, str]]:
        held = _held(found)
        if held is None:
            yield "--", f"there is no app {name} in {where.group}"
            return
        good = held.state == "Succeeded"
        yield "ok" if good else "mend", f"https://{held.fqdn}: {held.state.lower()}"
        shares = {each.get("revisionName") or held.live: each for each in held.traffic}
        for each in held.revisions:
            said, share = each["properties"], shares.get(each["name"], {})
            label = f", {share['label']}" if share.get("label") else ""
            state = said.get("healthState") or said.get("runningState") or ""
            yield (
                "mend" if _has_failed(each) else "ok",
                f"{each['name']}: {share.get('weight', 0)} %{label} {state}".rstrip(),
            )

    return [Question("App", _look(where), told)]


@dataclass(frozen=True)
class Tail:
    """Read the last lines that the replicas of the live revision wrote, from where each of them is run."""

    where: Place

    def sent(self) -> Mapping[str, object]:
        """Say what is asked."""
        return {"logs": f"the last {LINES} lines of each replica of {self.where.name}"}

    def done(self, hands: Hands) -> Any:
        """Read them.

        Raises:
            CloudRefused: there is no such app.
        """
        path = self.where.resource(APP)
        held = _required(_look(self.where).done(hands))
        told = arm("POST", f"{path}/getAuthtoken", AT).done(hands)["properties"]["token"]
        replicas = arm("GET", f"{path}/revisions/{held.live}/replicas", AT).done(hands)
        found: list[str] = []
        for each in replicas.get("value", ()):
            for one in each["properties"].get("containers", ()):
                found += self._lines(str(one.get("logStreamEndpoint", "")), Secret(told), hands)
        return found

    def _lines(self, url: str, token: str, hands: Hands) -> list[str]:
        api = Api("the log of Container Apps", url, lambda hands: token)
        query = {"tailLines": str(LINES), "follow": "false", "output": "text"}
        try:
            said = Rest(api, "GET", "", query=query).done(hands) or b""
        except CloudRefused as error:
            return [error.message]
        return said.decode("utf-8", "replace").splitlines() if isinstance(said, bytes) else [str(said)]


def logs(name: str, options: Options) -> list[Question]:
    """Ask for the last lines that an app wrote."""

    def told(found: Any) -> Iterable[tuple[str, str]]:
        yield from (("ok", each) for each in found)
        if not found:
            yield "--", "no replica runs, and nothing is kept without --log-analytics"

    return [Question("Log", Tail(_place(name, options)), told)]


def doctor(name: str, options: Options) -> list[Question]:
    """Ask what a deployment needs."""
    where = az.place(name or "NAME", options)
    usages = f"/subscriptions/{where.subscription}/providers/Microsoft.App/locations/{where.location}/usages"

    def told(found: Any) -> Iterable[tuple[str, str]]:
        for each in (found or {}).get("value", ()):
            used, limit = float(each.get("currentValue", 0)), float(each.get("limit", 0))
            label = (each.get("name") or {}).get("localizedValue") or (each.get("name") or {}).get("value", "")
            yield "mend" if used >= limit else "ok", f"{label}: {used:g} of {limit:g}"

    return [*az.doctor(where, NAMESPACES, ACTIONS), Question("Quotas", arm("GET", usages, AT), told)]


TARGET: Final = Target(
    NAME,
    "Azure Container Apps: a container that scales by its requests, down to none.",
    "image",
    plan,
    OPTIONS,
    status=status,
    logs=logs,
    rollback=rollback,
    destroy=destroy,
    doctor=doctor,
)
