"""Compose, on one machine: service, page, log, metrics and their dashboard, by docker compose or podman-compose.

Shipment --*images*--> compose file --*up*--> containers --*healthy*--> smoke

What a later run needs to know stands with the containers: the keys in their environment, which the engine keeps from
all but those who command it, and the compose file of this release and of the one before in labels of the service.
"""

import base64
import gzip
import ipaddress
import json
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ketch.deploy import Option, Options, Shipment, Target, images, require_forms, smoke, stack
from ketch.errors import CloudRefused, DeployError, NotInstalled, UsageError
from ketch.steps import Answers, Both, Call, Done, Got, Hands, Plan, Question, Secret, Step, resolved
from ketch.steps.command import Command
from ketch.trust import calling

ABSENT: Final = {"No such": "absent", "no such": "absent", "not found": "absent"}
LOGS: Final = "See: ketch deploy compose NAME --logs"
TAKEN: Final = {"port is already allocated": "taken", "address already in use": "taken"}
HINTS: Final = {"taken": "A port is taken: choose others with --port and --page-port."}
RELEASE, PREVIOUS = "ketch.release", "ketch.previous"
BACK: Final = "-"  # in place of the one before, where a rollback has gone to it
FORMS: Final = {"memory": (r"(?i)[1-9]\d{0,8}[kmg]b?|[1-9]\d{6,}b?", "512m or 2g")}
HEALTHY: Final = 300.0  # seconds
KEPT: Final = {  # secret -> the role that has it in its environment, and the variable
    "key": ("service", "KETCH_API_KEYS"),
    "metrics": ("prometheus", "METRICS_KEY"),
    "database": ("database", "POSTGRES_PASSWORD"),
    "grafana": ("grafana", "GF_SECURITY_ADMIN_PASSWORD"),
}
HINT: Final = "Install it with the engine: docker compose, docker-compose or podman-compose."
OPTIONS: Final = (
    Option("engine", "The container engine.", "docker", choices=("docker", "podman")),
    Option("host", "Address of this machine at which service and page are published.", "127.0.0.1"),
    Option("port", "Port of the service.", 9696),
    Option("page_port", "Port of the page.", 8501),
    Option("grafana_port", "Port of Grafana; 0 stands for none.", 0),
    Option("memory", "Memory of the service, such as 512m.", "512m"),
    Option("without", "What is left out, separated by commas: page, prometheus, grafana."),
    Option("base_image", "The image that those of the model begin with."),
    Option("database_image", "The image of PostgreSQL.", "postgres:17.7-bookworm"),
    Option("prometheus_image", "The image of Prometheus.", "prom/prometheus:v3.5.0"),
    Option("grafana_image", "The image of Grafana.", "grafana/grafana:12.3.0"),
    Option("volumes", "With --destroy: remove what is recorded, too.", default=False),
)


def plan(shipment: Shipment, options: Options) -> Plan:
    """Say how a model and what belongs to it come up on this machine.

    Raises:
        UsageError: an option does not fit.
    """
    _require_sense(options)
    name = shipment.name
    images = {role: options.get(f"{role}_image", "") for role in stack.ROLES}
    images |= {mode: f"{name}-{mode}:{_tag(shipment, mode, options)}" for mode in ("service", "page")}
    text = stack.composed(name, images, options)
    modes = [each for each in ("service", "page") if each in stack.roles(options)]
    first = [_image(shipment, each, images[each], options) for each in modes]
    url = _address(options, "port")
    return Plan(
        "compose",
        name,
        (
            _found(name, options),
            _secrets(shipment.key, options),
            _key(),
            *first,
            *_up(name, text, options),
            smoke(shipment, url, Got("key")),
        ),
        files={"compose.yaml": text.encode(), **{path: told.encode() for path, told in stack.settings().items()}},
        notes=_notes(options),
    )


