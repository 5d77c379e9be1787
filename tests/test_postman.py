"""What callers are given: `ketch client` and its Postman collection, which newman runs against a real service."""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pandas as pd
import pytest

from ketch import page
from ketch.bundle import Bundle, read
from ketch.codec import JSON
from ketch.pack import Options, compose
from ketch.page import postman
from tests.doors import KEY, Small
from tests.running import ketch, lines, serving
from tests.test_page import ANSWERS, hostile, ran

NEWMAN = "newman@6"


@pytest.fixture(scope="module")
def newman(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Newman from npm, in a folder of its own that stays for the next run."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not on this machine; Debian's packages nodejs and npm have it")
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "ketch-tests" / "newman"
    program = cache / "node_modules" / ".bin" / "newman"
    if not program.exists():
        cache.parent.mkdir(parents=True, exist_ok=True)
        own = tempfile.mkdtemp(dir=cache.parent)  # several of us may do this at once
        command = ["npm", "install", "--no-audit", "--no-fund", "--loglevel=error", "--prefix", own, NEWMAN]
        subprocess.run(command, check=True, timeout=110)
        try:
            Path(own).rename(cache)
        except OSError:
            shutil.rmtree(own)
    return program


def requests(item: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for each in item["item"]:
        if "item" in each:
            yield from requests(each)
        else:
            yield each


def run(newman: Path, collection: Path, key: str = "") -> dict[str, Any]:
    """Run a collection, and give newman's own account of it."""
    report = collection.with_suffix(".report")
    command = [str(newman), "run", str(collection), "--reporters", "json", "--reporter-json-export", str(report)]
    done = subprocess.run([*command, "--env-var", f"apiKey={key}"], capture_output=True, text=True, timeout=100)
    found: dict[str, Any] = json.loads(report.read_text())["run"]
    return found | {"code": done.returncode}


@pytest.mark.service
@pytest.mark.parametrize("guarded", [False, True])
def test_newman_finds_nothing_wrong(newman: Path, small: Small, tmp_path: Path, guarded: bool) -> None:
    collection = tmp_path / "churn.json"
    with serving(small.bundle, home=small.home, KETCH_API_KEYS=KEY if guarded else "") as url:
        done = ketch("client", small.bundle, "--url", url, "--postman", "-o", collection, home=small.home)
        assert (done.returncode, done.stdout) == (0, "")
        found = run(newman, collection, KEY if guarded else "")
        assert found["failures"] == []
        assert found["code"] == 0
        assert found["stats"]["requests"]["total"] == len(list(requests(json.loads(collection.read_text())))) > 20
        assert found["stats"]["assertions"]["total"] > 40
        assert run(newman, collection, "wrong")["stats"]["assertions"]["failed"] > 20 or not guarded


@pytest.mark.service
def test_newman_finds_a_model_that_answers_otherwise(newman: Path, small: Small, tmp_path: Path) -> None:
    """A collection of one model, run against another that answers a thousandth differently."""
    opened = small.predictor.bundle
    moved = [[row[0] - 1e-3, row[1] + 1e-3] for row in opened.golden.probabilities or ()]
    golden = msgspec.structs.replace(opened.golden, probabilities=moved)
    collection = tmp_path / "churn.json"
    with serving(small.bundle, home=small.home) as url:
        made = postman.collection(msgspec.structs.replace(opened, golden=golden), url)
        collection.write_text(json.dumps(made))
        found = run(newman, collection)
    failed = {each["source"]["name"] for each in found["failures"]}
    assert failed == {"One row", "Many rows", "With reasons", "MLflow: records", "MLflow: split", "Azure ML"}


@pytest.mark.service
def test_newman_on_several_models_of_other_kinds(newman: Path, small: Small, tmp_path: Path) -> None:
    for name, bundle in kinds(small.home).items():
        (tmp_path / f"{name}.ketch").write_bytes(bundle)
    bundles = sorted(tmp_path.glob("*.ketch"))
    with serving(*bundles, home=small.home) as url:
        for path in bundles:
            collection = path.with_suffix(".json")
            done = ketch(
                "client", path, "--url", f"{url}/models/{path.stem}", "--postman", "-o", collection, home=small.home
            )
            assert done.returncode == 0, done.stderr
            assert run(newman, collection)["failures"] == [], path


def kinds(home: Path) -> dict[str, bytes]:
    """Models that answer with a number, with one of several classes and with several targets."""
    from sklearn.linear_model import LinearRegression, LogisticRegression
    from sklearn.multioutput import MultiOutputRegressor

    given = [[float(a), float(b)] for a in range(6) for b in range(5)]
    columns: dict[str, list[object]] = {"x": [a for a, _ in given], "y": [b for _, b in given]}
    frame = pd.DataFrame(columns)
    many = LogisticRegression(max_iter=500).fit(frame, ["abc"[int(a) % 3] for a, _ in given])
    number = LinearRegression().fit(frame, [3 * a - b for a, b in given])
    both = MultiOutputRegressor(LinearRegression()).fit(frame, given)
    models = {"species": many, "price": number, "both": both}
    return {name: compose(model, columns, Options(name=name), home=home).data for name, model in models.items()}


# ---- without newman ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ANSWERS)
def test_a_collection_holds_whatever_a_contract_says(small: Small, kind: str) -> None:
    golden = small.predictor.bundle.golden
    none = msgspec.structs.replace(golden, rows=[], labels=[], probabilities=None, scores=None)
    opened = msgspec.structs.replace(hostile(small, **ANSWERS[kind]), golden=none)
    made = json.loads(json.dumps(postman.collection(opened, "http://localhost:9696/models/x/")))
    assert made["info"]["schema"].endswith("/v2.1.0/collection.json")
    values = {each["key"]: each["value"] for each in made["variable"]}
    assert values == {"baseUrl": "http://localhost:9696", "modelUrl": "http://localhost:9696/models/x", "apiKey": ""}
    assert all(each["event"][0]["script"]["exec"] for each in requests(made))


def test_a_collection_holds_no_key(small: Small) -> None:
    done = ketch("client", small.bundle, "--postman", "--key", home=small.home, KETCH_API_KEY=KEY)
    assert done.returncode == 0
    assert KEY not in done.stdout
    assert json.loads(done.stdout)["auth"]["bearer"][0]["value"] == "{{apiKey}}"


@pytest.mark.service
@pytest.mark.parametrize("form", page.SNIPPETS)
def test_what_the_command_prints_works(small: Small, form: str) -> None:
    with serving(small.bundle, home=small.home, KETCH_API_KEYS=KEY) as url:
        done = ketch("client", small.bundle, "--url", url, f"--{form}", "--key", home=small.home)
        assert (done.returncode, done.stderr) == (0, "")
        assert set(ran(form, done.stdout)) == {"churn", "churn_probability"}


def test_without_a_flag_the_command_says_what_it_can_print(small: Small, tmp_path: Path) -> None:
    done = ketch("client", small.bundle, home=small.home)
    assert lines(done.stdout)[0] == "churn at http://localhost:9696"
    for form in ("postman", *page.SNIPPETS):
        assert f"--{form}" in done.stdout
    everything = json.loads(ketch("client", small.bundle, "--json", home=small.home).stdout)
    assert everything.keys() == {"postman", *page.SNIPPETS}
    for form in page.SNIPPETS:
        assert ketch("client", small.bundle, f"--{form}", home=small.home).stdout.strip() == everything[form].strip()
    refused = ketch("client", small.bundle, "--curl", "-o", tmp_path / "no" / "folder", home=small.home)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "cannot be written" in refused.stderr


def test_an_example_is_a_golden_row_with_its_answer(small: Small) -> None:
    found = page.examples(small.predictor.bundle)
    assert len(found) > 5
    for each in found:
        assert small.predictor.predict(each.row) == pytest.approx(each.answer)


def test_a_broken_row_is_refused_as_foreseen(small: Small) -> None:
    opened: Bundle = read(small.bundle.read_bytes(), "churn.ketch")
    row, foreseen = page.broken(opened.contract)
    with pytest.raises(type(foreseen)) as caught:
        small.predictor.decode(json.dumps(row).encode(), JSON)
    assert caught.value.errors == foreseen.errors
    empty = page.broken(msgspec.structs.replace(opened.contract, fields=()))[0]
    with pytest.raises(type(foreseen)):
        small.predictor.decode(json.dumps(empty).encode(), JSON)
    optional = [msgspec.structs.replace(each, required=False) for each in opened.contract.fields]
    _, other = page.broken(msgspec.structs.replace(opened.contract, fields=tuple(optional)))
    assert other.errors[0]["code"] == "wrong-type"
