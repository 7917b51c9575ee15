"""When a sender was promised that a series is kept, or sent it again; the numbers of removed cases, so that none is given again."""

from alembic import op

from storage.database.history import TIME, add_columns, create_indexes, drop_columns, optional

revision, down_revision = "0005", "0004"


def upgrade() -> None:
    add_columns("series", optional(TIME, "promised_at", "sent_again_at"))
    create_indexes("removal", "case_id")


def downgrade() -> None:
    op.drop_index("ix_removal_case_id", "removal")
    drop_columns("series", "sent_again_at", "promised_at")
