"""The routes: plain data in, plain data out; every door calls these and nothing else.

Request --*begin*--> Asked --run (alone or batched)--> Results --*finish*--> Response
"""

import importlib.resources
import itertools
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import quote, urlsplit

import msgspec

from ketch import codec, page
from ketch.codec import JSON
from ketch.errors import (
    BodyTooLarge,
    Forbidden,
    HostNotAllowed,
    KetchError,
    MethodNotAllowed,
    NoSuchRoute,
    NotReady,
    Unauthorized,
    UnsupportedMediaType,
)
from ketch.log import Log, Record
from ketch.page import PROBLEM
from ketch.predict import Predictor, Results, Rows
from ketch.schema import Fault, json_schema
from ketch.serve import Request, Response
from ketch.serve.guard import Guard

SAFE_ID: Final = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}", re.ASCII)
MOST_FLAGS: Final = 16  # named in the header; the log has them all
LONGEST_FLAGS: Final = 2000  # characters; proxies refuse answers whose headers are longer than a few KiB
PAGE_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
MAX_BODY: Final = 8 * 2**20
MOST_DISCARDED: Final = 64 * 2**20  # read on after a refusal, so that the client gets to see it
READY_FOR: Final = 1.0  # seconds that an answer of /health/ready stays good
ASSETS: Final = {"swagger-ui.css": "text/css", "swagger-ui-bundle.js": "text/javascript"}
START_SWAGGER: Final = b'SwaggerUIBundle({url: "openapi.json", dom_id: "#swagger-ui", deepLinking: true});\n'

logger = logging.getLogger(__name__)


STRANGERS: Final = (Forbidden, HostNotAllowed, NotReady, Unauthorized)  # whoever sees these learns nothing of the model


@dataclass(frozen=True, slots=True)
class Route:
    """One path: what it answers to and whether a key opens it."""

    path: str
    method: str
    summary: str
    needs_key: bool
    handle: Callable[["Service", Request, str, str], Response]


@dataclass(slots=True)
class Asked:
    """A question read and checked, waiting for its answer."""

    rows: Rows
    accept: str
    request_id: str
    client: str
    began: float


