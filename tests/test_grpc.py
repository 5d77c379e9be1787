"""The Open Inference Protocol over gRPC: by its client, by bare calls, and by those who mean harm."""

import asyncio
import importlib.util
import json
import math
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException  # type: ignore[import-untyped]

from ketch import extras
from ketch import settings as setting
from ketch.codec import tensors
from ketch.errors import NotInstalled, RequestError, SettingError
from ketch.serve import Response, door
from ketch.serve.guard import Guard
from ketch.serve.openinference_grpc import (
    CONTENTS,
    METHODS,
    MOST_TENSORS,
    SERVICE,
    GrpcServer,
    grpc_server,
    hold_port,
    messages,
    unwrap_infer,
    wrap_infer,
)
from ketch.serve.routes import Service
from ketch.trust import calling
from tests.doors import KEY, ROW, Doors, Small, rows

pytestmark = pytest.mark.service

HERE = Path(__file__).parent
CALLED: Mapping[str, Any] = messages()
SOUND = set(grpc.StatusCode) - {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS}


@dataclass
class Running:
    """A gRPC server in this process, and a channel to it."""

    server: GrpcServer
    port: int
    loop: asyncio.AbstractEventLoop

    def channel(self, **options: Any) -> Any:
        given = [(f"grpc.{name}", value) for name, value in options.items()]
        return grpc.insecure_channel(f"localhost:{self.port}", options=given)

    def call(self, name: str, asked: Any, channel: Any = None, **more: Any) -> "Told":
        """Call a method with a message or with any bytes."""
        with channel or self.channel() as opened:
            method = opened.unary_unary(f"/{SERVICE}/{name}")
            data = asked if isinstance(asked, bytes) else asked.SerializeToString()
            try:
                made, call = method.with_call(data, timeout=20, **more)
            except grpc.RpcError as error:
                return Told(error.code(), error.details(), _texts(error.trailing_metadata()))
            answer = CALLED.get(f"{name}Response")
            return Told(call.code(), answer and answer.FromString(made), _texts(call.trailing_metadata()))


@dataclass
class Told:
    code: Any
    made: Any  # the answer, or a refusal's detail
    trailing: dict[str, str]


def _texts(metadata: Any) -> dict[str, str]:
    return {key: value for key, value in metadata or () if isinstance(value, str)}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as opened:
        port: int = opened.getsockname()[1]
        return port


@contextmanager
def running(service: Service, **flags: object) -> Iterator[Running]:
    port = free_port()
    given = setting.read({"grpc_port": port, **flags}, environ={}, folder=HERE, without_file=True)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    server = grpc_server(service, given)
    asyncio.run_coroutine_threadsafe(server.start(), loop).result(10)
    try:
        yield Running(server, port, loop)
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(5), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.fixture(scope="module")
def here(doors: Doors) -> Iterator[Running]:
    with running(doors.service()) as found:
        yield found


@pytest.fixture(scope="module")
def guarded(doors: Doors) -> Iterator[Running]:
    with running(doors.service(guarded=True)) as found:
        yield found


def question(asked: Sequence[Mapping[str, Any]], small: Small, *, raw: bool = False, **more: Any) -> Any:
    """Write rows as a message."""
    made = CALLED["ModelInferRequest"](model_name="churn", **more)
    for form in tensors.inputs_of(small.predictor.contract.fields):
        values = [row[form.name] for row in asked]
        add(made, form.name, form.datatype, [len(values), 1], values, raw=raw)
    return made


def add(made: Any, name: str, datatype: str, shape: Sequence[int], values: Sequence[Any], *, raw: bool = False) -> None:
    tensor = made.inputs.add(name=name, datatype=datatype, shape=shape)
    if raw:
        made.raw_input_contents.append(tensors.to_binary(datatype, values))
    else:
        sent = [each.encode() if isinstance(each, str) else each for each in values]
        getattr(tensor.contents, CONTENTS[datatype]).extend(sent)


