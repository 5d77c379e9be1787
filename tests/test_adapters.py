"""scikit-learn: what a fitted model knows, and that it is asked as its maker would ask it."""

import copy
import random
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.decomposition import PCA
from sklearn.feature_extraction import DictVectorizer
from sklearn.feature_extraction.text import HashingVectorizer, TfidfVectorizer
from sklearn.feature_selection import SelectKBest
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, RANSACRegressor
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    RobustScaler,
    StandardScaler,
    TargetEncoder,
)
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from ketch import adapters
from ketch.adapters import Knowledge, adapter_for, sklearn
from ketch.errors import ModelError, NotAModel, NotFitted, UnsupportedModel
from ketch.schema import Field
from tests import models
from tests.models import FACTORIES, joined, opened, rows, table, yes_or_no

Y = yes_or_no()


def know(model: Any, names: tuple[str, ...] = ()) -> dict[str, Field]:
    return {each.name: each for each in sklearn.study(joined(model), names).fields}


def study(model: Any, names: tuple[str, ...] = ()) -> Knowledge:
    return sklearn.study(joined(model), names)


# what a model knows


@pytest.mark.parametrize("model", [models.vectorized, models.vectorized_sparse], ids=lambda each: each.__name__)
def test_a_dict_vectorizer_knows_its_columns_and_categories(model: Any) -> None:
    fields = know(model())
    assert {name: each.type for name, each in fields.items()} == {
        "contract": "category",
        "partner": "category",
        "tenure": "number",
        "fee": "number",
    }
    assert fields["contract"].categories == ("month", "two years", "year")
    assert all(each.required and each.unknown == "refuse" for each in fields.values())
    found = study(model())
    assert (found.task, found.classes, found.probabilities) == ("binary", (0, 1), True)
    assert found.settled == set(fields)
    assert set(found.plausible) == {"tenure", "fee"}


def test_a_one_hot_encoder_knows_its_categories() -> None:
    fields = know(models.encoded())
    assert fields["contract"].categories == ("month", "two years", "year")
    assert (fields["contract"].unknown, fields["contract"].required) == ("flag", True)
    assert fields["tenure"].type == "number"
    assert know(models.searched())["partner"].unknown == "refuse"
    assert study(models.encoded()).plausible["fee"][0] > 0
    assert study(models.encoded()).origin["estimator"] == "ColumnTransformer → LogisticRegression"


@pytest.mark.parametrize(
    ("encoder", "unknown"),
    [
        (OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=5), "flag"),
        (OneHotEncoder(handle_unknown="warn", max_categories=2), "flag"),
        (OneHotEncoder(drop="first"), "refuse"),
        (OrdinalEncoder(), "refuse"),
        (OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan), "flag"),
        (TargetEncoder(cv=2), "flag"),
    ],
    ids=lambda each: type(each).__name__,
)
def test_encoders_say_what_becomes_of_unknown_categories(encoder: Any, unknown: str) -> None:
    columns = ColumnTransformer([("c", encoder, ["contract", "partner"])], remainder="passthrough")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fields = know(make_pipeline(columns, DecisionTreeClassifier(max_depth=2)).fit(table(), Y))
    assert [(fields[name].type, fields[name].unknown) for name in ("contract", "partner")] == [
        ("category", unknown)
    ] * 2
    assert fields["contract"].categories == ("month", "two years", "year")
    assert fields["fee"].type == "number"


