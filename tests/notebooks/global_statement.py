# about: loading, splitting and seeding are done by functions that set globals
# trap: global statements: load() and split() create the frames, next_seed() moves a seed on (also from an EDA cell, so the model's seed depends on it), say() only counts messages
# saves: forest.pkl
# keeps: global df | global X_train | global SEED | SEED += 10 | split() | load( | random_state=next_seed()
# drops: matplotlib | accuracy_score
# data: customers.csv

# %% [markdown]
# # Churn forest
# Everything in functions, as we were told in the last review.

# %%
import pickle
import pandas as pd
import matplotlib.pyplot as plt
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import accuracy_score
from sklearn.model_selection import train_test_split

# %%
SEED = 1
FEATURES = ['tenure', 'MonthlyCharges', 'SeniorCitizen', 'month_to_month', 'fiber']
n_messages = 0
df = None

# %%
def say(*words):
    global n_messages
    n_messages += 1
    print(f'[{n_messages}]', *words)


def next_seed():
    """Never the same seed twice."""
    global SEED
    SEED += 10
    return SEED


def load(path):
    global df
    df = pd.read_csv(path)
    df['left'] = (df['Churn'] == 'Yes').astype(int)


def add_flags():
    # no `global` needed here: the frame is changed, the name is not
    df['month_to_month'] = (df['Contract'] == 'Month-to-month').astype(int)
    df['fiber'] = (df['InternetService'] == 'Fiber optic').astype(int)


def split():
    global X_train, X_test, y_train, y_test
    X_train, X_test, y_train, y_test = train_test_split(
        df[FEATURES], df['left'], test_size=0.3, random_state=next_seed())

# %%
load('customers.csv')
say('loaded', len(df), 'customers')

# %%
df.sample(5, random_state=next_seed())

# %%
df.sample(300, random_state=4).plot.scatter('tenure', 'MonthlyCharges')
plt.show()

# %%
say('leavers:', df['left'].sum())

# %%
for value, part in df.groupby('Contract'):
    say(value, round(part['left'].mean(), 3))

# %%
df.boxplot('MonthlyCharges', by='left')
plt.suptitle('')
plt.show()

# %%
add_flags()
df[['month_to_month', 'fiber', 'left']].corr()

# %%
split()
say('train', len(X_train), 'test', len(X_test))

# %%
y_train.mean(), y_test.mean()

# %% [markdown]
# ## The forest

# %%
forest = RandomForestClassifier(n_estimators=50, min_samples_leaf=5, random_state=next_seed())
forest.fit(X_train, y_train)
say('fitted with seed', SEED)

# %%
say('accuracy', accuracy_score(y_test, forest.predict(X_test)))
say('accuracy in sample', accuracy_score(y_train, forest.predict(X_train)))

# %%
plt.barh(FEATURES, forest.feature_importances_)
plt.show()

# %%
with open('forest.pkl', 'wb') as file:
    pickle.dump(forest, file)
say('saved')
