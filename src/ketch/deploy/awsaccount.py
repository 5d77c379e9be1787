"""What an account must have for Elastic Beanstalk: roles, a network, a platform; and whether it has it.

name, options --*roles*, *networks*, *platform*--> steps       --*status*, *logs*, *doctor*--> questions
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from ketch.deploy import Options, amazon, awsoptions
from ketch.deploy import awsenvironments as stages
from ketch.deploy.awsenvironments import EB, eb
from ketch.errors import DeployError
from ketch.steps import Both, Hands, Question, Step, Text
from ketch.steps.aws import Aws

STACKS: Final = {  # the platforms: 64bit Amazon Linux 2023 v4.6.0 running Docker
    "docker": r"64bit Amazon Linux 2023 v(\d+)\.(\d+)\.(\d+) running Docker",
    "python": r"64bit Amazon Linux 2023 v(\d+)\.(\d+)\.(\d+) running Python {python}",
}
SERVICE_POLICIES: Final = (
    "service-role/AWSElasticBeanstalkEnhancedHealth",
    "AWSElasticBeanstalkManagedUpdatesCustomerRolePolicy",
)
QUOTAS: Final = {"elasticbeanstalk": ("Applications", "Environments"), "ec2": ("Running On-Demand Standard",)}
UNREADABLE: Final = ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "NoSuchResourceException")


# ---- roles -------------------------------------------------------------------------------------------


def instance_role(name: str, kind: str, log_secret: str = "") -> amazon.Role:
    """Say what instances may do: what Elastic Beanstalk needs, read the secret, pull the image, and nothing else."""
    own: dict[str, str | Text] = {"key": amazon.may_read_secret()}
    if log_secret:
        own["log"] = Text((amazon.may_read_secret().parts[0], log_secret, '"}]}'))
    if kind == "image":
        own["image"] = amazon.may_pull()
    return amazon.Role(f"ketch-{name}-instance", "ec2.amazonaws.com", name, ("AWSElasticBeanstalkWebTier",), own)


def service_role(name: str) -> amazon.Role:
    """Say what Elastic Beanstalk itself may do: watch the health, and update the platform."""
    external = "elasticbeanstalk"
    return amazon.Role(
        f"ketch-{name}-service", "elasticbeanstalk.amazonaws.com", name, SERVICE_POLICIES, external=external
    )


def roles(name: str, kind: str, options: Options) -> Iterable[Step]:
    """Make the two roles, or look for those that are named."""
    if options["instance_profile"]:
        asked = Aws("iam", "get_instance_profile", {"InstanceProfileName": options["instance_profile"]})
        yield Step("profile", f"Instance profile {options['instance_profile']}", look=asked)
    else:
        role = instance_role(name, kind, options["log_secret"])
        yield from amazon.role("instance-role", role)
        yield from amazon.instance_profile("profile", role.name, role)
    if options["service_role"]:
        asked = Aws("iam", "get_role", {"RoleName": options["service_role"]})
        yield Step("service-role", f"Service role {options['service_role']}", look=asked)
    else:
        yield from amazon.role("service-role", service_role(name))


# ---- network and platform ----------------------------------------------------------------------------


def networks(options: Options) -> Iterable[Step]:
    """Find the subnets of the default network in which there are such instances."""
    if options["vpc"]:
        return
    kind = options["instance_type"]
    look = Both(
        {
            "vpcs": Aws("ec2", "describe_vpcs", {"Filters": [{"Name": "is-default", "Values": ["true"]}]}),
            "subnets": Aws("ec2", "describe_subnets", {"Filters": [{"Name": "default-for-az", "Values": ["true"]}]}),
            "zones": Aws(
                "ec2",
                "describe_instance_type_offerings",
                {"LocationType": "availability-zone", "Filters": [{"Name": "instance-type", "Values": [kind]}]},
            ),
        }
    )
    yield Step("network", "The default network", look=look, until=lambda found, got: network(found, kind))


def network(found: Any, instance: str) -> dict[str, str]:
    """Choose subnets of the default network, in two zones at least: a load balancer needs them.

    Raises:
        DeployError: there are none.
    """
    if not found["vpcs"]["Vpcs"]:
        raise DeployError("The account has no default network here", hint="Name one: --vpc, --subnets.")
    vpc = found["vpcs"]["Vpcs"][0]["VpcId"]
    zones = {each["Location"] for each in found["zones"]["InstanceTypeOfferings"]}
    subnets = [
        each["SubnetId"]
        for each in sorted(found["subnets"]["Subnets"], key=lambda each: each["AvailabilityZone"])
        if each["VpcId"] == vpc and each["AvailabilityZone"] in zones
    ]
    if len(subnets) < 2:
        raise DeployError(
            f"The default network has no two zones with instances of type {instance}",
            hint="Choose another --instance-type, or name a network: --vpc, --subnets.",
        )
    return {"vpc": vpc, "subnets": ",".join(subnets)}


def platform(kind: str, python: str) -> Step:
    """Ask for the newest platform: gives its name."""
    look = eb("list_available_solution_stacks")
    return Step(
        "platform",
        "The newest platform",
        look=look,
        until=lambda found, got: newest(found["SolutionStacks"], kind, python),
    )


def newest(stacks: Iterable[str], kind: str, python: str = "") -> str:
    """Choose the newest platform by its number, not by its place in the list.

    Raises:
        DeployError: there is none.
    """
    pattern = STACKS["python" if kind in {"python", "pipenv"} else "docker"].format(python=re.escape(python))
    found = [(tuple(map(int, match.groups())), each) for each in stacks if (match := re.fullmatch(pattern, each))]
    if not found:
        offered = sorted(
            each.rpartition(" running ")[2] for each in stacks if "Amazon Linux 2023" in each and "Python" in each
        )
        raise DeployError(
            f"Elastic Beanstalk offers no platform for {kind}{f' with Python {python}' if python else ''} here",
            hint=f"It offers {', '.join(offered)}. --platform docker runs any Python."
            if kind != "image"
            else "Try another region.",
        )
    return max(found)[1]


# ---- asking ------------------------------------------------------------------------------------------


def status(name: str, options: Options) -> list[Question]:
    """Ask how a deployment is."""

    def told(found: Any) -> Iterable[tuple[str, str]]:
        if not found["environments"]:
            yield "--", f"there is no deployment {name}"
        for each in found["environments"]:
            at = found["live"] is not None and each["EnvironmentId"] == found["live"]["EnvironmentId"]
            state = "ok" if each["Health"] == "Green" else "--" if each["Status"] in stages.BUSY else "mend"
            words = f"{each['EnvironmentName']}: {each['Status']}, {each['Health']} ({each.get('HealthStatus', '')})"
            yield (
                state,
                f"{words}, {each.get('VersionLabel', '')}{', live' if at else ''}, http://{each.get('CNAME', '')}",
            )

    return [
        Question("environments", stages.Listed(name, options["cname"]), told),
        Question("causes", Asked(name, options["cname"], "health"), _lines("mend")),
        Question("events", Asked(name, options["cname"], "events"), _lines("--")),
    ]


def logs(name: str, options: Options) -> list[Question]:
    """Ask for the last lines of the instances' logs."""
    return [Question("logs", Asked(name, options["cname"], "logs"), _lines("--"))]


