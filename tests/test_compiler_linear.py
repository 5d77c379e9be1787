"""Linear models, networks and dummies answer the same when they are compiled."""

from typing import Any

import pandas as pd
import pytest
from sklearn import dummy, linear_model, svm
from sklearn.cross_decomposition import CCA, PLSCanonical, PLSRegression
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression, SGDClassifier, TweedieRegressor
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ketch.compiler import NotCompiled
from tests.lowered import DIABETES, IRIS, PROGRESS, THREE, TWO, columns, hold, lowered, named, rows

PLAIN = """ARDRegression BayesianRidge ElasticNet ElasticNetCV HuberRegressor Lars LarsCV Lasso LassoCV LassoLars
LassoLarsCV LassoLarsIC LinearRegression OrthogonalMatchingPursuit OrthogonalMatchingPursuitCV
QuantileRegressor Ridge RidgeCV SGDRegressor TheilSenRegressor RANSACRegressor PoissonRegressor
GammaRegressor TweedieRegressor""".split()


@pytest.mark.parametrize(
    "model",
    [
        *(getattr(linear_model, name)() for name in PLAIN),
        linear_model.Ridge(fit_intercept=False),
        TweedieRegressor(power=0, link="log"),
        svm.LinearSVR(),
        PLSRegression(1),
        PLSCanonical(1),
        CCA(1),
    ],
    ids=named,
)
def test_a_regression_by_weights_becomes_one_sum(model: Any) -> None:
    made = lowered(make_pipeline(StandardScaler(), model), DIABETES, PROGRESS)
    assert made.is_folded
    hold(made, rows(DIABETES))


@pytest.mark.parametrize("target", [TWO, THREE], ids=["two", "three"])
@pytest.mark.parametrize(
    "model",
    [
        LogisticRegression(),
        LinearDiscriminantAnalysis(),
        LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto"),
        linear_model.RidgeClassifier(),
        linear_model.RidgeClassifierCV(),
        linear_model.Perceptron(),
        SGDClassifier(),
        SGDClassifier(loss="log_loss"),
        svm.LinearSVC(),
        dummy.DummyClassifier(),
    ],
    ids=named,
)
def test_a_classifier_by_weights_becomes_one_sum_for_each_class(model: Any, target: Any) -> None:
    made = lowered(make_pipeline(StandardScaler(), model), IRIS, target)
    assert made.is_folded
    hold(made, rows(IRIS))


@pytest.mark.parametrize("target", [TWO, THREE], ids=["two", "three"])
@pytest.mark.parametrize(
    "model",
    [
        SGDClassifier(loss="modified_huber"),
        MLPClassifier((8, 5), max_iter=30),
        MLPClassifier((8,), activation="tanh", max_iter=30),
        MLPClassifier((8,), activation="logistic", max_iter=30),
        MLPClassifier((8,), activation="identity", max_iter=30),
    ],
    ids=named,
)
def test_a_curve_between_sums_needs_a_graph(model: Any, target: Any) -> None:
    hold(lowered(make_pipeline(StandardScaler(), model), IRIS, target), rows(IRIS))


@pytest.mark.parametrize("kind", [{}, {"activation": "tanh"}, {"loss": "poisson"}], ids=named)
def test_a_network_of_numbers(kind: dict[str, Any]) -> None:
    hold(
        lowered(
            make_pipeline(StandardScaler(), MLPRegressor(hidden_layer_sizes=(9, 4), max_iter=30, **kind)),
            DIABETES,
            PROGRESS,
        ),
        rows(DIABETES),
    )


def test_where_no_class_is_likely_all_are_alike() -> None:
    made = lowered(make_pipeline(StandardScaler(), SGDClassifier(loss="log_loss", random_state=0)), IRIS, THREE)
    far = pd.DataFrame(
        [[sign * size] * 4 for sign in (1.0, -1.0) for size in (1e3, 1e4, 1e6, 1e300)], columns=IRIS.columns
    )
    hold(made, pd.concat([far, rows(IRIS)]))


def test_steps_and_lines_between_them() -> None:
    field = DIABETES[["bmi"]]
    made = lowered(IsotonicRegression(out_of_bounds="clip"), field, PROGRESS)
    hold(made, rows(field))
    alone = lowered(IsotonicRegression(out_of_bounds="clip"), field * 0.0 + 3.0, PROGRESS)
    hold(alone, rows(field))
    bounded = lowered(IsotonicRegression(), field, PROGRESS)
    outside = columns(pd.DataFrame({"bmi": [1.0, 100.0]}))
    assert [value != value for value in bounded.program(outside, 2).labels] == [True, True]
    hold(bounded, field.iloc[:40])


def test_a_sum_tells_outliers_by_its_sign() -> None:
    made = lowered(make_pipeline(StandardScaler(), linear_model.SGDOneClassSVM(nu=0.3)), IRIS)
    assert made.is_folded
    hold(made, rows(IRIS))


@pytest.mark.parametrize(
    "model", [dummy.DummyRegressor(strategy="median"), dummy.DummyClassifier(strategy="most_frequent")], ids=named
)
def test_a_dummy_needs_no_field(model: Any) -> None:
    target = PROGRESS if isinstance(model, dummy.DummyRegressor) else THREE
    made = lowered(model, IRIS, target)
    assert made.is_folded
    hold(made, rows(IRIS))


def test_what_is_drawn_at_random_is_not_compiled() -> None:
    with pytest.raises(NotCompiled, match="random"):
        lowered(dummy.DummyClassifier(strategy="stratified"), IRIS, THREE)
