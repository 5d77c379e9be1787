"""Whole tables: read in chunks, checked and answered as the service does, written as they come.

CSV or Parquet --*chunks*--> rows --sift, run--> answers beside the input; rejected rows to a side file
"""

import csv
import io
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, Protocol

from ketch import codec, extras
from ketch.codec import Table
from ketch.errors import InputError, KetchError, UndecodableBody
from ketch.predict import Predictor, Rows
from ketch.schema import Answer, Columns, Fault, Field, is_missing
from ketch.schema.checks import Checker

CHUNK: Final = 10_000
PARQUET: Final = frozenset({".parquet", ".pq"})
GIVEN: Final = "_given"  # appended to an input column that bears the name of an answer


@dataclass
class Summary:
    """What became of a table; `done` and `total` are in the reader's own unit (bytes or rows)."""

    rows: int = 0
    scored: int = 0
    rejected: int = 0
    flags: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    done: int = 0
    total: int = 0
    side_file: Path | None = None


@dataclass(frozen=True)
class Chunk:
    """Some rows of the input: as they stand there, typed for the check, and those with the wrong number of cells."""

    first: int
    given: Columns
    typed: Columns
    n: int
    broken: Mapping[int, str]
    done: int


class Reader(Protocol):
    """Where rows come from."""

    names: list[str]
    total: int

    def chunks(self, fields: Sequence[Field], size: int) -> Iterator[Chunk]:
        """Give the rows, `size` at a time."""


class Writer(Protocol):
    """Where answered rows go."""

    def write(self, columns: Mapping[str, Sequence[object]], n: int) -> None:
        """Write `n` rows."""

    def close(self) -> None:
        """Finish the file."""


def score(
    predictor: Predictor,
    source: Path,
    target: Path,
    *,
    rejected: Path | None = None,
    chunk: int = CHUNK,
    report: Callable[[Summary], None] = lambda summary: None,
) -> Summary:
    """Answer every row of a table, in the same words and under the same rules as the service.

    The answers stand beside the input columns. Rows that the contract refuses go to `rejected` (by default
    TARGET.rejected.csv) with their reasons; both files appear whole, at the end.

    Raises:
        InputError: the table as a whole cannot be used: not there, not readable, columns missing.
    """
    side = rejected or target.with_name(f"{target.name}.rejected.csv")
    if len({source.resolve(), target.resolve(), side.resolve()}) < 3:
        raise InputError("Input and output are the same file", hint="Give another output with -o or --rejected.")
    began = time.monotonic()
    with ExitStack() as stack:
        reader = _reader(source, stack, predictor)
        unknown = checked_columns(reader.names, predictor)
        job = _Job(predictor, reader, _Part(target, stack), _Part(side, stack))
        summary = Summary(total=reader.total)
        for part in reader.chunks(predictor.contract.fields, chunk):
            job.answer(part, summary)
            summary.flags.update({f"unknown-field in {name}": part.n for name in unknown})
            summary.seconds = time.monotonic() - began
            report(summary)
        job.finish()
    summary.side_file = side if summary.rejected else None
    return summary


def checked_columns(names: Sequence[str], predictor: Predictor) -> list[str]:
    """Refuse a table whose columns cannot be the contract's, before its first row is read; name the unknown ones.

    Raises:
        InputError: a required column is missing or seems misspelt.
    """
    checker: Checker = predictor.checker
    columns: Columns = {name: [None] for name in names}
    found = checker(columns, 1)
    needed = [each.name for each in predictor.contract.fields if each.required and not checker.lenient]
    absent = [name for name in needed if name not in columns]
    wrong = [fault for fault in found.faults if fault.code == "unknown-field"]
    if wrong:
        fault = wrong[0]
        meant = f"Did you mean {fault.nearest!r}? " if fault.nearest else ""
        raise InputError(
            f"The table has a column {fault.field!r}, which the model does not know",
            hint=f"{meant}Rename or remove it.",
        )
    if absent:
        more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        raise InputError(
            f"The table has no column {absent[0]!r}{more}", hint="ketch inspect MODEL lists the fields it needs."
        )
    return [flag.field for flag in found.flags if flag.code == "unknown-field"]


