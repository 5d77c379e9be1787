"""`ketch sign, verify`: bundle → its signature, and who made that."""

import os
import sys
from pathlib import Path
from typing import Any

import click

from ketch import bundle, trust
from ketch.cli import options, settle
from ketch.cli.completion import bundles, bundles_and_references
from ketch.cli.terminal import json_option, tell
from ketch.errors import InputError, UsageError
from ketch.pack import read_bytes
from ketch.predict import fetch, signature_of
from ketch.trust import Key, keyring, signing


@click.command("sign")
@click.argument("path", metavar="BUNDLE", shell_complete=bundles)
@click.option("--key", default="", help="Which of your keys signs.  [the only one]")
@json_option
@options("home")
def sign_command(path: str, key: str, **flags: Any) -> None:
    """Write the signature of BUNDLE beside it, as BUNDLE.sig; OpenSSF model_signing can verify it, too."""
    home = settle(flags).home
    data = read_bytes(Path(path))
    if not bundle.looks_like_bundle(data):
        raise InputError(f"{path} is not a bundle", hint=f"Make one from it with: ketch pack {path}")
    opened = bundle.read(data, path)
    name = key or _only(keyring.own(home))
    private = keyring.private_key(home, name, ask=_passphrase)
    mark = signing.fingerprint(signing.pem_of(private.public_key()))
    _require_unrevoked(trust.keys(home).get(mark))
    beside = Path(path + trust.SIGNATURE)
    bundle.save(signing.sign(opened.sha256, Path(path).name, private), beside)
    record = {"signature": str(beside), "key": name, "fingerprint": mark, "sha256": opened.sha256}
    tell(record, f"{beside}: signed with {name} ({mark})")


def _only(names: list[str]) -> str:
    if not names:
        raise UsageError("You have no key to sign with", hint=keyring.NEW)
    if len(names) > 1:
        raise UsageError("You have several keys", hint=f"Choose one with --key: {', '.join(names)}.")
    return names[0]


def _require_unrevoked(key: Key | None) -> None:
    if key and key.revoked:
        raise UsageError(f"The key {key.name} was revoked here on {key.revoked[:10]}", hint=keyring.NEW)


def _passphrase() -> str:
    if given := os.environ.get("KETCH_KEY_PASSPHRASE"):
        return given
    if not sys.stdin.isatty():
        raise UsageError("The key has a passphrase", hint="Set KETCH_KEY_PASSPHRASE, or sign at a terminal.")
    return str(click.prompt("Passphrase of the key", hide_input=True, err=True))


@click.command("verify")
@click.argument("model", metavar="BUNDLE", shell_complete=bundles_and_references)
@click.option("--key", "public", metavar="FILE", help="The public key that must have signed.  [any that you trust]")
@json_option
@options("home")
def verify_command(model: str, public: str | None, **flags: Any) -> None:
    """Say who signed BUNDLE (a file, or a store reference); exits with 1 when that is nobody you trust."""
    home = settle(flags).home
    data, name, reference = fetch(model, home)
    signature = signature_of(model, reference, home)
    known = trust.keys(home)
    if public:
        known = _the_only(public, known)
    signer = known[trust.check_signature(data, signature, known=known, name=name, required=True)]
    opened = bundle.read(data, name)
    record = {"bundle": name, "signer": signer.name, "fingerprint": signer.fingerprint, "sha256": opened.sha256}
    tell(record, f"{name} is signed by {signer.name}: key {signer.fingerprint}, sha256={opened.sha256}")


def _the_only(path: str, known: dict[str, Key]) -> dict[str, Key]:
    """Give the key of a file as the only known one; one that was revoked here stays revoked."""
    pem = signing.pem_of(signing.public_key(read_bytes(Path(path)), path))
    mark = signing.fingerprint(pem)
    return {mark: known.get(mark, Key(mark, Path(path).name, pem, ""))}
