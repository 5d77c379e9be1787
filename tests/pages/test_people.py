"""`ketch ui`: the Streamlit page in a real browser, for models of every kind, in two languages, on a phone."""

import csv
import io
import random
import re
import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.pages.browser import DESK, PHONE, visiting
from tests.pages.conftest import Shelf, more_rows
from tests.pages.hostile import hostile
from tests.pages.provider import CLIENT, providing
from tests.pages.test_site import table_of
from tests.running import KETCH, serving, started

pytestmark = [pytest.mark.pages, pytest.mark.timeout(180)]
KEY = "a-key-of-twenty-characters-and-more"


@contextmanager
def shown(*words: str | Path, home: Path, before: Sequence[str] = (), **environ: str) -> Iterator[str]:
    """Run `ketch ui` on a free port and give its address."""
    port = [] if "KETCH_PORT" in environ else ["--port", "0"]
    environ = {"KETCH_HOME": str(home), **environ}
    with started([*before, *KETCH, "ui", *words, *port], environ, ends=(0, -signal.SIGTERM)) as url:
        yield url.replace("127.0.0.1", "localhost")


def answered(page: Page) -> None:
    """Wait until Streamlit has nothing left to do."""
    page.locator("[data-testid='stApp'][data-test-script-state='notRunning']").wait_for(timeout=30_000)
    expect(page.get_by_test_id("stSkeleton")).to_have_count(0)


def turn_to(page: Page, name: str) -> None:
    """Open another page, as a person does: by its name at the top."""
    page.get_by_role("link", name=name).click()
    answered(page)


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_a_person_asks_and_learns_why(chromium: Browser, shelf: Shelf, tmp_path: Path, size: dict[str, int]) -> None:
    with shown(shelf("binary").path, home=tmp_path) as url, visiting(chromium, url, size=size) as visit:
        page = visit.page
        expect(page.get_by_role("heading", name="churn: ")).to_be_visible()
        answered(page)
        expect(page.get_by_text("raises churn").or_(page.get_by_text("lowers churn")).first).to_be_visible()
        page.get_by_text("Example 1", exact=True).click()
        answered(page)
        page.get_by_role("button", name="What would turn the decision").click()
        expect(page.get_by_text("The smallest change found")).to_be_visible()
        visit.no_sideways_scroll()
        visit.accessible()
        visit.shoot(f"ui-ask-{size['width']}")


def test_its_answer_is_the_estimators(chromium: Browser, shelf: Shelf, tmp_path: Path) -> None:
    packed = shelf("binary")
    with shown(packed.path, home=tmp_path) as url, visiting(chromium, url) as visit:
        page = visit.page
        answered(page)
        for field, value in (("contract", "two years"), ("partner", "no")):
            page.get_by_role("combobox", name=field).click()
            page.get_by_role("option", name=value, exact=True).click()
            answered(page)
        slider = page.get_by_role("slider", name="tenure")
        slider.focus()
        for _ in range(3):
            slider.press("ArrowRight")
        answered(page)
        row = {
            "contract": "two years",
            "partner": "no",
            "tenure": int(slider.input_value()),
            "fee": float(page.get_by_role("slider", name="fee").input_value()),
        }
        likely = packed.predictor.predict(row)["churn_probability"]
        expect(page.get_by_text("probability of “yes”: "), str(row)).to_contain_text(f": {likely:.1%}")


