"""Naive Bayes, and densities of one normal distribution for each class or component."""

from dataclasses import replace
from typing import Any

from ketch.compiler import NotCompiled, estimator
from ketch.compiler.build import Build
from ketch.compiler.values import Answers, Blocks, Tensor, X


def _likely(g: Build, joint: Tensor) -> Answers:
    """Make probabilities of joint log likelihoods; two of them that are sums are one sum."""
    if joint.width == 2 and joint.affine is not None:
        return Answers(probabilities=g.linked("sigmoid", g.linear(joint, g.np.array([[-1.0], [1.0]]))))
    return Answers(probabilities=g.linked("softmax", joint))


@estimator("GaussianNB")
def gaussian(g: Build, model: Any, x: X) -> Answers:
    """Lower to a parabola for each class and column."""
    apart = g.apart(x, model.theta_)
    curved = g.node("Mul", apart, apart)
    level = g.np.log(model.class_prior_) - 0.5 * g.np.log(2.0 * g.np.pi * model.var_).sum(axis=1)
    scaled = g.node("Div", curved, model.var_.T[None])
    spread = g.node("ReduceSum", scaled, g.integers([1]), keepdims=0, width=len(level))
    return _likely(g, level[None, :] - spread * 0.5)


@estimator("MultinomialNB")
def multinomial(g: Build, model: Any, x: X) -> Answers:
    """Lower to sums and a softmax."""
    return _likely(g, g.linear(x, model.feature_log_prob_.T, model.class_log_prior_))


@estimator("ComplementNB")
def complement(g: Build, model: Any, x: X) -> Answers:
    """Lower to sums and a softmax; Rennie et al. 2003."""
    alone = model.class_log_prior_ if len(model.classes_) == 1 else 0.0
    return _likely(g, g.linear(x, model.feature_log_prob_.T, alone))


@estimator("BernoulliNB")
def bernoulli(g: Build, model: Any, x: X) -> Answers:
    """Lower to yes or no in each column, sums and a softmax."""
    if model.binarize is not None:
        x = _above(g, x, float(model.binarize))
    absent = g.np.log(1.0 - g.np.exp(model.feature_log_prob_))
    bias = model.class_log_prior_ + absent.sum(axis=1)
    return _likely(g, g.linear(x, (model.feature_log_prob_ - absent).T, bias))


def _above(g: Build, x: X, bound: float) -> X:
    if isinstance(x, Blocks) and all(column.keys is not None for column in x.columns):
        return Blocks(tuple(replace(column, values=(column.part_rows() > bound).astype(float)) for column in x.columns))
    return g.cast(g.node("Greater", g.tensor(x), bound), "double")


@estimator("CategoricalNB")
def categorical(g: Build, model: Any, x: X) -> Answers:
    """Look up what each category is worth to each class; one that was never seen has no answer."""
    outputs = len(model.class_log_prior_)
    if isinstance(x, Blocks) and all(column.keys and column.width == 1 for column in x.columns):
        looked = Blocks(tuple(_worth(g, column, own) for column, own in _pairs(x, model)))
        unit = g.np.tile(g.np.eye(outputs), (len(looked.columns), 1))
        return _likely(g, g.linear(looked, unit, model.class_log_prior_))
    given = g.tensor(x)
    counts = [own.shape[1] for own in model.feature_log_prob_]
    owners = g.np.repeat(g.np.arange(len(counts)), counts)
    codes = g.np.concatenate([g.np.arange(count) for count in counts])
    whole = g.node("Mul", g.node("Floor", g.node("Abs", given)), g.node("Sign", given))  # towards zero
    hits = g.cast(g.node("Equal", g.take(whole, owners), codes[None, :].astype(float)), "double")
    joint = g.linear(hits, g.np.concatenate(model.feature_log_prob_, axis=1).T, model.class_log_prior_)
    known = g.node("Equal", g.reduce("Sum", hits), float(len(counts)))
    return Answers(probabilities=g.node("Where", known, g.linked("softmax", joint), float("nan"), width=outputs))


