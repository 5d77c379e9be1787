"""The one composer of a bundle: model (+ data) → contract, golden predictions, bundle.

files or object --*open*--> model --*study*--> draft --*refine, try*--> contract --*ask*--> golden --> bundle
"""

import copy
import importlib
import math
import os
import platform
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import msgspec

from ketch import adapters, bundle, card, code, compiler, extras, lock, rescue, settings, trust
from ketch.adapters import Adapter, Knowledge, Raw, RowStudy, Runner, adapter_for, format_of, name_of
from ketch.bundle import Golden, Manifest, Original, Parity
from ketch.code import Captured
from ketch.compiler.parity import Trial, examine
from ketch.errors import (
    ContractError,
    CorruptBundle,
    InputError,
    KetchWarning,
    ModelError,
    NotAModel,
    NotInstalled,
    UsageError,
)
from ketch.program import evaluator
from ketch.schema import NAME, Answer, Columns, Contract, Field, Scalar, Type, slug
from ketch.schema.amend import amended, parse, require_known
from ketch.schema.checks import Checker
from ketch.schema.sample import Profiles, profile, refine
from ketch.schema.sample import compose as compose_rows

GOLDEN_ROWS: Final = 48
TOLERANCE: Final = 1e-6
MOST_AS_SKOPS: Final = 32 << 20  # bytes of a pickle; 111 MB took 13 s to save and open again
WHY_TEST: Final = "that were kept apart with `--test-data`: whoever packed it says that it was not trained on them"
WHY_SAMPLE: Final = "of `--data`; if it was trained on them, expect it to do worse on others"
YES: Final = frozenset({"1", "1.0", "true", "yes"})


@dataclass(frozen=True)
class Options:
    """What a person may say beyond the model itself.

    `ask` chooses the positive class when nothing tells; `card` is an edited model card, `figures` measures for it, and
    `test` rows that the model was not trained on.
    """

    target: str = ""
    name: str = ""
    positive: str | None = None
    threshold: float | None = None
    tolerance: float = TOLERANCE
    amendments: Mapping[str, Any] = field(default_factory=dict)
    rescue: bool = False
    card: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)
    test: Columns | None = None
    ask: Callable[[Sequence[Scalar]], Scalar] | None = None

    @property
    def targets(self) -> tuple[str, ...]:
        """Give the names of the targets, which a comma separates."""
        return tuple(name.strip() for name in self.target.split(",")) if self.target else ()


@dataclass(frozen=True)
class Source:
    """One file of the model as it was given, and what is said of it, such as the scikit-learn that wrote it."""

    name: str
    format: str
    data: bytes
    written_by: str = ""
    place: Path | None = None  # where it stands in a folder
    columns: Mapping[str, Type] = field(default_factory=dict)  # that a signature beside it names


@dataclass(frozen=True)
class Packed:
    """A bundle's bytes, where they were written (if anywhere), and what a person should know."""

    data: bytes
    name: str
    notes: tuple[str, ...]
    path: Path | None = None


def pack(  # noqa: PLR0913 (what a person may say, each by its name)
    model: object,
    path: str | Path | None = None,
    *,
    target: str = "",
    data: object = None,
    name: str = "",
    positive: object = None,
    threshold: float | None = None,
    contract: str | Path | None = None,
    tolerance: float = TOLERANCE,
    rescue: bool = False,
    card: str | Path | None = None,
    metrics: str | Path | Mapping[str, float] | None = None,
    test_data: object = None,
) -> Packed:
    """Pack a fitted model, or the file or files it was saved to, into a bundle.

    `data` is a DataFrame, a list of dicts or the path of a CSV or Parquet file: it sharpens types, ranges and
    categories. `positive` names the class whose probability is answered; `contract` is an amended contract.toml.
    `tolerance` is how far the compiled form may differ from the original; where it differs more, the original serves.
    `rescue` rebuilds a file of an older scikit-learn and proves it in that version.
    For the model card: `card` is an edited one whose words are kept, `metrics` are figures of your own (a dict, or a
    JSON file), `test_data` rows that the model was not trained on, to measure it with.
    The bundle is written to `path`, by default `NAME.ketch` in the current folder.

    Raises:
        ModelError, TrustError, InputError, ContractError, UsageError: each with the remedy in its hint.
    """
    options = Options(
        target=target,
        name=name,
        positive=None if positive is None else str(positive),
        threshold=threshold,
        tolerance=tolerance,
        rescue=rescue,
        card=read_card(card) if card else "",
        figures=metrics if isinstance(metrics, Mapping) else read_figures(metrics) if metrics else {},
        test=read_table(test_data),
        amendments=parse(read_bytes(Path(contract)), str(contract)) if contract else {},
    )
    packed = compose(model, read_table(data), options, home=settings.home(os.environ))
    for note in packed.notes:
        warnings.warn(note, KetchWarning, stacklevel=2)
    written = Path(path) if path else Path(packed.name + bundle.SUFFIX)
    bundle.save(packed.data, written)
    return Packed(packed.data, packed.name, packed.notes, written)


