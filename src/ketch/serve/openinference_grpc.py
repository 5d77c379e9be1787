"""The Open Inference Protocol, version 2, over gRPC: an envelope around its routes over HTTP.

message --*unwrap*--> Request --service--> Response --*wrap*--> message, or a status with its detail

Whoever may ask, limits, turns, counts and refusals are those of the routes. gRPC holds threads that no fork survives,
so it is imported and started by each worker.
"""

import asyncio
import functools
import importlib.resources
import importlib.util
import logging
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import msgspec

from ketch import extras
from ketch.codec import tensors
from ketch.errors import KetchError, SettingError, UndecodableBody
from ketch.serve import Request, Response
from ketch.serve.openinference import BINARY, HEADER
from ketch.serve.routes import Service, busy, too_large
from ketch.settings import Settings

SERVICE: Final = "inference.GRPCInferenceService"
DESCRIPTION: Final = "open_inference.bin"  # made of open_inference.proto, which says how
THREADS: Final = 10  # that answer; others wait for a message or for their turn
MOST_WAITING: Final = 256  # whatever the queue may hold: each is a thread
MOST_TENSORS: Final = 10_000  # of two bytes each, four million would fit into a message
LONGEST_DETAIL: Final = 1000  # characters; clients refuse statuses of more than 8 KiB, and each may take nine bytes
SPARE: Final = 2**16  # bytes of a message beyond its tensors
STATUSES: Final[Mapping[int, str]] = {
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    405: "UNIMPLEMENTED",
    413: "RESOURCE_EXHAUSTED",  # as gRPC itself says of a message that is too large
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
CONTENTS: Final[Mapping[str, str]] = {  # datatype -> where its elements stand
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    tensors.BYTES: "bytes_contents",
}
OWN: Final = frozenset({"host", "content-type", "content-encoding", "accept", HEADER.lower()})  # what the envelope says

Messages = Mapping[str, Any]  # name -> class
Answer = tuple[str, bytes, list[tuple[str, str]]]  # a status and its detail, or none and a message; metadata beside it
GONE: Final[Answer] = ("CANCELLED", b"Nobody waits for the answer any more", [])

logger = logging.getLogger(__name__)


@functools.cache
def messages() -> Messages:
    """Give the classes of the protocol's messages.

    They stand in a pool of their own: a client of the same protocol in the same process has its own of the same names.
    """
    parts = ("descriptor_pb2", "descriptor_pool", "message_factory")
    descriptor_pb2, descriptor_pool, message_factory = (extras.load(f"google.protobuf.{each}") for each in parts)
    files = descriptor_pb2.FileDescriptorSet.FromString(
        importlib.resources.files("ketch.serve").joinpath(DESCRIPTION).read_bytes()
    )
    pool = descriptor_pool.DescriptorPool()
    for each in files.file:
        pool.AddSerializedFile(each.SerializeToString())
    names = [each.name for each in files.file[0].message_type]
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"inference.{name}")) for name in names}


# ---- a question out of its envelope ------------------------------------------------------------------


def unwrap_infer(asked: Any, limit: int) -> tuple[bytes, int]:
    """Write a question as the route over HTTP reads it: JSON, and the tensors after it; say how long the JSON is.

    Raises:
        UndecodableBody, BodyTooLarge: it cannot be one.
    """
    raw = asked.raw_input_contents
    if max(len(asked.inputs), len(asked.outputs)) > MOST_TENSORS:
        raise UndecodableBody(f"There are more than {MOST_TENSORS} tensors", hint=tensors.TYPES_HINT)
    if raw and len(raw) != len(asked.inputs):
        raise UndecodableBody(
            f"There are {len(raw)} raw contents for {len(asked.inputs)} inputs", hint="Send one for each input."
        )
    inputs, parts, room = [], [], limit
    for at, each in enumerate(asked.inputs):
        part = _raw(each, raw[at]) if raw else _packed(each, room)
        room -= len(part)
        if room < 0:
            raise too_large(limit)
        parts.append(part)
        inputs.append(_input(each, len(part)))
    head: dict[str, object] = {"inputs": inputs, "parameters": {"binary_data_output": True}}
    if asked.outputs:
        head["outputs"] = [{"name": each.name} for each in asked.outputs]
    written = msgspec.json.encode(head)
    return b"".join([written, *parts]), len(written)


def _input(each: Any, size: int) -> dict[str, object]:
    shape = list(each.shape[:3])  # three are one too many, and say so
    parameters = {"binary_data_size": size}
    return {"name": each.name, "datatype": each.datatype, "shape": shape, "parameters": parameters}