class _Part:
    """A file written beside its final place and moved there when all went well."""

    def __init__(self, path: Path, stack: ExitStack) -> None:
        self.path = path
        self.temporary = path.with_name(f".{path.name}.part")
        self.writer: Writer | None = None
        stack.callback(self._drop)

    def open(self, names: Sequence[str], types: Mapping[str, str]) -> Writer:
        try:
            parquet = self.path.suffix.lower() in PARQUET
            made = _ParquetWriter(self.temporary, names, types) if parquet else _CsvWriter(self.temporary, names)
        except OSError as error:
            raise InputError(
                f"{self.path} cannot be written: {error.strerror}", hint="Choose another place with -o."
            ) from None
        self.writer = made
        return made

    def settle(self) -> None:
        if self.writer is None:
            self.path.unlink(missing_ok=True)
            return
        self.writer.close()
        self.writer = None
        self.temporary.replace(self.path)

    def _drop(self) -> None:
        """Leave nothing half-written behind."""
        if self.writer is not None:
            self.writer.close()
        self.temporary.unlink(missing_ok=True)


class _Job:
    """One run over one table."""

    def __init__(self, predictor: Predictor, reader: Reader, target: _Part, side: _Part) -> None:
        self._predictor = predictor
        self._names = reader.names
        self._types = _types(predictor, reader)
        self._known = {each.name for each in predictor.contract.fields}
        self._target, self._side = target, side
        self._answers: Writer | None = None
        self._refusals: Writer | None = None

    def answer(self, part: Chunk, summary: Summary) -> None:
        """Answer one chunk and write what became of it."""
        columns = {name: values for name, values in part.typed.items() if name in self._known}
        rows, bad = self._predictor.sift(Table(columns, part.n))
        reasons = {row: "; ".join(map(reason, faults)) for row, faults in bad.items()} | dict(part.broken)
        if part.broken:
            rows, _ = self._without(part, columns, reasons)
        keep = [row for row in range(part.n) if row not in reasons]
        answered = self._run(rows, keep, reasons) if keep else {}
        keep = [row for row in keep if row not in reasons]
        if self._answers is None:
            self._begin(answered)
        if keep and self._answers is not None:
            given = {self._renamed[name]: [values[row] for row in keep] for name, values in part.given.items()}
            self._answers.write({**given, **answered}, len(keep))
        self._reject(part, reasons)
        summary.rows += part.n
        summary.scored += len(keep)
        summary.rejected += len(reasons)
        summary.flags.update(f"{flag.code} in {flag.field}" for flag in rows.flags)
        summary.done = part.done

    def _without(self, part: Chunk, columns: Columns, reasons: Mapping[int, str]) -> tuple[Rows, object]:
        keep = [row for row in range(part.n) if row not in reasons]
        return self._predictor.sift(
            Table({name: [values[row] for row in keep] for name, values in columns.items()}, len(keep))
        )

    def _run(self, rows: Rows, keep: list[int], reasons: dict[int, str]) -> dict[str, Sequence[object]]:
        try:
            return codec.flatten(self._predictor.run(rows).columns)
        except KetchError:
            return self._run_singly(rows, keep, reasons)

    def _run_singly(self, rows: Rows, keep: list[int], reasons: dict[int, str]) -> dict[str, Sequence[object]]:
        """Find the rows without an answer, so that they alone are rejected."""
        found: dict[str, list[object]] = {}
        for place, row in enumerate(keep):
            try:
                one = self._predictor.run(Rows({name: [values[place]] for name, values in rows.columns.items()}, 1))
            except KetchError as error:
                reasons[row] = f"{error.code}: {error.message}"
                continue
            for name, values in codec.flatten(one.columns).items():
                found.setdefault(name, []).extend(values)
        return dict(found)

    def _begin(self, answered: Mapping[str, Sequence[object]]) -> None:
        answers = list(answered) or list(answer_types(self._predictor))
        self._renamed = given_names(self._names, answers)
        types = {self._renamed[name]: kind for name, kind in self._types.items() if name in self._renamed}
        types |= answer_types(self._predictor)
        self._answers = self._target.open([*self._renamed.values(), *answers], types)

    def _reject(self, part: Chunk, reasons: Mapping[int, str]) -> None:
        if not reasons:
            return
        renamed = given_names(self._names, ["row", "reasons"])
        if self._refusals is None:
            self._refusals = self._side.open(["row", "reasons", *renamed.values()], {"row": "integer"})
        listed = sorted(reasons)
        self._refusals.write(
            {
                "row": [part.first + row + 1 for row in listed],
                "reasons": [reasons[row] for row in listed],
                **{renamed[name]: [values[row] for row in listed] for name, values in part.given.items()},
            },
            len(listed),
        )

    def finish(self) -> None:
        """Close and move both files to their places."""
        if self._answers is None:
            self._begin({})
        self._target.settle()
        self._side.settle()


