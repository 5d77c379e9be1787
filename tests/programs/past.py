"""Fits small models and writes them with their answers, in whatever scikit-learn runs it: past.py FOLDER."""

import json
import pickle
import random
import sys
import warnings
from pathlib import Path

import joblib
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import AdaBoostClassifier, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.feature_extraction import DictVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

warnings.simplefilter("ignore")
SHOWN = 24  # rows whose answers are written down
folder = Path(sys.argv[1])
chance = random.Random(3)
rows = [
    {
        "contract": chance.choice(["monthly", "yearly", "two-year"]),
        "tenure": float(chance.randint(0, 24)),
        "charges": float(chance.randint(18, 60)),
    }
    for _ in range(80)
]
churn = [int(row["contract"] == "monthly" and row["tenure"] + chance.random() * 12 < 18) for row in rows]
band = [("low", "middle", "high")[int(row["charges"] // 20) - (row["charges"] == 60)] for row in rows]
frame = pd.DataFrame(rows)
gaps = frame.assign(tenure=frame["tenure"].where(frame.index % 5 != 0))
numbers = frame[["tenure", "charges"]]
encode = ColumnTransformer(
    [("words", OneHotEncoder(handle_unknown="ignore"), ["contract"]), ("rest", "passthrough", ["charges"])],
    remainder=make_pipeline(SimpleImputer(), StandardScaler()),
)
dv = DictVectorizer(sparse=False)

models = {
    "logistic": (LogisticRegression(), numbers, churn),
    "each_alone": (LogisticRegression(solver="liblinear"), numbers, band),
    "forest": (RandomForestClassifier(3, max_depth=3, random_state=0), numbers, churn),
    "boosting": (HistGradientBoostingClassifier(max_iter=3, max_leaf_nodes=5, random_state=0), gaps[["tenure"]], churn),
    "columns": (make_pipeline(encode, LogisticRegression()), gaps, churn),
    "dictionaries": (make_pipeline(DictVectorizer(), LogisticRegression()), rows, churn),
    "pair": (LogisticRegression(), dv.fit_transform(rows), churn),
    "gone": (AdaBoostClassifier(n_estimators=2, random_state=0), numbers, churn),
}
answers = {}
for name, (model, given, truth) in models.items():
    model.fit(given, truth)
    shown = given[:SHOWN]
    answers[name] = {"labels": model.predict(shown).tolist(), "probabilities": model.predict_proba(shown).tolist()}
    saved = (dv, model) if name == "pair" else model
    if name == "columns":
        joblib.dump(saved, folder / "columns.pkl", compress=3)
    else:
        (folder / (name + ".pkl")).write_bytes(pickle.dumps(saved, protocol=4))
with_gaps = [None if row % 5 == 0 else each["tenure"] for row, each in enumerate(rows)]
told = {"rows": rows[:SHOWN], "with_gaps": with_gaps[:SHOWN], "answers": answers}
(folder / "answers.json").write_text(json.dumps(told) + "\n")
