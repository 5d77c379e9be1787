"""Estimators made of several: votes, averages, stacks and boosts of whatever has a compiled form."""

import functools
from collections.abc import Sequence
from typing import Any

from ketch.compiler import NotCompiled, estimator, transformer
from ketch.compiler.build import Build
from ketch.compiler.values import Answers, Blocks, Tensor, Trees, X


def _asked(g: Build, tensor: Tensor | None, what: str) -> Tensor:
    if tensor is None:
        raise NotCompiled(f"one of its estimators has no {what}")
    return tensor


def _probabilities(g: Build, model: Any, x: X) -> Tensor:
    return _asked(g, g.lower(model, x).probabilities, "probabilities")


def _values(g: Build, model: Any, x: X) -> Tensor:
    return _asked(g, g.lower(model, x).values, "values")


def _places(g: Build, model: Any, x: X, classes: Sequence[Any] | None = None) -> Tensor:
    """Ask for the predicted classes as places in `classes`, or in the model's own; (rows, 1) of int64."""
    found = _column(g, g.labels(g.lower(model, x)))
    if classes is None or list(classes) == list(model.classes_):
        return found
    listed = list(classes)
    return g.node("Gather", g.integers([listed.index(each) for each in model.classes_]), found, axis=0, width=1)


def _column(g: Build, labels: Tensor) -> Tensor:
    return g.node("Unsqueeze", labels, g.integers([1]), width=1)


def _votes(g: Build, places: Tensor, count: int) -> Tensor:
    """Give a 1 for the class that is predicted, and 0 for the others."""
    return g.cast(g.node("Equal", places, g.integers(range(count)), width=count), "double")


