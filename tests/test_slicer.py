"""Notebook → script: what stays, what goes, and the proof."""

import hashlib
import json
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from textwrap import dedent
from typing import Any

import jupytext
import nbformat
import psutil
import pytest

import ketch
from ketch import bundle
from ketch.errors import InputError, KetchError
from ketch.slicer import Script, read, script, whole
from ketch.slicer.folder import copied
from ketch.slicer.opened import opened
from ketch.slicer.prove import Trial, proved
from tests import lines
from tests.corpus import NAMES, PLACE, cells_of, lay_out, plain
from tests.running import KETCH
from tests.soak.load import eventually

CODE = """
    import numpy as np
    import pandas as pd
    from sklearn.linear_model import LinearRegression
    df = pd.DataFrame({'a': [1.0, 2.0, 3.0], 'b': [2.0, 1.0, 0.0], 'y': [1.0, 2.0, 4.0]})
"""


def sliced(
    folder: Path, *cells: str, counts: list[int | None] | None = None, model: str = "", tight: bool = True
) -> Script:
    """Slice a notebook of these cells, behind one that makes a frame."""
    made = nbformat.v4.new_notebook()
    for place, source in enumerate([CODE, *cells]):
        cell = nbformat.v4.new_code_cell(dedent(source).strip("\n"))
        cell.execution_count = counts[place] if counts else place + 1
        made.cells.append(cell)
    nbformat.write(made, folder / "book.ipynb")
    return script(read(folder / "book.ipynb"), model=model, tight=tight)


SOME = ("telco_course", "churn_service", "odd_syntax", "magics_everywhere", "marimo_churn.marimo", "colab_churn")
PROVED = (
    "telco_course",
    "with_and_tuple",
    "inplace_columns",
    "mutating_helpers",
    "out_of_order",
    "no_seed_forest",
    "seed_and_draws",
    "notebook_class",
    "magics_everywhere",
    "marimo_churn.marimo",
)

COUNTED = (
    "cv_reused_names",
    "inplace_columns",
    "mutating_helpers",
    "out_of_order",
    "no_seed_forest",
    "never_run_cell",
    "columns_str_rename",
    "shadowed_names",
    "kmeans_segments",
    "late_globals",
)
KERNEL = ("magics_everywhere",)  # it needs a kernel, which is not forked

FIT = "model = LinearRegression().fit(df[['a', 'b']], df['y'])"

# what stands in a cell before the fit -> whether it must stay
BEFORE = {
    "df['a'] = df['a'] * 2": True,
    "df.loc[0, 'a'] = 7.0": True,
    "df.drop(index=0, inplace=True)": True,
    "df.drop(index=0)": False,
    "df.columns = ['a', 'b', 'y']": True,
    "other = df\nother['a'] = 0.5": True,
    "other = df.copy()\nother['a'] = 0.5": False,
    "def spoil(frame):\n    frame['a'] = 1.0\nspoil(df)": True,
    "def look(frame):\n    return frame['a'].sum()\nlook(df)": False,
    "def spoil(frame):\n    inner = frame\n    inner.insert(0, 'z', 1)\nspoil(df)": True,
    "for name in ['a', 'b']:\n    df[name] = df[name] + 1": True,
    "for name in ['a', 'b']:\n    print(df[name].mean())": False,
    "total = sum(df['a'] for df in [df])": False,
    "[model for model in range(3)]": False,
    "frames = [df]\nframes[0]['a'] = 3.0": True,
    "if len(df) > 2:\n    df = df[df['a'] > 1]": True,
    "with open('notes.txt', 'w') as f:\n    f.write('words')": False,
    "df.head()": False,
    "print(df.describe())": False,
    "import matplotlib.pyplot as plt\nplt.plot(df['a'])": False,
    "pd.set_option('display.max_rows', 5)": False,
    "pd.set_option('mode.copy_on_write', True)": True,
    "np.seterr(all='raise')": True,
    "model = LinearRegression().fit(df[['a']], df['b'])": False,
    "a, df = df, df.iloc[:2]": True,
    "del df['b']\ndf['b'] = 1.0": True,
    "df['y'] += 1": True,
    "import os\nos.environ['OMP_NUM_THREADS'] = '1'": True,
    "wider = (last := df)\nlast['a'] = 4.0": True,
    "df.eval('a = a + 1', inplace=True)": True,
    "assert len(df) == 3": False,
    "try:\n    df['a'] = df['a'].astype(int)\nexcept ValueError:\n    df['a'] = 0.0": True,
    "df['a'].hist()": False,
    "np.fill_diagonal(df.values, 0)": True,
}


