# about: the well-known Titanic kernel, told with customers: combine = [train_df, test_df], loops over both, guesses for what is missing, bands, six models side by side
# trap: both frames change only through the loop variable of a list that holds them; after each drop the list is built anew, else the loops would change old frames; a column made only to look at is dropped by name later
# follows: https://www.kaggle.com/code/startupsci/titanic-data-science-solutions (structure as in the many stored copies that begin "combine = [train_df, test_df]")
# saves: model.pkl
# keeps: combine = [train_df, test_df] | dataset['FamilySize'] | guess_total[i, j] | dataset.loc[dataset['tenure'] <= 12, 'tenure'] = 0 | dataset['Tenure*Contract'] | random_forest.fit(X_train, Y_train)
# drops: sns. | SVC( | KNeighborsClassifier( | coeff_df | to_csv | pd.qcut | sort_values
# data: customers.csv

# %% [markdown]
# # Who leaves? A walk through the workflow
#
# 1. Question. 2. Data. 3. Wrangle. 4. Explore. 5. Model. 6. Submit.

# %%
# data analysis and wrangling
import pandas as pd
import numpy as np
import random as rnd

# visualization
import seaborn as sns
import matplotlib.pyplot as plt
%matplotlib inline

# machine learning
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC
from sklearn.ensemble import RandomForestClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.tree import DecisionTreeClassifier

# %%
data = pd.read_csv('customers.csv', na_values=[' '])
data['Churn'] = data['Churn'].map({'Yes': 1, 'No': 0}).astype(int)

train_df = data.iloc[:900].copy()
test_df = data.iloc[900:].drop('Churn', axis=1)
combine = [train_df, test_df]

# %%
print(train_df.columns.values)

# %%
train_df.info()
print('_' * 40)
test_df.info()

# %%
train_df.describe(include='all')

# %% [markdown]
# ## Pivot the features

# %%
train_df[['Contract', 'Churn']].groupby(['Contract'], as_index=False).mean().sort_values(by='Churn', ascending=False)

# %%
train_df[["Partner", "Churn"]].groupby(['Partner'], as_index=False).mean().sort_values(by='Churn', ascending=False)

# %%
g = sns.FacetGrid(train_df, col='Churn')
g.map(plt.hist, 'tenure', bins=20)

# %% [markdown]
# ## Wrangle
#
# Fewer columns first.

# %%
print("Before", train_df.shape, test_df.shape, combine[0].shape, combine[1].shape)

gone = ['customerID', 'gender', 'PhoneService', 'MultipleLines', 'OnlineSecurity', 'OnlineBackup',
        'DeviceProtection', 'TechSupport', 'StreamingTV', 'StreamingMovies', 'PaymentMethod']
train_df = train_df.drop(gone, axis=1)
test_df = test_df.drop(gone, axis=1)
combine = [train_df, test_df]

print("After", train_df.shape, test_df.shape, combine[0].shape, combine[1].shape)

# %%
for dataset in combine:
    for column in ['Partner', 'Dependents', 'PaperlessBilling']:
        dataset[column] = dataset[column].map({'No': 0, 'Yes': 1}).astype(int)

train_df.head()

# %%
for dataset in combine:
    dataset['FamilySize'] = dataset['Partner'] + dataset['Dependents'] + 1

train_df[['FamilySize', 'Churn']].groupby(['FamilySize'], as_index=False).mean()

# %% [markdown]
# ### Guess the missing totals
# from customers with the same `Partner` and `SeniorCitizen`

# %%
guess_total = np.zeros((2, 2))
guess_total

# %%
for dataset in combine:
    for i in range(0, 2):
        for j in range(0, 2):
            guess_df = dataset[(dataset['Partner'] == i) & (dataset['SeniorCitizen'] == j)]['TotalCharges'].dropna()
            # to the nearest ten
            guess_total[i, j] = int(guess_df.median() / 10 + 0.5) * 10

    for i in range(0, 2):
        for j in range(0, 2):
            dataset.loc[(dataset.TotalCharges.isnull()) & (dataset.Partner == i) & (dataset.SeniorCitizen == j), 'TotalCharges'] = guess_total[i, j]

    dataset['TotalCharges'] = dataset['TotalCharges'].astype(int)

