"""AWS Lambda on this machine: its API by botocore's model of it, and functions that really run.

A function is the image's own entry with Amazon's runtime client, as a process that asks a Runtime API on loopback for
events. What comes by a function's address goes to it as Lambda would hand it over.
"""

import contextlib
import hashlib
import json
import os
import queue
import re
import subprocess
import sys
import threading
import traceback
import urllib.parse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import ketch.image
from tests.fake_aws import Cloud, No, Service
from tests.fake_beanstalk import ACCOUNT, REGION

ENTRY: Final = Path(ketch.image.__file__).parent / "entrypoint.py"
STARTS, CHANGES = 25, 12  # seconds
VERSION: Final = "/2018-06-01/runtime/"


# ---- functions that run ------------------------------------------------------------------------------


class Runtime:
    """One function that runs: events go in, answers come out."""

    def __init__(self, path: Path, environ: Mapping[str, str], folder: Path) -> None:
        self.events: queue.Queue[tuple[str, bytes]] = queue.Queue()
        self.answers: dict[str, queue.Queue[tuple[str, bytes]]] = {}
        self.server = _listening(self._asked)
        folder.mkdir(parents=True, exist_ok=True)
        self.said = folder / "said"
        own = {"PATH": os.environ["PATH"], "KETCH_HOME": str(folder / "home"), "PYTHONUNBUFFERED": "1"}
        own |= {"AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{self.server.server_port}", **environ}
        with self.said.open("w") as out:
            words = [sys.executable, str(ENTRY), "lambda", str(path)]
            self.process = subprocess.Popen(words, env=own, stdin=subprocess.DEVNULL, stdout=out, stderr=out)

    def _asked(self, method: str, path: str, headers: Any, body: bytes) -> tuple[int, dict[str, str], bytes]:
        if method == "GET":
            number, event = self.events.get()
            told = {"Lambda-Runtime-Aws-Request-Id": number, "Lambda-Runtime-Deadline-Ms": "99999999999999"}
            arn = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:model"
            told |= {"Content-Type": "application/json"}  # without it, the client of Amazon breaks down
            return 200, {**told, "Lambda-Runtime-Invoked-Function-Arn": arn}, event
        *_, number, kind = path.split("/")
        if number in self.answers:
            self.answers[number].put((kind, body))
        return 202, {}, b""

    def invoke(self, event: bytes) -> tuple[bool, bytes]:
        """Hand over an event: whether it went well, and what came back."""
        number = f"00000000-0000-0000-0000-{len(self.answers):012d}"
        self.answers[number] = queue.Queue()
        self.events.put((number, event))
        while self.process.poll() is None:
            try:
                kind, body = self.answers[number].get(timeout=0.1)
                return kind == "response", body
            except queue.Empty:
                continue
        return False, json.dumps(
            {"errorMessage": self.said.read_text()[-300:], "errorType": "Runtime.ExitError"}
        ).encode()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for _ in range(4):
            self.events.put(("", b""))
        self.server.shutdown()
        self.server.server_close()


# ---- the service -------------------------------------------------------------------------------------


@dataclass
class Function:
    """What is told to a function, its versions, aliases and addresses."""

    config: dict[str, Any]
    tags: dict[str, str]
    image: str
    ready_at: float
    changed_at: float = 0.0
    changing: bool = False
    failed: str = ""
    versions: dict[str, tuple[dict[str, Any], str]] = field(default_factory=dict)
    aliases: dict[str, dict[str, Any]] = field(default_factory=dict)
    urls: dict[str, dict[str, Any]] = field(default_factory=dict)
    policies: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    concurrency: int = 0
    count: int = 0


