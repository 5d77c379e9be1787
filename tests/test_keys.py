"""Keys that open a service: made, kept as hashes, limited, ended, revoked while a guard is at work, by many at once."""

import contextlib
import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch import trust
from ketch.errors import Forbidden, KetchError, SettingError, Unauthorized, UsageError
from ketch.schema import NAME
from ketch.serve.guard import Guard, files_of
from ketch.settings import read
from ketch.trust import calling
from ketch.trust.calling import FOR_EVER, SCOPES, USUAL, CallingKey

WHEN = "2026-11-21T12:00:00+00:00"
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
PLAIN = "a-plain-key-of-the-environment"


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / calling.FILE


@pytest.fixture
def clock() -> Clock:
    return Clock()


def make(path: Path, name: str = "shop", scope: str = "", until: float = FOR_EVER) -> str:
    return calling.new(path, name, scopes=calling.scopes_of(scope), until=until, when=WHEN)


def lets_in(guard: Guard, key: str, scope: str = "predict") -> bool:
    try:
        guard.check({"host": "churn.example", "x-api-key": key}, scope=scope)
    except (Unauthorized, Forbidden):
        return False
    return True


def opened(guard: Guard, key: str) -> set[str]:
    return {scope for scope in SCOPES if lets_in(guard, key, scope)}


# the file


def test_a_key_is_kept_as_its_hash_alone(path: Path) -> None:
    first, second = make(path, "shop"), make(path, "desk", "predict,metrics", 1_900_000_000)
    text = path.read_text()
    assert first != second
    assert min(len(first), len(second)) >= 43
    assert first not in text
    assert second not in text
    assert len(text.splitlines()) == 2
    shop, desk = calling.read(path)
    assert (shop.name, shop.scopes, shop.until, shop.revoked) == ("shop", USUAL, FOR_EVER, "")
    assert (desk.name, desk.scopes, desk.until) == ("desk", frozenset({"predict", "metrics"}), 1_900_000_000.0)
    if os.name == "posix":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_plain_keys_records_and_remarks_stand_in_one_file(path: Path) -> None:
    path.parent.mkdir()
    path.write_text(f"# who: the shop\n#\n{PLAIN}  #another-key-that-begins-so\n\n  second-plain-key-of-the-file")
    key = make(path)
    calling.revoke(path, "shop", when=WHEN)
    text = path.read_text()
    assert text.startswith(
        f"# who: the shop\n#\n{PLAIN}  #another-key-that-begins-so\n\n  second-plain-key-of-the-file\n"
    )
    known = calling.by_digest(calling.read(path))
    assert set(known) == {
        calling.digest_of(each) for each in (PLAIN, "#another-key-that-begins-so", "second-plain-key-of-the-file", key)
    }


@given(
    st.builds(
        CallingKey,
        name=st.from_regex(NAME.pattern, fullmatch=True),
        digest=st.binary(min_size=32, max_size=32),
        scopes=st.frozensets(st.sampled_from(SCOPES), min_size=1),
        since=st.just(WHEN),
        until=st.just(FOR_EVER) | st.integers(0, 4_000_000_000).map(float),
        revoked=st.sampled_from(["", WHEN]),
    )
)
def test_what_is_written_is_read(key: CallingKey) -> None:
    word = calling.line_of(key)
    assert calling.words_of(f"{word}\n") == [word]
    assert "," not in word
    assert calling.key_of(word) == key


@given(st.text(max_size=40))
def test_a_line_is_a_key_or_refused_in_words(tail: str) -> None:
    for word in [*calling.words_of(tail), calling.MARK + tail, calling.MARK + "0" * 64 + tail]:
        with contextlib.suppress(SettingError):
            found = calling.key_of(word)
            assert len(found.digest) == 32
            assert word not in repr(found)


