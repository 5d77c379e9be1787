# about: XGBoost's native walk: DMatrix, watchlist, xgb.train with early stopping, save, load, dump, sparse input
# trap: the parameter dict is changed by the experiment's loop and then takes the loop's best depth; the validation set matters because training stops early on it
# follows: https://github.com/dmlc/xgboost demo/guide-python/basic_walkthrough.py
# saves: xgb.json
# keeps: param['max_depth'] = depth | results[depth] = | param['max_depth'] = min(results, key=results.get) | watchlist = [ | early_stopping_rounds=5 | bst.save_model('xgb.json')
# drops: dump_model | csr_matrix | pickle | get_score | plt. | dtest | error=
# data: customers.csv

# %% [markdown]
# # XGBoost basics

# %%
import pickle

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import scipy.sparse
import xgboost as xgb

print(xgb.__version__)

# %%
df = pd.read_csv('customers.csv')
df.head(3)

# %%
df.groupby('PaymentMethod').size().plot.barh()
plt.show()

# %%
df['TotalCharges'] = pd.to_numeric(df['TotalCharges'], errors='coerce')
labels = (df.pop('Churn') == 'Yes').astype(int)
df = df.drop(columns='customerID')

# trees do not mind one column too many
X = pd.get_dummies(df, dtype=int)
X.shape

# %%
# 700 to train, 250 to watch, the rest to test; the rows are in no order
dtrain = xgb.DMatrix(X.iloc[:700], label=labels.iloc[:700])
dval = xgb.DMatrix(X.iloc[700:950], label=labels.iloc[700:950])
dtest = xgb.DMatrix(X.iloc[950:], label=labels.iloc[950:])

# %%
dtrain.num_row(), dval.num_row(), dtest.num_row()

# %%
param = {'max_depth': 2, 'eta': 1, 'objective': 'binary:logistic', 'eval_metric': 'logloss',
         'nthread': 1, 'seed': 0}

# specify validation sets to watch the performance
watchlist = [(dtrain, 'train'), (dval, 'eval')]
bst = xgb.train(param, dtrain, 2, evals=watchlist)

# %%
preds = bst.predict(dtest)
labels_test = dtest.get_label()
print('error=%f' % (sum(int(p > 0.5) != t for p, t in zip(preds, labels_test)) / len(preds)))

# %% [markdown]
# ## How deep?

# %%
param['eta'] = 0.3

results = {}
for depth in [2, 3, 5]:
    param['max_depth'] = depth
    cv = xgb.cv(param, dtrain, num_boost_round=15, nfold=3, seed=0)
    results[depth] = cv['test-logloss-mean'].min()
results

# %%
plt.plot(list(results), list(results.values()), 'o-')
plt.xlabel('max_depth')
plt.ylabel('logloss')

# %%
param['max_depth'] = min(results, key=results.get)
param

# %% [markdown]
# ## Train

# %%
history = {}
bst = xgb.train(param, dtrain, 100, evals=watchlist, early_stopping_rounds=5,
                evals_result=history, verbose_eval=10)
bst.best_iteration

# %%
plt.plot(history['train']['logloss'], label='train')
plt.plot(history['eval']['logloss'], label='eval')
plt.legend()
plt.show()

# %%
pd.Series(bst.get_score(importance_type='gain')).nlargest(10)

# %%
bst.save_model('xgb.json')

# %%
# a model to read
bst.dump_model('dump.raw.txt')

# %%
bst2 = xgb.Booster(model_file='xgb.json')
preds = bst.predict(dtest)
preds2 = bst2.predict(dtest)
assert np.sum(np.abs(preds2 - preds)) == 0

# %%
# alternatively, you can pickle the booster
pks = pickle.dumps(bst2)
bst3 = pickle.loads(pks)
assert np.sum(np.abs(bst3.predict(dtest) - preds)) == 0

# %% [markdown]
# ## From a sparse matrix

# %%
csr = scipy.sparse.csr_matrix(X.fillna(0).to_numpy(dtype=float))
dsparse = xgb.DMatrix(csr[:700], label=labels.iloc[:700])
bst_sparse = xgb.train(param, dsparse, 3, evals=[(dsparse, 'train')])
