"""Several targets: an estimator for each, side by side or one after the other."""

from typing import Any

from ketch.compiler import NotCompiled, estimator
from ketch.compiler.build import Build
from ketch.compiler.values import Answers, Tensor, X


def _values(answers: Answers) -> Tensor:
    if answers.values is None:
        raise NotCompiled("one of its targets has no compiled regression")
    return answers.values


@estimator("MultiOutputClassifier")
def classes(g: Build, model: Any, x: X) -> Answers:
    """Ask an estimator for each target."""
    return Answers(parts=tuple(g.lower(each, x) for each in model.estimators_))


@estimator("MultiOutputRegressor")
def numbers(g: Build, model: Any, x: X) -> Answers:
    """Ask an estimator for each target."""
    return Answers(values=g.tensor(g.concat([_values(g.lower(each, x)) for each in model.estimators_])))


@estimator("RegressorChain")
def chain_of_numbers(g: Build, model: Any, x: X) -> Answers:
    """Ask for each target, showing what was said of those before."""
    found: list[Tensor] = []
    for each in model.estimators_:
        found.append(_values(g.lower(each, g.concat([x, *found]) if found else x)))
    places = g.np.argsort(model.order_)
    return Answers(values=g.tensor(g.concat([found[place] for place in places])))


@estimator("ClassifierChain")
def chain_of_classes(g: Build, model: Any, x: X) -> Answers:
    """Ask for each target, showing what was said of those before; Read, Pfahringer, Holmes and Frank 2009."""
    shown: list[Tensor] = []
    found: list[Answers] = []
    for each in model.estimators_:
        found.append(g.lower(each, g.concat([x, *shown]) if shown else x))
        shown.append(_shown(g, each, found[-1], getattr(model, "chain_method_", "predict")))
    return Answers(parts=tuple(found[place] for place in g.np.argsort(model.order_)))


def _shown(g: Build, model: Any, answers: Answers, method: str) -> Tensor:
    if method == "decision_function" and answers.scores is not None:
        return answers.scores
    if method == "predict_proba" and answers.probabilities is not None:
        return g.tensor(g.take(answers.probabilities, [1]))
    if method != "predict":
        raise NotCompiled(f"one of its targets has no compiled {method}")
    places = g.node("Unsqueeze", g.labels(answers), g.integers([1]), width=1)
    return g.node("Gather", g.np.asarray(model.classes_, dtype=float), places, axis=0, width=1)
