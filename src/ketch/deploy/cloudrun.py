"""Google Cloud Run: a service that scales by its requests, down to none; a new revision is tried before it is live.

image --*revision*--> a revision without traffic, at an address of its own --*trial*--> --*traffic*--> the service
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from ketch import extras
from ketch.deploy import HOURS, Option, Options, Shipment, Target, smoke
from ketch.deploy import google as gcp
from ketch.deploy.google import ABSENT, Google, Granted, Identity, Place, Waited
from ketch.deploy.images import fingerprint, image_tag
from ketch.errors import CloudRefused, DeployError, NotGiven, UsageError
from ketch.steps import Answers, Both, Call, Done, Got, Hands, Plan, Question, Step, Text, resolved

NAME: Final = "cloudrun"
RUN: Final = gcp.api("Cloud Run", "run")
SERVICES: Final = ("artifactregistry", "iam", "run", "secretmanager")
PORT: Final = 8080
TRIAL_IN: Final = 120.0  # seconds in which a new revision must give its golden predictions
CANDIDATE: Final = "candidate"  # the tag of a revision that is tried
PREVIOUS: Final = "previous"  # of the one that was live before
WITHDRAWN: Final = "withdrawn"  # of one that was rolled back
TAGS: Final = (CANDIDATE, PREVIOUS, WITHDRAWN)
RELEASE: Final = "ketch-release"  # the label by which a revision is known again
ACCESS: Final = "ketch-access"  # the label that says who opens the door: Google, or the key
REVISION: Final = "TRAFFIC_TARGET_ALLOCATION_TYPE_REVISION"
LATEST: Final = "TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST"
INVOKER: Final = "roles/run.invoker"
EVERYBODY: Final = "allUsers"
DONE: Final = "CONDITION_SUCCEEDED"
FAILED: Final = "CONDITION_FAILED"
CONFLICT: Final = ("409", "412")  # somebody else changed the service meanwhile
MEMBER: Final = re.compile(r"(user|group|serviceAccount|domain|principal|principalSet):[^\s,]+")
MEMORY: Final = re.compile(r"\d+(Mi|Gi)")
CPU: Final = re.compile(r"0?\.\d+|[1248]|6")
INGRESS: Final = {
    "all": "INGRESS_TRAFFIC_ALL",
    "internal": "INGRESS_TRAFFIC_INTERNAL_ONLY",
    "internal-and-cloud-load-balancing": "INGRESS_TRAFFIC_INTERNAL_LOAD_BALANCER",
}
PERMISSIONS: Final = (
    "artifactregistry.repositories.create",
    "artifactregistry.repositories.uploadArtifacts",
    "iam.serviceAccounts.actAs",
    "iam.serviceAccounts.create",
    "run.services.create",
    "run.services.setIamPolicy",
    "run.services.update",
    "secretmanager.secrets.create",
    "secretmanager.secrets.setIamPolicy",
    "secretmanager.versions.access",
    "serviceusage.services.enable",
)
OPTIONS: Final = (
    *gcp.OPTIONS,
    Option("public", "Let everybody reach it, who has the key; otherwise Google lets in whom IAM allows.", False),
    Option("invoker", "Who may call it, separated by commas, such as serviceAccount:crm@shop.iam.gserviceaccount.com."),
    Option("ingress", "From where it can be reached.", "all", tuple(INGRESS)),
    Option("cpu", "Cores of an instance.", "1"),
    Option("memory", "Memory of an instance.", "512Mi"),
    Option("concurrency", "Requests that an instance may answer at once.", 80),
    Option("min_instances", "Instances that always run; 0 costs nothing while nobody asks.", 0),
    Option("max_instances", "Instances at most.", 10),
)
MILLIONS: Final = 1.0  # of requests a month, for the estimate
SECONDS: Final = 0.05  # that one takes of an instance, as its share of what is answered at once


def plan(shipment: Shipment, options: Options) -> Plan:
    """Say how a model gets to Cloud Run.

    Raises:
        UsageError: an option has a value that Cloud Run does not take.
    """
    where = gcp.place(NAME, shipment.name, options)
    _require_sane(options)
    built, image = gcp.images(shipment, options, where)
    body = service(where, image, options)
    release = fingerprint(body, shipment.opened.sha256, digits=12)
    body["template"]["labels"] = {**body["template"]["labels"], RELEASE: release}
    key: str | Got = Got("key") if options["public"] else Got("identity")
    amends = (_withdrawn(where),)
    return Plan(
        NAME,
        shipment.name,
        (
            gcp.enabled(where, SERVICES),
            gcp.account(where),
            *(gcp.key(shipment, where) if options["public"] else ()),
            *built,
            replace(_revision(where, body, release), amends=amends),
            _invokers(where, options),
            *(() if options["public"] else (_identity(),)),
            replace(_candidate(where), amends=amends),
            replace(
                smoke(shipment, Got("candidate", ("uri",)), key, within=TRIAL_IN, amends=amends),
                name="trial",
                title="Ask the new revision for its golden predictions, before anybody else does",
            ),
            replace(_traffic(where), amends=amends),
            smoke(shipment, Got("revision", ("uri",)), key, amends=amends),
        ),
        files={
            "service.yaml": written(where, body, options, str(image).replace("@<image>", f":{image_tag(shipment)}"))
        },
        uses=_uses(options),
        notes=_notes(options),
    )


def _require_sane(options: Options) -> None:
    for name, pattern, told in (("cpu", CPU, "1, 2, 4, 6 or 8"), ("memory", MEMORY, "512Mi or 2Gi")):
        if not pattern.fullmatch(str(options[name])):
            raise UsageError(f"{name} cannot be {options[name]!r}", hint=f"Give --{name} such as {told}.")
    most = 1000 if float(options["cpu"]) >= 1 else 1
    if not 1 <= options["concurrency"] <= most:
        raise UsageError(
            f"concurrency must be from 1 to {most:,}", hint="Less than one core answers one request at once."
        )
    if not 0 <= options["min_instances"] <= max(1, options["max_instances"]) or options["max_instances"] < 1:
        raise UsageError("max-instances must be at least 1, and at least min-instances", hint="Give both anew.")
    if options["public"] and options["invoker"]:
        raise UsageError("--public lets everybody in, and --invoker some", hint="Give one of them.")
    for each in _members(options):
        if not MEMBER.fullmatch(each):
            raise UsageError(f"{each[:60]!r} is nobody whom IAM knows", hint="Give user:ana@example.com or the like.")


def _members(options: Options) -> list[str]:
    return [each.strip() for each in str(options["invoker"]).split(",") if each.strip()]


# ---- the service -------------------------------------------------------------------------------------


def service(where: Place, image: str | Text, options: Options) -> dict[str, Any]:
    """Describe the service, as Cloud Run's API takes it; who may call it is settled beside it."""
    access = "key" if options["public"] else "iam"
    return {
        "labels": {**where.labels, ACCESS: access},
        "ingress": INGRESS[str(options["ingress"])],
        "template": {
            "labels": where.labels,
            "serviceAccount": where.account,
            "timeout": "60s",
            "maxInstanceRequestConcurrency": options["concurrency"],
            "scaling": {"minInstanceCount": options["min_instances"], "maxInstanceCount": options["max_instances"]},
            "containers": [_container(where, image, options)],
        },
    }


