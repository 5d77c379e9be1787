"""Pushing an image by the registry's own protocol, to a registry on loopback that wants to know who pushes."""

import base64
import hashlib
import io
import json
import os
import re
import tarfile
import tempfile
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ketch.deploy.images import packed, read_archive
from ketch.deploy.registry import Push, Registry, Tagged, exchanged
from ketch.errors import CloudRefused, ImageError
from ketch.steps import Hands, Secret
from tests.clouds import Cut, hands, shipped
from tests.doors import Small
from tests.images import context, layer, put, saved
from tests.instances import listening

PASSWORD = "a-password-for-the-registry-alone"
NAME = "shop/ketch/churn"


class Held:
    """What the registry holds, and who asked what."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.url = ""
        self.realm = ""
        self.uploads = 0


class Handler(BaseHTTPRequestHandler):
    """The protocol of distribution, as far as a push needs it."""

    protocol_version = "HTTP/1.1"
    held: Held

    def _do(self) -> None:
        path, _, asked = self.path.partition("?")
        query = urllib.parse.parse_qs(asked)
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.held.asked.append(f"{self.command} {path}")
        if path == "/token":
            basic = base64.b64encode(f"oauth2accesstoken:{PASSWORD}".encode()).decode()
            good = self.headers.get("Authorization") == f"Basic {basic}" and query["scope"] == [
                "repository:x:pull,push"
            ]
            self._sent(200 if good else 401, json.dumps({"token": "for-this-registry"}).encode())
        elif path == "/oauth2/exchange":
            form = urllib.parse.parse_qs(data.decode())
            good = form["grant_type"] == ["access_token"] and form["access_token"] == ["of-azure"]
            self._sent(200 if good else 401, json.dumps({"refresh_token": "of-the-registry"}).encode())
        elif self.headers.get("Authorization") != "Bearer for-this-registry":
            told = f'Bearer realm="{self.held.realm}/token",service="here",scope="repository:x:pull,push"'
            self._sent(401, b"", {"WWW-Authenticate": told})
        else:
            self._held(path, query, data)

    do_GET = do_HEAD = do_POST = do_PUT = _do

    def _held(self, path: str, query: dict[str, list[str]], data: bytes) -> None:
        kind = path.removeprefix(f"/v2/{NAME}/")
        if kind == "blobs/uploads/" and self.command == "POST":
            self.held.uploads += 1
            self._sent(202, b"", {"Location": f"/v2/{NAME}/blobs/uploads/{self.held.uploads}?state=x"})
        elif kind.startswith("blobs/uploads/") and self.command == "PUT":
            digest = query["digest"][0]
            assert digest == "sha256:" + hashlib.sha256(data).hexdigest()
            self.held.blobs[digest] = data
            self._sent(201, b"")
        elif kind.startswith("blobs/"):
            self._sent(200 if kind.removeprefix("blobs/") in self.held.blobs else 404, b"")
        elif self.command == "PUT":
            named = [each["digest"] for each in [*json.loads(data)["layers"], json.loads(data)["config"]]]
            assert set(named) <= set(self.held.blobs)
            self.held.manifests[kind.removeprefix("manifests/")] = data
            self._sent(201, b"")
        else:
            found = self.held.manifests.get(kind.removeprefix("manifests/"))
            digest = "sha256:" + hashlib.sha256(found or b"").hexdigest()
            self._sent(200 if found else 404, b"", {"Docker-Content-Digest": digest})

    def _sent(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def registry() -> Iterator[Held]:
    """Run a registry on a port of this machine."""
    held = Held()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"held": held}))
    server.daemon_threads = True
    held.url = held.realm = f"http://127.0.0.1:{server.server_port}"
    with listening(server):
        yield held


def archive(folder: Path) -> Path:
    """Write an image of two layers, as `docker save` does."""
    files = {"config.json": b'{"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}'}
    for name in ("a", "b"):
        inside = io.BytesIO()
        with tarfile.open(fileobj=inside, mode="w") as layer:
            layer.addfile(tarfile.TarInfo(name), io.BytesIO())
        files[f"{name}/layer.tar"] = inside.getvalue()
    told = [{"Config": "config.json", "RepoTags": ["churn:1"], "Layers": ["a/layer.tar", "b/layer.tar"]}]
    files["manifest.json"] = json.dumps(told).encode()
    path = folder / "image.tar"
    with tarfile.open(path, "w") as made:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            made.addfile(member, io.BytesIO(data))
    return path


def push(folder: Path) -> Push:
    return Push(
        Registry("registry.example", lambda hands: ("oauth2accesstoken", Secret(PASSWORD))),
        NAME,
        "1",
        lambda _: read_archive(archive(folder)),
    )


def here(held: Held, session: Cut | None = None, told: list[str] | None = None) -> Hands:
    return hands({"KETCH_REGISTRY_URL": held.url}, session, told)


def test_an_image_is_pushed_once(tmp_path: Path) -> None:
    with registry() as held:
        told: list[str] = []
        digest = push(tmp_path).done(here(held, told=told))
        assert digest == "sha256:" + hashlib.sha256(held.manifests["1"]).hexdigest()
        assert Tagged(push(tmp_path).registry, NAME, "1").done(here(held)) == digest
        uploads = held.uploads
        assert uploads == len(held.blobs) == 3
        push(tmp_path).done(here(held))
        assert held.uploads == uploads  # layers that are there are not sent again
        assert PASSWORD not in "".join([*told, *held.asked, str(push(tmp_path).sent())])


def test_nothing_is_left_of_the_archive_of_an_image(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, base = tmp_path / "below", put(tmp_path / "base.tar", saved([layer()]))
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    ship = replace(shipped(small.bundle, small.home), context=lambda **words: context({"small/fast.so": b"\x7fELF"}))
    one, other = (packed(ship, hands(dict(os.environ)), base=str(base)) for _ in range(2))
    assert one == other
    with pytest.raises(ImageError):
        packed(ship, hands(dict(os.environ)), base=str(put(tmp_path / "none.tar", {})))
    assert not [*folder.iterdir()]


def test_a_push_that_was_interrupted_goes_on_anywhere(tmp_path: Path) -> None:
    whole = Cut()
    with registry() as held:
        push(tmp_path).done(here(held, whole))
    for at in range(1, whole.sent + 1):
        with registry() as held:
            with pytest.raises(KeyboardInterrupt):
                push(tmp_path).done(here(held, Cut(at, after=True)))
            push(tmp_path).done(here(held))
            assert len(held.blobs) == 3


def test_no_password_goes_anywhere_else(tmp_path: Path) -> None:
    with registry() as held, registry() as other:
        held.realm = other.url
        with pytest.raises(CloudRefused, match="elsewhere"):
            push(tmp_path).done(here(held))
        assert other.asked == []


def test_a_registry_that_does_not_know_us_is_told_in_words(tmp_path: Path) -> None:
    with registry() as held:
        stranger = Registry("registry.example", lambda hands: ("oauth2accesstoken", Secret("wrong")))
        with pytest.raises(CloudRefused, match="does not let us sign in") as caught:
            Tagged(stranger, NAME, "1").done(here(held))
        assert "wrong" not in caught.value.message
        assert re.search("push", caught.value.hint)


def test_azures_token_is_exchanged_for_one_of_the_registry() -> None:
    with registry() as held:
        assert exchanged("acme.azurecr.io", Secret("of-azure"), here(held)) == "of-the-registry"
