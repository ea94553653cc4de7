"""What all tests share."""

import os

import pytest


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Two for each processor: half of what tests take is waiting."""
    return 2 * len(os.sched_getaffinity(0))
