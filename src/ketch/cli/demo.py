"""`ketch demo`: the whole road on an example, told as it goes."""

import os
import signal
import sys
from pathlib import Path

import click

from ketch import demo


@click.command("demo")
@click.option(
    "--keep",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep all files in this folder, new or empty.  [only the bundle, in the current folder]",
)
def demo_command(keep: Path | None) -> None:
    """Train, pack, serve and ask a churn model, each step with the command that does it by hand.

    Needs the extra sklearn. Everything happens on this machine; no server is left running.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that whoever ends the story ends its server too
    demo.run(keep, here=Path.cwd(), environ=os.environ, say=click.echo)
