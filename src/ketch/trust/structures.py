"""What compiled code would not check by itself: indices in range, sizes that agree, trees without cycles."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

from ketch.extras import load

MERSENNE_WORDS = 624
BITSET_WORDS = 8
PARTIALS = (functools.partial, type(None))
METRICS_WITH_VECTOR = ("SEuclidean", "WMinkowski", "Mahalanobis")


def plain_array() -> Any:
    """Return numpy's ndarray class."""
    return load("numpy").ndarray


def _within(values: Any, low: int, high: int) -> bool:
    """Tell whether all values are whole numbers in [low, high)."""
    numpy = load("numpy")
    values = numpy.asarray(values)
    if values.size == 0:
        return True
    return values.dtype.kind in "iu" and bool(values.min() >= low) and bool(values.max() < high)


def _numbers_of(value: Any, *kinds: str) -> bool:
    return type(value) is plain_array() and value.dtype.kind in kinds


def _grown(left: Any, right: Any, inner: Any) -> int:
    """Return how many levels a binary tree has below its root, -1 when it is not a tree.

    A child stands after its parent and has only one, so there is no cycle and every walk ends.
    """
    numpy = load("numpy")
    count = len(left)
    here = numpy.flatnonzero(inner)
    children = numpy.concatenate([left[here], right[here]]).astype("i8")
    parents = numpy.concatenate([here, here])
    if children.size and not (_within(children, 1, count) and bool((children > parents).all())):
        return -1
    if children.size and numpy.bincount(children).max() > 1:
        return -1
    level, depth = numpy.zeros(1, "i8"), 0
    while (level := level[inner[level]]).size:
        level, depth = numpy.concatenate([left[level], right[level]]).astype("i8"), depth + 1
    return depth


def tree(value: Any) -> bool:
    """Check a decision tree's nodes and values."""
    left, right, feature = value.children_left, value.children_right, value.feature
    inner = left != -1
    if not value.node_count == len(left) >= 1 or not bool(((right != -1) == inner).all()):
        return False
    depth = _grown(left, right, inner)
    fits = value.value.shape == (value.node_count, value.n_outputs, value.max_n_classes)
    classes = value.n_classes
    classes = [classes] if isinstance(classes, int) else classes
    fits = fits and len(classes) == value.n_outputs and _within(classes, 1, value.max_n_classes + 1)
    return bool(fits and 0 <= depth <= value.max_depth) and _within(feature[inner], 0, value.n_features)


def tree_owner(value: Any) -> bool:
    """Check that a decision tree is asked with as many features as it was grown on."""
    grown = vars(value).get("tree_")
    if grown is None:
        return True
    return _is_tree(grown) and bool(vars(value)["n_features_in_"] == grown.n_features)


def _is_tree(value: object) -> bool:
    return f"{type(value).__module__}.{type(value).__name__}" == "sklearn.tree._tree.Tree"


def boosting(value: Any) -> bool:
    """Check that gradient boosting writes no more columns than it has room for."""
    state = vars(value)
    grid = state.get("estimators_")
    if grid is None:
        return True
    wide, features = grid.shape[1], int(state["n_features_in_"])
    classes = len(state["classes_"]) if "classes_" in state else 1
    if wide != (classes if classes > 2 else 1) or state.get("n_trees_per_iteration_", wide) != wide:
        return False
    trees = [vars(member)["tree_"] for member in grid.ravel()]
    if not all(_is_tree(grown) and grown.n_features == features and grown.n_outputs == 1 for grown in trees):
        return False
    first = state["init_"]
    if wide == 1 or isinstance(first, str):
        return bool(wide == 1 or first == "zero")
    answers = len(vars(first)["classes_"]), len(vars(first).get("class_prior_", [0] * classes))
    return bool(answers == (wide, wide))


def predictor(value: Any) -> bool:
    """Check one tree of histogram gradient boosting."""
    nodes, names = value.nodes, value.nodes.dtype.names
    inner = nodes["is_leaf"] == 0
    bitsets = [vars(value)[name] for name in ("raw_left_cat_bitsets", "binned_left_cat_bitsets")]
    if nodes.ndim != 1 or not len(nodes) or "is_categorical" not in names:
        return False
    if any(bitset.ndim != 2 or bitset.shape[1] != BITSET_WORDS for bitset in bitsets):
        return False
    sorted_in = nodes["bitset_idx"][inner & (nodes["is_categorical"] != 0)]
    if not all(_within(sorted_in, 0, len(bitset)) for bitset in bitsets):
        return False
    return _grown(nodes["left"], nodes["right"], inner) >= 0 and _within(nodes["feature_idx"][inner], 0, 1 << 31)


