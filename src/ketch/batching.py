"""Rows of several requests run as one; each request gets exactly its own answers. No I/O, no timers.

[Rows, Rows, …] --*merge*--> Rows --ask--> Raw --*split*--> [Results | refusal, …]
"""

from collections.abc import Iterable, Sequence

from ketch.adapters import Raw
from ketch.codec import Row
from ketch.errors import KetchError
from ketch.predict import Predictor, Results, Rows


def run_together(predictor: Predictor, requests: Sequence[Rows]) -> list[Results | KetchError]:
    """Answer several requests in one call of the model.

    A request that the model cannot answer is refused alone: the others are then asked one by one.
    """
    if len(requests) == 1:
        return [_alone(predictor, requests[0])]
    try:
        raw = predictor.ask(merge(requests))
    except KetchError:
        return [_alone(predictor, rows) for rows in requests]
    return [_answer(predictor, part, rows) for part, rows in zip(split(raw, requests), requests, strict=True)]


def run_rows(predictor: Predictor, read: Sequence[Row]) -> list[Results | KetchError]:
    """Answer single rows, as the predictor's reader has read them, in one call of the model.

    A row that the model cannot answer is refused alone: each is then asked on its own.
    """
    if len(read) > 1:
        try:
            found = predictor.run(predictor.rows_of(read)).columns
            names = list(found)
            each = zip(*found.values(), strict=True)
            return [Results({name: [value] for name, value in zip(names, row, strict=True)}, 1, True) for row in each]
        except KetchError:
            pass
    return [_one(predictor, values) for values in read]


def merge(requests: Sequence[Rows]) -> Rows:
    """Put the rows of all requests below one another."""
    columns = {name: [value for rows in requests for value in rows.columns[name]] for name in requests[0].columns}
    return Rows(columns, sum(rows.n for rows in requests))


def split(raw: Raw, requests: Sequence[Rows]) -> Iterable[Raw]:
    """Give every request its own slice of the answers."""
    start = 0
    for rows in requests:
        end = start + rows.n
        yield raw.rows(start, end)
        start = end


def _one(predictor: Predictor, values: Row) -> Results | KetchError:
    try:
        return predictor.answer_row(values)
    except KetchError as error:
        return error


def _alone(predictor: Predictor, rows: Rows) -> Results | KetchError:
    try:
        return predictor.run(rows)
    except KetchError as error:
        return error


def _answer(predictor: Predictor, raw: Raw, rows: Rows) -> Results | KetchError:
    try:
        return predictor.answer(raw, single=rows.single)
    except KetchError as error:
        return error
