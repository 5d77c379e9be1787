"""Kernels: support vectors, kernel ridge and Gaussian processes.

row --*kernel against the points of the training*--> one number for each --*weights*--> sums
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ketch.compiler import NotCompiled, estimator
from ketch.compiler.build import BLOCK, Build
from ketch.compiler.values import Answers, Tensor, X


@dataclass(frozen=True)
class Shape:
    """What a kernel takes beside two points."""

    gamma: float = 1.0
    degree: float = 3.0
    coef0: float = 1.0


def _dense(found: Any) -> Any:
    return (found.toarray() if hasattr(found, "toarray") else found).astype(float)


def _along(g: Build, x: X, points: Any, shape: Shape) -> Tensor:
    found: Tensor = g.tensor(x) @ points.T * shape.gamma + shape.coef0
    return found


def _polynomial(g: Build, x: X, points: Any, shape: Shape) -> Tensor:
    return g.node("Pow", _along(g, x, points, shape), float(shape.degree))


def _hyperbolic(g: Build, x: X, points: Any, shape: Shape) -> Tensor:
    return g.curved("Tanh", _along(g, x, points, shape))


def _radial(g: Build, x: X, points: Any, shape: Shape) -> Tensor:
    """Measure from the middle of the points, where the difference of large squares loses least."""
    center = points.mean(axis=0)
    return g.curved("Exp", g.squares(g.arithmetic(x, "-", center), points - center) * -shape.gamma)


def _laplacian(g: Build, x: X, points: Any, shape: Shape) -> Tensor:
    apart = g.node("ReduceL1", g.apart(x, points), g.integers([1]), keepdims=0, width=len(points))
    return g.curved("Exp", apart * -shape.gamma)


def _cosine(g: Build, x: X, points: Any, shape: Shape) -> Tensor:
    lengths = g.np.sqrt((points**2).sum(axis=1, keepdims=True))
    length = g.reduce("L2", g.tensor(x))
    unit = g.tensor(x) / g.node("Where", g.node("Equal", length, 0.0), 1.0, length)
    found: Tensor = unit @ (points / g.np.where(lengths == 0.0, 1.0, lengths)).T
    return found


def _additive_chi2(g: Build, x: X, points: Any, shape: Shape) -> Tensor:
    """Refuse a negative number as the original does, by giving no answer."""
    apart = g.apart(x, points)
    whole = g.node("Add", g.node("Unsqueeze", g.tensor(x), g.integers([2])), points.T[None], width=points.size)
    shares = g.node("Where", g.node("Equal", whole, 0.0), 0.0, g.node("Mul", apart, apart) / whole)
    found = 0.0 - g.node("ReduceSum", shares, g.integers([1]), keepdims=0, width=len(points))
    return g.node("Where", g.node("Less", g.reduce("Min", g.tensor(x)), 0.0), math.nan, found)


def _chi2(g: Build, x: X, points: Any, shape: Shape) -> Tensor:
    return g.curved("Exp", _additive_chi2(g, x, points, shape) * shape.gamma)


def _linear(g: Build, x: X, points: Any, shape: Shape) -> Tensor:
    return g.linear(x, points.T)


KERNELS: dict[str, Callable[[Build, X, Any, Shape], Tensor]] = {
    "linear": _linear,
    "poly": _polynomial,
    "polynomial": _polynomial,
    "rbf": _radial,
    "sigmoid": _hyperbolic,
    "laplacian": _laplacian,
    "cosine": _cosine,
    "chi2": _chi2,
    "additive_chi2": _additive_chi2,
}


def weighed(g: Build, x: X, kind: Any, points: Any, shape: Shape, weights: Any, bias: Any) -> Tensor:
    """Give kernel(x, points) @ weights + bias; a linear one is one multiplication.

    Raises:
        NotCompiled: the kernel is none of those by name.
    """
    if not isinstance(kind, str) or kind not in KERNELS:
        raise NotCompiled(f"the kernel {kind} has no compiled form" if isinstance(kind, str) else "its own kernel")
    if kind == "linear":
        return g.linear(x, points.T @ weights, bias)
    points, weights = evened(g, points, weights)
    found: Tensor = KERNELS[kind](g, x, points, shape) @ weights + g.np.reshape(bias, (1, -1))
    return found


def evened(g: Build, points: Any, weights: Any) -> tuple[Any, Any]:
    """Repeat the last point at no weight up to a multiple of 8, so that rows need no company: see `Build.curved`."""
    more = -len(points) % BLOCK
    return g.np.pad(points, ((0, more), (0, 0)), mode="edge"), g.np.pad(weights, ((0, more), (0, 0)))


# ---- support vectors -------------------------------------------------------------------------------


def _supported(g: Build, model: Any, x: X, weights: Any, bias: Any) -> Tensor:
    shape = Shape(float(model._gamma), model.degree, float(model.coef0))
    return weighed(g, x, model.kernel, _dense(model.support_vectors_), shape, weights, bias)


@estimator("SVR", "NuSVR")
def support_regressor(g: Build, model: Any, x: X) -> Answers:
    """Lower to a weighted sum of kernels; Vapnik 1995."""
    return Answers(values=_supported(g, model, x, _dense(model.dual_coef_).T, model.intercept_))


@estimator("OneClassSVM")
def support_one_class(g: Build, model: Any, x: X) -> Answers:
    """Lower to a weighted sum of kernels, whose sign tells outliers; Schölkopf et al. 2001."""
    scores = _supported(g, model, x, _dense(model.dual_coef_).T, model.intercept_)
    return Answers(scores=scores, labels=g.signs(scores))


@estimator("SVC", "NuSVC")
def support_classifier(g: Build, model: Any, x: X) -> Answers:
    """Lower to a sum for each pair of classes and their votes; Chang and Lin 2011."""
    if getattr(model, "_effective_probability", model.probability) is True:
        raise NotCompiled("its probabilities are found by trial, pair by pair")
    if len(model.classes_) == 2:
        scores = _supported(g, model, x, _dense(model.dual_coef_).T, model.intercept_)
        above = g.node("Reshape", g.cast(g.node("GreaterOrEqual", scores, 0.0), "int64"), g.integers([-1]))
        return Answers(scores=scores, labels=None if scores.affine else above)
    pairs = _supported(g, model, x, _pair_weights(g, model), model._intercept_)
    votes, scores = _voted(g, pairs, len(model.classes_))
    if model.break_ties and model.decision_function_shape == "ovr":
        return Answers(scores=scores)
    labels = g.node("ArgMax", votes, axis=1, keepdims=0, width=1)
    return Answers(scores=scores if model.decision_function_shape == "ovr" else pairs, labels=labels)


def _pairs(count: int) -> list[tuple[int, int]]:
    return [(one, other) for one in range(count) for other in range(one + 1, count)]


def _pair_weights(g: Build, model: Any) -> Any:
    """Spread the coefficients over pairs: those of a class against each other one stand in one row each."""
    dual, ends = _dense(model._dual_coef_), g.np.cumsum([0, *model._n_support])
    pairs = _pairs(len(model.classes_))
    weights = g.np.zeros((dual.shape[1], len(pairs)))
    for place, (one, other) in enumerate(pairs):
        weights[ends[one] : ends[one + 1], place] = dual[other - 1, ends[one] : ends[one + 1]]
        weights[ends[other] : ends[other + 1], place] = dual[one, ends[other] : ends[other + 1]]
    return weights


def _voted(g: Build, pairs: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Count the votes of pairs, and make one score for each class of votes and confidence."""
    first, second = g.np.zeros((2, pairs.width, count))
    for place, (one, other) in enumerate(_pairs(count)):
        first[place, one] = second[place, other] = 1.0
    won, lost = (g.cast(g.node(kind, pairs, 0.0), "double") for kind in ("Greater", "Less"))
    votes = won @ first + (1.0 - won) @ second
    counted = (1.0 - lost) @ first + lost @ second
    confidence = pairs @ (first - second)
    return votes, counted + confidence / ((g.node("Abs", confidence) + 1.0) * 3.0)


