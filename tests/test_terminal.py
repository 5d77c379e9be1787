"""What a verb prints: plain in a pipe, drawn on a terminal, one JSON document where that is asked for."""

import io
import json
import os
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from ketch.cli import VERBS, cli, complain, note, terminal
from ketch.cli.demo import _steps
from ketch.cli.serve import _greet
from ketch.serve.lineup import Lineup
from tests.doors import Small
from tests.running import ketch, lines

LONG = "x" * 300
HEADINGS = ("name", "values", "size")
ROWS = [("[bold]kind[/]", "a, b", "7"), ("long", f"{LONG}\n\x1b[2K", "1,234")]


def commands(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    """Give a verb, or each of a verb that has several below it."""
    if isinstance(command, click.Group):
        for below, each in command.commands.items():
            yield from commands(each, f"{name} {below}")
    else:
        yield name, command


def every() -> dict[str, click.Command]:
    context = click.Context(cli)
    verbs = [(verb, cli.get_command(context, verb)) for verb in VERBS]
    return dict(each for verb, command in verbs if command for each in commands(command, verb))


@pytest.mark.parametrize("name", every())
def test_every_verb_speaks_json(name: str) -> None:
    assert any("--json" in each.opts for each in every()[name].params), f"ketch {name} has no --json"


# ---- JSON --------------------------------------------------------------------------------------------


class Shop:
    """A folder with a model, its bundle and a table, and commands run in it."""

    def __init__(self, folder: Path, small: Small) -> None:
        self.environ = {"KETCH_HOME": str(folder / "home")}
        (folder / "model.pkl").write_bytes(pickle.dumps(small.parts))
        (folder / "churn.ketch").write_bytes(small.bundle.read_bytes())
        (folder / "rows.csv").write_text("charges,contract,plan,tenure\n50,monthly,a,3\n20,never,b,4\n900,yearly,c,5\n")

    def run(self, *words: str, code: int = 0) -> Result:
        # what Python calls when a verb gives its exit code back, CliRunner calls its return value
        done = CliRunner().invoke(cli, words, env=self.environ, standalone_mode=False)
        assert done.exception is None, done.output
        assert (done.return_value or 0) == code, done.output
        return done

    def told(self, *words: str, code: int = 0) -> Any:
        return json.loads(self.run(*words, "--json", code=code).stdout)


@pytest.fixture(scope="module")
def shop(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder, before = tmp_path_factory.mktemp("shop"), Path.cwd()
    os.chdir(folder)
    yield Shop(folder, small)
    os.chdir(before)


def test_what_is_made_is_told_as_json(shop: Shop) -> None:
    packed = shop.told("pack", "model.pkl", "--target", "churn", "-o", "made.ketch")
    assert packed["bundle"] == "made.ketch"
    assert packed["target"] == "churn"
    assert packed["fields"].keys() == {"charges", "contract", "plan", "tenure"}
    assert shop.told("inspect", "made.ketch")["sha256"] == packed["sha256"]
    assert "[fields." in shop.told("inspect", "made.ketch", "--contract")["contract"]
    assert "Intended use" in shop.told("inspect", "made.ketch", "--card")["card"]
    assert shop.told("client", "made.ketch").keys() > {"curl", "postman"}


def test_keys_and_signatures_are_told_as_json(shop: Shop) -> None:
    assert shop.told("keys", "list") == []
    made = shop.told("keys", "new", "ana", "--for", "signing")
    called = shop.told("keys", "new", "shop", "--for", "calling", "--scope", "predict")
    assert called["scopes"] == ["predict"]
    assert len(called["key"]) == 43
    assert len(shop.told("keys", "new", "--for", "calling")["key"]) == 43
    assert shop.told("sign", "churn.ketch")["fingerprint"] == made["fingerprint"]
    assert shop.told("verify", "churn.ketch")["signer"] == "ana"
    exported = shop.told("keys", "export", "ana")
    Path("ana.pem").write_text(exported["pem"])
    assert shop.told("keys", "trust", "ana.pem")["fingerprint"] == made["fingerprint"]
    listed = shop.told("keys", "list")
    assert [(each["name"], each["state"]) for each in listed] == [("ana", "yours"), ("shop", "good")]
    assert called["key"] not in json.dumps(listed)
    assert shop.told("keys", "revoke", "shop")["revoked"]
    Path("churn.ketch.sig").unlink()


def test_the_store_and_a_table_are_told_as_json(shop: Shop) -> None:
    assert shop.told("list") == []
    pushed = shop.told("push", "churn.ketch")
    assert (pushed["ref"], pushed["number"], pushed["new"]) == ("churn:1", 1, True)
    assert not shop.told("push", "churn.ketch")["new"]
    shop.run("pack", "model.pkl", "--name", "churn", "--threshold", "0.9", "-o", "two.ketch")
    shop.run("push", "two.ketch")
    assert shop.told("promote", "churn:1")["ref"] == "churn:1"
    assert shop.told("promote", "churn:2")["aliases"] == ["champion"]
    assert shop.told("rollback", "churn")["ref"] == "churn:1"
    assert [each["ref"] for each in shop.told("list", "churn")] == ["churn:1", "churn:2"]
    assert shop.told("pull", "churn", "-o", "back.ketch")["path"] == "back.ketch"
    scored = shop.told("score", "churn@champion", "rows.csv", "-o", "out.csv", code=3)
    assert (scored["rows"], scored["scored"], scored["rejected"]) == (3, 2, 1)
    assert scored["rejected_file"] == "out.csv.rejected.csv"
    assert list(scored["flags"].values()) == [1]


def test_a_machine_and_a_shell_are_told_as_json(shop: Shop) -> None:
    found = shop.told("doctor", "--port", "0")
    assert found["well"]
    assert {each["state"] for each in found["checks"]} <= {"ok", "--"}
    assert "complete" in shop.told("completion", "zsh")["script"]


def test_where_a_service_listens_is_told_in_one_line_of_json(small: Small) -> None:
    @click.command()
    @terminal.json_option
    def greet() -> None:
        _greet(Lineup.of(small.predictor), "http://localhost:9696", guarded=True)

    done = CliRunner().invoke(greet, ["--json"])
    told = json.loads(*done.stdout.splitlines())
    assert (told["url"], told["default"], told["guarded"]) == ("http://localhost:9696", "churn", True)
    assert told["models"]["churn"]["answers"] == ["churn", "churn_probability"]
    assert "the key in KETCH_API_KEY" in done.stderr


def test_steps_of_the_story_are_told_as_json() -> None:
    told = ["A title.", "\n1. Train\n   $ python train.py", "   AUC 0.8", "\n2. Pack\n   $ ketch pack", "\nNothing."]
    assert _steps(told) == [
        {"title": "Train", "command": "python train.py", "said": ["AUC 0.8"]},
        {"title": "Pack", "command": "ketch pack", "said": []},
    ]


@pytest.mark.parametrize(
    ("words", "code", "kind"),
    [
        (["inspect", "nosuch.ketch"], 1, "input"),
        (["pull", "churn:9"], 1, "no-such-version"),
        (["inspect", "--nosuch"], 2, "usage"),
        (["srve"], 2, "usage"),
    ],
)
def test_an_error_is_told_as_json(tmp_path: Path, words: list[str], code: int, kind: str) -> None:
    done = ketch(*words, "--json", home=tmp_path / "home")
    assert (done.returncode, done.stdout) == (code, "")
    told = json.loads(done.stderr)
    assert told.keys() == {"code", "message", "hint"}
    assert told["code"] == kind
    assert all(told.values())


def test_json_cannot_move_the_cursor() -> None:
    @click.command()
    @terminal.json_option
    def say() -> None:
        terminal.tell({"name": "\x9b2K\u202e", "size": float("nan")}, "words")

    done = CliRunner().invoke(say, ["--json"])
    assert json.loads(done.stdout) == {"name": "\x9b2K\u202e", "size": None}
    assert not set(done.stdout) & {"\x9b", "\u202e"}
    assert CliRunner().invoke(say).stdout == "words\n"


# ---- words -------------------------------------------------------------------------------------------


def test_a_pipe_gets_whole_lines_without_colours(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    terminal.table(None, HEADINGS, ROWS, right={"size"})
    terminal.fact("serves", LONG)
    terminal.mark("ok", "all")
    note("look")
    told = capsys.readouterr()
    first, second, third, fact, mark = told.out.splitlines()
    assert first == f"name           values{' ' * (len(LONG) + 9 - 6)}   size"
    assert second.split() == ["[bold]kind[/]", "a,", "b", "7"]
    assert third.endswith(f"{LONG}\\n\\x1b[2K  1,234")
    assert (fact, mark, told.err) == (f"serves   {LONG}", "ok    all", "note: look\n")
    terminal.table(None, HEADINGS, [])
    assert capsys.readouterr().out == ""


@contextmanager
def window(**environ: str) -> Iterator[Callable[[], str]]:
    """Put a terminal of 60 columns in place of both outputs; gives what reads it."""
    pty = pytest.importorskip("pty", reason="terminals are pseudo-terminals as on Unix")
    ours, theirs = pty.openpty()
    with pytest.MonkeyPatch.context() as patch, os.fdopen(theirs, "w") as shown:
        patch.delenv("NO_COLOR", raising=False)
        for name, value in {"COLUMNS": "60", "TERM": "xterm-256color", **environ}.items():
            patch.setenv(name, value)

        def read() -> str:
            os.write(theirs, b"\0")
            found = io.BytesIO()
            while not found.getvalue().endswith(b"\0"):
                found.write(os.read(ours, 65536))
            return found.getvalue()[:-1].decode()

        with redirect_stdout(shown), redirect_stderr(shown):
            yield read
    os.close(ours)


def test_a_terminal_gets_colours_and_folded_cells() -> None:
    with window() as read:
        terminal.table(None, HEADINGS, ROWS)
        terminal.mark("mend", "this")
        complain("wrong", "mend it", code=1)
        told = read()
    assert "\x1b[31mmend" in told
    assert "\x1b[31mketch: " in told
    assert "[bold]kind[/]" in told
    assert "\x1b[2K" not in told
    assert told.count("x") > 300
    assert max(map(len, told.replace("\x1b[2m", "").replace("\x1b[0m", "").splitlines())) <= 61


def test_who_wants_no_colours_gets_none() -> None:
    with window(NO_COLOR="1") as read:
        terminal.mark("ok", "all")
        terminal.fact("serves", "it")
        note("look")
        complain("wrong", "mend it", code=1)
        told = read()
    assert lines(told) == ["ok    all", "serves   it", "note: look", "ketch: wrong", "  mend it"]


def test_progress_is_shown_where_somebody_looks() -> None:
    with window() as read:
        with terminal.bar() as told:
            told(5, 10, "5 rows, 1 rows/s")
        with terminal.busy("packing") as pause:
            pause()
        shown = read()
    assert "5 rows, 1 rows/s" in shown
    assert "packing" in shown


def test_progress_is_not_shown_to_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    with terminal.bar() as told, terminal.busy("packing") as pause:
        told(5, 10, "5 rows")
        pause()
    assert capsys.readouterr() == ("", "")


def test_a_verb_in_a_pipe_is_plain(shop: Shop) -> None:
    for words in (["inspect", "churn.ketch"], ["doctor", "--port", "0"], ["push", "churn.ketch"], ["list"]):
        shown = shop.run(*words).stdout
        assert lines(shown)
        assert not [each for each in shown if each in "\x1b─│┃━╭" or not (each.isprintable() or each == "\n")]