Opened = tuple[list[Source], list[object], Captured]


def compose(model: object, table: Columns | None, options: Options, *, home: Path) -> Packed:
    """Compose a bundle; nothing but approvals and caches is written."""
    if not options.tolerance >= 0:
        raise UsageError(f"A tolerance of {options.tolerance:g} allows nothing", hint="Give 0 or more, such as 1e-6.")
    with rescue.Case(wanted=options.rescue, home=home, environ=os.environ) as case:
        opened = _open(model, home, case)
        with _one_thread():
            return _composed(opened, table, options, home, case)


def _one_thread() -> AbstractContextManager[object]:
    """Let native libraries use one thread, as they do when they serve; those that wait for each other cost seconds."""
    try:
        limits: AbstractContextManager[object] = importlib.import_module("threadpoolctl").threadpool_limits(1)
    except ModuleNotFoundError:  # it comes with scikit-learn
        return nullcontext()
    return limits


def _composed(opened: Opened, table: Columns | None, options: Options, home: Path, case: rescue.Case) -> Packed:
    sources, parts, carried = opened
    case.require_old()
    notes = [*case.notes(), *_named_beside(carried)]
    safer = [] if code.runs(_parts(sources), carried.files) else _as_skops(sources, parts, home)  # before n_jobs is set
    adapter = adapter_for(first_object(parts))
    joined = adapter.join(parts)
    told = {name: kind for source in sources for name, kind in source.columns.items()}
    names = list(told) if table is None else [name for name in table if name not in options.targets]
    knowledge = _study(adapter, joined, table, names)
    _require_target(options, table, knowledge)
    fields = _sharpened(knowledge, table, told)
    profiles = {name: profile(values) for name, values in (table or {}).items()}
    runner = adapter.runner(joined, fields)
    fields = _settle_missing(fields, knowledge, profiles, case.trial(runner))
    require_known([each.name for each in fields], options.amendments)
    fields = tuple(amended(each, options.amendments) for each in _with_examples(fields, knowledge, profiles))
    _require_examples(fields)
    golden = _golden(fields, knowledge, profiles, runner)
    answer = _answer(knowledge, options, notes, Raw(golden.labels, golden.probabilities))
    chosen = _name(options, sources)
    trial = Trial(fields, answer, knowledge, table, profiles, runner, options.tolerance)
    proved = case.prove(trial)
    program, parity = _compiled(adapter, joined, trial)
    if safer and _answers_alike(adapter, [part for _, part in safer], fields, golden):
        sources = [source for source, _ in safer]
    captured = _captured(sources, adapter, adapter.inputs(joined, fields).form, program, carried)
    manifest = Manifest(
        format=bundle.FORMAT,
        name=chosen,
        answer=answer,
        adapter=name_of(adapter),
        serves="compiled" if program else "original",
        tolerance=options.tolerance,
        originals=tuple(Original(_member(place, each), each.format, each.name) for place, each in enumerate(sources)),
        origin={**knowledge.origin, **proved},
        versions=bundle.versions(captured, version("ketch")),
        members={},
        parity=parity,
        code=tuple(carried.files),
    )
    files = {_member(place, each): each.data for place, each in enumerate(sources)}
    files |= {**program, **carried.files, **case.files()}
    files[lock.CAPTURED] = _requirements(captured)
    contract = Contract(fields, answer)
    profiled = _profile(fields, profiles, options.targets)
    files |= _card(manifest, profiled, trial, options)
    return Packed(bundle.write(manifest, contract, golden, profiled, files), chosen, tuple(notes))


