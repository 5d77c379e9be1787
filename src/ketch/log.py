"""The log: one record for every prediction answered, written to SQLite or PostgreSQL behind the request's back."""

import functools
import logging
import math
import re
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain, islice
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from ketch import extras
from ketch.errors import LogError

SCHEMA = 1
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 2.0  # seconds between attempts on a failing database
PATIENCE = 5  # seconds that opening a database may take
FORMS = "sqlite:///relative.db, sqlite:////absolute/path.db or postgresql://user:password@host:5432/database"

ESCAPED_NUL = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")

Row = tuple[str | float, ...]
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Record:
    """One prediction: what was asked (`features`), what was answered, by which model, when (epoch seconds)."""

    prediction_id: str
    request_id: str
    at: float
    model: str
    digest: str
    features: dict[str, object]
    answer: dict[str, object]
    flags: tuple[str, ...]
    latency_ms: float
    client: str = ""


# A prediction as it went over the wire: prediction_id, request_id, at, model, digest, features, answer, latency_ms,
# client; features and answer are JSON already. A plain tuple, because one is made for every request.
Written = tuple[bytes, bytes, float, str, str, bytes, bytes, float, str]


class Log:
    """The queue in front of one database, and the one thread that empties it."""

    def __init__(self, url: str, *, capacity: int = 100_000, batch: int = 2000, interval: float = 0.5) -> None:
        """Open the database, with its tables made if they are missing, and start the writer.

        At most `capacity` records wait in memory; they are written when there are `batch`, or after `interval` seconds.

        Raises:
            LogError: the database cannot be opened, or was made by a newer Ketch.
            NotInstalled: the URL is PostgreSQL's and psycopg is missing.
        """
        self._capacity, self._batch, self._interval = capacity, max(1, batch), interval
        self._queue: deque[Record | Written] = (
            deque()
        )  # a record leaves when its fate is known, so this bounds all memory
        self._written = self._dropped = 0
        self._changed = threading.Condition()  # guards the three above
        self._closing, self._stopped = threading.Event(), threading.Event()
        self._database = _database(url)
        try:
            self._database.open()
        except LogError:
            self._database.close()
            raise
        self._writer = threading.Thread(target=self._run, name="ketch-log", daemon=True)
        self._writer.start()

    def append(self, records: Sequence[Record | Written]) -> None:
        """Queue records, or drop and count those for which there is no room; never waits, never raises.

        A record must not be changed afterwards: it is encoded later, in the writer's thread.
        """
        with self._changed:
            room = 0 if self._closing.is_set() else max(0, self._capacity - len(self._queue))
            taken = records[:room]
            wake = not self._queue or len(self._queue) + len(taken) >= self._batch
            self._queue.extend(taken)
            self._dropped += len(records) - len(taken)
            if wake:
                self._changed.notify()

    @property
    def written(self) -> int:
        """Records that the database has confirmed."""
        return self._written

    @property
    def dropped(self) -> int:
        """Records that were given up: no room, not encodable, refused by the database, or left when closed."""
        return self._dropped

    @property
    def queued(self) -> int:
        """Records whose fate is not known yet."""
        return len(self._queue)

    def close(self, timeout: float = 10.0) -> None:
        """Write what is queued, for at most `timeout` seconds; what is left then is dropped and counted."""
        with self._changed:
            self._closing.set()
            self._changed.notify()
        if not self._stopped.is_set():
            self._writer.join(timeout)
        with self._changed:
            self._stopped.set()  # from here on the writer's outcome counts no more: the counters are final
            self._dropped += len(self._queue)
            self._queue.clear()

    # The writer's thread

    def _run(self) -> None:
        while batch := self._next():
            rows = [row for row in map(_row, batch) if row]
            lost = len(batch) - len(rows)
            self._settle(dropped=lost)
            lost += self._insert(rows)
            if lost:  # said by number only: neither values nor the database's own words about them
                logger.warning("%d prediction records dropped: not encodable, or refused by the database", lost)
        self._database.close()

    def _next(self) -> list[Record | Written]:
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closing.is_set())
            self._changed.wait_for(lambda: len(self._queue) >= self._batch or self._closing.is_set(), self._interval)
            return list(islice(self._queue, MOST_BATCHES * self._batch))

    def _settle(self, *, written: int = 0, dropped: int = 0) -> None:
        with self._changed:
            if self._stopped.is_set():
                return
            self._written += written
            self._dropped += dropped
            for _ in range(written + dropped):
                self._queue.popleft()

    def _insert(self, rows: list[Row]) -> int:
        try:
            if rows and self._persist(rows):
                self._settle(written=len(rows))
        except self._database.refusals:
            if len(rows) == 1:
                self._settle(dropped=1)
                return 1
            middle = len(rows) // 2  # one bad row must not cost the others: find it by halves
            return self._insert(rows[:middle]) + self._insert(rows[middle:])
        return 0

    def _persist(self, rows: list[Row]) -> bool:
        pause, failed = FIRST_PAUSE, False
        while not self._stopped.is_set():
            try:
                self._database.write(rows)
            except self._database.refusals:
                raise
            except Exception as error:  # whatever it is, the request path must not notice and the thread must live
                if not failed:
                    logger.warning("the prediction log is failing, and is retried: %s", _line(error))
                failed = True
            else:
                if failed:
                    logger.warning("the prediction log works again; %d dropped so far", self._dropped)
                return True
            self._database.close()
            if self._closing.is_set():
                self._stopped.wait(FIRST_PAUSE)
            else:
                self._closing.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
        return False


