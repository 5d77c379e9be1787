"""A service without a server: what AWS Lambda hands over, answered as at any other door.

event (API Gateway 2.0, function URL) --*request_of*--> Request --Service--> Response --*result_of*--> what Lambda gives
"""

import base64
import binascii
from collections.abc import Mapping, MutableMapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

from ketch import code, settings
from ketch.errors import NotReady, UndecodableBody
from ketch.predict import Limits, load, opened_units
from ketch.serve import Request, Response
from ketch.serve.routes import Service
from ketch.serve.server import guard_of

TEXTS: Final = ("text/", "application/json", "application/problem+json")
SERVICES: Final[list[Service]] = []  # the one of this process


def prepare(model: str, environ: Mapping[str, str], *, approved: str = "") -> None:
    """Open the model and settle who may call, before the first event comes.

    `approved` is the SHA-256 of the one file whose code may run when it is opened.

    Raises:
        KetchError: it cannot be opened, or nothing says who may call.
    """
    told = settings.read({"host": "0.0.0.0"}, environ=environ, folder=Path.cwd(), without_file=True)  # noqa: S104
    if approved:
        approve(model, approved, told.home)
    limits = Limits(told.max_rows, told.strict, told.lenient)
    predictor = load(model, home=told.home, limits=limits, require_signature=told.require_signature)
    SERVICES[:] = [Service(predictor, guard_of(told), max_body=told.max_body)]


def approve(model: str, sha256: str, home: Path) -> None:
    """Let the code of a model run if this is the file that somebody has read."""
    when = datetime.now(UTC).isoformat(timespec="seconds")
    for unit in opened_units([model], home=home):
        if sha256 in unit.identities:
            code.approve(unit.parts, unit.files, home=home, name=unit.name, when=when)


def handler(event: Mapping[str, Any], context: object) -> MutableMapping[str, Any]:
    """Answer one event.

    Raises:
        NotReady: no model was prepared.
    """
    if not SERVICES:
        raise NotReady("No model is open here", hint="Call prepare first.")
    return answered(SERVICES[0], event)


def answered(service: Service, event: Mapping[str, Any]) -> MutableMapping[str, Any]:
    """Answer an event by a service; whatever is wrong with it becomes a problem."""
    try:
        body, unread = body_of(event), None
    except UndecodableBody as error:
        body, unread = b"", error
    return result_of(service.handle(request_of(event, body), unread=unread))


def body_of(event: Mapping[str, Any]) -> bytes:
    """Give the body as the caller sent it.

    Raises:
        UndecodableBody: it is said to be base64 and is none.
    """
    text = str(event.get("body") or "")
    if not event.get("isBase64Encoded"):
        return text.encode("utf-8", "surrogatepass")
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise UndecodableBody("The body is not base64", hint="Whatever stands before this service broke it.") from None


def request_of(event: Mapping[str, Any], body: bytes) -> Request:
    """Make a request of an event; cookies come on their own there."""
    about: Mapping[str, Any] = (event.get("requestContext") or {}).get("http") or {}
    headers = {str(name).lower(): str(value) for name, value in (event.get("headers") or {}).items()}
    if cookies := event.get("cookies"):
        headers["cookie"] = "; ".join(map(str, cookies))
    host, stage = headers.get("host", ""), str((event.get("requestContext") or {}).get("stage") or "$default")
    path = unquote(str(event.get("rawPath") or "/"))
    if stage != "$default":
        path = path.removeprefix(f"/{stage}") or "/"
    proto = headers.get("x-forwarded-proto", "https")
    method = str(about.get("method") or "GET").upper()
    return Request(method, path, headers, body, f"{proto}://{host}", str(event.get("rawQueryString") or ""))


def result_of(response: Response) -> MutableMapping[str, Any]:
    """Write a response as Lambda takes it; what is no text goes as base64."""
    headers = {name.lower(): value for name, value in response.headers.items()}
    cookies = [headers.pop("set-cookie")] if "set-cookie" in headers else []
    plain = response.content_type.startswith(TEXTS)
    text = response.body.decode("utf-8", "replace") if plain else base64.b64encode(response.body).decode("ascii")
    found: dict[str, Any] = {"statusCode": response.status, "isBase64Encoded": not plain, "body": text}
    found["headers"] = {**headers, "content-type": response.content_type}
    return {**found, **({"cookies": cookies} if cookies else {})}
