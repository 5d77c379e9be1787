"""The eject button: projects that pass their own tests, answer as the bundle does, and hold any name."""

import functools
import json
import os
import pickle
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import joblib
import msgspec
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from ketch import bundle, export, lock, trust
from ketch.bundle import Bundle
from ketch.errors import CorruptBundle, InputError, LockError, NotInstalled, TrustError, UnsupportedModel
from ketch.export import TEMPLATES, Project
from ketch.export.training import without_ketch
from ketch.lock import Environment
from ketch.pack import Options, compose, read_table
from ketch.page import row_schema
from ketch.predict import Limits, Predictor, load, open_runner
from ketch.schema import Field
from ketch.schema.checks import Checker
from ketch.steps.files import write
from tests import models
from tests.running import ketch as run

pytestmark = pytest.mark.packing  # projects are made, and run without Ketch

ROOT = Path(__file__).parent.parent
HOSTILE = (
    "a\"b'c\\",
    'x\n"""\nimport os\nos.system(\'touch evil-was-here\')\n"""',
    "{{ 7 * 7 }} {% raw %} << name >> ${HOME} $(touch evil-was-here)",
    "</script><script>alert(1)</script><!--",
    "__import__('os').system('touch evil-was-here')",
    "`touch evil-was-here` **bold** [link](javascript:1) :red[x] $x^2$ | cell",
    "\u202egnitpmet\u202c \x1b[2J \x00 é 日本 😀",
    "$ref",
    "FROM scratch\nRUN evil # [tool.ruff]\n!include",
)
Row = dict[str, Any]


# ---- models ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """A model to export, how it is packed, and rows to ask that are not among the golden ones."""

    make: Callable[[Path], Any]
    rows: Sequence[Row]
    options: Mapping[str, Any]
    data: Callable[[], Any] | None = None
    service: str = "flask"
    skops: bool = True


def of(factory: Callable[[], Any], rows: Sequence[Row], **more: Any) -> Kind:
    own = {name: more.pop(name) for name in ("data", "service", "skops") if name in more}
    return Kind(lambda folder: factory(), rows, more, **own)


def two_files(folder: Path) -> list[str]:
    """Save a vectorizer and an estimator as two files, as a notebook does."""
    names = ["dv.bin", "model.bin"]
    for name, part in zip(names, models.vectorized(), strict=True):
        (folder / name).write_bytes(pickle.dumps(part))
    return [str(folder / name) for name in names]


@functools.cache
def coded() -> pd.DataFrame:
    made = models.table().copy()
    made["contract"] = pd.Categorical(made["contract"], categories=["two years", "month", "year"])
    made["partner"] = made["partner"] == "yes"
    made["fee"] = made["fee"].where(made.index % 7 > 0)
    return made


@functools.cache
def light() -> Any:
    import lightgbm

    made = lightgbm.LGBMClassifier(n_estimators=4, min_child_samples=5, verbose=-1, n_jobs=1)
    return made.fit(coded(), pd.Series(models.species()))


def light_file(folder: Path) -> str:
    import lightgbm

    made = lightgbm.LGBMClassifier(n_estimators=4, min_child_samples=5, verbose=-1, n_jobs=1)
    made.fit(models.table()[["tenure", "fee"]], models.yes_or_no()).booster_.save_model(folder / "light.txt")
    return str(folder / "light.txt")


def one_file(folder: Path) -> str:
    """Save a vectorizer and an estimator as one file."""
    joblib.dump({"dv": models.vectorized()[0], "model": [models.vectorized()[1]]}, folder / "both.joblib", compress=3)
    return str(folder / "both.joblib")


def raw() -> Any:
    """Give a Booster without scikit-learn's form, whose probabilities are one number for two classes."""
    import xgboost

    table = xgboost.DMatrix(models.table()[["tenure", "fee"]], models.yes_or_no())
    return xgboost.train({"objective": "binary:logistic", "nthread": 1}, table, 4)


