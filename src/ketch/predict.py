"""The engine: decode, run, encode; one Predictor answers for every door.

body --*decode*--> Rows --*ask*--> Raw --*answer*--> Results --*encode*--> body
"""

import importlib
import math
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from ketch import bundle, code, codec, settings, trust
from ketch.adapters import KNOWN, Adapter, Raw, Runner, adapter_for
from ketch.bundle import Bundle, Golden
from ketch.codec import JSON, RowReader, Table
from ketch.errors import AnswersDiffer, BundleError, CorruptBundle, InputError, KetchWarning, NotAnswerable, RowsRefused
from ketch.pack import Options, compose, first_object, read_bytes, read_files, read_table
from ketch.program import evaluator
from ketch.schema import Answer, Columns, Contract, Fault, Scalar, is_missing, plain
from ketch.schema.checks import Checker
from ketch.store import Store

SUFFIXES: Final = frozenset({bundle.SUFFIX, ".bin", ".joblib", ".onnx", ".pickle", ".pkl", ".sav", ".skops"})
MOST_FAULTS: Final = 100  # listed in one refusal; a body of 10,000 bad rows must not make an answer of 10 MB


class Rows(msgspec.Struct):
    """Checked rows as columns, with what was flagged on the way."""

    columns: Columns
    n: int
    single: bool = False
    flags: list[Fault] = []


class Results(msgspec.Struct):
    """Answers as columns, in the words of the wire."""

    columns: Columns
    n: int
    single: bool = False


@dataclass(frozen=True)
class Limits:
    """How much one request may ask and what is refused."""

    max_rows: int = 10_000
    strict: bool = False
    lenient: bool = False


@dataclass(frozen=True)
class Unit:
    """What is approved at once: one file, or the files of a model with code of its maker's own."""

    name: str
    parts: Sequence[code.Part]
    files: Mapping[str, bytes]
    also: frozenset[str] = frozenset()

    @property
    def identities(self) -> frozenset[str]:
        """Give every SHA-256 that names it whole: its own, its bundle's, and its file's where there is only one."""
        held = {trust.digest(data) for data in [*(data for _, _, data in self.parts), *self.files.values()]}
        alone = held if len(held) == 1 else set()  # one file's says nothing of the code that comes with it
        return self.also | {code.unit(self.parts, self.files)} | alone


