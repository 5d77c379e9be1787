"""`ketch score`: MODEL and a table → the table with answers."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from ketch.cli import isolate, note, options, settle, settle_trust, trust_option
from ketch.predict import Limits, load
from ketch.score import CHUNK, Summary, score

SOME_REJECTED = 3
MOST_FLAGS = 5


@click.command("score")
@click.argument("model")
@click.argument("source", metavar="INPUT")
@click.option("-o", "--output", required=True, help="Where the answered rows go: .csv or .parquet.")
@click.option("--rejected", help="Where refused rows go, with reasons.  [OUTPUT.rejected.csv]")
@click.option("--chunk", type=click.IntRange(1), default=CHUNK, show_default=True, help="Rows worked on at a time.")
@trust_option
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
    with _bar() as report:
        summary = score(predictor, Path(source), Path(output), rejected=side, chunk=chunk, report=report)
    _tell(summary, output)
    return SOME_REJECTED if summary.rejected else 0


def _tell(summary: Summary, output: str) -> None:
    speed = (
        f" in {summary.seconds:.1f} s ({summary.rows / summary.seconds:,.0f} rows/s)" if summary.seconds > 0.1 else ""
    )
    click.echo(f"{_rows(summary.scored)} scored{speed}: {output}", err=True)
    for flag, count in summary.flags.most_common(MOST_FLAGS):
        note(f"{_rows(count)} flagged: {flag}")
    if summary.rejected:
        note(f"{_rows(summary.rejected)} rejected, with reasons: {summary.side_file}")


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count:,} rows"


@contextmanager
def _bar() -> Iterator[Callable[[Summary], None]]:
    """Show progress where somebody is looking."""
    if not sys.stderr.isatty():
        yield lambda summary: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        BarColumn(),
        TextColumn("{task.fields[rows]:,} rows, {task.fields[rate]:,.0f} rows/s,"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, TextColumn("left"), console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=None, rows=0, rate=0.0)

        def report(summary: Summary) -> None:
            rate = summary.rows / summary.seconds if summary.seconds else 0.0
            progress.update(task, completed=summary.done, total=summary.total, rows=summary.rows, rate=rate)

        yield report
