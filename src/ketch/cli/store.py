"""`ketch push, pull, list, promote, rollback`: bundles ↔ the store."""

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from ketch import bundle, trust
from ketch.cli import options, settle
from ketch.cli.completion import bundles, names, references
from ketch.cli.terminal import json_option, table, tell
from ketch.errors import InputError
from ketch.pack import read_bytes
from ketch.store import CHAMPION, Store, Version


def _store(flags: dict[str, Any]) -> Store:
    return Store(settle(flags).home / "store")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@click.command("push")
@click.argument("path", metavar="BUNDLE", shell_complete=bundles)
@click.option("--name", default="", help="Name in the store.  [the bundle's own]")
@json_option
@options("home")
def push_command(path: str, name: str, **flags: Any) -> None:
    """Put BUNDLE into the store as a new version, with the signature that lies beside it."""
    data = read_bytes(Path(path))
    if not bundle.looks_like_bundle(data):
        raise InputError(f"{path} is not a bundle", hint=f"Make one from it with: ketch pack {path}")
    home, signature = settle(flags).home, trust.signature_beside(Path(path))
    trust.check_signature(data, signature, known=trust.keys(home), name=Path(path).name)
    opened = bundle.read(data, path)
    store, name = Store(home / "store"), name or opened.manifest.name
    new = opened.sha256 not in {each.sha256 for each in store.list(name)}
    version = store.push(data, name, when=_now(), signature=signature)
    known = "" if new else "  (was there already)"
    tell({**_record(version), "new": new}, f"{version.ref}  sha256={version.sha256}{known}")


@click.command("pull")
@click.argument("reference", metavar="MODEL", shell_complete=references)
@click.option("-o", "--output", help="Where to write it.  [NAME-VERSION.ketch]")
@json_option
@options("home")
def pull_command(reference: str, output: str | None, **flags: Any) -> None:
    """Get MODEL, such as churn:3 or churn@champion, out of the store, with its signature."""
    store = _store(flags)
    version = store.resolve(reference)
    path = Path(output or f"{version.name}-{version.number}{bundle.SUFFIX}")
    signature, beside = store.signature(version.ref), path.with_name(path.name + trust.SIGNATURE)
    bundle.save(store.pull(version.ref), path)
    if signature is None:
        beside.unlink(missing_ok=True)  # of the file that stood here before
    else:
        bundle.save(signature, beside)
    tell({**_record(version), "path": str(path), "signed": signature is not None}, f"{path}  {version.ref}")


@click.command("list")
@click.argument("name", required=False, shell_complete=names)
@json_option
@options("home")
def list_command(name: str | None, **flags: Any) -> None:
    """List the versions in the store, of NAME or of all models."""
    versions = _store(flags).list(name)
    if not versions:
        click.echo("The store is empty; fill it with: ketch push BUNDLE", err=True)
    rows = [
        (each.ref, each.pushed_at, each.sha256[:12], f"{each.size:,}", " ".join(f"@{alias}" for alias in each.aliases))
        for each in versions
    ]
    headings = ("version", "pushed", "sha256", "bytes", "aliases")
    table([_record(each) for each in versions], headings, rows, right={"bytes"})


@click.command("promote")
@click.argument("reference", metavar="MODEL", shell_complete=references)
@click.option("--alias", default=CHAMPION, show_default=True, help="The alias to point at it.")
@json_option
@options("home")
def promote_command(reference: str, alias: str, **flags: Any) -> None:
    """Point an alias at MODEL, such as churn:3."""
    _tell(_store(flags).promote(reference, alias, when=_now()), alias)


@click.command("rollback")
@click.argument("name", shell_complete=names)
@click.option("--alias", default=CHAMPION, show_default=True, help="The alias to point back.")
@json_option
@options("home")
def rollback_command(name: str, alias: str, **flags: Any) -> None:
    """Point an alias of NAME back at what it was before."""
    _tell(_store(flags).rollback(name, alias, when=_now()), alias)


def _tell(version: Version, alias: str) -> None:
    tell({"alias": alias, **_record(version)}, f"{version.name}@{alias} is {version.ref}")


def _record(version: Version) -> dict[str, Any]:
    return {"ref": version.ref, **asdict(version)}
