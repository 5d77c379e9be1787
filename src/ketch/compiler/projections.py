"""Preprocessing that mixes columns: projections, kernels, distances and leaves of trees."""

import math
from collections.abc import Callable
from typing import Any

from ketch.compiler import NotCompiled, transformer
from ketch.compiler.build import Build
from ketch.compiler.values import Tensor, Trees, X
from ketch.schema import LARGEST

# ---- one multiplication ----------------------------------------------------------------------------


@transformer("PCA", "IncrementalPCA")
def principal(g: Build, step: Any, x: X) -> Tensor:
    """Project onto the principal components."""
    weights = step.components_.T
    if step.whiten:
        scale = g.np.sqrt(step.explained_variance_)
        weights = weights / g.np.maximum(scale, g.np.finfo(scale.dtype).eps)
    return _centered(g, x, step.mean_, weights)


def _centered(g: Build, x: X, middle: Any, weights: Any) -> Tensor:
    return g.linear(x, weights, -(g.np.asarray(middle, dtype=float) @ weights))


@transformer("TruncatedSVD", "GaussianRandomProjection", "SparseRandomProjection", "NeighborhoodComponentsAnalysis")
def projection(g: Build, step: Any, x: X) -> Tensor:
    """Project onto the components."""
    return g.linear(x, step.components_.T)


@transformer("FastICA")
def independent(g: Build, step: Any, x: X) -> Tensor:
    """Unmix the sources; Hyvärinen and Oja 2000."""
    return _centered(g, x, step.mean_ if step.whiten else g.np.zeros(x.width), step.components_.T)


@transformer("FactorAnalysis")
def factors(g: Build, step: Any, x: X) -> Tensor:
    """Give the expected factors; Barber, equation 21.2.33."""
    np = g.np
    scaled = step.components_ / step.noise_variance_
    spread = np.linalg.inv(np.eye(len(step.components_)) + scaled @ step.components_.T)
    return _centered(g, x, step.mean_, scaled.T @ spread)


@transformer("SparsePCA", "MiniBatchSparsePCA")
def sparse_principal(g: Build, step: Any, x: X) -> Tensor:
    """Give the ridge regression on the components."""
    np, parts = g.np, step.components_
    gram = parts @ parts.T + step.ridge_alpha * np.eye(len(parts))
    return _centered(g, x, step.mean_, np.linalg.solve(gram, parts).T)


@transformer("LinearDiscriminantAnalysis")
def discriminants(g: Build, step: Any, x: X) -> Tensor:
    """Project onto the directions that keep classes apart."""
    weights = step.scalings_[:, : step._max_components]
    return _centered(g, x, step.xbar_, weights) if step.solver == "svd" else g.linear(x, weights)


@transformer("PLSRegression", "PLSCanonical", "CCA", "PLSSVD")
def scores(g: Build, step: Any, x: X) -> Tensor:
    """Project onto the directions that the target follows."""
    weights = step.x_weights_ if type(step).__name__ == "PLSSVD" else step.x_rotations_
    return _centered(g, x, step._x_mean, weights / step._x_std[:, None])


@transformer("KernelCenterer")
def kernel_centerer(g: Build, step: Any, x: X) -> Tensor:
    """Center a kernel."""
    count = len(step.K_fit_rows_)
    weights = g.np.eye(x.width) - 1.0 / count
    return g.linear(x, weights, step.K_fit_all_ - step.K_fit_rows_)


@transformer("FeatureAgglomeration")
def agglomerated(g: Build, step: Any, x: X) -> Tensor:
    """Pool the columns of each cluster."""
    np, pool = g.np, step.pooling_func
    groups = step.labels_[:, None] == np.unique(step.labels_)
    if pool is np.mean or pool is np.sum:
        return g.linear(x, groups / groups.sum(axis=0) if pool is np.mean else groups)
    kinds = [kind for function, kind in ((np.max, "Max"), (np.min, "Min")) if pool is function]
    if not kinds:
        raise NotCompiled("FeatureAgglomeration pools by a function of its own")
    made = [g.reduce(kinds[0], g.tensor(g.take(x, np.flatnonzero(own)))) for own in groups.T]
    return g.tensor(g.concat(made))


@transformer("BernoulliRBM")
def hidden(g: Build, step: Any, x: X) -> Tensor:
    """Give the probabilities of the hidden units."""
    return g.node("Sigmoid", g.linear(x, step.components_.T, step.intercept_hidden_))


# ---- kernels ---------------------------------------------------------------------------------------


def _dots(g: Build, x: Tensor, points: Any, **_: Any) -> Tensor:
    return g.linear(x, points.T)


