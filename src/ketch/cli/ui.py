"""`ketch ui`: MODEL or URL → a page for people."""

import os
from pathlib import Path
from typing import Any

import click

from ketch.cli import options, settle, settle_trust, trust_option
from ketch.cli.completion import models
from ketch.cli.terminal import json_option, tell


@click.command("ui")
@click.argument("model", required=False, shell_complete=models)
@trust_option
@json_option
@click.option("--url", default="", metavar="URL", help="Let a running service answer; its key in KETCH_API_KEY.")
@click.option("--static", is_flag=True, help="Write a page instead that runs the model in the browser.")
@click.option("-o", "--output", default="site", help="Folder of that page.  [site]")
@click.option("--runtime", default="", metavar="FILE", help="The package onnxruntime-web; npm brings it otherwise.")
@click.option("--oidc", default="", metavar="FILE", help="Sign in by an identity provider: a TOML file with [auth].")
@options("host", "port", "api_keys_file", "auth", "allowed_hosts", "log", "strict", "lenient", "max_rows", "home")
def ui_command(model: str | None, trust: str | None, *, static: bool, **flags: Any) -> None:
    """Show a page for MODEL (a bundle, a model file or a store reference), or for a service at --url."""
    own = {name: flags.pop(name) for name in ("url", "output", "runtime", "oidc")}
    settings = settle(flags)
    if not model and not own["url"]:
        raise click.UsageError("Name a MODEL, or a service with --url.")
    if model:
        settle_trust([model], trust, settings.home)
    if static:
        _write(model, settings.home, own["url"], own["output"], own["runtime"])
    else:
        _serve(model, settings, own["url"], own["oidc"])


def _write(model: str | None, home: Path, url: str, output: str, runtime: str) -> None:
    from ketch.predict import fetch_bundle
    from ketch.ui import runtime as ort
    from ketch.ui import site

    if not model:
        raise click.UsageError("--static needs a MODEL, whose contract the page is made from.")
    opened = fetch_bundle(model, home=home)
    files = site.site(opened, url=url, runtime=lambda: ort.files(home, runtime))
    site.write(files, Path(output))
    size = sum(map(len, files.values()))
    told = f"{output}: {len(files)} files, {size / 1024:,.0f} KiB; any static host can serve them"
    trying = f"  try it: python -m http.server --bind 127.0.0.1 --directory {output}"
    tell({"folder": output, "files": sorted(files), "bytes": size}, f"{told}\n{trying}")


def _serve(model: str | None, settings: Any, url: str, oidc: str) -> None:
    import dataclasses

    from ketch.serve.server import guard_of, listen, url_of
    from ketch.ui import start

    secrets = start.oidc(oidc) if oidc else {}
    guard = guard_of(dataclasses.replace(settings, auth="platform") if oidc else settings)
    key = os.environ.get("KETCH_API_KEY", "")
    what = start.of_service(url, key, settings) if url else start.of_model(str(model), settings)
    what = dataclasses.replace(what, admits=start.admits(guard), oidc=bool(oidc))
    opened = listen(settings.host, settings.port)
    record = {"model": what.predictor.reference, "url": url_of(opened)}
    tell(record, f"{record['model']} is shown at {record['url']} (Ctrl+C stops it)", indent=None)
    start.serve(what, lambda app: start.Door(app, guard, settings.allowed_hosts), opened, secrets)
