"""A real browser: Debian's Chromium, driven by Playwright; what it complains of is an error here."""

import functools
import http.server
import importlib.resources
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, Page

SCREENS: Final = Path(__file__).parent.parent.parent / ".cache" / "screens"
PHONE: Final = {"width": 390, "height": 844}
DESK: Final = {"width": 1280, "height": 900}
ARGUMENTS: Final = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
)  # fmt: skip
SERIOUS: Final = ("serious", "critical")


def program() -> str:
    """Give the path of the browser; without one these tests fail, since whoever asks for them has to have it."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        raise RuntimeError("no browser: install Debian's package chromium")
    return found


class Visit:
    """A page that is looked at, and all that went wrong on it."""

    def __init__(self, page: Page, origin: str) -> None:
        self.page = page
        self.wrong: list[str] = []
        self.outside: list[str] = []
        host = urlsplit(origin).netloc
        page.on("console", lambda told: self.wrong.append(told.text) if told.type == "error" else None)
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on("request", lambda asked: self._note(asked.url, host))

    def _note(self, url: str, host: str) -> None:
        parts = urlsplit(url)
        if parts.scheme in {"http", "https", "ws", "wss"} and parts.netloc != host:
            self.outside.append(url)

    def shoot(self, name: str) -> None:
        """Keep a picture of the whole page, also of one that scrolls inside the window."""
        SCREENS.mkdir(parents=True, exist_ok=True)
        size = self.page.viewport_size
        high = self.page.evaluate("document.querySelector(\"[data-testid='stMain']\")?.scrollHeight ?? 0")
        if size and high > size["height"]:
            self.page.set_viewport_size({**size, "height": high})
            self.page.wait_for_timeout(500)  # until charts are drawn anew
        self.page.screenshot(path=SCREENS / f"{name}.png", full_page=True)
        if size:
            self.page.set_viewport_size(size)

    def no_sideways_scroll(self) -> None:
        """Hold the page against the width of the window."""
        wide, own = self.page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
        assert wide <= own, f"{wide} px on a screen of {own}"

    def accessible(self) -> None:
        """Let axe-core look for violations that keep people out."""
        self.page.evaluate(axe())
        found: Any = self.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        bad = [each for each in found["violations"] if each["impact"] in SERIOUS]
        told = [(each["id"], each["help"], [node["html"][:160] for node in each["nodes"][:4]]) for each in bad]
        assert not bad, json.dumps(told, indent=1)


@functools.cache
def axe() -> str:
    found = importlib.resources.files("axe_playwright_python").joinpath("axe.min.js")
    return found.read_text("utf-8")


@contextmanager
def visiting(
    browser: Browser, url: str, *, lang: str = "en-GB", size: dict[str, int] = DESK, **more: Any
) -> Iterator[Visit]:
    """Open a page as a new visitor; nothing may go wrong, and nothing may leave for elsewhere."""
    context: BrowserContext = browser.new_context(locale=lang, viewport=size, **more)  # type: ignore[arg-type]
    context.set_default_timeout(20_000)
    visit = Visit(context.new_page(), url)
    try:
        visit.page.goto(url)
        yield visit
        assert not visit.wrong, visit.wrong
        assert not visit.outside, visit.outside
    finally:
        context.close()


class _Files(http.server.SimpleHTTPRequestHandler):
    below = "/some/where/"  # no host's root: a page must not take itself for that
    headers_of: str = ""

    def translate_path(self, path: str) -> str:
        return super().translate_path(path.removeprefix(self.below.rstrip("/")))

    def end_headers(self) -> None:
        for line in self.headers_of.splitlines():
            name, _, value = line.strip().partition(": ")
            if value:
                self.send_header(name, value)
        super().end_headers()

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@contextmanager
def hosted(folder: Path) -> Iterator[str]:
    """Serve a folder as a static host does, below a path, with the headers of its _headers file."""
    told = folder / "_headers"
    handler = type("Files", (_Files,), {"headers_of": told.read_text() if told.is_file() else ""})
    with answering(functools.partial(handler, directory=str(folder))) as url:
        yield url + _Files.below


@contextmanager
def answering(handler: Callable[..., http.server.BaseHTTPRequestHandler]) -> Iterator[str]:
    """Let a handler answer on a free port, and give its address."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://localhost:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
