"""Preprocessing: columns chosen, encoded, filled and scaled, pushed into the fields as far as it goes."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ketch import extras
from ketch.compiler import NotCompiled, estimator, inverse, transformer
from ketch.compiler.build import Build
from ketch.compiler.values import Answers, Blocks, Column, Tensor, X
from ketch.schema import plain


@estimator("Pipeline")
def pipeline(g: Build, model: Any, x: X) -> Answers:
    """Lower each step with what the last one gave."""
    for _, step in model.steps[:-1]:
        x = g.apply(step, x)
    return g.lower(model.steps[-1][1], x)


@transformer("Pipeline")
def chain(g: Build, model: Any, x: X) -> X:
    """Lower each step with what the last one gave."""
    for _, step in model.steps:
        x = g.apply(step, x)
    return x


@inverse("Pipeline")
def chain_back(g: Build, model: Any, x: X) -> X:
    """Take the steps back, the last one first."""
    for _, step in reversed(model.steps):
        x = x if step is None or isinstance(step, str) else g.invert(step, x)
    return x


@transformer("ColumnTransformer")
def column_transformer(g: Build, model: Any, x: X) -> X:
    """Lower each transformer on its columns and put the results side by side."""
    made = []
    weights = model.transformer_weights or {}
    for name, step, chosen in model.transformers_:
        places = _places(chosen, x, model)
        if (isinstance(step, str) and step == "drop") or not places:
            continue
        found = g.apply(step, _picked(g, x, places))
        made.append(g.arithmetic(found, "*", weights[name]) if name in weights else found)
    if not made:
        raise NotCompiled("its ColumnTransformer keeps no column")
    return g.concat(made)


@transformer("FeatureUnion")
def feature_union(g: Build, model: Any, x: X) -> X:
    """Lower each transformer on the same input; weights multiply."""
    weights = model.transformer_weights or {}
    made = []
    for name, step in model.transformer_list:
        if not isinstance(step, str) or step != "drop":
            found = g.apply(step, x)
            made.append(g.arithmetic(found, "*", weights[name]) if name in weights else found)
    return g.concat(made)


def _picked(g: Build, x: X, places: Sequence[int]) -> X:
    if isinstance(x, Blocks) and x.names:  # each column is still one input
        return Blocks(tuple(x.columns[place] for place in places), tuple(x.names[place] for place in places))
    return g.take(x, places)


def _places(chosen: Any, x: X, model: Any) -> list[int]:
    """Give the places that a ColumnTransformer chose by name, number, mask or slice."""
    names = [str(name) for name in getattr(model, "feature_names_in_", x.names if isinstance(x, Blocks) else ())]
    width = len(names) or x.width
    if isinstance(chosen, str | int):
        chosen = [chosen]
    if isinstance(chosen, slice):
        start = names.index(chosen.start) if isinstance(chosen.start, str) else chosen.start
        stop = names.index(chosen.stop) + 1 if isinstance(chosen.stop, str) else chosen.stop
        return list(range(width))[start : stop : chosen.step]
    listed = [plain(each) for each in chosen]
    if listed and all(isinstance(each, bool) for each in listed):
        return [place for place, take in enumerate(listed) if take]
    return [names.index(each) if isinstance(each, str) else range(width)[int(str(each))] for each in listed]


def asked(g: Build, step: Any) -> Callable[[Any], Any]:
    """Make a call of a fitted transformer that takes an object array, named as in training."""
    names = getattr(step, "feature_names_in_", None)

    def ask(rows: Any) -> Any:
        if names is not None:
            rows = extras.load("pandas").DataFrame(rows, columns=names)
        return step.transform(rows)

    return ask


def blocks(x: X, what: str) -> Blocks:
    """Insist that nothing has mixed the fields yet.

    Raises:
        NotCompiled: something has.
    """
    if not isinstance(x, Blocks):
        raise NotCompiled(f"{what} stands behind a step that mixes columns")
    return x


@transformer("OneHotEncoder")
def one_hot(g: Build, step: Any, x: X) -> X:
    """Look every category up; source: the fitted encoder itself, asked once for each value."""
    widths = getattr(step, "_n_features_outs", None) or [len(each) for each in step.categories_]
    return encoded(g, step, x, [int(width) for width in widths])


@transformer("OrdinalEncoder")
def ordinal(g: Build, step: Any, x: X) -> X:
    """Look every category up."""
    return encoded(g, step, x, [1] * len(step.categories_))


@transformer("TargetEncoder")
def target_encoder(g: Build, step: Any, x: X) -> X:
    """Look every category up; with several classes a field has a column for each, side by side."""
    inputs = len(step.categories_)
    return encoded(g, step, x, [len(step.encodings_) // inputs] * inputs)


def encoded(g: Build, step: Any, x: X, widths: Sequence[int]) -> X:
    """Look up what an encoder makes of each of its inputs: in tables where they are fields, else by comparing."""
    if isinstance(x, Blocks) and len(x.columns) == len(widths):
        made = [_of_few(g, column, found) for column, found in zip(x.columns, step.categories_, strict=True)]
        if all(column.keys is not None and column.width == 1 for column in made):
            return g.tabulated(Blocks(tuple(made)), widths, asked(g, step))
    return _compared(g, g.tensor(x), step, widths)


def _of_few(g: Build, column: Column, categories: Any) -> Column:
    known = [plain(each) for each in categories if each == each]
    numbers = tuple(each for each in known if isinstance(each, int | float) and not isinstance(each, bool))
    if not column.is_number or column.steps or not numbers or len(numbers) < len(known):
        return column
    return g.listed(column, numbers)


def _compared(g: Build, x: Tensor, step: Any, widths: Sequence[int]) -> Tensor:
    """Compare numbers with an encoder's categories; a sum then gives what it makes of each."""
    np, ask = g.np, asked(g, step)
    categories = [np.asarray([plain(each) for each in found], dtype=float) for found in step.categories_]
    owners = np.repeat(np.arange(len(categories)), [len(each) for each in categories])
    flat = np.concatenate(categories)
    rows = np.empty((len(flat) + len(categories), len(categories)), dtype=object)
    rows[:] = [each[0] for each in categories]
    rows[np.arange(len(flat)), owners] = flat
    known = dense(g, ask(rows[: len(flat)]))
    owned = np.repeat(np.arange(len(categories)), widths)
    others, refuses = _others(g, ask, rows[len(flat) :], categories, owned)
    weights = np.where(owners[:, None] == owned, known - others, 0.0)
    same = g.node("Equal", g.take(x, owners), np.where(np.isnan(flat), 0.0, flat)[None], width=len(flat))
    if np.isnan(flat).any():
        same = g.node("Where", np.isnan(flat)[None], g.node("IsNaN", g.take(x, owners)), same)
    hits = g.cast(same, "double")
    if refuses:
        counted = hits @ (owners[:, None] == np.arange(len(categories))).astype(float)
        g.refuse(g.node("Less", counted, 0.5))
    if not others.any() and weights.max() == 1.0 and ((weights != 0.0).sum(axis=0) == 1).all():
        return g.tensor(g.take(hits, weights.argmax(axis=0)))  # one hot: a column for each, as it is
    found: Tensor = hits @ weights + others[None]
    return found


