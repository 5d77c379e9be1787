"""Images made without an engine are those that engines make: layer for layer, file for file, answer for answer."""

import csv
import hashlib
import io
import json
import os
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Final

import pytest

from ketch import image
from ketch.client import Client
from ketch.image import Context, oci, proof
from ketch.image.engine import Engine
from tests.images import context, put, saved
from tests.models import rows
from tests.running import fresh
from tests.ship.conftest import BASE, KEY, SUITE, Packed, running

pytestmark = [pytest.mark.ship, pytest.mark.timeout(600)]
CACHE: Final = Path(__file__).parent.parent.parent / ".cache"
ARM: Final = "linux/arm64"
AARCH64, X86_64 = 183, 62  # machines in the header of a program


def run(*words: str | Path, **environ: str) -> str:
    done = subprocess.run([*map(str, words)], env={**os.environ, **environ}, capture_output=True, text=True)
    assert done.returncode == 0, f"{words}\n{done.stdout[-1500:]}\n{done.stderr[-3000:]}"
    return done.stdout.strip()


def needs(*programs: str) -> None:
    for each in programs:
        if shutil.which(each) is None:
            pytest.skip(f"{each} is not on this machine")


def composed(packed: Packed, home: Path, base: str, tag: str, target: str = "linux/amd64") -> Context:
    recipe = image.recipe_of(packed.opened, {}, base=base, tag=tag, platform=target)
    wheels = image.sibling("wheels").gather(packed.opened, recipe, home=home, environ=os.environ)
    return image.context(packed.opened, packed.path.read_bytes(), wheels, recipe)


