"""Hostile files by the hundred: none runs anything, each is refused in words; and a signed bundle bears no flip."""

import io
import json
import os
import pickle
import random
import re
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sklearn.tree import DecisionTreeClassifier

from ketch import bundle, errors, program, trust
from ketch.errors import BadSignature, CorruptBundle, KetchError
from ketch.pack import Options, compose
from ketch.schema import Field
from ketch.trust import keyring, signing
from tests import hostile, models, test_trust

pytestmark = pytest.mark.packing  # long in all

PROGRAM = Path(__file__).parent / "programs" / "hostile.py"
WHEN = "2026-11-21T08:00:00+00:00"
ENOUGH = 500
FLIPS = 100_000
IMPORTING = (
    "churn.ketch",
    "forest.ketch",
    "noise.onnx",
    "small.joblib",
)  # what the watched process opens before it is watched
SECONDS = 60
OUTSIDE = "execve,execveat,connect,bind,sendto,sendmsg,symlink,symlinkat,mknod,mknodat,ptrace,kill,tkill"


@dataclass(frozen=True)
class Place:
    """A folder of hostile files, and what is told of them."""

    folder: Path
    canary: Path
    home: Path

    @property
    def told(self) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = json.loads((self.folder / "told.json").read_text())
        return found


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Harmless files of each kind; the bundle serves its original, so that there is something to hide in."""
    home = tmp_path_factory.mktemp("packing")
    return {
        "churn.ketch": compose(models.vectorized(), None, Options(target="churn"), home=home).data,
        "forest.ketch": compose(models.forest(), None, Options(target="species"), home=home).data,
        "other.ketch": compose(models.linear_vectors(), None, Options(target="species"), home=home).data,
        "model.pkl": pickle.dumps(models.vectorized()),
        "model.joblib": hostile.joblibbed(models.forest()),
        "noise.onnx": b"nothing good, but its reader is imported",
        "small.joblib": hostile.joblibbed(models.vectorized(), 3),
    }


def lay(place: Place, good: dict[str, bytes], chosen: Iterator[tuple[str, bytes]]) -> int:
    """Write the files, and beside each bundle with a turned bit the signature that it had before."""
    for folder in (place.folder / "good", place.folder / "bad", place.canary):
        folder.mkdir(parents=True)
    for name in IMPORTING:
        (place.folder / "good" / name).write_bytes(good[name])
    keyring.new(place.home, "signing", passphrase="", when=WHEN)
    private = keyring.private_key(place.home, "signing", ask=str)
    signature = signing.sign(bundle.identity(good["churn.ketch"]), "churn.ketch", private)
    (place.folder / "good" / "churn.ketch.sig").write_bytes(signature)
    count = 0
    for name, data in chosen:
        path = place.folder / "bad" / re.sub(r"[^\w.-]", "-", name)
        assert not path.exists(), name
        path.write_bytes(data)
        if name.startswith("flip-"):
            path.with_name(path.name + ".sig").write_bytes(signature)
        count += 1
    return count


def attack(place: Place) -> list[str]:
    """Open all of them in one fresh process, and give what was seen of it from outside."""
    trace = place.folder / "trace"
    command = [sys.executable, str(PROGRAM), str(place.folder), str(place.home)]
    if strace := shutil.which("strace"):
        command = [
            strace,
            "-f",
            "--seccomp-bpf",
            "-qq",
            "-s",
            "300",
            "-e",
            f"trace={OUTSIDE}",
            "-o",
            str(trace),
            *command,
        ]
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("COV", "KETCH_"))}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, cwd=place.folder, timeout=500)
    assert (done.returncode, done.stderr[-2000:]) == (0, "")
    assert done.stdout == ""
    return trace.read_text().splitlines() if strace else []


def judge(place: Place, outside: list[str], count: int) -> None:
    told = place.told
    assert len(told) == count
    opened = {name: each["message"] for name, each in told.items() if not each["error"]}
    assert not opened, f"{len(opened)} of {count} not refused in words: {dict(list(opened.items())[:5])}"
    seen = {name: each["seen"] for name, each in told.items() if each["seen"]}
    assert not seen, f"{len(seen)} did something: {dict(list(seen.items())[:5])}"
    for name, each in told.items():
        assert issubclass(getattr(errors, each["error"]), KetchError), name
        assert each["message"], name
        assert each["hint"], name
        assert len(each["message"]) < 1000, name
        assert "Traceback" not in each["message"] + each["hint"], name
    assert list(place.canary.iterdir()) == []
    assert sorted(path.name for path in place.home.iterdir()) == [".ketch.lock", "checked.json", "keyring.json", "keys"]
    calls = [line.split(None, 1)[1] for line in outside]
    strangers = [line for line in calls if not line.startswith(("---", "+++", "<...")) and not ours(line)]
    assert not strangers, strangers[:5]


def ours(call: str) -> bool:
    """Say whether a system call is the program itself, the gate's child, or either's look at who the user is."""
    if call.startswith("execve("):
        own = str(PROGRAM) in call or '"-I", "-B", "-X", "faulthandler=0", "-c"' in call
        return own and sys.executable in call
    return "/nscd/socket" in call


def test_a_sample_of_every_family_runs_nothing_and_is_refused(good: dict[str, bytes], tmp_path: Path) -> None:
    place = Place(tmp_path / "files", tmp_path / "canary", tmp_path / "home")
    draw = random.Random(3)

    def sample() -> Iterator[tuple[str, bytes]]:
        for name, family in hostile.families(good, place.canary).items():
            if name != "bombs":
                yield from draw.sample(list(family()), 12)

    count = lay(place, good, sample())
    judge(place, attack(place), count)


@pytest.mark.packing
@pytest.mark.timeout(400)
def test_hundreds_of_hostile_files_run_nothing_and_are_refused(good: dict[str, bytes], tmp_path: Path) -> None:
    place = Place(tmp_path / "files", tmp_path / "canary", tmp_path / "home")
    families = hostile.families(good, place.canary)
    count = lay(place, good, (each for family in families.values() for each in family()))
    assert count >= ENOUGH
    judge(place, attack(place), count)


@pytest.mark.packing
def test_what_only_opening_would_show_is_refused_in_the_child(tmp_path: Path, good: dict[str, bytes]) -> None:
    """Numbers that compiled code would trust: they pass the static look, and the gate's child finds them."""
    model = DecisionTreeClassifier(max_depth=3).fit(test_trust.X, test_trust.Y)
    state = model.tree_.__getstate__()
    cases = [("left_child", 10_000), ("right_child", -7), ("feature", 99)]
    place = Place(tmp_path / "files", tmp_path / "canary", tmp_path / "home")

    def spoiled() -> Iterator[tuple[str, bytes]]:
        for number, (field, value) in enumerate(cases):
            nodes = state["nodes"].copy()
            nodes[field][0] = value
            yield f"tree-{number}.pkl", pickle.dumps(test_trust.with_tree(model, state | {"nodes": nodes}))

    count = lay(place, good, spoiled())
    judge(place, attack(place), count)


