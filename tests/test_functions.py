"""A service as AWS Lambda calls it: by events, and by Amazon's own runtime client against a fake of its Runtime API."""

import base64
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from ketch.errors import NotReady, SettingError
from ketch.image import entrypoint, invoke
from ketch.image.proof import event_of
from ketch.serve import Response, functions
from ketch.serve.guard import Guard
from ketch.serve.routes import Service
from tests.doors import KEY, Small, rows

ROW = rows(1, seed=3)[0]


@pytest.fixture(scope="module")
def service(small: Small) -> Service:
    return Service(small.predictor, Guard([KEY]))


def event(path: str = "/predict", row: Any = ROW, **headers: str) -> dict[str, Any]:
    made = event_of(path, row)
    return {**made, "headers": {**made["headers"], "X-API-Key": KEY, **headers}}


def test_a_row_is_answered(service: Service, small: Small) -> None:
    found = functions.answered(service, event())
    assert found["statusCode"] == 200
    assert found["isBase64Encoded"] is False
    assert json.loads(found["body"]) == pytest.approx(small.predictor.predict(ROW))
    assert found["headers"]["content-type"] == "application/json"
    assert found["headers"]["ketch-model"].startswith("churn")
    json.dumps(found)  # Lambda takes nothing else


def test_a_body_may_come_as_base64(service: Service) -> None:
    text = base64.b64encode(json.dumps(ROW).encode()).decode()
    assert functions.answered(service, event() | {"body": text, "isBase64Encoded": True})["statusCode"] == 200


@pytest.mark.parametrize(
    ("asked", "status", "code"),
    [
        (event("/nowhere", None), 404, "no-such-route"),
        (event(row={**ROW, "charges": "many"}), 422, "rows-refused"),
        (event(**{"X-API-Key": "wrong"}), 401, "unauthorized"),
        (event() | {"body": "{"}, 400, "undecodable-body"),
        (event() | {"body": "!", "isBase64Encoded": True}, 400, "undecodable-body"),
        ({}, 401, "unauthorized"),
    ],
)
def test_what_is_wrong_is_told_as_a_problem(asked: dict[str, Any], status: int, code: str, service: Service) -> None:
    found = functions.answered(service, asked)
    assert found["statusCode"] == status, found
    assert found["headers"]["content-type"] == "application/problem+json"
    assert json.loads(found["body"])["code"] == code


def test_pages_and_pictures_come_as_they_are(service: Service) -> None:
    page = functions.answered(service, event("/", None, accept="text/html"))
    assert page["isBase64Encoded"] is False
    assert "<html" in page["body"]
    bytes_of = functions.result_of(Response(200, b"\x89PNG\xff", "image/png", {"Set-Cookie": "a=1", "X-More": "2"}))
    assert base64.b64decode(bytes_of["body"]) == b"\x89PNG\xff"
    assert bytes_of["isBase64Encoded"] is True
    assert bytes_of["cookies"] == ["a=1"]
    assert bytes_of["headers"] == {"content-type": "image/png", "x-more": "2"}


def test_an_event_becomes_the_request_that_was_sent() -> None:
    told = event("/models/a%20b", None, Host="api.example", **{"X-Forwarded-Proto": "https"})
    told |= {"cookies": ["a=1", "b=2"], "rawQueryString": "lang=pt"}
    found = functions.request_of(told, b"")
    assert (found.method, found.path, found.query) == ("GET", "/models/a b", "lang=pt")
    assert found.headers["cookie"] == "a=1; b=2"
    assert found.base_url == "https://api.example"
    context = {"http": {"method": "GET"}, "stage": "prod"}
    assert functions.request_of(told | {"rawPath": "/prod/health/live", "requestContext": context}, b"").path == (
        "/health/live"
    )


def test_nothing_answers_before_a_model_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(functions, "SERVICES", [])
    with pytest.raises(NotReady):
        functions.handler(event(), None)


def test_somebody_must_say_who_may_call(small: Small) -> None:
    with pytest.raises(SettingError):
        functions.prepare(str(small.bundle), {"KETCH_HOME": str(small.home)})


def test_amazons_own_client_hands_events_over_and_takes_the_answers(small: Small, tmp_path: Path) -> None:
    pytest.importorskip("awslambdaric", reason="awslambdaric is not installed; it comes with the extra lambda")
    events = [json.dumps(event()), json.dumps(event("/nowhere", None)), json.dumps({"no": "request"})]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "environ", {**os.environ, "KETCH_HOME": str(small.home), "KETCH_API_KEYS": KEY})
        found = invoke.invoke([sys.executable, entrypoint.__file__, "lambda", str(small.bundle)], events)
    answers = [each["answer"] for each in found]
    assert [each["statusCode"] for each in answers] == [200, 404, 401]
    assert json.loads(answers[0]["body"]) == pytest.approx(small.predictor.predict(ROW))


def test_a_function_that_cannot_begin_gives_no_answer(small: Small) -> None:
    pytest.importorskip("awslambdaric", reason="awslambdaric is not installed; it comes with the extra lambda")
    assert invoke.invoke([sys.executable, "-c", "raise SystemExit(1)"], [json.dumps(event())]) == []
