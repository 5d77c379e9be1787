"""The page for after the launch: how much was asked, what was answered, and how what was asked differs."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

import pandas as pd
import streamlit as st

from ketch import log
from ketch.errors import KetchError
from ketch.log import Record
from ketch.page.words import spoken
from ketch.schema.sample import QUANTILES
from ketch.ui import Shown, charts, complaint, numeral

MOST_RECORDS: Final = 50_000
POINTS: Final = 60  # of the line of traffic


def page(what: Shown, lang: str) -> None:
    """Show what the log tells of this model."""
    words = spoken(lang)
    st.title(words["launch"])
    if not what.log:
        st.info(words["no_log"])
        return
    try:
        records = _records(what.log, what.predictor.name)
    except KetchError as error:
        st.error(complaint(error))
        return
    if not records:
        st.info(words["no_traffic"])
        return
    times = pd.to_datetime([each.at for each in records], unit="s", utc=True)
    first, second, third = st.columns(3)
    first.metric(words["requests"], numeral(f"{len(records):,}", words))
    second.metric(words["callers"], numeral(f"{len({each.client for each in records}):,}", words))
    third.metric(words["last"], f"{times.max():%Y-%m-%d %H:%M} UTC")
    _traffic(times, words)
    st.subheader(words["mix"])
    charts.spread([next(iter(each.answer.values()), None) for each in records], words)
    st.subheader(words["shift"])
    _shift(what, records, words)


@st.cache_data(ttl=10, show_spinner=False)
def _records(url: str, name: str) -> list[Record]:
    found = [each for each in log.read(url, limit=MOST_RECORDS, newest=True) if re.split("[:@]", each.model)[0] == name]
    return sorted(found, key=lambda each: each.at)


def _traffic(times: Any, words: Mapping[str, str]) -> None:
    span = (times.max() - times.min()).total_seconds()
    step = max(1, round(span / POINTS))
    counts = pd.Series(1, index=times).resample(f"{step}s").sum()
    if len(counts) > 1:
        st.subheader(words["traffic"])
        charts.lines(list(counts.index), {words["requests"]: counts.tolist()}, kind="T")


def _shift(what: Shown, records: Sequence[Record], words: Mapping[str, str]) -> None:
    """Put the categories asked for beside those of the training data, or the spread of a number."""
    profile: Mapping[str, Any] = what.predictor.bundle.profile
    able = [each for each in what.form.widgets if isinstance(profile.get(each.name), dict)]
    if not able:
        return
    each = st.selectbox(words["name"], able, key="shift", format_func=lambda found: found.label)
    own: Mapping[str, Any] = profile[each.name]
    asked = [record.features.get(each.name) for record in records]
    if counts := own.get("counts"):
        whole, own_whole = len(asked), sum(counts.values())
        seen = Counter(str(value) for value in asked)
        names = [*counts, *(name for name in seen if name not in counts)]
        shares = {
            words["share_training"]: [counts.get(name, 0) / own_whole for name in names],
            words["share_asked"]: [seen[name] / whole for name in names],
        }
        charts.beside(names, shares)
        return
    numbers = [float(value) for value in asked if isinstance(value, int | float) and not isinstance(value, bool)]
    if not own.get("quantiles") or not numbers:
        return
    column = pd.Series(numbers)
    lines = {
        words["share_training"]: own["quantiles"],
        words["share_asked"]: [float(column.quantile(q)) for q in QUANTILES],
    }
    charts.lines(list(QUANTILES), lines)
