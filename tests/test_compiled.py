"""What the compiled form promises on real data: how fast it answers, packs and loads, and what it never imports."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

from ketch import bundle
from ketch.pack import Options, Packed, compose, read_table
from ketch.predict import Predictor, open_bundle, open_runner

pytestmark = [pytest.mark.packing, pytest.mark.timeout(300)]
NUMBERS = ["tenure", "monthlycharges", "totalcharges"]


@pytest.fixture(scope="module")
def customers(real_data: Path) -> pd.DataFrame:
    found = pd.read_csv(real_data / "telco-customer-churn.csv")
    found.columns = [name.lower() for name in found.columns]
    found["totalcharges"] = pd.to_numeric(found.totalcharges, errors="coerce").fillna(0)
    found["churn"] = (found.churn == "Yes").astype(int)
    categories = [name for name in found.columns if name not in [*NUMBERS, "customerid", "churn"]]
    return found[[*categories, *NUMBERS, "churn"]]


def encoding(rows: pd.DataFrame) -> ColumnTransformer:
    categories = [name for name in rows.columns if name not in NUMBERS]
    return ColumnTransformer(
        [("c", OneHotEncoder(handle_unknown="ignore"), categories), ("n", StandardScaler(), NUMBERS)]
    )


def linear(rows: pd.DataFrame, answers: Any) -> Any:
    return make_pipeline(encoding(rows), LogisticRegression(max_iter=1000)).fit(rows, answers)


def vectorized(rows: pd.DataFrame, answers: Any) -> Any:
    return make_pipeline(DictVectorizer(), LogisticRegression(max_iter=5000)).fit(rows.to_dict("records"), answers)


def forest(rows: pd.DataFrame, answers: Any) -> Any:
    trees = RandomForestClassifier(100, max_depth=12, random_state=0, n_jobs=2)
    return make_pipeline(encoding(rows), trees).fit(rows, answers)


def boosting(rows: pd.DataFrame, answers: Any) -> Any:
    return make_pipeline(encoding(rows), GradientBoostingClassifier(random_state=0)).fit(rows, answers)


def histogram(rows: pd.DataFrame, answers: Any) -> Any:
    places = [place for place, name in enumerate(rows.columns) if name not in NUMBERS]
    coding = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    columns = ColumnTransformer([("c", coding, list(rows.columns[places]))], remainder="passthrough")
    trees = HistGradientBoostingClassifier(random_state=0, categorical_features=list(range(len(places))))
    return make_pipeline(columns, trees).fit(rows, answers)


WORK = 9.7  # microseconds for adding up a thousand numbers where the bounds below were set; 17.8 while others held it
MODELS: dict[str, tuple[Callable[..., Any], float]] = {  # model -> microseconds that one row may cost
    "linear": (linear, 5),
    "vectorized": (vectorized, 5),
    "forest": (forest, 30),
    "boosting": (boosting, 30),
    "histogram": (histogram, 30),
}


@pytest.fixture(scope="module", params=MODELS)
def packed(
    request: pytest.FixtureRequest, customers: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Any, Packed, Path]:
    rows = customers.drop(columns="churn")
    model = MODELS[request.param][0](rows, customers.churn)
    home = tmp_path_factory.mktemp(request.param)
    began = time.perf_counter()
    made = compose(model, read_table(customers), Options(target="churn"), home=home)
    print(f"\n{request.param}: packed in {time.perf_counter() - began:.2f} s, {len(made.data)} bytes")
    (home / "model.ketch").write_bytes(made.data)
    return request.param, model, made, home


def best(call: Callable[[bytes], object], bodies: list[bytes], rounds: int) -> float:
    """Microseconds for one body, in the best of some rounds over different bodies."""
    found = []
    for _ in range(rounds):
        began = time.perf_counter()
        for body in bodies:
            call(body)
        found.append((time.perf_counter() - began) / len(bodies))
    return min(found) * 1e6


def test_one_row_costs_microseconds(packed: tuple[str, Any, Packed, Path], customers: pd.DataFrame) -> None:
    name, model, made, home = packed
    opened = bundle.read(made.data, name)
    assert opened.manifest.serves == "compiled"
    assert opened.manifest.parity.rows >= len(customers)
    assert opened.manifest.parity.worst < 1e-9
    compiled = open_bundle(opened, home=home)
    bodies = [json.dumps(row).encode() for row in customers.drop(columns="churn").head(500).to_dict("records")]

    def by_hand(body: bytes) -> bytes:
        row = json.loads(body)
        likely = model.predict_proba([row] if name == "vectorized" else pd.DataFrame([row]))[0, 1]
        return json.dumps({"churn": bool(likely >= 0.5), "churn_probability": float(likely)}).encode()

    quick = slow = work = float("inf")
    for turn in range(40):  # interleaved, since the machine is shared; longer where others hold it
        quick = min(quick, best(compiled, bodies, 5))
        slow = min(slow, best(by_hand, bodies[:10], 1))
        work = min(work, best(lambda _: sum(range(1000)), bodies[:50], 5))
        limit = MODELS[name][1] * max(1.0, work / WORK)
        if turn > 4 and quick <= limit:
            break
    print(f"{name}: compiled {quick:.1f} µs, by hand {slow:.0f} µs, {slow / quick:.0f} times")
    assert quick <= limit
    assert slow / quick >= (20 if name == "vectorized" else 500)


def test_every_customer_gets_the_same_answer(packed: tuple[str, Any, Packed, Path], customers: pd.DataFrame) -> None:
    name, _, made, home = packed
    opened = bundle.read(made.data, name)
    rows = customers.drop(columns="churn").to_dict("records")
    compiled, original = open_bundle(opened, home=home), Predictor(opened, open_runner(opened, home=home))
    wanted, found = original.predict(rows), compiled.predict(rows)
    assert [row["churn"] for row in found] == [row["churn"] for row in wanted]
    assert max(abs(a["churn_probability"] - b["churn_probability"]) for a, b in zip(found, wanted, strict=True)) < 1e-9
    assert [compiled.predict(row) for row in rows[:500]] == found[:500]


LOADED = """
import sys, time
began = time.perf_counter()
from pathlib import Path
from ketch import bundle
from ketch.predict import load
predictor = load(sys.argv[1], home=Path(sys.argv[2]))
predictor(sys.argv[3].encode())
spent = time.perf_counter() - began
print(spent, *sorted({"sklearn", "pandas", "scipy", "numpy", "onnxruntime", "onnx"} & sys.modules.keys()))
"""


def test_it_loads_quickly_and_without_the_libraries_it_was_made_with(
    packed: tuple[str, Any, Packed, Path], customers: pd.DataFrame
) -> None:
    name, _, _, home = packed
    body = json.dumps(customers.drop(columns="churn").head(1).to_dict("records")[0])
    command = [sys.executable, "-c", LOADED, str(home / "model.ketch"), str(home), body]
    ran = [subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() for _ in range(5)]
    spent, imported = min(float(line[0]) for line in ran), set(ran[0][1:])
    print(f"{name}: loaded and answered in {spent:.2f} s, with {' '.join(sorted(imported)) or 'no library'}")
    is_linear = name in {"linear", "vectorized"}
    assert imported == (set() if is_linear else {"numpy", "onnxruntime"})
    assert spent < (0.3 if is_linear else 0.8)


def test_a_forest_is_packed_in_seconds(customers: pd.DataFrame, tmp_path: Path) -> None:
    model = forest(customers.drop(columns="churn"), customers.churn)
    spent, worked = [], []
    for _ in range(3):
        began, work = time.perf_counter(), time.process_time()
        compose(model, read_table(customers), Options(target="churn"), home=tmp_path)
        spent.append(time.perf_counter() - began)
        worked.append(time.process_time() - work)
    print(f"forest: packed in {min(spent):.2f} s, {min(worked):.2f} s of them at work")
    assert min(*spent, *worked) < 5  # others may hold the machine


SEEDED = """
import hashlib, sys
from pathlib import Path
import joblib, pandas
from ketch.pack import Options, compose, read_table
made = compose(Path(sys.argv[1]), read_table(sys.argv[2]), Options(target="churn"), home=Path(sys.argv[3]))
again = compose(joblib.load(sys.argv[1]), read_table(sys.argv[2]), Options(target="churn"), home=Path(sys.argv[3]))
print(hashlib.sha256(made.data).hexdigest(), hashlib.sha256(again.data).hexdigest())
"""


@pytest.mark.parametrize("make", [linear, forest], ids=["linear", "forest"])
def test_the_same_model_packs_to_the_same_bytes_whatever_the_hash_seed(
    make: Callable[..., Any], customers: pd.DataFrame, tmp_path: Path
) -> None:
    import joblib

    joblib.dump(make(customers.drop(columns="churn"), customers.churn), tmp_path / "model.joblib")
    customers.to_csv(tmp_path / "rows.csv", index=False)
    command = [sys.executable, "-c", SEEDED, "model.joblib", "rows.csv", "home"]
    found = {
        subprocess.run(
            command, capture_output=True, text=True, check=True, cwd=tmp_path, env={"PYTHONHASHSEED": seed, "PATH": ""}
        ).stdout
        for seed in ("0", "4242")
    }
    assert len(found) == 1
