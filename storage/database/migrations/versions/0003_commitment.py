"""Storage commitment: what we ask of destinations, what is asked of us, and the view `worklist` telling of it."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
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
{committed}
            ELSE 'delivered'
        END
        FROM delivery d WHERE d.report_id = r.id
    ) AS delivery,
    s.first_instance_at, s.last_instance_at, s.ready_at, s.claimed_at, s.ended_at AS reported_at,
    (SELECT MAX(d.delivered_at) FROM delivery d WHERE d.report_id = r.id) AS delivered_at,
    r.volume_seconds, r.inference_seconds, r.report_seconds{committed_at}
FROM series s LEFT JOIN report r ON r.id = s.report_id
"""
COMMITTED = "WHEN SUM(CASE WHEN d.stage = 'committed' THEN 0 ELSE 1 END) = 0 THEN 'committed'"
COMMITTED_AT = ", (SELECT MAX(d.committed_at) FROM delivery d WHERE d.report_id = r.id) AS committed_at"


def upgrade() -> None:
    op.create_table(
        "commitment",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("transaction_uid", sa.String(length=64), nullable=False),
        sa.Column("delivery_id", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("asked_at", sa.DateTime(), nullable=True),
        sa.Column("next_attempt_at", sa.DateTime(), nullable=True),
        sa.ForeignKeyConstraint(
            ["delivery_id"],
            ["delivery.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("transaction_uid"),
    )
    op.create_index("ix_commitment_delivery_id", "commitment", ["delivery_id"], unique=False)
    op.create_index("ix_commitment_next_attempt_at", "commitment", ["next_attempt_at"], unique=False)
    op.create_table(
        "commitment_request",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("transaction_uid", sa.String(length=64), nullable=False),
        sa.Column("calling_ae", sa.String(length=16), nullable=False),
        sa.Column("instances", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", sa.DateTime(), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=False),
        sa.Column("answered_at", sa.DateTime(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("calling_ae", "transaction_uid"),
    )
    op.create_index("ix_commitment_request_next_attempt_at", "commitment_request", ["next_attempt_at"], unique=False)
    op.add_column("delivery", sa.Column("committed_at", sa.DateTime(), nullable=True))
    op.execute("DROP VIEW worklist")
    op.execute(WORKLIST.format(committed=COMMITTED, committed_at=COMMITTED_AT))


def downgrade() -> None:
    op.execute("DROP VIEW worklist")
    op.drop_column("delivery", "committed_at")
    op.drop_table("commitment_request")
    op.drop_table("commitment")
    op.execute(WORKLIST.format(committed="", committed_at=""))
