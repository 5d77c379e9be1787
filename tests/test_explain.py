"""Contributions: they add up, they are the Shapley values of brute force, and no word of theirs is another row's."""

import functools
import itertools
import json
import math
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingRegressor,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression, PoissonRegressor, Ridge
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, PolynomialFeatures, StandardScaler
from sklearn.svm import SVC

from ketch import bundle, extras
from ketch.adapters import sklearn as adapter
from ketch.errors import InputError, KetchError, NotAnswerable, NotInstalled, TooManyRows
from ketch.explain import (
    REFERENCE_ROWS,
    Explainer,
    Explanation,
    answer_explained,
    composed,
    explainer,
    record,
    reference,
    trees,
)
from ketch.explain.changes import nearest_flip, what_if
from ketch.pack import Options, compose, read_table
from ketch.predict import Predictor, Rows, open_bundle
from ketch.program import GRAPH_MEMBER
from tests import models

Model = Any
DATA = {"vectorized", "encoded", "forest", "ordinal", "imputed"}


@functools.cache
def known(name: str) -> Predictor:
    """Pack a model of the models that are made once."""
    return packed(models.FACTORIES[name](), models.table() if name in DATA else None, **models.late(name))


def packed(model: Model, data: Any = None, **options: Any) -> Predictor:
    with tempfile.TemporaryDirectory() as home:
        made = compose(model, read_table(data), Options(**options), home=Path(home))
        return open_bundle(bundle.read(made.data, "test.ketch"), home=Path(home))


def original(predictor: Predictor, model: Model) -> Predictor:
    """Serve a model as it would be served where no program is permitted."""
    manifest = msgspec.structs.replace(predictor.bundle.manifest, serves="original")
    opened = msgspec.structs.replace(predictor.bundle, manifest=manifest)
    return Predictor(opened, adapter.runner(models.joined(model), opened.contract.fields))


def shown(predictor: Predictor, n: int = 6) -> Rows:
    golden = predictor.bundle.golden.rows[1 : n + 1]
    return Rows({each.name: [row.get(each.name) for row in golden] for each in predictor.contract.fields}, len(golden))


def by_brute_force(explain: Explainer, rows: Rows, row: int, score: Callable[[Predictor, Rows], list[float]]) -> Any:
    """Give base and Shapley values by their definition, asking the predictor for every set of fields."""
    names = [each.name for each in explain.predictor.contract.fields]
    usual, count = reference(explain.predictor), len(names)

    def value(own: frozenset[str]) -> float:
        mixed = {name: [rows.columns[name][row]] * REFERENCE_ROWS if name in own else usual[name] for name in names}
        return math.fsum(score(explain.predictor, Rows(mixed, REFERENCE_ROWS))) / REFERENCE_ROWS

    worth = {
        frozenset(each): value(frozenset(each))
        for size in range(count + 1)
        for each in itertools.combinations(names, size)
    }
    found = dict.fromkeys(names, 0.0)
    for name, own in itertools.product(names, worth):
        if name not in own:
            share = math.factorial(len(own)) * math.factorial(count - len(own) - 1) / math.factorial(count)
            found[name] += share * (worth[own | {name}] - worth[own])
    return worth[frozenset()], found


def log_odds(place: int) -> Callable[[Predictor, Rows], list[float]]:
    def score(predictor: Predictor, rows: Rows) -> list[float]:
        return [math.log(p[place] / p[1 - place]) for p in predictor.ask(rows).probabilities or ()]

    return score


def probability(place: int) -> Callable[[Predictor, Rows], list[float]]:
    return lambda predictor, rows: [row[place] for row in predictor.ask(rows).probabilities or ()]


def number(predictor: Predictor, rows: Rows) -> list[float]:
    return [float(each) for each in predictor.ask(rows).labels]  # type: ignore[arg-type]


def logarithm(predictor: Predictor, rows: Rows) -> list[float]:
    return [math.log(each) for each in number(predictor, rows)]


def score_of(sign: float) -> Callable[[Predictor, Rows], list[float]]:
    return lambda predictor, rows: [sign * each for each in predictor.ask(rows).scores or ()]


