"""Objects beside the report, each delivered like it."""

from alembic import op

from storage.database import history
from storage.database.history import add_columns, create_indexes, create_table, optional, required

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
    add_columns("delivery", optional(history.INTEGER, "object_id"))


def downgrade() -> None:
    op.drop_column("delivery", "object_id")
    op.drop_table("report_object")
