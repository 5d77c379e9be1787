# about: churn model on a frame that gets new and changed columns in almost every cell
# trap: df['x'] = … in place, several times and in an order that matters; some columns feed the model, others only plots or nothing
# saves: model.pkl
# keeps: df.loc[df['TotalCharges'].isna(), 'TotalCharges'] = 0 | df['n_services'] = | df['bill_jump'] = | df['tenure'] = df['tenure'].clip(upper=60) | df['contract_months'] = df['contract_months'] / 12
# drops: df['score'] | matplotlib
# trims: tenure_group | is_fiber | charge_rank
# data: customers.csv

# %% [markdown]
# # Who is about to leave?
#
# A small model for the retention team. They want a number per customer, not a report.

# %%
import pickle

import numpy as np
import pandas as pd
import matplotlib.pyplot as plt

from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split

# %%
df = pd.read_csv('customers.csv')
df.shape

# %%
df.head()

# %%
df.isnull().sum()

# %% [markdown]
# ## Cleaning
#
# `TotalCharges` comes as text.

# %%
# a blank stands for a customer who has not had a bill yet
df['TotalCharges'] = pd.to_numeric(df['TotalCharges'], errors='coerce')
print('no bill yet:', df['TotalCharges'].isna().sum())
df.loc[df['TotalCharges'].isna(), 'TotalCharges'] = 0
df['TotalCharges'].describe()

# %%
df['Churn'] = (df['Churn'] == 'Yes').astype(int)
print('share of leavers:', round(df['Churn'].mean(), 3))

# %% [markdown]
# ## A look at it

# %%
df['tenure_group'] = pd.cut(df['tenure'], [-1, 6, 12, 24, 48, 100])
df.groupby('tenure_group', observed=True)['Churn'].mean().plot(kind='bar')
plt.ylabel('share of leavers')
plt.show()

# %%
df['is_fiber'] = df['InternetService'] == 'Fiber optic'
pd.crosstab(df['is_fiber'], df['Churn'], normalize='index')

# %%
df['charge_rank'] = df['MonthlyCharges'].rank(pct=True)
plt.hist(df.loc[df['Churn'] == 1, 'charge_rank'], bins=20)
plt.show()

# %% [markdown]
# ## Features

# %%
services = ['OnlineSecurity', 'OnlineBackup', 'DeviceProtection', 'TechSupport', 'StreamingTV', 'StreamingMovies']
df['n_services'] = (df[services] == 'Yes').sum(axis=1)
df.groupby('n_services')['Churn'].mean()

# %%
# what the customer pays now, less what they paid on average
df['bill_jump'] = df['MonthlyCharges'] - df['TotalCharges'] / df['tenure'].replace(0, 1)
df['bill_jump'].hist(bins=40)
plt.show()

# %%
# beyond five years nothing changes any more (only now: bill_jump needs the true tenure)
df['tenure'] = df['tenure'].clip(upper=60)
df['contract_months'] = df['Contract'].map({'Month-to-month': 1, 'One year': 12, 'Two year': 24})
df['contract_months'] = df['contract_months'] / 12
df['paperless'] = (df['PaperlessBilling'] == 'Yes').astype(int)
df[['tenure', 'contract_months', 'paperless', 'Churn']].corr()

# %%
columns = ['tenure', 'n_services', 'bill_jump', 'contract_months', 'paperless', 'SeniorCitizen']
X = df[columns]
y = df['Churn']
X_train, X_val, y_train, y_val = train_test_split(X, y, test_size=0.25, random_state=3)
print(len(X_train), len(X_val))

# %%
model = LogisticRegression(C=0.5, solver='liblinear')
model.fit(X_train, y_train)

# %%
p = model.predict_proba(X_val)[:, 1]
print('auc', round(roc_auc_score(y_val, p), 3))
for name, weight in zip(columns, model.coef_[0]):
    print(f'{name:20s} {weight:+.3f}')

# %%
with open('model.pkl', 'wb') as f:
    pickle.dump(model, f)

# %%
df['score'] = model.predict_proba(X)[:, 1]
df.sort_values('score', ascending=False)[['customerID', 'score']].head(10)
