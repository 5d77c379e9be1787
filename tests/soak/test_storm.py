"""The full storm: a million hostile requests against two workers."""

import itertools
import random
from collections.abc import Iterator

import pytest

from tests.siege import Fort, Judge, barrage, spent, unharmed
from tests.storm import Shot, Storm

MILLION = 10**6
PART = 100_000  # requests, after which the server is looked at
SLOWEST = 2_000  # requests a second


@pytest.fixture(scope="module")
def fort(tmp_path_factory: pytest.TempPathFactory) -> Fort:
    return Fort.build(tmp_path_factory.mktemp("fort"))


def _hail(storm: Storm) -> Iterator[list[Shot]]:
    """Ask for golden answers after each thousand."""
    for number in itertools.count():
        if number * (storm.framed + 1) >= PART:
            return
        yield storm.questions() if number % (1000 // (storm.framed + 1)) == 0 else next(iter(storm))


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_a_million_requests_with_bytes_changed(fort: Fort) -> None:
    seed = random.SystemRandom().randrange(10**6)
    storm = Storm(fort.seeds(), fort.golden(), seed)
    judge, took = Judge(fort.canaries()), 0.0
    with fort.serving("--workers", "2") as server:
        warm = [[Shot(each.wire("a"), "seed", method=each.method)] for each in fort.seeds()]
        for worker in server.workers:
            began = spent([worker])
            while spent([worker]) < began + 0.4:
                barrage(server.port, Judge(), warm, 8)
        with unharmed(server):
            while judge.answers < MILLION:
                took += barrage(server.port, judge, _hail(storm))
                print(f"{judge.answers} answers, {judge.answers / took:.0f}/s, {dict(judge.statuses)}", flush=True)
                assert not judge.wrongs, f"seed {seed}: {judge.wrongs} wrong: " + "\n".join(judge.wrong[:10])
        assert not [name for name in server.metrics() if "ketch_requests" in name and 'model="churn"' in name]
    assert judge.families["golden"] >= 2 * MILLION // 1100
    assert judge.answers / took >= SLOWEST
