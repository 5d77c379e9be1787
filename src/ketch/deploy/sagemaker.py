"""AWS SageMaker: an endpoint for callers with AWS identities, updated blue and green by AWS itself.

Shipment --*plan*--> image --> model --> configuration --> endpoint --smoke, by invoke_endpoint--> live
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ketch import deploy
from ketch.bundle import Bundle
from ketch.client import hold
from ketch.codec import JSON
from ketch.deploy import HOURS, Option, Options, Shipment, Target, amazon, images
from ketch.errors import CloudRefused, DeployError, UsageError
from ketch.page import answered
from ketch.schema.checks import Checker
from ketch.steps import Answers, Both, Call, Done, Got, Hands, Plan, Question, Step, Text
from ketch.steps.aws import Aws

PORT: Final = "8080"  # where SageMaker asks for /ping and /invocations
LONGEST: Final = 40  # letters of a name
LASTS: Final = 3600.0  # seconds that an update may take
NOT_THERE: Final = "not-there"
NOT_YET: Final = "role-not-known-yet"
BUSY: Final = "busy"
BACK: Final = "ketch:back"  # the tag that says what was gone back from, and to
REASONS: Final[Mapping[str, str]] = {  # which all have the code ValidationException
    "Could not find": NOT_THERE,
    "does not exist": NOT_THERE,
    "Could not assume role": NOT_YET,
    "Cannot update in-progress": BUSY,
    "Cannot create already existing": "exists",
}
POLICY: Final = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Action": [
                "cloudwatch:PutMetricData",
                "ecr:BatchCheckLayerAvailability",
                "ecr:BatchGetImage",
                "ecr:GetAuthorizationToken",
                "ecr:GetDownloadUrlForLayer",
                "logs:CreateLogGroup",
                "logs:CreateLogStream",
                "logs:DescribeLogStreams",
                "logs:PutLogEvents",
            ],
            "Resource": "*",
        }
    ],
}
OPTIONS: Final = (
    Option("instance_type", "Type of the instances.", "ml.m5.large"),
    Option("instances", "How many.", 1),
    Option("serverless", "Without instances: nothing is paid while nobody asks, and the first answer waits.", False),
    Option("memory", "With --serverless: MiB.", 2048),
    Option("concurrency", "With --serverless: most answers at a time.", 20),
    Option("canary", "Percent of the instances that are new at first; 0 changes all at once.", 0),
    Option("to", "With --rollback: the configuration to go back to.  [the one before]"),
)


def sagemaker(operation: str, **params: Any) -> Aws:
    """Make a call of SageMaker, which tells most refusals by their words alone."""
    return Aws("sagemaker", operation, params, reasons=REASONS)


def plan(shipment: Shipment, options: Options) -> Plan:
    """Plan how a model gets behind an endpoint.

    Raises:
        UsageError: an option cannot be as it is.
    """
    name = deploy.require_name(shipment.name, LONGEST)
    _require_sense(options)
    recipe = {"platform": "linux/amd64"}
    tag = images.image_tag(shipment, **recipe)
    content = (
        f"{name}-{images.fingerprint(tag, sorted((k, v) for k, v in options.items() if k not in {'to', 'canary'}))}"
    )
    smoke = Invoked(name, shipment.opened)
    title = "Ask the live endpoint for its golden predictions"
    return Plan(
        "sagemaker",
        name,
        (
            amazon.account(),
            *amazon.pushed(name, tag, shipment, **recipe),
            *amazon.role("role", _role(name)),
            *amazon.log_group(_group(name), name),
            _model(name, content, amazon.image(tag)),
            _configuration(name, content, options),
            _cleared(name),
            Step("forgotten", "Forget what was gone back from", look=Described(name), act=_forgotten),
            _endpoint(name, content, options),
            _settled("live", name, content, "endpoint"),
            Step("smoke", title, smoke, again=("ModelError",), amends=(_restored(name, content, options),)),
        ),
        uses=_uses(options),
        notes=("callers sign their requests, as AWS identities that may sagemaker:InvokeEndpoint", *_notes(options)),
    )


def _require_sense(options: Options) -> None:
    if options["serverless"] and options["memory"] not in range(1024, 6145, 1024):
        raise UsageError(
            f"SageMaker has no {options['memory']} MiB without instances",
            hint="Give --memory 1024, 2048, … up to 6144.",
        )
    if not options["instance_type"].startswith("ml."):
        raise UsageError(
            f"{options['instance_type'][:40]!r} is no type of instance", hint="Give one such as ml.m5.large."
        )
    if options["serverless"] and not 1 <= options["concurrency"] <= 200:
        raise UsageError("--concurrency is from 1 to 200", hint="Leave it out for 20.")
    if options["instances"] < 1 or not 0 <= options["canary"] <= 50:
        raise UsageError(
            "--instances is one or more, and --canary at most 50", hint="Leave both out, or give --canary 10."
        )


def _uses(options: Options) -> dict[str, float]:
    if options["serverless"]:
        kind, amount = "aws.sagemaker.serverless.gib-second", 5_000 * options["memory"] / 1024
    else:
        kind, amount = f"aws.sagemaker.{options['instance_type']}", HOURS * options["instances"]
    return {kind: amount, "aws.ecr.gib": 0.2, "aws.logs.gib": 1.0}


def _notes(options: Options) -> tuple[str, ...]:
    if options["serverless"]:
        return ("the estimate is for 100,000 requests a month, of 50 ms each",)
    return ("an update starts as many instances again, and ends the old ones when the new ones are healthy",)


def _group(name: str) -> str:
    return f"/aws/sagemaker/Endpoints/{name}"


def _role(name: str) -> amazon.Role:
    """Describe who the endpoint is: it fetches its image, writes logs and figures, and may do nothing else."""
    return amazon.Role(f"ketch-{name}-sagemaker", "sagemaker.amazonaws.com", name, own={"runs": json.dumps(POLICY)})


# ---- what is made ------------------------------------------------------------------------------------


def _model(name: str, content: str, image: Text) -> Step:
    make = sagemaker(
        "create_model",
        ModelName=content,
        PrimaryContainer={"Image": image, "Environment": {"KETCH_AUTH": "platform", "KETCH_PORT": PORT}},
        ExecutionRoleArn=Got("role", ("Role", "Arn")),
        EnableNetworkIsolation=True,
        Tags=amazon.tags(name),
    )
    return Step(
        "model",
        f"Model {content}, which reaches no network",
        make,
        sagemaker("describe_model", ModelName=content),
        absent=(NOT_THERE,),
        present=("exists",),
        again=(NOT_YET,),
        asks=amazon.SETTLES,
    )


def _configuration(name: str, content: str, options: Options) -> Step:
    variant: dict[str, Any] = {"VariantName": "main", "ModelName": content}
    if options["serverless"]:
        variant["ServerlessConfig"] = {"MemorySizeInMB": options["memory"], "MaxConcurrency": options["concurrency"]}
    else:
        variant |= {"InitialInstanceCount": options["instances"], "InstanceType": options["instance_type"]}
    told = {"EndpointConfigName": content, "ProductionVariants": [variant], "Tags": amazon.tags(name)}
    return Step(
        "configuration",
        f"Configuration {content}",
        sagemaker("create_endpoint_config", **told),
        sagemaker("describe_endpoint_config", EndpointConfigName=content),
        absent=(NOT_THERE,),
        present=("exists",),
    )


@dataclass(frozen=True)
class Described:
    """Ask how an endpoint is, with its tags; None where there is none."""

    name: str

    def sent(self) -> Mapping[str, object]:
        """Say what is asked."""
        return {"aws": "sagemaker.describe_endpoint", "params": {"EndpointName": self.name}}

    def done(self, hands: Hands) -> Any:
        """Ask."""
        try:
            found = sagemaker("describe_endpoint", EndpointName=self.name).done(hands)
            return {**found, **sagemaker("list_tags", ResourceArn=found["EndpointArn"]).done(hands)}
        except CloudRefused as error:
            if error.reason == NOT_THERE:
                return None
            raise


def _cleared(name: str) -> Step:
    """Delete an endpoint that never came about: AWS neither updates nor replaces it."""

    def act(found: Any, got: Answers) -> Call | Done:
        failed = found is not None and found["EndpointStatus"] == "Failed"
        return sagemaker("delete_endpoint", EndpointName=name) if failed else Done()

    def until(found: Any, got: Answers) -> Any:
        return None if found and found["EndpointStatus"] in {"Failed", "Deleting"} else (found or {"none": True})

    return Step("before", "See what is there", look=Described(name), act=act, until=until, present=(NOT_THERE,))


def _endpoint(name: str, content: str, options: Options) -> Step:
    make = sagemaker("create_endpoint", EndpointName=name, EndpointConfigName=content, Tags=amazon.tags(name))

    def act(found: Any, got: Answers) -> Call | Done:
        if found is None:
            return make
        return Done(found) if content in _wanted(found) else update(name, content, options)

    again = (BUSY, "ResourceInUse")
    return Step(
        "endpoint", f"Endpoint {name}", make, Described(name), act, again=again, present=("exists",), asks=LASTS
    )


def _wanted(found: Mapping[str, Any]) -> tuple[str, str]:
    """Name the configuration of an endpoint, and the one that it is being updated to."""
    return str(found["EndpointConfigName"]), str(
        (found.get("PendingDeploymentSummary") or {}).get("EndpointConfigName")
    )


def update(name: str, content: str, options: Options) -> Aws:
    """Make the call that changes an endpoint: new instances beside the old ones, and some of them first."""
    told: dict[str, Any] = {"EndpointName": name, "EndpointConfigName": content}
    if not options["serverless"]:
        routing: dict[str, Any] = {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 60}
        if options["canary"]:
            size = {"Type": "CAPACITY_PERCENT", "Value": options["canary"]}
            routing = {"Type": "CANARY", "WaitIntervalInSeconds": 300, "CanarySize": size}
        policy = {"TrafficRoutingConfiguration": routing, "TerminationWaitInSeconds": 120}
        told["DeploymentConfig"] = {"BlueGreenUpdatePolicy": {**policy, "MaximumExecutionTimeoutInSeconds": int(LASTS)}}
    return sagemaker("update_endpoint", **told)


def _settled(step: str, name: str, content: str | Got, after: str) -> Step:
    """Wait until an endpoint is in service as an earlier step has told it to be."""

    def until(found: Any, got: Answers) -> Any:
        got[after]  # before that, it says nothing that the endpoint is another one
        wanted = got[content.step] if isinstance(content, Got) else content
        status = (found or {}).get("EndpointStatus")
        if status in {"Failed", "OutOfService", "UpdateRollbackFailed"}:
            raise _failed(name, found.get("FailureReason") or status)
        if status != "InService":
            return None
        if wanted not in _wanted(found):
            raise _failed(name, found.get("FailureReason") or "SageMaker went back to what ran before")
        return {**found, "url": f"sagemaker://{name}"} if found["EndpointConfigName"] == wanted else None

    return Step(
        step, "Wait until it is in service", look=Described(name), until=until, news=_news, patience=LASTS, every=10
    )


def _failed(name: str, reason: str) -> DeployError:
    return DeployError(
        f"The endpoint does not run this model: {reason}",
        hint=f"ketch deploy sagemaker {name} --logs shows what the container said.",
    )


def _news(found: Any) -> Iterable[str]:
    yield re.sub(r"(?<!^)(?=[A-Z])", " ", str(found["EndpointStatus"])).lower()


def _restored(name: str, content: str, options: Options) -> Step:
    """Let the endpoint run again what it ran before this plan."""

    def act(found: Any, got: Answers) -> Call | Done:
        old = got["before"].get("EndpointConfigName")
        return update(name, old, options) if found and old and old != content else Done()

    return Step("restored", "Run again what ran before", look=Described(name), act=act, again=(BUSY,))


# ---- is it right -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Invoked:
    """Ask an endpoint for golden predictions, as whoever is signed in."""

    name: str
    opened: Bundle = field(repr=False)

    def sent(self) -> Mapping[str, object]:
        """Say what is asked."""
        replayed = f"golden predictions of {self.opened.manifest.name}"
        return {"aws": "sagemaker-runtime.invoke_endpoint", "params": {"EndpointName": self.name}, "replay": replayed}

    def done(self, hands: Hands) -> Any:
        """Ask, and give the endpoint's name.

        Raises:
            CloudRefused: the container fails. AnswersDiffer: it answers otherwise.
        """
        wanted = answered(self.opened, Checker(self.opened.contract.fields))
        rows = json.dumps([each.row for each in wanted]).encode()
        asked = {"EndpointName": self.name, "ContentType": JSON, "Accept": JSON, "Body": rows}
        answer = Aws("sagemaker-runtime", "invoke_endpoint", asked).done(hands)
        hold(json.loads(answer["Body"].read()), wanted, self.opened, who=self.name)
        return f"endpoint {self.name}"


# ---- afterwards --------------------------------------------------------------------------------------


def _configurations(name: str) -> Aws:
    return sagemaker("list_endpoint_configs", NameContains=f"{name}-", SortBy="CreationTime", SortOrder="Descending")


def _ours(found: Any, name: str) -> list[str]:
    """Name the configurations of a deployment, the newest first."""
    mine = re.compile(rf"{re.escape(name)}-[0-9a-f]{{8}}")
    named = [str(each["EndpointConfigName"]) for each in found["EndpointConfigs"]]
    return [each for each in named if mine.fullmatch(each)]


def _back(found: Any) -> str:
    return next((str(each["Value"]) for each in (found or {}).get("Tags", ()) if each["Key"] == BACK), "")


def _forgotten(found: Any, got: Answers) -> Call | Done:
    if not _back(found):
        return Done()
    return sagemaker("delete_tags", ResourceArn=found["EndpointArn"], TagKeys=[BACK])


def rollback(name: str, options: Options) -> Plan:
    """Plan to run again the configuration that ran before; run again, it does nothing more."""
    look = Both({"endpoint": Described(name), "configs": _configurations(name)})

    def earlier(found: Any, got: Answers) -> Any:
        endpoint = found["endpoint"]
        if endpoint is None:
            raise DeployError(f"There is no endpoint {name}", hint="Is it in another region?")
        origin, _, aim = _back(endpoint).partition(" ")
        if options["to"] or {origin, aim} & set(_wanted(endpoint)):  # it was begun already, and perhaps interrupted
            return options["to"] or aim
        listed = _ours(found["configs"], name)
        live = str(endpoint["EndpointConfigName"])
        before = listed[listed.index(live) + 1 :] if live in listed else []
        if not before:
            raise DeployError("There is nothing to go back to", hint="Deploy the model that should answer.")
        return before[0]

    def marked(found: Any, got: Answers) -> Call | Done:
        live = str(found["EndpointConfigName"])
        if got["earlier"] in _wanted(found) or _back(found).endswith(f" {got['earlier']}"):
            return Done()
        tags = [{"Key": BACK, "Value": f"{live} {got['earlier']}"}]
        return sagemaker("add_tags", ResourceArn=found["EndpointArn"], Tags=tags)

    def act(found: Any, got: Answers) -> Call | Done:
        return Done() if got["earlier"] in _wanted(found) else update(name, got["earlier"], options)

    return Plan(
        "sagemaker",
        name,
        (
            Step("earlier", "Find the configuration to go back to", look=look, until=earlier),
            Step("marked", "Note what is gone back from", look=Described(name), act=marked),
            Step("back", "Run it again", look=Described(name), act=act, again=(BUSY,), asks=LASTS),
            _settled("live", name, Got("earlier"), "back"),
        ),
    )


def destroy(name: str, options: Options) -> Plan:
    """Plan to remove an endpoint and all that was made for it."""

    def act(found: Any, got: Answers) -> Call | Done:
        ours = found and amazon.is_ours(found.get("Tags"), name) and found["EndpointStatus"] != "Deleting"
        return sagemaker("delete_endpoint", EndpointName=name) if ours else Done()

    def until(found: Any, got: Answers) -> Any:
        return {"gone": True} if found is None or not amazon.is_ours(found.get("Tags"), name) else None

    def gone(found: Any, got: Answers) -> Call | Done:
        calls: dict[str, Call] = {}
        for each in _ours(found, name):
            calls[f"configuration {each}"] = sagemaker("delete_endpoint_config", EndpointConfigName=each)
            calls[f"model {each}"] = sagemaker("delete_model", ModelName=each)
        return Both(calls, absent=(NOT_THERE,)) if calls else Done()

    title = f"Delete endpoint {name}"
    endpoint = Step("endpoint", title, look=Described(name), act=act, until=until, present=(NOT_THERE,), again=(BUSY,))
    rest = (
        Step("configurations", "Delete its configurations and models", look=_configurations(name), act=gone),
        amazon.delete_repository(name, name),
        amazon.delete_role("role", _role(name).name, name),
        amazon.delete_log_groups(_group(name), lambda group: group == _group(name)),
    )
    return Plan("sagemaker", name, (endpoint, *rest), notes=("what was made by other means is left as it is",))


# ---- asking ------------------------------------------------------------------------------------------


def status(name: str, options: Options) -> tuple[Question, ...]:
    """Ask what the endpoint runs, and which configurations there are to go back to."""

    def told(found: Any) -> Iterable[tuple[str, str]]:
        endpoint = found["endpoint"]
        if endpoint is None:
            return [("--", f"there is no endpoint {name}")]
        state = "ok" if endpoint["EndpointStatus"] == "InService" else "mend"
        reason = f": {endpoint['FailureReason']}" if endpoint.get("FailureReason") else ""
        words = " ".join(_news(endpoint))
        lines = [(state, f"{name} runs {endpoint['EndpointConfigName']}, {words}{reason}")]
        return lines + [("--", each) for each in _ours(found["configs"], name)[:10]]

    return (Question("endpoint", Both({"endpoint": Described(name), "configs": _configurations(name)}), told),)


def logs(name: str, options: Options) -> tuple[Question, ...]:
    """Ask what the container said last."""
    return amazon.logs(_group(name))


def doctor(name: str, options: Options) -> tuple[Question, ...]:
    """Check who is signed in, where, and whether SageMaker may be asked."""
    questions = (
        *amazon.signed_in(),
        Question(
            "endpoints", sagemaker("list_endpoints"), lambda found: [("ok", f"{len(found['Endpoints'])} are there")]
        ),
    )
    return (*questions, *(status(name, options) if name else ()))


TARGET: Final = Target(
    "sagemaker",
    "AWS SageMaker: an endpoint for callers with AWS identities.",
    "image",
    plan,
    OPTIONS,
    status=status,
    logs=logs,
    rollback=rollback,
    destroy=destroy,
    doctor=doctor,
)
