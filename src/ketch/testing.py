"""The contracts of an adapter and of a target, as tests to inherit.

    class TestToy(AdapterContract):             class TestShelf(TargetContract):
        adapter = ketch_toy                         target = ketch_shelf.TARGET

        def make_model(self): ...                   def make_bundle(self): ...
        def make_rows(self): ...
        def ask(self, model, rows): ...

pytest then runs every test of such a class. `docs/adapters.md` and `docs/deploy/own.md` show whole ones.
"""

import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from ketch import bundle, code
from ketch.adapters import Adapter, Knowledge, Raw, Runner, adapter_for
from ketch.codec import Table, columns_of
from ketch.deploy import Shipment, estimate, prices, settled
from ketch.errors import KetchError
from ketch.pack import Options, Packed, compose, first_object, read_table
from ketch.predict import Predictor
from ketch.schema import Columns, Field
from ketch.schema.checks import Checker
from ketch.steps import Got, Plan, Secret, first

Row = Mapping[str, object]
TASKS: Final = frozenset({"binary", "multiclass", "regression", "cluster", "outlier"})
SIZES: Final = (2, 3, 5, 8, 17, 64)  # of the batches that a row is asked in

COMPILED: Final = 1e-5  # how far a bundle that serves its compiled form may be from the original
# what a service does, in a process that has seen nothing of the model: a word on stderr is one too many
FRESH: Final = """
import json, sys
import ketch
rows = json.load(sys.stdin)
print(json.dumps(ketch.load(sys.argv[1]).predict(rows)))
"""


@dataclass(frozen=True)
class Case:
    """A model packed: its bundle, what was studied, and what answers checked columns."""

    model: object
    packed: Packed
    knowledge: Knowledge
    fields: tuple[Field, ...]
    runner: Runner
    rows: list[Row]

    def columns(self, rows: Sequence[Row]) -> Columns:
        """Give rows as checked columns, as a runner takes them."""
        checked = Checker(self.fields)(columns_of([dict(row) for row in rows]), len(rows))
        expect(not checked.faults, f"the contract refuses a row that the model was made for: {checked.faults[:3]}")
        return checked.columns

    def answers(self, rows: Sequence[Row]) -> list[tuple[object, ...]]:
        """Ask the runner, and give what belongs to each row."""
        return by_row(self.runner(self.columns(rows), len(rows)))


