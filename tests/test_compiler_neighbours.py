"""Neighbours, centroids, clusters and what they tell of outliers answer the same when they are compiled."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn import cluster
from sklearn.ensemble import IsolationForest
from sklearn.neighbors import (
    KNeighborsClassifier,
    KNeighborsRegressor,
    LocalOutlierFactor,
    NearestCentroid,
    RadiusNeighborsClassifier,
    RadiusNeighborsRegressor,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.semi_supervised import LabelPropagation, LabelSpreading

from ketch import program
from ketch.adapters import sklearn as adapter
from ketch.compiler import NotCompiled, compiled
from ketch.schema import Answer
from tests.lowered import DIABETES, IRIS, PROGRESS, THREE, TWO, WIDE, columns, hold, lowered, named, numbers, rows

METRICS = ["euclidean", "manhattan", "chebyshev", "cosine", "canberra", "sqeuclidean"]


@pytest.mark.parametrize("target", [TWO, THREE], ids=["two", "three"])
@pytest.mark.parametrize(
    "kind",
    [
        *({"metric": metric} for metric in METRICS),
        {"p": 3},
        {"p": 1.5, "weights": "distance"},
        {"weights": "distance"},
        {"algorithm": "ball_tree", "n_neighbors": 9},
        {"algorithm": "brute"},
        {"algorithm": "brute", "weights": "distance"},
        {"algorithm": "brute", "metric": "braycurtis"},
    ],
    ids=named,
)
def test_the_nearest_vote(kind: dict[str, Any], target: Any) -> None:
    hold(lowered(make_pipeline(StandardScaler(), KNeighborsClassifier(**kind)), IRIS, target), rows(IRIS), 1e-7)


def test_many_columns_are_compared_by_multiplication() -> None:
    hold(lowered(make_pipeline(StandardScaler(), KNeighborsClassifier()), WIDE, np.arange(200) % 3), rows(WIDE))


@pytest.mark.parametrize("kind", [{}, {"weights": "distance"}, {"algorithm": "brute"}], ids=named)
def test_the_nearest_are_averaged(kind: dict[str, Any]) -> None:
    hold(lowered(make_pipeline(StandardScaler(), KNeighborsRegressor(**kind)), DIABETES, PROGRESS), rows(DIABETES))


@pytest.mark.parametrize("weights", ["uniform", "distance"])
@pytest.mark.parametrize("algorithm", ["brute", "kd_tree"])
def test_all_within_a_radius_vote(weights: str, algorithm: str) -> None:
    model = RadiusNeighborsClassifier(2.0, weights=weights, algorithm=algorithm, outlier_label="most_frequent")
    hold(lowered(make_pipeline(StandardScaler(), model), IRIS, THREE), rows(IRIS), 1e-6)
    number = RadiusNeighborsRegressor(9.0, weights=weights, algorithm=algorithm)
    beside = DIABETES * 1.001  # where a distance is nothing but rounding, its inverse is anything
    hold(lowered(make_pipeline(StandardScaler(), number), DIABETES, PROGRESS), beside, 1e-6)


def test_without_a_neighbour_there_is_no_answer() -> None:
    far = columns(pd.DataFrame([[1e4] * 4], columns=IRIS.columns))
    made = lowered(RadiusNeighborsClassifier(2.0), IRIS, THREE)
    assert np.isnan(numbers(made.program(far, 1))).all()
    number = lowered(RadiusNeighborsRegressor(2.0), IRIS, np.arange(150.0))
    assert np.isnan(numbers(number.program(far, 1))).all()


def test_where_all_are_endlessly_far_the_first_counts() -> None:
    far = pd.DataFrame([[1e300, 1.0, 1.0, 1.0]] * 30, columns=IRIS.columns)
    for algorithm in ("kd_tree", "brute"):
        hold(lowered(KNeighborsClassifier(algorithm=algorithm), IRIS.iloc[::-1], THREE[::-1]), far)


@pytest.mark.parametrize("target", [TWO, THREE], ids=["two", "three"])
@pytest.mark.parametrize(
    "model",
    [
        NearestCentroid(),
        NearestCentroid(priors="empirical"),
        NearestCentroid(shrink_threshold=0.1),
        NearestCentroid(metric="manhattan"),
        LabelPropagation(),
        LabelSpreading(),
        LabelPropagation("knn"),
        LabelSpreading("knn", n_neighbors=5),
    ],
    ids=named,
)
def test_the_nearest_centroid_and_labels_that_spread(model: Any, target: Any) -> None:
    near = rows(IRIS).iloc[:81] if hasattr(model, "gamma") else rows(IRIS)
    hold(lowered(make_pipeline(StandardScaler(), model), IRIS, target), near)


@pytest.mark.parametrize(
    "model",
    [
        cluster.KMeans(5, n_init=1),
        cluster.MiniBatchKMeans(4, n_init=1),
        cluster.BisectingKMeans(7),
        cluster.BisectingKMeans(1),
        cluster.MeanShift(),
        cluster.AffinityPropagation(random_state=0),
        cluster.Birch(),
        cluster.Birch(n_clusters=None),
    ],
    ids=named,
)
def test_clusters(model: Any) -> None:
    if isinstance(model, cluster.BisectingKMeans) and model.n_clusters == 1:
        with pytest.raises(NotCompiled):
            lowered(make_pipeline(StandardScaler(), model), IRIS)
        return
    hold(lowered(make_pipeline(StandardScaler(), model), IRIS), rows(IRIS))


@pytest.mark.parametrize(
    "model",
    [
        LocalOutlierFactor(novelty=True),
        LocalOutlierFactor(7, novelty=True, metric="manhattan"),
        IsolationForest(n_estimators=20, random_state=0),
        IsolationForest(n_estimators=20, random_state=0, contamination=0.2, max_features=0.5),
    ],
    ids=named,
)
def test_outliers(model: Any) -> None:
    hold(lowered(make_pipeline(StandardScaler(), model), IRIS), rows(IRIS))


def test_an_isolation_forest_answers_what_float32_cannot_hold() -> None:
    far = pd.DataFrame([[1e300, 1.0, 1.0, 1.0], [-1e200, 1.0, 1.0, 1.0]] * 15, columns=IRIS.columns)
    hold(lowered(IsolationForest(n_estimators=20, random_state=0), IRIS), far)


@pytest.mark.parametrize("kind", [{"weights": np.sqrt}, {"metric": "haversine"}], ids=named)
def test_what_has_no_compiled_form_says_so(kind: dict[str, Any]) -> None:
    with pytest.raises(NotCompiled):
        lowered(KNeighborsClassifier(**kind), IRIS[["a", "b"]], THREE)


@pytest.mark.parametrize("model", [KNeighborsClassifier(), RadiusNeighborsClassifier(2.0)], ids=named)
def test_several_targets_share_their_neighbours(model: Any) -> None:
    model.fit(IRIS, np.column_stack([THREE, TWO]))
    known = adapter.study(model, list(IRIS.columns))
    named = zip("ab", model.classes_, strict=True)
    parts = [Answer("multiclass", name, tuple(each), values="probability") for name, each in named]
    answer = Answer("several", parts=tuple(parts))
    made = program.evaluator(compiled(adapter, model, known.fields, answer).files, answer, known.fields)
    found = made(columns(IRIS), len(IRIS))
    assert np.array_equal(np.array(found.labels), model.predict(IRIS))
    likely = [np.concatenate(row).tolist() for row in found.probabilities or ()]
    np.testing.assert_allclose(likely, np.concatenate(model.predict_proba(IRIS), axis=1), rtol=1e-9)
