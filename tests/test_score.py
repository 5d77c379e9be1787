"""Whole tables: the same answers as the service's, whatever the file, the chunk and the neighbours."""

import csv
import datetime
import itertools
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import FunctionTransformer

from ketch.adapters import Raw
from ketch.errors import InputError
from ketch.predict import Limits, Predictor
from ketch.schema import Columns
from ketch.score import Summary, answer_types, given_names, score
from tests import models
from tests.models import late, opened, rows, table, yes_or_no

BAD = [
    {"contract": "mnth", "partner": "no", "tenure": "3", "fee": "9"},
    {"contract": "month", "partner": "", "tenure": "x", "fee": "9"},
    {"contract": "month", "partner": "no", "tenure": "3", "fee": "inf"},
]


@pytest.fixture(scope="module")
def churn() -> Predictor:
    return opened(models.vectorized(), target="churn")


def written(path: Path, listed: list[dict[str, Any]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(listed[0]))
        writer.writeheader()
        writer.writerows(listed)
    return path


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def left(folder: Path) -> set[str]:
    return {each.name for each in folder.iterdir()}


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    listed = [{**row, "id": f"0{place}"} for place, row in enumerate(rows()[:40])]
    for place, bad in zip((0, 7, 39), BAD, strict=True):
        listed[place] = {**bad, "id": "bad, id"}
    return written(tmp_path / "in.csv", listed)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_every_chunk_size_gives_the_same_answers_as_the_service(
    churn: Predictor, mixed: Path, tmp_path: Path, ending: str
) -> None:
    outputs = []
    for chunk in (1, 7, 10_000):
        target, side = tmp_path / f"out{chunk}.{ending}", tmp_path / f"side{chunk}.csv"
        seen: list[int] = []

        def report(summary: Summary, seen: list[int] = seen) -> None:
            seen.append(summary.rows)

        summary = score(churn, mixed, target, rejected=side, chunk=chunk, report=report)
        assert (summary.rows, summary.scored, summary.rejected) == (40, 37, 3)
        assert (summary.side_file, summary.done, summary.seconds >= 0) == (side, summary.total, True)
        assert seen == sorted(seen)
        assert len(seen) == -(-40 // chunk)
        found = pq.read_table(target).to_pylist() if ending == "parquet" else read(target)
        outputs.append((found, side.read_bytes()))
    assert outputs[0] == outputs[1] == outputs[2]
    found, side_bytes = outputs[0]
    good = [row for place, row in enumerate(rows()[:40]) if place not in (0, 7, 39)]
    wanted = churn.predict(good)
    assert [float(row["churn_probability"]) for row in found] == [each["churn_probability"] for each in wanted]
    assert [row["churn"] in (True, "true") for row in found] == [each["churn"] for each in wanted]
    assert [row["id"] for row in found] == [f"0{place}" for place in range(40) if place not in (0, 7, 39)]
    assert list(found[0]) == ["contract", "partner", "tenure", "fee", "id", "churn", "churn_probability"]
    refused = list(csv.DictReader(side_bytes.decode().splitlines()))
    assert [row["row"] for row in refused] == ["1", "8", "40"]
    assert refused[0]["reasons"] == "contract: unknown-category, one of the allowed values, did you mean month?"
    assert set(refused[1]["reasons"].split("; ")) == {
        "partner: missing, one of the allowed values",
        "tenure: wrong-type, a finite number",
    }
    assert refused[2]["reasons"] == "fee: not-finite, a finite number"
    assert refused[2]["id"] == "bad, id"


@pytest.mark.service
@pytest.mark.parametrize("name", ["forest", "linear_vectors", "vectors", "plain_regression", "clusters", "outliers"])
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_every_task_is_scored_in_the_words_of_the_wire(name: str, ending: str, tmp_path: Path) -> None:
    predictor = opened(models.FACTORIES[name](), **late(name))
    names = [each.name for each in predictor.contract.fields]
    listed = [dict(row) if "contract" in names else {"x0": row["tenure"], "x1": row["fee"]} for row in rows()[:9]]
    source = written(tmp_path / "in.csv", listed)
    target = tmp_path / f"out.{ending}"
    score(predictor, source, target, chunk=4)
    found = pd.read_parquet(target) if ending == "parquet" else pd.read_csv(target)
    wanted = predictor.predict(pd.DataFrame(listed))
    assert list(found.columns) == [*listed[0], *answer_types(predictor)]
    pd.testing.assert_frame_equal(found[list(wanted)], wanted, check_dtype=False, check_exact=True)
    if ending == "parquet":
        kinds = {"text": "string", "number": "double", "boolean": "bool", "integer": "int64"}
        types = {each.name: str(each.type) for each in pq.read_schema(target)}
        assert {each: types[each] for each in answer_types(predictor)} == {
            each: kinds[kind] for each, kind in answer_types(predictor).items()
        }


def test_answer_columns_of_other_classes(churn: Predictor) -> None:
    def types(**changes: Any) -> dict[str, str]:
        answer = msgspec.structs.replace(churn.contract.answer, **changes)
        contract = msgspec.structs.replace(churn.contract, answer=answer)
        return answer_types(Predictor(msgspec.structs.replace(churn.bundle, contract=contract), Silent()))

    assert types() == {"churn": "boolean", "churn_probability": "number"}
    assert types(classes=(1, 2), positive=1, values="none") == {"churn": "integer"}
    assert types(classes=(0.5, 2.0), positive=2.0, values="score") == {"churn": "number", "churn_score": "number"}
    assert types(task="multiclass", classes=(1, 2, 3), values="none") == {"churn": "integer"}


class Silent:
    def __call__(self, columns: Columns, n: int) -> Raw:
        return Raw([0] * n)


def test_parquet_in_every_dress_gives_the_same_answers(tmp_path: Path, churn: Predictor) -> None:
    frame = table()[:30].assign(code="007", when=pd.Timestamp("2020-01-02"), day=datetime.date(2020, 1, 2))
    frame.loc[3, "code"] = "abc"
    wanted = churn.predict(table()[:30])
    exact: Any = [Decimal(str(fee)) for fee in frame["fee"]]
    dresses = {
        "plain": frame,
        "nullable": frame.astype({"tenure": "Int16", "fee": "Float64", "contract": "string"}),
        "categorical": frame.astype({"contract": "category", "partner": "category"}),
        "indexed": frame.set_index(pd.Index(range(100, 130), name="key")),
        "decimal": frame.assign(fee=exact),
    }
    for (name, dress), chunk in itertools.product(dresses.items(), (7, 10_000)):
        source, target = tmp_path / f"{name}.parquet", tmp_path / f"{name}.out.pq"
        dress.to_parquet(source)
        summary = score(churn, source, target, chunk=chunk)
        assert (summary.scored, summary.rejected, summary.done) == (30, 0, 30), name
        found = pq.read_table(target)
        assert found["churn_probability"].to_pylist() == wanted["churn_probability"].tolist()
        before = pq.read_table(source)
        for column in before.column_names:
            assert found.schema.field(column).type == before.schema.field(column).type
            assert found[column].to_pylist() == before[column].to_pylist()


def test_missing_values_of_parquet_are_missing(tmp_path: Path, churn: Predictor) -> None:
    frame = table()[:5].convert_dtypes()
    frame.loc[2, "tenure"] = pd.NA
    frame.loc[4, "contract"] = pd.NA
    frame.to_parquet(tmp_path / "in.parquet")
    summary = score(churn, tmp_path / "in.parquet", tmp_path / "out.parquet")
    assert (summary.scored, summary.rejected) == (3, 2)
    refused = read(tmp_path / "out.parquet.rejected.csv")
    assert [(row["row"], row["reasons"], row["tenure"]) for row in refused] == [
        ("3", "tenure: missing, a finite number", ""),
        ("5", "contract: missing, one of the allowed values", str(table()["tenure"][4])),
    ]
    gone = pa.table({"contract": ["month"], "partner": ["no"], "tenure": [float("nan")], "fee": [1.0]})
    pq.write_table(gone, tmp_path / "nan.parquet")
    assert score(churn, tmp_path / "nan.parquet", tmp_path / "nan.csv").rejected == 1


def test_dates_and_truth(tmp_path: Path) -> None:
    frame = pd.DataFrame({"day": pd.to_datetime(["2020-01-05", "2021-06-07"] * 10), "member": [True, False] * 10})
    model = models.make_pipeline(FunctionTransformer(month_and_member), LogisticRegression()).fit(frame, [0, 1] * 10)
    predictor = opened(model, frame)
    assert [each.type for each in predictor.contract.fields] == ["date", "boolean"]
    wanted = predictor.predict(frame)
    assert wanted["prediction"].tolist() == [False, True] * 10
    frame.to_parquet(tmp_path / "in.parquet")
    frame.to_csv(tmp_path / "in.csv", index=False)
    for source, target in itertools.product(("in.parquet", "in.csv"), ("out.parquet", "out.csv")):
        summary = score(predictor, tmp_path / source, tmp_path / target)
        assert (summary.scored, summary.rejected) == (20, 0), source
        found = pd.read_csv(tmp_path / target) if target.endswith("csv") else pd.read_parquet(tmp_path / target)
        assert found["prediction_probability"].tolist() == wanted["prediction_probability"].tolist()
        assert found["member"].tolist() == frame["member"].tolist()


def month_and_member(X: pd.DataFrame) -> Any:
    return np.column_stack([X["day"].dt.month, X["member"].astype(int)])


# the table as a whole


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("contract,partner,tenure\nmonth,no,3\n", "no column 'fee'"),
        ("contract,partner\nmonth,no\n", "no column 'fee' and 1 more"),
        ("contract,partner,tenuer,fee\nmonth,no,3,9\n", "a column 'tenuer'"),
        ("contract,contract\n", "two columns named 'contract'"),
        ("contract,\n", "name for every column"),
        ("", "name for every column"),
        ('contract,"par"tner\n', "not CSV"),
    ],
)
def test_a_table_with_the_wrong_columns_is_refused_whole(
    churn: Predictor, tmp_path: Path, text: str, words: str
) -> None:
    (tmp_path / "in.csv").write_text(text)
    with pytest.raises(InputError, match=words) as caught:
        score(churn, tmp_path / "in.csv", tmp_path / "out.csv")
    assert caught.value.hint
    assert left(tmp_path) == {"in.csv"}


