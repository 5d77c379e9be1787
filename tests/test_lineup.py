"""Who answers: several models in one server, folders and the store, split and shadow."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

from ketch.errors import NoSuchModel, SettingError
from ketch.pack import Options, compose
from ketch.predict import Predictor, load
from ketch.serve.lineup import Line, Lineup, version_of
from ketch.serve.models import Entry, entries_of, lineup_of
from ketch.settings import Settings, read
from tests.running import ketch, serving


def constant(name: str, value: float, home: Path) -> Path:
    """Pack a model that answers one number whatever it is asked."""
    from sklearn.dummy import DummyRegressor

    columns: dict[str, list[object]] = {"x": [1.0, 2.0, 3.0]}
    model = DummyRegressor(strategy="constant", constant=value).fit([[1.0], [2.0], [3.0]], [1.0, 2.0, 3.0])
    made = compose(model, columns, Options(name=name, target="y"), home=home)
    path = home / f"{name}-{value:g}.ketch"
    path.write_bytes(made.data)
    return path


class Shop:
    """Two models, and two versions of one of them in the store."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.one, self.two = constant("churn", 1, home), constant("churn", 2, home)
        self.price = constant("price", 7, home)
        for path, name in ((self.one, "churn"), (self.two, "churn"), (self.price, "price")):
            assert ketch("push", path, "--name", name, home=home).returncode == 0
        assert ketch("promote", "churn:1", home=home).returncode == 0
        assert ketch("promote", "churn:2", "--alias", "challenger", home=home).returncode == 0

        self.first, self.second = self.open(self.one), self.open(self.two)

    def settings(self, **flags: Any) -> Settings:
        return read({"home": self.home, **flags}, environ={}, folder=self.home)

    def open(self, path: Path) -> Predictor:
        return load(path, home=self.home)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return Shop(tmp_path_factory.mktemp("shop"))


def ask(url: str, path: str = "/predict", **headers: str) -> tuple[float, str]:
    answered = requests.post(url + path, json={"x": 1.5}, headers=headers)
    assert answered.status_code == 200, answered.text
    return answered.json()["y"], answered.headers["ketch-model"].partition(";")[0]


@pytest.mark.service
def test_each_model_stands_below_its_name_and_one_at_the_root(shop: Shop) -> None:
    with serving(shop.price, shop.one, home=shop.home) as url:
        assert ask(url)[0] == ask(url, "/models/price/predict")[0] == 7
        assert ask(url, "/models/churn/predict")[0] == 1
        assert requests.get(url + "/models/churn/schema").json()["title"] == "churn"
        assert requests.get(url + "/v2/models/churn").json()["name"] == "churn"
        for path in ("/models/other/predict", "/models//predict", "/models/churn/nothing", "/models/churn/health/live"):
            assert requests.post(url + path, json={"x": 1.5}).status_code == 404, path
    with serving(shop.price, shop.one, "--default", "churn", home=shop.home) as url:
        assert ask(url)[0] == 1


@pytest.mark.service
def test_a_folder_and_the_store_are_served_whole(shop: Shop, tmp_path: Path) -> None:
    for path in (shop.one, shop.price):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    with serving(tmp_path, home=shop.home) as url:
        assert (ask(url)[0], ask(url, "/models/price/predict")[0]) == (1, 7)
    with serving(shop.home / "store", home=shop.home) as url:
        assert ask(url, "/models/price/predict") == (7, "price:1")
        assert ask(url, "/models/churn/predict") == (1, "churn:1")


@pytest.mark.service
def test_a_split_is_sticky_and_near_its_share(shop: Shop) -> None:
    with (
        serving("churn@champion", "--split", "churn@challenger=25", home=shop.home) as url,
        requests.Session() as asked,
    ):
        found = {}
        for key in range(400):
            answered = asked.post(url + "/predict", json={"x": 1.5}, headers={"ketch-key": str(key)})
            found[key] = answered.json()["y"]
            version = answered.headers["ketch-model"].partition(";")[0]
            assert version == {1: "churn:1", 2: "churn:2"}[found[key]]
        assert 60 <= Counter(found.values())[2] <= 145  # 100 expected, five sigma
        again = {key: ask(url, **{"ketch-key": str(key)})[0] for key in range(0, 400, 40)}
        assert again == {key: found[key] for key in again}


@pytest.mark.service
def test_a_shadow_is_asked_and_only_recorded(shop: Shop, tmp_path: Path) -> None:
    from ketch.log import read as read_log

    log = f"sqlite:///{tmp_path / 'log.db'}"
    words = ("churn@champion", "--shadow", "churn@challenger", "--workers", "1", "--log", log)
    with serving(*words, home=shop.home) as url:
        assert {ask(url)[0] for _ in range(5)} == {1}
        told = requests.get(url + "/metrics").text
    assert 'ketch_rows_total{model="churn",version="1"} 5.0' in told
    records = list(read_log(log))
    assert Counter((each.model, each.flags, each.answer["y"]) for each in records) == {
        ("churn:1", (), 1.0): 5,
        ("churn:2", ("shadow",), 2.0): 5,
    }
    assert len({each.request_id for each in records}) == 5


@pytest.mark.service
@settings(deadline=None)
@given(share=st.floats(0, 1), keys=st.lists(st.text(max_size=20), max_size=20), body=st.binary(max_size=20))
def test_a_key_decides_alone(shop: Shop, share: float, keys: list[str], body: bytes) -> None:
    line = Line("churn", {"champion": shop.first, "rival": shop.second}, share)
    for key in keys:
        headers = {"ketch-key": key}
        assert line.choose(headers, body) is line.choose(headers, body if not key else b"other")
    if share in {0.0, 1.0}:
        assert line.choose({}, body) is line.versions["rival" if share else "champion"]


def test_models_are_found_by_name_and_version(shop: Shop) -> None:
    one, price = shop.open(shop.one), shop.open(shop.price)
    lineup = Lineup({"churn": Line("churn", {"champion": one}), "price": Line("price", {"champion": price})})
    assert lineup.version("price") is price
    assert lineup.version("", version_of(one)) is lineup.version("churn", one.bundle.sha256) is one
    for name, version in (("other", ""), ("churn", "99"), ("price", version_of(one))):
        with pytest.raises(NoSuchModel) as refused:
            lineup.version(name, version)
        assert "There are: " in refused.value.hint


@pytest.mark.parametrize(
    ("flags", "models", "told"),
    [
        ({"split": "churn@challenger"}, ["churn"], "names no share"),
        ({"split": "churn@challenger=101"}, ["churn"], "names no share"),
        ({"split": "churn@challenger=x"}, ["churn"], "names no share"),
        ({"split": "price=10"}, ["churn"], "not served"),
        ({"shadow": "price"}, ["churn"], "not served"),
        ({}, ["churn:1", "churn:2"], "Two models go by the name churn"),
        ({"default": "other"}, ["churn"], "No model 'other'"),
    ],
)
def test_what_does_not_fit_is_said(shop: Shop, flags: dict[str, str], models: list[str], told: str) -> None:
    settings = shop.settings(**flags)
    with pytest.raises(SettingError, match=told):
        lineup_of({each: each.open(settings) for each in entries_of(models, settings)}, settings.default)


def test_what_stands_behind_a_name_is_seen(shop: Shop, tmp_path: Path) -> None:
    settings = shop.settings()
    before = Entry("churn@challenger").seen(settings)
    assert before is not None
    assert Entry("churn@champion").seen(settings) != before
    assert Entry("nothing@there").seen(settings) is None
    assert Entry(str(tmp_path / "nothing.ketch")).seen(settings) is None
