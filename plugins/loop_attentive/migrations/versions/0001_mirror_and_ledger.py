"""Mirror, change log, ledger and audit views."""

from loop_attentive.migrations import script

revision = "0001"
down_revision = None


def upgrade() -> None:
    script.run(__file__, "up")


def downgrade() -> None:
    script.run(__file__, "down")
