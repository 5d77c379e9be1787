"""FastAPI with pydantic models, as its tutorial shows."""

import os
import pickle

import pandas as pd
from customer import Answer, Customer
from fastapi import FastAPI

with open(os.environ["MODEL"], "rb") as file:
    model = pickle.load(file)

app = FastAPI()


def answers(customers: list[Customer]) -> list[Answer]:
    frame = pd.DataFrame([each.model_dump() for each in customers])
    return [Answer(churn=each >= 0.5, churn_probability=each) for each in model.predict_proba(frame)[:, 1]]


@app.post("/predict")
def predict(customer: Customer) -> Answer:
    return answers([customer])[0]


@app.post("/predict-many")
def predict_many(customers: list[Customer]) -> list[Answer]:
    return answers(customers)