@pytest.mark.parametrize(
    "tail",
    ["", ";name=../shop", ";name=shop;scope=everything", ";name=shop;expires=soon", ";name=shop;hosts=shop.example",
     ";name=shop;expires=2027-01-01;expires=", ";name=shop;name=desk", ";name=shop;;", ";name=shop;revoked"],
)  # fmt: skip
def test_a_record_that_says_more_or_less_than_is_known_is_refused(tail: str, path: Path) -> None:
    path.parent.mkdir()
    path.write_text(calling.MARK + "0" * 64 + tail + "\n")
    with pytest.raises(SettingError, match="not in the right form") as refused:
        calling.read(path)
    assert "ketch keys new" in refused.value.hint


@pytest.mark.parametrize(
    ("text", "end"),
    [("", FOR_EVER), ("90d", NOW.timestamp() + 90 * 86400), ("12h", NOW.timestamp() + 43200),
     ("2w", NOW.timestamp() + 14 * 86400), ("2027-01-31", datetime(2027, 2, 1, tzinfo=UTC).timestamp()),
     ("2026-11-21", datetime(2026, 11, 22, tzinfo=UTC).timestamp()),
     ("2027-01-31T10:00:00+01:00", datetime(2027, 1, 31, 9, tzinfo=UTC).timestamp())],
)  # fmt: skip
def test_when_a_key_ends(text: str, end: float) -> None:
    assert calling.end_of(text, now=NOW) == end


@pytest.mark.parametrize("text", ["soon", "90", "d", "-1d", "0d", "2026-11-20", "2027-02-30", "9" * 30 + "d", "٣d"])
def test_a_time_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        calling.end_of(text, now=NOW)
    assert refused.value.hint


def test_names_and_scopes_are_checked(path: Path) -> None:
    make(path)
    for name in ("shop", "", "UPPER", "a b", "../x", "a;b", "a\nb", "x" * 80):
        with pytest.raises(UsageError) as refused:
            make(path, name)
        assert refused.value.hint
    with pytest.raises(UsageError, match="no scope 'write'") as refused:
        calling.scopes_of("predict,write")
    assert all(scope in refused.value.hint for scope in SCOPES)
    with pytest.raises(UsageError, match="No key here") as refused:
        calling.revoke(path, "desk", when=WHEN)
    assert "shop" in refused.value.hint


@pytest.mark.skipif(os.name != "posix", reason="who may read a file is said otherwise there")
def test_whoever_could_read_the_file_still_can(path: Path) -> None:
    make(path)
    path.chmod(0o640)
    real = path.rename(path.with_name("real.keys"))
    path.symlink_to(real)
    calling.revoke(path, "shop", when=WHEN)
    assert path.is_symlink()
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    assert calling.read(path)[0].revoked


# what a key opens


def test_a_key_opens_what_it_names(path: Path) -> None:
    keys = {scope: make(path, scope, scope) for scope in SCOPES}
    guard = Guard((PLAIN,), files=(path,))
    for scope, key in keys.items():
        assert opened(guard, key) == {scope}
        assert guard.check({"x-api-key": key}, scope=scope).name == scope
    assert opened(guard, PLAIN) == set(SCOPES) - {"metrics"}
    assert opened(guard, make(path.with_name("other"), "x")) == set()
    with pytest.raises(Forbidden) as refused:
        guard.check({"x-api-key": keys["read"]}, scope="predict")
    assert "opens read" in refused.value.hint
    assert keys["read"] not in refused.value.hint + refused.value.message


def test_a_key_ends_to_the_second_though_it_was_let_in_before(path: Path, clock: Clock) -> None:
    key = make(path, until=clock.now + 90)
    guard = Guard(files=(path,), clock=clock)
    for moment, good in ((0, True), (89.5, True), (90, False), (90.5, False)):
        clock.now = 1_800_000_000 + moment
        assert lets_in(guard, key) == good, moment
    with pytest.raises(Unauthorized, match="has ended"):
        guard.check({"x-api-key": key}, scope="predict")


def test_a_record_goes_into_the_environment_too(path: Path, tmp_path: Path) -> None:
    key = make(path, "shop", "predict")
    settings = read({}, environ={"KETCH_API_KEYS": f"{PLAIN},{path.read_text().strip()}"}, folder=tmp_path)
    assert opened(Guard(settings.api_keys), key) == {"predict"}


