"""AWS Lambda: the image as a function with an address; nothing runs, and nothing is paid, while nobody asks.

Shipment --*plan*--> image --> version, invoked by its number: golden predictions --> alias moved --smoke--> live
"""

import functools
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ketch import deploy
from ketch.bundle import Bundle
from ketch.client import hold
from ketch.codec import JSON
from ketch.deploy import Option, Options, Shipment, Target, amazon, images
from ketch.errors import CloudRefused, DeployError, NotGiven, UsageError
from ketch.page import answered
from ketch.schema.checks import Checker
from ketch.steps import Answers, Both, Call, Done, Got, Hands, Plan, Question, Secret, Step, Text, resolved
from ketch.steps.aws import Aws
from ketch.trust.calling import CallingKey, digest_of, line_of

ALIAS: Final = "live"
LONGEST: Final = 48  # letters of a name: the role's stands behind it
WAITS: Final = 600.0  # seconds until an image is there where functions run
NONE: Final = "ResourceNotFoundException"
NOT_YET: Final = "role-not-known-yet"
BUSY: Final = ("ResourceConflictException", NOT_YET)
INSTEAD: Final = "instead of "  # what the alias says after it was taken back
STATEMENTS: Final[Mapping[str, Mapping[str, Any]]] = {  # both are needed since October 2025
    "ketch-url": {"Action": "lambda:InvokeFunctionUrl", "FunctionUrlAuthType": "NONE"},
    "ketch-function": {"Action": "lambda:InvokeFunction", "InvokedViaFunctionUrl": True},
}
OPTIONS: Final = (
    Option("memory", "MiB of a function; CPU comes with them, a whole core at 1769.", 1024),
    Option("timeout", "Seconds that an answer may take.", 30),
    Option("arm", "Run on ARM, which costs a fifth less.", False),
    Option("auth", "Who may call: holders of the key, or AWS identities, who sign.", "key", ("key", "iam")),
    Option("concurrency", "Most functions at a time, kept for this one alone; 0 is what the account has.", 0),
    Option("canary", "Percent of the requests that the new version gets; the next time without it, all.", 0),
    Option("requests", "Requests in a month, for the estimate.", 100_000),
    Option("to", "With --rollback: the version to go back to.  [the one before]"),
)


def plan(shipment: Shipment, options: Options) -> Plan:
    """Plan how a model becomes a function.

    Raises:
        UsageError: an option cannot be as it is.
    """
    name = deploy.require_name(shipment.name, LONGEST)
    _require_sense(options)
    recipe = {"mode": "lambda", "platform": "linux/arm64" if options["arm"] else "linux/amd64"}
    tag = images.image_tag(shipment, **recipe)
    uri = amazon.image(tag)
    content = images.fingerprint(tag, options["memory"], options["timeout"], options["auth"])
    url, key = Got("url", ("FunctionUrl",)), Got("key") if options["auth"] == "key" else ""
    ask = functools.partial(_invoked, opened=shipment.opened, name=name, key=key)
    steps: tuple[Step, ...] = (
        amazon.account(),
        *amazon.pushed(name, tag, shipment, **recipe),
        *(amazon.secret(name, shipment.key) if options["auth"] == "key" else ()),
        *amazon.role("role", _role(name)),
        *amazon.log_group(_group(name), name),
        _function(name, uri, options),
        _configured(name, options),
        _coded(name, uri, options),
        _version(name, f"{shipment.label} {content}"),
        ask("draft", "Ask the new version by its number", qualifier=Got("version", ("Version",))),
        Step("before", "See which version is live", look=_alias(name), act=_asis, absent=(NONE,)),
        _moved(name, options["canary"]),
        _url(name, options["auth"]),
        *(() if options["auth"] == "iam" else (_opened(name),)),
        *_limited(name, options["concurrency"]),
    )
    back = (_back(name),)
    if options["canary"]:  # the address gives answers of both versions
        title = "Ask the new version for its golden predictions"
        last = ask("smoke", title, qualifier=Got("version", ("Version",)), url=url, amends=back)
    elif options["auth"] == "iam":
        title = "Ask the live function for its golden predictions"
        last = ask("smoke", title, qualifier=ALIAS, url=url, amends=back)
    else:
        last = deploy.smoke(shipment, url, key, amends=back)
    return Plan("lambda", name, (*steps, last), uses=_uses(options), notes=_notes(options))


