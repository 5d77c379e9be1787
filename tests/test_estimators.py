"""Every estimator of scikit-learn that fits is packed; what is compiled answers where no pickle is opened."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ketch import bundle
from ketch.adapters import Raw
from ketch.bundle import Bundle
from ketch.predict import Predictor
from tests import catalogue
from tests.catalogue import KINDS, Packing

pytestmark = pytest.mark.packing

RELOAD = """
import json, sys
from pathlib import Path

watched = {"pickle.find_class", "subprocess.Popen", "os.system", "socket.connect"}
seen = []
sys.addaudithook(lambda event, arguments: seen.append((event, str(arguments)[:200])) if event in watched else None)

from ketch import bundle
from ketch.predict import open_bundle

answers = {}
for path in sorted(Path(sys.argv[1]).glob("*.ketch")):
    predictor = open_bundle(bundle.read(path.read_bytes(), path.name), home=Path(sys.argv[1]))
    rows = json.loads(path.with_suffix(".json").read_text())
    answers[path.stem] = [predictor.predict(row) for row in rows], predictor.predict(rows)
heavy = sorted({"sklearn", "pandas", "scipy", "joblib"} & sys.modules.keys())
print(json.dumps({"answers": answers, "seen": seen, "heavy": heavy}))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[Packing]:
    return catalogue.catalogue(tmp_path_factory.mktemp("home"))


@pytest.mark.timeout(600)
def test_nine_in_ten_are_served_compiled(found: list[Packing]) -> None:
    for kinds in (("classifier",), ("regressor",), ("classifier", "regressor"), KINDS):
        compiled, fit = catalogue.share(found, kinds)
        missed = [
            (each.entry.name, each.reason) for each in found if each.entry.kind in kinds and each.serves != "compiled"
        ]
        assert compiled >= 0.9 * fit > 20, (kinds, compiled, fit, missed)


def test_every_classifier_and_regressor_that_fits_is_packed(found: list[Packing]) -> None:
    assert not [
        (each.entry.name, each.reason)
        for each in found
        if each.entry.kind in {"classifier", "regressor"} and each.entry.model is not None and not each.serves
    ]


def test_what_is_compiled_answers_alike_in_a_fresh_process_that_opens_no_pickle(
    found: list[Packing], tmp_path: Path
) -> None:
    wanted: dict[str, Any] = {}
    tolerances: dict[str, float] = {}
    for each in found:
        if each.serves != "compiled":
            continue
        opened = bundle.read(each.data, each.entry.name)
        (tmp_path / f"{each.entry.name}.ketch").write_bytes(each.data)
        (tmp_path / f"{each.entry.name}.json").write_text(json.dumps(opened.golden.rows[:20]))
        wanted[each.entry.name] = original_answers(opened)[:20]
        tolerances[each.entry.name] = opened.manifest.tolerance
    assert len(wanted) > 100
    ran = subprocess.run([sys.executable, "-c", RELOAD, str(tmp_path)], capture_output=True, text=True, check=True)
    told = json.loads(ran.stdout)
    assert told["seen"] == []
    assert told["heavy"] == []
    for name, (singly, together) in told["answers"].items():
        assert singly == together, name
        assert len(singly) == len(wanted[name])
        for mine, theirs in zip(singly, wanted[name], strict=True):
            assert same(mine, theirs, 10 * tolerances[name]), (name, mine, theirs)


def original_answers(opened: Bundle) -> list[dict[str, Any]]:
    """Give the answers of the original, as the bundle keeps them, in the words of the wire."""
    golden, said = opened.golden, Predictor(opened, runner=None)  # type: ignore[arg-type]
    scores: Any = golden.scores
    columns = said.answer(Raw(golden.labels, golden.probabilities, scores), single=False).columns
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def same(mine: Any, theirs: Any, tolerance: float) -> bool:
    if isinstance(mine, dict):
        return mine.keys() == theirs.keys() and all(same(mine[key], theirs[key], tolerance) for key in mine)
    if isinstance(mine, float):
        return bool(mine == pytest.approx(theirs, rel=tolerance, abs=tolerance))
    return bool(mine == theirs)


def test_the_page_in_the_docs_is_what_was_found(found: list[Packing]) -> None:
    assert catalogue.PAGE.read_text("utf-8") == catalogue.page(found), "run: python -m tests.catalogue"
