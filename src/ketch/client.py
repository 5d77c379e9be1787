"""The other end of the wire: the same `predict`, answered by a service.

rows --*predict*, *explain*--> answers       a broken connection, or 503 with Retry-After --> asked again, within bounds
"""

import email.utils
import http.client
import math
import os
import random
import re
import ssl
import threading
import time
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Self

import msgspec

from ketch import errors
from ketch.bundle import Bundle
from ketch.codec import JSON
from ketch.errors import AnswersDiffer, KetchError, RequestError, ServiceError, TooManyRows, UsageError
from ketch.page import Example, answered
from ketch.schema.checks import Checker
from ketch.serve import door

ROWS_AT_ONCE: Final = 1000
EXPLAINED_AT_ONCE: Final = 100
MOST_IDLE: Final = 16  # connections kept for the next question
TRIES: Final = 3
PATIENCE: Final = 10.0  # seconds from the first try after which none is begun
PAUSE: Final = 0.1  # seconds before a service that did not take the connection is tried again
JITTER: Final = 0.5  # share of a pause by which it is prolonged at random, so that not all come back at once
BROKEN: Final = (  # what a service that ends, or begins again, leaves of a connection
    http.client.ImproperConnectionState,
    http.client.IncompleteRead,
    ConnectionError,
    ssl.SSLEOFError,
    ssl.SSLZeroReturnError,
)


class Answered(NamedTuple):
    """What came back."""

    status: int
    body: bytes
    retry_after: str


@dataclass
class Pool:
    """Connections to one service, each used by one thread at a time."""

    kind: type[http.client.HTTPConnection]
    host: str
    port: int | None
    timeout: float
    idle: list[http.client.HTTPConnection] = field(default_factory=list)
    process: int = 0
    lock: Any = field(default_factory=threading.Lock)

    def take(self) -> tuple[http.client.HTTPConnection, bool]:
        """Give a connection, and whether it was used before."""
        with self.lock:
            if self.process != os.getpid():  # forked: these belong to the parent
                self.idle, self.process = [], os.getpid()
            if self.idle:
                return self.idle.pop(), True
        return self.kind(self.host, self.port, timeout=self.timeout), False

    def keep(self, connection: http.client.HTTPConnection) -> None:
        """Keep a connection for the next question."""
        with self.lock:
            if len(self.idle) < MOST_IDLE:
                self.idle.append(connection)
                return
        connection.close()

    def clear(self) -> None:
        """Close what is kept."""
        with self.lock:
            idle, self.idle = self.idle, []
        for connection in idle:
            connection.close()


def _connections(secure: bool, at: str) -> type[http.client.HTTPConnection]:
    """Choose how a service is reached; by `at`, where that is given, and asked by its own name all the same."""
    if not at:
        return http.client.HTTPSConnection if secure else http.client.HTTPConnection

    class Plain(http.client.HTTPConnection):
        def connect(self) -> None:
            asked, self.host = self.host, at
            try:
                super().connect()
            finally:
                self.host = asked

    class Secure(http.client.HTTPSConnection, Plain):  # whose certificate must be that of the name
        pass

    return Secure if secure else Plain


