"""Skops files: opened by the same lists and checks as pickles, and how bundles keep their originals."""

import copy
import io
import json
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import skops.io
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.cluster import Birch
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.neighbors import KNeighborsClassifier
from sklearn.tree import DecisionTreeClassifier

from ketch import bundle, trust
from ketch.errors import KetchError, TrustError
from ketch.pack import Options, Packed, compose
from ketch.predict import load
from ketch.testing import AdapterContract, Row
from tests import models

Schema = dict[str, Any]
TREE = DecisionTreeClassifier(max_depth=3, random_state=0).fit(models.numbers(), models.yes_or_no())


def saved(model: Any) -> bytes:
    data: bytes = skops.io.dumps(model)
    return data


def changed(data: bytes, change: Callable[[Schema, dict[str, bytes]], object]) -> bytes:
    """Write a skops file anew, after a change to its schema and its members."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    schema = json.loads(members.pop("schema.json"))
    change(schema, members)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        archive.writestr("schema.json", json.dumps(schema))
    return out.getvalue()


def attributes(schema: Schema) -> Schema:
    """Give the attributes of the object that a schema describes."""
    found: Schema = schema["content"]["content"]
    return found


def setting(name: str, node: Schema) -> Callable[[Schema, dict[str, bytes]], object]:
    return lambda schema, members: put(schema, name, node)


def put(schema: Schema, name: str, node: Schema) -> None:
    """Give the object one more attribute, as a whole file would have it."""
    attributes(schema)[name] = node
    schema["content"]["key_types"]["content"].append(named("TypeNode", "builtins", "str"))


def named(loader: str, module: str, name: str, **more: Any) -> Schema:
    return {"__loader__": loader, "__module__": module, "__class__": name, **more}


def plain(value: object) -> Schema:
    return named("JsonNode", "builtins", "str", content=json.dumps(value), is_json=True)


def sequence(kind: str, *nodes: Schema) -> Schema:
    return named(f"{kind.title()}Node", "builtins", kind, content=list(nodes))


def mapping(**nodes: Schema) -> Schema:
    keys = [named("TypeNode", "builtins", "str") for _ in nodes]
    return named("DictNode", "builtins", "dict", content=nodes, key_types=sequence("list", *keys))


# what is opened


@pytest.mark.packing
@pytest.mark.parametrize("name", list(models.FACTORIES))
def test_every_model_comes_back_the_same_and_is_written_alike(name: str, tmp_path: Path) -> None:
    model = models.joined(copy.deepcopy(models.FACTORIES[name]()))
    made = trust.as_skops(model, home=tmp_path)
    assert made is not None
    data, reopened = made
    again = trust.as_skops(model, home=tmp_path)
    assert again is not None
    assert again[0] == data
    found = trust.examine(data)
    assert (found.format, found.refused, found.faults) == ("skops", (), ())
    assert found.sklearn_version
    given: Any = {"texts": models.messages(), "vectorized": models.rows(), "tree": [[0.0], [1.0]]}
    given = next((each for part, each in given.items() if part in name.split("_")), models.numbers())
    given = models.table() if hasattr(model, "feature_names_in_") else given
    np.testing.assert_array_equal(model.predict(given), reopened.predict(given))  # type: ignore[attr-defined]


@pytest.mark.packing
def test_a_file_is_packed_and_opened_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "churn.skops"
    skops.io.dump(models.encoded(), path, compression=zipfile.ZIP_DEFLATED)
    packed = compose(str(path), None, Options(), home=tmp_path)
    opened = bundle.read(packed.data, "churn.ketch")
    assert packed.name == "churn"
    assert [each.format for each in opened.manifest.originals] == ["skops"]
    assert opened.originals[0][2] == path.read_bytes()  # as it was given
    assert "skops" in opened.manifest.versions
    rows = models.rows()[:20]
    answers = load(str(path), home=tmp_path).predict(rows)
    wanted = models.encoded().predict_proba(models.table()[:20])[:, 1]
    np.testing.assert_allclose([each["prediction_probability"] for each in answers], wanted, atol=1e-6)


class TestSkopsFile(AdapterContract):
    from ketch.adapters import sklearn as adapter

    def make_model(self) -> object:
        return models.joined(models.encoded())

    def make_rows(self) -> list[Row]:
        return [*models.rows()[:10]]

    def ask(self, model: Any, rows: Any) -> Any:
        found = model.predict_proba(pd.DataFrame([dict(row) for row in rows]))
        return found.tolist()

    def save(self, model: Any, folder: Path) -> Path:
        path = folder / "model.skops"
        skops.io.dump(model, path)
        return path


for _test in [name for name in vars(AdapterContract) if name.startswith("test_") and "damaged" not in name]:
    setattr(TestSkopsFile, _test, pytest.mark.packing(getattr(AdapterContract, _test)))


# what bundles keep


def originals(packed: Packed) -> list[tuple[str, str]]:
    return [(each.name, each.format) for each in bundle.read(packed.data, "x.ketch").manifest.originals]


@pytest.mark.packing
def test_an_object_and_a_pickle_are_kept_as_skops(tmp_path: Path) -> None:
    model = models.plain_forest()
    one = compose(model, None, Options(name="one"), home=tmp_path)
    assert originals(one) == [("model.skops", "skops")]
    assert compose(model, None, Options(name="one"), home=tmp_path).data == one.data
    joblib.dump(model, tmp_path / "forest.joblib", compress=3)
    packed = compose(str(tmp_path / "forest.joblib"), None, Options(), home=tmp_path)
    assert originals(packed) == [("forest.skops", "skops")]
    data = bundle.read(packed.data, "x").originals[0][2]
    reopened: Any = trust.open_model(data, home=tmp_path, name="forest.skops")
    np.testing.assert_array_equal(reopened.predict_proba(models.numbers()), model.predict_proba(models.numbers()))


def test_a_pair_is_kept_as_it_was(tmp_path: Path) -> None:
    assert originals(compose(models.vectorized(), None, Options(), home=tmp_path)) == [("model.skops", "skops")]


@pytest.mark.packing
def test_the_file_of_another_scikit_learn_keeps_its_bytes(tmp_path: Path) -> None:
    import sklearn

    older = b"1.0.0".ljust(len(sklearn.__version__), b"0")[: len(sklearn.__version__)]
    data = pickle.dumps(models.plain_regression(), protocol=5).replace(sklearn.__version__.encode(), older)
    path = tmp_path / "old.pkl"
    path.write_bytes(data)
    packed = compose(str(path), None, Options(), home=tmp_path)
    assert originals(packed) == [("old.pkl", "pickle")]
    assert bundle.read(packed.data, "x").originals[0][2] == data


def test_what_skops_does_not_hold_stays_a_pickle(tmp_path: Path) -> None:
    model = Birch(n_clusters=2).fit(models.numbers())
    assert originals(compose(model, None, Options(), home=tmp_path)) == [("model.pkl", "pickle")]


@pytest.mark.packing
def test_sets_are_written_alike_whatever_the_hashes() -> None:
    program = (
        "import hashlib, tempfile, pathlib; from ketch import trust; from tests.test_skops import vectorizer;"
        "made = trust.as_skops(vectorizer(), home=pathlib.Path(tempfile.mkdtemp()));"
        "print(hashlib.sha256(made[0]).hexdigest())"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", program], env={"PYTHONHASHSEED": seed}, capture_output=True, check=True, text=True
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(found) == 1


def vectorizer() -> CountVectorizer:
    found = CountVectorizer(stop_words=["at", "now"]).fit(models.messages())
    found._stop_words_id = 0  # an address, which is another one in every process
    return found.set_params(stop_words={"at", "now", "the", "a", "of"})


# what is refused


def loop(schema: Schema, members: dict[str, bytes]) -> None:
    """Let a tree's children stand before it."""
    state = attributes(schema)["tree_"]["content"]["content"]["nodes"]
    nodes = np.load(io.BytesIO(members[state["file"]]))
    nodes["left_child"][1] = 0
    members[state["file"]] = as_bytes(nodes)


