"""A browser that looks at Airflow's UI: Debian's Chromium, without a screen."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from playwright.sync_api import Page, expect, sync_playwright

from sandbox.airflow import Airflow
from sandbox.processes import wait_until

CHROMIUM = shutil.which("chromium")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip

SECONDS = 60
"""Chromium and Airflow share a small machine with the tests."""


@contextmanager
def browser(airflow: Airflow) -> Iterator[Page]:
    """A page of 1400 x 900 in the light theme, that knows Airflow's address and is logged in."""
    expect.set_options(timeout=SECONDS * 1000)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS, headless=True)
        try:
            page = chromium.new_page(
                base_url=airflow.url, viewport={"width": 1400, "height": 900}, color_scheme="light", locale="en-US"
            )
            page.set_default_timeout(SECONDS * 1000)
            yield page
        finally:
            chromium.close()


def open_run(page: Page, dag_id: str, run_id: str) -> None:
    """The page of a run: the grid of the last runs, and beside it this run's tasks."""
    page.goto(f"/dags/{dag_id}/runs/{quote(run_id)}")
    expect(page.get_by_text(re.compile("^audit$")).first).to_be_visible()


def show_graph(page: Page) -> None:
    """Of the run whose page is open, with the tasks inside its groups."""
    page.get_by_label("Show Graph").click()
    page.get_by_label("Expand all task groups").click()
    expect(page.get_by_text("Operator").first).to_be_visible()


def take_picture(airflow: Airflow, dag_id: str, file: Path) -> None:
    """The graph of the DAG's last run."""
    run = max(airflow.runs(dag_id), key=lambda run: str(run["run_after"]))
    with browser(airflow) as page:
        open_run(page, dag_id, run["dag_run_id"])
        show_graph(page)
        photograph(page, file)


def photograph(page: Page, file: Path) -> None:
    """Once the page stands still."""
    page.wait_for_load_state("networkidle")
    pictures = [page.screenshot()]

    def stands_still() -> bool:
        pictures.append(page.screenshot())
        return pictures[-1] == pictures[-2]

    wait_until(stands_still, "the page stands still", seconds=SECONDS, every=1)
    file.write_bytes(pictures[-1])


def picture_question(airflow: Airflow, run: dict[str, Any], task_id: str, file: Path) -> None:
    """What a run asks a person, and the answers that may be given."""
    with browser(airflow) as page:
        page.set_viewport_size({"width": 1400, "height": 1250})
        page.goto(f"/dags/{run['dag_id']}/runs/{quote(run['dag_run_id'])}/tasks/{task_id}/required_actions")
        expect(page.get_by_role("button", name="Approve")).to_be_visible()
        photograph(page, file)


def picture_backfills(airflow: Airflow, dag_id: str, file: Path) -> None:
    """The runs that `airflow backfill create` has made of a DAG."""
    with browser(airflow) as page:
        page.goto(f"/dags/{dag_id}/runs?run_type=backfill")
        expect(page.get_by_text("backfill__").first).to_be_visible()
        photograph(page, file)


def picture_form(airflow: Airflow, dag_id: str, file: Path) -> None:
    """The form that starts a DAG by hand."""
    with browser(airflow) as page:
        page.goto(f"/dags/{dag_id}")
        page.get_by_role("button", name="Trigger").first.click()
        expect(page.get_by_text("Run Parameters").first).to_be_visible()
        photograph(page, file)
