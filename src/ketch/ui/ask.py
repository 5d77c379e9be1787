"""The page that asks: a form, the answer in words, why, what if, and what would turn it."""

from collections.abc import Mapping
from datetime import date
from typing import Any, Final

import streamlit as st

from ketch.errors import KetchError, RowsRefused
from ketch.explain import changes
from ketch.page.widgets import Widget
from ketch.page.words import spoken
from ketch.schema import Answer
from ketch.ui import Shown, complaint, literal, numeral, sibling

COLUMNS: Final = 2
MANY: Final = 24  # fields that are shown at once; a search finds the others
FEW: Final = 8  # categories shown in a fault
SHOWN: Final = 12  # contributions in the chart
Row = dict[str, Any]


def page(what: Shown, lang: str) -> None:
    """Show the form beside its answer."""
    words = spoken(lang)
    st.title(literal(what.predictor.name))
    _examples(what, words)
    left, right = st.columns([3, 2], gap="medium")
    with left:
        row = _form(what, words)
    with right:
        st.subheader(words["answer"])
        answer = _answer(what, row, words)
        if answer is None:
            return
        _why(what, row, lang)
    _what_if(what, row, answer, words)
    _turn(what, row, words)


# ---- the form ------------------------------------------------------------------------------------------


def _key(at: int) -> str:
    return f"field-{at}"


def _examples(what: Shown, words: Mapping[str, str]) -> None:
    rows: list[Mapping[str, Any]] = [what.form.start, *what.form.examples]
    names = [words["typical"], *(words["example"].format(at) for at in range(1, len(rows)))]

    def chosen() -> None:
        name = st.session_state.get("example")
        if name in names:
            _fill(what, rows[names.index(name)])

    st.pills(words["examples"], names, key="example", on_change=chosen)


def _fill(what: Shown, row: Mapping[str, Any]) -> None:
    for at, each in enumerate(what.form.widgets):
        st.session_state[_key(at)] = _held(each, row.get(each.name))


def _held(each: Widget, value: Any) -> Any:
    """Give what a widget holds for a value of its field."""
    if value is None or each.kind in {"choice", "yesno"}:
        return value if value is None or each.kind == "yesno" or value in each.choices else None
    if each.kind == "slider" and each.minimum is not None and each.maximum is not None:
        value = min(max(value, each.minimum), each.maximum)
    if each.kind in {"slider", "number"}:
        return int(value) if each.whole else float(value)
    if each.kind == "date":
        return date.fromisoformat(str(value)[:10])
    return ", ".join(map(str, value)) if each.kind == "vector" else str(value)


def _form(what: Shown, words: Mapping[str, str]) -> Row:
    widgets = what.form.widgets
    if _key(0) not in st.session_state:
        _fill(what, what.form.start)
    wanted = ""
    if len(widgets) > MANY:
        wanted = st.text_input(words["find"], key="find").strip().lower()
    found = [at for at, each in enumerate(widgets) if wanted in f"{each.label} {each.name}".lower()]
    places = found[:MANY]  # more would take long to draw again at each change, and nobody reads them
    for nth in range(0, len(places), COLUMNS):  # line by line, for phones put columns below each other
        for at, column in zip(places[nth : nth + COLUMNS], st.columns(COLUMNS), strict=False):
            with column:
                _input(widgets[at], _key(at), words)
    if len(widgets) > MANY:
        st.caption(words["shown"].format(len(places), len(widgets)))
    for at in set(range(len(widgets))) - set(places):  # Streamlit forgets what is not shown
        st.session_state[_key(at)] = st.session_state.get(_key(at))
    row = {each.name: _read(each, st.session_state.get(_key(at))) for at, each in enumerate(widgets)}
    return {name: value for name, value in row.items() if value is not None}


