"""Trees answer alike on both sides of every threshold, to the last bit."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from ketch.compiler.trees import widened
from tests.lowered import DIABETES, IRIS, PROGRESS, THREE, TWO, hold, lowered, named, rows

FLOATS = st.floats(width=64, allow_nan=False, allow_infinity=False, min_value=-1e38, max_value=1e38)


@given(FLOATS, FLOATS, st.integers(-3, 3))
def test_a_widened_threshold_parts_as_rounding_does(threshold: float, number: float, steps: int) -> None:
    moved = float(widened(np, np.array([threshold]))[0])
    near = np.float32(threshold)
    for _ in range(abs(steps)):
        near = np.nextafter(near, np.float32(np.sign(steps) * np.inf))
    middle = (float(near) + float(np.nextafter(near, np.float32(np.inf)))) / 2
    for tried in (number, threshold, float(near), middle, np.nextafter(middle, np.inf), np.nextafter(middle, -np.inf)):
        assert (tried <= moved) == (float(np.float32(tried)) <= threshold), (threshold, tried, moved)


@pytest.mark.parametrize(
    "model",
    [
        DecisionTreeClassifier(max_depth=4, random_state=0),
        RandomForestClassifier(20, random_state=0),
        ExtraTreesClassifier(20, random_state=0),
        GradientBoostingClassifier(n_estimators=10, random_state=0),
        HistGradientBoostingClassifier(max_iter=10, min_samples_leaf=5),
    ],
    ids=named,
)
@pytest.mark.parametrize("target", [TWO, THREE], ids=["two", "three"])
def test_classes(model: object, target: np.ndarray) -> None:
    hold(lowered(model, IRIS, target), rows(IRIS))


@pytest.mark.parametrize(
    "model",
    [
        DecisionTreeRegressor(max_depth=5, random_state=0),
        RandomForestRegressor(15, random_state=0),
        ExtraTreesRegressor(15, random_state=0),
        GradientBoostingRegressor(n_estimators=20, random_state=0),
        HistGradientBoostingRegressor(max_iter=20, loss="poisson"),
        DecisionTreeRegressor(max_depth=1, min_samples_leaf=200),
    ],
    ids=named,
)
def test_numbers(model: object) -> None:
    hold(lowered(model, DIABETES, PROGRESS), rows(DIABETES))


def test_outliers() -> None:
    hold(lowered(IsolationForest(n_estimators=20, random_state=0), IRIS), rows(IRIS))


def test_categories_of_which_only_a_missing_one_goes_left() -> None:
    table = pd.DataFrame({"kind": np.tile([0.0, 1.0, np.nan], 50), "size": np.arange(150.0)})
    target = np.where(table["kind"].isna() ^ (table["size"] % 20 == 0), "yes", "no")
    model = HistGradientBoostingClassifier(categorical_features=["kind"], max_iter=5).fit(table, target)
    first = model._predictors[0][0]
    assert first.nodes["missing_go_to_left"][0]
    assert not first.raw_left_cat_bitsets[0].any(), "no set is empty, so the test shows nothing"
    hold(lowered(model, table, target), table)
