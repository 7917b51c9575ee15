"""In which storage folder the files of a case that is removed lie, so that a host with another leaves them alone."""

import sqlalchemy as sa
from alembic import op

from storage.database.history import NAME, drop_columns

revision, down_revision = "0027", "0026"


def upgrade() -> None:
    op.add_column("removal", sa.Column("folder", NAME, nullable=False, server_default=""))


def downgrade() -> None:
    drop_columns("removal", "folder")