class Predictor:
    """A bundle, ready to answer."""

    def __init__(self, opened: Bundle, runner: Runner, *, limits: Limits = Limits(), reference: str = "") -> None:
        self.bundle = opened
        self.contract: Contract = opened.contract
        self.limits = limits
        self.name = opened.manifest.name
        self.reference = reference or self.name
        self._runner = runner
        self.checker = Checker(opened.contract.fields, strict=limits.strict, lenient=limits.lenient)
        self._shape = _shaper(opened.contract.answer)
        self.pace = 0.0  # seconds that one row takes, once measured
        self.alone = hasattr(runner, "alone")  # asking it for many rows at once saves nothing
        # an original may tell 5 from 5.0, a program does not
        self.reader = RowReader.of(opened.contract.fields, limits.max_rows) if hasattr(runner, "row") else None

    @property
    def answers(self) -> list[str]:
        """Name what an answer holds."""
        return list(self._shape(_raw(_first(self.bundle.golden, 1))))

    def decode(self, body: bytes, content_type: str = JSON) -> Rows:
        """Read and check a body.

        Raises:
            RequestError: one of its kinds, with the rows and fields at fault.
        """
        if self.reader is not None and content_type == JSON:
            if body[:1] == b"[":
                if many := self.reader.rows(body):
                    return self.rows_of(many)
            elif (values := self.reader.row(body)) is not None:
                return self.rows_of([values], single=True)
        return self.check(codec.decode(body, content_type, self.contract.fields, max_rows=self.limits.max_rows))

    def check(self, table: Table) -> Rows:
        """Check decoded rows.

        Raises:
            RowsRefused: a row breaks the contract.
        """
        checked = self.checker(table.columns, table.n)
        if checked.faults:
            raise refusal(checked.faults, table)
        return Rows(checked.columns, table.n, table.single, checked.flags)

    def sift(self, table: Table) -> tuple[Rows, dict[int, list[Fault]]]:
        """Check decoded rows and take out those at fault: what is left, and the faults by row number."""
        checked = self.checker(table.columns, table.n)
        bad: dict[int, list[Fault]] = {}
        for fault in checked.faults:
            bad.setdefault(fault.row, []).append(fault)
        if not bad:
            return Rows(checked.columns, table.n, table.single, checked.flags), bad
        keep = [row for row in range(table.n) if row not in bad]
        columns = {name: [values[row] for row in keep] for name, values in checked.columns.items()}
        return Rows(columns, len(keep), False, [flag for flag in checked.flags if flag.row not in bad]), bad

    def ask(self, rows: Rows) -> Raw:
        """Ask the model.

        Raises:
            NotAnswerable: the model fails on rows that keep the contract.
        """
        try:
            raw = self._runner(rows.columns, rows.n)
            if raw.classes is not None:
                _require_classes(raw.classes, self.contract.answer.classes)
            return raw
        except Exception as error:
            raise _not_answerable(error) from error

    def answer(self, raw: Raw, *, single: bool) -> Results:
        """Put the model's answers into the words of the wire.

        Raises:
            NotAnswerable: an answer is not a finite number.
        """
        columns = self._shape(raw)
        return Results(columns, len(raw.labels), single)

    def run(self, rows: Rows) -> Results:
        """Answer checked rows."""
        return self.answer(self.ask(rows), single=rows.single)

    def encode(self, results: Results, accept: str = JSON) -> bytes:
        """Write results as JSON or CSV."""
        return codec.encode(results.columns, results.n, single=results.single, accept=accept)

    def __call__(self, body: bytes, content_type: str = JSON, accept: str = "") -> bytes:
        """Answer a body with a body."""
        if self.reader is not None and content_type == JSON and not accept:
            values = self.reader.row(body)
            if values is not None:
                return self.encode(self.answer_row(values))
        return self.encode(self.run(self.decode(body, content_type)), codec.accepted(accept, content_type))

    def rows_of(self, read: Sequence[codec.Row], *, single: bool = False) -> Rows:
        """Put rows that the reader has read, and so checked, into columns."""
        columns: Columns = {
            each.name: list(values) for each, values in zip(self.contract.fields, zip(*read, strict=True), strict=True)
        }
        return Rows(columns, len(read), single)

    def answer_row(self, values: Sequence[object]) -> Results:
        """Answer one row that the reader has read, by the shortest way.

        Raises:
            NotAnswerable: the model fails on it, or its answer is not a finite number.
        """
        runner: Any = self._runner
        try:
            raw = runner.row(values)
        except Exception as error:
            raise _not_answerable(error) from error
        return Results(self._shape(raw), 1, single=True)

    def predict(self, rows: Any) -> Any:
        """Answer a dict with a dict, a list with a list, a DataFrame with a DataFrame on the same index.

        Raises:
            RequestError: as the service would answer.
            InputError: these are no rows.
        """
        if hasattr(rows, "to_dict") and hasattr(rows, "index"):
            return self._predict_frame(rows)
        single = isinstance(rows, Mapping)
        listed = [{name: _none(value) for name, value in row.items()} for row in ([rows] if single else _rows(rows))]
        if not listed:
            return []
        results = self.run(self.check(Table(codec.columns_of(listed), len(listed), single)))
        answers = [dict(zip(results.columns, row, strict=True)) for row in zip(*results.columns.values(), strict=True)]
        return answers[0] if single else answers

    def _predict_frame(self, frame: Any) -> Any:
        if not len(frame):
            typical = self._shape(_raw(_first(self.bundle.golden, 1)))
            return type(frame)(columns=list(codec.flatten(typical)), index=frame.index)
        columns = read_table(frame) or {}
        table = Table({name: [_none(value) for value in values] for name, values in columns.items()}, len(frame))
        results = self.run(self.check(table))
        return type(frame)(codec.flatten(results.columns), index=frame.index)

    def replay(self, rows: int | None = None) -> float:
        """Ask the golden rows (or the first few) again and give the worst difference to the answers they must have.

        Raises:
            AnswersDiffer: a label differs, or a number by more than the bundle's tolerance.
        """
        golden = _first(self.bundle.golden, rows)
        columns = {each.name: [row.get(each.name) for row in golden.rows] for each in self.contract.fields}
        try:
            raw = self._runner(columns, len(golden.rows))
        except Exception as error:  # whatever a library raises that is not the one it was made with
            raise self._differs(f"it fails with {type(error).__name__}") from error
        answer = self.contract.answer
        continuous = all(part.task == "regression" for part in answer.parts or (answer,))
        worst = max(
            _distance(raw.probabilities, golden.probabilities),
            _distance(raw.scores, golden.scores),
            _distance(raw.labels, golden.labels) if continuous else 0.0,
        )
        tolerance = self.bundle.manifest.tolerance
        if not worst <= tolerance or not (continuous or self._same_labels(raw, _raw(golden))):
            raise self._differs(f"worst difference {worst:.2g}")
        return worst

    def _same_labels(self, raw: Raw, golden: Raw) -> bool:
        tolerance, parts = self.bundle.manifest.tolerance, self.contract.answer.parts
        if parts:
            return all(_same_labels(raw.part(at), golden.part(at), tolerance) for at in range(len(parts)))
        return _same_labels(raw, golden, tolerance)

    def _differs(self, reason: str) -> AnswersDiffer:
        return AnswersDiffer(
            f"{self.name} does not give its golden answers here ({reason})",
            hint=f"Serve it where {_made_with(self.bundle)} is installed, or pack the model again here.",
        )