def _address(options: Options, port: str) -> str:
    where = "127.0.0.1" if options["host"] in {"0.0.0.0", "::"} else options["host"]  # noqa: S104 (is it that)
    return f"http://{stack.bracketed(where)}:{options[port]}"


def _recipe(mode: str, options: Options) -> dict[str, str]:
    return {"mode": mode, "base": options["base_image"], "extras": "postgres" if mode == "service" else ""}


def _tag(shipment: Shipment, mode: str, options: Options) -> str:
    """Name an image by what it is made of; the page lets the service answer, whatever the model is now."""
    made = images.fingerprint(_recipe(mode, options))
    return f"{shipment.opened.sha256[:12]}-{made}" if mode == "service" else made


def _require_sense(options: Options) -> None:
    left_out = [each.strip() for each in options["without"].split(",") if each.strip()]
    if wrong := [each for each in left_out if each not in stack.OPTIONAL]:
        raise UsageError(f"--without cannot leave out {wrong[0]!r}", hint=f"It can: {', '.join(stack.OPTIONAL)}.")
    if "prometheus" in left_out and "grafana" not in left_out:
        raise UsageError("Grafana shows what Prometheus has", hint="Give --without prometheus,grafana.")
    if not _is_address(options["host"]):
        raise UsageError(f"{options['host'][:60]!r} is no address", hint="Give --host 127.0.0.1, for instance.")
    require_forms(options, FORMS)
    ports = [options[each] for each in ("port", "page_port", "grafana_port") if options[each] or each == "port"]
    if len({*ports}) < len(ports) or not all(0 < each < 65536 for each in ports):
        raise UsageError("Each port must be one of its own, from 1 to 65535", hint="See --port and --page-port.")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False  # a name, which engines do not take here
    return True


def _notes(options: Options) -> tuple[str, ...]:
    told = ["it costs nothing but this machine"]
    if "page" in stack.roles(options):
        told.append(f"the page for people is at {_address(options, 'page_port')}; they sign in with the key")
    if options["host"] not in {"127.0.0.1", "::1"}:
        told.append("whoever reaches this machine reaches it, without TLS: put a proxy with a certificate before it")
    if "grafana" in stack.roles(options) and not options["grafana_port"]:
        told.append("Grafana is not published: give --grafana-port 3000 to see its dashboard")
    return tuple(told)


# ---- what the engine and compose are asked ---------------------------------------------------------------


@dataclass(frozen=True)
class Compose:
    """Call compose with a file that is there only meanwhile; secrets go by environment, and stand in no file."""

    text: str | Got = field(repr=False)
    project: str
    words: tuple[str, ...]
    environ: Mapping[str, Any] = field(default_factory=dict, repr=False)
    engine: str = "docker"

    def sent(self) -> Mapping[str, object]:
        """Say what is run."""
        told = {"run": [f"{self.engine} compose", "--project-name", self.project, *self.words]}
        return {**told, "environ": dict.fromkeys(self.environ, "(set)")}

    def done(self, hands: Hands) -> Any:
        """Run it.

        Raises:
            NotInstalled: there is no compose. CloudRefused: it fails.
        """
        program = program_of(self.engine, hands)
        with tempfile.TemporaryDirectory(prefix="ketch-") as folder:
            path = Path(folder) / "compose.yaml"
            path.write_text(str(self.text), "utf-8")
            words = (*program, "--project-name", self.project, "--file", str(path), *self.words)
            told = {name: str.__str__(str(value)) for name, value in self.environ.items()}
            return Command(words, environ=told, folder=folder, reasons=TAKEN, hint=LOGS, hints=HINTS).done(hands)


