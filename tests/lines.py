"""Which lines of a notebook matter: each is taken out once, in a forked process, and the models compared."""

import ast
import contextlib
import importlib
import json
import os
import pickle
import random
import signal
import subprocess
import sys
import tempfile
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np

from ketch.slicer.alike import differences
from ketch.slicer.goal import Goal
from ketch.slicer.notebook import Notebook, Split

PATIENCE = 60  # seconds that one run may take
FORKS = sys.platform == "linux"


def idle_of(notebook: Notebook, goal: Goal, folder: Path, *, seeded: bool) -> list[str]:
    """Name the lines of a notebook that make no difference; it is a new process that forks: none has threads there."""
    told = json.dumps([program(notebook, goal), goal.names, str(folder), seeded])
    done = subprocess.run(
        [sys.executable, "-m", "tests.lines"], input=told, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: list[str] = json.loads(done.stdout)
    return found


def main() -> None:
    """Read a program, load what it imports, and write its idle lines."""
    code, names, folder, seeded = json.loads(sys.stdin.read())
    for node in ast.walk(ast.parse("\n".join(code))):
        for module in _imported(node):
            with contextlib.suppress(ImportError):
                importlib.import_module(module)
    found = idle(code, tuple(names), Path(folder), seeded=seeded)
    sys.stdout.write(json.dumps(found))


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.ImportFrom):
        return [node.module or ""] if node.module else []
    return [each.name for each in node.names] if isinstance(node, ast.Import) else []


def program(notebook: Notebook, goal: Goal) -> list[str]:
    """Give the lines of all that runs until the model is whole, but for those that save it."""
    split = Split()
    for cell in notebook.ran:
        split.take(cell)
    run = [each for place, each in enumerate(split.statements[: goal.until]) if place not in goal.places]
    return [line for each in run for line in each.text.splitlines()]


def forked(work: Callable[[], Any]) -> Any:
    """Do work in a forked process; give what it gives, None where it fails or takes too long."""
    with tempfile.NamedTemporaryFile() as told:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                signal.alarm(PATIENCE)
                null = os.open(os.devnull, os.O_RDWR)
                for number in (0, 1, 2):
                    os.dup2(null, number)
                Path(told.name).write_bytes(pickle.dumps(work()))
                code = 0
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        return pickle.loads(Path(told.name).read_bytes()) if status == 0 else None


def made(lines: list[str], names: tuple[str, ...], folder: Path, *, seeded: bool) -> bytes:
    """Run a program and give its model."""
    os.chdir(folder)
    if not seeded:
        random.seed(0)
        np.random.seed(0)
    main = sys.modules["__main__"] = types.ModuleType("__main__")  # where pickle looks for what it defines
    place = vars(main)
    exec(compile("\n".join(lines), "program", "exec"), place)
    return bytes(cloudpickle.dumps(tuple(place[name] for name in names)))


def idle(lines: list[str], names: tuple[str, ...], folder: Path, *, seeded: bool) -> list[str]:
    """Name the lines whose removal alone leaves the model as it is."""
    whole = forked(lambda: made(lines, names, folder, seeded=seeded))
    assert whole is not None, "the program does not run"
    assert forked(lambda: made(lines, names, folder, seeded=seeded)) is not None

    def same(place: int) -> bool:
        found = made(lines[:place] + lines[place + 1 :], names, folder, seeded=seeded)
        return not [*differences(pickle.loads(whole), pickle.loads(found))]

    found = []
    for place, line in enumerate(lines):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            ast.parse("\n".join(lines[:place] + lines[place + 1 :]))
        except SyntaxError:
            continue
        if forked(lambda place=place: same(place)):  # type: ignore[misc]
            found.append(line)
    return found


if __name__ == "__main__":
    main()
