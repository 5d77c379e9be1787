"""Code of a user's own: captured with the model, searched for secrets, opened by trust in a namespace of its own."""

import importlib
import linecache
import os
import re
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import joblib
import pytest

from ketch import bundle, code, trust
from ketch.adapters import function
from ketch.code.private import NAMESPACES
from ketch.code.secrets import search
from ketch.errors import ContractError, KetchError, ModelError, NotAnswerable, SecretFound, TrustError, UnsupportedModel
from ketch.pack import Options, compose
from ketch.predict import open_bundle, opened_units
from ketch.testing import AdapterContract
from tests.functions import by_class, by_flag, by_label, by_number, by_outlier, by_score, likely
from tests.running import fresh
from tests.running import ketch as command

ROWS = [{"months": float(place), "fee": 20.0 + place % 7} for place in range(40)]
JOBLIB: Any = joblib


SEARCHED = """
import warnings
from ketch.code.secrets import search

list(search({"features.py": "x = 1"}))
warnings.warn("of the user's own")
"""


def write(folder: Path, **files: str) -> Path:
    """Write modules: `features="…"` is features.py, `pkg__sub` is pkg/sub.py."""
    for name, text in files.items():
        path = folder / (name.replace("__", "/").replace("/init", "/__init__") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), "utf-8")
    return folder


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home, and a folder of modules that are forgotten afterwards."""
    monkeypatch.setenv("KETCH_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that Python imports from."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.chdir(folder)
    before = set(sys.modules)
    yield folder
    for name in set(sys.modules) - before:
        if str(folder) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def imported(name: str) -> Any:
    importlib.invalidate_caches()
    return importlib.import_module(name)


def forget(folder: Path) -> None:
    """Take sources away, from the disk and from this process."""
    for name, module in list(sys.modules.items()):
        if str(folder) in str(getattr(module, "__file__", "")):
            del sys.modules[name]
    for path in folder.rglob("*.py"):
        path.unlink()
    importlib.invalidate_caches()


def packed(model: object, home: Path, **options: Any) -> bundle.Bundle:
    made = compose(model, ketch_table(), Options(**options), home=home)
    return bundle.read(made.data, "made.ketch")


def ketch_table() -> Any:
    from ketch.pack import read_table

    return read_table(ROWS)


def answers(opened: bundle.Bundle, home: Path, rows: Sequence[Mapping[str, object]] = ROWS[:3]) -> Any:
    return [each["prediction"] for each in open_bundle(opened, home=home).predict(list(rows))]


# what travels by source


def test_a_module_travels_with_what_it_imports(home: Path, project: Path) -> None:
    write(
        project,
        model="""
            from features import scaled
            import prep.units as units
            def predict(rows):
                from late import OFFSET
                return [scaled(row["months"]) + units.double(row["fee"]) + OFFSET for row in rows]
        """,
        features="from scales import BY\ndef scaled(x): return x * BY\n",
        scales="import math\nBY = math.sqrt(100.0)\n",
        late="OFFSET = 0.5\n",
        unused="raise RuntimeError('nobody asked for this')\n",
        prep__init="from .units import double\n",
        prep__units="from . import base\ndef double(x): return base.TWO * x\n",
        prep__base="TWO = 2.0\n",
    )
    made = packed(imported("model").predict, home)
    assert made.manifest.code == tuple(
        f"code/{name}.py"
        for name in ("features", "late", "model", "prep/__init__", "prep/base", "prep/units", "scales")
    )
    assert made.code["code/late.py"] == b"OFFSET = 0.5\n"
    forget(project)
    assert answers(made, home) == [row["months"] * 10 + row["fee"] * 2 + 0.5 for row in ROWS[:3]]
    assert not {"model", "features", "scales", "prep", "late"} & set(sys.modules)


def test_installed_and_standard_modules_stay_where_they_are(home: Path, project: Path) -> None:
    write(
        project,
        model="""
            import json, re
            import numpy as np
            from sklearn.linear_model import LinearRegression
            try:
                import nowhere_to_be_found
            except ImportError:
                nowhere_to_be_found = None
            def predict(rows):
                return [float(np.float64(row["fee"])) for row in rows]
        """,
    )
    made = packed(imported("model").predict, home)
    assert made.manifest.code == ("code/model.py",)
    assert made.manifest.versions.keys() >= {"numpy", "scikit-learn"}


@pytest.mark.packing
def test_by_source_a_pickle_finds_its_modules_beside_it_and_runs_none_before_it_is_approved(
    home: Path, tmp_path: Path
) -> None:
    folder = write(
        tmp_path / "made",
        features="""
            from pathlib import Path
            import numpy as np
            from sklearn.base import BaseEstimator, TransformerMixin
            from scales import shrink
            with Path("ran.txt").open("a") as file:
                file.write("x")
            class LogTransformer(TransformerMixin, BaseEstimator):
                def fit(self, X, y=None):
                    return self
                def transform(self, X):
                    return shrink(X)
        """,
        scales="import numpy as np\ndef shrink(X): return np.log1p(np.asarray(X, float))\n",
        train="""
            import pickle
            import joblib
            from sklearn.linear_model import LinearRegression
            from sklearn.pipeline import make_pipeline
            from features import LogTransformer
            rows = [[1.0, 2.0], [3.0, 1.0], [5.0, 9.0]]
            model = make_pipeline(LogTransformer(), LinearRegression()).fit(rows, [1, 2, 3])
            pickle.dump(model, open("model.pkl", "wb"))
            joblib.dump(model, "model.joblib", compress=3)
            print(model.predict([[2.0, 3.0]])[0])
        """,
    )
    trained = subprocess.run([sys.executable, "train.py"], cwd=folder, capture_output=True, text=True, check=True)
    wanted = float(trained.stdout)
    (folder / "ran.txt").unlink()
    rows = folder / "rows.csv"
    rows.write_text("a,b\n1.0,2.0\n2.0,3.0\n5.0,9.0\n")

    for file in ("model.pkl", "model.joblib"):
        refused = command("pack", file, "--data", "rows.csv", home=home, cwd=folder)
        assert refused.returncode == 1
        assert "features.py, scales.py" in refused.stderr
        assert "--trust=sha256:" in refused.stderr
        assert not (folder / "ran.txt").exists()
    made = command("pack", "model.pkl", "--data", "rows.csv", "--trust", home=home, cwd=folder)
    assert made.returncode == 0, made.stderr
    assert "model.pkl is trusted from now on; it runs features.py, scales.py" in made.stderr
    assert "carries code/features.py\n  carries code/scales.py" in made.stdout
    assert (folder / "ran.txt").read_text() == "x"
    zipped = command("pack", "model.joblib", "--data", "rows.csv", "--trust", "-o", "j.ketch", home=home, cwd=folder)
    assert zipped.returncode == 0, zipped.stderr

    elsewhere, other = tmp_path / "empty", tmp_path / "other-home"
    elsewhere.mkdir()
    for name in ("model.ketch", "j.ketch"):
        (elsewhere / name).write_bytes((folder / name).read_bytes())
    (elsewhere / "in.csv").write_text("a,b\n2.0,3.0\n")
    told = command("score", "model.ketch", "in.csv", "-o", "out.csv", home=other, cwd=elsewhere)
    assert told.returncode == 1
    assert "model runs code of its maker's own: features.py, scales.py" in told.stderr
    found = re.search(r"sha256:[0-9a-f]{64}", told.stderr)
    assert found is not None
    (folder / "scales.py").rename(folder / "away.txt")
    for name, approval in (
        ("model.ketch", found[0]),
        ("j.ketch", "sha256:" + bundle.identity((elsewhere / "j.ketch").read_bytes())),
    ):
        run = fresh if name == "model.ketch" else command
        done = run("score", name, "in.csv", "-o", "out.csv", f"--trust={approval}", home=other, cwd=elsewhere)
        assert done.returncode == 0, done.stderr
        assert float((elsewhere / "out.csv").read_text().splitlines()[1].split(",")[-1]) == pytest.approx(wanted)


SMALL = """
    import pickle, sys
    import ketch
    from features import shift
    WORDS = {"one", "two", "three", "four"}
    class Row:
        kinds = frozenset({"alpha", "beta", "gamma"})
        def __init__(self, fee):
            self.fee = fee
    def predict(rows):
        from late import OFFSET
        assert "two" in WORDS and "beta" in {"beta", "delta", "epsilon"} and "alpha" in Row.kinds
        return [shift(Row(row["fee"]).fee) + OFFSET for row in rows]
    predict.fields = {"fee": "number"}
    if __name__ == "__main__":
        ketch.pack(predict, "fee.ketch", target="fee")