def _container(where: Place, image: str | Text, options: Options) -> dict[str, Any]:
    read = {"secretKeyRef": {"secret": where.secret_id, "version": "latest"}}
    return {
        "image": image,
        "ports": [{"name": "http1", "containerPort": PORT}],
        "env": [
            {"name": "KETCH_API_KEYS", "valueSource": read}
            if options["public"]
            else {"name": "KETCH_AUTH", "value": "platform"}
        ],
        "resources": {
            "limits": {"cpu": options["cpu"], "memory": options["memory"]},
            "cpuIdle": True,
            "startupCpuBoost": True,
        },
        "startupProbe": {
            "httpGet": {"path": "/health/ready", "port": PORT},
            "periodSeconds": 3,
            "timeoutSeconds": 2,
            "failureThreshold": 80,
        },
        "livenessProbe": {
            "httpGet": {"path": "/health/live", "port": PORT},
            "periodSeconds": 10,
            "timeoutSeconds": 5,
            "failureThreshold": 3,
        },
    }


def written(where: Place, body: Mapping[str, Any], options: Options, image: str) -> bytes:
    """Write the service as Knative's YAML, for `gcloud run services replace`."""
    template, container = body["template"], body["template"]["containers"][0]
    env = [
        {"name": each["name"], "value": each["value"]}
        if "value" in each
        else {"name": each["name"], "valueFrom": {"secretKeyRef": {"name": where.secret_id, "key": "latest"}}}
        for each in container["env"]
    ]
    inside = {name: container[name] for name in ("ports", "startupProbe", "livenessProbe")}
    knative = {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {
            "name": where.name,
            "labels": {**body["labels"], "cloud.googleapis.com/location": where.region},
            "annotations": {"run.googleapis.com/ingress": options["ingress"]},
        },
        "spec": {
            "template": {
                "metadata": {
                    "labels": {**template["labels"], "run.googleapis.com/startupProbeType": "Custom"},
                    "annotations": {
                        "autoscaling.knative.dev/minScale": str(options["min_instances"]),
                        "autoscaling.knative.dev/maxScale": str(options["max_instances"]),
                        "run.googleapis.com/cpu-throttling": "true",
                        "run.googleapis.com/startup-cpu-boost": "true",
                    },
                },
                "spec": {
                    "serviceAccountName": where.account,
                    "containerConcurrency": options["concurrency"],
                    "timeoutSeconds": 60,
                    "containers": [
                        {
                            "image": image,
                            **inside,
                            "env": env,
                            "resources": {"limits": container["resources"]["limits"]},
                        }
                    ],
                },
            },
            "traffic": [{"percent": 100, "latestRevision": True}],
        },
    }
    yaml: Any = extras.load("yaml")
    told: str = yaml.safe_dump(knative, sort_keys=False)
    return f"# gcloud run services replace service.yaml --project {where.project}\n{told}".encode()


