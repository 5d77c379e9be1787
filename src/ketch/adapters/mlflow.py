"""MLflow model folders: which file of it holds the model, and what its signature says.

folder with MLmodel --*open_folder*--> the file inside, which its own adapter opens
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import Any, Final

from ketch import extras
from ketch.errors import InputError, UnsupportedModel
from ketch.schema import Type

LARGEST: Final = 1 << 20  # bytes of a description
MEMBERS: Final[Mapping[str, Sequence[str]]] = {  # flavour -> where it names its file
    "sklearn": ("pickled_model",),
    "xgboost": ("data",),
    "lightgbm": ("data",),
    "catboost": ("data",),
    "onnx": ("data",),
}
SUFFIXES: Final = {"catboost": {"cbm": ".cbm", "json": ".json"}}  # its files are called model.cb whatever they hold
TYPES: Final[Mapping[str, Type]] = {
    "boolean": "boolean",
    "datetime": "datetime",
    "double": "number",
    "float": "number",
    "integer": "integer",
    "long": "integer",
    "string": "text",
}


@dataclass(frozen=True)
class Inside:
    """The file of a model folder that holds the model, and the columns that its signature names.

    `place` stands where modules that it needs would stand.
    """

    name: str
    data: bytes
    place: Path
    columns: Mapping[str, Type] = field(default_factory=dict)


def is_folder(path: Path) -> bool:
    """Tell whether the path is a model folder."""
    return (path / "MLmodel").is_file()


def open_folder(path: Path) -> Inside:
    """Find the model's file in the folder; it is called after the folder.

    Raises:
        InputError: the folder is none of MLflow's, or is damaged.
        UnsupportedModel: what it holds is Python code that only MLflow can run.
    """
    if not is_folder(path):
        raise InputError(
            f"{path} is a folder without MLmodel, so no model of MLflow's", hint="Give the model's file, or its folder."
        )
    described = _described(path)
    flavours = _mapping(described.get("flavors"), path)
    flavour = next((each for each in MEMBERS if each in flavours), None)
    if flavour is None:
        raise _foreign(path, flavours)
    facts = _mapping(flavours[flavour], path)
    member = next((facts[key] for key in MEMBERS[flavour] if facts.get(key)), None)
    inside = _within(path, member)
    suffix = SUFFIXES.get(flavour, {}).get(_text(facts.get("save_format")), inside.suffix)
    place = path / "code" / inside.name if facts.get("code") else inside
    return Inside(path.resolve().name + suffix, _read(inside), place, _columns(described.get("signature"), path))


def _described(path: Path) -> Mapping[str, Any]:
    data = _read(path / "MLmodel")
    yaml = extras.load("yaml")
    if len(data) > LARGEST:
        raise _damaged(path, "its MLmodel is larger than 1 MiB")
    try:
        return _mapping(yaml.load(data, _loader(yaml)), path)
    except (yaml.YAMLError, ValueError, RecursionError):
        raise _damaged(path, "its MLmodel cannot be read") from None


def _loader(yaml: Any) -> Any:
    """Make the safe loader without merge keys, of which a few lines make billions of entries; MLflow writes none."""

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        def flatten_mapping(self, node: object) -> None:
            """Leave a mapping as it is written."""

    return Loader


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""  # a nest of references may be billions of letters as text


def _mapping(value: object, path: Path) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise _damaged(path, "its MLmodel is not in the right form")
    return value


def _damaged(path: Path, reason: str) -> InputError:
    return InputError(f"{path} is no whole model of MLflow's: {reason}", hint="Fetch it again, or log the model again.")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", hint="Give the whole folder.") from None


def _within(path: Path, member: object) -> Path:
    """Give the path of a file that the folder itself holds, wherever a link or a name may point."""
    if not isinstance(member, str) or not member or PureWindowsPath(member).drive or "\0" in member:
        raise _damaged(path, "its MLmodel names no file")
    inside = (path / member).resolve()
    if not inside.is_relative_to(path.resolve()):
        raise _damaged(path, f"its MLmodel names a file outside it, {member[:100]!r}")
    if not inside.is_file():
        raise _damaged(path, f"{member[:100]} is not in it")
    return inside


def _foreign(path: Path, flavours: Mapping[str, Any]) -> UnsupportedModel:
    others = sorted(set(map(str, flavours)) - {"python_function"})
    if others:
        return UnsupportedModel(
            f"{path} holds a model of {', '.join(others[:5])}, which Ketch does not read",
            hint=f"It reads {', '.join(MEMBERS)}; export the model to ONNX, and pack that.",
        )
    loader = _mapping(flavours.get("python_function"), path).get("loader_module")
    return UnsupportedModel(
        f"{path} holds Python code that only MLflow runs (loader {_text(loader)[:100]})",
        hint="Give ketch.pack the fitted model that is inside, or a function predict(rows).",
    )


def _columns(signature: object, path: Path) -> dict[str, Type]:
    """Give the columns of a signature with their types; a signature of arrays names none."""
    try:
        listed = json.loads(signature["inputs"]) if isinstance(signature, dict) and signature.get("inputs") else []
        return {each["name"]: TYPES[each["type"]] for each in listed if "name" in each and each["type"] in TYPES}
    except (ValueError, TypeError, KeyError, RecursionError):
        raise _damaged(path, "its signature cannot be read") from None
