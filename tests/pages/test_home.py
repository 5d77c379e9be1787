"""The page at GET / of a service: a live form, in the reader's language, open and guarded."""

import pytest
from playwright.sync_api import Browser, expect

from tests.pages.browser import DESK, PHONE, visiting
from tests.pages.conftest import Shelf
from tests.running import serving

pytestmark = pytest.mark.pages
KEY = "a-key-of-twenty-characters-and-more"


def test_a_person_lands_asks_and_reads_the_answer(
    chromium: Browser, shelf: Shelf, tmp_path_factory: pytest.TempPathFactory
) -> None:
    packed, home = shelf("binary"), tmp_path_factory.mktemp("home")
    with serving(packed.path, shelf("multiclass").path, home=home) as url:
        for path, size in (("/", DESK), ("/models/binary/", DESK), ("/models/binary", PHONE)):
            with visiting(chromium, url.replace("127.0.0.1", "localhost") + path, size=size) as visit:
                page = visit.page
                expect(page.locator("#answer strong")).to_contain_text("churn")
                page.get_by_label("contract", exact=True).select_option("two years")
                page.get_by_role("spinbutton", name="tenure").fill("60")
                row = {
                    "contract": "two years",
                    "partner": page.get_by_label("partner", exact=True).evaluate(
                        "each => each.selectedOptions[0].textContent"
                    ),
                    "tenure": 60,
                    "fee": float(page.get_by_role("spinbutton", name="fee").input_value()),
                }
                likely = packed.predictor.predict(row)["churn_probability"]
                expect(page.locator("#answer")).to_contain_text(f"{likely:.1%}".replace(".0%", "%"))
                page.get_by_text("JavaScript", exact=True).click()
                expect(page.locator("#javascript")).to_be_visible()
                visit.no_sideways_scroll()
                visit.accessible()
                visit.shoot(f"home-{path.strip('/').replace('/', '-') or 'root'}-{size['width']}")
        with visiting(chromium, url.replace("127.0.0.1", "localhost") + "/models/multiclass", lang="pt-BR") as visit:
            expect(visit.page.locator("#answer strong")).to_contain_text("species")
            expect(visit.page.get_by_role("heading", name="Perguntar")).to_be_visible()
            visit.accessible()
            visit.shoot("home-multiclass-pt")


def test_dark_is_as_readable_as_light(
    chromium: Browser, shelf: Shelf, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with (
        serving(shelf("regression").path, home=tmp_path_factory.mktemp("home")) as url,
        visiting(chromium, url.replace("127.0.0.1", "localhost"), color_scheme="dark") as visit,
    ):
        expect(visit.page.locator("#answer strong")).to_contain_text("price")
        visit.accessible()
        visit.shoot("home-dark")


def test_a_guarded_page_asks_with_the_key_that_opened_it(
    chromium: Browser, shelf: Shelf, tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = tmp_path_factory.mktemp("home")
    with (
        serving(shelf("binary").path, home=home, KETCH_API_KEYS=KEY) as url,
        visiting(chromium, url, http_credentials={"username": "me", "password": KEY}) as visit,
    ):
        expect(visit.page.locator("#answer strong")).to_contain_text("churn")
