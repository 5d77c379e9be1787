"""The pages for people without a browser: forms, columns, texts that must stay texts, who gets in."""

import asyncio
import csv
import html
import io
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ketch.errors import InputError, SettingError
from ketch.page import widgets, words
from ketch.page.words import WORDS
from ketch.schema import Answer, Field
from ketch.serve.guard import Guard, guard_at
from ketch.ui import harmless, literal, patterns, remote, site, start, table
from tests.doors import Small
from tests.models import FACTORIES, late, opened, rows, texts
from tests.running import ketch, serving

# ---- words and forms -----------------------------------------------------------------------------------


def test_every_text_is_there_in_both_languages_with_the_same_places() -> None:
    for key, (english, portuguese) in WORDS.items():
        assert english, key
        assert portuguese, key
        assert english.count("{}") == portuguese.count("{}"), key
    assert words.spoken("pt")["yes"] == "sim"


def test_a_form_begins_with_a_row_that_the_model_answers(small: Small) -> None:
    made = widgets.form(small.predictor.bundle)
    assert [each.name for each in made.widgets] == [each.name for each in small.predictor.contract.fields]
    small.predictor.predict(made.start)
    for row in made.examples:
        small.predictor.predict(dict(row))


@pytest.mark.parametrize("name", ["forest", "imputed", "outliers", "plain_regression"])
def test_the_form_of_every_kind_of_model_suits_its_fields(name: str) -> None:
    predictor = opened(FACTORIES[name](), **late(name))
    made = widgets.form(predictor.bundle)
    for widget, field in zip(made.widgets, predictor.contract.fields, strict=True):
        assert (widget.kind == "choice") == (field.type == "category")
        if widget.kind == "slider":
            assert widget.minimum is not None
            assert widget.maximum is not None
            assert widget.minimum <= widget.start <= widget.maximum
            assert 0 < widget.step <= widget.maximum - widget.minimum


# ---- texts stay texts ----------------------------------------------------------------------------------

