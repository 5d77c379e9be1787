"""ONNX files as plain data: what a graph says of itself, read without running it and without the onnx package."""

import functools
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from ketch import extras, trust
from ketch.errors import NotAModel, UnsupportedModel

DOMAINS: Final = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
PASSING: Final = frozenset({"ArrayFeatureExtractor", "Cast", "Flatten", "Identity", "Reshape", "Squeeze", "ZipMap"})
ENCODED: Final = {("LabelEncoder", "values_strings"), ("LabelEncoder", "values_int64s")}
CLASS_LISTS: Final = ("classlabels_strings", "classlabels_int64s", "classlabels_ints")


def read(data: bytes) -> Any:
    """Read a whole file: the model, its graph and what is said beside it.

    Raises:
        NotAModel: the bytes are no whole ONNX file.
        UnsupportedModel: the graph needs other files, or operations of somebody's own.
    """
    message = _messages()["Model"]()
    try:
        message.ParseFromString(data)
    except Exception:  # DecodeError, wherever protobuf keeps it
        raise _damaged("its bytes are not those of a graph") from None
    if not message.HasField("graph") or not message.graph.output:
        raise _damaged("it holds no graph")
    _require_alone(message)
    if fault := trust.graph_fault(data):  # also where no graph of the model's own stands: in functions, say
        raise _damaged(fault)
    return message


def _damaged(reason: str) -> NotAModel:
    return NotAModel(f"This is no whole ONNX file: {reason}", hint="Fetch it again, or export the model again.")


def _require_alone(message: Any) -> None:
    """Refuse what a file cannot hold by itself: numbers beside it, and operations of somebody's own."""
    for tensor in _tensors(message.graph):
        if tensor.data_location or tensor.external_data:
            raise UnsupportedModel(
                "The ONNX file keeps its numbers in other files",
                hint="Save it as one file: onnx.save(onnx.load('model.onnx'), 'one.onnx').",
            )
    own = {function.domain for function in message.functions}  # written out in the file itself
    foreign = sorted({each.domain for each in message.opset_import} - DOMAINS - own)
    used = sorted({f"{node.domain}.{node.op_type}" for node in _nodes(message.graph) if node.domain in foreign})
    if used:
        raise UnsupportedModel(
            f"The ONNX file uses operations that ONNX Runtime does not have: {', '.join(used[:5])}",
            hint="Export it again with standard operations only.",
        )


def _nodes(graph: Any) -> Iterator[Any]:
    pending = [graph]
    while pending:
        for node in pending.pop().node:
            yield node
            for attribute in node.attribute:
                pending += [attribute.g] if attribute.HasField("g") else []
                pending += attribute.graphs


def _tensors(graph: Any) -> Iterator[Any]:
    pending = [graph]
    while pending:
        inner = pending.pop()
        yield from inner.initializer
        for sparse in inner.sparse_initializer:
            yield from (sparse.values, sparse.indices)
        for attribute in (each for node in inner.node for each in node.attribute):
            yield from [attribute.t] if attribute.HasField("t") else []
            yield from attribute.tensors
            pending += [attribute.g] if attribute.HasField("g") else []
            pending += attribute.graphs


def ending(graph: Any, name: str) -> str:
    """Name the operation that a tensor comes from, but for those that only pass it on."""
    makers = {output: node for node in graph.node for output in node.output}
    for _ in range(len(graph.node)):
        node = makers.get(name)
        if node is None or node.op_type not in PASSING:
            return node.op_type if node is not None else ""
        name = node.input[0]
    return ""


def class_list(graph: Any, *names: str) -> tuple[object, ...]:
    """Find the classes that a graph lists on the way to its label or its probabilities."""
    makers = {output: node for node in graph.node for output in node.output}
    constants = {each.name: each for each in graph.initializer}
    pending, seen = [name for name in names if name], set()
    while pending:
        node = makers.get(pending.pop(0))
        if node is None or node.output[0] in seen:
            continue
        seen.add(node.output[0])
        if found := _listed(node, constants):
            return found
        if node.op_type in PASSING:
            pending += node.input
    return ()


def _listed(node: Any, constants: Mapping[str, Any]) -> tuple[object, ...]:
    for each in node.attribute:
        if each.name in CLASS_LISTS or (node.op_type, each.name) in ENCODED:
            return tuple(text.decode("utf-8", "replace") for text in each.strings) or tuple(each.ints)
    if node.op_type == "ArrayFeatureExtractor" and node.input[0] in constants:
        return _constant(constants[node.input[0]])
    return ()


