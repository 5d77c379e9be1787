# about: churn model where the same frame, list and dict go by two names and are changed through the second
# trap: mutation through an alias (train = df; cols = numeric; cols.append; params = defaults) against real copies that may be changed freely
# saves: model.pkl
# keeps: train = df | train['Churn'] = | cols.append('SeniorCitizen') | params['max_depth'] = 5 | X_clipped['tenure'] =
# drops: shown.append | what_if | matplotlib | cheap
# data: customers.csv

# %% [markdown]
# # Churn: first model for the call centre

# %%
import pickle
import pandas as pd
import matplotlib.pyplot as plt
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import cross_val_score

# %%
df = pd.read_csv('customers.csv')
df.head()

# %%
numeric = ['tenure', 'MonthlyCharges']
defaults = {'n_estimators': 60, 'max_depth': None, 'random_state': 11}

# %% [markdown]
# ## Preparing the training data
# All rows are for training, the call centre does the testing.

# %%
train = df
train['TotalCharges'] = pd.to_numeric(train['TotalCharges'], errors='coerce').fillna(0)
train['Churn'] = (train['Churn'] == 'Yes').astype(int)
train['monthly_contract'] = (train['Contract'] == 'Month-to-month').astype(int)

# %%
# `df` and `train` are one and the same frame
df[['TotalCharges', 'Churn', 'monthly_contract']].describe()

# %%
cols = numeric
cols.append('SeniorCitizen')
cols += ['TotalCharges', 'monthly_contract']
len(numeric)

# %%
shown = list(numeric)
shown.append('Churn')
df[shown].corr().round(2)

# %%
df[shown].hist(figsize=(9, 5))
plt.tight_layout()
plt.show()

# %% [markdown]
# ## Settings

# %%
# full depth learns the names of the customers by heart
params = defaults
params['max_depth'] = 5
params.update(min_samples_leaf=4)

# %%
cheap = dict(defaults)
cheap['n_estimators'] = 5
cheap

# %%
X = df[numeric]
y = df['Churn']
X_clipped = X
X_clipped['tenure'] = X_clipped['tenure'].clip(upper=60)
X.describe()

# %%
# in years, for the chart in the slides
df['tenure'] = df['tenure'] / 12
plt.scatter(df['tenure'], df['MonthlyCharges'], c=df['Churn'], s=4)
plt.xlabel('years with us')
plt.show()

# %%
print('a cheap forest:', cross_val_score(RandomForestClassifier(**cheap), X, y, cv=3).mean().round(3))

# %%
model = RandomForestClassifier(**defaults)
model.fit(X, y)
print('in sample:', model.score(X, y))

# %%
# what if all of them had two-year contracts?
what_if = X.copy()
what_if['monthly_contract'] = 0
print(model.predict_proba(what_if)[:, 1].mean(), 'instead of', model.predict_proba(X)[:, 1].mean())

# %%
pickle.dump(model, open('model.pkl', 'wb'))
