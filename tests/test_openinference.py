"""The Open Inference Protocol over HTTP: by its clients, and by those who mean harm."""

import json
import math
import os
import random
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.utils import InferenceServerException  # type: ignore[import-untyped]

from ketch.codec import columns_of, tensors
from ketch.errors import RequestError, TooManyRows, UndecodableBody
from ketch.pack import Options, compose
from ketch.predict import load
from ketch.schema import Answer, Field
from ketch.serve import Request
from ketch.serve.guard import Guard
from ketch.serve.openinference import HEADER, ROUTES, inputs_in, read
from ketch.serve.routes import Service
from tests.doors import ROW, Answered, Door, Doors, ServiceDoor, Small, problem, rows

MANY = (
    Field("age", "integer"),
    Field("fee", "number", required=False),
    Field("plan", "category", categories=("basic", "gold")),
    Field("level", "category", categories=(1, 2, 3)),
    Field("half", "category", categories=(0.5, 2)),
    Field("mixed", "category", categories=("a", 1, True)),
    Field("note", "text", required=False),
    Field("paid", "boolean"),
    Field("day", "date", required=False),
    Field("at", "datetime", required=False),
    Field("spots", "vector", length=2, required=False),
)


# ---- without a server ------------------------------------------------------------------------------------


def tensor(form: tensors.Form, values: Sequence[Any], *, flat: bool, binary: bool) -> tuple[dict[str, Any], bytes]:
    """Write a column as a client would: as JSON, or in binary with NaN and empty texts for what is missing."""
    n, width = len(values), form.shape[1]
    made: dict[str, Any] = {"name": form.name, "datatype": form.datatype}
    made["shape"] = [n, width] if form.name == "spots" or not flat else [n]
    if form.name == "spots":
        elements = [element for value in values for element in (value or [None] * width)]
    elif form.name == "mixed":
        elements = [str(value) for value in values]
    else:
        elements = list(values)
    if not binary:
        wrapped = [elements[at * width : (at + 1) * width] for at in range(n)]
        return {**made, "data": elements if flat else wrapped}, b""
    if form.datatype == "BYTES":
        data = tensors.to_binary("BYTES", [element or "" for element in elements])
    else:
        data = tensors.to_binary(form.datatype, [math.nan if element is None else element for element in elements])
    return {**made, "parameters": {"binary_data_size": len(data)}}, data


def table_in(request: Request, fields: Sequence[Field] = MANY, max_rows: int = 100) -> Any:
    question, rest = read(request)
    return tensors.table_of(inputs_in(question.inputs, rest, fields, max_rows), fields)


def asked(inputs: Sequence[tuple[dict[str, Any], bytes]], **more: Any) -> Request:
    head = json.dumps({"inputs": [each for each, _ in inputs], **more}).encode()
    rest = b"".join(data for _, data in inputs)
    headers = {HEADER.lower(): str(len(head))} if rest else {}
    return Request("POST", "/v2/models/m/infer", headers, head + rest)


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "age": st.integers(-(2**63), 2**63 - 1),
            "fee": st.none() | st.floats(allow_nan=False),
            "plan": st.sampled_from(["basic", "gold", "new"]),
            "level": st.integers(1, 4),
            "half": st.sampled_from([0.5, 2.0]),
            "mixed": st.sampled_from(["a", 1, True]),
            "note": st.none() | TEXT,
            "paid": st.booleans(),
            "day": st.none() | st.dates().map(date.isoformat),
            "at": st.none() | st.datetimes().map(datetime.isoformat),
            "spots": st.none() | st.lists(st.floats(allow_nan=False), min_size=2, max_size=2),
        }
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=150, deadline=None)
@given(ROWS, st.booleans(), st.lists(st.booleans(), min_size=len(MANY), max_size=len(MANY)))
def test_any_rows_written_as_tensors_read_back(rows: list[dict[str, Any]], flat: bool, binary: list[bool]) -> None:
    columns = columns_of(rows)
    forms = tensors.inputs_of(MANY)
    inputs = [
        tensor(form, columns[form.name], flat=flat, binary=coded) for form, coded in zip(forms, binary, strict=True)
    ]
    finite = all(math.isfinite(value) for row in rows for value in [row["fee"] or 0.0, *(row["spots"] or [])])
    if not finite and not all(binary):
        return  # JSON has no infinity
    found = table_in(asked(inputs))
    assert found.n == len(rows)
    assert {name: list(map(repr, values)) for name, values in found.columns.items()} == {
        name: list(map(repr, values)) for name, values in columns.items()
    }


