"""The log, on real databases: SQLite always, PostgreSQL where a server is named; slow, locked, gone and full ones."""

import logging
import os
import sqlite3
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit, urlunsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ketch
from ketch.errors import LogError
from ketch.log import Log, Record, read

POSTGRES = os.environ.get("KETCH_TEST_POSTGRES", "")
PATH = str(Path(ketch.__file__).parents[1])


class Database(Protocol):
    @property
    def url(self) -> str: ...
    def execute(self, statement: str) -> list[tuple[Any, ...]]: ...
    def outage(self) -> AbstractContextManager[None]: ...
    def refuse(self, client: str) -> None: ...


@dataclass
class Sqlite:
    path: Path

    @property
    def url(self) -> str:
        return f"sqlite:///{self.path}"

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.path)) as connection, connection:
            return connection.execute(statement).fetchall()

    @contextmanager
    def outage(self) -> Iterator[None]:
        with closing(sqlite3.connect(self.path, isolation_level=None)) as connection:
            connection.execute("BEGIN EXCLUSIVE")
            yield

    def refuse(self, client: str) -> None:
        self.execute(
            f"CREATE TRIGGER t BEFORE INSERT ON predictions WHEN new.client = '{client}' "
            "BEGIN SELECT raise(ABORT, 'no'); END"
        )


@dataclass
class Postgres:
    admin: str
    name: str

    @property
    def url(self) -> str:
        return urlunsplit(urlsplit(self.admin)._replace(path=f"/{self.name}"))

    def execute(self, statement: str, url: str = "") -> list[tuple[Any, ...]]:
        import psycopg

        with psycopg.connect(url or self.url, autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    @contextmanager
    def outage(self) -> Iterator[None]:
        self.execute(f"ALTER DATABASE {self.name} ALLOW_CONNECTIONS false", self.admin)
        self.execute(
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{self.name}'", self.admin
        )
        yield
        self.execute(f"ALTER DATABASE {self.name} ALLOW_CONNECTIONS true", self.admin)

    def refuse(self, client: str) -> None:
        self.execute(f"ALTER TABLE predictions ADD CHECK (client <> '{client}')")


@contextmanager
def postgres(options: str = "") -> Iterator[Postgres]:
    if not POSTGRES:
        pytest.skip("KETCH_TEST_POSTGRES names no PostgreSQL server")
    database = Postgres(POSTGRES, f"ketch_test_{uuid.uuid4().hex}")
    database.execute(f"CREATE DATABASE {database.name} {options}", POSTGRES)
    try:
        yield database
    finally:
        database.execute(f"DROP DATABASE {database.name} WITH (FORCE)", POSTGRES)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    if request.param == "sqlite":
        yield Sqlite(tmp_path / "predictions.db")
    else:
        with postgres() as made:
            yield made


def record(number: int = 0, **changes: Any) -> Record:
    made = Record(
        prediction_id=str(uuid.uuid4()),
        request_id=f"request-{number}",
        at=1_790_000_000 + number,
        model="churn:3",
        digest="ab" * 32,
        features={"contract": "two_year", "tenure": number, "charges": 99.5, "partner": None},
        answer={"churn": True, "churn_probability": 0.636},
        flags=("tenure:out-of-range",),
        latency_ms=1.25,
        client="key-1",
    )
    return replace(made, **changes)


def until(true: Any, seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def outcome(log: Log) -> tuple[int, int, int]:
    return log.written, log.dropped, log.queued


# What comes in comes out


def test_records_come_back_oldest_first(database: Database) -> None:
    given_records = [record(number) for number in range(1200)]
    with closing(Log(database.url)) as log:
        for start in range(1200, 0, -5):
            log.append(given_records[start - 5 : start])
    assert outcome(log) == (1200, 0, 0)
    assert list(read(database.url)) == given_records
    assert list(read(database.url, limit=3)) == given_records[:3]
    assert list(read(database.url, limit=0)) == []
    assert list(read(database.url, newest=True)) == given_records[::-1]
    assert list(read(database.url, limit=3, newest=True)) == given_records[:-4:-1]


def test_one_row_stands_for_one_prediction_in_plain_sql(database: Database) -> None:
    with closing(Log(database.url)) as log:
        log.append([record(number, request_id="one", at=1_790_000_000.25) for number in range(5)])
    assert database.execute("SELECT request_id, count(*) FROM predictions GROUP BY 1") == [("one", 5)]
    (at, features), *_ = database.execute("SELECT at, features FROM predictions")
    if isinstance(database, Sqlite):
        assert at == "2026-09-21T14:13:20.250000Z"
    else:
        assert (at.timestamp(), features["contract"]) == (1_790_000_000.25, "two_year")
    assert database.execute("SELECT version FROM ketch_log_schema") == [(1,)]


def test_an_idle_log_writes_soon_without_being_closed(database: Database) -> None:
    with closing(Log(database.url, interval=0.05)) as log:
        log.append([record()])
        until(lambda: log.written == 1)


def test_a_record_given_twice_is_one_row(database: Database) -> None:
    one = record()
    for _ in range(2):
        with closing(Log(database.url)) as log:
            log.append([one, one])
        assert outcome(log) == (2, 0, 0)
    assert list(read(database.url)) == [one]


texts = st.text(max_size=20) | st.text(st.sampled_from('\0\\u0"a'), max_size=20)
values = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(-1e15, 1e15) | texts | st.lists(texts)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.dictionaries(texts, values, max_size=4), max_size=5), client=st.text(st.characters()))
def test_any_json_survives(database: Database, rows: list[dict[str, object]], client: str) -> None:
    for table in ("predictions", "ketch_log_schema"):
        database.execute(f"DROP TABLE IF EXISTS {table}")
    given_records = [record(number, features=row, client=client) for number, row in enumerate(rows)]
    with closing(Log(database.url)) as log:
        log.append(given_records)
    clean = client.encode("utf-8", "replace").decode().replace("\0", "\ufffd")
    assert [each.features for each in read(database.url)] == [without_nul(row) for row in rows]
    assert all(each.client == clean for each in read(database.url))


