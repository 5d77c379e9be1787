"""What one statement reads, makes and may change.

statement --*Reader*--> Effect
"""

import ast
from collections.abc import Iterable, Mapping

from ketch.slicer import libraries
from ketch.slicer.scope import (
    FILES,
    FOLDERS,
    RANDOM,
    SETTINGS,
    Effect,
    Scope,
    Summary,
    given_to,
    matched,
    parameters_of,
    root_of,
    writes,
)


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
        whole = [node.module or ""] if isinstance(node, ast.ImportFrom) else [each.name for each in node.names]
        files = {f"{each.partition('.')[0]}.py" for each in whole} & self.scope.written
        self.effect.reads |= {FILES + each for each in files}  # a module that a cell has written

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
        self._within(frozenset(parameters_of(node.args)), [node.body])

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
        for each in given_to(node):  # a function that is handed over may be called
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
            for each in given_to(node):
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
        elif last in libraries.WRITING or moves or (last == "open" and writes(node)):
            self.effect.change(FILES + path, sure=True)
            self.effect.reads |= {FILES + path, FOLDERS}
        elif last in libraries.LOADING:
            self.effect.reads |= {FILES + path, FILES}
        for each in given_to(node):  # a file that was written may be named anywhere
            if isinstance(each, ast.Constant) and isinstance(each.value, str) and each.value in self.scope.written:
                self.effect.reads.add(FILES + each.value)

    @staticmethod
    def _told_in_place(node: ast.Call, method: str) -> bool:
        if method not in libraries.INPLACE:
            return False
        told = [word.value for word in node.keywords if word.arg == "inplace"]
        return bool(told) and not (isinstance(told[0], ast.Constant) and told[0].value is False)
