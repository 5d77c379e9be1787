"""Images as they are built and run: by a real Docker engine, on a base of Debian's packages."""

import csv
import http.client
import os
import shutil
import subprocess
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sklearn.decomposition import NMF
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler

import ketch
from ketch import bundle, image
from ketch.client import Client
from ketch.errors import AnswersDiffer, ImageError
from ketch.image import Context, proof, recipe_of
from ketch.image.engine import Engine
from tests.models import rows
from tests.running import fresh
from tests.ship.conftest import KEY, LOCKED, Packed, Running, pack, run_image, running
from tests.ship.conftest import image as built

pytestmark = [pytest.mark.ship, pytest.mark.timeout(400)]
MIB = 2**20
HASHED = """
import hashlib, os
for at, names, files in os.walk("/app"):
    names.sort()
    for each in sorted(os.path.join(at, name) for name in files):
        data = open(each, "rb").read()
        print(each, oct(os.stat(each).st_mode), os.stat(each).st_mtime, hashlib.sha256(data).hexdigest())
"""
LISTED = "import os; [print(os.path.join(at, name)) for at, _, names in os.walk('/') for name in names]"


def inside(tag: str, program: str) -> str:
    """Run a program of Python in an image."""
    words = ["docker", "run", "--rm", *LOCKED, "--network", "none", "--entrypoint", "python3", tag, "-c", program]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


# ---- a service ---------------------------------------------------------------------------------------


def test_an_image_answers_as_its_estimator_does(service: Any, linear: Packed) -> None:
    with running(service["tag"]) as it, Client(f"http://{it.published}", key=KEY) as client:
        found = [each["churn_probability"] for each in client.predict(rows())]
        assert client.replay(linear.opened) == service["golden_rows"] > 0
    assert found == pytest.approx(linear.probabilities(), abs=1e-9)


def test_the_telco_service_answers_as_its_estimator_does(docker: Engine, base: str, home: Path, telco: Path) -> None:
    bundle_path = telco / "telco.ketch"
    done = fresh("pack", telco / "model.bin", "-o", bundle_path, "--target", "churn", home=home)
    assert done.returncode == 0, done.stderr
    told = built(bundle_path, base, home, "--tag", "ketch-test-telco:1")
    assert told["above_base"] <= 60 * MIB
    wanted = msgspec.json.decode((telco / "model.json").read_bytes())
    with running(told["tag"]) as it, Client(f"http://{it.published}", key=KEY) as client:
        found = [each["churn_probability"] for each in client.predict(wanted["rows"])]
    assert len(found) > 7000
    assert found == pytest.approx(wanted["answers"], abs=1e-9)


def test_a_linear_model_adds_little_and_no_numpy(service: Any) -> None:
    assert service["above_base"] <= 60 * MIB
    assert inside(service["tag"], "import importlib.util as u; print(u.find_spec('numpy'))").strip() == "None"


def test_a_graph_adds_onnx_runtime_and_answers_right(docker: Engine, base: str, home: Path, forest: Packed) -> None:
    told = built(forest.path, base, home, "--tag", "ketch-test-forest:1")
    assert told["golden_rows"] > 0
    assert told["above_base"] <= 150 * MIB
    with running(told["tag"]) as it, Client(f"http://{it.published}", key=KEY) as client:
        found = [each["churn_probability"] for each in client.predict(rows())]
    assert found == pytest.approx(forest.probabilities(), abs=1e-6)


