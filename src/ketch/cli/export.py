"""`ketch export`: MODEL → a plain project with no Ketch in it."""

import functools
import os
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from ketch import lock
from ketch.bundle import Bundle
from ketch.cli import note, options, settle, settle_trust, trust_option
from ketch.cli.completion import bundles_and_references
from ketch.cli.terminal import busy, json_option, tell, wants_json
from ketch.export import Project, project
from ketch.predict import fetch, fetch_bundle, signer_of
from ketch.settings import Settings
from ketch.steps.files import require_empty, write

NAMES: Final = {"flask": "Flask", "fastapi": "FastAPI"}


@click.command("export")
@click.argument("model", shell_complete=bundles_and_references)
@click.option("-o", "--output", metavar="FOLDER", required=True, help="Where it goes: empty, or not there yet.")
@click.option("--flask", "service", flag_value="flask", help="With Flask and gunicorn, which is the default.")
@click.option("--fastapi", "service", flag_value="fastapi", help="With FastAPI and uvicorn.")
@click.option("--lock/--no-lock", "locked", default=True, help="Lock what it installs, by uv and the index.  [--lock]")
@trust_option
@json_option
@options("require_signature", "home")
def export_command(
    model: str, *, output: str, service: str | None, locked: bool, trust: str | None, **flags: Any
) -> None:
    """Write a project of your own that answers with MODEL (a bundle, or a store reference) and needs no Ketch."""
    settings = settle(flags)
    settle_trust([model], trust, settings.home)
    folder, service = Path(output), service or "flask"
    require_empty(folder)
    freeze = functools.partial(lock.freeze, environ=os.environ) if locked else None
    with busy("Opening the model, and locking what it needs"):
        made = project(_opened(model, settings), home=settings.home, service=service, freeze=freeze)
    write(made.files, folder)
    _tell(made, folder, service)


def _opened(model: str, settings: Settings) -> Bundle:
    fetched = fetch(model, settings.home)
    signer = signer_of(model, fetched, home=settings.home, required=settings.require_signature)
    return msgspec.structs.replace(fetch_bundle(model, home=settings.home, fetched=fetched), signed_by=signer)


def _tell(made: Project, folder: Path, service: str) -> None:
    text = (
        f"{made.name}: {len(made.files)} files in {folder}, a {NAMES[service]} service; README.md there says the rest"
    )
    files, notes = list(made.files), list(made.notes)
    tell({"name": made.name, "folder": str(folder), "service": service, "files": files, "notes": notes}, text)
    for told in [] if wants_json() else notes:
        note(told)