def _pairs(x: Blocks, model: Any) -> Any:
    return zip(x.columns, model.feature_log_prob_, strict=True)


def _worth(g: Build, column: Any, own: Any) -> Any:
    """Put a class's log probabilities in the place of each category; refuse the categories that have none."""
    codes = g.np.trunc(column.part_rows()[:, 0])
    good = (codes >= 0) & (codes < own.shape[1])
    known = len(column.keys)
    if not good[:known].all():
        raise NotCompiled(f"{column.field} has categories that CategoricalNB does not know")
    keep = [*range(known)]
    unknown = bool(column.unknown and good[known])
    missing = bool(column.missing and good[-1])
    keep += [known] * unknown + [len(codes) - 1] * missing
    return replace(column, values=own[:, codes[keep].astype(int)].T, unknown=unknown, missing=missing)


# ---- normal distributions --------------------------------------------------------------------------


def _spread(g: Build, x: X, means: Any, roots: Any) -> Tensor:
    """Give the squared length of (x - mean) @ root for each mean (columns,) with its root (columns, any)."""
    np = g.np
    center = np.mean(means, axis=0)
    wide = max(root.shape[1] for root in roots)
    padded = [np.pad(root, ((0, 0), (0, wide - root.shape[1]))) for root in roots]
    weights = np.stack(padded, axis=2)  # columns, sides, roots: so that a side's sum is over the middle axis
    bias = np.stack([(center - mean) @ root for mean, root in zip(means, padded, strict=True)], axis=1)
    turned = g.linear(g.arithmetic(x, "-", center), weights.reshape(len(center), -1), bias)
    each = g.node("Reshape", turned, g.integers([-1, wide, len(roots)]))
    return g.node("ReduceSumSquare", each, g.integers([1]), keepdims=0, width=len(roots))


@estimator("QuadraticDiscriminantAnalysis")
def quadratic(g: Build, model: Any, x: X) -> Answers:
    """Lower to one turned and scaled distance for each class; Hastie, Tibshirani and Friedman, section 4.3."""
    roots = [turn * scale**-0.5 for turn, scale in zip(model.rotations_, model.scalings_, strict=True)]
    level = g.np.log(model.priors_) - 0.5 * g.np.array([g.np.log(scale).sum() for scale in model.scalings_])
    joint = level[None, :] - _spread(g, x, model.means_, roots) * 0.5
    scores = joint if joint.width > 2 else g.linear(joint, g.np.array([[-1.0], [1.0]]))
    return Answers(probabilities=g.linked("softmax", joint), scores=scores)


@estimator("GaussianMixture", "BayesianGaussianMixture")
def mixture(g: Build, model: Any, x: X) -> Answers:
    """Lower to the component that a row belongs to most; at its own mean each has its level alone."""
    np, count = g.np, len(model.means_)
    found, wide = model.precisions_cholesky_, model.means_.shape[1]
    roots = {
        "full": lambda: list(found),
        "tied": lambda: [found] * count,
        "diag": lambda: [np.diag(own) for own in found],
        "spherical": lambda: [np.eye(wide) * own for own in found],
    }[model.covariance_type]()
    level = np.diag(model._estimate_weighted_log_prob(model.means_))
    joint = level[None, :] - _spread(g, x, model.means_, roots) * 0.5
    return Answers(probabilities=g.linked("softmax", joint), labels=g.labels(Answers(scores=joint)))


@estimator("EllipticEnvelope")
def envelope(g: Build, model: Any, x: X) -> Answers:
    """Lower to the distance of Mahalanobis from the middle; Rousseeuw and Van Driessen 1999."""
    away = g.arithmetic(x, "-", model.location_)
    squared = g.reduce("Sum", g.node("Mul", g.tensor(away), g.linear(away, model.precision_)))
    scores = (-float(model.offset_)) - squared
    return Answers(scores=scores, labels=g.signs(scores))
