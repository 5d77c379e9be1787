"""Optional libraries: where each comes from, and the sentence that installs it."""

import importlib
import os
from types import ModuleType

from ketch.errors import NotInstalled

EXTRAS = {  # root module -> extra that brings it
    "catboost": "catboost",
    "cloudpickle": "code",
    "detect_secrets": "code",
    "google": "onnx",
    "grpc": "grpc",
    "ipykernel": "notebook",
    "joblib": "sklearn",
    "jupytext": "notebook",
    "jwt": "jwt",
    "lightgbm": "lightgbm",
    "matplotlib": "card",
    "mmh3": "text",
    "nbclient": "notebook",
    "nbformat": "notebook",
    "numpy": "sklearn",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "openpyxl": "ui",
    "opentelemetry": "otel",
    "packaging": "lock",
    "pandas": "sklearn",
    "plette": "lock",
    "psycopg": "postgres",
    "pyarrow": "arrow",
    "ruff": "notebook",
    "scipy": "sklearn",
    "shap": "explain",
    "sklearn": "sklearn",
    "skops": "skops",
    "streamlit": "ui",
    "uv": "lock",
    "xgboost": "xgboost",
    "yaml": "mlflow",
}
SILENCE = {  # root module -> the variable that keeps it from calling its maker
    "onnxruntime": "ORT_DISABLE_TELEMETRY",
}


def load(name: str) -> ModuleType:
    """Import an optional module by its dotted name.

    Raises:
        NotInstalled: the library is missing; the hint is the command that installs it.
    """
    if silence := SILENCE.get(name.partition(".")[0]):
        os.environ.setdefault(silence, "1")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        root = name.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != root:
            raise
        extra = EXTRAS[root]
        raise NotInstalled(f"{root} is not installed", hint=f"Install it with: pip install 'ketch[{extra}]'") from None