def _input(each: Widget, key: str, words: Mapping[str, str]) -> None:
    label = literal(each.label + (f" ({each.unit})" if each.unit else ""))
    shape = None if each.whole else "%.6g"
    told: dict[str, Any] = {"key": key, "help": literal(each.help) or None}
    if each.kind == "choice":
        choices: list[Any] = list(each.choices) if each.required else [None, *each.choices]
        st.selectbox(label, choices, format_func=lambda value: words["empty"] if value is None else str(value), **told)
    elif each.kind == "yesno":
        options = [True, False] if each.required else [None, True, False]
        st.selectbox(label, options, format_func=lambda value: _yes_or_no(value, words), **told)
    elif each.kind == "slider" and each.required:
        kind: Any = int if each.whole else float
        st.slider(label, kind(each.minimum), kind(each.maximum), step=kind(each.step), format=shape, **told)
    elif each.kind in {"slider", "number"}:
        st.number_input(label, step=1 if each.whole else each.step, format=shape, **told)
    elif each.kind == "date":
        st.date_input(label, min_value=date(1800, 1, 1), max_value=date(2200, 1, 1), **told)
    elif each.kind == "text":
        st.text_area(label, height=100, **told)
    else:
        st.text_input(label, **told)


def _yes_or_no(value: bool | None, words: Mapping[str, str]) -> str:
    return words["empty"] if value is None else words["yes" if value else "no"]


def _read(each: Widget, value: Any) -> Any:
    if value is None or value == "":
        return None
    if each.kind == "date":
        return value.isoformat() if isinstance(value, date) else value
    if each.kind == "vector":
        return _numbers(str(value))
    return value


def _numbers(text: str) -> list[float] | str:
    try:
        return [float(cell) for cell in text.replace(",", " ").replace(";", " ").split()]
    except ValueError:
        return text


# ---- the answer ----------------------------------------------------------------------------------------


def _answer(what: Shown, row: Row, words: Mapping[str, str]) -> Row | None:
    try:
        answer: Row = what.predictor.predict(row)
    except RowsRefused as error:
        st.error(words["refused"])
        for fault in error.errors:
            st.markdown("- " + literal(fault_told(fault, what, words)))
        return None
    except KetchError as error:
        st.error(complaint(error))
        return None
    whole = what.predictor.contract.answer
    for part in whole.parts or (whole,):
        _sentence(part, answer, words)
    return answer


def fault_told(fault: Mapping[str, Any], what: Shown, words: Mapping[str, str]) -> str:
    """Say a fault in words."""
    known = {each.name: each for each in what.predictor.contract.fields}
    name = str(fault.get("field", ""))
    field = known.get(name)
    text = words.get(f"fault_{fault.get('code', '')}", "{field}: {expected}")
    if field is None:
        return text.format(field=name, expected="", allowed="", low="", high="")
    listed = [*map(str, field.categories[:FEW]), *(["…"] if len(field.categories) > FEW else [])]
    ends = ["…" if end is None else numeral(f"{end:g}", words) for end in (field.minimum, field.maximum)]
    told = {"expected": words[field.type], "allowed": ", ".join(listed), "low": ends[0], "high": ends[1]}
    return text.format(field=field.label or name, **told)


def _sentence(answer: Answer, found: Mapping[str, Any], words: Mapping[str, str]) -> None:
    name = answer.target
    said, likely = in_words(answer, found, words)
    st.markdown(f"### {literal(said)}")
    if likely:
        st.markdown(literal(likely))
    if (chance := found.get(f"{name}_probability")) is not None:
        st.progress(min(max(float(chance), 0.0), 1.0))
    elif chances := found.get(f"{name}_probabilities"):
        ordered = sorted(chances.items(), key=lambda each: -each[1])
        sibling("charts").bars([str(key) for key, _ in ordered], [each for _, each in ordered], most=1.0)


def in_words(answer: Answer, found: Mapping[str, Any], words: Mapping[str, str]) -> tuple[str, str]:
    """Put an answer into words: what it is, and how sure."""
    name = answer.target
    if answer.task == "outlier":
        score = found.get("outlier_score")
        return words["unusual" if found["outlier"] else "usual"], "" if score is None else _score(score, words)
    if answer.task == "cluster":
        return words["group"].format(found["cluster"]), ""
    if answer.task == "regression":
        return f"{name}: {number(found[name], words)}", ""
    value = found[name]
    said = f"{name}: {_yes_or_no(value, words) if isinstance(value, bool) else value}"
    if (likely := found.get(f"{name}_probability")) is not None:
        of = words["yes"] if isinstance(value, bool) else answer.positive
        return said, words["likely"].format(of, numeral(f"{likely:.1%}", words))
    score = found.get(f"{name}_score")
    return said, "" if score is None else _score(score, words)


