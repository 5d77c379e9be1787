"""What each route takes and gives, by content type, and how it may fail besides what any request may meet.

contract --*SHAPES*--> Shape
"""

import importlib.util
from collections.abc import Callable, Mapping
from typing import Any, Final

from ketch.codec import ARROW, CSV, JSON, PARQUET, tensors
from ketch.codec.tensors import Form
from ketch.errors import (
    BodyTooLarge,
    Busy,
    DeadlinePassed,
    InputError,
    KetchError,
    NotAcceptable,
    NotAnswerable,
    NotInstalled,
    NotReady,
    RowsRefused,
    TooManyRows,
    UndecodableBody,
    UnsupportedMediaType,
)
from ketch.explain import PLAIN, SCALES
from ketch.page import Example, Kinds, Schema, Shape, Spoken, example_row, examples

READING: Final[Kinds] = (
    *(UndecodableBody, BodyTooLarge, TooManyRows, UnsupportedMediaType),
    *(RowsRefused, NotAnswerable),
)
LINES: Final = "application/jsonlines"
TEXT: Final[Schema] = {"schema": {"type": "string"}}
ROW: Final[Schema] = {"$ref": "#/components/schemas/Row"}
ANSWER: Final[Schema] = {"$ref": "#/components/schemas/Answer"}


def _object(properties: Schema, *required: str, **more: Any) -> Schema:
    return {"type": "object", "properties": properties, "required": [*required], **more}


def _list(items: Schema, **more: Any) -> Schema:
    return {"type": "array", "items": items, **more}


def _or_null(schema: Schema) -> Schema:
    return {**schema, "type": [schema["type"], "null"]}


def _json(schema: Schema, **named: object) -> dict[str, Schema]:
    told = {name.replace("_", " "): {"value": value} for name, value in named.items()}
    return {JSON: {"schema": schema} | ({"examples": told} if told else {})}


def _tables(columns: str) -> dict[str, Schema]:
    """Give the tables that can be read and written here."""
    told = {CSV: {"schema": {"type": "string", "description": f"With a header line: {columns}"}}}
    return told | ({ARROW: {}, PARQUET: {}} if importlib.util.find_spec("pyarrow") else {})


def _rows(spoken: Spoken) -> dict[str, Schema]:
    shown = _shown(spoken)
    rows = [each.row for each in shown]
    listed = _list(ROW, minItems=1, maxItems=spoken.predictor.limits.max_rows)
    sent = _json({"oneOf": [ROW, listed]}, one_row=rows[0], two_rows=[rows[0], rows[-1]])
    return sent | _tables("the fields, in any order; an empty cell is a missing value")


def _shown(spoken: Spoken) -> list[Example]:
    return examples(spoken.predictor.bundle, 2) or [Example(example_row(spoken.contract), {})]


def _answers(spoken: Spoken) -> dict[str, Schema]:
    answers = [each.answer for each in _shown(spoken)]
    named = {"one_row": answers[0], "two_rows": [answers[0], answers[-1]]} if answers[0] else {}
    return _json({"oneOf": [ANSWER, _list(ANSWER)]}, **named) | _tables(", ".join(spoken.predictor.answers))


def _predict(spoken: Spoken) -> Shape:
    return Shape(
        _rows(spoken),
        _answers(spoken),
        (*READING, NotAcceptable, Busy, DeadlinePassed),
        "One answer for an object, a list of answers for a list, a table for a table; in the form that was sent, "
        "unless the header Accept names another. One bad row refuses them all.",
        flags=True,
    )


