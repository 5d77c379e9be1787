"""Measure single-row predictions beside nginx and the usual hand-written services; write docs/benchmarks.md.

All servers take turns in every round, pinned to one core with the load on another, 500 distinct rows in rotation.
"""

import argparse
import io
import json
import os
import pickle
import platform
import random
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from ketch.demo.data import churn_csv

HERE: Final = Path(__file__).parent
PAGE: Final = HERE.parent / "docs" / "benchmarks.md"
ROWS: Final = 500
CONNECTIONS: Final = (1, 16)
LUA: Final = """
local rows, i = {}, 0
for line in io.lines(os.getenv("ROWS")) do rows[#rows + 1] = line end
request = function()
  i = i % #rows + 1
  return wrk.format("POST", "/predict", {["Content-Type"] = "application/json"}, rows[i])
end
"""
NGINX: Final = """
daemon off; master_process off; worker_processes 1; pid nginx.pid; error_log nginx.err;
events { worker_connections 512; }
http { access_log off; client_body_temp_path t1; proxy_temp_path t2; fastcgi_temp_path t3; uwsgi_temp_path t4;
scgi_temp_path t5; keepalive_requests 100000000;
server { listen 127.0.0.1:PORT; location / { default_type application/json;
return 200 '{"churn":false,"churn_probability":0.131521149}'; } } }
"""


@dataclass
class Server:
    """One contestant: how it starts, which model it serves, and what was measured of it."""

    name: str
    command: list[str]
    model: str = ""
    environ: Mapping[str, str] = field(default_factory=dict)
    rates: dict[int, list[float]] = field(default_factory=lambda: {each: [] for each in CONNECTIONS})
    middles: dict[int, list[float]] = field(default_factory=lambda: {each: [] for each in CONNECTIONS})
    tails: dict[int, list[float]] = field(default_factory=lambda: {each: [] for each in CONNECTIONS})


def main() -> int:
    """Run the rounds and write the page."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--rounds", type=int, default=3)
    asked.add_argument("--seconds", type=int, default=6, help="of load for each measurement")
    asked.add_argument("--no-page", action="store_true", help="print only")
    options = asked.parse_args()
    if lacking := [each for each in ("wrk", "nginx", "taskset") if shutil.which(each) is None]:
        print(f"Missing: {', '.join(lacking)}. Install with: apt-get install wrk nginx-light util-linux")
        return 1
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wanted = prepare(folder)
        servers = contestants(folder)
        for turn in range(options.rounds):
            for server in servers:
                measure(server, folder, wanted, options.seconds)
                told = ", ".join(f"{server.rates[each][-1]:,.0f}/s at {each}" for each in CONNECTIONS)
                print(f"round {turn + 1}: {server.name}: {told}", flush=True)
    text = table(servers, options.rounds, options.seconds)
    print(text)
    if not options.no_page:
        PAGE.write_text(text, "utf-8")
    return 0


def prepare(folder: Path) -> dict[str, float]:
    """Train the three models, write them, their bundles and the rows; give each model's answer to the first row."""
    import pandas as pd
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.feature_extraction import DictVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    frame = customers()
    y = (frame.pop("churn") == "yes").astype(int)
    numbers = ["tenure", "monthlycharges", "totalcharges"]
    words = [name for name in frame.columns if name not in numbers]
    rows: list[dict[str, Any]] = frame.to_dict(orient="records")

    def prepared() -> ColumnTransformer:
        encoder = OneHotEncoder(handle_unknown="ignore")
        return ColumnTransformer([("words", encoder, words), ("numbers", StandardScaler(), numbers)])

    dv = DictVectorizer(sparse=False)
    simple = LogisticRegression(max_iter=2000).fit(dv.fit_transform(rows), y)
    linear = make_pipeline(prepared(), LogisticRegression(max_iter=2000)).fit(frame, y)
    forest = make_pipeline(prepared(), RandomForestClassifier(100, max_depth=12, random_state=0)).fit(frame, y)
    for name, model in {"vectorizer": (dv, simple), "linear": linear, "forest": forest}.items():
        (folder / f"{name}.bin").write_bytes(pickle.dumps(model))
        words_ = ["pack", f"{name}.bin", "--target", "churn", "-o", f"{name}.ketch"]
        subprocess.run([sys.executable, "-m", "ketch", *words_], cwd=folder, env=environment(folder), check=True)
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:ROWS]))
    (folder / "load.lua").write_text(LUA)
    first = pd.DataFrame(rows[:1])
    return {
        "vectorizer": float(simple.predict_proba(dv.transform(rows[:1]))[0, 1]),
        "linear": float(linear.predict_proba(first)[0, 1]),
        "forest": float(forest.predict_proba(first)[0, 1]),
    }


