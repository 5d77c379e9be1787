"""Save a model in MLflow's format: python mlflow_save.py MODEL ROWS FOLDER."""

import json
import pickle
import sys
from pathlib import Path

import mlflow
import pandas as pd
from mlflow.models import infer_signature

with open(sys.argv[1], "rb") as file:
    model = pickle.load(file)
frame = pd.DataFrame([json.loads(line) for line in Path(sys.argv[2]).read_text("utf-8").splitlines()])
mlflow.sklearn.save_model(
    model,
    sys.argv[3],
    signature=infer_signature(frame, model.predict_proba(frame)),
    pyfunc_predict_fn="predict_proba",
    serialization_format="cloudpickle",
)
