"""The engine: decode, run, encode; and opening a MODEL."""

import json
import math
import pickle
from pathlib import Path
from typing import Any

import joblib
import msgspec
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression

from ketch import bundle
from ketch.adapters import Raw, sklearn
from ketch.bundle import Golden
from ketch.errors import (
    AnswersDiffer,
    CorruptBundle,
    InputError,
    NoSuchVersion,
    NotAnswerable,
    RowsRefused,
    StoreError,
    TooManyRows,
)
from ketch.pack import pack
from ketch.predict import Limits, Predictor, fetch, fetch_bundle, load, open_bundle, opened_units
from ketch.schema import Columns
from ketch.store import Store
from tests import models
from tests.models import late, opened, rows, table, yes_or_no

JOBLIB: Any = joblib  # its stubs leave out what it exports


@pytest.fixture(scope="module")
def churn() -> Predictor:
    return opened(models.vectorized(), target="churn")


@pytest.fixture(scope="module")
def frame_model() -> Predictor:
    return opened(models.encoded(), table().assign(churn=yes_or_no()), target="churn")


def test_a_dict_gives_a_dict_a_list_a_list_and_a_frame_a_frame(frame_model: Predictor) -> None:
    one = frame_model.predict(rows()[0])
    assert list(one) == frame_model.answers == ["churn", "churn_probability"]
    assert type(one["churn"]) is bool
    assert 0 <= one["churn_probability"] <= 1
    assert frame_model.predict(rows()[:3]) == [frame_model.predict(row) for row in rows()[:3]]
    assert frame_model.predict(tuple(rows()[:1])) == [one]
    assert frame_model.predict([]) == []
    frame = table()[:4].set_index(pd.Index(["a", "b", "b", "c"]))
    found = frame_model.predict(frame)
    assert list(found.index) == ["a", "b", "b", "c"]
    assert found.to_dict("records") == frame_model.predict(rows()[:4])
    nobody = frame_model.predict(frame[:0])
    assert list(nobody.columns) == ["churn", "churn_probability"]
    assert len(nobody) == 0
    assert list(opened(models.forest()).predict(table()[:0]).columns)[1] == "prediction_probabilities.setosa"


@pytest.mark.parametrize("given", [5, None, "churn", [[1.0, 2.0]], np.zeros((2, 3)), [None]], ids=str)
def test_what_is_no_row_is_named(frame_model: Predictor, given: object) -> None:
    with pytest.raises(InputError, match="A row cannot be of type") as caught:
        frame_model.predict(given)
    assert "dict" in caught.value.hint


def test_what_numpy_and_pandas_hold_is_taken_for_what_it_is(frame_model: Predictor) -> None:
    row = rows()[0]
    wanted = frame_model.predict(row)
    strange = {
        "contract": np.str_(row["contract"]),
        "partner": row["partner"],
        "tenure": np.int64(row["tenure"]),
        "fee": np.float64(row["fee"]),
    }
    assert frame_model.predict(strange) == wanted
    assert frame_model.predict(table().iloc[0].to_dict()) == wanted
    assert frame_model.predict(table()[:1].convert_dtypes()).to_dict("records") == [wanted]
    assert frame_model.predict(table()[:1].astype({"contract": "category"})).to_dict("records") == [wanted]
    for gap in (math.nan, None, pd.NA, np.float32("nan")):
        with pytest.raises(RowsRefused, match="fee is missing"):
            frame_model.predict({**row, "fee": gap})
    holes = table()[:2].convert_dtypes()
    holes.loc[1, "tenure"] = pd.NA
    with pytest.raises(RowsRefused, match="tenure of row 1 is missing"):
        frame_model.predict(holes)


def test_bodies_in_bodies_out(churn: Predictor) -> None:
    body = json.dumps(rows()[:2]).encode()
    found = json.loads(churn(body))
    dv, model = models.vectorized()
    wanted = model.predict_proba(dv.transform(rows()[:2]))[:, 1].tolist()
    assert [each["churn_probability"] for each in found] == wanted
    csv_body = ",".join(rows()[0]) + "\n" + "\n".join(",".join(map(str, row.values())) for row in rows()[:2])
    lines = churn(csv_body.encode(), "text/csv").decode().splitlines()
    assert lines[0] == "churn,churn_probability"
    assert [float(line.split(",")[1]) for line in lines[1:]] == wanted
    assert churn(body, accept="text/csv").decode().splitlines() == lines
    assert list(json.loads(churn(json.dumps(rows()[0]).encode()))) == ["churn", "churn_probability"]


