"""Estimators around one other: searches, thresholds, calibration, transformed targets, selected columns."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ketch.compiler import NotCompiled, estimator, transformer
from ketch.compiler.build import Build
from ketch.compiler.values import Answers, Tensor, X

SEARCHES = ("GridSearchCV", "RandomizedSearchCV", "HalvingGridSearchCV", "HalvingRandomSearchCV")


@estimator(*SEARCHES)
def search(g: Build, model: Any, x: X) -> Answers:
    """Ask what the search found best."""
    return g.lower(model.best_estimator_, x)


@transformer(*SEARCHES)
def searched(g: Build, model: Any, x: X) -> X:
    """Apply what the search found best."""
    return g.apply(model.best_estimator_, x)


@estimator("FrozenEstimator")
def frozen(g: Build, model: Any, x: X) -> Answers:
    """Ask what is frozen."""
    return g.lower(model.estimator, x)


@transformer("FrozenEstimator")
def frozen_step(g: Build, model: Any, x: X) -> X:
    """Apply what is frozen."""
    return g.apply(model.estimator, x)


@estimator("SelfTrainingClassifier")
def self_training(g: Build, model: Any, x: X) -> Answers:
    """Ask the estimator that was fitted last."""
    return g.lower(getattr(model, "estimator_", None) or model.base_estimator_, x)


@estimator("RFE", "RFECV")
def eliminated(g: Build, model: Any, x: X) -> Answers:
    """Ask about the columns that are left."""
    return g.lower(model.estimator_, g.take(x, model.get_support(indices=True)))


@estimator("TransformedTargetRegressor")
def transformed_target(g: Build, model: Any, x: X) -> Answers:
    """Take the target's transformation back."""
    values = g.lower(model.regressor_, x).values
    if values is None:
        raise NotCompiled("its regressor has no values")
    return Answers(values=g.tensor(g.invert(model.transformer_, values)))


# ---- thresholds ------------------------------------------------------------------------------------


@estimator("FixedThresholdClassifier")
def fixed_threshold(g: Build, model: Any, x: X) -> Answers:
    """Say the positive class from a threshold on."""
    inner = getattr(model, "estimator_", model.estimator)
    method = model.response_method
    if method == "auto":
        method = "predict_proba" if hasattr(inner, "predict_proba") else "decision_function"
    threshold = model.threshold
    if isinstance(threshold, str):
        threshold = 0.5 if method == "predict_proba" else 0.0
    return _thresholded(g, model, inner, x, method, float(threshold), model.pos_label)


@estimator("TunedThresholdClassifierCV")
def tuned_threshold(g: Build, model: Any, x: X) -> Answers:
    """Say the positive class from the threshold on that was found best."""
    method = model.response_method
    if method == "auto":
        method = "predict_proba" if hasattr(model.estimator_, "predict_proba") else "decision_function"
    positive = model._curve_scorer._get_pos_label()
    return _thresholded(g, model, model.estimator_, x, method, float(model.best_threshold_), positive)


def _thresholded(g: Build, model: Any, inner: Any, x: X, method: str, threshold: float, positive: Any) -> Answers:
    answers = g.lower(inner, x)
    place = 1 if positive is None else list(model.classes_).index(positive)
    found = answers.probabilities if method == "predict_proba" else answers.scores
    if found is None:
        raise NotCompiled(f"its estimator has no compiled {method}")
    if found.width > 1:
        found = g.tensor(g.take(found, [place]))
    elif place == 0:
        found = g.node("Neg", found)
    above = g.node("GreaterOrEqual", found, threshold)
    labels = g.node("Where", above, g.integers(place), g.integers(1 - place), width=1)
    return replace(answers, labels=g.node("Reshape", labels, g.integers([-1])))


# ---- calibration -----------------------------------------------------------------------------------


@estimator("CalibratedClassifierCV")
def calibrated(g: Build, model: Any, x: X) -> Answers:
    """Average what each calibrated classifier says."""
    inner = model.calibrated_classifiers_
    if all(len(each.calibrators) == len(each.classes) > 2 and _is_sigmoid(each.calibrators[0]) for each in inner):
        return Answers(probabilities=_at_once(g, inner, x))
    parts = [_calibrated(g, each, x) for each in inner]
    return Answers(probabilities=parts[0] if len(parts) == 1 else g.mean(parts))


def _at_once(g: Build, inner: Sequence[Any], x: X) -> Tensor:
    """Average the shares of sigmoids of several classifiers that know all classes."""
    count = len(inner[0].classes)
    sums = [_slope(g, each.calibrators, g.confidence(each.estimator, g.lower(each.estimator, x))) for each in inner]
    if len(sums) == 1:
        return g.linked("even", sums[0])
    likely = g.node("Sigmoid", g.concat(sums))
    wide = g.np.kron(g.np.eye(len(sums)), g.np.ones((count, count)))  # sums of each classifier's, once for each class
    whole = likely @ wide
    none = g.node("Equal", whole, 0.0)
    shares = g.node("Where", none, 1.0 / count, likely / g.node("Where", none, 1.0, whole))
    found: Tensor = shares @ (g.np.tile(g.np.eye(count), (len(sums), 1)) / len(sums))
    return found


def _calibrated(g: Build, each: Any, x: X) -> Tensor:
    found = g.confidence(each.estimator, g.lower(each.estimator, x))
    if each.method == "temperature":
        return _tempered(g, each, found)
    if len(each.classes) == 2:
        return _two(g, each.calibrators[0], found)
    known = list(each.estimator.classes_)
    columns = [g.linear(found, g.np.zeros((found.width, 1)))] * len(each.classes)
    for place, calibrator in enumerate(each.calibrators):
        columns[list(each.classes).index(known[place])] = _likely(g, calibrator, g.tensor(g.take(found, [place])))
    joined = g.tensor(g.concat(columns))
    whole = g.reduce("Sum", joined)
    none = g.node("Equal", whole, 0.0)
    return g.node("Where", none, 1.0 / len(columns), joined / g.node("Where", none, 1.0, whole))


def _is_sigmoid(calibrator: Any) -> bool:
    return type(calibrator).__name__ == "_SigmoidCalibration"


def _slope(g: Build, calibrators: Sequence[Any], x: Tensor) -> Tensor:
    factors, offsets = ([-float(getattr(each, name)) for each in calibrators] for name in ("a_", "b_"))
    return g.tensor(g.arithmetic(g.arithmetic(x, "*", factors), "+", offsets))


def _likely(g: Build, calibrator: Any, x: Tensor) -> Tensor:
    """Calibrate scores; Platt 1999, Zadrozny and Elkan 2002."""
    if _is_sigmoid(calibrator):
        return g.node("Sigmoid", _slope(g, [calibrator], x))
    found = g.lower(calibrator, x).values
    if found is None:
        raise NotCompiled("its calibration has no values")
    return found


def _two(g: Build, calibrator: Any, x: Tensor) -> Tensor:
    if _is_sigmoid(calibrator):
        return g.linked("sigmoid", _slope(g, [calibrator], x))
    return g.both(_likely(g, calibrator, x))


def _tempered(g: Build, each: Any, found: Tensor) -> Tensor:
    """Divide by a temperature; Guo, Pleiss, Sun and Weinberger 2017."""
    beta = float(each.calibrators[0].beta_)
    if hasattr(each.estimator, "decision_function"):
        return g.linked("sigmoid", found * (2.0 * beta)) if found.width == 1 else g.linked("softmax", found * beta)
    likely = found if found.width > 1 else g.both(found)
    return g.linked("softmax", g.node("Log", likely + 1e-12) * beta)
