"""Old files, written in real environments of the past: they load equal, are rescued equal, or are refused."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.linear_model import LogisticRegression

from ketch import bundle, trust
from ketch.adapters import adapter_for
from ketch.compiler.parity import Trial
from ketch.errors import ContractError, KetchError, TrustError, UnsupportedModel, UsageError
from ketch.pack import Options, Packed, Source, compose
from ketch.predict import open_bundle
from ketch.rescue import Case, Refused, Witness, breaks, end, environment, past, started
from ketch.schema import Answer, Field

HERE = Path(__file__).parent
VERSIONS = ("1.1.3", "1.2.2", "1.3.2", "1.5.2")
LOADS = {"logistic", "dictionaries", "pair"}  # in every one of them, and answers right
KINDS = (*sorted(LOADS), "boosting", "columns", "each_alone", "forest")


def told(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "answers.json").read_text("utf-8"))
    return found


def inputs(folder: Path, kind: str) -> Any:
    """What the old model was asked with."""
    facts = told(folder)
    frame = pd.DataFrame(facts["rows"])
    gaps = frame.assign(tenure=[np.nan if value is None else value for value in facts["with_gaps"]])
    if kind in {"dictionaries", "pair"}:
        return facts["rows"]
    return {"boosting": gaps[["tenure"]], "columns": gaps}.get(kind, frame[["tenure", "charges"]])


def asked(model: Any, given: Any) -> Any:
    """Ask an opened model; the two of a pair one after the other."""
    if isinstance(model, tuple):
        return model[1].predict_proba(model[0].transform(given))
    return model.predict_proba(given)


# ---- what stands in a file -------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", [*KINDS, "gone"])
def test_a_file_tells_its_version_without_being_run(version: str, kind: str) -> None:
    found = trust.examine((HERE / "past" / version / f"{kind}.pkl").read_bytes())
    assert found.sklearn_version == version
    assert not found.refused
    assert not found.faults


def test_what_can_go_wrong_is_said_for_the_classes_in_the_file_only() -> None:
    def foreseen(version: str, kind: str) -> str:
        found = trust.examine((HERE / "past" / version / f"{kind}.pkl").read_bytes())
        return breaks.foreseen(found.imports, found.sklearn_version)

    assert "decision trees" in foreseen("1.1.3", "forest")
    assert "shares" in foreseen("1.3.2", "forest")
    assert foreseen("1.5.2", "forest") == ""
    assert "losses" in foreseen("1.5.2", "boosting")
    assert "remaining columns" in foreseen("1.5.2", "columns")
    assert foreseen("1.1.3", "dictionaries") == ""


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_an_old_file_opened_as_todays_objects_gives_the_old_answers(version: str, kind: str) -> None:
    folder = HERE / "past" / version
    model = past.load((folder / f"{kind}.pkl").read_bytes(), trust.lists())
    wanted = np.array(told(folder)["answers"][kind]["probabilities"])
    np.testing.assert_allclose(asked(model, inputs(folder, kind)), wanted, rtol=0, atol=1e-12)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(asked(again, inputs(folder, kind)), asked(model, inputs(folder, kind)))


def test_it_needs_all_that() -> None:
    """The files do break: otherwise the test above proves nothing."""
    broken = set()
    for version in VERSIONS:
        folder = HERE / "past" / version
        for kind in KINDS:
            try:
                model = trust.sibling("unpickle").load((folder / f"{kind}.pkl").read_bytes(), trust.lists())
                found = asked(model, inputs(folder, kind))
                if np.abs(found - np.array(told(folder)["answers"][kind]["probabilities"])).max() > 1e-6:
                    assert breaks.misread(model, version), (version, kind)  # silently wrong, so it must be known
                    broken.add((version, kind))
            except AssertionError:
                raise
            except Exception:
                broken.add((version, kind))
    assert {kind for _, kind in broken} == {"boosting", "columns", "each_alone", "forest"}
    assert not {kind for _, kind in broken} & LOADS
    assert ("1.3.2", "forest") in broken
    assert ("1.5.2", "forest") not in broken


def test_what_no_longer_exists_is_refused() -> None:
    with pytest.raises(UnsupportedModel, match=r"SAMME\.R does not exist") as refusal:
        past.load((HERE / "past" / "1.1.3" / "gone.pkl").read_bytes(), trust.lists())
    assert "Fit the model again" in refusal.value.hint


# ---- packing, without an environment of the past -----------------------------------------------------


@pytest.mark.packing
def test_a_broken_file_comes_with_the_offer_of_a_rescue(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match=r"written by scikit-learn 1\.1\.3, this is .*decision trees") as broken:
        compose(HERE / "past" / "1.1.3" / "forest.pkl", None, Options(), home=tmp_path)
    assert "--rescue" in broken.value.hint
    with pytest.raises(UnsupportedModel, match="answers otherwise than it did: its trees hold counts") as silent:
        compose(HERE / "past" / "1.3.2" / "forest.pkl", None, Options(), home=tmp_path)
    assert "--rescue" in silent.value.hint


@pytest.mark.packing
def test_a_file_that_still_answers_is_packed_with_a_note(tmp_path: Path) -> None:
    packed = compose(HERE / "past" / "1.1.3" / "logistic.pkl", None, Options(), home=tmp_path)
    assert f"written by scikit-learn 1.1.3, this is {sklearn.__version__}" in packed.notes[0]
    assert "--rescue" in packed.notes[0]


@pytest.mark.packing
def test_no_version_is_blamed_for_a_slip_in_the_contract(tmp_path: Path) -> None:
    slip = {"fields": {"tenur": {"label": "Months"}}}
    with pytest.raises(ContractError) as refusal:
        compose(HERE / "past" / "1.1.3" / "logistic.pkl", None, Options(amendments=slip), home=tmp_path)
    assert "--rescue" not in refusal.value.hint


def test_what_is_of_today_needs_no_rescue(tmp_path: Path) -> None:
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(LogisticRegression().fit([[0.0], [1.0]], [0, 1])))
    with pytest.raises(UsageError, match="nothing to rescue"):
        compose(tmp_path / "model.pkl", None, Options(rescue=True), home=tmp_path)


class Runs:
    def __init__(self, marker: Path) -> None:
        self.marker, self._sklearn_version = marker, "1.1.3"

    def __reduce__(self) -> Any:
        return subprocess.check_call, (["touch", str(self.marker)],), {"_sklearn_version": "1.1.3"}


def test_a_rescue_does_not_go_around_the_gate(tmp_path: Path) -> None:
    marker, home = tmp_path / "ran", tmp_path / "home"
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(Runs(marker), protocol=4))
    assert trust.examine((tmp_path / "model.pkl").read_bytes()).sklearn_version == "1.1.3"
    with pytest.raises(TrustError, match="subprocess"):
        compose(tmp_path / "model.pkl", None, Options(rescue=True), home=home)
    assert not marker.exists()
    assert not (home / "cache" / "rescue").exists()


def test_the_message_names_the_python_that_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PATH", "PYENV_ROOT", "UV_PYTHON_INSTALL_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    with pytest.raises(UnsupportedModel, match=r"scikit-learn 1\.0\.2 runs on Python 3\.7 to 3\.10") as missing:
        environment.interpreter("1.0.2", numpy_2=False, home=tmp_path, environ={})
    assert "uv python install 3.10" in missing.value.hint


@pytest.mark.parametrize("version", ["0.17", "0.21.3", "", "1.3.dev0", "; rm", "1.2.2 --index-url x"])
def test_only_released_versions_are_installed(version: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match="no rescue"):
        environment.interpreter(version, numpy_2=False, home=tmp_path, environ={})


# ---- the witness, in today's environment ---------------------------------------------------------------


def called(folder: Path, model: Any, names: list[str] | None) -> Any:
    source = Source("model.pkl", "pickle", pickle.dumps(model), "")
    return started(Path(sys.executable), folder, [source], [names])


def test_a_witness_answers_what_the_model_answers(tmp_path: Path) -> None:
    frame = pd.DataFrame({"x": [0.0, 1.0, np.nan, 3.0], "word": ["a", None, "b", "a"], "n": [1, 2, 3, 4]})
    model: Any = past.load((HERE / "past" / "1.5.2" / "columns.pkl").read_bytes(), trust.lists())
    given = inputs(HERE / "past" / "1.5.2", "columns")
    process = called(tmp_path, (model,), None)
    try:
        witness = Witness(process)
        assert witness.hear() is None
        np.testing.assert_array_equal(witness.predict_proba(given), asked(model, given))
        assert witness.predict(given).tolist() == model.predict(given).tolist()
        with pytest.raises(Refused, match="Error"):
            witness.predict(frame)
        assert witness.predict(given).tolist() == model.predict(given).tolist()  # it goes on after that
    finally:
        end(process)


def test_a_witness_hands_out_only_what_was_seen(tmp_path: Path) -> None:
    process = called(tmp_path, LogisticRegression().fit([[0.0], [1.0]], [0, 1]), ["numpy.ndarray"])
    try:
        with pytest.raises(Refused, match="it wants"):
            Witness(process).hear()
    finally:
        end(process)


@pytest.mark.packing
def test_answers_that_differ_are_no_rescue(tmp_path: Path) -> None:
    """A case whose witness is another model refuses."""
    folder = HERE / "past" / "1.1.3"
    with Case(wanted=True, home=tmp_path / "home", environ={}) as case:
        source = Source("logistic.pkl", "pickle", (folder / "logistic.pkl").read_bytes(), "1.1.3")
        _, model = case.open(source)
        other = LogisticRegression().fit([[0.0, 1.0], [1.0, 0.0]], [0, 1])
        process = called(tmp_path, other, None)
        try:
            case._witness = Witness(process)
            case._witness.hear()
            with pytest.raises(UnsupportedModel, match=r"logistic\.pkl cannot be rescued"):
                case.prove(trial(model))
        finally:
            end(process)


def trial(model: Any) -> Trial:
    fields = (Field("tenure", "number"), Field("charges", "number"))
    answer = Answer("binary", classes=(0, 1), positive=1, values="probability")
    adapter = adapter_for(model)
    return Trial(fields, answer, adapter.study(model, []), None, {}, adapter.runner(model, fields), 1e-6)


# ---- the whole road, in real environments ---------------------------------------------------------------


def made(version: str, folder: Path) -> Path:
    """Write the models of a version in that version."""
    python = environment.interpreter(version, numpy_2=False, home=folder / "home", environ=dict(os.environ))
    (folder / version).mkdir()
    subprocess.run([python, HERE / "programs" / "past.py", folder / version], check=True)
    return folder / version


def packed_somehow(path: Path, home: Path) -> tuple[Packed, bool]:
    """Pack a file as it is, or rescued where that is offered."""
    try:
        return compose(path, None, Options(target="churn"), home=home), False
    except KetchError as error:
        if "--rescue" not in error.hint:
            raise
        return compose(path, None, Options(target="churn", rescue=True), home=home), True


@pytest.mark.packing
@pytest.mark.timeout(600)
@pytest.mark.parametrize("version", ["1.1.3", "1.2.2", "1.5.2", "1.0.2"])
def test_models_of_real_environments_load_equal_or_are_rescued_equal(version: str, tmp_path: Path) -> None:
    try:
        folder = made(version, tmp_path)
    except UnsupportedModel as error:
        if version == "1.0.2" and "runs on Python 3.7 to 3.10" in error.message:
            return  # it needs an older Python, which is not here
        raise
    facts = told(folder)
    for kind in KINDS:
        packed, rescued = packed_somehow(folder / f"{kind}.pkl", tmp_path / "home")
        opened = bundle.read(packed.data, kind)
        predictor = open_bundle(opened, home=tmp_path / "home")
        given = inputs(folder, kind)
        given = pd.DataFrame(given) if isinstance(given, list) else given
        found = predictor.predict(given)
        labels = facts["answers"][kind]["labels"]
        chances = np.array(facts["answers"][kind]["probabilities"])
        if kind == "each_alone":
            assert found["churn"].tolist() == labels
            said = found[[name for name in found if name != "churn"]].to_numpy()
            np.testing.assert_allclose(said, chances, rtol=0, atol=1e-6)
        else:
            assert [int(label) for label in found["churn"]] == labels
            np.testing.assert_allclose(found["churn_probability"], chances[:, 1], rtol=0, atol=1e-6)
        if rescued:
            assert opened.manifest.origin["rescued from"] == f"scikit-learn {version}"
            assert int(opened.manifest.origin["agreement"].split()[0]) >= 2000
            assert opened.files[f"given/0-{kind}-pkl"] == (folder / f"{kind}.pkl").read_bytes()
        assert rescued == (kind not in LOADS and (version, kind) != ("1.5.2", "forest")), kind
    with pytest.raises(UnsupportedModel, match="SAMME"):
        compose(folder / "gone.pkl", None, Options(rescue=True), home=tmp_path / "home")
