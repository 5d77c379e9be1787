"""`ketch deploy`: a model to a cloud, shown before it is done; one command for each target, made from its options."""

import os
import re
import secrets
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click

from ketch import deploy, steps
from ketch.cli import note, options, settle
from ketch.cli.completion import bundles_and_references
from ketch.cli.image import composed, open_model
from ketch.cli.terminal import fact, json_option, mark, say, table, tell, wants_json
from ketch.deploy import Estimate, Option, Shipment, Target
from ketch.errors import CloudRefused, KetchError, NotInstalled, UsageError
from ketch.settings import Settings
from ketch.steps import Ahead, Given, Hands, Plan, Question, Secret

READ: Final = ("status", "logs", "doctor")
CHANGED: Final = {"rollback": "serves what it served before", "destroy": "is removed"}
CHANGE: Final = tuple(CHANGED)
SIGNS: Final = {"there": "=", "to do": "+", "then": "+"}
WORDS: Final = (
    ("--plan", "Show what would be created or changed, and what it costs; stop there."),
    ("--status", "Say how the deployment NAME is."),
    ("--logs", "Show what the deployment NAME said last."),
    ("--rollback", "Let the deployment NAME serve again what it served before."),
    ("--destroy", "Remove the deployment NAME, and all that was created for it."),
    ("--doctor", "Check, by reading only, what the target needs: who is signed in, quotas, roles."),
    ("--yes", "Do not ask."),
)


class Targets(click.Group):
    """A group with a command for each target, imported only when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List the targets."""
        return deploy.names()

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Make the command of one target."""
        return _command(deploy.target(name)) if name in deploy.names() else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the target, or say which there are."""
        if not ctx.resilient_parsing:  # a shell asks, and shows no errors
            deploy.require_target(args[0])
        return super().resolve_command(ctx, args)


@click.group("deploy", cls=Targets, no_args_is_help=True)
def deploy_command() -> None:
    """Bring a model to a cloud: the plan is shown, and carried out when you agree.

    ketch deploy TARGET MODEL, then ketch deploy TARGET NAME with --status, --logs, --rollback or --destroy.
    """


def _command(target: Target) -> click.Command:
    def called(**given: Any) -> int:
        return _deployed(target, **given)

    made = click.Command(target.name, callback=called, help=target.summary)
    for decorate in _decorations(target):
        made.callback = decorate(made.callback)
    made.params = list(reversed(getattr(made.callback, "__click_params__", [])))
    return made


def _decorations(target: Target) -> list[Callable[..., Any]]:
    """List what a command of a target takes, the last one first."""
    return [
        options("require_signature", "home"),
        json_option,
        click.option("-o", "--output", metavar="FOLDER", help="With --plan: write its files and calls there, too."),
        click.option("--emit", type=click.Choice(("github", "gitlab")), help="Write the CI/CD pipeline; stop there."),
        click.option("--prices", metavar="FILE", help="A table of prices of your own, for the estimate."),
        *(click.option(word, is_flag=True, help=told) for word, told in reversed(WORDS)),
        *(_option(each) for each in reversed(target.options)),
        click.option("--name", default="", help="What to call the deployment.  [the model's name]"),
        click.argument("model", metavar="MODEL|NAME", required=False, shell_complete=bundles_and_references),
    ]


def _option(told: Option) -> Callable[..., Any]:
    flag = "--" + told.name.replace("_", "-")
    shown = f"{told.help}  [{told.default}]" if told.default and told.kind != "flag" else told.help
    if told.kind == "flag":
        return click.option(flag, told.name, is_flag=True, help=shown)
    kind: Any = click.Choice(told.choices) if told.choices else (int if told.kind == "number" else str)
    return click.option(flag, told.name, type=kind, default=None, help=shown)


def _deployed(target: Target, *, model: str | None, name: str, **given: Any) -> int:
    own = {each.name: given.pop(each.name) for each in target.options}  # which may be called as a setting is
    settings = settle(given)
    wanted = [each for each in (*READ, *CHANGE) if given.get(each)]
    if len(wanted) > 1:
        raise UsageError(f"--{wanted[0]} and --{wanted[1]} are two things", hint="Give one of them.")
    chosen = deploy.settled(
        target, {name: value for name, value in own.items() if value is not None and value is not False}
    )
    hands = Hands(os.environ, say)
    verb = wanted[0] if wanted else "deploy"
    if given.get("emit"):
        _emitted(target, _required(model, "Which MODEL?"), name, chosen, given, settings)
    elif verb in READ:
        return _read(target, verb, name or model or "", chosen, hands)
    elif verb in CHANGE:
        plan = _way(target, verb)(_named(name or model, verb), chosen)
        if _carried_out(plan, given, hands, Given()):
            tell({"target": target.name, "name": plan.name, "done": verb}, f"{plan.name} {CHANGED[verb]}")
    else:
        deployed(target, shipment(_required(model, "Which MODEL?"), name, settings), chosen, given, hands)
    return 0


