# about: customer segments with k-means: features, elbow, silhouette, profile, names for the segments
# trap: the saved dict holds the scaler, the clusterer and the segments' names, and the names come from what looks like a table to read; the name kmeans is also the elbow loop's
# follows: https://practicaldatascience.co.uk/machine-learning/how-to-use-k-means-clustering-for-customer-segmentation and https://github.com/jakevdp/PythonDataScienceHandbook notebooks/05.11-K-Means.ipynb
# saves: segments.pkl
# keeps: .sort_values('customerID').head(250) | df['n_services'] | scaler.fit_transform(fibre[cols]) | fibre['segment'] = kmeans.fit_predict(X) | profile = fibre.groupby('segment') | order = profile['tenure'] | names = dict(zip(order, labels)) | joblib.dump(artifact, 'segments.pkl')
# drops: inertias | silhouette_score | sns. | plt. | PCA | Churn
# data: customers.csv

# %% [markdown]
# # Customer segmentation with k-means
#
# Marketing asks for a handful of groups among the customers with fibre, a pilot with 250 of them.

# %%
import pandas as pd
import numpy as np
import matplotlib.pyplot as plt
import seaborn as sns
import joblib
from sklearn.preprocessing import StandardScaler
from sklearn.cluster import KMeans

pd.set_option('display.max_columns', 30)
sns.set_theme(style='whitegrid')

# %%
df = pd.read_csv('customers.csv', na_values=[' '])
df.sample(3, random_state=1)

# %%
df['TotalCharges'].isna().sum(), df.duplicated('customerID').sum()

# %% [markdown]
# ## Features

# %%
services = ['PhoneService', 'MultipleLines', 'OnlineSecurity', 'OnlineBackup',
            'DeviceProtection', 'TechSupport', 'StreamingTV', 'StreamingMovies']

# how much of what we sell does a customer have?
df['n_services'] = (df[services] == 'Yes').sum(axis=1)

# %%
df['n_services'].value_counts().sort_index()

# %%
sns.boxplot(data=df, x='InternetService', y='MonthlyCharges')
plt.show()

# %%
fibre = df[df['InternetService'] == 'Fiber optic'].sort_values('customerID').head(250).copy()
cols = ['tenure', 'MonthlyCharges', 'n_services']
fibre[cols].describe()

# %%
# distances need one scale
scaler = StandardScaler()
X = scaler.fit_transform(fibre[cols])

# %% [markdown]
# ## How many clusters?

# %%
inertias = []
for k in range(1, 8):
    kmeans = KMeans(n_clusters=k, n_init=3, random_state=0)
    kmeans.fit(X)
    inertias.append(kmeans.inertia_)

elbow = pd.Series(inertias, index=range(1, 8))
elbow.plot(marker='o')
plt.xlabel('k')
plt.show()

# %%
from sklearn.metrics import silhouette_score

for k in range(2, 7):
    labels = KMeans(n_clusters=k, n_init=3, random_state=0).fit_predict(X)
    print(k, round(silhouette_score(X, labels), 3))

# %% [markdown]
# Four is where the elbow bends, and marketing cannot write more than four letters anyway.

# %%
kmeans = KMeans(n_clusters=4, n_init=10, random_state=0)
fibre['segment'] = kmeans.fit_predict(X)

# %%
fibre['segment'].value_counts()

# %%
profile = fibre.groupby('segment')[cols].mean()
profile.round(1)

# %%
# names by seniority: the cluster numbers mean nothing
labels = ['newcomers', 'starters', 'settled', 'veterans']
order = profile['tenure'].sort_values().index.tolist()
names = dict(zip(order, labels))
names

# %%
fibre['name'] = fibre['segment'].map(names)
pd.crosstab(fibre['name'], fibre['Churn'], normalize='index').round(2)

# %%
from sklearn.decomposition import PCA

xy = PCA(n_components=2).fit_transform(X)
sns.scatterplot(x=xy[:, 0], y=xy[:, 1], hue=fibre['name'])
plt.title('Segments, seen from the side')
plt.show()

# %%
artifact = {'scaler': scaler, 'kmeans': kmeans, 'names': names, 'columns': cols}
joblib.dump(artifact, 'segments.pkl')

# %%
one = pd.DataFrame([{'tenure': 2, 'MonthlyCharges': 95.0, 'n_services': 3}])
artifact['names'][artifact['kmeans'].predict(artifact['scaler'].transform(one))[0]]