def _others(g: Build, ask: Any, rows: Any, categories: Sequence[Any], owned: Any) -> tuple[Any, bool]:
    """Say what an encoder makes of a number that it does not know, or that it refuses any."""
    for place, each in enumerate(categories):
        rows[place, place] = g.np.nanmax(each) + 1.0
    try:
        made = dense(g, ask(rows))
    except ValueError:
        return g.np.zeros(len(owned)), True
    others = made[owned, g.np.arange(len(owned))]
    if g.np.isnan(others).any():
        raise NotCompiled("an encoder behind other steps makes NaN of what it does not know")
    return others, False


def dense(g: Build, made: Any) -> Any:
    """Give what a transformer made as an array of float64."""
    return g.np.asarray(made.toarray() if hasattr(made, "toarray") else made, dtype=float)


@transformer(
    *"GenericUnivariateSelect SelectFdr SelectFpr SelectFromModel SelectFwe SelectKBest SelectPercentile".split(),
    *"RFE RFECV SequentialFeatureSelector VarianceThreshold".split(),
)
def selection(g: Build, step: Any, x: X) -> X:
    """Keep the columns that were selected."""
    return g.take(x, step.get_support(indices=True))


@transformer("StandardScaler")
def standard_scaler(g: Build, step: Any, x: X) -> X:
    """Subtract the mean and divide by the spread, in the order of the original."""
    if step.with_mean:
        x = g.arithmetic(x, "-", step.mean_)
    return g.arithmetic(x, "/", step.scale_) if step.with_std else x