def test_each_field_has_its_tensor() -> None:
    assert [(form.name, form.datatype, form.shape) for form in tensors.inputs_of(MANY)] == [
        ("age", "INT64", (-1, 1)),
        ("fee", "FP64", (-1, 1)),
        ("plan", "BYTES", (-1, 1)),
        ("level", "INT64", (-1, 1)),
        ("half", "FP64", (-1, 1)),
        ("mixed", "BYTES", (-1, 1)),
        ("note", "BYTES", (-1, 1)),
        ("paid", "BOOL", (-1, 1)),
        ("day", "BYTES", (-1, 1)),
        ("at", "BYTES", (-1, 1)),
        ("spots", "FP64", (-1, 2)),
    ]


@pytest.mark.parametrize(
    ("answer", "names", "wanted"),
    [
        (Answer("binary", "c", (0, 1)), ["c", "c_probability"], [("c", "BOOL", 1), ("c_probability", "FP64", 1)]),
        (Answer("binary", "c", ("n", "y")), ["c", "c_score"], [("c", "BYTES", 1), ("c_score", "FP64", 1)]),
        (Answer("binary", "c", (1, 2)), ["c"], [("c", "INT64", 1)]),
        (Answer("binary", "c", (1, 2**63)), ["c"], [("c", "BYTES", 1)]),
        (Answer("multiclass", "c", (1, 2.5, 3)), ["c", "c_scores"], [("c", "FP64", 1), ("c_scores", "FP64", 3)]),
        (Answer("regression", "p"), ["p"], [("p", "FP64", 1)]),
        (Answer("outlier"), ["outlier", "outlier_score"], [("outlier", "BOOL", 1), ("outlier_score", "FP64", 1)]),
        (Answer("cluster"), ["cluster"], [("cluster", "INT64", 1)]),
        (
            Answer("several", parts=(Answer("regression", "p"), Answer("binary", "c", (False, True)))),
            ["p", "c"],
            [("p", "FP64", 1), ("c", "BOOL", 1)],
        ),
    ],
)
def test_each_answer_has_its_tensor(answer: Answer, names: list[str], wanted: list[tuple[str, str, int]]) -> None:
    assert [(form.name, form.datatype, form.shape[1]) for form in tensors.outputs_of(answer, names)] == wanted


@pytest.mark.parametrize("datatype", [name for name in tensors.CODES if name != "BOOL"])
def test_numbers_of_every_datatype_are_read(datatype: str) -> None:
    data = tensors.to_binary(datatype, [1, 2, 0])
    tensor = {"name": "fee", "datatype": datatype, "shape": [3], "parameters": {"binary_data_size": len(data)}}
    assert table_in(asked([(tensor, data)])).columns["fee"] == [1, 2, 0]
    whole: dict[str, Any] = {"name": "fee", "datatype": datatype, "shape": [3, 1], "data": [[1], [2], [None]]}
    assert table_in(asked([(whole, b"")])).columns["fee"] == [1, 2, None]


def test_an_empty_text_is_a_missing_one_unless_it_is_a_category() -> None:
    fields = [Field("note", "text"), Field("plan", "category", categories=("", "gold"))]
    data = tensors.to_binary("BYTES", ["", "gold"])
    inputs = [
        ({"name": each.name, "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": len(data)}}, data)
        for each in fields
    ]
    assert table_in(asked(inputs), fields).columns == {"note": [None, "gold"], "plan": ["", "gold"]}


