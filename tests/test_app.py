"""Somebody's own Flask app, Django project and WSGI servers: what they add is heeded, what they do not is the same."""

import base64
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import flask
import pytest
import requests

import ketch
from ketch.errors import UsageError
from ketch.serve.app import app_of, service_of, touched
from ketch.serve.guard import Guard
from ketch.serve.routes import Service
from ketch.serve.server import listen, start
from tests.doors import MOUNTED_AT, ROW, Small, SocketDoor, WsgiDoor, mounted


@contextmanager
def fronted(app: flask.Flask) -> Iterator[str]:
    """Serve an app as `ketch.serve` does."""
    opened = listen("127.0.0.1", 0)
    stop = start(service_of(app), opened, app=app)
    try:
        yield f"http://127.0.0.1:{opened.getsockname()[1]}"
    finally:
        stop()


def password(app: flask.Flask) -> None:
    """Ask for a password, as an app's owner would."""

    @app.before_request
    def ask() -> Any:
        given = flask.request.authorization
        if given is None or given.password != "sesame":
            return flask.Response("who are you?", 401)
        return None


def test_a_hook_that_asks_for_a_password_is_asked_through_every_door(small: Small) -> None:
    app = app_of(Service(small.predictor, Guard()))
    password(app)
    right = {"authorization": "Basic " + base64.b64encode(b":sesame").decode()}
    door = WsgiDoor(app)
    with fronted(app) as url:
        for path in ("/predict", "/models/churn/predict", "/invocations", "/explain", "/score"):
            assert requests.post(url + path, json=ROW).status_code == 401
            assert door.send("POST", path).status == 401
        for path in ("/health/live", "/health/ready", "/", "/schema", "/v2", "/metrics"):
            assert requests.get(url + path).status_code == 401
            assert door.send("GET", path).status == 401
        answered = requests.post(url + "/predict", json=ROW, headers=right)
        assert answered.json() == small.predictor.predict(dict(ROW))


def middleware(app: flask.Flask) -> None:
    inner = app.wsgi_app
    app.wsgi_app = lambda environ, start_response: inner(environ, start_response)  # type: ignore[method-assign]


def after(app: flask.Flask) -> None:
    app.after_request(lambda response: response)


def handler(app: flask.Flask) -> None:
    app.register_error_handler(404, lambda error: ("nothing", 404))


def view(app: flask.Flask) -> None:
    app.view_functions["ketch.any"] = lambda path: "mine"


def further_route(app: flask.Flask) -> None:
    app.add_url_rule("/mine", "mine", lambda: "mine")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (password, "before_request"),
        (after, "after_request"),
        (middleware, "middleware"),
        (handler, "an error handler"),
        (view, "a view"),
        (further_route, ""),
        (lambda app: None, ""),
    ],
)
def test_what_was_added_to_an_app_is_seen(small: Small, change: Callable[[flask.Flask], None], told: str) -> None:
    app = app_of(Service(small.predictor, Guard()))
    change(app)
    assert touched(app) == told


def test_further_routes_stand_beside_the_model(small: Small) -> None:
    app = app_of(Service(small.predictor, Guard()))
    further_route(app)
    with fronted(app) as url:
        assert requests.get(url + "/mine").text == "mine"
        assert requests.post(url + "/predict", json=ROW).json() == small.predictor.predict(dict(ROW))


def test_an_app_of_somebody_else_is_not_ours(small: Small) -> None:
    with pytest.raises(UsageError, match="serves no model"):
        ketch.serve(flask.Flask("theirs"), background=True)


def test_a_mounted_model_is_asked_below_its_path(small: Small) -> None:
    app = mounted(Service(small.predictor, Guard()))
    found = app.test_client().post(f"{MOUNTED_AT}/predict", json=ROW, headers={"host": "localhost"})
    assert found.json == small.predictor.predict(dict(ROW))