def without_nul(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\0", "\ufffd")
    if isinstance(value, list):
        return [without_nul(each) for each in value]
    if isinstance(value, dict):
        return {without_nul(key): without_nul(each) for key, each in value.items()}
    return value


# What cannot be written


def test_records_that_cannot_be_written_go_alone(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    with closing(Log(database.url)) as log:
        database.refuse("bad")
        good = [record(number) for number in range(40)]
        bad = [
            record(features={"x": object()}),
            record(features={"x": "\ud800"}),
            record(at=float("nan")),
            record(at=1e20),
            record(latency_ms=float("inf")),
            record(request_id=7),
            record(client="bad"),
            record(client="bad"),
        ]
        log.append([*good[:13], *bad[:5], *good[13:30], *bad[5:], *good[30:]])
    assert outcome(log) == (40, 8, 0)
    assert list(read(database.url)) == good
    assert [each.getMessage().split(" ", 1)[0] for each in caplog.records] == ["8"]


@pytest.mark.postgres
def test_a_character_that_the_database_cannot_hold_costs_one_record() -> None:
    with postgres("ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0") as database:
        with closing(Log(database.url)) as log:
            log.append([record(1, client="é"), record(2, client="☃"), record(3)])
        assert outcome(log) == (2, 1, 0)
        assert [each.client for each in read(database.url)] == ["é", "key-1"]


# Bounded, and never in the way


def test_a_full_queue_drops_and_counts_exactly(database: Database) -> None:
    with closing(Log(database.url, capacity=12, batch=4, interval=0.01)) as log:
        with database.outage():
            started = time.monotonic()
            for number in range(200):
                log.append([record(number * 5 + row) for row in range(5)])
            assert time.monotonic() - started < 2  # the database's own patience is longer
            assert outcome(log) == (0, 988, 12)
        until(lambda: log.written == 12)
        log.append([record(5000)])
    assert outcome(log) == (13, 988, 0)
    assert [each.features["tenure"] for each in read(database.url)] == [*range(12), 5000]


def test_an_outage_loses_nothing_that_the_queue_could_hold(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(Log(database.url, batch=50, interval=0.01)) as log:
        given_records = [record(number) for number in range(900)]
        log.append(given_records[:300])
        until(lambda: log.written == 300)
        with database.outage():
            for start in range(300, 600, 10):
                log.append(given_records[start : start + 10])
                time.sleep(0.01)
            assert outcome(log) == (300, 0, 300)
        log.append(given_records[600:])
    assert outcome(log) == (900, 0, 0)
    assert list(read(database.url)) == given_records
    said = [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]
    assert len(said) in (0, 2)  # SQLite's own patience may outlast a short lock
    assert "secret" not in "".join(said)


def test_closing_gives_up_in_time_and_says_so_in_its_counters(database: Database) -> None:
    log = Log(database.url, interval=0.01)
    log.append([record(1)])
    until(lambda: log.written == 1)
    with database.outage():
        log.append([record(2), record(3)])
        started = time.monotonic()
        log.close(0.3)
        assert time.monotonic() - started < 1
        assert outcome(log) == (1, 2, 0)
        log.append([record(4)])
        log.close()
        assert outcome(log) == (1, 3, 0)


def test_closing_waits_for_a_database_that_comes_back(database: Database) -> None:
    log = Log(database.url, interval=0.01)
    with database.outage():
        log.append([record(number) for number in range(10)])
        closer = threading.Thread(target=log.close)
        closer.start()
        time.sleep(0.3)
        assert outcome(log) == (0, 0, 10)
    closer.join()
    assert outcome(log) == (10, 0, 0)


def test_every_record_of_many_threads_is_written_or_counted(database: Database) -> None:
    with closing(Log(database.url, capacity=700, batch=100, interval=0.01)) as log:

        def work() -> None:
            for number in range(300):
                log.append([record(number) for _ in range(3)])

        threads = [threading.Thread(target=work) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert log.queued == 0
    assert log.written + log.dropped == 6 * 300 * 3
    assert sum(1 for _ in read(database.url)) == log.written


# Processes


def child(body: str, *args: object) -> list[str]:
    start = f"""
import sys; sys.path.insert(0, {PATH!r})
from ketch.log import Log, Record
def record(name):
    return Record(name, "r", 1.0, "m:1", "", {{}}, {{}}, (), 1.0)
"""
    return [sys.executable, "-c", start + body, *map(str, args)]


def test_processes_that_start_together_share_one_log(database: Database) -> None:
    body = """
log = Log(sys.argv[1], interval=0.01)
for i in range(200):
    log.append([record(f"{sys.argv[2]}-{i}")])
log.close()
print(log.written, log.dropped, log.queued)
"""
    running = [
        subprocess.Popen(child(body, database.url, name), stdout=subprocess.PIPE, text=True) for name in range(6)
    ]
    assert [each.communicate()[0] for each in running] == ["200 0 0\n"] * 6
    assert len({each.prediction_id for each in read(database.url)}) == 1200


def test_a_killed_process_leaves_what_it_had_counted(database: Database) -> None:
    body = """
import time
log = Log(sys.argv[1], batch=20, interval=0.001)
for i in range(0, 10**9, 10):
    log.append([record(str(i + k)) for k in range(10)])
    print(log.written, flush=True)
    time.sleep(0.001)
"""
    process = subprocess.Popen(child(body, database.url), stdout=subprocess.PIPE, text=True)
    assert process.stdout
    counted = 0
    for line in process.stdout:
        counted = int(line)
        if counted > 1000:
            process.kill()
            break
    counted = max([counted, *(int(line) for line in process.stdout if line.endswith("\n"))])
    process.stdout.close()
    process.wait()
    found = [int(each.prediction_id) for each in read(database.url)]
    assert len(found) >= counted
    assert sorted(found) == list(range(len(found)))
    if isinstance(database, Sqlite):
        assert database.execute("PRAGMA integrity_check") == [("ok",)]
    with closing(Log(database.url)) as log:
        log.append([record()])
    assert outcome(log) == (1, 0, 0)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on the size of a file to run into")
def test_a_full_disk_heals(tmp_path: Path) -> None:
    body = """
import resource, time
log = Log(sys.argv[1], interval=0.01)
resource.setrlimit(resource.RLIMIT_FSIZE, (90_000, -1))
for i in range(3000):
    log.append([record(str(i))])
time.sleep(0.5)
print(log.written < 3000, log.dropped)
resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
log.close()
print(log.written, log.dropped, log.queued)
"""
    url = f"sqlite:///{tmp_path}/x.db"
    told = subprocess.run(child(body, url), capture_output=True, text=True, check=True)
    assert told.stdout == "True 0\n3000 0 0\n"
    assert told.stderr.splitlines()[0].startswith("the prediction log is failing, and is retried: disk I/O")
    assert told.stderr.splitlines()[-1] == "the prediction log works again; 0 dropped so far"
    assert sum(1 for _ in read(url)) == 3000


# Files and servers that are not what they should be


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not delete open files")
def test_a_deleted_file_is_made_anew(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/x.db"
    with closing(Log(url, interval=0.01)) as log:
        log.append([record(1)])
        until(lambda: log.written == 1)
        (tmp_path / "x.db").unlink()
        log.append([record(2)])
        until(lambda: log.written == 2)
    assert [each.features["tenure"] for each in read(url)] == [2]


def test_a_new_file_is_for_this_user_only_and_a_relative_one_stays_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with closing(Log("sqlite:///x y%.db")) as log:
        (tmp_path / "other").mkdir()
        monkeypatch.chdir(tmp_path / "other")
        log.append([record()])
    path = tmp_path / "x y%.db"
    assert sum(1 for _ in read(f"sqlite:///{path}")) == 1
    if os.name != "nt":
        assert path.stat().st_mode & 0o777 == 0o600


def test_a_log_of_a_newer_ketch_or_somebody_elses_table_is_refused(database: Database) -> None:
    Log(database.url).close()
    database.execute("UPDATE ketch_log_schema SET version = 2")
    for act in (lambda: Log(database.url), lambda: list(read(database.url))):
        with pytest.raises(LogError, match="has format 2") as caught:
            act()
        assert "Update Ketch" in caught.value.hint
    database.execute("DROP TABLE ketch_log_schema")
    with pytest.raises(LogError, match="already exists"):
        Log(database.url)
    with pytest.raises(LogError, match="holds no prediction log"):
        list(read(database.url))


def two_lines(url: str) -> str:
    with pytest.raises(LogError) as caught:
        Log(url)
    told = f"{caught.value}\n{caught.value.hint}"
    assert caught.value.hint
    assert told.count("\n") == 1
    assert "pa55" not in told
    with pytest.raises(LogError):
        list(read(url))
    return told


@pytest.mark.parametrize(
    "url",
    [
        "",
        "predictions.db",
        "sqlite://x",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite:///a.db?mode=ro",
        "mysql://u:pa55@h/d",
    ],
)
def test_a_url_that_names_no_database_is_told_the_forms(url: str) -> None:
    assert "sqlite:////absolute/path.db or postgresql://" in two_lines(url)


def test_a_file_that_cannot_be_a_database_is_told(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("not a database, and longer than a header would be" * 9)
    assert "in a folder that exists" in two_lines(f"sqlite:///{tmp_path}/missing/x.db")
    assert "in a folder that exists" in two_lines(f"sqlite:///{tmp_path}")
    assert "not a database" in two_lines(f"sqlite:///{tmp_path}/text")
    assert "in a folder that exists" in two_lines(f"sqlite:///{tmp_path}/text/x.db")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:pa55@@h/d",
        "postgresql://u:1/pa55@h/d",
        "postgresql://u:1?pa55@h/d",
        "postgresql://u:1#pa55@h/d",
        "postgresql://u:%zzpa55@h/d",
        "postgresql://u:x y@h/d",
        "postgresql://h:port/d?x=pa55",
    ],
)
def test_a_postgres_url_that_cannot_be_read_is_told_without_its_password(url: str) -> None:
    pytest.importorskip("psycopg")
    assert "%3A" in two_lines(url)


def test_a_server_that_is_not_there_is_told() -> None:
    pytest.importorskip("psycopg")
    for url in ("postgresql://u:pa55@127.0.0.1:1/d", "postgresql://127.0.0.1:1/d?user=u&password=pa55"):
        told = two_lines(url)
        assert "***" in told
        assert "Connection refused" in told
        assert "that the server runs" in told


@pytest.mark.postgres
def test_a_wrong_password_and_a_missing_database_are_told() -> None:
    with postgres() as database:
        parts = urlsplit(database.url)
        wrong = parts._replace(netloc=f"{parts.username}:pa55@{parts.hostname}:{parts.port}")
        assert "password authentication failed" in two_lines(urlunsplit(wrong))
        assert "does not exist" in two_lines(urlunsplit(parts._replace(path="/ketch_no_such_database")))
