"""When events were held, which may be long after their run's look."""

from loop_attentive.migrations import script

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    script.run(__file__, "up")


def downgrade() -> None:
    script.run(__file__, "down")
