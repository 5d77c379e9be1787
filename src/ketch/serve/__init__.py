"""Online: one core of routes and guard, and the doors before it.

Request --guard--> Call --route: decode, run, encode--> Response
"""

import functools
import importlib
import importlib.metadata
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ketch.predict import Predictor

DOORS: Final = {  # name -> where it stands
    "front_of": "ketch.serve.front",
    "Bearer": "ketch.serve.bearer",
    "Cors": "ketch.serve.headers",
    "MetricsServer": "ketch.serve.metrics_port",
    "Patience": "ketch.serve.front",
    "Rates": "ketch.serve.rates",
    "Shadow": "ketch.serve.shadow",
    "Supervisor": "ketch.serve.supervisor",
    "Worker": "ketch.serve.worker",
    "app_of": "ketch.serve.app",
    "check_watchers": "ketch.serve.observed",
    "grpc_server": "ketch.serve.openinference_grpc",
    "hold_port": "ketch.serve.openinference_grpc",
    "make_watchers": "ketch.serve.observed",
    "serve_model": "ketch.serve.server",
    "service_of": "ketch.serve.app",
    "touched": "ketch.serve.app",
}
ROOMS: Final = ("predictions", "pages", "health", "openinference", "platforms")  # siblings that have ROUTES


@dataclass(frozen=True, slots=True)
class Request:
    """What came in, whatever door it came through; header names are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    base_url: str = ""
    query: str = ""


@dataclass(frozen=True, slots=True)
class Response:
    """What goes out, whatever door it goes through."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Call:
    """A request that was let in, with the model version that answers it."""

    request: Request
    request_id: str
    caller: str
    args: Mapping[str, str]
    predictor: Predictor
    flags: str = ""
    rows: int = 0  # that were answered
    stages: Sequence[tuple[str, float, float]] = ()  # what was done, from when to when by perf_counter, where known


@dataclass(frozen=True, slots=True)
class Route:
    """One path: what it answers to and what a key must be good for; an empty scope lets everybody in.

    A `{name}` in the path stands for one of its segments. What is `of_model` stands below /models/NAME too. `rewrite`
    may turn the body of a problem into what the clients of a protocol read.
    """

    path: str
    method: str
    summary: str
    scope: str
    handle: Callable[[Any, Call], Response]
    of_model: bool = False
    rewrite: Callable[[dict[str, object]], dict[str, object]] | None = None


def door(name: str) -> Callable[..., Any]:
    """Open one of the doors by its name."""
    found: Callable[..., Any] = getattr(importlib.import_module(DOORS[name]), name)
    return found


@functools.cache
def own_version() -> str:
    """Give the version of Ketch; looking it up reads files."""
    return importlib.metadata.version("ketch")


@functools.cache
def all_routes() -> tuple[Route, ...]:
    """Gather the routes of all siblings that have some, and those that Vertex AI names in the environment.

    Raises:
        SettingError: a route named there is one of ours.
    """
    rooms = [importlib.import_module(f"ketch.serve.{room}") for room in ROOMS]
    named = rooms[-1].vertex_routes(os.environ)
    return (*(each for room in rooms for each in room.ROUTES), *named)
