"""Which host asked a peer, whose answers of before are asked anew in seconds; and which bundles have reported."""

import sqlalchemy as sa
from alembic import op

from storage.database.history import SHA256, TEXT, TIME, create_table, optional, required

revision, down_revision = "0023", "0020"


def upgrade() -> None:
    _make_anew("peer", "host")
    create_table("model", required(TEXT, "version"), required(SHA256, "sha256"), unique=("version", "sha256"))


def downgrade() -> None:
    op.drop_table("model")
    _make_anew("peer")


def _make_anew(*key: str) -> None:
    lengths = {"peer": 255, "host": 64}
    op.drop_table("peer_answer")
    op.create_table(
        "peer_answer",
        *(column for name in key for column in required(sa.String(lengths[name]), name)),
        *required(TIME, "asked_at"),
        *optional(TIME, "answered_at"),
        *required(TEXT, "error"),
        sa.PrimaryKeyConstraint(*key),
    )
