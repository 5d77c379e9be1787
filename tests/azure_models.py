"""What Azure Container Apps takes and answers, by the model classes of Azure's own SDK."""

import enum
import functools
import types
import typing
from typing import Any

from azure.mgmt.appcontainers import models
from azure.mgmt.appcontainers._utils.model_base import Model

PLAIN = {str: (str,), int: (int,), float: (int, float), bool: (bool,)}


class Wrong(Exception):
    """Something that the models do not allow."""


@functools.cache
def fields(kind: Any) -> dict[str, tuple[Any, bool]]:
    """Give the fields of a model by their names on the wire: what each holds, and whether it is only read."""
    kind()  # which is when the SDK works its fields out
    known = {name: getattr(models, name) for name in dir(models)} | {"_models": models, **vars(typing)}
    hints: dict[str, Any] = {}
    for each in reversed(kind.__mro__):
        for name, hint in getattr(each, "__annotations__", {}).items():
            hints[name] = eval(hint, known) if isinstance(hint, str) else hint
    resolved = typing.get_type_hints(types.SimpleNamespace(__annotations__=hints), known, known)
    return {
        told._rest_name: (resolved[name], told._visibility == ["read"])
        for name, told in kind._attr_to_rest_field.items()
    }


def require(kind: Any, value: Any, where: str, *, asked: bool) -> None:
    """Hold a value against what a model holds; what is only read, nobody may ask."""
    origin, inside = typing.get_origin(kind), typing.get_args(kind)
    if origin in {typing.Union, types.UnionType}:
        _require_one(inside, value, where, asked=asked)
    elif origin is list:
        _require_type(value, (list,), where)
        for at, each in enumerate(value):
            require(inside[0], each, f"{where}[{at}]", asked=asked)
    elif origin is dict:
        _require_type(value, (dict,), where)
        for name, each in value.items():
            require(inside[1], each, f"{where}.{name}", asked=asked)
    elif isinstance(kind, type) and issubclass(kind, Model):
        _require_model(kind, value, where, asked=asked)
    elif kind in PLAIN:
        _require_type(value, PLAIN[kind], where)


def _require_model(kind: Any, value: Any, where: str, *, asked: bool) -> None:
    _require_type(value, (dict,), where)
    for name, each in value.items():
        if name not in fields(kind):
            raise Wrong(f"{where} has no field {name}")
        hint, only_read = fields(kind)[name]
        if asked and only_read:
            raise Wrong(f"{where}.{name} is only read")
        require(hint, each, f"{where}.{name}", asked=asked)


def _require_one(inside: tuple[Any, ...], value: Any, where: str, *, asked: bool) -> None:
    if value is None and type(None) in inside:
        return
    enums = [each for each in inside if isinstance(each, type) and issubclass(each, enum.Enum)]
    if enums:
        if value not in {one.value for each in enums for one in each}:
            raise Wrong(f"{where} is {value!r}, none of {[one.value for one in enums[0]]}")
        return
    others = [each for each in inside if each is not type(None)]
    if len(others) == 1:
        require(others[0], value, where, asked=asked)


def _require_type(value: Any, kinds: tuple[type, ...], where: str) -> None:
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise Wrong(f"{where} is {value!r}, no {kinds[-1].__name__}")
