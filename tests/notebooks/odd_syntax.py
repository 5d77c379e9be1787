# about: ridge regression on the diabetes data, written with every corner of the language
# trap: star imports, several statements on a line of which only some matter, backslashes, '#' in multi-line strings, decorator, walrus, match, nonlocal (a print that moves a counter on), */** unpacking, del, augmented assignment on aliased arrays, swaps
# saves: ridge.pkl
# keeps: import * | '#' is no comment in here | low, high = high, low | nonlocal n | next_number() | case 'ridge' | y -= y.mean() | scaled /= 10.0 | settings | del settings['tol']
# drops: plt.hist | plt.show | poor fit | scale = 1.5 | matplotlib | spread | class Trials | five_numbers | residuals
# data: none

# %% [markdown]
# # Diabetes
# The study again, with the columns that a family doctor can measure.

# %%
import functools, pickle, time
import numpy as np
import matplotlib.pyplot as plt
from sklearn.datasets import load_diabetes
from sklearn.linear_model import *
from sklearn.preprocessing import *
from sklearn.model_selection import train_test_split

# %%
data = load_diabetes(scaled=False); names = list(data.feature_names); print(names)
X_raw, target = data.data.copy(), data.target.copy()
X_raw[:3]

# %%
wanted = """
age     # in years
bmi     # body mass index
bp      # '#' is no comment in here
s3      # good cholesterol
s5      # logarithm of the triglycerides
"""
columns = [name for line in wanted.splitlines() if (name := line.split('#')[0].strip())]
print(columns, 'the last was', repr(name))

# %%
def five_numbers(values, /, *, digits=1):
    yield from (round(float(q), digits) for q in np.percentile(values, [0, 25, 50, 75, 100]))

for i, column in enumerate(names):
    smallest, *middle, largest = five_numbers(X_raw[:, i])
    print(f'{column:>5}: {smallest:8} … {largest:8}   # middle {middle}')

# %%
fig, axes = plt.subplots(2, 5, figsize=(12, 5)); axes = axes.ravel()
for ax, column, values in zip(axes, names, X_raw.T):
    ax.plot(values, target, '.', ms=2)
    ax.set_title(column)
    if column == 'sex': ax.set_xticks([1, 2])
plt.tight_layout(); plt.show()

# %%
high = 2; low = 98; plt.hist(target, bins=30); plt.show()

# %%
# the wrong way round
low, high = high, low
floor, ceiling = np.percentile(target, [low, high])
print(f'{floor=} {ceiling=}')

# %%
X = scale(X_raw[:, [names.index(column) for column in columns]])
X[:, columns.index('bmi')] *= 2; X[0]

# %%
scale = 1.5; fig = plt.figure(figsize=(4 * scale, 2 * scale))
plt.boxplot(X); plt.show(); plt.close(fig)

# %%
y = np.clip(target, \
            floor, ceiling) \
    .astype(float)
spread = y.max() \
    - y.min(); print(spread)

# %%
# centred, in tens (both names are the same array)
y -= y.mean()
scaled = y
scaled /= 10.0
del X_raw, data

# %%
y.mean(), y.std()

# %% [markdown]
# ## Helpers

# %%
def timed(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        started = time.perf_counter()
        result = function(*args, **kwargs)
        print(f'{function.__name__}: {time.perf_counter() - started:.3f} s')
        return result
    return wrapper


def counter(start=0):
    n = start

    def step(by=1):
        nonlocal n
        n += by
        return n

    return step


@timed
def fit(maker, X, y, /, **options):
    return maker(**options).fit(X, y)


def bars(*values, width=30, mark='#'):
    top = max(abs(value) for value in values)
    for value in values: print(mark * int(width * abs(value) / top))

# %%
next_number = counter(40)
print('the first number is', next_number())

# %%
if (rows := len(y)) < 100: print('only', rows, 'rows')
else: print(rows, 'rows')

# %%
X_train, X_test, *rest = train_test_split(X, y, random_state=next_number())
y_train, y_test = rest

# %%
class Trials(dict):
    def __missing__(self, alpha):
        self[alpha] = Lasso(alpha=alpha).fit(X_train, y_train)
        return self[alpha]

trials = Trials()
for alpha in (0.001, 0.01, 0.1):
    print(alpha, trials[alpha].score(X_test, y_test), sum(trials[alpha].coef_ != 0), sep='\t')
assert len(trials) == 3, 'one each'

# %%
kind = 'ridge'
settings = {'alpha': 0.5, 'tol': 1e-2}
settings |= {'alpha': 30.0, 'fit_intercept': True}
del settings['tol']

match kind:
    case 'ridge' | 'l2':
        maker = Ridge
    case 'lasso':
        maker = Lasso
    case other:
        raise ValueError(f'no such model: {other}')

# %%
model = fit(maker, *(X_train, y_train), **settings)

# %%
if (score := model.score(X_test, y_test)) < 0.3: print('poor fit', score)
bars(*model.coef_); print('# all of them')

# %%
residuals = y_test - model.predict(X_test); order = residuals.argsort()
plt.plot(residuals[order], '.'); plt.axhline(0)
plt.title('residuals'); plt.show()
lower, *_, upper = residuals[order]; print(f'{lower:.1f} to {upper:.1f}')

# %%
note = f'''score {score:.3f}
# of {len(y_test)} rows
'''; print(note)

# %%
with open('ridge.pkl', 'wb') as f: pickle.dump(model, f)
