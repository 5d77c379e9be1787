"""XGBoost, LightGBM, CatBoost: objects and files, with categories and missing values, inside pipelines and out."""

import functools
import importlib
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import catboost
import lightgbm
import numpy as np
import pandas as pd
import pytest
import xgboost
from sklearn.calibration import CalibratedClassifierCV
from sklearn.feature_extraction import DictVectorizer
from sklearn.impute import SimpleImputer
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from ketch import adapters, bundle, trust
from ketch.adapters import Knowledge, adapter_for, format_of
from ketch.adapters import catboost as of_catboost
from ketch.adapters import lightgbm as of_lightgbm
from ketch.adapters import sklearn as of_sklearn
from ketch.adapters import xgboost as of_xgboost
from ketch.errors import ModelError, NotAModel, TrustError, UnsupportedModel
from ketch.pack import Options, Packed, compose, read_table
from ketch.predict import load
from ketch.schema import Field
from ketch.testing import AdapterContract, Row
from tests import models

pytestmark = pytest.mark.packing  # long in all

CATEGORIES = ["two years", "month", "year"]  # not in the order of the alphabet: the order of training counts
DATA = Path(__file__).parent


@functools.cache
def frame() -> pd.DataFrame:
    made = models.table().copy()
    made["contract"] = pd.Categorical(made["contract"], categories=CATEGORIES)
    made["partner"] = made["partner"] == "yes"
    made["fee"] = made["fee"].where(made.index % 7 > 0)
    return made


def texts() -> pd.DataFrame:
    return frame().assign(contract=frame()["contract"].astype(str))


def answers() -> Any:
    return np.array(models.yes_or_no())


def sent(table: pd.DataFrame, count: int = 10) -> list[Row]:
    """Give rows as a caller sends them: no NaN, but null."""
    plain = table.head(count).astype(object).where(table.head(count).notna(), None)
    return [{str(name): value for name, value in row.items()} for row in plain.to_dict("records")]


def back(rows: Sequence[Row]) -> pd.DataFrame:
    """Give rows as the framework was fitted on them."""
    made = pd.DataFrame([dict(row) for row in rows]).astype({"fee": float})
    return made.assign(contract=pd.Categorical(made["contract"], categories=CATEGORIES))


@functools.cache
def xgb(kind: str = "XGBClassifier", **how: Any) -> Any:
    target = answers() if "Classifier" in kind else models.prices()
    return getattr(xgboost, kind)(n_estimators=6, max_depth=3, n_jobs=1, enable_categorical=True, **how).fit(
        frame(), target
    )


@functools.cache
def lgbm(kind: str = "LGBMClassifier", **how: Any) -> Any:
    target = models.species() if "Classifier" in kind else models.prices()
    return getattr(lightgbm, kind)(n_estimators=6, min_child_samples=5, verbose=-1, n_jobs=1, **how).fit(
        frame(), target
    )


@functools.cache
def cat(kind: str = "CatBoostClassifier", **how: Any) -> Any:
    target = models.species() if "Classifier" in kind else models.prices()
    quiet = {"verbose": 0, "allow_writing_files": False, "iterations": 6, "depth": 3, "thread_count": 1}
    return getattr(catboost, kind)(**quiet, **how).fit(texts(), target, cat_features=["contract"])


class Boosted(AdapterContract):
    """What is common; the fresh process costs seconds, so most leave it to `pytest -m packing`."""

    def make_rows(self) -> Sequence[Row]:
        return sent(frame())

    def ask(self, model: Any, rows: Sequence[Row]) -> Sequence[Any]:
        found = model.predict_proba(back(rows)) if hasattr(model, "classes_") else model.predict(back(rows))
        return [*found.tolist()]

    @pytest.mark.packing
    def test_a_fresh_process_gives_the_same_answers(self, tmp_path: Path) -> None:
        super().test_a_fresh_process_gives_the_same_answers(tmp_path)

    @pytest.mark.packing
    def test_a_damaged_file_is_refused(self, tmp_path: Path) -> None:
        super().test_a_damaged_file_is_refused(tmp_path)