def body(*inputs: Mapping[str, Any], **more: Any) -> bytes:
    return json.dumps({"inputs": list(inputs), **more}).encode()


def fee(**change: Any) -> dict[str, Any]:
    return {"name": "fee", "datatype": "FP64", "shape": [2], "data": [1.5, 2]} | change


def sized(size: Any) -> dict[str, Any]:
    return {"name": "fee", "datatype": "FP64", "shape": [2], "parameters": {"binary_data_size": size}}


HOSTILE: list[tuple[bytes, bytes, dict[str, str]]] = [
    (b"", b"", {}),
    (b"[]", b"", {}),
    (b"[" * 100_000, b"", {}),
    (b'{"inputs": ' + b'[{"name":"fee","datatype":"FP64","shape":[1],"data":' + b"[" * 50_000, b"", {}),
    (b"{}", b"", {}),
    (body(), b"", {}),
    (body(fee(), id=5), b"", {}),
    (body(fee(), id=["a"]), b"", {}),
    (body(fee(), parameters={"a": {"b": 1}}), b"", {}),
    (body(fee(), parameters=[1]), b"", {}),
    (body(fee(), parameters={"binary_data_output": 1}), b"", {}),
    (body(fee(parameters={"a": [1]})), b"", {}),
    (body(fee(), outputs=[{"name": "nothing"}]), b"", {}),
    (body(fee(), outputs=[{"name": "churn"}, {"name": "churn"}]), b"", {}),
    (body(fee(), outputs=[{"name": "churn", "parameters": {"binary_data": "yes"}}]), b"", {}),
    (body(fee(), outputs=[{}]), b"", {}),
    (body(fee(), outputs={"name": "churn"}), b"", {}),
    (body(fee(), fee()), b"", {}),
    (body(fee(), fee(name="age", shape=[1], data=[1])), b"", {}),
    (body(fee(name=5)), b"", {}),
    (body(fee(datatype="FP8")), b"", {}),
    (body(fee(datatype="fp64")), b"", {}),
    (body(fee(datatype="BF16")), b"", {}),
    (body(fee(shape=[])), b"", {}),
    (body(fee(shape=[0], data=[])), b"", {}),
    (body(fee(shape=[-1])), b"", {}),
    (body(fee(shape=[-1, -2])), b"", {}),
    (body(fee(shape=[2, 1, 1])), b"", {}),
    (body(fee(shape=[1, 2])), b"", {}),
    (body(fee(shape=[2, 0], data=[])), b"", {}),
    (body(fee(shape=[2**31, 2**33])), b"", {}),
    (body(fee(shape=[1, 2**62])), b"", {}),
    (body(fee(shape=[2**64])), b"", {}),
    (body(fee(shape=[1e0, 2])), b"", {}),
    (body(fee(shape=[True, 2])), b"", {}),
    (body(fee(shape="2")), b"", {}),
    (body(fee(shape=[10_001], data=[0] * 10_001)), b"", {}),
    (body(fee(data=None)), b"", {}),
    (body(fee(data={})), b"", {}),
    (body(fee(data="ab")), b"", {}),
    (body(fee(data=[1])), b"", {}),
    (body(fee(data=[1, 2, 3])), b"", {}),
    (body(fee(data=[1, "2"])), b"", {}),
    (body(fee(data=[1, True])), b"", {}),
    (body(fee(data=[1, [2]])), b"", {}),
    (body(fee(data=[[1, 2]])), b"", {}),
    (body(fee(shape=[2, 1], data=[[1], 2])), b"", {}),
    (body(fee(shape=[2, 1], data=[[1], [2, 3]])), b"", {}),
    (body(fee(shape=[2, 1], data=[[1], [[2]]])), b"", {}),
    (body(fee(datatype="INT8", data=[1, 200])), b"", {}),
    (body(fee(datatype="UINT64", data=[1, -1])), b"", {}),
    (body(fee(datatype="INT64", data=[1, 1.0])), b"", {}),
    (body(fee(datatype="BOOL", data=[0, 1])), b"", {}),
    (body(fee(datatype="BYTES", data=[1, "a"])), b"", {}),
    (body(sized(16)), bytes(16), {HEADER: "99999999999999999999"}),
    (body(sized(16)), bytes(16), {HEADER: "-1"}),
    (body(sized(16)), bytes(16), {HEADER: "1e2"}),
    (body(sized(16)), bytes(16), {HEADER: "9999"}),
    (body(sized(16)), bytes(16), {HEADER: "3"}),
    (body(sized(16)), bytes(16), {}),
    (body(sized(16)), b"", {}),
    (body(sized(16)), bytes(15), {HEADER: "+"}),
    (body(sized(16)), bytes(15), {HEADER: "json"}),
    (body(sized(16)), bytes(17), {HEADER: "json"}),
    (body(sized(8)), bytes(8), {HEADER: "json"}),
    (body(sized(-16)), bytes(16), {HEADER: "json"}),
    (body(sized("16")), bytes(16), {HEADER: "json"}),
    (body(sized(True)), bytes(16), {HEADER: "json"}),
    (body(sized(16.0)), bytes(16), {HEADER: "json"}),
    (body(sized(2**63)), bytes(16), {HEADER: "json"}),
    (body(sized(16) | {"data": [1, 2]}), bytes(16), {HEADER: "json"}),
    (body(sized(16) | {"datatype": "BYTES"}), b"\xff" * 16, {HEADER: "json"}),
    (body(sized(16) | {"datatype": "BYTES"}), bytes(16), {HEADER: "json"}),
    (body(sized(7) | {"datatype": "BYTES"}), b"\1\0\0\0a\1\0", {HEADER: "json"}),
    (body(sized(9) | {"datatype": "BYTES"}), b"\1\0\0\0\xff\0\0\0\0", {HEADER: "json"}),
    (body(fee()), b"", {"content-encoding": "gzip"}),
    (body(fee()), b"", {"content-type": "text/csv"}),
]


