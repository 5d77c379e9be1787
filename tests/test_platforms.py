"""The routes of MLflow, SageMaker, Vertex AI and Azure ML: by their clients, and by those who mean harm."""

import contextlib
import csv
import io
import json
import math
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import boto3  # type: ignore[import-untyped]
import numpy as np
import pandas as pd
import pyarrow
import pyarrow.ipc
import pytest
from botocore.config import Config  # type: ignore[import-untyped]
from botocore.exceptions import ClientError  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.serving import make_server

from ketch import codec
from ketch.codec import ARROW, CSV, JSON, columns_of
from ketch.errors import RequestError, SettingError
from ketch.schema import Field
from ketch.serve import Call, Request, Response
from ketch.serve.app import app_of
from ketch.serve.platforms import (
    LINES,
    from_csv,
    from_inputs,
    from_instances,
    from_split,
    unwrapped,
    vertex_routes,
)
from ketch.serve.routes import Service
from tests.doors import KEY, ROW, Answered, Door, Doors, ServiceDoor, Small, problem, rows

NAMES = ["charges", "contract", "plan", "tenure"]  # in the order of the contract
FIELDS = (Field("age", "integer"), Field("note", "text", required=False))
ONE = (Field("age", "integer"),)
VECTOR = (Field("spots", "vector"),)


# ---- rows out of their wrapping ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "found", "wanted"),
    [
        (FIELDS, {"dataframe_split": {"columns": ["note", "age"], "index": [7], "data": [["a", 1]]}}, [(1, "a")]),
        (FIELDS, {"dataframe_split": {"data": [[1, "a"], [2, None]]}}, [(1, "a"), (2, None)]),
        (FIELDS, {"dataframe_records": [{"age": 1, "note": "a"}], "params": {"x": 1}}, [(1, "a")]),
        (FIELDS, {"instances": [{"age": 1, "note": "a"}]}, [(1, "a")]),
        (FIELDS, {"instances": [[1, "a"], [2, "b"]]}, [(1, "a"), (2, "b")]),
        (FIELDS, {"inputs": {"age": [1, 2], "note": ["a", None]}}, [(1, "a"), (2, None)]),
        (FIELDS, {"inputs": {"age": 1, "note": "a"}}, [(1, "a")]),
        (FIELDS, {"inputs": [{"age": 1, "note": "a"}]}, [(1, "a")]),
        (FIELDS, {"inputs": [[1, "a"]]}, [(1, "a")]),
        (FIELDS, {"age": 1, "note": "a"}, [(1, "a")]),
        (FIELDS, [{"age": 1, "note": "a"}], [(1, "a")]),
        (ONE, {"instances": [1, 2]}, [(1,), (2,)]),
        (ONE, {"instances": [[1], [2]]}, [(1,), (2,)]),
        (VECTOR, {"instances": [[1, 2], [3, 4]]}, [([1, 2],), ([3, 4],)]),
        (VECTOR, {"instances": [[[1, 2]], [[3, 4]]]}, [([1, 2],), ([3, 4],)]),
        (VECTOR, {"inputs": {"spots": [[1, 2], [3, 4]]}}, [([1, 2],), ([3, 4],)]),
        ((Field("inputs", "integer"),), {"instances": [{"inputs": 1}]}, [(1,)]),
    ],
)
def test_every_wrapping_of_rows(fields: tuple[Field, ...], found: Any, wanted: list[tuple[Any, ...]]) -> None:
    table, wrapped = unwrapped(json.dumps(found).encode(), fields, 10)
    assert list(zip(*(table.columns[each.name] for each in fields), strict=True)) == wanted
    assert wrapped == (isinstance(found, dict) and "age" not in found)
    assert table.single == (isinstance(found, dict) and "age" in found)


def test_nan_stands_for_what_is_missing() -> None:
    body = json.dumps({"dataframe_split": {"columns": ["age", "note"], "data": [[math.nan, 'a "NaN" \\'], [1, "NaN"]]}})
    table, _ = unwrapped(body.encode(), FIELDS, 10)
    assert table.columns == {"age": [None, 1], "note": ['a "NaN" \\', "NaN"]}


@given(st.recursive(st.none() | st.text() | st.just(math.nan) | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))  # fmt: skip  # noqa: E501
def test_only_nan_becomes_null(value: Any) -> None:
    def without(found: Any) -> Any:
        if isinstance(found, list):
            return [without(each) for each in found]
        if isinstance(found, dict):
            return {name: without(each) for name, each in found.items()}
        return None if found != found else found

    for ascii_only in (True, False):
        with contextlib.suppress(UnicodeEncodeError):
            body = json.dumps(value, ensure_ascii=ascii_only).encode()
            assert json.loads(codec.without_nan(body)) == without(value)


