"""Pipelines that read texts answer the same when they are compiled."""

import random
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import TruncatedSVD
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfTransformer, TfidfVectorizer
from sklearn.feature_selection import SelectKBest, chi2
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import MaxAbsScaler, Normalizer, StandardScaler

from ketch import program
from ketch.compiler import NotCompiled
from ketch.compiler.values import Blocks, Column
from tests.lowered import hold, lowered, named

WORDS = "the cat sat naïve ÉCOLE straße price 10 dollars can't  it's good bad great 北京 тест ok".split(" ")
TEXTS = ["", "  ", "a", "\n x\u00a0y", *(" ".join(random.Random(n).choices(WORDS, k=n % 13)) for n in range(150))]
TWO = ["yes" if "good" in text or "great" in text else "no" for text in TEXTS]
THREE = [["a", "b", "c"][len(text) % 3] for text in TEXTS]
TABLE = pd.DataFrame({"text": TEXTS})
ASKED = pd.DataFrame({"text": [*TEXTS[:40], "never seen", "GOOD good", "cat " * 300]})


def raw(name: str) -> Blocks:
    """Give a field of text as the compiler first sees it."""
    return Blocks((Column(name, keys=(), values=np.empty((0, 1), dtype=object)),), (name,))


def made_of(model: Any, target: Any) -> Any:
    """Compile a model of one text, which scikit-learn wants as a list."""
    return lowered(FromTable(model), TABLE, target)


class FromTable:
    """Fit on the one column of a table."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def fit(self, table: pd.DataFrame, target: Any) -> Any:
        return self.model.fit(table["text"].tolist(), target)


@pytest.mark.parametrize(
    "steps",
    [
        (CountVectorizer(ngram_range=(1, 2)),),
        (TfidfVectorizer(sublinear_tf=True),),
        pytest.param((HashingVectorizer(),), marks=pytest.mark.packing, id="hashed"),  # into a million columns
        (CountVectorizer(analyzer="char_wb", ngram_range=(2, 3)), TfidfTransformer()),
        (HashingVectorizer(n_features=64, norm=None, alternate_sign=False), TfidfTransformer(sublinear_tf=True)),
        (TfidfVectorizer(), SelectKBest(chi2, k=6)),
        (CountVectorizer(), StandardScaler(with_mean=False), SelectKBest(k=5)),
        (TfidfVectorizer(), MaxAbsScaler()),
        (TfidfVectorizer(), TruncatedSVD(4, random_state=0)),
        (
            FeatureUnion(
                [("w", TfidfVectorizer()), ("c", CountVectorizer(analyzer="char"))], transformer_weights={"c": 0.1}
            ),
        ),
    ],
    ids=named,
)
@pytest.mark.parametrize("target", [TWO, THREE], ids=["two", "three"])
def test_a_linear_model_of_texts_becomes_one_sum(steps: Any, target: Any) -> None:
    made = made_of(make_pipeline(*steps, LogisticRegression()), target)
    assert made.is_folded
    hold(made, ASKED)


@pytest.mark.parametrize(
    "model",
    [
        make_pipeline(TfidfVectorizer(), RandomForestClassifier(5, random_state=0)),
        make_pipeline(CountVectorizer(), Normalizer(), LogisticRegression()),
        make_pipeline(HashingVectorizer(n_features=64), TfidfTransformer(), LogisticRegression()),
        make_pipeline(CountVectorizer(), MultinomialNB()),
    ],
    ids=named,
)
def test_other_models_of_texts_answer_alike(model: Any) -> None:
    hold(made_of(model, THREE), ASKED)


def test_a_text_beside_other_columns() -> None:
    table = TABLE.assign(size=[float(len(text)) for text in TEXTS])
    encode = ColumnTransformer([("t", TfidfVectorizer(), "text"), ("n", StandardScaler(), ["size"])])
    made = lowered(make_pipeline(encode, Ridge()), table, table["size"] * 2)
    assert made.is_folded
    hold(made, table[:40])


@pytest.mark.packing
def test_a_wide_vocabulary_is_kept_small() -> None:
    made = made_of(make_pipeline(HashingVectorizer(n_features=2**20), LogisticRegression()), THREE)
    assert len(made.files[program.MEMBER]) < 10_000


def test_rows_are_cut_before_they_are_encoded() -> None:
    made = made_of(make_pipeline(HashingVectorizer(n_features=2**16), RandomForestClassifier(2)), TWO)
    assert 0 < made.program._at_once < 1000
    many = {"text": ["good cat", "bad"] * 400}
    assert made.program(many, 800).labels == made.program({"text": many["text"][:2]}, 2).labels * 400


@pytest.mark.parametrize(
    "vectorizer",
    [
        CountVectorizer(tokenizer=str.split, token_pattern=None),
        CountVectorizer(preprocessor=str.strip),
        CountVectorizer(analyzer=str.split),
        TfidfVectorizer(strip_accents=str.lower),
    ],
    ids=["tokenizer", "preprocessor", "analyzer", "accents"],
)
def test_functions_of_the_user_are_not_compiled(vectorizer: Any) -> None:
    with pytest.raises(NotCompiled, match=r"of its own|without a compiled form"):
        made_of(make_pipeline(vectorizer, LogisticRegression()), TWO)