train_df.head()

# %%
train_df['TenureBand'] = pd.cut(train_df['tenure'], 5)
train_df[['TenureBand', 'Churn']].groupby(['TenureBand'], as_index=False, observed=True).mean()

# %%
# years instead of months
for dataset in combine:
    dataset.loc[dataset['tenure'] <= 12, 'tenure'] = 0
    dataset.loc[(dataset['tenure'] > 12) & (dataset['tenure'] <= 24), 'tenure'] = 1
    dataset.loc[(dataset['tenure'] > 24) & (dataset['tenure'] <= 48), 'tenure'] = 2
    dataset.loc[dataset['tenure'] > 48, 'tenure'] = 3
train_df.head()

# %%
train_df = train_df.drop(['TenureBand'], axis=1)
combine = [train_df, test_df]

# %%
for dataset in combine:
    dataset['Contract'] = dataset['Contract'].map({'Month-to-month': 0, 'One year': 1, 'Two year': 2}).astype(int)
    dataset['InternetService'] = dataset['InternetService'].map({'No': 0, 'DSL': 1, 'Fiber optic': 2}).astype(int)
    dataset['Tenure*Contract'] = dataset.tenure * dataset.Contract

train_df.loc[:, ['Tenure*Contract', 'tenure', 'Contract']].head(10)

# %%
charges = pd.qcut(train_df['MonthlyCharges'], 4)
train_df.groupby(charges, observed=True)['Churn'].mean()

# %% [markdown]
# ## Model, predict

# %%
X_train = train_df.drop("Churn", axis=1)
Y_train = train_df["Churn"]
X_test = test_df.copy()
X_train.shape, Y_train.shape, X_test.shape

# %%
logreg = LogisticRegression(max_iter=2000)
logreg.fit(X_train, Y_train)
Y_pred = logreg.predict(X_test)
acc_log = round(logreg.score(X_train, Y_train) * 100, 2)
acc_log

# %%
coeff_df = pd.DataFrame(train_df.columns.delete(0))
coeff_df.columns = ['Feature']

# %%
svc = SVC()
svc.fit(X_train, Y_train)
Y_pred = svc.predict(X_test)
acc_svc = round(svc.score(X_train, Y_train) * 100, 2)

# %%
knn = KNeighborsClassifier(n_neighbors=3)
knn.fit(X_train, Y_train)
acc_knn = round(knn.score(X_train, Y_train) * 100, 2)

gaussian = GaussianNB()
gaussian.fit(X_train, Y_train)
acc_gaussian = round(gaussian.score(X_train, Y_train) * 100, 2)

decision_tree = DecisionTreeClassifier(random_state=0)
decision_tree.fit(X_train, Y_train)
acc_decision_tree = round(decision_tree.score(X_train, Y_train) * 100, 2)

# %%
random_forest = RandomForestClassifier(n_estimators=50, random_state=0)
random_forest.fit(X_train, Y_train)
Y_pred = random_forest.predict(X_test)
acc_random_forest = round(random_forest.score(X_train, Y_train) * 100, 2)
acc_random_forest

# %%
models = pd.DataFrame({
    'Model': ['Logistic Regression', 'SVM', 'KNN', 'Naive Bayes', 'Tree', 'Random Forest'],
    'Score': [acc_log, acc_svc, acc_knn, acc_gaussian, acc_decision_tree, acc_random_forest]})
models.sort_values(by='Score', ascending=False)

# %%
import joblib

joblib.dump(random_forest, 'model.pkl')

# %%
submission = pd.DataFrame({"customer": data.iloc[900:]["customerID"], "Churn": Y_pred})
# submission.to_csv('../output/submission.csv', index=False)
submission.to_csv('submission.csv', index=False)
