"""The command line: verbs in five groups, each a few lines over the module of its name."""

import difflib
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

import click

from ketch.errors import InputError, KetchError, KetchWarning, UsageError
from ketch.settings import NAMES, TABLE, Settings, read

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

GROUPS: Final = {  # group -> verb -> (module of this room, what it does)
    "make": {
        "script": ("script", "Write the training script that a notebook contains."),
        "pack": ("pack", "Make a bundle from a model file."),
        "inspect": ("inspect", "Show what a bundle holds and promises."),
        "lock": ("lock", "Freeze the environment of a bundle."),
        "sign": ("sign", "Sign a bundle with a key of yours."),
        "verify": ("sign", "Say who signed a bundle."),
    },
    "keep": {
        "push": ("store", "Put a bundle into the store as a new version."),
        "pull": ("store", "Get a version out of the store."),
        "list": ("store", "List what the store holds."),
        "promote": ("store", "Point an alias, champion, at a version."),
        "rollback": ("store", "Point an alias back at what it was before."),
        "keys": ("keys", "Make, trust, list and revoke keys."),
    },
    "run": {
        "serve": ("serve", "Answer over HTTP."),
        "score": ("score", "Answer every row of a table."),
        "ui": ("ui", "Show a page for people, here or in their browser."),
        "client": ("client", "Give callers what they need: a Postman collection, snippets."),
        "demo": ("demo", "See the whole road on an example."),
    },
    "care": {},
    "ship": {
        "image": ("image", "Make a container image, and see that it answers right."),
        "deploy": ("deploy", "Bring a model to a cloud."),
        "up": ("up", "Bring a model up, by the shortest path."),
        "doctor": ("doctor", "Check this machine."),
        "export": ("export", "Write a plain project that needs no Ketch."),
        "completion": ("completion", "Let your shell complete commands."),
    },
}
PLANNED: Final = {
    "make": (),
    "keep": ("store",),
    "run": (),
    "care": ("watch", "feedback", "retrain"),
    "ship": (),
}
VERBS: Final = {verb: place for verbs in GROUPS.values() for verb, place in verbs.items()}
COMPLETE: Final = "_KETCH_COMPLETE"  # by which a shell asks what may come next

F = TypeVar("F", bound=Callable[..., Any])


class Ketch(click.Group):
    """A group that imports a verb only when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List the verbs in the order of their groups."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import one verb."""
        if name not in VERBS:
            return None
        module = importlib.import_module(f"ketch.cli.{VERBS[name][0]}")
        found: click.Command = getattr(module, f"{name}_command")
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb, or say which one may have been meant."""
        name = args[0]
        if name in VERBS:
            return super().resolve_command(ctx, args)
        if ctx.resilient_parsing:  # a shell asks, and shows no errors
            return None, None, []
        if any(name in names for names in PLANNED.values()):
            raise click.UsageError(f"{name!r} is planned; this version of Ketch does not have it yet.")
        close = difflib.get_close_matches(name, VERBS, n=1)
        raise click.UsageError(f"There is no verb {name!r}." + (f" Did you mean {close[0]!r}?" if close else ""))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> "list[CompletionItem[str]]":
        """Offer the verbs, without importing any of them."""
        from click.shell_completion import CompletionItem

        verbs = [CompletionItem(verb, help=told) for verb, (_, told) in VERBS.items() if verb.startswith(incomplete)]
        return [*verbs, *click.Command.shell_complete(self, ctx, incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the verbs group by group."""
        for group, verbs in GROUPS.items():
            rows = [(verb, summary) for verb, (_, summary) in verbs.items()]
            planned = [("(planned)", ", ".join(PLANNED[group]))] if PLANNED[group] else []
            with formatter.section(group):
                formatter.write_dl([*rows, *planned])


@click.group(cls=Ketch, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ketch", message="ketch %(version)s")
def cli() -> None:
    """Carry a trained model from a notebook to production."""


def main() -> None:
    """Run the command line; every refusal is at most four lines with a remedy."""
    _prepare()
    try:
        code = cli.main(standalone_mode=False, complete_var=COMPLETE)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        asked = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "ketch"
        hint = f"See: {asked} --help"
        code = complain(error.format_message(), hint, code=2, kind=UsageError.code)
    except KetchError as error:
        code = complain(error.message, error.hint, code=1, kind=error.code)
    except BrokenPipeError:
        sys.stderr.close()
        code = 0
    except Exception as error:
        if os.environ.get("KETCH_DEBUG"):
            raise
        reason = f"{type(error).__name__}: {error}".partition("\n")[0][:300]
        hint = "KETCH_DEBUG=1 shows where; please report it."
        code = complain(f"This is a bug in Ketch: {reason}", hint, code=70, kind="bug")
    sys.exit(code if isinstance(code, int) else 0)


def _prepare() -> None:
    if COMPLETE in os.environ:
        importlib.import_module("ketch.cli.completion").register()
    if not os.environ.get("KETCH_DEBUG"):
        import warnings

        warnings.simplefilter("ignore")  # libraries warn developers; a person gets Ketch's own notes
        warnings.simplefilter("always", KetchWarning)
        warnings.showwarning = lambda message, *_, **__: note(str(message))


def complain(message: str, hint: str, *, code: int, kind: str = KetchError.code) -> int:
    """Say on standard error what is wrong and what to do, to a program as JSON; give the exit code back."""
    message, hint = " ".join(message.split()), " ".join(hint.split())
    if "--json" in sys.argv:  # the command line may be what is wrong, so that nothing has read it
        import json

        click.echo(json.dumps({"code": kind, "message": message, "hint": hint}), err=True)
        return code
    click.secho("ketch: ", err=True, nl=False, fg="red", color=in_colour())
    click.echo(visible(message), err=True)
    if hint:
        click.echo("  " + visible(hint), err=True)
    return code


def note(text: str) -> None:
    """Say something worth knowing on standard error."""
    click.secho("note: ", err=True, nl=False, fg="yellow", color=in_colour())
    click.echo(visible(text), err=True)


def in_colour() -> bool | None:
    """Say whether colours are out of the question; otherwise a terminal gets them, and a pipe does not."""
    return False if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" else None


def write(path: Path, text: str) -> None:
    """Write a file that a person has named.

    Raises:
        InputError: it cannot be written.
    """
    try:
        path.write_text(text, "utf-8")
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}", hint="Choose another with -o.") from None


