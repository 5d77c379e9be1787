"""`ketch serve`: MODEL → URL."""

import os
from typing import Any

import click

from ketch.cli import isolate, note, options, settle, settle_trust, trust_option
from ketch.log import Log
from ketch.page import curl_line
from ketch.predict import Limits, load
from ketch.serve.guard import guard_at, keys_of
from ketch.serve.routes import Service
from ketch.serve.server import listen, run, url_of


@click.command("serve")
@click.argument("model")
@trust_option
@options("host", "port", "api_keys_file", "auth", "log", "max_body", "max_rows")
@options("strict", "lenient", "isolated", "require_signature", "home")
def serve_command(model: str, trust: str | None, **flags: Any) -> None:
    """Answer over HTTP for MODEL: a bundle, a model file, or a store reference such as churn@champion."""
    for library in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # a pool costs more than the row it is woken for
        os.environ.setdefault(library, "1")
    settings = settle(flags)
    settle_trust([model], trust, settings.home)
    if settings.isolated:
        postgres = settings.log.startswith("postgres")
        isolate(model, settings, trusted=trust, wanted=["postgres"] if postgres else [])
    guard = guard_at(settings.host, keys_of(settings), auth=settings.auth)
    opened = listen(settings.host, settings.port)
    limits = Limits(settings.max_rows, settings.strict, settings.lenient)
    predictor = load(model, home=settings.home, limits=limits, require_signature=settings.require_signature)
    log = Log(settings.log) if settings.log else None
    url = url_of(opened)
    names = ", ".join(predictor.answers)
    click.echo(f"{predictor.reference} answers {names} at {url} (docs at {url}/docs, Ctrl+C stops it)\n")
    click.echo(curl_line(predictor.contract, url, key=guard.guarded) + "\n")
    if guard.guarded:
        note("the line sends the key in KETCH_API_KEY: set it to one of the keys before you paste it")
    try:
        run(Service(predictor, guard, log=log, max_body=settings.max_body), opened)
    finally:
        if log is not None:
            log.close()
            note(f"{log.written} predictions recorded, {log.dropped} dropped")
