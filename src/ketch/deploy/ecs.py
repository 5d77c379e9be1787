"""AWS ECS in Express Mode: containers on Fargate behind a load balancer with TLS, which come and go with the load.

Shipment --*plan*--> roles, secret, image --> service, a few requests first --smoke--> live
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from ketch import deploy
from ketch.deploy import HOURS, Option, Options, Shipment, Target, amazon, images
from ketch.errors import CloudRefused, DeployError, UsageError
from ketch.steps import Answers, Call, Done, Got, Hands, Plan, Question, Step, Text
from ketch.steps.aws import Aws

PORT: Final = 9696  # of the image
READY: Final = "/health/ready"
LONGEST: Final = 40  # letters of a name: the roles' names stand behind it
MARK: Final = "KETCH_DEPLOYMENT"  # tells a configuration from others: what else is in it, AWS may spell otherwise
BACK: Final = "ketch:back"  # the tag that says what was gone back from, and to
NOT_YET: Final = "role-not-known-yet"
NOT_THERE: Final = ("ResourceNotFoundException", "ServiceNotFoundException", "ClusterNotFoundException")
GONE: Final = ("INACTIVE", "DRAINING")
FAILED: Final = ("STOPPED", "ROLLBACK_IN_PROGRESS", "ROLLBACK_SUCCESSFUL", "ROLLBACK_FAILED")
ROLLS_OUT: Final = 1800.0  # seconds: some requests for some minutes, then all, then some minutes more
MEMORY: Final = {  # MiB that Fargate gives to units of CPU: fewest, most, and the step between
    256: (512, 2048, 512),
    512: (1024, 4096, 1024),
    1024: (2048, 8192, 1024),
    2048: (4096, 16384, 1024),
    4096: (8192, 30720, 1024),
}
LISTED: Final = r"({0}-[0-9a-f]+(, ?{0}-[0-9a-f]+)*)?"
FORMS: Final = {  # of options, and what has one
    "cluster": (r"[\w-]{1,255}", "default"),
    "subnets": (LISTED.format("subnet"), "subnet-0a1b,subnet-2c3d"),
    "security_groups": (LISTED.format("sg"), "sg-0a1b"),
    "log_secret": (r"(arn:aws[a-z-]*:secretsmanager:\S+)?", "arn:aws:secretsmanager:…"),
}
OPTIONS: Final = (
    Option("cpu", "Units of CPU of a task, 1024 to a core.", 512),
    Option("memory", "MiB of a task.", 1024),
    Option("arm", "Run on ARM, which costs a fifth less.", False),
    Option("min", "Fewest tasks.", 1),
    Option("max", "Most tasks.", 4),
    Option("cluster", "The cluster.", "default"),
    Option("subnets", "Subnets, separated by commas: private ones make the address private.  [the default network's]"),
    Option("security_groups", "Security groups of the tasks, separated by commas."),
    Option("log_secret", "ARN of a secret with the KETCH_LOG of the service, such as a postgresql URL."),
    Option("to", "With --rollback: the tag of the image to go back to.  [the one before]"),
)


def plan(shipment: Shipment, options: Options) -> Plan:
    """Plan how a model gets to ECS.

    Raises:
        UsageError: an option cannot be as it is.
    """
    name = deploy.require_name(shipment.name, LONGEST)
    require_sense(options)
    recipe = {"platform": "linux/arm64" if options["arm"] else "linux/amd64"}
    tag = images.image_tag(shipment, **recipe)
    content = images.fingerprint(tag, sorted((key, value) for key, value in options.items() if key != "to"))
    wanted = _configured(name, tag, content, options)
    url, look = Got("live", ("url",)), Described(name, options["cluster"])
    return Plan(
        "ecs",
        name,
        (
            amazon.account(),
            *amazon.pushed(name, tag, shipment, **recipe),
            *amazon.secret(name, shipment.key),
            *amazon.role("execution", _execution(name, options["log_secret"])),
            *amazon.role("infrastructure", _infrastructure(name)),
            *amazon.log_group(_group(name), name),
            Step("before", "See what is there", look=look, until=_before),
            Step("forgotten", "Forget what was gone back from", look=look, act=_forgotten),
            _service(name, content, wanted, options, look),
            _live(content, look),
            deploy.smoke(shipment, url, Got("key"), amends=(_restored(content, look),)),
        ),
        uses=_uses(options),
        notes=_notes(options),
    )


def require_sense(options: Options) -> None:
    """Refuse sizes that Fargate does not have.

    Raises:
        UsageError: it has not.
    """
    deploy.require_forms(options, FORMS)
    cpu, memory = options["cpu"], options["memory"]
    if cpu not in MEMORY:
        raise UsageError(f"Fargate has no {cpu} units of CPU", hint=f"Choose --cpu of {', '.join(map(str, MEMORY))}.")
    fewest, most, step = MEMORY[cpu]
    if memory not in range(fewest, most + 1, step):
        raise UsageError(
            f"Fargate does not give {memory} MiB to {cpu} units of CPU",
            hint=f"Choose --memory from {fewest} to {most}, in steps of {step}.",
        )
    if not 1 <= options["min"] <= options["max"]:
        raise UsageError("--min and --max do not go together", hint="At least one task, and no fewer than --min.")


def _configured(name: str, tag: str, content: str, options: Options) -> dict[str, Any]:
    """Say what runs, in the words of both calls that make it so."""
    secrets = [{"name": "KETCH_API_KEYS", "valueFrom": Got("secret", ("ARN",))}]
    if options["log_secret"]:
        secrets.append({"name": "KETCH_LOG", "valueFrom": options["log_secret"]})
    told = {
        "executionRoleArn": Got("execution", ("Role", "Arn")),
        "healthCheckPath": READY,
        "cpu": str(options["cpu"]),
        "memory": str(options["memory"]),
        "cpuArchitecture": "ARM64" if options["arm"] else "X86_64",
        "primaryContainer": {
            "image": amazon.image(tag),
            "containerPort": PORT,
            "awsLogsConfiguration": {"logGroup": _group(name), "logStreamPrefix": "service"},
            "environment": [{"name": MARK, "value": content}],
            "secrets": secrets,
        },
        "scalingTarget": {
            "minTaskCount": options["min"],
            "maxTaskCount": options["max"],
            "autoScalingMetric": "AVERAGE_CPU",
            "autoScalingTargetValue": 60,
        },
    }
    network = {"subnets": options["subnets"], "securityGroups": options["security_groups"]}
    given = {key: [each.strip() for each in value.split(",")] for key, value in network.items() if value}
    return told | ({"networkConfiguration": given} if given else {})


def _uses(options: Options) -> dict[str, float]:
    tasks, kind = float(options["min"]) * HOURS, "aws.fargate.arm" if options["arm"] else "aws.fargate"
    return {
        f"{kind}.vcpu": tasks * options["cpu"] / 1024,
        f"{kind}.gib": tasks * options["memory"] / 1024,
        "aws.alb": HOURS,
        "aws.ipv4": HOURS * (2 + options["min"]),
        "aws.ecr.gib": 0.2,
        "aws.logs.gib": 1.0,
        "aws.secret": 1.0,
    }


def _notes(options: Options) -> tuple[str, ...]:
    told = [
        "up to 25 services of Express Mode share one load balancer, which then costs once",
        "an update takes about ten minutes: a few requests first, then all",
    ]
    if not options["subnets"]:
        told.append(
            "without --subnets it stands in the default network, open to the world by HTTPS, and asks for its key"
        )
    return tuple(told)


# ---- what is made besides ----------------------------------------------------------------------------


def _group(name: str) -> str:
    return f"/ketch/{name}"


def _execution(name: str, log_secret: str = "") -> amazon.Role:
    """Describe who starts tasks: it may fetch the image, write logs and read the secrets."""
    own: dict[str, str | Text] = {"secrets": amazon.may_read_secret()}
    if log_secret:
        allowed = {"Effect": "Allow", "Action": ["secretsmanager:GetSecretValue"], "Resource": log_secret}
        own["log-secret"] = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
    return amazon.Role(
        f"ketch-{name}-ecs-tasks",
        "ecs-tasks.amazonaws.com",
        name,
        ("service-role/AmazonECSTaskExecutionRolePolicy",),
        own,
    )


def _infrastructure(name: str) -> amazon.Role:
    """Describe who makes and removes load balancers, certificates and the like for the service."""
    policy = "service-role/AmazonECSInfrastructureRoleforExpressGatewayServices"
    return amazon.Role(f"ketch-{name}-ecs", "ecs.amazonaws.com", name, (policy,))


# ---- the service -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Described:
    """Ask how a service is, and how its deployments went, the newest first; None where there is none."""

    name: str
    cluster: str

    def sent(self) -> Mapping[str, object]:
        """Say what is asked."""
        return {"aws": "ecs.describe_express_gateway_service", "params": {"serviceArn": f"{self.cluster}/{self.name}"}}

    def done(self, hands: Hands) -> Any:
        """Ask."""
        try:
            arn = self.arn(hands)
            asked = {"serviceArn": arn, "include": ["TAGS"]}
            found = Aws("ecs", "describe_express_gateway_service", asked).done(hands)["service"]
            listed = Aws("ecs", "list_service_deployments", {"service": arn, "cluster": self.cluster}).done(hands)
        except CloudRefused as error:
            if error.reason in NOT_THERE:
                return None
            raise
        deployments = sorted(listed["serviceDeployments"], key=lambda each: str(each["createdAt"]), reverse=True)
        return {**found, "deployments": deployments}

    def arn(self, hands: Hands) -> str:
        """Give the name of the service in the whole of AWS."""
        who, region = amazon.WHO.done(hands), amazon.Region().done(hands)
        return f"arn:{who['Arn'].split(':')[1]}:ecs:{region}:{who['Account']}:service/{self.cluster}/{self.name}"


def state(found: Any) -> str:
    """Name the state of a service; empty where there is none."""
    return str(found["status"]["statusCode"]) if found else ""


def mark(config: Mapping[str, Any]) -> str:
    """Give the mark of a configuration."""
    listed = (config.get("primaryContainer") or {}).get("environment") or ()
    return next((str(each["value"]) for each in listed if each["name"] == MARK), "")


def tag_of(config: Mapping[str, Any]) -> str:
    """Give the tag of the image that a configuration runs."""
    return str(config["primaryContainer"]["image"]).rpartition(":")[2]


def _before(found: Any, got: Answers) -> Any:
    """Wait for the end of a service that is going, and give what is there."""
    return None if state(found) == "DRAINING" else (found or {"activeConfigurations": ()})


def _service(name: str, content: str, wanted: Mapping[str, Any], options: Options, look: Described) -> Step:
    make = Aws(
        "ecs",
        "create_express_gateway_service",
        {
            "serviceName": name,
            "cluster": options["cluster"],
            "infrastructureRoleArn": Got("infrastructure", ("Role", "Arn")),
            **wanted,
            "tags": [{"key": amazon.OURS, "value": name}],
        },
        reasons={"assume": NOT_YET, "role": NOT_YET},
    )

    def act(found: Any, got: Answers) -> Call | Done:
        if state(found) in ("", "INACTIVE"):
            return make
        if any(mark(each) == content for each in found["activeConfigurations"]):
            return Done({"service": found})
        return update(found, wanted)

    return Step("service", f"Service {name}", make, look, act, again=(NOT_YET,), asks=amazon.SETTLES)


def update(found: Mapping[str, Any], told: Mapping[str, Any]) -> Aws:
    """Make the call that changes what a service runs."""
    asked = {"serviceArn": found["serviceArn"], **told}
    return Aws("ecs", "update_express_gateway_service", asked, reasons={"assume": NOT_YET})


def _live(content: str, look: Described) -> Step:
    """Wait until only the new configuration runs, and its deployment is done."""

    def until(found: Any, got: Answers) -> Any:
        if found is None:
            return None
        configs, newest = found["activeConfigurations"], found["deployments"][:1]
        _require_alive(found, _revisions(found, got["service"]["service"], content))
        done = all(each["status"] == "SUCCESSFUL" for each in newest)
        if state(found) != "ACTIVE" or not done or not configs or any(mark(each) != content for each in configs):
            return None
        return {**found, "url": url_of(configs[0])}

    return Step(
        "live", "Wait until all requests go there", look=look, until=until, news=news, patience=ROLLS_OUT, every=10
    )


def _revisions(found: Any, answered: Any, content: str) -> set[str]:
    """Name the revisions that are ours: the one that was asked for, and those that run."""
    configs = [*found["activeConfigurations"], *answered.get("activeConfigurations", ())]
    ours = [each for each in configs if mark(each) == content] + [answered.get("targetConfiguration") or {}]
    return {str(each["serviceRevisionArn"]) for each in ours if each.get("serviceRevisionArn")}


def _require_alive(found: Any, revisions: set[str]) -> None:
    """Refuse to wait for what will not be.

    Raises:
        DeployError: the service is gone, or AWS has given up on this deployment.
    """
    hint = f"ketch deploy ecs {found['serviceName']} --logs shows what the container said."
    if state(found) in GONE:
        raise DeployError(f"The service is going: {found['status'].get('statusReason', 'it was deleted')}", hint=hint)
    for each in found["deployments"][:1]:
        if each["status"] in FAILED and each.get("targetServiceRevisionArn") in revisions:
            reason = each.get("statusReason") or each["status"].lower().replace("_", " ")
            raise DeployError(f"ECS went back to what ran before: {reason}", hint=hint)


def news(found: Any) -> Iterator[str]:
    """Tell how the newest deployment is."""
    for each in found["deployments"][:1]:
        reason = f": {each['statusReason']}" if each.get("statusReason") else ""
        yield f"{each['status'].lower().replace('_', ' ')}{reason}"


def url_of(config: Mapping[str, Any]) -> str:
    """Give the address of a service; the public one, where there are two.

    Raises:
        DeployError: it has none.
    """
    paths = sorted(config.get("ingressPaths", ()), key=lambda each: str(each["accessType"]) != "PUBLIC")
    if not paths:
        raise DeployError("The service has no address", hint="See it in the console of ECS.")
    endpoint = str(paths[0]["endpoint"])
    return endpoint if "//" in endpoint else f"https://{endpoint}"


def _restored(content: str, look: Described) -> Step:
    """Let the service run again what it ran before this plan."""

    def act(found: Any, got: Answers) -> Call | Done:
        old = [each for each in got["before"]["activeConfigurations"] if mark(each) != content]
        return update(found, _again(old[0])) if found and old else Done()

    return Step("restored", "Run again what ran before", look=look, act=act)


def _again(config: Mapping[str, Any]) -> dict[str, Any]:
    """Give what ran, in the words of the call that makes it run again."""
    kept = (
        "executionRoleArn",
        "healthCheckPath",
        "cpu",
        "memory",
        "cpuArchitecture",
        "primaryContainer",
        "scalingTarget",
    )
    return {key: config[key] for key in kept if config.get(key)}


# ---- afterwards --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Earlier:
    """Find the image to go back to, by its tag: the one before in the service's own record."""

    look: Described
    to: str = ""

    def sent(self) -> Mapping[str, object]:
        """Say what is asked."""
        return {"aws": "ecs.describe_service_revisions", "to": self.to or "the one before"}

    def done(self, hands: Hands) -> Any:
        """Ask.

        Raises:
            DeployError: there is no service, or nothing to go back to.
        """
        found = self.look.done(hands)
        if state(found) != "ACTIVE" or not found["activeConfigurations"]:
            raise DeployError(f"There is no service {self.look.name}", hint="Is it in another region, or --cluster?")
        running = {tag_of(each) for each in found["activeConfigurations"]}
        origin, _, aim = _gone_back(found).partition(" ")
        if self.to or running & {origin, aim}:  # it was begun already, and perhaps interrupted
            return self.to or aim
        for each in found["deployments"]:
            if each["status"] == "SUCCESSFUL" and (tag := _tag(each["targetServiceRevisionArn"], hands)) not in running:
                return tag
        raise DeployError("There is nothing to go back to", hint="Deploy the model that should serve.")


