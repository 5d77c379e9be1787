"""The bundle: the same members give the same bytes, and no damage goes unnoticed."""

import hashlib
import io
import os
import random
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ketch import bundle
from ketch.bundle import Golden, Manifest, Original, identity, looks_like_bundle, read, save, versions, write
from ketch.errors import BundleError, CorruptBundle, UnknownFormat
from ketch.schema import Answer, Contract, Field

CONTRACT = Contract(
    (Field("age", "integer"), Field("plan", "category", categories=("a", "b"))),
    Answer("binary", "churn", (0, 1), 1, 0.25, "probability"),
)
GOLDEN = Golden([{"age": 3, "plan": "a"}, {"plan": "b", "age": 4}], [0, 1], [[0.75, 0.25], [0.1, 0.9]])
MANIFEST = Manifest(
    format=1,
    name="churn",
    answer=CONTRACT.answer,
    adapter="sklearn",
    serves="original",
    tolerance=1e-6,
    originals=(Original("original/0-model-pkl", "pickle", "model.pkl"),),
    origin={"estimator": "X"},
    versions=versions({"numpy": "2"}, "0.1.0"),
    members={},
)
FILES = {"original/0-model-pkl": bytes(range(256)) * 3, "env/requirements.txt": b"numpy==2\n"}
PROFILE: dict[str, object] = {"plan": {"rows": 9, "counts": {"b": 4, "a": 5}}}


def whole(manifest: Manifest = MANIFEST, golden: Golden = GOLDEN, files: Mapping[str, bytes] = FILES) -> bytes:
    return write(manifest, CONTRACT, golden, PROFILE, files)


def members(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(parts: Mapping[str, bytes] | list[tuple[str, bytes]], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in parts.items() if isinstance(parts, Mapping) else parts:
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return out.getvalue()


def resealed(change: Callable[[dict[str, Any]], None], **replaced: bytes) -> bytes:
    """Write a bundle whose sums are right and whose manifest is not."""
    parts = members(whole()) | {name.replace("_", "."): data for name, data in replaced.items()}
    manifest = msgspec.json.decode(parts.pop("manifest.json"))
    manifest["members"] = {name: identity(data) for name, data in parts.items()}
    change(manifest)
    return zipped({**parts, "manifest.json": msgspec.json.encode(manifest)})


def test_what_is_written_is_read() -> None:
    data = whole()
    opened = read(data, "churn.ketch")
    assert opened.contract == CONTRACT
    assert opened.golden == GOLDEN
    assert opened.profile == PROFILE
    assert opened.originals == [("model.pkl", "pickle", FILES["original/0-model-pkl"])]
    assert opened.sha256 == identity(data) == hashlib.sha256(data).hexdigest()
    assert opened.manifest == msgspec.structs.replace(MANIFEST, members=opened.manifest.members)
    assert looks_like_bundle(data)
    assert not looks_like_bundle(b"\x80\x04N.")


def test_members_are_sorted_old_and_plain() -> None:
    with zipfile.ZipFile(io.BytesIO(whole())) as archive:
        listed = archive.infolist()
    names = [info.filename for info in listed]
    assert names == sorted(names)
    assert {info.date_time for info in listed} == {(1980, 1, 1, 0, 0, 0)}
    assert {(info.create_system, info.external_attr, info.extra, info.comment) for info in listed} == {
        (3, 0o644 << 16, b"", b"")
    }


def test_the_order_of_members_does_not_matter() -> None:
    assert whole(files=dict(reversed(FILES.items()))) == whole()


@pytest.mark.parametrize("seed", ["0", "1", "4711"])
def test_the_same_members_give_the_same_bytes_in_any_process(seed: str) -> None:
    code = "from tests.test_bundle import whole; from ketch.bundle import identity; print(identity(whole()))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONHASHSEED": seed, "TZ": "Asia/Tokyo"},
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == identity(whole())


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(st.from_regex(bundle.MEMBER, fullmatch=True), st.binary(max_size=50), max_size=4),
    st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.integers(-9, 9)),
)
def test_any_members_come_back(files: dict[str, bytes], profile: dict[str, object]) -> None:
    kept = {name: data for name, data in files.items() if not name.endswith(".json")}
    opened = read(write(MANIFEST, CONTRACT, GOLDEN, profile, {**FILES, **kept}), "x")
    assert opened.profile == profile
    assert {**opened.files, **kept, **FILES} == opened.files


def outcome(data: bytes) -> bundle.Bundle | None:
    try:
        return read(data, "x.ketch")
    except (CorruptBundle, UnknownFormat) as error:
        assert error.hint, error  # noqa: PT017 (nothing else may be raised, and reading is allowed too)
        return None