def _uses(options: Options) -> dict[str, float]:
    gib = float(options["memory"][:-2]) / (1024 if str(options["memory"]).endswith("Mi") else 1)
    busy = MILLIONS * 1e6 * SECONDS
    always = options["min_instances"] * HOURS * 3600
    uses = {
        "google.run.million": MILLIONS,
        "google.run.vcpu-second": busy * float(options["cpu"]),
        "google.run.gib-second": (busy + always) * gib,
        "google.artifacts.gib": 0.2,
    }
    uses |= {"google.run.idle-vcpu-second": always * float(options["cpu"])} if always else {}
    return uses | ({"google.secret": 1.0} if options["public"] else {})


def _notes(options: Options) -> tuple[str, ...]:
    who = "everybody who has the key" if options["public"] else "whom IAM lets invoke it, and nobody else"
    inside = () if options["ingress"] == "all" else ("it is tried from here: run this from within its network",)
    return (
        f"it answers {who}",
        *inside,
        f"the estimate is for {MILLIONS:,.0f} million requests a month of {SECONDS * 1000:,.0f} ms each",
    )


# ---- the steps ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Held:
    """What Cloud Run says of a service and its revisions."""

    service: Mapping[str, Any]
    revisions: Sequence[Mapping[str, Any]] = ()

    @property
    def live(self) -> str:
        """Name the revision that gets the most of the traffic; empty where there is none."""
        best: Mapping[str, Any] = max(
            self.service.get("traffic", ()), key=lambda each: each.get("percent", 0), default={}
        )
        latest = str(self.service.get("latestReadyRevision", "")).rpartition("/")[2]
        return str(best.get("revision") or latest)

    def tagged(self, tag: str) -> str:
        """Name the revision that has a tag; empty where there is none."""
        targets = self.service.get("traffic", ())
        return next((str(each.get("revision", "")) for each in targets if each.get("tag") == tag), "")

    def address(self, revision: str) -> str:
        """Give the address of a revision that is tried, or is live."""
        for each in self.service.get("trafficStatuses", ()):
            if each.get("revision") == revision and each.get("tag") == CANDIDATE:
                return str(each.get("uri", ""))
        return str(self.service.get("uri", "")) if self.live == revision else ""

    def release(self, release: str) -> Mapping[str, Any] | None:
        """Give the newest revision of a release."""
        own = [each for each in self.revisions if (each.get("labels") or {}).get(RELEASE) == release]
        return max(own, key=lambda each: str(each.get("createTime", "")), default=None)

    def split(self, live: str, **tags: str) -> list[dict[str, object]]:
        """Say who gets the traffic, and who has which of our tags; tags that others gave stay."""
        others: list[dict[str, object]] = [
            {"type": REVISION, "revision": each["revision"], "tag": each["tag"]}
            for each in self.service.get("traffic", ())
            if each.get("tag") and each["tag"] not in TAGS and each.get("revision")
        ]
        own: list[dict[str, object]] = [
            {"type": REVISION, "revision": each, "tag": tag} for tag, each in tags.items() if each and each != live
        ]
        first: dict[str, object] = {"type": REVISION, "revision": live, "percent": 100}
        return [first, *own, *others]