def _lines(state: str) -> Any:
    return lambda found: [(state, line) for line in found or ()]


@dataclass(frozen=True)
class Asked:
    """Ask the live environment of a deployment, or its only one, for its health, events or logs, as lines."""

    name: str
    cname: str
    what: str

    def sent(self) -> Mapping[str, object]:
        """Say what is asked."""
        return {"aws": f"{EB}.describe_environments", "params": {"ApplicationName": self.name}}

    def done(self, hands: Hands) -> Any:
        """Ask."""
        found = stages.Listed(self.name, self.cname).done(hands)
        at = found["live"] or next(iter(found["environments"]), None)
        if at is None:
            return []
        if self.what == "logs":
            listed = stages.logs(at["EnvironmentId"], hands)
            return [f"{instance}: {line}" for instance, text in listed for line in text.splitlines()]
        seen = stages.watched(at["EnvironmentId"]).done(hands)
        return [*stages.news(seen)][-20:] if self.what == "events" else list((seen["health"] or {}).get("Causes", ()))


def doctor(name: str, options: Options) -> list[Question]:
    """Ask whether the account is ready for a deployment."""
    found = [
        *amazon.signed_in("signed in"),
        Question("platform", eb("list_available_solution_stacks"), _offered),
    ]
    for title, role, made in (
        ("instance profile", options["instance_profile"], instance_role(name or "NAME", "").name),
        ("service role", options["service_role"], service_role(name or "NAME").name),
    ):
        operation = "get_role" if title == "service role" else "get_instance_profile"
        key = "RoleName" if title == "service role" else "InstanceProfileName"
        asked = Aws("iam", operation, {key: role or made})
        found.append(Question(title, asked, _role_told(role, made), absent=(amazon.NONE,)))
    for service, wanted in QUOTAS.items():
        asked = Aws("service-quotas", "list_service_quotas", {"ServiceCode": service})
        found.append(Question(f"quotas of {service}", asked, _quotas(wanted), absent=UNREADABLE))
    return [*found, *_of_a_name(name, options)]


