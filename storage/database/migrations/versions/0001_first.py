"""The first tables and the view `worklist`."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

WORKLIST = """
CREATE VIEW worklist AS
SELECT
    s.id AS case_id,
    CASE
        WHEN s.outcome = 'positive' THEN 1
        WHEN s.outcome = 'not_analysed' THEN 2
        WHEN s.stage IN ('receiving', 'ready', 'analysing') THEN 3
        WHEN s.outcome = 'negative' THEN 4
        ELSE 5
    END AS priority,
    s.patient_id, s.issuer_of_patient_id, s.patient_name, s.accession_number, s.study_date, s.modality,
    s.series_description, s.study_instance_uid, s.series_instance_uid, s.calling_ae, s.instance_count,
    s.stage, s.outcome, s.reason, s.detail, s.evidence, s.conflicts, s.revision, s.attempts,
    r.p_left_infraclinoid_ica, r.p_right_infraclinoid_ica, r.p_left_supraclinoid_ica, r.p_right_supraclinoid_ica,
    r.p_left_mca, r.p_right_mca, r.p_acom, r.p_left_aca, r.p_right_aca, r.p_left_pcom, r.p_right_pcom,
    r.p_basilar_tip, r.p_other_posterior, r.p_present,
    r.top_location, r.diameter_mm, r.lesions, r.model, r.sop_instance_uid AS report_uid, r.path AS report_path,
    (
        SELECT CASE
            WHEN COUNT(*) = 0 THEN NULL
            WHEN SUM(CASE WHEN d.stage = 'dead' THEN 1 ELSE 0 END) > 0 THEN 'dead'
            WHEN SUM(CASE WHEN d.stage = 'pending' THEN 1 ELSE 0 END) > 0 THEN 'pending'
            ELSE 'delivered'
        END
        FROM delivery d WHERE d.report_id = r.id
    ) AS delivery,
    s.first_instance_at, s.last_instance_at, s.ready_at, s.claimed_at, s.ended_at AS reported_at,
    (SELECT MAX(d.delivered_at) FROM delivery d WHERE d.report_id = r.id) AS delivered_at,
    r.volume_seconds, r.inference_seconds, r.report_seconds
FROM series s LEFT JOIN report r ON r.id = s.report_id
"""


def upgrade() -> None:
    op.create_table(
        "association",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("receiver", sa.String(length=80), nullable=False),
        sa.Column("calling_ae", sa.String(length=16), nullable=False),
        sa.Column("opened_at", sa.DateTime(), nullable=False),
        sa.Column("closed_at", sa.DateTime(), nullable=True),
        sa.Column("closed", sa.String(length=16), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_association_receiver", "association", ["receiver"], unique=False)
    op.create_table(
        "series",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("series_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("study_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("patient_id", sa.Text(), nullable=False),
        sa.Column("issuer_of_patient_id", sa.Text(), nullable=False),
        sa.Column("patient_name", sa.Text(), nullable=False),
        sa.Column("accession_number", sa.Text(), nullable=False),
        sa.Column("study_date", sa.Text(), nullable=False),
        sa.Column("modality", sa.Text(), nullable=False),
        sa.Column("series_description", sa.Text(), nullable=False),
        sa.Column("acquisition_key", sa.Text(), nullable=False),
        sa.Column("calling_ae", sa.String(length=16), nullable=False),
        sa.Column("stage", sa.String(length=16), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("evidence", sa.Text(), nullable=False),
        sa.Column("conflicts", sa.JSON(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("instance_count", sa.Integer(), nullable=False),
        sa.Column("expected_count", sa.Integer(), nullable=True),
        sa.Column("count_asked_at", sa.DateTime(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("claim_token", sa.String(length=32), nullable=True),
        sa.Column("claimed_by", sa.String(length=80), nullable=True),
        sa.Column("lease_until", sa.DateTime(), nullable=True),
        sa.Column("report_id", sa.Integer(), nullable=True),
        sa.Column("first_instance_at", sa.DateTime(), nullable=False),
        sa.Column("last_instance_at", sa.DateTime(), nullable=False),
        sa.Column("ready_at", sa.DateTime(), nullable=True),
        sa.Column("claimed_at", sa.DateTime(), nullable=True),
        sa.Column("ended_at", sa.DateTime(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("series_instance_uid"),
    )
    op.create_index("ix_series_calling_ae", "series", ["calling_ae"], unique=False)
    op.create_index("ix_series_stage", "series", ["stage", "ready_at"], unique=False)
    op.create_index("ix_series_study_instance_uid", "series", ["study_instance_uid"], unique=False)
    op.create_table(
        "instance",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("series_id", sa.Integer(), nullable=False),
        sa.Column("association_id", sa.Integer(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("header", sa.JSON(), nullable=False),
        sa.Column("received_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["association_id"],
            ["association.id"],
        ),
        sa.ForeignKeyConstraint(
            ["series_id"],
            ["series.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("sop_instance_uid"),
    )
    op.create_index("ix_instance_association_id", "instance", ["association_id"], unique=False)
    op.create_index("ix_instance_series_id", "instance", ["series_id"], unique=False)
    op.create_table(
        "report",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("series_id", sa.Integer(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("predecessor_uid", sa.String(length=64), nullable=True),
        sa.Column("lesions", sa.JSON(), nullable=False),
        sa.Column("top_location", sa.Text(), nullable=True),
        sa.Column("diameter_mm", sa.Double(), nullable=True),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("volume_seconds", sa.Float(), nullable=True),
        sa.Column("inference_seconds", sa.Float(), nullable=True),
        sa.Column("report_seconds", sa.Float(), nullable=True),
        sa.Column("p_left_infraclinoid_ica", sa.Double(), nullable=True),
        sa.Column("p_right_infraclinoid_ica", sa.Double(), nullable=True),
        sa.Column("p_left_supraclinoid_ica", sa.Double(), nullable=True),
        sa.Column("p_right_supraclinoid_ica", sa.Double(), nullable=True),
        sa.Column("p_left_mca", sa.Double(), nullable=True),
        sa.Column("p_right_mca", sa.Double(), nullable=True),
        sa.Column("p_acom", sa.Double(), nullable=True),
        sa.Column("p_left_aca", sa.Double(), nullable=True),
        sa.Column("p_right_aca", sa.Double(), nullable=True),
        sa.Column("p_left_pcom", sa.Double(), nullable=True),
        sa.Column("p_right_pcom", sa.Double(), nullable=True),
        sa.Column("p_basilar_tip", sa.Double(), nullable=True),
        sa.Column("p_other_posterior", sa.Double(), nullable=True),
        sa.Column("p_present", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(
            ["series_id"],
            ["series.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("sop_instance_uid"),
    )
    op.create_index("ix_report_created_at", "report", ["created_at"], unique=False)
    op.create_index("ix_report_series_id", "report", ["series_id"], unique=False)
    op.create_table(
        "delivery",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("report_id", sa.Integer(), nullable=False),
        sa.Column("destination", sa.Text(), nullable=False),
        sa.Column("stage", sa.String(length=16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("next_attempt_at", sa.DateTime(), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=False),
        sa.Column("delivered_at", sa.DateTime(), nullable=True),
        sa.ForeignKeyConstraint(
            ["report_id"],
            ["report.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_delivery_due", "delivery", ["stage", "next_attempt_at"], unique=False)
    op.create_index("ix_delivery_report_id", "delivery", ["report_id"], unique=False)
    op.execute(WORKLIST)


def downgrade() -> None:
    op.execute("DROP VIEW worklist")
    for table in ("delivery", "report", "instance", "series", "association"):
        op.drop_table(table)
