"""What is compared over the months, so that a scanner that changes is noticed: measures without a patient, and what differs."""

from alembic import op

from storage.database.history import (
    AE_TITLE,
    BOOLEAN,
    DOUBLE,
    TEXT,
    TIME,
    WORD,
    create_indexes,
    create_table,
    optional,
    required,
)

revision, down_revision = "0018", "0017"


def upgrade() -> None:
    create_table(
        "measured",
        required(TIME, "at"),
        required(AE_TITLE, "site"),
        required(TEXT, "scanner", "kernel", "model"),
        required(WORD, "outcome"),
        required(BOOLEAN, "limited"),
        required(DOUBLE, "p_present"),
        optional(DOUBLE, "arterial_hu", "noise_hu", "spread_mm", "dose_mgy"),
    )
    create_indexes("measured", "at")
    create_table("baseline", required(AE_TITLE, "site"), required(TEXT, "scanner"), required(TIME, "begun_at"))
    create_table(
        "drift", required(AE_TITLE, "site"), required(TEXT, "scanner", "what", "message"), required(TIME, "noticed_at")
    )


def downgrade() -> None:
    op.drop_table("drift")
    op.drop_table("baseline")
    op.drop_index("ix_measured_at", "measured")
    op.drop_table("measured")
