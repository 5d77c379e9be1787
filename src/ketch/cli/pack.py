"""`ketch pack`: model file → bundle."""

import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from ketch import bundle
from ketch.cli import note, options, settle, settle_trust, trust_option
from ketch.cli.terminal import Pause, busy, json_option, tell
from ketch.code import VALUE
from ketch.pack import TOLERANCE, Options, compose, read_bytes, read_card, read_figures, read_table
from ketch.schema import Scalar
from ketch.schema.amend import parse


@click.command("pack")
@click.argument("models", metavar="MODEL…", nargs=-1, required=True)
@click.option("--target", default="", help="What the model predicts; names the answer.")
@click.option("--data", help="CSV or Parquet with rows it was trained on: types, ranges, categories.")
@click.option("--name", default="", help="Name of the bundle.  [the target, else the file's]")
@click.option("--positive", help="The class whose probability is answered.  [1, true or yes]")
@click.option("--threshold", type=float, help="Probability from which the answer is the positive class.")
@click.option(
    "--tolerance", type=float, default=TOLERANCE, help="How far the compiled form may differ from the original.  [1e-6]"
)
@click.option("--contract", help="Amended contract, from: ketch inspect --contract.")
@click.option("--rescue", is_flag=True, help="Rebuild a file of an older scikit-learn, proved in that version by uv.")
@click.option("--test-data", help="CSV or Parquet with rows it was not trained on, to measure it for its card.")
@click.option("--metrics", help="JSON with figures that you measured, for its card.")
@click.option("--card", help="Edited model card, from: ketch inspect --card; your words are kept.")
@click.option("-o", "--output", help="Where to write the bundle.  [NAME.ketch]")
@trust_option
@json_option
@options("home")
def pack_command(
    models: tuple[str, ...], data: str | None, contract: str | None, output: str | None, **rest: Any
) -> None:
    """Make a bundle from MODEL: the file that a model was saved to, or two that belong together (dv.bin model.bin).

    Files of pickle, joblib, skops, ONNX, XGBoost, LightGBM and CatBoost, MLflow folders, and predict(rows) in Python.
    Of a notebook (.ipynb), the script is written and proved first; then it is run, and what it makes is packed.
    """
    home = settle(rest).home
    if len(models) == 1 and models[0].endswith(".ipynb"):
        from ketch.cli.script import pack_notebook

        rest |= {"data": data, "contract": contract}
        path = pack_notebook(Path(models[0]), output, {name: rest[name] for name in rest if name != "trust"})
        _tell(path, path.read_bytes())
        return
    settle_trust(models, rest.pop("trust"), home)
    amendments = parse(read_bytes(Path(contract)), contract) if contract else {}
    test, metrics, edited = (rest.pop(name) for name in ("test_data", "metrics", "card"))
    known: dict[str, Any] = {
        "card": read_card(edited) if edited else "",
        "figures": read_figures(metrics) if metrics else {},
    }
    with busy("packing") as pause:
        chosen = Options(**rest, **known, test=read_table(test), amendments=amendments, ask=_asking(pause))
        packed = compose([Path(each) for each in models], read_table(data), chosen, home=home)
    for each in packed.notes:
        note(each)
    path = Path(output or packed.name + bundle.SUFFIX)
    bundle.save(packed.data, path)
    _tell(path, packed.data)


def _asking(pause: Pause) -> Callable[[Sequence[Scalar]], Scalar] | None:
    def ask(classes: Sequence[Scalar]) -> Scalar:
        pause()
        names = [str(each) for each in classes]
        answer = click.prompt("Which class is the positive one?", type=click.Choice(names), default=names[1], err=True)
        return classes[names.index(answer)]

    return ask if sys.stdin.isatty() else None


def _tell(path: Path, data: bytes) -> None:
    opened = bundle.read(data, path.name)
    manifest, fields, answer = opened.manifest, opened.contract.fields, opened.contract.answer
    kinds = [each.type for each in fields]
    counted = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
    fields_are = f"{len(fields)} field{'' if len(fields) == 1 else 's'}"
    lines = [f"{path}: {answer.target} ({answer.task}) from {fields_are}: {counted}"]
    lines += [f"  carries {member}" for member in manifest.code]
    if by_value := any(each.format == VALUE for each in manifest.originals):
        lines.append("  carries code by value, for this version of Python only")
    if why := manifest.parity.reason:
        lines.append(f"  serves its original form, since {why}")
    record: dict[str, object] = {"bundle": str(path), "name": manifest.name, "sha256": opened.sha256}
    record |= {"target": answer.target, "task": answer.task, "fields": {each.name: each.type for each in fields}}
    record |= {"code": manifest.code, "by_value": by_value, "serves": manifest.serves, "reason": why}
    tell(record, "\n".join([*lines, f"Serve it with: ketch serve {shlex.quote(str(path))}"]))
