"""MLflow model folders, saved by MLflow itself: the file inside is found, and packed as if it had been given."""

import functools
import json
import logging
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ketch import bundle
from ketch.adapters import mlflow as reader
from ketch.errors import InputError, KetchError, TrustError, UnsupportedModel
from ketch.pack import Options, Packed, compose
from ketch.predict import load
from tests import models

pytestmark = pytest.mark.packing  # long in all

GRAPHS = Path(__file__).parent / "graphs"
TABLE = models.table()


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Keep MLflow's advice about pickles out of the tests."""
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def signature(rows: Any) -> Any:
    from mlflow.models import infer_signature

    return infer_signature(rows)


def save(kind: str, model: Any, folder: Path, **options: Any) -> Path:
    import importlib

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        flavour = importlib.import_module(f"mlflow.{kind}")
        flavour.save_model(model, str(folder), pip_requirements=["numpy"], **options)
    return folder


@functools.cache
def boosted(kind: str) -> Any:
    library = pytest.importorskip(kind)
    settings = {"catboost": {"iterations": 4, "verbose": 0, "allow_writing_files": False}}
    name = {"xgboost": "XGBClassifier", "lightgbm": "LGBMClassifier", "catboost": "CatBoostClassifier"}[kind]
    made = getattr(library, name)(**settings.get(kind, {"n_estimators": 4, "verbosity": 0}))
    return made.fit(models.numbers(), np.array(models.yes_or_no()))


def packed(folder: Path, home: Path, **options: Any) -> Packed:
    return compose(str(folder), None, Options(**options), home=home)


@pytest.mark.parametrize(
    "form", ["pickle", *(pytest.param(form, marks=pytest.mark.packing) for form in ("cloudpickle", "skops"))]
)
def test_a_scikit_learn_model_packs_whichever_way_it_was_saved(form: str, tmp_path: Path) -> None:
    folder = save("sklearn", models.encoded(), tmp_path / "churn model", serialization_format=form)
    made = packed(folder, tmp_path / "home", target="churn")
    assert bundle.read(made.data, "x").manifest.originals[0].name == "churn model.skops"
    assert packed(folder, tmp_path / "home").name == "churn-model"
    path = tmp_path / "a.ketch"
    path.write_bytes(made.data)
    answers = load(path, home=tmp_path / "home").predict(models.rows()[:9])
    wanted = models.encoded().predict_proba(TABLE[:9])[:, 1]
    np.testing.assert_allclose([each["churn_probability"] for each in answers], wanted, atol=1e-6)


@pytest.mark.packing
@pytest.mark.parametrize("kind", ["xgboost", "lightgbm", "catboost"])
def test_a_boosting_model_packs(kind: str, tmp_path: Path) -> None:
    model = boosted(kind)
    folder = save(kind, model, tmp_path / kind)
    path = tmp_path / "a.ketch"
    path.write_bytes(packed(folder, tmp_path / "home", target="churn").data)
    names = [each.name for each in load(path, home=tmp_path / "home").contract.fields]
    rows = [dict(zip(names, row, strict=True)) for row in models.numbers()[:9].tolist()]
    answers = load(path, home=tmp_path / "home").predict(rows)
    wanted = model.predict_proba(models.numbers()[:9])[:, 1]
    np.testing.assert_allclose([each["churn_probability"] for each in answers], wanted, atol=1e-6)


def test_an_onnx_model_packs_and_is_asked_by_its_folder(tmp_path: Path) -> None:
    folder = save("onnx", onnx.load(GRAPHS / "forest.onnx"), tmp_path / "species")
    found = load(str(folder), home=tmp_path / "home")
    assert found.name == "species"
    assert found.bundle.manifest.originals[0].format == "onnx"
    known = json.loads((GRAPHS / "answers.json").read_text("utf-8"))
    row = {"x0": known["rows"][0]["tenure"], "x1": known["rows"][0]["fee"]}
    assert found.predict(row)["prediction_probabilities"]["setosa"] == pytest.approx(
        known["answers"]["forest"][0][0], abs=1e-5
    )


def test_a_signature_gives_names_and_types(tmp_path: Path) -> None:
    table = TABLE[["tenure", "fee"]]
    folder = save(
        "sklearn", models.plain_regression(), tmp_path / "m", signature=signature(table), input_example=table[:2]
    )
    fields = bundle.read(packed(folder, tmp_path / "home").data, "x").contract.fields
    assert [(each.name, each.type) for each in fields] == [("tenure", "integer"), ("fee", "number")]
    assert all(each.minimum is None for each in fields)  # the example's rows are people's data


def test_a_signature_of_arrays_names_nothing(tmp_path: Path) -> None:
    folder = save("sklearn", models.plain_regression(), tmp_path / "m", signature=signature(models.numbers()))
    fields = bundle.read(packed(folder, tmp_path / "home").data, "x").contract.fields
    assert [each.name for each in fields] == ["x0", "x1"]


# what is refused


def described(folder: Path, change: Any) -> None:
    path = folder / "MLmodel"
    found = yaml.safe_load(path.read_text("utf-8"))
    change(found)
    path.write_text(yaml.safe_dump(found), "utf-8")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mlflow") / "saved"
    return save("sklearn", models.plain_regression(), folder, serialization_format="skops")


def copied(saved: Path, folder: Path) -> Path:
    return Path(shutil.copytree(saved, folder, dirs_exist_ok=True))


