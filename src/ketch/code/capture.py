"""Finds the code that a model needs and no package index has: by source where it stands in files, else by value.

Nothing is run to find it: imports are read from the syntax, and modules are looked up where Python would look.
"""

import ast
import importlib.machinery
import importlib.util
import inspect
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from ketch import trust
from ketch.code import PLACE, PYTHON, VALUE, Captured, Part, is_installed, plain, sibling
from ketch.errors import SecretFound, UnsupportedModel

ASCII: Final = re.compile(r"[A-Za-z0-9_/]+\.py", re.ASCII)  # what a bundle's members may be called
NEVER: Final = sys.stdlib_module_names | set(sys.builtin_module_names) | {"ketch", "__main__", "__mp_main__"}
TELLING: Final = re.compile(r"://[^/\s]+@|-----BEGIN|(?=\S*\d)(?=\S*[A-Za-z])\S{16,}")  # texts that may be secrets


def of_files(paths: Sequence[Path], parts: Sequence[Part]) -> Captured:
    """Find the local modules that files of a model need.

    Raises:
        UnsupportedModel, SecretFound: one of them cannot travel.
    """
    trace = Trace([path.resolve().parent for path in paths], live=False)
    for path, (name, form, data) in zip(paths, parts, strict=True):
        if form == PYTHON:
            trace.take_file(path, name, data)
        elif form in {"pickle", "joblib", "skops"}:
            for wanted in trust.examine(data).imports:
                _require_known(wanted, name)
                trace.add_longest(wanted)
    return trace.captured()


def _require_known(wanted: str, name: str) -> None:
    if wanted.startswith("__main__."):
        what = wanted.removeprefix("__main__.")
        raise UnsupportedModel(
            f"{name} needs {what}, which only the script or notebook that wrote it knows",
            hint=f"There, call ketch.pack(model, …), which takes it along; or move {what} to a module and save again.",
        )


def of_object(model: object) -> tuple[Part, Captured]:
    """Write an object, with the code of its user.

    Raises:
        UnsupportedModel, SecretFound: it cannot be written, or some of its code cannot travel.
    """
    form, loose = "pickle", list[ModuleType]()
    try:
        data, seen = sibling("value").write(model)
        loose = _without_source(seen.modules)
    except Exception:  # whatever pickle raises: some of its code cannot be imported
        form = VALUE
    if form == VALUE or loose or "__main__" in seen.modules:
        form, (data, seen) = VALUE, _by_value(model, loose)
    trace = Trace([Path.cwd()], live=True)
    for module in sorted(seen.modules):
        trace.add(module)
    captured = trace.captured(_texts(seen) if form == VALUE else {})
    return ("model.pkl", form, data), captured


def _by_value(model: object, modules: Sequence[ModuleType]) -> Any:
    try:
        return sibling("value").write_by_value(model, modules)
    except UnsupportedModel:
        raise
    except Exception as error:
        reason = plain((str(error).splitlines() or [type(error).__name__])[0][:200])
        raise UnsupportedModel(
            f"The model cannot be saved: {reason}",
            hint="Leave open files, locks and connections out of what it holds, or open them when it is asked.",
        ) from None


def _without_source(modules: Iterable[str]) -> list[ModuleType]:
    """List the modules that no file of source stands behind, such as those that a notebook made."""
    found = []
    for name in sorted(modules):
        module = sys.modules.get(name)
        if name.partition(".")[0] in NEVER or module is None or sibling("private").OWN.match(name + "."):
            continue
        if all(getattr(module, word, None) is None for word in ("__file__", "__path__", "__spec__")):
            found.append(module)
    return found


