"""AWS SageMaker on this machine: its API by botocore's model of it, and endpoints behind which the image's entry runs.

SageMaker starts every image with the one word `serve`, asks /ping on port 8080, and hands over what comes to
`invoke_endpoint` at /invocations.
"""

import contextlib
import datetime as dt
import hashlib
import json
import os
import socket
import subprocess
import sys
import time
import traceback
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.fake_aws import Cloud, No, Service
from tests.fake_beanstalk import ACCOUNT, REGION
from tests.fake_lambda import ENTRY, Api, _listening

CREATES, UPDATES, DELETES = 240, 400, 30  # seconds


class Container:
    """An image that runs as SageMaker runs it."""

    def __init__(self, path: Path, environ: Mapping[str, str], folder: Path) -> None:
        assert environ["KETCH_PORT"] == "8080"
        with socket.socket() as opened:
            opened.bind(("127.0.0.1", 0))
            port = opened.getsockname()[1]
        folder.mkdir(parents=True, exist_ok=True)
        own = {"PATH": os.environ["PATH"], "KETCH_HOME": str(folder), "KETCH_DRAIN": "0", "KETCH_WORKERS": "1"}
        own |= {**environ, "KETCH_PORT": str(port), "KETCH_SERVES": str(path), "KETCH_HOST": "127.0.0.1"}
        self.url = f"http://127.0.0.1:{port}"
        self.said = folder / "said"
        with self.said.open("w") as out:
            words = [sys.executable, str(ENTRY), "serve"]
            self.process = subprocess.Popen(words, env=own, stdin=subprocess.DEVNULL, stdout=out, stderr=out)

    def healthy(self) -> bool:
        for _ in range(200):
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.url}/ping", timeout=5) as answer:
                return bool(answer.status == 200)
            if self.process.poll() is not None:
                return False
            time.sleep(0.05)
        return False

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(30)


@dataclass
class Endpoint:
    """An endpoint, and what it is being changed to."""

    config: str
    status: str
    tags: list[dict[str, str]]
    due: float
    pending: str = ""
    reason: str = ""
    container: Container | None = None


