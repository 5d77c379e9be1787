"""What a model is fitted on: the variable with its features, and the name of its target.

Steps, names of models --*fitted_on*--> Fitted
"""

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from ketch.slicer.flow import Step
from ketch.slicer.scope import Scope, matched, root_of

DEEP: Final = 20  # names that are followed to where they come from
SAME: Final = frozenset("values array to_numpy astype ravel copy reset_index map replace fillna squeeze T".split())
CODING: Final = frozenset("fit_transform transform array asarray ravel Series factorize".split())


@dataclass(frozen=True)
class Fitted:
    """The variable that a model is fitted on, and what its target is called; each empty where nobody knows."""

    data: str = ""
    target: str = ""


def fitted_on(steps: Sequence[Step], names: Sequence[str], scope: Scope) -> Fitted:
    """Find what the last of the calls that fit one of these names is given."""
    for place in range(len(steps) - 1, -1, -1):
        for step in steps[place].walk():
            if step.kept and not step.blocks:
                for features, target in _given(step.node, names, scope):
                    data = features.id if isinstance(features, ast.Name) else ""
                    return Fitted(data, _label(target, steps[:place], scope, DEEP) if target else "")
    return Fitted()


def _given(node: ast.stmt, names: Sequence[str], scope: Scope) -> Iterator[tuple[ast.expr | None, ast.expr | None]]:
    """Give features and target of each call in a statement that fits one of the names."""
    targets = node.targets if isinstance(node, ast.Assign) else []
    made = {each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)}
    for call in (each for each in ast.walk(node) if isinstance(each, ast.Call)):
        func = call.func
        if isinstance(func, ast.Attribute) and func.attr == "fit" and (root_of(func.value) in names or made & {*names}):
            yield _features_and_target(call)
        elif isinstance(func, ast.Name) and made & {*names}:
            for own in scope.functions.get(func.id, ()):
                given = matched(call, scope.summaries(func.id)[0].parameters)
                for inner in ast.walk(own):
                    if (
                        isinstance(inner, ast.Call)
                        and isinstance(inner.func, ast.Attribute)
                        and inner.func.attr == "fit"
                    ):
                        _, target = _features_and_target(inner)
                        yield None, given.get(target.id) if isinstance(target, ast.Name) else None


def _features_and_target(call: ast.Call) -> tuple[ast.expr | None, ast.expr | None]:
    words = {word.arg: word.value for word in call.keywords}
    features = call.args[0] if call.args else words.get("X")
    return features, call.args[1] if len(call.args) > 1 else words.get("y")


def _label(node: ast.expr, before: Sequence[Step], scope: Scope, deep: int) -> str:
    """Name the column that values come from, empty where they are something else."""
    if deep == 0:
        return ""
    if isinstance(node, ast.Name):
        return _of_name(node.id, before, scope, deep)
    if isinstance(node, ast.Subscript):
        last = node.slice.elts[-1] if isinstance(node.slice, ast.Tuple) else node.slice
        return last.value if isinstance(last, ast.Constant) and isinstance(last.value, str) else ""
    if isinstance(node, ast.Compare):
        return _label(node.left, before, scope, deep - 1)
    if isinstance(node, ast.Attribute):
        if node.attr in SAME:
            return _label(node.value, before, scope, deep - 1)
        root = root_of(node.value)
        return node.attr if root and root not in scope.modules else ""
    return _of_call(node, before, scope, deep) if isinstance(node, ast.Call) else ""


def _of_call(node: ast.Call, before: Sequence[Step], scope: Scope, deep: int) -> str:
    if not isinstance(node.func, ast.Attribute):
        return ""
    first = node.args[0] if node.args else None
    if node.func.attr in SAME and not scope.dotted(node.func):
        return _label(node.func.value, before, scope, deep - 1)
    if node.func.attr == "pop" and isinstance(first, ast.Constant) and isinstance(first.value, str):
        return first.value
    return _label(first, before, scope, deep - 1) if first is not None and node.func.attr in CODING else ""


def _of_name(name: str, before: Sequence[Step], scope: Scope, deep: int) -> str:
    """Follow a name to the statement that bound it last."""
    for place in range(len(before) - 1, -1, -1):
        node = before[place].node
        if name not in {bound for each in before[place].walk() for bound in each.effect.binds}:
            continue
        if not isinstance(node, ast.Assign) or len(node.targets) != 1:
            return ""
        target, value = node.targets[0], node.value
        if isinstance(target, ast.Name):
            return _label(value, before[:place], scope, deep - 1)
        parts = target.elts if isinstance(target, ast.Tuple | ast.List) else []
        at = next((at for at, each in enumerate(parts) if isinstance(each, ast.Name) and each.id == name), -1)
        source = _part(value, at, scope)
        return _label(source, before[:place], scope, deep - 1) if source is not None else ""
    return ""


def _part(value: ast.expr, at: int, scope: Scope) -> ast.expr | None:
    """Give what the part of a number stands for, where a statement sets several names at once."""
    if isinstance(value, ast.Tuple | ast.List):
        return value.elts[at] if 0 <= at < len(value.elts) else None
    if isinstance(value, ast.Call) and scope.dotted(value.func).endswith("train_test_split"):
        return value.args[at // 2] if 0 <= at // 2 < len(value.args) else None
    return None
