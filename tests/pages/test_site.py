"""The page that runs the model in the browser: the same answers, for people, offline, from any static host."""

import csv
import gzip
import io
import json
import random
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from ketch.codec import flatten
from ketch.predict import load
from ketch.ui import runtime, site
from tests.pages.browser import DESK, PHONE, hosted, visiting
from tests.pages.conftest import Packed, Shelf, more_rows
from tests.pages.hostile import SCRIPT, hostile
from tests.running import ketch, serving

pytestmark = pytest.mark.pages
PLAIN = ("binary", "tree", "multiclass", "regression", "boosting", "histogram", "extreme", "catboost", "text", "wide")
COMPILED = ("neighbours", "network")
ASK = """async (told) => {
  const rows = JSON.parse(told);
  const model = await (await fetch("model.json")).json();
  const { evaluator } = await import("./program.js");
  const { shape } = await import("./contract.js");
  const open = async (program, encode) => (await import("./runtime.js")).runner("model.onnx", program, encode);
  const ask = await evaluator(model, open);
  for (const row of rows) for (const field of model.fields) row[field.name] ??= null;
  return (await ask(rows)).map((found) => shape(model.answer, found));
}"""


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's own folder, which keeps what npm brought."""
    return tmp_path_factory.mktemp("home")


def made(packed: Packed, folder: Path, home: Path, **more: Any) -> Path:
    """Write the page of a model."""
    bundle = packed.predictor.bundle
    site.write(site.site(bundle, runtime=lambda: runtime.files(home), **more), folder)
    return folder