@pytest.mark.parametrize("before", BEFORE)
def test_what_changes_the_data_stays_and_the_rest_goes(tmp_path: Path, before: str) -> None:
    made = sliced(tmp_path, before, FIT)
    line = plain(before.splitlines()[-1])
    assert (line in plain(made.text)) == BEFORE[before], made.text


def test_a_cell_that_never_ran_is_left_out(tmp_path: Path) -> None:
    made = sliced(tmp_path, "df['a'] = 0.0", FIT, counts=[1, None, 2])
    assert "df['a'] = 0.0" not in made.text.replace('"', "'")
    assert any("Never run" in note for note in made.notes)


def test_the_order_in_which_cells_ran_counts(tmp_path: Path) -> None:
    made = sliced(tmp_path, FIT, "df['a'] = df['a'] * 3", counts=[1, 3, 2])
    text = made.text
    assert text.index("* 3") < text.index("LinearRegression()")
    assert any("order" in note for note in made.notes)


@pytest.mark.parametrize("form", ["py:percent", "py:light", "md", "md:myst", "Rmd"])
def test_notebooks_as_texts_give_the_same_script(tmp_path: Path, form: str) -> None:
    sample = lay_out("cv_reused_names", tmp_path)
    wanted = script(read(sample.path))
    path = sample.path.with_suffix(f".{form.partition(':')[0]}")
    jupytext.write(nbformat.read(sample.path, 4), path, fmt=form)
    assert script(read(path)).text.split('"""', 2)[2] == wanted.text.split('"""', 2)[2]


@pytest.mark.parametrize("suffix", [".py", ".md", ".Rmd", ".R", ".qmd", ""])
@pytest.mark.parametrize(
    "text", ["", "---\njupyter: [\n---\n", "# %%\n\0", "```python\nx = 1\n", "import marimo\n@app.cell\ndef"]
)
def test_texts_that_are_no_notebooks_are_refused(tmp_path: Path, suffix: str, text: str) -> None:
    (tmp_path / f"book{suffix}").write_text(text)
    with pytest.raises(KetchError) as caught:
        script(read(tmp_path / f"book{suffix}"))
    assert caught.value.hint


def test_a_notebook_in_another_language_is_refused(tmp_path: Path) -> None:
    made = nbformat.v4.new_notebook(metadata={"kernelspec": {"name": "ir", "display_name": "R", "language": "R"}})
    made.cells = [nbformat.v4.new_code_cell("model <- lm(y ~ x)")]
    nbformat.write(made, tmp_path / "book.ipynb")
    with pytest.raises(InputError, match="written in r"):
        read(tmp_path / "book.ipynb")


def test_cells_that_are_no_python_are_left_out(tmp_path: Path) -> None:
    broken = (
        "return 3",
        "def f(:\n  1",
        "if x:\n    a\n  b",
        '"""',
        "nonlocal x",
        "x = (",
        "\0",
        "print 'two'",
        "a\\b",
    )
    made = sliced(tmp_path, *broken, "print('\\d')", FIT)
    assert sum("is no Python" in note for note in made.notes) == len(broken)
    compile(made.text, "script", "exec")


@pytest.mark.parametrize("source", ["pd.read_csv('https://example.com/a.csv')", "datasets.fetch_openml('titanic')"])
def test_data_from_the_network_is_seen(tmp_path: Path, source: str) -> None:
    made = sliced(tmp_path, "from sklearn import datasets", f"df = {source}", FIT)
    assert made.fetches
    assert not sliced(tmp_path, "from sklearn import datasets", f"other = {source}", FIT).fetches


