"""Kubernetes: manifests that pass the restricted pod security standard, applied by kubectl; KServe, too.

Shipment --*manifests*--> files --*kubectl apply*--> Deployment --*looked at*--> rolled out --*port-forward*--> smoke
"""

import base64
import re
import subprocess
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec

from ketch.bundle import Bundle
from ketch.deploy import NOT_LIVE, Option, Options, Shipment, Smoke, Target, images, manifests, require_forms, smoke
from ketch.errors import CloudRefused, DeployError, NotGiven, NotReady, UsageError
from ketch.image import PLATFORMS
from ketch.steps import Answers, Both, Call, Done, Got, Hands, Plan, Question, Secret, Step, resolved
from ketch.steps.command import Command

REVISION: Final = "deployment.kubernetes.io/revision"
HASH: Final = "pod-template-hash"
OBJECT: Final = r"([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?)?"
FORMS: Final = {  # of options, and what has one
    "cpu": (r"[1-9]\d{0,5}m?|\d{1,3}\.\d{1,3}", "250m or 1"),
    "memory": (r"[1-9]\d{0,7}(Ki|Mi|Gi)", "256Mi or 2Gi"),
    "image": (r"([a-z0-9][\w.:/-]*(@sha256:[0-9a-f]{64})?)?", "REGISTRY/NAME@sha256:…"),
    "registry": (r"([a-z0-9][a-z0-9._-]*(:\d+)?(/[a-z0-9._-]+)+/?)?", "registry.example.com/churn"),
    "pull_secret": (OBJECT, "registry-login"),
    "log_secret": (OBJECT, "predictions"),
    "url": (r"(https?://[\w.:-]+(/[\w./~%-]*)?)?", "https://churn.example.com"),
}
NAMES: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
DIGEST: Final = re.compile(r"[^@\s]+@sha256:[0-9a-f]{64}")
OURS: Final = "deployments.apps,services,horizontalpodautoscalers,poddisruptionbudgets,networkpolicies,serviceaccounts"
KSERVE: Final = "inferenceservices.serving.kserve.io,servingruntimes.serving.kserve.io,poddisruptionbudgets,networkpolicies,serviceaccounts"  # noqa: E501
REASONS: Final = {
    "(NotFound)": "NotFound",
    "(AlreadyExists)": "AlreadyExists",
    "(Forbidden)": "Forbidden",
    "Unable to connect": "unreachable",
    "was refused": "unreachable",
}
HINT: Final = "kubectl must be installed and reach the cluster: try kubectl cluster-info, or choose with --context."
HOPELESS: Final = {"InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError", "CreateContainerError"}
OPTIONS: Final = (
    Option("image", "The image, pushed before; best by digest: REGISTRY/NAME@sha256:…"),
    Option("registry", "Build the image, and push it to this repository: HOST/NAME."),
    Option("base_image", "With --registry: the image to begin with."),
    Option("platform", "With --registry: what the nodes are.", "linux/amd64", choices=tuple(PLATFORMS)),
    Option("pull_secret", "A Secret of the namespace with which nodes pull the image."),
    Option("namespace", "The namespace; made with restricted pod security where it is not there.", "ketch"),
    Option("context", "The cluster, by its context in kubectl's settings.  [the current one]"),
    Option("replicas", "Fewest pods.", 2),
    Option("max_replicas", "Most pods.", 10),
    Option("cpu", "Processor time that a pod is sure of, such as 250m; more where there is some.", "250m"),
    Option("memory", "Memory of a pod, such as 256Mi.", "256Mi"),
    Option("callers", "Namespaces whose pods may call, separated by commas.  [only its own]"),
    Option("log_secret", "A Secret of the namespace whose `url` says where predictions are recorded."),
    Option("url", "The address at which callers reach it, to ask there for the golden predictions."),
    Option(
        "kserve", "Let KServe run it: its own predictor, or a runtime for bundles.", choices=("predictor", "runtime")
    ),
    Option("storage", "With --kserve runtime: where KServe gets the bundle, such as s3://bucket/churn.ketch."),
)


