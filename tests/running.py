"""Real processes under test: a served model, a command."""

import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

NEW = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
KETCH = [sys.executable, "-m", "ketch"]


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    returncode: int
    stdout: str
    stderr: str


def ketch(*words: str | Path, home: Path, cwd: Path | None = None, **environ: str) -> Done:
    """Run a command to its end, in a process of its own.

    The process is forked from one that has the libraries imported, because seventy commands that import
    scikit-learn afresh would take minutes; `fresh` runs it as a shell would.
    """
    if not hasattr(os, "fork"):
        return fresh(*words, home=home, cwd=cwd, **environ)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.preload"])
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder)
        environ = {"KETCH_HOME": str(home), **environ}
        process = context.Process(target=_command, args=([str(word) for word in words], cwd, environ, told))
        process.start()
        process.join(110)
        if process.exitcode is None:
            process.kill()
            raise AssertionError(f"ketch {words} does not end")
        return Done(process.exitcode, (told / "out").read_text(), (told / "err").read_text())


def _command(words: list[str], cwd: Path | None, environ: dict[str, str], told: Path) -> None:
    for number, name, flags in ((0, os.devnull, os.O_RDONLY), (1, told / "out", NEW), (2, told / "err", NEW)):
        os.dup2(os.open(name, flags), number)
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(number, "r" if number == 0 else "w") for number in range(3))
    os.environ.update(environ)
    os.chdir(cwd or told)
    path = environ.get("PYTHONPATH", "")
    sys.path[:0] = [each for each in path.split(os.pathsep) if each]
    sys.argv = ["ketch", *words]
    from ketch.cli import main

    main()


def fresh(*words: str | Path, home: Path, cwd: Path | None = None, **environ: str) -> Done:
    """Run a command as a shell would."""
    done = subprocess.run(
        [*KETCH, *map(str, words)],
        cwd=cwd,
        env={**os.environ, "KETCH_HOME": str(home), **environ},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=110,
    )
    return Done(done.returncode, done.stdout, done.stderr)


@contextmanager
def serving(*words: str | Path, home: Path, cwd: Path | None = None, **environ: str) -> Iterator[str]:
    """Run `ketch serve` on a free port, give its URL, and end it as an operator would."""
    process = subprocess.Popen(
        [*KETCH, "serve", *map(str, words), "--port", "0"],
        cwd=cwd,
        env={**os.environ, "KETCH_HOME": str(home), "PYTHONUNBUFFERED": "1", "KETCH_DRAIN": "0", **environ},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        line = process.stdout.readline() if process.stdout else ""
        found = re.search(r"https?://\S+:\d+", line)
        if found is None:
            process.kill()
            raise AssertionError(f"no address in {line!r}; {process.communicate()[1]}")
        yield found[0]
    finally:
        process.terminate()
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors, errors


def lines(text: str) -> Sequence[str]:
    """Give the lines of a text that say something."""
    return [line for line in text.splitlines() if line.strip()]
