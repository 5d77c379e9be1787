"""The main job on real data: every one of 7,043 customers gets the original model's answer through every door."""

import csv
import json
import random
from pathlib import Path
from typing import Any

import pytest
import requests

import ketch
from ketch import bundle, schema
from ketch.pack import Options, compose
from ketch.predict import Predictor, load
from ketch.score import score
from tests.running import ketch as run
from tests.running import serving

pytestmark = pytest.mark.timeout(240)
NUMBERS = {"seniorcitizen", "tenure", "monthlycharges", "totalcharges"}
CUSTOMERS = 7043


def known(telco: Path, name: str) -> tuple[list[dict[str, Any]], list[Any]]:
    found = json.loads((telco / f"{name}.json").read_text())
    return found["rows"], found["answers"]


@pytest.fixture(scope="module")
def packed(telco: Path) -> Path:
    done = run("pack", "model.bin", "--target", "churn", home=telco / "home", cwd=telco)
    assert done.returncode == 0, done.stderr
    return telco / "churn.ketch"


@pytest.mark.service
def test_the_contract_is_inferred_from_the_pickle_alone(telco: Path, packed: Path) -> None:
    fields = {each.name: each for each in bundle.read(packed.read_bytes(), "churn").contract.fields}
    rows, _ = known(telco, "model")
    assert len(fields) == 19
    assert {name for name, each in fields.items() if each.type == "number"} == NUMBERS
    for name, each in fields.items():
        if name not in NUMBERS:
            assert each.type == "category"
            assert set(each.categories) == {row[name] for row in rows}
            assert each.unknown == "refuse"
        assert each.required


@pytest.mark.service
def test_a_plain_client_gets_the_original_answers_for_all_customers(telco: Path, packed: Path) -> None:
    rows, answers = known(telco, "model")
    opened = bundle.read(packed.read_bytes(), "churn")
    with serving(packed, home=telco / "home") as url:
        first = requests.post(f"{url}/predict", json=rows[0]).json()
        assert first["churn"] is (answers[0] >= 0.5)
        session = requests.Session()
        singly = [session.post(f"{url}/predict", json=row).json() for row in rows]
        client = ketch.Client(url)
        together = client.predict(rows)
        client.close()
        session.close()
    assert len(singly) == CUSTOMERS
    assert singly == together
    for answer, wanted in zip(singly, answers, strict=True):
        assert abs(answer["churn_probability"] - wanted) <= opened.manifest.tolerance == 1e-6
        assert answer["churn"] is (wanted >= 0.5)
    table(telco / "rows.csv", rows)
    done = run("score", packed, "rows.csv", "-o", "scored.csv", home=telco / "home", cwd=telco)
    assert done.returncode == 0, done.stderr
    assert scored(telco / "scored.csv", ("churn", "churn_probability")) == singly


def table(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def scored(path: Path, names: tuple[str, ...]) -> list[dict[str, Any]]:
    kinds = {"true": True, "false": False}
    with path.open(newline="") as file:
        return [
            {name: kinds[row[name]] if row[name] in kinds else _number(row[name]) for name in names}
            for row in csv.DictReader(file)
        ]


def _number(cell: str) -> Any:
    try:
        return float(cell)
    except ValueError:
        return cell


@pytest.mark.service
def test_two_files_are_one_model(telco: Path) -> None:
    rows, answers = known(telco, "model")
    paths = [telco / "dv.bin", telco / "model1.bin"]
    packed = compose(paths, None, Options(target="churn"), home=telco / "home")
    (telco / "two.ketch").write_bytes(packed.data)
    found = load(telco / "two.ketch", home=telco / "home").predict(rows)
    assert [each["churn_probability"] for each in found] == pytest.approx(answers, abs=1e-12)


CASES = {  # the original file, what its answers are called
    "linear": ("linear.joblib", "churn"),
    "forest": ("forest.joblib", "churn"),
    "price": ("price.pkl", "monthlycharges"),
    "kind": ("kind.pkl", "contract"),
    "words": ("words.pkl", "churn"),
}


@pytest.mark.service
@pytest.mark.parametrize("name", CASES)
def test_every_kind_of_model_answers_alike_through_every_door(telco: Path, tmp_path: Path, name: str) -> None:
    file, target = CASES[name]
    rows, answers = known(telco, name)
    packed = compose(telco / file, None, Options(target=target), home=telco / "home")
    path = tmp_path / f"{name}.ketch"
    path.write_bytes(packed.data)
    predictor = load(path, home=telco / "home")
    wanted = predictor.predict(rows)
    for answer, original in zip(wanted, answers, strict=True):
        assert value(answer, predictor) == pytest.approx(original, abs=1e-6, rel=1e-6)
    labels(name, wanted, answers, predictor)
    client = ketch.serve(path, background=True)
    assert client is not None
    assert over_http(client.url, rows) == wanted
    assert client.predict(rows) == wanted
    client.close()
    table(tmp_path / "rows.csv", rows)
    summary = score(predictor, tmp_path / "rows.csv", tmp_path / "scored.csv", chunk=1000)
    assert (summary.scored, summary.rejected) == (CUSTOMERS, 0)
    flat = tuple(flatten(wanted[0]))
    assert scored(tmp_path / "scored.csv", flat) == [flatten(each) for each in wanted]


def value(answer: dict[str, Any], predictor: Predictor) -> Any:
    target = predictor.contract.answer.target
    if predictor.contract.answer.task == "multiclass":
        return list(answer[f"{target}_probabilities"].values())
    return answer.get(f"{target}_probability", answer[target])


def labels(name: str, found: list[dict[str, Any]], answers: list[Any], predictor: Predictor) -> None:
    if name == "price":
        return
    for each, wanted in zip(found, answers, strict=True):
        if name == "kind":
            assert each["contract"] == predictor.contract.answer.classes[wanted.index(max(wanted))]
        else:
            assert each["churn"] is (wanted > 0.5) or wanted == 0.5


def over_http(url: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Ask in lists of many lengths, and some customers singly."""
    session, source = requests.Session(), random.Random(7)
    found: list[dict[str, Any]] = []
    while len(found) < len(rows):
        size = source.choice([1, 3, 7, 64, 301, 997])
        part = rows[len(found) : len(found) + size]
        asked = part[0] if size == 1 else part
        answer = session.post(f"{url}/predict", json=asked).json()
        found += [answer] if size == 1 else answer
    session.close()
    return found


def flatten(answer: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, part in answer.items():
        flat |= {f"{key}.{name}": each for name, each in part.items()} if isinstance(part, dict) else {key: part}
    return flat


@pytest.mark.service
def test_data_sharpens_the_contract(telco: Path, real_data: Path) -> None:
    rows, _ = known(telco, "model")
    packed = compose(telco / "model.bin", _columns(rows), Options(target="churn"), home=telco / "home")
    fields = {each.name: each for each in bundle.read(packed.data, "churn").contract.fields}
    assert (fields["tenure"].type, fields["tenure"].minimum, fields["tenure"].maximum) == ("integer", 0, 72)
    assert fields["monthlycharges"].type == "number"
    assert fields["monthlycharges"].maximum == 118.75
    assert fields["contract"].example == "month-to-month"


def _columns(rows: list[dict[str, Any]]) -> schema.Columns:
    return {"churn": [0] * len(rows), **{name: [row[name] for row in rows] for name in rows[0]}}
