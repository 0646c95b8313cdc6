"""Less to do for each event: no reference to its run, and an index by time where that is asked for."""

from pathlib import Path

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    run(".up.sql")


def downgrade() -> None:
    run(".down.sql")


def run(suffix: str) -> None:
    """As it stands: SQLAlchemy would take a colon in it for a parameter."""
    driver = op.get_bind().connection.driver_connection
    assert driver is not None
    driver.execute(Path(__file__).with_suffix(suffix).read_text())
