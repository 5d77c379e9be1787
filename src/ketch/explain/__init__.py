"""Why a model answered what it did: what each field contributes to the score, and reasons in words.

predictor --*explainer*--> Explainer        checked rows --*Explainer*--> [Explanation] --*record*--> JSON

Contributions are Shapley values of the contract's fields: what a field adds to the score, on average over all orders in
which the row's own values could take the place of those of the reference. They are exact where the model is a sum over
fields (linear) or of trees; for the rest `shap` asks the model. The reference is composed from contract and profile: no
record of anybody.
"""

import importlib
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import msgspec

from ketch import extras
from ketch.adapters import Raw
from ketch.bundle import Bundle
from ketch.errors import InputError, NotAnswerable, RequestError, TooManyRows
from ketch.predict import Predictor, Results, Rows
from ketch.program import MEMBER, Graph, GraphEvaluator, Linear
from ketch.schema import Answer, Columns, Field
from ketch.schema.sample import QUANTILES

SIBLINGS: Final = {
    "changes": "ketch.explain.changes",
    "linear": "ketch.explain.linear",
    "sampled": "ketch.explain.sampled",
    "trees": "ketch.explain.trees",
    "words": "ketch.explain.words",
}
REFERENCE_ROWS: Final = 32
SCALES: Final[Mapping[str, str]] = {  # link between the sum that is explained and the answer -> what the sum is
    "sigmoid": "log-odds",
    "each": "log-odds",
    "shares": "log-odds",
    "even": "log-odds",
    "softmax": "score",
    "both": "probability",
    "exp": "log-value",
    "expm1": "log-value",
}
PLAIN: Final = {"probabilities": "probability", "values": "value", "scores": "score", "labels": "score"}

Probe = Callable[[Columns, int], Sequence[Any]]


@dataclass(frozen=True, slots=True)
class Explanation:
    """What each field adds to the reference's score (`base`), so that all of them add up to this row's `score`.

    `of` is the class explained, the positive one of two; of a number it is the target's name. `scale` says what is
    added up: log-odds, probability, value, log-value or score.
    """

    of: object
    scale: str
    base: float
    score: float
    contributions: Mapping[str, float]
    reasons: Sequence[str]


@dataclass(frozen=True, slots=True)
class View:
    """Which of a model's outputs are looked at: their role and number, and the link from them to the answer."""

    role: str
    width: int
    link: str = "identity"

    @property
    def scale(self) -> str:
        """Say what contributions are measured in."""
        return SCALES.get(self.link) or PLAIN[self.role]


@dataclass(frozen=True, slots=True)
class Reading:
    """How one row's score is read: a weighted sum of the outputs, or whether the label is `label` where it has none."""

    of: object
    label: object
    weights: tuple[float, ...] = ()
    offset: float = 0.0

    def __call__(self, outputs: Any) -> float:
        """Give the score."""
        if not self.weights:
            return float(outputs == self.label)
        return math.fsum(weight * found for weight, found in zip(self.weights, outputs, strict=True)) + self.offset


class Way(Protocol):
    """How contributions are found."""

    view: View
    most_rows: int  # that one call explains

    def __call__(self, columns: Columns, n: int, readings: Sequence[Reading]) -> list[tuple[float, list[float]]]:
        """Give base and contributions, in the order of the contract's fields, for each row."""


class Explainer:
    """Explains one target of one model; the way is chosen once."""

    def __init__(self, predictor: Predictor, place: int, way: Way) -> None:
        self.predictor = predictor
        self.answer = _part(predictor.contract.answer, place)
        self.way = way
        self._place = place
        self._words: Any = importlib.import_module(SIBLINGS["words"])

    def __call__(self, rows: Rows, lang: str = "en") -> list[Explanation]:
        """Explain checked rows, in English or Portuguese.

        Raises:
            TooManyRows: that would take too long.
            NotAnswerable: the model has no finite answer to a row, or to what lies between it and the reference.
        """
        if rows.n > self.way.most_rows:
            raise TooManyRows(
                f"{rows.n} rows are more than are explained at once", hint=f"Send at most {self.way.most_rows} rows."
            )
        if not rows.n:
            return []
        raw = self.predictor.ask(rows)
        labels = raw.part(self._place).labels if self.predictor.contract.answer.parts else raw.labels
        readings = [reading(self.answer, self.way.view, self._place, label) for label in labels]
        try:
            found = self.way(rows.columns, rows.n, readings)
            return [self._explained(rows, place, readings[place], *each, lang) for place, each in enumerate(found)]
        except (ArithmeticError, ValueError) as error:
            raise NotAnswerable(
                "The model has no finite score for this, or for what lies between it and the reference",
                hint="Compare the values with GET /schema; one is far outside what the model was made for.",
            ) from error

    def _explained(
        self, rows: Rows, place: int, own: Reading, base: float, worth: Sequence[float], lang: str
    ) -> Explanation:
        fields = self.predictor.contract.fields
        score = math.fsum([base, *worth])
        if not math.isfinite(score):
            raise ValueError(f"row {place} scores {score}")
        values = [rows.columns[each.name][place] for each in fields]
        told = self._words.reasons(fields, values, worth, self._words.subject(self.answer, own.of, lang), lang)
        named = {each.name: value for each, value in zip(fields, worth, strict=True)}
        return Explanation(own.of, self.way.view.scale, base, score, named, told)


