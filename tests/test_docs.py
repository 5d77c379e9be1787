"""The documentation: its commands and programs run, and nothing that a user meets is left out of it."""

import contextlib
import os
import re
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import ketch
from ketch import errors
from ketch.cli import PLANNED, VERBS
from ketch.errors import KetchError
from ketch.settings import TABLE

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
WRITTEN = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(DOCS.glob("*.md")), *sorted(DOCS.glob("deploy/*.md"))]
BLOCK = re.compile(r"^```(console|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
EXECUTED = [path for path in WRITTEN if BLOCK.search(path.read_text("utf-8"))]
# what a document finds in its folder because another document has made it
INSTALLED = """
from pathlib import Path
folder = Path('ketch_toy-1.0.dist-info')
folder.mkdir()
folder.joinpath('METADATA').write_text('Metadata-Version: 2.1\\nName: ketch-toy\\nVersion: 1.0\\n')
folder.joinpath('entry_points.txt').write_text('[ketch.adapters]\\ntoy = ketch_toy\\n')
"""
REPOSITORY = """
import subprocess
for words in (['init', '--quiet'], ['config', 'user.name', 'Ana'], ['config', 'user.email', 'ana@example.com']):
    subprocess.run(['git', *words], check=True)
"""
TOOLS = {"git.md": ("git",)}
GIVEN = {
    "adapters.md": INSTALLED,  # what `pip install -e .` leaves behind
    "git.md": REPOSITORY,
    "log.md": "from ketch.log import Log; Log('sqlite:///predictions.db').close()",
    "store.md": "from pathlib import Path; Path('churn.ketch').write_bytes(b'any bytes')",
}
# for whoever reads to do in a place of their own; a command with … in it is the pattern of one
NOT_RUN = re.compile(r"make( |$)|pip install |git clone |.*…")
PRELUDE = """
set -euo pipefail
trap 'for pid in $(cat ../pids); do kill "$pid" || true; done; wait' EXIT
touch ../pids
ready() {
  for _ in $(seq 600); do
    kill -0 "$!"
    curl -fs "http://localhost:$KETCH_PORT/health/ready" > ../ready && return
    sleep 0.1
  done
  return 1
}
"""


@dataclass
class Step:
    """One command or program of a document, and the lines of output that the document shows."""

    line: int
    bash: str
    shown: list[str] = field(default_factory=list)


def steps(text: str, programs: Path) -> Iterator[Step]:
    for block in BLOCK.finditer(text):
        start = text.count("\n", 0, block.start()) + 2
        if block[1] == "console":
            yield from commands(block[2], start)
            continue
        program = programs / f"line_{start}.py"
        program.write_text(block[2], "utf-8")
        shown = re.findall(r"^ *print\(.*\)  # (.+)$", block[2], re.MULTILINE)
        yield Step(start, f'"$PYTHON" ../{programs.name}/{program.name}', shown)


def commands(block: str, start: int) -> Iterator[Step]:
    step = None
    for line, text in enumerate(block.splitlines(), start):
        if step and is_open(step.bash):
            step.bash += "\n" + text
        elif text.startswith("$ "):
            if step:
                yield step
            step = Step(line, text.removeprefix("$ "))
        else:
            assert step, f"line {line} shows output of no command"
            step.shown.append(text)
    if step:
        yield step


def is_open(command: str) -> bool:
    """Say whether a command goes on: a backslash at the end of its line, or a text up to END."""
    return command.endswith("\\") or ("<<'END'" in command and not command.endswith("\nEND"))


def script(listed: list[Step], outputs: Path) -> str:
    parts = [PRELUDE]
    for step in listed:
        if NOT_RUN.match(step.bash):
            assert not step.shown, f"line {step.line} shows the output of a command that is not run"
            continue
        out = f"../{outputs.name}/{step.line:04}"
        command, background, _ = step.bash.rpartition(" &")
        if background:
            parts.append(f'{command} > {out} 2>&1 & echo "$!" >> ../pids; ready')
        else:
            parts.append(f"{{ {step.bash}\n}} > {out} 2>&1")
    return "\n".join(parts) + "\n"


def appears(shown: str, output: str) -> bool:
    pattern = ".*".join(re.escape(part) for part in shown.rstrip().split("…"))
    return re.search(rf"^{pattern}\s*$", output, re.MULTILINE) is not None


def free_port() -> str:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return str(opened.getsockname()[1])


def environ(folder: Path, port: str) -> dict[str, str]:
    """Give the environment of a user who has installed Ketch and set nothing."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KETCH_") and name != "PORT"}
    path = os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", "")])
    ours = {"KETCH_HOME": str(folder / "home"), "KETCH_PORT": port, "PYTHON": sys.executable, "PATH": path}
    return {**kept, **ours, "PYTHONIOENCODING": "utf-8", "no_proxy": "localhost"}


LONG = {  # which start one server after another, or pack many models
    *("adapters.md", "card.md", "client.md", "explain.md", "export.md", "git.md", "guard.md", "small.md"),
    *("code.md", "observed.md", "pack.md", "protocols.md", "serve.md", "sign.md", "start.md", "ui.md", "README.md"),
}


SHIPS = {"image.md"}  # which fetch wheels


def marks(name: str) -> list[pytest.MarkDecorator]:
    return [pytest.mark.ship] if name in SHIPS else [pytest.mark.service] if name in LONG else []


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "document",
    [pytest.param(each, marks=marks(each.name)) for each in EXECUTED],
    ids=lambda path: path.name,
)
def test_what_a_document_says_to_do_works_and_shows_what_it_shows(document: Path, tmp_path: Path) -> None:
    tools = ("bash", "curl", *TOOLS.get(document.name, ()))
    if missing := [tool for tool in tools if shutil.which(tool) is None]:
        pytest.skip(f"{' and '.join(missing)} not on this machine, with which the documents are executed")
    work, programs, outputs = tmp_path / "work", tmp_path / "programs", tmp_path / "outputs"
    for folder in (work, programs, outputs):
        folder.mkdir()
    port = free_port()
    told = environ(tmp_path, port)
    if document.name in GIVEN:
        told["PYTHONPATH"] = str(work)
        subprocess.run([sys.executable, "-c", GIVEN[document.name]], cwd=work, env=told, check=True)
    listed = list(steps(document.read_text("utf-8").replace("9696", port), programs))
    run(script(listed, outputs), work, told, outputs)
    for step in listed:
        if step.shown:
            output = (outputs / f"{step.line:04}").read_text("utf-8")
            for line in step.shown:
                assert appears(line, output), f"{document.name}:{step.line} shows {line!r}, but it gives:\n{output}"


def run(text: str, work: Path, told: dict[str, str], outputs: Path) -> None:
    (work.parent / "script").write_text(text, "utf-8")
    try:
        done = subprocess.run(["bash", "../script"], cwd=work, env=told, stdin=subprocess.DEVNULL, timeout=280)
    except subprocess.TimeoutExpired:
        for pid in (work.parent / "pids").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGTERM)
        raise
    last = max(outputs.iterdir(), default=None)
    assert done.returncode == 0, f"line {last.name} fails:\n{last.read_text('utf-8')}" if last else "nothing ran"


def test_a_shown_line_is_a_whole_line_with_gaps_where_it_says_so() -> None:
    output = "one two three\nfour\n"
    assert appears("one … three", output)
    assert appears("four", output)
    assert not appears("one", output)
    assert not appears("fou.", output)


# ---- nothing is left out -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def generated() -> dict[str, str]:
    pages: dict[str, str] = runpy.run_path(str(DOCS / "conf.py"))["pages"]()
    return pages


def written() -> str:
    return "\n".join(path.read_text("utf-8") for path in WRITTEN)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_explained(verb: str, generated: dict[str, str]) -> None:
    assert f"\n## ketch {verb}\n" in generated["cli.md"]
    assert re.search(rf"ketch {verb}\b", written()), f"no page shows how {verb} is used"


def test_verbs_that_are_only_planned_are_named_as_such() -> None:
    _, _, planned = (ROOT / "README.md").read_text("utf-8").partition("Still planned")
    assert all(f"`{verb}`" in planned for verbs in PLANNED.values() for verb in verbs)


@pytest.mark.parametrize("name", [setting.name for setting in TABLE])
def test_every_setting_stands_in_the_reference(name: str, generated: dict[str, str]) -> None:
    setting = next(each for each in TABLE if each.name == name)
    assert f"| `{setting.name}` |" in generated["settings.md"]
    assert (f"`{setting.flag}`" in generated["settings.md"]) == (f"{setting.flag} " in generated["cli.md"])
    assert f"`{setting.variable}`" in generated["settings.md"]


def test_every_error_stands_in_the_reference(generated: dict[str, str]) -> None:
    kinds = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, KetchError)]
    assert len(kinds) > 20
    for each in kinds:
        assert f"| `{each.code}` | {each.status} | {each.__name__} |" in generated["errors.md"]


@pytest.mark.parametrize("name", ketch.__all__)
def test_every_name_of_the_front_door_is_mentioned(name: str) -> None:
    assert f"ketch.{name}" in written()


def test_the_changelog_speaks_of_this_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    found = re.search(rf"^## {re.escape(version)}\b.*\n\n+- ", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert found, f"CHANGELOG.md has no entry for {version}"


def test_links_between_files_lead_somewhere() -> None:
    for path in WRITTEN:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", path.read_text("utf-8")):
            if not target.startswith("reference/"):  # made when the pages are built
                assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_every_picture_is_made_from_the_product_and_shown() -> None:
    made = {f"pictures/{name}" for name in runpy.run_path(str(DOCS / "pictures.py"))["names"]()}
    found = {f"pictures/{path.name}" for path in (DOCS / "pictures").iterdir()}
    used = {
        target for path in DOCS.glob("*.md") for target in re.findall(r"!\[[^]]*\]\(([^)]+)", path.read_text("utf-8"))
    }
    assert made == found == used - {"benchmarks.svg"}  # which `make bench` draws


@pytest.mark.packing
@pytest.mark.timeout(120)
def test_the_pages_build_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("sphinx", reason="sphinx is not installed; it comes with the dependency group docs")
    build = [
        sys.executable,
        "-m",
        "sphinx",
        "-W",
        "--keep-going",
        "-q",
        "-b",
        "html",
        str(DOCS),
        str(tmp_path / "html"),
    ]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "rows-refused" in (tmp_path / "html" / "reference" / "errors.html").read_text("utf-8")