class Untold(Boosted):
    """A model that does not know what was true or false in training: it takes numbers."""

    def make_rows(self) -> Sequence[Row]:
        return [{**row, "partner": int(bool(row["partner"]))} for row in super().make_rows()]


class TestXGBClassifier(Boosted):
    adapter = of_xgboost
    test_a_fresh_process_gives_the_same_answers = AdapterContract.test_a_fresh_process_gives_the_same_answers

    def make_model(self) -> object:
        return xgb()

    def make_unfitted(self) -> object:
        return xgboost.XGBClassifier()


class TestXGBRegressor(Boosted):
    adapter = of_xgboost

    def make_model(self) -> object:
        return xgb("XGBRegressor", booster="dart")


class TestXGBRFClassifier(Boosted):
    adapter = of_xgboost

    def make_model(self) -> object:
        return xgb("XGBRFClassifier")


class TestXGBooster(Boosted):
    adapter = of_xgboost

    def make_model(self) -> object:
        return xgb().get_booster()

    def make_unfitted(self) -> object:
        return xgboost.Booster()

    def ask(self, model: Any, rows: Sequence[Row]) -> Sequence[Any]:
        found = model.predict(xgboost.DMatrix(back(rows), enable_categorical=True))
        return [[1 - each, each] for each in found.tolist()]

    tolerance = 1e-6  # 1 - p in double here, in single there


class TestXGBoostFile(TestXGBClassifier):
    test_a_fresh_process_gives_the_same_answers = Boosted.test_a_fresh_process_gives_the_same_answers

    def save(self, model: Any, folder: Path) -> Path | None:
        model.save_model(folder / "model.ubj")
        return folder / "model.ubj"


class TestLGBMClassifier(Untold):
    adapter = of_lightgbm

    def make_model(self) -> object:
        return lgbm()

    def make_unfitted(self) -> object:
        return lightgbm.LGBMClassifier()


class TestLGBMRegressor(Boosted):
    adapter = of_lightgbm

    def make_model(self) -> object:
        return lgbm("LGBMRegressor")

    def make_table(self) -> Any:
        return frame()


class TestLightGBMFile(Untold):
    adapter = of_lightgbm

    def make_model(self) -> object:
        return lgbm().booster_

    def save(self, model: Any, folder: Path) -> Path | None:
        model.save_model(folder / "model.txt")
        return folder / "model.txt"


class TestCatBoostClassifier(Untold):
    adapter = of_catboost

    def make_model(self) -> object:
        return cat()

    def make_unfitted(self) -> object:
        return catboost.CatBoostClassifier()

    def ask(self, model: Any, rows: Sequence[Row]) -> Sequence[Any]:
        found = back(rows).assign(contract=[str(row["contract"]) for row in rows])
        return [*(model.predict_proba(found) if hasattr(model, "predict_proba") else model.predict(found)).tolist()]


class TestCatBoostRegressor(TestCatBoostClassifier):
    test_a_fresh_process_gives_the_same_answers = Boosted.test_a_fresh_process_gives_the_same_answers

    def make_model(self) -> object:
        return cat("CatBoostRegressor")

    def make_rows(self) -> Sequence[Row]:
        return Boosted.make_rows(self)

    def make_table(self) -> Any:
        return texts()


class TestCatBoostFile(TestCatBoostClassifier):
    test_a_fresh_process_gives_the_same_answers = Boosted.test_a_fresh_process_gives_the_same_answers

    def save(self, model: Any, folder: Path) -> Path | None:
        model.save_model(str(folder / "model.cbm"))
        return folder / "model.cbm"


# ---- what a model knows ------------------------------------------------------------------------------


def know(model: Any, names: Sequence[str] = ()) -> dict[str, Field]:
    return {each.name: each for each in study(model, names).fields}


def study(model: Any, names: Sequence[str] = ()) -> Knowledge:
    adapter = adapter_for(model)
    return adapter.study(adapter.join([model]), names)


def kinds(fields: dict[str, Field]) -> dict[str, str]:
    return {name: each.type for name, each in fields.items()}


