"""Plain Python functions: `def predict(rows)` takes a list of dicts and returns a list of answers.

An answer is a number, a label, or a dict with `probability` (of yes) or `probabilities` (by class), and perhaps
`label`. What a function takes is told by a sample, by the types of its rows, or by its attribute `fields`; what it
answers, by what it answers, or by its attribute `task`.
"""

import inspect
import math
import types
import typing
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from ketch.adapters import Input, Inputs, Knowledge, Raw, not_a_model
from ketch.errors import ContractError, ModelError, UnsupportedModel
from ketch.schema import Columns, Field, Scalar, Type, is_missing, kind_of, plain
from ketch.schema.sample import compose, refine

TASKS: Final = ("binary", "multiclass", "regression", "cluster", "outlier")
TYPES: Final[Mapping[object, Type]] = {
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "text",
    date: "date",
    datetime: "datetime",
}
WORDS: Final = frozenset({"boolean", "date", "datetime", "integer", "number", "text"})
LABELS: Final = ("label", "prediction")
ENOUGH: Final = 200  # rows asked to see what a function answers


def join(parts: Sequence[object]) -> object:
    """Give the one function.

    Raises:
        NotAModel, UnsupportedModel: there are more parts, or the function does not take rows.
    """
    function = parts[0]
    if not isinstance(function, types.FunctionType):
        raise not_a_model(function)
    hint = "Write def predict(rows): it takes a list of dicts and returns a list of answers."
    if len(parts) > 1:
        raise UnsupportedModel("A function answers alone, without other objects", hint=hint)
    wanted = [each for each in inspect.signature(function).parameters.values() if each.default is each.empty]
    if len([each for each in wanted if each.kind in {each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD}]) != 1 or any(
        each.kind is each.KEYWORD_ONLY for each in wanted
    ):
        raise UnsupportedModel(f"{function.__name__} does not take one argument, the rows", hint=hint)
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        raise UnsupportedModel(f"{function.__name__} does not return a list", hint=hint)
    return function


def study(model: Any, names: Sequence[str] = ()) -> Knowledge:
    """Say what the function tells of itself: its fields, and by asking it what it answers.

    Raises:
        ContractError, ModelError: it tells nothing, or does not answer rows made of what it tells.
    """
    fields = _declared(model) or _annotated(model)
    if not fields:
        raise ContractError(
            f"Nothing tells what {model.__name__} takes",
            hint="Give rows that it can answer: --data rows.csv, or data= in Python.",
        )
    blank = Knowledge(fields=fields, task="")
    return _known(model, fields, compose(fields, blank, {}, ENOUGH), ENOUGH, told=True)


def study_rows(model: Any, columns: Columns) -> Knowledge:
    """Say what the function takes and answers, from rows of a sample."""
    declared = {each.name: each for each in _declared(model) or _annotated(model)}
    if declared and declared.keys() - columns.keys():
        raise ContractError(
            f"The data has no column {min(declared.keys() - columns.keys())!r}, which the function takes",
            hint="Give rows that it can answer.",
        )
    fields = tuple(declared.values()) or tuple(_from_values(name, values) for name, values in columns.items())
    count = min(ENOUGH, len(next(iter(columns.values()), [])))
    rows: Columns = {each.name: [_handed(value) for value in columns[each.name][:count]] for each in fields}
    return _known(model, fields, rows, count, told=bool(declared))


def inputs(model: object, fields: Sequence[Field]) -> Inputs:
    """Say that the function is handed rows, which nothing else does."""
    return Inputs("rows", tuple(Input(each.name, each, gap=None) for each in fields))


def runner(model: Any, fields: Sequence[Field]) -> "Function":
    """Prepare the function to answer checked columns."""
    return Function(model, [each.name for each in fields])


def requirements() -> Mapping[str, str]:
    """Name what opens a function that travels by value."""
    try:
        return {"cloudpickle": version("cloudpickle")}
    except PackageNotFoundError:  # then it travels by source
        return {}