@estimator("KernelRidge")
def ridge(g: Build, model: Any, x: X) -> Answers:
    """Lower to a weighted sum of kernels; Murphy 2012, section 14.4.3."""
    points, weights = _dense(model.X_fit_), model.dual_coef_.reshape(len(model.dual_coef_), -1)
    gamma = 1.0 / points.shape[1] if model.gamma is None else float(model.gamma)
    shape = Shape(gamma, model.degree, float(model.coef0))
    return Answers(values=weighed(g, x, model.kernel, points, shape, weights, g.np.zeros(weights.shape[1])))


# ---- Gaussian processes ----------------------------------------------------------------------------

Covariance = Tensor | float


def covariance(g: Build, kernel: Any, x: X, points: Any) -> Covariance:
    """Lower a kernel of a Gaussian process between rows and points, by what it is composed of.

    Raises:
        NotCompiled: a part of it has no compiled form.
    """
    kind = type(kernel).__name__
    if kind in {"Sum", "Product"}:
        one, other = (covariance(g, part, x, points) for part in (kernel.k1, kernel.k2))
        return _combined(g, kind, one, other)
    if kind == "Exponentiation":
        inner = covariance(g, kernel.kernel, x, points)
        return inner**kernel.exponent if isinstance(inner, float) else g.node("Pow", inner, float(kernel.exponent))
    if kind == "ConstantKernel":
        return float(kernel.constant_value)
    if kind == "WhiteKernel":
        return 0.0
    if kind == "DotProduct":
        found: Tensor = g.tensor(x) @ points.T + float(kernel.sigma_0) ** 2
        return found
    if kind == "PairwiseKernel" and kernel.metric in KERNELS and not kernel.pairwise_kernels_kwargs:
        coef0, gamma = 1.0, float(kernel.gamma)
        return KERNELS[kernel.metric](g, x, points, Shape(gamma, 3.0, coef0))
    if kind not in STATIONARY:
        raise NotCompiled(f"the kernel {kind} has no compiled form")
    return STATIONARY[kind](g, kernel, x, points)