def _emitted(
    target: Target, model: str, name: str, chosen: Mapping[str, Any], given: Mapping[str, Any], settings: Settings
) -> None:
    """Write the pipeline that deploys so, beside what is there; what cannot be planned is told now, not by it."""
    from importlib.metadata import version

    from ketch.deploy import emit

    flags = []
    for each in target.options:
        if chosen[each.name] != each.default:
            flags += ["--" + each.name.replace("_", "-"), *([] if each.kind == "flag" else [str(chosen[each.name])])]
    if Path(model).exists():
        shipped = shipment(model, name, settings)
        target.plan(shipped, chosen)
        name = shipped.name
    else:
        note(f"there is no file {model} here, so that nothing was tried: the pipeline must find it")
        name = deploy.require_name(name or re.split("[:@]", Path(model).stem)[0])
    wanted = emit.Wanted(target.name, model, name, tuple(flags), version("ketch"))
    for path, text in emit.pipeline(given["emit"], wanted).items():
        place = Path(given.get("output") or ".") / path
        if place.exists():
            raise UsageError(f"{place} is there already", hint="Move it away, or choose another folder with -o.")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, "utf-8", newline="\n")
        tell(
            {"pipeline": str(place)},
            f"{place} deploys {name}: a plan where a change is proposed, live when it is merged",
        )


def _required(value: str | None, told: str) -> str:
    if not value:
        raise UsageError(told, hint="ketch deploy TARGET --help shows how.")
    return value


def _named(value: str | None, verb: str) -> str:
    """Give the name of a deployment that is there."""
    return deploy.require_name(_required(value, f"--{verb} needs the NAME of a deployment."))


def _way(target: Target, verb: str) -> Any:
    way = getattr(target, verb)
    if way is None:
        raise UsageError(
            f"{target.name} has no --{verb}", hint=f"The page of the documentation on {target.name} says why."
        )
    return way


def shipment(model: str, name: str, settings: Settings) -> Shipment:
    """Open a model, and make ready what its deployment may ask for.

    Raises:
        KetchError: it cannot be opened, or the name is none.
    """
    from ketch.ui import runtime, site

    opened = open_model(model, settings)

    def context(**words: Any) -> Any:
        return composed(opened, settings, None, {"extras": "", **words})

    return Shipment(
        deploy.require_name(name or opened.bundle.manifest.name),
        opened.bundle,
        opened.data,
        Secret(secrets.token_urlsafe(32)),
        signature=opened.signature or None,
        context=context,
        site=lambda url="": site.site(opened.bundle, runtime=lambda: runtime.files(settings.home, ""), url=url),
    )


# ---- asking ------------------------------------------------------------------------------------------


def _read(target: Target, verb: str, name: str, chosen: Mapping[str, Any], hands: Hands) -> int:
    """Ask, and tell the answers; gives 1 where something must be mended."""
    if name or verb != "doctor":
        name = _named(name, verb)
    found = [_answered(each, hands) for each in _way(target, verb)(name, chosen)]
    faults = {text: title for title, lines in reversed(found) for state, text in lines if state == "mend"}
    if wants_json():
        tell([{"title": title, "lines": lines} for title, lines in found], "")
        return 1 if faults else 0
    if not any(lines for _, lines in found):
        note("there is nothing to tell yet")
    for title, lines in found:
        for state, text in lines:
            if state != "mend" or faults[text] == title:  # what hinders several questions is told once
                mark(state, f"{title}: {text}") if verb == "doctor" else say(text)
    return 1 if faults else 0


def _answered(question: Question, hands: Hands) -> tuple[str, list[tuple[str, str]]]:
    try:
        answer = question.call.done(hands)
    except CloudRefused as error:
        if error.reason in question.absent:
            return question.title, list(question.told(None))
        return question.title, [("mend", f"{error.message.rstrip('.')}. {error.hint}".strip())]
    except NotInstalled as error:
        return question.title, [("mend", f"{error.message}. {error.hint}")]
    return question.title, list(question.told(answer))


# ---- doing -------------------------------------------------------------------------------------------


def deployed(
    target: Target, shipped: Shipment, chosen: Mapping[str, Any], given: Mapping[str, Any], hands: Hands
) -> None:
    """Show the plan of a deployment, ask, carry it out, and tell where it is live."""
    plan = target.plan(shipped, chosen)
    if not plan.steps:
        _handed_out(plan, given)
        return
    got = Given()
    try:
        if not _carried_out(plan, given, hands, got):
            return
        address = str(got.get("smoke", ""))
        record = {"target": target.name, "name": plan.name, "url": address}
        tell(record, f"{plan.name} is live at {address}" if address else f"{plan.name} is deployed")
    finally:  # where a later step fails, too: the next run finds the key kept, and could not tell it
        if got.get("key") == shipped.key:
            _tell_key(shipped.key, hands)
    if given.get("yes"):  # else the plan told it before
        for line in plan.notes:
            note(line)