class SageMaker(Service):
    """The operations of SageMaker that a deployment needs."""

    name = "sagemaker"

    def __init__(self, cloud: Cloud, folder: Path) -> None:
        super().__init__(cloud)
        self.folder = folder
        self.models: dict[str, dict[str, Any]] = {}
        self.configs: dict[str, dict[str, Any]] = {}
        self.endpoints: dict[str, Endpoint] = {}
        self.running: dict[str, Container] = {}
        self.count = 0

    def tick(self) -> None:
        now = self.cloud.clock.now()
        for name, each in list(self.endpoints.items()):
            if now < each.due or each.status not in {"Creating", "Updating", "Deleting"}:
                continue
            if each.status == "Deleting":
                del self.endpoints[name]
                continue
            found = self._started(each.pending or each.config)
            if found is not None:
                each.config, each.container = each.pending or each.config, found
                each.status, each.pending, each.reason = "InService", "", ""
            else:
                each.reason = "The primary container for production variant main did not pass the ping health check."
                each.status, each.pending = ("InService", "") if each.pending else ("Failed", "")

    def _started(self, config: str) -> Container | None:
        model = self.models[self.configs[config]["ProductionVariants"][0]["ModelName"]]
        container = model["PrimaryContainer"]
        path = self.cloud.bundle(container["Image"])
        if path is None:
            return None
        known = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        if known not in self.running or self.running[known].process.poll() is not None:
            self.running[known] = Container(path, container["Environment"], self.folder / known)
        return self.running[known] if self.running[known].healthy() else None

    def _arn(self, kind: str, name: str) -> str:
        return f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:{kind}/{name}"

    def create_model(self, params: dict[str, Any]) -> Any:
        name = params["ModelName"]
        if name in self.models:
            raise No("ValidationException", f"Cannot create already existing model {self._arn('model', name)}")
        try:
            self._require_role(params["ExecutionRoleArn"])
        except No:
            raise No("ValidationException", f"Could not assume role {params['ExecutionRoleArn']}.") from None
        self.models[name] = params
        return {"ModelArn": self._arn("model", name)}

    def _require_role(self, arn: str) -> None:
        role = self.cloud.require_role(arn, "sagemaker.amazonaws.com", "")
        told = json.dumps([json.loads(each) for each in role.policies.values()])
        for needed in (
            "ecr:GetAuthorizationToken",
            "ecr:BatchGetImage",
            "ecr:GetDownloadUrlForLayer",
            "logs:PutLogEvents",
        ):
            assert needed in told

    def describe_model(self, params: dict[str, Any]) -> Any:
        name = params["ModelName"]
        if name not in self.models:
            raise No("ValidationException", f'Could not find model "{self._arn("model", name)}".')
        return {"ModelName": name, "ModelArn": self._arn("model", name), "CreationTime": self.cloud.clock.date()}

    def delete_model(self, params: dict[str, Any]) -> Any:
        self.describe_model(params)
        del self.models[params["ModelName"]]

    def create_endpoint_config(self, params: dict[str, Any]) -> Any:
        name = params["EndpointConfigName"]
        if name in self.configs:
            raise No("ValidationException", f"Cannot create already existing endpoint configuration {name}")
        self.describe_model({"ModelName": params["ProductionVariants"][0]["ModelName"]})
        self.count += 1
        when = self.cloud.clock.date() + dt.timedelta(milliseconds=self.count)
        self.configs[name] = {**params, "CreationTime": when}
        return {"EndpointConfigArn": self._arn("endpoint-config", name)}

    def _config(self, name: str) -> dict[str, Any]:
        if name not in self.configs:
            raise No("ValidationException", f'Could not find endpoint configuration "{name}".')
        return self.configs[name]

    def describe_endpoint_config(self, params: dict[str, Any]) -> Any:
        told = dict(self._config(params["EndpointConfigName"]))
        told.pop("Tags", None)
        return {**told, "EndpointConfigArn": self._arn("endpoint-config", told["EndpointConfigName"])}

    def delete_endpoint_config(self, params: dict[str, Any]) -> Any:
        self._config(params["EndpointConfigName"])
        del self.configs[params["EndpointConfigName"]]

    def list_endpoint_configs(self, params: dict[str, Any]) -> Any:
        assert (params["SortBy"], params["SortOrder"]) == ("CreationTime", "Descending")
        found = [each for name, each in self.configs.items() if params["NameContains"] in name]
        listed = [
            {
                "EndpointConfigName": each["EndpointConfigName"],
                "EndpointConfigArn": self._arn("endpoint-config", each["EndpointConfigName"]),
                "CreationTime": each["CreationTime"],
            }
            for each in sorted(found, key=lambda each: each["CreationTime"], reverse=True)
        ]
        return {"EndpointConfigs": listed}

    def _one(self, name: str) -> Endpoint:
        if name not in self.endpoints:
            raise No("ValidationException", f'Could not find endpoint "{self._arn("endpoint", name)}".')
        return self.endpoints[name]

    def create_endpoint(self, params: dict[str, Any]) -> Any:
        name = params["EndpointName"]
        if name in self.endpoints:
            raise No("ValidationException", f"Cannot create already existing endpoint {self._arn('endpoint', name)}")
        self._config(params["EndpointConfigName"])
        due = self.cloud.clock.now() + CREATES
        self.endpoints[name] = Endpoint(params["EndpointConfigName"], "Creating", params.get("Tags", []), due)
        return {"EndpointArn": self._arn("endpoint", name)}

    def update_endpoint(self, params: dict[str, Any]) -> Any:
        found = self._one(params["EndpointName"])
        self._config(params["EndpointConfigName"])
        if found.status != "InService":
            raise No("ValidationException", "Cannot update in-progress endpoint.")
        assert params["EndpointConfigName"] != found.config, "an endpoint cannot be updated to what it runs"
        found.status, found.pending = "Updating", params["EndpointConfigName"]
        found.due = self.cloud.clock.now() + UPDATES
        return {"EndpointArn": self._arn("endpoint", params["EndpointName"])}

    def describe_endpoint(self, params: dict[str, Any]) -> Any:
        name = params["EndpointName"]
        each = self._one(name)
        told = {
            "EndpointName": name,
            "EndpointArn": self._arn("endpoint", name),
            "EndpointConfigName": each.config,
            "EndpointStatus": each.status,
            "CreationTime": self.cloud.clock.date(),
            "LastModifiedTime": self.cloud.clock.date(),
        }
        told |= {"FailureReason": each.reason} if each.reason else {}
        return told | ({"PendingDeploymentSummary": {"EndpointConfigName": each.pending}} if each.pending else {})

    def delete_endpoint(self, params: dict[str, Any]) -> Any:
        found = self._one(params["EndpointName"])
        if found.status in {"Creating", "Updating"}:
            raise No("ValidationException", "Cannot update in-progress endpoint.")
        found.status, found.due = "Deleting", self.cloud.clock.now() + DELETES

    def list_endpoints(self, params: dict[str, Any]) -> Any:
        return {"Endpoints": []}

    def _tags(self, arn: str) -> list[dict[str, str]]:
        return self._one(arn.rpartition("/")[2]).tags

    def list_tags(self, params: dict[str, Any]) -> Any:
        return {"Tags": list(self._tags(params["ResourceArn"]))}

    def add_tags(self, params: dict[str, Any]) -> Any:
        self.delete_tags({**params, "TagKeys": [each["Key"] for each in params["Tags"]]})
        self._tags(params["ResourceArn"]).extend(params["Tags"])
        return {"Tags": self._tags(params["ResourceArn"])}

    def delete_tags(self, params: dict[str, Any]) -> Any:
        tags = self._tags(params["ResourceArn"])
        tags[:] = [each for each in tags if each["Key"] not in params["TagKeys"]]
        return {}


