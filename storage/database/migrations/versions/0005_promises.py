"""When a sender was promised that a series is kept, or sent it again; the numbers of removed cases, so that none is given again."""

import sqlalchemy as sa
from alembic import op

from storage.database.history import drop_columns

revision, down_revision = "0005", "0004"


def upgrade() -> None:
    op.add_column("series", sa.Column("promised_at", sa.DateTime(), nullable=True))
    op.add_column("series", sa.Column("sent_again_at", sa.DateTime(), nullable=True))
    op.create_index("ix_removal_case_id", "removal", ["case_id"])


def downgrade() -> None:
    op.drop_index("ix_removal_case_id", "removal")
    drop_columns("series", "sent_again_at", "promised_at")
