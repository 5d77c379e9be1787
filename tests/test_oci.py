"""An image without an engine: the same bytes every time, layers as others write them, and no base that is not one."""

import gzip
import io
import json
import os
import re
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ketch.errors import ImageError, InputError
from ketch.image import oci
from ketch.image.base import opened
from ketch.image.tar import CHEAP, DIRECTORY, Counted, Entry, Tar, header, packed
from tests.images import HERE, MINOR, PYTHON, blob, config, context, layer, layout, put, saved, sha256, tarred

LAYER = layer()
EPOCH = 315532800
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=90).filter(
    lambda name: name not in {".", ".."}
)
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)


def archived(tmp_path: Path, files: Mapping[str, bytes | str], name: str = "out.tar") -> oci.Archived:
    base = put(tmp_path / "base.tar", files)
    return oci.archive(context({"small/fast.so": b"\x7fELF"}), base, tmp_path / name, environ=os.environ)


def members(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        found = {each: archive.extractfile(each) for each in archive.getmembers()}
        return {each.name: file.read() for each, file in found.items() if file is not None}


def refusal(tmp_path: Path, files: Mapping[str, bytes | str]) -> str:
    with pytest.raises(ImageError) as refused:
        archived(tmp_path, files)
    assert refused.value.hint
    assert {each.name for each in tmp_path.iterdir()} == {"base.tar"}, "something was left"
    return refused.value.message


# ---- what is written ---------------------------------------------------------------------------------


def test_an_archive_is_both_an_oci_layout_and_dockers(tmp_path: Path) -> None:
    made = archived(tmp_path, saved([LAYER]))
    files = members(made.path.read_bytes())
    assert all(sha256(data)[7:] == name.rpartition("/")[2] for name, data in files.items() if name.startswith("blobs/"))
    assert json.loads(files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    described = json.loads(files["index.json"])["manifests"][0]
    assert described["digest"] == made.digest
    assert described["platform"] == {"architecture": "amd64", "os": "linux"}
    manifest = json.loads(files[f"blobs/sha256/{made.digest[7:]}"])
    listed = json.loads(files["manifest.json"])[0]
    assert listed["RepoTags"] == ["churn:1"]
    assert listed["Config"] == f"blobs/sha256/{made.identity[7:]}"
    assert [f"blobs/sha256/{each['digest'][7:]}" for each in manifest["layers"]] == listed["Layers"]
    assert [sha256(files[each]) for each in listed["Layers"]] == [*made.layers]
    assert json.loads(files["repositories"]) == {"churn": {"1": made.layers[-1][7:]}}
    assert made.layers[0] == sha256(LAYER)
    assert made.python == made.compiled == HERE


def test_the_layers_hold_the_programs_and_then_the_model(tmp_path: Path) -> None:
    made = archived(tmp_path, saved([LAYER]))
    files = members(made.path.read_bytes())
    programs, model = (files[f"blobs/sha256/{each[7:]}"] for each in made.layers[1:])
    assert members(model) == {"model/churn.ketch": b"a model", "model/sbom.cdx.json": b"{}"}
    found = members(programs)
    assert found["app/site-packages/small/__init__.py"] == b"ONE = 1\n"
    assert f"app/site-packages/small/__pycache__/__init__.cpython-{MINOR.replace('.', '')}.pyc" in found
    with tarfile.open(fileobj=io.BytesIO(programs)) as archive:
        listed = archive.getmembers()
    assert {(each.uid, each.gid, each.uname, each.mtime) for each in listed} == {(0, 0, "", EPOCH)}
    modes = {each.name: each.mode for each in listed}
    assert modes["app"] == 0o40755
    if os.name == "posix":
        assert modes["app/site-packages/small/fast.so"] == 0o100755
    assert modes["app/site-packages/small/__init__.py"] == 0o100644


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    one, two = (archived(tmp_path, saved([LAYER]), name) for name in ("one.tar", "two.tar"))
    assert one.path.read_bytes() == two.path.read_bytes()


def test_the_configuration_is_what_a_dockerfile_makes_of_the_base(tmp_path: Path) -> None:
    told = config([LAYER], Labels={"a": "1", "b": "1"}, ExposedPorts={"80/tcp": {}}, StopSignal="SIGINT")
    made = archived(tmp_path, saved([LAYER], told))
    found = json.loads(members(made.path.read_bytes())[f"blobs/sha256/{made.identity[7:]}"])
    assert found["created"] == "1980-01-01T00:00:00Z"
    assert found["rootfs"]["diff_ids"] == [*made.layers]
    assert sum(not each.get("empty_layer") for each in found["history"]) == len(made.layers)
    assert found["config"] == {
        "Cmd": ["serve"],
        "Entrypoint": ["python3", "/app"],
        "Env": ["PATH=/opt/bin:/bin", "LANG=C", "HOME=/tmp", "KETCH_IMAGE=churn:1"],
        "ExposedPorts": {"80/tcp": {}, "9696/tcp": {}},
        "Healthcheck": {"Test": ["CMD", "python3", "x"], **oci.HEALTH},
        "Labels": {"a": "1", "b": "2"},
        "StopSignal": "SIGINT",
        "User": "10001:10001",
        "WorkingDir": "/tmp",
    }


def test_a_base_without_a_path_gets_the_one_that_engines_give(tmp_path: Path) -> None:
    told = config([LAYER])
    told["config"] = None
    del told["history"]
    made = archived(tmp_path, saved([LAYER], told))
    found = json.loads(members(made.path.read_bytes())[f"blobs/sha256/{made.identity[7:]}"])
    assert found["config"]["Env"][0] == f"PATH={oci.PATH}"
    assert sum(not each.get("empty_layer") for each in found["history"]) == len(made.layers)


@pytest.mark.parametrize(
    ("tag", "whole", "registered"),
    [
        ("churn", "churn:latest", "docker.io/library/churn:latest"),
        ("me/churn:2", "me/churn:2", "docker.io/me/churn:2"),
        ("localhost:5000/churn", "localhost:5000/churn:latest", "localhost:5000/churn:latest"),
    ],
)
def test_a_tag_is_written_in_full(tag: str, whole: str, registered: str) -> None:
    assert oci.tagged(tag) == whole
    assert oci.full(whole) == registered
    with pytest.raises(ImageError):
        oci.tagged(f"churn@{sha256(b'')}")


def test_nothing_is_there_until_all_of_it_is(tmp_path: Path) -> None:
    base = put(tmp_path / "base.tar", saved([LAYER]))
    with pytest.raises(InputError, match="cannot be written"):
        oci.archive(context(), base, tmp_path / "nowhere" / "out.tar", environ=os.environ)
    with pytest.raises(InputError, match="the base itself"):
        oci.archive(context(), base, base, environ=os.environ)
    (tmp_path / "old.tar").touch()
    with pytest.raises(ImageError, match=r"nowhere\.tar cannot be read"):
        oci.archive(context(), tmp_path / "nowhere.tar", tmp_path / "old.tar", environ=os.environ)
    (tmp_path / "old.tar").unlink()
    made = context()
    broken = replace(made, files={**made.files, "requirements.txt": b"small==1.0 --hash=sha256:" + b"0" * 64})
    with pytest.raises(ImageError, match=r"small 1\.0 is missing"):
        oci.archive(broken, base, tmp_path / "out.tar", environ=os.environ)
    assert [each.name for each in tmp_path.iterdir()] == ["base.tar"]


# ---- the bases that there are --------------------------------------------------------------------------


def linked() -> dict[str, Any]:
    files = saved([LAYER, LAYER])
    return {**files, "1/layer.tar": "../0/layer.tar"}


KINDS: dict[str, Callable[[], Mapping[str, bytes | str]]] = {
    "by docker": lambda: saved([LAYER]),
    "by docker, packed": lambda: saved([LAYER], packed=True),
    "by docker, with a link": linked,
    "OCI": lambda: layout(([LAYER], config([LAYER]))),
    "OCI, for several platforms": lambda: layout(
        ([tarred({})], config([tarred({})], "arm64")), ([LAYER], config([LAYER])), nested=True
    ),
}


@pytest.mark.parametrize("kind", [*KINDS])
def test_every_kind_of_archive_is_a_base(kind: str, tmp_path: Path) -> None:
    path = put(tmp_path / "base.tar", KINDS[kind]())
    packed_whole = tmp_path / "base.tar.gz"
    packed_whole.write_bytes(gzip.compress(path.read_bytes()))
    for each in (path, packed_whole):
        with opened(each, "linux/amd64") as base:
            told = []
            for found in base.layers:
                out = io.BytesIO()
                unpack = gzip.decompress if base.copy(found, out.write) else bytes
                told.append(unpack(out.getvalue()))
        assert {*told} == {LAYER}
        assert base.pythons == {MINOR: {HERE}}


def test_a_layer_that_comes_twice_is_kept_once(tmp_path: Path) -> None:
    made = archived(tmp_path, linked())
    assert len(made.layers) == 4
    with tarfile.open(made.path) as archive:
        names = archive.getnames()
    assert len(names) == len({*names})


def test_of_several_images_the_one_with_the_name_is_taken(tmp_path: Path) -> None:
    other = layer(other=b"2")
    one, two = saved([LAYER]), saved([other])
    files = {**{f"x/{name}": data for name, data in two.items()}, **one}
    named = json.loads(one["manifest.json"]) + json.loads(two["manifest.json"])
    named[1] |= {"Config": f"x/{named[1]['Config']}", "Layers": ["x/0/layer.tar"], "RepoTags": ["other:2"]}
    path = put(tmp_path / "base.tar", {**files, "manifest.json": json.dumps(named).encode()})
    with opened(path, "linux/amd64", "other:2") as base:
        assert base.layers[0].diff_id == sha256(other)
    with pytest.raises(ImageError, match="several images"), opened(path, "linux/amd64", "third:3"):
        pass


# ---- no base -------------------------------------------------------------------------------------------


def foreign(**more: Any) -> dict[str, Any]:
    files = layout(([LAYER], config([LAYER])))
    index = json.loads(files["index.json"])
    manifest = json.loads(files[f"blobs/sha256/{index['manifests'][0]['digest'][7:]}"])
    manifest["layers"][0] |= more
    index["manifests"] = [blob(files, json.dumps(manifest).encode(), "application/vnd.oci.image.manifest.v1+json")]
    return {**files, "index.json": json.dumps(index).encode()}


def endless() -> dict[str, Any]:
    files: dict[str, Any] = {}
    kind = "application/vnd.oci.image.index.v1+json"
    listed = blob(files, b'{"manifests": []}', kind)
    for _ in range(5):
        listed = blob(files, json.dumps({"manifests": [listed]}).encode(), kind)
    return {**files, "index.json": json.dumps({"manifests": [listed]}).encode()}


def changed(name: str, data: bytes | str) -> dict[str, Any]:
    files = saved([LAYER])
    return {**files, next(each for each in files if each.endswith(name)): data}


def without(name: str) -> dict[str, Any]:
    return {each: data for each, data in saved([LAYER]).items() if not each.endswith(name)}


def told(**more: Any) -> dict[str, Any]:
    return saved([LAYER], {**config([LAYER]), **more})


OUT = tarred({"../../etc/cron.d/job": b"x", PYTHON: b"x"})
GNU = tarfile.TarInfo("x")
GNU.type, GNU.size = tarfile.GNUTYPE_LONGNAME, 2**32
SPARSE = tarfile.TarInfo("x")
SPARSE.type, SPARSE.size = tarfile.GNUTYPE_SPARSE, 2**40
HOSTILE: dict[str, tuple[Callable[[], Mapping[str, bytes | str]], str]] = {
    "not an image": (lambda: {"readme": b"x"}, "neither manifest.json nor index.json"),
    "a member that leads out": (lambda: {**saved([LAYER]), "../x": b""}, "leads out of it"),
    "a member from the root": (lambda: {**saved([LAYER]), "/etc/passwd": b""}, "leads out of it"),
    "a file that leads out of a layer": (lambda: saved([OUT], config([OUT])), "leads out of it"),
    "a layer that was changed": (lambda: changed("layer.tar", layer("3.0.0")), "not what its hash says"),
    "a layer that is cut": (lambda: changed("layer.tar", LAYER[:700]), "what its hash says|cannot be read"),
    "a layer that is no tar": (lambda: saved([b"x" * 2000]), "cannot be read"),
    "a layer packed and cut": (lambda: changed("layer.tar", gzip.compress(LAYER)[:-9]), "cannot be read"),
    "a layer packed by zstd": (lambda: saved([b"\x28\xb5\x2f\xfd" + bytes(600)]), "packed by zstd"),
    "a layer by OCI's zstd": (
        lambda: foreign(mediaType="application/vnd.oci.image.layer.v1.tar+zstd"),
        r"stored as '.*zstd'",
    ),
    "a layer from elsewhere": (lambda: foreign(urls=["https://x.example"]), "stored elsewhere"),
    "a layer of another size": (lambda: foreign(size=1), "another size"),
    "a hash that is none": (lambda: foreign(digest="sha256:../../../etc/passwd"), "no hash by SHA-256"),
    "a missing layer": (lambda: without("layer.tar"), "is missing"),
    "a link in a ring": (lambda: changed("layer.tar", "layer.tar"), "is missing"),
    "no configuration": (
        lambda: without("5" * 0 + next(each for each in saved([LAYER]) if len(each) == 69)),
        "is missing",
    ),
    "a configuration of another hash": (lambda: changed(".json", b"{}"), "not what its hash says"),
    "a configuration without layers": (lambda: told(rootfs={"diff_ids": []}), "other layers"),
    "a configuration of something else": (lambda: told(rootfs=1), "cannot be read"),
    "an environment that is none": (lambda: told(config={"Env": [1]}), "environment of the base"),
    "labels that are none": (lambda: told(config={"Labels": "x"}), "configuration of the base"),
    "orders for an engine": (lambda: told(config={"OnBuild": ["RUN x"]}), "ONBUILD"),
    "another platform": (lambda: told(architecture="arm64"), "no image for linux/amd64"),
    "another Python": (lambda: saved([tarred({"usr/bin/python3.9": b"3.9.1\0"})]), r"the base has Python 3\.9"),
    "no Python": (lambda: saved([tarred({"bin/sh": b""})]), "the base has no Python"),
    "an index of itself": (endless, "lists itself"),
    "a deep text": (lambda: changed("manifest.json", b"[" * 100_000), "cannot be read"),
    "a long text": (lambda: changed("manifest.json", b" " * (9 * 2**20)), "too large"),
    "a name without end": (lambda: saved([GNU.tobuf() + bytes(1024)]), "name is too long"),
    "a file that is mostly holes": (lambda: saved([SPARSE.tobuf() + bytes(1024)]), "no honest size"),
}


@pytest.mark.parametrize("kind", [*HOSTILE])
def test_what_is_no_base_is_refused_in_words(kind: str, tmp_path: Path) -> None:
    files, said = HOSTILE[kind]
    message = refusal(tmp_path, files())
    assert re.search(said, message), message


def test_a_layer_that_unpacks_to_far_too_much_is_refused(tmp_path: Path) -> None:
    bomb = tarred({PYTHON: bytes(CHEAP + 2**20)})
    assert "more than can honestly be in it" in refusal(tmp_path, saved([bomb], packed=True))


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "base.tar"
    whole = tarred(saved([LAYER]))
    for data in (b"x" * 5000, gzip.compress(whole)[:300], whole[:1000], tarred({"manifest.json": b"[]"})):
        path.write_bytes(data)
        with pytest.raises(ImageError), opened(path, "linux/amd64"):
            pass
    with pytest.raises(ImageError, match="cannot be read"), opened(tmp_path / "nowhere", "linux/amd64"):
        pass
    files = saved([LAYER])
    put(path, {**files, "./manifest.json": files["manifest.json"]})
    with pytest.raises(ImageError, match="twice"), opened(path, "linux/amd64"):
        pass


# ---- the interpreter -----------------------------------------------------------------------------------


def test_the_interpreter_is_the_bases_own_version_or_the_nearest(tmp_path: Path) -> None:
    assert oci.interpreter(MINOR, HERE, {})[1] == HERE
    assert oci.interpreter(MINOR, f"{MINOR}.999", os.environ)[1].startswith(f"{MINOR}.")
    with pytest.raises(ImageError, match=r"no Python 3\.99"):
        oci.interpreter("3.99", "3.99.1", {**os.environ, "PATH": str(tmp_path)})
    made = archived(tmp_path, saved([layer(f"{MINOR}.999")]))
    assert (made.python, made.compiled) == (f"{MINOR}.999", HERE)


@pytest.mark.parametrize(
    ("version", "programs", "found"),
    [
        ("", ["3.11.2"], "3.11.2"),
        ("3.11.14", ["3.11.2", "3.11.14"], "3.11.14"),
        ("3.11.9", ["3.11.2"], "3.11.2"),
        ("3.11.9", [""], "3.11.9"),
        ("3.11./../../tmp/python", [""], "3.11"),
        ("3.12.1", [""], "3.11"),
    ],
)
def test_the_bases_version_is_read_in_its_programs(
    version: str, programs: list[str], found: str, tmp_path: Path
) -> None:
    files = {f"usr/lib{number}/libpython3.11.so.1.0": f"x\0{each}\0".encode() for number, each in enumerate(programs)}
    made = tarred({**files, "usr/bin/python3.11": "elsewhere"})
    base = put(tmp_path / "base.tar", saved([made], config([made], Env=[f"PYTHON_VERSION={version}"])))
    with opened(base, "linux/amd64") as below:
        below.copy(below.layers[0], lambda data: None)
        assert oci.version_of(below, "3.11") == found
        with pytest.raises(ImageError, match=r"needs Python 3\.12, and the base has Python 3\.11"):
            oci.version_of(below, "3.12")


# ---- tar as engines write it ---------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(st.dictionaries(PATHS, st.binary(max_size=1500), max_size=6), st.integers(0, 8**11 - 1))
def test_what_is_packed_is_read_again(files: dict[str, bytes], epoch: int) -> None:
    entries = [Entry("app")]
    entries += [Entry(f"app/{name}", 0o644, lambda data=data: data) for name, data in files.items()]  # type: ignore[misc]
    data = b"".join(packed(entries, epoch))
    assert len(data) % 512 == 0
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        listed = archive.getmembers()
        found = {each.name: archive.extractfile(each).read() for each in listed[1:]}  # type: ignore[union-attr]
    assert listed[0].isdir()
    assert {each.mtime for each in listed} == {epoch}
    assert found == {f"app/{name}": content for name, content in files.items()}
    read = Counted(io.BytesIO(data))
    tar = Tar(read)
    ours = {each.name.removesuffix("/"): tar.read() for each in tar}
    assert ours == {"app": b"", **found}
    assert read.size >= len(data) - 512


@settings(deadline=None, max_examples=60)
@given(
    st.dictionaries(PATHS, st.binary(max_size=600), max_size=5),
    st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
def test_what_others_pack_is_read(files: dict[str, bytes], how: int) -> None:
    tar = Tar(io.BytesIO(tarred(files, format=how)))
    assert {each.name: tar.read() for each in tar} == files


@settings(deadline=None, max_examples=150)
@given(st.binary(max_size=3000), st.integers(0, 2000))
def test_noise_is_refused_or_read_and_nothing_else_happens(noise: bytes, at: int) -> None:
    for data in (noise, LAYER[:at] + noise + LAYER[at + len(noise) :]):
        try:
            for each in Tar(Counted(io.BytesIO(data))):
                assert each.size >= 0
        except (tarfile.TarError, ValueError):
            pass


def test_headers_are_those_that_go_writes() -> None:
    """Names that are short, split, extended, of other letters; the hashes are of headers in a layer by buildah 1.28."""
    long, wide = "b" * 90, "日本" * 40
    folders = ["d", f"d/{long}/{'c' * 100}", f"d/{'f' * 120}", f"d/{'h' * 97}", f"d/{'n' * 98}é", "d/é", f"d/{wide}"]
    files = [f"d/{long}/{'c' * 90}/x.py", f"d/{'e' * 200}.txt", f"d/{'h' * 98}/i", f"d/{'n' * 99}", "d/é/naïve.py"]
    made = [header(name, 0, 0o755, EPOCH, DIRECTORY) for name in folders]
    made += [header(name, 1, 0o644, EPOCH) for name in [*files, f"d/é/{'a' * 150}.py", f"d/{wide}/{'p' * 99}"]]
    made += [header("d/exe", 1, 0o755, EPOCH), header("d/big", 3_000_000, 0o644, EPOCH)]
    assert sha256(b"".join(made)) == "sha256:7d85e19cd88e3cbaa5cb22b8d9df2af964c0c9b9306dac14c340c06086ebf302"
