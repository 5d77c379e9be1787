"""Which object of a notebook is its model: what it saves last, else what it fits last.

Statements --*find*--> Goal
"""

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from ketch.errors import InputError
from ketch.slicer.flow import Objects, Step
from ketch.slicer.scope import Scope, matched, root_of

DUMPS: Final = {
    "pickle.dump": "pickle", "cloudpickle.dump": "pickle", "dill.dump": "pickle", "joblib.dump": "joblib",
    "skops.io.dump": "skops", "pickle.dumps": "pickle",
}  # fmt: skip
SAVES: Final = {"save_model": "native", "save": "native", "to_pickle": ""}
FITS: Final = frozenset({"fit", "fit_transform", "fit_predict", "partial_fit", "train"})


@dataclass
class Save:
    """One place where an object is written to a file."""

    step: int  # of the statement at the top
    value: ast.expr
    form: str  # pickle, joblib, skops, native
    file: ast.expr | None


@dataclass
class Goal:
    """The model: the names that hold it, where it is whole, and how it was saved."""

    names: tuple[str, ...]
    until: int  # the statement before which it is whole
    saves: tuple[Save, ...] = ()
    closes: set[int] = field(default_factory=set)  # statements that close its files

    @property
    def places(self) -> set[int]:
        """Give the statements that save it."""
        return {each.step for each in self.saves} | self.closes


def find(steps: Sequence[Step], scope: Scope, wanted: str = "") -> Goal:
    """Find the model.

    Raises:
        InputError: there is none, or none of the wanted name.
    """
    saves = [each for each in _saves(steps, scope) if _names(each.value, steps[each.step], scope)]
    if wanted:
        return _of_name(steps, scope, wanted, saves)
    models = [each for each in saves if _is_model(each, steps, scope)]
    if models:
        return _of_saves(models, steps, scope)
    for place in range(len(steps) - 1, -1, -1):
        if names := _fitted(steps[place], scope):
            return Goal(names, place + 1)
    if saves:  # what is fitted within a class of the notebook's own is not seen
        return _of_saves(saves, steps, scope)
    raise InputError(
        "The notebook neither saves nor fits anything that looks like a model", hint="Name its variable: --model NAME."
    )


def _of_name(steps: Sequence[Step], scope: Scope, wanted: str, saves: Sequence[Save]) -> Goal:
    own = [each for each in saves if _names(each.value, steps[each.step], scope) == (wanted,)]
    if own:
        return _of_saves(own, steps, scope)
    for place in range(len(steps) - 1, -1, -1):
        effect = [inner.effect for inner in steps[place].walk()]
        if any(wanted in each.binds or (wanted in each.changes and each.changes[wanted]) for each in effect):
            return Goal((wanted,), place + 1)
    made = ", ".join(sorted({name for step in steps for each in step.walk() for name in each.effect.binds})[:20])
    raise InputError(f"The notebook makes nothing named {wanted!r}", hint=f"It makes {made}.")


def _of_saves(saves: Sequence[Save], steps: Sequence[Step], scope: Scope) -> Goal:
    """Take the last model saved, and what is saved beside it."""
    last = saves[-1]
    names = dict.fromkeys(_names(last.value, steps[last.step], scope))
    together = [last]
    for each in reversed(saves[:-1]):
        own = _names(each.value, steps[each.step], scope)
        near = last.step - each.step <= 3 and not names.keys() & set(own)
        if near:
            together.insert(0, each)
            names = dict.fromkeys(own) | names
    return Goal(tuple(names), last.step + 1, tuple(together))


def _names(value: ast.expr, step: Step, scope: Scope) -> tuple[str, ...]:
    """Name the objects of a saved value, of a tuple, a list or a dict each one."""
    if isinstance(value, ast.Tuple | ast.List):
        return tuple(dict.fromkeys(name for each in value.elts for name in _names(each, step, scope)))
    if isinstance(value, ast.Dict):
        return tuple(dict.fromkeys(name for each in value.values for name in _names(each, step, scope)))
    root = root_of(value)
    return (root,) if root and root not in scope.modules else ()


