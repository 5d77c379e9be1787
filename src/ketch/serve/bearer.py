"""Tokens that somebody else issues (JWT): checked against the issuer's published keys, and nothing the token says.

Which algorithms count, whose tokens and for whom stands in the settings. A token chooses nothing but the name of one
of the issuer's keys: it cannot bring its own key, name a place to fetch one from, or go without a signature.
"""

import hashlib
import json
import logging
import ssl
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from http.client import HTTPResponse
from pathlib import Path
from typing import Any, Final, NamedTuple

from ketch import extras
from ketch.errors import NotReady, SettingError, Unauthorized
from ketch.serve.guard import Caller, Verdict
from ketch.trust.calling import SCOPES, USUAL

ALGORITHMS: Final = ("RS256", "ES256")
KINDS: Final = {  # what an algorithm needs of a key; those with one secret for both sides are not here
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), "RSA"),
    **dict.fromkeys(("ES256", "ES384", "ES512"), "EC"),
    "EdDSA": "OKP",
}
CURVES: Final = {"ES256": "secp256r1", "ES384": "secp384r1", "ES512": "secp521r1"}
LEEWAY: Final = 10  # seconds that clocks may differ
LONGEST: Final = 16_384  # characters of a token
LARGEST_SET: Final = 1 << 18  # bytes
SMALLEST_RSA: Final = 2048  # bits
PATIENCE: Final = 5.0  # seconds for the issuer to answer, and to answer in full
FETCH_AGAIN: Final = 30.0  # seconds between two fetches, whoever asks for them
GOOD_FOR: Final = 600.0  # seconds after which the set is fetched anew
MOST_REMEMBERED: Final = 1024  # tokens
PREFIX: Final = "ketch:"
NO_CLAIM: Final = "-"  # instead of a claim: what opens the usual to every good token

logger = logging.getLogger(__name__)


