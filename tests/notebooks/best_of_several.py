# about: four models are fitted, the best is chosen by code and saved; afterwards it is loaded and asked over HTTP
# trap: best = max(results, key=…): the saved model depends on all the fits and scores; after the saving comes a second part with pickle.load and requests.post (no service is there, never run)
# follows: https://github.com/DataTalksClub/machine-learning-zoomcamp 05-deployment/code/05-train-churn-model.ipynb (the end: load again, ask the service)
# saves: best_model.joblib
# keeps: max(results, key=results.get) | models = { | results[name] = | final = models[best] | joblib.dump(
# drops: requests | joblib.load | confusion_matrix | dummy | roc_curve | matplotlib
# data: customers.csv

# %% [markdown]
# # Which model?

# %%
import joblib
import pandas as pd
import matplotlib.pyplot as plt
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import confusion_matrix, roc_auc_score, roc_curve
from sklearn.model_selection import train_test_split
from sklearn.naive_bayes import GaussianNB

# %%
df = pd.read_csv('customers.csv', index_col='customerID')
df.head()

# %%
y = (df['Churn'] == 'Yes').astype(int)
text = ['Contract', 'InternetService', 'OnlineSecurity', 'TechSupport', 'PaymentMethod']
X = pd.get_dummies(df[text + ['tenure', 'MonthlyCharges', 'SeniorCitizen']], columns=text, dtype=int)
X.shape

# %%
y.mean()

# %%
# train, validation (to choose by), test (looked at once)
X_full, X_test, y_full, y_test = train_test_split(X, y, test_size=0.2, random_state=30)
X_train, X_val, y_train, y_val = train_test_split(X_full, y_full, test_size=0.25, random_state=30)
[len(part) for part in (X_train, X_val, X_test)]

# %%
dummy = DummyClassifier().fit(X_train, y_train)
print('accuracy to beat:', dummy.score(X_val, y_val))

# %%
models = {
    'logistic': LogisticRegression(solver='liblinear', C=0.3),
    'bayes': GaussianNB(),
    'forest': RandomForestClassifier(n_estimators=60, min_samples_leaf=5, random_state=30),
    'boosting': GradientBoostingClassifier(n_estimators=50, max_depth=2, random_state=30),
}

# %%
results = {}
for name, candidate in models.items():
    candidate.fit(X_train, y_train)
    p = candidate.predict_proba(X_val)[:, 1]
    results[name] = roc_auc_score(y_val, p)

# %%
pd.Series(results).sort_values().plot(kind='barh', xlim=(0.5, 1))
plt.show()

# %%
for name, candidate in models.items():
    x_axis, y_axis, _ = roc_curve(y_val, candidate.predict_proba(X_val)[:, 1])
    plt.plot(x_axis, y_axis, label=name)
plt.legend()
plt.show()

# %%
best = max(results, key=results.get)
print('the best:', best, results[best])

# %%
final = models[best]
# once more, on training and validation rows together
final.fit(X_full, y_full)

# %%
print('test', roc_auc_score(y_test, final.predict_proba(X_test)[:, 1]))
confusion_matrix(y_test, final.predict(X_test))

# %%
joblib.dump({'model': final, 'name': best, 'columns': list(X.columns)}, 'best_model.joblib')

# %% [markdown]
# # Asking the service

# %%
import requests

bundle = joblib.load('best_model.joblib')
model = bundle['model']

# %%
customer = dict.fromkeys(bundle['columns'], 0)
customer.update(tenure=5, MonthlyCharges=80.5)
model.predict_proba(pd.DataFrame([customer]))

# %%
answer = requests.post('http://127.0.0.1:9696/score', json={'rows': [customer]}, timeout=2)
answer.raise_for_status()
scores = answer.json()['scores']

# %%
for score in scores:
    print('write a letter' if score > 0.5 else 'leave in peace', score)
