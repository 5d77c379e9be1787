"""`ketch serve`: MODEL… → URL."""

import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

import click

from ketch.cli import isolate, note, options, settle, settle_trust, trust_option
from ketch.cli.completion import models as known_models
from ketch.cli.terminal import json_option, tell
from ketch.page import curl_line
from ketch.serve.lineup import Lineup
from ketch.serve.models import Entry, entries_of, lineup_of
from ketch.serve.observed import traced
from ketch.serve.server import Plan, guard_of, listen, serve_plan, tls_of, url_of
from ketch.settings import Settings


@click.command("serve")
@click.argument("models", nargs=-1, required=True, metavar="MODEL...", shell_complete=known_models)
@trust_option
@json_option
@options("host", "port", "workers", "default", "follow", "split", "shadow")
@options("api_keys_file", "auth", "allowed_hosts", "cors", "rate")
@options("jwt_issuer", "jwt_audience", "jwt_jwks", "jwt_algorithms", "jwt_scopes_claim")
@options("tls_cert", "tls_key", "tls_client_ca")
@options("max_body", "max_rows", "strict", "lenient", "deadline", "queue", "connections", "drain")
@options("log", "access_log", "metrics_port", "grpc_port", "isolated", "require_signature", "home")
def serve_command(models: tuple[str, ...], trust: str | None, **flags: Any) -> None:
    """Answer over HTTP for each MODEL: a bundle, a model file, a folder of bundles, or a store reference."""
    for library in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # a pool costs more than the row it is woken for
        os.environ.setdefault(library, "1")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # while models are opened; process 1 would ignore it
    settings = settle(flags)
    settle_trust(models, trust, settings.home)
    if settings.isolated:
        _isolate(models, settings, trust)
    guarded, tls = guard_of(settings).guarded, tls_of(settings)
    entries = entries_of(models, settings)
    opened = listen(settings.host, settings.port)
    plan = _plan(entries, settings)
    plan.sockets = [opened]
    url = url_of(opened)
    url = url.replace("http:", "https:", 1) if tls else url
    told = serve_plan(plan, lambda: _greet(plan.lineup, url, guarded=guarded))
    if told:
        note(told)


def _isolate(models: Sequence[str], settings: Settings, trust: str | None) -> None:
    if len(models) > 1:
        raise click.UsageError("--isolated serves one MODEL: each needs an environment of its own.")
    wanted = {
        "grpc": settings.grpc_port > 0,
        "jwt": bool(settings.jwt_jwks),
        "otel": traced(os.environ),
        "postgres": settings.log.startswith("postgres"),
    }
    isolate(models[0], settings, trusted=trust, wanted=[extra for extra, needed in wanted.items() if needed])


def _plan(entries: Sequence[Entry], settings: Settings) -> Plan:
    opened = {entry: entry.open(settings, replay=False) for entry in entries}
    lineup = lineup_of(opened, settings.default)
    plan = Plan(settings, lineup, [])
    if settings.follow:
        from ketch.serve.follow import Follower

        plan.follow = Follower(settings, lineup, {entry: each.name for entry, each in opened.items()})

    def open_again(model: str, role: str) -> tuple[str, Any]:
        found = Entry(model, role).open(settings)
        return found.name, found

    plan.open_again = open_again
    return plan


def _greet(lineup: Lineup, url: str, *, guarded: bool) -> None:
    """Say where answers can be had, with a line to paste."""
    lines: list[str] = []
    models: dict[str, object] = {}
    for name, line in lineup.lines.items():
        at = url if name == lineup.default else f"{url}/models/{name}"
        reference, answers = line.champion.reference, list(line.champion.answers)
        lines.append(f"{reference} answers {', '.join(answers)} at {at} (docs at {at}/docs, Ctrl+C stops it)")
        models[name] = {"reference": reference, "answers": answers, "url": at}
    lines += ["", curl_line(lineup.line().champion.contract, url, key=guarded), ""]
    record = {"url": url, "default": lineup.default, "models": models, "guarded": guarded}
    tell(record, "\n".join(lines), indent=None)  # one line, since more may follow while it runs
    if guarded:
        note("the line sends the key in KETCH_API_KEY: set it to one of the keys before you paste it")