def _path(where: Place) -> str:
    return f"/v2/{where.parent}/services/{where.name}"


def _look(where: Place) -> Both:
    path = _path(where)
    return Both(
        {
            "service": Google(RUN, "GET", path),
            "revisions": Google(RUN, "GET", f"{path}/revisions", query={"pageSize": "100"}),
        },
        absent=ABSENT,
    )


def _held(found: Mapping[str, Any] | None) -> Held | None:
    if not found or not found.get("service"):
        return None
    return Held(found["service"], (found.get("revisions") or {}).get("revisions", ()))


@dataclass(frozen=True)
class Changed:
    """A change of the service as it is, worked out anew when somebody else changes it meanwhile."""

    where: Place
    held: Held
    mask: str
    change: Callable[[Held], Mapping[str, Any]]

    def call(self, held: Held) -> Waited:
        """Give the call that changes it."""
        path = _path(self.where)
        body = {"name": path.removeprefix("/v2/"), "etag": held.service.get("etag", ""), **self.change(held)}
        query = {"updateMask": self.mask} | ({"forceNewRevision": "true"} if "template" in body else {})
        return Waited(Google(RUN, "PATCH", path, body, query=query), "v2")

    def sent(self) -> Mapping[str, object]:
        """Say what is asked."""
        return self.call(self.held).sent()

    def done(self, hands: Hands) -> Any:
        """Change it."""
        held = self.held
        for left in reversed(range(gcp.TRIES)):
            try:
                return self.call(held).done(hands)
            except CloudRefused as error:
                if error.reason not in CONFLICT or not left:
                    raise
            hands.sleep(gcp.EVERY)
            held = _required(_look(self.where).done(hands))
        return None


def _moved(where: Place, held: Held, live: Callable[[Held], str], tags: Callable[[Held], dict[str, str]]) -> Changed:
    return Changed(where, held, "traffic", lambda now: {"traffic": now.split(live(now), **tags(now))})


def _revision(where: Place, body: Mapping[str, Any], release: str) -> Step:
    """Make the revision, without traffic where another has it: gives its name, which one is live, and the address."""

    def act(found: Any, got: Answers) -> Call | Done:
        held = _held(found)
        if held is None:
            query = {"serviceId": where.name}
            return Waited(Google(RUN, "POST", f"/v2/{where.parent}/services", body, query=query), "v2")
        gcp.require_ours(held.service, where)
        _require_same_door(held.service, body)
        there = held.release(release)
        if there and _state(there) != FAILED:
            return Done(found)
        coming = held.service.get("template", {}).get("labels", {}).get(RELEASE) == release
        if coming and held.service.get("reconciling"):
            return Done(found)
        whole = resolved(body, got)
        if not held.live:  # nothing has been ready yet
            return Changed(where, held, "labels,ingress,template", lambda now: whole)
        kept = {PREVIOUS: held.tagged(PREVIOUS)}
        change = lambda now: {**whole, "traffic": now.split(now.live, **kept)}  # noqa: E731
        return Changed(where, held, "labels,ingress,template,traffic", change)

    def until(found: Any, got: Answers) -> Any:
        held = _held(found)
        there = held.release(release) if held else None
        if held is None or held.service.get("reconciling") or there is None or _state(there) not in {DONE, FAILED}:
            return None
        if _state(there) == FAILED:
            raise DeployError(
                f"The revision does not start: {_said(there)}", hint="--logs shows what it said; mend that, and deploy."
            )
        return {"name": str(there["name"]).rpartition("/")[2], "uri": held.service.get("uri", ""), "before": held.live}

    return Step(
        "revision",
        f"Service {where.name}: a revision with this model",
        look=_look(where),
        act=act,
        until=until,
        news=_news,
        again=gcp.NOT_YET,
        asks=gcp.PROPAGATES,
        every=gcp.EVERY,
    )


