"""Fly.io, as files: `fly.toml` and a build context, for `fly deploy` to take."""

from typing import Any, Final

import msgspec

from ketch import deploy
from ketch.deploy import Option, Options, Shipment, Target
from ketch.errors import UsageError
from ketch.steps import Plan

PORT: Final = 9696  # of the image
SIZES: Final = ("shared-cpu-1x", "shared-cpu-2x", "performance-1x", "performance-2x")
OPTIONS: Final = (
    Option("region", "Where it runs, such as fra, iad or gru.", "fra"),
    Option("size", "Size of a machine.", "shared-cpu-1x", SIZES),
    Option("memory", "MiB of a machine.", 512),
    Option("min", "Machines that run though nobody asks; with 0, the first answer waits for one.", 0),
)


def plan(shipment: Shipment, options: Options) -> Plan:
    """Give the files by which `fly deploy` builds and runs a model."""
    name = deploy.require_name(shipment.name, 30)
    deploy.require_forms(options, {"region": ("[a-z]{3}", "fra, iad or gru")})
    if options["min"] < 0 or options["memory"] < 256 or options["memory"] % 256:
        raise UsageError(
            "--min is 0 or more, and --memory 256 or a multiple of it", hint="Leave them out, or mend them."
        )
    files = {"fly.toml": toml(name, options)}
    if shipment.context is not None:
        files |= shipment.context(platform="linux/amd64").files
    notes = (
        f"then, in that folder: fly apps create {name}",
        "printf 'KETCH_API_KEYS=%s\\n' \"$KETCH_API_KEYS\" | fly secrets import --stage",
        f"fly deploy --ha=false; callers then ask https://{name}.fly.dev with the key",
    )
    size = f"fly.{options['size']}.{options['memory']}"
    return Plan("fly", name, files=files, uses={size: max(1, options["min"])}, notes=notes)


def toml(name: str, options: Options) -> bytes:
    """Write the configuration of an app."""
    told: dict[str, Any] = {
        "app": name,
        "primary_region": options["region"],
        "kill_signal": "SIGTERM",
        "kill_timeout": 30,
        "build": {"dockerfile": "Dockerfile"},
        "http_service": {
            "internal_port": PORT,
            "force_https": True,
            "auto_stop_machines": "stop",
            "auto_start_machines": True,
            "min_machines_running": options["min"],
            "concurrency": {"type": "requests", "soft_limit": 100, "hard_limit": 250},
            "checks": [_check("/health/ready")],
        },
        "vm": [{"size": options["size"], "memory": f"{options['memory']}mb"}],
    }
    return b"# Written by `ketch deploy fly`.\n" + "\n".join(_lines(told)).encode() + b"\n"


def _check(path: str) -> dict[str, str]:
    return {"method": "GET", "path": path, "interval": "15s", "timeout": "5s", "grace_period": "30s"}


def _lines(table: dict[str, Any], place: str = "") -> list[str]:
    """Write a table of TOML: its own values first, then the tables in it."""
    found = [f"{key} = {_value(each)}" for key, each in table.items() if not _is_table(each)]
    for key, each in table.items():
        inside = f"{place}{key}"
        if isinstance(each, dict):
            found += ["", f"[{inside}]", *_lines(each, f"{inside}.")]
        elif _is_table(each):
            found += [line for one in each for line in ("", f"[[{inside}]]", *_lines(one, f"{inside}."))]
    return found


def _is_table(value: object) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and isinstance(value[0], dict))


def _value(value: Any) -> str:
    return msgspec.json.encode(value).decode()  # texts, numbers and booleans are written alike


TARGET: Final = Target("fly", "Fly.io, as files for `fly deploy`.", "files", plan, OPTIONS)
