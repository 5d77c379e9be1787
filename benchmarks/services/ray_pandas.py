"""Ray Serve: python ray_pandas.py PORT FOLDER MOST; MOST above 1 turns its request batching on."""

import os
import pickle
import sys

import pandas as pd
import ray
from ray import serve
from starlette.requests import Request


def load():
    with open(os.environ["MODEL"], "rb") as file:
        return pickle.load(file)


def answers(model, rows):
    probabilities = model.predict_proba(pd.DataFrame(rows))[:, 1].tolist()
    return [{"churn": each >= 0.5, "churn_probability": each} for each in probabilities]


@serve.deployment
class Churn:
    def __init__(self):
        self.model = load()

    async def __call__(self, request: Request):
        asked = await request.json()
        return answers(self.model, asked) if isinstance(asked, list) else answers(self.model, [asked])[0]


@serve.deployment(max_ongoing_requests=100)
class Batching:
    def __init__(self):
        self.model = load()

    @serve.batch(max_batch_size=16, batch_wait_timeout_s=0.005)
    async def ask(self, rows):
        return answers(self.model, rows)

    async def __call__(self, request: Request):
        return await self.ask(await request.json())


if __name__ == "__main__":
    port, folder, most = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    ray.init(include_dashboard=False, num_cpus=2, _temp_dir=folder)
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run((Batching if most > 1 else Churn).bind(), blocking=True)
