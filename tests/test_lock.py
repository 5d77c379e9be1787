"""The environment, frozen: what is captured, what is locked, and that a model answers from each lock."""

import csv
import functools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as some
from packaging.requirements import Requirement

from ketch import bundle, extras, lock
from ketch.errors import LockError, NotInstalled, TrustError
from ketch.lock import Environment
from ketch.lock.files import pipfile, pipfile_lock, pyproject
from ketch.pack import Options, compose
from tests.models import forest, rows, vectorized
from tests.running import fresh, ketch, serving

ROOT = Path(__file__).parent.parent
PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
HASH = "--hash=sha256:" + "0" * 64
NOTHING = Environment(PYTHON, ())
MADE = {"ketch": "0.1.0", "python": "3.11.7", "platform": "linux-x86_64"}


def packed(tmp_path: Path, model: object, form: str = "original") -> Path:
    """Pack a model, as one that serves in its original form where that is asked for."""
    data = compose(model, None, Options(target="churn"), home=tmp_path / "home").data
    path = tmp_path / "churn.ketch"
    if form == "original":
        opened = bundle.read(data, "churn")
        files = {name: opened.files[name] for name in opened.files if name not in {"program.json", "model.onnx"}}
        manifest = msgspec.structs.replace(opened.manifest, serves="original")
        data = bundle.write(manifest, opened.contract, opened.golden, opened.profile, files)
    path.write_bytes(data)
    return path


def uv() -> str:
    found: str = extras.load("uv").find_uv_bin()
    return found


# ---- what a model imports --------------------------------------------------------------------------


def test_what_the_files_import_is_captured_with_what_that_needs() -> None:
    found = lock.capture(["sklearn.linear_model._logistic.LogisticRegression", "numpy.ndarray"], [])
    assert {"joblib", "numpy", "scikit-learn", "scipy", "threadpoolctl"} <= found.keys()
    assert found["scikit-learn"] == version("scikit-learn")
    assert list(found) == sorted(found)


def test_the_rest_of_the_environment_is_not() -> None:
    assert not {"pandas", "pyarrow", "pytest", "flask", "ketch"} & lock.capture(["sklearn.svm.SVC"], ["numpy"]).keys()
    assert lock.capture(["a_module_of_nobody.Thing", "builtins.dict"], ["no-such-distribution"]) == {}


@pytest.mark.parametrize(("model", "wants"), [(vectorized, False), (forest, True)])
def test_a_bundle_names_pandas_only_where_the_model_is_handed_a_frame(
    model: Callable[[], Any], wants: bool, tmp_path: Path
) -> None:
    opened = bundle.read(packed(tmp_path, model()).read_bytes(), "churn")
    lines = opened.files["env/requirements.txt"].decode().split()
    assert any(line.startswith("pandas==") for line in lines) == wants
    assert f"scikit-learn=={version('scikit-learn')}" in lines
    assert {line.partition("==")[0] for line in lines} <= opened.manifest.versions.keys()


# ---- what a bundle needs ---------------------------------------------------------------------------


def test_an_original_needs_what_it_was_made_with_and_a_compiled_form_only_what_runs_it() -> None:
    versions = {**MADE, "numpy": "2.1.0", "scikit-learn": "1.5.2", "xgboost": "3.0.0", "onnxruntime": "1.20"}
    own = tuple(lock.own_requirements())
    original = lock.environment(versions, serves="original", members=["original/0-model"])
    assert original.python == "3.11"
    assert original.requirements == (
        "numpy==2.1.0", "onnxruntime==1.20", "scikit-learn==1.5.2", "xgboost-cpu==3.0.0", *own
    )  # fmt: skip
    assert lock.environment(versions, serves="compiled", members=["program.json"]).requirements == own
    graph = lock.environment(versions, serves="compiled", members=["program.json", "model.onnx"])
    assert graph.requirements == ("numpy==2.1.0", "onnxruntime==1.20", *own)


