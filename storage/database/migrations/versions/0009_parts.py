"""What did not come: refused instances, associations that fell short, and what a sender lists that is not here."""

import sqlalchemy as sa
from alembic import op

revision, down_revision = "0009", "0008"

_SHORT = sa.text("shortfall <> ''")


def upgrade() -> None:
    op.add_column("association", sa.Column("shortfall", sa.Text(), nullable=False, server_default=""))
    op.add_column("association", sa.Column("refused_classes", sa.Text(), nullable=False, server_default=""))
    op.create_index("ix_association_short", "association", ["id"], sqlite_where=_SHORT, postgresql_where=_SHORT)
    op.add_column("series", sa.Column("sent_again_by", sa.Integer(), nullable=True))
    op.add_column("series", sa.Column("kinds_asked_at", sa.DateTime(), nullable=True))
    op.add_column("series", sa.Column("missing_slices", sa.Integer(), nullable=True))
    op.add_column("series", sa.Column("missing_others", sa.Integer(), nullable=True))
    op.create_table(
        "refusal",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("association_id", sa.Integer(), nullable=False),
        sa.Column("series_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("sop_class_uid", sa.String(length=64), nullable=False),
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(["association_id"], ["association.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_refusal_series_instance_uid", "refusal", ["series_instance_uid"])
    op.create_index("ix_refusal_association_id", "refusal", ["association_id"])


def downgrade() -> None:
    op.drop_table("refusal")
    for column in ("missing_others", "missing_slices", "kinds_asked_at", "sent_again_by"):
        op.drop_column("series", column)
    op.drop_index("ix_association_short", "association")
    op.drop_column("association", "refused_classes")
    op.drop_column("association", "shortfall")
