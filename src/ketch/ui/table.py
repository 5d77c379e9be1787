"""The page that takes a file: columns found by likeness, rows held against the contract, answers to take away."""

import csv
import difflib
import io
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Final

import pandas as pd
import streamlit as st

from ketch.codec import Table, flatten, repeated, typed_columns
from ketch.errors import InputError, RequestError
from ketch.page.words import spoken
from ketch.predict import Predictor, Rows
from ketch.schema import Columns, Field
from ketch.ui import Shown, charts, complaint, harmless, literal, numeral
from ketch.ui.ask import fault_told

AT_ONCE: Final = 1000
LIKE: Final = 0.75
MOST_ROWS: Final = 1_000_000


@dataclass
class Answered:
    """What became of a file's rows: answers by the number of the row, and reasons of those refused."""

    answers: dict[int, dict[str, object]] = field(default_factory=dict)
    refused: dict[int, str] = field(default_factory=dict)


def page(what: Shown, lang: str) -> None:
    """Take a file and give it back with answers."""
    words = spoken(lang)
    st.title(words["file"])
    st.write(words["file_told"])
    names = [each.name for each in what.predictor.contract.fields]
    start = [_cell(what.form.start.get(name)) for name in names]
    st.download_button(words["template"], _written(names, [start]), f"{what.predictor.name}.csv", "text/csv")
    given = st.file_uploader(words["choose"], type=["csv", "tsv", "txt", "xlsx"])
    if given is None:
        st.session_state.pop("answered", None)
        return
    try:
        header, rows = read(given.name, given.getvalue())
    except InputError as error:
        st.error(words["file_bad"].format(complaint(error)))
        return
    places = _matched(what, header, words)
    if st.button(words["run"], type="primary"):
        st.session_state["answered"] = (given.file_id, _answer(what, header, rows, places, words))
    kept = st.session_state.get("answered")
    if kept and kept[0] == given.file_id:
        _show(what, header, rows, kept[1], words)


# ---- reading -------------------------------------------------------------------------------------------


def read(name: str, data: bytes) -> tuple[list[str], list[list[str]]]:
    """Read a table as texts: names of columns, and rows.

    Raises:
        InputError: it is none that can be read.
    """
    rows = _sheet(data) if name.lower().endswith(".xlsx") else _lines(name, data)
    header = [each.strip() for each in next(rows, [])]
    if not any(header):
        raise InputError("the first line names no columns", hint="Put the field names there.")
    if twice := repeated([each for each in header if each]):
        raise InputError(f"two columns are named {twice[:80]}", hint="Rename one of them.")
    found = []
    for cells in rows:
        if any(cells):
            found.append(cells)
        if len(found) > MOST_ROWS:
            raise InputError(f"it has more than {MOST_ROWS:,} rows", hint="Use ketch score for a table of that size.")
    if not found:
        raise InputError("there are no rows in it", hint="Give a line for each case.")
    return header, found


def _lines(name: str, data: bytes) -> Iterator[list[str]]:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("cp1252", errors="replace")  # what Excel writes in the West
    first = text.partition("\n")[0]
    separator = "\t" if name.lower().endswith(".tsv") else max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        yield from reader
    except csv.Error as error:
        raise InputError(f"line {reader.line_num}: {error}", hint="Mend that line.") from None


def _sheet(data: bytes) -> Iterator[list[str]]:
    from ketch import extras

    book: Any = extras.load("openpyxl")
    try:
        sheet = book.load_workbook(io.BytesIO(data), read_only=True, data_only=True).worksheets[0]
    except Exception as error:  # whatever a damaged workbook makes the library raise
        raise InputError(f"this is no Excel workbook ({type(error).__name__})", hint="Save it as .xlsx.") from None
    for cells in sheet.iter_rows(values_only=True):
        yield [_cell(value) for value in cells]


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime) and (value.hour, value.minute, value.second) == (0, 0, 0):
        return value.date().isoformat()
    if isinstance(value, date):
        return value.isoformat()
    return str(value)


# ---- columns -------------------------------------------------------------------------------------------


def likeness(fields: Sequence[Field], header: Sequence[str]) -> dict[str, str]:
    """Find the column of each field: by its name or label, else by what is most like it; no column twice."""
    found: dict[str, str] = {}
    for like in (_same, _plainly, _close):
        for each in fields:
            left = [column for column in header if column and column not in found.values()]
            if each.name not in found and (column := like(each, left)):
                found[each.name] = column
    return found


def _same(each: Field, header: Sequence[str]) -> str:
    return next((column for column in header if column in {each.name, each.label}), "")


def _plainly(each: Field, header: Sequence[str]) -> str:
    wanted = {_plain(each.name), _plain(each.label)} - {""}
    return next((column for column in header if _plain(column) in wanted), "")


def _close(each: Field, header: Sequence[str]) -> str:
    plain = {_plain(column): column for column in header}
    for name in (each.name, each.label):
        if close := difflib.get_close_matches(_plain(name), plain, n=1, cutoff=LIKE):
            return plain[close[0]]
    return ""


