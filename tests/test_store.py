"""The store, on a real folder: versions that never change, aliases, many processes at once, and deaths in mid-push."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ketch
from ketch.errors import NoSuchVersion, StoreError
from ketch.schema import NAME
from ketch.store import Store, parse

WHEN, LATER = "2026-11-21T05:00:00Z", "2026-11-21T06:00:00Z"
PATHS = [str(Path(ketch.__file__).parents[1]), str(Path(msgspec.__file__).parents[1])]
PYTHON = [getattr(sys, "_base_executable", sys.executable), "-I", "-S", "-B", "-c"]
STRACE = shutil.which("strace")

names = st.from_regex(NAME, fullmatch=True)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def command(body: str, *args: object) -> list[str]:
    start = f"import sys; sys.path[:0] = {PATHS!r}; from pathlib import Path; from ketch.store import Store\n"
    return [*PYTHON, start + body, *map(str, args)]


def whole(store: Store) -> None:
    """Every listed version verifies, numbers have no gap, every alias points at a listed version."""
    for name in {version.name for version in store.list()}:
        versions = store.list(name)
        assert [version.number for version in versions] == list(range(1, len(versions) + 1))
        for version in versions:
            assert hashlib.sha256(store.pull(version.ref)).hexdigest() == version.sha256


# What people do


def test_versions_are_numbered_and_come_back_as_they_were(store: Store) -> None:
    first = store.push(b"one", "churn", when=WHEN)
    second = store.push(b"two", "churn", when=LATER)
    assert (first.ref, second.ref) == ("churn:1", "churn:2")
    assert (second.size, second.pushed_at, second.aliases) == (3, LATER, ())
    assert (store.pull("churn:1"), store.pull("churn:2")) == (b"one", b"two")
    assert store.list() == store.list("churn") == [first, second]
    assert Store(store.root).resolve("churn:2") == second


def test_the_same_bytes_are_the_same_version_and_one_file(store: Store) -> None:
    first = store.push(b"one", "churn", when=WHEN)
    store.push(b"two", "churn", when=WHEN)
    again = store.push(b"one", "churn", when=LATER)
    assert again == first
    assert again.pushed_at == WHEN != LATER  # so a caller can tell
    assert store.push(b"one", "other", when=LATER).ref == "other:1"
    blobs = [path for path in (store.root / "blobs").rglob("*") if path.is_file()]
    assert sorted(path.name for path in blobs) == sorted(hashlib.sha256(b).hexdigest() for b in (b"one", b"two"))
    if os.name != "nt":
        assert {path.stat().st_mode & 0o777 for path in blobs} == {0o444}


def test_a_bare_name_is_the_champion_or_the_only_version(store: Store) -> None:
    store.push(b"one", "churn", when=WHEN)
    assert store.resolve("churn").number == 1
    store.push(b"two", "churn", when=WHEN)
    with pytest.raises(NoSuchVersion, match="no champion") as caught:
        store.resolve("churn")
    assert "churn:1, churn:2" in caught.value.hint
    assert "ketch promote churn:2" in caught.value.hint
    store.promote("churn:1", when=WHEN)
    assert store.resolve("churn") == store.resolve("churn@champion") == store.resolve("churn:1")
    assert store.resolve("churn").aliases == ("champion",)


def test_rollback_goes_back_step_by_step_and_never_to_what_was_rolled_back(store: Store) -> None:
    for data in (b"1", b"2", b"3", b"4"):
        store.push(data, "churn", when=WHEN)
    for number in (1, 2, 3):
        assert store.promote(f"churn:{number}", when=WHEN).aliases == ("champion",)
    assert store.rollback("churn", when=WHEN).number == 2
    store.promote("churn:4", when=WHEN)
    store.promote("churn:4", when=LATER)  # already so: no step
    assert [store.rollback("churn", when=WHEN).number for _ in range(2)] == [2, 1]
    with pytest.raises(NoSuchVersion, match="never anything else") as caught:
        store.rollback("churn", when=WHEN)
    assert "churn:1, churn:2, churn:3, churn:4" in caught.value.hint
    assert store.resolve("churn").number == 1


def test_aliases_are_each_their_own(store: Store) -> None:
    for data in (b"1", b"2"):
        store.push(data, "churn", when=WHEN)
    store.promote("churn:1", when=WHEN)
    store.promote("churn@champion", "staging", when=WHEN)
    store.promote("churn:2", "staging", when=WHEN)
    assert [version.aliases for version in store.list("churn")] == [("champion",), ("staging",)]
    assert store.rollback("churn", "staging", when=WHEN).aliases == ("champion", "staging")


@pytest.mark.parametrize(
    ("act", "message", "remedy"),
    [
        (lambda s: s.resolve("chrun"), "no model 'chrun'", "It holds churn"),
        (lambda s: s.pull("churn:9"), "no version 9", "churn:1, churn:2"),
        (lambda s: s.resolve("churn@staging"), "no alias 'staging'", "ketch promote churn:2 --alias staging"),
        (lambda s: s.rollback("churn", when=WHEN), "no alias 'champion'", "ketch promote churn:2"),
        (lambda s: s.promote("churn:2", "Bad", when=WHEN), "'Bad' cannot name an alias", "a-z"),
        (lambda s: s.resolve("churn:two"), "names no version", "churn:3"),
        (lambda s: s.push(b"", "../x", when=WHEN), "cannot name a model", "a-z"),
        (lambda s: s.list("../x"), "cannot name a model", "a-z"),
    ],
)
def test_an_error_hands_over_the_remedy(
    store: Store, act: Callable[[Store], object], message: str, remedy: str
) -> None:
    for data in (b"1", b"2"):
        store.push(data, "churn", when=WHEN)
    with pytest.raises(StoreError, match=re.escape(message)) as caught:
        act(store)
    assert remedy in caught.value.hint
    assert f"{caught.value}{caught.value.hint}".count("\n") == 0


def test_an_empty_store_is_empty_and_reading_makes_nothing(store: Store) -> None:
    assert store.list() == store.list("churn") == []
    with pytest.raises(NoSuchVersion) as caught:
        store.pull("churn")
    assert caught.value.hint == "Push it first: ketch push churn.ketch"
    assert not store.root.exists()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["push", "promote", "rollback"]), st.integers(0, 3)), max_size=12))
def test_any_sequence_of_acts_does_what_a_list_and_a_stack_would(acts: list[tuple[str, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store, pushed, stack = Store(Path(folder)), list[bytes](), list[int]()
        for act, value in acts:
            if act == "push":
                data = b"%d" % value
                pushed += [data] if data not in pushed else []
                assert store.push(data, "m", when=WHEN).number == pushed.index(data) + 1
            elif act == "promote" and value < len(pushed):
                stack += [value + 1] if stack[-1:] != [value + 1] else []
                store.promote(f"m:{value + 1}", when=WHEN)
            elif act == "rollback" and len(stack) > 1:
                stack.pop()
                store.rollback("m", when=WHEN)
        assert [store.pull(version.ref) for version in store.list()] == pushed
        if stack:
            assert store.resolve("m@champion").number == stack[-1]


# Names and references


@given(names, st.integers(1, 999_999_999), names)
def test_a_reference_is_what_it_was_made_of(name: str, number: int, alias: str) -> None:
    assert parse(name) == (name, None, None)
    assert parse(f"{name}:{number}") == (name, number, None)
    assert parse(f"{name}@{alias}") == (name, None, alias)


@given(st.text(st.sampled_from("abz09._-:@/\\\0\n AÉ٣ß~"), max_size=70) | st.text(max_size=70))
def test_any_text_is_a_reference_or_a_refusal_and_never_another_path(text: str) -> None:
    root = Path("root").absolute()
    try:
        name, number, alias = parse(text)
    except StoreError:
        return
    assert text == name + (f":{number}" if number else f"@{alias}" if alias else "")
    for part in (name, alias or "a"):
        path = Path(os.path.normpath(root / f"{part}"))
        assert path.parent == root
        assert path.name == part
        assert part.isascii()


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "a..b",
        "a.",
        ".a",
        "-a",
        "A",
        "a/b",
        "a\\b",
        "a\n",
        "a b",
        "é",
        "a" * 65,
        "con",
        "nul.txt",
        "lpt1",
    ],
)
def test_such_names_are_refused_everywhere(store: Store, name: str) -> None:
    for act in (
        lambda: store.push(b"x", name, when=WHEN),
        lambda: store.list(name),
        lambda: store.rollback(name, when=WHEN),
        lambda: store.promote("churn:1", name, when=WHEN),
        lambda: parse(f"{name}:1"),
        lambda: parse(f"churn@{name}"),
    ):
        with pytest.raises(StoreError, match="cannot name"):
            act()
    assert not store.root.exists()


# Damage


def blob(store: Store, ref: str) -> Path:
    digest = store.resolve(ref).sha256
    return store.root / "blobs" / "sha256" / digest[:2] / digest


@pytest.mark.parametrize("lost", [True, False])
def test_changed_or_lost_bytes_are_never_handed_out_and_a_push_repairs_them(store: Store, lost: bool) -> None:
    store.push(b"one", "churn", when=WHEN)
    path = blob(store, "churn:1")
    path.chmod(0o644)
    path.unlink() if lost else path.write_bytes(b"onf")
    for act in (lambda: store.pull("churn:1"), lambda: store.promote("churn:1", when=WHEN)):
        with pytest.raises(StoreError, match="lost or changed") as caught:
            act()
        assert hashlib.sha256(b"one").hexdigest() in caught.value.hint
    assert store.push(b"one", "churn", when=LATER).number == 1
    assert store.pull("churn:1") == b"one"


@given(st.integers(0, 8 * 300 - 1))
def test_any_flipped_bit_is_found(bit: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        store.push(bytes(range(250)) * 2, "churn", when=WHEN)
        path = blob(store, "churn:1")
        data = bytearray(path.read_bytes())
        data[bit // 8] ^= 1 << bit % 8
        path.chmod(0o644)
        path.write_bytes(data)
        with pytest.raises(StoreError, match="lost or changed"):
            store.pull("churn:1")


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"version":2,"sha256":"%s","size":1,"pushed_at":""}' % ("a" * 64),
        '{"version":1,"sha256":"../../x","size":1,"pushed_at":""}',
    ],
)
def test_a_damaged_record_is_named(store: Store, text: str) -> None:
    store.push(b"one", "churn", when=WHEN)
    (store.root / "models" / "churn" / "versions" / "1.json").write_text(text)
    for act in (store.list, lambda: store.pull("churn:1"), lambda: store.push(b"two", "churn", when=WHEN)):
        with pytest.raises(StoreError, match=r"1\.json is damaged") as caught:
            act()
        assert "copy of the store" in caught.value.hint


def test_an_empty_record_is_a_number_taken_and_no_version(store: Store) -> None:
    for data in (b"one", b"two"):
        store.push(data, "churn", when=WHEN)
    (store.root / "models" / "churn" / "versions" / "2.json").write_bytes(b"")
    assert [version.number for version in store.list()] == [1]
    assert store.resolve("churn").number == 1
    assert store.push(b"two", "churn", when=LATER).number == 3


@pytest.mark.parametrize("text", ["2\n", "x", ""])
def test_a_newer_format_is_refused(store: Store, text: str) -> None:
    store.push(b"one", "churn", when=WHEN)
    (store.root / "format").write_text(text)
    with pytest.raises(StoreError, match="reads format 1") as caught:
        Store(store.root)
    assert "Update Ketch" in caught.value.hint


def test_what_is_no_store_and_what_others_left_there_is_told_or_passed_over(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be read or written"):
        Store(tmp_path / "file").push(b"one", "churn", when=WHEN)
    store = Store(tmp_path / "store")
    store.push(b"one", "churn", when=WHEN)
    store.promote("churn:1", when=WHEN)
    for stray in (".DS_Store", "Thumbs.db~", "churn/versions/x.json", "churn/versions/01.json", "churn/aliases/A.json"):
        (store.root / "models" / stray).write_text("")
    assert [version.ref for version in store.list()] == ["churn:1"]


def test_a_copy_without_its_empty_folders_goes_on(store: Store, tmp_path: Path) -> None:
    for data in (b"one", b"two"):
        store.push(data, "churn", when=WHEN)
    copy = Store(shutil.copytree(store.root, tmp_path / "copy", ignore=shutil.ignore_patterns("tmp")))
    assert copy.promote("churn:1", when=WHEN).number == 1
    assert copy.push(b"three", "churn", when=WHEN).number == 3


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on the size of a file to run into")
def test_a_full_disk_leaves_no_half_version(store: Store) -> None:
    store.push(b"one", "churn", when=WHEN)
    body = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, -1))
try:
    Store(Path(sys.argv[1])).push(b"x" * 5000, "churn", when="")
except Exception as error:
    print(type(error).__name__, error.hint)
"""
    told = subprocess.run(command(body, store.root), capture_output=True, text=True, check=True).stdout
    assert told.startswith("StoreError Check")
    assert [version.number for version in store.list()] == [1]
    assert not list((store.root / "tmp").iterdir())
    assert store.push(b"x" * 5000, "churn", when=WHEN).number == 2
    whole(store)


