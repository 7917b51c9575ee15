"""Which files an object store has, and which are on their way there."""

from alembic import op

from storage.database.history import BIG, INTEGER, NAME, SHA256, TEXT, TIME, create_table, optional, required

revision, down_revision = "0020", "0019"


def upgrade() -> None:
    create_table(
        "upload",
        required(TEXT, "path"),
        required(INTEGER, "series_id"),
        required(SHA256, "sha256"),
        required(BIG, "size_bytes"),
        required(NAME, "folder"),
        required(TIME, "created_at"),
        required(INTEGER, "attempts"),
        optional(TIME, "next_attempt_at"),
        required(TEXT, "last_error"),
        optional(TIME, "uploaded_at"),
        optional(BIG, "stored_bytes"),
        required(TEXT, "stored_e_tag"),
        optional(TIME, "removed_at"),
        unique=("path",),
    )
    op.create_index("ix_upload_due", "upload", ["next_attempt_at"])
    op.create_index("ix_upload_series", "upload", ["series_id", "uploaded_at"])
    op.create_index("ix_upload_folder", "upload", ["folder", "uploaded_at"])


def downgrade() -> None:
    for name in ("due", "series", "folder"):
        op.drop_index(f"ix_upload_{name}", "upload")
    op.drop_table("upload")
