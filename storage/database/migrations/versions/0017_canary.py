"""A synthetic series that goes the way of every series and is nobody's: in no list, no statistics, no delivery."""

import sqlalchemy as sa
from alembic import op

from storage.database.history import BOOLEAN, DOUBLE, TEXT, TIME, UID, create_table, drop_columns, optional, required

revision, down_revision = "0017", "0016"

_ASKED = {
    "sqlite": "SELECT substr(sql, instr(sql, 'SELECT')) FROM sqlite_master WHERE name = 'worklist'",
    "postgresql": "SELECT pg_get_viewdef('worklist'::regclass)",
}


def upgrade() -> None:
    view = _taken_away()
    op.add_column("series", sa.Column("canary", BOOLEAN, nullable=False, server_default=sa.false()))
    create_table(
        "canary",
        required(UID, "series_instance_uid"),
        required(TIME, "sent_at"),
        optional(TIME, "ended_at"),
        optional(DOUBLE, "seconds"),
        required(TEXT, "trouble", default=""),
        unique=("series_instance_uid",),
    )
    op.execute(f"CREATE VIEW worklist AS {view} WHERE NOT s.canary")


def downgrade() -> None:
    view = _taken_away().rpartition("WHERE")[0]
    op.drop_table("canary")
    drop_columns("series", "canary")
    op.execute(f"CREATE VIEW worklist AS {view}")


def _taken_away() -> str:
    """The statement of the view, which is gone: the same as before, whatever columns it has."""
    connection = op.get_bind()
    statement = str(connection.exec_driver_sql(_ASKED[connection.dialect.name]).scalar()).strip().rstrip(";")
    op.execute("DROP VIEW worklist")
    return statement
