"""The first process of an image: it settles where it may write, how much, and who may call, and becomes `ketch`.

This file stands in an image as /app/__main__.py, so that `python3 /app WORDS` is `ketch WORDS`. It needs only Python.
"""

import contextlib
import http.client
import math
import os
import runpy
import signal
import ssl
import sys
from collections.abc import Iterator, MutableMapping, Sequence
from pathlib import Path
from typing import Final

PACKAGES: Final = str(Path(__file__).resolve().parent / "site-packages")
HOME: Final = "/tmp"  # noqa: S108 (a container's own)
MEMORY: Final = "/dev/shm"  # noqa: S108 (writable also where the root file system is not)
DOORS: Final = ("lambda", "serve", "ui")
KEYS: Final = ("KETCH_API_KEYS", "KETCH_API_KEYS_FILE", "KETCH_JWT_ISSUER", "KETCH_JWT_JWKS", "KETCH_JWT_AUDIENCE")
SAYS_WHO: Final = ("--api-keys-file", "--auth", "--host", "--jwt-", "--oidc", "--help", "-h")
TRUST: Final = "--trust=sha256:"
PORTS: Final = ("KETCH_PORT", "PORT", "AIP_HTTP_PORT")
PORT: Final = 9696
FOR_EACH: Final = 96 * 2**20  # bytes of memory that a worker may come to need
QUOTAS: Final = ("cpu.max", "cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")
LIMITS: Final = ("memory.max", "memory/memory.limit_in_bytes")
GROUP: Final = Path("/sys/fs/cgroup")


def main(words: list[str], environ: MutableMapping[str, str]) -> int:
    """Be `ketch WORDS`, or ask whether the service answers (`health PATH`)."""
    if words[:1] == ["health"]:
        return health(words[1], environ)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # process 1 would not heed it otherwise
    if words == ["serve"]:  # SageMaker calls every image so, whatever its command is
        words = [*words, *environ.get("KETCH_SERVES", "").split()]
    find_room(environ)
    if told := lacks_key(words, environ):
        print(told, file=sys.stderr)  # noqa: T201
        return 1
    if PACKAGES not in sys.path:  # the environment of the image was left behind
        sys.path.insert(1, PACKAGES)
    if words[:1] == ["lambda"]:
        return answer_lambda(words[1:], environ)
    if words[:1] == ["serve"]:
        environ.setdefault("KETCH_WORKERS", str(workers(GROUP)))
    sys.argv = ["ketch", *words]
    runpy.run_module("ketch", run_name="__main__", alter_sys=True)
    return 0


def find_room(environ: MutableMapping[str, str]) -> None:
    """Let programs write to /tmp, else to memory: the root file system may be read-only."""
    if not any(environ.get(name) for name in ("TMPDIR", "TEMP", "TMP")):
        environ["TMPDIR"] = next((each for each in (HOME, MEMORY) if os.access(each, os.W_OK)), HOME)
        for name in ("HOME", "KETCH_HOME"):
            if environ.get(name, "").startswith(HOME):
                environ[name] = environ["TMPDIR"] + environ[name].removeprefix(HOME)


def lacks_key(words: Sequence[str], environ: MutableMapping[str, str]) -> str:
    """Say how to start the image where nothing says who may call; an image has no key of its own."""
    if not words or words[0] not in DOORS or any(each.startswith(SAYS_WHO) for each in words):
        return ""
    if any(environ.get(name) for name in KEYS) or environ.get("KETCH_AUTH", "keys") != "keys":
        return ""
    port = port_of(environ)
    image = environ.get("KETCH_IMAGE", "IMAGE")
    return (
        "ketch: nothing says who may call, and an image has no key of its own\n"
        "  export KETCH_API_KEYS=$(openssl rand -hex 24)\n"
        f"  docker run -e KETCH_API_KEYS -p 127.0.0.1:{port}:{port} {image}"
    )


def port_of(environ: MutableMapping[str, str]) -> int:
    """Give the port that `ketch` listens on; what is no number it refuses itself."""
    told = next((environ[name] for name in PORTS if environ.get(name)), "")
    return int(told) if told.isdecimal() else PORT


# ---- how many workers --------------------------------------------------------------------------------


def workers(group: Path) -> int:
    """Count the workers that the cores and the memory of a container are enough for."""
    limits = [_cores(), *map(math.ceil, _quota(group)), *(int(each // FOR_EACH) for each in _numbers(group, LIMITS))]
    return max(1, min(limits))


def _cores() -> int:
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    else:  # noqa: RET505 (mypy takes the rest for unreachable)
        return os.cpu_count() or 1


def _quota(group: Path) -> Iterator[float]:
    found = list(_numbers(group, QUOTAS))
    if len(found) == 2 and found[1] > 0:
        yield found[0] / found[1]


def _numbers(group: Path, names: Sequence[str]) -> Iterator[float]:
    """Give the numbers in files of a control group; there are none where nothing is limited."""
    for name in names:
        with contextlib.suppress(OSError, ValueError):
            yield from (float(each) for each in (group / name).read_text("ascii").split() if int(each) > 0)


# ---- does it answer ----------------------------------------------------------------------------------


def health(path: str, environ: MutableMapping[str, str]) -> int:
    """Ask the service in this container; 0 is well."""
    hosts = environ.get("KETCH_ALLOWED_HOSTS", "").partition(",")[0].strip().replace("*", "health")
    if environ.get("KETCH_TLS_CERT"):
        unchecked = ssl._create_unverified_context()  # noqa: S323 (this very container)
        asked: http.client.HTTPConnection = http.client.HTTPSConnection(
            "127.0.0.1", port_of(environ), timeout=4, context=unchecked
        )
    else:
        asked = http.client.HTTPConnection("127.0.0.1", port_of(environ), timeout=4)
    try:
        asked.request("GET", path, headers={"Host": hosts} if hosts else {})
        return int(asked.getresponse().status != 200)
    except (OSError, http.client.HTTPException):
        return 1
    finally:
        asked.close()


def answer_lambda(words: Sequence[str], environ: MutableMapping[str, str]) -> int:
    """Answer what AWS Lambda asks, by its own runtime client; the maker of the image may have approved its code."""
    from awslambdaric.__main__ import main as run

    from ketch.serve.functions import prepare

    approved = next((each.removeprefix(TRUST) for each in words if each.startswith(TRUST)), "")
    prepare(words[0], environ, approved=approved)
    run(["awslambdaric", "ketch.serve.functions.handler"])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
