"""Reads notebooks of every kind into cells in the order in which they ran; magics become Python or are set aside.

file --*read*--> Notebook of Cells --*statements*--> Statement, …
"""

import ast
import graphlib
import importlib
import re
import textwrap
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ketch import extras
from ketch.errors import InputError

TEXTS: Final = {".py": "py", ".md": "md", ".markdown": "markdown", ".rmd": "Rmd"}  # suffix -> Jupytext's format
HOSTS: Final = ("google.colab", "marimo", "kaggle_secrets", "dbruntime")
BODIES: Final = frozenset({"time", "timeit", "capture", "prun", "memit", "mprun", "lprun", "notify", "heat"})
PIP: Final = re.compile(
    r"^\s*(?:\{?sys\.executable\}?\s+-m\s+|python3?\s+-m\s+|uv\s+)?pip3?\s+install\s+(.*)$", re.DOTALL
)
WRITTEN: Final = re.compile(r"\s*%%(?:writefile|file)\s+(-a\s+|--append\s+)?['\"]?([^\s'\"]+)['\"]?[^\n]*\n?")
CONDA: Final = re.compile(r"^\s*(?:conda|mamba)\s+install\s+(.*)$", re.DOTALL)


@dataclass(frozen=True)
class Cell:
    """One cell: its number as a person counts, whether it is code, its text, and when it ran last."""

    number: int
    kind: str
    source: str
    count: int | None = None


@dataclass
class Notebook:
    """A notebook, its cells in the order in which they stand, and what there is to say about them."""

    path: Path
    cells: list[Cell]
    notes: list[str] = field(default_factory=list)

    @property
    def ran(self) -> list[Cell]:
        """Give the code cells in the order in which they ran: that of their counts where these are whole.

        A cell without a count, in a notebook where others have one, has not run since the kernel was started.
        """
        code = [each for each in self.cells if each.kind == "code" and each.source.strip()]
        counted = [each for each in code if each.count is not None]
        if not counted:
            return code
        return sorted(counted, key=lambda each: each.count or 0)


def read(path: Path) -> Notebook:
    """Read a notebook: .ipynb, a Jupytext .py or .md, or one of marimo's.

    Raises:
        InputError: there is none, or it cannot be read as one.
        NotInstalled: the extra `notebook` is missing.
    """
    try:
        text = path.read_text("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", hint="Give the path of a notebook.") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not a text in UTF-8", hint="Give a notebook (.ipynb, .py or .md).") from None
    if path.suffix.lower() == ".ipynb":
        found = _json(path, text)
        if (language := _language(found)) not in {"python", "python3", "ipython"}:
            raise InputError(f"{path.name} is written in {language[:40]}", hint="Give a notebook in Python.")
        return Notebook(path, [*_cells(found)])
    if path.suffix.lower() == ".py" and re.search(r"^\s*@\w+\.cell\b", text, re.MULTILINE) and "marimo" in text:
        return Notebook(path, [*_marimo(path, text)])
    if path.suffix.lower() in TEXTS:
        return Notebook(path, [*_cells(_text(path, text))])
    raise InputError(f"{path.name} is no notebook", hint="Give one in .ipynb, .py or .md.")


def _text(path: Path, text: str) -> Any:
    jupytext = extras.load("jupytext")
    try:
        return jupytext.reads(text, fmt=TEXTS[path.suffix.lower()])
    except Exception as error:  # Jupytext raises many kinds, and others come from what it reads
        raise InputError(
            f"{path.name} is no notebook: {' '.join(str(error).split())[:200]}", hint="Save it again with Jupytext."
        ) from None


def _language(found: Mapping[str, Any]) -> str:
    """Name the language of a notebook, where it says so."""
    for part, key in (("language_info", "name"), ("kernelspec", "language")):
        told = found.get("metadata", {}).get(part)
        if isinstance(told, Mapping) and told.get(key):
            return str(told[key]).lower()
    return "python"


