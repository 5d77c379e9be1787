"""ONNX files: what a graph says of its inputs and outputs, and how ONNX Runtime is asked.

file --*open_file*--> Model --*study*--> fields, task, classes        columns --*Runner*--> labels, probabilities
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final

from ketch import extras, trust
from ketch.adapters import Input, Inputs, Knowledge, Raw, not_a_model, sibling
from ketch.errors import UnsupportedModel
from ketch.schema import Columns, Field, Type

LARGEST: Final = 2 << 30  # bytes that one protobuf message may have
BLOCK: Final = 8  # rows: kernels of one row or a ragged end round otherwise than those of whole blocks
PROBES: Final = (0.0, 1.0, -1.0, 0.5, 3.0, 10.0, 40.0, 100.0)
TYPES: Final[Mapping[str, Type]] = {
    "tensor(float)": "number",
    "tensor(double)": "number",
    "tensor(int64)": "integer",
    "tensor(int32)": "integer",
    "tensor(bool)": "boolean",
    "tensor(string)": "text",
}
DTYPES: Final = {"float": "f4", "double": "f8", "int64": "i8", "int32": "i4", "bool": "?", "string": "O"}
LABELS: Final = frozenset({"tensor(int64)", "tensor(int32)", "tensor(string)", "tensor(bool)"})
MAPS: Final = ("seq(map(int64,tensor(float)))", "seq(map(string,tensor(float)))")
NEARLY: Final = 1e-4


@dataclass(frozen=True)
class Outputs:
    """What a graph answers: the names of its outputs, by what they mean."""

    task: str
    classes: tuple[object, ...] = ()
    label: str = ""
    values: str = ""
    kind: str = ""  # of the values: "probability", "score", "likely" (one probability), or "number"
    column: int = 0  # of the scores, where two classes or outliers have one score


@dataclass(frozen=True)
class Column:
    """A column of an input: `place` of `width` in the tensor called `tensor`."""

    name: str
    type: Type
    tensor: str


@dataclass(frozen=True, eq=False)
class Model:
    """A graph that ONNX Runtime has taken, and the same graph as plain data."""

    session: Any
    graph: Any
    metadata: Mapping[str, str]
    origin: str


# ---- files -------------------------------------------------------------------------------------------


def recognise(name: str, data: bytes) -> str:
    """Name the format of a file by its name: the bytes of a graph start like nothing else does, or like anything."""
    return "onnx" if name.lower().endswith(".onnx") else ""


def load(data: bytes, known: object = None) -> Model:
    """Open a graph and ask it, as the gate's child process does first."""
    model = open_file(data, "onnx")
    _outputs(model)
    return model


def open_file(data: bytes, format: str) -> Model:  # noqa: A002 (the manifest's word)
    """Read the graph, and let ONNX Runtime take it.

    Raises:
        NotAModel: the bytes are no whole ONNX file.
        UnsupportedModel: the graph needs other files, or operations that ONNX Runtime does not have.
    """
    if len(data) > LARGEST:
        raise UnsupportedModel(
            f"The ONNX file is larger than {LARGEST >> 30} GiB",
            hint="Export a smaller model, such as with fewer trees.",
        )
    message = sibling("graphs").read(data)
    metadata = {each.key: each.value for each in message.metadata_props}
    return Model(_session(data), message.graph, metadata, message.producer_name)