# ---- what is committed is what is meant --------------------------------------------------------------------


def test_the_description_is_made_of_the_proto(tmp_path: Path) -> None:
    FileDescriptorSet = extras.load("google.protobuf.descriptor_pb2").FileDescriptorSet
    folder = Path(str(importlib.util.find_spec("ketch.serve").submodule_search_locations[0]))  # type: ignore[union-attr, index]
    made = tmp_path / "made"
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I", str(folder), f"--descriptor_set_out={made}"]
    subprocess.run([*command, "open_inference.proto"], check=True)
    again = FileDescriptorSet.FromString(made.read_bytes())
    assert again == FileDescriptorSet.FromString((folder / "open_inference.bin").read_bytes())


def test_names_and_numbers_are_those_of_the_protocols_client() -> None:
    compared = 0
    theirs = service_pb2.DESCRIPTOR.message_types_by_name
    ours = {name: each.DESCRIPTOR for name, each in CALLED.items()}
    pairs = [(ours[name], theirs[name]) for name in ours]
    for mine, other in pairs:
        pairs += [(each, other.nested_types_by_name[name]) for name, each in mine.nested_types_by_name.items()]
        for field in mine.fields:
            found = other.fields_by_number[field.number]
            assert (field.name, field.type, field.is_repeated) == (found.name, found.type, found.is_repeated)
            compared += 1
    assert compared > 50


# ---- the protocol's own client -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def client(here: Running) -> Iterator[Any]:
    with triton.InferenceServerClient(f"localhost:{here.port}") as made:
        yield made


def inputs(asked: Sequence[Mapping[str, Any]]) -> list[Any]:
    found = []
    for name, datatype, kind in (
        ("charges", "FP64", np.float64),
        ("contract", "BYTES", object),
        ("plan", "BYTES", object),
        ("tenure", "INT64", np.int64),
    ):
        tensor = triton.InferInput(name, [len(asked), 1], datatype)
        tensor.set_data_from_numpy(np.array([[row[name]] for row in asked], dtype=kind))
        found.append(tensor)
    return found


def test_a_client_learns_what_there_is(client: Any, small: Small) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("churn")
    assert client.is_model_ready("churn", small.predictor.bundle.sha256[:12])
    assert client.get_server_metadata().name == "ketch"
    told = client.get_model_metadata("churn")
    assert told.name == "churn"
    assert list(told.versions) == [small.predictor.bundle.sha256[:12]]
    assert [(each.name, each.datatype, list(each.shape)) for each in told.inputs] == [
        ("charges", "FP64", [-1, 1]),
        ("contract", "BYTES", [-1, 1]),
        ("plan", "BYTES", [-1, 1]),
        ("tenure", "INT64", [-1, 1]),
    ]
    assert [(each.name, each.datatype) for each in told.outputs] == [("churn", "BOOL"), ("churn_probability", "FP64")]


@pytest.mark.parametrize("n", [1, 2, 500])
def test_a_client_gets_the_answers_of_the_model(client: Any, small: Small, n: int) -> None:
    asked = rows(n, seed=n)
    told = client.infer("churn", inputs(asked), request_id="mine-1")
    expected = small.predictor.predict(asked)
    assert told.get_response().id == "mine-1"
    assert told.as_numpy("churn").tolist() == [[row["churn"]] for row in expected]
    assert told.as_numpy("churn_probability").tolist() == [[row["churn_probability"]] for row in expected]


