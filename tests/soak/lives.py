"""What a server is put through while it is asked: each trial takes how often, and gives what the callers saw."""

import os
import random
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from ketch.bundle import read
from ketch.errors import KetchError
from tests.soak.load import Crowd, Server, Tally, ask, echo, eventually, launch, serving, sha256_of, state

CALM = 1000.0  # questions a second that two workers answer with ease beside their callers on a small machine
FIRST = 20_000  # questions that tell how fast server and callers can be together


def flawless(tally: Tally) -> None:
    """Nothing failed and nothing was crossed; how a broken connection is seen is for the trial to judge."""
    assert not tally.wrong, (len(tally.wrong), tally.wrong[:5])
    assert not tally.failed, (len(tally.failed), tally.failed[:5])
    assert not set(tally.statuses) - {200, 503}, tally
    assert tally.answered + tally.statuses[503] == tally.asked


def sum_of(metrics: Mapping[str, float], name: str, *having: str) -> float:
    return sum(value for key, value in metrics.items() if key.startswith(name) and all(each in key for each in having))


def kill_workers(server: Server, crowd: Crowd, times: int, every: float) -> None:
    """Kill one after another, the next one when each caller has got on after the last."""
    chance, tally = random.Random(times), crowd.tally
    for _ in range(times):
        eventually(lambda: server.workers)
        os.kill(chance.choice(server.workers), signal.SIGKILL)
        time.sleep(every)
        before = tally.answered
        enough = before + 2 * crowd.connections
        eventually(lambda enough=enough: tally.answered > enough or not crowd.asks)  # type: ignore[misc]


def killed_at_half_load(home: Path, times: int) -> Tally:
    """Kill one worker after another at half of the rate that server and callers reach together here."""
    (home / "echo.ketch").write_bytes(data := echo(home))
    with serving(home / "echo.ketch", "--workers", 2, home=home) as server:
        tally = ask(Crowd([server.port], {sha256_of(data): 0.0}, total=FIRST))
    flawless(tally)
    return killed(home, times, rate=tally.answered / tally.spent / 2)


def killed(home: Path, times: int, *, every: float = 0.25, rate: float = CALM) -> Tally:
    """Kill one worker after another."""
    (home / "echo.ketch").write_bytes(data := echo(home))
    with serving(home / "echo.ketch", "--workers", 2, home=home) as server:

        def kills(crowd: Crowd) -> None:
            kill_workers(server, crowd, times, every)

        tally = ask(Crowd([server.port], {sha256_of(data): 0.0}, rate=rate), kills)
        flawless(tally)
        eventually(lambda: len(server.workers) == 2)
        eventually(lambda: server.metrics()["ketch_workers"] == 2)
        metrics = server.metrics()
        counted = sum_of(metrics, "ketch_requests_total", 'route="/predict"', 'status="200"')
        assert tally.answered <= counted <= tally.answered + tally.broken  # some answers died on their way
        assert metrics['ketch_worker_ends_total{cause="killed"}'] == times
        assert len(metrics) < 120
        flagged = sum_of(metrics, "ketch_rows_total")
        assert tally.answered <= flagged <= tally.answered + tally.broken
        assert server.end() == 0
    return tally


def renewed(home: Path, times: int) -> Tally:
    """Renew all workers again and again; nobody notices, and nothing is lost from the counts."""
    (home / "echo.ketch").write_bytes(data := echo(home))
    with serving(home / "echo.ketch", "--workers", 2, home=home) as server:

        def renewals(crowd: Crowd) -> None:
            for _ in range(times):
                before = set(server.workers)
                os.kill(server.pid, signal.SIGHUP)
                eventually(lambda before=before: len(set(server.workers) - before) >= 2, 30)  # type: ignore[misc]
                time.sleep(0.2)

        tally = ask(Crowd([server.port], {sha256_of(data): 0.0}, rate=CALM), renewals)
        flawless(tally)
        assert tally.broken == 0, tally
        eventually(lambda: len(server.workers) == 2, 30)
        counted = sum_of(server.metrics(), "ketch_requests_total", 'route="/predict"')
        assert counted == tally.answered
    return tally


def replace(path: Path, data: bytes) -> None:
    aside = path.with_name(path.name + ".new")
    aside.write_bytes(data)
    time.sleep(0.01)  # so that even a coarse clock tells the move from the writing
    aside.replace(path)


def reloads(server: Server, outcome: str) -> float:
    return server.metrics().get(f'ketch_reloads_total{{model="echo",outcome="{outcome}"}}', 0.0)