def judge(explain: Explainer, each: Explanation) -> Callable[[Predictor, Rows], list[float]]:
    """Read the score that is explained off what the predictor answers."""
    answer, view = explain.answer, explain.way.view
    if each.scale in {"value", "log-value"}:
        shift = 1.0 if view.link == "expm1" else 0.0
        return number if each.scale == "value" else lambda p, rows: [math.log(x + shift) for x in number(p, rows)]
    if view.role == "labels":
        return lambda p, rows: [float(label == each.of) for label in p.ask(rows).labels]
    place = [str(name) for name in answer.classes].index(str(_class(answer, each.of))) if answer.classes else 0
    if view.role == "scores" and (answer.task == "outlier" or len(answer.classes) == 2):
        return score_of(-1.0 if place == 0 else 1.0)
    if view.role == "scores":
        return lambda p, rows: [row[place] for row in p.ask(rows).scores or ()]  # type: ignore[index]
    return log_odds(place) if each.scale == "log-odds" else probability(place)


def _class(answer: Any, of: object) -> object:
    return next(each for each in answer.classes if bool(each) == of) if isinstance(of, bool) else of


def hold(predictor: Predictor, way: str, tolerance: float = 1e-9, rows: Rows | None = None) -> list[Explanation]:
    """Hold explanations against what the model answers, and against brute force."""
    explain = explainer(predictor)
    assert type(explain.way).__name__ == way
    rows = rows or shown(predictor)
    found = explain(rows)
    for place, each in enumerate(found):
        score = judge(explain, each)
        own = Rows({name: [values[place]] for name, values in rows.columns.items()}, 1)
        assert each.base + math.fsum(each.contributions.values()) == pytest.approx(each.score, rel=1e-9, abs=1e-9)
        assert each.score == pytest.approx(score(predictor, own)[0], rel=tolerance, abs=tolerance)
        base, wanted = by_brute_force(explain, rows, place, score)
        assert each.base == pytest.approx(base, rel=tolerance, abs=tolerance)
        assert each.contributions == pytest.approx(wanted, rel=tolerance, abs=tolerance)
    return found


# ---- every kind of model ---------------------------------------------------------------------------

WAYS = {
    "vectorized": "Terms",
    "vectorized_sparse": "Terms",
    "encoded": "Terms",
    "forest": "Trees",
    "ordinal": "Trees",
    "searched": "Terms",
    "calibrated": "Sampled",
    "voting": "Sampled",
    "stacked": "Sampled",
    "transformed_target": "Terms",
    "imputed": "Terms",
    "plain_regression": "Terms",
    "plain_forest": "Trees",
    "boosted": "Trees",
    "neighbours": "Sampled",
    "tree_with_ties": "Trees",
    "network": "Sampled",
    "vectors": "Sampled",
    "linear_vectors": "Terms",
    "pairwise_vectors": "Sampled",
    "clusters": "Sampled",
    "outliers": "Sampled",
    "texts": "Terms",
    "united_texts": "Terms",
}


@pytest.mark.service
@pytest.mark.parametrize("name", models.FACTORIES)
def test_contributions_are_shapley_values_and_add_up(name: str) -> None:
    hold(known(name), WAYS[name])


@pytest.mark.packing
@pytest.mark.parametrize("name", ["encoded", "forest", "neighbours", "vectors", "plain_regression", "clusters"])
def test_so_are_those_of_originals(name: str) -> None:
    hold(original(known(name), models.FACTORIES[name]()), "Sampled")


def mixed(n: int = 300) -> pd.DataFrame:
    chance = np.random.default_rng(4)
    table = pd.DataFrame({"kind": chance.choice(["a", "b", "c", "d"], n), "size": chance.normal(10, 3, n)})
    return table.assign(age=chance.integers(0, 90, n), other=chance.choice(["x", "y"], n))


def likes(table: pd.DataFrame) -> Any:
    raised = (table.kind == "b") * 2.0 + (table.age > 40) * (table.other == "x") + table["size"] / 10
    return (raised + np.random.default_rng(5).normal(0, 0.5, len(table)) > 2).astype(int)


def worths(table: pd.DataFrame) -> Any:
    return table["size"] * (table.kind == "a") + table.age * 0.5 + 3.0


def hot() -> Any:
    return models.ColumnTransformer(
        [("hot", OneHotEncoder(handle_unknown="ignore"), ["kind", "other"])], remainder="passthrough"
    )


TREES: Mapping[str, Callable[[], Any]] = {
    "forest": lambda: RandomForestClassifier(15, random_state=0),
    "forest of numbers": lambda: RandomForestRegressor(9, max_depth=6, random_state=0),
    "random splits": lambda: ExtraTreesRegressor(9, random_state=0),
    "boosting": lambda: GradientBoostingClassifier(n_estimators=12, random_state=0),
    "histograms": lambda: HistGradientBoostingClassifier(max_iter=12),
    "counts": lambda: HistGradientBoostingRegressor(loss="poisson", max_iter=12),
    "bag": lambda: BaggingRegressor(n_estimators=6, max_features=0.7, random_state=0),
    "votes": lambda: AdaBoostClassifier(n_estimators=8, random_state=0),
}


