# about: vectorizer and logistic regression with cross-validation over C before the final fit
# trap: the trial split and the cross-validation loops set the same names (dv, model, C, part, y) as the final fit; only the last assignment counts, also for the file name
# follows: https://github.com/DataTalksClub/machine-learning-zoomcamp 05-deployment/code/05-train-churn-model.ipynb (order of the steps)
# saves: churn-C0.5.bin
# keeps: def fit_on | dv, model = fit_on(part, y, C) | default=0.5 | part, y = rest, rest['Churn'] | target_file = | pickle.dump((dv, model)
# drops: KFold | per_fold | rest.iloc
# data: customers.csv

# %% [markdown]
# # Churn: choosing C by cross-validation

# %%
import pickle

import numpy as np
import pandas as pd
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import KFold, train_test_split

# %%
df = pd.read_csv('customers.csv')
df['TotalCharges'] = pd.to_numeric(df['TotalCharges'], errors='coerce').fillna(0)
df['Churn'] = df['Churn'].map({'No': 0, 'Yes': 1})
df.head()

# %%
rest, hold = train_test_split(df, test_size=0.2, random_state=15)
print(len(rest), 'to work with,', len(hold), 'for the very end')

# %%
used = ['Contract', 'InternetService', 'TechSupport', 'PaymentMethod', 'Partner',
        'tenure', 'MonthlyCharges', 'TotalCharges']

# %%
def fit_on(part, y, C=1.0):
    # the vectorizer learns the categories from these rows only
    dv = DictVectorizer(sparse=False)
    X = dv.fit_transform(part[used].to_dict('records'))
    model = LogisticRegression(C=C, solver='liblinear')
    return dv, model.fit(X, y)

# %%
def probability(part, dv, model):
    X = dv.transform(part[used].to_dict('records'))
    return model.predict_proba(X)[:, 1]

# %% [markdown]
# ## One split, to see that it works

# %%
part, y = rest.iloc[:700], rest['Churn'].iloc[:700]
dv, model = fit_on(part, y)
roc_auc_score(rest['Churn'].iloc[700:], probability(rest.iloc[700:], dv, model))

# %%
pd.Series(model.coef_[0], dv.get_feature_names_out()).sort_values()

# %% [markdown]
# ## Which C?

# %%
folds = KFold(3, shuffle=True, random_state=15)
for C in [0.01, 0.1, 0.5, 5]:
    per_fold = []
    for inside, outside in folds.split(rest):
        part, y = rest.iloc[inside], rest['Churn'].iloc[inside]
        dv, model = fit_on(part, y, C)
        p = probability(rest.iloc[outside], dv, model)
        per_fold.append(roc_auc_score(rest['Churn'].iloc[outside], p))
    print(f'{C:6} {np.mean(per_fold):.4f}, from {min(per_fold):.4f} to {max(per_fold):.4f}')

# %%
per_fold

# %% [markdown]
# ## The final model
# Beyond one half there is nothing to gain.

# %%
C = 0.5
part, y = rest, rest['Churn']
dv, model = fit_on(part, y, C)

# %%
p_hold = probability(hold, dv, model)
print('on the rows that were held back:', roc_auc_score(hold['Churn'], p_hold))

# %%
target_file = f'churn-C{C}.bin'
target_file

# %%
with open(target_file, 'wb') as f:
    pickle.dump((dv, model), f)

# %%
dv, model = pickle.load(open(target_file, 'rb'))
probability(hold.head(3), dv, model)
