"""`ketch doctor`: is this machine ready?"""

import importlib.util
import platform
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click

from ketch.cli import options, settle
from ketch.errors import KetchError
from ketch.extras import EXTRAS
from ketch.serve.server import listen


@click.command("doctor")
@options("host", "port", "home")
def doctor_command(**flags: Any) -> int:
    """Check Python, the extras, the home folder and the port; exits with 1 when something must be mended."""
    settings = settle(flags)
    click.echo(f"ok    Ketch {version('ketch')}, Python {platform.python_version()}, {sys.platform}")
    for root, extra in EXTRAS.items():
        found = importlib.util.find_spec(root) is not None
        click.echo(f"ok    {root}" if found else f"--    {root}: pip install 'ketch[{extra}]'")
    faults = [fault for fault in (_home(settings.home), _port(settings.host, settings.port)) if fault]
    for fault in faults:
        click.echo(f"mend  {fault}")
    return 1 if faults else 0


def _home(home: Path) -> str:
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home):
            pass
    except OSError as error:
        return f"{home} cannot be written ({error.strerror}): choose another with KETCH_HOME"
    click.echo(f"ok    {home} can be written")
    return ""


def _port(host: str, port: int) -> str:
    try:
        listen(host, port).close()
    except KetchError as error:
        return f"{error.message}: {error.hint}"
    click.echo(f"ok    {host}:{port} is free")
    return ""
