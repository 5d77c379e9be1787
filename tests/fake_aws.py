"""AWS on this machine, for ECS Express Mode, Lambda and SageMaker: moto's server, completed where it has nothing.

moto answers for IAM, ECR, STS, Secrets Manager, CloudWatch Logs and EC2. What it lacks is here, with states that take
their time on a clock of the tests' own, refusals in AWS's words, and instances that are real processes. Every request
and every answer is held against botocore's model of the service.
"""

import contextlib
import datetime as dt
import hashlib
import importlib
import io
import json
import traceback
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from moto.core.exceptions import ServiceException
from moto.core.responses import ActionResult, EmptyResult
from moto.core.utils import camelcase_to_underscores
from moto.ecr.models import ecr_backends
from moto.ecs.responses import EC2ContainerServiceResponse
from moto.iam.aws_managed_policies import aws_managed_policies_data
from moto.iam.models import AWSManagedPolicy, iam_backends
from moto.logs.models import logs_backends
from moto.secretsmanager.models import secretsmanager_backends
from moto.server import ThreadedMotoServer

from tests.beanstalk_instances import Balancer, Local, Process, Pulled
from tests.fake_beanstalk import ACCOUNT, REGION, Account, Clock, _answers

POLICIES: Final = (
    "AmazonECSInfrastructureRoleforExpressGatewayServices",
    "AmazonECSTaskExecutionRolePolicy",
    "AWSLambdaBasicExecutionRole",
)
PROPAGATING, STARTING, BAKING, DRAINING = 12, 90, 360, 150  # seconds that things take
botocore: Any = importlib.import_module("botocore.session")
validate: Any = importlib.import_module("botocore.validate")
SESSION: Final = botocore.get_session()


