"""Fixtures that are expensive or must be cleaned up; everything else a test builds for itself."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.doors import NAMES, Door, Doors, Small
from tests.instances import Instances

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("KETCH_REAL_DATA", HERE.parent.parent / "shared" / "data"))
    if not (folder / "telco-customer-churn.csv").is_file():
        pytest.skip(f"no real data: telco-customer-churn.csv is not in {folder}; KETCH_REAL_DATA names its folder")
    return folder


@pytest.fixture(scope="session")
def telco(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the course script writes its models and their answers to."""
    folder = tmp_path_factory.mktemp("telco")
    program = HERE / "programs" / "course.py"
    subprocess.run([sys.executable, str(program), str(real_data / "telco-customer-churn.csv"), str(folder)], check=True)
    return folder


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    """A small model of four fields, packed and opened once."""
    return Small.pack(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="session")
def bundles(small: Small, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two bundles of models under one name, one after the other."""
    return small.bundle, Small.pack(tmp_path_factory.mktemp("other"), seed=5).bundle


@pytest.fixture(scope="session")
def instances(small: Small) -> Iterator[Instances]:
    """What fakes of clouds run; all share the processes that serve the same."""
    made = Instances(small.home)
    yield made
    made.close()


@pytest.fixture(scope="session")
def doors(small: Small) -> Iterator[Doors]:
    """Every door to the small model."""
    made = Doors(small.predictor, small.bundle, small.home)
    yield made
    made.close()


@pytest.fixture(scope="session", params=NAMES)
def door(request: pytest.FixtureRequest, doors: Doors) -> Door:
    """Each door in turn, open to this machine."""
    return doors(request.param)


@pytest.fixture(scope="session", params=NAMES)
def guarded_door(request: pytest.FixtureRequest, doors: Doors) -> Door:
    """Each door in turn, asking for a key."""
    return doors(request.param, guarded=True)


LONG = ("conformance", "notebook", "packing", "pages", "service", "ship", "soak")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the long tests to those who ask for them by mark; that of a test goes before that of its file."""
    kept = [item for item in items if not (part := _part(item)) or part in config.option.markexpr]
    left = {*items} - {*kept}
    config.hook.pytest_deselected(items=[*left])
    items[:] = kept


def _part(item: pytest.Item) -> str:
    return next((mark.name for mark in item.iter_markers() if mark.name in LONG), "")