def given_names(names: Sequence[str], taken: Sequence[str]) -> dict[str, str]:
    """Name the input's columns in the output, so that none bears the name of an answer or of another."""
    found: dict[str, str] = {}
    for name in names:
        called = name
        while called in taken or (called != name and (called in names or called in found.values())):
            called += GIVEN
        found[name] = called
    return found


def reason(fault: Fault) -> str:
    """Say in one line why a row is rejected."""
    nearest = f", did you mean {fault.nearest}?" if fault.nearest is not None else ""
    return f"{fault.field}: {fault.code}, {fault.expected}{nearest}"


def answer_types(predictor: Predictor) -> dict[str, str]:
    """Name the answer columns with their types."""
    answer = predictor.contract.answer
    return {name: kind for part in answer.parts or (answer,) for name, kind in _types_of(part).items()}


def _types_of(answer: Answer) -> dict[str, str]:
    if answer.task == "regression":
        return {answer.target: "number"}
    if answer.task == "outlier":
        return {"outlier": "boolean", "outlier_score": "number"}
    if answer.task == "cluster":
        return {"cluster": "integer"}
    label = "boolean" if set(answer.classes) == {0, 1} and answer.task == "binary" else _kind_of(answer.classes)
    types = {answer.target: label}
    if answer.task == "binary" and answer.values != "none":
        types[f"{answer.target}_{answer.values}"] = "number"
    elif answer.values != "none":
        plural = "probabilities" if answer.values == "probability" else "scores"
        types |= {f"{answer.target}_{plural}.{each}": "number" for each in answer.classes}
    return types


def _kind_of(classes: Sequence[object]) -> str:
    if all(type(each) is int for each in classes):
        return "integer"
    return "number" if all(isinstance(each, int | float) for each in classes) else "text"


def _types(predictor: Predictor, reader: Reader) -> dict[str, Any]:
    native = getattr(reader, "types", {})
    return {each.name: each.type for each in predictor.contract.fields} | dict(native)


# ---- CSV -------------------------------------------------------------------------------------------


def _reader(source: Path, stack: ExitStack, predictor: Predictor) -> Reader:
    if not source.is_file():
        raise InputError(f"There is no file {source}", hint="Check the path; ls shows what is there.")
    try:
        if source.suffix.lower() in PARQUET:
            return _ParquetReader(source)
        known = [each.name for each in predictor.contract.fields]
        return _CsvReader(stack.enter_context(source.open("rb")), source, known)
    except OSError as error:
        raise InputError(f"{source} cannot be read: {error.strerror}", hint="Give a readable file.") from None


class _CsvReader:
    def __init__(self, raw: Any, source: Path, known: Sequence[str]) -> None:
        self._raw, self._source = raw, source
        self.total = source.stat().st_size
        self._rows = csv.reader(io.TextIOWrapper(raw, "utf-8-sig", newline=""), strict=True)
        try:
            self.names = codec.checked_header(next(self._rows, []), known)
        except UndecodableBody as error:
            raise InputError(f"{source}: {error.message}", hint=error.hint) from None
        except (csv.Error, UnicodeDecodeError) as error:
            raise self._unreadable(error) from None

    def _unreadable(self, error: Exception) -> InputError:
        where = f"line {self._rows.line_num} of {self._source}"
        if isinstance(error, UnicodeDecodeError):
            return InputError(f"{where} is not UTF-8", hint="Save the table as UTF-8.")
        return InputError(f"{where} is not CSV: {error}", hint="Mend that line.")

    def chunks(self, fields: Sequence[Field], size: int) -> Iterator[Chunk]:
        first = 0
        while lines := self._next(size):
            width = len(self.names)
            broken = {
                row: f"{len(cells)} cells where the header has {width}"
                for row, cells in enumerate(lines)
                if len(cells) != width
            }
            even = [(cells + [""] * width)[:width] for cells in lines] if broken else lines
            given: Columns = {
                name: list(cells) for name, cells in zip(self.names, zip(*even, strict=True), strict=True)
            }
            typed = codec.typed_columns(self.names, even, fields)
            yield Chunk(first, given, typed, len(even), broken, self._raw.tell())
            first += len(even)

    def _next(self, size: int) -> list[list[str]]:
        lines: list[list[str]] = []
        try:
            for cells in self._rows:
                if cells:
                    lines.append(cells)
                if len(lines) == size:
                    break
        except (csv.Error, UnicodeDecodeError) as error:
            raise self._unreadable(error) from None
        return lines


