# about: a notebook kept as text in jupytext's light format: every paragraph is a cell, magics are commented out, comments between the paragraphs are the text
# trap: one-statement cells; "data" is the table, then a list of bars for a plot, between the cell that makes the features and the one that fits; alternatives stand commented out beside kept lines
# follows: https://github.com/mwouts/jupytext demo/World population.lgt.py
# saves: houses.joblib
# keeps: zones = sorted( | houses = data.loc[data['district'].isin(zones)] | means = houses.groupby('district') | features['level'] = houses['district'].map(means) | tree.fit(features, houses['price']) | joblib.dump(tree, 'houses.joblib')
# drops: plt. | zone_counts | cross_val_score | export_text | max_rows | data = [
# data: houses.csv

# %% [markdown]
# # A quick insight at house prices
#
# ## Collecting the data
#
# The table is ours, one row per house.

# %%
# %matplotlib inline
# # !pip install pandas scikit-learn
import pandas as pd
import numpy as np

pd.options.display.max_rows = 6
pd.options.display.max_columns = 20

# %% [markdown]
# Read it - or, if you have it, the larger one.

# %%
data = pd.read_csv('houses.csv')
# data = pd.read_parquet('houses_2023.parquet')
# => the small one is enough
data

# %% [markdown]
# What is in it?

# %%
data.dtypes

# %%
data.loc[data['price'].idxmax()]

# %% [markdown]
# How many houses are there in each district?

# %%
zone_counts = data['district'].value_counts()
zone_counts

# %% [markdown]
# Districts in alphabetical order, without those where hardly anybody sells

# %%
zones = sorted(zone for zone in data['district'].dropna().unique()
               if (data['district'] == zone).sum() >= 20)

# %% [markdown]
# And the houses in them (check that we lose few)

# %%
houses = data.loc[data['district'].isin(zones)].dropna(subset=['area', 'rooms', 'age'])
assert len(houses) > 0.5 * len(data)

# %% [markdown]
# ## Features

# %%
# the level of a district is the mean price in it
means = houses.groupby('district')['price'].mean()

# %%
means.round(-3)

# %%
features = houses[['area', 'rooms', 'age']].copy()

# %%
features['level'] = houses['district'].map(means)
# features['level'] = houses['district'].map({zone: i for i, zone in enumerate(zones)})

# %%
features['garden'] = (houses['garden'] == 'yes').astype(int)

# %%
features.describe()

# %% [markdown]
# ## Bars with matplotlib

# %%
import matplotlib.pyplot as plt

# %%
data = [houses.loc[houses['district'] == zone, 'price'].median() / 1e3
        for zone in zones]
plt.clf()
plt.figure(figsize=(8, 4), dpi=100)
plt.bar(zones, data)
plt.ylabel('Median price (thousands)')
plt.show()

# %% [markdown]
# ## A small tree

# %%
from sklearn.tree import DecisionTreeRegressor

# %%
tree = DecisionTreeRegressor(
    max_depth=5,
    # no leaf for a single strange house
    min_samples_leaf=8,
    random_state=0)

# %%
from sklearn.model_selection import cross_val_score

# %%
cross_val_score(tree, features, houses['price'], cv=5).round(3)

# %%
tree.fit(features, houses['price'])

# %%
from sklearn.tree import export_text
print(export_text(tree, feature_names=list(features.columns), max_depth=2))

# %%
plt.figure(figsize=(5, 5))
plt.scatter(houses['price'], tree.predict(features), s=5)
plt.plot([houses['price'].min(), houses['price'].max()],
         [houses['price'].min(), houses['price'].max()], '--r')
plt.xlabel('paid')
plt.ylabel('predicted')
plt.show()

# %% [markdown]
# Keep it.

# %%
import joblib

# %%
joblib.dump(tree, 'houses.joblib')
# joblib.dump((tree, means), 'houses.joblib')
