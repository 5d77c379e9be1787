# about: churn boosting with three cells that were never run in this session
# trap: cells without an execution count (edited after the run, or never run) that would change the model, or crash; they must not get into the script
# saves: boosting.pkl
# keeps: df['TotalCharges'].fillna(0) | max_leaf_nodes=8 | features = ['tenure'
# drops: features.remove | df = df[df['tenure'] > 0] | learning_rate=0.5 | discounts | matplotlib
# data: customers.csv

# %% [markdown]
# # Boosting

# %% count=1
import pickle
import numpy as np
import pandas as pd
import matplotlib.pyplot as plt
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split

# %% count=2
df = pd.read_csv('customers.csv')
df.tail()

# %% count=3
df['TotalCharges'] = pd.to_numeric(df['TotalCharges'], errors='coerce')
df['TotalCharges'] = df['TotalCharges'].fillna(0)
df['left'] = np.where(df['Churn'] == 'Yes', 1, 0)

# %% count=5
df[df['tenure'] == 0]

# %% count=none
# or throw the new customers out altogether?
df = df[df['tenure'] > 0]
len(df)

# %% count=6
df['left'].groupby(df['tenure']).mean().plot()
plt.show()

# %% count=7
features = ['tenure', 'MonthlyCharges', 'TotalCharges', 'SeniorCitizen', 'long_contract', 'auto_pay']
df['long_contract'] = (df['Contract'] != 'Month-to-month').astype(int)
df['auto_pay'] = df['PaymentMethod'].isin(['Bank transfer (automatic)', 'Credit card (automatic)']).astype(int)
df[features].describe().T

# %% count=none
# nearly the same as tenure times monthly charges
features.remove('TotalCharges')

# %% count=none
# waiting for the file from sales
discounts = pd.read_csv('discounts_2024.csv')
df = df.merge(discounts, on='customerID', how='left')
features.append('discount')

# %% count=9
X_train, X_val, y_train, y_val = train_test_split(df[features], df['left'], test_size=0.25, random_state=13)
print(X_train.shape)

# %% count=12
model = GradientBoostingClassifier(n_estimators=60, max_leaf_nodes=8, random_state=13)
model.fit(X_train, y_train)

# %% count=none
# quicker steps, fewer trees
model = GradientBoostingClassifier(n_estimators=15, learning_rate=0.5, random_state=13)
model.fit(X_train, y_train)

# %% count=13
print('loss, train', round(log_loss(y_train, model.predict_proba(X_train)), 4))
print('loss, val  ', round(log_loss(y_val, model.predict_proba(X_val)), 4))

# %% count=14
steps = [log_loss(y_val, p) for p in model.staged_predict_proba(X_val)]
plt.plot(steps)
plt.xlabel('trees')
plt.show()
print('best after', int(np.argmin(steps)) + 1, 'trees')

# %% [markdown]
# Good enough for the pilot.

# %% count=15
with open('boosting.pkl', 'wb') as f:
    pickle.dump(model, f)