@pytest.mark.parametrize("name", ["binary", "multiclass", "regression", "text", "wide"])
def test_every_kind_of_model_has_a_page_that_fits_a_phone(
    chromium: Browser, shelf: Shelf, tmp_path: Path, name: str
) -> None:
    packed = shelf(name)
    with shown(packed.path, home=tmp_path) as url:
        for lang, answer, file, model in (
            ("pt-BR", "Resposta", "Um arquivo", "O modelo"),
            ("en-US", "Answer", "A file", "The model"),
        ):
            with visiting(chromium, url, lang=lang, size=PHONE) as visit:
                expect(visit.page.get_by_role("heading", name=answer, exact=True)).to_be_visible()
                answered(visit.page)
                visit.no_sideways_scroll()
                visit.shoot(f"ui-phone-{name}-{lang}")
                turn_to(visit.page, file)
                expect(visit.page.get_by_role("heading", name=file)).to_be_visible()
                visit.no_sideways_scroll()
                turn_to(visit.page, model)
                visit.no_sideways_scroll()
                visit.accessible()
                visit.shoot(f"ui-phone-{name}-{lang}-about")


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_a_table_of_10000_rows_comes_back_but_for_the_37_that_are_wrong(
    chromium: Browser, shelf: Shelf, tmp_path: Path, size: dict[str, int]
) -> None:
    packed = shelf("binary")
    rows = more_rows(10_000)
    faulty = set(random.Random(7).sample(range(10_000), 37))
    with shown(packed.path, home=tmp_path) as url, visiting(chromium, url, size=size) as visit:
        page = visit.page
        turn_to(page, "A file")
        page.locator("input[type='file']").set_input_files(
            {"name": "people.csv", "mimeType": "text/csv", "buffer": table_of(rows, faulty)}
        )
        page.get_by_role("button", name="Answer all rows").click()
        expect(page.get_by_text("Rows answered: 9,963")).to_be_visible(timeout=60_000)
        expect(page.get_by_text("Rows refused: 37")).to_be_visible()
        visit.no_sideways_scroll()
        visit.shoot(f"ui-file-{size['width']}")
        visit.accessible()
        lines = _downloaded(page, "Download the answers")
        refused = _downloaded(page, "Download the refused rows")
    sound = [row for at, row in enumerate(rows) if at not in faulty]
    wanted = packed.predictor.predict(sound)
    assert [float(each["churn_probability"]) for each in lines] == [each["churn_probability"] for each in wanted]
    assert {each["remark"] for each in lines} == {"'=1+1"}
    assert len(refused) == 37
    assert all(each["Reason"] for each in refused)


def _downloaded(page: Page, name: str) -> list[dict[str, Any]]:
    with page.expect_download() as download:
        page.get_by_role("button", name=name).click()
    return list(csv.DictReader(io.StringIO(Path(download.value.path()).read_text("utf-8-sig"))))


def test_a_service_can_answer_for_the_page(chromium: Browser, shelf: Shelf, tmp_path: Path) -> None:
    with (
        serving(shelf("multiclass").path, home=tmp_path, KETCH_API_KEYS=KEY) as service,
        shown("--url", service, home=tmp_path, KETCH_API_KEY=KEY) as url,
        visiting(chromium, url) as visit,
    ):
        expect(visit.page.get_by_role("heading", name="species: ")).to_be_visible()
        answered(visit.page)
        visit.page.get_by_text("Why", exact=True).click()
        expect(
            visit.page.get_by_text("raises species").or_(visit.page.get_by_text("lowers species")).first
        ).to_be_visible()


def test_only_who_has_a_key_gets_in(chromium: Browser, shelf: Shelf, tmp_path: Path) -> None:
    with (
        shown(shelf("binary").path, home=tmp_path, KETCH_API_KEYS=KEY) as url,
        visiting(chromium, url) as visit,
    ):
        page = visit.page
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
        expect(page).to_have_title("Sign in")
        page.get_by_label("Key").fill("not the key")
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_text("This key does not open this page.")).to_be_visible()
        assert not re.search("churn|binary", page.content())  # who is refused is not told of the model
        page.get_by_label("Key").fill(KEY)
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("heading", name="churn: ")).to_be_visible()
        expect(page).to_have_title("binary")


