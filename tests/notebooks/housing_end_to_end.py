# about: an end-to-end housing project: functions, stratified split, exploration, custom transformer, grid search, preparation and predictor saved as one
# trap: the helper column of the stratified split is dropped in place through a loop over a tuple of frames; housing is explored, given extra columns and then bound anew; the transformer class reads indices from notebook variables
# follows: https://github.com/ageron/handson-ml2 02_end_to_end_machine_learning_project.ipynb
# saves: my_model.pkl
# keeps: def load_housing_data | StratifiedShuffleSplit( | set_.drop("area_cat", axis=1, inplace=True) | housing = strat_train_set.drop("price", axis=1) | class CombinedAttributesAdder | area_ix, rooms_ix, age_ix | grid_search.fit(housing_prepared, housing_labels) | joblib.dump(my_model, "my_model.pkl")
# drops: def split_train_test | def fetch_housing_data | crc32 | save_fig | corr_matrix | price_per_area | display_scores | tree_reg | lin_reg
# data: houses.csv

# %% [markdown]
# # Chapter 2: houses, end to end
#
# *The task: tell the price of a house from what its owner can say about it.*
#
# ## Setup

# %%
import sys
assert sys.version_info >= (3, 5)

import numpy as np
import os

%matplotlib inline
import matplotlib as mpl
import matplotlib.pyplot as plt
mpl.rc('axes', labelsize=14)
mpl.rc('xtick', labelsize=12)

# where to save the figures
IMAGES_PATH = os.path.join("images", "end_to_end_project")
os.makedirs(IMAGES_PATH, exist_ok=True)

def save_fig(fig_id, tight_layout=True, fig_extension="png"):
    path = os.path.join(IMAGES_PATH, fig_id + "." + fig_extension)
    if tight_layout:
        plt.tight_layout()
    plt.savefig(path, format=fig_extension)

# %% [markdown]
# ## Get the data

# %%
import tarfile
import urllib.request

HOUSING_PATH = "."
HOUSING_URL = "https://example.com/datasets/housing/houses.tgz"

def fetch_housing_data(housing_url=HOUSING_URL, housing_path=HOUSING_PATH):
    tgz_path = os.path.join(housing_path, "houses.tgz")
    urllib.request.urlretrieve(housing_url, tgz_path)
    with tarfile.open(tgz_path) as housing_tgz:
        housing_tgz.extractall(path=housing_path)

# %%
import pandas as pd

def load_housing_data(housing_path=HOUSING_PATH):
    csv_path = os.path.join(housing_path, "houses.csv")
    housing = pd.read_csv(csv_path)
    # nobody wrote down whether there is a garden: that is an answer of its own
    housing["garden"] = housing["garden"].fillna("missing")
    return housing

# %%
housing = load_housing_data()
housing.head()

# %%
housing.info()

# %%
housing.hist(bins=30, figsize=(10, 6))
save_fig("attribute_histogram_plots")
plt.show()

# %% [markdown]
# ## Create a test set

# %%
def split_train_test(data, test_ratio):
    shuffled_indices = np.random.permutation(len(data))
    test_set_size = int(len(data) * test_ratio)
    return data.iloc[shuffled_indices[test_set_size:]], data.iloc[shuffled_indices[:test_set_size]]

train_set, test_set = split_train_test(housing, 0.2)
len(train_set), len(test_set)

# %%
from zlib import crc32

def test_set_check(identifier, test_ratio):
    return crc32(np.int64(identifier)) & 0xffffffff < test_ratio * 2**32

# %%
# area matters most, so every part should have small and large houses alike
housing["area_cat"] = pd.qcut(housing["area"], 5, labels=[1, 2, 3, 4, 5])
housing["area_cat"].value_counts()

# %%
from sklearn.model_selection import StratifiedShuffleSplit

split = StratifiedShuffleSplit(n_splits=1, test_size=0.2, random_state=42)
for train_index, test_index in split.split(housing, housing["area_cat"]):
    strat_train_set = housing.loc[train_index]
    strat_test_set = housing.loc[test_index]

# %%
strat_test_set["area_cat"].value_counts() / len(strat_test_set)

# %%
for set_ in (strat_train_set, strat_test_set):
    set_.drop("area_cat", axis=1, inplace=True)

# %% [markdown]
# ## Look at the data

# %%
housing = strat_train_set.copy()

