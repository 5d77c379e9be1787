"""Which objects each name may stand for, statement by statement, and what each changes.

statements --*Step*--> tree of steps --*Follower*--> the same, with the objects known at each
"""

import ast
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from ketch.slicer import libraries
from ketch.slicer.effects import Reader
from ketch.slicer.scope import (
    FILES,
    SETTINGS,
    Effect,
    Function,
    Scope,
    Summary,
    given_to,
    matched,
    parameters_of,
    root_of,
    writes,
)

Objects = frozenset[object]
State = dict[str, Objects]
NOTHING: Final[Objects] = frozenset()


def summarise(scope: Scope, node: Function) -> Summary:
    """Say what calling a function does, by following its body."""
    names = parameters_of(node.args)
    body: Sequence[ast.stmt] = [ast.Expr(node.body)] if isinstance(node, ast.Lambda) else node.body
    inner = Inner(scope, names, body)
    return Summary(inner.effect(), names, inner.returned(node))


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
        func, given = node.func, given_to(node)
        name = func.id if isinstance(func, ast.Name) else ""
        if name and self.scope.is_own(name):
            if name in self.scope.classes:
                return self._all(given) | {(id(node), name)}
            return frozenset().union(*(self._returned(own, node) for own in self.scope.summaries(name)))
        last = (self.scope.dotted(func) or name).rpartition(".")[2]
        if last:  # a library's; an object that is made may hold what it is made of
            if last == "open" and writes(node):  # what is done with it is done to the file
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