def customers() -> Any:
    """Give the demo's customers as a course notebook would clean them: 16 columns of words and 3 numbers."""
    import pandas as pd

    frame = pd.read_csv(io.StringIO(churn_csv(random.Random(0))))
    frame.columns = frame.columns.str.lower()
    frame = frame.drop(columns=[name for name in frame.columns if name == "customerid"])
    frame["totalcharges"] = pd.to_numeric(frame["totalcharges"], errors="coerce").fillna(0)
    frame["seniorcitizen"] = frame["seniorcitizen"].map({0: "no", 1: "yes"})
    for name in frame.columns:
        if not pd.api.types.is_numeric_dtype(frame[name]):
            frame[name] = frame[name].str.lower().str.replace(" ", "_")
    return frame


def contestants(folder: Path) -> list[Server]:
    """List the servers in the order of their turns."""
    gunicorn = str(Path(sys.executable).parent / "gunicorn")
    ketch = [sys.executable, "-m", "ketch", "serve"]

    def by_hand(name: str, service: str, model: str) -> Server:
        command = [gunicorn, "--bind", "127.0.0.1:PORT", "--chdir", str(HERE / "services"), f"{service}:app"]
        return Server(name, command, model, {"MODEL": str(folder / f"{model}.bin")})

    return [
        Server("nginx `return 200`", [shutil.which("nginx") or "nginx", "-p", str(folder), "-c", "nginx.conf"]),
        by_hand("Flask + gunicorn, DictVectorizer + linear", "vectorizer", "vectorizer"),
        Server("Ketch, DictVectorizer + linear", [*ketch, "vectorizer.ketch", "--port", "PORT"], "vectorizer"),
        by_hand("Flask + gunicorn, pandas pipeline, linear", "pipeline", "linear"),
        Server("Ketch, pandas pipeline, linear", [*ketch, "linear.ketch", "--port", "PORT"], "linear"),
        by_hand("Flask + gunicorn, pandas pipeline, forest of 100", "pipeline", "forest"),
        Server("Ketch, pandas pipeline, forest of 100", [*ketch, "forest.ketch", "--port", "PORT"], "forest"),
    ]


def environment(folder: Path, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Give what every server runs with: its own home, one thread for each library."""
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    return {**os.environ, **threads, "KETCH_HOME": str(folder / "home"), **(extra or {})}


def measure(server: Server, folder: Path, wanted: Mapping[str, float], seconds: int) -> None:
    """Start a server on core 0, check an answer, load it from core 1, end it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    (folder / "nginx.conf").write_text(NGINX.replace("PORT", port))
    command = ["taskset", "-c", "0", *(word.replace("PORT", port) for word in server.command)]
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, cwd=folder, env=environment(folder, server.environ), stdout=quiet, stderr=quiet)
    try:
        answer = first_answer(f"http://127.0.0.1:{port}/predict", folder)
        if server.model and abs(answer["churn_probability"] - wanted[server.model]) > 1e-6:
            raise SystemExit(f"{server.name} answers {answer}, the model {wanted[server.model]}")
        load(port, folder, 4, 2)
        for connections in CONNECTIONS:
            rate, middle, tail = load(port, folder, connections, seconds)
            server.rates[connections].append(rate)
            server.middles[connections].append(middle)
            server.tails[connections].append(tail)
    finally:
        process.terminate()
        process.wait(timeout=60)


