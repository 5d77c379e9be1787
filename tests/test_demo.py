"""The demo as a person runs it: real processes, a real server, and nothing left of them."""

import csv
import io
import json
import os
import pickle
import random
import re
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ketch
from ketch import demo
from ketch.demo import data
from ketch.errors import InputError, KetchError
from tests.running import KETCH
from tests.running import ketch as run

EXAMPLE = Path(__file__).parents[1] / "examples" / "churn"
NUMBERS = {"seniorcitizen": int, "tenure": int, "monthlycharges": float, "totalcharges": float}
MADE = {"model.bin", "churn.ketch", "customers.db", "scored.csv", "scored.csv.rejected.csv"}

seeds = st.integers(min_value=0, max_value=2**32)


# Customers


@given(seeds)
@settings(max_examples=25)
def test_the_same_seed_gives_the_same_bytes_and_another_one_others(seed: int) -> None:
    for write in (data.churn_csv, data.customers_csv):
        assert write(random.Random(seed), 20) == write(random.Random(seed), 20)
        assert write(random.Random(seed), 20) != write(random.Random(seed + 1), 20)


@given(seeds)
def test_no_customer_contradicts_themselves(seed: int) -> None:
    drawn = data.customer(random.Random(seed))
    online = {drawn[name] for name in data.MONTHLY}
    assert online <= ({"No internet service"} if drawn["InternetService"] == "No" else {"Yes", "No"})
    assert (drawn["MultipleLines"] == "No phone service") == (drawn["PhoneService"] == "No")
    assert drawn["PhoneService"] == "Yes" or drawn["InternetService"] == "DSL"
    assert 0 <= int(drawn["tenure"]) <= 72
    assert 18 <= float(drawn["MonthlyCharges"]) <= 122
    if drawn["tenure"] == 0:
        assert drawn["TotalCharges"] == data.NEVER_BILLED
    else:
        assert float(drawn["TotalCharges"]) == pytest.approx(
            float(drawn["tenure"]) * float(drawn["MonthlyCharges"]), rel=0.07
        )


@pytest.mark.parametrize("seed", range(4))
def test_the_table_is_like_those_of_real_companies(seed: int) -> None:
    rows = list(csv.DictReader(io.StringIO(data.churn_csv(random.Random(seed)))))
    left = [row for row in rows if row["Churn"] == "Yes"]

    def rate(column: str, value: str) -> float:
        gone, all_of_them = (len([row for row in some if row[column] == value]) for some in (left, rows))
        return gone / all_of_them

    assert 0.24 < len(left) / len(rows) < 0.30
    assert rate("Contract", "Two year") < rate("Contract", "One year") < rate("Contract", "Month-to-month")
    assert rate("InternetService", "No") < rate("InternetService", "DSL") < rate("InternetService", "Fiber optic")
    assert rate("TechSupport", "Yes") < rate("TechSupport", "No")
    assert 10 < sum(row["TotalCharges"] == " " for row in rows) < 150
    assert len({row["customerID"] for row in rows}) > len(rows) * 0.999


@given(seeds)
@settings(max_examples=10)
def test_both_teams_spell_alike_but_for_one_slip(seed: int) -> None:
    past = csv.DictReader(io.StringIO(data.churn_csv(random.Random(seed), 400)))
    known = {(name.lower(), value.lower().replace(" ", "_")) for row in past for name, value in row.items()}
    slips = [
        (name, value)
        for row in csv.DictReader(io.StringIO(data.customers_csv(random.Random(seed))))
        for name, value in row.items()
        if name not in {*NUMBERS, "customerid", "email"} and (name, value) not in known
    ]
    assert slips == [("paymentmethod", data.SLIP)]


# The story


class Told(NamedTuple):
    """A demo that has ended, and where."""

    code: int
    out: str
    err: str
    folder: Path
    home: Path


def surroundings(root: Path) -> dict[str, str]:
    """Give a temporary folder, and what somebody may have set for services of their own."""
    (root / "tmp").mkdir()
    places = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(root / "tmp"))
    return places | {"KETCH_HOME": str(root / "home"), "KETCH_PORT": "1", "KETCH_API_KEYS": "k" * 32}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    root = tmp_path_factory.mktemp("told")
    folder = root / "here"
    folder.mkdir()
    done = run("demo", cwd=folder, home=root / "home", **surroundings(root))
    return Told(done.returncode, done.stdout, done.stderr, folder, root / "home")


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """Tell the story with --keep, and stop it when the server is up, as a person would with Ctrl+C.

    What is left to tell then takes a fraction of a second: on a busy machine it may be over before it is stopped.
    """
    for _ in range(5):
        found = told_until_stopped(tmp_path_factory.mktemp("interrupted"))
        if found.code:
            break
    return found


