"""ONNX files: what a graph tells, and that it answers as the model that it was made from."""

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from ketch import bundle, trust
from ketch.adapters import onnx as adapter
from ketch.errors import KetchError, NotAModel, TrustError, UnsupportedModel
from ketch.pack import Options, compose, read_table
from ketch.predict import Predictor, load
from ketch.testing import AdapterContract, Row

GRAPHS = Path(__file__).parent / "graphs"  # made by tests/programs/graphs.py, of scikit-learn models
KNOWN = json.loads((GRAPHS / "answers.json").read_text("utf-8"))
ROWS: list[dict[str, Any]] = KNOWN["rows"]
NUMBERS = [{"x0": row["tenure"], "x1": row["fee"]} for row in ROWS]


def opened(name: str) -> adapter.Model:
    return adapter.open_file((GRAPHS / f"{name}.onnx").read_bytes(), "onnx")


def predictor(data: bytes, home: Path, table: Any = None, **options: Any) -> Predictor:
    path = home / "model.onnx"
    path.write_bytes(data)
    packed = compose(path, read_table(table), Options(**options), home=home / "home")
    found = bundle.read(packed.data, "model.ketch")
    return Predictor(found, adapter.runner(adapter.open_file(data, "onnx"), found.contract.fields))


def graph(nodes: list[Any], inputs: list[Any], outputs: list[Any], *, opsets: Any = (), **how: Any) -> bytes:
    made = helper.make_graph(nodes, "test", inputs, outputs, **how)
    listed = opsets or [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    data: bytes = helper.make_model(made, opset_imports=listed, ir_version=8).SerializeToString()
    return data


def tensor(name: str, shape: Sequence[Any], kind: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def dense(ending: str, wide: int = 1, *, features: Any = 3, batch: Any = None, weights: Any = None) -> bytes:
    weights = np.arange(3 * wide, dtype=np.float32).reshape(3, wide) / 10 if weights is None else weights
    nodes = [helper.make_node("MatMul", ["X", "w"], ["sums"]), helper.make_node(ending, ["sums"], ["Y"])]
    how = {"initializer": [numpy_helper.from_array(weights, "w")]}
    return graph(nodes, [tensor("X", [batch, features])], [tensor("Y", [batch, wide])], **how)


# the contract


class TestColumns(AdapterContract):
    adapter = adapter
    tolerance = 1e-5  # the graph reckons in float32

    def make_model(self) -> object:
        return opened("columns")

    def make_rows(self) -> Sequence[Row]:
        return ROWS

    def ask(self, model: Any, rows: Sequence[Row]) -> Sequence[Any]:
        return [KNOWN["answers"]["columns"][ROWS.index(dict(row))] for row in rows]

    def save(self, model: Any, folder: Path) -> Path:
        path = folder / "model.onnx"
        path.write_bytes((GRAPHS / "columns.onnx").read_bytes())
        return path


@pytest.mark.packing
class TestForest(AdapterContract):
    adapter = adapter
    tolerance = 1e-5

    def make_model(self) -> object:
        return opened("forest")

    def make_rows(self) -> Sequence[Row]:
        return NUMBERS

    def ask(self, model: Any, rows: Sequence[Row]) -> Sequence[Any]:
        return [KNOWN["answers"]["forest"][NUMBERS.index(dict(row))] for row in rows]

    def save(self, model: Any, folder: Path) -> Path:
        path = folder / "model.onnx"
        path.write_bytes((GRAPHS / "forest.onnx").read_bytes())
        return path

    def test_a_damaged_file_is_refused(self, tmp_path: Path) -> None:
        """Nothing in a graph of numbers tells that one was changed: only half a file is seen to be one."""
        data = (GRAPHS / "forest.onnx").read_bytes()
        with pytest.raises(NotAModel, match="no whole ONNX file"):
            predictor(data[: len(data) // 2], tmp_path)


# what a graph tells


@pytest.mark.parametrize(
    ("name", "task", "classes"),
    [
        ("columns", "binary", (0, 1)),
        ("columns_plain", "binary", (0, 1)),
        ("words", "binary", ("leave", "stay")),
        ("words_plain", "binary", ("leave", "stay")),
        ("doubles", "binary", (0, 1)),
        ("boosted", "binary", (0, 1)),
        ("forest", "multiclass", ("setosa", "versicolor", "virginica")),
        ("network", "multiclass", ("setosa", "versicolor", "virginica")),
        ("neighbours", "multiclass", ("setosa", "versicolor", "virginica")),
        ("voting", "binary", ("leave", "stay")),
        ("vectors", "binary", ("leave", "stay")),
        ("linear_vectors", "multiclass", ("setosa", "versicolor", "virginica")),
        ("regression", "regression", ()),
        ("imputed", "regression", ()),
        ("clusters", "cluster", ()),
        ("outliers", "outlier", ()),
    ],
)
def test_a_graph_answers_as_the_model_it_was_made_from(name: str, task: str, classes: tuple[object, ...]) -> None:
    model = opened(name)
    known = adapter.study(model)
    assert (known.task, known.classes) == (task, classes)
    rows = ROWS if name.startswith("columns") else NUMBERS
    columns = {each.name: [row[each.name] for row in rows] for each in known.fields}
    raw = adapter.runner(model, known.fields)(columns, len(rows))
    wanted = KNOWN["answers"][name]
    found: Any = raw.probabilities or raw.scores or raw.labels
    np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-5)
    assert known.probabilities is (raw.probabilities is not None)
    assert known.score is (raw.scores is not None)
    if raw.probabilities:
        assert raw.labels == [classes[row.index(max(row))] for row in wanted]
    if task == "outlier":
        assert raw.labels == [1 if score >= 0 else -1 for score in wanted]


def test_inputs_by_column_are_the_fields_with_the_encoders_categories() -> None:
    fields = {each.name: each for each in adapter.study(opened("columns")).fields}
    assert {name: each.type for name, each in fields.items()} == {
        "contract": "category",
        "partner": "category",
        "tenure": "integer",
        "fee": "number",
        "late": "boolean",
    }
    assert fields["contract"].categories == ("month", "two years", "year")
    assert (fields["contract"].unknown, fields["contract"].required) == ("flag", True)


def test_one_input_has_made_up_names_until_a_sample_names_it(tmp_path: Path) -> None:
    data = (GRAPHS / "forest.onnx").read_bytes()
    assert [each.name for each in adapter.study(opened("forest")).fields] == ["x0", "x1"]
    table = [{"tenure": row["tenure"], "fee": row["fee"]} for row in ROWS]
    found = predictor(data, tmp_path, table, target="species")
    assert [(each.name, each.type) for each in found.contract.fields] == [("tenure", "integer"), ("fee", "number")]
    answer = found.predict(table[0])
    assert answer["species_probabilities"]["setosa"] == pytest.approx(KNOWN["answers"]["forest"][0][0], abs=1e-5)
    assert found.predict(table) == [found.predict(row) for row in table]


def test_names_written_beside_the_graph_are_taken() -> None:
    message = onnx.load(GRAPHS / "forest.onnx")
    message.metadata_props.add(key="feature_names", value='["tenure", "fee"]')
    known = adapter.study(adapter.open_file(message.SerializeToString(), "onnx"))
    assert ([each.name for each in known.fields], known.named) == (["tenure", "fee"], True)


@pytest.mark.parametrize(
    ("name", "optional"), [("forest", False), ("columns", False), ("boosted", True), ("imputed", True)]
)
def test_a_field_may_be_missing_where_the_graph_knows_gaps(name: str, optional: bool, tmp_path: Path) -> None:
    found = predictor((GRAPHS / f"{name}.onnx").read_bytes(), tmp_path)
    assert {each.required for each in found.contract.fields} == {not optional}
    if optional:
        assert set(found.predict({"x0": None, "x1": 50.0})) == set(found.answers)


@pytest.mark.parametrize(
    ("data", "task", "answer"),
    [
        (dense("Identity"), "regression", {"y": pytest.approx(0.8)}),
        (dense("Sigmoid"), "binary", {"y": True, "y_probability": pytest.approx(1 / (1 + math.exp(-0.8)))}),
    ],
    ids=["number", "one-probability"],
)
def test_one_number_is_a_probability_where_a_sigmoid_ends_it(
    data: bytes, task: str, answer: object, tmp_path: Path
) -> None:
    found = predictor(data, tmp_path, target="y")
    assert found.contract.answer.task == task
    assert found.predict({"x0": 1, "x1": 2, "x2": 3}) == answer


def test_softmax_without_labels_numbers_its_classes(tmp_path: Path) -> None:
    found = predictor(dense("Softmax", 4), tmp_path, target="y")
    answer = found.predict({"x0": 1, "x1": 2, "x2": 3})
    assert answer["y"] == 3
    assert list(answer["y_probabilities"]) == ["0", "1", "2", "3"]


def test_columns_that_the_graph_does_not_count_are_counted_by_a_sample(tmp_path: Path) -> None:
    data = dense("Identity", features="n")
    with pytest.raises(UnsupportedModel, match="how many columns") as caught:
        predictor(data, tmp_path)
    assert "--data" in caught.value.hint
    rows = [{"a": 1.0, "b": 2.0, "c": 3.5}, {"a": 3.0, "b": 2.0, "c": 1.5}]
    assert predictor(data, tmp_path, rows).predict(rows[0]) == {"prediction": pytest.approx(0.9)}


def test_a_graph_that_takes_one_row_at_a_time_is_asked_row_by_row(tmp_path: Path) -> None:
    found = predictor(dense("Identity", batch=1), tmp_path)
    rows = [{"x0": place, "x1": 0, "x2": 1} for place in range(11)]
    assert [each["prediction"] for each in found.predict(rows)] == [pytest.approx(0.2)] * 11


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 299), min_size=1, max_size=70), st.sampled_from(["Sigmoid", "Softmax"]))
def test_a_wide_layer_answers_each_row_alike_in_any_company(places: list[int], ending: str) -> None:
    source = np.random.default_rng(1)
    weights = source.normal(size=(160, 7)).astype(np.float32) / 8
    model = adapter.open_file(dense(ending, 7, features=160, weights=weights), "onnx")
    rows = source.normal(size=(300, 160)).tolist()
    names = [f"x{place}" for place in range(160)]
    runner = adapter._ask
    listed = adapter._columns(model, names)
    whole = runner(model, dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)), listed, 300)["Y"]
    chosen = [rows[place] for place in places]
    found = runner(model, dict(zip(names, map(list, zip(*chosen, strict=True)), strict=True)), listed, len(places))["Y"]
    assert found == [whole[place] for place in places]