class Service:
    """One model behind its routes."""

    def __init__(
        self,
        predictor: Predictor,
        guard: Guard,
        *,
        log: Log | None = None,
        max_body: int = MAX_BODY,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.predictor = predictor
        self.guard = guard
        self.log = log
        self.max_body = max_body
        self._clock = clock
        identity = f"{predictor.reference};sha256={predictor.bundle.sha256}"
        self._marks = {"Ketch-Model": identity}
        self._series, self._numbers = os.urandom(8).hex(), itertools.count(1)
        self._checking = threading.Lock()
        self._checked_until, self._ready = 0.0, False
        self._pages: dict[str, bytes] = {}

    # ---- one question ------------------------------------------------------------------------------

    def handle(self, request: Request, *, unread: KetchError | None = None) -> Response:
        """Answer any request; nothing is raised. `unread` is why the door could not read the body, if it could not."""
        request_id = self.request_id(request.headers)
        try:
            needs_key = not any(each.path == request.path and not each.needs_key for each in ROUTES)
            client = self.guard.check(request.headers, needs_key=needs_key)
            route = self._route(request)
            if unread:
                raise unread
            if len(request.body) > self.max_body:
                raise too_large(self.max_body)
            response = route.handle(self, request, request_id, client)
        except Exception as error:
            return self.problem(error, request.path, request_id)
        return replace(response, headers={**response.headers, "X-Request-ID": request_id})

    def request_id(self, headers: Mapping[str, str]) -> str:
        """Take over the caller's request id where it is a sane one, else make one."""
        given = headers.get("x-request-id", "")
        return given if given and SAFE_ID.fullmatch(given) else self._new_id()

    def _new_id(self) -> str:
        return f"{self._series}-{os.getpid():x}-{next(self._numbers):x}"  # a server may fork after the service is made

    def begin(self, headers: Mapping[str, str], body: bytes, request_id: str, client: str) -> Asked:
        """Read and check a question.

        Raises:
            RequestError: as `Predictor.decode` does, or NotAcceptable.
        """
        began = time.perf_counter()
        content_type = headers.get("content-type", JSON)
        if headers.get("content-encoding", "identity").lower() not in {"identity", ""}:
            raise UnsupportedMediaType("This service does not unpack bodies", hint="Send it without Content-Encoding.")
        accept = codec.accepted(headers.get("accept", ""), content_type)
        return Asked(self.predictor.decode(body, content_type), accept, request_id, client, began)

    def finish(self, asked: Asked, results: Results) -> Response:
        """Write the answer and hand its record to the log."""
        headers = {**self._marks, "X-Request-ID": asked.request_id}
        if asked.rows.flags:
            headers["Ketch-Flags"] = flags_header(asked.rows.flags)
        body = self.predictor.encode(results, asked.accept)
        if self.log is not None:
            self._record(self.log, asked, results)
        return Response(200, body, asked.accept, headers)

    def predict(self, request: Request, request_id: str, client: str) -> Response:
        """Answer a question on its own, outside any batch."""
        asked = self.begin(request.headers, request.body, request_id, client)
        return self.finish(asked, self.predictor.run(asked.rows))

    def _record(self, log: Log, asked: Asked, results: Results) -> None:
        now, spent = time.time(), (time.perf_counter() - asked.began) * 1000
        inputs, answers = asked.rows.columns, results.columns
        flags: dict[int, list[str]] = {}
        for flag in asked.rows.flags:
            flags.setdefault(flag.row, []).append(f"{flag.code};field={flag.field}")
        log.append(
            [
                Record(
                    prediction_id=self._new_id(),
                    request_id=asked.request_id,
                    at=now,
                    model=self.predictor.reference,
                    digest=self.predictor.bundle.sha256,
                    features={name: values[row] for name, values in inputs.items()},
                    answer={name: values[row] for name, values in answers.items()},
                    flags=tuple(flags.get(row, ())),
                    latency_ms=spent,
                    client=asked.client,
                )
                for row in range(results.n)
            ]
        )

    def problem(self, error: Exception, path: str, request_id: str) -> Response:
        """Turn whatever was raised into problem+json (RFC 9457); what Ketch did not foresee is a 500."""
        known = error if isinstance(error, KetchError) else _bug(error)
        title = (type(known).__doc__ or "").partition(":")[0].rstrip(".") if known is error else "Internal error"
        body: dict[str, object] = {
            "type": f"urn:ketch:error:{known.code}",
            "title": title,
            "status": known.status,
            "detail": known.message,
            "instance": f"urn:ketch:request:{request_id}",
            "code": known.code,
            "hint": known.hint,
        }
        if known.errors:
            body["errors"] = known.errors
        marks = {} if isinstance(known, STRANGERS) else self._marks
        headers = {**marks, "X-Request-ID": request_id}
        if known.status == 401:
            headers["WWW-Authenticate"] = 'Basic realm="Ketch", charset="UTF-8"'
        if isinstance(known, MethodNotAllowed):
            headers["Allow"] = allowed(path)
        return Response(known.status, msgspec.json.encode(body), PROBLEM, headers)

    def _route(self, request: Request) -> Route:
        at_path = [each for each in ROUTES if each.path == request.path]
        if not at_path:
            listed = ", ".join(sorted({each.path for each in ROUTES if each.path.count("/") == 1}))
            raise NoSuchRoute(f"There is no {request.path[:80]} here", hint=f"There are: {listed}")
        method = "GET" if request.method == "HEAD" else request.method
        for each in at_path:
            if each.method == method:
                return each
        raise MethodNotAllowed(
            f"{request.path} does not take {request.method[:20]}", hint=f"It takes {allowed(request.path)}."
        )

    # ---- pages -------------------------------------------------------------------------------------

    def home(self, request: Request, request_id: str, client: str) -> Response:
        """Show the page for people."""
        url = request.base_url.rstrip("/")
        made = page.landing(self.predictor.bundle, url=url, guarded=self.guard.guarded)
        return Response(200, made.encode(), "text/html; charset=utf-8", PAGE_HEADERS)

    def schema(self, request: Request, request_id: str, client: str) -> Response:
        """Give the JSON Schema of a row and of an answer."""
        contract = self.predictor.contract
        document = {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": self.predictor.name,
            **json_schema(contract.fields),
            "$defs": {"answer": page.answer_schema(contract.answer)},
        }
        return Response(200, msgspec.json.encode(document))

    def openapi(self, request: Request, request_id: str, client: str) -> Response:
        """Give the OpenAPI document."""
        routes: dict[str, dict[str, str]] = {}
        for each in ROUTES:
            if each.summary:
                routes.setdefault(each.path, {})[each.method] = each.summary
        document = page.openapi(self.predictor.bundle, guarded=self.guard.guarded, routes=routes)
        document["servers"] = [{"url": urlsplit(request.base_url).path or "/"}]
        return Response(200, msgspec.json.encode(document))

    def docs(self, request: Request, request_id: str, client: str) -> Response:
        """Show the API page."""
        return Response(200, page.docs(self.predictor.name).encode(), "text/html; charset=utf-8", PAGE_HEADERS)

    def asset(self, request: Request, request_id: str, client: str) -> Response:
        """Give one file of the API page."""
        name = request.path.rpartition("/")[2]
        if name == "start.js":
            return Response(200, START_SWAGGER, "text/javascript; charset=utf-8", PAGE_HEADERS)
        if name not in self._pages:
            folder = importlib.resources.files("ketch.serve").joinpath("swagger")
            self._pages[name] = folder.joinpath(name).read_bytes()
        return Response(200, self._pages[name], ASSETS[name] + "; charset=utf-8", PAGE_HEADERS)

    def live(self, request: Request, request_id: str, client: str) -> Response:
        """Say that the process answers."""
        return Response(200, b'{"status":"live"}')

    def ready(self, request: Request, request_id: str, client: str) -> Response:
        """Say whether the model gives its golden answers, asking it once a second at most.

        Raises:
            NotReady: it does not.
        """
        with self._checking:
            if self._clock() >= self._checked_until:
                self._ready = self._gives_golden_answer()
                self._checked_until = self._clock() + READY_FOR
        if not self._ready:
            raise NotReady("The service is not ready", hint="Ask again later, or see what the server has logged.")
        return Response(200, b'{"status":"ready"}')

    def _gives_golden_answer(self) -> bool:
        try:
            self.predictor.replay(rows=1)
        except Exception as error:  # a model may fail in any way; a probe is told no more than that
            logger.error("%s is not ready: %s", self.predictor.reference, error)
            return False
        return True


def too_large(limit: int) -> BodyTooLarge:
    """Make the refusal of a body that is too long."""
    return BodyTooLarge(
        f"The body is larger than {limit} bytes", hint="Send the rows in parts, or use ketch score for whole tables."
    )


def allowed(path: str) -> str:
    """Name the methods that a path takes, as the Allow header does."""
    methods = {each.method for each in ROUTES if each.path == path}
    return ", ".join(sorted(methods | {"HEAD"} if "GET" in methods else methods))


def _bug(error: Exception) -> KetchError:
    logger.error("a bug in Ketch", exc_info=error)
    return KetchError("Ketch failed; this is a bug in it", hint="Please report it with what the server has logged.")


def flags_header(flags: Sequence[Fault]) -> str:
    """Name what was unusual: `code;field=name`, each once, names percent-encoded."""
    named = dict.fromkeys(f"{flag.code};field={quote(flag.field[:64], safe='')}" for flag in flags[:1000])
    lengths = itertools.accumulate(len(flag) + 2 for flag in named)
    shown = [flag for flag, length in zip(named, lengths, strict=True) if length <= LONGEST_FLAGS][:MOST_FLAGS]
    return ", ".join([*shown, "more"] if len(named) > len(shown) else shown)


ROUTES: Final = (
    Route("/predict", "POST", "Answer one row or many", True, Service.predict),
    Route("/", "GET", "What this model is, for people", True, Service.home),
    Route("/schema", "GET", "The fields as JSON Schema", True, Service.schema),
    Route("/openapi.json", "GET", "This service as OpenAPI 3.1", True, Service.openapi),
    Route("/docs", "GET", "Try the service in the browser", True, Service.docs),
    Route("/docs/swagger-ui.css", "GET", "", True, Service.asset),
    Route("/docs/swagger-ui-bundle.js", "GET", "", True, Service.asset),
    Route("/docs/start.js", "GET", "", True, Service.asset),
    Route("/health/live", "GET", "Whether the process answers", False, Service.live),
    Route("/health/ready", "GET", "Whether the model answers", False, Service.ready),
)