def _card(manifest: Manifest, profiled: Mapping[str, Any], trial: Trial, options: Options) -> dict[str, bytes]:
    """Write the model card, measured on test rows where there are some, else on the sample."""
    why = WHY_TEST if options.test is not None else WHY_SAMPLE
    rows = options.test if options.test is not None else trial.table or {}
    measured = card.sibling("measure").measure(trial.original, trial.fields, trial.answer, rows, why)
    return card.write(card.Facts(manifest, trial.fields, profiled, measured, options.figures), options.card)


def _study(adapter: Adapter, model: object, table: Columns | None, names: Sequence[str]) -> Knowledge:
    if isinstance(adapter, RowStudy) and table is not None:
        return adapter.study_rows(model, {name: table[name] for name in names})
    return adapter.study(model, names)


def _compiled(adapter: Adapter, model: object, trial: Trial) -> tuple[dict[str, bytes], Parity]:
    """Compile the model and hold the result against it; without one, give the reason."""
    try:
        made = compiler.compiled(adapter, model, trial.fields, trial.answer)
        candidate = evaluator(made.files, trial.answer, trial.fields)
        return made.files, examine(trial, candidate, made.thresholds)
    except (compiler.NotCompiled, NotInstalled) as reason:
        return {}, Parity(reason=str(reason))
    except CorruptBundle as fault:  # the compiler's fault, for which nobody's model should be refused
        return {}, Parity(reason=f"its program does not open ({fault})")


def _captured(
    sources: Sequence[Source], adapter: Adapter, form: str, program: Iterable[str], carried: Captured
) -> dict[str, str]:
    """Give the versions of what the model's files import, and of what it and its compiled form are asked with."""
    named = [name for each in sources for name in trust.examine(each.data).imports]
    named += [f"{library}.it" for library in sorted(carried.libraries)]
    opened_by = ["skops"] if any(each.format == "skops" for each in sources) else []
    asked_with = [*adapter.requirements(), *(["pandas"] if form == "frame" else []), *lock.runtime(program)]
    return lock.capture(named, [*opened_by, *asked_with])


def _requirements(captured: Mapping[str, str]) -> bytes:
    return "".join(f"{name}=={number}\n" for name, number in captured.items()).encode()


def _member(place: int, source: Source) -> str:
    if source.format == code.PYTHON:
        return code.PLACE + source.name
    stem = slug(Path(source.name).name)
    return f"original/{place}-{stem}"


# ---- opening what was given ------------------------------------------------------------------------


def _open(model: object, home: Path, case: rescue.Case) -> Opened:
    paths = _as_paths(model)
    sources, carried = read_files(paths) if paths else _given(model, home)
    given = _parts(sources)
    if code.runs(given, carried.files):  # opened as it will be elsewhere, which shows what is missing
        name = " and ".join(source.name for source in sources)
        here = platform.python_version()
        return sources, code.open_parts(given, carried.files, home=home, name=name, python=here), carried
    if not paths:
        return sources, [copy.deepcopy(model)], carried  # a runner sets n_jobs, its owner's model keeps its own
    opened = [case.open(source) for source in sources]
    return [source for source, _ in opened], [part for _, part in opened], carried


def _parts(sources: Sequence[Source]) -> list[code.Part]:
    return [(source.name, source.format, source.data) for source in sources]


def _named_beside(carried: Captured) -> list[str]:
    told = "is named by the code and does not travel; let the model hold what is in it"
    return [f"{name} {told}" for name in carried.beside]


def read_files(paths: Sequence[Path]) -> tuple[list[Source], Captured]:
    """Read the files of a model, and find the code that they need; nothing is opened.

    Raises:
        InputError, ModelError: a file cannot be read, or some of its code cannot travel.
    """
    sources = [_read_file(path) for path in paths]
    places = [source.place or path for source, path in zip(sources, paths, strict=True)]
    return sources, code.capture_files(places, _parts(sources))


def _as_paths(model: object) -> list[Path]:
    listed = model if isinstance(model, list | tuple) else [model]
    paths = [Path(each) for each in listed if isinstance(each, str | Path)]
    return paths if len(paths) == len(listed) else []


def first_object(parts: object) -> object:
    """Give the first object of a nest of lists, pairs and dicts.

    Raises:
        NotAModel: there is none.
    """
    while isinstance(parts, list | tuple | dict):
        if not parts:
            raise NotAModel("The file holds an empty list", hint="Save the fitted model itself, then pack it.")
        parts = next(iter(parts.values())) if isinstance(parts, dict) else parts[0]
    return parts


def _read_file(path: Path) -> Source:
    if path.is_dir():
        return _read_folder(path)
    return _source(path, read_bytes(path))


