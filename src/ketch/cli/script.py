"""`ketch script`: notebook → script, proved to make the same model."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click

from ketch import bundle
from ketch.cli import note, write
from ketch.cli.terminal import busy, json_option, say, tell
from ketch.errors import InputError, ModelError, NotProved
from ketch.slicer import MARK, Script, read
from ketch.slicer.prove import Proof, proved
from ketch.slicer.report import as_page, as_text, verdict
from ketch.slicer.run import run

FILES: Final = ("data", "contract", "test_data", "metrics", "card")  # options that name a file


@click.command("script")
@click.argument("notebook", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Where to write the script.  [NOTEBOOK.py]")
@click.option("--model", default="", help="The variable that holds the model.  [what is saved, or fitted last]")
@click.option("--no-run", is_flag=True, help="Run nothing; the script is not proved then.")
@click.option("--network", is_flag=True, help="Let the notebook reach the network while it runs.")
@click.option("--allow-shell", is_flag=True, help="Run the notebook's shell lines too.")
@click.option("--html", "page", type=click.Path(path_type=Path), help="Write the report as a page to this file.")
@json_option
@click.option("--force", is_flag=True, help="Replace a file that Ketch has not written.")
def script_command(notebook: Path, output: Path | None, page: Path | None, **flags: Any) -> None:
    """Write the training script that a notebook contains, and prove that it makes the same model."""
    place = output or notebook.with_suffix(".py")
    listed = place.with_suffix(".requirements.txt")
    for path in (place, listed):
        _require_own(path, notebook, force=flags["force"])
    run, network, shell = not flags["no_run"], flags["network"], flags["allow_shell"]
    with busy("running the notebook and the script" if run else "reading the notebook"):
        made, proof = proved(read(notebook), model=flags["model"], run=run, network=network, shell=shell)
    write(place, made.text)
    if page is not None:
        write(page, as_page(made, proof))
    tell(_told(place, made, proof), f"{as_text(made, proof)}{place}: {len(made.text.splitlines())} lines")
    if made.requirements:
        write(listed, made.locked())
        note(f"the notebook installs {', '.join(made.requirements)}: {listed} pins what the script needs")
    if proof.ran and not proof.holds:
        raise NotProved(verdict(proof), hint=f"What ran is in {place} all the same; the warning at its top says why.")


def _require_own(place: Path, notebook: Path, *, force: bool) -> None:
    """Refuse to write over what somebody else wrote.

    Raises:
        InputError: there is such a file.
    """
    if place.resolve() == notebook.resolve():
        raise InputError(f"{place} is the notebook itself", hint="Name the script with -o.")
    if place.exists() and not force and MARK not in place.read_text("utf-8", "replace"):
        raise InputError(
            f"{place} is there already, and not by ketch script", hint="Name another with -o, or give --force."
        )


def _told(place: Path, made: Script, proof: Proof) -> dict[str, object]:
    return {
        "script": str(place),
        "proved": proof.holds,
        "verdict": verdict(proof),
        "model": list(made.goal.names),
        "requirements": made.requirements,
        "notes": made.notes,
        "lines": [
            {"cell": each.cell, "kept": each.kept, "reason": each.reason, "text": each.text} for each in made.lines
        ],
    }


def pack_notebook(notebook: Path, output: str | None, options: Mapping[str, Any]) -> Path:
    """Write a notebook's script, prove it, run it beside the notebook, and pack what it makes, the script with it.

    Raises:
        NotProved: the script was not seen to make the notebook's model.
        ModelError: it cannot be packed.
    """
    place = notebook.with_suffix(".py")
    _require_own(place, notebook, force=False)
    with busy("running the notebook and the script"):
        made, proof = proved(read(notebook))
    if not proof.holds:
        raise NotProved(verdict(proof), hint=f"See what stays and goes with: ketch script {notebook}")
    write(place, made.text)
    say(f"{place}: {len(made.text.splitlines())} lines. {verdict(proof)}")
    told = {name: value for name, value in options.items() if value}
    told |= {name: str(Path(told[name]).absolute()) for name in FILES if name in told}
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "made.ketch"
        if failure := run(place, Path(folder) / "model", {**told, "path": str(written)}):
            raise ModelError(f"{failure}", hint="Run the script by hand to see more; --data may be what it lacks.")
        opened = bundle.read(written.read_bytes(), place.name)
    data = bundle.replaced(opened, made.record(notebook.read_bytes(), notebook.name))
    path = Path(output or opened.manifest.name + bundle.SUFFIX)
    bundle.save(data, path)
    return path