def _rows(given: Any) -> list[Mapping[str, Any]]:
    found = list(given) if isinstance(given, Iterable) else [given]
    for each in found:
        if not isinstance(each, Mapping):
            raise InputError(
                f"A row cannot be of type {type(each).__name__}",
                hint="Give a dict from fields to values, a list of them, or a DataFrame.",
            )
    return found


def _not_answerable(error: Exception) -> NotAnswerable:
    return NotAnswerable(
        f"The model gives no answer to this: {type(error).__name__}",
        hint="Compare the values with GET /schema; one is outside what the model was made for.",
    )


def _require_classes(found: Sequence[object], known: Sequence[object]) -> None:
    if tuple(found) != tuple(known):
        raise ValueError(f"it answers for the classes {list(found)}, not {list(known)}")


def _raw(golden: Golden) -> Raw:
    scores: Any = golden.scores
    return Raw(golden.labels, golden.probabilities, scores)


def _first(golden: Golden, rows: int | None) -> Golden:
    def cut(values: Any) -> Any:
        return None if values is None else values[:rows]

    return Golden(golden.rows[:rows], golden.labels[:rows], cut(golden.probabilities), cut(golden.scores))


def _same_labels(raw: Raw, golden: Raw, tolerance: float) -> bool:
    """Compare labels, but for rows whose two best classes stand closer together than the tolerance."""
    for row, (label, wanted) in enumerate(zip(raw.labels, golden.labels, strict=True)):
        if label != wanted:
            best = sorted(golden.probabilities[row] if golden.probabilities else (), reverse=True)
            if len(best) < 2 or best[0] - best[1] > tolerance:
                return False
    return True


def _made_with(opened: Bundle) -> str:
    found = opened.manifest.versions
    return f"scikit-learn {found['scikit-learn']}" if "scikit-learn" in found else "what it was packed with"


def _none(value: object) -> object:
    return None if is_missing(value) else plain(value)


