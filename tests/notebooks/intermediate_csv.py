# about: part one cleans the data and writes a CSV, part two starts again from that CSV; two more CSVs are for other people
# trap: intermediate file: to_csv with float_format and a row filter, read back under another name, so the file (not the frame in memory) is what the model is made from; to_csv that nobody reads
# saves: model.pkl
# keeps: to_csv('clean_customers.csv' | data = pd.read_csv('clean_customers.csv') | float_format='%.0f' | df = df.dropna
# drops: rate_by_contract.csv | for_sales.csv | check = | dearer | matplotlib
# data: customers.csv

# %% [markdown]
# # Part 1: cleaning

# %%
import pickle
import pandas as pd
import matplotlib.pyplot as plt
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split

# %%
df = pd.read_csv('customers.csv')
df['TotalCharges'] = pd.to_numeric(df['TotalCharges'], errors='coerce')
df.isna().sum()

# %%
# no bill yet, nothing to learn from
df = df.dropna(subset=['TotalCharges'])
df = df.rename(columns=str.lower)
print(len(df), 'customers')

# %%
df['churn'] = (df['churn'] == 'Yes').astype(int)
df['yearly'] = (df['contract'] != 'Month-to-month').astype(int)
df['fiber'] = (df['internetservice'] == 'Fiber optic').astype(int)
df['per_month'] = df['totalcharges'] / df['tenure']

# %%
rates = df.groupby('contract')['churn'].agg(['mean', 'size'])
rates.to_csv('rate_by_contract.csv')
rates

# %%
kept = ['customerid', 'tenure', 'monthlycharges', 'per_month', 'seniorcitizen', 'yearly', 'fiber', 'churn']
# whole dollars are exact enough, and the file is smaller
df[kept].sort_values('customerid').to_csv('clean_customers.csv', index=False, float_format='%.0f')

# %%
check = pd.read_csv('clean_customers.csv', nrows=3)
check

# %%
df[df['churn'] == 0].nlargest(50, 'totalcharges')[['customerid', 'totalcharges']].to_csv('for_sales.csv', index=False)

# %%
df['per_month'].hist(bins=40)
plt.show()

# %% [markdown]
# # Part 2: the model
# From here on only the clean file is needed.

# %%
data = pd.read_csv('clean_customers.csv')
data.head()

# %%
data.describe()

# %%
y = data.pop('churn')
X = data.drop(columns='customerid')
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.2, random_state=10)

# %%
y_train.value_counts(normalize=True)

# %%
model = GradientBoostingClassifier(n_estimators=70, max_depth=2, random_state=10)
model.fit(X_train, y_train)

# %%
for part, X_part, y_part in [('train', X_train, y_train), ('test', X_test, y_test)]:
    print(part, round(roc_auc_score(y_part, model.predict_proba(X_part)[:, 1]), 3))

# %%
plt.barh(X.columns, model.feature_importances_)
plt.show()

# %%
with open('model.pkl', 'wb') as f:
    pickle.dump(model, f)

# %%
# what if prices go up by a tenth?
dearer = X.assign(monthlycharges=X['monthlycharges'] * 1.1)
print(model.predict_proba(X)[:, 1].mean(), '->', model.predict_proba(dearer)[:, 1].mean())
