# about: random forest on the wine data; nobody ever thought of a seed
# trap: no seed at all: split and forest come out different every time, so "the same model" can only be shown once both sides are given a seed
# saves: wine_forest.pkl
# keeps: train_test_split( | RandomForestClassifier( | df['phenol_share'] = | pickle.dump
# drops: matplotlib | confusion_matrix | KMeans | df.sample | feature_importances_
# data: none

# %% [markdown]
# # Wine forest

# %%
import pickle
import numpy as np
import matplotlib.pyplot as plt
from sklearn.cluster import KMeans
from sklearn.datasets import load_wine
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import confusion_matrix
from sklearn.model_selection import train_test_split

# %%
data = load_wine(as_frame=True)
df = data.frame
df.sample(5)

# %%
df['target'].value_counts().sort_index()

# %%
plt.scatter(df['alcohol'], df['color_intensity'], c=df['target'])
plt.xlabel('alcohol')
plt.ylabel('color')
plt.show()

# %%
# would the groups show up by themselves?
groups = KMeans(n_clusters=3, n_init=3).fit_predict(df.drop(columns='target'))
print(np.bincount(groups))

# %% [markdown]
# ## Forest
# One extra feature from the tasting group.

# %%
df['phenol_share'] = df['nonflavanoid_phenols'] / df['total_phenols']
df.groupby('target')['phenol_share'].describe()

# %%
X = df.drop(columns='target')
y = df['target']
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.3)

# %%
forest = RandomForestClassifier(n_estimators=80, max_features=4)
forest.fit(X_train, y_train)

# %%
print(forest.score(X_train, y_train), forest.score(X_test, y_test))

# %%
confusion_matrix(y_test, forest.predict(X_test))

# %%
for name, weight in sorted(zip(X.columns, forest.feature_importances_), key=lambda pair: -pair[1]):
    print(f'{name:30s} {weight:.3f}')

# %%
with open('wine_forest.pkl', 'wb') as f:
    pickle.dump(forest, f)
