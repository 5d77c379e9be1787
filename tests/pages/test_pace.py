"""How long people wait: for the first answer after `ketch ui` was typed, and after each change. Run alone."""

import statistics
import time
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from tests.pages.browser import visiting
from tests.pages.conftest import Shelf
from tests.pages.test_people import answered, shown

pytestmark = [pytest.mark.pages, pytest.mark.timeout(180)]
TRIES = 4
CHANGES = 7
SAID = "[...document.querySelectorAll('p')].map((each) => each.textContent).find((each) => each.startsWith('prob'))"


def changed(page: Page) -> float:
    """Move the first slider by one step, and give the seconds until the answer on the page is another."""
    slider = page.get_by_role("slider").first
    before = page.evaluate(SAID)
    slider.focus()
    began = time.monotonic()
    slider.press("ArrowRight")
    page.wait_for_function(f"(before) => {SAID} !== before", arg=before, polling=5)
    return time.monotonic() - began


@pytest.mark.parametrize("name", ["binary", "wide"])
def test_nobody_waits_long(chromium: Browser, shelf: Shelf, tmp_path: Path, name: str) -> None:
    packed, starts, changes = shelf(name), [], list[float]()
    for _ in range(TRIES):
        began = time.monotonic()
        with shown(packed.path, home=tmp_path) as url, visiting(chromium, url) as visit:
            visit.page.locator("h3").filter(has_text=packed.predictor.contract.answer.target).first.wait_for()
            starts.append(time.monotonic() - began)
            answered(visit.page)
            for _ in range(CHANGES):
                changes.append(changed(visit.page))
                answered(visit.page)
    print(f"{name}: first answer after {min(starts):.2f} s, a change after {statistics.median(changes) * 1000:.0f} ms")
    assert min(starts) < 3, starts
    assert statistics.median(changes) < 0.3, changes