@pytest.fixture(scope="module")
def infer(doors: Doors) -> Callable[[bytes, Mapping[str, str]], Answered]:
    service = ServiceDoor(doors.service())

    def send(data: bytes, headers: Mapping[str, str] = {}) -> Answered:
        return service.send("POST", "/v2/models/churn/infer", headers, data)

    return send


@pytest.mark.parametrize(("head", "rest", "headers"), HOSTILE)
def test_what_breaks_the_protocol_is_refused(head: bytes, rest: bytes, headers: dict[str, str], infer: Any) -> None:
    head = head.replace(b'"fee"', b'"charges"')
    given = {name: str(len(head)) if value == "json" else value for name, value in headers.items()}
    found = problem(infer(head + rest, given))
    assert found["error"] == found["detail"]
    assert found["status"] in {400, 413, 415}


def test_the_bounds_stand_in_the_reader_itself() -> None:
    for shape, kind in (([101], TooManyRows), ([2**63], UndecodableBody), ([1, 2**62], UndecodableBody)):
        with pytest.raises(kind):
            table_in(asked([(fee(shape=shape, data=[1]), b"")]))
    hundred: dict[str, Any] = {"datatype": "UINT8", "shape": [100], "data": [0] * 100}
    unknown = [({"name": f"n{place}", **hundred}, b"") for place in range(10_001)]
    assert len(table_in(asked(unknown[:101])).columns) == 101
    with pytest.raises(UndecodableBody, match="10001 columns"):
        table_in(asked(unknown))


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_no_damaged_body_does_harm(data: Any) -> None:
    texts = b"\1\0\0\0a\2\0\0\0\xc3\xa9"
    inputs: list[tuple[dict[str, Any], bytes]] = [
        ({"name": "age", "datatype": "INT16", "shape": [2, 1], "parameters": {"binary_data_size": 4}}, b"\1\0\2\0"),
        ({"name": "fee", "datatype": "FP32", "shape": [2], "data": [1.5, None]}, b""),
        ({"name": "note", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": 11}}, texts),
        ({"name": "spots", "datatype": "FP16", "shape": [2, 1], "parameters": {"binary_data_size": 4}}, bytes(4)),
    ]  # fmt: skip
    sound = asked(inputs, id="x", parameters={"a": 1})
    broken = bytearray(sound.body)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(broken) - 1))
        broken[at] = data.draw(st.integers(0, 255) | st.sampled_from(b'0123456789[]{}",-:'))
    length = data.draw(st.just(int(sound.headers[HEADER.lower()])) | st.integers(0, len(broken)))
    try:
        found = table_in(Request("POST", "/", {HEADER.lower(): str(length)}, bytes(broken)))
    except RequestError as error:
        told = error.hint
    else:
        told = "read"
        assert all(len(values) == found.n for values in found.columns.values())
    assert told