def _read_folder(path: Path) -> Source:
    inside = adapters.sibling("mlflow").open_folder(path)
    source = _source(Path(inside.name), inside.data)
    return replace(source, place=inside.place, columns=inside.columns)


def _source(path: Path, data: bytes) -> Source:
    if form := code.PYTHON if path.suffix == ".py" else format_of(path.name, data):
        return Source(path.name, form, data)
    if bundle.looks_like_bundle(data):
        raise InputError(f"{path} is a zip archive, not a pickle", hint="Give the file your notebook saved.")
    found = trust.examine(data)
    return Source(path.name, found.format, data, found.sklearn_version)


def read_bytes(path: Path) -> bytes:
    """Read a file whole.

    Raises:
        InputError: it is not there, or not readable.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"There is no file {path}", hint="Check the path; ls shows what is there.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", hint="Give a readable file.") from None


def _given(model: object, home: Path) -> tuple[list[Source], Captured]:
    """Write an object as its maker holds it, with the code that it needs; its maker is packing it, here and now."""
    adapter_for(first_object(model))
    part, carried = code.capture_object(model)
    name, form, data = part
    finding = trust.examine(data)
    if code.runs([part], carried.files) or finding.refused or finding.faults:
        when = datetime.now(UTC).isoformat(timespec="seconds")
        code.approve([part], carried.files, home=home, name="packed from Python", when=when)
    return [Source(name, form, data)], carried


def _as_skops(sources: Sequence[Source], parts: Sequence[object], home: Path) -> list[tuple[Source, object]]:
    """Write the model's files as skops, with what they open to; none where skops or the gate does not hold them all.

    A file of another scikit-learn keeps its bytes, which that one still opens.
    """
    made = []
    for source, part in zip(sources, parts, strict=True):
        if source.format not in {"pickle", "joblib"} or len(source.data) > MOST_AS_SKOPS or rescue.is_foreign(source):
            return []
        if (saved := trust.as_skops(part, home=home)) is None:
            return []
        made.append((Source(str(Path(source.name).with_suffix(".skops")), "skops", saved[0]), saved[1]))
    return made


def _answers_alike(adapter: Adapter, parts: list[object], fields: tuple[Field, ...], golden: Golden) -> bool:
    """Tell whether a model saved in another form gives the same golden answers, bit for bit."""
    columns: Columns = {each.name: [row[each.name] for row in golden.rows] for each in fields}
    try:
        raw = adapter.runner(adapter.join(parts), fields)(columns, len(golden.rows))
    except Exception:  # whatever it stumbles over, it is not the same
        return False
    return (raw.labels, raw.probabilities, raw.scores) == (golden.labels, golden.probabilities, golden.scores)


# ---- the contract ----------------------------------------------------------------------------------


def _require_target(options: Options, table: Columns | None, knowledge: Knowledge) -> None:
    if table is None:
        return
    named = {each.name for each in knowledge.fields}
    absent = [name for name in options.targets if name not in table]
    if absent and not table.keys() <= named:
        raise InputError(f"The data has no column {absent[0]!r}", hint=f"Its columns are: {_listed(list(table))}")
    missing = [each.name for each in knowledge.fields if each.name not in table]
    if missing and knowledge.named:
        raise InputError(
            f"The data has no column {missing[0]!r}, which the model reads",
            hint=f"Its columns are: {_listed(list(table))}. Prepare them as the training script does.",
        )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _sharpened(knowledge: Knowledge, table: Columns | None, told: Mapping[str, Type]) -> tuple[Field, ...]:
    if table is None:
        return tuple(_told(each, told.get(each.name, each.type)) for each in knowledge.fields)
    return tuple(refine(each, table[each.name]) if each.name in table else each for each in knowledge.fields)


def _told(each: Field, kind: Type) -> Field:
    """Take the type that a signature tells, where the model itself knows only a number."""
    return msgspec.structs.replace(each, type=kind) if each.type == "number" else each


def _settle_missing(
    fields: tuple[Field, ...], knowledge: Knowledge, profiles: Profiles, runner: Runner
) -> tuple[Field, ...]:
    """Let a field be missing where the model answers without it; what an encoder settled is not tried."""
    open_names = [each.name for each in fields if each.name not in knowledge.settled]
    typical = compose_rows(fields, knowledge, profiles, 1)
    _try(runner, typical, 1)
    together = {name: values * len(open_names) for name, values in typical.items()}
    for place, name in enumerate(open_names):
        together[name] = [None if row == place else value for row, value in enumerate(together[name])]
    if open_names and _answers(runner, together, len(open_names)):
        optional = set(open_names)
    else:
        optional = {name for name in open_names if _answers(runner, {**typical, name: [None]}, 1)}
    return tuple(
        msgspec.structs.replace(each, required=each.name not in optional) if each.name in open_names else each
        for each in fields
    )


def _answers(runner: Runner, columns: Columns, n: int) -> bool:
    try:
        raw = runner(columns, n)
    except Exception:  # whatever a model raises on a missing value, it does not handle it
        return False
    return _finite([raw.labels, raw.probabilities, raw.scores])


def _finite(answers: object) -> bool:
    if isinstance(answers, list):
        return all(map(_finite, answers))
    return not isinstance(answers, float) or math.isfinite(answers)


def _try(runner: Runner, columns: Columns, n: int) -> None:
    try:
        runner(columns, n)
    except Exception as error:
        reason = " ".join(str(error).split())[:160]
        raise ModelError(
            f"The model does not answer a plausible row: {type(error).__name__}: {reason}",
            hint="Give rows it was trained on with --data rows.csv, so that types and values are known.",
        ) from None


def _answer(knowledge: Knowledge, options: Options, notes: list[str], typical: Raw) -> Answer:
    if typical.labels and isinstance(typical.labels[0], list):
        return _several(knowledge, options, typical)
    classes = tuple(each for each in knowledge.classes if isinstance(each, str | int | float))
    values = "probability" if knowledge.probabilities else "score" if knowledge.score else "none"
    threshold = options.amendments.get("threshold") if options.threshold is None else options.threshold
    positive = _positive(classes, options, notes) if knowledge.task == "binary" else None
    if threshold is not None and (knowledge.task != "binary" or values != "probability"):
        raise UsageError(
            "A threshold needs a yes/no model with probabilities", hint="Leave the threshold out for this model."
        )
    if threshold is not None and not 0 < float(threshold) < 1:
        raise UsageError(f"A threshold of {threshold} decides nothing", hint="Give a number between 0 and 1.")
    if options.positive is not None and knowledge.task != "binary":
        raise UsageError("Only a yes/no model has a positive class", hint="Leave --positive out.")
    return Answer(
        task=knowledge.task,  # type: ignore[arg-type]
        target=options.target or "prediction",
        classes=classes,
        positive=positive,
        threshold=None if threshold is None else float(threshold),
        values=values,  # type: ignore[arg-type]
    )


def _several(knowledge: Knowledge, options: Options, typical: Raw) -> Answer:
    """Name each of several targets: as `target` lists them, else by number."""
    label: Any = typical.labels[0]
    names = list(options.targets)
    if len(names) != len(label):
        names = [f"{options.target or 'prediction'}_{place + 1}" for place in range(len(label))]
    if options.threshold is not None or options.positive is not None:
        raise UsageError("A model of several targets takes no --threshold or --positive", hint="Leave them out.")
    listed: Any = knowledge.classes if knowledge.task == "several" else [(0, 1)] * len(label)
    regression = knowledge.task == "regression"
    parts = tuple(
        Answer("regression", name) if regression else _part(name, classes, typical)
        for name, classes in zip(names, [()] * len(label) if regression else listed, strict=True)
    )
    return Answer("several", options.target or "prediction", parts=parts)


def _part(name: str, classes: tuple[Scalar, ...], typical: Raw) -> Answer:
    values: Any = "none" if typical.probabilities is None else "probability"
    if len(classes) != 2:
        return Answer("multiclass", name, classes, values=values)
    return Answer("binary", name, classes, _positive(classes, Options(), []), values=values)


def _positive(classes: tuple[Scalar, ...], options: Options, notes: list[str]) -> Scalar:
    if options.positive is not None:
        named = [each for each in classes if str(each) == options.positive] or [
            each for each in classes if str(each).lower() == options.positive.lower()
        ]
        if not named:
            raise UsageError(
                f"{options.positive!r} is not a class of this model",
                hint=f"Its classes are: {', '.join(map(str, classes))}",
            )
        return named[0]
    certain = [each for each in classes if str(each).lower() in YES]
    if len(certain) == 1:
        return certain[0]
    if options.ask is not None:
        return options.ask(classes)
    notes.append(f"{classes[1]!r} is taken as the positive class; --positive chooses the other")
    return classes[1]


def _name(options: Options, sources: Sequence[Source]) -> str:
    if options.name:
        if not NAME.fullmatch(options.name):
            raise UsageError(
                f"{options.name!r} cannot name a bundle", hint="Use small letters, digits, dots and dashes, at most 64."
            )
        return options.name
    return slug(options.target or Path(sources[0].name).stem)


# ---- rows composed from the contract ---------------------------------------------------------------


def _with_examples(fields: Sequence[Field], knowledge: Knowledge, profiles: Profiles) -> list[Field]:
    typical = compose_rows(fields, knowledge, profiles, 1)
    return [msgspec.structs.replace(each, example=typical[each.name][0]) for each in fields]


def _require_examples(fields: Sequence[Field]) -> None:
    columns: Columns = {each.name: [each.example] for each in fields}
    if faults := Checker(fields)(columns, 1).faults:
        raise ContractError(
            f"The example of {faults[0].field!r} breaks its own contract: {faults[0].code}",
            hint=f"Give {faults[0].expected}.",
        )


def _golden(fields: tuple[Field, ...], knowledge: Knowledge, profiles: Profiles, runner: Runner) -> Golden:
    columns = compose_rows(fields, knowledge, profiles, GOLDEN_ROWS)
    keep = _answerable(runner, columns)
    columns = {name: [values[row] for row in keep] for name, values in columns.items()}
    raw = runner(columns, len(keep))
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    scores: list[object] | None = None if raw.scores is None else list(raw.scores)
    return Golden(rows, raw.labels, raw.probabilities, scores)


def _answerable(runner: Runner, columns: Columns) -> list[int]:
    """Leave out composed rows that the model itself refuses, such as two missing values it takes singly."""
    if _answers(runner, columns, GOLDEN_ROWS):
        return list(range(GOLDEN_ROWS))
    return [
        row
        for row in range(GOLDEN_ROWS)
        if _answers(runner, {name: [values[row]] for name, values in columns.items()}, 1)
    ]


def _profile(fields: Sequence[Field], profiles: Profiles, targets: Sequence[str]) -> dict[str, object]:
    names = [each.name for each in fields if each.type != "text"]
    return {name: profiles[name] for name in [*names, *targets] if name in profiles}


def read_card(path: str | Path) -> str:
    """Read an edited model card.

    Raises:
        InputError: it cannot be read, or is no text.
    """
    try:
        return read_bytes(Path(path)).decode()
    except UnicodeDecodeError:
        raise InputError(f"{path} is no text", hint="Give a CARD.md, such as: ketch inspect --card prints.") from None


def read_figures(path: str | Path) -> dict[str, float]:
    """Read figures for the model card from a JSON file.

    Raises:
        InputError: it cannot be read, or holds something else.
    """
    return card.figures_of(read_bytes(Path(path)), str(path))


# ---- the sample ------------------------------------------------------------------------------------


def read_table(data: object) -> Columns | None:
    """Read a sample, given as DataFrame, list of dicts or path, as columns.

    Raises:
        InputError: it cannot be read as a table with rows.
    """
    if data is None:
        return None
    if isinstance(data, str | Path):
        data = _read_frame(Path(data))
    if isinstance(data, list | tuple):
        data = extras.load("pandas").DataFrame(list(data))
    if not hasattr(data, "columns") or not hasattr(data, "to_dict"):
        raise InputError(
            f"A {type(data).__name__} is no table", hint="Give a DataFrame, a list of dicts, or a CSV or Parquet file."
        )
    if not len(data.columns) or not len(data):  # type: ignore[arg-type]
        raise InputError("The data has no rows", hint="Give some rows the model was trained on.")
    names = [str(name) for name in data.columns]
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"The data has two columns named {twice[0]!r}", hint="Remove or rename one of them.")
    return dict(zip(names, (data[name].tolist() for name in data.columns), strict=True))  # type: ignore[index]


def _read_frame(path: Path) -> Any:
    pandas = extras.load("pandas")
    read_bytes(path)
    try:
        if path.suffix.lower() in {".parquet", ".pq"}:
            extras.load("pyarrow")
            return pandas.read_parquet(path)
        return pandas.read_csv(path)
    except (ValueError, UnicodeDecodeError, OSError) as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{path} cannot be read as a table: {reason}", hint="Give a CSV or Parquet file.") from None
