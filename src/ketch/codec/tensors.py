"""Tensors of the Open Inference Protocol: fields and answers as them, and their elements in binary and JSON.

One tensor for each field, by its name: as many elements as there are rows, or as many lists of numbers.
"""

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ketch.codec import Table, bound_unknown, too_many_rows
from ketch.errors import UndecodableBody
from ketch.schema import Answer, Columns, Field, Scalar

BYTES: Final = "BYTES"
WHOLE: Final[Mapping[str, tuple[int, int]]] = {
    **{f"INT{bits}": (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": (0, 2**bits - 1) for bits in (8, 16, 32, 64)},
}
CODES: Final[Mapping[str, str]] = {  # of `struct`
    "BOOL": "?",
    **dict(zip(WHOLE, "bhiqBHIQ", strict=True)),
    **{"FP16": "e", "FP32": "f", "FP64": "d"},
}
LONGEST: Final = 2**31 - 1  # bytes of one element
TYPES_HINT: Final = "Send one tensor for each field, of the datatype and shape that the model's metadata names."


@dataclass(frozen=True, slots=True)
class Tensor:
    """A name, a shape and the elements, row by row; None stands for a missing one."""

    name: str
    datatype: str
    shape: Sequence[int]
    elements: list[Any]


@dataclass(frozen=True, slots=True)
class Form:
    """What a tensor of a model looks like: -1 stands for the number of rows, or for any length."""

    name: str
    datatype: str
    shape: tuple[int, int]
    classes: tuple[str, ...] = ()


# ---- what a model takes and gives --------------------------------------------------------------------


def inputs_of(fields: Sequence[Field]) -> list[Form]:
    """Describe the fields."""
    return [
        Form(each.name, _datatype(each), (-1, (each.length or -1) if each.type == "vector" else 1)) for each in fields
    ]


def _datatype(each: Field) -> str:
    if each.type == "category":
        return datatype_of(each.categories)
    return {"number": "FP64", "vector": "FP64", "integer": "INT64", "boolean": "BOOL"}.get(each.type, BYTES)


def datatype_of(values: Sequence[Scalar]) -> str:
    """Give the datatype that holds all of some values."""
    kinds = {type(value) for value in values}
    low, high = WHOLE["INT64"]
    if kinds == {bool}:
        return "BOOL"
    if kinds == {int}:
        return "INT64" if all(low <= value <= high for value in values) else BYTES  # type: ignore[operator]
    return "FP64" if kinds and kinds <= {int, float} else BYTES


def outputs_of(answer: Answer, names: Sequence[str]) -> list[Form]:
    """Describe those answers that a model has."""
    parts = answer.parts or (answer,)
    known = {form.name: form for part in parts for form in _forms(part)}
    return [known[name] for name in names if name in known]


def _forms(answer: Answer) -> list[Form]:
    name, classes = answer.target, tuple(str(each) for each in answer.classes)
    if answer.task == "binary":
        label = "BOOL" if set(answer.classes) == {0, 1} else datatype_of(answer.classes)
        return [Form(name, label, (-1, 1)), *_numbers(f"{name}_probability", f"{name}_score")]
    if answer.task == "multiclass":
        groups = [Form(f"{name}_{kind}", "FP64", (-1, len(classes)), classes) for kind in ("probabilities", "scores")]
        return [Form(name, datatype_of(answer.classes), (-1, 1)), *groups]
    if answer.task == "regression":
        return _numbers(name)
    if answer.task == "outlier":
        return [Form("outlier", "BOOL", (-1, 1)), *_numbers("outlier_score")]
    return [Form("cluster", "INT64", (-1, 1))]


def _numbers(*names: str) -> list[Form]:
    return [Form(name, "FP64", (-1, 1)) for name in names]


# ---- questions ---------------------------------------------------------------------------------------


def size_of(name: str, datatype: str, shape: Sequence[int], max_rows: int) -> int:
    """Say how many elements a tensor has.

    Raises:
        UndecodableBody, TooManyRows: none that is a column of rows has that datatype or shape.
    """
    if datatype not in CODES and datatype != BYTES:
        raise _wrong(name, f"has the datatype {datatype[:20]!r}")
    if not 1 <= len(shape) <= 2 or any(not 0 <= each <= LONGEST for each in shape) or not shape[0]:
        raise _wrong(name, f"has the shape {str(list(shape[:4]))[:60]}")
    if shape[0] > max_rows:
        raise too_many_rows(max_rows)
    return math.prod(shape)


def _wrong(name: str, what: str) -> UndecodableBody:
    return UndecodableBody(f"The tensor {name[:80]!r} {what}", hint=TYPES_HINT)


def from_json(name: str, datatype: str, shape: Sequence[int], data: object) -> list[Any]:
    """Read elements out of JSON: in rows as the shape says, or one after the other; null where one is missing.

    Raises:
        UndecodableBody: they are not of that datatype or shape.
    """
    if not isinstance(data, list):
        raise _wrong(name, "has no list of data")
    if len(shape) == 2 and data and isinstance(data[0], list):
        rows: list[Any] = data
        if len(rows) != shape[0] or any(not isinstance(row, list) or len(row) != shape[1] for row in rows):
            raise _wrong(name, "has data that is not of its shape")
        data = [element for row in rows for element in row]
    if len(data) != math.prod(shape):
        raise _wrong(name, f"has {len(data)} elements, not {math.prod(shape)} as its shape says")
    if not all(element is None or _fits(element, datatype) for element in data):
        raise _wrong(name, f"has an element that is not {datatype}")
    return data


def _fits(element: object, datatype: str) -> bool:
    if datatype in WHOLE:
        low, high = WHOLE[datatype]
        return type(element) is int and low <= element <= high
    if datatype == BYTES:
        return type(element) is str
    return type(element) is bool if datatype == "BOOL" else type(element) in {int, float}


def from_binary(name: str, datatype: str, count: int, data: memoryview) -> list[Any]:
    """Read elements out of bytes; NaN and empty texts stand for missing ones.

    Raises:
        UndecodableBody: there are more or fewer.
    """
    if datatype == BYTES:
        return _texts(name, count, data)
    code = CODES[datatype]
    if len(data) != count * struct.calcsize(code):
        raise _wrong(name, f"has {len(data)} bytes, not {count * struct.calcsize(code)} as its shape says")
    found = struct.unpack(f"<{count}{code}", data)
    return [None if value != value else value for value in found] if datatype.startswith("FP") else list(found)


def _texts(name: str, count: int, data: memoryview) -> list[str]:
    found: list[str] = []
    at = 0
    while at < len(data) and len(found) < count:
        if len(data) - at < 4:
            break
        size = int.from_bytes(data[at : at + 4], "little")
        end = at + 4 + size
        if end > len(data):
            break
        found.append(text_of(name, bytes(data[at + 4 : end])))
        at = end
    if at != len(data) or len(found) != count:
        raise _wrong(name, f"has no {count} texts in its {len(data)} bytes")
    return found


def text_of(name: str, data: bytes) -> str:
    """Read one element of the datatype BYTES, which is a text.

    Raises:
        UndecodableBody: it is not UTF-8.
    """
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise _wrong(name, "has a text that is not UTF-8") from None


def without_empty(texts: Sequence[str], each: Field | None) -> list[str | None]:
    """Take empty texts for missing ones, unless the empty text is a category."""
    if each is not None and "" in each.categories:
        return list(texts)
    return [text or None for text in texts]


def table_of(tensors: Sequence[Tensor], fields: Sequence[Field]) -> Table:
    """Make rows of tensors.

    Raises:
        UndecodableBody: they do not have the same number of rows, or two have the same name.
    """
    by_name = {each.name: each for each in fields}
    if not tensors:
        raise UndecodableBody("There is no tensor among the inputs", hint=TYPES_HINT)
    rows = tensors[0].shape[0]
    bound_unknown(sum(each.name not in by_name for each in tensors), rows)
    columns: Columns = {}
    for each in tensors:
        if each.name in columns:
            raise _wrong(each.name, "stands there twice")
        if each.shape[0] != rows:
            raise _wrong(each.name, f"has {each.shape[0]} rows where {tensors[0].name[:80]!r} has {rows}")
        columns[each.name] = _column(each, by_name.get(each.name))
    return Table(columns, rows)


def _column(tensor: Tensor, each: Field | None) -> list[object]:
    if each is None:
        return [None] * tensor.shape[0]
    if each.type == "vector":
        if len(tensor.shape) != 2:
            raise _wrong(tensor.name, "has one dimension, where a field of lists needs two")
        width = tensor.shape[1]
        rows = [tensor.elements[at * width : (at + 1) * width] for at in range(tensor.shape[0])]
        return [None if row and all(element is None for element in row) else row for row in rows]
    if len(tensor.shape) == 2 and tensor.shape[1] != 1:
        raise _wrong(tensor.name, f"has {tensor.shape[1]} elements for each row, where the field has one")
    if each.type == "category" and tensor.datatype == BYTES:
        return _categories(tensor.elements, each)
    return tensor.elements


def _categories(texts: Sequence[str | None], each: Field) -> list[object]:
    """Read texts as categories where these are not all texts: numbers and truths beside texts are sent as texts too."""
    if datatype_of(each.categories) != BYTES:
        return list(texts)
    known: dict[str | None, Scalar] = {str(value): value for value in each.categories}
    known |= {value: value for value in each.categories if isinstance(value, str)}
    return [known.get(text, text) for text in texts]


# ---- answers -----------------------------------------------------------------------------------------


def elements_of(form: Form, values: Sequence[Any]) -> list[Any]:
    """Give the elements of an answer, row by row."""
    if form.classes:
        return [row[name] for row in values for name in form.classes]
    return [str(value) for value in values] if form.datatype == BYTES else list(values)


def to_binary(datatype: str, elements: Sequence[Any]) -> bytes:
    """Write elements as bytes."""
    if datatype != BYTES:
        return struct.pack(f"<{len(elements)}{CODES[datatype]}", *elements)
    texts = [element.encode() for element in elements]
    return b"".join(part for text in texts for part in (len(text).to_bytes(4, "little"), text))
