"""What in the images limits an answer, and whether a scan is worth an alert, with the report and on the worklist."""

from alembic import op

from storage.database.history import BOOLEAN, TEXT, add_columns, drop_columns, optional, worklist_view

revision, down_revision = "0008", "0007"


def upgrade() -> None:
    op.execute("DROP VIEW worklist")
    add_columns("report", optional(TEXT, "limits"), optional(BOOLEAN, "notify"))
    op.execute(worklist_view(more=", r.limits, r.notify"))


def downgrade() -> None:
    op.execute("DROP VIEW worklist")
    drop_columns("report", "notify", "limits")
    op.execute(worklist_view())
