# about: sentiment of reviews: TF-IDF and naive Bayes in a pipeline, randomized search over both
# trap: a function of the notebook (with its own regex and dict from other cells) sits inside the vectorizer; the best parameters of the search are set on the pipeline that is fitted and saved
# follows: https://github.com/scikit-learn/scikit-learn examples/model_selection/plot_grid_search_text_feature_extraction.py
# saves: model.pkl
# keeps: SHORT = { | LINK = re.compile | def clean(text): | reviews = reviews[reviews["stars"] != 3] | search.fit(X_train, y_train) | pipeline.set_params(**best) | pipeline.fit(reviews["text"], reviews["positive"]) | pickle.dump(pipeline
# drops: CountVectorizer( | def top_words | perf_counter | cv_results | pprint( | shorten | plt.
# data: reviews.csv

# %% [markdown]
# # A pipeline for text and its parameters
#
# Reviews with one or two stars against those with four or five.

# %%
import re
import pickle
from pprint import pprint
from time import perf_counter

import numpy as np
import pandas as pd
import matplotlib.pyplot as plt

# %%
reviews = pd.read_csv("reviews.csv")
reviews.head()

# %%
reviews["stars"].value_counts().sort_index().plot.bar()
plt.show()

# %%
reviews["n_words"] = reviews["text"].str.split().str.len()
reviews.groupby("stars")["n_words"].mean()

# %%
# three stars say neither yes nor no
reviews = reviews[reviews["stars"] != 3].copy()
reviews["positive"] = (reviews["stars"] > 3).astype(int)
reviews["positive"].mean()

# %% [markdown]
# ## Words
#
# What do people write?

# %%
from sklearn.feature_extraction.text import CountVectorizer

def top_words(texts, n=10):
    counter = CountVectorizer(stop_words="english")
    counts = np.asarray(counter.fit_transform(texts).sum(axis=0)).ravel()
    return pd.Series(counts, index=counter.get_feature_names_out()).nlargest(n)

# %%
print(top_words(reviews.loc[reviews["positive"] == 1, "text"]))
print(top_words(reviews.loc[reviews["positive"] == 0, "text"]))

# %%
# "not" must not be lost in an apostrophe
SHORT = {
    "n't": " not",
    "'re": " are",
    "'ve": " have",
    "'m": " am",
}
LINK = re.compile(r"https?://\S+")

# %%
def clean(text):
    text = LINK.sub(" ", text.lower())
    for short, full in SHORT.items():
        text = text.replace(short, full)
    return text

clean("I don't like it, see https://example.com/why")

# %% [markdown]
# ## Pipeline with parameters to tune

# %%
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.naive_bayes import ComplementNB
from sklearn.pipeline import Pipeline

pipeline = Pipeline(
    [
        ("vect", TfidfVectorizer(preprocessor=clean)),
        ("clf", ComplementNB()),
    ]
)
pipeline

# %%
from sklearn.model_selection import train_test_split, RandomizedSearchCV

X_train, X_test, y_train, y_test = train_test_split(
    reviews["text"], reviews["positive"], test_size=0.25, random_state=0
)

# %%
parameters = {
    "vect__max_df": (0.5, 0.75, 1.0),
    "vect__min_df": (1, 3),
    # 'vect__max_features': (None, 5000, 10000),
    "vect__ngram_range": ((1, 1), (1, 2)),  # words, or words and pairs
    "clf__alpha": np.logspace(-2, 0, 9),
}

search = RandomizedSearchCV(pipeline, parameters, n_iter=8, cv=3, random_state=0)

# %%
print("parameters:")
pprint(parameters)
t0 = perf_counter()
search.fit(X_train, y_train)
print(f"done in {perf_counter() - t0:.3f}s")

# %%
best = {name: search.best_params_[name] for name in sorted(parameters)}
for name in best:
    print(f"{name}: {best[name]}")

# %%
print(f"in the search: {search.best_score_:.3f}")
print(f"on the test set: {search.score(X_test, y_test):.3f}")

# %%
def shorten(name):
    return name.rsplit("__", 1)[1] if "__" in name else name

cv_results = pd.DataFrame(search.cv_results_).rename(columns=shorten)
cv_results.sort_values("mean_test_score").head()

# %% [markdown]
# ## Train on all reviews

# %%
pipeline.set_params(**best)
pipeline.fit(reviews["text"], reviews["positive"])

# %%
with open("model.pkl", "wb") as out:
    pickle.dump(pipeline, out)

# %%
pipeline.predict_proba(["Great phone, works as it should.", "It isn't worth the money."])[:, 1]
