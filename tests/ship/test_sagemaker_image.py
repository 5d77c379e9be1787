"""The image as SageMaker starts it: with the one word `serve`, at port 8080, for callers whom the platform knows."""

import json
import subprocess
import time
import urllib.request
from typing import Any

import pytest

from tests.models import rows
from tests.ship.conftest import LOCKED

pytestmark = pytest.mark.ship


def docker(*words: str) -> str:
    return subprocess.run(["docker", *words], capture_output=True, text=True, check=True).stdout.strip()


def test_it_answers_pings_and_invocations(service: Any) -> None:
    told = ("--env", "KETCH_AUTH=platform", "--env", "KETCH_PORT=8080", "--publish", "127.0.0.1::8080")
    name = docker("run", "--detach", *LOCKED, *told, "ketch-test-churn:1", "serve")
    try:
        until = time.monotonic() + 60
        while "answers" not in docker("logs", name):
            assert time.monotonic() < until
            time.sleep(0.1)
        url = f"http://{docker('port', name, '8080').splitlines()[0]}"
        with urllib.request.urlopen(f"{url}/ping", timeout=10) as answer:
            assert answer.status == 200
        body = json.dumps(rows()[:3]).encode()
        asked = urllib.request.Request(f"{url}/invocations", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(asked, timeout=10) as answer:
            assert len(json.loads(answer.read())) == 3
    finally:
        docker("rm", "--force", name)
