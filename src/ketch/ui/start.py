"""Start the Streamlit page: what it shows, who gets in, and the server it runs on."""

import socket
import tomllib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from ketch import extras
from ketch.card import FOLDER, MEMBER
from ketch.client import Client
from ketch.codec import Table, columns_of
from ketch.errors import Forbidden, HostNotAllowed, KetchError, SettingError, Unauthorized
from ketch.explain import Explainer, explainer, record
from ketch.page.widgets import form
from ketch.predict import Limits, Predictor, load
from ketch.serve.guard import Guard, Hosts
from ketch.settings import Settings
from ketch.ui import PAGES, Shown, remote, show

OPTIONS: Final[Mapping[str, object]] = {  # of Streamlit, whatever its own files say
    "browser.gatherUsageStats": False,
    "client.showErrorDetails": "none",
    "client.toolbarMode": "minimal",
    "logger.level": "error",
    "runner.magicEnabled": False,
    "server.enableCORS": False,  # `Door` looks at origins, and asks nobody for this machine's address
    "server.enableXsrfProtection": False,
    "server.fileWatcherType": "none",
    "server.headless": True,
    "server.maxUploadSize": 200,
    "theme.primaryColor": "#1d5fbf",
}

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]


def of_model(model: str, settings: Settings) -> Shown:
    """Say what a page over a bundle or a store reference shows.

    Raises:
        KetchError: the model cannot be opened here.
    """
    predictor = load(model, home=settings.home, limits=_limits(settings))
    opened = predictor.bundle
    plots = {name: data for name, data in opened.files.items() if name.startswith(FOLDER) and name.endswith(".svg")}
    facts = {**opened.manifest.origin, **opened.manifest.versions, "sha256": opened.sha256}
    return Shown(
        predictor,
        form(opened),
        _explain(predictor),
        slow=opened.manifest.serves != "compiled",
        facts=facts,
        card=opened.files.get(MEMBER, b"").decode("utf-8", errors="replace"),
        plots=plots,
        log=settings.log,
    )


def of_service(url: str, key: str, settings: Settings) -> Shown:
    """Say what a page over a running service shows.

    Raises:
        RequestError, ServiceError: it cannot be asked.
    """
    client = Client(url, key=key)
    predictor, found = remote.opened(client, _limits(settings))

    def explain(row: Mapping[str, object], lang: str) -> Mapping[str, Any]:
        told: Mapping[str, Any] = client.explain(dict(row), lang=lang)["explanation"]
        return told

    facts = {"url": client.url, "sha256": predictor.bundle.sha256}
    return Shown(predictor, found, explain, slow=True, facts=facts, log=settings.log)


def _limits(settings: Settings) -> Limits:
    return Limits(settings.max_rows, settings.strict, settings.lenient)


def _explain(predictor: Predictor) -> Any:
    """Explain one row; the way is chosen at the first one, since it may take an extra or a while."""
    ways: list[Explainer] = []

    def explain(row: Mapping[str, object], lang: str) -> Mapping[str, Any]:
        if not ways:
            target = predictor.contract.answer.parts[0].target if predictor.contract.answer.parts else ""
            ways.append(explainer(predictor, target=target))
        rows = predictor.check(Table(columns_of([row]), 1, single=True))
        return record(ways[0](rows, lang)[0])

    return explain


# ---- who gets in ---------------------------------------------------------------------------------------


def admits(guard: Guard) -> Callable[[str, str], bool] | None:
    """Make what tells whether a key opens the page; None where the guard asks for none."""
    if not guard.guarded:
        return None

    def admit(key: str, host: str) -> bool:
        try:
            guard.check({"host": host, "x-api-key": key.strip()}, scope="predict")
        except (Unauthorized, Forbidden, HostNotAllowed):
            return False
        return True

    return admit


class Door:
    """Turn away whoever comes by a host name that this page does not answer to, or from a page of another site."""

    def __init__(self, app: Any, guard: Guard, allowed_hosts: Sequence[str] = ()) -> None:
        self._app, self._guard = app, guard
        self._hosts = Hosts(allowed_hosts) if allowed_hosts else None

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """Hand on what may come in, pages and sockets alike."""
        if scope["type"] in {"http", "websocket"}:
            named = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
            try:
                self._check(scope, named)
            except KetchError as error:
                await _refuse(scope, send, f"{error.message}. {error.hint}\n".encode())
                return
            if scope["type"] == "http" and scope["method"] == "GET" and scope["path"][1:] in PAGES:
                await _turn(scope, send)
                return
        await self._app(scope, receive, send)

    def _check(self, scope: Mapping[str, Any], headers: Mapping[str, str]) -> None:
        host = headers.get("host", "")
        self._guard.check({"host": host})
        if scope["type"] == "http" and scope["method"] in {"GET", "HEAD", "OPTIONS"}:
            return
        origin = urlsplit(headers.get("origin", "")).netloc
        if origin and origin != host and not (self._hosts is not None and self._hosts.allow(origin)):
            raise HostNotAllowed("A page of another site asks this one", hint="Open this page itself.")


async def _turn(scope: Mapping[str, Any], send: Send) -> None:
    """Lead to a page by way of the first one: below a page's own path Streamlit looks for its server in vain."""
    query = f"&{more}" if (more := scope["query_string"].decode("latin-1")) else ""
    where = (b"location", f"./?at={scope['path'][1:]}{query}".encode("latin-1"))
    await send({"type": "http.response.start", "status": 302, "headers": [where]})
    await send({"type": "http.response.body"})


async def _refuse(scope: Mapping[str, Any], send: Send, told: bytes) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    kind = (b"content-type", b"text/plain; charset=utf-8")
    await send({"type": "http.response.start", "status": 403, "headers": [kind]})
    await send({"type": "http.response.body", "body": told})


def oidc(path: str) -> dict[str, Any]:
    """Read the settings of an identity provider: a TOML file with a table [auth], as Streamlit has it.

    Raises:
        SettingError: it cannot be read, or lacks something.
    """
    try:
        found: dict[str, Any] = tomllib.loads(Path(path).read_text("utf-8"))["auth"]
        lacking = {"redirect_uri", "cookie_secret"} - found.keys()
    except OSError as error:
        raise SettingError(f"{path} cannot be read: {error.strerror}", hint="Give a TOML file with [auth].") from None
    except (KeyError, AttributeError, tomllib.TOMLDecodeError, UnicodeDecodeError):
        raise SettingError(f"{path} has no table [auth]", hint="See docs/ui.md for what stands in it.") from None
    if lacking:
        raise SettingError(f"{path} lacks {', '.join(sorted(lacking))} in [auth]", hint="See docs/ui.md.")
    return found


# ---- the server ----------------------------------------------------------------------------------------


def serve(what: Shown, door: Callable[[Any], Any], opened: socket.socket, secrets: Mapping[str, Any]) -> None:
    """Serve the page until interrupted, behind a door; `secrets` are those of an identity provider.

    Raises:
        NotInstalled: Streamlit is missing.
    """
    import uvicorn

    streamlit: Any = extras.load("streamlit")
    config: Any = extras.load("streamlit.config")
    for name, value in {**OPTIONS, "server.port": opened.getsockname()[1]}.items():
        config.set_option(name, value)
    show(what)
    app = streamlit.App(Path(str(files("ketch.ui") / "app.py")), secrets={"auth": dict(secrets)} if secrets else None)
    served = uvicorn.Config(door(app), log_level="error", ws="auto", lifespan="on", timeout_graceful_shutdown=3)
    uvicorn.Server(served).run(sockets=[opened])