class Trace:
    """Follows imports from module to module, and keeps the sources of the local ones."""

    def __init__(self, folders: Sequence[Path], *, live: bool) -> None:
        self.folders = list(dict.fromkeys([*map(str, folders), str(Path.cwd()), *(each or "." for each in sys.path)]))
        self.live = live
        self.files: dict[str, bytes] = {}
        self.places: dict[str, str] = {}
        self.libraries: set[str] = set()
        self.beside: dict[str, None] = {}
        self.done: dict[str, bool] = {}

    def captured(self, texts: Mapping[str, str] | None = None) -> Captured:
        """Give what was found, searched for secrets together with `texts` that travel by value.

        Raises:
            SecretFound: there is one.
        """
        sources = {self.places[member]: _decoded(data) for member, data in self.files.items()} | dict(texts or {})
        for name, line, kind in sibling("secrets").search(sources) if sources else ():
            raise SecretFound(
                f"{name}:{line} holds what looks like a secret ({kind}); code travels with the model",
                hint="Read it from the environment when it is needed. If it is none, end its line with "
                "# pragma: allowlist secret",
            )
        return Captured(dict(sorted(self.files.items())), frozenset(self.libraries), tuple(self.beside))

    def take_file(self, path: Path, name: str, data: bytes) -> None:
        """Take a Python file that was given itself.

        Raises:
            UnsupportedModel: it is not Python, or its name cannot be that of a module.
        """
        stem = name.removesuffix(".py")
        if not stem.isidentifier() or stem in NEVER:
            raise UnsupportedModel(
                f"{name} cannot be imported under this name", hint="Rename it: small letters and _, such as model.py."
            )
        self.done[stem] = True
        self._keep(stem, path, data, whole=False)

    def add_longest(self, wanted: str) -> None:
        """Take the module of a dotted name whose last parts may be classes."""
        words = wanted.split(".")[:-1]
        while words and not (self.add(".".join(words)) or len(words) == 1):
            words.pop()

    def add(self, name: str) -> bool:
        """Take a module if it is local, with its packages and what they import; say whether it is local."""
        if found := sibling("private").OWN.match(name):
            self._again(found[0].rstrip("."))
            return True
        if name in self.done:
            return self.done[name]
        parent = name.rpartition(".")[0]
        if parent and not self.add(parent):
            self.done[name] = False
            return False
        spec = self._spec(name, parent)
        self.done[name] = local = spec is not None and _is_local(name, spec)
        if spec is None or not local:
            if spec is not None and not parent and name not in NEVER:
                self.libraries.add(name)
            return False
        self._take(name, spec)
        return True

    def _spec(self, name: str, parent: str) -> ModuleSpec | None:
        root = name.partition(".")[0]
        module = sys.modules.get(name) if self.live else None
        known = getattr(module, "__spec__", None)
        if root in NEVER:
            _require_other_name(module, name)
            return None
        if isinstance(known, ModuleSpec):
            return known
        if parent:
            places = [str(Path(folder, *parent.split("."))) for folder in self.folders]
            return PathFinder.find_spec(name, [each for each in places if Path(each).is_dir()])
        found = PathFinder.find_spec(name, self.folders)
        if found is None:
            try:
                found = importlib.util.find_spec(name)  # an editable install has a finder of its own
            except (ImportError, ValueError):
                return None
        return found

    def _take(self, name: str, spec: ModuleSpec) -> None:
        origin = spec.origin
        if spec.submodule_search_locations is not None and (origin is None or not Path(origin).is_file()):
            self.folders += [str(Path(each).parents[name.count(".")]) for each in spec.submodule_search_locations]
            return
        path = Path(str(origin))
        if path.suffix != ".py":
            raise UnsupportedModel(
                f"{name} is compiled ({path.name}): only Python source travels in a bundle",
                hint=f"Install it as a package where the model is served, or give {name} as a .py file.",
            )
        try:
            data = path.read_bytes()
        except OSError as error:
            raise UnsupportedModel(
                f"{name} cannot be read from {path.name}: {error.strerror}", hint="Give it as a .py file."
            ) from None
        self._keep(name, path, data, whole=spec.submodule_search_locations is not None)

    def _keep(self, name: str, path: Path, data: bytes, *, whole: bool) -> None:
        member = name.replace(".", "/") + ("/__init__.py" if whole else ".py")
        if not ASCII.fullmatch(member):
            raise UnsupportedModel(
                f"The module {name} has letters that a bundle's files cannot be named with",
                hint="Rename it: letters from a to z, digits and _.",
            )
        tree = _parsed(data, path)
        self._put(PLACE + member, data, _shown(path))
        root = str(path.resolve().parents[member.count("/")])
        if root not in self.folders:
            self.folders.insert(0, root)
        self._note_data(tree, path.parent)
        for wanted in _imports(tree, name if whole else name.rpartition(".")[0]):
            self.add(wanted)

    def _put(self, member: str, data: bytes, place: str) -> None:
        if self.files.setdefault(member, data) != data:
            raise UnsupportedModel(
                f"Two different files are both called {member.removeprefix(PLACE)}",
                hint="Rename one of them, load its model again, and pack again.",
            )
        self.places[member] = place

    def _again(self, package: str) -> None:
        """Take the code of a bundle that was opened in this process: its model is being packed again."""
        sources = sibling("private").NAMESPACES[package].sources
        names = {path: path.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for path in sources}
        fresh = [path for path in sources if PLACE + path not in self.files]
        self.done |= dict.fromkeys(names.values(), True)
        for path, data in sources.items():
            self._put(PLACE + path, data, path)
        for path in fresh:
            package = names[path] if path.endswith("__init__.py") else names[path].rpartition(".")[0]
            for wanted in _imports(ast.parse(sources[path]), package):
                self.add(wanted)

    def _note_data(self, tree: ast.AST, folder: Path) -> None:
        """Note files that the code names, and that do not travel."""
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and _names_file(node.value, folder):
                self.beside[node.value] = None


