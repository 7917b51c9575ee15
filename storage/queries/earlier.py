"""What else is known of a case's patient: the cases of his other studies, the newest first."""

from typing import Any

from storage.database.plain import Reading
from storage.queries.worklist import Row, typed

MOST_EARLIER = 20
_EARLIER = """
SELECT case_id, study_date, study_time, study_instance_uid, outcome, reason, model, lesions, p_present, threshold,
    limits
FROM (
    SELECT w.*, s.study_time FROM series s JOIN worklist w ON w.case_id = s.id
    WHERE s.patient_id = :patient_id AND s.issuer_of_patient_id = :issuer AND s.study_instance_uid <> :study
        AND s.study_date <= :study_date AND s.outcome IN ('positive', 'negative', 'not_analysed')
) known
WHERE study_date < :study_date OR study_time < :study_time
ORDER BY study_date DESC, study_time DESC, priority, case_id LIMIT :most
"""
_STUDY_TIME = "SELECT study_time FROM series WHERE id = :case_id"


class Earlier:
    """Reads only."""

    def __init__(self, reading: Reading) -> None:
        """`reading` opens a transaction on the database."""
        self._reading = reading

    def cases(self, row: Row, most: int = MOST_EARLIER) -> list[Row]:
        """The cases of earlier studies of the same Patient ID and issuer, newest first; none where the ID is empty."""
        if not row["patient_id"] or not row["study_date"]:
            return []
        asked: dict[str, Any] = {
            "patient_id": row["patient_id"],
            "issuer": row["issuer_of_patient_id"],
            "study": row["study_instance_uid"],
            "study_date": row["study_date"],
        }
        with self._reading() as select:
            [own] = select(_STUDY_TIME, case_id=row["case_id"]) or [{"study_time": ""}]
            return [typed(each) for each in select(_EARLIER, **asked, study_time=own["study_time"], most=most)]
