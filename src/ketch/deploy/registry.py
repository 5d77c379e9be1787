"""A registry of images, by its own protocol: no engine signs in, so that no password is written anywhere.

image --*Push*--> blobs that are not there yet, then the manifest under its tag --> its digest
"""

import re
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ketch import extras
from ketch.deploy import Shipment, images
from ketch.deploy.images import Layer, Packed
from ketch.errors import CloudRefused
from ketch.steps import Done, Got, Hands, Secret, Step, Text
from ketch.steps.rest import session

VARIABLE: Final = "KETCH_REGISTRY_URL"  # another address for every registry, such as that of a proxy
LONGEST: Final = 600.0  # seconds that a layer may take
ABSENT: Final = ("404",)
PINNED: Final = re.compile(r"[a-z0-9][a-z0-9._:/-]*@sha256:[0-9a-f]{64}")  # an image by its digest
ASKED: Final = re.compile(r'(\w+)="([^"]*)"')
TAKES: Final = ", ".join(
    f"application/vnd.{each}+json"
    for each in (
        "oci.image.manifest.v1",
        "oci.image.index.v1",
        "docker.distribution.manifest.v2",
        "docker.distribution.manifest.list.v2",
    )
)


@dataclass(frozen=True)
class Registry:
    """A registry: its host, and how a user and a password for it are found."""

    host: str
    login: Callable[[Hands], tuple[str, str]]

    def address(self, hands: Hands) -> str:
        """Give its address."""
        return (hands.environ.get(VARIABLE) or f"https://{self.host}").rstrip("/")

    def ask(self, method: str, path: str, hands: Hands, **more: Any) -> Any:
        """Ask it, and sign in by its own way when it wants to know who asks.

        Raises:
            CloudRefused: it says no, or cannot be reached.
        """
        requests: Any = extras.load("requests")
        url, kept = urllib.parse.urljoin(self.address(hands) + "/", path), ("registry", self.host)
        self._require_own(url, hands)
        try:
            for _ in range(2):
                headers = {**more.get("headers", {}), **hands.kept.get(kept, {})}
                answer = session(hands).request(
                    method, url, **{**more, "headers": headers}, timeout=LONGEST, allow_redirects=False
                )
                if answer.status_code != 401:
                    break
                hands.kept[kept] = self._signed_in(answer.headers.get("WWW-Authenticate", ""), hands)
        except requests.RequestException as error:
            raise CloudRefused(
                f"{self.host} cannot be reached: {error}", reason="unreachable", hint="Check the network."
            ) from None
        if answer.status_code >= 400:
            raise CloudRefused(
                f"{self.host} answered {method} {path} with {answer.status_code}: {answer.text[:300]}",
                reason=str(answer.status_code),
                hint="Who is signed in must be allowed to push to this registry.",
            )
        return answer

    def _signed_in(self, challenge: str, hands: Hands) -> dict[str, str]:
        requests: Any = extras.load("requests")
        user, password = self.login(hands)
        kind, _, told = challenge.partition(" ")
        asked = dict(ASKED.findall(told))
        basic = requests.auth.HTTPBasicAuth(user, str.__str__(password))
        if kind.lower() != "bearer":
            made = requests.Request("GET", self.address(hands), auth=basic).prepare()
            return {"Authorization": made.headers["Authorization"]}
        realm = asked.pop("realm", "")
        self._require_own(realm, hands)
        answer = session(hands).get(realm, params=asked, auth=basic, timeout=LONGEST, allow_redirects=False)
        found = answer.json() if answer.status_code == 200 else {}
        token = found.get("token") or found.get("access_token")
        if not token:
            raise CloudRefused(
                f"{self.host} does not let us sign in: {answer.status_code}",
                reason="401",
                hint="Who is signed in must be allowed to push to this registry.",
            )
        return {"Authorization": f"Bearer {token}"}

    def _require_own(self, url: str, hands: Hands) -> None:
        if urllib.parse.urlsplit(url)[:2] != urllib.parse.urlsplit(self.address(hands))[:2]:
            raise CloudRefused(
                f"{self.host} sends us elsewhere: {url[:80]}",
                reason="elsewhere",
                hint="A password goes to the registry alone: push the image yourself, and give it with --image.",
            )


@dataclass(frozen=True)
class Tagged:
    """Ask a registry which image a tag stands for: gives its digest."""

    registry: Registry
    repository: str
    tag: str

    def sent(self) -> Mapping[str, object]:
        """Say what is asked."""
        return {"http": f"HEAD https://{self.registry.host}/v2/{self.repository}/manifests/{self.tag}"}

    def done(self, hands: Hands) -> Any:
        """Ask it."""
        path = f"v2/{self.repository}/manifests/{self.tag}"
        answer = self.registry.ask("HEAD", path, hands, headers={"Accept": TAKES})
        return answer.headers["Docker-Content-Digest"]


@dataclass(frozen=True)
class Push:
    """Build an image and push it: each layer that is not there, then the manifest; gives its digest."""

    registry: Registry
    repository: str
    tag: str
    packed: Callable[[Hands], Packed] = field(repr=False)

    def sent(self) -> Mapping[str, object]:
        """Say what is asked."""
        return {"push": f"{self.registry.host}/{self.repository}:{self.tag}"}

    def done(self, hands: Hands) -> Any:
        """Build and push it."""
        packed = self.packed(hands)
        for blob in packed.blobs:
            self._sent(blob, hands)
        self.registry.ask(
            "PUT",
            f"v2/{self.repository}/manifests/{self.tag}",
            hands,
            data=packed.manifest,
            headers={"Content-Type": packed.media},
        )
        return packed.digest

    def _sent(self, blob: Layer, hands: Hands) -> None:
        try:
            self.registry.ask("HEAD", f"v2/{self.repository}/blobs/{blob.digest}", hands)
            return
        except CloudRefused as error:
            if error.reason not in ABSENT:
                raise
        hands.told(f"  {blob.digest[:19]}: {len(blob.data):,} bytes")
        begun = self.registry.ask("POST", f"v2/{self.repository}/blobs/uploads/", hands)
        place = begun.headers["Location"]
        place += ("&" if "?" in place else "?") + urllib.parse.urlencode({"digest": blob.digest})
        headers = {"Content-Type": "application/octet-stream"}
        self.registry.ask("PUT", place, hands, data=blob.data, headers=headers)


def exchanged(host: str, token: str, hands: Hands) -> str:
    """Exchange a token of Azure for one of its registry, good for a few hours.

    Raises:
        CloudRefused: the registry does not know who asks.
    """
    registry = Registry(host, lambda hands: ("", ""))
    form = {"grant_type": "access_token", "service": host, "access_token": str.__str__(token)}
    answer = registry.ask("POST", "oauth2/exchange", hands, data=form)
    return Secret(answer.json()["refresh_token"])


def pushed(registry: Registry, repository: str, shipment: Shipment, **recipe: Any) -> tuple[Step, Text]:
    """Make the step that builds and pushes an image unless its tag is there, and the image's name by its digest."""
    tag = images.image_tag(shipment, **recipe)
    push = Push(registry, repository, tag, lambda hands: images.packed(shipment, hands, **recipe))
    step = Step(
        "image",
        f"Image {registry.host}/{repository}:{tag}",
        look=Tagged(registry, repository, tag),
        act=lambda found, got: Done(found) if found else push,
        absent=ABSENT,
    )
    return step, Text((f"{registry.host}/{repository}@", Got("image")))
