"""What people and other systems are to be told of, on its way to each target."""

import sqlalchemy as sa
from alembic import op

from storage.database.history import INTEGER, TEXT, TIME, WORD, create_table, optional, required

revision, down_revision = "0013", "0012"


def upgrade() -> None:
    create_table(
        "notification",
        required(TEXT, "target"),
        required(WORD, "event"),
        required(sa.String(128), "subject"),
        optional(INTEGER, "case_id", "revision"),
        required(WORD, "stage"),
        required(INTEGER, "attempts"),
        required(TIME, "created_at"),
        optional(TIME, "next_attempt_at"),
        required(TEXT, "last_error"),
        optional(TIME, "ended_at", "over_at"),
        unique=("target", "event", "subject"),
    )
    op.create_index("ix_notification_due", "notification", ["stage", "next_attempt_at"])


def downgrade() -> None:
    op.drop_table("notification")
