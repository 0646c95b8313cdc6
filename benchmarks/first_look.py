"""What the first hour after an installation costs: `python -m benchmarks.first_look [--returns 1000000]`.

The first look at a history of which the mirror holds everything (returns over 200 days, their labels, exchange items
and transactions), and all twelve rules, which find that nearly all of it is baseline. What the hours after it cost is
measured by benchmarks.hour.
"""

import logging
from contextlib import closing
from datetime import UTC, datetime

from benchmarks import kit
from benchmarks.hour import Bench, Cost
from benchmarks.kit import Figure
from loop_attentive.catalogue import CATALOGUE

ALL_OF_IT = 400
"""Days that the mirror holds here: more than the made-up history has."""

MINUTES = 600
"""Seconds."""


def told(name: str, cost: Cost, rows: int) -> list[Figure]:
    return [
        Figure(name, cost.elapsed, "s", note=f"{rows:,} rows"),
        Figure("  worker", cost.worker, "processor s"),
        Figure("  database", cost.database, "processor s"),
        Figure("  memory of the worker, its highest so far", cost.memory, "MB"),
    ]


def measure(returns: int) -> list[Figure]:
    with kit.server() as conninfo, closing(Bench(conninfo, mirror_days=ALL_OF_IT)) as bench:
        now = datetime.now(UTC)
        bench.history(returns, now, days=200, growth=2.0)
        look, looked = bench.look(now)
        figures = told("the look", looked, look.extracted)
        judged = bench.rules(look, CATALOGUE)
        total = looked.elapsed + judged.elapsed
        return [
            Figure(f"the first hour, {returns:,} returns", total, "s", "minutes", total <= MINUTES),
            *figures,
            *told("all rules", judged, judged.rows),
        ]


def main() -> None:
    parser = kit.parser("first_look", __doc__)
    parser.add_argument("--returns", type=int, default=1_000_000)
    options = parser.parse_args()
    logging.getLogger("loop_attentive").setLevel(logging.ERROR)  # outcomes without a word at Attentive are no surprise
    kit.tell(options, "The first look", measure(options.returns))


if __name__ == "__main__":
    main()
