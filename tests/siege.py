"""A server under a storm, and the judge of every byte that it answers."""

import asyncio
import io
import json
import os
import random
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec
import pyarrow
import pyarrow.ipc
import pyarrow.parquet
import uvloop

from ketch.pack import Options, compose
from ketch.predict import Predictor, load
from ketch.serve.lineup import version_of
from tests.doors import PROBLEM, ROW, Small, question
from tests.soak.load import Server, serving
from tests.storm import ARROW, CSV, JSON, PARQUET, Seed, Shot, gets, posts

PLANTED: Final = "planted-in-the-environment"
HIDDEN: Final = question(ROW, "X-Request-ID: hidden", path="/models/churn/predict")  # nothing else asks this model
AT_ONCE: Final = 24  # connections
LONGEST: Final = 30.0  # seconds that a volley may take


# ---- models ------------------------------------------------------------------------------------------

RAW = """
def answer(rows):
    return [len(row["note"] or "") + int(str(row["day"])[:4]) + (row["spots"] or 0) for row in rows]
"""
KINDS: Final = {"age": "INT64", "income": "FP64", "plan": "BYTES", "region": "BYTES", "member": "BOOL", "note": "BYTES"}
RAW_KINDS: Final = {"day": "BYTES", "note": "BYTES", "spots": "INT64", "at": "BYTES"}


def people(n: int, seed: int) -> dict[str, list[Any]]:
    """Make up a table: whole and other numbers, categories, yes or no, texts; some of it missing."""
    chance = random.Random(seed)
    words = "call visit letter mail talk price angry happy bill late".split()
    return {
        "age": [chance.randint(18, 90) for _ in range(n)],
        "income": [None if chance.random() < 0.2 else round(chance.uniform(0, 9e4), 2) for _ in range(n)],
        "plan": [chance.choice("abc") for _ in range(n)],
        "region": [chance.choice(["north", "south", None]) for _ in range(n)],
        "member": [chance.random() < 0.5 for _ in range(n)],
        "note": [" ".join(chance.choices(words, k=6)) for _ in range(n)],
    }


def events(n: int) -> dict[str, list[Any]]:
    return {
        "day": [f"20{each % 30:02d}-0{1 + each % 9}-1{each % 10}" for each in range(n)],
        "note": [f"words of {each} and {each * each}" for each in range(n)],
        "spots": [each or None for each in range(n)],
        "at": [f"2024-01-0{1 + each % 9}T0{each % 10}:00:00" for each in range(n)],
    }


def rows_of(columns: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _compiled(home: Path) -> bytes:
    import pandas as pd
    from sklearn.compose import ColumnTransformer
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    data = people(300, seed=1)
    leaves: list[object] = [int(age < 40) for age in data["age"]]
    columns = ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), ["age", "income"]),
            ("categories", OneHotEncoder(handle_unknown="ignore"), ["plan", "region"]),
            ("truth", "passthrough", ["member"]),
            ("texts", TfidfVectorizer(), "note"),
        ]
    )
    model = make_pipeline(columns, LogisticRegression(max_iter=1000)).fit(pd.DataFrame(data), leaves)
    table: dict[str, list[object]] = {**data, "leaves": leaves}
    return compose(model, table, Options(target="leaves", name="storm"), home=home).data


def _original(home: Path) -> bytes:
    (home / "raining.py").write_text(RAW)
    sys.path.insert(0, str(home))
    try:
        from raining import answer  # type: ignore[import-not-found]

        data = events(60)
        table: dict[str, list[object]] = {**data, "amount": [float(each) for each in answer(rows_of(data))]}
        return compose(answer, table, Options(target="amount", name="raw"), home=home).data
    finally:
        sys.path.remove(str(home))
        sys.modules.pop("raining", None)


