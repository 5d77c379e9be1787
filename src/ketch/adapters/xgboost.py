"""XGBoost: its scikit-learn estimators, its Booster, and the files it writes.

.json, .ubj --*open_file*--> estimator or Booster --*study*--> fields, task, classes
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError
from itertools import pairwise
from typing import Any, Final

from ketch import extras
from ketch.adapters import Inputs, Knowledge, Runner, sibling
from ketch.errors import ModelError, NotAModel, UnsupportedModel
from ketch.schema import Field, Scalar, Type

UBJ: Final = b"{L\x00\x00\x00\x00\x00\x00\x00\x07learner"
JSON: Final = re.compile(rb'\s*\{\s*"learner"\s*:')
OLD: Final = b"binf"
TYPES: Final[Mapping[str, Type]] = {"int": "integer", "i": "boolean", "c": "integer"}  # a category without its list
ESTIMATORS: Final = {"classifier": "XGBClassifier", "regressor": "XGBRegressor", "ranker": "XGBRanker"}


def join(parts: Sequence[object]) -> object:
    """Give the one model, or the pipeline of a vectorizer and a model."""
    found: object = sibling("boosting").join(parts)
    return found


def study(model: Any, names: Sequence[str] = ()) -> Knowledge:
    """Say what the fitted model knows: its fields, its task and its classes.

    Raises:
        NotFitted, UnsupportedModel: the object cannot be served.
    """
    found: Knowledge = sibling("boosting").knowledge(survey(model, names))
    return found


def inputs(model: Any, fields: Sequence[Field]) -> Inputs:
    """Say what the model is handed."""
    found: Inputs = sibling("boosting").inputs(survey(model, [each.name for each in fields]), fields)
    return found


def runner(model: Any, fields: Sequence[Field]) -> Runner:
    """Prepare the model to answer checked columns, with one thread."""
    told = survey(model, [each.name for each in fields])
    found: Runner = sibling("boosting").Runner(told, fields, _asker(model, told.answers))
    return found


def requirements() -> dict[str, str]:
    """Name the distributions that a model is asked with: xgboost-cpu, a tenth of xgboost's size, answers as it does."""
    boosting = sibling("boosting")
    try:
        found: dict[str, str] = boosting.requirements("xgboost-cpu")
    except PackageNotFoundError:
        found = boosting.requirements("xgboost")
    return found


def survey(model: Any, names: Sequence[str]) -> Any:
    """Read what a model says of itself.

    Raises:
        NotFitted, UnsupportedModel: the object cannot be served.
    """
    boosting = sibling("boosting")
    booster = _booster(model)
    learner = json.loads(bytes(booster.save_raw("json")))["learner"]
    task, count, answers = _task(model, learner)
    columns, named = tuple(_columns(booster, learner)), booster.feature_names is not None
    return boosting.Ensemble(
        columns if named else boosting.called(columns, names),
        task,
        tuple(range(count)),
        answers,
        named,
        # its estimator cuts a margin there too
        0.5 if answers == boosting.PROBABILITY or hasattr(model, "classes_") else 0.0,
        origin={"estimator": type(model).__name__, "objective": learner["objective"]["name"]},
    )


def _booster(model: Any) -> Any:
    library = extras.load("xgboost")
    try:
        booster = model if isinstance(model, library.Booster) else model.get_booster()
        fitted = booster.num_boosted_rounds() > 0 and booster.num_features() > 0
    except (library.core.XGBoostError, extras.load("sklearn.exceptions").NotFittedError):
        fitted = False
    if not fitted:
        raise sibling("boosting").not_fitted(model)
    return booster


def _task(model: Any, learner: Mapping[str, Any]) -> tuple[str, int, str]:
    """Give the task, the number of classes and what the model answers with."""
    boosting = sibling("boosting")
    objective, shape = learner["objective"]["name"], learner["learner_model_param"]
    sort = objective.partition(":")[0]
    if sort == "rank":
        raise boosting.ranker(objective)
    if int(shape.get("num_target", 1)) > 1:
        raise boosting.several(model)
    estimator = hasattr(model, "classes_")
    if estimator and callable(model.objective):
        raise UnsupportedModel(
            "The classifier was fitted with an objective of its own, so what it answers is not known",
            hint="Fit it with one of XGBoost's objectives.",
        )
    if sort not in {"binary", "multi"}:
        return "regression", 0, boosting.LABEL
    answers = boosting.MARGIN if objective == "binary:logitraw" else boosting.PROBABILITY
    if objective == "binary:hinge" or (objective == "multi:softmax" and not estimator):
        answers = boosting.LABEL
    return ("binary", 2, answers) if sort == "binary" else ("multiclass", int(shape["num_class"]), answers)