def test_xgboost_knows_types_and_categories_in_the_order_of_training() -> None:
    fields = know(xgb())
    assert kinds(fields) == {"contract": "category", "partner": "boolean", "tenure": "integer", "fee": "number"}
    assert fields["contract"].categories == tuple(CATEGORIES)
    assert fields["contract"].unknown == "refuse"  # XGBoost raises on a category that it never saw
    assert not any(each.required for each in fields.values())
    numbers = frame().assign(contract=pd.Categorical(models.table()["tenure"] % 3, categories=[2, 0, 1]))
    told = know(xgboost.XGBRegressor(n_estimators=2, enable_categorical=True).fit(numbers, models.prices()))
    assert told["contract"].categories == (2, 0, 1)


def test_lightgbm_knows_categories_and_takes_others_as_missing() -> None:
    fields = know(lgbm())
    assert kinds(fields) == {"contract": "category", "partner": "number", "tenure": "number", "fee": "number"}
    assert fields["contract"].categories == tuple(CATEGORIES)
    assert (fields["contract"].unknown, fields["contract"].required) == ("flag", False)
    assert study(lgbm()).classes == ("setosa", "versicolor", "virginica")
    spaced = frame()[["tenure", "fee"]].rename(columns={"fee": "monthly fee"})
    model = lightgbm.LGBMRegressor(n_estimators=2, verbose=-1, n_jobs=1).fit(spaced, models.prices())
    assert list(know(model)) == ["tenure", "monthly_fee"]
    assert list(know(model, ["tenure", "monthly fee"])) == ["tenure", "monthly fee"]
    codes = frame().assign(contract=frame()["contract"].cat.codes)
    data = lightgbm.Dataset(codes, models.prices(), categorical_feature=["contract"])
    booster = lightgbm.train({"verbose": -1, "num_threads": 1}, data, 2)
    assert know(booster)["contract"].type == "integer"


def test_catboost_learns_categories_from_a_sample() -> None:
    fields = know(cat())
    assert kinds(fields) == {"contract": "text", "partner": "number", "tenure": "number", "fee": "number"}
    assert fields["contract"].required
    fields = {each.name: each for each in contract(cat(), texts()).fields}
    assert (fields["contract"].type, fields["contract"].unknown) == ("category", "flag")
    assert fields["contract"].categories == ("month", "two years", "year")
    assert fields["contract"].required
    assert not fields["fee"].required


def contract(model: Any, data: Any = None) -> Any:
    return bundle.read(packed(model, data).data, "test").contract


def packed(model: Any, data: Any = None, home: Path = Path("/nonexistent")) -> Packed:
    return compose(model, read_table(data), Options(target="churn"), home=home)


@pytest.mark.parametrize(
    ("make", "task", "classes", "given"),
    [
        (lambda: xgb(objective="binary:logitraw"), "binary", (0, 1), "score"),
        (lambda: xgb(objective="binary:hinge"), "binary", (0, 1), ""),
        (lambda: xgb("XGBRegressor", objective="count:poisson"), "regression", (), ""),
        (lambda: linear(), "regression", (), ""),
        (lambda: xgb_of("multi:softmax", 3), "multiclass", (0, 1, 2), ""),
        (lambda: xgb_of("multi:softprob", 3), "multiclass", (0, 1, 2), "probabilities"),
        (lambda: lgbm("LGBMRegressor", objective="poisson"), "regression", (), ""),
        (lambda: lgbm_of("binary"), "binary", (0, 1), "probabilities"),
        (lambda: cat("CatBoostRegressor", loss_function="Poisson"), "regression", (), ""),
    ],
)
def test_the_objective_tells_the_task(make: Callable[[], Any], task: str, classes: tuple[int, ...], given: str) -> None:
    model = make()
    told = study(model, list("abcd"))
    assert (told.task, told.classes) == (task, classes)
    assert (told.probabilities, told.score) == (given == "probabilities", given == "score")
    if task == "regression" and not isinstance(model, xgboost.XGBRegressor):
        predictor = models.opened(model, texts() if "cat" in type(model).__module__ else frame())
        found = predictor.predict([dict(row) for row in sent(frame(), 3)])
        wanted = model.predict(texts().head(3) if "cat" in type(model).__module__ else frame().head(3))
        assert [each["prediction"] for each in found] == pytest.approx(wanted.tolist(), rel=1e-9)


