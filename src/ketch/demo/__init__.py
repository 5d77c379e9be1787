"""The whole road on an example: customers → training script → bundle → service → the service that asks it.

Every step is the command that a person would type, run as its own process; what it says is what is shown.
"""

import importlib
import json
import random
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from ketch import extras, settings
from ketch.client import Client
from ketch.errors import InputError, KetchError

SEED: Final = 2026
BUNDLE: Final = "churn.ketch"
SHIPPED: Final = ("README.md", "train.py", "marketing.py")  # stand beside this module and are copied as they are
IGNORED: Final = "# made by the steps in README.md\n*.bin\n*.db\n*.ketch\nscored.csv*\n"
NEEDED: Final = ("pandas", "sklearn")  # by the training script
SOME_REJECTED: Final = 3  # how `ketch score` ends when it refused some of the rows
BY_HAND: Final = "To try it by hand: ketch demo --keep DIR leaves in DIR what the step needs."
PATIENCE, FAREWELL = 120.0, 35.0  # seconds that a step may take, and the server to finish what is in flight


def files() -> dict[str, bytes]:
    """Make the files that the story starts from, by name; always the same bytes."""
    data = importlib.import_module("ketch.demo.data")
    chance = random.Random(SEED)  # noqa: S311 (an example, not a secret)
    made = {
        "churn.csv": data.churn_csv(chance),
        "customers.csv": data.customers_csv(chance),
        "customer.json": data.customer_json(chance),
        ".gitignore": IGNORED,
    }
    shipped = {name: resources.files(__name__).joinpath(name).read_text("utf-8") for name in SHIPPED}
    return {name: text.encode() for name, text in (made | shipped).items()}


def run(keep: Path | None, *, here: Path, environ: Mapping[str, str], say: Callable[[str], None]) -> None:
    """Tell the story in the folder `keep`, new or empty, or in one that is gone afterwards.

    The bundle is left in `keep`, or else in `here`.

    Raises:
        InputError: a file would be overwritten, or cannot be written; KetchError: a step failed, by its number.
    """
    for library in NEEDED:
        if find_spec(library) is None:
            extras.load(library)  # says how to install it
    around = _environment(environ)
    if keep is not None:
        _make_empty(keep)
        _told(Story(keep, around, say), left=keep, kept=True)
        return
    with tempfile.TemporaryDirectory(prefix="ketch-demo-", ignore_cleanup_errors=True) as folder:
        _told(Story(Path(folder), around, say), left=here, kept=False)


@dataclass
class Story:
    """Where the story happens, in which environment, to whom it is told, and how far it is."""

    folder: Path
    environ: Mapping[str, str]
    say: Callable[[str], None]
    step: int = 0

    def begin(self, title: str, command: str) -> None:
        """Open the next step, with the command that does it by hand."""
        self.step += 1
        self.say(f"\n{self.step}. {title}\n   $ {command}")

    def tell(self, text: str) -> None:
        """Show what a step said."""
        for line in text.rstrip().splitlines():
            self.say(f"   {line}".rstrip())

    def do(self, title: str, command: str, *, code: int = 0) -> None:
        """Run one step to its end.

        Raises:
            KetchError: it ended with another exit code than `code`, or did not end.
        """
        self.begin(title, command)
        try:
            done = subprocess.run(_argv(command), timeout=PATIENCE, **self._surroundings())
        except subprocess.TimeoutExpired:
            raise KetchError(f"{command} did not end within {PATIENCE:.0f} s", hint=BY_HAND) from None
        self.tell(done.stdout)
        if done.returncode != code:
            raise KetchError(f"{command} ended with exit code {done.returncode}", hint=BY_HAND)

    @contextmanager
    def serving(self, title: str, command: str) -> Iterator[str]:
        """Start the server and give its URL; afterwards it is gone.

        Raises:
            KetchError: it does not start.
        """
        self.begin(title, command)
        with subprocess.Popen(_argv(command), **self._surroundings()) as server:
            try:
                said, url = _opening(server)
                self.tell(said)
                if not url:
                    raise KetchError(f"{command} does not start", hint=BY_HAND)
                self.tell(f"(process {server.pid})")
                yield url
            finally:
                _stop(server)

    def _surroundings(self) -> dict[str, Any]:
        outlet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        return outlet | {"cwd": self.folder, "env": self.environ, "encoding": "utf-8", "errors": "replace"}


