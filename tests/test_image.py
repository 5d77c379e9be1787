"""What an image is built from, the programs that go in, and the words in which an engine's refusals come."""

import dataclasses
import hashlib
import http.server
import importlib.util
import io
import json
import marshal
import os
import pickle
import re
import signal
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.machinery import SourcelessFileLoader
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sklearn.linear_model import LogisticRegression

from ketch import bundle, image, settings
from ketch import pack as ketch_pack
from ketch.cli.image import open_model
from ketch.errors import ImageError, InputError, NoEngine, TrustError
from ketch.image import (
    BASES,
    MODES,
    Context,
    Recipe,
    Wheel,
    context,
    engine,
    entrypoint,
    install,
    recipe_of,
    sbom,
    wheels,
)
from ketch.image.proof import event_of
from ketch.image.wheels import Pin
from ketch.serve import functions
from tests.doors import Small
from tests.images import installer, wheel
from tests.running import ketch

SEVERAL = ("site-packages/alone.py", "site-packages/small/__init__.py", "site-packages/small/part.so")


def made(name: str = "small", files: Mapping[str, bytes] | None = None) -> Wheel:
    filename, data = wheel(name, files or {f"{name}/__init__.py": b"ONE = 1\n"})
    return Wheel(name, "1.0", filename, data)


def composed(small: Small, **given: Any) -> Context:
    data = small.bundle.read_bytes()
    opened = bundle.read(data, "churn")
    tool, unpacker = installer()
    listed = [made(), Wheel("installer", tool.split("-")[1], tool, unpacker, tool=True)]
    return context(opened, data, listed, recipe_of(opened, {}, **given))