@pytest.mark.parametrize(
    ("change", "message", "hint"),
    [
        ({"fee": None}, "fee is missing", "Send a finite number"),
        ({"fee": "12"}, "fee must be a finite number", "Send a finite number"),
        ({"fee": 10**400}, "fee must be a finite number", "Send a finite"),
        ({"contract": "mnth"}, "contract has a value the model never saw", "Did you mean 'month'?"),
        ({"contract": "q"}, "contract has a value", "Allowed: month, two years, year. All of them stand at"),
        ({"contract": "q", "fee": None}, "and 1 more", ""),
    ],
)
def test_refusals_name_field_and_remedy(churn: Predictor, change: dict[str, Any], message: str, hint: str) -> None:
    with pytest.raises(RowsRefused, match=message) as caught:
        churn.predict({**rows()[0], **change})
    assert hint in caught.value.hint
    assert caught.value.errors[0]["row"] == 0
    with pytest.raises(RowsRefused, match="of row 1"):
        churn.predict([rows()[0], {**rows()[0], **change}])


def test_strict_refuses_what_else_is_flagged(frame_model: Predictor) -> None:
    strict = opened(models.encoded(), table(), limits=Limits(strict=True))
    for change, message in (
        ({"fee": 9999.0}, "fee is outside its range, from"),
        ({"zzz": 1}, "zzz is not a field of this model"),
        ({"contract": "week"}, "never saw"),
    ):
        row = {**rows()[0], **change}
        with pytest.raises(RowsRefused, match=message) as caught:
            strict.predict(row)
        assert caught.value.hint
        assert frame_model.predict(row)
        assert len(frame_model.check(models.bundle_table([row])).flags) == 1
    many = {f"unknown {place} {'x' * 300}": 1 for place in range(500)}
    with pytest.raises(RowsRefused) as caught:
        strict.predict({**rows()[0], **many})
    assert len(caught.value.errors) == 100
    assert len(caught.value.message) < 200


def test_lenient_answers_what_the_original_would_have_answered() -> None:
    lenient = opened(models.vectorized(), limits=Limits(lenient=True))
    dv, model = models.vectorized()
    row = {**rows()[0], "contract": "week"}
    assert lenient.predict(row)["prediction_probability"] == model.predict_proba(dv.transform([row]))[0, 1]


def test_a_body_may_hold_so_many_rows_and_no_more() -> None:
    small = opened(models.vectorized(), limits=Limits(max_rows=2))
    assert len(json.loads(small(json.dumps(rows()[:2]).encode()))) == 2
    with pytest.raises(TooManyRows):
        small(json.dumps(rows()[:3]).encode())


def test_long_lists_of_categories_are_cut_in_hints() -> None:
    frame = pd.DataFrame({"town": [f"town {place:02}" for place in range(30)], "fee": range(30)})
    encoding = models.ColumnTransformer([("c", models.OneHotEncoder(), ["town"])], remainder="passthrough")
    predictor = opened(models.make_pipeline(encoding, LogisticRegression(max_iter=1000)).fit(frame, [0, 1] * 15))
    with pytest.raises(RowsRefused) as caught:
        predictor.predict({"town": "q", "fee": 1})
    assert ", …. All of them stand at GET /schema." in caught.value.hint


# the words of the wire


