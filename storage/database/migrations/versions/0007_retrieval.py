"""How often the missing instances of a series were asked for, and until when the next time waits."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("series", sa.Column("retrievals", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("series", sa.Column("retrieve_until", sa.DateTime(), nullable=True))


def downgrade() -> None:
    op.drop_column("series", "retrieve_until")
    op.drop_column("series", "retrievals")
