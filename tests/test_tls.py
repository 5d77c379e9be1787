"""https, and callers who must show a certificate of theirs."""

import socket
import ssl
from pathlib import Path

import pytest
import requests

from tests.doors import ROW, Small
from tests.running import ketch, serving
from tests.test_bearer import certificate

pytestmark = pytest.mark.service


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return certificate(tmp_path_factory.mktemp("tls"))


def test_https_and_nothing_else(small: Small, files: tuple[Path, Path]) -> None:
    authority, chain = files
    with serving(small.bundle, "--tls-cert", chain, "--tls-key", chain, home=small.home) as url:
        assert url.startswith("https://localhost:")
        answered = requests.post(url + "/predict", json=ROW, verify=str(authority))
        assert answered.json() == small.predictor.predict(dict(ROW))
        assert answered.headers["strict-transport-security"].startswith("max-age=")
        with pytest.raises(requests.exceptions.SSLError):
            requests.get(url + "/health/live")
        with pytest.raises(requests.exceptions.ConnectionError):
            requests.get(url.replace("https:", "http:") + "/health/live")
        old = ssl.create_default_context(cafile=str(authority))
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_2
        plain = socket.create_connection(("localhost", int(url.rpartition(":")[2])))
        with old.wrap_socket(plain, server_hostname="localhost") as wrapped:
            assert wrapped.version() == "TLSv1.2"


def test_callers_show_a_certificate(small: Small, files: tuple[Path, Path], tmp_path: Path) -> None:
    authority, chain = files
    _, stranger = certificate(tmp_path)
    words = ("--tls-cert", chain, "--tls-key", chain, "--tls-client-ca", authority)
    with serving(small.bundle, *words, home=small.home) as url:
        answered = requests.post(url + "/predict", json=ROW, verify=str(authority), cert=str(chain))
        assert answered.json() == small.predictor.predict(dict(ROW))
        for cert in (None, str(stranger)):
            with pytest.raises(requests.exceptions.ConnectionError):
                requests.post(url + "/predict", json=ROW, verify=str(authority), cert=cert)
        with pytest.raises(requests.exceptions.ConnectionError):  # also for the health
            requests.get(url + "/health/live", verify=str(authority))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--tls-cert", "CHAIN"], "https needs a certificate and its key"),
        (["--tls-client-ca", "CHAIN"], "https needs a certificate and its key"),
        (["--tls-cert", "nothing.pem", "--tls-key", "CHAIN"], "cannot be used"),
        (["--tls-cert", "CHAIN", "--tls-key", "AUTHORITY"], "cannot be used"),
        (["--tls-cert", "CHAIN", "--tls-key", "CHAIN", "--tls-client-ca", "nothing.pem"], "cannot be used"),
    ],
)
def test_what_cannot_be_used_is_said_at_once(
    small: Small, files: tuple[Path, Path], words: list[str], told: str
) -> None:
    named = {"AUTHORITY": str(files[0]), "CHAIN": str(files[1])}
    done = ketch("serve", small.bundle, *(named.get(word, word) for word in words), home=small.home)
    assert done.returncode == 1
    assert told in done.stderr
    assert "Traceback" not in done.stderr