def _json(path: Path, text: str) -> Any:
    nbformat = extras.load("nbformat")
    try:
        return nbformat.reads(text, as_version=4)
    except Exception as error:  # nbformat raises many kinds, and others come from what it reads
        raise InputError(
            f"{path.name} is no notebook: {' '.join(str(error).split())[:200]}", hint="Save it again in Jupyter."
        ) from None


def _cells(found: Any) -> Iterator[Cell]:
    for number, each in enumerate(found.cells, 1):
        source = each.source if isinstance(each.source, str) else "".join(each.source)
        count = each.get("execution_count")
        yield Cell(number, each.cell_type, source, count if isinstance(count, int) else None)


def _marimo(path: Path, text: str) -> Iterator[Cell]:
    """Take the bodies of marimo's cells, in the order in which they need one another."""
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        raise InputError(f"{path.name} is no Python, line {error.lineno}", hint="Mend it in marimo.") from None
    lines = text.splitlines()
    made: dict[str, int] = {}
    found: list[tuple[set[str], str]] = []
    for node in tree.body:
        if isinstance(node, ast.With) and "setup" in ast.unparse(node.items[0]):
            found.append((set(), _dedented(lines, node.body)))
            continue
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or not node.decorator_list:
            continue
        kind = ast.unparse(node.decorator_list[0])
        if re.fullmatch(r"\w+\.(function|class_definition)(\(.*\))?", kind, re.DOTALL):
            found.append((set(), "\n".join(lines[node.lineno - 1 : node.end_lineno])))
            made[node.name] = len(found) - 1
        elif re.fullmatch(r"\w+\.cell(\(.*\))?", kind, re.DOTALL) and not isinstance(node, ast.ClassDef):
            body = node.body[:-1] if isinstance(node.body[-1], ast.Return) else node.body
            last = node.body[-1]
            given = ast.walk(last.value) if isinstance(last, ast.Return) and last.value is not None else ()
            made |= {each.id: len(found) for each in given if isinstance(each, ast.Name)}
            found.append(({each.arg for each in node.args.args}, _dedented(lines, body)))
    sorter = graphlib.TopologicalSorter(
        {
            place: {made[name] for name in wanted if name in made and made[name] != place}
            for place, (wanted, _) in enumerate(found)
        }
    )
    try:
        order = [*sorter.static_order()]
    except graphlib.CycleError:
        order = [*range(len(found))]
    for number, place in enumerate(order, 1):
        yield Cell(number, "code", found[place][1])


def _dedented(lines: Sequence[str], body: Sequence[ast.stmt]) -> str:
    if not body:
        return ""
    first = body[0].lineno - 1
    while first and lines[first - 1].lstrip().startswith("#"):
        first -= 1
    return textwrap.dedent("\n".join(lines[first : body[-1].end_lineno]))


# ---- from cells to statements --------------------------------------------------------------------------


@dataclass(eq=False)
class Statement:
    """One statement at the top of a cell, with its text and the comments right above it."""

    cell: Cell
    node: ast.stmt
    text: str
    comments: tuple[str, ...] = ()
    first: int = 1  # the line of the text's beginning, as the node counts
    verbatim: bool = True  # the text is as it stood in the cell


@dataclass(frozen=True)
class Aside:
    """What a cell holds that is no Python of the model's: a shell line, a magic, a cell that cannot be read."""

    cell: Cell
    kind: str  # pip, shell, magic, help, broken
    text: str


