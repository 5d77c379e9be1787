"""Calls of an API by HTTP: Google's, Azure's, Netlify's; each has its address, and its way to sign in."""

import base64
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from ketch import extras
from ketch.errors import CloudRefused, NoCredentials
from ketch.steps import Hands, Secret, Text, shown

LONGEST: Final = 60.0  # seconds that an answer may take
TRIES: Final = 6  # where the API is busy, or throttles and says when to come back
BUSY: Final = (429, 502, 503, 504)
ATTEMPTS: Final = 4  # of a question
PAUSE: Final = 2.0  # seconds between them
SAID: Final = 600  # letters of a refusal


@dataclass(frozen=True)
class Api:
    """An API: its address, which `variable` replaces, how a caller's token is found, and headers that go along."""

    name: str
    url: str
    token: Callable[[Hands], str]
    variable: str = ""
    headers: Callable[[Hands], Mapping[str, str]] = lambda hands: {}

    def address(self, hands: Hands) -> str:
        """Give its address."""
        return (hands.environ.get(self.variable) or self.url).rstrip("/")


@dataclass(frozen=True)
class Rest:
    """One call of an API: JSON in `body`, or bytes in `data`; the answer is what its JSON says.

    A refusal's code is the status as text, such as 404; `hints` are remedies by it.
    """

    api: Api
    method: str
    path: str | Text
    body: Any = None
    data: bytes = b""
    query: Mapping[str, str | Sequence[str]] = field(default_factory=dict)
    content_type: str = "application/octet-stream"
    hints: Mapping[str, str] = field(default_factory=dict)

    def sent(self) -> Mapping[str, object]:
        """Say what is asked."""
        told: dict[str, object] = {"http": f"{self.method} {self.api.url}{shown(self.path)}"}
        told |= {"query": shown(self.query)} if self.query else {}
        told |= {"body": shown(self.body)} if self.body is not None else {}
        return told | ({"data": shown(self.data)} if self.data else {})

    def done(self, hands: Hands) -> Any:
        """Ask the API.

        Raises:
            CloudRefused: it says no, or cannot be reached. NoCredentials: nobody is signed in.
        """
        body = self.data if self.body is None else msgspec.json.encode(self.body, enc_hook=_told)
        headers = {
            **self.api.headers(hands),
            "Authorization": f"Bearer {self.api.token(hands)}",
            "Content-Type": self.content_type if self.body is None else "application/json",
        }
        answer = self._answered(body or None, headers, hands)
        if answer.status_code >= 300:
            raise self._refused(answer.status_code, answer.text)
        if answer.headers.get("Content-Type", "").startswith("text/html"):
            raise CloudRefused(
                f"{self.api.name} answered {self.method} {self.path} with a page for people",
                reason="unreachable",
                hint="Something stands between, such as the sign-in of a network: check it, and HTTPS_PROXY.",
            )
        return _read(answer.content)

    def _answered(self, body: Any, headers: Mapping[str, str], hands: Hands) -> Any:
        """Ask; what changes nothing is asked again where the network or the API fails for once."""
        requests: Any = extras.load("requests")
        tenacity: Any = extras.load("tenacity")
        address = self.api.address(hands)
        failed = tenacity.retry_if_exception_type(requests.RequestException)
        attempts = tenacity.Retrying(
            retry=failed | tenacity.retry_if_result(lambda answer: answer.status_code == 500),
            stop=tenacity.stop_after_attempt(ATTEMPTS if self.method == "GET" else 1),
            wait=tenacity.wait_fixed(PAUSE),
            sleep=hands.sleep,
            retry_error_callback=lambda state: state.outcome.result(),  # the last answer, or what was raised
        )
        try:
            return attempts(
                session(hands).request,
                self.method,
                f"{address}{self.path}",
                params=dict(self.query),
                data=body,
                headers=dict(headers),
                timeout=LONGEST,
                allow_redirects=False,  # a token goes to nobody else
            )
        except requests.RequestException as error:
            raise CloudRefused(
                f"{self.api.name} cannot be reached at {address.partition('//')[2]}: {innermost(error)}",
                reason="unreachable",
                hint="Check the network, and run the same command again.",
            ) from None

    def _refused(self, status: int, said: str) -> CloudRefused:
        message = f"{self.api.name} answered {self.method} {self.path} with {status}: {_said(said)}"
        if status == 401:
            return NoCredentials(message, hint=f"Sign in to {self.api.name} again.")
        usual = "ketch deploy TARGET --doctor checks the account."
        if status == 429 or status >= 500:
            usual = "It is busy, or has a fault of its own: wait a little, and run the same command again."
        return CloudRefused(message, reason=str(status), hint=self.hints.get(str(status), usual))


def _told(value: object) -> str:
    """Spell a secret out, for the API alone."""
    if isinstance(value, str):
        return str.__str__(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


def innermost(error: BaseException) -> str:
    """Say in few words why somebody cannot be reached: what is innermost in an error."""
    inner: Any = error
    while isinstance(inner, BaseException):
        error = inner
        inner = getattr(error, "reason", None) or next((each for each in error.args[::-1] if each), None)
    return re.sub(r"^.*(\[Errno -?\d+\]|\): ) ?", "", str(inner or error))


def _said(text: str) -> str:
    """Find what a refusal says for people."""
    try:
        told = msgspec.json.decode(text)
        told = told.get("error", told)
        message = told if isinstance(told, str) else told.get("message") or text
    except (msgspec.DecodeError, AttributeError):
        message = text
    return " ".join(str(message).split())[:SAID]


def _read(data: bytes) -> Any:
    if not data:
        return None
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return data


def session(hands: Hands) -> Any:
    """Give the connections of these hands: a busy API is asked again, when it says and a few times."""
    if "rest" not in hands.kept:
        requests: Any = extras.load("requests")
        adapters: Any = extras.load("requests.adapters")
        retry: Any = extras.load("urllib3.util.retry")
        made = requests.Session()
        made.trust_env = True  # proxies and certificates as the user has set them; never a .netrc, which is no token
        made.auth = _unchanged
        retries = retry.Retry(
            total=TRIES,
            connect=2,
            read=0,  # what was asked may have been done: the next look says whether it was
            backoff_factor=0.5,
            status_forcelist=BUSY,
            allowed_methods=None,
            raise_on_status=False,
        )
        for scheme in ("http://", "https://"):
            made.mount(scheme, adapters.HTTPAdapter(max_retries=retries))
        hands.kept["rest"] = made
    return hands.kept["rest"]


def _unchanged(request: Any) -> Any:
    return request


def from_environ(variable: str, hint: str) -> Callable[[Hands], str]:
    """Find a token in a variable of the environment.

    Raises:
        NoCredentials: when asked, and it is not set.
    """

    def token(hands: Hands) -> str:
        if not (found := hands.environ.get(variable, "").strip()):
            raise NoCredentials(f"{variable} is not set", hint=hint)
        return Secret(found)

    return token


def claims_of(token: str) -> Mapping[str, Any]:
    """Read what a token says of its bearer, to be shown and not to be relied on; nothing, where it cannot be read."""
    try:
        part = token.split(".")[1]
        found = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (IndexError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
