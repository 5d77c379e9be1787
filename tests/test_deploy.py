"""`ketch deploy`, on a target that another package brings: plan, question, live address, and the way back."""

import json
import runpy
import shutil
from pathlib import Path
from typing import Any

import pytest

from ketch import bundle, deploy
from ketch.cli.deploy import deployed
from ketch.deploy import Shipment, Target
from ketch.errors import DeployError, InputError, UsageError
from ketch.steps import Done, Hands, Plan, Secret, Step
from tests import running
from tests.clouds import Contract
from tests.doors import Small
from tests.running import ketch, serving

SHELF = Path(__file__).parent / "programs" / "ketch_shelf.py"


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """A package that brings a target, as it stands in site-packages."""
    site = tmp_path / "site"
    info = site / "ketch_shelf-1.dist-info"
    info.mkdir(parents=True)
    shutil.copy(SHELF, site)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ketch-shelf\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[ketch.targets]\nshelf = ketch_shelf:TARGET\n")
    return site


def run(*words: object, home: Path, shelf: Path, code: int = 0) -> running.Done:
    done = ketch("deploy", *map(str, words), home=home, PYTHONPATH=str(shelf))
    assert done.returncode == code, done.stderr
    return done


@pytest.mark.service
def test_a_model_is_deployed_watched_rolled_back_and_removed(small: Small, shelf: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    other = Small.pack(tmp_path, seed=5)
    first = folder / "churn--0.ketch"
    shutil.copy(other.bundle, first)
    (folder / "churn.ketch").symlink_to(first.name)
    with serving(folder / "churn.ketch", "--follow", home=small.home) as url:
        words = ("shelf", small.bundle, "--folder", folder, "--url", url)
        shown = run(*words, "--plan", home=small.home, shelf=shelf).stdout
        assert "+ Write churn--churn-" in shown
        assert "= See what is served" in shown
        assert (folder / "churn.ketch").readlink().name == first.name, "a plan changes something"
        asked = run(*words, home=small.home, shelf=shelf, code=1)  # nobody is there to agree
        assert "Carry it out?" in asked.stderr
        assert "Nothing was done" in asked.stderr

        done = run(*words, "--yes", "--json", home=small.home, shelf=shelf)
        assert json.loads(done.stdout) == {"target": "shelf", "name": "churn", "url": url}
        again = run(*words, "--yes", home=small.home, shelf=shelf)
        assert again.stdout.count("nothing to do") == 2
        about = ("--folder", folder, "--url", url)
        status = run("shelf", "churn", "--status", *about, home=small.home, shelf=shelf)
        assert "churn serves churn--churn-" in status.stdout
        run("shelf", "churn", "--rollback", "--yes", *about, home=small.home, shelf=shelf)
        assert (folder / "churn.ketch").readlink().name == first.name
        done = run("shelf", "churn", "--destroy", "--yes", "--json", *about, home=small.home, shelf=shelf)
        assert json.loads(done.stdout) == {"target": "shelf", "name": "churn", "done": "destroy"}
        assert not list(folder.glob("*.ketch"))


@pytest.mark.service
def test_what_does_not_answer_right_is_taken_back(small: Small, shelf: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    before = folder / "churn--0.ketch"
    shutil.copy(small.bundle, before)
    (folder / "churn.ketch").symlink_to(before.name)
    other = Small.pack(tmp_path, seed=5)
    with serving(small.bundle, home=small.home) as url:  # which follows nothing: the new model is never live
        words = ("shelf", other.bundle, "--folder", folder, "--url", url, "--yes")
        done = run(*words, home=other.home, shelf=shelf, code=1)
    assert "golden row" in done.stderr
    assert (folder / "churn.ketch").readlink().name == before.name


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("nowhere", "churn.ketch"), "There is no target 'nowhere'"),
        (("beanstak", "churn.ketch"), "Did you mean beanstalk?"),
        (("shelf", "churn.ketch", "--destroy"), "Name it churn, for instance"),
        (("shelf",), "Which MODEL?"),
        (("shelf", "--status"), "needs the NAME"),
        (("shelf", "churn", "--status", "--logs"), "two things"),
        (("shelf", "churn", "--doctor"), "has no --doctor"),
        (("shelf", "churn", "--status", "--folder", "/nowhere"), "no such folder"),
    ],
)
def test_what_cannot_be_meant_is_told_in_words(words: tuple[str, ...], told: str, small: Small, shelf: Path) -> None:
    done = ketch("deploy", *words, home=small.home, PYTHONPATH=str(shelf))
    assert told in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_a_plan_can_be_taken_along_as_files(small: Small, shelf: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run("shelf", small.bundle, "--plan", "-o", out, home=small.home, shelf=shelf)
    told = json.loads((out / "plan.json").read_text())
    assert [each["name"] for each in told["steps"]] == ["before", "version", "serve", "smoke"]


def test_a_key_that_was_made_is_told_though_what_follows_fails(
    small: Small, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(found: Any, got: Any) -> Done:
        raise DeployError("The port is taken", hint="Choose another.")

    def plan(shipment: Shipment, options: deploy.Options) -> Plan:
        made = Step("key", "The key that callers send", act=lambda found, got: Done(shipment.key))
        return Plan("shelf", shipment.name, (made, Step("up", "Bring it up", act=fails)))

    opened = bundle.read(small.bundle.read_bytes(), "churn")
    shipped = Shipment("churn", opened, small.bundle.read_bytes(), Secret("a-key-of-its-own"))
    for environ, told in ({}, "shown this once: a-key-of-its-own"), ({"CI": "true"}, "others read this log"):
        with pytest.raises(DeployError, match="The port is taken"):
            deployed(Target("shelf", "", "", plan), shipped, {}, {"yes": True}, Hands(environ, print))
        assert told in capsys.readouterr().out


@pytest.mark.parametrize("name", ["churn", "a-1", "ab", "a" * 40])
def test_names_that_every_cloud_takes(name: str) -> None:
    assert deploy.require_name(name) == name


@pytest.mark.parametrize("name", ["", "1a", "a.b", "a_b", "A", "a", "a" * 41, "ä", "a b", "-a", "a-", "a--b"])
def test_names_that_some_cloud_refuses(name: str) -> None:
    with pytest.raises(UsageError):
        deploy.require_name(name)


@pytest.mark.parametrize(
    ("name", "like"),
    [
        ("my_model.v2", "my-model-v2"),
        ("Über", "uber"),
        ("models/churn.ketch", "churn"),
        ("churn@champion", "churn"),
        ("1st-model", "st-model"),
        ("名", "churn"),
        ("a" * 60, "a" * 40),
    ],
)
def test_a_name_that_no_cloud_takes_is_told_with_one_that_all_do(name: str, like: str) -> None:
    with pytest.raises(UsageError) as refused:
        deploy.require_name(name)
    assert f"Name it {like}," in refused.value.hint
    assert deploy.require_name(like) == like


def test_an_estimate_counts_what_is_known_and_tells_what_is_not(tmp_path: Path) -> None:
    path = tmp_path / "prices.toml"
    path.write_text('date = 2026-01-31\n[price]\n"a.b" = { dollars = 2.5, unit = "hour" }\n')
    found = deploy.estimate({"a.b": 2.0, "c": 1.0}, deploy.prices(path))
    assert (found.dollars, found.whole, found.date) == (5.0, False, "2026-01-31")
    assert [(each.what, each.unit, each.dollars) for each in found.lines] == [("a.b", "hour", 5.0), ("c", "", None)]
    path.write_text("[price")
    with pytest.raises(InputError):
        deploy.prices(path)
    for row in deploy.prices()["price"].values():
        assert row["dollars"] >= 0
        assert row["unit"]


@pytest.mark.parametrize("name", list(deploy.KNOWN))
def test_every_target_can_be_had_by_its_name(name: str) -> None:
    found = deploy.target(name)
    assert found.name == name
    assert found.takes in {"image", "site", "files"}
    assert found.doctor or found.takes == "files", "nobody can find out beforehand what is missing"


class TestShelf(Contract):
    """The contract, on the target of these tests."""

    target = runpy.run_path(str(SHELF))["TARGET"]
    name = "churn"