class Split:
    """The statements of cells, and what was set aside."""

    def __init__(self) -> None:
        self.statements: list[Statement] = []
        self.asides: list[Aside] = []
        self.shell = 0  # the cell of a shell line whose output is used, 0 where there is none
        self._hosted: dict[str, str] = {}  # names that only the notebook's host knows -> what they are

    def take(self, cell: Cell) -> None:
        """Take the next cell."""
        source = cell.source
        if written := WRITTEN.match(source):
            return self._made(cell, _writing(written[2], source[written.end() :], add=bool(written[1])))
        while magic := re.match(r"\s*%%(\w+)[^\n]*\n?", source):
            if magic[1] not in BODIES:
                return self._foreign(cell, magic[1], source)
            if magic[1] == "timeit":
                return self.asides.append(Aside(cell, "magic", source))
            source = source[magic.end() :]
        try:
            text, tree = _parsed(source)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            return self.asides.append(Aside(cell, "broken", f"{error}"))
        lines, end = text.splitlines(), 0
        for node in tree.body:
            self._statement(cell, node, lines, end)
            end = max(end, node.end_lineno or 0)
        return None

    def _foreign(self, cell: Cell, magic: str, source: str) -> None:
        kind = "shell" if magic in {"bash", "sh", "script", "cmd", "system", "sx", "!"} else "magic"
        self.asides.append(Aside(cell, kind, source))

    def _statement(self, cell: Cell, node: ast.stmt, lines: Sequence[str], end: int) -> None:
        if text := self._of_upload(node):
            self._made(cell, text)
            return
        if self._is_hosted(node):
            self.asides.append(Aside(cell, "host", ast.unparse(node)))
            return
        call = _notebook_call(node.value if isinstance(node, ast.Expr | ast.Assign) else None)
        if call is not None and isinstance(node, ast.Expr):
            self._made(cell, self._magic(cell, *call))
            return
        if call is not None and isinstance(node, ast.Assign) and call[0] == "getoutput":
            self._made(cell, self._output(cell, node, call[1]))
            return
        first = min([node.lineno, *(each.lineno for each in getattr(node, "decorator_list", ()))])
        above = first - 1
        while above > end and lines[above - 1].lstrip().startswith("#"):
            above -= 1
        comments = tuple(lines[above : first - 1])
        last = node.end_lineno or first
        before = lines[first - 1].encode()[: node.col_offset].strip()
        rest = lines[last - 1].encode()[node.end_col_offset or 0 :].strip()
        verbatim = not before and (not rest or rest.startswith(b"#"))
        text = "\n".join(lines[first - 1 : last]) if verbatim else ast.unparse(node)
        self.statements.append(Statement(cell, node, text, comments, first, verbatim))

    def _made(self, cell: Cell, text: str) -> None:
        """Take statements that were made of a magic."""
        try:
            made = ast.parse(text).body
        except (SyntaxError, ValueError):
            self.asides.append(Aside(cell, "magic", text))
            return
        for each in made:
            self.statements.append(Statement(cell, each, ast.unparse(each), verbatim=False))

    def _output(self, cell: Cell, node: ast.Assign, words: list[str]) -> str:
        """Turn a shell line whose output has a name into Python."""
        name = ast.unparse(node.targets[0])
        if listed := re.fullmatch(r"ls(?:\s+-1)?(?:\s+([\w.*?/\[\]-]+))?", words[0].strip()):
            return f"import glob\n{name} = sorted(glob.glob({listed[1] or '*'!r}))"
        self.shell = self.shell or cell.number
        run = f"subprocess.run({words[0]!r}, shell=True, capture_output=True, text=True, check=False)"
        return f"import subprocess\n{name} = {run}.stdout.splitlines()"

    def _is_hosted(self, node: ast.stmt) -> bool:
        """Say whether a statement speaks to the notebook's host, such as Colab or marimo."""
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = (node.module or "") if isinstance(node, ast.ImportFrom) else node.names[0].name
            if module.startswith(HOSTS):
                names = {each.asname or each.name.partition(".")[0]: each.name for each in node.names}
                self._hosted |= {name: f"{module}.{what}" for name, what in names.items()}
                return True
        used = any(isinstance(each, ast.Name) and each.id in self._hosted for each in ast.walk(node))
        if used and isinstance(node, ast.Assign):  # what the host has made is the host's too
            stored = [each for target in node.targets for each in ast.walk(target) if isinstance(each, ast.Name)]
            self._hosted |= {each.id: "" for each in stored if isinstance(each.ctx, ast.Store)}
        return used and isinstance(node, ast.Expr | ast.Assign)

    def _of_upload(self, node: ast.stmt) -> str:
        """Turn the files that somebody uploads to Colab into those that lie beside the notebook."""
        value = node.value if isinstance(node, ast.Assign) else None
        if not (isinstance(node, ast.Assign) and isinstance(value, ast.Call) and isinstance(node.targets[0], ast.Name)):
            return ""
        func = value.func
        if not (isinstance(func, ast.Attribute) and isinstance(func.value, ast.Name) and func.attr == "upload"):
            return ""
        if not self._hosted.get(func.value.id, "").startswith("google.colab"):
            return ""
        return (
            f"import pathlib\n{node.targets[0].id} = {{each.name: each.read_bytes() "
            "for each in pathlib.Path().iterdir() if each.is_file()}"
        )

    def _magic(self, cell: Cell, kind: str, words: list[str]) -> str:
        """Turn a magic or a shell line into Python, or set it aside and give nothing."""
        if kind == "run_cell_magic":
            self._foreign(cell, words[0], f"%%{words[0]} {words[1]}\n{words[2]}")
            return ""
        name, rest = (words[0], words[1].strip()) if kind == "run_line_magic" else ("!", words[0].strip())
        line = rest if name == "!" else f"{name} {rest}"
        if found := PIP.match(line) or CONDA.match(line):
            self.asides.append(Aside(cell, "pip", found[1]))
        elif name == "time":
            return rest
        elif made := _of_magic(name, rest):
            return made
        else:
            kind = {"!": "shell", "pinfo": "help", "pinfo2": "help", "pdoc": "help", "psource": "help"}.get(
                name, "magic"
            )
            self.asides.append(Aside(cell, kind, rest if name == "!" else f"%{line}"))
        return ""