# Many processes


def test_processes_that_push_at_once_get_numbers_of_their_own(store: Store) -> None:
    body = """
store = Store(Path(sys.argv[1]))
for i in range(15):
    print(store.push(f"{sys.argv[2]} {i}".encode(), "churn", when="").number, "own")
    print(store.push(f"shared {i}".encode(), "churn", when="").number, f"shared {i}")
    store.promote(f"churn:{i + 1}", when="")
"""
    running = [subprocess.Popen(command(body, store.root, i), stdout=subprocess.PIPE, text=True) for i in range(6)]
    told = [line.split(" ", 1) for each in running for line in each.communicate()[0].splitlines()]
    assert {each.returncode for each in running} == {0}
    own = [int(number) for number, what in told if what == "own"]
    shared = {(number, what) for number, what in told if what != "own"}
    assert len(set(own)) == len(own) == 6 * 15
    assert len(shared) == 15  # every process was given the same version for the same bytes
    assert sorted([*own, *(int(number) for number, _ in shared)]) == list(range(1, 6 * 15 + 15 + 1))
    whole(store)
    assert store.resolve("churn@champion").number <= 15
    assert not list((store.root / "tmp").iterdir())


# Death

WRITING = "mkdir,write,fsync,link,linkat,unlink,unlinkat,rename,renameat,renameat2,chmod,fchmodat,ftruncate"
FIRST = 'Store(Path(sys.argv[1])).push(b"one", "churn", when="")'
ACTS = """
store = Store(Path(sys.argv[1]))
store.push(b"two", "churn", when="")
store.push(b"new", "other", when="")
store.promote("churn:2", when="")
store.rollback("churn", when="")
"""