def test_ketchs_own_requirements_are_those_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    known = set(map(str, map(Requirement, project["dependencies"])))
    assert {str(Requirement(each)) for each in lock.own_requirements()} == known
    arrow = set(map(str, map(Requirement, project["optional-dependencies"]["arrow"])))
    assert {str(Requirement(each)) for each in lock.own_requirements(["arrow"])} == known | arrow


TEXTS = some.text() | some.text("a1.-_=@ ;\n/:#[]")


@given(TEXTS, TEXTS)
def test_a_manifest_cannot_smuggle_anything_but_names_and_versions(name: str, number: str) -> None:
    try:
        found = lock.environment({**MADE, name: number}, serves="original", members=[])
    except LockError:
        return
    for each in set(found.requirements) - set(lock.own_requirements()):
        assert re.fullmatch(r"[a-z0-9][a-z0-9-]*(==[0-9][A-Za-z0-9.!+_-]*)?", each, re.ASCII)


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("evil @ https://example.org/evil.whl #", "1"),
        ("--index-url=https://example.org", "1"),
        ("numpy", "1 --index-url https://example.org"),
        ("numpy", "1\n-r /etc/passwd"),
        ("numpy", "1; import os"),
        ("python", "3.11 --help"),
        ("python", ""),
    ],
)
def test_what_is_no_name_or_version_is_refused(name: str, number: str) -> None:
    with pytest.raises(LockError) as caught:
        lock.environment({**MADE, name: number}, serves="original", members=[])
    assert caught.value.hint == "Pack the model again."


# ---- the files -------------------------------------------------------------------------------------

PUBLIC = "https://pypi.org/simple"
RESOLVED = [
    {
        "name": "numpy",
        "version": "2.1.0",
        "marker": "sys_platform == 'linux'",
        "index": PUBLIC,
        "sdist": {"hashes": {"sha256": "c"}},
        "wheels": [{"hashes": {"sha256": "b"}}, {"hashes": {"sha256": "a"}}],
    }
]


def test_the_pipfile_and_its_lock_say_what_was_resolved() -> None:
    needed = Environment("3.11", ("numpy==2.1.0", "psycopg[binary]>=3.1", "uvloop>=0.20; sys_platform != 'win32'"))
    text = pipfile(needed, [PUBLIC])
    read = tomllib.loads(text)
    assert read["requires"] == {"python_version": "3.11"}
    assert read["packages"]["psycopg"] == {"version": ">=3.1", "extras": ["binary"]}
    assert read["packages"]["uvloop"] == {"version": ">=0.20", "markers": 'sys_platform != "win32"'}
    found = json.loads(pipfile_lock(text, RESOLVED, [PUBLIC]))
    assert found["default"]["numpy"] == {
        "hashes": ["sha256:a", "sha256:b", "sha256:c"],
        "index": "pypi",
        "markers": "sys_platform == 'linux'",
        "version": "==2.1.0",
    }
    assert found["_meta"]["sources"] == read["source"]
    other = pipfile(Environment("3.11", ("numpy==2.1.1",)), [PUBLIC])
    assert json.loads(pipfile_lock(other, RESOLVED, [PUBLIC]))["_meta"]["hash"] != found["_meta"]["hash"]


def test_two_versions_for_two_platforms_are_refused_because_a_pipfile_cannot_say_it() -> None:
    with pytest.raises(LockError, match="numpy has no version that runs on both"):
        pipfile_lock(pipfile(NOTHING, [PUBLIC]), RESOLVED * 2, [PUBLIC])