def test_answers_of_every_task() -> None:
    x = {"x0": 30, "x1": 60.0}
    found = opened(models.vectors(), target="when", positive="early").predict(x)
    wanted = models.vectors().decision_function([[30, 60.0]])[0]
    assert list(found) == ["when", "when_score"]
    assert found["when"] in {"early", "late"}
    assert found["when_score"] == pytest.approx(-wanted)
    assert opened(models.vectors(), positive="late").predict(x)["prediction_score"] == pytest.approx(wanted)

    many = opened(models.forest(), target="species").predict(rows()[0])
    assert list(many["species_probabilities"]) == ["setosa", "versicolor", "virginica"]
    assert sum(many["species_probabilities"].values()) == pytest.approx(1)
    scores = opened(models.linear_vectors(), target="species").predict(x)
    assert max(scores["species_scores"], key=scores["species_scores"].get) == scores["species"]

    price = opened(models.plain_regression(), target="price").predict(x)
    assert price == {"price": pytest.approx(30 + 60 * 12.5)}
    assert type(price["price"]) is float

    assert opened(models.clusters(), target="t").predict(x)["cluster"] in {0, 1, 2}
    inside, far = opened(models.outliers()).predict([x, {"x0": 10**6, "x1": -(10.0**6)}])
    assert (inside["outlier"], far["outlier"]) == (False, True)
    assert inside["outlier_score"] < far["outlier_score"]


@pytest.mark.parametrize(
    ("labels", "shown"),
    [((0, 1), bool), ((0.0, 1.0), bool), ((False, True), bool), (("0", "1"), str), ((1, 2), int), ((-1, 1), int)],
)
def test_a_class_is_a_boolean_where_it_is_0_1_or_truth_else_itself(labels: tuple[Any, Any], shown: type) -> None:
    model = LogisticRegression().fit([[0.0], [1.0], [2.0], [3.0]], [labels[0]] * 2 + [labels[1]] * 2)
    predictor = opened(model, positive=str(labels[1]))
    found = [predictor.predict({"x0": value})["prediction"] for value in (0.0, 3.0)]
    assert found == list(labels)
    assert {type(each) for each in found} == {shown}


def test_the_probability_is_the_positive_classs_and_the_threshold_decides() -> None:
    model = LogisticRegression().fit([[0.0], [1.0], [2.0], [3.0]], ["good", "good", "bad", "bad"])
    asked = [{"x0": value / 10} for value in range(31)]
    likely = model.predict_proba([[row["x0"]] for row in asked])
    for positive, place in (("bad", 0), ("good", 1)):
        for at in (0.2, 0.5, float(likely[7, place])):
            found = opened(model, positive=positive, threshold=at).predict(asked)
            assert [each["prediction_probability"] for each in found] == likely[:, place].tolist()
            other = {"bad": "good", "good": "bad"}[positive]
            assert [each["prediction"] for each in found] == [positive if p >= at else other for p in likely[:, place]]
    without = opened(model, positive="bad").predict(asked)
    assert [each["prediction"] for each in without] == model.predict([[row["x0"]] for row in asked]).tolist()


class Told:
    """A runner that answers what the test wants."""

    def __init__(self, raw: Raw | Exception) -> None:
        self.raw = raw

    def __call__(self, columns: Columns, n: int) -> Raw:
        if isinstance(self.raw, Exception):
            raise self.raw
        return self.raw


@pytest.mark.service
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_an_answer_that_is_no_finite_number_is_none(value: float) -> None:
    x = {"x0": 1, "x1": 1.0}
    for name, raw in (
        ("plain_regression", Raw([value])),
        ("boosted", Raw([1], [[1.0, value]])),
        ("plain_forest", Raw(["setosa"], [[0.0, value, 1.0]])),
        ("vectors", Raw(["late"], scores=[value])),
        ("outliers", Raw([1], scores=[value])),
    ):
        positive = late(name)
        predictor = Predictor(opened(models.FACTORIES[name](), **positive).bundle, Told(raw))
        with pytest.raises(NotAnswerable, match="not a finite number") as caught:
            predictor.predict(x)
        assert (caught.value.status, caught.value.code) == (422, "not-answerable")
        assert caught.value.errors == [{"row": 0, "code": "not-answerable"}]


def test_a_model_that_raises_gives_no_answer(churn: Predictor) -> None:
    predictor = Predictor(churn.bundle, Told(ZeroDivisionError("secret details")))
    with pytest.raises(NotAnswerable, match="ZeroDivisionError") as caught:
        predictor.predict(rows()[0])
    assert "secret" not in caught.value.message + caught.value.hint


