"""How far back the last look's mirror reached."""

from loop_attentive.migrations import script

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    script.run(__file__, "up")


def downgrade() -> None:
    script.run(__file__, "down")
