"""Accounts, their tokens, and what people decide on cases; the view `worklist` tells of it."""

import sqlalchemy as sa
from alembic import op

from storage.database import history
from storage.database.history import create_indexes, create_table, optional, required, worklist_view

revision, down_revision = "0010", "0009"

LIMITS = ", r.limits, r.notify"
REVIEW = ", v.acknowledged_at, v.acknowledged_by, v.assigned_to"
JOINED = " LEFT JOIN review v ON v.case_id = s.id AND v.revision = s.revision"


def upgrade() -> None:
    create_table(
        "account",
        required(history.ACCOUNT, "name"),
        required(history.WORD, "role"),
        required(history.TEXT, "password_hash"),
        required(history.INTEGER, "failures"),
        optional(history.TIME, "locked_until"),
        required(history.TIME, "created_at"),
        optional(history.TIME, "disabled_at"),
        unique=("name",),
    )
    create_table(
        "account_token",
        required(history.SHA256, "sha256"),
        required(history.INTEGER, "account_id"),
        required(history.WORD, "kind"),
        required(history.TIME, "created_at", "expires_at"),
        refers=("account_id",),
        unique=("sha256",),
    )
    create_indexes("account_token", "account_id", "expires_at")
    op.create_table(
        "review",
        sa.Column("case_id", sa.Integer(), autoincrement=False, nullable=False),
        *required(history.UID, "series_instance_uid"),
        *required(history.INTEGER, "revision", "version"),
        *optional(history.TIME, "acknowledged_at"),
        *required(history.TEXT, "acknowledged_by", "assigned_to"),
        *required(history.JSON, "verdicts"),
        sa.PrimaryKeyConstraint("case_id"),
    )
    create_table(
        "review_entry",
        required(history.INTEGER, "case_id", "version", "revision"),
        required(history.TIME, "at"),
        required(history.ACCOUNT, "account"),
        required(history.WORD, "action"),
        required(history.BOOLEAN, "undone"),
        required(history.JSON, "before"),
        required(history.TEXT, "assigned_to"),
        optional(history.INTEGER, "finding"),
        required(history.TOKEN, "reason"),
        required(history.UID, "report_uid"),
        required(history.TEXT, "model", "location"),
        optional(history.DOUBLE, "probability", "diameter_mm"),
        unique=("case_id", "version"),
    )
    op.execute("DROP VIEW worklist")
    op.execute(worklist_view(more=LIMITS + REVIEW, joined=JOINED))


def downgrade() -> None:
    op.execute("DROP VIEW worklist")
    for table in ("review_entry", "review", "account_token", "account"):
        op.drop_table(table)
    op.execute(worklist_view(more=LIMITS))
