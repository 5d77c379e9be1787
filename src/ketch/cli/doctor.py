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
from ketch.cli.terminal import json_option, mark, tell, wants_json
from ketch.errors import KetchError
from ketch.extras import EXTRAS
from ketch.serve.server import listen

Check = tuple[str, str]  # how it is, as `mark` has it, and what


@click.command("doctor")
@json_option
@options("host", "port", "home")
def doctor_command(**flags: Any) -> int:
    """Check Python, the extras, the home folder and the port; exits with 1 when something must be mended."""
    settings = settle(flags)
    checks = [("ok", f"Ketch {version('ketch')}, Python {platform.python_version()}, {sys.platform}")]
    checks += [_extra(root, extra) for root, extra in EXTRAS.items()]
    checks += [_home(settings.home), _port(settings.host, settings.port)]
    well = all(state != "mend" for state, _ in checks)
    tell({"well": well, "checks": [{"state": state, "what": what} for state, what in checks]}, "")
    for state, what in [] if wants_json() else checks:
        mark(state, what)
    return 0 if well else 1


def _extra(root: str, extra: str) -> Check:
    found = importlib.util.find_spec(root) is not None
    return ("ok", root) if found else ("--", f"{root}: pip install 'ketch[{extra}]'")


def _home(home: Path) -> Check:
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home):
            pass
    except OSError as error:
        return "mend", f"{home} cannot be written ({error.strerror}): choose another with KETCH_HOME"
    return "ok", f"{home} can be written"


def _port(host: str, port: int) -> Check:
    try:
        listen(host, port).close()
    except KetchError as error:
        return "mend", f"{error.message}: {error.hint}"
    return "ok", f"{host}:{port} is free"
