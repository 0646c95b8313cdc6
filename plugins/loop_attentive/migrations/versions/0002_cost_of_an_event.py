"""Less to do for each event: no reference to its run, and an index by time where that is asked for."""

from loop_attentive.migrations import script

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    script.run(__file__, "up")


def downgrade() -> None:
    script.run(__file__, "down")
