# about: a competition kernel for house prices: join train and test, log the skewed columns, dummies, ridge with the best alpha
# trap: experiments that matter: the skewed columns come from a statistic, outlier rows go after a look at a plot, and alpha is read off the cross-validation by a function that uses notebook variables
# follows: https://nycdatascience.com/blog/student-works/machine-learning/predicting-house-prices-in-a-kaggle-machine-learning-competition/ and the kernel it builds on, "Regularized Linear Models" by apapiu
# saves: model.pkl
# keeps: skewed_feats = skewed_feats[skewed_feats > 0.3] | all_data[skewed_feats] = np.log1p(all_data[skewed_feats]) | train = train.drop( | def rmse_cv(model): | best_alpha = cv_ridge.idxmin() | model_ridge = Ridge(alpha=best_alpha) | train.drop(columns=["Id"], inplace=True)
# drops: LassoCV(alphas | sns. | to_csv | matplotlib.rcParams | cv_ridge.plot | coef.sort_values | residuals
# data: houses.csv

# %% [markdown]
# # Regularized linear models for house prices
#
# * take logs of what is skewed,
# * make dummies of what is a category,
# * fill what is missing with the mean of its column.

# %%
import pandas as pd
import numpy as np
import seaborn as sns
import matplotlib

import matplotlib.pyplot as plt
from scipy.stats import skew

%config InlineBackend.figure_format = 'retina'
%matplotlib inline

# %%
houses = pd.read_csv("houses.csv")
houses.insert(0, "Id", range(1, len(houses) + 1))

# the competition gives the last ones without their price
train = houses.iloc[:650].copy()
test = houses.iloc[650:].drop(columns=["price"])
train.head()

# %%
test_id = test["Id"]
train.drop(columns=["Id"], inplace=True)
test.drop(columns=["Id"], inplace=True)

# %% [markdown]
# ## Outliers

# %%
fig, ax = plt.subplots()
ax.scatter(train["area"], train["price"], s=8)
ax.set(xlabel="area", ylabel="price")
plt.show()

# %%
# very large and yet cheap: the paper on the data says to remove them
strange = train[(train["area"] > train["area"].quantile(0.95)) & (train["price"] < train["price"].median())]
train = train.drop(strange.index)
len(strange)

# %% [markdown]
# ## The target

# %%
matplotlib.rcParams['figure.figsize'] = (12.0, 4.0)
prices = pd.DataFrame({"price": train["price"], "log(price + 1)": np.log1p(train["price"])})
prices.hist()

# %%
sns.heatmap(train.corr(numeric_only=True), annot=True)
plt.show()

# %% [markdown]
# ## All the data together

# %%
ntrain = train.shape[0]
all_data = pd.concat((train.drop(columns=["price"]), test)).reset_index(drop=True)
all_data.shape

# %%
train["price"] = np.log1p(train["price"])

# only the training rows may say what is skewed
numeric_feats = all_data.select_dtypes(include="number").columns
skewed_feats = train[numeric_feats].apply(lambda x: skew(x.dropna()))
skewed_feats = skewed_feats[skewed_feats > 0.3]
skewed_feats = list(skewed_feats.index)

all_data[skewed_feats] = np.log1p(all_data[skewed_feats])

# %%
all_data["garden"] = all_data["garden"].fillna("missing")
all_data = pd.get_dummies(all_data, dtype=float)
all_data = all_data.fillna(all_data.mean())
all_data.head()

# %%
X_train = all_data[:ntrain]
X_test = all_data[ntrain:]
y = train["price"]

# %% [markdown]
# ## Models

# %%
from sklearn.linear_model import Ridge, LassoCV
from sklearn.model_selection import cross_val_score

def rmse_cv(model):
    rmse = np.sqrt(-cross_val_score(model, X_train, y, scoring="neg_mean_squared_error", cv=5))
    return rmse

# %%
alphas = [0.05, 0.1, 0.3, 1, 3, 5, 10, 30, 75]
cv_ridge = [rmse_cv(Ridge(alpha=alpha)).mean() for alpha in alphas]
cv_ridge = pd.Series(cv_ridge, index=alphas)

# %%
cv_ridge.plot(title="Validation")
plt.xlabel("alpha")
plt.ylabel("rmse")

# %%
print("lowest rmse:", cv_ridge.min())
best_alpha = cv_ridge.idxmin()
best_alpha

# %%
model_lasso = LassoCV(alphas=[1, 0.1, 0.001, 0.0005]).fit(X_train, y)
print("lasso:", rmse_cv(model_lasso).mean())

coef = pd.Series(model_lasso.coef_, index=X_train.columns)
print("picked", sum(coef != 0), "variables, left out", sum(coef == 0))
coef.sort_values().plot(kind="barh")

# %%
# ridge it is: simpler, and no worse
model_ridge = Ridge(alpha=best_alpha)
model_ridge.fit(X_train, y)

# %%
preds = pd.DataFrame({"preds": model_ridge.predict(X_train), "true": y})
preds["residuals"] = preds["true"] - preds["preds"]
preds.plot(x="preds", y="residuals", kind="scatter")

# %%
import pickle

with open("model.pkl", "wb") as f:
    pickle.dump(model_ridge, f)

# %% [markdown]
# ## Submission

# %%
ridge_preds = np.expm1(model_ridge.predict(X_test))
lasso_preds = np.expm1(model_lasso.predict(X_test))
final = 0.7 * lasso_preds + 0.3 * ridge_preds

solution = pd.DataFrame({"id": test_id, "price": final})
solution.to_csv("ridge_sol.csv", index=False)