def _require_sense(options: Options) -> None:
    if not 128 <= options["memory"] <= 10_240:
        raise UsageError(f"Lambda has no functions of {options['memory']} MiB", hint="Give --memory from 128 to 10240.")
    if not 1 <= options["timeout"] <= 900:
        raise UsageError("A function may take from 1 to 900 seconds", hint="Give --timeout within that.")
    if not 0 <= options["canary"] < 100:
        raise UsageError("--canary is a percentage below 100", hint="Without it, all requests go to the new version.")
    if options["requests"] < 0:
        raise UsageError("--requests cannot be below 0", hint="Give how many there are in a month.")
    if options["concurrency"] < 0:
        raise UsageError("--concurrency cannot be below 0", hint="0 is what the account has.")


def _uses(options: Options) -> dict[str, float]:
    seconds = options["requests"] * 0.05  # an answer takes some milliseconds, and some of them a start
    return {
        "aws.lambda.million": options["requests"] / 1e6,
        "aws.lambda.arm.gib-second" if options["arm"] else "aws.lambda.gib-second": seconds * options["memory"] / 1024,
        "aws.ecr.gib": 0.2,
        "aws.logs.gib": 0.1,
        "aws.secret": 1.0,
    }


def _notes(options: Options) -> tuple[str, ...]:
    told = ["the first answer after a pause waits for a start; see the page of the documentation for how long"]
    told.append(f"the estimate is for {options['requests']:,} requests a month, of 50 ms each")
    if options["auth"] == "key":
        told.append("the function's settings hold the SHA-256 of its key, and no secret")
    return tuple(told)


def _group(name: str) -> str:
    return f"/aws/lambda/{name}"


def _role(name: str) -> amazon.Role:
    """Describe who the function is: it writes logs, and may do nothing else."""
    return amazon.Role(
        f"ketch-{name}-lambda", "lambda.amazonaws.com", name, ("service-role/AWSLambdaBasicExecutionRole",)
    )


# ---- the function ------------------------------------------------------------------------------------


def _lambda(operation: str, name: str, **params: Any) -> Aws:
    reasons = {"cannot be assumed": NOT_YET}
    return Aws("lambda", operation, {"FunctionName": name, **params}, reasons=reasons)


def environment(got: Answers, auth: str) -> dict[str, dict[str, str]]:
    """Give what the function finds in its environment: what its key is known by, which opens nothing.

    Raises:
        NotGiven: there is no key yet.
    """
    if auth == "iam":
        return {"Variables": {"KETCH_AUTH": "platform"}}
    key = got["key"]
    if key is None:
        raise NotGiven("The calling key is not known", hint="Run the same command again.")
    known = (
        line_of(CallingKey("deployment", digest_of(str.__str__(key))))
        if isinstance(key, Secret)
        else f"SHA-256 of {key}"
    )
    return {"Variables": {"KETCH_API_KEYS": known}}


def _settled(found: Any, got: Answers) -> Any:
    """Wait until the function is as it was told to be.

    Raises:
        DeployError: it will not be.
    """
    config = (found or {}).get("Configuration", found or {})
    failed = [each for each in ("State", "LastUpdateStatus") if config.get(each) == "Failed"]
    if failed:
        reason = config.get(f"{failed[0]}Reason") or config.get(f"{failed[0]}ReasonCode") or "no reason is given"
        raise DeployError(f"Lambda cannot run the image: {reason}", hint="See the page of the documentation on lambda.")
    waits = config.get("State", "Active") == "Pending" or config.get("LastUpdateStatus") == "InProgress"
    return None if waits or not config else found


def _function(name: str, uri: Text, options: Options) -> Step:
    def act(found: Any, got: Answers) -> Call | Done:
        if found is not None:
            return Done(found)
        told = {
            "PackageType": "Image",
            "Code": {"ImageUri": uri},
            "Role": Got("role", ("Role", "Arn")),
            "MemorySize": options["memory"],
            "Timeout": options["timeout"],
            "Architectures": _architectures(options),
            "Environment": environment(got, options["auth"]),
            "Tags": {amazon.OURS: name},
        }
        return _lambda("create_function", name, **told)

    return Step(
        "function",
        f"Function {name}",
        _lambda("create_function", name, PackageType="Image", Code={"ImageUri": uri}),
        look=_lambda("get_function", name),
        act=act,
        until=_settled,
        absent=(NONE,),
        present=("ResourceConflictException",),
        again=(NOT_YET,),
        asks=amazon.SETTLES,
        patience=WAITS,
    )


