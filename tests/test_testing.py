"""The contract of adapters, applied to every adapter that ships."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from ketch.adapters import sklearn
from ketch.testing import AdapterContract, Row
from tests import models

PLAIN = [{"x0": row["tenure"], "x1": row["fee"]} for row in models.rows()[:10]]


class SklearnContract(AdapterContract):
    """What is common to the models of scikit-learn; one of them opens in a fresh process by default."""

    adapter = sklearn
    factory: Any
    probabilities = True

    @pytest.mark.packing
    def test_a_fresh_process_gives_the_same_answers(self, tmp_path: Path) -> None:
        super().test_a_fresh_process_gives_the_same_answers(tmp_path)

    def make_model(self) -> object:
        return models.joined(type(self).factory())

    def make_rows(self) -> Sequence[Row]:
        return models.rows()[:10]

    def table(self, rows: Sequence[Row]) -> Any:
        return pd.DataFrame([dict(row) for row in rows])

    def ask(self, model: Any, rows: Sequence[Row]) -> Sequence[Any]:
        table = self.table(rows)
        found = model.predict_proba(table) if self.probabilities else model.predict(table)
        return [*found.tolist()]


class TestEncoded(SklearnContract):
    factory = models.encoded
    test_a_fresh_process_gives_the_same_answers = AdapterContract.test_a_fresh_process_gives_the_same_answers

    def make_unfitted(self) -> object:
        return models.make_pipeline(models.encoding(), LogisticRegression())


class TestVectorized(SklearnContract):
    factory = models.vectorized

    def table(self, rows: Sequence[Row]) -> Any:
        return list(rows)


class TestForest(SklearnContract):
    factory = models.forest


class TestImputed(SklearnContract):
    factory = models.imputed

    def make_rows(self) -> Sequence[Row]:
        return [dict(row) | ({"fee": None} if place % 3 else {}) for place, row in enumerate(models.rows()[:10])]

    def table(self, rows: Sequence[Row]) -> Any:
        return pd.DataFrame([dict(row) for row in rows]).astype({"fee": float})


class TestRegression(SklearnContract):
    factory = models.transformed_target
    probabilities = False


class TestClusters(SklearnContract):
    factory = models.clusters
    probabilities = False

    def make_rows(self) -> Sequence[Row]:
        return PLAIN

    def table(self, rows: Sequence[Row]) -> Any:
        return pd.DataFrame([dict(row) for row in rows]).to_numpy()


class TestOutliers(TestClusters):
    factory = models.outliers


class TestScores(TestClusters):
    factory = models.linear_vectors


def test_a_contract_without_its_hooks_says_so() -> None:
    bare = AdapterContract()
    for ask in (bare.make_model, bare.make_rows, lambda: bare.ask(None, [])):
        with pytest.raises(NotImplementedError):
            ask()