def traced(body: str, store: Path, log: Path, *inject: str) -> int:
    options = [STRACE or "", "-f", "-qq", "-o", str(log), f"--trace={WRITING}", *inject]
    return subprocess.run([*options, *command(body, store)], capture_output=True, check=False).returncode


@pytest.fixture
def before(store: Store) -> Store:
    if not STRACE or subprocess.run([STRACE, "-o", os.devnull, "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs a strace that may trace: it kills the process at a chosen system call")
    store.push(b"one", "churn", when=WHEN)
    store.promote("churn:1", when=WHEN)
    return store


def deaths(body: str, root: Path, folder: Path) -> Iterator[Store]:
    """Run `body` on a copy of the store once for every system call that writes, killed at that call."""
    root.mkdir(exist_ok=True)
    assert traced(body, shutil.copytree(root, folder / "all"), folder / "calls") == 0
    calls = Counter(re.findall(r"^\d+ +(\w+)\(", (folder / "calls").read_text(), re.MULTILINE))
    assert {"fsync", "mkdir", "write"} < set(calls)

    def die(point: tuple[str, int]) -> Store:
        call, n = point
        copy = shutil.copytree(root, folder / f"{call}{n}")
        log = folder / f"{call}{n}.log"
        assert traced(body, copy, log, f"--inject={call}:signal=KILL:when={n}") != 0
        assert "killed by SIGKILL" in log.read_text()
        return Store(copy)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from pool.map(die, [(call, n) for call, count in calls.items() for n in range(1, count + 1)])


@pytest.mark.service
def test_death_at_any_system_call_leaves_a_whole_store(before: Store, tmp_path: Path) -> None:
    for store in deaths(ACTS, before.root, tmp_path):
        whole(store)
        assert store.resolve("churn@champion").number in (1, 2)
        assert store.pull("churn:1") == b"one"
        assert store.push(b"two", "churn", when=LATER).number == 2
        assert store.push(b"three", "churn", when=LATER).number == 3
        assert store.promote("churn:3", when=LATER).aliases == ("champion",)
        assert store.rollback("churn", when=LATER).number in (1, 2)
        whole(store)


@pytest.mark.service
def test_death_in_the_very_first_push_leaves_a_store_to_push_to(before: Store, tmp_path: Path) -> None:
    for store in deaths(FIRST, tmp_path / "empty", tmp_path):
        whole(store)
        assert store.push(b"one", "churn", when=LATER).number == 1
        assert store.push(b"two", "churn", when=LATER).number == 2
        whole(store)


def test_without_hard_links_nothing_is_replaced_either(before: Store, tmp_path: Path) -> None:
    refuse = [f"--inject={call}:error=EPERM" for call in ("link", "linkat")]
    assert traced(ACTS, before.root, tmp_path / "log", *refuse) == 0
    assert "EPERM" in (tmp_path / "log").read_text()
    assert before.pull("churn:2") == b"two"
    assert before.resolve("churn").number == 1
    whole(before)
    assert traced(ACTS, before.root, tmp_path / "log", *refuse) == 0
    assert [version.ref for version in before.list()] == ["churn:1", "churn:2", "other:1"]
