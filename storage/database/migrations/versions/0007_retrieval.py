"""How often the missing instances of a series were asked for, and until when the next time waits."""

from storage.database.history import INTEGER, TIME, add_columns, drop_columns, optional, required

revision, down_revision = "0007", "0006"


def upgrade() -> None:
    add_columns("series", required(INTEGER, "retrievals", default="0"), optional(TIME, "retrieve_until"))


def downgrade() -> None:
    drop_columns("series", "retrieve_until", "retrievals")
