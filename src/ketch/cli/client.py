"""`ketch client`: MODEL → what its callers need: a Postman collection, lines to paste."""

from pathlib import Path
from typing import Any

import click

from ketch.cli import options, settle, write
from ketch.cli.completion import bundles_and_references
from ketch.cli.terminal import json_option, wants_json
from ketch.page import SNIPPETS, postman, spelled
from ketch.predict import fetch_bundle

WRITERS = {"postman": "Postman", **{name: title for name, (title, _) in SNIPPETS.items()}}


@click.command("client")
@click.argument("model", shell_complete=bundles_and_references)
@click.option("--url", help="Where it is served; below /models/NAME for one of several.  [http://localhost:9696]")
@click.option("--postman", "form", flag_value="postman", help="Print a Postman collection, which newman runs too.")
@click.option("--curl", "form", flag_value="curl", help="Print a line for the shell.")
@click.option("--python", "form", flag_value="python", help="Print a program that uses requests.")
@click.option("--client", "form", flag_value="client", help="Print a program that uses ketch.Client.")
@click.option("--javascript", "form", flag_value="javascript", help="Print a program that uses fetch.")
@click.option("--key", is_flag=True, help="With the key in KETCH_API_KEY.")
@click.option("-o", "--output", help="Write to this file instead.")
@json_option
@options("port", "home")
def client_command(model: str, *, form: str, url: str, key: bool, output: str, **flags: Any) -> None:
    """Print what callers of MODEL (a bundle, or a store reference) need to ask it where it is served.

    With --json all of it at once.
    """
    settings = settle(flags)
    opened = fetch_bundle(model, home=settings.home)
    url = (url or f"http://localhost:{settings.port}").rstrip("/")
    made: dict[str, Any] = {name: write(opened.contract, url, key=key) for name, (_, write) in SNIPPETS.items()}
    as_json = wants_json()
    if as_json or form == "postman":
        made["postman"] = postman.collection(opened, url)
    if as_json:
        _write(spelled(made, indent=2), output)
    elif form:
        _write(spelled(made[form], indent=2) if form == "postman" else made[form], output)
    else:
        _summary(opened.manifest.name, model, url)


def _write(text: str, output: str | None) -> None:
    if output:
        write(Path(output), text.rstrip("\n") + "\n")
    else:
        click.echo(text.rstrip("\n"))


def _summary(name: str, model: str, url: str) -> None:
    click.echo(f"{name} at {url}")
    for form, title in WRITERS.items():
        click.echo(f"  ketch client {model} --{form:<11} {title}")
