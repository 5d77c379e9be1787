"""What the boosting libraries do not check when they read a model: that its trees are trees and stay inside it."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ketch.extras import load

TRIALS = (0.0, -1e30, 1e30, float("nan"), 0.5, 1.0, 3.0, 40.0)


def xgboost(booster: Any) -> bool:
    """Check a Booster of XGBoost: its trees, their features and their categories."""
    if booster.handle is None:
        return True  # it has no trees and will not answer at all
    learner = json.loads(bytes(booster.save_raw("json")))["learner"]
    model = learner["gradient_booster"].get("gbtree", learner["gradient_booster"])["model"]
    shape = learner["learner_model_param"]
    features = int(shape["num_feature"])
    groups = max(1, int(shape["num_class"]), int(shape["num_target"]))
    if "trees" not in model:
        return len(model["weights"]) == (features + 1) * groups
    trees = model["trees"]
    grouped = len(model["tree_info"]) == len(trees) and within(model["tree_info"], 0, groups)
    return bool(grouped) and all(_xgboost_tree(tree, features) for tree in trees) and _lists(booster, features)


def _lists(booster: Any, features: int) -> bool:
    names, types = booster.feature_names, booster.feature_types
    return all(listed is None or len(listed) == features for listed in (names, types))


def _xgboost_tree(tree: Mapping[str, Any], features: int) -> bool:
    left, right, split = tree["left_children"], tree["right_children"], tree["split_indices"]
    count = len(left)
    sizes = {len(tree[name]) for name in ("right_children", "split_indices", "split_conditions", "default_left")}
    if sizes != {count} or not within(split, 0, features):
        return False
    ends = [start + size for start, size in zip(tree["categories_segments"], tree["categories_sizes"], strict=True)]
    if not within(ends, 0, len(tree["categories"]) + 1) or not within(tree["categories_nodes"], 0, count):
        return False
    return _is_tree(left, right, [child >= 0 for child in left])


def lightgbm(booster: Any) -> bool:
    """Check a Booster of LightGBM: its trees, their features and their categories."""
    if type(booster._handle).__name__ != "c_void_p" or not booster._handle:
        return booster._handle is None
    text = booster.model_to_string(num_iteration=-1)
    features = booster.num_feature()
    return all(_lightgbm_tree(tree, features) for tree in _texts(text)) and len(booster.feature_name()) == features


def _texts(text: str) -> Iterator[dict[str, str]]:
    for block in text.partition("end of trees")[0].split("\nTree=")[1:]:
        yield dict(line.split("=", 1) for line in block.splitlines() if "=" in line)


def _lightgbm_tree(tree: Mapping[str, str], features: int) -> bool:
    leaves, categories = int(tree["num_leaves"]), int(tree["num_cat"])
    if not _reaches(tree, leaves, features):
        return False
    if leaves == 1:
        return True
    left, right, split = (_numbers(tree, name) for name in ("left_child", "right_child", "split_feature"))
    kinds, limits = _numbers(tree, "decision_type"), tree["threshold"].split()
    sizes = {len(listed) for listed in (left, right, split, kinds, limits)}
    if sizes != {leaves - 1} or not within(split, 0, features):
        return False
    chosen = [int(float(limit)) for limit, kind in zip(limits, kinds, strict=True) if kind & 1]
    bounds, words = _numbers(tree, "cat_boundaries"), _numbers(tree, "cat_threshold")
    ordered = len(bounds) == categories + 1 and bounds == sorted(bounds) and within(bounds, 0, len(words) + 1)
    if categories and not ordered:
        return False
    # an inner node is its number, a leaf the complement of its own: leaves stand behind the inner nodes
    nodes = [[child if child >= 0 else leaves - 2 - child for child in side] for side in (left, right)]
    padded = [[*side, *[-1] * leaves] for side in nodes]
    inner = [True] * (leaves - 1) + [False] * leaves
    return within(chosen, 0, categories) and _is_tree(padded[0], padded[1], inner)


def _reaches(tree: Mapping[str, str], leaves: int, features: int) -> bool:
    linear = _numbers(tree, "leaf_features")
    return leaves >= 1 and len(tree["leaf_value"].split()) == leaves and within(linear, 0, features)


def _numbers(tree: Mapping[str, str], name: str) -> list[int]:
    return [int(each) for each in tree.get(name, "").split()]


def catboost(model: Any) -> bool:
    """Try a CatBoost model, whose reader checks what can be checked, on rows of every sort."""
    if not model.is_fitted():
        return True
    texts = {*model.get_cat_feature_indices(), *model.get_text_feature_indices()}
    count = len(model.feature_names_)
    rows = [[str(value) if place in texts else value for place in range(count)] for value in TRIALS]
    return not model._get_embedding_feature_indices() and len(model.predict(rows, thread_count=1)) == len(rows)


def within(values: Sequence[int], low: int, high: int) -> bool:
    """Tell whether all values are in [low, high)."""
    return not len(values) or (min(values) >= low and max(values) < high)


def _is_tree(left: Sequence[int], right: Sequence[int], inner: Sequence[bool]) -> bool:
    """Tell whether every walk from the root ends: each child is in range, and has one parent at most."""
    numpy = load("numpy")
    sides = numpy.asarray([left, right], "i8")
    children = sides[:, numpy.asarray(inner, bool)].ravel()
    if not children.size:
        return bool(len(left))
    good = children.min() >= 1 and children.max() < len(left)
    return bool(good and numpy.bincount(children).max() == 1)


SOUND: dict[str, Callable[[Any], bool]] = {"catboost": catboost, "lightgbm": lightgbm, "xgboost": xgboost}
CHECKS: dict[str, Callable[[Any], bool]] = {
    "catboost.core.CatBoost": catboost,
    "lightgbm.basic.Booster": lightgbm,
    "xgboost.core.Booster": xgboost,
}