def _columns(booster: Any, learner: Mapping[str, Any]) -> Iterator[Any]:
    boosting = sibling("boosting")
    count = booster.num_features()
    names = booster.feature_names or [""] * count
    types = booster.feature_types or ["float"] * count
    known = _categories(learner) or [()] * count
    for name, kind, coded in zip(names, types, known, strict=True):
        coded = coded if kind == "c" else ()
        yield boosting.Column(name, TYPES.get(kind, "number"), coded, unknown="refuse")


def _categories(learner: Mapping[str, Any]) -> list[tuple[Scalar, ...]]:
    """Read the categories that XGBoost has kept in its models since 3.1: texts as offsets into bytes, or numbers."""
    trees = learner["gradient_booster"]
    listed = trees.get("gbtree", trees).get("model", {}).get("cats", {}).get("enc", [])
    return [_texts(each) if "offsets" in each else tuple(each["values"]) for each in listed]


def _texts(each: Mapping[str, Sequence[int]]) -> tuple[str, ...]:
    ends, letters = each["offsets"], bytes(value & 255 for value in each["values"])
    return tuple(letters[start:end].decode() for start, end in pairwise(ends))


# ---- asking ----------------------------------------------------------------------------------------


def _asker(model: Any, answers: str) -> Callable[[Any], Any]:
    """Ask as the model's maker would: an estimator by its own methods, which know where early stopping stopped."""
    library = extras.load("xgboost")
    booster = _booster(model)
    booster.set_param({"nthread": 1})
    if model is not booster:
        model.set_params(n_jobs=1)
        return _quiet(model.predict_proba if answers == "probability" else _values(model))
    if json.loads(booster.save_config())["learner"]["gradient_booster"]["name"] != "gblinear":
        return _quiet(booster.inplace_predict)

    def ask(table: Any) -> Any:
        return booster.predict(library.DMatrix(table, nthread=1))

    return _quiet(ask)


def _values(model: Any) -> Callable[[Any], Any]:
    margin = getattr(model, "objective", None) == "binary:logitraw"
    return lambda table: model.predict(table, output_margin=margin)


def _quiet(ask: Callable[[Any], Any]) -> Callable[[Any], Any]:
    library = extras.load("xgboost")

    def quiet(table: Any) -> Any:
        with library.config_context(verbosity=0):
            return ask(table)

    return quiet


def estimator(booster: Any) -> Any:
    """Make scikit-learn's form of a Booster, which can stand at the end of a pipeline."""
    library = extras.load("xgboost")
    told = survey(booster, ())
    made = library.XGBRegressor() if told.task == "regression" else library.XGBClassifier()
    made.load_model(booster.save_raw("ubj"))
    return made


# ---- files -----------------------------------------------------------------------------------------


def recognise(name: str, data: bytes) -> str:
    """Name the format of a file by its first bytes, empty if XGBoost did not write it."""
    if data.startswith(UBJ):
        return "xgboost-ubj"
    return "xgboost-json" if JSON.match(data) else "xgboost-old" if data.startswith(OLD) else ""


def open_file(data: bytes, format: str) -> object:  # noqa: A002 (the manifest's word)
    """Make the estimator that saved the file, or a Booster where one did.

    Raises:
        NotAModel, UnsupportedModel: the bytes are damaged, or written by an old XGBoost.
    """
    if format == "xgboost-old":
        raise UnsupportedModel(
            "The file is in XGBoost's old binary form, which it no longer reads",
            hint="Open it with the XGBoost that wrote it, and save it with model.save_model('model.ubj').",
        )
    library = extras.load("xgboost")
    try:
        with library.config_context(verbosity=0):
            return _opened(library, data)
    except ModelError:
        raise
    except Exception as error:  # its reader raises whatever it trips over
        reason = str(error).partition("\n")[0][:160]
        raise NotAModel(f"The XGBoost file is damaged: {reason}", hint="Save or fetch it again.") from None


def _opened(library: Any, data: bytes) -> Any:
    booster = library.Booster()
    booster.load_model(bytearray(data))
    sibling("boosting").require_sound("xgboost", booster)
    saved = booster.attr("scikit_learn")
    name = ESTIMATORS.get(json.loads(saved).get("_estimator_type", "")) if saved else None
    if name is None:
        return booster
    made = getattr(library, name)()
    made.load_model(bytearray(data))
    return made


def load(data: bytes, known: object) -> object:
    """Open a file in the gate's child process, to see whether it can be."""
    return open_file(data, recognise("", data))
