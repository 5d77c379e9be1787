"""scikit-learn: what a fitted estimator or pipeline knows of its inputs, and how it is asked.

fitted model --*study*--> fields, task, classes        columns --*Runner*--> labels, probabilities
"""

import contextlib
import functools
import importlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Final

from ketch import extras
from ketch.adapters import Input, Inputs, Knowledge, Raw, adapter_for, not_a_model, sibling
from ketch.errors import ModelError, NotFitted, UnsupportedModel
from ketch.schema import Columns, Field, Scalar, Type, is_missing, plain

# BLAS takes another kernel for one row or a ragged end than for whole blocks, so that a row's last bits would
# depend on who else asks. Measured over ten kinds of model: in blocks of 4 and more every answer is the same.
BLOCK: Final = 8
TIE: Final = 1e-9
ENSEMBLES: Final = frozenset({"catboost", "lightgbm", "xgboost"})  # whose models say themselves what they take
# wrappers -> where the fitted estimator stands that takes the same input
INNER: Final = ("best_estimator_", "estimator_", "regressor_", "calibrated_classifiers_", "estimators_", "estimator")
# their `predict` is the class of the largest probability (ties aside, where `predict` is asked)
ARGMAX: Final = frozenset(
    """AdaBoostClassifier BaggingClassifier BernoulliNB CategoricalNB ComplementNB DecisionTreeClassifier
    ExtraTreeClassifier ExtraTreesClassifier GaussianNB GradientBoostingClassifier HistGradientBoostingClassifier
    LinearDiscriminantAnalysis LogisticRegression LogisticRegressionCV MLPClassifier MultinomialNB
    QuadraticDiscriminantAnalysis RandomForestClassifier""".split()
)


@dataclass
class Column:
    """What the walk through a fitted model finds out about one input."""

    type: Type = "number"
    categories: tuple[Scalar, ...] = ()
    unknown: str = "refuse"
    imputed: bool = False
    gap: object = float("nan")  # how the encoder that knows it writes a missing category
    takes_gaps: bool = False
    dropped: bool = False
    plausible: tuple[float, float] | None = None
    words: Sequence[str] = ()
    known: bool = False  # an encoder, vectorizer or ensemble has said what it is
    coded: tuple[Scalar, ...] = ()  # the categories of a pandas column of dtype category, in the order of training


@dataclass
class Survey:
    """The inputs of a model: what form they take and what is known of each."""

    form: str  # "dicts", "texts", "frame" or "array"
    columns: dict[str, Column] = field(default_factory=dict)


def join(parts: Sequence[object]) -> object:
    """Make one pipeline of a vectorizer and an estimator, in whichever order they came.

    Raises:
        NotAModel: a part is neither, or nothing predicts.
    """
    flat = list(flatten(parts))
    for part in flat:
        if not hasattr(part, "transform") and not hasattr(part, "predict"):
            raise not_a_model(part)
    last = [part for part in flat if hasattr(part, "predict")]
    if not last:
        raise not_a_model(flat[-1])
    if len(flat) == 1:
        return flat[0]
    if len(last) > 1:
        raise UnsupportedModel(
            f"{len(last)} of the objects given predict", hint="Give one estimator, with the transformers before it."
        )
    steps = [part for part in flat if part is not last[0]] + [_as_estimator(last[0])]
    pipeline = extras.load("sklearn.pipeline")
    return pipeline.Pipeline([(f"step{place}", step) for place, step in enumerate(steps)])


def _as_estimator(model: object) -> object:
    """Give the end of a pipeline, which takes arrays, as a raw Booster does not."""
    make = getattr(adapter_for(model), "estimator", None)
    return make(model) if make is not None and not hasattr(model, "get_params") else model


def flatten(parts: object) -> Iterator[object]:
    """Give the objects that stand in lists, tuples and dicts, one after the other."""
    if isinstance(parts, Mapping):
        parts = list(parts.values())
    if not isinstance(parts, list | tuple):
        yield parts
        return
    for part in parts:
        yield from flatten(part)


