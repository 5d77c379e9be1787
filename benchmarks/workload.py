"""The models, their rows, and each row as every service wants to be asked."""

import io
import json
import os
import pickle
import random
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ketch.demo.data import churn_csv

ROWS: Final = 500
TOGETHER: Final = 100  # rows in a request for many
STEP: Final = 10  # between the first rows of two such requests: 50 of them hold all rows
NUMBERS: Final = ("tenure", "monthlycharges", "totalcharges")
Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Wire:
    """How a service is asked, and where the probabilities (or classes) are in what it answers."""

    ask: Callable[[Rows], Any]
    read: Callable[[Any], list[float]]
    path: str = "/predict"
    many: str = "/predict"
    classes: bool = False  # it answers with 0 and 1


def _tensors(rows: Rows) -> dict[str, Any]:
    """Write rows for the Open Inference Protocol, a tensor for each column."""
    inputs = []
    for name in rows[0]:
        data = [row[name] for row in rows]
        kind = "BYTES" if isinstance(data[0], str) else "INT64" if isinstance(data[0], int) else "FP64"
        each: dict[str, Any] = {"name": name, "shape": [len(rows), 1], "datatype": kind, "data": data}
        inputs.append({**each, "parameters": {"content_type": "str"}} if kind == "BYTES" else each)
    return {"parameters": {"content_type": "pd"}, "inputs": inputs, "outputs": [{"name": "predict_proba"}]}


def _single_or_list(rows: Rows) -> Any:
    return rows[0] if len(rows) == 1 else rows


def _probabilities(answer: Any) -> list[float]:
    return [each["churn_probability"] for each in (answer if isinstance(answer, list) else [answer])]


def _many_or_one(rows: Rows) -> Any:
    return {"customer": rows[0]} if len(rows) == 1 else {"customers": rows}


V2: Final = "/v2/models/churn/infer"
WIRES: Final[Mapping[str, Wire]] = {
    "plain": Wire(_single_or_list, _probabilities),
    "fastapi": Wire(_single_or_list, _probabilities, many="/predict-many"),
    "bentoml": Wire(_many_or_one, _probabilities, many="/predict_many"),
    "bentoml batching": Wire(lambda rows: {"customers": rows}, _probabilities),
    "mosec": Wire(_single_or_list, _probabilities, "/inference", "/inference"),
    "ray": Wire(_single_or_list, _probabilities, "/", "/"),
    "mlflow": Wire(
        lambda rows: {"dataframe_records": rows},
        lambda answer: [each[1] for each in answer["predictions"]],
        *("/invocations", "/invocations"),
    ),
    "mlserver": Wire(_tensors, lambda answer: answer["outputs"][0]["data"][1::2], V2, V2),
    "vetiver": Wire(lambda rows: rows, lambda answer: [float(each) for each in answer["predict"]], classes=True),
}


@dataclass(frozen=True)
class Workload:
    """A folder with models, bundles and request bodies, and the answers that every server must give."""

    folder: Path
    rows: Rows
    wanted: Mapping[str, Sequence[float]]  # model -> probability of each row

    def bodies(self, wire: str, together: int) -> Path:
        """Give the file with a request body in each line."""
        return self.folder / f"{wire.replace(' ', '-')}-{together}.jsonl"

    def windows(self, together: int) -> list[list[int]]:
        """Give the numbers of the rows in each request."""
        starts = range(ROWS) if together == 1 else range(0, ROWS, STEP)
        return [[(start + place) % ROWS for place in range(together)] for start in starts]


def prepare(folder: Path) -> Workload:
    """Train the models, write them, their bundles and the bodies."""
    frame = customers()
    churned = (frame.pop("churn") == "yes").astype(int)
    rows: list[dict[str, Any]] = frame.to_dict(orient="records")
    models = _models(frame, rows, churned)
    for name, model in models.items():
        (folder / f"{name}.bin").write_bytes(pickle.dumps(model))
        _pack(folder, name, name)
    _pack(folder, "linear", "original", "--tolerance", "0")  # the compiled form differs in the last bit
    first = frame[:ROWS]
    dv, simple = models["vectorizer"]
    wanted = {
        "vectorizer": simple.predict_proba(dv.transform(rows[:ROWS]))[:, 1].tolist(),
        **{name: models[name].predict_proba(first)[:, 1].tolist() for name in ("linear", "forest")},
    }
    made = Workload(folder, rows[:ROWS], wanted)
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made.rows), "utf-8")
    for name, wire in WIRES.items():
        for together in (1, TOGETHER):
            asked = [wire.ask([made.rows[row] for row in window]) for window in made.windows(together)]
            made.bodies(name, together).write_text("".join(json.dumps(each) + "\n" for each in asked), "utf-8")
    return made


def customers() -> Any:
    """Give the demo's customers as a course notebook would clean them: 16 columns of words and 3 numbers."""
    import pandas as pd

    frame = pd.read_csv(io.StringIO(churn_csv(random.Random(0))))
    frame.columns = frame.columns.str.lower()
    frame = frame.drop(columns=[name for name in frame.columns if name == "customerid"])
    frame["totalcharges"] = pd.to_numeric(frame["totalcharges"], errors="coerce").fillna(0)
    frame["seniorcitizen"] = frame["seniorcitizen"].map({0: "no", 1: "yes"})
    for name in frame.columns:
        if not pd.api.types.is_numeric_dtype(frame[name]):
            frame[name] = frame[name].str.lower().str.replace(" ", "_")
    return frame


def _models(frame: Any, rows: Rows, churned: Any) -> dict[str, Any]:
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.feature_extraction import DictVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    words = [name for name in frame.columns if name not in NUMBERS]

    def prepared() -> Any:
        encoder = OneHotEncoder(handle_unknown="ignore")
        return ColumnTransformer([("words", encoder, words), ("numbers", StandardScaler(), list(NUMBERS))])

    dv = DictVectorizer(sparse=False)
    return {
        "vectorizer": (dv, LogisticRegression(max_iter=2000).fit(dv.fit_transform(rows), churned)),
        "linear": make_pipeline(prepared(), LogisticRegression(max_iter=2000)).fit(frame, churned),
        "forest": make_pipeline(prepared(), RandomForestClassifier(100, max_depth=12, random_state=0)).fit(
            frame, churned
        ),
    }


def _pack(folder: Path, model: str, name: str, *words: str) -> None:
    command = [sys.executable, "-m", "ketch", "pack", f"{model}.bin", "--target", "churn", "-o", f"{name}.ketch"]
    subprocess.run([*command, *words], cwd=folder, env=environment(folder), check=True, stdout=subprocess.DEVNULL)


def environment(folder: Path, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Give what every server runs with: its own home, one thread for each library, nobody told of it."""
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    quiet = {"BENTOML_DO_NOT_TRACK": "True", "MLFLOW_DISABLE_TELEMETRY": "true", "RAY_USAGE_STATS_ENABLED": "0"}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KETCH_")}
    homes = {"KETCH_HOME": str(folder / "home"), "BENTOML_HOME": str(folder / "bentoml")}
    return {**kept, **threads, **quiet, **homes, "DO_NOT_TRACK": "1", **(extra or {})}
