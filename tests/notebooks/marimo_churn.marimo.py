# about: a marimo notebook: cells are functions, their arguments and returns say what they share; churn with a logistic regression
# trap: the cells stand in no order (the saving cell is near the top, the imports at the end); names with an underscore belong to one cell; a slider and its plot must go
# follows: https://github.com/marimo-team/marimo examples/layouts/columns.py
# saves: model.pkl
# keeps: def tidy(frame): | dv.fit_transform( | pickle.dump((dv, model)
# drops: mo.md | mo.ui | plt. | _fig | roc_auc | threshold | __generated_with | app.run
# data: customers.csv

# /// script
# requires-python = ">=3.10"
# dependencies = [
#     "marimo",
#     "matplotlib",
#     "pandas",
#     "scikit-learn",
# ]
# ///

import marimo

__generated_with = "0.19.7"
app = marimo.App(width="medium")


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    # Churn, reactively

    Change a cell and all that depend on it run again.
    """)
    return


@app.cell
def _(dv, model, pickle):
    # (dv, model) belong together: the one without the other is of no use
    with open("model.pkl", "wb") as _out:
        pickle.dump((dv, model), _out)
    return


@app.cell
def _(pd, tidy):
    df = tidy(pd.read_csv("customers.csv"))
    df
    return (df,)


@app.cell
def _(mo):
    threshold = mo.ui.slider(0.1, 0.9, value=0.5, step=0.1, label="threshold")
    threshold
    return (threshold,)


@app.cell
def _(df, plt):
    _fig, _ax = plt.subplots(figsize=(6, 3))
    for _label, _part in df.groupby("Churn"):
        _ax.hist(_part["tenure"], bins=20, alpha=0.5, label=str(_label))
    _ax.legend()
    _fig
    return


@app.cell
def _(df):
    df.groupby("Contract")["Churn"].agg(["mean", "count"])
    return


@app.cell
def _(df, train_test_split):
    features = ["Contract", "InternetService", "PaymentMethod", "tenure", "MonthlyCharges", "TotalCharges"]
    df_train, df_test = train_test_split(df, test_size=0.2, random_state=11)
    return df_test, df_train, features


@app.cell
def _(DictVectorizer, LogisticRegression, df_train, features):
    dv = DictVectorizer(sparse=False)
    _X = dv.fit_transform(df_train[features].to_dict(orient="records"))

    # weaker weights than the default: the categories are many, the customers few
    model = LogisticRegression(C=0.5, max_iter=2000)
    model.fit(_X, df_train["Churn"])
    return dv, model


@app.cell
def _(df_test, dv, features, model):
    _X = dv.transform(df_test[features].to_dict(orient="records"))
    y_prob = model.predict_proba(_X)[:, 1]
    return (y_prob,)


@app.cell
def _(df_test, mo, roc_auc_score, threshold, y_prob):
    _called = y_prob >= threshold.value
    mo.md(
        f"""
        AUC **{roc_auc_score(df_test["Churn"], y_prob):.3f}**.
        At {threshold.value} we would call {_called.sum()} of {len(_called)} customers.
        """
    )
    return


@app.cell
def _(pd):
    def tidy(frame):
        frame = frame.drop(columns="customerID")
        # blank for those who came this month
        frame["TotalCharges"] = pd.to_numeric(frame["TotalCharges"], errors="coerce").fillna(0)
        frame["Churn"] = (frame["Churn"] == "Yes").astype(int)
        return frame

    return (tidy,)


@app.cell
def _():
    import pickle

    import marimo as mo
    import matplotlib.pyplot as plt
    import pandas as pd
    from sklearn.feature_extraction import DictVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import train_test_split

    return (
        DictVectorizer,
        LogisticRegression,
        mo,
        pd,
        pickle,
        plt,
        roc_auc_score,
        train_test_split,
    )


if __name__ == "__main__":
    app.run()
