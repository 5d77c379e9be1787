"""Keys: this user's own pairs, and the public keys whose signatures count here."""

import os
import stat
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Final

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ketch.errors import InputError, SettingError, UsageError
from ketch.schema import NAME
from ketch.trust import Key, changing, sibling, write_record

KEYRING: Final = "keyring.json"
PRIVATE: Final = ".pem"
PUBLIC: Final = ".pub.pem"
NEW: Final = "Make a pair with: ketch keys new --for signing"


def read(home: Path) -> dict[str, Key]:
    """Give the public keys that this user knows, by fingerprint.

    Raises:
        SettingError: the record is damaged.
    """
    path = home / KEYRING
    try:
        found = msgspec.json.decode(path.read_bytes(), type=list[Key])
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        found = None
    if found is None or any(sibling("signing").fingerprint(key.pem) != key.fingerprint for key in found):
        raise SettingError(
            f"{path} cannot be read", hint="Restore it from a copy, or delete it and trust each key anew"
        )
    return {key.fingerprint: key for key in found}


def new(home: Path, name: str, *, passphrase: str, when: str) -> Key:
    """Make a pair of keys; the public one is trusted here, the private one readable by this user only.

    Raises:
        UsageError: the name is not usable or taken.
    """
    _require_free(read(home), name)
    private = ec.generate_private_key(ec.SECP256R1())
    lock: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase:
        lock = serialization.BestAvailableEncryption(passphrase.encode())
    data = private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, lock)
    pem = sibling("signing").pem_of(private.public_key())
    folder = home / "keys"
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    with changing(home):
        known = read(home)
        _require_free(known, name)
        _create(folder / f"{name}{PRIVATE}", data, 0o600)
        _create(folder / f"{name}{PUBLIC}", pem.encode(), 0o644)
        return _keep(home, known, Key(sibling("signing").fingerprint(pem), name, pem, when))


def trust_key(home: Path, pem: bytes, name: str, *, source: str, when: str) -> Key:
    """Let the signatures of a public key count here; `source` is what messages call the file it came from.

    Raises:
        InputError: it is no P-256 public key.
        UsageError: the name is not usable or taken, or the key was revoked here.
    """
    signing = sibling("signing")
    written = signing.pem_of(signing.public_key(pem, source))
    with changing(home):
        known = read(home)
        before = known.get(mark := signing.fingerprint(written))
        if before and before.revoked:
            raise UsageError(
                f"The key {before.name} was revoked here on {before.revoked[:10]}",
                hint=f"Ask for a new key. If revoking was a mistake, take its entry out of {home / KEYRING}.",
            )
        if before:
            return before
        _require_free(known, name)
        return _keep(home, known, Key(mark, name, written, when))


def revoke(home: Path, which: str, *, when: str) -> Key:
    """Let no signature of a key count here any more, whenever it was made; again, nothing changes.

    Raises:
        UsageError: there is no such key.
    """
    with changing(home):
        known = read(home)
        key = find(known, which)
        return key if key.revoked else _keep(home, known, Key(key.fingerprint, key.name, key.pem, key.since, when))


def find(known: dict[str, Key], which: str) -> Key:
    """Find a key by its name, or by its fingerprint or the first 8 or more letters of it.

    Raises:
        UsageError: there is none, or several.
    """
    found = [key for key in known.values() if key.name == which]
    if not found and len(which) >= 8:
        found = [key for key in known.values() if key.fingerprint.startswith(which.lower())]
    if len(found) != 1:
        names = ", ".join(sorted(key.name for key in known.values()))
        raise UsageError(f"No key here is called {which[:80]!r}", hint=f"Known are: {names}." if names else NEW)
    return found[0]


def own(home: Path) -> list[str]:
    """Name the pairs of keys that this user can sign with."""
    names = (path.name.removesuffix(PRIVATE) for path in (home / "keys").glob(f"*{PRIVATE}"))
    return sorted(name for name in names if not name.endswith(".pub"))


def private_key(home: Path, name: str, *, ask: Callable[[], str]) -> ec.EllipticCurvePrivateKey:
    """Open a private key, asking for its passphrase where it has one.

    Raises:
        UsageError: there is none of that name, it is not P-256, others can read it, or the passphrase is wrong.
    """
    path = home / "keys" / f"{name}{PRIVATE}"
    if name not in (names := own(home)):
        listed = f"There are: {', '.join(names)}." if names else NEW
        raise UsageError(f"There is no private key {name[:80]!r} in {path.parent}", hint=listed)
    data = _private_bytes(path)
    try:
        passphrase = ask().encode() if b"ENCRYPTED" in data else None
        key = serialization.load_pem_private_key(data, passphrase)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise UsageError(
            f"{path} cannot be opened", hint="Check the passphrase; if it is right, the file is damaged."
        ) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise UsageError(f"The key in {path} is not on the curve P-256", hint=NEW)
    return key


def _private_bytes(path: Path) -> bytes:
    if os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise UsageError(f"Other users of this machine can read {path}", hint=f"Keep it to yourself: chmod 600 {path}")
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", hint="Check who owns it.") from None


def _require_free(known: dict[str, Key], name: str) -> None:
    if not NAME.fullmatch(name):
        raise UsageError(f"{name[:80]!r} cannot name a key", hint="Use small letters, digits, dots and dashes.")
    if any(key.name == name for key in known.values()):
        raise UsageError(f"There is a key {name} already", hint="Give another name; ketch keys list shows all.")


def _create(path: Path, data: bytes, mode: int) -> None:
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        raise UsageError(f"There is a file {path} already", hint="Give another name, or move it away.") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}", hint="Check who owns the folder.") from None
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _keep(home: Path, known: dict[str, Key], key: Key) -> Key:
    write_record(home / KEYRING, [asdict(each) for each in {**known, key.fingerprint: key}.values()])
    return key