def _raw(each: Any, data: bytes) -> bytes:
    if each.HasField("contents"):
        raise UndecodableBody(
            f"The tensor {each.name[:80]!r} has contents beside the raw ones", hint="Send all tensors in one way."
        )
    return data


def _packed(each: Any, room: int) -> bytes:
    """Write typed contents as the bytes they are in the binary form."""
    known = CONTENTS.get(each.datatype)
    if known is None:
        if each.datatype == "FP16":
            raise UndecodableBody(
                f"The tensor {each.name[:80]!r} is FP16", hint="Send it in raw_input_contents, or as FP32."
            )
        return b""  # the route says what is wrong with its datatype
    elements = getattr(each.contents, known)
    size = tensors.size_of(each.name, each.datatype, each.shape, tensors.LONGEST)
    if len(elements) != size:
        raise UndecodableBody(
            f"The tensor {each.name[:80]!r} has {len(elements)} {known}, not {size} as its shape says",
            hint=tensors.TYPES_HINT,
        )
    if each.datatype == tensors.BYTES:
        return tensors.to_binary(tensors.BYTES, [tensors.text_of(each.name, element) for element in elements])
    if size * struct.calcsize(tensors.CODES[each.datatype]) > room:
        raise too_large(room)
    try:
        return tensors.to_binary(each.datatype, elements)
    except struct.error:
        raise UndecodableBody(
            f"The tensor {each.name[:80]!r} has an element that is not {each.datatype}", hint=tensors.TYPES_HINT
        ) from None


# ---- an answer into its envelope ---------------------------------------------------------------------


def wrap_infer(known: Messages, asked: Any, response: Response) -> Any:
    """Write an answer in the way the question was written: raw where it was raw, else typed."""
    end = int(response.headers.get(HEADER, len(response.body)))
    head, rest = msgspec.json.decode(response.body[:end]), memoryview(response.body)[end:]
    made = known["ModelInferResponse"](model_name=head["model_name"], model_version=head["model_version"], id=asked.id)
    for each in head["outputs"]:
        output = made.outputs.add(name=each["name"], datatype=each["datatype"], shape=each["shape"])
        parameters = each["parameters"]
        size = parameters.pop("binary_data_size")
        data, rest = rest[:size], rest[size:]
        for name, value in parameters.items():
            output.parameters[name].string_param = value
        if asked.raw_input_contents:
            made.raw_output_contents.append(bytes(data))
            continue
        count = each["shape"][0] * each["shape"][1]
        elements = tensors.from_binary(each["name"], each["datatype"], count, data)
        typed = getattr(output.contents, CONTENTS[each["datatype"]])
        typed.extend([each.encode() for each in elements] if output.datatype == tensors.BYTES else elements)
    return made


def _wrap_model(known: Messages, asked: Any, response: Response) -> Any:
    found = msgspec.json.decode(response.body)
    made = known["ModelMetadataResponse"](name=found["name"], versions=found["versions"], platform=found["platform"])
    for side in ("inputs", "outputs"):
        for each in found[side]:
            getattr(made, side).add(name=each["name"], datatype=each["datatype"], shape=each["shape"])
    return made


def _wrap_server(known: Messages, asked: Any, response: Response) -> Any:
    found = msgspec.json.decode(response.body)
    return known["ServerMetadataResponse"](name=found["name"], version=found["version"])


def _model_path(asked: Any) -> str:
    version = f"/versions/{_segment(asked.version)}" if asked.version else ""
    return f"/v2/models/{_segment(asked.name)}{version}"


def _infer_path(asked: Any) -> str:
    version = f"/versions/{_segment(asked.model_version)}" if asked.model_version else ""
    return f"/v2/models/{_segment(asked.model_name)}{version}/infer"


def _segment(name: str) -> str:
    return name.replace("/", "%2F")


@dataclass(frozen=True, slots=True)
class Method:
    """One method: the route it goes to, and how the route's answer is wrapped."""

    verb: str
    path: Callable[[Any], str]
    wrap: Callable[[Messages, Any, Response], Any]
    scope: str = "read"
    not_ready: str = ""  # the answer that says no where the route refuses with 503


METHODS: Final[Mapping[str, Method]] = {
    "ServerLive": Method("GET", lambda _: "/v2/health/live", lambda known, *_: known["ServerLiveResponse"](live=True)),
    "ServerReady": Method(
        "GET",
        lambda _: "/v2/health/ready",
        lambda known, *_: known["ServerReadyResponse"](ready=True),
        not_ready="ServerReadyResponse",
    ),
    "ModelReady": Method(
        "GET",
        lambda asked: f"{_model_path(asked)}/ready",
        lambda known, *_: known["ModelReadyResponse"](ready=True),
        not_ready="ModelReadyResponse",
    ),
    "ServerMetadata": Method("GET", lambda _: "/v2", _wrap_server),
    "ModelMetadata": Method("GET", _model_path, _wrap_model),
    "ModelInfer": Method("POST", _infer_path, wrap_infer, scope="predict"),
}


