"""Copies the folder of a notebook, with what the notebook reaches above it, so that a run can spoil nothing.

Notebook --*copied*--> folder to run in
"""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ketch.slicer.notebook import Notebook

LEFT: Final = frozenset(
    {".git", ".venv", "venv", "node_modules", "__pycache__", ".ipynb_checkpoints", ".tox", ".cache"}
)
LARGE: Final = 100 << 20  # bytes of a file that is linked, not copied
HIGHEST: Final = 3  # folders above the notebook's own, up to which its files may lie
ABOVE: Final = re.compile(r"""["'](\.\.(?:[/\\][^"'\n{]*)?)""")
PARENT: Final = re.compile(r"\.parents?\b|\bpardir\b|\bdirname\(")
QUOTED: Final = re.compile(r"""["']([^"'\n/\\]+)["'/\\]""")


def copied(notebook: Notebook, place: Path) -> Path:
    """Copy the folder of a notebook to a place, and what it reads above it; give the folder to run in."""
    source = notebook.path.absolute().parent
    reached = [*_reached(notebook, source)]
    highest = max((depth for depth, _ in reached), default=0)
    folder = place / source.relative_to(source.parents[highest - 1]) if highest else place
    _copy(source, folder, place)
    for depth, name in reached:
        above = folder.parents[depth - 1]
        _copy(source.parents[depth - 1] / name, above / name, place)
    return folder


def _reached(notebook: Notebook, source: Path) -> Iterator[tuple[int, str]]:
    """Give what a notebook names above its folder: how many folders up, and the file or folder there."""
    text = "\n".join(each.source for each in notebook.ran)
    found: dict[tuple[int, str], None] = {}
    for told in ABOVE.findall(text):
        parts = [part for part in re.split(r"[/\\]", told) if part not in {"", "."}]
        depth = next((at for at, part in enumerate(parts) if part != ".."), len(parts))
        if parts[depth:]:
            found[depth, parts[depth]] = None
        else:
            found |= dict.fromkeys(_code_and_named(source, depth, text))
    if PARENT.search(text):
        found |= dict.fromkeys(_code_and_named(source, 1, text))
    for depth, name in found:
        if depth <= min(HIGHEST, len(source.parents)):
            path = source.parents[depth - 1] / name
            if path.exists() and path != source and path not in source.parents:
                yield depth, name


def _code_and_named(source: Path, depth: int, text: str) -> Iterator[tuple[int, str]]:
    """Give what lies some folders up and is code, or is named in the notebook: its path may be put together."""
    if not 0 < depth <= min(HIGHEST, len(source.parents)):
        return
    named = {*QUOTED.findall(text)}
    for each in source.parents[depth - 1].iterdir():
        if each.name in named or each.suffix == ".py" or (each.is_dir() and any(each.glob("*.py"))):
            yield depth, each.name


def _copy(source: Path, target: Path, place: Path) -> None:
    if source.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        _copy_file(str(source), str(target))
        return

    def left(folder: str, names: list[str]) -> set[str]:
        own = {name for name in names if Path(folder, name).resolve() == place.parent.resolve()}
        return own | (LEFT & {*names})

    shutil.copytree(
        source, target, copy_function=_copy_file, ignore=left, ignore_dangling_symlinks=True, dirs_exist_ok=True
    )


def _copy_file(source: str, target: str) -> str:
    if os.path.getsize(source) > LARGE:  # noqa: PTH202
        os.symlink(os.path.abspath(source), target)  # noqa: PTH100, PTH211
        return target
    return str(shutil.copy2(source, target))
