"""What connectors tell beside Loop's rows: their last complete sync, and a time by which rows move."""

from loop_attentive.migrations import script

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    script.run(__file__, "up")


def downgrade() -> None:
    script.run(__file__, "down")