def read(url: str, *, limit: int | None = None, newest: bool = False) -> Iterator[Record]:
    """Yield the records of a database one by one, oldest or newest first, at most `limit`, `at` to the microsecond.

    Raises:
        LogError: the database cannot be opened or holds no prediction log.
        NotInstalled: the URL is PostgreSQL's and psycopg is missing.
    """
    with closing(_database(url)) as database:
        for row in database.rows(limit, newest=newest):
            yield _record(row)


COLUMNS = "prediction_id, request_id, at, model, digest, features, answer, flags, latency_ms, client"
PLACES = "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
TOGETHER = 250  # rows of one statement
MOST_BATCHES = 8  # written in one transaction
VERSION = "SELECT version FROM ketch_log_schema"
TABLES = (
    """CREATE TABLE predictions (
        prediction_id text PRIMARY KEY, request_id text NOT NULL, at {time} NOT NULL, model text NOT NULL,
        digest text NOT NULL, features {json} NOT NULL, answer {json} NOT NULL, flags {json} NOT NULL,
        latency_ms {real} NOT NULL, client text NOT NULL)""",
    "CREATE INDEX predictions_at ON predictions (at, prediction_id)",
    "CREATE TABLE ketch_log_schema (version integer NOT NULL)",
    "INSERT INTO ketch_log_schema VALUES (1)",
)


def _database(url: str) -> "_Sqlite | _Postgres":
    if url.startswith("sqlite:///"):
        return _Sqlite(url)
    if url.startswith(("postgresql://", "postgres://")):
        return _Postgres(url)
    raise LogError(f"{url.partition(':')[0][:40]!r} is no database that a log can be in", hint=f"Give {FORMS}.")


