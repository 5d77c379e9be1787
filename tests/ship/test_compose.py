"""The stack of compose comes up for real: page, prediction, a row in PostgreSQL, Prometheus; back, and away."""

import contextlib
import json
import os
import pickle
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml
from playwright.sync_api import expect, sync_playwright

from ketch import bundle, deploy, image, steps
from ketch.client import Client
from ketch.deploy import Shipment, stack
from ketch.deploy.compose import TARGET
from ketch.image.engine import Engine
from ketch.steps import Hands, Plan, Secret
from tests.models import table, yes_or_no
from tests.pages.browser import ARGUMENTS, program, visiting
from tests.running import KETCH, Done
from tests.ship.conftest import Packed, alone, pack
from tests.ship.stack import STACK, dashboard_image, stack_image

pytestmark = pytest.mark.ship
NAME = "ketch-trial"


@dataclass(frozen=True)
class Stack:
    """A deployment by compose, called as a shell would; its images go by the names that are published."""

    home: Path
    folder: Path
    port: int
    page_port: int

    def ketch(self, *words: str | Path, code: int = 0) -> Done:
        environ = {name: value for name, value in os.environ.items() if name != "CI"}  # where no key is shown
        environ["KETCH_HOME"] = str(self.home)
        done = subprocess.run(
            [*KETCH, *map(str, words)],
            env=environ, capture_output=True, text=True, stdin=subprocess.DEVNULL, cwd=self.folder,
        )  # fmt: skip
        assert done.returncode == code, done.stderr + done.stdout
        return Done(done.returncode, done.stdout, done.stderr)

    def deploy(self, *words: str | Path, code: int = 0) -> Done:
        return self.ketch("deploy", "compose", *words, code=code)

    @property
    def where(self) -> tuple[str, ...]:
        return ("--name", NAME, "--port", str(self.port), "--page-port", str(self.page_port), "--yes")

    def up(self, path: Path, *words: str, code: int = 0) -> Done:
        return self.deploy(path, *self.where, *words, code=code)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def page(self) -> str:
        return f"http://127.0.0.1:{self.page_port}"


@contextlib.contextmanager
def published(names: dict[str, str]) -> Iterator[None]:
    """Let images of ours go by published names; where the published ones are there, those are used."""
    absent = [
        each for each in names if subprocess.run(["docker", "image", "inspect", each], capture_output=True).returncode
    ]
    for each in absent:
        docker_says("tag", names[each], each)
    try:
        yield
    finally:
        for each in absent:
            docker_says("rmi", each)