def leave(made: Path, folder: Path) -> None:
    """Copy the bundle into a folder, unless another one of that name is there.

    Raises:
        InputError: there is.
    """
    left, data = folder / made.name, made.read_bytes()
    if left.exists() and left.read_bytes() != data:
        raise InputError(
            f"{made.name} is in this folder already, and is another one",
            hint="Move it away, or keep everything elsewhere: ketch demo --keep DIR",
        )
    _write(left, data)


def _told(story: Story, *, left: Path, kept: bool) -> None:
    try:
        _tell(story, left, kept)
    except KetchError as error:
        raise type(error)(f"Step {story.step} of the demo failed: {error.message}", hint=error.hint) from None


def _tell(story: Story, left: Path, kept: bool) -> None:
    story.say("From a telecom company's customers to a service that knows who will leave.")
    story.begin("The customers", f"cd {left}" if kept else "ketch demo --keep churn && cd churn")
    for name, data in files().items():
        _write(story.folder / name, data)
    story.tell("churn.csv: those of the past, and who left; customers.csv: those of the marketing team")
    story.do("A training script as it comes out of a notebook", "python train.py churn.csv model.bin")
    story.do("The model becomes a bundle that knows its inputs", "ketch pack model.bin --target churn")
    if not kept:
        leave(story.folder / BUNDLE, left)
    with story.serving(
        "The bundle becomes a service (port 0: any that is free)", f"ketch serve {BUNDLE} --port 0"
    ) as url:
        _ask(story, url)
        address = url.replace("localhost", "127.0.0.1")  # where localhost is tried as ::1 first, each call is slow
        ask = f"python marketing.py --customers customers.csv --db customers.db --service {address}"
        story.do("The marketing team asks it who gets an e-mail; one customer is misspelt", ask)
    story.do("Or the whole table at once", f"ketch score {BUNDLE} customers.csv -o scored.csv", code=SOME_REJECTED)
    story.say(f"\nNothing is left running; {BUNDLE} is in {left if kept else 'this folder'}.")
    story.say(f"Next: ketch serve {BUNDLE}, and open http://localhost:9696 in a browser.")


def _ask(story: Story, url: str) -> None:
    story.begin(
        "Anybody asks it about one customer",
        f'curl {url}/predict -H "Content-Type: application/json" -d @customer.json',
    )
    client = Client(url)  # not every machine has curl
    try:
        answer = client.predict(json.loads((story.folder / "customer.json").read_bytes()))
    finally:
        client.close()
    story.tell(json.dumps(answer))


def _argv(command: str) -> list[str]:
    program, *rest = command.split()
    return [sys.executable, *(["-m", "ketch"] if program == "ketch" else []), *rest]


def _environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Leave out the settings that a person made for services of their own, and any proxy: nothing leaves here."""
    rest = {name: value for name, value in environ.items() if not name.startswith("KETCH_")}
    home = settings.home(environ).absolute()  # the steps run in another folder
    return rest | {"KETCH_HOME": str(home), "PYTHONUTF8": "1", "no_proxy": "*"}


def _opening(server: "subprocess.Popen[str]") -> tuple[str, str]:
    """Listen to the server until it names its URL; one that never does is ended, which ends the listening."""
    clock = threading.Timer(PATIENCE, server.kill)
    clock.daemon = True
    clock.start()
    said = ""
    try:
        for line in server.stdout or ():
            said += line
            if found := re.search(r"http://[^/ ]+:\d+", line):
                return said, found[0]
    finally:
        clock.cancel()
    return said, ""


def _stop(server: "subprocess.Popen[str]") -> None:
    server.terminate()
    try:
        server.communicate(timeout=FAREWELL)
    except subprocess.TimeoutExpired:
        server.kill()


def _make_empty(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        full = any(folder.iterdir())
    except OSError as error:
        raise InputError(f"{folder} cannot be used: {error.strerror}", hint="Give another folder.") from None
    if full:
        raise InputError(f"{folder} is not empty", hint="Give a new folder, so that nothing is overwritten.")


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}", hint="Choose a folder with --keep.") from None
