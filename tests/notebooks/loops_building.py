# about: house prices; features, look-up tables and the penalty are made in loops
# trap: loops that matter (columns built by name, a dict filled per district, a while loop with break that finds alpha, for-else) among loops that only print and draw
# saves: ridge.pkl
# keeps: houses[f'{column}_high'] | means[district] = | while True: | alpha *= 3 | Ridge(alpha=best_alpha) | reference = name
# drops: subplots | countdown | matplotlib | history
# data: houses.csv

# %% [markdown]
# # House prices, with a ridge

# %%
import pickle
import numpy as np
import pandas as pd
import matplotlib.pyplot as plt
from sklearn.linear_model import Ridge
from sklearn.model_selection import train_test_split

# %%
houses = pd.read_csv('houses.csv')
houses.sample(5, random_state=0)

# %%
for column in houses.columns:
    print(f'{column:10s}', houses[column].dtype, houses[column].nunique())

# %%
fig, axes = plt.subplots(1, 3, figsize=(10, 3))
for ax, column in zip(axes, ['area', 'rooms', 'age']):
    ax.scatter(houses[column], houses['price'], s=3)
    ax.set_title(column)
plt.show()

# %% [markdown]
# ## Features

# %%
houses['garden'] = (houses['garden'] == 'yes').astype(int)
features = ['area', 'rooms', 'age', 'garden']

# %%
# big houses and old houses follow a law of their own
for column in ['area', 'age']:
    edge = houses[column].quantile(0.8)
    houses[f'{column}_high'] = (houses[column] - edge).clip(lower=0)
    features.append(f'{column}_high')
houses[features].head()

# %%
train, val = train_test_split(houses, test_size=0.25, random_state=6)
train, val = train.copy(), val.copy()
train['district'].value_counts()

# %%
means = {}
for district, part in train.groupby('district'):
    if len(part) < 10:
        continue        # too few sales for a mean
    means[district] = part['price'].mean()
means

# %%
for district in sorted(means, key=means.get, reverse=True):
    print(district, '#' * int(20 * means[district] / max(means.values())))

# %%
# the first district, in order of the alphabet, that is dearer than the average is the reference
for name in sorted(means):
    if means[name] > train['price'].mean():
        reference = name
        break
else:
    reference = min(means)
print('reference:', reference)

# %%
for part in (train, val):
    part['district_level'] = part['district'].map(means).fillna(train['price'].mean()) / means[reference]
features.append('district_level')

# %%
countdown = 3
while countdown:
    print(countdown, train[features].iloc[countdown].round(1).tolist())
    countdown -= 1

# %% [markdown]
# ## How strong a penalty?
# Three times as strong in every round, until the error on the validation rows does not get smaller.

# %%
best_alpha, best_error = None, np.inf
alpha = 0.01
while True:
    trial = Ridge(alpha=alpha).fit(train[features], train['price'])
    error = np.sqrt(np.mean((trial.predict(val[features]) - val['price']) ** 2))
    print(f'{alpha:10.2f} {error:12.2f}')
    if error >= best_error or alpha > 10_000:
        break
    best_alpha, best_error = alpha, error
    alpha *= 3

# %%
history = {}
for a in [0.01, 1, 100, 10_000]:
    history[a] = Ridge(alpha=a).fit(train[features], train['price']).coef_
for i, feature in enumerate(features):
    plt.semilogx(list(history), [history[a][i] for a in history], label=feature)
plt.legend()
plt.show()

# %%
ridge = Ridge(alpha=best_alpha)
ridge.fit(train[features], train['price'])
print(best_alpha, ridge.score(val[features], val['price']))

# %%
with open('ridge.pkl', 'wb') as f:
    pickle.dump(ridge, f)
