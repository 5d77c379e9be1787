"""What changed between versions of scikit-learn that files of the older one stumble over."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

Release = tuple[int, int]

# what a file names -> since when, and what then goes wrong
FORESEEN: Final[tuple[tuple[Release, tuple[str, ...], str], ...]] = (
    ((1, 3), ("sklearn.tree._tree.Tree",), "decision trees are kept in another form since 1.3"),
    ((1, 4), ("sklearn.tree._tree.Tree",), "the leaves of trees hold shares, not counts, since 1.4"),
    ((1, 4), ("ensemble._gb_losses.", "ensemble.gradient_boosting."), "gradient boosting has other losses since 1.4"),
    ((1, 4), ("HistGradientBoosting",), "histogram boosting prepares its categories itself since 1.4"),
    ((1, 6), ("_loss.Cy", "_loss.__pyx_unpickle"), "losses are kept in another form since 1.6"),
    ((1, 2), ("OneHotEncoder", "OrdinalEncoder"), "encoders know rare categories since 1.2"),
    ((1, 8), ("SimpleImputer", "KNNImputer"), "imputers remember more of what they were fitted on since 1.8"),
    ((1, 4), ("ColumnTransformer",), "columns passed through are kept in another form since 1.4"),
    ((1, 7), ("_RemainderColsList",), "the list of remaining columns is an ordinary one since 1.7"),
    ((1, 5), ("Tfidf",), "the weights of TF-IDF have another name since 1.5"),
    ((1, 3), ("_dist_metrics.EuclideanDistance", "_dist_metrics.newObj"), "distances are other classes since 1.3"),
    ((1, 3), ("GridSearchCV", "RandomizedSearchCV"), "searches keep their scorer in another form since 1.3"),
    ((1, 2), ("CalibratedClassifierCV", "Bagging", "AdaBoost"), "base_estimator is called estimator since 1.2"),
    ((1, 2), ("StackingClassifier",), "stacking keeps its classes in another form since 1.2"),
    ((1, 6), ("_sgd_fast.",), "the losses of SGD are other classes since 1.6"),
)
SHOWN: Final = 3


def release(version: str) -> Release:
    """Give major and minor of a version; 0.17 stands for files that name none."""
    parts = (version or "0.17").split(".")
    major, minor = (int(part) if part.isdigit() else 0 for part in [*parts, "0"][:2])
    return major, minor


def foreseen(imports: Sequence[str], written: str) -> str:
    """Say what changed since for the classes that a file names, at most three things."""
    found = [
        told
        for since, names, told in FORESEEN
        if release(written) < since and any(name in each for name in names for each in imports)
    ]
    return "; ".join(found[:SHOWN])


# ---- what opens and answers, but otherwise ----------------------------------------------------------


def misread(parts: object, written: str) -> str:
    """Say what is known to answer otherwise than in the version that wrote it; empty if nothing is."""
    for made, state in _states(parts):
        for name in (each.__name__ for each in type(made).__mro__):
            if name in MISREAD and (told := MISREAD[name](state, release(written))):
                return told
    return ""


def _states(parts: object) -> Iterator[tuple[object, Mapping[str, Any]]]:
    seen: dict[int, object] = {}
    level = [parts]
    while level:
        value = level.pop()
        if id(value) in seen or isinstance(value, str | bytes | int | float):
            continue
        seen[id(value)] = value
        if isinstance(value, list | tuple):
            level += value
        elif isinstance(value, dict):
            level += value.values()
        elif getattr(getattr(value, "dtype", None), "hasobject", False):
            level += value.ravel().tolist() if hasattr(value, "ravel") else []
        elif isinstance(state := getattr(value, "__dict__", None), dict):
            yield value, state
            level += state.values()


def _counts(state: Mapping[str, Any], written: Release) -> str:
    return "its trees hold counts where shares are read since 1.4" if written < (1, 4) and "tree_" in state else ""


def _unweighted(state: Mapping[str, Any], written: Release) -> str:
    return "its TF-IDF weights have another name since 1.5" if "_idf_diag" in state and written < (1, 5) else ""


def _samme(state: Mapping[str, Any], written: Release) -> str:
    return "SAMME.R does not exist since 1.6" if state.get("algorithm") == "SAMME.R" and written < (1, 6) else ""


def _one_by_one(state: Mapping[str, Any], written: Release) -> str:
    way = state.get("multi_class")
    alone = way == "ovr" or (way in {"auto", "deprecated", "warn"} and state.get("solver") == "liblinear")
    several = "classes_" in state and len(state["classes_"]) > 2
    return "multi_class='ovr' does not exist since 1.8" if alone and several and written < (1, 8) else ""


MISREAD: Final[dict[str, Callable[[Mapping[str, Any], Release], str]]] = {
    "AdaBoostClassifier": _samme,
    "DecisionTreeClassifier": _counts,
    "LogisticRegression": _one_by_one,
    "TfidfTransformer": _unweighted,
}
