"""CatBoost: its estimators, and the files it writes.

.cbm, .json --*open_file*--> CatBoost --*study*--> fields, task, classes
"""

import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from ketch import extras
from ketch.adapters import Inputs, Knowledge, Runner, sibling
from ketch.errors import ModelError, NotAModel, UnsupportedModel
from ketch.schema import Field, plain

FORMATS: Final = {"catboost-cbm": "cbm", "catboost-json": "json"}
JSON: Final = re.compile(rb'\s*\{\s*"(features_info|model_info|oblivious_trees|ctr_data)"\s*:')
YES_OR_NO: Final = frozenset({"Logloss", "CrossEntropy"})
CLASSES: Final = frozenset({"MultiClass", "MultiClassOneVsAll"})
RANKERS: Final = re.compile(r"Yeti|PairLogit|Query|StochasticRank|LambdaMart|StochasticFilter|GroupQuantile")


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
    """Name the distributions that a model is asked with."""
    found: dict[str, str] = sibling("boosting").requirements("catboost")
    return found


def survey(model: Any, names: Sequence[str]) -> Any:
    """Read what a model says of itself.

    Raises:
        NotFitted, UnsupportedModel: the object cannot be served.
    """
    boosting = sibling("boosting")
    if not model.is_fitted():
        raise boosting.not_fitted(model)
    objective = str(model.get_all_params().get("loss_function", "")).partition(":")[0]
    task, classes, answers = _task(model, objective)
    named = [str(place) for place in range(len(model.feature_names_))] != list(model.feature_names_)
    columns = tuple(_columns(model))
    return boosting.Ensemble(
        columns if named else boosting.called(columns, names),
        task,
        classes,
        answers,
        named,
        _cut(model, task),
        origin={"estimator": type(model).__name__, "objective": objective},
    )


def _task(model: Any, objective: str) -> tuple[str, tuple[object, ...], str]:
    boosting = sibling("boosting")
    if RANKERS.match(objective):
        raise boosting.ranker(objective)
    if objective.startswith("Multi") and objective not in CLASSES:
        raise boosting.several(model)
    if objective == "RMSEWithUncertainty":
        raise UnsupportedModel(
            "The model answers a number and how uncertain it is", hint="Fit it with the loss function RMSE."
        )
    if objective not in YES_OR_NO | CLASSES:
        return "regression", (), boosting.LABEL
    known = model.classes_
    classes = tuple(plain(each) for each in known) if len(known) else (0, 1)
    task = "binary" if objective in YES_OR_NO or len(classes) == 2 else "multiclass"
    return task, classes, boosting.PROBABILITY


def _columns(model: Any) -> Iterator[Any]:
    """Give the inputs: a category is a text, for CatBoost keeps no more of its values than their hashes."""
    boosting = sibling("boosting")
    if model._get_embedding_feature_indices():
        raise UnsupportedModel(
            "The model takes lists of numbers as embeddings",
            hint="Give each number a column of its own, and fit again.",
        )
    texts = {*model.get_cat_feature_indices(), *model.get_text_feature_indices()}
    for place, name in enumerate(model.feature_names_):
        if place in texts:
            yield boosting.Column(name, "text", optional=False)
        else:
            yield boosting.Column(name, settled=False)


# ---- asking ----------------------------------------------------------------------------------------


def _asker(model: Any, answers: str) -> Callable[[Any], Any]:
    """Ask as the model's maker would, with one thread."""
    what = {"probability": "Probability", "label": "RawFormulaVal"}[answers]
    if answers == "label" and hasattr(model, "_estimator_type"):
        return lambda table: model.predict(table, thread_count=1)  # a count's or a rate's loss has a scale of its own
    return lambda table: model.predict(table, prediction_type=what, thread_count=1)


def _cut(model: Any, task: str) -> float:
    """Give the probability above which CatBoost answers yes, which a person may have moved."""
    ask = getattr(model, "get_probability_threshold", None)  # what is read from a file has none
    moved = ask() if task == "binary" and ask else None
    return 0.5 if moved is None else float(moved)


# ---- files -----------------------------------------------------------------------------------------


def recognise(name: str, data: bytes) -> str:
    """Name the format of a file by its first bytes, empty if CatBoost did not write it."""
    return "catboost-cbm" if data.startswith(b"CBM1") else "catboost-json" if JSON.match(data) else ""


def open_file(data: bytes, format: str) -> object:  # noqa: A002 (the manifest's word)
    """Make the model out of its file.

    Raises:
        NotAModel: the bytes are damaged.
    """
    library = extras.load("catboost")
    model = library.CatBoost()
    try:
        _read(model, data, FORMATS[format])
        sibling("boosting").require_sound("catboost", model)
    except (ModelError, MemoryError):
        raise
    except Exception as error:  # its reader raises whatever it trips over
        reason = str(error).partition("\n")[0].rpartition(": ")[2][:160]
        raise NotAModel(f"The CatBoost file is damaged: {reason}", hint="Save or fetch it again.") from None
    return model


def _read(model: Any, data: bytes, form: str) -> None:
    if form == "cbm":
        model.load_model(blob=data)
        return
    with tempfile.TemporaryDirectory() as folder:  # CatBoost reads JSON from a path only
        path = Path(folder, "model.json")
        path.write_bytes(data)
        model.load_model(str(path), format=form)


def load(data: bytes, known: object) -> object:
    """Open a file in the gate's child process, to see whether it can be."""
    return open_file(data, recognise("", data))
