"""The script that Streamlit runs for every visitor, at every change: language, sign-in, pages."""

from importlib.resources import files
from typing import Any

import streamlit as st

from ketch.page.words import LANGUAGES, language, spoken
from ketch.ui import Shown, shown, sibling

ICON = files("ketch.page") / "site" / "icon.svg"  # one of Streamlit's own would come from elsewhere
CLOSER = "<style>.stMainBlockContainer { padding-top: 4rem }</style>"  # a phone shows little at once
PAGES = (("ask", "ask", ":material/edit_note:"), ("table", "file", ":material/table_view:"),
         ("about", "about", ":material/info:"), ("launch", "launch", ":material/monitoring:"))  # fmt: skip


def main() -> None:
    """Show the page."""
    what = shown()
    asked = str(st.query_params.get("lang", ""))
    lang = language(asked, st.context.locale or "")
    words = spoken(lang)
    known = _is_let_in(what)
    title = what.predictor.name if known else words["sign_in"]
    st.set_page_config(page_title=title, page_icon=str(ICON), layout="wide")
    if not known:
        _sign_in(what, words)
        return
    st.html(CLOSER)
    pages = {name: _page(name, words[title], icon, what, lang) for name, title, icon in PAGES}
    chosen = st.navigation([*pages.values()], position="hidden")  # at the side it would cover a phone's page
    kept = {"lang": lang} if asked else None
    wanted = pages.get(str(st.query_params.get("at", "")))  # `Door` writes it
    if wanted and not st.session_state.get("turned"):  # once: a step back is one
        st.session_state["turned"] = True
        st.switch_page(wanted, query_params=kept)
    with st.container(horizontal=True, vertical_alignment="center"):
        for each in pages.values():
            st.page_link(each, query_params=kept)
        other = next(each for each in LANGUAGES if each != lang)
        st.button(words["other"], type="tertiary", on_click=st.query_params.update, args=({"lang": other},))
        if what.oidc:
            st.button(words["sign_out"], on_click=st.logout)
    chosen.run()


def _page(name: str, title: str, icon: str, what: Shown, lang: str) -> Any:
    return st.Page(lambda: sibling(name).page(what, lang), title=title, icon=icon, url_path=name, default=name == "ask")


def _is_let_in(what: Shown) -> bool:
    if what.oidc:
        return bool(st.user.is_logged_in)
    return what.admits is None or bool(st.session_state.get("admitted"))


def _sign_in(what: Shown, words: dict[str, str]) -> None:
    """Ask for an account at the identity provider, or a key; who has none is not told which model this is."""
    if what.oidc:
        st.title(words["sign_in"])
        st.button(words["sign_in"], on_click=st.login, type="primary")
        return
    with st.form("key"):
        st.title(words["sign_in"])
        st.write(words["sign_in_told"])
        key = st.text_input(words["key_given"], type="password", autocomplete="off")
        asked = st.form_submit_button(words["sign_in"], type="primary")
    if not asked:
        return
    if what.admits and what.admits(key, st.context.headers.get("host") or ""):
        st.session_state["admitted"] = True
        st.rerun()
    st.error(words["key_wrong"])


main()