housing.plot(kind="scatter", x="area", y="price", alpha=0.3)
save_fig("area_price")

# %%
housing["price_per_area"] = housing["price"] / housing["area"]
housing["area_per_room"] = housing["area"] / housing["rooms"]

corr_matrix = housing.corr(numeric_only=True)
corr_matrix["price"].sort_values(ascending=False)

# %% [markdown]
# ## Prepare the data
#
# Back to a clean training set, with the labels apart.

# %%
housing = strat_train_set.drop("price", axis=1)
housing_labels = strat_train_set["price"].copy()

# %%
housing_num = housing.drop(["district", "garden"], axis=1)

area_ix, rooms_ix, age_ix = [
    housing_num.columns.get_loc(c) for c in ("area", "rooms", "age")]

# %%
from sklearn.base import BaseEstimator, TransformerMixin

class CombinedAttributesAdder(BaseEstimator, TransformerMixin):
    def __init__(self, add_age_squared=True):
        self.add_age_squared = add_age_squared

    def fit(self, X, y=None):
        return self  # nothing else to do

    def transform(self, X):
        area_per_room = X[:, area_ix] / X[:, rooms_ix]
        if self.add_age_squared:
            return np.c_[X, area_per_room, X[:, age_ix] ** 2]
        return np.c_[X, area_per_room]

attr_adder = CombinedAttributesAdder(add_age_squared=False)
attr_adder.transform(housing_num.values)[:3]

# %%
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

num_pipeline = Pipeline([
    ('imputer', SimpleImputer(strategy="median")),
    ('attribs_adder', CombinedAttributesAdder()),
    ('std_scaler', StandardScaler()),
])

num_attribs = list(housing_num)
cat_attribs = ["district", "garden"]

full_pipeline = ColumnTransformer([
    ("num", num_pipeline, num_attribs),
    ("cat", OneHotEncoder(handle_unknown="ignore"), cat_attribs),
])

housing_prepared = full_pipeline.fit_transform(housing)
housing_prepared.shape

# %% [markdown]
# ## Select and train a model

# %%
from sklearn.linear_model import LinearRegression
from sklearn.metrics import mean_squared_error
from sklearn.model_selection import cross_val_score
from sklearn.tree import DecisionTreeRegressor

def display_scores(scores):
    print("Scores:", scores.round(0))
    print("Mean:", scores.mean(), "Standard deviation:", scores.std())

lin_reg = LinearRegression()
lin_reg.fit(housing_prepared, housing_labels)
print(np.sqrt(mean_squared_error(housing_labels, lin_reg.predict(housing_prepared))))

tree_reg = DecisionTreeRegressor(random_state=42)
tree_scores = cross_val_score(tree_reg, housing_prepared, housing_labels,
                              scoring="neg_mean_squared_error", cv=5)
display_scores(np.sqrt(-tree_scores))

# %%
from sklearn.ensemble import RandomForestRegressor
from sklearn.model_selection import GridSearchCV

param_grid = [
    {'n_estimators': [10, 20], 'max_features': [2, 4]},
    # without bootstrap too
    {'bootstrap': [False], 'n_estimators': [10], 'max_features': [2, 3]},
]

forest_reg = RandomForestRegressor(random_state=42)
grid_search = GridSearchCV(forest_reg, param_grid, cv=3,
                           scoring='neg_mean_squared_error',
                           return_train_score=True)
grid_search.fit(housing_prepared, housing_labels)

# %%
cvres = grid_search.cv_results_
for mean_score, params in zip(cvres["mean_test_score"], cvres["params"]):
    print(np.sqrt(-mean_score), params)

# %%
final_model = grid_search.best_estimator_

X_test = strat_test_set.drop("price", axis=1)
y_test = strat_test_set["price"].copy()
final_predictions = final_model.predict(full_pipeline.transform(X_test))
np.sqrt(mean_squared_error(y_test, final_predictions))

# %% [markdown]
# ## Preparation and prediction in one

# %%
import joblib

# both parts are fitted already
full_pipeline_with_predictor = Pipeline([
    ("preparation", full_pipeline),
    ("forest", final_model),
])

my_model = full_pipeline_with_predictor
joblib.dump(my_model, "my_model.pkl")

# %%
my_model_loaded = joblib.load("my_model.pkl")
my_model_loaded.predict(housing.iloc[:5])
