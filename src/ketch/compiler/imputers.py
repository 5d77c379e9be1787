"""What stands in for missing values, and columns that say where they were."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ketch.compiler import NotCompiled, transformer
from ketch.compiler.build import Build
from ketch.compiler.values import Blocks, Column, Tensor, X


@transformer("SimpleImputer")
def simple_imputer(g: Build, step: Any, x: X) -> X:
    """Put each column's statistic where its value is missing."""
    kept = [place for place, each in enumerate(step.statistics_) if step.keep_empty_features or each == each]
    numbers = [0.0 if each != each else each for each in step.statistics_]
    if isinstance(x, Blocks) and x.width == len(numbers) and all(_fills(each, step) for each in x.columns):
        columns, at = [], 0
        for column in x.columns:
            columns.append(_filled(column, numbers[at : at + column.width], _mark(step)))
            at += column.width
        filled: X = g.take(Blocks(tuple(columns)), kept)
    else:
        tensor = g.tensor(x)
        gaps = missing(g, tensor, step.missing_values)
        filled = g.take(g.node("Where", gaps, g.np.asarray(numbers, dtype=float)[None], tensor), kept)
    return _indicated(g, step, x, filled)


def _fills(column: Column, step: Any) -> bool:
    if column.text is not None or column.keys == ():
        raise NotCompiled(f"{column.field} is a text that an imputer fills")
    return column.keys is not None or (not column.steps and step.missing_values != step.missing_values)


def _mark(step: Any) -> Callable[[Any], bool]:
    mark = step.missing_values
    if mark is None:
        return lambda value: value is None
    return (lambda value: bool(value != value)) if mark != mark else (lambda value: bool(value == mark))


def _filled(column: Column, statistics: Sequence[Any], is_gap: Callable[[Any], bool]) -> Column:
    if column.keys is None:
        gap = column.absent is not None and math.isnan(float(column.absent))
        return replace(column, absent=float(statistics[0])) if gap else column
    values = column.values.copy()
    for place, statistic in enumerate(statistics):
        values[:, place] = [statistic if is_gap(value) else value for value in values[:, place].tolist()]
    return replace(column, values=values)


def _indicated(g: Build, step: Any, x: X, filled: X) -> X:
    return g.concat([filled, _indicators(g, step.indicator_, x)]) if step.add_indicator else filled


@transformer("MissingIndicator")
def missing_indicator(g: Build, step: Any, x: X) -> X:
    """Give a column of 0 and 1 for each that says whether it is missing."""
    others = sorted(set(range(x.width)) - {int(place) for place in step.features_})
    if step.features == "missing-only" and step.error_on_new and others:
        g.refuse(missing(g, g.tensor(g.take(x, others)), step.missing_values))
    return _indicators(g, step, x)


def _indicators(g: Build, step: Any, x: X) -> X:
    chosen = g.take(x, step.features_)
    if isinstance(chosen, Blocks) and all(_fills(each, step) for each in chosen.columns):
        return Blocks(tuple(_flagged(g, each, _mark(step)) for each in chosen.columns))
    return g.cast(missing(g, g.tensor(chosen), step.missing_values), "double")


def _flagged(g: Build, column: Column, is_gap: Callable[[Any], bool]) -> Column:
    if column.keys is not None:
        flags = [[float(is_gap(value)) for value in row] for row in column.values.tolist()]
        return replace(column, values=g.np.array(flags))
    gap = column.absent is not None and math.isnan(float(column.absent))
    return Column(column.field, (), g.np.array([[0.0], [float(gap)]]), unknown=True, missing=True)


def missing(g: Build, x: Tensor, mark: Any) -> Tensor:
    """Say which numbers are missing."""
    return g.node("IsNaN", x) if mark != mark else g.node("Equal", x, float(mark))


