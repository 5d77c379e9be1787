"""Linear models: one multiplication and a link; and what is simpler still, or one step of a line."""

from typing import Any

from ketch.compiler import NotCompiled, estimator
from ketch.compiler.build import Build
from ketch.compiler.values import Answers, Blocks, Tensor, X


def _sums(g: Build, model: Any, x: X) -> Tensor:
    coefficients = model.coef_.toarray() if hasattr(model.coef_, "toarray") else model.coef_
    return g.linear(x, g.np.atleast_2d(coefficients).T, model.intercept_)


# ---- regression ------------------------------------------------------------------------------------


@estimator(
    *"""ARDRegression BayesianRidge ElasticNet ElasticNetCV HuberRegressor Lars LarsCV Lasso LassoCV LassoLars
    LassoLarsCV LassoLarsIC LinearRegression LinearSVR MultiTaskElasticNet MultiTaskElasticNetCV MultiTaskLasso
    MultiTaskLassoCV OrthogonalMatchingPursuit OrthogonalMatchingPursuitCV PassiveAggressiveRegressor QuantileRegressor
    Ridge RidgeCV SGDRegressor TheilSenRegressor""".split()
)
def linear(g: Build, model: Any, x: X) -> Answers:
    """Lower to sums."""
    return Answers(values=_sums(g, model, x))


@estimator("PoissonRegressor", "GammaRegressor", "TweedieRegressor")
def generalized(g: Build, model: Any, x: X) -> Answers:
    """Lower to sums and the inverse of the link; Nelder and Wedderburn 1972."""
    sums = _sums(g, model, x)
    kind = type(model._base_loss.link).__name__
    if kind not in {"IdentityLink", "LogLink"}:
        raise NotCompiled(f"{type(model).__name__} has the link {kind}")
    return Answers(values=g.linked("exp", sums) if kind == "LogLink" else sums)


@estimator("PLSRegression", "PLSCanonical", "CCA")
def latent(g: Build, model: Any, x: X) -> Answers:
    """Lower to sums over what is left after the mean."""
    return Answers(values=_sums(g, model, g.arithmetic(x, "-", model._x_mean)))


@estimator("RANSACRegressor")
def consensus(g: Build, model: Any, x: X) -> Answers:
    """Lower the model that was fitted to the inliers."""
    return g.lower(model.estimator_, x)


@estimator("IsotonicRegression")
def isotonic(g: Build, model: Any, x: X) -> Answers:
    """Look up the last step below, and go on along its line; what the steps do not reach has no answer."""
    at, worth = model.X_thresholds_, model.y_thresholds_
    if at.dtype != float:
        raise NotCompiled("IsotonicRegression was fitted in float32")
    given = g.tensor(x)
    if model.out_of_bounds == "clip":
        given = g.node("Clip", given, g.np.asarray(float(model.X_min_)), g.np.asarray(float(model.X_max_)))
    if len(at) == 1:
        return Answers(values=given * 0.0 + float(worth[0]))
    slopes = g.np.append(g.np.diff(worth) / g.np.diff(at), 0.0)
    above = g.cast(g.node("GreaterOrEqual", given, at[None, 1:], width=len(at) - 1), "double")
    place = g.cast(g.reduce("Sum", above), "int64")
    start, slope, level = (g.node("Gather", each, place, axis=0) for each in (at, slopes, worth))
    found = g.node("Add", g.node("Mul", slope, given - start), level)
    if model.out_of_bounds == "clip":
        return Answers(values=found)
    outside = g.node("Or", g.node("Less", given, at[0]), g.node("Greater", given, at[-1]))
    return Answers(values=g.node("Where", outside, float("nan"), found))


# ---- classification --------------------------------------------------------------------------------