def study(model: Any, names: Sequence[str] = ()) -> Knowledge:
    """Say what the fitted model knows: its fields, its task and its classes.

    Raises:
        NotFitted, UnsupportedModel, NotAModel: the object cannot be served.
    """
    task, classes = _task(model)
    survey = _survey(model, names)
    listed = {name: column for name, column in survey.columns.items() if not column.dropped}
    return Knowledge(
        fields=tuple(_field(name, column, survey) for name, column in listed.items()),
        task=task,
        classes=classes,
        probabilities=hasattr(model, "predict_proba") and task not in {"cluster", "outlier"},
        score=_has_scores(model),
        words={name: column.words for name, column in listed.items() if column.words},
        plausible={name: column.plausible for name, column in listed.items() if column.plausible},
        settled=frozenset(name for name, column in listed.items() if column.known or column.imputed),
        named=survey.form != "array",
        origin={"estimator": _describe(model), **_written_by(model)},
    )


def _field(name: str, column: Column, survey: Survey) -> Field:
    optional = column.imputed or column.takes_gaps
    return Field(
        name,
        column.type,
        required=not optional or survey.form == "dicts",
        categories=column.categories,
        unknown="flag" if column.unknown == "flag" else "refuse",
    )


def _describe(model: Any) -> str:
    steps = getattr(model, "steps", None)
    return " → ".join(type(step).__name__ for _, step in steps) if steps else type(model).__name__


def _written_by(model: Any) -> dict[str, str]:
    found = getattr(model, "__dict__", {}).get("_sklearn_version")
    return {"scikit-learn": str(found)} if found else {}


def _task(model: Any) -> tuple[str, tuple[object, ...]]:
    base = extras.load("sklearn.base")
    if not hasattr(model, "predict"):
        raise not_a_model(model)
    _require_fitted(model)
    if base.is_classifier(model):
        return _classes(model)
    if base.is_regressor(model):
        return "regression", ()
    if base.is_clusterer(model) or type(model).__module__.startswith("sklearn.mixture."):
        return "cluster", ()
    if base.is_outlier_detector(model):
        return "outlier", ()
    raise UnsupportedModel(
        f"{type(model).__name__} is neither classifier, regressor, clusterer nor outlier detector",
        hint="Wrap it in a scikit-learn classifier or regressor.",
    )


def _has_scores(model: Any) -> bool:
    """Say whether scores mean something by themselves, which those of pairs of classes do not."""
    end = _last(_unwrap(_last(model)))
    return hasattr(model, "decision_function") and getattr(end, "decision_function_shape", "ovr") == "ovr"


def _last(model: Any) -> Any:
    return model.steps[-1][1] if hasattr(model, "steps") else model


def _classes(model: Any) -> tuple[str, tuple[object, ...]]:
    found = getattr(model, "classes_", None)
    if found is None or isinstance(found, list):
        return "several", tuple(tuple(map(plain, each)) for each in found or ())
    classes = tuple(plain(each) for each in found)
    return ("binary" if len(classes) == 2 else "multiclass"), classes


def _require_fitted(model: Any) -> None:
    validation = extras.load("sklearn.utils.validation")
    exceptions = extras.load("sklearn.exceptions")
    parts = [step for _, step in getattr(model, "steps", ()) if step is not None and not isinstance(step, str)]
    # a transformer of a user's own may learn nothing, and scikit-learn cannot tell that from one never fitted
    parts = [part for part in parts[:-1] if type(part).__module__.startswith("sklearn.")] + parts[-1:]
    for part in parts or [model]:
        try:
            validation.check_is_fitted(part)
        except exceptions.NotFittedError:
            raise NotFitted(
                f"This {type(part).__name__} is not fitted", hint="Call its fit first, then pack it."
            ) from None
        except TypeError:
            raise not_a_model(part) from None


# ---- the walk --------------------------------------------------------------------------------------


def _survey(model: Any, names: Sequence[str]) -> Survey:
    head = _first_step(model)
    kind = type(head).__name__
    if kind == "DictVectorizer":
        return Survey("dicts", _read_dict_vectorizer(head, _coefficients(model)))
    if kind in _TEXT:
        survey = Survey("texts", {names[0] if len(names) == 1 else "text": Column()})
        _learn(head, list(survey.columns), survey.columns)
        return survey
    known, count = _names(model, head)
    if known is None and count is None:  # its first step is a user's own
        if not names:
            raise ModelError(
                "The model does not know how many inputs it has",
                hint="Give rows that it was trained on: --data rows.csv, or data= in Python.",
            )
        known = names
    form = "frame" if known is not None else "array"
    given = list(names) if len(names) == count else [f"x{place}" for place in range(count or 0)]
    survey = Survey(form, {name: Column() for name in ([str(n) for n in known] if known is not None else given)})
    _learn(_unwrap(model), list(survey.columns), survey.columns)
    return survey