def test_a_flipped_byte_is_noticed_or_changes_nothing() -> None:
    data = whole()
    wanted = msgspec.structs.replace(read(data, "x"), sha256="")
    source = random.Random(1)
    noticed = 0
    for place in range(len(data)):
        for value in {data[place] ^ 1, data[place] ^ 0x80, source.randrange(256)} - {data[place]}:
            found = outcome(data[:place] + bytes([value]) + data[place + 1 :])
            noticed += found is None
            if found is not None:  # dates and attributes of the archive, which nobody reads
                assert found.sha256 != identity(data)
                assert msgspec.structs.replace(found, sha256="") == wanted
    assert noticed > 2 * len(data)


def test_a_bundle_cut_short_is_noticed() -> None:
    data = whole()
    for length in range(len(data)):
        assert outcome(data[:length]) is None
    assert outcome(data + b"x" * 70_000) is None


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.integers(0, 1500), st.integers(0, 60))
def test_any_spliced_bytes_are_refused_in_our_own_words(noise: bytes, place: int, gap: int) -> None:
    data = whole()
    outcome(noise)
    outcome(b"PK\x03\x04" + noise)
    outcome(data[:place] + noise[:gap] + data[place + gap :])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda parts: parts.pop("manifest.json"), "no manifest"),
        (lambda parts: parts.pop("contract.json"), "contract.json is missing"),
        (lambda parts: parts.pop("golden.json"), "golden.json is missing"),
        (lambda parts: parts.pop("profile.json"), "profile.json is missing"),
        (lambda parts: parts.pop("original/0-model-pkl"), "model-pkl is missing"),
        (lambda parts: parts.update({"extra.txt": b""}), "extra.txt is not in its manifest"),
        (lambda parts: parts.update({"env/other": parts.pop("env/requirements.txt")}), "requirements.txt is missing"),
        (lambda parts: parts.update({"golden.json": b"{}"}), "golden.json was changed"),
        (lambda parts: parts.update({"../evil": b""}), "it holds '../evil'"),
        (lambda parts: parts.update({"/etc/passwd": b""}), "it holds '/etc"),
        (lambda parts: parts.update({"a/../b": b""}), "it holds"),
        (lambda parts: parts.update({"a\\b": b""}), "it holds"),
        (lambda parts: parts.update({"C:/b": b""}), "it holds"),
        (lambda parts: parts.update({"a/": b""}), "it holds"),
        (lambda parts: parts.update({".hidden": b""}), "it holds"),
        (lambda parts: parts.update({"ünder": b""}), "it holds"),
        (lambda parts: parts.update({"manifest.json": b"{"}), "malformed|truncated"),
        (lambda parts: parts.update({"manifest.json": b'{"format": 1}'}), "missing required"),
        (lambda parts: parts.update({"manifest.json": b"[" * 5000}), "is not a whole bundle"),
    ],
)
def test_members_missing_added_renamed_or_outside(change: Callable[[dict[str, bytes]], None], words: str) -> None:
    parts = members(whole())
    change(parts)
    with pytest.raises(CorruptBundle, match=words):
        read(zipped(parts), "x.ketch")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_given_twice_is_refused() -> None:
    parts = list(members(whole()).items())
    with pytest.raises(CorruptBundle, match=r"it holds 'env/requirements\.txt'"):
        read(zipped([*parts, ("env/requirements.txt", b"evil")]), "x.ketch")


@pytest.mark.parametrize("found", [2, "1", None, 1.5, "x" * 1000])
def test_a_newer_format_asks_for_a_newer_ketch(found: object) -> None:
    with pytest.raises(UnknownFormat, match="this Ketch reads format 1") as caught:
        read(resealed(lambda manifest: manifest.update(format=found)), "x.ketch")
    assert "upgrade" in caught.value.hint
    assert len(caught.value.message) < 100


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda manifest: manifest.update(name="../x"), "impossible name"),
        (lambda manifest: manifest["originals"][0].update(member="original/1"), "original/1 is missing"),
        (lambda manifest: manifest["answer"].update(positive=7), "yes/no answer"),
        (lambda manifest: manifest["answer"].update(classes=[1]), "yes/no answer"),
        (lambda manifest: manifest["answer"].update(task="magic"), "Invalid enum"),
        (lambda manifest: manifest["answer"].update(colour=1), "unknown field"),
    ],
)
def test_a_sealed_manifest_without_sense_is_refused(change: Callable[[dict[str, Any]], None], words: str) -> None:
    assert read(resealed(lambda manifest: None), "x").contract == CONTRACT
    with pytest.raises(CorruptBundle, match=words):
        read(resealed(change), "x.ketch")


