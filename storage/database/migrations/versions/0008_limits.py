"""What in the images limits an answer, and whether a scan is worth an alert, with the report and on the worklist."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
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
            WHEN SUM(CASE WHEN d.stage = 'committed' THEN 0 ELSE 1 END) = 0 THEN 'committed'
            ELSE 'delivered'
        END
        FROM delivery d WHERE d.report_id = r.id
    ) AS delivery,
    s.first_instance_at, s.last_instance_at, s.ready_at, s.claimed_at, s.ended_at AS reported_at,
    (SELECT MAX(d.delivered_at) FROM delivery d WHERE d.report_id = r.id) AS delivered_at,
    r.volume_seconds, r.inference_seconds, r.report_seconds,
    (SELECT MAX(d.committed_at) FROM delivery d WHERE d.report_id = r.id) AS committed_at{limits}
FROM series s LEFT JOIN report r ON r.id = s.report_id
"""


def upgrade() -> None:
    op.execute("DROP VIEW worklist")
    op.add_column("report", sa.Column("limits", sa.Text(), nullable=True))
    op.add_column("report", sa.Column("notify", sa.Boolean(), nullable=True))
    op.execute(WORKLIST.format(limits=", r.limits, r.notify"))


def downgrade() -> None:
    op.execute("DROP VIEW worklist")
    op.drop_column("report", "notify")
    op.drop_column("report", "limits")
    op.execute(WORKLIST.format(limits=""))
