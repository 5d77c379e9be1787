"""XGBoost and LightGBM: what they write of their trees --*read*--> one TreeEnsemble, and the link of the objective.

XGBoost rounds numbers to float32 before it compares them, LightGBM does not.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from ketch.adapters import adapter_for
from ketch.compiler import NotCompiled, estimator
from ketch.compiler.build import Build
from ketch.compiler.trees import Tree, ensemble, members_of, noted
from ketch.compiler.values import Answers, Blocks, Column, Tensor, X
from ketch.errors import ModelError
from ketch.schema import Scalar

SIGMOID: Final = frozenset({"binary:logistic", "reg:logistic"})
LOG: Final = frozenset(
    {"count:poisson", "reg:gamma", "reg:tweedie", "survival:cox", "survival:aft", "poisson", "gamma", "tweedie"}
)
ZERO: Final = 1e-35  # what LightGBM takes for zero
IS_CATEGORY, GOES_LEFT = 1, 2  # bits of a decision of LightGBM; the next two say what counts as missing
MISSING_IS_ZERO = 1


def told(model: Any) -> Any:
    """Ask the adapter what the model says of itself."""
    adapter: Any = adapter_for(model)
    try:
        return adapter.survey(model, ())
    except ModelError as reason:
        raise NotCompiled(str(reason)) from None


def coded(g: Build, x: X, categories: Sequence[tuple[Scalar, ...]]) -> X:
    """Give each category the code that it had in training, its place; what was not there is missing."""
    if not any(categories):
        return x
    if not isinstance(x, Blocks) or any(column.width != 1 for column in x.columns):
        raise NotCompiled("its categories stand behind a step that mixes columns")
    columns = [_coded(g, *each) if each[1] else each[0] for each in zip(x.columns, categories, strict=True)]
    return Blocks(tuple(columns), x.names)


def _coded(g: Build, column: Column, categories: Sequence[Scalar]) -> Column:
    listed = g.listed(column, categories) if column.is_number else column
    codes = {value: float(place) for place, value in enumerate(categories)}
    values = [[codes.get(value, g.np.nan)] for value in listed.values[:, 0]]
    return replace(listed, values=g.np.array(values).reshape(-1, 1))


def rounded(g: Build, x: X) -> Tensor:
    """Round to float32; what it cannot hold is infinite, and no reason to refuse."""
    return g.cast(g.cast(g.tensor(x), "float"), "double")


# ---- XGBoost ---------------------------------------------------------------------------------------


@estimator("Booster", "XGBClassifier", "XGBRFClassifier", "XGBRegressor", "XGBRFRegressor", root="xgboost")
def extreme(g: Build, model: Any, x: X) -> Answers:
    """Lower to the sum of all trees, or of all columns, and the link of the objective; Chen and Guestrin 2016."""
    known = told(model)
    booster = model.get_booster() if hasattr(model, "get_booster") else model
    learner = json.loads(bytes(booster.save_raw("json")))["learner"]
    x = coded(g, x, [each.coded for each in known.columns])
    objective = learner["objective"]["name"]
    sums = _added(g, model, learner, x, _start(g, learner, objective))
    if objective == "binary:logitraw":
        return Answers(scores=sums, labels=above(g, sums, known.cut))
    return _linked(g, sums, objective, known.task)


def above(g: Build, sums: Tensor, cut: float) -> Tensor:
    """Give the place of the second class where a number is above a cut."""
    return g.node("Reshape", g.cast(g.node("Greater", sums, cut), "int64"), g.integers([-1]))


def _linked(g: Build, sums: Tensor, objective: str, task: str) -> Answers:
    """Make an answer of sums; where the task is no regression, two classes have one sum."""
    if task == "regression":
        return Answers(values=_number(g, sums, objective))
    if objective == "binary:hinge":
        return Answers(scores=sums)
    return Answers(probabilities=g.linked("softmax" if sums.width > 1 else "sigmoid", sums), scores=sums)


def _number(g: Build, sums: Tensor, objective: str) -> Tensor:
    if objective in SIGMOID:
        return g.linked("each", sums)
    return g.linked("exp", sums) if objective in LOG else sums


def _start(g: Build, learner: Mapping[str, Any], objective: str) -> Any:
    """Give what the sums start from: kept as an answer, not as a sum, and as a list since XGBoost 3.1."""
    kept = learner["learner_model_param"]["base_score"].strip("[]")
    start = g.np.array([float(each) for each in kept.split(",")])
    if objective in SIGMOID:
        start = -g.np.log(1.0 / start - 1.0)
    return g.np.log(start) if objective in LOG else start


def _added(g: Build, model: Any, learner: Mapping[str, Any], x: X, start: Any) -> Tensor:
    kept = learner["gradient_booster"]
    outputs = max(1, int(learner["learner_model_param"]["num_class"]))
    drops = kept.get("weight_drop")
    grown = kept.get("gbtree", kept)["model"]
    if "weights" in grown:
        weights = g.np.array(grown["weights"], dtype=float).reshape(-1, outputs)
        return g.linear(x, weights[:-1], weights[-1] + start)
    if any(int(each["tree_param"]["size_leaf_vector"]) > 1 for each in grown["trees"]):
        raise NotCompiled("its trees answer several targets each")
    count = _count(model, grown)
    trees = [_extreme_tree(g.np, each) for each in grown["trees"][:count]]
    if drops:
        trees = [_weighed(g.np, tree, start, drop) for tree, drop in zip(trees, drops[:count], strict=True)]
    noted(g, x, trees)
    given = _absent(g, rounded(g, x), model)
    order = g.np.argsort(grown["tree_info"][:count], kind="stable").reshape(outputs, -1)
    return _in_turn(g, given, [[trees[place] for place in row] for row in order.tolist()], start)


def _in_turn(g: Build, x: Tensor, rows: Sequence[Sequence[Tree]], start: Any) -> Tensor:
    """Add up one tree after the other in float32 as XGBoost does; `rows` has the trees of each output."""
    trees = [_begun(g.np, *each) for each in zip(rows, g.np.resize(start, len(rows)), strict=True)]
    flat = [tree for row in trees for tree in row]
    outputs, last = len(rows), len(rows[0]) - 1
    each = g.cast(ensemble(g, x, flat, range(len(flat)), len(flat)), "float")
    each = g.node("Reshape", each, g.integers([-1, outputs, last + 1]))
    sums = g.node("CumSum", each, g.integers(2))
    return g.cast(g.node("Gather", sums, g.integers(last), axis=2, width=outputs), "double")


def _begun(np: Any, trees: Sequence[Tree], start: Any) -> list[Tree]:
    """Let the first of some trees answer the start too."""
    first = trees[0].worth.astype("float32") + np.float32(start)
    return [replace(trees[0], worth=first.astype(float)), *trees[1:]]


def _weighed(np: Any, tree: Tree, start: Any, drop: float) -> Tree:
    """Multiply a tree of DART by what was left of it, rounding as XGBoost does: it takes the start off each answer."""
    begin = np.float32(start[0])
    worth = (tree.worth.astype("float32") + begin - begin) * np.float32(drop)
    return replace(tree, worth=worth.astype(float))


def _count(model: Any, grown: Mapping[str, Any]) -> int:
    """Count the trees that are asked: an estimator's up to the best round, where fitting was stopped early."""
    best = getattr(model, "best_iteration", None) if hasattr(model, "get_booster") else None
    return len(grown["trees"]) if best is None else int(grown["iteration_indptr"][best + 1])


