"""The usual hand-written service: Flask, one pickle with a pipeline that takes a DataFrame."""

import os
import pickle

import pandas as pd
from flask import Flask, jsonify, request

with open(os.environ["MODEL"], "rb") as file:
    model = pickle.load(file)

app = Flask("churn")


@app.route("/predict", methods=["POST"])
def predict():
    asked = request.get_json()
    customers = asked if isinstance(asked, list) else [asked]
    probabilities = model.predict_proba(pd.DataFrame(customers))[:, 1]
    answers = [{"churn": bool(each >= 0.5), "churn_probability": float(each)} for each in probabilities]
    return jsonify(answers if isinstance(asked, list) else answers[0])