# ---- the server --------------------------------------------------------------------------------------


class GrpcServer:
    """The gRPC server of one process.

    Each call has a thread from its headers on, since gRPC waits for a message in one: so strangers are sent away before
    it is read, and whoever does not send it in time after.
    """

    def __init__(self, service: Service, settings: Settings) -> None:
        self.service, self.settings = service, settings
        self._grpc: Any = extras.load("grpc")
        self._messages = messages()
        crowd = min(service.queue, MOST_WAITING)
        self._places = threading.Semaphore(crowd)
        self._turns = threading.Semaphore(THREADS)
        self._arriving: dict[int, tuple[float, Any]] = {}
        pool = ThreadPoolExecutor(crowd + THREADS, "ketch-grpc")
        self._server = self._grpc.server(pool, options=_options(settings), maximum_concurrent_rpcs=crowd + THREADS)
        methods = {name: self._grpc.stream_unary_rpc_method_handler(self._method(name)) for name in METHODS}
        self._server.add_generic_rpc_handlers((self._grpc.method_handlers_generic_handler(SERVICE, methods),))

    def _bind(self) -> None:
        host, port = self.settings.host, self.settings.grpc_port
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            if self.settings.tls_cert:
                self._server.add_secure_port(address, self._credentials())
            else:
                self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise cannot_listen(host, port, str(error)) from None

    def _credentials(self) -> Any:
        settings = self.settings
        authorities = Path(settings.tls_client_ca).read_bytes() if settings.tls_client_ca else None
        pair = (Path(settings.tls_key).read_bytes(), Path(settings.tls_cert).read_bytes())
        return self._grpc.ssl_server_credentials([pair], authorities, require_client_auth=authorities is not None)

    async def start(self) -> None:
        """Begin to listen, and to answer.

        Raises:
            SettingError: the address is taken or not ours.
        """
        self._bind()
        self._server.start()
        self._watch = asyncio.create_task(self._look_on())

    async def stop(self, grace: float) -> None:
        """Take nothing new, and wait so many seconds for what is being answered."""
        ended = self._server.stop(grace)
        await asyncio.to_thread(ended.wait)
        self._watch.cancel()

    async def _look_on(self) -> None:
        """Send those away whose message does not come."""
        while True:
            await asyncio.sleep(0.5)
            for until, context in [*self._arriving.values()]:
                if time.perf_counter() > until:
                    context.cancel()

    # ---- one call ------------------------------------------------------------------------------------

    def _method(self, name: str) -> Callable[[Iterator[bytes], Any], bytes]:
        def answer(parts: Iterator[bytes], context: Any) -> bytes:
            try:
                status, made, trailing = self._answer(name, parts, context)
            except Exception as error:
                logger.error("a bug in Ketch", exc_info=error)
                status, made, trailing = "INTERNAL", b"Ketch failed; this is a bug in it", []
            context.set_trailing_metadata(trailing)
            if status:
                context.abort(getattr(self._grpc.StatusCode, status), made.decode())
            return made

        return answer

    def _answer(self, name: str, parts: Iterator[bytes], context: Any) -> Answer:
        """Answer one call: give a status and its detail, or no status and a message; and what is told beside it."""
        method, began, headers = METHODS[name], time.perf_counter(), _headers(context)
        try:
            self.service.guard.check(headers, scope=method.scope)
        except KetchError as error:
            return self._refused(name, headers, began, error)
        data = self._message(parts, context)
        if data is None:
            return "CANCELLED", b"The message did not come", []
        if not self._places.acquire(blocking=False):
            return self._refused(name, headers, began, busy())
        try:
            if not self._turns.acquire(timeout=self.settings.deadline):
                return self._refused(name, headers, began, busy())
            try:
                return self._answer_message(name, data, headers, began) if context.is_active() else GONE
            finally:
                self._turns.release()
        finally:
            self._places.release()

    def _message(self, parts: Iterator[bytes], context: Any) -> bytes | None:
        """Wait for the message; give none where it does not come."""
        key = id(context)
        self._arriving[key] = time.perf_counter() + self.settings.deadline, context
        try:
            return next(parts, None)
        except self._grpc.RpcError:
            return None
        finally:
            del self._arriving[key]

    def _answer_message(self, name: str, data: bytes, headers: dict[str, str], began: float) -> Answer:
        method, service = METHODS[name], self.service
        asked = self._messages[f"{name}Request"]()
        if not _parsed(asked, data):
            unread = UndecodableBody(f"The message is no {name}Request", hint="Send one of the protocol, version 2.")
            return self._refused(name, headers, began, unread)
        body, refused = b"", None
        try:
            if name == "ModelInfer":
                body, length = unwrap_infer(asked, service.max_body)
                headers |= {"content-type": BINARY, HEADER.lower(): str(length)}
        except KetchError as error:
            refused = error
        request = Request(method.verb, method.path(asked), headers, body, f"grpc://{headers['host']}")
        response = service.handle(request, unread=refused, began=began)
        if response.status < 400:
            return "", method.wrap(self._messages, asked, response).SerializeToString(), _trailing(response)
        if response.status == 503 and method.not_ready:
            return "", self._messages[method.not_ready](ready=False).SerializeToString(), _trailing(response)
        return self._refusal(response)

    def _refused(self, name: str, headers: Mapping[str, str], began: float, error: KetchError) -> Answer:
        """Refuse a call whose message says nothing: as a question to the default model."""
        method, default = METHODS[name], self.service.lineup.default
        asked = SimpleNamespace(name=default, model_name=default, version="", model_version="")
        request = Request(method.verb, method.path(asked), headers, base_url=f"grpc://{headers['host']}")
        return self._refusal(self.service.handle(request, unread=error, began=began))

    def _refusal(self, response: Response) -> Answer:
        """Turn a problem into a status and its detail."""
        problem, trailing = msgspec.json.decode(response.body), _trailing(response)
        trailing.append(("ketch-code", problem["code"]))
        if again := response.headers.get("Retry-After"):  # the second is what retry policies of clients heed
            trailing += [("retry-after", again), ("grpc-retry-pushback-ms", f"{again}000")]
        detail = f"{problem['detail']}. {problem['hint']}"[:LONGEST_DETAIL]
        return STATUSES.get(response.status, "INVALID_ARGUMENT"), detail.encode(), trailing