def test_labels_alone_where_nothing_stands_behind_them(churn: Predictor) -> None:
    answer = msgspec.structs.replace(churn.contract.answer, values="none")
    contract = msgspec.structs.replace(churn.contract, answer=answer)
    predictor = Predictor(msgspec.structs.replace(churn.bundle, contract=contract), Told(Raw([1])))
    assert predictor.predict(rows()[0]) == {"churn": True}


# golden predictions


def replayed(predictor: Predictor, **golden: Any) -> float:
    changed = msgspec.structs.replace(predictor.bundle.golden, **golden)
    return Predictor(msgspec.structs.replace(predictor.bundle, golden=changed), predictor._runner).replay()


def test_golden_answers_are_given_again(churn: Predictor) -> None:
    assert churn.replay() == 0.0
    assert churn.replay(3) == 0.0


@pytest.mark.packing
@pytest.mark.parametrize("name", models.FACTORIES)
def test_so_are_those_of_every_model(name: str) -> None:
    assert opened(models.FACTORIES[name](), **late(name)).replay() == 0.0


def test_a_changed_model_is_noticed(churn: Predictor) -> None:
    dv, _ = models.vectorized()
    other = LogisticRegression(C=0.01).fit(dv.transform(rows()), yes_or_no())
    runner = sklearn.runner(sklearn.join((dv, other)), churn.contract.fields)
    with pytest.raises(AnswersDiffer, match="worst difference") as caught:
        Predictor(churn.bundle, runner).replay()
    assert "scikit-learn" in caught.value.hint
    with pytest.raises(AnswersDiffer, match="fails with AttributeError"):
        Predictor(churn.bundle, Told(AttributeError("old"))).replay()


def test_every_difference_is_noticed(churn: Predictor) -> None:
    golden = churn.bundle.golden
    assert golden.probabilities is not None
    wrong = [not label for label in golden.labels]
    with pytest.raises(AnswersDiffer):
        replayed(churn, labels=wrong)
    with pytest.raises(AnswersDiffer):
        replayed(churn, probabilities=None)
    with pytest.raises(AnswersDiffer):
        replayed(churn, scores=[1.0] * len(wrong))
    near = [[value + 5e-7 for value in row] for row in golden.probabilities]
    assert replayed(churn, probabilities=near) == pytest.approx(5e-7)
    with pytest.raises(AnswersDiffer):
        replayed(churn, probabilities=[[value + 2e-6 for value in row] for row in golden.probabilities])
    last = golden.probabilities[-1]
    raw = Raw(golden.labels, [*golden.probabilities[:-1], [last[0], math.nan]])
    with pytest.raises(AnswersDiffer):
        Predictor(churn.bundle, Told(raw)).replay()


def test_a_label_may_differ_where_two_classes_are_as_good_as_equal(churn: Predictor) -> None:
    n = len(churn.bundle.golden.rows)
    even = Golden(churn.bundle.golden.rows, [0] * n, [[0.5 + 1e-8, 0.5 - 1e-8]] * n)
    found = msgspec.structs.replace(churn.bundle, golden=even)
    assert Predictor(found, Told(Raw([1] * n, [[0.5 - 1e-8, 0.5 + 1e-8]] * n))).replay() < 1e-6


def test_a_regression_is_held_to_relative_differences() -> None:
    model = LinearRegression().fit([[0.0], [1.0]], [0.0, 1e9])
    predictor = opened(model)
    labels: list[Any] = predictor.bundle.golden.labels
    assert replayed(predictor, labels=[label * (1 + 1e-7) for label in labels]) < 1e-6
    with pytest.raises(AnswersDiffer, match="golden"):
        replayed(predictor, labels=[label * (1 + 1e-5) for label in labels])
    unversioned = msgspec.structs.replace(predictor.bundle.manifest, versions={})
    changed = msgspec.structs.replace(predictor.bundle, manifest=unversioned)
    with pytest.raises(AnswersDiffer) as caught:
        Predictor(changed, Told(Raw([0.0]))).replay()
    assert "what it was packed with" in caught.value.hint


# opening a MODEL


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KETCH_HOME", str(folder / "home"))
        pack(models.vectorized(), folder / "churn.ketch", target="churn")
    (folder / "model.pkl").write_bytes(pickle.dumps(models.vectorized()))
    JOBLIB.dump(models.vectorized(), folder / "model.dat.gz")
    return folder


