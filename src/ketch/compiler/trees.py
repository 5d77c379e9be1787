"""Trees and what is made of them: forests, boosting and isolation, as one TreeEnsemble in float64.

A tree of scikit-learn compares what it has rounded to float32, one of histogram boosting what it is given. Thresholds
are moved so that both compare float64.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ketch import extras
from ketch.compiler import NotCompiled, estimator
from ketch.compiler.build import Build
from ketch.compiler.values import LARGEST_FLOAT32, Answers, Blocks, Tensor, Trees, X

LESS_OR_EQUAL, LESS, MEMBER = 0, 1, 6  # how a node of ONNX's TreeEnsemble compares
SUM = 1
TABLE = "roots ids modes splits nans true truel false falsel to worth".split()


@dataclass(frozen=True)
class Tree:
    """One tree as arrays over its nodes; `left` is -1 at a leaf, where `worth` (nodes, outputs) counts.

    A row goes left where `feature <= threshold`, or where its category is among `members` of the node; a missing
    value where `missing_left` says so.
    """

    left: Any
    right: Any
    feature: Any
    threshold: Any
    missing_left: Any
    worth: Any
    members: Mapping[int, Sequence[int]] | None = None
    strict: bool = False  # left where feature < threshold


def ensemble(g: Build, x: Tensor, trees: Sequence[Tree], targets: Sequence[int], outputs: int) -> Tensor:
    """Add up what the leaves of all trees are worth.

    `targets` names the output of each tree whose leaves are worth one number; trees whose leaves are worth one for
    each output add to all of them.
    """
    if trees[0].worth.shape[1] == 1:
        return _table(g, x, trees, targets, [tree.worth[:, 0] for tree in trees], outputs)
    offsets = g.np.cumsum([0, *(len(tree.left) for tree in trees[:-1])])
    numbers = [offset + g.np.arange(len(tree.left), dtype=float) for offset, tree in zip(offsets, trees, strict=True)]
    reached = g.cast(_table(g, x, trees, range(len(trees)), numbers, len(trees)), "int64")
    worths = g.np.concatenate([tree.worth for tree in trees])
    each = g.node("Gather", worths, reached, axis=0, width=len(trees) * outputs)
    return g.node("ReduceSum", each, g.integers([1]), keepdims=0, width=outputs)


def _table(
    g: Build, x: Tensor, trees: Sequence[Tree], targets: Iterable[int], worths: Sequence[Any], outputs: int
) -> Tensor:
    np = g.np
    columns: dict[str, list[Any]] = {
        key: []
        for key in ("roots", "ids", "modes", "splits", "nans", "true", "truel", "false", "falsel", "to", "worth")
    }
    members: list[float] = []
    nodes = leaves = 0
    for tree, target, worth in zip(trees, targets, worths, strict=True):
        tree = _without_empty(np, _grown(np, tree))
        worth = np.repeat(worth[:1], len(tree.left)) if len(worth) < len(tree.left) else worth
        leaf = tree.left < 0
        places = np.where(leaf, leaves + np.cumsum(leaf) - 1, nodes + np.cumsum(~leaf) - 1)
        inner = np.flatnonzero(~leaf)
        columns["roots"].append([int(places[0])])
        columns["ids"].append(tree.feature[inner])
        columns["modes"].append(_modes(np, tree, inner))
        columns["splits"].append(np.where(np.isin(inner, list(tree.members or ())), 0.0, tree.threshold[inner]))
        columns["nans"].append(tree.missing_left[inner])
        for end, side in (("true", tree.left), ("false", tree.right)):
            columns[end].append(places[side[inner]])
            columns[end + "l"].append(leaf[side[inner]])
        columns["to"].append(np.full(leaf.sum(), target))
        columns["worth"].append(worth[leaf])
        for node in inner.tolist():
            if tree.members and node in tree.members:
                members += [*map(float, tree.members[node]), float("nan")]
        nodes, leaves = nodes + len(inner), leaves + int(leaf.sum())
    joined = {key: np.concatenate(value) for key, value in columns.items()}
    more = {"membership_values": np.array(members)} if members else {}
    return g.node(
        "TreeEnsemble",
        x,
        width=outputs,
        n_targets=outputs,
        aggregate_function=SUM,
        post_transform=0,
        tree_roots=joined["roots"].tolist(),
        nodes_featureids=joined["ids"].tolist(),
        nodes_modes=joined["modes"].astype("uint8"),
        nodes_splits=joined["splits"].astype(float),
        nodes_missing_value_tracks_true=joined["nans"].astype(int).tolist(),
        nodes_truenodeids=joined["true"].tolist(),
        nodes_trueleafs=joined["truel"].astype(int).tolist(),
        nodes_falsenodeids=joined["false"].tolist(),
        nodes_falseleafs=joined["falsel"].astype(int).tolist(),
        leaf_targetids=joined["to"].tolist(),
        leaf_weights=joined["worth"].astype(float),
        **more,
    )


def _grown(np: Any, tree: Tree) -> Tree:
    """Give a tree that is one leaf a split with the same leaf at both ends, since a root must be a node."""
    if tree.left[0] >= 0:
        return tree
    return Tree(
        np.array([1, -1, -1]),
        np.array([2, -1, -1]),
        np.array([0, 0, 0]),
        np.zeros(3),
        np.zeros(3, dtype=bool),
        np.repeat(tree.worth[:1], 3, axis=0),
    )


def _without_empty(np: Any, tree: Tree) -> Tree:
    """Part by a number that is below all others where a set of categories is empty, which ONNX Runtime does not open.

    Only a missing value goes left there.
    """
    empty = [node for node, members in (tree.members or {}).items() if not members]
    if not empty:
        return tree
    kept = {node: members for node, members in (tree.members or {}).items() if members}
    threshold = tree.threshold.copy()
    threshold[empty] = -np.inf
    return replace(tree, threshold=threshold, members=kept)


def _modes(np: Any, tree: Tree, inner: Any) -> Any:
    modes = np.full(len(inner), LESS if tree.strict else LESS_OR_EQUAL)
    if tree.members:
        modes[np.isin(inner, list(tree.members))] = MEMBER
    return modes


# ---- scikit-learn's own trees ----------------------------------------------------------------------


def grown(g: Build, fitted: Any, worth: Any, features: Any = None) -> Tree:
    """Read a fitted `Tree`; `features` are the places of its inputs where it was given only some."""
    feature = g.np.maximum(fitted.feature, 0)
    return Tree(
        fitted.children_left,
        fitted.children_right,
        feature if features is None else features[feature],
        widened(g.np, fitted.threshold),
        fitted.missing_go_to_left.astype(bool),
        worth,
    )


def _narrow(g: Build, x: X) -> Tensor:
    """Give the input of trees that round it to float32, which refuse what that cannot hold."""
    if isinstance(x, Tensor):
        g.float32(x)  # for what it refuses: a step before may have made even the largest number small enough
    else:
        g.largest = min(g.largest, LARGEST_FLOAT32)
    return g.tensor(x)


def widened(np: Any, thresholds: Any) -> Any:
    """Give the thresholds that part float64 as these part what is rounded to float32: no rounding is left to do.

    A number that lies half way between two of float32 goes to the one that is even (IEEE 754).
    """
    low = thresholds.astype("float32")
    low = np.where(low.astype(float) > thresholds, np.nextafter(low, np.float32(-np.inf)), low)
    middle = (low.astype(float) + np.nextafter(low, np.float32(np.inf)).astype(float)) / 2
    return np.where(low.view("int32") % 2 == 0, middle, np.nextafter(middle, -np.inf))


def _based(trees: Sequence[Tree], base: Any) -> list[Tree]:
    """Put what boosting starts from into the first tree of each output."""
    first = [replace(tree, worth=tree.worth + start) for tree, start in zip(trees, base, strict=False)]
    return [*first, *trees[len(first) :]]


def _shares(g: Build, fitted: Any, target: int) -> Any:
    """Give the class probabilities of each node, of its counts in older versions."""
    found = fitted.value[:, target, : fitted.n_classes[target]]
    whole = found.sum(axis=1, keepdims=True)
    return found / g.np.where(whole == 0, 1.0, whole)


def of_classes(g: Build, x: X, fitted: Sequence[Any], target: int = 0) -> Tensor:
    """Average the class probabilities of trees."""
    trees = [grown(g, each, _shares(g, each, target)) for each in fitted]
    noted(g, x, trees)
    if trees[0].worth.shape[1] != 2:
        return ensemble(g, _narrow(g, x), trees, (), trees[0].worth.shape[1]) / len(trees)
    trees = [replace(tree, worth=tree.worth[:, 1:]) for tree in trees]
    one = ensemble(g, _narrow(g, x), trees, [0] * len(trees), 1) / len(trees)
    return g.both(one)


def noted(g: Build, x: X, trees: Sequence[Tree]) -> None:
    """Note all splits for parity."""
    for tree in trees:
        inner = tree.left >= 0
        inner[list(tree.members or ())] = False
        g.splits(x, tree.feature[inner], tree.threshold[inner])


def of_numbers(g: Build, x: X, fitted: Sequence[Any], features: Sequence[Any] | None = None) -> Tensor:
    """Add up what the leaves of regression trees hold."""
    trees = [
        grown(g, each, each.value[:, :, 0], None if features is None else features[place])
        for place, each in enumerate(fitted)
    ]
    noted(g, x, trees)
    outputs = trees[0].worth.shape[1]
    return ensemble(g, _narrow(g, x), trees, [0] * len(trees), outputs)


@estimator("Trees", root="ketch")
def some(g: Build, model: Trees, x: X) -> Answers:
    """Lower trees whose nodes are worth what another sibling says."""
    places = model.features or [None] * len(model.fitted)
    trees = [grown(g, *each) for each in zip(model.fitted, model.worths, places, strict=True)]
    noted(g, x, trees)
    return Answers(values=ensemble(g, _narrow(g, x), trees, model.targets, model.outputs))


@estimator("DecisionTreeClassifier", "ExtraTreeClassifier")
def tree_classifier(g: Build, model: Any, x: X) -> Answers:
    """Lower one tree."""
    return classified(g, x, [model.tree_])


def classified(g: Build, x: X, fitted: Sequence[Any]) -> Answers:
    """Give the probabilities of the classes, for each target where there are several."""
    targets = [Answers(probabilities=of_classes(g, x, fitted, target)) for target in range(fitted[0].n_outputs)]
    return targets[0] if len(targets) == 1 else Answers(parts=tuple(targets))


@estimator("DecisionTreeRegressor", "ExtraTreeRegressor")
def tree_regressor(g: Build, model: Any, x: X) -> Answers:
    """Lower one tree."""
    return Answers(values=of_numbers(g, x, [model.tree_]))


@estimator("RandomForestClassifier", "ExtraTreesClassifier")
def forest_classifier(g: Build, model: Any, x: X) -> Answers:
    """Lower to the mean of the trees' probabilities."""
    return classified(g, x, [each.tree_ for each in model.estimators_])


