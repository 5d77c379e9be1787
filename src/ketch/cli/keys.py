"""`ketch keys`: the pairs you sign with, whose signatures count here, and the keys of a service."""

import secrets
import time
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from ketch import trust
from ketch.cli import note, options, settle
from ketch.cli.terminal import document, json_option, table, tell
from ketch.errors import UsageError
from ketch.pack import read_bytes
from ketch.schema import slug
from ketch.trust import Key, calling, keyring

file_option = click.option("--file", metavar="FILE", help="File of calling keys.  [calling.keys in KETCH_HOME]")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@click.group("keys", no_args_is_help=False)
def keys_command() -> None:
    """Make, trust, list and revoke keys: new NAME, trust FILE, list, export NAME, revoke NAME."""


@keys_command.command("new")
@click.argument("name", default="")
@click.option(
    "--for",
    "purpose",
    type=click.Choice(["signing", "calling"]),
    required=True,
    help="signing: a pair that signs bundles. calling: a key that opens a service.",
)
@click.option("--passphrase", is_flag=True, help="signing: ask for a passphrase that locks the private key.")
@click.option("--scope", default="", help=f"calling: what it opens, of {', '.join(calling.SCOPES)}.  [all but metrics]")
@click.option("--expires", default="", metavar="90d|DATE", help="calling: when it ends.  [never]")
@file_option
@json_option
@options("home")
def new_command(name: str, purpose: str, passphrase: bool, **flags: Any) -> None:
    """Make a key. Of a pair for signing, the public key is trusted here. A key for calling is shown once.

    NAME is `signing` for a pair unless you say otherwise; a key for calling without a NAME is kept nowhere.
    """
    if purpose == "calling":
        _new_calling(name, **flags)
        return
    home, name = settle(flags).home, name or "signing"
    key = keyring.new(home, name, passphrase=_asked() if passphrase else "", when=_now())
    folder = home / "keys"
    tell(_pair(key), f"{key.name}  {key.fingerprint}")
    note(f"{folder / (name + keyring.PRIVATE)} signs: keep it to yourself")
    note(f"{folder / (name + keyring.PUBLIC)} verifies: give it, and the number above, to whoever opens your bundles")


def _new_calling(name: str, *, scope: str, expires: str, file: str | None, **flags: Any) -> None:
    if not name and (scope or expires or file):
        raise UsageError("A key with a scope or an end needs a name", hint="Say: ketch keys new NAME --for calling …")
    if not name:
        key = secrets.token_urlsafe(32)
        tell({"key": key}, key)
        note("shown once and kept nowhere: put it into KETCH_API_KEYS of the service and KETCH_API_KEY of the caller")
        return
    path = _calling_file(file, flags)
    until = calling.end_of(expires, now=datetime.now(UTC))
    scopes = calling.scopes_of(scope)
    key = calling.new(path, name, scopes=scopes, until=until, when=_now())
    tell({"name": name, "key": key, "scopes": _named(scopes), "file": str(path)}, key)
    note(f"shown once: give it to the caller, as KETCH_API_KEY; {path} knows it by its SHA-256 only")


def _calling_file(file: str | None, flags: dict[str, Any]) -> Path:
    return Path(file) if file else settle(flags).home / calling.FILE


def _asked() -> str:
    return str(click.prompt("New passphrase", hide_input=True, confirmation_prompt=True, err=True))


@keys_command.command("trust")
@click.argument("path", metavar="FILE")
@click.option("--name", default="", help="What to call it here.  [the name of the file]")
@json_option
@options("home")
def trust_command(path: str, name: str, **flags: Any) -> None:
    """Let the signatures of a public key count here. Compare its fingerprint with what its owner tells you."""
    data = read_bytes(Path(path))
    short = name or slug(Path(path).name.partition(".")[0])
    key = keyring.trust_key(settle(flags).home, data, short, source=path, when=_now())
    tell(_pair(key), f"{key.name}  {key.fingerprint}")


@keys_command.command("list")
@file_option
@json_option
@options("home")
def list_command(file: str | None, **flags: Any) -> None:
    """List the keys whose signatures count here, and those that open a service; the revoked ones, too."""
    path, home = _calling_file(file, dict(flags)), settle(flags).home
    own, known, callers = keyring.own(home), trust.keys(home), calling.known(path)
    if not known and not callers:
        click.echo(f"There are no keys here. {keyring.NEW}", err=True)
    named = sorted(known.values(), key=lambda each: each.name)
    pairs = [{**_pair(key), "state": _standing(key, own)} for key in named]
    calls = [{**_caller(key), "state": _state(key)} for key in callers]
    rows = [(each["name"], each["fingerprint"], each["since"][:10], each["state"]) for each in pairs]
    rows += [(each["name"], f"calls {','.join(each['scopes'])}", each["since"][:10], each["state"]) for each in calls]
    table([*pairs, *calls], ("name", "key", "since", "state"), rows)


def _pair(key: Key) -> dict[str, Any]:
    found = {"name": key.name, "for": "signing", "fingerprint": key.fingerprint, "since": key.since}
    return found | ({"revoked": key.revoked} if key.revoked else {})


def _caller(key: calling.CallingKey) -> dict[str, Any]:
    found = {"name": key.name, "for": "calling", "scopes": _named(key.scopes), "since": key.since}
    return found | {name: value for name, value in (("expires", key.expires), ("revoked", key.revoked)) if value}


def _named(scopes: Collection[str]) -> list[str]:
    return [each for each in calling.SCOPES if each in scopes]


def _standing(key: Key, own: Collection[str]) -> str:
    if key.revoked:
        return f"revoked {key.revoked[:10]}"
    return "yours" if key.name in own else "trusted"


def _state(key: calling.CallingKey) -> str:
    if key.revoked:
        return f"revoked {key.revoked[:10]}"
    if key.until <= time.time():
        return f"ended {key.expires[:10]}"
    return f"until {key.expires[:16]}" if key.expires else "good"


@keys_command.command("export")
@click.argument("name")
@json_option
@options("home")
def export_command(name: str, **flags: Any) -> None:
    """Print a public key as PEM, for others to trust. NAME may also be a fingerprint."""
    key = keyring.find(trust.keys(settle(flags).home), name)
    document({**_pair(key), "pem": key.pem}, key.pem)


@keys_command.command("revoke")
@click.argument("name")
@click.option(
    "--for", "purpose", type=click.Choice(["signing", "calling"]), help="Which one, where both have the name."
)
@file_option
@json_option
@options("home")
def revoke_command(name: str, purpose: str | None, file: str | None, **flags: Any) -> None:
    """Let a key count no more: no signature of it, whenever made; no call with it. NAME may also be a fingerprint."""
    path, home = _calling_file(file, dict(flags)), settle(flags).home
    calls = any(key.name == name for key in calling.known(path))
    signs = any(key.name == name for key in trust.keys(home).values())
    if calls and signs and not purpose and not file:
        raise UsageError(f"Two keys are called {name}", hint="Say which: --for signing or --for calling.")
    if purpose == "calling" or file or (calls and purpose != "signing"):
        revoked = calling.revoke(path, name, when=_now())
        tell(_caller(revoked), f"{revoked.name}  revoked {revoked.revoked[:10]}")
        note("a running service shuts it out within two seconds")
        return
    key = keyring.revoke(home, name, when=_now())
    tell(_pair(key), f"{key.name}  {key.fingerprint}  revoked {key.revoked[:10]}")
