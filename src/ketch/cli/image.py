"""`ketch image`: MODEL → a container image, or what it is built from."""

import os
import shlex
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import msgspec

from ketch import bundle, code, image, lock
from ketch.bundle import Bundle
from ketch.cli import note, options, settle, settle_trust, trust_option
from ketch.cli.completion import bundles_and_references
from ketch.cli.terminal import busy, json_option, tell
from ketch.errors import TrustError
from ketch.image import ENGINES, MODES, PLATFORMS, Context
from ketch.pack import Options, compose
from ketch.predict import fetch, fetch_bundle, signature_of, signer_of
from ketch.settings import Settings
from ketch.steps.files import require_empty


@dataclass(frozen=True)
class Opened:
    """A bundle with its bytes, its signature, and the version that its reference names."""

    bundle: Bundle
    data: bytes
    signature: bytes
    version: str


@click.command("image")
@click.argument("model", shell_complete=bundles_and_references)
@click.option("-t", "--tag", default="", help="What the image is called.  [NAME:FIRST-12-OF-SHA256]")
@click.option("--context", "folder", default="", metavar="FOLDER", help="Write what it is built from, and stop there.")
@click.option("--mode", type=click.Choice([*MODES]), default="service", show_default=True, help="What it does.")
@click.option(
    "--platform", type=click.Choice([*PLATFORMS]), default="linux/amd64", show_default=True, help="For which machines."
)
@click.option("--base-image", "base", default="", metavar="IMAGE", help="What it rests on.  [python:3.…-slim-bookworm]")
@click.option("--with", "extras", default="", metavar="EXTRA,…", help="Extras of Ketch that go in: arrow,grpc,otel,…")
@click.option("--engine", type=click.Choice(ENGINES), help="Which engine builds it.  [the first that answers]")
@click.option("--build-network", "network", default="none", metavar="NETWORK", help="Of the build, which needs none.")
@click.option("--daemonless", is_flag=True, help="Write an archive, without any engine: docker load -i FILE.")
@click.option("--base-archive", "below", default="", metavar="FILE", help="Its base: docker save, or skopeo copy.")
@click.option("-o", "--output", default="", metavar="FILE", help="Where the archive goes.")
@trust_option
@json_option
@options("require_signature", "home")
def image_command(
    model: str,
    *,
    folder: str,
    engine: str | None,
    network: str,
    trust: str | None,
    daemonless: bool,
    below: str,
    output: str,
    **flags: Any,
) -> None:
    """Make an image that answers with MODEL (a bundle, a model file or a store reference), and see that it does."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started on trial is ended then, too
    settings = settle(flags)
    _require_one_way(folder, engine, daemonless, below, output)
    settle_trust([model], trust, settings.home)
    if folder:
        require_empty(Path(folder))
    built_by = None if folder or daemonless else image.sibling("engine").find(engine or "")
    opened = open_model(model, settings)
    made = composed(opened, settings, trust, flags)
    if daemonless:
        with busy("Writing the archive"):
            written = image.sibling("oci").archive(made, Path(below), Path(output), environ=os.environ)
        _tell_archive(made, written)
    elif built_by is None:
        image.write(made, Path(folder))
        _tell_context(made, folder)
    else:
        with busy(f"Building the image with {built_by.name}, and asking it"):
            good = image.sibling("proof").build(built_by, made, opened.bundle, network=network)
        _tell_image(made, good)


def _require_one_way(folder: str, engine: str | None, daemonless: bool, below: str, output: str) -> None:
    """Refuse flags that go different ways.

    Raises:
        click.UsageError: they do.
    """
    if daemonless and (folder or engine or not (below and output)):
        raise click.UsageError("--daemonless goes with --base-archive FILE and -o FILE, and without another way.")
    if not daemonless and (below or output):
        raise click.UsageError("--base-archive and -o go with --daemonless.")


def open_model(model: str, settings: Settings) -> Opened:
    """Open the bundle that MODEL names, with what belongs to it; a model file is packed as it is.

    Raises:
        KetchError: there is none, it is damaged, or its signature is wrong.
    """
    fetched = fetch(model, settings.home)
    if not bundle.looks_like_bundle(fetched[0]):
        packed = compose(model, None, Options(), home=settings.home)
        for each in packed.notes:
            note(each)
        fetched = packed.data, packed.name, ""
    signer = signer_of(model, fetched, home=settings.home, required=settings.require_signature)
    found = msgspec.structs.replace(fetch_bundle(model, home=settings.home, fetched=fetched), signed_by=signer)
    data, _, reference = fetched
    signature = signature_of(model, reference, settings.home) or b""
    return Opened(found, data, signature, reference.partition(":")[2])


def composed(opened: Opened, settings: Settings, trust: str | None, flags: dict[str, Any]) -> Context:
    """Compose the build context of an image; `flags` are those of the verb.

    Raises:
        KetchError: a wheel cannot be had, or nobody has approved what would run.
    """
    extras = tuple(each.strip() for each in flags.pop("extras").split(",") if each.strip())
    trusted = _runs_code(opened.bundle, settings.home)
    flags |= {"extras": extras, "trusted": trusted, "version": opened.version}
    recipe = image.recipe_of(opened.bundle, os.environ, **flags)
    _require_known(opened.bundle, trust)
    with busy("Fetching the wheels"):
        wheels = image.sibling("wheels").gather(opened.bundle, recipe, home=settings.home, environ=os.environ)
    return image.context(opened.bundle, opened.data, wheels, recipe, opened.signature)


def _runs_code(opened: Bundle, home: Path) -> bool:
    """Say whether opening the model takes an approval, which this user must have given before it goes into an image.

    Raises:
        TrustError: nobody has.
    """
    parts, files = opened.originals, opened.code
    if opened.manifest.serves == "compiled" or not code.needs_trust(parts, files, home=home):
        return False
    if not opened.signed_by and not code.is_approved(parts, files, home=home):
        raise TrustError(
            f"{opened.manifest.name} runs code when it is opened, and nobody has approved that here",
            hint=f"See what it is with ketch inspect; if you trust its maker: --trust=sha256:{opened.sha256}",
        )
    return True


def _require_known(opened: Bundle, trust: str | None) -> None:
    """Refuse packages that are not well known, in a bundle that nobody vouches for: they would run in the image."""
    if opened.signed_by or trust == f"sha256:{opened.sha256}":
        return
    manifest = opened.manifest
    needed = lock.environment(manifest.versions, serves=manifest.serves, members=opened.files)
    locked = opened.files[lock.CAPTURED] if lock.LOCKED in opened.files else None
    lock.require_known(needed, locked, f"{manifest.name};sha256:{opened.sha256}")


def _tell_context(made: Context, folder: str) -> None:
    size = sum(map(len, made.files.values()))
    told = f"{made.name}: {len(made.files)} files, {size / 2**20:.0f} MiB in {folder}"
    text = f"{told}\n  docker build -t {made.tag} {shlex.quote(folder)}"
    tell({"name": made.name, "tag": made.tag, "folder": folder, "files": list(made.files), "bytes": size}, text)


def _tell_archive(made: Context, written: Any) -> None:
    record: dict[str, object] = {"name": made.name, "tag": written.tag, "id": written.identity, "bytes": written.size}
    record |= {"above_base": written.own, "platform": made.recipe.platform, "file": str(written.path)}
    record |= {"digest": written.digest, "diff_ids": [*written.layers], "sbom": f"/model/{image.SBOM}"}
    differs = written.compiled != written.python
    note = f"compiled by Python {written.compiled}, the base has {written.python}" if differs else ""
    told = f"{written.path}: {written.tag} for {made.recipe.platform}, {_mib(written.own)} above its base"
    lines = [f"{told} ({_mib(written.size)} in all)", f"  docker load -i {shlex.quote(str(written.path))}"]
    lines += [f"  {note}: it answers the same, in other bytes than an engine makes"] if note else []
    tell(record | {"note": note}, "\n".join([*lines, "  it was not started"]))


def _tell_image(made: Context, good: Any) -> None:
    built = good.built
    above = built.size - built.base
    record: dict[str, object] = {"name": made.name, "tag": built.tag, "id": built.identity, "bytes": built.size}
    record |= {"above_base": above, "base": made.base, "layers": [vars(each) for each in built.layers]}
    record |= {"golden_rows": good.rows, "sbom": f"/model/{image.SBOM}", "note": good.unproved}
    seen = f"{good.rows} golden rows answered right" if good.rows else "it starts and answers"
    lines = [f"{built.tag}: {good.unproved or seen}", f"  {_mib(above)} above {made.base} ({_mib(built.size)} in all)"]
    lines += [f"  {_mib(each.size):>10}  {_told(each.made_by)}" for each in built.layers]
    tell(record, "\n".join([*lines, f"  its bill of materials is /model/{image.SBOM}"]))


def _mib(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"


def _told(made_by: str) -> str:
    return (
        "Ketch and what the model needs" if "/app" in made_by else "the model" if "/model" in made_by else made_by[:60]
    )