def _session(data: bytes) -> Any:
    runtime = extras.load("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what goes wrong is raised
    try:
        return runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # it has a dozen of its own, and no common root
        reason = " ".join(str(error).split())[:200]
        raise UnsupportedModel(
            f"ONNX Runtime {runtime.__version__} does not take the file: {reason}",
            hint="Export the model again, for an older opset if this one is too new.",
        ) from None


# ---- what it knows -----------------------------------------------------------------------------------


def join(parts: Sequence[object]) -> object:
    """Give the one graph of which the model consists.

    Raises:
        UnsupportedModel, NotAModel: there are several, or it is none.
    """
    if len(parts) != 1:
        raise UnsupportedModel("An ONNX file is a whole model", hint="Give it alone.")
    if not isinstance(parts[0], Model):
        raise not_a_model(parts[0])
    return parts[0]


def study(model: Model, names: Sequence[str] = ()) -> Knowledge:
    """Say what the graph tells: its inputs, its task and its classes.

    Raises:
        UnsupportedModel: it reads or answers what is no table.
    """
    outputs = _outputs(model)
    columns = _columns(model, names)
    known = sibling("graphs").categories(model.graph)
    fields = [_field(each, known) for each in columns]
    return Knowledge(
        fields=tuple(fields),
        task=outputs.task,
        classes=outputs.classes,
        probabilities=outputs.kind in {"probability", "likely"},
        score=outputs.kind == "score",
        # a tree compares a missing number like any other, and no graph says that it should not
        settled=frozenset() if sibling("graphs").takes_gaps(model.graph) else frozenset(each.name for each in columns),
        origin={"estimator": "ONNX graph", **({"exporter": model.origin} if model.origin else {})},
        named=_are_named(model, columns),
    )


def _field(column: Column, known: Mapping[str, tuple[tuple[object, ...], bool]]) -> Field:
    if column.name != column.tensor or column.tensor not in known:
        return Field(column.name, column.type)
    found, zeros = known[column.tensor]
    categories: tuple[Any, ...] = tuple(found)
    return Field(column.name, "category", categories=categories, unknown="flag" if zeros else "refuse")


def _columns(model: Model, names: Sequence[str]) -> list[Column]:
    tensors = [(each, *_shape(each)) for each in model.session.get_inputs()]
    if len(tensors) == 1:
        ((tensor, width, _),) = tensors
        told = _told_names(model)
        width = width or len(names) or len(told)
        if not width:
            raise UnsupportedModel(
                "The ONNX file does not say how many columns it reads", hint="Give rows with --data rows.csv."
            )
        if width == 1 and TYPES[tensor.type] in {"text", "boolean"}:
            return [Column(tensor.name, TYPES[tensor.type], tensor.name)]
        listed = next((each for each in (names, told) if len(each) == width), [f"x{place}" for place in range(width)])
        return [Column(str(name), TYPES[tensor.type], tensor.name) for name in listed]
    columns = []
    for tensor, width, _ in tensors:
        if not width:
            raise UnsupportedModel(
                f"The ONNX file does not say how many columns {tensor.name} has", hint="Export it with fixed columns."
            )
        listed = [tensor.name] if width == 1 else [f"{tensor.name}_{place}" for place in range(width)]
        columns += [Column(name, TYPES[tensor.type], tensor.name) for name in listed]
    return columns


def _shape(tensor: Any) -> tuple[int, int]:
    """Give a tensor's columns (0: not said) and the rows that it takes at once (0: any number)."""
    if tensor.type not in TYPES or len(tensor.shape) not in {1, 2}:
        raise UnsupportedModel(
            f"The ONNX file reads {tensor.name} as {tensor.type} of {len(tensor.shape)} dimensions, which is no table",
            hint="Export a model of tables: inputs of (rows, columns) numbers or texts.",
        )
    rows, width = (tensor.shape[0], 1) if len(tensor.shape) == 1 else tensor.shape
    return (width if isinstance(width, int) else 0), (rows if isinstance(rows, int) else 0)


def _told_names(model: Model) -> list[str]:
    """Give the names of columns that some exporters write beside the graph."""
    for key in ("feature_names", "features", "columns"):
        text = model.metadata.get(key, "")
        if names := [name.strip(" \"'") for name in text.strip("[] ").split(",") if name.strip(" \"'")]:
            return names if len(set(names)) == len(names) else []
    return []


def _are_named(model: Model, columns: Sequence[Column]) -> bool:
    return len(model.session.get_inputs()) > 1 or [each.name for each in columns] == _told_names(model)


# ---- what it answers ---------------------------------------------------------------------------------


def _outputs(model: Model) -> Outputs:
    """Find out what the outputs mean: by their types, by the graph, and by asking it a few rows."""
    found = model.session.get_outputs()
    label = next((each for each in found if each.type in LABELS and len(each.shape) <= 2), None)
    values = next(
        (each for each in found if each.type in MAPS or (TYPES.get(each.type) == "number" and len(each.shape) <= 2)),
        None,
    )
    if label is None and (values is None or len(found) > 1 or values.type in MAPS):
        raise UnsupportedModel(
            f"The ONNX file answers {', '.join(each.name for each in found[:5])}, which is no label and no number",
            hint="Export a classifier or a regressor of one target.",
        )
    return _unlabelled(model, values) if label is None else _labelled(model, label, values)


def _unlabelled(model: Model, values: Any) -> Outputs:
    answers = _probe(model, "", values.name)
    width = len(answers[1][0]) if answers and answers[1] else _shape(values)[0]
    ending = sibling("graphs").ending(model.graph, values.name)
    if width == 1:
        if ending == "Sigmoid":
            return Outputs("binary", (0, 1), "", values.name, "likely")
        return Outputs("regression", (), "", values.name, "number")
    if ending == "Softmax" and width > 1:
        classes = tuple(range(width))
        return Outputs("binary" if width == 2 else "multiclass", classes, "", values.name, "probability")
    raise UnsupportedModel(
        f"The ONNX file answers {width or 'an unknown number of'} numbers at once", hint="Export one model per target."
    )


def _labelled(model: Model, label: Any, values: Any) -> Outputs:
    name = "" if values is None else values.name
    answers = _probe(model, label.name, name)
    labels, rows = answers if answers else ([], [])
    width = len(rows[0]) if rows else 0
    kind = ("probability" if _are_probabilities(rows, values) else "score") if name else ""
    classes = sibling("graphs").class_list(model.graph, label.name, name)
    if label.type == "tensor(bool)":
        classes = (False, True)
    if not classes and kind != "probability":
        return _unsupervised(label, name, labels, rows)
    classes = classes or _guessed(labels, rows, width)
    if len(classes) < 2 or (width > 1 and width != len(classes)):
        raise UnsupportedModel(
            "The ONNX file does not say which classes it knows",
            hint="Export it with the classes in it, as skl2onnx does with zipmap.",
        )
    if kind == "probability" and width == 1:
        kind = "likely"
    task = "binary" if len(classes) == 2 else "multiclass"
    column = _score_column(labels, rows, classes) if kind == "score" and task == "binary" else 0
    return Outputs(task, classes, label.name, name, kind if column is not None else "", column or 0)


def _score_column(labels: list[Any], rows: list[list[float]], classes: Sequence[object]) -> int | None:
    """Find the column whose score counts towards the second class; exporters write it first or last."""
    wanted = [label == classes[1] for label in labels]
    columns = range(len(rows[0]) if rows else 0)
    return next((each for each in columns if [row[each] > 0 for row in rows] == wanted), None)


def _unsupervised(label: Any, name: str, labels: list[Any], rows: list[list[float]]) -> Outputs:
    """Tell outlier models and clusterers apart, which label rows and know no classes."""
    if label.type == "tensor(string)" or not labels:
        raise UnsupportedModel(
            "The ONNX file does not say which classes it knows", hint="Export it with the classes in it."
        )
    if set(labels) <= {-1, 1} and all(len(row) == 1 for row in rows):
        return Outputs("outlier", (), label.name, name, "score" if name else "")
    return Outputs("cluster", (), label.name)


def _guessed(labels: list[Any], rows: list[list[float]], width: int) -> tuple[object, ...]:
    """Find the classes out by asking: a row's label is that of its largest probability."""
    found = {row.index(max(row)): label for label, row in zip(labels, rows, strict=True)}
    if all(type(label) is int and label == place for place, label in found.items()):
        return tuple(range(width))
    return tuple(found[place] for place in range(width)) if len(found) == width else ()


def _are_probabilities(rows: list[list[float]], values: Any) -> bool:
    if not rows:
        return values.type in MAPS or "prob" in values.name.lower()
    inside = all(-NEARLY <= value <= 1 + NEARLY for row in rows for value in row)
    return inside and all(len(row) == 1 or math.isclose(math.fsum(row), 1, abs_tol=NEARLY) for row in rows)


def _probe(model: Model, label: str, values: str) -> tuple[list[Any], list[list[float]]] | None:
    """Ask a few rows of equal numbers; None where it does not answer them, as for a text that it never saw."""
    columns = _columns_or_one(model)
    try:
        answers = [
            _ask(model, {each.name: [_plain(each.type, value)] for each in columns}, columns, 1) for value in PROBES
        ]
    except Exception as error:  # whatever ONNX Runtime raises
        if trust.sibling("child").OUT_OF_MEMORY.search(str(error)):
            raise UnsupportedModel(
                "The ONNX file takes more memory than there is, out of memory for one row",
                hint="Export a smaller model.",
            ) from None
        return None
    labels = [_row(answer[label][0])[0] for answer in answers] if label else []
    return labels, [_row(answer[values][0]) for answer in answers] if values else []


def _columns_or_one(model: Model) -> list[Column]:
    try:
        return _columns(model, ())
    except UnsupportedModel:
        return _columns(model, ["x0"])


def _plain(kind: Type, value: float) -> object:
    return {"number": value, "integer": int(value), "boolean": value > 0}.get(kind, "")


def _row(answer: Any) -> list[float]:
    return list(answer.values()) if isinstance(answer, dict) else answer if isinstance(answer, list) else [answer]


# ---- asking ------------------------------------------------------------------------------------------


def requirements() -> dict[str, str]:
    """Name the distributions that the model needs, with their installed versions."""
    return {name: version(name) for name in ("numpy", "onnxruntime")}


def inputs(model: Model, fields: Sequence[Field]) -> Inputs:
    """Say what the model is handed: the columns of its tensors, which is no form that is compiled."""
    types = {each.name: each for each in fields}
    columns = _columns(model, [each.name for each in fields])
    return Inputs("tensors", tuple(Input(each.name, types.get(each.name)) for each in columns))


def _ask(model: Model, columns: Columns, listed: Sequence[Column], n: int) -> dict[str, list[Any]]:
    """Run the graph on `n` rows, in blocks of rows or as many as it takes, and give its outputs by name."""
    np = extras.load("numpy")
    names = [each.name for each in model.session.get_outputs()]
    fixed = max(_shape(each)[1] for each in model.session.get_inputs())
    at_once = fixed or n + -n % BLOCK
    feeds = _feeds(model, columns, listed, n + -n % at_once, np)
    found: dict[str, list[Any]] = {name: [] for name in names}
    for start in range(0, n, at_once):
        part = {name: values[start : start + at_once] for name, values in feeds.items()}
        for name, values in zip(names, model.session.run(names, part), strict=True):
            found[name] += values if isinstance(values, list) else values.tolist()
    return {name: values[:n] for name, values in found.items()}


def _feeds(model: Model, columns: Columns, listed: Sequence[Column], rows: int, np: Any) -> dict[str, Any]:
    feeds = {}
    for tensor in model.session.get_inputs():
        dtype = DTYPES[tensor.type.removeprefix("tensor(").removesuffix(")")]
        given = [_padded(columns[each.name], rows) for each in listed if each.tensor == tensor.name]
        if dtype in {"f4", "f8"}:
            given = [[math.nan if value is None else value for value in values] for values in given]
        elif any(None in values for values in given):
            raise ValueError(f"{tensor.name} cannot be missing")
        with np.errstate(over="ignore"):  # what float32 cannot hold is infinite to the graph
            made = np.array(given, dtype="f8" if dtype == "f4" else dtype).astype(dtype).T
        feeds[tensor.name] = np.ascontiguousarray(made if len(tensor.shape) == 2 else made[:, 0])
    return feeds


def _padded(values: list[object], rows: int) -> list[object]:
    return values + values[-1:] * (rows - len(values))


def _column(rows: list[list[float]], place: int) -> list[float]:
    return [row[place] for row in rows]


class Runner:
    """Ask a graph, in blocks, so that a row's answer never depends on its neighbours."""

    def __init__(self, model: Model, fields: Sequence[Field]) -> None:
        self._model = model
        self._columns = _columns(model, [each.name for each in fields])
        self._outputs = _outputs(model)

    def __call__(self, columns: Columns, n: int) -> Raw:
        """Answer `n` rows given as checked columns."""
        told = self._outputs
        answers = _ask(self._model, columns, self._columns, n)
        labels: list[object] = [_row(label)[0] for label in answers[told.label]] if told.label else []
        rows = [self._ordered(each) for each in answers[told.values]] if told.values else []
        if told.kind == "number":
            return Raw(list(_column(rows, 0)))
        if told.kind == "likely":
            rows = [[1 - row[0], row[0]] for row in rows]
        if told.kind in {"probability", "likely"}:
            return Raw(labels or [told.classes[row.index(max(row))] for row in rows], probabilities=rows)
        if told.kind == "":
            return Raw(labels)
        scores: Any = rows if told.task == "multiclass" else _column(rows, told.column)
        return Raw(labels, scores=scores)

    def _ordered(self, answer: Any) -> list[float]:
        return [answer[each] for each in self._outputs.classes] if isinstance(answer, dict) else _row(answer)


def runner(model: Model, fields: Sequence[Field]) -> Runner:
    """Prepare the graph to answer checked columns."""
    return Runner(model, fields)
