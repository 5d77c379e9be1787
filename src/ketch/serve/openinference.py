"""The Open Inference Protocol, version 2, over HTTP: what Triton, KServe and their clients speak.

One tensor for each field and each answer, by name; in JSON, or in binary after the JSON as the extension has it.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import msgspec

from ketch import codec
from ketch.codec import JSON, tensors
from ketch.codec.tensors import Form, Tensor
from ketch.errors import UndecodableBody, UnsupportedMediaType
from ketch.predict import Predictor, Results
from ketch.schema import Field
from ketch.serve import Call, Request, Response, Route, own_version
from ketch.serve.lineup import version_of
from ketch.serve.routes import Service

BINARY: Final = "application/octet-stream"
HEADER: Final = "Inference-Header-Content-Length"
EXTENSIONS: Final = ("binary_tensor_data", "model_repository")

Parameters = dict[str, str | int | float | bool | None]


class Input(msgspec.Struct):
    """A tensor as it is sent."""

    name: str
    datatype: str
    shape: list[int]
    data: Any = None
    parameters: Parameters | None = None


class Output(msgspec.Struct):
    """A tensor that is asked for."""

    name: str
    parameters: Parameters | None = None


class Question(msgspec.Struct):
    """What a client asks."""

    inputs: list[Input]
    id: str | None = None
    parameters: Parameters | None = None
    outputs: list[Output] | None = None


# ---- a question in, an answer out --------------------------------------------------------------------


def infer(service: Service, call: Call) -> Response:
    """Answer tensors with tensors.

    Raises:
        RequestError: one of its kinds.
    """
    if call.args.get("version"):
        call.predictor = service.predictor_named(call.args["name"], call.args["version"])
    predictor = call.predictor
    question, rest = read(call.request)
    wanted = chosen(question, tensors.outputs_of(predictor.contract.answer, predictor.answers))
    fields = predictor.contract.fields
    given = inputs_in(question.inputs, rest, fields, predictor.limits.max_rows)
    results = service.answer(call, tensors.table_of(given, fields))
    made = write(question, wanted, predictor, results)
    return replace(made, headers={**made.headers, **service.marks(predictor)})


def read(request: Request) -> tuple[Question, memoryview]:
    """Read a body: the JSON, and the bytes after it.

    Raises:
        UnsupportedMediaType, UndecodableBody: as the body deserves.
    """
    kind, coded = (request.headers.get(name, "") for name in ("content-type", "content-encoding"))
    if kind.partition(";")[0].strip().lower() not in {"", JSON, BINARY} or coded.lower() not in {"", "identity"}:
        raise UnsupportedMediaType(
            "This route reads JSON, and binary tensors after it", hint=f"Send it as {JSON} or {BINARY}, not compressed."
        )
    length = request.headers.get(HEADER.lower(), "")
    end = len(request.body)
    if length:
        if not (length.isascii() and length.isdecimal() and len(length) < 12 and int(length) <= end):
            raise UndecodableBody(f"{HEADER} is no number of bytes of this body", hint="Say how long the JSON is.")
        end = int(length)
    question: Question = codec.read_json(codec.without_nan(request.body[:end]), Question)
    return question, memoryview(request.body)[end:]


def inputs_in(given: Sequence[Input], rest: memoryview, fields: Sequence[Field], max_rows: int) -> list[Tensor]:
    """Read the tensors, each from the JSON or from the bytes after it.

    Raises:
        UndecodableBody, TooManyRows: as they deserve.
    """
    by_name = {each.name: each for each in fields}
    found = []
    for each in given:
        size = tensors.size_of(each.name, each.datatype, each.shape, max_rows)
        long = (each.parameters or {}).get("binary_data_size")
        if long is None:
            elements = tensors.from_json(each.name, each.datatype, each.shape, each.data)
        else:
            if type(long) is not int or not 0 <= long <= len(rest) or each.data is not None:
                raise UndecodableBody(
                    f"The binary data of {each.name[:80]!r} is not in the body",
                    hint=f"Send binary_data_size and no data, the bytes after the JSON, and {HEADER}.",
                )
            elements, rest = _binary(each, size, rest[:long], by_name.get(each.name)), rest[long:]
        found.append(Tensor(each.name, each.datatype, each.shape, elements))
    if rest:
        raise UndecodableBody(f"{len(rest)} bytes belong to no tensor", hint="Give each its binary_data_size.")
    return found


def _binary(each: Input, size: int, data: memoryview, field: Field | None) -> list[Any]:
    elements = tensors.from_binary(each.name, each.datatype, size, data)
    return tensors.without_empty(elements, field) if each.datatype == tensors.BYTES else elements


def chosen(question: Question, known: Sequence[Form]) -> list[tuple[Form, bool]]:
    """Say which answers are wanted, all where none is named, and whether each goes in binary.

    Raises:
        UndecodableBody: one is not there, or named twice.
    """
    binary = _truth(question.parameters, "binary_data_output", default=False)
    if not question.outputs:
        return [(each, binary) for each in known]
    by_name = {each.name: each for each in known}
    found = []
    for each in question.outputs:
        if each.name not in by_name:
            raise UndecodableBody(
                f"There is no output {each.name[:80]!r}", hint=f"There are, once each: {', '.join(map(_name, known))}"
            )
        found.append((by_name.pop(each.name), _truth(each.parameters, "binary_data", default=binary)))
    return found


def _name(each: Form) -> str:
    return each.name


def _truth(parameters: Parameters | None, name: str, *, default: bool) -> bool:
    found = (parameters or {}).get(name, default)
    if not isinstance(found, bool):
        raise UndecodableBody(f"The parameter {name} is neither true nor false", hint="Send true or false.")
    return found


def write(question: Question, wanted: Sequence[tuple[Form, bool]], predictor: Predictor, results: Results) -> Response:
    """Write an answer: JSON, and after it the tensors that go in binary."""
    outputs, parts = [], []
    for form, binary in wanted:
        elements = tensors.elements_of(form, results.columns[form.name])
        output = {"name": form.name, "datatype": form.datatype, "shape": [results.n, form.shape[1]]}
        parameters: dict[str, object] = _classes(form)
        if binary:
            parts.append(tensors.to_binary(form.datatype, elements))
            parameters["binary_data_size"] = len(parts[-1])
        else:
            output["data"] = elements
        outputs.append(output | ({"parameters": parameters} if parameters else {}))
    made: dict[str, object] = {"model_name": predictor.name, "model_version": version_of(predictor)}
    if question.id:
        made["id"] = question.id
    head = msgspec.json.encode(made | {"outputs": outputs})
    if not parts:
        return Response(200, head)
    return Response(200, b"".join([head, *parts]), BINARY, {HEADER: str(len(head))})


def _classes(form: Form) -> dict[str, object]:
    """Name the classes that the elements of a row belong to; a parameter is one value, so they are JSON in a text."""
    return {"classes": msgspec.json.encode(form.classes).decode()} if form.classes else {}


# ---- what there is -----------------------------------------------------------------------------------


def server(service: Service, call: Call) -> Response:
    """Say what this server is."""
    return _json({"name": "ketch", "version": own_version(), "extensions": EXTENSIONS})


def live(service: Service, call: Call) -> Response:
    """Say that the process answers."""
    return _json({"live": True})


def ready(service: Service, call: Call) -> Response:
    """Say whether the models give their golden answers.

    Raises:
        NotReady: one does not.
    """
    service.require_ready()
    return _json({"ready": True})


def model_ready(service: Service, call: Call) -> Response:
    """Say whether a model is there and answers.

    Raises:
        NoSuchModel, NotReady: it is not, or does not.
    """
    predictor = _named(service, call)
    service.require_ready()
    return _json({"name": predictor.name, "ready": True})


def model(service: Service, call: Call) -> Response:
    """Describe the tensors of a model.

    Raises:
        NoSuchModel: there is no such model, or no such version of it.
    """
    predictor = _named(service, call)
    outputs = tensors.outputs_of(predictor.contract.answer, predictor.answers)
    return _json(
        {
            "name": predictor.name,
            "versions": _versions(service, predictor.name),
            "platform": "ketch",
            "inputs": [_described(each) for each in tensors.inputs_of(predictor.contract.fields)],
            "outputs": [_described(each) for each in outputs],
        }
    )


def index(service: Service, call: Call) -> Response:
    """List the models served."""
    listed = [(name, each) for name in service.names for each in _versions(service, name)]
    return _json([{"name": name, "version": each, "state": "READY", "reason": ""} for name, each in listed])


def _named(service: Service, call: Call) -> Predictor:
    return service.predictor_named(call.args["name"], call.args.get("version", ""))


def _versions(service: Service, name: str) -> list[str]:
    return list(dict.fromkeys(version_of(each) for each in service.lineup.line(name).versions.values()))


def _described(form: Form) -> dict[str, object]:
    described: dict[str, object] = {"name": form.name, "datatype": form.datatype, "shape": form.shape}
    return described | ({"parameters": _classes(form)} if form.classes else {})


def _json(found: object) -> Response:
    return Response(200, msgspec.json.encode(found))


def with_error(problem: dict[str, object]) -> dict[str, object]:
    """Add to a problem what the protocol's clients look for."""
    return problem | {"error": problem["detail"]}


def _routes() -> tuple[Route, ...]:
    found = [
        Route("/v2", "GET", "The server, in the Open Inference Protocol", "read", server, rewrite=with_error),
        Route("/v2/health/live", "GET", "Whether the process answers", "read", live, rewrite=with_error),
        Route("/v2/health/ready", "GET", "Whether the models answer", "read", ready, rewrite=with_error),
        Route("/v2/repository/index", "POST", "The models served", "read", index, rewrite=with_error),
    ]
    for path in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
        found += [
            Route(path, "GET", "The tensors of a model", "read", model, rewrite=with_error),
            Route(f"{path}/ready", "GET", "Whether a model answers", "read", model_ready, rewrite=with_error),
            Route(f"{path}/infer", "POST", "Answer tensors with tensors", "predict", infer, rewrite=with_error),
        ]
    return tuple(found)


ROUTES: Final = _routes()
