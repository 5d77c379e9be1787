# about: the usual course notebook on churn: a look at the data, cross-validation, the final model, its file, a question to the running service
# trap: the loop over folds sets dv and model, as the final fit does; what comes after the file needs a service that does not run
# follows: https://github.com/DataTalksClub/machine-learning-zoomcamp 05-deployment (notebook, train.py and predict-test.py)
# saves: model_C=1.0.bin
# keeps: train_test_split(df, test_size= | def train | def predict | dv, model = train(df_full_train, df_full_train.churn.values, C=C) | pickle.dump((dv, model), f_out)
# drops: requests | KFold | hist | customer = { | value_counts | n_splits
# data: customers.csv

# %% [markdown]
# # Customers who leave

# %%
import pandas as pd
import numpy as np
import matplotlib.pyplot as plt

from sklearn.model_selection import train_test_split
from sklearn.model_selection import KFold

from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

%matplotlib inline

# %% [markdown]
# ## Data preparation

# %%
data = 'customers.csv'
df = pd.read_csv(data)
df.head().T

# %%
df.columns = df.columns.str.lower().str.replace(' ', '_')

categorical_columns = list(df.select_dtypes(exclude='number').columns)

for c in categorical_columns:
    df[c] = df[c].str.lower().str.replace(' ', '_')

df.totalcharges = pd.to_numeric(df.totalcharges, errors='coerce')
df.totalcharges = df.totalcharges.fillna(0)

df.churn = (df.churn == 'yes').astype(int)

# %%
df.churn.value_counts(normalize=True)

# %%
plt.hist(df.tenure, bins=20)
plt.show()

# %%
df_full_train, df_test = train_test_split(df, test_size=0.2, random_state=1)
len(df_full_train), len(df_test)

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

# %%
for c in categorical:
    print(c, df_full_train.groupby(c).churn.mean().round(2).to_dict())

# %%
def train(df_train, y_train, C=1.0):
    dicts = df_train[categorical + numerical].to_dict(orient='records')

    dv = DictVectorizer(sparse=False)
    X_train = dv.fit_transform(dicts)

    model = LogisticRegression(C=C, max_iter=1000)
    model.fit(X_train, y_train)

    return dv, model

# %%
def predict(df, dv, model):
    dicts = df[categorical + numerical].to_dict(orient='records')

    X = dv.transform(dicts)
    y_pred = model.predict_proba(X)[:, 1]

    return y_pred

# %%
C = 1.0
n_splits = 5

# %%
kfold = KFold(n_splits=n_splits, shuffle=True, random_state=1)

scores = []

for train_idx, val_idx in kfold.split(df_full_train):
    df_train = df_full_train.iloc[train_idx]
    df_val = df_full_train.iloc[val_idx]

    y_train = df_train.churn.values
    y_val = df_val.churn.values

    dv, model = train(df_train, y_train, C=C)
    y_pred = predict(df_val, dv, model)

    auc = roc_auc_score(y_val, y_pred)
    scores.append(auc)

print('C=%s %.3f +- %.3f' % (C, np.mean(scores), np.std(scores)))

# %%
scores

# %%
dv, model = train(df_full_train, df_full_train.churn.values, C=C)
y_pred = predict(df_test, dv, model)

y_test = df_test.churn.values
auc = roc_auc_score(y_test, y_pred)
auc

# %% [markdown]
# ## Save the model

# %%
import pickle

# %%
output_file = f'model_C={C}.bin'

# %%
with open(output_file, 'wb') as f_out:
    pickle.dump((dv, model), f_out)

# %%
!ls -lh *.bin

# %% [markdown]
# ## Load the model

# %%
with open('model_C=1.0.bin', 'rb') as f_in:
    dv, model = pickle.load(f_in)

dv, model

# %%
customer = {
    'gender': 'female',
    'seniorcitizen': 0,
    'partner': 'yes',
    'dependents': 'no',
    'tenure': 1,
    'monthlycharges': 29.85,
    'totalcharges': 29.85
}

# %%
X = dv.transform([customer])
model.predict_proba(X)[0, 1]

# %% [markdown]
# ## Ask the service

# %%
import requests

url = 'http://localhost:9696/predict'
response = requests.post(url, json=customer).json()
response

# %%
if response['churn']:
    print('sending a letter to', 'xyz-123')