def beyond(schema: Schema, members: dict[str, bytes]) -> None:
    """Let a tree read a feature that does not exist."""
    state = attributes(schema)["tree_"]["content"]["content"]["nodes"]
    nodes = np.load(io.BytesIO(members[state["file"]]))
    nodes["feature"][0] = 1_000_000
    members[state["file"]] = as_bytes(nodes)


def more_outputs(schema: Schema, members: dict[str, bytes]) -> None:
    attributes(schema)["tree_"]["__reduce__"]["args"]["content"][2] = plain(50_000)


def alias(schema: Schema, members: dict[str, bytes]) -> None:
    """Say that a plain value is the same object as a function that stood before it."""
    attributes(schema)["class_weight"] = named("FunctionNode", "numpy", "sum", __id__=77)
    attributes(schema)["criterion"] = {**plain("gini"), "__id__": 77}


def keys(schema: Schema, members: dict[str, bytes]) -> None:
    """Make the keys of a dict by calling something else."""
    schema["content"]["key_types"]["content"][0] = named("FunctionNode", "os", "system")


def large(schema: Schema, members: dict[str, bytes]) -> None:
    """Say that an array is larger than it is."""
    name = next(name for name in members if name.endswith(".npy"))
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (999999999999,), }".ljust(117) + b"\n"
    members[name] = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


