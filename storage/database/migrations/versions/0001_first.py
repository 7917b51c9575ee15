"""The first tables and the view `worklist`."""

from alembic import op

from storage.database import history
from storage.database.history import create_indexes, create_table, optional, required

revision, down_revision = "0001", None

PROBABILITIES = (
    "p_left_infraclinoid_ica", "p_right_infraclinoid_ica", "p_left_supraclinoid_ica", "p_right_supraclinoid_ica",
    "p_left_mca", "p_right_mca", "p_acom", "p_left_aca", "p_right_aca", "p_left_pcom", "p_right_pcom", "p_basilar_tip",
    "p_other_posterior", "p_present",
)  # fmt: skip


def upgrade() -> None:
    create_table(
        "association",
        required(history.NAME, "receiver"),
        required(history.AE_TITLE, "calling_ae"),
        required(history.TIME, "opened_at"),
        optional(history.TIME, "closed_at"),
        optional(history.WORD, "closed"),
    )
    create_indexes("association", "receiver")
    create_table(
        "series",
        required(history.UID, "series_instance_uid", "study_instance_uid"),
        required(history.TEXT, "patient_id", "issuer_of_patient_id", "patient_name", "accession_number", "study_date"),
        required(history.TEXT, "modality", "series_description", "acquisition_key"),
        required(history.AE_TITLE, "calling_ae"),
        required(history.WORD, "stage"),
        optional(history.WORD, "outcome"),
        required(history.TEXT, "reason", "detail", "evidence"),
        required(history.JSON, "conflicts"),
        required(history.INTEGER, "revision", "instance_count"),
        optional(history.INTEGER, "expected_count"),
        optional(history.TIME, "count_asked_at"),
        required(history.INTEGER, "attempts"),
        optional(history.TOKEN, "claim_token"),
        optional(history.NAME, "claimed_by"),
        optional(history.TIME, "lease_until"),
        optional(history.INTEGER, "report_id"),
        required(history.TIME, "first_instance_at", "last_instance_at"),
        optional(history.TIME, "ready_at", "claimed_at", "ended_at"),
        unique=("series_instance_uid",),
    )
    create_indexes("series", "calling_ae")
    op.create_index("ix_series_stage", "series", ["stage", "ready_at"])
    create_indexes("series", "study_instance_uid")
    create_table(
        "instance",
        required(history.UID, "sop_instance_uid"),
        required(history.INTEGER, "series_id", "association_id"),
        required(history.TEXT, "path"),
        required(history.SHA256, "sha256"),
        required(history.BIG, "size_bytes"),
        required(history.JSON, "header"),
        required(history.TIME, "received_at"),
        refers=("association_id", "series_id"),
        unique=("sop_instance_uid",),
    )
    create_indexes("instance", "association_id", "series_id")
    create_table(
        "report",
        required(history.INTEGER, "series_id", "revision"),
        required(history.UID, "sop_instance_uid"),
        required(history.TEXT, "path"),
        required(history.SHA256, "sha256"),
        required(history.BIG, "size_bytes"),
        required(history.WORD, "outcome"),
        required(history.TEXT, "reason", "detail", "model"),
        optional(history.UID, "predecessor_uid"),
        required(history.JSON, "lesions"),
        optional(history.TEXT, "top_location"),
        optional(history.DOUBLE, "diameter_mm"),
        required(history.TIME, "created_at"),
        optional(history.FLOAT, "volume_seconds", "inference_seconds", "report_seconds"),
        optional(history.DOUBLE, *PROBABILITIES),
        refers=("series_id",),
        unique=("sop_instance_uid",),
    )
    create_indexes("report", "created_at", "series_id")
    create_table(
        "delivery",
        required(history.INTEGER, "report_id"),
        required(history.TEXT, "destination"),
        required(history.WORD, "stage"),
        required(history.INTEGER, "attempts"),
        required(history.TIME, "created_at"),
        optional(history.TIME, "next_attempt_at"),
        required(history.TEXT, "last_error"),
        optional(history.TIME, "delivered_at"),
        refers=("report_id",),
    )
    op.create_index("ix_delivery_due", "delivery", ["stage", "next_attempt_at"])
    create_indexes("delivery", "report_id")
    op.execute(history.worklist_view(tells_of_commitment=False))


def downgrade() -> None:
    op.execute("DROP VIEW worklist")
    for table in ("delivery", "report", "instance", "series", "association"):
        op.drop_table(table)
