"""The Flask app: an ordinary one, to run on any WSGI server, extend or mount."""

import atexit
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import flask
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from ketch.errors import RequestError, UsageError
from ketch.log import Log
from ketch.predict import Limits, Predictor, load
from ketch.serve import Request, Response
from ketch.serve.guard import Guard, files_of
from ketch.serve.routes import MOST_DISCARDED, Service, at, too_large
from ketch.settings import read

METHODS: Final = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")  # the routes say which of them they take


def flask_app(
    model: str | Path | Predictor,
    *,
    keys: tuple[str, ...] | None = None,
    auth: str | None = None,
    log: Log | None = None,
) -> flask.Flask:
    """Make a Flask app that serves a model; what is not given is read from KETCH_* and the settings file.

    Without any key it answers requests to localhost only; `auth="none"` or `"platform"` leaves that to others.

    Raises:
        KetchError: the model cannot be opened here, or a setting is not usable.
    """
    settings = read({"auth": auth}, environ=os.environ, folder=Path.cwd())
    limits = Limits(settings.max_rows, settings.strict, settings.lenient)
    predictor = model if isinstance(model, Predictor) else load(model, home=settings.home, limits=limits)
    guard = (
        Guard(settings.api_keys, auth=settings.auth, files=files_of(settings))
        if keys is None
        else Guard(keys, auth=settings.auth)
    )
    if log is None and settings.log:
        log = Log(settings.log)
        atexit.register(log.close)
    return app_of(Service(predictor, guard, log=log, max_body=settings.max_body))


def app_of(service: Service) -> flask.Flask:
    """Make the Flask app of a service."""
    app = flask.Flask("ketch", static_folder=None)
    app.url_map.merge_slashes = False  # //predict is another path, not one to be sent on
    app.register_blueprint(blueprint(service))
    app.extensions["ketch"] = service

    def refuse(error: HTTPException) -> flask.Response:
        asked = Request(flask.request.method, flask.request.path, _headers())
        cause: Exception = getattr(error, "original_exception", None) or error
        if cause is not error:  # whatever it is, the service calls it a bug and logs it
            return _reply(service.problem(cause, asked, service.request_id(asked.headers)))
        hint = "GET /openapi.json describes what is read here."
        known = None if error.code in {404, 405} else RequestError(error.name, hint=hint)
        return _reply(service.handle(asked, unread=known))

    app.register_error_handler(HTTPException, refuse)
    return app


def service_of(app: flask.Flask) -> Service:
    """Give the service behind an app.

    Raises:
        UsageError: it is not one that `flask_app` made.
    """
    found: Service | None = app.extensions.get("ketch")
    if found is None:
        raise UsageError("This Flask app serves no model of Ketch", hint="Make it with ketch.flask_app(model).")
    return found


def touched(app: flask.Flask) -> str:
    """Say what somebody has added to an app that every answer must go through; empty where nothing was.

    Further routes are no such thing.
    """
    hooks: dict[str, Mapping[Any, Any]] = {
        "before_request": app.before_request_funcs,
        "after_request": app.after_request_funcs,
        "teardown_request": app.teardown_request_funcs,
        "url_value_preprocessor": app.url_value_preprocessors,
    }
    if found := [name for name, functions in hooks.items() if any(functions.values())]:
        return found[0]
    if getattr(app.wsgi_app, "__func__", None) is not flask.Flask.wsgi_app:
        return "middleware"
    rules = {rule.rule for rule in app.url_map.iter_rules() if rule.endpoint.startswith("ketch.")}
    if rules != {"/", "/<path:path>"}:
        return "a mount"
    views = (app.view_functions[f"ketch.{name}"] for name in ("home", "any"))
    if any(getattr(view, "func", None) is not _answer for view in views):
        return "a view"
    own = {code for codes in app.error_handler_spec[None].values() for code in codes} - {HTTPException}
    return "an error handler" if own else ""


def blueprint(service: Service, name: str = "ketch") -> flask.Blueprint:
    """Make a blueprint that can be mounted below any path of another Flask app."""
    made = flask.Blueprint(name, __name__)
    for rule, endpoint in (("/", "home"), ("/<path:path>", "any")):
        made.add_url_rule(
            rule, endpoint, partial(_answer, service, rule), methods=METHODS, provide_automatic_options=False
        )
    return made


def _answer(service: Service, rule: str, path: str = "") -> flask.Response:
    asked, path = flask.request, "/" + path
    asked.max_content_length = service.max_body + 1  # werkzeug cuts a body of unknown length there and says nothing
    body, unread = b"", None
    if asked.method == "POST" and any(
        each.method == "POST" for each, _ in at(path)
    ):  # else no body is worth waiting for
        try:
            body = asked.get_data(cache=False)
        except RequestEntityTooLarge:
            unread = too_large(service.max_body)
        if unread or (asked.content_length is None and len(body) > service.max_body):
            _discard(asked)
    mounted_at = asked.url_rule.rule.removesuffix(rule) if asked.url_rule else ""
    base_url = asked.host_url.rstrip("/") + asked.root_path + mounted_at
    query = asked.query_string.decode("latin-1")
    return _reply(service.handle(Request(asked.method, path, _headers(), body, base_url, query), unread=unread))


def _discard(asked: flask.Request) -> None:
    """Read what the caller is still sending, or it would see a broken connection in place of the answer."""
    left = min(asked.content_length or MOST_DISCARDED, MOST_DISCARDED)
    stream = asked.environ["wsgi.input"]
    while left > 0 and (part := stream.read(min(left, 2**16))):
        left -= len(part)


def _headers() -> dict[str, str]:
    return {name.lower(): value for name, value in flask.request.headers.items()}


def _reply(response: Response) -> flask.Response:
    made = flask.Response(response.body, status=response.status, content_type=response.content_type)
    made.headers.update(response.headers)
    return made
