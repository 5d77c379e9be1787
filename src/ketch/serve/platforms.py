"""The routes of platforms that bring their own: MLflow, SageMaker, Vertex AI, Azure ML.

Each wraps rows in its own way; what is inside, and every answer, is in the words of POST /predict. Rows without names,
as lists or as CSV without a header, are read in the order of the contract.
"""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from ketch import codec
from ketch.codec import CSV, JSON, Table
from ketch.errors import NotAcceptable, RowsRefused, SettingError, UndecodableBody, UnsupportedMediaType
from ketch.predict import Results
from ketch.schema import Field
from ketch.serve import Call, Response, Route, own_version
from ketch.serve.routes import Service, negotiated

LINES: Final = "application/jsonlines"
LINES_TOO: Final = frozenset({LINES, "application/jsonl", "application/x-jsonlines", "application/x-ndjson"})
MOST_PARAMETERS: Final = 16  # of a Content-Type
WRAPPED: Final = ("dataframe_split", "dataframe_records", "instances", "inputs")


# ---- rows out of their wrapping ----------------------------------------------------------------------


def from_split(found: object, fields: Sequence[Field], max_rows: int) -> Table:
    """Read what pandas writes as `split`: columns, data, and an index, which says nothing.

    Raises:
        RequestError: it is none.
    """
    if not isinstance(found, dict) or not isinstance(found.get("data"), list):
        raise _no_rows("an object with columns and data")
    names = found.get("columns")
    if names is None:
        return from_lists(found["data"], fields, max_rows)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise _no_rows("columns with a name of their own each")
    return _named(found["data"], names, fields, max_rows)


def from_lists(found: list[Any], fields: Sequence[Field], max_rows: int) -> Table:
    """Read rows without names, which stand in the order of the contract.

    Raises:
        RequestError: they have more or fewer values than there are fields.
    """
    return _named(found, [each.name for each in fields], fields, max_rows)


def _named(rows: list[Any], names: Sequence[str], fields: Sequence[Field], max_rows: int) -> Table:
    if not rows:
        raise _no_rows("one row or more")
    if len(rows) > max_rows:
        raise codec.too_many_rows(max_rows)
    for place, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != len(names):
            raise _no_rows(f"a list of {len(names)} values", place)
    known = {each.name for each in fields}
    codec.bound_unknown(sum(name not in known for name in names), len(rows))
    return Table({name: list(values) for name, values in zip(names, zip(*rows, strict=True), strict=True)}, len(rows))


def from_instances(found: object, fields: Sequence[Field], max_rows: int) -> Table:
    """Read a list of rows, with names or without; for a single field, of its values.

    Raises:
        RequestError: it is none.
    """
    if isinstance(found, list) and found and not isinstance(found[0], dict):
        alone = len(fields) == 1 and (fields[0].type != "vector" or _is_vector(found[0]))
        rows = [[value] for value in found] if alone and not _is_row(found[0], fields[0]) else found
        return from_lists(rows, fields, max_rows)
    return codec.from_rows(found, max_rows)


def _is_vector(found: object) -> bool:
    return isinstance(found, list) and not (found and isinstance(found[0], list))


def _is_row(found: object, field: Field) -> bool:
    return isinstance(found, list) and field.type != "vector"


def from_inputs(found: object, fields: Sequence[Field], max_rows: int) -> Table:
    """Read columns by name, one row by name, or a list of rows.

    Raises:
        RequestError: it is none of them.
    """
    if not isinstance(found, dict):
        return from_instances(found, fields, max_rows)
    columns = list(found.values())
    if not found or not all(isinstance(each, list) for each in columns):
        return codec.from_rows([found], max_rows)
    rows = len(columns[0])
    if not rows or any(len(each) != rows for each in columns):
        raise _no_rows("columns of one length")
    if rows > max_rows:
        raise codec.too_many_rows(max_rows)
    known = {each.name for each in fields}
    codec.bound_unknown(sum(name not in known for name in found), rows)
    return Table(found, rows)


def _no_rows(expected: str, row: int = 0) -> RowsRefused:
    return RowsRefused(
        f"The body does not hold {expected}",
        hint="See docs/protocols.md for what each platform sends.",
        errors=[{"row": row, "code": "wrong-type", "expected": expected}],
    )


READERS: Final[Mapping[str, Callable[[Any, Sequence[Field], int], Table]]] = {
    "dataframe_split": from_split,
    "dataframe_records": lambda found, fields, max_rows: codec.from_rows(found, max_rows),
    "instances": from_instances,
    "inputs": from_inputs,
}