CELLS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=5)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(-(2**53), 2**53), CELLS), min_size=1, max_size=5), st.booleans(), st.booleans())
def test_rows_in_csv_with_a_header_and_without(table: list[tuple[int, str]], headed: bool, said: bool) -> None:
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_ALL)
    if headed:
        writer.writerow(["age", "note"])
    writer.writerows(table)
    content_type = f"text/csv; header={'present' if headed else 'absent'}" if said else "text/csv"
    if not headed and not said and any(cell.strip() in {"age", "note"} for cell in table[0][1:]):
        return
    found = from_csv(out.getvalue().encode(), content_type, FIELDS, 10)
    assert found.columns == {"age": [age for age, _ in table], "note": [note for _, note in table]}


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ("note,age\na,1\n", {"age": [1], "note": ["a"]}),
        ("age,nte\n1,a\n", {"age": [1], "nte": ["a"]}),  # a header with a mistake in it
        ("1,a\n", {"age": [1], "note": ["a"]}),
        ("\ufeff1,a\r\n2,\r\n", {"age": [1, 2], "note": ["a", None]}),
        ("a,b,c\n1,2,3\n", {"a": ["1"], "b": ["2"], "c": ["3"]}),
    ],
)
def test_the_first_line_is_a_header_where_it_names_a_field(body: str, wanted: dict[str, list[object]]) -> None:
    assert from_csv(body.encode(), "text/csv", FIELDS, 10).columns == wanted


WRONG: list[Any] = [
    None, 1, "a", [], {}, [[]], [1], [None], {"data": 1}, {"data": []}, {"columns": ["age"], "data": [[1, 2]]},
    {"columns": ["age", "age"], "data": [[1, 2]]}, {"columns": [1], "data": [[1]]}, {"columns": "a", "data": [["b"]]},
    {"columns": {}, "data": [[1]]}, {"columns": ["age"], "data": [1]}, {"columns": ["age"], "data": {"0": [1]}},
    {"columns": ["age"], "data": [[1]] * 11}, {"columns": ["age"]}, [{"age": 1}, 2], [[1, "a"], {"age": 1}],
    [[1, "a"]] * 11, [{"age": 1}] * 11, [[1, "a", 2]], [[1]], {"age": [1, 2], "note": ["a"]}, {"age": [], "note": []},
    {"age": [1] * 11}, {"age": 1, "note": [1] * 11}, {"": {}}, True, [[[[1]]]],
]  # fmt: skip


@pytest.mark.parametrize("read", [from_split, from_instances, from_inputs])
@pytest.mark.parametrize("found", WRONG)
def test_what_holds_no_rows_is_refused(read: Callable[..., codec.Table], found: Any) -> None:
    try:
        table = read(found, FIELDS, 10)
    except RequestError as error:
        told = error.hint
    else:  # for another form this one is sound
        told = "read"
        assert 1 <= table.n <= 10
        assert all(len(values) == table.n for values in table.columns.values())
    assert told


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["age", "note", "data", "columns", "index", "x"]), inner, max_size=3)
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(["dataframe_split", "dataframe_records", "instances", "inputs", "input_data", "data"]), JSON_VALUES
)
def test_any_json_is_read_or_refused(doors: Doors, form: str, value: Any) -> None:
    service = ServiceDoor(doors.service())
    body = json.dumps({form: value}).encode("utf-8", "replace")
    for path in ("/invocations", "/score"):
        found = service.send("POST", path, {}, body)
        assert found.status in {200, 400, 413, 422}
        if found.status != 200:
            problem(found)


# ---- through a server ----------------------------------------------------------------------------------


def test_every_door_answers_the_platforms(door: Door, small: Small) -> None:
    wanted = small.predictor.predict([dict(ROW)])
    body = json.dumps({"dataframe_records": [ROW]}).encode()
    found = door.send("POST", "/invocations", {"content-type": JSON}, body)
    assert (found.status, found.json) == (200, {"predictions": wanted})
    assert found.headers["ketch-model"]
    assert door.send("POST", "/score", {}, json.dumps({"input_data": [ROW]}).encode()).json == wanted
    assert door.send("GET", "/ping").status == 200
    assert door.send("GET", "/version").body.count(b".") >= 1
    assert door.send("POST", "/predict", {}, json.dumps({"instances": [ROW]}).encode()).status == 422  # never sniffed


def test_everything_needs_a_key(guarded_door: Door) -> None:
    for method, path in (("GET", "/ping"), ("GET", "/version"), ("POST", "/invocations"), ("POST", "/score")):
        assert guarded_door.send(method, path, {}, b"{}").status == 401
        assert guarded_door.send(method, path, {"x-api-key": KEY}, b"{}").status in {200, 400, 422}