@dataclass
class Fort:
    """Three models in files: one compiled, one in its original form, and one that nobody must reach."""

    home: Path
    bundles: tuple[Path, Path, Path]
    storm: Predictor
    raw: Predictor

    @classmethod
    def build(cls, home: Path) -> "Fort":
        made = []
        for name, pack in (("storm", _compiled), ("raw", _original)):
            made.append(home / f"{name}.ketch")
            made[-1].write_bytes(pack(home))
        storm, raw = (load(each, home=home) for each in made)
        assert (storm.bundle.manifest.serves, raw.bundle.manifest.serves) == ("compiled", "original")
        return cls(home, (*made, Small.pack(home).bundle), storm, raw)  # type: ignore[arg-type]

    @contextmanager
    def serving(self, *words: object, **environ: str) -> Iterator[Server]:
        environ["KETCH_TEST_PLANTED"] = PLANTED
        with serving(*self.bundles, "--default", "storm", *words, home=self.home, **environ) as server:
            yield server

    @property
    def row(self) -> dict[str, Any]:
        return {"age": 40, "income": 1234.5, "plan": "a", "region": "north", "member": True, "note": "angry call"}

    def seeds(self) -> list[Seed]:
        """Give valid requests for every route and content type."""
        some, more = rows_of(people(3, seed=2)), rows_of(events(4))[1:]  # the first of these lacks something
        found = posts("storm", version_of(self.storm), [self.row, *some], tables(people(3, seed=3)), KINDS)
        raw = posts("raw", version_of(self.raw), more, tables(events(3)), RAW_KINDS)
        # explaining it takes a library that needs seconds to be imported, and 6 ms each
        found += [each for each in raw if "/raw/" in each.path and "explain" not in each.path]
        return [*found, *gets("storm", version_of(self.storm))]

    def golden(self) -> list[tuple[Seed, bytes]]:
        """Give questions with the bytes that must answer them."""
        text = {"Content-Type": JSON}
        found = []
        for path, predictor, row in (
            ("/predict", self.storm, self.row),
            ("/models/raw/predict", self.raw, rows_of(events(9))[5]),
        ):
            answer = msgspec.json.encode(predictor.predict(row))
            found.append((Seed("POST", path, json.dumps(row).encode(), text), answer))
        return found

    def canaries(self) -> list[bytes]:
        """Give what no answer may hold."""
        found = [str(self.home), str(Path.cwd()), sys.prefix, "site-packages", "Traceback", '.py"', ", line ", PLANTED]
        return [
            each.encode() for each in [*found, "0x7f", "msgspec", "uvicorn", "Werkzeug", "numpy", "pandas", "sklearn"]
        ]


def tables(columns: Mapping[str, Sequence[Any]]) -> dict[str, bytes]:
    """Write a table in every form."""
    table = pyarrow.table({name: list(values) for name, values in columns.items()})
    stream, parquet, lines = io.BytesIO(), io.BytesIO(), io.StringIO()
    with pyarrow.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table)
    pyarrow.parquet.write_table(table, parquet)
    lines.write(",".join(columns) + "\n")
    for values in zip(*columns.values(), strict=True):
        lines.write(",".join("" if each is None else str(each) for each in values) + "\n")
    return {CSV: lines.getvalue().encode(), ARROW: stream.getvalue(), PARQUET: parquet.getvalue()}


# ---- the judge ---------------------------------------------------------------------------------------


