"""Plans: what will be asked of a cloud, as data, and the one executor of them.

Plan (steps, files) --*run*--> what each step gave
                    --*survey*--> what is there already, and what is still to be done

A step looks at what the cloud holds, decides by that whether anything is to be done, does it, and looks until it is
so. Nothing is remembered here: what was interrupted is run again, and goes on where the cloud stands. When a step
fails, the amends of the steps done are made, the last one first.
"""

import importlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from types import ModuleType
from typing import Any, Final, Protocol, runtime_checkable

from ketch import extras
from ketch.errors import CloudRefused, KetchError, NotGiven, NotSettled

SIBLINGS: Final = {"aws": "ketch.steps.aws", "command": "ketch.steps.command", "rest": "ketch.steps.rest"}
MASK: Final = "(secret)"
EVERY: Final = 5.0  # seconds between two looks at something that takes its time
PATIENCE: Final = 900.0  # seconds that a step may take to come about
CONSISTENT: Final = 60.0  # seconds in which a cloud may still not know everywhere what it was told


class Secret(str):
    """A text that is shown nowhere."""

    __slots__ = ()

    def __repr__(self) -> str:
        return MASK


@dataclass(frozen=True)
class Got:
    """What an earlier step gave; `path` leads to the value in it."""

    step: str
    path: tuple[str | int, ...] = ()

    def __str__(self) -> str:
        return f"<{'.'.join(map(str, (self.step, *self.path)))}>"


@dataclass(frozen=True)
class Text:
    """A text with what earlier steps gave in it; its parts stand one behind the other."""

    parts: tuple["str | Got", ...]

    def __str__(self) -> str:
        return "".join(map(str, self.parts))


@runtime_checkable
class Call(Protocol):
    """One thing that is asked of somebody, as data; every field may hold `Got` and `Text`, at any depth."""

    def sent(self) -> Mapping[str, object]:
        """Say what is asked, for a reader: JSON values, with every secret masked by `shown`."""
        ...

    def done(self, hands: "Hands") -> Any:
        """Ask, and give the answer.

        Raises:
            CloudRefused: the answer was no, with the reason's code.
        """
        ...


@dataclass(frozen=True)
class Done:
    """There is nothing to do; `value` is what the step would have given."""

    value: Any = None


@dataclass(frozen=True)
class Both:
    """Several calls whose answers belong together, by name; one that says that there is none gives None."""

    calls: Mapping[str, Call]
    absent: tuple[str, ...] = ()

    def sent(self) -> Mapping[str, object]:
        """Say what is asked."""
        return {name: call.sent() for name, call in self.calls.items()}

    def done(self, hands: "Hands") -> Any:
        """Ask one after the other."""
        return {name: _asked(call, self.absent, hands) for name, call in self.calls.items()}


class Given(dict[str, Any]):
    """What each step gave, by its name."""

    def __missing__(self, name: str) -> Any:
        raise NotGiven(f"The step {name} has given nothing yet", hint="Run the same command again.")


Answers = Mapping[str, Any]
Act = Callable[[Any, Answers], "Call | Done"]


@dataclass(frozen=True)
class Step:
    """One step of a plan.

    `look` asks what is there; an error whose code is among `absent` says that nothing is, and gives None. `act` decides
    by that, and by what earlier steps gave, for a call or that nothing is to be done; without it the call is `call`.
    An error whose code is among `present` says that it is done already, one among `again` that it may be so later.
    With `until`, `look` is asked until it gives something, which is then what the step gives; it raises `DeployError`
    where that will never be. `news` are the lines to tell while it lasts. `amends` are made when this step or a later
    one fails. Seconds: `patience` until it is so, `asks` in which `again` is tried, and `every` between two looks.
    """

    name: str
    title: str
    call: Call | None = None
    look: Call | None = None
    act: Act | None = None
    until: Callable[[Any, Answers], Any] | None = None
    news: Callable[[Any], Iterable[str]] | None = None
    absent: tuple[str, ...] = ()
    present: tuple[str, ...] = ()
    again: tuple[str, ...] = ()
    amends: tuple["Step", ...] = ()
    patience: float = PATIENCE
    asks: float = CONSISTENT
    every: float = EVERY
    secret: bool = False

    def decide(self, found: Any, got: Answers) -> "Call | Done":
        """Decide what is to be done."""
        if self.act is not None:
            return self.act(found, got)
        if self.look is not None and self.until is None and found is not None:
            return Done(found)
        return self.call or Done(found)


