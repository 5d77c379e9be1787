"""Elastic Beanstalk as its API is, on this machine: moto's server, completed.

moto answers for S3, IAM, ECR, EC2, STS, Secrets Manager and CloudWatch Logs; of Elastic Beanstalk it has eight of 47
operations, and forgets most of what they are told. Here are those that a deployment needs, with states that take their
time on a clock of the tests' own, refusals in AWS's words, events, health that comes from starting what was deployed,
and, where asked for, throttling. Every request and every answer is held against botocore's model of the service.
"""

import contextlib
import datetime as dt
import functools
import html
import http.client
import importlib
import json
import random
import re
import threading
import time
import traceback
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from moto.core.responses import ActionResult, EmptyResult
from moto.ec2.models import ec2_backends
from moto.ecr.models import ECRBackend, ecr_backends
from moto.elasticbeanstalk.responses import EBResponse
from moto.iam.aws_managed_policies import aws_managed_policies_data
from moto.iam.models import AWSManagedPolicy, iam_backends
from moto.s3.models import s3_backends
from moto.secretsmanager.models import secretsmanager_backends
from moto.server import ThreadedMotoServer
from moto.servicequotas.responses import ServiceQuotasResponse

from tests.beanstalk_instances import Balancer, Instance, Pulled, Refused, Runner, require_deployable, unzipped

ACCOUNT: Final = "123456789012"
REGION: Final = "us-east-1"
BUCKET: Final = f"elasticbeanstalk-{REGION}-{ACCOUNT}"
DOMAIN: Final = f"{REGION}.elasticbeanstalk.com"
LONGEST: Final = 500_000_000
POLICIES: Final = (
    "AWSElasticBeanstalkWebTier",
    "AWSElasticBeanstalkEnhancedHealth",
    "AWSElasticBeanstalkManagedUpdatesCustomerRolePolicy",
)
STACKS: Final = (  # in no order, as AWS lists them: an older one before the newest, and the next major far behind
    "64bit Amazon Linux 2 v4.2.0 running Docker",
    "64bit Amazon Linux 2023 v4.9.1 running Docker",
    "64bit Amazon Linux 2023 v4.10.0 running Docker",
    "64bit Amazon Linux 2023 v4.6.3 running Docker",
    "64bit Amazon Linux 2023 v4.3.0 running ECS",
    "64bit Amazon Linux 2023 v4.8.0 running Python 3.11",
    "64bit Amazon Linux 2023 v4.10.2 running Python 3.11",
    "64bit Amazon Linux 2023 v4.10.2 running Python 3.12",
    "64bit Amazon Linux 2023 v4.10.2 running Python 3.13",
)
# seconds that things take
PROCESSING, LAUNCHING, UPDATING, TERMINATING, SWAPPING, PROPAGATING, GATHERING = 8, 260, 180, 120, 12, 12, 15
botocore: Any = importlib.import_module("botocore.session")
validate: Any = importlib.import_module("botocore.validate")
MODEL: Final = botocore.get_session().get_service_model("elasticbeanstalk")
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{2,38}[A-Za-z0-9]")
PREFIX: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{2,61}[A-Za-z0-9]")
KNOWN: Final = (  # namespaces, as AWS's general options list them
    "aws:autoscaling:asg aws:autoscaling:launchconfiguration aws:autoscaling:trigger "
    "aws:autoscaling:updatepolicy:rollingupdate aws:ec2:instances aws:ec2:vpc aws:elasticbeanstalk:application "
    "aws:elasticbeanstalk:application:environment aws:elasticbeanstalk:application:environmentsecrets "
    "aws:elasticbeanstalk:cloudwatch:logs aws:elasticbeanstalk:command aws:elasticbeanstalk:environment "
    "aws:elasticbeanstalk:environment:process:default aws:elasticbeanstalk:healthreporting:system "
    "aws:elasticbeanstalk:managedactions aws:elasticbeanstalk:managedactions:platformupdate "
    "aws:elbv2:listener:443 aws:elbv2:listener:default"
).split()
Settings = dict[tuple[str, str], str]


def method_of(operation: str) -> str:
    """Name a method as the operation."""
    return re.sub(r"(?<!^)(?=[A-Z][a-z])", "_", operation.replace("CNAMEs", "Cnames").replace("DNS", "Dns")).lower()


class Clock:
    """Time as the tests have it: it passes when somebody sleeps, so much longer, and with `rate` by itself."""

    def __init__(self, rate: float = 0.0, longer: float = 20.0) -> None:
        self._slept, self._rate, self._start, self._longer = 0.0, rate, time.monotonic(), longer

    def now(self) -> float:
        return self._slept + self._rate * (time.monotonic() - self._start)

    def sleep(self, seconds: float) -> None:
        self._slept += seconds * self._longer

    def date(self) -> dt.datetime:
        return dt.datetime(2026, 11, 22, tzinfo=dt.UTC) + dt.timedelta(seconds=self.now())


@dataclass
class Version:
    application: str
    label: str
    bucket: str
    key: str
    status: str
    due: float
    created: dt.datetime


@dataclass
class Environment:
    application: str
    name: str
    identity: str
    cname: str
    stack: str
    label: str
    description: str
    settings: Settings
    created: dt.datetime
    updated: dt.datetime
    tags: list[dict[str, str]]
    status: str = "Launching"
    health: str = "Grey"
    causes: list[str] = field(default_factory=list)
    instance: Instance | None = None
    log: str = ""
    due: list[tuple[float, Callable[[], None]]] = field(default_factory=list)
    asked_for_logs: float = -1.0
    abortable: bool = False

    @property
    def arn(self) -> str:
        return f"arn:aws:elasticbeanstalk:{REGION}:{ACCOUNT}:environment/{self.application}/{self.name}"


