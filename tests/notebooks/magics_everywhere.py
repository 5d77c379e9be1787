# about: magics and shell lines between, around and in front of the code that matters
# trap: %%time and %time around statements that matter, files = !ls and %env on which the data and the model depend, %cd there and back, %timeit -o into a name, %%bash cells, ? help
# saves: model.joblib
# keeps: pd.read_csv(path) | N_TREES | forest.fit(X_train, y_train) | df['left'] =
# drops: matplotlib | timeit | autoreload | pip install | read_csv? | get_params | %cd | wc -l
# data: customers.csv

# %% [markdown]
# # Churn forest, with a watch in the hand

# %%
!pip install -q --disable-pip-version-check scikit-learn pandas
%pip install -q --disable-pip-version-check joblib

# %%
%load_ext autoreload
%autoreload 2
%matplotlib inline
%config InlineBackend.figure_format = 'retina'

# %%
import os
import joblib
import pandas as pd
import matplotlib.pyplot as plt
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import train_test_split

# %%
%env N_TREES=40
%env GREETING=hello

# %%
!ls -l | head -5

# %%
%%bash
head -2 customers.csv
wc -l customers.csv

# %%
# is there room for the model?
%cd -q /tmp
!df -h . | tail -1
%cd -q -

# %%
pd.read_csv?

# %%
files = !ls *.csv
path = [name for name in files if name.startswith('customers.')][0]
path

# %%
%%time
# the export is in one piece
df = pd.read_csv(path)
df['left'] = (df['Churn'] == 'Yes').astype(int)
df.shape

# %%
!head -3 {path}

# %%
?df.pop

# %%
df.groupby('Contract')['left'].mean().plot.bar();

# %%
%time features = pd.get_dummies(df[['Contract', 'InternetService', 'tenure', 'MonthlyCharges']], columns=['Contract', 'InternetService'], dtype=int)

# %%
X_train, X_test, y_train, y_test = train_test_split(features, df['left'], test_size=0.2, random_state=17)
%who int

# %%
n_trees = int(os.environ['N_TREES'])
print(os.environ['GREETING'], n_trees)

# %%
forest = RandomForestClassifier(n_estimators=n_trees, min_samples_leaf=3, random_state=17)
%time forest.fit(X_train, y_train)

# %%
%timeit -n 1 -r 2 forest.predict(X_test)
speed = %timeit -n 1 -r 2 -o -q forest.predict_proba(X_test)
print('seconds per customer', speed.best / len(X_test))

# %%
%%capture output
print('accuracy', forest.score(X_test, y_test))

# %%
output.show()
forest.get_params??

# %%
joblib.dump(forest, 'model.joblib')

# %%
!ls -l model.joblib
