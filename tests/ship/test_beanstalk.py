"""Elastic Beanstalk, the whole of a deployment's life: moto's server completed, and services that really run."""

import contextlib
import datetime
import http.client
import importlib
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from ketch import steps
from ketch.client import Client
from ketch.deploy import Shipment, awsends, awsenvironments, beanstalk
from ketch.errors import AnswersDiffer, CloudRefused, DeployError, KetchError
from tests.beanstalk_account import KEPT, KEY, deployed, hands, look_up, options, shipment
from tests.beanstalk_instances import Local, local
from tests.doors import Small
from tests.fake_beanstalk import Cloud, cloud, completed

pytestmark = pytest.mark.ship
ROW = {"charges": 50.0, "contract": "monthly", "plan": "a", "tenure": 5}
Others = Callable[[int], Path]


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    with completed() as started:
        yield started


@pytest.fixture(scope="module")
def runner() -> Iterator[Local]:
    with local() as made:
        yield made


@pytest.fixture
def account(server: Any, runner: Local, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    """A fresh account, whose names are found on this machine."""
    with cloud(server, runner) as made:
        for name, value in made.environ.items():
            monkeypatch.setenv(name, value)
        look_up(made, monkeypatch)
        yield made


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Others:
    """Other models of the same name."""
    made: dict[int, Path] = {}

    def other(seed: int) -> Path:
        if seed not in made:
            made[seed] = Small.pack(tmp_path_factory.mktemp(f"other-{seed}"), seed=seed).bundle
        return made[seed]

    return other


def ask(url: str, key: str = KEY) -> Any:
    with Client(url, key=key) as client:
        return client.predict(ROW)


def with_model(shipped: Shipment, data: bytes) -> Shipment:
    """Give a shipment whose image holds other bytes than its bundle."""

    def context(**recipe: Any) -> Any:
        made = shipped.context(**recipe) if shipped.context else None
        assert made is not None
        model = next(path for path in made.files if path.endswith(".ketch"))
        return replace(made, files={**made.files, model: data})

    return replace(shipped, context=context)


def run(account: Cloud, shipped: Shipment, told: list[str] | None = None, **given: Any) -> dict[str, Any]:
    return steps.run(beanstalk.plan(shipped, options(**given)), hands(account, told))


def test_a_deployment_lives_from_the_first_day_to_the_last(account: Cloud, small: Small, others: Others) -> None:
    got = deployed(account, small.bundle)
    url = got["smoke"]
    first = ask(url)
    assert got["key"] == KEY
    assert account.beanstalk.refused == []

    told: list[str] = []
    again = deployed(account, small.bundle, told)  # what is there already is left as it is
    assert again["smoke"] == url
    assert not any("createEnvironment" in line for line in told[-3:])
    assert len(account.left()["environments"]) == 1

    second = deployed(account, others(5), told, keep_old=True, key="another-key-that-is-not-taken")
    assert second["smoke"] == url, "the address stays"
    assert second["key"] == KEY, "the key stays, too"
    assert any("Successfully launched" in line for line in told)
    assert ask(url) != first
    assert len(account.left()["environments"]) == 2

    for _ in range(2):  # it may be run again: it does not go there and back
        steps.run(awsends.rollback("churn", options()), hands(account))
        assert ask(url) == first

    steps.run(awsends.destroy("churn", options()), hands(account))
    assert account.left() == {name: [] for name in account.left()}
    assert KEY not in "".join(told)


# ---- what fails --------------------------------------------------------------------------------------


def test_what_does_not_start_never_takes_over_and_the_log_says_why(
    account: Cloud, small: Small, others: Others
) -> None:
    url = deployed(account, small.bundle)["smoke"]
    first, told = ask(url), list[str]()
    with pytest.raises(DeployError) as caught:
        run(account, with_model(shipment(others(5)), b"no bundle at all"), told)
    assert "is not healthy" in caught.value.message
    assert "ELB processes are not healthy on all instances." in caught.value.message
    assert "complete, but with errors" in caught.value.message
    assert any("i-0a1b2c3d: ketch: churn.ketch is not a" in line for line in told), told[-20:]
    assert ask(url) == first, "what was live stays so"
    account.clock.sleep(60)
    assert len([*awsenvironments.environments("churn").done(hands(account))["Environments"]]) == 1
    assert deployed(account, others(6))["smoke"] == url, "and what is good can be deployed afterwards"
    assert ask(url) != first


def test_the_first_deployment_that_fails_leaves_no_environment(account: Cloud, small: Small) -> None:
    with pytest.raises(DeployError, match="is not healthy"):
        run(account, with_model(shipment(small.bundle), b"no bundle at all"))
    account.clock.sleep(60)
    assert not awsenvironments.environments("churn").done(hands(account))["Environments"]


def test_what_answers_wrong_never_takes_over(account: Cloud, small: Small, others: Others) -> None:
    url = deployed(account, small.bundle)["smoke"]
    first = ask(url)
    with pytest.raises(AnswersDiffer):
        run(account, with_model(shipment(others(5)), others(6).read_bytes()))
    assert ask(url) == first
    assert "SwapEnvironmentCNAMEs" not in account.beanstalk.requests


def test_what_does_not_answer_at_the_live_address_is_swapped_back(account: Cloud, small: Small, others: Others) -> None:
    url = deployed(account, small.bundle)["smoke"]
    first = ask(url)
    name = url.removeprefix("http://")
    account.beanstalk.silent = lambda host, each: host == name and "; before it:" in each.description
    with pytest.raises(CloudRefused):
        deployed(account, others(5))
    assert account.beanstalk.requests.count("SwapEnvironmentCNAMEs") == 2
    assert ask(url) == first


def test_a_bundle_that_elastic_beanstalk_cannot_process_is_made_again(account: Cloud, small: Small) -> None:
    account.beanstalk.spoiled = True
    with pytest.raises(DeployError, match="cannot process"):
        deployed(account, small.bundle)
    account.beanstalk.spoiled = False
    assert deployed(account, small.bundle)["smoke"]


def test_an_address_that_somebody_else_has_is_told(account: Cloud, small: Small) -> None:
    account.beanstalk.taken.add("churn-live.us-east-1.elasticbeanstalk.com")
    with pytest.raises(CloudRefused, match="not available"):
        deployed(account, small.bundle, cname="churn-live")
    assert deployed(account, small.bundle, cname="churn-other")["smoke"].startswith("http://churn-other.")


def test_what_is_changing_is_waited_for(account: Cloud, small: Small, others: Others) -> None:
    url = deployed(account, small.bundle)["smoke"]
    live = next(iter(account.beanstalk.environments.values()))
    account.beanstalk.hold(live, 1500)
    told: list[str] = []
    assert deployed(account, others(5), told)["smoke"] == url
    assert f"  {live.name} is updating" in told
    account.beanstalk.busy = 3  # somebody else's update comes between: the swap is asked for again
    assert deployed(account, others(6))["smoke"] == url
    assert sum("Must be Ready" in each for each in account.beanstalk.refused) == 3


def test_what_is_only_just_begun_can_be_removed(account: Cloud, small: Small) -> None:
    with_hands = replace(hands(account), told=_stop_at("createEnvironment is starting"))
    with pytest.raises(KeyboardInterrupt):
        steps.run(beanstalk.plan(shipment(small.bundle), options()), with_hands)
    assert [each.status for each in account.beanstalk.environments.values()] == ["Launching"]
    steps.run(awsends.destroy("churn", options()), hands(account))
    assert account.left() == {name: [] for name in account.left()}


def _stop_at(text: str) -> Callable[[str], None]:
    def told(line: str) -> None:
        if text in line:
            raise KeyboardInterrupt

    return told


# ---- in place ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["Immutable", "Rolling"])
def test_in_place(policy: str, account: Cloud, small: Small, others: Others) -> None:
    url = deployed(account, small.bundle)["smoke"]
    first = ask(url)
    assert deployed(account, others(5), in_place=True, policy=policy)["smoke"] == url
    second = ask(url)
    assert second != first
    assert account.beanstalk.requests.count("CreateEnvironment") == 1
    with pytest.raises(DeployError):
        run(account, with_model(shipment(others(6)), b"no bundle at all"), in_place=True, policy=policy)
    assert ask(url) == second, "the version before is live again"
    steps.run(awsends.rollback("churn", options()), hands(account))
    assert ask(url) == first
    steps.run(awsends.destroy("churn", options()), hands(account))
    assert account.left() == {name: [] for name in account.left()}


# ---- other ways --------------------------------------------------------------------------------------


def test_python_without_docker(account: Cloud, small: Small) -> None:
    shipped = shipment(small.bundle, wheels=True)
    url = run(account, shipped, source=False, platform="python")["smoke"]
    assert ask(url)["churn"] in {True, False}
    made = next(iter(account.beanstalk.environments.values()))
    assert made.stack == "64bit Amazon Linux 2023 v4.10.2 running Python 3.11"


def test_an_internal_address_is_not_asked(account: Cloud, small: Small) -> None:
    got = deployed(account, small.bundle, insecure_http=False)
    assert got["smoke"].startswith("http://churn-")
    made = next(iter(account.beanstalk.environments.values()))
    assert made.settings["aws:ec2:vpc", "ELBScheme"] == "internal"
    with pytest.raises(KetchError):
        ask(got["smoke"])


def test_https_under_a_name_that_does_not_point_there_yet(
    account: Cloud, small: Small, others: Others, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority, chain = certificate(tmp_path, "churn.example.test")
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    account.balancer.encrypt(context)
    named: dict[str, Any] = {"certificate": "arn:aws:acm:us-east-1:123456789012:certificate/1"}
    named |= {"domain": "churn.example.test", "insecure_http": False}
    assert deployed(account, small.bundle, **named)["smoke"] == "https://churn.example.test"
    with pytest.raises(CloudRefused, match="certificate verify failed"):
        deployed(account, others(5), **{**named, "domain": "churn.example.org"})
    made = next(iter(account.beanstalk.environments.values()))
    asked = http.client.HTTPConnection(made.cname)
    asked.request("GET", "/health/ready")
    assert asked.getresponse().status == 301, "who comes by HTTP is sent to HTTPS"
    asked.close()


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """Make a certificate that signs itself, and give it alone, and with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    day = datetime.timedelta(days=1)
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(datetime.datetime.now(datetime.UTC) - day)
        .not_valid_after(datetime.datetime.now(datetime.UTC) + day)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    written = made.public_bytes(Encoding.PEM)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "authority.pem").write_bytes(written)
    (folder / "chain.pem").write_bytes(written + private)
    return folder / "authority.pem", folder / "chain.pem"


def test_the_questions(account: Cloud, small: Small) -> None:
    def answers(verb: str, name: str = "churn") -> list[tuple[str, str]]:
        asked = getattr(beanstalk.TARGET, verb)(name, options())
        return [line for each in asked for line in _told(each, hands(account))]

    assert ("--", "there is no deployment churn") in answers("status")
    doctor = answers("doctor")
    assert any("account 123456789012" in line for _, line in doctor)
    assert any("v4.10.0 running Docker" in line for _, line in doctor)
    assert any("ketch-churn-service will be made" in line for _, line in doctor)
    deployed(account, small.bundle)
    assert any(state == "ok" and "Green" in line and "live" in line for state, line in answers("status"))
    assert any("eb-engine.log" in line for _, line in answers("logs"))
    assert ("ok", "it is ours") in answers("doctor")
    assert KEY not in str([answers(verb) for verb in ("status", "logs", "doctor")])


def _told(question: Any, with_hands: Any) -> list[tuple[str, str]]:
    try:
        return list(question.told(question.call.done(with_hands)))
    except CloudRefused as error:
        return list(question.told(None)) if error.reason in question.absent else [("mend", error.message)]


# ---- trouble -----------------------------------------------------------------------------------------


def test_throttling_is_waited_for(account: Cloud, small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = importlib.import_module("botocore.endpoint")
    monkeypatch.setattr(endpoint, "time", SimpleNamespace(sleep=lambda seconds: None, time=time.time))
    account.beanstalk.throttled = 0.4
    assert deployed(account, small.bundle)["smoke"]
    account.beanstalk.throttled = 0.0
    assert len(account.left()["environments"]) == 1


class Interrupted:
    """Ctrl+C before or after the n-th request, whichever service it is for."""

    def __init__(self, at: int, after: bool) -> None:
        self.at, self.after, self.count = at, after, 0
        self.operations: list[str] = []

    def before_send(self, request: Any, event_name: str, **more: Any) -> None:
        self.operations.append(event_name.partition(".")[2])
        self.count += 1
        if not self.after and self.count == self.at:
            raise KeyboardInterrupt

    def after_call(self, **more: Any) -> None:
        if self.after and self.count == self.at:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def listening(self, account: Cloud) -> Iterator[None]:
        clients = [each for each in KEPT[account.url].values() if hasattr(each, "meta")]
        for each in clients:
            each.meta.events.register("before-send", self.before_send)
            each.meta.events.register("after-call", self.after_call)
        try:
            yield
        finally:
            for each in clients:
                each.meta.events.unregister("before-send", self.before_send)
                each.meta.events.unregister("after-call", self.after_call)


CHANGES = ("create", "put", "attach", "add", "update", "swap", "terminate", "restore", "delete", "remove", "detach")


def changing(operations: list[str]) -> list[int]:
    """Give the numbers of the requests that change something."""
    return [n for n, each in enumerate(operations, 1) if each.partition(".")[2].lower().startswith(CHANGES)]


def interrupt(account: Cloud, work: Callable[[], Any], at: int, after: bool) -> bool:
    """Interrupt some work, and say whether that came about."""
    try:
        with Interrupted(at, after).listening(account):
            work()
    except KeyboardInterrupt:
        return True
    return False


def state(account: Cloud) -> dict[str, Any]:
    """Say how an account ended, whatever names its environments were given."""
    standing = [e for e in account.beanstalk.environments.values() if e.status not in {"Terminated", "Terminating"}]
    return {**account.left(), "environments": sorted((e.name, e.cname, e.label, e.status, e.health) for e in standing)}


def ways(first: Path, second: Path) -> dict[str, list[Callable[[Cloud], Any]]]:
    """Give what is interrupted, the last of each list, and what comes before it."""

    def one(account: Cloud) -> Any:
        return deployed(account, first, keep_old=True)

    def other(account: Cloud) -> Any:
        return deployed(account, second, keep_old=True)

    def back(account: Cloud) -> Any:
        return steps.run(awsends.rollback("churn", options()), hands(account))

    def away(account: Cloud) -> Any:
        return steps.run(awsends.destroy("churn", options()), hands(account))

    return {"first": [one], "update": [one, other], "back": [one, other, back], "away": [one, away]}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("way", ["first", "update", "back", "away"])
def test_interrupted_after_every_change_and_resumed(
    way: str, server: Any, runner: Local, small: Small, others: Others, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before a change, all is as after the one before it."""
    work = ways(small.bundle, others(5))[way]
    operations, wanted = undisturbed(server, runner, work, monkeypatch)
    changes = changing(operations)
    assert changes
    for at in changes:
        resumed(server, runner, work, monkeypatch, at, True, wanted)


def undisturbed(
    server: Any, runner: Local, work: list[Callable[[Cloud], Any]], monkeypatch: pytest.MonkeyPatch
) -> tuple[list[str], Any]:
    """Do it without any interruption: give what is asked, and how it ends."""
    with _fresh(server, runner, monkeypatch) as account:  # so that all clients are there, whose requests are counted
        for each in work:
            each(account)
    with _fresh(server, runner, monkeypatch) as account:
        for each in work[:-1]:
            each(account)
        seen = Interrupted(0, False)
        with seen.listening(account):
            work[-1](account)
        return seen.operations, state(account)


def resumed(
    server: Any,
    runner: Local,
    work: list[Callable[[Cloud], Any]],
    monkeypatch: pytest.MonkeyPatch,
    at: int,
    after: bool,
    wanted: Any,
) -> None:
    """Interrupt it, run it again, and find what would be there without the interruption."""
    with _fresh(server, runner, monkeypatch) as account:
        for each in work[:-1]:
            each(account)
        assert interrupt(account, lambda: work[-1](account), at, after), at
        work[-1](account)
        assert state(account) == wanted, (at, after)


@contextlib.contextmanager
def _fresh(server: Any, runner: Local, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    with cloud(server, runner, longer=400.0) as made, monkeypatch.context() as patched:
        for name, value in made.environ.items():
            patched.setenv(name, value)
        look_up(made, patched)
        yield made