# what is refused


def external() -> bytes:
    message = onnx.load(GRAPHS / "regression.onnx")
    made = numpy_helper.from_array(np.zeros((3, 1), np.float32), "w")
    made.ClearField("raw_data")
    made.data_location = TensorProto.EXTERNAL
    made.external_data.add(key="location", value="../../etc/passwd")
    message.graph.initializer.append(made)
    data: bytes = message.SerializeToString()
    return data


def foreign() -> bytes:
    nodes = [helper.make_node("Launch", ["X"], ["Y"], domain="com.example")]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.example", 1)]
    return graph(nodes, [tensor("X", [None, 3])], [tensor("Y", [None, 1])], opsets=opsets)


def nested() -> bytes:
    """A branch of an If holds what is not in the file."""
    hidden = numpy_helper.from_array(np.zeros(1, np.float32), "w")
    hidden.ClearField("raw_data")
    hidden.data_location = TensorProto.EXTERNAL
    hidden.external_data.add(key="location", value="elsewhere.bin")
    inner = helper.make_node("Constant", [], ["c"], value=hidden)
    branch = helper.make_graph([inner], "branch", [], [tensor("c", [1])])
    nodes = [
        helper.make_node("Constant", [], ["yes"], value=numpy_helper.from_array(np.array(True))),
        helper.make_node("If", ["yes"], ["z"], then_branch=branch, else_branch=branch),
        helper.make_node("Mul", ["X", "z"], ["Y"]),
    ]
    return graph(nodes, [tensor("X", [None, 1])], [tensor("Y", [None, 1])])