def _saves(steps: Sequence[Step], scope: Scope) -> Iterator[Save]:
    for place, step in enumerate(steps):
        if isinstance(step.node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        for node in ast.walk(step.node):
            if isinstance(node, ast.Call):
                yield from _of_call(place, node, scope)


def _of_call(place: int, node: ast.Call, scope: Scope) -> Iterator[Save]:
    func = node.func
    dotted = scope.dotted(func)
    file = (
        node.args[1] if len(node.args) > 1 else next((word.value for word in node.keywords if word.arg == "file"), None)
    )
    if dotted in DUMPS and node.args:
        yield Save(place, node.args[0], DUMPS[dotted], file)
    elif dotted.endswith(".log_model") and node.args:
        yield Save(place, node.args[0], "", None)
    elif isinstance(func, ast.Name):
        for own in scope.functions.get(func.id, ()):
            names = {each.arg for each in ast.walk(own.args) if isinstance(each, ast.arg)}
            given = matched(node, scope.summaries(func.id)[0].parameters)
            for inner in ast.walk(own):
                if isinstance(inner, ast.Call) and scope.dotted(inner.func) in DUMPS and inner.args:
                    name = root_of(inner.args[0])
                    if name in names and name in given:
                        yield Save(place, given[name], DUMPS[scope.dotted(inner.func)], None)
    elif isinstance(func, ast.Attribute) and func.attr in SAVES and SAVES[func.attr] and not dotted and node.args:
        yield Save(place, func.value, SAVES[func.attr], node.args[0])


def _is_model(save: Save, steps: Sequence[Step], scope: Scope) -> bool:
    """Say whether anything in a saved value was fitted before."""
    step = steps[save.step]
    wanted: Objects = frozenset().union(
        *(step.after.get(name, frozenset()) for name in _names(save.value, step, scope))
    )
    for earlier in steps[: save.step + 1]:
        for each in earlier.walk():
            for name in fitted_in(each, scope):
                if each.after.get(name, frozenset()) & wanted:
                    return True
    return False


def _fitted(step: Step, scope: Scope) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for each in step.walk() for name in fitted_in(each, scope)))


def fitted_in(step: Step, scope: Scope) -> list[str]:
    """Name what a statement fits."""
    node = step.node
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return []
    every = [each for target in _targets(node) for each in ast.walk(target)]
    targets = [each.id for each in every if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)]
    heads = [] if step.blocks else [node]
    found: list[str] = []
    for call in (each for head in heads for each in ast.walk(head) if isinstance(each, ast.Call)):
        func = call.func
        if isinstance(func, ast.Attribute) and func.attr in FITS:
            if scope.dotted(func):  # xgb.train(…) gives the model
                found += targets
            else:
                root = root_of(func.value)
                found += [root] if root and root not in scope.modules else targets
                found += targets if func.attr == "fit" else []
        elif isinstance(func, ast.Name) and fits(func.id, scope):
            found += targets
    return [name for name in dict.fromkeys(found) if name]


def _targets(node: ast.stmt) -> list[ast.expr]:
    if isinstance(node, ast.Assign):
        return node.targets
    return [node.target] if isinstance(node, ast.AnnAssign | ast.AugAssign) else []


def fits(name: str, scope: Scope, seen: frozenset[str] = frozenset()) -> bool:
    """Say whether a function of the notebook's own fits something, itself or by another."""
    if name in seen:
        return False
    for own in scope.functions.get(name, ()):
        for node in ast.walk(own):
            if isinstance(node, ast.Call):
                if isinstance(node.func, ast.Attribute) and node.func.attr in {"fit", "partial_fit", "train"}:
                    return True
                if isinstance(node.func, ast.Name) and fits(node.func.id, scope, seen | {name}):
                    return True
    return False