def _score(score: float, words: Mapping[str, str]) -> str:
    return words["score"].format(number(score, words))


def number(value: float, words: Mapping[str, str]) -> str:
    """Write a number with as many digits as matter."""
    return numeral(f"{value:,.2f}" if 1000 <= abs(value) < 1e15 else f"{value:.5g}", words)


# ---- why -----------------------------------------------------------------------------------------------


def _why(what: Shown, row: Row, lang: str) -> None:
    words = spoken(lang)
    if what.explain is None or (what.slow and not st.toggle(words["why"], key="why")):
        return
    try:
        found = what.explain(row, lang)
    except KetchError as error:
        st.caption(complaint(error))
        return
    if not what.slow:
        st.subheader(words["why"])
    for reason in found["reasons"]:
        st.markdown("- " + literal(reason))
    sibling("charts").waterfall(_steps(what, found, words), str(found["scale"]))


def _steps(what: Shown, found: Mapping[str, Any], words: Mapping[str, str]) -> list[tuple[str, float, float, str]]:
    """List contributions as steps from what is usual to this row's score; small ones are one step."""
    labels = {each.name: each.label for each in what.form.widgets}
    ordered = sorted(found["contributions"].items(), key=lambda each: -abs(each[1]))
    steps = [(labels.get(name, name), by) for name, by in ordered[:SHOWN] if by]
    if rest := sum(by for _, by in ordered[SHOWN:]):
        steps.append(("…", rest))
    listed, at = [(words["base"], found["base"], found["base"], "")], found["base"]
    for name, by in steps:
        listed.append((name, at, at + by, "+" if by > 0 else "-"))
        at += by
    return [*listed, (words["total"], found["score"], found["score"], "")]


# ---- what if -------------------------------------------------------------------------------------------


@st.fragment
def _what_if(what: Shown, row: Row, answer: Row, words: Mapping[str, str]) -> None:
    able = [each for each in what.form.widgets if each.kind in {"choice", "yesno", "slider"}]
    if not able:
        return
    st.subheader(words["what_if"])
    first = next((at for at, each in enumerate(able) if each.kind == "slider"), 0)
    each: Widget = st.selectbox(
        words["what_if_told"], able, index=first, key="what-if", format_func=lambda found: found.label
    )
    try:
        points = changes.what_if(what.predictor, row, each.name)
    except KetchError as error:
        st.caption(complaint(error))
        return
    numeric = each.kind == "slider"
    across = [value if numeric else _value(value, words) for value, _ in points]
    told = _followed(what.predictor.contract.answer, answer, words)
    sibling("charts").curve(across, [score for _, score in points], told, own=row.get(each.name) if numeric else None)


def _followed(answer: Answer, found: Row, words: Mapping[str, str]) -> str:
    """Name the number of an answer that is followed while a field changes."""
    answer = answer.parts[0] if answer.parts else answer
    value = found.get(answer.target)
    if answer.values != "probability":
        return answer.target
    of = words["yes"] if isinstance(value, bool) else answer.positive if answer.task == "binary" else value
    return words["likely"].format(of, "").rstrip(": ")


@st.fragment
def _turn(what: Shown, row: Row, words: Mapping[str, str]) -> None:
    task = what.predictor.contract.answer.task
    if task in {"regression", "several"} or not st.button(words["nearest"], key="nearest"):
        return
    try:
        found = changes.nearest_flip(what.predictor, row)
    except KetchError as error:
        st.caption(complaint(error))
        return
    if found is None:
        st.info(words["nearest_none"])
        return
    labels = {each.name: each.label for each in what.form.widgets}
    told = ", ".join(f"{labels.get(name, name)} = {_value(value, words)}" for name, value in found.items())
    st.info(words["nearest_told"].format(literal(told)))


def _value(value: object, words: Mapping[str, str]) -> str:
    if isinstance(value, bool):
        return words["yes" if value else "no"]
    return number(value, words) if isinstance(value, float) else str(value)
