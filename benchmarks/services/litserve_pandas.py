"""LitServe: python litserve_pandas.py PORT MOST; MOST above 1 turns its batching on."""

import os
import pickle
import sys

import litserve
import pandas as pd


class Churn(litserve.LitAPI):
    def setup(self, device):
        with open(os.environ["MODEL"], "rb") as file:
            self.model = pickle.load(file)

    def decode_request(self, request):
        return request if isinstance(request, list) else [request]

    def batch(self, inputs):
        self.sizes = [len(each) for each in inputs]
        return [row for each in inputs for row in each]

    def predict(self, rows):
        return [float(each) for each in self.model.predict_proba(pd.DataFrame(rows))[:, 1]]

    def unbatch(self, output):
        rest = iter(output)
        return [[next(rest) for _ in range(size)] for size in self.sizes]

    def encode_response(self, output):
        answers = [{"churn": each >= 0.5, "churn_probability": each} for each in output]
        return answers if len(answers) > 1 else answers[0]


if __name__ == "__main__":
    port, most = int(sys.argv[1]), int(sys.argv[2])
    api = Churn(max_batch_size=most, batch_timeout=0.005) if most > 1 else Churn()
    server = litserve.LitServer(api, accelerator="cpu")
    server.run(host="127.0.0.1", port=port, generate_client_file=False, log_level="error")
