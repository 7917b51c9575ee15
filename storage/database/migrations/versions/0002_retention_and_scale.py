"""The table `removal`; indexes with which a million finished series cost nothing; a series' urgency beside its stage."""

import sqlalchemy as sa
from alembic import op

from storage.database import history
from storage.database.history import create_indexes, create_table, optional, required
from storage.database.urgency import P_ABSENT, PRIORITY

revision, down_revision = "0002", "0001"


def upgrade() -> None:
    create_table(
        "removal",
        required(history.UID, "series_instance_uid"),
        required(history.INTEGER, "case_id"),
        required(history.WORD, "reason"),
        optional(history.WORD, "outcome"),
        optional(history.UID, "report_uid"),
        required(history.INTEGER, "instance_count"),
        required(history.BIG, "size_bytes"),
        required(history.TIME, "begun_at"),
        optional(history.TIME, "forgotten_at", "ended_at"),
    )
    create_indexes("removal", "ended_at")
    op.add_column("series", sa.Column("p_present", sa.Double(), nullable=True))
    op.execute("UPDATE series SET p_present = (SELECT r.p_present FROM report r WHERE r.id = series.report_id)")
    stored = op.get_bind().dialect.name == "postgresql"  # where only stored ones can have an index; SQLite adds no such
    op.add_column("series", sa.Column("priority", sa.Integer(), sa.Computed(PRIORITY, stored), nullable=True))
    op.add_column("series", sa.Column("p_absent", sa.Double(), sa.Computed(P_ABSENT, stored), nullable=True))
    op.create_index("ix_series_urgent", "series", ["priority", "p_absent", "last_instance_at"])
    create_indexes("series", "ended_at")
    op.drop_index("ix_series_calling_ae", "series")
    op.create_index("ix_series_calling_ae", "series", ["calling_ae", "id"])
    op.drop_index("ix_association_receiver", "association")
    open_ones = sa.text("closed IS NULL")
    op.create_index(
        "ix_association_open", "association", ["receiver"], sqlite_where=open_ones, postgresql_where=open_ones
    )
    op.drop_index("ix_instance_association_id", "instance")
    op.create_index("ix_instance_association_id", "instance", ["association_id", "id"])


def downgrade() -> None:
    op.drop_index("ix_instance_association_id", "instance")
    create_indexes("instance", "association_id")
    op.drop_index("ix_association_open", "association")
    create_indexes("association", "receiver")
    op.drop_index("ix_series_calling_ae", "series")
    create_indexes("series", "calling_ae")
    op.drop_index("ix_series_ended_at", "series")
    op.drop_index("ix_series_urgent", "series")
    history.drop_columns("series", "p_absent", "priority", "p_present")
    op.drop_table("removal")