def test_strictness_holds_for_columns_and_values_too(tmp_path: Path) -> None:
    source = written(tmp_path / "in.csv", [{**row, "extra": 1} for row in rows()[:3]])
    strict = opened(models.encoded(), table(), limits=Limits(strict=True))
    with pytest.raises(InputError, match="'extra', which the model does not know") as caught:
        score(strict, source, tmp_path / "out.csv")
    assert caught.value.hint == "Rename or remove it."
    source = written(tmp_path / "in.csv", [rows()[0], {**rows()[1], "fee": 9999}])
    assert score(strict, source, tmp_path / "out.csv").rejected == 1
    soft = opened(models.encoded(), table())
    summary = score(soft, source, tmp_path / "out.csv")
    assert summary.flags == {"out-of-range in fee": 1}
    assert left(tmp_path) == {"in.csv", "out.csv"}  # the side file of the run before is gone


def test_ragged_and_blank_lines(churn: Predictor, tmp_path: Path) -> None:
    text = "contract,partner,tenure,fee\nmonth,no,3\n\nmonth,no,3,9\nmonth,no,3,9,9\nq,no,3,9\n\nyear,yes,4,8\n"
    (tmp_path / "in.csv").write_text(text)
    outputs = set()
    for chunk in (1, 2, 100):
        summary = score(churn, tmp_path / "in.csv", tmp_path / "out.csv", chunk=chunk)
        assert (summary.rows, summary.scored, summary.rejected) == (5, 2, 3)
        outputs.add((tmp_path / "out.csv").read_bytes() + (tmp_path / "out.csv.rejected.csv").read_bytes())
    assert len(outputs) == 1
    refused = read(tmp_path / "out.csv.rejected.csv")
    assert [(row["row"], row["reasons"]) for row in refused[:2]] == [
        ("1", "3 cells where the header has 4"),
        ("3", "5 cells where the header has 4"),
    ]
    assert refused[2]["row"] == "4"