def test_a_client_may_choose_outputs_and_compress_and_not_wait(client: Any, small: Small) -> None:
    asked, came = rows(3, seed=4), threading.Event()
    found: list[Any] = []

    def told(result: Any, error: Any) -> None:
        found.extend([result, error])
        came.set()

    client.async_infer(
        "churn",
        inputs(asked),
        told,
        outputs=[triton.InferRequestedOutput("churn_probability")],
        compression_algorithm="gzip",
        parameters={"team": "marketing"},
    )
    assert came.wait(20)
    result, error = found
    assert error is None
    assert [each.name for each in result.get_response().outputs] == ["churn_probability"]
    assert result.as_numpy("churn") is None
    expected = [[row["churn_probability"]] for row in small.predictor.predict(asked)]
    assert result.as_numpy("churn_probability").tolist() == expected


def test_a_client_is_told_what_was_wrong(client: Any) -> None:
    with pytest.raises(InferenceServerException, match=r"plan.*Hint|plan") as caught:
        client.infer("churn", inputs([{**ROW, "plan": "z"}]))
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
    with pytest.raises(InferenceServerException, match="No model 'price'") as caught:
        client.infer("price", inputs([ROW]))
    assert caught.value.status() == "StatusCode.NOT_FOUND"


# ---- bare calls ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("raw", [False, True])
def test_an_answer_is_written_as_its_question(here: Running, small: Small, *, raw: bool) -> None:
    asked = rows(5, seed=9)
    told = here.call("ModelInfer", question(asked, small, raw=raw, id="7")).made
    expected = small.predictor.predict(asked)
    assert (told.model_name, told.model_version, told.id) == ("churn", small.predictor.bundle.sha256[:12], "7")
    if raw:
        found = [np.frombuffer(told.raw_output_contents[at], kind).tolist() for at, kind in ((0, "?"), (1, "<f8"))]
        assert not any(each.HasField("contents") for each in told.outputs)
    else:
        found = [[*told.outputs[0].contents.bool_contents], [*told.outputs[1].contents.fp64_contents]]
        assert not told.raw_output_contents
    assert found[0] == [row["churn"] for row in expected]
    assert found[1] == [row["churn_probability"] for row in expected]


def test_what_is_told_beside_an_answer(here: Running, small: Small) -> None:
    told = here.call("ModelInfer", question([{**ROW, "charges": 1e6}], small), metadata=[("x-request-id", "abc-1")])
    assert told.trailing["ketch-model"].startswith("churn;sha256=")
    assert told.trailing["ketch-flags"] == "out-of-range;field=charges"
    assert told.trailing["x-request-id"] == "abc-1"


NOT_READ = "undecodable-body"
REFUSED: Mapping[str, tuple[Callable[[Any], Any], str, str]] = {  # what spoils a question, the code, what is said
    "no model": (lambda asked: asked.ClearField("model_name"), "no-such-route", ""),
    "other model": (lambda asked: _set(asked, model_name="a/b"), "no-such-model", ""),
    "other version": (lambda asked: _set(asked, model_version="7"), "no-such-model", "version"),
    "no inputs": (lambda asked: asked.ClearField("inputs"), NOT_READ, "no tensor"),
    "too many inputs": (lambda asked: [asked.inputs.add() for _ in range(MOST_TENSORS)], NOT_READ, "10000"),
    "raw too few": (lambda asked: asked.raw_input_contents.append(b""), NOT_READ, "1 raw"),
    "raw and typed": (lambda asked: asked.raw_input_contents.extend([b""] * 4), NOT_READ, "beside"),
    "datatype": (lambda asked: _set(asked.inputs[0], datatype="FP61"), NOT_READ, "FP61"),
    "half floats": (lambda asked: _set(asked.inputs[0], datatype="FP16"), NOT_READ, "FP16"),
    "other contents": (lambda asked: _set(asked.inputs[0], datatype="FP32"), NOT_READ, "0 fp32_contents"),
    "shape": (lambda asked: asked.inputs[0].shape.extend([1]), NOT_READ, "shape"),
    "negative": (lambda asked: _first(asked.inputs[0].shape, -1), NOT_READ, "shape"),
    "output": (lambda asked: asked.outputs.add(name="x"), NOT_READ, "churn_probability"),
    "not text": (lambda asked: _first(asked.inputs[2].contents.bytes_contents, b"\xff"), NOT_READ, "UTF-8"),
    "plan": (lambda asked: _first(asked.inputs[2].contents.bytes_contents, b"z"), "rows-refused", "plan"),
    "nan": (lambda asked: _first(asked.inputs[0].contents.fp64_contents, math.nan), "rows-refused", "charges"),
}


