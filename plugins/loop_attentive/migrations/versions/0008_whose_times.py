"""By which zone the times of a source were read, so that a corrected one is noticed."""

from loop_attentive.migrations import script

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    script.run(__file__, "up")


def downgrade() -> None:
    script.run(__file__, "down")
