"""What plain code needs to know of a model: how its files are opened, what it is handed, how it is asked.

bundle --*read*--> Plain
"""

import importlib
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ketch import code, lock, trust
from ketch.adapters import KNOWN, Adapter, Input, Inputs
from ketch.adapters.sklearn import ENSEMBLES, flatten
from ketch.adapters.tables import NUMERIC
from ketch.bundle import Bundle
from ketch.errors import CorruptBundle, UnsupportedModel
from ketch.export import ModelFile, Plain
from ketch.predict import open_parts
from ketch.schema import NAME, is_missing, plain
from ketch.steps.templates import Code

PICKLES: Final = frozenset({"joblib", "pickle"})
TOGETHER: Final = PICKLES | {"skops"}  # of which a model may have several files
OPENED_BY: Final[Mapping[str, tuple[str, ...]]] = {  # format -> what the program imports for it
    "pickle": ("import pickle",),
    "joblib": ("import io", "import joblib"),
    "skops": ("import skops.io as sio",),
    "catboost-cbm": ("import catboost",),
    "catboost-json": ("import catboost",),
    "lightgbm-txt": ("import lightgbm",),
    "xgboost-json": ("import xgboost",),
    "xgboost-ubj": ("import xgboost",),
}
SAVED: Final[Mapping[str, Code]] = {  # format -> how a person writes such a file
    "pickle": Code("`pickle.dump(model, file)`"),
    "joblib": Code("`joblib.dump(model, path)`"),
    "skops": Code("`skops.io.dump(model, path)`"),
    "catboost-cbm": Code("`model.save_model(path)`"),
    "catboost-json": Code('`model.save_model(path, format="json")`'),
    "lightgbm-txt": Code("`model.save_model(path)`"),
    "xgboost-json": Code("`model.save_model(path)`"),
    "xgboost-ubj": Code("`model.save_model(path)`"),
}
STANDARD: Final = frozenset({"hashlib", "io", "json", "math", "pickle"})
MADE: Final = {  # class of a model read from a file of its framework's own
    "Booster": Code("xgboost.Booster()"),
    "XGBClassifier": Code("xgboost.XGBClassifier()"),
    "XGBRegressor": Code("xgboost.XGBRegressor()"),
}
ASK: Final = {
    "proba": Code("MODEL.predict_proba(given)"),
    "proba on one thread": Code("MODEL.predict_proba(given, thread_count=1)"),
    "predict": Code("MODEL.predict(given)"),
    "predict on one thread": Code("MODEL.predict(given, thread_count=1)"),
    "lightgbm": Code("MODEL.predict(given, num_threads=1)"),
    "xgboost": Code("MODEL.inplace_predict(given)"),
    "xgboost, linear": Code("MODEL.predict(xgboost.DMatrix(given))"),
    "catboost, likely": Code('MODEL.predict(given, prediction_type="Probability", thread_count=1)'),
    "catboost, number": Code('MODEL.predict(given, prediction_type="RawFormulaVal", thread_count=1)'),
}
LONGEST: Final = 40  # letters of a file's name
STAY: Final = (
    "Serve it with ketch serve: export takes models of scikit-learn, XGBoost, LightGBM and CatBoost, and no other code."
)


def read(opened: Bundle, *, home: Path) -> Plain:
    """Open the original model of a bundle, through the gate, and say how plain code asks it.

    Raises:
        UnsupportedModel: it cannot do without Ketch.
        TrustError, ModelError: it must not, or cannot, be opened here.
    """
    form = _require_plain(opened)
    parts = open_parts(opened, home=home)
    adapter: Adapter = importlib.import_module(KNOWN[opened.manifest.adapter])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = adapter.join(parts)
        given = adapter.inputs(model, opened.contract.fields)
    objects = [*flatten(parts)]
    facts = {
        "format": form,
        "saved": SAVED[form],
        "made": MADE.get(type(model).__name__, Code("")),
        "nested": len(parts) > 1 or objects[0] is not parts[0],
        "joined": len(objects) > 1,
        "pools": _has_pools(model),
        **_handed(given),
        **_words(opened),
        **_asked(opened, adapter, model, objects),
    }
    facts |= _imports(facts)
    return Plain(_files(opened), [_column(each) for each in given.columns], facts, _needs(opened, adapter, given, form))


