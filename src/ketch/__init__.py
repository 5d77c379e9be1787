"""Carries a trained model from a notebook to production."""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ketch.client import Client as Client
    from ketch.client import serve as serve
    from ketch.errors import KetchError as KetchError
    from ketch.pack import pack as pack
    from ketch.predict import load as load
    from ketch.serve.app import flask_app as flask_app

_WHERE = {
    "Client": "ketch.client",
    "KetchError": "ketch.errors",
    "flask_app": "ketch.serve.app",
    "load": "ketch.predict",
    "pack": "ketch.pack",
    "serve": "ketch.client",
}

__all__ = ["Client", "KetchError", "flask_app", "load", "pack", "serve"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'ketch' has no attribute {name!r}")
    found = getattr(importlib.import_module(_WHERE[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return __all__


class _FrontDoor(ModuleType):
    """Keep `ketch.pack` and `ketch.serve` the functions of that name when the modules of that name are imported."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _WHERE and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _FrontDoor
