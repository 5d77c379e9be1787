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
    customer = request.get_json()
    probability = model.predict_proba(pd.DataFrame([customer]))[0, 1]
    return jsonify({"churn": bool(probability >= 0.5), "churn_probability": float(probability)})