def test_a_model_in_its_original_form_brings_the_libraries_that_made_it(
    docker: Engine, base: str, home: Path, tmp_path: Path
) -> None:
    end = make_pipeline(MinMaxScaler(), NMF(3, max_iter=500), LogisticRegression())
    packed = pack(end, tmp_path, "original", tolerance=1e-4)  # it seeks its answer, and ends near it
    assert packed.opened.manifest.serves == "original"
    told = built(packed.path, base, home, "--tag", "ketch-test-original:1")
    assert told["golden_rows"] > 0
    with running(told["tag"]) as it, Client(f"http://{it.published}", key=KEY) as client:
        found = [each["churn_probability"] for each in client.predict(rows())]
    assert found == pytest.approx(packed.probabilities(), abs=1e-4)
    assert told["above_base"] <= 450 * MIB
    assert "/app/site-packages/sklearn/tests/test_" not in inside(told["tag"], LISTED)


def test_without_a_key_it_says_how_to_start_it_and_that_line_works(service: Any) -> None:
    tag = service["tag"]
    done = subprocess.run(["docker", "run", "--rm", *LOCKED, tag], capture_output=True, text=True)
    assert done.returncode == 1
    _, export, line = done.stderr.splitlines()
    assert line.strip() == f"docker run -e KETCH_API_KEYS -p 127.0.0.1:9696:9696 {tag}"
    rest = line.replace("docker run", "docker run -d --health-interval 1s").replace("127.0.0.1:9696:", "127.0.0.1::")
    started = subprocess.run(f"{export}\n{rest}", shell=True, capture_output=True, text=True, check=True)
    container = Running(started.stdout.strip())
    try:
        container.until("healthy")
    finally:
        container.docker("rm", "--force", container.name)


# ---- how it ends -------------------------------------------------------------------------------------


class Load:
    """Callers that ask without a pause, each question on a connection of its own, until they are refused."""

    def __init__(self, host: str, row: dict[str, Any]) -> None:
        self.host, self.row, self.seen = host, msgspec.json.encode(row), Counter[str]()
        self.threads = [threading.Thread(target=self._ask) for _ in range(4)]

    def _ask(self) -> None:
        while not self.seen["refused"]:
            asked = http.client.HTTPConnection(self.host, 9696, timeout=10)
            try:
                asked.connect()
            except OSError:
                self.seen["refused"] += 1
                return
            try:
                headers = {"Content-Type": "application/json", "X-API-Key": KEY}
                asked.request("POST", "/predict", self.row, headers)
                self.seen[str(asked.getresponse().status)] += 1
            except (OSError, http.client.HTTPException) as error:
                self.seen[type(error).__name__] += 1
            finally:
                asked.close()


def test_stopping_under_load_drops_nothing_in_flight(service: Any) -> None:
    with running(service["tag"]) as it:
        load = Load(it.address, rows()[0])
        for each in load.threads:
            each.start()
        time.sleep(2)
        began = time.monotonic()
        it.docker("stop", "--time", "20", it.name)
        took = time.monotonic() - began
        for each in load.threads:
            each.join(20)
        assert it.state()["ExitCode"] == 0, it.logs()
    assert took < 10
    assert load.seen["200"] > 100
    assert not set(load.seen) - {"200", "refused"}, load.seen


def test_it_is_one_tree_of_processes_without_zombies(service: Any) -> None:
    with running(service["tag"]) as it:
        orphan = "import os, sys; os.fork() or os.fork() or sys.exit()"
        it.docker("exec", it.name, "python3", "-c", orphan)
        time.sleep(1)
        program = (
            "import glob; print([open(p).read().rsplit(')')[1].split()[:2] for p in glob.glob('/proc/[0-9]*/stat')])"
        )
        listed = eval(it.docker("exec", it.name, "python3", "-c", program))
        assert "Z" not in {state for state, _ in listed}
        assert {parent for _, parent in listed} <= {"0", "1"}


BREAKS = """
import os

def churn(rows):
    return [{"probability": 0.9 if os.path.exists("/dev/shm/broken") else 0.25} for row in rows]

churn.fields = {"tenure": "number"}
churn.task = "binary"
"""


