"""XGBoost, LightGBM and CatBoost answer the same when they are compiled, with categories and missing values."""

import functools
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import catboost
import lightgbm
import numpy as np
import pandas as pd
import pytest
import xgboost
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from ketch import bundle, program
from ketch.adapters import Runner, adapter_for
from ketch.compiler import NotCompiled, compiled
from ketch.pack import Options, compose, read_table
from ketch.schema import Answer, Columns, Field
from ketch.schema.sample import refine
from tests.lowered import numbers

ROWS = 400
COLORS, CITIES = ["red", "blue", "green"], [f"city {n}" for n in range(12)]
XGB: dict[str, Any] = {"n_estimators": 12, "max_depth": 4, "n_jobs": 1, "enable_categorical": True}
LGBM: dict[str, Any] = {"n_estimators": 12, "min_child_samples": 5, "verbose": -1, "n_jobs": 1}
CAT: dict[str, Any] = {"iterations": 25, "depth": 4, "verbose": 0, "allow_writing_files": False, "thread_count": 1}


@functools.cache
def table() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    made = pd.DataFrame(
        {
            "color": pd.Categorical(rng.choice(COLORS, ROWS), categories=COLORS),
            "city": pd.Categorical(rng.choice(CITIES, ROWS), categories=CITIES),
            "size": pd.Categorical(rng.choice([3, 1, 2], ROWS), categories=[3, 1, 2]),
            "vip": rng.random(ROWS) < 0.5,
            "age": rng.integers(18, 80, ROWS),
            "fee": rng.gamma(2.0, 30.0, ROWS).round(2),
        }
    )
    for name in ("color", "city", "size", "fee"):
        made[name] = made[name].where(rng.random(ROWS) > 0.1)
    return made


@functools.cache
def words() -> pd.DataFrame:
    """Give the table as CatBoost takes it: texts, none of them missing."""
    as_text = {name: table()[name].astype(object).fillna("none").astype(str) for name in ("color", "city", "size")}
    return table().assign(**as_text)


@functools.cache
def target(kind: str = "number") -> Any:
    given = table()
    code = given["color"].cat.codes * 7 + given["city"].cat.codes % 5 * 4 + 3 * given["vip"]
    noise = np.random.default_rng(1).normal(0, 4, ROWS)
    found = (code + given["fee"].fillna(90) / 9 + noise).clip(lower=1).to_numpy()
    if kind == "number":
        return found
    return (found > np.median(found)).astype(int) if kind == "two" else np.digitize(found, [15, 25])


@dataclass(frozen=True)
class Both:
    """A model in both forms."""

    original: Runner
    program: Runner
    fields: tuple[Field, ...]
    answer: Answer
    thresholds: dict[str, list[float]]


def both(model: Any, sample: pd.DataFrame) -> Both:
    columns = read_table(sample)
    assert columns is not None
    adapter = adapter_for(model)
    known = adapter.study(model, list(columns))
    fields = tuple(refine(each, columns[each.name]) for each in known.fields)
    values: Any = "probability" if known.probabilities else "score" if known.score else "none"
    answer = Answer(known.task, "y", tuple(known.classes), values=values)  # type: ignore[arg-type]
    made = compiled(adapter, model, fields, answer)
    found = program.evaluator(made.files, answer, fields)
    return Both(adapter.runner(model, fields), found, fields, answer, made.thresholds)


def asked(given: Both, sample: pd.DataFrame) -> Columns:
    """Give the sample's rows and others: each value missing or unknown, numbers at their thresholds and far away."""
    listed = sample.astype(object).where(sample.notna(), None)
    columns = {str(name): listed[name].head(120).tolist() for name in listed}
    for each in given.fields:
        tried: list[object] = [] if each.required else [None]
        if each.type == "category":
            tried += [*each.categories, *(["never seen"] if each.unknown == "flag" else [])]
        elif each.type in {"number", "integer"}:
            at = [value for value in sorted(set(given.thresholds.get(each.name, []))) if abs(value) < 1e300]
            tried += [0.0, -1e-40, -1e9, 1e9, 1e60, *at, *np.nextafter(at, -np.inf), *np.nextafter(at, np.inf)]
            tried += np.array(at, "float32").astype(float).tolist()
        if each.type == "integer":
            tried = [None if value is None else int(value) for value in tried]  # type: ignore[call-overload]
        for name, values in columns.items():
            values += tried if name == each.name else [values[7]] * len(tried)
    return columns