def _tell_key(key: Secret, hands: Hands) -> None:
    if hands.environ.get("CI"):
        say("A key was made; it stays where the target keeps it, since others read this log")
        return
    say(f"Its key, shown this once: {str.__str__(key)}")
    note("callers send it as Authorization: Bearer, or in KETCH_API_KEY of ketch.Client")


def _handed_out(plan: Plan, given: Mapping[str, Any]) -> None:
    """Write the files of a target that is carried out by its own tools."""
    costs = _estimated(plan, given)
    if given.get("plan"):
        _shown(plan, costs, ())
    elif not given.get("output"):
        raise UsageError(
            f"{plan.target} gives files, for its own tool to take", hint="Say where to write them: -o FOLDER"
        )
    if given.get("output"):
        written(plan, costs, Path(given["output"]))
    if not given.get("plan"):
        tell(
            {"target": plan.target, "name": plan.name, "folder": given["output"]},
            f"{given['output']} holds {plan.name}",
        )
        for line in plan.notes:
            note(line)


def _carried_out(plan: Plan, given: Mapping[str, Any], hands: Hands, got: Given) -> bool:
    """Show a plan, ask, and carry it out; say whether it was."""
    costs = _estimated(plan, given)
    if given.get("plan") or not given.get("yes"):
        _shown(plan, costs, _ahead(plan, hands))
    if given.get("output"):
        written(plan, costs, Path(given["output"]))
    if given.get("plan"):
        return False
    if wants_json() and not given.get("yes"):
        raise UsageError("--json asks nothing", hint="Say --yes, or --plan.")
    if not given.get("yes") and not _agreed():
        raise UsageError("Nothing was done", hint="Agree, or say --yes.")
    try:
        steps.run(plan, hands, got)
    except KeyboardInterrupt:
        note("interrupted: run the same command again, and it goes on where the target stands")
        raise
    return True


def _agreed() -> bool:
    try:
        return click.confirm("Carry it out?", err=True)
    except click.Abort:
        click.echo(err=True)
        if sys.stdin.isatty():
            raise
        return False  # nobody is there


def _estimated(plan: Plan, given: Mapping[str, Any]) -> Estimate:
    return deploy.estimate(plan.uses, deploy.prices(Path(given["prices"]) if given.get("prices") else None))


def _ahead(plan: Plan, hands: Hands) -> list[Ahead]:
    try:
        return steps.survey(plan, hands)
    except KetchError as error:  # who only wants to see the plan need not be signed in
        note(f"not compared with what is there: {error.message}")
        return [Ahead(step, "to do", steps.first(step)) for step in plan.steps]


def _shown(plan: Plan, costs: Estimate, ahead: Sequence[Ahead]) -> None:
    if wants_json():
        tell(described(plan, costs, ahead), "")
        return
    for each in ahead:
        say(f"{SIGNS[each.state]} {each.step.title}")
        for line in _calls(each.call):
            say(f"    {line}")
    for path, data in plan.files.items():
        say(f"  file {path} ({len(data):,} bytes)")
    for line in plan.notes:
        note(line)
    if costs.lines:
        rows = [
            (each.what, f"{each.amount:,.6g}", each.unit, "?" if each.dollars is None else f"{each.dollars:,.2f}")
            for each in costs.lines
        ]
        table(None, ("used", "amount", "unit", "dollars a month"), rows, right=("amount", "dollars a month"))
        more = "" if costs.whole else ", and what has no price here"
        fact("about", f"{costs.dollars:,.2f} dollars a month{more}, by prices of {costs.date}; see --prices")


def _calls(call: Any) -> list[str]:
    if call is None:
        return []
    from ketch.page import spelled

    return spelled(call.sent(), indent=2).splitlines()


def described(plan: Plan, costs: Estimate, ahead: Sequence[Ahead]) -> dict[str, object]:
    """Describe a plan for a program: JSON values, without any secret."""
    return {
        "target": plan.target,
        "name": plan.name,
        "steps": [
            {
                "name": each.step.name,
                "title": each.step.title,
                "state": each.state,
                "call": None if each.call is None else each.call.sent(),
            }
            for each in ahead
        ],
        "files": {path: len(data) for path, data in plan.files.items()},
        "costs": [
            {"what": each.what, "amount": each.amount, "unit": each.unit, "dollars": each.dollars}
            for each in costs.lines
        ],
        "dollars": costs.dollars,
        "prices": costs.date,
        "notes": list(plan.notes),
    }


def written(plan: Plan, costs: Estimate, folder: Path) -> None:
    """Write the files of a plan into an empty folder, and its calls beside them as plan.json."""
    from ketch.page import spelled
    from ketch.steps.files import write

    ahead = [Ahead(step, "to do", steps.first(step)) for step in plan.steps]
    told = spelled(described(plan, costs, ahead), indent=1).encode() + b"\n"
    write({**plan.files, "plan.json": told}, folder)