def _combined(g: Build, kind: str, one: Covariance, other: Covariance) -> Covariance:
    if isinstance(one, float) and isinstance(other, float):
        return one + other if kind == "Sum" else one * other
    return g.node("Add" if kind == "Sum" else "Mul", one, other)


def _squares(g: Build, x: X, points: Any, scale: Any = None) -> Tensor:
    if scale is not None:
        wide = g.np.zeros(points.shape[1]) + scale
        x, points = g.arithmetic(x, "/", wide), points / wide
    return g.node("ReduceSumSquare", g.apart(x, points), g.integers([1]), keepdims=0, width=len(points))


def _rbf(g: Build, kernel: Any, x: X, points: Any) -> Tensor:
    return g.curved("Exp", _squares(g, x, points, kernel.length_scale) * -0.5)


def _matern(g: Build, kernel: Any, x: X, points: Any) -> Tensor:
    squares = _squares(g, x, points, kernel.length_scale)
    if kernel.nu == math.inf:
        return g.curved("Exp", squares * -0.5)
    if kernel.nu not in {0.5, 1.5, 2.5}:
        raise NotCompiled(f"the Matern kernel with nu={kernel.nu} has no compiled form")
    away = g.node("Sqrt", squares) * math.sqrt(2.0 * kernel.nu)
    fallen = g.curved("Exp", g.node("Neg", away))
    if kernel.nu == 0.5:
        return fallen
    rising = away + 1.0
    if kernel.nu == 2.5:
        rising = rising + g.node("Mul", away, away) / 3.0
    return g.node("Mul", rising, fallen)


def _rational(g: Build, kernel: Any, x: X, points: Any) -> Tensor:
    scaled = _squares(g, x, points) / (2.0 * kernel.alpha * kernel.length_scale**2) + 1.0
    return g.node("Pow", scaled, -float(kernel.alpha))


def _periodic(g: Build, kernel: Any, x: X, points: Any) -> Tensor:
    turned = g.node("Sin", g.node("Sqrt", _squares(g, x, points)) * (math.pi / kernel.periodicity))
    scaled = turned / float(kernel.length_scale)
    return g.node("Exp", g.node("Mul", scaled, scaled) * -2.0)


STATIONARY: dict[str, Callable[[Build, Any, X, Any], Tensor]] = {
    "RBF": _rbf,
    "Matern": _matern,
    "RationalQuadratic": _rational,
    "ExpSineSquared": _periodic,
}


def own(g: Build, kernel: Any, x: X) -> Covariance:
    """Lower what a kernel gives for a row and itself.

    Raises:
        NotCompiled: a part of it has no compiled form.
    """
    kind = type(kernel).__name__
    if kind in {"Sum", "Product"}:
        return _combined(g, kind, own(g, kernel.k1, x), own(g, kernel.k2, x))
    if kind == "Exponentiation":
        inner = own(g, kernel.kernel, x)
        return inner**kernel.exponent if isinstance(inner, float) else g.node("Pow", inner, float(kernel.exponent))
    if kind in STATIONARY:
        return 1.0
    if kind == "ConstantKernel":
        return float(kernel.constant_value)
    if kind == "WhiteKernel":
        return float(kernel.noise_level)
    if kind == "DotProduct":
        return g.reduce("SumSquare", g.tensor(x)) + float(kernel.sigma_0) ** 2
    raise NotCompiled(f"the kernel {kind} has no compiled form")


