"""Hostile files by the hundred, generated in families; whichever is executed touches a canary."""

import io
import itertools
import json
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ketch.bundle import identity
from tests import test_trust
from tests.test_trust import joblib

Bad = Iterator[tuple[str, bytes]]

# ---- what harm is asked for: module, name, arguments; CANARY is a file that must never be there -------

CANARY = "/CANARY/"
TOUCH = f"touch {CANARY}x"
WRITE = f"open({CANARY + 'x'!r}, 'w').close()"
GADGETS: list[tuple[str, str, tuple[Any, ...]]] = [
    ("os", "system", (TOUCH,)),
    ("posix", "system", (TOUCH,)),
    ("nt", "system", (TOUCH,)),
    ("os", "popen", (TOUCH,)),
    ("os", "mkdir", (CANARY + "x",)),
    ("os", "open", (CANARY + "x", 65)),
    ("os", "rename", (CANARY, CANARY + "y")),
    ("os", "rmdir", (CANARY,)),
    ("os", "symlink", ("x", CANARY + "x")),
    ("os", "execvp", ("touch", ["touch", CANARY + "x"])),
    ("os", "spawnlp", (0, "touch", "touch", CANARY + "x")),
    ("os", "posix_spawn", ("/usr/bin/touch", ["touch", CANARY + "x"], {})),
    ("os", "_exit", (0,)),
    ("os", "abort", ()),
    ("os", "kill", (0, 9)),
    ("os", "putenv", ("A", "b")),
    ("sys", "exit", (0,)),
    ("subprocess", "Popen", (["touch", CANARY + "x"],)),
    ("subprocess", "run", (["touch", CANARY + "x"],)),
    ("subprocess", "call", (["touch", CANARY + "x"],)),
    ("subprocess", "check_output", (["touch", CANARY + "x"],)),
    ("subprocess", "getoutput", (TOUCH,)),
    ("builtins", "eval", (WRITE,)),
    ("builtins", "exec", (WRITE,)),
    ("__builtin__", "eval", (WRITE,)),
    ("__builtin__", "execfile", (CANARY,)),
    ("builtins", "compile", (WRITE, "x", "exec")),
    ("builtins", "__import__", ("antigravity",)),
    ("builtins", "open", (CANARY + "x", "w")),
    ("io", "open", (CANARY + "x", "w")),
    ("_io", "FileIO", (CANARY + "x", "w")),
    ("pathlib", "PosixPath.touch", (CANARY + "x",)),
    ("importlib", "import_module", ("antigravity",)),
    ("importlib._bootstrap", "_load", ("x",)),
    ("importlib.machinery", "SourceFileLoader", ("x", CANARY)),
    ("runpy", "run_path", (CANARY,)),
    ("runpy", "_run_code", (WRITE, {})),
    ("code", "interact", ()),
    ("timeit", "timeit", (WRITE,)),
    ("timeit", "main", ([WRITE],)),
    ("cProfile", "run", (WRITE,)),
    ("profile", "run", (WRITE,)),
    ("pdb", "run", (WRITE,)),
    ("bdb", "Bdb.run", (WRITE,)),
    ("trace", "Trace.run", (WRITE,)),
    ("doctest", "debug_script", (WRITE,)),
    ("pydoc", "pipepager", ("x", TOUCH)),
    ("pty", "spawn", (["touch", CANARY + "x"],)),
    ("webbrowser", "open", ("file://" + CANARY,)),
    ("platform", "popen", (TOUCH,)),
    ("commands", "getoutput", (TOUCH,)),
    ("multiprocessing.util", "spawnv_passfds", (b"/usr/bin/touch", [b"touch", CANARY.encode()], [])),
    ("asyncio", "run", (1,)),
    ("ensurepip", "_run_pip", (["install", "x"],)),
    ("pip", "main", (["install", "x"],)),
    ("site", "addsitedir", (CANARY,)),
    ("zipimport", "zipimporter", (CANARY,)),
    ("ctypes", "CDLL", ("libc.so.6",)),
    ("ctypes", "string_at", (0,)),
    ("_ctypes", "dlopen", ("libc.so.6", 2)),
    ("faulthandler", "_sigsegv", ()),
    ("types", "FunctionType", (1, {})),
    ("types", "CodeType", (0,)),
    ("marshal", "loads", (b"N",)),
    ("pickle", "loads", (b"cos\nsystem\n(S'true'\ntR.",)),
    ("_pickle", "loads", (b"N.",)),
    ("pickle", "Unpickler", (1,)),
    ("shelve", "open", (CANARY + "x",)),
    ("dbm", "open", (CANARY + "x", "c")),
    ("sqlite3", "connect", (CANARY + "x",)),
    ("logging", "FileHandler", (CANARY + "x",)),
    ("logging.config", "_resolve", ("os.system",)),
    ("shutil", "copyfile", ("/etc/hostname", CANARY + "x")),
    ("shutil", "rmtree", (CANARY,)),
    ("tempfile", "mkdtemp", ("x", "y", CANARY)),
    ("socket", "create_connection", (("127.0.0.1", 9),)),
    ("urllib.request", "urlopen", ("http://127.0.0.1:9/",)),
    ("http.client", "HTTPConnection", ("127.0.0.1", 9)),
    ("ftplib", "FTP", ("127.0.0.1",)),
    ("smtplib", "SMTP", ("127.0.0.1", 9)),
    ("xmlrpc.client", "ServerProxy", ("http://127.0.0.1:9/",)),
    ("signal", "raise_signal", (9,)),
    ("threading", "Thread", ()),
    ("_thread", "start_new_thread", (1, ())),
    ("builtins", "getattr", ("a", "upper")),
    ("builtins", "setattr", ("a", "b", 1)),
    ("builtins", "delattr", ("a", "b")),
    ("builtins", "map", (1, 2)),
    ("builtins", "filter", (1, 2)),
    ("builtins", "type", ("A", (), {})),
    ("builtins", "globals", ()),
    ("builtins", "vars", ()),
    ("builtins", "input", ()),
    ("builtins", "breakpoint", ()),
    ("builtins", "print", ("x",)),
    ("builtins", "memoryview", (b"x",)),
    ("operator", "attrgetter", ("system",)),
    ("operator", "methodcaller", ("system", TOUCH)),
    ("operator", "call", (1,)),
    ("functools", "reduce", (1, [2])),
    ("functools", "partial", (1,)),
    ("functools", "partialmethod", (1,)),
    ("itertools", "starmap", (1, [2])),
    ("copyreg", "__newobj__", (1,)),
    ("copyreg", "add_extension", ("os", "system", 1)),
    ("weakref", "finalize", (1, 2)),
    ("atexit", "register", (1,)),
    ("codecs", "open", (CANARY + "x", "w")),
    ("numpy", "load", (CANARY + "x",)),
    ("numpy", "save", (CANARY + "x", 1)),
    ("numpy", "savetxt", (CANARY + "x", [1])),
    ("numpy", "fromfile", (CANARY + "x",)),
    ("numpy", "memmap", (CANARY + "x", "u1", "w+", 0, (3,))),
    ("numpy", "genfromtxt", ("http://127.0.0.1:9/",)),
    ("numpy", "vectorize", (1,)),
    ("numpy", "apply_along_axis", (1, 0, [1])),
    ("numpy.testing._private.utils", "runstring", (WRITE, {})),
    ("numpy.f2py.crackfortran", "myeval", (WRITE,)),
    ("numpy.lib._npyio_impl", "load", (CANARY,)),
    ("numpy.distutils.exec_command", "exec_command", (TOUCH,)),
    ("joblib", "load", (CANARY,)),
    ("joblib", "dump", (1, CANARY + "x")),
    ("joblib", "Memory", (CANARY + "x",)),
    ("joblib.memory", "MemorizedFunc", (1, CANARY + "x")),
    ("joblib.externals.loky.backend.popen_loky_posix", "Popen", (1,)),
    ("joblib.externals.cloudpickle.cloudpickle", "_make_function", (1,)),
    ("cloudpickle.cloudpickle", "_make_skel_func", (1,)),
    ("dill._dill", "_create_function", (1,)),
    ("dill", "loads", (b"N.",)),
    ("pandas", "read_pickle", (CANARY,)),
    ("pandas", "eval", ("@__import__('os')",)),
    ("pandas.core.computation.eval", "eval", ("1",)),
    ("pandas.io.common", "get_handle", (CANARY + "x", "w")),
    ("sklearn.datasets", "fetch_openml", ("x",)),
    ("sklearn.datasets._base", "load_files", (CANARY,)),
    ("sklearn.datasets._svmlight_format_io", "load_svmlight_file", (CANARY,)),
    ("sklearn.utils._testing", "assert_run_python_script_without_output", (WRITE,)),
    ("scipy.io", "loadmat", (CANARY,)),
    ("scipy.stats._distn_infrastructure", "rv_frozen", ()),
    ("skops.io", "load", (CANARY,)),
    ("xgboost.core", "Booster", ({}, (), CANARY)),
    ("torch", "load", (CANARY,)),
    ("torch.storage", "_load_from_bytes", (b"N.",)),
    ("tensorflow.python.keras", "load_model", (CANARY,)),
    ("onnxruntime", "InferenceSession", (CANARY,)),
    ("flask", "send_file", (CANARY,)),
    ("jinja2", "Template", ("{{ 1 }}",)),
    ("yaml", "unsafe_load", (WRITE,)),
    ("ketch.bundle", "save", (b"x", CANARY + "x")),
    ("ketch.trust.unpickle", "load_approved", (b"N.",)),
    ("ketch.trust", "approve", (b"N.",)),
    ("ketch.trust.keyring", "trust_key", (b"N.",)),
    ("ketch.predict", "load", (CANARY,)),
    ("__main__", "opened", (CANARY,)),
    ("sklearn.pipeline", "joblib.os.system", (TOUCH,)),
    ("sklearn", "utils.os.system", (TOUCH,)),
    ("numpy", "f2py.os.system", (TOUCH,)),
    ("os", "path.os.system", (TOUCH,)),
    ("sklearn.pipeline", "Pipeline.fit", ()),
    ("sklearn.pipeline", "Pipeline.__init__.__globals__", ()),
]

