"""Completion of commands by the shell: verbs, options, files of models and references into the store."""

import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from ketch.cli import COMPLETE, VERBS, cli
from ketch.cli.completion import SHELLS, Bash
from ketch.store import Store

WHEN = "2026-11-21T05:00:00Z"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with models and a store of its own."""
    folder = tmp_path_factory.mktemp("completed")
    for name in ("churn.ketch", "chosen.csv", "model.pkl", ".hidden.ketch"):
        (folder / name).write_bytes(b"")
    (folder / "models").mkdir()
    (folder / "models" / "price.ketch").write_bytes(b"")
    store = Store(folder / "home" / "store")
    for data in (b"one", b"two"):
        store.push(data, "churn", when=WHEN)
    store.push(b"other", "price", when=WHEN)
    store.promote("churn:2", when=WHEN)
    return folder


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("KETCH_HOME", str(folder / "home"))
    return folder


REFERENCES = ["churn@champion", "price:1", "churn:2", "churn:1"]
CASES: dict[str, list[str]] = {  # what is typed -> what may come
    "ketch pu": ["push", "pull"],
    "ketch --h": ["--help"],
    "ketch nosuch pu": ["push", "pull"],
    "ketch keys re": ["revoke"],
    "ketch keys new --for c": ["calling"],
    "ketch score --ch": ["--chunk"],
    "ketch serve ch": ["churn@champion", "churn:2", "churn:1", "churn.ketch"],
    "ketch serve churn:": ["churn:2", "churn:1"],
    "ketch serve churn@": ["churn@champion"],
    "ketch serve models/": ["models/price.ketch"],
    "ketch serve mo": ["model.pkl", "models/"],
    "ketch serve nothing": ["file"],
    "ketch serve churn.ketch ": [*REFERENCES, "churn.ketch", "model.pkl", "home/", "models/"],
    "ketch score churn.ketch ": ["file"],
    "ketch push ": ["churn.ketch", "home/", "models/"],
    "ketch inspect mod": ["file"],
    "ketch pull ": REFERENCES,
    "ketch rollback ": ["churn", "price"],
    "ketch pack mo": ["file"],
    "ketch completion ": ["bash", "zsh", "fish"],
}


@pytest.mark.parametrize("typed", CASES)
def test_what_may_come_next(here: Path, typed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMP_WORDS", typed)
    shell = Bash(cli, {}, "ketch", COMPLETE)
    args, begun = shell.get_completion_args()
    found = shell.get_completions(args, begun)
    told = [each.value if each.type == "plain" else each.type for each in found]
    assert told == CASES[typed]


def test_all_verbs_are_offered(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMP_WORDS", "ketch ")
    assert set(Bash(cli, {}, "ketch", COMPLETE).complete().splitlines()) >= {f"plain,{verb}" for verb in VERBS}


def test_a_broken_store_is_not_complained_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "store").write_text("in the way")
    monkeypatch.setenv("COMP_WORDS", f"ketch pull --home {tmp_path} ")
    assert Bash(cli, {}, "ketch", COMPLETE).complete() == "file,"


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_has_its_script(shell: str) -> None:
    done = CliRunner().invoke(cli, ["completion", shell])
    assert done.exit_code == 0
    assert f"{COMPLETE}={shell}_complete" in done.stdout
    assert "ketch" in done.stdout


TYPED = {
    "ketch pus": "ketch push",
    "ketch score --re": "ketch score --re",  # which begins two options
    "ketch score --rej": "ketch score --rejected",
    "ketch pull churn@": "ketch pull churn@champion",
    "ketch pull churn@ch": "ketch pull churn@champion",
    "ketch serve pri": "ketch serve price:1",
    "ketch pull price:": "ketch pull price:1",
    "ketch serve models/": "ketch serve models/price.ketch",
    "ketch pack mode": "ketch pack model",  # which begins a file and a folder
}


TERMINALS = {  # shell -> how it is begun, and how it learns to complete
    "bash": (["bash", "--norc", "--noprofile", "-i"], ""),
    "zsh": (["zsh", "--no-rcs", "-i"], "bindkey -e; autoload -Uz compinit; compinit -u -D; "),
}


@pytest.fixture
def environ(folder: Path) -> dict[str, str]:
    """What a shell knows that finds Ketch and the folder's store."""
    program = Path(sys.executable).parent / "ketch"
    if not program.exists():
        pytest.skip(f"{program} is not there: Ketch was not installed by pip")
    known = {name: value for name, value in os.environ.items() if not name.startswith(("KETCH_", "COV_"))}
    known |= {"KETCH_HOME": str(folder / "home"), "HOME": str(folder / "home"), "PS1": "> ", "TERM": "dumb"}
    known |= {"INPUTRC": os.devnull, "PATH": os.pathsep.join([str(program.parent), known.get("PATH", "")])}
    return known


@pytest.mark.packing
@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals as on Unix")
@pytest.mark.parametrize("name", TERMINALS)
def test_a_shell_completes_what_is_typed(folder: Path, environ: dict[str, str], name: str) -> None:
    import pty

    if not shutil.which(name):
        pytest.skip(f"{name} is not installed here")
    window, theirs = pty.openpty()
    command, able = TERMINALS[name]
    with subprocess.Popen(
        command, cwd=folder, env=environ, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    ) as shell:
        os.close(theirs)
        try:
            type_in(window, f"{able}source <(ketch completion {name}); echo 'read''y'\n", "ready")
            for begun, whole in TYPED.items():  # the completed line is shown once more, by echo
                type_in(window, f"{begun}\t\x01echo = \n", f"= {whole}")
        finally:
            shell.kill()
            os.close(window)


@pytest.mark.packing
@pytest.mark.skipif(not shutil.which("fish"), reason="fish is not installed here")
def test_fish_completes_what_is_typed(folder: Path, environ: dict[str, str]) -> None:
    for begun, whole in TYPED.items():
        asked = f"ketch completion fish | source; complete -C '{begun}'"
        done = subprocess.run(
            ["fish", "--no-config", "-c", asked], cwd=folder, env=environ, capture_output=True, text=True, timeout=60
        )
        offered = [line.partition("\t")[0] for line in done.stdout.splitlines()]
        shared = os.path.commonprefix(offered)  # noqa: RUF071 - letter by letter, as a shell fills it in
        assert shared == whole.rpartition(" ")[2], (begun, offered, done.stderr)


def type_in(window: int, keys: str, wanted: str) -> None:
    """Type into a terminal, and wait until it shows what is wanted."""
    os.write(window, keys.encode())
    shown, end = "", time.monotonic() + 20
    while wanted not in shown:
        assert time.monotonic() < end, f"{keys!r} gives {shown!r}, not {wanted!r}"
        if select.select([window], [], [], 0.2)[0]:
            shown += os.read(window, 65536).decode()
