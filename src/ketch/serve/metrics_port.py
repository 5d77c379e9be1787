"""What Prometheus reads on a port of this machine alone, where no key is asked for: /metrics and nothing else."""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import uvicorn

from ketch.errors import HostNotAllowed, KetchError, MethodNotAllowed, NoSuchRoute
from ketch.serve import Request, Response
from ketch.serve.guard import is_loopback_host
from ketch.serve.metrics import exposition
from ketch.serve.routes import Service

PATH: Final = "/metrics"
MOST: Final = 64  # connections: whoever reads this is one


class _Server(uvicorn.Server):
    """uvicorn's server, which leaves signals to the one beside it."""

    def capture_signals(self) -> Any:
        """Heed none."""
        return contextlib.nullcontext()


class MetricsServer:
    """The server of one process; all processes listen on the same socket and tell the counts of all."""

    def __init__(self, service: Service, opened: socket.socket) -> None:
        self._socket = opened
        config = uvicorn.Config(
            app_of(service),
            lifespan="off",
            ws="none",
            log_level="warning",
            access_log=False,
            server_header=False,
            limit_concurrency=MOST,
            timeout_graceful_shutdown=1,
        )
        self._server = _Server(config)

    async def start(self) -> None:
        """Begin to answer."""
        self._running = asyncio.create_task(self._server.serve(sockets=[self._socket]))

    async def stop(self, grace: float) -> None:
        """Stop."""
        self._server.should_exit = True
        await self._running


def app_of(service: Service) -> Callable[..., Awaitable[None]]:
    """Make the ASGI app."""

    async def app(scope: Mapping[str, Any], receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        request = Request(scope["method"], scope["path"], headers)
        response = await asyncio.to_thread(answer, service, request)
        told = {"Content-Type": response.content_type, "Content-Length": str(len(response.body)), **response.headers}
        pairs = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in told.items()]
        await send({"type": "http.response.start", "status": response.status, "headers": pairs})
        await send({"type": "http.response.body", "body": b"" if request.method == "HEAD" else response.body})

    return app


def answer(service: Service, request: Request) -> Response:
    """Give what was counted, or refuse in the form that all refusals have."""
    try:
        if not is_loopback_host(request.headers.get("host", "")):
            raise HostNotAllowed("This port answers to localhost only", hint="Ask for localhost or 127.0.0.1.")
        if request.path != PATH:
            raise NoSuchRoute("There is nothing but /metrics here", hint="The service itself has a port of its own.")
        if request.method not in {"GET", "HEAD"}:
            raise MethodNotAllowed(f"/metrics does not take {request.method[:20]}", hint="It takes GET, HEAD.")
        body, content_type = exposition(service.totals(), request.headers.get("accept", ""))
        made = Response(200, body, content_type)
    except KetchError as error:
        made = service.problem(error, request, service.new_id())
    return Response(made.status, made.body, made.content_type, {**made.headers, **service.safe})
