"""Where each setting comes from, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.errors import SettingError
from ketch.settings import NAMES, TABLE, Settings, home, read


def settle(folder: Path, flags: dict[str, object] | None = None, **environ: str) -> Settings:
    return read(flags or {}, environ=environ, folder=folder)


def test_defaults(tmp_path: Path) -> None:
    found = settle(tmp_path)
    assert found == Settings(
        home=Path("~/.ketch").expanduser(),
        host="127.0.0.1",
        port=9696,
        api_keys=(),
        api_keys_file="",
        auth="keys",
        allowed_hosts=(),
        cors=(),
        rate="",
        jwt_issuer="",
        jwt_audience="",
        jwt_jwks="",
        jwt_algorithms=("RS256", "ES256"),
        jwt_scopes_claim="scope",
        tls_cert="",
        tls_key="",
        tls_client_ca="",
        workers=0,
        deadline=30.0,
        queue=256,
        connections=4096,
        drain=1.0,
        default="",
        follow=False,
        split=(),
        shadow=(),
        metrics_port=0,
        grpc_port=0,
        access_log="",
        log="",
        max_body=8 * 2**20,
        max_rows=10_000,
        strict=False,
        lenient=False,
        isolated=False,
        require_signature=False,
    )


def test_flag_before_environment_before_platform_before_file_before_default(tmp_path: Path) -> None:
    (tmp_path / "ketch.toml").write_text("port = 1\n")
    own: dict[str, Any] = {"PORT": "2", "AIP_HTTP_PORT": "3", "KETCH_PORT": "4"}
    assert settle(tmp_path).port == 1
    assert settle(tmp_path, AIP_HTTP_PORT="3").port == 3
    assert settle(tmp_path, PORT="2", AIP_HTTP_PORT="3").port == 2
    assert settle(tmp_path, **own).port == 4
    assert settle(tmp_path, {"port": 5}, **own).port == 5
    assert settle(tmp_path, {"port": 0}, **own).port == 0
    assert settle(tmp_path, {"port": None}, **own).port == 4
    assert settle(tmp_path, PORT="", KETCH_PORT="").port == 1
    assert read({}, environ={}, folder=tmp_path, without_file=True).port == 9696


def test_a_flag_that_was_not_given_does_not_switch_off_what_the_environment_switched_on(tmp_path: Path) -> None:
    assert settle(tmp_path, {"strict": False}, KETCH_STRICT="yes").strict
    assert settle(tmp_path, {"strict": True}).strict


@pytest.mark.parametrize(("text", "value"), [("1", True), ("TRUE", True), ("on", True), ("no", False), ("Off", False)])
def test_yes_and_no(tmp_path: Path, text: str, value: bool) -> None:
    assert settle(tmp_path, KETCH_LENIENT=text).lenient is value


def test_keys_are_separated_by_commas_and_home_is_expanded(tmp_path: Path) -> None:
    found = settle(tmp_path, KETCH_API_KEYS=" a, b ,,", KETCH_HOME="~/k")
    assert found.api_keys == ("a", "b")
    assert found.home == Path("~/k").expanduser()
    assert home({"KETCH_HOME": "~/k"}) == found.home
    assert home({}) == home({"KETCH_HOME": ""}) == Path("~/.ketch").expanduser()


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"KETCH_PORT": "many"}, "KETCH_PORT is 'many', not a whole number"),
        ({"PORT": "80.5"}, "PORT is '80.5'"),
        ({"KETCH_PORT": "65536"}, "port 65536 does not exist"),
        ({"KETCH_PORT": "-1"}, "port -1"),
        ({"KETCH_STRICT": "maybe"}, "KETCH_STRICT is 'maybe'"),
        ({"KETCH_STRICT": "1", "KETCH_LENIENT": "1"}, "contradict"),
        ({"KETCH_AUTH": "nobody"}, "auth cannot be 'nobody'"),
        ({"KETCH_MAX_ROWS": "0"}, "at least 1"),
        ({"KETCH_MAX_BODY": "-5"}, "at least 1"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_its_source(tmp_path: Path, environ: dict[str, str], words: str) -> None:
    with pytest.raises(SettingError, match=words) as caught:
        read({}, environ=environ, folder=tmp_path)
    assert caught.value.hint


def test_a_flag_is_blamed_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="--max-rows is 'x'"):
        settle(tmp_path, {"max_rows": "x"})


def test_settings_stand_in_ketch_toml_or_pyproject(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.ketch]\nport = 7\nstrict = true\n")
    assert (settle(tmp_path).port, settle(tmp_path).strict) == (7, True)
    (tmp_path / "ketch.toml").write_text("max_rows = 5\n")
    found = settle(tmp_path)
    assert (found.port, found.max_rows) == (9696, 5)


def test_other_peoples_tables_are_none_of_ours(tmp_path: Path) -> None:
    (tmp_path / "ketch.toml").write_text("")
    (tmp_path / "pyproject.toml").write_text("[tool.ruff]\nline-length = 120\n")
    assert settle(tmp_path).port == 9696
    (tmp_path / "pyproject.toml").write_text("[tool\n")
    assert settle(tmp_path).port == 9696


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("ketch.toml", "[port", "not valid TOML"),
        ("ketch.toml", "colour = 1", "'colour', which is no setting"),
        ("ketch.toml", 'port = "x"', "the settings file is 'x'"),
        ("ketch.toml", "[port]\na = 1", "not a whole number"),
        ("pyproject.toml", "tool = 3", "no table"),
        ("pyproject.toml", "[tool]\nketch = 3", "no table"),
        ("pyproject.toml", '[tool]\nketch = "port"', "no table"),
        ("pyproject.toml", "[tool.ketch]\nprot = 1", "'prot'"),
    ],
)
def test_a_settings_file_that_cannot_be_meant_is_refused(tmp_path: Path, name: str, text: str, words: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(SettingError, match=words) as caught:
        settle(tmp_path)
    assert caught.value.hint


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "ketch.toml").write_bytes(b"\xff")
    with pytest.raises(SettingError, match="not valid TOML"):
        settle(tmp_path)


@pytest.mark.parametrize("setting", [each for each in TABLE if each.personal], ids=lambda each: each.name)
def test_what_is_personal_is_never_read_from_a_project(tmp_path: Path, setting: object) -> None:
    name = getattr(setting, "name", "")
    (tmp_path / "ketch.toml").write_text(f'{name} = "x"\n')
    with pytest.raises(SettingError, match="which a project may not decide") as caught:
        settle(tmp_path)
    assert f"KETCH_{name.upper()}" in caught.value.hint


def test_whoever_decides_on_trust_is_personal() -> None:
    assert {"home", "api_keys", "api_keys_file", "auth", "log"} <= {each.name for each in TABLE if each.personal}


def test_the_table_names_variable_and_flag() -> None:
    assert NAMES["max_rows"].variable == "KETCH_MAX_ROWS"
    assert NAMES["max_rows"].flag == "--max-rows"
    assert all(each.help for each in TABLE)


@given(st.dictionaries(st.sampled_from([each.variable for each in TABLE]), st.text(max_size=8)))
def test_any_environment_is_read_or_refused(environ: dict[str, str]) -> None:
    try:
        read({}, environ=environ, folder=Path(), without_file=True)
    except SettingError as error:
        told = error.hint
    else:
        told = "read"
    assert told
