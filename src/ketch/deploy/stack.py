"""The compose file: service, page, log in PostgreSQL, Prometheus and Grafana, each with as little as it needs.

name, images, options --*composed*--> one text, the same for the same; secrets come from the environment of who runs it
"""

import importlib.resources
from collections.abc import Mapping
from typing import Any, Final

from ketch import extras
from ketch.deploy import Options

PORT: Final = 9696  # of the service and of the page, each in its container
ROLES: Final = ("database", "service", "page", "prometheus", "grafana")  # service and page need the one before them
OPTIONAL: Final = ("page", "prometheus", "grafana")
GRACE: Final = 45  # seconds: longer than the service's own drain and deadline
DASHBOARD: Final = "dashboard.json"
SOURCE: Final = "datasource.yaml"
PROVIDER: Final = "dashboards.yaml"
SCRAPED: Final = "prometheus.yml"
HEAD: Final = """\
# Written by `ketch deploy compose`; by hand it is brought up with docker compose, docker-compose or podman-compose:
#   export CALLING_KEY=$(openssl rand -hex 24) METRICS_KEY=$(openssl rand -hex 24)
#   export DATABASE_PASSWORD=$(openssl rand -hex 24) GRAFANA_PASSWORD=$(openssl rand -hex 24)
#   METRICS_SUM=$(printf %s "$METRICS_KEY" | sha256sum | cut -c1-64)
#   export CALLING_KEYS="$CALLING_KEY,sha256:$METRICS_SUM;name=metrics;scope=metrics"
#   docker compose --project-name NAME up --detach
"""

Service = dict[str, Any]


def roles(options: Options) -> list[str]:
    """List what is brought up."""
    left_out = {each.strip() for each in options["without"].split(",")}
    return [each for each in ROLES if each not in left_out]


def container(name: str, role: str) -> str:
    """Name the container of a role."""
    return f"{name}-{role}"


def bracketed(host: str) -> str:
    """Write an address as it stands before a port (RFC 3986, 3.2.2)."""
    return f"[{host}]" if ":" in host else host


def composed(name: str, images: Mapping[str, str], options: Options) -> str:
    """Write the compose file."""
    yaml: Any = extras.load("yaml")
    made = {role: _hardened(name, role, images[role], options) | MADE[role](options) for role in roles(options)}
    networks = {"front": {}, "log": {"internal": True}, "watch": {"internal": True}}
    kept: Service = {role: {} for role in roles(options) if role in {"database", "prometheus", "grafana"}}
    whole = {"services": made, "networks": networks, "volumes": kept}
    return HEAD + str(yaml.dump(whole, Dumper=_dumper(yaml), sort_keys=False, width=120, allow_unicode=True))


def _dumper(yaml: Any) -> Any:
    """Make what writes texts of several lines as they are, and nothing by reference."""

    class Dumper(yaml.SafeDumper):  # type: ignore[misc]
        def ignore_aliases(self, data: Any) -> bool:
            return True

    def text(dumper: Any, value: str) -> Any:
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)

    Dumper.add_representer(str, text)
    return Dumper


def _hardened(name: str, role: str, image: str, options: Options) -> Service:
    """Write what holds for all: nothing to write to but memory, no privilege, a limit, and again when it ends."""
    return {
        "image": image,
        "container_name": container(name, role),
        "restart": "unless-stopped",
        "read_only": True,
        "tmpfs": ["/tmp"],  # noqa: S108 (a container's own)
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "mem_limit": options["memory"] if role == "service" else MEMORY[role],
        "pids_limit": 512,
        "logging": {"driver": "json-file", "options": {"max-size": "10m"}},
    }


MEMORY: Final = {"database": "512m", "page": "1g", "prometheus": "512m", "grafana": "512m"}


def _checked(*words: str, every: int = 5) -> Service:
    return {"test": ["CMD", *words], "interval": f"{every}s", "timeout": "5s", "retries": 3, "start_period": "60s"}


def _after(*needed: str) -> Service:
    return {each: {"condition": "service_healthy"} for each in needed}


def _service(options: Options) -> Service:
    return {
        "environment": {
            "KETCH_API_KEYS": "${CALLING_KEYS:?is not set}",
            "KETCH_LOG": "postgresql://ketch:${DATABASE_PASSWORD:?is not set}@database:5432/ketch",
        },
        "labels": {"ketch.release": "${RELEASE:-}", "ketch.previous": "${PREVIOUS:-}"},
        "ports": [f"{bracketed(options['host'])}:{options['port']}:{PORT}"],
        "networks": ["front", "log", "watch"],
        "depends_on": _after("database"),
        "healthcheck": _checked("python3", "/app", "health", "/health/ready"),
        "stop_grace_period": f"{GRACE}s",
    }