def histogram_boosting(value: Any) -> bool:
    """Check that histogram gradient boosting asks only for features that it is given."""
    numpy = load("numpy")
    state = vars(value)
    if "_predictors" not in state:
        return True
    features, categorical = int(state["n_features_in_"]), vars(state["_bin_mapper"])["is_categorical_"]
    if type(categorical) is not plain_array() or categorical.shape != (features,):
        return False
    for nodes in (vars(one)["nodes"] for row in state["_predictors"] for one in row):
        inner = nodes[nodes["is_leaf"] == 0]
        if not _within(inner["feature_idx"], 0, features):
            return False
        if not numpy.asarray(categorical, bool)[inner["feature_idx"][inner["is_categorical"] != 0]].all():
            return False
    before = state.get("_preprocessor")
    return before is None or _same_width(vars(before), features)


def _same_width(state: Mapping[str, Any], features: int) -> bool:
    """Tell whether the column transformer inside histogram boosting gives as many columns as it takes."""
    kept = [(name, step) for name, step, _ in state["transformers_"] if not isinstance(step, str)]
    for _, step in kept:
        function = vars(step).get("func")
        if type(step).__name__ not in {"OrdinalEncoder", "FunctionTransformer"} or type(function) not in PARTIALS:
            return False
    taken = sum(len(state["_transformer_to_input_indices"][name]) for name, _ in kept)
    dropped = all(step == "drop" for _, step, _ in state["transformers_"] if isinstance(step, str))
    return bool(dropped and taken == features == state["n_features_in_"] and not state["sparse_output_"])


def space_tree(value: Any) -> bool:
    """Check a KDTree or BallTree: which points each node holds, its bounds, and its metric."""
    data, index, nodes, bounds, leaf, levels, count, *_ = state = value.__getstate__()
    points, sides = data.shape
    bounds_of_node = 2 if "KDTree" in type(value).__name__ else 1
    if index.shape != (points,) or not _within(index, 0, points) or points < 1 or leaf < 1:
        return False
    if count != len(nodes) or count != 2**levels - 1 or bounds.shape != (bounds_of_node, count, sides):
        return False
    start, end = nodes["idx_start"], nodes["idx_end"]
    if not (_within(start, 0, points + 1) and _within(end, 0, points + 1) and bool((start <= end).all())):
        return False
    parents = (nodes["is_leaf"] == 0).nonzero()[0]
    weights = state[12] if len(state) > 12 else None
    if not _within(2 * parents + 2, 0, count) or not (weights is None or weights.shape == (points,)):
        return False
    return _metric(state[11], sides)


def _metric(metric: Any, sides: int) -> bool:
    name = type(metric).__name__
    _, vector, matrix, *_ = metric.__getstate__()
    if name.startswith("Mahalanobis") and matrix.shape != (sides, sides):
        return False
    if name.startswith(METRICS_WITH_VECTOR) and vector.shape != (sides,):
        return False
    if name.startswith("Haversine") and sides != 2:
        return False
    return vector.shape in {(1,), (sides,)}


def neighbours(value: Any) -> bool:
    """Check that the classes of the neighbours are ones that the classifier has."""
    state = vars(value)
    if "_y" not in state or "classes_" not in state:
        return True
    classes, answers = state["classes_"], state["_y"]
    if len(answers) != state["_fit_X"].shape[0]:
        return False
    if answers.ndim == 1:
        return _within(answers, 0, len(classes))
    columns = [answers[:, place] for place in range(answers.shape[1])]
    return all(_within(column, 0, len(known)) for column, known in zip(columns, classes, strict=True))


def support_vectors(value: Any) -> bool:
    """Check that a libsvm model has the sizes that libsvm takes for granted."""
    state = vars(value)
    if "support_" not in state:
        return True
    vectors, each, coef = state["support_vectors_"], state["_n_support"], state["_dual_coef_"]
    count = len(state["support_"])
    classifies = "classes_" in state
    classes = len(state["classes_"]) if classifies else 2
    pairs = classes * (classes - 1) // 2
    total = int(each.sum()) if classifies else int(each.max())
    if total != count or len(each) != classes or not _within(each, 0, count + 1):
        return False
    if coef.shape != (classes - 1, count) or (state["_sparse"] and len(coef.data) != (classes - 1) * count):
        return False
    if len(state["_intercept_"]) != pairs or not _probabilities(state, pairs):
        return False
    rows = tuple(state["shape_fit_"])
    if state["kernel"] == "precomputed":
        square = state["n_features_in_"] == rows[0] == rows[1]
        return bool(square) and _within(state["support_"], 0, rows[0])
    return bool(vectors.shape == (count, state["n_features_in_"]))


def _probabilities(state: Mapping[str, Any], pairs: int) -> bool:
    sizes = (len(state["_probA"]), len(state["_probB"]))
    return sizes in {(0, 0), (pairs, pairs), (pairs, 0)}


def sparse(value: Any) -> bool:
    """Check a sparse matrix or array in full."""
    state = vars(value)
    if value.format == "coo":
        sides = zip(state["coords"], state["_shape"], strict=True)
        return all(_within(where, 0, side) and where.shape == state["data"].shape for where, side in sides)
    pointer = state["indptr"]
    numpy = load("numpy")
    if not (_numbers_of(pointer, "i") and _numbers_of(state["indices"], "i") and state["data"].ndim == 1):
        return False
    if pointer[0] != 0 or bool((numpy.diff(pointer) < 0).any()):
        return False
    value.check_format(full_check=True)
    return True


