"""Who takes part: nginx, bare servers, Ketch, services written by hand, and the peers that are set up."""

import dataclasses
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks import peers
from benchmarks.figures import HUNDRED, ONE, SIXTEEN

SERVICES: Final = Path(__file__).parent / "services"
LIMIT: Final = "nginx, `return 200`"
ORIGINAL: Final = "Ketch, original form, linear"
GUNICORN: Final = str(Path(sys.executable).parent / "gunicorn")
MODELS: Final = ("linear", "forest")
ALL: Final = (ONE, SIXTEEN, HUNDRED)
SINGLE: Final = (ONE, SIXTEEN)
KEY: Final = "not-a-secret-only-for-measuring"
MOST: Final = "16"  # requests that a peer's own batching puts together: as many as there are connections
NGINX: Final = """
daemon off; master_process off; worker_processes 1; pid nginx.pid; error_log nginx.err;
events { worker_connections 512; }
http { access_log off; client_body_temp_path t1; proxy_temp_path t2; fastcgi_temp_path t3; uwsgi_temp_path t4;
scgi_temp_path t5; keepalive_requests 100000000;
server { listen 127.0.0.1:PORT; location / { default_type application/json;
return 200 '{"churn":false,"churn_probability":0.131521149}'; } } }
"""
MLSERVER: Final = '{"host": "127.0.0.1", "http_port": PORT, "grpc_port": SECOND, "metrics_port": THIRD}'
MLSERVER_MODEL: Final = """{"name": "churn", "implementation": "mlserver_sklearn.SKLearnModel",
"parameters": {"uri": "FOLDER/MODEL.bin"}BATCHING}"""


@dataclass(frozen=True)
class Contestant:
    """How a server starts and what is measured of it.

    PORT, SECOND and THIRD stand for free ports, FOLDER for that of the workload.
    """

    name: str
    kind: str  # limit, bare, maintained, ketch, hand, peer, batching
    command: tuple[str, ...]
    model: str = ""
    wire: str = "plain"
    environ: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    loads: tuple[str, ...] = SINGLE
    starts: int = 1
    steady: bool = False  # also at half of its rate, beside nginx
    key: str = ""
    peer: str = ""  # whose environment it needs


def contestants() -> list[Contestant]:
    """List all in the order of their turns: what is compared most closely stands together."""
    return [_nginx(), *_ketch(), *_bare(), *_by_hand(), *(each for peer in PEERS for each in peer())]


def _nginx() -> Contestant:
    program = shutil.which("nginx") or "nginx"
    return Contestant(LIMIT, "limit", (program, "-p", "FOLDER", "-c", "nginx.conf"), files={"nginx.conf": NGINX})


def _bare() -> Iterator[Contestant]:
    python = sys.executable
    for service, kind, name in (
        ("bare_protocol.py", "bare", "uvloop + httptools"),
        ("bare_uvicorn.py", "maintained", "uvicorn, asked at its protocol"),
    ):
        command = (python, str(SERVICES / service), "PORT")
        yield Contestant(f"{name}, bare", "bare", command)
        for model in MODELS:
            yield Contestant(f"{name}, and the compiled {model} model", kind, (*command, f"{model}.ketch"), model)
    uvicorn = ("-m", "uvicorn", "bare_apps:asgi", "--port", "PORT", "--lifespan", "off", "--no-access-log")
    yield Contestant("uvicorn, bare ASGI", "maintained", (python, *uvicorn), environ=_services())
    gunicorn = (GUNICORN, "--bind", "127.0.0.1:PORT", "--worker-class", "gthread", "bare_apps:wsgi")
    yield Contestant("gunicorn, bare WSGI", "maintained", gunicorn, environ=_services())
    for language in ("asgi", "wsgi", "rsgi"):
        granian = ("granian", "--interface", language, "--port", "PORT", "--no-ws", f"bare_apps:{language}")
        name = f"Granian, bare {language.upper()}"
        yield Contestant(name, "maintained", granian, environ=_services(), peer="granian")


def ketch(what: str) -> str:
    """Name one of Ketch's own."""
    return f"Ketch, {what}"


def _ketch() -> Iterator[Contestant]:
    keys = {"KETCH_API_KEYS": KEY}
    log = ("--log", "sqlite:///FOLDER/PORT.db")
    for model in MODELS:
        name, command = ketch(model), _serve(model)
        yield Contestant(name, "ketch", command, model, loads=ALL, starts=5, steady=True)
        yield Contestant(f"{name}, keys", "ketch", command, model, environ=keys, key=KEY, loads=(SIXTEEN,))
        logged = Contestant(f"{name}, keys and log", "ketch", (*command, *log), model, environ=keys, key=KEY)
        yield dataclasses.replace(logged, loads=(SIXTEEN,))
        yield Contestant(f"{name}, 4 workers", "ketch", _serve(model, workers=4), model, loads=())
    yield Contestant(ketch("vectorizer"), "ketch", _serve("vectorizer"), "vectorizer")
    yield Contestant(ORIGINAL, "ketch", _serve("original"), "linear", loads=ALL)


