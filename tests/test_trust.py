"""The gate: what it opens, what it refuses, and that refusing runs nothing."""

import builtins
import contextlib
import functools
import importlib
import inspect
import io
import json
import operator
import os
import pickle
import re
import stat
import struct
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.base import BaseEstimator
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    IsolationForest,
    RandomForestClassifier,
)
from sklearn.feature_extraction import DictVectorizer
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, RepeatedStratifiedKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils import all_estimators

from ketch import trust
from ketch.errors import KetchError, NotAModel, SettingError, TrustError, UnsupportedModel

joblib: Any = importlib.import_module("joblib")  # its stubs leave out what it exports

WHEN = "2026-11-21T05:00:00Z"
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(60, 4))
POSITIVE = np.abs(X) + 0.1
Y = (X[:, 0] + X[:, 1] > 0).astype(int)
Y3 = np.digitize(X[:, 0], [-0.5, 0.5])
TARGET = np.abs(X @ [1.0, 2.0, 0.5, 0.0]) + 1
RECORDS: list[dict[str, Any]] = [{"city": "ab"[i % 2], "age": float(i)} for i in range(60)]
TEXTS = ["red fish", "blue fish", "one dog", "two dogs"] * 15
FRAME = pd.DataFrame({"a": X[:, 0], "b": X[:, 1], "city": list("xyz") * 20})


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    return tmp_path / "canary"


def joblibbed(value: object, compress: int | tuple[str, int] = 0) -> bytes:
    file = io.BytesIO()
    joblib.dump(value, file, compress=compress)
    return file.getvalue()


def forms(value: object) -> dict[str, bytes]:
    plain = {f"pickle {protocol}": pickle.dumps(value, protocol) for protocol in (2, 4, 5)}
    return plain | {"joblib": joblibbed(value), "joblib compressed": joblibbed(value, 3)}


def load(data: bytes) -> Any:
    """Open under the gate as the child does, without paying for a child: a seam, not a mock."""
    found = trust.examine(data)
    assert (found.refused, found.faults) == ((), ()), found
    return trust.sibling("unpickle").load(data, trust.lists())


def faults_of(data: bytes) -> str:
    """Return why a file is refused, by the static pass or by the checks after loading."""
    found = trust.examine(data)
    if found.refused or found.faults:
        return "; ".join(found.refused + found.faults)
    with pytest.raises(trust.Fault) as caught:
        trust.sibling("unpickle").load(data, trust.lists())
    return str(caught.value)


class Reduce:
    """Pickles as whatever call it is given."""

    def __init__(self, *reduced: Any) -> None:
        self.reduced = reduced

    def __reduce__(self) -> Any:
        return self.reduced


def touch(canary: Path) -> Reduce:
    return Reduce(os.system, (f"touch {canary}",))


# opening what is harmless


def test_dict_vectorizer_and_model_open_through_the_child_and_then_without_it(home: Path) -> None:
    vectorizer = DictVectorizer(dtype=np.float64)
    model = LogisticRegression().fit(vectorizer.fit_transform(RECORDS), Y)
    data = pickle.dumps((vectorizer, model))
    opened: Any = trust.open_model(data, home=home, name="model.bin")
    expected = model.predict_proba(vectorizer.transform(RECORDS))
    assert (opened[1].predict_proba(opened[0].transform(RECORDS)) == expected).all()
    checked = json.loads((home / "checked.json").read_text())
    assert list(checked.values()) == [trust.digest(data)]
    assert not (home / "approvals.json").exists()
    before = (home / "checked.json").stat().st_mtime_ns
    trust.open_model(data, home=home, name="model.bin")
    assert (home / "checked.json").stat().st_mtime_ns == before


@pytest.mark.packing
def test_a_compressed_pipeline_opens_through_the_child(home: Path) -> None:
    pipeline = make_pipeline(StandardScaler(), RandomForestClassifier(10)).fit(X, Y)
    opened: Any = trust.open_model(joblibbed(pipeline, 3), home=home, name="model.joblib")
    assert (opened.predict(X) == pipeline.predict(X)).all()


def needed(cls: Any) -> dict[str, Any]:
    regression = issubclass(cls, BaseEstimator) and "Regress" in cls.__name__
    inner: Any = Ridge() if regression else LogisticRegression()
    parameters = inspect.signature(cls).parameters
    given: dict[str, Any] = {
        "estimator": inner,
        "estimators": [("a", inner), ("b", DecisionTreeClassifier() if not regression else Ridge(2))],
        "transformers": [("s", StandardScaler(), [0, 1])],
        "transformer_list": [("s", StandardScaler())],
        "steps": [("s", StandardScaler()), ("l", LogisticRegression())],
        "param_grid": {"C": [1, 2]},
        "param_distributions": {"C": [1, 2]},
        "dictionary": np.eye(4),
    }
    optional = {"AdaBoost", "Bagging", "IterativeImputer", "RANSAC"}
    if any(cls.__name__.startswith(name) for name in optional):  # they have an estimator of their own
        return {}
    return {name: value for name, value in given.items() if name in parameters}


