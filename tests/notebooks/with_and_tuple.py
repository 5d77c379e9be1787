# about: data read line by line in a with-block, feature list through a JSON file, fit inside catch_warnings, (dv, model) pickled as a tuple and unpickled again
# trap: with-blocks that matter (csv.DictReader, json.dump/json.load, catch_warnings around the fit, pickle) and that do not (option_context, first line, notes); dv and model are set again by pickle.load after the saving
# saves: churn.bin
# keeps: csv.DictReader | json.dump( | json.load( | model.fit(X_train | pickle.dump((dv, model), f_out)
# drops: option_context | notes | readline | pickle.load | predict_proba | matplotlib
# data: customers.csv

# %% [markdown]
# # Churn: vectorizer and model in one file

# %%
import csv
import json
import pickle
import warnings

import pandas as pd
import matplotlib.pyplot as plt
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import LogisticRegression

# %%
with open('customers.csv') as f:
    print(f.readline())
    print(f.readline())

# %%
with open('customers.csv', newline='') as f:
    rows = list(csv.DictReader(f))
len(rows)

# %%
df = pd.DataFrame(rows)
with pd.option_context('display.max_columns', None, 'display.width', 200):
    print(df.head(3))

# %%
# everything is text so far
df['tenure'] = df['tenure'].astype(int)
df['MonthlyCharges'] = df['MonthlyCharges'].astype(float)
df['left'] = (df['Churn'] == 'Yes').astype(int)
df.dtypes

# %%
with plt.style.context('ggplot'):
    df.boxplot('MonthlyCharges', by='left')
    plt.show()

# %% [markdown]
# ## Features
# The service reads the same list, so it goes into a file.

# %%
wanted = {'categorical': ['Contract', 'InternetService', 'TechSupport', 'SeniorCitizen'],
          'numerical': ['tenure', 'MonthlyCharges']}
with open('features.json', 'w') as f:
    json.dump(wanted, f, indent=2)

# %%
notes = open('notes.txt', 'w')
notes.write(f'{len(df)} customers, {df["left"].sum()} have left\n')
notes.close()

# %%
with open('features.json') as f:
    features = json.load(f)
columns = features['categorical'] + features['numerical']
columns

# %%
df[features['numerical'] + ['left']].groupby('left').mean()

# %%
last = int(len(df) * 0.8)
train, test = df[:last], df[last:]
print(train['left'].mean(), test['left'].mean())

# %%
dv = DictVectorizer(sparse=False)
X_train = dv.fit_transform(train[columns].to_dict(orient='records'))
dv.get_feature_names_out()

# %%
with warnings.catch_warnings():
    # 40 steps are not quite enough, and that is all right
    warnings.simplefilter('ignore')
    model = LogisticRegression(max_iter=40)
    model.fit(X_train, train['left'].values)
    print('steps:', model.n_iter_)

# %%
X_test = dv.transform(test[columns].to_dict(orient='records'))
print('accuracy', model.score(X_test, test['left'].values))

# %%
with open('churn.bin', 'wb') as f_out:
    pickle.dump((dv, model), f_out)

# %% [markdown]
# ## Does it work from the file?

# %%
with open('churn.bin', 'rb') as f_in:
    dv, model = pickle.load(f_in)

# %%
customer = {'Contract': 'Two year', 'InternetService': 'DSL', 'TechSupport': 'Yes', 'SeniorCitizen': '0',
            'tenure': 30, 'MonthlyCharges': 61.5}
X = dv.transform([customer])
print('leaves' if model.predict_proba(X)[0, 1] > 0.5 else 'stays')