@pytest.fixture(scope="module")
def below(docker: Engine, base: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive of the base, as docker saves it."""
    path = tmp_path_factory.mktemp("base") / "base.tar"
    docker.call("save", "--output", str(path), base)
    return path


@pytest.fixture(scope="module")
def made(base: str, home: Path, linear: Packed) -> Context:
    return composed(linear, home, base, "ketch-test-daemonless:1")


@pytest.fixture(scope="module")
def archived(made: Context, below: Path, tmp_path_factory: pytest.TempPathFactory) -> oci.Archived:
    path = tmp_path_factory.mktemp("archived") / "churn.tar"
    found = oci.archive(made, below, path, environ=os.environ)
    if found.compiled != found.python:
        pytest.skip(f"there is no Python {found.python} on this machine: other .pyc than the engine's are expected")
    return found


@pytest.fixture(scope="module")
def loaded(docker: Engine, archived: oci.Archived) -> Iterator[str]:
    docker.call("load", "--input", str(archived.path))
    yield archived.tag
    docker.remove(archived.tag)


# ---- the layers of buildah -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Buildah:
    """Buildah, with a store of its own."""

    folder: Path

    def __call__(self, *words: str | Path) -> str:
        return run("buildah", "--root", self.folder / "store", "--runroot", self.folder / "run", *words)

    def build(self, made: Context, tag: str) -> Any:
        """Build a context, save the image and open its archive."""
        image.write(made, self.folder / tag)
        told = ("--isolation", "chroot", "--layers", "--timestamp", str(made.recipe.epoch), "--format", "docker")
        self("bud", *told, "--build-arg", f"BASE_IMAGE=localhost/{BASE}", "--tag", tag, self.folder / tag)
        path = self.folder / f"{tag}.tar"
        self("push", tag, f"docker-archive:{path}:{tag}:1")
        return path


@pytest.fixture(scope="module")
def buildah(below: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Buildah]:
    needs("buildah")
    found = Buildah(tmp_path_factory.mktemp("buildah"))
    found("pull", f"docker-archive:{below}")
    yield found
    shutil.rmtree(found.folder, ignore_errors=True)  # some GiB


@dataclass(frozen=True)
class Opened:
    """An archive that docker reads: its configuration, and the hashes of its layers as they are stored."""

    config: dict[str, Any]
    stored: list[str]


def opened(path: Path) -> Opened:
    with tarfile.open(path) as archive:
        listed = json.load(file(archive, "manifest.json"))[0]
        config = json.load(file(archive, listed["Config"]))
        stored = [hashlib.file_digest(file(archive, each), "sha256").hexdigest() for each in listed["Layers"]]  # type: ignore[arg-type]
    return Opened(config, [f"sha256:{each}" for each in stored])


def file(archive: tarfile.TarFile, name: str) -> IO[bytes]:
    found = archive.extractfile(name)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def theirs(buildah: Buildah, made: Context) -> Opened:
    """What buildah makes of the same."""
    return opened(buildah.build(made, "churn"))


def test_the_layers_are_those_of_buildah(theirs: Opened, archived: oci.Archived) -> None:
    ours = opened(archived.path)
    assert ours.config["rootfs"] == theirs.config["rootfs"]
    assert theirs.config["rootfs"]["diff_ids"] == [*archived.layers]
    assert ours.stored == theirs.stored == [*archived.layers]


def test_the_configuration_is_that_of_buildah(theirs: Opened, archived: oci.Archived) -> None:
    ours = opened(archived.path).config
    told = {name: value for name, value in theirs.config["config"].items() if value}
    del told["Hostname"]
    told["Labels"] = {name: value for name, value in told["Labels"].items() if name != "io.buildah.version"}
    assert ours["config"] == told
    for name in ("architecture", "os", "created"):
        assert ours[name] == theirs.config[name]


def test_every_name_is_written_as_buildah_does(buildah: Buildah, below: Path, tmp_path: Path) -> None:
    """Long ones, such of other letters, dots and dashes beside folders, programs, empty files."""
    long = "/".join("d" * 60 for _ in range(4))
    names = ["a-b/x", "a/x", "a.b", "é/naïve", "e" * 150, f"{long}/x", f"{long}/é", "日本" * 30, "x.so"]
    files = {f"small/{each}": each.encode() for each in [*names, *(f"{'n' * count}/y" for count in range(70, 102))]}
    made = context({**files, "small/empty": b""}, "3.11")
    made = replace(made, files={**made.files, "Dockerfile": dockerfile(made), ".dockerignore": b""})
    ours = oci.archive(made, below, tmp_path / "out.tar", environ=os.environ)
    if ours.compiled != ours.python:
        pytest.skip(f"there is no Python {ours.python} on this machine")
    assert opened(buildah.build(made, "names")).stored == [*ours.layers]


def dockerfile(made: Context) -> bytes:
    told = {"tag": made.tag, "base": made.base, "config": made.config, "epoch": made.recipe.epoch}
    return image.TEMPLATES.rendered("Dockerfile", told | {"platform": made.recipe.platform, "pinned": False})


def test_again_it_is_the_same_file(made: Context, below: Path, archived: oci.Archived, tmp_path: Path) -> None:
    again = oci.archive(made, below, tmp_path / "again.tar", environ=os.environ)
    assert again == replace(archived, path=again.path)
    with again.path.open("rb") as one, archived.path.open("rb") as two:
        assert hashlib.file_digest(one, "sha256").digest() == hashlib.file_digest(two, "sha256").digest()


def test_little_memory_is_taken(below: Path) -> None:
    """A base of many MiB passes in pieces; the limit is for the process that reads it."""
    program = (
        "import sys, pathlib; from ketch.image import base\n"
        "with base.opened(pathlib.Path(sys.argv[1]), 'linux/amd64') as found:\n"
        "    for each in found.layers: found.copy(each, lambda data: None)\n"
        "print(pathlib.Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0])"
    )
    assert below.stat().st_size > 150 * 2**20
    assert int(run(sys.executable, "-c", program, below)) < 80 * 2**10


# ---- docker --------------------------------------------------------------------------------------------


def tree(docker: Engine, tag: str) -> dict[str, tuple[object, ...]]:
    """List the files of an image: what they are, whose, and what is in them."""
    container = docker.call("create", tag).strip()
    found: dict[str, tuple[object, ...]] = {}
    with subprocess.Popen(["docker", "export", container], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
            for each in archive:
                data = archive.extractfile(each) if each.isreg() else None
                content = hashlib.sha256(data.read()).hexdigest() if data else ""
                found[each.name] = (each.type, each.mode & 0o7777, each.uid, each.gid, each.linkname, content)
    docker.call("rm", container)
    return found


def test_the_files_are_those_of_the_classic_builder(docker: Engine, made: Context, loaded: str, tmp_path: Path) -> None:
    image.write(made, tmp_path / "context")
    words = ("--network", "none", "--tag", "ketch-test-classic:1", tmp_path / "context")
    run("docker", "build", *words, DOCKER_BUILDKIT="0")
    try:
        theirs, ours = tree(docker, "ketch-test-classic:1"), tree(docker, loaded)
        told = [docker.inspect(each) for each in ("ketch-test-classic:1", loaded)]
    finally:
        docker.remove("ketch-test-classic:1")
    assert len(ours) > 5000
    assert {name: each for name, each in ours.items() if theirs.get(name) != each} == {}
    assert {*ours} == {*theirs}
    for name in ("Env", "Cmd", "Entrypoint", "ExposedPorts", "Healthcheck", "Labels", "User", "WorkingDir"):
        assert told[0]["Config"][name] == told[1]["Config"][name], name


def test_docker_runs_it_and_it_answers_right(docker: Engine, loaded: str, made: Context, linear: Packed) -> None:
    assert docker.inspect(loaded)["Id"] == f"sha256:{hashlib.sha256(config_of(docker, loaded)).hexdigest()}"
    assert proof.prove(docker, made, linear.opened) > 0
    with running(loaded) as it, Client(f"http://{it.published}", key=KEY) as client:
        found = [each["churn_probability"] for each in client.predict(rows())]
    assert found == pytest.approx(linear.probabilities(), abs=1e-9)


def config_of(docker: Engine, tag: str) -> bytes:
    """Give the configuration of an image, from how docker saves it."""
    done = subprocess.run(["docker", "save", tag], capture_output=True, check=True)
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        return file(archive, json.load(file(archive, "manifest.json"))[0]["Config"]).read()


def test_the_command_writes_one_and_says_so(base: str, home: Path, linear: Packed, below: Path, tmp_path: Path) -> None:
    words = ["--daemonless", "--base-archive", str(below), "-o", str(tmp_path / "x.tar"), "--tag", "ketch-test-cli:1"]
    done = fresh("image", linear.path, "--base-image", base, "--json", *words, home=home)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["diff_ids"] == opened(tmp_path / "x.tar").stored
    assert told["bytes"] == (tmp_path / "x.tar").stat().st_size
    assert told["above_base"] < 60 * 2**20
    refused = fresh("image", linear.path, "--daemonless", home=home)
    assert refused.returncode == 2
    assert "--base-archive FILE and -o FILE" in refused.stderr


# ---- others who read and write archives ------------------------------------------------------------------


def test_skopeo_reads_it_as_either_kind(archived: oci.Archived, tmp_path: Path) -> None:
    needs("skopeo")
    for kind in ("oci-archive", "docker-archive"):
        told = json.loads(run("skopeo", "inspect", f"{kind}:{archived.path}"))
        assert told["Layers"] == [*archived.layers]
        config = json.loads(run("skopeo", "inspect", "--config", f"{kind}:{archived.path}"))
        assert config["rootfs"]["diff_ids"] == [*archived.layers]
        copy = tmp_path / f"{kind}.tar"
        run("skopeo", "copy", f"{kind}:{archived.path}", f"docker-archive:{copy}:copied:1")
        assert opened(copy).stored == [*archived.layers]
    assert json.loads(run("skopeo", "inspect", f"oci-archive:{archived.path}"))["Digest"] == archived.digest


def test_podman_loads_and_runs_it(archived: oci.Archived, linear: Packed, tmp_path: Path) -> None:
    needs("podman")
    put_rows(tmp_path)
    tmp_path.chmod(0o777)
    limits = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000")  # its own it may not set everywhere
    locked = (*limits, "--network", "none", "--read-only", "--cap-drop", "ALL", "--volume", f"{tmp_path}:/data")
    with tempfile.TemporaryDirectory(prefix="podman-", ignore_cleanup_errors=True) as folder:  # it takes short names
        places = ("--root", f"{folder}/store", "--runroot", f"{folder}/run", "--tmpdir", f"{folder}/tmp")
        podman = ("podman", *places, "--cgroup-manager", "cgroupfs")
        try:
            assert f"library/{archived.tag}" in run(*podman, "load", "--input", archived.path)
            words = ("score", "/model/churn.ketch", "/data/rows.csv", "-o", "/data/answers.csv")
            run(*podman, "run", "--rm", *locked, archived.tag, *words)
        finally:
            run(*podman, "rmi", "--all", "--force")
    assert answers(tmp_path) == pytest.approx(linear.probabilities(), abs=1e-9)


def put_rows(folder: Path) -> None:
    with (folder / "rows.csv").open("w", newline="") as out:
        writer = csv.DictWriter(out, [*rows()[0]])
        writer.writeheader()
        writer.writerows(rows())


def answers(folder: Path) -> list[float]:
    with (folder / "answers.csv").open(newline="") as found:
        return [float(each["churn_probability"]) for each in csv.DictReader(found)]


def test_of_a_base_in_oci_and_packed_comes_the_same_image(
    made: Context, below: Path, archived: oci.Archived, tmp_path: Path
) -> None:
    needs("skopeo")
    run("skopeo", "copy", f"docker-archive:{below}", f"oci-archive:{tmp_path / 'base.tar'}")
    named = replace(made, tag="ketch-test-packed:1")
    found = oci.archive(named, tmp_path / "base.tar", tmp_path / "out.tar", environ=os.environ)
    assert found.layers == archived.layers
    run("docker", "load", "--input", found.path)
    run("docker", "rmi", found.tag)


def test_of_a_base_for_several_platforms_the_right_one_is_taken(
    buildah: Buildah, made: Context, arm: Path, below: Path, archived: oci.Archived, tmp_path: Path
) -> None:
    buildah("manifest", "create", "several")
    for each in (arm, below):
        buildah("manifest", "add", "several", f"docker-archive:{each}")
    buildah("manifest", "push", "--all", "several", f"oci-archive:{tmp_path / 'several.tar'}")
    found = oci.archive(made, tmp_path / "several.tar", tmp_path / "out.tar", environ=os.environ)
    assert found.layers == archived.layers


# ---- arm64 -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def arm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive of a base of Debian's packages for arm64, which are unpacked and not run."""
    needs("mmdebstrap")
    files = CACHE / f"base-{SUITE}-arm64.tar"
    if not files.is_file():
        CACHE.mkdir(exist_ok=True)
        words = ("--arch=arm64", "--variant=extract", "--skip=check/qemu", "--include=python3")
        part = files.with_suffix(f".{os.getpid()}.tar")
        run("mmdebstrap", *words, SUITE, part)
        part.replace(files)
    data = files.read_bytes()
    told = {
        "architecture": "arm64",
        "variant": "v8",
        "os": "linux",
        "config": {"Env": ["PATH=/usr/bin:/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(data).hexdigest()}"]},
    }
    return put(tmp_path_factory.mktemp("arm") / "arm.tar", saved([data], told, name="localhost/ketch-test-base:arm64"))


@pytest.fixture(scope="module")
def edge(arm: Path, home: Path, linear: Packed, tmp_path_factory: pytest.TempPathFactory) -> oci.Archived:
    made = composed(linear, home, "ketch-test-base:arm64", "ketch-test-edge:1", ARM)
    return oci.archive(made, arm, tmp_path_factory.mktemp("edge") / "edge.tar", environ=os.environ)


def own(path: Path) -> dict[str, bytes]:
    """Give the files that an archive adds to its base."""
    found: dict[str, bytes] = {}
    with tarfile.open(path) as archive:
        for each in json.load(file(archive, "manifest.json"))[0]["Layers"][1:]:
            with tarfile.open(fileobj=file(archive, each)) as layer:
                found |= {member.name: file(layer, member.name).read() for member in layer if member.isreg()}
    return found


def test_an_archive_for_arm64_holds_programs_for_arm64(edge: oci.Archived, archived: oci.Archived) -> None:
    told = opened(edge.path).config
    assert (told["architecture"], told["variant"], told["os"]) == ("arm64", "v8", "linux")
    for path, machine in ((edge.path, AARCH64), (archived.path, X86_64)):
        programs = [data for data in own(path).values() if data.startswith(b"\x7fELF")]
        assert len(programs) > 4
        assert {struct.unpack_from("<H", data, 18)[0] for data in programs} == {machine}


def test_what_python_compiles_is_the_same_on_both(edge: oci.Archived, archived: oci.Archived) -> None:
    there, here = own(edge.path), own(archived.path)
    both = {name: there[name][8:16] for name in there if name.endswith(".pyc") and name in here}
    same = [name for name, source in both.items() if here[name][8:16] == source]  # by the hash of what was compiled
    assert len(same) > 300
    assert [name for name in same if there[name] != here[name]] == []


def test_an_image_for_arm64_answers_right_where_it_is_emulated(
    edge: oci.Archived, linear: Packed, tmp_path: Path
) -> None:
    emulator = shutil.which("qemu-aarch64-static")
    if emulator is None or os.geteuid() != 0:
        pytest.skip("arm64 is not emulated here: apt-get install qemu-user-static")
    root = tmp_path / "root"
    with tarfile.open(edge.path) as archive:
        for each in json.load(file(archive, "manifest.json"))[0]["Layers"]:
            with tarfile.open(fileobj=file(archive, each)) as layer:
                layer.extractall(root, filter="fully_trusted")
    shutil.copy(emulator, root / "qemu")
    put_rows(root / "tmp")
    environ = dict(each.split("=", 1) for each in opened(edge.path).config["config"]["Env"])
    words = ("/usr/sbin/chroot", str(root), "/qemu", "/usr/bin/python3", "/app", "score", "/model/churn.ketch")
    done = subprocess.run(
        [*words, "/tmp/rows.csv", "-o", "/tmp/answers.csv"], env=environ, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert answers(root / "tmp") == pytest.approx(linear.probabilities(), abs=1e-9)
