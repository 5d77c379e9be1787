"""What each statement reads, makes and may change; nothing is run.

Statement --*effect*--> Effect;  statements in a row --*follow*--> the objects that each name may stand for at each
"""

import ast
import importlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from ketch.slicer import libraries

RANDOM: Final = "*random."  # the state of the generators that all share, by library
STREAMS: Final = tuple(RANDOM + name for name in ("python", "numpy", "torch", "tensorflow"))
FOLDERS: Final = "*folders"  # which somebody must make before a file is written there
FILES: Final = "*files:"  # and the path, nothing where it is not known
SETTINGS: Final = "*settings"  # of libraries and of the process; always needed

Objects = frozenset[object]
State = dict[str, Objects]
NOTHING: Final[Objects] = frozenset()


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


def exported(module: str) -> list[str]:
    """Name what an installed library's module brings with *; nothing where it is not there."""
    try:
        found = importlib.import_module(module)
    except Exception:  # whatever a module raises when it is imported
        return []
    return [*getattr(found, "__all__", [name for name in vars(found) if not name.startswith("_")])]


def parts_of(name: str) -> Iterator[str]:
    """Give a dotted name's beginnings, the longest first."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        yield ".".join(parts[:end])


def root_of(node: ast.expr) -> str:
    """Give the name that an attribute or an element belongs to, empty where it is none."""
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Starred | ast.Await):
        node = node.value
    if isinstance(node, ast.NamedExpr):
        return node.target.id
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return root_of(node.func.value)
    return node.id if isinstance(node, ast.Name) else ""


class Scope:
    """What names stand for in one notebook: modules, functions and classes of its own, texts that never change."""

    def __init__(self) -> None:
        self.modules: dict[str, str] = {}  # name -> what was imported by it
        self.stars: dict[int, list[str]] = {}  # import of * -> the names that it brings
        self.texts: dict[str, set[str | None]] = {}  # name -> the texts that it is given, None for anything else
        self.written: set[str] = set()  # paths that something is written to
        self.generators: set[str] = set()  # names of generators of random numbers: asking one changes it
        self.unseeded = False  # some estimator draws from a generator that all share
        self.functions: dict[str, list[ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda]] = {}
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
                if (last in libraries.WRITING or (last == "open" and _writes(node))) and (path := self.path_of(node)):
                    self.written.add(path)

    def path_of(self, node: ast.Call) -> str:
        """Give the path of a file that a call names, empty where it is not known."""
        for each in _given(node)[:2]:
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

    def _of_function(self, node: "ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda") -> Summary:
        if id(node) in self._summaries:
            return self._summaries[id(node)]
        names = _parameters(node.args)
        if id(node) in self._open:  # it calls itself; what it does is found further up
            return Summary(Effect(), names, frozenset(names))
        self._open.add(id(node))
        body: Sequence[ast.stmt] = [ast.Expr(node.body)] if isinstance(node, ast.Lambda) else node.body
        inner = Inner(self, names, body)
        found = Summary(inner.effect(), names, inner.returned(node))
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


def _parameters(given: ast.arguments) -> tuple[str, ...]:
    every = [*given.posonlyargs, *given.args, *given.kwonlyargs, *filter(None, [given.vararg, given.kwarg])]
    return tuple(each.arg for each in every)


class Reader(ast.NodeVisitor):
    """Find the effect of a piece of code: names that are local to comprehensions and lambdas stay inside."""

    def __init__(self, scope: Scope, local: frozenset[str] = frozenset()) -> None:
        self.scope, self.local = scope, local
        self.effect = Effect()

    def of(self, *nodes: ast.AST | None) -> Effect:
        """Give the effect of these."""
        for node in nodes:
            if node is not None:
                self.visit(node)
        return self.effect

    def _read(self, name: str) -> None:
        if name in self.local:
            return
        self.effect.reads.add(name)
        for each in self.scope.summaries(name) if name not in self.local else ():
            self.effect.reads |= each.effect.reads - {name}

    def _change(self, name: str, *, sure: bool) -> None:
        if name and name not in self.local and name in self.scope.modules:
            self._set(self.scope.modules[name], sure=sure)
        elif name and name not in self.local:
            self.effect.change(name, sure=sure)
            self._read(name)

    def _set(self, what: str, *, sure: bool) -> None:
        """Note that a library or the process is told to do something in another way."""
        if what.partition(".")[0] in libraries.SHOWING or what in {"warnings", "pandas.options.display"}:
            self.effect.shows = True
        else:
            self.effect.change(SETTINGS, sure=sure)

    # ---- names ---------------------------------------------------------------------------------------

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load):
            self._read(node.id)
        elif node.id not in self.local:
            self.effect.binds.add(node.id)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.visit(node.value)
        if not isinstance(node.ctx, ast.Load):
            if ".options.display" in self.scope.dotted(node):
                self.effect.shows = True
            else:
                self._change(root_of(node.value), sure=True)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        self.visit(node.value)
        self.visit(node.slice)
        if not isinstance(node.ctx, ast.Load):
            self._change(root_of(node.value), sure=True)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self.visit(node.value)
        if isinstance(node.target, ast.Name):
            self._read(node.target.id)
            if node.target.id not in self.local:
                self.effect.binds.add(node.target.id)
                self.effect.change(node.target.id, sure=True)
        else:
            self.visit(node.target)

    def visit_Import(self, node: ast.Import | ast.ImportFrom) -> None:
        if isinstance(node, ast.ImportFrom) and node.names[0].name == "*":
            self.effect.binds |= {*self.scope.stars.get(id(node), ())} - self.local
            if not self.scope.stars.get(id(node)):
                self.effect.change(SETTINGS, sure=True)  # nobody knows what it brings
            return
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(libraries.SWITCHES):
            self.effect.change(SETTINGS, sure=True)
        self.effect.binds |= {each.asname or each.name.partition(".")[0] for each in node.names} - self.local

    visit_ImportFrom = visit_Import

    def visit_Delete(self, node: ast.Delete) -> None:
        for target in node.targets:
            if isinstance(target, ast.Name):
                self._read(target.id)
                self.effect.binds.add(target.id)
            else:
                self.visit(target)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        for each in (*node.decorator_list, *node.args.defaults, *filter(None, node.args.kw_defaults)):
            self.visit(each)
        if node.name not in self.local:
            self.effect.binds.add(node.name)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for each in (*node.decorator_list, *node.bases, *(word.value for word in node.keywords)):
            self.visit(each)
        for part in node.body:
            if not isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef):
                inside = Reader(self.scope, self.local).of(part)
                self.effect.reads |= inside.reads - inside.binds
        if node.name not in self.local:
            self.effect.binds.add(node.name)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        for each in (*node.args.defaults, *filter(None, node.args.kw_defaults)):
            self.visit(each)
        self._within(frozenset(_parameters(node.args)), [node.body])

    def visit_ListComp(self, node: "ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp") -> None:
        self.visit(node.generators[0].iter)
        bound = {each.id for part in node.generators for each in ast.walk(part.target) if isinstance(each, ast.Name)}
        inner = [part for each in node.generators for part in (each.iter, *each.ifs)]
        made = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
        self._within(frozenset(bound), [*inner, *made])

    visit_SetComp = visit_GeneratorExp = visit_DictComp = visit_ListComp

    def _within(self, bound: frozenset[str], nodes: Iterable[ast.AST]) -> None:
        self.effect.add(Reader(self.scope, self.local | bound).of(*nodes))

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        if node.name:
            self.effect.binds.add(node.name)
        self.generic_visit(node)

    def visit_Global(self, node: ast.Global) -> None:
        """Leave it to whoever looks at functions."""

    def visit_arg(self, node: ast.arg) -> None:
        """Leave annotations unread."""

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)
            self.visit(node.target)

    # ---- calls ---------------------------------------------------------------------------------------

    def visit_Call(self, node: ast.Call) -> None:
        self.generic_visit(node)
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name and name not in self.local and self.scope.is_own(name):
            self._own_call(node, name)
        elif name or self.scope.dotted(node.func):
            self._library_call(node, self.scope.dotted(node.func) or name)
        elif isinstance(node.func, ast.Attribute):
            self._method(node, node.func)
        for each in _given(node):  # a function that is handed over may be called
            if isinstance(each, ast.Name) and each.id not in self.local:
                for own in self.scope.summaries(each.id):
                    self._take(own, {})

    def _take(self, own: Summary, given: Mapping[str, ast.expr]) -> None:
        """Take over what a function of the notebook's own does with what it is given."""
        self.effect.reads |= own.effect.reads - self.local
        self.effect.binds |= own.effect.binds - self.local
        self.effect.shows |= own.effect.shows
        self.effect.unknown |= own.effect.unknown
        for name, sure in own.effect.changes.items():
            if name not in own.parameters:
                self._change(name, sure=sure)
            elif name in given:
                self._change(root_of(given[name]), sure=sure)

    def _own_call(self, node: ast.Call, name: str) -> None:
        for own in self.scope.summaries(name):
            self._take(own, matched(node, own.parameters))

    def _library_call(self, node: ast.Call, name: str) -> None:
        top, last = name.partition(".")[0], name.rpartition(".")[2]
        if name in libraries.SEEDS:
            self.effect.binds |= {RANDOM + each for each in libraries.streams(name)}
            return
        if top in libraries.SHOWING or name in {"print", "display", "input", "help"}:
            self.effect.shows = True
            return
        if libraries.draws(name, node) or (self.scope.unseeded and last in libraries.REFITTING):
            self._draw(name)
        self._touch_files(node, last)
        if libraries.settles(name, node):
            self._set(name, sure=True)
            return
        if last in libraries.CHANGERS:
            for each in _given(node):
                self._change(root_of(each), sure=last not in {"next", "exec", "eval"})
        elif name not in libraries.HARMLESS and not libraries.known(name):
            self.effect.unknown.add(name)

    def _method(self, node: ast.Call, func: ast.Attribute) -> None:
        root, method = root_of(func.value), func.attr
        if self._told_in_place(node, method):
            self._change(root, sure=True)
            return
        self._touch_files(node, method)
        fits = method in libraries.FITTING and self.scope.unseeded
        if fits or libraries.draws(f".{method}", node):
            self._draw(f".{method}")
        if method in libraries.CHANGING or root in self.scope.generators:
            self._change(root, sure=True)
        elif method not in libraries.READING:
            self._change(root, sure=False)
            self.effect.unknown.add(f".{method}")

    def _draw(self, name: str) -> None:
        for each in libraries.streams(name)[-1:]:
            self.effect.change(RANDOM + each, sure=True)
            self.effect.reads.add(RANDOM + each)

    def _touch_files(self, node: ast.Call, last: str) -> None:
        path = self.scope.path_of(node)
        moves = last in libraries.MOVING and self.scope.dotted(node.func).startswith(("os.", "shutil.", "urllib."))
        if last == "dump" and len(node.args) > 1 and isinstance(node.args[1], ast.Name) and not path:
            self._change(node.args[1].id, sure=True)
        elif last in {"write", "writelines"} and isinstance(node.func, ast.Attribute):
            self._change(root_of(node.func.value), sure=True)
        elif last in {"makedirs", "mkdir"}:
            self.effect.change(FOLDERS, sure=True)
            self.effect.reads.add(FOLDERS)
        elif last in libraries.WRITING or moves or (last == "open" and _writes(node)):
            self.effect.change(FILES + path, sure=True)
            self.effect.reads |= {FILES + path, FOLDERS}
        elif last in libraries.LOADING:
            self.effect.reads |= {FILES + path, FILES}
        for each in _given(node):  # a file that was written may be named anywhere
            if isinstance(each, ast.Constant) and isinstance(each.value, str) and each.value in self.scope.written:
                self.effect.reads.add(FILES + each.value)

    @staticmethod
    def _told_in_place(node: ast.Call, method: str) -> bool:
        if method not in libraries.INPLACE:
            return False
        told = [word.value for word in node.keywords if word.arg == "inplace"]
        return bool(told) and not (isinstance(told[0], ast.Constant) and told[0].value is False)


