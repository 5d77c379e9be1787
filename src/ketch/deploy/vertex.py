"""Vertex AI: our container behind an endpoint of Google's, which asks it in its own format and by its own token.

image --*model*--> a version in the registry --*deployed*--> beside the one before --*traffic*--> the endpoint
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from ketch.bundle import Bundle
from ketch.client import hold
from ketch.deploy import HOURS, LIVE_IN, Option, Options, Shipment, Target, require_forms
from ketch.deploy import google as gcp
from ketch.deploy.google import ABSENT, Google, Place, Waited
from ketch.deploy.images import fingerprint
from ketch.errors import AnswersDiffer, DeployError, NotGiven, UsageError
from ketch.page import answered
from ketch.schema.checks import Checker
from ketch.steps import Answers, Both, Call, Done, Hands, Plan, Question, Step, Text
from ketch.steps.rest import Api

NAME: Final = "vertex"
SERVICES: Final = ("aiplatform", "artifactregistry", "iam")
PORT: Final = 9696
PREDICT: Final = "/vertex/predict"
HEALTH: Final = "/health/ready"
WITHDRAWN: Final = "withdrawn-"  # how the alias begins of a version that was rolled back
LONGEST: Final = 7200.0  # seconds that Vertex AI gives a model to come up
NOT_YET: Final = ("400", "404", "500", "503", AnswersDiffer.code)
BUSY: Final = ("409",)
PERMISSIONS: Final = (
    "aiplatform.endpoints.create",
    "aiplatform.endpoints.deploy",
    "aiplatform.endpoints.predict",
    "aiplatform.endpoints.undeploy",
    "aiplatform.models.upload",
    "artifactregistry.repositories.create",
    "artifactregistry.repositories.uploadArtifacts",
    "iam.serviceAccounts.actAs",
    "iam.serviceAccounts.create",
    "serviceusage.services.enable",
)
OPTIONS: Final = (
    *gcp.OPTIONS,
    Option("machine", "The machine type of a replica.", "n1-standard-2"),
    Option("min_replicas", "Replicas that always run; each is paid for by the hour.", 1),
    Option("max_replicas", "Replicas at most.", 2),
    Option("keep_previous", "Leave the version before deployed, without traffic: it goes on costing.", False),
)


def plan(shipment: Shipment, options: Options) -> Plan:
    """Say how a model gets to an endpoint of Vertex AI.

    Raises:
        UsageError: an option has a value that Vertex AI does not take.
    """
    where = gcp.place(NAME, shipment.name, options)
    require_forms(options, {"machine": (r"[a-z]\w*(-\w+)+", "n1-standard-2")})
    if not 1 <= options["min_replicas"] <= options["max_replicas"]:
        raise UsageError("max-replicas must be at least min-replicas, and that at least 1", hint="Give both anew.")
    built, image = gcp.images(shipment, options, where)
    container, resources = _container(image), _resources(options)
    release = "r" + fingerprint(container, resources, shipment.opened.sha256, digits=12)
    before = (_back(where), _undeployed(where, "recall", "Undeploy the new model", _is_new))
    retired = () if options["keep_previous"] else (_undeployed(where, "retire", "Undeploy the model before", _is_old),)
    return Plan(
        NAME,
        shipment.name,
        (
            gcp.enabled(where, SERVICES),
            gcp.account(where),
            *built,
            _model(where, container, release),
            _endpoint(where),
            _deployed(where, release, lambda got: _deployment(where, got["model"], resources, release)),
            replace(_traffic(where), amends=before),
            replace(_asked(where, shipment.opened), name="trial", amends=before),
            *retired,
            _asked(where, shipment.opened),
        ),
        uses={
            f"google.vertex.{options['machine']}": HOURS * options["min_replicas"],
            "google.artifacts.gib": 0.2,
        },
        notes=(
            "Google lets in whoever may aiplatform.endpoints.predict; the model itself asks for no key",
            "a replica comes up in ten minutes or so, and is paid for until it is undeployed",
        ),
    )


def _container(image: str | Text) -> dict[str, Any]:
    return {
        "imageUri": image,
        "predictRoute": PREDICT,
        "healthRoute": HEALTH,
        "ports": [{"containerPort": PORT}],
        "env": [{"name": "KETCH_AUTH", "value": "platform"}],
        "deploymentTimeout": "1800s",
    }


def _resources(options: Options) -> dict[str, Any]:
    return {
        "machineSpec": {"machineType": options["machine"]},
        "minReplicaCount": options["min_replicas"],
        "maxReplicaCount": options["max_replicas"],
    }


# ---- what Vertex AI says -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Held:
    """What Vertex AI says of an endpoint, and of what is under way there."""

    endpoint: Mapping[str, Any]
    operations: Sequence[Mapping[str, Any]] = ()

    @property
    def models(self) -> Sequence[Mapping[str, Any]]:
        """List the deployed models."""
        return self.endpoint.get("deployedModels") or ()

    @property
    def split(self) -> dict[str, int]:
        """Say who gets how much of the traffic."""
        return dict(self.endpoint.get("trafficSplit") or {})

    @property
    def live(self) -> str:
        """Name the deployed model that gets the most; empty where there is none."""
        return max(self.split, key=lambda each: self.split[each], default="")

    @property
    def is_busy(self) -> bool:
        """Say whether a model is just being deployed."""
        return any(
            not each.get("done") and "DeployModel" in str((each.get("metadata") or {}).get("@type", ""))
            for each in self.operations
        )

    def find(self, release: str) -> Mapping[str, Any] | None:
        """Give the deployed model of a release."""
        return next((each for each in self.models if each.get("displayName") == release), None)


def _api(where: Place) -> Api:
    return gcp.api("Vertex AI", "aiplatform", where.region)


def _rest(where: Place, method: str, path: str, body: Any = None, **query: str) -> Google:
    return Google(_api(where), method, f"/v1/{where.parent}/{path}", body, query=query)


def _look(where: Place) -> Both:
    return Both(
        {
            "endpoint": _rest(where, "GET", f"endpoints/{where.name}"),
            "operations": _rest(where, "GET", f"endpoints/{where.name}/operations"),
        },
        absent=ABSENT,
    )


def _held(found: Any) -> Held:
    if not found or not found.get("endpoint"):
        raise NotGiven("There is no such endpoint", hint="ketch deploy vertex MODEL makes one.")
    return Held(found["endpoint"], (found.get("operations") or {}).get("operations", ()))


# ---- the steps ---------------------------------------------------------------------------------------


def _model(where: Place, container: Mapping[str, Any], release: str) -> Step:
    """Put a version of the model into the registry: gives its number as `versionId`."""
    look = Both(
        {
            "model": _rest(where, "GET", f"models/{where.name}"),
            "version": _rest(where, "GET", f"models/{where.name}@{release}"),
        },
        absent=ABSENT,
    )
    model = {
        "displayName": where.name,
        "labels": where.labels,
        "versionAliases": [release],
        "containerSpec": container,
    }

    def act(found: Any, got: Answers) -> Call | Done:
        there = (found or {}).get("model")
        if there:
            gcp.require_ours(there, where)
        if (found or {}).get("version"):
            return Done(found)
        named = {"parentModel": f"{where.parent}/models/{where.name}"} if there else {"modelId": where.name}
        return Waited(_rest(where, "POST", "models:upload", {**named, "model": model}))

    return Step(
        "model",
        f"Model {where.name}: version {release}",
        look=look,
        act=act,
        until=lambda found, got: found["version"],
        present=BUSY,
        again=gcp.NOT_YET,
        asks=gcp.PROPAGATES,
        every=gcp.EVERY,
    )


def _endpoint(where: Place) -> Step:
    """Make the endpoint."""
    body = {"displayName": where.name, "labels": where.labels}
    create = Waited(_rest(where, "POST", "endpoints", body, endpointId=where.name))

    def act(found: Any, got: Answers) -> Call | Done:
        if found:
            gcp.require_ours(found, where)
        return Done(found) if found else create

    return Step(
        "endpoint",
        f"Endpoint {where.name}",
        look=_rest(where, "GET", f"endpoints/{where.name}"),
        act=act,
        until=lambda found, got: found,
        absent=ABSENT,
        present=BUSY,
        again=gcp.NOT_YET,
        asks=gcp.PROPAGATES,
        every=gcp.EVERY,
    )


def _deployment(where: Place, model: Mapping[str, Any], resources: Any, release: str) -> dict[str, Any]:
    return {
        "model": f"{where.parent}/models/{where.name}@{model['versionId']}",
        "displayName": release,
        "dedicatedResources": resources,
        "serviceAccount": where.account,
    }


def _deployed(where: Place, release: str, made: Callable[[Answers], dict[str, Any]]) -> Step:
    """Deploy a version beside what is there: gives its `id`, and which was live `before`."""

    def act(found: Any, got: Answers) -> Call | Done:
        held = _held(found)
        if held.find(release) or held.is_busy:
            return Done(found)
        body = {"deployedModel": made(got), "trafficSplit": {**held.split, "0": 0 if held.live else 100}}
        path = f"endpoints/{where.name}:deployModel"
        return Waited(_rest(where, "POST", path, body), patience=LONGEST)

    def until(found: Any, got: Answers) -> Any:
        held = _held(found)
        there = held.find(release)
        if there is None and not held.is_busy:
            raise DeployError(
                "The model did not come up", hint="--logs shows what it said; run the same command again."
            )
        return {"id": there["id"], "before": held.live} if there else None

    return Step(
        "deployed",
        "Deploy it; a replica begins, and says when it is ready",
        look=_look(where),
        act=act,
        until=until,
        again=(*BUSY, *gcp.NOT_YET),
        asks=gcp.PROPAGATES,
        patience=LONGEST,
        every=gcp.EVERY,
    )


def _moved(where: Place, held: Held, live: str) -> Google:
    split = {str(each["id"]): 100 if each["id"] == live else 0 for each in held.models}
    return _rest(where, "PATCH", f"endpoints/{where.name}", {"trafficSplit": split}, updateMask="trafficSplit")


def _traffic(where: Place) -> Step:
    """Send all traffic to the deployed model."""

    def act(found: Any, got: Answers) -> Call | Done:
        held, live = _held(found), got["deployed"]["id"]
        return Done(found) if held.split.get(live) == 100 else _moved(where, held, live)

    def until(found: Any, got: Answers) -> Any:
        return True if _held(found).split.get(got["deployed"]["id"]) == 100 else None

    return Step(
        "traffic",
        "Send all traffic to it",
        look=_look(where),
        act=act,
        until=until,
        again=BUSY,
        every=gcp.EVERY,
    )


def _back(where: Place) -> Step:
    """Send the traffic back to the model before, when the new one turned out bad."""

    def act(found: Any, got: Answers) -> Call | Done:
        held, deployed = _held(found), got["deployed"]
        there = deployed["before"] in {each["id"] for each in held.models}
        moved = there and deployed["before"] != deployed["id"] and held.live == deployed["id"]
        return _moved(where, held, deployed["before"]) if moved else Done()

    return Step("back", "Send the traffic back to the model before", look=_look(where), act=act, again=BUSY)


def _is_new(held: Held, got: Answers) -> list[str]:
    """List what was deployed in vain."""
    new, before = got["deployed"]["id"], got["deployed"]["before"]
    return [new for each in held.models if each["id"] == new and new != before and held.live == before]


def _is_old(held: Held, got: Answers) -> list[str]:
    """List what has no traffic any more."""
    return [
        each["id"] for each in held.models if each["id"] != got["deployed"]["id"] and not held.split.get(each["id"])
    ]


@dataclass(frozen=True)
class Undeployed:
    """Undeploy models, one after the other."""

    where: Place
    models: tuple[str, ...]

    def sent(self) -> Mapping[str, object]:
        """Say what is asked."""
        return {"undeploy": list(self.models), "http": self._call("ID").sent()["http"]}

    def done(self, hands: Hands) -> Any:
        """Undeploy them."""
        for each in self.models:
            self._call(each).done(hands)

    def _call(self, model: str) -> Waited:
        path = f"endpoints/{self.where.name}:undeployModel"
        return Waited(_rest(self.where, "POST", path, {"deployedModelId": model}))


def _undeployed(where: Place, name: str, title: str, which: Callable[[Held, Answers], list[str]]) -> Step:
    def act(found: Any, got: Answers) -> Call | Done:
        if found is not None and not found.get("endpoint"):
            return Done()
        models = which(_held(found), got)
        return Undeployed(where, tuple(models)) if models else Done()

    return Step(name, title, look=_look(where), act=act, again=BUSY)


# ---- does it answer ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """Ask an endpoint for golden predictions, in the format of Vertex AI."""

    where: Place
    opened: Bundle = field(repr=False)

    def sent(self) -> Mapping[str, object]:
        """Say what is asked."""
        call = self._call([])
        return {"replay": f"golden predictions of {self.opened.manifest.name}", "http": call.sent()["http"]}

    def done(self, hands: Hands) -> Any:
        """Ask, hold the answers against those that it must give, and give the address.

        Raises:
            AnswersDiffer: another model answers.
        """
        wanted = answered(self.opened, Checker(self.opened.contract.fields))
        call = self._call([each.row for each in wanted])
        hold(call.done(hands)["predictions"], wanted, self.opened, who=f"the endpoint {self.where.name}")
        return f"{call.api.url}{call.path}"

    def _call(self, rows: list[Any]) -> Google:
        return _rest(self.where, "POST", f"endpoints/{self.where.name}:predict", {"instances": rows})


def _asked(where: Place, opened: Bundle) -> Step:
    return Step(
        "smoke",
        "Ask the endpoint for its golden predictions",
        Asked(where, opened),
        again=NOT_YET,
        asks=LIVE_IN,
    )


# ---- afterwards --------------------------------------------------------------------------------------


def rollback(name: str, options: Options) -> Plan:
    """Say how the version before is deployed again, and gets the traffic; it takes as long as a deployment."""
    where = gcp.place(NAME, name, options)
    look = Both(
        {
            "endpoint": _rest(where, "GET", f"endpoints/{name}"),
            "versions": _rest(where, "GET", f"models/{name}:listVersions"),
        },
        absent=ABSENT,
    )

    def mark(found: Any, got: Answers) -> Call | Done:
        held = _held(found)
        if not _is_current(held, found) or _is_withdrawn(_version(held, found)):
            return Done(found)
        _before(held, found)
        number = _version(held, found)["versionId"]
        aliases = {"versionAliases": [f"{WITHDRAWN}{number}"]}
        return _rest(where, "POST", f"models/{name}@{number}:mergeVersionAliases", aliases)

    def wanted(found: Any, got: Answers) -> Any:
        held = _held(found)
        version = _version(held, found)
        if _is_current(held, found) or _is_withdrawn(version):
            version = _before(held, found)
        live = next(each for each in held.models if each["id"] == held.live)
        return {"version": version, "resources": live["dedicatedResources"]}

    def made(got: Answers) -> dict[str, Any]:
        chosen = got["before"]
        return _deployment(where, chosen["version"], chosen["resources"], f"v{chosen['version']['versionId']}")

    return Plan(
        NAME,
        name,
        (
            Step("mark", "Mark the version that is live as withdrawn", look=look, act=mark, again=BUSY),
            Step("before", "Find the version before", look=look, until=wanted),
            _again(where, made),
            _traffic(where),
            _undeployed(where, "retire", "Undeploy the version that was live", _is_old),
        ),
        notes=("a version that is not deployed any more takes ten minutes or so to come up",),
    )


def _again(where: Place, made: Callable[[Answers], dict[str, Any]]) -> Step:
    """Deploy a version unless it is deployed already, under whatever name."""

    def named(found: Any, got: Answers) -> Step:
        number = got["before"]["version"]["versionId"]
        there = [each for each in _held(found).models if each.get("modelVersionId") == number]
        return _deployed(where, str(there[0]["displayName"]) if there else f"v{number}", made)

    step = _deployed(where, "", made)
    return replace(
        step,
        act=lambda found, got: named(found, got).decide(found, got),
        until=lambda found, got: (named(found, got).until or _never)(found, got),
    )


def _never(found: Any, got: Answers) -> Any:
    return None


def _versions(found: Any) -> list[Mapping[str, Any]]:
    listed = (found.get("versions") or {}).get("models", ())
    return sorted(listed, key=lambda each: int(each["versionId"]))


def _version(held: Held, found: Any) -> Mapping[str, Any]:
    """Give the version that is live."""
    live = next((each for each in held.models if each["id"] == held.live), {})
    for each in _versions(found):
        if each["versionId"] == live.get("modelVersionId"):
            return each
    raise DeployError("No version is live", hint="ketch deploy vertex MODEL deploys one.")


def _is_withdrawn(version: Mapping[str, Any]) -> bool:
    return any(str(each).startswith(WITHDRAWN) for each in version.get("versionAliases", ()))


def _is_current(held: Held, found: Any) -> bool:
    """Say whether what is live was not itself come back to: no later version was withdrawn."""
    live = int(_version(held, found)["versionId"])
    return not any(int(each["versionId"]) > live and _is_withdrawn(each) for each in _versions(found))


def _before(held: Held, found: Any) -> Mapping[str, Any]:
    live = int(_version(held, found)["versionId"])
    earlier = [each for each in _versions(found) if int(each["versionId"]) < live and not _is_withdrawn(each)]
    if not earlier:
        raise DeployError("There is no version before this one", hint="Deploy the model that you want instead.")
    return earlier[-1]


def destroy(name: str, options: Options) -> Plan:
    """Say what is removed: what is deployed, the endpoint, the model with its versions, its account and images."""
    where = gcp.place(NAME, name, options)

    def everything(held: Held, got: Answers) -> list[str]:
        gcp.require_ours(held.endpoint, where)
        return [str(each["id"]) for each in held.models]

    return Plan(
        NAME,
        name,
        (
            _undeployed(where, "undeploy", "Undeploy every model", everything),
            _gone(where, "endpoint", f"endpoints/{name}"),
            _gone(where, "model", f"models/{name}"),
            *gcp.removed(where, secret=False),
        ),
        notes=(f"the repository {where.repository} stays: other deployments may use it",),
    )


def _gone(where: Place, what: str, path: str) -> Step:
    def act(found: Any, got: Answers) -> Call | Done:
        if found:
            gcp.require_ours(found, where)
        return Waited(_rest(where, "DELETE", path)) if found else Done()

    look = _rest(where, "GET", path)
    return Step(what, f"Delete {what} {where.name}", look=look, act=act, absent=ABSENT, present=ABSENT, again=BUSY)


def status(name: str, options: Options) -> list[Question]:
    """Ask how an endpoint is."""
    where = gcp.place(NAME, name, options)

    def told(found: Any) -> Iterable[tuple[str, str]]:
        if not found:
            yield "--", f"there is no endpoint {name} in {where.region}"
            return
        held = Held(found)
        yield "ok" if held.live else "mend", f"{_api(where).url}/v1/{found.get('name', '')}:predict"
        for each in held.models:
            yield "ok", f"version {each.get('modelVersionId', '?')}: {held.split.get(each['id'], 0)} %"

    return [Question("Endpoint", _rest(where, "GET", f"endpoints/{name}"), told, absent=ABSENT)]


def logs(name: str, options: Options) -> list[Question]:
    """Ask for the last lines that the models of an endpoint wrote."""
    where = gcp.place(NAME, name, options)
    told = f'resource.labels.endpoint_id="{name}" AND resource.labels.location="{where.region}"'
    return [gcp.logs(where, f'resource.type="aiplatform.googleapis.com/Endpoint" AND {told}')]


def doctor(name: str, options: Options) -> list[Question]:
    """Ask what a deployment needs."""
    return gcp.doctor(gcp.place(NAME, name, options), SERVICES, PERMISSIONS, "aiplatform")


TARGET: Final = Target(
    NAME,
    "Vertex AI: our container behind an endpoint that Google guards.",
    "image",
    plan,
    OPTIONS,
    status=status,
    logs=logs,
    rollback=rollback,
    destroy=destroy,
    doctor=doctor,
)