def test_the_watch_itself_sees_what_is_done(tmp_path: Path, good: dict[str, bytes]) -> None:
    """An approved file runs what it likes: then every alarm must ring."""
    place = Place(tmp_path / "files", tmp_path / "canary", tmp_path / "home")
    evil = hostile.WAYS["reduce"]("os", "system", (f"touch {place.canary}/x",))
    lay(place, good, iter([("evil.pkl", evil)]))
    trust.approve(evil, home=place.home, name="evil.pkl", when=WHEN)
    outside = attack(place)
    (told,) = place.told.values()
    assert any(event.startswith("os.system") for event in told["seen"])
    assert any("pickle.find_class" in event for event in told["seen"])
    assert (place.canary / "x").exists()
    if outside:
        assert not all(ours(line.split(None, 1)[1]) for line in outside if "execve" in line)


# flips


@dataclass(frozen=True)
class Signed:
    """A bundle, its signature, and who may have made that."""

    data: bytes
    signature: bytes
    known: dict[str, trust.Key]

    def holds(self, data: bytes, signature: bytes) -> bool:
        try:
            return bool(trust.check_signature(data, signature, known=self.known, name="churn.ketch"))
        except BadSignature as refusal:
            return not (refusal.message and refusal.hint)


@pytest.fixture(scope="module")
def signed(good: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> Signed:
    home = tmp_path_factory.mktemp("signing")
    keyring.new(home, "signing", passphrase="", when=WHEN)
    data = good["churn.ketch"]
    signature = signing.sign(bundle.identity(data), "churn.ketch", keyring.private_key(home, "signing", ask=str))
    return Signed(data, signature, trust.keys(home))


def flips(signed: Signed, count: int, seed: int) -> Iterator[tuple[bytes, bytes]]:
    """Turn each bit of the signature, then some bits of a byte at each place of the bundle, then bytes at random."""
    for at in range(len(signed.signature)):
        for bit in range(8):
            yield signed.data, hostile.flipped(signed.signature, at, 1 << bit)
    draw = random.Random(seed)
    done = len(signed.signature) * 8
    for at in range(len(signed.data)):
        yield hostile.flipped(signed.data, at, draw.randint(1, 255)), signed.signature
    for _ in range(count - done - len(signed.data)):
        if draw.random() < 0.3:
            at = draw.randrange(len(signed.signature))
            yield signed.data, hostile.flipped(signed.signature, at, draw.randint(1, 255))
        else:
            at = draw.randrange(len(signed.data))
            yield hostile.flipped(signed.data, at, draw.randint(1, 255)), signed.signature


def test_turned_bits_of_a_signed_bundle_are_caught(signed: Signed) -> None:
    assert signed.holds(signed.data, signed.signature)
    every = list(flips(signed, 0, 1))
    for data, signature in random.Random(7).sample(every, 2_000):
        assert not signed.holds(data, signature)


@pytest.mark.packing
@pytest.mark.timeout(200)
def test_a_hundred_thousand_flips_are_all_caught_within_a_minute(signed: Signed) -> None:
    assert signed.holds(signed.data, signed.signature)
    began, count = time.process_time(), 0
    for data, signature in flips(signed, FLIPS, 2):
        assert not signed.holds(data, signature)
        count += 1
    assert count == FLIPS
    assert time.process_time() - began < SECONDS


@pytest.mark.parametrize("wrong", [{"block": 0}, {"block": -8}, {"block": 10**12}, {"rows_at_once": -1}], ids=str)
def test_a_program_cannot_ask_for_impossible_rows(wrong: dict[str, int]) -> None:
    fine = program.Graph((program.Number("fee"),), ({"values": "y"},), ("identity",))
    program.require_sense(fine, [Field("fee", "number")])
    with pytest.raises(ValueError, match="asks together"):
        program.require_sense(msgspec.structs.replace(fine, **wrong), [Field("fee", "number")])


@pytest.mark.parametrize("member", ["manifest.json", "contract.json", "golden.json", "profile.json"])
def test_a_description_cannot_fill_the_memory(member: str) -> None:
    good = Path(__file__).with_name("formats") / "1" / "first-light-linear.ketch"
    with zipfile.ZipFile(good) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members[member] += b" " * bundle.MOST_JSON  # which any reader of JSON takes
    sums = {name: bundle.identity(data) for name, data in members.items() if name != "manifest.json"}
    if member != "manifest.json":
        members["manifest.json"] = json.dumps({**json.loads(members["manifest.json"]), "members": sums}).encode()
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    with pytest.raises(CorruptBundle, match="more than 64 MiB"):
        bundle.read(made.getvalue(), "big")