def first_answer(url: str, folder: Path) -> Any:
    """Wait, at most a minute and a half, for the answer to the first row."""
    with (folder / "rows.jsonl").open("rb") as rows:
        body = rows.readline()
    until = time.monotonic() + 90
    while time.monotonic() < until:
        with suppress(OSError):
            asked = urllib.request.Request(url, body, {"Content-Type": "application/json"})
            with urllib.request.urlopen(asked, timeout=60) as response:
                return json.load(response)
        time.sleep(0.05)
    raise SystemExit(f"{url} does not answer")


def load(port: str, folder: Path, connections: int, seconds: int) -> tuple[float, float, float]:
    """Run wrk from core 1 and give requests per second, p50 and p99 in milliseconds."""
    core = str(min(1, (os.cpu_count() or 1) - 1))
    done = subprocess.run(
        [
            *("taskset", "-c", core, "wrk", "-t1", f"-c{connections}", f"-d{seconds}s"),
            *("--latency", "-s", "load.lua", f"http://127.0.0.1:{port}/predict"),
        ],
        cwd=folder,
        env={**os.environ, "ROWS": str(folder / "rows.jsonl")},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    if "Non-2xx" in done:
        raise SystemExit(done)
    units = {"us": 1e-3, "ms": 1.0, "s": 1e3}

    def latency(share: str) -> float:
        found = re.search(rf"{share}\s+([\d.]+)(us|ms|s)", done)
        return float(found[1]) * units[found[2]] if found else float("nan")

    rate = re.search(r"Requests/sec:\s+([\d.]+)", done)
    return float(rate[1]) if rate else 0.0, latency("50%"), latency("99%")


def table(servers: Sequence[Server], rounds: int, seconds: int) -> str:
    """Write the page: medians over the rounds, and each Ketch row as a ratio to the hand-written one above it."""
    head = ["server", *(f"req/s at {each} | p50 ms | p99 ms" for each in CONNECTIONS), "× by hand, 1", "× by hand, 16"]
    columns = 1 + 3 * len(CONNECTIONS) + 2
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * columns]
    for place, server in enumerate(servers):
        cells = [server.name]
        for each in CONNECTIONS:
            cells.append(f"{statistics.median(server.rates[each]):,.0f}")
            cells += [f"{statistics.median(found[each]):.2f}" for found in (server.middles, server.tails)]
        for each in CONNECTIONS:
            mine, other = server.rates[each], servers[place - 1].rates[each]
            ratios = [a / b for a, b in zip(mine, other, strict=True)] if server.name.startswith("Ketch") else []
            cells.append(f"**{statistics.median(ratios):.1f}** ({min(ratios):.1f}–{max(ratios):.1f})" if ratios else "")
        lines.append("| " + " | ".join(cells) + " |")
    body = "\n".join(lines)
    libraries = ", ".join(f"{name} {version(name)}" for name in ("scikit-learn", "flask", "gunicorn", "uvicorn"))
    return f"""# Benchmarks

One row in each request, 500 distinct rows in rotation, 16 columns of words and 3 numbers. Each server has one worker
on one core, `wrk` runs on another. All servers take turns in each of {rounds} rounds of {seconds} s a measurement;
the figures are medians, the ratios are taken within a round (smallest and largest in brackets). Every server's answer
is checked against the estimator's before it is measured. `make bench` writes this page.

{body}

Python {platform.python_version()}, {libraries}, {os.cpu_count()} cores, {time.strftime("%B %Y")}. The models are served
in their original form, with same-tick batching: the questions that arrive in one turn of the event loop are answered by
one call of the model. The hand-written services are in `benchmarks/services/`.
"""


if __name__ == "__main__":
    sys.exit(main())