def plan(shipment: Shipment, options: Options) -> Plan:
    """Say how a model gets into a cluster.

    Raises:
        UsageError: an option does not fit, or nothing says where the image is.
    """
    _require_sense(options)
    reference, first = _image(shipment, options)
    documents = manifests.manifests(shipment.name, reference, options, shipment.label.rpartition("-")[2])
    service = f"{shipment.name}-predictor" if options["kserve"] else shipment.name
    return Plan(
        "kubernetes",
        shipment.name,
        (
            _namespace(options),
            _key(shipment, options),
            *first,
            _before(shipment.name, options),
            _manifests(shipment.name, documents, options),
            _rolled_out(shipment.name, options),
            _smoke(shipment, service, options),
        ),
        files=manifests.files(shipment.name, documents, options, options["image"] or _tag(shipment, options)),
        notes=_notes(options),
    )


def _require_sense(options: Options) -> None:
    require_forms(options, FORMS)
    for name in (options["namespace"], *manifests.callers(options)):
        if not NAMES.fullmatch(name):
            raise UsageError(f"{name!r} is no namespace", hint="Namespaces have small letters, digits and hyphens.")
    if not 1 <= options["replicas"] <= options["max_replicas"]:
        raise UsageError("--replicas is 1 or more, and --max-replicas no less", hint="Give --replicas 2, for instance.")
    if bool(options["image"]) == bool(options["registry"]):
        raise UsageError("Where is the image?", hint="Give --image, or a registry to push it to with --registry.")
    if bool(options["storage"]) != (options["kserve"] == "runtime"):
        raise UsageError("--storage and --kserve runtime belong together", hint="Give both, or none.")


def _image(shipment: Shipment, options: Options) -> tuple[str | Got, tuple[Step, ...]]:
    """Give what pods are started from, and the steps that make it."""
    if options["image"]:
        return options["image"], ()
    step = images.built(shipment, "image", _tag(shipment, options), _recipe(options), push=True)
    return Got("image", ("reference",)), (step,)


def _recipe(options: Options) -> dict[str, str]:
    extras = "postgres" if options["log_secret"] else ""
    return {"base": options["base_image"], "extras": extras, "platform": options["platform"]}


def _tag(shipment: Shipment, options: Options) -> str:
    made = f"{shipment.opened.sha256[:12]}-{images.fingerprint(_recipe(options))}"
    return f"{options['registry'].rstrip('/')}:{made}"


def _notes(options: Options) -> tuple[str, ...]:
    where = f"the context {options['context']}" if options["context"] else "the current context of kubectl"
    told = [f"the cluster is that of {where}; it charges for the nodes that {options['replicas']} pods need"]
    if options["image"] and not DIGEST.fullmatch(options["image"]):
        told.append("a tag can come to mean another image: give --image by its digest, NAME@sha256:…")
    if not options["url"]:
        told.append("callers inside the cluster reach it; for others, point an Ingress or a Gateway at the Service")
    return tuple(told)


# ---- steps -------------------------------------------------------------------------------------------


def kubectl(options: Options, *words: str, stdin: str = "", parsed: bool = False) -> Command:
    """Call kubectl in the namespace and the cluster of a deployment."""
    cluster = ("--context", options["context"]) if options["context"] else ()
    told = ("kubectl", *words, "--namespace", options["namespace"], *cluster)
    return Command(told, stdin=stdin, parsed=parsed, reasons=REASONS, hint=HINT)


def _get(options: Options, *words: str) -> Command:
    return kubectl(options, "get", *words, "--output", "json", parsed=True)


def _ours(name: str, options: Options, *kinds: str) -> Command:
    chosen = f"app.kubernetes.io/instance={name},app.kubernetes.io/managed-by=ketch"
    return _get(options, ",".join(kinds), "--selector", chosen)


def _namespace(options: Options) -> Step:
    """Make the namespace; who may neither see nor make one goes on, and is told by what comes next."""
    return Step(
        "namespace",
        f"Make the namespace {options['namespace']}",
        Applied(kubectl(options, "create", "--filename", "-"), (manifests.namespace(options),)),
        look=_get(options, "namespace", options["namespace"]),
        absent=("NotFound", "Forbidden"),
        present=("AlreadyExists", "Forbidden"),
    )


