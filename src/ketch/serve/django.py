"""A model as a view of a Django project."""

from collections.abc import Callable
from typing import Any

import flask
from werkzeug.test import run_wsgi_app


def view_of(app: flask.Flask) -> Callable[..., Any]:
    """Make a Django view of the app of a model, for a path that ends in the rest of what is asked.

    In a project's urls: `re_path("^models/churn(?P<path>/.*)?$", view_of(ketch.flask_app("churn.ketch")))`. Callers are
    programs that show a key, not a form of the project, so that no CSRF token is asked of them.
    """
    from django.http import HttpResponse

    def view(request: Any, path: str | None = None) -> Any:
        rest = path or "/"
        environ = dict(request.environ)
        whole = environ.get("SCRIPT_NAME", "") + environ["PATH_INFO"]
        environ |= {"SCRIPT_NAME": whole.removesuffix(path or ""), "PATH_INFO": rest}
        parts, status, headers = run_wsgi_app(app, environ, buffered=True)
        made = HttpResponse(b"".join(parts), status=int(status[:3]))
        for name, value in headers.items():
            made[name] = value
        return made

    view.csrf_exempt = True  # type: ignore[attr-defined]
    return view
