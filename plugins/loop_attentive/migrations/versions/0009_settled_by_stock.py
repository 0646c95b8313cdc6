"""Which exchange items the stock has settled, for as long as they are held."""

from loop_attentive.migrations import script

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    script.run(__file__, "up")


def downgrade() -> None:
    script.run(__file__, "down")