class No(ServiceException):
    """A refusal, with its code."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)


@dataclass
class Cloud(Account):
    """A fresh account."""

    clock: Clock
    runner: Local
    url: str = ""
    bundles: dict[str, Path] = field(default_factory=dict)  # by the tag of the image that holds it
    requests: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    heard: dict[str, float] = field(default_factory=dict)  # when a service first heard of a role
    stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    services: dict[str, Any] = field(default_factory=dict)

    def left(self) -> dict[str, list[str]]:
        """Say what there is in the account, of all that a deployment makes."""
        return {
            "secrets": [each.name for each in secretsmanager_backends[ACCOUNT][REGION].secrets.values()],
            "repositories": list(ecr_backends[ACCOUNT][REGION].repositories),
            "roles": [each.name for each in iam_backends[ACCOUNT]["aws"].roles.values()],
            "logs": list(logs_backends[ACCOUNT][REGION].groups),
        }

    def own(self, repository: str, tag: str, path: Path) -> None:
        """Hold an image: which bundle is in it stands on a list of our own, as no engine has built it."""
        self.bundles[tag] = path
        backend = ecr_backends[ACCOUNT][REGION]
        if any(tag in each.image_tags for each in backend.repositories[repository].images):
            return
        told = {"schemaVersion": 2, "config": {"digest": "sha256:" + hashlib.sha256(tag.encode()).hexdigest()}}
        backend.put_image(repository, json.dumps(told), tag, "application/vnd.oci.image.manifest.v1+json", None)

    # ---- what services of AWS look at -------------------------------------------------------------------

    def require_role(self, arn: str, service: str, policy: str) -> Any:
        """Take on a role, as a service does: which needs its trust, and some time after it was made."""
        name = arn.rpartition("/")[2]
        role = next((each for each in iam_backends[ACCOUNT]["aws"].roles.values() if each.name == name), None)
        assert role is not None, f"there is no role {arn}"
        since = self.heard.setdefault(name, self.clock.now())
        if self.clock.now() - since < PROPAGATING:
            raise No("InvalidParameterException", f"Unable to assume the service linked role or role {arn}.")
        assert json.loads(role.assume_role_policy_document)["Statement"][0]["Principal"] == {"Service": service}
        assert not policy or any(each.endswith("/" + policy) for each in role.managed_policies)
        return role

    def read_secret(self, arn: str, role: Any) -> str:
        """Read a secret as a role that must be allowed to."""
        allowed = [json.loads(each) if isinstance(each, str) else each for each in role.policies.values()]
        listed = [state["Resource"] for each in allowed for state in each["Statement"]]
        assert arn in listed, f"{role.name} may not read {arn}"
        value = secretsmanager_backends[ACCOUNT][REGION].get_secret_value(arn, "", "AWSCURRENT")
        return str(value["SecretString"])

    def bundle(self, image: str) -> Path | None:
        """Give the bundle in an image; None where ECR does not have it."""
        uri, _, tag = image.rpartition(":")
        backend = ecr_backends[ACCOUNT][REGION]
        repository = backend.repositories.get(uri.partition("/")[2])
        known = {each for one in (repository.images if repository else ()) for each in one.image_tags}
        return self.bundles[tag] if tag in known else None

    def start(self, path: Path, environ: Mapping[str, str]) -> Process:
        """Run what is in an image; the same runs once."""
        made = io.BytesIO()
        with zipfile.ZipFile(made, "w") as archive:
            archive.writestr(zipfile.ZipInfo(f"model/{path.name}"), path.read_bytes())
        return self.runner(made.getvalue(), environ, _pull)


def _pull(name: str) -> Pulled:
    raise AssertionError(f"{name} is not pulled here")


KINDS: Final[dict[str, Any]] = {
    "string": str,
    "boolean": bool,
    "integer": int,
    "long": int,
    "float": (int, float),
    "double": (int, float),
    "timestamp": dt.datetime,
    "blob": bytes,
}


def conforms(shape: Any, value: Any, where: str) -> None:
    """Hold an answer against the model: no unknown member, no wrong type, no value that is none of the listed ones."""
    kind = shape.type_name
    if kind == "structure":
        for name, each in value.items():
            assert name in shape.members, f"{where} has no {name}"
            conforms(shape.members[name], each, f"{where}.{name}")
    elif kind == "list":
        for each in value:
            conforms(shape.member, each, f"{where}[]")
    elif kind == "map":
        for name, each in value.items():
            conforms(shape.value, each, f"{where}.{name}")
    else:
        assert isinstance(value, KINDS[kind]), f"{where} is {value!r}"
        listed = getattr(shape, "enum", None)
        assert not listed or value in listed, f"{where} is {value!r}, none of {listed}"


class Service:
    """One service of AWS: every request and answer is held against its model."""

    name = ""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud, self.model = cloud, SESSION.get_service_model(self.name)

    def answer(self, operation: str, params: dict[str, Any]) -> Any:
        shape = self.model.operation_model(operation)
        report = validate.ParamValidator().validate(params, shape.input_shape)
        assert not report.has_errors(), f"{operation}: {report.generate_report()}"
        self.cloud.requests.append(f"{self.name}.{operation}")
        self.tick()
        found = getattr(self, camelcase_to_underscores(operation))(params)
        if shape.output_shape is not None and found is not None:
            conforms(shape.output_shape, found, operation)
        return found

    def tick(self) -> None:
        """Let what was due come about."""


# ---- ECS Express Mode --------------------------------------------------------------------------------


@dataclass
class Rollout:
    """A deployment of a revision."""

    number: int
    revision: dict[str, Any]
    began: dt.datetime
    status: str = "PENDING"
    reason: str = ""
    looks_at: float = 0.0
    ends_at: float = 0.0


@dataclass
class Express:
    """A service in Express Mode: what runs, and what is being rolled out."""

    arn: str
    told: dict[str, Any]
    created: dt.datetime
    tags: list[dict[str, str]]
    balancer: Balancer
    state: str = "ACTIVE"
    running: Rollout | None = None
    rollouts: list[Rollout] = field(default_factory=list)
    instance: Process | None = None
    gone_at: float = 0.0


class Ecs(Service):
    """The operations of Express Mode, and those on what it makes."""

    name = "ecs"
    operations = (
        "CreateExpressGatewayService UpdateExpressGatewayService DescribeExpressGatewayService "
        "DeleteExpressGatewayService ListServiceDeployments DescribeServiceRevisions TagResource UntagResource"
    )
    responses = EC2ContainerServiceResponse

    def __init__(self, cloud: Cloud) -> None:
        super().__init__(cloud)
        self.services: dict[str, Express] = {}
        self.started: list[dict[str, str]] = []

    def tick(self) -> None:
        now = self.cloud.clock.now()
        for each in self.services.values():
            if each.state == "DRAINING" and now >= each.gone_at:
                each.state = "INACTIVE"
            for rollout in each.rollouts:
                if rollout.status == "PENDING" and now >= rollout.looks_at:
                    self._look(each, rollout)
                if rollout.status == "IN_PROGRESS" and now >= rollout.ends_at:
                    rollout.status, each.running = "SUCCESSFUL", rollout
                if rollout.status == "ROLLBACK_IN_PROGRESS" and now >= rollout.ends_at:
                    rollout.status = "ROLLBACK_SUCCESSFUL"

    def _look(self, service: Express, rollout: Rollout) -> None:
        """Start what is rolled out, and ask it whether it is healthy."""
        config = rollout.revision
        path = self.cloud.bundle(config["primaryContainer"]["image"])
        if path is None:
            return self._fail(rollout, "CannotPullContainerError: pull image manifest has been retried 7 time(s)")
        instance = self.cloud.start(path, self._environ(config))
        status = _answers(instance, config["healthCheckPath"])
        if status != 200:
            return self._fail(rollout, f"tasks failed ELB health checks: {config['healthCheckPath']} answers {status}")
        service.instance, rollout.status = instance, "IN_PROGRESS"
        return None

    def _fail(self, rollout: Rollout, reason: str) -> None:
        rollout.status, rollout.reason = "ROLLBACK_IN_PROGRESS", f"Service deployment rolled back because {reason}."

    def _environ(self, config: Mapping[str, Any]) -> dict[str, str]:
        role = self.cloud.require_role(
            config["executionRoleArn"], "ecs-tasks.amazonaws.com", "AmazonECSTaskExecutionRolePolicy"
        )
        container = config["primaryContainer"]
        told = {each["name"]: each["value"] for each in container.get("environment", ())}
        assert container["containerPort"] == 9696
        group = container["awsLogsConfiguration"]["logGroup"]
        assert group in logs_backends[ACCOUNT][REGION].groups
        return told | {each["name"]: self.cloud.read_secret(each["valueFrom"], role) for each in container["secrets"]}

    def _one(self, arn: str) -> Express:
        if arn not in self.services:
            raise No("ResourceNotFoundException", f"Service {arn} not found.")
        return self.services[arn]

    def _rolled_out(self, service: Express, told: Mapping[str, Any]) -> dict[str, Any]:
        number, now = len(service.rollouts) + 1, self.cloud.clock.now()
        before = service.rollouts[-1].revision if service.rollouts else {}
        revision = {**before, **{key: told[key] for key in KEPT if key in told}}
        if network := told.get("networkConfiguration"):
            revision["networkConfiguration"] = network
        revision["serviceRevisionArn"] = f"{service.arn.replace(':service/', ':service-revision/')}/{number}"
        revision["createdAt"] = self.cloud.clock.date()
        revision["ingressPaths"] = [{"accessType": "PUBLIC", "endpoint": f"http://127.0.0.1:{service.balancer.port}"}]
        self.cloud.heard.setdefault(revision["executionRoleArn"].rpartition("/")[2], now)
        for each in service.rollouts:
            each.status = "STOPPED" if each.status in {"PENDING", "IN_PROGRESS"} else each.status
        made = Rollout(number, revision, self.cloud.clock.date(), looks_at=now + STARTING, ends_at=now + BAKING)
        service.rollouts.append(made)
        return revision

    def create_express_gateway_service(self, params: dict[str, Any]) -> Any:
        name = params["serviceName"]
        arn = f"arn:aws:ecs:{REGION}:{ACCOUNT}:service/{params.get('cluster', 'default')}/{name}"
        policy = "AmazonECSInfrastructureRoleforExpressGatewayServices"
        self.cloud.require_role(params["infrastructureRoleArn"], "ecs.amazonaws.com", policy)
        if arn in self.services and self.services[arn].state != "INACTIVE":
            raise No("InvalidParameterException", "Creation of service was not idempotent.")
        balancer = Balancer(lambda host, encrypted: self._route(arn))
        self.cloud.stack.callback(balancer.close)
        made = Express(arn, params, self.cloud.clock.date(), list(params.get("tags", ())), balancer)
        self.services[arn] = made
        self._rolled_out(made, params)
        return {"service": self._told(made)}

    def update_express_gateway_service(self, params: dict[str, Any]) -> Any:
        service = self._one(params["serviceArn"])
        if service.state != "ACTIVE":
            raise No("ServiceNotActiveException", "The service is not active.")
        revision = self._rolled_out(service, params)
        told = self._told(service)
        kept = {key: told[key] for key in ("serviceArn", "cluster", "serviceName", "status")}
        return {"service": {**kept, "targetConfiguration": revision}}

    def describe_express_gateway_service(self, params: dict[str, Any]) -> Any:
        service = self._one(params["serviceArn"])
        tags = {"tags": service.tags} if "TAGS" in params.get("include", ()) else {}
        return {"service": {**self._told(service), **tags}}

    def delete_express_gateway_service(self, params: dict[str, Any]) -> Any:
        service = self._one(params["serviceArn"])
        if service.state != "ACTIVE":
            raise No("ServiceNotActiveException", "The service is not active.")
        policy = "AmazonECSInfrastructureRoleforExpressGatewayServices"
        self.cloud.require_role(service.told["infrastructureRoleArn"], "ecs.amazonaws.com", policy)
        service.state, service.gone_at = "DRAINING", self.cloud.clock.now() + DRAINING
        return {"service": self._told(service)}

    def list_service_deployments(self, params: dict[str, Any]) -> Any:
        found = []
        for each in self._one(params["service"]).rollouts:
            told = {
                "serviceDeploymentArn": f"{params['service']}/{each.number}",
                "serviceArn": params["service"],
                "createdAt": each.began + dt.timedelta(milliseconds=each.number),
                "targetServiceRevisionArn": each.revision["serviceRevisionArn"],
                "status": each.status,
            }
            found.append(told | ({"statusReason": each.reason} if each.reason else {}))
        return {"serviceDeployments": found}

    def describe_service_revisions(self, params: dict[str, Any]) -> Any:
        wanted = set(params["serviceRevisionArns"])
        found = []
        for service in self.services.values():
            for each in service.rollouts:
                if each.revision["serviceRevisionArn"] in wanted:
                    image = each.revision["primaryContainer"]["image"]
                    images = [{"containerName": "Main", "image": image, "imageDigest": "sha256:" + "0" * 64}]
                    arn = each.revision["serviceRevisionArn"]
                    found.append({"serviceRevisionArn": arn, "serviceArn": service.arn, "containerImages": images})
        return {"serviceRevisions": found}

    def tag_resource(self, params: dict[str, Any]) -> Any:
        service = self._one(params["resourceArn"])
        names = {each["key"] for each in params["tags"]}
        service.tags = [each for each in service.tags if each["key"] not in names] + params["tags"]
        return {}

    def untag_resource(self, params: dict[str, Any]) -> Any:
        service = self._one(params["resourceArn"])
        service.tags = [each for each in service.tags if each["key"] not in params["tagKeys"]]
        return {}

    def _told(self, service: Express) -> dict[str, Any]:
        goes = [each for each in service.rollouts if each.status in {"PENDING", "IN_PROGRESS"}]
        shown = [service.running, *goes] if service.running else goes
        return {
            "serviceArn": service.arn,
            "serviceName": service.told["serviceName"],
            "cluster": service.told.get("cluster", "default"),
            "infrastructureRoleArn": service.told["infrastructureRoleArn"],
            "status": {"statusCode": service.state},
            "activeConfigurations": [each.revision for each in {id(each): each for each in shown}.values()],
            "createdAt": service.created,
        }

    def _route(self, arn: str) -> tuple[str, Any]:
        service = self.services[arn]
        where = service.instance.address() if service.instance and service.state == "ACTIVE" else None
        return ("forward", where) if where else ("no healthy target", None)


KEPT: Final = "executionRoleArn healthCheckPath cpu memory cpuArchitecture primaryContainer scalingTarget".split()


# ---- in moto's server --------------------------------------------------------------------------------

CLOUD: list[Cloud] = []  # the one that answers now
SERVICES: Final[tuple[type[Any], ...]] = (Ecs,)


def _method(service: str, operation: str) -> Any:
    def answer(self: Any) -> Any:
        cloud = CLOUD[-1]
        try:
            found = cloud.services[service].answer(operation, dict(self.params))
        except No:
            raise
        except BaseException:
            cloud.broken.append(traceback.format_exc())
            raise
        return ActionResult(found) if found else EmptyResult()

    return answer


@contextlib.contextmanager
def completed() -> Iterator[ThreadedMotoServer]:
    """Run moto's server, completed; when it ends, moto is as it was."""
    with contextlib.ExitStack() as stack:
        for service in SERVICES:
            for operation in service.operations.split():
                name = camelcase_to_underscores(operation)
                plain = vars(service.responses).get(name)
                setattr(service.responses, name, _method(service.name, operation))
                undo: Callable[..., None] = setattr if plain else delattr
                stack.callback(undo, service.responses, name, *([plain] if plain else []))
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        stack.callback(server.stop)
        yield server