@estimator("RandomForestRegressor", "ExtraTreesRegressor")
def forest_regressor(g: Build, model: Any, x: X) -> Answers:
    """Lower to the mean of the trees."""
    return Answers(values=of_numbers(g, x, [each.tree_ for each in model.estimators_]) / len(model.estimators_))


@estimator("IsolationForest")
def isolation(g: Build, model: Any, x: X) -> Answers:
    """Lower to the mean depth at which trees set a row apart; Liu, Ting and Zhou 2008."""
    depths = zip(model._decision_path_lengths, model._average_path_length_per_tree, strict=True)
    trees = [
        grown(g, each.tree_, (path + rest - 1.0)[:, None], features)
        for each, features, (path, rest) in zip(model.estimators_, model.estimators_features_, depths, strict=True)
    ]
    noted(g, x, trees)
    usual = float(extras.load("sklearn.ensemble._iforest")._average_path_length([model._max_samples])[0])
    summed = ensemble(g, g.tensor(x), trees, [0] * len(trees), 1)  # an infinite one is answered here
    scores = (-float(model.offset_)) - g.node("Pow", 2.0, summed / (-usual * len(trees)), width=1)
    return Answers(scores=scores, labels=g.signs(scores))


def boosted(g: Build, raw: Tensor, loss: str) -> Answers:
    """Make probabilities of a boosted classifier's sums, by the loss it was fitted with.

    A sum of exactly 0, which is a toss-up, goes to the first class here and to the second there.
    """
    if raw.width > 1:
        return Answers(probabilities=g.linked("softmax", raw), scores=raw)
    doubled = raw * 2.0 if loss == "ExponentialLoss" else raw
    return Answers(probabilities=g.linked("sigmoid", doubled), scores=raw)


