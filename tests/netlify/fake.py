"""Netlify on loopback: its API as its own description tells it, and its edge, which serves what was published.

Every request and every answer is held against `swagger.json`; what does not fit is kept in `wrong`.
"""

import hashlib
import itertools
import json
import re
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

import jsonschema  # type: ignore[import-untyped]

from tests.netlify.trim import KEPT

TOKEN: Final = "nfp_trial"
KINDS: Final = {"html": "text/html", "js": "text/javascript", "css": "text/css", "json": "application/json"}
KINDS_TOO: Final = {"svg": "image/svg+xml", "webmanifest": "application/manifest+json", "mjs": "text/javascript"}
Answer = tuple[int, bytes, dict[str, str]]
DAYS: Final = "2026-11-22T00:{:02}:{:02}.000Z"


class Swagger:
    """The description: which operation a request is, and whether what is said fits it."""

    def __init__(self, told: Mapping[str, Any]) -> None:
        self.told = told
        self.paths = [(_pattern(told["basePath"] + path), path) for path in sorted(told["paths"], key=_openness)]

    def operation(self, method: str, path: str) -> tuple[Any, list[Any]] | None:
        for pattern, name in self.paths:
            entry = self.told["paths"][name]
            if pattern.fullmatch(path) and method.lower() in entry:
                found = entry[method.lower()]
                return found, [*entry.get("parameters", []), *found.get("parameters", [])]
        return None

    def faults(self, value: Any, schema: Mapping[str, Any]) -> list[str]:
        whole = {**schema, "definitions": self.told["definitions"]}
        found = [each.message for each in jsonschema.Draft4Validator(whole).iter_errors(value)]
        return found + [f"{name!r} is no property" for name in _strangers(value, whole, self.told["definitions"])]


def _openness(path: str) -> int:
    return path.count("{")


def _pattern(path: str) -> re.Pattern[str]:
    return re.compile(path.replace("{path}", ".+").replace("{", "(?P<").replace("}", ">[^/]+)"))


def _strangers(value: Any, schema: Any, definitions: Any) -> list[str]:
    """Name the properties of an object that its schema does not know: the description leaves every object open."""
    if not isinstance(value, dict):
        return []
    known: set[str] = set()
    waiting = [schema]
    while waiting:
        each = waiting.pop()
        if "$ref" in each:
            each = definitions[each["$ref"].rpartition("/")[2]]
        known |= set(each.get("properties", {}))
        waiting += each.get("allOf", [])
    return sorted(set(value) - known) if known else []


@dataclass
class Deploy:
    """An immutable set of files."""

    id: str
    files: dict[str, str]
    site: Mapping[str, Any]
    title: str = ""
    state: str = "new"
    draft: bool = False
    looks: int = 0
    published_at: str = ""
    created_at: str = ""
    url: str = ""