def program_of(engine: str, hands: Hands) -> tuple[str, ...]:
    """Find compose: the engine's own, else the program of that name.

    Raises:
        NotInstalled: there is none.
    """
    path = hands.environ.get("PATH")
    if shutil.which(engine, path=path):
        words = (engine, "compose", "version")
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        if subprocess.run(words, env=dict(hands.environ), **quiet).returncode == 0:  # type: ignore[call-overload]
            return (engine, "compose")
    if shutil.which(f"{engine}-compose", path=path):
        return (f"{engine}-compose",)
    raise NotInstalled(f"{engine} compose is not on this machine", hint=HINT)


def _inspect(name: str, options: Options, roles: Iterable[str] = stack.ROLES) -> Both:
    """Look at the containers; None for each that is not there."""

    def look(role: str) -> Command:
        words = (options["engine"], "container", "inspect", stack.container(name, role))
        return Command(words, parsed=True, reasons=ABSENT, hint=f"Install {options['engine']}, or start it.")

    return Both({role: look(role) for role in roles}, absent=("absent",))


def environ_of(found: Any, role: str) -> dict[str, str]:
    """Give the environment of a container; empty where there is none."""
    told = found.get(role) or [{}]
    return dict(each.split("=", 1) for each in told[0].get("Config", {}).get("Env") or () if "=" in each)


def label_of(found: Any, label: str) -> str:
    """Give a label of the service; empty where there is none."""
    told = found.get("service") or [{}]
    return str((told[0].get("Config", {}).get("Labels") or {}).get(label, ""))


# ---- secrets -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fresh:
    """Make the secrets that are not there yet."""

    known: Mapping[str, Secret] = field(repr=False)
    key: Secret
    names: tuple[str, ...] = tuple(KEPT)

    def sent(self) -> Mapping[str, object]:
        """Say what is made."""
        return {"make": [f"a secret: {name}" for name in self.names if name not in self.known]}

    def done(self, hands: Hands) -> Any:
        """Make them."""
        made = {name: Secret(secrets.token_hex(24)) for name in self.names} | {"key": self.key}
        return {**made, **self.known}


def _found(name: str, options: Options) -> Step:
    return Step("found", "See what is running", look=_inspect(name, options))


def _secrets(key: Secret, options: Options) -> Step:
    names = tuple(each for each in KEPT if KEPT[each][0] in stack.roles(options))

    def act(found: Any, got: Answers) -> Call | Done:
        known = secrets_of(resolved(Got("found"), got))
        return Done(known) if all(each in known for each in names) else Fresh(known, key, names)

    return Step("secrets", "Make keys and passwords, kept by the engine alone", Fresh({}, key, names), act=act)


def secrets_of(found: Any) -> dict[str, Secret]:
    """Read the secrets back from the environment of the containers that have them."""
    known = {name: environ_of(found, role).get(variable, "") for name, (role, variable) in KEPT.items()}
    known["key"] = known["key"].partition(",")[0]
    return {name: Secret(value) for name, value in known.items() if value}


def _key() -> Step:
    def act(found: Any, got: Answers) -> Call | Done:
        return Done(resolved(Got("secrets", ("key",)), got))

    return Step("key", "The key that callers send", act=act)


@dataclass(frozen=True)
class Environ:
    """Settle the variables that the compose file asks for."""

    found: Any = field(repr=False)
    secrets: Any = field(repr=False)
    text: str = field(repr=False)

    def settled(self, *, back: bool = False) -> dict[str, str]:
        """Give them; the release before stays the same when nothing new comes up."""
        known = {name: str.__str__(value) for name, value in self.secrets.items()}
        now, before = label_of(self.found, RELEASE), label_of(self.found, PREVIOUS)
        release = packed(self.text)
        previous = BACK if back else before if now == release else now
        keys = [known["key"]]
        if metrics := known.get("metrics"):
            scope = frozenset({"metrics"})
            keys.append(calling.line_of(calling.CallingKey("metrics", calling.digest_of(metrics), scope)))
        return {
            "CALLING_KEY": known["key"],
            "CALLING_KEYS": ",".join(keys),
            "METRICS_KEY": metrics or "",
            "DATABASE_PASSWORD": known.get("database", ""),
            "GRAFANA_PASSWORD": known.get("grafana", ""),
            "RELEASE": release,
            "PREVIOUS": previous,
        }


