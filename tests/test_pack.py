"""The one composer of a bundle: what it takes, what it concludes, and what it must not keep."""

import copy
import importlib
import json
import os
import pickle
import random
import string
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.tree import DecisionTreeRegressor

import ketch
from ketch import bundle, compiler
from ketch.compiler.values import Answers
from ketch.errors import ContractError, InputError, ModelError, NotAModel, UsageError
from ketch.pack import Options, Packed, compose, pack, read_table
from ketch.schema import Answer, Field
from ketch.schema.amend import as_toml, parse
from ketch.schema.checks import Checker
from tests import models
from tests.models import late, opened, rows, table, yes_or_no

JOBLIB: Any = joblib  # its stubs leave out what it exports


def packed(model: Any, data: Any = None, *, home: Path | None = None, **options: Any) -> Packed:
    return compose(model, read_table(data), Options(**options), home=home or Path(os.devnull))


def read(found: Packed) -> bundle.Bundle:
    return bundle.read(found.data, "test.ketch")


def line(labels: Sequence[Any]) -> LogisticRegression:
    return LogisticRegression().fit([[0.0], [1.0], [2.0], [3.0]], list(labels))


# what is given


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    dv, model = models.vectorized()
    (folder / "churn model.pkl").write_bytes(pickle.dumps((dv, model)))
    JOBLIB.dump(dv, folder / "dv.bin")
    JOBLIB.dump(model, folder / "model.joblib.gz", compress=3)
    return folder


@pytest.mark.packing
def test_files_and_objects_give_the_same_contract_and_answers(files: Path) -> None:
    home = files / "home"
    wanted = read(packed(models.vectorized(), target="churn"))
    one = read(packed(str(files / "churn model.pkl"), home=home, target="churn"))
    two = read(packed([files / "model.joblib.gz", files / "dv.bin"], home=home, target="churn"))
    for found in (one, two):
        assert found.contract == wanted.contract
        assert found.golden == wanted.golden
    assert [(name, kind) for name, kind, _ in one.originals] == [("churn model.skops", "skops")]
    assert [name for name, _, _ in two.originals] == ["model.joblib.skops", "dv.skops"]
    assert {each for each in two.files if each.startswith("original/")} == {
        "original/0-model-joblib-skops",
        "original/1-dv-skops",
    }
    assert packed(files / "churn model.pkl", home=home).name == "churn-model"
    assert packed(files / "churn model.pkl", home=home).data == packed(files / "churn model.pkl", home=home).data


