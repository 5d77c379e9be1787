"""The script that Streamlit runs for every visitor, at every change: language, sign-in, pages."""

from importlib.resources import files
from typing import Any

import streamlit as st

from ketch.page.words import LANGUAGES, language, spoken
from ketch.ui import Shown, literal, shown, sibling

ICON = files("ketch.page") / "site" / "icon.svg"  # one of Streamlit's own would come from elsewhere
PAGES = (("ask", "ask", ":material/edit_note:"), ("table", "file", ":material/table_view:"),
         ("about", "about", ":material/info:"), ("launch", "launch", ":material/monitoring:"))  # fmt: skip


def main() -> None:
    """Show the page."""
    what = shown()
    lang = language(str(st.query_params.get("lang", "")), st.context.locale or "")
    words = spoken(lang)
    st.set_page_config(page_title=what.predictor.name, page_icon=str(ICON), layout="wide")
    if not _let_in(what, words):
        return
    pages = [_page(name, words[title], icon, what, lang) for name, title, icon in PAGES]
    chosen = st.navigation(pages, position="hidden")  # at the side it would cover a phone's page
    with st.container(horizontal=True, vertical_alignment="center"):
        for each in pages:
            st.page_link(each)
        other = next(each for each in LANGUAGES if each != lang)
        st.markdown(f"[{words['other']}](?lang={other})", width="content")
        if what.oidc:
            st.button(words["sign_out"], on_click=st.logout)
    chosen.run()


def _page(name: str, title: str, icon: str, what: Shown, lang: str) -> Any:
    return st.Page(lambda: sibling(name).page(what, lang), title=title, icon=icon, url_path=name, default=name == "ask")


def _let_in(what: Shown, words: dict[str, str]) -> bool:
    """Let a visitor in by the identity provider, or by a key; nobody where neither is set and the page is guarded."""
    if what.oidc:
        if st.user.is_logged_in:
            return True
        st.title(literal(what.predictor.name))
        st.button(words["sign_in"], on_click=st.login, type="primary")
        return False
    if what.admits is None or st.session_state.get("admitted"):
        return True
    with st.form("key"):
        st.title(literal(what.predictor.name))
        st.write(words["sign_in_told"])
        key = st.text_input(words["key_given"], type="password", autocomplete="off")
        asked = st.form_submit_button(words["sign_in"], type="primary")
    if not asked:
        return False
    if what.admits(key, st.context.headers.get("host") or ""):
        st.session_state["admitted"] = True
        st.rerun()
    st.error(words["key_wrong"])
    return False


main()
