"""A model that a running service answers for: its contract comes from there, and so does every answer.

URL --*opened*--> Predictor
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from ketch.adapters import Raw, beside
from ketch.bundle import FORMAT, Bundle, Golden, Manifest
from ketch.client import Client
from ketch.errors import ServiceError
from ketch.page.widgets import Form
from ketch.predict import Limits, Predictor
from ketch.schema import Answer, Columns, Contract, Field

UNLIMITED: Final = Limits()


class Asking:
    """Ask the service for rows that keep the contract."""

    def __init__(self, client: Client, answer: Answer) -> None:
        self._client, self._answer = client, answer

    def __call__(self, columns: Columns, n: int) -> Raw:
        """Answer `n` rows."""
        rows = [{name: values[row] for name, values in columns.items() if values[row] is not None} for row in range(n)]
        return raw_of(self._answer, self._client.predict(rows))


def opened(client: Client, limits: Limits = UNLIMITED) -> tuple[Predictor, Form]:
    """Make a predictor that asks the service, and the form that the service describes.

    Raises:
        RequestError, ServiceError: it does not let this caller in, or is no service of Ketch.
    """
    told = client.form()
    try:
        fields = msgspec.convert(told["fields"], tuple[Field, ...])
        answer = _answer(told["answer"])
        form = msgspec.convert({"widgets": told["widgets"], "examples": told["examples"]}, Form)
        name, sha256 = str(told["name"]), str(told["sha256"])
    except (KeyError, msgspec.ValidationError) as error:
        raise ServiceError(
            f"{client.url} describes its model in a way that is not known here: {error}",
            hint="Use the version of Ketch that the service runs.",
        ) from None
    manifest = Manifest(
        format=FORMAT, name=name, answer=answer, adapter="service", serves="service", tolerance=1e-6,
        originals=(), origin={}, versions={}, members={},
    )  # fmt: skip
    golden = Golden([dict(each) for each in (form.start, *form.examples)], [])
    bundle = Bundle(manifest, Contract(fields, answer), golden, {}, {}, sha256)
    return Predictor(bundle, Asking(client, answer), limits=limits), form


def _answer(told: Mapping[str, Any]) -> Answer:
    parts = tuple(_answer(each) for each in told.get("parts") or ())
    return msgspec.structs.replace(msgspec.convert({**told, "parts": ()}, Answer), parts=parts)


def raw_of(answer: Answer, found: Sequence[Mapping[str, Any]]) -> Raw:
    """Read answers as they came over the wire back into what a model gives."""
    if answer.task == "several":
        return beside([raw_of(part, found) for part in answer.parts])
    name = answer.target
    if answer.task == "regression":
        return Raw([each[name] for each in found])
    if answer.task == "outlier":
        scored = bool(found) and "outlier_score" in found[0]
        scores: Any = [-each["outlier_score"] for each in found] if scored else None
        return Raw([-1 if each["outlier"] else 1 for each in found], scores=scores)
    if answer.task == "cluster":
        return Raw([each["cluster"] for each in found])
    return _of_classes(answer, found)


def _of_classes(answer: Answer, found: Sequence[Mapping[str, Any]]) -> Raw:
    name, first = answer.target, found[0] if found else {}
    labels = [_class(answer, each[name]) for each in found]
    if f"{name}_probabilities" in first or f"{name}_scores" in first:
        kind = "probabilities" if f"{name}_probabilities" in first else "scores"
        rows = [[each[f"{name}_{kind}"][str(key)] for key in answer.classes] for each in found]
        return Raw(labels, rows) if kind == "probabilities" else Raw(labels, scores=rows)  # type: ignore[arg-type]
    place = answer.classes.index(answer.positive) if answer.positive in answer.classes else 1
    if f"{name}_probability" in first:
        likely = [each[f"{name}_probability"] for each in found]
        return Raw(labels, [[1.0 - p, p] if place == 1 else [p, 1.0 - p] for p in likely])
    if f"{name}_score" in first:
        sign = 1 if place == 1 else -1
        return Raw(labels, scores=[sign * each[f"{name}_score"] for each in found])
    return Raw(labels)


def _class(answer: Answer, said: Any) -> Any:
    """Find the class that is said: true and false stand for 1 and 0."""
    return next((each for each in answer.classes if each == said), said)
