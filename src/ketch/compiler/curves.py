"""Elementwise preprocessing that is no plain arithmetic: functions, bins, powers, quantiles, splines, products."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from ketch import extras
from ketch.compiler import NotCompiled, inverse, transformer
from ketch.compiler.build import Build
from ketch.compiler.values import Pieces, Tensor, X

TINY: Final = 2.220446049250313e-16
NEAR: Final = 1e-7  # how close to its ends a quantile counts as an end
Function = Callable[[Build, Tensor], Tensor]


# ---- functions -------------------------------------------------------------------------------------


def _plain(kind: str) -> Function:
    return lambda g, x: g.node(kind, x)


def _log(factor: float = 1.0, shift: float = 0.0) -> Function:
    def lowered(g: Build, x: Tensor) -> Tensor:
        found = g.node("Log", x + shift if shift else x)
        return found * factor if factor != 1.0 else found

    return lowered


def _exp(base: float = math.e) -> Function:
    def lowered(g: Build, x: Tensor) -> Tensor:
        return g.linked("exp", x) if base == math.e else g.node("Pow", base, x)

    return lowered


def _sinh(g: Build, x: Tensor) -> Tensor:
    return (g.node("Exp", x) - g.node("Exp", g.node("Neg", x))) * 0.5


def _arcsinh(g: Build, x: Tensor) -> Tensor:
    size = g.node("Abs", x)
    near = g.node("Min", size, 1e8)
    found = g.node("Log", g.node("Add", near, g.node("Sqrt", near * near + 1.0)))
    found = g.node("Where", g.node("Greater", size, 1e8), g.node("Log", size) + math.log(2.0), found)
    return g.node("Mul", g.node("Sign", x), found)


def _cube_root(g: Build, x: Tensor) -> Tensor:
    return g.node("Mul", g.node("Sign", x), g.node("Pow", g.node("Abs", x), 1.0 / 3.0))


FUNCTIONS: Final[Mapping[str, Function]] = {
    "absolute": _plain("Abs"),
    "arcsinh": _arcsinh,
    "cbrt": _cube_root,
    "ceil": _plain("Ceil"),
    "cos": _plain("Cos"),
    "deg2rad": lambda g, x: x * (math.pi / 180.0),
    "exp": _exp(),
    "exp2": _exp(2.0),
    "expit": _plain("Sigmoid"),
    "expm1": lambda g, x: g.linked("expm1", x),
    "fabs": _plain("Abs"),
    "floor": _plain("Floor"),
    "log": _log(),
    "log10": _log(1.0 / math.log(10.0)),
    "log1p": _log(shift=1.0),
    "log2": _log(1.0 / math.log(2.0)),
    "logit": lambda g, x: g.node("Log", x / g.node("Sub", 1.0, x)),
    "negative": lambda g, x: x * -1.0,
    "positive": lambda g, x: x,
    "reciprocal": lambda g, x: g.node("Reciprocal", x),
    "rint": _plain("Round"),
    "sign": _plain("Sign"),
    "sin": _plain("Sin"),
    "sinh": _sinh,
    "sqrt": _plain("Sqrt"),
    "square": lambda g, x: x * x,
    "tanh": _plain("Tanh"),
}
UNBOUNDED: Final = frozenset("exp exp2 expm1 log log10 log1p log2 logit reciprocal sinh square".split())
LIBRARIES: Final = ("numpy", "scipy.special")


def called(g: Build, function: Any, arguments: Mapping[str, Any], x: X) -> X:
    """Lower a function of numpy or scipy on all columns.

    Raises:
        NotCompiled: it is any other function.
    """
    if function is None:
        return x
    name = str(getattr(function, "__name__", ""))
    if name not in {*FUNCTIONS, "clip"} or all(
        getattr(extras.load(each), name, None) is not function for each in LIBRARIES
    ):
        raise NotCompiled("FunctionTransformer has a function of its own")
    if name == "clip":
        return _clipped(g, g.tensor(x), dict(arguments))
    if arguments:
        raise NotCompiled(f"{name} is called with arguments")
    return g.arithmetic(x, "*", -1.0) if name == "negative" else FUNCTIONS[name](g, g.tensor(x))


def _clipped(g: Build, x: Tensor, given: dict[str, Any]) -> Tensor:
    low = given.pop("a_min", given.pop("min", None))
    high = given.pop("a_max", given.pop("max", None))
    if given:
        raise NotCompiled("clip is called with arguments")
    for kind, end in (("Max", low), ("Min", high)):
        x = x if end is None else g.node(kind, x, g.np.asarray(end, dtype=float).reshape(1, -1))
    return x


@transformer("FunctionTransformer")
def function_transformer(g: Build, step: Any, x: X) -> X:
    """Lower a function that is known; a number that it makes infinite is refused, as every estimator does."""
    found = called(g, step.func, step.kw_args or {}, x)
    if step.func is None or getattr(step.func, "__name__", "") not in UNBOUNDED:
        return found
    return g.require_finite(g.tensor(found))


@inverse("FunctionTransformer")
def function_transformer_back(g: Build, step: Any, x: X) -> X:
    """Lower the inverse function, where it is known."""
    return called(g, step.inverse_func, step.inv_kw_args or {}, x)


# ---- bins and splines ------------------------------------------------------------------------------


@transformer("Binarizer")
def binarizer(g: Build, step: Any, x: X) -> Tensor:
    """Say whether each number is above a threshold."""
    return g.cast(g.node("Greater", g.tensor(x), float(step.threshold)), "double")


@transformer("KBinsDiscretizer")
def bins(g: Build, step: Any, x: X) -> Tensor:
    """Number the bin that each number falls into, or give each bin a column."""
    np = g.np
    edges = [np.asarray(each[1:-1], dtype=float) for each in step.bin_edges_]
    most = max(len(each) for each in edges)
    padded = np.stack([np.concatenate([each, np.full(most - len(each), np.inf)]) for each in edges])
    numbers = np.tile(np.arange(most + 1.0), (len(edges), 1))
    if step.encode == "ordinal":
        return g.piecewise(x, Pieces(padded, numbers, numbers[:, :, None, None]))
    unit = np.tile(np.eye(most + 1)[None, :, None, :], (len(edges), 1, 1, 1))
    wide = g.piecewise(x, Pieces(padded, numbers, unit))
    known = [at * (most + 1) + bin_ for at, each in enumerate(edges) for bin_ in range(len(each) + 1)]
    return g.tensor(g.take(wide, known)) if len(known) < wide.width else wide


@transformer("SplineTransformer")
def splines(g: Build, step: Any, x: X) -> Tensor:
    """Give each basis of a spline as the polynomials it is made of; Eilers and Marx 1996."""
    if getattr(step, "handle_missing", "error") != "error":
        raise NotCompiled("SplineTransformer takes missing values")
    np, tensor = g.np, g.tensor(x)
    ends = np.array([[spline.t[spline.k], spline.t[-spline.k - 1]] for spline in step.bsplines_])
    if step.extrapolation == "periodic":
        apart = (ends[:, 1] - ends[:, 0])[None]
        if not apart.all():
            raise NotCompiled("SplineTransformer repeats over no distance")
        left = g.node("Mod", tensor - ends[None, :, 0], apart, fmod=1)
        tensor = g.node("Where", g.node("Less", left, 0.0), left + apart, left) + ends[None, :, 0]
    elif step.extrapolation == "error":
        g.refuse(g.node("Or", g.node("Less", tensor, ends[None, :, 0]), g.node("Greater", tensor, ends[None, :, 1])))
    elif step.extrapolation == "constant":
        tensor = g.node("Min", g.node("Max", tensor, ends[None, :, 0]), ends[None, :, 1])
    pieces = [_pieces(np, spline, step.extrapolation == "linear") for spline in step.bsplines_]
    made = g.piecewise(tensor, Pieces(*(np.stack(each) for each in zip(*pieces, strict=True))))
    if step.extrapolation in {"continue", "linear"}:
        g.require_finite(made)
    if step.include_bias:
        return made
    outputs = step.bsplines_[0].c.shape[1]
    return g.tensor(g.take(made, [place for place in range(made.width) if (place + 1) % outputs]))


def _pieces(np: Any, spline: Any, straight: bool) -> tuple[Any, Any, Any]:
    """Give inner knots, origins and coefficients of all bases of one spline; `straight` beyond its ends."""
    polynomial = extras.load("scipy.interpolate").PPoly
    knots = spline.t[spline.k : len(spline.t) - spline.k]
    bases = [polynomial.from_spline((spline.t, column, spline.k)) for column in spline.c.T]
    places = range(spline.k, spline.k + len(knots) - 1)
    inner = np.stack([[basis.c[::-1, place] for place in places] for basis in bases], axis=-1)
    if not straight:
        return knots[1:-1], knots[:-1], inner
    beyond = np.zeros((2, *inner.shape[1:]))
    for row, end in enumerate((knots[0], knots[-1])):
        beyond[row, 0] = spline(end)
        if spline.k:
            beyond[row, 1] = spline(end, nu=1)
    return (
        np.append(knots[:-1], np.nextafter(knots[-1], np.inf)),
        np.concatenate([knots[:1], knots[:-1], knots[-1:]]),
        np.concatenate([beyond[:1], inner, beyond[1:]]),
    )


# ---- powers and quantiles --------------------------------------------------------------------------


@transformer("PowerTransformer")
def powers(g: Build, step: Any, x: X) -> X:
    """Raise each column to its own power; Yeo and Johnson 2000, Box and Cox 1964."""
    kind = _yeo_johnson if step.method == "yeo-johnson" else _box_cox
    found = g.require_finite(kind(g, g.tensor(x), g.np.asarray(step.lambdas_, dtype=float)))
    return g.apply(step._scaler, found) if step.standardize else found


def _box_cox(g: Build, x: Tensor, power: Any) -> Tensor:
    g.refuse(g.node("LessOrEqual", x, 0.0))
    return _raised(g, x, power)


def _yeo_johnson(g: Build, x: Tensor, power: Any) -> Tensor:
    above = _raised(g, g.node("Max", x, 0.0) + 1.0, power)
    below = _raised(g, g.node("Max", g.node("Neg", x), 0.0) + 1.0, 2.0 - power)
    return g.node("Where", g.node("GreaterOrEqual", x, 0.0), above, g.node("Neg", below))


def _raised(g: Build, x: Tensor, power: Any) -> Tensor:
    """Give (x^power - 1) / power, and the logarithm where the power is zero."""
    flat = g.np.abs(power) < TINY
    curved = (g.node("Pow", x, g.np.where(flat, 1.0, power)[None]) - 1.0) / g.np.where(flat, 1.0, power)[None]
    return g.node("Where", flat[None], g.node("Log", x), curved) if flat.any() else curved


@inverse("PowerTransformer")
def powers_back(g: Build, step: Any, x: X) -> X:
    """Take each column's own root."""
    power = g.np.asarray(step.lambdas_, dtype=float)
    tensor = g.tensor(g.invert(step._scaler, x) if step.standardize else x)
    if step.method != "yeo-johnson":
        return _rooted(g, tensor, power)
    above = _rooted(g, g.node("Max", tensor, 0.0), power) - 1.0
    below = g.node("Sub", 1.0, _rooted(g, g.node("Max", g.node("Neg", tensor), 0.0), 2.0 - power))
    return g.node("Where", g.node("GreaterOrEqual", tensor, 0.0), above, below)


