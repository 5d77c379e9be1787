"""The options of an Elastic Beanstalk environment: what may be set, and what Ketch sets.

wanted --*settings*--> OptionSettings --*check*--> refused here, before anybody is asked
"""

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ketch.errors import UsageError
from ketch.steps import Got, Text

Value = str | Got | Text
BOOLEAN: Final = ("true", "false")
PERCENT: Final = range(0, 101)
TEXT: Final = re.compile(r"\S(.*\S)?", re.DOTALL)
NAME: Final = re.compile(r"[\w+=,.@/:-]{1,512}", re.ASCII)
TYPES: Final = re.compile(r"[a-z][a-z0-9-]*\.[a-z0-9-]+(,[a-z][a-z0-9-]*\.[a-z0-9-]+)*", re.ASCII)
IDS: Final = re.compile(r"[a-z]+-[0-9a-f]+(,[a-z]+-[0-9a-f]+)*", re.ASCII)
ARN: Final = re.compile(r"arn:aws[a-z-]*:[a-z0-9-]+:[a-z0-9-]*:\d*:\S+", re.ASCII)
PATH: Final = re.compile(r"(HTTPS?:\d+)?/\S*", re.ASCII)
CODES: Final = re.compile(r"\d{3}([,-]\d{3})*", re.ASCII)
WEEKLY: Final = re.compile(r"(Sun|Mon|Tue|Wed|Thu|Fri|Sat):([01]\d|2[0-3]):[0-5]\d", re.ASCII)
VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.:/+@-]{0,127}", re.ASCII)
RETENTION: Final = ("1", "3", "5", "7", "14", "30", "60", "90", "120", "150", "180", "365", "400", "545", "731", "1827")

ENVIRON: Final = "aws:elasticbeanstalk:application:environment"
SECRETS: Final = "aws:elasticbeanstalk:application:environmentsecrets"
ENVIRON_BYTES: Final = 4096  # that names and values may take together
LISTENER: Final = re.compile(r"aws:elbv2:listener:(default|\d{1,5})", re.ASCII)
PROCESS: Final = re.compile(r"aws:elasticbeanstalk:environment:process:\w+", re.ASCII)

