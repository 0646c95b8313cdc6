"""For `pytest -p tests.by_file -n 2`: which of the processes tells which tests."""

from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling


class ByFile(LoadFileScheduling):
    """A file is told by one process, and all of e2e too, as its tests share an Airflow."""

    def _split_scope(self, nodeid: str) -> str:
        return "tests/e2e" if nodeid.startswith("tests/e2e/") else str(super()._split_scope(nodeid))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile:
    return ByFile(config, log)
