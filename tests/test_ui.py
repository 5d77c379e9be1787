"""The pages for people without a browser: forms, columns, texts that must stay texts, who gets in."""

import asyncio
import base64
import csv
import html
import io
import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any, get_args

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ketch.card import ASK, MEMBER
from ketch.errors import InputError, SettingError
from ketch.explain import trees
from ketch.page import widgets, words
from ketch.page.words import WORDS
from ketch.schema import Answer, Field, Type
from ketch.serve.guard import Guard, guard_at
from ketch.ui import about, harmless, literal, patterns, remote, site, start, table
from tests import models
from tests.doors import Small
from tests.models import FACTORIES, late, opened, rows, texts, yes_or_no
from tests.running import ketch, serving

# ---- words and forms -----------------------------------------------------------------------------------


def test_every_text_is_there_in_both_languages_with_the_same_places() -> None:
    for key, (english, portuguese) in WORDS.items():
        assert english, key
        assert portuguese, key
        assert english.count("{}") == portuguese.count("{}"), key
    assert words.spoken("pt")["yes"] == "sim"


def test_every_text_is_used_and_every_text_used_is_there() -> None:
    own = Path(words.__file__).parent
    sources = [*own.glob("*.html"), *own.glob("site/*.js"), *own.glob("*.py"), *own.parent.glob("ui/*.py")]
    told = "".join(each.read_text("utf-8") for each in sources)
    named = set(re.findall(r"""\bwords(?:\.(?!get\b)|\[["'])([\w-]+)""", told))
    chosen = set(re.findall(r"""\bwords\["[\w-]+" if [^\]]* else "([\w-]+)"\]""", told))
    by_type, by_fault = set(get_args(Type)), {key for key in WORDS if key.startswith("fault_")}
    assert named | chosen <= WORDS.keys()
    assert named | chosen | by_type | by_fault >= WORDS.keys()


@pytest.mark.pages
@pytest.mark.parametrize(("name", "targets"), [("encoded", yes_or_no()), ("forest", []), ("outliers", [])])
def test_a_card_is_told_in_portuguese_but_for_what_others_wrote(name: str, targets: list[int]) -> None:
    data = models.table().assign(churn=targets) if targets else None
    text = (
        opened(FACTORIES[name](), data, target="churn" if targets else "", **late(name)).bundle.files[MEMBER].decode()
    )
    assert words.card(text, "en") == text
    told = about._told(text)
    same = {*told.split("\n")} & {*words.card(told, "pt").split("\n")}
    assert [line for line in same if re.match(r"#+ |- |[A-Z]", line)] == [f"# {told.split()[1]}"]


def test_what_a_person_wrote_into_a_card_stays_and_questions_unanswered_do_not() -> None:
    text = f"---\na: 1\n---\n\n# m\n\n## Intended use\n\n{ASK}\n\n## Contract\n\n| a |\n\n## Mine\n\nOf {{0}} use.\n"
    assert words.card(about._told(text), "pt").split() == "# m ## Mine Of {0} use.".split()
    assert "Who is asked? Ana." in about._told(text.replace(ASK, "Who is asked? Ana."))


def test_a_form_begins_with_a_row_that_the_model_answers(small: Small) -> None:
    made = widgets.form(small.predictor.bundle)
    assert [each.name for each in made.widgets] == [each.name for each in small.predictor.contract.fields]
    small.predictor.predict(made.start)
    for row in made.examples:
        small.predictor.predict(dict(row))


@pytest.mark.pages
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


@pytest.mark.pages
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


def knock(kind: str, path: str = "/", **headers: str) -> list[Any]:
    """Come to the door as a request by a method or as a websocket: what came in, or what was sent back."""
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append("in")

    async def send(message: Any) -> None:
        seen.append(message)

    async def receive() -> Any:
        return {}

    kinds = {"type": "websocket"} if kind == "websocket" else {"type": "http", "method": kind}
    listed = [(name.encode(), value.encode()) for name, value in headers.items() if value]
    where, _, query = path.partition("?")
    scope = {**kinds, "path": where, "query_string": query.encode(), "headers": listed}
    asyncio.run(start.Door(app, guard_at("127.0.0.1", []))(scope, receive, send))
    return seen


