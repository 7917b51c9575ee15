"""Storage commitment: what we ask of destinations, what is asked of us, and the view `worklist` telling of it."""

from alembic import op

from storage.database import history
from storage.database.history import add_columns, create_indexes, create_table, optional, required

revision, down_revision = "0003", "0002"


def upgrade() -> None:
    create_table(
        "commitment",
        required(history.UID, "transaction_uid"),
        required(history.INTEGER, "delivery_id"),
        required(history.TIME, "created_at"),
        required(history.INTEGER, "attempts"),
        optional(history.TIME, "asked_at", "next_attempt_at"),
        refers=("delivery_id",),
        unique=("transaction_uid",),
    )
    create_indexes("commitment", "delivery_id", "next_attempt_at")
    create_table(
        "commitment_request",
        required(history.UID, "transaction_uid"),
        required(history.AE_TITLE, "calling_ae"),
        required(history.JSON, "instances"),
        required(history.TIME, "created_at"),
        required(history.INTEGER, "attempts"),
        optional(history.TIME, "next_attempt_at"),
        required(history.TEXT, "last_error"),
        optional(history.TIME, "answered_at"),
        unique=("calling_ae", "transaction_uid"),
    )
    create_indexes("commitment_request", "next_attempt_at")
    add_columns("delivery", optional(history.TIME, "committed_at"))
    op.execute("DROP VIEW worklist")
    op.execute(history.worklist_view(tells_of_commitment=True))


def downgrade() -> None:
    op.execute("DROP VIEW worklist")
    op.drop_column("delivery", "committed_at")
    op.drop_table("commitment_request")
    op.drop_table("commitment")
    op.execute(history.worklist_view(tells_of_commitment=False))