@pytest.mark.packing
@pytest.mark.parametrize(
    ("chosen", "known"),
    [
        (["contract"], ["contract"]),
        ("text", ["contract"]),
        ([0, 1], ["contract", "partner"]),
        ([-4], ["contract"]),
        (slice(0, 2), ["contract", "partner"]),
        (slice("contract", "partner"), ["contract", "partner"]),
        (slice(None, "contract"), ["contract"]),
        ([True, True, False, False], ["contract", "partner"]),
        (np.array([True, False, False, False]), ["contract"]),
        (make_column_selector(dtype_exclude=np.number), ["contract", "partner"]),
        (pd.Index(["partner"]), ["partner"]),
    ],
    ids=lambda each: type(each).__name__,
)
def test_columns_are_chosen_in_every_way_of_scikit_learn(chosen: Any, known: list[str]) -> None:
    chosen = ["contract"] if isinstance(chosen, str) else chosen
    model = make_pipeline(ColumnTransformer([("c", OneHotEncoder(), chosen)]), DecisionTreeClassifier()).fit(table(), Y)
    fields = know(model)
    assert list(fields) == known  # the others are dropped
    assert all(each.categories for each in fields.values())
    predictor = opened(model)
    answers = predictor.predict([{name: row[name] for name in known} for row in rows()[:20]])
    assert [int(each["prediction"]) for each in answers] == model.predict(table()[:20]).tolist()


def test_a_column_chosen_alone_is_a_text_or_a_number() -> None:
    frame = pd.DataFrame({"message": models.messages(), "size": range(40)})
    columns = ColumnTransformer([("t", TfidfVectorizer(), "message"), ("n", MinMaxScaler(), [1])])
    model = make_pipeline(columns, LogisticRegression()).fit(frame, [0, 1] * 20)
    found = study(model)
    assert [(each.name, each.type) for each in found.fields] == [("message", "text"), ("size", "number")]
    assert "money" in found.words["message"]
    assert found.plausible["size"] == (0.0, 39.0)
    frame = pd.DataFrame({"message": models.messages()})
    model = make_pipeline(ColumnTransformer([("t", TfidfVectorizer(), 0)]), LogisticRegression()).fit(
        frame, [0, 1] * 20
    )
    assert [(each.name, each.type) for each in study(model).fields] == [("message", "text")]


def test_dropped_columns_are_no_inputs_and_passed_ones_are() -> None:
    for remainder, names in (("drop", ["tenure", "fee"]), ("passthrough", ["tenure", "fee", "month"])):
        frame = table().assign(month=1.5).drop(columns=["contract", "partner"])
        columns = ColumnTransformer(
            [("s", RobustScaler(), ["tenure"]), ("f", "passthrough", ["fee"])], remainder=remainder
        )
        found = study(make_pipeline(columns, LogisticRegression()).fit(frame, Y))
        assert [each.name for each in found.fields] == names
        assert set(found.plausible) == {"tenure"}
    columns = ColumnTransformer([("d", "drop", ["fee"])], remainder=StandardScaler())
    frame = table()[["fee", "tenure"]]
    assert list(know(make_pipeline(columns, LogisticRegression()).fit(frame, Y))) == ["tenure"]


def test_a_plain_array_with_dropped_and_encoded_columns_is_asked_as_it_was_fitted() -> None:
    X = np.array([[row["contract"], "junk", row["partner"], row["tenure"]] for row in rows()], dtype=object)
    columns = ColumnTransformer([("c", OneHotEncoder(), [0, 2]), ("n", "passthrough", [3])])
    model = make_pipeline(columns, LogisticRegression(max_iter=2000)).fit(X, Y)
    assert list(know(model)) == ["x0", "x2", "x3"]
    predictor = opened(model)
    answers = predictor.predict([{"x0": row["contract"], "x2": row["partner"], "x3": row["tenure"]} for row in rows()])
    assert [int(each["prediction"]) for each in answers] == model.predict(X).tolist()
    assert [each["prediction_probability"] for each in answers] == pytest.approx(model.predict_proba(X)[:, 1].tolist())


def test_texts_that_look_like_numbers_stay_texts_in_a_plain_array() -> None:
    X = np.array([["1"], ["2"], ["3"]] * 10, dtype=object)
    model = make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression()).fit(X, [0, 1, 1] * 10)
    predictor = opened(model)
    assert [each["prediction"] for each in predictor.predict([{"x0": "1"}, {"x0": "2"}])] == [False, True]
    beside = predictor.predict([{"x0": "1"}, {"x0": "abc"}])
    assert beside[0] == predictor.predict({"x0": "1"})


