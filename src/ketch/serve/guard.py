"""Who gets in: hosts, keys, tokens, and what each of them opens."""

import base64
import binascii
import hmac
import ipaddress
import logging
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from ketch.errors import Forbidden, HostNotAllowed, KetchError, SettingError, Unauthorized
from ketch.settings import Settings
from ketch.trust import calling
from ketch.trust.calling import SCOPES, CallingKey

HOST: Final = re.compile(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9._-]+?)\.?)(?::\d{1,5})?", re.ASCII)
NAME: Final = re.compile(r"(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*", re.ASCII)
REMEDY: Final = "Set KETCH_API_KEYS to a long random key, or give --auth none to let everybody in."
MOST_VERDICTS: Final = 512  # remembered; each may hold a token of some KB
LOOK_EVERY: Final = 1.0  # seconds between two looks at the files of keys

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls: a short name that tells nothing of the key, and what is open to them."""

    name: str
    scopes: frozenset[str]


class Verdict(NamedTuple):
    """A caller, and the time of the epoch until which that is so."""

    caller: Caller
    until: float


class Bearer(Protocol):
    """What knows tokens that others have issued."""

    def generation(self) -> int:
        """Give a number that changes when tokens may have lost their worth; asked once a second at most."""

    def verdict(self, token: str) -> Verdict:
        """Say whose token it is."""


EVERYBODY: Final = Caller("", frozenset(SCOPES))
NOBODY: Final = Caller("", frozenset())


@dataclass(slots=True)
class _Watched:
    """A file of keys: what was read of it last, and by which marks of the file."""

    path: Path
    keys: list[CallingKey] = field(default_factory=list)
    marks: object = None


class Guard:
    """Let a request in, or say why not.

    Without keys and with `auth` left at keys, only requests to a loopback host name are answered: a page in a
    browser can be made to call 127.0.0.1 by another name, and that name stands in the Host header.

    Whether keys are asked for is settled when the guard is made, so that no file that vanishes opens a service.
    """

    def __init__(
        self,
        keys: Sequence[str] = (),
        *,
        auth: str = "keys",
        files: Sequence[Path] = (),
        bearer: Bearer | None = None,
        allowed_hosts: Sequence[str] = (),
        listens_here: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Settle who gets in; `files` hold more keys and are read again when they change.

        `listens_here` says that only this machine reaches the server.
        """
        self._given = [calling.key_of(key) for key in keys]
        self._files = [_Watched(path, calling.read(path), _marks(path, clock())) for path in files]
        self._bearer = bearer if auth == "keys" else None
        self.auth = auth
        self.guarded = auth == "keys" and bool(self._given or self._files or bearer)
        self._loopback_only = auth == "keys" and not self.guarded
        self._listens_here = listens_here
        self._hosts = Hosts(allowed_hosts) if allowed_hosts and not self._loopback_only else None
        self._clock = clock
        self._looking = threading.Lock()
        self._generation = bearer.generation() if bearer else 0
        self._known: dict[bytes, CallingKey] = {}
        self._seen: dict[tuple[str | None, ...], Verdict] = {}
        self._looked, self._look_again = clock(), clock() + LOOK_EVERY
        self._know()

    def check(self, headers: Mapping[str, str], *, scope: str = "") -> Caller:
        """Let the caller in and say who it is; `scope` is what the route asks for, empty where everybody may come.

        Raises:
            HostNotAllowed, Unauthorized, Forbidden: the caller stays out.
            NotReady: it came with a token, and the keys to check it with are not there yet.
        """
        now = self._clock()
        if not self._looked <= now < self._look_again:  # a clock that was set back must not stop the looking
            self._look(now)
        if not scope:
            return self._judge(headers, scope, now).caller
        seen = self._seen  # before the keys: what they open is never kept among the verdicts of later ones
        if self.guarded:
            get = headers.get
            asked = (get("host"), get("x-api-key"), get("authorization"), scope)
        else:
            asked = (headers.get("host"), None, None, scope)
        found = seen.get(asked)
        if found is None or now >= found.until:
            found = self._judge(headers, scope, now)
            if len(seen) >= MOST_VERDICTS:
                seen.clear()
            seen[asked] = found
        return found.caller

    def _judge(self, headers: Mapping[str, str], scope: str, now: float) -> Verdict:
        host = headers.get("host", "")
        if self._loopback_only and not is_loopback_host(host):
            raise HostNotAllowed("This service answers to localhost only", hint=REMEDY)
        if self._hosts is not None and not self._hosts.allow(host):
            raise HostNotAllowed(
                "This service does not answer to that host name",
                hint="Whoever runs it can add the name to its allowed hosts.",
            )
        if not scope:
            return Verdict(NOBODY, calling.FOR_EVER)
        if not self.guarded:
            return Verdict(self._unknown(host, scope), calling.FOR_EVER)
        found = self._recognise(headers, now)
        if scope not in found.caller.scopes:
            raise Forbidden(
                f"This key does not open what needs the scope {scope}",
                hint=f"It opens {', '.join(sorted(found.caller.scopes)) or 'nothing'}. Ask for one that opens {scope}.",
            )
        return found

    def _unknown(self, host: str, scope: str) -> Caller:
        """Say what is open where nobody is asked for a key: all but what an operator alone should see."""
        here = self._loopback_only or (self.auth == "none" and self._listens_here and is_loopback_host(host))
        if scope == "metrics" and not here:
            raise Forbidden(
                "The metrics are not for everybody",
                hint="They are on the metrics port of the machine itself: see --metrics-port.",
            )
        return EVERYBODY

    def _recognise(self, headers: Mapping[str, str], now: float) -> Verdict:
        given, scheme = given_key(headers)
        if not given:
            raise Unauthorized(
                "This service needs a key", hint="Send it as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'."
            )
        digest = calling.digest_of(given)  # the time a look-up takes tells of the digest, and so nothing of the key
        key = self._known.get(digest)
        if key is not None and hmac.compare_digest(key.digest, digest):
            if not key.revoked and now < key.until:
                return Verdict(Caller(key.name, key.scopes), key.until)
            state = "was revoked" if key.revoked else "has ended"
            raise Unauthorized(f"This key {state}", hint="Ask whoever runs this service for a new key.")
        if self._bearer is not None and scheme == "bearer" and given.count(".") == 2:
            return self._bearer.verdict(given)
        raise Unauthorized("The key is not known here", hint="Ask whoever runs this service for a key.")

    # ---- keys that change --------------------------------------------------------------------------

    def _look(self, now: float) -> None:
        """See whether files of keys or the keys of an issuer have changed."""
        if not self._looking.acquire(blocking=False):
            return  # another thread does
        try:
            self._looked, self._look_again = now, now + LOOK_EVERY
            changed = [each for each in self._files if _changed(each, now)]
            generation = self._bearer.generation() if self._bearer else 0
            if changed or generation != self._generation:
                self._generation = generation
                self._know()
        finally:
            self._looking.release()

    def _know(self) -> None:
        self._known = calling.by_digest([*self._given, *(key for file in self._files for key in file.keys)])
        self._seen = {}  # after the keys, see check


