# about: column transformer for mixed types, by name and by kind of column, then a grid search over the whole pipeline
# trap: np.random.seed(0) once, and two splits without random_state: the second (kept) one depends on the first having drawn from the same global generator
# follows: https://github.com/scikit-learn/scikit-learn examples/compose/plot_column_transformer_mixed_types.py
# saves: model.pkl
# keeps: np.random.seed(0) | X_train, X_test, y_train, y_test = train_test_split | X_train, X_valid, y_train, y_valid = train_test_split | X = X[subset_feature] | joblib.dump(grid_search.best_estimator_, 'model.pkl')
# drops: cv_results | set_config | model score | X.info | ax.barh | best parameters
# data: customers.csv

# %% [markdown]
# # Column transformer with mixed types
#
# Numbers are filled and scaled, categories are one-hot encoded, and both go into one pipeline with the classifier.

# %%
import numpy as np
import pandas as pd
import joblib

from sklearn import set_config
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import Pipeline
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import StandardScaler, OneHotEncoder
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split, GridSearchCV

np.random.seed(0)

# %%
data = pd.read_csv("customers.csv", na_values=[" "])
X = data.drop(columns=["customerID", "Churn"])
y = (data["Churn"] == "Yes").astype(int)
X.head()

# %%
X.isna().sum()[lambda s: s > 0]

# %% [markdown]
# ## Columns selected by name
#
# Numeric features: `tenure`, `TotalCharges`. Categorical features: `Contract`, `InternetService`, `SeniorCitizen`.

# %%
numeric_features = ["tenure", "TotalCharges"]
numeric_transformer = Pipeline(
    steps=[("imputer", SimpleImputer(strategy="median")), ("scaler", StandardScaler())]
)

categorical_features = ["Contract", "InternetService", "SeniorCitizen"]
categorical_transformer = OneHotEncoder(handle_unknown="ignore")

preprocessor = ColumnTransformer(
    transformers=[
        ("num", numeric_transformer, numeric_features),
        ("cat", categorical_transformer, categorical_features),
    ]
)

# %%
# the full prediction pipeline
clf = Pipeline(
    steps=[("preprocessor", preprocessor), ("classifier", LogisticRegression())]
)

X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.2)

clf.fit(X_train, y_train)
print("model score: %.3f" % clf.score(X_test, y_test))

# %%
set_config(display="diagram")
clf

# %%
import matplotlib.pyplot as plt

names = clf.named_steps["preprocessor"].get_feature_names_out()
weights = clf.named_steps["classifier"].coef_[0]
fig, ax = plt.subplots(figsize=(6, 4))
ax.barh(names, weights)
_ = ax.set_title("Weights of the first model")

# %% [markdown]
# ## Columns selected by their type
#
# First keep a smaller set of columns.

# %%
subset_feature = [
    "Contract", "InternetService", "PaymentMethod", "tenure", "MonthlyCharges", "TotalCharges",
]
X = X[subset_feature]

# %%
X.info()

# %%
from sklearn.compose import make_column_selector as selector

# text columns are what is not a number here
preprocessor = ColumnTransformer(
    transformers=[
        ("num", numeric_transformer, selector(dtype_include="number")),
        ("cat", categorical_transformer, selector(dtype_exclude="number")),
    ]
)
clf = Pipeline(
    steps=[("preprocessor", preprocessor), ("classifier", LogisticRegression())]
)

# %%
X_train, X_valid, y_train, y_valid = train_test_split(X, y, test_size=0.2)

clf.fit(X_train, y_train)
print("model score: %.3f" % clf.score(X_valid, y_valid))

# %%
selector(dtype_exclude="number")(X_train)

# %% [markdown]
# ## The pipeline in a grid search

# %%
param_grid = {
    "preprocessor__num__imputer__strategy": ["mean", "median"],
    "classifier__C": [0.1, 1.0, 10],
}

grid_search = GridSearchCV(clf, param_grid, cv=4)
grid_search.fit(X_train, y_train)

# %%
print("best parameters:")
print(grid_search.best_params_)
print(f"internal CV score: {grid_search.best_score_:.3f}")

# %%
cv_results = pd.DataFrame(grid_search.cv_results_)
cv_results = cv_results.sort_values("mean_test_score", ascending=False)
cv_results[["mean_test_score", "std_test_score", "param_classifier__C"]].head()

# %%
joblib.dump(grid_search.best_estimator_, 'model.pkl')

# %%
print(
    "accuracy of the best pipeline on data it has not seen: "
    f"{grid_search.score(X_valid, y_valid):.3f}"
)