def _tag(revision: str, hands: Hands) -> str:
    asked = Aws("ecs", "describe_service_revisions", {"serviceRevisionArns": [revision]})
    found = asked.done(hands)["serviceRevisions"][0]
    return str(found["containerImages"][0]["image"]).partition("@")[0].rpartition(":")[2]


def _gone_back(found: Any) -> str:
    return next((str(each["value"]) for each in (found or {}).get("tags", ()) if each["key"] == BACK), "")


def _forgotten(found: Any, got: Answers) -> Call | Done:
    if not _gone_back(found):
        return Done()
    return Aws("ecs", "untag_resource", {"resourceArn": found["serviceArn"], "tagKeys": [BACK]})


def _marked(found: Any, got: Answers) -> Call | Done:
    """Note what is gone back from, so that a rollback that is run again does not go farther back."""
    others = [tag_of(each) for each in found["activeConfigurations"] if tag_of(each) != got["earlier"]]
    if not others or _gone_back(found).endswith(f" {got['earlier']}"):
        return Done()
    tags = [{"key": BACK, "value": f"{others[0]} {got['earlier']}"}]
    return Aws("ecs", "tag_resource", {"resourceArn": found["serviceArn"], "tags": tags})


def rollback(name: str, options: Options) -> Plan:
    """Plan to run again the image that ran before; run again, it does nothing more."""
    look = Described(name, options["cluster"])

    def act(found: Any, got: Answers) -> Call | Done:
        configs = found["activeConfigurations"]
        if any(tag_of(each) == got["earlier"] for each in configs):
            return Done()
        container = dict(configs[0]["primaryContainer"])
        container["image"] = f"{container['image'].rpartition(':')[0]}:{got['earlier']}"
        told = [{**each, "value": images.fingerprint(container["image"])} for each in container["environment"]]
        return update(found, {"primaryContainer": {**container, "environment": told}})

    def until(found: Any, got: Answers) -> Any:
        configs, newest = found["activeConfigurations"], found["deployments"][:1]
        done = all(each["status"] == "SUCCESSFUL" for each in newest)
        return found if done and configs and all(tag_of(each) == got["earlier"] for each in configs) else None

    return Plan(
        "ecs",
        name,
        (
            Step("earlier", "Find the image to go back to", look=Earlier(look, options["to"])),
            Step("marked", "Note what is gone back from", look=look, act=_marked),
            Step("back", "Run it again", look=look, act=act, until=until, news=news, patience=ROLLS_OUT, every=10),
        ),
    )


