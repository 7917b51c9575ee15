"""How often the missing instances of a series were asked for, and until when the next time waits."""

import sqlalchemy as sa
from alembic import op

from storage.database.history import drop_columns

revision, down_revision = "0007", "0006"


def upgrade() -> None:
    op.add_column("series", sa.Column("retrievals", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("series", sa.Column("retrieve_until", sa.DateTime(), nullable=True))


def downgrade() -> None:
    drop_columns("series", "retrieve_until", "retrievals")
