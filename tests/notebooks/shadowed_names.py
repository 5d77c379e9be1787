# about: comprehensions, lambdas and functions use the same one-letter names as the globals that set up the model
# trap: names in comprehensions and lambdas do not touch globals c, n, x; a for loop at cell level (k) does and leaves its last value for a feature
# saves: model.joblib
# keeps: default=0.35 | default=800 | for k in range(2, 6) | labels=False | C=c
# drops: few = [ | by_group | def describe | values in all | matplotlib
# data: customers.csv

# %% [markdown]
# # Churn, short names

# %%
import joblib
import pandas as pd
import matplotlib.pyplot as plt
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

# %%
c = 0.35          # inverse penalty, settled last week
n = 800           # at most so many steps
x = 'tenure'      # the column that matters most

# %%
df = pd.read_csv('customers.csv')
[c for c in df.columns if df[c].isna().any()]

# %%
few = [c for c in df.columns if df[c].nunique() == 2]
print(len(few), 'columns with two values:', few)

# %%
df['y'] = df['Churn'].map(lambda c: int(c == 'Yes'))
df['TotalCharges'] = df['TotalCharges'].map(lambda x: float(x) if x.strip() else 0.0)

# %%
by_group = {n: (lambda df: df['y'].mean())(part) for n, part in df.groupby('Contract')}
by_group

# %%
def describe(df, c):
    n = df[c].nunique()
    x = df[c].value_counts()
    print(c, n, x.index[0], x.iloc[0])

for name in ['Contract', 'PaymentMethod', 'InternetService']:
    describe(df, name)

# %%
levels = {c: df[c].nunique() for c in df.columns}
categorical = [c for c, n in levels.items() if 3 <= n <= 4]
print(sum(n for n in levels.values()), 'values in all')
categorical

# %% [markdown]
# ## How many steps of tenure?
# Two are too few; with five the rates still go down from step to step.

# %%
for k in range(2, 6):
    steps = pd.cut(df[x], k)
    print(k, df.groupby(steps, observed=True)['y'].mean().round(2).tolist())

# %%
df['step'] = pd.cut(df[x], k, labels=False)
df['step'].value_counts(sort=False)

# %%
df.groupby('step')['y'].mean().plot(marker='o')
plt.title('share of leavers, by step of ' + x)
plt.show()

# %%
X = pd.get_dummies(df[categorical + ['step', 'SeniorCitizen']], columns=categorical, dtype=float)
X = X.assign(per_month=lambda x: df['TotalCharges'] / df['tenure'].clip(lower=1))
X.shape

# %%
X_train, X_val, y_train, y_val = train_test_split(X, df['y'], test_size=0.2, random_state=0)

# %%
model = LogisticRegression(C=c, max_iter=n, solver='liblinear')
model.fit(X_train, y_train)

# %%
print('accuracy', model.score(X_val, y_val))
top = sorted(zip(X.columns, model.coef_[0]), key=lambda n: -abs(n[1]))[:8]
for x, c in top:
    print(f'{x:40s}{c:+.2f}')

# %%
joblib.dump(model, 'model.joblib')
