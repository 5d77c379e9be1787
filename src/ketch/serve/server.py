"""The server process: its socket, the front and the Flask app behind it, and how it ends."""

import asyncio
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Final

import uvicorn
from a2wsgi import WSGIMiddleware

from ketch.bundle import read
from ketch.errors import SettingError
from ketch.pack import Options, compose
from ketch.predict import load, open_bundle
from ketch.serve import door
from ketch.serve.guard import guard_at
from ketch.serve.routes import Service
from ketch.settings import home as home_of

THREADS: Final = 10  # that run the Flask app, for all that the front does not answer


class Server(uvicorn.Server):
    """uvicorn's server; a signal asks it to finish and go, and is not raised again afterwards."""

    def __init__(self, config: uvicorn.Config, hall: Any, drain: float = 0.0) -> None:
        super().__init__(config)
        self.hall, self.drain = hall, drain

    async def on_tick(self, counter: int) -> bool:
        """Look after the connections twice a second."""
        if counter % 5 == 0:
            now = self.hall.now = time.monotonic()
            for connection in [*self.server_state.connections]:
                connection.tick(now)  # type: ignore[union-attr]
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Say that this server is going, serve on while whoever sends callers here learns of it, then finish."""
        self.hall.service.draining = True
        until = time.monotonic() + self.drain
        while time.monotonic() < until and not self.force_exit:
            await asyncio.sleep(0.05)
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Finish what is in flight; a second signal does not wait."""
        self.force_exit = self.should_exit
        self.should_exit = True


def listen(host: str, port: int) -> socket.socket:
    """Open the listening socket.

    Raises:
        SettingError: the address is taken or not ours.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_STREAM)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        opened.bind((host, port))
        opened.listen(2048)  # from here on callers wait rather than being turned away
    except (OSError, OverflowError) as error:
        opened.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise SettingError(
            f"{host}:{port} cannot be listened on: {reason}", hint="Choose another with --port or --host."
        ) from None
    return opened


def server_for(service: Service, **options: Any) -> Server:
    """Make the server of a service: the front, and the Flask app behind it."""
    drain, tls = options.pop("drain", 0.0), options.pop("tls", {})
    front: Any = door("front_of")(service, **options)
    config = uvicorn.Config(
        WSGIMiddleware(door("app_of")(service), workers=THREADS),
        http=front,
        lifespan="off",
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=30,
        **tls,
    )
    return Server(config, front.hall, drain)


def serve_model(model: Any, *, background: bool, host: str, port: int, keys: tuple[str, ...]) -> str:
    """Serve a fitted object, a model file, a bundle or a store reference; in the background, give its URL.

    Raises:
        KetchError: the model cannot be opened, or the address not listened on.
    """
    home = home_of(os.environ)
    if isinstance(model, str | Path):
        predictor = load(model, home=home)
    else:
        packed = compose(model, None, Options(), home=home)
        predictor = open_bundle(read(packed.data, packed.name), home=home)
    service = Service(predictor, guard_at(host, keys))
    opened = listen(host, port)
    if not background:
        run(service, opened)
        return ""
    start(service, opened)
    return url_of(opened)


def url_of(opened: socket.socket) -> str:
    """Give the URL of a listening socket, by the name that a loopback client would use."""
    host, port = opened.getsockname()[:2]
    name = "localhost" if host in {"127.0.0.1", "0.0.0.0", "::1", "::"} else host  # noqa: S104 (compared, not bound)
    name = f"[{name}]" if ":" in name else name
    return f"http://{name}:{port}"


def run(service: Service, opened: socket.socket) -> None:
    """Serve until a signal comes, then finish what is in flight."""
    server_for(service).run(sockets=[opened])


def start(service: Service, opened: socket.socket) -> Callable[[], None]:
    """Serve in the background and give the function that stops it."""
    server = server_for(service)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [opened]}, name="ketch-serve", daemon=True)
    thread.start()

    def stop() -> None:
        server.should_exit = True
        thread.join(timeout=35)

    return stop