def _rooted(g: Build, x: Tensor, power: Any) -> Tensor:
    flat = g.np.abs(power) < TINY
    safe = g.np.where(flat, 1.0, power)[None]
    curved = g.node("Pow", x * safe + 1.0, 1.0 / safe)
    return g.node("Where", flat[None], g.node("Exp", x), curved) if flat.any() else curved


@transformer("QuantileTransformer")
def quantiles(g: Build, step: Any, x: X) -> Tensor:
    """Give the share of values below each number, and the normal deviate of that share."""
    np, tensor = g.np, g.tensor(x)
    known, shares = step.quantiles_, step.references_
    pieces = [_shares(np, column, shares) for column in known.T]
    most = max(len(edges) for edges, _, _ in pieces)
    found = g.piecewise(
        tensor, Pieces(*(np.stack(each) for each in zip(*(_padded(np, most, *each) for each in pieces), strict=True)))
    )
    near = NEAR if step.output_distribution == "normal" else 0.0
    for kind, end, worth in (("LessOrEqual", known[0] + near, 0.0), ("GreaterOrEqual", known[-1] - near, 1.0)):
        if near:
            kind = kind.removesuffix("OrEqual")
        found = g.node("Where", g.node(kind, tensor, end[None]), worth, found)
    return found if step.output_distribution == "uniform" else _deviate(g, found)


