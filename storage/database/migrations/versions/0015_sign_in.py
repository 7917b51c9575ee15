"""Accounts of identity providers, and sign-ins that were begun there."""

from alembic import op

from storage.database import history
from storage.database.history import add_columns, create_indexes, create_table, drop_columns, optional, required

revision, down_revision = "0015", "0014"


def upgrade() -> None:
    add_columns("account", required(history.WORD, "provider", default="local"), optional(history.TEXT, "subject"))
    op.create_index("ix_account_subject", "account", ["subject"], unique=True)
    create_table(
        "sign_in_request",
        required(history.SHA256, "state_sha256", "browser_sha256"),
        required(history.TEXT, "nonce", "code_verifier", "goal"),
        required(history.TIME, "expires_at"),
        unique=("state_sha256",),
    )
    create_indexes("sign_in_request", "expires_at")


def downgrade() -> None:
    op.drop_table("sign_in_request")
    op.drop_index("ix_account_subject", "account")
    drop_columns("account", "provider", "subject")
