"""What a query by DICOM (C-FIND) asks for besides what the worklist has, and indexes for it."""

import sqlalchemy as sa
from alembic import op

from storage.database.history import INTEGER, TEXT, add_columns, create_indexes, drop_columns, optional, required
from storage.records import name_key

revision, down_revision = "0006", "0005"

INDEXED = ("name_key", "patient_id", "accession_number")
ROWS_AT_ONCE = 10_000


def upgrade() -> None:
    add_columns("series", required(TEXT, "name_key", "study_time", "study_id", default=""))
    add_columns("series", optional(INTEGER, "series_number"))
    _fill_name_keys()
    create_indexes("series", "study_date")
    for name in INDEXED:
        op.create_index(f"ix_series_{name}", "series", [name], postgresql_ops={name: "text_pattern_ops"})


def _fill_name_keys() -> None:
    """Study Time, Study ID and Series Number of the cases that are there already stay empty: only their files have them."""
    connection, last = op.get_bind(), 0
    series = sa.table("series", sa.column("id"), sa.column("patient_name"), sa.column("name_key"))
    some = sa.select(series.c.id, series.c.patient_name).order_by(series.c.id).limit(ROWS_AT_ONCE)
    change = sa.update(series).where(series.c.id == sa.bindparam("case")).values(name_key=sa.bindparam("key"))
    while rows := connection.execute(some.where(series.c.id > last)).all():
        connection.execute(change, [{"case": id_, "key": name_key(name)} for id_, name in rows])
        last = rows[-1][0]


def downgrade() -> None:
    for name in INDEXED:
        op.drop_index(f"ix_series_{name}", "series")
    op.drop_index("ix_series_study_date", "series")
    drop_columns("series", "series_number", "study_id", "study_time", "name_key")