def test_which_files_are_watched(path: Path, tmp_path: Path) -> None:
    home, other = path.parent, tmp_path / "more.keys"
    environ = {"KETCH_HOME": str(home)}
    assert files_of(read({}, environ=environ, folder=tmp_path)) == ()
    make(path)
    assert files_of(read({}, environ=environ, folder=tmp_path)) == (path,)
    for given_path, found in ((other, (other, path)), (path, (path,))):
        assert files_of(read({"api_keys_file": str(given_path)}, environ=environ, folder=tmp_path)) == found


# files that change while a guard is at work


def test_a_revoked_key_is_shut_out_while_the_service_runs(path: Path, clock: Clock) -> None:
    first, second = make(path, "first"), make(path, "second")
    guard = Guard((PLAIN,), files=(path,), clock=clock)
    assert all(lets_in(guard, key) for key in (first, second, PLAIN))
    calling.revoke(path, "first", when=WHEN)
    clock.now += 1.1
    assert not lets_in(guard, first)
    assert lets_in(guard, second)
    with pytest.raises(Unauthorized, match="was revoked"):
        guard.check({"x-api-key": first}, scope="predict")
    third = make(path, "third")
    assert not lets_in(guard, third)
    clock.now += 1.1
    assert lets_in(guard, third)


def test_revoking_counts_wherever_the_key_stands_beside(path: Path, clock: Clock) -> None:
    key = make(path)
    guard = Guard((key,), files=(path,), clock=clock)
    assert lets_in(guard, key)
    calling.revoke(path, "shop", when=WHEN)
    clock.now += 1.1
    assert not lets_in(guard, key)
    assert not lets_in(Guard((key,), files=(path,)), key)


def test_a_file_is_looked_at_once_a_second_and_also_when_the_clock_is_set_back(path: Path, clock: Clock) -> None:
    key = make(path)
    guard = Guard(files=(path,), clock=clock)
    calling.revoke(path, "shop", when=WHEN)
    clock.now += 0.9
    assert lets_in(guard, key)
    clock.now -= 3600
    assert not lets_in(guard, key)


def spoil(path: Path) -> dict[str, Callable[[], int | None]]:
    return {
        "gone": path.unlink,
        "empty": lambda: path.write_text(""),
        "remarks": lambda: path.write_text("# nothing\n"),
        "not text": lambda: path.write_bytes(b"\xff\xfe\x00"),
        "short": lambda: path.write_text("short\n"),
        "cut": lambda: path.write_text(path.read_text()[:40]),
        "folder": lambda: path.rename(path.with_name("aside")).with_name(path.name).mkdir(),
    }