Allowed = Sequence[str] | range | re.Pattern[str]
LISTENED: Final[Mapping[str, Allowed]] = {
    "DefaultProcess": NAME,
    "ListenerEnabled": BOOLEAN,
    "Protocol": ("HTTP", "HTTPS"),
    "Rules": NAME,
    "SSLCertificateArns": ARN,
    "SSLPolicy": NAME,
}
PROCESSED: Final[Mapping[str, Allowed]] = {
    "DeregistrationDelay": range(0, 3601),
    "HealthCheckInterval": range(5, 301),
    "HealthCheckPath": PATH,
    "HealthCheckTimeout": range(2, 61),
    "HealthyThresholdCount": range(2, 11),
    "MatcherHTTPCode": CODES,
    "Port": range(1, 65536),
    "Protocol": ("HTTP", "HTTPS"),
    "StickinessEnabled": BOOLEAN,
    "StickinessLBCookieDuration": range(1, 604801),
    "UnhealthyThresholdCount": range(2, 11),
}
VALID: Final[Mapping[str, Mapping[str, Allowed]]] = {
    "aws:autoscaling:asg": {
        "Availability Zones": ("Any", "Any 1", "Any 2", "Any 3"),
        "Cooldown": range(0, 10001),
        "EnableCapacityRebalancing": BOOLEAN,
        "MaxSize": range(1, 10001),
        "MinSize": range(1, 10001),
    },
    "aws:autoscaling:launchconfiguration": {
        "DisableIMDSv1": BOOLEAN,
        "EC2KeyName": NAME,
        "IamInstanceProfile": NAME,
        "LaunchTemplateTagPropagationEnabled": BOOLEAN,
        "MonitoringInterval": ("1 minute", "5 minute"),
        "RootVolumeIOPS": range(100, 20001),
        "RootVolumeSize": range(8, 16385),
        "RootVolumeThroughput": range(125, 1001),
        "RootVolumeType": ("standard", "gp2", "gp3", "io1"),
        "SecurityGroups": NAME,
    },
    "aws:autoscaling:trigger": {
        "BreachDuration": range(1, 601),
        "EvaluationPeriods": range(1, 601),
        "LowerBreachScaleIncrement": range(-100, 101),
        "LowerThreshold": range(0, 20000001),
        "MeasureName": ("CPUUtilization", "Latency", "NetworkIn", "NetworkOut", "RequestCount", "UnhealthyHostCount"),
        "Period": range(1, 601),
        "Statistic": ("Average", "Maximum", "Minimum", "Sum"),
        "Unit": ("Bytes", "Count", "Percent", "Seconds"),
        "UpperBreachScaleIncrement": range(-100, 101),
        "UpperThreshold": range(0, 20000001),
    },
    "aws:autoscaling:updatepolicy:rollingupdate": {
        "MaxBatchSize": range(1, 10001),
        "MinInstancesInService": range(0, 10001),
        "RollingUpdateEnabled": BOOLEAN,
        "RollingUpdateType": ("Health", "Immutable", "Time"),
    },
    "aws:ec2:instances": {
        "EnableSpot": BOOLEAN,
        "InstanceTypes": TYPES,
        "SupportedArchitectures": ("x86_64", "arm64"),
    },
    "aws:ec2:vpc": {
        "AssociatePublicIpAddress": BOOLEAN,
        "ELBScheme": ("internal", "public"),
        "ELBSubnets": IDS,
        "Subnets": IDS,
        "VPCId": IDS,
    },
    "aws:elasticbeanstalk:application": {"Application Healthcheck URL": PATH},
    "aws:elasticbeanstalk:cloudwatch:logs": {
        "DeleteOnTerminate": BOOLEAN,
        "RetentionInDays": RETENTION,
        "StreamLogs": BOOLEAN,
    },
    "aws:elasticbeanstalk:command": {
        "BatchSize": range(1, 10001),
        "BatchSizeType": ("Percentage", "Fixed"),
        "DeploymentPolicy": (
            "AllAtOnce",
            "Immutable",
            "Rolling",
            "RollingWithAdditionalBatch",
            "TrafficSplitting",
        ),
        "IgnoreHealthCheck": BOOLEAN,
        "Timeout": range(1, 3601),
    },
    "aws:elasticbeanstalk:environment": {
        "EnvironmentType": ("LoadBalanced", "SingleInstance"),
        "LoadBalancerType": ("application", "classic", "network"),
        "LoadBalancerIsShared": BOOLEAN,
        "ServiceRole": NAME,
    },
    "aws:elasticbeanstalk:healthreporting:system": {
        "EnhancedHealthAuthEnabled": BOOLEAN,
        "HealthCheckSuccessThreshold": ("Ok", "Warning", "Degraded", "Severe"),
        "SystemType": ("basic", "enhanced"),
    },
    "aws:elasticbeanstalk:managedactions": {
        "ManagedActionsEnabled": BOOLEAN,
        "PreferredStartTime": WEEKLY,
        "ServiceRoleForManagedUpdates": NAME,
    },
    "aws:elasticbeanstalk:managedactions:platformupdate": {
        "InstanceRefreshEnabled": BOOLEAN,
        "UpdateLevel": ("minor", "patch"),
    },
    "aws:elasticbeanstalk:trafficsplitting": {"EvaluationTime": range(3, 601), "NewVersionPercent": range(1, 100)},
    "aws:elbv2:loadbalancer": {"AccessLogsS3Enabled": BOOLEAN, "IdleTimeout": range(1, 4001), "SecurityGroups": NAME},
}


