# about: two transformers written in the notebook, used in a pipeline that is saved with joblib
# trap: classes defined in the notebook (pickled by reference to __main__), one of which calls a helper function and reads a global in fit/transform; two other classes are only for looking
# saves: churn_pipeline.joblib
# keeps: class ChargeFeatures | class RareToOther | def share_of | OTHER = 'other' | RareToOther(min_share= | joblib.dump(pipeline
# drops: class Report | class Stopwatch | @dataclass | matplotlib | by_share
# data: customers.csv

# %% [markdown]
# # Churn with own transformers

# %%
import time
from dataclasses import dataclass

import joblib
import numpy as np
import pandas as pd
import matplotlib.pyplot as plt
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

# %%
class Stopwatch:
    def __enter__(self):
        self.start = time.perf_counter()
        return self

    def __exit__(self, *exc):
        print(f'{time.perf_counter() - self.start:.2f} s')


@dataclass
class Report:
    name: str
    auc: float

    def __str__(self):
        return f'{self.name:12s} auc {self.auc:.3f}'

# %%
df = pd.read_csv('customers.csv')
df.head()

# %%
y = (df['Churn'] == 'Yes').astype(int)
y.mean()

# %%
for column in ['Contract', 'PaymentMethod', 'InternetService', 'MultipleLines']:
    table = pd.crosstab(df[column], y, normalize='index')
    print(table.round(3))
    print()

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3))
left.hist(df['tenure'], bins=30)
right.hist(df['MonthlyCharges'], bins=30)
left.set_title('tenure')
right.set_title('monthly charges')
plt.show()

# %%
df['PaymentMethod'].value_counts(normalize=True).plot(kind='barh')
plt.show()

# %% [markdown]
# ## Own transformers
# The pipeline is to take a row as it comes from the database.

# %%
OTHER = 'other'


def share_of(series):
    """Share of every value, in alphabetical order."""
    return series.value_counts(normalize=True).sort_index()


class RareToOther(TransformerMixin, BaseEstimator):
    """Values that are rare in the training rows become one value."""

    def __init__(self, columns=(), min_share=0.05):
        self.columns = columns
        self.min_share = min_share

    def fit(self, X, y=None):
        self.keep_ = {}
        for column in self.columns:
            shares = share_of(X[column])
            self.keep_[column] = [str(value) for value in shares[shares >= self.min_share].index]
        return self

    def transform(self, X):
        X = X.copy()
        for column, keep in self.keep_.items():
            X[column] = X[column].where(X[column].isin(keep), OTHER)
        return X

# %%
class ChargeFeatures(TransformerMixin, BaseEstimator):
    def fit(self, X, y=None):
        self.median_ = float(X['MonthlyCharges'].median())
        return self

    def transform(self, X):
        total = pd.to_numeric(X['TotalCharges'], errors='coerce').fillna(0)
        # above or below what the typical customer pays
        return X.assign(total=np.log1p(total), dear=X['MonthlyCharges'] / self.median_)

# %%
ChargeFeatures().fit_transform(df)[['total', 'dear']].describe()

# %%
seen = RareToOther(['PaymentMethod'], min_share=0.3).fit_transform(df)
seen['PaymentMethod'].value_counts()

# %%
by_share = {}
for share in [0.05, 0.2, 0.4]:
    trial = RareToOther(['PaymentMethod', 'Contract'], min_share=share).fit(df)
    by_share[share] = sum(len(keep) for keep in trial.keep_.values())
print(by_share)

# %%
categorical = ['Contract', 'PaymentMethod', 'InternetService', 'MultipleLines']
numerical = ['tenure', 'total', 'dear', 'SeniorCitizen']

pipeline = Pipeline([
    ('charges', ChargeFeatures()),
    ('rare', RareToOther(min_share=0.22, columns=tuple(categorical))),
    ('encode', ColumnTransformer([
        ('cat', OneHotEncoder(handle_unknown='ignore'), categorical),
        ('num', StandardScaler(), numerical),
    ])),
    ('clf', LogisticRegression(C=0.8, max_iter=1000)),
])

# %%
X_train, X_val, y_train, y_val = train_test_split(df, y, test_size=0.2, random_state=4)
with Stopwatch():
    print('rows:', len(X_train))

# %%
pipeline.fit(X_train, y_train)

# %%
for name, (X_part, y_part) in {'train': (X_train, y_train), 'validation': (X_val, y_val)}.items():
    print(Report(name, roc_auc_score(y_part, pipeline.predict_proba(X_part)[:, 1])))

# %%
joblib.dump(pipeline, 'churn_pipeline.joblib')
