"""Every setting, in one table that feeds the flags, their help and the docs.

A value comes from: flag > environment KETCH_* > the platform's variable > settings file > default.
"""

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import get_type_hints

from ketch.errors import SettingError


@dataclass(frozen=True)
class Setting:
    """One row of the table; `personal` ones are never read from a project's file."""

    name: str
    default: str
    help: str
    personal: bool = False
    platform: tuple[str, ...] = ()

    @property
    def variable(self) -> str:
        """Name the environment variable."""
        return "KETCH_" + self.name.upper()

    @property
    def flag(self) -> str:
        """Name the command line flag."""
        return "--" + self.name.replace("_", "-")


TABLE = (
    Setting("home", "~/.ketch", "Folder that holds store, keys, approvals and cache.", personal=True),
    Setting("host", "127.0.0.1", "Address to listen on; any but loopback needs keys or --auth."),
    Setting("port", "9696", "Port to listen on.", platform=("PORT", "AIP_HTTP_PORT")),
    Setting("api_keys", "", "Keys that open the service, separated by commas.", personal=True),
    Setting("api_keys_file", "", "File with one key on each line.", personal=True),
    Setting("auth", "keys", "Who checks callers: keys, platform (it does) or none.", personal=True),
    Setting("allowed_hosts", "", "Host names answered to, separated by commas; *.example.com stands for all below it."),
    Setting("cors", "", "Origins whose pages may call from a browser, separated by commas; * for all.", personal=True),
    Setting("rate", "", "Most requests of each caller, such as 100/s,10000/day."),
    Setting("jwt_issuer", "", "Who must have issued a token (iss) that opens the service.", personal=True),
    Setting("jwt_audience", "", "Whom a token must be meant for (aud).", personal=True),
    Setting("jwt_jwks", "", "Where the issuer's keys are: an https URL, or a file.", personal=True),
    Setting("jwt_algorithms", "RS256,ES256", "How a token may be signed.", personal=True),
    Setting("jwt_scopes_claim", "scope", "The claim that names what a token opens.", personal=True),
    Setting("tls_cert", "", "File with the certificate, and those that vouch for it, to serve https.", personal=True),
    Setting("tls_key", "", "File with the private key of the certificate.", personal=True),
    Setting("tls_client_ca", "", "File with the authorities whose certificates callers must show.", personal=True),
    Setting("workers", "0", "Processes that answer; 0 stands for one for each core."),
    Setting("deadline", "30", "Seconds that a question may wait and run."),
    Setting("queue", "256", "Questions that may wait in one process; more are told to come back."),
    Setting("connections", "4096", "Connections that one process keeps open."),
    Setting("drain", "1", "Seconds of serving on after the order to stop, while load balancers learn of it."),
    Setting("default", "", "The model at /predict, where there are several: the first unless said otherwise."),
    Setting("follow", "false", "Serve what an alias or file points to, also when that changes."),
    Setting("split", "", "A second version and its share of the questions: churn@challenger=10."),
    Setting("shadow", "", "A version that is asked too and whose answers are only recorded: churn@challenger."),
    Setting("metrics_port", "0", "Port of this machine alone for /metrics; 0 stands for none."),
    Setting("grpc_port", "0", "Port for the Open Inference Protocol by gRPC; 0 stands for none."),
    Setting("access_log", "", "A file for a line of JSON about each request; - is standard output.", personal=True),
    Setting("log", "", "Where predictions are recorded: sqlite:///FILE or postgresql://…", personal=True),
    Setting("max_body", "8388608", "Largest JSON body that is read, in bytes."),
    Setting("max_rows", "10000", "Most rows answered in one request."),
    Setting("strict", "false", "Refuse every row that would be flagged."),
    Setting("lenient", "false", "Flag, rather than refuse, what the original would have answered."),
    Setting("isolated", "false", "Run in a virtual environment of the bundle's own, made when needed and kept."),
    Setting("require_signature", "false", "Open only bundles signed with a key trusted here.", personal=True),
)
LEAST = {"max_body": 1, "max_rows": 1, "workers": 0, "queue": 1, "connections": 1, "drain": 0, "deadline": 0.01}
NAMES = {setting.name: setting for setting in TABLE}


@dataclass(frozen=True)
class Settings:
    """The values in force, one attribute for each row of the table."""

    home: Path
    host: str
    port: int
    api_keys: tuple[str, ...]
    api_keys_file: str
    auth: str
    allowed_hosts: tuple[str, ...]
    cors: tuple[str, ...]
    rate: str
    jwt_issuer: str
    jwt_audience: str
    jwt_jwks: str
    jwt_algorithms: tuple[str, ...]
    jwt_scopes_claim: str
    tls_cert: str
    tls_key: str
    tls_client_ca: str
    workers: int
    deadline: float
    queue: int
    connections: int
    drain: float
    default: str
    follow: bool
    split: tuple[str, ...]
    shadow: tuple[str, ...]
    metrics_port: int
    grpc_port: int
    access_log: str
    log: str
    max_body: int
    max_rows: int
    strict: bool
    lenient: bool
    isolated: bool
    require_signature: bool