@pytest.mark.parametrize(
    "golden",
    [
        Golden([], []),
        Golden(GOLDEN.rows, [0]),
        Golden(GOLDEN.rows, [0, 1], [[0.5, 0.5]]),
        Golden(GOLDEN.rows, [0, 1], None, [1.0]),
    ],
)
def test_golden_rows_without_their_answers_are_refused(golden: Golden) -> None:
    with pytest.raises(CorruptBundle, match="golden rows"):
        read(whole(golden=golden), "x.ketch")


@pytest.mark.parametrize("member", ["contract_json", "golden_json", "profile_json"])
def test_a_sealed_member_that_is_no_json_is_refused(member: str) -> None:
    with pytest.raises(CorruptBundle):
        read(resealed(lambda manifest: None, **{member: b"\xff{"}), "x.ketch")


def central(data: bytes) -> int:
    return data.index(b"PK\x01\x02")


def declared(data: bytes, size: int) -> bytes:
    """Change the unpacked size that the first member declares, in both its headers."""
    place = central(data)
    data = data[:22] + struct.pack("<L", size) + data[26:]
    return data[: place + 24] + struct.pack("<L", size) + data[place + 28 :]


def test_sizes_that_are_declared_wrong_are_noticed() -> None:
    data = whole()
    size = zipfile.ZipFile(io.BytesIO(data)).infolist()[0].file_size
    for wrong in (0, size - 1, size + 1, size + 5000):
        assert outcome(declared(data, wrong)) is None
    assert outcome(declared(data, size)) is not None


def test_a_bomb_is_refused_before_it_goes_off(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CorruptBundle, match="unpacks to more"):
        read(declared_everywhere(whole()), "x.ketch")
    monkeypatch.setattr(bundle, "MOST_BYTES", 10_000)
    bomb = zipped({"a": bytes(10_000_000)})
    assert len(bomb) < 20_000
    with pytest.raises(CorruptBundle, match="unpacks to more"):
        read(bomb, "x.ketch")
    assert outcome(declared(bomb, 9_000)) is None  # what it declares is all that is unpacked


def declared_everywhere(data: bytes) -> bytes:
    place = central(data)
    while (place := data.find(b"PK\x01\x02", place)) >= 0:
        data = data[: place + 24] + b"\xfe\xff\xff\xff" + data[place + 28 :]
        place += 46
    return data


def test_an_encrypted_or_strangely_compressed_member_is_refused() -> None:
    data = whole()
    place = central(data)
    flagged = data[: place + 8] + b"\x01\x00" + data[place + 10 :]
    flagged = flagged[:6] + b"\x01\x00" + flagged[8:]
    assert outcome(flagged) is None
    for method in (zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2):
        with pytest.raises(CorruptBundle, match="compressed in another way"):
            read(zipped(members(data), method), "x.ketch")
    assert outcome(zipped(members(data), zipfile.ZIP_STORED)) is not None


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "churn.ketch"
    save(b"one", path)
    save(b"two", path)
    assert path.read_bytes() == b"two"
    with pytest.raises(BundleError, match="cannot be written"):
        save(b"x", tmp_path / "nowhere" / "x.ketch")
    (tmp_path / "folder.ketch").mkdir()
    with pytest.raises(BundleError, match="cannot be written"):
        save(b"x", tmp_path / "folder.ketch")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["churn.ketch", "folder.ketch"]


def test_versions_and_pretty() -> None:
    found = versions({"numpy": "2"}, "0.1.0")
    assert list(found) == ["ketch", "python", "platform", "numpy"]
    assert bundle.pretty({"b": 1, "a": [0.1]}) == b'{\n "a": [\n  0.1\n ],\n "b": 1\n}\n'


# every past format keeps loading

FORMATS = Path(__file__).parent / "formats"


def test_every_format_has_a_committed_bundle() -> None:
    assert {int(folder.name) for folder in FORMATS.iterdir()} == set(range(1, bundle.FORMAT + 1))
    assert all(list(folder.glob("*.ketch")) for folder in FORMATS.iterdir())


@pytest.mark.parametrize("path", sorted(FORMATS.glob("*/*.ketch")), ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_bundle_of_any_past_format_loads_and_gives_its_answers(path: Path, tmp_path: Path) -> None:
    from ketch.predict import load

    predictor = load(path, home=tmp_path)  # asks its golden rows
    assert predictor.bundle.manifest.format == int(path.parent.name)
    assert len(predictor.bundle.golden.rows) > 40
    found = predictor.predict({"contract": "monthly", "tenure": 2, "charges": 80.0})
    assert found["churn"] is True
    assert found["churn_probability"] > 0.6
