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
out, told, script = sys.argv[1:]
packed, told = ketch.pack, json.loads(told)
def pack(model, path=None, **named):
    if told is None and os.path.exists(out):
        return tried(model, **named)
    with open(out, "wb") as file:
        cloudpickle.dump(model, file)
    if told is not None:
        return packed(model, told.pop("path", path), **{**named, **told})
def tried(model, data=None, **named):
    found = {}
    for given in {"data": data}, {}:
        if given and data is None:
            continue
        try:
            packed(model, out + ".ketch", **given, **named)
            found["data" if given else "bare"] = ""
            break
        except Exception as error:
            hint = getattr(error, "hint", "")
            found["data" if given else "bare"] = f"{error} {hint}".strip() or type(error).__name__
    for place, part in enumerate(model if found.get("bare") and isinstance(model, tuple) else ()):
        try:
            packed(part, out + ".ketch", **named)
        except Exception:
            continue
        found["part"] = str(place)
    with open(out + ".json", "w") as file:
        json.dump(found, file)
ketch.pack = pack
sys.argv = [script]
sys.path[0] = os.getcwd()
runpy.run_path(script, run_name="__main__")
"""


def refusals(out: Path) -> dict[str, str]:
    """Give why `ketch.pack` refuses what a script has made, with its `data` and without; empty where it does not.

    `part` is the place of the only object that it takes, where it does not take all of them.
    """
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
