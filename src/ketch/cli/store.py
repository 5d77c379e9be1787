"""`ketch push, pull, list, promote, rollback`: bundles ↔ the store."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import msgspec

from ketch import bundle, trust
from ketch.cli import options, settle
from ketch.errors import InputError
from ketch.pack import read_bytes
from ketch.store import CHAMPION, Store, Version


def _store(flags: dict[str, Any]) -> Store:
    return Store(settle(flags).home / "store")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@click.command("push")
@click.argument("path", metavar="BUNDLE")
@click.option("--name", default="", help="Name in the store.  [the bundle's own]")
@options("home")
def push_command(path: str, name: str, **flags: Any) -> None:
    """Put BUNDLE into the store as a new version, with the signature that lies beside it."""
    data = read_bytes(Path(path))
    if not bundle.looks_like_bundle(data):
        raise InputError(f"{path} is not a bundle", hint=f"Make one from it with: ketch pack {path}")
    home, now, signature = settle(flags).home, _now(), trust.signature_beside(Path(path))
    trust.check_signature(data, signature, known=trust.keys(home), name=Path(path).name)
    opened = bundle.read(data, path)
    version = Store(home / "store").push(data, name or opened.manifest.name, when=now, signature=signature)
    known = "" if version.pushed_at == now else "  (was there already)"
    click.echo(f"{version.ref}  sha256={version.sha256}{known}")


@click.command("pull")
@click.argument("reference", metavar="MODEL")
@click.option("-o", "--output", help="Where to write it.  [NAME-VERSION.ketch]")
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
    click.echo(f"{path}  {version.ref}")


@click.command("list")
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@options("home")
def list_command(name: str | None, as_json: bool, **flags: Any) -> None:
    """List the versions in the store, of NAME or of all models."""
    versions = _store(flags).list(name)
    if as_json:
        click.echo(msgspec.json.encode(versions))
        return
    if not versions:
        click.echo("The store is empty; fill it with: ketch push BUNDLE", err=True)
    for each in versions:
        aliases = " ".join(f"@{alias}" for alias in each.aliases)
        click.echo(f"{each.ref:<24} {each.pushed_at}  {each.sha256[:12]}  {each.size:>9,} B  {aliases}".rstrip())


@click.command("promote")
@click.argument("reference", metavar="MODEL")
@click.option("--alias", default=CHAMPION, show_default=True, help="The alias to point at it.")
@options("home")
def promote_command(reference: str, alias: str, **flags: Any) -> None:
    """Point an alias at MODEL, such as churn:3."""
    _tell(_store(flags).promote(reference, alias, when=_now()), alias)


@click.command("rollback")
@click.argument("name")
@click.option("--alias", default=CHAMPION, show_default=True, help="The alias to point back.")
@options("home")
def rollback_command(name: str, alias: str, **flags: Any) -> None:
    """Point an alias of NAME back at what it was before."""
    _tell(_store(flags).rollback(name, alias, when=_now()), alias)


def _tell(version: Version, alias: str) -> None:
    click.echo(f"{version.name}@{alias} is {version.ref}")
