"""What the names of a notebook stand for, and what its own functions do when they are called.

statements --*learn*--> Scope;  name --*summaries*--> Summary
"""

import ast
import importlib
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from ketch.slicer import libraries

# names for what has none: they are read, made and changed as others are
RANDOM: Final = "*random."  # the state of the generators that all share, by library
STREAMS: Final = tuple(RANDOM + name for name in ("python", "numpy", "torch", "tensorflow"))
FOLDERS: Final = "*folders"  # which somebody must make before a file is written there
FILES: Final = "*files:"  # and the path, nothing where it is not known
SETTINGS: Final = "*settings"  # of libraries and of the process; always needed

Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


@dataclass
class Effect:
    """What one statement, or the head of a compound one, does.

    `changes` are names whose objects it changes, True where that is certain; `binds` are made anew.
    """

    reads: set[str] = field(default_factory=set)
    binds: set[str] = field(default_factory=set)
    changes: dict[str, bool] = field(default_factory=dict)
    shows: bool = False  # prints, draws or asks a service
    unknown: set[str] = field(default_factory=set)  # calls of which nothing is known

    def add(self, other: "Effect") -> None:
        """Take over another's."""
        self.reads |= other.reads
        self.binds |= other.binds
        for name, sure in other.changes.items():
            self.change(name, sure=sure)
        self.shows |= other.shows
        self.unknown |= other.unknown

    def change(self, name: str, *, sure: bool) -> None:
        """Note that a name's objects are changed."""
        self.changes[name] = sure or self.changes.get(name, False)


@dataclass
class Summary:
    """What calling a function of the notebook's own does."""

    effect: Effect
    parameters: tuple[str, ...]
    returned: frozenset[str]  # parameters, and names from outside, that the result may be or hold


class Scope:
    """What names stand for in one notebook: modules, functions and classes of its own, texts that never change."""

    def __init__(self, summarise: "Callable[[Scope, Function], Summary]") -> None:
        self.summarise = summarise
        self.modules: dict[str, str] = {}  # name -> what was imported by it
        self.stars: dict[int, list[str]] = {}  # import of * -> the names that it brings
        self.texts: dict[str, set[str | None]] = {}  # name -> the texts that it is given, None for anything else
        self.written: set[str] = set()  # paths that something is written to
        self.generators: set[str] = set()  # names of generators of random numbers: asking one changes it
        self.unseeded = False  # some estimator draws from a generator that all share
        self.functions: dict[str, list[Function]] = {}
        self.classes: dict[str, list[ast.ClassDef]] = {}
        self._summaries: dict[int, Summary] = {}
        self._open: set[int] = set()

    def learn(self, tree: ast.AST) -> None:
        """Take in all imports, functions and classes of a piece of code, wherever they stand."""
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                self._learn_import(node)
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                self.functions.setdefault(node.name, []).append(node)
            elif isinstance(node, ast.ClassDef):
                self.classes.setdefault(node.name, []).append(node)
            elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Lambda):
                for target in node.targets:
                    if isinstance(target, ast.Name):
                        self.functions.setdefault(target.id, []).append(node.value)

    def _learn_import(self, node: ast.Import | ast.ImportFrom) -> None:
        if isinstance(node, ast.Import):
            for each in node.names:
                top = each.name.partition(".")[0]
                self.modules[each.asname or top] = each.name if each.asname else top
        elif node.names[0].name == "*":
            self.stars[id(node)] = exported(node.module or "") if not node.level else []
            self.modules |= {name: f"{node.module}.{name}" for name in self.stars[id(node)]}
        else:
            self.modules |= {each.asname or each.name: f"{node.module or ''}.{each.name}" for each in node.names}

    def learn_texts(self, tree: ast.AST) -> None:
        """Take in which names stand for a text, and which files are written."""
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
                literal = node.value.value if isinstance(node.value, ast.Constant) else None
                self.texts.setdefault(node.targets[0].id, set()).add(literal if isinstance(literal, str) else None)
                maker = self.dotted(node.value.func) if isinstance(node.value, ast.Call) else ""
                if maker.rpartition(".")[2] in libraries.GENERATORS:
                    self.generators.add(node.targets[0].id)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                self.texts.setdefault(node.id, set())
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                name = self.dotted(node.func)
                self.unseeded |= name.startswith(libraries.LEARNING) and libraries.draws(name, node)
                last = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                if (last in libraries.WRITING or (last == "open" and writes(node))) and (path := self.path_of(node)):
                    self.written.add(path)

    def path_of(self, node: ast.Call) -> str:
        """Give the path of a file that a call names, empty where it is not known."""
        for each in given_to(node)[:2]:
            if isinstance(each, ast.Constant) and isinstance(each.value, str):
                return each.value
            if isinstance(each, ast.Name) and len(known := self.texts.get(each.id, {None})) == 1 and None not in known:
                return str(next(iter(known)))
        return ""

    def dotted(self, node: ast.expr) -> str:
        """Give what a name of a module, or an attribute of one, was imported as; empty for anything else."""
        names = []
        while isinstance(node, ast.Attribute):
            names.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name) or node.id not in self.modules:
            return ""
        return ".".join([self.modules[node.id], *reversed(names)])

    # ---- functions of the notebook's own -------------------------------------------------------------

    def summaries(self, name: str) -> list[Summary]:
        """Say what calling a function or class of the notebook's own does, by each of its definitions."""
        found = [self._of_function(each) for each in self.functions.get(name, ())]
        return found + [self._of_class(each) for each in self.classes.get(name, ())]

    def free_in(self, node: ast.stmt) -> set[str]:
        """Name what a function or class reads from outside when it is used."""
        if isinstance(node, ast.ClassDef):
            return {*self._of_class(node).effect.reads}
        return (
            {*self._of_function(node).effect.reads}
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            else set()
        )

    def is_own(self, name: str) -> bool:
        """Say whether a name is a function or class that the notebook defines."""
        return name in self.functions or name in self.classes

    def _of_function(self, node: Function) -> Summary:
        if id(node) in self._summaries:
            return self._summaries[id(node)]
        if id(node) in self._open:  # it calls itself; what it does is found further up
            names = parameters_of(node.args)
            return Summary(Effect(), names, frozenset(names))
        self._open.add(id(node))
        found = self.summarise(self, node)
        self._open.discard(id(node))
        self._summaries[id(node)] = found
        return found

    def _of_class(self, node: ast.ClassDef) -> Summary:
        """Say what anything done with a class may do: all that its methods do."""
        whole = Effect()
        for each in node.body:
            if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef):
                own = self._of_function(each)
                whole.add(Effect({*own.effect.reads}, {*own.effect.binds}, {}, own.effect.shows, {*own.effect.unknown}))
                for name, sure in own.effect.changes.items():
                    if name not in own.parameters:
                        whole.change(name, sure=sure)
        return Summary(whole, (), frozenset())