# ---- through a server ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def client(doors: Doors) -> Iterator[triton.InferenceServerClient]:
    port: int = doors("front").port  # type: ignore[attr-defined]
    with triton.InferenceServerClient(f"127.0.0.1:{port}") as made:
        yield made


DATATYPES = {"charges": "FP64", "contract": "BYTES", "plan": "BYTES", "tenure": "INT64"}


def as_inputs(table: Sequence[Mapping[str, Any]], *, binary: bool, flat: bool = False) -> list[triton.InferInput]:
    found = []
    for name, kind in DATATYPES.items():
        array = np.array([row[name] for row in table], dtype=object if kind == "BYTES" else None)
        array = array if flat else array.reshape(-1, 1)
        made = triton.InferInput(name, array.shape, kind if kind == "BYTES" else triton.np_to_triton_dtype(array.dtype))
        made.set_data_from_numpy(array, binary_data=binary)
        found.append(made)
    return found


def test_triton_learns_what_there_is(client: triton.InferenceServerClient, small: Small) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    server = client.get_server_metadata()
    assert (server["name"], "binary_tensor_data" in server["extensions"]) == ("ketch", True)
    assert client.is_model_ready("churn")
    (version,) = client.get_model_metadata("churn")["versions"]
    assert client.is_model_ready("churn", version)
    assert not client.is_model_ready("churn", "no-such")
    assert not client.is_model_ready("nobody")
    found = client.get_model_metadata("churn", version)
    assert [(each["name"], each["datatype"], each["shape"]) for each in found["inputs"]] == [
        (each.name, DATATYPES[each.name] if each.type != "number" else "FP64", [-1, 1])
        for each in small.predictor.contract.fields
    ]
    assert found["outputs"] == [
        {"name": "churn", "datatype": "BOOL", "shape": [-1, 1]},
        {"name": "churn_probability", "datatype": "FP64", "shape": [-1, 1]},
    ]
    assert client.get_model_repository_index() == [
        {"name": "churn", "version": version, "state": "READY", "reason": ""}
    ]


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False, None])
def test_triton_gets_the_answers_that_predict_gives(
    binary_in: bool, binary_out: bool | None, client: triton.InferenceServerClient, small: Small
) -> None:
    table = rows(40, seed=3)
    wanted = small.predictor.predict(table)
    outputs = binary_out if binary_out is None else [
        triton.InferRequestedOutput(name, binary_data=binary_out) for name in ("churn_probability", "churn")
    ]  # fmt: skip
    found = client.infer(
        "churn", as_inputs(table, binary=binary_in, flat=binary_in), outputs=outputs, request_id="q 1", timeout=5
    )
    assert found.as_numpy("churn").tolist() == [[row["churn"]] for row in wanted]
    assert found.as_numpy("churn_probability").tolist() == [[row["churn_probability"]] for row in wanted]
    told = found.get_response()
    assert (told["id"], told["model_name"]) == ("q 1", "churn")
    (version,) = client.get_model_metadata("churn")["versions"]
    assert told["model_version"] == version
    only = client.infer(
        "churn", as_inputs(table, binary=True), model_version=version, outputs=[triton.InferRequestedOutput("churn")]
    )
    assert only.as_numpy("churn").dtype == np.bool_
    assert only.as_numpy("churn_probability") is None


