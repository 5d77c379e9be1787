"""The server: its socket, the front and the Flask app behind it, its workers, and how it ends."""

import asyncio
import contextlib
import ipaddress
import logging
import math
import os
import platform
import shutil
import socket
import ssl
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Final

import uvicorn
from a2wsgi import WSGIMiddleware

from ketch.bundle import read
from ketch.errors import SettingError
from ketch.log import Log
from ketch.pack import Options, compose
from ketch.predict import Predictor, load, open_bundle
from ketch.serve import all_routes, door
from ketch.serve.guard import files_of, guard_at
from ketch.serve.headers import safe_headers
from ketch.serve.lineup import Lineup
from ketch.serve.routes import Service
from ketch.settings import Settings
from ketch.settings import home as home_of

logger = logging.getLogger(__name__)
THREADS: Final = 10  # that run the Flask app, for all that the front does not answer
TOKEN_KEYS: Final = 5.0  # seconds that a worker waits for the issuer of tokens before it is ready without
LAST: Final = 0.1  # seconds in which a server that ends lets in who waits
GRACE: Final = 5.0  # seconds beyond deadline and drain that a worker may take to end


class Server(uvicorn.Server):
    """uvicorn's server; a signal asks it to finish and go, and is not raised again afterwards."""

    def __init__(self, config: uvicorn.Config, hall: Any, drain: float = 0.0) -> None:
        super().__init__(config)
        self.hall, self.drain = hall, drain
        self.leaves = False  # while others stay and answer at the same address
        self.worker: Any = None  # where this server runs in one
        self.beside: list[Any] = []  # other servers, on ports of their own

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen, and say so."""
        await super().startup(sockets)
        for each in self.beside:
            await each.start()
        if self.worker is not None:
            self.worker.started(asyncio.get_running_loop())

    def capture_signals(self) -> Any:
        """Heed signals; a worker leaves some of them to its supervisor."""
        return super().capture_signals() if self.worker is None else self.worker.signals()

    async def on_tick(self, counter: int) -> bool:
        """Look after the connections twice a second."""
        if counter % 5 == 0:
            now = self.hall.now = time.monotonic()
            for connection in [*self.server_state.connections]:
                connection.tick(now)  # type: ignore[union-attr]
            for desk in self.hall.desks.values():
                desk.metrics.gauge("ketch_connections", len(self.server_state.connections))
                desk.metrics.gauge("ketch_waiting", desk.waiting)
            self.hall.service.count_log()
        ends = await super().on_tick(counter)
        if counter % 10 == 0:
            self.hall.date = b"".join(b"%b: %b\r\n" % pair for pair in self.server_state.default_headers)
        return ends

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Say that this server is going, serve on while whoever sends callers here learns of it, then finish."""
        self.hall.service.draining = True
        if self.leaves:
            for server in self.servers:
                server.close()
        until = time.monotonic() + self.drain
        while time.monotonic() < until and not self.force_exit:
            if self.leaves and not self.server_state.connections:
                break
            await asyncio.sleep(0.02)
        if sys.platform == "linux" and not self.leaves:
            await self._close_the_queue(sockets or ())
        grace = self.config.timeout_graceful_shutdown or 0
        await asyncio.gather(super().shutdown(sockets), *(each.stop(grace) for each in self.beside))
        for connection in [*self.server_state.connections]:  # who has not gone by now
            connection.transport.abort()
        await asyncio.sleep(0)
        for desk in self.hall.desks.values():
            desk.hand_over()

    async def _close_the_queue(self, sockets: Sequence[socket.socket]) -> None:
        """Let in who waits before the door, and nobody behind them: a socket that closes resets who was not let in."""
        for each in sockets:
            turn_away(each)
        await asyncio.sleep(LAST)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Finish what is in flight; a second signal does not wait."""
        self.force_exit = self.should_exit
        self.should_exit = True


def listen(host: str, port: int, flags: str = "--port or --host") -> socket.socket:
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
            f"{host}:{port} cannot be listened on: {reason}", hint=f"Choose another with {flags}."
        ) from None
    return opened


def turn_away(listening: socket.socket) -> None:
    """Refuse who knocks from now on; those already on their way in still come in.

    The socket hears one network device alone from here on, one by which nobody calls: Linux lets any user say so, where
    filters of packets may be denied. Who calls a socket of all devices from its own machine still comes in.
    """
    if sys.platform == "linux":
        inside = ipaddress.ip_address(listening.getsockname()[0]).is_loopback
        others = [name for _, name in socket.if_nameindex() if (name == "lo") is not inside]
        with contextlib.suppress(OSError):  # where it is denied, a few may be reset
            if others:
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, others[0].encode())


@dataclass
class Plan:
    """What is served, and how; the models are open."""

    settings: Settings
    lineup: Lineup
    sockets: list[socket.socket]
    follow: Callable[[Any], None] | None = None  # called once a second by the supervisor
    open_again: Callable[[str, str], tuple[str, Predictor]] | None = None
    table: Path | None = None  # of the rates, for all workers
    log: Log | None = None
    watchers: Sequence[Any] = ()
    metrics: socket.socket | None = None  # where /metrics is alone
    held: socket.socket | None = None  # keeps others from the port that each worker listens on for gRPC

    def open_ports(self) -> None:
        """Take the ports that the settings name beside the main one, and see that the access log can be written.

        Raises:
            KetchError: a setting is not usable.
        """
        settings = self.settings
        if settings.metrics_port:
            self.metrics = listen("127.0.0.1", settings.metrics_port, "--metrics-port")
        if settings.grpc_port:
            self.held = door("hold_port")(settings.host, settings.grpc_port)
            if sys.platform != "linux":  # where ports are not shared
                self.held.close()
        door("check_watchers")(settings, os.environ)

    def prepare(self) -> None:
        """Find out before the fork what is wrong, and import what all workers will need.

        Raises:
            KetchError: a setting is not usable.
        """
        import uvloop  # noqa: F401

        if self.settings.log:
            Log(self.settings.log).close()
        _rates(self.settings, None)
        _cors(self.settings)
        for name in ("app_of", "front_of", "Worker"):
            door(name)
        all_routes()

    def service(self) -> Service:
        """Make the service of one process: what holds threads and connections is made here, after the fork."""
        settings = self.settings
        self.log = Log(settings.log) if settings.log else None
        guard = guard_of(settings)
        made = Service(
            self.lineup,
            guard,
            log=self.log,
            max_body=settings.max_body,
            queue=settings.queue,
            rates=_rates(settings, self.table),
            cors=_cors(settings),
        )
        made.safe = safe_headers(guarded=guard.guarded, tls=bool(settings.tls_cert))
        if any(role == "shadow" for _, role, _ in self.lineup.all()):
            made.shadow = door("Shadow")(made)
        self.watchers = door("make_watchers")(settings, os.environ)
        made.watchers += self.watchers
        made.usual = self.watchers[0].usual if self.watchers else None
        return made

    def server(self, service: Service, page: Any = None) -> Server:
        """Make the server of one process."""
        settings = self.settings
        patience = door("Patience")(deadline=settings.deadline, connections=settings.connections)
        made = server_for(service, page=page, patience=patience, drain=settings.drain, tls=tls_of(settings))
        if self.metrics is not None:
            made.beside.append(door("MetricsServer")(service, self.metrics))
        if settings.grpc_port:
            made.beside.append(door("grpc_server")(service, settings))
        return made

    def close(self) -> tuple[int, int]:
        """Let go of what `service` has made; give how many predictions were recorded, and how many dropped."""
        for each in self.watchers:
            each.close()
        if self.log is None:
            return 0, 0
        self.log.close()
        return self.log.written, self.log.dropped

    def said(self, written: int, dropped: int) -> str:
        """Put into words what became of the log."""
        return f"{written} predictions recorded, {dropped} dropped" if self.settings.log else ""


def guard_of(settings: Settings) -> Any:
    """Make the guard that the settings ask for.

    Raises:
        SettingError: nothing says who may come in, or a key cannot be used.
    """
    bearer: Any = None
    if settings.jwt_issuer or settings.jwt_jwks or settings.jwt_audience:
        bearer = door("Bearer")(
            settings.jwt_issuer,
            settings.jwt_audience,
            settings.jwt_jwks,
            algorithms=settings.jwt_algorithms,
            scopes_claim=settings.jwt_scopes_claim,
        )
        bearer.wait(TOKEN_KEYS)  # also so that no thread of its own is left when a process forks
    return guard_at(
        settings.host,
        settings.api_keys,
        auth=settings.auth,
        files=files_of(settings),
        bearer=bearer,
        allowed_hosts=settings.allowed_hosts,
    )


def _rates(settings: Settings, table: Path | None) -> Any:
    return door("Rates")(settings.rate, table) if settings.rate else None


def _cors(settings: Settings) -> Any:
    return door("Cors")(settings.cors) if settings.cors else None


def tls_of(settings: Settings) -> Mapping[str, Any]:
    """Give what uvicorn needs to speak https.

    Raises:
        SettingError: certificate or key cannot be read.
    """
    if not settings.tls_cert:
        return {}
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(settings.tls_cert, settings.tls_key)
        if settings.tls_client_ca:
            context.load_verify_locations(settings.tls_client_ca)
    except (OSError, ssl.SSLError) as error:
        raise SettingError(
            f"The certificate cannot be used: {error}", hint="Give PEM files that fit together."
        ) from None
    found = {"ssl_certfile": settings.tls_cert, "ssl_keyfile": settings.tls_key}
    if settings.tls_client_ca:
        found |= {"ssl_ca_certs": settings.tls_client_ca, "ssl_cert_reqs": ssl.CERT_REQUIRED}  # type: ignore[dict-item]
    return found


def server_for(
    service: Service,
    *,
    app: Any = None,
    page: Any = None,
    patience: Any = None,
    drain: float = 0.0,
    tls: Mapping[str, Any] = {},
) -> Server:
    """Make the server of a service: the front, and the Flask app behind it.

    With what somebody has added to the app, such as a hook that asks for a password, every request goes through it.
    """
    front: Any = door("front_of")(service, page, patience)
    if app is not None and (added := door("touched")(app)):
        logger.warning("the app has %s of its own: every request goes through it, and fewer a second", added)
        front.hall.aside = True
    config = uvicorn.Config(
        WSGIMiddleware(_with_an_end(app or door("app_of")(service)), workers=THREADS),
        http=front,
        lifespan="off",
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=math.ceil(front.hall.patience.deadline) + 1,
        **tls,
    )
    return Server(config, front.hall, drain)


def _with_an_end(app: Any) -> Any:
    """Tell the app that its input ends by itself: else it takes a body of unknown length for none."""

    def called(environ: dict[str, Any], start_response: Any) -> Any:
        environ["wsgi.input_terminated"] = True
        return app(environ, start_response)

    return called


def serve_plan(plan: Plan, told: Callable[[], None]) -> str:
    """Serve until a signal comes; `told` is called when answers can be had. Give what is worth saying at the end.

    Raises:
        KetchError: a setting is not usable, or no worker becomes ready.
    """
    plan.open_ports()
    # elsewhere system libraries do not survive a fork
    return _serve_forked(plan, told) if platform.system() == "Linux" else _serve_alone(plan, told)


def _serve_alone(plan: Plan, told: Callable[[], None]) -> str:
    if plan.settings.workers > 1:
        raise SettingError("More than one worker needs Linux", hint="Leave --workers out, or serve in a container.")
    service = plan.service()
    told()
    plan.server(service).run(sockets=plan.sockets)
    return plan.said(*plan.close())


def _cores() -> int:
    """Count the cores that this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    else:  # noqa: RET505 (mypy takes the rest for unreachable)
        return os.cpu_count() or 1