def explainer(predictor: Predictor, *, target: str = "") -> Explainer:
    """Choose how a model is explained: in closed form where it is linear, along its trees, else by asking it.

    Raises:
        InputError: a model of several targets needs one of them.
        NotInstalled: this kind of model needs an extra.
    """
    answer, place = predictor.contract.answer, 0
    if answer.parts or target:
        place = _target(answer, target)
    return Explainer(predictor, place, _way(predictor, place))


def record(found: Explanation) -> dict[str, object]:
    """Give an explanation as it goes over the wire."""
    return {
        "of": found.of,
        "scale": found.scale,
        "base": found.base,
        "score": found.score,
        "contributions": dict(found.contributions),
        "reasons": list(found.reasons),
    }


def answer_explained(explain: Explainer, rows: Rows, results: Results, lang: str = "en") -> list[dict[str, object]]:
    """Put each row's explanation beside its answer."""
    answers = [dict(zip(results.columns, row, strict=True)) for row in zip(*results.columns.values(), strict=True)]
    return [answer | {"explanation": record(each)} for answer, each in zip(answers, explain(rows, lang), strict=True)]


def _target(answer: Answer, target: str) -> int:
    names = [part.target for part in answer.parts or (answer,)]
    if target not in names:
        what = f"{target[:80]!r} is no target of this model" if target else "This model answers several targets"
        raise InputError(what, hint=f"Name the one to be explained: {', '.join(names)}.")
    return names.index(target)


def _part(answer: Answer, place: int) -> Answer:
    return answer.parts[place] if answer.parts else answer


# ---- which way ---------------------------------------------------------------------------------------


def _way(predictor: Predictor, place: int) -> Way:
    opened = predictor.bundle
    shown = reference(predictor)
    found: Way
    if opened.manifest.serves != "compiled":
        found = _made("sampled", predictor, place, shown)
        return found
    program: Linear | Graph = msgspec.json.decode(opened.files[MEMBER], type=Linear | Graph)
    if isinstance(program, Linear):
        found = _made("linear", predictor, program, shown)
    else:
        found = _made("trees", predictor, program, place, shown) or _made("sampled", predictor, place, shown, program)
    return found


def _made(sibling: str, *given: Any) -> Any:
    return importlib.import_module(SIBLINGS[sibling]).made(*given)


def group_of(program: Graph, answer: Answer, place: int) -> tuple[str, str, str]:
    """Give role, tensor and link of the outputs that tell most of a target."""
    at = place if len(program.outputs) > 1 else 0
    group = program.outputs[at]
    role = next((each for each in ("values", "probabilities", "scores") if each in group), "labels")
    if answer.task == "cluster":
        role = "labels"
    return role, group.get(role, ""), program.links[at] if role in {"values", "probabilities"} else "identity"


def reading(answer: Answer, view: View, place: int, label: object) -> Reading:
    """Say what of the outputs is explained for a row that is answered with a label."""
    if answer.task == "regression":
        return Reading(answer.target, None, _unit(view.width, place if view.width > 1 else 0))
    if answer.task == "outlier":  # scores count down towards outliers
        return Reading(True, -1, (-1.0,) if view.width else ())
    of = answer.positive if answer.task == "binary" else label
    said = bool(of) if answer.task == "binary" and set(answer.classes) == {0, 1} else of
    if not view.width:
        return Reading(said, of)
    at = answer.classes.index(of)
    if view.width == 1 and at == 0:
        return Reading(said, of, (-1.0,), 1.0 if view.scale == "probability" else 0.0)
    if view.width == 2 and view.link == "softmax":
        return Reading(said, of, (1.0, -1.0) if at == 0 else (-1.0, 1.0))
    return Reading(said, of, _unit(view.width, at if view.width > 1 else 0))


def _unit(width: int, at: int) -> tuple[float, ...]:
    return tuple(float(place == at) for place in range(width))


