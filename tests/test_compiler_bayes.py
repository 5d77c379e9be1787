"""Naive Bayes and normal distributions answer the same when they are compiled."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.covariance import EllipticEnvelope
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.mixture import BayesianGaussianMixture, GaussianMixture
from sklearn.naive_bayes import BernoulliNB, CategoricalNB, ComplementNB, GaussianNB, MultinomialNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder

from ketch import program
from ketch.adapters import sklearn as adapter
from ketch.compiler import compiled
from ketch.schema import Answer, Field
from tests.lowered import IRIS, THREE, TWO, columns, hold, lowered, named, numbers, rows

RNG = np.random.default_rng(0)
COLOURS = pd.DataFrame(RNG.choice(["red", "green", "blue"], (120, 3)), columns=list("uvw"))
CODES = pd.DataFrame(RNG.integers(0, 4, (120, 3)), columns=list("uvw"))
HALVES = (RNG.integers(0, 4, 120) + CODES["u"]).to_numpy() % 3


@pytest.mark.parametrize("target", [TWO, THREE], ids=["two", "three"])
@pytest.mark.parametrize(
    "model",
    [
        GaussianNB(),
        MultinomialNB(),
        ComplementNB(),
        BernoulliNB(binarize=1.5),
        BernoulliNB(binarize=None),
        QuadraticDiscriminantAnalysis(),
        QuadraticDiscriminantAnalysis(reg_param=0.1),
    ],
    ids=named,
)
def test_classes_by_their_likelihood(model: Any, target: Any) -> None:
    table = (IRIS.mean() < IRIS).astype(float) if getattr(model, "binarize", 0) is None else IRIS
    hold(lowered(model, table, target), rows(table), 1e-8)


@pytest.mark.parametrize("classes", [2, 3])
def test_categories_become_one_sum(classes: int) -> None:
    ordered = lowered(make_pipeline(OrdinalEncoder(), CategoricalNB()), COLOURS, HALVES % classes)
    assert ordered.is_folded
    hold(ordered, COLOURS)
    spread = lowered(make_pipeline(OneHotEncoder(), BernoulliNB()), COLOURS, HALVES % classes)
    assert spread.is_folded
    hold(spread, COLOURS)


def test_codes_as_numbers_are_cut_and_those_never_seen_have_no_answer() -> None:
    made = lowered(CategoricalNB(), CODES, HALVES)
    hold(made, CODES + RNG.uniform(0, 0.9, CODES.shape))
    for code in (-1.0, 4.0):
        assert np.isnan(numbers(made.program(columns(CODES.assign(v=code).iloc[:1]), 1))).all()


def test_beside_other_columns_a_category_is_looked_up() -> None:
    table = COLOURS.assign(x=CODES["u"].astype(float))
    made = lowered(
        make_pipeline(
            make_column_transformer((OrdinalEncoder(), list("uvw")), remainder="passthrough"), CategoricalNB()
        ),
        table,
        HALVES,
    )
    hold(made, table)


def test_an_envelope_tells_outliers() -> None:
    hold(lowered(EllipticEnvelope(random_state=0), IRIS), rows(IRIS))


@pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical"])
@pytest.mark.parametrize("mixture", [GaussianMixture, BayesianGaussianMixture])
def test_a_mixture_is_a_clustering(mixture: Any, kind: str) -> None:
    model = mixture(n_components=3, covariance_type=kind, random_state=0).fit(IRIS)
    fields, answer = tuple(Field(name, "number") for name in IRIS), Answer("cluster")
    made = program.evaluator(compiled(adapter, model, fields, answer).files, answer, fields)
    asked = rows(IRIS)
    assert made(columns(asked), len(asked)).labels == model.predict(asked).tolist()