def fitted() -> Iterator[tuple[str, Any, Any]]:
    importlib.import_module("sklearn.experimental.enable_halving_search_cv")
    importlib.import_module("sklearn.experimental.enable_iterative_imputer")
    kinds = {Y.tobytes(): Y, TARGET.tobytes(): TARGET}
    tables: list[tuple[Any, ...]] = [(table, y) for table in (X, POSITIVE) for y in kinds.values()]
    tables += [(POSITIVE, np.c_[Y, 1 - Y]), (POSITIVE, np.c_[TARGET, TARGET]), (POSITIVE[:, 0], TARGET)]
    tables += [(RECORDS,), (TEXTS,), (Y,), ([["a", "b"], ["b"]],)]
    tables += [(POSITIVE @ POSITIVE.T, Y), (np.ones((3, 20, 20)),)]
    for name, cls in all_estimators():
        model = cls(**needed(cls))
        if "n_estimators" in model.get_params():
            model.set_params(n_estimators=5)
        if name == "TSNE":
            model.set_params(max_iter=250)
        if name.endswith("RandomProjection"):
            model.set_params(n_components=2)
        if name == "FrozenEstimator":
            model = cls(LogisticRegression().fit(X, Y))
        for table in tables:
            try:
                model.fit(*table)
                answers(model, table[0])
            except Exception:  # the next table may be of the kind it wants
                continue
            yield name, model, table[0]
            break
        else:
            pytest.fail(f"{name} fits on none of the tables")


def answers(model: Any, table: Any) -> Any:
    for verb in ("predict_proba", "predict", "transform"):
        if hasattr(model, verb):
            answer = getattr(model, verb)(table)
            return answer.toarray() if hasattr(answer, "toarray") else answer
    return None


def same(got: Any, expected: Any, what: str) -> None:
    if isinstance(expected, np.ndarray) and expected.dtype.kind == "f":
        np.testing.assert_allclose(got, expected, 1e-9, 1e-12, err_msg=what)  # memory may be aligned differently
    else:
        np.testing.assert_array_equal(got, expected, what)


@pytest.mark.packing
@pytest.mark.timeout(300)
def test_every_estimator_of_scikit_learn_opens_and_answers_the_same() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        count = 0
        for name, model, table in fitted():
            expected = answers(model, table)
            for form, data in forms(model).items():
                opened = load(data)
                assert type(opened) is type(model), (name, form)
                if form in {"pickle 4", "joblib"}:
                    same(answers(opened, table), expected, f"{name} {form}")
            count += 1
    assert count > 190


def composed() -> dict[str, tuple[Any, Any]]:
    columns = ColumnTransformer(
        [
            (
                "numbers",
                make_pipeline(SimpleImputer(), StandardScaler()),
                make_column_selector(dtype_include=np.number),
            ),
            ("words", OneHotEncoder(handle_unknown="ignore", min_frequency=2), ["city"]),
        ]
    )
    by_index = ColumnTransformer([("n", StandardScaler(), pd.Index(["a", "b"], dtype=object))])
    categories = FRAME.assign(city=FRAME["city"].astype("category"))
    search = GridSearchCV(
        Pipeline([("columns", columns), ("model", LogisticRegression())]),
        {"model__C": [0.1, 1.0]},
        scoring="roc_auc",
        cv=RepeatedStratifiedKFold(n_splits=2, n_repeats=1, random_state=0),
    )
    deep: Any = LogisticRegression()
    for _ in range(8):
        deep = Pipeline([("scale", StandardScaler()), ("inner", deep)])
    return {
        "search over column transformer": (search.fit(FRAME, Y), FRAME),
        "columns as pandas index": (by_index.fit(FRAME), FRAME),
        "deep pipeline in a search": (GridSearchCV(deep, {"scale__with_mean": [True]}, cv=2).fit(X, Y), X),
        "calibrated": (CalibratedClassifierCV(SVC(), cv=2).fit(X, Y), X),
        "isotonic": (CalibratedClassifierCV(SVC(), cv=2, method="isotonic").fit(X, Y), X),
        "text": (make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(TEXTS, Y), TEXTS),
        "function": (FunctionTransformer(np.log1p).fit(POSITIVE), POSITIVE),
        "random state": (RandomForestClassifier(5, random_state=np.random.RandomState(3)).fit(X, Y), X),
        "categories": (HistGradientBoostingClassifier(max_iter=5).fit(categories, Y3), categories),
        "boosting with three classes": (GradientBoostingClassifier(n_estimators=5).fit(X, Y3), X),
        "sparse vectors": (make_pipeline(TfidfVectorizer(), SVC()).fit(TEXTS, Y), TEXTS),
        "precomputed": (SVC(kernel="precomputed").fit(X @ X.T, Y3), X @ X.T),
        "ball tree": (KNeighborsClassifier(algorithm="ball_tree", metric="manhattan").fit(X, Y3), X),
        "words as classes": (RandomForestClassifier(5).fit(X, np.array(["no", "yes"], object)[Y]), X),
        "outliers": (IsolationForest(n_estimators=5, random_state=np.random.RandomState(1)).fit(X), X),
    }


