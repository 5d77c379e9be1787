"""Run a supervisor over workers that do as a file says: argv is the folder, the number of workers and the deadline."""

import json
import logging
import os
import select
import signal
import sys
import time
from pathlib import Path

from ketch.errors import NotReady
from ketch.serve.supervisor import Place, Supervisor

FOLDER, WANTED, DEADLINE = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])


def note(*words: object) -> None:
    with (FOLDER / "notes").open("a") as file:
        file.write(" ".join(map(str, words)) + "\n")


def manner() -> str:
    return (FOLDER / "manner").read_text()


def work(place: Place) -> None:
    if manner() == "fails":
        raise NotReady("The golden answer differs", hint="")
    if manner() == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    place.beat(0.0)
    counter = place.memory.page(place.pages[0])
    counter.cells[counter.place("ketch_requests", (("pid", str(os.getpid())),))] += 1.0
    note("ready", os.getpid())
    place.tell(said="ready")
    since = 0.0
    while True:
        mine = FOLDER / str(os.getpid())
        how = mine.read_text() if mine.exists() else ""
        if how == "busy":
            since = since or time.monotonic()
        elif how == "deaf":
            time.sleep(60)
        elif how == "bears":
            mine.unlink()
            bear()
        else:
            since = 0.0
        place.beat(since)
        if select.select([place.line], [], [], 0.02)[0]:
            found = place.line.recv(65536)
            note("heard", os.getpid(), found.decode().strip() or "nothing")
            if not found or (b"end" in found and how != "stays"):
                return


def bear() -> None:
    """Have a grandchild whose parent is gone."""
    child = os.fork()
    if child == 0:
        if os.fork() == 0:
            note("orphan", os.getpid())
            time.sleep(0.5)
        os._exit(7)
    os.waitpid(child, 0)


def second(supervisor: Supervisor) -> None:
    counted = {dict(labels).get("pid", name): found[0] for (name, labels), found in supervisor.memory.totals().items()}
    (FOLDER / "counted.new").write_text(json.dumps(counted))
    (FOLDER / "counted.new").rename(FOLDER / "counted")
    if (FOLDER / "trial").exists():
        (FOLDER / "trial").unlink()
        supervisor.others.add(supervisor.spawn(lambda: time.sleep(60)))
    if (FOLDER / "raise").exists():
        raise ValueError("of the one who follows")


logging.basicConfig(format="%(message)s")
supervisor = Supervisor(
    work=work, wanted=WANTED, deadline=DEADLINE, grace=2.0, on_ready=lambda: note("told"), each_second=second
)
try:
    supervisor.run()
except NotReady as error:
    sys.exit(error.message)
