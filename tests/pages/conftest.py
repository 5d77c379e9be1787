"""Models of every kind that people ask, each packed once, and one browser for all."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from catboost import CatBoostRegressor
from playwright.sync_api import Browser, sync_playwright
from sklearn.ensemble import (
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier
from xgboost import XGBClassifier

import ketch
from ketch.predict import Predictor, load
from tests.models import customers, encoding, prices, species, table, yes_or_no
from tests.pages.browser import ARGUMENTS, program

POSITIVE = {"text": "angry"}
WORDS = "bad slow broken refund angry never good fast lovely thanks great always".split()


@dataclass(frozen=True)
class Packed:
    """A bundle, what answers it in Python, and rows to ask."""

    path: Path
    predictor: Predictor
    rows: list[dict[str, Any]]


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """One browser; each test visits in a context of its own."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program(), args=list(ARGUMENTS))
        yield browser
        browser.close()


class Shelf:
    """Packs a model when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: dict[str, Packed] = {}

    def __call__(self, name: str) -> Packed:
        """Give a model by its name."""
        if name not in self._made:
            model, data, target, asked = getattr(self, f"_{name}")()
            path = self._folder / f"{name}.ketch"
            ketch.pack(model, str(path), name=name, target=target, data=data, positive=POSITIVE.get(name))
            self._made[name] = Packed(path, load(str(path), home=self._folder / "home"), asked)
        return self._made[name]

    def _of_table(self, end: Any, answers: list[Any], target: str) -> tuple[Any, Any, str, list[dict[str, Any]]]:
        model = make_pipeline(encoding(), end).fit(table(), answers)
        return model, table().assign(**{target: answers}), target, more_rows()

    def _binary(self) -> Any:
        return self._of_table(LogisticRegression(), yes_or_no(), "churn")

    def _tree(self) -> Any:
        return self._of_table(DecisionTreeClassifier(max_depth=6, random_state=0), yes_or_no(), "churn")

    def _multiclass(self) -> Any:
        return self._of_table(RandomForestClassifier(40, random_state=0), species(), "species")

    def _regression(self) -> Any:
        return self._of_table(GradientBoostingRegressor(random_state=0), prices(), "price")

    def _boosting(self) -> Any:
        return self._of_table(GradientBoostingClassifier(random_state=0), species(), "species")

    def _histogram(self) -> Any:
        frame = table()[["tenure", "fee"]].astype(float)
        frame.loc[::9, "fee"] = np.nan
        model = HistGradientBoostingClassifier(random_state=0).fit(frame, yes_or_no())
        asked = [
            {"tenure": float(each["tenure"]), **({} if at % 5 == 0 else {"fee": each["fee"]})}
            for at, each in enumerate(more_rows())
        ]
        return model, frame.assign(churn=yes_or_no()), "churn", asked

    def _extreme(self) -> Any:
        return self._of_table(XGBClassifier(n_estimators=60, max_depth=3, n_jobs=1), yes_or_no(), "churn")

    def _catboost(self) -> Any:
        model = CatBoostRegressor(iterations=100, depth=3, verbose=0, allow_writing_files=False, thread_count=1)
        model.fit(frame := table()[["tenure", "fee"]].astype(float), prices())
        asked = [{"tenure": float(each["tenure"]), "fee": each["fee"]} for each in more_rows()]
        return model, frame.assign(price=prices()), "price", asked

    def _neighbours(self) -> Any:
        return self._of_table(KNeighborsClassifier(5), species(), "species")

    def _network(self) -> Any:
        return self._of_table(MLPClassifier((8,), max_iter=800, random_state=0), yes_or_no(), "churn")

    def _text(self) -> Any:
        source = random.Random(3)
        texts = [" ".join(source.choices(WORDS, k=8)) for _ in range(300)]
        said = ["angry" if text.count("bad") + text.count("angry") > 1 else "calm" for text in texts]
        model = make_pipeline(
            TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, strip_accents="unicode"), LogisticRegression()
        )
        model.fit(texts, said)
        strange = [
            "",
            "Bád çalm ANGRY",
            "bad bad_bad x 12 ½ 漢字 ß ﬁne",
            "İstanbul bad\u00a0angry",
            "never…good—angry!",
        ]
        asked = [{"note": text} for text in [*strange, *(" ".join(source.choices(WORDS, k=9)) for _ in range(995))]]
        return model, pd.DataFrame({"note": texts, "mood": said}), "mood", asked

    def _wide(self) -> Any:
        source = np.random.default_rng(1)
        frame = pd.DataFrame(source.normal(size=(300, 200)), columns=[f"sensor_{at:03d}" for at in range(200)])
        answers = (frame["sensor_000"] + frame["sensor_001"] > 0).astype(int)
        model = make_pipeline(StandardScaler(), LogisticRegression()).fit(frame, answers)
        return model, frame.assign(fault=answers), "fault", frame.to_dict("records")


def more_rows(n: int = 1000) -> list[dict[str, Any]]:
    """Give rows like those of the training data, and others; whoever asks may change them."""
    return [dict(row) for row in customers(n, 11)]


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    """All models, packed when they are first asked for."""
    return Shelf(tmp_path_factory.mktemp("shelf"))
