"""Objects beside the report, each delivered like it."""

import sqlalchemy as sa
from alembic import op

from storage.database import history
from storage.database.history import create_indexes, create_table, required

revision, down_revision = "0004", "0003"


def upgrade() -> None:
    create_table(
        "report_object",
        required(history.INTEGER, "report_id"),
        required(history.WORD, "kind"),
        required(history.UID, "sop_instance_uid"),
        required(history.TEXT, "path"),
        required(history.SHA256, "sha256"),
        required(history.BIG, "size_bytes"),
        refers=("report_id",),
        unique=("sop_instance_uid",),
    )
    create_indexes("report_object", "report_id")
    op.add_column("delivery", sa.Column("object_id", sa.Integer(), nullable=True))


def downgrade() -> None:
    op.drop_column("delivery", "object_id")
    op.drop_table("report_object")