def test_plain_arrays_have_numbered_inputs_or_the_names_of_the_sample() -> None:
    assert list(know(models.plain_forest())) == ["x0", "x1"]
    assert list(know(models.plain_forest(), ("tenure", "fee"))) == ["tenure", "fee"]
    assert list(know(models.plain_forest(), ("only one",))) == ["x0", "x1"]


def test_texts() -> None:
    found = study(models.texts())
    assert [(each.name, each.type) for each in found.fields] == [("text", "text")]
    assert "money" in found.words["text"]
    assert list(know(models.texts(), ("message",))) == ["message"]
    assert know(models.united_texts())["text"].type == "text"
    hashed = make_pipeline(HashingVectorizer(n_features=16), LogisticRegression()).fit(models.messages(), [0, 1] * 20)
    assert know(hashed)["text"].type == "text"
    union = FeatureUnion([("a", StandardScaler()), ("b", PCA(1)), ("c", "drop")])
    assert list(know(make_pipeline(union, LogisticRegression()).fit(models.numbers(), Y))) == ["x0", "x1"]


@pytest.mark.parametrize("name", ["searched", "calibrated", "voting", "stacked", "transformed_target"])
def test_wrappers_are_looked_through(name: str) -> None:
    fields = know(FACTORIES[name]())
    assert fields["contract"].categories == ("month", "two years", "year")
    assert fields["fee"].type == "number"
    assert fields["contract"].unknown == "refuse"


def test_a_dict_vectorizer_inside_a_search() -> None:
    pipe = make_pipeline(DictVectorizer(), LogisticRegression(max_iter=5000))
    model = GridSearchCV(pipe, {"logisticregression__C": [0.1]}, cv=2).fit(rows(), Y)
    assert know(model)["partner"].categories == ("no", "yes")
    assert opened(model).predict(rows()[0])["prediction"] is bool(model.predict(rows()[:1])[0])


def test_other_steps_and_estimators_are_no_obstacle() -> None:
    X = models.numbers()
    for model in (
        make_pipeline(None, "passthrough", StandardScaler(), SelectKBest(k=1), LogisticRegression()),
        make_pipeline(FunctionTransformer(np.log1p), LogisticRegression()),
        OneVsRestClassifier(LogisticRegression()),
    ):
        assert list(know(model.fit(X, Y))) == ["x0", "x1"]
    ransac = RANSACRegressor(random_state=0).fit(X, models.prices())
    assert study(ransac).task == "regression"


@pytest.mark.parametrize(
    ("name", "task", "values"),
    [
        ("vectors", "binary", "score"),
        ("linear_vectors", "multiclass", "score"),
        ("pairwise_vectors", "multiclass", "none"),
        ("clusters", "cluster", "none"),
        ("outliers", "outlier", "score"),
        ("plain_regression", "regression", "none"),
        ("forest", "multiclass", "probability"),
    ],
)
def test_tasks(name: str, task: str, values: str) -> None:
    found = study(FACTORIES[name]())
    assert found.task == task
    assert (found.probabilities, found.score and not found.probabilities) == (
        values == "probability",
        values == "score",
    )


# missing values


def test_a_field_is_optional_where_the_fitted_model_handles_its_absence() -> None:
    fields = know(models.imputed())
    assert not any(each.required for each in fields.values())
    assert fields["contract"].type == "category"
    with_gap = table().astype({"contract": object})
    with_gap.loc[::3, "contract"] = None
    model = make_pipeline(models.encoding(handle_unknown="ignore"), LogisticRegression()).fit(with_gap, Y)
    fields = know(model)
    assert (fields["contract"].required, fields["partner"].required) == (False, True)
    assert fields["contract"].categories == ("month", "two years", "year")


