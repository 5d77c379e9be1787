# about: training functions that read feature list, vectorizer and solver from globals set later in the notebook
# trap: functions read globals that are defined after them and changed between calls; a default argument (strength=C) that is bound when def runs, although C changes later
# saves: model.bin
# keeps: strength=C | SOLVER = 'liblinear' | features = ['Contract' | dv = DictVectorizer | def records | def train
# drops: C = 25 | SOLVER = 'lbfgs' | features = ['tenure', 'MonthlyCharges'] | features = ['gender'] | first_try | matplotlib
# data: customers.csv

# %% [markdown]
# # Trying feature sets
# The functions come first, what they work with comes below.

# %%
import pickle
import pandas as pd
import matplotlib.pyplot as plt
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split

# %%
C = 0.7

# %%
def records(frame):
    # `features` is set further down
    return frame[features].to_dict(orient='records')


def train(frame, strength=C):
    X = dv.fit_transform(records(frame))
    fitted = LogisticRegression(C=strength, solver=SOLVER, max_iter=500)
    fitted.fit(X, frame['left'].values)
    return fitted


def auc(fitted, frame):
    p = fitted.predict_proba(dv.transform(records(frame)))[:, 1]
    return round(roc_auc_score(frame['left'], p), 4)

# %%
df = pd.read_csv('customers.csv')
df['left'] = (df['Churn'] == 'Yes').astype(int)
df['left'].mean()

# %%
df_train, df_val = train_test_split(df, test_size=0.25, random_state=9)
df_train['Contract'].value_counts(normalize=True)

# %% [markdown]
# ## First try: two numbers

# %%
features = ['tenure', 'MonthlyCharges']
SOLVER = 'lbfgs'
dv = DictVectorizer(sparse=False)
first_try = train(df_train)
print('two numbers:', auc(first_try, df_val))

# %%
df_train.plot.scatter('tenure', 'MonthlyCharges', c='left', colormap='coolwarm', s=5)
plt.show()

# %% [markdown]
# ## Second try: what the contract says

# %%
features = ['Contract', 'InternetService', 'PaymentMethod', 'tenure', 'MonthlyCharges']
SOLVER = 'liblinear'     # quicker on the dummies

# %%
# does the penalty matter at all?
for c in [0.01, 0.1, 1, 10]:
    print(c, auc(train(df_train, strength=c), df_val))

# %%
C = 25
print('weak penalty:', auc(train(df_train, C), df_val))

# %%
# no: back to where we were, with a vectorizer that has seen nothing yet
dv = DictVectorizer(sparse=False)
model = train(df_train)
print('contract data:', auc(model, df_val))

# %%
weights = pd.Series(model.coef_[0], index=dv.get_feature_names_out())
weights.sort_values().plot(kind='barh')
plt.show()

# %%
with open('model.bin', 'wb') as f:
    pickle.dump((dv, model), f)

# %%
# for the minutes of the meeting: does gender alone tell anything?
features = ['gender']
print('gender only:', auc(train(df_train), df_val))