@inverse("QuantileTransformer")
def quantiles_back(g: Build, step: Any, x: X) -> Tensor:
    """Give the number below which a share of values lies."""
    if step.output_distribution != "uniform":
        raise NotCompiled("QuantileTransformer gives normal deviates, which have no compiled inverse")
    np, edges = g.np, step.references_
    lines = np.zeros((step.quantiles_.shape[1], len(edges) + 1, 2, 1))
    lines[:, 0, 0, 0] = step.quantiles_[0]
    lines[:, 1:, 0, 0] = step.quantiles_.T
    lines[:, 1:-1, 1, 0] = (np.diff(step.quantiles_, axis=0) / np.diff(edges)[:, None]).T
    count = len(lines)
    return g.piecewise(x, Pieces(np.tile(edges, (count, 1)), np.tile(np.append(edges[:1], edges), (count, 1)), lines))


def _shares(np: Any, known: Any, shares: Any) -> tuple[Any, Any, Any]:
    """Give edges, origins and lines of one column; on a repeated quantile stands the mean of its shares."""
    values, first = np.unique(known, return_index=True)
    last = np.append(first[1:], len(known)) - 1
    edges = np.stack([values, np.nextafter(values, np.inf)], axis=1).reshape(-1)
    on = 0.5 * (shares[first] + shares[last])
    slopes = (shares[first[1:]] - shares[last[:-1]]) / np.diff(values)
    lines = np.zeros((2 * len(values) + 1, 2, 1))
    lines[1::2, 0, 0] = on
    lines[2::2, 0, 0] = shares[last]
    lines[2:-1:2, 1, 0] = slopes
    return edges, np.concatenate([values[:1], np.repeat(values, 2)]), lines


