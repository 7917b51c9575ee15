"""What the migrations are written in.  They are history: nothing that is here changes, though more may come."""

from typing import Any

import sqlalchemy as sa
from alembic import op

UID, AE_TITLE, WORD, NAME, TOKEN, SHA256, ACCOUNT = (sa.String(length) for length in (64, 16, 16, 80, 32, 64, 64))
TEXT, JSON, TIME = sa.Text(), sa.JSON(), sa.DateTime()
INTEGER, BIG, FLOAT, BOOLEAN = sa.Integer(), sa.BigInteger(), sa.Float(), sa.Boolean()
DOUBLE: Any = sa.Double()
_WORKLIST = """
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
            WHEN SUM(CASE WHEN d.stage = 'pending' THEN 1 ELSE 0 END) > 0 THEN 'pending'{committed}
            ELSE 'delivered'
        END
        FROM delivery d WHERE d.report_id = r.id{of_report}
    ) AS delivery,
    s.first_instance_at, s.last_instance_at, s.ready_at, s.claimed_at, s.ended_at AS reported_at,
    (SELECT MAX(d.delivered_at) FROM delivery d WHERE d.report_id = r.id{of_report}) AS delivered_at,
    r.volume_seconds, r.inference_seconds, r.report_seconds{committed_at}
FROM series s LEFT JOIN report r ON r.id = s.report_id{joined}
"""
_COMMITTED = "\nWHEN SUM(CASE WHEN d.stage = 'committed' THEN 0 ELSE 1 END) = 0 THEN 'committed'"
_COMMITTED_AT = ", (SELECT MAX(d.committed_at) FROM delivery d WHERE d.report_id = r.id{of_report}) AS committed_at"
_NO_REVIEW = """
            AND COALESCE((SELECT SUBSTR(o.kind, 1, 6) FROM report_object o WHERE o.id = d.object_id), '') <> 'review'"""


def worklist_view(
    tells_of_commitment: bool = True, more: str = "", joined: str = "", without_reviews: bool = False
) -> str:
    """The statement that makes the view `worklist`, which tells of storage commitment from revision 0003 on.

    `more`: further columns, each with a comma before it; `joined`: the tables that they come from.
    `without_reviews`: what it tells of deliveries is that of reports, since revision 0016, where reviews are sent too.
    """
    stage, time = (_COMMITTED, _COMMITTED_AT) if tells_of_commitment else ("", "")
    of_report = _NO_REVIEW if without_reviews else ""
    at = time.format(of_report=of_report) + more
    return _WORKLIST.format(committed=stage, committed_at=at, joined=joined, of_report=of_report)


def required(kind: Any, *names: str, default: str | None = None) -> list[sa.Column[Any]]:
    """Columns of this type that are never null; rows that are there already get the `default`."""
    return [sa.Column(name, kind, nullable=False, server_default=default) for name in names]


def optional(kind: Any, *names: str) -> list[sa.Column[Any]]:
    """Columns of this type that may be null."""
    return [sa.Column(name, kind, nullable=True) for name in names]


def create_table(
    name: str, *columns: list[sa.Column[Any]], refers: tuple[str, ...] = (), unique: tuple[str, ...] = ()
) -> None:
    """The table is there: with a primary key `id`, foreign keys (`refers`: TABLE_id each) and one unique key."""
    foreign = [sa.ForeignKeyConstraint([column], [f"{column.removesuffix('_id')}.id"]) for column in refers]
    keys = [*foreign, sa.PrimaryKeyConstraint("id"), *([sa.UniqueConstraint(*unique)] if unique else [])]
    op.create_table(name, *required(INTEGER, "id"), *(each for group in columns for each in group), *keys)


def add_columns(table: str, *columns: list[sa.Column[Any]]) -> None:
    """The table has these columns too."""
    for column in (each for group in columns for each in group):
        op.add_column(table, column)


def create_indexes(table: str, *columns: str) -> None:
    """Each of the columns has an index of its own."""
    for column in columns:
        op.create_index(f"ix_{table}_{column}", table, [column])


def drop_columns(table: str, *columns: str) -> None:
    """The table has none of the columns any longer."""
    for column in columns:
        op.drop_column(table, column)
