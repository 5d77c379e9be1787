"""BentoML: a service with one API for a customer and one for many, and a second with its adaptive batching."""

import os
import pickle

import bentoml
import pandas as pd
from customer import Answer, Customer


def load():
    with open(os.environ["MODEL"], "rb") as file:
        return pickle.load(file)


def answers(model, customers: list[Customer]) -> list[Answer]:
    frame = pd.DataFrame([each.model_dump() for each in customers])
    return [Answer(churn=each >= 0.5, churn_probability=each) for each in model.predict_proba(frame)[:, 1]]


@bentoml.service
class Churn:
    def __init__(self) -> None:
        self.model = load()

    @bentoml.api
    def predict(self, customer: Customer) -> Answer:
        return answers(self.model, [customer])[0]

    @bentoml.api
    def predict_many(self, customers: list[Customer]) -> list[Answer]:
        return answers(self.model, customers)


@bentoml.service
class Batching:
    def __init__(self) -> None:
        self.model = load()

    @bentoml.api(batchable=True, max_batch_size=16, max_latency_ms=1000)
    def predict(self, customers: list[Customer]) -> list[Answer]:
        return answers(self.model, customers)
