"""Estimators made of others, or around one, answer the same when they are compiled."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    AdaBoostClassifier,
    AdaBoostRegressor,
    BaggingClassifier,
    BaggingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
    StackingRegressor,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.experimental import enable_halving_search_cv  # noqa: F401 (opens HalvingGridSearchCV)
from sklearn.feature_selection import RFE
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.model_selection import (
    FixedThresholdClassifier,
    GridSearchCV,
    HalvingGridSearchCV,
    RandomizedSearchCV,
    TunedThresholdClassifierCV,
)
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier, OutputCodeClassifier
from sklearn.multioutput import ClassifierChain, MultiOutputClassifier, MultiOutputRegressor, RegressorChain
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.semi_supervised import SelfTrainingClassifier
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from ketch import program
from ketch.adapters import sklearn as adapter
from ketch.compiler import compiled
from ketch.schema import Answer
from tests.lowered import DIABETES, IRIS, PROGRESS, THREE, TWO, columns, hold, lowered, named, rows

LINEAR, SCALED = LogisticRegression(), make_pipeline(StandardScaler(), LogisticRegression())
FOREST = RandomForestClassifier(4, max_depth=3, random_state=0)
TREE = DecisionTreeClassifier(max_depth=3, random_state=0)
THREE_KINDS = [("lr", LINEAR), ("rf", FOREST), ("nb", GaussianNB())]
NUMBERS = [("r", Ridge()), ("t", DecisionTreeRegressor(max_depth=3, random_state=0))]

CLASSIFIERS = [
    VotingClassifier(THREE_KINDS),
    VotingClassifier(THREE_KINDS, voting="soft", weights=[1, 2, 0.5]),
    make_pipeline(VotingClassifier(THREE_KINDS, voting="soft"), LINEAR),
    StackingClassifier(THREE_KINDS, cv=3),
    StackingClassifier([("s", LinearSVC()), ("t", TREE)], passthrough=True, final_estimator=FOREST, cv=3),
    StackingClassifier([("s", LinearSVC()), ("t", TREE)], stack_method="predict", cv=3),
    BaggingClassifier(random_state=0),
    BaggingClassifier(TREE, max_features=0.5, max_samples=4, random_state=0),
    BaggingClassifier(LINEAR, 4, max_features=0.5, bootstrap_features=True, random_state=0),
    BaggingClassifier(LinearSVC(), 4, random_state=0),
    BaggingClassifier(SCALED, 3, random_state=0),
    AdaBoostClassifier(random_state=0),
    AdaBoostClassifier(TREE, n_estimators=8, random_state=0),
    AdaBoostClassifier(LINEAR, n_estimators=4, random_state=0),
    OneVsRestClassifier(FOREST),
    OneVsRestClassifier(LinearSVC()),
    OneVsOneClassifier(LINEAR),
    OneVsOneClassifier(FOREST),
    OutputCodeClassifier(LINEAR, random_state=0),
    OutputCodeClassifier(FOREST, code_size=3, random_state=0),
    CalibratedClassifierCV(cv=3),
    CalibratedClassifierCV(FOREST, method="isotonic", cv=3),
    CalibratedClassifierCV(FOREST, method="sigmoid", cv=3),
    CalibratedClassifierCV(LinearSVC(), method="isotonic", ensemble=False, cv=3),
    CalibratedClassifierCV(LINEAR, method="temperature", cv=3),
    CalibratedClassifierCV(FOREST, method="temperature", cv=3),
]
FOLDED = [
    OneVsRestClassifier(LINEAR),
    GridSearchCV(SCALED, {"logisticregression__C": [0.1, 1]}, cv=2),
    RandomizedSearchCV(LINEAR, {"C": [0.1, 1]}, n_iter=1, cv=2, random_state=0),
    HalvingGridSearchCV(LINEAR, {"C": [0.1, 1]}, cv=2, random_state=0),
    make_pipeline(GridSearchCV(make_pipeline(PCA(2)), {"pca__n_components": [2, 3]}, cv=2), LINEAR),
    RFE(LINEAR, n_features_to_select=2),
    FrozenEstimator(LogisticRegression().fit(IRIS, THREE)),
]


@pytest.mark.packing
@pytest.mark.parametrize("model", CLASSIFIERS, ids=named)
@pytest.mark.parametrize("target", [TWO, THREE], ids=["two", "three"])
def test_classifiers_made_of_others(model: Any, target: Any) -> None:
    hold(lowered(model, IRIS, target), rows(IRIS))


@pytest.mark.parametrize("model", FOLDED, ids=named)
def test_what_stands_around_a_linear_model_costs_nothing(model: Any) -> None:
    made = lowered(model, IRIS, THREE)
    assert made.is_folded
    hold(made, rows(IRIS))


@pytest.mark.parametrize(
    "model",
    [
        FixedThresholdClassifier(LINEAR, threshold=0.3, pos_label="yes"),
        FixedThresholdClassifier(LinearSVC(), pos_label="no"),
        TunedThresholdClassifierCV(FOREST, cv=3),
        CalibratedClassifierCV(LINEAR, ensemble=False, cv=3),
        CalibratedClassifierCV(FrozenEstimator(RandomForestClassifier(3).fit(IRIS, TWO)), cv=3),
    ],
    ids=named,
)
def test_thresholds_of_two_classes(model: Any) -> None:
    target = (TWO == "yes").astype(int) if isinstance(model, TunedThresholdClassifierCV) else TWO
    hold(lowered(model, IRIS, target), rows(IRIS))


def test_a_classifier_that_taught_itself() -> None:
    target = np.where(np.arange(len(IRIS)) % 4 == 0, -1, (TWO == "yes").astype(int))
    hold(lowered(SelfTrainingClassifier(LINEAR), IRIS, target), rows(IRIS))


@pytest.mark.parametrize(
    "model",
    [
        VotingRegressor(NUMBERS),
        VotingRegressor([("a", Ridge()), ("b", LinearRegression())], weights=[1, 2]),
        StackingRegressor(NUMBERS, cv=3),
        StackingRegressor(NUMBERS, passthrough=True, final_estimator=RandomForestRegressor(3, random_state=0), cv=3),
        BaggingRegressor(random_state=0),
        BaggingRegressor(Ridge(), max_features=0.5, random_state=0),
        BaggingRegressor(DecisionTreeRegressor(max_depth=2), max_features=0.5, random_state=0),
        AdaBoostRegressor(random_state=0, n_estimators=10),
        AdaBoostRegressor(Ridge(), n_estimators=5, random_state=0),
        GridSearchCV(Ridge(), {"alpha": [1, 2]}, cv=2),
    ],
    ids=named,
)
def test_regressors_made_of_others(model: Any) -> None:
    hold(lowered(model, DIABETES, PROGRESS), rows(DIABETES))


CLASSES = np.stack([np.where(TWO == "yes", 1, 0), (IRIS["b"] > 3).astype(int)], axis=1)
VALUES = np.stack([PROGRESS, DIABETES["bmi"] * 2 + PROGRESS / 9], axis=1)


@pytest.mark.parametrize(
    ("model", "table", "target"),
    [
        (MultiOutputClassifier(LINEAR), IRIS, CLASSES),
        (ClassifierChain(LINEAR), IRIS, CLASSES),
        (ClassifierChain(FOREST, order=[1, 0], chain_method="predict_proba"), IRIS, CLASSES),
        (MultiOutputRegressor(Ridge()), DIABETES, VALUES),
        (RegressorChain(DecisionTreeRegressor(max_depth=3), order=[1, 0]), DIABETES, VALUES),
    ],
    ids=named,
)
def test_several_targets(model: Any, table: pd.DataFrame, target: Any) -> None:
    model, given, n = model.fit(table, target), columns(rows(table)), len(rows(table))
    known = adapter.study(model, list(table.columns))
    part = Answer("binary", "y", (0, 1), values="probability") if target is CLASSES else Answer("regression", "y")
    answer = Answer("several", "y", parts=(part, part))
    made = compiled(adapter, model, known.fields, answer)
    found = program.evaluator(made.files, answer, known.fields)(given, n)
    wanted = adapter.runner(model, known.fields)(given, n)
    if target is CLASSES:
        assert found.labels == wanted.labels
        np.testing.assert_allclose(np.array(found.probabilities), np.array(wanted.probabilities), atol=1e-9)
    else:
        np.testing.assert_allclose(np.array(found.labels), np.array(wanted.labels), rtol=1e-9)