@pytest.fixture(scope="module")
def own(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that is code of its maker's own, which this user has packed."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "breaks.py").write_text(BREAKS)
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(str(folder))
        patched.setenv("KETCH_HOME", str(home))
        import breaks  # type: ignore[import-not-found]

        ketch.pack(breaks.churn, str(folder / "breaks.ketch"), target="churn", name="breaks")
    return folder / "breaks.ketch"


def test_it_turns_unhealthy_when_the_model_breaks(docker: Engine, base: str, home: Path, own: Path) -> None:
    told = built(own, base, home, "--tag", "ketch-test-breaks:1")
    assert told["golden_rows"] > 0  # its own code runs there: who made the image has approved it
    often = ("--health-interval", "1s", "--health-retries", "2", "--health-start-period", "1s")
    with running(told["tag"], *often) as it:
        it.until("healthy")
        it.docker("exec", it.name, "python3", "-c", "open('/dev/shm/broken', 'w')")
        it.until("unhealthy")


# ---- what is in it -----------------------------------------------------------------------------------


def test_it_holds_no_installer_no_compiler_and_no_cache(service: Any, base: str) -> None:
    below = set(inside(base, LISTED).splitlines())
    above = {each for each in inside(service["tag"], LISTED).splitlines() if not each.startswith(("/proc", "/sys"))}
    own = above - below
    assert {each.split("/")[1] for each in own} <= {"app", "model", "dev", "etc"}
    assert not [each for each in own if each.endswith((".c", ".h", ".pyx", ".a", "RECORD", "INSTALLER"))]
    assert not [each for each in own if {"pip", "setuptools", "wheel", "installer", ".cache"} & set(each.split("/"))]
    assert "/model/sbom.cdx.json" in own
    assert "/app/site-packages/ketch/__pycache__/bundle.cpython-311.pyc" in own


def test_nothing_secret_goes_in(docker: Engine, base: str, home: Path, linear: Packed, service: Any) -> None:
    secret = "hush-hush-hush-hush-hush"
    told = built(
        linear.path, base, home, "--tag", "ketch-test-churn:hush", KETCH_API_KEYS=secret,
        PIP_EXTRA_INDEX_URL=f"https://somebody:{secret}@localhost:9/simple",
    )  # fmt: skip
    seen = docker.call("history", "--no-trunc", told["tag"]) + str(docker.inspect(told["tag"]))
    assert secret not in seen
    assert "KETCH_API_KEYS" not in seen
    with subprocess.Popen(["docker", "save", told["tag"]], stdout=subprocess.PIPE) as saved:
        assert subprocess.run(["grep", "-c", secret], stdin=saved.stdout, capture_output=True).stdout.strip() == b"0"


def test_its_labels_user_port_and_health_check_are_told(docker: Engine, service: Any, linear: Packed) -> None:
    config = docker.inspect(service["tag"])["Config"]
    assert config["User"] == "10001:10001"
    assert config["ExposedPorts"] == {"9696/tcp": {}}
    assert config["Healthcheck"]["Test"] == ["CMD", "python3", "/app", "health", "/health/ready"]
    assert config["Labels"]["org.opencontainers.image.revision"] == linear.opened.sha256
    assert "org.opencontainers.image.created" not in config["Labels"]


def test_a_new_model_changes_the_last_layer_alone_and_takes_seconds(
    docker: Engine, base: str, home: Path, linear: Packed, service: Any, tmp_path: Path
) -> None:
    other = pack(LogisticRegression(C=0.1), tmp_path, "churn")
    built(linear.path, base, home, "--tag", service["tag"])
    began = time.monotonic()
    told = built(other.path, base, home, "--tag", "ketch-test-churn:2")
    took = time.monotonic() - began
    before, after = (docker.inspect(tag)["RootFS"]["Layers"] for tag in (service["tag"], told["tag"]))
    assert before[:-1] == after[:-1]
    assert before[-1] != after[-1]
    assert took < 5 + started(told["tag"])


def started(tag: str) -> float:
    """Measure how long a start takes on this machine; it is no part of a build."""
    began = time.monotonic()
    with running(tag):
        return time.monotonic() - began


# ---- an image that is not good -----------------------------------------------------------------------


def context(packed: Packed, base: str, home: Path, data: bytes = b"") -> Context:
    """Compose the context that `ketch image` builds, perhaps with other bytes of the bundle in it."""
    recipe = recipe_of(packed.opened, {}, base=base, tag="ketch-test-never:1")
    wheels = image.sibling("wheels").gather(packed.opened, recipe, home=home, environ=os.environ)
    return image.context(packed.opened, data or packed.path.read_bytes(), wheels, recipe)


def broken(packed: Packed) -> bytes:
    """Make a bundle whose golden answers its model does not give, though every hash in it is right."""
    golden = msgspec.json.decode(packed.opened.files["golden.json"])
    golden["probabilities"] = [list(reversed(each)) for each in golden["probabilities"]]
    return bundle.replaced(packed.opened, {"golden.json": msgspec.json.encode(golden)})


def test_an_image_that_answers_otherwise_gets_no_name(docker: Engine, base: str, home: Path, linear: Packed) -> None:
    made = context(linear, base, home)
    with pytest.raises(AnswersDiffer, match=r"(?s)golden row 1 of churn .*It wrote: .*churn answers churn"):
        proof.build(docker, made, bundle.read(broken(linear), "churn"))
    with pytest.raises(ImageError, match=r"(?i)no such image"):
        docker.inspect(made.tag)
    assert docker.call("images", "--quiet", "ketch-test-never") == ""  # neither on trial


def test_an_image_that_ends_says_what_it_wrote(docker: Engine, base: str, home: Path, linear: Packed) -> None:
    made = context(linear, base, home, broken(linear))
    with pytest.raises(ImageError, match=r"The image ends when it is started: .*golden"):
        proof.build(docker, made, linear.opened)


def test_a_build_that_fails_shows_its_last_lines(base: str, home: Path, linear: Packed) -> None:
    done = run_image(linear.path, "no-such-base-of-ours:1", home)
    assert done.returncode == 1
    told = msgspec.json.decode(done.stderr)
    assert told["code"] == "image"
    assert "--base-image" in told["hint"]


# ---- other modes -------------------------------------------------------------------------------------


def test_a_job_answers_a_table(docker: Engine, base: str, home: Path, linear: Packed, tmp_path: Path) -> None:
    told = built(linear.path, base, home, "--mode", "job", "--tag", "ketch-test-job:1")
    assert told["golden_rows"] > 0
    tmp_path.chmod(0o777)
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows()[0])
        writer.writeheader()
        writer.writerows(rows())
    words = ["docker", "run", "--rm", *LOCKED, "--user", "48213:48213", "--volume", f"{tmp_path}:/data", told["tag"]]
    subprocess.run([*words, "/data/rows.csv", "-o", "/data/out.csv"], check=True, capture_output=True)
    with (tmp_path / "out.csv").open(newline="") as file:
        found = [float(each["churn_probability"]) for each in csv.DictReader(file)]
    assert found == pytest.approx(linear.probabilities(), abs=1e-9)