@dataclass
class Runtime(Service):
    """What callers ask."""

    cloud: Cloud
    control: SageMaker
    name: str = "sagemaker-runtime"
    model: Any = field(init=False)

    def __post_init__(self) -> None:
        Service.__init__(self, self.cloud)

    def invoke_endpoint(self, params: dict[str, Any]) -> Any:
        each = self.control.endpoints.get(params["EndpointName"])
        if each is None or each.container is None:
            raise No("ValidationError", f"Endpoint {params['EndpointName']} not found.")
        headers = {"Content-Type": params["ContentType"], "Accept": params["Accept"]}
        asked = urllib.request.Request(f"{each.container.url}/invocations", params["Body"], headers)
        try:
            with urllib.request.urlopen(asked, timeout=30) as answer:
                told = {"ContentType": answer.headers["Content-Type"], "InvokedProductionVariant": "main"}
                return {"Body": answer.read(), **told}
        except urllib.error.HTTPError as error:
            with error:
                raise No("ModelError", f"Received client error ({error.code}) from primary") from None


def _spoken(service: Any) -> Any:
    """Answer by JSON 1.1: the operation stands in a header, and a time is a number."""

    def answer(method: str, path: str, headers: Any, body: bytes) -> tuple[int, dict[str, str], bytes]:
        operation = headers["X-Amz-Target"].partition(".")[2]
        try:
            found = service.answer(operation, json.loads(body))
        except No as error:
            return 400, {}, json.dumps({"__type": error.code, "message": error.message}).encode()
        except BaseException:
            service.cloud.broken.append(traceback.format_exc())
            return 500, {}, b"{}"
        return 200, {}, json.dumps(found or {}, default=lambda when: when.timestamp()).encode()

    return answer


@contextmanager
def endpoints(cloud: Cloud, folder: Path) -> Iterator[SageMaker]:
    """Complete an account with SageMaker; its addresses go into the environment of clients."""
    service = SageMaker(cloud, folder)
    servers = {
        "SAGEMAKER": _listening(_spoken(service)),
        "SAGEMAKER_RUNTIME": _listening(Api(Runtime(cloud, service)).answer),
    }
    for name, server in servers.items():
        os.environ[f"AWS_ENDPOINT_URL_{name}"] = f"http://127.0.0.1:{server.server_port}"
    try:
        yield service
    finally:
        for name, server in servers.items():
            del os.environ[f"AWS_ENDPOINT_URL_{name}"]
            server.shutdown()
            server.server_close()
        for each in service.running.values():
            each.close()