def valid(namespace: str) -> Mapping[str, Allowed] | None:
    """Give the options of a namespace with what each may be; None where there is no such namespace."""
    if namespace in VALID:
        return VALID[namespace]
    if LISTENER.fullmatch(namespace):
        return LISTENED
    return PROCESSED if PROCESS.fullmatch(namespace) else None


def check(wanted: Sequence[Mapping[str, Any]]) -> None:
    """Refuse settings that Elastic Beanstalk does not know, or whose value it does not take.

    Raises:
        UsageError: there is one; the message names it and what it may be.
    """
    taken = 0
    for each in wanted:
        namespace, option, value = each["Namespace"], each["OptionName"], each["Value"]
        if namespace in {ENVIRON, SECRETS}:
            taken += len(option) + len(str(value))
            _check_variable(namespace, option, value)
        else:
            _check_option(namespace, option, value)
    if taken > ENVIRON_BYTES:
        raise UsageError(
            f"The variables of the environment take {taken:,} bytes, and {ENVIRON_BYTES:,} are allowed",
            hint="Give fewer or shorter ones, or keep long ones as secrets.",
        )


def _check_variable(namespace: str, option: str, value: Value) -> None:
    if not VARIABLE.fullmatch(option):
        raise UsageError(f"{option[:60]!r} cannot name a variable", hint="Use letters, digits and _.")
    if namespace == SECRETS and isinstance(value, str) and not ARN.fullmatch(value):
        raise UsageError(f"{option} is not the ARN of a secret", hint="It begins with arn:aws:secretsmanager:")


def _check_option(namespace: str, option: str, value: Value) -> None:
    known = valid(namespace)
    if known is None:
        raise UsageError(f"There is no namespace {namespace}", hint=_like(namespace, list(VALID)))
    if option not in known:
        raise UsageError(f"{namespace} has no option {option}", hint=_like(option, list(known)))
    if isinstance(value, str) and not _takes(known[option], value):
        raise UsageError(f"{namespace} {option} cannot be {value[:80]!r}", hint=_may_be(known[option]))


def _takes(allowed: Allowed, value: str) -> bool:
    if isinstance(allowed, range):
        return re.fullmatch(r"-?\d{1,9}", value, re.ASCII) is not None and int(value) in allowed
    return bool(allowed.fullmatch(value)) if isinstance(allowed, re.Pattern) else value in allowed


def _may_be(allowed: Allowed) -> str:
    if isinstance(allowed, range):
        return f"It is a number from {allowed.start} to {allowed.stop - 1}."
    return f"It looks like {allowed.pattern}" if isinstance(allowed, re.Pattern) else f"It is {' or '.join(allowed)}."


def _like(word: str, known: list[str]) -> str:
    near = difflib.get_close_matches(word, known, 1)
    return f"Did you mean {near[0]}?" if near else f"There are: {', '.join(known)}"


# ---- what Ketch sets ---------------------------------------------------------------------------------


def listed(told: Mapping[str, Mapping[str, Value]]) -> list[dict[str, Any]]:
    """List settings as the API takes them, in the order of their names.

    Raises:
        UsageError: one is not valid.
    """
    found = [
        {"Namespace": namespace, "OptionName": option, "Value": value}
        for namespace, options in sorted(told.items())
        for option, value in sorted(options.items())
    ]
    check(found)
    return found


def architecture(instance: str) -> str:
    """Say which processors a type of instance has.

    Raises:
        UsageError: it is no type.
    """
    if not TYPES.fullmatch(instance) or "," in instance:
        raise UsageError(f"{instance[:40]!r} is no type of instance", hint="Give one such as t3.small or t4g.small.")
    return "arm64" if re.match(r"[a-z]+\d+[a-z]*g[a-z]*\.", instance) else "x86_64"


