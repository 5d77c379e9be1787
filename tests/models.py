"""Small fitted models, each made once, and what it takes to ask them."""

import functools
import random
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer as ColumnTransformer
from sklearn.compose import TransformedTargetRegressor as TransformedTargetRegressor
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    IsolationForest,
    RandomForestClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.feature_extraction import DictVectorizer
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.feature_extraction.text import TfidfVectorizer as TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.pipeline import make_pipeline as make_pipeline
from sklearn.preprocessing import OneHotEncoder as OneHotEncoder
from sklearn.preprocessing import OrdinalEncoder, StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier

from ketch import bundle
from ketch.adapters import sklearn as adapter
from ketch.codec import columns_of
from ketch.pack import Options, compose, read_table
from ketch.predict import Limits, Predictor
from ketch.schema import Columns

Model = Any
FACTORIES: dict[str, Callable[[], Model]] = {}


@functools.cache
def customers(n: int, seed: int) -> list[dict[str, Any]]:
    source = random.Random(seed)
    return [
        {
            "contract": source.choice(["month", "year", "two years"]),
            "partner": source.choice(["yes", "no"]),
            "tenure": source.randint(0, 72),
            "fee": round(source.uniform(18, 120), 2),
        }
        for _ in range(n)
    ]


def rows() -> list[dict[str, Any]]:
    return customers(160, 5)


@functools.cache
def table() -> pd.DataFrame:
    return pd.DataFrame(rows())


def yes_or_no() -> list[int]:
    return [int((row["tenure"] < 30 and row["fee"] > 50) or row["contract"] == "month") for row in rows()]


def species() -> list[str]:
    return [["setosa", "versicolor", "virginica"][row["tenure"] % 3] for row in rows()]


def prices() -> list[float]:
    return [row["fee"] * 12.5 + row["tenure"] for row in rows()]


def numbers() -> Any:
    return table()[["tenure", "fee"]].to_numpy()


def messages() -> list[str]:
    return ["win money now", "meeting at noon", "cheap money offer", "lunch at noon tomorrow"] * 10


def encoding(**how: Any) -> ColumnTransformer:
    return ColumnTransformer(
        [("cat", OneHotEncoder(**how), ["contract", "partner"]), ("num", StandardScaler(), ["tenure", "fee"])]
    )


def made(factory: Callable[[], Model]) -> Callable[[], Model]:
    cached = functools.cache(factory)
    FACTORIES[factory.__name__] = cached
    return cached


@made
def vectorized() -> Model:
    dv = DictVectorizer(sparse=False)
    return dv, LogisticRegression(max_iter=2000).fit(dv.fit_transform(rows()), yes_or_no())


@made
def vectorized_sparse() -> Model:
    return make_pipeline(DictVectorizer(sparse=True), LogisticRegression(max_iter=5000)).fit(rows(), yes_or_no())


@made
def encoded() -> Model:
    return make_pipeline(encoding(handle_unknown="ignore"), LogisticRegression()).fit(table(), yes_or_no())


@made
def forest() -> Model:
    trees = RandomForestClassifier(12, max_depth=4, random_state=0, n_jobs=2)
    return make_pipeline(encoding(handle_unknown="ignore"), trees).fit(table(), species())


@made
def ordinal() -> Model:
    coding = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    columns = ColumnTransformer([("cat", coding, ["contract", "partner"])], remainder="passthrough")
    return make_pipeline(columns, HistGradientBoostingClassifier(max_iter=8)).fit(table(), yes_or_no())


@made
def searched() -> Model:
    pipe = make_pipeline(encoding(handle_unknown="error"), LogisticRegression())
    return GridSearchCV(pipe, {"logisticregression__C": [0.1, 1.0]}, cv=2).fit(table(), yes_or_no())


@made
def calibrated() -> Model:
    return CalibratedClassifierCV(make_pipeline(encoding(), GaussianNB()), cv=2).fit(table(), yes_or_no())


@made
def voting() -> Model:
    parts = [(name, make_pipeline(encoding(), LogisticRegression(C=c))) for name, c in (("a", 1.0), ("b", 0.1))]
    return VotingClassifier(parts, voting="soft").fit(table(), species())


