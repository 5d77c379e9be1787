"""Keys that open a service: each good for what it names, until it ends or is revoked; kept as SHA-256 alone.

A slow hash keeps people's passwords from being guessed once its record is stolen. A key made here is 256 random
bits, which nobody guesses at any speed, and it is looked up on every request.
"""

import hashlib
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from ketch.errors import SettingError, UsageError
from ketch.schema import NAME
from ketch.trust import changing, write_whole

SCOPES: Final = ("predict", "read", "explain", "feedback", "metrics")
USUAL: Final = frozenset(SCOPES) - {"metrics"}  # what a key opens unless it says otherwise
FILE: Final = "calling.keys"  # in the user's own folder
MARK: Final = "sha256:"
SHORTEST: Final = 16
KEY: Final = re.compile(r"[!-~]+")  # what goes through every header unchanged
HEX: Final = re.compile(r"[0-9a-f]{64}")
SPAN: Final = re.compile(r"(\d{1,5})([hdw])", re.ASCII)
UNITS: Final = {"h": "hours", "d": "days", "w": "weeks"}
NEW: Final = "Make one with: ketch keys new NAME --for calling"
FOR_EVER: Final = float("inf")


@dataclass(frozen=True, slots=True)
class CallingKey:
    """A key by its SHA-256; `since` and `revoked` are ISO times, `until` is a time of the epoch."""

    name: str
    digest: bytes
    scopes: frozenset[str] = USUAL
    since: str = ""
    until: float = FOR_EVER
    revoked: str = ""

    @property
    def expires(self) -> str:
        """Say when it ends, as an ISO time; empty for never."""
        return "" if self.until == FOR_EVER else datetime.fromtimestamp(self.until, UTC).isoformat(timespec="seconds")


def digest_of(key: str) -> bytes:
    """Give what a key is known by."""
    return hashlib.sha256(key.encode("utf-8", "replace")).digest()


def scopes_of(text: str) -> frozenset[str]:
    """Read scopes as people write them, separated by commas; without any, the usual ones.

    Raises:
        UsageError: there is no such scope.
    """
    named = [word for word in re.split(r"[,+\s]+", text) if word]
    for word in named:
        if word not in SCOPES:
            raise UsageError(f"There is no scope {word[:40]!r}", hint=f"Scopes are: {', '.join(SCOPES)}.")
    return frozenset(named) or USUAL


def end_of(text: str, *, now: datetime) -> float:
    """Read when a key ends: 90d from now, or with the day 2027-01-31; without a word, never.

    Raises:
        UsageError: it is no such time, or over.
    """
    if not text:
        return FOR_EVER
    try:
        if found := SPAN.fullmatch(text):
            end = now + timedelta(**{UNITS[found[2]]: int(found[1])})
        else:
            end = _moment(text)
            if len(text) == len("2027-01-31"):
                end += timedelta(days=1)
    except (ValueError, OverflowError):
        raise UsageError(
            f"{text[:40]!r} is no time for a key to end", hint="Give 90d (h, d or w), or a day such as 2027-01-31."
        ) from None
    if end <= now:
        raise UsageError(f"{text} is over already", hint="Give a time to come.")
    return int(end.timestamp())