@pytest.fixture(scope="module")
def stacked(docker: Engine, base: str, home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    compose = subprocess.run(["docker", "compose", "version"], capture_output=True).returncode == 0
    if not compose and shutil.which("docker-compose") is None:
        pytest.skip("neither docker compose nor docker-compose is on this machine")
    with alone(tmp_path_factory, STACK):
        stack_made = stack_image(docker, tmp_path_factory.mktemp("stack"))
        dashboard = dashboard_image(docker, base, tmp_path_factory.mktemp("dashboard"))
    usual = deploy.settled(TARGET, {})
    stands = {"database": stack_made, "prometheus": stack_made, "grafana": dashboard}
    names = {usual[f"{role}_image"]: each for role, each in stands.items()}
    made = Stack(home, tmp_path_factory.mktemp("work"), free_port(), free_port())
    with published({**names, image.BASES["3.11"]: base}):
        try:
            yield made
        finally:
            made.deploy(NAME, "--destroy", "--volumes", "--yes")


def docker_says(*words: str) -> str:
    return subprocess.run(["docker", *words], capture_output=True, text=True, check=True).stdout


def asked(path: str) -> Any:
    """Ask Prometheus, which only its network reaches, from inside the service."""
    program = f"import urllib.request as u; print(u.urlopen({f'http://prometheus:9090{path}'!r}).read().decode())"
    return json.loads(docker_says("exec", f"{NAME}-service", "python3", "-c", program))


def recorded() -> int:
    words = (
        "exec",
        f"{NAME}-database",
        "psql",
        "-qtA",
        "-U",
        "ketch",
        "ketch",
        "-c",
        "select count(*) from predictions",
    )
    return int(docker_says(*words))


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return int(opened.getsockname()[1])


def until(met: Any, seconds: float = 60.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := met()):
        assert time.monotonic() < end, "it does not come about"
        time.sleep(0.5)
    return found


@pytest.mark.timeout(600)
def test_the_stack_comes_up_and_does_all_it_is_for(
    stacked: Stack, linear: Packed, tmp_path_factory: pytest.TempPathFactory
) -> None:
    key, told = brought_up(stacked, linear)
    path = stacked.folder / "churn.ketch"
    opened = bundle.read(path.read_bytes(), "churn")
    row = opened.golden.rows[0]
    with Client(stacked.url, key=key) as client:
        answer = client.predict(row)
        assert set(answer) == {"churn", "churn_probability"}
        before = recorded()
        client.predict([row] * 7)
        until(lambda: recorded() >= before + 7)
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{stacked.url}/schema")
    people_ask(stacked.page, key)
    until(lambda: recorded() >= before + 8)

    query = "/api/v1/query?query=sum(ketch_rows_total)"
    until(lambda: float((asked(query)["data"]["result"] or [{"value": [0, "0"]}])[0]["value"][1]) >= 8)
    secrets_stay_secret(told, key)
    hardened()
    started = docker_says("inspect", "--format", "{{.State.StartedAt}}", f"{NAME}-service")
    again = stacked.up(path)
    assert "shown this once" not in again.stdout
    assert docker_says("inspect", "--format", "{{.State.StartedAt}}", f"{NAME}-service") == started

    until(shown_on_the_dashboard)

    other = pack(linear.model[-1].__class__(C=0.01), tmp_path_factory.mktemp("other"), "churn")
    identity = docker_says("inspect", "--format", "{{.Config.Image}}", f"{NAME}-service")
    stacked.up(other.path)
    changed = docker_says("inspect", "--format", "{{.Config.Image}}", f"{NAME}-service")
    assert changed != identity
    for _ in range(2):  # the second time it is there already
        stacked.deploy(NAME, "--rollback", "--yes")
        assert docker_says("inspect", "--format", "{{.Config.Image}}", f"{NAME}-service") == identity
    with Client(stacked.url, key=key) as client:
        assert client.replay(opened)

    status = stacked.deploy(NAME, "--status").stdout
    assert f"service: healthy, {identity.strip()}, http://127.0.0.1:{stacked.port}" in status
    assert "prometheus  " in stacked.deploy(NAME, "--logs").stdout
    assert "docker" in stacked.deploy("--doctor").stdout

    rows = recorded()
    stacked.deploy(NAME, "--destroy", "--yes")
    assert not docker_says("ps", "--all", "--quiet", "--filter", f"name={NAME}-").split()
    assert not docker_says("network", "ls", "--quiet", "--filter", f"name={NAME}_").split()
    last = stacked.up(path)  # new keys, and what was recorded before
    assert "shown this once" in last.stdout
    assert recorded() >= rows


def brought_up(stacked: Stack, packed: Packed) -> tuple[str, str]:
    """Bring a model up as its maker would, from the file of a notebook and its table; give the key, and all else said.

    The first time a port is taken, and the key told all the same: the second time it is there already.
    """
    (stacked.folder / "model.pkl").write_bytes(pickle.dumps(packed.model))
    table().assign(churn=yes_or_no()).to_csv(stacked.folder / "data.csv", index=False)
    words = ("up", "model.pkl", "--target", "churn", "--data", "data.csv", "--trust", "--local", *stacked.where)
    with socket.create_server(("127.0.0.1", stacked.port)):
        taken = stacked.ketch(*words, code=1)
    assert "A port is taken" in taken.stderr
    assert "--port" in taken.stderr
    before, _, after = taken.stdout.partition("shown this once: ")
    key = after.split()[0]
    done = stacked.ketch(*words)
    assert f"{NAME} is live at {stacked.url}" in done.stdout
    assert f"the page for people is at {stacked.page}" in done.stderr
    return key, before + after[len(key) :] + taken.stderr + done.stdout + done.stderr


def people_ask(url: str, key: str) -> None:
    """Sign in to the page as people do; what it shows at once is an answer of the service."""
    if not any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))):
        pytest.skip("no browser is on this machine: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program(), args=list(ARGUMENTS))
        with visiting(browser, url) as visit:
            visit.page.get_by_label("Key").fill(key)
            visit.page.get_by_role("button", name="Sign in").click()
            expect(visit.page.get_by_role("heading", name="churn: ")).to_be_visible()
        browser.close()


def shown_on_the_dashboard() -> bool:
    """Ask Prometheus all that the dashboard asks; what never happened has no answer."""
    dashboard = json.loads(stack.settings()[stack.DASHBOARD])
    filled = []
    for panel in dashboard["panels"]:
        for each in panel["targets"]:
            plain = each["expr"].replace("$model", ".*").replace("$__rate_interval", "1m")
            found = asked("/api/v1/query?query=" + quote(plain))
            assert found["status"] == "success", each["expr"]
            filled += [panel["title"]] if found["data"]["result"] else []
    return {"Requests by status", "How long a question takes", "Rows by version", "Answers", "Workers"} <= {*filled}


def secrets_stay_secret(told: str, key: str) -> None:
    environ = json.loads(docker_says("inspect", f"{NAME}-database"))[0]["Config"]["Env"]
    password = next(each.partition("=")[2] for each in environ if each.startswith("POSTGRES_PASSWORD="))
    for each in (key, password):
        assert each not in told
        listed = "".join(path.read_text(errors="replace") for path in _command_lines())
        assert each not in listed


def _command_lines() -> list[Path]:
    return [each for each in Path("/proc").glob("[0-9]*/cmdline") if os.access(each, os.R_OK) and each.exists()]


def hardened() -> None:
    for role in stack.ROLES:
        found = json.loads(docker_says("inspect", f"{NAME}-{role}"))[0]
        host = found["HostConfig"]
        assert host["ReadonlyRootfs"], role
        assert host["CapDrop"] == ["ALL"], role
        assert "no-new-privileges:true" in host["SecurityOpt"], role
        assert host["Memory"] > 0, role
        assert found["Config"]["User"] not in {"", "0", "root"}, role
        published = [one["HostIp"] for each in (host["PortBindings"] or {}).values() for one in each]
        assert published == (["127.0.0.1"] if role in {"service", "page"} else []), role


def test_compose_itself_takes_the_file(stacked: Stack, tmp_path: Path) -> None:
    if shutil.which("docker-compose") is None:
        pytest.skip("docker-compose is not on this machine")
    images = {role: f"registry.example/{role}:1" for role in stack.ROLES}
    options = deploy.settled(TARGET, {"grafana_port": 3000})
    path = tmp_path / "compose.yaml"
    path.write_text(stack.composed("churn", images, options))
    variables = ("CALLING_KEY", "CALLING_KEYS", "METRICS_KEY", "DATABASE_PASSWORD", "GRAFANA_PASSWORD")
    environ = {**os.environ, **dict.fromkeys(variables, "word")}
    done = subprocess.run(["docker-compose", "-f", str(path), "config"], env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert sorted(yaml.safe_load(done.stdout)["services"]) == sorted(stack.ROLES)
    lacking = subprocess.run(["docker-compose", "-f", str(path), "config"], capture_output=True, text=True)
    assert lacking.returncode != 0
    assert "is not set" in lacking.stderr


# ---- when it goes wrong ----------------------------------------------------------------------------------


class Cut(BaseException):
    """What a person does who presses Ctrl+C."""


@pytest.mark.conformance
@pytest.mark.timeout(900)
def test_wherever_it_is_interrupted_the_next_run_goes_on(stacked: Stack, linear: Packed) -> None:
    stacked.up(linear.path)  # by which the images are there
    stacked.deploy(NAME, "--destroy", "--volumes", "--yes")
    plan = planned(stacked, linear)
    for last in range(1, 40):
        lines: list[str] = []

        def told(line: str, lines: list[str] = lines, last: int = last) -> None:
            lines.append(line)
            if len(lines) >= last:
                raise Cut(line)

        with contextlib.suppress(Cut):
            got = steps.run(plan, Hands(os.environ, told))
            break
    assert got["smoke"] == stacked.url
    assert last > len(plan.steps)


@pytest.mark.conformance
@pytest.mark.timeout(900)
def test_a_release_that_does_not_come_up_makes_way_for_the_one_before(stacked: Stack, linear: Packed) -> None:
    stacked.up(linear.path)
    before = docker_says("inspect", "--format", '{{index .Config.Labels "ketch.release"}}', f"{NAME}-service")
    failed = stacked.up(linear.path, "--memory", "12m", code=1)
    assert "The container of the service ends" in failed.stderr or "failed" in failed.stderr, failed.stderr
    after = docker_says("inspect", "--format", '{{index .Config.Labels "ketch.release"}}', f"{NAME}-service")
    assert after == before
    again = stacked.up(linear.path)
    assert "is live" in again.stdout
    assert "shown this once" not in again.stdout


def planned(stacked: Stack, packed: Packed) -> Plan:
    given = {"port": stacked.port, "page_port": stacked.page_port}
    key = Secret("a-key-that-is-long-enough-0123456789")
    shipment = Shipment(NAME, packed.opened, packed.path.read_bytes(), key)
    return TARGET.plan(shipment, deploy.settled(TARGET, given))