@made
def stacked() -> Model:
    parts = [("a", make_pipeline(encoding(), LogisticRegression())), ("b", make_pipeline(encoding(), GaussianNB()))]
    return StackingClassifier(parts, cv=2).fit(table(), yes_or_no())


@made
def transformed_target() -> Model:
    inner = make_pipeline(encoding(), Ridge())
    return TransformedTargetRegressor(inner, func=np.log1p, inverse_func=np.expm1).fit(table(), prices())


@made
def imputed() -> Model:
    numeric = make_pipeline(SimpleImputer(add_indicator=True), StandardScaler())
    categorical = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore"))
    columns = ColumnTransformer([("n", numeric, ["tenure", "fee"]), ("c", categorical, ["contract", "partner"])])
    holes = table().astype({"tenure": float})
    holes.loc[::7, "fee"] = np.nan
    holes.loc[::5, "contract"] = np.nan
    return make_pipeline(columns, LogisticRegression()).fit(holes, yes_or_no())


@made
def plain_regression() -> Model:
    return LinearRegression().fit(numbers(), [[price] for price in prices()])


@made
def plain_forest() -> Model:
    return RandomForestClassifier(10, random_state=1).fit(numbers(), species())


@made
def boosted() -> Model:
    return GradientBoostingClassifier(n_estimators=10).fit(numbers(), yes_or_no())


@made
def neighbours() -> Model:
    return KNeighborsClassifier(4).fit(numbers(), species())


@made
def tree_with_ties() -> Model:
    return DecisionTreeClassifier(max_depth=1).fit([[0.0], [0.0], [1.0], [1.0]], ["b", "a", "c", "a"])


@made
def network() -> Model:
    mlp = MLPClassifier((5,), max_iter=30, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make_pipeline(StandardScaler(), mlp).fit(numbers(), yes_or_no())


@made
def vectors() -> Model:
    return make_pipeline(StandardScaler(), SVC()).fit(numbers(), ["late" if each else "early" for each in yes_or_no()])


@made
def linear_vectors() -> Model:
    return make_pipeline(StandardScaler(), LinearSVC(max_iter=200_000)).fit(numbers(), species())


@made
def pairwise_vectors() -> Model:
    return make_pipeline(StandardScaler(), SVC(decision_function_shape="ovo")).fit(numbers(), species())


@made
def clusters() -> Model:
    return make_pipeline(StandardScaler(), KMeans(3, n_init=1, random_state=0)).fit(numbers())


@made
def outliers() -> Model:
    return IsolationForest(n_estimators=10, random_state=0).fit(numbers())


@made
def texts() -> Model:
    return make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(messages(), ["spam", "ham"] * 20)


@made
def united_texts() -> Model:
    union = FeatureUnion([("words", TfidfVectorizer()), ("letters", CountVectorizer(analyzer="char"))])
    return Pipeline([("union", union), ("model", LogisticRegression())]).fit(messages(), ["spam", "ham"] * 20)


def late(name: str) -> dict[str, Any]:
    """Name the positive class where none is evident."""
    return {"positive": "late"} if name == "vectors" else {}


def joined(model: Model) -> Model:
    return adapter.join([model])


def opened(model: Model, data: Any = None, *, limits: Limits | None = None, **options: Any) -> Predictor:
    """Pack a model and open the bundle, but for the gate, whose child process costs seconds."""
    with tempfile.TemporaryDirectory() as home:
        packed = compose(model, read_table(data), Options(**options), home=Path(home))
    found = bundle.read(packed.data, "test.ketch")
    return Predictor(found, adapter.runner(joined(model), found.contract.fields), limits=limits or Limits())


def columns(predictor: Predictor, listed: list[Mapping[str, Any]]) -> Columns:
    """Give rows as the checked columns that a runner takes."""
    return predictor.check(bundle_table(listed)).columns


def bundle_table(listed: list[Mapping[str, Any]]) -> Any:
    from ketch.codec import Table

    return Table(columns_of(listed), len(listed))
