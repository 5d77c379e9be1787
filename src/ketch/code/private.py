"""A namespace of its own for each bundle's code: found by nobody else, shadowing nothing, shadowed by nothing.

A captured `features.py` is loaded as `_ketch_<digest>.features`. Its `import` statements look into its bundle first;
so do functions that a pickle holds by value. What a bundle does not hold is imported as everywhere.
"""

import builtins
import importlib
import re
import sys
import threading
import types
from collections.abc import Callable, Mapping, Sequence
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import decode_source, resolve_name, spec_from_loader
from pathlib import PurePosixPath
from typing import Any, Final

from ketch import extras, trust
from ketch.code import PLACE, PYTHON, VALUE, Part
from ketch.errors import NotAModel, UnsupportedModel

PREFIX: Final = "_ketch_"
OWN: Final = re.compile(PREFIX + r"[0-9a-f]{32}\.")
PYTHON_2: Final = {"__builtin__": "builtins", "copy_reg": "copyreg"}  # what protocol 2 still writes


class Namespace:
    """The modules of one bundle, under a package that no other code names."""

    def __init__(self, package: str, files: Mapping[str, bytes]) -> None:
        self.package = package
        self.sources = {member.removeprefix(PLACE): data for member, data in files.items()}
        self.roots = {path.partition("/")[0].removesuffix(".py") for path in self.sources}
        self.builtins = {**vars(builtins), "__import__": self.import_}

    def path_of(self, module: str) -> str | None:
        """Give the path of a module's source, empty for a folder without one, None where there is no such module."""
        stem = module.replace(".", "/")
        for path in (f"{stem}/__init__.py", f"{stem}.py"):
            if path in self.sources:
                return path
        return "" if any(path.startswith(f"{stem}/") for path in self.sources) else None

    def import_(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,  # noqa: A002 (the words of `__import__`)
        locals: Mapping[str, Any] | None = None,  # noqa: A002
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> Any:
        """Import as the statement does, from this bundle first."""
        package = str((globals or {}).get("__package__") or "")
        if level and package.partition(".")[0] in self.roots:  # a function by value, of a module run as a script
            name, level = resolve_name("." * level + name, package), 0
        root = name.partition(".")[0]
        if level or root not in self.roots:
            return builtins.__import__(name, globals, locals, fromlist or (), level)
        found = builtins.__import__(f"{self.package}.{name}", None, None, fromlist or ("__name__",))
        return found if fromlist else sys.modules[f"{self.package}.{root}"]

    def module(self, name: str) -> types.ModuleType:
        """Import a module by its whole name, from this bundle first."""
        name = OWN.sub("", name)
        return importlib.import_module(f"{self.package}.{name}" if name.partition(".")[0] in self.roots else name)

    def make_function(self, code: types.CodeType, scope: dict[str, Any], *rest: Any) -> types.FunctionType:
        """Make a function whose imports look into this bundle first, as cloudpickle's `_make_function`."""
        scope["__builtins__"] = self.builtins
        return types.FunctionType(code, scope, *rest)


NAMESPACES: Final[dict[str, Namespace]] = {}
_lock: Final = threading.Lock()


class _Finder(MetaPathFinder):
    """Finds the modules of every namespace, and no others."""

    def find_spec(self, fullname: str, path: object, target: object = None) -> ModuleSpec | None:
        package, _, name = fullname.partition(".")
        space = NAMESPACES.get(package)
        if space is None:
            return None
        found = space.path_of(name) if name else ""
        if found is None:
            return None
        whole = found == "" or PurePosixPath(found).name == "__init__.py"
        origin = f"{package}/{PLACE}{found}"
        spec = spec_from_loader(fullname, _Loader(space, found, origin), origin=origin, is_package=whole)
        if spec is not None:
            spec.has_location = bool(found)
        return spec


class _Loader(InspectLoader):
    """Makes one module from its captured source."""

    def __init__(self, space: Namespace, path: str, origin: str) -> None:
        self.space, self.path, self.origin = space, path, origin

    def is_package(self, fullname: str) -> bool:
        return not self.path or PurePosixPath(self.path).name == "__init__.py"

    def get_source(self, fullname: str) -> str:
        return decode_source(self.space.sources[self.path]) if self.path else ""

    def exec_module(self, module: types.ModuleType) -> None:
        module.__dict__["__builtins__"] = self.space.builtins
        if self.path:
            code = compile(self.space.sources[self.path], self.origin, "exec", dont_inherit=True)
            exec(code, module.__dict__)  # noqa: S102 (the user approved exactly these bytes)


def namespace(sha256: str, files: Mapping[str, bytes]) -> Namespace:
    """Give the namespace of the originals and code with this SHA-256; the same one to all who ask."""
    package = PREFIX + sha256[:32]
    with _lock:
        if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
            sys.meta_path.insert(0, _Finder())
        if package not in NAMESPACES:
            NAMESPACES[package] = Namespace(package, files)
        return NAMESPACES[package]


def load(space: Namespace, part: Part) -> object:
    """Open one original; whatever is in it runs.

    Raises:
        NotAModel: a Python file has no `predict`.
        UnsupportedModel: it is a skops file, which cannot be told where its classes are.
    """
    name, form, data = part
    if form == PYTHON:
        if space.sources.get(name) != data:  # an approval covers the bytes, and a name could mean any module
            raise UnsupportedModel(f"{name} is not the file of the model that came with it", hint="Pack it again.")
        return _predict_of(space.module(name.removesuffix(".py")), name)
    if trust.is_skops(data):
        raise UnsupportedModel(
            f"{name} is a skops file that needs code of your own", hint="Save the model with pickle, and pack that."
        )
    value = extras.load("cloudpickle") if form == VALUE else None
    return trust.sibling("unpickle").load_found(data, _Desk(space, value).find)


class _Desk:
    """Hands out what a pickle names, from its bundle first."""

    def __init__(self, space: Namespace, value: types.ModuleType | None) -> None:
        self.space = space
        self.replaced: dict[str, Any] = {}
        if value is not None:
            self.replaced = {
                "_make_function": space.make_function,
                "_function_setstate": self._setter(value.cloudpickle._function_setstate),
                "subimport": space.module,
            }

    def _setter(self, inner: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
        def set_state(function: Any, state: Any) -> None:
            inner(function, state)
            function.__globals__["__builtins__"] = self.space.builtins  # for functions that it makes when it runs

        return set_state

    def find(self, module: str, name: str) -> Any:
        """Return what a pair of module and name stands for."""
        if module == "cloudpickle.cloudpickle" and name in self.replaced:
            return self.replaced[name]
        found: Any = self.space.module(PYTHON_2.get(module, module))
        for word in name.split("."):
            found = getattr(found, word)
        return found


def _predict_of(module: types.ModuleType, name: str) -> object:
    found = vars(module).get("predict")
    if not isinstance(found, types.FunctionType):
        raise NotAModel(
            f"{name} has no function predict",
            hint="Write def predict(rows): it takes a list of dicts and returns a list of answers.",
        )
    for word in ("classes", "fields", "task"):
        if word in vars(module) and not hasattr(found, word):
            setattr(found, word, vars(module)[word])
    return found
