"""The witness: runs in an old environment without Ketch, opens the old files there, and says what they answer.

A program of its own, for any Python from 3.6. Its folder holds the files and `order.json`; it is asked and answers in
lines of JSON. Nothing of Ketch imports it.
"""

import contextlib
import json
import os
import sys
import warnings
from typing import Any


def limit(memory: int) -> None:
    """Take away what opening a model does not need; on Windows only its caller's time limit holds."""
    if sys.platform != "win32":
        import resource

        # older joblib tries out where it may write
        kinds = ((resource.RLIMIT_AS, memory), (resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, 1 << 20))
        for kind, most in kinds:
            with contextlib.suppress(ValueError, OSError):
                resource.setrlimit(kind, (most, most))


def opened(path: str, allowed: Any) -> Any:
    """Open one file; unless a person approved it, only names that the static pass has seen are handed out."""
    import joblib
    from joblib.numpy_pickle import NumpyUnpickler

    find = NumpyUnpickler.find_class

    def find_class(self: Any, module: str, name: str) -> Any:
        if allowed is not None and f"{module}.{name}" not in allowed:
            raise ImportError(f"it wants {module}.{name}")
        return find(self, module, name)

    NumpyUnpickler.find_class = find_class
    try:
        return joblib.load(path)
    finally:
        NumpyUnpickler.find_class = find


def flat(parts: Any) -> Any:
    """Give the objects of nested lists, pairs and dicts in their order."""
    if isinstance(parts, dict):
        parts = list(parts.values())
    if not isinstance(parts, (list, tuple)):
        return [parts]
    return [each for part in parts for each in flat(part)]


def joined(parts: Any) -> Any:
    """Make one model of transformers and an estimator, as they were joined before they were packed."""
    listed = flat(parts)
    if len(listed) == 1:
        return listed[0]
    from sklearn.pipeline import Pipeline

    last = next(part for part in listed if hasattr(part, "predict"))
    steps = [part for part in listed if part is not last] + [last]
    return Pipeline([(f"step{place}", step) for place, step in enumerate(steps)])


def rows_of(given: Any) -> Any:
    """Make what the model is asked with: a list, an array or a frame."""
    import numpy

    if given["form"] == "list":
        return given["rows"]
    if given["form"] == "array":
        return numpy.array(given["rows"], dtype=given["kind"]).reshape(given["shape"])
    import pandas

    columns = {}
    for name, kind, values in given["columns"]:
        if kind == "datetime":
            columns[name] = pandas.to_datetime(values)
        else:
            columns[name] = numpy.empty(len(values), dtype=kind)
            columns[name][:] = values
    return pandas.DataFrame(columns, columns=[name for name, _, _ in given["columns"]])


def answered(model: Any, line: str) -> Any:
    """Answer one line."""
    asked = json.loads(line)
    try:
        return {"answer": getattr(model, asked["ask"])(rows_of(asked["given"])).tolist()}
    except Exception as error:  # whatever the model raises is its answer
        return {"error": f"{type(error).__name__}: {str(error)[:300]}"}


def main() -> None:
    """Open the files, say so, and answer until there is nothing more to read."""
    folder = sys.argv[1]
    with open(os.path.join(folder, "order.json"), encoding="utf-8") as file:  # noqa: PTH118, PTH123
        order = json.load(file)
    limit(order["memory"])
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    warnings.simplefilter("ignore")
    try:
        parts = [
            opened(os.path.join(folder, name), None if names is None else set(names))  # noqa: PTH118
            for name, names in order["files"]
        ]
        model = joined(parts)
        told: Any = {"ready": True}
    except Exception as error:  # whatever stands in the way is told
        model, told = None, {"error": f"{type(error).__name__}: {str(error)[:300]}"}
    out.write(json.dumps(told) + "\n")
    out.flush()
    for line in sys.stdin:
        out.write(json.dumps(answered(model, line)) + "\n")
        out.flush()


if __name__ == "__main__":
    main()