def visible(text: str) -> str:
    """Spell out what would move a terminal's cursor or hide letters, since a person decides by what a file says."""
    return "".join(
        each if each.isprintable() or each in "\n\t" else each.encode("unicode_escape").decode() for each in text
    )


def options(*names: str) -> Callable[[F], F]:
    """Add the flags of the settings named, with help and variable from their table."""

    def add(function: F) -> F:
        for name in reversed(names):
            row = NAMES[name]
            flag = row.default in {"true", "false"}
            told = f"{row.help}  [{row.variable}]" if flag else f"{row.help}  [{row.variable}; {row.default or 'none'}]"
            if flag:
                function = click.option(row.flag, name, is_flag=True, default=None, help=told)(function)
            else:
                function = click.option(row.flag, name, metavar="VALUE", help=told)(function)
        return function

    return add


def settle(flags: dict[str, Any]) -> Settings:
    """Take the flags that are settings out of a command's arguments, and settle all settings."""
    known = {row.name for row in TABLE}
    return read({name: flags.pop(name) for name in list(flags) if name in known}, environ=os.environ, folder=Path.cwd())


def _trust_value(ctx: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None and value != "this" and not value.startswith("sha256:"):
        raise click.UsageError("Put --trust behind the file, or give --trust=sha256:…", ctx)
    return value


trust_option = click.option(
    "--trust",
    is_flag=False,
    flag_value="this",
    is_eager=True,
    callback=_trust_value,
    metavar="[sha256:…]",
    help="Approve this one file although it runs code of its own when opened.",
)


def settle_trust(models: Sequence[str], value: str | None, home: Path) -> None:
    """Approve the one file that --trust speaks of, after listing what it imports.

    Raises:
        click.UsageError: it is not clear which file is meant.
    """
    if value is None:
        return
    from datetime import UTC, datetime

    from ketch import code
    from ketch.predict import opened_units

    units = opened_units(models, home=home)
    if value.startswith("sha256:"):
        wanted = value.removeprefix("sha256:").lower()
        chosen = [unit for unit in units if wanted in unit.identities]
        if not chosen:
            raise click.UsageError(f"None of the files given has the SHA-256 {wanted[:12]}…")
    else:
        chosen = [unit for unit in units if code.needs_trust(unit.parts, unit.files, home=home)]
        if len(chosen) > 1:
            raise click.UsageError("More than one of these files needs approval; name one with --trust=sha256:…")
    for unit in chosen:
        when = datetime.now(UTC).isoformat(timespec="seconds")
        told = code.approve(unit.parts, unit.files, home=home, name=unit.name, when=when)
        note(f"{unit.name} is trusted from now on; {told}")


def isolate(model: str, settings: Settings, *, trusted: str | None, wanted: Sequence[str] = ()) -> NoReturn:
    """Run this very command again in the environment of its bundle, instead of here.

    `trusted` is what --trust says, `wanted` are extras of Ketch that the command needs.

    Raises:
        LockError, NotInstalled: the environment cannot be made.
        TrustError: it holds packages that only who trusts the bundle's maker installs.
    """
    import subprocess

    from ketch import lock
    from ketch.predict import fetch, fetch_bundle, signer_of

    home = settings.home
    fetched = fetch(model, home)  # once: what was signed is what is installed
    signer = signer_of(model, fetched, home=home, required=settings.require_signature)
    opened = fetch_bundle(model, home=home, fetched=fetched)
    manifest = opened.manifest
    needed = lock.environment(manifest.versions, serves=manifest.serves, members=opened.files, wanted=wanted)
    locked = opened.files[lock.CAPTURED] if lock.LOCKED in opened.files else None
    if not signer and trusted != f"sha256:{opened.sha256}":
        lock.require_known(needed, locked, f"{manifest.name};sha256:{opened.sha256}")
    python = lock.interpreter(needed, locked, home=home, environ=os.environ)
    told = [str(python), "-I", "-m", "ketch", *(word for word in sys.argv[1:] if word != NAMES["isolated"].flag)]
    environ = {**os.environ, NAMES["isolated"].variable: "false"}
    if os.name == "posix":
        os.execve(python, told, environ)  # noqa: S606 (the very point)
    sys.exit(subprocess.call(told, env=environ))