@dataclass(frozen=True)
class Plan:
    """What is going to happen: the steps, in their order, and the files that go along, for whoever carries on by hand.

    `uses` says what will be paid for: amounts for a month, by their names in the table of prices.
    """

    target: str
    name: str
    steps: tuple[Step, ...] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)
    uses: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Question:
    """Something to ask, and what the answer says: lines, each with its state: ok, --, or mend."""

    title: str
    call: Call
    told: Callable[[Any], Iterable[tuple[str, str]]]
    absent: tuple[str, ...] = ()


@dataclass
class Hands:
    """What a plan is carried out with; each kind of call keeps its connections in `kept`."""

    environ: Mapping[str, str]
    told: Callable[[str], None] = lambda line: None
    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    kept: dict[Any, Any] = field(default_factory=dict)


def sibling(name: str) -> ModuleType:
    """Import a module of this room by its short name."""
    return importlib.import_module(SIBLINGS[name])


# ---- carrying out ------------------------------------------------------------------------------------


def run(plan: Plan, hands: Hands, got: Given | None = None) -> dict[str, Any]:
    """Carry out a plan, and give what each step gave; a step that fails has amends made for it and those before it.

    Who hands in a `Given` finds in it what was given before a failure, too.

    Raises:
        DeployError: a step failed; the message says what became of the amends.
    """
    got = Given() if got is None else got
    for at, step in enumerate(plan.steps):
        try:
            got[step.name] = _taken(step, got, hands)
        except Exception as error:  # a fault of ours leaves nothing half done, either
            _amend(plan.steps[: at + 1], got, hands, error)
            raise
    return got


def _amend(steps: Sequence[Step], got: dict[str, Any], hands: Hands, error: Exception) -> None:
    for step in reversed(steps):
        for amends in step.amends:
            try:
                got[amends.name] = _taken(amends, got, hands)
            except KetchError as other:
                told = f"{amends.title} failed, too: {other.message}"
                if isinstance(error, KetchError):
                    error.hint = f"{error.hint} {told}".strip()
                else:
                    hands.told(told)
                return


def _taken(step: Step, got: Answers, hands: Hands) -> Any:
    found = _looked(step, got, hands)
    decided = step.decide(found, got)
    if isinstance(decided, Done):
        only_looks = step.act is None and step.call is None
        value = decided.value if step.until is None else step.until(found, got)
        if step.until is None or (value is not None and not only_looks):
            hands.told(step.title if only_looks else f"{step.title}: nothing to do")
            return value
        hands.told(step.title)
    else:
        hands.told(step.title)
        value = _called(step, decided, got, hands)
    return value if step.until is None else _settled(step, got, hands)


def _looked(step: Step, got: Answers, hands: Hands) -> Any:
    return None if step.look is None else _asked(resolved(step.look, got), step.absent, hands)


def _asked(call: Call, absent: Sequence[str], hands: Hands) -> Any:
    try:
        return call.done(hands)
    except CloudRefused as error:
        if error.reason in absent:
            return None
        raise


def _called(step: Step, call: Call, got: Answers, hands: Hands) -> Any:
    ready = resolved(call, got)
    try:
        return _retried(lambda: ready.done(hands), step, hands)
    except CloudRefused as error:
        if error.reason in step.present:
            return _looked(step, got, hands)
        raise


def _retried(attempt: Callable[[], Any], step: Step, hands: Hands) -> Any:
    """Ask again as long as the cloud says that it may be possible later."""
    if not step.again:
        return attempt()
    tenacity: Any = extras.load("tenacity")
    start = hands.now()
    return tenacity.Retrying(
        retry=tenacity.retry_if_exception(lambda error: _reason(error) in step.again),
        stop=lambda state: hands.now() - start > step.asks,
        wait=tenacity.wait_fixed(step.every),
        sleep=hands.sleep,
        reraise=True,
    )(attempt)


def _reason(error: BaseException) -> str:
    if isinstance(error, CloudRefused):
        return error.reason
    return error.code if isinstance(error, KetchError) else ""