def swapped(home: Path, times: int, *, beside: Callable[[Server], None] | None = None, rate: float = CALM) -> Tally:
    """Replace the model again and again; every answer is of the version that it names."""
    versions = [echo(home, number) for number in range(8)]
    constants = {sha256_of(data): 2.0**30 * number for number, data in enumerate(versions)}
    path = home / "echo.ketch"
    path.write_bytes(versions[0])
    with serving(path, "--follow", "--workers", 2, home=home) as server:

        def swaps(crowd: Crowd) -> None:
            for number in range(1, times + 1):
                replace(path, data := versions[number % len(versions)])
                eventually(lambda number=number: reloads(server, "taken") == number, 30, 0.1)  # type: ignore[misc]
                if beside is not None:
                    beside(server)
                del data

        tally = ask(Crowd([server.port], constants, rate=rate), swaps)
        flawless(tally)
        assert beside or tally.broken == 0, tally
        assert len(tally.versions) >= min(times, len(versions)), tally.versions
        assert reloads(server, "refused") == 0
    return tally


def bad_releases(good: bytes, other: bytes, chance: random.Random) -> Iterator[bytes]:
    """Give files that must not be served, each another."""
    while True:
        yield flipped(good, chance)
        yield good[: chance.randrange(1, len(good))]
        yield other
        yield chance.randbytes(chance.randrange(1, 4000))


def flipped(good: bytes, chance: random.Random) -> bytes:
    """Flip a bit of what a bundle says; one of the archive's dates, which say nothing, would go unnoticed."""
    while True:
        made = bytearray(good)
        made[chance.randrange(len(good))] ^= 1 << chance.randrange(8)
        try:
            read(bytes(made), "echo")
        except KetchError:
            return bytes(made)


def refused(home: Path, times: int) -> Tally:
    """Release one bad file after another; the first version goes on answering."""
    good, other = echo(home), echo(home, name="other")
    path = home / "echo.ketch"
    path.write_bytes(good)
    with serving(path, "--follow", "--workers", 2, home=home) as server:

        def releases(crowd: Crowd) -> None:
            source = bad_releases(good, other, random.Random(times))
            for number in range(1, times + 1):
                replace(path, next(source))
                eventually(lambda number=number: reloads(server, "refused") == number, 30, 0.1)  # type: ignore[misc]

        tally = ask(Crowd([server.port], {sha256_of(good): 0.0}, rate=CALM), releases)
        flawless(tally)
        assert tally.broken == 0, tally
        assert set(tally.versions) == {sha256_of(good)}
        assert reloads(server, "taken") == 0
        assert server.log.count("is refused and") == times
    return tally


def restarted(home: Path, times: int) -> Tally:
    """End and start two servers in turn, as a rolling release does; callers go where it is ready."""
    (home / "echo.ketch").write_bytes(data := echo(home))
    words = (home / "echo.ketch", "--workers", 1, "--drain", 0.3)
    servers = [launch(*words, home=home, said=home / "said") for _ in range(2)]
    ports = [each.port for each in servers]

    def restarts(crowd: Crowd) -> None:
        for turn in range(times):
            old = servers[turn % 2]
            assert old.end() == 0
            servers[turn % 2] = launch(*words, home=home, port=old.port, said=home / "said")
            assert old.process.stdout
            old.process.stdout.close()
            time.sleep(0.15)  # until those who look at readiness know

    try:
        tally = ask(Crowd(ports, {sha256_of(data): 0.0}, rate=CALM), restarts)
    finally:
        for each in servers:
            each.end()
            assert each.process.stdout
            each.process.stdout.close()
    flawless(tally)
    assert tally.broken == 0, tally
    assert "Traceback" not in (home / "said").read_text()
    return tally


def everything(home: Path, questions: int, *, every: float = 1.0) -> Tally:
    """Ask so many questions as fast as may be, while workers are killed and versions swapped."""
    versions = [echo(home, number) for number in range(4)]
    constants = {sha256_of(data): 2.0**30 * number for number, data in enumerate(versions)}
    path = home / "echo.ketch"
    path.write_bytes(versions[0])
    with serving(path, "--follow", "--workers", 2, home=home) as server:
        crowd = Crowd([server.port], constants, total=questions)

        def harm(crowd: Crowd) -> None:
            turn = 0
            while crowd.asks:
                turn += 1
                if turn % 2:
                    replace(path, versions[turn // 2 % len(versions)])
                kill_workers(server, crowd, 1, every)

        tally = ask(crowd, harm)
        flawless(tally)
        assert tally.answered + tally.statuses[503] == questions
        metrics = server.metrics()
        counted = sum_of(metrics, "ketch_requests_total", 'route="/predict"', 'status="200"')
        assert tally.answered <= counted <= tally.answered + tally.broken, (counted, str(tally))
        assert state(server.pid)
    return tally