def settings(
    options: Mapping[str, Any], profile: str, role: str, environ: Mapping[str, Value], held: Mapping[str, Value]
) -> dict[str, dict[str, Value]]:
    """Give the settings of an environment.

    New accounts refuse launch configurations: a volume gp3, and version 2 alone of the instance metadata, are what
    makes Elastic Beanstalk use a launch template.
    """
    return {
        ENVIRON: dict(environ),
        SECRETS: dict(held),
        "aws:autoscaling:asg": {"MaxSize": str(options["max"]), "MinSize": str(options["min"])},
        "aws:autoscaling:launchconfiguration": {
            "DisableIMDSv1": "true",
            "IamInstanceProfile": profile,
            "RootVolumeSize": str(options["disk"]),
            "RootVolumeType": "gp3",
        },
        "aws:autoscaling:trigger": {
            "BreachDuration": "5",
            "LowerBreachScaleIncrement": "-1",
            "LowerThreshold": "25",
            "MeasureName": "CPUUtilization",
            "Statistic": "Average",
            "Unit": "Percent",
            "UpperBreachScaleIncrement": "1",
            "UpperThreshold": "60",
        },
        "aws:autoscaling:updatepolicy:rollingupdate": {"RollingUpdateEnabled": "true", "RollingUpdateType": "Health"},
        "aws:ec2:instances": {
            "InstanceTypes": options["instance_type"],
            "SupportedArchitectures": architecture(options["instance_type"]),
        },
        "aws:elasticbeanstalk:cloudwatch:logs": {
            "DeleteOnTerminate": "false",
            "RetentionInDays": "30",
            "StreamLogs": "true",
        },
        "aws:elasticbeanstalk:command": {"DeploymentPolicy": options["policy"], "Timeout": "600"},
        "aws:elasticbeanstalk:environment": {
            "EnvironmentType": "LoadBalanced",
            "LoadBalancerType": "application",
            "ServiceRole": role,
        },
        "aws:elasticbeanstalk:environment:process:default": {
            "DeregistrationDelay": "20",
            "HealthCheckInterval": "15",
            "HealthCheckPath": "/health/ready",
            "HealthCheckTimeout": "5",
            "MatcherHTTPCode": "200",
            "Port": "80",
            "Protocol": "HTTP",
        },
        "aws:elasticbeanstalk:healthreporting:system": {"SystemType": "enhanced"},
        "aws:elasticbeanstalk:managedactions": {
            "ManagedActionsEnabled": "true",
            "PreferredStartTime": "Sun:03:00",
            "ServiceRoleForManagedUpdates": role,
        },
        "aws:elasticbeanstalk:managedactions:platformupdate": {"UpdateLevel": "minor"},
    }


def is_internal(options: Mapping[str, Any]) -> bool:
    """Say whether only the network reaches the load balancer: without encryption nothing else is safe."""
    return bool(options["internal"] or not (options["certificate"] or options["insecure_http"]))


def network(options: Mapping[str, Any]) -> dict[str, dict[str, Value]]:
    """Give the settings of the network: the default VPC, unless another is named."""
    subnets = options["subnets"] or Got("network", ("subnets",))
    return {
        "aws:ec2:vpc": {
            "AssociatePublicIpAddress": "false" if options["private_instances"] else "true",
            "ELBScheme": "internal" if is_internal(options) else "public",
            "ELBSubnets": options["balancer_subnets"] or subnets,
            "Subnets": subnets,
            "VPCId": options["vpc"] or Got("network", ("vpc",)),
        }
    }


def encrypted(certificate: str) -> dict[str, dict[str, Value]]:
    """Give the settings of a listener at 443; what stands at 80 only redirects, which the bundle says."""
    if not certificate:
        return {}
    return {
        "aws:elbv2:listener:443": {
            "ListenerEnabled": "true",
            "Protocol": "HTTPS",
            "SSLCertificateArns": certificate,
            "SSLPolicy": "ELBSecurityPolicy-TLS13-1-2-2021-06",
        }
    }
