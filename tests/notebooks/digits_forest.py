# about: decision trees and random forests, from blobs to a wave to handwritten digits (ten classes)
# trap: nothing is saved; the name "model" is first a function, then a classifier; a helper fits whatever model it is given, and other models are fitted before the last one
# follows: https://github.com/jakevdp/PythonDataScienceHandbook notebooks/05.08-Random-Forests.ipynb
# saves: nothing
# keeps: load_digits() | Xtrain, Xtest, ytrain, ytest = train_test_split(digits.data, digits.target | model.fit(Xtrain, ytrain)
# drops: make_blobs | visualize_classifier | BaggingClassifier | confusion_matrix | imshow | plt.
# data: none

# %% [markdown]
# # In depth: decision trees and random forests
#
# A forest is an *ensemble*: many simple estimators that vote, and together do better than each alone.

# %%
%matplotlib inline
import numpy as np
import matplotlib.pyplot as plt
plt.style.use('ggplot')

# %% [markdown]
# ## One tree

# %%
from sklearn.datasets import make_blobs

X, y = make_blobs(n_samples=300, centers=4, random_state=0, cluster_std=1.0)
plt.scatter(X[:, 0], X[:, 1], c=y, s=50, cmap='rainbow');

# %%
from sklearn.tree import DecisionTreeClassifier
tree = DecisionTreeClassifier().fit(X, y)

# %%
def visualize_classifier(model, X, y, ax=None, cmap='rainbow'):
    ax = ax or plt.gca()
    ax.scatter(X[:, 0], X[:, 1], c=y, s=30, cmap=cmap, zorder=3)
    xlim, ylim = ax.get_xlim(), ax.get_ylim()

    # fit the estimator, then colour the plane by its answers
    model.fit(X, y)
    xx, yy = np.meshgrid(np.linspace(*xlim, num=100), np.linspace(*ylim, num=100))
    Z = model.predict(np.c_[xx.ravel(), yy.ravel()]).reshape(xx.shape)
    ax.contourf(xx, yy, Z, alpha=0.3, cmap=cmap, zorder=1)
    ax.set(xlim=xlim, ylim=ylim)

# %%
visualize_classifier(DecisionTreeClassifier(), X, y)

# %% [markdown]
# ## Many trees

# %%
from sklearn.ensemble import BaggingClassifier

tree = DecisionTreeClassifier()
bag = BaggingClassifier(tree, n_estimators=20, max_samples=0.8, random_state=1)
bag.fit(X, y)
visualize_classifier(bag, X, y)

# %%
from sklearn.ensemble import RandomForestClassifier

model = RandomForestClassifier(n_estimators=20, random_state=0)
visualize_classifier(model, X, y);

# %% [markdown]
# ## A forest can draw a curve as well

# %%
rng = np.random.RandomState(42)
x = 10 * rng.rand(200)

def model(x, sigma=0.3):
    fast_oscillation = np.sin(5 * x)
    slow_oscillation = np.sin(0.5 * x)
    noise = sigma * rng.randn(len(x))

    return slow_oscillation + fast_oscillation + noise

y = model(x)
plt.errorbar(x, y, 0.3, fmt='o');

# %%
from sklearn.ensemble import RandomForestRegressor
forest = RandomForestRegressor(n_estimators=30, random_state=1)
forest.fit(x[:, None], y)

xfit = np.linspace(0, 10, 300)
yfit = forest.predict(xfit[:, None])
ytrue = model(xfit, sigma=0)

plt.errorbar(x, y, 0.3, fmt='o', alpha=0.5)
plt.plot(xfit, yfit, '-r')
plt.plot(xfit, ytrue, '-k', alpha=0.5);

# %% [markdown]
# ## Digits

# %%
from sklearn.datasets import load_digits
digits = load_digits()
digits.keys()

# %%
fig = plt.figure(figsize=(6, 6))
for i in range(16):
    ax = fig.add_subplot(4, 4, i + 1, xticks=[], yticks=[])
    ax.imshow(digits.images[i], cmap=plt.cm.binary, interpolation='nearest')
    ax.text(0, 7, str(digits.target[i]))

# %%
from sklearn.model_selection import train_test_split

# every pixel is a feature
Xtrain, Xtest, ytrain, ytest = train_test_split(digits.data, digits.target,
                                                random_state=0)
model = RandomForestClassifier(n_estimators=60, random_state=0)
model.fit(Xtrain, ytrain)
ypred = model.predict(Xtest)

# %%
from sklearn import metrics
print(metrics.classification_report(ypred, ytest))

# %%
from sklearn.metrics import confusion_matrix
import seaborn as sns
mat = confusion_matrix(ytest, ypred)
sns.heatmap(mat.T, square=True, annot=True, fmt='d', cbar=False)
plt.xlabel('true label')
plt.ylabel('predicted label');