def spline(value: Any) -> bool:
    """Check the knots and coefficients of a B-spline."""
    numpy = load("numpy")
    if not hasattr(value, "t"):  # written by another scipy: it will not answer at all
        return True
    knots, coefficients, degree = value.t, value.c, value.k
    if not (_numbers_of(knots, "f") and _numbers_of(coefficients, "f") and isinstance(degree, int)):
        return False
    count = len(knots) - degree - 1
    if knots.ndim != 1 or not 0 <= degree < count or len(coefficients) < count:
        return False
    return bool((numpy.diff(knots) >= 0).all()) and bool(numpy.isfinite(knots).all())


def random_state(value: Any) -> bool:
    """Check where a Mersenne twister stands in its table."""
    bits = value if not hasattr(value, "_bit_generator") else value._bit_generator
    state = bits.state
    return bool(state["bit_generator"] != "MT19937" or 0 <= state["state"]["pos"] <= MERSENNE_WORDS)


def vocabulary(value: Any) -> bool:
    """Check that a vectorizer writes only into columns that it has."""
    words = vars(value).get("vocabulary_")
    return words is None or _within(list(words.values()), 0, len(words))


def hasher(value: Any) -> bool:
    """Check that a hashing vectorizer has columns to hash to."""
    columns = vars(value)["n_features"]
    return isinstance(columns, int) and 1 <= columns < 1 << 31


def one_hot(value: Any) -> bool:
    """Check that one-hot codes stay inside the columns made for them."""
    state = vars(value)
    if not {"categories_", "_n_features_outs", "_drop_idx_after_grouping", "_infrequent_enabled"} <= set(state):
        return True  # not fitted, or by another scikit-learn: then it will not answer at all
    known = state["categories_"]
    maps = state["_default_to_infrequent_mappings"] if state["_infrequent_enabled"] else [None] * len(known)
    drops = state["_drop_idx_after_grouping"]
    drops = [None] * len(known) if drops is None else list(drops)
    if int(state["n_features_in_"]) != len(known):
        return False
    for values, mapping, drop, wide in zip(known, maps, drops, state["_n_features_outs"], strict=True):
        columns = len(values) if mapping is None else int(mapping.max()) + 1
        if mapping is not None and not (len(mapping) == len(values) and _within(mapping, 0, len(values))):
            return False
        if drop is not None and not 0 <= int(drop) < columns:
            return False
        if wide != columns - (drop is not None):
            return False
    return True


def centres(value: Any) -> bool:
    """Check that cluster centres have as many columns as the rows they are compared with."""
    state = vars(value)
    if "cluster_centers_" not in state:
        return True
    columns, nodes = int(state["n_features_in_"]), [state.get("_bisecting_tree")]
    good = state["cluster_centers_"].shape[1] == columns
    while good and nodes:
        node = nodes.pop()
        if node is not None:
            good = vars(node)["center"].shape == (columns,)
            nodes += [vars(node)["left"], vars(node)["right"]]
    return bool(good)


CHECKS: dict[str, Callable[[Any], bool]] = {
    "numpy.random._generator.Generator": random_state,
    "numpy.random._mt19937.MT19937": random_state,
    "numpy.random.mtrand.RandomState": random_state,
    "scipy.interpolate._bsplines.BSpline": spline,
    "scipy.interpolate._bsplines._BSpline": spline,
    "scipy.sparse._base._spbase": sparse,
    "sklearn.cluster._kmeans._BaseKMeans": centres,
    "sklearn.ensemble._gb.BaseGradientBoosting": boosting,
    "sklearn.ensemble._hist_gradient_boosting.gradient_boosting.BaseHistGradientBoosting": histogram_boosting,
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor": predictor,
    "sklearn.feature_extraction._dict_vectorizer.DictVectorizer": vocabulary,
    "sklearn.feature_extraction._hash.FeatureHasher": hasher,
    "sklearn.feature_extraction.text.CountVectorizer": vocabulary,
    "sklearn.feature_extraction.text.HashingVectorizer": hasher,
    **{
        f"sklearn.neighbors._{kind}_tree.{name}{bits}": space_tree
        for kind, name in (("ball", "BallTree"), ("kd", "KDTree"))
        for bits in ("", "32", "64")
    },
    "sklearn.neighbors._classification.KNeighborsClassifier": neighbours,
    "sklearn.neighbors._classification.RadiusNeighborsClassifier": neighbours,
    "sklearn.preprocessing._encoders.OneHotEncoder": one_hot,
    "sklearn.svm._base.BaseLibSVM": support_vectors,
    "sklearn.tree._classes.BaseDecisionTree": tree_owner,
    "sklearn.tree._tree.Tree": tree,
}
