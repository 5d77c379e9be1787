"""POST /predict: rows in, answers out, each in the form that was sent or asked for; POST /explain: with reasons."""

import threading
import time
import weakref
from typing import Final
from urllib.parse import parse_qs

import msgspec

from ketch.errors import NotAcceptable
from ketch.explain import Explainer, answer_explained, explainer
from ketch.predict import Predictor, Rows
from ketch.serve import Call, Response, Route
from ketch.serve.routes import Service, negotiated

_explainers: "weakref.WeakKeyDictionary[Predictor, dict[str, Explainer]]" = weakref.WeakKeyDictionary()
_preparing: Final = threading.Lock()


def predict(service: Service, call: Call) -> Response:
    """Answer a question."""
    began = time.perf_counter()
    rows, accept = _read(call)
    results = service.ask(call, rows, began)
    return Response(200, call.predictor.encode(results, accept), accept)


def explain(service: Service, call: Call) -> Response:
    """Answer a question with what each field added to the answer, as JSON."""
    rows, accept = _read(call)
    if not accept.endswith("json"):
        raise NotAcceptable("Explanations are written as JSON", hint="Accept application/json.")
    asked = {name: values[-1] for name, values in parse_qs(call.request.query).items()}
    lang = asked.get("lang") or call.request.headers.get("accept-language", "en")[:35]
    with service.turn():
        found = _explainer(call.predictor, asked.get("target", ""))
        answers = answer_explained(found, rows, call.predictor.run(rows), lang)
    return Response(200, msgspec.json.encode(answers[0] if rows.single else answers))


def _read(call: Call) -> tuple[Rows, str]:
    content_type, accept = negotiated(call.request.headers)
    return call.predictor.decode(call.request.body, content_type), accept


def _explainer(predictor: Predictor, target: str) -> Explainer:
    """Prepare a version's explanations once."""
    with _preparing:
        known = _explainers.setdefault(predictor, {})
        if target not in known:
            known[target] = explainer(predictor, target=target)
        return known[target]


ROUTES: Final = (
    Route("/predict", "POST", "Answer one row or many", "predict", predict, of_model=True),
    Route("/explain", "POST", "Answer with what each field added", "explain", explain, of_model=True),
)