# ---- the context -------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_hadolint_finds_nothing_to_mend(mode: str, small: Small, tmp_path: Path) -> None:
    path = tmp_path / "Dockerfile"
    path.write_bytes(composed(small, mode=mode).files["Dockerfile"])
    done = subprocess.run([Path(sys.executable).with_name("hadolint"), path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_dockerfile_is_one_for_old_builders_and_for_bases_without_a_shell(small: Small) -> None:
    text = composed(small).files["Dockerfile"].decode()
    assert "# syntax=" not in text
    assert "<<" not in text
    assert "--mount" not in text
    runs = re.findall(r"^(?:RUN|ENTRYPOINT|CMD|\s+CMD) (.*)$", text, re.MULTILINE)
    assert len(runs) == 4
    assert all(isinstance(json.loads(each), list) for each in runs)
    assert re.findall(r"^USER (.*)$", text, re.MULTILINE)[-1] == "10001:10001"
    copies = re.findall(r"^COPY .*$", text, re.MULTILINE)
    assert copies[-1] == "COPY model/ sbom.cdx.json /model/"


def test_the_same_input_gives_the_same_files(small: Small, tmp_path: Path) -> None:
    first, second = composed(small), composed(small)
    assert first.files == second.files
    image.write(first, tmp_path / "there")
    found = {path.relative_to(tmp_path / "there").as_posix(): path for path in (tmp_path / "there").rglob("*")}
    assert {name for name, path in found.items() if path.is_file()} == {*first.files}
    assert {path.stat().st_mtime for path in found.values()} == {float(image.EPOCH)}


def test_the_time_and_what_it_is_called_are_told(small: Small) -> None:
    opened = bundle.read(small.bundle.read_bytes(), "churn")
    recipe = recipe_of(opened, {"SOURCE_DATE_EPOCH": "1767225600"})
    assert recipe.tag == f"churn:{opened.sha256[:12]}"
    found = context(opened, b"", [made()], recipe)
    assert found.config.labels["org.opencontainers.image.created"] == "2026-01-01T00:00:00+00:00"
    assert json.loads(found.files[image.SBOM])["metadata"]["timestamp"] == "2026-01-01T00:00:00+00:00"
    assert "timestamp" not in json.loads(composed(small).files[image.SBOM])["metadata"]
    for wrong in ("soon", "9999999999"):  # which no archive can hold
        with pytest.raises(InputError, match=f"SOURCE_DATE_EPOCH is '{wrong}'"):
            recipe_of(opened, {"SOURCE_DATE_EPOCH": wrong})


def test_code_of_its_maker_is_approved_by_name_in_the_image(small: Small) -> None:
    assert composed(small, trusted=True).config.command[-1] == f"--trust=sha256:{small.predictor.bundle.sha256}"
    job = composed(small, trusted=True, mode="job").config
    assert job.entrypoint[-1].startswith("--trust=")
    assert job.command == ("--help",)


@pytest.mark.parametrize("text", ["UPPER:1", "a:b:c", "x:-y", "a..b/c", "a/", f"{'a' * 500}:1"])
def test_what_no_engine_takes_for_a_name_is_told_before_anything_is_built(text: str) -> None:
    with pytest.raises(InputError, match="is no tag") as caught:
        Recipe(tag=text)
    assert "small letters" in caught.value.hint
    with pytest.raises(InputError, match="is no base image"):
        Recipe(base=text)


def test_an_image_is_called_as_one_may_be(small: Small) -> None:
    by_digest = f"ghcr.io/some.one/under_score/two--dashes:V1.2-x@sha256:{'a' * 64}"
    assert Recipe(base=by_digest, tag="localhost:5000/ketch__x/churn").base == by_digest
    with pytest.raises(InputError, match="is no tag"):
        Recipe(tag=by_digest)
    opened = bundle.read(small.bundle.read_bytes(), "churn")
    for name, called in (("model-", "model"), ("x___y", "x-y"), ("a._b.", "a-b"), ("a_b", "a_b")):
        named = msgspec.structs.replace(opened, manifest=msgspec.structs.replace(opened.manifest, name=name))
        assert recipe_of(named, {}).tag == f"{called}:{opened.sha256[:12]}"


@pytest.mark.parametrize("text", ["a b", "$(touch evil)", "x\nRUN evil", "-v", "", "ä", 'x" evil="'])
def test_no_reference_can_write_into_the_dockerfile(text: str, small: Small) -> None:
    if text:
        with pytest.raises(InputError, match="is no base image"):
            Recipe(base=text)
        with pytest.raises(InputError, match="is no tag"):
            Recipe(tag=text)
    told = dataclasses.replace(composed(small).config, labels={"x": f"{text}\\"})
    with pytest.raises(ImageError, match="cannot stand in a Dockerfile"):
        image.TEMPLATES.rendered(
            "Dockerfile", {"config": told, "tag": "t", "base": "b", "epoch": 1, "platform": "p", "pinned": True}
        )


def test_a_python_without_a_base_image_is_told(small: Small) -> None:
    opened = bundle.read(small.bundle.read_bytes(), "churn")
    old = msgspec.structs.replace(opened.manifest, versions={**opened.manifest.versions, "python": "3.99.1"})
    with pytest.raises(ImageError, match=r"no image of Python 3\.99") as caught:
        context(msgspec.structs.replace(opened, manifest=old), b"", [], recipe_of(opened, {}))
    assert "--base-image" in caught.value.hint


def test_bases_are_pinned_to_a_full_version() -> None:
    for python, base in BASES.items():
        assert re.fullmatch(rf"python:{re.escape(python)}\.\d+-slim-bookworm", base)


# ---- the bill of materials ---------------------------------------------------------------------------


def test_the_bill_names_the_model_and_every_wheel_with_its_hash_and_licence(small: Small) -> None:
    opened = bundle.read(small.bundle.read_bytes(), "churn")
    listed = [
        made("expressed", _told("License-Expression: MIT")),
        made("classified", _told("Classifier: License :: OSI Approved :: BSD License")),
        made("said", _told("License: as you like it\n        and more")),
        made("silent"),
    ]
    found = json.loads(sbom.written(opened, listed, Recipe()))
    assert (found["bomFormat"], found["specVersion"]) == ("CycloneDX", "1.6")
    by_name = {(each["type"], each["name"]): each for each in found["components"]}
    model = by_name["machine-learning-model", "churn"]
    assert model["hashes"] == [{"alg": "SHA-256", "content": opened.sha256}]
    for each in listed:
        assert by_name["library", each.name]["hashes"][0]["content"] == each.sha256
        assert by_name["library", each.name]["purl"] == f"pkg:pypi/{each.name}@1.0"
    licences = {name: component.get("licenses") for (_, name), component in by_name.items()}
    assert licences["expressed"] == [{"expression": "MIT"}]
    assert licences["classified"] == [{"license": {"name": "BSD License"}}]
    assert licences["said"] == [{"license": {"name": "as you like it"}}]
    assert licences["silent"] is None


def _told(line: str) -> dict[str, bytes]:
    """Give files of a wheel in which its METADATA says one thing more; the first of two is read."""
    return {"x-1.0.dist-info/METADATA": f"Metadata-Version: 2.1\nName: x\n{line}\n".encode()}


# ---- what unpacks the wheels -------------------------------------------------------------------------


def laid_out(folder: Path, *listed: Wheel, lock: str = "", python: str = "") -> Path:
    """Lay out what `install` reads of a context."""
    here = python or f"{sys.version_info[0]}.{sys.version_info[1]}"
    (folder / "wheels").mkdir(parents=True)
    for each in listed:
        (folder / "wheels" / each.filename).write_bytes(each.data)
    pinned = "".join(f"{each.name}=={each.version} --hash=sha256:{each.sha256}\n" for each in listed)
    (folder / "requirements.txt").write_text(f"# Python {here}, linux/amd64\n{lock or pinned}")
    (folder / "entrypoint.py").write_text("print('entered')\n")
    return folder


FILES = {
    "small/__init__.py": b"WORDS = frozenset({'a', 'b', 'c'})\n",
    "small/part.so": b"\x7fELF",
    "small/part.c": b"int x;",
    "small/part.pyi": b"x: int",
    "small/template.py": b"{{ no python }}",
    "numpy/tests/test_a.py": b"",
    "numpy/tests/_kept.py": b"",
    "other/tests/test_a.py": b"",
    "pip/__init__.py": b"",
    "onnxruntime/capi/libonnxruntime.so.1.2": b"",
    "small-1.0.data/scripts/run": b"#!python\n",
    "small-1.0.data/data/share/more.txt": b"",
    "small-1.0.data/purelib/alone.py": b"",
    "small-1.0.dist-info/INSTALLER": b"pip",
}


def test_what_is_installed_is_what_runs_and_nothing_else(tmp_path: Path) -> None:
    source = laid_out(tmp_path / "context", made(files=FILES))
    install.install(source, tmp_path / "app")
    found = {path.relative_to(tmp_path / "app").as_posix() for path in install.walk(tmp_path / "app")}
    packages = {each.removeprefix("site-packages/") for each in found if "__pycache__" not in each}
    assert packages == {
        "__main__.py", "alone.py", "small/__init__.py", "small/part.so", "small/part.pyi", "small/template.py",
        "numpy/tests/_kept.py", "other/tests/test_a.py",
        "small-1.0.dist-info/METADATA", "small-1.0.dist-info/WHEEL",
    }  # fmt: skip
    assert not [each for each in found if "template.cpython" in each]
    modes = {name: (tmp_path / "app" / name).stat().st_mode & 0o777 for name in SEVERAL}
    assert modes == dict(zip(SEVERAL, (0o644, 0o644, 0o755), strict=True))
    times = {path.stat().st_mtime for path in [tmp_path / "app", *(tmp_path / "app").rglob("*")]}
    assert times == {float(install.EPOCH)}


def test_compiled_files_are_taken_unchecked_and_know_where_they_will_stand(tmp_path: Path) -> None:
    source = laid_out(tmp_path / "context", made(files=FILES))
    install.install(source, tmp_path / "app")
    path = Path(importlib.util.cache_from_source(str(tmp_path / "app/site-packages/small/__init__.py")))
    data = path.read_bytes()
    assert data[:4] == importlib.util.MAGIC_NUMBER
    assert int.from_bytes(data[4:8], "little") == 0b01
    assert marshal.loads(data[16:]).co_filename == "/app/site-packages/small/__init__.py"
    assert SourcelessFileLoader("small", str(path)).get_code("small") is not None


def tree(folder: Path) -> str:
    """Give a digest of a folder: names, modes, times and bytes."""
    told = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        status = path.stat()
        told.update(f"{path.relative_to(folder)} {status.st_mode} {status.st_mtime}".encode())
        told.update(path.read_bytes() if path.is_file() else b"")
    return told.hexdigest()


def test_two_processes_make_the_same_bytes(tmp_path: Path) -> None:
    tool, unpacker = installer()
    source = laid_out(tmp_path / "context", made(files=FILES))
    (source / "tools").mkdir()
    (source / "tools" / tool).write_bytes(unpacker)
    environ = {**os.environ, "PYTHONHASHSEED": "0", "SOURCE_DATE_EPOCH": "1000000000"}
    for name in ("one", "two"):
        words = [sys.executable, "-S", install.__file__, str(source), str(tmp_path / name)]  # -S: by the tool's wheel
        subprocess.run(words, env={**environ, "UNRELATED": name}, check=True)
    assert tree(tmp_path / "one") == tree(tmp_path / "two")
    assert (tmp_path / "one").stat().st_mtime == 1000000000


@pytest.mark.parametrize(
    ("lock", "python", "reason"),
    [
        (f"small==1.0 --hash=sha256:{'0' * 64}", "", r"small 1\.0 is missing, or is not the file"),
        ("other==1.0", "", r"small-1\.0-.*\.whl does not stand in requirements\.txt"),
        ("", "3.99", r"the wheels are for Python 3\.99, and this is"),
    ],
)
def test_wheels_that_are_not_what_the_lock_says_are_refused(
    lock: str, python: str, reason: str, tmp_path: Path
) -> None:
    source = laid_out(tmp_path / "context", made(), lock=lock, python=python)
    with pytest.raises(install.Refused, match=reason):
        install.install(source, tmp_path / "app")
    with pytest.raises(SystemExit, match=reason):
        install.main([str(source), str(tmp_path / "app")])


@pytest.mark.parametrize("path", ["../x.py", "/x.py", "a/../../x.py", "a\\x.py"])
def test_no_path_leads_out_of_the_folder(path: str) -> None:
    with pytest.raises(install.Refused, match="leads out"):
        install.inside(path)


# ---- the first process -------------------------------------------------------------------------------


def test_without_a_key_it_says_how_to_start_it() -> None:
    told = entrypoint.lacks_key(["serve", "/model/x.ketch"], {"KETCH_IMAGE": "churn:1", "PORT": "8080"})
    assert told.endswith("docker run -e KETCH_API_KEYS -p 127.0.0.1:8080:8080 churn:1")
    assert entrypoint.lacks_key(["serve"], {"PORT": "none"}).endswith("-p 127.0.0.1:9696:9696 IMAGE")


@pytest.mark.parametrize(
    ("words", "environ"),
    [
        (["serve"], {"KETCH_API_KEYS": "k"}),
        (["serve"], {"KETCH_API_KEYS_FILE": "/keys"}),
        (["serve"], {"KETCH_JWT_JWKS": "https://x"}),
        (["serve"], {"KETCH_AUTH": "platform"}),
        (["serve", "x", "--auth", "none"], {}),
        (["serve", "--help"], {}),
        (["score", "x"], {}),
        ([], {}),
    ],
)
def test_who_may_call_can_be_said_in_many_ways(words: list[str], environ: dict[str, str]) -> None:
    assert entrypoint.lacks_key(words, environ) == ""


def test_it_writes_where_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: path != "/tmp")
    environ = {"HOME": "/tmp", "KETCH_HOME": "/tmp/.ketch"}
    entrypoint.find_room(environ)
    assert environ == {"HOME": "/dev/shm", "KETCH_HOME": "/dev/shm/.ketch", "TMPDIR": "/dev/shm"}
    own = {"TMPDIR": "/scratch", "HOME": "/tmp", "KETCH_HOME": "/data"}
    entrypoint.find_room(own)
    assert own == {"TMPDIR": "/scratch", "HOME": "/tmp", "KETCH_HOME": "/data"}


@pytest.mark.parametrize(
    ("files", "most"),
    [
        ({}, 64),
        ({"cpu.max": "150000 100000", "memory.max": "max"}, 2),
        ({"cpu.max": "max 100000", "memory.max": str(256 * 2**20)}, 2),
        ({"cpu.max": "50000 100000"}, 1),
        ({"memory.max": str(10 * 2**20)}, 1),
        ({"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 64),
        ({"memory/memory.limit_in_bytes": "9223372036854771712"}, 64),
    ],
)
def test_workers_are_as_many_as_the_container_is_enough_for(
    files: dict[str, str], most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(64), raising=False)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    assert entrypoint.workers(tmp_path) == most


@contextmanager
def answering(status: int) -> Iterator[tuple[int, list[str]]]:
    """Answer every question with one status; note by which host it was asked."""
    hosts: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            hosts.append(self.headers["Host"])
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server.server_port, hosts
        server.shutdown()


def test_health_is_what_the_service_says_at_a_host_it_answers_to() -> None:
    with answering(200) as (port, hosts):
        assert entrypoint.main(["health", "/health/ready"], {"PORT": str(port)}) == 0
        told = {"KETCH_PORT": str(port), "PORT": "1", "KETCH_ALLOWED_HOSTS": "*.example.com, x"}
        assert entrypoint.main(["health", "/health/ready"], told) == 0
    assert hosts == [f"127.0.0.1:{port}", "health.example.com"]
    with answering(503) as (port, _):
        assert entrypoint.main(["health", "/health/ready"], {"PORT": str(port)}) == 1
    assert entrypoint.main(["health", "/health/ready"], {"PORT": str(port)}) == 1  # nobody is there any more


OWN = """
def one(rows):
    return [{"probability": 0.25} for row in rows]

one.fields = {"tenure": "number"}
one.task = "binary"
"""


def test_a_function_opens_code_that_the_maker_of_its_image_has_approved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_function.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("KETCH_HOME", str(tmp_path / "home"))
    import own_function  # type: ignore[import-not-found]

    path = tmp_path / "own.ketch"
    ketch_pack(own_function.one, str(path), target="churn", name="own")
    monkeypatch.setattr("awslambdaric.__main__.main", list)  # Amazon's client would wait for events for ever
    told = {"KETCH_HOME": str(tmp_path / "elsewhere"), "KETCH_AUTH": "platform"}
    with pytest.raises(TrustError):
        entrypoint.main(["lambda", str(path)], dict(told))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert entrypoint.main(["lambda", str(path), f"--trust=sha256:{digest}"], dict(told)) == 0
    assert functions.handler(event_of("/health/ready"), None)["statusCode"] == 200


def test_a_model_file_is_packed_as_it_is(small: Small, tmp_path: Path) -> None:
    path = tmp_path / "plain.pkl"
    path.write_bytes(pickle.dumps(LogisticRegression().fit([[0.0], [1.0], [2.0]], [0, 1, 1])))
    told = settings.read({}, environ={"KETCH_HOME": str(tmp_path)}, folder=tmp_path, without_file=True)
    opened = open_model(str(path), told)
    assert (opened.bundle.manifest.name, opened.signature, opened.version) == ("plain", b"", "")
    assert bundle.read(opened.data, "plain").sha256 == opened.bundle.sha256


# ---- wheels ------------------------------------------------------------------------------------------


def test_the_own_wheel_is_whole_and_the_same_every_time() -> None:
    first, second = wheels.own_wheel(), wheels.own_wheel()
    assert first.sha256 == second.sha256
    with zipfile.ZipFile(io.BytesIO(first.data)) as opened:
        names = opened.namelist()
        assert {"ketch/__init__.py", "ketch/image/install.py", "ketch/image/templates/Dockerfile.jinja"} <= {*names}
        record = opened.read(f"ketch-{first.version}.dist-info/RECORD").decode()
    assert {line.split(",")[0] for line in record.splitlines()} == {*names}
    assert not [each for each in names if "__pycache__" in each or "/tests/" in each]


LINES = (
    f"a==1 ; platform_machine == 'x86_64' --hash=sha256:{'a' * 64}",
    f"a==2 ; platform_machine == 'aarch64' --hash=sha256:{'b' * 64} --hash=sha256:{'c' * 64}",
    f"Big_Name==1.0 --hash=sha256:{'d' * 64}",
)


@pytest.mark.parametrize(("platform", "version"), [("linux/amd64", "1"), ("linux/arm64", "2")])
def test_a_platform_gets_its_own_versions(platform: str, version: str, small: Small) -> None:
    lock = {"requirements.txt": "\n".join(LINES).encode()}
    opened = small.predictor.bundle
    needed = wheels.environment(opened, Recipe(platform=platform))
    found = wheels.pins(needed, opened, Recipe(platform=platform), lambda *_: lock)
    assert [(each.name, each.version) for each in found] == [("a", version), ("big-name", "1.0")]


def test_only_what_is_asked_for_goes_in() -> None:
    def wheel_of(name: str, *needs: str) -> Wheel:
        told = "".join(f"Requires-Dist: {each}\n" for each in needs)
        text = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n{told}"
        return made(name, {"a-1.dist-info/METADATA": text.encode()})

    listed = [
        wheel_of("app", "part[fast]>=1", 'winter; sys_platform == "win32"', "rich"),
        wheel_of("part", 'quick; extra == "fast"', 'slow; extra == "slow"', "app"),
        *map(wheel_of, ("quick", "slow", "winter", "rich", "pygments")),
    ]
    there = wheels._there("3.11", "linux/amd64")
    assert [each.name for each in wheels.reached(listed, ["app>=0", "missing"], there)] == ["app", "part", "quick"]


def test_a_strange_extra_is_told(small: Small) -> None:
    with pytest.raises(InputError, match="no extra 'arow'") as caught:
        wheels.environment(small.predictor.bundle, Recipe(extras=("arow",)))
    assert "arrow" in caught.value.hint


def test_a_kept_wheel_is_held_against_its_hash(tmp_path: Path) -> None:
    kept = made()
    pin = Pin("small", "1.0", (kept.sha256,))
    place = tmp_path / wheels._digest(pin, "3.11", "linux/amd64")
    place.mkdir()
    (place / kept.filename).write_bytes(kept.data)
    told = {"python": "3.11", "platform": "linux/amd64", "cache": tmp_path}
    assert wheels.fetch([pin], environ={}, **told) == [kept]  # type: ignore[arg-type]
    (place / kept.filename).write_bytes(b"changed")
    nowhere = {"PATH": os.environ["PATH"], "PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull}
    with pytest.raises(ImageError, match="The wheels cannot be fetched"):
        wheels.fetch([pin], environ=nowhere, **told)  # type: ignore[arg-type]


def test_no_password_of_an_index_is_told() -> None:
    said = "ERROR: Could not find a version that satisfies x from https://me:hush@index.example/simple"
    told = wheels._explained(said, "linux/arm64")
    assert "hush" not in told.message
    assert "linux/arm64" in told.hint


def test_platforms_of_wheels_go_down_from_glibc_2_28() -> None:
    tags = wheels.tags_of("linux/arm64")
    assert tags[0] == "manylinux_2_28_aarch64"
    assert {"manylinux_2_17_aarch64", "manylinux2014_aarch64"} <= {*tags}


# ---- engines -----------------------------------------------------------------------------------------


def test_where_there_is_no_engine_other_ways_are_told(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoEngine, match="no container engine") as caught:
        engine.find()
    assert "--context" in caught.value.hint
    assert "--daemonless" in caught.value.hint
    (tmp_path / "docker").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "docker").chmod(0o755)
    with pytest.raises(NoEngine, match="docker is here but does not answer"):
        engine.find()
    done = ketch("image", small.bundle, home=tmp_path, PATH=str(tmp_path))
    assert done.returncode == 1
    assert "does not answer" in done.stderr


def fake(folder: Path, program: str) -> engine.Engine:
    """Make an engine of a few lines of Python."""
    path = folder / "engine"
    path.write_text(f"#!{sys.executable}\nimport sys\n{program}\n")
    path.chmod(0o755)
    return engine.Engine("docker", str(path))


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        ("exec format error", "--daemonless"),
        ("pull access denied for x", "--base-image"),
        ('exec: "python3": executable file not found', "no python3"),
        ("was found but does not match the specified platform", "--daemonless"),
        ('short-name "x:1" did not resolve to an alias', "--base-image"),
        ("no space left on device", "What it said last stands above."),
    ],
)
def test_a_build_that_fails_shows_its_last_lines_and_a_remedy(said: str, hint: str, tmp_path: Path) -> None:
    broken = fake(tmp_path, f"print({said!r}); sys.exit(1)")
    with pytest.raises(ImageError, match=f"docker build failed: {said}") as caught:
        broken.build(tmp_path, "churn:1", "linux/arm64")
    assert hint in caught.value.hint


def test_an_engine_is_told_everything_but_secrets(tmp_path: Path) -> None:
    noted = tmp_path / "noted"
    program = f"""
import os
open({str(noted)!r}, "a").write(f"{{' '.join(sys.argv[1:])}} = {{os.environ.get('KETCH_API_KEYS', '')}}\\n")
"""
    with fake(tmp_path, program).started("churn:1", environ={"KETCH_API_KEYS": "hush"}, port=9696):
        pass
    run, _, removed = noted.read_text().partition("\nrm ")
    words, _, given = run.partition(" = ")
    assert given == "hush"
    assert "hush" not in words
    assert "--env KETCH_API_KEYS" in words
    for each in ("--read-only", "--cap-drop ALL", "no-new-privileges", "--memory 1g", "--publish 127.0.0.1::9696"):
        assert each in words
    assert removed.startswith("--force")


def test_a_container_that_does_not_start_is_not_left_behind(tmp_path: Path) -> None:
    noted = tmp_path / "noted"
    broken = fake(tmp_path, f"open({str(noted)!r}, 'a').write(sys.argv[1] + ' '); sys.exit(1)")
    with pytest.raises(ImageError, match="docker run failed"), broken.started("churn:1", environ={}):
        pass
    with pytest.raises(ImageError, match="docker run failed"):
        broken.once("churn:1")
    assert noted.read_text().split() == ["run", "rm", "run", "rm"]


@pytest.mark.skipif(sys.platform == "win32", reason="nothing is told to leave off there")
def test_an_engine_that_is_interrupted_is_told_to_leave_off(tmp_path: Path) -> None:
    noted = tmp_path / "noted"
    program = f"""
import os, signal, time
def leave(*_):
    open({str(noted)!r}, "w").write("left off")
    sys.exit(1)
signal.signal(signal.SIGTERM, leave)
os.kill(os.getppid(), signal.SIGUSR1)
time.sleep(30)
"""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, stop)
    try:
        with pytest.raises(KeyboardInterrupt):
            fake(tmp_path, program).build(tmp_path, "churn:1", "linux/amd64")
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert noted.read_text() == "left off"


