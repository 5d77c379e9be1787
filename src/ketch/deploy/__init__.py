"""Where a model is deployed to: one file for each target, all under one contract; others come by entry point.

Shipment, options --*Target.plan*--> Plan --*steps.run*--> a live address, which has given its golden predictions

A target only says what is to be done. State is what the cloud says: nothing is written down here.
"""

import difflib
import importlib
import importlib.resources
import re
import tomllib
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Final

from ketch.bundle import SUFFIX, Bundle
from ketch.client import Client
from ketch.errors import AnswersDiffer, CloudRefused, InputError, NotReady, ServiceError, UsageError
from ketch.steps import Got, Hands, Plan, Question, Secret, Step, Text

GROUP: Final = "ketch.targets"  # of entry points: name -> a Target that another package brings
KNOWN: Final = {  # name -> where it stands
    "beanstalk": "ketch.deploy.beanstalk",
    "cloudrun": "ketch.deploy.cloudrun",
    "compose": "ketch.deploy.compose",
    "containerapps": "ketch.deploy.containerapps",
    "ecs": "ketch.deploy.ecs",
    "fly": "ketch.deploy.fly",
    "huggingface": "ketch.deploy.huggingface",
    "kubernetes": "ketch.deploy.kubernetes",
    "lambda": "ketch.deploy.awslambda",
    "netlify": "ketch.deploy.netlify",
    "sagemaker": "ketch.deploy.sagemaker",
    "vertex": "ketch.deploy.vertex",
}
FITS: Final = re.compile(r"[a-z](-?[a-z0-9])+", re.ASCII)  # ECR takes no letter alone, and Azure no two hyphens
HOURS: Final = 730.0  # of a month
NOT_LIVE: Final = "not-live"
LIVE_IN: Final = 300.0  # seconds in which a new address becomes known everywhere
PRICES: Final = "prices.toml"


@dataclass(frozen=True)
class Option:
    """Something to choose for a target: `kind` is text, number or flag; with `choices`, one of them."""

    name: str
    help: str
    default: str | int | bool = ""
    choices: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """Name what it takes."""
        if isinstance(self.default, bool):
            return "flag"
        return "number" if isinstance(self.default, int) else "text"


Options = Mapping[str, Any]  # every option of the target, by name; those not given have their default


@dataclass(frozen=True)
class Shipment:
    """What is deployed: an opened bundle with its bytes, under the name of the deployment.

    `key` is a new calling key, for a deployment that has none yet. `context` makes the build context of an image, as
    `ketch.image` does, from words such as `mode="lambda"`; `site` the static page. Both take their time, and are asked
    when a plan is carried out.
    """

    name: str
    opened: Bundle
    data: bytes
    key: Secret
    signature: bytes | None = None
    context: Callable[..., Any] | None = None
    site: Callable[..., Mapping[str, bytes]] | None = None

    @property
    def label(self) -> str:
        """Name this content: the model and the beginning of its identity."""
        return f"{self.opened.manifest.name}-{self.opened.sha256[:12]}"


Reading = Callable[[str, Options], Sequence[Question]]


@dataclass(frozen=True)
class Target:
    """A place to deploy to: what it takes, and its plans, each made of names and options without asking anybody.

    `takes` is image, site or files. `status`, `logs` and `doctor` only ask. Where there is no way, a verb is None.
    """

    name: str
    summary: str
    takes: str
    plan: Callable[[Shipment, Options], Plan]
    options: tuple[Option, ...] = ()
    status: Reading | None = None
    logs: Reading | None = None
    rollback: Callable[[str, Options], Plan] | None = None
    destroy: Callable[[str, Options], Plan] | None = None
    doctor: Reading | None = None


def target(name: str) -> Target:
    """Give a target by its name.

    Raises:
        UsageError: there is none.
    """
    if name in KNOWN:
        found: Target = importlib.import_module(KNOWN[name]).TARGET
        return found
    for entry in entry_points(group=GROUP, name=name):
        brought = entry.load()
        if isinstance(brought, Target):
            return brought
        raise UsageError(f"{entry.value} is no target", hint=f"Its entry point in {GROUP} must name a Target.")
    require_target(name)
    raise UsageError(f"{name} is no target", hint=f"Its entry point in {GROUP} must name a Target.")


def require_target(name: str) -> None:
    """Refuse a name that is none of a target, and say which one may have been meant.

    Raises:
        UsageError: it is none.
    """
    if name not in (known := names()):
        close = difflib.get_close_matches(name, known, n=1)
        meant = f"Did you mean {close[0]}? " if close else ""
        raise UsageError(f"There is no target {name[:60]!r}", hint=f"{meant}Targets: {', '.join(known)}.")


def names() -> list[str]:
    """Name all targets, those of other packages too."""
    return sorted({*KNOWN, *(entry.name for entry in entry_points(group=GROUP))})