def _given(node: ast.Call) -> list[ast.expr]:
    return [*node.args, *(word.value for word in node.keywords)]


def _writes(node: ast.Call) -> bool:
    modes = [*node.args[1:2], *(word.value for word in node.keywords if word.arg == "mode")]
    if not modes:
        return False
    return not isinstance(modes[0], ast.Constant) or any(letter in str(modes[0].value) for letter in "wax+")


def matched(node: ast.Call, parameters: Sequence[str]) -> dict[str, ast.expr]:
    """Say which argument of a call is which parameter."""
    found = dict(zip(parameters, itertools.takewhile(lambda each: not isinstance(each, ast.Starred), node.args)))  # noqa: B905
    return found | {word.arg: word.value for word in node.keywords if word.arg and word.arg in parameters}


# ---- statements in a row -----------------------------------------------------------------------------


class Step:
    """A statement, the effect of it or of its head, its blocks, and what it was found to change."""

    def __init__(self, node: ast.stmt, scope: Scope) -> None:
        self.node = node
        self.effect = _head(node, scope)
        self.blocks = [[Step(each, scope) for each in block] for block in _blocks(node)]
        self.changed: Objects = NOTHING  # for certain
        self.perhaps: Objects = NOTHING
        self.after: State = {}
        self.kept = self.must = self.never = False
        self.doubt = ""  # why it was kept though nobody knows whether it must be
        own = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        self.reads_when_called = scope.free_in(node) if own else set[str]()
        self.bodies: list[Inner] = []  # of the functions that it defines, once it is kept

    @property
    def inside(self) -> "list[list[Step]]":
        """Give all blocks within it, those of functions too."""
        return [*self.blocks, *(each.steps for each in self.bodies)]

    def walk(self) -> "Iterator[Step]":
        """Give the step and all within it."""
        yield self
        for block in self.blocks:
            for each in block:
                yield from each.walk()