@pytest.mark.packing
def test_compositions_open_and_answer_the_same() -> None:
    for name, (model, table) in composed().items():
        expected = answers(model, table)
        for form, data in forms(model).items():
            same(answers(load(data), table), expected, f"{name} {form}")


@pytest.mark.parametrize("method", ["zlib", "gzip", "bz2", "xz", "lzma"])
def test_every_compression_of_joblib_opens(method: str) -> None:
    assert load(joblibbed({"a": np.arange(5.0)}, (method, 3)))["a"].sum() == 10


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6).reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.array(["a", None, 1.5], object),
        np.array([], float),
        np.array(7),
        np.array([(1, 2.0)], [("a", "<i4"), ("b", "<f8")]),
        np.array(["2026-11-21"], "M8[ns]"),
        np.array([True, False]),
        np.array(["ä", "bc"]),
        np.arange(3, dtype=">i4"),
        np.ma.masked_array([1.0, 2.0], [True, False]),
    ],
    ids=lambda array: f"{array.dtype.str}{array.shape}",
)
def test_arrays_of_every_kind_come_back_as_they_were(array: Any) -> None:
    for form, data in forms({"a": array, "b": [array, 1]}).items():
        opened = load(data)["a"]
        assert opened.shape == array.shape, form
        assert opened.dtype == array.dtype or not array.dtype.isnative, form
        assert repr(opened.tolist()) == repr(array.tolist()), form


def test_the_finding_says_what_the_file_wants() -> None:
    found = trust.examine(joblibbed(LogisticRegression().fit(X, Y)))
    assert found.format == "joblib"
    assert "sklearn.linear_model._logistic.LogisticRegression" in found.imports
    assert found.sklearn_version.startswith("1.")
    assert trust.examine(pickle.dumps({})).format == "pickle"


# refusing what could do harm


def test_a_command_is_refused_wherever_it_hides(home: Path, canary: Path) -> None:
    evil = touch(canary)
    shared = [evil, {"again": evil}]
    holders: list[object] = [evil, (1, evil), shared, {"k": (shared, shared)}, Pipeline([("x", evil)])]
    holders += [np.array([evil, 1], object), {"a": np.arange(3), "b": np.array([[evil]], object)}]
    for holder in holders:
        for form, data in forms(holder).items():
            with pytest.raises(TrustError) as caught:
                trust.open_model(data, home=home, name="evil.pkl")
            assert f"{os.name}.system" in caught.value.message, form
            assert "evil.pkl" in caught.value.message
            assert trust.digest(data) in caught.value.hint
    assert not canary.exists()
    assert not home.exists()


def call(module: str, name: str, *arguments: object) -> bytes:
    """Build a stream that calls module.name(*arguments), whether or not it can be imported here."""
    pickled = pickle.dumps(arguments, 4)[2:-1]
    pickled = pickled[9:] if pickled[:1] == pickle.FRAME else pickled
    return b"\x80\x04" + text(module) + text(name) + b"\x93" + unmemoized(pickled) + b"R."


def unmemoized(pickled: bytes) -> bytes:
    return pickled.replace(pickle.MEMOIZE, b"")


def text(value: str) -> bytes:
    encoded = value.encode()
    return b"\x8c" + struct.pack("<B", len(encoded)) + encoded


def named(module: str, name: str) -> bytes:
    return text(module) + text(name) + b"\x93"


NEVER = [
    ("os", "system", ("true",)),
    ("posix", "system", ("true",)),
    ("subprocess", "Popen", ("true",)),
    ("builtins", "eval", ("1",)),
    ("builtins", "exec", ("1",)),
    ("builtins", "getattr", ("a", "upper")),
    ("builtins", "setattr", ("a", "b", 1)),
    ("builtins", "__import__", ("os",)),
    ("builtins", "open", ("x", "w")),
    ("builtins", "map", (1,)),
    ("builtins", "type", ("A",)),
    ("__builtin__", "eval", ("1",)),
    ("operator", "attrgetter", ("a",)),
    ("operator", "methodcaller", ("a",)),
    ("_operator", "itemgetter", (0,)),
    ("functools", "reduce", (1,)),
    ("numpy", "load", ("x",)),
    ("numpy", "fromfile", ("x",)),
    ("numpy", "memmap", ("x",)),
    ("numpy", "save", ("x",)),
    ("numpy.lib._npyio_impl", "load", ("x",)),
    ("numpy.testing._private.utils", "runstring", ("x", "y")),
    ("joblib", "load", ("x",)),
    ("joblib.numpy_pickle", "load", ("x",)),
    ("joblib.memory", "Memory", ("x",)),
    ("joblib.memory", "MemorizedFunc", ("x",)),
    ("sklearn.datasets._base", "load_files", ("x",)),
    ("sklearn.datasets", "fetch_openml", ("x",)),
    ("sklearn.utils._mocking", "CheckingClassifier", ()),
    ("pandas", "read_pickle", ("x",)),
    ("pandas.io.pickle", "read_pickle", ("x",)),
    ("pickle", "loads", (b"x",)),
    ("pickle", "_loads", (b"x",)),
    ("_pickle", "loads", (b"x",)),
    ("scipy.stats._distn_infrastructure", "rv_continuous_frozen", ()),
    ("cloudpickle.cloudpickle", "_make_function", ()),
    ("os.path", "join", ("a", "b")),
    ("sklearn.linear_model", "LogisticRegression.fit", ()),
    ("sklearn.linear_model._logistic", "LogisticRegression.fit", ()),
    ("builtins", "str.format", ("a",)),
    ("numpy", "f2py.diagnose.run", ()),
    ("webbrowser", "open", ("x",)),
    ("ctypes", "CDLL", ("x",)),
    ("sklearn", "linear_model", ()),
    ("ketch.trust.unpickle", "load_approved", (b"x",)),
]


