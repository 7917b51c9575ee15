"""From which probability on a scan is reported, with the report and on the worklist."""

import sqlalchemy as sa
from alembic import op

from storage.database.history import DOUBLE, drop_columns, worklist_view

revision, down_revision = "0014", "0013"

BEFORE = ", r.limits, r.notify, v.acknowledged_at, v.acknowledged_by, v.assigned_to"
JOINED = " LEFT JOIN review v ON v.case_id = s.id AND v.revision = s.revision"


def upgrade() -> None:
    op.execute("DROP VIEW worklist")
    op.add_column("report", sa.Column("threshold", DOUBLE, nullable=True))
    op.execute(worklist_view(more=f"{BEFORE}, r.threshold", joined=JOINED))


def downgrade() -> None:
    op.execute("DROP VIEW worklist")
    drop_columns("report", "threshold")
    op.execute(worklist_view(more=BEFORE, joined=JOINED))
