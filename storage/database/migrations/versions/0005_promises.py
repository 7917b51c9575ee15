"""When a sender was promised that a series is kept, or sent it again; the numbers of removed cases, so that none is given again."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("series", sa.Column("promised_at", sa.DateTime(), nullable=True))
    op.add_column("series", sa.Column("sent_again_at", sa.DateTime(), nullable=True))
    op.create_index("ix_removal_case_id", "removal", ["case_id"])


def downgrade() -> None:
    op.drop_index("ix_removal_case_id", "removal")
    op.drop_column("series", "sent_again_at")
    op.drop_column("series", "promised_at")