def _parsed(asked: Any, data: bytes) -> bool:
    try:
        asked.ParseFromString(data)
    except extras.load("google.protobuf.message").DecodeError:
        return False
    return True


def _headers(context: Any) -> dict[str, str]:
    """Give the metadata as a door over HTTP gives headers."""
    found: dict[str, str] = {}
    for name, value in context.invocation_metadata():
        if isinstance(value, str) and name not in OWN:
            found[name] = f"{found[name]},{value}" if name in found else value
    event = getattr(context, "_rpc_event", None)  # there is no public way to it; without, only known hosts' guards open
    host = getattr(getattr(event, "call_details", None), "host", b"")
    return found | {"host": host.decode("latin-1") if isinstance(host, bytes) else str(host)}


def _trailing(response: Response) -> list[tuple[str, str]]:
    wanted = ("Ketch-Model", "Ketch-Flags", "X-Request-ID")
    return [(name.lower(), response.headers[name]) for name in wanted if name in response.headers]


def _options(settings: Settings) -> list[tuple[str, int]]:
    return [
        ("grpc.so_reuseport", int(sys.platform == "linux")),
        ("grpc.max_receive_message_length", settings.max_body + SPARE),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_allowed_incoming_connections", settings.connections),
        ("grpc.server_handshake_timeout_ms", 10_000),
        ("grpc.max_connection_idle_ms", 300_000),
        ("grpc.keepalive_time_ms", 60_000),  # ends connections to nobody
        ("grpc.keepalive_timeout_ms", 20_000),
    ]


def cannot_listen(host: str, port: int, reason: str) -> SettingError:
    """Make the refusal of an address."""
    return SettingError(
        f"{host}:{port} cannot be listened on: {reason}", hint="Choose another with --grpc-port or --host."
    )


def grpc_server(service: Service, settings: Settings) -> GrpcServer:
    """Make the gRPC server of one process; it must not fork afterwards.

    Raises:
        NotInstalled: gRPC is not there.
    """
    return GrpcServer(service, settings)


def hold_port(host: str, port: int) -> socket.socket:
    """Keep others from an address that workers will each listen on; nothing listens yet.

    Raises:
        NotInstalled: gRPC is not there.
        SettingError: the address is taken or not ours.
    """
    if importlib.util.find_spec("grpc") is None:  # what is imported here would not survive the fork
        extras.load("grpc")
    held = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(sys.platform != "win32"))
    try:
        held.bind((host, port))
        if sys.platform == "linux":
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # not before: it would share with anybody
    except OSError as error:
        held.close()
        raise cannot_listen(host, port, error.strerror or str(error)) from None
    return held