def test_another_index_stands_in_the_files_and_the_public_one_need_not() -> None:
    private = "https://packages.example.org/simple"
    assert "index" not in tomllib.loads(pyproject(NOTHING, "churn"))["tool"]["uv"]
    both = tomllib.loads(pyproject(NOTHING, "churn", [private, PUBLIC]))["tool"]["uv"]["index"]
    assert [(each["url"], each.get("default", False)) for each in both] == [(private, False), (PUBLIC, True)]
    assert [each["url"] for each in tomllib.loads(pipfile(NOTHING, [private, PUBLIC]))["source"]] == [private, PUBLIC]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """An index of one package, on loopback, with a password that it does not look at."""
    folder = tmp_path_factory.mktemp("shop")
    source, simple = folder / "source", folder / "simple" / "tiny-thing"
    (source / "src/tiny_thing").mkdir(parents=True)
    (source / "src/tiny_thing/__init__.py").touch()
    build = '[build-system]\nrequires = ["uv_build"]\nbuild-backend = "uv_build"\n'
    (source / "pyproject.toml").write_text(f'[project]\nname = "tiny-thing"\nversion = "1.5"\n{build}')
    subprocess.run([uv(), "build", "--wheel", "--quiet", "--offline", "--out-dir", simple, source], check=True)
    page = "".join(f'<a href="{each.name}">{each.name}</a>' for each in simple.glob("*.whl"))
    (simple / "index.html").write_text(f"<!DOCTYPE html><html><body>{page}</body></html>")
    handler = functools.partial(Quiet, directory=str(folder))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(server.serve_forever)
        yield f"127.0.0.1:{server.server_port}/simple", simple.parent
        server.shutdown()
    server.server_close()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.mark.parametrize("told", ["uv", "pip", "pip's file"])
def test_the_users_own_index_is_used_and_named_and_its_password_is_not(
    told: str, shop: tuple[str, Path], tmp_path: Path
) -> None:
    place, secret = f"http://{shop[0]}", f"http://user:secret@{shop[0]}"
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("UV_", "PIP_"))}
    (tmp_path / "pip.conf").write_text(f"[global]\nindex-url = {secret}\n")
    tell = {"uv": "UV_DEFAULT_INDEX", "pip": "PIP_INDEX_URL", "pip's file": "PIP_CONFIG_FILE"}[told]
    environ = {**kept, "XDG_CONFIG_HOME": str(tmp_path), "NO_PROXY": "127.0.0.1"}
    environ[tell] = str(tmp_path / "pip.conf") if told == "pip's file" else secret
    files = lock.freeze(Environment(PYTHON, ("tiny-thing==1.5",)), "churn", environ)
    assert not [name for name, content in files.items() if b"secret" in content]
    assert b"tiny-thing==1.5 ; " in files["requirements.txt"]
    assert [each["url"] for each in json.loads(files["Pipfile.lock"])["_meta"]["sources"]] == [place]
    assert json.loads(files["Pipfile.lock"])["default"]["tiny-thing"]["index"] == "index-1"
    folder = tmp_path / "again"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    check = [uv(), "lock", "--check", "--quiet", "--python", sys.executable]
    subprocess.run(check, check=True, cwd=folder, env={**kept, "XDG_CONFIG_HOME": str(tmp_path)})


def test_a_pip_that_lies_in_the_current_folder_is_not_run(
    shop: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pip").mkdir()
    (tmp_path / "pip" / "__main__.py").write_text("open('ran', 'w').close()\n")
    (tmp_path / "pip.conf").write_text(f"[global]\nindex-url = http://{shop[0]}\n")
    monkeypatch.chdir(tmp_path)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("UV_", "PIP_"))}
    environ = {**kept, "XDG_CONFIG_HOME": str(tmp_path), "PIP_CONFIG_FILE": str(tmp_path / "pip.conf")}
    assert lock.freeze(Environment(PYTHON, ("tiny-thing==1.5",)), "churn", {**environ, "NO_PROXY": "127.0.0.1"})
    assert not (tmp_path / "ran").exists()


def test_a_place_that_only_this_machine_has_is_no_place_for_a_lock(shop: tuple[str, Path]) -> None:
    environ = {**os.environ, "UV_DEFAULT_INDEX": shop[1].as_uri()}
    with pytest.raises(LockError, match="only this machine has") as caught:
        lock.freeze(Environment(PYTHON, ("tiny-thing==1.5",)), "churn", environ)
    assert "UV_DEFAULT_INDEX" in caught.value.hint


