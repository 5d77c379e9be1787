"""New versions: tried aside, taken over when they prove good, and refused whatever is wrong with them."""

import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ketch import bundle, settings, trust
from ketch.serve import follow
from ketch.serve.follow import Follower
from ketch.serve.models import Entry, lineup_of
from ketch.serve.supervisor import Supervisor
from ketch.store import Store
from ketch.trust import keyring, signing
from tests.soak.lives import flipped
from tests.soak.load import echo

pytestmark = pytest.mark.service

NOW = "2026-01-01T00:00:00Z"


class Following:
    """A follower of one MODEL, without workers: what it would tell them is kept."""

    def __init__(self, home: Path, model: str, **flags: object) -> None:
        self.settings = settings.read({"home": home, **flags}, environ={}, folder=home)
        entry = Entry(model)
        opened = {entry: entry.open(self.settings)}
        self.lineup = lineup_of(opened, "")
        self.supervisor = Supervisor(work=lambda _: None, wanted=1, deadline=1.0, grace=1.0)
        self.told: list[dict[str, object]] = []
        self.supervisor.tell_all = lambda **message: self.told.append(message)  # type: ignore[method-assign]
        self.follower = Follower(self.settings, self.lineup, {entry: opened[entry].name})

    @property
    def constant(self) -> float:
        answer: float = self.lineup.line().champion.predict({"nonce": 1.0})["answer"] - 1.0
        return answer / 2.0**30

    def outcomes(self) -> dict[str, float]:
        found = self.supervisor.memory.totals()
        return {dict(labels)["outcome"]: each[0] for (name, labels), each in found.items() if name == "ketch_reloads"}

    def look(self, *, until: Callable[[], object], seconds: float = 20.0) -> None:
        end = time.monotonic() + seconds
        while not until():
            assert time.monotonic() < end, "it is still not so"
            self.follower(self.supervisor)
            time.sleep(0.01)
        for pid in self.supervisor.others.copy():
            os.waitpid(pid, 0)
            self.supervisor.others.discard(pid)

    def refuses(self) -> None:
        before = self.outcomes().get("refused", 0.0)
        self.look(until=lambda: self.outcomes().get("refused", 0.0) > before)

    def takes(self) -> None:
        before = self.outcomes().get("taken", 0.0)
        self.look(until=lambda: self.outcomes().get("taken", 0.0) > before)

    def rests(self, seconds: float = 0.3) -> None:
        """Look for a while, and see nothing happen."""
        before, end = self.outcomes(), time.monotonic() + seconds
        self.look(until=lambda: time.monotonic() > end)
        assert self.outcomes() == before


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def releases(home: Path) -> list[bytes]:
    return [echo(home, number) for number in range(4)]


@pytest.fixture
def path(tmp_path: Path, releases: list[bytes]) -> Path:
    made = tmp_path / "echo.ketch"
    made.write_bytes(releases[0])
    return made


@pytest.fixture
def following(home: Path, path: Path) -> Iterator[Following]:
    made = Following(home, str(path))
    yield made
    assert not made.supervisor.others


def replace(path: Path, data: bytes) -> None:
    aside = path.with_name("aside")
    aside.write_bytes(data)
    time.sleep(0.01)
    aside.replace(path)


def test_a_file_that_was_replaced_is_taken_over(following: Following, path: Path, releases: list[bytes]) -> None:
    following.rests()
    for number in (1, 2, 1):
        replace(path, releases[number])
        following.takes()
        assert following.constant == number
        told = following.told[-1]
        assert told["do"] == "take"
        assert told["sha256"] == following.lineup.line().champion.bundle.sha256
    path.touch()  # the same once more
    following.rests()
    assert following.outcomes() == {"taken": 3.0}


