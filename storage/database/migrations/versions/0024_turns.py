"""In which turn a series that is ready is claimed, so that each site has one in a turn."""

import sqlalchemy as sa
from alembic import op

from storage.database.history import INTEGER, drop_columns

revision, down_revision = "0024", "0023"

_ANALYSIS = sa.text("stage = 'ready' OR stage = 'analysing'")
_SMALL = {"site": ["stage", "calling_ae", "turn"], "attempts": ["stage", "attempts", "turn"]}
_IN_TURN = """
UPDATE series SET turn = waiting.turn FROM (
    SELECT id, ROW_NUMBER() OVER (PARTITION BY calling_ae ORDER BY ready_at, id) AS turn
    FROM series WHERE stage = 'ready' AND NOT canary
) AS waiting WHERE waiting.id = series.id
"""


def upgrade() -> None:
    op.add_column("series", sa.Column("turn", INTEGER, nullable=False, server_default="0"))
    op.execute(_IN_TURN)
    op.drop_index("ix_series_stage", "series")
    op.create_index("ix_series_stage", "series", ["stage", "canary", "turn", "ready_at"])
    for name, columns in _SMALL.items():
        op.create_index(
            f"ix_series_ready_{name}", "series", columns, sqlite_where=_ANALYSIS, postgresql_where=_ANALYSIS
        )


def downgrade() -> None:
    for name in ("ready_site", "ready_attempts", "stage"):
        op.drop_index(f"ix_series_{name}", "series")
    drop_columns("series", "turn")
    op.create_index("ix_series_stage", "series", ["stage", "ready_at"])