class Client:
    """Ask a service as `ketch.load(…)` would be asked; threads may share it, and it keeps its connections open.

    The key is `api_key`, or `key` for short, else the one in KETCH_API_KEY. `model` is one of several models of the
    service. Times are in seconds. With `at`, that host is connected to, though the service is asked, and its
    certificate checked, by the name in its address: a domain may not point there yet.
    """

    def __init__(
        self, url: str, *, key: str = "", api_key: str = "", model: str = "", timeout: float = 30.0, at: str = ""
    ) -> None:
        try:
            parts = urllib.parse.urlsplit(url if "//" in url else f"http://{url}")
            host, port = parts.hostname, parts.port
        except ValueError:
            host = None
        if not host or parts.scheme not in {"http", "https"}:
            raise UsageError(f"{url!r} is not the address of a service", hint="Give one like http://localhost:9696")
        self.url = url.rstrip("/")
        self._pool = Pool(_connections(parts.scheme == "https", at), host, port, timeout)
        self._path = urllib.parse.quote(parts.path.rstrip("/"), safe="/%")
        if model:
            self._path += "/models/" + urllib.parse.quote(model, safe="")
        self._headers = {"Content-Type": JSON, "Accept": JSON}
        if key := (key or api_key or os.environ.get("KETCH_API_KEY", "")).strip():
            if not (key.isascii() and key.isprintable()):
                raise UsageError("The key has a character that no key has", hint="Copy it again; keys are plain ASCII.")
            self._headers["Authorization"] = f"Bearer {key}"

    def predict(self, rows: Any) -> Any:
        """Answer a dict with a dict, a list with a list, a DataFrame with a DataFrame on the same index.

        Raises:
            RequestError: as the service answered; ServiceError: it cannot be reached or failed.
        """
        if isinstance(rows, Mapping):
            return self._ask("/predict", dict(rows))
        if hasattr(rows, "to_dict") and hasattr(rows, "index"):
            answers = self.predict(_records(rows))
            return type(rows)([_flat(answer) for answer in answers], index=rows.index)
        return self._in_parts("/predict", list(rows), ROWS_AT_ONCE)

    def explain(self, rows: Any, *, target: str = "", lang: str = "en") -> Any:
        """Answer a dict with a dict, and a list or a DataFrame with a list, each with its `explanation`.

        `target` is one of several; the reasons are in English or Portuguese, as `lang` says.

        Raises:
            RequestError: as the service answered; ServiceError: it cannot be reached or failed.
        """
        asked = {"lang": lang} | ({"target": target} if target else {})
        path = "/explain?" + urllib.parse.urlencode(asked)
        if isinstance(rows, Mapping):
            return self._ask(path, dict(rows))
        listed = _records(rows) if hasattr(rows, "to_dict") and hasattr(rows, "index") else list(rows)
        try:
            return self._in_parts(path, listed, EXPLAINED_AT_ONCE)
        except TooManyRows:  # a model that takes longer explains fewer at once
            return self._in_parts(path, listed, EXPLAINED_AT_ONCE // 10)

    def form(self, lang: str = "en") -> dict[str, Any]:
        """Give what a form for the model needs: its fields, what it answers with, and rows to begin with.

        Raises:
            RequestError: as the service answered; ServiceError: it cannot be reached or failed.
        """
        found: dict[str, Any] = self._ask("/form?" + urllib.parse.urlencode({"lang": lang}), None)
        return found

    def replay(self, opened: Bundle) -> int:
        """Ask the service for the golden predictions of a bundle; give how many rows were asked.

        Raises:
            AnswersDiffer: it gives other answers. RequestError, ServiceError: it gives none.
        """
        wanted = answered(opened, Checker(opened.contract.fields))
        hold(self.predict([each.row for each in wanted]), wanted, opened, who=self.url)
        return len(wanted)

    def close(self) -> None:
        """Close the connections."""
        self._pool.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # ---- one question ------------------------------------------------------------------------------

    def _in_parts(self, path: str, rows: Sequence[object], size: int) -> list[Any]:
        return [
            answer
            for start in range(0, len(rows), size)
            for answer in self._ask_part(path, rows[start : start + size], start)
        ]

    def _ask_part(self, path: str, rows: Sequence[object], start: int) -> Any:
        try:
            return self._ask(path, rows)
        except RequestError as error:
            raise _moved(error, start) from None

    def _ask(self, path: str, rows: object) -> Any:
        answered = self._answered(path, None if rows is None else msgspec.json.encode(rows, enc_hook=_plain))
        if answered.status != 200:
            raise problem(answered.status, answered.body)
        try:
            return msgspec.json.decode(answered.body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise ServiceError(f"{self.url} answers, but not as Ketch does", hint="Check the address.") from None

    def _answered(self, path: str, body: bytes | None) -> Answered:
        """Ask, and again where that may help: an answer changes nothing, so that it may be asked for twice."""
        until, broken = time.monotonic() + PATIENCE, 0
        for left in reversed(range(TRIES)):
            found = self._tried(path, body)
            broken += isinstance(found, Exception)
            pause = _pause(found) * (1 + JITTER * random.random())  # noqa: S311 (nothing secret)
            if not left or broken > 1 or time.monotonic() + pause > until:
                break
            time.sleep(pause)
        if isinstance(found, Exception):
            raise ServiceError(
                f"{self.url} cannot be reached: {found}", hint="Is it running? Start it with ketch serve."
            ) from None
        return found

    def _tried(self, path: str, body: bytes | None) -> Answered | Exception:
        try:
            return self._sent(path, body)
        except (http.client.HTTPException, OSError) as error:
            return error

    def _sent(self, path: str, body: bytes | None) -> Answered:
        """Ask once, by GET where there is no body; a kept connection that was closed meanwhile does not count."""
        while True:
            connection, used = self._pool.take()
            try:
                connection.request("GET" if body is None else "POST", self._path + path, body, self._headers)
                response = connection.getresponse()
                found = Answered(response.status, response.read(), response.headers.get("Retry-After", ""))
                _require_whole(response, found.body)
            except (http.client.HTTPException, OSError) as error:
                connection.close()
                if used and isinstance(error, BROKEN):
                    self._pool.clear()  # the service has begun again: the others are no better
                    continue
                raise
            except BaseException:  # interrupted: the rest of the answer must not become that of the next question
                connection.close()
                raise
            self._pool.keep(connection)
            return found


def serve(
    model: object, *, background: bool = False, host: str = "127.0.0.1", port: int = 0, keys: tuple[str, ...] = ()
) -> Client | None:
    """Serve a fitted object, a model file, a bundle or a store reference.

    In the background it gives a `Client` that asks it, on a free port unless one is given; otherwise it serves
    until interrupted, at port 9696 unless another is given.

    Raises:
        KetchError: the model cannot be opened, or the address not listened on.
    """
    port = port or (0 if background else 9696)
    url = door("serve_model")(model, background=background, host=host, port=port, keys=keys)
    return Client(url, key=keys[0] if keys else "") if background else None


def hold(found: Sequence[Any], wanted: Sequence[Example], opened: Bundle, *, who: str) -> None:
    """Hold answers against those that golden rows must get; `who` gave them.

    Raises:
        AnswersDiffer: one is another.
    """
    tolerance = opened.manifest.tolerance
    for row, (one, example) in enumerate(zip(found, wanted, strict=True), start=1):
        if not _agrees(one, example.answer, tolerance):
            raise AnswersDiffer(
                f"{who} answers golden row {row} of {opened.manifest.name} with {one}, not {example.answer}",
                hint="Another model answers there, or its libraries are other ones: deploy it again.",
            )


def _agrees(found: Any, wanted: Any, tolerance: float) -> bool:
    """Compare two answers: numbers within the tolerance, all else to the letter, but for labels that stand on edge."""
    if isinstance(wanted, Mapping) and isinstance(found, Mapping):
        others = [name for name in wanted if not _agrees(found.get(name), wanted[name], tolerance)]
        return not others or all(_on_edge(name, wanted, tolerance) and name in found for name in others)
    if isinstance(wanted, list) and isinstance(found, list):
        return len(found) == len(wanted) and all(map(_agrees, found, wanted, [tolerance] * len(found)))
    if isinstance(wanted, float) and isinstance(found, int | float) and not isinstance(found, bool):
        return abs(found - wanted) <= tolerance * max(1.0, abs(wanted))
    return bool(found == wanted)


def _on_edge(name: str, answer: Mapping[str, Any], tolerance: float) -> bool:
    """Say whether the two best labels of an answer are alike within the tolerance."""
    several = answer.get(f"{name}_probabilities")
    if isinstance(several, Mapping):
        best = sorted(several.values())[-2:]
        return len(best) == 2 and best[1] - best[0] <= tolerance
    one = answer.get(f"{name}_probability")
    return isinstance(one, float) and abs(one - 0.5) <= tolerance


def problem(status: int, body: bytes) -> KetchError:
    """Turn a refusal as it came over the wire back into its error."""
    try:
        found: Mapping[str, Any] = msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError):
        found = {}
    kinds = {
        each.code: each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, KetchError)
    }
    kind = kinds.get(str(found.get("code")), ServiceError)
    message = str(found.get("detail", f"The service answered with status {status}"))
    hint = str(found.get("hint", "Is this the address of a Ketch service?"))
    errors_found = found.get("errors")
    return kind(message, hint=hint, errors=errors_found if isinstance(errors_found, list) else ())


