# about: the whole Telco churn course in one notebook: EDA, one-hot, logistic regression, metrics by hand, cross-validation, pickle of (dv, model), a service
# trap: dv, model, C, y_pred and scores are bound again and again (experiment, K-fold loop, final training); the file name comes from C, which the loop over C also sets
# follows: https://github.com/DataTalksClub/machine-learning-zoomcamp 03-classification/notebook.ipynb, 04-evaluation/notebook.ipynb and 05-deployment/code/05-train-churn-model.ipynb
# saves: model_C=1.0.bin
# keeps: df.totalcharges.fillna(0) | np.random.seed(2) | np.random.shuffle(idx) | def train(df_train, y_train, C=1.0): | dv, model = train(df_full_train, df_full_train.churn.values, C=C) | pickle.dump((dv, model), f_out)
# drops: mutual_info_score | plt. | KFold | tpr_fpr_dataframe | requests | customer = { | risk | np.linspace
# data: customers.csv

# %% [markdown]
# # Churn, from the raw table to a service
#
# The data are those of the Telco churn set: one row per customer, `Churn` says who left.

# %%
%autosave 0

# %%
import pandas as pd
import numpy as np

import matplotlib.pyplot as plt

%matplotlib inline

# %% [markdown]
# ## 1. Data preparation

# %%
df = pd.read_csv('customers.csv')
df.head().T

# %%
# column names and values in one style: lower case, no blanks
df.columns = df.columns.str.lower().str.replace(' ', '_')

categorical_columns = list(df.select_dtypes(exclude='number').columns)

for c in categorical_columns:
    df[c] = df[c].str.lower().str.replace(' ', '_')

# %%
tc = pd.to_numeric(df.totalcharges, errors='coerce')
df[tc.isnull()][['customerid', 'totalcharges']]

# %%
# new customers have a blank where the total should be: they paid nothing yet
df.totalcharges = pd.to_numeric(df.totalcharges, errors='coerce')
df.totalcharges = df.totalcharges.fillna(0)

df.churn = (df.churn == 'yes').astype(int)
df.churn.head()

# %% [markdown]
# ## 2. Validation framework
#
# By hand: 60 % to train, 20 % to validate, 20 % to test.

# %%
n = len(df)

n_val = int(n * 0.2)
n_test = int(n * 0.2)
n_train = n - n_val - n_test
n_train, n_val, n_test

# %%
idx = np.arange(n)

np.random.seed(2)
np.random.shuffle(idx)

df_train = df.iloc[idx[:n_train]]
df_val = df.iloc[idx[n_train:n_train + n_val]]
df_test = df.iloc[idx[n_train + n_val:]]

df_full_train = pd.concat([df_train, df_val])

# %%
len(df_train), len(df_val), len(df_test)

# %%
df_train = df_train.reset_index(drop=True)
df_val = df_val.reset_index(drop=True)
df_test = df_test.reset_index(drop=True)
df_full_train = df_full_train.reset_index(drop=True)

y_train = df_train.churn.values
y_val = df_val.churn.values
y_test = df_test.churn.values

# so that we do not learn from the answer by accident
del df_train['churn']
del df_val['churn']
del df_test['churn']

# %% [markdown]
# ## 3. EDA

# %%
df_full_train.isnull().sum()

# %%
df_full_train.churn.value_counts(normalize=True)

# %%
global_churn = df_full_train.churn.mean()
round(global_churn, 2)

# %%
numerical = ['tenure', 'monthlycharges', 'totalcharges']

categorical = [
    'gender',
    'seniorcitizen',
    'partner',
    'dependents',
    'phoneservice',
    'multiplelines',
    'internetservice',
    'onlinesecurity',
    'onlinebackup',
    'deviceprotection',
    'techsupport',
    'streamingtv',
    'streamingmovies',
    'contract',
    'paperlessbilling',
    'paymentmethod',
]

# %%
df_full_train[categorical].nunique()

# %% [markdown]
# ### Churn rate and risk ratio