"""


def test_what_a_script_defines_works_elsewhere_and_packs_to_the_same_bytes(home: Path, tmp_path: Path) -> None:
    written = []
    for seed in ("0", "7"):
        folder = write(
            tmp_path / f"at-{seed}", train=SMALL, features="def shift(x): return x + 1.0\n", late="OFFSET = 10.0\n"
        )
        environ = {**os.environ, "KETCH_HOME": str(home), "PYTHONHASHSEED": seed}
        subprocess.run([sys.executable, "train.py"], cwd=folder, env=environ, check=True)
        written.append((folder / "fee.ketch").read_bytes())
    assert written[0] == written[1]  # whatever the seed, and wherever it was packed
    made = bundle.read(written[0], "m")
    assert made.manifest.code == ("code/features.py", "code/late.py")
    assert str(tmp_path).encode() not in b"".join(made.files.values())
    elsewhere, other = tmp_path / "empty", tmp_path / "other-home"
    elsewhere.mkdir()
    (elsewhere / "fee.ketch").write_bytes(written[0])
    ask = "import ketch; print(ketch.load('fee.ketch').predict({'fee': 5.0}))"
    environ = {**os.environ, "KETCH_HOME": str(other)}
    done = subprocess.run([sys.executable, "-c", ask], cwd=elsewhere, env=environ, capture_output=True, text=True)
    assert "fee runs code of its maker's own: features.py, late.py, code inside model.pkl" in done.stderr
    code.approve(made.originals, made.code, home=other, name="fee", when="now")
    done = subprocess.run([sys.executable, "-c", ask], cwd=elsewhere, env=environ, capture_output=True, text=True)
    assert done.stdout == "{'fee': 16.0}\n", done.stderr


def test_a_pickled_function_finds_its_modules_beside_it_and_runs_none_before_it_is_approved(
    home: Path, tmp_path: Path
) -> None:
    folder = write(
        tmp_path / "made",
        model="""
            from pathlib import Path
            from scales import BY
            with Path("ran.txt").open("a") as file:
                file.write("x")
            def predict(rows):
                return [row["fee"] * BY for row in rows]
            predict.fields = {"fee": "number"}
        """,
        scales="BY = 2.0\n",
    )
    (folder / "model.pkl").write_bytes(b"\x80\x04\x8c\x05model\x8c\x07predict\x93.")
    refused = command("pack", "model.pkl", home=home, cwd=folder)
    assert refused.returncode == 1
    assert "model.py, scales.py" in refused.stderr
    assert not (folder / "ran.txt").exists()
    made = command("pack", "model.pkl", "--trust", home=home, cwd=folder)
    assert made.returncode == 0, made.stderr
    assert "model.pkl is trusted from now on; it runs model.py, scales.py" in made.stderr
    assert "carries code/model.py\n  carries code/scales.py" in made.stdout
    assert (folder / "ran.txt").read_text() == "x"
    elsewhere, other = tmp_path / "empty", tmp_path / "other-home"
    elsewhere.mkdir()
    (elsewhere / "model.ketch").write_bytes((folder / "model.ketch").read_bytes())
    (elsewhere / "in.csv").write_text("fee\n4.5\n")
    told = command("score", "model.ketch", "in.csv", "-o", "out.csv", home=other, cwd=elsewhere)
    found = re.search(r"--trust=sha256:[0-9a-f]{64}", told.stderr)
    assert found is not None
    done = command("score", "model.ketch", "in.csv", "-o", "out.csv", found[0], home=other, cwd=elsewhere)
    assert done.returncode == 0, done.stderr
    assert (elsewhere / "out.csv").read_text().splitlines()[1] == "4.5,9.0"
    shown = command("inspect", "model.ketch", home=other, cwd=elsewhere)
    assert "code     code/model.py\ncode     code/scales.py" in shown.stdout
    assert "model.pkl (pickle): approved here" in shown.stdout


SCRIPT = """
    import math, sys
    import ketch
    import pandas as pd
    from sklearn.base import BaseEstimator, TransformerMixin
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    WORDS = {"one", "two", "three", "four"}

    class Log(TransformerMixin, BaseEstimator):
        kinds = frozenset({"alpha", "beta", "gamma"})
        def fit(self, X, y=None):
            return self
        def transform(self, X):
            import numpy as np
            from features import shift
            assert "two" in WORDS and "beta" in {"beta", "delta", "epsilon"} and "alpha" in self.kinds
            return shift(np.log1p(X))

    frame = pd.DataFrame({"months": [1.0, 4, 30, 12, 60, 7], "fee": [80.0, 99, 20, 45, 30, 95]})
    leaves = [1, 1, 0, 0, 0, 1]
    model = make_pipeline(Log(), FunctionTransformer(lambda X: X * math.pi), LogisticRegression()).fit(frame, leaves)
    packed = ketch.pack(model, sys.argv[1], target="churn", data=frame)
    print(model.predict_proba(frame)[0, 1])