@pytest.mark.packing
def test_a_sample_may_be_a_frame_a_list_or_a_file(tmp_path: Path) -> None:
    frame = table().assign(churn=yes_or_no())
    frame.to_csv(tmp_path / "rows.csv", index=False)
    frame.to_parquet(tmp_path / "rows.parquet")
    listed = frame.to_dict("records")
    given: list[Any] = [frame, listed, tuple(listed), tmp_path / "rows.csv", str(tmp_path / "rows.parquet")]
    found = [packed(models.encoded(), each, target="churn").data for each in given]
    assert len(set(found)) == 1
    fields = {each.name: each for each in read(packed(models.encoded(), frame, target="churn")).contract.fields}
    assert fields["tenure"] == Field(
        "tenure",
        "integer",
        minimum=frame["tenure"].min(),
        maximum=frame["tenure"].max(),
        example=fields["tenure"].example,
    )
    assert set(read(packed(models.encoded(), frame, target="churn")).profile) == {*models.rows()[0], "churn"}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (3, "int is no table"),
        ({"a": [1]}, "dict is no table"),
        ([], "no rows"),
        (pd.DataFrame({"a": []}), "no rows"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "two columns named 'a'"),
        (pd.DataFrame([[1, 2]], columns=[1, "1"]), "two columns named '1'"),
        ("nowhere.csv", "There is no file"),
        ("tests", "cannot be read"),
    ],
)
def test_what_is_no_sample(data: Any, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        read_table(data)
    assert caught.value.hint


def test_files_that_are_no_tables(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('a,b\n"')
    (tmp_path / "b.csv").write_text("")
    (tmp_path / "c.csv").write_bytes(b"\xff\xfe\xfa")
    (tmp_path / "d.parquet").write_text("x")
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(InputError, match="cannot be read as a table"):
            read_table(path)
    assert read_table(None) is None


def test_files_that_are_no_models(tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(b"hello")
    (tmp_path / "list.pkl").write_bytes(pickle.dumps([]))
    (tmp_path / "b.ketch").write_bytes(packed(models.boosted()).data)
    for name, kind, words in (
        ("none.pkl", InputError, "There is no file"),
        ("a.pkl", NotAModel, "not a pickle"),
        ("b.ketch", InputError, "is a zip archive"),
        ("list.pkl", NotAModel, "empty list"),
    ):
        with pytest.raises(kind, match=words) as caught:
            packed(tmp_path / name, home=tmp_path / "home")
        assert caught.value.hint


def helper(X: Any) -> Any:
    return X


def test_functions_of_its_makers_own_travel_and_open_here(tmp_path: Path) -> None:
    for place, own, form in ((1, lambda X: X, "cloudpickle"), (2, helper, "pickle")):
        model = models.make_pipeline(FunctionTransformer(own), LogisticRegression()).fit([[0.0], [1.0]], [0, 1])
        found = read(packed(model, home=tmp_path))
        assert [each.format for each in found.manifest.originals] == [form]
        assert found.manifest.origin["estimator"] == "FunctionTransformer → LogisticRegression"
        assert len(json.loads((tmp_path / "approvals.json").read_text())) == place  # packed here, so it opens here


def test_the_makers_own_model_stays_as_it_is() -> None:
    model = copy.deepcopy(models.forest()).set_params(randomforestclassifier__n_jobs=2)  # shared, asked before
    before = pickle.dumps(model)
    packed(model)
    assert model.get_params()["randomforestclassifier__n_jobs"] == 2
    assert pickle.dumps(model) == before


@pytest.mark.packing
def test_a_version_of_scikit_learn_that_differs_is_noted(tmp_path: Path) -> None:
    import sklearn

    data = pickle.dumps(LinearRegression().fit([[0.0], [1.0]], [0.0, 1.0]))
    version = sklearn.__version__.encode()
    older = version.replace(b"1", b"0", 1)
    assert version in data
    (tmp_path / "old.pkl").write_bytes(data.replace(version, older))
    (note,) = packed(tmp_path / "old.pkl", home=tmp_path / "home").notes
    assert f"old.pkl was written by scikit-learn {older.decode()}, this is {version.decode()}" in note
    (tmp_path / "new.pkl").write_bytes(data)
    assert packed(tmp_path / "new.pkl", home=tmp_path / "home").notes == ()


# what is concluded


def test_the_positive_class_is_told_known_asked_or_noted() -> None:
    def positive(labels: Sequence[Any], **options: Any) -> tuple[Any, tuple[str, ...]]:
        found = packed(line(labels), **options)
        return read(found).contract.answer.positive, found.notes

    assert positive([0, 0, 1, 1]) == (1, ())
    assert positive([False, False, True, True]) == (True, ())
    assert positive(["no", "no", "Yes", "Yes"]) == ("Yes", ())
    assert positive([-1, -1, 1, 1]) == (1, ())
    assert positive([0.0, 0.0, 1.0, 1.0]) == (1.0, ())
    assert positive([0, 0, 1, 1], positive="0") == (0, ())
    assert positive(["a", "a", "b", "b"], positive="A") == ("a", ())
    assert positive(["YES", "YES", "yes", "yes"], positive="yes") == ("yes", ())
    assert positive(["a", "a", "b", "b"], ask=lambda classes: classes[0]) == ("a", ())
    chosen, notes = positive(["a", "a", "b", "b"])
    assert chosen == "b"
    assert "'b' is taken as the positive class" in notes[0]
    assert len(positive(["1", "1", "yes", "yes"])[1]) == 1


@pytest.mark.parametrize(
    ("model", "options", "words"),
    [
        ("boosted", {"positive": "maybe"}, "'maybe' is not a class"),
        ("forest", {"positive": "setosa"}, "Only a yes/no model"),
        ("forest", {"threshold": 0.5}, "threshold needs a yes/no model"),
        ("vectors", {"threshold": 0.5, "positive": "late"}, "threshold needs a yes/no model"),
        ("boosted", {"threshold": 0.0}, "decides nothing"),
        ("boosted", {"threshold": 1.0}, "decides nothing"),
        ("boosted", {"threshold": float("nan")}, "decides nothing"),
        ("boosted", {"tolerance": -1.0}, "allows nothing"),
        ("boosted", {"tolerance": float("nan")}, "allows nothing"),
        ("boosted", {"name": "No Name"}, "cannot name a bundle"),
        ("boosted", {"name": "a" * 65}, "cannot name a bundle"),
        ("boosted", {"name": "../x"}, "cannot name a bundle"),
    ],
)
def test_what_cannot_be_done_as_asked(model: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        packed(models.FACTORIES[model](), **options)
    assert caught.value.hint


def test_names_come_from_name_target_or_file() -> None:
    assert packed(models.boosted()).name == "model"
    assert packed(models.boosted(), target="Will it churn?").name == "will-it-churn"
    assert packed(models.boosted(), target="churn", name="v1.x").name == "v1.x"
    assert read(packed(models.boosted(), target="Will it churn?")).contract.answer.target == "Will it churn?"


def test_the_answer_in_the_contract() -> None:
    assert read(packed(models.boosted(), target="churn", threshold=0.3)).contract.answer == Answer(
        "binary", "churn", (0, 1), 1, 0.3, "probability"
    )
    assert read(packed(models.plain_regression())).contract.answer == Answer("regression")
    assert read(packed(models.outliers())).contract.answer == Answer("outlier", values="score")
    assert read(packed(models.pairwise_vectors())).contract.answer.values == "none"


def test_data_and_model_must_fit_together() -> None:
    with pytest.raises(InputError, match="no column 'churn'") as caught:
        packed(models.encoded(), table().assign(chrun=1), target="churn")
    assert caught.value.hint == "Its columns are: contract, partner, tenure, fee, chrun"
    assert read(packed(models.encoded(), table(), target="churn")).manifest.answer.target == "churn"
    wide = pd.DataFrame({f"c{place}": [1] for place in range(12)})
    with pytest.raises(InputError, match="no column 'contract', which the model reads") as caught:
        packed(models.encoded(), wide)
    assert "and 4 more" in caught.value.hint
    named = table()[["tenure", "fee"]].assign(y=1)
    fields = read(packed(models.plain_forest(), named, target="y")).contract.fields
    assert [(each.name, each.type) for each in fields] == [("tenure", "integer"), ("fee", "number")]
    fields = read(packed(models.plain_forest(), named)).contract.fields
    assert [(each.name, each.minimum) for each in fields] == [("x0", None), ("x1", None)]


def test_a_model_that_answers_no_plausible_row_asks_for_data(tmp_path: Path) -> None:
    frame = pd.DataFrame({"word": ["aa", "b", "ccc", "dd"] * 3})
    model = models.make_pipeline(FunctionTransformer(lengths), LinearRegression()).fit(frame, [2, 1, 3, 2] * 3)
    with pytest.raises(ModelError, match="does not answer a plausible row") as caught:
        packed(model, home=tmp_path)
    assert "--data" in caught.value.hint
    assert read(packed(model, frame, home=tmp_path)).contract.fields[0].type == "category"


def lengths(X: pd.DataFrame) -> Any:
    return np.array([[len(word)] for word in X["word"]])


# a person's say


@pytest.mark.packing
def test_a_contract_is_amended_and_given_back() -> None:
    before = read(packed(models.encoded(), table()))
    text = as_toml(before.contract)
    unchanged = packed(models.encoded(), table(), amendments=parse(text.encode(), "c.toml"))
    assert unchanged.data == packed(models.encoded(), table()).data
    text = text.replace("# threshold = 0.5", "threshold = 0.2").replace('label = ""', 'label = "Etikett"', 1)
    after = read(packed(models.encoded(), table(), amendments=parse(text.encode(), "c.toml")))
    assert after.contract.answer.threshold == 0.2
    assert after.contract.fields[0].label == "Etikett"
    flag = read(packed(models.encoded(), table(), amendments=parse(text.encode(), "c.toml"), threshold=0.7))
    assert flag.contract.answer.threshold == 0.7  # what is given by hand wins over the file


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[fields.tenuer]\nlabel = 'x'", "'tenuer', which is no field"),
        ("[fields.tenure]\nexample = 'x'", "example of 'tenure' breaks its own contract: wrong-type"),
        ("[fields.contract]\nexample = 'week'", None),
        ("[fields.fee]\ntype = 'text'", "changes 'type'"),
        ("threshold = 3", "decides nothing"),
    ],
)
def test_amendments_that_the_model_contradicts(text: str, words: str | None) -> None:
    amendments = parse(text.encode(), "c.toml")
    if words is None:
        assert read(packed(models.encoded(), table(), amendments=amendments)).contract.fields[0].example == "week"
        return
    with pytest.raises((ContractError, UsageError), match=words):
        packed(models.encoded(), table(), amendments=amendments)


# what is kept


@pytest.mark.packing
def test_the_same_model_and_data_give_the_same_bytes() -> None:
    for name in ("vectorized", "encoded", "texts"):
        model = models.FACTORIES[name]()
        again = copy.deepcopy(model)
        data = table() if name == "encoded" else None
        options: dict[str, Any] = {"positive": "spam"} if name == "texts" else {}
        assert packed(model, data, **options).data == packed(again, data, **options).data


FEW = ("vectorized", "encoded", "texts")  # of whose golden rows every change is told at once


@pytest.mark.parametrize(
    "name", [pytest.param(each, marks=[] if each in FEW else [pytest.mark.packing]) for each in models.FACTORIES]
)
def test_golden_rows_keep_the_contract_and_the_model_answers_them(name: str) -> None:
    found = read(packed(models.FACTORIES[name](), **late(name)))
    assert 1 <= len(found.golden.rows) <= 48
    columns = {each.name: [row.get(each.name) for row in found.golden.rows] for each in found.contract.fields}
    checked = Checker(found.contract.fields, strict=True)(columns, len(found.golden.rows))
    assert not checked.faults
    assert all(each.example == found.golden.rows[0][each.name] for each in found.contract.fields)


def test_answers_that_are_not_finite_are_no_golden_answers() -> None:
    model = models.TransformedTargetRegressor(LinearRegression(), func=np.log, inverse_func=np.exp)
    predictor = opened(model.fit([[0.0], [1.0]], [1.0, 1e30]))  # exp overflows from 10.27 on
    assert 1 <= len(predictor.bundle.golden.rows) < 48
    assert predictor.replay() == 0.0


def test_rows_the_model_refuses_together_are_left_out(tmp_path: Path) -> None:
    frame = table()[["tenure", "fee"]].astype(float)
    model = models.make_pipeline(FunctionTransformer(either), LinearRegression()).fit(frame, models.prices())
    found = read(packed(model, frame, home=tmp_path))
    assert not any(each.required for each in found.contract.fields)
    assert 0 < len(found.golden.rows) < 48


def either(X: pd.DataFrame) -> Any:
    filled = X.to_numpy(dtype=float)
    if np.isnan(filled).all(axis=1).any():
        raise ValueError("one of the two must be given")
    return np.nan_to_num(filled)


def test_no_record_of_the_sample_is_in_the_bundle(tmp_path: Path) -> None:
    source = random.Random(3)
    frame = pd.DataFrame(
        {
            "name": ["".join(source.choices(string.ascii_letters, k=10)) for _ in range(300)],
            "born": [f"19{source.randint(30, 99)}-0{source.randint(1, 9)}-1{source.randint(0, 9)}" for _ in range(300)],
            "fee": [source.uniform(1, 900) for _ in range(300)],
            "age": [source.randint(18, 90) for _ in range(300)],
            "plan": [source.choice("xyz") for _ in range(300)],
            "note": [" ".join(source.choices(WORDS, k=6)) for _ in range(300)],
        }
    )
    columns = models.ColumnTransformer(
        [
            ("c", models.OneHotEncoder(), ["plan"]),
            ("t", models.TfidfVectorizer(), "note"),
            ("n", "passthrough", ["fee", "age"]),
        ]
    )
    labels = [place % 2 for place in range(300)]
    model = models.make_pipeline(columns, StandardScaler(with_mean=False), LogisticRegression()).fit(frame, labels)
    known = read(packed(model, frame.assign(gone=labels), target="gone"))
    assert {each.name for each in known.contract.fields} == {"plan", "note", "fee", "age"}
    real = {(row.fee, row.age, row.plan) for row in frame.itertuples()}
    assert not real & {(row["fee"], row["age"], row["plan"]) for row in known.golden.rows}
    assert not set(frame["note"]) & {row["note"] for row in known.golden.rows}
    assert "note" not in known.profile
    seen = b"".join(data for name, data in known.files.items() if not name.startswith("original/"))
    for text in (*frame["name"], *frame["born"], *frame["note"]):
        assert str(text).encode() not in seen
    everything = models.make_pipeline(FunctionTransformer(fees), LogisticRegression()).fit(frame, labels)
    told = read(packed(everything, frame, home=tmp_path))
    assert {each.name: each.type for each in told.contract.fields} == {
        "name": "text",
        "born": "date",
        "fee": "number",
        "age": "integer",
        "plan": "category",
        "note": "text",
    }
    seen = b"".join(data for name, data in told.files.items() if not name.startswith("original/"))
    for text in (*frame["name"], *frame["note"]):
        assert str(text).encode() not in seen
    assert "counts" not in told.profile["born"]  # type: ignore[operator]


WORDS = [
    first + second for first in ("call", "visit", "letter", "mail", "talk") for second in ("ing", "ed", "s", "er", "y")
]


def fees(X: pd.DataFrame) -> Any:
    return X[["fee"]].to_numpy()


def test_a_bundle_says_what_it_was_made_with_and_of() -> None:
    found = read(packed(models.encoded()))
    assert found.manifest.versions["numpy"] == np.__version__
    assert b"scikit-learn==" in found.files["env/requirements.txt"]
    assert (found.manifest.adapter, found.manifest.serves, found.manifest.tolerance) == ("sklearn", "compiled", 1e-6)
    assert found.profile == {}


# from Python


def test_pack_writes_the_bundle_and_warns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KETCH_HOME", str(tmp_path / "home"))
    with pytest.warns(UserWarning, match="taken as the positive class"):
        found = ketch.pack(line(["a", "a", "b", "b"]), name="ab")
    assert found.path == Path("ab.ketch")
    assert bundle.read((tmp_path / "ab.ketch").read_bytes(), "ab").sha256 == bundle.identity(found.data)
    (tmp_path / "c.toml").write_text("threshold = 0.4\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = pack(line([0, 0, 1, 1]), tmp_path / "x.ketch", positive=np.int64(0), contract=tmp_path / "c.toml")
    answer = read(again).contract.answer
    assert (answer.positive, answer.threshold) == (0, 0.4)
    assert again.path == tmp_path / "x.ketch"
    with pytest.raises(InputError, match="There is no file"):
        pack(line([0, 0, 1, 1]), contract="none.toml")


def test_rows_that_are_used_here_exist() -> None:
    assert len(rows()) == len(table()) == 160


def test_a_program_that_does_not_open_leaves_the_original(monkeypatch: pytest.MonkeyPatch) -> None:
    def lower(g: Any, model: object, x: Any) -> Answers:
        return Answers(values=g.node("NoSuchOperation", g.tensor(x), width=1))

    importlib.import_module("ketch.compiler.trees")  # which registers its own, and only once
    monkeypatch.setitem(compiler.ESTIMATORS, ("sklearn", "DecisionTreeRegressor"), lower)
    model = DecisionTreeRegressor(max_depth=2).fit(pd.DataFrame({"a": [1.0, 2.0, 3.0]}), [1.0, 2.0, 3.0])
    made = read(packed(model)).manifest
    assert made.serves == "original"
    assert "does not open" in made.parity.reason
