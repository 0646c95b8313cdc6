"""The preflight as Airflow's UI and `make check` show it, with the shops' own connections.

python -m loop_attentive.check_operators [--shop NAME]
"""

import argparse
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import psycopg
from airflow.sdk import Context

from loop_attentive import commands, settings, sync_operators
from loop_attentive.attentive import AttentiveHook
from loop_attentive.errors import NeedsMending
from loop_attentive.operators import StepOperator, account_of, ledger, source_of
from loop_attentive.settings import Shop

if TYPE_CHECKING:
    from loop_attentive.check import Report


class CheckOperator(StepOperator):
    """Tells what the source is worth, and keeps nothing."""

    def step(self, context: Context, conn: psycopg.Connection[Any], shop: Shop) -> dict[str, int]:
        report = check_shop(conn, shop)
        for level, line in report.lines():
            self.log.log(level, "%s", line)
        if report.problems:
            raise NeedsMending(" ".join(report.problems))
        return {"warnings": len(report.warnings)}


def check_shop(conn: psycopg.Connection[Any], shop: Shop) -> "Report":
    """What the shop's warehouse is worth, and whether its other connections can be used."""
    from loop_attentive import check  # pandas: a second that no other task need wait for

    try:
        with source_of(shop) as origin:
            report = check.check(conn, origin, account=account_of(shop))
    except NeedsMending as error:
        report = check.Report(check.titled(shop), problems=[str(error)])
    if shop.loop_api:
        try:
            sync_operators.check(shop)
        except NeedsMending as error:
            report.problems.append(str(error))
    can_send, why_not = AttentiveHook(shop.attentive).test_connection()
    if not can_send:
        report.warnings.append(f"sending: {why_not}")
    return report


def main() -> int:
    parser = argparse.ArgumentParser(description="Tell what a shop's warehouse is worth, without sending anything.")
    parser.add_argument("--shop", help="of include/shops.yaml; by default every shop")
    only = parser.parse_args().shop
    return commands.exit_status(lambda: run(only))


def run(only: str | None) -> int:
    """Prints the reports; 1 where there is something to mend."""
    shops = [settings.shop(only)] if only else settings.load().values()
    reports = []
    with ledger() as conn:
        for shop in shops:
            reports.append(check_shop(conn, shop))
            print(f"{reports[-1]}\n\nChecked at {datetime.now(UTC):%Y-%m-%d %H:%M} UTC; nothing was sent or kept.")
    return 1 if any(report.problems for report in reports) else 0


if __name__ == "__main__":
    sys.exit(main())
