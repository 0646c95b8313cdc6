"""What migrations share: each is the SQL in the two files beside it."""

from pathlib import Path

from alembic import op


def run(migration: str, direction: str) -> None:
    """Runs <migration>.<direction>.sql as it stands: SQLAlchemy would take a colon in it for a parameter."""
    driver = op.get_bind().connection.driver_connection
    assert driver is not None
    driver.execute(Path(migration).with_suffix(f".{direction}.sql").read_text(encoding="utf-8"))