def same(found: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> None:
    """Hold answers against those of the bundle: labels alike, numbers to 1e-6."""
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        own, well = (
            {name: values[0] for name, values in flatten({k: [v] for k, v in each.items()}).items()}
            for each in (one, other)
        )
        assert own.keys() == well.keys()
        for name, value in well.items():
            if isinstance(value, float) and not isinstance(value, bool):
                assert own[name] == pytest.approx(value, rel=1e-6, abs=1e-6)
            else:
                assert own[name] == value


@pytest.mark.parametrize("name", [*PLAIN, *COMPILED])
def test_it_answers_as_the_bundle_does(chromium: Browser, shelf: Shelf, tmp_path: Path, home: Path, name: str) -> None:
    packed = shelf(name)
    folder = made(packed, tmp_path / "site", home)
    assert (folder / "model.onnx").exists() == (name in COMPILED)
    with hosted(folder) as url, visiting(chromium, url) as visit:
        visit.page.locator("#answer strong").first.wait_for()
        same(visit.page.evaluate(ASK, json.dumps(packed.rows)), packed.predictor.predict(packed.rows))


def test_the_files_are_as_small_as_promised(shelf: Shelf, tmp_path: Path, home: Path) -> None:
    for name in ("binary", "tree", "multiclass", "boosting"):
        files = [each for each in made(shelf(name), tmp_path / name, home).rglob("*") if each.is_file()]
        assert sum(each.stat().st_size for each in files) <= 150 * 1024
    files = [each for each in made(shelf("network"), tmp_path / "network", home).rglob("*") if each.is_file()]
    assert sum(len(gzip.compress(each.read_bytes(), 9)) for each in files) <= 5_000_000


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_a_person_asks_and_sees_the_answer_change(
    chromium: Browser, shelf: Shelf, tmp_path: Path, home: Path, size: dict[str, int]
) -> None:
    packed = shelf("binary")
    with hosted(made(packed, tmp_path / "site", home)) as url, visiting(chromium, url, size=size) as visit:
        page = visit.page
        row = {"contract": "two years", "partner": "no", "tenure": 60, "fee": 30.5}
        page.get_by_label("contract", exact=True).select_option("two years")
        page.get_by_label("partner", exact=True).select_option("no")
        page.get_by_role("spinbutton", name="tenure").fill("60")
        page.get_by_role("spinbutton", name="fee").fill("30.5")
        likely = packed.predictor.predict(row)["churn_probability"]
        expect(page.locator("#answer")).to_contain_text(f"{likely:.1%}".replace(".0%", "%"))
        expect(page.locator("#answer strong")).to_have_text("churn: no")
        expect(page.locator(".curve svg")).to_be_visible()
        visit.accessible()
        visit.shoot(f"site-ask-{size['width']}")
        page.get_by_role("spinbutton", name="tenure").fill("1000")
        expect(page.locator(".notes")).to_contain_text("outside of what was seen")
        page.get_by_role("spinbutton", name="fee").fill("")
        expect(page.locator("#answer")).to_have_text("This cannot be answered")
        expect(page.locator(".fault").filter(has_text="fee is missing")).to_be_visible()
        page.get_by_role("button", name="Example 1").click()
        expect(page.locator("#answer strong")).to_contain_text("churn: ")


def table_of(rows: list[dict[str, Any]], faulty: set[int]) -> bytes:
    """Write rows as people do, some of them wrong in one of several ways."""
    ways = [("contract", "weekly"), ("fee", "much"), ("tenure", ""), ("tenure", "2.5"), ("partner", "5")]
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, ["Tenure", "FEE", "contract", "partner", "remark"])
    writer.writeheader()
    for at, row in enumerate(rows):
        name, value = ways[at % len(ways)] if at in faulty else ("", "")
        own = {**row, **({name: value} if name else {})}
        writer.writerow(
            {
                "Tenure": own["tenure"],
                "FEE": own["fee"],
                "contract": own["contract"],
                "partner": own["partner"],
                "remark": "=1+1",
            }
        )
    return out.getvalue().encode()


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_a_table_of_10000_rows_comes_back_but_for_the_37_that_are_wrong(
    chromium: Browser, shelf: Shelf, tmp_path: Path, home: Path, size: dict[str, int]
) -> None:
    packed = shelf("binary")
    rows = more_rows(10_000)
    faulty = set(random.Random(7).sample(range(10_000), 37))
    data = table_of(rows, faulty)
    with hosted(made(packed, tmp_path / "site", home)) as url, visiting(chromium, url, size=size) as visit:
        page = visit.page
        page.get_by_role("tab", name="A file").click()
        page.get_by_label("Choose a table").set_input_files(
            {"name": "people.csv", "mimeType": "text/csv", "buffer": data}
        )
        page.get_by_role("button", name="Answer all rows").click()
        expect(page.locator("#answered")).to_have_text("Rows answered: 9,963", timeout=60_000)
        expect(page.locator("#rejected")).to_have_text("Rows refused: 37")
        found = page.locator("#refused tbody tr").all_text_contents()
        numbers = page.locator("#refused tbody th").all_text_contents()
        assert [int(each) for each in numbers] == sorted(at + 2 for at in faulty)
        assert all(any(name in each for name in ("contract", "fee", "tenure", "partner")) for each in found)
        with page.expect_download() as download:
            page.get_by_role("button", name="Download the answers").click()
        lines = list(csv.DictReader(io.StringIO(Path(download.value.path()).read_text("utf-8"))))
        visit.accessible()
        visit.no_sideways_scroll()
        visit.shoot(f"site-file-{size['width']}")
    sound = [row for at, row in enumerate(rows) if at not in faulty]
    wanted = packed.predictor.predict(sound)
    assert {line["remark"] for line in lines} == {"'=1+1"}  # no spreadsheet takes it for a formula
    assert [float(line["churn_probability"]) for line in lines] == pytest.approx(
        [each["churn_probability"] for each in wanted], abs=1e-6
    )


def test_it_works_without_a_network_after_the_first_visit(
    chromium: Browser, shelf: Shelf, tmp_path: Path, home: Path
) -> None:
    with hosted(made(shelf("network"), tmp_path / "site", home)) as url, visiting(chromium, url) as visit:
        visit.page.locator("#answer strong").first.wait_for()
        visit.page.evaluate("navigator.serviceWorker.ready.then(() => true)")
        visit.page.wait_for_function("navigator.serviceWorker.controller !== null")
        visit.page.context.set_offline(True)
        visit.page.reload()
        expect(visit.page.locator("#answer strong").first).to_contain_text("churn")