@pytest.mark.parametrize("how", spoil(Path()))
def test_a_broken_file_leaves_the_keys_of_before_and_is_told(
    path: Path, clock: Clock, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    key = make(path)
    guard = Guard(files=(path,), clock=clock)
    spoil(path)[how]()
    for _ in range(3):
        clock.now += 1.1
        assert lets_in(guard, key)
    assert not lets_in(guard, "another-key-that-nobody-knows")
    assert guard.guarded
    told = [each.getMessage() for each in caplog.records]
    assert len(told) == 1
    assert "stay good" in told[0]
    with pytest.raises(SettingError):
        Guard(files=(path,))


def test_a_service_never_opens_because_its_keys_are_over(path: Path, clock: Clock) -> None:
    make(path, until=clock.now - 1)
    calling.revoke(path, "shop", when=WHEN)
    guard = Guard(files=(path,), clock=clock)
    assert guard.guarded
    with pytest.raises(Unauthorized):
        guard.check({"host": "localhost"}, scope="predict")


def test_what_is_remembered_is_bounded_and_holds_only_who_was_let_in(clock: Clock) -> None:
    guard = Guard((PLAIN,), clock=clock)
    for number in range(2000):
        guard.check({"host": f"h{number}.example", "x-api-key": PLAIN}, scope="predict")
        lets_in(guard, f"wrong-key-of-somebody-{number}")
        guard.check({"host": "x", "x-api-key": f"wrong-key-of-somebody-{number}"}, scope="")
    assert len(guard._seen) <= 512
    assert not any("wrong" in str(asked) for asked in guard._seen)


# several processes at once

HAMMER = """
import sys
from pathlib import Path
from ketch import trust
from ketch.trust import calling, keyring
home, me = Path(sys.argv[1]), sys.argv[2]
for n in range(12):
    calling.new(home / calling.FILE, f"k{me}-{n}", scopes=calling.USUAL, until=calling.FOR_EVER, when="2026")
    calling.revoke(home / calling.FILE, f"k{me}-{n}", when="2026")
    trust.record(f"{me}-{n}", {"name": me}, home=home)
    if n < 4:
        keyring.new(home, f"s{me}-{n}", passphrase="", when="2026")
        keyring.revoke(home, f"s{me}-{n}", when="2026")
"""


def test_no_process_loses_what_another_wrote(tmp_path: Path) -> None:
    home = tmp_path / "home"
    workers = [subprocess.Popen([sys.executable, "-c", HAMMER, str(home), str(number)]) for number in range(3)]
    assert [each.wait(60) for each in workers] == [0, 0, 0]
    found = calling.read(home / calling.FILE)
    assert {key.name for key in found} == {f"k{me}-{n}" for me in range(3) for n in range(12)}
    assert all(key.revoked for key in found)
    assert set(json.loads((home / "approvals.json").read_text())) == {f"{m}-{n}" for m in range(3) for n in range(12)}
    pairs = trust.keys(home).values()
    assert {key.name for key in pairs} == {f"s{me}-{n}" for me in range(3) for n in range(4)}
    assert all(key.revoked for key in pairs)


# the command


def ketch(home: Path, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "ketch", "keys", *words],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "KETCH_HOME": str(home)},
    )
    assert done.returncode == code, done
    return done


@pytest.mark.service
def test_the_whole_life_of_a_key(path: Path, tmp_path: Path) -> None:
    home, elsewhere = path.parent, tmp_path / "etc" / "shop.keys"
    made = ketch(home, "new", "shop", "--for", "calling", "--scope", "predict", "--expires", "90d")
    key = made.stdout.strip()
    assert re.fullmatch(r"[\w-]{43}", key)
    assert key not in made.stderr
    assert opened(Guard(files=(path,)), key) == {"predict"}
    ketch(home, "new", "shop", "--for", "signing")
    listed = ketch(home, "list").stdout
    assert re.search(r"^shop +calls predict .*until 20", listed, re.MULTILINE)
    assert re.search(r"^shop +[0-9a-f]{64} .*yours", listed, re.MULTILINE)
    assert key not in listed
    assert "--for calling" in ketch(home, "revoke", "shop", code=1).stderr
    ketch(home, "revoke", "shop", "--for", "calling")
    assert opened(Guard(files=(path,)), key) == set()
    assert not trust.keys(home).popitem()[1].revoked
    other = ketch(home, "new", "desk", "--for", "calling", "--file", str(elsewhere)).stdout.strip()
    assert opened(Guard(files=(elsewhere,)), other) == USUAL
    assert "desk" in ketch(home, "list", "--file", str(elsewhere)).stdout
    ketch(home, "revoke", "desk", "--file", str(elsewhere))
    assert opened(Guard(files=(elsewhere,)), other) == set()
    for words in (["new", "--for", "calling", "--scope", "read"], ["new", "x", "--for", "calling", "--scope", "all"]):
        assert len(ketch(home, *words, code=1).stderr.splitlines()) == 2


def test_a_damaged_record_stops_the_command_and_nothing_is_written(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("sha256:nonsense\n")
    for change in (lambda: make(path), lambda: calling.revoke(path, "shop", when=WHEN), lambda: calling.known(path)):
        with pytest.raises(KetchError):
            change()
    assert path.read_text() == "sha256:nonsense\n"