def extreme_file(folder: Path) -> str:
    import xgboost

    made = xgboost.XGBClassifier(n_estimators=4, max_depth=3, n_jobs=1, enable_categorical=True)
    made.fit(coded(), models.yes_or_no()).save_model(folder / "model.ubj")
    return str(folder / "model.ubj")


@functools.cache
def cat() -> Any:
    import catboost

    quiet = {"verbose": 0, "allow_writing_files": False, "iterations": 4, "depth": 3, "thread_count": 1}
    texts = coded().assign(contract=coded()["contract"].astype(str))
    return catboost.CatBoostRegressor(**quiet).fit(texts, models.prices(), cat_features=["contract"])


@functools.cache
def together() -> Any:
    targets = [[row["tenure"] % 3, yes] for row, yes in zip(models.rows(), models.yes_or_no(), strict=True)]
    return KNeighborsClassifier(3).fit(models.numbers(), targets)


@functools.cache
def strange() -> Any:
    """A model all of whose names are hostile, classes and categories too."""
    columns = {name: [HOSTILE[(row + place) % len(HOSTILE)] for row in range(60)] for place, name in enumerate(HOSTILE)}
    model = make_pipeline(OneHotEncoder(handle_unknown="error"), LogisticRegression())
    return model.fit(pd.DataFrame(columns), [HOSTILE[row % 2] for row in range(60)])


HADOLINT = str(Path(sys.executable).with_name("hadolint"))
CUSTOMER: Row = {"contract": "month", "partner": "yes", "tenure": 3, "fee": 70.5}
NUMBERS: list[Row] = [{"tenure": 3, "fee": 70.5}, {"tenure": 71, "fee": 20}]
KINDS: dict[str, Kind] = {
    "pair": Kind(two_files, [CUSTOMER, {**CUSTOMER, "fee": 20, "vip": True}], {"target": "churn"}),
    "fastapi": Kind(one_file, [CUSTOMER], {"target": "churn", "threshold": 0.3}, service="fastapi", skops=False),
    "frame": of(models.imputed, [CUSTOMER, {"contract": "never seen", "fee": None}], target="churn", skops=False),
    "texts": of(models.texts, [{"text": "cheap money"}, {"text": ""}], target="kind", positive="ham"),
    "strange": of(strange, [], target=HOSTILE[1], positive=HOSTILE[1], name="strange"),
}
LATER: dict[str, Kind] = {  # of which some need libraries that take seconds to import
    "array": of(models.plain_forest, NUMBERS, data=lambda: models.table()[["tenure", "fee"]]),
    "number": of(models.plain_regression, NUMBERS, data=lambda: models.table()[["tenure", "fee"]], target="price"),
    "scores": of(models.vectors, NUMBERS, data=lambda: models.table()[["tenure", "fee"]], positive="early"),
    "groups": of(models.linear_vectors, NUMBERS, data=lambda: models.table()[["tenure", "fee"]]),
    "clusters": of(lambda: [models.clusters()], NUMBERS, data=lambda: models.table()[["tenure", "fee"]]),
    "outliers": of(models.outliers, NUMBERS, data=lambda: models.table()[["tenure", "fee"]]),
    "several": of(together, NUMBERS, data=lambda: models.table()[["tenure", "fee"]], target="kind,churn"),
    "lightgbm": of(light, [{**CUSTOMER, "partner": 1}, {"contract": "year"}]),
    "lightgbm-file": Kind(light_file, NUMBERS, {}),
    "booster": of(raw, NUMBERS, skops=False),
    "xgboost-file": Kind(extreme_file, [{**CUSTOMER, "partner": True}, {"tenure": 3, "partner": False}], {}),
    "catboost": of(cat, [{**CUSTOMER, "partner": 1}], target="price"),
}