def _names(model: Any, head: Any) -> tuple[Any, int | None]:
    """Give the names of the inputs, if they have any, and their number, if it is known."""
    if _is_ensemble(head):
        told: Any = adapter_for(head)
        found = told.survey(head, ())
        return ([each.name for each in found.columns] if found.named else None), len(found.columns)
    known = _attribute(model, "feature_names_in_")
    if known is None:
        known = _attribute(head, "feature_names_in_")
    return known, _attribute(model, "n_features_in_") or _attribute(head, "n_features_in_")


def _attribute(model: Any, name: str) -> Any:
    try:
        return getattr(model, name, None)
    except (AttributeError, IndexError):  # a Pipeline asks its first step, which may have none
        return None


def _unwrap(model: Any) -> Any:
    """Step through wrappers such as GridSearchCV to the fitted estimator that reads the input."""
    for _ in range(20):
        if hasattr(model, "steps") or hasattr(model, "transformers_"):
            return model
        inner = next((found for name in INNER if (found := _attribute(model, name)) is not None), None)
        if inner is None or isinstance(inner, str) or not _reads_raw(model):
            return model
        first = inner[0] if isinstance(inner, list) and inner else inner
        model = getattr(first, "estimator", first) if type(first).__name__ == "_CalibratedClassifier" else first
    return model


def _reads_raw(model: Any) -> bool:
    module = type(model).__module__
    ensembles = "sklearn.ensemble._voting", "sklearn.ensemble._stacking"
    return not module.startswith("sklearn.ensemble.") or module in ensembles


def _first_step(model: Any) -> Any:
    model = _unwrap(model)
    while steps := _attribute(model, "steps") or _attribute(model, "transformer_list"):
        real = [step for _, step in steps if step is not None and not isinstance(step, str)]
        model = _unwrap(real[0])
    return model


_TEXT: Final = frozenset({"TfidfVectorizer", "CountVectorizer", "HashingVectorizer"})
_KEEPS_COLUMNS: Final = frozenset({"SimpleImputer", "KNNImputer", "IterativeImputer", "StandardScaler", "MinMaxScaler"})


def _learn(step: Any, names: list[str], columns: dict[str, Column]) -> None:
    if hasattr(step, "steps"):
        _learn_steps(step, names, columns)
    elif hasattr(step, "transformers_"):
        _learn_columns(step, names, columns)
    elif hasattr(step, "transformer_list"):
        for _, inner in step.transformer_list:
            _learn(_unwrap(inner), names, columns)
    elif _attribute(step, "_preprocessor") is not None:  # histogram boosting with categories of its own
        _learn_columns(step._preprocessor, names, columns)
        for name in names:
            columns[name].takes_gaps = True
    elif reader := _READERS.get(type(step).__name__):
        reader(step, [columns[name] for name in names])
    elif _is_ensemble(step):
        _read_ensemble(step, [columns[name] for name in names])


def _learn_steps(step: Any, names: list[str], columns: dict[str, Column]) -> None:
    for _, inner in step.steps:
        if inner is None or isinstance(inner, str):
            continue
        _learn(_unwrap(inner), names, columns)
        if type(inner).__name__ not in _KEEPS_COLUMNS:
            return


def _learn_columns(step: Any, names: list[str], columns: dict[str, Column]) -> None:
    touched: set[str] = set()
    for _, inner, chosen in step.transformers_:
        picked = _picked(chosen, names)
        if isinstance(inner, str) and inner == "drop":
            continue
        touched |= set(picked)
        if not isinstance(inner, str):
            _learn(_unwrap(inner), picked, columns)
    for name in set(names) - touched:
        columns[name].dropped = True


def _picked(chosen: Any, names: list[str]) -> list[str]:
    if isinstance(chosen, str):
        return [chosen]
    if isinstance(chosen, int):
        return [names[chosen]]
    if isinstance(chosen, slice):
        return names[_place(chosen.start, names, 0) : _place(chosen.stop, names, 1) : chosen.step]
    listed = list(chosen)
    if listed and all(isinstance(plain(each), bool) for each in listed):
        return [name for name, take in zip(names, listed, strict=True) if take]
    return [each if isinstance(each, str) else names[int(each)] for each in listed]


