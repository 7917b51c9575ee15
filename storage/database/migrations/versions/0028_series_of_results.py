"""By which AE title the series of a case's results are named, so that those of its next revision go into the same."""

import sqlalchemy as sa
from alembic import op

from storage.database.history import AE_TITLE, drop_columns

revision, down_revision = "0028", "0027"


def upgrade() -> None:
    op.add_column("report", sa.Column("ae_title", AE_TITLE, nullable=False, server_default=""))


def downgrade() -> None:
    drop_columns("report", "ae_title")