HISTORY = {  # as each tells of the same image, the newest first
    "BuildKit": """\
0\tLABEL x=COPY
24219\tCOPY model/ sbom.cdx.json /model/ # buildkit
0\tWORKDIR /tmp
51200000\tCOPY /app /app # buildkit
0\tCOPY /app /app # buildkit
200000000\t""",
    "classic": """\
24219\t/bin/sh -c #(nop) COPY multi:54a3cf in /model/\x20
0\t/bin/sh -c #(nop) ENV PYTHONPATH=/app/site-packages
51200000\t/bin/sh -c #(nop) COPY dir:2c5122 in /app\x20
200000000\t/bin/sh -c #(nop) COPY dir:7c1a in /application""",
    "podman": """\
24.219 kB\t/bin/sh -c #(nop) COPY multi:406 in /model/\x20
51.2 MB\t/bin/sh -c #(nop) COPY dir:91 in /app\x20
200 MB\t""",
}


@pytest.mark.parametrize("builder", HISTORY)
def test_an_image_is_measured_by_its_own_history(builder: str, tmp_path: Path) -> None:
    """No image of the base need be here: BuildKit keeps none."""
    program = f"print({{'history': {HISTORY[builder]!r}, 'inspect': '[{{\"Id\": \"x\"}}]'}}[sys.argv[1]])"
    built = fake(tmp_path, program).measure("churn:1", "no-such-base:1")
    assert (built.identity, built.base, built.size) == ("x", 200000000, 251224219)
    assert [each.size for each in built.layers] == [51200000, 24219]


@pytest.mark.parametrize(
    ("text", "size"), [("62.3MB", 62300000), ("7", 7), ("0B", 0), ("23.3kB", 23300), ("1.5 GB", 1500000000)]
)
def test_sizes_are_read_as_engines_write_them(text: str, size: int) -> None:
    assert engine.size_of(text) == size


def test_a_context_is_never_written_over_something_else(small: Small, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("")
    done = ketch("image", small.bundle, "--context", tmp_path, home=tmp_path / "home")
    assert done.returncode == 1
    assert "holds something else" in done.stderr
    assert [*tmp_path.iterdir()] == [tmp_path / "mine"]


def test_a_context_is_what_a_builder_takes(small: Small, tmp_path: Path) -> None:
    """Every file that the Dockerfile copies is there, and .dockerignore lets it through."""
    files = composed(small).files
    allowed = {line[1:] for line in files[".dockerignore"].decode().splitlines() if line.startswith("!")}
    assert {name.split("/")[0] for name in files} - {"Dockerfile", ".dockerignore"} == allowed
    with tarfile.open(tmp_path / "context.tar", "w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
