"""The table `removal`; indexes with which a million finished series cost nothing; a series' urgency beside its stage."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

PRIORITY = """CASE
    WHEN outcome = 'positive' THEN 1
    WHEN outcome = 'not_analysed' THEN 2
    WHEN stage IN ('receiving', 'ready', 'analysing') THEN 3
    WHEN outcome = 'negative' THEN 4
    ELSE 5
END"""
P_ABSENT = "1.0 - COALESCE(p_present, 0.0)"


def upgrade() -> None:
    op.create_table(
        "removal",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("series_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("case_id", sa.Integer(), nullable=False),
        sa.Column("reason", sa.String(length=16), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=True),
        sa.Column("report_uid", sa.String(length=64), nullable=True),
        sa.Column("instance_count", sa.Integer(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("begun_at", sa.DateTime(), nullable=False),
        sa.Column("forgotten_at", sa.DateTime(), nullable=True),
        sa.Column("ended_at", sa.DateTime(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_removal_ended_at", "removal", ["ended_at"])
    op.add_column("series", sa.Column("p_present", sa.Double(), nullable=True))
    op.execute("UPDATE series SET p_present = (SELECT r.p_present FROM report r WHERE r.id = series.report_id)")
    stored = op.get_bind().dialect.name == "postgresql"  # where only stored ones can have an index; SQLite adds no such
    op.add_column("series", sa.Column("priority", sa.Integer(), sa.Computed(PRIORITY, stored), nullable=True))
    op.add_column("series", sa.Column("p_absent", sa.Double(), sa.Computed(P_ABSENT, stored), nullable=True))
    op.create_index("ix_series_urgent", "series", ["priority", "p_absent", "last_instance_at"])
    op.create_index("ix_series_ended_at", "series", ["ended_at"])
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
    op.create_index("ix_instance_association_id", "instance", ["association_id"])
    op.drop_index("ix_association_open", "association")
    op.create_index("ix_association_receiver", "association", ["receiver"])
    op.drop_index("ix_series_calling_ae", "series")
    op.create_index("ix_series_calling_ae", "series", ["calling_ae"])
    op.drop_index("ix_series_ended_at", "series")
    op.drop_index("ix_series_urgent", "series")
    for column in ("p_absent", "priority", "p_present"):
        op.drop_column("series", column)
    op.drop_table("removal")