QUICK = {"forest of numbers", "histograms"}


@pytest.mark.parametrize(
    "name", [*sorted(QUICK), *(pytest.param(name, marks=pytest.mark.packing) for name in sorted(TREES.keys() - QUICK))]
)
def test_trees_behind_an_encoder_are_explained_by_field(name: str) -> None:
    table, last = mixed(), TREES[name]()
    target = likes(table) if hasattr(last, "predict_proba") else worths(table)
    hold(packed(make_pipeline(hot(), last).fit(table, target), table), "Trees")


def test_sets_of_categories_and_gaps_are_followed_as_the_trees_do() -> None:
    table = mixed().astype({"kind": "category", "other": "category"})
    holed = table.assign(size=table["size"].where(table.age % 5 > 0))
    model = HistGradientBoostingClassifier(categorical_features="from_dtype", max_iter=15).fit(holed, likes(table))
    found = packed(model, holed)
    assert b"membership_values" in found.bundle.files[GRAPH_MEMBER]
    hold(found, "Trees")


@pytest.mark.packing
def test_xgboost_adds_up_as_far_as_float32_goes() -> None:
    xgboost = pytest.importorskip("xgboost")
    table = mixed().astype({"kind": "category", "other": "category"})
    model = xgboost.XGBClassifier(n_estimators=12, enable_categorical=True, n_jobs=1).fit(table, likes(table))
    hold(packed(model, table), "Trees", 2e-5)


@pytest.mark.packing
def test_lightgbm() -> None:
    lightgbm = pytest.importorskip("lightgbm")
    table = mixed().astype({"kind": "category", "other": "category"})
    model = lightgbm.LGBMClassifier(n_estimators=12, verbose=-1, n_jobs=1).fit(table, likes(table))
    hold(packed(model, table), "Trees")


@pytest.mark.packing
def test_catboost_is_exact_where_each_statistic_is_of_one_field_and_asked_otherwise() -> None:
    catboost = pytest.importorskip("catboost")
    table, options = mixed(), {"verbose": False, "thread_count": 1, "allow_writing_files": False, "iterations": 8}
    alone = catboost.CatBoostClassifier(depth=4, one_hot_max_size=10, cat_features=["kind", "other"], **options)
    hold(packed(alone.fit(table, likes(table)), table), "Trees", 2e-5)
    wide = table.assign(other=np.random.default_rng(1).choice([f"o{place}" for place in range(6)], len(table)))
    both = ((wide.kind == "a") ^ (wide.other == "o1")).astype(int)
    combined = catboost.CatBoostClassifier(depth=4, one_hot_max_size=1, max_ctr_complexity=2, **options)
    found = packed(combined.fit(wide, both, cat_features=["kind", "other"]), wide)
    explain, rows = explainer(found), shown(found)
    assert type(explain.way).__name__ == "Sampled"
    for each, (stay, go) in zip(explain(rows), found.ask(rows).probabilities or (), strict=True):
        assert each.score == pytest.approx(math.log(go / stay), abs=1e-5)


@pytest.mark.packing
def test_the_first_of_two_classes_can_be_the_positive_one() -> None:
    table = mixed()
    said = np.where(likes(table) == 1, "stay", "go")
    for last in (
        LogisticRegression(max_iter=5000),
        RandomForestClassifier(9, random_state=0),
        GradientBoostingClassifier(),
    ):
        found = packed(make_pipeline(hot(), last).fit(table, said), table, positive="go")
        assert found.contract.answer.classes.index("go") == 0
        way = "Terms" if isinstance(last, LogisticRegression) else "Trees"
        assert {each.of for each in hold(found, way)} == {"go"}
    scored = make_pipeline(hot(), StandardScaler(), SVC()).fit(table, said)
    assert {each.of for each in hold(packed(scored, table, positive="go"), "Sampled")} == {"go"}


def test_sums_behind_a_logarithm_say_so() -> None:
    table = mixed()
    found = packed(make_pipeline(hot(), StandardScaler(), PoissonRegressor()).fit(table, worths(table)), table)
    assert {each.scale for each in hold(found, "Terms")} == {"log-value"}


