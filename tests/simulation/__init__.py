"""Deliveries in made-up time, on the real SQL: any seed is a schedule of mishaps that can be played again.

The sender, its pace, its hook and aiohttp below it run as they are, in an event loop whose time is made up
(clockwork.py). PostgreSQL is real, behind lines that break as told (database.py). Attentive is a server at the other
end of the loop's own network (attentive.py). A schedule (schedule.py) draws from its seed who sends what, and what
goes wrong when; the judge (judge.py) watches every request as it arrives and looks at the ledger when all is over.

    export PYTHONPATH=plugins:.              in the project's virtual environment
    python -m tests.simulation 17            plays a seed and tells its story
    python -m tests.simulation 0 10000       plays many, and names the seeds that fail
    python -m tests.simulation --wrong NAME  looks for a seed that catches a wrong sender (wrong_senders.py)

What it does not hold: statements of two workers that run in PostgreSQL in the same moment, as each is done before the
next begins. The tests with real processes do that.
"""
