# about: a pipeline whose settings are changed by item and attribute assignment before and after the fit
# trap: config['depth'] = 5, run.seed = 21, pipe.named_steps['clf'].C = 0.2, pipe.set_params(…), an attribute set on the fitted pipeline that is pickled with it; the same on objects that do not matter
# saves: pipeline.pkl
# keeps: config['depth'] = 5 | run.seed = 21 | pipe.named_steps['clf'].C = 0.2 | pipe.set_params(scale__with_mean=False) | pipe.threshold = 0.35
# drops: other.named_steps | plt.rcParams | precision_score
# trims: config['title'] | config['size']
# data: customers.csv

# %% [markdown]
# # A pipeline in one piece

# %%
import pickle
from types import SimpleNamespace

import pandas as pd
import matplotlib.pyplot as plt
from sklearn.base import clone
from sklearn.feature_extraction import DictVectorizer
from sklearn.feature_selection import SelectFromModel
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import precision_score, recall_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

# %%
config = {'depth': 3, 'C': 1.0}
run = SimpleNamespace(seed=1, test_size=0.2)
plt.rcParams['axes.grid'] = True

# %%
df = pd.read_csv('customers.csv')
df['left'] = df.pop('Churn').eq('Yes').astype(int)
df.head()

# %%
config['title'] = 'Months with us'
config['size'] = (8, 3)
df['tenure'].hist(bins=36, figsize=config['size'])
plt.title(config['title'])
plt.show()

# %%
# the customer number says nothing, the text of TotalCharges too much
records = df.drop(columns=['customerID', 'TotalCharges', 'left']).to_dict(orient='records')
records[0]

# %% [markdown]
# ## Settings from the last meeting

# %%
config['depth'] = 5
run.seed = 21
print(config, run)

# %%
train_rec, test_rec, y_train, y_test = train_test_split(
    records, df['left'].values, test_size=run.test_size, random_state=run.seed)

# %%
picker = DecisionTreeClassifier(max_depth=config['depth'], random_state=run.seed)
pipe = Pipeline([
    ('vec', DictVectorizer(sparse=False)),
    ('select', SelectFromModel(picker)),      # only columns that a small tree would ask for
    ('scale', StandardScaler()),
    ('clf', LogisticRegression(C=config['C'], max_iter=1000)),
])

# %%
other = clone(pipe)
other.named_steps['clf'].C = 100
other.fit(train_rec, y_train)
print('weak penalty:', other.score(test_rec, y_test))

# %%
pipe.named_steps['clf'].C = 0.2
pipe.set_params(scale__with_mean=False)
pipe.fit(train_rec, y_train)
print('strong penalty:', pipe.score(test_rec, y_test))

# %%
names = pipe.named_steps['vec'].get_feature_names_out()
print(names[pipe.named_steps['select'].get_support()])

# %% [markdown]
# ## Whom to call?

# %%
p = pipe.predict_proba(test_rec)[:, 1]
for cut in [0.2, 0.35, 0.5, 0.65]:
    print(cut, round(precision_score(y_test, p >= cut, zero_division=0), 2), round(recall_score(y_test, p >= cut), 2))

# %%
# the service reads it from the pipeline
pipe.threshold = 0.35

# %%
with open('pipeline.pkl', 'wb') as f:
    pickle.dump(pipe, f)
