"""Write the ONNX files in tests/graphs, and scikit-learn's own answers; needs skl2onnx, and protobuf < 7.

python tests/programs/graphs.py tests/graphs
"""

import json
import random
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from skl2onnx import to_onnx
from skl2onnx.common.data_types import (
    BooleanTensorType,
    DoubleTensorType,
    FloatTensorType,
    Int64TensorType,
    StringTensorType,
)
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    IsolationForest,
    RandomForestClassifier,
    VotingClassifier,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC, LinearSVC

warnings.simplefilter("ignore")
folder = Path(sys.argv[1])
source = random.Random(5)
rows = [
    {
        "contract": source.choice(["month", "year", "two years"]),
        "partner": source.choice(["yes", "no"]),
        "tenure": source.randint(0, 72),
        "fee": round(source.uniform(18, 120), 2),
        "late": source.random() < 0.3,
    }
    for _ in range(120)
]
table = pd.DataFrame(rows)
numbers = table[["tenure", "fee"]].to_numpy().astype(np.float32)
churn = [int((row["tenure"] < 30 and row["fee"] > 50) or row["contract"] == "month") for row in rows]
words = ["leave" if each else "stay" for each in churn]
species = [["setosa", "versicolor", "virginica"][row["tenure"] % 3] for row in rows]
price = [row["fee"] * 12.5 + row["tenure"] for row in rows]

two = [("X", FloatTensorType([None, 2]))]
columns = [
    ("contract", StringTensorType([None, 1])),
    ("partner", StringTensorType([None, 1])),
    ("tenure", Int64TensorType([None, 1])),
    ("fee", FloatTensorType([None, 1])),
    ("late", BooleanTensorType([None, 1])),
]
parts = [
    ("c", OneHotEncoder(handle_unknown="ignore"), ["contract", "partner"]),
    ("n", StandardScaler(), ["tenure", "fee"]),
    ("p", "passthrough", ["late"]),
]
answers = {}


def save(name, model, types=two, *, plain=True, asked="predict_proba"):
    options = {id(model): {"zipmap": False}} if plain and hasattr(model, "predict_proba") else None
    graph = to_onnx(model, initial_types=types, options=options, target_opset={"": 17, "ai.onnx.ml": 3})
    (folder / f"{name}.onnx").write_bytes(graph.SerializeToString())
    given = table if types is columns else numbers
    answers[name] = np.asarray(getattr(model, asked)(given))[:20].tolist()


encoded = make_pipeline(ColumnTransformer(parts), LogisticRegression()).fit(table, churn)
save("columns", encoded, columns, plain=False)
save("columns_plain", encoded, columns)
save("words", LogisticRegression().fit(numbers, words), plain=False)
save("words_plain", LogisticRegression().fit(numbers, words))
save("doubles", LogisticRegression().fit(numbers.astype(float), churn), [("X", DoubleTensorType([None, 2]))])
save("forest", RandomForestClassifier(5, max_depth=3, random_state=0).fit(numbers, species))
save("boosted", HistGradientBoostingClassifier(max_iter=5).fit(numbers, churn))
save(
    "network", make_pipeline(StandardScaler(), MLPClassifier((16,), max_iter=50, random_state=0)).fit(numbers, species)
)
save("neighbours", KNeighborsClassifier(3).fit(numbers[:30], species[:30]))
both = [("a", LogisticRegression()), ("b", RandomForestClassifier(3, max_depth=2, random_state=0))]
save("voting", VotingClassifier(both, voting="soft", flatten_transform=False).fit(numbers, words))
save("vectors", make_pipeline(StandardScaler(), SVC()).fit(numbers[:40], words[:40]), asked="decision_function")
save("linear_vectors", LinearSVC(max_iter=100_000).fit(numbers, species), asked="decision_function")
save("regression", LinearRegression().fit(numbers, price), asked="predict")
imputed = make_pipeline(SimpleImputer(), GradientBoostingRegressor(n_estimators=5)).fit(numbers, price)
save("imputed", imputed, asked="predict")
save("clusters", KMeans(3, n_init=1, random_state=0).fit(numbers), asked="predict")
outliers = IsolationForest(n_estimators=2, max_samples=16, random_state=0).fit(numbers)
save("outliers", outliers, asked="decision_function")
(folder / "answers.json").write_text(json.dumps({"rows": rows[:20], "answers": answers}, indent=1))
