"""The static look at an ONNX file: what would reach outside it, read off its bytes; nothing is run or imported."""

import re
from collections.abc import Iterator, Mapping
from typing import Final

from ketch.trust import Fault

DEEPEST: Final = 32  # messages inside one another
INNER: Final[Mapping[str, Mapping[int, str]]] = {  # message -> number of a field -> the message in it (onnx.proto)
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Graph": {1: "Node", 5: "Tensor", 15: "Sparse"},
    "Function": {7: "Node", 11: "Attribute"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "Sparse", 23: "Sparse"},
    "Sparse": {1: "Tensor", 2: "Tensor"},
    "Tensor": {},
}
ELSEWHERE: Final = {13, 14}  # fields of a tensor: external_data, data_location
VARINT, WIDE, BYTES, NARROW = 0, 1, 2, 5
NUMBERS: Final = re.compile(
    rb"(?s)(?:\x40[\x80-\xff]{0,9}+[\x00-\x7f]|\x3d.{4})*+"
)  # of an attribute; forests have millions


def fault(data: bytes, *, straight: bool) -> str:
    """Give the reason not to open an ONNX file, empty for none.

    `straight` also refuses what no compiled form has: inner graphs, with which a graph may loop, and functions.
    """
    try:
        graphs = _look(memoryview(data), "Model", straight, 0)
    except (Fault, IndexError) as error:
        return str(error) if isinstance(error, Fault) else "its bytes are not those of a graph"
    return "" if graphs else "it holds no graph"


def _look(data: memoryview, kind: str, straight: bool, depth: int) -> int:
    """Look through one message and those in it, and count its graphs."""
    if depth > DEEPEST:
        raise Fault("its graphs are nested too deep")
    graphs = 0
    for field, found in _fields(data, numbers=kind == "Attribute"):
        inner = INNER[kind].get(field)
        if kind == "Tensor" and field in ELSEWHERE and found != 0:
            raise Fault("it keeps its numbers in other files")
        if inner is None or not isinstance(found, memoryview):
            continue
        if straight and (inner in {"Function", "Training"} or (inner == "Graph" and kind != "Model")):
            raise Fault("it holds a graph inside the graph, or a function")
        _look(found, inner, straight, depth + 1)
        graphs += inner == "Graph"
    return graphs


def _fields(data: memoryview, *, numbers: bool) -> Iterator[tuple[int, memoryview | int]]:
    """Give the fields of a message, but for numbers: Protocol Buffers, encoding; groups, long gone, are refused."""
    at = 0
    while at < len(data):
        if numbers and (run := NUMBERS.match(data, at)) and run.end() > at:
            at = run.end()
            continue
        tag, at = _varint(data, at)
        field, wire = tag >> 3, tag & 7
        found: memoryview | int = 0
        if wire == VARINT:
            found, at = _varint(data, at)
        elif wire in {WIDE, NARROW}:
            at += 8 if wire == WIDE else 4
            found = 1
        elif wire == BYTES:
            size, at = _varint(data, at)
            found, at = data[at : at + size], at + size
        if wire not in {VARINT, WIDE, BYTES, NARROW} or not field or at > len(data):
            raise Fault("its bytes are not those of a graph")
        yield field, found


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:
        value |= (data[at] & 0x7F) << shift
        at += 1
        if data[at - 1] < 0x80:
            return value, at
        shift += 7
    raise Fault("its bytes are not those of a graph")
