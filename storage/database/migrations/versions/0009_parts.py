"""What did not come: refused instances, associations that fell short, and what a sender lists that is not here."""

import sqlalchemy as sa
from alembic import op

from storage.database import history
from storage.database.history import add_columns, create_indexes, create_table, drop_columns, optional, required

revision, down_revision = "0009", "0008"

_SHORT = sa.text("shortfall <> ''")


def upgrade() -> None:
    add_columns("association", required(history.TEXT, "shortfall", "refused_classes", default=""))
    op.create_index("ix_association_short", "association", ["id"], sqlite_where=_SHORT, postgresql_where=_SHORT)
    add_columns("series", optional(history.INTEGER, "sent_again_by"), optional(history.TIME, "kinds_asked_at"))
    add_columns("series", optional(history.INTEGER, "missing_slices", "missing_others"))
    create_table(
        "refusal",
        required(history.INTEGER, "association_id"),
        required(history.UID, "series_instance_uid", "sop_class_uid", "sop_instance_uid"),
        refers=("association_id",),
    )
    create_indexes("refusal", "series_instance_uid", "association_id")


def downgrade() -> None:
    op.drop_table("refusal")
    drop_columns("series", "missing_others", "missing_slices", "kinds_asked_at", "sent_again_by")
    op.drop_index("ix_association_short", "association")
    drop_columns("association", "refused_classes", "shortfall")