def test_a_module_that_a_cell_writes_comes_along(tmp_path: Path) -> None:
    cells = (
        "%%writefile unused.py\nTHREE = 3",
        "%%writefile shapes.py\ndef halved(frame):\n    return frame / 2",
        "from shapes import halved",
        "df[['a', 'b']] = halved(df[['a', 'b']])",
    )
    text = sliced(tmp_path, *cells, FIT).text
    assert "unused" not in text
    assert text.index("return frame / 2") < text.index("from shapes import halved") < text.index("halved(df")


def test_what_lies_above_the_notebook_is_copied(tmp_path: Path) -> None:
    project = tmp_path / "project"
    for path in ("data/raw/a.csv", "src/features.py", "notes/b.txt", ".git/config", "work/deep/c.txt"):
        (project / path).parent.mkdir(parents=True, exist_ok=True)
        (project / path).write_text(path)
    sliced(project / "work", "import sys\nsys.path.append('..')", "pd.read_csv('../data/raw/a.csv')", FIT)
    folder = copied(read(project / "work" / "book.ipynb"), tmp_path / "copy" / "one")
    assert (folder / "../data/raw/a.csv").read_text() == "data/raw/a.csv"
    assert (folder / "../src/features.py").exists()
    assert (folder / "deep/c.txt").exists()
    assert not (folder / "../notes").exists()
    assert not (folder / "../.git").exists()
    assert tmp_path / "copy" in folder.resolve().parents
    sliced(project / "work", "open('../../../../etc/hosts'); open('../missing')", FIT)
    assert (
        copied(read(project / "work" / "book.ipynb"), tmp_path / "copy" / "two").resolve() == tmp_path / "copy" / "two"
    )


MAIN = """
    def load():
        return df.copy()
    def fitted(frame):
        model = LinearRegression()
        model.fit(frame[['a', 'b']], frame['y'])
        return model
    def main():
        '''Do it all.'''
        frame = load()
        print(frame.shape)
        frame['a'] = frame['a'] * 2
        model = fitted(frame)
        print(model.score(frame[['a', 'b']], frame['y']))
        return model
"""


@pytest.mark.parametrize("call", ["main()", "if __name__ == '__main__':\n    main()"])
def test_a_function_that_does_everything_is_opened_up(tmp_path: Path, call: str) -> None:
    with pytest.raises(InputError):
        sliced(tmp_path, MAIN, call)
    inner = opened(read(tmp_path / "book.ipynb"))
    assert inner is not None
    made = script(inner)
    assert "frame.shape" not in made.text
    assert 'frame["a"] = frame["a"] * 2' in made.text
    assert "main() was opened up" in made.notes[0]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("main():", "main(n=1):"),
        ("frame = load()", "global frame"),
        ("frame = load()", "df = load()"),
        ("print(frame.shape)", "return 1"),
    ],
)
def test_a_function_whose_body_means_something_else_outside_is_not(tmp_path: Path, old: str, new: str) -> None:
    with suppress(InputError):
        sliced(tmp_path, MAIN.replace(old, new, 1), "main()")
    assert opened(read(tmp_path / "book.ipynb")) is None


def test_what_only_a_notebook_has_is_imported(tmp_path: Path) -> None:
    looking = "def clean(frame):\n    display(frame)\n    return frame.dropna()"
    made = sliced(tmp_path, looking, "df = clean(df)", FIT)
    assert "display" not in made.text
    assert "options" not in made.text  # there are none
    assert "from IPython.display import display" in whole(read(tmp_path / "book.ipynb")).text


def test_where_modules_are_found_is_said_above_their_imports(tmp_path: Path) -> None:
    cells = (
        "import sys\nfrom pathlib import Path",
        "here = Path('code')\nsys.path.insert(0, str(here))",
        "import shapes",
    )
    text = sliced(tmp_path, *cells, "df = shapes.halved(df)", FIT).text
    assert (
        text.index("import sys")
        < text.index("here = Path")
        < text.index("sys.path.insert")
        < text.index("import shapes")
    )
    assert text.index("import shapes") < text.index("def load_data")


