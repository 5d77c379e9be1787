"""`ketch keys`: the pairs you sign with, whose signatures count here, and the keys of a service."""

import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from ketch import trust
from ketch.cli import note, options, settle
from ketch.pack import read_bytes
from ketch.schema import slug
from ketch.trust import keyring


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@click.group("keys", no_args_is_help=False)
def keys_command() -> None:
    """Make, trust, list and revoke keys: new NAME, trust FILE, list, export NAME, revoke NAME."""


@keys_command.command("new")
@click.argument("name", default="signing")
@click.option(
    "--for",
    "purpose",
    type=click.Choice(["signing", "calling"]),
    required=True,
    help="signing: a pair that signs bundles. calling: a key that opens a service.",
)
@click.option("--passphrase", is_flag=True, help="Ask for a passphrase that locks the private key.")
@options("home")
def new_command(name: str, purpose: str, passphrase: bool, **flags: Any) -> None:
    """Make a key. Of a pair for signing, the public key is trusted here; NAME is `signing` unless you say otherwise."""
    if purpose == "calling":
        click.echo(secrets.token_urlsafe(32))
        note("shown once and kept nowhere: put it into KETCH_API_KEYS of the service and KETCH_API_KEY of the caller")
        return
    home = settle(flags).home
    key = keyring.new(home, name, passphrase=_asked() if passphrase else "", when=_now())
    folder = home / "keys"
    click.echo(f"{key.name}  {key.fingerprint}")
    note(f"{folder / (name + keyring.PRIVATE)} signs: keep it to yourself")
    note(f"{folder / (name + keyring.PUBLIC)} verifies: give it, and the number above, to whoever opens your bundles")


def _asked() -> str:
    return str(click.prompt("New passphrase", hide_input=True, confirmation_prompt=True, err=True))


@keys_command.command("trust")
@click.argument("path", metavar="FILE")
@click.option("--name", default="", help="What to call it here.  [the name of the file]")
@options("home")
def trust_command(path: str, name: str, **flags: Any) -> None:
    """Let the signatures of a public key count here. Compare its fingerprint with what its owner tells you."""
    data = read_bytes(Path(path))
    short = name or slug(Path(path).name.partition(".")[0])
    key = keyring.trust_key(settle(flags).home, data, short, source=path, when=_now())
    click.echo(f"{key.name}  {key.fingerprint}")


@keys_command.command("list")
@options("home")
def list_command(**flags: Any) -> None:
    """List the keys whose signatures count here, and those revoked."""
    home = settle(flags).home
    own, known = keyring.own(home), trust.keys(home)
    if not known:
        click.echo(f"There are no keys here. {keyring.NEW}", err=True)
    for key in sorted(known.values(), key=lambda each: each.name):
        state = f"revoked {key.revoked[:10]}" if key.revoked else "yours" if key.name in own else "trusted"
        click.echo(f"{key.name:<16} {key.fingerprint}  {key.since[:10]}  {state}")


@keys_command.command("export")
@click.argument("name")
@options("home")
def export_command(name: str, **flags: Any) -> None:
    """Print a public key as PEM, for others to trust. NAME may also be a fingerprint."""
    click.echo(keyring.find(trust.keys(settle(flags).home), name).pem, nl=False)


@keys_command.command("revoke")
@click.argument("name")
@options("home")
def revoke_command(name: str, **flags: Any) -> None:
    """Let no signature of a key count here any more, whenever it was made. NAME may also be a fingerprint."""
    home = settle(flags).home
    key = keyring.revoke(home, name, when=_now())
    click.echo(f"{key.name}  {key.fingerprint}  revoked {key.revoked[:10]}")