class AdapterContract:
    """What every adapter keeps: inherit it as `class TestX(AdapterContract)` and define the first four.

    `options` are those of `ketch.pack`, such as `{"positive": "yes"}`; `tolerance` is how far an answer may be from
    the framework's own, relative to numbers above 1.
    """

    adapter: Any
    options: Mapping[str, Any] = {}
    tolerance = 1e-9
    _kept: Case | None = None

    def make_model(self) -> object:
        """Make a fitted model, the same at every call."""
        raise NotImplementedError

    def make_rows(self) -> Sequence[Row]:
        """Give some ten different rows as a caller sends them, keys being the names of the model's fields."""
        raise NotImplementedError

    def ask(self, model: Any, rows: Sequence[Row]) -> Sequence[Any]:
        """Ask the framework itself: for each row its classes' probabilities, else its label or number."""
        raise NotImplementedError

    def make_unfitted(self) -> object:
        """Make a model that was never fitted; None where the framework has none."""
        return None

    def make_table(self) -> Any:
        """Give what `ketch.pack` takes as `data=`, where the model does not know enough."""
        return None

    def save(self, model: Any, folder: Path) -> Path | None:
        """Write the model to a file of the framework's own; None packs the object itself, as a pickle."""
        return None

    # ---- the tests ----------------------------------------------------------------------------------

    def test_the_model_leads_to_the_adapter(self) -> None:
        """The class of the model is enough to find who speaks to it."""
        found = adapter_for(first_object(self.make_model()))
        expect(found is self.adapter, f"adapter_for gives {found!r}")

    def test_study_is_truthful(self) -> None:
        """What is said of the model is what it does."""
        case = self._case()
        told = case.knowledge
        names = [each.name for each in told.fields]
        expect(told.task in TASKS, f"no task is called {told.task!r}")
        expect(len(names) == len(set(names)) and all(names), f"fields need names of their own: {names}")
        about = {*told.words, *told.plausible, *told.settled}
        expect(about <= set(names), f"these are no fields: {sorted(about - set(names))}")
        kinds = {"binary": len(told.classes) == 2, "multiclass": len(told.classes) > 1}
        expect(kinds.get(told.task, not told.classes), f"a {told.task} task has not the classes {told.classes}")
        raw = case.runner(case.columns(case.rows), len(case.rows))
        expect(len(raw.labels) == len(case.rows), f"{len(case.rows)} rows have {len(raw.labels)} answers")
        expect((raw.probabilities is not None) is told.probabilities, "probabilities are promised and given together")
        expect((raw.scores is not None) is (told.score and not told.probabilities), "scores are given as promised")
        expect(_is_plain(raw), "answers are Python's own numbers and texts")
        if told.classes:
            expect(set(raw.labels) <= set(told.classes), f"a label of {raw.labels} is not in {told.classes}")

    def test_probabilities_sum_to_one(self) -> None:
        """Each class has its probability, in the order of the classes."""
        case = self._case()
        for row in case.runner(case.columns(case.rows), len(case.rows)).probabilities or ():
            expect(len(row) == len(case.knowledge.classes), f"{len(row)} probabilities for {case.knowledge.classes}")
            expect(all(0 <= each <= 1 for each in row), f"{row} are not all from 0 to 1")
            expect(math.isclose(math.fsum(row), 1, abs_tol=1e-6), f"{row} do not sum to 1")

    def test_inputs_are_made_of_the_fields(self) -> None:
        """What the model is handed comes from the fields, each of them used."""
        case = self._case()
        told = self.adapter.inputs(self._joined(case.model), case.fields)
        used = [each.field for each in told.columns if each.field is not None]
        expect(bool(told.form), "the form of the inputs has a name")
        unused = {each.name for each in case.fields} ^ {each.name for each in used}
        expect(not unused, f"these are fields or inputs, but not both: {sorted(unused)}")

    def test_answers_are_those_of_the_framework(self) -> None:
        """The bundle's model answers as its maker's does."""
        case = self._case()
        wanted = list(self.ask(self.make_model(), case.rows))
        raw = case.runner(case.columns(case.rows), len(case.rows))
        found: Sequence[object] = raw.labels if raw.probabilities is None else raw.probabilities
        for row, one, other in zip(case.rows, found, wanted, strict=True):
            expect(_is_near(one, _plain(other), self.tolerance), f"{row} is answered {one}, by the framework {other}")

    def test_an_answer_does_not_depend_on_its_neighbours(self) -> None:
        """A row is answered alike, to the last bit, alone and in any company."""
        case = self._case()
        alone = [case.answers([row])[0] for row in case.rows]
        for size in SIZES:
            order = [(3 * place + size) % len(case.rows) for place in range(size)]
            together = case.answers([case.rows[place] for place in order])
            for place, answer in zip(order, together, strict=True):
                expect(answer == alone[place], f"among {size} rows {answer}, alone {alone[place]}")

    def test_the_order_of_columns_means_nothing(self) -> None:
        """Columns are told apart by their names."""
        case = self._case()
        columns = case.columns(case.rows)
        turned = dict(reversed(columns.items()))
        one, other = (by_row(case.runner(each, len(case.rows))) for each in (columns, turned))
        expect(one == other, "columns in another order have other answers")

    def test_missing_values_are_as_the_contract_says(self) -> None:
        """What is not required may be absent, in one field and in all; what is, is refused."""
        case = self._case()
        predictor = Predictor(bundle.read(case.packed.data, "contract"), case.runner)
        optional = [each.name for each in case.fields if not each.required]
        for absent in [[name] for name in optional] + [optional] * bool(optional):
            row = {name: value for name, value in case.rows[0].items() if name not in absent}
            expect(_is_plain(by_row(predictor.ask(_rows(predictor, row)))), f"without {absent} there is no answer")
        for each in case.fields:
            if each.required:
                row = {name: value for name, value in case.rows[0].items() if name != each.name}
                problem = _refusal(lambda row=row: _rows(predictor, row))
                expect(problem is not None, f"{each.name} is required, and not missed")

    def test_a_fresh_process_gives_the_same_answers(self, tmp_path: Path) -> None:
        """The bundle works where nothing of the model was imported, and says nothing but the answers."""
        case = self._made(tmp_path)  # with a home of its own, which remembers what this user packed
        path = tmp_path / "fresh.ketch"
        path.write_bytes(case.packed.data)
        opened = bundle.read(case.packed.data, "contract")
        if code.runs(opened.originals, opened.code):  # whoever fetched it trusts its maker
            code.approve(opened.originals, opened.code, home=tmp_path / "home", name="fresh", when="now")
        predictor = Predictor(opened, case.runner)
        wanted = predictor.predict([dict(row) for row in case.rows])
        done = _fresh(path, case.rows, tmp_path)
        expect(done.returncode == 0 and not done.stderr, f"a fresh process ends with: {done.stderr[-2000:]}")
        compiled = bundle.read(case.packed.data, "contract").manifest.serves == "compiled"
        same = _is_near(json.loads(done.stdout), json.loads(json.dumps(wanted)), COMPILED if compiled else 0.0)
        expect(same, f"other answers: {done.stdout[:500]}")

    def test_requirements_are_installed(self) -> None:
        """What a service must install is named as it is installed here."""
        named = self.adapter.requirements()
        expect(bool(named), "an adapter names the distributions that its models need")
        for name, number in named.items():
            expect(version(name) == number, f"{name} {version(name)} is installed, not {number}")

    def test_a_model_that_was_not_fitted_is_refused(self, tmp_path: Path) -> None:
        """Who forgets to fit is told so."""
        model = self.make_unfitted()
        if model is not None:
            problem = _refusal(lambda: compose(model, None, Options(), home=tmp_path))
            expect(problem is not None, f"{model!r} was never fitted, and packs")
            expect(bool(problem and problem.hint), f"{problem} has no remedy")

    def test_a_damaged_file_is_refused(self, tmp_path: Path) -> None:
        """Half a file, and a file with its middle overwritten, are refused in words."""
        path = self.save(self.make_model(), tmp_path)
        if path is None or not path.is_file():
            return
        data = path.read_bytes()
        middle = len(data) // 2
        for damaged in (data[:middle], data[: middle - 20] + b"\xff" * 40 + data[middle + 20 :]):
            path.write_bytes(damaged)
            problem = _refusal(lambda: compose(str(path), self._table(), self._options(), home=tmp_path / "home"))
            expect(bool(problem and problem.message and problem.hint), f"a damaged {path.name} is not refused")

    # ---- making a case ------------------------------------------------------------------------------

    def _case(self) -> Case:
        """Pack the model once for all tests of the class: a file of a framework's own is judged for seconds first."""
        kept = vars(type(self)).get("_kept")
        if not isinstance(kept, Case):
            with tempfile.TemporaryDirectory() as folder:
                kept = type(self)._kept = self._made(Path(folder))
        return kept

    def _made(self, folder: Path) -> Case:
        model = self.make_model()
        given = self.save(model, folder) or model
        home = folder / "home"
        packed = compose(str(given) if isinstance(given, Path) else given, self._table(), self._options(), home=home)
        fields = bundle.read(packed.data, "contract").contract.fields
        joined = self._joined(model)
        rows = list(self.make_rows())
        expect(len(rows) > 2, "make_rows gives at least three rows")
        knowledge = self.adapter.study(joined, [each.name for each in fields])
        return Case(joined, packed, knowledge, fields, self.adapter.runner(joined, fields), rows)

    def _joined(self, model: object) -> object:
        adapter: Adapter = self.adapter
        return adapter.join([model])

    def _table(self) -> Columns | None:
        return read_table(self.make_table())

    def _options(self) -> Options:
        return Options(target="target", **self.options)