def _names_file(text: str, folder: Path) -> bool:
    if not 2 < len(text) < 200 or "." not in text or not text.isprintable() or text.endswith(".py"):
        return False
    try:
        return (folder / text).is_file() or Path(text).is_file()
    except (OSError, ValueError):
        return False


def _require_other_name(module: ModuleType | None, name: str) -> None:
    place = getattr(module, "__file__", None)
    if name in {"ketch", "__main__", "__mp_main__"} or name.startswith("ketch.") or not place:
        return
    if not is_installed(Path(place).resolve()):
        raise UnsupportedModel(
            f"{Path(place).name} has the name of a module of Python itself, and cannot travel under it",
            hint="Rename the file, import it under its new name, and pack again.",
        )


def _is_local(name: str, spec: ModuleSpec) -> bool:
    if name.partition(".")[0] in NEVER or spec.origin in {"built-in", "frozen"}:
        return False
    places = [spec.origin] if spec.has_location and spec.origin else list(spec.submodule_search_locations or ())
    return bool(places) and not any(is_installed(Path(place).resolve()) for place in places)


def _parsed(data: bytes, path: Path) -> ast.Module:
    try:
        return ast.parse(data)
    except (SyntaxError, ValueError) as error:
        line = f":{error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        reason = error.msg if isinstance(error, SyntaxError) else str(error)
        raise UnsupportedModel(
            f"{_shown(path)}{line} is not Python: {reason}", hint="Mend that line, then pack again."
        ) from None


def _shown(path: Path) -> str:
    """Name a file as a person would: from the current folder where it stands below."""
    whole = path.resolve()
    return str(whole.relative_to(Path.cwd())) if whole.is_relative_to(Path.cwd()) else whole.name


def _imports(tree: ast.AST, package: str) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            if base:
                yield base
                yield from (f"{base}.{alias.name}" for alias in node.names if alias.name != "*")


def _decoded(data: bytes) -> str:
    try:
        return importlib.util.decode_source(data)
    except (SyntaxError, UnicodeDecodeError):
        return data.decode("utf-8", "replace")


def _texts(seen: Any) -> dict[str, str]:
    """Give the texts that travel by value, under the names that a person knows them by."""
    found: dict[str, str] = {}
    for each in [*seen.functions, *seen.classes]:
        try:
            lines, start = inspect.getsourcelines(each)
        except (OSError, TypeError):  # typed at a prompt
            continue
        place = inspect.getsourcefile(each) or "notebook"
        found[place] = _merged(found.get(place, ""), lines, start)
    texts = {_known_as(place, number): text for number, (place, text) in enumerate(found.items(), 1)}
    telling = [text for text in seen.texts if TELLING.search(text)]
    texts |= {f"the value of {key}": f"{key} = {json.dumps(value)}" for key, value in seen.settings.items()}
    return texts | {f"text {number} in the model": json.dumps(text) for number, text in enumerate(telling, 1)}


def _known_as(place: str, number: int) -> str:
    return f"a cell of the notebook ({number})" if "ipykernel" in place or place.startswith("<") else Path(place).name


def _merged(text: str, lines: Sequence[str], start: int) -> str:
    rows = text.splitlines()
    rows += [""] * (start - 1 + len(lines) - len(rows))
    rows[max(start - 1, 0) : max(start - 1, 0) + len(lines)] = [line.rstrip("\n") for line in lines]
    return "\n".join(rows)
