"""When a look ended, and how it read; no recipient, and released."""

from loop_attentive.migrations import script

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    script.run(__file__, "up")


def downgrade() -> None:
    script.run(__file__, "down")