def _of_a_name(name: str, options: Options) -> Iterable[Question]:
    if not name:
        return
    yield Question("address", Free(name, options["cname"]), lambda found: [found])
    settings = [
        {"Namespace": namespace, "OptionName": key, "Value": value}
        for namespace, told in awsoptions.settings(options, "x", "x", {}, {}).items()
        for key, value in told.items()
        if key not in {"IamInstanceProfile", "ServiceRole", "ServiceRoleForManagedUpdates"}
    ]
    asked = eb("validate_configuration_settings", ApplicationName=name, OptionSettings=settings)
    yield Question("settings", asked, _messages, absent=("InvalidParameterValue", "InvalidParameterCombination"))


def _offered(found: Any) -> Iterable[tuple[str, str]]:
    try:
        yield "ok", newest(found["SolutionStacks"], "image")
    except DeployError as error:
        yield "mend", f"{error.message}. {error.hint}"


def _role_told(given: str, made: str) -> Any:
    def told(found: Any) -> Iterable[tuple[str, str]]:
        if found is None and given:
            yield "mend", f"there is no {given}"
        else:
            yield "ok", given or (made if found else f"{made} will be made")

    return told


def _quotas(wanted: tuple[str, ...]) -> Any:
    def told(found: Any) -> Iterable[tuple[str, str]]:
        if found is None:
            yield "--", "cannot be read by whoever is signed in"
            return
        for each in found["Quotas"]:
            if str(each["QuotaName"]).startswith(wanted):
                yield "ok", f"{each['QuotaName']}: {each['Value']:,.0f}"

    return told


def _messages(found: Any) -> Iterable[tuple[str, str]]:
    if found is None:
        yield "--", "checked once there is an application"
    elif not found["Messages"]:
        yield "ok", "all are valid"
    else:
        yield from (("mend" if e["Severity"] == "error" else "--", e["Message"]) for e in found["Messages"])


@dataclass(frozen=True)
class Free:
    """Ask whether the live address is free, or ours."""

    name: str
    cname: str

    def sent(self) -> Mapping[str, object]:
        """Say what is asked."""
        return {"aws": f"{EB}.check_dns_availability"}

    def done(self, hands: Hands) -> tuple[str, str]:
        """Ask."""
        if stages.Listed(self.name, self.cname).done(hands)["live"]:
            return "ok", "it is ours"
        prefix = stages.prefix_of({"account": amazon.WHO.done(hands)}, self.name, self.cname)
        found = eb("check_dns_availability", CNAMEPrefix=prefix).done(hands)
        return (
            ("ok", f"{prefix} is free")
            if found["Available"]
            else ("mend", f"{prefix} is taken: choose another --cname")
        )
