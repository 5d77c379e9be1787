"""Who gets in: hosts, keys, and what each route asks for."""

import base64
import binascii
import hashlib
import hmac
import ipaddress
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from ketch.errors import HostNotAllowed, SettingError, Unauthorized
from ketch.settings import Settings

SHORTEST_KEY: Final = 16
KEY: Final = re.compile(r"[!-~]+")  # what goes through every header unchanged
HOST: Final = re.compile(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9.-]+?)\.?)(?::\d{1,5})?", re.ASCII)
REMEDY: Final = "Set KETCH_API_KEYS to a long random key, or give --auth none to let everybody in."


class Guard:
    """Let a request in, or say why not.

    Without keys and with `auth` left at keys, only requests to a loopback host name are answered: a page in a
    browser can be made to call 127.0.0.1 by another name, and that name stands in the Host header.
    """

    def __init__(self, keys: Sequence[str] = (), *, auth: str = "keys") -> None:
        for key in keys:
            if not KEY.fullmatch(key):
                raise SettingError(
                    "An API key has a character that does not go through a header",
                    hint="Make keys of the letters, digits and signs of ASCII, without spaces.",
                )
            if len(key) < SHORTEST_KEY:
                raise SettingError(
                    f"An API key of {len(key)} characters can be guessed",
                    hint="Make one with: python -c 'import secrets; print(secrets.token_urlsafe(32))'",
                )
        self._digests = [hashlib.sha256(key.encode()).digest() for key in keys] if auth == "keys" else []
        self.guarded = bool(self._digests)
        self._loopback_only = auth == "keys" and not keys

    def check(self, headers: Mapping[str, str], *, needs_key: bool) -> str:
        """Let the caller in and give the key's short name, empty where no key is needed.

        Raises:
            HostNotAllowed, Unauthorized: the caller stays out.
        """
        if self._loopback_only and not is_loopback_host(headers.get("host", "")):
            raise HostNotAllowed("This service answers to localhost only", hint=REMEDY)
        if not self.guarded or not needs_key:
            return ""
        return self._recognise(_given_key(headers))

    def _recognise(self, key: str) -> str:
        if not key:
            raise Unauthorized(
                "This service needs a key", hint="Send it as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'."
            )
        digest = hashlib.sha256(key.encode("utf-8", "replace")).digest()
        found = ""
        for known in self._digests:  # all of them, so that the time tells nothing
            if hmac.compare_digest(known, digest):
                found = known.hex()[:8]
        if not found:
            raise Unauthorized("The key is not known here", hint="Ask whoever runs this service for a key.")
        return found


def _given_key(headers: Mapping[str, str]) -> str:
    if key := headers.get("x-api-key", ""):
        return key.strip()
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value.strip(), validate=True).decode("utf-8", "replace").partition(":")[2]
        except (binascii.Error, ValueError):
            return ""
    return ""


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


def keys_of(settings: Settings) -> tuple[str, ...]:
    """Give the keys named by the settings.

    Raises:
        SettingError: the file of keys cannot be read.
    """
    if not settings.api_keys_file:
        return settings.api_keys
    try:
        lines = Path(settings.api_keys_file).read_text("utf-8").split()
    except (OSError, UnicodeDecodeError):
        raise SettingError(
            f"The file of keys {settings.api_keys_file} cannot be read", hint="Give a text file, one key on a line."
        ) from None
    if not lines and not settings.api_keys:
        raise SettingError(f"The file {settings.api_keys_file} holds no key", hint="Put one key on each line.")
    return (*settings.api_keys, *lines)


def guard_at(host: str, keys: Sequence[str], *, auth: str = "keys") -> Guard:
    """Make the guard for a server that listens at an address.

    Raises:
        SettingError: the address is reachable by others, and nothing says who may come in.
    """
    if auth == "keys" and not keys and not is_loopback_address(host):
        raise SettingError(f"{host} is reachable by others and no key is set", hint=REMEDY)
    return Guard(keys, auth=auth)
