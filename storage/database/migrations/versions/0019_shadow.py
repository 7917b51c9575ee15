"""What a second bundle says of what the first has reported, kept apart from everything that is delivered."""

from alembic import op

from storage.database.history import (
    BOOLEAN,
    DOUBLE,
    INTEGER,
    JSON,
    SHA256,
    TEXT,
    TIME,
    UID,
    WORD,
    create_table,
    optional,
    required,
)

revision, down_revision = "0019", "0018"


def upgrade() -> None:
    create_table(
        "shadow_answer",
        required(UID, "report_uid"),
        required(SHA256, "bundle_sha256"),
        required(INTEGER, "case_id"),
        required(WORD, "stage"),
        required(INTEGER, "attempts"),
        optional(TIME, "next_attempt_at"),
        required(TEXT, "error"),
        required(TIME, "reported_at"),
        required(TEXT, "first_model"),
        required(BOOLEAN, "first_present"),
        optional(BOOLEAN, "first_notify"),
        required(DOUBLE, "first_p_present"),
        required(JSON, "first_lesions"),
        required(TEXT, "model"),
        required(WORD, "outcome"),
        optional(BOOLEAN, "notify"),
        optional(DOUBLE, "p_present"),
        required(JSON, "lesions"),
        unique=("report_uid", "bundle_sha256"),
    )
    op.create_index("ix_shadow_answer_due", "shadow_answer", ["bundle_sha256", "stage", "next_attempt_at"])


def downgrade() -> None:
    op.drop_index("ix_shadow_answer_due", "shadow_answer")
    op.drop_table("shadow_answer")