class Problem(msgspec.Struct):
    """RFC 9457, with all that Ketch promises."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    hint: str
    errors: list[dict[str, Any]] = []


HEAD: Final = re.compile(rb"HTTP/1\.1 (\d{3}) [ -~]+\r\n((?:[!#-9;-~]+: [\t -~]*\r\n)*)\r\n")
_read_problem: Final = msgspec.json.Decoder(Problem).decode
ANSWERS: Final = frozenset({200, 204, 400, 403, 404, 405, 406, 413, 415, 422, 431})


@dataclass
class Judge:
    """Hold every answer against what all of them must keep; remember what did not."""

    canaries: Sequence[bytes] = ()
    allowed: frozenset[int] = ANSWERS
    statuses: Counter[int] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    families: Counter[str] = field(default_factory=Counter)
    silent: Counter[str] = field(default_factory=Counter)  # shots that had no answer
    wrong: list[str] = field(default_factory=list)
    wrongs: int = 0
    answers: int = 0
    sent: int = 0
    slowest: float = 0.0

    def fail(self, why: str, shot: Shot | None, *what: object) -> None:
        self.wrongs += 1
        if len(self.wrong) < 40:
            asked = shot.data[:600] + (b"..." + shot.data[-200:] if len(shot.data) > 800 else b"") if shot else b""
            self.wrong.append(f"{why}: {' '.join(map(str, what))[:800]}\n    asked: {asked!r}")

    def judge(self, status: int, head: bytes, body: bytes, shot: Shot | None) -> None:
        """Hold one answer against all of it."""
        self.answers += 1
        self.statuses[status] += 1
        if shot is not None:
            self.families[shot.family] += 1
            self._judge_shot(status, body, shot)
        headers = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[:-1])
        request_id = headers.get(b"x-request-id", b"")
        if not request_id:
            self.fail("no request id", shot, status, head)
        if shot is not None and shot.request_id not in (b"", request_id):
            self.fail("the answer to another", shot, head, body)
        if status not in self.allowed:
            self.fail("an answer that should not be", shot, status, head, body)
        elif status >= 400 and (body or shot is None or shot.method != "HEAD"):
            self._judge_problem(status, headers, body, shot)
        for canary in self.canaries if status >= 400 else self.canaries[:4]:
            if canary in body or canary in head:
                self.fail(f"it tells of {canary!r}", shot, status, head, body)

    def _judge_shot(self, status: int, body: bytes, shot: Shot) -> None:
        if shot.refused and status < 400:
            self.fail("accepted what is no JSON", shot, status, body)
        if shot.golden and body != shot.golden:
            self.fail("not the golden answer", shot, status, body)

    def _judge_problem(self, status: int, headers: Mapping[bytes, bytes], body: bytes, shot: Shot | None) -> None:
        if headers.get(b"content-type") != PROBLEM.encode():
            self.fail("no problem+json", shot, status, headers, body)
            return
        try:
            found = _read_problem(body)
        except msgspec.MsgspecError as error:
            self.fail("no whole problem", shot, error, body)
            return
        self.codes[found.code] += 1
        name = headers.get(b"x-request-id", b"").decode()
        sound = found.status == status and found.type == f"urn:ketch:error:{found.code}"
        if not (
            sound and found.title and found.detail and found.hint and found.instance == f"urn:ketch:request:{name}"
        ):
            self.fail("not all of a problem", shot, body)
        if len(body) > 50_000:
            self.fail("too long a refusal", shot, len(body))


class Volley(asyncio.Protocol):
    """Send shots on one connection, say that there is no more, and judge what comes back until the server ends it."""

    def __init__(self, judge: Judge, shots: Sequence[Shot], over: "asyncio.Future[None]") -> None:
        self.judge, self.shots, self.over = judge, shots, over
        self.buffer, self.answers, self.began = b"", 0, time.monotonic()
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.transport.write(b"".join(shot.data for shot in self.shots))
        self.transport.write_eof()

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while self.buffer and self._take():
            pass

    def _take(self) -> bool:
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = HEAD.fullmatch(self.buffer, 0, end + 4)
        shot = self.shots[self.answers] if self.answers < len(self.shots) and self._exact() else None
        if head is None:
            self.judge.fail("no head of an answer", shot, self.buffer[:300])
            self.transport.abort()
            return False
        status = int(head[1])
        if status < 200:
            self.buffer = self.buffer[end + 4 :]
            return True
        length = _length(head[2])
        if length is None:
            if status != 204:
                self.judge.fail("no length", shot, head[0])
            length = 0
        if shot is not None and shot.method == "HEAD":
            length = 0
        if len(self.buffer) < end + 4 + length:
            return False
        body, self.buffer = self.buffer[end + 4 : end + 4 + length], self.buffer[end + 4 + length :]
        self.answers += 1
        self.judge.judge(status, head[2], body, shot)
        return True

    def _exact(self) -> bool:
        """Say whether it is known which shot comes next to be answered."""
        return all(shot.framed for shot in self.shots[: self.answers])

    def connection_lost(self, exc: Exception | None) -> None:
        judge = self.judge
        judge.sent += len(self.shots)
        judge.slowest = max(judge.slowest, time.monotonic() - self.began)
        framed = next((place for place, shot in enumerate(self.shots) if not shot.framed), len(self.shots))
        if self.answers < framed:
            judge.fail(f"{self.answers} answers to {framed} whole requests ({exc!r})", self.shots[self.answers])
        for shot in self.shots[max(self.answers, framed) :]:
            judge.silent[shot.family] += 1
        if self.buffer and self.answers < framed:  # a request that stayed half is owed no whole answer
            judge.fail("half an answer", None, self.buffer[:300])
        if not self.over.done():
            self.over.set_result(None)


def _length(head: bytes) -> int | None:
    found = re.search(rb"^content-length: (\d+)\r$", head, re.MULTILINE | re.IGNORECASE)
    return int(found[1]) if found else None


async def fire(port: int, judge: Judge, volleys: Iterable[Sequence[Shot]], at_once: int = AT_ONCE) -> None:
    """Send volleys, some at once."""
    source = iter(volleys)
    loop = asyncio.get_running_loop()

    async def gun() -> None:
        for shots in source:
            over = loop.create_future()
            transport, _ = await loop.create_connection(lambda: Volley(judge, shots, over), "127.0.0.1", port)  # noqa: B023
            try:
                await asyncio.wait_for(over, LONGEST)
            except TimeoutError:
                judge.fail("no end", shots[0], [shot.data[:300] for shot in shots])
                transport.abort()

    await asyncio.gather(*(gun() for _ in range(at_once)))


def barrage(port: int, judge: Judge, volleys: Iterable[Sequence[Shot]], at_once: int = AT_ONCE) -> float:
    """Send volleys and give how many seconds it took."""
    began = time.monotonic()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(fire(port, judge, volleys, at_once))
    return time.monotonic() - began


# ---- what others make of the description --------------------------------------------------------------

SCHEMATHESIS = """
[checks]
negative_data_rejection.expected-statuses = [400, 401, 403, 404, 405, 406, 413, 415, 422, 431]
"""


def schemathesis(port: int, key: str, folder: Path, seconds: int) -> str:
    """Let Schemathesis test the server against its own OpenAPI document; give what it found wrong."""
    (folder / "schemathesis.toml").write_text(SCHEMATHESIS)
    command = [
        *(sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()"),
        *("--config-file", "schemathesis.toml", "run", f"http://localhost:{port}/openapi.json"),
        *("--checks", "all", "--exclude-checks", "positive_data_acceptance"),  # OpenAPI has no words for a CSV
        *("--header", f"Authorization: Bearer {key}", "--max-time", str(seconds), "--continue-on-failure"),
        *("--no-color", "--generation-database", "none", "--suppress-health-check", "all"),
    ]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=seconds + 100)
    return "" if done.returncode == 0 else done.stdout + done.stderr


# ---- what the server must still be -------------------------------------------------------------------


def memory(pid: int) -> int:
    """Give the resident memory of a process in MiB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 2**20


def descriptors(pid: int) -> int:
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def spent(pids: Sequence[int]) -> float:
    """Give the seconds that the threads of processes were at work."""
    found = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += int((task / "schedstat").read_text().split()[0])
    return found / 1e9


@contextmanager
def unharmed(server: Server, growth: int = 100) -> Iterator[None]:
    """Hold a server to it that it has lost no worker, logged no bug and kept its memory."""
    before = sorted(server.workers)
    sizes = {pid: memory(pid) for pid in before}
    yield
    assert "a bug in Ketch" not in server.log, server.log[-5000:]
    assert sorted(server.workers) == before, server.log[-5000:]
    grown = {pid: memory(pid) - sizes[pid] for pid in before}
    assert max(grown.values()) < growth, grown
    assert server.get("/health/ready", timeout=20)[0] == 200