def _moved(error: RequestError, start: int) -> RequestError:
    """Count the rows of a refusal from the first row given, not from the first of its part."""
    if not start or not error.errors:
        return error
    message = re.sub(r"\b([Rr]ow) (\d+)\b", lambda found: f"{found[1]} {int(found[2]) + start}", error.message, count=1)
    moved = [{**each, "row": start + row} if isinstance(row := each.get("row"), int) else each for each in error.errors]
    return type(error)(message, hint=error.hint, errors=moved)


def _require_whole(response: http.client.HTTPResponse, body: bytes) -> None:
    """Find an answer cut off where nothing says how long it is: within its headers, http.client takes it for whole."""
    if response.chunked or "Content-Length" in response.headers:
        return
    try:
        msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise http.client.IncompleteRead(body) from None


def _pause(found: Answered | Exception) -> float:
    """Give the seconds after which asking again may help; endless where it does not."""
    if isinstance(found, Exception):
        return PAUSE if isinstance(found, BROKEN) else math.inf
    if found.status != 503 or not found.retry_after:
        return math.inf
    if re.fullmatch(r"\d{1,9}", found.retry_after, re.ASCII):
        return float(found.retry_after)
    try:
        until = email.utils.parsedate_to_datetime(found.retry_after).timestamp()
    except (ValueError, OverflowError):
        return math.inf
    return max(0.0, until - time.time())


def _plain(value: Any) -> Any:
    """Let numpy's scalars and arrays go over the wire as Python's numbers and lists."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise UsageError(f"A {type(value).__name__} cannot be sent", hint="Send texts, numbers, booleans, lists or None.")


def _records(frame: Any) -> list[dict[str, Any]]:
    return [_without_nan(row) for row in frame.to_dict(orient="records")]


def _without_nan(row: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(name): None if _is_nothing(value) else value for name, value in row.items()}


def _is_nothing(value: Any) -> bool:
    """Say whether a cell of a frame stands for nothing: NaN, NaT or pandas' NA, which does not compare."""
    return type(value).__name__ in {"NAType", "NaTType"} or (isinstance(value, float) and value != value)


def _flat(answer: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in answer.items():
        flat |= {f"{name}.{key}": part for key, part in value.items()} if isinstance(value, dict) else {name: value}
    return flat