def _place(end: object, names: list[str], beyond: int) -> Any:
    """Give one end of a slice as a number; a slice by names holds its last one, as pandas' do."""
    return names.index(end) + beyond if isinstance(end, str) else end


def _read_dict_vectorizer(step: Any, weights: Sequence[float]) -> dict[str, Column]:
    columns: dict[str, Column] = {}
    for place, name in enumerate(step.feature_names_):
        head, mark, value = str(name).partition(step.separator)
        column = columns.setdefault(head, Column(known=True))
        if mark:
            column.type = "category"
            column.categories += (value,)
        elif place < len(weights):
            column.plausible = _magnitude(weights[place])
    return columns


def _magnitude(weight: float) -> tuple[float, float] | None:
    """Guess a number's size from its weight: where it moves a score by about 1."""
    size = 1 / abs(weight) if abs(weight) > 1e-6 else 100.0
    return (0.0, 1.0) if size < 10 else (0.0, 2 * size)


def _coefficients(model: Any) -> list[float]:
    found = _attribute(_last(model), "coef_")
    if found is None or not hasattr(found, "ravel"):
        return []
    return [float(weight) for weight in (found[0] if found.ndim == 2 else found).ravel()]


def _read_encoder(step: Any, columns: list[Column]) -> None:
    mode = getattr(step, "handle_unknown", "ignore")  # a TargetEncoder has none: it takes the target's mean
    for column, found in zip(columns, step.categories_, strict=False):
        values = [plain(value) for value in found]
        gaps = [value for value in values if is_missing(value)]
        column.categories = tuple(v for v in values if isinstance(v, str | int | float) and not is_missing(v))
        column.type = "category"
        if column.categories and all(isinstance(value, bool) for value in column.categories):
            column.type, column.categories = "boolean", ()
        column.unknown = "refuse" if mode == "error" else "flag"
        column.takes_gaps = bool(gaps)
        if gaps and not column.imputed:
            column.gap = gaps[0]
        column.known = True


def _read_imputer(step: Any, columns: list[Column]) -> None:
    statistics = getattr(step, "statistics_", ())
    for place, column in enumerate(columns):
        column.imputed = True
        if place < len(statistics) and isinstance(plain(statistics[place]), str):
            column.type = "text"
        column.gap = getattr(step, "missing_values", column.gap)


def _read_text(step: Any, columns: list[Column]) -> None:
    words = [word for word in getattr(step, "vocabulary_", {}) if str(word).isalpha()]
    for column in columns:
        column.type, column.known, column.words = "text", True, sorted(words)[:2000]


def _is_ensemble(step: Any) -> bool:
    return any(cls.__module__.partition(".")[0] in ENSEMBLES for cls in type(step).__mro__)


def _read_ensemble(step: Any, columns: list[Column]) -> None:
    told: Any = adapter_for(step)
    for column, each in zip(columns, told.survey(step, ()).columns, strict=False):
        if not column.known and not column.imputed:
            column.type, column.categories, column.coded = (
                "category" if each.coded else each.type,
                each.coded,
                each.coded,
            )
            column.unknown, column.known = each.unknown, each.settled
            column.takes_gaps = each.optional and each.type != "boolean"  # which pandas would make an object column


def _read_spread(middle: str, width: str, reach: float) -> Callable[[Any, list[Column]], None]:
    def read(step: Any, columns: list[Column]) -> None:
        centers, widths = getattr(step, middle, None), getattr(step, width, None)
        if centers is None or widths is None:
            return
        for column, center, wide in zip(columns, centers, widths, strict=False):
            column.plausible = (float(center) - reach * float(wide), float(center) + reach * float(wide))

    return read


def _read_bounds(step: Any, columns: list[Column]) -> None:
    for column, low, high in zip(columns, step.data_min_, step.data_max_, strict=False):
        column.plausible = (float(low), float(high))


