"""Neighbours: distances from all points of the training, the nearest of them or those within a radius.

row --*measured*--> reduced distances --*TopK* or *<=*--> points --> what they vote, or how dense they lie

A reduced distance has the same order as the distance and is cheaper: the square of Euclid's. Where the original walks a
tree, it adds up one column after the other, and so does the graph; where it multiplies matrices, the graph does too.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from ketch.compiler import NotCompiled, estimator
from ketch.compiler.build import Build
from ketch.compiler.values import Answers, Tensor, X
from ketch.schema import LARGEST

Step = Callable[[Any], Any]


@dataclass(frozen=True)
class Distances:
    """Reduced distances (rows, points), and how a distance is reduced and comes back."""

    reduced: Tensor
    back: Step
    reduce: Step


def _dense(found: Any) -> Any:
    return (found.toarray() if hasattr(found, "toarray") else found).astype(float)


def _summed(g: Build, x: Tensor, count: int, kind: str = "Sum") -> Tensor:
    return g.node(f"Reduce{kind}", x, g.integers([1]), keepdims=0, width=count)


def _same(value: Any) -> Any:
    return value


def measured(g: Build, model: Any, x: X) -> Distances:
    """Measure how far all points of the training are.

    Raises:
        NotCompiled: the metric has no compiled form.
    """
    points, metric = _dense(model._fit_X), model.effective_metric_
    if metric in {"euclidean", "l2", "sqeuclidean"}:
        return _squared(g, model, x, points)
    if metric == "cosine":
        along: Tensor = _unit(g, x) @ (points / _lengths(g, points)).T
        return Distances(g.node("Clip", 1.0 - along, g.np.asarray(0.0), g.np.asarray(2.0)), _same, _same)
    if metric == "minkowski":
        return _powers(g, model, x, points)
    if metric == "braycurtis" and model._fit_method != "brute":
        raise NotCompiled("braycurtis is no metric that a tree could be trusted with")
    if metric not in ABSOLUTE:
        raise NotCompiled(f"the metric {metric} has no compiled form" if isinstance(metric, str) else "its own metric")
    return Distances(ABSOLUTE[metric](g, g.apart(x, points), x, points), _same, _same)


def _squared(g: Build, model: Any, x: X, points: Any) -> Distances:
    if model._fit_method == "brute":
        reduced = g.node("Min", g.squares(x, points), LARGEST)  # the original starts from the largest float
    else:
        reduced = _summed(g, g.apart(x, points), len(points), "SumSquare")
    if model.effective_metric_ == "sqeuclidean":
        return Distances(reduced, _same, _same)
    return Distances(reduced, lambda found: g.node("Sqrt", found), lambda radius: radius * radius)


def _powers(g: Build, model: Any, x: X, points: Any) -> Distances:
    power, weights = float(model.effective_metric_params_["p"]), model.effective_metric_params_.get("w")
    raised = g.node("Pow", g.node("Abs", g.apart(x, points)), power)
    if weights is not None:
        raised = raised * g.np.asarray(weights, dtype=float)[None, :, None]
    reduced = _summed(g, raised, len(points))
    return Distances(reduced, lambda found: g.node("Pow", found, 1.0 / power), lambda radius: radius**power)


def _manhattan(g: Build, apart: Tensor, x: X, points: Any) -> Tensor:
    return _summed(g, g.node("Abs", apart), len(points))


def _chebyshev(g: Build, apart: Tensor, x: X, points: Any) -> Tensor:
    return _summed(g, g.node("Abs", apart), len(points), "Max")


def _hamming(g: Build, apart: Tensor, x: X, points: Any) -> Tensor:
    differ = 1.0 - g.cast(g.node("Equal", apart, 0.0), "double")
    found: Tensor = _summed(g, differ, len(points)) / points.shape[1]
    return found


def _sizes(g: Build, x: X, points: Any) -> Tensor:
    """Give |x| + |y| for each column."""
    own = g.node("Abs", g.node("Unsqueeze", g.tensor(x), g.integers([2])))
    return g.node("Add", own, abs(points.T[None]), width=points.size)


def _canberra(g: Build, apart: Tensor, x: X, points: Any) -> Tensor:
    whole = _sizes(g, x, points)
    shares = g.node("Div", g.node("Abs", apart), whole)
    return _summed(g, g.node("Where", g.node("Equal", whole, 0.0), 0.0, shares), len(points))


def _bray_curtis(g: Build, apart: Tensor, x: X, points: Any) -> Tensor:
    whole = _summed(g, _sizes(g, x, points), len(points))
    shares = _manhattan(g, apart, x, points) / whole
    return g.node("Where", g.node("Equal", whole, 0.0), 0.0, shares)


ABSOLUTE = {
    "manhattan": _manhattan,
    "cityblock": _manhattan,
    "l1": _manhattan,
    "chebyshev": _chebyshev,
    "infinity": _chebyshev,
    "hamming": _hamming,
    "canberra": _canberra,
    "braycurtis": _bray_curtis,
}


def _lengths(g: Build, points: Any) -> Any:
    found = g.np.sqrt((points**2).sum(axis=1, keepdims=True))
    return g.np.where(found == 0.0, 1.0, found)


def _unit(g: Build, x: X) -> Tensor:
    length = g.reduce("L2", g.tensor(x))
    return g.tensor(x) / g.node("Where", g.node("Equal", length, 0.0), 1.0, length)


# ---- the nearest k ---------------------------------------------------------------------------------


def _nearest(g: Build, model: Any, x: X, count: int) -> tuple[Tensor, Tensor]:
    """Give distances and places of the nearest points; where all are too far to be told apart, it is the first.

    Of points at the same distance the original takes those that it meets first on its way through its tree.
    """
    distances, tree = measured(g, model, x), model._tree
    reduced = distances.reduced
    if tree is not None:
        reduced = g.node("Gather", reduced, g.integers(tree.idx_array), axis=1)
    found, places = g.nodes("TopK", reduced, g.integers([count]), widths=[count, count], axis=1, largest=0, sorted=1)
    if tree is not None:
        places = g.node("Gather", g.integers(tree.idx_array), places, width=count)
    far = g.node("GreaterOrEqual", found, LARGEST)
    return distances.back(found), g.node("Where", far, g.integers(0), places)


def _at(g: Build, table: Any, places: Tensor) -> Tensor:
    """Look up a row of the table (points, outputs) for each place: rows, places, outputs."""
    return g.node("Gather", table, places, axis=0, width=places.width * table.shape[1])


def _closeness(g: Build, away: Tensor) -> Tensor:
    """Weigh by one over the distance, or only what is at no distance, if anything is."""
    weights = g.node("Div", 1.0, away)
    here = g.cast(g.node("IsInf", weights), "double")
    return g.node("Where", g.node("Greater", g.reduce("Max", here), 0.0), here, weights)


def _weighted(g: Build, model: Any) -> bool:
    if model.weights not in {"uniform", "distance", None}:
        raise NotCompiled("it has weights of its own")
    return bool(model.weights == "distance")


def _averaged(g: Build, model: Any, x: X, table: Any) -> Tensor:
    """Average the rows of a table (points, outputs) over the nearest points."""
    weighted = _weighted(g, model)
    away, places = _nearest(g, model, x, model.n_neighbors)
    each, outputs = _at(g, table, places), table.shape[1]
    if not weighted:
        return _summed(g, each, outputs, "Mean")
    weights = _closeness(g, away)
    each = g.node("Mul", each, g.node("Unsqueeze", weights, g.integers([2])))
    return _summed(g, each, outputs) / g.reduce("Sum", weights)


def _votes(g: Build, model: Any) -> list[Any]:
    """Give a table (points, classes) of ones and zeros for each target."""
    if not model.outputs_2d_:
        return [g.np.eye(len(model.classes_))[model._y]]
    return [g.np.eye(len(classes))[own] for classes, own in zip(model.classes_, model._y.T, strict=True)]


def _each(parts: Sequence[Answers]) -> Answers:
    return parts[0] if len(parts) == 1 else Answers(parts=tuple(parts))


def _worth(model: Any) -> Any:
    return model._y.reshape(len(model._y), -1).astype(float)


@estimator("KNeighborsClassifier")
def voted(g: Build, model: Any, x: X) -> Answers:
    """Lower to the votes of the nearest; Fix and Hodges 1951."""
    tables = _votes(g, model)
    shares = _averaged(g, model, x, g.np.concatenate(tables, axis=1))
    if len(tables) == 1:
        return Answers(probabilities=shares)
    ends = g.np.cumsum([0, *(table.shape[1] for table in tables)])
    return _each([Answers(probabilities=g.tensor(g.take(shares, range(*pair)))) for pair in pairwise(ends)])


@estimator("KNeighborsRegressor")
def averaged(g: Build, model: Any, x: X) -> Answers:
    """Lower to the mean of the nearest."""
    return Answers(values=_averaged(g, model, x, _worth(model)))


# ---- all within a radius ---------------------------------------------------------------------------


def _within(g: Build, model: Any, x: X) -> Tensor:
    """Give the weight of each point, zero outside the radius."""
    weighted = _weighted(g, model)
    distances = measured(g, model, x)
    inside = g.cast(g.node("LessOrEqual", distances.reduced, float(distances.reduce(model.radius))), "double")
    if not weighted:
        return inside
    return g.node("Where", g.node("Greater", inside, 0.0), _closeness(g, distances.back(distances.reduced)), 0.0)


@estimator("RadiusNeighborsClassifier")
def voted_within(g: Build, model: Any, x: X) -> Answers:
    """Lower to the votes of all within the radius; without any, to the label for outliers or no answer."""
    weights = _within(g, model, x)
    classes = model.classes_ if model.outputs_2d_ else [model.classes_]
    labels = model.outlier_label_ or [None] * len(classes)
    return _each([_shares(g, weights, *each) for each in zip(_votes(g, model), classes, labels, strict=True)])


def _shares(g: Build, weights: Tensor, table: Any, classes: Any, label: Any) -> Answers:
    votes = weights @ table
    whole = g.reduce("Sum", votes)
    shares = votes / whole
    if label is None:
        return Answers(probabilities=shares)
    other = (g.np.asarray(classes) == label).astype(float)
    if other.sum() != 1:
        raise NotCompiled("its label for outliers is none of the classes")
    alone = g.node("Equal", whole, 0.0)
    return Answers(probabilities=g.node("Where", alone, other[None, :], shares, width=shares.width))


@estimator("RadiusNeighborsRegressor")
def averaged_within(g: Build, model: Any, x: X) -> Answers:
    """Lower to the mean of all within the radius; without any there is no answer."""
    weights = _within(g, model, x)
    return Answers(values=weights @ _worth(model) / g.reduce("Sum", weights))


# ---- centroids, densities and labels that spread ---------------------------------------------------


@estimator("NearestCentroid")
def centroid(g: Build, model: Any, x: X) -> Answers:
    """Lower to the nearest centroid, weighed by its prior; Tibshirani et al. 2002."""
    np, centers = g.np, model.centroids_.astype(float)
    if model.metric == "manhattan":
        reduced = _manhattan(g, g.apart(x, centers), x, centers)
        return Answers(labels=g.node("ArgMin", reduced, axis=1, keepdims=0, width=1))
    nearest = g.node("ArgMin", g.squares(x, centers), axis=1, keepdims=0, width=1)
    if not hasattr(model, "class_prior_"):  # before scikit-learn 1.6
        return Answers(labels=nearest)
    scale = np.where(model.within_class_std_dev_ != 0, model.within_class_std_dev_, 1.0)
    joint = 2.0 * np.log(model.class_prior_)[None, :] - g.squares(g.arithmetic(x, "/", scale), centers / scale)
    scores = joint if joint.width > 2 else g.linear(joint, g.np.array([[-1.0], [1.0]]))
    even = np.isclose(model.class_prior_, 1.0 / len(centers)).all()
    labels = nearest if even else g.node("ArgMax", joint, axis=1, keepdims=0, width=1)
    return Answers(probabilities=g.linked("softmax", joint), scores=scores, labels=labels)


@estimator("LocalOutlierFactor")
def local_outliers(g: Build, model: Any, x: X) -> Answers:
    """Lower to the density of the nearest over a row's own; Breunig et al. 2000."""
    if not model.novelty:
        raise NotCompiled("it was fitted to tell outliers of its training alone")
    count = model.n_neighbors_
    away, places = _nearest(g, model, x, count)
    reach = g.node("Max", away, g.node("Gather", model._distances_fit_X_[:, count - 1].astype(float), places, axis=0))
    density = g.node("Div", 1.0, g.reduce("Mean", reach) + 1e-10)
    ratios = g.node("Gather", model._lrd.astype(float), places, axis=0, width=count) / density
    scores = (-float(model.offset_)) - g.reduce("Mean", ratios)
    return Answers(scores=scores, labels=g.signs(scores))


@estimator("LabelPropagation", "LabelSpreading")
def propagated(g: Build, model: Any, x: X) -> Answers:
    """Lower to the labels that spread to the points nearby; Zhu and Ghahramani 2002, Zhou et al. 2004."""
    table = model.label_distributions_
    if model.kernel == "knn":
        _, places = _nearest(g, model.nn_fit, x, model.nn_fit.n_neighbors)
        spread = _summed(g, _at(g, table, places), table.shape[1])
    elif model.kernel == "rbf":
        spread = g.node("Exp", g.squares(x, _dense(model.X_)) * -float(model.gamma)) @ table
    else:
        raise NotCompiled("it has a kernel of its own")
    return Answers(probabilities=spread / g.reduce("Sum", spread))