def _architectures(options: Options) -> list[str]:
    return ["arm64" if options["arm"] else "x86_64"]


def _configured(name: str, options: Options) -> Step:
    def act(found: Any, got: Answers) -> Call | Done:
        wanted = {
            "MemorySize": options["memory"],
            "Timeout": options["timeout"],
            "Environment": environment(got, options["auth"]),
        }
        own = {key: (found or {}).get(key) for key in wanted}
        own["Environment"] = {"Variables": ((found or {}).get("Environment") or {}).get("Variables")}
        return Done(found) if own == wanted else _lambda("update_function_configuration", name, **wanted)

    look = _lambda("get_function_configuration", name)
    title = "Memory, time and who may call"
    return Step("configured", title, look=look, act=act, until=_settled, again=BUSY, absent=(NONE,), patience=WAITS)


def _coded(name: str, uri: Text, options: Options) -> Step:
    def act(found: Any, got: Answers) -> Call | Done:
        wanted = resolved(uri, got)
        if found and found["Code"].get("ImageUri") == wanted:
            return Done(found)
        return _lambda("update_function_code", name, ImageUri=wanted, Architectures=_architectures(options))

    look = _lambda("get_function", name)
    return Step("code", "Its image", look=look, act=act, until=_settled, again=BUSY, absent=(NONE,), patience=WAITS)


def _version(name: str, told: str) -> Step:
    """Keep what was told to the function under a number, for good; the same has one number."""

    def mine(found: Any) -> Any:
        return next((each for each in (found or {}).get("Versions", ()) if each.get("Description") == told), None)

    def act(found: Any, got: Answers) -> Call | Done:
        return Done(mine(found)) if mine(found) else _lambda("publish_version", name, Description=told)

    def until(found: Any, got: Answers) -> Any:
        return _settled(mine(found), got)

    return Step(
        "version",
        f"Version {told}",
        look=_lambda("list_versions_by_function", name),
        act=act,
        until=until,
        again=BUSY,
        absent=(NONE,),
        patience=WAITS,
    )


# ---- what is live ------------------------------------------------------------------------------------


def _alias(name: str) -> Aws:
    return _lambda("get_alias", name, Name=ALIAS)


def _asis(found: Any, got: Answers) -> Done:
    return Done(found or {})


def _moved(name: str, canary: int) -> Step:
    """Point the alias to the new version, or some of the requests."""

    def act(found: Any, got: Answers) -> Call | Done:
        version = got["version"]["Version"]
        if found is None:
            return _lambda("create_alias", name, Name=ALIAS, FunctionVersion=version, Description="")
        if canary and found["FunctionVersion"] != version:
            weights = {"AdditionalVersionWeights": {version: canary / 100}}
            told = {"FunctionVersion": found["FunctionVersion"], "RoutingConfig": weights}
            same = found.get("RoutingConfig") == weights
        else:
            told = {"FunctionVersion": version, "RoutingConfig": {"AdditionalVersionWeights": {}}}
            same = found["FunctionVersion"] == version and not _weights(found)
        if same and not found.get("Description"):
            return Done(found)
        return _lambda("update_alias", name, Name=ALIAS, Description="", **told)

    title = f"Let it answer {canary} of a hundred requests" if canary else "Let it answer all requests"
    return Step("alias", title, look=_alias(name), act=act, absent=(NONE,), present=("ResourceConflictException",))


def _weights(alias: Mapping[str, Any]) -> Mapping[str, float]:
    return (alias.get("RoutingConfig") or {}).get("AdditionalVersionWeights") or {}


def _url(name: str, auth: str) -> Step:
    kind = "AWS_IAM" if auth == "iam" else "NONE"
    told = {"Qualifier": ALIAS, "AuthType": kind}

    def act(found: Any, got: Answers) -> Call | Done:
        if found is None:
            return _lambda("create_function_url_config", name, **told)
        return Done(found) if found["AuthType"] == kind else _lambda("update_function_url_config", name, **told)

    return Step(
        "url",
        "Its address",
        _lambda("create_function_url_config", name, **told),
        look=_lambda("get_function_url_config", name, Qualifier=ALIAS),
        act=act,
        until=lambda found, got: found,
        absent=(NONE,),
        present=("ResourceConflictException",),
        every=1.0,
    )


