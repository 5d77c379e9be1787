"""Who answers: the models of one server by name, and of each the version that answers, a rival and a shadow.

A version is replaced in one step: a question that was begun with the old one ends with it.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ketch.errors import NoSuchModel
from ketch.predict import Predictor


@dataclass(slots=True)
class Line:
    """One name, and its versions by their role; the rival gets `share` of the questions, the shadow a copy of all."""

    name: str
    versions: dict[str, Predictor]
    share: float = 0.0
    plain: bool = field(init=False)

    def __post_init__(self) -> None:
        self.plain = self.versions.keys() == {"champion"}

    @property
    def champion(self) -> Predictor:
        """Give the version that answers."""
        return self.versions["champion"]

    def choose(self, headers: Mapping[str, str], body: bytes) -> Predictor:
        """Give the version that answers a question: the same one for the same key, or the same body without a key."""
        if "rival" not in self.versions:
            return self.versions["champion"]
        key = headers.get("ketch-key", "").encode("utf-8", "replace") or body
        place = int.from_bytes(hashlib.blake2b(key, digest_size=8, person=b"ketch").digest()) / 2**64
        return self.versions["rival" if place < self.share else "champion"]


class Lineup:
    """The models served, the first of them where no name is given."""

    def __init__(self, lines: Mapping[str, Line], default: str = "") -> None:
        self.lines = dict(lines)
        self.default = default or next(iter(lines))

    @classmethod
    def of(cls, predictor: Predictor) -> "Lineup":
        """Make one of a single model."""
        return cls({predictor.name: Line(predictor.name, {"champion": predictor})})

    def line(self, name: str = "") -> Line:
        """Give a model by its name, the default one without.

        Raises:
            NoSuchModel: there is none of that name.
        """
        try:
            return self.lines[name or self.default]
        except KeyError:
            raise NoSuchModel(
                f"No model {name[:80]!r} is served here", hint=f"There are: {', '.join(sorted(self.lines))}"
            ) from None

    def version(self, name: str, version: str = "") -> Predictor:
        """Give a version of a model by what its reference or its SHA-256 says, the one that answers without.

        Raises:
            NoSuchModel: there is no such model, or no such version of it.
        """
        line = self.line(name)
        if not version:
            return line.champion
        for each in line.versions.values():
            if version in {version_of(each), each.bundle.sha256}:
                return each
        found = ", ".join(version_of(each) for each in line.versions.values())
        raise NoSuchModel(f"{line.name} has no version {version[:80]!r} here", hint=f"There are: {found}")

    def all(self) -> Iterator[tuple[Line, str, Predictor]]:
        """Give every version with its model and role."""
        for line in self.lines.values():
            for role, predictor in line.versions.items():
                yield line, role, predictor

    def replace(self, name: str, role: str, predictor: Predictor) -> None:
        """Let a version take another's place."""
        line = self.lines[name]
        line.versions = {**line.versions, role: predictor}


def version_of(predictor: Predictor) -> str:
    """Give the version's number in the store, else the beginning of its SHA-256."""
    return predictor.reference.partition(":")[2] or predictor.bundle.sha256[:12]
