"""Images of a shipment: how they are named, built and tried by the engine of this machine, and read from an archive.

Shipment, recipe --*Build*--> an image that gave its golden answers --*packed*--> Packed, as a registry holds it
"""

import gzip
import hashlib
import io
import json
import tarfile
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from ketch import image
from ketch.bundle import Bundle
from ketch.deploy import Shipment
from ketch.errors import CloudRefused, ImageError, UsageError
from ketch.steps import Hands, Step, shown

ABSENT: Final = "absent"
DOCKER_LAYER: Final = "application/vnd.docker.image.rootfs.diff.tar.gzip"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG: Final = "application/vnd.docker.container.image.v1+json"


def fingerprint(*told: object, digits: int = 8) -> str:
    """Give some digits for a content, the same for the same; what earlier steps give counts by its name."""
    return hashlib.sha256(json.dumps(shown(told), sort_keys=True).encode()).hexdigest()[:digits]


def image_tag(shipment: Shipment, **recipe: Any) -> str:
    """Name an image by all that it is made of, so that the same is not built again, and another never taken for it."""
    return f"{shipment.label}-{fingerprint(version('ketch'), recipe)}"


@dataclass(frozen=True)
class Known:
    """Ask the engine for an image by its tag; with `pushed`, for the digest that a registry knows it by."""

    tag: str
    engine: str = ""
    pushed: bool = False

    def sent(self) -> Mapping[str, object]:
        """Say what is asked."""
        return {"image": self.tag}

    def done(self, hands: Hands) -> Any:
        """Give the reference that containers can be started from.

        Raises:
            CloudRefused: there is no such image, or it was never pushed. NoEngine: there is no engine.
        """
        try:
            found = image.sibling("engine").find(self.engine).inspect(self.tag)
        except ImageError as error:
            if error.code != ImageError.code:  # no engine at all
                raise
            raise CloudRefused(f"{self.tag} is not here", reason=ABSENT, hint="Build it.") from None
        if not self.pushed:
            return {"tag": self.tag, "reference": self.tag}
        repository = self.tag.rpartition(":")[0]
        digests = [each for each in found.get("RepoDigests") or () if each.partition("@")[0] == repository]
        if not digests:
            raise CloudRefused(f"{self.tag} was not pushed", reason=ABSENT, hint="Push it.")
        return {"tag": self.tag, "reference": digests[0]}


@dataclass(frozen=True)
class Build:
    """Build an image, start it, and see that it gives its golden answers; with `push`, send it to its registry."""

    context: Callable[..., Any] | None = field(repr=False)
    opened: Bundle = field(repr=False)
    tag: str
    recipe: Mapping[str, Any]
    engine: str = ""
    push: bool = False

    def sent(self) -> Mapping[str, object]:
        """Say what is done."""
        told = {"build": self.tag, **{name: shown(value) for name, value in self.recipe.items() if value}}
        return told | ({"push": self.tag} if self.push else {})

    def done(self, hands: Hands) -> Any:
        """Do it, and give the reference that containers can be started from.

        Raises:
            ImageError: it cannot be built, or does not answer as it must.
        """
        if self.context is None:
            raise UsageError("There is nothing to build an image from", hint="Give a model.")
        engines: Any = image.sibling("engine")
        engine = engines.find(self.engine)
        native = next(each for each in image.PLATFORMS if engines.is_native(each))
        made = self.context(**{"platform": native, **self.recipe, "tag": self.tag})
        hands.told("  it is built, started, and asked for its golden predictions")
        image.sibling("proof").build(engine, made, self.opened)
        if self.push:
            engine.push(self.tag)
        return Known(self.tag, self.engine, self.push).done(hands)


def built(
    shipment: Shipment, name: str, tag: str, recipe: Mapping[str, Any], *, engine: str = "", push: bool = False
) -> Step:
    """Make the step that builds an image where it is not there yet, and gives its `reference`."""
    kind = recipe.get("mode", "service")
    return Step(
        name,
        f"Build the image of the {kind}" + (" and push it" if push else ""),
        Build(shipment.context, shipment.opened, tag, recipe, engine, push),
        look=Known(tag, engine, push),
        absent=(ABSENT,),
    )