class No(Exception):
    """A refusal, with its code."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message

    def told(self) -> str:
        """Write it as the query protocol has it."""
        told = f"<Type>Sender</Type><Code>{self.code}</Code><Message>{html.escape(self.message)}</Message>"
        name = "http://elasticbeanstalk.amazonaws.com/docs/2010-12-01/"
        return f'<ErrorResponse xmlns="{name}"><Error>{told}</Error><RequestId>request-id</RequestId></ErrorResponse>'


def invalid(message: str) -> No:
    return No("InvalidParameterValue", message)


class Beanstalk:
    """The service: one account, one region."""

    def __init__(self, clock: Clock, runner: Runner) -> None:
        self.clock, self.runner = clock, runner
        self.chance = random.Random(7)
        self.throttled = 0.0  # share of requests
        self.requests: list[str] = []
        self.refused: list[str] = []
        self.broken: list[str] = []  # faults of this file, or requests that the model does not allow
        self.applications: dict[str, dict[str, Any]] = {}
        self.versions: dict[tuple[str, str], Version] = {}
        self.environments: dict[str, Environment] = {}
        self.events: list[dict[str, Any]] = []
        self.blobs: dict[str, bytes] = {}  # what was pushed to ECR, by digest
        self.profiles: dict[str, float] = {}  # when Elastic Beanstalk first heard of each
        self.taken: set[str] = set()  # addresses that others have
        self.silent: Callable[[str, Environment], bool] = lambda host, each: False  # who does not answer, and where
        self.busy = 0  # so many swaps are refused
        self.spoiled = False  # what is stored comes out as no zip
        self.request_id = ""
        self.turn = threading.Lock()  # one request after the other

    # ---- one request -----------------------------------------------------------------------------------

    def answer(self, operation: str, params: dict[str, Any]) -> Any:
        shape = MODEL.operation_model(operation)
        if shape.input_shape is not None:
            report = validate.ParamValidator().validate(params, shape.input_shape)
            assert not report.has_errors(), f"{operation}: {report.generate_report()}"
        self.requests.append(operation)
        self.request_id = f"{self.chance.getrandbits(64):016x}-{len(self.requests):06d}"
        if self.chance.random() < self.throttled:
            raise No("Throttling", "Rate exceeded")
        self.tick()
        try:
            found = getattr(self, method_of(operation))(params)
        except No as error:
            self.refused.append(f"{operation}: {error.message}")
            raise
        if shape.output_shape is not None:
            conforms(shape.output_shape, found, operation)
        return found

    def tick(self) -> None:
        """Let what was due come about."""
        for version in self.versions.values():
            if version.status == "PROCESSING" and version.due <= self.clock.now():
                version.status = "FAILED" if self._fault(version) else "PROCESSED"
        for environment in list(self.environments.values()):
            while environment.due and environment.due[0][0] <= self.clock.now():
                environment.due.pop(0)[1]()
                environment.updated = self.clock.date()

    def _later(self, environment: Environment, seconds: float, what: Callable[[], None]) -> None:
        environment.due.append((self.clock.now() + seconds, what))
        environment.due.sort(key=lambda each: each[0])

    def tell(self, environment: Environment, severity: str, message: str) -> None:
        self.events.append(
            {
                "EventDate": self.clock.date() + dt.timedelta(milliseconds=len(self.events)),
                "Message": message,
                "ApplicationName": environment.application,
                "VersionLabel": environment.label,
                "EnvironmentName": environment.name,
                "RequestId": self.request_id,
                "Severity": severity,
                "_id": environment.identity,
            }
        )

    # ---- applications and versions ---------------------------------------------------------------------

    def _application(self, name: str) -> dict[str, Any]:
        if name not in self.applications:
            raise invalid(f"No Application named '{name}' found.")
        return self.applications[name]

    def create_application(self, params: dict[str, Any]) -> Any:
        name = params["ApplicationName"]
        if name in self.applications:
            raise invalid(f"Application {name} already exists.")
        self.applications[name] = {
            "ApplicationName": name,
            "ApplicationArn": f"arn:aws:elasticbeanstalk:{REGION}:{ACCOUNT}:application/{name}",
            "Description": params.get("Description", ""),
            "DateCreated": self.clock.date(),
            "DateUpdated": self.clock.date(),
            "_tags": params.get("Tags", []),
        }
        return {"Application": _shown(self.applications[name])}

    def describe_applications(self, params: dict[str, Any]) -> Any:
        wanted = params.get("ApplicationNames")
        found = [each for name, each in self.applications.items() if not wanted or name in wanted]
        return {"Applications": [_shown(each) for each in found]}

    def delete_application(self, params: dict[str, Any]) -> Any:
        name = params["ApplicationName"]
        if any(each.application == name and each.status != "Terminated" for each in self.environments.values()):
            raise No("OperationInProgressFailure", f"Unable to delete application {name}: it has running environments.")
        self.applications.pop(name, None)
        self.versions = {key: each for key, each in self.versions.items() if key[0] != name}
        return {}

    def list_tags_for_resource(self, params: dict[str, Any]) -> Any:
        arn = params["ResourceArn"]
        every = {each["ApplicationArn"]: each["_tags"] for each in self.applications.values()}
        every |= {each.arn: each.tags for each in self.environments.values()}
        if arn not in every:
            raise No("ResourceNotFoundException", f"Resource not found for ARN '{arn}'.")
        return {"ResourceArn": arn, "ResourceTags": every[arn]}

    def create_storage_location(self, params: dict[str, Any]) -> Any:
        backend = s3_backends[ACCOUNT]["aws"]
        if BUCKET not in backend.buckets:
            backend.create_bucket(BUCKET, REGION)
        return {"S3Bucket": BUCKET}

    def create_application_version(self, params: dict[str, Any]) -> Any:
        self._application(params["ApplicationName"])
        key = params["ApplicationName"], params["VersionLabel"]
        if key in self.versions:
            raise invalid(f"Application Version {key[1]} already exists.")
        source = params["SourceBundle"]
        if self._stored(source["S3Bucket"], source["S3Key"]) is None:
            raise invalid(
                f"Unable to download from S3 location (Bucket: {source['S3Bucket']}  Key: {source['S3Key']})."
            )
        status = "PROCESSING" if params.get("Process") else "UNPROCESSED"
        due = self.clock.now() + PROCESSING
        self.versions[key] = Version(*key, source["S3Bucket"], source["S3Key"], status, due, self.clock.date())
        return {"ApplicationVersion": self._version(self.versions[key])}

    def describe_application_versions(self, params: dict[str, Any]) -> Any:
        labels = params.get("VersionLabels")
        found = [
            each
            for each in self.versions.values()
            if params.get("ApplicationName", each.application) == each.application
            and (not labels or each.label in labels)
        ]
        return {"ApplicationVersions": [self._version(each) for each in reversed(found)]}

    def delete_application_version(self, params: dict[str, Any]) -> Any:
        key = params["ApplicationName"], params["VersionLabel"]
        running = [e for e in self.environments.values() if e.label == key[1] and e.status != "Terminated"]
        if running:
            raise No("SourceBundleDeletionFailure", f"Version {key[1]} is deployed to {running[0].name}.")
        version = self.versions.pop(key, None)
        if version and params.get("DeleteSourceBundle"):
            s3_backends[ACCOUNT]["aws"].delete_object(version.bucket, version.key)
        return {}

    def _version(self, version: Version) -> dict[str, Any]:
        return {
            "ApplicationName": version.application,
            "VersionLabel": version.label,
            "SourceBundle": {"S3Bucket": version.bucket, "S3Key": version.key},
            "Status": version.status,
            "DateCreated": version.created,
            "DateUpdated": version.created,
        }

    def _stored(self, bucket: str, key: str) -> bytes | None:
        found = s3_backends[ACCOUNT]["aws"].buckets.get(bucket)
        stored = found.keys.get(key) if found else None
        return bytes(stored.value) if stored is not None else None

    def _fault(self, version: Version) -> str:
        """Say what Elastic Beanstalk finds wrong with a source bundle when it processes it."""
        data = b"" if self.spoiled else self._stored(version.bucket, version.key) or b""
        if len(data) > LONGEST:
            return "The source bundle is too large."
        try:
            files = unzipped(data)
        except zipfile.BadZipFile:
            return "The source bundle is no zip."
        if files and not [path for path in files if "/" not in path]:
            return "The source bundle has a parent folder."
        yaml = __import__("yaml")
        for path, content in files.items():
            if path.startswith(".ebextensions/"):
                try:
                    yaml.safe_load(content)
                except yaml.YAMLError:
                    return (
                        f"The configuration file {path} in application version {version.label} contains invalid YAML."
                    )
        return ""

    # ---- environments ----------------------------------------------------------------------------------

    def list_available_solution_stacks(self, params: dict[str, Any]) -> Any:
        details = [{"SolutionStackName": each, "PermittedFileTypes": ["zip"]} for each in STACKS]
        return {"SolutionStacks": list(STACKS), "SolutionStackDetails": details}

    def list_platform_versions(self, params: dict[str, Any]) -> Any:
        kinds = {"PlatformBranchName": "PlatformBranchName", "PlatformName": "PlatformBranchName"}
        found = [platform(each) for each in STACKS]
        for each in params.get("Filters", []):
            if each["Type"] in kinds and each["Operator"] == "=":
                found = [one for one in found if one[kinds[each["Type"]]] in each["Values"]]
        return {"PlatformSummaryList": found}

    def list_platform_branches(self, params: dict[str, Any]) -> Any:
        names = sorted({platform(each)["PlatformBranchName"] for each in STACKS})
        wanted = {each["Attribute"]: each["Values"] for each in params.get("Filters", [])}
        told = [
            {
                "PlatformName": each.partition(" ")[0],
                "BranchName": each,
                "LifecycleState": "Supported",
                "BranchOrder": n,
            }
            for n, each in enumerate(names)
            if each in wanted.get("BranchName", [each])
        ]
        return {"PlatformBranchSummaryList": [{**each, "SupportedTierList": ["WebServer/Standard"]} for each in told]}

    def describe_platform_version(self, params: dict[str, Any]) -> Any:
        found = next(each for each in map(platform, STACKS) if each["PlatformArn"] == params["PlatformArn"])
        shown = {name: value for name, value in found.items() if not name.startswith("Operating")}
        return {"PlatformDescription": {**shown, "PlatformName": found["PlatformBranchName"]}}

    def check_dns_availability(self, params: dict[str, Any]) -> Any:
        name = f"{params['CNAMEPrefix']}.{DOMAIN}".lower()
        return {"Available": not self._has_name(name), "FullyQualifiedCNAME": name}

    def _has_name(self, name: str) -> bool:
        here = {each.cname for each in self.environments.values() if each.status != "Terminated"}
        return name in here | self.taken

    def validate_configuration_settings(self, params: dict[str, Any]) -> Any:
        self._application(params["ApplicationName"])
        return {"Messages": list(self._wrong(_settings(params["OptionSettings"])))}

    def _wrong(self, settings: Settings) -> Iterator[dict[str, str]]:
        def message(namespace: str, option: str, text: str) -> dict[str, str]:
            return {"Message": text, "Severity": "error", "Namespace": namespace, "OptionName": option}

        for namespace, option in settings:
            if namespace not in KNOWN:
                yield message(namespace, option, f"Invalid namespace: '{namespace}'")
        launch = "aws:autoscaling:launchconfiguration"
        profile = settings.get((launch, "IamInstanceProfile"), "")
        if not self._knows(profile):
            yield message(
                launch,
                "IamInstanceProfile",
                f"The instance profile {profile} associated with the environment does not exist.",
            )
        role = settings.get(("aws:elasticbeanstalk:environment", "ServiceRole"), "")
        if role not in [each.name for each in iam_backends[ACCOUNT]["aws"].roles.values()]:
            yield message("aws:elasticbeanstalk:environment", "ServiceRole", f"The service role {role} does not exist.")
        subnets = settings.get(("aws:ec2:vpc", "Subnets"), "").split(",")
        known = {each.id for each in ec2_backends[ACCOUNT][REGION].describe_subnets()}
        if missing := set(subnets) - known - {""}:
            yield message("aws:ec2:vpc", "Subnets", f"The subnet ID '{min(missing)}' does not exist")
        if settings.get(("aws:ec2:vpc", "ELBScheme")) == "internal" and not settings.get(("aws:ec2:vpc", "VPCId")):
            yield message("aws:ec2:vpc", "ELBScheme", "You cannot specify ELBScheme without VPCId")

    def _knows(self, profile: str) -> bool:
        """Say whether an instance profile is known here; what IAM was told takes its time to be known."""
        known = iam_backends[ACCOUNT]["aws"].instance_profiles.values()
        if profile not in [each.name for each in known]:
            self.profiles.pop(profile, None)
            return False
        return self.clock.now() - self.profiles.setdefault(profile, self.clock.now()) >= PROPAGATING

    def create_environment(self, params: dict[str, Any]) -> Any:
        self._application(params["ApplicationName"])
        name, label = params["EnvironmentName"], params["VersionLabel"]
        if not NAME.fullmatch(name):
            raise invalid("Value is not valid at 'EnvironmentName': Member must have length between 4 and 40")
        if any(each.name == name and each.status != "Terminated" for each in self.environments.values()):
            raise invalid(f"Environment {name} already exists.")
        self._require_version(params["ApplicationName"], label)
        prefix = params.get("CNAMEPrefix") or name
        if not PREFIX.fullmatch(prefix):
            raise invalid("Value is not valid at 'CNAMEPrefix'")
        cname = f"{prefix}.{DOMAIN}".lower()
        if self._has_name(cname):
            raise invalid(f"DNS name ({cname}) is not available.")
        if params.get("SolutionStackName") not in STACKS:
            raise invalid(f"No Solution Stack named '{params.get('SolutionStackName')}' found.")
        settings = _settings(params.get("OptionSettings", []))
        self._require_settings(settings)
        identity = f"e-{self.chance.getrandbits(40):010x}"
        now = self.clock.date()
        environment = Environment(
            params["ApplicationName"], name, identity, cname, params["SolutionStackName"], label,
            params.get("Description", ""), settings, now, now, params.get("Tags", []),
        )  # fmt: skip
        self.environments[identity] = environment
        self.tell(environment, "INFO", "createEnvironment is starting.")
        self.tell(environment, "INFO", f"Using {BUCKET} as Amazon S3 storage bucket for environment data.")
        self._later(environment, 30, lambda: self.tell(environment, "INFO", "Created load balancer named: awseb"))
        self._later(environment, LAUNCHING, lambda: self._launched(environment))
        return self._described(environment)

    def _require_settings(self, settings: Settings) -> None:
        for each in self._wrong(settings):
            raise No(
                "ConfigurationValidationException",
                f"Configuration validation exception: Invalid option value: (Namespace: '{each['Namespace']}', "
                f"OptionName: '{each['OptionName']}'): {each['Message']}",
            )
        if settings.get(("aws:autoscaling:launchconfiguration", "RootVolumeType")) != "gp3" and (
            settings.get(("aws:autoscaling:launchconfiguration", "DisableIMDSv1")) != "true"
        ):
            raise No(
                "ConfigurationValidationException",
                "The Launch Configuration creation operation is not available in your account. Use launch templates.",
            )

    def _require_version(self, application: str, label: str) -> None:
        version = self.versions.get((application, label))
        if version is None:
            raise invalid(f"No Application Version named '{label}' found.")
        if version.status != "PROCESSED":
            raise invalid(f"Application version {label} is not in state PROCESSED.")

    def _launched(self, environment: Environment) -> None:
        if self._deployed(environment, environment.label):
            environment.health, environment.causes = "Green", []
            self.tell(environment, "INFO", "Environment health has transitioned from Pending to Ok.")
            self.tell(environment, "INFO", f"Successfully launched environment: {environment.name}")
        else:
            environment.health = "Red"
            self.tell(environment, "WARN", "Environment health has transitioned from Pending to Severe.")
            message = "Create environment operation is complete, but with errors."
            self.tell(environment, "ERROR", f"{message} For more information, see troubleshooting documentation.")
        environment.status = "Ready"

    def _deployed(self, environment: Environment, label: str) -> bool:
        """Deploy a version on an instance, and say whether it is healthy; the log says why it is not."""
        version = self.versions[environment.application, label]
        data = self._stored(version.bucket, version.key) or b""
        try:
            require_deployable(unzipped(data), environment.stack)
            environ = self._environ(environment)
            instance = self.runner(data, environ, lambda name: self._pulled(name, environment))
        except Refused as error:
            environment.log = f"[ERROR] An error occurred during execution of command [app-deploy]. {error}"
            self.tell(environment, "ERROR", "[Instance: i-0a1b2c3d] Command failed on instance. Return code: 1 "
                      f"Output: Engine execution has encountered an error. {error}")  # fmt: skip
            environment.causes = ["Application deployment failed on all instances."]
            return False
        path = environment.settings.get(("aws:elasticbeanstalk:environment:process:default", "HealthCheckPath"), "/")
        status = _answers(instance, path)
        environment.log = f"/var/log/eb-docker/containers/eb-current-app/stdouterr.log\n{instance.log()}"
        if status == 200:
            environment.instance = instance
            return True
        environment.causes = [
            "ELB processes are not healthy on all instances.",
            f"Process default has been unhealthy: {path} answered {status}.",
        ]
        return False

    def _environ(self, environment: Environment) -> dict[str, str]:
        """Give the variables that an instance has; it fetches secrets by what its role may do."""
        plain, held = (
            "aws:elasticbeanstalk:application:environment",
            "aws:elasticbeanstalk:application:environmentsecrets",
        )
        found = {option: value for (namespace, option), value in environment.settings.items() if namespace == plain}
        for (namespace, option), arn in environment.settings.items():
            if namespace != held:
                continue
            self._require_allowed(environment, "secretsmanager:GetSecretValue", arn)
            secret = secretsmanager_backends[ACCOUNT][REGION].secrets.get(arn)
            if secret is None:
                raise Refused(f"Failed to fetch the secret {arn}")
            found[option] = secret.versions[str(secret.default_version_id)]["secret_string"]
        return found

    def _require_allowed(self, environment: Environment, action: str, resource: str) -> None:
        profile = environment.settings["aws:autoscaling:launchconfiguration", "IamInstanceProfile"]
        iam = iam_backends[ACCOUNT]["aws"]
        role = next(each for each in iam.instance_profiles.values() if each.name == profile).roles[0]
        if not any(arn.endswith("/AWSElasticBeanstalkWebTier") for arn in role.managed_policies):
            raise Refused("AccessDenied: the instance may not do what AWSElasticBeanstalkWebTier allows")
        for document in role.policies.values():
            for each in json.loads(document)["Statement"]:
                if action in each["Action"] and each["Resource"] in {"*", resource}:
                    return
        raise Refused(f"AccessDenied: {role.name} is not authorized to perform {action} on {resource}")

    def _pulled(self, image: str, environment: Environment) -> Pulled:
        """Pull an image as an instance does."""
        match = re.fullmatch(rf"{ACCOUNT}\.dkr\.ecr\.{REGION}\.amazonaws\.com/([^:]+):(.+)", image)
        if match is None:
            raise Refused(f"CannotPullContainerError: {image} cannot be pulled")
        arn = f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/{match[1]}"
        self._require_allowed(environment, "ecr:BatchGetImage", arn)
        repository = ecr_backends[ACCOUNT][REGION].repositories.get(match[1])
        found = [each for each in (repository.images if repository else ()) if match[2] in each.image_tags]
        if not found:
            raise Refused(f"CannotPullContainerError: {image}: not found")
        return Pulled(json.loads(found[0].image_manifest), self.blobs)

    def describe_environments(self, params: dict[str, Any]) -> Any:
        def fits(each: Environment) -> bool:
            return (
                params.get("ApplicationName", each.application) == each.application
                and each.name in params.get("EnvironmentNames", [each.name])
                and each.identity in params.get("EnvironmentIds", [each.identity])
                and params.get("VersionLabel", each.label) == each.label
                and (params.get("IncludeDeleted", True) or each.status != "Terminated")
            )

        return {"Environments": [self._described(each) for each in self.environments.values() if fits(each)]}

    def _described(self, each: Environment) -> dict[str, Any]:
        return {
            "EnvironmentName": each.name,
            "EnvironmentId": each.identity,
            "ApplicationName": each.application,
            "VersionLabel": each.label,
            "SolutionStackName": each.stack,
            "PlatformArn": platform(each.stack)["PlatformArn"],
            "Description": each.description,
            "EndpointURL": f"awseb-{each.identity}.{REGION}.elb.amazonaws.com",
            "CNAME": each.cname,
            "DateCreated": each.created,
            "DateUpdated": each.updated,
            "Status": each.status,
            "AbortableOperationInProgress": each.abortable,
            "Health": each.health,
            "HealthStatus": {"Green": "Ok", "Red": "Severe", "Grey": "Pending"}[each.health],
            "Tier": {"Name": "WebServer", "Type": "Standard", "Version": "1.0"},
            "EnvironmentLinks": [],
            "EnvironmentArn": each.arn,
        }

    def _one(self, params: dict[str, Any], ready: bool = False) -> Environment:
        for each in self.environments.values():
            if params.get("EnvironmentId") == each.identity or (
                "EnvironmentId" not in params
                and params.get("EnvironmentName") == each.name
                and each.status != "Terminated"
            ):
                if ready and each.status != "Ready":
                    message = f"Environment named {each.name} is in an invalid state for this operation. Must be Ready."
                    raise invalid(message)
                return each
        told = params.get("EnvironmentName") or params.get("EnvironmentId")
        raise invalid(f"No Environment found for EnvironmentName = '{told}'.")

    def update_environment(self, params: dict[str, Any]) -> Any:
        each = self._one(params, ready=True)
        settings = each.settings | _settings(params.get("OptionSettings", []))
        label = params.get("VersionLabel", each.label)
        self._require_version(each.application, label)
        self._require_settings(settings)
        each.description = params.get("Description", each.description)
        each.status, each.abortable = "Updating", label != each.label
        self.tell(each, "INFO", "Environment update is starting.")
        seconds = UPDATING if label != each.label or settings != each.settings else SWAPPING
        each.settings = settings
        self._later(each, seconds, lambda: self._updated(each, label))
        return self._described(each)

    def hold(self, each: Environment, seconds: float) -> None:
        """Let an environment be changed by somebody else."""
        each.status = "Updating"
        self._later(each, seconds, lambda: setattr(each, "status", "Ready"))

    def _updated(self, each: Environment, label: str) -> None:
        immutable = each.settings.get(("aws:elasticbeanstalk:command", "DeploymentPolicy")) == "Immutable"
        before = each.label
        each.status, each.abortable = "Ready", False
        if self._deployed(each, label):
            each.label, each.health, each.causes = label, "Green", []
            self.tell(each, "INFO", "New application version was deployed to running EC2 instances.")
            self.tell(each, "INFO", "Environment update completed successfully.")
        elif immutable:
            self.tell(each, "ERROR", "Failed to deploy application. The new instances were terminated.")
            each.health, each.causes = "Green", []
        else:
            each.label, each.health, each.instance = label, "Red", None
            self.tell(
                each,
                "ERROR",
                "During an aborted deployment, some instances may have deployed the new application version.",
            )
        assert before

    def abort_environment_update(self, params: dict[str, Any]) -> Any:
        each = self._one(params)
        if not each.abortable:
            raise invalid(f"Environment named {each.name} is in an invalid state for this operation.")
        each.due, each.abortable = [], False
        self._later(each, SWAPPING, lambda: setattr(each, "status", "Ready"))
        self.tell(each, "INFO", "Environment update was aborted.")
        return {}

    def swap_environment_cnames(self, params: dict[str, Any]) -> Any:
        one = self._one({"EnvironmentId": params.get("SourceEnvironmentId", "")}, ready=True)
        other = self._one({"EnvironmentId": params.get("DestinationEnvironmentId", "")}, ready=True)
        if self.busy:
            self.busy -= 1
            raise invalid(f"Environment named {one.name} is in an invalid state for this operation. Must be Ready.")
        one.cname, other.cname = other.cname, one.cname
        for each in (one, other):
            each.status = "Updating"
            self.tell(each, "INFO", "swapEnvironmentCNAMEs is starting.")
            self._later(each, SWAPPING, lambda each=each: self._swapped(each))  # type: ignore[misc]
        return {}

    def _swapped(self, each: Environment) -> None:
        each.status = "Ready"
        self.tell(each, "INFO", "Completed swapping CNAMEs for environments.")

    def terminate_environment(self, params: dict[str, Any]) -> Any:
        each = self._one(params)
        self._one(params, ready=each.status in {"Launching", "Updating"})  # which is what people complain about
        if each.status != "Terminating":
            each.status, each.due = "Terminating", []
            self.tell(each, "INFO", "terminateEnvironment is starting.")
            self._later(each, TERMINATING, lambda: self._terminated(each))
        return self._described(each)

    def _terminated(self, each: Environment) -> None:
        each.status, each.health, each.instance = "Terminated", "Grey", None

    # ---- looking ---------------------------------------------------------------------------------------

    def describe_events(self, params: dict[str, Any]) -> Any:
        order = ["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"]
        least = order.index(params.get("Severity", "TRACE"))

        def fits(each: dict[str, Any]) -> bool:
            return (
                params.get("EnvironmentId", each["_id"]) == each["_id"]
                and params.get("EnvironmentName", each["EnvironmentName"]) == each["EnvironmentName"]
                and params.get("ApplicationName", each["ApplicationName"]) == each["ApplicationName"]
                and params.get("RequestId", each["RequestId"]) == each["RequestId"]
                and order.index(each["Severity"]) >= least
                and each["EventDate"] >= _aware(params.get("StartTime", each["EventDate"]))
            )

        found = [_shown(each) for each in reversed(self.events) if fits(each)]
        start, size = int(params.get("NextToken") or 0), params.get("MaxRecords", 100)
        token = {"NextToken": str(start + size)} if start + size < len(found) else {}
        return {"Events": found[start : start + size], **token}

    def describe_environment_health(self, params: dict[str, Any]) -> Any:
        each = self._one(params)
        if each.status in {"Terminating", "Terminated"}:
            raise No("InvalidRequestException", f"Enhanced health is not available for {each.name}.")
        return {
            "EnvironmentName": each.name,
            "HealthStatus": self._described(each)["HealthStatus"],
            "Color": each.health,
            "Causes": each.causes,
            "RefreshedAt": self.clock.date(),
        }

    def describe_instances_health(self, params: dict[str, Any]) -> Any:
        each = self._one(params)
        told = {"InstanceId": "i-0a1b2c3d", "HealthStatus": "Severe" if each.causes else "Ok", "Color": each.health}
        return {"InstanceHealthList": [{**told, "Causes": each.causes}], "RefreshedAt": self.clock.date()}

    def describe_environment_resources(self, params: dict[str, Any]) -> Any:
        each = self._one(params)
        return {"EnvironmentResources": {"EnvironmentName": each.name, "Instances": [{"Id": "i-0a1b2c3d"}]}}

    def describe_configuration_settings(self, params: dict[str, Any]) -> Any:
        each = self._one(params)
        listed = [{"Namespace": n, "OptionName": o, "Value": v} for (n, o), v in each.settings.items()]
        about = {"ApplicationName": each.application, "EnvironmentName": each.name, "SolutionStackName": each.stack}
        return {"ConfigurationSettings": [{**about, "OptionSettings": listed, "DeploymentStatus": "deployed"}]}

    def request_environment_info(self, params: dict[str, Any]) -> Any:
        each = self._one(params)
        if each.status in {"Terminating", "Terminated"}:
            raise invalid(f"Environment named {each.name} is in an invalid state for this operation. Must be Ready.")
        each.asked_for_logs = self.clock.now()
        return {}

    def retrieve_environment_info(self, params: dict[str, Any]) -> Any:
        each = self._one(params)
        if each.asked_for_logs < 0 or self.clock.now() - each.asked_for_logs < GATHERING:
            return {"EnvironmentInfo": []}
        key = f"resources/environments/logs/tail/{each.identity}/i-0a1b2c3d/TailLogs.txt"
        self.create_storage_location({})
        said = each.instance.log() if each.instance else ""
        text = f"----------------------------------------\n/var/log/eb-engine.log\n{each.log}\n{said}"
        s3_backends[ACCOUNT]["aws"].put_object(BUCKET, key, text.encode())
        told = {"InfoType": "tail", "Ec2InstanceId": "i-0a1b2c3d", "SampleTimestamp": self.clock.date()}
        signed = (
            f"X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAEXAMPLE%2F20261122%2F{REGION}%2Fs3%2Faws4_request"
        )
        address = f"{self.url}/{BUCKET}/{key}?{signed}&X-Amz-Signature=0&X-Amz-SignedHeaders=host&X-Amz-Expires=900"
        return {"EnvironmentInfo": [{**told, "Message": address}]}

    url = ""

    # ---- the way of a caller ---------------------------------------------------------------------------

    def route(self, name: str, encrypted: bool) -> tuple[str, Any]:
        """Say where a request goes: to whoever has the name, if it is healthy."""
        for each in self.environments.values():
            listens = ("aws:elbv2:listener:443", "ListenerEnabled") in each.settings
            public = each.settings.get(("aws:ec2:vpc", "ELBScheme")) == "public"
            if name == each.cname or (encrypted and listens and name not in self._names()):
                if not public:
                    return "the load balancer is internal", None
                if listens and not encrypted:
                    return "redirect", None
                where = each.instance.address() if each.instance and not self.silent(name, each) else None
                return ("forward", where) if where else ("no healthy target", None)
        return "nobody has this name", None

    def _names(self) -> set[str]:
        return {each.cname for each in self.environments.values()}


def _answers(instance: Instance, path: str) -> int | str:
    """Ask an instance as the health check does."""
    where = instance.address()
    if where is None:
        return "nothing: it has ended"
    until, status = time.monotonic() + 20, 0
    while time.monotonic() < until:
        with contextlib.suppress(OSError, http.client.HTTPException):
            asked = http.client.HTTPConnection(*where, timeout=5)
            asked.request("GET", path, headers={"Host": "172.31.0.10"})
            status = asked.getresponse().status
            asked.close()
            if status != 503:
                return status
        if instance.address() is None:
            return "nothing: it has ended"
        time.sleep(0.05)
    return status


def platform(stack: str) -> dict[str, Any]:
    """Describe a solution stack as a platform."""
    match = re.fullmatch(r"(64bit Amazon Linux (?:2023|2)) v([\d.]+) running (.+)", stack)
    assert match
    branch = f"{match[3]} running on {match[1]}"
    return {
        "PlatformArn": f"arn:aws:elasticbeanstalk:{REGION}::platform/{branch}/{match[2]}",
        "PlatformOwner": "AWSElasticBeanstalk",
        "PlatformStatus": "Ready",
        "PlatformCategory": "Docker" if match[3] == "Docker" else "Python",
        "OperatingSystemName": "Amazon Linux",
        "OperatingSystemVersion": match[1].rpartition(" ")[2],
        "PlatformLifecycleState": "",
        "PlatformVersion": match[2],
        "PlatformBranchName": branch,
        "PlatformBranchLifecycleState": "Supported",
    }


def _settings(listed: Sequence[Mapping[str, str]]) -> Settings:
    return {(each["Namespace"], each["OptionName"]): each["Value"] for each in listed}


def _shown(told: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in told.items() if not name.startswith("_")}


def _aware(when: dt.datetime) -> dt.datetime:
    return when if when.tzinfo else when.replace(tzinfo=dt.UTC)


def conforms(shape: Any, value: Any, where: str) -> None:
    """Hold an answer against the model: no unknown member, no wrong type, no value that is none of the listed ones."""
    kinds: dict[str, Any] = {"string": str, "boolean": bool, "integer": int, "timestamp": dt.datetime, "double": float}
    if shape.type_name == "structure":
        assert isinstance(value, Mapping), f"{where} is {value!r}"
        for name, each in value.items():
            assert name in shape.members, f"{where} has no {name}"
            conforms(shape.members[name], each, f"{where}.{name}")
    elif shape.type_name == "list":
        assert isinstance(value, list), f"{where} is {value!r}"
        for each in value:
            conforms(shape.member, each, f"{where}[]")
    else:
        assert isinstance(value, kinds[shape.type_name]), f"{where} is {value!r}"
        listed = [each.lower() for each in getattr(shape, "enum", None) or ()]
        # AWS writes PROCESSED where its model says Processed
        assert not listed or value.lower() in listed, f"{where} is {value!r}, none of {listed}"


# ---- in moto's server --------------------------------------------------------------------------------

SERVICE: list[Beanstalk] = []  # the one that answers now
OPERATIONS: Final = (
    "AbortEnvironmentUpdate CheckDNSAvailability CreateApplication CreateApplicationVersion CreateEnvironment "
    "CreateStorageLocation DeleteApplication DeleteApplicationVersion DescribeApplicationVersions DescribeApplications "
    "DescribeConfigurationSettings DescribeEnvironmentHealth DescribeEnvironmentResources DescribeEnvironments "
    "DescribeEvents DescribeInstancesHealth DescribePlatformVersion ListPlatformBranches "
    "ListPlatformVersions ListAvailableSolutionStacks ListTagsForResource RequestEnvironmentInfo "
    "RetrieveEnvironmentInfo SwapEnvironmentCNAMEs TerminateEnvironment UpdateEnvironment ValidateConfigurationSettings"
).split()


def _method(operation: str) -> Any:
    def answer(self: Any) -> Any:
        params = {name: value for name, value in dict(self.params).items() if name not in {"Action", "Version"}}
        try:
            with SERVICE[-1].turn:
                found = SERVICE[-1].answer(operation, params)
        except No as error:
            return 400, {"status": 400}, error.told()
        except BaseException:
            SERVICE[-1].broken.append(traceback.format_exc())
            raise
        return ActionResult(found) if found else EmptyResult()

    return answer


def _enriched(headers: dict[str, str], body: Any) -> tuple[dict[str, str], Any]:
    """Give an answer the request's own number; moto's way takes all from the first number to the last for one."""
    if "status" in headers:
        headers["status"] = str(headers["status"])
    if not SERVICE:  # a client is gone, its request is not
        return headers, body
    headers["x-amzn-requestid"] = SERVICE[-1].request_id
    return headers, (body.decode() if isinstance(body, bytes) else str(body)).replace(
        "<RequestId>request-id<", f"<RequestId>{SERVICE[-1].request_id}<"
    )


def _quotas(self: Any) -> str:
    quota = {"ServiceCode": "elasticbeanstalk", "QuotaName": "Environments", "Value": 200.0}
    return json.dumps({"Quotas": [quota]})


def _complete(upload: Any) -> Any:
    def complete(self: ECRBackend, repository_name: str, upload_id: str, *words: Any, **more: Any) -> Any:
        parts = bytes(self.repositories[repository_name].uploads[upload_id].layer_parts)
        found = upload(self, repository_name, upload_id, *words, **more)
        SERVICE[-1].blobs[found["layerDigest"]] = parts  # moto counts them and forgets them
        return found

    return complete


@contextlib.contextmanager
def completed() -> Iterator[ThreadedMotoServer]:
    """Run moto's server with Elastic Beanstalk completed."""
    from moto.core.utils import camelcase_to_underscores

    for operation in OPERATIONS:
        setattr(EBResponse, camelcase_to_underscores(operation), _method(operation))
    ServiceQuotasResponse.list_service_quotas = _quotas  # type: ignore[attr-defined]
    EBResponse._enrich_response = staticmethod(_enriched)  # type: ignore[method-assign]
    plain = ECRBackend.complete_layer_upload
    ECRBackend.complete_layer_upload = _complete(plain)  # type: ignore[method-assign]
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        yield server
    finally:
        server.stop()
        ECRBackend.complete_layer_upload = plain  # type: ignore[method-assign]