def _opened(name: str) -> Step:
    """Let everybody reach the address, where the service itself asks for its key."""

    def act(found: Any, got: Answers) -> Call | Done:
        there = {each["Sid"] for each in json.loads(found["Policy"])["Statement"]} if found else set()
        calls = {
            sid: _lambda("add_permission", name, StatementId=sid, Principal="*", Qualifier=ALIAS, **told)
            for sid, told in STATEMENTS.items()
            if sid not in there
        }
        return Both(calls, absent=("ResourceConflictException",)) if calls else Done()

    look = _lambda("get_policy", name, Qualifier=ALIAS)
    return Step("opened", "Everybody reaches it; it asks for its key", look=look, act=act, absent=(NONE,))


def _limited(name: str, most: int) -> Iterable[Step]:
    if not most:
        return
    put = _lambda("put_function_concurrency", name, ReservedConcurrentExecutions=most)

    def act(found: Any, got: Answers) -> Call | Done:
        return Done() if (found or {}).get("ReservedConcurrentExecutions") == most else put

    look = _lambda("get_function_concurrency", name)
    yield Step("limited", f"At most {most} at a time", put, look=look, act=act)


def _back(name: str) -> Step:
    """Let the version answer again that did before this plan."""

    def act(found: Any, got: Answers) -> Call | Done:
        old = (got.get("before") or {}).get("FunctionVersion")
        if not found or not old or (found["FunctionVersion"] == old and not _weights(found)):
            return Done()
        routing: dict[str, Any] = {"AdditionalVersionWeights": {}}
        return _lambda("update_alias", name, Name=ALIAS, FunctionVersion=old, RoutingConfig=routing)

    return Step("restored", "Let the version before answer again", look=_alias(name), act=act, absent=(NONE,))


# ---- is it right -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Invoked:
    """Ask a version or an alias of a function for golden predictions by invoking it, which AWS identities may."""

    name: str
    qualifier: str | Got
    opened: Bundle = field(repr=False)
    key: Any = ""
    url: Any = ""

    def sent(self) -> Mapping[str, object]:
        """Say what is asked."""
        replayed = f"golden predictions of {self.opened.manifest.name}"
        return {"aws": "lambda.invoke", "params": {"Qualifier": str(self.qualifier)}, "replay": replayed}

    def done(self, hands: Hands) -> Any:
        """Ask, and give the address, or the version where there is none.

        Raises:
            CloudRefused: the function fails. AnswersDiffer: it answers otherwise.
        """
        wanted = answered(self.opened, Checker(self.opened.contract.fields))
        event = json.dumps(event_of([each.row for each in wanted], str.__str__(self.key))).encode()
        asked = _lambda("invoke", self.name, Qualifier=str(self.qualifier), Payload=event)
        answer = asked.done(hands)
        told = answer["Payload"].read()
        found = json.loads(told or b"null")
        if answer.get("FunctionError") or not isinstance(found, dict) or found.get("statusCode") != 200:
            raise CloudRefused(
                f"The function does not answer: {told[:600].decode('utf-8', 'replace')}",
                reason="function-fails",
                hint=f"ketch deploy lambda {self.name} --logs shows what it said.",
            )
        hold(json.loads(found["body"]), wanted, self.opened, who=f"{self.name}:{self.qualifier}")
        return str(self.url or self.qualifier)


def event_of(rows: list[Any], key: str) -> dict[str, Any]:
    """Write what the address of a function would send."""
    headers = {"host": "function", "content-type": JSON} | ({"authorization": f"Bearer {key}"} if key else {})
    return {
        "version": "2.0",
        "rawPath": "/predict",
        "rawQueryString": "",
        "headers": headers,
        "requestContext": {"http": {"method": "POST", "path": "/predict"}, "stage": "$default"},
        "body": json.dumps(rows),
        "isBase64Encoded": False,
    }


def _invoked(
    step: str,
    title: str,
    *,
    opened: Bundle,
    name: str,
    qualifier: str | Got,
    key: Any,
    url: Any = "",
    amends: tuple[Step, ...] = (),
) -> Step:
    return Step(step, title, Invoked(name, qualifier, opened, key, url), again=("NotReady", *BUSY), amends=amends)


# ---- afterwards --------------------------------------------------------------------------------------


