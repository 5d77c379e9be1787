"""The house has one staircase: a module imports only what stands above it in this list."""

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import ketch

STAIRS = """errors extras settings
            schema codec trust adapters code tokens program lock slicer
            bundle compiler card rescue pack
            store log
            predict batching explain
            watch retrain
            page serve score client ui
            steps image deploy export
            testing demo cli""".split()
HOUSE = Path(ketch.__file__).parent
SIDE_DOORS = {
    "cli": {"script", "terminal", "completion", "image", "deploy"},  # `pack` of a notebook makes a script, `up` deploys
    "serve": set("routes guard lineup metrics desk headers models openinference server supervisor".split()),
    "page": {"words"},
    "image": {"base", "engine", "tar"},  # a proof runs an engine; an archive is made of another
    "deploy": {"amazon", "azure", "google", "images", "registry"}  # what the targets of a vendor share, or all
    | {"awsaccount", "awsbundle", "awsends", "awsenvironments", "awsoptions"}  # and the parts of Elastic Beanstalk
    | {"manifests", "stack"},  # what Kubernetes and compose run, and what they are given
    "ui": {"ask", "charts", "patterns", "remote"},  # a file's rows are told their faults as those of the form are
    "compiler": {"values", "build", "boosters", "trees"},
    "slicer": set(
        "libraries scope effects flow notebook text cut goal fitted measures layout".split()
        + "folder opened run tried prove".split()
    ),
}


def modules() -> list[Path]:
    return sorted(HOUSE.rglob("*.py"))


def place(path: Path) -> tuple[str, ...]:
    parts = path.relative_to(HOUSE).with_suffix("").parts
    if parts == ("__main__",):
        return ("cli",)
    return parts[:-1] if parts[-1] == "__init__" else parts


@functools.cache
def nodes(path: Path) -> list[ast.Assert | ast.Import | ast.ImportFrom]:
    """What matters here of a module, wherever it is written: top, function, TYPE_CHECKING."""
    tree = ast.walk(ast.parse(path.read_text("utf-8")))
    return [node for node in tree if isinstance(node, ast.Assert | ast.Import | ast.ImportFrom)]


@functools.cache
def siblings(folder: Path) -> set[str]:
    """Name the modules and rooms in a room."""
    return {each.stem for each in folder.glob("*.py")} - {"__init__"} | {
        each.parent.name for each in folder.glob("*/__init__.py")
    }


def imported(path: Path) -> Iterator[tuple[int, tuple[str, ...]]]:
    for node in nodes(path):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            head, *tail = name.split(".")
            if head == "ketch":
                yield node.lineno, tuple(tail)


def test_every_module_imports_only_what_stands_above_it() -> None:
    wrong = []
    for path in modules():
        here = place(path)
        if not here:
            continue
        for line, there in imported(path):
            if not there or there[0] not in STAIRS:
                wrong.append(f"{path}:{line} imports the front door")
            elif there[0] != here[0] and STAIRS.index(there[0]) > STAIRS.index(here[0]):
                wrong.append(f"{path}:{line} climbs from {here[0]} to {there[0]}")
    assert not wrong, "\n".join(wrong)


def test_siblings_import_only_the_doorway_of_their_room() -> None:
    wrong = []
    for path in modules():
        here = place(path)
        inside = siblings(path.parent)
        for line, there in imported(path):
            if len(here) >= 1 and len(there) > 1 and there[0] == here[0]:
                sibling = there[1]
                if sibling in inside and sibling not in SIDE_DOORS.get(here[0], set()):
                    wrong.append(f"{path}:{line} reaches over to its sibling {sibling}")
    assert not wrong, "\n".join(wrong)


def test_no_import_hides_from_this_test_and_no_assert_guards_users() -> None:
    wrong = []
    for path in modules():
        for node in nodes(path):
            if isinstance(node, ast.Assert):
                wrong.append(f"{path}:{node.lineno} assert")
            if isinstance(node, ast.ImportFrom) and node.level:
                wrong.append(f"{path}:{node.lineno} relative import")
    assert not wrong, "\n".join(wrong)


def test_every_module_has_a_step_and_no_attic() -> None:
    for path in modules():
        here = place(path)
        if here:
            assert here[0] in STAIRS, f"{path} has no step on the staircase"
        assert not {"utils", "helpers", "manager", "common"} & set(here), path