def _distance(one: object, other: object) -> float:
    """Give the largest relative difference between two nests of numbers; infinite where their shapes differ."""
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return max((_distance(a, b) for a, b in zip(one, other, strict=True)), default=0.0)
    if isinstance(one, int | float) and isinstance(other, int | float):
        found = abs(one - other) / max(1.0, abs(other))
        return found if math.isfinite(found) else math.inf  # `max` would lose a NaN
    return 0.0 if one is None and other is None else math.inf


def refusal(faults: Sequence[Fault], table: Table) -> RowsRefused:
    """Make one refusal of all faults; its message names the first."""
    first = faults[0]
    where = "" if table.single else f" of row {first.row}"
    what = {
        "missing": f"{first.field}{where} is missing",
        "unknown-field": f"{first.field[:80]}{where} is not a field of this model",
        "unknown-category": f"{first.field}{where} has a value the model never saw",
        "wrong-type": f"{first.field}{where} must be {first.expected}",
        "not-finite": f"{first.field}{where} must be a finite number",
        "out-of-range": f"{first.field}{where} is outside its range, {first.expected}",
    }[first.code]
    # a misspelt name and the field that it leaves missing are one mistake
    rest = len({(fault.row, fault.nearest if fault.code == "unknown-field" else fault.field) for fault in faults}) - 1
    more = f", and {rest} more" if rest else ""
    hint = f"Did you mean {first.nearest!r}?" if first.nearest is not None else _remedy(first)
    return RowsRefused(what + more, hint=hint, errors=[fault.record() for fault in faults[:MOST_FAULTS]])


def _remedy(fault: Fault) -> str:
    if fault.code == "unknown-category":
        shown = ", ".join(str(value) for value in fault.allowed[:8])
        return f"Allowed: {shown}{', …' if len(fault.allowed) > 8 else ''}. All of them stand at GET /schema."
    if fault.code == "unknown-field":
        return "Leave it out; the fields stand at GET /schema."
    return f"Send {fault.expected}; GET /schema shows every field."


# ---- answers in the words of the wire ----------------------------------------------------------------


def _shaper(answer: Answer) -> Any:
    if answer.task == "several":
        return _several(answer)
    shapers = {"binary": _binary, "multiclass": _multiclass, "regression": _number, "outlier": _outlier}
    return shapers.get(answer.task, _cluster)(answer)


def _binary(answer: Answer) -> Any:
    name, place, at = answer.target, answer.classes.index(answer.positive), answer.threshold
    said = _as_boolean(answer.classes)
    other = answer.classes[1 - place]
    probability = f"{name}_probability"

    def shape(raw: Raw) -> Columns:
        if raw.probabilities is None:
            labels = [said(label) for label in raw.labels]
            if raw.scores is None:
                return {name: labels}
            sign = 1 if place == 1 else -1
            return {name: labels, f"{name}_score": _finite([sign * score for score in raw.scores])}
        likely = [row[place] for row in raw.probabilities]
        labels = raw.labels if at is None else [answer.positive if value >= at else other for value in likely]
        return {name: [*map(said, labels)], probability: _finite(likely)}

    return shape


def _as_boolean(classes: tuple[Scalar, ...]) -> Any:
    """A 0/1 or boolean class is a JSON boolean, otherwise the class itself."""
    return bool if set(classes) == {0, 1} else (lambda label: label)


def _multiclass(answer: Answer) -> Any:
    name, keys = answer.target, [str(each) for each in answer.classes]

    def shape(raw: Raw) -> Columns:
        found = raw.probabilities if raw.probabilities is not None else raw.scores
        if found is None or not isinstance(found[0] if found else [], list):
            return {name: raw.labels}
        kind = "probabilities" if raw.probabilities is not None else "scores"
        groups: list[object] = [
            dict(zip(keys, _finite(values, row), strict=True))  # type: ignore[arg-type]
            for row, values in enumerate(found)
        ]
        return {name: raw.labels, f"{name}_{kind}": groups}

    return shape


def _several(answer: Answer) -> Any:
    shapes = [_shaper(part) for part in answer.parts]

    def shape(raw: Raw) -> Columns:
        columns: Columns = {}
        for place, each in enumerate(shapes):
            columns |= each(raw.part(place))
        return columns

    return shape


