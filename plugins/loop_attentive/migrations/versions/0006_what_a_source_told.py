"""What a source told at the last look, so that it is missed when it is gone; and whether it tells what is shipped."""

from loop_attentive.migrations import script

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    script.run(__file__, "up")


def downgrade() -> None:
    script.run(__file__, "down")