def test_several_classes_are_explained_by_the_one_that_is_answered() -> None:
    table = mixed()
    kinds = table.kind.to_numpy()
    rest = table.drop(columns="kind")
    encoding = models.ColumnTransformer([("hot", OneHotEncoder(), ["other"])], remainder="passthrough")
    found = packed(make_pipeline(encoding, RandomForestClassifier(8, random_state=0)).fit(rest, kinds), rest)
    rows = shown(found, 12)
    assert [each.of for each in hold(found, "Trees", rows=rows)] == found.ask(rows).labels


@pytest.mark.packing
def test_sums_over_mixed_columns_are_still_exact_when_asked() -> None:
    table = mixed().drop(columns=["kind", "other"])
    model = make_pipeline(PolynomialFeatures(2), StandardScaler(), LogisticRegression()).fit(table, likes(mixed()))
    found = hold(packed(model, table), "Sampled")
    assert {each.scale for each in found} == {"log-odds"}


# ---- against shap ----------------------------------------------------------------------------------


def numbers(n: int = 200, width: int = 5) -> pd.DataFrame:
    return pd.DataFrame(np.random.default_rng(0).normal(size=(n, width)), columns=[*"abcdefghijklmnop"[:width]])


def background(predictor: Predictor) -> pd.DataFrame:
    return pd.DataFrame(reference(predictor)).astype(float)


def matrix(found: Sequence[Explanation]) -> Any:
    return np.array([list(each.contributions.values()) for each in found])


@pytest.mark.packing
def test_the_closed_form_is_that_of_shap() -> None:
    shap = pytest.importorskip("shap")
    table = numbers()
    for model in (Ridge().fit(table, table.a - table.b * 2), LogisticRegression().fit(table, table.a > table.c)):
        found = packed(model, table)
        rows = shown(found)
        theirs = shap.LinearExplainer(model, shap.maskers.Independent(background(found), max_samples=REFERENCE_ROWS))
        mine = explainer(found)(rows)
        assert matrix(mine) == pytest.approx(np.array(theirs(pd.DataFrame(rows.columns)).values), abs=1e-9)
        assert mine[0].base == pytest.approx(float(np.ravel(theirs.expected_value)[0]))


@pytest.mark.packing
def test_trees_are_those_of_shap() -> None:
    shap = pytest.importorskip("shap")
    table = numbers()
    target = (table.a * table.b + table.c > 0).astype(int)
    for model in (
        RandomForestRegressor(10, random_state=0).fit(table, table.a * table.b),
        GradientBoostingClassifier(n_estimators=15, random_state=0).fit(table, target),
        HistGradientBoostingClassifier(max_iter=15).fit(table, target),
    ):
        found = packed(model, table)
        rows = shown(found)
        theirs = shap.TreeExplainer(model, background(found), feature_perturbation="interventional")
        wanted = theirs.shap_values(pd.DataFrame(rows.columns), check_additivity=False)
        assert matrix(explainer(found)(rows)) == pytest.approx(np.array(wanted), abs=1e-6)


@pytest.mark.packing
def test_the_margins_of_xgboost_are_those_of_shap() -> None:
    shap, xgboost = pytest.importorskip("shap"), pytest.importorskip("xgboost")
    table = numbers()
    target = np.digitize(table.a + table.b * table.c, [-0.5, 0.5])
    model = xgboost.XGBClassifier(n_estimators=8, max_depth=3, n_jobs=1).fit(table, target)
    found = packed(model, table)
    rows = shown(found)
    mine = explainer(found)(rows)
    assert {each.scale for each in mine} == {"score"}
    theirs = shap.TreeExplainer(model, background(found), feature_perturbation="interventional")
    wanted = theirs.shap_values(pd.DataFrame(rows.columns).astype(float), check_additivity=False)
    for place, each in enumerate(mine):
        assert list(each.contributions.values()) == pytest.approx(wanted[place][:, each.of].tolist(), abs=1e-5)


@pytest.mark.service
def test_many_fields_still_add_up() -> None:
    table = numbers(width=14)
    found = packed(make_pipeline(StandardScaler(), SVC()).fit(table, table.a * table.b > 0), table)
    explain = explainer(found)
    rows = shown(found, 2)
    state: Any = np.random.get_state
    before = state()[1].tolist()
    first, again = explain(rows), explain(rows)
    assert first == again
    assert state()[1].tolist() == before
    for place, each in enumerate(first):
        assert each.score == pytest.approx((found.ask(rows).scores or [])[place], abs=1e-9)