def test_what_is_damaged_is_refused_and_the_next_good_one_taken(
    following: Following, path: Path, releases: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    chance = random.Random(1)
    good = releases[1]
    for bad in (flipped(good, chance), good[:-1], good[:100], b"", b"PK\x03\x04", chance.randbytes(999)):
        replace(path, bad)
        following.refuses()
        assert following.constant == 0
        assert f"{path} is refused and echo goes on answering: " in caplog.records[-1].message
        assert "\n" not in caplog.records[-1].message
    assert following.told == []
    replace(path, releases[1])
    following.takes()
    assert following.constant == 1


def test_a_file_that_goes_away_and_comes_back(following: Following, path: Path, releases: list[bytes]) -> None:
    path.unlink()
    following.rests()
    path.mkdir()
    path.rmdir()
    following.rests()
    replace(path, releases[3])
    following.takes()
    assert following.constant == 3


def test_a_slow_copy_is_taken_when_it_is_whole(
    following: Following, path: Path, releases: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "QUIET", 0.3)
    data = releases[2]
    with path.open("wb") as file:
        for start in range(0, len(data), 1 + len(data) // 5):
            file.write(data[start : start + 1 + len(data) // 5])
            file.flush()
            following.rests(0.1)  # it is still being written
    following.takes()
    assert following.constant == 2
    with path.open("wb") as file:  # the writer falls asleep half way
        file.write(releases[3][:700])
        file.flush()
        following.refuses()
        file.write(releases[3][700:])
    following.takes()
    assert following.constant == 3


def test_a_model_of_another_name_is_refused(following: Following, path: Path, caplog: pytest.LogCaptureFixture) -> None:
    replace(path, echo(following.settings.home, 1, name="other"))
    following.refuses()
    assert "It is of other, not of echo. Serve it under a name of its own." in caplog.text


def test_golden_answers_that_differ_are_refused(
    following: Following, path: Path, releases: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    opened = bundle.read(releases[1], "echo")
    golden = msgspec.structs.replace(opened.golden, labels=[0.5 for _ in opened.golden.labels])
    replace(path, bundle.replaced(opened, {"golden.json": bundle.pretty(golden)}))
    following.refuses()
    assert "golden" in caplog.text


def test_one_without_a_signature_is_refused_where_one_is_required_until_it_is_signed(
    home: Path, path: Path, releases: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    keyring.new(home, "signing", passphrase="", when=NOW)
    private = keyring.private_key(home, "signing", ask=str)
    sign = path.with_name(path.name + trust.SIGNATURE)
    sign.write_bytes(signing.sign(bundle.identity(releases[0]), path.name, private))
    following = Following(home, str(path), require_signature="true")
    replace(path, releases[1])
    following.refuses()
    assert following.constant == 0
    sign.write_bytes(signing.sign(bundle.identity(releases[1]), path.name, private))
    following.takes()
    assert following.constant == 1


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("import os; os._exit(3)", "The process that tried it died"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "The process that tried it died"),
        ("raise MemoryError('x' * 10000)", "x" * 100),
        ("while True: pass", "It is not open after 0.8 s"),
        ("import time; time.sleep(600)", "It is not open after 0.8 s"),
    ],
)
def test_one_that_ends_its_process_or_never_opens(
    following: Following,
    path: Path,
    releases: list[bytes],
    caplog: pytest.LogCaptureFixture,
    body: str,
    told: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What an original may do while it is opened is done here in place of opening it: in the trial's process alone."""
    following.follower.patience = 0.8
    mine, opens = os.getpid(), Entry.open

    def opening(self: Entry, *given: Any, **options: Any) -> Any:
        if os.getpid() != mine:
            exec(body)
        return opens(self, *given, **options)

    monkeypatch.setattr(Entry, "open", opening)
    replace(path, releases[1])
    following.refuses()
    assert told in caplog.text
    assert len(caplog.records[-1].message) < 1000
    assert following.constant == 0


def test_the_store_is_followed_by_alias(home: Path, tmp_path: Path, releases: list[bytes]) -> None:
    store = Store(tmp_path / "store")
    for data in releases[:3]:
        store.push(data, "echo", when=NOW)
    store.promote("echo:1", when=NOW)
    following = Following(tmp_path, "echo@champion")
    following.rests()
    store.promote("echo:3", when=NOW)
    following.takes()
    assert following.constant == 2
    assert following.lineup.line().champion.reference == "echo:3"
    store.promote("echo:2", "challenger", when=NOW)
    following.rests()
    store.rollback("echo", when=NOW)
    following.takes()
    assert following.constant == 0
    store.push(releases[3], "echo", when=NOW)
    following.rests()


def test_a_store_that_is_gone_for_a_while(tmp_path: Path, releases: list[bytes], home: Path) -> None:
    store = Store(tmp_path / "store")
    for data in releases[:2]:
        store.push(data, "echo", when=NOW)
    store.promote("echo:1", when=NOW)
    following = Following(tmp_path, "echo@champion")
    (tmp_path / "store").rename(tmp_path / "away")
    following.rests()
    (tmp_path / "store").write_text("no folder")
    following.rests()
    (tmp_path / "store").unlink()
    (tmp_path / "away").rename(tmp_path / "store")
    store.promote("echo:2", when=NOW)
    following.takes()
    assert following.constant == 1


def test_what_moves_on_during_the_trial_is_looked_at_again(
    following: Following, path: Path, releases: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    replace(path, releases[1])
    following.look(until=lambda: following.supervisor.others, seconds=5)
    replace(path, releases[2])
    following.look(until=lambda: following.constant == 2)
    assert following.outcomes()["taken"] >= 1.0
