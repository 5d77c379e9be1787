"""Online: one core of routes and guard, and the doors before it.

Request --guard--> route --decode, run, encode--> Response
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

DOORS: Final = {  # name -> where it stands
    "Front": "ketch.serve.front",
    "app_of": "ketch.serve.app",
    "serve_model": "ketch.serve.server",
}


@dataclass(frozen=True, slots=True)
class Request:
    """What came in, whatever door it came through; header names are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    base_url: str = ""


@dataclass(frozen=True, slots=True)
class Response:
    """What goes out, whatever door it goes through."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


def door(name: str) -> Callable[..., Any]:
    """Open one of the doors by its name."""
    found: Callable[..., Any] = getattr(importlib.import_module(DOORS[name]), name)
    return found