def packed(text: str) -> str:
    """Write a compose file as one word."""
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def unpacked(word: str) -> str:
    """Read one back."""
    return gzip.decompress(base64.b64decode(word)).decode()


# ---- coming up ---------------------------------------------------------------------------------------


def _image(shipment: Shipment, mode: str, tag: str, options: Options) -> Step:
    return images.built(shipment, f"{mode}-image", tag, _recipe(mode, options), engine=options["engine"])


def _up(name: str, text: str, options: Options) -> tuple[Step, ...]:
    """Bring up the database, give it the password that the service has, and then all."""

    def act(words: tuple[str, ...]) -> Any:
        def acted(found: Any, got: Answers) -> Call | Done:
            told = Environ(resolved(Got("found"), got), resolved(Got("secrets"), got), text).settled()
            return Compose(text, name, words, told, options["engine"])

        return acted

    def shown(words: tuple[str, ...]) -> Call:
        variables = ("CALLING_KEY", "CALLING_KEYS", "METRICS_KEY", "DATABASE_PASSWORD", "GRAFANA_PASSWORD")
        return Compose(text, name, words, dict.fromkeys(variables, ""), options["engine"])

    database, whole = ("up", "--detach", "database"), ("up", "--detach", "--remove-orphans")
    back = _taken_back(name, options)
    return (
        Step("database", "Bring up the database", shown(database), act=act(database)),
        _healthy("database-healthy", "Wait until the database answers", name, options, ["database"]),
        _password(name, options),
        Step("up", "Bring up all", shown(whole), act=act(whole), amends=(back,)),
        _healthy("healthy", "Wait until all are healthy", name, options, stack.roles(options)),
    )


def _password(name: str, options: Options) -> Step:
    """Let the database take the password of this run: what is recorded may be older than its containers."""

    def act(found: Any, got: Answers) -> Call | Done:
        password = str.__str__(resolved(Got("secrets", ("database",)), got))
        return _psql(name, options, Secret(f"ALTER ROLE ketch PASSWORD '{password}';"))

    title = "Give the database the password that the service has"
    return Step("password", title, _psql(name, options, Secret("ALTER ROLE")), act=act)


def _psql(name: str, options: Options, statement: str) -> Command:
    words: tuple[str, ...] = (options["engine"], "exec", "--interactive", stack.container(name, "database"))
    words += ("psql", "--quiet", "--no-psqlrc", "--set", "ON_ERROR_STOP=1", "--username", "ketch", "ketch")
    return Command(words, stdin=statement)


def _healthy(called: str, title: str, name: str, options: Options, roles: Sequence[str]) -> Step:
    def until(found: Any, got: Answers) -> Any:
        states = {role: state_of(found.get(role)) for role in roles}
        if ended := [role for role, state in states.items() if state in {"exited", "dead", "restarts"}]:
            hint = f"See: ketch deploy compose {name} --logs"
            raise DeployError(f"The container of the {ended[0]} ends: {why(found[ended[0]][0])}", hint=hint)
        return found if all(state == "healthy" for state in states.values()) else None

    def act(found: Any, got: Answers) -> Call | Done:
        resolved(Got("secrets"), got)  # nothing was brought up before that
        return Done(found)

    look = _inspect(name, options, roles)
    news = lambda found: [f"{role}: {state_of(found.get(role))}" for role in roles]  # noqa: E731
    return Step(called, title, look=look, act=act, until=until, news=news, patience=HEALTHY, every=1.0)