def _require_plain(opened: Bundle) -> str:
    """Name the one format of the files, in which plain code opens them.

    Raises:
        UnsupportedModel: they hold code that Ketch runs, or need Ketch to be opened or asked.
    """
    manifest = opened.manifest
    if code.runs(opened.originals, opened.code):
        raise UnsupportedModel(f"{manifest.name} carries code of its maker's own, which Ketch loads", hint=STAY)
    if manifest.adapter not in {*ENSEMBLES, "sklearn"}:
        raise UnsupportedModel(f"{manifest.name} is a model of the kind {manifest.adapter[:40]}", hint=STAY)
    forms = {each.format for each in manifest.originals}
    if not forms:
        raise CorruptBundle("The bundle holds no model", hint="Pack the model again.")
    if unknown := sorted(forms - OPENED_BY.keys()):
        raise UnsupportedModel(f"{manifest.name} is kept in the form {unknown[0][:40]}", hint=STAY)
    if forms == PICKLES:
        return "joblib"  # which opens both
    if len(forms) > 1 or (len(manifest.originals) > 1 and not forms & TOGETHER):
        raise UnsupportedModel(
            f"{manifest.name} consists of files of several kinds",
            hint="Save them together with joblib.dump((vectorizer, model), path), and pack that.",
        )
    return forms.pop()


def _files(opened: Bundle) -> tuple[ModelFile, ...]:
    """Name the files as they were, where those are names that any program may hold; else by number."""
    originals = opened.manifest.originals
    names = [each.name for each in originals]
    fit = all(NAME.fullmatch(name.lower()) and len(name) <= LONGEST for name in names)
    if not fit or len({name.lower() for name in names}) < len(names):
        names = [f"model-{place}" for place in range(len(names))]
    held = [opened.files[each.member] for each in originals]
    return tuple(ModelFile(name, data, trust.digest(data)) for name, data in zip(names, held, strict=True))


def _needs(opened: Bundle, adapter: Adapter, given: Inputs, form: str) -> list[str]:
    imports = [name for _, _, data in opened.originals for name in trust.examine(data).imports]
    opened_by = [form] if form in {"joblib", "skops"} else []
    frame = ["pandas"] if given.form == "frame" else []
    return [*lock.capture(imports, [*adapter.requirements(), *opened_by, *frame])]


def _has_pools(model: Any) -> bool:
    found = model.get_params() if hasattr(model, "get_params") else {}
    return any(name.endswith("n_jobs") and value for name, value in found.items())


# ---- what it is handed -------------------------------------------------------------------------------


def _handed(given: Inputs) -> dict[str, object]:
    if given.form not in {"array", "dicts", "frame", "texts"}:
        raise UnsupportedModel(f"The model is handed {given.form[:40]}", hint=STAY)
    fields = [each.field for each in given.columns if each.field]
    types = {_type(each) for each in given.columns}
    return {
        "form": given.form,
        "numeric": all(each.type in NUMERIC or each.is_of_numbers for each in fields),
        "types": types,
        "typed": given.form == "frame" and bool(types & {"boolean", "integer", "number", "numbers"}),
        "dated": any(each.type in {"date", "datetime"} for each in fields),
    }


def _column(each: Input) -> dict[str, object]:
    """Say what a program must know of one column: its type, its categories, and what it holds for a missing value."""
    told: dict[str, object] = {"name": each.name, "type": _type(each)}
    if each.categories:
        told["categories"] = list(each.categories)
    gap = plain(each.gap)
    if not isinstance(gap, str | int | float | None):
        raise UnsupportedModel(f"The model writes a missing value as a {type(gap).__name__}", hint=STAY)
    if gap is None or not is_missing(gap):
        told["gap"] = gap
    return told


def _type(each: Input) -> str:
    if each.field is None:
        return "dropped"
    if each.categories:
        return "coded"
    return "numbers" if each.field.is_of_numbers else each.field.type


