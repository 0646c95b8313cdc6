"""When an answer last named an account's limit, so that a mistaken one is forgotten."""

from loop_attentive.migrations import script

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    script.run(__file__, "up")


def downgrade() -> None:
    script.run(__file__, "down")