def _moment(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def line_of(key: CallingKey) -> str:
    """Write a key as one word, fit for a line of a file and for an environment variable."""
    facts = {"name": key.name, "scope": "+".join(each for each in SCOPES if each in key.scopes), "since": key.since}
    facts |= {"expires": key.expires, "revoked": key.revoked}
    return MARK + ";".join([key.digest.hex(), *(f"{name}={value}" for name, value in facts.items() if value)])


def key_of(word: str) -> CallingKey:
    """Read a key, plain or as `line_of` writes it; messages never quote it.

    Raises:
        SettingError: it is neither.
    """
    if word.startswith(MARK):
        return _recorded(word)
    if not KEY.fullmatch(word):
        raise SettingError(
            "An API key has a character that does not go through a header",
            hint="Make keys of the letters, digits and signs of ASCII, without spaces.",
        )
    if len(word) < SHORTEST:
        raise SettingError(
            f"An API key of {len(word)} characters can be guessed",
            hint="Make one with: python -c 'import secrets; print(secrets.token_urlsafe(32))'",
        )
    digest = digest_of(word)
    return CallingKey(digest.hex()[:8], digest)


def _recorded(word: str) -> CallingKey:
    mark, *rest = word.removeprefix(MARK).split(";")
    facts = dict(each.partition("=")[::2] for each in rest)
    sound = len(facts) == len(rest) and all(facts.values())
    name = facts.pop("name", "")
    try:
        if not HEX.fullmatch(mark) or not NAME.fullmatch(name):
            raise ValueError
        scopes = scopes_of(facts.pop("scope", ""))
        end = facts.pop("expires", "")
        until = _moment(end).timestamp() if end else FOR_EVER
        key = CallingKey(name, bytes.fromhex(mark), scopes, facts.pop("since", ""), until, facts.pop("revoked", ""))
        if facts or not sound:
            raise ValueError  # what is not known here may be a limit, and a limit is not to be passed over
    except (ValueError, OverflowError, UsageError):
        raise SettingError(
            f"The record of the API key {name[:64]!r} is not in the right form",
            hint="Put its line in again as ketch keys new wrote it, or take it out and make a new key.",
        ) from None
    return key


def words_of(text: str) -> list[str]:
    """Give the keys written in a file: words, on lines that do not begin with a # of their own."""
    return [word for line in text.splitlines() if line.split()[:1] != ["#"] for word in line.split()]


def read(path: Path) -> list[CallingKey]:
    """Give the keys of a file.

    Raises:
        SettingError: it cannot be read, holds no key, or a line that is none.
    """
    try:
        words = words_of(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError):
        raise SettingError(
            f"The file of keys {path} cannot be read", hint="Give a text file, one key on a line."
        ) from None
    if not words:
        raise SettingError(f"The file {path} holds no key", hint="Put one key on each line.")
    return [key_of(word) for word in words]


def by_digest(keys: Iterable[CallingKey]) -> dict[bytes, CallingKey]:
    """Sort keys by their SHA-256; of one that stands in two places, revoking counts, else the first."""
    found: dict[bytes, CallingKey] = {}
    for key in keys:
        if key.digest not in found or (key.revoked and not found[key.digest].revoked):
            found[key.digest] = key
    return found


def new(path: Path, name: str, *, scopes: frozenset[str], until: float, when: str) -> str:
    """Make a key, add its record to a file, and give the key itself: nobody can again.

    Raises:
        UsageError: the name is not usable or taken.
        SettingError: the file cannot be read.
    """
    if not NAME.fullmatch(name):
        raise UsageError(f"{name[:80]!r} cannot name a key", hint="Use small letters, digits, dots and dashes.")
    path = path.resolve()
    with changing(path.parent):
        text = _text(path)
        if any(each.name == name for each in _named(text)):
            raise UsageError(f"There is a key {name} already", hint="Give another name; ketch keys list shows all.")
        key = secrets.token_urlsafe(32)
        line = line_of(CallingKey(name, digest_of(key), scopes, when, until))
        _write(path, f"{text}{'' if text.endswith(chr(10)) or not text else chr(10)}{line}\n")
    return key


def revoke(path: Path, name: str, *, when: str) -> CallingKey:
    """Let a key open nothing any more; again, nothing changes.

    Raises:
        UsageError: there is no such key.
        SettingError: the file cannot be read.
    """
    path = path.resolve()
    with changing(path.parent):
        text = _text(path)
        key = find(_named(text), name)
        if key.revoked:
            return key
        key = replace(key, revoked=when)
        _write(path, re.sub(MARK + key.digest.hex() + r"\S*", line_of(key), text))
    return key


def known(path: Path) -> list[CallingKey]:
    """Give the keys with a name that a file records, none where there is no file.

    Raises:
        SettingError: it cannot be read.
    """
    return _named(_text(path))


def find(keys: Sequence[CallingKey], name: str) -> CallingKey:
    """Find a key by its name.

    Raises:
        UsageError: there is none.
    """
    for key in keys:
        if key.name == name:
            return key
    names = ", ".join(sorted(key.name for key in keys))
    raise UsageError(f"No key here is called {name[:80]!r}", hint=f"Known are: {names}." if names else NEW)


def _named(text: str) -> list[CallingKey]:
    return [key_of(word) for word in words_of(text) if word.startswith(MARK)]


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError):
        raise SettingError(
            f"The file of keys {path} cannot be read", hint="Give a text file, one key on a line."
        ) from None


def _write(path: Path, text: str) -> None:
    try:
        write_whole(path, text.encode(), like=path if path.exists() else None)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}", hint="Check who owns the folder.") from None
