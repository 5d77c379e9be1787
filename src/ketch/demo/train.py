"""Train a model that tells which customers will leave.

python train.py churn.csv model.bin
"""

import pickle
import sys

import pandas as pd
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split


def read(path: str) -> pd.DataFrame:
    """Read the export of the billing system and tidy it."""
    df = pd.read_csv(path)
    df.columns = df.columns.str.lower()

    # 'Month-to-month', 'Bank transfer (automatic)', …: one spelling for all values
    for column in df.select_dtypes(exclude="number").columns:
        df[column] = df[column].str.strip().str.lower().str.replace(" ", "_")

    # brand-new customers have had no bill yet, and a blank where the total of their bills would be
    df["totalcharges"] = pd.to_numeric(df["totalcharges"], errors="coerce").fillna(0)

    df["churn"] = (df["churn"] == "yes").astype(int)
    return df


def train(df: pd.DataFrame) -> tuple[DictVectorizer, LogisticRegression]:
    """Fit the model on four customers in five, and measure it on the fifth."""
    df_train, df_test = train_test_split(df, test_size=0.2, random_state=1)
    features = [column for column in df.columns if column not in ("customerid", "churn")]

    dv = DictVectorizer(sparse=False)
    x_train = dv.fit_transform(df_train[features].to_dict(orient="records"))
    x_test = dv.transform(df_test[features].to_dict(orient="records"))

    model = LogisticRegression(solver="liblinear", max_iter=1000)
    model.fit(x_train, df_train["churn"])

    auc = roc_auc_score(df_test["churn"], model.predict_proba(x_test)[:, 1])
    print(f"AUC on {len(df_test)} customers that the model has not seen: {auc:.3f}")
    return dv, model


if __name__ == "__main__":
    data_file, model_file = sys.argv[1:]
    customers = read(data_file)
    print(f"{len(customers)} customers, {customers['churn'].mean():.1%} of whom left")
    dv, model = train(customers)
    with open(model_file, "wb") as f_out:
        pickle.dump((dv, model), f_out)
    print(f"The model is in {model_file}")