_READERS: Final[Mapping[str, Callable[[Any, list[Column]], None]]] = {
    "OneHotEncoder": _read_encoder,
    "OrdinalEncoder": _read_encoder,
    "TargetEncoder": _read_encoder,
    "SimpleImputer": _read_imputer,
    "KNNImputer": _read_imputer,
    "IterativeImputer": _read_imputer,
    "StandardScaler": _read_spread("mean_", "scale_", 1.0),
    "RobustScaler": _read_spread("center_", "scale_", 1.0),
    "MinMaxScaler": _read_bounds,
    "TfidfVectorizer": _read_text,
    "CountVectorizer": _read_text,
    "HashingVectorizer": _read_text,
}


# ---- asking ----------------------------------------------------------------------------------------


def requirements() -> dict[str, str]:
    """Name the distributions that the model needs, with their installed versions."""
    return {name: version(name) for name in ("numpy", "scikit-learn")}


def inputs(model: Any, fields: Sequence[Field]) -> Inputs:
    """Say what the model is handed: each input with its field, and how it writes a gap."""
    survey = _survey(model, [each.name for each in fields])
    types = {each.name: each for each in fields}
    listed = tuple(Input(name, types.get(name), each.gap, each.coded) for name, each in survey.columns.items())
    return Inputs(survey.form, listed)


class Runner:
    """Ask a fitted model, in blocks, so that a row's answer never depends on its neighbours."""

    def __init__(self, model: Any, fields: Sequence[Field]) -> None:
        self._np: Any = extras.load("numpy")
        self.model = _single_threaded(model)
        given = inputs(model, fields)
        self._build = sibling("tables").builder(given)
        self._strings = functools.partial(sibling("tables").strings, given.form)
        self._classes = _attribute(model, "classes_")
        self._several: bool | None = None  # known once it has answered
        self._argmax = type(_last(model)).__name__ in ARGMAX
        self._probabilities = self._classes is not None and hasattr(model, "predict_proba")
        self._scores = not self._probabilities and _has_scores(model)

    def __call__(self, columns: Columns, n: int) -> Raw:
        """Answer `n` rows given as checked columns."""
        gap = -n % BLOCK
        if gap:
            columns = {name: values + values[-1:] * gap for name, values in columns.items()}
        with self._strings(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # unknown categories are flagged by the contract, by name
            return self._ask(self._build(columns, n + gap), n)

    def _ask(self, inputs: Any, n: int) -> Raw:
        if self._several is None:
            self._several = _flat(self._np.asarray(self.model.predict(inputs))).ndim == 2
        if self._several:
            return self._ask_for_several(inputs, n)
        if not self._probabilities:
            labels = _flat(self.model.predict(inputs))[:n].tolist()
            scores = self.model.decision_function(inputs)[:n].tolist() if self._scores else None
            return Raw(labels, scores=scores)
        found = self.model.predict_proba(inputs)
        if self._argmax and not self._has_ties(found[:n]):
            labels = self._classes[found[:n].argmax(axis=1)]
        else:
            labels = self.model.predict(inputs)[:n]
        return Raw(labels.tolist(), probabilities=found[:n].tolist())

    def _ask_for_several(self, inputs: Any, n: int) -> Raw:
        labels = self._np.asarray(self.model.predict(inputs))[:n].tolist()
        if not self._probabilities:
            return Raw(labels)
        found = self.model.predict_proba(inputs)
        if isinstance(found, list):  # a table for each target
            return Raw(labels, [list(row) for row in zip(*(each[:n].tolist() for each in found), strict=True)])
        rows: list[Any] = [[[1.0 - p, p] for p in row] for row in found[:n].tolist()]
        return Raw(labels, rows)

    def _has_ties(self, found: Any) -> bool:
        top = self._np.sort(found, axis=1)
        return bool((top[:, -1] - top[:, -2] < TIE).any()) if found.shape[1] > 1 else False


def _flat(labels: Any) -> Any:
    """Take the one target out of a model that was fitted on a table of one column."""
    return labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels


def _single_threaded(model: Any) -> Any:
    """Ask for one thread: starting a pool for one row costs more than the row, and sums change their order."""
    with contextlib.suppress(AttributeError):  # one saved by an older scikit-learn may lack a setting of today's
        if hasattr(model, "get_params") and hasattr(model, "set_params"):
            pools = {name: 1 for name, value in model.get_params().items() if name.endswith("n_jobs") and value}
            if pools:
                model.set_params(**pools)
    return model


def runner(model: Any, fields: Sequence[Field]) -> Runner:
    """Prepare the model to answer checked columns."""
    importlib.import_module("sklearn")
    return Runner(model, fields)