@dataclass(frozen=True)
class Made:
    """A bundle with the project made of it, where that stands, and what it gave to somebody without Ketch."""

    opened: Bundle
    project: Project
    folder: Path
    home: Path

    @property
    def found(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(Path(f"{self.folder}.found.json").read_text("utf-8"))
        return found

    def text(self, name: str) -> str:
        return self.project.files[name].decode()


def packed(kind: Kind, folder: Path) -> Bundle:
    """Pack a model, and approve its files, so that no child process is asked whether they may be opened."""
    data = kind.data() if kind.data else None
    with pytest.MonkeyPatch.context() as patch:
        if not kind.skops:  # as where skops is not installed
            patch.setattr(trust, "as_skops", lambda model, home: None)
        made = compose(kind.make(folder), read_table(data), Options(**kind.options), home=folder / "home")
    opened = bundle.read(made.data, "test")
    for _, _, content in opened.originals:
        trust.record(trust.digest(content), {}, home=folder / "home")
    return opened


@pytest.fixture(scope="module")
def all_made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    return ejected(KINDS, tmp_path_factory)


@pytest.fixture(scope="module")
def later(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    return ejected(LATER, tmp_path_factory)


def ejected(kinds: Mapping[str, Kind], factory: pytest.TempPathFactory) -> dict[str, Made]:
    """Export models, and let one process without Ketch run them all: importing libraries takes seconds."""
    listed = {}
    for name, kind in kinds.items():
        folder = factory.mktemp(name)
        home = folder / "home"
        opened = packed(kind, folder)
        made = Made(opened, export.project(opened, home=home, service=kind.service), folder / name, home)
        write(made.project.files, made.folder)
        (folder / f"{name}.rows.json").write_text(json.dumps(rows_of(name, opened)), "utf-8")
        listed[name] = made
    program = Path(__file__).with_name("ejected.py")
    quick = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, program, *(each.folder for each in listed.values())],
        env={**os.environ, **quick},
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-4000:]
    for each in listed.values():
        assert each.found["passed"] == 0, done.stdout[-8000:]
    return listed


def rows_of(name: str, opened: Bundle) -> list[Row]:
    return [*(KINDS | LATER)[name].rows] or opened.golden.rows[:5]


@pytest.fixture(params=[*KINDS, *(pytest.param(name, marks=pytest.mark.packing) for name in LATER)])
def made(request: pytest.FixtureRequest) -> Made:
    found: dict[str, Made] = request.getfixturevalue("later" if request.param in LATER else "all_made")
    return found[request.param]


# ---- without Ketch -----------------------------------------------------------------------------------


