"""One Airflow for all tests of this folder, and the stories that play in it at the same time."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.e2e.house import DAY, EMAIL, House, open_house

TIME_ZONE = "UTC" if datetime.now(UTC).minute < 30 else "Asia/Kolkata"
"""Where everybody lives: a place where the next full hour, and with it everybody's next scheduled run, is far."""

SINCE = {"time_zone": TIME_ZONE, "enabled_at": (datetime.now(UTC) - 10 * DAY).isoformat()}
"""For merchants whose first look is no baseline."""

HURRIED = {"requests_per_second": 600, "max_events_per_run": 100_000}
"""For merchants who have thousands of events; so young a shop is a flood in itself."""

SHOPS: dict[str, dict[str, Any]] = {
    "default": {"time_zone": TIME_ZONE},
    "checked": SINCE,
    "late": SINCE,
    "mended": SINCE,
    "unlucky": SINCE,
    "cut_off": SINCE,
    "killed": SINCE,
    "ended": SINCE,
    "by_hand": SINCE,
    "shadow": SINCE | {"mode": "shadow"},
    "careful": SINCE | {"only_recipients": [EMAIL], "max_events_per_run": 2, "notify": "chat"},
    "decided": SINCE | {"max_events_per_run": 2},
    "ranged": SINCE,
    "private": SINCE,
    "hollow": SINCE,
    "synced": SINCE | {"loop_api": "loop_of_synced", "schema": "from_loop"},
    "batched": SINCE | HURRIED,
    "chaos": SINCE | HURRIED,
}


@pytest.fixture(scope="package")
def house(postgres: str) -> Iterator[House]:
    """Ends with the last test of this folder: its clock goes on, and with it everybody's hourly runs."""
    with open_house(postgres, SHOPS) as opened:
        yield opened


@pytest.fixture(scope="package")
def stories(house: House, request: pytest.FixtureRequest) -> dict[str, Future[None]]:
    """How the stories ended that were asked for. They mostly wait, so they play all at once, and nothing else then."""
    functions = [item.function for item in request.session.items if isinstance(item, pytest.Function)]
    plays = [function.play for function in functions if hasattr(function, "play")]
    with ThreadPoolExecutor(max(len(plays), 1)) as pool:
        return {play.__name__: pool.submit(play, house) for play in plays}