def _page(options: Options) -> Service:
    """Write the page: it lets the service answer, so that what people ask is recorded and counted, too."""
    return {
        "command": ["ui", "--url", f"http://service:{PORT}"],
        "environment": {
            "KETCH_API_KEYS": "${CALLING_KEY:?is not set}",
            "KETCH_API_KEY": "${CALLING_KEY:?is not set}",
        },
        "ports": [f"{bracketed(options['host'])}:{options['page_port']}:{PORT}"],
        "networks": ["front"],
        "depends_on": _after("service"),
        "healthcheck": _checked("python3", "/app", "health", "/_stcore/health"),
    }


def _database(options: Options) -> Service:
    return {
        "user": "postgres",
        "tmpfs": ["/tmp", "/var/run/postgresql:mode=1777"],  # noqa: S108
        "environment": {
            "POSTGRES_DB": "ketch",
            "POSTGRES_USER": "ketch",
            "POSTGRES_PASSWORD": "${DATABASE_PASSWORD:?is not set}",
        },
        "volumes": ["database:/var/lib/postgresql/data"],
        "networks": ["log"],
        # by TCP, on which the server that only prepares the folder does not listen
        "healthcheck": _checked("pg_isready", "--host", "127.0.0.1", "--username", "ketch", "--dbname", "ketch"),
        "stop_grace_period": "60s",
    }


def _prometheus(options: Options) -> Service:
    """Write Prometheus: settings and key come by environment and stand in memory, so that no file is mounted."""
    script = (
        "umask 077\n"
        'printf %s "$$METRICS_KEY" > /tmp/key\n'
        'printf %s "$$SETTINGS" > /tmp/prometheus.yml\n'
        "exec prometheus --config.file=/tmp/prometheus.yml --storage.tsdb.path=/prometheus"
        " --storage.tsdb.retention.time=30d --storage.tsdb.retention.size=2GB\n"
    )
    return {
        "entrypoint": ["/bin/sh", "-euc", script],
        "environment": {"METRICS_KEY": "${METRICS_KEY:?is not set}", "SETTINGS": settings()[SCRAPED]},
        "user": "65534:65534",
        "volumes": ["prometheus:/prometheus"],
        "networks": ["watch"],
        "healthcheck": _checked("promtool", "query", "instant", "http://localhost:9090", "vector(1)"),
    }


def _grafana(options: Options) -> Service:
    script = (
        "mkdir -p /tmp/provisioning/datasources /tmp/provisioning/dashboards /tmp/shown\n"
        'printf %s "$$DATASOURCE" > /tmp/provisioning/datasources/prometheus.yaml\n'
        'printf %s "$$PROVIDER" > /tmp/provisioning/dashboards/ketch.yaml\n'
        'printf %s "$$DASHBOARD" > /tmp/shown/ketch.json\n'
        "exec /run.sh\n"
    )
    told = settings()
    port = options["grafana_port"]
    return {
        "entrypoint": ["/bin/sh", "-euc", script],
        "environment": {
            "DATASOURCE": told[SOURCE],
            "PROVIDER": told[PROVIDER],
            "DASHBOARD": told[DASHBOARD].replace("$", "$$"),
            "GF_PATHS_PROVISIONING": "/tmp/provisioning",  # noqa: S108
            "GF_SECURITY_ADMIN_PASSWORD": "${GRAFANA_PASSWORD:?is not set}",
            "GF_USERS_ALLOW_SIGN_UP": "false",
            "GF_ANALYTICS_REPORTING_ENABLED": "false",
            "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
            "GF_PLUGINS_PREINSTALL_DISABLED": "true",
            "GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH": "/tmp/shown/ketch.json",  # noqa: S108
        },
        "user": "472:0",
        "volumes": ["grafana:/var/lib/grafana"],
        **({"ports": [f"{bracketed(options['host'])}:{port}:3000"]} if port else {}),
        "networks": ["watch", *(["front"] if port else [])],
        "healthcheck": _checked("wget", "-q", "-O", "/dev/null", "http://localhost:3000/api/health"),
    }


MADE: Final = {
    "database": _database,
    "service": _service,
    "page": _page,
    "prometheus": _prometheus,
    "grafana": _grafana,
}


def settings() -> dict[str, str]:
    """Give the files that Prometheus and Grafana read."""
    dashboard = importlib.resources.files("ketch.deploy").joinpath(DASHBOARD).read_text("utf-8")
    scraped = (
        "global:\n  scrape_interval: 15s\n"
        "scrape_configs:\n  - job_name: ketch\n"
        "    authorization:\n      credentials_file: /tmp/key\n"
        f"    static_configs:\n      - targets: ['service:{PORT}']\n"
    )
    source = (
        "apiVersion: 1\ndatasources:\n  - name: Prometheus\n    type: prometheus\n    uid: prometheus\n"
        "    access: proxy\n    url: http://prometheus:9090\n    isDefault: true\n"
    )
    provider = "apiVersion: 1\nproviders:\n  - name: ketch\n    type: file\n    options:\n      path: /tmp/shown\n"
    return {DASHBOARD: dashboard, SOURCE: source, PROVIDER: provider, SCRAPED: scraped}
