"""What stands for the published images: PostgreSQL and Prometheus of Debian's packages; Grafana is in none of them."""

import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from ketch.image.engine import Engine

STACK: Final = "ketch-test-stack:bookworm"
START: Final = """#!/bin/sh
# What the published image of PostgreSQL does at its start, as far as the stack asks for it.
set -eu
data=/var/lib/postgresql/data
if [ ! -s "$data/PG_VERSION" ]; then
  printf %s "$POSTGRES_PASSWORD" | initdb --pgdata "$data" --username "$POSTGRES_USER" --pwfile /dev/stdin \\
    --auth-local trust --auth-host scram-sha-256
  echo "host all all all scram-sha-256" >> "$data/pg_hba.conf"
  pg_ctl --pgdata "$data" --options "-c listen_addresses=" --wait start
  createdb --username "$POSTGRES_USER" "$POSTGRES_DB"
  pg_ctl --pgdata "$data" --wait stop
fi
exec postgres -D "$data" -c listen_addresses='*'
"""
DASHBOARD: Final = "ketch-test-dashboard:bookworm"
READS: Final = """#!/usr/bin/env python3
# What Grafana does at its start, as far as the stack asks for it: it reads what it shows, and says that it is well.
import http.server, json, os, pathlib, signal, sys

signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # process 1 heeds only what it asks for

class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/api/health" else 404)
        self.end_headers()

below = pathlib.Path(os.environ["GF_PATHS_PROVISIONING"])
assert "http://prometheus:9090" in (below / "datasources" / "prometheus.yaml").read_text()
shown = (below / "dashboards" / "ketch.yaml").read_text().partition("path: ")[2].split()[0]
assert json.loads(pathlib.Path(shown, "ketch.json").read_text())["panels"]
assert os.environ["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"].startswith(shown)
assert len(os.environ["GF_SECURITY_ADMIN_PASSWORD"]) > 20
http.server.ThreadingHTTPServer(("", 3000), Health).serve_forever()
"""
FETCHES: Final = """#!/usr/bin/env python3
import sys, urllib.request
urllib.request.urlopen(sys.argv[-1])
"""
HOOKS: Final = (
    'mkdir -p "$1/var/lib/postgresql/data" "$1/prometheus"; chmod 755 "$1/usr/local/bin/start"',
    'chroot "$1" chown postgres:postgres /var/lib/postgresql/data',
    'chroot "$1" chown nobody:nogroup /prometheus',
    'rm -rf "$1/var/lib/postgresql/15" "$1/usr/share/doc" "$1/usr/share/locale" "$1/usr/lib/llvm-14"',
)


def stack_image(docker: Engine, folder: Path) -> str:
    """Make it where it is not there yet, and give its name."""
    if subprocess.run(["docker", "image", "inspect", STACK], capture_output=True).returncode == 0:
        return STACK
    if shutil.which("mmdebstrap") is None:
        pytest.skip("mmdebstrap is not on this machine, with which the images of the stack are made")
    start, made = folder / "start", folder / "stack.tar"
    start.write_text(START)
    words = [
        "mmdebstrap",
        "--variant=minbase",
        "--include=postgresql,prometheus",
        f"--customize-hook=copy-in {start} /usr/local/bin",
    ]
    hooks = [f"--customize-hook={each}" for each in HOOKS]
    subprocess.run([*words, *hooks, "bookworm", str(made)], check=True, capture_output=True)
    path = "ENV PATH=/usr/lib/postgresql/15/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    docker.call("import", "--change", path, "--change", 'ENTRYPOINT ["start"]', str(made), STACK)
    return STACK


def dashboard_image(docker: Engine, base: str, folder: Path) -> str:
    """Make what stands for Grafana, and give its name."""
    for name, text in {"run.sh": READS, "wget": FETCHES}.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    (folder / "Dockerfile").write_text(f"FROM {base}\nCOPY run.sh /\nCOPY wget /usr/local/bin/\n")
    docker.call("build", "--network", "none", "--tag", DASHBOARD, str(folder))
    return DASHBOARD
