"""`ketch score`: MODEL and a table → the table with answers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ketch.cli import isolate, note, options, settle, settle_trust, trust_option
from ketch.cli.completion import models
from ketch.cli.terminal import Told, bar, json_option, tell, wants_json
from ketch.predict import Limits, load
from ketch.score import CHUNK, Summary, score

SOME_REJECTED = 3
MOST_FLAGS = 5


@click.command("score")
@click.argument("model", shell_complete=models)
@click.argument("source", metavar="INPUT")
@click.option("-o", "--output", required=True, help="Where the answered rows go: .csv or .parquet.")
@click.option("--rejected", help="Where refused rows go, with reasons.  [OUTPUT.rejected.csv]")
@click.option("--chunk", type=click.IntRange(1), default=CHUNK, show_default=True, help="Rows worked on at a time.")
@trust_option
@json_option
@options("strict", "lenient", "isolated", "require_signature", "home")
def score_command(
    model: str, source: str, output: str, *, rejected: str | None, chunk: int, trust: str | None, **flags: Any
) -> int:
    """Answer every row of INPUT, a CSV or Parquet file. Exits with 3 when rows were rejected."""
    settings = settle(flags)
    settle_trust([model], trust, settings.home)
    if settings.isolated:
        parquet = any(str(each).lower().endswith((".parquet", ".pq")) for each in (source, output, rejected))
        isolate(model, settings, trusted=trust, wanted=["arrow"] if parquet else [])
    limits = Limits(strict=settings.strict, lenient=settings.lenient)
    predictor = load(model, home=settings.home, limits=limits, require_signature=settings.require_signature)
    side = Path(rejected) if rejected else None
    with bar() as told:
        summary = score(predictor, Path(source), Path(output), rejected=side, chunk=chunk, report=_reporting(told))
    _tell(summary, output)
    return SOME_REJECTED if summary.rejected else 0


def _tell(summary: Summary, output: str) -> None:
    speed = (
        f" in {summary.seconds:.1f} s ({summary.rows / summary.seconds:,.0f} rows/s)" if summary.seconds > 0.1 else ""
    )
    if wants_json():
        record: dict[str, object] = {"rows": summary.rows, "scored": summary.scored, "rejected": summary.rejected}
        record |= {"flags": dict(summary.flags), "seconds": round(summary.seconds, 3), "output": output}
        tell(record | {"rejected_file": str(summary.side_file) if summary.rejected else None}, "")
        return
    click.echo(f"{_rows(summary.scored)} scored{speed}: {output}", err=True)
    for flag, count in summary.flags.most_common(MOST_FLAGS):
        note(f"{_rows(count)} flagged: {flag}")
    if summary.rejected:
        note(f"{_rows(summary.rejected)} rejected, with reasons: {summary.side_file}")


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count:,} rows"


def _reporting(told: Told) -> Callable[[Summary], None]:
    def report(summary: Summary) -> None:
        rate = summary.rows / summary.seconds if summary.seconds else 0.0
        told(summary.done, summary.total, f"{summary.rows:,} rows, {rate:,.0f} rows/s")

    return report
