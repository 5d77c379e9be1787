# about: probabilities one can believe: naive Bayes for churn, uncalibrated, isotonic and sigmoid, with reliability diagrams
# trap: the saved classifier is never fitted under its own name but in a loop over a list of (classifier, label) pairs that also draws
# follows: https://github.com/scikit-learn/scikit-learn examples/calibration/plot_calibration_curve.py
# saves: model.pkl
# keeps: gnb_sigmoid = CalibratedClassifierCV(gnb, cv=3, method="sigmoid") | clf_list = [ | clf.fit(X_train, y_train) | joblib.dump(gnb_sigmoid, "model.pkl")
# drops: brier_score_loss | defaultdict | score_df | LinearSVC | ax_hist | tight_layout
# data: customers.csv

# %% [markdown]
# # Probability calibration curves
#
# A campaign costs money, so we do not want the label alone but how sure we are of it.

# %%
import numpy as np
import pandas as pd
import joblib
from sklearn.model_selection import train_test_split

# %%
df = pd.read_csv("customers.csv")
df["TotalCharges"] = pd.to_numeric(df["TotalCharges"], errors="coerce").fillna(0)
df.shape

# %%
df["Churn"].value_counts(normalize=True)

# %%
y = (df["Churn"] == "Yes").astype(int)
X = pd.get_dummies(df.drop(columns=["customerID", "Churn"]), dtype=float)

# many dummies say the same thing ("No internet service" six times): poison for naive Bayes
X.columns[X.columns.str.contains("No internet")]

# %%
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.5, random_state=42)

# %% [markdown]
# ## Gaussian naive Bayes
#
# * `LogisticRegression` as a baseline: calibrated by its loss
# * `GaussianNB` as it is
# * `GaussianNB` with isotonic and sigmoid calibration

# %%
import matplotlib.pyplot as plt
from matplotlib.gridspec import GridSpec

from sklearn.calibration import CalibratedClassifierCV, CalibrationDisplay
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB

lr = LogisticRegression(C=1.0, max_iter=1000)
gnb = GaussianNB()
gnb_isotonic = CalibratedClassifierCV(gnb, cv=3, method="isotonic")
gnb_sigmoid = CalibratedClassifierCV(gnb, cv=3, method="sigmoid")

clf_list = [
    (lr, "Logistic"),
    (gnb, "Naive Bayes"),
    (gnb_isotonic, "Naive Bayes + Isotonic"),
    (gnb_sigmoid, "Naive Bayes + Sigmoid"),
]

# %%
fig = plt.figure(figsize=(8, 8))
gs = GridSpec(4, 2)
colors = plt.get_cmap("Dark2")

ax_calibration_curve = fig.add_subplot(gs[:2, :2])
calibration_displays = {}
for i, (clf, name) in enumerate(clf_list):
    clf.fit(X_train, y_train)
    display = CalibrationDisplay.from_estimator(
        clf,
        X_test,
        y_test,
        n_bins=10,
        name=name,
        ax=ax_calibration_curve,
        color=colors(i),
    )
    calibration_displays[name] = display

ax_calibration_curve.grid()
ax_calibration_curve.set_title("Calibration plots (Naive Bayes)")

# %%
fig = plt.figure(figsize=(8, 4))
grid_positions = [(0, 0), (0, 1), (1, 0), (1, 1)]
gs = GridSpec(2, 2)
for i, (_, name) in enumerate(clf_list):
    row, col = grid_positions[i]
    ax_hist = fig.add_subplot(gs[row, col])
    ax_hist.hist(calibration_displays[name].y_prob, range=(0, 1), bins=10, label=name, color=colors(i))
    ax_hist.set(title=name, xlabel="Mean predicted probability", ylabel="Count")

plt.tight_layout()
plt.show()

# %% [markdown]
# Uncalibrated naive Bayes is far too sure of itself. Now in numbers.

# %%
from collections import defaultdict

from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

scores = defaultdict(list)
for i, (est, name) in enumerate(clf_list):
    y_prob = est.predict_proba(X_test)
    scores["Classifier"].append(name)
    scores["Brier"].append(brier_score_loss(y_test, y_prob[:, 1]))
    scores["Log loss"].append(log_loss(y_test, y_prob))
    scores["AUC"].append(roc_auc_score(y_test, y_prob[:, 1]))

score_df = pd.DataFrame(scores).set_index("Classifier")
score_df.round(decimals=3)

# %% [markdown]
# ## Linear support vectors, for comparison

# %%
from sklearn.svm import LinearSVC

svc = LinearSVC(max_iter=2000, random_state=0)
svc.fit(X_train / X_train.max(), y_train)
d = svc.decision_function(X_test / X_train.max())
d.min(), d.max()

# %% [markdown]
# Half of 1,200 rows is little for isotonic regression: the sigmoid it is.

# %%
joblib.dump(gnb_sigmoid, "model.pkl")

# %%
sure = gnb_sigmoid.predict_proba(X_test)[:, 1]
cost, gain = 5, 40
print("worth a call:", (sure * gain > cost).sum(), "of", len(sure))