def _blocks(node: ast.stmt) -> list[list[ast.stmt]]:
    if isinstance(node, ast.If | ast.For | ast.AsyncFor | ast.While):
        return [node.body, node.orelse]
    if isinstance(node, ast.With | ast.AsyncWith):
        return [node.body]
    if isinstance(node, ast.Try):
        return [node.body, *(each.body for each in node.handlers), node.orelse, node.finalbody]
    return []


def _head(node: ast.stmt, scope: Scope) -> Effect:
    reader = Reader(scope)
    if isinstance(node, ast.If | ast.While):
        return reader.of(node.test)
    if isinstance(node, ast.For | ast.AsyncFor):
        return reader.of(node.iter, node.target)
    if isinstance(node, ast.With | ast.AsyncWith):
        return reader.of(*node.items)
    if isinstance(node, ast.Try):
        effect = reader.of(*(each.type for each in node.handlers))
        effect.binds |= {each.name for each in node.handlers if each.name}
        return effect
    return reader.of(node)


class Follower:
    """Follow which objects each name may stand for, and note what each step changes."""

    def __init__(self, scope: Scope, known: State | None = None) -> None:
        self.scope = scope
        self.state: State = dict(known or {})

    def run(self, steps: Iterable[Step]) -> None:
        """Follow statements in a row."""
        for step in steps:
            self._one(step)
            step.after = dict(self.state)

    def objects(self, name: str) -> Objects:
        """Give what a name may stand for; one from outside stands for itself."""
        return self.state.get(name) or frozenset({("outside", name)})

    def _one(self, step: Step) -> None:
        node = step.node
        for name, sure in step.effect.changes.items():
            found = frozenset(each for each in self.objects(name) if not _is_constant(each))
            if sure:
                step.changed |= found
            else:
                step.perhaps |= found
        if isinstance(node, ast.Expr) and step.effect.unknown:
            step.perhaps |= self.objects(SETTINGS)
        if isinstance(node, ast.If):
            self._branches(step.blocks)
        elif isinstance(node, ast.For | ast.AsyncFor | ast.While):
            self._loop(step)
        elif isinstance(node, ast.With | ast.AsyncWith):
            for item in node.items:
                if item.optional_vars is not None:
                    self._bind(item.optional_vars, item.context_expr)
            self.run(step.blocks[0])
        elif isinstance(node, ast.Try):
            self.run(step.blocks[0])
            self._branches([[], *step.blocks[1:-1]])
            self.run(step.blocks[-1])
        else:
            self._simple(node, step.effect)

    def _branches(self, blocks: Sequence[Sequence[Step]]) -> None:
        before, found = self.state, []
        for block in blocks:
            self.state = dict(before)
            self.run(block)
            found.append(self.state)
        self.state = _merged(*found)

    def _loop(self, step: Step) -> None:
        for _ in range(2):  # what a turn leaves behind is there in the next
            before = self.state
            self.state = dict(before)
            if isinstance(step.node, ast.For | ast.AsyncFor):
                self._bind(step.node.target, step.node.iter)
            self.run(step.blocks[0])
            self.state = _merged(before, self.state)
        self.run(step.blocks[1])

    def _simple(self, node: ast.stmt, effect: Effect) -> None:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                self._bind(target, node.value)
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            self._bind(node.target, node.value)
        elif isinstance(node, ast.AugAssign):
            root = root_of(node.target)
            self.state[root] = self.objects(root) | {(id(node), root)}
        elif isinstance(node, ast.Delete):
            for name in effect.binds:
                self.state.pop(name, None)
        else:
            for name in effect.binds:
                self.state[name] = frozenset({(id(node), name)})
        for each in ast.walk(node):
            if isinstance(each, ast.NamedExpr):
                self._bind(each.target, each.value)

    def _bind(self, target: ast.expr, value: ast.expr) -> None:
        if isinstance(target, ast.Name):
            self.state[target.id] = self.shared(value) or frozenset({(_kind(value), target.id, id(value))})
        elif isinstance(target, ast.Starred):
            self._bind(target.value, value)
        elif isinstance(target, ast.Tuple | ast.List):
            alike = isinstance(value, ast.Tuple | ast.List) and len(value.elts) == len(target.elts)
            for place, each in enumerate(target.elts):
                self._bind(each, value.elts[place] if alike else value)  # type: ignore[attr-defined]
        elif root := root_of(target):  # an attribute or an element holds it from now on
            self.state[root] = self.objects(root) | self.shared(value)

    def shared(self, node: ast.expr | None) -> Objects:
        """Give the objects that a value may be, show or hold; none where it is made anew."""
        if isinstance(node, ast.Name):
            return NOTHING if node.id in self.scope.modules else self.objects(node.id)
        if isinstance(node, ast.Subscript) and self._copies(node.slice):
            return NOTHING
        if isinstance(node, ast.Attribute | ast.Subscript | ast.Starred | ast.Await | ast.NamedExpr):
            return self.shared(node.value)
        if isinstance(node, ast.Tuple | ast.List | ast.Set):
            held = frozenset(each for each in self._all(node.elts) if not _is_constant(each))
            return held | {("list", "", id(node))} if held and isinstance(node, ast.List) else held
        if isinstance(node, ast.Dict | ast.BoolOp):
            return self._all(node.values)
        if isinstance(node, ast.IfExp):
            return self._all([node.body, node.orelse])
        if isinstance(node, ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp):
            return self._all([each.iter for each in node.generators])
        return self._of_call(node) if isinstance(node, ast.Call) else NOTHING

    def _copies(self, index: ast.expr) -> bool:
        """Say whether an index is one that copies: several columns, or a condition."""
        if isinstance(index, ast.Name):
            return bool(found := self.objects(index.id)) and all(
                isinstance(each, tuple) and each[0] == "list" for each in found
            )
        if isinstance(index, ast.BinOp):
            return isinstance(index.op, ast.BitAnd | ast.BitOr) or (
                self._copies(index.left) and self._copies(index.right)
            )
        return isinstance(index, ast.List | ast.ListComp | ast.Compare) or (
            isinstance(index, ast.UnaryOp) and isinstance(index.op, ast.Invert)
        )

    def _all(self, nodes: Iterable[ast.expr | None]) -> Objects:
        return frozenset().union(*(self.shared(each) for each in nodes))

    def _of_call(self, node: ast.Call) -> Objects:
        func, given = node.func, _given(node)
        name = func.id if isinstance(func, ast.Name) else ""
        if name and self.scope.is_own(name):
            if name in self.scope.classes:
                return self._all(given) | {(id(node), name)}
            return frozenset().union(*(self._returned(own, node) for own in self.scope.summaries(name)))
        last = (self.scope.dotted(func) or name).rpartition(".")[2]
        if last:  # a library's; an object that is made may hold what it is made of
            if last == "open" and _writes(node):  # what is done with it is done to the file
                return self.objects(FILES + self.scope.path_of(node))
            holds = (
                (last[:1].isupper() and last not in libraries.COPYING)
                or last.startswith("make_")
                or last in libraries.SHARING
            )
            return self._all(given) | {(id(node), last)} if holds else NOTHING
        if not isinstance(func, ast.Attribute):
            return self._all(given)
        if func.attr in libraries.READING and func.attr not in libraries.VIEWING:
            return NOTHING
        if func.attr in {"fit_transform", "fit_predict", "fit_resample"}:
            return NOTHING
        return self.shared(func.value)

    def _returned(self, own: Summary, node: ast.Call) -> Objects:
        given = matched(node, own.parameters)
        found: Objects = frozenset({(id(node), "")})
        for name in own.returned:
            if name in given:
                found |= self.shared(given[name])
            elif name not in own.parameters:
                found |= self.objects(name)
        return found