def exported(module: str) -> list[str]:
    """Name what an installed library's module brings with *; nothing where it is not there."""
    try:
        found = importlib.import_module(module)
    except Exception:  # whatever a module raises when it is imported
        return []
    return [*getattr(found, "__all__", [name for name in vars(found) if not name.startswith("_")])]


def root_of(node: ast.expr) -> str:
    """Give the name that an attribute or an element belongs to, empty where it is none."""
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Starred | ast.Await):
        node = node.value
    if isinstance(node, ast.NamedExpr):
        return node.target.id
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return root_of(node.func.value)
    return node.id if isinstance(node, ast.Name) else ""


def parameters_of(given: ast.arguments) -> tuple[str, ...]:
    """Name all parameters of a function."""
    every = [*given.posonlyargs, *given.args, *given.kwonlyargs, *filter(None, [given.vararg, given.kwarg])]
    return tuple(each.arg for each in every)


def given_to(node: ast.Call) -> list[ast.expr]:
    """Give all arguments of a call."""
    return [*node.args, *(word.value for word in node.keywords)]


def writes(node: ast.Call) -> bool:
    """Say whether a call of open() opens a file to write to it."""
    modes = [*node.args[1:2], *(word.value for word in node.keywords if word.arg == "mode")]
    if not modes:
        return False
    return not isinstance(modes[0], ast.Constant) or any(letter in str(modes[0].value) for letter in "wax+")


def matched(node: ast.Call, parameters: Sequence[str]) -> dict[str, ast.expr]:
    """Say which argument of a call is which parameter."""
    found = dict(zip(parameters, itertools.takewhile(lambda each: not isinstance(each, ast.Starred), node.args)))  # noqa: B905
    return found | {word.arg: word.value for word in node.keywords if word.arg and word.arg in parameters}