# %%
churn_female = df_full_train[df_full_train.gender == 'female'].churn.mean()
churn_male = df_full_train[df_full_train.gender == 'male'].churn.mean()
print(global_churn - churn_female, global_churn - churn_male)

# %%
from IPython.display import display

for c in categorical:
    print(c)
    df_group = df_full_train.groupby(c).churn.agg(['mean', 'count'])
    df_group['diff'] = df_group['mean'] - global_churn
    df_group['risk'] = df_group['mean'] / global_churn
    display(df_group)

# %% [markdown]
# ### Mutual information

# %%
from sklearn.metrics import mutual_info_score

def mutual_info_churn_score(series):
    return mutual_info_score(series, df_full_train.churn)

mi = df_full_train[categorical].apply(mutual_info_churn_score)
mi.sort_values(ascending=False)

# %%
df_full_train[numerical].corrwith(df_full_train.churn).abs()

# %%
plt.figure(figsize=(6, 4))
plt.hist(df_full_train[df_full_train.churn == 1].tenure, bins=24, alpha=0.6, label='left')
plt.hist(df_full_train[df_full_train.churn == 0].tenure, bins=24, alpha=0.6, label='stayed')
plt.legend()
plt.show()

# %% [markdown]
# ## 4. One-hot encoding and a first model

# %%
from sklearn.feature_extraction import DictVectorizer

dv = DictVectorizer(sparse=False)

train_dict = df_train[categorical + numerical].to_dict(orient='records')
X_train = dv.fit_transform(train_dict)

val_dict = df_val[categorical + numerical].to_dict(orient='records')
X_val = dv.transform(val_dict)

# %%
from sklearn.linear_model import LogisticRegression

model = LogisticRegression(solver='liblinear', random_state=1)
model.fit(X_train, y_train)

# %%
y_pred = model.predict_proba(X_val)[:, 1]
churn_decision = (y_pred >= 0.5)
(y_val == churn_decision).mean()

# %%
dict(zip(dv.get_feature_names_out(), model.coef_[0].round(3)))

# %% [markdown]
# A smaller one, to understand the weights.

# %%
small = ['contract', 'tenure', 'monthlycharges']
dv_small = DictVectorizer(sparse=False)
X_small_train = dv_small.fit_transform(df_train[small].to_dict(orient='records'))
model_small = LogisticRegression(solver='liblinear', random_state=1)
model_small.fit(X_small_train, y_train)
dict(zip(dv_small.get_feature_names_out(), model_small.coef_[0].round(3)))

# %% [markdown]
# ## 5. Metrics
# ### Accuracy at many thresholds

# %%
from sklearn.metrics import accuracy_score

thresholds = np.linspace(0, 1, 21)

scores = []

for t in thresholds:
    score = accuracy_score(y_val, y_pred >= t)
    print('%.2f %.3f' % (t, score))
    scores.append(score)

plt.plot(thresholds, scores)

# %% [markdown]
# ### Confusion table

# %%
actual_positive = (y_val == 1)
actual_negative = (y_val == 0)

t = 0.5
predict_positive = (y_pred >= t)
predict_negative = (y_pred < t)

tp = (predict_positive & actual_positive).sum()
tn = (predict_negative & actual_negative).sum()
fp = (predict_positive & actual_negative).sum()
fn = (predict_negative & actual_positive).sum()

confusion_matrix = np.array([
    [tn, fp],
    [fn, tp],
])
(confusion_matrix / confusion_matrix.sum()).round(2)

# %%
p = tp / (tp + fp)
r = tp / (tp + fn)
p, r

# %% [markdown]
# ### ROC curve

# %%
def tpr_fpr_dataframe(y_val, y_pred):
    scores = []

    for t in np.linspace(0, 1, 101):
        tp = ((y_pred >= t) & (y_val == 1)).sum()
        fp = ((y_pred >= t) & (y_val == 0)).sum()
        fn = ((y_pred < t) & (y_val == 1)).sum()
        tn = ((y_pred < t) & (y_val == 0)).sum()
        scores.append((t, tp / (tp + fn), fp / (fp + tn)))

    return pd.DataFrame(scores, columns=['threshold', 'tpr', 'fpr'])

