"""The model card: what it measures, what it keeps of a person's words, and what it must not hold."""

import hashlib
import json
import math
import os
import random
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from sklearn import metrics
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from ketch import bundle, card
from ketch.errors import InputError
from ketch.pack import Options, compose, pack, read_table
from ketch.schema import Answer, Field

KEPT = tempfile.TemporaryDirectory()  # gone with the process
HOME = Path(KEPT.name)


def people(n: int = 200, seed: int = 0) -> pd.DataFrame:
    chance = random.Random(seed)
    frame = pd.DataFrame(
        {
            "months": [chance.randint(0, 70) for _ in range(n)],
            "plan": [chance.choice(["basic", "big", "odd|plan <b>"]) for _ in range(n)],
            "fee": [round(chance.uniform(20, 100), 1) for _ in range(n)],
        }
    )
    frame["churn"] = [
        "leave" if fee - months + chance.gauss(0, 20) > 30 else "stay"
        for fee, months in zip(frame["fee"], frame["months"], strict=True)
    ]
    return frame


@pytest.fixture(scope="module")
def model() -> Any:
    frame = people()
    encode = ColumnTransformer([("plan", OneHotEncoder(), ["plan"])], remainder="passthrough")
    return make_pipeline(encode, LogisticRegression(max_iter=2000)).fit(
        frame[["months", "plan", "fee"]], frame["churn"]
    )


def files(model: Any, data: Any = None, **options: Any) -> dict[str, bytes]:
    chosen = Options(target=options.pop("target", "churn"), **options)
    return bundle.read(compose(model, read_table(data), chosen, home=HOME).data, "test").files


def text(found: dict[str, bytes]) -> str:
    return found["CARD.md"].decode()


def section(found: dict[str, bytes], name: str) -> str:
    return card.parts(text(found))[1][name]


def table(section: str) -> dict[str, float]:
    return {name: float(value) for name, value in re.findall(r"^\| ([\w ]+) \| ([-\d.e]+) \|$", section, re.MULTILINE)}


def test_figures_are_those_of_scikit_learn(model: Any) -> None:
    test = people(300, seed=1)
    found = table(section(files(model, people(), positive="leave", test=read_table(test)), "Measured"))
    actual = test["churn"] == "leave"
    given = test[["months", "plan", "fee"]]
    chance, said = model.predict_proba(given)[:, 0], model.predict(given) == "leave"
    wanted = {
        "positive share": actual.mean(),
        "roc auc": metrics.roc_auc_score(actual, chance),
        "brier": metrics.brier_score_loss(actual, chance),
        "log loss": metrics.log_loss(actual, chance),
        "accuracy": metrics.accuracy_score(actual, said),
        "balanced accuracy": metrics.balanced_accuracy_score(actual, said),
        "precision": metrics.precision_score(actual, said),
        "recall": metrics.recall_score(actual, said),
        "f1": metrics.f1_score(actual, said),
    }
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert math.isclose(found[name], value, rel_tol=1e-3), name


def test_a_threshold_counts(model: Any) -> None:
    frame = people()
    found = table(section(files(model, frame, positive="leave", threshold=0.9), "Measured"))
    said = model.predict_proba(frame[["months", "plan", "fee"]])[:, 0] >= 0.9
    assert math.isclose(found["recall"], metrics.recall_score(frame["churn"] == "leave", said), rel_tol=1e-3)


@pytest.mark.packing
def test_it_is_honest_about_what_it_measured_on(model: Any) -> None:
    seen = section(files(model, people(), positive="leave"), "Measured")
    assert "Measured on 200 rows of `--data`; if it was trained on them, expect it to do worse" in seen
    apart = section(files(model, people(), positive="leave", test=read_table(people(50, 2))), "Measured")
    assert "Measured on 50 rows that were kept apart" in apart
    given = section(files(model, None, positive="leave", figures={"accuracy": 0.5}), "Measured")
    assert "Given by whoever packed the model, not measured here" in given
    assert table(given) == {"accuracy": 0.5}
    assert "not measured" in section(files(model, None, positive="leave"), "Limits")
    strange = people().assign(churn=[1.0, 0.0] * 100)
    assert "does not hold the model's leave, stay" in section(files(model, strange, positive="leave"), "Measured")
    few = read_table(people(5))
    assert "too few" in section(files(model, people(), positive="leave", test=few), "Measured")


