"""Pipelines of `--emit`, against the schemas of GitHub and GitLab and a linter of security; targets as files."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from ketch.deploy import emit
from tests.doors import Small
from tests.running import ketch
from tests.test_deploy_files import TARGETS

pytestmark = pytest.mark.ship
CACHE: Final = Path(__file__).parent.parent.parent / ".cache" / "pipelines"
TOOLS: Final = ("check-jsonschema==0.39.0", "zizmor==1.32.0")


@pytest.fixture(scope="module")
def tools() -> Path:
    """Both programs, in an environment of their own; check-jsonschema brings the schemas along."""
    if not (CACHE / "bin" / "zizmor").exists():
        shutil.rmtree(CACHE, ignore_errors=True)
        uv = [sys.executable, "-m", "uv"]
        subprocess.run([*uv, "venv", "--quiet", str(CACHE)], check=True)
        subprocess.run(
            [*uv, "pip", "install", "--quiet", "--python", str(CACHE / "bin" / "python"), *TOOLS], check=True
        )
    return CACHE / "bin"


@pytest.mark.parametrize("kind", emit.KINDS)
def test_they_are_what_the_schemas_allow(kind: str, tools: Path, tmp_path: Path) -> None:
    paths = []
    for target in TARGETS:
        for text in emit.pipeline(kind, emit.Wanted(target, "churn.ketch", "churn", ("--min", "2"), "0.1.0")).values():
            paths.append(tmp_path / f"{target}.yml")
            paths[-1].write_text(text)
    schema = {"github": "vendor.github-workflows", "gitlab": "vendor.gitlab-ci"}[kind]
    more = ["--data-transform", "gitlab-ci"] if kind == "gitlab" else []
    words = [str(tools / "check-jsonschema"), "--builtin-schema", schema, *more, *map(str, paths)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_linter_of_security_finds_nothing_but_versions_by_tag(tools: Path, tmp_path: Path) -> None:
    place = tmp_path / ".github" / "workflows"
    place.mkdir(parents=True)
    for target in TARGETS:
        for text in emit.pipeline("github", emit.Wanted(target, "churn.ketch", "churn", (), "0.1.0")).values():
            (place / f"{target}.yml").write_text(text)
    words = [str(tools / "zizmor"), "--offline", "--no-exit-codes", "--format", "json", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    found = {each["ident"] for each in json.loads(done.stdout)}
    assert found <= {"unpinned-uses"}, done.stdout[:3000]


@pytest.mark.parametrize("target", ["fly", "huggingface"])
def test_files_are_written_for_the_tools_of_others(target: str, small: Small, tmp_path: Path) -> None:
    refused = ketch("deploy", target, small.bundle, home=small.home)
    assert "-o FOLDER" in refused.stderr
    out = tmp_path / "out"
    done = ketch("deploy", target, small.bundle, "-o", out, "--json", home=small.home)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["folder"] == str(out)
    own = {"fly": "fly.toml", "huggingface": "README.md"}[target]
    for path in (own, "Dockerfile", ".dockerignore", "model/churn.ketch", "plan.json"):
        assert (out / path).is_file(), path
