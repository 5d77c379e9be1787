# about: house prices; nearly all cleaning is done by methods with inplace=True
# trap: df.drop/fillna/rename/sort_values/reset_index(…, inplace=True) as bare statements that matter; the same calls without inplace, or on a copy, that do not
# saves: houses.pkl
# keeps: houses.fillna({'garden': 'unknown'}, inplace=True) | inplace=True, axis=1 | houses.rename(columns= | houses.sort_values('price', inplace=True) | houses.reset_index(drop=True, inplace=True)
# drops: look.sort_values | look.drop | houses.sort_values('age') | houses.dropna() | matplotlib
# data: houses.csv

# %% [markdown]
# # House prices
# Data from the agency's spreadsheet, one line per sale.

# %%
import pickle
import pandas as pd
import matplotlib.pyplot as plt
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.metrics import mean_absolute_error

# %%
houses = pd.read_csv('houses.csv')
houses.info()

# %%
houses.describe()

# %%
houses['price'].hist(bins=50)
plt.title('prices')
plt.show()

# %%
# the oldest ones, out of curiosity
houses.sort_values('age')

# %%
# how many rows would be left?
houses.dropna()
print(len(houses), 'rows, still all of them')

# %% [markdown]
# ## Cleaning
# The agents leave `garden` empty when they have not asked. That is a value of its own.

# %%
houses.fillna({'garden': 'unknown'}, inplace=True)
houses['garden'].value_counts()

# %%
# the top one per cent are castles and typing errors
houses.drop(houses[houses['price'] > houses['price'].quantile(0.99)].index, inplace=True)
print(len(houses), 'rows left')

# %%
look = houses.copy()
look.drop(columns=['garden', 'district'], inplace=True)
look.sort_values('area', inplace=True)
look.reset_index(inplace=True)
plt.plot(look['area'], look['price'], '.')
plt.xlabel('area')
plt.show()
look.tail(3)

# %%
houses.rename(columns={'area': 'sqm', 'age': 'years'}, inplace=True)

# %%
# price bands, so that the hold-out below gets cheap and dear houses alike
houses.sort_values('price', inplace=True)
houses.reset_index(drop=True, inplace=True)
houses.head()

# %%
houses['sqm_per_room'] = houses['sqm'] / houses['rooms']
houses['band'] = pd.qcut(houses['price'], 4, labels=False)
houses.groupby('band')[['sqm', 'rooms', 'years', 'sqm_per_room']].mean()

# %%
# band is made from the price: it must not stay in; rooms are in sqm_per_room now
houses.drop(['rooms', 'band'], inplace=True, axis=1)

# %%
table = pd.get_dummies(houses, columns=['district', 'garden'], dtype=float)
table.columns

# %%
# every fifth house is held out
held = table.index % 5 == 0
y = table.pop('price')
X_train, y_train = table[~held], y[~held]
X_held, y_held = table[held], y[held]
print(X_train.shape, X_held.shape)

# %%
model = GradientBoostingRegressor(n_estimators=80, max_depth=3, random_state=1)
model.fit(X_train, y_train)

# %%
guess = model.predict(X_held)
print('mean error', round(mean_absolute_error(y_held, guess)))
plt.plot(y_held, guess, '.')
plt.show()

# %%
with open('houses.pkl', 'wb') as out:
    pickle.dump(model, out)