class Function:
    """Asks a function, and puts its answers in the order of the rows."""

    def __init__(self, function: Any, names: Sequence[str]) -> None:
        self.function, self.names = function, list(names)
        self.task = str(getattr(function, "task", ""))

    def __call__(self, columns: Columns, n: int) -> Raw:
        """Answer `n` rows.

        Raises:
            ValueError: the function does not give one answer for each row.
        """
        given = [columns[name] for name in self.names]
        rows = [dict(zip(self.names, values, strict=True)) for values in zip(*given, strict=True)]
        found = plain(self.function(rows))
        answers = [plain(each) for each in found] if isinstance(found, list | tuple) else None
        if answers is None or len(answers) != n:
            said = f"a {type(found).__name__}" if answers is None else f"{len(answers)} answers"
            raise ValueError(f"{self.function.__name__} gives {said} for {n} rows, not a list of {n} answers")
        return _raw(answers, self.task)


# ---- what it answers ---------------------------------------------------------------------------------


def _raw(answers: list[Any], task: str) -> Raw:
    if answers and isinstance(answers[0], Mapping):
        return _from_dicts([dict(each) for each in answers])
    for answer in answers:
        if not isinstance(answer, str | int | float):
            raise ValueError(
                f"an answer is a {type(answer).__name__}: it must be a number, a text, true, false or a dict"
            )
    if task == "binary" and answers and all(type(each) is float for each in answers):
        return _from_dicts([{"probability": each} for each in answers])
    if task == "outlier":
        return Raw([-1 if each is True or each == -1 else 1 for each in answers])
    return Raw([float(each) for each in answers] if task == "regression" else answers)


def _from_dicts(answers: list[dict[str, Any]]) -> Raw:
    if all("probability" in each for each in answers):
        likely = [_probability(each["probability"]) for each in answers]
        yes: list[object] = [bool(_label(each, value >= 0.5)) for each, value in zip(answers, likely, strict=True)]
        return Raw(yes, [[1 - value, value] for value in likely], classes=(False, True))
    if not all(isinstance(each.get("probabilities"), Mapping) for each in answers):
        raise ValueError("an answer is a dict without probability, and without probabilities by class")
    classes = tuple(sorted(answers[0]["probabilities"], key=lambda each: (str(type(each)), each)))
    rows = [_by_class(each["probabilities"], classes) for each in answers]
    best = [classes[row.index(max(row))] for row in rows]
    return Raw([_label(each, name) for each, name in zip(answers, best, strict=True)], rows, classes=classes)


def _by_class(told: Mapping[Any, Any], classes: Sequence[object]) -> list[float]:
    if told.keys() != set(classes):
        raise ValueError(f"one answer has the classes {list(told)}, another {list(classes)}")
    values = [_probability(told[name]) for name in classes]
    if not math.isclose(sum(values), 1, abs_tol=1e-6):
        raise ValueError(f"the probabilities {values} do not sum to 1")
    return values


def _label(answer: Mapping[str, Any], otherwise: object) -> object:
    return plain(next((answer[name] for name in LABELS if name in answer), otherwise))


def _probability(value: Any) -> float:
    number = float(value)
    if not -1e-9 <= number <= 1 + 1e-9:
        raise ValueError(f"{number} is no probability")
    return min(max(number, 0.0), 1.0)


def _known(model: Any, fields: tuple[Field, ...], columns: Columns, n: int, *, told: bool) -> Knowledge:
    raw = _asked(model, fields, columns, n)
    task = _task(model, raw)
    return Knowledge(
        fields=fields,
        task=task,
        classes=_classes(model, raw, task),
        probabilities=raw.probabilities is not None,
        settled=frozenset(each.name for each in fields) if told else frozenset(),
        origin={"function": model.__name__},
    )