def _sum(parts: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    weighed = [part if weight == 1.0 else part * float(weight) for part, weight in zip(parts, weights, strict=True)]
    return functools.reduce(lambda one, other: one + other, weighed)


# ---- votes -----------------------------------------------------------------------------------------


def _weights(model: Any) -> list[float]:
    found = model._weights_not_none
    return [1.0] * len(model.estimators_) if found is None else [float(each) for each in found]


@estimator("VotingClassifier")
def voting(g: Build, model: Any, x: X) -> Answers:
    """Count votes, or average probabilities."""
    weights, count = _weights(model), len(model.classes_)
    if model.voting == "hard":
        votes = [_votes(g, _places(g, each, x, range(count)), count) for each in model.estimators_]
        return Answers(labels=g.node("ArgMax", _sum(votes, weights), axis=1, keepdims=0, width=1))
    return Answers(probabilities=g.mean([_probabilities(g, each, x) for each in model.estimators_], weights))


@estimator("VotingRegressor")
def averaging(g: Build, model: Any, x: X) -> Answers:
    """Average predictions."""
    return Answers(values=g.mean([_values(g, each, x) for each in model.estimators_], _weights(model)))


@transformer("VotingClassifier", "VotingRegressor")
def voted(g: Build, model: Any, x: X) -> X:
    """Put what each says side by side."""
    if getattr(model, "voting", "") == "soft":
        if not model.flatten_transform:
            raise NotCompiled("VotingClassifier gives an array of three axes")
        return g.concat([_probabilities(g, each, x) for each in model.estimators_])
    if hasattr(model, "voting"):
        return g.concat([g.cast(_places(g, each, x), "double") for each in model.estimators_])
    return g.concat([_values(g, each, x) for each in model.estimators_])


# ---- stacks ----------------------------------------------------------------------------------------


@transformer("StackingClassifier", "StackingRegressor")
def stacked(g: Build, model: Any, x: X) -> X:
    """Put what each says side by side, and the input after it where it passes through."""
    kept = [each for each in model.estimators_ if not isinstance(each, str)]
    two = len(getattr(model, "classes_", ())) == 2
    made: list[X] = [_said(g, each, kind, x, two) for each, kind in zip(kept, model.stack_method_, strict=True)]
    return g.concat([*made, x] if model.passthrough else made)


def _said(g: Build, model: Any, kind: str, x: X, two: bool) -> X:
    answers = g.lower(model, x)
    if kind == "decision_function":
        return _asked(g, answers.scores, "scores")
    if kind == "predict_proba":
        found = _asked(g, answers.probabilities, "probabilities")
        return g.take(found, range(1, found.width)) if two else found
    if answers.values is not None:
        return answers.values
    places = _column(g, g.labels(answers))
    if g.np.asarray(model.classes_).dtype.kind not in "iufb":
        raise NotCompiled("it stacks predictions that are texts")
    return g.node("Gather", g.np.asarray(model.classes_, dtype=float), places, axis=0, width=1)


@estimator("StackingClassifier", "StackingRegressor")
def stacking(g: Build, model: Any, x: X) -> Answers:
    """Ask the last estimator about what the others say; Wolpert 1992."""
    return g.lower(model.final_estimator_, stacked(g, model, x))


# ---- bags ------------------------------------------------------------------------------------------


def _shown(g: Build, x: X, features: Any) -> X:
    """Give an estimator the columns that it was given in training."""
    places = [int(place) for place in features]
    names = isinstance(x, Blocks) and bool(x.names)
    return x if names and places == list(range(x.width)) else g.take(x, places)


def _trees(model: Any) -> list[Any] | None:
    """Give the trees of an ensemble of nothing else."""
    kinds = {"DecisionTreeClassifier", "DecisionTreeRegressor", "ExtraTreeClassifier", "ExtraTreeRegressor"}
    found: list[Any] = [each.tree_ for each in model.estimators_ if type(each).__name__ in kinds]
    return found if len(found) == len(model.estimators_) and all(each.n_outputs == 1 for each in found) else None


def _likely(g: Build, each: Any, count: int) -> Any:
    """Give the class probabilities of the nodes of a tree that may know some of the classes only."""
    value = each.tree_.value[:, 0, :]
    found = g.np.zeros((len(value), count))
    whole = value.sum(axis=1, keepdims=True)
    found[:, g.np.asarray(each.classes_, dtype=int)] = value / g.np.where(whole == 0, 1.0, whole)
    return found


@estimator("BaggingClassifier")
def bagging(g: Build, model: Any, x: X) -> Answers:
    """Average probabilities, or votes where there are none; Breiman 1996."""
    count, own = len(model.classes_), model.estimators_features_
    if fitted := _trees(model):
        worths = [_likely(g, each, count) for each in model.estimators_]
        found = g.trees(x, Trees(fitted, worths, (), count, own)) / float(len(fitted))
        return Answers(probabilities=found)
    parts = []
    for each, features in zip(model.estimators_, own, strict=True):
        shown = _shown(g, x, features)
        if hasattr(each, "predict_proba"):
            known = g.np.eye(count)[g.np.asarray(each.classes_, dtype=int)]
            likely = _probabilities(g, each, shown)
            parts.append(likely if len(known) == count else likely @ known)
        else:
            parts.append(_votes(g, _places(g, each, shown, range(count)), count))
    return Answers(probabilities=g.mean(parts))


@estimator("BaggingRegressor")
def bagging_regressor(g: Build, model: Any, x: X) -> Answers:
    """Average predictions."""
    own = model.estimators_features_
    if fitted := _trees(model):
        trees = Trees(fitted, [each.value[:, :, 0] for each in fitted], [0] * len(fitted), 1, own)
        return Answers(values=g.trees(x, trees) / float(len(fitted)))
    parts = [_values(g, each, _shown(g, x, at)) for each, at in zip(model.estimators_, own, strict=True)]
    return Answers(values=g.mean(parts))


# ---- boosts ----------------------------------------------------------------------------------------


@estimator("AdaBoostClassifier")
def ada_boost(g: Build, model: Any, x: X) -> Answers:
    """Weigh votes; Zhu, Zou, Rosset and Hastie 2009."""
    if getattr(model, "algorithm", "SAMME") == "SAMME.R":
        raise NotCompiled("AdaBoostClassifier was fitted by SAMME.R")
    count = len(model.classes_)
    if count < 2:
        raise NotCompiled("AdaBoostClassifier knows one class only")
    found = _boosted(g, model, x, count) / float(model.estimator_weights_.sum())
    if count == 2:
        scores = found * 2.0
        return Answers(probabilities=g.linked("sigmoid", scores), scores=scores)
    labels = g.labels(Answers(scores=found))
    return Answers(probabilities=g.linked("softmax", found / (count - 1.0)), scores=found, labels=labels)


def _boosted(g: Build, model: Any, x: X, count: int) -> Tensor:
    """Add up a weight for the class that is predicted, and its share against all others; of two, for the second."""
    np, listed = g.np, list(model.classes_)
    signs = np.array([[-1.0], [1.0]]) if count == 2 else np.where(np.eye(count) > 0, 1.0, -1.0 / (count - 1))
    weights = model.estimator_weights_[: len(model.estimators_)]
    if fitted := _trees(model):
        places = [np.array([listed.index(known) for known in each.classes_]) for each in model.estimators_]
        worths = [
            float(weight) * signs[own[each.value[:, 0, :].argmax(axis=1)]]
            for each, own, weight in zip(fitted, places, weights, strict=True)
        ]
        return g.trees(x, Trees(fitted, worths, [0] * len(fitted), signs.shape[1]))
    votes = [
        g.node("Gather", float(weight) * signs, _places(g, each, x, listed), axis=0, width=signs.shape[1])
        for each, weight in zip(model.estimators_, weights, strict=True)
    ]
    flat = [g.node("Reshape", each, g.integers([-1, signs.shape[1]])) for each in votes]
    return _sum(flat, [1.0] * len(flat))


@estimator("AdaBoostRegressor")
def ada_boost_regressor(g: Build, model: Any, x: X) -> Answers:
    """Give the weighted median of all predictions; Drucker 1997."""
    count = len(model.estimators_)
    weights = g.np.asarray(model.estimator_weights_[:count], dtype=float)
    if fitted := _trees(model):
        found = g.trees(x, Trees(fitted, [each.value[:, :, 0] for each in fitted], range(count), count))
    else:
        found = g.tensor(g.concat([_values(g, each, x) for each in model.estimators_]))
    ordered, places = g.nodes("TopK", found, g.integers([count]), widths=[count] * 2, axis=1, largest=0)
    below = g.node("CumSum", g.node("Gather", weights, places, axis=0, width=count), g.integers(1))
    enough = g.node("GreaterOrEqual", below, g.tensor(g.take(below, [count - 1])) * 0.5)
    middle = g.node("ArgMax", g.cast(enough, "int64"), axis=1, keepdims=1, width=1)
    return Answers(values=g.node("GatherElements", ordered, middle, axis=1, width=1))


# ---- one against others ----------------------------------------------------------------------------


@estimator("_ConstantPredictor")
def constant(g: Build, model: Any, x: X) -> Answers:
    """Give the one class that was ever seen."""
    seen = float(g.np.ravel(model.y_)[0])
    one = g.linear(x, g.np.zeros((x.width, 1)), seen)
    return Answers(scores=one, probabilities=g.linear(x, g.np.zeros((x.width, 2)), [1.0 - seen, seen]))


@estimator("OneVsRestClassifier")
def against_the_rest(g: Build, model: Any, x: X) -> Answers:
    """Choose the class that is surest against all others."""
    if model.multilabel_:
        raise NotCompiled("it answers several targets")
    asked = [g.lower(each, x) for each in model.estimators_]
    likely = [each.probabilities for each in asked]
    sure = [g.confidence(each, found) for each, found in zip(model.estimators_, asked, strict=True)]
    if len(asked) == 1:
        threshold = 0.0 if hasattr(model.estimators_[0], "decision_function") else 0.5
        labels = _above(g, sure[0], threshold)
        folds = likely[0] is not None and likely[0].link == ("sigmoid", asked[0].scores)
        return Answers(labels=None if folds else labels, probabilities=likely[0], scores=asked[0].scores)
    scores = g.tensor(g.concat(sure))
    if any(each is None for each in likely):
        return Answers(scores=scores)
    labels = g.node("ArgMax", scores, axis=1, keepdims=0, width=1)
    if all(each.link and each.link[0] == "sigmoid" and each.link[1].affine for each in likely if each):
        sums = g.tensor(g.concat([each.link[1] for each in likely if each and each.link]))
        return Answers(probabilities=g.linked("shares", sums), scores=scores)
    seconds = g.tensor(g.concat([g.take(each, [1]) for each in likely if each]))
    whole = g.reduce("Sum", seconds)
    shares = seconds / g.node("Where", g.node("Equal", whole, 0.0), 1.0, whole)
    return Answers(labels=labels, probabilities=shares, scores=scores)


def _above(g: Build, x: Tensor, threshold: float) -> Tensor:
    found = g.cast(g.node("Greater", x, threshold), "int64")
    return g.node("Reshape", found, g.integers([-1]), width=1)


@estimator("OneVsOneClassifier")
def against_each(g: Build, model: Any, x: X) -> Answers:
    """Count the duels that each class wins; how sure they were breaks ties."""
    if getattr(model, "pairwise_indices_", None) is not None:
        raise NotCompiled("OneVsOneClassifier compares rows with those of training")
    np, count = g.np, len(model.classes_)
    pairs = [(i, j) for i in range(count) for j in range(i + 1, count)]
    first, second = (np.eye(count)[[pair[end] for pair in pairs]] for end in (0, 1))
    asked = [(each, g.lower(each, x)) for each in model.estimators_]
    won = g.concat([g.cast(_column(g, g.labels(found)), "double") for _, found in asked])
    sure = g.linear(g.concat([g.confidence(each, found) for each, found in asked]), second - first)
    votes = g.linear(won, second - first, first.sum(axis=0))
    scores = votes + sure / ((g.node("Abs", sure) + 1.0) * 3.0)
    if count > 2:
        return Answers(scores=scores)
    score = g.tensor(g.take(scores, [1]))
    threshold = 0.0 if hasattr(model.estimators_[0], "decision_function") else 0.5
    return Answers(scores=score, labels=_above(g, score, threshold))


@estimator("OutputCodeClassifier")
def output_code(g: Build, model: Any, x: X) -> Answers:
    """Choose the class whose code is nearest; Dietterich and Bakiri 1995."""
    codes = g.np.asarray(model.code_book_, dtype=float)
    found = g.tensor(g.concat([g.confidence(each, g.lower(each, x)) for each in model.estimators_]))
    return Answers(labels=g.node("ArgMin", g.squares(found, codes), axis=1, keepdims=0, width=1))