def settled(wanted: Target, given: Mapping[str, Any]) -> dict[str, Any]:
    """Give every option of a target its value: what was given, else the default.

    Raises:
        UsageError: an option is not one of the target's, or not one of its choices.
    """
    known = {option.name: option for option in wanted.options}
    if strangers := sorted(given.keys() - known.keys()):
        raise UsageError(f"{wanted.name} has no option {strangers[0]}", hint=f"It has: {', '.join(known) or 'none'}")
    found = {name: option.default for name, option in known.items()} | dict(given)
    for name, value in found.items():
        if (choices := known[name].choices) and value and value not in choices:
            raise UsageError(f"{name} cannot be {value!r}", hint=f"Choose one of: {', '.join(choices)}")
    return found


def require_forms(options: Options, forms: Mapping[str, tuple[str, str]]) -> None:
    """Refuse what an option cannot be: for each, how it looks, and one that does.

    Raises:
        UsageError: an option does not have its form.
    """
    for name, (form, like) in forms.items():
        if not re.fullmatch(form, options[name], re.ASCII):
            flag = "--" + name.replace("_", "-")
            raise UsageError(f"{options[name][:80]!r} is no {flag}", hint=f"Write it as {like}.")


def require_name(name: str, longest: int = 40) -> str:
    """Give a name of a deployment that every cloud takes: letters, digits and hyphens, beginning with a letter.

    Raises:
        UsageError: it is none.
    """
    if len(name) > longest or not FITS.fullmatch(name):
        bare = re.split("[:@]", name.rpartition("/")[2].removesuffix(SUFFIX))[0]  # of a file or a version in the store
        plain = unicodedata.normalize("NFKD", bare).encode("ascii", "ignore").decode().lower()
        like = re.sub(r"[^a-z0-9]+", "-", plain).lstrip("-0123456789")[:longest].rstrip("-")
        like = like if FITS.fullmatch(like) else "churn"
        raise UsageError(
            f"{name[:60]!r} cannot name a deployment",
            hint=f"Name it {like}, for instance: 2 to {longest} letters from a to z, digits and single hyphens.",
        )
    return name


# ---- is it live --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Smoke:
    """Ask a live service for its golden predictions.

    With `at`, that host is connected to, though the service is asked, and its certificate checked, by the name in the
    address: a domain may not point to a new deployment yet.
    """

    url: str | Got | Text
    key: str | Got
    opened: Bundle
    at: str | Got = ""

    def sent(self) -> Mapping[str, object]:
        """Say what is asked."""
        return {"replay": f"golden predictions of {self.opened.manifest.name}", "url": str(self.url)}

    def done(self, hands: Hands) -> Any:
        """Ask, and give the address.

        Raises:
            CloudRefused: nobody answers there yet. AnswersDiffer: somebody else does, or the wrong model.
        """
        with Client(str(self.url), key=str(self.key), at=str(self.at)) as client:
            try:
                client.replay(self.opened)
            except ServiceError as error:
                hint = "--status and --logs of the deployment show more; the same command goes on where it stands."
                raise CloudRefused(error.message, reason=NOT_LIVE, hint=hint) from None
        return str(self.url)


def smoke(
    shipment: Shipment, url: str | Got | Text, key: str | Got, *, amends: tuple[Step, ...] = (), within: float = LIVE_IN
) -> Step:
    """Make the step that ends every deployment: the golden predictions, asked of the live address.

    It asks for `within` seconds: an address becomes known, and what answered before goes, in their own time.
    """
    call, again = Smoke(url, key, shipment.opened), (NOT_LIVE, AnswersDiffer.code, NotReady.code)
    title = "Ask the live service for its golden predictions"
    return Step("smoke", title, call, again=again, asks=within, amends=amends)


# ---- what it costs -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cost:
    """One line of an estimate: what, how much of it in a month, and dollars; None where the table has no price."""

    what: str
    amount: float
    unit: str
    dollars: float | None


@dataclass(frozen=True)
class Estimate:
    """What a month costs, line by line, by the prices of a day."""

    lines: tuple[Cost, ...]
    date: str

    @property
    def dollars(self) -> float:
        """Add up what has a price."""
        return sum(each.dollars or 0.0 for each in self.lines)

    @property
    def whole(self) -> bool:
        """Say whether everything has a price."""
        return all(each.dollars is not None for each in self.lines)


def prices(path: Path | None = None) -> Mapping[str, Any]:
    """Read the table of prices: Ketch's own, or a copy that somebody has edited.

    Raises:
        InputError: it cannot be read.
    """
    try:
        own = importlib.resources.files("ketch.deploy").joinpath(PRICES)
        return tomllib.loads((path or own).read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path} is no table of prices: {error}", hint=f"Begin with a copy of {PRICES}.") from None


def estimate(uses: Mapping[str, float], table: Mapping[str, Any]) -> Estimate:
    """Estimate what a month costs, line by line."""
    found = []
    for what, amount in uses.items():
        row = table.get("price", {}).get(what)
        known = isinstance(row, dict) and isinstance(row.get("dollars"), int | float)
        dollars = float(row["dollars"]) * amount if known else None
        found.append(Cost(what, amount, str(row.get("unit", "")) if known else "", dollars))
    return Estimate(tuple(found), str(table.get("date", "no day that is told")))