class Account:
    """What clients of AWS are led to by their environment."""

    url: str

    @property
    def environ(self) -> dict[str, str]:
        """Give what a client of AWS is told."""
        return {
            "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
            "AWS_SECRET_ACCESS_KEY": "example",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_REGION": REGION,
            "AWS_ENDPOINT_URL": self.url,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/nowhere/config",
            "AWS_SHARED_CREDENTIALS_FILE": "/nowhere/credentials",
        }


@dataclass
class Cloud(Account):
    """A fresh account: the service, its clock, and where it answers."""

    beanstalk: Beanstalk
    clock: Clock
    balancer: Balancer
    url: str

    def left(self) -> dict[str, Any]:
        """Say what there is in the account, of all that a deployment makes."""
        iam = iam_backends[ACCOUNT]["aws"]
        bucket = s3_backends[ACCOUNT]["aws"].buckets.get(BUCKET)
        return {
            "applications": list(self.beanstalk.applications),
            "versions": [label for _, label in self.beanstalk.versions],
            "environments": [e.name for e in self.beanstalk.environments.values() if e.status != "Terminated"],
            "objects": [key for key in (bucket.keys if bucket else {}) if not key.startswith("resources/")],
            "secrets": [each.name for each in secretsmanager_backends[ACCOUNT][REGION].secrets.values()],
            "repositories": list(ecr_backends[ACCOUNT][REGION].repositories),
            "roles": [each.name for each in iam.roles.values()],
            "profiles": [each.name for each in iam.instance_profiles.values()],
        }


@functools.cache
def policies() -> Any:
    """Give the policies that AWS keeps."""
    return json.loads(aws_managed_policies_data)


@contextlib.contextmanager
def cloud(server: ThreadedMotoServer, runner: Runner, rate: float = 0.0, longer: float = 20.0) -> Iterator[Cloud]:
    """Give a fresh account."""
    from moto.moto_api._internal.models import moto_api_backend

    moto_api_backend.reset()
    iam = iam_backends[ACCOUNT]["aws"]
    for name in POLICIES:
        policy = AWSManagedPolicy.from_data(name, ACCOUNT, "aws", policies()[name])
        iam.managed_policies[policy.arn] = policy
    clock = Clock(rate, longer)
    service = Beanstalk(clock, runner)
    host, port = server.get_host_and_port()
    service.url = f"http://{host}:{port}"
    balancer = Balancer(service.route)
    SERVICE.append(service)
    try:
        yield Cloud(service, clock, balancer, service.url)
        assert not service.broken, service.broken[0]
    finally:
        if service.broken:
            print(service.broken[0])
        SERVICE.remove(service)
        balancer.close()