def test_a_table_without_rows_or_without_good_ones_has_its_header(churn: Predictor, tmp_path: Path) -> None:
    head = "contract,partner,tenure,fee"
    for lines in ("\n", "\nq,no,3,9\n"):
        (tmp_path / "in.csv").write_text(head + lines)
        summary = score(churn, tmp_path / "in.csv", tmp_path / "out.csv")
        assert summary.scored == 0
        assert (tmp_path / "out.csv").read_text() == head + ",churn,churn_probability\n"
    pq.write_table(pa.table({name: pa.array([], pa.string()) for name in head.split(",")}), tmp_path / "in.parquet")
    assert score(churn, tmp_path / "in.parquet", tmp_path / "out.parquet").rows == 0
    assert pq.read_table(tmp_path / "out.parquet").column_names == [*head.split(","), "churn", "churn_probability"]


def test_columns_that_bear_an_answers_name_are_kept_under_another(churn: Predictor, tmp_path: Path) -> None:
    listed = [{**row, "churn": "old", "churn_given": "older", "row": "r", "reasons": "s"} for row in rows()[:3]]
    listed[1] = {**listed[1], "contract": "q"}
    score(churn, written(tmp_path / "in.csv", listed), tmp_path / "out.csv")
    found = read(tmp_path / "out.csv")
    assert [row["churn_given_given"] for row in found] == ["old", "old"]
    assert [row["churn_given"] for row in found] == ["older", "older"]
    assert {row["churn"] for row in found} <= {"true", "false"}
    refused = read(tmp_path / "out.csv.rejected.csv")
    assert (refused[0]["row"], refused[0]["row_given"], refused[0]["reasons_given"]) == ("2", "r", "s")
    assert given_names(["a", "b"], ["b"]) == {"a": "a", "b": "b_given"}


