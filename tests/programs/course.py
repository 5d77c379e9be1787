"""What a course notebook does on the Telco data: clean it, fit six kinds of model, save each as people do.

Usage: python course.py telco-customer-churn.csv FOLDER
"""

import json
import pickle
import sys
from pathlib import Path

import joblib
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction import DictVectorizer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

source, folder = sys.argv[1], Path(sys.argv[2])
df = pd.read_csv(source)
df.columns = df.columns.str.lower().str.replace(" ", "_")
strings = [name for name in df.columns if not pd.api.types.is_numeric_dtype(df[name])]
for name in strings:
    df[name] = df[name].str.lower().str.replace(" ", "_")
df.totalcharges = pd.to_numeric(df.totalcharges, errors="coerce").fillna(0)
df.churn = (df.churn == "yes").astype(int)

numerical = ["tenure", "monthlycharges", "totalcharges"]
categorical = [name for name in df.columns if name not in [*numerical, "customerid", "churn"]]
dicts = df[categorical + numerical].to_dict(orient="records")


def save(name, model):
    with open(folder / name, "wb") as file:
        pickle.dump(model, file)


def answers(name, inputs, values):
    (folder / f"{name}.json").write_text(json.dumps({"rows": inputs, "answers": values}))


# the course's own: DictVectorizer and LogisticRegression in one pickle, and in two files
dv = DictVectorizer(sparse=False)
model = LogisticRegression(solver="liblinear", C=1.0, max_iter=1000)
model.fit(dv.fit_transform(dicts), df.churn)
save("model.bin", (dv, model))
save("dv.bin", dv)
save("model1.bin", model)
answers("model", dicts, model.predict_proba(dv.transform(dicts))[:, 1].tolist())


def prepared(categories, numbers):
    return ColumnTransformer(
        [("cat", OneHotEncoder(handle_unknown="ignore"), categories), ("num", StandardScaler(), numbers)]
    )


X = df[categorical + numerical]
linear = make_pipeline(prepared(categorical, numerical), LogisticRegression(max_iter=1000)).fit(X, df.churn)
joblib.dump(linear, folder / "linear.joblib")
answers("linear", dicts, linear.predict_proba(X)[:, 1].tolist())

forest = make_pipeline(prepared(categorical, numerical), RandomForestClassifier(100, max_depth=12, random_state=1))
joblib.dump(forest.fit(X, df.churn), folder / "forest.joblib", compress=3)
answers("forest", dicts, forest.predict_proba(X)[:, 1].tolist())

rest = ["tenure", "totalcharges"]
price = make_pipeline(prepared(categorical, rest), Ridge()).fit(df[categorical + rest], df.monthlycharges)
save("price.pkl", price)
answers(
    "price",
    df[categorical + rest].to_dict(orient="records"),
    price.predict(df[categorical + rest]).tolist(),
)

others = [name for name in categorical if name != "contract"]
kind = make_pipeline(prepared(others, numerical), LogisticRegression(max_iter=1000))
kind.fit(df[others + numerical], df.contract)
save("kind.pkl", kind)
answers("kind", df[others + numerical].to_dict(orient="records"), kind.predict_proba(df[others + numerical]).tolist())

texts = [" ".join(f"{key} {value}" for key, value in row.items() if isinstance(value, str)) for row in dicts]
words = make_pipeline(TfidfVectorizer(), LogisticRegression(max_iter=1000)).fit(texts, df.churn)
save("words.pkl", words)
answers("words", [{"text": text} for text in texts], words.predict_proba(texts)[:, 1].tolist())
