"""Optional libraries and the sentence that installs each."""

import re
import sys
import tomllib
from pathlib import Path

import pytest

from ketch.errors import NotInstalled
from ketch.extras import EXTRAS, load


def test_an_installed_library_is_imported() -> None:
    assert load("numpy").__name__ == "numpy"
    assert load("scipy.sparse").__name__ == "scipy.sparse"


def test_a_missing_library_names_the_command_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXTRAS, "no_such_library", "sklearn")
    with pytest.raises(NotInstalled, match="no_such_library is not installed") as caught:
        load("no_such_library.inner")
    assert caught.value.hint == "Install it with: pip install 'ketch[sklearn]'"
    assert caught.value.status == 501


def test_a_library_that_lacks_something_itself_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "half_installed.py").write_text("import its_own_dependency\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(EXTRAS, "half_installed", "sklearn")
    with pytest.raises(ModuleNotFoundError, match="its_own_dependency"):
        load("half_installed")
    assert "half_installed" not in sys.modules


def test_a_namespace_of_several_libraries_names_the_one_that_is_missing() -> None:
    with pytest.raises(NotInstalled, match=r"google\.auth is not installed") as caught:
        load("google.auth.no_such_part")
    assert caught.value.hint == "Install it with: pip install 'ketch[google]'"
    with pytest.raises(ModuleNotFoundError, match=r"google\.nobody"):
        load("google.nobody")


def spread(extra: str, known: dict[str, list[str]]) -> list[str]:
    """List what an extra brings, with what those extras bring that it names."""
    found = []
    for each in known[extra]:
        own = re.fullmatch(r"ketch\[(.*)\]", each)
        found += [inner for name in own[1].split(",") for inner in spread(name, known)] if own else [each]
    return found


def test_every_extra_named_exists_and_brings_its_library() -> None:
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text("utf-8"))["project"]
    known = project["optional-dependencies"]
    names = {"azure.identity": "azure-identity", "google.auth": "google-auth", "google.oauth2": "google-auth"}
    names |= {"google.protobuf": "protobuf", "sklearn": "scikit-learn", "yaml": "pyyaml"}
    names |= {"detect_secrets": "detect-secrets", "xgboost": "xgboost-cpu"}
    names |= {"botocore": "boto3", "urllib3": "requests"}
    names |= {"cyclonedx": "cyclonedx-python-lib"}
    names |= {"grpc": "grpcio", "jwt": "pyjwt", "opentelemetry": "opentelemetry-sdk"}
    for root, extra in EXTRAS.items():
        brought = {re.split(r"[\[>=<;]", each)[0] for each in spread(extra, known)}
        assert names.get(root, root) in brought, (root, extra)