@pytest.mark.parametrize("gap", [np.nan, None])
def test_a_missing_category_goes_to_the_model_as_the_encoder_learnt_it(gap: object) -> None:
    frame = table().astype({"contract": object})
    values: Any = [gap if place % 3 == 0 else value for place, value in enumerate(frame["contract"])]
    frame["contract"] = values
    frame["contract"] = frame["contract"].astype(object)
    model = make_pipeline(models.encoding(handle_unknown="ignore"), LogisticRegression()).fit(frame, Y)
    predictor = opened(model)
    asked = [{**row, "contract": None} if place % 3 == 0 else row for place, row in enumerate(rows())]
    found = [each["prediction_probability"] for each in predictor.predict(asked)]
    assert found == pytest.approx(model.predict_proba(frame)[:, 1].tolist(), abs=1e-12)


@pytest.mark.parametrize("mark", [-1, -1.0])
def test_a_missing_number_is_written_as_the_imputer_knows_it(mark: float) -> None:
    frame = table()[["tenure", "fee"]].astype(float)
    frame.loc[::4, "fee"] = mark
    for form in (frame, frame.to_numpy()):
        model = make_pipeline(SimpleImputer(missing_values=mark), StandardScaler(), LogisticRegression()).fit(form, Y)
        predictor = opened(model)
        names = list(know(model))
        asked = [dict(zip(names, (a, None if b == mark else b), strict=True)) for a, b in frame.to_numpy().tolist()]
        found = [each["prediction_probability"] for each in predictor.predict(asked)]
        assert found == pytest.approx(model.predict_proba(form)[:, 1].tolist(), abs=1e-12)


def test_numbers_are_optional_where_the_estimator_answers_without_them() -> None:
    assert {each.name: each.required for each in opened(models.ordinal()).contract.fields} == {
        "contract": True,
        "partner": True,
        "tenure": False,
        "fee": False,
    }
    assert all(each.required for each in opened(models.encoded()).contract.fields)
    assert all(each.required for each in opened(models.vectorized()).contract.fields)


# what is refused


class Own:
    def predict(self, X: Any) -> Any:
        return X


class OwnEstimator(BaseEstimator):  # type: ignore[misc, unused-ignore]
    def __init__(self) -> None:
        self.fitted_ = True

    def fit(self, X: Any, y: Any) -> Any:
        return self

    def predict(self, X: Any) -> Any:
        return X


def test_what_is_no_model_is_refused_with_a_remedy() -> None:
    X = models.numbers()
    cases: list[tuple[Any, type[ModelError], str]] = [
        (StandardScaler().fit(X), NotAModel, "StandardScaler"),
        (DictVectorizer().fit(rows()), NotAModel, "DictVectorizer"),
        (LogisticRegression(), NotFitted, "LogisticRegression is not fitted"),
        (make_pipeline(StandardScaler(), LogisticRegression()), NotFitted, "StandardScaler is not fitted"),
        ((DictVectorizer(), models.vectorized()[1]), NotFitted, "DictVectorizer is not fitted"),
        (GridSearchCV(LogisticRegression(), {}), NotFitted, "GridSearchCV"),
        (OwnEstimator(), UnsupportedModel, "neither classifier"),
        ((*models.vectorized(), models.plain_forest()), UnsupportedModel, "2 of the objects given predict"),
        ((models.vectorized()[0], 0.5), NotAModel, "float"),
        ([StandardScaler().fit(X), models.vectorized()[0]], NotAModel, "DictVectorizer"),
        (3, NotAModel, "int"),
    ]
    for model, kind, words in cases:
        with pytest.raises(kind, match=words) as caught:
            study(model)
        assert caught.value.hint
    with pytest.raises(NotAModel, match="Own"):
        adapter_for(Own())


def test_a_model_that_forgot_its_inputs_is_refused() -> None:
    model = copy.deepcopy(models.boosted())
    del model.n_features_in_
    with pytest.raises(ModelError, match="how many inputs"):
        study(model)


