"""Plans are carried out once, go on after an interruption, make amends, and tell no secret."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.errors import CloudRefused, DeployError, NoCredentials, NotGiven, NotInstalled, NotSettled
from ketch.steps import Both, Call, Done, Got, Hands, Plan, Secret, Step, Text, first, resolved, run, shown, survey
from ketch.steps.aws import Aws, _hint
from ketch.steps.command import Command
from ketch.steps.rest import Api, Rest, from_environ


@dataclass
class Place:
    """A cloud of the simplest kind: things by name, each ready after some looks."""

    things: dict[str, Any] = field(default_factory=dict)
    slow: dict[str, int] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    refuse: Callable[[str], str] = lambda what: ""
    breaks: int = -1  # before which call somebody interrupts
    after: bool = False  # or right after it

    def ask(self, what: str, answer: Callable[[], Any]) -> Any:
        if not self.after and len(self.asked) == self.breaks:
            raise KeyboardInterrupt
        self.asked.append(what)
        if reason := self.refuse(what):
            raise CloudRefused(f"no {what}", reason=reason, hint="Ask differently.")
        found = answer()
        if self.after and len(self.asked) - 1 == self.breaks:
            raise KeyboardInterrupt
        return found


def hands(place: Place, told: list[str] | None = None) -> Hands:
    clock = iter(range(10**6))
    lines: list[str] = [] if told is None else told
    return Hands({}, lines.append, now=lambda: float(next(clock)), sleep=lambda seconds: None, kept={"place": place})


@dataclass(frozen=True)
class Read:
    thing: str

    def sent(self) -> Mapping[str, object]:
        return {"read": self.thing}

    def done(self, hands: Hands) -> Any:
        place: Place = hands.kept["place"]

        def answer() -> Any:
            if self.thing not in place.things:
                raise CloudRefused(f"{self.thing} is not there", reason="none", hint="Make it.")
            left = place.slow.get(self.thing, 0)
            place.slow[self.thing] = max(0, left - 1)
            return {"value": place.things[self.thing], "state": "busy" if left else "ready"}

        return place.ask(f"read {self.thing}", answer)


@dataclass(frozen=True)
class Write:
    thing: str
    value: Any

    def sent(self) -> Mapping[str, object]:
        return {"write": self.thing, "value": shown(self.value)}

    def done(self, hands: Hands) -> Any:
        place: Place = hands.kept["place"]

        def answer() -> Any:
            place.things[self.thing] = self.value
            return {"value": self.value}

        return place.ask(f"write {self.thing}", answer)


@dataclass(frozen=True)
class Remove:
    thing: str

    def sent(self) -> Mapping[str, object]:
        return {"remove": self.thing}

    def done(self, hands: Hands) -> Any:
        place: Place = hands.kept["place"]
        return place.ask(f"remove {self.thing}", lambda: place.things.pop(self.thing))


def made(thing: str, value: Any, **more: Any) -> Step:
    """Make a thing unless it is there, and wait until it is ready."""

    def until(found: Any, got: Mapping[str, Any]) -> Any:
        return found if found and found["state"] == "ready" else None

    return Step(
        thing,
        f"Make {thing}",
        look=Read(thing),
        act=lambda found, got: Done() if found and found["value"] == resolved(value, got) else Write(thing, value),
        until=until,
        absent=("none",),
        **more,
    )


PLAN = Plan(
    "place",
    "churn",
    (
        made("role", "reader"),
        made("bucket", "b-17"),
        made("file", Text(("at ", Got("bucket", ("value",)), "/", Got("role", ("value",)))), patience=50.0),
        Step("smoke", "Ask it", Read("file")),
    ),
)
WHOLE = {"role": "reader", "bucket": "b-17", "file": "at b-17/reader"}


def test_a_plan_does_what_is_missing_and_nothing_twice() -> None:
    place = Place(slow={"bucket": 3})
    got = run(PLAN, hands(place))
    assert place.things == WHOLE
    assert got["smoke"]["value"] == "at b-17/reader"
    again = Place(things=dict(place.things))
    run(PLAN, hands(again))
    assert not [each for each in again.asked if each.startswith("write")]


@given(st.integers(0, 16), st.booleans(), st.dictionaries(st.sampled_from(sorted(WHOLE)), st.integers(0, 3)))
def test_what_was_interrupted_at_any_call_is_run_again_to_the_same_end(
    at: int, after: bool, slow: dict[str, int]
) -> None:
    place = Place(slow=slow, breaks=at, after=after)
    try:
        run(PLAN, hands(place))
    except KeyboardInterrupt:
        place.breaks = -1
        run(PLAN, hands(place))
    assert place.things == WHOLE
    writes = [each for each in place.asked if each.startswith("write")]
    assert len(writes) == len(set(writes)), "done twice"


def test_a_failure_makes_amends_the_last_one_first_and_is_told() -> None:
    def undo(thing: str) -> tuple[Step, ...]:
        return (Step(f"no {thing}", f"Remove {thing}", Remove(thing), present=("none",)),)

    steps = (made("role", "r", amends=undo("role")), made("bucket", "b", amends=undo("bucket")), made("file", "f"))
    place = Place(refuse=lambda what: "quota" if what == "write file" else "")
    with pytest.raises(CloudRefused, match="no write file"):
        run(Plan("place", "churn", steps), hands(place))
    assert place.things == {}
    assert place.asked[-2:] == ["remove bucket", "remove role"]


def test_amends_that_fail_are_told_with_what_failed_first() -> None:
    amends = (Step("undo", "Take it back", Remove("never")),)
    refuse = {"write role": "quota", "remove never": "denied"}
    place = Place(refuse=lambda what: refuse.get(what, ""))
    with pytest.raises(CloudRefused) as caught:
        run(Plan("place", "churn", (made("role", "r", amends=amends),)), hands(place))
    assert caught.value.reason == "quota"
    assert "Take it back failed, too: no remove never" in caught.value.hint


def test_what_a_cloud_refuses_at_first_is_asked_again_and_what_is_there_is_taken() -> None:
    tries = iter(["early", "early", ""])
    place = Place(refuse=lambda what: next(tries) if what == "write role" else "")
    step = Step("role", "Make the role", Write("role", "r"), again=("early",))
    assert run(Plan("place", "churn", (step,)), hands(place)) == {"role": {"value": "r"}}

    place = Place(things={"role": "theirs"}, refuse=lambda what: "exists" if what == "write role" else "")
    looked = Step("role", "Make it", look=Read("role"), act=lambda found, got: Write("role", 1), present=("exists",))
    assert run(Plan("place", "churn", (looked,)), hands(place))["role"]["value"] == "theirs"


def test_what_is_refused_for_good_ends_after_a_while() -> None:
    place = Place(refuse=lambda what: "early")
    with pytest.raises(CloudRefused):
        run(Plan("place", "churn", (Step("role", "Make it", Write("role", 1), again=("early",)),)), hands(place))
    assert len(place.asked) > 10


def test_what_never_becomes_ready_is_told_with_the_way_on() -> None:
    told: list[str] = []
    news = {"news": lambda found: [f"it is {found['state']}"]}
    with pytest.raises(NotSettled) as caught:
        run(Plan("place", "churn", (made("role", "r", patience=30.0, **news),)), hands(Place(slow={"role": 99}), told))
    assert "again" in caught.value.hint
    assert told.count("  it is busy") == 1


def test_a_survey_only_looks() -> None:
    place = Place(things={"role": "reader"})
    ahead = survey(PLAN, hands(place))
    assert [(each.step.name, each.state) for each in ahead] == [
        ("role", "there"),
        ("bucket", "to do"),
        ("file", "to do"),
        ("smoke", "to do"),
    ]
    assert all(each.startswith("read") for each in place.asked)
    late = Step("late", "After", look=Read("role"), act=lambda found, got: Write("late", got["bucket"]["value"]))
    assert survey(Plan("place", "churn", (*PLAN.steps, late)), hands(place))[-1].state == "then"
    assert first(late) == Write("late", "<bucket.value>"), "what is not known yet stands there by its name"


def test_a_plan_shows_what_it_would_ask_where_nothing_is_there() -> None:
    def act(found: Any, got: Mapping[str, Any]) -> Call | Done:
        if any(each["name"] == "churn" for each in found["role"]["listed"]):
            return Done()
        return Write("role", [resolved(Got("account", ("id",)), got), *(each["id"] for each in got["zones"])])

    both = Step("role", "Make it", look=Both({"role": Read("role")}), act=act)
    assert first(both) == Write("role", ["<account.id>", "<zones.….id>"])
    assert msgspec.json.encode(shown(first(both).value)) == '["<account.id>","<zones.….id>"]'.encode()  # type: ignore[union-attr]
    refusing = Step("role", "Make it", Write("role", 1), act=lambda found, got: found["role"] + 1)
    assert first(refusing) == Write("role", 1)
    assert first(Step("role", "Look", look=Read("role"))) is None


def test_several_questions_are_one() -> None:
    both = Both({"role": Read("role"), "bucket": Read("bucket")}, absent=("none",))
    found = both.done(hands(Place(things={"role": "r"})))
    assert found == {"role": {"value": "r", "state": "ready"}, "bucket": None}
    assert both.sent() == {"role": {"read": "role"}, "bucket": {"read": "bucket"}}


TEXTS = st.text(max_size=5)


@given(st.recursive(TEXTS | st.integers() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner)))
def test_values_without_references_stay_as_they_are(value: Any) -> None:
    assert resolved(value, {}) == value
    assert json.loads(json.dumps(shown(value))) == value


def test_references_are_found_at_any_depth_and_told_where_they_are_not() -> None:
    got = {"a": {"b": ["x", Secret("y")]}}
    call = Write("thing", {"at": [Got("a", ("b", 0)), Text(("<", Got("a", ("b", 1)), ">"))]})
    assert resolved(call, got) == Write("thing", {"at": ["x", "<y>"]})
    for wrong in (Got("b"), Got("a", ("c",)), Got("a", ("b", 7)), Got("a", ("b", 0, "z"))):
        with pytest.raises(NotGiven):
            resolved(wrong, got)
    assert shown({"key": Secret("y"), "data": b"123", "then": Got("a", ("b", 1))}) == {
        "key": "(secret)",
        "data": "(3 bytes)",
        "then": "<a.b.1>",
    }
    assert "y" not in repr(Secret("y"))


# ---- by command, HTTP and boto3 ----------------------------------------------------------------------


def test_a_command_gets_secrets_by_its_input_and_environment_only() -> None:
    import os
    import sys

    code = "import json, os, sys; print(json.dumps([sys.stdin.read(), os.environ['TOKEN']]))"
    command = Command((sys.executable, "-c", code), stdin=Secret("in"), environ={"TOKEN": Secret("env")}, parsed=True)
    assert command.done(Hands(os.environ)) == ["in", "env"]
    assert "in" not in json.dumps(command.sent()["stdin"])
    assert command.sent()["environ"] == {"TOKEN": "(set)"}
    failing = Command((sys.executable, "-c", "raise SystemExit('no such thing')"), reasons={"no such": "none"})
    with pytest.raises(CloudRefused) as caught:
        failing.done(Hands(os.environ))
    assert caught.value.reason == "none"
    noisy = "raise SystemExit('E1122 04:12:19.014551 9574 memcache.go:265] Unhandled\\nThe connection was refused')"
    with pytest.raises(CloudRefused) as caught:
        Command((sys.executable, "-c", noisy)).done(Hands(os.environ))
    assert caught.value.message.endswith("failed: The connection was refused")
    with pytest.raises(NotInstalled, match="ketch-nowhere"):
        Command(("ketch-nowhere",)).done(Hands(os.environ))


@contextmanager
def api(answers: Iterator[tuple[int, bytes, dict[str, str]]]) -> Iterator[tuple[str, list[Any]]]:
    seen: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            seen.append((self.command, self.path, self.headers["Authorization"], body))
            status, data, headers = next(answers)
            if status < 0:
                self.connection.close()
                return
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def rest(**more: Any) -> Call:
    known = Api("Place", "https://place.example", from_environ("PLACE_TOKEN", "Get one."), "PLACE_URL")
    return Rest(known, "POST", "/things", **more)


def test_an_api_is_asked_with_its_token_again_where_it_is_busy_and_its_refusals_are_told() -> None:
    replies = [
        (429, b"", {"Retry-After": "0"}),
        (200, b'{"id": 1}', {}),
        (409, b"taken", {}),
        (302, b"", {"Location": "/"}),
    ]
    with api(iter(replies)) as (url, seen):
        ready = Hands({"PLACE_TOKEN": "t0ken", "PLACE_URL": url})
        assert rest(body={"name": "churn"}).done(ready) == {"id": 1}
        assert seen[0] == seen[1] == ("POST", "/things", "Bearer t0ken", b'{"name":"churn"}')
        with pytest.raises(CloudRefused, match="taken") as caught:
            rest(data=b"bytes").done(ready)
        assert caught.value.reason == "409"
        with pytest.raises(CloudRefused) as caught:  # a token goes nowhere else
            rest().done(ready)
        assert caught.value.reason == "302"
    with pytest.raises(NoCredentials):
        rest().done(Hands({}))
    with pytest.raises(CloudRefused) as caught:
        rest().done(Hands({"PLACE_TOKEN": "t", "PLACE_URL": "http://127.0.0.1:1"}))
    assert caught.value.reason == "unreachable"
    assert "t0ken" not in json.dumps(rest(body={"key": Secret("k")}).sent())


def test_a_question_is_asked_again_where_the_network_fails_and_a_change_is_not() -> None:
    def asked(method: str, *replies: tuple[int, bytes, dict[str, str]]) -> tuple[Any, int]:
        known = Api("Place", "https://place.example", from_environ("PLACE_TOKEN", "Get one."), "PLACE_URL")
        with api(iter(replies)) as (url, seen):
            ready = Hands({"PLACE_TOKEN": "t", "PLACE_URL": url}, sleep=lambda seconds: None)
            try:
                return Rest(known, method, "/things").done(ready), len(seen)
            except CloudRefused as error:
                return (error.message, error.hint), len(seen)

    fault: tuple[int, bytes, dict[str, str]] = (500, b'{"error": {"code": 500, "message": "a fault of ours"}}', {})
    gone: tuple[int, bytes, dict[str, str]] = (-1, b"", {})  # the connection is cut
    assert asked("GET", gone, fault, (200, b"{}", {})) == ({}, 3)
    (message, hint), times = asked("POST", fault)
    assert message.endswith("answered POST /things with 500: a fault of ours")
    assert "run the same command again" in hint
    assert times == 1
    (message, hint), times = asked("POST", gone)
    assert re.fullmatch(r"Place cannot be reached at 127\.0\.0\.1:\d+: [A-Z][\w ]+", message), message
    assert times == 1
    (message, hint), times = asked("GET", (200, b"<html>Sign in</html>", {"Content-Type": "text/html"}))
    assert "a page for people" in message


def test_what_else_goes_wrong_leaves_nothing_half_done_either() -> None:
    place = Place()

    def act(found: Any, got: Mapping[str, Any]) -> Call:
        raise TypeError("a fault of ours")

    plan = Plan(
        "place",
        "churn",
        (Step("a", "Make a", Write("a", 1), amends=(Step("b", "Undo", Write("a", 2)),)), Step("c", "Fail", act=act)),
    )
    with pytest.raises(TypeError):
        run(plan, hands(place))
    assert place.things["a"] == 2


def test_what_is_there_is_said_to_be_there_though_it_would_be_waited_for() -> None:
    told: list[str] = []
    place = Place(things={"role": "r"})
    made = Step("role", "Make it", look=Read("role"), act=lambda found, got: Done(), until=lambda found, got: found)
    held = hands(place)
    held.told = told.append
    run(Plan("place", "churn", (made,)), held)
    assert told == ["Make it: nothing to do"]


def test_what_is_only_looked_at_is_told_with_its_news_though_it_is_so_at_once() -> None:
    told: list[str] = []
    seen = Step("why", "Why", look=Read("log"), until=lambda found, got: found, news=lambda found: [found["value"]])
    held = hands(Place(things={"log": "no bundle"}))
    held.told = told.append
    run(Plan("place", "churn", (seen,)), held)
    assert told == ["Why", "  no bundle"]


def test_aws_says_whose_fault_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    config = tmp_path / "config"
    config.write_text(
        "[profile sso]\nsso_start_url = https://x.example\nsso_region = us-east-1\nsso_account_id = 123456789012\n"
        "sso_role_name = r\n[profile half]\naws_access_key_id = a\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for profile, told in (("sso", "SSO"), ("half", "Partial"), ("nobody", "could not be found")):
        monkeypatch.setenv("AWS_PROFILE", profile)
        with pytest.raises(NoCredentials, match=told):
            Aws("sts", "get_caller_identity", region="us-east-1").done(Hands({}))
    monkeypatch.delenv("AWS_PROFILE")
    with pytest.raises(NoCredentials) as caught:
        Aws("sts", "get_caller_identity", region="no region").done(Hands({}))
    assert "AWS_DEFAULT_REGION" in caught.value.hint
    assert "clock" in _hint("SignatureDoesNotMatch", "Signature expired: 20260101T000000Z is now earlier than")
    assert "aws configure" in _hint("SignatureDoesNotMatch", "The request signature we calculated does not match")


def test_aws_is_asked_by_boto3_and_says_who_must_sign_in(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    ask = Aws("s3", "create_bucket", {"Bucket": "b", "Body": b"1", "Token": Secret("s")}, region="eu-west-1")
    assert ask.sent() == {
        "aws": "s3.create_bucket",
        "params": {"Bucket": "b", "Body": "(1 bytes)", "Token": "(secret)"},
        "region": "eu-west-1",
    }
    with pytest.raises(NoCredentials):
        Aws("sts", "get_caller_identity", region="eu-west-1").done(Hands({}))
    with pytest.raises(NoCredentials, match="region"):
        Aws("elasticbeanstalk", "describe_events").done(Hands({}))
    with pytest.raises(CloudRefused) as caught:
        Aws("s3", "create_bucket", {"Name": "b"}, region="eu-west-1").done(Hands({}))
    assert caught.value.reason == "validation"


def test_errors_of_steps_are_deploy_errors() -> None:
    assert issubclass(CloudRefused, DeployError)
    assert issubclass(NotSettled, DeployError)
