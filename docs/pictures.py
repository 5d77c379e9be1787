"""Make every picture of the documentation from what Ketch shows now: `make pictures`.

The example of `ketch demo` --*SCENES*, run at a terminal--> docs/pictures/NAME.svg
                            --*PAGES*, seen in a browser--> docs/pictures/NAME.png
"""

import io
import os
import pickle
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

from ketch import demo

PICTURES: Final = Path(__file__).parent / "pictures"
COLUMNS: Final = 110
SCENES: Final = {  # picture -> what is typed in a folder that has model.bin, customers.csv and stranger.pkl
    "first": ["ketch pack model.bin --target churn", "ketch inspect churn.ketch"],
    "score": ["ketch score churn.ketch customers.csv -o scored.csv"],
    "store": ["ketch push churn.ketch", "ketch promote churn:1", "ketch list", "ketch pull chrun:1"],
    "refused": ["ketch pack stranger.pkl"],
}
PAGES: Final = {  # picture -> the verb that shows a page, and what stands on it once it has answered
    "home": ("serve", "probability of"),
    "ask": ("ui", "probability of"),
}
KETCH: Final = (sys.executable, "-m", "ketch")
SIZE: Final = {"width": 1100, "height": 820}
SETTLING: Final = 3000  # milliseconds until charts are drawn
CONTROL: Final = re.compile(r"(\r\n|\n|\r|\x1b\[[0-9;?]*[A-Za-z])")
FONT: Final = re.compile(r"\s*@font-face \{.*?\}", re.DOTALL)  # which would be fetched from elsewhere


class Stranger:
    """What a file may do that claims to be a model."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.system, ("touch it-ran",)


def terminals(pictures: Path) -> None:
    """Draw each scene as a window in which its commands were typed."""
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        _furnish(here)
        environ = _environ(here / "home")
        for name, commands in SCENES.items():
            console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
            for command in commands:
                console.print(Text.assemble(("$ ", "bold green"), (command, "bold")))
                console.print(Text.from_ansi(shown(command.split(), here, environ)))
            drawn = console.export_svg(title="ketch", theme=MONOKAI, unique_id=name)
            (pictures / f"{name}.svg").write_text(FONT.sub("", drawn) + "\n", "utf-8")


def photographs(pictures: Path) -> None:
    """Photograph each page in a real browser, Debian's chromium."""
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        here = Path(folder)
        _furnish(here)
        environ = _environ(here / "home") | {"PYTHONUNBUFFERED": "1"}
        subprocess.run([*KETCH, "pack", "model.bin", "--target", "churn"], cwd=here, env=environ, check=True)
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, (verb, seen) in PAGES.items():
            page = browser.new_page(viewport=SIZE, locale="en-GB")
            with _running([*KETCH, verb, "churn.ketch", "--port", "0"], here, environ) as url:
                page.goto(url)
                page.get_by_text(seen).first.wait_for()
                page.wait_for_timeout(SETTLING)
                page.screenshot(path=pictures / f"{name}.png")
            page.close()
        browser.close()


@contextmanager
def _running(command: Sequence[str], here: Path, environ: dict[str, str]) -> Iterator[str]:
    with subprocess.Popen(command, cwd=here, env=environ, stdout=subprocess.PIPE, text=True) as process:
        line = process.stdout.readline() if process.stdout else ""
        yield re.findall(r"http://\S+:\d+", line)[0].replace("127.0.0.1", "localhost")
        process.terminate()


MAKERS: Final = (terminals, photographs)


def names() -> set[str]:
    """Name the pictures."""
    return {f"{name}.svg" for name in SCENES} | {f"{name}.png" for name in PAGES}


def _furnish(here: Path) -> None:
    for name, data in demo.files().items():
        (here / name).write_bytes(data)
    subprocess.run([sys.executable, "train.py", "churn.csv", "model.bin"], cwd=here, check=True, capture_output=True)
    (here / "stranger.pkl").write_bytes(pickle.dumps(Stranger()))


def _environ(home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("KETCH_", "NO_COLOR"))}
    path = os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", "")])
    return {**kept, "KETCH_HOME": str(home), "PATH": path, "COLUMNS": str(COLUMNS), "TERM": "xterm-256color"}


def shown(command: Sequence[str], here: Path, environ: dict[str, str]) -> str:
    """Run a command at a terminal of its own, and give what is left to see on it."""
    import pty  # which Windows has not; what this script makes can be asked for there, too

    ours, theirs = pty.openpty()
    program = shutil.which(command[0], path=environ["PATH"]) or command[0]
    with subprocess.Popen([program, *command[1:]], cwd=here, env=environ, stdin=theirs, stdout=theirs, stderr=theirs):
        os.close(theirs)
        said = b""
        while chunk := _read(ours):
            said += chunk
    os.close(ours)
    return settled(said.decode())


def _read(window: int) -> bytes:
    try:
        return os.read(window, 65536)
    except OSError:  # how Linux says that nobody has the terminal open any more
        return b""


def settled(said: str) -> str:
    """Leave out what was overwritten: a wheel that turned, a bar that grew."""
    lines = [""]
    for part in CONTROL.split(said):
        if part in {"\n", "\r\n"}:
            lines.append("")
        elif part.endswith("K") and part.startswith("\x1b["):
            lines[-1] = ""
        elif part.endswith("A") and part.startswith("\x1b["):
            lines = lines[: -int(part[2:-1] or 1)] or [""]
        elif not CONTROL.fullmatch(part) or part.endswith("m"):
            lines[-1] += part
    return "\n".join(lines).rstrip()


def main() -> None:
    """Make all pictures."""
    PICTURES.mkdir(exist_ok=True)
    for make in MAKERS:
        make(PICTURES)


if __name__ == "__main__":
    main()
