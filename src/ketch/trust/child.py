"""The child process that opens a file first: both sides of it."""

import contextlib
import functools
import importlib
import importlib.metadata
import importlib.resources
import json
import os
import platform
import re
import subprocess
import sys
from types import ModuleType

from ketch.trust import KINDS, Fault, Lists, sibling

LIBRARIES = (
    "ketch",
    "catboost",
    "joblib",
    "lightgbm",
    "numpy",
    "onnx",
    "onnxruntime",
    "pandas",
    "scikit-learn",
    "scipy",
    "skops",
    "xgboost",
    "xgboost-cpu",
)
FRAMEWORKS = "ketch.adapters."  # what reads files of a framework's own, one of them through a file
MEMORY = 8 << 30  # bytes of address space; threads of BLAS reserve much more than they use
MEMORY_TIMES = 12  # and this many times the opened file
SECONDS = 60.0
SECONDS_PER_GIB = 120.0
KEPT = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT", "TEMP", "TMP", "TMPDIR")
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
OUT_OF_MEMORY = re.compile(r"(?i)bad_?alloc|allocate memory|out of memory")  # as libraries in C++ say it
# -I leaves out the caller's paths, so they come in the first line, before anything of ours is imported.
START = (
    "import json, sys; sys.path[:] = json.loads(sys.stdin.buffer.readline()); "
    "from ketch.trust import sibling; sibling('child').main()"
)


def judge(data: bytes, known: Lists, loader: str) -> None:
    """Open the file in a child process with limits, by the module `loader`, and throw away what it holds.

    Raises:
        Fault: the child refused it, crashed, or took too long.
    """
    size = len(sibling("inflate").inflate(data))
    seconds = SECONDS + SECONDS_PER_GIB * size / (1 << 30)
    order = {"memory": MEMORY + MEMORY_TIMES * size, "seconds": seconds, "lists": _plain(known), "loader": loader}
    paths = [path for path in sys.path if path]
    lines = json.dumps(paths).encode() + b"\n" + json.dumps(order).encode() + b"\n"
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-B", "-X", "faulthandler=0", "-c", START],
            input=lines + data,
            capture_output=True,
            env=environment(),
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Fault(f"opening it took more than {seconds:.0f} seconds") from None
    answer = _answer(done.stdout)
    if answer is None:
        raise Fault(f"opening it crashed a process made to test that (exit code {done.returncode})")
    if answer:
        raise Fault(answer)


def environment() -> dict[str, str]:
    """Return the variables that a process made to open a file gets."""
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    return kept | dict.fromkeys(ONE_THREAD, "1")


def _plain(known: Lists) -> dict[str, object]:
    return {**{kind: sorted(getattr(known, kind)) for kind in KINDS}, "moved": dict(known.moved)}


def _answer(output: bytes) -> str | None:
    with contextlib.suppress(ValueError, TypeError, KeyError, IndexError):
        return str(json.loads(output.splitlines()[-1])["fault"])
    return None


@functools.cache
def _versions() -> str:
    found = [platform.python_version(), sys.platform]
    for library in LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found.append(f"{library} {importlib.metadata.version(library)}")
    room = importlib.resources.files("ketch.trust")
    found += [file.read_text("utf-8") for file in room.iterdir() if file.name.endswith((".py", ".toml"))]
    return "\n".join(found)


def circumstances(known: Lists) -> str:
    """Return everything besides the file that a verdict of the child depends on."""
    return json.dumps([_versions(), _plain(known)], sort_keys=True)


def main() -> None:
    """Be the child: read the order and the file from standard input, and answer on standard output."""
    order = json.loads(sys.stdin.buffer.readline())
    data = sys.stdin.buffer.read()
    written = len(data) if order["loader"].startswith(FRAMEWORKS) else 0
    _limit(int(order["memory"]), int(order["seconds"]) + 1, written)
    given = order["lists"]
    classes, reconstructors, functions = (frozenset((module, name) for module, name in given[kind]) for kind in KINDS)
    known = Lists(classes, reconstructors, functions, given["moved"])
    fault = ""
    try:
        importlib.import_module(order["loader"]).load(data, known)
    except Fault as error:
        fault = str(error)
    except MemoryError:
        fault = "opening it takes more memory than a file of its size should"
    except Exception as error:  # it cannot be opened here, and the caller will find out why
        if OUT_OF_MEMORY.search(str(error)):  # the caller has no limit, and would take it all
            fault = "opening it takes more memory than a file of its size should"
    sys.stdout.write("\n" + json.dumps({"fault": fault}) + "\n")
    sys.stdout.flush()
    os._exit(0)


def _limit(memory: int, seconds: int, written: int) -> None:
    if (resource := _resource()) is None:
        return
    limits = {
        resource.RLIMIT_AS: memory,
        resource.RLIMIT_CPU: seconds,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: written,
    }
    for kind, most in limits.items():
        with contextlib.suppress(ValueError, OSError):  # macOS has no limit on address space
            resource.setrlimit(kind, (most, most))


def _resource() -> ModuleType | None:
    try:
        import resource
    except ImportError:  # Windows: only the time limit of the caller holds
        return None
    return resource