def hold(model: Any, sample: pd.DataFrame, tolerance: float = 1e-6) -> None:
    given = both(model, sample)
    columns = asked(given, sample)
    n = len(columns["fee"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted, found = given.original(columns, n), given.program(columns, n)
    if given.answer.task == "regression" or given.answer.values != "none":
        np.testing.assert_allclose(numbers(found), numbers(wanted), rtol=tolerance, atol=tolerance)
    if given.answer.task != "regression":
        assert found.labels == wanted.labels
        assert len(set(found.labels)) > 1
    for row in range(n - 30, n):
        alone = given.program({name: [values[row]] for name, values in columns.items()}, 1)
        assert alone.labels == found.labels[row : row + 1]
        assert numbers(alone).tolist() == numbers(found)[row : row + 1].tolist()


# ---- XGBoost -----------------------------------------------------------------------------------------


@functools.cache
def xgb(kind: str, to: str = "two", **how: Any) -> Any:
    wanted = target(to) / 60 if how.get("objective") == "reg:logistic" else target(to)
    return getattr(xgboost, kind)(**{**XGB, **how}).fit(table(), wanted.clip(0, 1) if kind == "ratio" else wanted)


@pytest.mark.parametrize("to", ["two", "three"])
@pytest.mark.parametrize("kind", ["XGBClassifier", "XGBRFClassifier"])
def test_xgboost_classifies(kind: str, to: str) -> None:
    hold(xgb(kind, to), table())
    if kind == "XGBClassifier":
        hold(xgb(kind, to).get_booster(), table())


@pytest.mark.parametrize(
    "how", [{"booster": "dart", "rate_drop": 0.5}, {"max_cat_to_onehot": 1}, {"grow": "lossguide"}]
)
def test_xgboost_grows_in_many_ways(how: dict[str, Any]) -> None:
    how = {"grow_policy": how["grow"], "max_leaves": 9} if "grow" in how else how
    hold(xgb("XGBClassifier", **how), table())
    hold(xgb("XGBRegressor", "number", **how), table(), 1e-12)


@pytest.mark.parametrize(
    ("objective", "tolerance"),
    [
        ("reg:squarederror", 0.0),
        ("reg:absoluteerror", 0.0),
        ("reg:pseudohubererror", 0.0),
        ("reg:squaredlogerror", 0.0),
        ("reg:logistic", 1e-6),
        ("count:poisson", 1e-6),
        ("reg:gamma", 1e-6),
        ("reg:tweedie", 1e-6),
    ],
)
def test_xgboost_adds_up_in_float32(objective: str, tolerance: float) -> None:
    hold(xgb("XGBRegressor", "number", objective=objective), table(), tolerance)


@pytest.mark.parametrize("objective", ["binary:logitraw", "binary:hinge"])
def test_xgboost_answers_scores_or_labels(objective: str) -> None:
    hold(xgb("XGBClassifier", objective=objective), table())
    hold(xgb("XGBClassifier", objective=objective).get_booster(), table())


def test_xgboost_stays_near_with_many_trees() -> None:
    hold(xgb("XGBClassifier", "three", n_estimators=220, max_depth=2), table(), 3e-7)


def test_xgboost_stops_early() -> None:
    model = xgboost.XGBClassifier(**{**XGB, "n_estimators": 60}, early_stopping_rounds=2, learning_rate=0.9)
    model.fit(table()[:200], target("two")[:200], eval_set=[(table()[200:], target("two")[200:])], verbose=False)
    assert model.best_iteration < model.get_booster().num_boosted_rounds() - 1
    hold(model, table())


def test_xgboost_takes_a_number_for_missing() -> None:
    only = table()[["age", "fee"]].fillna(50.0)
    model = xgboost.XGBRegressor(n_estimators=5, missing=50.0, tree_method="exact", gamma=30.0, n_jobs=1)
    hold(model.fit(only, target()), only, 0.0)


def test_xgboost_is_linear_without_a_graph() -> None:
    only = table()[["age", "fee"]].fillna(1.0)
    model = xgboost.XGBRegressor(n_estimators=3, booster="gblinear", n_jobs=1).fit(only, target())
    given = both(model, only)
    assert isinstance(given.program, program.LinearEvaluator)
    found = given.program({"age": [30, 40], "fee": [1.0, 2.0]}, 2)
    assert numbers(found).tolist() == pytest.approx(
        model.predict(pd.DataFrame({"age": [30, 40], "fee": [1.0, 2.0]})).tolist(), rel=1e-5
    )


# ---- LightGBM ----------------------------------------------------------------------------------------


@functools.cache
def lgbm(kind: str, to: str = "two", **how: Any) -> Any:
    wanted = target(to) / target(to).max() if "cross" in how.get("objective", "") else target(to)
    return getattr(lightgbm, kind)(**{**LGBM, **how}).fit(table(), wanted)


@pytest.mark.parametrize("to", ["two", "three"])
@pytest.mark.parametrize(
    "how",
    [
        {},
        {"boosting_type": "dart"},
        {"boosting_type": "rf", "bagging_freq": 1, "bagging_fraction": 0.6},
        {"max_cat_to_onehot": 20},
        {"sigmoid": 2.0},
    ],
    ids=str,
)
def test_lightgbm_classifies(how: dict[str, Any], to: str) -> None:
    hold(lgbm("LGBMClassifier", to, **how), table(), 1e-12)
    hold(lgbm("LGBMClassifier", to, **how).booster_, table(), 1e-12)


def test_lightgbm_sets_each_class_against_the_rest() -> None:
    hold(lgbm("LGBMClassifier", "three", objective="multiclassova"), table(), 1e-12)


@pytest.mark.parametrize("how", [{"zero_as_missing": True}, {"use_missing": False}, {"reg_sqrt": True}], ids=str)
def test_lightgbm_knows_three_ways_to_be_missing(how: dict[str, Any]) -> None:
    hold(lgbm("LGBMRegressor", "number", **how), table(), 1e-12)


@pytest.mark.parametrize(
    "objective",
    "regression_l1 huber fair quantile mape poisson gamma tweedie cross_entropy cross_entropy_lambda".split(),
)
def test_lightgbm_answers_numbers(objective: str) -> None:
    hold(lgbm("LGBMRegressor", "number", objective=objective), table(), 1e-12)


def test_lightgbm_stops_early_and_grows_no_tree() -> None:
    stop = lightgbm.early_stopping(2, verbose=False)
    model = lightgbm.LGBMClassifier(**{**LGBM, "n_estimators": 60, "learning_rate": 0.9})
    model.fit(table()[:200], target("two")[:200], eval_X=table()[200:], eval_y=target("two")[200:], callbacks=[stop])
    assert 0 < model.best_iteration_ < 60
    hold(model, table(), 1e-12)
    bare = lightgbm.LGBMRegressor(n_estimators=2, min_child_samples=1000, verbose=-1, n_jobs=1).fit(table(), target())
    hold(bare, table(), 1e-12)


def test_lightgbm_takes_codes_without_their_categories() -> None:
    codes = table().assign(
        color=table()["color"].cat.codes, city=table()["city"].cat.codes, size=table()["size"].cat.codes
    )
    data = lightgbm.Dataset(codes, target(), categorical_feature=["color", "city"])
    hold(lightgbm.train({"verbose": -1, "num_threads": 1}, data, 5), codes, 1e-12)


def test_lightgbm_with_linear_leaves_keeps_its_form() -> None:
    model = lightgbm.LGBMRegressor(**LGBM, linear_tree=True).fit(table()[["age", "fee"]], target())
    with pytest.raises(NotCompiled, match="linear models"):
        both(model, table()[["age", "fee"]])


# ---- CatBoost ----------------------------------------------------------------------------------------


@functools.cache
def cat(kind: str, to: str = "two", **how: Any) -> Any:
    settings = {**CAT, **{name: list(value) if isinstance(value, tuple) else value for name, value in how.items()}}
    return getattr(catboost, kind)(**settings).fit(words(), target(to), cat_features=["color", "city", "size"])


@pytest.mark.parametrize("to", ["two", "three"])
@pytest.mark.parametrize(
    "how",
    [
        {},
        {"one_hot_max_size": 255},
        {"one_hot_max_size": 1, "simple_ctr": ("Borders", "Buckets", "BinarizedTargetMeanValue", "Counter")},
        {"one_hot_max_size": 4, "iterations": 60, "combinations_ctr": ("Counter", "Buckets")},
        {"nan_mode": "Max", "iterations": 60},
        {"grow_policy": "Lossguide"},
        {"grow_policy": "Depthwise"},
    ],
    ids=str,
)
def test_catboost_classifies(how: dict[str, Any], to: str) -> None:
    hold(cat("CatBoostClassifier", to, **how), words(), 1e-12)


@pytest.mark.parametrize("to", ["two", "three"])
def test_catboost_mixes_categories_and_numbers(to: str, tmp_path: Path) -> None:
    how = {"iterations": 60, "depth": 6, "one_hot_max_size": 3, "max_ctr_complexity": 3, "boosting_type": "Plain"}
    model = cat("CatBoostClassifier", to, **how)
    model.save_model(str(tmp_path / "model.json"), format="json")
    statistics = json.loads((tmp_path / "model.json").read_text())["features_info"]["ctrs"]
    kinds = {
        each["combination_element"] for found in statistics if len(found["elements"]) > 1 for each in found["elements"]
    }
    assert {"cat_feature_value", "float_feature"} <= kinds
    hold(model, words(), 1e-12)


@pytest.mark.parametrize("loss", ["MultiClass", "MultiClassOneVsAll"])
def test_catboost_has_two_links_for_several_classes(loss: str) -> None:
    hold(cat("CatBoostClassifier", "three", loss_function=loss), words(), 1e-12)


@pytest.mark.parametrize("loss", ["RMSE", "MAE", "Poisson", "Tweedie:variance_power=1.5", "LogLinQuantile", "MAPE"])
def test_catboost_answers_numbers(loss: str) -> None:
    hold(cat("CatBoostRegressor", "number", loss_function=loss), words(), 1e-12)


def test_catboost_says_yes_above_a_moved_threshold() -> None:
    model = catboost.CatBoostClassifier(**CAT).fit(words(), target("two"), cat_features=["color", "city", "size"])
    model.set_probability_threshold(0.3)
    hold(model, words(), 1e-12)


@pytest.mark.parametrize(
    "name", ["é ü 漢字", "q\"uo'te", "back\\slash", "tab\tnew\nline", "?" * 3, "x" * 90, "", "\x7f1"]
)
def test_catboost_hashes_any_text(name: str) -> None:
    given = words().assign(color=words()["color"].replace("red", name))
    model = catboost.CatBoostClassifier(**{**CAT, "iterations": 8})
    hold(model.fit(given, target("two"), cat_features=["color", "city", "size"]), given, 1e-12)


def test_catboost_needs_to_be_told_all_of_its_categories() -> None:
    with pytest.raises(NotCompiled, match="the sample lacks values"):
        both(cat("CatBoostClassifier"), words().query("city != 'city 3'"))
    numbered = words().assign(size=np.arange(ROWS) % 3)
    model = catboost.CatBoostClassifier(**CAT).fit(numbered, target("three"), cat_features=["color", "city", "size"])
    with pytest.raises(NotCompiled, match="CatBoost keeps none"):
        both(model, numbered)


# ---- inside scikit-learn, and packed -----------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: xgboost.XGBClassifier(n_estimators=9, max_depth=3, n_jobs=1),
        lambda: lightgbm.LGBMClassifier(**LGBM),
        lambda: catboost.CatBoostClassifier(**CAT),
        lambda: CalibratedClassifierCV(xgboost.XGBClassifier(n_estimators=5, n_jobs=1), cv=2),
        lambda: CalibratedClassifierCV(lightgbm.LGBMClassifier(**LGBM), cv=2),
    ],
)
def test_boosters_stand_at_the_end_of_pipelines(make: Callable[[], Any]) -> None:
    given = words()[["color", "city", "age", "fee"]].fillna(3.5)
    encode = ColumnTransformer(
        [("c", OneHotEncoder(handle_unknown="ignore"), ["color", "city"]), ("n", StandardScaler(), ["age", "fee"])],
        sparse_threshold=0.0,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = make_pipeline(encode, make()).fit(given, target("two"))
        hold(model, given)


@pytest.mark.packing
@pytest.mark.parametrize("library", ["xgboost", "lightgbm", "catboost"])
def test_packed_boosters_serve_compiled(library: str, tmp_path: Path) -> None:
    made: dict[str, Callable[[], tuple[Any, pd.DataFrame]]] = {
        "xgboost": lambda: (xgb("XGBRegressor", "number"), table()),
        "lightgbm": lambda: (lgbm("LGBMClassifier", "three"), table()),
        "catboost": lambda: (cat("CatBoostClassifier"), words()),
    }
    model, given = made[library]()
    packed = compose(model, read_table(given), Options(target="y"), home=tmp_path)
    manifest = bundle.read(packed.data, "test").manifest
    assert manifest.serves == "compiled", manifest.parity.reason
    assert manifest.parity.worst <= 1e-6