def seen(raw: Raw, answer: Answer, place: int, *, several: bool) -> tuple[View, list[Any]]:
    """Give what of a model's answers can be explained, as rows of outputs; labels where there is nothing else."""
    raw = raw.part(place) if several else raw
    if answer.task == "regression":
        return View("values", 1), [[float(label)] for label in raw.labels]  # type: ignore[arg-type]
    found: Any = raw.probabilities if raw.probabilities is not None else raw.scores
    rows = [each if isinstance(each, list) else [each] for each in found or ()]
    widths = {1, len(answer.classes)} if answer.task in {"binary", "outlier"} else {len(answer.classes)}
    if answer.task == "cluster" or not rows or len(rows[0]) not in widths:
        return View("labels", 0), list(raw.labels)
    return View("probabilities" if raw.probabilities is not None else "scores", len(rows[0])), rows


def probe(program: Graph, graph: bytes, name: str, fields: Sequence[Field]) -> Probe:
    """Make what gives the numbers of one tensor of a graph, outputs before their link as well as what lies inside.

    Raises:
        NotInstalled: to look inside takes an extra.
    """
    if all(name not in group.values() for group in program.outputs):
        onnx = extras.load("onnx")
        model = onnx.load_from_string(graph)
        model.graph.output.append(extras.load("onnx.helper").make_empty_tensor_value_info(name))
        graph = model.SerializeToString()
    looking = msgspec.structs.replace(program, outputs=({"values": name},), links=("identity",))
    numbers = Answer("several", parts=(Answer("regression"),))
    evaluator = GraphEvaluator(looking, graph, numbers, fields)
    return lambda columns, n: evaluator(columns, n).labels


# ---- the reference -----------------------------------------------------------------------------------


def reference(predictor: Predictor) -> Columns:
    """Compose the rows that contributions are measured against; golden rows where the model refuses them."""
    made = composed(predictor.bundle)
    try:
        predictor.ask(Rows(made, REFERENCE_ROWS))
    except RequestError:
        golden = predictor.bundle.golden.rows
        return {
            each.name: [golden[place % len(golden)].get(each.name) for place in range(REFERENCE_ROWS)]
            for each in predictor.contract.fields
        }
    return made


def composed(opened: Bundle) -> Columns:
    """Compose rows field by field, as common as the profile says, and otherwise as golden rows have them."""
    columns: Columns = {}
    for each in opened.contract.fields:
        spread: Any = opened.profile.get(each.name)
        own = _spread(each, spread if isinstance(spread, dict) else {})
        golden = [row.get(each.name) for row in opened.golden.rows]
        columns[each.name] = own or [golden[place % len(golden)] for place in range(REFERENCE_ROWS)]
    return columns


def _spread(each: Field, profile: Mapping[str, Any]) -> list[object]:
    """Draw values of one field evenly from its distribution, in an order of its own; none where it has none."""
    whole, missing = int(profile.get("rows", 0)), int(profile.get("missing", 0))
    share = 0.0 if each.required or not whole else missing / whole
    if each.type in {"number", "integer"} and "quantiles" in profile:
        draw = _drawn_number(each, profile["quantiles"])
    elif each.type in {"category", "boolean"} and (counts := _counts(each, profile.get("counts", {}))):
        draw = _drawn_category(counts)
    else:
        return []
    absent = round(share * REFERENCE_ROWS)
    rest = REFERENCE_ROWS - absent
    values: list[object] = [None] * absent + [draw((place + 0.5) / rest) for place in range(rest)]
    random.Random(each.name).shuffle(values)  # noqa: S311 (the same ones every time)
    return values


def _counts(each: Field, counts: Mapping[str, int]) -> list[tuple[object, int]]:
    known: Sequence[Any] = (False, True) if each.type == "boolean" else each.categories
    return [(value, counts[str(value)]) for value in known if counts.get(str(value))]


def _drawn_category(counts: Sequence[tuple[object, int]]) -> Any:
    whole = sum(count for _, count in counts)

    def draw(at: float) -> object:
        passed = 0
        for value, count in counts:
            passed += count
            if at * whole < passed:
                return value
        return counts[-1][0]

    return draw


def _drawn_number(each: Field, quantiles: Sequence[float]) -> Any:
    def draw(at: float) -> object:
        after = next(place for place, share in enumerate(QUANTILES) if share >= at)
        low, high = QUANTILES[after - 1], QUANTILES[after]
        value = quantiles[after - 1] + (quantiles[after] - quantiles[after - 1]) * (at - low) / (high - low)
        return round(value) if each.type == "integer" else float(f"{value:.6g}")

    return draw