def test_members_are_replaced_and_the_others_stay_as_they_are(tmp_path: Path) -> None:
    opened = bundle.read(packed(tmp_path, vectorized()).read_bytes(), "churn")
    data = bundle.replaced(opened, {"env/uv.lock": b"locked"})
    again = bundle.read(data, "churn")
    assert again.files == {**opened.files, "env/uv.lock": b"locked"}
    assert again.sha256 != opened.sha256
    assert bundle.replaced(opened, {}) == (tmp_path / "churn.ketch").read_bytes()


# ---- an environment of its own ---------------------------------------------------------------------


def made(home: Path, needed: Environment = NOTHING, locked: bytes | None = None) -> Path:
    return lock.interpreter(needed, locked, home=home, environ=os.environ)


def left(home: Path) -> list[str]:
    folder = home / "cache" / "environments"
    return sorted(each.name for each in folder.iterdir()) if folder.is_dir() else []


def test_an_environment_is_made_once_and_holds_this_ketch(tmp_path: Path) -> None:
    python = made(tmp_path)
    asked = [
        str(python),
        "-I",
        "-c",
        "import ketch, importlib.metadata as m; print(m.version('ketch'), ketch.__file__)",
    ]
    told = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.split()
    assert told[0] == version("ketch")
    assert Path(told[1]).is_relative_to(tmp_path)
    before = python.parent.stat().st_mtime_ns
    assert made(tmp_path) == python
    assert python.parent.stat().st_mtime_ns == before
    assert left(tmp_path) == [python.parent.parent.name]