def test_rows_that_the_contract_refuses_are_counted(model: Any) -> None:
    test = people(60, seed=3)
    test.loc[:9, "plan"] = "never seen"
    found = section(files(model, people(), positive="leave", test=read_table(test)), "Measured")
    assert "Measured on 50 rows" in found
    assert "10 more could not be used" in found


def test_regression_and_several_classes() -> None:
    frame = people()
    numbers = LinearRegression().fit(frame[["months"]], frame["fee"])
    found = files(numbers, frame[["months", "fee"]], target="fee")
    assert table(section(found, "Measured")).keys() == {"mean absolute error", "root mean squared error", "r2"}
    assert "card/quality.svg" in found
    classes = LogisticRegression(max_iter=2000).fit(frame[["months", "fee"]], frame["plan"])
    found = files(classes, frame[["months", "fee", "plan"]], target="plan")
    measured = table(section(found, "Measured"))
    assert measured.keys() == {"accuracy", "balanced accuracy", "f1 macro", "log loss"}
    assert math.isclose(measured["accuracy"], classes.score(frame[["months", "fee"]], frame["plan"]), rel_tol=1e-3)


def test_what_a_person_wrote_stays(model: Any) -> None:
    first = text(files(model, people(), positive="leave"))
    assert "Who is asked when it goes wrong?" in first
    edited = re.sub(r"(?s)<!--.*?wrong\?", "For retention calls only.", first).replace("# churn\n", "# changed\n")
    edited = edited.replace("---\n", "---\nlicense: mit\nlanguage:\n  - en\n", 1) + "\n## Ethics\n\nAsked the board.\n"
    again = files(model, people(), positive="leave", card=edited)
    front, sections = card.parts(text(again))
    assert sections["Intended use"].strip() == "For retention calls only."
    assert sections["Ethics"].strip() == "Asked the board."
    assert front["license"] == "license: mit"
    assert front["language"] == "language:\n  - en"
    assert "# changed" not in text(again)  # the rest is what is known
    assert text(files(model, people(), positive="leave", card=text(again))) == text(again)


def test_hubs_can_read_its_front_matter(model: Any) -> None:
    yaml = pytest.importorskip("yaml")
    front = yaml.safe_load(text(files(model, people(), positive="leave")).split("---\n")[1])
    assert front["library_name"] == "scikit-learn"
    assert front["pipeline_tag"] == "tabular-classification"
    result = front["model-index"][0]["results"][0]
    assert {"type", "value"} == result["metrics"][0].keys()
    assert result["task"]["type"] == "tabular-classification"


def test_plots_are_whole_and_sums_only(model: Any) -> None:
    found = files(model, people(), positive="leave")
    for name in ("card/quality.svg", "card/fields.svg"):
        root = ET.fromstring(found[name])
        assert root.tag.endswith("svg")
        assert f"({name})" in text(found)
        assert len(found[name]) < 100_000
    said = found["card/quality.svg"].decode()
    for title in ("ROC", "Calibration", "Confusion"):
        assert f">{title}<" in said


def test_no_value_of_a_text_and_no_record_stands_in_it() -> None:
    frame = people()
    frame["note"] = [f"secret{place} {place * 7919}" for place in range(len(frame))]
    frame["fee"] = [float(f"{fee}{place:04d}7") for place, fee in enumerate(frame["fee"])]
    encode = ColumnTransformer([("plan", OneHotEncoder(), ["plan"])], remainder="drop")
    fitted = make_pipeline(encode, LogisticRegression()).fit(frame[["plan", "note", "fee"]], frame["churn"])
    found = files(fitted, frame, positive="leave")
    held = b"".join(data for name, data in found.items() if name.startswith(("CARD", "card/"))).decode()
    assert "secret" not in held
    inner = sorted(frame["fee"])[1:-1]
    assert not [fee for fee in inner if str(fee) in held]