def _key(shipment: Shipment, options: Options) -> Step:
    """Make the Secret with a key; it goes to kubectl by standard input, and to pods as a file in memory."""
    secret = f"{shipment.name}-key"
    data = base64.b64encode(str.__str__(shipment.key).encode()).decode()
    made = msgspec.json.encode(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                "name": secret,
                "labels": {**manifests.selector(shipment.name), "app.kubernetes.io/managed-by": "ketch"},
            },
            "type": "Opaque",
            "data": {"keys": data},
        }
    )
    create = kubectl(options, "create", "--filename", "-", stdin=Secret(made.decode()))

    def act(found: Any, got: Answers) -> Call | Done:
        return create if found is None else Done(found)

    def until(found: Any, got: Answers) -> Any:
        return None if found is None else key_of(found)

    return Step(
        "key",
        f"Make a key for callers, in the Secret {secret}",
        create,
        look=_get(options, "secret", secret),
        act=act,
        until=until,
        absent=("NotFound",),
        present=("AlreadyExists",),
        secret=True,
    )


def key_of(secret: Any) -> Secret:
    """Read the first key of a Secret.

    Raises:
        DeployError: it holds none.
    """
    try:
        words = base64.b64decode(secret["data"]["keys"]).decode().split()
    except (KeyError, ValueError, TypeError):
        words = []
    if not words:
        raise DeployError(
            f"The Secret {secret['metadata']['name']} has no entry `keys`", hint="Delete it, and a new one is made."
        )
    return Secret(words[0])


@dataclass(frozen=True)
class Applied:
    """Give documents to kubectl by standard input."""

    command: Command
    documents: tuple[manifests.Document, ...]

    def sent(self) -> Mapping[str, object]:
        """Say what is run, and which of the files it is given."""
        named = [f"{each['kind'].lower()}.yaml" for each in self.documents]
        return {**self.command.sent(), "stdin": named}

    def done(self, hands: Hands) -> Any:
        """Apply them.

        Raises:
            CloudRefused: the cluster refuses one.
        """
        whole = "\n".join(msgspec.json.encode(each).decode() for each in self.documents)
        return replace(self.command, stdin=whole).done(hands)


def _before(name: str, options: Options) -> Step:
    return Step("before", "See what is running", look=_deployments(name, options))


def _deployments(name: str, options: Options) -> Command:
    """Ask for the Deployment in a list, which is empty where there is none."""
    chosen = f"serving.kserve.io/inferenceservice={name}" if options["kserve"] else f"app.kubernetes.io/instance={name}"
    return _get(options, "deployments.apps", "--selector", chosen)


def _manifests(name: str, documents: Sequence[manifests.Document], options: Options) -> Step:
    words = ("apply", "--server-side", "--force-conflicts", "--field-manager", "ketch", "--filename", "-")
    applied = Applied(kubectl(options, *words), tuple(documents))

    def act(found: Any, got: Answers) -> Call | Done:
        there = {(each["kind"], each["metadata"]["name"]): each for each in found["items"]}
        wanted = resolved(applied.documents, got)
        if all(holds(there.get((each["kind"], each["metadata"]["name"])), each) for each in wanted):
            return Done(found)
        return applied

    return Step(
        "manifests",
        f"Apply {len(documents)} manifests",
        applied,
        look=_ours(name, options, KSERVE if options["kserve"] else OURS),
        act=act,
    )


def holds(found: Any, wanted: Any) -> bool:
    """Say whether all that is wanted stands in what is there, to which the cluster adds its own defaults."""
    if isinstance(wanted, Mapping):
        return isinstance(found, Mapping) and all(holds(found.get(name), value) for name, value in wanted.items())
    if isinstance(wanted, list | tuple):
        return isinstance(found, list) and len(found) == len(wanted) and all(map(holds, found, wanted))
    return bool(found == wanted)


