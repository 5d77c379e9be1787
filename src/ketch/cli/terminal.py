"""How a verb shows what it did: in words for a person, the same words plain in a pipe, as JSON for a program.

Rich draws where somebody looks at a terminal, and is imported there only; an image has none.
"""

import importlib.util
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, TextIO

import click
import msgspec

from ketch.cli import in_colour, visible

JSON: Final = "ketch.json"  # where a context of click remembers --json
COLOURS: Final = {"ok": "green", "--": "yellow", "mend": "red"}
Pause = Callable[[], None]
Told = Callable[[float, float, str], None]


def _remember(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    ctx.meta[JSON] = value


json_option = click.option(
    "--json",
    is_flag=True,
    expose_value=False,
    callback=_remember,
    help="Print one JSON document instead; an error is one, too, on standard error.",
)


def wants_json() -> bool:
    """Say whether the command under way was given --json."""
    ctx = click.get_current_context(silent=True)
    return ctx is not None and bool(ctx.meta.get(JSON))


def tell(record: object, text: str, *, indent: int | None = 2) -> None:
    """Print what a verb did: `text` for a person, `record` for a program."""
    if wants_json():
        from ketch.page import spelled

        click.echo(spelled(msgspec.json.decode(msgspec.json.encode(record)), indent=indent))
    elif text:
        click.echo(visible(text))


def document(record: object, text: str) -> None:
    """Print a text that somebody will keep as a file, to the letter."""
    if wants_json():
        tell(record, "")
    else:
        click.echo(text, nl=False)


def say(text: str) -> None:
    """Print something on the way; standard output is left to the JSON document where one is to come."""
    click.echo(visible(text), err=wants_json())


def fact(label: str, value: str) -> None:
    """Print a value behind what it is."""
    click.secho(f"{label:<8}", nl=False, dim=True, color=in_colour())
    click.echo(f" {visible(value)}")


def mark(state: str, text: str) -> None:
    """Print whether something is well: ok, -- for what is not there, mend for what must be."""
    click.secho(f"{state:<6}", nl=False, fg=COLOURS[state], color=in_colour())
    click.echo(visible(text))


def table(
    record: object, headings: Sequence[str], rows: Sequence[Sequence[str]], *, right: Collection[str] = ()
) -> None:
    """Print rows below headings: folded to the width of a terminal, and to a pipe whole; `record` for a program."""
    if wants_json():
        tell(record, "")
    elif rows:
        cells = [[_cell(each) for each in row] for row in rows]
        (_drawn if draws(sys.stdout) else _aligned)(headings, cells, right)


def _cell(text: str) -> str:
    return visible(text).replace("\n", "\\n").replace("\t", "\\t")


def _aligned(headings: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[str]) -> None:
    lines = [headings, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        placed = [
            cell.rjust(width) if heading in right else cell.ljust(width)
            for heading, cell, width in zip(headings, line, widths, strict=True)
        ]
        click.echo("  ".join(placed).rstrip())


def _drawn(headings: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[str]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, pad_edge=False, header_style="dim")
    for heading in headings:
        drawn.add_column(heading, overflow="fold", justify="right" if heading in right else "left")
    for row in rows:
        drawn.add_row(*(Text(cell) for cell in row))  # markup in a name would be obeyed otherwise
    Console(highlight=False).print(drawn)


def draws(stream: TextIO) -> bool:
    """Say whether somebody looks at a stream, and what draws there is installed."""
    return stream.isatty() and importlib.util.find_spec("rich") is not None


@contextmanager
def busy(what: str) -> Iterator[Pause]:
    """Show that something is under way, where somebody is looking; gives what ends the showing, for a question."""
    if not draws(sys.stderr):
        yield lambda: None
        return
    from rich.console import Console

    with Console(stderr=True).status(what) as wheel:
        yield wheel.stop


@contextmanager
def bar() -> Iterator[Told]:
    """Show how far something is, where somebody is looking; gives what is told: done, of how much, in words."""
    if not draws(sys.stderr):
        yield lambda done, whole, told: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns: list[Any] = [BarColumn(), TextColumn("{task.description},"), TimeRemainingColumn(), TextColumn("left")]
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("0 rows", total=None)
        yield lambda done, whole, told: progress.update(task, completed=done, total=whole, description=told)