def _first(values: Any, value: object) -> None:
    values[0] = value


def _set(made: Any, **values: object) -> None:
    for name, value in values.items():
        setattr(made, name, value)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_and_how(here: Running, small: Small, name: str) -> None:
    spoil, code, says = REFUSED[name]
    asked = question([ROW], small)
    spoil(asked)
    told = here.call("ModelInfer", asked)
    status = "NOT_FOUND" if code.startswith("no-such") else "INVALID_ARGUMENT"
    assert (told.code.name, told.trailing["ketch-code"]) == (status, code), told
    assert says in told.made
    assert told.trailing["x-request-id"]


def test_a_value_beyond_its_datatype_is_refused(here: Running) -> None:
    asked = CALLED["ModelInferRequest"](model_name="churn")
    add(asked, "tenure", "INT16", [1], [70_000])
    told = here.call("ModelInfer", asked)
    assert told.code == grpc.StatusCode.INVALID_ARGUMENT
    assert "INT16" in told.made


def test_what_is_no_message_is_refused(here: Running) -> None:
    told = here.call("ModelInfer", b"\xff\xff")
    assert told.code == grpc.StatusCode.INVALID_ARGUMENT
    assert "no ModelInferRequest" in told.made
    assert here.call("NoSuchMethod", b"").code == grpc.StatusCode.UNIMPLEMENTED
    assert here.call("ModelReady", CALLED["ModelReadyRequest"](name="price")).code == grpc.StatusCode.NOT_FOUND


def test_what_is_too_large_is_refused(doors: Doors, small: Small) -> None:
    with running(doors.service(max_body=2000), max_body=2000) as found:
        assert found.call("ModelInfer", question(rows(10), small)).code == grpc.StatusCode.OK
        told = found.call("ModelInfer", question(rows(100), small))
        assert (told.code, told.trailing["ketch-code"]) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "body-too-large")
        small_numbers = CALLED["ModelInferRequest"](model_name="churn")
        add(small_numbers, "tenure", "INT64", [1000], [1] * 1000)  # a byte each in the message, eight on their way
        assert found.call("ModelInfer", small_numbers).trailing["ketch-code"] == "body-too-large"
        for more in ({}, {"compression": grpc.Compression.Gzip}):  # gRPC itself refuses what is beyond all measure
            told = found.call("ModelInfer", b"\0" * 200_000, **more)
            assert told.code == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_whoever_asks_too_often_is_told_when_to_come_back(small: Small) -> None:
    service = Service(small.predictor, Guard(), rates=door("Rates")("2/min"))
    with running(service) as found:
        told = [found.call("ModelInfer", question([ROW], small)) for _ in range(3)]
    assert [each.code.name for each in told] == ["OK", "OK", "RESOURCE_EXHAUSTED"]
    assert told[-1].trailing["ketch-code"] == "rate-limited"
    assert int(told[-1].trailing["retry-after"]) * 1000 == int(told[-1].trailing["grpc-retry-pushback-ms"]) > 0


def test_whoever_finds_no_place_is_told_when_to_come_back(doors: Doors, small: Small) -> None:
    service = doors.service(queue=1)
    with running(service) as found, service.turn():
        told = found.call("ModelInfer", question([ROW], small))
    assert (told.code, told.trailing["ketch-code"]) == (grpc.StatusCode.UNAVAILABLE, "busy")
    assert (told.trailing["retry-after"], told.trailing["grpc-retry-pushback-ms"]) == ("1", "1000")


