"""Writes an object with the code that only its script or notebook knows, and notes what the rest comes from.

cloudpickle decides what travels by value and how; here its result is made the same in every process: sets are written
in order, files and processes are not named, and classes get no random mark.
"""

import dis
import functools
import io
import os
import pickle
import types
from collections import ChainMap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from ketch import extras

ORDERED: Final = (str, bytes, int, float, bool, type(None))
PLACES: Final = ("__file__", "__path__")  # of the script: they name folders of the machine that packs
SKELETONS: Final = {"_make_skeleton_class": 4, "_make_skeleton_enum": 5}  # where their random mark stands

_which: Any = pickle.__dict__["whichmodule"]
# The pure Python pickler: only there can the order of a set be chosen.
_Python: Any = pickle.__dict__["_Pickler"]  # in every CPython, missing from typeshed


@dataclass
class Seen:
    """What was met while writing: modules by name, code and texts that travel by value, names of global texts."""

    modules: set[str] = field(default_factory=set)
    functions: list[Any] = field(default_factory=list)
    classes: list[type] = field(default_factory=list)
    settings: dict[str, str] = field(default_factory=dict)
    texts: dict[str, None] = field(default_factory=dict)


class Pickler(_Python):  # type: ignore[misc]
    """Writes a pickle whose bytes do not depend on the process, where every name can be imported."""

    dispatch = dict(_Python.dispatch)  # noqa: RUF012 - the form that pickle wants

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=5)
        self.seen = Seen()

    def save_global(self, obj: Any, name: str | None = None) -> None:
        """Write the name of something, and note where it is from."""
        self.seen.modules.add(getattr(obj, "__module__", None) or _which(obj, name or obj.__qualname__))
        super().save_global(obj, name)

    def save_type(self, obj: type) -> None:
        """Write a class by its name."""
        if obj in {type(None), type(NotImplemented), type(...)}:
            super().save_type(obj)
        else:
            self.save_global(obj)

    def save_set(self, obj: set[object]) -> None:
        """Write a set in order."""
        self.write(pickle.EMPTY_SET)
        self.memoize(obj)
        self.write(pickle.MARK)
        for item in in_order(obj):
            self.save(item)
        self.write(pickle.ADDITEMS)

    def save_frozenset(self, obj: frozenset[object]) -> None:
        """Write a frozen set in order."""
        if not all(isinstance(item, ORDERED) for item in obj):  # it may hold itself
            super().save_frozenset(obj)
            return
        self.write(pickle.MARK)
        for item in in_order(obj):
            self.save(item)
        self.write(pickle.FROZENSET)
        self.memoize(obj)

    def save_picklebuffer(self, obj: pickle.PickleBuffer) -> None:
        """Write a buffer, also where pickle's own trips over a second empty one."""
        with obj.raw() as view:
            if view.readonly:
                self.save(view.tobytes())
            else:
                self.save_bytearray(bytearray(view))

    dispatch[pickle.PickleBuffer] = save_picklebuffer
    dispatch[set] = save_set
    dispatch[frozenset] = save_frozenset
    dispatch[type] = save_type
    dispatch[types.FunctionType] = save_global


def in_order(items: Iterable[object]) -> list[object]:
    """List a set in an order that its items alone decide, where they can."""
    listed = list(items)
    if all(isinstance(item, ORDERED) for item in listed):
        listed.sort(key=lambda item: (type(item).__name__, item if isinstance(item, str | bytes) else repr(item)))
    return listed


def write(model: object) -> tuple[bytes, Seen]:
    """Write an object whose code can all be imported.

    Raises:
        Exception: whatever pickle raises where that is not so.
    """
    return _written(Pickler, model)


def write_by_value(model: object, modules: Iterable[types.ModuleType] = ()) -> tuple[bytes, Seen]:
    """Write an object with the code that cannot be imported, and that of `modules`, inside it.

    Raises:
        Exception: whatever pickle or cloudpickle raises where it cannot be written at all.
    """
    library = extras.load("cloudpickle")
    registered = [module for module in modules if module.__name__ not in library.list_registry_pickle_by_value()]
    for module in registered:
        library.register_pickle_by_value(module)
    try:
        return _written(_by_value(), model)
    finally:
        for module in registered:
            library.unregister_pickle_by_value(module)


def _written(kind: type[Pickler], model: object) -> tuple[bytes, Seen]:
    file = io.BytesIO()
    pickler = kind(file)
    pickler.dump(model)
    return file.getvalue(), pickler.seen


@functools.cache
def _by_value() -> type[Pickler]:  # noqa: C901 (a class that needs an optional library)
    cloud: Any = extras.load("cloudpickle.cloudpickle")

    class ByValue(Pickler):
        """Does what cloudpickle's pickler does, in Python."""

        dispatch = {**Pickler.dispatch}  # noqa: RUF012
        _dynamic_function_reduce = cloud.Pickler._dynamic_function_reduce
        _function_reduce = cloud.Pickler._function_reduce

        def __init__(self, file: io.BytesIO) -> None:
            super().__init__(file)
            self.globals_ref: dict[int, dict[str, object]] = {}
            self.dispatch_table = ChainMap(
                {types.CodeType: self.reduce_code, types.ModuleType: self.reduce_module}, cloud.Pickler.dispatch_table
            )

        def _function_getnewargs(self, function: types.FunctionType) -> Any:
            self.seen.functions.append(function)
            found = cloud.Pickler._function_getnewargs(self, function)
            for word in PLACES:
                found[1].pop(word, None)
            for name in cloud._extract_code_globals(function.__code__):
                if isinstance(value := function.__globals__.get(name), str):
                    self.seen.settings[name] = value
            return found

        def reducer_override(self, obj: Any) -> Any:
            found = cloud.Pickler.reducer_override(self, obj)
            if isinstance(found, tuple) and (place := SKELETONS.get(getattr(found[0], "__name__", ""))):
                self.seen.classes.append(obj)
                return (found[0], (*found[1][:place], None, *found[1][place + 1 :]), *found[2:])
            return found

        def reduce_code(self, code: types.CodeType) -> Any:
            self.seen.modules |= set(imports(code))
            return cloud._code_reduce(code.replace(co_filename=_name_of(code)))

        def reduce_module(self, module: types.ModuleType) -> Any:
            found = cloud._module_reduce(module)
            if found[0] is cloud.subimport:
                self.seen.modules.add(module.__name__)
            return found

        def save_str(self, obj: str) -> None:
            self.seen.texts[obj] = None
            super().save_str(obj)

        dispatch[str] = save_str

    return ByValue


def _name_of(code: types.CodeType) -> str:
    """Name the file of some code, but neither its folder nor the process and count of the cell that it was."""
    name = code.co_filename
    return "notebook" if "ipykernel" in name or name.startswith("<") else os.path.basename(name)  # noqa: PTH119


def imports(code: types.CodeType) -> Iterator[str]:
    """Name the modules that `import` statements in some code name, its inner functions included."""
    lines = list(dis.get_instructions(code))
    for place, line in enumerate(lines):
        if line.opname == "IMPORT_NAME":
            yield str(line.argval)
            names = lines[place - 1].argval
            yield from (f"{line.argval}.{name}" for name in names or () if isinstance(name, str))
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from imports(constant)