def test_a_name_is_no_markup(model: Any) -> None:
    contract = section(files(model, people(), positive="leave"), "Contract")
    assert "odd\\|plan \\<b\\>" in contract
    assert all(line.count("|") - line.count("\\|") == 6 for line in contract.strip().splitlines())


@pytest.mark.parametrize("data", [b"[1]", b"{", b'{"a": "b"}', b'{"a": {"b": {"c": 1}}}', b"\xff"])
def test_figures_that_are_none_are_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_bytes(data)
    with pytest.raises(InputError) as refusal:
        pack(LogisticRegression().fit([[0], [1]], [0, 1]), tmp_path / "x.ketch", metrics=tmp_path / "metrics.json")
    assert "accuracy" in refusal.value.hint


def test_figures_and_card_come_as_files_too(model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KETCH_HOME", str(tmp_path))
    (tmp_path / "metrics.json").write_text(json.dumps({"test": {"accuracy": 0.75}, "auc": 0.8}))
    (tmp_path / "CARD.md").write_text("## Intended use\n\nMine.\n")
    (people(40, 5)).to_csv(tmp_path / "test.csv", index=False)
    packed = pack(
        model,
        tmp_path / "churn.ketch",
        target="churn",
        positive="leave",
        metrics=tmp_path / "metrics.json",
        card=tmp_path / "CARD.md",
        test_data=tmp_path / "test.csv",
    )
    found = bundle.read(packed.data, "x").files
    assert section(found, "Intended use").strip() == "Mine."
    assert "| test.accuracy | 0.75 |" in section(found, "Measured")
    (tmp_path / "CARD.md").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="is no text"):
        pack(model, tmp_path / "churn.ketch", positive="leave", card=tmp_path / "CARD.md")


PROGRAM = """
import hashlib
from tests.test_card import drawn
print({name: hashlib.sha256(data).hexdigest() for name, data in drawn().items()})
"""


def drawn() -> dict[str, bytes]:
    answer = Answer("binary", target="churn", classes=(0, 1), positive=1, values="probability")
    manifest = bundle.Manifest(
        format=1,
        name="churn",
        answer=answer,
        adapter="sklearn",
        serves="original",
        tolerance=1e-6,
        originals=(),
        origin={},
        versions={},
        members={},
    )
    curves = {
        "roc": [(0.0, 0.0), (0.5, 0.9), (1.0, 1.0)],
        "calibration": [(0.1, 0.2), (0.9, 0.8)],
        "confusion": {"names": ["no", "yes"], "counts": [[30, 2], [4, 10]]},
        "predicted": [(1.0, 0.5, 1.0, 1.5), (2.0, 1.5, 2.0, 2.5)],
    }
    profile = {
        "plan": {"rows": 46, "missing": 0, "counts": {"big": 20, "$basic$": 26}},
        "fee": {"rows": 46, "missing": 1, "quantiles": [0.0, 0.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]},
    }
    measured = card.Measured(46, 0, "of a test", figures={"accuracy": 0.87}, curves=curves)
    return card.write(card.Facts(manifest, (Field("fee", "number"),), profile, measured))


@pytest.mark.packing
def test_the_same_bytes_in_any_process() -> None:
    said = set()
    for seed in ("1", "2"):
        environ = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env=environ,
            cwd=Path(__file__).parent.parent,
            check=True,
            capture_output=True,
            text=True,
        )
        said.add(done.stdout)
    assert said == {str({name: hashlib.sha256(data).hexdigest() for name, data in drawn().items()}) + "\n"}


def test_without_matplotlib_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # as if it were not installed
    found = drawn()
    assert list(found) == ["CARD.md"]
    assert "pip install 'ketch[card]'" in text(found)
