"""A target of your own: a folder that a service on this machine follows, `ketch serve FOLDER/churn.ketch --follow`."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ketch.deploy import Option, Options, Shipment, Target, smoke
from ketch.errors import CloudRefused
from ketch.steps import Done, Got, Hands, Plan, Question, Secret, Step


@dataclass(frozen=True)
class Look:
    """See which versions stand in the folder, and which one is served."""

    folder: str
    name: str

    def sent(self) -> Mapping[str, object]:
        return {"look": self.folder}

    def done(self, hands: Hands) -> Any:
        folder, current = Path(self.folder), Path(self.folder) / f"{self.name}.ketch"
        if not folder.is_dir():
            raise CloudRefused(f"{folder} is not there", reason="none", hint="Make the folder, and serve from it.")
        found = sorted(folder.glob(f"{self.name}--*.ketch"), key=lambda path: path.stat().st_mtime_ns)
        served = current.readlink().stem if current.is_symlink() else ""
        return {"versions": [path.stem for path in found], "served": served}


@dataclass(frozen=True)
class Put:
    """Write a version into the folder."""

    folder: str
    version: str
    data: bytes

    def sent(self) -> Mapping[str, object]:
        return {"write": f"{self.folder}/{self.version}.ketch", "bytes": len(self.data)}

    def done(self, hands: Hands) -> Any:
        part = Path(self.folder) / f".{self.version}"
        part.write_bytes(self.data)
        part.replace(Path(self.folder) / f"{self.version}.ketch")


@dataclass(frozen=True)
class Serve:
    """Point at a version; the service sees within a second that it is another one."""

    folder: str
    name: str
    version: str | Got

    def sent(self) -> Mapping[str, object]:
        return {"point": f"{self.folder}/{self.name}.ketch", "at": str(self.version)}

    def done(self, hands: Hands) -> Any:
        part = Path(self.folder) / f".{self.name}"
        part.unlink(missing_ok=True)
        part.symlink_to(f"{self.version}.ketch")
        part.replace(Path(self.folder) / f"{self.name}.ketch")


@dataclass(frozen=True)
class Clear:
    """Remove all versions."""

    folder: str
    name: str

    def sent(self) -> Mapping[str, object]:
        return {"remove": f"{self.folder}/{self.name}*.ketch"}

    def done(self, hands: Hands) -> Any:
        for path in Path(self.folder).glob(f"{self.name}*.ketch"):
            path.unlink()


def plan(shipped: Shipment, options: Options) -> Plan:
    folder, name = options["folder"], shipped.name
    version, look = f"{name}--{shipped.label}", Look(folder, name)

    def put(found: Any, got: Any) -> Any:
        return Done(found) if found and version in found["versions"] else Put(folder, version, shipped.data)

    def point(found: Any, got: Any) -> Any:
        return Done(found) if found and found["served"] == version else Serve(folder, name, version)

    back = Step("back", "Serve again what was served before", Serve(folder, name, Got("before", ("served",))))
    steps = (
        Step("before", "See what is served", look=look),
        Step("version", f"Write {version}", look=look, act=put),
        Step("serve", f"Serve {version}", look=look, act=point, amends=(back,)),
        smoke(shipped, options["url"], Secret(os.environ.get("KETCH_API_KEY", "")), within=4.0),
    )
    return Plan("shelf", name, steps)


def rollback(name: str, options: Options) -> Plan:
    look = Look(options["folder"], name)

    def back(found: Any, got: Any) -> Any:
        earlier = found["versions"][: found["versions"].index(found["served"])]
        if not earlier:
            raise CloudRefused(f"{name} has no earlier version", reason="none", hint="Deploy another model.")
        return Serve(options["folder"], name, earlier[-1])

    return Plan("shelf", name, (Step("serve", "Serve the version before", look=look, act=back),))


def destroy(name: str, options: Options) -> Plan:
    return Plan("shelf", name, (Step("clear", f"Remove all of {name}", Clear(options["folder"], name)),))


def status(name: str, options: Options) -> Sequence[Question]:
    def told(found: Any) -> list[tuple[str, str]]:
        return [("ok", f"{name} serves {found['served']}")] if found else [("mend", "there is no such folder")]

    return [Question("status", Look(options["folder"], name), told, absent=("none",))]


TARGET = Target(
    "shelf",
    "Serve from a folder of this machine.",
    "files",
    plan,
    (
        Option("folder", "The folder that the service follows.", "."),
        Option("url", "Where the service answers.", "http://127.0.0.1:9696"),
    ),
    status=status,
    rollback=rollback,
    destroy=destroy,
)
