"""Other people's clients of Elastic Beanstalk: they read our files, and find in the account what we have made."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ketch import steps
from ketch.deploy import beanstalk
from tests.beanstalk_account import KEY, hands, look_up, options, shipment
from tests.beanstalk_instances import local
from tests.doors import Small
from tests.fake_beanstalk import Cloud, cloud, completed

pytestmark = [pytest.mark.ship, pytest.mark.timeout(300)]
ROOT = Path(__file__).parents[2]
EB = "3.27.5"


@pytest.fixture(scope="module")
def account() -> Iterator[Cloud]:
    with (
        completed() as server,
        local() as runner,
        cloud(server, runner, rate=30.0) as made,
        pytest.MonkeyPatch.context() as patched,
    ):
        for name, value in made.environ.items():
            patched.setenv(name, value)
        look_up(made, patched)
        yield made


@pytest.fixture(scope="module")
def folder(account: Cloud, small: Small, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a plan wrote, after it was carried out."""
    plan = beanstalk.plan(shipment(small.bundle), options(drain=0))
    steps.run(plan, hands(account))
    place = tmp_path_factory.mktemp("by-hand")
    for path, data in plan.files.items():
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        (place / path).write_bytes(data)
    return place


def run(words: list[str], folder: Path, account: Cloud) -> str:
    environ = {**os.environ, **account.environ, "HOME": str(folder), "PAGER": "cat", "AWS_PAGER": ""}
    done = subprocess.run(words, cwd=folder, env=environ, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def aws(account: Cloud, folder: Path, *words: str) -> Any:
    program = shutil.which("aws")
    if program is None:
        pytest.skip("the AWS CLI is not on this machine")
    said = run([program, "elasticbeanstalk", *words, "--output", "json"], folder, account)
    return json.loads(said) if said.strip() else None


def test_the_aws_cli_finds_what_was_made_and_changes_it(account: Cloud, folder: Path) -> None:
    found = aws(account, folder, "describe-environments", "--application-name", "churn")["Environments"]
    assert [(each["Status"], each["Health"]) for each in found] == [("Ready", "Green")]
    versions = aws(account, folder, "describe-application-versions", "--application-name", "churn")
    assert [each["Status"] for each in versions["ApplicationVersions"]] == ["PROCESSED"]
    name = found[0]["EnvironmentName"]
    told = aws(account, folder, "describe-events", "--environment-name", name, "--max-items", "3")["Events"]
    assert told[0]["Message"] == f"Successfully launched environment: {name}"
    health = aws(account, folder, "describe-environment-health", "--environment-name", name, "--attribute-names", "All")
    assert health["Color"] == "Green"
    said = aws(
        account, folder, "describe-configuration-settings", "--application-name", "churn", "--environment-name", name
    )
    assert KEY not in json.dumps(said), "the settings name the secret, and do not hold it"


@pytest.fixture(scope="module")
def eb(folder: Path) -> str:
    """The EB CLI of PyPI, in an environment of its own."""
    place = ROOT / ".cache" / f"awsebcli-{EB}"
    if not (place / "bin" / "eb").is_file():
        uv = [str(ROOT / ".venv" / "bin" / "uv")]
        subprocess.run(
            [*uv, "venv", "--quiet", "--clear", "--python", str(ROOT / ".venv/bin/python"), str(place)], check=True
        )
        python = str(place / "bin" / "python")
        subprocess.run([*uv, "pip", "install", "--quiet", "--python", python, f"awsebcli=={EB}"], check=True)
    return str(place / "bin" / "eb")


def test_the_eb_cli_reads_our_files_and_carries_on(account: Cloud, folder: Path, eb: str) -> None:
    listed = run([eb, "list", "--region", "us-east-1"], folder, account)
    assert listed.strip().startswith("* churn-"), "our environment is the one that it works with"
    status = run([eb, "status", "--region", "us-east-1"], folder, account)
    assert "Application name: churn" in status
    assert "Health: Green" in status
    assert "Docker running on 64bit Amazon Linux 2023/4.10.0" in status
    events = run([eb, "events", "--region", "us-east-1"], folder, account)
    assert "Successfully launched environment" in events