def objects(schema: Schema, members: dict[str, bytes]) -> None:
    """Put a pickle where an array should be."""
    name = next(name for name in members if name.endswith(".npy"))
    members[name] = as_bytes(np.array([{"a": 1}], dtype=object))


def as_bytes(array: Any) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def deep(schema: Schema, members: dict[str, bytes]) -> None:
    node = plain(1)
    for _ in range(300):
        node = sequence("list", node)
    put(schema, "deep", node)


def protocol(number: object) -> Callable[[Schema, dict[str, bytes]], object]:
    return lambda schema, members: schema.__setitem__("protocol", number)


SYSTEM = named("FunctionNode", "os", "system")
PARTIAL = {"func": SYSTEM, "args": sequence("tuple", plain("true")), "kwds": mapping(), "namespace": plain(None)}
BAD: dict[str, Callable[[Schema, dict[str, bytes]], object]] = {
    "function": setting("x", SYSTEM),
    "eval": setting("x", named("TypeNode", "builtins", "eval")),
    "class": setting("x", named("TypeNode", "sklearn.tree._classes", "DecisionTreeClassifier")),
    "object": setting("x", named("ObjectNode", "subprocess", "Popen", content=mapping(args=plain("true")))),
    "called": setting(
        "x", named("ConstructorFromReduceNode", "subprocess", "Popen", content=sequence("tuple", plain("true")))
    ),
    "called-class": setting(
        "x", named("ConstructorFromReduceNode", "builtins", "open", content=sequence("tuple", plain("/etc/passwd")))
    ),
    "tree-called": setting(
        "x", named("ConstructorFromReduceNode", "sklearn.tree._tree", "Tree", content=sequence("tuple", plain(1)))
    ),
    "list": setting("x", named("ListNode", "os", "system", content=[plain("true")])),
    "dict": setting("x", named("DictNode", "os", "system", content={}, key_types=sequence("list"))),
    "scalar": setting(
        "x", named("NdArrayNode", "os", "system", type="json", content=[], shape=sequence("tuple", plain(0)))
    ),
    "method": setting(
        "x", named("MethodNode", "os", "system", content={"func": "x", "obj": named("ObjectNode", "os", "system")})
    ),
    "operator": setting(
        "x", named("OperatorFuncNode", "operator", "methodcaller", attrs=sequence("tuple", plain("x")))
    ),
    "partial": setting("x", named("PartialNode", "functools", "partial", content=PARTIAL)),
    "loss": setting(
        "x",
        named(
            "LossNode", "os", "system", content=mapping(), **{"__reduce__": {"args": sequence("tuple", plain("true"))}}
        ),
    ),
    "default": setting(
        "x",
        named("DefaultDictNode", "collections", "defaultdict", content={"main": mapping(), "default_factory": SYSTEM}),
    ),
    "cached": setting("x", named("CachedNode", "os", "system", __id__=1)),
    "unknown": setting("x", named("NoSuchNode", "os", "system")),
    "dunder": setting("__class__", plain("x")),
    "member": setting("x", named("NdArrayNode", "numpy", "ndarray", type="numpy", file="../../etc/passwd")),
    "loop": loop,
    "beyond": beyond,
    "more-outputs": more_outputs,
    "alias": alias,
    "keys": keys,
    "large": large,
    "objects": objects,
    "deep": deep,
    "protocol-0": protocol(0),
    "protocol-9": protocol(9),
    "protocol-true": protocol(True),
    "extra": lambda schema, members: members.__setitem__("../evil.sh", b"x"),
    "no-loader": lambda schema, members: schema.pop("__loader__"),
    "not-a-node": lambda schema, members: schema.__setitem__("content", 7),
}


@pytest.mark.parametrize("name", list(BAD))
def test_what_could_do_harm_is_refused(name: str, tmp_path: Path) -> None:
    data = changed(saved(TREE), BAD[name])
    if name == "alias":  # identities are not believed: what stands there is what was checked
        made: Any = trust.sibling("skops").load(data, trust.lists())
        assert made.criterion == "gini"
        return
    path = tmp_path / "bad.skops"
    path.write_bytes(data)
    if name in {"loop", "beyond"}:  # only seen in what came out: without the seconds of a child process
        with pytest.raises(trust.Fault, match="contradict"):
            trust.sibling("skops").load(data, trust.lists())
        return
    with pytest.raises(TrustError) as caught:
        compose(str(path), None, Options(), home=tmp_path)
    assert f"--trust=sha256:{trust.digest(data)}" in caught.value.hint
    assert "bad.skops" in caught.value.message