def _serve_forked(plan: Plan, told: Callable[[], None]) -> str:
    plan.prepare()
    folder = Path(tempfile.mkdtemp(prefix="ketch-"))
    plan.table = folder / "rates"
    try:
        supervisor: Any = door("Supervisor")(
            work=lambda place: _work(plan, place),
            wanted=plan.settings.workers or _cores(),
            deadline=plan.settings.deadline,
            grace=plan.settings.deadline + plan.settings.drain + GRACE,
            on_ready=told,
            sockets=[*plan.sockets, *filter(None, [plan.metrics])],
        )
        if plan.follow is not None:
            supervisor.each_second = plan.follow
        supervisor.run()
        found = supervisor.memory.totals()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    counts = {labels: numbers[0] for (name, labels), numbers in found.items() if name == "ketch_log_records"}
    written, dropped = (int(counts.get((("outcome", each),), 0)) for each in ("written", "dropped"))
    return plan.said(written, dropped)


def _work(plan: Plan, place: Any) -> None:
    """Be one worker."""
    loop_page, page = place.pages
    service = plan.service()
    service.count_in(place.memory, page)
    server = plan.server(service, place.memory.page(loop_page))
    try:
        door("Worker")(place, service, server, plan.open_again).run(plan.sockets)
    finally:
        plan.close()
        service.count_log()


