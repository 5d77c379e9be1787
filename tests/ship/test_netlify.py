"""The target netlify where it takes longer: Netlify's whole description, a real browser."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
from playwright.sync_api import sync_playwright

from ketch.deploy import Shipment
from ketch.steps import run
from tests.netlify.fake import netlify
from tests.netlify.trim import KEPT, VERSION, trimmed, written
from tests.pages.browser import ARGUMENTS, program, visiting
from tests.test_deploy_netlify import hands, interrupted, planned, shipments  # noqa: F401 (a fixture)

pytestmark = pytest.mark.ship
CACHE: Final = Path(__file__).parent.parent.parent / ".cache"


def swagger() -> dict[str, Any]:
    """Fetch Netlify's description of its API, once."""
    folder = CACHE / f"netlify-open-api-{VERSION}"
    if not (folder / "package").is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        packed = f"netlify-open-api-{VERSION}.tgz"
        subprocess.run(["npm", "pack", "--silent", f"@netlify/open-api@{VERSION}"], cwd=folder, check=True)
        shutil.unpack_archive(folder / packed, folder, filter="data")
    told: dict[str, Any] = json.loads((folder / "package" / "dist" / "swagger.json").read_text("utf-8"))
    return told


def test_the_part_that_is_kept_is_netlifys_own() -> None:
    assert KEPT.read_text("utf-8") == written(trimmed(swagger()))


def test_the_whole_description_fits_what_we_ask(shipments: tuple[Shipment, Shipment]) -> None:  # noqa: F811
    with netlify(swagger()) as cloud:
        for shipment in shipments:
            run(planned(shipment), hands(cloud))
        assert len(cloud.asked) > 20


def test_what_was_interrupted_at_any_request_goes_on(shipments: tuple[Shipment, Shipment]) -> None:  # noqa: F811
    interrupted(shipments[0], every=1)
    interrupted(shipments[0], every=2)


def test_a_browser_opens_the_published_page_and_gets_an_answer(shipments: tuple[Shipment, Shipment]) -> None:  # noqa: F811
    with netlify() as cloud, sync_playwright() as playwright:
        url = run(planned(shipments[0]), hands(cloud))["smoke"]
        browser = playwright.chromium.launch(executable_path=program(), args=list(ARGUMENTS))
        with visiting(browser, f"{url}/") as visit:
            visit.page.locator("#answer strong").first.wait_for()  # after the golden rows have given their answers
        browser.close()