def _kind(value: ast.expr) -> str:
    if isinstance(value, ast.Constant | ast.JoinedStr | ast.Compare):
        return "constant"
    lists = isinstance(value, ast.List | ast.ListComp) or (
        isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id in {"list", "sorted"}
    )
    return "list" if lists else "made"


def _is_constant(each: object) -> bool:
    """Say whether an object cannot be changed, as no number and no text can."""
    return isinstance(each, tuple) and each[0] == "constant"


def _merged(*states: State) -> State:
    names = {name for state in states for name in state}
    return {name: frozenset().union(*(state.get(name, NOTHING) for state in states)) for name in names}


class Inner:
    """The body of a function: what it does to its parameters and to what stands outside."""

    def __init__(self, scope: Scope, parameters: Sequence[str], body: Sequence[ast.stmt]) -> None:
        self.scope, self.parameters = scope, parameters
        self.steps = [Step(each, scope) for each in body]
        every = self.every
        outside = {
            name for each in every if isinstance(each.node, ast.Global | ast.Nonlocal) for name in each.node.names
        }
        self.local = ({*parameters} | {name for each in every for name in each.effect.binds}) - outside
        self.follower = Follower(scope, {name: frozenset({("outside", name)}) for name in parameters})
        self.follower.run(self.steps)

    @property
    def every(self) -> list[Step]:
        """Give all its statements, also those within others."""
        return [each for step in self.steps for each in step.walk()]

    def effect(self) -> Effect:
        """Give what calling it does."""
        found = Effect()
        for step in self.every:
            found.reads |= step.effect.reads - self.local
            found.binds |= step.effect.binds - self.local
            found.shows |= step.effect.shows
            found.unknown |= step.effect.unknown
            for objects, sure in ((step.changed, True), (step.perhaps, False)):
                for each in objects:
                    if isinstance(each, tuple) and each[0] == "outside":
                        found.change(str(each[1]), sure=sure)
        return found

    def returned(self, node: ast.AST) -> frozenset[str]:
        """Name the parameters, and what stands outside, that the result may be or hold."""
        found: Objects = NOTHING
        if isinstance(node, ast.Lambda):
            found = self.follower.shared(node.body)
        for step in self.every:
            if isinstance(step.node, ast.Return):
                self.follower.state = step.after
                found |= self.follower.shared(step.node.value)
        return frozenset(str(each[1]) for each in found if isinstance(each, tuple) and each[0] == "outside")