DJANGO = """
import os, sys
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.test import Client
from django.urls import path, re_path
usual = ["django.middleware.common.CommonMiddleware", "django.middleware.csrf.CsrfViewMiddleware"]
settings.configure(SECRET_KEY="k" * 50, ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], MIDDLEWARE=usual)
import django
django.setup()
import ketch
from ketch.serve.django import view_of
urlpatterns = [re_path("^models/churn(?P<path>/.*)?$", view_of(ketch.flask_app(os.environ["MODEL"])))]
asked = Client(enforce_csrf_checks=True)
row = sys.argv[1]
kind = "application/json"
for found in (
    asked.post("/models/churn/predict", row, content_type=kind, headers={"host": "localhost"}),
    asked.get("/models/churn/schema", headers={"host": "localhost"}),
    asked.post("/models/churn/predict", "{", content_type=kind, headers={"host": "localhost"}),
    asked.get("/models/churn/", headers={"host": "evil.example"}),
):
    first = found.content.decode().splitlines()[0][:40]
    print(found.status_code, found.headers["content-type"], found.headers.get("ketch-model", "")[:6], first)
"""


def test_a_model_is_a_view_of_a_django_project(small: Small) -> None:
    environ = {**os.environ, "KETCH_HOME": str(small.home), "MODEL": str(small.bundle)}
    done = subprocess.run(
        [sys.executable, "-c", DJANGO, json.dumps(ROW)], env=environ, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    first, second, third, fourth = done.stdout.splitlines()
    assert first.startswith('200 application/json churn; {"churn":')
    assert second.startswith("200 application/json")
    assert third.startswith("400 application/problem+json churn;")
    assert fourth.startswith("403 application/problem+json")


SERVED = """
import os, ketch
app = ketch.flask_app(os.environ["MODEL"])
if __name__ == "__main__":
    import waitress
    waitress.serve(app, listen="127.0.0.1:" + os.environ["PORT"])
"""
SERVERS = {
    "waitress": ["served.py"],
    "granian": ["-m", "granian", "--interface", "wsgi", "--host", "127.0.0.1", "--port", "PORT", "served:app"],
}
ASKED: list[tuple[str, str, dict[str, str], bytes]] = [
    ("POST", "/predict", {"content-type": "application/json"}, json.dumps(ROW).encode()),
    ("POST", "/predict", {"content-type": "application/json"}, json.dumps([ROW] * 3).encode()),
    ("POST", "/predict", {"content-type": "text/csv"}, b"charges,contract,plan,tenure\n51.5,monthly,a,5\n"),
    ("POST", "/predict", {}, json.dumps({**ROW, "tenure": 500, "color": 1}).encode()),
    ("POST", "/predict", {}, b"{"),
    ("POST", "/predict", {}, b""),
    ("POST", "/predict", {"content-type": "image/png"}, b"{}"),
    ("POST", "/predict", {"content-type": "application/json"}, b" " * 9_000_000),
    ("POST", "/models/churn/predict", {}, json.dumps(ROW).encode()),
    ("POST", "/models/other/predict", {}, json.dumps(ROW).encode()),
    ("POST", "/invocations", {}, json.dumps({"dataframe_records": [ROW]}).encode()),
    ("POST", "/explain", {}, json.dumps(ROW).encode()),
    ("GET", "/v2/models/churn", {}, b""),
    ("GET", "/schema", {}, b""),
    ("GET", "/health/ready", {}, b""),
    ("GET", "/nothing", {}, b""),
    ("DELETE", "/predict", {}, b""),
    ("GET", "/schema", {"host": "evil.example"}, b""),
]


@pytest.mark.parametrize("server", SERVERS)
def test_other_servers_answer_the_same(small: Small, server: str, tmp_path: Path) -> None:
    (tmp_path / "served.py").write_text(SERVED)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environ = {**os.environ, "KETCH_HOME": str(small.home), "MODEL": str(small.bundle), "PORT": str(port)}
    command = [sys.executable, *(word.replace("PORT", str(port)) for word in SERVERS[server])]
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, cwd=tmp_path, env=environ, stdout=quiet, stderr=quiet)
    try:
        until = time.monotonic() + 30
        while time.monotonic() < until:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.05)
        door = SocketDoor(server, port)
        own = WsgiDoor(app_of(Service(small.predictor, Guard())))
        for method, path, headers, body in ASKED:
            found, wanted = (each.send(method, path, {**headers, "x-request-id": "one"}, body) for each in (door, own))
            told = (method, path, headers)
            assert (found.status, found.body) == (wanted.status, wanted.body), told
            for name in (
                "content-type",
                "ketch-model",
                "ketch-flags",
                "allow",
                "x-request-id",
                "x-content-type-options",
            ):
                assert found.headers.get(name) == wanted.headers.get(name), told
    finally:
        process.terminate()
        process.wait(timeout=30)