def test_input_and_outputs_are_three_files(churn: Predictor, tmp_path: Path) -> None:
    source = written(tmp_path / "in.csv", rows()[:2])
    before = source.read_bytes()
    for target, side in ((source, None), (tmp_path / "out.csv", source), (tmp_path / "o.csv", tmp_path / "o.csv")):
        with pytest.raises(InputError, match="same file"):
            score(churn, source, target, rejected=side)
    (tmp_path / "link.csv").symlink_to(source)
    with pytest.raises(InputError, match="same file"):
        score(churn, source, tmp_path / "link.csv")
    assert source.read_bytes() == before


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_nothing_half_written_remains_when_it_fails_midway(churn: Predictor, tmp_path: Path, ending: str) -> None:
    head, line = b"contract,partner,tenure,fee\n", b"month,no,3,9\n"
    for bad in (b"\xff\xfe\n", b'"a"b,c,d,e\n'):
        (tmp_path / "in.csv").write_bytes(head + line * 5 + b"q,no,3,9\n" + line * 9000 + bad)
        (tmp_path / f"out.{ending}").write_text("of yesterday")
        with pytest.raises(InputError, match=r"line \d+ of"):
            score(churn, tmp_path / "in.csv", tmp_path / f"out.{ending}", chunk=500)
        assert left(tmp_path) == {"in.csv", f"out.{ending}"}
        assert (tmp_path / f"out.{ending}").read_text() == "of yesterday"