def _against(g: Build, model: Any, x: X, weights: Any) -> Tensor:
    """Give kernel(x, points) @ weights."""
    points, weights = evened(g, g.np.asarray(model.X_train_, dtype=float), weights)
    found = covariance(g, model.kernel_, x, points)
    if isinstance(found, float):
        raise NotCompiled("its kernel is the same everywhere")
    summed: Tensor = found @ weights
    return summed


@estimator("GaussianProcessRegressor")
def process_regressor(g: Build, model: Any, x: X) -> Answers:
    """Lower to the mean of the process; Rasmussen and Williams 2006, algorithm 2.1."""
    if not hasattr(model, "X_train_"):
        raise NotCompiled("it was not fitted")
    weights = model.alpha_.reshape(len(model.alpha_), -1)
    scale, mean = (g.np.ravel(each)[None, :] for each in (model._y_train_std, model._y_train_mean))
    return Answers(values=_against(g, model, x, weights) * scale + mean)


@estimator("GaussianProcessClassifier")
def process_classifier(g: Build, model: Any, x: X) -> Answers:
    """Lower to one process, or to the shares of one for each class."""
    inner = model.base_estimator_
    if type(inner).__name__ == "OneVsRestClassifier":
        each = [g.take(process(g, one, x)[1], [1]) for one in inner.estimators_]
        likely = g.concat(each)
        return Answers(probabilities=g.tensor(likely) / g.reduce("Sum", g.tensor(likely)))
    if type(inner).__name__ != "_BinaryGaussianProcessClassifierLaplace":
        raise NotCompiled("it asks each pair of classes")
    latent, likely = process(g, inner, x)
    return Answers(probabilities=likely, labels=g.labels(Answers(scores=latent)))


SLOPES = (0.41, 0.4, 0.37, 0.44, 0.39)
SHARES = (-1854.8214151, 3516.89893646, 221.29346712, 128.12323805, -2010.49422654)


def process(g: Build, model: Any, x: X) -> tuple[Tensor, Tensor]:
    """Lower to the latent mean, and to probabilities by five error functions.

    Source: Rasmussen and Williams 2006, algorithm 3.2; Williams and Barber 1998, appendix A.
    """
    np = g.np
    both = np.column_stack([model.y_train_ - model.pi_, np.linalg.solve(model.L_, np.diag(model.W_sr_)).T])
    found = _against(g, model, x, both)
    mean, solved = (g.tensor(g.take(found, places)) for places in ([0], range(1, both.shape[1])))
    variance = g.node("Sub", own(g, model.kernel_, x), g.reduce("SumSquare", solved))
    slopes, shares = np.array([SLOPES]), np.array(SHARES)
    half = g.node("Div", 1.0, variance * 2.0)
    steep = g.node("Sqrt", half / (half + slopes**2))
    curves = error_function(g, g.node("Mul", g.node("Mul", mean, slopes), steep))
    scaled = g.node("Sqrt", g.node("Div", math.pi, half)) / (g.node("Sqrt", variance * (2.0 * math.pi)) * 2.0)
    likely = g.node("Mul", curves, scaled) @ shares[:, None] + 0.5 * shares.sum()
    return mean, g.node("Concat", 1.0 - likely, likely, axis=1, width=2)


def error_function(g: Build, x: Tensor) -> Tensor:
    """Give the error function by Gauss and Legendre's rule: the integral of exp(-t²) up to x, at 48 places.

    ONNX Runtime has none in float64. Beyond 6 it is 1 to the last bit.
    """
    at, weights = g.np.polynomial.legendre.leggauss(48)
    bound = g.node("Clip", x, g.np.asarray(-6.0), g.np.asarray(6.0))
    square = g.node("Unsqueeze", g.node("Mul", bound, bound), g.integers([2]))
    heights = g.node("Exp", g.node("Mul", square, -(((at + 1.0) / 2.0) ** 2)[None, None, :], width=48 * x.width))
    area = g.node("MatMul", heights, weights / math.sqrt(math.pi), width=x.width)
    return g.node("Mul", bound, area)
