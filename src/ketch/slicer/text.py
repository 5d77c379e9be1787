"""Statements as text again: what was cut out of them is gone, the comments beside what stays are there.

Statement, Step --*pruned*--> lines of code
"""

import ast
import copy
import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from ketch.slicer.flow import Step
from ketch.slicer.notebook import Statement

WIDTH: Final = 120
Edits = Mapping[int, str]  # what stands in place of a node, by the node's id


def pruned(statement: Statement, step: Step, edits: Edits) -> str:
    """Give the text of a kept statement without the parts that were cut out of it, and with other values in it."""
    lines, first = statement.text.splitlines(), statement.first
    gone = [*_gone(step)]
    changed = [node for node in ast.walk(step.node) if id(node) in edits]
    if not statement.verbatim or not all(_whole(node, lines, first) for node, _ in gone):
        return ast.unparse(_without(step.node, {id(node) for node, _ in gone}, edits))
    for node in sorted(changed, key=lambda each: (each.lineno, each.col_offset), reverse=True):  # type: ignore[attr-defined]
        _edit(lines, first, node, edits[id(node)])
    drop: set[int] = set()
    fill: dict[int, str] = {}
    for node, empty in gone:
        start, end = first_line(node) - first, (node.end_lineno or node.lineno) - first
        above = start
        while above > 0 and lines[above - 1].lstrip().startswith("#"):
            above -= 1
        drop |= {*range(above, end + 1)}
        if empty:
            fill[above] = " " * node.col_offset + "pass"
    return "\n".join(fill.get(place, line) for place, line in enumerate(lines) if place not in drop or place in fill)


def filled(statement: Statement, step: Step) -> str:
    """Write a long list of plain values in as few lines as it takes, empty where a statement is something else."""
    node = step.node
    if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.List | ast.Tuple | ast.Set):
        return ""
    value = node.value
    values = [each.value for each in value.elts if isinstance(each, ast.Constant)]
    if "#" in statement.text or len(values) < len(value.elts) or len(ast.unparse(node)) < WIDTH:
        return ""
    parts = [json.dumps(each, ensure_ascii=False) if type(each) is str else repr(each) for each in values]
    if any(len(part) > WIDTH or " " in part for part in parts):
        return ""
    lines = textwrap.wrap(", ".join(parts) + ",", WIDTH - 8, break_long_words=False, break_on_hyphens=False)
    first, last = {"List": ("[", "]"), "Tuple": ("(", ")"), "Set": ("{", "}")}[type(value).__name__]
    names = " = ".join(ast.unparse(each) for each in node.targets)
    return "\n".join([f"{names} = {first}", *(f"    {line}" for line in lines), f"{last}  # fmt: skip"])


def first_line(node: ast.stmt) -> int:
    """Give the first line of a statement, that of its first decorator where it has any."""
    decorators: Sequence[ast.expr] = getattr(node, "decorator_list", ())
    return min([node.lineno, *(each.lineno for each in decorators)])


def _edit(lines: list[str], first: int, node: ast.AST, text: str) -> None:
    start, end = node.lineno - first, (node.end_lineno or 0) - first  # type: ignore[attr-defined]
    head = lines[start].encode()[: node.col_offset].decode()  # type: ignore[attr-defined]
    tail = lines[end].encode()[node.end_col_offset :].decode()  # type: ignore[attr-defined]
    lines[start : end + 1] = [head + text + tail, *[""] * (end - start)]


def _gone(step: Step) -> Iterator[tuple[ast.stmt, bool]]:
    """Give what was cut out, each with whether it was all of its block."""
    for steps in step.inside:
        stays = any(each.kept for each in steps)
        for place, each in enumerate(steps):
            if each.kept:
                yield from _gone(each)
            else:
                yield each.node, not stays and place == 0


def _whole(node: ast.stmt, lines: Sequence[str], first: int) -> bool:
    """Say whether a statement has its lines for itself."""
    start, end = first_line(node) - first, (node.end_lineno or node.lineno) - first
    after = lines[end].encode()[node.end_col_offset or 0 :].decode().strip()
    return not lines[start][: node.col_offset].strip() and (not after or after.startswith("#"))


def _without(node: ast.stmt, gone: set[int], edits: Edits) -> ast.stmt:
    """Copy the syntax of a statement without what was cut out of it."""
    memo: dict[int, object] = {}
    made = copy.deepcopy(node, memo)
    of = {id(twin): original for original, twin in memo.items() if isinstance(twin, ast.AST)}

    class Remover(ast.NodeTransformer):
        def visit(self, node: ast.AST) -> ast.AST:
            if of.get(id(node)) in edits:
                return ast.parse(edits[of[id(node)]], mode="eval").body
            for name in ("body", "orelse", "finalbody"):
                block = getattr(node, name, None)
                if isinstance(block, list):
                    left = [each for each in block if of.get(id(each)) not in gone]
                    setattr(node, name, left or ([ast.Pass()] if name == "body" and block else left))
            found: ast.AST = super().visit(node)
            return found

    Remover().visit(made)
    return ast.fix_missing_locations(made)
