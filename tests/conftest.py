"""What all tests share."""

import os
import tempfile
from collections.abc import Iterator

import pytest


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Two for each processor: half of what tests take is waiting."""
    return 2 * len(os.sched_getaffinity(0))


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left_in_the_temporary_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Whatever tests, and the programs that they start, put where temporary files go, they remove again."""
    folder = tmp_path_factory.mktemp("temporary")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(folder))
        patch.setattr(tempfile, "tempdir", None)  # it is looked up once, and may have been
        yield
    assert [each.name for each in folder.iterdir() if not each.name.startswith("pytest-of-")] == [], f"left in {folder}"