HOSTILE = [
    "<script>alert(1)</script>",
    "[x](javascript:alert(1))",
    "![x](https://evil.example/p.png)",
    "**b** `c` $x$",
    ":smile:",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_markdown_is_shown_and_never_followed(text: str) -> None:
    found = literal(text)
    for sign in "<[!*`$:(":
        assert found.count(sign) == found.count("\\" + sign)


@settings(deadline=None)
@given(st.text())
def test_a_literal_is_one_line_and_loses_no_letter(text: str) -> None:
    found = literal(text)
    assert "\n" not in found
    letters = [each for each in text if each.isalnum()]
    assert [each for each in found if each.isalnum()] == letters


@settings(deadline=None)
@given(st.text() | st.integers() | st.floats(allow_nan=False))
def test_no_cell_of_a_download_is_a_formula(cell: object) -> None:
    found = harmless(cell)
    if isinstance(found, str) and found[:1] in set("=+-@\t\r"):
        float(found)  # a number is none
    if not isinstance(cell, str):
        assert found == cell


# ---- files ---------------------------------------------------------------------------------------------


def test_columns_are_found_by_what_is_most_like_their_names() -> None:
    fields = [Field("MonthlyCharges", "number"), Field("tenure", "integer", label="Months"), Field("gender", "text")]
    assert table.likeness(fields, ["Gender", "monthly charges", "MONTHS", "id"]) == {
        "MonthlyCharges": "monthly charges",
        "tenure": "MONTHS",
        "gender": "Gender",
    }
    assert table.likeness(fields, ["montly_charge", "tenur"]) == {"MonthlyCharges": "montly_charge", "tenure": "tenur"}
    assert table.likeness(fields, ["a", "b"]) == {}


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_tables_are_read_whatever_divides_their_cells(separator: str) -> None:
    text = f'name{separator}fee\n"a{separator}b"{separator}1\n\n'
    assert table.read("people.csv", text.encode("utf-8-sig")) == (["name", "fee"], [[f"a{separator}b", "1"]])


def test_an_excel_workbook_is_read_as_its_cells_look() -> None:
    import openpyxl

    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    for line in (["when", "fee", "partner", "n"], [datetime(2026, 1, 2), 1.5, True, 3], [None, None, None, None]):
        sheet.append(line)
    out = io.BytesIO()
    book.save(out)
    assert table.read("people.xlsx", out.getvalue()) == (
        ["when", "fee", "partner", "n"],
        [["2026-01-02", "1.5", "true", "3"]],
    )


@pytest.mark.parametrize(
    ("name", "data"),
    [("a.csv", b""), ("a.csv", b"x,y\n"), ("a.csv", b"x,x\n1,2\n"), ("a.csv", b'x\n"1\n'), ("a.xlsx", b"no zip")],
)
def test_a_table_that_cannot_be_read_is_refused_in_words(name: str, data: bytes) -> None:
    with pytest.raises(InputError) as caught:
        table.read(name, data)
    assert caught.value.hint


@settings(deadline=None)
@given(st.binary(max_size=300), st.sampled_from(["a.csv", "a.tsv", "a.txt"]))
def test_any_bytes_are_a_table_or_refused(data: bytes, name: str) -> None:
    try:
        header, found = table.read(name, data)
    except InputError:
        return
    assert header
    assert found


# ---- a service answers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["encoded", "forest", "plain_regression", "outliers", "linear_vectors", "clusters"])
def test_answers_over_the_wire_read_back_as_what_the_model_gave(name: str) -> None:
    predictor = opened(FACTORIES[name](), **late(name))
    asked = [
        {key: value for key, value in row.items() if value is not None} for row in predictor.bundle.golden.rows[:5]
    ]
    told = json.loads(json.dumps(predictor.predict(asked)))
    again = predictor.answer(remote.raw_of(predictor.contract.answer, told), single=False)
    found = [dict(zip(again.columns, each, strict=True)) for each in zip(*again.columns.values(), strict=True)]
    assert found == told


def test_a_page_over_a_service_answers_as_the_service(small: Small, tmp_path: Path) -> None:
    from ketch.client import Client

    with serving(small.bundle, home=tmp_path) as url, Client(url) as client:
        predictor, form = remote.opened(client)
        assert predictor.predict(form.start) == small.predictor.predict(form.start)
        assert predictor.contract == small.predictor.contract


# ---- who gets in ---------------------------------------------------------------------------------------


def test_a_key_opens_the_page_and_nothing_else_does() -> None:
    key = "a-key-of-twenty-characters-and-more"
    admit = start.admits(Guard([key]))
    assert admit is not None
    assert admit(key, "localhost:9696")
    assert not admit(key + "x", "localhost:9696")
    assert not admit("", "localhost:9696")
    assert start.admits(Guard(listens_here=True)) is None


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize(("host", "let_in"), [("localhost:8501", True), ("127.0.0.1", True), ("evil.example", False)])
def test_pages_and_sockets_answer_to_this_machines_name_only(kind: str, host: str, let_in: bool) -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append("in")

    async def send(message: Any) -> None:
        seen.append(message["type"])

    async def receive() -> Any:
        return {}

    door = start.Door(app, guard_at("127.0.0.1", []))
    scope = {"type": kind, "method": "GET", "headers": [(b"host", host.encode())]}
    asyncio.run(door(scope, receive, send))
    assert (seen == ["in"]) == let_in


@pytest.mark.parametrize(
    ("origin", "let_in"), [("http://localhost:8501", True), ("", True), ("https://evil.example", False)]
)
@pytest.mark.parametrize("kind", ["POST", "websocket"])
def test_no_page_of_another_site_gets_at_this_one(kind: str, origin: str, let_in: bool) -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append("in")

    async def send(message: Any) -> None:
        seen.append(message["type"])

    async def receive() -> Any:
        return {}

    headers = [(b"host", b"localhost:8501"), *([(b"origin", origin.encode())] if origin else [])]
    scope = {"type": "websocket" if kind == "websocket" else "http", "method": kind, "headers": headers}
    asyncio.run(start.Door(app, guard_at("127.0.0.1", []))(scope, receive, send))
    assert (seen == ["in"]) == let_in


def test_the_identity_providers_settings_must_be_whole(tmp_path: Path) -> None:
    told = tmp_path / "oidc.toml"
    for text in ("", "[auth]\nredirect_uri = 'x'\n", "auth = 1\n", "[["):
        told.write_text(text)
        with pytest.raises(SettingError):
            start.oidc(str(told))
    told.write_text("[auth]\nredirect_uri = 'https://a'\ncookie_secret = 'b'\n")
    assert start.oidc(str(told))["redirect_uri"] == "https://a"


def test_a_page_for_others_needs_keys_or_a_word(small: Small, tmp_path: Path) -> None:
    done = ketch("ui", small.bundle, "--host", "0.0.0.0", "--port", "0", "--json", home=tmp_path)
    assert done.returncode == 1
    assert "reachable by others and no key is set" in json.loads(done.stderr)["message"]
    assert ketch("ui", home=tmp_path).returncode == 2


# ---- the static page -----------------------------------------------------------------------------------


def test_the_static_page_names_nothing_elsewhere_and_is_the_same_every_time(small: Small) -> None:
    bundle = small.predictor.bundle
    files = site.site(bundle)
    assert files == site.site(bundle)
    for name, data in files.items():
        if name.endswith((".html", ".js", ".css")) and name != "papaparse.js":
            assert b"http://" not in data.replace(b"http://www.w3.org", b"")
            assert b"https://" not in data
    assert "default-src 'none'" in html.unescape(files["index.html"].decode())
    assert "unsafe-inline" not in files["_headers"].decode()


@pytest.mark.parametrize("url", ["ftp://a", "https://", "javascript:alert(1)", "https://a; script-src *", "a"])
def test_only_the_address_of_a_service_goes_into_the_policy(small: Small, url: str) -> None:
    with pytest.raises(InputError):
        site.site(small.predictor.bundle, url=url)


def test_an_original_is_refused_and_told_what_else_can_be_done(small: Small) -> None:
    bundle = small.predictor.bundle
    original = msgspec.structs.replace(bundle, manifest=msgspec.structs.replace(bundle.manifest, serves="original"))
    with pytest.raises(InputError) as caught:
        site.site(original)
    assert "--url" in caught.value.hint


def test_patterns_are_written_as_javascript_reads_them() -> None:
    assert patterns.script(r"a+?[^\d]|(?:x){2,3}$") == r"(?:(?:\u{61}){1,}?[^\p{Nd}]|(?:\u{78}){2,3}(?=\n?$))"
    for strange in (r"(?i)a", r"(a)(b)", r"(?P<x>a)(?P=x)", r"[\W_]", r"(?>a)"):
        with pytest.raises(InputError):
            patterns.script(strange)


def test_texts_of_a_model_are_cut_by_a_pattern_of_the_page() -> None:
    told = site.model(opened(texts()).bundle)
    part = next(
        each for each in (each.get("part", each) for each in told["program"]["parts"]) if each["type"] == "text"
    )
    assert r"\p{L}" in part["script"]


def test_rows_written_for_people_read_back(small: Small) -> None:
    names = list(rows()[0])
    data = table._written(names, [[str(row[name]) for name in names] for row in rows()[:3]])
    assert list(csv.DictReader(io.StringIO(data.decode("utf-8-sig")))) == [
        {k: str(v) for k, v in row.items()} for row in rows()[:3]
    ]
    assert Answer("regression").target == "prediction"