def test_a_server_about_to_go_is_live_and_not_ready(doors: Doors, small: Small) -> None:
    service = doors.service()
    with running(service) as found:
        service.draining = True
        assert found.call("ServerLive", b"").made.live
        assert not found.call("ServerReady", b"").made.ready
        assert not found.call("ModelReady", CALLED["ModelReadyRequest"](name="churn")).made.ready
        assert found.call("ModelInfer", question([ROW], small)).code == grpc.StatusCode.OK


# ---- who may ask -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_every_method_asks_for_a_key(guarded: Running, small: Small, name: str) -> None:
    asked: Any = CALLED[f"{name}Request"]()
    if name == "ModelInfer":
        asked = question([ROW], small)
    elif name.startswith("Model"):
        asked.name = "churn"
    for metadata in ([], [("x-api-key", "wrong")], [("authorization", "Basic nonsense")]):
        told = guarded.call(name, asked, metadata=metadata)
        assert (told.code, told.trailing["ketch-code"]) == (grpc.StatusCode.UNAUTHENTICATED, "unauthorized")
        assert "ketch-model" not in told.trailing
        assert guarded.call(name, b"\xff\xff", metadata=metadata).code == grpc.StatusCode.UNAUTHENTICATED
    for metadata in ([("x-api-key", KEY)], [("authorization", f"Bearer {KEY}")]):
        assert guarded.call(name, asked, metadata=metadata).code == grpc.StatusCode.OK


def test_a_key_opens_what_it_is_for(small: Small, tmp_path: Path) -> None:
    path, scopes = tmp_path / "keys", frozenset({"read"})
    key = calling.new(path, "reader", scopes=scopes, until=calling.FOR_EVER, when="2026-01-01")
    with running(Service(small.predictor, Guard(files=(path,)))) as found:
        metadata = [("x-api-key", key)]
        assert found.call("ServerMetadata", b"", metadata=metadata).code == grpc.StatusCode.OK
        told = found.call("ModelInfer", question([ROW], small), metadata=metadata)
        assert (told.code, told.trailing["ketch-code"]) == (grpc.StatusCode.PERMISSION_DENIED, "forbidden")


def test_only_names_of_this_machine_open_an_open_service(here: Running, small: Small) -> None:
    told = here.call("ModelInfer", question([ROW], small), here.channel(default_authority="evil.example"))
    assert (told.code, told.trailing["ketch-code"]) == (grpc.StatusCode.PERMISSION_DENIED, "host-not-allowed")
    sneaky = here.call(
        "ServerLive", b"", here.channel(default_authority="evil.example"), metadata=[("host", "localhost")]
    )
    assert sneaky.code == grpc.StatusCode.PERMISSION_DENIED


def test_a_call_without_its_message_ends(doors: Doors) -> None:
    with running(doors.service(guarded=True), deadline=0.5) as found, found.channel() as channel:
        method = channel.stream_unary(f"/{SERVICE}/ModelInfer")

        def silent() -> Iterator[bytes]:
            time.sleep(10)
            yield b""

        began = time.monotonic()
        for metadata, status in (([], "UNAUTHENTICATED"), ([("x-api-key", KEY)], "CANCELLED")):
            with pytest.raises(grpc.RpcError) as caught:
                method(silent(), metadata=metadata, timeout=8)
            assert caught.value.code().name == status
        assert time.monotonic() - began < 5


def test_tls_and_certificates_of_callers(doors: Doors, small: Small, tmp_path: Path) -> None:
    pair = certificate(tmp_path)
    flags = {"tls_cert": pair[0], "tls_key": pair[1], "tls_client_ca": pair[0]}
    root, key = (Path(each).read_bytes() for each in pair)
    with running(doors.service(), **flags) as found:
        for known, status in (((key, root), "OK"), ((None, None), "UNAVAILABLE")):
            credentials = grpc.ssl_channel_credentials(root, *known)
            with grpc.secure_channel(f"localhost:{found.port}", credentials) as channel:
                assert found.call("ModelInfer", question([ROW], small), channel).code.name == status
        assert found.call("ServerLive", b"").code.name == "UNAVAILABLE"


