# about: one np.random.seed at the top, draws for looking at the data, then a split and a forest without random_state
# trap: global random state; df.sample and np.random.rand in EDA cells move it on, so dropping them changes the model; draws from other generators (random, RandomState, default_rng) or after the fit do not count
# saves: forest.pkl
# keeps: np.random.seed(42) | df.sample(8) | np.random.rand(len(df)) | np.random.permutation
# drops: plt.scatter | random.choice | RandomState | default_rng | df.sample(3) | matplotlib
# data: customers.csv

# %% [markdown]
# # Churn

# %%
import pickle
import random
import numpy as np
import pandas as pd
import matplotlib.pyplot as plt
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import train_test_split

# one seed for the whole notebook
np.random.seed(42)
random.seed(42)

# %%
df = pd.read_csv('customers.csv')
df.sample(8)

# %%
df['left'] = (df['Churn'] == 'Yes').astype(int)
df['left'].value_counts()

# %%
# the dots lie on top of each other without a little noise
jitter = np.random.rand(len(df)) * 0.4
plt.scatter(df['SeniorCitizen'] + jitter, df['MonthlyCharges'], c=df['left'], s=4)
plt.show()

# %%
# a customer to tell a story about
lucky = random.choice(list(df['customerID']))
df[df['customerID'] == lucky].T

# %%
# is the difference in tenure more than chance?
gap = df.groupby('left')['tenure'].mean().diff().iloc[-1]
by_chance = []
for _ in range(30):
    mixed = np.random.permutation(df['left'].values)
    by_chance.append(df['tenure'][mixed == 1].mean() - df['tenure'][mixed == 0].mean())
print(round(gap, 2), 'against', round(min(by_chance), 2), 'by chance')

# %%
rng = np.random.RandomState(0)
plt.hist(rng.choice(df['tenure'], 200), bins=20)
plt.show()

# %%
np.random.default_rng(3).normal(size=3)

# %% [markdown]
# ## Model

# %%
X = df[['tenure', 'MonthlyCharges', 'SeniorCitizen']].copy()
X['two_years'] = (df['Contract'] == 'Two year').astype(int)
X['one_year'] = (df['Contract'] == 'One year').astype(int)
X['fiber'] = (df['InternetService'] == 'Fiber optic').astype(int)

# %%
X_train, X_test, y_train, y_test = train_test_split(X, df['left'], test_size=0.2)

# %%
forest = RandomForestClassifier(n_estimators=50, min_samples_leaf=4)
forest.fit(X_train, y_train)

# %%
print('accuracy', forest.score(X_test, y_test))
df.sample(3)

# %%
order = np.argsort(forest.feature_importances_)
plt.barh(X.columns[order], forest.feature_importances_[order])
plt.show()

# %%
with open('forest.pkl', 'wb') as f:
    pickle.dump(forest, f)