def state_of(found: Any) -> str:
    """Say how a container is: healthy, starting, unhealthy, restarts, exited, or absent."""
    if not found:
        return "absent"
    state = found[0]["State"]
    if found[0].get("RestartCount", 0) >= 5 and not state.get("Running"):
        return "restarts"
    health = (state.get("Health") or state.get("Healthcheck") or {}).get("Status")
    if not state.get("Running"):
        return "starting" if state.get("Restarting") or state.get("Status") == "created" else str(state["Status"])
    return str(health or "healthy")


def why(found: Any) -> str:
    """Say why a container does not run."""
    state = found["State"]
    log = (state.get("Health") or {}).get("Log") or [{}]
    return str(state.get("Error") or f"exit code {state.get('ExitCode')}. {log[-1].get('Output', '')}").strip()


def _taken_back(name: str, options: Options) -> Step:
    """Bring the release before up again, where a new one was not good."""

    def act(found: Any, got: Answers) -> Call | Done:
        before = got["found"]
        release, now = label_of(before, RELEASE), label_of(found, RELEASE)
        if not release or release == now:
            return Done()
        text = unpacked(release)
        told = Environ(before, got["secrets"], text).settled()
        return Compose(text, name, ("up", "--detach", "--remove-orphans"), told, options["engine"])

    return Step("back", "Bring up again what was running", look=_inspect(name, options), act=act)


# ---- back, and away ----------------------------------------------------------------------------------


def rollback(name: str, options: Options) -> Plan:
    """Say how the release before comes up again: its images, and its compose file, from a label of the service."""

    def chosen(got: Answers) -> str:
        found = resolved(Got("found"), got)
        if not found.get("service"):
            raise UsageError(f"There is no deployment {name}", hint="Is it on another machine, or another --engine?")
        word = label_of(found, PREVIOUS)
        if not word:
            raise UsageError(f"{name} has no release before this one", hint="Deploy the bundle that you want.")
        return word

    def act(found: Any, got: Answers) -> Call | Done:
        word = chosen(got)
        if word == BACK:  # it went there already; this run only sees that it is well
            return Done()
        text = unpacked(word)
        told = Environ(got["found"], secrets_of(got["found"]), text).settled(back=True)
        return Compose(text, name, ("up", "--detach", "--remove-orphans"), told, options["engine"])

    def until(found: Any, got: Answers) -> Any:
        there = [role for role, each in found.items() if each]
        return found if all(state_of(found[role]) == "healthy" for role in there) else None

    def settled(found: Any, got: Answers) -> Call | Done:
        resolved(Got("up"), got)
        return Done(found)

    return Plan(
        "compose",
        name,
        (
            _found(name, options),
            Step("up", "Bring up the release before", act=act),
            Step(
                "healthy",
                "Wait until all are healthy",
                look=_inspect(name, options),
                act=settled,
                until=until,
                patience=HEALTHY,
                every=1.0,
            ),
        ),
        notes=("what is recorded stays as it is",),
    )


def destroy(name: str, options: Options) -> Plan:
    """Say how the containers are removed; what is recorded stays, unless --volumes is said."""
    engine, project = options["engine"], f"label=com.docker.compose.project={name}"
    steps = [_removed(name, role, engine) for role in reversed(stack.ROLES)]
    kinds = ["network", *(["volume"] if options["volumes"] else [])]
    steps += [_pruned(kind, Command((engine, kind, "ls", "--quiet", "--filter", project)), engine) for kind in kinds]
    stays = "images stay: remove them with the engine" + ("" if options["volumes"] else "; volumes stay, too")
    return Plan("compose", name, tuple(steps), notes=(stays,))


def _removed(name: str, role: str, engine: str) -> Step:
    container = stack.container(name, role)
    gone = Both(
        {
            "stop": Command((engine, "stop", "--time", str(stack.GRACE), container)),
            "remove": Command((engine, "rm", "--force", container)),
        }
    )

    def act(found: Any, got: Answers) -> Call | Done:
        return gone if found else Done()

    look = Command((engine, "container", "inspect", container), parsed=True, reasons=ABSENT)
    return Step(f"remove-{role}", f"Stop and remove {container}", gone, look=look, act=act, absent=("absent",))