def _require_same_door(found: Mapping[str, Any], body: Mapping[str, Any]) -> None:
    there, wanted = (found.get("labels") or {}).get(ACCESS, ""), body["labels"][ACCESS]
    if there and there != wanted:
        raise DeployError(
            "The revision that is live leaves the door to " + ("Google" if there == "iam" else "its key"),
            hint="Changing --public would leave it open meanwhile: deploy under another --name, and destroy this one.",
        )


def _state(revision: Mapping[str, Any]) -> str:
    ready = [each for each in revision.get("conditions", ()) if each.get("type") == "Ready"]
    return str(ready[0].get("state", "")) if ready else ""


def _said(found: Mapping[str, Any]) -> str:
    told = [str(each["message"]) for each in found.get("conditions", ()) if each.get("message")]
    return " ".join(dict.fromkeys(told)) or "Cloud Run does not say why"


def _news(found: Any) -> Iterable[str]:
    condition = ((found or {}).get("service") or {}).get("terminalCondition") or {}
    if condition.get("message"):
        yield str(condition["message"])


def _invokers(where: Place, options: Options) -> Step:
    """Settle who may call: everybody where there is a key, else those who are named."""
    if options["public"]:
        granted = Granted(RUN, _path(where), INVOKER, (EVERYBODY,))
        return granted.step("invokers", "Let everybody reach it; the key opens it")
    granted = Granted(RUN, _path(where), INVOKER, tuple(_members(options)))
    return granted.step("invokers", "Let in whom IAM allows: " + (", ".join(_members(options)) or "nobody is added"))


def _identity() -> Step:
    return Step("identity", "A token that says who we are", Identity(Got("revision", ("uri",))), secret=True)


def _candidate(where: Place) -> Step:
    """Give the revision an address of its own, unless it is live."""

    def act(found: Any, got: Answers) -> Call | Done:
        held, name = _required(found), got["revision"]["name"]
        if held.address(name):
            return Done(found)
        return _moved(where, held, lambda now: now.live, lambda now: {PREVIOUS: now.tagged(PREVIOUS), CANDIDATE: name})

    def until(found: Any, got: Answers) -> Any:
        address = _required(found).address(got["revision"]["name"])
        return {"uri": address} if address else None

    return Step(
        "candidate",
        "Give the new revision an address of its own",
        look=_look(where),
        act=act,
        until=until,
        every=gcp.EVERY,
    )


def _traffic(where: Place) -> Step:
    """Send everybody to the revision; the one before stays at hand."""

    def act(found: Any, got: Answers) -> Call | Done:
        held, name = _required(found), got["revision"]["name"]
        if held.live == name and _is_pinned(held, name) and not held.tagged(CANDIDATE):
            return Done(found)

        def tags(now: Held) -> dict[str, str]:
            return {PREVIOUS: now.tagged(PREVIOUS) if now.live == name else now.live}

        return _moved(where, held, lambda now: name, tags)

    def until(found: Any, got: Answers) -> Any:
        held = _required(found)
        return True if not held.service.get("reconciling") and held.live == got["revision"]["name"] else None

    return Step(
        "traffic",
        "Send all traffic to the new revision",
        look=_look(where),
        act=act,
        until=until,
        every=gcp.EVERY,
    )


def _is_pinned(held: Held, name: str) -> bool:
    return any(each.get("revision") == name and each.get("percent") == 100 for each in held.service.get("traffic", ()))


def _withdrawn(where: Place) -> Step:
    """Send everybody back to the revision before, when the new one turned out bad."""

    def act(found: Any, got: Answers) -> Call | Done:
        held, revision = _held(found), got.get("revision", {})
        if held is None or not held.live:
            return Done()
        name, before = revision.get("name", ""), revision.get("before", "")
        if held.live == name and before not in {"", name}:
            return _moved(where, held, lambda now: before, lambda now: {WITHDRAWN: name})
        if held.tagged(CANDIDATE):
            return _moved(where, held, lambda now: now.live, lambda now: {PREVIOUS: now.tagged(PREVIOUS)})
        return Done()

    return Step("withdraw", "Leave the traffic with the revision before", look=_look(where), act=act)