def _asked(model: Any, fields: Sequence[Field], columns: Columns, n: int) -> Raw:
    try:
        return runner(model, fields)(columns, n)
    except Exception as error:  # a user's function may raise anything
        reason = " ".join(str(error).split())[:160]
        raise ModelError(
            f"{model.__name__} does not answer these rows: {type(error).__name__}: {reason}",
            hint="Give rows that it can answer with --data rows.csv, or data= in Python.",
        ) from None


def _task(model: Any, raw: Raw) -> str:
    said = str(getattr(model, "task", ""))
    if said and said not in TASKS:
        raise ContractError(f"{said!r} is no task", hint=f"The tasks are: {', '.join(TASKS)}.")
    if raw.classes is not None:
        found = "binary" if len(raw.classes) == 2 else "multiclass"
        if said and said != found:
            raise ContractError(
                f"{model.__name__} answers {len(raw.classes)} classes and says that its task is {said}",
                hint=f"Say {found}, or leave task out.",
            )
        return found
    if said:
        return said
    labels = set(raw.labels)
    if any(isinstance(each, str) for each in labels):
        return "binary" if len(labels) == 2 else "multiclass"
    return "binary" if labels == {0, 1} and not any(type(each) is float for each in labels) else "regression"


def _classes(model: Any, raw: Raw, task: str) -> tuple[object, ...]:
    if task not in {"binary", "multiclass"}:
        return ()
    found = raw.classes or tuple(getattr(model, "classes", ())) or tuple(sorted(set(raw.labels), key=str))
    if len(found) < 2 or (task == "binary" and len(found) != 2):
        raise ContractError(
            f"{model.__name__} answers {', '.join(map(str, found[:8]))} on these rows: not all its classes are known",
            hint=f'Say which there are: {model.__name__}.classes = ["no", "yes"], or give more rows with --data.',
        )
    return found


# ---- what it takes -----------------------------------------------------------------------------------


def _from_values(name: str, values: Sequence[object]) -> Field:
    present = [plain(value) for value in values if not is_missing(value)]
    lengths = {len(value) if isinstance(value, list) else -1 for value in present}
    if len(lengths) == 1 and min(lengths) > 0:
        return Field(name, "vector", length=lengths.pop())
    kinds = {kind_of(value) for value in present}
    return refine(Field(name, "number" if kinds <= {"number", "boolean"} else "text"), values)


def _handed(value: object) -> object:
    return None if is_missing(value) else plain(value)


def _declared(model: Any) -> tuple[Field, ...]:
    told = getattr(model, "fields", None)
    if not isinstance(told, Mapping):
        return ()
    return tuple(_field(str(name), kind, required=True) for name, kind in told.items())


def _annotated(model: Any) -> tuple[Field, ...]:
    try:
        hints = typing.get_type_hints(model, include_extras=True)
    except Exception:  # a name that only the type checker knows
        return ()
    first = next(iter(inspect.signature(model).parameters), "")
    inner = (*typing.get_args(hints.get(first)), None)[0]
    if not typing.is_typeddict(inner):
        return ()
    row = typing.get_type_hints(inner)
    return tuple(_field(name, kind, required=name in inner.__required_keys__) for name, kind in row.items())


def _field(name: str, kind: Any, *, required: bool) -> Field:
    if isinstance(kind, list | tuple) and kind:
        return Field(name, "category", required=required, categories=tuple(kind))
    if isinstance(kind, str) and kind in WORDS:
        return Field(name, typing.cast(Type, kind), required=required)
    origin, inside = typing.get_origin(kind), typing.get_args(kind)
    if origin in {typing.Union, types.UnionType} and type(None) in inside:
        rest = [each for each in inside if each is not type(None)]
        return _field(name, rest[0] if len(rest) == 1 else None, required=False)
    if origin is typing.Literal:
        return Field(name, "category", required=required, categories=typing.cast(tuple[Scalar, ...], inside))
    if kind in TYPES:
        return Field(name, TYPES[kind], required=required)
    raise ContractError(
        f"The field {name} has the type {kind!r}, which no request can hold",
        hint="Use bool, int, float, str, date, datetime, Literal or | None; in fields their names or a list of values.",
    )
