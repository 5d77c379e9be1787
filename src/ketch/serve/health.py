"""Whether the process answers, whether its models do, and what it has counted."""

from typing import Final

from ketch.serve import Call, Response, Route
from ketch.serve.metrics import exposition
from ketch.serve.routes import Service


def live(service: Service, call: Call) -> Response:
    """Say that the process answers."""
    return Response(200, b'{"status":"live"}')


def ready(service: Service, call: Call) -> Response:
    """Say whether the models give their golden answers, asking them once a second at most.

    Raises:
        NotReady: one does not, or the server is about to end.
    """
    service.require_ready()
    return Response(200, b'{"status":"ready"}')


def metrics(service: Service, call: Call) -> Response:
    """Give what was counted, as Prometheus reads it."""
    made, content_type = exposition(service.totals(), call.request.headers.get("accept", ""))
    return Response(200, made, content_type)


ROUTES: Final = (
    Route("/health/live", "GET", "Whether the process answers", "", live),
    Route("/health/ready", "GET", "Whether the model answers", "", ready),
    Route("/metrics", "GET", "What was counted, for Prometheus", "metrics", metrics),
)
