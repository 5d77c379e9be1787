"""The compiler: fitted object → program, and the parity that permits it.

fitted model --*lower*--> sums over fields, or a graph in float64 --*finish*--> program.json (+ model.onnx)

Preprocessing is pushed into the fields as far as it goes: what becomes of each category is looked up, what becomes of a
number is a few steps of arithmetic. What mixes columns becomes operations of ONNX. Everything is float64, except where
the original itself rounds to float32.
"""

import importlib
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ketch.adapters import Adapter
from ketch.schema import Answer, Field

SIBLINGS: Final = {  # first part of a class's module -> where its kinds are lowered
    "sklearn": (
        "ketch.compiler.columns",
        "ketch.compiler.imputers",
        "ketch.compiler.curves",
        "ketch.compiler.projections",
        "ketch.compiler.texts",
        "ketch.compiler.ensembles",
        "ketch.compiler.wrappers",
        "ketch.compiler.several",
        "ketch.compiler.linear",
        "ketch.compiler.bayes",
        "ketch.compiler.neighbours",
        "ketch.compiler.kernels",
        "ketch.compiler.networks",
        "ketch.compiler.clusters",
        "ketch.compiler.trees",
    ),
    "ketch": ("ketch.compiler.trees",),
    "xgboost": ("ketch.compiler.boosters",),
    "lightgbm": ("ketch.compiler.boosters",),
    "catboost": ("ketch.compiler.catboost",),
}


class NotCompiled(Exception):
    """Why a model keeps its original form, as a short readable sentence."""


Lowering = Callable[[Any, Any, Any], Any]  # (build, fitted, x)

Registry = dict[tuple[str, str], Lowering]

ESTIMATORS: Final[Registry] = {}

TRANSFORMERS: Final[Registry] = {}

INVERSES: Final[Registry] = {}


def estimator(*names: str, root: str = "sklearn") -> Callable[[Lowering], Lowering]:
    """Register how estimators of these classes are lowered: (build, fitted, x) -> Answers."""
    return _register(ESTIMATORS, root, names)


def transformer(*names: str, root: str = "sklearn") -> Callable[[Lowering], Lowering]:
    """Register how transformers of these classes are lowered: (build, fitted, x) -> Blocks or Tensor."""
    return _register(TRANSFORMERS, root, names)


def inverse(*names: str, root: str = "sklearn") -> Callable[[Lowering], Lowering]:
    """Register how the inverses of transformers are lowered: (build, fitted, x) -> Blocks or Tensor."""
    return _register(INVERSES, root, names)


def _register(
    table: dict[tuple[str, str], Lowering], root: str, names: Iterable[str]
) -> Callable[[Lowering], Lowering]:
    def add(function: Lowering) -> Lowering:
        table.update({(root, name): function for name in names})
        return function

    return add


def found_in(table: Registry, model: Any) -> Lowering:
    """Find how a fitted object is lowered.

    Raises:
        NotCompiled: nobody has said.
    """
    kind = type(model)  # the class itself: a subclass may answer in another way
    root = kind.__module__.partition(".")[0]
    for sibling in SIBLINGS.get(root, ()):
        importlib.import_module(sibling)
    if (root, kind.__name__) not in table:
        raise NotCompiled(f"{kind.__name__} has no compiled form")
    return table[root, kind.__name__]


@dataclass(frozen=True)
class Compiled:
    """A program as members of a bundle, and where its trees split each field."""

    files: dict[str, bytes]
    thresholds: dict[str, list[float]]


def compiled(adapter: Adapter, model: Any, fields: Sequence[Field], answer: Answer) -> Compiled:
    """Compile a fitted model.

    Raises:
        NotCompiled: it keeps its original form; the sentence says why.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found: Compiled = importlib.import_module("ketch.compiler.build").made(adapter, model, fields, answer)
        return found
