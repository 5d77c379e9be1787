# about: the data are looked for in several places and treated by their state, with try/except/else/finally and if/else
# trap: names that are set in except, else, finally or only one branch and that the model needs; a switch (QUICK) that turns a reduction of the data off; a try that is only there for a plot
# saves: model.pkl
# keeps: except FileNotFoundError | finally: | min_leaf = | def to_float | except ValueError
# drops: import optuna | HAVE_OPTUNA | import seaborn | balanced_accuracy_score | matplotlib
# data: customers.csv

# %% [markdown]
# # Churn (runs on the laptop and on the server)

# %%
import pickle
import pandas as pd
import matplotlib.pyplot as plt
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import train_test_split

try:
    import optuna
    HAVE_OPTUNA = True
except ImportError:
    HAVE_OPTUNA = False

# %%
QUICK = False       # True: a tenth of the data, for trying things out
print('optuna:', HAVE_OPTUNA)

# %% [markdown]
# ## Loading
# On the server the export lies in `/srv`; on the laptop there is a copy beside the notebook.

# %%
try:
    df = pd.read_csv('/srv/export/customers_full.csv')
except FileNotFoundError:
    df = pd.read_csv('customers.csv')
    where = 'laptop'
else:
    df = df[df['active']]
    where = 'server'
finally:
    # leaves hold half a per cent of the customers, wherever they come from
    min_leaf = max(2, len(df) // 200)
print(where, len(df), min_leaf)

# %%
if QUICK:
    df = df.sample(frac=0.1, random_state=0)
df.head()

# %%
if 'customerID' in df.columns:
    df = df.drop(columns='customerID')
else:
    print('the customer numbers are gone already')
df.columns

# %%
def to_float(text):
    try:
        return float(text)
    except ValueError:
        return 0.0

df['TotalCharges'] = df['TotalCharges'].map(to_float)
df['TotalCharges'].describe()

# %%
if df['Churn'].isin(['Yes', 'No']).all():
    y = (df['Churn'] == 'Yes').astype(int)
elif df['Churn'].isin([0, 1]).all():
    y = df['Churn']
else:
    raise ValueError('what does Churn mean here?')
y.mean()

# %%
try:
    import seaborn as sns
    sns.histplot(x=df['tenure'], hue=y, multiple='stack')
except ImportError:
    df['tenure'].hist(by=y)
finally:
    plt.show()

# %%
X = pd.get_dummies(df.drop(columns='Churn'), dtype=int)
if where == 'server':
    # the full export is too wide for the trees
    X = X.loc[:, X.mean() > 0.01]
print(X.shape)

# %%
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.2, random_state=8)

# %%
model = ExtraTreesClassifier(n_estimators=60, min_samples_leaf=min_leaf, random_state=8)
try:
    model.fit(X_train, y_train)
except MemoryError:
    model.set_params(n_estimators=10).fit(X_train, y_train)

# %%
guess = model.predict(X_test)
if guess.sum() == 0:
    print('nobody leaves, says the model')
else:
    print('balanced accuracy', round(balanced_accuracy_score(y_test, guess), 3))

# %%
try:
    plt.barh(X.columns[:10], model.feature_importances_[:10])
    plt.show()
except AttributeError as e:
    print('this model has no importances:', e)

# %%
with open('model.pkl', 'wb') as f:
    pickle.dump(model, f)
