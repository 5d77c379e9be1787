"""Neural networks: layers of sums and a curve between them."""

from typing import Any

from ketch.compiler import NotCompiled, estimator
from ketch.compiler.build import BLOCK, Build
from ketch.compiler.values import Answers, Tensor, X

CURVES = {"relu": "Relu", "tanh": "Tanh", "logistic": "Sigmoid"}


def layers(g: Build, model: Any, x: X) -> Tensor:
    """Lower all layers up to the sums of the last one.

    Raises:
        NotCompiled: the curve between them is not known.
    """
    if model.activation not in CURVES and model.activation != "identity":
        raise NotCompiled(f"its activation is {model.activation}")
    before = 0
    for weights, bias in zip(model.coefs_[:-1], model.intercepts_[:-1], strict=True):
        more = -len(bias) % BLOCK if model.activation in {"tanh", "logistic"} else 0  # see Build.curved
        x = g.linear(x, g.np.pad(weights, ((0, before), (0, more))), g.np.pad(bias, (0, more)))
        x = x if model.activation == "identity" else g.curved(CURVES[model.activation], x)
        before = more
    return g.linear(x, g.np.pad(model.coefs_[-1], ((0, before), (0, 0))), model.intercepts_[-1])


@estimator("MLPClassifier")
def classifier(g: Build, model: Any, x: X) -> Answers:
    """Lower to layers, then a sigmoid or softmax; Rumelhart, Hinton and Williams 1986."""
    if model.out_activation_ == "logistic" and model.n_outputs_ > 1:
        raise NotCompiled("it answers several targets")
    sums = layers(g, model, x)
    return Answers(probabilities=g.linked("softmax" if sums.width > 1 else "sigmoid", sums))


@estimator("MLPRegressor")
def regressor(g: Build, model: Any, x: X) -> Answers:
    """Lower to layers, through exp where the loss has a log link."""
    if model.out_activation_ not in {"identity", "exp"}:
        raise NotCompiled(f"its last activation is {model.out_activation_}")
    sums = layers(g, model, x)
    return Answers(values=g.linked("exp", sums) if model.out_activation_ == "exp" else sums)
