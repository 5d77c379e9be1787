# about: a notebook with a toolbox of own functions; some change the frame they are given, some only look at it
# trap: user functions called as bare statements: clean(df), prepare(df), top_up(features, …) mutate their argument; peek(df), missing(df), compare(df, …) do not (peek changes a copy)
# saves: churn-model.bin
# keeps: clean(df) | prepare(df) | top_up(features | def _target | def _services | frame['TotalCharges'] =
# drops: peek(df) | missing(df) | compare( | def peek | short_id | matplotlib
# data: customers.csv

# %% [markdown]
# # Churn with a toolbox
#
# The functions were collected over several projects.

# %%
import pickle
import pandas as pd
import matplotlib.pyplot as plt
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score
from sklearn.model_selection import train_test_split

# %%
def missing(frame):
    """How many values are missing, per column."""
    counts = frame.isna().sum()
    print(counts[counts > 0] if counts.any() else 'nothing is missing')


def peek(frame, n=3):
    """The first rows, in a form that fits the screen."""
    small = frame.head(n).copy()
    small['short_id'] = small['customerID'].str[:4]
    small.drop(columns=['customerID'], inplace=True)
    print(small.T)


def clean(frame):
    """Put the charges right. Changes the frame itself."""
    frame['TotalCharges'] = pd.to_numeric(frame['TotalCharges'], errors='coerce')
    empty = frame['TotalCharges'].isna()
    frame.loc[empty, 'TotalCharges'] = frame.loc[empty, 'MonthlyCharges']

# %%
def compare(frame, column):
    rates = frame.groupby(column)['left'].mean()
    rates.plot(kind='barh', title=column)
    plt.show()
    return rates


def _target(frame):
    frame['left'] = (frame['Churn'] == 'Yes').astype(int)


def _services(frame, names=('OnlineSecurity', 'OnlineBackup', 'TechSupport')):
    frame['n_services'] = sum((frame[name] == 'Yes').astype(int) for name in names)


def prepare(frame):
    _target(frame)
    _services(frame)
    return frame


def top_up(names, *more):
    # names that are in already stay where they are
    names.extend(name for name in more if name not in names)

# %%
df = pd.read_csv('customers.csv')
peek(df)

# %%
missing(df)

# %%
clean(df)
missing(df)

# %%
# returns the frame as well, but nobody takes it
prepare(df)

# %%
peek(df, n=5)

# %%
compare(df, 'Contract')

# %%
compare(df, 'n_services')

# %% [markdown]
# ## Features
# Start from the contract data; the service count came later and turned out to help.

# %%
features = ['Contract', 'tenure', 'MonthlyCharges']
top_up(features, 'TotalCharges', 'n_services', 'tenure')
print(features)

# %%
train, test = train_test_split(df, test_size=0.2, random_state=5)
missing(train)

# %%
dv = DictVectorizer(sparse=False)
X_train = dv.fit_transform(train[features].to_dict(orient='records'))
model = LogisticRegression(solver='liblinear', C=2.0)
model.fit(X_train, train['left'].values)

# %%
X_test = dv.transform(test[features].to_dict(orient='records'))
print('accuracy', accuracy_score(test['left'], model.predict(X_test)))
print('always "stays"', 1 - test['left'].mean())

# %%
with open('churn-model.bin', 'wb') as f_out:
    pickle.dump((dv, model), f_out)
