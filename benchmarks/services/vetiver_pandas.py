"""Vetiver: a model with a prototype of its rows; it answers with classes."""

import json
import os
import pickle

import pandas as pd
from vetiver import VetiverAPI, VetiverModel

with open(os.environ["MODEL"], "rb") as file:
    model = pickle.load(file)
with open(os.environ["ROWS"], encoding="utf-8") as file:
    prototype = pd.DataFrame([json.loads(file.readline())])

app = VetiverAPI(VetiverModel(model, "churn", prototype_data=prototype), check_prototype=True).app
