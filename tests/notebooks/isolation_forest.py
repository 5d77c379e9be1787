# about: odd customers with an isolation forest on tenure and monthly charges
# trap: one RandomState draws the training rows, then points that only a plot needs, and then is the forest's random_state: without the plot's draw the forest is another one
# follows: https://github.com/scikit-learn/scikit-learn examples/ensemble/plot_isolation_forest.py
# saves: model.pkl
# keeps: rng = np.random.RandomState(42) | rng.choice( | rng.uniform( | random_state=rng | clf.fit(X_train) | joblib.dump(clf, "model.pkl")
# drops: contourf | plt. | decision_function | LocalOutlierFactor | y_pred_ | linspace | boxplot
# data: customers.csv

# %% [markdown]
# # Isolation forest
#
# A forest of random trees *isolates* observations: what is alone after a few splits is odd.

# %%
import numpy as np
import pandas as pd
import matplotlib.pyplot as plt
import joblib

from sklearn.ensemble import IsolationForest

rng = np.random.RandomState(42)

# %%
customers = pd.read_csv("customers.csv")
customers[["tenure", "MonthlyCharges"]].describe()

# %%
customers.boxplot(column="MonthlyCharges", by="Contract")
plt.show()

# %%
X = customers[["tenure", "MonthlyCharges"]].to_numpy(dtype=float)
low, high = X.min(axis=0), X.max(axis=0)
low, high

# %% [markdown]
# ## Training data, test data, and points from nowhere

# %%
# two thirds to train on
chosen = rng.choice(len(X), size=800, replace=False)
X_train = X[chosen]
X_test = np.delete(X, chosen, axis=0)

# uniform noise over the whole plane, to see what the forest says of it
X_outliers = rng.uniform(low=low, high=high, size=(40, 2))

# %%
plt.scatter(X_train[:, 0], X_train[:, 1], s=8, label="train")
plt.scatter(X_outliers[:, 0], X_outliers[:, 1], s=8, c="red", label="noise")
plt.legend()
plt.show()

# %% [markdown]
# ## Fit

# %%
clf = IsolationForest(n_estimators=80, max_samples=100, random_state=rng)
clf.fit(X_train)

# %%
y_pred_train = clf.predict(X_train)
y_pred_test = clf.predict(X_test)
y_pred_outliers = clf.predict(X_outliers)

print("regular, train:", (y_pred_train == 1).mean().round(3))
print("regular, test: ", (y_pred_test == 1).mean().round(3))
print("odd, noise:    ", (y_pred_outliers == -1).mean().round(3))

# %%
joblib.dump(clf, "model.pkl")

# %% [markdown]
# ## Picture

# %%
xx, yy = np.meshgrid(np.linspace(low[0], high[0], 40), np.linspace(low[1], high[1], 40))
Z = clf.decision_function(np.c_[xx.ravel(), yy.ravel()])
Z = Z.reshape(xx.shape)

plt.title("IsolationForest")
plt.contourf(xx, yy, Z, cmap=plt.cm.Blues_r)

b1 = plt.scatter(X_train[:, 0], X_train[:, 1], c="white", s=20, edgecolor="k")
b2 = plt.scatter(X_test[:, 0], X_test[:, 1], c="green", s=20, edgecolor="k")
c = plt.scatter(X_outliers[:, 0], X_outliers[:, 1], c="red", s=20, edgecolor="k")
plt.legend([b1, b2, c], ["training", "new regular", "noise"], loc="upper left")
plt.show()

# %% [markdown]
# ## The rival

# %%
from sklearn.neighbors import LocalOutlierFactor

lof = LocalOutlierFactor(n_neighbors=20, novelty=True)
lof.fit(X_train)
(lof.predict(X_outliers) == -1).mean()

# %%
customers.loc[clf.predict(X) == -1, ["customerID", "tenure", "MonthlyCharges"]].head(10)