def _rolled_out(name: str, options: Options) -> Step:
    selector = ",".join(f"{key}={value}" for key, value in manifests.pods(name, options).items())
    look = Both({"deployments": _deployments(name, options), "pods": _get(options, "pods", "--selector", selector)})

    def act(found: Any, got: Answers) -> Call | Done:
        if not got.keys() & {"manifests", "undo"}:
            raise NotGiven("Nothing was applied yet", hint="Run the same command again.")
        return Done(found)

    def until(found: Any, got: Answers) -> Any:
        listed = found["deployments"]["items"]
        return rolled_out(listed[0], found["pods"]["items"], name) if listed else None

    return Step(
        "rollout",
        "Wait until the new pods answer",
        look=look,
        act=act,
        until=until,
        news=lambda found: troubles(found["pods"]["items"]),
        amends=() if options["kserve"] else (_undone(name, options),),
        patience=manifests.ROLLS,
        every=2.0,
    )


def rolled_out(deployment: Any, pods: Sequence[Any], name: str) -> Any:
    """Give a Deployment whose pods are all new and ready; None while they are not.

    Raises:
        DeployError: they will never be.
    """
    status, wanted = deployment.get("status", {}), deployment["spec"].get("replicas", 1)
    if status.get("observedGeneration", 0) < deployment["metadata"]["generation"]:
        return None
    late = any(each.get("reason") == "ProgressDeadlineExceeded" for each in status.get("conditions", ()))
    if late or any(each["reason"] in HOPELESS for each in waiting(pods)):
        why = "; ".join(troubles(pods)) or "they are not ready in time"
        raise DeployError(
            f"The new pods do not come up: {why}", hint=f"See: ketch deploy kubernetes {name} --logs, and --status."
        )
    up = min(status.get("updatedReplicas", 0), status.get("availableReplicas", 0)) >= wanted
    return deployment if up and status.get("replicas", 0) <= wanted else None


def waiting(pods: Iterable[Any]) -> list[Mapping[str, Any]]:
    """List why containers are not running."""
    states = [state for pod in pods for state in pod.get("status", {}).get("containerStatuses", ())]
    return [each["state"]["waiting"] for each in states if each.get("state", {}).get("waiting", {}).get("reason")]


def troubles(pods: Sequence[Any]) -> list[str]:
    """Say in words what keeps pods from running."""
    said = [f"{each['reason']}: {each.get('message', '')}".rstrip(": ") for each in waiting(pods)]
    for pod in pods:
        conditions = pod.get("status", {}).get("conditions", ())
        said += [str(each.get("message", "")) for each in conditions if each.get("reason") == "Unschedulable"]
    return [each for each in dict.fromkeys(said) if each and each != "ContainerCreating"]


def _undone(name: str, options: Options) -> Step:
    """Go back to the revision that was running before, where this run has made a new one."""

    def act(found: Any, got: Answers) -> Call | Done:
        before = [revision(each) for each in got["before"]["items"]]
        now = [revision(each) for each in found["items"]]
        if not before or before == now or not before[0]:
            return Done()
        return kubectl(options, "rollout", "undo", f"deployment/{name}", f"--to-revision={before[0]}")

    return Step("undo", "Go back to the version before", look=_deployments(name, options), act=act)


def revision(found: Any) -> str:
    """Give the number of a revision; empty where there is none yet."""
    return str(found["metadata"].get("annotations", {}).get(REVISION, ""))


