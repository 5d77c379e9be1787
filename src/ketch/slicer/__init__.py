"""Notebook → script: what makes the model, and nothing else, proved to make the same one.

file --*read*--> Notebook --*statements*--> Steps --*cut*--> the kept ones --*write*--> Script --*prove*--> Proof
"""

import ast
import hashlib
import json
import re
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, NamedTuple

from ketch import extras
from ketch.errors import InputError
from ketch.lock import NAME, canonical, capture
from ketch.schema import slug
from ketch.slicer.cut import Cut
from ketch.slicer.fitted import fitted_on
from ketch.slicer.flow import Step, summarise
from ketch.slicer.goal import Goal, find, fitted_in
from ketch.slicer.layout import Kept, Layout, Writer, arranged
from ketch.slicer.measures import Measures
from ketch.slicer.notebook import Cell, Notebook, Split, read
from ketch.slicer.scope import STREAMS, Scope, root_of

__all__ = ["Line", "Notebook", "Script", "read", "script", "whole"]

SEED: Final = 0
MARK: Final = "Made by `ketch script`"
LOCKED: Final = f"# {MARK}: what the script needs, in the versions of the environment that it was made in."
REQUIREMENT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(\[[\w,.-]+\])?([<>=!~].*)?|[A-Za-z0-9._-]+@\S+|git\+\S+")
WITH_A_VALUE: Final = frozenset(
    "-c --constraint -e --editable -f --find-links -i --index-url --extra-index-url -t".split()
)
ADDRESS: Final = re.compile(r"(https?|ftp|s3|gs|gcs|abfss?|az|hdfs)://\S+")
FETCHERS: Final = (
    "sklearn.datasets.fetch_", "seaborn.load_dataset", "openml.", "kagglehub.", "yfinance.", "ucimlrepo.",
    "datasets.load_dataset", "keras.datasets.", "tensorflow.keras.datasets.", "tensorflow_datasets.",
    "statsmodels.api.datasets.get_rdataset",
)  # fmt: skip
LONGEST_WORDS: Final = 12  # lines of a markdown cell that become a comment


@dataclass(frozen=True)
class Line:
    """A piece of a cell, and why it stays or goes."""

    cell: int
    text: str
    kept: bool
    reason: str


class Packing(NamedTuple):
    """The call that packs the model, the same without data, and one that hands over all that the notebook saves."""

    written: str
    bare: str
    everything: str
    names: tuple[str, ...]


