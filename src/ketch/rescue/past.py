"""Opens files of older scikit-learn as today's objects: each object is brought up to date as it is given its state.

old state --*today's class, what it lacks filled in*--> today's object

That its answers are the old ones is not believed but proved, by the witness.
"""

import copy
import functools
import importlib
import inspect
import io
import pickle
import warnings
from collections.abc import Callable
from typing import Any, Final

from ketch.errors import UnsupportedModel
from ketch.extras import load as extra
from ketch.trust import Lists, Pair, lists, sibling

Unpickle: Any = sibling("unpickle")
State = dict[str, Any]

MOVED: Final = {  # what stands elsewhere today
    ("sklearn.preprocessing._data", "PolynomialFeatures"): "sklearn.preprocessing._polynomial",
}
LOSSES: Final = {  # names that losses once had
    "auto": "log_loss",
    "log": "log_loss",
    "squared_loss": "squared_error",
    "binary_crossentropy": "log_loss",
    "categorical_crossentropy": "log_loss",
    "deviance": "log_loss",
    "lad": "absolute_error",
    "least_absolute_deviation": "absolute_error",
    "least_squares": "squared_error",
    "ls": "squared_error",
}
VERSION: Final = "_sklearn_version"
SHARES_SINCE: Final = (1, 4)  # before, a tree's leaves kept counts


class Gone:
    """Stands in for an object whose class no longer exists."""

    def __init__(self, *_: object) -> None:
        self.state: object = None

    def __setstate__(self, state: object) -> None:
        self.state = state


def load(data: bytes, known: Lists) -> object:
    """Return what the file holds, as today's objects, opened under the gate and checked.

    Raises:
        Fault: it asks for something off the lists, or what came out is not sound.
    """
    desk = PastDesk(known)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that versions differ is what this is for
        model = PastUnpickler(sibling("inflate").inflate(data), desk).load()
        sibling("values").check(model, desk.classes, desk.functions)
    return model


def load_approved(data: bytes) -> object:
    """Return what an approved file holds, as today's objects; whatever is in it runs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return PastUnpickler(sibling("inflate").inflate(data), OpenDesk(lists())).load()


class PastDesk(Unpickle.Desk):  # type: ignore[misc]
    """Hands out listed pairs only; for what no longer exists, what took its place."""

    known: Lists

    def find_class(self, module: str, name: str) -> Any:
        """Return what a listed pair names today.

        Raises:
            Fault: the pair is on no list.
        """
        if name == "_ufunc_reconstruct":
            return self.find_class  # a function of numpy's by its name, as older numpy wrote it: one on the list
        try:
            return super().find_class(module, name)
        except (ImportError, AttributeError):
            return self.successor(self.known.settle(module, name))

    def successor(self, pair: Pair) -> Any:
        """Return what took the place of a class or function that scikit-learn no longer has."""
        module, name = pair
        if pair in MOVED:
            return super().find_class(MOVED[pair], name)
        if module == "sklearn.metrics._dist_metrics" and not name.endswith(("32", "64")):
            return super().find_class(module, f"{name}64")
        if name == "_passthrough_scorer":
            return None  # only a search's score asks for it
        return Gone

    def nested(self, file: io.BytesIO) -> Any:
        """Make the unpickler of a stream inside another."""
        return NestedUnpickler(file, self)


class OpenDesk(PastDesk):
    """Hands out whatever an approved file names."""

    def find_class(self, module: str, name: str) -> Any:
        """Return what a pair names today, on a list or not."""
        pair = self.known.settle(module, name)
        if self.known.holds(pair):
            return super().find_class(module, name)
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
        return found


def _build(unpickler: Any) -> None:
    """Give an object its state, brought up to date."""
    state, made = unpickler.stack[-1], unpickler.stack[-2]
    written = state.get(VERSION) if isinstance(state, dict) else None  # which the estimator itself throws away
    unpickler.stack[-1] = before(made, state)
    Unpickle._Python.load_build(unpickler)
    after(made, unpickler.desk, written)


class NestedUnpickler(Unpickle._NestedUnpickler):  # type: ignore[misc]
    """Reads a stream inside another, such as joblib's arrays of objects."""

    dispatch: dict[int, Callable[..., None]] = {**Unpickle._NestedUnpickler.dispatch, pickle.BUILD[0]: _build}  # noqa: RUF012