@contextlib.contextmanager
def cloud(server: ThreadedMotoServer, runner: Local) -> Iterator[Cloud]:
    """Give a fresh account."""
    from moto.moto_api._internal.models import moto_api_backend

    moto_api_backend.reset()
    every = json.loads(aws_managed_policies_data)
    iam = iam_backends[ACCOUNT]["aws"]
    for name in POLICIES:
        policy = AWSManagedPolicy.from_data(name, ACCOUNT, "aws", every[name])
        iam.managed_policies[policy.arn] = policy
    host, port = server.get_host_and_port()
    made = Cloud(Clock(), runner, f"http://{host}:{port}")
    made.services = {each.name: each(made) for each in SERVICES}
    CLOUD.append(made)
    with made.stack:
        try:
            yield made
            assert not made.broken, made.broken[0]
        finally:
            if made.broken:
                print(made.broken[0])
            CLOUD.remove(made)


class Interrupting(dict[Any, Any]):
    """What hands keep: the clients of AWS in it are interrupted at one request, before or after it."""

    def __init__(self, at: int = 0, after: bool = False) -> None:
        super().__init__()
        self.at, self.after, self.sent = at, after, 0

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(key, value)
        if key[0] == "aws":
            value.meta.events.register("before-send", self._before)
            value.meta.events.register("response-received", self._after)

    def _before(self, **told: Any) -> None:
        self.sent += 1
        if self.sent == self.at and not self.after:
            raise KeyboardInterrupt

    def _after(self, **told: Any) -> None:
        if self.sent == self.at and self.after:
            raise KeyboardInterrupt
