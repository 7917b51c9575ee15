"""What in the images limits an answer, and whether a scan is worth an alert, with the report and on the worklist."""

import sqlalchemy as sa
from alembic import op

from storage.database.history import drop_columns, worklist_view

revision, down_revision = "0008", "0007"


def upgrade() -> None:
    op.execute("DROP VIEW worklist")
    op.add_column("report", sa.Column("limits", sa.Text(), nullable=True))
    op.add_column("report", sa.Column("notify", sa.Boolean(), nullable=True))
    op.execute(worklist_view(more=", r.limits, r.notify"))


def downgrade() -> None:
    op.execute("DROP VIEW worklist")
    drop_columns("report", "notify", "limits")
    op.execute(worklist_view())