def _powers(g: Build, x: Tensor, points: Any, gamma: float, coef0: float = 1.0, degree: float = 3.0) -> Tensor:
    return g.node("Pow", g.linear(x, points.T) * gamma + float(coef0), float(degree))


def _radial(g: Build, x: Tensor, points: Any, gamma: float, **_: Any) -> Tensor:
    return g.node("Exp", g.squares(x, points) * -gamma)


def _sigmoid(g: Build, x: Tensor, points: Any, gamma: float, coef0: float = 1.0, **_: Any) -> Tensor:
    return g.node("Tanh", g.linear(x, points.T) * gamma + float(coef0))


def _laplacian(g: Build, x: Tensor, points: Any, gamma: float, **_: Any) -> Tensor:
    return g.node("Exp", _reduced(g, "ReduceL1", g.apart(x, points), len(points)) * -gamma)


def _reduced(g: Build, kind: str, x: Tensor, width: int) -> Tensor:
    return g.node(kind, x, g.integers([1]), keepdims=0, width=width)


def _cosine(g: Build, x: Tensor, points: Any, **_: Any) -> Tensor:
    size = g.reduce("L2", x)
    unit = x / g.node("Where", g.node("Equal", size, 0.0), 1.0, size)
    lengths = g.np.sqrt((points**2).sum(axis=1, keepdims=True))
    return g.linear(unit, (points / g.np.where(lengths == 0, 1.0, lengths)).T)


def _additive(g: Build, x: Tensor, points: Any, **_: Any) -> Tensor:
    g.refuse(g.node("Less", x, 0.0))
    given = g.node("Unsqueeze", x, g.integers([2]))
    apart, both = g.apart(x, points), g.node("Add", given, points.T[None], width=points.size)
    found = g.node("Where", g.node("Equal", both, 0.0), 0.0, g.node("Div", g.node("Mul", apart, apart), both))
    return _reduced(g, "ReduceSum", found, len(points)) * -1.0


def _squared(g: Build, x: Tensor, points: Any, gamma: float, **_: Any) -> Tensor:
    return g.node("Exp", _additive(g, x, points) * gamma)


KERNELS: dict[str, Callable[..., Tensor]] = {
    "additive_chi2": _additive,
    "chi2": _squared,
    "cosine": _cosine,
    "laplacian": _laplacian,
    "linear": _dots,
    "poly": _powers,
    "polynomial": _powers,
    "rbf": _radial,
    "sigmoid": _sigmoid,
}


def kernel(g: Build, x: X, points: Any, kind: Any, given: dict[str, Any]) -> Tensor:
    """Compare each row with all points by one of scikit-learn's kernels.

    Raises:
        NotCompiled: it is a function of the user's own.
    """
    if not isinstance(kind, str) or kind not in KERNELS:
        raise NotCompiled("it compares rows by a function of its own")
    points = g.np.asarray(points.toarray() if hasattr(points, "toarray") else points, dtype=float)
    found = {name: value for name, value in given.items() if value is not None}
    found.setdefault("gamma", 1.0 if kind == "chi2" else 1.0 / points.shape[1])
    return KERNELS[kind](g, g.tensor(x), points, **{**found, "gamma": float(found["gamma"])})


@transformer("Nystroem")
def nystroem(g: Build, step: Any, x: X) -> Tensor:
    """Compare rows with a sample of the training data; Williams and Seeger 2001."""
    given = {name: getattr(step, name) for name in ("gamma", "coef0", "degree")} | (step.kernel_params or {})
    return g.linear(kernel(g, x, step.components_, step.kernel, given), step.normalization_.T)


@transformer("KernelPCA")
def kernel_principal(g: Build, step: Any, x: X) -> Tensor:
    """Project in the space of a kernel; Schölkopf, Smola and Müller 1997."""
    if step.kernel == "precomputed":
        return _principal_of(g, step, g.tensor(x))
    given = {"gamma": step.gamma_, "degree": step.degree, "coef0": step.coef0}
    return _principal_of(g, step, kernel(g, x, step.X_fit_, step.kernel, given))


def _principal_of(g: Build, step: Any, compared: Tensor) -> Tensor:
    g.refuse(g.node("Not", g.node("LessOrEqual", g.node("Abs", compared), LARGEST)))  # nor what is no number
    known = step.eigenvalues_ != 0
    weights = g.np.where(known, step.eigenvectors_ / g.np.sqrt(g.np.where(known, step.eigenvalues_, 1.0)), 0.0)
    return g.linear(kernel_centerer(g, step._centerer, compared), weights)