@transformer("IterativeImputer")
def iterative_imputer(g: Build, step: Any, x: X) -> X:
    """Predict each gap from the other columns, round after round; van Buuren and Groothuis-Oudshoorn 2011."""
    if step.sample_posterior:
        raise NotCompiled("IterativeImputer draws at random")
    places = list(range(x.width))
    if not step.keep_empty_features:
        places = g.np.flatnonzero(~step._is_empty_feature).tolist()
    given = g.tensor(x)
    start = g.tensor(g.apply(step.initial_imputer_, x))
    gaps = missing(g, g.tensor(g.take(given, places)), step.missing_values)
    columns = [g.take(start, [place]) for place in range(start.width)]
    owned = [g.node("Gather", gaps, g.integers([place]), axis=1, width=1) for place in range(start.width)]
    for each in step.imputation_sequence_ if step.n_iter_ else ():
        place = int(each.feat_idx)
        asked = g.node(
            "Concat", *(columns[at] for at in each.neighbor_feat_idx), axis=1, width=len(each.neighbor_feat_idx)
        )
        found = g.lower(each.estimator, asked).values
        if found is None:
            raise NotCompiled("IterativeImputer fills by something else than a regression")
        low, high = float(step._min_value[place]), float(step._max_value[place])
        columns[place] = g.node("Where", owned[place], g.node("Min", g.node("Max", found, low), high), columns[place])
    return _indicated(g, step, x, g.node("Concat", *columns, axis=1, width=len(columns)))


@transformer("KNNImputer")
def nearest_imputer(g: Build, step: Any, x: X) -> X:
    """Average what the nearest rows have that have a value there; Troyanskaya et al. 2001."""
    if callable(step.weights) or step.metric != "nan_euclidean":
        raise NotCompiled("KNNImputer has a function of its own")
    given = g.tensor(x)
    gaps = missing(g, given, step.missing_values)
    known = g.cast(g.node("Not", gaps), "double")
    squares, common = _apart(g, step, g.node("Where", gaps, 0.0, given), known)
    filled = []
    for place in range(given.width):
        own = g.tensor(g.take(given, [place]))
        if not step._valid_mask[place]:
            if step.keep_empty_features:
                filled.append(g.node("Where", g.node("IsNaN", own), 0.0, own * 0.0))
            continue
        gap = g.node("Gather", gaps, g.integers([place]), axis=1, width=1)
        filled.append(g.node("Where", gap, _donated(g, step, place, squares, common), own))
    return _indicated(g, step, x, g.node("Concat", *filled, axis=1, width=len(filled)))


def _apart(g: Build, step: Any, x: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Give squared distances to all rows that were fitted, over the columns that both have, and how many they are."""
    gaps = step._mask_fit_X
    others = g.np.where(gaps, 0.0, step._fit_X)
    squares = g.squares(x, others)
    mine = g.node("MatMul", x * x, gaps.astype(float).T, width=len(others))
    theirs = g.node("MatMul", g.node("Sub", 1.0, known), (others * others).T, width=len(others))
    common = g.node("MatMul", known, (~gaps).astype(float).T, width=len(others))
    both = g.node("Max", squares - mine - theirs, 0.0)
    return both / g.node("Max", common, 1.0) * float(x.width), common


def _donated(g: Build, step: Any, place: int, squares: Tensor, common: Tensor) -> Tensor:
    donors = g.np.flatnonzero(~step._mask_fit_X[:, place])
    values = step._fit_X[donors, place]
    near = g.take(squares, donors)
    unknown = g.node("Equal", g.take(common, donors), 0.0)
    count = min(int(step.n_neighbors), len(donors))
    barred = g.node("Where", unknown, math.inf, near)
    distances, places = g.nodes("TopK", barred, g.integers([count]), widths=[count, count], axis=1, largest=0, sorted=1)
    taken = g.node("Gather", values, places, axis=0, width=count)
    usable = g.node("Not", g.node("IsInf", distances))
    weights = g.cast(usable, "double")
    if step.weights == "distance":
        weights = _by_distance(g, distances, usable)
    whole = g.reduce("Sum", weights)
    none = g.node("Equal", whole, 0.0)
    mean = g.reduce("Sum", g.node("Mul", weights, taken)) / g.node("Where", none, 1.0, whole)
    return g.node("Where", none, float(values.mean()), mean)


def _by_distance(g: Build, squares: Tensor, usable: Tensor) -> Tensor:
    """Weigh by the inverse of the distance; rows at no distance count alone."""
    at_hand = g.cast(g.node("Equal", squares, 0.0), "double")
    found = g.node("Reciprocal", g.node("Sqrt", g.node("Where", g.node("Equal", squares, 0.0), 1.0, squares)))
    alone = g.node("Greater", g.reduce("Sum", at_hand), 0.0)
    return g.node("Where", alone, at_hand, g.node("Where", usable, found, 0.0))