def alike(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return list(one) == list(other) and all(alike(one[name], other[name]) for name in one)
    if isinstance(one, float):
        return bool(one == pytest.approx(other, rel=1e-6, abs=1e-9))
    return type(one) is type(other) and bool(one == other)


def test_a_project_passes_its_own_tests_and_answers_as_the_bundle_does(made: Made) -> None:
    original = Predictor(made.opened, open_runner(made.opened, home=made.home))
    wanted = original.predict(rows_of(made.folder.name, made.opened))
    for mine, theirs in zip(made.found["answers"], wanted, strict=True):
        assert alike(theirs, mine)
    assert {what for what, _ in made.found["page"]} & {"text", "error"}


@pytest.mark.parametrize("which", ["all_made", pytest.param("later", marks=pytest.mark.packing)])
def test_projects_are_linted(which: str, request: pytest.FixtureRequest) -> None:
    linted(*(each.folder for each in request.getfixturevalue(which).values()))


def linted(*folders: Path) -> None:
    for words in (["check", "--no-cache"], ["format", "--check", "--diff", "--no-cache"]):
        done = subprocess.run([sys.executable, "-m", "ruff", *words, *folders], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def test_a_project_never_names_ketch_in_a_program(made: Made) -> None:
    for name in made.project.files:
        if name.endswith((".py", ".toml", ".txt")) or name == "Dockerfile":
            assert "ketch" not in made.text(name).lower().replace("written by `ketch export`", ""), name


def test_a_project_pins_what_the_model_was_made_with_and_not_what_only_ketch_needs(made: Made) -> None:
    pinned = dict(line.split("==") for line in made.text("requirements.txt").split() if "==" in line)
    assert pinned.items() <= {**made.opened.manifest.versions}.items()
    assert "numpy" in pinned
    assert not {"msgspec", "click", "onnxruntime", "ketch"} & {*pinned}
    project = tomllib.loads(made.text("pyproject.toml"))
    assert project["project"]["dependencies"] == made.text("requirements.txt").split()
    assert project["project"]["name"] == f"{made.opened.manifest.name}-service"


def test_the_same_bundle_makes_the_same_project(all_made: dict[str, Made]) -> None:
    for name in ("pair", "strange"):
        made = all_made[name]
        assert export.project(made.opened, home=made.home) == made.project
        written = {str(path.relative_to(made.folder)): path for path in made.folder.rglob("*") if path.is_file()}
        left = {each for each in written if "__pycache__" not in each}
        assert {each.replace(os.sep, "/") for each in left} == set(made.project.files)


def test_model_files_are_the_originals_and_are_held_against_their_sums(all_made: dict[str, Made]) -> None:
    made = all_made["pair"]
    held = {name: data for name, data in made.project.files.items() if name.startswith("model/")}
    assert sorted(held.values()) == sorted(data for _, _, data in made.opened.originals)
    for name, data in held.items():
        assert f'"{Path(name).name}": "{trust.digest(data)}",' in made.text("model.py")
    changed = shutil.copytree(made.folder, made.folder.with_name("changed"))
    next((changed / "model").iterdir()).write_bytes(b"\x80\x04N.")
    with pytest.raises(ValueError, match="which FILES in model"):
        runpy.run_path(str(changed / "model.py"))


# ---- names -------------------------------------------------------------------------------------------


def programs(files: Mapping[str, bytes]) -> dict[str, str]:
    """Give all that is read as a program or as a page of text, without what differs from model to model by right."""
    told = {name: data.decode() for name, data in files.items() if not name.startswith("model/")}
    return {
        name: re.sub(r'"[\w.-]+": "[0-9a-f]{64}"|`[0-9a-f]{64}`', "...", text)
        for name, text in told.items()
        if not name.endswith(".json")
    }


def test_hostile_names_stand_in_json_only(all_made: dict[str, Made]) -> None:
    made = all_made["strange"]
    for text in programs(made.project.files).values():
        assert "evil" not in text
        assert "alert" not in text
        assert text.isascii()
    contract = json.loads(made.text("contract.json"))
    assert {each["name"] for each in contract["fields"]} == {*HOSTILE}
    assert contract["answer"]["target"] == HOSTILE[1]
    assert "\x1b" not in made.text("contract.json")
    assert not [*made.folder.rglob("evil*")]


def test_hostile_names_are_shown_by_the_page_as_they_are(all_made: dict[str, Made]) -> None:
    labels = [text for what, text in all_made["strange"].found["page"] if what == "label"]
    assert len(labels) == len(HOSTILE)
    for label in labels:
        assert "\n" not in label
        assert not re.search(r"(?<!\\)[`*<\[\]$:|_]", label), label


# names that Windows, Markdown, TOML, Docker or Python would make something of, and any others
NAMES = some.text(max_size=40) | some.sampled_from(HOSTILE)


def test_no_name_changes_a_program(all_made: dict[str, Made]) -> None:
    made = all_made["pair"]
    told = export.sibling("plain").read(made.opened, home=made.home)

    @settings(max_examples=20, deadline=None)
    @given(names=some.lists(NAMES, min_size=4, max_size=4, unique=True), target=NAMES, word=NAMES)
    def holds(names: list[str], target: str, word: str) -> None:
        found = export.composed(renamed(made.opened, names, target, word), told).files
        assert programs(found) == programs(made.project.files)
        read = json.loads(found["contract.json"])
        assert [each["name"] for each in read["fields"]] == names
        assert [each.get("label", "") for each in read["fields"]] == [word] * 4
        assert read["answer"]["target"] == target

    holds()


def renamed(opened: Bundle, names: Sequence[str], target: str, word: str) -> Bundle:
    """Give a bundle other names for its fields and its target, and a word to say of each."""
    known = dict(zip((each.name for each in opened.contract.fields), names, strict=True))
    fields = tuple(
        msgspec.structs.replace(each, name=known[each.name], label=word, unit=word, description=word)
        for each in opened.contract.fields
    )
    answer = msgspec.structs.replace(opened.contract.answer, target=target)
    rows = [{known[name]: value for name, value in row.items()} for row in opened.golden.rows]
    return msgspec.structs.replace(
        opened,
        contract=msgspec.structs.replace(opened.contract, fields=fields, answer=answer),
        golden=msgspec.structs.replace(opened.golden, rows=rows),
    )


@given(some.text() | some.sampled_from(HOSTILE))
def test_what_is_not_harmless_enters_no_program(text: str) -> None:
    if TEMPLATES.letters.fullmatch(text):
        assert TEMPLATES.harmless(text) == text
        assert not set(text) & set("\"'`\\\n{}$<>%#[]()&|;*")
    else:
        with pytest.raises(CorruptBundle):
            TEMPLATES.harmless(text)


# ---- what few models have ----------------------------------------------------------------------------


DATES = [
    "2026-01-31",
    "2026-02-30",
    "20260131",
    "2026-01-31T10:00:00",
    "2026-W05",
    "",
    5,
    True,
    "2026-01-31\n",
    "\uff12026-01-31",
]
MOMENTS = [*DATES, "2026-01-31 10:00", "2026-01-31T25:00:00", "2026-01-31T10:00:00.5+01:00", "2026-01-31T10Z"]


def test_dates_are_held_against_the_schema_as_ketch_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = (Field("day", "date", required=False), Field("at", "datetime", required=False))
    (tmp_path / "wire.py").write_bytes(TEMPLATES.rendered("wire.py", {"dated": True}))
    (tmp_path / "pyproject.toml").write_bytes(TEMPLATES.rendered("tools.toml", {}))
    (tmp_path / "model.py").touch()
    (tmp_path / "schema.json").write_text(json.dumps(row_schema(fields, Limits())))
    monkeypatch.setitem(sys.modules, "model", ModuleType("model"))
    faults = runpy.run_path(str(tmp_path / "wire.py"))["faults"]
    for name, values in {"day": DATES, "at": MOMENTS}.items():
        for value in values:
            wanted = [each.code for each in Checker(fields)({name: [value]}, 1).faults]
            assert [each["code"] for each in faults([{name: value}])] == wanted, value
    linted(tmp_path)


def test_every_type_of_column_is_made_as_it_was_in_training(all_made: dict[str, Made]) -> None:
    made = all_made["frame"]
    folder = shutil.copytree(made.folder, made.folder.with_name("every"))
    types = ["boolean", "coded", "date", "datetime", "dropped", "integer", "number", "numbers", "text"]
    values = [True, "b", "2026-01-31", "2026-01-31T10:00:00", "gone", 3, 2.5, 7, "x"]
    told = export.sibling("plain").read(made.opened, home=made.home).facts | {"types": types}
    files = [{"name": each.name, "sha256": trust.digest(each.read_bytes())} for each in (folder / "model").iterdir()]
    (folder / "model.py").write_bytes(TEMPLATES.rendered("model.py", {**told, "files": files}))
    contract = json.loads((folder / "contract.json").read_text("utf-8"))
    columns = [{"name": each, "type": each, "categories": ["a", "b"]} for each in types]
    columns.append({"name": "gap", "type": "text", "gap": "none"})
    (folder / "contract.json").write_text(json.dumps({**contract, "columns": columns}))
    table = runpy.run_path(str(folder / "model.py"))["table"]
    row = dict(zip(types, values, strict=True))
    whole, gaps = table([row, {**row, "gap": "here"}]), table([row, {}])
    kinds = "bool category datetime64 datetime64 object int64 float64 int64 object object".split()
    assert [str(dtype).partition("[")[0] for dtype in whole.dtypes] == kinds
    assert whole["dropped"].isna().all()
    kinds = "object category datetime64 datetime64 object float64 float64 float64 object object".split()
    assert [str(dtype).partition("[")[0] for dtype in gaps.dtypes] == kinds
    assert gaps["gap"].tolist() == ["none", "none"]
    linted(folder)


# ---- what is refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"adapter": "onnx"}, "model of the kind onnx"),
        ({"adapter": "function"}, "model of the kind function"),
        ({"adapter": "torch_adapter"}, "model of the kind torch_adapter"),
        ({"form": "cloudpickle"}, "code of its maker's own"),
        ({"form": "onnx"}, "kept in the form onnx"),
        ({"forms": ("pickle", "xgboost-ubj")}, "files of several kinds"),
    ],
)
def test_what_needs_ketch_is_refused(all_made: dict[str, Made], changed: dict[str, Any], told: str) -> None:
    made = all_made["pair"]
    manifest = made.opened.manifest
    forms = changed.get("forms") or (changed.get("form", "pickle"),) * 2
    originals = tuple(
        msgspec.structs.replace(each, format=form) for each, form in zip(manifest.originals, forms, strict=True)
    )
    adapter = changed.get("adapter", manifest.adapter)
    manifest = msgspec.structs.replace(manifest, originals=originals, adapter=adapter)
    with pytest.raises(UnsupportedModel, match=told) as caught:
        export.project(msgspec.structs.replace(made.opened, manifest=manifest), home=made.home)
    assert caught.value.hint


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch evil-was-here",)