def test_triton_is_told_what_is_wrong(client: triton.InferenceServerClient) -> None:
    inputs = as_inputs([ROW], binary=True)
    for model, table, outputs, words in (
        ("nobody", inputs, None, "No model 'nobody'"),
        ("churn", inputs[1:], None, "charges of row 0 is missing"),
        ("churn", inputs, [triton.InferRequestedOutput("chrn")], "no output 'chrn'"),
        ("churn", as_inputs([{**ROW, "plan": "z"}], binary=False), None, "never saw"),
    ):
        with pytest.raises(InferenceServerException, match=words):
            client.infer(model, table, outputs=outputs)


def test_every_door_answers_tensors(door: Door, small: Small) -> None:
    wanted = small.predictor.predict(dict(ROW))
    inputs = [{"name": name, "datatype": kind, "shape": [1], "data": [ROW[name]]} for name, kind in DATATYPES.items()]
    found = door.send("POST", "/v2/models/churn/infer", {"content-type": "application/json"}, body(*inputs, id="a"))
    assert found.status == 200
    assert found.headers["ketch-model"]
    assert found.json["id"] == "a"
    assert {each["name"]: each["data"][0] for each in found.json["outputs"]} == wanted
    in_binary = body(*inputs, parameters={"binary_data_output": True}, outputs=[{"name": "churn_probability"}])
    coded = door.send("POST", "/v2/models/churn/infer", {}, in_binary)
    assert coded.kind == "application/octet-stream"
    head = int(coded.headers[HEADER.lower()])
    (output,) = json.loads(coded.body[:head])["outputs"]
    assert output["parameters"] == {"binary_data_size": 8}
    assert struct.unpack("<d", coded.body[head:]) == (wanted["churn_probability"],)


def test_a_key_opens_what_tells_of_the_model(guarded_door: Door) -> None:
    for each in ROUTES:
        path = each.path.replace("{name}", "churn").replace("{version}", "1")
        found = guarded_door.send(each.method, path, {}, b"{}" if each.method == "POST" else b"")
        assert problem(found)["error"]
        assert found.status == 401