def _number(answer: Answer) -> Any:
    return lambda raw: {answer.target: _finite([float(label) for label in raw.labels])}


def _outlier(answer: Answer) -> Any:
    def shape(raw: Raw) -> Columns:
        columns: Columns = {"outlier": [label == -1 for label in raw.labels]}
        if raw.scores is not None:  # scikit-learn counts down towards outliers; a score people read counts up
            columns["outlier_score"] = _finite([-score for score in raw.scores])
        return columns

    return shape


def _cluster(answer: Answer) -> Any:
    return lambda raw: {"cluster": raw.labels}


def _finite(values: Sequence[float], of_row: int | None = None) -> list[object]:
    """Give the values back; each is a row's own, unless all are one row's."""
    if not all(map(math.isfinite, values)):
        first = next(place for place, value in enumerate(values) if not math.isfinite(value))
        row = first if of_row is None else of_row
        raise NotAnswerable(
            f"The model's answer to row {row} is not a finite number",
            hint="Compare the values with GET /schema; one is far outside what the model was made for.",
            errors=[{"row": row, "code": "not-answerable"}],
        )
    return list(values)


# ---- loading -----------------------------------------------------------------------------------------


def load(
    model: str | Path,
    *,
    home: Path | None = None,
    limits: Limits = Limits(),
    require_signature: bool | None = None,
    replay: bool = True,
    sha256: str = "",
) -> Predictor:
    """Open a MODEL: an existing path (bundle or model file), else a store reference such as churn@champion.

    `require_signature` refuses what no trusted key has signed; by default the user's own setting decides. Without
    `replay`, an original is not asked its golden rows yet: a library that starts threads for them must not be forked.
    Where `sha256` says what the bundle must be, nothing else is opened.

    Raises:
        BundleError, TrustError, StoreError, ModelError: it cannot be opened here.
    """
    home = home or settings.home(os.environ)
    required = settings.requires_signature(os.environ) if require_signature is None else require_signature
    data, name, reference = fetch(str(model), home)
    if sha256 and bundle.looks_like_bundle(data) and trust.digest(data) != sha256:
        raise BundleError(f"{name} is another bundle by now", hint="Ask for what stands there now.")
    signer = signer_of(str(model), (data, name, reference), home=home, required=required)
    if not bundle.looks_like_bundle(data):
        packed = compose(str(model), None, Options(), home=home)
        for note in packed.notes:
            warnings.warn(note, KetchWarning, stacklevel=2)
        data, name = packed.data, packed.name
    opened = msgspec.structs.replace(bundle.read(data, name), signed_by=signer)
    return open_bundle(opened, home=home, limits=limits, reference=reference, replay=replay)


def signer_of(model: str, fetched: tuple[bytes, str, str], *, home: Path, required: bool = False) -> str:
    """Give the trusted key that signed what was fetched for MODEL; empty for no signature, where none is required.

    Raises:
        BadSignature: it is missing, or wrong.
    """
    data, name, reference = fetched
    # any other file is packed when it is served: what serves is none that somebody could have signed
    signable = bundle.looks_like_bundle(data) or Path(model).suffix == bundle.SUFFIX
    signature = signature_of(model, reference, home) if signable else None
    known = trust.keys(home) if signature is not None else {}
    return trust.check_signature(data, signature, known=known, name=name, required=required)


def signature_of(model: str, reference: str, home: Path) -> bytes | None:
    """Read the signature that lies beside a bundle, or in the store with it; None where there is none.

    Raises:
        BadSignature, StoreError: it cannot be read.
    """
    return Store(home / "store").signature(reference) if reference else trust.signature_beside(Path(model))


def fetch(model: str, home: Path) -> tuple[bytes, str, str]:
    """Read what MODEL names: its bytes, what messages call it, and its reference where it comes from the store."""
    path = Path(model)
    if (path / "MLmodel").is_file():
        return read_files([path])[0][0].data, path.name, ""
    if path.is_file() or path.name != model or path.suffix in SUFFIXES:
        return read_bytes(path), path.name, ""
    found = Store(home / "store").resolve(model)
    return Store(home / "store").pull(found.ref), found.ref, found.ref


