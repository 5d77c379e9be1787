# about: column names and text values are made uniform first, dummy names are tidied up later
# trap: df.columns = df.columns.str.lower().str.replace(…) — an attribute assignment on which every later name depends; the same on dummies (feature_names_in_) and on a table that is only shown
# follows: https://github.com/DataTalksClub/machine-learning-zoomcamp 03-classification/notebook.ipynb (the preparation part)
# saves: churn_tree.joblib
# keeps: df.columns = df.columns.str.lower() | df[name] = df[name].str.lower() | X.columns = X.columns.str.replace
# drops: rates.columns | mutual_info_score | seaborn | export_text
# data: customers.csv

# %% [markdown]
# # Churn, with a tree one can read

# %%
import joblib
import pandas as pd
import seaborn as sns
import matplotlib.pyplot as plt
from sklearn.metrics import mutual_info_score, roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.tree import DecisionTreeClassifier, export_text

# %%
df = pd.read_csv('customers.csv')
df.head().T

# %% [markdown]
# The names are a mix of styles. One style for names and values, then nobody has to think about it.

# %%
df.columns = df.columns.str.lower().str.replace(' ', '_')

texts = df.select_dtypes(exclude='number').columns
for name in texts:
    df[name] = df[name].str.lower().str.replace(' ', '_')

# %%
df.head().T

# %%
# '_' was a blank: customers in their first month
df.totalcharges = pd.to_numeric(df.totalcharges, errors='coerce').fillna(0)
df.churn = df.churn.map({'no': 0, 'yes': 1})

# %%
df.churn.value_counts(normalize=True)

# %%
numerical = ['tenure', 'monthlycharges', 'totalcharges', 'seniorcitizen']
categorical = ['contract', 'internetservice', 'paymentmethod', 'techsupport', 'onlinesecurity', 'multiplelines']
df[categorical].nunique()

# %% [markdown]
# ## Which groups leave?

# %%
overall = df.churn.mean()
for c in categorical:
    rates = df.groupby(c).churn.agg(['mean', 'count'])
    rates.columns = ['churn_rate', 'customers']
    rates['risk'] = rates.churn_rate / overall
    print(rates, '\n')

# %%
def shared_with_churn(series):
    return mutual_info_score(series, df.churn)

df[categorical].apply(shared_with_churn).sort_values(ascending=False)

# %%
sns.boxplot(data=df, x='churn', y='tenure')
plt.show()

# %% [markdown]
# ## Features

# %%
X = pd.get_dummies(df[numerical + categorical], columns=categorical, dtype=int)
X.columns[:12]

# %%
# 'paymentmethod_bank_transfer_(automatic)' upsets the scoring service
X.columns = X.columns.str.replace(r'[^a-z0-9_]+', '', regex=True)
print(sorted(X.columns))

# %%
X_train, X_val, y_train, y_val = train_test_split(X, df.churn, test_size=0.2, random_state=1)

# %%
for depth in [2, 4, 6, 10]:
    trial = DecisionTreeClassifier(max_depth=depth, random_state=0).fit(X_train, y_train)
    print(depth, round(roc_auc_score(y_val, trial.predict_proba(X_val)[:, 1]), 3))

# %%
tree = DecisionTreeClassifier(max_depth=4, min_samples_leaf=20, random_state=0)
tree.fit(X_train, y_train)
print(export_text(tree, feature_names=list(X_train.columns)))

# %%
joblib.dump(tree, 'churn_tree.joblib')
