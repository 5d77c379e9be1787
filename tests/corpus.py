"""The notebooks of tests/notebooks as .ipynb files, with what their heads say of them, beside their data."""

import re
from dataclasses import dataclass
from pathlib import Path

import nbformat

from tests import corpus_data

PLACE = Path(__file__).parent / "notebooks"
NAMES = sorted(each.stem for each in PLACE.glob("*.py"))


@dataclass(frozen=True)
class Sample:
    """One notebook of the corpus, laid out in a folder."""

    path: Path
    head: dict[str, str]

    def words(self, name: str) -> list[str]:
        """Give the parts of a line of its head."""
        return [each.strip() for each in self.head.get(name, "").split("|") if each.strip()]


def lay_out(name: str, folder: Path) -> Sample:
    """Write a notebook and its data into a folder."""
    text = (PLACE / f"{name}.py").read_text("utf-8")
    corpus_data.write(folder)
    head = dict(re.findall(r"^# (\w+): (.*)$", text.partition("# %%")[0], flags=re.MULTILINE))
    if ".marimo" in name:
        path = folder / f"{name.removesuffix('.marimo')}.py"
        path.write_text(text, "utf-8")
        return Sample(path, head)
    path = folder / f"{name}.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells_of(text)), path)
    return Sample(path, head)


def cells_of(text: str) -> list[nbformat.NotebookNode]:
    """Turn the percent form into cells; code is counted as it would be unless it says otherwise."""
    cells, count = [], 0
    for part in re.split(r"^# %%", text, flags=re.MULTILINE)[1:]:
        first, _, body = part.partition("\n")
        body = body.strip("\n")
        if "[markdown]" in first:
            words = "\n".join(re.sub(r"^# ?", "", line) for line in body.split("\n"))
            cells.append(nbformat.v4.new_markdown_cell(words))
            continue
        told = re.search(r"count=(\w+)", first)
        cell = nbformat.v4.new_code_cell(body)
        if told is None:
            count += 1
        elif told[1] != "none":
            count = max(count, int(told[1]))
        cell.execution_count = count if told is None else None if told[1] == "none" else int(told[1])
        cells.append(cell)
    return cells


def plain(text: str) -> str:
    """Give code without what a formatter may change."""
    return re.sub(r",(?=[)\]}])", "", re.sub(r"\s+", "", text).replace('"', "'"))