# ---- targets -----------------------------------------------------------------------------------------


class TargetContract:
    """What every target keeps: inherit it as `class TestX(TargetContract)` and define the first two.

    `options` are given to every plan of the tests.
    """

    target: Any
    options: Mapping[str, Any] = {}
    name = "churn-trial"

    def make_bundle(self) -> bytes:
        """Give the bytes of a bundle."""
        raise NotImplementedError

    # ---- the tests ----------------------------------------------------------------------------------

    def test_a_plan_is_made_without_asking_anybody_and_is_the_same_every_time(self) -> None:
        """Names and options say what is to be done; a plan is shown before anybody is asked."""
        asked: list[str] = []
        with _listening(asked):
            one, other = self._plans(), self._plans()
        expect(not asked, f"a plan asks: {asked[:3]}")
        expect(list(map(_described, one)) == list(map(_described, other)), "two plans of the same differ")
        expect(
            [each.files for each in one] == [each.files for each in other], "two plans of the same write other files"
        )

    def test_steps_have_names_of_their_own_and_build_on_earlier_ones(self) -> None:
        """What a step needs, an earlier one has given."""
        for plan in self._plans():
            known: set[str] = set()
            for step in plan.steps:
                expect(step.name not in known, f"two steps are called {step.name}")
                expect(bool(step.title), f"{step.name} says what it does")
                for call in (step.look, step.call):
                    missing = {got.step for got in _references(call)} - known - {step.name}
                    expect(not missing, f"{step.name} needs {sorted(missing)}, which no earlier step gives")
                known.add(step.name)

    def test_a_plan_tells_no_secret(self) -> None:
        """The key stands in no file, no call that is shown, and no note."""
        shipped = self._shipment()
        plan = self.target.plan(shipped, self._options())
        key = str.__str__(shipped.key)
        told = json.dumps(_described(plan)) + "".join(plan.notes) + repr(plan)
        expect(key not in told, "the key is shown")
        expect(not [path for path, data in plan.files.items() if key.encode() in data], "the key stands in a file")

    def test_what_runs_is_asked_for_its_golden_predictions_last(self) -> None:
        """A deployment is done when the live address answers right."""
        plan = self.target.plan(self._shipment(), self._options())
        if plan.steps:
            expect(plan.steps[-1].name == "smoke", f"the last step is {plan.steps[-1].name}, not smoke")

    def test_what_is_used_has_a_price_in_the_table(self) -> None:
        """The estimate of a month leaves nothing out."""
        plan = self.target.plan(self._shipment(), self._options())
        unknown = [each.what for each in estimate(plan.uses, prices()).lines if each.dollars is None]
        expect(not unknown, f"without a price: {unknown}")

    def test_options_are_told_and_held_to_their_choices(self) -> None:
        """Every option has a help and a default that it takes; others are refused in words."""
        for option in self.target.options:
            expect(bool(option.help), f"{option.name} has no help")
            fits = not option.choices or not option.default or option.default in option.choices
            expect(fits, f"{option.name} does not take its own default")
        problem = _refusal(lambda: settled(self.target, {"no such option": 1}))
        expect(bool(problem and problem.hint), "an option that is none is not refused")

    def test_questions_only_ask(self) -> None:
        """Status, logs and doctor are questions, each with a title."""
        for verb in ("status", "logs", "doctor"):
            way = getattr(self.target, verb)
            for question in way(self.name, self._options()) if way else ():
                expect(bool(question.title), f"--{verb} asks something without saying what")
                json.dumps(question.call.sent())

    def _options(self) -> dict[str, Any]:
        return settled(self.target, self.options)

    def _shipment(self) -> Shipment:
        data = self.make_bundle()
        key = Secret("key-that-nobody-must-see")
        return Shipment(self.name, bundle.read(data, "contract"), data, key)

    def _plans(self) -> list[Plan]:
        made = [self.target.plan(self._shipment(), self._options())]
        ways = [self.target.rollback, self.target.destroy]
        return [*made, *(way(self.name, self._options()) for way in ways if way)]