def test_files_that_cannot_be_read_or_written(churn: Predictor, tmp_path: Path) -> None:
    source = written(tmp_path / "in.csv", rows()[:2])
    with pytest.raises(InputError, match="There is no file"):
        score(churn, tmp_path / "none.csv", tmp_path / "out.csv")
    for name in ("out.csv", "out.parquet"):
        with pytest.raises(InputError, match="cannot be written"):
            score(churn, source, tmp_path / "nowhere" / name)
    (tmp_path / "in.parquet").write_bytes(b"no parquet")
    with pytest.raises(InputError, match="not Parquet"):
        score(churn, tmp_path / "in.parquet", tmp_path / "out.csv")
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["fee", "fee"])
    pq.write_table(twice, tmp_path / "in.parquet")
    with pytest.raises(InputError, match="two columns of one name"):
        score(churn, tmp_path / "in.parquet", tmp_path / "out.csv")
    assert left(tmp_path) == {"in.csv", "in.parquet"}


def test_a_number_too_large_for_parquet_is_told_and_nothing_is_written(tmp_path: Path) -> None:
    model = LogisticRegression().fit([[1.0], [2.0]], [0, 1])
    predictor = opened(model, pd.DataFrame({"size": [1, 2]}))
    assert predictor.contract.fields[0].type == "integer"
    source = written(tmp_path / "in.csv", [{"size": 1}, {"size": "3.0"}, {"size": "9" * 25}])
    with pytest.raises(InputError, match="'size' cannot be written as int64"):
        score(predictor, source, tmp_path / "out.parquet")
    assert left(tmp_path) == {"in.csv"}
    assert score(predictor, source, tmp_path / "out.csv").scored == 3


class Moody:
    """A runner that fails or answers nonsense for some tenures."""

    def __call__(self, columns: Columns, n: int) -> Raw:
        if 13 in columns["tenure"]:
            raise ValueError("unlucky")
        likely = [float("nan") if value == 14 else 0.5 for value in columns["tenure"]]
        return Raw([1] * n, [[value, value] for value in likely])


def test_rows_without_an_answer_are_rejected_singly(churn: Predictor, tmp_path: Path) -> None:
    moody = Predictor(churn.bundle, Moody())
    listed = [{**rows()[0], "tenure": tenure} for tenure in (13, 1, 14, 2)]
    summary = score(moody, written(tmp_path / "in.csv", listed), tmp_path / "out.csv")
    assert (summary.scored, summary.rejected) == (2, 2)
    assert [row["tenure"] for row in read(tmp_path / "out.csv")] == ["1", "2"]
    refused = read(tmp_path / "out.csv.rejected.csv")
    assert [row["row"] for row in refused] == ["1", "3"]
    assert "not-answerable" in refused[0]["reasons"]
    listed = [{**rows()[0], "tenure": 13}]
    assert score(moody, written(tmp_path / "in.csv", listed), tmp_path / "out.csv").scored == 0
    assert "churn_probability" in (tmp_path / "out.csv").read_text()


def test_a_rejected_side_file_may_be_parquet(churn: Predictor, mixed: Path, tmp_path: Path) -> None:
    score(churn, mixed, tmp_path / "out.csv", rejected=tmp_path / "side.parquet")
    assert pq.read_table(tmp_path / "side.parquet")["row"].to_pylist() == [1, 8, 40]


def test_names_and_categories_with_blanks_are_found(tmp_path: Path) -> None:
    frame = pd.DataFrame({"age": [1, 2, 3, 4], " sex": [" m", " f"] * 2})
    encoder = models.ColumnTransformer([("c", models.OneHotEncoder(), [" sex"])], remainder="passthrough")
    model = models.make_pipeline(encoder, LogisticRegression()).fit(frame, [0, 1, 0, 1])
    frame.to_csv(tmp_path / "in.csv", index=False)
    predictor = opened(model)
    assert score(predictor, tmp_path / "in.csv", tmp_path / "out.csv").scored == 4
    assert opened(model, frame).predict(frame)["prediction"].tolist() == [False, True] * 2


def test_a_summary_starts_empty() -> None:
    assert (Summary().rows, Summary().side_file) == (0, None)
    assert yes_or_no()