@transformer("RBFSampler")
def radial_sample(g: Build, step: Any, x: X) -> Tensor:
    """Approximate a radial kernel by cosines; Rahimi and Recht 2007."""
    found = g.node("Cos", g.linear(x, step.random_weights_, step.random_offset_))
    return found * math.sqrt(2.0 / len(step.random_offset_))


@transformer("SkewedChi2Sampler")
def skewed_sample(g: Build, step: Any, x: X) -> Tensor:
    """Approximate the skewed chi-squared kernel by cosines of logarithms; Li, Ionescu and Sminchisescu 2010."""
    tensor, skew = g.tensor(x), float(step.skewedness)
    g.refuse(g.node("LessOrEqual", tensor, -skew))
    found = g.node("Cos", g.linear(g.node("Log", tensor + skew), step.random_weights_, step.random_offset_))
    return found * math.sqrt(2.0 / len(step.random_offset_))


@transformer("AdditiveChi2Sampler")
def additive_sample(g: Build, step: Any, x: X) -> Tensor:
    """Approximate the additive chi-squared kernel; Vedaldi and Zisserman 2010."""
    tensor = g.tensor(x)
    apart = step.sample_interval or {1: 0.8, 2: 0.5, 3: 0.4}[step.sample_steps]
    g.refuse(g.node("Less", tensor, 0.0))
    none = g.node("Equal", tensor, 0.0)
    turns = g.node("Log", g.node("Where", none, 1.0, tensor)) * apart
    made = [g.node("Sqrt", tensor * apart)]
    for place in range(1, step.sample_steps):
        size = g.node("Sqrt", tensor * (2.0 * apart) / math.cosh(math.pi * place * apart))
        made += [g.node("Mul", size, g.node(kind, turns * float(place))) for kind in ("Cos", "Sin")]
    return g.tensor(g.concat(made))


@transformer("PolynomialCountSketch")
def sketch(g: Build, step: Any, x: X) -> Tensor:
    """Multiply sketches as their Fourier transforms; Pham and Pagh 2013."""
    np, count = g.np, step.n_components
    angles = 2.0 * np.pi * np.outer(np.arange(count), np.arange(count)) / count
    real = imaginary = None
    for places, signs in zip(step.indexHash_, step.bitHash_, strict=True):
        spread = np.zeros((len(places), count))
        spread[np.arange(len(places)), places] = signs
        inputs, rest = math.sqrt(step.gamma) * spread[: x.width], math.sqrt(step.coef0) * spread[x.width :].sum(axis=0)
        a, b = (g.linear(x, inputs @ wave, rest @ wave) for wave in (np.cos(angles), -np.sin(angles)))
        if real is None or imaginary is None:
            real, imaginary = a, b
        else:
            minus = g.node("Mul", imaginary, b)
            imaginary = g.node("Mul", real, b) + g.node("Mul", imaginary, a)
            real = g.node("Mul", real, a) - minus
    if real is None or imaginary is None:
        raise NotCompiled("PolynomialCountSketch has no degree")
    return g.linear(real, np.cos(angles) / count) - g.linear(imaginary, np.sin(angles) / count)


# ---- distances and neighbours ----------------------------------------------------------------------


@transformer("KMeans", "MiniBatchKMeans", "BisectingKMeans", "Birch")
def distances(g: Build, step: Any, x: X) -> Tensor:
    """Give the distance to each center."""
    centers = step.subcluster_centers_ if type(step).__name__ == "Birch" else step.cluster_centers_
    return g.node("Sqrt", g.squares(x, g.np.asarray(centers, dtype=float)))


def _order(g: Build, nearest: Any) -> Any:
    """Give the rows of the training in the order in which the original meets them, which settles ties."""
    tree = nearest._tree
    return g.np.arange(len(nearest._fit_X)) if tree is None else g.np.asarray(tree.idx_array)


def _distances(g: Build, nearest: Any, x: X, order: Any) -> Tensor:
    if nearest.effective_metric_ != "euclidean":
        raise NotCompiled(f"neighbours are measured by {nearest.effective_metric_}")
    points = g.np.asarray(nearest._fit_X, dtype=float)[order]
    return g.require_finite(g.node("Sqrt", _reduced(g, "ReduceSumSquare", g.apart(x, points), len(points))))


@transformer("KNeighborsTransformer")
def neighbours(g: Build, step: Any, x: X) -> Tensor:
    """Give the distance to each of the nearest rows, zero to the others."""
    order = _order(g, step)
    found = _distances(g, step, x, order)
    count = step.n_neighbors + (step.mode == "distance")
    near, places = g.nodes("TopK", found, g.integers([count]), widths=[count] * 2, axis=1, largest=0)
    values = near if step.mode == "distance" else near * 0.0 + 1.0
    spread = g.node("ScatterElements", found * 0.0, places, values, axis=1, width=found.width)
    return g.tensor(g.take(spread, g.np.argsort(order)))