@pytest.mark.service
def test_the_client_of_mlflow(doors: Doors, small: Small) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # at its import, of its own code
        from mlflow.pyfunc.scoring_server.client import ScoringServerClient

    client: Any = ScoringServerClient("127.0.0.1", doors("front").port)  # type: ignore[attr-defined,no-untyped-call]
    client.wait_server_ready(timeout=10)
    assert client.get_version()
    table = rows(20, seed=4)
    wanted = small.predictor.predict(table)
    frame = pd.DataFrame(table)
    assert client.invoke(frame)["predictions"] == wanted
    assert client.invoke(frame, params={"anything": 1}).get_predictions().to_dict("records") == wanted
    assert client.invoke(table)["predictions"] == wanted  # a list goes as inputs
    assert client.invoke(json.dumps({"instances": frame.to_numpy().tolist()}))["predictions"] == wanted
    assert client.invoke(json.dumps({"inputs": frame.to_dict("list")}))["predictions"] == wanted
    numbers = np.array([[row[name] for name in NAMES] for row in table], dtype=object)
    assert client.invoke(numbers)["predictions"] == wanted
    frame.loc[0, "plan"] = None
    with pytest.raises(Exception, match=r"plan of row 0 is missing"):
        client.invoke(frame)
    frame.loc[0, "charges"] = math.nan
    with pytest.raises(Exception, match=r"charges of row 0 is missing"):
        client.invoke(frame)


