"""The ways back and away of Elastic Beanstalk: what was live before is live again; all that was made is removed."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ketch import deploy, extras
from ketch.deploy import Options, amazon, awsaccount, awsoptions
from ketch.deploy import awsenvironments as stages
from ketch.deploy.awsenvironments import NOT_READY, eb
from ketch.errors import CloudRefused, DeployError
from ketch.steps import Answers, Both, Call, Done, Got, Hands, Plan, Step, Text
from ketch.steps.aws import Aws


def rollback(name: str, options: Options) -> Plan:
    """Plan to let what was live before be live again: its environment where it still stands, else its version.

    It can be run again: what was gone back to says in its description what it is instead of.
    """

    def prefix(got: Answers) -> str:
        return stages.prefix_of(got, name, options["cname"])

    look = stages.environments(name)
    waits: dict[str, Any] = {"look": look, "again": (NOT_READY,), "asks": stages.LAUNCHES}

    def until(found: Any, got: Answers) -> Any:
        at = stages.live(found, prefix(got))
        done = at is not None and at["Status"] == "Ready" and stages.told_of(at, "instead")
        return at if done else None

    environment = Got("back", ("EnvironmentId",))
    steps = [
        amazon.account(),
        stages.quiet(name, "", ""),
        Step("marked", "What to go back to", act=lambda found, got: _marked(found, prefix(got)), **waits),
        stages.quiet(name, "", ""),
        Step("swap", "It is live again", act=lambda found, got: _returned(found, prefix(got)), **waits),
        Step("back", "It has the address", look=look, until=until, patience=stages.LAUNCHES),
        stages.launched("healthy", "It is ready and green", environment, ""),
    ]
    if not awsoptions.is_internal(options) and not options["certificate"]:
        url = Text(("http://", Got("healthy", ("CNAME",))))
        steps.append(Step("ready", "It answers", Answers200(url), again=(deploy.NOT_LIVE,), asks=deploy.LIVE_IN))
    steps = [replace(each, name=f"{each.name}-{at}") if each.name == "quiet" else each for at, each in enumerate(steps)]
    return Plan("beanstalk", name, tuple(steps))


def _marked(found: Any, prefix: str) -> Call | Done:
    """Say in the description of what is gone back to what it is instead of, or update the live environment.

    Raises:
        DeployError: there is nothing to go back to.
    """
    at = stages.live(found, prefix)
    if at is not None and stages.told_of(at, "instead"):
        return Done(at)
    before, kept = (stages.told_of(at, "before"), stages.previous(found, at)) if at else ("", None)
    if at is None or not before:
        raise DeployError(
            "There is nothing to go back to", hint="Deploy the model that should serve: that is a way back."
        )
    if kept is not None:
        content, earlier = stages.told_of(kept, "content"), stages.told_of(kept, "before")
        told = stages.describe(content, instead=at["VersionLabel"], before=earlier)
        return eb("update_environment", EnvironmentId=kept["EnvironmentId"], Description=told)
    told = stages.describe("0", instead=at["VersionLabel"])
    return eb("update_environment", EnvironmentId=at["EnvironmentId"], VersionLabel=before, Description=told)


def _returned(found: Any, prefix: str) -> Call | Done:
    at = stages.live(found, prefix)
    kept = stages.previous(found, at)
    if at is None or kept is None or stages.told_of(at, "instead"):
        return Done()
    return stages.swapped(at, kept)


@dataclass(frozen=True)
class Answers200:
    """Ask whether a service is ready, which needs no key."""

    url: str | Text

    def sent(self) -> Mapping[str, object]:
        """Say what is asked."""
        return {"http": f"GET {self.url}/health/ready"}

    def done(self, hands: Hands) -> Any:
        """Ask.

        Raises:
            CloudRefused: it is not.
        """
        requests: Any = extras.load("requests")
        try:
            status = requests.get(f"{self.url}/health/ready", timeout=10.0, allow_redirects=False).status_code
        except requests.RequestException as error:
            status = str(error)
        if status != 200:
            raise CloudRefused(f"{self.url} is not ready: {status}", reason=deploy.NOT_LIVE, hint="See --logs.")
        return str(self.url)


def destroy(name: str, options: Options) -> Plan:
    """Plan to remove a deployment and all that was made for it."""
    look = stages.environments(name)
    every = stages.ours

    def act(found: Any, got: Answers) -> Call | Done:
        left = stages.standing(found)
        return stages.terminated(left) if left else Done()

    steps = (
        amazon.account(),
        stages.quiet(name, "", ""),
        Step(
            "environments",
            "End the environments",
            look=look,
            act=act,
            until=lambda found, got: None if every(found) else {"left": 0},
            news=lambda found: [f"{each['EnvironmentName']} is {each['Status'].lower()}" for each in every(found)],
            again=(NOT_READY,),
            asks=stages.LAUNCHES,
            patience=stages.LAUNCHES,
        ),
        _versions_gone(name),
        _application_gone(name),
        Step("objects", f"Delete the source bundles {name}/…", Swept(Got("account"), f"{name}/")),
        amazon.delete_secret(name),
        amazon.delete_repository(name, name),
        amazon.delete_role("instance-role", awsaccount.instance_role(name, "").name, name),
        amazon.delete_role("service-role", awsaccount.service_role(name).name, name),
        _logs_gone(name),
    )
    return Plan("beanstalk", name, steps, notes=("what was made by other means is left as it is",))


def _versions_gone(name: str) -> Step:
    def act(found: Any, got: Answers) -> Call | Done:
        mine = [each for each in found["ApplicationVersions"] if each["SourceBundle"]["S3Key"].startswith(f"{name}/")]
        calls = {
            each["VersionLabel"]: eb(
                "delete_application_version",
                ApplicationName=name,
                VersionLabel=each["VersionLabel"],
                DeleteSourceBundle=True,
            )
            for each in mine
        }
        return Both(calls) if calls else Done()

    look = eb("describe_application_versions", ApplicationName=name)
    again = ("OperationInProgressFailure", NOT_READY)
    return Step("versions", "Delete the versions", look=look, act=act, absent=("InvalidParameterValue",), again=again)


def _application_gone(name: str) -> Step:
    look = Both(
        {"application": eb("describe_applications", ApplicationNames=[name]), "environments": stages.environments(name)}
    )

    def act(found: Any, got: Answers) -> Call | Done:
        listed = found["application"]["Applications"]
        others = [each for each in found["environments"]["Environments"] if each["Status"] != "Terminated"]
        if not listed or others:
            return Done()
        tagged = eb("list_tags_for_resource", ResourceArn=listed[0]["ApplicationArn"])
        return amazon.Owned(tagged, "ResourceTags", name, eb("delete_application", ApplicationName=name))

    return Step("application", f"Delete application {name}", look=look, act=act, again=("OperationInProgressFailure",))


def _logs_gone(name: str) -> Step:
    mine = re.compile(rf"/aws/elasticbeanstalk/{re.escape(name)}-[0-9a-f]{{8}}(-\d+)?/.*")
    return amazon.delete_log_groups(f"/aws/elasticbeanstalk/{name}-", lambda group: mine.fullmatch(group) is not None)


@dataclass(frozen=True)
class Swept:
    """Delete what stands under a prefix in the bucket of Elastic Beanstalk, where there is one."""

    account: Any
    prefix: str

    def sent(self) -> Mapping[str, object]:
        """Say what is asked."""
        return {"aws": "s3.delete_objects", "params": {"Prefix": self.prefix}}

    def done(self, hands: Hands) -> Any:
        """Look, and delete."""
        named = {"Bucket": f"elasticbeanstalk-{self.account['region']}-{self.account['Account']}"}
        try:
            found = Aws("s3", "list_objects_v2", {**named, "Prefix": self.prefix}).done(hands)
        except CloudRefused as error:
            if error.reason == "NoSuchBucket":
                return {"deleted": 0}
            raise
        keys = [{"Key": each["Key"]} for each in found.get("Contents", ())]
        for start in range(0, len(keys), 1000):
            part = {"Objects": keys[start : start + 1000], "Quiet": True}
            Aws("s3", "delete_objects", {**named, "Delete": part}).done(hands)
        return {"deleted": len(keys)}