def _padded(np: Any, most: int, edges: Any, origins: Any, lines: Any) -> tuple[Any, Any, Any]:
    more = most - len(edges)
    return (
        np.concatenate([edges, np.full(more, np.inf)]),
        np.concatenate([origins, np.repeat(origins[-1:], more)]),
        np.concatenate([lines, np.repeat(lines[-1:], more, axis=0)]),
    )


# coefficients of Wichura's algorithm AS 241 (PPND16), lowest power first: in the middle, near the ends, at the ends
MIDDLE: Final = (
    (3.3871328727963666080, 133.14166789178437745, 1971.5909503065514427, 13731.693765509461125,
     45921.953931549871457, 67265.770927008700853, 33430.575583588128105, 2509.0809287301226727),
    (1.0, 42.313330701600911252, 687.18700749205790830, 5394.1960214247511077,
     21213.794301586595867, 39307.895800092710610, 28729.085735721942674, 5226.4952788528545610),
)  # fmt: skip
OUTER: Final = (
    (1.42343711074968357734, 4.63033784615654529590, 5.76949722146069140550, 3.64784832476320460504,
     1.27045825245236838258, 0.241780725177450611770, 0.0227238449892691845833, 7.74545014278341407640e-4),
    (1.0, 2.05319162663775882187, 1.67638483018380384940, 0.689767334985100004550,
     0.148103976427480074590, 0.0151986665636164571966, 5.47593808499534494600e-4, 1.05075007164441684324e-9),
)  # fmt: skip
FAR: Final = (
    (6.65790464350110377720, 5.46378491116411436990, 1.78482653991729133580, 0.296560571828504891230,
     0.0265321895265761230930, 0.00124266094738807843860, 2.71155556874348757815e-5, 2.01033439929228813265e-7),
    (1.0, 0.599832206555887937690, 0.136929880922735805310, 0.0148753612908506148525,
     7.86869131145613259100e-4, 1.84631831751005468180e-5, 1.42151175831644588870e-7, 2.04426310338993978564e-15),
)  # fmt: skip