def _row(record: Record | Written) -> Row | None:
    try:
        if isinstance(record, tuple):
            return _written(record)
        if not math.isfinite(record.latency_ms):
            return None
        at = datetime.fromtimestamp(record.at, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        names = (record.prediction_id, record.request_id, record.model, record.digest, record.client)
        prediction_id, request_id, model, digest, client = map(_text, names)
        parts = map(_json, (record.features, record.answer, record.flags))
        return prediction_id, request_id, at, model, digest, *parts, float(record.latency_ms), client
    except Exception:  # a record is made of what strangers sent: none may stop the thread
        return None


def _written(record: Written) -> Row:
    prediction_id, request_id, at, model, digest, features, answer, latency_ms, client = record
    asked, answered = features.decode(), answer.decode()
    if "\\u0000" in asked or "\\u0000" in answered:
        asked, answered = (ESCAPED_NUL.sub(r"\1\\ufffd", text) for text in (asked, answered))
    second = int(at)
    when = f"{_second(second)}.{int((at - second) * 1e6):06d}Z"
    return prediction_id.decode(), request_id.decode(), when, model, digest, asked, answered, "[]", latency_ms, client


@functools.lru_cache(maxsize=4)
def _second(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat()[:19]


def _text(value: str) -> str:
    return value.encode("utf-8", "replace").decode().replace("\0", "\ufffd")


def _json(value: object) -> str:
    text = msgspec.json.encode(value).decode()
    # PostgreSQL holds no NUL, not even escaped; an escaped backslash before u0000 is something else.
    return ESCAPED_NUL.sub(r"\1\\ufffd", text) if r"\u0000" in text else text


def _record(row: tuple[Any, ...]) -> Record:
    prediction_id, request_id, at, model, digest, *parts, latency_ms, client = row
    features, answer, flags = map(msgspec.json.decode, parts)
    when = datetime.fromisoformat(at).timestamp()
    return Record(prediction_id, request_id, when, model, digest, features, answer, tuple(flags), latency_ms, client)


def _check(version: tuple[int] | None, url: str) -> None:
    if version is None:
        raise LogError(f"{url} holds no prediction log", hint="Give the URL that ketch serve --log was given.")
    if version[0] > SCHEMA:
        raise LogError(
            f"the prediction log {url} has format {version[0]}; this Ketch knows {SCHEMA}",
            hint="Update Ketch (pip install -U ketch), or give another database.",
        )


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


@contextmanager
def _explained(url: str, kinds: tuple[type[Exception], ...], hint: str) -> Iterator[None]:
    try:
        yield
    except kinds as error:
        raise LogError(f"the prediction log {url} cannot be opened: {_line(error)}", hint=hint) from None


def _write_ahead(connection: sqlite3.Connection) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:  # unlike other statements this one does not wait for its turn when workers start together
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(FIRST_PAUSE)
        else:
            return


def _order(*, newest: bool) -> str:
    return " ORDER BY at DESC, prediction_id DESC LIMIT " if newest else " ORDER BY at, prediction_id LIMIT "


class _Sqlite:
    TYPES: ClassVar = {"time": "text", "json": "text", "real": "real"}
    EXISTS = "SELECT count(*) FROM sqlite_master WHERE name = 'ketch_log_schema'"
    INSERT = f"""INSERT INTO predictions ({COLUMNS}) VALUES {PLACES}
        ON CONFLICT (prediction_id) DO NOTHING"""  # noqa: S608 - made of this module's constants
    # one step of the database for many rows: each step waits for its turn with the threads that answer
    INSERT_MANY = INSERT.replace(PLACES, ", ".join([PLACES] * TOGETHER))
    SELECT = f"SELECT {COLUMNS} FROM predictions"  # noqa: S608 - the same
    HINT = "Give a SQLite file, or a new one, that this user may write, in a folder that exists."
    refusals = (sqlite3.DataError, sqlite3.IntegrityError)  # raised for rows never taken; whatever else may pass

    def __init__(self, url: str) -> None:
        path = url.removeprefix("sqlite:///")
        if not path or path.startswith(":") or "?" in path:
            raise LogError(f"{url} names no database file", hint=f"Give {FORMS}.")
        self._url, self._path = url, Path(path).absolute()
        self._told = (url, (sqlite3.Error, OSError), self.HINT)
        self._connection: sqlite3.Connection | None = None
        self._file = 0

    def open(self) -> sqlite3.Connection:
        with _explained(*self._told):
            if not self._path.exists():
                self._path.touch(0o600)  # people's data: for this user, until somebody decides otherwise
            self._connection = connection = self._connect("rwc")
            connection.execute("PRAGMA page_size = 16384")  # of a new file: fewer, larger writes
            _write_ahead(connection)
            connection.execute("PRAGMA synchronous = FULL")
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                if not connection.execute(self.EXISTS).fetchone()[0]:
                    for statement in TABLES:
                        connection.execute(statement.format_map(self.TYPES))
            _check(connection.execute(VERSION).fetchone(), self._url)
            self._file = self._path.stat().st_ino
            return connection

    def write(self, rows: list[Row]) -> None:
        connection = self._connection
        if connection is None or self._moved():
            self.close()
            connection = self.open()
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            whole = len(rows) - len(rows) % TOGETHER
            for at in range(0, whole, TOGETHER):
                connection.execute(self.INSERT_MANY, [*chain.from_iterable(rows[at : at + TOGETHER])])
            connection.executemany(self.INSERT, rows[whole:])

    def rows(self, limit: int | None, *, newest: bool = False) -> Iterator[tuple[Any, ...]]:
        with _explained(*self._told):
            self._connection = connection = self._connect("rw")
            found = connection.execute(self.EXISTS).fetchone()[0]
            _check(connection.execute(VERSION).fetchone() if found else None, self._url)
            select = self.SELECT + _order(newest=newest) + "?"
            yield from connection.execute(select, (-1 if limit is None else limit,))

    def close(self) -> None:
        if self._connection:
            with suppress(sqlite3.Error):  # what it was doing is done again anyway
                self._connection.close()
        self._connection = None

    def _connect(self, mode: str) -> sqlite3.Connection:
        # Opened by one thread, used by the writer: one after the other, never both.
        name = f"{self._path.as_uri()}?mode={mode}"
        return sqlite3.connect(name, PATIENCE, isolation_level=None, check_same_thread=False, uri=True)

    def _moved(self) -> bool:
        # SQLite would go on writing, without an error, to a file that was deleted or renamed.
        try:
            return self._path.stat().st_ino != self._file
        except FileNotFoundError:
            return True


class _Postgres:
    TYPES: ClassVar = {"time": "timestamptz", "json": "jsonb", "real": "double precision"}
    EXISTS = """SELECT count(*) FROM pg_tables
        WHERE tablename = 'ketch_log_schema' AND schemaname = ANY (current_schemas(false))"""
    URL = re.compile(r"postgres(ql)?://([^@/?#\s]*@)?[^@\s]*")
    INSERT = f"""INSERT INTO predictions ({COLUMNS})
        SELECT prediction_id, request_id, at::timestamptz, model, digest,
               features::jsonb, answer::jsonb, flags::jsonb, latency_ms, client
        FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[],
                    %s::float8[], %s::text[]) AS given ({COLUMNS})
        ON CONFLICT (prediction_id) DO NOTHING"""  # noqa: S608 - made of this module's constants
    SELECT = """SELECT prediction_id, request_id, to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
        model, digest, features::text, answer::text, flags::text, latency_ms, client
        FROM predictions"""
    HINT = "Check user, password, host, port and database, that the server runs, and that this user may create tables."

    def __init__(self, url: str) -> None:
        self._psycopg = psycopg = extras.load("psycopg")
        self.refusals = (psycopg.DataError, psycopg.IntegrityError, psycopg.errors.RaiseException)
        self._connection: Any = None
        try:
            # Checked before libpq sees it, which would take a part of such a password for a host and print it.
            given = psycopg.conninfo.conninfo_to_dict(url) if self.URL.fullmatch(url) else None
        except psycopg.Error:
            given = None
        if given is None:
            raise LogError(
                "the PostgreSQL URL of the prediction log cannot be read",
                hint=f"Give {FORMS.rpartition(' ')[2]}, with : / ? # @ % in user and password written as %3A %2F …",
            )
        self._given = {"connect_timeout": PATIENCE, "tcp_user_timeout": 10_000, "application_name": "ketch", **given}
        self._shown = re.sub(r"(//[^:@/]*:)[^@/]*(?=@)|(password=)[^&]*", r"\1\2***", url)
        self._told = (self._shown, (psycopg.Error,), self.HINT)

    def open(self) -> None:
        with _explained(*self._told):
            self._connection = connection = self._connect()
            if not connection.execute(self.EXISTS).fetchone()[0]:
                with connection.transaction():
                    connection.execute("SELECT pg_advisory_xact_lock(7501)")  # workers that start together
                    if not connection.execute(self.EXISTS).fetchone()[0]:
                        for statement in TABLES:
                            connection.execute(statement.format_map(self.TYPES))
            _check(connection.execute(VERSION).fetchone(), self._shown)

    def write(self, rows: list[Row]) -> None:
        if self._connection is None:
            self.open()
        self._connection.execute(self.INSERT, [list(column) for column in zip(*rows, strict=True)])

    def rows(self, limit: int | None, *, newest: bool = False) -> Iterator[tuple[Any, ...]]:
        with _explained(*self._told):
            self._connection = connection = self._connect()
            found = connection.execute(self.EXISTS).fetchone()[0]
            _check(connection.execute(VERSION).fetchone() if found else None, self._shown)
            with connection.transaction(), connection.cursor(name="ketch") as cursor:  # by pages, not all at once
                yield from cursor.execute(self.SELECT + _order(newest=newest) + "%s", (limit,))

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def _connect(self) -> Any:
        # Nothing prepared: poolers (PgBouncer) may give every statement another session.
        return self._psycopg.connect(**self._given, client_encoding="utf8", autocommit=True, prepare_threshold=None)