@dataclass(frozen=True)
class Forwarded:
    """Ask for the golden predictions through a port of this machine that kubectl forwards into the cluster."""

    command: Command
    key: str | Got
    opened: Bundle
    address: str

    def sent(self) -> Mapping[str, object]:
        """Say what is run and asked."""
        return {**self.command.sent(), "replay": f"golden predictions of {self.opened.manifest.name}"}

    def done(self, hands: Hands) -> Any:
        """Ask, and give the address that callers in the cluster use.

        Raises:
            CloudRefused: nobody answers yet. AnswersDiffer: the wrong model does.
        """
        with self._port(hands) as port:
            Smoke(f"http://127.0.0.1:{port}", self.key, self.opened).done(hands)
        return self.address

    @contextmanager
    def _port(self, hands: Hands) -> Any:
        process = subprocess.Popen(
            self.command.words, env={**hands.environ}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        timer = threading.Timer(30, process.kill)
        timer.start()
        try:
            said = process.stdout.readline() if process.stdout else ""
            timer.cancel()
            found = re.search(r"127\.0\.0\.1:(\d+) ->", said)
            if found is None:
                raise CloudRefused(f"kubectl cannot forward a port: {said.strip()}", reason=NOT_LIVE, hint=HINT)
            yield int(found[1])
        finally:
            timer.cancel()
            process.kill()
            process.communicate()


def _smoke(shipment: Shipment, service: str, options: Options) -> Step:
    made = smoke(shipment, options["url"], Got("key"))
    if options["url"]:
        return made
    command = kubectl(options, "port-forward", "--address", "127.0.0.1", f"service/{service}", ":80")
    address = f"http://{service}.{options['namespace']}.svc"
    call = Forwarded(command, Got("key"), shipment.opened, address)
    return replace(made, call=call, again=(NOT_LIVE, NotReady.code))  # all pods are new: another answer is a wrong one


# ---- back, and away ----------------------------------------------------------------------------------


def rollback(name: str, options: Options) -> Plan:
    """Say how the revision before comes back; where it goes stands on the Deployment until the next is deployed.

    So a second run goes on with the first, and no further back.

    Raises:
        UsageError: KServe keeps no revisions in Standard mode.
    """
    if options["kserve"]:
        raise UsageError("KServe keeps no earlier version to go back to", hint="Deploy the earlier bundle again.")
    sets = _get(options, "replicasets.apps", "--selector", f"app.kubernetes.io/instance={name}")
    look = Both({"deployments": _deployments(name, options), "sets": sets})
    steps = (
        _marked(name, options, look),
        _went_back(name, options, look),
        replace(_rolled_out(name, options), amends=()),
    )
    return Plan("kubernetes", name, steps)


def _marked(name: str, options: Options, look: Call) -> Step:
    def act(found: Any, got: Answers) -> Call | Done:
        chosen = target_of(found, name)
        return Done(found) if marked(found) else _label(name, options, chosen)

    def until(found: Any, got: Answers) -> Any:
        return marked(found) or None

    return Step("mark", "Note on the Deployment where it goes back to", look=look, act=act, until=until)


def marked(found: Any) -> str:
    """Give the ReplicaSet that a rollback has chosen, since the last one was deployed."""
    return str(next((each["metadata"].get("labels", {}).get(manifests.BACK_TO, "") for each in _one(found)), ""))


def _one(found: Any) -> Sequence[Any]:
    return list(found["deployments"]["items"])[:1]


def target_of(found: Any, name: str) -> str:
    """Choose the ReplicaSet to go back to: that of the revision before, by its hash.

    Raises:
        UsageError: there is none.
    """
    deployments = _one(found)
    if not deployments:
        raise UsageError(f"There is no deployment {name}", hint="Is it another --namespace, or another --context?")
    now = int(revision(deployments[0]) or 0)
    earlier = {int(revision(each) or 0): each for each in found["sets"]["items"]}
    before = max((each for each in earlier if 0 < each < now), default=0)
    if not before:
        raise UsageError(f"{name} has no version before this one", hint="Deploy the bundle that you want.")
    return str(earlier[before]["metadata"]["labels"][HASH])


def _label(name: str, options: Options, value: str) -> Command:
    return kubectl(options, "label", "--overwrite", f"deployment/{name}", f"{manifests.BACK_TO}={value}")


def _went_back(name: str, options: Options, look: Call) -> Step:
    def act(found: Any, got: Answers) -> Call | Done:
        if "mark" not in got:
            raise NotGiven("The version to go back to is not chosen yet", hint="Run the same command again.")
        sets = {each["metadata"]["labels"][HASH]: revision(each) for each in found["sets"]["items"]}
        back = sets.get(got["mark"], "")
        if back == revision(_one(found)[0]):
            return Done(back)
        if not back:
            raise DeployError("The version to go back to is gone", hint="Deploy the bundle that you want.")
        return kubectl(options, "rollout", "undo", f"deployment/{name}", f"--to-revision={back}")

    return Step("undo", "Go back to the version before", look=look, act=act)


def destroy(name: str, options: Options) -> Plan:
    """Say how all that was made for a deployment is removed; the namespace stays."""
    kinds = f"{KSERVE if options['kserve'] else OURS},secrets"
    chosen = f"app.kubernetes.io/instance={name},app.kubernetes.io/managed-by=ketch"
    gone = kubectl(options, "delete", kinds, "--selector", chosen, "--wait=true", "--ignore-not-found")

    def act(found: Any, got: Answers) -> Call | Done:
        return gone if found["items"] else Done()

    step = Step("gone", f"Remove {name}, its Secret too", gone, look=_ours(name, options, kinds), act=act)
    return Plan("kubernetes", name, (step,), notes=(f"the namespace {options['namespace']} stays",))


# ---- asking ------------------------------------------------------------------------------------------


def status(name: str, options: Options) -> list[Question]:
    """Ask how the Deployment, its autoscaler and its pods are."""
    selector = ",".join(f"{key}={value}" for key, value in manifests.pods(name, options).items())
    return [
        Question("deployment", _deployments(name, options), lambda found: list(_of_deployments(found, name))),
        Question("pods", _get(options, "pods", "--selector", selector), lambda found: list(_of_pods(found))),
    ]


def _of_deployments(found: Any, name: str) -> Iterable[tuple[str, str]]:
    for each in found["items"]:
        state, wanted = each.get("status", {}), each["spec"].get("replicas", 1)
        ready = state.get("readyReplicas", 0)
        images = ", ".join(one["image"] for one in each["spec"]["template"]["spec"]["containers"])
        told = f"{name}: {ready} of {wanted} pods ready, revision {revision(each) or '?'}, {images}"
        yield ("ok" if ready >= wanted else "mend"), told
    if not found["items"]:
        yield "--", f"there is no deployment {name} in this namespace"


def _of_pods(found: Any) -> Iterable[tuple[str, str]]:
    for pod in found["items"]:
        states = pod.get("status", {}).get("containerStatuses", ())
        ready = bool(states) and all(each.get("ready") for each in states)
        restarts = sum(each.get("restartCount", 0) for each in states)
        why = "; ".join(troubles([pod]))
        told = f"{pod['metadata']['name']}: {pod.get('status', {}).get('phase', '?')}, {restarts} restarts"
        yield ("ok" if ready else "mend"), f"{told}{f', {why}' if why else ''}"


def logs(name: str, options: Options) -> list[Question]:
    """Ask for the last lines of all pods."""
    selector = ",".join(f"{key}={value}" for key, value in manifests.pods(name, options).items())
    words = ("logs", "--selector", selector, "--all-containers", "--prefix", "--tail=100", "--ignore-errors")
    return [Question("logs", kubectl(options, *words), lambda said: [("--", line) for line in said.splitlines()])]


def doctor(name: str, options: Options) -> list[Question]:
    """Ask whether the cluster is there, and what may be made in it."""
    kinds = [*(KSERVE if options["kserve"] else OURS).split(","), "secrets"]
    return [
        Question("cluster", kubectl(options, "version", "--output", "json", parsed=True), _of_version),
        *(_may(kind, options) for kind in kinds),
        Question(
            "autoscaling",
            _get(options, "apiservices.apiregistration.k8s.io", "v1beta1.metrics.k8s.io"),
            lambda one: [("ok", "there are metrics")] if one else [("--", "no metrics-server: pods stay the fewest")],
            absent=("NotFound", "Forbidden"),
        ),
    ]


def _of_version(found: Any) -> list[tuple[str, str]]:
    told = found.get("serverVersion", {})
    minor = int(re.match(r"\d*", str(told.get("minor", "")))[0] or 0)  # type: ignore[index]
    version = str(told.get("gitVersion", "?"))
    return [("ok", f"Kubernetes {version}")] if minor >= 25 else [("mend", f"{version} is older than 1.25")]


def _may(kind: str, options: Options) -> Question:
    def told(answer: Any) -> list[tuple[str, str]]:
        yes = str(answer or "").startswith("yes")
        return [("ok" if yes else "mend", f"may {'' if yes else 'not '}create {kind}")]

    return Question(f"rights on {kind}", kubectl(options, "auth", "can-i", "create", kind), told, absent=("failed",))


TARGET = Target(
    "kubernetes",
    "A Kubernetes cluster, by kubectl: restricted pods, autoscaled; or KServe.",
    "image",
    plan,
    OPTIONS,
    status=status,
    logs=logs,
    rollback=rollback,
    destroy=destroy,
    doctor=doctor,
)
