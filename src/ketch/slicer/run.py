"""Run a training script in a process of its own, and take what it packs.

script --*run*--> model as bytes, bundle
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from ketch import extras

PATIENCE: Final = 3600  # seconds that a run may take
RUNNER: Final = """
import json, os, runpy, sys
import cloudpickle, ketch
from ketch.slicer.tried import tried
out, told, script = sys.argv[1:]
packed, told = ketch.pack, json.loads(told)
saved = []
def pack(model, path=None, **named):
    if saved:
        with open(out + ".json", "w") as file:
            json.dump(tried(saved[0], model, named, packed, out + ".ketch"), file)
        return
    saved.append(model)
    with open(out, "wb") as file:
        cloudpickle.dump(model, file)
    if told is not None:
        return packed(model, told.pop("path", path), **{**named, **told})
ketch.pack = pack
sys.argv = [script]
sys.path[0] = os.getcwd()
runpy.run_path(script, run_name="__main__")
"""


def refusals(out: Path) -> dict[str, str]:
    """Give what `tried` has found of what a script made."""
    place = Path(f"{out.absolute()}.json")
    found: dict[str, str] = json.loads(place.read_text("utf-8")) if place.exists() else {}
    return found


def run(script: Path, out: Path, pack: Mapping[str, Any] | None = None) -> str:
    """Run a script in its folder, and write the model that it packs to `out`; give why it failed, if it did.

    `pack` is what `ketch.pack` is told beside what the script says. Without it the first call only hands over the
    model, and of a second one it is written beside `out` whether it can be packed.

    Raises:
        NotInstalled: the extra `notebook` is missing.
    """
    extras.load("cloudpickle")
    environ = {**os.environ, "MPLBACKEND": "Agg", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [
        sys.executable,
        "-c",
        RUNNER,
        str(out.absolute()),
        json.dumps(None if pack is None else dict(pack)),
        script.name,
    ]
    try:
        done = subprocess.run(
            command, cwd=script.parent, env=environ, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
    except subprocess.TimeoutExpired:
        return f"The script took longer than {PATIENCE} s"
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        return f"The script fails: {lines[-1] if lines else done.returncode}"
    return "" if out.exists() else "The script packed nothing"