def home(environ: Mapping[str, str]) -> Path:
    """Give the user's own folder, KETCH_HOME."""
    return Path(environ.get("KETCH_HOME") or NAMES["home"].default).expanduser()


def requires_signature(environ: Mapping[str, str]) -> bool:
    """Say whether this user opens signed bundles only.

    Raises:
        SettingError: the variable says neither yes nor no.
    """
    row = NAMES["require_signature"]
    return _yes_or_no(environ.get(row.variable) or row.default, row.variable)


def read(
    flags: Mapping[str, object], *, environ: Mapping[str, str], folder: Path, without_file: bool = False
) -> Settings:
    """Settle every setting from the flags given, the environment and the folder's settings file.

    Raises:
        SettingError: a value that cannot be read, or a personal setting in a project's file.
    """
    written = {} if without_file else _settings_file(folder)
    kinds = get_type_hints(Settings)
    values: dict[str, object] = {}
    for setting in TABLE:
        text, source = _find(setting, flags, environ, written)
        values[setting.name] = _CAST[kinds[setting.name]](text, source)
    settings = Settings(**values)  # type: ignore[arg-type]
    if settings.strict and settings.lenient:
        raise SettingError("strict and lenient contradict each other", hint="Give one of --strict and --lenient.")
    if settings.auth not in {"keys", "none", "platform"}:
        raise SettingError(f"auth cannot be {settings.auth!r}", hint="Use keys, platform or none.")
    for name in ("port", "metrics_port", "grpc_port"):
        if not 0 <= getattr(settings, name) <= 65535:
            raise SettingError(
                f"{name} {getattr(settings, name)} does not exist", hint="Give a number from 1 to 65535."
            )
    for name, least in LEAST.items():
        if not getattr(settings, name) >= least:
            raise SettingError(f"{name} must be at least {least:g}", hint="Leave it out for the default.")
    if bool(settings.tls_cert) != bool(settings.tls_key) or (settings.tls_client_ca and not settings.tls_cert):
        raise SettingError("https needs a certificate and its key", hint="Give both --tls-cert and --tls-key.")
    return settings


def _find(
    setting: Setting, flags: Mapping[str, object], environ: Mapping[str, str], written: Mapping[str, object]
) -> tuple[str, str]:
    if (flag := flags.get(setting.name)) is not None and flag is not False:
        return str(flag), setting.flag
    for variable in (setting.variable, *setting.platform):
        if environ.get(variable):
            return environ[variable], variable
    if setting.name in written:
        return str(written[setting.name]), "the settings file"
    return setting.default, "the default"


def _settings_file(folder: Path) -> Mapping[str, object]:
    for name, table in (("ketch.toml", ()), ("pyproject.toml", ("tool", "ketch"))):
        path = folder / name
        if not path.is_file():
            continue
        try:
            content = tomllib.loads(path.read_text("utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            if table:  # a broken pyproject.toml is for its own tools to report
                continue
            raise SettingError(
                f"{name} is not valid TOML: {error}", hint="Mend that line, or remove the file."
            ) from None
        for key in table:
            content = content.get(key, {})
            if not isinstance(content, Mapping):
                raise SettingError(f"{name} has no table [{'.'.join(table)}]", hint="Give settings as NAME = VALUE.")
        if content:
            return _only_allowed(content, name)
    return {}


def _only_allowed(content: Mapping[str, object], name: str) -> Mapping[str, object]:
    for key in content:
        if key not in NAMES:
            raise SettingError(f"{name} sets {key!r}, which is no setting", hint="See: ketch serve --help")
        if NAMES[key].personal:
            raise SettingError(
                f"{name} sets {key!r}, which a project may not decide",
                hint=f"Set {NAMES[key].variable} instead.",
            )
    return content


def _number(text: str, source: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise SettingError(f"{source} is {text!r}, not a whole number", hint="Give digits only.") from None


def _seconds(text: str, source: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise SettingError(f"{source} is {text!r}, not a number of seconds", hint="Give a number.") from None


def _yes_or_no(text: str, source: str) -> bool:
    if text.lower() in {"1", "true", "yes", "on"}:
        return True
    if text.lower() in {"", "0", "false", "no", "off"}:
        return False
    raise SettingError(f"{source} is {text!r}, neither yes nor no", hint="Give true or false.")


def _words(text: str, source: str) -> tuple[str, ...]:
    return tuple(word for word in (part.strip() for part in text.split(",")) if word)


_CAST: Mapping[object, Callable[[str, str], object]] = {
    int: _number,
    float: _seconds,
    bool: _yes_or_no,
    str: lambda text, source: text,
    Path: lambda text, source: Path(text).expanduser(),
    tuple[str, ...]: _words,
}

if [field.name for field in fields(Settings)] != [setting.name for setting in TABLE]:
    raise TypeError("Settings and its table have drifted apart")
