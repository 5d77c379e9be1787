"""Opens what the static pass let through, handing out listed pairs only, and checks what came out."""

import functools
import importlib
import io
import pickle
import sys
import warnings
from collections.abc import Callable
from typing import Any

from ketch.extras import load as extra
from ketch.trust import Fault, Lists, Pair, is_skops, sibling

WRAPPER = ("joblib.numpy_pickle", "NumpyArrayWrapper")
PARTIAL = ("functools", "partial")
LIBRARIES = {"catboost", "lightgbm", "numpy", "pandas", "scipy", "sklearn", "xgboost"}


def load(data: bytes, known: Lists) -> object:
    """Return what the file holds, opened under the gate and checked; the static pass must have let it through.

    Raises:
        Fault: it asks for something off the lists, or what came out is not sound.
    """
    if is_skops(data):
        model: object = sibling("skops").load(data, known)
        return model
    inflate = sibling("inflate")
    body = inflate.inflate(data)
    desk = Desk(known)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # versions are compared by the caller, who has Finding.sklearn_version
        if inflate.packing(data) or WRAPPER[1].encode() in body:
            model = _JoblibUnpickler(body, desk).load()
        else:
            model = _PlainUnpickler(io.BytesIO(body), desk).load()
        sibling("values").check(model, desk.classes, desk.functions)
    return model


def load_approved(data: bytes) -> object:
    """Return what an approved file holds; whatever is in it runs."""
    if is_skops(data):
        approved: object = sibling("skops").load_approved(data)
        return approved
    if not sibling("inflate").packing(data) and WRAPPER[1].encode() not in data:
        return pickle.loads(data)  # noqa: S301 - the user approved exactly these bytes
    return extra("joblib").load(io.BytesIO(data))


def load_found(data: bytes, find: Callable[[str, str], Any]) -> object:
    """Return what an approved file holds, with every name looked up by `find`; whatever is in it runs.

    Raises:
        Fault: it is packed in a way that is not known, or too large.
    """
    inflate = sibling("inflate")
    body, desk = inflate.inflate(data), _Found(find)
    if inflate.packing(data) or WRAPPER[1].encode() in body:
        return _JoblibUnpickler(body, desk).load()
    return _PlainUnpickler(io.BytesIO(body), desk).load()


class _Found:
    """Hands out whatever a function finds."""

    def __init__(self, find: Callable[[str, str], Any]) -> None:
        self._find = find

    def find_class(self, module: str, name: str) -> Any:
        return Wrapped if (module, name) == WRAPPER else self._find(module, name)

    def nested(self, file: io.BytesIO) -> Any:
        return _NestedUnpickler(file, self)


class Desk:
    """Hands out listed pairs only, and remembers which functions and classes it gave."""

    def __init__(self, known: Lists) -> None:
        self.known = known
        self.given: dict[Pair, Any] = {}
        self.functions: set[int] = set()
        self.classes: set[type] = set()

    def find_class(self, module: str, name: str) -> Any:
        """Return what a listed pair names.

        Raises:
            Fault: the pair is on no list.
        """
        pair = self.known.settle(module, name)
        if not self.known.holds(pair):
            raise Fault(f"it wants {module}.{name}")
        if pair not in self.given:
            self.given[pair] = found = STAND_INS.get(pair) or _find(pair, module)
            if pair in self.known.functions:
                self.functions.add(id(found))
            if isinstance(found, type) and pair in self.known.classes:
                self.classes.add(found)
        return self.given[pair]

    def nested(self, file: io.BytesIO) -> Any:
        """Return the unpickler of a stream inside another."""
        return _NestedUnpickler(file, self)


def _find(pair: Pair, module: str) -> Any:
    try:
        return getattr(_module(pair[0]), pair[1])
    except (ImportError, AttributeError):
        if module in {pair[0], "__builtin__", "copy_reg", "_loss"}:
            raise
        return getattr(_module(module), pair[1])


def _module(name: str) -> Any:
    root = name.partition(".")[0]
    if root not in sys.modules and root in LIBRARIES:
        extra(root)
    return importlib.import_module(name)


class _PlainUnpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, desk: Desk | _Found) -> None:
        super().__init__(file, fix_imports=False)
        self._desk = desk

    def find_class(self, module: str, name: str) -> Any:
        return self._desk.find_class(module, name)


# The pure Python unpickler: only there can BUILD be followed by the array that joblib writes behind it,
# and only it is sure to leave the file where the stream ends.
_Python: Any = pickle.__dict__["_Unpickler"]  # in every CPython, missing from typeshed


class _NestedUnpickler(_Python):  # type: ignore[misc]
    def __init__(self, file: io.BytesIO, desk: Desk | _Found) -> None:
        super().__init__(file, fix_imports=False)
        self.file, self.desk = file, desk

    def find_class(self, module: str, name: str) -> Any:
        return self.desk.find_class(module, name)

    def get_extension(self, code: int) -> None:
        raise Fault("it uses the extension registry")


class _JoblibUnpickler(_NestedUnpickler):
    dispatch: dict[int, Callable[..., None]] = dict(_Python.dispatch)  # noqa: RUF012 - the form that pickle wants

    def __init__(self, body: bytes, desk: Desk | _Found) -> None:
        super().__init__(io.BytesIO(body), desk)
        self.body = body

    def load_build(self) -> None:
        _Python.load_build(self)
        if isinstance(self.stack[-1], Wrapped):
            self.stack[-1] = self.stack[-1].read(self.body, self.file, self.desk)

    dispatch[pickle.BUILD[0]] = load_build


class Wrapped:
    """Stands in for joblib's array wrapper: what the array is, read from the bytes behind it."""

    shape: tuple[int, ...]
    order: str
    dtype: Any
    numpy_array_alignment_bytes: int | None = None

    def read(self, body: bytes, file: io.BytesIO, desk: Desk | _Found) -> object:
        """Return the array, and leave the file behind it."""
        if self.dtype.hasobject:
            return desk.nested(file).load()
        numpy = extra("numpy")
        if self.numpy_array_alignment_bytes is not None:
            file.seek(file.read(1)[0], io.SEEK_CUR)
        count = 1
        for side in self.shape:
            count *= side
        start = file.tell()
        file.seek(count * self.dtype.itemsize, io.SEEK_CUR)
        if file.tell() > len(body):
            raise Fault("an array is larger than the file")
        array = numpy.frombuffer(body, self.dtype, count, start if count else 0).copy()
        if not self.dtype.isnative:
            array = array.byteswap().view(array.dtype.newbyteorder("="))
        return array.reshape(self.shape, order=self.order)


def _check_array_partial(function: Any) -> functools.partial[object]:
    """Stand in for functools.partial: make the one partial function that histogram boosting keeps."""
    check_array = _find(("sklearn.utils.validation", "check_array"), "sklearn.utils.validation")
    if function is not check_array:
        raise Fault("it makes a partial function of something else than check_array")
    return functools.partial(function)


STAND_INS: dict[Pair, Any] = {WRAPPER: Wrapped, PARTIAL: _check_array_partial}
