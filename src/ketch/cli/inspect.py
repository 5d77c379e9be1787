"""`ketch inspect`: bundle → what it holds and promises; nothing in it is opened."""

from typing import Any

import click

from ketch import code, trust
from ketch.bundle import Bundle
from ketch.card import FOLDER, MEMBER
from ketch.cli import in_colour, options, settle, visible
from ketch.cli.completion import bundles_and_references
from ketch.cli.terminal import document, fact, json_option, table, tell, wants_json
from ketch.errors import BundleError
from ketch.page import describe
from ketch.predict import fetch_bundle
from ketch.program import GRAPH_MEMBER
from ketch.rescue import GIVEN
from ketch.schema.amend import as_toml


@click.command("inspect")
@click.argument("model", metavar="BUNDLE", shell_complete=bundles_and_references)
@click.option(
    "--contract", is_flag=True, help="Print the contract as TOML, to amend and give to: ketch pack --contract."
)
@click.option("--card", is_flag=True, help="Print the model card, to fill in and give to: ketch pack --card.")
@json_option
@options("home")
def inspect_command(model: str, contract: bool, card: bool, **flags: Any) -> None:
    """Show the contract, origin, versions and trust of BUNDLE (a file, or a store reference)."""
    home = settle(flags).home
    opened = fetch_bundle(model, home=home)
    if contract:
        text = as_toml(opened.contract)
        document({"contract": text}, text)
        return
    if card:
        text = _card(opened)
        document({"card": text}, visible(text))
        return
    found = _trusted(opened, home)
    if wants_json():
        tell(_record(opened, found), "")
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
    manifest = opened.manifest
    click.secho(visible(manifest.name), nl=False, bold=True, color=in_colour())
    click.echo(f"  sha256={opened.sha256}")
    fact("answers", _answer(opened))
    rows = [
        (
            each.name,
            each.type,
            describe(each),
            "refused" if each.required else "taken",
            each.unknown if each.type == "category" else "",
        )
        for each in opened.contract.fields
    ]
    table(None, ("field", "type", "values", "missing", "unknown"), rows)
    fact("origin", ", ".join(f"{key}: {value}" for key, value in manifest.origin.items()))
    fact("versions", ", ".join(f"{key} {value}" for key, value in manifest.versions.items()))
    fact("serves", _form(opened))
    for name, seen in found.items():
        fact("trust", f"{name} ({seen['format']}): {seen['verdict']}")
    for member in manifest.code:
        fact("code", member)
    for name, value in _holdings(opened).items():
        fact("holds", f"{name}: {value}")


def _answer(opened: Bundle) -> str:
    """Say what is answered: target, task, classes, whose probability, and from where on it is the positive class."""
    answer = opened.contract.answer
    told = f"{answer.target}: {answer.task}"
    if answer.classes:
        told += f" ({', '.join(map(str, answer.classes[:12]))})"
    if answer.values == "probability" and answer.positive is not None:
        told += f", probability of {answer.positive}"
    return told if answer.threshold is None else f"{told}, from {answer.threshold}"
