"""How large images of one model are, and how soon they answer: Ketch's and those of others; writes docs/conformance.md.

All rest on one base image and hold the same model; wheels come from the package index, once. In every round all take
turns. `python -m benchmarks.images [ROUNDS]`; `make conformance` runs this.
"""

import contextlib
import http.client
import json
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks import peers
from benchmarks.workload import WIRES, Workload, prepare

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parent
PAGE: Final = ROOT / "docs" / "conformance.md"
WHEELS: Final = ROOT / ".cache" / "wheels"
BASE: Final = "ketch-test-base:bookworm"
KEY: Final = "not-a-secret-only-for-measuring-0123456789"
PATIENCE: Final = 120.0
MIB: Final = 2**20
NEAR: Final = 1e-6


@dataclass(frozen=True)
class Contestant:
    """An image that is measured."""

    name: str
    peer: str
    wire: str
    port: int
    headers: Mapping[str, str] = field(default_factory=dict)
    files: tuple[str, ...] = ()

    @property
    def tag(self) -> str:
        """Give the name of its image."""
        return f"ketch-conformance-{self.peer or 'ketch'}"


CONTESTANTS: Final = (
    Contestant("**Ketch**", "", "plain", 9696, {"X-API-Key": KEY}),
    Contestant("FastAPI, by hand", "fastapi", "fastapi", 8000, files=("customer.py", "fastapi_pandas.py")),
    Contestant("BentoML", "bentoml", "bentoml", 3000, files=("customer.py", "bentoml_pandas.py")),
    Contestant("MLflow", "mlflow", "mlflow", 8080, files=("mlflow_save.py",)),
)


@dataclass
class Measured:
    """What was seen of one."""

    contestant: Contestant
    above: int
    starts: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)


def main(words: Sequence[str]) -> int:
    """Build all, measure them in turns, and write the page."""
    rounds = int(words[0]) if words else 5
    with tempfile.TemporaryDirectory(prefix="ketch-images-") as folder:
        workload = prepare(Path(folder))
        below = size(BASE)
        measured = [Measured(each, built(each, workload) - below) for each in CONTESTANTS]
        for number in range(rounds):
            for each in measured:
                took, used = cold_start(each.contestant, workload)
                each.starts.append(took)
                each.processor.append(used)
                print(f"{number + 1} of {rounds}: {each.contestant.name} {took:.2f} s, {used:.2f} s of CPU", flush=True)
    PAGE.write_text(page(measured, below, rounds), "utf-8")
    for contestant in CONTESTANTS:
        docker("rmi", contestant.tag)
    print(PAGE.read_text("utf-8"))
    return 0