def test_a_model_that_the_gate_refuses_is_not_exported(all_made: dict[str, Made]) -> None:
    made = all_made["pair"]
    first = msgspec.structs.replace(made.opened.manifest.originals[0], format="pickle")
    manifest = msgspec.structs.replace(made.opened.manifest, originals=(first,))
    evil = msgspec.structs.replace(
        made.opened, manifest=manifest, files={**made.opened.files, first.member: pickle.dumps(Evil())}
    )
    with pytest.raises(TrustError, match="system"):
        export.project(evil, home=made.home)
    empty = msgspec.structs.replace(made.opened, manifest=msgspec.structs.replace(manifest, originals=()))
    with pytest.raises(CorruptBundle, match="no model"):
        export.project(empty, home=made.home)


@pytest.mark.parametrize(
    "names", [("a b", "b"), ("Same", "same"), ("x" * 50, "b"), ('"', "con"), ("..", "/etc/passwd")]
)
def test_files_whose_names_mean_something_are_numbered(names: Sequence[str], all_made: dict[str, Made]) -> None:
    made = all_made["pair"]
    originals = [
        msgspec.structs.replace(each, name=name)
        for each, name in zip(made.opened.manifest.originals, names, strict=True)
    ]
    manifest = msgspec.structs.replace(made.opened.manifest, originals=tuple(originals))
    found = export.project(msgspec.structs.replace(made.opened, manifest=manifest), home=made.home).files
    assert [name for name in found if name.startswith("model/")] == ["model/model-0", "model/model-1"]


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    files = {"a": b"1", "tests/b": b"2"}
    write(files, tmp_path / "new" / "deep")
    assert (tmp_path / "new" / "deep" / "tests" / "b").read_bytes() == b"2"
    assert sorted(path.name for path in (tmp_path / "new" / "deep").iterdir()) == ["a", "tests"]
    (tmp_path / "empty").mkdir()
    write(files, tmp_path / "empty")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for taken in ("new", "empty", "new/deep/a", "link"):
        with pytest.raises(InputError, match="holds something else"):
            write(files, tmp_path / taken)
    (tmp_path / "new" / "deep" / "a").write_text("mine")
    with pytest.raises(InputError, match="cannot be written"):
        write(files, tmp_path / "new" / "deep" / "a" / "below")


