"""LightGBM: its scikit-learn estimators, its Booster, and the text files it writes.

.txt --*open_file*--> Booster --*study*--> fields, task, classes
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from ketch import extras
from ketch.adapters import Inputs, Knowledge, Runner, sibling
from ketch.errors import ModelError, NotAModel, UnsupportedModel
from ketch.schema import Field, Scalar, plain

FORMAT: Final = "lightgbm-txt"
START: Final = re.compile(rb"tree\r?\nversion=")
MADE_UP: Final = re.compile(r"Column_\d+")
RANKERS: Final = frozenset({"lambdarank", "rank_xendcg"})
SPACES: Final = re.compile(r"\s")


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
    found: dict[str, str] = sibling("boosting").requirements("lightgbm")
    return found


def survey(model: Any, names: Sequence[str]) -> Any:
    """Read what a model says of itself.

    Raises:
        NotFitted, UnsupportedModel: the object cannot be served.
    """
    boosting = sibling("boosting")
    booster = _booster(model)
    facts = _facts(booster)
    task, classes, answers = _task(model, facts)
    named = not all(map(MADE_UP.fullmatch, booster.feature_name()))
    columns = tuple(_columns(booster, facts, names))
    return boosting.Ensemble(
        columns if named else boosting.called(columns, names),
        task,
        classes,
        answers,
        named,
        origin={"estimator": type(model).__name__, "objective": facts.get("objective", "")},
    )


def _booster(model: Any) -> Any:
    library = extras.load("lightgbm")
    booster = model if isinstance(model, library.Booster) else getattr(model, "_Booster", None)
    if booster is None or getattr(booster, "_handle", None) is None or booster.num_trees() == 0:
        raise sibling("boosting").not_fitted(model)
    return booster


def _facts(booster: Any) -> dict[str, str]:
    """Read the head and the parameters of the model's text, but no tree beyond the first."""
    text = booster.model_to_string(num_iteration=1)
    head, _, rest = text.partition("\n\n")
    facts = dict(line.split("=", 1) for line in head.splitlines() if "=" in line)
    settings = rest.partition("\nparameters:")[2].partition("end of parameters")[0]
    listed = dict(line[1:-1].split(": ", 1) for line in settings.splitlines() if line.startswith("[") and ": " in line)
    return {"categorical_feature": listed.get("categorical_feature", ""), **facts}


def _task(model: Any, facts: Mapping[str, str]) -> tuple[str, tuple[object, ...], str]:
    boosting = sibling("boosting")
    objective = facts.get("objective", "").partition(" ")[0]
    if objective in RANKERS:
        raise boosting.ranker(objective)
    estimator = hasattr(model, "classes_")
    if estimator and not objective:
        raise UnsupportedModel(
            "The classifier was fitted with an objective of its own, so what it answers is not known",
            hint="Fit it with one of LightGBM's objectives.",
        )
    if objective not in {"binary", "multiclass", "multiclassova"}:
        if int(facts.get("num_class", 1)) > 1:
            raise boosting.several(model)
        return "regression", (), boosting.LABEL
    count = max(2, int(facts["num_class"]))
    classes = tuple(plain(each) for each in model.classes_) if estimator else tuple(range(count))
    if len(classes) != count:
        raise UnsupportedModel(
            f"The model answers {count} classes and knows {len(classes)}", hint="Fit it on rows of every class."
        )
    return ("binary" if count == 2 else "multiclass"), classes, boosting.PROBABILITY


def _columns(booster: Any, facts: Mapping[str, str], names: Sequence[str]) -> Iterator[Any]:
    boosting = sibling("boosting")
    known = _categories(booster, facts)
    given = {SPACES.sub("_", name): name for name in names}  # LightGBM writes underscores for spaces
    for place, name in enumerate(booster.feature_name()):
        coded = known.get(place)
        yield boosting.Column(given.get(name, name), "number" if coded is None else "integer", coded or ())


def _categories(booster: Any, facts: Mapping[str, str]) -> dict[int, tuple[Scalar, ...]]:
    """Give the categories of each categorical input by its place; none where they were fitted as whole numbers."""
    places = sorted(int(each) for each in facts["categorical_feature"].split(",") if each)
    listed = booster.pandas_categorical or []
    if listed and len(listed) != len(places):
        raise UnsupportedModel(
            f"The model was fitted with {len(listed)} columns of dtype category and takes {len(places)} as categories",
            hint="Fit it with columns of unordered categories only, all of them of dtype category.",
        )
    values = [tuple(plain(value) for value in each) for each in listed] or [()] * len(places)
    return dict(zip(places, values, strict=True))  # type: ignore[arg-type]


# ---- asking ----------------------------------------------------------------------------------------


def _asker(model: Any, answers: str) -> Callable[[Any], Any]:
    """Ask as the model's maker would, with one thread."""
    if model is _booster(model):
        return lambda table: model.predict(table, num_threads=1)
    model.set_params(n_jobs=1)
    return model.predict_proba if answers == "probability" else model.predict  # type: ignore[no-any-return]


# ---- files -----------------------------------------------------------------------------------------


def recognise(name: str, data: bytes) -> str:
    """Name the format of a file by its first bytes, empty if LightGBM did not write it."""
    return FORMAT if START.match(data) else ""


def open_file(data: bytes, format: str) -> object:  # noqa: A002 (the manifest's word)
    """Make the Booster out of its text.

    Raises:
        NotAModel: the text is damaged.
    """
    library = extras.load("lightgbm")
    try:
        booster = library.Booster(model_str=data.decode())
        sibling("boosting").require_sound("lightgbm", booster)
    except ModelError:
        raise
    except (library.basic.LightGBMError, ValueError, json.JSONDecodeError, TypeError, KeyError) as error:
        reason = str(error).partition("\n")[0][:160]
        raise NotAModel(f"The LightGBM file is damaged: {reason}", hint="Save or fetch it again.") from None
    return booster


def load(data: bytes, known: object) -> object:
    """Open a file in the gate's child process, to see whether it can be."""
    return open_file(data, FORMAT)