@transformer("RadiusNeighborsTransformer")
def neighbours_around(g: Build, step: Any, x: X) -> Tensor:
    """Give the distance to each row within a radius, zero to the others."""
    found = _distances(g, step, x, g.np.arange(len(step._fit_X)))
    near = g.node("LessOrEqual", found, float(step.radius))
    return g.node("Where", near, found if step.mode == "distance" else 1.0, 0.0)


@transformer("Isomap")
def along_the_neighbours(g: Build, step: Any, x: X) -> Tensor:
    """Project the shortest ways through the nearest rows; Tenenbaum, de Silva and Langford 2000."""
    count = step.n_neighbors
    if count is None:
        raise NotCompiled("Isomap looks within a radius")
    order = _order(g, step.nbrs_)
    found = _distances(g, step.nbrs_, x, order)
    near, places = g.nodes("TopK", found, g.integers([count]), widths=[count] * 2, axis=1, largest=0)
    ways = g.node(
        "Gather", g.np.asarray(step.dist_matrix_, dtype=float)[order], places, axis=0, width=count * found.width
    )
    ways = g.node("Add", ways, g.node("Unsqueeze", near, g.integers([2])), width=count * found.width)
    shortest = _reduced(g, "ReduceMin", ways, found.width)
    return _principal_of(g, step.kernel_pca_, shortest * shortest * -0.5)


@transformer("LocallyLinearEmbedding")
def locally_linear(g: Build, step: Any, x: X) -> Tensor:
    """Weigh the nearest rows so that they make up the row; Roweis and Saul 2000."""
    count, order = int(step.n_neighbors), _order(g, step.nbrs_)
    points = g.np.asarray(step.nbrs_._fit_X, dtype=float)[order]
    if count > 30:
        raise NotCompiled("LocallyLinearEmbedding has too many neighbours")
    tensor = g.tensor(x)
    found = _distances(g, step.nbrs_, tensor, order)
    _, places = g.nodes("TopK", found, g.integers([count]), widths=[count] * 2, axis=1, largest=0)
    wide = count * points.shape[1]
    near = g.node("Gather", points, places, axis=0, width=wide)
    apart = g.node("Sub", near, g.node("Unsqueeze", tensor, g.integers([1])), width=wide)
    weights = _solved(g, g.node("Einsum", apart, apart, equation="nij,nkj->nik", width=count**2), count, step.reg)
    spread = g.node("Gather", step.embedding_[order], places, axis=0, width=count * step.n_components)
    return g.node("Einsum", weights, spread, equation="ni,nij->nj", width=step.n_components)


def _solved(g: Build, gram: Tensor, count: int, ridge: float) -> Tensor:
    """Solve `gram @ weights = 1` with a ridge, by elimination; make the weights' sum 1."""
    np, unit = g.np, g.np.eye(count)
    trace = g.node("Reshape", gram, g.integers([-1, count**2])) @ unit.reshape(-1, 1)
    trace = g.node("Reshape", trace, g.integers([-1, 1, 1]), width=1)
    added = g.node("Where", g.node("Greater", trace, 0.0), trace * ridge, ridge)
    left = g.node("Add", gram, g.node("Mul", added, unit[None]), width=count**2)
    right = g.node("Add", g.node("Mul", added, 0.0), np.ones((1, count, 1)), width=count)
    both = g.node("Concat", left, right, axis=2, width=count * (count + 1))
    for place in range(count):
        row = g.node("Gather", both, g.integers([place]), axis=1, width=count + 1)
        row = g.node("Div", row, g.node("Gather", row, g.integers([place]), axis=2, width=1), width=count + 1)
        column = g.node("Gather", both, g.integers([place]), axis=2, width=count)
        rest = g.node("Sub", both, g.node("MatMul", column, row, width=count * (count + 1)))
        both = g.node("Where", unit[None, place][:, :, None] > 0, row, rest)
    found = g.node("Gather", both, g.integers(count), axis=2, width=count)
    return found / g.reduce("Sum", found)


@transformer("RandomTreesEmbedding")
def leaves(g: Build, step: Any, x: X) -> X:
    """Give each leaf of each tree a column; Moosmann, Triggs and Jurie 2006."""
    fitted = [each.tree_ for each in step.estimators_]
    numbers = [g.np.arange(each.node_count, dtype=float)[:, None] for each in fitted]
    return g.apply(step.one_hot_encoder_, g.trees(x, Trees(fitted, numbers, range(len(fitted)), len(fitted))))