def linear() -> Any:
    return xgboost.XGBRegressor(n_estimators=3, n_jobs=1, booster="gblinear").fit(models.numbers(), models.prices())


def xgb_of(objective: str, count: int) -> Any:
    data = xgboost.DMatrix(models.numbers(), np.arange(160) % count)
    return xgboost.train({"objective": objective, "num_class": count, "nthread": 1}, data, 3)


def lgbm_of(objective: str) -> Any:
    data = lightgbm.Dataset(models.numbers(), answers())
    return lightgbm.train({"objective": objective, "verbose": -1, "num_threads": 1}, data, 3)


def test_a_model_fitted_on_an_array_gets_names_made_up_or_given() -> None:
    for model in (xgb_of("multi:softprob", 3), lgbm_of("binary"), catboost_of(models.numbers())):
        assert list(know(model)) == ["x0", "x1"]
        assert list(know(model, ["tenure", "fee"])) == ["tenure", "fee"]
        assert not study(model).named


def catboost_of(data: Any) -> Any:
    model = catboost.CatBoostClassifier(iterations=3, verbose=0, allow_writing_files=False, thread_count=1)
    return model.fit(data, answers())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: xgboost.XGBRanker(n_estimators=2).fit(models.numbers(), answers(), qid=np.arange(160) // 20), "ranks"),
        (
            lambda: lightgbm.LGBMRanker(n_estimators=2, verbose=-1).fit(models.numbers(), answers(), group=[80, 80]),
            "ranks",
        ),
        (
            lambda: catboost.CatBoostRanker(iterations=2, verbose=0, allow_writing_files=False).fit(
                models.numbers(), answers(), group_id=np.arange(160) // 20
            ),
            "ranks",
        ),
        (lambda: xgboost.XGBRegressor(n_estimators=2).fit(models.numbers(), models.numbers()), "several targets"),
        (
            lambda: catboost.CatBoostRegressor(
                iterations=2, verbose=0, allow_writing_files=False, loss_function="MultiRMSE"
            ).fit(models.numbers(), models.numbers()),
            "several targets",
        ),
    ],
)
def test_what_has_no_answer_to_one_row_is_refused(make: Callable[[], Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match=words) as caught:
        packed(make(), home=tmp_path)
    assert caught.value.hint


def test_asking_leaves_the_threads_of_the_owner_alone(tmp_path: Path) -> None:
    model = xgb().__class__(n_estimators=2, n_jobs=2).fit(models.numbers(), answers())
    packed(model, home=tmp_path)
    assert model.n_jobs == 2


# ---- inside scikit-learn -----------------------------------------------------------------------------


def test_inside_a_pipeline_and_wrappers_a_booster_keeps_what_it_knows() -> None:
    for model in (
        make_pipeline(xgboost.XGBClassifier(n_estimators=3, n_jobs=1, enable_categorical=True)),
        make_pipeline(lightgbm.LGBMClassifier(n_estimators=3, verbose=-1, n_jobs=1)),
        GridSearchCV(
            xgboost.XGBClassifier(n_estimators=3, n_jobs=1, enable_categorical=True), {"max_depth": [2]}, cv=2
        ),
        CalibratedClassifierCV(lightgbm.LGBMClassifier(n_estimators=3, verbose=-1, n_jobs=1), cv=2),
    ):
        model.fit(frame().assign(partner=1), answers())
        assert know(model)["contract"].categories == tuple(CATEGORIES), model
        assert not know(model)["fee"].required
        predictor = models.opened(model)
        found = predictor.predict([{**row, "partner": 1} for row in sent(frame(), 12)])
        wanted = model.predict_proba(frame().head(12).assign(partner=1))[:, 1].tolist()
        assert [each["prediction_probability"] for each in found] == pytest.approx(wanted, abs=1e-12)


def test_a_booster_behind_an_imputer_or_a_vectorizer() -> None:
    numbers = frame()[["tenure", "fee"]]
    for ending in (
        xgboost.XGBClassifier(n_estimators=3, n_jobs=1),
        lightgbm.LGBMClassifier(n_estimators=3, verbose=-1, n_jobs=1),
        catboost_of(models.numbers()),
    ):
        model = make_pipeline(SimpleImputer(), ending).fit(numbers, answers())
        assert list(know(model)) == ["tenure", "fee"]
        assert models.opened(model).predict({"tenure": 3, "fee": None}).keys() == {
            "prediction",
            "prediction_probability",
        }
    dv = DictVectorizer(sparse=False)
    data = xgboost.DMatrix(
        dv.fit_transform(models.rows()), answers(), feature_names=[str(each) for each in dv.feature_names_]
    )
    booster = xgboost.train({"objective": "binary:logistic", "nthread": 1}, data, 3)
    for parts in ((dv, booster), (booster, dv)):
        model = adapter_for(parts[0]).join([parts])
        assert know(model)["contract"].categories == ("month", "two years", "year")
        found = of_sklearn.runner(model, list(know(model).values()))(
            {name: [row[name] for row in models.rows()[:9]] for name in know(model)}, 9
        )
        assert [row[1] for row in found.probabilities or ()] == pytest.approx(
            booster.predict(data)[:9].tolist(), abs=1e-6
        )


# ---- files and the gate ------------------------------------------------------------------------------


def written(folder: Path) -> dict[str, Path]:
    """Write the files that the libraries write."""
    xgb().save_model(folder / "x.json")
    xgb().get_booster().save_model(folder / "x.ubj")
    lgbm().booster_.save_model(folder / "l.txt")
    cat().save_model(str(folder / "c.cbm"))
    cat().save_model(str(folder / "c.json"), format="json")
    names = {
        "x.json": "xgboost-json",
        "x.ubj": "xgboost-ubj",
        "l.txt": "lightgbm-txt",
        "c.cbm": "catboost-cbm",
        "c.json": "catboost-json",
    }
    return {form: folder / name for name, form in names.items()}


def test_files_are_told_apart_and_opened_as_who_saved_them(tmp_path: Path) -> None:
    found = {}
    for form, path in written(tmp_path).items():
        data = path.read_bytes()
        assert format_of("model", data) == form
        assert format_of("model", data[1:]) == ""
        model: Any = importlib.import_module(adapters.READERS[form]).open_file(data, form)
        found[form] = type(model).__name__
        told = study(model)
        assert told.task == ("binary" if form.startswith("xgboost") else "multiclass")
    assert found == {
        "xgboost-json": "XGBClassifier",
        "xgboost-ubj": "Booster",
        "lightgbm-txt": "Booster",
        "catboost-cbm": "CatBoost",
        "catboost-json": "CatBoost",
    }
    with pytest.raises(UnsupportedModel, match="old binary form"):
        of_xgboost.open_file(b"binf....", "xgboost-old")


def test_a_native_file_is_stored_as_given_and_served(tmp_path: Path) -> None:
    path = tmp_path / "model.ubj"
    xgb().save_model(path)
    made = compose(str(path), None, Options(target="churn"), home=tmp_path / "home")
    opened = bundle.read(made.data, "churn")
    assert [(form, data) for _, form, data in opened.originals] == [("xgboost-ubj", path.read_bytes())]
    (tmp_path / "churn.ketch").write_bytes(made.data)
    answer = load(tmp_path / "churn.ketch", home=tmp_path / "home").predict(dict(sent(frame(), 1)[0]))
    assert answer.keys() == {"churn", "churn_probability"}


def test_ordinary_pickles_open_without_approval() -> None:
    for model in (
        xgb(),
        xgb("XGBRegressor"),
        xgb().get_booster(),
        lgbm(),
        lgbm().booster_,
        cat(),
        cat("CatBoostRegressor"),
    ):
        for protocol in (2, 4, 5):
            found = trust.examine(pickle.dumps(model, protocol=protocol))
            assert not found.refused, found
            assert not found.faults, found
        lists = trust.lists()
        opened = trust.sibling("unpickle").load(pickle.dumps(model), lists)
        assert type(opened) is type(model)


def damaged(model: Any) -> Any:
    """Damage the bytes or the text inside a pickled booster, and leave the pickle around it whole."""
    data = pickle.dumps(model)
    mark = next(each for each in (b"split_indices", b"left_child=", b"FlabuffersModel_v1") if each in data)
    place = data.rindex(mark) + len(mark) + 2
    return data[:place] + bytes(255 - each for each in data[place : place + 60]) + data[place + 60 :]


@pytest.mark.parametrize(
    "model", [lambda: xgb(), lambda: lgbm("LGBMRegressor"), lambda: cat()], ids=["xgboost", "lightgbm", "catboost"]
)
def test_damaged_bytes_inside_a_pickle_are_refused_in_words(model: Callable[[], Any], tmp_path: Path) -> None:
    with pytest.raises((TrustError, ModelError)) as caught:
        trust.open_model(damaged(model()), home=tmp_path, name="model.pkl")
    assert caught.value.message
    assert caught.value.hint


OUTSIDE = [
    ("lightgbm-txt", b"left_child="),
    pytest.param("lightgbm-txt", b"split_feature=", marks=pytest.mark.packing),
    pytest.param("xgboost-json", b'"split_indices":[', marks=pytest.mark.packing),
    pytest.param("xgboost-json", b'"left_children":[', marks=pytest.mark.packing),
]


@pytest.mark.parametrize(("form", "mark"), OUTSIDE)
def test_trees_that_point_outside_themselves_are_refused(form: str, mark: bytes, tmp_path: Path) -> None:
    data = lgbm("LGBMRegressor").booster_.model_to_string().encode()
    if form == "xgboost-json":
        data = bytes(xgb().get_booster().save_raw("json"))
    place = data.index(mark) + len(mark)
    with pytest.raises((NotAModel, TrustError), match=r"contradict|crashed") as caught:
        adapters.open_original(data[:place] + b"99" + data[place:], form, home=tmp_path, name="model")
    assert caught.value.hint


# ---- real data ---------------------------------------------------------------------------------------


@functools.cache
def customers(folder: Path) -> tuple[pd.DataFrame, Any]:
    table = pd.read_csv(folder / "telco-customer-churn.csv").drop(columns="customerID")
    table["TotalCharges"] = pd.to_numeric(table["TotalCharges"], errors="coerce")  # eleven are blank
    return table.drop(columns="Churn"), (table["Churn"] == "Yes").to_numpy().astype(int)


def as_categories(table: pd.DataFrame) -> pd.DataFrame:
    return table.astype(dict.fromkeys(table.select_dtypes(exclude="number"), "category"))


LIBRARIES: dict[str, tuple[Callable[[], Any], Callable[[pd.DataFrame], pd.DataFrame]]] = {
    "xgboost": (lambda: xgboost.XGBClassifier(n_estimators=20, n_jobs=1, enable_categorical=True), as_categories),
    "lightgbm": (lambda: lightgbm.LGBMClassifier(n_estimators=20, n_jobs=1, verbose=-1), as_categories),
    "catboost": (
        lambda: catboost.CatBoostClassifier(
            iterations=20, depth=4, verbose=0, thread_count=1, allow_writing_files=False
        ),
        lambda table: table,
    ),
}


@pytest.mark.parametrize("library", LIBRARIES)
def test_every_customer_gets_the_original_answer(library: str, real_data: Path) -> None:
    table, churned = customers(real_data)
    make, prepare = LIBRARIES[library]
    texts_in = [str(name) for name in table.select_dtypes(exclude="number")]
    how = {"cat_features": texts_in} if library == "catboost" else {}
    model = make().fit(prepare(table), churned, **how)
    predictor = models.opened(model, table, target="churn")
    fields = {each.name: each for each in predictor.contract.fields}
    assert {name for name, each in fields.items() if each.type == "category"} == set(texts_in)
    assert not fields["TotalCharges"].required
    found = predictor.predict(table)["churn_probability"].tolist()
    assert found == pytest.approx(model.predict_proba(prepare(table))[:, 1].tolist(), abs=1e-12)
    for place in (0, 488, 7042):  # the second has no TotalCharges
        row = {str(name): value for name, value in table.iloc[place].items()}
        assert predictor.predict(row)["churn_probability"] == found[place]