def test_code_that_is_not_known_is_named_and_may_be_approved(tmp_path: Path) -> None:
    data = saved(Own().fit([[1.0]], [1]))
    with pytest.raises(TrustError, match=r"not known to be harmless: tests\.test_skops\.Own"):
        trust.open_model(data, home=tmp_path, name="own.skops")
    trust.approve(data, home=tmp_path, name="own.skops", when="2026-01-01T00:00:00+00:00")
    found: Any = trust.open_model(data, home=tmp_path, name="own.skops")
    assert found.predict([[1.0], [2.0]]).tolist() == [1, 1]


class Own(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    def fit(self, x: Any, y: Any) -> "Own":
        self.classes_ = np.array([0, 1])
        return self

    def predict(self, x: Any) -> Any:
        return np.ones(len(x), int)


def bomb() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("1.npy", bytes(513 << 20))
        archive.writestr("schema.json", "{}")
    return out.getvalue()


def twice() -> bytes:
    out = io.BytesIO(saved(TREE))
    with zipfile.ZipFile(out, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("schema.json", "{}")
    return out.getvalue()


def packed_oddly() -> bytes:
    data: bytes = skops.io.dumps(TREE, compression=zipfile.ZIP_LZMA)
    return data


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (bomb, "opens to more than 512 MiB"),
        (twice, "two parts of one name"),
        (packed_oddly, "compressed in an unusual way"),
        (lambda: saved(TREE)[:-30], "archive is damaged"),
        (lambda: saved(TREE)[:200], "archive is damaged"),
        (lambda: changed(saved(TREE), lambda schema, members: members.clear()), "a part of it is missing"),
    ],
    ids=["bomb", "twice", "odd", "cut", "stub", "emptied"],
)
def test_damaged_files_are_refused_in_words(data: Callable[[], bytes], message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.skops"
    path.write_bytes(data())
    with pytest.raises(TrustError, match=message) as caught:
        compose(str(path), None, Options(), home=tmp_path)
    assert caught.value.hint


SMALL = saved(KNeighborsClassifier(2).fit(models.numbers()[:9], [0, 1, 0, 1, 0, 1, 0, 1, 1]))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_flipped_byte_is_an_error_of_ketch_or_changes_nothing(data: st.DataObject) -> None:
    whole = bytearray(SMALL)
    place = data.draw(st.integers(0, len(whole) - 1))
    whole[place] ^= data.draw(st.integers(1, 255))
    found = trust.examine(bytes(whole))
    if found.refused or found.faults or found.format != "skops":
        return
    opened: Any = trust.sibling("skops").load(bytes(whole), trust.lists())
    assert opened.predict(models.numbers()[:9]).tolist() == [0, 0, 0, 0, 0, 0, 0, 0, 0] or len(opened.classes_) == 2


NODES = st.recursive(
    st.one_of(st.builds(plain, st.one_of(st.none(), st.integers(), st.text(max_size=5))), st.sampled_from([SYSTEM])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda nodes: sequence("list", *nodes)),
        st.lists(inner, max_size=3).map(lambda nodes: sequence("tuple", *nodes)),
        st.tuples(
            st.sampled_from(["ObjectNode", "PartialNode", "ConstructorFromReduceNode", "MaskedArrayNode"]), inner
        ).map(lambda pair: named(pair[0], "numpy", "ndarray", content=pair[1])),
    ),
    max_leaves=8,
)


@settings(max_examples=80, deadline=None)
@given(NODES)
def test_whatever_stands_in_the_schema_reading_it_never_fails(node: Schema) -> None:
    found = trust.examine(changed(SMALL, setting("x", node)))
    text = json.dumps(node)
    assert found.format == "skops"
    if "system" in text or "Partial" in text:
        assert found.refused or found.faults


def test_a_bundle_is_no_skops_file_and_the_other_way_round(tmp_path: Path) -> None:
    packed = compose(models.plain_regression(), None, Options(), home=tmp_path)
    assert bundle.looks_like_bundle(packed.data)
    assert not trust.is_skops(packed.data)
    assert trust.is_skops(SMALL)
    assert not bundle.looks_like_bundle(SMALL)
    with pytest.raises(KetchError):
        bundle.read(SMALL, "x")