def test_an_adapter_is_found_without_importing_any_other() -> None:
    assert adapter_for(models.boosted()) is sklearn
    assert adapter_for(models.vectorized()[0]) is sklearn


def test_others_plug_in_by_an_entry_point(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "plug-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: plug\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[ketch.adapters]\n{__name__.partition('.')[0]} = ketch.adapters.sklearn\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert adapter_for(Own()) is sklearn


def test_vectorizer_and_estimator_in_any_order_and_nesting_are_one_pipeline() -> None:
    dv, model = models.vectorized()
    wanted = model.predict_proba(dv.transform(rows())).tolist()
    for given in ((dv, model), (model, dv), [dv, model], {"model": model, "dv": dv}, [(dv,), {"m": [model]}]):
        pipe: Any = joined(given)
        assert isinstance(pipe, Pipeline)
        assert pipe.predict_proba(rows()).tolist() == wanted
    assert joined(model) is model


def test_requirements_are_what_is_installed() -> None:
    assert sklearn.requirements()["numpy"] == np.__version__
    assert set(sklearn.requirements()) == {"numpy", "scikit-learn"}
    assert adapters.KNOWN["sklearn"] == sklearn.__name__


# asking


def inputs(name: str) -> list[dict[str, Any]]:
    if "texts" in name:
        return [{"text": text} for text in ["money now", "noon", "", "lunch money", "x y z"] * 10]
    fields = know(FACTORIES[name]())
    if list(fields) == ["x0"]:
        return [{"x0": value} for value in [0.0, 1.0] * 25]
    if "x0" in fields:
        return [{"x0": row["tenure"], "x1": row["fee"]} for row in rows()[:50]]
    return [dict(row) for row in rows()[:50]]


def as_fitted(name: str, asked: list[dict[str, Any]]) -> Any:
    fields = list(know(FACTORIES[name]()))
    if "vectorized" in name:
        return asked
    if "texts" in name:
        return [row["text"] for row in asked]
    return np.array([list(row.values()) for row in asked]) if "x0" in fields else pd.DataFrame(asked)


@pytest.mark.packing
@pytest.mark.parametrize("name", list(FACTORIES))
def test_answers_are_the_estimators_own_and_the_same_in_any_company(name: str) -> None:
    model, asked = joined(FACTORIES[name]()), inputs(name)
    fitted = as_fitted(name, asked)
    labels = model.predict(fitted)
    runner = sklearn.runner(model, tuple(know(FACTORIES[name]()).values()))
    columns: dict[str, list[object]] = {key: [row[key] for row in asked] for key in asked[0]}

    def ask(start: int, end: int) -> list[tuple[Any, Any, Any]]:
        raw = runner({key: values[start:end] for key, values in columns.items()}, end - start)
        n = end - start
        nothing = [None] * n
        return list(zip(raw.labels, raw.probabilities or nothing, raw.scores or nothing, strict=True))

    together = ask(0, 50)
    if labels.dtype.kind == "f":
        assert [label for label, *_ in together] == pytest.approx(labels.ravel().tolist(), rel=1e-12)
    else:
        assert [label for label, *_ in together] == labels.tolist()  # ties and all
    if hasattr(model, "predict_proba"):
        wanted = model.predict_proba(fitted)
        assert np.abs(np.array([found for _, found, _ in together]) - wanted).max() < 1e-12
    source = random.Random(name)
    for place in source.sample(range(50), 10):
        assert repr(ask(place, place + 1)) == repr(together[place : place + 1])
    for size in source.sample(range(2, 50), 3):
        grouped = [each for start in range(0, 50, size) for each in ask(start, min(start + size, 50))]
        assert repr(grouped) == repr(together), size


def test_ties_are_broken_as_the_estimator_breaks_them() -> None:
    model = models.tree_with_ties()
    predictor = opened(model)
    for value in (0.0, 1.0):
        found = predictor.predict({"x0": value})
        assert sorted(found["prediction_probabilities"].values())[-2:] == [0.5, 0.5]
        assert found["prediction"] == model.predict([[value]])[0]


def test_asking_starts_no_threads_and_leaves_the_makers_model_alone() -> None:
    model = copy.deepcopy(models.forest())
    opened(copy.deepcopy(model))
    runner = sklearn.runner(model, tuple(know(model).values()))
    assert runner.model.get_params()["randomforestclassifier__n_jobs"] == 1


def test_dates_integers_and_truth_go_to_the_model_as_pandas_would_give_them() -> None:
    frame = pd.DataFrame(
        {
            "day": pd.to_datetime(["2020-01-05", "2021-06-07", "2022-03-04", "2023-09-09"] * 5),
            "member": [True, False, False, True] * 5,
            "size": [1, 2, 3, 4] * 5,
            "size_code": [1, 2, 1, 2] * 5,
        }
    )
    seen: list[dict[str, str]] = []

    def features(X: pd.DataFrame) -> Any:
        seen.append({str(name): str(kind) for name, kind in X.dtypes.items()})
        return np.column_stack([X["day"].dt.month, X["member"].astype(int), X["size"]])

    model = make_pipeline(FunctionTransformer(features), DecisionTreeClassifier(max_depth=3)).fit(
        frame, [0, 1, 0, 1] * 5
    )
    from ketch.pack import read_table
    from ketch.schema.sample import refine

    columns = read_table(frame) or {}
    fields = [refine(each, columns[each.name]) for each in know(model).values()]
    assert {each.name: each.type for each in fields} == {
        "day": "date",
        "member": "boolean",
        "size": "integer",
        "size_code": "integer",
    }
    runner = sklearn.runner(model, fields)
    raw = runner({"day": ["2021-06-07"], "member": [False], "size": [2.0], "size_code": [2]}, 1)
    assert raw.labels == [1]
    assert seen[-1]["day"].startswith("datetime64")
    assert {name: seen[-1][name] for name in ("member", "size", "size_code")} == {
        "member": "bool",
        "size": "int64",
        "size_code": "int64",
    }
    assert runner({"day": [frame["day"][1]], "member": [False], "size": [2], "size_code": [2]}, 1).labels == [1]


def test_numeric_and_boolean_categories() -> None:
    frame = pd.DataFrame({"rooms": [1, 2, 3, 2] * 5, "garden": [True, False, True, True] * 5, "rate": [0.5, 1.5] * 10})
    encoder = OneHotEncoder(handle_unknown="ignore")
    model = make_pipeline(ColumnTransformer([("c", encoder, ["rooms", "garden", "rate"])]), LinearRegression())
    model.fit(frame, range(20))
    fields = know(model)
    assert fields["rooms"].categories == (1, 2, 3)
    assert fields["garden"].type == "boolean"
    assert fields["rate"].categories == (0.5, 1.5)
    predictor = opened(model)
    asked = frame.to_dict("records")
    found = [each["prediction"] for each in predictor.predict(asked)]
    assert found == pytest.approx(model.predict(frame).tolist())
    odd = predictor.predict([{"rooms": 9, "garden": True, "rate": 0.5}, asked[0]])
    assert odd[1]["prediction"] == found[0]


def test_gaps_beside_values_change_no_answer() -> None:
    predictor = opened(models.imputed())
    whole = rows()[0]
    holes = [{**whole, name: None} for name in whole]
    together = predictor.predict([whole, *holes])
    assert together == [predictor.predict(row) for row in (whole, *holes)]


def test_scores_of_pairs_of_classes_are_not_passed_off_as_scores_of_classes() -> None:
    answer = opened(models.pairwise_vectors()).predict({"x0": 3, "x1": 50.0})
    assert list(answer) == ["prediction"]
    binary = make_pipeline(SVC(decision_function_shape="ovo")).fit(models.numbers(), models.yes_or_no())
    assert study(GridSearchCV(binary, {}, cv=2).fit(models.numbers(), models.species())).score is False