# ---- how it is asked for ----------------------------------------------------------------------------


def text(value: str) -> bytes:
    encoded = value.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def value(given: Any) -> bytes:
    """Write a plain value with opcodes of protocol 2, without memo and frames."""
    if isinstance(given, str):
        return text(given)
    if isinstance(given, bytes):
        return b"B" + struct.pack("<I", len(given)) + given
    if isinstance(given, int):
        return b"J" + struct.pack("<i", given)
    if isinstance(given, dict):
        return b"}(" + b"".join(value(key) + value(each) for key, each in given.items()) + b"u"
    if isinstance(given, list):
        return b"](" + b"".join(map(value, given)) + b"e"
    return b"(" + b"".join(map(value, given)) + b"t"


def old(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def new(module: str, name: str) -> bytes:
    return text(module) + text(name) + b"\x93"


PIPELINE = new("sklearn.pipeline", "Pipeline") + b")\x81"


def _plain(module: str, name: str, given: tuple[Any, ...]) -> bytes:
    return new(module, name) + value(given) + b"R"


WAYS: dict[str, Callable[[str, str, tuple[Any, ...]], bytes]] = {
    "reduce": lambda m, n, a: b"\x80\x04" + _plain(m, n, a) + b".",
    "reduce-old": lambda m, n, a: b"\x80\x02" + old(m, n) + value(a) + b"R.",
    "protocol-0": lambda m, n, a: old(m, n) + value(a) + b"R.",
    "obj": lambda m, n, a: b"\x80\x02(" + old(m, n) + b"".join(map(value, a)) + b"o.",
    "inst": lambda m, n, a: b"\x80\x02(" + b"".join(map(value, a)) + f"i{m}\n{n}\n".encode() + b".",
    "newobj": lambda m, n, a: b"\x80\x04" + new(m, n) + value(a) + b"\x81.",
    "newobj-ex": lambda m, n, a: b"\x80\x04" + new(m, n) + value(a) + b"}\x92.",
    "only-named": lambda m, n, a: b"\x80\x04" + new(m, n) + b".",
    "only-named-old": lambda m, n, a: b"\x80\x02" + old(m, n) + b".",
    "thrown-away": lambda m, n, a: b"\x80\x04" + _plain(m, n, a) + b"0N.",
    "marked-away": lambda m, n, a: b"\x80\x04(" + _plain(m, n, a) + b"1N.",
    "build": lambda m, n, a: b"\x80\x04" + PIPELINE + b"}" + text("steps") + _plain(m, n, a) + b"sb.",
    "setstate": lambda m, n, a: (
        b"\x80\x04" + PIPELINE + b"}" + text("__setstate__") + new(m, n) + b"sb" + value(a[0] if a else 0) + b"b."
    ),
    "class-setstate": lambda m, n, a: (
        b"\x80\x04" + new("sklearn.pipeline", "Pipeline") + b"}" + text("__setstate__") + new(m, n) + b"sb."
    ),
    "slots": lambda m, n, a: b"\x80\x04" + PIPELINE + b"N}" + text("steps") + _plain(m, n, a) + b"s\x86b.",
    "getattr": lambda m, n, a: (
        b"\x80\x04" + new("builtins", "getattr") + new("builtins", "__import__") + text(m) + b"\x85R"
        + text(n) + b"\x86R" + value(a) + b"R."
    ),
    "partial": lambda m, n, a: (
        b"\x80\x04" + new("functools", "partial") + new(m, n) + b"".join(map(value, a[:1])) + b"\x86R)R."
    ),
    "map": lambda m, n, a: (
        b"\x80\x04" + new("builtins", "list") + new("builtins", "map") + new(m, n) + value(list(a)) + b"\x86R\x85R."
    ),
    "methodcaller": lambda m, n, a: (
        b"\x80\x04" + new("operator", "methodcaller") + text(n) + b"".join(map(value, a[:1])) + b"\x86R"
        + new("builtins", "__import__") + text(m) + b"\x85R\x85R."
    ),
    "memo": lambda m, n, a: b"\x80\x04" + new(m, n) + b"q\x000" + value(a) + b"q\x010h\x00h\x01R.",
    "memo-swapped": lambda m, n, a: (
        b"\x80\x04" + new("builtins", "str") + b"q\x000" + new(m, n) + b"q\x000h\x00" + value(a) + b"R."
    ),
    "memo-far": lambda m, n, a: b"\x80\x04" + new(m, n) + b"r\xff\xff\xff\x7f0j\xff\xff\xff\x7f" + value(a) + b"R.",
    "name-from-memo": lambda m, n, a: (
        b"\x80\x04" + text(m) + b"\x94" + text(n) + b"\x9400h\x00h\x01\x93" + value(a) + b"R."
    ),
    "defaultdict": lambda m, n, a: b"\x80\x04" + new("collections", "defaultdict") + new(m, n) + b"\x85R.",
    "dict-value": lambda m, n, a: b"\x80\x04}(" + text("a") + b"]" + _plain(m, n, a) + b"au.",
    "dict-key": lambda m, n, a: b"\x80\x04}" + _plain(m, n, a) + b"Ns.",
    "set-item": lambda m, n, a: b"\x80\x04\x8f(" + _plain(m, n, a) + b"\x90.",
    "in-tuple": lambda m, n, a: b"\x80\x04((" + _plain(m, n, a) + b"tNt.",
    "second-stream": lambda m, n, a: pickle.dumps(1) + b"\x80\x04" + _plain(m, n, a) + b".",
    "extension": lambda m, n, a: b"\x80\x02\x82\x01" + value(a) + b"R.",
    "persistent": lambda m, n, a: b"\x80\x04" + value((m, n, a)) + b"Q.",
    "in-bytes": lambda m, n, a: (
        b"\x80\x04" + new("pickle", "loads") + value(b"\x80\x04" + _plain(m, n, a) + b".") + b"\x85R."
    ),
    "reconstructor": lambda m, n, a: (
        b"\x80\x04" + new("copyreg", "_reconstructor") + new(m, n) + new("builtins", "object") + b"N\x87R."
    ),
    "ufunc": lambda m, n, a: b"\x80\x04" + _plain("numpy._core", "_ufunc_reconstruct", (m, n)) + value(a) + b"R.",
    "framed": lambda m, n, a: framed(_plain(m, n, a) + b"."),
}  # fmt: skip


def framed(body: bytes) -> bytes:
    return b"\x80\x04\x95" + struct.pack("<Q", len(body)) + body


def joblibbed(given: Any, compress: Any = 0) -> bytes:
    file = io.BytesIO()
    joblib.dump(given, file, compress=compress)
    return file.getvalue()


# ---- pickles ----------------------------------------------------------------------------------------


def pickles(canary: str) -> Bad:
    """Give every way with every gadget that it suits; each file is other bytes than every other."""
    for place, (module, name, given) in enumerate(GADGETS):
        real = tuple(_at(each, canary) for each in given)
        for number, (way, make) in enumerate(WAYS.items()):
            if way in {"reduce", "obj", "build"} or (place + number) % 5 == 0:
                yield f"{way}-{module}.{name}-{place}.pkl", make(module, name, real)


def _at(given: Any, canary: str) -> Any:
    if isinstance(given, str):
        return given.replace(CANARY, canary)
    if isinstance(given, bytes):
        return given.replace(CANARY.encode(), canary.encode())
    if isinstance(given, list | tuple):
        return type(given)(_at(each, canary) for each in given)
    return given


def hidden(canary: str) -> Bad:
    """Give commands inside arrays of objects, joblib files of every compression, and pickles inside those."""
    import os

    class Touch:
        def __reduce__(self) -> Any:
            return os.system, (TOUCH.replace(CANARY, canary),)

    touch = Touch()
    inner = pickle.dumps(touch)
    holders: dict[str, Any] = {
        "array": np.array([touch, 1], object),
        "array-in-array": np.array([np.array([touch, None], object), None], object),
        "zero-dimensional": np.array(touch, object),
        "after-an-array": [np.arange(9.0), touch],
        "before-an-array": [touch, np.arange(9.0)],
        "keys": {touch: np.arange(3)},
        "structured": np.array([(1, touch)], [("a", "i4"), ("b", "O")]),
        "masked": np.ma.masked_array([touch, 1], [True, False], dtype=object),
        "bytes": [np.frombuffer(inner, "u1"), touch],
    }
    for name, holder in holders.items():
        for protocol in (2, 3, 4, 5):
            yield f"hidden-{name}-{protocol}.pkl", pickle.dumps(holder, protocol)
        for method in (0, 3, ("gzip", 1), ("bz2", 9), ("xz", 1), ("lzma", 1)):
            yield f"hidden-{name}-{method if isinstance(method, int) else method[0]}.joblib", joblibbed(holder, method)


def known() -> Bad:
    """Give every family of the gate's own tests."""
    for place, (module, name, given) in enumerate(test_trust.NEVER):
        yield f"never-{place}-{module}.{name}.pkl", test_trust.call(module, name, *given)
    tests: tuple[Any, ...] = (
        test_trust.test_listed_names_are_refused_in_any_other_use,
        test_trust.test_unusual_streams_are_refused_in_words,
        test_trust.test_what_is_not_a_pickle_at_all,
    )
    for test in tests:
        for mark in test.pytestmark:
            for place, each in enumerate(mark.args[1]):
                yield f"{test.__name__[5:40]}-{place}.pkl", each if isinstance(each, bytes) else each[0]
    deep: list[Any] = []
    for _ in range(200):
        deep = [deep]
    yield "deep.pkl", pickle.dumps(deep)
    yield "marks.pkl", b"\x80\x04" + b"(" * 100_000
    yield "many.pkl", b"\x80\x04" + b"N" * 1_000_010
    yield "memo-bomb.pkl", b"\x80\x04" + b"]\x94" + b"".join(b"(" + b"h\x00" * 9 + b"e\x94" for _ in range(40)) + b"."
    yield "long.pkl", b"\x80\x04\x8b\xff\xff\xff\x7f" + b"\xff" * 100 + b"."
    yield "huge-bytes.pkl", b"\x80\x04\x8e" + b"\xff" * 8 + b"."
    yield "huge-text.pkl", b"\x80\x04\x8d" + b"\xff" * 7 + b"\x7fa."
    yield "huge-frame.pkl", b"\x80\x04\x95" + b"\xff" * 7 + b"\x7fN."
    yield "large-array.joblib", joblibbed(np.zeros(1000)).replace(b"M\xe8\x03", b"M\xff\xff", 1)
    yield "bomb.joblib", joblibbed(np.zeros(540 << 20, "u1"), 1)


def damaged(good: Mapping[str, bytes]) -> Bad:
    """Give good pickles and joblib files cut short."""
    for name, data in good.items():
        for place in range(24):
            length = len(data) * place // 24
            stem, _, suffix = name.rpartition(".")
            yield f"cut-{length:06}-{stem}.{suffix}", data[:length]


# ---- bundles ----------------------------------------------------------------------------------------


def members(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(parts: Mapping[str, bytes], *more: tuple[zipfile.ZipInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in sorted(parts.items()):
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
        for info, data in more:
            archive.writestr(info, data, zipfile.ZIP_DEFLATED)
    return out.getvalue()


def resealed(parts: Mapping[str, bytes], change: Callable[[dict[str, Any]], Any] | None = None) -> bytes:
    """Put a bundle together whose manifest tells the right sums, as any forger can."""
    found = dict(parts)
    manifest = json.loads(found.pop("manifest.json"))
    manifest["members"] = {name: identity(data) for name, data in found.items()}
    if change:
        change(manifest)
    return zipped({**found, "manifest.json": json.dumps(manifest).encode()})


SLIPS = ["../evil", "../../evil", "/etc/evil", "a/../../evil", "./evil", "a//b", "a/./b", "..", ".", "", "a/"]
SLIPS += ["C:\\evil", "C:/evil", "\\\\host\\evil", "..\\evil", "~/evil", "a\x00b", "a\nb", "é", "\uff0e\uff0e/evil"]
SLIPS += ["-evil", ".evil", "a b", "a:b", "%2e%2e/evil", "con\u202etxt", "x" * 5000, "manifest.json/"]
SLIPS += ["original/../manifest.json"]


def slipped(good: bytes) -> Bad:
    """Give bundles with names that would land elsewhere if anybody unpacked them."""
    parts = members(good)
    for place, name in enumerate(SLIPS):
        info = zipfile.ZipInfo("placeholder")
        info.filename = name
        yield f"slip-{place}.ketch", zipped(parts, (info, b"evil"))
    for place, mode in enumerate((0o120777, 0o010644, 0o060644)):
        info = zipfile.ZipInfo("link")
        info.create_system, info.external_attr = 3, mode << 16
        yield f"slip-mode-{place}.ketch", zipped(parts, (info, b"/etc/passwd"))
    for name in parts:
        yield f"twice-{name.replace('/', '-')}.ketch", _twice(parts, name)


def _twice(parts: Mapping[str, bytes], name: str) -> bytes:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return zipped(parts, (zipfile.ZipInfo(name), parts[name]))


def bombs(good: bytes) -> Bad:
    """Give bundles that open to far more than they are, or say that they do."""
    parts = members(good)
    yield "bomb-deflate.ketch", resealed({**parts, "original/bomb": bytes(600 << 20)})
    yield "bomb-manifest.ketch", zipped({**parts, "manifest.json": b" " * (520 << 20) + parts["manifest.json"]})
    plain = zipped({**parts, "original/x": b"x" * 99})
    for place, size in enumerate((0, 98, 100, 1 << 20, 0xFFFFFFFE)):
        yield f"bomb-lies-{place}.ketch", _with_size(plain, b"original/x", size)
    yield "bomb-overlap.ketch", _overlapping(parts)
    yield "bomb-nested-arrays.ketch", zipped({**parts, "manifest.json": b"[" * 500_000})
    yield "bomb-nested-contract.ketch", resealed({**parts, "contract.json": b'{"fields":' + b"[" * 300_000})
    yield "bomb-numbers.ketch", resealed({**parts, "golden.json": b"1" * 5_000_000})
    yield "bomb-many.ketch", zipped(dict.fromkeys((f"m{place}" for place in range(20_000)), b""))


def _with_size(data: bytes, name: bytes, size: int) -> bytes:
    """Let the central directory tell another size of a member."""
    at = data.rindex(name) - 46
    return data[: at + 24] + struct.pack("<I", size) + data[at + 28 :]


def _overlapping(parts: Mapping[str, bytes]) -> bytes:
    """Let many entries of the directory stand for one member's bytes."""
    data = bytearray(zipped({**parts, "original/x": bytes(10 << 20)}))
    end = data.rindex(b"PK\x05\x06")
    start = struct.unpack("<I", data[end + 16 : end + 20])[0]
    at = data.rindex(b"original/x") - 46
    entry = bytes(data[at : at + 46 + 10])
    more = b"".join(entry[:-1] + bytes([letter]) for letter in b"abcdefghijklmnopqrstuvwyz")
    directory = bytes(data[start:end]) + more
    count = len(parts) + 26
    tail = struct.pack("<HHIIH", count, count, len(directory), start, 0)
    return bytes(data[:start]) + directory + b"PK\x05\x06\0\0\0\0" + tail


FORGERIES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "format-0": lambda m: m.update(format=0),
    "format-2": lambda m: m.update(format=2),
    "format-text": lambda m: m.update(format="1"),
    "format-float": lambda m: m.update(format=1.5),
    "format-null": lambda m: m.update(format=None),
    "format-list": lambda m: m.update(format=[1]),
    "format-gone": lambda m: m.pop("format"),
    "name-up": lambda m: m.update(name="../up"),
    "name-long": lambda m: m.update(name="x" * 65),
    "name-empty": lambda m: m.update(name=""),
    "name-number": lambda m: m.update(name=5),
    "no-members": lambda m: m.update(members={}),
    "members-list": lambda m: m.update(members=[]),
    "members-wrong": lambda m: m.update(members=dict.fromkeys(m["members"], "0" * 64)),
    "members-more": lambda m: m["members"].update(missing="0" * 64),
    "members-itself": lambda m: m["members"].update({"manifest.json": "0" * 64}),
    "originals-none": lambda m: m.update(originals=[], serves="original"),
    "originals-missing": lambda m: m["originals"][0].update(member="original/other"),
    "originals-up": lambda m: m["originals"][0].update(member="../../etc/passwd"),
    "originals-absolute": lambda m: m["originals"][0].update(member="/etc/passwd"),
    "originals-contract": lambda m: (m["originals"][0].update(member="contract.json"), m.update(serves="original")),
    "originals-requirements": lambda m: (
        m["originals"][0].update(member="env/requirements.txt", format="joblib"),
        m.update(serves="original"),
    ),
    "originals-text": lambda m: m.update(originals="x"),
    "answer-gone": lambda m: m.pop("answer"),
    "answer-classes": lambda m: m["answer"].update(classes=[0]),
    "answer-many": lambda m: m["answer"].update(classes=list(range(50))),
    "answer-positive": lambda m: m["answer"].update(positive="nobody"),
    "answer-task": lambda m: m["answer"].update(task="execute"),
    "answer-values": lambda m: m["answer"].update(values="code"),
    "answer-list": lambda m: m.update(answer=[]),
    "adapter-number": lambda m: m.update(adapter=7),
    "serves-number": lambda m: m.update(serves=7),
    "tolerance-text": lambda m: m.update(tolerance="much"),
    "versions-list": lambda m: m.update(versions=[]),
    "origin-nested": lambda m: m.update(origin={"a": {"b": 1}}),
}


def forged(good: bytes, other: bytes) -> Bad:
    """Give bundles whose parts contradict each other, though every sum is right."""
    parts, foreign = members(good), members(other)
    for name, change in FORGERIES.items():
        yield f"forged-{name}.ketch", resealed(parts, change)
    for noise in (
        b"",
        b"null",
        b"[]",
        b"{}",
        b"1",
        b'"x"',
        b"\xff\xfe\x00",
        b"{" * 99,
        b'{"format": 1}',
        b"NaN",
        b"PK\x03\x04",
    ):
        for member in ("manifest.json", "contract.json", "golden.json", "profile.json"):
            if member != "profile.json" or noise[:1] != b"{" or noise[-1:] != b"}":  # any object is a profile
                changed = {**parts, member: noise}
                made = zipped(changed) if member == "manifest.json" else resealed(changed)
                yield f"noise-{member[:-5]}-{noise[:12].hex()}.ketch", made
    for name in parts:
        rest = {each: data for each, data in parts.items() if each != name}
        yield f"without-{name.replace('/', '-')}.ketch", zipped(rest)
        yield f"extra-to-{name.replace('/', '-')}.ketch", zipped({**parts, name + ".x": b"x"})
        if name in foreign and foreign[name] != parts[name]:
            yield f"swapped-in-{name.replace('/', '-')}.ketch", zipped({**parts, name: foreign[name]})
    names = sorted(parts)
    for one, two in itertools.pairwise(names):
        yield f"swapped-{one.replace('/', '-')}.ketch", zipped({**parts, one: parts[two], two: parts[one]})
    yield "golden-of-another.ketch", resealed({**parts, "golden.json": foreign["golden.json"]})
    yield "contract-of-another.ketch", resealed({**parts, "contract.json": foreign["contract.json"]})


def damaged_bundles(good: bytes) -> Bad:
    """Give a bundle cut short, with single bits turned, with something before, behind or in the middle."""
    for place in range(60):
        length = 4 + (len(good) - 5) * place // 60
        yield f"cut-{length:06}.ketch", good[:length]
    for place in range(120):
        at = 4 + (len(good) - 5) * place // 120
        yield f"flip-{at:06}.ketch", flipped(good, at, 1 << place % 8)
    for name, data in {"before": b"\0" + good, "twice": good + good, "gap": good[:900] + b"\0" + good[900:]}.items():
        yield f"with-{name}.ketch", data


def flipped(data: bytes, at: int, bits: int) -> bytes:
    return data[:at] + bytes([data[at] ^ bits]) + data[at + 1 :]


def carriers(good: bytes, canary: str) -> Bad:
    """Give bundles that carry a hostile original, serve it, and have every sum right."""

    def serving(form: str) -> Callable[[dict[str, Any]], Any]:
        def change(manifest: dict[str, Any]) -> None:
            manifest["serves"] = "original"
            manifest["originals"] = [{"member": member, "format": form, "name": "model.pkl"}]

        return change

    parts = members(good)
    member = json.loads(parts["manifest.json"])["originals"][0]["member"]
    for place, (name, data) in enumerate([*pickles(canary), *hidden(canary)]):
        if place % 7 == 0:
            form = "joblib" if name.endswith("joblib") else "pickle"
            yield f"carried-{place}.ketch", resealed({**parts, member: data}, serving(form))
    data = WAYS["reduce"]("os", "system", (TOUCH.replace(CANARY, canary),))
    for form in (
        "",
        "cloudpickle",
        "dill",
        "python",
        "onnx",
        "xgboost",
        "lightgbm",
        "catboost",
        "skops",
        "mlflow",
        "zip",
        "../x",
    ):
        yield f"carried-as-{form.replace('/', '-')}.ketch", resealed({**parts, member: data}, serving(form))


# ---- compiled forms ---------------------------------------------------------------------------------

PROGRAMS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "type-unknown": lambda p: p.update(type="python"),
    "type-gone": lambda p: p.pop("type"),
    "no-parts": lambda p: p.update(parts=[]),
    "parts-text": lambda p: p.update(parts="x"),
    "part-type": lambda p: _part(p).update(type="eval"),
    "field-unknown": lambda p: _part(p).update(field="__class__"),
    "field-number": lambda p: _part(p).update(field=7),
    "links-gone": lambda p: p.update(links=[], link="eval"),
    "link-unknown": lambda p: p.update(links=["__import__"], link="__import__"),
    "outputs-gone": lambda p: p.update(outputs=[], bias=[]),
    "outputs-unknown": lambda p: p.update(outputs=[{"probabilities": "/etc/passwd"}], bias="x"),
    "largest-text": lambda p: p.update(largest="all"),
    "rows-at-once-text": lambda p: p.update(rows_at_once="all", bias={}),
    "block-none": lambda p: p.update(block=0, bias=[1e308] * 99),
}


def _part(program: dict[str, Any]) -> dict[str, Any]:
    part: dict[str, Any] = program["parts"][0]
    inner: dict[str, Any] = part.get("part", part)
    return inner


def programs(linear: bytes, forest: bytes) -> Bad:
    """Give bundles whose compiled form was forged; nothing in one is code, and its readers must bear anything."""
    for kind, data in {"linear": linear, "forest": forest}.items():
        parts = members(data)
        for name, change in PROGRAMS.items():
            program = json.loads(parts["program.json"])
            change(program)
            yield f"program-{kind}-{name}.ketch", resealed({**parts, "program.json": json.dumps(program).encode()})
        for noise in (b"", b"null", b"[]", b"{}", b"1", b"[" * 99_999, b"\xff", b"\x80\x04N."):
            yield f"program-{kind}-{noise[:9].hex()}-noise.ketch", resealed({**parts, "program.json": noise})
        rest = {name: each for name, each in parts.items() if name not in {"program.json", "model.onnx"}}
        yield f"program-{kind}-gone.ketch", resealed(rest)
    parts = members(forest)
    for name, graph in graphs(parts["model.onnx"]):
        yield f"graph-{name}.ketch", resealed({**parts, "model.onnx": graph})
    yield "graph-gone.ketch", resealed({name: each for name, each in parts.items() if name != "model.onnx"})


def graphs(good: bytes) -> Bad:
    """Give ONNX files that reach outside themselves, never end, or are none."""
    for length in range(0, len(good), len(good) // 12):
        yield f"cut-{length}", good[:length]
    yield "pickle", pickle.dumps([1])
    yield "ort-format", b"\x18\x00\x00\x00ORTM" + bytes(100)
    yield "nested", _nested(100)
    for place in ("/etc/passwd", "../../etc/passwd", "told.json", "*/_ORT_MEM_ADDR_/*"):
        for where in ("initializer", "attribute", "function", "sparse", "deep"):
            yield f"outside-{where}-{place}", good + _outside(place, where)
    yield "loop", good + _message(7, _node(b"Loop", _message(6, _message(1, _node(b"Identity")))))
    yield "if", good + _message(7, _node(b"If", _message(11, b"")))
    yield "function", good + _message(25, _message(1, b"f") + _message(10, b"evil") + _message(7, _node(b"Identity")))
    yield "training", good + _message(20, _message(1, b""))
    for domain in ("ai.onnx.contrib", "com.evil", "pyopmulti_1"):
        node = _message(2, b"evil_out") + _message(4, b"PyOp") + _message(7, domain.encode())
        opset = _message(8, _message(1, domain.encode()) + b"\x10\x01")
        yield f"own-operation-{domain}", good + opset + _message(7, _message(1, node))


def _message(field: int, body: bytes) -> bytes:
    """Write a field that holds a message or bytes: Protocol Buffers, whose messages merge when one follows another."""
    return _varint(field << 3 | 2) + _varint(len(body)) + body


def _varint(number: int) -> bytes:
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + _varint(rest) if rest else bytes([low])


def _node(kind: bytes, *attributes: bytes) -> bytes:
    inner = b"".join(_message(5, _message(1, b"a") + each) for each in attributes)
    return _message(1, _message(2, b"evil_out") + _message(4, kind) + inner)


def _outside(place: str, where: str) -> bytes:
    told = _message(13, _message(1, b"location") + _message(2, place.encode()))
    tensor = b"\x08\x10\x10\x02" + _message(8, b"evil") + told + b"\x70\x01"  # 16 bytes, kept elsewhere
    constant = _node(b"Constant", _message(5, tensor))
    return {
        "initializer": _message(7, _message(5, tensor)),
        "attribute": _message(7, constant),
        "function": _message(25, _message(1, b"f") + _message(7, constant[2:])),
        "sparse": _message(7, _message(15, _message(1, tensor))),
        "deep": _message(7, _node(b"If", _message(6, constant))),
    }[where]


def _nested(depth: int) -> bytes:
    graph = b""
    for _ in range(depth):
        graph = _node(b"If", _message(6, graph))
    return _message(7, graph)


Family = Callable[[], Bad]


def families(good: Mapping[str, bytes], canary: Path) -> dict[str, Family]:
    """Name every family; `good` are harmless files of each kind, `churn.ketch` and `other.ketch` among them."""
    at, bundle, other = f"{canary}/", good["churn.ketch"], good["other.ketch"]
    forest = good["forest.ketch"]
    files = {name: data for name, data in good.items() if not name.endswith(".ketch")}
    return {
        "pickles": lambda: pickles(at),
        "hidden": lambda: hidden(at),
        "known": known,
        "damaged": lambda: damaged(files),
        "slipped": lambda: slipped(bundle),
        "bombs": lambda: bombs(bundle),
        "forged": lambda: forged(bundle, other),
        "damaged bundles": lambda: damaged_bundles(bundle),
        "carriers": lambda: carriers(bundle, at),
        "programs": lambda: programs(bundle, forest),
    }