def _added(g: Build, model: Any, x: X) -> Tensor:
    start = model.init_
    if start != "zero" and type(start).__name__ not in {"DummyClassifier", "DummyRegressor"}:
        raise NotCompiled(f"{type(model).__name__} starts from a model of its own")
    first = model._raw_predict_init(g.np.zeros((1, model.n_features_in_), dtype="float32"))
    trees = [
        grown(g, each.tree_, each.tree_.value[:, :, 0] * model.learning_rate)
        for row in model.estimators_
        for each in row
    ]
    noted(g, x, trees)
    outputs = model.estimators_.shape[1]
    targets = [target for _ in model.estimators_ for target in range(outputs)]
    return ensemble(g, _narrow(g, x), _based(trees, first[0]), targets, outputs)


@estimator("GradientBoostingClassifier")
def gradient_boosting(g: Build, model: Any, x: X) -> Answers:
    """Lower to the sum of all stages and the link of the loss; Friedman 2001."""
    return boosted(g, _added(g, model, x), type(model._loss).__name__)


@estimator("GradientBoostingRegressor")
def gradient_boosting_regressor(g: Build, model: Any, x: X) -> Answers:
    """Lower to the sum of all stages."""
    return Answers(values=_added(g, model, x))


# ---- histogram boosting ----------------------------------------------------------------------------


