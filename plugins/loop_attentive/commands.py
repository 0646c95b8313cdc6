"""What the commands that people run beside Airflow have in common."""

import getpass
import os
import sys
from collections.abc import Callable

import psycopg

from loop_attentive.db import DatabaseAway, refused
from loop_attentive.errors import NeedsMending


def exit_status(work: Callable[[], int]) -> int:
    """Of a command that does this; what a person must mend is told in one line, and no error shows a row."""
    try:
        return work()
    except (NeedsMending, DatabaseAway) as error:
        print(error, file=sys.stderr)
    except psycopg.Error as error:
        print(refused(error), file=sys.stderr)
    return 1


def user() -> str:
    """Who runs this, as the machine knows them."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's made-up user
        return f"user {os.getuid()}"
