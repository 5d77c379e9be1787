"""Real processes under test: a served model, a command."""

import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
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
        environ = {**os.environ, "KETCH_HOME": str(home), **environ}  # the process forked from has that of its start
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
    os.environ.clear()
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
def started(
    command: Sequence[str | Path], environ: Mapping[str, str], *, cwd: Path | None = None, ends: Sequence[int] = (0,)
) -> Iterator[str]:
    """Run a command that says its URL and serves, give that, and end it as an operator would."""
    process = subprocess.Popen(
        [*map(str, command)],
        cwd=cwd,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **environ},
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
    assert process.returncode in ends, errors
    assert "Traceback" not in errors, errors


@contextmanager
def serving(*words: str | Path, home: Path, cwd: Path | None = None, **environ: str) -> Iterator[str]:
    """Run `ketch serve` on a free port and give its URL."""
    environ = {"KETCH_HOME": str(home), "KETCH_DRAIN": "0", **environ}
    with started([*KETCH, "serve", *words, "--port", "0"], environ, cwd=cwd) as url:
        yield url


def lines(text: str) -> Sequence[str]:
    """Give the lines of a text that say something."""
    return [line for line in text.splitlines() if line.strip()]
