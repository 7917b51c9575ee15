"""What the node asks again and again takes no longer with millions of cases: counts that are kept, and indexes of few rows."""

from typing import Any

import sqlalchemy as sa
from alembic import op

from storage.database import at_end
from storage.database.history import BOOLEAN, INTEGER, WORD, create_table, drop_columns, required

revision, down_revision = "0026", "0024"

_OTHERS = "outcome = 'not_eligible' AND {} AND promised_at IS NULL"
_NEW: list[tuple[str, str, list[str], str, str]] = [
    ("ix_series_calling_ae", "series", ["calling_ae", "id"], "instance_count > 1", "instance_count > 1"),
    ("ix_series_canary", "series", ["id"], "canary = 1", "canary"),
    ("ix_series_other_objects", "series", ["ended_at"], _OTHERS.format("holds_images = 0"), _OTHERS.format("NOT holds_images")),
    ("ix_report_notify", "report", ["created_at"], "notify IS 1", "notify IS true"),
    ("ix_delivery_error", "delivery", ["id"], "last_error <> ''", "last_error <> ''"),
    ("ix_upload_image", "upload", ["folder", "uploaded_at"], "path LIKE 'instances/%'", "path LIKE 'instances/%'"),
    ("ix_association_closed_at", "association", ["closed_at"], "", ""),
    ("ix_measured_scanner", "measured", ["site", "scanner", "at", "id"], "", ""),
]  # fmt: skip
"""Name, table, columns, and of which rows alone: on SQLite, on PostgreSQL."""
_OLD = [
    ("ix_series_calling_ae", "series", ["calling_ae", "id"]),
    ("ix_upload_folder", "upload", ["folder", "uploaded_at"]),
]


def upgrade() -> None:
    kind = op.get_bind().dialect.name
    create_table("at_end", required(WORD, "what", "stage"), required(INTEGER, "number"))
    for statement in at_end.triggers(kind):  # whose locks keep others from writing until this is committed
        op.execute(statement)
    op.execute(at_end.counted())
    op.add_column("series", sa.Column("holds_images", BOOLEAN, nullable=False, server_default=sa.false()))
    for name, table, _ in _OLD:
        op.drop_index(name, table)
    for name, table, columns, sqlite, postgresql in _NEW:
        some: dict[str, Any] = (
            {"sqlite_where": sa.text(sqlite), "postgresql_where": sa.text(postgresql)} if sqlite else {}
        )
        op.create_index(name, table, columns, unique=False, **some)


def downgrade() -> None:
    for name, table, *_ in _NEW:
        op.drop_index(name, table)
    for name, table, columns in _OLD:
        op.create_index(name, table, columns)
    for statement in at_end.no_triggers(op.get_bind().dialect.name):
        op.execute(statement)
    drop_columns("series", "holds_images")
    op.drop_table("at_end")