@inverse("StandardScaler")
def standard_scaler_back(g: Build, step: Any, x: X) -> X:
    """Multiply by the spread and add the mean."""
    if step.with_std:
        x = g.arithmetic(x, "*", step.scale_)
    return g.arithmetic(x, "+", step.mean_) if step.with_mean else x


@transformer("MinMaxScaler")
def min_max_scaler(g: Build, step: Any, x: X) -> X:
    """Multiply and add, and clip where the original does."""
    x = g.arithmetic(g.arithmetic(x, "*", step.scale_), "+", step.min_)
    if not step.clip:
        return x
    low, high = (g.np.asarray(end, dtype=float) for end in step.feature_range)
    return g.node("Min", g.node("Max", g.tensor(x), low), high)


@inverse("MinMaxScaler")
def min_max_scaler_back(g: Build, step: Any, x: X) -> X:
    """Subtract and divide."""
    return g.arithmetic(g.arithmetic(x, "-", step.min_), "/", step.scale_)


@transformer("MaxAbsScaler")
def max_abs_scaler(g: Build, step: Any, x: X) -> X:
    """Divide by the largest."""
    return g.arithmetic(x, "/", step.scale_)


@inverse("MaxAbsScaler")
def max_abs_scaler_back(g: Build, step: Any, x: X) -> X:
    """Multiply by the largest."""
    return g.arithmetic(x, "*", step.scale_)


@transformer("RobustScaler")
def robust_scaler(g: Build, step: Any, x: X) -> X:
    """Subtract the median and divide by the spread of quantiles."""
    if step.with_centering:
        x = g.arithmetic(x, "-", step.center_)
    return g.arithmetic(x, "/", step.scale_) if step.with_scaling else x


@inverse("RobustScaler")
def robust_scaler_back(g: Build, step: Any, x: X) -> X:
    """Multiply by the spread of quantiles and add the median."""
    if step.with_scaling:
        x = g.arithmetic(x, "*", step.scale_)
    return g.arithmetic(x, "+", step.center_) if step.with_centering else x


@transformer("DictVectorizer")
def dict_vectorizer(g: Build, step: Any, x: X) -> X:
    """Give each value of a category a column, and each number its own; what is absent is zero."""
    given = blocks(x, "DictVectorizer")
    fields = dict(zip(given.names, given.columns, strict=True))
    return Blocks(tuple(_vectorized(g, step, str(name), fields) for name in step.feature_names_))


def _vectorized(g: Build, step: Any, name: str, fields: dict[str, Column]) -> Column:
    head, mark, value = name.partition(step.separator)
    column = fields[head]
    if column.keys is None:
        return replace(column, absent=0.0)
    listed = [*column.keys, *([object()] if column.unknown else []), object()]
    hits = [[float(bool(mark) and str(each) == value)] for each in listed]
    return replace(column, values=g.np.array(hits), missing=True)
