"""A person's say in the contract: TOML out, labels, units, ranges and the threshold back in."""

import tomllib
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from ketch.errors import ContractError
from ketch.schema import Contract, Field

AMENDABLE: Final = frozenset({"label", "unit", "description", "minimum", "maximum", "example"})


def parse(data: bytes, name: str) -> dict[str, Any]:
    """Read an amended contract.toml.

    Raises:
        ContractError: it is not TOML, or sets what cannot be set.
    """
    try:
        found = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ContractError(f"{name} is not valid TOML: {error}", hint="Mend that line.") from None
    if extra := found.keys() - {"fields", "threshold"}:
        raise ContractError(f"{name} sets {min(extra)!r}", hint="Only threshold and [fields.NAME] can be set.")
    if not isinstance(found.get("fields", {}), dict):
        raise ContractError(f"{name} has no [fields.NAME] tables", hint="Start from: ketch inspect BUNDLE --contract")
    return found


def amended(each: Field, amendments: Mapping[str, Any]) -> Field:
    """Give the field as amended.

    Raises:
        ContractError: it changes what the model decides, or to what is not usable.
    """
    wanted = amendments.get("fields", {}).get(each.name)
    if wanted is None:
        return each
    current = msgspec.json.decode(msgspec.json.encode(each))  # as TOML would give it back
    changed = {key: value for key, value in wanted.items() if current.get(key) != value}
    if frozen := changed.keys() - AMENDABLE - {"name"}:
        raise ContractError(
            f"The contract changes {min(frozen)!r} of {each.name!r}, which the model decides",
            hint=f"Amend only: {', '.join(sorted(AMENDABLE))}.",
        )
    try:
        return msgspec.convert({**current, **changed}, Field)
    except msgspec.ValidationError as error:
        raise ContractError(f"The contract of {each.name!r} is not usable: {error}", hint="Mend that value.") from None


def as_toml(contract: Contract) -> str:
    """Write a contract as TOML that a person can amend and give back."""
    lines = ["# Amend labels, units, descriptions, ranges and the threshold; the rest is what the model knows.\n"]
    if contract.answer.task == "binary" and contract.answer.values == "probability":
        at = contract.answer.threshold
        lines.append(f"threshold = {at}\n" if at is not None else "# threshold = 0.5\n")
    for each in contract.fields:
        lines.append(f"\n[fields.{_toml(each.name)}]\n")
        shown = {"label": "", "unit": "", "description": "", **msgspec.to_builtins(each)}
        lines += [f"{key} = {_toml(value)}\n" for key, value in shown.items() if key != "name" and value is not None]
    return "".join(lines)


def _toml(value: object) -> str:
    # a JSON scalar or list of scalars is TOML, but for the DEL character
    return msgspec.json.encode(value).decode().replace("\x7f", "\\u007f")
