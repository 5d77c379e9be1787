"""Google's own clients and our service.yaml: gcloud against a loopback API, and google-cloud-run's types."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ketch.deploy import cloudrun
from ketch.deploy.google import Place
from tests.clouds import planned, shipped
from tests.discovery import description
from tests.doors import Small
from tests.fake_google import PROJECT
from tests.instances import Answering, listening

pytestmark = [pytest.mark.conformance, pytest.mark.timeout(600)]
GIVEN: Mapping[str, Any] = {"project": PROJECT, "region": "europe-west1"}
CLIENT = Path(__file__).parents[2] / ".cache" / "tools" / "google-cloud-run"
READ = """
import json, sys
from google.cloud import run_v2
service = run_v2.Service.from_json(sys.stdin.read())
print(service.template.containers[0].image, service.template.containers[0].startup_probe.http_get.path)
"""


class Handler(Answering):
    """Version 1 of Cloud Run's API, as far as `gcloud run services replace` asks it."""

    held: dict[str, Any]

    def _do(self) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.partition("?")[0]
        self.held["calls"].append(f"{self.command} {path}")
        if self.command in {"POST", "PUT"}:
            service = json.loads(data)
            description("run.v1").require({"$ref": "Service"}, service, "what gcloud sends", asked=True)
            ready = {"type": "Ready", "status": "True"}
            url = "https://churn.example"
            service["metadata"] |= {"generation": 1, "resourceVersion": "1", "selfLink": path}
            service["status"] = {"conditions": [ready], "observedGeneration": 1, "url": url, "address": {"url": url}}
            self.held["service"] = service
            self.tell(200, service)
        elif "service" in self.held:
            self.tell(200, self.held["service"])
        else:
            self.tell(404, {"error": {"code": 404, "status": "NOT_FOUND", "message": "not found"}})

    do_GET = do_POST = do_PUT = _do


@contextmanager
def api() -> Iterator[tuple[dict[str, Any], int]]:
    """Run the API on a port of this machine."""
    held: dict[str, Any] = {"calls": []}
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"held": held}))
    server.daemon_threads = True
    with listening(server):
        yield held, server.server_port


def service(small: Small) -> bytes:
    plan = planned(cloudrun.TARGET, shipped(small.bundle, small.home), GIVEN)
    return plan.files["service.yaml"]


def resolves(*names: str) -> bool:
    hosts = Path("/etc/hosts").read_text("utf-8") if Path("/etc/hosts").is_file() else ""
    return all(re.search(rf"^127\.0\.0\.1\s.*\b{re.escape(name)}\b", hosts, re.MULTILINE) for name in names)


@contextmanager
def named(*names: str) -> Iterator[None]:
    """Let names stand for this machine, since gcloud puts the region before the address that it is given."""
    hosts = Path("/etc/hosts")
    if resolves(*names):
        yield
        return
    if not os.access(hosts, os.W_OK):
        pytest.skip(f"/etc/hosts does not say that {' and '.join(names)} are 127.0.0.1, and cannot be written")
    before = hosts.read_text("utf-8")
    hosts.write_text(f"{before.rstrip()}\n127.0.0.1 {' '.join(names)} # ketch test\n", "utf-8")
    try:
        yield
    finally:
        now = hosts.read_text("utf-8").splitlines(keepends=True)
        hosts.write_text("".join(line for line in now if not line.endswith("# ketch test\n")), "utf-8")


def gcloud(folder: Path, port: int, *words: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("gcloud")
    if program is None:
        pytest.skip("gcloud is not on this machine")
    (folder / "token").write_text("a-token", "utf-8")
    environ = {
        **os.environ,
        "CLOUDSDK_CONFIG": str(folder / "config"),
        "CLOUDSDK_AUTH_ACCESS_TOKEN_FILE": str(folder / "token"),
        "CLOUDSDK_API_ENDPOINT_OVERRIDES_RUN": f"http://run.fake:{port}/",
        "CLOUDSDK_CORE_DISABLE_PROMPTS": "1",
        "CLOUDSDK_CORE_DISABLE_USAGE_REPORTING": "1",
        "CLOUDSDK_COMPONENT_MANAGER_DISABLE_UPDATE_CHECK": "1",
        "NO_PROXY": "*",
        "no_proxy": "*",
    }
    asked = [program, "run", "services", *words, "--project", PROJECT, "--region", "europe-west1", "--quiet"]
    return subprocess.run(asked, env=environ, capture_output=True, text=True, timeout=300)


def test_gcloud_takes_our_service(small: Small, tmp_path: Path) -> None:
    path = tmp_path / "service.yaml"
    path.write_bytes(service(small))
    with api() as (held, port), named("run.fake", "europe-west1-run.fake"):
        done = gcloud(tmp_path, port, "replace", str(path))
        assert done.returncode == 0, done.stderr
        assert held["service"]["spec"]["template"]["spec"]["containers"][0]["ports"][0]["containerPort"] == 8080
        path.write_bytes(service(small).replace(b"containerConcurrency", b"containerConcurency"))
        done = gcloud(tmp_path, port, "replace", str(path))
        assert done.returncode != 0
        assert "containerConcurency" in done.stderr


def test_the_types_of_google_take_our_service(small: Small) -> None:
    python = CLIENT / "bin" / "python"
    if not python.is_file():
        subprocess.run([sys.executable, "-m", "venv", str(CLIENT)], check=True)
        words = [
            str(python),
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "google-cloud-run==0.16.2",
        ]
        subprocess.run(words, check=True)
    where = Place("cloudrun", "churn", PROJECT, "europe-west1", "ketch")
    options = {each.name: each.default for each in cloudrun.OPTIONS} | {"public": True}
    body = cloudrun.service(where, "europe-west1-docker.pkg.dev/p/r/churn@sha256:0", options)
    done = subprocess.run([str(python), "-c", READ], input=json.dumps(body), capture_output=True, text=True)
    assert done.stdout.split() == ["europe-west1-docker.pkg.dev/p/r/churn@sha256:0", "/health/ready"], done.stderr
    body["template"]["containers"][0]["probess"] = {}
    done = subprocess.run([str(python), "-c", READ], input=json.dumps(body), capture_output=True, text=True)
    assert "probess" in done.stderr