@pytest.mark.packing
def test_more_than_64_fields_of_trees_fit_into_masks() -> None:
    chance = np.random.default_rng(2)
    table = pd.DataFrame(chance.normal(size=(60, 70)), columns=[f"f{place}" for place in range(70)])
    model = ExtraTreesRegressor(16, max_features=1, random_state=0).fit(table, table.sum(axis=1))
    found = packed(model, table)
    explain = explainer(found)
    assert type(explain.way).__name__ == "Trees"
    assert len({field for each in explain.way._grown for field in each.players}) > 64  # type: ignore[attr-defined]
    rows = shown(found)
    shap = pytest.importorskip("shap")
    theirs = shap.TreeExplainer(model, background(found), feature_perturbation="interventional")
    wanted = theirs.shap_values(pd.DataFrame(rows.columns), check_additivity=False)
    assert matrix(explain(rows)) == pytest.approx(wanted, abs=1e-6)


# ---- several targets, limits, refusals ---------------------------------------------------------------


@pytest.mark.service
def test_of_several_targets_one_is_chosen() -> None:
    table = numbers(width=3)
    numeric = RandomForestRegressor(6, random_state=0).fit(table, np.c_[table.a, table.b * table.c])
    classes = MultiOutputClassifier(LogisticRegression()).fit(table, np.c_[table.a > 0, table.b > table.c].astype(int))
    for model in (numeric, classes):
        found = packed(model, table, target="u, v")
        with pytest.raises(InputError, match="several targets") as refused:
            explainer(found)
        assert "u, v" in refused.value.hint
        rows = shown(found)
        for serving in (found, original(found, model)):
            for place, name in enumerate(("u", "v")):
                explain = explainer(serving, target=name)
                raw = found.ask(rows).part(place)
                for row, each in enumerate(explain(rows)):
                    p = raw.probabilities[row][1] if raw.probabilities else 0.5
                    said = {"value": raw.labels[row], "log-odds": math.log(p / (1 - p)), "probability": p}[each.scale]
                    assert each.score == pytest.approx(said, abs=1e-9)
                    assert each.of == (name if each.scale == "value" else True)
                assert answer_explained(explain, rows, found.run(rows))[0]["explanation"]["scale"] == each.scale  # type: ignore[index]


def test_a_target_that_is_none_is_named() -> None:
    found = packed(models.FACTORIES["encoded"](), models.table(), target="churn")
    assert explainer(found, target="churn")(shown(found))
    with pytest.raises(InputError, match="is no target"):
        explainer(found, target="price")


@pytest.mark.packing
def test_too_many_rows_are_refused() -> None:
    for name, most in (("encoded", 100), ("vectors", 10)):
        found = known(name)
        explain = explainer(found)
        row = shown(found, 1).columns
        assert len(explain(Rows({key: values * most for key, values in row.items()}, most))) == most
        with pytest.raises(TooManyRows, match=str(most + 1)):
            explain(Rows({key: values * (most + 1) for key, values in row.items()}, most + 1))
        assert explain(Rows({key: [] for key in row}, 0)) == []


def test_the_wire_has_everything_beside_the_answer() -> None:
    found = packed(models.FACTORIES["encoded"](), models.table(), target="churn")
    rows = shown(found, 3)
    answers = json.loads(json.dumps(answer_explained(explainer(found), rows, found.run(rows))))
    assert len(answers) == 3
    for each, plain in zip(answers, found.run(rows).columns["churn_probability"], strict=True):
        assert set(each) == {"churn", "churn_probability", "explanation"}
        told = each["explanation"]
        assert set(told) == {"of", "scale", "base", "score", "contributions", "reasons"}
        assert told["of"] is True
        assert told["scale"] == "log-odds"
        assert set(told["contributions"]) == {"contract", "partner", "tenure", "fee"}
        assert 1 / (1 + math.exp(-told["base"] - sum(told["contributions"].values()))) == pytest.approx(plain)


@pytest.mark.service
@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False, allow_infinity=False))
@settings(max_examples=60, deadline=None)
def test_any_number_is_explained_or_refused(tenure: float, fee: float) -> None:
    for explain in extremes():
        fields = [each.name for each in explain.predictor.contract.fields]
        row = dict(zip(fields[-2:], (tenure, fee), strict=True)) | {"contract": "month", "partner": "no"}
        rows = Rows({name: [row[name]] for name in fields}, 1)
        try:
            (found,) = explain(rows)
        except NotAnswerable:
            continue
        assert math.isfinite(found.score)
        assert found.base + math.fsum(found.contributions.values()) == pytest.approx(found.score)


def extremes() -> Iterator[Explainer]:
    if not MADE:
        for name in ("searched", "plain_regression", "boosted", "plain_forest"):
            MADE.append(explainer(known(name)))
    yield from MADE


MADE: list[Explainer] = []


