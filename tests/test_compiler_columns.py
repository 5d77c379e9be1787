"""Preprocessing answers the same when it is compiled: encoders, imputers, curves, projections, selections."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.cluster import BisectingKMeans, FeatureAgglomeration, KMeans
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.cross_decomposition import PLSRegression
from sklearn.decomposition import (
    NMF,
    PCA,
    FactorAnalysis,
    FastICA,
    IncrementalPCA,
    KernelPCA,
    SparsePCA,
    TruncatedSVD,
)
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import RandomForestClassifier, RandomTreesEmbedding
from sklearn.experimental import enable_iterative_imputer  # noqa: F401 (opens IterativeImputer)
from sklearn.feature_selection import RFE, SelectFromModel, SelectKBest, VarianceThreshold
from sklearn.frozen import FrozenEstimator
from sklearn.impute import IterativeImputer, KNNImputer, MissingIndicator, SimpleImputer
from sklearn.kernel_approximation import (
    AdditiveChi2Sampler,
    Nystroem,
    PolynomialCountSketch,
    RBFSampler,
    SkewedChi2Sampler,
)
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.manifold import Isomap, LocallyLinearEmbedding
from sklearn.neighbors import KNeighborsTransformer
from sklearn.neural_network import BernoulliRBM
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import (
    Binarizer,
    FunctionTransformer,
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    SplineTransformer,
    StandardScaler,
    TargetEncoder,
)
from sklearn.random_projection import GaussianRandomProjection

from ketch.compiler import NotCompiled
from tests.lowered import Lowered, hold, lowered, named, numbers

SOURCE = np.random.default_rng(3)
TABLE = pd.DataFrame(
    {
        "a": SOURCE.gamma(2, 2, 120),
        "b": SOURCE.integers(1, 12, 120).astype(float),
        "c": SOURCE.uniform(0.1, 1, 120),
        "d": SOURCE.exponential(3, 120),
    }
)
TARGET = np.where(TABLE["a"] + TABLE["b"] / 4 + np.sin(TABLE["d"]) > 5, "yes", "no").astype(object)
NUMBER = (TABLE["a"] * 3 + TABLE["b"]).to_numpy()
GAPS = TABLE.mask(SOURCE.random(TABLE.shape) < 0.15)
SINGLE = TABLE.mask(SOURCE.integers(0, 9, 120)[:, None] == np.arange(4))  # no more than one gap in a row


def asked(table: pd.DataFrame) -> pd.DataFrame:
    """Give rows of a table, with nothing for what is missing."""
    return table.iloc[:40].astype(object).where(table.iloc[:40].notna(), None)


def check(step: Any, table: pd.DataFrame = TABLE, *, end: Any = None) -> Lowered:
    last = LogisticRegression() if end is None else end
    made = lowered(make_pipeline(clone(step), last), table, TARGET)
    hold(made, asked(table))
    return made


def both(step: Any, table: pd.DataFrame = TABLE) -> Lowered:
    """Hold a step before a linear model and before trees, which notice other differences."""
    check(step, table, end=RandomForestClassifier(4, max_depth=4, random_state=0))
    return check(step, table)


FOLDED = [
    StandardScaler(with_mean=False),
    MinMaxScaler((-1, 2)),
    MaxAbsScaler(),
    RobustScaler(unit_variance=True),
    PCA(2, whiten=True),
    IncrementalPCA(2),
    TruncatedSVD(2, random_state=0),
    FastICA(2, random_state=0, whiten="unit-variance"),
    FactorAnalysis(2, random_state=0),
    SparsePCA(2, random_state=0),
    LinearDiscriminantAnalysis(),
    LinearDiscriminantAnalysis(solver="eigen"),
    GaussianRandomProjection(3, random_state=0),
    FeatureAgglomeration(2),
    SelectKBest(k=2),
    SelectFromModel(LogisticRegression()),
    RFE(LogisticRegression(), n_features_to_select=2),
    VarianceThreshold(),
    FunctionTransformer(),
    FunctionTransformer(np.negative),
    FeatureUnion([("p", PCA(2)), ("s", StandardScaler())], transformer_weights={"p": 2.0}),
    ColumnTransformer(
        [("s", StandardScaler(), slice("a", "b"))], remainder="passthrough", transformer_weights={"s": 3}
    ),
]
CURVED = [
    MinMaxScaler(clip=True),
    Binarizer(threshold=2.0),
    Normalizer(),
    Normalizer("max"),
    KBinsDiscretizer(),
    KBinsDiscretizer(3, encode="ordinal", strategy="uniform"),
    make_pipeline(KBinsDiscretizer(encode="ordinal"), OneHotEncoder(handle_unknown="ignore", drop="first")),
    make_pipeline(KBinsDiscretizer(encode="ordinal"), OneHotEncoder(), StandardScaler(with_mean=False)),
    PolynomialFeatures(3, include_bias=False),
    PolynomialFeatures(interaction_only=True),
    *(SplineTransformer(4, extrapolation=kind) for kind in ("constant", "linear", "continue", "periodic", "error")),
    SplineTransformer(4, knots="quantile", include_bias=False, degree=2),
    PowerTransformer(),
    PowerTransformer("box-cox", standardize=False),
    QuantileTransformer(n_quantiles=30),
    QuantileTransformer(n_quantiles=30, output_distribution="normal"),
    *(FunctionTransformer(getattr(np, name)) for name in "log log1p log10 sqrt square cbrt arcsinh tanh sign".split()),
    make_pipeline(MinMaxScaler(), FunctionTransformer(np.expm1)),
    FunctionTransformer(np.clip, kw_args={"a_min": 0.5, "a_max": 4}),
]
MIXED = [
    FeatureAgglomeration(2, pooling_func=np.max),
    KMeans(3, random_state=0, n_init=1),
    BisectingKMeans(3, random_state=0),
    RBFSampler(n_components=8, random_state=0),
    SkewedChi2Sampler(n_components=8, random_state=0),
    AdditiveChi2Sampler(sample_steps=3),
    make_pipeline(StandardScaler(), PolynomialCountSketch(n_components=8, degree=3, coef0=1, random_state=0)),
    *(make_pipeline(StandardScaler(), KernelPCA(3, kernel=kind)) for kind in ("rbf", "poly", "sigmoid", "cosine")),
    *(
        make_pipeline(MinMaxScaler(), Nystroem(kind, n_components=6, random_state=0))
        for kind in ("rbf", "laplacian", "polynomial", "chi2")
    ),
    make_pipeline(MinMaxScaler(), BernoulliRBM(4, n_iter=2, random_state=0)),
    RandomTreesEmbedding(3, max_depth=3, random_state=0),
    KNeighborsTransformer(n_neighbors=3),
    Isomap(n_neighbors=6),
    LocallyLinearEmbedding(n_neighbors=6, random_state=0),
]


@pytest.mark.parametrize("step", FOLDED, ids=named)
def test_what_is_one_multiplication_becomes_one_sum(step: Any) -> None:
    assert both(step).is_folded


@pytest.mark.parametrize("step", [*CURVED, *MIXED], ids=named)
def test_what_is_curved_or_mixed_becomes_a_graph(step: Any) -> None:
    assert not check(step).is_folded


@pytest.mark.parametrize(
    ("step", "folds"),
    [
        (SimpleImputer(), True),
        (SimpleImputer(strategy="median", add_indicator=True), True),
        (SimpleImputer(strategy="constant", fill_value=-1.0), True),
        (FeatureUnion([("i", SimpleImputer()), ("m", MissingIndicator())]), True),
        (make_pipeline(StandardScaler(), SimpleImputer(add_indicator=True)), False),
        (IterativeImputer(max_iter=3, add_indicator=True), False),
        (KNNImputer(n_neighbors=3), False),
    ],
    ids=named,
)
def test_gaps_are_filled(step: Any, folds: bool) -> None:
    assert both(step, GAPS).is_folded is folds


def test_gaps_are_filled_by_distance() -> None:
    both(KNNImputer(weights="distance", add_indicator=True), SINGLE)


def test_a_number_may_stand_for_a_gap() -> None:
    marked = TABLE.assign(b=TABLE["b"].replace(3.0, -999.0))
    check(SimpleImputer(missing_values=-999.0, strategy="most_frequent"), marked)


def categories() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "text": pd.Series(SOURCE.choice(["u", "v", "w"], 120), dtype=object).mask(SOURCE.random(120) < 0.2),
            "size": pd.Series(SOURCE.choice([1.0, 2.0, 5.0], 120)).mask(SOURCE.random(120) < 0.2),
            "a": TABLE["a"],
        }
    )


@pytest.mark.parametrize(
    "encoder",
    [
        OneHotEncoder(handle_unknown="ignore"),
        OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=30),
        OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1),
        TargetEncoder(random_state=0),
    ],
    ids=named,
)
@pytest.mark.parametrize("indicate", [False, True])
def test_filled_categories_are_encoded(encoder: Any, indicate: bool) -> None:
    table = categories()
    fill = SimpleImputer(strategy="most_frequent", add_indicator=indicate)
    encode = ColumnTransformer(
        [(name, make_pipeline(fill, encoder), [name]) for name in ("text", "size")], remainder=StandardScaler()
    )
    made = lowered(make_pipeline(encode, LogisticRegression()), table, TARGET)
    assert made.is_folded
    rows = asked(table)
    strange = rows.assign(text="never seen", size=7.0)
    hold(made, pd.concat([rows, strange.iloc[:5]], ignore_index=True))
    hold(lowered(make_pipeline(encode, RandomForestClassifier(3, random_state=0)), table, TARGET), rows)


def test_numbers_that_an_encoder_does_not_know_keep_their_size_elsewhere() -> None:
    step = ColumnTransformer(
        [("o", OneHotEncoder(handle_unknown="ignore"), ["b"]), ("s", StandardScaler(), ["a", "b"])]
    )
    made = check(step)
    assert made.is_folded
    hold(made, TABLE.iloc[:30].assign(b=20.5))


def test_a_second_choice_of_columns_by_the_names_that_the_first_made() -> None:
    first = ColumnTransformer([("s", StandardScaler(), ["a", "b"]), ("p", "passthrough", ["c"])])
    second = ColumnTransformer([("x", PCA(2), ["s__a", "p__c"])], remainder="passthrough")
    assert check(make_pipeline(first.set_output(transform="pandas"), second)).is_folded


@pytest.mark.parametrize(
    ("step", "wrong"),
    [
        (FunctionTransformer(np.log), 0.0),
        (FunctionTransformer(np.square), 1e200),
        (PowerTransformer("box-cox"), -1.0),
        (SplineTransformer(4, extrapolation="error"), 1e4),
        (AdditiveChi2Sampler(), -1.0),
        (SkewedChi2Sampler(random_state=0), -5.0),
        (PolynomialFeatures(2), 1e200),
        (ColumnTransformer([("o", make_pipeline(FunctionTransformer(np.floor), OneHotEncoder()), ["a"])]), 900.0),
    ],
    ids=named,
)
def test_rows_that_the_original_refuses_are_refused(step: Any, wrong: float) -> None:
    made = lowered(make_pipeline(step, Ridge()), TABLE[TABLE["a"] > 0.1], NUMBER[TABLE["a"] > 0.1])
    row: Any = {name: [1.0] for name in TABLE} | {"a": [wrong]}
    for form in (made.original, made.program):
        with pytest.raises(ValueError):  # noqa: PT011 (each says it in its own words)
            form(row, 1)


def test_trees_take_what_has_become_small_enough_for_them() -> None:
    made = lowered(make_pipeline(FunctionTransformer(np.log1p), RandomForestClassifier(3)), TABLE, TARGET)
    far: Any = {name: [1e200] for name in TABLE}
    np.testing.assert_allclose(numbers(made.program(far, 1)), numbers(made.original(far, 1)), rtol=1e-12)


@pytest.mark.parametrize("step", [KNeighborsTransformer(n_neighbors=3), LocallyLinearEmbedding(n_neighbors=6)], ids=str)
def test_of_neighbours_that_are_equally_far_the_same_are_chosen(step: Any) -> None:
    made = check(step)
    far: Any = {name: [1.0] for name in TABLE} | {"b": [1e60]}
    np.testing.assert_allclose(numbers(made.program(far, 1)), numbers(made.original(far, 1)), rtol=1e-9)


@pytest.mark.parametrize(
    ("around", "folds"),
    [
        ({"func": np.log1p, "inverse_func": np.expm1}, True),
        ({"func": np.log, "inverse_func": np.exp}, True),
        ({"func": np.sqrt, "inverse_func": np.square}, False),
        ({"transformer": make_pipeline(FunctionTransformer(np.log, np.exp), StandardScaler())}, False),
        *(({"transformer": each}, True) for each in (StandardScaler(), MinMaxScaler(), RobustScaler(), MaxAbsScaler())),
        ({"transformer": PowerTransformer()}, False),
        ({"transformer": PowerTransformer("box-cox")}, False),
        ({"transformer": QuantileTransformer(n_quantiles=20)}, False),
    ],
    ids=named,
)
def test_a_transformed_target_is_taken_back(around: dict[str, Any], folds: bool) -> None:
    made = lowered(TransformedTargetRegressor(Ridge(), **around), TABLE, NUMBER)
    assert made.is_folded or not folds
    hold(made, asked(TABLE))


def test_latent_directions_of_a_target() -> None:
    step = FrozenEstimator(PLSRegression(2).fit(TABLE, NUMBER))  # fitting it gives two tables, which no pipeline takes
    hold(lowered(make_pipeline(step, Ridge()), TABLE, NUMBER), asked(TABLE))


@pytest.mark.parametrize("step", [FunctionTransformer(lambda x: x * 2), NMF(2, max_iter=500)], ids=["function", "NMF"])
def test_what_has_no_compiled_form_says_so(step: Any) -> None:
    with pytest.raises(NotCompiled, match=r"function of its own|NMF has no compiled form"):
        lowered(make_pipeline(step, LogisticRegression()), TABLE, TARGET)