def image() -> bytes:
    return graph(
        [helper.make_node("Identity", ["X"], ["Y"])], [tensor("X", [None, 3, 8, 8])], [tensor("Y", [None, 3, 8, 8])]
    )


def several() -> bytes:
    return graph([helper.make_node("Identity", ["X"], ["Y"])], [tensor("X", [None, 3])], [tensor("Y", [None, 3])])


def unknown_operation() -> bytes:
    return graph([helper.make_node("NoSuchThing", ["X"], ["Y"])], [tensor("X", [None, 3])], [tensor("Y", [None, 1])])


@pytest.mark.parametrize(
    ("data", "message", "hint"),
    [
        (b"", "holds no graph", "export the model again"),
        (b"not a graph at all", "not those of a graph", "export the model again"),
        (external(), "numbers in other files", "onnx.save"),
        (nested(), "numbers in other files", "onnx.save"),
        (foreign(), "com.example.Launch", "standard operations"),
        (unknown_operation(), "does not take the file", "Export the model again"),
        (image(), "no label and no number", "Export a classifier"),
        (several(), "3 numbers at once", "one model per target"),
    ],
    ids=["empty", "noise", "external", "nested", "foreign", "unknown", "image", "several"],
)
def test_what_cannot_be_served_is_refused_with_a_remedy(data: bytes, message: str, hint: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    with pytest.raises(KetchError, match=message) as caught:
        compose(str(path), None, Options(), home=tmp_path / "home")
    assert hint in caught.value.hint


def test_two_graphs_are_no_model(tmp_path: Path) -> None:
    given = [str(GRAPHS / "forest.onnx"), str(GRAPHS / "words.onnx")]
    with pytest.raises(UnsupportedModel, match="whole model"):
        compose(given, None, Options(), home=tmp_path)


def test_a_graph_that_wants_more_memory_than_there_is_is_refused(tmp_path: Path) -> None:
    shape = numpy_helper.from_array(np.array([1 << 20, 1 << 20], np.int64), "shape")
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["huge"]),
        helper.make_node("ReduceSum", ["huge"], ["sum"], keepdims=0),
        helper.make_node("Add", ["X", "sum"], ["Y"]),
    ]
    data = graph(nodes, [tensor("X", [None, 1])], [tensor("Y", [None, 1])], initializer=[shape])
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    with pytest.raises(KetchError) as caught:
        compose(str(path), None, Options(), home=tmp_path / "home")
    assert caught.value.hint


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_damaged_graph_is_refused_or_answers(data: st.DataObject) -> None:
    """Whatever bytes are changed: an error of Ketch's own, or a graph that ONNX Runtime takes."""
    whole = bytearray((GRAPHS / "columns_plain.onnx").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    problem = None
    try:
        adapter.study(adapter.open_file(bytes(whole), "onnx"))
    except KetchError as error:
        problem = error
    assert problem is None or problem.hint


def test_a_bundle_of_a_graph_opens_again(tmp_path: Path) -> None:
    packed = compose(str(GRAPHS / "columns.onnx"), None, Options(target="churn"), home=tmp_path / "home")
    path = tmp_path / "churn.ketch"
    path.write_bytes(packed.data)
    found = load(path, home=tmp_path / "home")
    assert found.bundle.manifest.adapter == "onnx"
    assert found.predict(ROWS) == [found.predict(row) for row in ROWS]
    versions = found.bundle.manifest.versions
    assert "onnxruntime" in versions
    assert "scikit-learn" not in versions
    assert compose(str(GRAPHS / "columns.onnx"), None, Options(target="churn"), home=tmp_path / "home") == packed


@pytest.mark.skipif(sys.platform != "linux", reason="only there memory is limited for sure")
def test_a_small_graph_that_wants_all_memory_is_refused_in_the_child(tmp_path: Path) -> None:
    zeros = helper.make_node(
        "ConstantOfShape", ["s"], ["c"], value=helper.make_tensor("v", TensorProto.DOUBLE, [1], [0.0])
    )
    nodes = [zeros, helper.make_node("ReduceSum", ["c"], ["r"], keepdims=0), helper.make_node("Add", ["x", "r"], ["y"])]
    x, y = (helper.make_tensor_value_info(name, TensorProto.DOUBLE, [None, 2]) for name in "xy")
    graph = helper.make_graph(nodes, "g", [x], [y], [helper.make_tensor("s", TensorProto.INT64, [1], [3 * 10**9])])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    with pytest.raises(TrustError, match="more memory than a file of its size"):
        trust.try_first(made.SerializeToString(), home=tmp_path, name="m.onnx", loader="ketch.adapters.onnx")