def test_the_model_may_be_named(tmp_path: Path) -> None:
    cells = (
        "first = LinearRegression().fit(df[['a']], df['y'])",
        "second = LinearRegression().fit(df[['b']], df['y'])",
    )
    assert "first" not in sliced(tmp_path, *cells).text
    text = sliced(tmp_path, *cells, model="first").text
    assert "first = " in text
    assert "second" not in text
    with pytest.raises(InputError, match="third"):
        sliced(tmp_path, *cells, model="third")


def read_again(cells: list[Any], change: Callable[[Any], object]) -> list[Any]:
    """Change each cell of code."""
    for each in cells:
        if each.cell_type == "code":
            change(each)
    return cells


DISORDER: dict[str, Callable[[list[Any], list[Any], random.Random], list[Any]]] = {
    "dropped": lambda cells, _, draw: [each for each in cells if draw.random() < 0.7],
    "shuffled": lambda cells, _, draw: draw.sample(cells, len(cells)),
    "mixed": lambda cells, others, _: [each for pair in zip(cells, others, strict=False) for each in pair],
    "cut": lambda cells, _, draw: read_again(
        cells, lambda each: each.update(source=each.source[: draw.randrange(2 * len(each.source) + 1)])
    ),
    "thinned": lambda cells, _, draw: read_again(
        cells, lambda each: each.update(source="\n".join(x for x in each.source.split("\n") if draw.random() < 0.9))
    ),
    "recounted": lambda cells, _, draw: read_again(
        cells, lambda each: each.update(execution_count=draw.choice([None, draw.randrange(50)]))
    ),
}


@pytest.mark.notebook
@pytest.mark.parametrize("disorder", DISORDER)
def test_notebooks_in_disorder_compile_or_are_refused(tmp_path: Path, disorder: str) -> None:
    draw = random.Random(disorder)
    for _ in range(4):
        names = draw.choices([each for each in NAMES if ".marimo" not in each], k=2)
        cells, others = ([*cells_of((PLACE / f"{name}.py").read_text("utf-8"))] for name in names)
        made = nbformat.v4.new_notebook(cells=DISORDER[disorder](cells, others, draw))
        nbformat.write(made, tmp_path / "book.ipynb")
        book = read(tmp_path / "book.ipynb")
        compile(whole(book).warned('it is "so" \\ """').text, "script", "exec")
        with suppress(KetchError):
            compile(script(book).text, "script", "exec")


def test_what_pip_installs_is_pinned(tmp_path: Path) -> None:
    (tmp_path / "needs.txt").write_text("# for the plots\nno-such-thing>=0.13\n")
    made = sliced(tmp_path, "!pip install -q 'pandas>=2' joblib==0.1 # old\n%pip install -r needs.txt", FIT)
    assert made.requirements == ["pandas>=2", "joblib==0.1", "no-such-thing>=0.13"]
    pins = made.locked().splitlines()
    assert f"scikit-learn=={version('scikit-learn')}" in pins
    assert f"joblib=={version('joblib')}  # the notebook asks for joblib==0.1" in pins
    assert any(each.startswith("no-such-thing>=0.13  #") for each in pins)
    assert "ketch" not in {each.partition("=")[0] for each in pins}


# what stands before the fit, the fit itself, and how the script packs what comes of it
CALLS = {
    (
        "X, y = df[['a', 'b']], df['y']",
        "model = LinearRegression().fit(X, y)",
    ): 'model, "book.ketch", data=X, target="y"',
    ("X, y = df[['a', 'b']], df.y.values", "model = LinearRegression().fit(X, y)"): 'data=X, target="y"',
    ("X = df.drop(columns='y')", "model = LinearRegression()\nmodel.fit(X=X, y=df.pop('y'))"): 'data=X, target="y"',
    ("Z = df[['a', 'b']]\nlog = np.log1p(df['y'])", "model = LinearRegression().fit(Z, log)"): '"book.ketch", data=Z)',
    ("", FIT): 'model, "book.ketch", target="y")',
    (
        "from sklearn.model_selection import train_test_split as cut\nA, B, c, d = cut(df[['a', 'b']], df['y'] > 1)",
        "model = LinearRegression().fit(A, c.astype(int))",
    ): 'data=A, target="y"',
    (
        "def fitted(part, wanted):\n    return LinearRegression().fit(part[['a', 'b']], wanted)",
        "model = fitted(df, df.y.values)",
    ): 'model, "book.ketch", target="y")',
}


