# about: predictors stacked: lasso, forest and boosting on house prices, a ridge on top
# trap: arrays of categories are changed in place through a loop variable; the estimators' list is shared by the comparison loop and by the stack; the evaluation fits the same objects' clones
# follows: https://github.com/scikit-learn/scikit-learn examples/ensemble/plot_stack_predictors.py
# saves: model.pkl
# keeps: def load_houses(): | cat[pd.isna(cat)] = 'missing' | processor_lin = make_column_transformer( | processor_nlin = make_column_transformer( | stacking_regressor = StackingRegressor( | stacking_regressor.fit(X, y) | joblib.dump(stacking_regressor, 'model.pkl')
# drops: def plot_regression_results | start_time | cross_val_predict | suptitle | plt.subplots | set_config
# data: houses.csv

# %% [markdown]
# # Combine predictors using stacking
#
# Some estimators are fitted on the data, and a last one on what they say.

# %%
from sklearn import set_config

set_config(display="diagram")

# %% [markdown]
# ## The data
#
# Prices are skewed: we predict their logarithm.

# %%
import numpy as np
import pandas as pd

from sklearn.utils import shuffle


def load_houses():
    df = pd.read_csv('houses.csv')
    X = df.drop(columns='price')
    y = df['price']

    for column in ['district', 'garden']:
        X[column] = X[column].astype(object)

    # the file is sorted by nothing in particular, but one never knows
    X, y = shuffle(X, y, random_state=0)

    X = X[:600]
    y = y[:600]
    return X, np.log(y)


X, y = load_houses()

# %%
X.head()

# %%
y.hist(bins=30)

# %% [markdown]
# ## Preprocessing
#
# Linear models want one-hot columns and one scale, trees do with numbers for categories.

# %%
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from sklearn.preprocessing import OrdinalEncoder
from sklearn.preprocessing import StandardScaler

cat_cols = ['district', 'garden']
num_cols = ['area', 'rooms', 'age']

# %%
categories = [X[column].unique() for column in cat_cols]

# not known is a category as well
for cat in categories:
    cat[pd.isna(cat)] = 'missing'

categories

# %%
cat_proc_nlin = make_pipeline(
    SimpleImputer(strategy='constant', fill_value='missing'),
    OrdinalEncoder(categories=categories)
)

num_proc_nlin = make_pipeline(SimpleImputer(strategy='mean'))

cat_proc_lin = make_pipeline(
    SimpleImputer(strategy='constant', fill_value='missing'),
    OneHotEncoder(categories=categories)
)

num_proc_lin = make_pipeline(
    SimpleImputer(strategy='mean'),
    StandardScaler()
)

# transformation to use for non-linear estimators
processor_nlin = make_column_transformer(
    (cat_proc_nlin, cat_cols),
    (num_proc_nlin, num_cols))

# transformation to use for linear estimators
processor_lin = make_column_transformer(
    (cat_proc_lin, cat_cols),
    (num_proc_lin, num_cols))

# %%
processor_lin.fit_transform(X).shape, processor_nlin.fit_transform(X).shape

# %% [markdown]
# ## The stack

# %%
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.ensemble import RandomForestRegressor
from sklearn.ensemble import StackingRegressor
from sklearn.linear_model import LassoCV
from sklearn.linear_model import RidgeCV

lasso_pipeline = make_pipeline(processor_lin, LassoCV(cv=3))

rf_pipeline = make_pipeline(processor_nlin,
                            RandomForestRegressor(n_estimators=15, random_state=42))

gradient_pipeline = make_pipeline(
    processor_nlin,
    HistGradientBoostingRegressor(max_iter=15, random_state=0))

estimators = [('Random Forest', rf_pipeline),
              ('Lasso', lasso_pipeline),
              ('Gradient Boosting', gradient_pipeline)]

stacking_regressor = StackingRegressor(estimators=estimators,
                                       final_estimator=RidgeCV(), cv=3)
stacking_regressor

# %% [markdown]
# ## Measure and plot

# %%
import time
import matplotlib.pyplot as plt
from sklearn.model_selection import cross_val_predict


def plot_regression_results(ax, y_true, y_pred, title, scores, elapsed_time):
    """Scatter plot of the predicted vs true targets."""
    ax.plot([y_true.min(), y_true.max()],
            [y_true.min(), y_true.max()],
            '--r', linewidth=2)
    ax.scatter(y_true, y_pred, alpha=0.2)

    ax.spines['top'].set_visible(False)
    ax.spines['right'].set_visible(False)
    ax.set_xlabel('Measured')
    ax.set_ylabel('Predicted')
    extra = plt.Rectangle((0, 0), 0, 0, fc="w", fill=False,
                          edgecolor='none', linewidth=0)
    ax.legend([extra], [scores], loc='upper left')
    ax.set_title(title + '\n Evaluation in {:.2f} seconds'.format(elapsed_time))


fig, axs = plt.subplots(2, 2, figsize=(9, 7))
axs = np.ravel(axs)

for ax, (name, est) in zip(axs, estimators + [('Stacking Regressor',
                                               stacking_regressor)]):
    start_time = time.time()
    y_pred = cross_val_predict(est, X, y, cv=2)
    elapsed_time = time.time() - start_time
    score = 1 - ((y - y_pred) ** 2).sum() / ((y - y.mean()) ** 2).sum()

    plot_regression_results(
        ax, y, y_pred,
        name,
        r'$R^2={:.2f}$'.format(score),
        elapsed_time)

plt.suptitle('Single predictors versus stacked predictors')
plt.tight_layout()
plt.show()

# %% [markdown]
# The stack takes the longest and is the best by a hair. We keep it.

# %%
import joblib

stacking_regressor.fit(X, y)
joblib.dump(stacking_regressor, 'model.pkl')

# %%
dict(zip([name for name, _ in estimators], stacking_regressor.final_estimator_.coef_.round(2)))

# %%
np.exp(stacking_regressor.predict(X[:3])), np.exp(y[:3])
