"""Headers that keep browsers safe: on every answer, on pages, and for pages of other sites that may call."""

import re
from collections.abc import Mapping, Sequence
from typing import Final

from ketch.errors import SettingError
from ketch.serve import Request, Response

ORIGIN: Final = re.compile(r"https?://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:\d{1,5})?", re.ASCII)
SENT: Final = "Accept, Authorization, Content-Type, X-API-Key, X-Request-ID"  # what a page may send along
SHOWN: Final = "Ketch-Flags, Ketch-Model, Retry-After, X-Request-ID"  # and see of the answer
REMEMBERED: Final = "600"  # seconds that a browser does not ask again
ONE_YEAR: Final = 31_536_000
PAGE: Final = {
    "Content-Security-Policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
}


def safe_headers(*, guarded: bool, tls: bool) -> dict[str, str]:
    """Give what goes with every answer, errors included: no guessing of types, no copies of what a key opened.

    `tls` says that callers come by https, to this server or to what stands before it.
    """
    made = {"X-Content-Type-Options": "nosniff"}
    if guarded:
        made["Cache-Control"] = "no-store"
    if tls:
        made["Strict-Transport-Security"] = f"max-age={ONE_YEAR}"
    return made


class Cors:
    """Let pages of other sites call, from the origins named and no others; `*` lets all.

    Credentials that a browser keeps are never asked for: a page sends its key in a header, or sends none. So no
    site can use what the browser of somebody else knows.
    """

    def __init__(self, origins: Sequence[str] = ()) -> None:
        """Take the origins, such as https://shop.example; none at all lets no page call.

        Raises:
            SettingError: one of them is no origin.
        """
        found = [origin.strip().lower().rstrip("/") for origin in origins]
        for given, origin in zip(origins, found, strict=True):
            if origin != "*" and not ORIGIN.fullmatch(origin):
                raise SettingError(
                    f"{given[:80]!r} is no origin",
                    hint="Give scheme, host and port as the browser shows them: https://shop.example, or * for all.",
                )
        self._all = "*" in found
        self._origins = frozenset(found)
        self._fixed = {"Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": SHOWN} if self._all else {}

    def headers(self, asked: Mapping[str, str]) -> Mapping[str, str]:
        """Give the headers for the answer to a request with these; none at all where no page may call."""
        if self._all or not self._origins:
            return self._fixed
        origin = asked.get("origin", "")
        if origin.lower() not in self._origins:
            return {"Vary": "Origin"}  # a cache must not give this answer to those that may
        return {"Access-Control-Allow-Origin": origin, "Access-Control-Expose-Headers": SHOWN, "Vary": "Origin"}

    def preflight(self, request: Request, allowed_methods: str) -> Response | None:
        """Answer a browser that asks whether its page may call; None where it is no such question, or it may not.

        `allowed_methods` are those of the path, as the Allow header has them.
        """
        if request.method != "OPTIONS" or not request.headers.get("access-control-request-method"):
            return None
        found = self.headers(request.headers)
        if not request.headers.get("origin") or "Access-Control-Allow-Origin" not in found:
            return None
        made = {name: value for name, value in found.items() if name != "Access-Control-Expose-Headers"}
        made["Access-Control-Allow-Methods"] = allowed_methods
        made["Access-Control-Allow-Headers"] = SENT
        made["Access-Control-Max-Age"] = REMEMBERED
        return Response(204, b"", headers=made)
