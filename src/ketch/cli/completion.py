"""`ketch completion`: shell → the script by which it completes verbs, options, files of models and references.

What is typed --shell--> COMP_WORDS, COMP_CWORD --*Bash*, *Zsh*, *Fish*--> what may come next
"""

import contextlib
import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import ClassVar, Final

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
    add_completion_class,
    split_arg_string,
)

from ketch import bundle, settings
from ketch.cli import COMPLETE, cli
from ketch.cli.terminal import json_option, tell
from ketch.errors import KetchError
from ketch.store import Store, Version

# Bash cuts words at : and @ and replaces only the last piece, which it gives as $2; click's own script knows none of
# this, so that churn:1 and churn@champion could not be completed.
BASH: Final = """\
%(complete_func)s() {
    local IFS=$'\\n' line="${COMP_LINE:0:COMP_POINT}" kept reply
    kept="${line##*[[:space:]]}"
    kept="${kept%%"$2"}"
    COMPREPLY=()
    for reply in $(COMP_WORDS="$line" %(complete_var)s=bash_complete "$1"); do
        case ${reply%%%%,*} in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            plain) reply="${reply#*,}"; COMPREPLY+=("${reply#"$kept"}") ;;
        esac
    done
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""
Found = list["CompletionItem[str]"]  # which older versions of click cannot be asked for


class _Files(ShellComplete):
    """Leave it to the shell to complete a file where nothing better is known: most arguments and options name one."""

    def get_completions(self, args: list[str], incomplete: str) -> Found:
        found = super().get_completions(args, incomplete)
        return found if found or not args else [CompletionItem(incomplete, type="file")]


class Bash(_Files, BashComplete):
    """Bash, with references."""

    source_template: ClassVar[str] = BASH

    def get_completion_args(self) -> tuple[list[str], str]:
        """Read what was typed up to the cursor: whole words, and one that is not yet."""
        line = os.environ["COMP_WORDS"]
        words = split_arg_string(line)[1:]
        return (words[:-1], words[-1]) if words and not line[-1].isspace() else (words, "")


class Zsh(_Files, ZshComplete):
    """Zsh."""


class Fish(_Files, FishComplete):
    """Fish."""


SHELLS: Final[dict[str, type[ShellComplete]]] = {"bash": Bash, "zsh": Zsh, "fish": Fish}


def register() -> None:
    """Let these answer the shells, instead of click's own."""
    for name, kind in SHELLS.items():
        add_completion_class(kind, name)


@click.command("completion")
@click.argument("shell", type=click.Choice(list(SHELLS)))
@json_option
def completion_command(shell: str) -> None:
    """Print what makes SHELL complete verbs, options, files of models and references into the store.

    For good: put `source <(ketch completion bash)` into ~/.bashrc, or the same with zsh into ~/.zshrc;
    ketch completion fish > ~/.config/fish/completions/ketch.fish
    """
    script = SHELLS[shell](cli, {}, "ketch", COMPLETE).source()
    tell({"shell": shell, "script": script}, script.rstrip("\n"))


# ---- what may stand in an argument -------------------------------------------------------------------


def models(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> Found:
    """Offer files of models here, and references into the store."""
    from ketch.predict import SUFFIXES

    return _files_and(references(ctx, parameter, incomplete), incomplete, SUFFIXES)


def bundles(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> Found:
    """Offer bundles here."""
    return _files_and([], incomplete, {bundle.SUFFIX})


def bundles_and_references(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> Found:
    """Offer bundles here, and references into the store."""
    return _files_and(references(ctx, parameter, incomplete), incomplete, {bundle.SUFFIX})


def references(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> Found:
    """Offer what the store holds: each alias, then each version, the newest first."""
    versions = _versions(ctx)
    named = [f"{each.name}@{alias}" for each in versions for alias in each.aliases]
    named += [each.ref for each in reversed(versions)]
    return [CompletionItem(reference) for reference in named if reference.startswith(incomplete)]


def names(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> Found:
    """Offer the names of the models in the store."""
    known = dict.fromkeys(each.name for each in _versions(ctx))
    return [CompletionItem(name) for name in known if name.startswith(incomplete)]


def _versions(ctx: click.Context) -> list[Version]:
    home = Path(ctx.params.get("home") or settings.home(os.environ))
    with contextlib.suppress(KetchError, OSError):  # a shell that is asked for completions shows no errors
        return Store(home / "store").list()
    return []


def _files_and(known: Found, incomplete: str, suffixes: Collection[str]) -> Found:
    """Add files to what is known; without either the shell walks the folders itself."""
    head, slash, start = incomplete.rpartition("/")
    entries = [each for each in _entries(Path(head + slash or ".")) if each.name.startswith(start)]
    files = [each.name for each in entries if each.suffix in suffixes]
    if not known and not files:
        return []
    folders = [f"{each.name}/" for each in entries if each.suffix not in suffixes and each.is_dir()]
    return [*known, *(CompletionItem(head + slash + name) for name in [*files, *folders])]


def _entries(folder: Path) -> Iterator[Path]:
    with contextlib.suppress(OSError):
        yield from sorted(each for each in folder.iterdir() if not each.name.startswith("."))