@pytest.mark.parametrize("name", ["binary", "multiclass", "regression", "text", "wide"])
def test_it_fits_a_phone_in_both_languages(
    chromium: Browser, shelf: Shelf, tmp_path: Path, home: Path, name: str
) -> None:
    with hosted(made(shelf(name), tmp_path / "site", home)) as url:
        for lang, ask, table in (("pt-BR", "Perguntar", "Um arquivo"), ("en-US", "Ask it", "A file")):
            with visiting(chromium, url, lang=lang, size=PHONE) as visit:
                expect(visit.page.get_by_role("tab", name=ask)).to_be_visible()
                visit.page.locator("#answer strong").first.wait_for()
                visit.no_sideways_scroll()
                visit.accessible()
                visit.shoot(f"site-phone-{name}-{lang}")
                visit.page.get_by_role("tab", name=table).click()
                visit.no_sideways_scroll()
                visit.page.get_by_role("tab").last.click()
                visit.no_sideways_scroll()
                visit.accessible()
                visit.shoot(f"site-phone-{name}-{lang}-about")


def test_a_service_answers_where_the_page_is_made_for_one(
    chromium: Browser, shelf: Shelf, tmp_path: Path, home: Path
) -> None:
    packed = shelf("binary")
    folder = tmp_path / "site"
    with serving(packed.path, "--cors", "*", home=home) as service:
        made(packed, folder, home, url=service)
        assert b'"program":null' in (folder / "model.json").read_bytes()
        with hosted(folder) as url, visiting(chromium, url) as visit:
            expect(visit.page.locator("#answer strong")).to_contain_text("churn")
            assert visit.outside  # the service, and nothing else
            assert all(each.startswith(service) for each in visit.outside)
            visit.outside.clear()


def test_the_command_writes_it(shelf: Shelf, tmp_path: Path) -> None:
    done = ketch("ui", shelf("binary").path, "--static", "-o", "page", home=tmp_path, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert {"index.html", "model.json", "sw.js", "_headers"} <= {each.name for each in (tmp_path / "page").iterdir()}
    again = ketch("ui", shelf("binary").path, "--static", "-o", "page", home=tmp_path, cwd=tmp_path)
    assert again.returncode == 0
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    refused = ketch("ui", shelf("binary").path, "--static", "-o", "other", home=tmp_path, cwd=tmp_path)
    assert refused.returncode == 1
    assert "holds something else" in refused.stderr


def test_what_a_model_or_a_file_says_is_shown_and_never_interpreted(
    chromium: Browser, tmp_path: Path, home: Path
) -> None:
    predictor = load(str(hostile(tmp_path)), home=home)
    rows = [dict(row) for row in predictor.bundle.golden.rows]
    site.write(site.site(predictor.bundle, runtime=dict), tmp_path / "site")
    with hosted(tmp_path / "site") as url, visiting(chromium, url) as visit:
        page = visit.page
        expect(page.locator("#answer strong")).to_contain_text("<b>churn</b>: ")
        same(page.evaluate(ASK, json.dumps(rows)), predictor.predict(rows))
        page.get_by_role("tab", name="A file").click()
        out = io.StringIO(newline="")
        writer = csv.writer(out)
        writer.writerow([*predictor.checker.names, SCRIPT + "2"])
        writer.writerow([*("<script>window.hacked=1</script>" for _ in predictor.checker.names), "@SUM(1)"])
        page.get_by_label("Choose a table").set_input_files(
            {"name": "<b>.csv", "mimeType": "text/csv", "buffer": out.getvalue().encode()}
        )
        page.get_by_role("button", name="Answer all rows").click()
        expect(page.locator("#rejected")).to_have_text("Rows refused: 1")
        page.get_by_role("tab", name="The model").click()
        assert page.evaluate("window.hacked") is None
        assert page.locator("a[href^='javascript'], img, script:not([src])").count() == 0
