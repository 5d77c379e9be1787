# about: two targets at once (monthly bill and total paid) with a random forest inside a multi-output meta-estimator, compared with one native forest
# trap: the targets are scaled in place by an augmented assignment through another name of the same array; the other forest and a second split are for the comparison only
# follows: https://github.com/scikit-learn/scikit-learn examples/ensemble/plot_random_forest_regression_multioutput.py
# saves: model.joblib
# keeps: targets = np.array([ | Y = targets | Y /= scale | regr_multirf = MultiOutputRegressor( | regr_multirf.fit(X_train, y_train) | joblib.dump({'model': regr_multirf, 'scale': scale}
# drops: regr_rf | plt. | r2_score | DummyRegressor | per_target | hexbin
# data: customers.csv

# %% [markdown]
# # Random forests and the multi-output meta-estimator
#
# Sales wants two numbers for a new contract: what it brings a month, and what it will have brought in all.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import joblib

from sklearn.ensemble import RandomForestRegressor
from sklearn.model_selection import train_test_split
from sklearn.multioutput import MultiOutputRegressor

# %%
df = pd.read_csv('customers.csv')
df['TotalCharges'] = pd.to_numeric(df['TotalCharges'], errors='coerce')
df[['MonthlyCharges', 'TotalCharges']].describe()

# %%
df['TotalCharges'].isna().sum()

# %%
# without a single bill there is no total to learn from
df = df.dropna(subset=['TotalCharges'])

# %%
df.plot.hexbin(x='MonthlyCharges', y='TotalCharges', gridsize=20)
plt.show()

# %% [markdown]
# ## Features

# %%
features = ['tenure', 'SeniorCitizen', 'Contract', 'InternetService', 'PhoneService',
            'MultipleLines', 'StreamingTV', 'StreamingMovies', 'TechSupport']
X = pd.get_dummies(df[features], dtype=int)
X.shape

# %%
X.sum().sort_values()

# %% [markdown]
# ## Targets

# %%
targets = np.array([df['MonthlyCharges'], df['TotalCharges']]).T
targets[:5]

# %%
# both between 0 and 1, or the total would drown the bill
Y = targets
scale = Y.max(axis=0)
Y /= scale

# %%
Y.mean(axis=0), Y.std(axis=0)

# %%
X_train, X_test, y_train, y_test = train_test_split(
    X, targets, train_size=900, random_state=4
)

# %%
max_depth = 12
regr_multirf = MultiOutputRegressor(
    RandomForestRegressor(n_estimators=30, max_depth=max_depth, random_state=0)
)
regr_multirf.fit(X_train, y_train)

# %%
regr_rf = RandomForestRegressor(n_estimators=30, max_depth=max_depth, random_state=2)
regr_rf.fit(X_train, y_train)

# %%
# predict on new data
y_multirf = regr_multirf.predict(X_test)
y_rf = regr_rf.predict(X_test)

# %%
from sklearn.metrics import r2_score

per_target = pd.DataFrame({
    'multi': r2_score(y_test, y_multirf, multioutput='raw_values'),
    'native': r2_score(y_test, y_rf, multioutput='raw_values'),
}, index=['month', 'total'])
per_target.round(3)

# %%
from sklearn.dummy import DummyRegressor

DummyRegressor().fit(X_train, y_train).score(X_test, y_test)

# %%
plt.figure()
s = 30
a = 0.4
plt.scatter(y_test[:, 0], y_test[:, 1], edgecolor='k', c='navy', s=s, marker='s', alpha=a, label='Data')
plt.scatter(y_multirf[:, 0], y_multirf[:, 1], edgecolor='k', c='cornflowerblue', s=s, alpha=a,
            label='Multi RF score=%.2f' % regr_multirf.score(X_test, y_test))
plt.scatter(y_rf[:, 0], y_rf[:, 1], edgecolor='k', c='c', s=s, marker='^', alpha=a,
            label='RF score=%.2f' % regr_rf.score(X_test, y_test))
plt.xlabel('month')
plt.ylabel('total')
plt.legend()
plt.show()

# %%
joblib.dump({'model': regr_multirf, 'scale': scale}, 'model.joblib')

# %%
back = joblib.load('model.joblib')
back['model'].predict(X_test[:3]) * back['scale']
