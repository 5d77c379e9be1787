"""`ketch up`: what places are found by files and environment alone, and what is said where there is none or several."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from ketch.cli.up import Place, chosen, packed, places
from ketch.errors import UsageError
from ketch.settings import read
from tests.doors import Small
from tests.running import ketch


def found(home: Path, **environ: str) -> dict[str, Place]:
    """Find places on a machine without any program."""
    return places({"PATH": str(home / "nothing"), **environ}, home)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return path


def test_without_engine_and_credentials_there_is_no_place(tmp_path: Path) -> None:
    assert found(tmp_path) == {}
    with pytest.raises(UsageError, match="neither"):
        chosen({}, "")


@pytest.mark.service
def test_credentials_are_found_where_each_vendor_keeps_them(tmp_path: Path) -> None:
    assert list(found(tmp_path, AWS_ACCESS_KEY_ID="AKIA")) == ["beanstalk"]
    write(tmp_path / ".aws" / "credentials", "[default]\n")
    assert found(tmp_path, AWS_PROFILE="work")["beanstalk"].told == "the AWS profile work"
    gcloud = {"type": "authorized_user", "quota_project_id": "shop"}
    write(tmp_path / ".config" / "gcloud" / "application_default_credentials.json", json.dumps(gcloud))
    assert found(tmp_path)["cloudrun"].options == {"project": "shop"}
    assert found(tmp_path, GOOGLE_CLOUD_PROJECT="other")["cloudrun"].options == {"project": "other"}
    listed = {"subscriptions": [{"id": "1"}, {"id": "2", "isDefault": True}]}
    write(tmp_path / ".azure" / "azureProfile.json", "\ufeff" + json.dumps(listed))
    assert found(tmp_path)["containerapps"].options == {"subscription": "2"}
    assert list(found(tmp_path)) == ["beanstalk", "cloudrun", "containerapps"]


def test_files_that_cannot_be_read_are_no_credentials(tmp_path: Path) -> None:
    write(tmp_path / ".azure" / "azureProfile.json", "[]")
    write(tmp_path / ".config" / "gcloud" / "application_default_credentials.json", "{")
    assert found(tmp_path)["cloudrun"].options == {}
    assert "containerapps" not in found(tmp_path)


def test_this_machine_comes_first_and_between_clouds_nobody_guesses() -> None:
    here, one, other = (Place(name, name) for name in ("compose", "beanstalk", "cloudrun"))
    assert chosen({"beanstalk": one}, "") is one
    assert chosen({"compose": here, "beanstalk": one, "cloudrun": other}, "") is here
    assert chosen({"compose": here, "beanstalk": one}, "beanstalk") is one
    with pytest.raises(UsageError, match=r"beanstalk \(--on beanstalk\), cloudrun"):
        chosen({"beanstalk": one, "cloudrun": other}, "")
    with pytest.raises(UsageError, match="a container engine"):
        chosen({"beanstalk": one}, "compose")
    with pytest.raises(UsageError, match="signed in"):
        chosen({"compose": here}, "cloudrun")


def test_a_person_is_told_what_is_missing(small: Small, tmp_path: Path) -> None:
    nothing: dict[str, Any] = {"PATH": str(tmp_path), "HOME": str(tmp_path)}
    done = ketch("up", small.bundle, home=small.home, **nothing)
    assert done.returncode == 1
    assert "neither a container engine" in done.stderr
    assert "az login" in done.stderr
    settings = read({}, environ={}, folder=tmp_path)
    with pytest.raises(UsageError, match="A notebook is packed first"), packed("a.ipynb", settings, {}):
        pass


@pytest.mark.service
def test_the_plan_of_a_model_file_is_shown_and_nothing_is_left_behind(small: Small, tmp_path: Path) -> None:
    model = tmp_path / "model.pkl"
    model.write_bytes(pickle.dumps(small.parts))
    says = 'case "$*" in *inspect*) echo No such container >&2; exit 1;; *) echo compose 9;; esac'
    engine = write(tmp_path / "bin" / "docker", f"#!/bin/sh\n{says}\n")
    engine.chmod(0o755)
    work = tmp_path / "work"
    work.mkdir()
    told: dict[str, Any] = {"PATH": f"{engine.parent}:/bin:/usr/bin", "HOME": str(tmp_path)}
    done = ketch("up", model, "--target", "churn", "--plan", "--trust", home=tmp_path / "home", cwd=work, **told)
    assert done.returncode == 0, done.stderr
    assert "packed as churn, goes to compose" in done.stdout
    assert "for there is docker on this machine, with compose 9" in done.stdout
    assert "+ Build the image of the service" in done.stdout
    assert "Ask the live service for its golden predictions" in done.stdout
    assert not list(work.iterdir())