def _explain(spoken: Spoken) -> Shape:
    named = {each.name: {"type": "number"} for each in spoken.contract.fields}
    explanation = _object(
        {
            "of": {"description": "The class explained, or the target's name"},
            "scale": {"enum": sorted({*SCALES.values(), *PLAIN.values()}), "description": "What is added up"},
            "base": {"type": "number", "description": "The score of the reference"},
            "score": {"type": "number", "description": "The score of this row: base and all contributions"},
            "contributions": _object(named, *named, description="What each field adds"),
            "reasons": _list({"type": "string"}, description="The largest contributions in words"),
        },
        *("of", "scale", "base", "score", "contributions", "reasons"),
    )
    one = {"allOf": [ANSWER, _object({"explanation": explanation}, "explanation")]}
    targets = [part.target for part in spoken.contract.answer.parts or (spoken.contract.answer,)]
    several = bool(spoken.contract.answer.parts)
    told = {"name": "lang", "in": "query", "description": "Of the reasons; else as Accept-Language says"}
    lacks = any(importlib.util.find_spec(name) is None for name in ("shap", "onnx"))
    return Shape(
        _rows(spoken),
        _json({"oneOf": [one, _list(one)]}),
        (*READING, NotAcceptable, Busy, InputError, *([NotInstalled] if lacks else [])),
        "JSON is answered, so a table needs the header Accept. At most 10 rows, or 100 of a linear model or of trees.",
        asked=[
            {
                "name": "target",
                "in": "query",
                "required": several,
                "description": "Which one, of several",
                "schema": {"type": "string", "enum": targets if several else [*targets, ""]},
            },
            {**told, "schema": {"type": "string", "examples": ["en", "pt"]}},
        ],
    )


def _infer(spoken: Spoken) -> Shape:
    fields, answer = spoken.contract.fields, spoken.contract.answer
    shown = _shown(spoken)[0].row
    inputs, whole = tensors.inputs_of(fields), {"type": "integer", "minimum": 0, "maximum": tensors.LONGEST}
    tensor = _object(
        {
            "name": {"type": "string", "examples": [each.name for each in inputs]},
            "datatype": {"enum": [*tensors.CODES, tensors.BYTES]},
            "shape": _list(whole, minItems=1, maxItems=2, description="Rows, and values in each"),
            "data": {"type": "array", "description": "Row by row; null stands for a missing value"},
            "parameters": {"type": ["object", "null"]},
        },
        *("name", "datatype", "shape"),
    )
    example = [_tensor(each, shown[each.name]) for each in inputs if each.name in shown]
    asked = _object({"name": {"enum": [each.name for each in tensors.outputs_of(answer, spoken.predictor.answers)]}})
    return Shape(
        _json(
            _object(
                {"id": {"type": ["string", "null"]}, "inputs": _list(tensor), "outputs": _or_null(_list(asked))},
                "inputs",
            ),
            one_row={"id": "1", "inputs": example},
        )
        | {"application/octet-stream": {}},
        _json(_object({"model_name": TEXT["schema"], "model_version": TEXT["schema"], "outputs": _list(tensor)}))
        | {"application/octet-stream": {}},
        (*READING, Busy),
        "One tensor for each field, all with as many rows. Binary data follow the JSON, whose length stands in the "
        "header Inference-Header-Content-Length.",
        flags=True,
    )


def _tensor(form: Form, value: object) -> Schema:
    width = len(value) if isinstance(value, list) else 1
    data = value if isinstance(value, list) else [value]
    return {"name": form.name, "datatype": form.datatype, "shape": [1, width], "data": data}


def _split(spoken: Spoken) -> tuple[Schema, Schema]:
    """Give the shape of pandas' split form, and an example."""
    row = _shown(spoken)[0].row
    schema = _object(
        {
            "columns": _or_null(_list({"type": "string"}, uniqueItems=True)),
            "data": _list({"type": "array"}, minItems=1),
        },
        "data",
    )
    return schema, {"columns": [*row], "data": [[*row.values()]]}