# ---- what it installs, and how it was trained --------------------------------------------------------


def frozen(needed: Environment, name: str) -> dict[str, bytes]:
    files = {each: lock.MARK + f"# {each}\n" for each in ("requirements.txt", "pyproject.toml", "Pipfile")}
    return {each: text.encode() for each, text in files.items()} | {
        "uv.lock": b"version = 1\n",
        "Pipfile.lock": b"{}\n",
    }


def test_a_locked_project_has_every_lock_file(all_made: dict[str, Made]) -> None:
    made = all_made["pair"]
    found = export.project(made.opened, home=made.home, freeze=frozen)
    assert found.files["requirements.txt"] == b"# Written by `ketch export`.\n# requirements.txt\n"
    assert found.files["requirements.in"] == made.project.files["requirements.txt"]
    assert {name: found.files[name] for name in ("uv.lock", "Pipfile.lock")} == {
        "uv.lock": b"version = 1\n",
        "Pipfile.lock": b"{}\n",
    }
    assert "[tool.ruff]" in found.files["pyproject.toml"].decode()
    assert "--require-hashes" in found.files["Dockerfile"].decode()
    assert "--require-hashes" not in made.text("Dockerfile")
    assert found.notes == ()


@pytest.mark.parametrize("error", [LockError("no index.", hint="Look."), NotInstalled("no uv", hint="Get it.")])
def test_what_cannot_be_locked_is_pinned_and_said(all_made: dict[str, Made], error: Exception) -> None:
    def refuses(needed: Environment, name: str) -> dict[str, bytes]:
        raise error

    made = all_made["pair"]
    found = export.project(made.opened, home=made.home, freeze=refuses)
    assert found.files == made.project.files
    (told,) = found.notes
    assert told.startswith("requirements.txt pins versions, but is not locked: no ")