@contextmanager
def _listening(asked: list[str]) -> Iterator[None]:
    """Note every connection and every program begun."""
    begins = ("socket.connect", "subprocess.Popen", "os.system")
    open_ears = [True]

    def hear(event: str, details: Any) -> None:
        if open_ears and event in begins:
            asked.append(f"{event} {details}")

    sys.addaudithook(hear)  # for good: it can only be told not to listen any more
    try:
        yield
    finally:
        open_ears.clear()


def _described(plan: Plan) -> list[object]:
    calls = [(step.name, step.title, first(step), step.look) for step in plan.steps]
    return [[name, title, *(each and each.sent() for each in both)] for name, title, *both in calls]


def _references(value: Any) -> Iterator[Got]:
    if isinstance(value, Got):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _references(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _references(each)
    elif is_dataclass(value):
        for each in fields(value):
            yield from _references(getattr(value, each.name))


def expect(condition: bool, message: str) -> None:
    """Fail the test with a message unless the condition holds."""
    if not condition:
        raise AssertionError(message)


def by_row(raw: Raw) -> list[tuple[object, ...]]:
    """Give each row's label, probabilities and score together."""
    blank: list[object] = [None] * len(raw.labels)
    return list(zip(raw.labels, raw.probabilities or blank, raw.scores or blank, strict=True))


def _rows(predictor: Predictor, row: Row) -> Any:
    return predictor.check(Table(columns_of([dict(row)]), 1, True))


def _refusal(attempt: Any) -> KetchError | None:
    try:
        attempt()
    except KetchError as error:
        return error
    return None


def _fresh(path: Path, rows: Sequence[Row], folder: Path) -> subprocess.CompletedProcess[str]:
    code = f"import sys; sys.path[:0] = {[each for each in sys.path if each]!r}\n" + FRESH
    prepare = f"import os; os.environ['KETCH_HOME'] = {str(folder / 'home')!r}\n"
    command = [sys.executable, "-c", prepare + code, str(path)]
    return subprocess.run(
        command, input=json.dumps(list(rows)), capture_output=True, text=True, cwd=folder, timeout=100, check=False
    )


def _plain(value: Any) -> object:
    return value.tolist() if hasattr(value, "tolist") else value


def _is_plain(value: object) -> bool:
    if isinstance(value, Raw):
        return _is_plain(by_row(value))
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or type(value) in {bool, int, str} or (type(value) is float and math.isfinite(value))


def _is_near(one: object, other: object, tolerance: float) -> bool:
    if isinstance(one, list) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(_is_near(a, b, tolerance) for a, b in zip(one, other, strict=True))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_is_near(one[name], other[name], tolerance) for name in one)
    if isinstance(one, int | float) and isinstance(other, int | float):
        return abs(one - other) <= tolerance * max(1.0, abs(other))
    return one == other