def _absent(g: Build, x: Tensor, model: Any) -> Tensor:
    """Take a number of the user's own for missing."""
    sign = getattr(model, "missing", None)
    if sign is None or sign != sign:
        return x
    return g.node("Where", g.node("Equal", x, float(g.np.float32(sign))), float("nan"), x)


def _extreme_tree(np: Any, kept: Mapping[str, Any]) -> Tree:
    """Read one tree; a category goes right where it is a member, so the sides of those nodes change places."""
    left, right = np.array(kept["left_children"]), np.array(kept["right_children"])
    split = np.array(kept["split_conditions"], dtype="float32").astype(float)
    missing_left = np.array(kept["default_left"], dtype=bool)
    members = {
        node: kept["categories"][start : start + size]
        for node, start, size in zip(
            kept["categories_nodes"], kept["categories_segments"], kept["categories_sizes"], strict=True
        )
    }
    nodes = list(members)
    left[nodes], right[nodes] = right[nodes], left[nodes]
    missing_left[nodes] = ~missing_left[nodes]
    worth = np.where(left < 0, split, 0.0)[:, None]
    return Tree(left, right, np.array(kept["split_indices"]), split, missing_left, worth, members or None, strict=True)


# ---- LightGBM --------------------------------------------------------------------------------------


@estimator("Booster", "LGBMClassifier", "LGBMRegressor", root="lightgbm")
def light(g: Build, model: Any, x: X) -> Answers:
    """Lower to the sum of all trees, or their mean, and the link of the objective; Ke and others 2017."""
    known = told(model)
    text = (model if hasattr(model, "model_to_string") else model.booster_).model_to_string()
    head, *blocks = text.partition("\nend of trees")[0].split("\n\nTree=")
    facts = _facts(head)
    x = coded(g, x, [each.coded for each in known.columns])
    trees = [_light_tree(g.np, _facts(each)) for each in blocks]
    noted(g, x, [tree for tree, _ in trees])
    outputs = int(facts["num_tree_per_iteration"])
    targets = [place % outputs for place in range(len(trees))]
    given = _zeros_as_missing(g, g.tensor(x), [zeros for _, zeros in trees])
    sums = ensemble(g, given, [tree for tree, _ in trees], targets, outputs)
    if "average_output" in facts:
        sums = sums / (len(trees) / outputs)
    return _converted(g, sums, facts.get("objective", ""), known.task)


