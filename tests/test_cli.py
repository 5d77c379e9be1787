"""The command line: groups, cost, and what a person is told when something is wrong."""

import json
import os
import pickle
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from ketch.cli import GROUPS, PLANNED, VERBS, cli, complain, note
from tests.running import KETCH, ketch, lines, serving


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that can be got wrong."""
    from sklearn.feature_extraction import DictVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    folder = tmp_path_factory.mktemp("shop")
    rows: list[dict[str, Any]] = [{"kind": kind, "size": size} for size in range(30) for kind in ("a", "b")]
    dv = DictVectorizer(sparse=False)
    X, y = dv.fit_transform(rows), [int(row["kind"] == "a" or row["size"] > 20) for row in rows]
    model = LogisticRegression().fit(X, y)
    things: dict[str, Any] = {
        "model.bin": (dv, model),
        "dv.bin": dv,
        "unfitted.bin": LogisticRegression(),
        "scaler.bin": StandardScaler().fit(X),
        "number.bin": 7,
        "dict.bin": {"weights": [1, 2]},
        "words.bin": (dv, LogisticRegression().fit(X, ["low" if each else "high" for each in y])),
        "evil.bin": Evil(),
        "array.bin": X,
    }
    for name, thing in things.items():
        (folder / name).write_bytes(pickle.dumps(thing))
    (folder / "text.bin").write_text("not a pickle at all")
    (folder / "empty.bin").write_bytes(b"")
    (folder / "cut.bin").write_bytes((folder / "model.bin").read_bytes()[:-40])
    done = ketch("pack", "model.bin", "--target", "good", home=folder / "home", cwd=folder)
    assert done.returncode == 0, done.stderr
    whole = (folder / "good.ketch").read_bytes()
    (folder / "cut.ketch").write_bytes(whole[: len(whole) // 2])
    (folder / "flipped.ketch").write_bytes(whole[:600] + bytes([whole[600] ^ 1]) + whole[601:])
    (folder / "rows.csv").write_text("kind,size\na,1\nb,2\n")
    (folder / "told.csv").write_text("kind,size,good\na,1,1\nb,2,0\n")
    (folder / "mixed.csv").write_text("kind,size\na,1\nz,2\nb,x\n")
    (folder / "missing.csv").write_text("kind\na\n")
    (folder / "misspelt.csv").write_text("kind,sise\na,1\n")
    (folder / "twice.csv").write_text("kind,kind\na,1\n")
    (folder / "empty.csv").write_text("")
    (folder / "ragged.csv").write_text('kind,size\na,1\n"b,2\n')
    (folder / "latin.csv").write_bytes("kind,size\nä,1\n".encode("latin-1"))
    (folder / "fake.parquet").write_text("kind,size\na,1\n")
    (folder / "bad.toml").write_text("threshold = = 1\n")
    (folder / "odd.toml").write_text("colour = 'red'\n")
    (folder / "frozen.toml").write_text("[fields.kind]\ncategories = ['q']\n")
    (folder / "keys.txt").write_text("")
    (folder / "settings").mkdir()
    (folder / "settings" / "ketch.toml").write_text("auth = 'none'\n")
    (folder / "settings" / "wrong").mkdir()
    (folder / "settings" / "wrong" / "ketch.toml").write_text("colour = 'red'\n")
    return folder


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch evil-was-here",)


ERRORS: dict[str, tuple[list[str], str]] = {  # what is wrong -> the command, a word of the remedy
    "unknown verb": (["srve"], "serve"),
    "planned verb": (["deploy"], "--help"),
    "unknown flag": (["serve", "good.ketch", "--prot", "1"], "--help"),
    "pack nothing": (["pack"], "--help"),
    "pack a missing file": (["pack", "nosuch.bin"], "path"),
    "pack a folder": (["pack", "settings"], "file"),
    "pack a text": (["pack", "text.bin"], "notebook|save|model"),
    "pack an empty file": (["pack", "empty.bin"], "save|model|again"),
    "pack a cut file": (["pack", "cut.bin"], "again|whole"),
    "pack a bundle": (["pack", "good.ketch"], "notebook"),
    "pack a number": (["pack", "number.bin"], "estimator"),
    "pack a dict of lists": (["pack", "dict.bin"], "estimator"),
    "pack an array": (["pack", "array.bin"], "estimator"),
    "pack an unfitted estimator": (["pack", "unfitted.bin"], "fit"),
    "pack a transformer": (["pack", "scaler.bin"], "estimator"),
    "pack only the vectorizer": (["pack", "dv.bin"], "estimator"),
    "pack a hostile pickle": (["pack", "evil.bin"], "--trust"),
    "trust before the file": (["pack", "--trust", "evil.bin"], "behind"),
    "trust another file": (["pack", "evil.bin", "--trust=sha256:00"], "SHA-256|help"),
    "wrong positive class": (["pack", "words.bin", "--positive", "yes"], "high, low"),
    "threshold out of range": (["pack", "model.bin", "--threshold", "3"], "between"),
    "threshold not a number": (["pack", "model.bin", "--threshold", "half"], "--help"),
    "no such target": (["pack", "model.bin", "--target", "godo", "--data", "told.csv"], "kind, size, good"),
    "data without a field": (["pack", "model.bin", "--data", "missing.csv"], "kind"),
    "data is missing": (["pack", "model.bin", "--data", "nosuch.csv"], "path"),
    "data is no Parquet": (["pack", "model.bin", "--data", "fake.parquet"], "Parquet"),
    "impossible name": (["pack", "model.bin", "--name", "../up"], "letters"),
    "output to nowhere": (["pack", "model.bin", "-o", "no/such/folder/x.ketch"], "place"),
    "contract is no TOML": (["pack", "model.bin", "--contract", "bad.toml"], "line"),
    "contract sets nonsense": (["pack", "model.bin", "--contract", "odd.toml"], "threshold"),
    "contract changes categories": (["pack", "model.bin", "--contract", "frozen.toml"], "label"),
    "inspect a missing file": (["inspect", "nosuch.ketch"], "path"),
    "inspect a pickle": (["inspect", "model.bin"], "ketch pack"),
    "inspect a cut bundle": (["inspect", "cut.ketch"], "again"),
    "inspect a flipped bundle": (["inspect", "flipped.ketch"], "again"),
    "serve an unknown name": (["serve", "nosuch"], "push"),
    "serve an impossible reference": (["serve", "good:x"], "churn:3|:"),
    "serve at a taken port": (["serve", "good.ketch", "--port", "TAKEN"], "--port"),
    "serve at no port": (["serve", "good.ketch", "--port", "99999"], "65535"),
    "serve at a word": (["serve", "good.ketch", "--port", "http"], "digits"),
    "serve to the world without a key": (["serve", "good.ketch", "--host", "0.0.0.0"], "KETCH_API_KEYS"),
    "serve with unknown auth": (["serve", "good.ketch", "--auth", "maybe"], "platform"),
    "serve strict and lenient": (["serve", "good.ketch", "--strict", "--lenient"], "one of"),
    "serve with an empty file of keys": (["serve", "good.ketch", "--api-keys-file", "keys.txt"], "key"),
    "serve with a missing file of keys": (["serve", "good.ketch", "--api-keys-file", "nosuch"], "key"),
    "serve with a log to nowhere": (
        ["serve", "good.ketch", "--log", "sqlite:////no/such/folder/x.db"],
        "folder|path|place",
    ),
    "serve with a log of no kind": (["serve", "good.ketch", "--log", "mysql://x"], "sqlite"),
    "score without output": (["score", "good.ketch", "rows.csv"], "--help"),
    "score a missing table": (["score", "good.ketch", "nosuch.csv", "-o", "x.csv"], "path"),
    "score onto itself": (["score", "good.ketch", "rows.csv", "-o", "rows.csv"], "-o"),
    "score a table without a column": (["score", "good.ketch", "missing.csv", "-o", "x.csv"], "inspect"),
    "score a misspelt column": (["score", "good.ketch", "misspelt.csv", "-o", "x.csv"], "size"),
    "score a column twice": (["score", "good.ketch", "twice.csv", "-o", "x.csv"], "Remove"),
    "score an empty table": (["score", "good.ketch", "empty.csv", "-o", "x.csv"], "first line"),
    "score a broken table": (["score", "good.ketch", "ragged.csv", "-o", "x.csv"], "line"),
    "score a Latin-1 table": (["score", "good.ketch", "latin.csv", "-o", "x.csv"], "UTF-8"),
    "score a false Parquet": (["score", "good.ketch", "fake.parquet", "-o", "x.csv"], "Parquet"),
    "push a pickle": (["push", "model.bin"], "ketch pack model.bin"),
    "pull what is not there": (["pull", "good:9"], "push|list"),
    "promote without a version": (["promote", "nosuch:1"], "push|list"),
    "roll back to nothing": (["rollback", "nosuch"], "push|promote|list"),
    "list with a bad name": (["list", "../up"], "letter"),
}


@pytest.mark.service
@pytest.mark.parametrize("what", ERRORS)
def test_a_user_error_is_told_in_four_lines_with_a_remedy(shop: Path, what: str) -> None:
    words, remedy = ERRORS[what]
    if words[0] == "serve" and "--port" not in words:
        words = [*words, "--port", "0"]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        words = [str(taken.getsockname()[1]) if word == "TAKEN" else word for word in words]
        done = ketch(*words, home=shop / "home", cwd=shop)
    told = lines(done.stderr)
    assert done.returncode in {1, 2}, done.stderr
    assert 2 <= len(told) <= 4, done.stderr
    assert "Traceback" not in done.stderr
    assert re.search(remedy, done.stderr), done.stderr
    assert not (shop / "evil-was-here").exists()


def test_there_are_enough_of_them() -> None:
    assert len(ERRORS) >= 40


@pytest.mark.parametrize(
    ("folder", "remedy"), [("settings", "KETCH_AUTH"), ("settings/wrong", "--help")], ids=["personal", "unknown"]
)
def test_a_projects_settings_file_may_not_decide_everything(shop: Path, folder: str, remedy: str) -> None:
    done = ketch("serve", shop / "good.ketch", home=shop / "home", cwd=shop / folder)
    assert done.returncode == 1
    assert remedy in done.stderr


def test_trust_opens_the_one_file_it_names(shop: Path, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "from sklearn.linear_model import LogisticRegression\nclass Own(LogisticRegression):\n    pass\n"
    )
    make = (
        "import pickle, own, numpy\n"
        "model = own.Own().fit(numpy.array([[0.], [1.], [2.], [3.]]), [0, 0, 1, 1])\n"
        "pickle.dump(model, open('own.bin', 'wb'))\n"
    )
    subprocess.run([sys.executable, "-c", make], cwd=tmp_path, check=True)
    path = {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    refused = ketch("pack", "own.bin", home=tmp_path / "home", cwd=tmp_path, **path)
    assert refused.returncode == 1
    assert "own.Own" in refused.stderr
    offered = re.search(r"--trust=sha256:\w+", refused.stderr)
    assert offered
    opened = ketch("pack", "own.bin", offered[0], home=tmp_path / "home", cwd=tmp_path, **path)
    assert opened.returncode == 0, opened.stderr
    assert "own.Own" in opened.stderr
    again = ketch("pack", "own.bin", home=tmp_path / "home", cwd=tmp_path, **path)
    assert again.returncode == 0, again.stderr
    elsewhere = ketch("inspect", "own.ketch", home=tmp_path / "other", cwd=tmp_path, **path)
    assert "needs --trust" in elsewhere.stdout


@pytest.mark.service
def test_the_store_keeps_versions_and_aliases(shop: Path, tmp_path: Path) -> None:
    def run(*words: str) -> str:
        done = ketch(*words, home=tmp_path / "home", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run("push", str(shop / "good.ketch")).startswith("good:1")
    made = ketch(
        "pack", "words.bin", "--target", "good", "--positive", "high", "-o", "two.ketch", home=shop / "home", cwd=shop
    )
    assert made.returncode == 0, made.stderr
    assert run("push", str(shop / "two.ketch")).startswith("good:2")
    assert "good@champion is good:1" in run("promote", "good:1")
    assert "good@champion is good:2" in run("promote", "good:2")
    assert "good@champion is good:1" in run("rollback", "good")
    assert "@champion" in run("list")
    assert [each["number"] for each in json.loads(run("list", "good", "--json"))] == [1, 2]
    run("pull", "good", "-o", "back.ketch")
    assert (tmp_path / "back.ketch").read_bytes() == (shop / "good.ketch").read_bytes()
    with serving("good@champion", home=tmp_path / "home") as url:
        import requests

        answer = requests.post(f"{url}/predict", json={"kind": "a", "size": 1})
    assert answer.headers["Ketch-Model"].startswith("good:1;sha256=")


def test_score_tells_by_its_exit_code_that_rows_were_rejected(shop: Path, tmp_path: Path) -> None:
    done = ketch("score", shop / "good.ketch", shop / "mixed.csv", "-o", "out.csv", home=shop / "home", cwd=tmp_path)
    assert done.returncode == 3
    assert (tmp_path / "out.csv").read_text().startswith("kind,size,good,good_probability\na,1,")
    rejected = (tmp_path / "out.csv.rejected.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in rejected] == ["row", "2", "3"]
    assert "unknown-category" in rejected[1]


def test_inspect_shows_what_is_inside_without_opening_it(shop: Path) -> None:
    shown = ketch("inspect", "good.ketch", home=shop / "home", cwd=shop).stdout
    for word in ("kind", "category", "a, b", "scikit-learn", "golden", "opens as it is"):
        assert word in shown
    record = json.loads(ketch("inspect", "good.ketch", "--json", home=shop / "home", cwd=shop).stdout)
    assert [each["name"] for each in record["fields"]] == ["kind", "size"]


def test_a_contract_can_be_amended_and_given_back(shop: Path) -> None:
    text = ketch("inspect", "good.ketch", "--contract", home=shop / "home", cwd=shop).stdout
    text = text.replace("# threshold = 0.5", "threshold = 0.9")
    head, size = text.split('[fields."size"]')
    size = size.replace('unit = ""', 'unit = "cm"')
    text = f"{head}[fields.size]{size}"
    (shop / "contract.toml").write_text(text)
    done = ketch("pack", "model.bin", "--contract", "contract.toml", "-o", "a.ketch", home=shop / "home", cwd=shop)
    assert done.returncode == 0, done.stderr
    record = json.loads(ketch("inspect", "a.ketch", "--json", home=shop / "home", cwd=shop).stdout)
    assert record["answer"]["threshold"] == 0.9
    assert record["fields"][1]["unit"] == "cm"


def test_doctor_checks_this_machine(tmp_path: Path) -> None:
    done = ketch("doctor", "--port", "0", home=tmp_path / "home")
    assert done.returncode == 0
    assert "can be written" in done.stdout
    (tmp_path / "file").write_text("")
    assert ketch("doctor", "--port", "0", home=tmp_path / "file" / "home").returncode == 1


def test_help_groups_the_verbs() -> None:
    shown = CliRunner().invoke(cli, ["--help"]).output
    places = [shown.index(f"\n{group}:") for group in ("make", "keep", "run", "care", "ship")]
    assert places == sorted(places)
    assert set(VERBS) | {name for names in PLANNED.values() for name in names} <= set(re.findall(r"[a-z]+", shown))
    assert not set(VERBS) & {name for names in PLANNED.values() for name in names}


def test_every_verb_has_help_for_itself_and_all_its_flags() -> None:
    context = cli.make_context("ketch", ["--help"], resilient_parsing=True)
    for verb in (verb for verbs in GROUPS.values() for verb in verbs):
        command = cli.get_command(context, verb)
        assert command is not None
        assert command.help, verb
        for parameter in command.params:
            assert not isinstance(parameter, click.Option) or parameter.help, (verb, parameter.name)


@pytest.mark.skipif(sys.platform == "win32", reason="CPU time of children is read as on Unix")
def test_help_is_cheap() -> None:
    import resource

    def cost() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("COV", "COVERAGE"))}
        subprocess.run([*KETCH, "--help"], capture_output=True, check=True, env=environ)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(cost() for _ in range(20)) < 0.150


def test_a_bug_is_called_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "store").write_text("in the way")
    done = ketch("list", home=tmp_path / "home")
    assert done.returncode in {1, 70}
    assert len(lines(done.stderr)) <= 4


def test_what_a_file_is_called_or_wants_cannot_move_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    complain("wants \x1b[2K\x1b[1Gall fine\u202e, os.system", "é \x9b1G", code=1)
    note("it imports \x1b]0;x\x07")
    told = capsys.readouterr().err
    assert r"wants \x1b[2K\x1b[1Gall fine\u202e, os.system" in told
    assert r"é \x9b1G" in told
    assert not set(told) & {"\x1b", "\x9b", "\x07", "\u202e"}
