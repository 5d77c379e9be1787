# about: wine classifier whose cells were run in another order than they stand in
# trap: cells executed out of order: in document order X is asked for before features exist; even repaired, the late cells (cap, C) would come after the fit and give another model
# saves: wine.pkl
# keeps: features = ['alcohol' | features.append('proline') | clip(upper=cap) | cap = | default=0.2
# drops: strength = 5 | matplotlib | value_counts | cross_val_score
# data: none

# %% [markdown]
# # Wines
# Which of three growers does a wine come from?

# %% count=1
import pickle
import pandas as pd
import matplotlib.pyplot as plt
from sklearn.datasets import load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

# %% count=2
wine = load_wine(as_frame=True)
df = wine.frame
df.head()

# %% [markdown]
# ## The model

# %% count=11
X = df[features]
y = df['target']
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.3, random_state=2)

# %% count=12
model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=1000))
model.fit(X_train, y_train)

# %% count=13
print('on the test rows:', model.score(X_test, y_test))

# %% count=14
with open('wine.pkl', 'wb') as f:
    pickle.dump(model, f)

# %% [markdown]
# ## Settings

# %% count=4
# few columns, so that a sample costs less in the laboratory
features = ['alcohol', 'flavanoids', 'color_intensity']

# %% count=3
df['target'].value_counts()

# %% count=7
features.append('proline')
print(features)

# %% count=5
strength = 5
cross_val_score(LogisticRegression(C=strength, max_iter=5000), df[features], df['target'], cv=3)

# %% count=10
strength = 0.2

# %% [markdown]
# ## Outliers

# %% count=6
df.boxplot(column=['color_intensity', 'flavanoids'])
plt.show()

# %% count=8
cap = df['color_intensity'].quantile(0.95)
print('cap at', cap)

# %% count=9
# a few very dark wines pull the scale away
df['color_intensity'] = df['color_intensity'].clip(upper=cap)
df['color_intensity'].plot.hist(bins=30)
plt.show()

# %% count=15
for name, grower in [('first', 0), ('second', 1), ('third', 2)]:
    print(name, 'grower:', model.score(X_test[y_test == grower], y_test[y_test == grower]))

# %% count=16
weights = pd.DataFrame(model[-1].coef_, columns=features)
weights.T.plot(kind='bar')
plt.ylabel('weight')
plt.show()
