# about: LightGBM the native way: Dataset with weights, ten rounds, then ten more from the saved file, then ten with a falling learning rate
# trap: the second training starts from a file that the notebook itself saved in between (model_10.txt), the third from the second's booster; a fourth training and a JSON dump are for show
# follows: https://github.com/microsoft/LightGBM examples/python-guide/advanced_example.py
# saves: model.txt
# keeps: lgb.Dataset(X_train, y_train | weight=W_train | gbm.save_model('model_10.txt') | init_model='model_10.txt' | init_model=gbm, | lgb.reset_parameter(learning_rate= | gbm.save_model('model.txt')
# drops: json.dump | def binary_error | other = | feature_importance | evals_result | plt. | lgb.Booster(
# data: customers.csv

# %% [markdown]
# # LightGBM, step by step

# %%
# coding: utf-8
import json

import lightgbm as lgb
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split

# %%
print('Loading data...')
df = pd.read_csv('customers.csv', na_values=[' '])
df.shape

# %%
df[['Contract', 'InternetService', 'PaymentMethod']].nunique()

# %%
df.groupby('InternetService')['MonthlyCharges'].describe()

# %%
# LightGBM takes the missing totals as they are
X = df[['tenure', 'MonthlyCharges', 'TotalCharges', 'SeniorCitizen']].copy()
for column in ['Partner', 'Dependents', 'PaperlessBilling', 'OnlineSecurity', 'TechSupport']:
    X[column] = (df[column] == 'Yes').astype(int)
X['Contract'] = df['Contract'].map({'Month-to-month': 0, 'One year': 1, 'Two year': 2})
X['Internet'] = df['InternetService'].map({'No': 0, 'DSL': 1, 'Fiber optic': 2})
y = (df['Churn'] == 'Yes').astype(int)

# %%
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.25, random_state=3)
num_train, num_feature = X_train.shape
num_train, num_feature

# %%
# a customer lost costs twice as much as a call for nothing
W_train = np.where(y_train == 1, 2.0, 1.0)
W_test = np.where(y_test == 1, 2.0, 1.0)

# the data are used again below, so the raw ones must stay
lgb_train = lgb.Dataset(X_train, y_train, weight=W_train, free_raw_data=False)
lgb_eval = lgb.Dataset(X_test, y_test, reference=lgb_train, weight=W_test, free_raw_data=False)

# %%
params = {
    'boosting_type': 'gbdt',
    'objective': 'binary',
    'metric': 'binary_logloss',
    'num_leaves': 15,
    'learning_rate': 0.05,
    'feature_fraction': 0.9,
    'bagging_fraction': 0.8,
    'bagging_freq': 5,
    'num_threads': 1,
    'deterministic': True,
    'seed': 7,
    'verbose': -1,
}

# %%
print('Starting training...')
gbm = lgb.train(params, lgb_train, num_boost_round=10)

print('Finished first 10 rounds...')
print('3rd feature name is:', gbm.feature_name()[2])

# %%
print('Saving model...')
gbm.save_model('model_10.txt')

# %%
print('Dumping model to JSON...')
model_json = gbm.dump_model()
with open('model.json', 'w+') as f:
    json.dump(model_json, f, indent=4)

print('Feature importances:', list(gbm.feature_importance()))

# %%
print('Loading model to predict...')
bst = lgb.Booster(model_file='model_10.txt')
y_pred = bst.predict(X_test)
print('AUC of the loaded model:', roc_auc_score(y_test, y_pred))

# %% [markdown]
# ## Continue training
#
# `init_model` takes the name of a file or a Booster.

# %%
gbm = lgb.train(params, lgb_train, num_boost_round=10,
                init_model='model_10.txt')

print('Finished 10 - 20 rounds with model file...')

# %%
# smaller and smaller steps
gbm = lgb.train(params, lgb_train, num_boost_round=10,
                init_model=gbm,
                callbacks=[lgb.reset_parameter(learning_rate=lambda it: 0.05 * (0.99 ** it))])

print('Finished 20 - 30 rounds with decay learning rates...')

# %%
def binary_error(preds, data):
    labels = data.get_label()
    return 'error', np.mean(labels != (preds > 0.5)), False

evals_result = {}
other = lgb.train(params, lgb_train, num_boost_round=15,
                  valid_sets=[lgb_eval], feval=binary_error,
                  callbacks=[lgb.record_evaluation(evals_result)])

plt.plot(evals_result['valid_0']['binary_logloss'])
plt.xlabel('round')
plt.show()

# %%
print('AUC now:', roc_auc_score(y_test, gbm.predict(X_test)))

# %%
gbm.save_model('model.txt')

# %%
!head -5 model.txt