def docker(*words: str) -> str:
    """Run docker and give what it prints."""
    done = subprocess.run(["docker", *words], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise SystemExit(f"docker {words[0]}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout.strip()


def size(tag: str) -> int:
    """Give the bytes of an image, unpacked."""
    return int(docker("image", "inspect", "--format", "{{.Size}}", tag))


# ---- building ----------------------------------------------------------------------------------------


def built(each: Contestant, workload: Workload) -> int:
    """Build an image, and give its size."""
    if not each.peer:
        command = [sys.executable, "-m", "ketch", "image", str(workload.folder / "linear.ketch"), "--tag", each.tag]
        environ = {**os.environ, "KETCH_HOME": str(workload.folder / "home")}
        subprocess.run([*command, "--base-image", BASE, "--engine", "docker"], env=environ, check=True)
        return size(each.tag)
    folder = workload.folder / f"image-{each.peer}"
    shutil.copytree(wheels(each.peer), folder / "wheels")
    for name in each.files:
        shutil.copy(HERE / "services" / name, folder)
    for name in ("linear.bin", "rows.jsonl"):
        shutil.copy(workload.folder / name, folder)
    shutil.copy(HERE / "dockerfiles" / f"{each.peer}.Dockerfile", folder / "Dockerfile")
    words = ("--network", "none", "--build-arg", f"BASE_IMAGE={BASE}", "--tag", each.tag)
    docker("build", *words, str(folder))
    return size(each.tag)


def wheels(peer: str) -> Path:
    """Fetch the wheels of a peer, of the versions that `make bench` takes."""
    folder = WHEELS / peer
    told = peers.packages(peer)
    if not (folder / "complete").is_file() or (folder / "complete").read_text("utf-8") != told:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:", "--dest", str(folder)]
        subprocess.run([*command, *told.split()], check=True)
        (folder / "complete").write_text(told, "utf-8")
    return folder


# ---- measuring ---------------------------------------------------------------------------------------


def cold_start(each: Contestant, workload: Workload) -> tuple[float, float]:
    """Give the seconds from `docker run` to the first right answer, and those of CPU that the container took."""
    wire = WIRES[each.wire]
    body = json.dumps(wire.ask([workload.rows[0]])).encode()
    wanted = workload.wanted["linear"][0]
    began = time.perf_counter()
    with container(each) as address:
        while True:
            answer = asked(address, wire.path, body, each.headers)
            took = time.perf_counter() - began
            if answer is not None:
                used = processor(each.tag)
                break
            if took > PATIENCE:
                subprocess.run(["docker", "logs", "--tail", "30", each.tag])
                raise SystemExit(f"{each.name} does not answer")
            time.sleep(0.01)
        found = wire.read(answer)[0]
        if abs(found - wanted) > NEAR:
            raise SystemExit(f"{each.name} answers {found}, not {wanted}")
    return took, used


class Engine(http.client.HTTPConnection):
    """Docker's engine, by its socket."""

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect("/var/run/docker.sock")


def processor(container: str) -> float:
    """Give the seconds of CPU that a container has taken: other programs of the machine do not count in them."""
    with contextlib.closing(Engine("docker")) as engine:
        engine.request("GET", f"/containers/{container}/stats?stream=false&one-shot=true")
        told = json.loads(engine.getresponse().read())
    return float(told["cpu_stats"]["cpu_usage"]["total_usage"]) / 1e9


@contextmanager
def container(each: Contestant) -> Iterator[str]:
    """Run an image, and give its own address: a published port takes connections before anybody answers."""
    docker("run", "--detach", "--name", each.tag, "--env", f"KETCH_API_KEYS={KEY}", each.tag)
    try:
        address = docker("inspect", "--format", "{{.NetworkSettings.IPAddress}}", each.tag)
        yield f"{address}:{each.port}"
    finally:
        docker("rm", "--force", "--volumes", each.tag)


def asked(address: str, path: str, body: bytes, headers: Mapping[str, str]) -> Any:
    """Give the answer to a row, or None where there is none yet."""
    connection = http.client.HTTPConnection(address, timeout=10)
    with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(connection):
        connection.request("POST", path, body, {"Content-Type": "application/json", **headers})
        answer = connection.getresponse()
        data = answer.read()
        if answer.status == 200:
            return json.loads(data)
    return None


# ---- the page ----------------------------------------------------------------------------------------


def figures(each: Measured) -> tuple[float, float, float]:
    """Give what is compared."""
    return each.above, statistics.median(each.starts), statistics.median(each.processor)


def busy() -> bool:
    """Say whether others kept the machine busy; what is measured here keeps less than all cores so."""
    return os.getloadavg()[2] > 1.5 * (os.cpu_count() or 1)


def page(measured: Sequence[Measured], below: int, rounds: int) -> str:
    """Write the page."""
    first = figures(measured[0])
    rows = []
    for each in measured:
        above, start, used = figures(each)
        times = [
            f" ({value / own:.1f} ×)" if each is not measured[0] else ""
            for value, own in zip((above, start, used), first, strict=True)
        ]
        spread = f"{min(each.starts):.2f}–{max(each.starts):.2f}"
        cells = (f"{above / MIB:.0f} MiB{times[0]}", f"{start:.2f} s{times[1]}", spread, f"{used:.2f} s{times[2]}")
        rows.append(f"| {each.contestant.name} | {' | '.join(cells)} |\n")
    told = ", ".join(each for peer in ("fastapi", "bentoml", "mlflow") for each in peers.PACKAGES[peer])
    return TEXT.format(
        rows="".join(rows),
        rounds=rounds,
        below=f"{below / MIB:.0f}",
        told=textwrap.fill(f"{told}, {', '.join(peers.MODELS)}", 116, subsequent_indent="  "),
        cores=os.cpu_count(),
        system=f"{platform.system()} {platform.machine()}, Python {platform.python_version()[:4]}",
        engine=docker("version", "--format", "{{.Server.Version}}"),
        when=time.strftime("%B %Y"),
        busy=f"; others kept this machine busy (load {os.getloadavg()[2]:.0f}), which lengthens all but CPU time"
        * busy(),
    )


TEXT: Final = """---
orphan: true
---
# Images: size and cold start

Four images of one model: scikit-learn's one-hot encoding and logistic regression on 19 fields of telecom customers.
All rest on the same base (Debian 12 with its Python, {below} MiB). `make conformance` writes this page.

| image | above the base | `docker run` to the first right answer | from – to | CPU time until then |
| --- | --- | --- | --- | --- |
{rows}
In brackets: how many times Ketch's. Medians of {rounds} rounds in which all take turns; {when}, {cores} cores,
{system}, Docker {engine}{busy}.
The files of an image are in the page cache: where it must be pulled first, its size counts as well.

- Ketch's image is what `ketch image` makes: the compiled form, without numpy and scikit-learn; a worker for each core.
- The hand-written one is FastAPI with pydantic and uvicorn, as its documentation shows; one worker.
- BentoML's is what `bentoml containerize` sets up. MLflow's is what `mlflow models generate-dockerfile` writes, without
  the nginx that it puts before its server, which would make it larger. Both are in `benchmarks/dockerfiles/`.
- None of them keeps pip's cache or the wheels. Versions:
  {told}.
"""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