@pytest.mark.parametrize(("module", "name", "arguments"), NEVER, ids=lambda value: str(value)[:30])
def test_what_is_on_no_list_is_named_and_refused(module: str, name: str, arguments: tuple[Any, ...]) -> None:
    wanted = f"{module}.{name}"
    data = call(module, name, *arguments)
    assert wanted in trust.examine(data).refused
    old = b"\x80\x02c" + module.encode() + b"\n" + name.encode() + b"\n)R."
    assert wanted in trust.examine(old).refused
    with pytest.raises(trust.Fault):  # the second line: even without the static pass it is not handed out
        trust.sibling("unpickle").load(data, trust.lists())


@pytest.mark.parametrize(
    "data",
    [
        pickle.dumps(functools.partial(os.getcwd)),
        pickle.dumps(functools.partial(np.log1p, 1)),
        call("functools", "partial", 1),
        b"\x80\x04" + named("functools", "partial") + b".",
        pickle.dumps({"f": operator.add}),
        pickle.dumps(Reduce(np.log1p, (1.0,))),
        pickle.dumps(Reduce(LogisticRegression, ())),
        pickle.dumps({"cls": LogisticRegression}),
        pickle.dumps([np.ndarray]),
        call("numpy._core", "_ufunc_reconstruct", "os", "system"),
        call("numpy._core.multiarray", "scalar", 1, b"12345678"),
        call("builtins", "bytearray", 1 << 40),
        call("builtins", "list", "abc"),
        call("builtins", "range", "abc"),
        call("collections", "defaultdict", 3),
        call("_codecs", "encode", "abc", "rot13"),
        call("_codecs", "encode", "abc"),
        call("numpy", "dtype", "f8", False, False),
        call("numpy", "dtype", "O", False, True, {}),
        call("sklearn.tree._tree", "Tree", 4, 1, 1 << 40),
        b"\x80\x04" + named("collections", "defaultdict") + named("builtins", "eval") + b"\x85R.",
        b"\x80\x04" + named("sklearn.metrics._dist_metrics", "newObj") + named("builtins", "str") + b"\x85R.",
        b"\x80\x04" + named("copyreg", "_reconstructor") + named("builtins", "int") * 2 + b"K\x01\x87R.",
        b"\x80\x04" + named("sklearn.pipeline", "Pipeline") + text("x") + b"\x85\x81.",
        b"\x80\x04" + named("sklearn.pipeline", "Pipeline") + b")}" + text("steps") + b"Ns\x92.",
        b"\x80\x04" + named("numpy", "dtype") + b")\x81.",
        b"\x80\x04" + named("numpy", "ndarray") + b")\x81.",
    ],
)
def test_listed_names_are_refused_in_any_other_use(data: bytes) -> None:
    assert faults_of(data)


def fingerprint() -> dict[str, frozenset[str]]:
    known = trust.lists()
    found = {}
    for module, name in known.classes | known.reconstructors | known.functions:
        try:
            value = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError):
            continue  # listed for another scikit-learn
        found[f"{module}.{name}"] = frozenset(
            f"{key}{id(item)}" for key, item in getattr(value, "__dict__", {}).items()
        )
    return found


def test_the_state_of_a_class_cannot_be_changed() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fingerprint()  # some attributes appear on first use
        before = fingerprint()
    cls = named("sklearn.pipeline", "Pipeline")
    state = b"}" + text("predict") + b"Ns"
    streams = [
        cls + state + b"b.",
        cls + b"\x94" + state + b"bh\x00)\x81.",
        cls + b"N" + state + b"\x86b.",
        named("numpy", "log1p") + state + b"b.",
        named("numpy", "float64") + b"}" + text("__init__") + b"Nsb.",
        cls + text("a") + b"Ns.",
        cls + b"(" + text("a") + b"Nu.",
        cls + b"Na.",
        cls + b"(Ne.",
        cls + b"(N\x90.",
        cls + b")\x81N" + state + b"\x86b.",  # a slot state would go through setattr
        cls + b")\x81}" + text("__class__") + b"Nsb.",
        cls + b")\x81}" + text("__setstate__") + named("numpy", "log1p") + b"sb}" + text("a") + b"Nsb.",
        cls + b")\x81" + text("a") + b"Ns.",
        cls + b")\x81Na.",
    ]
    for stream in streams:
        assert trust.examine(b"\x80\x04" + stream).faults
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert fingerprint() == before


