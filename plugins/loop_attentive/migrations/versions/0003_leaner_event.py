"""Less to do for each new event: a body that is stored as it comes, and a narrower index of returns."""

from loop_attentive.migrations import script

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    script.run(__file__, "up")


def downgrade() -> None:
    script.run(__file__, "down")