def destroy(name: str, options: Options) -> Plan:
    """Plan to remove a deployment and all that was made for it."""
    look = Described(name, options["cluster"])

    def gone(found: Any) -> bool:
        ours = any((each["key"], each["value"]) == (amazon.OURS, name) for each in (found or {}).get("tags", ()))
        return state(found) in ("", "INACTIVE") or not ours

    def act(found: Any, got: Answers) -> Call | Done:
        if gone(found) or state(found) == "DRAINING":
            return Done()
        return Aws("ecs", "delete_express_gateway_service", {"serviceArn": found["serviceArn"]})

    service = Step(
        "service",
        f"Delete service {name}, with what AWS made for it",
        look=look,
        act=act,
        until=lambda found, got: {"gone": True} if gone(found) else None,
        present=NOT_THERE,
        patience=ROLLS_OUT,
        every=10,
    )
    rest = (
        amazon.delete_secret(name),
        amazon.delete_repository(name, name),
        amazon.delete_role("execution", _execution(name).name, name),
        amazon.delete_role("infrastructure", _infrastructure(name).name, name),
        amazon.delete_log_groups(_group(name), lambda group: group == _group(name)),
    )
    return Plan("ecs", name, (service, *rest), notes=("a cluster, and what was made by other means, is left as it is",))