def _invocations(spoken: Spoken) -> Shape:
    split, example = _split(spoken)
    rows = [each.row for each in _shown(spoken)]
    forms = {
        "dataframe_split": split,
        "dataframe_records": _list(ROW, minItems=1),
        "instances": {"type": "array", "minItems": 1, "description": "Rows, or lists of values in order"},
        "inputs": {"description": "Columns by name, a row or a list of rows", "type": ["array", "object"]},
    }
    wrapped = [_object({name: schema}, name) for name, schema in forms.items()]
    predictions = _object({"predictions": _list(ANSWER)}, "predictions")
    return Shape(
        _json(
            {"anyOf": [*wrapped, ROW, _list(ROW, minItems=1)]},
            dataframe_split={"dataframe_split": example},
            dataframe_records={"dataframe_records": rows},
            instances={"instances": rows},
        )
        | _tables("the fields; without one, the values in the order of the contract")
        | {LINES: TEXT},
        _json({"anyOf": [predictions, ANSWER, _list(ANSWER)]}) | _tables("the answers") | {LINES: TEXT},
        (*READING, NotAcceptable, Busy),
        "JSON is answered unless Accept names another form; JSON lines for JSON lines.",
        flags=True,
    )


def _score(spoken: Spoken) -> Shape:
    split, example = _split(spoken)
    inside = {"anyOf": [split, {"type": ["array", "object"], "description": "Rows, or columns by name"}]}
    forms = [_object({name: inside}, name) for name in ("input_data", "data")]
    return Shape(
        _json({"oneOf": forms}, input_data={"input_data": example}),
        _json(_list(ANSWER)),
        (*READING, NotAcceptable, Busy),
        flags=True,
    )


def _said(*fails: type[KetchError], **constants: object) -> Callable[[Spoken], Shape]:
    """Make the shape of an answer that is always the same."""
    told = {name: {"const": value} for name, value in constants.items()}
    return lambda spoken: Shape(gives=_json(_object(told, *told)), fails=fails)


def _found(*required: str, fails: Kinds = (), **types: str) -> Callable[[Spoken], Shape]:
    """Make the shape of an object with these members."""
    told = {name: {"type": kind} for name, kind in types.items()}
    return lambda spoken: Shape(gives=_json(_object(told, *(required or told))), fails=fails)


def _written(*kinds: str) -> Callable[[Spoken], Shape]:
    """Make the shape of a text."""
    return lambda spoken: Shape(gives=dict.fromkeys(kinds, TEXT))


def _index(spoken: Spoken) -> Shape:
    listed = {name: {"type": "string"} for name in ("name", "version", "state", "reason")}
    return Shape(gives=_json(_list(_object(listed, *listed))), fails=(BodyTooLarge,))


def _person(spoken: Spoken) -> Shape:
    told = {"name": "lang", "in": "query", "description": "Else as Accept-Language says"}
    return Shape(gives={"text/html": TEXT}, asked=[{**told, "schema": {"type": "string", "examples": ["en", "pt"]}}])


SHAPES: Final[Mapping[str, Callable[[Spoken], Shape]]] = {
    "predictions.predict": _predict,
    "predictions.explain": _explain,
    "pages.home": _person,
    "pages.docs": _person,
    "pages.schema": _found("type", "properties", type="string", properties="object"),
    "pages.describe": _found("openapi", "info", "paths", openapi="string", info="object", paths="object"),
    "health.live": _said(status="live"),
    "health.ready": _said(NotReady, status="ready"),
    "health.metrics": _written("text/plain", "application/openmetrics-text"),
    "openinference.server": _found(name="string", version="string", extensions="array"),
    "openinference.live": _said(live=True),
    "openinference.ready": _said(NotReady, ready=True),
    "openinference.model_ready": lambda spoken: _said(NotReady, name=spoken.predictor.name, ready=True)(spoken),
    "openinference.model": _found(name="string", versions="array", platform="string", inputs="array", outputs="array"),
    "openinference.index": _index,
    "openinference.infer": _infer,
    "platforms.invocations": _invocations,
    "platforms.ping": _said(NotReady),
    "platforms.versions": _written("text/plain"),
    "platforms.score": _score,
}
