"""How the pages are built; the reference is written from the code itself."""

from __future__ import annotations

import inspect
import textwrap
from importlib.metadata import version as version_of
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import ketch
from ketch import errors
from ketch.cli import PLANNED, VERBS, cli
from ketch.errors import KetchError
from ketch.settings import TABLE

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "Ketch"
copyright = "the authors of Ketch"
version = release = version_of("ketch")
extensions = ["myst_parser"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = f"Ketch {version}"
html_show_sphinx = False
exclude_patterns = ["_build"]
nitpicky = True

SETTINGS = """# Settings

A value comes from the flag, else the environment, else the settings file, else the default. The settings file is
`ketch.toml`, or the table `[tool.ketch]` of `pyproject.toml`, in the current folder; names are written as in the first
column. **Personal** settings are never read from it: who comes in, and where people's data goes, is not for a project
to decide.
"""
OTHERS = """`api_keys` has no flag of its own, because other users of a machine can read command lines.

`KETCH_API_KEY` is the key that a [Client](../client.md) sends. `KETCH_DEBUG=1` shows where a bug is.
"""
ERRORS = """# Errors

Every error that Ketch raises on purpose is a `ketch.KetchError`: it has a stable `code` for programs, a `status` for
HTTP, a `message`, and a `hint` that says what to do. The command line prints message and hint and exits with 1; the
service sends them as [problem+json](../serve.md#when-it-says-no). A branch also catches everything below it.
"""


PYTHON = """# Python

All that `import ketch` gives, and all that is promised; nothing heavy is imported before it is needed. How it is used
stands in the guides: [pack](../pack.md#from-python), [score](../score.md#from-python),
[serve](../serve.md#your-own-flask-app), [client](../client.md).
"""


def settings_page() -> str:
    """Write the table of settings."""
    lines = [SETTINGS, "", "| name | flag | environment | default | what it says |", "|---|---|---|---|---|"]
    flags = {flag for _, command in _verbs() for each in command.params for flag in each.opts}
    for each in TABLE:
        variables = ", ".join(f"`{name}`" for name in (each.variable, *each.platform))
        told = each.help + (" Personal." if each.personal else "")
        flag = f"`{each.flag}`" if each.flag in flags else "none"
        default = f"`{each.default}`" if each.default else "none"
        lines.append(f"| `{each.name}` | {flag} | {variables} | {default} | {told} |")
    return "\n".join([*lines, "", OTHERS, ""])


def errors_page() -> str:
    """Write the tree of errors, one table for each branch."""
    lines = [ERRORS, ""]
    branches: list[type[KetchError]] = [KetchError, *_children(KetchError)]
    for branch in branches:
        lines += [f"## {branch.__name__}", "", "| code | status | class | when |", "|---|---|---|---|"]
        listed = [branch] if branch is KetchError else _with_children(branch)
        lines += [f"| `{each.code}` | {each.status} | {each.__name__} | {each.__doc__} |" for each in listed]
        lines.append("")
    return "\n".join(lines)


def _with_children(kind: type[KetchError]) -> list[type[KetchError]]:
    return [kind, *(found for each in _children(kind) for found in _with_children(each))]


def _children(kind: type[KetchError]) -> list[type[KetchError]]:
    return [each for each in kind.__subclasses__() if each.__module__ == errors.__name__]


def cli_page() -> str:
    """Write the help of every verb."""
    lines = ["# Command line", "", "What `--help` says, verb by verb.", ""]
    lines += ["```text", _help(cli, ""), "```", ""]
    for verb, command in _verbs():
        lines += [f"## ketch {verb}", "", "```text", _help(command, verb), "```", ""]
        for name, below in getattr(command, "commands", {}).items():
            lines += [f"### ketch {verb} {name}", "", "```text", _help(below, f"{verb} {name}"), "```", ""]
    planned = ", ".join(f"`{verb}`" for verbs in PLANNED.values() for verb in verbs)
    return "\n".join([*lines, "## Planned", "", f"Not in this version: {planned}.", ""])


def _verbs() -> list[tuple[str, click.Command]]:
    found = [(verb, cli.get_command(click.Context(cli), verb)) for verb in VERBS]
    return [(verb, command) for verb, command in found if command is not None]


def _help(command: click.Command, verb: str) -> str:
    names = cli.context_settings["help_option_names"]
    outer = click.Context(cli, info_name="ketch", terminal_width=80, help_option_names=names)
    return command.get_help(click.Context(command, outer, info_name=verb) if verb else outer)


def python_page() -> str:
    """Write what stands at the front door."""
    lines = [PYTHON]
    for name in ketch.__all__:
        found = getattr(ketch, name)
        lines += ["", f"## ketch.{name}", "", "```text", _described(name, found), "```"]
        for method, each in vars(found).items() if isinstance(found, type) else ():
            if inspect.isfunction(each) and not method.startswith("_"):
                lines += ["", "```text", _described(f"{name}.{method}", each), "```"]
    return "\n".join([*lines, ""])


def _described(name: str, found: Any) -> str:
    call = textwrap.fill(f"{name}{inspect.signature(found)}", 100, subsequent_indent="    ", break_on_hyphens=False)
    return f"{call}\n\n{inspect.cleandoc(found.__doc__ or '')}".strip()


def pages() -> dict[str, str]:
    """Write the reference."""
    return {
        "cli.md": cli_page(),
        "errors.md": errors_page(),
        "python.md": python_page(),
        "settings.md": settings_page(),
    }


def setup(app: Sphinx) -> None:
    """Put the reference among the pages before they are read."""
    folder = Path(app.srcdir) / "reference"
    folder.mkdir(exist_ok=True)
    for name, text in pages().items():
        path = folder / name
        if not path.is_file() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")
