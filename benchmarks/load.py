"""Load from the other core: as fast as the server answers, by wrk, or at a constant rate."""

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from benchmarks.figures import Load, Steady

CORE: Final = 1
LUA: Final = """
local requests, i = {}, 0
init = function(args)
  local headers = {["Content-Type"] = "application/json"}
  if os.getenv("KEY") then headers["Authorization"] = "Bearer " .. os.getenv("KEY") end
  for line in io.lines(os.getenv("BODIES")) do
    requests[#requests + 1] = wrk.format("POST", os.getenv("ROUTE"), headers, line)
  end
end
request = function()
  i = i % #requests + 1
  return requests[i]
end
"""
UNITS: Final = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}


@dataclass(frozen=True)
class Target:
    """Where the load goes and what it asks."""

    port: int
    path: str
    bodies: Path
    key: str = ""


def flat_out(target: Target, connections: int, seconds: float, script: Path) -> tuple[Load, int]:
    """Run wrk; give what it found, and how many requests it made."""
    script.write_text(LUA, "utf-8")
    environ = {**os.environ, "BODIES": str(target.bodies), "ROUTE": target.path}
    command = ["taskset", "-c", str(CORE), "wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s"]
    command += ["--latency", "--timeout", "20s", "-s", str(script), f"http://127.0.0.1:{target.port}{target.path}"]
    said = subprocess.run(
        command, env={**environ, "KEY": target.key} if target.key else environ, capture_output=True, text=True
    )
    if said.returncode:
        raise RuntimeError(said.stdout + said.stderr)
    return parsed(said.stdout)


def parsed(said: str) -> tuple[Load, int]:
    """Read what wrk says; requests that went wrong do not count as answered."""
    total = int(_one(r"(\d+) requests in", said))
    broken = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", said)
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", said)
    bad = int(refused[1]) if refused else 0
    share = (total - bad) / total if total else 0.0
    faults = bad + (sum(map(int, broken.groups())) if broken else 0)
    found = Load(float(_one(r"Requests/sec:\s+([\d.]+)", said)) * share, _time("50%", said), _time("99%", said), faults)
    return found, total


def _one(pattern: str, said: str) -> str:
    if (found := re.search(pattern, said)) is None:
        raise ValueError(f"wrk says nothing like {pattern}: {said}")
    return found[1]


def _time(share: str, said: str) -> float:
    found = re.search(rf"{share}\s+([\d.]+)(us|ms|s|m)\b", said)
    return float(found[1]) * UNITS[found[2]] if found else 0.0


def at_rate(target: Target, rate: float, connections: int, seconds: float) -> Steady:
    """Ask at a constant rate."""
    command = ["taskset", "-c", str(CORE), sys.executable, "-m", "benchmarks.pace", str(target.port), target.path]
    command += [str(target.bodies), f"{rate:.3f}", f"{seconds:.3f}", str(connections), target.key]
    said = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent.parent)
    return msgspec.convert(json.loads(said.stdout), Steady)
