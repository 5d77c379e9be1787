"""Models of several targets: each target answers with its own group of names, in both forms and at every door."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier, RegressorChain
from sklearn.tree import DecisionTreeClassifier

from ketch import bundle
from ketch.bundle import Bundle
from ketch.errors import InputError, UsageError
from ketch.pack import Options, compose, read_table
from ketch.page import answer_schema
from ketch.predict import Predictor, open_bundle, open_runner
from ketch.score import answer_types
from ketch.serve import Request
from ketch.serve.guard import Guard
from ketch.serve.routes import Service

SOURCE = np.random.default_rng(3)
X = pd.DataFrame(SOURCE.normal(size=(160, 3)), columns=["a", "b", "c"])
PRICES = np.c_[X.a + X.b, X.c * 2]
YES = np.c_[(X.a > 0).astype(int), (X.b + X.c > 0).astype(int)]
KINDS = np.c_[np.where(X.a > 0, "left", "right"), np.where(X.b > 1, "low", np.where(X.b > 0, "mid", "high"))]
ROW = {"a": 0.5, "b": -0.25, "c": 1.5}

MODELS: dict[str, tuple[Any, Any]] = {
    "linear": (LinearRegression(), PRICES),
    "forest of numbers": (RandomForestRegressor(8, random_state=0), PRICES),
    "chain": (RegressorChain(LinearRegression()), PRICES),
    "forest of classes": (RandomForestClassifier(8, random_state=0), YES),
    "one for each": (MultiOutputClassifier(LogisticRegression()), YES),
    "labels": (OneVsRestClassifier(LogisticRegression()), YES),
    "tree of texts": (DecisionTreeClassifier(max_depth=3, random_state=0), KINDS),
}


@pytest.fixture(scope="module", params=MODELS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Bundle, Path]:
    model, targets = MODELS[request.param]
    home = tmp_path_factory.mktemp("home")
    packed = compose(model.fit(X, targets), read_table(X), Options(target="u, v"), home=home)
    return model, bundle.read(packed.data, "model"), home


@pytest.mark.service
def test_each_target_has_its_group(made: tuple[Any, Bundle, Path]) -> None:
    model, opened, home = made
    answer = opened.contract.answer
    assert answer.task == "several"
    assert [part.target for part in answer.parts] == ["u", "v"]
    predictor = open_bundle(opened, home=home)
    found = predictor.predict(ROW)
    labels = model.predict(pd.DataFrame([ROW]))[0]
    for name, label, part in zip(("u", "v"), labels, answer.parts, strict=True):
        if part.task == "regression":
            assert found[name] == pytest.approx(label)
        elif part.task == "binary":
            assert found[name] == (bool(label) if part.classes == (0, 1) else label)
            assert 0 <= found[f"{name}_probability"] <= 1
        else:
            assert sum(found[f"{name}_probabilities"].values()) == pytest.approx(1)
    assert set(answer_schema(answer)["properties"]) == set(found)  # type: ignore[call-overload]
    assert {name.partition(".")[0] for name in answer_types(predictor)} == set(found)


@pytest.mark.packing
def test_both_forms_alone_and_together_give_the_same(made: tuple[Any, Bundle, Path]) -> None:
    _, opened, home = made
    original = Predictor(opened, open_runner(opened, home=home))
    serving = open_bundle(opened, home=home)
    rows = X.head(40).to_dict("records")
    together = serving.predict(rows)
    assert [serving.predict(row) for row in rows] == together
    for mine, theirs in zip(together, original.predict(rows), strict=True):
        assert mine.keys() == theirs.keys()
        for name, value in mine.items():
            assert (
                value == pytest.approx(theirs[name], abs=1e-9) if not isinstance(value, str) else value == theirs[name]
            )


def test_the_wire_and_a_table_carry_all_groups(made: tuple[Any, Bundle, Path]) -> None:
    _, opened, home = made
    service = Service(open_bundle(opened, home=home), Guard(auth="none"))
    answered = service.handle(Request("POST", "/predict", {}, json.dumps(ROW).encode()))
    assert answered.status == 200
    assert list(json.loads(answered.body)) == service.predictor.answers
    asked = Request("POST", "/predict", {"content-type": "text/csv"}, b"a,b,c\n0.5,-0.25,1.5\n")
    header = service.handle(asked).body.decode().splitlines()[0].split(",")
    assert {name.partition(".")[0] for name in header} == set(service.predictor.answers)


def test_targets_without_names_are_numbered_and_wrong_ones_told(tmp_path: Path) -> None:
    model = LinearRegression().fit(X, PRICES)
    for target, names in (("", ["prediction_1", "prediction_2"]), ("price", ["price_1", "price_2"])):
        found = bundle.read(compose(model, None, Options(target=target), home=tmp_path).data, "model")
        assert [part.target for part in found.contract.answer.parts] == names
    table = read_table(X.assign(u=0.0, extra=1.0))
    with pytest.raises(InputError, match="no column 'v'"):
        compose(model, table, Options(target="u,v"), home=tmp_path)
    with pytest.raises(UsageError, match="several targets"):
        compose(model, None, Options(threshold=0.4), home=tmp_path)
