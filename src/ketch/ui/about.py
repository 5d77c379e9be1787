"""The page about the model: what it is made of, its card, how well it does, and where it knows nothing."""

import base64
import html
import re
from collections.abc import Mapping
from typing import Final

import pandas as pd
import streamlit as st

from ketch.card import ASK, INTENDED
from ketch.page.words import card, spoken
from ketch.ui import Shown

FRONT: Final = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
PICTURE: Final = re.compile(r"!\[([^\]]*)\]\(([^)\s]*)[^)]*\)")
FIELDS: Final = re.compile(r"^## Contract\n.*?(?=^## |\Z)", re.DOTALL | re.MULTILINE)
COMMENT: Final = re.compile(r"<!--.*?-->", re.DOTALL)


def page(what: Shown, lang: str) -> None:
    """Show what is known of the model."""
    words = spoken(lang)
    st.title(words["about"])
    st.subheader(words["limits"])
    st.write(words["limits_told"])
    rows = [
        [each.label, words[field.type], each.help, words["no" if each.required else "yes"]]
        for each, field in zip(what.form.widgets, what.predictor.contract.fields, strict=True)
    ]
    names = [words[key] for key in ("name", "type", "values", "missing")]
    st.dataframe(pd.DataFrame(rows, columns=names), hide_index=True, width="stretch")
    if what.card:
        st.subheader(words["card"])
        _card(card(_told(what.card), lang), what.plots)
    if what.facts:
        st.subheader(words["facts"])
        table = pd.DataFrame({words["name"]: list(what.facts), words["values"]: list(what.facts.values())})
        st.dataframe(table, hide_index=True, width="stretch")


def _told(text: str) -> str:
    """Leave out of a card what is no news here: data for programs, the fields, and questions that nobody answered."""
    text = FRONT.sub("", text).replace(f"## {INTENDED}\n\n{ASK}\n", "")
    return COMMENT.sub("", FIELDS.sub("", text))


def _card(text: str, plots: Mapping[str, bytes]) -> None:
    """Show a card with its own pictures; one from elsewhere would tell its host who reads here."""
    text = text.replace("\n# ", "\n### ").replace("\n## ", "\n#### ")
    at = 0
    for found in PICTURE.finditer(text):
        st.markdown(text[at : found.start()])
        if (plot := plots.get(found[2])) is not None:
            _picture(plot, found[1] or found[2])
        at = found.end()
    st.markdown(text[at:])


def _picture(plot: bytes, told: str) -> None:
    """Show a picture with words for those who do not see it, which `st.image` has no place for."""
    source = base64.b64encode(plot).decode()
    words = html.escape(told, quote=True)
    st.html(f'<img src="data:image/svg+xml;base64,{source}" alt="{words}" style="max-width: 100%; background: white">')