# ---- asking ------------------------------------------------------------------------------------------


def status(name: str, options: Options) -> tuple[Question, ...]:
    """Ask what runs, and how the newest deployments went."""

    def told(found: Any) -> Iterable[tuple[str, str]]:
        if state(found) != "ACTIVE":
            yield "--", f"there is no service {name}" if not found else f"{name} is {state(found).lower()}"
            return
        for each in found["activeConfigurations"]:
            yield "ok", f"{url_of(each)} runs {tag_of(each)}"
        for each in found["deployments"][:5]:
            yield "--", f"{each['createdAt']:%Y-%m-%d %H:%M} {'; '.join(news({'deployments': [each]}))}"

    return (Question("service", Described(name, options["cluster"]), told),)


def logs(name: str, options: Options) -> tuple[Question, ...]:
    """Ask what the service said last."""
    return amazon.logs(_group(name))


def doctor(name: str, options: Options) -> tuple[Question, ...]:
    """Check who is signed in, where, and whether there is a network to stand in."""
    networks = Aws("ec2", "describe_vpcs", {"Filters": [{"Name": "isDefault", "Values": ["true"]}]})
    questions = [
        *amazon.signed_in(),
        Question("network", networks, lambda found: [_network(found, options["subnets"])]),
        Question(
            "repositories",
            Aws("ecr", "describe_repositories"),
            lambda found: [("ok", f"{len(found['repositories'])} can be listed")],
        ),
    ]
    return (*questions, *(status(name, options) if name else ()))


def _network(found: Any, subnets: str) -> tuple[str, str]:
    if subnets or found["Vpcs"]:
        return "ok", subnets or f"the default network, {found['Vpcs'][0]['VpcId']}"
    return "mend", "there is no default network: give --subnets"


TARGET: Final = Target(
    "ecs",
    "AWS ECS in Express Mode: containers on Fargate behind a load balancer with TLS.",
    "image",
    plan,
    OPTIONS,
    status=status,
    logs=logs,
    rollback=rollback,
    destroy=destroy,
    doctor=doctor,
)
