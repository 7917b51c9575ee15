"""Which processes of a node run, when each last said so, and which peers answered."""

import sqlalchemy as sa
from alembic import op

from storage.database.history import INTEGER, JSON, TEXT, TIME, WORD, optional, required

revision, down_revision = "0011", "0010"


def upgrade() -> None:
    op.create_table(
        "process",
        *required(sa.String(96), "name"),
        *required(WORD, "role"),
        *required(sa.String(64), "host"),
        *required(INTEGER, "pid"),
        *required(TEXT, "folder"),
        *required(TIME, "started_at", "beat_at"),
        *required(JSON, "details"),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "peer_answer",
        *required(sa.String(255), "peer"),
        *required(TIME, "asked_at"),
        *optional(TIME, "answered_at"),
        *required(TEXT, "error"),
        sa.PrimaryKeyConstraint("peer"),
    )


def downgrade() -> None:
    op.drop_table("peer_answer")
    op.drop_table("process")