def _facts(block: str) -> dict[str, str]:
    lines = (line.partition("=") for line in block.splitlines() if line)
    return {name: value for name, _, value in lines}


def _converted(g: Build, sums: Tensor, objective: str, task: str) -> Answers:
    """Make an answer of sums as `ConvertOutput` of the objective does."""
    name, *settings = objective.split(" ")
    steep = next((float(each[8:]) for each in settings if each.startswith("sigmoid:")), 1.0)
    raised = sums if steep == 1.0 else sums * steep
    if name == "binary":
        return Answers(probabilities=g.linked("sigmoid", raised), scores=sums)
    if name == "multiclassova":
        return Answers(probabilities=g.linked("each", raised), scores=sums)
    if name == "cross_entropy":
        return Answers(values=g.linked("each", sums))
    if name == "cross_entropy_lambda":
        return Answers(values=g.node("Log", g.node("Exp", sums) + 1.0))
    if "sqrt" in settings:
        return Answers(values=sums * g.node("Abs", sums))
    return _linked(g, sums, name, task)


def _numbers(np: Any, facts: Mapping[str, str], name: str, kind: str = "int64") -> Any:
    return np.array(facts[name].split(), dtype=kind)


def _light_tree(np: Any, facts: Mapping[str, str]) -> tuple[Tree, Any]:
    """Read one tree, and the places of the features of which zero is missing; a leaf's number is below zero."""
    if int(facts.get("is_linear", 0)):
        raise NotCompiled("its leaves hold linear models")
    worth = _numbers(np, facts, "leaf_value", "float64")
    if len(worth) == 1:
        none = np.array([-1])
        return Tree(none, none, none + 1, np.zeros(1), none > 0, worth[:, None]), none[:0]
    feature, decision = _numbers(np, facts, "split_feature"), _numbers(np, facts, "decision_type")
    threshold = _numbers(np, facts, "threshold", "float64")
    category, missing = (decision & IS_CATEGORY) > 0, decision >> 2 & 3
    sides = [_numbers(np, facts, f"{side}_child") for side in ("left", "right")]
    ends = np.full(len(worth), -1)
    left, right = (np.concatenate([np.where(side < 0, len(side) + ~side, side), ends]) for side in sides)
    # where nothing is missing by itself, NaN counts as zero
    absent_left = np.where(missing == 0, threshold >= 0.0, (decision & GOES_LEFT) > 0) & ~category
    gap = np.zeros(len(worth))
    tree = Tree(
        left,
        right,
        np.concatenate([feature, gap.astype("int64")]),
        np.concatenate([threshold, gap]),
        np.concatenate([absent_left, gap > 0]),
        np.concatenate([np.zeros(len(feature)), worth])[:, None],
        dict(_chosen(np, facts, np.flatnonzero(category), threshold)) or None,
    )
    return tree, feature[(missing == MISSING_IS_ZERO) & ~category]


def _chosen(np: Any, facts: Mapping[str, str], nodes: Any, threshold: Any) -> Iterator[tuple[int, list[int]]]:
    """Give the categories that go left at each node that splits some, kept as bits of 32 to a word."""
    if not len(nodes):
        return
    words, ends = _numbers(np, facts, "cat_threshold"), _numbers(np, facts, "cat_boundaries")
    for node in nodes.tolist():
        at = int(threshold[node])
        yield node, members_of(words[ends[at] : ends[at + 1]])


def _zeros_as_missing(g: Build, x: Tensor, places: Sequence[Any]) -> Tensor:
    found = g.np.unique(g.np.concatenate(places))
    if not len(found):
        return x
    reach = g.np.full((1, x.width), -1.0)
    reach[0, found] = ZERO
    return g.node("Where", g.node("LessOrEqual", g.node("Abs", x), reach), float("nan"), x)
