"""Opens up the one function in which a notebook does all its work, so that its statements can be told apart.

Notebook --*opened*--> the same, with the body of `main` where it is called
"""

import ast
import textwrap
from collections.abc import Sequence
from dataclasses import replace

from ketch.slicer.notebook import Notebook, Split, Statement

Function = ast.FunctionDef | ast.AsyncFunctionDef


def opened(notebook: Notebook) -> Notebook | None:
    """Put the body of a function without parameters where its only call stands; None where there is no such one."""
    split = Split()
    for cell in notebook.ran:
        split.take(cell)
    functions = {each.node.name: each for each in split.statements if isinstance(each.node, ast.FunctionDef)}
    for statement in reversed(split.statements):
        name = _called(statement.node)
        if name in functions and statement.verbatim and functions[name].verbatim:
            body = _body(functions[name], [each.node for each in split.statements if each is not functions[name]])
            if body:
                return _with(notebook, statement, name, body)
    return None


def _called(node: ast.stmt) -> str:
    """Name the function that a statement calls and nothing else, guarded by a question for `__main__` or not."""
    if isinstance(node, ast.If) and "__name__" in ast.unparse(node.test) and len(node.body) == 1 and not node.orelse:
        node = node.body[0]
    match node:
        case ast.Expr(value=ast.Call(func=ast.Name(id=name), args=[], keywords=[])):
            return str(name)
    return ""


def _body(statement: Statement, others: Sequence[ast.stmt]) -> str:
    """Give the lines of a function's body, empty where they would not do the same outside it."""
    node = statement.node
    if not isinstance(node, ast.FunctionDef) or ast.unparse(node.args) or node.decorator_list:
        return ""
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    body = body[:-1] if body and isinstance(body[-1], ast.Return) else body
    inside = [each for part in body for each in ast.walk(part)]
    if not body or any(isinstance(each, ast.Return | ast.Global | ast.Nonlocal | ast.Yield) for each in inside):
        return ""
    own = {each.id for each in inside if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)}
    if own & {each.id for part in others for each in ast.walk(part) if isinstance(each, ast.Name)} - _local(others):
        return ""
    lines = statement.text.splitlines()[
        body[0].lineno - statement.first : (body[-1].end_lineno or 0) - statement.first + 1
    ]
    return textwrap.dedent("\n".join(lines))


def _local(others: Sequence[ast.stmt]) -> set[str]:
    """Name what only functions use, and each for itself."""
    outside, inside = set[str](), set[str]()
    for part in others:
        names = {each.id for each in ast.walk(part) if isinstance(each, ast.Name)}
        if isinstance(part, Function):
            bound = {each.arg for each in ast.walk(part.args) if isinstance(each, ast.arg)} | {
                each.id for each in ast.walk(part) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)
            }
            inside |= bound
            outside |= names - bound
        else:
            outside |= names
    return inside - outside


def _with(notebook: Notebook, statement: Statement, name: str, body: str) -> Notebook | None:
    """Give the notebook with other lines in place of one statement."""
    lines, own, first = statement.cell.source.splitlines(), statement.text.splitlines(), statement.first - 1
    if lines[first : first + len(own)] != own:
        return None
    lines[first : first + len(own)] = body.splitlines()
    cell = replace(statement.cell, source="\n".join(lines))
    cells = [cell if each is statement.cell else each for each in notebook.cells]
    return Notebook(
        notebook.path, cells, [*notebook.notes, f"{name}() was opened up: its statements are the notebook's."]
    )
