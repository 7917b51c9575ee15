"""What the database knows of the node's health, in plain SQL: asked without importing SQLAlchemy."""

import json
from datetime import UTC, datetime
from typing import Any

from storage.database.plain import Reading
from storage.running import CanaryEnd, PeerAnswer, Process, ResultsGivenUp, UploadsWaiting, Waiting

_WAITING = """
SELECT
    (SELECT MIN(created_at) FROM delivery WHERE stage = 'pending') AS oldest_pending_at,
    (SELECT COUNT(*) FROM delivery WHERE stage = 'dead') AS dead,
    (SELECT COUNT(*) FROM notification WHERE stage = 'dead') AS dead_notifications,
    (SELECT MIN(created_at) FROM notification WHERE stage = 'pending' AND last_error <> '') AS oldest_refused_at,
    (SELECT MIN(ready_at) FROM series WHERE NOT canary AND stage = 'ready') AS oldest_ready_at,
    (SELECT MAX(detail) FROM series WHERE NOT canary AND stage = 'ready' AND outcome IS NULL AND detail <> '') AS held_up
"""
_CANARY = "SELECT * FROM canary WHERE ended_at IS NOT NULL AND (seconds IS NOT NULL OR trouble <> '') ORDER BY id DESC LIMIT 1"
_UNANSWERED = """
SELECT COUNT(*) AS number FROM canary WHERE ended_at IS NOT NULL
AND id > COALESCE((SELECT MAX(id) FROM canary WHERE seconds IS NOT NULL OR trouble <> ''), 0)
"""

_RESULTS_GIVEN_UP = """
WITH lately AS (
    SELECT calling_ae, created_at, next_attempt_at, answered_at, last_error FROM commitment_request ORDER BY id DESC LIMIT 200
)
SELECT calling_ae, COUNT(*) AS number, MAX(created_at) AS asked_at, MAX(last_error) AS error FROM lately g
WHERE answered_at IS NULL AND next_attempt_at IS NULL
AND NOT EXISTS (SELECT 1 FROM lately l WHERE l.calling_ae = g.calling_ae AND l.answered_at > g.created_at)
GROUP BY calling_ae ORDER BY calling_ae
"""
"""Among the latest alone: there is no index for it, and a request may name thousands of instances."""


_UPLOADS = """
SELECT folder, COUNT(*) AS number, MIN(created_at) AS oldest_at, MAX(last_error) AS error FROM upload
WHERE next_attempt_at IS NOT NULL AND uploaded_at IS NULL AND removed_at IS NULL GROUP BY folder ORDER BY folder
"""


def uploads(reading: Reading) -> list[UploadsWaiting]:
    """What waits for the object store in each folder."""
    with reading() as select:
        rows = select(_UPLOADS)
    return [UploadsWaiting(row["folder"], row["number"], _time(row["oldest_at"]), row["error"]) for row in rows]


def drifted(reading: Reading) -> list[str]:
    """What of which scanner is not as it was, in a line each."""
    with reading() as select:
        rows = select("SELECT site, scanner, message, noticed_at FROM drift ORDER BY id")
    return [f"{row['scanner']} of {row['site']}: {row['message']}, since {str(row['noticed_at'])[:10]}" for row in rows]


def canary(reading: Reading) -> CanaryEnd | None:
    """What came of the last one of which that is known."""
    with reading() as select:
        for row in select(_CANARY):
            return CanaryEnd(_time(row["sent_at"]), _time(row["ended_at"]), row["seconds"], row["trouble"])
    return None


def results_given_up(reading: Reading) -> list[ResultsGivenUp]:
    """Of every peer that has had no result of a storage commitment since, those that it was not sent."""
    with reading() as select:
        rows = select(_RESULTS_GIVEN_UP)
    return [ResultsGivenUp(row["calling_ae"], row["number"], _time(row["asked_at"]), row["error"]) for row in rows]


def unanswered_canaries(reading: Reading) -> int:
    """How many were sent after that one and ended without an answer."""
    with reading() as select:
        [row] = select(_UNANSWERED)
    return int(row["number"])


def processes(reading: Reading) -> list[Process]:
    """Every process that runs or ended without saying so."""
    with reading() as select:
        return [
            Process(**{**row, "started_at": _time(row["started_at"]), "beat_at": _time(row["beat_at"]),
                       "details": _json(row["details"])})
            for row in select("SELECT * FROM process ORDER BY role, name")
        ]  # fmt: skip


def peers(reading: Reading) -> list[PeerAnswer]:
    """Every peer that was asked by every host, and what came of it."""
    with reading() as select:
        return [
            PeerAnswer(
                row["peer"],
                row["host"],
                _time(row["asked_at"]),
                row["answered_at"] and _time(row["answered_at"]),
                row["error"],
            )
            for row in select("SELECT * FROM peer_answer ORDER BY peer, host")
        ]


def waiting(reading: Reading) -> Waiting:
    """What waits for too long, or for a person."""
    with reading() as select:
        [row] = select(_WAITING)
    times = ("oldest_pending_at", "oldest_ready_at", "oldest_refused_at")
    oldest: dict[str, Any] = {name: row[name] and _time(row[name]) for name in times}
    numbers = {name: row[name] for name in ("dead", "dead_notifications")}
    return Waiting(**oldest, **numbers, held_up=row["held_up"] or "")


def _time(value: Any) -> datetime:
    """An aware time in UTC, of what SQLite keeps as text."""
    return (datetime.fromisoformat(value) if isinstance(value, str) else value).replace(tzinfo=UTC)


def _json(value: Any) -> dict[str, Any]:
    return dict(json.loads(value) if isinstance(value, str) else value)