def test_a_function_answers_what_lambda_asks(docker: Engine, base: str, home: Path, linear: Packed) -> None:
    told = built(linear.path, base, home, "--mode", "lambda", "--tag", "ketch-test-lambda:1")
    assert told["golden_rows"] > 0
    assert told["above_base"] <= 60 * MIB


@pytest.mark.conformance
def test_a_function_runs_code_that_the_maker_of_its_image_has_approved(
    docker: Engine, base: str, home: Path, own: Path
) -> None:
    told = built(own, base, home, "--mode", "lambda", "--tag", "ketch-test-lambda:own")
    assert told["golden_rows"] > 0


def test_a_page_is_shown(docker: Engine, base: str, home: Path, linear: Packed) -> None:
    told = built(linear.path, base, home, "--mode", "page", "--tag", "ketch-test-page:1")
    with running(told["tag"], "--health-interval", "1s", "--memory", "512m", says="is shown at") as it:
        it.until("healthy", 60)


# ---- another engine ----------------------------------------------------------------------------------


@pytest.fixture
def buildkit(docker: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """The same engine with BuildKit: by the first program of docker here that can."""
    monkeypatch.setenv("DOCKER_BUILDKIT", "1")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "Dockerfile").write_text("FROM scratch\nLABEL ketch.test=buildkit\n")
    for program in dict.fromkeys((shutil.which("docker"), shutil.which("docker", path=os.defpath))):
        words = [str(program), "build", "--quiet", str(tmp_path / "empty")]
        if program and subprocess.run(words, capture_output=True).returncode == 0:
            monkeypatch.setenv("PATH", f"{Path(program).parent}{os.pathsep}{os.environ['PATH']}")
            return Engine("docker", program)
    pytest.skip("no docker here can use BuildKit: apt-get install docker-buildx")