"""


@pytest.mark.packing
def test_by_value_what_a_script_defines_works_elsewhere_and_packs_to_the_same_bytes(home: Path, tmp_path: Path) -> None:
    written, stated = [], ""
    for seed in ("0", "7"):
        folder = write(tmp_path / f"at-{seed}", train=SCRIPT, features="def shift(X): return X + 1.0\n")
        environ = {**os.environ, "KETCH_HOME": str(home), "PYTHONHASHSEED": seed}
        ran = subprocess.run(
            [sys.executable, "train.py", "m.ketch"], cwd=folder, env=environ, capture_output=True, text=True
        )
        assert ran.returncode == 0, ran.stderr
        stated = ran.stdout
        written.append((folder / "m.ketch").read_bytes())
    assert written[0] == written[1]  # whatever the seed, and wherever it was packed
    assert str(tmp_path).encode() not in b"".join(bundle.read(written[0], "m").files.values())

    elsewhere, other = tmp_path / "empty", tmp_path / "other-home"
    elsewhere.mkdir()
    (elsewhere / "m.ketch").write_bytes(written[0])
    (elsewhere / "in.csv").write_text("months,fee\n1.0,80.0\n")
    refused = command("score", "m.ketch", "in.csv", "-o", "out.csv", home=other, cwd=elsewhere)
    assert "churn runs code of its maker's own: features.py, code inside model.pkl" in refused.stderr
    approval = f"--trust=sha256:{bundle.identity(written[0])}"
    done = command("score", "m.ketch", "in.csv", "-o", "out.csv", approval, home=other, cwd=elsewhere)
    assert done.returncode == 0, done.stderr
    assert float((elsewhere / "out.csv").read_text().splitlines()[1].split(",")[-1]) == pytest.approx(float(stated))
    shown = command("inspect", "m.ketch", home=home, cwd=elsewhere)
    assert "code     code/features.py" in shown.stdout
    assert "model.pkl (cloudpickle): approved here" in shown.stdout


def test_by_value_lambdas_closures_and_what_they_hold(home: Path) -> None:
    by = 3.0
    made = packed(lambda rows: [row["fee"] * by for row in rows], home)
    assert [each.format for each in made.manifest.originals] == ["cloudpickle"]
    assert answers(made, home) == [row["fee"] * 3 for row in ROWS[:3]]


def test_by_value_code_of_another_python_is_refused(home: Path) -> None:
    made = packed(lambda rows: [1.5 for _ in rows], home)
    with pytest.raises(UnsupportedModel, match=r"compiled by Python 3\.10, this is Python") as caught:
        code.open_parts(made.originals, made.code, home=home, name="old", python="3.10.4")
    assert "Serve it with Python 3.10" in caught.value.hint


def test_cells_of_a_notebook_travel_under_no_name_of_their_process(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    for count in (11, 12):
        scope: dict[str, Any] = {"__name__": "__main__"}
        for place, text in enumerate(
            (
                "def helper(x):\n    import click\n    return abs(x)\n",
                "def predict(rows):\n    return [helper(-1.5) for _ in rows]\n",
            )
        ):
            file = f"/tmp/ipykernel_{count}/{count + place}.py"
            monkeypatch.setitem(linecache.cache, file, (len(text), None, text.splitlines(True), file))
            exec(compile(text, file, "exec"), scope)
        made.append(packed(scope["predict"], home))
    assert made[0].sha256 == made[1].sha256
    assert "click" in made[0].manifest.versions
    assert answers(made[0], home) == [1.5] * 3
    for name in list(linecache.cache):
        if "ipykernel_12/13" in name:
            text = "def predict(rows):\n    password = 'hunter2hunter2'\n    return [1.5 for _ in rows]\n"
            monkeypatch.setitem(linecache.cache, name, (len(text), None, text.splitlines(True), name))
            exec(compile(text, name, "exec"), scope)
    with pytest.raises(SecretFound, match=r"^a cell of the notebook \(1\):2 holds"):
        packed(scope["predict"], home)


# a namespace of its own


def serve_two(home: Path, project: Path) -> tuple[bundle.Bundle, bundle.Bundle]:
    made = []
    for number in (1, 2):
        write(
            project,
            model=f"""
                import features  # {number}
                def predict(rows):
                    from features import NUMBER
                    import features as again
                    assert again.NUMBER == NUMBER == features.NUMBER
                    return [NUMBER + row["fee"] for row in rows]
            """,
            features=f"NUMBER = {number}.0\n",
        )
        made.append(packed(imported("model").predict, home))
        forget(project)
    return made[0], made[1]


def test_modules_of_one_name_serve_side_by_side(home: Path, project: Path) -> None:
    one, two = serve_two(home, project)
    first, second = (open_bundle(each, home=home) for each in (one, two))
    for _ in range(2):
        assert first.predict(ROWS[0]) == {"prediction": ROWS[0]["fee"] + 1.0}
        assert second.predict(ROWS[0]) == {"prediction": ROWS[0]["fee"] + 2.0}
    write(project, features="NUMBER = 99.0\n")
    assert imported("features").NUMBER == 99.0
    assert first.predict(ROWS[0]) == {"prediction": ROWS[0]["fee"] + 1.0}


def test_many_threads_load_a_module_once(home: Path, project: Path) -> None:
    write(
        project,
        model="import slow\ndef predict(rows): return [slow.READY + row['fee'] for row in rows]\n",
        slow="import time\nCOUNT = []\nCOUNT.append(1)\ntime.sleep(0.2)\nREADY = float(len(COUNT))\n",
    )
    made = packed(imported("model").predict, home)
    forget(project)
    space = code.unit(made.originals, made.code)[:32]
    for name in [name for name in sys.modules if space in name]:
        del sys.modules[name]
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(answers(made, home, ROWS[:1]))) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[ROWS[0]["fee"] + 1.0]] * 12


def test_neither_shadows_the_other_an_installed_package_or_a_captured_module(home: Path, project: Path) -> None:
    write(
        project,
        model="""
            import click
            import msgspec
            def predict(rows):
                return [float(click.__version__ == "mine") + float(hasattr(msgspec, "Struct")) for _ in rows]
        """,
        click="__version__ = 'mine'\n",
    )
    import click

    del sys.modules["click"]
    try:
        made = packed(imported("model").predict, home)
    finally:
        sys.modules["click"] = click
    assert made.manifest.code == ("code/click.py", "code/model.py")
    forget(project)
    assert answers(made, home) == [2.0, 2.0, 2.0]
    assert imported("click") is click


def test_what_looks_into_sys_modules_finds_its_module(home: Path, project: Path) -> None:
    write(
        project,
        model="""
            from __future__ import annotations
            import dataclasses, pickle, typing
            from shapes import Base
            @dataclasses.dataclass
            class Row(Base):
                fee: float
                kind: typing.ClassVar[str] = "row"
            def predict(rows):
                made = [Row(fee=row["fee"]) for row in rows]
                assert typing.get_type_hints(Row)["fee"] is float
                assert pickle.loads(pickle.dumps(made)) == made
                return [each.fee for each in made]
        """,
        shapes="import dataclasses\n@dataclasses.dataclass\nclass Base:\n    pass\n",
    )
    made = packed(imported("model").predict, home)
    forget(project)
    assert answers(made, home) == [row["fee"] for row in ROWS[:3]]


def test_a_model_that_was_loaded_can_be_packed_again(home: Path, project: Path) -> None:
    write(
        project,
        model="import features\ndef predict(rows): return [features.double(row['fee']) for row in rows]\n",
        features="def double(x): return 2 * x\n",
    )
    made = packed(imported("model").predict, home)
    forget(project)
    (opened,) = code.open_parts(made.originals, made.code, home=home, name="it", python="3")
    again = packed(opened, home)
    assert again.code == made.code
    outer = packed(lambda rows: opened(rows), home)  # type: ignore[operator]
    assert outer.code == made.code
    NAMESPACES.clear()
    for name in [name for name in sys.modules if name.startswith("_ketch_")]:
        del sys.modules[name]
    for each in (again, outer):
        assert answers(each, home) == [2 * row["fee"] for row in ROWS[:3]]


def test_two_loaded_models_whose_modules_differ_cannot_be_packed_as_one(home: Path, project: Path) -> None:
    one, two = (
        code.open_parts(each.originals, each.code, home=home, name="it", python="3")[0]
        for each in serve_two(home, project)
    )
    with pytest.raises(UnsupportedModel, match=r"Two different files are both called (features|model)\.py"):
        packed(lambda rows: [a + b for a, b in zip(one(rows), two(rows), strict=True)], home)  # type: ignore[operator]


# trust


def swapped(opened: bundle.Bundle, member: str, data: bytes) -> bundle.Bundle:
    return bundle.read(bundle.replaced(opened, {member: data}), "swapped.ketch")


def test_an_approval_is_for_original_and_code_together(home: Path, project: Path, tmp_path: Path) -> None:
    one, two = serve_two(home, project)
    mixed = swapped(one, "code/features.py", two.code["code/features.py"])  # each part was approved, in other company
    with pytest.raises(TrustError, match=r"runs code of its maker's own: features\.py, model\.py") as caught:
        open_bundle(mixed, home=home)
    assert f"--trust=sha256:{code.unit(mixed.originals, mixed.code)}" in caught.value.hint
    with pytest.raises(TrustError):
        open_bundle(one, home=tmp_path / "nobody")
    assert code.open_parts(one.originals, one.code, home=tmp_path / "nobody", name="it", python="3", signed=True)


def test_naming_a_pickle_alone_does_not_approve_the_code_beside_it(home: Path, project: Path, tmp_path: Path) -> None:
    one, two = serve_two(home, project)
    mixed = swapped(one, "code/features.py", two.code["code/features.py"])
    place = tmp_path / "mixed.ketch"
    place.write_bytes(bundle.replaced(mixed, {}))
    (unit,) = opened_units([str(place)], home=home)
    ((_, _, pickled),) = mixed.originals
    assert trust.digest(pickled) not in unit.identities
    assert unit.identities == {code.unit(mixed.originals, mixed.code), bundle.identity(place.read_bytes())}


def test_a_bundle_whose_manifest_hides_code_is_corrupt(home: Path, project: Path) -> None:
    one, _ = serve_two(home, project)
    with pytest.raises(KetchError, match="does not list its code"):
        swapped(one, "code/more.py", b"")


# what does not travel


def refused(home: Path, model: object, *, match: str) -> KetchError:
    with pytest.raises(ModelError, match=match) as caught:
        packed(model, home)
    assert caught.value.hint
    return caught.value


def test_modules_that_cannot_travel_are_named(home: Path, project: Path) -> None:
    write(project, model="import fast\ndef predict(rows): return [1.0 for _ in rows]\n")
    (project / "fast.py").write_text("")
    model = imported("model")
    (project / "fast.py").unlink()
    del sys.modules["fast"]
    suffix = importlib.machinery.EXTENSION_SUFFIXES[0]
    (project / f"fast{suffix}").write_bytes(b"\x7fELF")
    refused(home, model.predict, match=rf"fast is compiled \(fast{re.escape(suffix)}\): only Python source travels")
    (project / f"fast{suffix}").unlink()
    write(project, fast="x = 1\ndef broken(:\n")
    importlib.invalidate_caches()
    refused(home, model.predict, match=r"fast\.py:2 is not Python: ")
    (project / "fast.py").unlink()
    write(project, model="import größe\ndef predict(rows): return [1.0 for _ in rows]\n", größe="")
    refused(home, model.predict, match="größe has letters that a bundle's files cannot be named with")


def test_a_file_that_code_reads_is_said_not_to_travel(home: Path, project: Path) -> None:
    (project / "weights.json").write_text("[2.0]")
    write(
        project,
        model="""
            import json
            from pathlib import Path
            def predict(rows):
                return [json.loads(Path("weights.json").read_text())[0] for _ in rows]
        """,
    )
    made = compose(imported("model").predict, ketch_table(), Options(), home=home)
    assert [each for each in made.notes if "weights.json is named by the code and does not travel" in each]


def test_a_pickle_from_a_script_says_where_to_pack_it(home: Path, tmp_path: Path) -> None:
    folder = write(tmp_path / "made", train="import pickle\nclass A: pass\npickle.dump(A(), open('m.pkl', 'wb'))\n")
    subprocess.run([sys.executable, "train.py"], cwd=folder, check=True)
    error = refused(
        home, folder / "m.pkl", match=r"m\.pkl needs A, which only the script or notebook that wrote it knows"
    )
    assert "ketch.pack(model, …)" in error.hint


def test_code_that_fails_when_it_is_opened_is_the_makers(home: Path, project: Path, tmp_path: Path) -> None:
    write(project, model="def predict(rows): return [1.5 for _ in rows]\n")
    made = packed(imported("model").predict, home)
    for text, match in (
        (b"import nowhere_to_be_found\n", "its code imports nowhere_to_be_found, which is not here"),
        (b"open('not/there.csv')\n", "cannot be opened here: FileNotFoundError"),
        (b"def predict(rows: return\n", "cannot be opened here: SyntaxError"),
    ):
        other = swapped(made, "code/model.py", text)
        with pytest.raises(UnsupportedModel, match=match):
            code.open_parts(other.originals, other.code, home=home, name="it", python="3", signed=True)


def test_what_cannot_be_saved_is_said(home: Path) -> None:
    lock = threading.Lock()
    refused(home, lambda rows: [lock for _ in rows], match="The model cannot be saved: cannot pickle '_thread.lock'")


# secrets, none of them real

KEYS = {
    "AWS Access Key": 'KEY = "AKIA' + 'IOSFODNN7ABCDEFG"',
    "AWS Secret Key": 'Session("x", "wJalrXUtnFEMI/K7MDENG/' + 'bPxRfiCYzz8kfQ2b1L")',
    "Basic Auth Credentials": 'engine = create_engine("postgresql://ana:s3cr3tpw@' + 'db.example.com/churn")',
    "Private Key": 'KEY = """-----BEGIN RSA ' + 'PRIVATE KEY-----\nMIIEow\n"""',
    "GitHub Token": 'T = "ghp_' + 'aB3dE5fG7hI9jK1lM3nO5pQ7rS9tU1vW3xY5"',
    "Slack Token": 'T = "xoxb-' + '123456789012-1234567890123-abcdefghijABCDEFGHIJabcd"',
    "Stripe Access Key": 'S = "sk_live_' + 'abcdefghijklmnopqrstuvwx"',
    "Google API Key": 'G = "AIza' + 'SyD-1234567890abcdefghijklmnopqrstu"',
    "Hugging Face Token": 'H = "hf_' + 'abcdefghijklmnopqrstuvwxyzABCDEFGH"',
    "Secret Keyword": "connect(host='x', password='hunter2" + "hunter2')",
    "Secret Keyword ": "headers = {'Authorization': 'Bearer abcdefghij" + "klmnop1234567890'}",
    "Secret Keyword  ": "API_TOKEN: str = 'c0ffee12345678" + "90deadbeef'",
}


@pytest.mark.parametrize("kind", KEYS)
def test_secrets_are_found_where_they_stand(kind: str) -> None:
    assert list(search({"m.py": "x = 1\n\n" + KEYS[kind]})) == [("m.py", 3, kind.strip())]


def test_ordinary_code_holds_none(tmp_path: Path) -> None:
    plain = [
        "token_pattern = r'(?u)\\b\\w\\w+\\b'",
        "password = os.environ['DB_PASSWORD']",
        "password = getpass('Password: ')",
        "def connect(password=None, token=''): pass",
        "if token == 'word': pass",
        "url = 'https://example.com/a/b?c=d'",
        "sha = '9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08'",
        "engine = create_engine(f'postgresql://{user}:{password}@{host}/churn')",
        "columns = ['api_key', 'secret', 'password']",
        "SECRET = 'x' * 10  # pragma: allowlist secret",
        "password = 'hunter2hunter2'  # pragma: allowlist secret",
    ]
    for line in plain:
        assert not list(search({"m.py": line})), line


@pytest.mark.packing
def test_libraries_of_ordinary_code_hold_none() -> None:
    import flask
    import sklearn

    sources: dict[str, str] = {}
    for library in (flask, sklearn):
        paths = [path for path in Path(library.__path__[0]).rglob("*.py") if "tests" not in path.parts]
        sources |= {str(path): path.read_text("utf-8") for path in sorted(paths)[::3] + paths[:1]}
    found = list(search(sources))
    assert len(sources) > 100
    assert {Path(name).name for name, _, _ in found} <= {"config.py"}  # 'development key', in flask's documentation


def test_a_secret_stops_and_is_not_shown(home: Path, project: Path) -> None:
    write(
        project,
        model="import settings\ndef predict(rows): return [1.5 for _ in rows]\n",
        settings="\nPASSWORD = 'hunter2hunter2'\n",
    )
    with pytest.raises(
        SecretFound, match=r"^settings\.py:2 holds what looks like a secret \(Secret Keyword\)"
    ) as caught:
        packed(imported("model").predict, home)
    assert "hunter2" not in caught.value.message + caught.value.hint
    assert "pragma: allowlist secret" in caught.value.hint
    assert not list((home).rglob("*"))


def test_a_secret_by_value_stops(home: Path, tmp_path: Path) -> None:
    key = "AKIA" + "IOSFODNN7ABCDEFG"
    with pytest.raises(SecretFound, match=r"text 1 in the model:1 .*AWS Access Key"):
        packed(lambda rows: [float(len(key)) for _ in rows], home)
    script = f"""
        import ketch
        PASSWORD = "hunter2hunter2"
        def predict(rows):
            used = PASSWORD
            return [1.5 for _ in rows]
        def other(rows):
            key = "{key}"
            return [1.5 for _ in rows]
        for each in (predict, other):
            try:
                ketch.pack(each, data=[{{"a": 1.0}}, {{"a": 2.0}}])
            except ketch.KetchError as error:
                print(error)
    """
    folder = write(tmp_path / "made", train=script)
    done = subprocess.run([sys.executable, "train.py"], cwd=folder, capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert first.startswith("the value of PASSWORD:1 holds what looks like a secret (Secret Keyword)")
    assert second.startswith("train.py:8 holds what looks like a secret (AWS Access Key)")


# plain functions


class TestFunction(AdapterContract):
    adapter = function

    def make_model(self) -> object:
        return likely

    def make_rows(self) -> Sequence[Mapping[str, object]]:
        plans = ("basic", "plus")
        return [{"months": place, "fee": 10.5 * place, "plan": plans[place % 2], "note": "x"} for place in range(10)]

    def ask(self, model: Any, rows: Any) -> Sequence[Any]:
        return [[1 - each["probability"], each["probability"]] for each in model(rows)]

    def make_unfitted(self) -> object:
        return lambda first, second: [1.0]


def test_types_of_rows_make_the_contract(home: Path) -> None:
    made = bundle.read(compose(likely, None, Options(target="churn"), home=home).data, "made")
    fields = {each.name: (each.type, each.required, each.categories) for each in made.contract.fields}
    assert fields == {
        "months": ("integer", True, ()),
        "fee": ("number", True, ()),
        "plan": ("category", True, ("basic", "plus")),
        "note": ("text", False, ()),
    }
    row = {"months": 1, "fee": 50.0, "plan": "plus"}
    assert open_bundle(made, home=home).predict(row) == {"churn": False, "churn_probability": pytest.approx(0.225)}


@pytest.mark.parametrize(
    ("answering", "task", "answer"),
    [
        (by_label, "binary", {"level": "low"}),
        (by_class, "multiclass", {"level": "a", "level_probabilities": {"a": 0.5, "b": 0.25, "c": 0.25}}),
        (by_flag, "binary", {"level": False}),
        (by_number, "regression", {"level": 40.0}),
        (by_score, "binary", {"level": False, "level_probability": 0.2}),
        (by_outlier, "outlier", {"outlier": False}),
    ],
)
def test_what_a_function_answers_is_its_task(home: Path, answering: Any, task: str, answer: object) -> None:
    made = packed(answering, home, target="level")
    assert made.contract.answer.task == task
    assert open_bundle(made, home=home).predict({"months": 1.0, "fee": 20.0}) == answer


def test_columns_of_a_sample_make_the_contract(home: Path) -> None:
    rows = [
        {"id": place, "plan": ["a", "b"][place % 2], "on": place % 2 == 0, "day": f"2024-01-{place % 28 + 1:02}",
         "at": [1.0, 2.0], "gap": None if place % 3 else 2.5}
        for place in range(40)
    ]  # fmt: skip
    from ketch.pack import read_table

    def predict(rows: Any) -> Any:
        return [len(row["plan"]) + (row["gap"] or 0.0) for row in rows]

    made = bundle.read(compose(predict, read_table(rows), Options(), home=home).data, "made")
    fields = {each.name: (each.type, each.required) for each in made.contract.fields}
    assert fields == {
        "id": ("integer", False),
        "plan": ("category", True),
        "on": ("boolean", False),
        "day": ("date", False),
        "at": ("vector", False),
        "gap": ("number", False),
    }


def test_a_function_that_fails_is_not_answerable(home: Path) -> None:
    def predict(rows: Any) -> Any:
        return [{"probabilities": {"a": 0.5, "b" if row["fee"] < 50 else "z": 0.5}} for row in rows]

    def failing(rows: Any) -> Any:
        return [10 / (row["fee"] - 77) for row in rows]

    predictor = open_bundle(packed(predict, home), home=home)
    with pytest.raises(NotAnswerable):
        predictor.predict({"months": 1.0, "fee": 60.0})
    predictor = open_bundle(packed(failing, home), home=home)
    with pytest.raises(NotAnswerable):
        predictor.predict({"months": 1.0, "fee": 77.0})


def wrong(made: object) -> Callable[[Any], Any]:
    return lambda rows: made


@pytest.mark.parametrize(
    ("model", "match"),
    [
        (wrong("text"), "gives a str for 40 rows"),
        (wrong([1.0]), "gives 1 answers for 40 rows"),
        (wrong([None] * 40), "an answer is a NoneType"),
        (wrong([{"score": 1}] * 40), "without probability, and without probabilities"),
        (wrong([{"probability": 1.5}] * 40), "1.5 is no probability"),
        (wrong([{"probabilities": {"a": 0.5, "b": 0.1}}] * 40), "do not sum to 1"),
        (wrong(["only"] * 40), "not all its classes are known"),
        (lambda first, second: [], "does not take one argument"),
    ],
)
def test_answers_that_are_none_are_refused_when_packing(home: Path, model: object, match: str) -> None:
    refused(home, model, match=match)


def test_a_function_that_tells_nothing_asks_for_data(home: Path) -> None:
    with pytest.raises(ContractError, match="Nothing tells what by_label takes"):
        compose(by_label, None, Options(), home=home)


MODEL = """
    from helpers import base
    fields = {"months": "integer", "plan": ["basic", "plus"]}
    task = "regression"
    def predict(rows):
        return [base(row["months"]) + (row["plan"] == "plus") for row in rows]