def _histogram(g: Build, model: Any, x: X) -> Tensor:
    if model._preprocessor is not None:
        encoder = model._preprocessor.named_transformers_["encoder"]
        places = [model._preprocessor.transformers_[at][2] for at in (0, 1)]
        x = g.concat([g.apply(encoder, _chosen(g, x, places[0])), _chosen(g, x, places[1])])
    trees, targets = [], []
    for row in model._predictors:
        for target, predictor in enumerate(row):
            trees.append(_histogram_tree(g, predictor, model))
            targets.append(target)
    noted(g, x, trees)
    outputs = len(model._predictors[0])
    baseline = g.np.asarray(model._baseline_prediction).reshape(1, -1)
    return ensemble(g, g.tensor(x), _based(trees, baseline[0]), targets, outputs)


def _chosen(g: Build, x: X, mask: Any) -> X:
    places = [int(place) for place in g.np.flatnonzero(g.np.asarray(mask))]
    if isinstance(x, Blocks) and x.names:
        return Blocks(tuple(x.columns[place] for place in places), tuple(x.names[place] for place in places))
    return g.take(x, places)


def _histogram_tree(g: Build, predictor: Any, model: Any) -> Tree:
    nodes = predictor.nodes
    leaf = nodes["is_leaf"].astype(bool)
    members = {
        int(node): members_of(predictor.raw_left_cat_bitsets[nodes["bitset_idx"][node]])
        for node in g.np.flatnonzero(nodes["is_categorical"] & ~leaf)
    }
    return Tree(
        g.np.where(leaf, -1, nodes["left"].astype("int64")),
        g.np.where(leaf, -1, nodes["right"].astype("int64")),
        nodes["feature_idx"].astype("int64"),
        nodes["num_threshold"].astype(float),
        nodes["missing_go_to_left"].astype(bool),
        nodes["value"].astype(float)[:, None],
        members or None,
    )


def members_of(bitset: Any) -> list[int]:
    """List the bits that are set in words of 32."""
    return [32 * word + bit for word, bits in enumerate(bitset.tolist()) for bit in range(32) if bits >> bit & 1]


@estimator("HistGradientBoostingClassifier")
def histogram_classifier(g: Build, model: Any, x: X) -> Answers:
    """Lower to the sum of all stages and the link of the loss."""
    return boosted(g, _histogram(g, model, x), "")


@estimator("HistGradientBoostingRegressor")
def histogram_regressor(g: Build, model: Any, x: X) -> Answers:
    """Lower to the sum of all stages, through exp where the loss has a log link."""
    raw = _histogram(g, model, x)
    return Answers(values=g.linked("exp", raw) if model.loss in {"poisson", "gamma"} else raw)