class PastUnpickler(Unpickle._JoblibUnpickler):  # type: ignore[misc]
    """Reads a pickle or joblib file of an older scikit-learn."""

    def load_build(self) -> None:
        """Give an object its state; an array of joblib's is read from behind it."""
        if isinstance(self.stack[-2], Unpickle.Wrapped):
            super().load_build()
        else:
            _build(self)

    dispatch: dict[int, Callable[..., None]] = {**Unpickle._JoblibUnpickler.dispatch, pickle.BUILD[0]: load_build}  # noqa: RUF012


# ---- what changed ----------------------------------------------------------------------------------


def before(made: object, state: Any) -> Any:
    """Bring a state up to date that the class itself would refuse."""
    kind = f"{type(made).__module__}.{type(made).__name__}"
    if kind == "sklearn.tree._tree.Tree":
        today = importlib.import_module("sklearn.tree._tree").NODE_DTYPE
        return {**state, "nodes": _recorded(state["nodes"], today)}
    if kind.endswith("_hist_gradient_boosting.predictor.TreePredictor"):
        today = importlib.import_module("sklearn.ensemble._hist_gradient_boosting.common").PREDICTOR_RECORD_DTYPE
        return {**state, "nodes": _recorded(state["nodes"], today)}
    if isinstance(made, functools.partial):
        function, given, named, kept = state
        renamed = {"ensure_all_finite" if name == "force_all_finite" else name: named[name] for name in named}
        return function, given, renamed, kept
    return state


def _recorded(nodes: Any, today: Any) -> Any:
    """Copy records field by field; a field that did not exist is zero."""
    if nodes.dtype == today:
        return nodes
    made = extra("numpy").zeros(nodes.shape, dtype=today)
    for name in nodes.dtype.names:
        made[name] = nodes[name]
    return made


def after(made: Any, desk: PastDesk, written: object) -> None:
    """Fill in what an object of today has and the older one lacks."""
    state = getattr(made, "__dict__", None)
    if not isinstance(state, dict) or not type(made).__module__.startswith("sklearn."):
        return
    state[VERSION] = written
    _rename(made, state)
    for name, default in _parameters(type(made)).items():
        state.setdefault(name, copy.copy(default))
    for kind in type(made).__mro__:
        if kind.__name__ in CHANGES:
            CHANGES[kind.__name__](made, state, desk)
    for name, value in state.items():
        if isinstance(value, Gone):
            state[name] = None
    state.pop(VERSION, None)


def _rename(made: Any, state: State) -> None:
    for name in [name for name in state if name.startswith("base_estimator")]:
        if not isinstance(getattr(type(made), name, None), property):
            state.setdefault(name.removeprefix("base_"), state[name])
        del state[name]


def _parameters(cls: type) -> State:
    base = extra("sklearn.base").BaseEstimator
    if not issubclass(cls, base):
        return {}
    found = inspect.signature(cls.__init__).parameters.values()  # type: ignore[misc]
    return {each.name: each.default for each in found if each.default is not each.empty}


def version_of(state: State) -> tuple[int, ...]:
    """Return major and minor of the scikit-learn that an estimator's state comes from."""
    parts = str(state.get(VERSION) or "0.17").split(".")[:2]
    return tuple(int(part) if part.isdigit() else 0 for part in parts)


def _tree_classifier(_: Any, state: State, desk: PastDesk) -> None:
    if version_of(state) >= SHARES_SINCE or "tree_" not in state:
        return
    numpy, value = extra("numpy"), state["tree_"].value
    total = value.sum(axis=2, keepdims=True)
    value /= numpy.where(total == 0, 1, total)


def _histogram_boosting(made: Any, state: State, desk: PastDesk) -> None:
    state["loss"] = LOSSES.get(state["loss"], state["loss"])
    if "_predictors" not in state:
        return
    for name in ("_preprocessor", "_is_categorical_remapped"):
        state.setdefault(name, None)
    state["_baseline_prediction"] = extra("numpy").asarray(state["_baseline_prediction"], "f8").reshape(1, -1)
    state["_loss"] = made._get_loss(sample_weight=None)