"""


@pytest.mark.service
def test_a_python_file_packs_and_serves(home: Path, tmp_path: Path) -> None:
    folder = write(tmp_path / "made", model=MODEL, helpers="def base(x): return 10 * x\n")
    told = command("pack", "model.py", home=home, cwd=folder)
    assert told.returncode == 1
    assert "model.py runs code of its maker's own: helpers.py, model.py" in told.stderr
    done = command("pack", "model.py", "--target", "price", "--trust", home=home, cwd=folder)
    assert done.returncode == 0, done.stderr
    made = bundle.read((folder / "price.ketch").read_bytes(), "price")
    assert made.manifest.code == ("code/helpers.py", "code/model.py")
    assert [(each.member, each.format) for each in made.manifest.originals] == [("code/model.py", "python")]
    assert open_bundle(made, home=home).predict({"months": 3, "plan": "plus"}) == {"price": 31.0}
    again = command("pack", "model.py", "--target", "price", "-o", "again.ketch", home=home, cwd=folder)
    assert again.returncode == 0, again.stderr
    assert (folder / "again.ketch").read_bytes() == (folder / "price.ketch").read_bytes()
    write(folder, helpers="def base(x): return 11 * x\n")
    assert command("pack", "model.py", home=home, cwd=folder).returncode == 1  # other code, another approval


def test_an_approved_python_file_cannot_name_another_module(home: Path) -> None:
    data = b"def predict(rows): return [1.0 for _ in rows]\n"
    files = {"code/model.py": data, "code/other.py": b"raise SystemExit('it ran')\n"}
    before = set(sys.modules)
    for name in ("other.py", "other", "this.py", "this"):
        with pytest.raises(UnsupportedModel, match="not the file of the model"):
            code.open_parts([(name, "python", data)], files, home=home, name="it", python="3", signed=True)
    assert not {name for name in set(sys.modules) - before if name == "this" or name.endswith(".other")}
    assert code.open_parts([("model.py", "python", data)], files, home=home, name="it", python="3", signed=True)


@pytest.mark.parametrize(
    ("name", "text", "match"),
    [
        ("my-model.py", "def predict(rows): return []", "cannot be imported under this name"),
        ("model.py", "predict = 3", "has no function predict"),
        ("model.py", "def predict(:", r"model\.py:1 is not Python"),
    ],
)
def test_a_python_file_without_a_function_is_refused(
    home: Path, tmp_path: Path, name: str, text: str, match: str
) -> None:
    path = tmp_path / name
    path.write_text(text)
    done = command("pack", name, "--trust", home=home, cwd=tmp_path)
    assert done.returncode == 1
    assert re.search(match, done.stderr), done.stderr
    assert len(done.stderr.splitlines()) <= 4


def test_the_search_for_secrets_leaves_warnings_to_be_seen(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", SEARCHED], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "UserWarning: of the user's own" in done.stderr
