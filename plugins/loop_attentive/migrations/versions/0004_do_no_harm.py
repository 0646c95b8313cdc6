"""What keeps a mistake from reaching a phone: decisions, plans, opt-outs, hashes of recipients, purging."""

from loop_attentive.migrations import script

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    script.run(__file__, "up")


def downgrade() -> None:
    script.run(__file__, "down")
