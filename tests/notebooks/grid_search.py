# about: support vector machine tuned by a grid search; the best estimator is saved
# trap: the model is an attribute of another fitted object (search.best_estimator_), the grid is completed in a later cell, and other searches and hand-made trials stand beside it
# saves: best_svm.pkl
# keeps: GridSearchCV( | grid['svc__gamma'] = | search.fit(X_train, y_train) | search.best_estimator_ | cv=folds
# drops: RandomizedSearchCV | KNeighborsClassifier | cv_results_ | classification_report | matplotlib
# data: none

# %% [markdown]
# # Tumours: tuning a support vector machine

# %%
import pickle
import numpy as np
import pandas as pd
import matplotlib.pyplot as plt
from sklearn.datasets import load_breast_cancer
from sklearn.metrics import classification_report
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV, StratifiedKFold, train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

# %%
X, y = load_breast_cancer(return_X_y=True, as_frame=True)
X.describe().T

# %%
y.value_counts()

# %%
# the "worst" columns are the largest values seen in an image; the standard errors are left out
X = X[[name for name in X.columns if not name.endswith('error')]]
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.3, stratify=y, random_state=7)
X.shape

# %%
plt.scatter(X_train['mean radius'], X_train['mean texture'], c=y_train, s=8)
plt.show()

# %% [markdown]
# ## By hand

# %%
for C in [0.1, 1, 10]:
    by_hand = make_pipeline(StandardScaler(), SVC(C=C)).fit(X_train, y_train)
    print(C, by_hand.score(X_test, y_test))

# %% [markdown]
# ## Neighbours, by chance
# Not better than what we had.

# %%
knn = make_pipeline(StandardScaler(), KNeighborsClassifier())
random_search = RandomizedSearchCV(knn, {'kneighborsclassifier__n_neighbors': range(1, 20)},
                                   n_iter=4, cv=3, random_state=1)
random_search.fit(X_train, y_train)
print(random_search.best_params_, random_search.best_score_)

# %% [markdown]
# ## By grid

# %%
folds = StratifiedKFold(n_splits=4, shuffle=True, random_state=7)
grid = {'svc__C': [0.3, 1, 3, 10]}

# %%
# 'scale' alone was too wide
grid['svc__gamma'] = ['scale', 0.01, 0.003]
print(np.prod([len(values) for values in grid.values()]), 'settings')

# %%
search = GridSearchCV(make_pipeline(StandardScaler(), SVC()), grid, cv=folds)
search.fit(X_train, y_train)

# %%
print(search.best_params_)
print(round(search.best_score_, 4))

# %%
table = pd.DataFrame(search.cv_results_)
table[['param_svc__C', 'param_svc__gamma', 'mean_test_score', 'std_test_score']].sort_values('mean_test_score')

# %%
for mean, setting in zip(search.cv_results_['mean_test_score'], search.cv_results_['params']):
    print(round(mean, 4), setting)

# %%
best = search.best_estimator_
print(classification_report(y_test, best.predict(X_test)))

# %%
with open('best_svm.pkl', 'wb') as f:
    pickle.dump(best, f)