# ---- what it answers ---------------------------------------------------------------------------------


def _words(opened: Bundle) -> dict[str, object]:
    """Say which numbers stand behind an answer, and how they are put into words."""
    answer, golden = opened.contract.answer, opened.golden
    values = "probability" if golden.probabilities is not None else ""
    if golden.scores is not None and not values and (answer.task != "multiclass" or _has_rows(golden.scores)):
        values = "score"
    binary = answer.task == "binary"
    first = binary and answer.classes.index(answer.positive) == 0
    return {
        "task": answer.task,
        "tasks": sorted({each.task for each in answer.parts}),
        "values": values,
        "threshold": values == "probability" and answer.threshold is not None,
        "boolean": binary and set(answer.classes) == {0, 1},
        "turned": values == "score" and (first or answer.task == "outlier"),
        "classes": bool(values) and (answer.task == "multiclass" or (binary and values == "probability")),
    }


def _has_rows(scores: Sequence[object]) -> bool:
    return bool(scores) and isinstance(scores[0], list)


def _asked(opened: Bundle, adapter: Adapter, model: object, objects: Sequence[object]) -> dict[str, object]:
    """Say how the model is asked; one of scikit-learn's, or that behaves so, by its usual methods."""
    bare = [each for each in objects if not hasattr(each, "get_params")]
    if bare and len(objects) > 1:
        raise UnsupportedModel(
            f"{type(bare[0]).__name__} stands behind other objects and is not of scikit-learn's form",
            hint="Fit the library's own estimator for scikit-learn, such as XGBClassifier, and pack that.",
        )
    name = opened.manifest.adapter
    if name not in ENSEMBLES or len(objects) > 1:
        return {"ask": "", "flat": False, "cut": 0.5, "numbers": False}
    survey: Any = adapter
    told = survey.survey(model, [each.name for each in opened.contract.fields])
    if told.classes and opened.golden.probabilities is None:
        raise UnsupportedModel(
            f"{opened.manifest.name} answers classes without probabilities, in a way of its library's own", hint=STAY
        )
    ask = _question(name, model, likely=bool(told.classes))
    flat = told.task == "binary" and ask in {ASK["lightgbm"], ASK["xgboost"], ASK["xgboost, linear"]}
    return {"ask": ask, "flat": flat, "cut": float(told.cut), "numbers": True}


def _question(name: str, model: Any, *, likely: bool) -> Code:
    """Give the call that asks an ensemble for probabilities, or for a number."""
    estimator = hasattr(model, "_estimator_type") if name == "catboost" else hasattr(model, "get_params")
    if name == "catboost":
        words = (
            ("proba on one thread", "predict on one thread") if estimator else ("catboost, likely", "catboost, number")
        )
    elif estimator:
        words = ("proba", "predict")
    elif name == "lightgbm":
        words = ("lightgbm", "lightgbm")
    else:
        linear = '"gblinear"' in model.save_config()
        words = ("xgboost, linear", "xgboost, linear") if linear else ("xgboost", "xgboost")
    return ASK[words[0] if likely else words[1]]


# ---- the head of the program -------------------------------------------------------------------------


def _imports(facts: Mapping[str, Any]) -> dict[str, object]:
    """List the imports of `model.py`, in the order in which ruff sorts them."""
    wanted = {"import hashlib", "import json", *OPENED_BY[facts["format"]]}
    if facts["form"] in {"array", "frame"}:
        wanted.add("import math")
    if facts["form"] == "frame":
        wanted.add("import pandas as pd")
    stacked = facts["flat"] or facts["task"] == "several"
    if facts["form"] == "array" or stacked:
        wanted.add("import numpy as np")
    if facts["ask"] == ASK["xgboost, linear"]:
        wanted.add("import xgboost")
    own = sorted(each for each in wanted if each.split()[1] in STANDARD)
    libraries = sorted(wanted - {*own}) + (["from sklearn.pipeline import make_pipeline"] if facts["joined"] else [])
    standard = [*own, "from pathlib import Path", "from typing import Any"]
    return {"standard": [*map(Code, standard)], "libraries": [*map(Code, libraries)]}