def _changed(file: _Watched, now: float) -> bool:
    marks = _marks(file.path, now)
    if marks == file.marks:
        return False
    file.marks = marks
    try:
        found = calling.read(file.path)
    except KetchError as error:
        logger.error("%s; the keys read before stay good", error)
        return False
    changed, file.keys = found != file.keys, found
    return changed


def _marks(path: Path, now: float) -> object:
    """Give what changes with a file; while it is young, this differs at every look, since a clock has ticks."""
    try:
        found = path.stat()
    except OSError:
        return None
    young = now if abs(now - found.st_mtime) < 2 * LOOK_EVERY else 0.0
    return found.st_mtime_ns, found.st_size, found.st_ino, young


def given_key(headers: Mapping[str, str]) -> tuple[str, str]:
    """Give the key or token that came along, and in which way; two empty words where none did."""
    if key := headers.get("x-api-key", "").strip():
        return key, "x-api-key"
    scheme, _, value = headers.get("authorization", "").partition(" ")
    scheme = scheme.lower()
    if scheme == "bearer":
        return value.strip(), scheme
    if scheme == "basic":
        try:
            return base64.b64decode(value.strip(), validate=True).decode("utf-8", "replace").partition(":")[2], scheme
        except (binascii.Error, ValueError):
            return "", ""
    return "", ""


# ---- hosts -----------------------------------------------------------------------------------------


class Hosts:
    """The names that a service answers to: exact ones, `*.example.com`, and networks such as 10.0.0.0/8.

    A platform's probe calls a container by its address, which is not known before: its network is.
    """

    def __init__(self, allowed: Sequence[str]) -> None:
        self._exact: set[str] = set()
        self._ends: tuple[str, ...] = ()
        self._networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
        for given in allowed:
            word = given.strip().lower().rstrip(".")
            try:
                self._networks.append(ipaddress.ip_network(word.strip("[]"), strict=False))
                continue
            except ValueError:
                pass
            if not NAME.fullmatch(word):
                raise SettingError(
                    f"{given[:80]!r} is no host name",
                    hint="Give names without port: example.com, *.example.com, 10.0.0.0/8.",
                )
            if word.startswith("*."):
                self._ends += (word[1:],)
            else:
                self._exact.add(word)

    def allow(self, host: str) -> bool:
        """Say whether a Host header is on the list."""
        found = HOST.fullmatch(host.strip().lower())
        if found is None:
            return False
        name = found[1] or found[2]
        if name in self._exact or (name.endswith(self._ends) and not name.startswith(".")):
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return any(address in network for network in self._networks)


def is_loopback_host(host: str) -> bool:
    """Say whether a Host header names this machine alone."""
    found = HOST.fullmatch(host.strip().lower())
    return found is not None and is_loopback_address(found[1] or found[2])


def is_loopback_address(host: str) -> bool:
    """Say whether an address to listen on is reachable from this machine alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


# ---- from settings ---------------------------------------------------------------------------------


def files_of(settings: Settings) -> tuple[Path, ...]:
    """Name the files of keys that a service watches: the one set, and what `ketch keys new` wrote for this user."""
    own = settings.home / calling.FILE
    given = (Path(settings.api_keys_file).expanduser(),) if settings.api_keys_file else ()
    return (*given, own) if own.exists() and own not in given else given


def guard_at(host: str, keys: Sequence[str], *, auth: str = "keys", **more: Any) -> Guard:
    """Make the guard for a server that listens at an address; `more` is what `Guard` takes.

    Raises:
        SettingError: the address is reachable by others, and nothing says who may come in.
    """
    here = is_loopback_address(host)
    guard = Guard(keys, auth=auth, listens_here=here, **more)
    if auth == "keys" and not guard.guarded and not here:
        raise SettingError(f"{host} is reachable by others and no key is set", hint=REMEDY)
    return guard
