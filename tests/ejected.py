"""Runs exported projects as somebody without Ketch does: the tests of each, its page, and rows asked of its model.

python ejected.py FOLDER… writes FOLDER/found.json; it is a process of its own, which cannot import Ketch.
"""

import importlib
import json
import os
import runpy
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


class NoKetch:
    """Refuses to find Ketch, which is installed here for those who test it."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.partition(".")[0] == "ketch":
            raise ImportError("An exported project must not need Ketch")


class Streamlit(types.ModuleType):
    """Stands for Streamlit: a person who sends the form as it is, and what they are shown."""

    def __init__(self) -> None:
        super().__init__("streamlit")
        self.shown: list[tuple[str, str]] = []

    @contextmanager
    def form(self, key: str) -> Iterator[None]:
        yield

    def selectbox(self, label: str, options: list[Any], *, index: int, format_func: Any, key: str) -> Any:
        self.shown.append(("label", label))
        assert all(isinstance(format_func(each), str) for each in options)
        return options[index]

    def number_input(self, label: str, *, value: Any, step: Any, key: str) -> Any:
        self.shown.append(("label", label))
        return value

    def text_input(self, label: str, value: str, *, key: str) -> str:
        self.shown.append(("label", label))
        return value

    def form_submit_button(self, label: str) -> bool:
        return True

    def title(self, text: str) -> None:
        self.shown.append(("title", text))

    def text(self, text: str) -> None:
        self.shown.append(("text", text))

    def error(self, text: str) -> None:
        self.shown.append(("error", text))


def visit(folder: Path) -> dict[str, Any]:
    """Run one project, and forget it afterwards."""
    sys.modules["streamlit"] = page = Streamlit()
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    try:
        passed = pytest.main(["-q", "-W", "error", "-p", "no:cacheprovider", str(folder)])
        rows = json.loads((folder.parent / f"{folder.name}.rows.json").read_text("utf-8"))
        answers = importlib.import_module("model").predict(rows)
        found = {"passed": int(passed), "answers": answers}
        runpy.run_path("page.py")
        return {**found, "page": page.shown}
    finally:
        sys.path.remove(str(folder))
        for name, module in list(sys.modules.items()):
            if str(folder) in str(getattr(module, "__file__", "")):
                del sys.modules[name]


def main() -> None:
    sys.meta_path.insert(0, NoKetch())
    sys.path.remove(str(Path(__file__).parent))
    for name in sys.argv[1:]:
        found = visit(Path(name))
        Path(f"{name}.found.json").write_text(json.dumps(found), "utf-8")


if __name__ == "__main__":
    main()
