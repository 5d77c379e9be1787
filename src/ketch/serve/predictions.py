"""POST /predict: rows in, answers out, each in the form that was sent or asked for."""

import time
from typing import Final

from ketch.errors import RowsRefused
from ketch.serve import Call, Response, Route
from ketch.serve.routes import Service, negotiated


def predict(service: Service, call: Call) -> Response:
    """Answer a question."""
    began = time.perf_counter()
    content_type, accept = negotiated(call.request.headers)
    try:
        rows = call.predictor.decode(call.request.body, content_type)
    except RowsRefused as refused:
        service.count_faults(call.predictor, "refused", refused.errors)
        raise
    results = service.ask(call, rows, began)
    return Response(200, call.predictor.encode(results, accept), accept)


ROUTES: Final = (Route("/predict", "POST", "Answer one row or many", "predict", predict, of_model=True),)