def _parsed(source: str) -> tuple[str, ast.Module]:
    """Turn the text of a cell into Python, and that into its syntax; what Python would not compile is refused."""
    extras.load("ipykernel")  # which brings IPython
    magics = importlib.import_module("IPython.core.inputtransformer2").TransformerManager()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of escapes in texts: they are the notebook's own
        text = magics.transform_cell(source)
        compile(text, "cell", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
        return text, ast.parse(text)


def _writing(path: str, text: str, *, add: bool) -> str:
    """Give the Python of a cell that is written to a file."""
    text = text if text.endswith("\n") else text + "\n"
    return f"with open({path!r}, {'a' if add else 'w'!r}) as file_of_cell:\n    file_of_cell.write({text!r})"


def _of_magic(name: str, rest: str) -> str:
    """Give the Python of a magic that matters to what comes after it, nothing for any other."""
    words = rest.split()
    if name == "cd":
        place = rest.replace("-q", "", 1).strip().strip("'\"")
        if place == "-":
            return "import os\nos.chdir(os.environ['OLDPWD'])"
        return f"import os\nos.environ['OLDPWD'] = os.getcwd()\nos.chdir(os.path.expanduser({place or '~'!r}))"
    if name in {"env", "set_env"} and (pair := re.match(r"(\w+)[=\s]\s*(.*)", rest)):
        return f"import os\nos.environ[{pair[1]!r}] = {pair[2]!r}"
    if name == "run" and words:
        return f"import runpy\nglobals().update(runpy.run_path({words[0]!r}))"
    return "from pylab import *" if name == "pylab" else ""


def _notebook_call(node: ast.expr | None) -> tuple[str, list[str]] | None:
    """Recognise what IPython makes of a magic or a shell line."""
    if not isinstance(node, ast.Call):
        return None
    func = node.func
    if not (isinstance(func, ast.Attribute) and isinstance(func.value, ast.Call)):
        return None
    if not (isinstance(func.value.func, ast.Name) and func.value.func.id == "get_ipython"):
        return None
    words = [each.value for each in node.args if isinstance(each, ast.Constant) and isinstance(each.value, str)]
    return (func.attr, words) if words else None