@dataclass
class Netlify:
    """An account: its sites with their deploys, files by their sums, and what was asked."""

    swagger: Swagger
    known: dict[str, bytes] = field(default_factory=dict)
    sites: dict[str, dict[str, Any]] = field(default_factory=dict)
    deploys: dict[str, Deploy] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    slow: int = 2  # looks after which what was uploaded is ready
    taken: tuple[str, ...] = ()  # names of other people's sites
    spoils: Mapping[str, bytes] = field(default_factory=dict)  # what the edge gives instead of a file
    breaks: str = ""  # the state in which the next deploy ends
    throttles: int = 0  # of the next requests are too many
    strangers: bool = False  # may ask for more than is described, as netlify's own program does
    stack: ExitStack = field(default_factory=ExitStack)
    count: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    url: str = ""

    # ---- the API ------------------------------------------------------------------------------------

    def answer(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> tuple[int, Any]:
        parts = urllib.parse.urlsplit(target)
        query = dict(urllib.parse.parse_qsl(parts.query))
        self.asked.append(f"{method} {target}")
        if headers.get("Authorization") != f"Bearer {TOKEN}":
            return 401, {"code": 401, "message": "Access Denied"}
        if self.throttles:
            self.throttles -= 1
            return 429, {"code": 429, "message": "Too many requests"}
        found = self.swagger.operation(method, parts.path)
        if found is None or not hasattr(self, found[0]["operationId"]):
            self.wrong += [] if self.strangers else [f"{method} {parts.path} is no operation that is described"]
            return 404, {"code": 404, "message": "Not Found"}
        operation, parameters = found
        told = self._told(operation, parameters, query, headers, body)
        status, value = getattr(self, operation["operationId"])(parts.path.split("/")[3:], query, told)
        described = operation["responses"].get(str(status), operation["responses"]["default"])
        if "schema" in described:
            items = value if isinstance(value, list) else [value]
            schema, name = described["schema"].get("items", described["schema"]), operation["operationId"]
            faults = [each for item in items for each in self.swagger.faults(item, schema)]
            self.wrong += [f"answer of {name}: {each}" for each in faults]
        return status, value

    def _told(self, operation: Any, parameters: Any, query: Any, headers: Any, body: bytes) -> Any:
        names = {each["name"] for each in parameters if each["in"] == "query"}
        self.wrong += [f"{operation['operationId']}: no parameter {each}" for each in set(query) - names]
        wanted = next((each for each in parameters if each["in"] == "body"), None)
        if wanted is None or not body:
            return {}
        if headers["Content-Type"].partition(";")[0] not in operation.get("consumes", ["application/json"]):
            self.wrong.append(f"{operation['operationId']}: {headers['Content-Type']}")
        if wanted["schema"].get("format") == "binary":
            return body
        told = json.loads(body)
        faults = self.swagger.faults(told, wanted["schema"])
        faults = [each for each in faults if not (self.strangers and each.endswith("is no property"))]
        self.wrong += [f"{operation['operationId']}: {each}" for each in faults]
        return told

    def getEnvVars(self, path: Any, query: Any, told: Any) -> tuple[int, Any]:
        return 200, []

    def getCurrentUser(self, path: Any, query: Any, told: Any) -> tuple[int, Any]:
        return 200, {"id": "u1", "email": "ana@example.com"}

    def listAccountsForUser(self, path: Any, query: Any, told: Any) -> tuple[int, Any]:
        return 200, [{"id": "a1", "slug": "ana", "name": "Ana"}]

    def listSites(self, path: Any, query: Any, told: Any) -> tuple[int, Any]:
        return 200, [self._site(each) for name, each in self.sites.items() if query.get("name", "") in name]

    def createSite(self, path: Any, query: Any, told: Any) -> tuple[int, Any]:
        name = told["name"]
        if name in self.sites or name in self.taken:
            return 422, {"code": 422, "message": "subdomain must be unique"}
        url = self.stack.enter_context(_listening(lambda *asked: self._edge(self.sites[name].get("live"), *asked)))
        self.sites[name] = {"id": f"site-{next(self.count)}", "name": name, "ssl_url": url, "url": url, "live": None}
        return 201, self._site(self.sites[name])

    def createSiteInTeam(self, path: Any, query: Any, told: Any) -> tuple[int, Any]:
        return self.createSite(path, query, told)

    def getSite(self, path: Any, query: Any, told: Any) -> tuple[int, Any]:
        site = self._by(path[1])
        return (200, self._site(site)) if site else (404, {"code": 404, "message": "Not Found"})

    def deleteSite(self, path: Any, query: Any, told: Any) -> tuple[int, Any]:
        site = self._by(path[1])
        if site is None:
            return 404, {"code": 404, "message": "Not Found"}
        del self.sites[site["name"]]
        return 204, None

    def listSiteDeploys(self, path: Any, query: Any, told: Any) -> tuple[int, Any]:
        if self._by(path[1]) is None:
            return 404, {"code": 404, "message": "Not Found"}
        return 200, [self._deploy(each) for each in reversed(self.deploys.values())]

    def createSiteDeploy(self, path: Any, query: Any, told: Any) -> tuple[int, Any]:
        made = Deploy(
            f"d{next(self.count)}", {}, self._by(path[1]) or {}, query.get("title", ""), draft=told.get("draft", False)
        )
        made.url = self.stack.enter_context(_listening(lambda *asked: self._edge(made.id, *asked)))
        made.created_at = DAYS.format(*divmod(next(self.count), 60))
        self.deploys[made.id] = made
        return self.updateSiteDeploy([*path, made.id], query, told)

    def updateSiteDeploy(self, path: Any, query: Any, told: Any) -> tuple[int, Any]:
        made = self.deploys[path[3]]
        if "files" in told:
            made.files = {name.lstrip("/"): told["files"][name] for name in told["files"]}
            made.state = "uploading" if self._required(made) else "uploaded"
        return 200, self._deploy(made) | {"required": self._required(made)}

    def getSiteDeploy(self, path: Any, query: Any, told: Any) -> tuple[int, Any]:
        return self.getDeploy(["deploys", path[3]], query, told)

    def getDeploy(self, path: Any, query: Any, told: Any) -> tuple[int, Any]:
        made = self.deploys[path[1]]
        if made.state == "uploaded":
            made.looks += 1
            if made.looks > self.slow:
                made.state, self.breaks = self.breaks or "ready", ""
                if made.state == "ready" and not made.draft:
                    self._publish(made)
        return 200, self._deploy(made) | {"required": self._required(made)}

    def uploadDeployFile(self, path: Any, query: Any, told: bytes) -> tuple[int, Any]:
        made, name = self.deploys[path[1]], urllib.parse.unquote("/".join(path[3:]))
        digest = hashlib.sha1(told).hexdigest()
        if made.files.get(name) != digest:
            self.wrong.append(f"{name} was not announced so")
            return 422, {"code": 422, "message": f"{name} is not expected"}
        self.known[digest] = told
        made.state = made.state if self._required(made) else "uploaded"
        return 200, {"id": f"/{name}", "path": f"/{name}", "sha": digest, "size": len(told)}

    def restoreSiteDeploy(self, path: Any, query: Any, told: Any) -> tuple[int, Any]:
        made = self.deploys[path[3]]
        if made.state != "ready":
            return 422, {"code": 422, "message": "Deploy is not ready"}
        self._publish(made)
        return 201, self._deploy(made)

    def _publish(self, made: Deploy) -> None:
        made.published_at = DAYS.format(*divmod(next(self.count), 60))
        self.sites[made.site["name"]]["live"] = made.id

    def _by(self, wanted: str) -> dict[str, Any] | None:
        name = wanted.removesuffix(".netlify.app")
        return next((each for each in self.sites.values() if each["id"] == wanted or each["name"] == name), None)

    def _required(self, made: Deploy) -> list[str]:
        return sorted({digest for digest in made.files.values() if digest not in self.known})

    def _site(self, site: Mapping[str, Any]) -> dict[str, Any]:
        live = self.deploys.get(site["live"] or "")
        told = {key: value for key, value in site.items() if key != "live"} | {
            "state": "current",
            "account_slug": "ana",
        }
        return told | ({"published_deploy": self._deploy(live)} if live else {})

    def _deploy(self, made: Deploy) -> dict[str, Any]:
        told = {
            "id": made.id,
            "state": made.state,
            "title": made.title,
            "draft": made.draft,
            "created_at": made.created_at,
            "deploy_ssl_url": made.url,
        }
        told |= {"site_id": made.site["id"], "name": made.site["name"], "ssl_url": made.site["ssl_url"]}
        told |= {"admin_url": "https://app.netlify.com/projects/" + made.site["name"]}
        told |= {"published_at": made.published_at} if made.published_at else {}
        return told | ({"error_message": "too many files"} if made.state == "error" else {})

    # ---- the edge -----------------------------------------------------------------------------------

    def _edge(self, deploy: str | None, method: str, target: str, headers: Any, body: bytes) -> Answer:
        path = urllib.parse.unquote(urllib.parse.urlsplit(target).path).lstrip("/") or "index.html"
        files = {name: self.known[digest] for name, digest in self.deploys[deploy].files.items()} if deploy else {}
        if path in files and path not in {"_headers", "_redirects"}:
            kind = (KINDS | KINDS_TOO).get(path.rpartition(".")[2], "application/octet-stream")
            own = self.spoils.get(path, files[path])
            return 200, own, {"Content-Type": kind, **_rules(files.get("_headers", b"").decode())}
        for line in files.get("_redirects", b"").decode().splitlines():
            source, there, status = line.split()
            if status == "200" and source.endswith("/*") and f"/{path}".startswith(source[:-1]):
                return _passed(method, there.replace(":splat", f"/{path}"[len(source) - 1 :]), headers, body)
        return 404, b"Not Found", {"Content-Type": "text/plain"}


def _rules(told: str) -> dict[str, str]:
    """Read the rules for all pages of a _headers file."""
    lines = told.splitlines()
    assert lines[:1] in ([], ["/*"])
    return {name.strip(): value for name, _, value in (line.partition(": ") for line in lines[1:])}


def _passed(method: str, url: str, headers: Any, body: bytes) -> Answer:
    kept = {name: headers[name] for name in ("Content-Type", "Accept", "Authorization") if name in headers}
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, body or None, kept, method=method), timeout=26
        ) as answer:
            return answer.status, answer.read(), {"Content-Type": answer.headers["Content-Type"]}
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(), {"Content-Type": error.headers["Content-Type"]}


@contextmanager
def _listening(answer: Any) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 1 << 16  # head and body in one packet, or each answer waits for an acknowledgement

        def _any(self) -> None:
            if self.headers.get("Transfer-Encoding") == "chunked":
                body = b"".join(iter(self._chunk, b""))
            else:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, data, headers = answer(self.command, self.path, self.headers, body)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if status != 204:
                self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if status != 204:
                self.wfile.write(data)

        do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = _any

        def _chunk(self) -> bytes:
            data = self.rfile.read(int(self.rfile.readline(), 16))
            self.rfile.readline()
            return data

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def netlify(told: Mapping[str, Any] | None = None) -> Iterator[Netlify]:
    """Run an account of Netlify; whatever did not fit its description is an error in the end."""
    made = Netlify(Swagger(told or json.loads(KEPT.read_text("utf-8"))))
    lock = threading.Lock()

    def answer(method: str, target: str, headers: Any, body: bytes) -> Answer:
        with lock:
            status, value = made.answer(method, target, headers, body)
        return status, json.dumps(value).encode(), {"Content-Type": "application/json"}

    with made.stack:
        made.url = made.stack.enter_context(_listening(answer))
        yield made
    assert not made.wrong, made.wrong