@pytest.mark.parametrize("cells", CALLS)
def test_the_script_says_what_the_model_was_fitted_on(tmp_path: Path, cells: tuple[str, str]) -> None:
    text = sliced(tmp_path, *cells).text
    assert CALLS[cells] in text, text


def test_seeds_and_draws_stay_together(tmp_path: Path) -> None:
    made = sliced(tmp_path, "np.random.seed(3)", "df.sample(2)", "df['a'] += np.random.rand(3)", FIT)
    assert "np.random.seed(3)" in made.text
    assert "df.sample(2)" in made.text
    made = sliced(tmp_path, "df.sample(2)", "df['a'] += np.random.rand(3)", FIT)
    assert "df.sample(2)" not in made.text


@pytest.mark.parametrize("name", [each for each in NAMES if each not in SOME])
@pytest.mark.notebook
def test_the_rest_of_the_corpus_is_cut_as_its_heads_say(tmp_path: Path, name: str) -> None:
    test_the_corpus_is_cut_as_its_heads_say(tmp_path, name)


@pytest.mark.parametrize("name", SOME)
def test_the_corpus_is_cut_as_its_heads_say(tmp_path: Path, name: str) -> None:
    sample = lay_out(name, tmp_path)
    made = script(read(sample.path))
    text = plain(made.text)
    assert not [each for each in sample.words("keeps") if plain(each) not in text], made.text
    assert not [each for each in sample.words("drops") if plain(each) in text], made.text


# ---- the proof ---------------------------------------------------------------------------------------------


def shown(folder: Path, name: str) -> None:
    """Prove one notebook of the corpus."""
    sample = lay_out(name, folder)
    made, proof = proved(read(sample.path))
    assert proof.holds, (proof.failure, proof.differences)
    assert "WARNING" not in made.text
    text = plain(made.text)
    assert not [each for each in sample.words("trims") if plain(each) in text], made.text
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "-"]
    subprocess.run(command, input=made.text, text=True, check=True, cwd=folder)  # where Ketch is one of many libraries


@pytest.mark.notebook
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", PROVED)
def test_notebook_and_script_make_the_same_model(tmp_path: Path, name: str) -> None:
    shown(tmp_path, name)


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", [each for each in NAMES if each not in PROVED])
def test_so_do_all_others_of_the_corpus(tmp_path: Path, name: str) -> None:
    shown(tmp_path, name)


def counted(name: str, folder: Path) -> tuple[list[str], list[str]]:
    """Give the lines of a notebook whose removal leaves its model as it is, and those of them that stay."""
    folder.mkdir()
    book = read(lay_out(name, folder).path)
    made, proof = proved(book)
    assert proof.holds, (name, proof.failure, proof.differences)
    idle = lines.idle_of(book, made.goal, folder, seeded=made.seeded)
    text = {plain(line) for line in made.text.splitlines()}
    return idle, [line for line in idle if plain(line) in text]


