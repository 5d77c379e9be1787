"""The script that trained the model, without what hands it to Ketch.

training/train.py --*without_ketch*--> train.py
"""

import ast
import re
from typing import Final

from ketch.bundle import Bundle
from ketch.export import OWN_MARK

SCRIPT: Final = "training/train.py"
REQUIREMENTS: Final = "training/requirements.txt"
PIN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9.!+_-]+", re.ASCII)


def files(opened: Bundle) -> dict[str, bytes]:
    """Give the training script of a bundle and what it needs; nothing where it has none, or none without Ketch."""
    script = without_ketch(opened.files.get(SCRIPT, b""))
    if not script:
        return {}
    lines = opened.files.get(REQUIREMENTS, b"").decode(errors="replace").splitlines()
    pins = [pin for line in lines if PIN.fullmatch(pin := line.partition(" ")[0])]
    needed = {"requirements-train.txt": (OWN_MARK + "\n".join(pins) + "\n").encode()} if pins else {}
    return {"train.py": script, **needed}


def without_ketch(script: bytes) -> bytes:
    """Take the import of Ketch out of a script and the calls that pack; give nothing where something of it is left."""
    try:
        text = script.decode()
        gone = {line for node in ast.walk(ast.parse(text)) if _is_of_ketch(node) for line in _lines(node)}
        kept = "".join(
            line for number, line in enumerate(text.splitlines(keepends=True), start=1) if number not in gone
        )
        left = any(_names_ketch(node) for node in ast.walk(ast.parse(kept)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return b""
    return b"" if left else kept.encode()


def _lines(node: ast.AST) -> range:
    first: int = getattr(node, "lineno", 0)
    return range(first, (getattr(node, "end_lineno", None) or first) + 1)


def _is_of_ketch(node: ast.AST) -> bool:
    """Say whether a statement does nothing but import Ketch, or call it."""
    if isinstance(node, ast.Import):
        return all(each.name == "ketch" and each.asname is None for each in node.names)
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        return ast.unparse(node.value.func).startswith("ketch.")
    return False


def _names_ketch(node: ast.AST) -> bool:
    if isinstance(node, ast.Import):
        return any(each.name.partition(".")[0] == "ketch" for each in node.names)
    if isinstance(node, ast.ImportFrom):
        return (node.module or "").partition(".")[0] == "ketch"
    return isinstance(node, ast.Name) and node.id == "ketch"
