"""Preprocessing: columns chosen, encoded, filled and scaled, pushed into the fields as far as it goes."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ketch import extras
from ketch.compiler import Answers, Blocks, Build, Column, NotCompiled, X, estimator, transformer
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


@transformer("ColumnTransformer")
def column_transformer(g: Build, model: Any, x: X) -> X:
    """Lower each transformer on its columns and put the results side by side."""
    made = []
    for _, step, chosen in model.transformers_:
        places = _places(chosen, x)
        if (isinstance(step, str) and step == "drop") or not places:
            continue
        made.append(g.apply(step, _picked(g, x, places)))
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


def _places(chosen: Any, x: X) -> list[int]:
    """Give the places that a ColumnTransformer chose by name, number, mask or slice."""
    names = list(x.names) if isinstance(x, Blocks) else []
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
    return g.tabulated(blocks(x, "OneHotEncoder"), [int(n) for n in step._n_features_outs], asked(g, step))


@transformer("OrdinalEncoder")
def ordinal(g: Build, step: Any, x: X) -> X:
    """Look every category up."""
    return g.tabulated(blocks(x, "OrdinalEncoder"), [1] * step.n_features_in_, asked(g, step))


@transformer("TargetEncoder")
def target_encoder(g: Build, step: Any, x: X) -> X:
    """Look every category up; with several classes a field has a column for each, side by side."""
    inputs = step.n_features_in_
    return g.tabulated(blocks(x, "TargetEncoder"), [len(step.encodings_) // inputs] * inputs, asked(g, step))


@transformer("StandardScaler")
def standard_scaler(g: Build, step: Any, x: X) -> X:
    """Subtract the mean and divide by the spread, in the order of the original."""
    if step.with_mean:
        x = g.arithmetic(x, "-", step.mean_)
    return g.arithmetic(x, "/", step.scale_) if step.with_std else x


@transformer("MinMaxScaler")
def min_max_scaler(g: Build, step: Any, x: X) -> X:
    """Multiply and add."""
    if step.clip:
        raise NotCompiled("MinMaxScaler clips")
    return g.arithmetic(g.arithmetic(x, "*", step.scale_), "+", step.min_)


@transformer("MaxAbsScaler")
def max_abs_scaler(g: Build, step: Any, x: X) -> X:
    """Divide by the largest."""
    return g.arithmetic(x, "/", step.scale_)


@transformer("RobustScaler")
def robust_scaler(g: Build, step: Any, x: X) -> X:
    """Subtract the median and divide by the spread of quantiles."""
    if step.with_centering:
        x = g.arithmetic(x, "-", step.center_)
    return g.arithmetic(x, "/", step.scale_) if step.with_scaling else x


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


@transformer("FunctionTransformer")
def function_transformer(g: Build, step: Any, x: X) -> X:
    """Lower what passes its input through."""
    if step.func is None:
        return x
    raise NotCompiled("FunctionTransformer has a function of its own")
