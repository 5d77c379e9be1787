"""Environments of Elastic Beanstalk: told apart, waited for, swapped, explained when they fail, and ended.

One of them is live: it holds the address. What was deployed to each, and what was live before, stands in its
description, so that nothing has to be remembered here.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ketch import extras
from ketch.deploy.amazon import WHO
from ketch.deploy.images import fingerprint
from ketch.errors import CloudRefused, DeployError
from ketch.steps import Answers, Both, Call, Done, Got, Hands, Step, resolved
from ketch.steps.aws import Aws

EB: Final = "elasticbeanstalk"
MARK: Final = "Ketch "
PARTS: Final = {"before": "before it", "earlier": "earlier", "instead": "instead of"}  # of a description
DESCRIBED: Final = 200  # letters that a description may have
NOT_READY: Final = "NotReady"
NOT_KNOWN: Final = "NotKnownYet"
REASONS: Final = {"Must be Ready": NOT_READY, "instance profile": NOT_KNOWN, "is in an invalid state": NOT_READY}
BUSY: Final = ("Launching", "Updating", "Terminating", "Aborting", "LinkingFrom", "LinkingTo")
BEGINS: Final = ("createEnvironment is starting", "Environment update is starting")
NO_HEALTH: Final = ("InvalidRequestException", "ElasticBeanstalkServiceException", "InvalidParameterValue")
LAUNCHES: Final = 2400.0  # seconds that a new environment may take
HELD: Final = 60  # last lines of a log that are told
LOOKED: Final = 100  # last events


def eb(operation: str, **params: Any) -> Aws:
    """Ask Elastic Beanstalk; what is not ready yet is told from what will never be."""
    return Aws(EB, operation, params, reasons=REASONS)


def environments(application: str) -> Aws:
    """Ask for the environments of an application."""
    return eb("describe_environments", ApplicationName=application, IncludeDeleted=False)


# ---- telling them apart ------------------------------------------------------------------------------


def ours(found: Any) -> list[Any]:
    """Give the environments that Ketch made, those that are ending too."""
    every = (found or {}).get("Environments", ())
    return [
        each for each in every if str(each.get("Description", "")).startswith(MARK) and each["Status"] != "Terminated"
    ]


def standing(found: Any) -> list[Any]:
    """Give those of ours that are not ending."""
    return [each for each in ours(found) if each["Status"] != "Terminating"]


def told_of(environment: Any, part: str) -> str:
    """Read from the description of an environment: its `content`, what was live `before`, what it is `instead` of."""
    first, *others = str(environment.get("Description", "")).removeprefix(MARK).split("; ")
    told = dict(each.partition(": ")[::2] for each in others)
    return first if part == "content" else told.get(PARTS[part], "")


def describe(content: str, **parts: str) -> str:
    """Write the description of an environment; what does not fit in is left out, the least needed first."""
    told = [f"; {PARTS[part]}: {value}" for part, value in parts.items() if value]
    while len(MARK + content + "".join(told)) > DESCRIBED:
        told.pop()
    return MARK + content + "".join(told)


def prefix_of(got: Answers, name: str, wanted: str) -> str:
    """Give the first part of the live address: nobody else in the world may have it, so it depends on the account."""
    return wanted or f"{name}-{fingerprint(resolved(Got('account', ('Account',)), got), name)}"


def holds(environment: Any, prefix: str) -> bool:
    """Say whether an environment has an address that begins so."""
    return str(environment.get("CNAME", "")).lower().startswith(prefix.lower() + ".")


def live(found: Any, prefix: str) -> Any:
    """Give the environment that is live, None where there is none."""
    return next((each for each in standing(found) if holds(each, prefix)), None)


def wanted(found: Any, content: str, label: str) -> Any:
    """Give the environment that has a content, or is getting it."""
    for each in standing(found):
        if told_of(each, "content") == content and each.get("VersionLabel") == label:
            return each
    return None


def previous(found: Any, current: Any) -> Any:
    """Give the environment that was live before another, where it still stands."""
    before = told_of(current, "before") if current else ""
    kept = [each for each in standing(found) if each["EnvironmentId"] != current["EnvironmentId"]] if current else []
    return next((each for each in kept if before and each.get("VersionLabel") == before), None)


def free(taken: Sequence[str], name: str) -> str:
    """Give the name, or a number behind it when it is taken."""
    low = {each.lower() for each in taken}
    return next(each for each in (name, *(f"{name}-{n}" for n in range(2, 100))) if each.lower() not in low)


# ---- waiting -----------------------------------------------------------------------------------------


def watched(environment: Got | str) -> Both:
    """Ask how an environment is: itself, its last events, and its health."""
    return Both(
        {
            "environments": eb("describe_environments", EnvironmentIds=[environment], IncludeDeleted=True),
            "events": eb("describe_events", EnvironmentId=environment, PaginationConfig={"MaxItems": LOOKED}),
            "health": eb("describe_environment_health", EnvironmentId=environment, AttributeNames=["All"]),
        },
        absent=NO_HEALTH,
    )


def events(found: Any) -> list[Any]:
    """Give the events of what is going on now, the oldest first."""
    listed = sorted((found.get("events") or {}).get("Events", ()), key=lambda each: each["EventDate"])
    starts = [at for at, each in enumerate(listed) if str(each["Message"]).startswith(BEGINS)]
    return listed[starts[-1] :] if starts else listed


def news(found: Any) -> Iterator[str]:
    """Tell the events."""
    for each in events(found):
        severity = "" if each["Severity"] in {"INFO", "DEBUG", "TRACE"} else f"{each['Severity']} "
        yield f"{each['EventDate']:%H:%M:%S} {severity}{each['Message']}"


def settled(found: Any, label: str) -> Any:
    """Give an environment that is ready, green and runs a version; None while it may become so.

    Raises:
        DeployError: it will not: it ends, went back to another version, or is red after an error.
    """
    listed = (found.get("environments") or {}).get("Environments", ())
    if not listed:
        return None
    found_one = listed[0]
    if found_one["Status"] in {"Terminating", "Terminated"}:
        raise failed(found, "ended")
    if found_one["Status"] != "Ready":
        return None
    if label and found_one.get("VersionLabel") != label:
        raise failed(found, f"went back to {found_one.get('VersionLabel')}")
    if found_one["Health"] == "Green":
        return found_one
    if found_one["Health"] == "Red" and any(each["Severity"] in {"ERROR", "FATAL"} for each in events(found)):
        raise failed(found, "is not healthy")
    return None


def failed(found: Any, how: str) -> DeployError:
    """Say why an environment did not become what it should: its errors, and what its health is caused by."""
    name = found["environments"]["Environments"][0]["EnvironmentName"]
    errors = [str(each["Message"]) for each in events(found) if each["Severity"] in {"ERROR", "FATAL"}]
    causes = [str(each) for each in (found.get("health") or {}).get("Causes", ())]
    told = " ".join(dict.fromkeys([*causes, *errors[-5:]])) or "Elastic Beanstalk does not say why."
    return DeployError(f"Environment {name} {how}. {told}", hint="Its last log lines stand above.")


def quiet(application: str, content: str, label: str) -> Step:
    """Wait until none of ours is changing: while one is, Elastic Beanstalk refuses whatever is asked of it."""

    def busy(found: Any) -> list[Any]:
        return [
            each
            for each in ours(found)
            if each["Status"] in BUSY
            and (
                each["Status"] == "Terminating" or told_of(each, "content") != content or each["VersionLabel"] != label
            )
        ]

    return Step(
        "quiet",
        "No environment is changing",
        look=environments(application),
        until=lambda found, got: None if busy(found) else {"environments": len(ours(found))},
        news=lambda found: [f"{each['EnvironmentName']} is {each['Status'].lower()}" for each in busy(found)],
        patience=LAUNCHES,
    )


def launched(step: str, title: str, environment: Got, label: str, amends: tuple[Step, ...] = ()) -> Step:
    """Wait until an environment is ready, green and has the version, telling its events; gives the environment."""
    return Step(
        step,
        title,
        look=watched(environment),
        until=lambda found, got: settled(found, label),
        news=news,
        amends=(explained(environment), *amends),
        patience=LAUNCHES,
    )


# ---- why ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Why:
    """Ask why an environment is as it is: the health of its instances, and the last lines of its logs."""

    environment: str | Got
    lines: int = HELD

    def sent(self) -> Mapping[str, object]:
        """Say what is asked."""
        return {"aws": f"{EB}.retrieve_environment_info", "params": {"EnvironmentId": str(self.environment)}}

    def done(self, hands: Hands) -> Any:
        """Ask, and give lines; what cannot be had is left out, because something has failed already."""
        found = [*self._caused(hands)]
        for instance, text in logs(str(self.environment), hands):
            found += [f"{instance}: {line}" for line in text.splitlines()[-self.lines :] if line.strip()]
        return found

    def _caused(self, hands: Hands) -> Iterator[str]:
        try:
            told = eb("describe_instances_health", EnvironmentId=self.environment, AttributeNames=["All"]).done(hands)
        except CloudRefused:
            return
        for each in told.get("InstanceHealthList", ()):
            for cause in each.get("Causes", ()):
                yield f"{each['InstanceId']} {each.get('HealthStatus', '')}: {cause}"


def logs(environment: str, hands: Hands) -> Iterator[tuple[str, str]]:
    """Ask an environment for the ends of its logs, and give them by instance; none where it cannot tell."""
    asked = {"EnvironmentId": environment, "InfoType": "tail"}
    try:
        eb("request_environment_info", **asked).done(hands)
        for _ in range(24):
            found = eb("retrieve_environment_info", **asked).done(hands).get("EnvironmentInfo", ())
            if found:
                break
            hands.sleep(5.0)
    except CloudRefused:
        return
    newest: dict[str, Any] = {}
    for each in found:
        newest[each["Ec2InstanceId"]] = max(
            each, newest.get(each["Ec2InstanceId"], each), key=lambda one: one["SampleTimestamp"]
        )
    for instance, each in sorted(newest.items()):
        yield instance, _fetched(str(each["Message"]))


def _fetched(address: str) -> str:
    """Fetch a log from where Elastic Beanstalk put it: the address is signed, and needs no key."""
    requests: Any = extras.load("requests")
    try:
        answer = requests.get(address, timeout=30.0)
    except requests.RequestException as error:
        return f"The log cannot be fetched: {error}"
    return str(answer.text) if answer.status_code == 200 else f"The log cannot be fetched: {answer.status_code}"


def explained(environment: Got) -> Step:
    """Tell why an environment failed, before it is ended."""
    return Step(
        "why",
        "Why it failed",
        look=Why(environment),
        until=lambda found, got: {"lines": len(found)},
        news=lambda found: found,
    )


# ---- changing them -----------------------------------------------------------------------------------


def swap(application: str, prefix: Callable[[Answers], str], content: str, label: str) -> tuple[Step, Step]:
    """Give the live address to the environment with a content; `swap` gives something only where that was done now."""

    def act(found: Any, got: Answers) -> Call | Done:
        at, new = live(found, prefix(got)), wanted(found, content, label)
        if new is None or at is None or at["EnvironmentId"] == new["EnvironmentId"]:
            return Done()
        return swapped(at, new)

    def until(found: Any, got: Answers) -> Any:
        at = live(found, prefix(got))
        done = at is not None and at["Status"] == "Ready" and told_of(at, "content") == content
        return at if done else None

    look = environments(application)
    title = "Swap the addresses: the new environment is live"
    amends = (_swapped_back(application, prefix, content, label),)
    return (
        Step("swap", title, look=look, act=act, again=(NOT_READY,), asks=LAUNCHES, amends=amends),
        Step("swapped", "The new environment has the address", look=look, until=until, patience=LAUNCHES),
    )


def swapped(one: Any, other: Any) -> Aws:
    """Swap the addresses of two environments."""
    return eb(
        "swap_environment_cnames",
        SourceEnvironmentId=one["EnvironmentId"],
        DestinationEnvironmentId=other["EnvironmentId"],
    )


def _swapped_back(application: str, prefix: Callable[[Answers], str], content: str, label: str) -> Step:
    def act(found: Any, got: Answers) -> Call | Done:
        at = live(found, prefix(got))
        before = previous(found, at)
        if not got.get("swap") or at is None or before is None or told_of(at, "content") != content:
            return Done()
        return swapped(at, before)

    title = "Swap the addresses back: what was live before is live again"
    return Step("back", title, look=environments(application), act=act, again=(NOT_READY,), asks=LAUNCHES)


def ended(application: str, prefix: Callable[[Answers], str], content: str) -> Step:
    """End the environment that failed, but never one that is live, unless it was born live in this very run."""

    def act(found: Any, got: Answers) -> Call | Done:
        at, made = live(found, prefix(got)), got.get("environment") or {}
        born = made.get("Status") == "Launching" and holds(made, prefix(got))
        failed_ones = [
            each
            for each in standing(found)
            if told_of(each, "content") == content
            and (born or at is None or each["EnvironmentId"] != at["EnvironmentId"])
        ]
        return terminated(failed_ones) if failed_ones else Done()

    title = "End the environment that failed"
    return Step("ended", title, look=environments(application), act=act, again=(NOT_READY,), asks=LAUNCHES)


def terminated(listed: Sequence[Any]) -> Call:
    """End environments."""
    calls = {e["EnvironmentName"]: eb("terminate_environment", EnvironmentId=e["EnvironmentId"]) for e in listed}
    return Both(calls, absent=("InvalidParameterValue",))  # it may have gone meanwhile


def restored(application: str, prefix: Callable[[Answers], str], content: str) -> tuple[Step, ...]:
    """Bring the live environment back to the version before, when an update of it failed."""

    def abort(found: Any, got: Answers) -> Call | Done:
        at = live(found, prefix(got))
        if at is None or not at.get("AbortableOperationInProgress"):
            return Done()
        return eb("abort_environment_update", EnvironmentId=at["EnvironmentId"])

    def back(found: Any, got: Answers) -> Call | Done:
        at = live(found, prefix(got))
        before = told_of(at, "before") if at else ""
        if not before or told_of(at, "content") != content:
            return Done()
        told = {"Description": describe("0", before=told_of(at, "earlier"))}
        told |= {} if at.get("VersionLabel") == before else {"VersionLabel": before}  # it may have gone back by itself
        return eb("update_environment", EnvironmentId=at["EnvironmentId"], **told)

    def ready(found: Any, got: Answers) -> Any:
        at = live(found, prefix(got)) or {"Status": "Ready"}  # where there is none, there is nothing to wait for
        return at if at["Status"] == "Ready" else None

    look = environments(application)
    waited: dict[str, Any] = {"look": look, "until": ready, "patience": LAUNCHES}
    return (
        Step("abort", "Stop the update", look=look, act=abort, present=(NOT_READY, "InvalidParameterValue")),
        Step("stopped", "It has stopped", **waited),
        Step("restore", "Bring back the version before", look=look, act=back, again=(NOT_READY,), asks=LAUNCHES),
        Step("restored", "The version before is live again", **waited),
    )


# ---- old ones ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Drain:
    """Wait until nobody asks the old address any more."""

    seconds: float

    def sent(self) -> Mapping[str, object]:
        """Say what is done."""
        return {"wait": f"{self.seconds:,.0f} seconds"}

    def done(self, hands: Hands) -> Any:
        """Wait."""
        hands.sleep(self.seconds)
        return {"seconds": self.seconds}


def retired(application: str, prefix: Callable[[Answers], str], seconds: float, keep: bool) -> tuple[Step, Step]:
    """End what was live before, after its callers had time to find the new one; with `keep` the last one stays."""

    def old(found: Any, got: Answers) -> list[Any]:
        at = live(found, prefix(got))
        kept = previous(found, at) if keep else None
        stay = {each["EnvironmentId"] for each in (at, kept) if each}
        return [each for each in standing(found) if at and each["EnvironmentId"] not in stay]

    look = environments(application)
    return (
        Step(
            "drain",
            "Callers find the new environment" if not keep else "Callers of older environments find the new one",
            look=look,
            act=lambda found, got: Drain(seconds) if old(found, got) else Done(),
        ),
        Step(
            "retire",
            "End older environments",
            look=look,
            act=lambda found, got: terminated(old(found, got)) if old(found, got) else Done(),
            again=(NOT_READY,),
            asks=LAUNCHES,
        ),
    )


@dataclass(frozen=True)
class Listed:
    """Ask for the environments of an application, and which of them is live."""

    application: str
    cname: str

    def sent(self) -> Mapping[str, object]:
        """Say what is asked."""
        return environments(self.application).sent()

    def done(self, hands: Hands) -> Any:
        """Ask."""
        found = environments(self.application).done(hands)
        prefix = prefix_of({"account": WHO.done(hands)}, self.application, self.cname)
        return {"environments": standing(found), "live": live(found, prefix)}