@estimator("LogisticRegression", "LogisticRegressionCV")
def logistic(g: Build, model: Any, x: X) -> Answers:
    """Lower to sums and a sigmoid, a softmax or shares, whichever the fitted model uses."""
    scores = _sums(g, model, x)
    way = getattr(model, "multi_class", "auto")  # gone since scikit-learn 1.8
    if scores.width == 1 and way == "multinomial":
        raise NotCompiled("it is multinomial over two classes")
    each_alone = way == "ovr" or (model.solver == "liblinear" and way != "multinomial")
    kind = "sigmoid" if scores.width == 1 else "even" if each_alone else "softmax"
    return Answers(probabilities=g.linked(kind, scores), scores=scores)


@estimator("LinearDiscriminantAnalysis")
def discriminant(g: Build, model: Any, x: X) -> Answers:
    """Lower to sums and a sigmoid or softmax; Hastie, Tibshirani and Friedman, section 4.3."""
    scores = _sums(g, model, x)
    return Answers(probabilities=g.linked("sigmoid" if scores.width == 1 else "softmax", scores), scores=scores)


@estimator("RidgeClassifier", "RidgeClassifierCV", "LinearSVC", "Perceptron", "PassiveAggressiveClassifier")
def separating(g: Build, model: Any, x: X) -> Answers:
    """Lower to sums, which are the scores."""
    return Answers(scores=_sums(g, model, x))


@estimator("SGDClassifier")
def descended(g: Build, model: Any, x: X) -> Answers:
    """Lower to sums, and to probabilities where the loss gives them; Zadrozny and Elkan 2002."""
    scores = _sums(g, model, x)
    if model.loss == "log_loss":
        return Answers(probabilities=g.linked("sigmoid" if scores.width == 1 else "even", scores), scores=scores)
    if model.loss != "modified_huber":
        return Answers(scores=scores)
    likely = (g.node("Clip", scores, g.np.asarray(-1.0), g.np.asarray(1.0)) + 1.0) / 2.0
    if scores.width == 1:
        both = g.node("Concat", 1.0 - likely, likely, axis=1, width=2)
        return Answers(probabilities=both, scores=scores, labels=g.labels(Answers(scores=scores)))
    whole = g.reduce("Sum", likely)
    even = g.node("Where", g.node("Equal", whole, 0.0), 1.0 / scores.width, likely / whole, width=scores.width)
    return Answers(probabilities=even, scores=scores, labels=g.labels(Answers(scores=scores)))


@estimator("SGDOneClassSVM")
def one_class(g: Build, model: Any, x: X) -> Answers:
    """Lower to one sum, whose sign tells outliers."""
    scores = g.linear(x, g.np.atleast_2d(model.coef_).T, -model.offset_)
    return Answers(scores=scores, labels=g.signs(scores))


# ---- the same answer for all -----------------------------------------------------------------------


def _same(g: Build, x: X, worth: Any) -> Tensor:
    if isinstance(x, Blocks) and x.names:  # a dummy looks at nothing, whatever it is given
        x = Blocks(())
    return g.linear(x, g.np.zeros((x.width, len(worth))), worth)


@estimator("DummyClassifier")
def dummy(g: Build, model: Any, x: X) -> Answers:
    """Answer the shares of the classes, or always one class."""
    if model._strategy not in {"most_frequent", "prior", "constant"}:
        raise NotCompiled("its answers are drawn at random")
    if model.n_outputs_ > 1:
        raise NotCompiled("it answers several targets")
    likely = g.np.asarray(model.class_prior_, dtype=float)
    if model._strategy == "most_frequent":
        likely = g.np.eye(len(likely))[likely.argmax()]
    elif model._strategy == "constant":
        likely = (g.np.asarray(model.classes_) == g.np.ravel(model.constant)[0]).astype(float)
    return Answers(probabilities=_same(g, x, likely))


@estimator("DummyRegressor")
def dummy_regressor(g: Build, model: Any, x: X) -> Answers:
    """Answer one number."""
    return Answers(values=_same(g, x, g.np.ravel(model.constant_).astype(float)))