def _deviate(g: Build, share: Tensor) -> Tensor:
    """Give the normal deviate of a share, clipped as the original does; Wichura 1988, algorithm AS 241."""
    normal = extras.load("scipy.stats").norm
    off = share - 0.5
    tail = g.node("Max", g.node("Min", share, g.node("Sub", 1.0, share)), 1e-300)
    depth = g.node("Sqrt", g.node("Neg", g.node("Log", tail)))
    middle, outer, far = _ratios(g, [g.node("Sub", 0.180625, off * off), depth - 1.6, depth - 5.0])
    deep = g.node("Mul", g.node("Sign", off), g.node("Where", g.node("LessOrEqual", depth, 5.0), outer, far))
    inside = g.node("LessOrEqual", g.node("Abs", off), 0.425)
    found = g.node("Where", inside, g.node("Mul", off, middle), deep)
    return g.node("Min", g.node("Max", found, normal.ppf(NEAR - TINY)), normal.ppf(1 - (NEAR - TINY)))


def _ratios(g: Build, each: Sequence[Tensor]) -> list[Tensor]:
    """Give the ratio of two polynomials for each of three tensors, all at once along a new axis."""
    tall = [g.node("Unsqueeze", x, g.integers([2])) for x in each]
    x = g.node("Unsqueeze", g.node("Concat", *tall, axis=2, width=3 * each[0].width), g.integers([3]))
    powers = g.np.array([MIDDLE, OUTER, FAR]).transpose(2, 0, 1)[:, None, None]  # powers, rows, columns, which, end
    value = g.node("Add", g.node("Mul", x, powers[-1]), powers[-2], width=6 * each[0].width)
    for power in powers[-3::-1]:
        value = value * x + power
    ends = [g.node("Gather", value, g.integers(end), axis=3) for end in (0, 1)]
    found = ends[0] / ends[1]
    return [g.node("Gather", found, g.integers(which), axis=2, width=each[0].width) for which in range(3)]


# ---- products --------------------------------------------------------------------------------------


@transformer("PolynomialFeatures")
def products(g: Build, step: Any, x: X) -> Tensor:
    """Multiply columns with each other, one product for each row of powers."""
    np, tensor = g.np, g.tensor(x)
    factors = [np.repeat(np.arange(tensor.width), row) for row in step.powers_]
    made, order = [], []
    for degree in sorted({len(each) for each in factors}):
        own = [place for place, each in enumerate(factors) if len(each) == degree]
        order += own
        made.append(_multiplied(g, tensor, np.array([factors[place] for place in own], dtype=int), len(own)))
    joined = g.concat(made) if len(made) > 1 else made[0]
    found = joined if order == sorted(order) else g.take(joined, np.argsort(order))
    return g.require_finite(g.tensor(found)) if step.powers_.sum(axis=1).max() > 1 else g.tensor(found)


def _multiplied(g: Build, x: Tensor, factors: Any, count: int) -> Tensor:
    if not factors.size:
        return g.linear(x, g.np.zeros((x.width, count)), 1.0)
    found = g.tensor(g.take(x, factors[:, 0]))
    for column in factors.T[1:]:
        found = g.node("Mul", found, g.take(x, column))
    return found