SCRIPT = b'''"""Train."""

import ketch
import pandas as pd


def main():
    model = pd.DataFrame()
    ketch.pack(
        model,
        "churn.ketch",
    )


main()
'''


def test_the_training_script_comes_along_without_what_packs(all_made: dict[str, Made]) -> None:
    made = all_made["pair"]
    pins = b"# Made by somebody\npandas==2.1.0  # asked for\n--index-url https://evil.example\nscikit-learn==1.5\n"
    files = {**made.opened.files, "training/train.py": SCRIPT, "training/requirements.txt": pins}
    found = export.project(msgspec.structs.replace(made.opened, files=files), home=made.home)
    assert found.files["train.py"] == SCRIPT.replace(b"import ketch\n", b"").replace(
        b'    ketch.pack(\n        model,\n        "churn.ketch",\n    )\n', b""
    )
    assert found.files["requirements-train.txt"].decode().split("\n")[1:] == ["pandas==2.1.0", "scikit-learn==1.5", ""]
    assert "train.py" not in made.project.files
    assert "carried no training script" in made.text("README.md")


@pytest.mark.parametrize(
    "script", [b"from ketch import pack\npack()\n", b"import ketch\nx = ketch.pack(1)\n", b"def f(:", b"\xff", b"\x00"]
)
def test_a_script_that_cannot_do_without_ketch_stays_behind(script: bytes) -> None:
    assert without_ketch(script) == b""


# ---- the container, as text --------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "server"), [("pair", "gunicorn"), ("fastapi", "uvicorn")])
def test_the_dockerfile_is_one(all_made: dict[str, Made], name: str, server: str) -> None:
    text = all_made[name].text("Dockerfile")
    python = ".".join(all_made[name].opened.manifest.versions["python"].split(".")[:2])
    assert f"ARG BASE_IMAGE=python:{python}-slim-bookworm\n" in text
    joined = text.replace("\\\n", " ").splitlines()
    words = [line.split()[0] for line in joined if line and not line.startswith("#")]
    known = {"ARG", "CMD", "COPY", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "RUN", "USER", "WORKDIR"}
    assert {*words} <= known
    assert words.count("FROM") == 2
    (command,) = [line.removeprefix("CMD ") for line in joined if line.startswith("CMD ")]
    assert json.loads(command)[0] == server
    (health,) = [line for line in joined if line.startswith("HEALTHCHECK")]
    compile(json.loads(health.partition(" CMD ")[2])[2], "health", "exec")
    copied = {word for line in joined if line.startswith("COPY c") for word in line.split()[1:-1]}
    allowed = {line.removeprefix("!") for line in all_made[name].text(".dockerignore").split()}
    assert copied | {"model", "requirements.txt", "*"} == allowed
    assert {each for each in copied if "/" not in each} <= set(all_made[name].project.files)


@pytest.mark.packing
def test_lightgbm_gets_the_library_that_slim_images_lack(later: dict[str, Made]) -> None:
    assert "libgomp1" in later["lightgbm"].text("Dockerfile")
    assert "libgomp1" not in later["xgboost-file"].text("Dockerfile")


