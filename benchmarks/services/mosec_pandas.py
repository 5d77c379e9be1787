"""Mosec: python mosec_pandas.py --port PORT; with MOST in the environment above 1, its dynamic batching is on."""

import os
import pickle

import pandas as pd
from mosec import Server, Worker

MOST = int(os.environ.get("MOST", "1"))


class Churn(Worker):
    def __init__(self):
        super().__init__()
        with open(os.environ["MODEL"], "rb") as file:
            self.model = pickle.load(file)

    def answers(self, rows):
        probabilities = self.model.predict_proba(pd.DataFrame(rows))[:, 1].tolist()
        return [{"churn": each >= 0.5, "churn_probability": each} for each in probabilities]

    def forward(self, data):
        if MOST > 1:  # then a list of requests comes, each a customer
            return self.answers(data)
        return self.answers(data) if isinstance(data, list) else self.answers([data])[0]


if __name__ == "__main__":
    server = Server()
    server.append_worker(Churn, num=1, max_batch_size=MOST, max_wait_time=5)
    server.run()
