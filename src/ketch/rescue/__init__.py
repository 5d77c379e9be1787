"""Rescue of old pickles: opened as today's objects, proved against the scikit-learn that wrote them.

old file --*reopened*--> today's model ─┐
         --*Witness*---> old answers   ─┴─*prove*--> worst difference, or refusal
"""

import contextlib
import importlib
import importlib.resources
import json
import pickle
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Protocol, TypeVar

from ketch import extras, trust
from ketch.adapters import Raw, Runner, open_original
from ketch.compiler import NotCompiled
from ketch.compiler.parity import Trial, agree
from ketch.errors import ContractError, KetchError, ModelError, NotAModel, UnsupportedModel, UsageError
from ketch.schema import Columns, slug

SIBLINGS: Final = {
    "breaks": "ketch.rescue.breaks",
    "environment": "ketch.rescue.environment",
    "past": "ketch.rescue.past",
}
SECONDS: Final = 300.0  # for one question
MEMORY: Final = 8 << 30  # bytes of address space, as for the gate's own child
MEMORY_TIMES: Final = 12
GIVEN: Final = "given/"  # where rescued files stand in a bundle as they were
AGAIN: Final = "Fit the model again with today's scikit-learn, from the script that made it."
OFFER: Final = "Rebuild it, proved in the version that wrote it, with: ketch pack --rescue (in Python: rescue=True)"
# what a model of another version raises where it cannot be read or asked
OTHERS: Final = (ContractError, NotAModel)  # which no version is to blame for
STUMBLES: Final = (ModelError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


class Given(Protocol):
    """One old file: its name, its bytes, and the scikit-learn that wrote it."""

    @property
    def name(self) -> str:
        """What messages call it."""

    @property
    def format(self) -> str:
        """How it is read."""

    @property
    def data(self) -> bytes:
        """The file."""

    @property
    def written_by(self) -> str:
        """The version that it names."""


G = TypeVar("G", bound=Any)


def sibling(name: str) -> ModuleType:
    """Import a module of this room by its short name."""
    return importlib.import_module(SIBLINGS[name])


class Case:
    """The files of one model: each is opened as it should be, and what older scikit-learn wrote is not believed.

    Leaving it turns the failure of an older file into the offer of a rescue.
    """

    def __init__(self, *, wanted: bool, home: Path, environ: Mapping[str, str]) -> None:
        self.wanted, self.home, self.environ = wanted, home, environ
        self.old: list[Given] = []
        self._witness: Witness | None = None
        self._until_done = contextlib.ExitStack()

    def __enter__(self) -> "Case":
        return self

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        self._until_done.close()
        if self.old and not self.wanted and isinstance(error, STUMBLES) and not isinstance(error, OTHERS):
            raise _offer(self.old[0], error) from error

    def open(self, source: G) -> tuple[G, object]:
        """Open one file, and give it as it is to be kept: a rescued one is saved again.

        Raises:
            TrustError, ModelError: it must not, or cannot, be opened here.
        """
        if not is_foreign(source):
            return source, open_original(source.data, source.format, home=self.home, name=source.name)
        self.old.append(source)
        if not self.wanted:
            part = open_original(source.data, source.format, home=self.home, name=source.name)
            if told := sibling("breaks").misread(part, source.written_by):
                raise UnsupportedModel(f"{source.name} opens, but answers otherwise than it did: {told}", hint=OFFER)
            return source, part
        part = trust.open_model(source.data, home=self.home, name=source.name, loader=SIBLINGS["past"])
        data = pickle.dumps(part, protocol=5)
        if trust.is_approved(trust.digest(source.data), home=self.home):  # which speaks for what is made of it
            trust.approve(data, home=self.home, name=f"{source.name}, rescued", when=self._now())
        return replace(source, data=data, format="pickle", written_by=""), part

    def _now(self) -> str:
        return datetime.now(UTC).isoformat(timespec="seconds")

    def require_old(self) -> None:
        """Refuse a rescue of what needs none.

        Raises:
            UsageError: no file names another scikit-learn.
        """
        if self.wanted and not self.old:
            raise UsageError(
                "There is nothing to rescue: no file without code of its own names another scikit-learn than this",
                hint="Leave --rescue out.",
            )

    def notes(self) -> list[str]:
        """Say what a person should know of older files that were opened as they are."""
        installed = extras.load("sklearn").__version__ if self.old else ""
        return [
            f"{each.name} was written by scikit-learn {each.written_by}, this is {installed}: compare a few answers "
            "with the original's, or let --rescue compare them"
            for each in self.old
            if not self.wanted
        ]

    def trial(self, runner: Runner) -> Runner:
        """Give a runner that answers where today's model and the old one both do.

        Raises:
            UnsupportedModel, LockError: the old model cannot be asked.
        """
        return Both(self._asked(runner), runner) if self.old and self.wanted else runner

    def _asked(self, runner: Runner) -> Runner:
        if self._witness is None:
            called = witness(self.old, home=self.home, environ=self.environ)
            self._witness = self._until_done.enter_context(called)
        return self._witness.runner(runner)

    def prove(self, trial: Trial) -> dict[str, str]:
        """Hold today's model against the old one, and give what the manifest tells of it; nothing for nothing old.

        Raises:
            UnsupportedModel: they answer differently.
        """
        if not self.old or not self.wanted:
            return {}
        try:
            found = agree(replace(trial, original=self._asked(trial.original)), trial.original, {})
        except NotCompiled as reason:
            raise UnsupportedModel(
                f"{self.old[0].name} cannot be rescued: in today's scikit-learn {reason}", hint=AGAIN
            ) from None
        return {
            "rescued from": f"scikit-learn {self.old[0].written_by}",
            "agreement": f"{found.rows} rows, largest difference {found.worst:.1g}",
        }

    def files(self) -> dict[str, bytes]:
        """Give the rescued files as they were given, by member."""
        if not self.wanted:
            return {}
        return {f"{GIVEN}{place}-{slug(Path(each.name).name)}": each.data for place, each in enumerate(self.old)}


def is_foreign(source: Given) -> bool:
    """Say whether another scikit-learn than today's wrote the file."""
    return bool(source.written_by) and source.written_by != extras.load("sklearn").__version__


def _offer(source: Given, error: Exception) -> UnsupportedModel:
    reason = error.message if isinstance(error, KetchError) else f"{source.name} fails: {type(error).__name__}: {error}"
    if isinstance(error, UnsupportedModel) and error.hint == OFFER:
        return error
    told = sibling("breaks").foreseen(trust.examine(source.data).imports, source.written_by)
    installed = extras.load("sklearn").__version__
    why = f"It was written by scikit-learn {source.written_by}, this is {installed}" + (f": {told}" if told else "")
    return UnsupportedModel(f"{reason.rstrip(' .:')}. {why}", hint=OFFER)


class Both:
    """Answer where the old and today's model both do, and give today's answer."""

    def __init__(self, old: Runner, new: Runner) -> None:
        self.old, self.new = old, new

    def __call__(self, columns: Columns, n: int) -> Raw:
        """Answer `n` rows."""
        self.old(columns, n)
        return self.new(columns, n)


class Refused(Exception):
    """What the old model raised instead of an answer."""


class Witness:
    """The old files, opened in the environment that they came from, in a process of their own."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def hear(self) -> Any:
        """Read one answer.

        Raises:
            Refused: it is an error, or the process ended.
        """
        timer = threading.Timer(SECONDS, self._process.kill)
        timer.start()
        try:
            line = self._process.stdout.readline() if self._process.stdout else ""
        finally:
            timer.cancel()
        told = json.loads(line) if line else {"error": "it crashed, or took too long"}
        if "error" in told:
            raise Refused(told["error"])
        return told.get("answer")

    def _ask(self, method: str, given: Any) -> Any:
        if self._process.stdin is None:
            return None
        with contextlib.suppress(OSError):  # it is gone, which `hear` tells
            self._process.stdin.write(json.dumps({"ask": method, "given": _written(given)}) + "\n")
            self._process.stdin.flush()
        return importlib.import_module("numpy").asarray(self.hear())

    def predict(self, given: Any) -> Any:
        """Ask for labels or numbers."""
        return self._ask("predict", given)

    def predict_proba(self, given: Any) -> Any:
        """Ask for probabilities."""
        return self._ask("predict_proba", given)

    def decision_function(self, given: Any) -> Any:
        """Ask for scores."""
        return self._ask("decision_function", given)

    def runner(self, today: Any) -> Runner:
        """Make a runner like today's, that asks the old model with the same inputs."""
        twin: Any = copy(today)
        twin.model = self
        return twin  # type: ignore[no-any-return]


def _written(given: Any) -> dict[str, object]:
    if isinstance(given, list):
        return {"form": "list", "rows": given}
    if hasattr(given, "columns"):
        columns = [_column(name, given[name]) for name in given.columns]
        return {"form": "frame", "columns": columns}
    return {"form": "array", "kind": _kind(given.dtype), "shape": given.shape, "rows": given.ravel().tolist()}


def _column(name: str, values: Any) -> tuple[str, str, list[object]]:
    if values.dtype.kind == "M":
        return name, "datetime", [None if value is None else str(value) for value in values.tolist()]
    return name, _kind(values.dtype), values.tolist()


def _kind(dtype: Any) -> str:
    return {"f": "float64", "i": "int64", "b": "bool"}.get(getattr(dtype, "kind", "O"), "object")


@contextlib.contextmanager
def witness(sources: Sequence[Given], *, home: Path, environ: Mapping[str, str]) -> Iterator[Witness]:
    """Open old files where they came from. They must have passed the gate: reopen them first.

    Raises:
        UnsupportedModel, LockError: that environment cannot be made here, or does not open them either.
    """
    versions = {each.written_by for each in sources}
    if len(versions) > 1:
        raise UnsupportedModel(
            f"The files were written by scikit-learn {' and '.join(sorted(versions))}",
            hint="Rescue needs files of one version: save them again together, where they were made.",
        )
    seen = [trust.examine(each.data, home=home) for each in sources]
    numpy_2 = any(name.startswith("numpy._core") for each in seen for name in each.imports)
    python = sibling("environment").interpreter(versions.pop(), numpy_2=numpy_2, home=home, environ=environ)
    with tempfile.TemporaryDirectory(prefix="ketch-rescue-") as folder:
        process = started(
            python, Path(folder), sources, [_names(each, home, one) for each, one in zip(sources, seen, strict=True)]
        )
        try:
            found = Witness(process)
            _require_open(found, sources)
            yield found
        finally:
            end(process)


def _names(source: Given, home: Path, seen: trust.Finding) -> list[str] | None:
    return None if trust.is_approved(trust.digest(source.data), home=home) else list(seen.imports)


def started(
    python: Path, folder: Path, sources: Sequence[Given], names: Sequence[list[str] | None]
) -> "subprocess.Popen[str]":
    """Start a witness in an environment; `names` are what it may hand out of each file, None for whatever it asks."""
    for place, each in enumerate(sources):
        (folder / str(place)).write_bytes(each.data)
    memory = MEMORY + MEMORY_TIMES * sum(len(trust.unpacked(each.data)) for each in sources)
    order = {"memory": memory, "files": [(str(place), listed) for place, listed in enumerate(names)]}
    (folder / "order.json").write_text(json.dumps(order), "utf-8")
    program = folder / "witness.py"
    program.write_text(importlib.resources.files("ketch.rescue").joinpath("witness.py").read_text("utf-8"), "utf-8")
    return subprocess.Popen(
        [str(python), "-I", "-B", str(program), str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        encoding="utf-8",
        env=trust.sibling("child").environment(),
        cwd=folder,
    )


def _require_open(found: Witness, sources: Sequence[Given]) -> None:
    try:
        found.hear()
    except Refused as error:
        raise UnsupportedModel(
            f"{sources[0].name} does not open in scikit-learn {sources[0].written_by} either: {error}",
            hint=AGAIN,
        ) from None


def end(process: "subprocess.Popen[str]") -> None:
    """End a witness and wait for it."""
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()
    process.kill()
    process.wait()
