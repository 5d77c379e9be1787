"""`ketch inspect`: bundle → what it holds and promises; nothing in it is opened."""

from typing import Any

import click
import msgspec

from ketch import code, trust
from ketch.bundle import Bundle
from ketch.card import FOLDER, MEMBER
from ketch.cli import options, settle, visible
from ketch.errors import BundleError
from ketch.page import describe
from ketch.predict import fetch_bundle
from ketch.program import GRAPH_MEMBER
from ketch.rescue import GIVEN
from ketch.schema.amend import as_toml


@click.command("inspect")
@click.argument("model", metavar="BUNDLE")
@click.option(
    "--contract", is_flag=True, help="Print the contract as TOML, to amend and give to: ketch pack --contract."
)
@click.option("--card", is_flag=True, help="Print the model card, to fill in and give to: ketch pack --card.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@options("home")
def inspect_command(model: str, contract: bool, card: bool, as_json: bool, **flags: Any) -> None:
    """Show the contract, origin, versions and trust of BUNDLE (a file, or a store reference)."""
    home = settle(flags).home
    opened = fetch_bundle(model, home=home)
    if contract:
        click.echo(as_toml(opened.contract), nl=False)
        return
    if card:
        click.echo(visible(_card(opened)), nl=False)
        return
    found = _trusted(opened, home)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(_record(opened, found)), indent=2))
    else:
        _show(opened, found)


def _card(opened: Bundle) -> str:
    if MEMBER not in opened.files:
        raise BundleError(f"{opened.manifest.name} has no model card", hint="Pack the model again; cards are new.")
    return opened.files[MEMBER].decode("utf-8", "replace")


def _trusted(opened: Bundle, home: Any) -> dict[str, dict[str, object]]:
    if not code.runs(opened.originals, opened.code):
        return {name: _trust(data, home) for name, _, data in opened.originals}
    approved = code.is_approved(opened.originals, opened.code, home=home)
    verdict = {
        "verdict": "approved here" if approved else "needs --trust",
        "sha256": code.unit(opened.originals, opened.code),
    }
    return {name: {**verdict, "format": form} for name, form, _ in opened.originals}


def _trust(data: bytes, home: Any) -> dict[str, object]:
    found = trust.examine(data, home=home)
    approved = trust.is_approved(trust.digest(data), home=home)
    verdict = "approved here" if approved else "needs --trust" if found.refused or found.faults else "opens as it is"
    return {
        "verdict": verdict,
        "format": found.format,
        "sha256": trust.digest(data),
        "refused": found.refused,
        "faults": found.faults,
        "imports": found.imports,
    }


def _record(opened: Bundle, found: dict[str, dict[str, object]]) -> dict[str, object]:
    manifest = opened.manifest
    return {
        "name": manifest.name,
        "sha256": opened.sha256,
        "format": manifest.format,
        "answer": manifest.answer,
        "fields": opened.contract.fields,
        "serves": manifest.serves,
        "tolerance": manifest.tolerance,
        "parity": manifest.parity,
        "origin": manifest.origin,
        "versions": manifest.versions,
        "trust": found,
        "code": manifest.code,
        "holds": _holdings(opened),
    }


def _holdings(opened: Bundle) -> dict[str, object]:
    """List what of the data the bundle holds, so that nobody hands out more than they mean to."""
    found: dict[str, object] = {
        "golden rows": f"{len(opened.golden.rows)}, composed from the contract, none of them a real record",
        "profile": f"distribution of {len(opened.profile)} columns" if opened.profile else "none",
    }
    if plots := [name for name in opened.files if name.startswith(FOLDER)]:
        found["model card"] = f"figures and {len(plots)} plot{'s' if len(plots) > 1 else ''}, sums over rows"
    if given := [name for name in opened.files if name.startswith(GIVEN)]:
        found["as given"] = f"{', '.join(sorted(given))}, never opened"
    return found


def _form(opened: Bundle) -> str:
    """Say which form serves, and what is known of its likeness to the original."""
    manifest, parity = opened.manifest, opened.manifest.parity
    if manifest.serves == "original":
        return f"original{f', since {parity.reason}' if parity.reason else ''}"
    kind = "a weighted sum" if GRAPH_MEMBER not in opened.files else "a graph for ONNX Runtime"
    seen = f"worst difference {parity.worst:.2g} on {parity.rows} rows, of {manifest.tolerance:g} allowed"
    return f"compiled ({kind}); {seen}"


def _show(opened: Bundle, found: dict[str, dict[str, object]]) -> None:
    from rich import markup
    from rich.console import Console
    from rich.table import Table

    def escape(text: str) -> str:
        return markup.escape(visible(text))

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=200)
    manifest, answer = opened.manifest, opened.contract.answer
    console.print(f"[bold]{escape(manifest.name)}[/]  sha256={opened.sha256}")
    positive = (
        f", probability of {answer.positive}" if answer.values == "probability" and answer.positive is not None else ""
    )
    at = f", from {answer.threshold}" if answer.threshold is not None else ""
    classes = f" ({', '.join(map(str, answer.classes[:12]))})" if answer.classes else ""
    console.print(f"answers  {escape(answer.target)}: {escape(answer.task)}{escape(classes)}{escape(positive)}{at}")
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("field", "type", "values", "missing", "unknown"):
        table.add_column(heading, overflow="fold")
    for each in opened.contract.fields:
        soft = each.unknown if each.type == "category" else ""
        table.add_row(
            escape(each.name), each.type, escape(describe(each)), "refused" if each.required else "taken", soft
        )
    console.print(table)
    console.print(f"origin   {escape(', '.join(f'{key}: {value}' for key, value in manifest.origin.items()))}")
    console.print(f"versions {escape(', '.join(f'{key} {value}' for key, value in manifest.versions.items()))}")
    console.print(f"serves   {escape(_form(opened))}")
    for name, seen in found.items():
        console.print(f"trust    {escape(name)} ({escape(str(seen['format']))}): {seen['verdict']}")
    for member in manifest.code:
        console.print(f"code     {member}")
    for name, value in _holdings(opened).items():
        console.print(f"holds    {name}: {escape(str(value))}")