def told_until_stopped(root: Path) -> Told:
    with subprocess.Popen(
        [*KETCH, "demo", "--keep", "kept"],
        cwd=root,
        env=os.environ | surroundings(root),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        bufsize=1,
        preexec_fn=None if os.name == "nt" else heed_interrupts,
    ) as process:
        assert process.stdout is not None
        lines: list[str] = []
        for line in process.stdout:
            lines.append(line)
            if "(process " in line:
                process.send_signal(signal.SIGTERM if os.name == "nt" else signal.SIGINT)
                break
        out, err = process.communicate(timeout=60)
    return Told(process.returncode, "".join(lines) + out, err, root / "kept", root / "home")


def heed_interrupts() -> None:
    """Undo what a shell does to what it runs in the background, or Ctrl+C would be ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def commands(out: str) -> list[str]:
    return re.findall(r"^   \$ (.*)$", out, re.MULTILINE)


def server_of(out: str) -> tuple[int, int]:
    """Give the server's process and port as the story told them."""
    port, pid = re.search(r"http://localhost:(\d+)", out), re.search(r"\(process (\d+)\)", out)
    assert port is not None
    assert pid is not None
    return int(pid[1]), int(port[1])


def assert_gone(out: str) -> None:
    pid, port = server_of(out)
    if os.name != "nt":  # there, signal 0 is no question but an order
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    with closing(socket.socket()) as asking:
        assert asking.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.service
def test_the_story_is_told_step_by_step_and_ends_well(told: Told) -> None:
    assert (told.code, told.err) == (0, "")
    assert re.findall(r"^(\d)\. ", told.out, re.MULTILINE) == list("1234567")
    assert [re.split(r" (?:--|http|-o|\w+\.)", each)[0] for each in commands(told.out)] == [
        "ketch demo",
        "python",
        "ketch pack",
        "ketch serve",
        "curl",
        "python",
        "ketch score",
    ]
    for said in ("AUC", "19 fields", '"churn": true', "Did you mean 'bank_transfer_(automatic)'?", "29 rows scored"):
        assert said in told.out
    assert "\x1b" not in told.out


@pytest.mark.service
def test_every_command_shown_is_in_the_readme(told: Told) -> None:
    readme = (EXAMPLE / "README.md").read_text("utf-8")
    for command in commands(told.out)[1:]:
        by_hand = re.sub(r"http://[\d.a-z]+:\d+", "http://localhost:9696", command).removesuffix(" --port 0")
        assert f"    {by_hand}\n" in readme


@pytest.mark.service
def test_the_bundle_is_left_and_nothing_else(told: Told) -> None:
    assert [path.name for path in told.folder.iterdir()] == ["churn.ketch"]
    assert list((told.folder.parent / "tmp").iterdir()) == []
    assert_gone(told.out)


