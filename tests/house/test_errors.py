"""Every error stands in the drawn tree, with a code, a status, and a remedy wherever it is raised."""

import ast
import re
from pathlib import Path

import ketch
from ketch import errors
from ketch.errors import KetchError

HOUSE = Path(ketch.__file__).parent


def kinds() -> list[type[KetchError]]:
    return [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, KetchError)]


def test_the_drawn_tree_is_the_tree() -> None:
    drawn = re.findall(r"^( *)(\w+) +(\d{3})  ([\w-]+)", errors.__doc__ or "", re.MULTILINE)
    path: list[str] = []
    found = {}
    for indent, name, status, code in drawn:
        path = [*path[: len(indent) // 2], name]
        found[name] = (path[-2] if len(path) > 1 else "Exception", int(status), code)
    real = {each.__name__: (each.__bases__[0].__name__, each.status, each.code) for each in kinds()}
    assert found == real


def test_codes_are_not_shared() -> None:
    codes = [each.code for each in kinds()]
    assert len(codes) == len(set(codes))


def test_every_error_raised_hands_over_a_remedy() -> None:
    names = {each.__name__ for each in kinds()}
    bare = []
    for path in HOUSE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.func.id not in names:
                continue
            if not any(keyword.arg == "hint" for keyword in node.keywords):
                bare.append(f"{path}:{node.lineno} {node.func.id}")
    assert not bare, "\n".join(bare)