def certificate(folder: Path) -> tuple[str, str]:
    """Make a certificate of localhost that vouches for itself."""
    import datetime as dt

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "x")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key").write_bytes(key.private_bytes(*form))
    ssl.create_default_context().load_cert_chain(folder / "cert", folder / "key")
    return str(folder / "cert"), str(folder / "key")


# ---- hostile ---------------------------------------------------------------------------------------------------

WORDS = st.sampled_from(["churn", "charges", "contract", "plan", "tenure", "", "churn_probability"]) | st.text(
    max_size=8
)
KINDS = st.sampled_from([*CONTENTS, "FP16"]) | st.text(max_size=5)
SIDES = st.sampled_from([1, 2, 0, -1, 3, 2**31, 2**62, -(2**63)])
VALUES: Mapping[str, st.SearchStrategy[Any]] = {
    "bool_contents": st.booleans(),
    "int_contents": st.integers(-(2**31), 2**31 - 1),
    "int64_contents": st.integers(-(2**63), 2**63 - 1),
    "uint_contents": st.integers(0, 2**32 - 1),
    "uint64_contents": st.integers(0, 2**64 - 1),
    "fp32_contents": st.floats(width=32),
    "fp64_contents": st.floats(),
    "bytes_contents": st.sampled_from([b"monthly", b"a", b""]) | st.binary(max_size=6),
}


@st.composite
def hostile(draw: st.DrawFn) -> Any:
    """Draw a message that may be anything that the protocol can say."""
    made = CALLED["ModelInferRequest"](model_name=draw(st.just("churn") | WORDS), id=draw(WORDS))
    made.model_version = draw(st.just("") | WORDS)
    for _ in range(draw(st.integers(0, 5))):
        tensor = made.inputs.add(name=draw(WORDS), datatype=draw(KINDS), shape=draw(st.lists(SIDES, max_size=3)))
        filled = draw(st.sampled_from([CONTENTS.get(tensor.datatype, ""), *VALUES, ""]))
        if filled:
            getattr(tensor.contents, filled).extend(draw(st.lists(VALUES[filled], max_size=3)))
        if draw(st.integers(0, 9)) == 0:
            tensor.parameters[draw(WORDS)].int64_param = 1
    for _ in range(draw(st.integers(0, 1))):
        made.outputs.add(name=draw(WORDS))
    if draw(st.integers(0, 3)) == 0:
        made.raw_input_contents.extend(draw(st.lists(st.binary(max_size=16), max_size=5)))
    return made


@pytest.fixture(scope="module")
def wire(here: Running) -> Iterator[Callable[[str, bytes], Any]]:
    """Call on one connection and give the status."""
    with here.channel() as channel:

        def call(name: str, data: bytes) -> Any:
            try:
                channel.unary_unary(f"/{SERVICE}/{name}")(data, timeout=20)
            except grpc.RpcError as error:
                return error.code()
            return grpc.StatusCode.OK

        yield call


@settings(max_examples=300, deadline=None)
@given(asked=hostile())
def test_no_message_is_our_fault(wire: Callable[[str, bytes], Any], asked: Any) -> None:
    assert wire("ModelInfer", asked.SerializeToString()) in SOUND


@settings(max_examples=200, deadline=None)
@given(name=st.sampled_from([*METHODS]), data=st.binary(max_size=64))
def test_no_bytes_are_our_fault(wire: Callable[[str, bytes], Any], name: str, data: bytes) -> None:
    assert wire(name, data) in SOUND