@dataclass
class Script:
    """A training script, where each piece of the notebook went, and what there is to say."""

    text: str
    name: str
    goal: Goal
    lines: list[Line]
    notes: list[str] = field(default_factory=list)
    requirements: list[str] = field(default_factory=list)
    kept: list[bool] = field(default_factory=list)  # of each statement, in the order in which they ran
    seeded: bool = True
    spare: list[int] = field(default_factory=list)  # statements that set a part which nothing mentions again
    packing: Packing | None = None
    writes: Callable[[str], str] = str  # the text with a call that packs, and nothing handed on that it does not name
    fetches: list[str] = field(default_factory=list)  # where what stays gets data from the network

    def warned(self, why: str) -> "Script":
        """Give it with a warning at its top: nobody has seen it make the notebook's model."""
        at = self.text.index('"""', 3)
        words = " ".join(why.replace("\\", "/").replace('"', "'").split())
        said = textwrap.fill(f"WARNING: not proved to make the notebook's model. {words}", 110, break_long_words=False)
        return replace(self, text=f"{self.text[:at]}\n{said}\n{self.text[at:]}")

    def packing_part(self, place: int, suffix: str) -> "Script":
        """Give it with one of the saved objects packed, or what it holds: the only model among them."""
        value = f"{self.goal.names[place]}{suffix}".replace("'", '"')
        return self._calling(lambda own: own.bare.replace(f"({value_of(own.names)},", f"({value},", 1))

    def bare(self) -> "Script":
        """Give it without the data that `ketch.pack` is told of."""
        text = self.writes(self.packing.bare) if self.packing else ""
        if self.packing is None or self.packing.bare not in text:
            return self._calling(lambda own: own.bare)
        return replace(self, text=text, packing=self.packing._replace(written=self.packing.bare))

    def _calling(self, made: Callable[[Packing], str]) -> "Script":
        """Give it with another call that packs."""
        if self.packing is None:
            return self
        call = made(self.packing)
        packing = self.packing._replace(written=call, bare=call)
        return replace(self, text=self.text.replace(self.packing.written, call), packing=packing)

    @property
    def trial(self) -> str:
        """Give the text in which all that the notebook saves is handed over first, to be compared."""
        own = self.packing
        return self.text.replace(own.written, f"{own.everything}; {own.written}") if own else self.text

    def record(self, notebook: bytes, name: str) -> dict[str, bytes]:
        """Give what goes into a bundle: the script, its SHA-256 and the notebook's, by member."""
        text = self.text.encode()
        told = {
            "script": hashlib.sha256(text).hexdigest(),
            "notebook": {"name": name, "sha256": hashlib.sha256(notebook).hexdigest()},
            "requirements": self.requirements,
        }
        return {
            "training/train.py": text,
            "training/training.json": json.dumps(told, indent=1).encode() + b"\n",
            "training/requirements.txt": self.locked().encode(),
        }

    def locked(self) -> str:
        """Pin all that the script imports and the notebook installs, in the versions of this environment."""
        tree = ast.parse(self.text)
        imports = [each.name for node in ast.walk(tree) if isinstance(node, ast.Import) for each in node.names]
        imports += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        names = {canonical(found[0]): each for each in self.requirements if (found := NAME.match(each))}
        pins = {name: pin for name, pin in capture(imports, names).items() if name != "ketch"}
        lines = [f"{name}=={pin}{_asked(names.get(name, name), name)}" for name, pin in pins.items()]
        lines += [
            f"{each}  # as the notebook has it: not installed here" for name, each in names.items() if name not in pins
        ]
        return "\n".join([LOCKED, *lines]) + "\n"


def script(notebook: Notebook, *, model: str = "", tight: bool = True, without: frozenset[int] = frozenset()) -> Script:
    """Write the script of what makes a notebook's model.

    With `tight` unset, what is not known for certain to leave the model alone stays. `without` are statements that
    have proved to make no difference.

    Raises:
        InputError: no model is found.
        NotInstalled: the extra `notebook` is missing.
    """
    work = _Work(notebook, tight=tight)
    for place in without:
        work.steps[place].never = True
    return work.script(find(work.steps, work.scope, model))


def whole(notebook: Notebook, *, model: str = "") -> Script:
    """Write all that ran up to the model, in order: better than nothing.

    Raises:
        NotInstalled: the extra `notebook` is missing.
    """
    work = _Work(notebook, tight=False)
    try:
        goal = find(work.steps, work.scope, model)
    except InputError:
        goal = Goal((), len(work.steps))
    return work.whole(goal)