@pytest.mark.skipif("shap" not in extras.EXTRAS, reason="shap is no extra yet")
def test_without_shap_only_what_needs_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "shap", None)  # as where it is not installed
    with pytest.raises(NotInstalled) as refused:
        explainer(known("vectors"))
    assert "ketch[explain]" in refused.value.hint
    for name in ("encoded", "forest"):
        assert explainer(known(name))(shown(known(name)))


def test_a_linear_model_is_explained_without_any_library(tmp_path: Path) -> None:
    found = known("encoded")
    rows = json.dumps(shown(found).columns)
    (tmp_path / "m.ketch").write_bytes(
        bundle.write(
            found.bundle.manifest, found.contract, found.bundle.golden, found.bundle.profile, dict(found.bundle.files)
        )
    )
    code = f"""
import json, sys
from pathlib import Path
from ketch.explain import explainer
from ketch.predict import Rows, load
predictor = load({str(tmp_path / "m.ketch")!r}, home=Path({str(tmp_path)!r}))
print([each.score for each in explainer(predictor)(Rows(json.loads({rows!r}), 6))])
assert not {{"numpy", "onnx", "onnxruntime", "pandas", "shap", "sklearn"}} & sys.modules.keys()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [each.score for each in explainer(found)(shown(found))]


@pytest.mark.service
def test_several_threads_may_ask_at_once() -> None:
    for name in ("forest", "vectors"):
        explain, rows = explainer(known(name)), shown(known(name))
        wanted = explain(rows)
        with ThreadPoolExecutor(4) as pool:
            assert [each.result() for each in [pool.submit(explain, rows) for _ in range(12)]] == [wanted] * 12


# ---- words -----------------------------------------------------------------------------------------

CANARY = re.compile(r"canary|99\d\d\d|[5-9]\d\d\d", re.IGNORECASE)


def with_canaries() -> tuple[pd.DataFrame, Any]:
    table = mixed()
    table.loc[::17, "kind"] = "canary-kind"
    table.loc[::13, "size"] = 99_123.5
    table.loc[::11, "age"] = 7_771
    table["note"] = ["canary Maria Silva" if place % 9 == 0 else "all is well here" for place in range(len(table))]
    return table, likes(mixed())


def kept(name: str) -> Explainer:
    if name not in CANARIES:
        table, target = with_canaries()
        hot = ("hot", OneHotEncoder(handle_unknown="ignore"), ["kind", "other"])
        kinds = [hot, ("words", CountVectorizer(), "note")] if name == "linear" else [hot]
        table = table if name == "linear" else table.drop(columns="note")
        last = {"linear": Ridge(), "trees": RandomForestClassifier(8, max_depth=5, random_state=0), "asked": SVC()}[
            name
        ]
        model = make_pipeline(models.ColumnTransformer(kinds, remainder="passthrough"), last).fit(table, target)
        CANARIES[name] = explainer(packed(model, table, target="churn"))
    return CANARIES[name]


CANARIES: dict[str, Explainer] = {}
VALUES = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["a", "b", "c", "d"]),
        "other": st.sampled_from(["x", "y"]),
        "size": st.floats(0, 20).map(lambda value: round(value, 3)),
        "age": st.integers(0, 99),
        "note": st.sampled_from(["all is well", "nothing here", "well"]),
    }
)


@pytest.mark.service
@pytest.mark.parametrize("name", ["linear", "trees", "asked"])
@pytest.mark.parametrize("lang", ["en", "pt"])
def test_reasons_are_of_this_row_alone(name: str, lang: str) -> None:
    explain = kept(name)
    assert "canary-kind" in explain.predictor.bundle.contract.fields[0].categories  # or nothing could leak

    @given(VALUES)
    @settings(max_examples=15, deadline=None)
    def alone(row: dict[str, Any]) -> None:
        (found,) = explain(Rows({each.name: [row[each.name]] for each in explain.predictor.contract.fields}, 1), lang)
        told = [said.replace(",", ".") if lang == "pt" else said for said in found.reasons]
        assert told or not any(found.contributions.values())
        for said in told:
            assert not CANARY.search(said)
            name, value, turned, by = WRITTEN[lang].fullmatch(said).groups()  # type: ignore[union-attr]
            own = row[name]
            assert value == (f"{own:.6g}" if isinstance(own, float) else str(own))
            assert (found.contributions[name] > 0) == (turned in {"raises", "aumenta"})
            assert float(by) == pytest.approx(abs(found.contributions[name]), rel=0.01)
        sizes = [float(said.rpartition(" ")[2]) for said in told]
        assert sizes == sorted(sizes, reverse=True)

    alone()


WRITTEN = {
    "en": re.compile(r"(\w+) = (.*) (raises|lowers) churn by (\S+)"),
    "pt": re.compile(r"(\w+) = (.*) (aumenta|reduz) churn em (\S+)"),
}


def test_reasons_have_labels_units_gaps_and_an_end() -> None:
    predictor = packed(models.FACTORIES["imputed"](), models.table(), target="churn")
    contract = predictor.contract
    words = {"fee": {"label": "Monthly fee", "unit": "EUR"}, "contract": {"label": "Contract"}}
    fields = tuple(msgspec.structs.replace(each, **words.get(each.name, {})) for each in contract.fields)
    predictor.contract = msgspec.structs.replace(contract, fields=fields)
    row = {"contract": None, "partner": "no", "tenure": 5, "fee": 101.25}
    explain = explainer(predictor)
    rows = Rows({each.name: [row[each.name]] for each in fields}, 1)
    said = " / ".join(explain(rows)[0].reasons)
    assert "Contract = missing " in said
    assert "Monthly fee = 101.25 EUR raises churn by " in said
    assert "Monthly fee = 101,25 EUR aumenta churn em " in " / ".join(explain(rows, "pt-BR")[0].reasons)
    texts = explainer(packed(models.FACTORIES["texts"](), positive="spam"))
    (found,) = texts(Rows({"text": ["cheap   money\n" * 30]}, 1))
    assert found.reasons[0].startswith("text = cheap money cheap money cheap money")
    assert len(found.reasons[0].partition(" raises")[0]) <= len("text = ") + 40


def test_few_reasons_are_told_and_no_idle_ones() -> None:
    table = numbers(width=9)
    found = packed(Ridge(alpha=1e-9).fit(table, table[[*"abcdefg"]].sum(axis=1)), table)
    (told,) = explainer(found)(Rows({name: [3.0] for name in [*"abcdefghi"]}, 1))
    assert len(told.reasons) == 5
    (told,) = explainer(found)(Rows({name: [3.0 if name in "ah" else 0.0] for name in [*"abcdefghi"]}, 1))
    assert not [said for said in told.reasons if said.startswith("h ")]


# ---- the reference ---------------------------------------------------------------------------------


def test_the_reference_is_as_common_as_the_sample_and_nobody_in_particular() -> None:
    table = mixed(400)
    table["kind"] = ["a"] * 300 + ["b"] * 100
    model = make_pipeline(hot(), Ridge()).fit(table, worths(table))
    found = packed(model, table)
    shown_rows = reference(found)
    assert shown_rows["kind"].count("a") == 24
    assert np.mean(np.array(shown_rows["size"], dtype=float)) == pytest.approx(table["size"].mean(), rel=0.1)
    assert all(isinstance(value, int) for value in shown_rows["age"])
    whole = {tuple(row) for row in table[[*shown_rows]].itertuples(index=False)}
    assert not whole & set(zip(*shown_rows.values(), strict=True))


def test_gaps_are_as_common_as_in_the_sample() -> None:
    table = mixed(320)
    table.loc[:79, "size"] = np.nan
    model = HistGradientBoostingClassifier(max_iter=5).fit(table[["size", "age"]], likes(mixed(320)))
    assert composed(packed(model, table[["size", "age"]]).bundle)["size"].count(None) == 8


def test_without_a_sample_the_golden_rows_are_the_reference() -> None:
    found = packed(models.FACTORIES["vectorized"]())
    golden = [row["contract"] for row in found.bundle.golden.rows]
    assert reference(found)["contract"] == golden[:REFERENCE_ROWS]


def test_one_row_says_the_same_alone_and_among_others() -> None:
    for name in ("encoded", "forest", "vectors"):
        found = known(name)
        explain, rows = explainer(found), shown(found)
        alone = [
            explain(Rows({key: [values[row]] for key, values in rows.columns.items()}, 1))[0] for row in range(rows.n)
        ]
        assert alone == explain(rows)


def test_a_tree_that_leads_back_to_itself_is_left() -> None:
    told = {
        "tree_roots": [0],
        "nodes_featureids": [0],
        "nodes_modes": np.zeros(1),
        "nodes_splits": np.zeros(1),
        "nodes_missing_value_tracks_true": [0],
        "nodes_truenodeids": [0],
        "nodes_trueleafs": [0],
        "nodes_falsenodeids": [0],
        "nodes_falseleafs": [1],
        "leaf_weights": np.ones(1),
        "leaf_targetids": [0],
    }
    with pytest.raises(trees.Mixed):
        trees.Grown(trees.Ensemble("x", [frozenset({0})], told, "t", None, 1), np.ones((1, 1)), lambda columns, n: [])


# ---- what would change it --------------------------------------------------------------------------


def test_the_curve_over_a_field_is_what_the_model_answers() -> None:
    found = packed(models.FACTORIES["encoded"](), models.table(), target="churn")
    row = {"contract": "year", "partner": "no", "tenure": 40, "fee": 60.0}
    curve = what_if(found, row, "contract")
    assert [value for value, _ in curve] == ["month", "two years", "year"]
    assert [score for _, score in curve] == [
        found.predict(row | {"contract": value})["churn_probability"] for value, _ in curve
    ]
    curve = what_if(found, row, "tenure", 5)
    assert [value for value, _ in curve] == [0, 18, 36, 54, 72]
    with pytest.raises(InputError, match="no field"):
        what_if(found, row, "tenur")
    with pytest.raises(KetchError):
        what_if(found, {"contract": "month"}, "tenure")
    with pytest.raises(InputError, match="no list"):
        what_if(packed(models.FACTORIES["texts"](), positive="spam"), {"text": "hello"}, "text")


def test_the_curve_of_several_classes_and_of_numbers() -> None:
    found = packed(models.FACTORIES["forest"](), models.table(), target="species")
    row = {"contract": "year", "partner": "no", "tenure": 40, "fee": 60.0}
    label = found.predict(row)["species"]
    for value, score in what_if(found, row, "fee", 4):
        assert score == found.predict(row | {"fee": value})["species_probabilities"][label]
    prices = known("plain_regression")
    for value, score in what_if(prices, {"x0": 1.0, "x1": 2.0}, "x1", 3):
        assert score == pytest.approx(prices.predict({"x0": 1.0, "x1": value})["prediction"])


def test_the_nearest_flip_turns_the_decision_and_nothing_nearer_does() -> None:
    table = pd.DataFrame({"a": np.linspace(0, 100, 101), "b": np.linspace(0, 1000, 101)[::-1], "c": [*range(101)]})
    found = packed(LogisticRegression(max_iter=5000).fit(table, table.a > 50), table, target="late")
    ranges = {"a": 100.0, "b": 1000.0, "c": 100.0}
    row = {"a": 48.0, "b": 520.0, "c": 40}
    change = nearest_flip(found, row)
    assert change is not None
    assert found.predict(row | change)["late"] != found.predict(row)["late"]
    ((name, value),) = change.items()
    own = abs(float(str(value)) - row[name]) / ranges[name]
    reach = {name: (own - 1e-3) * width for name, width in ranges.items()} | {"c": int((own - 1e-3) * 100)}
    nearer = [{name: row[name] + sign * by} for name, by in reach.items() for sign in (-1, 1)]
    assert {each["late"] for each in found.predict([row | each for each in nearer])} == {found.predict(row)["late"]}


def test_a_whole_number_stays_one() -> None:
    table = pd.DataFrame({"n": [*range(0, 1000)]})
    found = packed(RandomForestClassifier(3, random_state=0).fit(table, table.n >= 437), table)
    assert nearest_flip(found, {"n": 100}) in ({"n": 437}, {"n": 436}, {"n": 438})


@pytest.mark.service
def test_two_fields_flip_together_where_none_does_alone() -> None:
    both = pd.DataFrame(itertools.product(["no", "yes"], repeat=2), columns=["a", "b"])
    table = pd.concat([both] * 20)
    target = ((table.a == "yes") & (table.b == "yes")).astype(int)
    encoding = models.ColumnTransformer([("hot", OneHotEncoder(), ["a", "b"])])
    found = packed(make_pipeline(encoding, RandomForestClassifier(20, random_state=0)).fit(table, target), table)
    assert nearest_flip(found, {"a": "no", "b": "no"}) == {"a": "yes", "b": "yes"}
    assert nearest_flip(found, {"a": "no", "b": "yes"}) == {"a": "yes"}
    constant = packed(make_pipeline(encoding, LogisticRegression()).fit(table, table.a == "no"), table)
    assert nearest_flip(constant, {"a": "no", "b": "no"}) == {"a": "yes"}
    with pytest.raises(InputError, match="no classes"):
        nearest_flip(known("plain_regression"), {"x0": 1.0, "x1": 1.0})


def test_record_is_plain() -> None:
    told = record(Explanation("a", "score", 1.0, 3.0, {"x": 2.0}, ["x = 1 raises a by 2"]))
    assert json.loads(json.dumps(told)) == told
