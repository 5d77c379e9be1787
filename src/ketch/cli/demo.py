"""`ketch demo`: the whole road on an example, told as it goes."""

import os
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import click

from ketch import demo
from ketch.cli.terminal import json_option, say, tell

STEP: Final = re.compile(r"\n\d+\. (.+)\n   \$ (.+)")


@click.command("demo")
@click.option(
    "--keep",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep all files in this folder, new or empty.  [only the bundle, in the current folder]",
)
@json_option
def demo_command(keep: Path | None) -> None:
    """Train, pack, serve and ask a churn model, each step with the command that does it by hand.

    Needs the extra sklearn. Everything happens on this machine; no server is left running.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that whoever ends the story ends its server too
    told: list[str] = []

    def hear(text: str) -> None:
        told.append(text)
        say(text)

    demo.run(keep, here=Path.cwd(), environ=os.environ, say=hear)
    tell({"bundle": str((keep or Path()) / demo.BUNDLE), "steps": _steps(told)}, "")


def _steps(told: Sequence[str]) -> list[dict[str, Any]]:
    steps: list[dict[str, Any]] = []
    for text in told:
        if found := STEP.fullmatch(text):
            steps.append({"title": found[1], "command": found[2], "said": []})
        elif steps and text.startswith("   "):
            steps[-1]["said"].append(text.strip())
    return steps
