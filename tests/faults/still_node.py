"""`python -m tests.faults.still_node …`: `willis …` whose heartbeat is heard at its start alone.

Of two transactions that commit at once nobody knows which was first: nothing commits beside what is recorded.
"""

from node.cli.main import app
from node.runtime import heartbeat

if __name__ == "__main__":
    heartbeat.PERIOD_SECONDS = 3600.0
    app()
