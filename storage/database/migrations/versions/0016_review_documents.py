"""Reviews go back to where the report is: whose name is on them, and which are still to be sent."""

from alembic import op

from storage.database.history import (
    TEXT,
    TIME,
    add_columns,
    create_indexes,
    drop_columns,
    optional,
    required,
    worklist_view,
)

revision, down_revision = "0016", "0015"

COLUMNS = ", r.limits, r.notify, v.acknowledged_at, v.acknowledged_by, v.assigned_to, r.threshold"
JOINED = " LEFT JOIN review v ON v.case_id = s.id AND v.revision = s.revision"


def upgrade() -> None:
    op.execute("DROP VIEW worklist")
    add_columns("account", required(TEXT, "person_name", default=""))
    add_columns("review", optional(TIME, "changed_at"))
    create_indexes("review", "changed_at")
    op.execute(worklist_view(more=COLUMNS, joined=JOINED, without_reviews=True))


def downgrade() -> None:
    op.execute("DROP VIEW worklist")
    op.drop_index("ix_review_changed_at", "review")
    drop_columns("review", "changed_at")
    drop_columns("account", "person_name")
    op.execute(worklist_view(more=COLUMNS, joined=JOINED))