@pytest.mark.parametrize(
    ("stream", "why"),
    [
        (b"\x80\x04\x82\x01.", "extension"),
        (b"\x80\x04\x83\x01\x00.", "extension"),
        (b"\x80\x04\x84\x01\x00\x00\x00.", "extension"),
        (b"\x80\x04K\x01Q.", "persistent"),
        (b"\x80\x04Pabc\n.", "persistent"),
        (b"\x80\x04\x97.", "outside"),
        (b"\x80\x04(ios\nsystem\n.", "INST"),
        (b"\x80\x04(cos\nsystem\no.", "OBJ"),
        (b"\x80\x04K\x012\x86.", "DUP"),
        (b"\x80\x04I01\n.", "save it again"),
        (b"\x80\x04K\x01K\x02.", "more than one"),
        (b"\x80\x04(K\x01.", "more than one"),
        (b"\x80\x04.", "damaged"),
        (b"\x80\x040.", "damaged"),
        (b"\x80\x04h\x05.", "memo"),
        (b"\x80\x04Nr\xff\xff\xff\xff.", "memo"),
        (b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7fN.", "damaged"),
        (b"\x80\x04\x95\x02\x00\x00\x00\x00\x00\x00\x00\x8c\x01a.", "frames overlap"),
        (b"\x80\x04K\x01K\x02\x93.", "name of an import"),
        (b"\x80\x04" + text("os") + named("builtins", "str") + b"\x93.", "name of an import"),
        (b"\x80\x04N" + b"N.N", "more than one"),
        (b"\x80\x04N.N", "follows after its end"),
        (pickle.dumps(1) + pickle.dumps(2), "follows after its end"),
        (b"\x80\x04N\x80\x05.", "protocol"),
    ],
)
def test_unusual_streams_are_refused_in_words(stream: bytes, why: str) -> None:
    faults = " ".join(trust.examine(stream).faults)
    assert why in faults


@pytest.mark.packing
def test_too_deep_too_many_and_too_large() -> None:
    deep: list[Any] = []
    for _ in range(200):
        deep = [deep]
    assert "nested deeper" in trust.examine(pickle.dumps(deep)).faults[0]
    assert "nested deeper" in trust.examine(b"\x80\x04" + b"(" * 100_000).faults[0]
    assert "too many steps" in trust.examine(b"\x80\x04" + b"N" * 1_000_010).faults[0]
    step = [b"]\x94aj" + struct.pack("<I", place) for place in range(1, 400)]  # fills each list after it is stored
    assert "nested deeper" in faults_of(b"\x80\x04]\x94" + b"".join(step) + b"0" * 399 + b".")


def test_an_array_cannot_be_larger_than_its_file() -> None:
    data = joblibbed(np.zeros(1000))
    assert "larger than the file" in faults_of(data.replace(b"M\xe8\x03", b"M\xff\xff", 1))
    plain = pickle.dumps(np.zeros(1000), 4)
    assert faults_of(plain.replace(b"M\xe8\x03", b"M\xff\xff", 1))
    assert faults_of(joblibbed(np.zeros(1000), 3)[:-20])
    bomb = joblibbed(np.zeros(80_000_000), 3)
    assert "opens to more than" in faults_of(bomb)


def test_a_dtype_cannot_lie_about_its_memory() -> None:
    element = b"\x80\x04" + named("numpy", "dtype") + text("O8") + b"\x89\x88\x87R"
    start = b"(K\x03" + text("|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff"
    assert trust.examine(element + start + b"K\x3ftb.").faults == ()
    assert trust.examine(element + start + b"K\x00tb.").faults
    good = pickle.dumps(np.dtype([("a", "<i4"), ("b", "<f8")]), 4)
    assert trust.examine(good).faults == ()
    assert trust.examine(good.replace(b"K\x04\x86", b"K\x40\x86")).faults  # a field outside the item
    array = pickle.dumps(np.arange(3), 4)
    assert "a second time" in faults_of(array[:2] + array[11:-1] + b"Nb.")
    assert "before it is filled" in faults_of(array[:2] + array[11:-2] + b"0\x85.")


def test_values_that_would_read_or_write_files_are_refused() -> None:
    assert "input" in faults_of(pickle.dumps(CountVectorizer(input="filename")))
    assert "input" in faults_of(joblibbed(Pipeline([("t", TfidfVectorizer(input="file"))]), 3))
    assert "memory" in faults_of(pickle.dumps(Pipeline([("s", StandardScaler())], memory="/somewhere")))
    assert "Memory" in faults_of(pickle.dumps(Pipeline([("s", StandardScaler())], memory=joblib.Memory(None))))
    assert "pre_dispatch" in faults_of(pickle.dumps(GridSearchCV(Ridge(), {}, pre_dispatch="__import__('os')")))
    assert "n_jobs" in faults_of(pickle.dumps(RandomForestClassifier(n_jobs=10**9)))


def spoil(model: Any, change: Callable[[Any], None]) -> str:
    copied = pickle.loads(pickle.dumps(model))
    assert not trust.examine(pickle.dumps(copied)).faults
    change(copied)
    return min(faults_of(data) for data in (pickle.dumps(copied), joblibbed(copied)))


def test_trees_with_nodes_out_of_range_or_in_a_circle_are_refused() -> None:
    model = DecisionTreeClassifier(max_depth=3).fit(X, Y)
    for field, value in [
        ("left_child", 10_000),
        ("left_child", 0),
        ("right_child", -7),
        ("right_child", 1),
        ("feature", 4),
        ("feature", -3),
    ]:
        data = pickle.dumps(model, 5)
        twin = pickle.loads(data)
        state = twin.tree_.__getstate__()
        state["nodes"][field][0] = value
        assert "contradict" in faults_of(pickle.dumps(with_tree(twin, state))), field
    state = model.tree_.__getstate__()
    assert "contradict" in faults_of(pickle.dumps(with_tree(model, state | {"max_depth": 1})))
    assert "contradict" in faults_of(pickle.dumps(with_tree(model, state, features=9)))

    def widen(copied: Any) -> None:
        copied.n_features_in_ = 2

    assert "contradict" in spoil(model, widen)
    assert "contradict" in spoil(RandomForestClassifier(3).fit(X, Y), lambda m: widen(m.estimators_[1]))
    assert "contradict" in spoil(GradientBoostingClassifier(n_estimators=3).fit(X, Y), widen)


class TreeLike:
    def __init__(self, *reduced: Any) -> None:
        self.reduced = reduced

    def __reduce__(self) -> Any:
        return self.reduced


def with_tree(model: Any, state: dict[str, Any], features: int = 4) -> Any:
    copied = DecisionTreeClassifier()
    copied.__dict__.update(vars(model))
    cls, (_, classes, outputs), _ = model.tree_.__reduce__()
    copied.tree_ = TreeLike(cls, (features, classes, outputs), state)
    return copied


def test_boosted_trees_out_of_range_are_refused() -> None:
    model = HistGradientBoostingClassifier(max_iter=3, min_samples_leaf=5).fit(X, Y)

    def setting(field: str, value: int) -> Callable[[Any], None]:
        def change(copied: Any) -> None:
            nodes = copied._predictors[0][0].nodes
            nodes[field][0] = value

        return change

    for field, value in [("left", 4_000_000), ("right", 0), ("left", 0), ("feature_idx", 4), ("is_categorical", 1)]:
        assert "contradict" in spoil(model, setting(field, value)), field
    wide = GradientBoostingClassifier(n_estimators=3).fit(X, Y3)
    assert "contradict" in spoil(wide, lambda copied: setattr(copied, "classes_", np.array([0, 1])))
    assert "contradict" in spoil(wide, lambda copied: setattr(copied.init_, "classes_", np.array([0])))


def test_neighbours_vectors_and_matrices_out_of_range_are_refused() -> None:
    near = KNeighborsClassifier(algorithm="kd_tree").fit(X, Y3)
    assert "contradict" in spoil(near, lambda copied: copied._y.__setitem__(0, 99))
    data, index, *rest = near._tree.__getstate__()
    function, cls, _ = near._tree.__reduce__()
    for broken in (index + 1, index[:5], -index):
        near_copy = pickle.loads(pickle.dumps(near))
        near_copy._tree = TreeLike(function, cls, (data, broken, *rest))
        assert "contradict" in faults_of(pickle.dumps(near_copy))
    machine = SVC().fit(X, Y3)
    assert "contradict" in spoil(machine, lambda copied: copied._n_support.__setitem__(0, 10_000))
    assert "contradict" in spoil(machine, lambda copied: setattr(copied, "_intercept_", np.zeros(1)))
    assert "contradict" in spoil(machine, lambda copied: setattr(copied, "support_vectors_", np.zeros((2, 4))))
    vectors = SVC().fit(TfidfVectorizer().fit_transform(TEXTS), Y)

    def spoil_indices(copied: Any) -> None:
        copied.support_vectors_.indices[0] = 10_000

    def spoil_pointer(copied: Any) -> None:
        copied.support_vectors_.indptr[1] = 10_000

    assert "contradict" in spoil(vectors, spoil_indices)
    assert "contradict" in spoil(vectors, spoil_pointer)
    words = DictVectorizer().fit(RECORDS)
    assert "contradict" in spoil(words, lambda copied: copied.vocabulary_.update({"age": 10_000}))
    codes = OneHotEncoder(drop="first").fit([["a"], ["b"]])
    assert "contradict" in spoil(codes, lambda copied: setattr(copied, "_n_features_outs", [9]))
    state = np.random.RandomState(0)
    spoiled = re.sub(rb"(pos\x94|h.)M\x70\x02", b"\\1Mp\x7f", pickle.dumps(state, 4), flags=re.DOTALL)
    assert spoiled != pickle.dumps(state, 4)
    assert "contradict" in faults_of(spoiled)


# damage


SAMPLE = make_pipeline(StandardScaler(), LogisticRegression()).fit(X[:10], Y[:10])


@pytest.mark.parametrize("form", ["pickle 2", "pickle 5", "joblib", "joblib compressed"])
def test_a_file_cut_short_anywhere_is_refused(form: str, home: Path) -> None:
    data = forms(SAMPLE)[form]
    for length in [*range(0, 40), *range(40, len(data) - 1, 37), len(data) - 1]:
        with pytest.raises((TrustError, NotAModel)):
            trust.open_model(data[:length], home=home, name="short.pkl")
        trust.examine(data[:length])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    form=st.sampled_from(sorted(forms(SAMPLE))),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_flipped_bytes_never_raise_anything_of_another_kind(form: str, flips: list[tuple[float, int]]) -> None:
    data = bytearray(forms(SAMPLE)[form])
    for place, value in flips:
        data[int(place * len(data))] = value
    found = trust.examine(bytes(data))
    if not found.faults and not found.refused and found.format:
        with contextlib.suppress(Exception):  # what open_model turns into UnsupportedModel or TrustError
            trust.sibling("unpickle").load(bytes(data), trust.lists())


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_noise_is_no_model(noise: bytes) -> None:
    for data in (noise, b"\x80\x04" + noise, b"\x78\x9c" + noise, b"\x1f\x8b" + noise):
        trust.examine(data)


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04 a zip", b"hello world", b"\x80", b"\x80\x09N.", b"(dp0\n."])
def test_what_is_not_a_pickle_at_all(data: bytes, home: Path) -> None:
    with pytest.raises(NotAModel, match=r"x\.bin is not a pickle or joblib file"):
        trust.open_model(data, home=home, name="x.bin")
    with pytest.raises(NotAModel):
        trust.approve(data, home=home, name="x.bin", when=WHEN)


def test_old_and_foreign_compressions_say_save_again() -> None:
    assert "save it again" in trust.examine(b"ZF0x13 and so on").faults[0]
    assert "save it again" in trust.examine(b"\x04\x22\x4d\x18 and so on").faults[0]


# the child


@pytest.mark.packing
def test_a_crash_in_the_child_is_a_refusal(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "own"
    package.mkdir()
    (package / "fragile.py").write_text(
        "import os, time\n"
        "class Crash:\n    def __setstate__(self, state): os.abort() if os.environ.get('HOME') is None else None\n"
        "class Greedy:\n    def __setstate__(self, state): self.x = bytearray(1 << 36)\n"
        "class Busy:\n    def __setstate__(self, state): time.sleep(1000)\n"
    )
    home.mkdir()
    (home / "trust.toml").write_text('[classes]\n"fragile" = ["Crash", "Greedy", "Busy"]\n')
    monkeypatch.syspath_prepend(str(package))
    monkeypatch.setattr(trust.sibling("child"), "SECONDS", 3.0)
    fragile = importlib.import_module("fragile")
    expected = {"Crash": "crashed", "Greedy": "more memory", "Busy": "took more than 3 seconds"}
    for name, why in expected.items():
        if name == "Greedy" and sys.platform == "win32":
            continue
        made = getattr(fragile, name)()
        made.a = 1
        with pytest.raises(TrustError, match=why):
            trust.open_model(pickle.dumps(made), home=home, name="m.pkl")
    assert not (home / "checked.json").exists()


def test_the_child_inherits_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KETCH_API_KEYS", "secret")
    environment = trust.sibling("child").environment()
    assert "secret" not in environment.values()
    assert "HOME" not in environment
    assert environment["OPENBLAS_NUM_THREADS"] == "1"


# approval


class OwnModel:
    def predict(self, rows: list[Any]) -> list[int]:
        return [7 for _ in rows]


def test_an_own_class_is_named_refused_and_opens_once_approved(home: Path) -> None:
    for data in set(forms(OwnModel()).values()):
        with pytest.raises(TrustError, match="OwnModel") as caught:
            trust.open_model(data, home=home, name="own.pkl")
        sha256 = trust.digest(data)
        assert f"--trust=sha256:{sha256}" in caught.value.hint
        assert len(f"{caught.value.message}\n{caught.value.hint}".splitlines()) <= 3
        assert not trust.is_approved(sha256, home=home)
        found = trust.approve(data, home=home, name="own.pkl", when=WHEN)
        assert found.refused == (f"{__name__}.OwnModel",)
        opened: Any = trust.open_model(data, home=home, name="own.pkl")
        assert opened.predict([1]) == [7]
    entry = json.loads((home / "approvals.json").read_text())[sha256]
    assert entry["name"] == "own.pkl"
    assert entry["when"] == WHEN
    assert entry["refused"] == [f"{__name__}.OwnModel"]
    if os.name == "posix":
        assert stat.S_IMODE((home / "approvals.json").stat().st_mode) == 0o600
        assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert sorted(path.name for path in home.iterdir()) == [".ketch.lock", "approvals.json"]


def test_an_approval_holds_for_exactly_these_bytes(home: Path, canary: Path) -> None:
    trust.approve(pickle.dumps(OwnModel()), home=home, name="own.pkl", when=WHEN)
    with pytest.raises(TrustError):
        trust.open_model(pickle.dumps([OwnModel()]), home=home, name="own.pkl")
    with pytest.raises(TrustError):
        trust.open_model(pickle.dumps(touch(canary)), home=home, name="own.pkl")
    assert not canary.exists()


def test_approving_runs_nothing_and_a_failing_approved_file_is_explained(home: Path, canary: Path) -> None:
    trust.approve(pickle.dumps(touch(canary)), home=home, name="evil.pkl", when=WHEN)
    assert not canary.exists()
    gone = b"\x80\x04" + named("no_such_module", "Model") + b")\x81."
    trust.approve(gone, home=home, name="gone.pkl", when=WHEN)
    with pytest.raises(UnsupportedModel, match="no_such_module"):
        trust.open_model(gone, home=home, name="gone.pkl")


def test_many_offenders_are_counted(home: Path) -> None:
    data = b"\x80\x04(" + b"".join(named("evil", f"f{i}") for i in range(8)) + b"t."
    with pytest.raises(TrustError, match=r"evil\.f4 and 3 more"):
        trust.open_model(data, home=home, name="m.pkl")


def test_a_user_may_add_classes_and_nothing_else(home: Path) -> None:
    home.mkdir()
    data = pickle.dumps(OwnModel())
    (home / "trust.toml").write_text(f'[classes]\n"{__name__}" = ["OwnModel"]\n')
    assert trust.examine(data).refused == (f"{__name__}.OwnModel",)
    assert trust.examine(data, home=home).refused == ()
    for wrong in ('[functions]\n"os" = ["system"]', '[classes]\n"os" = "system"', "[classes", '[classes]\na = ["b.c"]'):
        (home / "trust.toml").write_text(wrong)
        with pytest.raises(SettingError):
            trust.examine(data, home=home)


def test_damaged_records_are_reported(home: Path) -> None:
    home.mkdir()
    (home / "approvals.json").write_text("{")
    with pytest.raises(SettingError, match="approvals"):
        trust.is_approved("0" * 64, home=home)


@pytest.mark.packing
def test_what_an_older_scikit_learn_wrote_is_explained(home: Path) -> None:
    data = (
        b"\x80\x04" + named("sklearn.ensemble._gb_losses", "BinomialDeviance") + b")\x81}"
        b"(" + text("_sklearn_version") + text("0.24.2") + b"ub."
    )
    with pytest.raises(UnsupportedModel) as caught:
        trust.open_model(data, home=home, name="old.pkl")
    assert "scikit-learn 0.24.2" in caught.value.hint


def test_the_doorway_is_light() -> None:
    code = "import sys, ketch.trust; print(sorted({'numpy', 'sklearn', 'joblib', 'pickletools'} & set(sys.modules)))"
    path = str(Path(trust.__file__).parents[2])
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, capture_output=True)
    assert done.stdout.strip() == b"[]", done.stderr


def test_the_lists_hold_nothing_dangerous() -> None:
    known = trust.lists()
    every = known.classes | known.reconstructors | known.functions
    assert not any("." in name for _, name in every)
    modules = {module.partition(".")[0] for module, _ in every}
    allowed = {"_codecs", "builtins", "collections", "copyreg", "datetime", "functools", "joblib", "numpy", "pandas"}
    assert modules <= allowed | {"scipy", "sklearn", "catboost", "lightgbm", "xgboost"}
    plain = {"bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "int", "list", "object", "range"}
    assert {name for module, name in every if module == "builtins"} <= plain | {"set", "slice", "str", "tuple"}
    assert not {name for _, name in every} & set(dir(builtins)) & {"eval", "exec", "getattr", "open", "compile"}
    for module, name in known.classes:
        try:
            cls: Any = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError):
            continue
        own = [base for base in cast(Any, cls).__mro__ if base.__module__.startswith("sklearn")]
        assert not any({"__del__", "__setattr__"} & set(vars(base)) for base in own if base.__name__ != "Bunch")


def test_errors_are_all_of_ours() -> None:
    assert all(issubclass(kind, KetchError) for kind in (TrustError, NotAModel, UnsupportedModel))