def _gradient_boosting(made: Any, state: State, desk: PastDesk) -> None:
    state["loss"] = LOSSES.get(state["loss"], state["loss"])
    state.pop("loss_", None)
    grid = state.get("estimators_")
    if grid is not None:
        state.setdefault("n_trees_per_iteration_", grid.shape[1])
        state["_loss"] = made._get_loss(sample_weight=None)


def _gradient_descent(_: Any, state: State, desk: PastDesk) -> None:
    state["loss"] = LOSSES.get(state["loss"], state["loss"])


def _bins(_: Any, state: State, desk: PastDesk) -> None:
    state.setdefault("n_threads", 1)


def _encoder(made: Any, state: State, desk: PastDesk) -> None:
    if "categories_" not in state:
        return
    state.setdefault("_infrequent_enabled", False)
    if "sparse" in state:
        state["sparse_output"] = state.pop("sparse")
    state.setdefault("n_features_in_", len(state["categories_"]))
    if type(made).__name__ == "OrdinalEncoder":
        state.setdefault("_missing_indices", {})
    if type(made).__name__ != "OneHotEncoder":
        return
    state.setdefault("_drop_idx_after_grouping", state.get("drop_idx_"))
    state.setdefault("_n_features_outs", made._compute_n_features_outs())


def _simple_imputer(_: Any, state: State, desk: PastDesk) -> None:
    if "statistics_" in state:
        state.setdefault("_fit_dtype", state["statistics_"].dtype)
        state.setdefault("_fill_dtype", state["_fit_dtype"])


def _nearest_imputer(_: Any, state: State, desk: PastDesk) -> None:
    if "_mask_fit_X" in state:
        state.setdefault("_valid_mask", ~state["_mask_fit_X"].all(axis=0))


def _column_transformer(_: Any, state: State, desk: PastDesk) -> None:
    if "transformers_" not in state:
        return
    for old in ("_feature_names_in", "_df_columns"):
        if state.get(old) is not None:
            state.setdefault("feature_names_in_", extra("numpy").asarray(state[old], object))
    for name in ("transformers", "transformers_"):
        state[name] = [(*each[:-1], _columns(each[-1])) for each in state[name]]
    state["_remainder"] = (*state["_remainder"][:-1], _columns(state["_remainder"][-1]))
    if "_transformer_to_input_indices" not in state:
        state["_transformer_to_input_indices"] = _indices(state)
    state.setdefault("output_indices_", {})
    state["transformers_"] = [
        (name, _passed(state, name, desk) if isinstance(step, str) and step == "passthrough" else step, columns)
        for name, step, columns in state["transformers_"]
    ]


def _columns(columns: Any) -> Any:
    """Take the columns out of the list that warned when it was read."""
    return list(columns.state["data"]) if isinstance(columns, Gone) and isinstance(columns.state, dict) else columns


def _passed(state: State, name: str, desk: PastDesk) -> Any:
    """Make what today passes columns on, where there once was a word."""
    function: Any = desk.find_class("sklearn.preprocessing._function_transformer", "FunctionTransformer")
    made = function(accept_sparse=True, check_inverse=False, feature_names_out="one-to-one")
    places = list(state["_transformer_to_input_indices"][name])
    made.n_features_in_ = len(places)
    if "feature_names_in_" in state:
        made.feature_names_in_ = state["feature_names_in_"][places]
    return made


def _indices(state: State) -> dict[str, list[int]]:
    names = state.get("feature_names_in_")
    count = state.get("_n_features", state.get("n_features_in_"))
    find = importlib.import_module("sklearn.utils._indexing")._get_column_indices
    pandas, numpy = extra("pandas"), extra("numpy")
    frame = pandas.DataFrame(numpy.zeros((1, count)), columns=names)
    found = {}
    for name, _, columns in state["transformers_"]:
        empty = columns is None or (isinstance(columns, list) and not columns)
        found[name] = [] if empty else list(find(frame if names is not None else frame.to_numpy(), columns))
    return found


