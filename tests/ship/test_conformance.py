"""Images of one model, Ketch's and those of others: each answers right, and ours is the smallest and the first."""

import pytest
from benchmarks import images

from ketch.image.engine import Engine

pytestmark = [pytest.mark.conformance, pytest.mark.timeout(3600)]


def test_our_image_is_the_smallest_and_answers_first(docker: Engine, base: str) -> None:
    assert images.main([]) == 0  # what answers otherwise, or not at all, ends it
    table = [
        line.split("|")[1:-1]
        for line in images.PAGE.read_text("utf-8").splitlines()
        if " MiB" in line and line[0] == "|"
    ]
    sizes = [float(cells[1].split()[0]) for cells in table]
    starts = [float(cells[2].split()[0]) for cells in table]
    assert len(table) == len(images.CONTESTANTS)
    assert (min(sizes), min(starts)) == (sizes[0], starts[0])