@pytest.mark.service
def test_the_bundle_answers_as_the_pickled_model_does(
    told: Told, interrupted: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (told.folder / "churn.ketch").read_bytes() == (interrupted.folder / "churn.ketch").read_bytes()
    dv, model = pickle.loads((interrupted.folder / "model.bin").read_bytes())
    customers = [row for row in rows_of(EXAMPLE / "customers.csv") if row["paymentmethod"] != data.SLIP]
    expected = model.predict_proba(dv.transform(customers))[:, 1]
    monkeypatch.setenv("KETCH_HOME", str(told.home))
    answers = ketch.load(told.folder / "churn.ketch").predict(customers)
    assert [each["churn_probability"] for each in answers] == pytest.approx(expected, abs=1e-9)
    assert [each["churn"] for each in answers] == (expected >= 0.5).tolist()


def rows_of(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = [{name: NUMBERS.get(name, str)(value) for name, value in row.items()} for row in csv.DictReader(file)]
    return [{name: value for name, value in row.items() if name not in {"customerid", "email"}} for row in rows]


@pytest.mark.service
def test_an_interrupted_story_leaves_no_server(interrupted: Told) -> None:
    assert interrupted.code != 0
    if os.name != "nt":
        assert interrupted.code == 130
        assert "Traceback" not in interrupted.err
        assert_gone(interrupted.out)


@pytest.mark.service
def test_the_example_in_the_repository_is_what_the_demo_keeps(interrupted: Told) -> None:
    kept = {path.name: path.read_bytes() for path in interrupted.folder.iterdir() if path.name not in MADE}
    committed = {path.name: path.read_bytes() for path in EXAMPLE.iterdir() if path.name not in MADE}
    assert set(kept) == set(committed) == set(demo.files())
    for name, content in kept.items():
        assert committed[name] == content, f"{name} differs: ketch demo --keep writes it"
    assert len(kept["churn.csv"]) <= 700_000


# What goes wrong


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    done = run("demo", "--keep", tmp_path, home=tmp_path / "home")
    assert (done.returncode, done.stdout) == (1, "")
    assert "is not empty" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_another_bundle_of_that_name_is_not_overwritten(tmp_path: Path) -> None:
    made, here = tmp_path / "churn.ketch", tmp_path / "here"
    made.write_bytes(b"new")
    here.mkdir()
    demo.leave(made, here)
    demo.leave(made, here)
    (here / "churn.ketch").write_bytes(b"mine")
    with pytest.raises(InputError, match="another one"):
        demo.leave(made, here)
    assert (here / "churn.ketch").read_bytes() == b"mine"


def test_a_step_that_fails_is_named_and_nothing_stays(tmp_path: Path) -> None:
    said: list[str] = []
    no_python = os.environ | surroundings(tmp_path) | {"PYTHONHOME": str(tmp_path / "nowhere")}
    with pytest.raises(KetchError, match=r"Step 2 of the demo failed: python train.py churn.csv model.bin ended with"):
        demo.run(tmp_path / "kept", here=tmp_path, environ=no_python, say=said.append)
    assert said[-1].startswith("   ")  # what the step itself had to say
    assert not (tmp_path / "churn.ketch").exists()


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    said: list[str] = []
    story = demo.Story(tmp_path, os.environ, said.append)
    with pytest.raises(KetchError, match="does not start"), story.serving("Serve", "ketch serve nothing.ketch"):
        pass
    assert any("nothing.ketch" in line for line in said[1:])


# The marketing service


@pytest.fixture(scope="module")
def service(told: Told, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    environ = os.environ | {"KETCH_HOME": str(told.home)}
    with demo.Story(told.folder, environ, print).serving("", "ketch serve churn.ketch --port 0") as url:
        yield url.replace("localhost", "127.0.0.1")


def market(folder: Path, service: str, customers: Path = EXAMPLE / "customers.csv") -> tuple[int, str, str]:
    script = [sys.executable, str(EXAMPLE / "marketing.py"), "--service", service, "--customers", str(customers)]
    done = subprocess.run(script, cwd=folder, capture_output=True, encoding="utf-8", timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr


def decisions(folder: Path) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(folder / "customers.db")) as db:
        db.row_factory = sqlite3.Row
        return [dict(row) for row in db.execute("SELECT * FROM customers")]


@pytest.mark.service
def test_marketing_writes_down_what_the_service_answered(service: str, told: Told, tmp_path: Path) -> None:
    code, out, err = market(tmp_path, service)
    assert (code, err) == (0, "")
    assert re.search(r"is skipped: paymentmethod .* Did you mean 'bank_transfer_\(automatic\)'\?", out)
    found = decisions(tmp_path)
    skipped = [row for row in found if row["decision"] == "skipped"]
    assert [(row["paymentmethod"], row["probability"]) for row in skipped] == [(data.SLIP, None)]
    decided = [row for row in found if row not in skipped]
    assert len(decided) == 29
    asked = [{key: row[key] for key in json.loads((EXAMPLE / "customer.json").read_text("utf-8"))} for row in decided]
    client = ketch.Client(service)
    answers = client.predict(asked)
    client.close()
    for row, answer in zip(decided, answers, strict=True):
        assert row["probability"] == answer["churn_probability"]
        assert row["decision"] == ("send e-mail" if answer["churn"] else "no e-mail")
    assert {row["decision"] for row in decided} == {"send e-mail", "no e-mail"}


@pytest.mark.service
def test_marketing_asks_again_when_run_again(service: str, tmp_path: Path) -> None:
    market(tmp_path, service)
    with closing(sqlite3.connect(tmp_path / "customers.db")) as db, db:
        db.execute("UPDATE customers SET paymentmethod = 'mailed_check' WHERE decision = 'skipped'")
    code, out, _ = market(tmp_path, service, tmp_path / "not-needed-any-more.csv")
    assert (code, len(decisions(tmp_path))) == (0, 30)
    assert "skipped" not in out + "".join(row["decision"] for row in decisions(tmp_path))


def test_marketing_says_when_there_is_no_service(tmp_path: Path) -> None:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody else gets it, and nobody answers
        code, _, err = market(tmp_path, f"http://127.0.0.1:{taken.getsockname()[1]}")
    assert code == 1
    assert "cannot be reached" in err
    assert "Traceback" not in err