def test_mutated_questions_are_not_our_fault(wire: Callable[[str, bytes], Any], small: Small) -> None:
    import random

    chance, good = random.Random(3), question(rows(2), small).SerializeToString()
    found = set()
    for _ in range(500):
        data = bytearray(good)
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        found.add(wire("ModelInfer", bytes(data)))
    assert found <= SOUND
    assert {grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT} <= found


# ---- the envelope ----------------------------------------------------------------------------------------------


@st.composite
def columns(draw: st.DrawFn) -> tuple[str, list[Any]]:
    datatype = draw(st.sampled_from([*CONTENTS]))
    if datatype in tensors.WHOLE:
        each: st.SearchStrategy[Any] = st.integers(*tensors.WHOLE[datatype])
    else:
        floats = st.floats(width=32) if datatype == "FP32" else st.floats()
        each = {"BOOL": st.booleans(), "BYTES": st.text(max_size=5)}.get(datatype, floats)
    return datatype, draw(st.lists(each, min_size=1, max_size=6))


@settings(max_examples=200, deadline=None)
@given(st.lists(columns(), min_size=1, max_size=4))
def test_typed_and_raw_contents_say_the_same(drawn: Sequence[tuple[str, list[Any]]]) -> None:
    made = []
    for raw in (False, True):
        asked = CALLED["ModelInferRequest"]()
        for at, (datatype, values) in enumerate(drawn):
            add(asked, str(at), datatype, [len(values)], values, raw=raw)
        made.append(unwrap_infer(asked, 2**20))
    assert made[0] == made[1]


@settings(max_examples=200, deadline=None)
@given(asked=hostile(), limit=st.integers(0, 40))
def test_unwrapping_raises_nothing_but_refusals(asked: Any, limit: int) -> None:
    try:
        body, length = unwrap_infer(asked, limit)
    except RequestError:
        return
    assert len(body) - length <= limit


def test_classes_are_told_beside_their_numbers() -> None:
    head = (
        b'{"model_name":"m","model_version":"1","outputs":['
        b'{"name":"kind","datatype":"BYTES","shape":[2,1],"parameters":{"binary_data_size":12}},'
        b'{"name":"kind_scores","datatype":"FP64","shape":[2,1],"parameters":{"classes":"[\\"a\\"]","binary_data_size":16}}]}'
    )
    body = head + tensors.to_binary("BYTES", ["é", "bb"]) + tensors.to_binary("FP64", [1.5, 2.5])
    answered = Response(200, body, headers={"Inference-Header-Content-Length": str(len(head))})
    made = wrap_infer(CALLED, CALLED["ModelInferRequest"](), answered)
    assert [*made.outputs[0].contents.bytes_contents] == ["é".encode(), b"bb"]
    assert [*made.outputs[1].contents.fp64_contents] == [1.5, 2.5]
    assert made.outputs[1].parameters["classes"].string_param == '["a"]'


# ---- where it cannot be ----------------------------------------------------------------------------------------


def test_without_the_library_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch, doors: Doors) -> None:
    given = setting.read({"grpc_port": free_port()}, environ={}, folder=HERE, without_file=True)
    monkeypatch.setitem(sys.modules, "grpc", None)
    with pytest.raises(NotInstalled, match="grpc") as caught:
        grpc_server(doors.service(), given)
    assert "ketch[grpc]" in caught.value.hint


def test_an_address_that_is_taken_is_refused(here: Running, doors: Doors) -> None:
    with pytest.raises(SettingError, match=str(here.port)) as caught:
        hold_port("127.0.0.1", here.port)
    assert "--grpc-port" in caught.value.hint
    with hold_port("127.0.0.1", 0) as held:
        port = held.getsockname()[1]
        given = setting.read({"grpc_port": port}, environ={}, folder=HERE, without_file=True)
        workers = [grpc_server(doors.service(), given) for _ in range(2)]

        async def run() -> None:
            for each in workers:  # what holds the port lets the workers in, and nobody else
                await each.start()
            with pytest.raises(SettingError):
                hold_port("127.0.0.1", port)
            for each in workers:
                await each.stop(0)

        asyncio.run(run())