def _required(found: Any) -> Held:
    held = _held(found)
    if held is None:
        raise NotGiven("There is no such service", hint="ketch deploy cloudrun MODEL makes one.")
    return held


# ---- afterwards --------------------------------------------------------------------------------------


def rollback(name: str, options: Options) -> Plan:
    """Say how traffic goes back to the revision before."""
    where = gcp.place(NAME, name, options)

    def act(found: Any, got: Answers) -> Call | Done:
        held = _required(found)
        before, live = held.tagged(PREVIOUS), held.live
        if before:
            return _moved(where, held, lambda now: before, lambda now: {WITHDRAWN: live})
        if held.tagged(WITHDRAWN):
            return Done(found)  # it was done before, and interrupted
        raise DeployError(f"{name} has no revision before this one", hint="Deploy the model that you want instead.")

    def until(found: Any, got: Answers) -> Any:
        held = _required(found)
        return held.live if not held.service.get("reconciling") and not held.tagged(PREVIOUS) else None

    title = "Send all traffic to the revision before"
    step = Step("traffic", title, look=_look(where), act=act, until=until, every=gcp.EVERY)
    return Plan(NAME, name, (step,))


def destroy(name: str, options: Options) -> Plan:
    """Say what is removed: the service, its account, its images and its key."""
    where = gcp.place(NAME, name, options)
    call = Waited(Google(RUN, "DELETE", _path(where)), "v2")

    def act(found: Any, got: Answers) -> Call | Done:
        if found is not None:
            gcp.require_ours(found, where)
        return Done() if found is None else call

    gone = Step(
        "service",
        f"Delete service {name}",
        look=Google(RUN, "GET", _path(where)),
        act=act,
        absent=ABSENT,
        present=ABSENT,
    )
    notes = (f"the repository {where.repository} stays: other deployments may use it",)
    return Plan(NAME, name, (gone, *gcp.removed(where, secret=True)), notes=notes)


def status(name: str, options: Options) -> list[Question]:
    """Ask how a service is."""
    where = gcp.place(NAME, name, options)

    def told(found: Any) -> Iterable[tuple[str, str]]:
        if not found:
            yield "--", f"there is no service {name} in {where.region}"
            return
        condition = found.get("terminalCondition") or {}
        good = condition.get("state") == DONE
        yield "ok" if good else "mend", f"{found.get('uri', '')}: {'ready' if good else condition.get('message', '?')}"
        for each in found.get("trafficStatuses") or found.get("traffic", ()):
            tag = f", {each['tag']}" if each.get("tag") else ""
            yield "ok", f"{each.get('revision', 'latest')}: {each.get('percent', 0)} %{tag}"
        shares: list[dict[str, Any]] = found.get("trafficStatuses") or [{}]
        live = max(shares, key=lambda each: each.get("percent", 0)).get("revision", "")
        newest = str(found.get("latestCreatedRevision", "")).rpartition("/")[2]
        for each in found.get("template", {}).get("containers", ()) if live in {"", newest} else ():
            yield "ok", f"image {each.get('image', '')}"

    return [Question("Service", Google(RUN, "GET", _path(where)), told, absent=ABSENT)]


def logs(name: str, options: Options) -> list[Question]:
    """Ask for the last lines that a service wrote."""
    where = gcp.place(NAME, name, options)
    told = f'resource.labels.service_name="{name}" AND resource.labels.location="{where.region}"'
    return [gcp.logs(where, f'resource.type="cloud_run_revision" AND {told}')]


def doctor(name: str, options: Options) -> list[Question]:
    """Ask what a deployment needs."""
    return gcp.doctor(gcp.place(NAME, name, options), SERVICES, PERMISSIONS, "run")


TARGET: Final = Target(
    NAME,
    "Google Cloud Run: a container that scales by its requests, down to none.",
    "image",
    plan,
    OPTIONS,
    status=status,
    logs=logs,
    rollback=rollback,
    destroy=destroy,
    doctor=doctor,
)
