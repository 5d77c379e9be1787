"""AWS Elastic Beanstalk: a load balancer, instances that come and go, blue and green environments with one address.

Shipment --*plan*--> roles, secret, image, version --> green environment --smoke--> swap --smoke--> live
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from ketch import deploy
from ketch.deploy import (
    HOURS,
    Option,
    Options,
    Shipment,
    Target,
    amazon,
    awsaccount,
    awsbundle,
    awsends,
    awsoptions,
    images,
    require_forms,
)
from ketch.deploy import awsenvironments as stages
from ketch.deploy.awsenvironments import NOT_KNOWN, NOT_READY, eb
from ketch.errors import DeployError, UsageError
from ketch.steps import Answers, Both, Call, Done, Got, Plan, Step, Text
from ketch.steps.aws import Aws

FORMS: Final = {"certificate": (r"(arn:aws[a-z-]*:(acm|iam):\S+)?", "arn:aws:acm:REGION:ACCOUNT:certificate/…")}
LONGEST: Final = 29  # letters of a name: an environment's has 40, and content and number stand behind it
LABELLED: Final = 100  # letters of a version label
OPTIONS: Final = (
    Option("platform", "Run the container, or Python without any.", "docker", ("docker", "python")),
    Option(
        "registry", "Where the image goes; with none, --source builds it on every instance.", "ecr", ("ecr", "none")
    ),
    Option("source", "Send the build context; every instance builds the image.", False),
    Option(
        "lock",
        "How --platform python installs: from its own wheels, or by Pipfile.lock.",
        "wheels",
        ("wheels", "pipenv"),
    ),
    Option("base_archive", "Archive of a base image: the image is made of it without any container engine."),
    Option("certificate", "ARN of a certificate: HTTPS at 443, and 80 redirects."),
    Option("domain", "The name that the certificate is for, which you point to the address; smoke tests ask there."),
    Option("insecure_http", "Without a certificate: open to the world all the same, by HTTP.", False),
    Option("internal", "Reachable from within the network only, though there is a certificate.", False),
    Option("inside", "This machine is within the network: ask an internal address for golden predictions.", False),
    Option("cname", "First part of the live address.  [made of name and account]"),
    Option("in_place", "Update the live environment instead of making a new one.", False),
    Option(
        "policy",
        "How --in-place replaces instances.",
        "Immutable",
        ("Immutable", "Rolling", "RollingWithAdditionalBatch", "AllAtOnce"),
    ),
    Option(
        "keep_old", "Keep the environment that was live before, for --rollback at once; it costs as much again.", False
    ),
    Option("drain", "Seconds until an old environment is ended.", 180),
    Option("instance_type", "Type of the instances.", "t3.small"),
    Option("min", "Fewest instances.", 1),
    Option("max", "Most instances.", 4),
    Option("disk", "GiB of their disks.", 16),
    Option("vpc", "Network.  [the default one]"),
    Option("subnets", "Subnets of the instances, separated by commas."),
    Option("balancer_subnets", "Subnets of the load balancer.  [those of the instances]"),
    Option("private_instances", "Instances have no public address: their subnets have a way out.", False),
    Option("instance_profile", "Instance profile that is there.  [made for the deployment]"),
    Option("service_role", "Service role that is there.  [made for the deployment]"),
    Option("log_secret", "ARN of a secret with the KETCH_LOG of the service, such as a postgresql URL."),
)


@dataclass(frozen=True)
class Wanted:
    """What is deployed, settled: names, labels and settings, all by what it is made of."""

    name: str
    kind: str
    label: str
    tag: str
    content: str
    recipe: Mapping[str, Any]
    settings: list[dict[str, Any]]
    options: Options

    @property
    def key(self) -> str:
        """Name the source bundle in its bucket."""
        return f"{self.name}/{self.label}.zip"

    @property
    def environment(self) -> str:
        """Name a new environment."""
        return f"{self.name}-{self.content}"

    @property
    def reachable(self) -> bool:
        """Say whether this machine can ask the service."""
        return bool(self.options["inside"] or not awsoptions.is_internal(self.options))

    def prefix(self, got: Answers) -> str:
        """Give the first part of the live address."""
        return stages.prefix_of(got, self.name, self.options["cname"])

    def url(self, step: str) -> Text:
        """Give the address of the environment that a step gave."""
        return Text(("http://", Got(step, ("CNAME",))))


def settle(shipment: Shipment, options: Options) -> Wanted:
    """Settle names and settings, and refuse what cannot be.

    Raises:
        UsageError: an option cannot be as it is, or does not go with another.
    """
    _require_sense(shipment.name, options)
    kind = _kind(options)
    recipe = {
        "platform": "linux/arm64" if awsoptions.architecture(options["instance_type"]) == "arm64" else "linux/amd64"
    }
    tag = images.image_tag(shipment, **recipe)
    label = f"{tag}-{kind}{'-tls' if options['certificate'] else ''}"[:LABELLED]
    settings = awsoptions.listed(_settings(shipment, kind, options))
    content = images.fingerprint(label, [{**each, "Value": str(each["Value"])} for each in settings])
    return Wanted(shipment.name, kind, label, tag, content, recipe, settings, options)


def _kind(options: Options) -> str:
    if options["platform"] == "python":
        return "pipenv" if options["lock"] == "pipenv" else "python"
    return "source" if options["source"] or options["registry"] == "none" else "image"


def _require_sense(name: str, options: Options) -> None:
    require_forms(options, FORMS)
    if len(name) > LONGEST or len(name) < 2:
        raise UsageError(
            f"{name!r} has {len(name)} letters, and an environment's name must hold it",
            hint=f"Give --name with 2 to {LONGEST}.",
        )
    if options["min"] > options["max"]:
        raise UsageError("--min is more than --max", hint="Give --max as well.")
    if options["drain"] < 0:
        raise UsageError("--drain cannot be below 0", hint="Give seconds, such as 180.")
    if options["source"] and options["platform"] == "python":
        raise UsageError("--source is for a container, and --platform python has none", hint="Give one of them.")
    if bool(options["vpc"]) != bool(options["subnets"]):
        raise UsageError("--vpc and --subnets go together", hint="Give both, or neither for the default network.")
    if options["cname"] and not re.fullmatch(r"[a-z0-9][a-z0-9-]{2,52}[a-z0-9]", options["cname"]):
        raise UsageError(f"{options['cname']!r} cannot begin an address", hint="Use 4 to 54 letters, digits, hyphens.")
    if options["certificate"] and options["insecure_http"]:
        raise UsageError("--certificate and --insecure-http are two ways", hint="Give one of them.")
    if options["domain"] and not options["certificate"]:
        raise UsageError("--domain is the name that a certificate is for", hint="Give its ARN with --certificate.")
    if options["certificate"] and not options["domain"] and (options["inside"] or not awsoptions.is_internal(options)):
        raise UsageError("--certificate needs --domain", hint="Give the name that the certificate is for.")


def _settings(shipment: Shipment, kind: str, options: Options) -> dict[str, dict[str, Any]]:
    environ = {"KETCH_DEPLOYMENT": shipment.name}
    if kind in {"python", "pipenv"}:
        environ |= {"KETCH_HOME": "/tmp/.ketch", "PORT": awsbundle.PYTHON_PORT}  # noqa: S108 (an instance's own)
    held: dict[str, Any] = {"KETCH_API_KEYS": Got("secret", ("ARN",))}
    held |= {"KETCH_LOG": options["log_secret"]} if options["log_secret"] else {}
    profile = options["instance_profile"] or awsaccount.instance_role(shipment.name, "").name
    role = options["service_role"] or awsaccount.service_role(shipment.name).name
    return {
        **awsoptions.settings(options, profile, role, environ, held),
        **awsoptions.network(options),
        **awsoptions.encrypted(options["certificate"]),
    }


# ---- the plan ----------------------------------------------------------------------------------------


def plan(shipment: Shipment, options: Options) -> Plan:
    """Plan a deployment: a new environment that takes over the address once it has proved itself.

    Raises:
        UsageError: an option cannot be as it is.
    """
    wanted = settle(shipment, options)
    steps = [amazon.account(), *amazon.secret(wanted.name, shipment.key)]
    if wanted.kind == "image":
        steps += amazon.pushed(wanted.name, wanted.tag, shipment, base=options["base_archive"], **wanted.recipe)
    steps += [
        *awsaccount.roles(wanted.name, wanted.kind, options),
        *awsaccount.networks(options),
        awsaccount.platform(wanted.kind, _python(shipment)),
        *_version(shipment, wanted),
    ]
    steps += [_validated(wanted), stages.quiet(wanted.name, wanted.content, wanted.label), _environment(wanted)]
    steps += _proved(shipment, wanted)
    return Plan("beanstalk", wanted.name, tuple(steps), _files(wanted), _uses(wanted), _notes(wanted))


def _python(shipment: Shipment) -> str:
    return ".".join(shipment.opened.manifest.versions["python"].split(".")[:2])


def _version(shipment: Shipment, wanted: Wanted) -> Iterable[Step]:
    """Make the application, store the source bundle, and make the version of it."""
    named = {"ApplicationName": wanted.name}
    app = eb("describe_applications", ApplicationNames=[wanted.name])
    made = eb("create_application", **named, Description="Made by Ketch", Tags=amazon.tags(wanted.name))
    yield Step(
        "application",
        f"Application {wanted.name}",
        look=app,
        act=lambda found, got: Done(found) if found["Applications"] else made,
        until=lambda found, got: found["Applications"][0] if found["Applications"] else None,
        present=("InvalidParameterValue",),
    )
    yield Step("bucket", "The bucket of Elastic Beanstalk", eb("create_storage_location"))
    bucket = Got("bucket", ("S3Bucket",))
    yield Step(
        "bundle",
        f"Source bundle {wanted.key}",
        awsbundle.Stored(bucket, wanted.key, _image(wanted), lambda image, hands: _bundle(shipment, wanted, image)),
        Aws("s3", "head_object", {"Bucket": bucket, "Key": wanted.key}),
        absent=("404", "NoSuchKey"),
    )
    yield _labelled(wanted, bucket)


def _image(wanted: Wanted) -> str | Text:
    return amazon.image(wanted.tag) if wanted.kind == "image" else ""


def _bundle(shipment: Shipment, wanted: Wanted, image: str) -> Mapping[str, bytes]:
    redirect = {awsbundle.REDIRECT: awsbundle.redirect()} if wanted.options["certificate"] else {}
    if wanted.kind == "image":
        return {"Dockerrun.aws.json": awsbundle.dockerrun(image), **redirect}
    kind = "docker" if wanted.kind == "source" else wanted.kind
    return {**awsbundle.source(shipment, kind, wanted.recipe), **redirect}


def _labelled(wanted: Wanted, bucket: Got) -> Step:
    named = {"ApplicationName": wanted.name, "VersionLabel": wanted.label}
    told = {
        "SourceBundle": {"S3Bucket": bucket, "S3Key": wanted.key},
        "Process": True,
        "Tags": amazon.tags(wanted.name),
    }
    made = eb("create_application_version", **named, **told)
    gone = eb("delete_application_version", **named, DeleteSourceBundle=False)

    def version(found: Any) -> Any:
        return next(iter(found["ApplicationVersions"]), None)

    def act(found: Any, got: Answers) -> Call | Done:
        at = version(found)
        if at is None:
            return made
        return Both({"delete": gone, "create": made}) if at["Status"].upper() == "FAILED" else Done(at)

    def until(found: Any, got: Answers) -> Any:
        at = version(found)
        if at is not None and at["Status"].upper() == "FAILED":
            raise DeployError(
                f"Elastic Beanstalk cannot process {wanted.key}",
                hint="It says why among the events: ketch deploy beanstalk NAME --status.",
            )
        return at if at is not None and at["Status"].upper() == "PROCESSED" else None

    asked = eb("describe_application_versions", ApplicationName=wanted.name, VersionLabels=[wanted.label])
    present = ("InvalidParameterValue",)
    return Step("version", f"Version {wanted.label}", look=asked, act=act, until=until, present=present)


def _validated(wanted: Wanted) -> Step:
    """Let Elastic Beanstalk check the settings; a profile that was made just now is waited for."""

    def until(found: Any, got: Answers) -> Any:
        errors = [each for each in (found or {}).get("Messages", ()) if each.get("Severity") == "error"]
        others = [each for each in errors if each.get("OptionName") != "IamInstanceProfile"]
        if others:
            told = "; ".join(f"{each.get('OptionName', '')}: {each['Message']}" for each in others)
            raise DeployError(f"Elastic Beanstalk does not take the settings. {told}", hint="Change the option.")
        return None if errors else {"warnings": len((found or {}).get("Messages", ()))}

    look = eb("validate_configuration_settings", ApplicationName=wanted.name, OptionSettings=wanted.settings)
    absent = ("InvalidParameterValue", "InvalidParameterCombination", "MissingParameter")
    return Step("valid", "The settings are valid", look=look, until=until, absent=absent, patience=amazon.SETTLES)


# ---- the environment ---------------------------------------------------------------------------------


def _environment(wanted: Wanted) -> Step:
    """Make the new environment, or update the live one; what is there already, or on its way, stays."""

    def act(found: Any, got: Answers) -> Call | Done:
        at = stages.live(found, wanted.prefix(got))
        there = stages.wanted(found, wanted.content, wanted.label)
        if there is not None and not (wanted.options["in_place"] and at and there != at):
            return Done(there)
        if at is not None and wanted.options["in_place"]:
            return _updated(wanted, at)
        return _created(wanted, found, at, wanted.prefix(got))

    prefix = wanted.prefix
    amends: tuple[Step, ...] = (stages.ended(wanted.name, prefix, wanted.content),)
    if wanted.options["in_place"]:
        amends = (*stages.restored(wanted.name, prefix, wanted.content), *amends)
    return Step(
        "environment",
        f"Environment {wanted.environment}" if not wanted.options["in_place"] else "The live environment",
        look=stages.environments(wanted.name),
        act=act,
        again=(NOT_READY, NOT_KNOWN),
        asks=stages.LAUNCHES,
        amends=amends,
    )


def _created(wanted: Wanted, found: Any, at: Any, prefix: str) -> Call:
    every = found["Environments"]
    cname = prefix if at is None else f"{prefix}-{wanted.content}"
    if at is not None:
        cname = stages.free([str(each.get("CNAME", "")).partition(".")[0] for each in every], cname)
    return eb(
        "create_environment",
        ApplicationName=wanted.name,
        EnvironmentName=stages.free([each["EnvironmentName"] for each in every], wanted.environment),
        CNAMEPrefix=cname,
        SolutionStackName=Got("platform"),
        VersionLabel=wanted.label,
        Tier={"Name": "WebServer", "Type": "Standard", "Version": "1.0"},
        OptionSettings=wanted.settings,
        Description=stages.describe(wanted.content, before=at["VersionLabel"] if at else ""),
        Tags=amazon.tags(wanted.name),
    )


def _updated(wanted: Wanted, at: Any) -> Call:
    return eb(
        "update_environment",
        EnvironmentId=at["EnvironmentId"],
        VersionLabel=wanted.label,
        OptionSettings=wanted.settings,
        Description=stages.describe(wanted.content, before=at["VersionLabel"], earlier=stages.told_of(at, "before")),
    )


def _proved(shipment: Shipment, wanted: Wanted) -> list[Step]:
    """Wait for the environment, ask it, let it take over, ask again, and end what was live before."""
    environment, prefix = Got("environment", ("EnvironmentId",)), wanted.prefix
    found = [stages.launched("launched", "It is ready, green and runs the version", environment, wanted.label)]
    if wanted.reachable:
        found.append(
            _asked(shipment, wanted, "launched", "proof", "Ask the new environment for its golden predictions")
        )
    found += stages.swap(wanted.name, prefix, wanted.content, wanted.label)
    if wanted.reachable:
        found.append(_asked(shipment, wanted, "swapped", "live", "Ask the live address for its golden predictions"))
    found += stages.retired(wanted.name, prefix, float(wanted.options["drain"]), wanted.options["keep_old"])
    found.append(_last(shipment, wanted))
    return found


def _asked(shipment: Shipment, wanted: Wanted, step: str, name: str, title: str) -> Step:
    """Ask an environment; by HTTPS under its domain, which may not point there yet."""
    made = replace(deploy.smoke(shipment, wanted.url(step), Got("key")), name=name, title=title)
    if not wanted.options["certificate"]:
        return made
    url = f"https://{wanted.options['domain']}"
    return replace(made, call=deploy.Smoke(url, Got("key"), shipment.opened, at=Got(step, ("CNAME",))))


def _last(shipment: Shipment, wanted: Wanted) -> Step:
    if wanted.reachable:
        return _asked(shipment, wanted, "swapped", "smoke", "Ask the live service for its golden predictions")
    environment = Got("swapped", ("EnvironmentId",))
    step = stages.launched("smoke", "The live environment is green", environment, wanted.label)
    return replace(step, amends=(), until=lambda found, got: _green(stages.settled(found, wanted.label), wanted))


def _green(found: Any, wanted: Wanted) -> str | None:
    scheme = "https" if wanted.options["certificate"] else "http"
    return None if found is None else f"{scheme}://{wanted.options['domain'] or found['CNAME']}"


# ---- what goes along ---------------------------------------------------------------------------------


def _files(wanted: Wanted) -> dict[str, bytes]:
    python = wanted.kind in {"python", "pipenv"}
    platform = f"{'Python' if python else 'Docker'} running on 64bit Amazon Linux 2023"
    found = awsbundle.eb_files(wanted.name, wanted.environment, platform, wanted.settings)
    if wanted.kind == "image":
        found["Dockerrun.aws.json"] = awsbundle.dockerrun(str(_image(wanted)))
    if wanted.options["certificate"]:
        found[awsbundle.REDIRECT] = awsbundle.redirect()
    return found


def _uses(wanted: Wanted) -> dict[str, float]:
    count, options = float(wanted.options["min"]), wanted.options
    addresses = (0 if options["private_instances"] else count) + (0 if awsoptions.is_internal(options) else 2)
    return {
        f"aws.ec2.{options['instance_type']}": HOURS * count,
        "aws.alb": HOURS,
        "aws.ebs.gib": options["disk"] * count,
        "aws.ipv4": HOURS * addresses,
        "aws.secret": 1.0,
        "aws.s3.gib": 0.1,
        "aws.logs.gib": 1.0,
        **({"aws.ecr.gib": 0.2} if wanted.kind == "image" else {}),
    }


def _notes(wanted: Wanted) -> tuple[str, ...]:
    options, found = wanted.options, []
    if awsoptions.is_internal(options):
        found.append(
            "the load balancer is internal: only the network reaches it. --certificate ARN --domain NAME opens it "
            "by HTTPS, --insecure-http without encryption"
        )
        if not options["inside"]:
            found.append(
                "this machine cannot ask it; its own health check, which replays golden predictions, stands for that"
            )
    elif options["insecure_http"]:
        found.append("keys and rows go over the network as anybody can read them: --insecure-http")
    if options["certificate"]:
        found.append(f"point {options['domain'] or 'the domain'} to the live address by a CNAME record")
    if options["keep_old"]:
        found.append("the environment that was live before stays, and costs as much again")
    if wanted.kind == "source":
        found.append("every instance builds the image itself, and needs the base image from its registry")
    return tuple(found)


TARGET: Final = Target(
    "beanstalk",
    "AWS Elastic Beanstalk: instances behind a load balancer, blue and green.",
    "image",
    plan,
    OPTIONS,
    status=awsaccount.status,
    logs=awsaccount.logs,
    rollback=awsends.rollback,
    destroy=awsends.destroy,
    doctor=awsaccount.doctor,
)