def _plain(text: str) -> str:
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKD", text)).lower()


def _matched(what: Shown, header: Sequence[str], words: Mapping[str, str]) -> dict[str, int]:
    fields = what.predictor.contract.fields
    found = likeness(fields, header)
    lacking = [each for each in fields if each.required and each.name not in found]
    columns = [at for at, name in enumerate(header) if name]
    chosen: dict[str, int] = {}
    with st.expander(words["columns_told"], expanded=bool(lacking)):
        sides = st.columns(3)
        for at, each in enumerate(fields):
            start = header.index(found[each.name]) if each.name in found else None
            with sides[at % 3]:
                place = st.selectbox(
                    literal(each.label or each.name),
                    [None, *columns],
                    index=0 if start is None else columns.index(start) + 1,
                    format_func=lambda place: words["no_column"] if place is None else header[place],
                    key=f"column-{at}-{'|'.join(header)}",
                )
            if place is not None:
                chosen[each.name] = place
    return chosen


# ---- answering -----------------------------------------------------------------------------------------


def _answer(
    what: Shown,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    places: Mapping[str, int],
    words: Mapping[str, str],
) -> Answered:
    found = Answered()
    bar = st.progress(0.0, words["progress"].format(0, len(rows)))
    for start in range(0, len(rows), AT_ONCE):
        _part(what, header, rows, range(start, min(start + AT_ONCE, len(rows))), places, found, words)
        done = min(start + AT_ONCE, len(rows))
        bar.progress(
            done / len(rows), words["progress"].format(*(numeral(f"{each:,}", words) for each in (done, len(rows))))
        )
    bar.empty()
    return found


def _part(
    what: Shown,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    numbers: Sequence[int],
    places: Mapping[str, int],
    found: Answered,
    words: Mapping[str, str],
) -> None:
    whole = [at for at in numbers if len(rows[at]) == len(header)]
    for at in numbers:
        if len(rows[at]) != len(header):
            found.refused[at] = f"{len(rows[at])} / {len(header)} {words['columns'].lower()}"
    if not whole:
        return
    predictor = what.predictor
    cells = [[rows[at][place] for place in places.values()] for at in whole]
    table = Table(typed_columns(list(places), cells, predictor.contract.fields), len(whole))
    sound, faults = predictor.sift(table)
    for place, own in faults.items():
        told = [fault_told(each.record(), what, words) for each in own]
        found.refused[whole[place]] = "; ".join(dict.fromkeys(told))
    keep = [at for place, at in enumerate(whole) if place not in faults]
    if keep:
        _run(predictor, sound, keep, found, words)


def _run(predictor: Predictor, rows: Rows, keep: Sequence[int], found: Answered, words: Mapping[str, str]) -> None:
    """Answer rows together, and one by one where something is the matter with one of them."""
    try:
        answers = flatten(predictor.run(rows).columns)
    except RequestError:
        if rows.n == 1:
            found.refused[keep[0]] = words["fault_not-answerable"]
            return
        for place, at in enumerate(keep):
            one: Columns = {name: [values[place]] for name, values in rows.columns.items()}
            _run(predictor, Rows(one, 1), [at], found, words)
        return
    for place, at in enumerate(keep):
        found.answers[at] = {name: values[place] for name, values in answers.items()}


# ---- showing -------------------------------------------------------------------------------------------


def _show(
    what: Shown, header: Sequence[str], rows: Sequence[Sequence[str]], found: Answered, words: Mapping[str, str]
) -> None:
    name = what.predictor.name
    st.success(words["answered"].format(numeral(f"{len(found.answers):,}", words)))
    if found.answers:
        names = list(next(iter(found.answers.values())))
        given = [f"{each}_given" if each in names else each for each in header]
        lines = [[*rows[at], *(_cell(value) for value in answer.values())] for at, answer in found.answers.items()]
        st.download_button(words["download"], _written([*given, *names], lines), f"{name}-answers.csv", "text/csv")
        st.subheader(words["distribution"])
        charts.spread([answer[names[0]] for answer in found.answers.values()], words)
    if not found.refused:
        return
    st.error(words["rejected"].format(numeral(f"{len(found.refused):,}", words)))
    places = sorted(found.refused)
    lines = [[*rows[at], found.refused[at]] for at in places]
    st.download_button(
        words["download_rejected"],
        _written([*header, words["reason"]], lines),
        f"{name}-refused.csv",
        "text/csv",
    )
    table = pd.DataFrame(
        {words["row"]: [at + 2 for at in places], words["reason"]: [found.refused[at] for at in places]}
    )
    narrow = {words["row"]: st.column_config.NumberColumn(width="small")}
    st.dataframe(table, hide_index=True, width="stretch", column_config=narrow)


def _written(header: Sequence[str], lines: Sequence[Sequence[str]]) -> bytes:
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([harmless(each) for each in header])
    writer.writerows([harmless(each) for each in line] for line in lines)
    return out.getvalue().encode("utf-8-sig")  # by which Excel knows it is UTF-8