class _CsvWriter:
    def __init__(self, path: Path, names: Sequence[str]) -> None:
        self._file = path.open("w", encoding="utf-8", newline="")
        self._names = list(names)
        self._rows = csv.writer(self._file, lineterminator="\n")
        self._rows.writerow(self._names)

    def write(self, columns: Mapping[str, Sequence[object]], n: int) -> None:
        cells = [[codec.csv_cell(value) for value in columns[name]] for name in self._names]
        self._rows.writerows(zip(*cells, strict=True))

    def close(self) -> None:
        self._file.close()


# ---- Parquet ---------------------------------------------------------------------------------------


class _ParquetReader:
    def __init__(self, source: Path) -> None:
        parquet, arrow = extras.load("pyarrow.parquet"), extras.load("pyarrow")
        try:
            self._file = parquet.ParquetFile(source)
        except (arrow.ArrowInvalid, OSError) as error:
            reason = str(error).partition("\n")[0][:120]
            raise InputError(f"{source} is not Parquet: {reason}", hint="Give a Parquet or CSV file.") from None
        self.names = list(self._file.schema_arrow.names)
        if len(set(self.names)) != len(self.names):
            raise InputError(f"{source} has two columns of one name", hint="Remove or rename one of them.")
        self.types = {name: self._file.schema_arrow.field(name).type for name in self.names}
        self.total = self._file.metadata.num_rows

    def chunks(self, fields: Sequence[Field], size: int) -> Iterator[Chunk]:
        first = 0
        for batch in self._file.iter_batches(batch_size=size):
            given: Columns = batch.to_pydict()
            typed = {name: [_typed(value) for value in values] for name, values in given.items()}
            yield Chunk(first, given, typed, batch.num_rows, {}, first + batch.num_rows)
            first += batch.num_rows


class _ParquetWriter:
    def __init__(self, path: Path, names: Sequence[str], types: Mapping[str, Any]) -> None:
        self._arrow, parquet = extras.load("pyarrow"), extras.load("pyarrow.parquet")
        self._schema = self._arrow.schema([(name, self._type(types.get(name, "text"))) for name in names])
        self._writer = parquet.ParquetWriter(path, self._schema)

    def _type(self, kind: Any) -> Any:
        known = {"number": "float64", "integer": "int64", "boolean": "bool_"}
        return getattr(self._arrow, known.get(kind, "string"))() if isinstance(kind, str) else kind

    def write(self, columns: Mapping[str, Sequence[object]], n: int) -> None:
        arrays = [self._array(columns[each.name], each) for each in self._schema]
        self._writer.write_batch(self._arrow.record_batch(arrays, schema=self._schema))

    def _array(self, values: Sequence[object], column: Any) -> Any:
        types = self._arrow.types
        if types.is_string(column.type):
            values = [None if value is None else str(value) for value in values]
        elif types.is_boolean(column.type):
            values = [codec.boolean_cell(value) if isinstance(value, str) else value for value in values]
        elif types.is_integer(column.type) or types.is_floating(column.type):
            values = [codec.number_cell(value) if isinstance(value, str) else value for value in values]
        try:
            return self._arrow.array(values, column.type, from_pandas=True)
        except (self._arrow.ArrowException, OverflowError) as error:
            reason = str(error).partition("\n")[0][:120]
            raise InputError(
                f"A value of {column.name!r} cannot be written as {column.type}: {reason}", hint="Write a CSV instead."
            ) from None

    def close(self) -> None:
        self._writer.close()


def _typed(value: object) -> object:
    if is_missing(value):
        return None
    return float(value) if isinstance(value, Decimal) else value