def _constant(tensor: Any) -> tuple[object, ...]:
    """Give the texts or whole numbers of a constant (TensorProto, onnx.proto3)."""
    plain = [text.decode("utf-8", "replace") for text in tensor.string_data] or tensor.int64_data or tensor.int32_data
    if plain or tensor.data_type not in {6, 7}:
        return tuple(plain)
    size, letter = (4, "i") if tensor.data_type == 6 else (8, "q")
    return struct.unpack(f"<{len(tensor.raw_data) // size}{letter}", tensor.raw_data)


def categories(graph: Any) -> dict[str, tuple[tuple[object, ...], bool]]:
    """Give the categories of inputs that an encoder reads, and whether it takes others."""
    read = [each.name for each in graph.input]
    found = {}
    for node in graph.node:
        if node.op_type == "OneHotEncoder" and node.input[0] in read:
            facts = {each.name: each for each in node.attribute}
            texts = facts["cats_strings"].strings if "cats_strings" in facts else ()
            numbers = facts["cats_int64s"].ints if "cats_int64s" in facts else ()
            listed = tuple(text.decode("utf-8", "replace") for text in texts) or tuple(numbers)
            found[node.input[0]] = listed, "zeros" not in facts or bool(facts["zeros"].i)
    return found


def takes_gaps(graph: Any) -> bool:
    """Tell whether something in the graph knows what to do with a missing number."""
    nodes = list(_nodes(graph))
    tracked = (each for node in nodes for each in node.attribute if "missing_value_tracks_true" in each.name)
    return any(node.op_type in {"Imputer", "IsNaN"} for node in nodes) or any(any(each.ints) for each in tracked)


# onnx.proto3, as far as it is read here: message -> fields as (number, name, kind), "*" for repeated ones
PROTO: Final[Mapping[str, Sequence[tuple[int, str, str]]]] = {
    "Entry": [(1, "key", "string"), (2, "value", "string")],
    "Tensor": [
        *((1, "dims", "*int64"), (2, "data_type", "int32"), (5, "int32_data", "*int32"), (6, "string_data", "*bytes")),
        *((7, "int64_data", "*int64"), (8, "name", "string"), (9, "raw_data", "bytes")),
        *((13, "external_data", "*Entry"), (14, "data_location", "int32")),
    ],
    "Sparse": [(1, "values", "Tensor"), (2, "indices", "Tensor")],
    "Attribute": [
        *((1, "name", "string"), (3, "i", "int64"), (4, "s", "bytes"), (5, "t", "Tensor"), (6, "g", "Graph")),
        *((8, "ints", "*int64"), (9, "strings", "*bytes"), (10, "tensors", "*Tensor"), (11, "graphs", "*Graph")),
    ],
    "Node": [
        *((1, "input", "*string"), (2, "output", "*string"), (4, "op_type", "string")),
        *((5, "attribute", "*Attribute"), (7, "domain", "string")),
    ],
    "Value": [(1, "name", "string")],
    "Graph": [
        *((1, "node", "*Node"), (5, "initializer", "*Tensor"), (11, "input", "*Value"), (12, "output", "*Value")),
        (15, "sparse_initializer", "*Sparse"),
    ],
    "Function": [(1, "name", "string"), (10, "domain", "string")],
    "Opset": [(1, "domain", "string"), (2, "version", "int64")],
    "Model": [
        *((2, "producer_name", "string"), (7, "graph", "Graph"), (8, "opset_import", "*Opset")),
        *((14, "metadata_props", "*Entry"), (25, "functions", "*Function")),
    ],
}


@functools.cache
def _messages() -> dict[str, Any]:
    """Make classes that read a graph: protobuf comes with ONNX Runtime, the onnx package does not."""
    descriptor = extras.load("google.protobuf.descriptor_pb2")
    pools, factory = extras.load("google.protobuf.descriptor_pool"), extras.load("google.protobuf.message_factory")
    file = descriptor.FileDescriptorProto(name="ketch_onnx.proto", package="ketch_onnx", syntax="proto3")
    kinds = {"string": 9, "bytes": 12, "int64": 3, "int32": 5}  # as descriptor.proto numbers them
    for message, fields in PROTO.items():
        made = file.message_type.add(name=message)
        for number, name, kind in fields:
            plain = kind.removeprefix("*")
            made.field.add(name=name, number=number, label=3 if kind != plain else 1, type=kinds.get(plain, 11))
            if plain not in kinds:
                made.field[-1].type_name = f".ketch_onnx.{plain}"
    pool = pools.DescriptorPool()
    pool.Add(file)
    return {name: factory.GetMessageClass(pool.FindMessageTypeByName(f"ketch_onnx.{name}")) for name in PROTO}