class Bearer:
    """Say whose a token is.

    The issuer's keys are fetched by a thread of their own: at the start, when they have grown old, and when a token
    names one that is not among them. While the issuer cannot be reached, the keys fetched last stay good.
    """

    def __init__(
        self,
        issuer: str,
        audience: str,
        jwks: str,
        *,
        algorithms: Sequence[str] = ALGORITHMS,
        scopes_claim: str = "scope",
        context: ssl.SSLContext | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take what the settings say, and begin to fetch the keys.

        `jwks` is an https address or a file; with `-` for a `scopes_claim` a token opens what a key usually does.

        Raises:
            SettingError: something is missing or would let strangers in.
            NotInstalled: PyJWT is missing.
        """
        _require(issuer, audience, jwks, algorithms)
        self._jwt: Any = extras.load("jwt")
        self._issuer, self._audience, self._algorithms = issuer, audience, tuple(algorithms)
        self._scopes_claim = scopes_claim
        self._source = _Https(jwks, context) if "://" in jwks else Path(jwks).expanduser().read_bytes
        self._where = jwks
        self._clock = clock
        self._generation = 0
        self._keys: Mapping[str, _Key] = {}
        self._seen: dict[bytes, Verdict] = {}
        self._lock = threading.Lock()
        self._fetching: threading.Thread | None = None
        self._began = self._fetched = float("-inf")
        self._ask_for_keys()

    def wait(self, seconds: float) -> bool:
        """Wait until the keys are there, but not for longer than that; say whether they are."""
        thread = self._fetching
        if thread is not None:
            thread.join(seconds)
        return bool(self._keys)

    def generation(self) -> int:
        """Give a number that changes with the issuer's keys, and have them fetched where they have grown old."""
        if self._clock() - self._fetched > GOOD_FOR:
            self._ask_for_keys()
        return self._generation

    def verdict(self, token: str) -> Verdict:
        """Say whose token it is, what it opens, and until when.

        Raises:
            Unauthorized: it is not a good one.
            NotReady: the issuer's keys could not be fetched yet.
        """
        mark = hashlib.sha256(token.encode("utf-8", "replace")).digest()
        seen = self._seen  # before the keys, as the guard does
        if (found := seen.get(mark)) is not None and time.time() < found.until:
            return found
        if not self._keys:
            self._ask_for_keys()
            raise NotReady("The keys of the issuer of tokens are not there yet", hint="Ask again in a moment.")
        found = self._checked(token)
        if len(seen) >= MOST_REMEMBERED:
            seen.clear()
        seen[mark] = found
        return found

    def _checked(self, token: str) -> Verdict:
        if len(token) > LONGEST or not token.isascii():
            raise _refused("This is not a token", "It is too long, or has letters that no token has.")
        try:
            header = self._jwt.get_unverified_header(token)
            key = self._key(header)
            claims = self._jwt.decode(
                token,
                key,
                algorithms=self._algorithms,
                audience=self._audience,
                issuer=self._issuer,
                leeway=LEEWAY,
                options={"require": ["exp", "iss", "aud"], "verify_signature": True},
            )
            return Verdict(self._caller(claims), float(claims["exp"]))
        except Unauthorized:
            raise
        except Exception as error:  # whatever a library trips over in a token that anybody may send
            reason = REASONS.get(type(error).__name__, "It is not a token that can be checked.")
            raise _refused("The token is not good here", reason) from None

    def _key(self, header: Mapping[str, Any]) -> Any:
        algorithm, kid = header.get("alg"), header.get("kid", "")
        if algorithm not in self._algorithms:
            raise _refused("The token is not good here", f"It has to be signed by {' or '.join(self._algorithms)}.")
        keys = self._keys
        key = keys.get(kid) if kid else next(iter(keys.values())) if len(keys) == 1 else None
        if key is None:
            if self._clock() - self._began > FETCH_AGAIN:
                self._ask_for_keys()
            raise _refused("The token is signed with a key that is not known here", "Get a new one, or ask again soon.")
        if not _fits(key, str(algorithm)):
            raise _refused("The token is not good here", "Its algorithm is not that of its key.")
        return key.public

    def _caller(self, claims: Mapping[str, Any]) -> Caller:
        who = hashlib.sha256(
            f"{claims['iss']} {claims.get('sub') or claims.get('client_id')}".encode("utf-8", "replace")
        ).hexdigest()[:16]
        if self._scopes_claim == NO_CLAIM:
            return Caller(who, USUAL)
        given = claims.get(self._scopes_claim, "")
        words = given.split() if isinstance(given, str) else given if isinstance(given, list) else []
        named = {word.removeprefix(PREFIX) for word in words if isinstance(word, str)}
        return Caller(who, frozenset(SCOPES) & named)

    # ---- the issuer's keys -------------------------------------------------------------------------

    def _ask_for_keys(self) -> None:
        """Have the keys fetched, unless somebody does or did a moment ago."""
        with self._lock:
            if self._fetching is not None and self._fetching.is_alive():
                return
            if self._clock() - self._began <= FETCH_AGAIN:
                return
            self._began = self._clock()
            self._fetching = threading.Thread(target=self._fetch, name="ketch-jwks", daemon=True)
            self._fetching.start()

    def _fetch(self) -> None:
        try:
            found = self._usable(json.loads(self._source()))
        except Exception as error:  # an issuer may fail in any way; the keys that are there stay good
            logger.warning("the keys of the issuer at %s cannot be fetched: %s", self._where, error)
            return
        if not found:
            logger.warning("there is no usable key at %s", self._where)
            return
        before, self._keys, self._fetched = self._keys, found, self._clock()
        if before != found:
            self._seen = {}
            self._generation += 1

    def _usable(self, document: Any) -> dict[str, "_Key"]:
        found = {}
        for each in document["keys"]:
            if not isinstance(each, dict) or each.get("use", "sig") != "sig" or each.get("kty") not in KINDS.values():
                continue
            public = {name: value for name, value in each.items() if name not in PRIVATE}
            try:
                key = _Key(self._jwt.PyJWK(public).key, str(each["kty"]), str(each.get("alg", "")))
            except Exception as error:  # a kind of key that the library does not know is no reason to take none
                logger.info("a key at %s cannot be used: %s", self._where, type(error).__name__)
                continue
            if any(_fits(key, algorithm) for algorithm in self._algorithms):
                found[str(each.get("kid", ""))] = key
        return found


class _Key(NamedTuple):
    """A public key, and what the issuer says of it."""

    public: Any
    kind: str
    declared: str


PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth"})
REASONS: Final = {  # by the name of what PyJWT raises
    "ExpiredSignatureError": "It has expired: get a new one.",
    "ImmatureSignatureError": "It is not good yet: compare the clocks.",
    "InvalidAudienceError": "It was issued for another service.",
    "InvalidIssuerError": "Its issuer is not the one that counts here.",
    "InvalidSignatureError": "Its signature is not by the issuer.",
    "MissingRequiredClaimError": "It has to name iss, aud and exp.",
}


def _refused(message: str, hint: str) -> Unauthorized:
    return Unauthorized(message, hint=hint)


def _fits(key: _Key, algorithm: str) -> bool:
    if key.kind != KINDS[algorithm] or key.declared not in {"", algorithm}:
        return False
    if key.kind == "RSA":
        return bool(key.public.key_size >= SMALLEST_RSA)
    return key.kind != "EC" or CURVES[algorithm] == key.public.curve.name


def _require(issuer: str, audience: str, jwks: str, algorithms: Sequence[str]) -> None:
    for name, value in (("jwt_issuer", issuer), ("jwt_audience", audience), ("jwt_jwks", jwks)):
        if not value:
            raise SettingError(f"{name} is missing", hint="Give jwt_issuer, jwt_audience and jwt_jwks together.")
    if "://" in jwks and not jwks.lower().startswith("https://"):
        raise SettingError(
            f"jwt_jwks is not https: {jwks[:200]}",
            hint="Whoever changes the keys on the way lets anybody in: use https.",
        )
    for algorithm in algorithms:
        if algorithm not in KINDS:
            raise SettingError(
                f"jwt_algorithms cannot hold {algorithm[:20]!r}",
                hint=f"With published keys these go: {', '.join(KINDS)}.",
            )
    if not algorithms:
        raise SettingError("jwt_algorithms names none", hint=f"Leave it out for {', '.join(ALGORITHMS)}.")


class _StayOnHttps(urllib.request.HTTPRedirectHandler):
    """Follow a redirect to https, and to nothing else."""

    def redirect_request(self, *args: Any) -> urllib.request.Request | None:
        """Look where it points: the last of the arguments."""
        if not str(args[-1]).lower().startswith("https://"):
            raise OSError("it redirects off https")
        return super().redirect_request(*args)


class _Https:
    """Fetch a document by https and nothing else."""

    def __init__(self, url: str, context: ssl.SSLContext | None) -> None:
        headers = {"Accept": "application/json", "User-Agent": "ketch"}
        self._asked = urllib.request.Request(url, headers=headers)  # noqa: S310 (this opener knows https alone)
        self._opener = urllib.request.OpenerDirector()
        proxy = urllib.request.getproxies().get("https")
        for handler in (
            urllib.request.ProxyHandler({"https": proxy} if proxy else {}),
            urllib.request.HTTPSHandler(context=context or ssl.create_default_context()),
            urllib.request.HTTPDefaultErrorHandler(),
            urllib.request.HTTPErrorProcessor(),
            _StayOnHttps(),
            urllib.request.UnknownHandler(),
        ):
            self._opener.add_handler(handler)

    def __call__(self) -> bytes:
        until = time.monotonic() + PATIENCE
        found, parts, size = self._opener.open(self._asked, timeout=PATIENCE), [], 0
        if not isinstance(found, HTTPResponse):
            raise OSError("no answer")
        with found:
            while part := found.read1(65536):
                parts.append(part)
                size += len(part)
                if size > LARGEST_SET:
                    raise OSError(f"more than {LARGEST_SET} bytes")
                if time.monotonic() > until:
                    raise TimeoutError("it takes too long")
        return b"".join(parts)
