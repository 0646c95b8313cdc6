"""When a shop was restored, and how often an event had been sent when it was asked about."""

from loop_attentive.migrations import script

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    script.run(__file__, "up")


def downgrade() -> None:
    script.run(__file__, "down")
