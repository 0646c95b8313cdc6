"""Label pages of returns that were deleted before such were dropped: nothing tells any more whose they are."""

from loop_attentive.migrations import script

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    script.run(__file__, "up")


def downgrade() -> None:
    """What is gone comes with the next version of its row."""