def unwrapped(body: bytes, fields: Sequence[Field], max_rows: int) -> tuple[Table, bool]:
    """Read JSON as MLflow's scoring server does, or else as POST /predict; say whether it was wrapped.

    Raises:
        RequestError: one of its kinds.
    """
    found = codec.read_json(codec.without_nan(body))
    if not isinstance(found, dict):
        return codec.from_rows(found, max_rows), False
    forms = [name for name in WRAPPED if name in found]
    if not forms:
        table = codec.from_rows([found], max_rows)
        return Table(table.columns, 1, single=True), False
    if len(forms) > 1:
        raise UndecodableBody(f"The body has both {forms[0]} and {forms[1]}", hint="Send one of them.")
    return READERS[forms[0]](found[forms[0]], fields, max_rows), True


def from_csv(body: bytes, content_type: str, fields: Sequence[Field], max_rows: int) -> Table:
    """Read a CSV with a header or, as SageMaker's often are, without.

    `text/csv; header=absent` and `header=present` say which. Otherwise the first line is no header where it has as many
    cells as there are fields and none of them is the name of one.

    Raises:
        RequestError: one of its kinds.
    """
    if headless(body, content_type, fields):
        names = [each.name for each in fields]
        line = io.StringIO(newline="")
        csv.writer(line, lineterminator="\n", quoting=csv.QUOTE_ALL).writerow(names)
        body = line.getvalue().encode() + body.removeprefix(b"\xef\xbb\xbf")
    return codec.from_csv(body, fields, max_rows)


def _parameter(part: str) -> tuple[str, str]:
    name, _, value = part.partition("=")
    return name.strip().lower(), value.strip().strip('"').lower()


def headless(body: bytes, content_type: str, fields: Sequence[Field]) -> bool:
    """Say whether a CSV begins with a row."""
    said = dict(_parameter(part) for part in content_type.split(";", MOST_PARAMETERS)[1:]).get("header")
    if said in {"absent", "present"}:
        return said == "absent"
    try:
        first = next(csv.reader(io.StringIO(body.decode("utf-8-sig", "replace"), newline=""), strict=True), [])
    except csv.Error:
        return False
    names = {each.name.strip() for each in fields}
    return len(first) == len(fields) and not names & {cell.strip() for cell in first}


# ---- MLflow and SageMaker ----------------------------------------------------------------------------


def invocations(service: Service, call: Call) -> Response:
    """Answer what MLflow's and SageMaker's clients send.

    Raises:
        RequestError: one of its kinds.
    """
    headers = call.request.headers
    kind = headers.get("content-type", JSON)
    lines = codec.media_type(kind) in LINES_TOO
    accept = "" if headers.get("accept", "") in {"", "*/*"} else headers["accept"]
    if accept.partition(";")[0].strip().lower() in LINES_TOO or (lines and not accept):
        accept = LINES
    else:  # MLflow's server answers in JSON whatever it was asked in
        accept = codec.accepted(accept, JSON)
    negotiated({"content-encoding": headers.get("content-encoding", "identity")})
    table, wrapped = _asked(call, kind, lines=lines)
    results = service.answer(call, table)
    if accept == LINES:
        return Response(200, b"".join(line + b"\n" for line in _lines(results)), LINES)
    if accept == JSON and wrapped:
        return _predictions(results)
    made = call.predictor.encode(results, accept)
    if accept == CSV and codec.media_type(kind) == CSV:
        made = _as_the_question(made, results, headless(call.request.body, kind, call.predictor.contract.fields))
    return Response(200, made, accept)


def _as_the_question(made: bytes, results: Results, bare: bool) -> bytes:
    """Leave out the header where the question had none: a batch transform joins the two line by line."""
    header = codec.encode(dict.fromkeys(codec.flatten(results.columns), ()), 0, single=False, accept=CSV)
    return made.removeprefix(header) if bare else made


def _asked(call: Call, kind: str, *, lines: bool) -> tuple[Table, bool]:
    """Read the rows, and say whether their answers are wrapped; those to a table always are."""
    fields, max_rows = call.predictor.contract.fields, call.predictor.limits.max_rows
    if lines:
        return codec.from_rows(codec.read_json(call.request.body, lines=True), max_rows), False
    media_type = codec.media_type(kind)
    if media_type == JSON:
        return unwrapped(call.request.body, fields, max_rows)
    if media_type == CSV:
        return from_csv(call.request.body, kind, fields, max_rows), True
    return codec.decode(call.request.body, kind, fields, max_rows=max_rows), True


def _lines(results: Results) -> list[bytes]:
    columns = results.columns
    rows = zip(*columns.values(), strict=True)
    return [msgspec.json.encode(dict(zip(columns, row, strict=True))) for row in rows]