def test_an_identity_provider_signs_people_in(chromium: Browser, shelf: Shelf, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with providing() as issuer:
        told = tmp_path / "oidc.toml"
        told.write_text(
            "[auth]\n"
            f'redirect_uri = "http://localhost:{port}/oauth2callback"\n'
            f'cookie_secret = "{"long and random " * 3}"\n'
            f'client_id = "{CLIENT}"\nclient_secret = "only for this test"\n'
            f'server_metadata_url = "{issuer}/.well-known/openid-configuration"\n'
        )
        with (
            shown(shelf("binary").path, "--oidc", told, home=tmp_path, KETCH_PORT=str(port)) as url,
            visiting(chromium, url) as visit,
        ):
            page = visit.page
            expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
            assert not re.search("churn|binary", page.content())
            page.get_by_role("button", name="Sign in").click()
            expect(page.get_by_role("heading", name="churn: ")).to_be_visible()
            page.get_by_role("button", name="Sign out").click()
            expect(page.get_by_role("button", name="Sign in")).to_be_visible()
            visit.outside[:] = [each for each in visit.outside if not each.startswith(issuer)]


def test_each_page_has_a_link_and_its_own_language(chromium: Browser, shelf: Shelf, tmp_path: Path) -> None:
    with shown(shelf("binary").path, home=tmp_path) as url:
        for path in ("table", "about?lang=en", "launch", "ask"):
            with visiting(chromium, f"{url}/{path}") as visit:  # nothing that is looked for in vain
                answered(visit.page)
                expect(visit.page).to_have_url(f"{url}/{path if path != 'ask' else ''}")
        with visiting(chromium, f"{url}/table") as visit:
            page = visit.page
            page.get_by_role("button", name="Português").click()
            expect(page.get_by_role("heading", name="Um arquivo")).to_be_visible()
            turn_to(page, "O modelo")
            expect(page.get_by_role("heading", name="Cartão do modelo")).to_be_visible()
            expect(page.get_by_text("Responde churn")).to_be_visible()
            page.go_back()
            expect(page.get_by_role("heading", name="Um arquivo")).to_be_visible()


def test_what_was_asked_is_seen_after_the_launch(chromium: Browser, shelf: Shelf, tmp_path: Path) -> None:
    import requests

    packed, log = shelf("binary"), f"sqlite:///{tmp_path / 'log.db'}"
    with serving(packed.path, "--log", log, home=tmp_path) as service:
        for row in more_rows(60):
            requests.post(f"{service}/predict", json=row, timeout=10).raise_for_status()
    with shown(packed.path, "--log", log, home=tmp_path) as url, visiting(chromium, url) as visit:
        turn_to(visit.page, "After the launch")
        expect(visit.page.get_by_text("Answers given")).to_be_visible()
        expect(visit.page.locator("[data-testid='stMetricValue']").first).to_have_text("60")
        answered(visit.page)
        visit.shoot("ui-launch")
        visit.accessible()


def test_it_connects_to_nobody(chromium: Browser, shelf: Shelf, tmp_path: Path) -> None:
    told = tmp_path / "strace.txt"
    strace = ["strace", "-D", "-f", "-qq", "-e", "trace=connect,sendto", "-o", str(told)]
    with (
        shown(shelf("binary").path, home=tmp_path, before=strace) as url,
        visiting(chromium, url) as visit,
    ):
        expect(visit.page.get_by_role("heading", name="churn: ")).to_be_visible(timeout=60_000)
        answered(visit.page)
    named = re.findall(r'sin6?_addr="?[^"]*"?(?:inet_addr|inet_pton)\(?[^"]*"([^"]+)"', told.read_text())
    assert all(each.startswith("127.") or each == "::1" for each in named), set(named)


def test_what_a_model_says_is_shown_and_never_interpreted(chromium: Browser, tmp_path: Path) -> None:
    packed = hostile(tmp_path)
    with shown(packed, home=tmp_path) as url, visiting(chromium, url) as visit:
        expect(visit.page.get_by_role("heading", name="<b>churn</b>: ")).to_be_visible()
        answered(visit.page)
        turn_to(visit.page, "The model")
        assert visit.page.evaluate("window.hacked") is None
        assert visit.page.locator("a[href^='javascript'], img[src*='evil'], script[src*='evil']").count() == 0