class Lambda(Service):
    """The operations of Lambda that a deployment needs."""

    name = "lambda"

    def __init__(self, cloud: Cloud, folder: Path) -> None:
        super().__init__(cloud)
        self.folder = folder
        self.functions: dict[str, Function] = {}
        self.running: dict[str, Runtime] = {}

    def tick(self) -> None:
        now = self.cloud.clock.now()
        for each in self.functions.values():
            if each.config["State"] == "Pending" and now >= each.ready_at:
                missing = self.cloud.bundle(each.image) is None
                each.config["State"] = "Failed" if missing else "Active"
                each.config |= (
                    {"StateReason": "The image does not exist.", "StateReasonCode": "InvalidImage"} if missing else {}
                )
            if each.changing and now >= each.changed_at:
                each.changing = False
                each.config["LastUpdateStatus"] = "Successful"

    def _one(self, name: str) -> Function:
        if name not in self.functions:
            raise No(
                "ResourceNotFoundException", f"Function not found: arn:aws:lambda:{REGION}:{ACCOUNT}:function:{name}"
            )
        return self.functions[name]

    def _free(self, name: str) -> Function:
        found = self._one(name)
        if found.changing or found.config["State"] == "Pending":
            raise No(
                "ResourceConflictException",
                f"The operation cannot be performed at this time. An update is in progress for resource: {name}",
            )
        return found

    def create_function(self, params: dict[str, Any]) -> Any:
        name = params["FunctionName"]
        if name in self.functions:
            raise No("ResourceConflictException", f"Function already exist: {name}")
        try:
            self.cloud.require_role(params["Role"], "lambda.amazonaws.com", "AWSLambdaBasicExecutionRole")
        except No:
            message = "The role defined for the function cannot be assumed by Lambda."
            raise No("InvalidParameterValueException", message) from None
        image = params["Code"]["ImageUri"]
        if self.cloud.bundle(image) is None:
            raise No(
                "InvalidParameterValueException", f"Source image {image} does not exist. Provide a valid source image."
            )
        kept = {
            key: params[key]
            for key in ("FunctionName", "Role", "MemorySize", "Timeout", "PackageType", "Architectures")
        }
        variables = params.get("Environment", {}).get("Variables", {})
        config = {**kept, "Environment": {"Variables": variables}, "State": "Pending", "Description": ""}
        made = Function(config, params.get("Tags", {}), image, self.cloud.clock.now() + STARTS)
        self.functions[name] = made
        return self._told(made)

    def _told(self, function: Function, version: str = "$LATEST") -> dict[str, Any]:
        config = function.config if version == "$LATEST" else function.versions[version][0]
        arn = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{config['FunctionName']}"
        return {**config, "Version": version, "FunctionArn": arn}

    def get_function(self, params: dict[str, Any]) -> Any:
        found = self._one(params["FunctionName"])
        code = {"RepositoryType": "ECR", "ImageUri": found.image}
        return {"Configuration": self._told(found), "Code": code, "Tags": found.tags}

    def get_function_configuration(self, params: dict[str, Any]) -> Any:
        return self._told(self._one(params["FunctionName"]))

    def _changed(self, function: Function) -> dict[str, Any]:
        function.changing, function.changed_at = True, self.cloud.clock.now() + CHANGES
        function.config["LastUpdateStatus"] = "InProgress"
        return self._told(function)

    def update_function_configuration(self, params: dict[str, Any]) -> Any:
        found = self._free(params["FunctionName"])
        found.config |= {key: value for key, value in params.items() if key != "FunctionName"}
        return self._changed(found)

    def update_function_code(self, params: dict[str, Any]) -> Any:
        found = self._free(params["FunctionName"])
        if self.cloud.bundle(params["ImageUri"]) is None:
            raise No("InvalidParameterValueException", f"Source image {params['ImageUri']} does not exist.")
        found.image = params["ImageUri"]
        found.config["Architectures"] = params["Architectures"]
        return self._changed(found)

    def publish_version(self, params: dict[str, Any]) -> Any:
        found = self._free(params["FunctionName"])
        found.count += 1
        number = str(found.count)
        config = {**found.config, "Description": params.get("Description", "")}
        found.versions[number] = config, found.image
        return self._told(found, number)

    def list_versions_by_function(self, params: dict[str, Any]) -> Any:
        found = self._one(params["FunctionName"])
        return {"Versions": [self._told(found), *(self._told(found, each) for each in found.versions)]}

    # ---- aliases and addresses --------------------------------------------------------------------------

    def _aliased(self, params: Mapping[str, Any], name: str = "Name") -> dict[str, Any]:
        aliases = self._one(params["FunctionName"]).aliases
        if params[name] not in aliases:
            raise No("ResourceNotFoundException", f"Alias not found: {params[name]}")
        return aliases[params[name]]

    def _require_versions(self, params: Mapping[str, Any]) -> None:
        weights = params.get("RoutingConfig", {}).get("AdditionalVersionWeights", {})
        for each in (params["FunctionVersion"], *weights):
            if each not in self._one(params["FunctionName"]).versions:
                raise No("ResourceNotFoundException", f"Function not found: version {each}")
        if params["FunctionVersion"] in weights or any(not 0 <= each <= 1 for each in weights.values()):
            raise No("InvalidParameterValueException", "The weights cannot be so.")

    def create_alias(self, params: dict[str, Any]) -> Any:
        aliases = self._one(params["FunctionName"]).aliases
        if params["Name"] in aliases:
            raise No("ResourceConflictException", f"Alias already exists: {params['Name']}")
        self._require_versions(params)
        aliases[params["Name"]] = {key: value for key, value in params.items() if key != "FunctionName"}
        return aliases[params["Name"]]

    def get_alias(self, params: dict[str, Any]) -> Any:
        return self._aliased(params)

    def update_alias(self, params: dict[str, Any]) -> Any:
        alias = self._aliased(params)
        self._require_versions(params)
        alias |= {key: value for key, value in params.items() if key != "FunctionName"}
        return alias

    def create_function_url_config(self, params: dict[str, Any]) -> Any:
        found = self._one(params["FunctionName"])
        self._aliased(params, "Qualifier")
        if params["Qualifier"] in found.urls:
            raise No("ResourceConflictException", "FunctionUrlConfig exists for this Lambda function")
        server = _listening(lambda *asked: self._reached(params["FunctionName"], params["Qualifier"], *asked))
        self.cloud.stack.callback(server.server_close)
        self.cloud.stack.callback(server.shutdown)
        told = {"AuthType": params["AuthType"], "FunctionUrl": f"http://127.0.0.1:{server.server_port}/"}
        arn = self._told(found)["FunctionArn"]
        told |= {"FunctionArn": arn, "CreationTime": "2026-11-22T00:00:00Z"}
        found.urls[params["Qualifier"]] = told
        return told

    def get_function_url_config(self, params: dict[str, Any]) -> Any:
        urls = self._one(params["FunctionName"]).urls
        if params["Qualifier"] not in urls:
            raise No("ResourceNotFoundException", "The resource you requested does not exist.")
        return {**urls[params["Qualifier"]], "LastModifiedTime": "2026-11-22T00:00:00Z"}

    def update_function_url_config(self, params: dict[str, Any]) -> Any:
        self.get_function_url_config(params)
        self._one(params["FunctionName"]).urls[params["Qualifier"]]["AuthType"] = params["AuthType"]
        return self.get_function_url_config(params)

    def add_permission(self, params: dict[str, Any]) -> Any:
        policy = self._one(params["FunctionName"]).policies.setdefault(params["Qualifier"], [])
        if any(each["Sid"] == params["StatementId"] for each in policy):
            raise No(
                "ResourceConflictException", f"The statement id ({params['StatementId']}) provided already exists."
            )
        policy.append({"Sid": params["StatementId"], "Action": params["Action"], "_": params})
        return {"Statement": json.dumps(policy[-1])}

    def get_policy(self, params: dict[str, Any]) -> Any:
        found = self._one(params["FunctionName"]).policies.get(params["Qualifier"])
        if not found:
            raise No("ResourceNotFoundException", "The resource you requested does not exist.")
        return {"Policy": json.dumps({"Version": "2012-10-17", "Statement": found})}

    def put_function_concurrency(self, params: dict[str, Any]) -> Any:
        self._one(params["FunctionName"]).concurrency = params["ReservedConcurrentExecutions"]
        return {"ReservedConcurrentExecutions": params["ReservedConcurrentExecutions"]}

    def get_function_concurrency(self, params: dict[str, Any]) -> Any:
        most = self._one(params["FunctionName"]).concurrency
        return {"ReservedConcurrentExecutions": most} if most else {}

    def get_account_settings(self, params: dict[str, Any]) -> Any:
        return {"AccountLimit": {"ConcurrentExecutions": 1000, "UnreservedConcurrentExecutions": 1000}}

    def delete_function(self, params: dict[str, Any]) -> Any:
        self._one(params["FunctionName"])
        del self.functions[params["FunctionName"]]

    # ---- callers ----------------------------------------------------------------------------------------

    def run(self, function: Function, version: str, event: bytes) -> tuple[bool, bytes]:
        config, image = function.versions[version]
        path = self.cloud.bundle(image)
        assert path is not None
        variables = config["Environment"]["Variables"]
        known = hashlib.sha256(repr((path.read_bytes(), sorted(variables.items()))).encode()).hexdigest()[:16]
        if known not in self.running or self.running[known].process.poll() is not None:
            self.running[known] = Runtime(path, variables, self.folder / known)
        return self.running[known].invoke(event)

    def version_of(self, function: Function, qualifier: str) -> str:
        return str(function.aliases[qualifier]["FunctionVersion"]) if qualifier in function.aliases else qualifier

    def invoke(self, params: dict[str, Any]) -> Any:
        found = self._one(params["FunctionName"])
        version = self.version_of(found, params["Qualifier"])
        if version not in found.versions:
            raise No("ResourceNotFoundException", f"Function not found: {params['Qualifier']}")
        well, body = self.run(found, version, params["Payload"])
        told = {"StatusCode": 200, "Payload": body, "ExecutedVersion": version}
        return told | ({} if well else {"FunctionError": "Unhandled"})

    def _reached(
        self, name: str, qualifier: str, method: str, path: str, headers: Any, body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        found = self.functions[name]
        allowed = {each["Action"]: each["_"] for each in found.policies.get(qualifier, ())}
        url = allowed.get("lambda:InvokeFunctionUrl", {}).get("FunctionUrlAuthType") == "NONE"
        call = allowed.get("lambda:InvokeFunction", {}).get("InvokedViaFunctionUrl") is True
        if found.urls[qualifier]["AuthType"] != "NONE" or not (url and call):
            return 403, {}, b'{"Message":"Forbidden"}'
        parts = urllib.parse.urlsplit(path)
        event = {
            "version": "2.0",
            "rawPath": parts.path,
            "rawQueryString": parts.query,
            "headers": {key.lower(): value for key, value in headers.items()},
            "requestContext": {"http": {"method": method, "path": parts.path}, "stage": "$default"},
            "body": body.decode(),
            "isBase64Encoded": False,
        }
        well, told = self.run(found, self.version_of(found, qualifier), json.dumps(event).encode())
        if not well:
            return 502, {}, b"Internal Server Error"
        answer = json.loads(told)
        return answer["statusCode"], answer["headers"], answer["body"].encode()


# ---- by HTTP -----------------------------------------------------------------------------------------


def _listening(answer: Any) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 1 << 16

        def handle(self) -> None:
            with contextlib.suppress(ConnectionResetError):  # of a client that was interrupted
                super().handle()

        def _any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, headers, data = answer(self.command, self.path, self.headers, body)
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = do_DELETE = _any

        def log_message(self, *words: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    return server


class Api:
    """A service that speaks JSON over HTTP as its model describes, by which requests are read and answers written."""

    def __init__(self, service: Any) -> None:
        self.service = service
        self.routes = []
        for name in service.model.operation_names:
            model = service.model.operation_model(name)
            path = model.http["requestUri"].partition("?")[0]
            pattern = re.sub(r"\{(\w+)\+?\}", r"(?P<\1>[^/]+)", path)
            if hasattr(service, _snake(name)):
                self.routes.append((model.http["method"], re.compile(pattern + "/?"), model))

    def answer(self, method: str, target: str, headers: Any, body: bytes) -> tuple[int, dict[str, str], bytes]:
        parts = urllib.parse.urlsplit(target)
        for verb, pattern, model in self.routes:
            found = pattern.fullmatch(parts.path)
            if verb == method and found:
                query = dict(urllib.parse.parse_qsl(parts.query))
                return self._answered(model, self._params(model, found.groupdict(), query, headers, body))
        self.service.cloud.broken.append(f"{method} {parts.path} is no operation that is here")
        return 500, {}, b"{}"

    def _params(self, model: Any, path: Any, query: Any, headers: Any, body: bytes) -> dict[str, Any]:
        found: dict[str, Any] = {}
        shape = model.input_shape
        payload = shape.serialization.get("payload")
        told = {} if payload or not body else json.loads(body)
        for name, member in shape.members.items():
            where, key = member.serialization.get("location"), member.serialization.get("name", name)
            source = {"uri": path, "querystring": query, "header": headers}.get(where, told)
            if name == payload:
                found[name] = body
            elif key in source:
                value = source[key]
                found[name] = urllib.parse.unquote(value) if where == "uri" else value
        return found

    def _answered(self, model: Any, params: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        try:
            found = self.service.answer(model.name, params) or {}
        except No as error:
            known = {each.name: each.metadata["error"]["httpStatusCode"] for each in model.error_shapes}
            status = known[error.code]  # what the model does not have is no refusal
            return (
                status,
                {"x-amzn-ErrorType": error.code},
                json.dumps({"message": error.message, "Message": error.message}).encode(),
            )
        except BaseException:
            self.service.cloud.broken.append(traceback.format_exc())
            return 500, {}, b"{}"
        shape = model.output_shape
        payload = shape.serialization.get("payload") if shape else None
        headers = {}
        for name, member in (shape.members if shape else {}).items():
            if member.serialization.get("location") == "header" and name in found:
                headers[member.serialization["name"]] = str(found.pop(name))
        found.pop("StatusCode", None)
        return model.http.get("responseCode", 200), headers, found[payload] if payload else json.dumps(found).encode()


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


@contextmanager
def functions(cloud: Cloud, folder: Path) -> Iterator[Lambda]:
    """Complete an account with Lambda; its address goes into the environment of clients."""
    service = Lambda(cloud, folder)
    server = _listening(Api(service).answer)
    os.environ["AWS_ENDPOINT_URL_LAMBDA"] = f"http://127.0.0.1:{server.server_port}"
    try:
        yield service
    finally:
        del os.environ["AWS_ENDPOINT_URL_LAMBDA"]
        for each in service.running.values():
            each.close()
        server.shutdown()
        server.server_close()
