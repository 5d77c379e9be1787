# about: the same churn work as it is really found on a disk: numbered copies, cells run again, commented-out code, functions nobody calls
# trap: cells stand in another order than they ran (a filter higher up ran after the experiments below it), one cell never ran and would halve the data, and df_final / df_final2 / model / model2 / model3 look alike
# follows: https://github.com/DataTalksClub/machine-learning-zoomcamp chapter-03-churn-prediction/03-churn.ipynb (its lessons, gone wild)
# saves: model.pkl
# keeps: df2 = df.copy() | def prepare(frame): | df_final = prepare(df2) | df_final = df_final[df_final['tenure'] > 0] | joblib.dump(model3, 'model.pkl')
# drops: sample(frac=0.5) | df_final2 | def plot_corr | def old_prepare | model2 | sns. | get_dummies(df4 | df3 | describe
# data: customers.csv

# %% [markdown]
# # churn_v3_final_NEW
# (copy of churn_v2, do not use v1!!)

# %% count=1
import pandas as pd
import numpy as np
import matplotlib.pyplot as plt
import seaborn as sns
import warnings
warnings.filterwarnings('ignore')
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import train_test_split
# import tensorflow as tf
# from pandas_profiling import ProfileReport

# %% count=2
df = pd.read_csv('customers.csv')
# df = pd.read_excel('churn_old.xlsx')
# df = pd.read_csv('C:/Users/me/Downloads/customers (3).csv')
df.head()

# %% count=3
df.info()
df.describe()

# %% count=6
df2 = df.copy()
# df2 = df2.dropna()
df2['TotalCharges'] = pd.to_numeric(df2['TotalCharges'], errors='coerce')
df2 = df2.drop(columns=['customerID'])
# df2['TotalCharges'] = df2['TotalCharges'].fillna(df2['TotalCharges'].mean())

# %% count=4
sns.countplot(x='Churn', data=df)
plt.show()

# %% count=5
# does everything at once? 1000+ columns, forget it
df4 = df.copy()
df4 = pd.get_dummies(df4)
df4.shape

# %% count=8
df_final = prepare(df2)
df_final.shape

# %% count=9
# maybe without gender (bias?)
df_final2 = df_final.drop(columns=['gender_Male'])
df_final2.shape

# %% [markdown]
# ### only customers with a bill
# asked Anna: those with tenure 0 signed this month, they can't leave yet

# %% count=15
# drop the brand-new ones
df_final = df_final[df_final['tenure'] > 0]
df_final.shape

# %% count=none
# smaller for testing
df_final = df_final.sample(frac=0.5)

# %% count=16
y = df_final['Churn']
X = df_final.drop(columns=['Churn'])
X.shape, y.mean()

# %% count=10
X = df_final.drop(columns=['Churn'])
y = df_final['Churn']
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.2, random_state=42)

# %% count=11
model = LogisticRegression(max_iter=3000)
model.fit(X_train, y_train)
print(model.score(X_test, y_test))

# %% count=12
from sklearn.ensemble import RandomForestClassifier
model2 = RandomForestClassifier(n_estimators=30, random_state=42)
model2.fit(X_train, y_train)
print('train', model2.score(X_train, y_train))   # 0.99 lol
print('test', model2.score(X_test, y_test))
# model2 = SVC(probability=True)
# model2.fit(X_train, y_train)

# %% count=13
for leaf in [1, 3, 5, 10]:
    m = RandomForestClassifier(n_estimators=20, min_samples_leaf=leaf, random_state=42)
    m.fit(X_train, y_train)
    print(leaf, m.score(X_test, y_test))

# %% count=14
imp = pd.Series(model2.feature_importances_, index=X_train.columns).sort_values()
imp.tail(10).plot.barh()
plt.show()

# %% count=7
def plot_corr(frame):
    plt.figure(figsize=(12, 10))
    sns.heatmap(frame.corr(numeric_only=True), annot=True)

def old_prepare(frame):
    frame = frame.fillna(-1)
    return pd.get_dummies(frame)

def prepare(frame):
    frame = frame.copy()
    # blank total = nothing billed yet
    frame['TotalCharges'] = frame['TotalCharges'].fillna(0)
    frame['Churn'] = (frame['Churn'] == 'Yes').astype(int)
    # frame['avg'] = frame['TotalCharges'] / frame['tenure']
    return pd.get_dummies(frame, drop_first=True)

# df_final = old_prepare(df2)

# %% [markdown]
# ## FINAL MODEL (really)

# %% count=17
# leaf 5 was the best compromise
model3 = RandomForestClassifier(n_estimators=60, min_samples_leaf=5, random_state=42)
model3.fit(X, y)

# %% count=18
import pickle
import joblib
# pickle.dump(clf, open('model.pkl', 'wb'))
joblib.dump(model3, 'model.pkl')

# %% count=none
df3 = df2.groupby('Contract').mean()
df3

# %% count=20
test = joblib.load('model.pkl')
test.predict(X[:5])
