"""The other end of the wire: the same `predict`, answered by a service."""

import http.client
import os
import re
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any, Final, Self

import msgspec

from ketch import errors
from ketch.codec import JSON
from ketch.errors import KetchError, RequestError, ServiceError, UsageError
from ketch.serve import door

ROWS_AT_ONCE: Final = 1000
STALE: Final = (
    http.client.ImproperConnectionState,  # the last question was interrupted
    http.client.RemoteDisconnected,
    BrokenPipeError,
    ConnectionResetError,
)


class Client:
    """Ask a service as `ketch.load(…)` would be asked; keeps its connection open.

    The key comes from `key`, else from KETCH_API_KEY. Times are in seconds.
    """

    def __init__(self, url: str, *, key: str = "", timeout: float = 30.0) -> None:
        try:
            parts = urllib.parse.urlsplit(url if "//" in url else f"http://{url}")
            host, port = parts.hostname, parts.port
        except ValueError:
            host = None
        if not host or parts.scheme not in {"http", "https"}:
            raise UsageError(f"{url!r} is not the address of a service", hint="Give one like http://localhost:9696")
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self.url = url.rstrip("/")
        self._connection = kind(host, port, timeout=timeout)
        self._path = urllib.parse.quote(parts.path.rstrip("/"), safe="/%") + "/predict"
        self._headers = {"Content-Type": JSON, "Accept": JSON}
        if key := (key or os.environ.get("KETCH_API_KEY", "")).strip():
            if not (key.isascii() and key.isprintable()):
                raise UsageError("The key has a character that no key has", hint="Copy it again; keys are plain ASCII.")
            self._headers["Authorization"] = f"Bearer {key}"

    def predict(self, rows: Any) -> Any:
        """Answer a dict with a dict, a list with a list, a DataFrame with a DataFrame on the same index.

        Raises:
            RequestError: as the service answered; ServiceError: it cannot be reached or failed.
        """
        if isinstance(rows, Mapping):
            return self._ask(dict(rows))
        if hasattr(rows, "to_dict") and hasattr(rows, "index"):
            answers = self.predict([_without_nan(row) for row in rows.to_dict(orient="records")])
            return type(rows)([_flat(answer) for answer in answers], index=rows.index)
        listed = list(rows)
        return [answer for start in range(0, len(listed), ROWS_AT_ONCE) for answer in self._ask_part(listed, start)]

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _ask_part(self, rows: Sequence[object], start: int) -> Any:
        try:
            return self._ask(rows[start : start + ROWS_AT_ONCE])
        except RequestError as error:
            raise _moved(error, start) from None

    def _ask(self, rows: object) -> Any:
        body = msgspec.json.encode(rows, enc_hook=_plain)
        status, answer = self._post(body)
        if status != 200:
            raise problem(status, answer)
        try:
            return msgspec.json.decode(answer)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise ServiceError(f"{self.url} answers, but not as Ketch does", hint="Check the address.") from None

    def _post(self, body: bytes) -> tuple[int, bytes]:
        for last in (False, True):
            try:
                self._connection.request("POST", self._path, body, self._headers)
                response = self._connection.getresponse()
                return response.status, response.read()
            except (http.client.HTTPException, OSError) as error:
                self._connection.close()
                # a kept connection may have been closed meanwhile; a prediction changes nothing, so ask once more
                stale = isinstance(error, STALE)
                if last or not stale:
                    raise ServiceError(
                        f"{self.url} cannot be reached: {error}", hint="Is it running? Start it with ketch serve."
                    ) from None
        raise ServiceError(f"{self.url} cannot be reached", hint="Is it running?")


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


def _plain(value: Any) -> Any:
    """Let numpy's scalars and arrays go over the wire as Python's numbers and lists."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise UsageError(f"A {type(value).__name__} cannot be sent", hint="Send texts, numbers, booleans, lists or None.")


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