def _records(results: Results) -> bytes:
    return codec.encode(results.columns, results.n, single=False)


def _predictions(results: Results) -> Response:
    return Response(200, b'{"predictions":' + _records(results) + b"}")


def ping(service: Service, call: Call) -> Response:
    """Say whether the models give their golden answers, as SageMaker and MLflow ask.

    Raises:
        NotReady: one does not.
    """
    service.require_ready()
    return Response(200, b"{}")


def versions(service: Service, call: Call) -> Response:
    """Give the version of Ketch where MLflow gives its own."""
    return Response(200, own_version().encode(), "text/plain; charset=utf-8")


# ---- Vertex AI ---------------------------------------------------------------------------------------


def vertex(service: Service, call: Call) -> Response:
    """Answer what Vertex AI sends: instances, and parameters, which say nothing here.

    Raises:
        RequestError: one of its kinds.
    """
    found = _object(call)
    if "instances" not in found:
        raise UndecodableBody("The body has no instances", hint='Send {"instances": [row, …]}.')
    fields, max_rows = call.predictor.contract.fields, call.predictor.limits.max_rows
    return _predictions(service.answer(call, from_instances(found["instances"], fields, max_rows)))


def _object(call: Call) -> dict[str, Any]:
    """Read a JSON object."""
    content_type, accept = negotiated(call.request.headers)
    if codec.media_type(content_type) != JSON:
        raise UnsupportedMediaType("This route reads JSON", hint=f"Send it with 'Content-Type: {JSON}'.")
    if accept != JSON:
        raise NotAcceptable("This route answers in JSON", hint=f"Accept {JSON}.")
    found = codec.read_json(codec.without_nan(call.request.body))
    if not isinstance(found, dict):
        raise UndecodableBody("The body is no JSON object", hint="See docs/protocols.md for what each platform sends.")
    return found


def vertex_routes(environ: Mapping[str, str]) -> tuple[Route, ...]:
    """Give the routes that Vertex AI names in the environment of its containers; none elsewhere.

    Raises:
        SettingError: it names a path at which Ketch answers others.
    """
    asked, probed = environ.get("AIP_PREDICT_ROUTE", ""), environ.get("AIP_HEALTH_ROUTE", "")
    found = []
    for name, path in (("AIP_PREDICT_ROUTE", asked), ("AIP_HEALTH_ROUTE", probed)):
        if path and (not path.startswith("/") or path == "/" or {"{", "}", "?", "#"} & set(path)):
            raise SettingError(f"{name} is no path: {path[:80]!r}", hint="Give a path such as /vertex/predict.")
    if asked in TAKEN or asked.startswith(("/v2/", "/models/")):
        raise SettingError(
            f"AIP_PREDICT_ROUTE is {asked}, where Ketch answers other clients",
            hint="Deploy with --container-predict-route=/vertex/predict.",
        )
    if asked:
        found.append(Route(asked, "POST", "", "predict", vertex))
    if probed and probed not in PROBES:
        found.append(Route(probed, "GET", "", "read", ping))
    return tuple(found)


PROBES: Final = frozenset({"/health/live", "/health/ready", "/ping", "/v2/health/live", "/v2/health/ready"})
TAKEN: Final = PROBES | {"/predict", "/invocations", "/score", "/explain", "/feedback", "/metrics", "/version"}


# ---- Azure ML ----------------------------------------------------------------------------------------


def score(service: Service, call: Call) -> Response:
    """Answer what Azure ML's clients send: `input_data` as for models of MLflow, or `data` as for scoring scripts.

    Raises:
        RequestError: one of its kinds.
    """
    fields, max_rows = call.predictor.contract.fields, call.predictor.limits.max_rows
    found = _object(call)
    forms = [name for name in ("input_data", "data") if name in found]
    if len(forms) != 1:
        raise UndecodableBody(
            "The body has no input_data", hint='Send {"input_data": {"columns": […], "data": [[…]]}}.'
        )
    inside = found[forms[0]]
    split = isinstance(inside, dict) and isinstance(inside.get("data"), list) and "columns" in inside
    table = (from_split if split else from_inputs)(inside, fields, max_rows)
    return Response(200, _records(service.answer(call, table)))


ROUTES: Final = (
    Route(
        "/invocations", "POST", "Answer rows as MLflow and SageMaker send them", "predict", invocations, of_model=True
    ),
    Route("/ping", "GET", "Whether the model answers, for SageMaker and MLflow", "read", ping),
    Route("/version", "GET", "The version of Ketch, for MLflow", "read", versions),
    Route("/score", "POST", "Answer rows as Azure ML sends them", "predict", score, of_model=True),
)