def _serve(bundle: str, workers: int = 1) -> tuple[str, ...]:
    command = (sys.executable, "-m", "ketch", "serve", f"{bundle}.ketch", "--port", "PORT")
    return (*command, "--workers", str(workers))


def _services(model: str = "") -> dict[str, str]:
    found = {"PYTHONPATH": str(SERVICES)}
    return {**found, "MODEL": f"FOLDER/{model}.bin", "ROWS": "FOLDER/rows.jsonl"} if model else found


def _by_hand() -> Iterator[Contestant]:
    for service, model in (("vectorizer", "vectorizer"), ("pandas", "linear"), ("pandas", "forest")):
        command = (GUNICORN, "--bind", "127.0.0.1:PORT", f"flask_{service}:app")
        loads = ALL if service == "pandas" else SINGLE
        yield Contestant(f"Flask + gunicorn, {model}", "hand", command, model, environ=_services(model), loads=loads)


def _peer(
    title: str, model: str, *command: str, wire: str, batching: bool = False, files: Mapping[str, str] | None = None
) -> Contestant:
    name = f"{title} batching, {model}" if batching else f"{title}, {model}"
    environ = {**_services(model), **({"MOST": MOST} if batching else {})}
    kind, loads = ("batching", SINGLE) if batching else ("peer", ALL)
    peer = title.split()[0].lower()
    return Contestant(name, kind, command, model, wire, environ, files or {}, loads, peer=peer)


def _fastapi() -> Iterator[Contestant]:
    for model in MODELS:
        command = ("uvicorn", "fastapi_pandas:app", "--port", "PORT", "--no-access-log")
        yield _peer("FastAPI", model, *command, wire="fastapi")


def _mlflow() -> Iterator[Contestant]:
    for model in MODELS:
        command = ("mlflow", "models", "serve", "-m", f"FOLDER/mlflow-{model}", "--env-manager", "local")
        yield _peer("MLflow", model, *command, "-h", "127.0.0.1", "-p", "PORT", wire="mlflow")


def _bentoml() -> Iterator[Contestant]:
    for model in MODELS:
        for batching in (False, True):
            service = "bentoml_pandas:Batching" if batching else "bentoml_pandas:Churn"
            command = ("bentoml", "serve", service, "--host", "127.0.0.1", "--port", "PORT")
            wire = "bentoml batching" if batching else "bentoml"
            yield _peer("BentoML", model, *command, wire=wire, batching=batching)


def _mlserver() -> Iterator[Contestant]:
    for model in MODELS:
        for batching in (False, True):
            folder = f"mlserver-{model}-{'batching' if batching else 'plain'}"
            more = f', "max_batch_size": {MOST}, "max_batch_time": 0.005' if batching else ""
            settings = MLSERVER_MODEL.replace("MODEL", model).replace("BATCHING", more)
            files = {f"{folder}/settings.json": MLSERVER, f"{folder}/model-settings.json": settings}
            command = ("mlserver", "start", f"FOLDER/{folder}")
            yield _peer("MLServer", model, *command, wire="mlserver", batching=batching, files=files)


def _litserve() -> Iterator[Contestant]:
    for model in MODELS:
        for batching in (False, True):
            command = ("python", str(SERVICES / "litserve_pandas.py"), "PORT", MOST if batching else "1")
            yield _peer("LitServe", model, *command, wire="plain", batching=batching)


def _ray() -> Iterator[Contestant]:
    for model in MODELS:
        for batching in (False, True):
            command = ("python", str(SERVICES / "ray_pandas.py"), "PORT", "FOLDER/ray", MOST if batching else "1")
            yield _peer("Ray Serve", model, *command, wire="ray", batching=batching)


def _vetiver() -> Iterator[Contestant]:
    for model in MODELS:
        command = ("uvicorn", "vetiver_pandas:app", "--port", "PORT", "--no-access-log")
        yield _peer("vetiver", model, *command, wire="vetiver")


def _mosec() -> Iterator[Contestant]:
    for model in MODELS:
        for batching in (False, True):
            command = ("python", str(SERVICES / "mosec_pandas.py"), "--address", "127.0.0.1", "--port", "PORT")
            yield _peer("Mosec", model, *command, "--timeout", "20000", wire="mosec", batching=batching)


PEERS: Final = (_fastapi, _mosec, _vetiver, _litserve, _bentoml, _mlserver, _mlflow, _ray)


def started_by(contestant: Contestant) -> tuple[tuple[str, ...], dict[str, str]]:
    """Give the command and environment, with the peer's own programs first; the environment must be there."""
    if not contestant.peer:
        return contestant.command, dict(contestant.environ)
    own = peers.programs(contestant.peer)
    if own is None:
        raise FileNotFoundError(contestant.peer)
    path = f"{own}{os.pathsep}{os.environ.get('PATH', '')}"
    return (str(own / contestant.command[0]), *contestant.command[1:]), {**contestant.environ, "PATH": path}