# ---- archives ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layer:
    """One blob of an image."""

    digest: str
    data: bytes = field(repr=False)
    media: str = DOCKER_LAYER


@dataclass(frozen=True)
class Packed:
    """An image as a registry holds it: the manifest, and the blobs that it names."""

    manifest: bytes = field(repr=False)
    media: str
    blobs: tuple[Layer, ...]

    @property
    def digest(self) -> str:
        """Name the image by its manifest."""
        return "sha256:" + hashlib.sha256(self.manifest).hexdigest()


def packed(shipment: Shipment, hands: Hands, *, base: str = "", **recipe: Any) -> Packed:
    """Build the image of a shipment, replay its golden predictions in it, and give it as a registry holds it.

    With `base`, an archive of a base image, it is made without any container engine.

    Raises:
        UsageError: the shipment has nothing to build an image of.
        ImageError: there is no engine, or the image is not good.
    """
    if shipment.context is None:
        raise UsageError("There is nothing to build an image of", hint="Deploy a bundle with ketch deploy.")
    made = shipment.context(**recipe)
    with tempfile.TemporaryDirectory(prefix="ketch-image-", ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "image.tar"
        if base:
            image.sibling("oci").archive(made, Path(base), path, environ=hands.environ)
        else:
            _saved(made, shipment.opened, path, hands)
        return read_archive(path)


def _saved(made: image.Context, opened: Bundle, path: Path, hands: Hands) -> None:
    engine: Any = image.sibling("engine").find()
    hands.told(f"  {engine.name} builds it")
    image.sibling("proof").build(engine, made, opened)
    words = ("push", made.tag, f"docker-archive:{path}") if engine.name == "buildah" else ("save", "-o", path, made.tag)
    engine.call(*map(str, words))


def read_archive(path: Path) -> Packed:
    """Read an archive of one image: an OCI layout, or what `docker save` writes.

    Raises:
        ImageError: it is neither.
    """
    with tarfile.open(path) as archive:
        members = {each.name.removeprefix("./"): each for each in archive.getmembers() if each.isfile()}

        def read(name: str) -> bytes:
            if name not in members:
                raise ImageError(f"{path.name} lacks {name}", hint="Build the image again.")
            found = archive.extractfile(members[name])
            return found.read() if found else b""

        if "manifest.json" in members:
            return _docker(read)
        if "index.json" in members:
            return _layout(read)
    raise ImageError(f"{path.name} is no archive of an image", hint="Build the image again.")


def _layout(read: Callable[[str], bytes]) -> Packed:
    def blob(told: Mapping[str, Any]) -> bytes:
        return read("blobs/" + str(told["digest"]).replace(":", "/"))

    told = json.loads(read("index.json"))["manifests"][0]
    manifest = blob(told)
    read_as = json.loads(manifest)
    blobs = [Layer(each["digest"], blob(each), each["mediaType"]) for each in (*read_as["layers"], read_as["config"])]
    return Packed(manifest, str(told.get("mediaType") or read_as["mediaType"]), tuple(blobs))


def _docker(read: Callable[[str], bytes]) -> Packed:
    told = json.loads(read("manifest.json"))[0]
    layers = [_zipped(read(each)) for each in told["Layers"]]
    config = read(told["Config"])
    configured = Layer("sha256:" + hashlib.sha256(config).hexdigest(), config, DOCKER_CONFIG)
    manifest = {
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST,
        "config": _described(configured),
        "layers": [_described(each) for each in layers],
    }
    return Packed(json.dumps(manifest, indent=3).encode(), DOCKER_MANIFEST, (*layers, configured))


def _described(blob: Layer) -> dict[str, object]:
    return {"mediaType": blob.media, "size": len(blob.data), "digest": blob.digest}


def _zipped(data: bytes) -> Layer:
    """Compress a layer, always to the same bytes."""
    if data[:2] != b"\x1f\x8b":
        made = io.BytesIO()
        with gzip.GzipFile(fileobj=made, mode="wb", mtime=0, filename="", compresslevel=6) as packed:
            packed.write(data)
        data = made.getvalue()
    return Layer("sha256:" + hashlib.sha256(data).hexdigest(), data)