def test_buildkit_builds_the_same_and_needs_no_image_of_its_base(
    buildkit: Engine, base: str, home: Path, linear: Packed, service: Any
) -> None:
    fetched = "ketch-test-fetched:1"  # as a base that BuildKit fetches, it is no image of this engine afterwards
    buildkit.call("tag", base, fetched)
    made = replace(context(linear, fetched, home), tag="ketch-test-buildkit:1")
    good = proof.build(buildkit, made, linear.opened)
    buildkit.remove(fetched)
    measured = buildkit.measure("ketch-test-buildkit:1", fetched)
    assert good.rows == service["golden_rows"] > 0
    assert measured == good.built
    assert measured.size - measured.base == pytest.approx(service["above_base"], rel=0.01)
    assert len(measured.layers) == 2
    theirs, ours = (buildkit.inspect(each)["Config"] for each in (service["tag"], "ketch-test-buildkit:1"))
    for name in ("Cmd", "Entrypoint", "ExposedPorts", "Healthcheck", "Labels", "User", "WorkingDir"):
        assert theirs[name] == ours[name], name
    assert inside(service["tag"], HASHED) == inside("ketch-test-buildkit:1", HASHED)


@pytest.mark.conformance
def test_buildah_builds_the_same_with_its_health_check(
    docker: Engine, base: str, home: Path, linear: Packed, tmp_path: Path
) -> None:
    if shutil.which("buildah") is None or shutil.which("skopeo") is None:
        pytest.skip("buildah or skopeo is not on this machine: apt-get install buildah skopeo")
    settled = {"BUILDAH_ISOLATION": "chroot", "STORAGE_DRIVER": "overlay"}
    settled["CONTAINERS_STORAGE_CONF"] = str(tmp_path / "storage.conf")
    places = f'graphroot = "{tmp_path}/graph"\nrunroot = "{tmp_path}/run"\n'
    (tmp_path / "storage.conf").write_text(f'[storage]\ndriver = "overlay"\n{places}')
    environ = {**os.environ, **settled}
    copied = ["skopeo", "copy", "--quiet", f"docker-daemon:{base}", f"containers-storage:localhost/{base}"]
    subprocess.run(copied, env=environ, check=True, capture_output=True)
    told = built(linear.path, f"localhost/{base}", home, "--engine", "buildah", "--tag", "churn:buildah", **settled)
    assert "buildah only builds" in told["note"]
    found = subprocess.run(
        ["buildah", "inspect", "--type", "image", "churn:buildah"],
        env=environ, check=True, capture_output=True,
    )  # fmt: skip
    config = msgspec.json.decode(found.stdout)["Docker"]["config"]
    assert config["Healthcheck"]["Test"] == ["CMD", "python3", "/app", "health", "/health/ready"]
    assert config["User"] == "10001:10001"
