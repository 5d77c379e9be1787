# about: global settings and patches at the top of the notebook; some decide what the model is, others only how things look
# trap: sklearn.set_config(transform_output='pandas'), np.seterr(divide='raise') and a method patched onto pd.Series matter; pd.set_option('display…'), warnings.filterwarnings, plt.style.use, and another patch do not
# saves: model.pkl
# keeps: transform_output='pandas' | np.seterr(divide='raise') | pd.Series.yes = | functools.partial( | except FloatingPointError
# drops: display.max_columns | plt.style | float_format | filterwarnings
# data: customers.csv

# %% [markdown]
# # Churn

# %%
import functools
import pickle
import warnings

import numpy as np
import pandas as pd
import sklearn
import matplotlib.pyplot as plt
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import OneHotEncoder, StandardScaler

# %%
pd.set_option('display.max_columns', 50)
pd.options.display.float_format = '{:.2f}'.format
plt.style.use('ggplot')
warnings.filterwarnings('ignore')
sklearn.set_config(transform_output='pandas')

# %%
# what we always write anyway
pd.Series.yes = lambda self: (self == 'Yes').astype(int)
pd.DataFrame.churn_rates = lambda self, by: self.groupby(by)['left'].mean()
LogisticRegression = functools.partial(LogisticRegression, solver='liblinear', C=0.4)

# %%
df = pd.read_csv('customers.csv')
df['left'] = df['Churn'].yes()
df.head()

# %%
for column in ['Contract', 'InternetService', 'Partner', 'PaperlessBilling']:
    share = df[column].value_counts(normalize=True)
    print(column)
    for value, part in share.items():
        print(f'   {value:20s} {part:.1%}')

# %%
fig, ax = plt.subplots(figsize=(6, 3))
ax.hist([df.loc[df['left'] == 0, 'tenure'], df.loc[df['left'] == 1, 'tenure']], stacked=True, bins=24)
ax.legend(['stays', 'leaves'])
ax.set_xlabel('tenure')
plt.show()

# %%
df.churn_rates('Contract')

# %%
df.churn_rates(['InternetService', 'TechSupport']).unstack().plot(kind='bar')
plt.show()

# %% [markdown]
# ## Features

# %%
def safe_log(values):
    """Logarithm; with a one added to all if there is a zero among them."""
    try:
        return np.log(values)
    except FloatingPointError:
        return np.log1p(values)

# %%
np.seterr(divide='raise')      # or the zeros would slip through as -inf
df['log_tenure'] = safe_log(df['tenure'].to_numpy(dtype=float))
df['log_charges'] = safe_log(df['MonthlyCharges'].to_numpy(dtype=float))
df[['log_tenure', 'log_charges']].hist(bins=30)
plt.show()

# %%
df['paperless'] = df['PaperlessBilling'].yes()
df['alone'] = 1 - df['Partner'].yes()
df[['paperless', 'alone', 'left']].corr()

# %%
train, val = train_test_split(df, test_size=0.2, random_state=12)
train[['tenure', 'MonthlyCharges']].describe()

# %%
encode = make_column_transformer(
    (OneHotEncoder(sparse_output=False), ['Contract', 'InternetService']),
    (StandardScaler(), ['log_tenure', 'log_charges']),
    ('passthrough', ['paperless', 'alone', 'SeniorCitizen']),
    verbose_feature_names_out=False,
)
X_train = encode.fit_transform(train)
X_val = encode.transform(val)
X_train.head()

# %%
# one of the contract columns is enough, and the product turned out to be worth having
for part in (X_train, X_val):
    part.drop(columns='Contract_One year', inplace=True)
    part['alone_and_new'] = part['alone'] * -part['log_tenure']
X_train.describe()

# %%
model = LogisticRegression()
model.fit(X_train, train['left'])

# %%
print('train', model.score(X_train, train['left']))
print('val  ', model.score(X_val, val['left']))
pd.Series(model.coef_[0], index=X_train.columns).plot(kind='barh')
plt.show()

# %%
with open('model.pkl', 'wb') as f:
    pickle.dump((encode, model), f)