# ---- whole servers, and a client that needs older libraries than ours ------------------------------------------

KSERVE = """
import asyncio, json, sys
from kserve import InferenceGRPCClient, InferInput, InferRequest

async def main(url, rows):
    client = InferenceGRPCClient(url)
    assert await client.is_server_live()
    assert await client.is_server_ready()
    assert await client.is_model_ready("churn")
    inputs = []
    for name, kind in (("charges", "FP64"), ("contract", "BYTES"), ("plan", "BYTES"), ("tenure", "INT64")):
        values = [row[name].encode() if kind == "BYTES" else row[name] for row in rows]
        inputs.append(InferInput(name, [len(rows), 1], kind, data=values))
    found = await client.infer(InferRequest("churn", inputs, request_id="k"))
    assert found.id == "k", found
    print(json.dumps({each.name: each.as_numpy().ravel().tolist() for each in found.outputs}))
    await client.close()

asyncio.run(main(sys.argv[1], json.loads(sys.argv[2])))
"""


@pytest.mark.service
@pytest.mark.timeout(600)
def test_the_client_of_kserve(here: Running, small: Small, tmp_path: Path) -> None:
    place = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "ketch-tests" / "kserve"
    python = place / "bin" / "python"
    if not python.is_file():
        uv = [sys.executable, "-m", "uv"]
        subprocess.run([*uv, "venv", "-q", "-p", sys.executable, str(place)], check=True)
        subprocess.run([*uv, "pip", "install", "-q", "-p", str(python), "kserve>=0.15"], check=True)
    table = rows(5, seed=9)
    command = [str(python), "-c", KSERVE, f"localhost:{here.port}", json.dumps(table)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    wanted = small.predictor.predict(table)
    assert json.loads(done.stdout) == {name: [row[name] for row in wanted] for name in wanted[0]}


POLICY = {
    "methodConfig": [
        {
            "name": [{"service": SERVICE}],
            "waitForReady": True,
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.05s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
            },
        }
    ]
}


@pytest.mark.service
@pytest.mark.timeout(300)
@pytest.mark.parametrize("what", [signal.SIGHUP, signal.SIGKILL])
def test_whoever_asks_again_loses_no_answer_when_workers_go(small: Small, what: signal.Signals) -> None:
    """Renewed in turn, or killed: docs/protocols.md promises this with the policy that it shows."""
    port, asked = free_port(), question([ROW], small).SerializeToString()
    command = [sys.executable, "-m", "ketch", "serve", str(small.bundle), "--workers", "2", "--port", "0"]
    environ = {**os.environ, "KETCH_HOME": str(small.home), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen([*command, "--grpc-port", str(port)], env=environ, stdout=subprocess.PIPE, text=True)
    ended, answers, errors = threading.Event(), [0] * 4, list[str]()

    def go_on(who: int) -> None:
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.service_config", json.dumps(POLICY))]
        with grpc.insecure_channel(f"localhost:{port}", options=options) as channel:
            method = channel.unary_unary(f"/{SERVICE}/ModelInfer")
            while not ended.is_set():
                try:
                    method(asked, timeout=30)
                    answers[who] += 1
                except grpc.RpcError as error:
                    errors.append(f"{error.code()}: {error.details()}")

    threads = [threading.Thread(target=go_on, args=(who,)) for who in range(len(answers))]
    try:
        assert process.stdout
        process.stdout.readline()
        for each in threads:
            each.start()
        for _ in range(4):
            workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            os.kill(process.pid if what == signal.SIGHUP else int(workers[0]), what)
            time.sleep(3)
    finally:
        ended.set()
        for each in threads:
            each.join()
        process.terminate()
        process.communicate(timeout=60)
    assert not errors
    assert min(answers) > 100
    assert process.returncode == 0
