"""Support vectors, kernel ridge and Gaussian processes answer the same when they are compiled."""

from typing import Any

import numpy as np
import onnx
import onnxruntime  # type: ignore[import-untyped]
import pytest
from sklearn.gaussian_process import GaussianProcessClassifier, GaussianProcessRegressor
from sklearn.gaussian_process.kernels import (
    RBF,
    ConstantKernel,
    DotProduct,
    Exponentiation,
    ExpSineSquared,
    Matern,
    PairwiseKernel,
    RationalQuadratic,
    WhiteKernel,
)
from sklearn.kernel_ridge import KernelRidge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.svm import SVC, SVR, NuSVC, NuSVR, OneClassSVM

from ketch.compiler import NotCompiled
from tests.lowered import DIABETES, IRIS, PROGRESS, THREE, TWO, hold, lowered, named, rows

KINDS = ["linear", "poly", "rbf", "sigmoid"]


@pytest.mark.parametrize("target", [TWO, THREE], ids=["two", "three"])
@pytest.mark.parametrize(
    "model",
    [
        *(SVC(kernel=kind) for kind in KINDS),
        SVC(kernel="poly", degree=2, coef0=1.0, gamma=0.3),
        SVC(break_ties=True),
        SVC(decision_function_shape="ovo"),
        SVC(class_weight="balanced"),
        NuSVC(nu=0.2),
    ],
    ids=named,
)
def test_support_vectors_vote(model: Any, target: Any) -> None:
    hold(lowered(make_pipeline(StandardScaler(), model), IRIS, target), rows(IRIS), 1e-7)


def test_a_linear_kernel_between_two_classes_is_one_sum() -> None:
    assert lowered(SVC(kernel="linear"), IRIS, TWO).is_folded
    assert lowered(SVR(kernel="linear"), IRIS, np.arange(150.0)).is_folded


@pytest.mark.parametrize("kind", KINDS)
def test_support_vectors_of_numbers_and_outliers(kind: str) -> None:
    for model in (SVR(kernel=kind), NuSVR(kernel=kind, C=3.0)):
        hold(lowered(make_pipeline(StandardScaler(), model), DIABETES, PROGRESS), rows(DIABETES), 1e-7)
    hold(lowered(make_pipeline(StandardScaler(), OneClassSVM(kernel=kind, nu=0.3)), IRIS), rows(IRIS), 1e-7)


@pytest.mark.parametrize("kind", ["linear", "rbf", "poly", "sigmoid", "laplacian", "cosine", "chi2"])
def test_kernel_ridge(kind: str) -> None:
    model = KernelRidge(kernel=kind, alpha=1.0, gamma=0.1)
    asked = rows(DIABETES).iloc[:41] if kind == "chi2" else rows(DIABETES)
    hold(lowered(make_pipeline(MinMaxScaler(), model), DIABETES, PROGRESS), asked, 1e-7)


@pytest.mark.parametrize(
    "kernel",
    [
        None,
        RBF([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0]),
        2.0 * RBF(3.0) + WhiteKernel(),
        Matern(3.0, nu=0.5),
        Matern(3.0, nu=1.5) * ConstantKernel(2.0),
        Matern(3.0, nu=2.5),
        Matern(3.0, nu=np.inf),
        RationalQuadratic(2.0, 0.5),
        ExpSineSquared(3.0, 4.0),
        DotProduct() + WhiteKernel(),
        Exponentiation(DotProduct(0.5), 2),
        PairwiseKernel(metric="laplacian", gamma=0.3),
    ],
    ids=named,
)
def test_a_process_by_what_its_kernel_is_made_of(kernel: Any) -> None:
    model = GaussianProcessRegressor(kernel, alpha=20.0, optimizer=None, normalize_y=True)
    hold(lowered(make_pipeline(StandardScaler(), model), DIABETES, PROGRESS), rows(DIABETES), 1e-8)


@pytest.mark.parametrize("target", [TWO, THREE], ids=["two", "three"])
@pytest.mark.parametrize("kernel", [None, 1.0 * Matern(2.0) + DotProduct()], ids=named)
def test_a_process_of_classes(kernel: Any, target: Any) -> None:
    model = GaussianProcessClassifier(kernel, optimizer=None)
    hold(lowered(make_pipeline(StandardScaler(), model), IRIS[::3], target[::3]), rows(IRIS), 1e-8)


@pytest.mark.parametrize(
    "model",
    [
        SVC(kernel=lambda x, y: x @ y.T),
        GaussianProcessRegressor(Matern(nu=0.7), alpha=1.0, optimizer=None),
        GaussianProcessClassifier(optimizer=None, multi_class="one_vs_one"),
    ],
    ids=named,
)
def test_what_has_no_compiled_form_says_so(model: Any) -> None:
    with pytest.raises(NotCompiled):
        lowered(model, IRIS, THREE if hasattr(model, "predict_proba") or isinstance(model, SVC) else np.arange(150.0))


@pytest.mark.parametrize("kind", ["Exp", "Tanh", "Sqrt", "Pow"])
def test_what_no_company_changes_needs_none(kind: str) -> None:
    """The compiler leaves rows unpadded where ONNX Runtime gives each number the same bits wherever it stands."""
    width = 5 if kind in {"Sqrt", "Pow"} else 16
    x = np.abs(np.random.default_rng(0).normal(0, 3, (100, width))) * 10.0 ** np.arange(-3, 2).repeat(20)[:, None]
    found = _asked(kind, x)
    for size in (1, 3, 8):
        parts = [_asked(kind, np.ascontiguousarray(x[at : at + size])) for at in range(0, 100, size)]
        assert (np.concatenate(parts) == found).all()


def _asked(kind: str, x: Any) -> Any:
    inputs, exponent = ["x"], onnx.numpy_helper.from_array(np.array(-0.37), "p")
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(kind, [*inputs, "p"] if kind == "Pow" else inputs, ["y"])],
        "one",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.DOUBLE, [None, x.shape[1]])],
        [onnx.helper.make_empty_tensor_value_info("y")],
        [exponent] if kind == "Pow" else [],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]
