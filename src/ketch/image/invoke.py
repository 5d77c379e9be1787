"""Stand in for AWS Lambda: hand events to a program as the Runtime API does, and print what comes back.

This file runs inside an image as it is, `python3 -c FILE WORDS…`, with one event on each line of standard input; it
needs only Python. WORDS is the program with its runtime client.
"""

import http.server
import json
import os
import subprocess
import sys
import threading
from typing import Any, Final

VERSION: Final = "/2018-06-01/runtime/"
PATIENCE: Final = 120.0


class Runtime(http.server.ThreadingHTTPServer):
    """The Runtime API on a port of this machine, with the events that wait."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, events: list[str]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.waiting, self.results = list(events), list[Any]()
        self.count, self.done = len(events), threading.Event()

    def came(self, result: Any) -> None:
        """Note what came back; `done` is set when all have."""
        self.results.append(result)
        if len(self.results) >= self.count or "init" in result:
            self.done.set()


class Handler(http.server.BaseHTTPRequestHandler):
    """One question of a runtime client."""

    protocol_version = "HTTP/1.1"
    server: Runtime

    def do_GET(self) -> None:
        """Hand over the next event, or let the client wait for ever."""
        if not self.server.waiting:
            threading.Event().wait(PATIENCE)
            return
        number = self.server.count - len(self.server.waiting)
        body = self.server.waiting.pop(0).encode()
        self.send_response(200)
        for name, value in {
            "Lambda-Runtime-Aws-Request-Id": f"00000000-0000-0000-0000-{number:012d}",
            "Lambda-Runtime-Deadline-Ms": "99999999999999",
            "Lambda-Runtime-Invoked-Function-Arn": "arn:aws:lambda:eu-west-1:000000000000:function:model",
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        """Take an answer or an error."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"null")
        kind = self.path.removeprefix(VERSION)
        self.send_response(202)
        self.send_header("Content-Length", "0")
        self.end_headers()
        if kind.endswith("/response"):
            self.server.came({"answer": body})
        else:
            self.server.came({"init" if kind.startswith("init/") else "error": body})

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def invoke(words: list[str], events: list[str]) -> list[Any]:
    """Run a program until it has answered all events, or has ended; give what it answered."""
    server = Runtime(events)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    environ = {**os.environ, "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{server.server_port}"}
    process = subprocess.Popen(words, env=environ, stdin=subprocess.DEVNULL, stdout=sys.stderr)
    try:
        while process.poll() is None and not server.done.wait(0.05):
            pass
    finally:
        process.kill()
        process.wait()
        server.shutdown()
        server.server_close()
    return server.results


if __name__ == "__main__":
    events = sys.stdin.read().splitlines()
    results = invoke(sys.argv[1:], events)
    print(json.dumps(results))  # noqa: T201
    sys.exit(0 if results else 1)  # what it wrote says why
