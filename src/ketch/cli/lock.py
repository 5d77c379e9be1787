"""`ketch lock`: bundle → its environment, frozen, in the bundle and on disk."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from ketch import bundle, lock, trust
from ketch.bundle import Bundle
from ketch.cli import note, options, settle
from ketch.cli.completion import bundles
from ketch.cli.terminal import busy, json_option, tell
from ketch.errors import InputError, LockError
from ketch.pack import read_bytes

EXTRAS = ("arrow", "postgres")


@click.command("lock")
@click.argument("path", metavar="BUNDLE", shell_complete=bundles)
@click.option("-o", "--output", metavar="FOLDER", help="Where the lock files go.  [NAME-env beside the bundle]")
@click.option("--extra", "wanted", type=click.Choice(EXTRAS), multiple=True, help="Lock what this extra brings, too.")
@json_option
@options("home")
def lock_command(path: str, output: str | None, wanted: tuple[str, ...], **flags: Any) -> None:
    """Resolve the environment of BUNDLE for Linux, and write it into the bundle and to FOLDER.

    The files: requirements.txt with hashes, pyproject.toml with uv.lock, Pipfile with Pipfile.lock.
    """
    settle(flags)
    place = Path(path)
    opened = _opened(place)
    manifest = opened.manifest
    folder = _usable(Path(output) if output else place.with_name(f"{manifest.name}-env"))
    needed = lock.environment(manifest.versions, serves=manifest.serves, members=opened.files, wanted=wanted)
    with busy("resolving the environment"):
        files = lock.freeze(needed, manifest.name, os.environ)
    data = bundle.replaced(opened, {lock.FOLDER + name: content for name, content in files.items()})
    for name, content in files.items():
        bundle.save(content, folder / name)
    bundle.save(data, place)
    _tell(path, data, folder, files, needed.python)
    if bundle.identity(data) != opened.sha256 and trust.signature_beside(place) is not None:
        note(f"{path} is another bundle now: its signature was made for the one before, sign it again")


def _tell(path: str, data: bytes, folder: Path, files: Mapping[str, bytes], python: str) -> None:
    count = files["uv.lock"].count(b"\n[[package]]\n") - 1  # one of them is the environment itself
    record: dict[str, object] = {"bundle": path, "sha256": bundle.identity(data), "packages": count, "python": python}
    record |= {"folder": str(folder), "files": sorted(files)}
    tell(record, f"{path}: {count} packages for Python {python} on Linux x86_64 and aarch64; files in {folder}")


def _opened(path: Path) -> Bundle:
    data = read_bytes(path)
    if not bundle.looks_like_bundle(data):
        raise InputError(f"{path} is not a bundle", hint=f"Make one from it with: ketch pack {path}")
    return bundle.read(data, path.name)


def _usable(folder: Path) -> Path:
    """Make the folder, if there is nothing in it that somebody else wrote."""
    for name in ("Pipfile", "pyproject.toml", "requirements.txt"):
        path = folder / name
        if path.is_file() and not path.read_bytes().startswith(lock.MARK.encode()):
            raise LockError(f"{path} was not written by Ketch", hint="Choose another folder with -o FOLDER.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LockError(f"{folder} cannot be made: {error.strerror}", hint="Choose another with -o FOLDER.") from None
    return folder