class _Work:
    """One notebook on its way to a script."""

    def __init__(self, notebook: Notebook, *, tight: bool) -> None:
        self.notebook, self.tight = notebook, tight
        self.split, self.notes = Split(), [*notebook.notes]
        for cell in notebook.ran:
            self.split.take(cell)
        self.scope = Scope(summarise)
        for each in self.split.statements:
            self.scope.learn(each.node)
        for each in self.split.statements:
            self.scope.learn_texts(each.node)
        self.steps = [Step(each.node, self.scope) for each in self.split.statements]
        every = [each for step in self.steps for each in step.walk()]
        self.seeded = any(not each.effect.binds.isdisjoint(STREAMS) for each in every)
        self.cut = Cut(self.scope, self.steps, seeded=self.seeded, tight=tight)
        self.goal = Goal((), 0)

    def whole(self, goal: Goal) -> Script:
        self.goal = goal
        for step in self.steps[: goal.until]:
            for each in step.walk():
                each.kept = bool(each.blocks or each.effect.binds or each.effect.changes or not each.effect.shows)
        self._note_order()
        layout = arranged(self._kept(), [], goal, self.scope)
        layout.straight = "all that ran stays"
        return self._written(layout, None)

    def script(self, goal: Goal) -> Script:
        self.goal = goal
        for place in goal.places:
            for each in self.steps[place].walk():
                each.must = not each.effect.shows
        self.cut.keep(goal.names, goal.until)
        self._close_files()
        self._note_order()
        kept = self._kept()
        measures = Measures(self.cut, goal, self.scope)
        evaluation = [Kept(self.split.statements[place], self.steps[place], (), place) for place in measures.places]
        layout = arranged(kept, evaluation, goal, self.scope)
        if layout.straight:
            self.notes.append(f"The script keeps the notebook's order, in one piece: {layout.straight}.")
            layout.evaluate = []
        return self._written(layout, measures)

    def _written(self, layout: Layout, measures: Measures | None) -> Script:
        metrics = measures.metrics if measures else {}
        head = self._head(layout)
        kept_steps = [each for step in self.steps if step.kept for each in step.walk()]
        draws = any(not each.effect.changes.keys().isdisjoint(STREAMS) for each in kept_steps)
        seed = not self.seeded and draws
        if seed:
            self.notes.append("The notebook draws random numbers without a seed: the script has one, --seed.")
        models = self._models()
        packing = self._packing(models, layout)
        wanted = {*models, *self.goal.names}

        def writes(call: str) -> str:
            named = {each.id for each in ast.walk(ast.parse(call)) if isinstance(each, ast.Name)} - {"ketch"}
            writer = Writer(layout, wanted | named, self.scope, head=head, pack=call, metrics=metrics, seed=seed)
            return tidied(writer.text())

        text = ""
        for call in dict.fromkeys([packing.written, packing.bare] if packing else [""]):
            text = writes(call)
            if call in text:  # else the formatter has broken it into several lines
                packing = packing and packing._replace(written=call)
                break
        kept = [each.kept for each in self.steps]
        lines = self._lines(measures.places if measures else [])
        name = self.notebook.path.stem
        needs, spare, fetches = self._requirements(), self._spare(), self._fetches()
        return Script(
            text, name, self.goal, lines, self.notes, needs, kept, self.seeded, spare, packing, writes, fetches
        )

    def _close_files(self) -> None:
        """Keep what closes the files that the model is saved to."""
        goal = self.goal
        opened = {name for place in goal.places for name in self.steps[place].effect.reads}
        for place in range(goal.until, min(goal.until + 3, len(self.steps))):
            node = self.steps[place].node
            func = node.value.func if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) else None
            if isinstance(func, ast.Attribute) and func.attr == "close" and root_of(func.value) in opened:
                self.steps[place].kept = True
                goal.closes.add(place)

    def _kept(self) -> list[Kept]:
        found, told = [], set[int]()
        for place, (statement, step) in enumerate(zip(self.split.statements, self.steps, strict=True)):
            if step.kept:
                words = () if statement.cell.number in told else self._words(statement.cell)
                told.add(statement.cell.number)
                found.append(Kept(statement, step, words, place))
        return found

    def _words(self, cell: Cell) -> tuple[str, ...]:
        """Take over what stands right above a cell."""
        place = next((at for at, each in enumerate(self.notebook.cells) if each.number == cell.number), 0)
        if not place or self.notebook.cells[place - 1].kind != "markdown":
            return ()
        lines = [
            re.sub(r"^#+\s*", "", line).rstrip() for line in self.notebook.cells[place - 1].source.strip().splitlines()
        ]
        lines = [line for line in lines if line and not re.match(r"!\[|<|\||```|---", line)]
        return tuple(f"# {line}" for line in lines) if 0 < len(lines) <= LONGEST_WORDS else ()

    def _note_order(self) -> None:
        counts = [each.count for each in self.notebook.cells if each.kind == "code" and each.count is not None]
        if counts != sorted(counts):
            self.notes.append(
                "The cells did not run in the order in which they stand: the order of their counts is used."
            )
        never = [
            each.number
            for each in self.notebook.cells
            if each.kind == "code" and each.source.strip() and each.count is None
        ]
        if counts and never:
            self.notes.append(f"Never run, so left out: cell {', '.join(map(str, never[:20]))}.")
        for each in self.split.asides:
            if each.kind == "broken":
                self.notes.append(f"Cell {each.cell.number} is no Python ({each.text}), so it is left out.")
            elif each.kind == "shell":
                line = each.text.strip()[:120]
                self.notes.append(f"Cell {each.cell.number} has a shell line, which the script does not run: {line}")

    def _head(self, layout: Layout) -> str:
        source = self.notebook.path.read_bytes()
        cells = sorted({each.statement.cell.number for each in [*layout.imports, *layout.body, *layout.definitions]})
        name = self.notebook.path.name.replace("\\", "/").replace('"', "'")
        said = f'"""Train the model of {name}.\n\n{MARK} from its cells {_spans(cells)}'
        return said + f' (SHA-256 {hashlib.sha256(source).hexdigest()[:16]}…).\n"""\n'

    def _packing(self, models: Sequence[str], layout: Layout) -> Packing | None:
        if not models:
            return None
        path = f'"{slug(self.notebook.path.stem)}.ketch"'
        told = fitted_on(self.steps[: self.goal.until], models, self.scope)
        made = {name for each in layout.body for part in each.step.walk() for name in part.effect.binds}
        data = f", data={told.data}" if self.tight and len(models) == 1 and told.data in made else ""
        target = f", target={json.dumps(told.target, ensure_ascii=False)}" if told.target else ""
        bare = f"ketch.pack({value_of(models)}, {path}"
        everything = f"ketch.pack({value_of(self.goal.names)}, {path})"
        return Packing(f"{bare}{data}{target})", f"{bare}{target})", everything, tuple(models))

    def _models(self) -> list[str]:
        """Name what of the saved objects is a model: a list of columns beside it is none, and a dict holds some."""
        goal = self.goal
        if not goal.until:
            return []
        state = self.steps[goal.until - 1].after
        saved = frozenset().union(*(state.get(name, frozenset()) for name in goal.names))
        fitted = [
            (name, each.after.get(name, frozenset()))
            for step in self.steps[: goal.until]
            for each in step.walk()
            for name in fitted_in(each, self.scope)
        ]
        found = [name for name in dict.fromkeys(name for name, _ in fitted) if state.get(name, frozenset()) & saved]
        if own := [name for name in goal.names if name in found]:
            return own
        objects = frozenset().union(*(each for _, each in fitted))
        held = [name for name in goal.names if state.get(name, frozenset()) & objects and not self._holds(name)]
        return held or found or [*goal.names]

    def _holds(self, name: str) -> bool:
        """Say whether a saved name stands for something that holds the model, such as a dict."""
        for step in reversed(self.steps[: self.goal.until]):
            for each in step.walk():
                if name in each.effect.binds and isinstance(each.node, ast.Assign):
                    value = each.node.value
                    called = value.func if isinstance(value, ast.Call) else None
                    own = isinstance(called, ast.Name) and called.id in {"dict", "list", *self.scope.classes}
                    return own or isinstance(value, ast.Dict | ast.List | ast.Tuple | ast.Set)
        return False

    def _spare(self) -> list[int]:
        """Find the kept statements that set a column, an element or an attribute whose name stands nowhere else."""
        told: dict[str, int] = {}
        for step in (each for each in self.steps if each.kept):
            for name in {_told(node) for node in ast.walk(step.node)} - {""}:
                told[name] = told.get(name, 0) + 1
        return [
            place
            for place, step in enumerate(self.steps[: self.goal.until])
            if step.kept and (part := _part_of(step.node)) and told[part] == 1
        ]

    def _fetches(self) -> list[str]:
        """Name the addresses and the calls by which what stays gets data from the network."""
        found: dict[str, None] = {}
        for node in (node for step in self.steps if step.kept for node in ast.walk(step.node)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and ADDRESS.match(node.value):
                found[node.value] = None
            elif isinstance(node, ast.Call) and self.scope.dotted(node.func).startswith(FETCHERS):
                found[self.scope.dotted(node.func)] = None
        return [*found]

    def _requirements(self) -> list[str]:
        lines = [each.text for each in self.split.asides if each.kind == "pip"]
        return list(dict.fromkeys(each for line in lines for each in asked_of_pip(line, self.notebook.path.parent)))

    def _lines(self, measures: Sequence[int]) -> list[Line]:
        found = [
            Line(
                statement.cell.number,
                statement.text,
                step.kept or place in measures,
                self._reason(place, step, measures),
            )
            for place, (statement, step) in enumerate(zip(self.split.statements, self.steps, strict=True))
        ]
        return found + [Line(each.cell.number, each.text, False, ASIDES[each.kind]) for each in self.split.asides]

    def _reason(self, place: int, step: Step, measures: Sequence[int]) -> str:
        if place in measures:
            return "measures the model"
        if step.kept:
            return "makes the model" if not step.doubt else f"kept, as it may change what the model needs: {step.doubt}"
        if step.never:
            return "sets what nothing mentions again; the model is the same without it"
        if place >= self.goal.until:
            return "comes after the model is whole"
        if fitted_in(step, self.scope) or any(fitted_in(each, self.scope) for each in step.walk()):
            return "fits another model"
        made = {name for each in step.walk() for name in each.effect.binds}
        if isinstance(step.node, ast.Import | ast.ImportFrom):
            return "nothing that stays needs it"
        if not made:
            return "shows something" if any(each.effect.shows for each in step.walk()) else "looks only"
        return f"makes {', '.join(sorted(made)[:3])}, which the model does not need"


def _asked(requirement: str, name: str) -> str:
    return "" if canonical(requirement) == name else f"  # the notebook asks for {requirement}"


def asked_of_pip(line: str, folder: Path) -> Iterator[str]:
    """Give what a line of `pip install` asks for; a file of requirements beside the notebook is read."""
    words = iter(re.split(r"\s+", re.split(r"[;&|>]\s|\s#", f" {line} ")[0].strip()))
    for word in (each.strip("'\"") for each in words):
        if word in {"-r", "--requirement"}:
            listed = folder / next(words, "")
            if listed.is_file():
                for each in listed.read_text("utf-8", "replace").splitlines():
                    yield from asked_of_pip(each, folder)
        elif word in WITH_A_VALUE:
            next(words, "")
        elif REQUIREMENT.fullmatch(word):
            yield word


ASIDES: Final = {
    "pip": "installs packages",
    "shell": "a shell line is not run",
    "magic": "sets up the notebook",
    "help": "asks for help",
    "host": "speaks to the notebook's host",
    "broken": "is no Python",
}


def value_of(names: Sequence[str]) -> str:
    """Write the expression of one object, or of several in a tuple."""
    return names[0] if len(names) == 1 else f"({', '.join(names)})"


def _told(node: ast.AST) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    return node.attr if isinstance(node, ast.Attribute) else ""


def _part_of(node: ast.stmt) -> str:
    """Name the part that a statement sets, empty where it does something else."""
    if not isinstance(node, ast.Assign) or len(node.targets) != 1:
        return ""
    target = node.targets[0]
    if isinstance(target, ast.Attribute):
        return target.attr
    if isinstance(target, ast.Subscript) and isinstance(target.slice, ast.Constant):
        return target.slice.value if isinstance(target.slice.value, str) else ""
    return ""


def _spans(numbers: Sequence[int]) -> str:
    """Write numbers in short: 1-3, 7."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in spans)


def tidied(text: str) -> str:
    """Sort the imports, leave out those that are not used, and format; what ruff still minds is marked.

    Raises:
        NotInstalled: the extra `notebook` is missing.
    """
    extras.load("ruff")
    with tempfile.TemporaryDirectory(prefix="ketch-script-") as folder:
        place = Path(folder) / "script.py"
        place.write_text(text, "utf-8")
        for words in (
            ["check", "--fix-only", "--select", "I,F401,F811"],
            ["format", "--line-length", "120"],
            ["check", "--add-noqa"],
        ):
            command = [sys.executable, "-m", "ruff", *words, "--isolated", "--no-cache", "--quiet", str(place)]
            subprocess.run(command, capture_output=True, check=False, cwd=folder)
        return place.read_text("utf-8")
