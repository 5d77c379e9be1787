"""Run notebook and script in processes of their own, on copies of the same files, and compare the models they make.

Notebook, Script --*prove*--> Proof
"""

import asyncio
import importlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ketch import extras
from ketch.errors import InputError
from ketch.slicer import SEED, Script, value_of, whole
from ketch.slicer import script as script_of
from ketch.slicer.folder import copied
from ketch.slicer.notebook import Notebook, Split
from ketch.slicer.opened import opened
from ketch.slicer.run import PATIENCE, refusals, run

MOST_TRIES: Final = 6
LONGEST: Final = 80  # letters of a folder whose files can be sockets
OFFLINE: Final = """
import socket as __s
def __refused(*given, **named):
    raise OSError("ketch script runs notebooks without a network; give --network to allow it")
__connect = __s.socket.connect
def __only_here(self, address):
    if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "localhost", "::1"):
        __refused()
    return __connect(self, address)
__s.socket.connect = __only_here
__found = __s.getaddrinfo
def __found_here(host, *given, **named):
    return __found(host, *given, **named) if host in ("127.0.0.1", "localhost", "::1", None) else __refused()
__s.getaddrinfo = __found_here
"""
SEEDING: Final = f"import random as __r, numpy as __n; __r.seed({SEED}); __n.random.seed({SEED})"


@dataclass
class Proof:
    """What became of the proof: the models are the same where `differences` is empty and `failure` too."""

    ran: bool = True
    failure: str = ""
    of_notebook: bool = False  # it is the notebook that could not be run
    differences: list[str] = field(default_factory=list)
    refusals: dict[str, str] = field(default_factory=dict)  # of `ketch.pack`, with the script's data and without

    @property
    def holds(self) -> bool:
        """Say whether both made the same model."""
        return self.ran and not self.failure and not self.differences


class Trial:
    """A folder in which the notebook has run, and scripts are held against what it made."""

    def __init__(self, notebook: Notebook, folder: Path, *, network: bool, shell: bool) -> None:
        self.notebook, self.folder, self.network, self.shell = notebook, folder, network, shell
        self._ran: tuple[object, ...] = ()
        self._tries = 0

    def proof(self, made: Script) -> Proof:
        """Run the notebook, unless it has run, and the script; compare what they made."""
        part = (made.goal.names, made.goal.until, () if made.seeded else tuple(made.kept))
        one = self.folder / "one"
        if self._ran != part:
            place = copied(self.notebook, self.folder / f"notebook{self._tries}")
            failure = run_notebook(self.notebook, made, place, one, network=self.network, shell=self.shell)
            if failure:
                return Proof(failure=failure, of_notebook=True)
            self._ran = part
        self._tries += 1
        other = self.folder / f"other{self._tries}"
        place = copied(self.notebook, self.folder / f"script{self._tries}") / "ketch_script.py"
        place.write_text(made.trial, "utf-8")
        failure = run(place, other)
        if failure:
            return Proof(failure=failure)
        return Proof(differences=compare(one, other), refusals=refusals(other))


def proved(
    notebook: Notebook, *, model: str = "", run: bool = True, network: bool = False, shell: bool = False
) -> tuple[Script, Proof]:
    """Write the tightest script that makes the same model as the notebook, else all that ran, with a warning.

    Raises:
        NotInstalled: the extra `notebook` is missing.
    """
    try:
        made = script_of(notebook, model=model, tight=run)
    except InputError as error:
        if inner := opened(notebook):
            return proved(inner, model=model, run=run, network=network, shell=shell)
        return whole(notebook, model=model).warned(f"{error.message}. {error.hint}"), Proof(failure=error.message)
    if not run:
        return made.warned("Nothing was run (--no-run)."), Proof(ran=False)
    if made.fetches and not network:
        made.notes.append(
            f"The data comes from the network, which is open to the notebook: {', '.join(made.fetches[:3])}."
        )
    with tempfile.TemporaryDirectory(prefix="ketch-script-") as name:
        trial = Trial(notebook, Path(name), network=network or bool(made.fetches), shell=shell)
        proof = trial.proof(made)
        if proof.holds:
            return _packable(_trimmed(trial, made, model), proof), proof
        if proof.of_notebook:
            return script_of(notebook, model=model, tight=False).warned(proof.failure), proof
        careful = script_of(notebook, model=model, tight=False)
        if careful.text != made.text and (again := trial.proof(careful)).holds:
            return _packable(careful, again), again
        everything = whole(notebook, model=model)
        if (again := trial.proof(everything)).holds:
            everything.notes.append("All that ran stays: the script needs it, or could not be told what it needs.")
            return _packable(everything, again), again
    why = proof.failure or f"They differ: {'; '.join(proof.differences[:3])}"
    return everything.warned(why), proof


def _trimmed(trial: Trial, made: Script, model: str) -> Script:
    """Leave out what sets a part that nothing mentions again, where the model is the same without it."""
    spare = frozenset[int]()
    groups = [made.spare, *([each] for each in made.spare if len(made.spare) > 1)]
    for group in groups[: 1 + MOST_TRIES]:
        if not group or spare >= {*group}:
            continue
        tighter = script_of(trial.notebook, model=model, without=spare | {*group})
        if trial.proof(tighter).holds:
            spare, made = spare | {*group}, tighter
            if group == groups[0]:
                break
    return made