def test_a_model_is_a_bundle_a_model_file_or_a_reference(place: Path) -> None:
    home = place / "home"
    Store(home / "store").push((place / "churn.ketch").read_bytes(), "churn", when="2026-11-21")
    wanted = load(place / "churn.ketch", home=home).predict(rows()[0])
    assert load(str(place / "model.pkl"), home=home).predict(rows()[0]) == {
        "prediction": wanted["churn"],
        "prediction_probability": wanted["churn_probability"],
    }
    stored = load("churn:1", home=home)
    assert (stored.name, stored.reference) == ("churn", "churn:1")
    assert stored.predict(rows()[0]) == wanted
    assert load(place / "churn.ketch", home=home).reference == "churn"
    assert fetch("churn", home)[1:] == ("churn:1", "churn:1")
    assert fetch_bundle("churn", home=home).manifest.name == "churn"
    assert fetch(str(place / "model.dat.gz"), home)[1] == "model.dat.gz"


def test_a_model_that_is_not_there(place: Path) -> None:
    home = place / "home"
    for missing in ("nothing.ketch", "nothing.pkl", "folder/nothing"):
        with pytest.raises(InputError, match="There is no file"):
            load(missing, home=home)
    with pytest.raises((NoSuchVersion, StoreError)):
        load("nothing", home=home)
    with pytest.raises(InputError, match="not a bundle") as caught:
        fetch_bundle(str(place / "model.pkl"), home=home)
    assert "ketch pack" in caught.value.hint


def test_the_files_that_opening_would_unpickle_are_listed(place: Path) -> None:
    home = place / "home"
    (unit,) = opened_units([str(place / "model.pkl")], home=home)
    data = (place / "model.pkl").read_bytes()
    assert (unit.name, [part for _, _, part in unit.parts]) == ("model.pkl", [data])
    assert bundle.identity(data) in unit.identities
    whole = (place / "churn.ketch").read_bytes()
    assert opened_units([str(place / "churn.ketch")], home=home) == []  # its compiled form serves
    (place / "original.ketch").write_bytes(as_original(whole))
    (unit,) = opened_units([str(place / "original.ketch")], home=home)
    ((_, _, data),) = unit.parts
    found = {bundle.identity(data), bundle.identity((place / "original.ketch").read_bytes())}
    assert found <= unit.identities


def as_original(data: bytes) -> bytes:
    """Write a bundle anew whose original serves."""
    found = bundle.read(data, "churn")
    manifest = msgspec.structs.replace(found.manifest, serves="original")
    return bundle.replaced(msgspec.structs.replace(found, manifest=manifest), {})


def test_a_bundle_without_a_model_is_refused(churn: Predictor, tmp_path: Path) -> None:
    for adapter in ("sklearn", "other"):
        manifest = msgspec.structs.replace(churn.bundle.manifest, originals=(), adapter=adapter, serves="original")
        with pytest.raises(CorruptBundle, match="holds no model"):
            open_bundle(msgspec.structs.replace(churn.bundle, manifest=manifest), home=tmp_path)


def test_a_bundle_of_another_adapter_is_asked_by_its_classes(place: Path) -> None:
    opened_ = bundle.read((place / "churn.ketch").read_bytes(), "churn")
    manifest = msgspec.structs.replace(opened_.manifest, adapter="plugged-in", serves="original")
    assert open_bundle(msgspec.structs.replace(opened_, manifest=manifest), home=place / "home").replay() == 0.0


def test_sifting_takes_out_the_rows_at_fault(churn: Predictor) -> None:
    bad = {**rows()[0], "fee": None, "contract": "q"}
    left, faults = churn.sift(models.bundle_table([rows()[0], bad, {**rows()[1], "extra": 1}]))
    assert (left.n, list(faults)) == (2, [1])
    assert {fault.code for fault in faults[1]} == {"missing", "unknown-category"}
    assert left.columns["fee"] == [rows()[0]["fee"], rows()[1]["fee"]]
    assert [flag.row for flag in left.flags] == [2]
    whole, none = churn.sift(models.bundle_table([*rows()[:2]]))
    assert (whole.n, none) == (2, {})
