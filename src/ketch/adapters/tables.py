"""Checked columns, made into what a framework takes: dicts, texts, a frame or an array.

Inputs --*builder*--> (columns --> frame)
"""

import functools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

from ketch import extras
from ketch.adapters import Input, Inputs
from ketch.schema import Columns, Field

Builder = Callable[[Columns, int], Any]
NUMERIC: Final = frozenset({"number", "integer", "boolean"})


def builder(given: Inputs, *, numbers: bool = False) -> Builder:
    """Prepare to make what the model is handed out of checked columns.

    `numbers` says that it takes true and false as 1 and 0 where some are missing.
    """
    if given.form == "dicts":
        return _as_dicts
    if given.form == "texts":
        return _as_texts
    return _arrays(given.columns) if given.form == "array" else _frames(given.columns, numbers)


def strings(form: str) -> AbstractContextManager[object]:
    """Keep pandas from PyArrow's strings, where that is installed: models take a sixth longer to read them."""
    if form != "frame" or not _infers_strings():
        return nullcontext()
    context: AbstractContextManager[object] = extras.load("pandas").option_context("mode.string_storage", "python")
    return context


@functools.cache
def _infers_strings() -> bool:
    pandas = extras.load("pandas")
    return isinstance(pandas.Series(["text"]).dtype, pandas.StringDtype)


def _frames(given: Sequence[Input], numbers: bool) -> Builder:
    numpy, pandas = extras.load("numpy"), extras.load("pandas")
    text = pandas.StringDtype("python", na_value=numpy.nan) if _infers_strings() else None
    names = pandas.Index([each.name for each in given], dtype=text)

    def frame(columns: Columns, n: int) -> Any:
        made = pandas.DataFrame(
            {
                each.name: _series(columns[each.field.name], each, each.field, numbers=numbers, text=text)
                if each.field
                else numpy.full(n, None, dtype=object)
                for each in given
            },
            copy=False,
        )
        made.columns = names
        return made

    return frame


def _series(values: list[object], each: Input, of: Field, *, numbers: bool, text: object) -> Any:
    numpy, pandas = extras.load("numpy"), extras.load("pandas")
    whole = None not in values
    if each.categories:
        return pandas.Categorical(values, categories=list(each.categories))
    if of.type == "number" or (numbers and of.type == "boolean" and not whole):
        return numpy.array(_filled(values, each.gap), dtype=float)
    if of.type in {"date", "datetime"}:
        return pandas.to_datetime(values, format="ISO8601")
    if whole and of.type == "integer":
        made = numpy.array([int(value) for value in values])  # type: ignore[call-overload]
        return made.astype(float) if numbers and made.dtype == object else made  # beyond what 64 bits hold
    if whole and of.type == "boolean":
        return numpy.array(values, dtype=bool)
    if of.type == "integer" or of.is_of_numbers:
        return numpy.array(values) if whole else numpy.array(_filled(values, each.gap), dtype=float)
    filled = _filled(values, each.gap)
    if text is not None and {type(value) for value in filled} == {str}:
        return pandas.array(filled, dtype=text)
    made = numpy.empty(len(values), dtype=object)
    made[:] = filled
    return made


def _arrays(given: Sequence[Input]) -> Builder:
    # by the fields' types, never by the values: a text "1" is no number, whoever else asks
    numpy = extras.load("numpy")
    fields = [each.field for each in given if each.field]
    numeric = all(each.type in NUMERIC or each.is_of_numbers for each in fields)

    def array(columns: Columns, n: int) -> Any:
        made = numpy.full((n, len(given)), float("nan"), dtype=float if numeric else object)
        for place, each in enumerate(given):
            if each.field is not None:
                made[:, place] = _filled(columns[each.field.name], each.gap)
        return made

    return array


def _filled(values: list[object], gap: object) -> list[object]:
    """Write missing values as the model knows them."""
    return [gap if value is None else value for value in values] if None in values else values


def _as_dicts(columns: Columns, n: int) -> list[dict[str, object]]:
    names = list(columns)
    return [
        {name: value for name, value in zip(names, row, strict=True) if value is not None}
        for row in zip(*columns.values(), strict=True)
    ]


def _as_texts(columns: Columns, n: int) -> list[object]:
    (texts,) = columns.values()
    return texts