@pytest.mark.parametrize("kind", ["GET", "websocket"])
@pytest.mark.parametrize(("host", "let_in"), [("localhost:8501", True), ("127.0.0.1", True), ("evil.example", False)])
def test_pages_and_sockets_answer_to_this_machines_name_only(kind: str, host: str, let_in: bool) -> None:
    assert (knock(kind, host=host) == ["in"]) == let_in


@pytest.mark.parametrize(
    ("origin", "let_in"), [("http://localhost:8501", True), ("", True), ("https://evil.example", False)]
)
@pytest.mark.parametrize("kind", ["POST", "websocket"])
def test_no_page_of_another_site_gets_at_this_one(kind: str, origin: str, let_in: bool) -> None:
    assert (knock(kind, host="localhost:8501", origin=origin) == ["in"]) == let_in


@pytest.mark.parametrize(
    ("path", "to"),
    [
        ("/table", b"./?at=table"),
        ("/about?lang=pt", b"./?at=about&lang=pt"),
        ("/table/x", None),
        ("/charts", None),
        ("//evil.example", None),
        ("/", None),
    ],
)
def test_a_page_of_its_own_is_led_to_by_the_first_one(path: str, to: bytes | None) -> None:
    first, *_ = knock("GET", path, host="localhost")
    assert (first if to is None else (first["status"], dict(first["headers"]))) == (
        "in" if to is None else (302, {b"location": to})
    )


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
    files = site.site(bundle, runtime=dict)
    assert files == site.site(bundle, runtime=dict)
    for name, data in files.items():
        if name.endswith((".html", ".js", ".css")) and name != "papaparse.js":
            assert b"http://" not in data.replace(b"http://www.w3.org", b"")
            assert b"https://" not in data
    assert "default-src 'none'" in html.unescape(files["index.html"].decode())
    assert "unsafe-inline" not in files["_headers"].decode()


@pytest.mark.parametrize("url", ["ftp://a", "https://", "javascript:alert(1)", "https://a; script-src *", "a"])
def test_only_the_address_of_a_service_goes_into_the_policy(small: Small, url: str) -> None:
    with pytest.raises(InputError):
        site.site(small.predictor.bundle, url=url, runtime=dict)


def test_an_original_is_refused_and_told_what_else_can_be_done(small: Small) -> None:
    bundle = small.predictor.bundle
    original = msgspec.structs.replace(bundle, manifest=msgspec.structs.replace(bundle.manifest, serves="original"))
    with pytest.raises(InputError) as caught:
        site.site(original, runtime=dict)
    assert "--url" in caught.value.hint


@settings(deadline=None)
@given(st.lists(st.integers(-300, 70_000) | st.sampled_from([0.5, 0.1, float("nan"), -1.5]), min_size=1))
def test_numbers_for_the_browser_are_the_same_in_fewer_bytes(given: list[float]) -> None:
    told = site._listed(np, given)
    found = [np.frombuffer(base64.b64decode(data), f"<{kind}").astype(float) for kind, data in told]
    read = found[0][found[1].astype(int)] if len(found) > 1 else found[0]
    wanted = np.array(given, dtype=float)
    assert np.array_equal(read if len(read) == len(given) else np.full(len(given), *read), wanted, equal_nan=True)
    assert sum(len(base64.b64decode(data)) for _, data in told) <= 8 * len(given)


@pytest.mark.parametrize("back", [0, 1])
def test_trees_that_lead_back_are_none(back: int) -> None:
    ends = {f"nodes_{side}nodeids": [1, back] for side in ("true", "false")}
    leaves = {f"nodes_{side}leafs": [0, 0] for side in ("true", "false")}
    with pytest.raises(trees.Mixed):
        site._walked(np, {**ends, **leaves, "tree_roots": [0]})


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
