"""Linear models: one multiplication and a link."""

from typing import Any

from ketch.compiler import Answers, Build, X, estimator


@estimator("LogisticRegression", "LogisticRegressionCV")
def logistic(g: Build, model: Any, x: X) -> Answers:
    """Lower to sums and a sigmoid, a softmax or shares, whichever the fitted model uses."""
    scores = g.linear(x, model.coef_.T, model.intercept_)
    kind = "sigmoid" if scores.width == 1 else "softmax"
    return Answers(probabilities=g.linked(kind, scores), scores=scores)


@estimator("LinearRegression", "Ridge", "Lasso", "ElasticNet")
def linear(g: Build, model: Any, x: X) -> Answers:
    """Lower to sums."""
    coefficients = g.np.atleast_2d(model.coef_)
    return Answers(values=g.linear(x, coefficients.T, model.intercept_))