def test_two_at_once_make_one_whole_environment(tmp_path: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        found = set(pool.map(lambda _: made(tmp_path), range(3)))
    assert len(found) == 1
    assert left(tmp_path) == [found.pop().parent.parent.name]


def test_what_fails_leaves_nothing_that_could_be_used(tmp_path: Path) -> None:
    with pytest.raises(LockError) as caught:
        made(tmp_path, Environment("3.99", ()))
    assert caught.value.message == "Python 3.99, which the bundle was made with, is not on this machine"
    assert caught.value.hint == "Install it, for example with: uv python install 3.99"
    environ = {**os.environ, "UV_DEFAULT_INDEX": "http://127.0.0.1:9/simple", "UV_HTTP_RETRIES": "0"}
    with pytest.raises(LockError, match="cannot be put together") as caught:
        lock.interpreter(
            Environment(PYTHON, ("no-such-thing==1",)), None, home=tmp_path, environ={**environ, "UV_OFFLINE": "1"}
        )
    assert "UV_DEFAULT_INDEX" in caught.value.hint
    assert left(tmp_path) == []


@pytest.mark.skipif(os.name == "nt", reason="an environment links to its Python only on POSIX")
def test_a_python_that_is_gone_is_named(tmp_path: Path) -> None:
    made(tmp_path).unlink()
    with pytest.raises(LockError, match="is gone") as caught:
        made(tmp_path)
    assert left(tmp_path)[0] in caught.value.hint


def test_without_uv_the_hint_installs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uv", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotInstalled, match="uv is not installed") as caught:
        made(tmp_path)
    assert caught.value.hint == "Install it with: pip install 'ketch[lock]'"


@pytest.mark.skipif(sys.platform != "linux", reason="locks are for Linux; elsewhere nothing of them is read")
@pytest.mark.parametrize(
    "line",
    [
        f"evil @ https://example.org/evil.whl {HASH}",
        "https://example.org/evil.whl",
        "--index-url https://example.org/simple",
        "-r /etc/passwd",
        "-e .",
        "numpy==2.1.0",  # without a hash
        f"numpy==2.1.0 --extra-index-url https://example.org {HASH}",
        f"numpy==2.1.0 \\\n {HASH} \\\n --index-url=https://example.org",
        f"numpy>=2.1.0 {HASH}",
    ],
)
def test_a_lock_in_a_bundle_can_only_name_versions_with_hashes(line: str, tmp_path: Path) -> None:
    with pytest.raises(LockError, match="a line that is not taken"):
        made(tmp_path, NOTHING, f"# a comment\n{line}\n".encode())
    assert left(tmp_path) == []


@pytest.mark.skipif(sys.platform != "linux", reason="locks are for Linux; elsewhere nothing of them is read")
def test_a_lock_that_lacks_something_says_how_to_lock_again(tmp_path: Path) -> None:
    needed = Environment(PYTHON, ("numpy==2.1.0", "pyarrow>=16"), ("arrow",))
    with pytest.raises(LockError, match="no pyarrow") as caught:
        made(tmp_path, needed, f"numpy==2.1.0 {HASH}\n".encode())
    assert caught.value.hint == "Lock it with: ketch lock BUNDLE --extra arrow"


def test_packages_that_are_not_well_known_need_trust() -> None:
    known = Environment(PYTHON, ("scikit-learn==1.5.2", *lock.own_requirements(["arrow", "postgres"])))
    lock.require_known(known, None, "churn")
    lock.require_known(known, f"cffi==1 ; sys_platform == 'linux' {HASH}\n".encode(), "churn")
    with pytest.raises(TrustError, match=r"churn has packages that Ketch does not know: sciklt-learn$"):
        lock.require_known(Environment(PYTHON, ("Sciklt_learn==1.5.2",)), None, "churn;sha256:ab")
    with pytest.raises(TrustError, match="evil"):
        lock.require_known(known, f"evil==1 {HASH}\n".encode(), "churn")


# ---- the command line ------------------------------------------------------------------------------


def test_what_somebody_else_wrote_is_not_overwritten(tmp_path: Path) -> None:
    path = packed(tmp_path, vectorized())
    before = path.read_bytes()
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    done = ketch("lock", path, "-o", tmp_path, home=tmp_path / "home")
    assert done.returncode == 1
    assert "was not written by Ketch\n  Choose another folder with -o FOLDER." in done.stderr
    assert path.read_bytes() == before
    assert (tmp_path / "pyproject.toml").read_text() == "[project]\n"


@pytest.mark.parametrize("words", [("lock",), ("score", "rows.csv", "-o", "out.csv", "--isolated")])
def test_a_model_file_has_no_environment(words: Sequence[str], tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"\x80\x04N.")
    verb, *rest = words
    done = ketch(verb, "model.bin", *rest, home=tmp_path / "home", cwd=tmp_path)
    assert done.returncode == 1
    assert "model.bin is not a bundle\n  Make one from it with: ketch pack model.bin" in done.stderr


def test_a_bundle_with_strange_packages_is_not_run_in_its_environment(tmp_path: Path) -> None:
    path = packed(tmp_path, vectorized())
    opened = bundle.read(path.read_bytes(), "churn")
    manifest = msgspec.structs.replace(opened.manifest, versions={**opened.manifest.versions, "evil": "1"})
    path.write_bytes(bundle.write(manifest, opened.contract, opened.golden, opened.profile, opened.files))
    home = tmp_path / "home"
    done = ketch("score", path, "rows.csv", "-o", "out.csv", home=home, KETCH_ISOLATED="yes")
    assert done.returncode == 1
    assert "has packages that Ketch does not know: evil" in done.stderr
    assert f"--trust=sha256:{bundle.identity(path.read_bytes())}" in done.stderr
    assert left(home) == []
    approved = f"--trust=sha256:{bundle.identity(path.read_bytes())}"
    environ = {"UV_OFFLINE": "1", "UV_NO_CACHE": "1"}
    done = ketch("score", path, "rows.csv", "-o", "out.csv", "--isolated", approved, home=home, cwd=None, **environ)
    assert "cannot be put together" in done.stderr  # it is tried now


# ---- the real thing: an index, empty environments, answers -----------------------------------------


def packing(test: Any) -> Any:
    """Mark a test that resolves or installs."""
    for mark in (
        pytest.mark.packing,
        pytest.mark.timeout(600),
        pytest.mark.skipif(sys.platform != "linux", reason="locks are for Linux"),
    ):
        test = mark(test)
    return test


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ketch as a wheel of this tree."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([uv(), "build", "--wheel", "--quiet", "--out-dir", folder, ROOT], check=True)
    return next(folder.glob("*.whl"))


@dataclass(frozen=True)
class Locked:
    """A bundle with its lock, a table, and what the bundle answers here."""

    folder: Path
    bundle: Path
    told: str
    answers: list[dict[str, str]]


@pytest.fixture(scope="module", params=["original", "compiled"])
def locked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Locked:
    folder = tmp_path_factory.mktemp(request.param)
    path = packed(folder, vectorized(), request.param)
    with (folder / "rows.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows()[0])
        writer.writeheader()
        writer.writerows(rows())
    done = fresh("lock", path, "-o", folder / "env", home=folder / "home")
    assert done.returncode == 0, done.stderr
    answers = answered([sys.executable, "-m", "ketch"], folder)
    return Locked(folder, path, done.stdout + done.stderr, answers)


def answered(command: Sequence[str | Path], folder: Path, *words: str) -> list[dict[str, str]]:
    """Ask with `ketch score`, from an empty folder, and give the answered rows."""
    with tempfile.TemporaryDirectory() as empty:
        out = Path(empty) / "out.csv"
        subprocess.run(
            [*command, "score", folder / "churn.ketch", folder / "rows.csv", "-o", out, *words],
            check=True,
            cwd=empty,
            env={**os.environ, "KETCH_HOME": str(folder / "home")},
        )
        with out.open(newline="") as file:
            return list(csv.DictReader(file))


def same(one: list[dict[str, str]], other: list[dict[str, str]]) -> bool:
    return len(one) == len(other) == len(rows()) and all(
        a["churn"] == b["churn"] and abs(float(a["churn_probability"]) - float(b["churn_probability"])) < 1e-9
        for a, b in zip(one, other, strict=True)
    )


def asks(python: Path, wheel: Path, locked: Locked) -> None:
    """Put Ketch itself into an environment that has only what the lock names, and ask there."""
    where = ["--quiet", "--python", str(python)]
    before = subprocess.run([uv(), "pip", "freeze", *where], check=True, capture_output=True, text=True).stdout.lower()
    assert "flask==" in before
    assert "ketch" not in before
    assert ("scikit-learn" in before) == ("original" in locked.folder.name)
    subprocess.run([uv(), "pip", "install", *where, "--no-deps", "--no-index", wheel], check=True)
    assert same(answered([python, "-I", "-m", "ketch"], locked.folder), locked.answers)


def alone(**environ: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in {"VIRTUAL_ENV", "PYTHONPATH"}}
    return {**kept, "PIPENV_IGNORE_VIRTUALENVS": "1", "PIPENV_VENV_IN_PROJECT": "1", "PIPENV_NOSPIN": "1", **environ}


@packing
def test_a_locked_bundle_carries_its_lock(locked: Locked) -> None:
    opened = bundle.read(locked.bundle.read_bytes(), "churn")
    for name in lock.FILES:
        assert opened.files[f"env/{name}"] == (locked.folder / "env" / name).read_bytes()
    assert f"packages for Python {PYTHON} on Linux x86_64 and aarch64" in locked.told
    text = (locked.folder / "env" / "uv.lock").read_text()
    assert {each["source"]["registry"] for each in tomllib.loads(text)["package"] if "registry" in each["source"]}
    assert "file://" not in text


@packing
def test_uv_installs_what_is_locked(locked: Locked, wheel: Path, tmp_path: Path) -> None:
    folder = tmp_path / "env"
    shutil.copytree(locked.folder / "env", folder)
    subprocess.run(
        [uv(), "sync", "--locked", "--quiet", "--python", sys.executable], check=True, cwd=folder, env=alone()
    )
    asks(folder / ".venv/bin/python", wheel, locked)


@packing
@pytest.mark.parametrize("locked", ["original"], indirect=True)
def test_pip_installs_what_is_locked_with_every_hash(locked: Locked, wheel: Path, tmp_path: Path) -> None:
    subprocess.run([uv(), "venv", "--quiet", "--python", sys.executable, tmp_path / "venv"], check=True)
    python = tmp_path / "venv/bin/python"
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--require-hashes"]
    subprocess.run([*install, "-r", locked.folder / "env/requirements.txt"], check=True)
    asks(python, wheel, locked)


@packing
@pytest.mark.parametrize("locked", ["original"], indirect=True)
def test_pipenv_verifies_and_installs_what_is_locked(locked: Locked, wheel: Path, tmp_path: Path) -> None:
    folder = tmp_path / "env"
    shutil.copytree(locked.folder / "env", folder)
    pipenv = [sys.executable, "-m", "pipenv"]
    subprocess.run([*pipenv, "verify"], check=True, cwd=folder, env=alone())
    subprocess.run([*pipenv, "sync", "--python", sys.executable], check=True, cwd=folder, env=alone())
    asks(folder / ".venv/bin/python", wheel, locked)
    (folder / "Pipfile").write_text((folder / "Pipfile").read_text().replace("click", "flick"))
    assert subprocess.run([*pipenv, "verify"], cwd=folder, env=alone(), capture_output=True).returncode != 0


@packing
def test_every_package_has_a_wheel_for_aarch64_with_a_hash_of_the_lock(locked: Locked, tmp_path: Path) -> None:
    systems = [f"manylinux{each}_aarch64" for each in ("2014", "_2_17", "_2_27", "_2_28")]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:", "--require-hashes"]
    command += [word for each in systems for word in ("--platform", each)]
    command += ["--python-version", PYTHON, "--dest", str(tmp_path)]
    subprocess.run([*command, "-r", locked.folder / "env/requirements.txt"], check=True)
    found = [each.name for each in tmp_path.iterdir()]
    pinned = tomllib.loads((locked.folder / "env/uv.lock").read_text())["package"]
    assert len(found) == len(pinned) - 1  # the environment itself is no package
    assert all(each.endswith(("aarch64.whl", "-none-any.whl")) for each in found)
    assert any(each.startswith("msgspec") and each.endswith("aarch64.whl") for each in found)


@packing
def test_isolated_answers_from_an_environment_of_its_own(locked: Locked) -> None:
    with ThreadPoolExecutor(2) as pool:  # two who start at the same time
        waiting = [pool.submit(answered, [sys.executable, "-m", "ketch"], locked.folder, "--isolated") for _ in "ab"]
        assert all(same(each.result(), locked.answers) for each in waiting)
    assert len(left(locked.folder / "home")) == 1
    with serving(locked.bundle, "--isolated", home=locked.folder / "home") as url:
        request = urllib.request.Request(
            f"{url}/predict", json.dumps(rows()[0]).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            answer = json.load(response)
    assert abs(answer["churn_probability"] - float(locked.answers[0]["churn_probability"])) < 1e-9
    assert len(left(locked.folder / "home")) == 1


@packing
def test_a_bundle_without_a_lock_is_resolved_when_it_is_run(tmp_path: Path) -> None:
    path = packed(tmp_path, vectorized())
    (tmp_path / "rows.csv").write_text("contract,partner,tenure,fee\nmonth,yes,3,20.5\n")
    done = fresh("score", path, tmp_path / "rows.csv", "-o", tmp_path / "out.csv", "--isolated", home=tmp_path / "home")
    assert done.returncode == 0, done.stderr
    assert "1 row scored" in done.stderr
    made = next((tmp_path / "home/cache/environments").iterdir())
    assert not list(made.glob("lib/python*/site-packages/pandas"))
    assert list(made.glob(f"lib/python*/site-packages/scikit_learn-{version('scikit-learn')}.dist-info"))


@packing
def test_all_extras_of_ketch_install_together(tmp_path: Path) -> None:
    command = [uv(), "pip", "compile", "--quiet", "--no-build", "--universal", "--python-version", "3.11"]
    done = subprocess.run(
        [*command, "--all-extras", ROOT / "pyproject.toml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    brought = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    for each in (Requirement(line) for lines in brought.values() for line in lines):
        assert each.name == "ketch" or f"\n{lock.canonical(each.name)}==" in done.stdout