@pytest.mark.parametrize(
    "member", ["../secret.pkl", "/etc/passwd", "a/../../secret.pkl", "C:\\x.pkl", "", 7, "\0", "link.pkl"]
)
def test_a_file_outside_the_folder_is_not_read(member: object, saved: Path, tmp_path: Path) -> None:
    folder = copied(saved, tmp_path / "m")
    (tmp_path / "secret.pkl").write_bytes(b"secret")
    (folder / "link.pkl").symlink_to(tmp_path / "secret.pkl")
    described(folder, lambda found: found["flavors"]["sklearn"].__setitem__("pickled_model", member))
    with pytest.raises(InputError, match=r"names (a file outside it|no file)") as caught:
        packed(folder, tmp_path / "home")
    assert caught.value.hint


@pytest.mark.parametrize("kind", ["merge", "text"])
def test_a_few_lines_of_references_make_no_billions_of_entries(kind: str, tmp_path: Path) -> None:
    form = "{{<<: [{}]}}" if kind == "merge" else "[{}]"
    lines = [f"a{n}: &a{n} " + form.format(", ".join([f"*a{n - 1}"] * 10)) for n in range(1, 30)]
    loader = "x" if kind == "merge" else "*a29"
    (tmp_path / "MLmodel").write_text(
        "\n".join(["a0: &a0 {k: 1}", *lines, f"flavors: {{python_function: {{loader_module: {loader}}}}}"])
    )
    with pytest.raises((InputError, UnsupportedModel), match=r"cannot be read|only MLflow runs \(loader \)"):
        reader.open_folder(tmp_path)


def test_what_is_missing_is_named(saved: Path, tmp_path: Path) -> None:
    folder = copied(saved, tmp_path / "m")
    next(folder.glob("model.*")).unlink()
    with pytest.raises(InputError, match=r"model\.skops is not in it"):
        packed(folder, tmp_path / "home")
    (folder / "MLmodel").unlink()
    with pytest.raises(InputError, match="folder without MLmodel"):
        packed(folder, tmp_path / "home")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not in the right form"),
        ("- a", "not in the right form"),
        ("flavors: 7", "not in the right form"),
        ("flavors: {sklearn: [1]}", "not in the right form"),
        ("flavors: [", "cannot be read"),
        ("x: !!python/object/apply:os.system ['true']", "cannot be read"),
        ("flavors: {sklearn: {}}", "names no file"),
        ("a: " + "x" * (1 << 20), "larger than 1 MiB"),
        ("flavors: {sklearn: {pickled_model: model.skops}}\nsignature: {inputs: '['}", "signature cannot be read"),
        ("flavors: {sklearn: {pickled_model: model.skops}}\nsignature: {inputs: '[7]'}", "signature cannot be read"),
    ],
    ids=["empty", "list", "number", "facts", "open", "python", "bare", "large", "signature", "columns"],
)
def test_a_damaged_description_is_refused(text: str, message: str, saved: Path, tmp_path: Path) -> None:
    folder = copied(saved, tmp_path / "m")
    (folder / "MLmodel").write_text(text, "utf-8")
    with pytest.raises(InputError, match=message) as caught:
        packed(folder, tmp_path / "home")
    assert caught.value.hint


@pytest.mark.parametrize(
    ("flavours", "message"),
    [
        ({"python_function": {"loader_module": "mlflow.pyfunc.model"}}, r"only MLflow runs \(loader mlflow\.pyfunc"),
        ({"python_function": {}, "pytorch": {"model_data": "data"}}, "a model of pytorch"),
        ({"python_function": {}, "spark": {}, "mleap": {}}, "a model of mleap, spark"),
    ],
)
def test_what_only_mlflow_can_run_is_refused(flavours: object, message: str, saved: Path, tmp_path: Path) -> None:
    folder = copied(saved, tmp_path / "m")
    described(folder, lambda found: found.__setitem__("flavors", flavours))
    with pytest.raises(UnsupportedModel, match=message) as caught:
        packed(folder, tmp_path / "home")
    assert "ONNX" in caught.value.hint or "predict(rows)" in caught.value.hint


def test_the_file_inside_goes_through_the_gate(saved: Path, tmp_path: Path) -> None:
    folder = copied(saved, tmp_path / "m")
    (folder / "model.skops").unlink()
    (folder / "evil.pkl").write_bytes(b"\x80\x04cposix\nsystem\n\x8c\x04true\x85R.")
    described(folder, lambda found: found["flavors"]["sklearn"].__setitem__("pickled_model", "evil.pkl"))
    with pytest.raises(TrustError, match=r"m\.pkl wants code that is not known to be harmless: posix\.system"):
        packed(folder, tmp_path / "home")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=8) | st.sampled_from(["model.skops", "..", "/"]),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["flavors", "sklearn", "pickled_model", "signature", "inputs", "x"]), inner
            )
        ),
        max_leaves=10,
    )
)
def test_whatever_a_description_holds_the_answer_is_a_file_or_a_reason(saved: Path, content: object) -> None:
    folder = copied(saved, saved.parent / "drawn")
    (folder / "MLmodel").write_text(yaml.safe_dump(content), "utf-8")
    problem = None
    try:
        assert reader.open_folder(folder).data == (folder / "model.skops").read_bytes()
    except KetchError as error:
        problem = error
    assert problem is None or problem.hint