df_scores = tpr_fpr_dataframe(y_val, y_pred)
df_scores[::10]

# %%
np.random.seed(1)
y_rand = np.random.uniform(0, 1, size=len(y_val))
df_rand = tpr_fpr_dataframe(y_val, y_rand)

plt.figure(figsize=(5, 5))
plt.plot(df_scores.fpr, df_scores.tpr, label='model')
plt.plot(df_rand.fpr, df_rand.tpr, label='random')
plt.legend()

# %%
from sklearn.metrics import roc_auc_score

roc_auc_score(y_val, y_pred)

# %% [markdown]
# ## 6. Cross-validation

# %%
def train(df_train, y_train, C=1.0):
    dicts = df_train[categorical + numerical].to_dict(orient='records')

    dv = DictVectorizer(sparse=False)
    X_train = dv.fit_transform(dicts)

    # the features are not scaled: lbfgs would need many steps, liblinear does not
    model = LogisticRegression(C=C, solver='liblinear', random_state=1)
    model.fit(X_train, y_train)

    return dv, model

# %%
def predict(df, dv, model):
    dicts = df[categorical + numerical].to_dict(orient='records')

    X = dv.transform(dicts)
    y_pred = model.predict_proba(X)[:, 1]

    return y_pred

# %%
from sklearn.model_selection import KFold

n_splits = 3

for C in [0.01, 0.1, 10]:
    kfold = KFold(n_splits=n_splits, shuffle=True, random_state=1)

    scores = []

    for train_idx, val_idx in kfold.split(df_full_train):
        df_train = df_full_train.iloc[train_idx]
        df_val = df_full_train.iloc[val_idx]

        y_train = df_train.churn.values
        y_val = df_val.churn.values

        dv, model = train(df_train, y_train, C=C)
        y_pred = predict(df_val, dv, model)

        scores.append(roc_auc_score(y_val, y_pred))

    print('C=%s %.3f +- %.3f' % (C, np.mean(scores), np.std(scores)))

# %%
scores

# %% [markdown]
# ## 7. The final model

# %%
# nothing in the table above beats the default
C = 1.0

# %%
dv, model = train(df_full_train, df_full_train.churn.values, C=C)
y_pred = predict(df_test, dv, model)

auc = roc_auc_score(y_test, y_pred)
auc

# %% [markdown]
# ## 8. Save it

# %%
import pickle

# %%
output_file = f'model_C={C}.bin'
output_file

# %%
f_out = open(output_file, 'wb')
pickle.dump((dv, model), f_out)
f_out.close()

# %%
!ls -lh *.bin

# %% [markdown]
# Load the model (after a restart of the kernel, say)

# %%
import pickle

# %%
input_file = 'model_C=1.0.bin'

with open(input_file, 'rb') as f_in:
    dv, model = pickle.load(f_in)

model

# %%
customer = {
    'gender': 'female',
    'seniorcitizen': 0,
    'partner': 'yes',
    'dependents': 'no',
    'phoneservice': 'no',
    'multiplelines': 'no_phone_service',
    'internetservice': 'dsl',
    'onlinesecurity': 'no',
    'onlinebackup': 'yes',
    'deviceprotection': 'no',
    'techsupport': 'no',
    'streamingtv': 'no',
    'streamingmovies': 'no',
    'contract': 'month-to-month',
    'paperlessbilling': 'yes',
    'paymentmethod': 'electronic_check',
    'tenure': 1,
    'monthlycharges': 29.85,
    'totalcharges': 29.85,
}

# %%
X = dv.transform([customer])
y_pred = model.predict_proba(X)[0, 1]

print('input:', customer)
print('output:', y_pred)

# %% [markdown]
# ## 9. Ask the service

# %% count=none
import requests

url = 'http://localhost:9696/predict'
response = requests.post(url, json=customer).json()
response

# %% count=none
if response['churn']:
    print('sending email to', 'asdx-123d')
