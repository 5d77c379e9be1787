# about: a churn model made on Colab: Drive mounted, a file uploaded, paths below /content, form fields, download at the end
# trap: google.colab does not exist elsewhere; its lines must go, and the path then falls back to the local file; form fields (#@param) are plain assignments that matter
# follows: https://github.com/Ndanu-eng/BANK-CHURN-PREDICTION (drive.mount, a path on Drive, read_csv) and the Colab idioms of https://github.com/googlecolab/colabtools
# saves: model.pkl
# keeps: DRIVE_PATH if os.path.exists(DRIVE_PATH) else 'customers.csv' | default=0.3 | USE_SERVICES = True | pd.read_csv(DATA) | pipe.fit(X, y) | joblib.dump(pipe, 'model.pkl')
# drops: google.colab | drive.mount | files.upload | files.download | data_table | uploaded | cross_val_score | sns. | !cp | !ls
# data: customers.csv

# %% [markdown]
# <a href="https://colab.research.google.com/"><img src="https://colab.research.google.com/assets/colab-badge.svg" alt="Open In Colab"/></a>
#
# # Churn (Colab)
# Runtime → Run all. Put `customers.csv` on your Drive in `churn/`, or upload it below.

# %%
!pip install -q seaborn

# %%
#@title Imports { display-mode: "form" }
import os
import numpy as np
import pandas as pd
import seaborn as sns
import matplotlib.pyplot as plt
%matplotlib inline

# %%
from google.colab import drive, files
drive.mount('/content/drive')

# %%
%load_ext google.colab.data_table

# %%
!ls /content/drive/MyDrive/churn

# %%
#@markdown Only if the file is not on Drive
uploaded = files.upload()
for fn in uploaded.keys():
    print('User uploaded file "{name}" with length {length} bytes'.format(name=fn, length=len(uploaded[fn])))

# %%
DRIVE_PATH = '/content/drive/MyDrive/churn/customers.csv'
# an upload lands in the working folder
DATA = DRIVE_PATH if os.path.exists(DRIVE_PATH) else 'customers.csv'
df = pd.read_csv(DATA)
df

# %%
df.dtypes

# %%
# spaces, not NaN!
df['TotalCharges'] = pd.to_numeric(df['TotalCharges'].str.strip(), errors='coerce').fillna(0)

# %% [markdown]
# ## A look

# %%
#@title Churn by contract
sns.countplot(data=df, x='Contract', hue='Churn')
plt.show()

# %%
sns.kdeplot(data=df, x='tenure', hue='Churn', common_norm=False)
plt.show()

# %%
num = df.select_dtypes('number')
sns.heatmap(num.corr(), annot=True, cmap='Blues')

# %% [markdown]
# ## Settings

# %%
#@title Settings { run: "auto" }
C = 0.3 #@param {type:"number"}
USE_SERVICES = True #@param {type:"boolean"}
plot_style = 'whitegrid' #@param ["whitegrid", "darkgrid", "ticks"]
sns.set_style(plot_style)

# %%
categorical = ['Contract', 'PaymentMethod', 'PaperlessBilling', 'InternetService']
if USE_SERVICES:
    categorical += ['OnlineSecurity', 'TechSupport', 'StreamingTV']
numeric = ['tenure', 'MonthlyCharges', 'TotalCharges']

X = df[numeric + categorical]
y = df['Churn'].eq('Yes').astype(int)

# %%
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

pre = make_column_transformer(
    (StandardScaler(), numeric),
    (OneHotEncoder(handle_unknown='ignore'), categorical),
)
pipe = make_pipeline(pre, LogisticRegression(C=C, max_iter=500))

# %%
from sklearn.model_selection import cross_val_score

scores = cross_val_score(pipe, X, y, cv=5, scoring='roc_auc')
print(f'AUC {scores.mean():.3f} ± {scores.std():.3f}')

# %%
%%time
pipe.fit(X, y)

# %%
coefs = pd.Series(pipe[-1].coef_[0], index=pipe[0].get_feature_names_out())
coefs.sort_values().plot.barh(figsize=(6, 8))

# %%
import joblib
joblib.dump(pipe, 'model.pkl')

# %%
!cp model.pkl /content/drive/MyDrive/churn/

# %% count=none
files.download('model.pkl')

# %% count=none
drive.flush_and_unmount()
