"""Room in each page for the next version of its rows."""

from loop_attentive.migrations import script

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    script.run(__file__, "up")


def downgrade() -> None:
    script.run(__file__, "down")