@pytest.fixture(scope="module")
def flowers(tmp_path_factory: pytest.TempPathFactory) -> ServiceDoor:
    """A model of three classes."""
    from sklearn.linear_model import LogisticRegression

    chance = random.Random(5)
    data: dict[str, list[object]] = {name: [chance.uniform(0, 9) for _ in range(90)] for name in ("long", "wide")}
    names = ("setosa", "versicolor", "virginica")
    target: list[object] = [names[int(value) // 3] for value in data["long"]]  # type: ignore[call-overload]
    matrix = np.array(list(data.values()), dtype=float).T
    home = tmp_path_factory.mktemp("flowers")
    model = LogisticRegression(max_iter=2000).fit(matrix, target)
    packed = compose(model, data | {"species": target}, Options(target="species"), home=home)
    (home / "species.ketch").write_bytes(packed.data)
    return ServiceDoor(Service(load(home / "species.ketch", home=home), Guard(())))


def test_probabilities_come_in_the_order_of_the_classes(flowers: ServiceDoor) -> None:
    described = flowers.send("GET", "/v2/models/species").json
    classes = '["setosa","versicolor","virginica"]'
    assert described["outputs"] == [
        {"name": "species", "datatype": "BYTES", "shape": [-1, 1]},
        {"name": "species_probabilities", "datatype": "FP64", "shape": [-1, 3], "parameters": {"classes": classes}},
    ]
    names = [each["name"] for each in described["inputs"]]
    inputs = [{"name": name, "datatype": "FP64", "shape": [2, 1], "data": [[1.0], [8.0]]} for name in names]
    plain = flowers.send(
        "POST", "/predict", {}, json.dumps([dict.fromkeys(names, 1.0), dict.fromkeys(names, 8.0)]).encode()
    )
    for binary in (False, True):
        sent = body(*inputs, parameters={"binary_data_output": binary})
        answered = flowers.send("POST", "/v2/models/species/infer", {}, sent)
        found = triton.InferResult.from_response_body(answered.body, header_length=answered.headers.get(HEADER.lower()))
        label = found.as_numpy("species")
        assert [each.decode() if binary else each for each in label[:, 0]] == [row["species"] for row in plain.json]
        assert found.as_numpy("species_probabilities").tolist() == [
            [row["species_probabilities"][name] for name in json.loads(classes)] for row in plain.json
        ]


# ---- kserve: its client needs older libraries than ours, so it runs in an environment of its own ------------

KSERVE = """
import asyncio, json, sys
from kserve import InferenceRESTClient, InferInput, InferOutput, InferRequest, RESTConfig

async def main(url, rows):
    client = InferenceRESTClient(RESTConfig(protocol="v2", timeout=20))
    assert await client.is_server_live(url)
    assert await client.is_server_ready(url)
    assert await client.is_model_ready(url, "churn")
    inputs = []
    for name, kind in (("charges", "FP64"), ("contract", "BYTES"), ("plan", "BYTES"), ("tenure", "INT64")):
        inputs.append(InferInput(name, [len(rows), 1], kind, data=[row[name] for row in rows]))
    found = await client.infer(url, InferRequest("churn", inputs, request_id="k"), model_name="churn")
    assert found.id == "k", found
    print(json.dumps({each.name: each.as_numpy().ravel().tolist() for each in found.outputs}))
    import numpy
    kinds = (("charges", "FP64"), ("tenure", "INT64"))
    binary = [InferInput(name, [len(rows), 1], kind) for name, kind in kinds]
    for each in binary:
        kind = numpy.float64 if each.name == "charges" else numpy.int64
        each.set_data_from_numpy(numpy.array([[row[each.name]] for row in rows], dtype=kind), binary_data=True)
    mixed = binary[:1] + inputs[1:3] + binary[1:]
    asked = InferRequest("churn", mixed, request_outputs=None, parameters={"binary_data_output": True})
    again = await client.infer(url, asked, model_name="churn")
    print(json.dumps({each.name: each.as_numpy().ravel().tolist() for each in again.outputs}))

asyncio.run(main(sys.argv[1], json.loads(sys.argv[2])))
"""


@pytest.mark.service
@pytest.mark.timeout(600)
def test_the_client_of_kserve(doors: Doors, small: Small, tmp_path: Path) -> None:
    place = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "ketch-tests" / "kserve"
    python = place / "bin" / "python"
    if not python.is_file():
        subprocess.run([sys.executable, "-m", "uv", "venv", "-q", "-p", sys.executable, str(place)], check=True)
        subprocess.run(
            [sys.executable, "-m", "uv", "pip", "install", "-q", "-p", str(python), "kserve>=0.15"], check=True
        )
    table = rows(5, seed=9)
    port: int = doors("front").port  # type: ignore[attr-defined]
    command = [str(python), "-c", KSERVE, f"http://127.0.0.1:{port}", json.dumps(table)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    wanted = small.predictor.predict(table)
    for line in done.stdout.splitlines()[-2:]:
        assert json.loads(line) == {name: [row[name] for row in wanted] for name in wanted[0]}
