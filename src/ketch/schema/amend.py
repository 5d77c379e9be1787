"""A person's say in the contract: TOML out, labels, units, ranges and the threshold back in."""

import math
import tomllib
from collections.abc import Iterable, Mapping
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
    fields = found.get("fields", {})
    if not isinstance(fields, dict) or not all(isinstance(each, dict) for each in fields.values()):
        raise ContractError(f"{name} has no [fields.NAME] tables", hint="Start from: ketch inspect BUNDLE --contract")
    threshold = found.get("threshold", 0.5)
    if not isinstance(threshold, int | float) or isinstance(threshold, bool):
        raise ContractError(f"{name} sets threshold to {threshold!r}", hint="Give a number between 0 and 1.")
    return found


def amended(each: Field, amendments: Mapping[str, Any]) -> Field:
    """Give the field as amended.

    Raises:
        ContractError: it changes what the model decides, or to what is not usable.
    """
    wanted = amendments.get("fields", {}).get(each.name)
    if wanted is None:
        return each
    current = msgspec.json.decode(msgspec.json.encode(msgspec.structs.asdict(each)))  # as TOML would give it back
    changed = {key: value for key, value in wanted.items() if current.get(key) != value}
    if frozen := changed.keys() - AMENDABLE:
        raise ContractError(
            f"The contract changes {min(frozen)!r} of {each.name!r}, which the model decides",
            hint=f"Amend only: {', '.join(sorted(AMENDABLE))}.",
        )
    try:
        made = msgspec.convert({**current, **changed}, Field)
    except msgspec.ValidationError as error:
        raise _unusable(each, str(error)) from None
    low, high = made.minimum, made.maximum
    if not all(bound is None or math.isfinite(bound) for bound in (low, high)):
        raise _unusable(each, "a range ends at finite numbers")
    if low is not None and high is not None and low > high:
        raise _unusable(each, f"its range is empty, from {low:g} to {high:g}")
    return made


def require_known(names: Iterable[str], amendments: Mapping[str, Any]) -> None:
    """Refuse amendments of fields that the model does not have.

    Raises:
        ContractError: there is one, misspelt or of another model.
    """
    known = sorted(names)
    for name in amendments.get("fields", {}):
        if name not in known:
            raise ContractError(
                f"The contract amends {name!r}, which is no field of this model",
                hint=f"Its fields are: {', '.join(known[:8])}{', …' if len(known) > 8 else ''}",
            )


def _unusable(each: Field, reason: str) -> ContractError:
    return ContractError(f"The contract of {each.name!r} is not usable: {reason}", hint="Mend that value.")


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