def fetch_bundle(model: str, *, home: Path, fetched: tuple[bytes, str, str] | None = None) -> Bundle:
    """Open the bundle that MODEL names, or what was fetched for it; nothing in it is constructed.

    Raises:
        BundleError, StoreError, InputError: there is none, or it is damaged.
    """
    data, name, _ = fetched or fetch(model, home)
    if not bundle.looks_like_bundle(data):
        raise InputError(f"{name} is not a bundle", hint=f"Make one from it with: ketch pack {model}")
    return bundle.read(data, name)


def opened_units(models: Sequence[str], *, home: Path) -> list[Unit]:
    """List what opening these MODELs would construct, each with the identities that approve it.

    Files that need code of a user's own are one unit, with that code: none of them is trusted with other code.
    """
    files = [Path(model) for model in models if Path(model).is_file()]
    if len(files) == len(models) and not any(bundle.looks_like_bundle(read_bytes(path)) for path in files):
        sources, carried = read_files(files)
        parts = [(each.name, each.format, each.data) for each in sources]
        if code.runs(parts, carried.files):
            return [Unit(" and ".join(path.name for path in files), parts, carried.files)]
    return [unit for model in models for unit in _units(model, home=home)]


def _units(model: str, *, home: Path) -> list[Unit]:
    """List what opening one MODEL would construct; a bundle whose compiled form serves constructs nothing."""
    data, name, _ = fetch(model, home)
    if not bundle.looks_like_bundle(data):
        return [Unit(name, [(name, "", data)], {}, frozenset({trust.digest(data)}))]
    opened = bundle.read(data, name)
    if opened.manifest.serves == "compiled":
        return []
    if code.runs(opened.originals, opened.code):
        return [Unit(name, opened.originals, opened.code, frozenset({opened.sha256}))]
    return [
        Unit(each, [(each, "", part)], {}, frozenset({trust.digest(part), opened.sha256}))
        for each, _, part in opened.originals
    ]


def open_bundle(
    opened: Bundle, *, home: Path, limits: Limits = Limits(), reference: str = "", replay: bool = True
) -> Predictor:
    """Make a bundle's model ready: its program, else the original through the gate; and replay its golden predictions.

    Raises:
        TrustError, CorruptBundle, AnswersDiffer: it must not, or cannot, serve here.
    """
    compiled = opened.manifest.serves == "compiled"
    contract = opened.contract
    runner = evaluator(opened.files, contract.answer, contract.fields) if compiled else open_runner(opened, home=home)
    predictor = Predictor(opened, runner, limits=limits, reference=reference)
    if replay or compiled:
        predictor.replay()
    return predictor


def open_runner(opened: Bundle, *, home: Path) -> Runner:
    """Construct the original model of an opened bundle, through the gate.

    Raises:
        TrustError, ModelError, CorruptBundle: it must not, or cannot, be opened here.
    """
    parts = open_parts(opened, home=home)
    adapter = _adapter(opened.manifest.adapter, parts)
    return adapter.runner(adapter.join(parts), opened.contract.fields)


def open_parts(opened: Bundle, *, home: Path) -> list[object]:
    """Open the objects that the original model consists of, through the gate.

    Raises:
        TrustError, ModelError: they must not, or cannot, be opened here.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # `inspect` compares versions; golden predictions decide
        return code.open_parts(
            opened.originals,
            opened.code,
            home=home,
            name=opened.manifest.name,
            python=opened.manifest.versions.get("python", ""),
            signed=bool(opened.signed_by),
        )


def _adapter(name: str, parts: Sequence[object]) -> Adapter:
    if not parts:
        raise CorruptBundle("The bundle holds no model", hint="Pack the model again.")
    if name not in KNOWN:
        return adapter_for(first_object(parts))
    found: Adapter = importlib.import_module(KNOWN[name])
    return found
