"""Counts and histograms of what has ended, which neither a restart nor retention takes back."""

import sqlalchemy as sa
from alembic import op

from storage.database.history import DOUBLE, WORD, required

revision, down_revision = "0012", "0011"


def upgrade() -> None:
    op.create_table(
        "tally",
        *required(sa.String(32), "name"),
        *required(sa.String(128), "label"),
        *required(WORD, "bucket"),
        *required(DOUBLE, "value"),
        sa.PrimaryKeyConstraint("name", "label", "bucket"),
    )


def downgrade() -> None:
    op.drop_table("tally")