def rollback(name: str, options: Options) -> Plan:
    """Plan to let an earlier version answer again; run again, it does nothing more."""
    look = Both({"alias": _alias(name), "versions": _lambda("list_versions_by_function", name)}, absent=(NONE,))

    def act(found: Any, got: Answers) -> Call | Done:
        alias = found["alias"]
        if alias is None:
            raise DeployError(f"There is no function {name}", hint="Is it in another region?")
        live = alias["FunctionVersion"]
        if not options["to"] and str(alias.get("Description", "")).startswith(INSTEAD) and not _weights(alias):
            return Done()
        back = live if _weights(alias) else _earlier(found["versions"]["Versions"], live)
        back, instead = options["to"] or back, next(iter(_weights(alias)), live)
        if back == live and not _weights(alias):
            return Done()
        told: dict[str, Any] = {"FunctionVersion": back, "RoutingConfig": {"AdditionalVersionWeights": {}}}
        return _lambda("update_alias", name, Name=ALIAS, Description=f"{INSTEAD}{instead}", **told)

    return Plan("lambda", name, (Step("back", "Let the version before answer again", look=look, act=act),))


def _earlier(versions: Iterable[Mapping[str, Any]], live: str) -> str:
    """Give the version before the live one.

    Raises:
        DeployError: there is none.
    """
    numbers = sorted(int(each["Version"]) for each in versions if str(each["Version"]).isdigit())
    before = [each for each in numbers if each < int(live)]
    if not before:
        raise DeployError("There is no version to go back to", hint="Deploy the model that should answer.")
    return str(before[-1])


def destroy(name: str, options: Options) -> Plan:
    """Plan to remove a function and all that was made for it."""

    def act(found: Any, got: Answers) -> Call | Done:
        ours = (found or {}).get("Tags", {}).get(amazon.OURS) == name
        return _lambda("delete_function", name) if ours else Done()

    look = _lambda("get_function", name)
    function = Step("function", f"Delete function {name}", look=look, act=act, absent=(NONE,), present=(NONE,))
    rest = (
        amazon.delete_secret(name),
        amazon.delete_repository(name, name),
        amazon.delete_role("role", _role(name).name, name),
        amazon.delete_log_groups(_group(name), lambda group: group == _group(name)),
    )
    return Plan("lambda", name, (function, *rest), notes=("what was made by other means is left as it is",))


# ---- asking ------------------------------------------------------------------------------------------


def status(name: str, options: Options) -> tuple[Question, ...]:
    """Ask which version answers, where, and which others there are."""
    look = {
        "alias": _alias(name),
        "url": _lambda("get_function_url_config", name, Qualifier=ALIAS),
        "versions": _lambda("list_versions_by_function", name),
    }

    def told(found: Any) -> Iterable[tuple[str, str]]:
        if found["alias"] is None:
            return [("--", f"there is no function {name}")]
        alias = found["alias"]
        some = "".join(f", {each} gets {share:.0%}" for each, share in _weights(alias).items())
        where = (found["url"] or {}).get("FunctionUrl", "no address")
        lines = [("ok", f"{where} is version {alias['FunctionVersion']}{some} {alias.get('Description', '')}".strip())]
        numbered = [each for each in found["versions"]["Versions"] if str(each["Version"]).isdigit()]
        return lines + [("--", f"{each['Version']}: {each.get('Description', '')}") for each in numbered[-10:]]

    return (Question("function", Both(look, absent=(NONE,)), told),)


def logs(name: str, options: Options) -> tuple[Question, ...]:
    """Ask what the function said last."""
    return amazon.logs(_group(name))


def doctor(name: str, options: Options) -> tuple[Question, ...]:
    """Check who is signed in, where, and how many functions may run at a time."""

    def most(found: Any) -> Iterable[tuple[str, str]]:
        left = int(found["AccountLimit"]["UnreservedConcurrentExecutions"])
        state = "ok" if left - options["concurrency"] >= 100 else "mend"
        yield state, f"{left} functions may run at a time; AWS keeps 100 of them for all others"

    questions = (
        *amazon.signed_in(),
        Question("limits", Aws("lambda", "get_account_settings"), most),
    )
    return (*questions, *(status(name, options) if name else ()))


TARGET: Final = Target(
    "lambda",
    "AWS Lambda: the image as a function with an address; nothing is paid while nobody asks.",
    "image",
    plan,
    OPTIONS,
    status=status,
    logs=logs,
    rollback=rollback,
    destroy=destroy,
    doctor=doctor,
)
