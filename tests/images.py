"""Small images: archives as engines write them, of the fewest bytes, and a build context of a package of one line."""

import gzip
import hashlib
import importlib.metadata
import importlib.resources
import io
import json
import platform
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ketch.image import COPIED, SBOM, Config, Context, Recipe

HERE = platform.python_version()
MINOR = HERE.rpartition(".")[0]
PYTHON = f"usr/bin/python{MINOR}"


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def tarred(files: Mapping[str, bytes | str], **how: Any) -> bytes:
    """Write a tar; a text is what a symbolic link points to."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", **how) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            if isinstance(data, str):
                info.type, info.linkname = tarfile.SYMTYPE, data
                archive.addfile(info)
            else:
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def layer(version: str = HERE, **files: bytes) -> bytes:
    """A layer in which a Python stands."""
    return tarred({PYTHON: f"\x7fELF\0{version}\0".encode(), **files})


def config(layers: Sequence[bytes], architecture: str = "amd64", **more: Any) -> dict[str, Any]:
    told = {"Env": ["PATH=/opt/bin:/bin", "LANG=C.UTF-8"], "Cmd": ["python3"], "Hostname": "a1b2c3", **more}
    return {
        "architecture": architecture,
        "os": "linux",
        "config": told,
        "rootfs": {"type": "layers", "diff_ids": [sha256(each) for each in layers]},
        "history": [{"created_by": "somebody", "created": "2024-01-01T00:00:00Z"} for _ in layers],
    }


def saved(
    layers: Sequence[bytes], told: Mapping[str, Any] | None = None, *, packed: bool = False, name: str = "base:1"
) -> dict[str, Any]:
    """Give the files of an archive by `docker save`."""
    written = json.dumps(told or config(layers)).encode()
    files: dict[str, Any] = {f"{sha256(written)[7:]}.json": written}
    for number, each in enumerate(layers):
        files[f"{number}/layer.tar"] = gzip.compress(each, mtime=0) if packed else each
    listed = {
        "Config": next(iter(files)),
        "RepoTags": ["base:1"],
        "Layers": [f"{n}/layer.tar" for n in range(len(layers))],
    }
    return {**files, "manifest.json": json.dumps([listed]).encode()}


def blob(files: dict[str, Any], data: bytes, kind: str, **more: Any) -> dict[str, Any]:
    """Add a blob to the files of an OCI layout, and describe it."""
    files[f"blobs/sha256/{sha256(data)[7:]}"] = data
    return {"mediaType": kind, "digest": sha256(data), "size": len(data), **more}


def layout(*images: tuple[Sequence[bytes], Mapping[str, Any]], nested: bool = False) -> dict[str, Any]:
    """Give the files of an OCI layout of images: their layers and configuration."""
    files: dict[str, Any] = {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}'}
    listed = []
    for layers, told in images:
        kind = "application/vnd.oci.image.layer.v1.tar+gzip"
        manifest = {
            "schemaVersion": 2,
            "config": blob(files, json.dumps(told).encode(), "application/vnd.oci.image.config.v1+json"),
            "layers": [blob(files, gzip.compress(each, mtime=0), kind) for each in layers],
        }
        target = {"os": told["os"], "architecture": told["architecture"]}
        kind = "application/vnd.oci.image.manifest.v1+json"
        listed.append(blob(files, json.dumps(manifest).encode(), kind, platform=target))
    index = {"schemaVersion": 2, "manifests": listed}
    if nested:
        inner = blob(files, json.dumps(index).encode(), "application/vnd.oci.image.index.v1+json")
        index = {"schemaVersion": 2, "manifests": [inner]}
    return {**files, "index.json": json.dumps(index).encode()}


def wheel(name: str, files: Mapping[str, bytes], version: str = "1.0", tag: str = "py3-none-any") -> tuple[str, bytes]:
    """Give the name and the bytes of a wheel."""
    told = f"{name}-{version}.dist-info"
    kind = f"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: {tag}\n"
    listed = {**files, f"{told}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode()}
    listed |= {f"{told}/WHEEL": kind.encode()}
    listed |= {f"{told}/RECORD": "".join(f"{each},,\n" for each in [*listed, f"{told}/RECORD"]).encode()}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for each, data in listed.items():
            info = zipfile.ZipInfo(each, (1980, 1, 1, 0, 0, 0))
            info.external_attr = (0o100755 if each.endswith(".so") else 0o100644) << 16
            archive.writestr(info, data)
    return f"{name}-{version}-{tag}.whl", out.getvalue()


def installer() -> tuple[str, bytes]:
    """Give the wheel of the tool that unpacks wheels, from where it is installed."""
    found = importlib.metadata.distribution("installer")
    listed = [each for each in found.files or () if each.parts[0] == "installer" and each.suffix == ".py"]
    return wheel("installer", {each.as_posix(): each.read_binary() for each in listed}, found.version)


def context(files: Mapping[str, bytes] | None = None, python: str = MINOR, target: str = "linux/amd64") -> Context:
    """A build context of a package `small`, with more files in it."""
    name, data = wheel("small", {"small/__init__.py": b"ONE = 1\n", **(files or {})})
    tool, unpacker = installer()
    lock = f"# Python {python}, {target}\nsmall==1.0 --hash={sha256(data)}\n"
    scripts = importlib.resources.files("ketch.image")
    made = {
        "requirements.txt": lock.encode(),
        f"wheels/{name}": data,
        f"tools/{tool}": unpacker,
        "model/churn.ketch": b"a model",
        SBOM: b"{}",
        **{each: scripts.joinpath(each).read_bytes() for each in COPIED},
    }
    told = Config({"LANG": "C", "HOME": "/tmp"}, ("python3", "/app"), ("serve",), {"b": "2"}, ("python3", "x"), 9696)
    return Context("churn", "churn:1", python, "base:1", Recipe(platform=target, tag="churn:1"), told, made)


def put(path: Path, files: Mapping[str, bytes | str], **how: Any) -> Path:
    """Write an archive to a file."""
    path.write_bytes(tarred(files, **how))
    return path
