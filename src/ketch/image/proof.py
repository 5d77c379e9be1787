"""The proof of an image: it is started as strangers should be, and must give the golden answers of its bundle.

context --*build*--> image on trial --*prove*: started, asked the golden rows--> image under its own name
"""

import contextlib
import csv
import importlib.resources
import io
import json
import math
import secrets
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from ketch import codec
from ketch.bundle import Bundle
from ketch.client import Client, hold
from ketch.errors import AnswersDiffer, ImageError
from ketch.image import MODES, Context, repository, write
from ketch.image.engine import Built, Container, Engine, is_native
from ketch.page import Example, answered
from ketch.schema.checks import Checker

PATIENCE: Final = 120.0  # seconds until an image must answer
LEAST: Final = 512 * 2**20  # bytes of memory that it is given
TIMES: Final = 20  # and this many times the bundle


@dataclass(frozen=True)
class Good:
    """An image that was built, and what was seen of it: how many golden rows it answers, where it was asked."""

    built: Built
    rows: int
    unproved: str = ""


def build(engine: Engine, made: Context, opened: Bundle, *, network: str = "none") -> Good:
    """Build an image and prove it; only then it gets its name.

    Raises:
        AnswersDiffer, ImageError: it cannot be built, or is not good.
    """
    trial = replace(made, tag=f"{repository(made.name)}:trial-{secrets.token_hex(6)}")
    try:
        with tempfile.TemporaryDirectory(prefix="ketch-image-") as folder:
            write(made, Path(folder) / "context")
            engine.build(Path(folder) / "context", trial.tag, made.recipe.platform, network=network)
        unproved = _unproved(engine, made)
        rows = 0 if unproved else prove(engine, trial, opened)
        engine.call("tag", trial.tag, made.tag)
    finally:
        with contextlib.suppress(ImageError):  # it may not have come so far
            engine.remove(trial.tag)
    return Good(engine.measure(made.tag, made.base), rows, unproved)


def _unproved(engine: Engine, made: Context) -> str:
    if not engine.runs:
        return f"it was not started: {engine.name} only builds"
    if not is_native(made.recipe.platform):
        return f"it was not started: this machine does not run {made.recipe.platform}"
    return ""


def prove(engine: Engine, made: Context, opened: Bundle) -> int:
    """Start an image and ask it the golden rows of its bundle; count them.

    Raises:
        AnswersDiffer: it answers otherwise. ImageError: it does not run; with the last lines that it wrote.
    """
    return PROOFS[made.recipe.mode](engine, made, opened)


def memory_of(made: Context) -> str:
    """Say how much memory an image may take while it is tried."""
    size = next(len(data) for path, data in made.files.items() if path.endswith(".ketch"))
    page = 2 if made.recipe.mode == "page" else 1
    return f"{page * math.ceil((LEAST + TIMES * size) / 2**20)}m"


def _service(engine: Engine, made: Context, opened: Bundle) -> int:
    key = secrets.token_urlsafe(32)
    with engine.started(made.tag, environ={"KETCH_API_KEYS": key}, port=made.config.port, memory=memory_of(made)) as it:
        it.wait(MODES["service"].health, PATIENCE)
        try:
            with Client(it.url, key=key) as client:
                return client.replay(opened)
        except AnswersDiffer as error:
            raise _with_logs(error, it) from None


def _with_logs(error: AnswersDiffer, container: Container) -> AnswersDiffer:
    said = container.logs()
    return AnswersDiffer(f"{error.message}. It wrote: {said}", hint="The image is not good as it is.")


def _page(engine: Engine, made: Context, opened: Bundle) -> int:
    """See that the page is there; its rows are asked in a browser, which nobody has here."""
    key = secrets.token_urlsafe(32)
    with engine.started(made.tag, environ={"KETCH_API_KEYS": key}, port=made.config.port, memory=memory_of(made)) as it:
        it.wait(MODES["page"].health, PATIENCE)
        it.wait("/", PATIENCE)
    return 0


