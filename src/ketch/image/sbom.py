"""The bill of materials of an image, as CycloneDX 1.6: every wheel with its hash and licence, and the model."""

import json
import uuid
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from email.message import Message
from typing import Any, Final

from ketch import extras
from ketch.bundle import Bundle
from ketch.image import Recipe, Wheel, metadata

OF: Final = uuid.UUID("6f2c1f3e-7a53-5b0e-9d1f-0d6a2c4be9a1")  # the namespace of our serial numbers
LICENCE: Final = "License :: "
LONGEST: Final = 100  # letters; some packages give the whole text as the name


def written(opened: Bundle, wheels: Sequence[Wheel], recipe: Recipe) -> bytes:
    """Write the bill of materials; the same input gives the same bytes.

    Raises:
        NotInstalled: the library that writes it is missing.
    """
    bom: Any = extras.load("cyclonedx.model.bom")
    component: Any = extras.load("cyclonedx.model.component")
    kinds, name = component.ComponentType, opened.manifest.name
    image = component.Component(name=name, version=opened.sha256[:12], type=kinds.CONTAINER, bom_ref="image")
    packages = [_package(each, component) for each in wheels]
    learned = component.Component(
        name=name,
        version=opened.sha256[:12],
        type=kinds.MACHINE_LEARNING_MODEL,
        bom_ref="model",
        hashes=_hashes(opened.sha256),
    )
    identity = " ".join([opened.sha256, recipe.platform, *sorted(each.sha256 for each in wheels)])
    made: Any = bom.Bom(
        components=[learned, *packages],
        serial_number=uuid.uuid5(OF, identity),
        metadata=bom.BomMetaData(component=image, timestamp=datetime.fromtimestamp(recipe.epoch, UTC)),
    )
    made.register_dependency(image, [learned, *packages])
    found: Any = json.loads(extras.load("cyclonedx.output.json").JsonV1Dot6(made).output_as_string())
    if not recipe.dated:
        del found["metadata"]["timestamp"]
    return json.dumps(found, indent=1, sort_keys=True).encode() + b"\n"


def _hashes(digest: str) -> list[Any]:
    model: Any = extras.load("cyclonedx.model")
    return [model.HashType(alg=model.HashAlgorithm.SHA_256, content=digest)]


def _package(wheel: Wheel, component: Any) -> Any:
    told = metadata(wheel.data)
    purl: Any = extras.load("packageurl").PackageURL(type="pypi", name=wheel.name, version=wheel.version)
    return component.Component(
        name=wheel.name,
        version=wheel.version,
        description=(told.get("Summary") or "")[:300] or None,
        bom_ref=str(purl),
        purl=purl,
        hashes=_hashes(wheel.sha256),
        licenses=list(_licences(told)),
    )


def _licences(told: Message) -> Iterable[Any]:
    kinds: Any = extras.load("cyclonedx.model.license")
    if expression := told.get("License-Expression"):
        yield kinds.LicenseExpression(expression)
        return
    listed = [each.rpartition(" :: ")[2] for each in told.get_all("Classifier", ()) if each.startswith(LICENCE)]
    said = (told.get("License") or "").strip().partition("\n")[0][:LONGEST]
    for each in listed or ([said] if said else []):
        yield kinds.DisjunctiveLicense(name=each)
