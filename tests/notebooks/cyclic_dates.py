# about: features of time from dates: month and weekday of signing as sine and cosine, inside a pipeline with FunctionTransformer
# trap: the pipeline holds functions of the notebook, two levels down; the maker of the transformer is defined twice, the first time with a lambda that cannot be pickled; dates come from tenure
# follows: https://github.com/scikit-learn/scikit-learn examples/applications/plot_cyclical_feature_engineering.py
# saves: model.pkl
# keeps: def sine_of(x, period): | def cosine_of(x, period): | kw_args={"period": period} | df["signed"] = SNAPSHOT | df["month"] = df["signed"].dt.month | cyclic_cossin_linear_pipeline.fit(X, y) | pickle.dump(cyclic_cossin_linear_pipeline
# drops: lambda x: | TimeSeriesSplit | def evaluate | hour_df | HistGradientBoosting | naive_linear_pipeline | plt. | colorbar
# data: customers.csv

# %% [markdown]
# # Time-related feature engineering
#
# When a customer signed is a point on a circle: December is next to January.
#
# ## A first look

# %%
import pickle

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

df = pd.read_csv("customers.csv")
df[["customerID", "tenure", "MonthlyCharges"]].head()

# %%
# the table was written on this day; tenure is in months
SNAPSHOT = pd.Timestamp("2024-06-28")
df["signed"] = SNAPSHOT - pd.to_timedelta(df["tenure"] * 30, unit="D")
df["month"] = df["signed"].dt.month
df["weekday"] = df["signed"].dt.weekday
df["year"] = df["signed"].dt.year

# %%
fig, ax = plt.subplots(figsize=(10, 3))
df.groupby("month")["MonthlyCharges"].mean().plot(ax=ax)
_ = ax.set(title="Average bill by month of signing", xlabel="month")

# %%
df["MonthlyCharges"].max()

# %%
# a share of the highest bill: errors are easier to read
y = df["MonthlyCharges"] / df["MonthlyCharges"].max()

fig, ax = plt.subplots(figsize=(10, 3))
y.hist(bins=30, ax=ax)
_ = ax.set(xlabel="Share of the highest bill", ylabel="Customers")

# %%
df["Contract"].value_counts()

# %%
categorical_columns = ["Contract", "InternetService", "StreamingTV"]
X = df[categorical_columns + ["month", "weekday", "year"]]
X.info()

# %% [markdown]
# ## Cross-validation by time

# %%
from sklearn.model_selection import TimeSeriesSplit, cross_validate

ts_cv = TimeSeriesSplit(n_splits=3, gap=10, test_size=150)
by_time = df["signed"].sort_values().index

def evaluate(model, X, y, cv):
    cv_results = cross_validate(model, X.loc[by_time], y.loc[by_time], cv=cv,
                                scoring=["neg_mean_absolute_error", "neg_root_mean_squared_error"])
    mae = -cv_results["test_neg_mean_absolute_error"]
    rmse = -cv_results["test_neg_root_mean_squared_error"]
    print(f"Mean Absolute Error:     {mae.mean():.3f} +/- {mae.std():.3f}")
    print(f"Root Mean Squared Error: {rmse.mean():.3f} +/- {rmse.std():.3f}")

# %% [markdown]
# ## Gradient boosting

# %%
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder

gbrt_pipeline = make_pipeline(
    ColumnTransformer([("categorical", OrdinalEncoder(), categorical_columns)], remainder="passthrough"),
    HistGradientBoostingRegressor(max_iter=20, random_state=0),
)
evaluate(gbrt_pipeline, X, y, cv=ts_cv)

# %% [markdown]
# ## Naive linear regression

# %%
from sklearn.linear_model import RidgeCV
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder

one_hot_encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
alphas = np.logspace(-3, 3, 13)
naive_linear_pipeline = make_pipeline(
    ColumnTransformer([("categorical", one_hot_encoder, categorical_columns)], remainder=MinMaxScaler()),
    RidgeCV(alphas=alphas),
)
evaluate(naive_linear_pipeline, X, y, cv=ts_cv)

# %% [markdown]
# ## Trigonometric features

# %%
from sklearn.preprocessing import FunctionTransformer

def sin_transformer(period):
    return FunctionTransformer(lambda x: np.sin(x / period * 2 * np.pi))

# %%
hour_df = pd.DataFrame(np.arange(26).reshape(-1, 1), columns=["hour"])
hour_df["hour_sin"] = sin_transformer(24).fit_transform(hour_df[["hour"]])["hour"]
hour_df.plot(x="hour")
_ = plt.title("Trigonometric encoding for the hour")

# %% [markdown]
# pickle cannot take a lambda, so with named functions:

# %%
def sine_of(x, period):
    return np.sin(x / period * 2 * np.pi)


def cosine_of(x, period):
    return np.cos(x / period * 2 * np.pi)


def sin_transformer(period):
    return FunctionTransformer(sine_of, kw_args={"period": period})


def cos_transformer(period):
    return FunctionTransformer(cosine_of, kw_args={"period": period})

# %%
fig, ax = plt.subplots(figsize=(4, 4))
sp = ax.scatter(sine_of(df["month"], 12), cosine_of(df["month"], 12), c=df["month"])
_ = fig.colorbar(sp)

# %%
cyclic_cossin_transformer = ColumnTransformer(
    transformers=[
        ("categorical", one_hot_encoder, categorical_columns),
        ("month_sin", sin_transformer(12), ["month"]),
        ("month_cos", cos_transformer(12), ["month"]),
        ("weekday_sin", sin_transformer(7), ["weekday"]),
        ("weekday_cos", cos_transformer(7), ["weekday"]),
    ],
    # what is left is the year
    remainder=MinMaxScaler(),
)
cyclic_cossin_linear_pipeline = make_pipeline(
    cyclic_cossin_transformer,
    RidgeCV(alphas=alphas),
)
evaluate(cyclic_cossin_linear_pipeline, X, y, cv=ts_cv)

# %% [markdown]
# No better than the trees, but small and easy to explain. Train on everything and keep it.

# %%
cyclic_cossin_linear_pipeline.fit(X, y)
cyclic_cossin_linear_pipeline[-1].alpha_

# %%
with open("model.pkl", "wb") as f:
    pickle.dump(cyclic_cossin_linear_pipeline, f)

# %%
today = pd.DataFrame([{"Contract": "One year", "InternetService": "DSL", "StreamingTV": "No",
                       "month": 7, "weekday": 0, "year": 2024}])
cyclic_cossin_linear_pipeline.predict(today) * df["MonthlyCharges"].max()
