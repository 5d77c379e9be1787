"""Texts are cut, counted and weighed as scikit-learn's vectorizers do it."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfVectorizer

from ketch.compiler.build import Build
from ketch.compiler.texts import count_vectorizer, hashing_vectorizer, tfidf_vectorizer
from ketch.schema import Field
from ketch.tokens import Text, require_sense, tokenizer
from tests.test_compiler_texts import TEXTS, raw

ODD = "İstanbul straße ﬁne"
FORMS = [
    CountVectorizer(),
    CountVectorizer(binary=True, ngram_range=(1, 3), lowercase=False),
    CountVectorizer(analyzer="char", ngram_range=(2, 4)),
    CountVectorizer(analyzer="char_wb", ngram_range=(1, 6), strip_accents="ascii"),
    CountVectorizer(token_pattern=r"(?u)\b(\w)\w*\b", ngram_range=(2, 2)),
    TfidfVectorizer(strip_accents="unicode", stop_words="english"),
    TfidfVectorizer(sublinear_tf=True, norm="l1", ngram_range=(1, 2)),
    TfidfVectorizer(use_idf=False, norm=None),
    HashingVectorizer(n_features=32),
    HashingVectorizer(n_features=32, binary=True, norm="l1"),
    HashingVectorizer(n_features=32, alternate_sign=False, norm=None),
]
LOWERINGS = {
    "CountVectorizer": count_vectorizer,
    "TfidfVectorizer": tfidf_vectorizer,
    "HashingVectorizer": hashing_vectorizer,
}


def text_of(vectorizer: Any) -> Text:
    made = LOWERINGS[type(vectorizer).__name__](Build([Field("text", "text")]), vectorizer, raw("text"))
    text = made.columns[0].text
    assert isinstance(text, Text)
    return text


@pytest.fixture(scope="module", params=FORMS, ids=str)
def both(request: pytest.FixtureRequest) -> Any:
    vectorizer = request.param.fit(TEXTS)
    text = text_of(vectorizer)
    return vectorizer, text, tokenizer(text)


PIECES = st.one_of(st.sampled_from(" ".join([*TEXTS, ODD]).split(" ")), st.text(max_size=6))


@pytest.mark.packing
@settings(max_examples=50)
@given(st.lists(PIECES, max_size=12).map(" ".join))
def test_a_text_is_counted_as_the_original_counts_it(both: Any, text: str) -> None:
    vectorizer, part, cut = both
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        return  # half a letter is no text, and no JSON holds it
    wanted = vectorizer.transform([text]).toarray()[0]
    found = np.zeros(part.width)
    places = [place for place, _ in cut(text)]
    assert len(places) == len(set(places))
    for place, weight in cut(text):
        found[place] = weight
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    "wrong",
    [
        {"pattern": "("},
        {"analyzer": "sentence"},
        {"accents": "all"},
        {"norm": "l3"},
        {"ngrams": (2, 1)},
        {"ngrams": (0, 1)},
        {"vocabulary": {"a": 3}},
        {"idf": (1.0,)},
        {"width": 0},
    ],
    ids=str,
)
def test_settings_that_do_not_fit_are_found_when_a_bundle_is_opened(wrong: dict[str, Any]) -> None:
    require_sense(Text("text", 3))
    with pytest.raises(ValueError, match="text"):
        require_sense(Text(**{"field": "text", "width": 3, **wrong}))