def test_hadolint_has_nothing_to_say(made: Made) -> None:
    done = subprocess.run([HADOLINT, str(made.folder / "Dockerfile")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


# ---- the command line --------------------------------------------------------------------------------


@pytest.mark.packing
def test_the_command_writes_a_project(all_made: dict[str, Made], tmp_path: Path) -> None:
    made = all_made["pair"]
    path = tmp_path / "churn.ketch"
    path.write_bytes(bundle.replaced(made.opened, {}))
    done = run("export", path, "-o", tmp_path / "out", "--no-lock", home=made.home)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"churn: \d+ files in \S+, a Flask service; README.md there says the rest\n", done.stdout)
    found = {str(each.relative_to(tmp_path / "out")): each for each in (tmp_path / "out").rglob("*") if each.is_file()}
    assert {name.replace(os.sep, "/"): each.read_bytes() for name, each in found.items()} == made.project.files
    again = run("export", path, "-o", tmp_path / "out", "--no-lock", "--json", home=made.home)
    assert again.returncode == 1
    assert json.loads(again.stderr)["code"] == "input"
    rows = rows_of("pair", made.opened)
    for mine, theirs in zip(made.found["answers"], load(path, home=made.home).predict(rows), strict=True):
        assert alike(theirs, mine)


def test_a_model_file_is_no_bundle(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(pickle.dumps(LinearRegression()))
    done = run("export", tmp_path / "model.bin", "-o", tmp_path / "out", home=tmp_path / "home")
    assert done.returncode == 1
    assert "is not a bundle\n  Make one from it with: ketch pack" in done.stderr
    assert not (tmp_path / "out").exists()


# ---- the real thing ----------------------------------------------------------------------------------


PERSON = """
import sys
from streamlit.testing.v1 import AppTest
page = AppTest.from_file(sys.argv[1], default_timeout=60).run()
assert not page.exception, page.exception
page.button[0].click().run()
assert not page.exception, page.exception
assert not page.error, page.error
print([each.value for each in page.text])
"""


@pytest.mark.packing
@pytest.mark.parametrize("name", ["pair", "frame", "strange"])
def test_the_page_answers_in_streamlit(name: str, all_made: dict[str, Made]) -> None:
    pytest.importorskip("streamlit", reason="streamlit is not installed")
    folder = all_made[name].folder
    command = [sys.executable, "-c", PERSON, str(folder / "page.py")]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "_probability: 0." in done.stdout


@pytest.mark.packing
@pytest.mark.timeout(900)
@pytest.mark.skipif(sys.platform != "linux", reason="locks are for Linux")
@pytest.mark.parametrize("service", ["flask", "fastapi"])
def test_a_locked_project_lives_in_an_environment_of_its_own(service: str, tmp_path: Path) -> None:
    opened = packed(KINDS["frame"], tmp_path)
    (tmp_path / "churn.ketch").write_bytes(bundle.replaced(opened, {}))
    folder = tmp_path / "out"
    done = run("export", tmp_path / "churn.ketch", "-o", folder, f"--{service}", home=tmp_path / "home")
    assert done.returncode == 0, done.stderr
    assert "note" not in done.stderr
    alone = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    pip = [python, "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, "--require-hashes", "-r", "requirements.txt"], check=True, cwd=folder, env=alone)
    subprocess.run([*pip, "-r", "requirements-dev.txt"], check=True, cwd=folder, env=alone)
    for words in (["pytest", "-q", "-W", "error"], ["ruff", "check", "."], ["ruff", "format", "--check", "."]):
        found = subprocess.run([python, "-m", *words], cwd=folder, env=alone, capture_output=True, text=True)
        assert found.returncode == 0, found.stdout + found.stderr
    listed = subprocess.run([*pip[:3], "freeze"], capture_output=True, text=True, check=True).stdout.lower()
    assert "ketch" not in listed
    uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
    subprocess.run([uv, "lock", "--check", "--python", sys.executable], check=True, cwd=folder, env=alone)
