"""Google's own descriptions of its APIs, as google-api-python-client carries them: what may be asked and answered."""

import functools
import importlib.resources
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

KINDS: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "object": (dict,),
    "array": (list,),
}
FORMATS = {"int64": r"-?\d+", "uint64": r"\d+", "google-duration": r"-?\d+(\.\d+)?s"}


class Wrong(Exception):
    """Something that the description does not allow."""


@dataclass(frozen=True)
class Method:
    """One method of an API, and the parts of the path that it was called by."""

    name: str
    told: Mapping[str, Any]
    parts: tuple[str, ...]


class Description:
    """One discovery document."""

    def __init__(self, name: str) -> None:
        folder = importlib.resources.files("googleapiclient.discovery_cache.documents")
        self.told = json.loads(folder.joinpath(f"{name}.json").read_text("utf-8"))
        self.methods = [(each["id"], each, _pattern(each)) for each in _methods(self.told)]

    def method(self, verb: str, path: str) -> Method:
        """Find the method that a request calls.

        Raises:
            Wrong: there is none.
        """
        for name, told, pattern in self.methods:
            if told["httpMethod"] == verb and (found := pattern.fullmatch(path)):
                return Method(name, told, tuple(found.groups()))
        raise Wrong(f"{self.told['name']} has no {verb} {path}")

    def require_query(self, method: Method, query: Mapping[str, list[str]]) -> None:
        """Refuse a parameter that a method does not have."""
        known = method.told.get("parameters", {}) | self.told.get("parameters", {})
        for name, values in query.items():
            if name not in known or known[name].get("location") == "path":
                raise Wrong(f"{method.name} has no parameter {name}")
            if len(values) > 1 and not known[name].get("repeated"):
                raise Wrong(f"{method.name} takes one {name}")
            if known[name].get("type") == "boolean" and set(values) - {"true", "false"}:
                raise Wrong(f"{name} is {values}")
            if known[name].get("type") == "integer" and not all(each.isdecimal() for each in values):
                raise Wrong(f"{name} is {values}")

    def require_request(self, method: Method, body: Any) -> None:
        """Refuse a body that a method does not take."""
        wanted = method.told.get("request")
        if wanted is None:
            if body is not None:
                raise Wrong(f"{method.name} takes no body")
            return
        self.require({"$ref": wanted["$ref"]}, body, wanted["$ref"], asked=True)

    def require_response(self, method: Method, body: Any) -> None:
        """Refuse an answer of our own fake that Google would not give."""
        self.require({"$ref": method.told["response"]["$ref"]}, body, method.name, asked=False)

    def require(self, schema: Mapping[str, Any], value: Any, where: str, *, asked: bool) -> None:
        """Hold a value against a schema; what is output only, nobody may ask."""
        if "$ref" in schema:
            self.require(self.told["schemas"][schema["$ref"]], value, where, asked=asked)
            return
        kind = schema.get("type", "any")
        if kind == "any":
            return
        if not isinstance(value, KINDS[kind]) or (kind in {"integer", "number"} and isinstance(value, bool)):
            raise Wrong(f"{where} is {value!r}, no {kind}")
        if "enum" in schema and value not in schema["enum"]:
            raise Wrong(f"{where} is {value!r}, none of {schema['enum'][:8]}")
        form = FORMATS.get(schema.get("format", "")) if isinstance(value, str) else None
        if form and not re.fullmatch(form, str(value)):
            raise Wrong(f"{where} is {value!r}, no {schema['format']}")
        for each, inner, named in self._inside(schema, value, where):
            if asked and inner.get("readOnly"):
                raise Wrong(f"{named} is output only")
            self.require(inner, each, named, asked=asked)

    def _inside(
        self, schema: Mapping[str, Any], value: Any, where: str
    ) -> Iterator[tuple[Any, Mapping[str, Any], str]]:
        if isinstance(value, list):
            yield from ((each, schema["items"], f"{where}[{at}]") for at, each in enumerate(value))
        elif isinstance(value, dict):
            known, others = schema.get("properties", {}), schema.get("additionalProperties")
            for name, each in value.items():
                if name not in known and others is None:
                    raise Wrong(f"{where} has no field {name}")
                yield each, known.get(name, others), f"{where}.{name}"


@functools.cache
def description(name: str) -> Description:
    """Read a discovery document once."""
    return Description(name)


def _methods(told: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    yield from told.get("methods", {}).values()
    for each in told.get("resources", {}).values():
        yield from _methods(each)


def _pattern(method: Mapping[str, Any]) -> re.Pattern[str]:
    parts = re.split(r"\{[^}]+\}", method.get("flatPath") or method["path"])
    return re.compile("/" + "([^/:]+)".join(map(re.escape, parts)))