def _powers(made: Any, state: State, desk: PastDesk) -> None:
    if "n_output_features_" not in state or "_n_out_full" in state:
        return
    features, degree = state.get("n_features_in_", state.get("n_input_features_")), state["degree"]
    state |= {"_min_degree": 0, "_max_degree": degree}
    state["_n_out_full"] = made._num_combinations(
        n_features=features,
        min_degree=0,
        max_degree=degree,
        interaction_only=state["interaction_only"],
        include_bias=state["include_bias"],
    )


def _tfidf(_: Any, state: State, desk: PastDesk) -> None:
    if "_idf_diag" in state:
        state["idf_"] = state.pop("_idf_diag").diagonal()


def _gaussian_bayes(_: Any, state: State, desk: PastDesk) -> None:
    if "sigma_" in state:
        state.setdefault("var_", state.pop("sigma_"))


def _stacking(_: Any, state: State, desk: PastDesk) -> None:
    if "classes_" not in state or "_label_encoder" in state:
        return
    encoder: Any = desk.find_class("sklearn.preprocessing._label", "LabelEncoder")()
    encoder.classes_ = state["classes_"]
    state["_label_encoder"] = encoder


def _isolation(_: Any, state: State, desk: PastDesk) -> None:
    if "_decision_path_lengths" in state or "estimators_" not in state:
        return
    average = importlib.import_module("sklearn.ensemble._iforest")._average_path_length
    trees = [each.tree_ for each in state["estimators_"]]
    state["_average_path_length_per_tree"] = tuple(average(tree.n_node_samples) for tree in trees)
    state["_decision_path_lengths"] = tuple(tree.compute_node_depths() for tree in trees)


def _samme_r(_: Any, state: State, desk: PastDesk) -> None:
    if state.get("algorithm") == "SAMME.R":
        raise UnsupportedModel(
            "AdaBoostClassifier with SAMME.R does not exist since scikit-learn 1.6",
            hint="Fit the model again with today's scikit-learn, from the script that made it.",
        )


def _logistic(made: Any, state: State, desk: PastDesk) -> None:
    """Make one model for each class out of a `multi_class="ovr"` of three or more, which no longer exists."""
    way = state.pop("multi_class", None)
    liblinear = way in {"auto", "deprecated", "warn"} and state.get("solver") == "liblinear"
    classes = state.get("classes_")
    if classes is None or len(classes) < 3 or not (way == "ovr" or liblinear):
        return
    numpy = extra("numpy")
    alone = []
    for place in range(len(classes)):
        one = copy.copy(made)
        one.coef_, one.intercept_ = state["coef_"][[place]], state["intercept_"][[place]]
        one.classes_ = numpy.array([0, 1])
        alone.append(one)
    binarizer: Any = desk.find_class("sklearn.preprocessing._label", "LabelBinarizer")(sparse_output=True)
    binarizer.fit(classes)
    made.__class__ = desk.find_class("sklearn.multiclass", "OneVsRestClassifier")
    kept = {name: state[name] for name in ("n_features_in_", "feature_names_in_") if name in state}
    settings = {"estimator": copy.copy(alone[0]), "n_jobs": None, "verbose": 0}
    state.clear()
    state.update(kept | settings | {"estimators_": alone, "label_binarizer_": binarizer, "classes_": classes})


Change = Callable[[Any, State, PastDesk], None]
CHANGES: Final[dict[str, Change]] = {
    "AdaBoostClassifier": _samme_r,
    "BaseGradientBoosting": _gradient_boosting,
    "BaseHistGradientBoosting": _histogram_boosting,
    "BaseSGD": _gradient_descent,
    "ColumnTransformer": _column_transformer,
    "DecisionTreeClassifier": _tree_classifier,
    "GaussianNB": _gaussian_bayes,
    "IsolationForest": _isolation,
    "KNNImputer": _nearest_imputer,
    "LogisticRegression": _logistic,
    "PolynomialFeatures": _powers,
    "SimpleImputer": _simple_imputer,
    "StackingClassifier": _stacking,
    "TfidfTransformer": _tfidf,
    "_BaseEncoder": _encoder,
    "_BinMapper": _bins,
}