def _packable(made: Script, proof: Proof) -> Script:
    """Leave out data that `ketch.pack` refuses, and say so where it refuses the model as well."""
    if proof.refusals.get("data"):
        made = made.bare()
    if "place" in proof.refusals:
        return made.packing_part(int(proof.refusals["place"]), proof.refusals["suffix"])
    if why := proof.refusals.get("bare"):
        made.notes.append(f"ketch.pack refuses this model as it is, so the script ends there: {why}")
    return made


def run_notebook(notebook: Notebook, script: Script, folder: Path, out: Path, *, network: bool, shell: bool) -> str:
    """Run a notebook up to where its model is whole, and write that; give why it failed, if it did."""
    nbformat, nbclient = extras.load("nbformat"), extras.load("nbclient")
    made = nbformat.v4.new_notebook()
    cells = [*_sources(notebook, script, shell=shell)]
    before = ([] if network else [OFFLINE]) + ([] if script.seeded else [SEEDING])
    value = value_of(script.goal.names)
    last = f"import cloudpickle as __c\nwith open({str(out)!r}, 'wb') as __f:\n    __c.dump({value}, __f)"
    numbers = [0] * len(before) + [number for number, _ in cells] + [0]
    made.cells = [nbformat.v4.new_code_cell(each) for each in [*before, *(source for _, source in cells), last]]
    client = nbclient.NotebookClient(
        made,
        kernel_manager_class=_kernel(out.parent),
        timeout=PATIENCE,
        resources={"metadata": {"path": str(folder)}},
        store_widget_state=False,
    )
    old = os.environ.get("MPLBACKEND")
    os.environ["MPLBACKEND"] = "Agg"
    try:
        _execute(client)
    except nbclient.exceptions.CellExecutionError as error:
        failed = next(
            (at for at, each in enumerate(made.cells) if any(o.output_type == "error" for o in each.outputs)), 0
        )
        return f"The notebook fails in cell {numbers[failed]}: {error.ename}: {error.evalue}"
    except Exception as error:  # a kernel that dies, or takes too long
        return f"The notebook could not be run: {type(error).__name__}: {error}"
    finally:
        os.environ.pop("MPLBACKEND") if old is None else os.environ.update(MPLBACKEND=old)
    return ""


def _execute(client: Any) -> None:
    """Run a notebook in a thread: in the main one, its client would take signals for itself and go on."""
    with ThreadPoolExecutor(1, "ketch-notebook") as thread:
        done = thread.submit(lambda: asyncio.run(client.async_execute()))
        try:
            done.result()
        except (KeyboardInterrupt, SystemExit):
            kernel = getattr(client.km, "provisioner", None)
            if kernel is not None and kernel.process is not None:
                kernel.process.kill()
            raise


def _kernel(place: Path) -> type:
    """Make the manager of a kernel in this very Python, spoken to by sockets that are files of this user's."""
    extras.load("ipykernel")
    traitlets, jupyter = importlib.import_module("traitlets"), importlib.import_module("jupyter_client")
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    named: dict[str, object] = {"kernel_cmd": traitlets.List(command)}
    if os.name != "nt" and len(str(place)) < LONGEST:
        named |= {"transport": traitlets.Unicode("ipc"), "ip": traitlets.Unicode(str(place / "kernel"))}
    return type("Kernel", (jupyter.AsyncKernelManager,), named)


def _sources(notebook: Notebook, script: Script, *, shell: bool) -> Iterator[tuple[int, str]]:
    """Give each cell's number and code, up to the statement after which the model is whole."""
    place, split = 0, Split()
    for cell in notebook.ran:
        split.statements, split.asides, split.shell = [], [], 0
        split.take(cell)
        if _as_it_is(split, whole=place + len(split.statements) <= script.goal.until, shell=shell) and script.seeded:
            place += len(split.statements)
            yield cell.number, cell.source
            continue
        lines = [
            f"import subprocess\nsubprocess.run({each.text!r}, shell=True, check=True)"
            for each in split.asides
            if shell and each.kind == "shell"
        ]
        for each in split.statements:
            if place >= script.goal.until:
                break
            guarded = not script.seeded and not script.kept[place]
            lines.append(_unheard(each.text) if guarded else each.text)
            place += 1
        if lines:
            above = re.match(r"\s*(%%(?!timeit|writefile|file\b)\w+[^\n]*\n)?", cell.source)
            yield cell.number, "\n".join([(above[1] or "").strip() if above else "", *lines]).lstrip("\n")
        if place >= script.goal.until:
            return


def _as_it_is(split: Split, *, whole: bool, shell: bool) -> bool:
    """Say whether a cell may run with its magics and all."""
    foreign = {each.kind for each in split.asides} - {"magic", "help"} - ({"shell"} if shell else set())
    return whole and not foreign and (shell or not split.shell)


def _unheard(text: str) -> str:
    """Let a statement draw random numbers without the others noticing, as the script leaves it out."""
    before = "__states = (__r.getstate(), __n.random.get_state())"
    return f"{before}\n{text}\n__r.setstate(__states[0]); __n.random.set_state(__states[1])"


def compare(one: Path, other: Path) -> list[str]:
    """Compare two written models in a process of its own."""
    command = [sys.executable, "-m", "ketch.slicer.alike", str(one), str(other)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return [f"the models cannot be compared: {done.stderr.strip().splitlines()[-1:]}"]
    found: list[str] = json.loads(done.stdout.splitlines()[-1])
    return found