def gone(names: Iterable[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> float:
    """Give the share that is gone of the lines that make no difference."""
    every = stay = 0
    for name in names:
        idle, left = counted(name, folder / name)
        every, stay = every + len(idle), stay + len(left)
        with capsys.disabled():
            print(f"{name}: {len(idle)} lines make no difference, {len(left)} of them stay: {left}")
    assert every > 5 * len([*names])
    return 1 - stay / every


@pytest.mark.notebook
@pytest.mark.timeout(900)
@pytest.mark.skipif(not lines.FORKS, reason="processes are forked")
def test_four_in_five_lines_that_make_no_difference_are_gone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gone(COUNTED, tmp_path, capsys) >= 0.8


@pytest.mark.soak
@pytest.mark.timeout(7000)
@pytest.mark.skipif(not lines.FORKS, reason="processes are forked")
def test_so_they_are_in_all_of_the_corpus(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gone([each for each in NAMES if each not in KERNEL], tmp_path, capsys) >= 0.8


@pytest.mark.notebook
@pytest.mark.timeout(300)
def test_the_course_notebook_becomes_a_short_script_on_real_data(tmp_path: Path, real_data: Path) -> None:
    sample = lay_out("churn_service", tmp_path)
    (tmp_path / "customers.csv").write_bytes((real_data / "telco-customer-churn.csv").read_bytes())
    made, proof = proved(read(sample.path))
    assert proof.holds, (proof.failure, proof.differences)
    assert len(made.text.splitlines()) < 90, made.text
    assert 'ketch.pack((dv, model), "churn_service.ketch", target="churn")' in made.text
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / "train.py").write_text(made.text)
    command = [sys.executable, "train.py", "--data", "../customers.csv", "--C", "0.1"]
    ran = subprocess.run(command, cwd=tmp_path / "alone", capture_output=True, text=True, check=True)
    assert "auc: 0.8" in ran.stdout
    assert ketch.load(tmp_path / "alone" / "churn_service.ketch").answers == ["churn", "churn_probability"]


@pytest.mark.notebook
@pytest.mark.timeout(300)
def test_a_script_that_makes_another_model_is_found_out(tmp_path: Path) -> None:
    made = sliced(tmp_path, FIT)
    book = read(tmp_path / "book.ipynb")
    for old, new, wanted in (
        ("0.0]", "0.5]", "coef_"),
        ("LinearRegression().fit", "LinearRegression(fit_intercept=False).fit", "fit_intercept"),
        ("model = ", "modle = ", "fails"),
    ):
        assert old in made.text
        spoilt = replace(made, text=made.text.replace(old, new, 1))
        with tempfile.TemporaryDirectory() as folder:
            proof = Trial(book, Path(folder), network=False, shell=False).proof(spoilt)
        assert not proof.holds
        assert wanted in proof.failure + " ".join(proof.differences)


@pytest.mark.notebook
@pytest.mark.timeout(300)
def test_data_that_cannot_be_packed_is_left_out(tmp_path: Path) -> None:
    sliced(tmp_path, "X = df[['a', 'b']].to_numpy()", "model = LinearRegression().fit(X, df['y'])")
    made, proof = proved(read(tmp_path / "book.ipynb"))
    assert proof.holds
    assert proof.refusals["data"]
    assert 'ketch.pack(model, "book.ketch", target="y")' in made.text
    assert any("ketch.pack refuses" in note for note in made.notes) == bool(proof.refusals["bare"])


LOOP = """
    best = None
    for step in (True, False):
        tried = LinearRegression(fit_intercept=step).fit(df[['a', 'b']], df['y'])
        if best is None:
            best = (step, tried)
    kept, chosen = best
"""
TRAINER = """
    class Trainer:
        def fitted(self, frame):
            self.model = LinearRegression().fit(frame[['a', 'b']], frame['y'])
            return self
    trainer = Trainer().fitted(df)
"""
HOLDING = {  # what a notebook saves -> what the script packs of it
    (LOOP, "pickle.dump({'model': chosen, 'step': kept}, open('m.bin', 'wb'))"): "chosen",
    (FIT + "\nheld = {'model': model, 'names': ['a', 'b']}", "pickle.dump(held, open('m.bin', 'wb'))"): "model",
    (TRAINER, "pickle.dump(trainer, open('m.bin', 'wb'))"): "trainer.model",
}


@pytest.mark.notebook
@pytest.mark.timeout(300)
@pytest.mark.parametrize("cells", HOLDING, ids=HOLDING.values())
def test_what_is_packed_is_the_model_that_is_saved(tmp_path: Path, cells: tuple[str, str]) -> None:
    with suppress(InputError):
        sliced(tmp_path, "import pickle", *cells)
    made, proof = proved(read(tmp_path / "book.ipynb"))
    assert proof.holds, (proof.failure, proof.differences)
    assert f"ketch.pack({HOLDING[cells]}, " in made.text
    (tmp_path / "train.py").write_text(made.text)
    subprocess.run([sys.executable, "train.py"], cwd=tmp_path, check=True, capture_output=True)
    answers = ketch.load(tmp_path / "book.ketch").predict([{"a": 1.0, "b": 2.0}, {"a": 3.0, "b": 0.0}])
    assert next(iter(answers[0].values())) == pytest.approx(5 / 6)


def asked(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder."""
    return subprocess.run([*KETCH, *words], cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.notebook
@pytest.mark.timeout(300)
def test_the_command_writes_script_and_report(tmp_path: Path) -> None:
    sample = lay_out("cv_reused_names", tmp_path)
    words = ["script", sample.path.name, "--html", "report.html", "-o", "train.py"]
    done = asked(tmp_path, *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Proved: notebook and script make the same model")
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "fits another model" in page
    assert "<script" not in page
    ran = subprocess.run([sys.executable, "train.py"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "roc_auc: 0." in ran.stdout
    assert (tmp_path / "cv_reused_names.ketch").exists()
    (tmp_path / "train.py").write_text("mine = 1\n")
    again = asked(tmp_path, *words)
    assert again.returncode == 1
    assert "--force" in again.stderr
    assert (tmp_path / "train.py").read_text() == "mine = 1\n"


@pytest.mark.notebook
@pytest.mark.timeout(300)
def test_a_notebook_is_packed_in_one_step(tmp_path: Path) -> None:
    sample = lay_out("cv_reused_names", tmp_path)
    done = asked(tmp_path, "pack", sample.path.name, "--target", "churn", "-o", "churn.ketch")
    assert done.returncode == 0, done.stderr
    opened = bundle.read((tmp_path / "churn.ketch").read_bytes(), "churn")
    assert opened.contract.answer.target == "churn"
    assert opened.files["training/train.py"] == (tmp_path / "cv_reused_names.py").read_bytes()
    told = json.loads(opened.files["training/training.json"])
    assert told["notebook"]["sha256"] == hashlib.sha256(sample.path.read_bytes()).hexdigest()
    assert opened.manifest.serves == "compiled"


@pytest.mark.notebook
@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent as on Unix")
def test_an_interrupt_ends_kernel_and_all(tmp_path: Path) -> None:
    told = tmp_path / "pid"
    sliced(tmp_path, f"import os, time\nopen({str(told)!r}, 'w').write(str(os.getpid()))\ntime.sleep(60)", FIT)
    command = [*KETCH, "script", str(tmp_path / "book.ipynb")]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell may have had it ignored
    )
    eventually(lambda: told.exists() and told.read_text(), 60)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130
    eventually(lambda: not psutil.pid_exists(int(told.read_text())))
    assert not (tmp_path / "book.py").exists()


@pytest.mark.notebook
@pytest.mark.timeout(300)
def test_a_notebook_that_fails_names_its_cell(tmp_path: Path) -> None:
    sliced(tmp_path, "df['c'] = df['nothing']", FIT)
    made, proof = proved(read(tmp_path / "book.ipynb"))
    assert proof.failure.startswith("The notebook fails in cell 2: KeyError")
    assert "LinearRegression" in made.text
    assert "WARNING: not proved" in made.text
    compile(made.text, "script", "exec")


@pytest.mark.notebook
def test_there_is_no_network_while_it_runs(tmp_path: Path) -> None:
    sliced(tmp_path, "import urllib.request\nurllib.request.urlopen('http://192.0.2.1/')", FIT)
    _, proof = proved(read(tmp_path / "book.ipynb"))
    assert "--network" in proof.failure


def test_a_notebook_without_a_model_is_written_as_it_is(tmp_path: Path) -> None:
    sliced(tmp_path, FIT)
    text = (
        (tmp_path / "book.ipynb")
        .read_text()
        .replace("model = LinearRegression().fit(df[['a', 'b']], df['y'])", "df.head()")
    )
    (tmp_path / "book.ipynb").write_text(text)
    made, proof = proved(read(tmp_path / "book.ipynb"), run=False)
    assert not proof.holds
    assert "WARNING" in made.text
    assert "pd.DataFrame" in made.text


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"not json", b'{"cells": 3}', bytes(range(256)), b'{"nbformat": 4, "cells": []}']
)
def test_what_is_no_notebook_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "book.ipynb").write_bytes(data)
    with pytest.raises(KetchError) as caught:
        script(read(tmp_path / "book.ipynb"))
    assert caught.value.hint