def serve_model(model: Any, *, background: bool, host: str, port: int, keys: tuple[str, ...]) -> str:
    """Serve a fitted object, a model file, a bundle, a store reference or a Flask app; in the background, give its URL.

    Raises:
        KetchError: the model cannot be opened, or the address not listened on.
    """
    app = None
    if hasattr(model, "wsgi_app"):
        app, service = model, door("service_of")(model)
    else:
        service = Service(_opened(model), guard_at(host, keys))
    opened = listen(host, port)
    if not background:
        server_for(service, app=app).run(sockets=[opened])
        return ""
    start(service, opened, app=app)
    return url_of(opened)


def _opened(model: Any) -> Predictor:
    home = home_of(os.environ)
    if isinstance(model, str | Path):
        return load(model, home=home)
    packed = compose(model, None, Options(), home=home)
    return open_bundle(read(packed.data, packed.name), home=home)


def url_of(opened: socket.socket) -> str:
    """Give the URL of a listening socket, by the name that a loopback client would use."""
    host, port = opened.getsockname()[:2]
    name = "localhost" if host in {"127.0.0.1", "0.0.0.0", "::1", "::"} else host  # noqa: S104 (compared, not bound)
    name = f"[{name}]" if ":" in name else name
    return f"http://{name}:{port}"


def start(service: Service, opened: socket.socket, *, app: Any = None) -> Callable[[], None]:
    """Serve in the background and give the function that stops it."""
    server = server_for(service, app=app)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [opened]}, name="ketch-serve", daemon=True)
    thread.start()

    def stop() -> None:
        server.should_exit = True
        thread.join(timeout=35)

    return stop
