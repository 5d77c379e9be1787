"""Optional libraries: where each comes from, and the sentence that installs it."""

import importlib
import os
from types import ModuleType

from ketch.errors import NotInstalled

EXTRAS = {  # root module, or one within a namespace of several libraries -> extra that brings it
    "azure.identity": "azure",
    "boto3": "aws",
    "botocore": "aws",
    "catboost": "catboost",
    "cloudpickle": "code",
    "cyclonedx": "image",
    "detect_secrets": "code",
    "google.auth": "google",
    "google.oauth2": "google",
    "google.protobuf": "onnx",
    "grpc": "grpc",
    "installer": "image",
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
    "requests": "deploy",
    "ruff": "notebook",
    "scipy": "sklearn",
    "shap": "explain",
    "sklearn": "sklearn",
    "skops": "skops",
    "streamlit": "ui",
    "tenacity": "deploy",
    "urllib3": "deploy",
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
        known, missing = next((each for each in EXTRAS if f"{name}.".startswith(f"{each}.")), ""), f"{error.name}."
        if not known or not (f"{known}.".startswith(missing) or missing.startswith(f"{known}.")):
            raise
        hint = f"Install it with: pip install 'ketch[{EXTRAS[known]}]'"
        raise NotInstalled(f"{known} is not installed", hint=hint) from None