def _settled(step: Step, got: Answers, hands: Hands) -> Any:
    """Look until it is so, and tell the news meanwhile."""
    tenacity: Any = extras.load("tenacity")
    until, start, told = step.until, hands.now(), set[str]()

    def look() -> Any:
        found = _looked(step, got, hands)
        for line in step.news(found) if step.news and found is not None else ():
            if line not in told:
                told.add(line)
                hands.told(f"  {line}")
        return None if until is None else until(found, got)

    def late(state: Any) -> Any:
        raise NotSettled(
            f"{step.title}: not done within {step.patience:,.0f} seconds",
            hint="Run the same command again: it goes on where the cloud stands.",
        )

    return tenacity.Retrying(
        retry=tenacity.retry_if_result(lambda value: value is None),
        stop=lambda state: hands.now() - start > step.patience,
        wait=tenacity.wait_fixed(step.every),
        sleep=hands.sleep,
        retry_error_callback=late,
    )(look)


# ---- looking ahead -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ahead:
    """What a step would do: nothing ("there"), its call ("to do"), or one that earlier steps decide on ("then")."""

    step: Step
    state: str
    call: Call | None = None


def survey(plan: Plan, hands: Hands) -> list[Ahead]:
    """Look, and only look, at what a plan would do now.

    Raises:
        CloudRefused: the cloud does not let us look.
    """
    got = Given()
    found = []
    for step in plan.steps:
        ahead, value = _ahead(step, got, hands)
        if ahead.state == "there":
            got[step.name] = value
        found.append(ahead)
    return found


def _ahead(step: Step, got: Answers, hands: Hands) -> tuple[Ahead, Any]:
    try:
        there = _looked(step, got, hands)
        decided = step.decide(there, got)
        if not isinstance(decided, Done):
            return Ahead(step, "to do", decided), None
        return Ahead(step, "there"), decided.value if step.until is None else step.until(there, got)
    except NotGiven:
        return Ahead(step, "then", first(step)), None


def first(step: Step) -> Call | None:
    """Give the call of a step where nothing is there yet; what earlier ones will give stands in it by its name."""
    try:
        decided = step.decide(_nothing(step), Promises())
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, KetchError):  # it depends on what is there
        return step.call
    return None if isinstance(decided, Done) else decided


def _nothing(step: Step) -> Any:
    """Give what a look finds where nothing is: an error, taken for None, or lists with nothing in them."""
    if isinstance(step.look, Both):
        return {name: None if step.look.absent else Nothing() for name in step.look.calls}
    return None if step.absent or step.look is None else Nothing()


class Nothing(dict[str, Any]):
    """An answer in which every list is empty."""

    def __missing__(self, name: str) -> "Nothing":
        return Nothing()


class Promises(dict[str, Any]):
    """What every step will have given: a promise of it."""

    def __missing__(self, name: str) -> "Promise":
        return Promise(f"<{name}>")


class Promise(str):
    """A value that is not known yet: a text that tells which, in brackets, and so is whatever is taken from it."""

    __slots__ = ()

    def __getitem__(self, key: Any) -> "Promise":
        return Promise(f"{self[:-1]}.{key}>") if not isinstance(key, slice) else Promise(super().__getitem__(key))

    def get(self, key: str, default: object = None) -> "Promise":
        """Take a value from it, as from a mapping."""
        return self[key]

    def __iter__(self) -> Iterator["Promise"]:
        return iter((self["…"],))


# ---- what stands for something else -----------------------------------------------------------------


def resolved(value: Any, got: Answers) -> Any:
    """Put in place of every `Got` and `Text` what it stands for, in calls, mappings and sequences of any depth.

    Raises:
        NotGiven: an earlier step did not give it.
    """
    if isinstance(value, Got):
        return _walked(value, got)
    if isinstance(value, Text):
        return "".join(str(resolved(each, got)) for each in value.parts)
    if isinstance(value, Mapping):
        return {name: resolved(each, got) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(resolved(each, got) for each in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{each.name: resolved(getattr(value, each.name), got) for each in fields(value)})
    return value


def _walked(wanted: Got, got: Answers) -> Any:
    try:
        value = got[wanted.step]
        for key in wanted.path:
            value = value[key]
    except (KeyError, IndexError, TypeError):
        raise NotGiven(f"{wanted} is not known", hint="Run the same command again.") from None
    return value


def shown(value: Any) -> Any:
    """Give a value as JSON can say it, for a reader: secrets are masked, and bytes only counted."""
    if isinstance(value, Secret):
        return MASK
    if isinstance(value, Got | Text):
        return str(value)
    if isinstance(value, bytes):
        return f"({len(value):,} bytes)"
    if isinstance(value, Mapping):
        return {str(name): shown(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [shown(each) for each in value]
    return value if isinstance(value, int | float | bool | None) else str(value)