def _job(engine: Engine, made: Context, opened: Bundle) -> int:
    listed = answered(opened, Checker(opened.contract.fields))
    if not listed:
        return 0
    names = list(dict.fromkeys(name for each in listed for name in each.row))
    with tempfile.TemporaryDirectory(prefix="ketch-") as made_here:
        folder = Path(made_here)
        folder.chmod(0o777)  # the user in the container is nobody here
        rows = [[codec.csv_cell(each.row.get(name)) for name in names] for each in listed]
        (folder / "rows.csv").write_text(_csv([names, *rows]), "utf-8")
        mount = ["--volume", f"{folder}:/data", "--memory", memory_of(made)]
        mount += ["--security-opt", "label=disable"]  # SELinux would keep it from a folder of this machine
        engine.once(made.tag, "/data/rows.csv", "-o", "/data/answers.csv", words=mount)
        with (folder / "answers.csv").open(encoding="utf-8", newline="") as opened_file:
            found = [*csv.DictReader(opened_file)]
    got, wanted = _flat(listed, found)
    hold(got, wanted, opened, who=made.tag)
    return len(listed)


def _csv(rows: Sequence[Sequence[object]]) -> str:
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue()


def _flat(listed: Sequence[Example], found: Sequence[Mapping[str, str]]) -> tuple[list[object], list[Example]]:
    """Bring answers of the wire and those of a table to one form."""
    wanted = [
        {name: values[0] for name, values in codec.flatten({k: [v] for k, v in each.answer.items()}).items()}
        for each in listed
    ]
    got: list[object] = [
        {name: _read(row.get(name, ""), value) for name, value in each.items()}
        for each, row in zip(wanted, found, strict=False)
    ]
    return got, [Example(each.row, flat) for each, flat in zip(listed, wanted, strict=True)]


def _read(cell: str, wanted: object) -> object:
    """Read a cell as what it should be; what it cannot be stays a text."""
    if isinstance(wanted, bool):
        return {"true": True, "false": False}.get(cell.lower(), cell)
    try:
        return type(wanted)(cell) if isinstance(wanted, int | float) else cell
    except ValueError:
        return cell


def _lambda(engine: Engine, made: Context, opened: Bundle) -> int:
    listed = answered(opened, Checker(opened.contract.fields))
    events = [json.dumps(event_of("/health/live")), *(json.dumps(event_of("/predict", each.row)) for each in listed)]
    program = importlib.resources.files("ketch.image").joinpath("invoke.py").read_text("utf-8")
    words = ("--env", "KETCH_AUTH=platform", "--memory", memory_of(made), "--entrypoint", "python3")
    command = ("-c", program, *made.config.entrypoint, *made.config.command)
    try:
        said = engine.once(made.tag, *command, words=words, stdin="\n".join(events))
    except ImageError as error:
        raise ImageError(f"The function does not answer: {error.message}", hint="It is not good as it is.") from None
    results = [each.get("answer") or each for each in json.loads(said.splitlines()[-1])]
    if len(results) != len(events) or results[0].get("statusCode") != 200:
        raise ImageError(f"The function does not answer: {json.dumps(results)[:600]}", hint="It is not good as it is.")
    hold([json.loads(each.get("body", "null")) for each in results[1:]], listed, opened, who=made.tag)
    return len(listed)


def event_of(path: str, row: Any = None) -> dict[str, Any]:
    """Write what a function URL sends for a request; a row is sent by POST."""
    method = "GET" if row is None else "POST"
    return {
        "version": "2.0",
        "rawPath": path,
        "rawQueryString": "",
        "headers": {"host": "model.example", "content-type": codec.JSON},
        "requestContext": {"http": {"method": method, "path": path}, "stage": "$default"},
        "body": None if row is None else json.dumps(row),
        "isBase64Encoded": False,
    }


PROOFS: Final[Mapping[str, Callable[[Engine, Context, Bundle], int]]] = {
    "service": _service,
    "page": _page,
    "job": _job,
    "lambda": _lambda,
}
