# about: CatBoost tutorial: categories as they are, Pool, best model, early stopping, cross-validation, saving
# trap: parameter dicts are copies of one another, each updated for one experiment; model and best_model look alike; the saved file bears an identity and a time of its own, so sameness cannot be judged by its bytes
# follows: https://github.com/catboost/tutorials python_tutorial.ipynb
# saves: catboost_model.cbm
# keeps: categorical_features_indices = np.where(X.dtypes != float)[0] | train_pool = Pool( | validate_pool = Pool( | best_model_params = params.copy() | best_model.fit(train_pool, eval_set=validate_pool) | best_model.save_model('catboost_model.cbm')
# drops: earlystop_params | cv_data | get_feature_importance | !pip | staged_predict | null_value_stats
# data: customers.csv

# %% [markdown]
# # CatBoost tutorial
#
# ## Contents
# * 1. Data preparation
# * 2. Basics
# * 3. Features
#
# If you have not installed CatBoost yet:

# %% count=none
!pip install catboost
!pip install ipywidgets
!jupyter nbextension enable --py widgetsnbextension

# %% [markdown]
# ## 1. Data preparation

# %%
import numpy as np
import pandas as pd

train_df = pd.read_csv('customers.csv', na_values=[' '])
train_df.head()

# %%
null_value_stats = train_df.isnull().sum(axis=0)
null_value_stats[null_value_stats != 0]

# %%
# a number far away from all others, so the trees can tell
train_df['TotalCharges'] = train_df['TotalCharges'].fillna(-999)

# %%
X = train_df.drop(['Churn', 'customerID'], axis=1)
y = (train_df.Churn == 'Yes').astype(int)

# %%
print(X.dtypes)

# whatever is not a float is a category, the months too
categorical_features_indices = np.where(X.dtypes != float)[0]

# %%
# plain Python strings, whatever the version of pandas
for column in X.columns[categorical_features_indices]:
    X[column] = X[column].astype(object)

# %%
from sklearn.model_selection import train_test_split

X_train, X_validation, y_train, y_validation = train_test_split(X, y, train_size=0.75, random_state=42)

# %% [markdown]
# ## 2. Basics

# %%
from catboost import CatBoostClassifier, Pool, cv
from sklearn.metrics import accuracy_score

# %%
model = CatBoostClassifier(iterations=15, depth=4, custom_loss=['Accuracy'], random_seed=42,
                           logging_level='Silent', thread_count=1, allow_writing_files=False)

# %%
model.fit(
    X_train, y_train,
    cat_features=categorical_features_indices,
    eval_set=(X_validation, y_validation),
    # logging_level='Verbose',  # you can uncomment this for text output
    # plot=True
);

# %%
predictions = model.predict(X_validation)
predictions_probs = model.predict_proba(X_validation)
print(predictions[:10])
print(predictions_probs[:10])

# %% [markdown]
# ## 3. Features
# ### 3.1 Using the best model

# %%
params = {
    'iterations': 30,
    'depth': 4,
    'learning_rate': 0.2,
    'eval_metric': 'Accuracy',
    'random_seed': 42,
    'logging_level': 'Silent',
    'use_best_model': False,
    'thread_count': 1,
    'allow_writing_files': False,
}
train_pool = Pool(X_train, y_train, cat_features=categorical_features_indices)
validate_pool = Pool(X_validation, y_validation, cat_features=categorical_features_indices)

# %%
model = CatBoostClassifier(**params)
model.fit(train_pool, eval_set=validate_pool)

# keep the trees up to the best step, not all of them
best_model_params = params.copy()
best_model_params.update({
    'use_best_model': True
})
best_model = CatBoostClassifier(**best_model_params)
best_model.fit(train_pool, eval_set=validate_pool);

print('Simple model validation accuracy: {:.4}'.format(
    accuracy_score(y_validation, model.predict(X_validation))
))
print('Best model validation accuracy: {:.4}'.format(
    accuracy_score(y_validation, best_model.predict(X_validation))
))

# %% [markdown]
# ### 3.2 Early stopping

# %%
earlystop_params = params.copy()
earlystop_params.update({
    'od_type': 'Iter',
    'od_wait': 10
})
earlystop_model = CatBoostClassifier(**earlystop_params)
earlystop_model.fit(train_pool, eval_set=validate_pool);
print('Early-stopped model tree count: {}'.format(earlystop_model.tree_count_))

# %% [markdown]
# ### 3.3 Cross-validation

# %%
cv_params = {'iterations': 10, 'depth': 3, 'loss_function': 'Logloss', 'random_seed': 42,
             'logging_level': 'Silent', 'thread_count': 1, 'allow_writing_files': False}
cv_data = cv(Pool(X, y, cat_features=categorical_features_indices), cv_params, fold_count=3)
print('Best validation loss: {:.3f}'.format(np.min(cv_data['test-Logloss-mean'])))

# %% [markdown]
# ### 3.4 Importances, step by step

# %%
feature_importances = best_model.get_feature_importance(train_pool)
for score, name in sorted(zip(feature_importances, X_train.columns), reverse=True)[:5]:
    print('{}: {}'.format(name, score))

# %%
for step, p in enumerate(model.staged_predict(validate_pool, eval_period=10)):
    print(step, accuracy_score(y_validation, p))

# %% [markdown]
# ### 3.5 Saving

# %%
best_model.save_model('catboost_model.cbm')

# %%
again = CatBoostClassifier()
again.load_model('catboost_model.cbm')
print(again.get_params())