def _pruned(kind: str, listed: Command, engine: str) -> Step:
    def act(found: Any, got: Answers) -> Call | Done:
        ids = (found or "").split()
        return Command((engine, kind, "rm", *ids)) if ids else Done()

    return Step(f"remove-{kind}s", f"Remove its {kind}s", look=listed, act=act)


# ---- asking ------------------------------------------------------------------------------------------


def status(name: str, options: Options) -> list[Question]:
    """Ask how the containers are."""
    return [Question("containers", _inspect(name, options), lambda found: list(_told(name, found)))]


def _told(name: str, found: Any) -> Iterable[tuple[str, str]]:
    there = [role for role in stack.ROLES if found.get(role)]
    for role in there:
        state = state_of(found[role])
        image = found[role][0]["Config"]["Image"]
        ports = (found[role][0].get("NetworkSettings") or {}).get("Ports") or {}
        at = ", ".join(f"http://{one['HostIp']}:{one['HostPort']}" for each in ports.values() for one in each or ())
        yield "ok" if state == "healthy" else "mend", f"{role}: {state}, {image}{f', {at}' if at else ''}"
    if not there:
        yield "--", f"there is no deployment {name} here"


@dataclass(frozen=True)
class Logs:
    """Read what a container wrote last, to either stream."""

    container: str
    engine: str

    def sent(self) -> Mapping[str, object]:
        """Say what is run."""
        return {"run": [self.engine, "logs", "--tail", "60", self.container]}

    def done(self, hands: Hands) -> Any:
        """Read it.

        Raises:
            CloudRefused: there is no such container.
        """
        words = [self.engine, "logs", "--tail", "60", self.container]
        if shutil.which(self.engine, path=hands.environ.get("PATH")) is None:
            raise NotInstalled(f"{self.engine} is not on this machine", hint="Choose with --engine.")
        streams: Any = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        done = subprocess.run(words, env=dict(hands.environ), text=True, errors="replace", **streams)
        if done.returncode:
            raise CloudRefused(f"{self.container} is not here", reason="absent", hint="See --status.")
        return done.stdout


def logs(name: str, options: Options) -> list[Question]:
    """Ask for the last lines of each container."""

    def ask(role: str) -> Question:
        def told(said: Any) -> list[tuple[str, str]]:
            return [("--", f"{role}  {line}") for line in (said or "").splitlines()]

        return Question(role, Logs(stack.container(name, role), options["engine"]), told, absent=("absent",))

    return [ask(role) for role in stack.ROLES]


@dataclass(frozen=True)
class Which:
    """Ask which compose there is."""

    engine: str

    def sent(self) -> Mapping[str, object]:
        """Say what is run."""
        return {"run": [f"{self.engine} compose", "version"]}

    def done(self, hands: Hands) -> Any:
        """Ask it."""
        return Command((*program_of(self.engine, hands), "version"), hint=HINT).done(hands)


def doctor(name: str, options: Options) -> list[Question]:
    """Ask whether an engine and a compose are here."""
    info = Command((options["engine"], "version", "--format", "{{json .}}"), hint="Install the engine, or start it.")

    def engine(said: Any) -> list[tuple[str, str]]:
        found = json.loads(said)
        server = (found.get("Server") or found.get("Client") or {}).get("Version", "?")
        return [("ok", f"{options['engine']} {server}")]

    return [
        Question("engine", info, engine),
        Question("compose", Which(options["engine"]), lambda said: [("ok", said.strip().splitlines()[0])]),
    ]


TARGET = Target(
    "compose",
    "This machine, by compose: service, page, PostgreSQL, Prometheus and Grafana.",
    "image",
    plan,
    OPTIONS,
    status=status,
    logs=logs,
    rollback=rollback,
    destroy=destroy,
    doctor=doctor,
)
