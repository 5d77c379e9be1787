"""The full numbers of tests/test_life.py; an hour in all."""

from pathlib import Path
from typing import Any

import pytest

from tests.soak import lives

pytestmark = pytest.mark.soak


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("trial", "times"),
    [
        (lives.killed_at_half_load, 300),
        (lives.renewed, 300),
        (lives.swapped, 500),
        (lives.refused, 500),
        (lives.restarted, 500),
        (lives.everything, 1_000_000),
    ],
)
def test_callers_notice_nothing(tmp_path: Path, trial: Any, times: int, capsys: pytest.CaptureFixture[str]) -> None:
    tally = trial(tmp_path, times)
    with capsys.disabled():
        print(f"\n{trial.__name__} {times}: {tally}")
