"""The usual hand-written service: Flask, one pickle with a DictVectorizer and a LogisticRegression."""

import os
import pickle

from flask import Flask, jsonify, request

with open(os.environ["MODEL"], "rb") as file:
    dv, model = pickle.load(file)

app = Flask("churn")


@app.route("/predict", methods=["POST"])
def predict():
    customer = request.get_json()
    X = dv.transform([customer])
    probability = model.predict_proba(X)[0, 1]
    return jsonify({"churn": bool(probability >= 0.5), "churn_probability": float(probability)})
