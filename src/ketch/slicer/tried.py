"""Tries, in the process of a script, which of the objects that it has made `ketch.pack` takes.

what the notebook saves, what the script packs --*tried*--> why each is refused, or which part is taken instead
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from ketch.errors import KetchError

DEEP: Final = 2  # containers within containers that are looked through
MOST: Final = 50


def tried(
    saved: object, model: object, named: Mapping[str, Any], pack: Callable[..., object], path: str
) -> dict[str, str]:
    """Pack a model as a script says, and say what is refused.

    `data` is why it is refused with the script's data, `bare` why without; each is empty where it is taken. What is
    no part of the `saved` is refused. Where only one part of the saved is taken, `place` and `suffix` name it: its
    place among several objects, and how it is reached from there.
    """
    parts = [*_parts(saved)]
    reached = {id(each) for _, _, each in parts}
    found: dict[str, str] = {}
    if all(id(each) in reached for each in (model if isinstance(model, tuple) else (model,))):
        if named.get("data") is not None:
            found["data"] = _refusal(pack, model, path, named)
        if found.get("data", "no data"):
            found["bare"] = _refusal(pack, model, path, {**named, "data": None})
    else:
        found["bare"] = "It is not what the notebook saves."
    if found.get("bare"):
        able = [part for part in parts if hasattr(part[2], "predict")]
        taken = [part for part in able if not _refusal(pack, part[2], path, {**named, "data": None})]
        if len(taken) == 1:
            found |= {"place": str(taken[0][0]), "suffix": taken[0][1]}
    return found


def _refusal(pack: Callable[..., object], model: object, path: str, named: Mapping[str, Any]) -> str:
    try:
        pack(model, path, **named)
    except KetchError as error:
        return f"{error.message}. {error.hint}"
    except Exception as error:  # whatever a model of a stranger's raises
        return f"{type(error).__name__}: {error}"[:200]
    return ""


def _parts(saved: object) -> Iterator[tuple[int, str, object]]:
    """Give the objects, and what they hold, each once."""
    seen: dict[int, object] = {}
    for place, each in enumerate(saved if isinstance(saved, tuple) else (saved,)):
        for suffix, part in _within(each, "", DEEP):
            if id(part) not in seen and len(seen) < MOST:
                seen[id(part)] = part
                yield place, suffix, part


def _within(value: object, suffix: str, deep: int) -> Iterator[tuple[str, object]]:
    yield suffix, value
    if hasattr(value, "predict") or deep == 0:
        return
    for end, each in _held(value):
        yield from _within(each, suffix + end, deep - 1)


def _held(value: object) -> list[tuple[str, object]]:
    """Give what an object holds, each with how it is reached."""
    if isinstance(value, Mapping):
        return [(f"[{key!r}]", each) for key, each in value.items() if isinstance(key, str | int)]
    if isinstance(value, list | tuple):
        return [(f"[{place}]", each) for place, each in enumerate(value)]
    own: Mapping[str, object] = getattr(value, "__dict__", {})
    return [(f".{name}", each) for name, each in own.items() if name.isidentifier()]