@pytest.fixture(scope="module")
def sagemaker(doors: Doors) -> Iterator[Any]:
    """The runtime client of SageMaker, for a service that stands where SageMaker puts an endpoint."""
    app = app_of(doors.service())
    mounted = DispatcherMiddleware(lambda environ, start: [], {"/endpoints/churn": app})
    server = make_server("127.0.0.1", 0, mounted, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield boto3.client(
            "sagemaker-runtime",
            endpoint_url=f"http://127.0.0.1:{server.port}",
            region_name="eu-west-1",
            aws_access_key_id="none",
            aws_secret_access_key="none",
            config=Config(retries={"max_attempts": 0}, proxies={}),
        )
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_the_client_of_sagemaker(sagemaker: Any, small: Small) -> None:
    table = rows(5, seed=6)
    wanted = small.predictor.predict(table)

    def invoke(body: str | bytes, content_type: str, **more: str) -> tuple[str, str]:
        found = sagemaker.invoke_endpoint(EndpointName="churn", Body=body, ContentType=content_type, **more)
        return found["Body"].read().decode(), found["ContentType"]

    assert json.loads(invoke(json.dumps(table[0]), JSON)[0]) == wanted[0]
    assert json.loads(invoke(json.dumps(table), JSON, CustomAttributes="trace=1")[0]) == wanted
    assert json.loads(invoke(json.dumps({"instances": table}), JSON)[0]) == {"predictions": wanted}

    lines = "\n".join(json.dumps(row) for row in table)
    for more in ({}, {"Accept": LINES}):
        text, kind = invoke(lines, LINES, **more)
        assert ([json.loads(line) for line in text.splitlines()], kind) == (wanted, LINES)
    assert [json.loads(line) for line in invoke(json.dumps(table), JSON, Accept=LINES)[0].splitlines()] == wanted

    bare = pd.DataFrame(table)[NAMES].to_csv(index=False, header=False)
    assert json.loads(invoke(bare, CSV)[0]) == {"predictions": wanted}
    text, kind = invoke(bare, CSV, Accept=CSV)
    values = [[str(row["churn"]).lower(), repr(row["churn_probability"])] for row in wanted]
    assert (list(csv.reader(io.StringIO(text))), kind) == (values, CSV)
    headed = pd.DataFrame(table).to_csv(index=False)
    assert list(csv.reader(io.StringIO(invoke(headed, CSV, Accept=CSV)[0]))) == [
        ["churn", "churn_probability"],
        *values,
    ]

    out = pyarrow.BufferOutputStream()
    arrow = pyarrow.Table.from_pylist(table)
    with pyarrow.ipc.new_stream(out, arrow.schema) as stream:
        stream.write_table(arrow)
    assert json.loads(invoke(out.getvalue().to_pybytes(), ARROW)[0]) == {"predictions": wanted}

    with pytest.raises(ClientError, match="rows-refused") as caught:
        invoke(json.dumps({**ROW, "plan": "z"}), JSON)
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 422


REFUSED: list[tuple[bytes, dict[str, str], int]] = [
    (b"", {}, 400),
    (b"{", {}, 400),
    (b"1", {}, 422),
    (b"[]", {}, 422),
    (b"{}", {}, 422),
    (b"[" * 100_000, {}, 400),
    (b'{"instances":' * 50_000, {}, 400),
    (b'{"instances": [1e999]}', {}, 400),
    (b'{"instances": [{"charges": Infinity}]}', {}, 400),
    (b'{"instances": [], "inputs": []}', {}, 400),
    (b'{"instances": null}', {}, 422),
    (b'{"dataframe_split": {"columns": ["a"], "data": [["\xff"]]}}', {}, 400),
    (b'{"instances": [' + b"[1,2,3,4]," * 10_000 + b"[1,2,3,4]]}", {}, 413),
    (b"", {"content-type": CSV}, 400),
    (b"1,2\n", {"content-type": CSV}, 422),
    (b'"1\n', {"content-type": CSV}, 400),
    (b"1,a\n", {"content-type": "text/csv; header=absent"}, 400),
    (b"\xff\xfe", {"content-type": CSV}, 400),
    (b"", {"content-type": LINES}, 422),
    (b'{"a": 1}\n{', {"content-type": LINES}, 400),
    (b"1\n2\n", {"content-type": LINES}, 422),
    (b"{}\n" * 10_001, {"content-type": LINES}, 413),
    (b"{}", {"content-type": "application/pdf"}, 415),
    (b"{}", {"content-encoding": "gzip"}, 415),
    (b"{}", {"accept": "image/png"}, 406),
    (b"{}", {"content-type": ARROW}, 400),
]


@pytest.mark.parametrize(("body", "headers", "status"), REFUSED)
def test_what_cannot_be_read_is_refused(body: bytes, headers: Mapping[str, str], status: int, doors: Doors) -> None:
    service = ServiceDoor(doors.service())
    assert problem(service.send("POST", "/invocations", headers, body))["status"] == status
    problem(service.send("POST", "/score", headers, body))


# ---- Vertex AI -----------------------------------------------------------------------------------------

AIP = {"AIP_PREDICT_ROUTE": "/v1/endpoints/5/deployedModels/7:predict", "AIP_HEALTH_ROUTE": "/v1/endpoints/5"}


def test_vertex_says_where_it_asks(doors: Doors, small: Small) -> None:
    predict, probe = vertex_routes(AIP)
    assert [(each.method, each.path, each.scope) for each in (predict, probe)] == [
        ("POST", AIP["AIP_PREDICT_ROUTE"], "predict"),
        ("GET", AIP["AIP_HEALTH_ROUTE"], "read"),
    ]
    assert vertex_routes({}) == ()
    assert [each.method for each in vertex_routes({**AIP, "AIP_HEALTH_ROUTE": "/health/ready"})] == ["POST"]
    service = doors.service()
    table = rows(3, seed=8)
    wanted = {"predictions": small.predictor.predict(table)}
    as_lists = [[row[name] for name in NAMES] for row in table]
    for instances in (table, as_lists):
        made = asking(service, predict.handle, {"instances": instances, "parameters": {"a": 1}})
        assert (made.status, json.loads(made.body)) == (200, wanted)
    assert asking(service, probe.handle, {}).status == 200
    bad: Any
    for bad in ({}, [], {"instances": []}, {"instances": [1]}, {"instances": {}}, {"predictions": table}, None):
        with pytest.raises(RequestError):
            asking(service, predict.handle, bad)


def asking(service: Service, handle: Callable[[Any, Call], Response], body: Any) -> Response:
    request = Request("POST", AIP["AIP_PREDICT_ROUTE"], {"host": "localhost"}, json.dumps(body).encode())
    return handle(service, Call(request, "id", "", {}, service.predictor))


@pytest.mark.parametrize(
    "path", ["/predict", "/invocations", "/v2/models/a/infer", "/ping", "predict", "/", "/{x}", "/a?b"]
)
def test_vertex_must_not_take_a_path_that_others_use(path: str) -> None:
    with pytest.raises(SettingError) as caught:
        vertex_routes({"AIP_PREDICT_ROUTE": path})
    assert caught.value.hint


# ---- Azure ML ------------------------------------------------------------------------------------------


def test_azure_gets_a_list_of_answers(doors: Doors, small: Small) -> None:
    service = ServiceDoor(doors.service())
    table = rows(3, seed=7)
    wanted = small.predictor.predict(table)
    as_lists = [[row[name] for name in NAMES] for row in table]
    for body in (
        {"input_data": {"columns": NAMES, "index": [0, 1, 2], "data": as_lists}, "params": {}},
        {"input_data": as_lists},
        {"input_data": table},
        {"input_data": columns_of(table)},
        {"data": table},
        {"data": as_lists},
    ):
        found: Answered = service.send("POST", "/score", {}, json.dumps(body).encode())
        assert (found.status, found.json) == (200, wanted)
    for wrong in ({"Inputs": table}, {"data": table, "input_data": table}, table):
        assert problem(service.send("POST", "/score", {}, json.dumps(wrong).encode()))["status"] == 400
    assert problem(service.send("POST", "/score", {"content-type": CSV}, b"a\n1\n"))["status"] == 415
    assert problem(service.send("POST", "/score", {"accept": CSV}, b'{"data": []}'))["status"] == 406
